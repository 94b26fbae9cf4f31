"""Fixtures every kind of test may use. The broker is real and shared: one a session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog

from solvent.ops.kafka import LocalKafka
from support.broker import Broker, own_prefix, running_kafka


def pytest_configure() -> None:
    """Forget the caller's settings, so that the suite sees defaults; the jar cache may stay."""
    for name in [n for n in os.environ if n.startswith("SOLVENT_") and n != "SOLVENT_CACHE_DIR"]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def logging_to_pytest() -> None:
    """Undo what a command run in this process configured: it writes to a stream now closed."""
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())


@pytest.fixture(scope="session")
def local_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """The session's Kafka node on free ports; stopped by pid at the end."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as local:
        yield local


@pytest.fixture
def kafka(local_kafka: LocalKafka, request: pytest.FixtureRequest) -> Broker:
    """The session's Kafka with a topic prefix of this test's own. Mark such tests ``kafka``."""
    return Broker(local_kafka.bootstrap_servers, local_kafka, own_prefix(request.node.nodeid))
