"""Safe moves by hand, their levels, and which units a frame judges."""

from __future__ import annotations

import math

import pytest

from solvent.domain.verdict import Verdict
from solvent.kernel.evaluate import evaluate_units
from solvent.kernel.layout import (
    STATUS_HEALTHY,
    STATUS_LIQUIDATING,
    STATUS_MARGIN_CALL,
)
from solvent.kernel.safe_move import (
    LEVEL_HOT,
    LEVEL_TOP,
    LEVELS,
    feed_bit,
    level_of,
    move_of,
    safe_move_of,
)
from support.books import Book, a_long, an_account, judge, marks_of, pack, some_rules
from support.margin import Log, Replay

RULES = some_rules()  # BTC-PERP: initial 5 %, maintenance 2.5 %, liquidation end 3.5 %


def evaluated(book: Book, prices: dict[str, str], status: int = 0, unusable: tuple[str, ...] = ()):
    """Return the level and the feed mask of a book after the readable kernel."""
    columns = pack([book], RULES)
    columns.units.status[0] = status
    evaluate_units(
        columns.units, 1, columns.positions, columns.balances, columns.orders, RULES.rules,
        marks_of(RULES, prices, unusable=unusable), RULES.workspace(), columns.figures, 0, 1,
    )  # fmt: skip
    return int(columns.figures.level[0]), int(columns.figures.feeds[0])


def mask(*feeds: str) -> int:
    return sum(feed_bit(RULES.feed_by_name[name].index) for name in feeds)


# -- levels


def test_levels_are_quarters_of_doublings_from_1_2_basis_points_to_500_percent() -> None:
    moves = [move_of(level) for level in range(1, LEVELS)]
    assert moves[:6] == [2**-13 * step for step in (1, 1.25, 1.5, 1.75, 2, 2.5)]
    assert moves[-1] == 5.0
    assert moves == sorted(moves)


@pytest.mark.parametrize("level", range(1, LEVELS))
def test_level_of_move_at_below_and_above_each_step(level: int) -> None:
    move = move_of(level)
    assert level_of(math.nextafter(move, 0)) == level - 1
    assert level_of(move) == level
    assert level_of(math.nextafter(move, 10)) == level


@pytest.mark.parametrize(
    ("safe_move", "level"),
    [(math.nan, LEVEL_HOT), (-math.inf, LEVEL_HOT), (0.0, LEVEL_HOT), (math.inf, LEVEL_TOP)],
)
def test_level_of_what_is_no_move_is_hot_and_of_any_move_is_top(
    safe_move: float, level: int
) -> None:
    assert level_of(safe_move) == level


# -- safe moves


def test_safe_move_takes_rounding_off_first() -> None:
    # 8 micros for floors, (2 terms + 8) * 2^-48 of 2^48 micros for float arithmetic
    assert safe_move_of(2**30 + 8 + 10, 2.0**48, 0.0, 2) == 2**30 / 2**48
    assert safe_move_of(17, 2.0**48, 0.0, 2) < 0


def test_safe_move_keeps_amounts_within_the_exact_range() -> None:
    # swing and the rest are 2^52 in all: the swing may double before 2^53 is reached, not more
    assert safe_move_of(2**53, 2.0**51, 2.0**51, 0) < 2.0
    assert safe_move_of(2**53, 2.0**51, 2.0**51, 0) > 1.9999


# 1 BTC bought at 60,000, 9,000 USDC. At 60,000: health(initial) 9,000 - 3,000 = 6,000, at the
# liquidation end 9,000 - 2,100 = 6,900, at maintenance 9,000 - 1,500 = 7,500, raw equity 9,000.
LONG = an_account(usdc="9000", legs=[a_long("BTC-PERP", 10_000, cost_usd="60000")])


def test_healthy_long_may_move_by_its_smallest_distance_over_its_swing() -> None:
    # swing 60,000 * (1 + 2 * 5 %) = 66,000; 6,000 / 66,000 = 9.09 %; the level below is 5/64
    level, feeds = evaluated(LONG, {"BTC-PERP": "60000"})
    assert move_of(level) == 5 / 64 <= 6_000 / 66_000 < move_of(level + 1)
    assert feeds == mask("BTC-PERP")


@pytest.mark.parametrize(
    ("price", "verdict"),
    [
        ("55312.5", Verdict.HEALTHY),  # -5/64
        ("64687.5", Verdict.HEALTHY),  # +5/64
        ("53685", Verdict.HEALTHY),  # 9,000 - 6,315 - 2,684.25 = 0.75
        ("53683", Verdict.MARGIN_CALL),  # 9,000 - 6,317 - 2,684.15 < 0
    ],
)
def test_verdict_of_that_long_holds_within_the_move_and_not_far_beyond(
    price: str, verdict: Verdict
) -> None:
    assert judge(LONG, RULES, marks_of(RULES, {"BTC-PERP": price})).verdict == verdict


def test_collateral_and_debt_move_too() -> None:
    # 2 ETH at 2,000 (weights 0.88 and 0.92) and -1 BTC at 1,000 (debt at weight 1): swing 5,000;
    # health(initial) 3,520 - 1,000 = 2,520 is the smallest, 50.4 %; the level below is 1/2
    account = an_account(eth="2", btc="-1")
    level, feeds = evaluated(account, {"ETH/USD": "2000", "BTC/USD": "1000"})
    assert move_of(level) == 1 / 2
    assert feeds == mask("ETH/USD", "BTC/USD")


def test_margin_call_counts_the_distance_to_where_it_clears() -> None:
    # 3,060 USDC: health(initial) 60; the call clears at 1 % of 3,000, 30 below; 30 / 66,000
    account = an_account(usdc="3060", legs=LONG.legs)
    healthy, _ = evaluated(account, {"BTC-PERP": "60000"}, STATUS_HEALTHY)
    called, _ = evaluated(account, {"BTC-PERP": "60000"}, STATUS_MARGIN_CALL)
    in_liquidation, _ = evaluated(account, {"BTC-PERP": "60000"}, STATUS_LIQUIDATING)
    assert level_of(60 / 66_000) == healthy
    assert level_of(30 / 66_000) == called == in_liquidation < healthy


def test_bankrupt_unit_counts_the_distance_to_raw_equity() -> None:
    # at 59,000 without collateral: raw equity -1,000, health -2,475 to -3,950, swing 64,900
    level, _ = evaluated(an_account(legs=LONG.legs), {"BTC-PERP": "59000"}, STATUS_LIQUIDATING)
    assert level == level_of(1_000 / 64_900)


def test_unit_at_a_threshold_is_hot() -> None:
    account = an_account(usdc="3000", legs=LONG.legs)  # health(initial) is 0
    assert evaluated(account, {"BTC-PERP": "60000"})[0] == LEVEL_HOT


def test_unit_without_prices_is_never_due() -> None:
    assert evaluated(an_account(usdc="5"), {}) == (LEVEL_TOP, 0)
    assert evaluated(an_account(), {}) == (LEVEL_TOP, 0)


def test_blind_unit_waits_for_its_feed() -> None:
    level, feeds = evaluated(LONG, {"BTC-PERP": "60000"}, unusable=("BTC-PERP",))
    assert (level, feeds) == (LEVEL_TOP, mask("BTC-PERP"))


def test_unpriced_collateral_counts_nothing_and_is_waited_for() -> None:
    account = an_account(usdc="9000", eth="100", legs=LONG.legs)
    prices = {"BTC-PERP": "60000", "ETH/USD": "2000"}
    level, feeds = evaluated(account, prices, unusable=("ETH/USD",))
    assert move_of(level) == 5 / 64
    assert feeds == mask("BTC-PERP", "ETH/USD")


def test_amounts_beyond_the_exact_range_are_hot() -> None:
    account = an_account(legs=[a_long("BTC-PERP", 2**53, cost_usd="0")])
    assert evaluated(account, {"BTC-PERP": "9000000"})[0] == LEVEL_HOT


# -- which units a frame judges (rates 1/4, 3/16, 1/8; a short path through the shard)


def judged(replay: Replay, log: Log) -> int:
    """Apply what a log gained and return how many units its last frame judged."""
    entries = log.entries[len(replay.seen) :]
    for topic, record in entries:
        replay.apply(topic, [record])
    return replay.shard.safe_moves.judged


def a_log_of_three() -> Log:
    """Two longs and one account with USDC alone, then marks at which they were bought."""
    log = Log()
    for name, amount in (("far", "110"), ("near", "26"), ("idle", "100")):
        log.move(name, amount=amount)
    log.trade("far").trade("near")
    return log.marks({"BTC": "100", "ETH": "50"})


def test_frame_judges_only_units_whose_move_it_exceeds() -> None:
    # near: health(initial) 26 - 25 = 1, swing 150, 1/150 -> 3/512, band 0.29 %
    # far: health(initial) 110 - 25 = 85, swing 150, 57 % -> 1/2, band 20 %
    log, replay = a_log_of_three(), Replay()
    assert judged(replay, log) == 3  # the first frame judges all
    assert judged(replay, log.marks({"BTC": "100.29"})) == 0
    assert judged(replay, log.marks({"BTC": "100.30"})) == 1
    assert judged(replay, log.marks({"ETH": "90"})) == 0  # nobody depends on it
    assert judged(replay, log.marks({"BTC": "119.99"})) == 1
    assert judged(replay, log.marks({"BTC": "120.01"})) == 1
    assert judged(replay, log.marks({"BTC": "160"})) == 2


def test_frame_judges_units_of_a_feed_that_ceases_to_be_usable_and_comes_back() -> None:
    log, replay = a_log_of_three(), Replay()
    judged(replay, log)
    assert judged(replay, log.marks({"BTC": "100"}, state="stale")) == 2
    assert judged(replay, log.marks({"BTC": "100"}, state="stale")) == 2  # their status changed
    assert judged(replay, log.marks({"BTC": "100"}, state="stale")) == 0
    assert judged(replay, log.marks({"BTC": "100"})) == 2


def test_open_case_is_judged_when_its_offer_expires() -> None:
    log, replay = a_log_of_three(), Replay()
    judged(replay, log)
    assert judged(replay, log.marks({"BTC": "80"}, at_s=1)) == 2  # near: equity 6, required 10
    assert judged(replay, log.marks({"BTC": "80"}, at_s=2)) == 1  # its status changed
    assert judged(replay, log.marks({"BTC": "80"}, at_s=60)) == 0
    assert judged(replay, log.marks({"BTC": "80"}, at_s=61)) == 1
    replay.cut()
    events = [(e["event"], e["reason"]) for e in replay.events("liquidations.v1")]
    assert events == [("opened", "liquidatable"), ("revised", "expired")]


def test_open_case_that_a_trade_changed_before_the_next_frame_expires_too() -> None:
    log, replay = a_log_of_three(), Replay()
    judged(replay, log)
    assert judged(replay, log.marks({"BTC": "80"}, at_s=1)) == 2
    log.trade("near", side="sell", size="0.5", price="80")  # equity 6 again, required 5: recovered
    log.trade("near", size="0.5", price="80")  # and liquidated anew
    assert judged(replay, log.marks({"BTC": "80"}, at_s=2)) == 1
    assert judged(replay, log.marks({"BTC": "80"}, at_s=3)) == 0
    log.trade("near", size="0.5", price="80")  # no change of status: a ledger change alone
    log.trade("near", size="0.5", price="80")
    assert judged(replay, log.marks({"BTC": "80"}, at_s=4)) == 1
    assert judged(replay, log.marks({"BTC": "80"}, at_s=62)) == 0
    assert judged(replay, log.marks({"BTC": "80"}, at_s=63)) == 1
    replay.cut()
    last = replay.events("liquidations.v1")[-1]
    assert (last["event"], last["reason"]) == ("revised", "expired")


def test_quarantined_account_is_never_judged_again() -> None:
    log, replay = a_log_of_three(), Replay()
    judged(replay, log)
    log.trade("near", seq=5).trade("near", seq=9)
    assert judged(replay, log.marks({"BTC": "100"})) == 1
    assert judged(replay, log.marks({"BTC": "100"})) == 0
    assert judged(replay, log.marks({"BTC": "30"})) == 1  # far
