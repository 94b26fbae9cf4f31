"""The shard's own promises to the runtime: what a slice holds, what a restore refuses, severity."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.engine.margin import MarginShard
from solvent.engine.severity import Standing, by_severity
from solvent.engine.shard import Pending
from solvent.errors import ConfigError, InvariantError
from support.margin import Log, Replay, a_rulebook, a_shard


def test_slice_holds_marks_alone_then_rows_then_news_as_things_change() -> None:
    replay = Replay().run(Log().move(amount="100").trade(size="4", price="100"))
    log = Log().marks({"BTC": "104", "ETH": "1", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)
    (_, first), (_, second) = log.entries
    assert replay.shard.pending is Pending.MARKS
    replay.apply("marks.v1", [first])
    assert replay.shard.pending is Pending.MARKS
    replay.apply("marks.v1", [second])  # opens a case
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
