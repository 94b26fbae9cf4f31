"""Taking lanes over on the real broker when a rebalance follows on the heels of the last."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from faust.types import TP

from solvent.engine.journal import CLAIM_KEY
from solvent.runtime.lane import LaneLimits
from solvent.runtime.lanes import Lanes
from solvent.wire.topics import ACCOUNTS
from support.broker import Broker
from support.processes import Child
from support.reading import read_topic
from support.toy import toy_specs
from support.waiting import wait_for

pytestmark = [pytest.mark.kafka]


@pytest.fixture
async def lanes(kafka: Broker) -> AsyncIterator[Lanes]:
    made = Lanes(
        toy_specs(),
        app_id=f"{kafka.prefix}app",
        instance="one",
        bootstrap_servers=kafka.bootstrap_servers,
        topics=kafka.apply_topics(1),
        limits=LaneLimits(),
    )
    yield made
    await made.drop()


async def test_take_over_cut_short_within_a_claim_does_not_spoil_the_next(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {TP(lanes.topics.physical(t), 0) for s in lanes.specs.values() for t in s.inputs}
    await lanes.take_over(inputs, 1)
    await lanes.revoke()

    within = asyncio.Event()

    async def never(producer: Any) -> None:
        within.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(AIOKafkaProducer, "commit_transaction", never)
        second = asyncio.create_task(lanes.take_over(inputs, 2))
        await asyncio.wait_for(within.wait(), 30)
        second.cancel()  # as Faust's recovery does when the group changes again
        with pytest.raises(asyncio.CancelledError):
            await second

    await lanes.revoke()
    await asyncio.wait_for(lanes.take_over(inputs, 3), 60)
    assert [len(lanes.open_lanes(agent)) for agent in lanes.specs] == [1, 1]


async def test_worker_that_joined_while_the_broker_knew_no_topics_takes_them_over_later(
    kafka: Broker, tmp_path: Path
) -> None:
    """As after a restart of the broker: its first answers may name no topic at all."""
    topics = kafka.topics(1)
    env = {
        "TOY_APP": f"{kafka.prefix}app",
        "TOY_INSTANCE": "one",
        "TOY_BROKER": kafka.bootstrap_servers,
        "TOY_PREFIX": kafka.prefix,
        "TOY_PARTITIONS": "1",
        "TOY_DATA": str(tmp_path),
        "TOY_SLICE": "100",
        "TOY_BACKLOG": "200",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    log = tmp_path / "worker.log"
    worker = Child([sys.executable, "-m", "support.toy"], env=env, log=log)
    try:
        wait_for(log.read_text, lambda text: "worker_ready" in text, 60.0)
        kafka.apply_topics(1)
        wait_for(log.read_text, lambda text: "'margin-0'" in text and "'prices-0'" in text, 60.0)
    finally:
        worker.ensure_gone()
    assert any(
        r.key == CLAIM_KEY for r in read_topic(kafka.bootstrap_servers, topics.physical(ACCOUNTS))
    )
