"""The shard's own promises to the runtime: what a slice holds, what a restore refuses, severity."""

from __future__ import annotations

import itertools
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.engine.margin import MarginShard
from solvent.engine.severity import Standing, by_severity
from solvent.engine.shard import Pending
from solvent.errors import ConfigError, InvariantError
from support.margin import NOW_US, Log, Replay, a_rulebook, a_shard


def test_slice_holds_marks_alone_then_rows_then_news_as_things_change() -> None:
    replay = Replay().run(Log().move(amount="100").trade(size="4", price="100"))
    log = Log().marks({"BTC": "104", "ETH": "1", "ODD": "1"}).marks({"BTC": "103"})
    (_, first), (_, second), (_, third) = log.marks({"BTC": "84"}).entries
    assert replay.shard.pending is Pending.MARKS
    replay.apply("marks.v1", [first])  # the first of its second: a watermark
    assert replay.shard.pending is Pending.MARKS
    assert [emit.topic for emit in replay.cut().records] == ["liquidation-state.v1"]
    replay.apply("marks.v1", [second])
    assert replay.shard.pending is Pending.MARKS
    replay.apply("marks.v1", [third])  # opens a case
    assert replay.shard.pending is Pending.NEWS
    replay.cut()
    assert replay.shard.pending is Pending.MARKS
    topic, deposit = Log().move("bob", amount="1").entries[0]
    replay.apply(topic, [deposit])
    assert replay.shard.pending is Pending.ROWS
    replay.cut()
    assert replay.shard.pending is Pending.MARKS


def test_resume_of_state_under_another_rulebook_is_refused() -> None:
    replay = Replay().run(Log().move())
    state = replay.state | {"rulebook": {"id": "old", "version": 7, "hash": "ab" * 32}}
    with pytest.raises(ConfigError, match="built under the rulebook of hash abababababab"):
        a_shard().resume({}, state)


def test_resume_of_partition_without_a_slice_starts_at_positions() -> None:
    shard = a_shard()
    shard.resume({"trades.v1": 5, "collateral.v1": 0, "marks.v1": 0}, {})
    assert list(shard.keys()) == []
    assert shard.cut().state["offsets"]["trades.v1"] == 5


def test_topic_that_is_no_input_is_our_bug() -> None:
    log = Log().move()
    with pytest.raises(InvariantError, match=r"oracle-ticks\.v1"):
        MarginShard(0, a_rulebook()).apply("oracle-ticks.v1", [log.entries[0][1]])


def standing(account_id: str, equity: int, required: int, *, bankrupt: bool = False) -> Standing:
    return Standing(0, bankrupt, equity, required, account_id.encode(), -1)


def is_worse(a: Standing, b: Standing) -> bool:
    """As the model says it: by cross products of whole numbers."""
    if a.is_bankrupt != b.is_bankrupt:
        return a.is_bankrupt
    left, right = a.equity_micros * b.requirement_micros, b.equity_micros * a.requirement_micros
    if left == right:
        if a.requirement_micros == b.requirement_micros == 0:
            left, right = a.equity_micros, b.equity_micros
        else:
            left, right = b.requirement_micros, a.requirement_micros
    return left < right if left != right else a.account_key < b.account_key


amounts = st.integers(-20, 20) | st.integers(2**53 - 20, 2**53) | st.integers(-(2**53), 2**53)
standings = st.builds(
    standing,
    st.text("ab", min_size=1, max_size=9),
    amounts,
    amounts.map(abs),
    bankrupt=st.booleans(),
)


@given(st.lists(standings, max_size=30, unique_by=lambda s: s.account_key))
def test_severity_never_puts_a_worse_unit_after_a_better(some: list[Standing]) -> None:
    order = by_severity(some)
    assert sorted(order) == sorted(some)
    assert all(is_worse(a, b) for a, b in itertools.pairwise(order))


def test_severity_orders_worst_first_whatever_the_input_order() -> None:  # I14
    expected = [
        standing("z", -9, 10, bankrupt=True),
        standing("y", -1, 10, bankrupt=True),
        standing("a", -5, 0),
        standing("b", 1, 10),
        standing("c", 10**15, 10**16 - 1),  # a hair above a tenth: floats cannot tell
        standing("d", 9, 10),
        standing("e", 90, 101),
        standing("k", 0, 0),
        standing("l", 5, 0),
    ]
    expected[5:7] = sorted(expected[5:7], key=lambda s: s.equity_micros / s.requirement_micros)
    chance = random.Random(3)
    for _ in range(200):
        shuffled = chance.sample(expected, len(expected))
        assert by_severity(shuffled) == expected


def test_severity_tie_goes_to_larger_requirement_then_lower_account() -> None:
    expected = [standing("b", 2, 4), standing("a", 1, 2), standing("c", 1, 2)]
    for order in itertools.permutations(expected):
        assert by_severity(order) == expected


def states_of(replay: Replay) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Keys and values of what was said to stand, and of watermarks."""
    return [
        (emit.key, None if emit.value is None else orjson.loads(emit.value))
        for emit in replay.records
        if emit.topic == "liquidation-state.v1"
    ]


def test_first_frame_of_each_second_tells_a_watermark_with_cases_and_positions() -> None:
    log = Log().move(amount="100").trade(size="4", price="100")
    log.marks({"BTC": "104", "ETH": "1", "ODD": "1"}).marks({"BTC": "103"}).marks({}, at_s=1)
    log.marks({"BTC": "84"}, at_s=1).marks({}, at_s=4).marks({}, at_s=3)
    log.marks({"BTC": "104"}, at_s=5)
    told = states_of(Replay().run(log))
    marks = [value for key, value in told if key == b"\0watermark" and value is not None]
    # frames of seconds 0 0 1 1 4 (3) 5: the late one moves no time; the case stands from 1 to 5
    assert [
        (m["mark_seq"], (m["ts_us"] - NOW_US) // 1_000_000, m["open_cases"]) for m in marks
    ] == [(1, 0, 0), (3, 1, 0), (5, 4, 1), (7, 5, 0)]
    assert marks[2]["inputs"] == {"trades.v1": 1, "collateral.v1": 1, "marks.v1": 5}


def test_watermark_follows_what_its_frame_brought() -> None:
    log = Log().move(amount="100").trade(size="4", price="100")
    log.marks({"BTC": "104", "ETH": "1", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)
    records = Replay().run(log).records
    assert [(e.topic, e.key) for e in records[-3:]] == [
        ("liquidations.v1", b"alice"),
        ("liquidation-state.v1", b"alice:cross"),
        ("liquidation-state.v1", b"\0watermark"),
    ]


def test_without_a_frame_there_is_no_watermark() -> None:
    assert states_of(Replay().run(Log().move().trade())) == []


def test_what_stands_is_the_last_revision_without_its_snapshot_and_ends_with_the_case() -> None:
    log = Log().move(amount="100").trade(size="4", price="100")
    log.marks({"BTC": "104", "ETH": "1", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)
    log.move(amount="1").pauses("BTC-PERP", at_s=2).marks({"BTC": "104"}, at_s=3)
    replay = Replay().run(log)
    told = [value for key, value in states_of(replay) if key == b"alice:cross"]
    events = replay.events("liquidations.v1")
    assert [e["event"] for e in events] == ["opened", "revised", "suspended", "recovered"]
    assert told[-1] is None
    for stands, event in zip(told[:-1], events, strict=False):
        assert stands is not None
        assert stands.pop("kind") == "case"
        assert stands.pop("inputs") == {"trades.v1": event["inputs"]["trades.v1"]}
        assert stands.items() <= event.items()
        assert {"legs", "expires_us", "revision", "rulebook", "ts_us"} <= stands.keys()
        assert "positions" not in stands
