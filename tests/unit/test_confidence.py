"""Confidence from tick to verdict (MODEL.md 3.2, C6): a source's doubt alone changes a status.

Alice holds 1 ETHER at 100, of which maintenance counts 7/8, and is long 1 BTC that she paid 60 more
for than it is worth: equity is 27.5, maintenance requires 1/8 of 100. Twenty times the confidence
comes off the coin's price, up to the 1 % of it that a feed may be unsure of.
"""

from __future__ import annotations

import json

import pytest

from solvent.engine.margin import MarginShard
from solvent.engine.prices import PriceShard
from solvent.kernel.safe_move import LEVEL_HOT
from solvent.rules import CompiledRulebook, parse_rulebook
from support.margin import Log, Replay, a_rulebook
from support.prices import Feeder


def a_doubting_rulebook() -> CompiledRulebook:
    model = a_rulebook().model.model_dump(mode="json", exclude_none=True)
    collateral = model["presets"]["cross-margin"]["collateral"]["ETHER"]
    collateral["price"] = {"confidence_k_ppm": 20_000_000, "confidence_most_ppm": 999_999}
    return parse_rulebook(json.dumps(model))


def a_chain() -> tuple[Feeder, Replay, Log]:
    """Return a feeder of the price side, and a margin side that knows Alice."""
    rulebook = a_doubting_rulebook()
    log, replay = Log(), Replay(MarginShard(0, rulebook))
    log.move(asset="ETHER", amount="1").trade(price="160")
    for topic, record in log.entries:
        replay.apply(topic, [record])
    return Feeder(PriceShard(rulebook)), replay, log


def follow(feeder: Feeder, replay: Replay, log: Log) -> None:
    """Take the frames of a slice of the price side."""
    for emit in feeder.cut().outputs.records:
        assert emit.topic == "marks.v1"
        log.add(emit.topic, emit.value, emit.key)
        replay.apply(emit.topic, [log.entries[-1][1]])
    replay.cut()


def statuses(replay: Replay) -> list[str]:
    return [event["status"] for event in replay.events("margin-status.v1")]


@pytest.mark.parametrize("is_restored", [False, True])
def test_status_follows_confidence_at_an_unchanged_price(is_restored: bool) -> None:
    feeder, replay, log = a_chain()
    feeder.tick("100", feed="BTC")
    feeder.tick("100", feed="ETH", confidence="0.1")
    follow(feeder, replay, log)  # 7/8 of 98 is 85.75, equity 25.75
    assert statuses(replay) == ["margin_call"]  # initial: 3/4 of 98 less 60 is 13.5, below 25
    if is_restored:
        replay.restore()
    feeder.tick("100", at=1, feed="ETH", confidence="0.9")
    follow(feeder, replay, log)  # 7/8 of 82 is 71.75, equity 11.75 below 12.5
    assert statuses(replay) == ["margin_call", "liquidating"]
    feeder.tick("100", at=2, feed="ETH", confidence="0.2")
    follow(feeder, replay, log)  # 7/8 of 96 is 84, equity 24, beyond where liquidation ends
    assert statuses(replay) == ["margin_call", "liquidating", "margin_call"]


def test_unit_whose_preset_asks_for_confidence_is_judged_at_every_frame() -> None:
    feeder, replay, log = a_chain()
    feeder.tick("100", feed="BTC")
    feeder.tick("100", feed="ETH", confidence="0.1")
    follow(feeder, replay, log)
    for at in range(1, 5):
        feeder.clock(at)  # a frame that tells nothing
        follow(feeder, replay, log)
        assert replay.shard.columns.figures.level[0] == LEVEL_HOT
        assert replay.shard.safe_moves.judged == 1
