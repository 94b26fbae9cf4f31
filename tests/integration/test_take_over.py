"""Taking lanes over on the real broker when a rebalance follows on the heels of the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from faust.types import TP

from solvent.runtime.lane import LaneLimits
from solvent.runtime.lanes import Lanes
from support.broker import Broker
from support.toy import toy_specs

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
