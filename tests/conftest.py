"""Fixtures every kind of test may use. The broker is real and shared: one a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from solvent.ops.kafka import LocalKafka
from support.broker import Broker, own_prefix, running_kafka


@pytest.fixture(scope="session")
def local_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """The session's Kafka node on free ports; stopped by pid at the end."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as local:
        yield local


@pytest.fixture
def kafka(local_kafka: LocalKafka, request: pytest.FixtureRequest) -> Broker:
    """The session's Kafka with a topic prefix of this test's own. Mark such tests ``kafka``."""
    return Broker(local_kafka.bootstrap_servers, local_kafka, own_prefix(request.node.nodeid))
