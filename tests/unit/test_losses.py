"""Insurance fund, deleveraging and socialised loss: E7 and E12 of the model, conservation."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from solvent.domain.losses import (
    Counterparty,
    deleverage_pro_rata,
    deleverage_queue,
    fund_change,
    queue_score,
    socialised_due,
    socialised_index,
    socialised_shares,
)
from solvent.errors import InvariantError

USD = 1_000_000


def test_e7_fund_gets_its_fee_above_bankruptcy_and_pays_the_gap_below() -> None:
    """Bankrupt at 22,400; filled for 22,900: min(500, 1.5 % of it = 343.50); for 22,250: 150."""
    given_ = {"bankrupt_micros": 22_400 * USD, "max_fee_ppm": 15_000}
    assert fund_change(fill_micros=22_900 * USD, **given_, available_micros=0) == (343_500_000, 0)
    assert fund_change(fill_micros=22_500 * USD, **given_, available_micros=0) == (100 * USD, 0)
    assert fund_change(fill_micros=22_250 * USD, **given_, available_micros=1_000 * USD) == (
        -150 * USD,
        0,
    )
    assert fund_change(fill_micros=22_250 * USD, **given_, available_micros=40 * USD) == (
        -40 * USD,
        110 * USD,
    )


# E12: 23 lots are needed
W1 = Counterparty("W1", 30, 1_800, 12_000, 13_800, 9_800)
W2 = Counterparty("W2", 10, 600, 2_400, 3_000, 2_700)
W3 = Counterparty("W3", 20, 900, 9_000, 9_900, 4_950)


def test_e12_pro_rata_12_545_4_182_6_273_and_one_by_largest_remainder() -> None:
    assert deleverage_pro_rata(23, [W1, W2, W3]) == {"W1": 13, "W2": 4, "W3": 6}


def test_e12_queue_scores_and_order() -> None:
    """L 3.45, 10, 2; pnl 15 %, 25 %, 10 %: 0.5175, 2.5, 0.2."""
    assert [queue_score(w) for w in (W1, W2, W3)] == [
        Fraction("0.5175"),
        Fraction("2.5"),
        Fraction("0.2"),
    ]
    assert deleverage_queue(23, [W1, W2, W3]) == {"W2": 10, "W1": 13}


def test_queue_puts_the_more_leveraged_loss_behind() -> None:
    losing = Counterparty("L", 5, -100, 1_000, 900, 450)  # -10 % / 2
    worse = Counterparty("M", 5, -100, 1_000, 900, 810)  # -10 % / 10
    assert (queue_score(losing), queue_score(worse)) == (Fraction(-1, 20), Fraction(-1, 100))
    assert deleverage_queue(8, [losing, worse]) == {"M": 5, "L": 3}


def test_what_is_missing_falls_on_the_rest_in_proportion() -> None:
    small = Counterparty("a", 1, 900, 1, 1, 0)
    rest = [Counterparty("b", 50, 60, 1, 1, 0), Counterparty("c", 50, 40, 1, 1, 0)]
    assert deleverage_pro_rata(11, [small, *rest]) == {"a": 1, "b": 6, "c": 4}


def test_too_few_lots_are_our_bug() -> None:
    with pytest.raises(InvariantError, match="deleveraging 61 lots"):
        deleverage_pro_rata(61, [W1, W2, W3])
    with pytest.raises(InvariantError, match="deleveraging 61 lots: 1 more"):
        deleverage_queue(61, [W1, W2, W3])


def test_socialised_index_pays_for_all_of_the_loss() -> None:
    """150 USD over 700 lots: 214,285.7142857 micros a lot, rounded up in picos."""
    index = socialised_index(150 * USD, 700)
    assert index == 214_285_714_286
    assert index * 700 >= 150 * USD * 1_000_000 > (index - 1) * 700


others = st.lists(
    st.builds(
        Counterparty,
        st.text("abcdef", min_size=1, max_size=4),
        st.integers(1, 1_000),
        st.integers(-(10**9), 10**9),
        st.integers(1, 10**9),
        st.integers(1, 10**9),
        st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda other: other.account_id,
)


@given(others, st.data())
def test_lots_sum_to_the_need_and_none_gives_more_than_it_has(  # I10
    some: list[Counterparty], data: st.DataObject
) -> None:
    winners = [other for other in some if other.pnl_micros > 0]
    held = {other.account_id: other.lots for other in some}
    assume(winners)
    need = data.draw(st.integers(0, sum(other.lots for other in winners)))
    for given_ in (deleverage_pro_rata(need, some), deleverage_queue(need, some)):
        assert sum(given_.values()) == need
        assert all(0 <= lots <= held[account] for account, lots in given_.items())
    assert deleverage_pro_rata(need, some) == deleverage_pro_rata(need, some[::-1])


@given(
    st.integers(-(10**12), 10**12),
    st.integers(-(10**12), 10**12),
    st.integers(0, 1_000_000),
    st.integers(0, 10**12),
)
def test_a_loss_is_borne_to_the_micro(fill: int, bankrupt: int, fee: int, available: int) -> None:
    change, left = fund_change(
        fill_micros=fill, bankrupt_micros=bankrupt, max_fee_ppm=fee, available_micros=available
    )
    assert change >= -available
    if fill >= bankrupt:
        assert 0 <= change <= fill - bankrupt
        assert left == 0
    else:
        assert -change + left == bankrupt - fill


def test_socialised_loss_by_equity_partition_by_partition() -> None:
    """15 over 500, 300 and 220: 7.352941.2, 4.411764.7 and 3.235294.1, each rounded up."""
    loss = {"loss_micros": 15 * USD, "base_micros": 1_020 * USD}
    dues = [
        socialised_due(**loss, weighed_micros=base * USD, own_micros=base * USD)
        for base in (500, 300, 220)
    ]
    assert dues == [7_352_942, 4_411_765, 3_235_295]
    # 10 of 500 are left: 10 * 15/1,020; 700 came to the 300: nothing more
    assert socialised_due(**loss, weighed_micros=500 * USD, own_micros=10 * USD) == 147_059
    assert socialised_due(**loss, weighed_micros=300 * USD, own_micros=1_000 * USD) == 4_411_765
    # of 7 over 1, 1 and 5: floor(7/7), floor(14/7) - 1, 5; of 4: 0.571, 1.143, 4
    assert socialised_shares(7, [1, 1, 5]) == [1, 1, 5]
    assert socialised_shares(4, [1, 1, 5]) == [0, 1, 3]
    assert socialised_shares(0, []) == []


@given(st.lists(st.integers(1, 10**14), min_size=1, max_size=20), st.data())
def test_shares_of_a_socialised_loss_sum_to_it_and_none_is_beyond_its_base(
    bases: list[int], data: st.DataObject
) -> None:
    due = data.draw(st.integers(0, sum(bases)))
    shares = socialised_shares(due, bases)
    assert sum(shares) == due
    for share, base in zip(shares, bases, strict=True):
        assert 0 <= share <= base
        assert abs(share - Fraction(due * base, sum(bases))) < 1


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), min_size=1, max_size=8),
    st.data(),
)
def test_partitions_gather_the_loss_and_less_than_a_micro_each_beyond_it(
    weighed_and_own: list[tuple[int, int]], data: st.DataObject
) -> None:
    base = sum(weighed for weighed, _ in weighed_and_own)
    assume(base)
    loss = data.draw(st.integers(1, base))
    dues = [
        socialised_due(loss_micros=loss, base_micros=base, weighed_micros=weighed, own_micros=own)
        for weighed, own in weighed_and_own
    ]
    assert all(due <= min(pair) for due, pair in zip(dues, weighed_and_own, strict=True))
    assert sum(dues) < loss + len(dues)
    if all(own >= weighed for weighed, own in weighed_and_own):
        assert sum(dues) >= loss
