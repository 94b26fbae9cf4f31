"""Phases, budgets and depth of offers through the margin shard, by visible arithmetic.

Each account: 100 USDC deposited, 4 BTC bought at 100. At 84 it is short of 27, and what restores it
is to sell 2 BTC: a lot of 0.5 is worth 42 and gives back 42 * (3/16 - 1 % - 0.5 %) = 7.245, so
4 lots, worth 168. Offers stand for 60 s; bankrupt below 75.
"""

from __future__ import annotations

from typing import Any

import pytest

from solvent.errors import ConfigError
from support.margin import SECOND_US, Log, Replay, a_successor

USD = 1_000_000

RELEASE = {"duration_us": 120 * SECOND_US, "initial_ppm": 250_000}
WINDOW = {"span_us": 100 * SECOND_US, "market_notional_per_partition_micros": 300 * USD}
#: An order moves BTC by 1 % * sqrt(x/V): at most 0.1 % is a hundredth of the volume, 126 USD.
DEPTH = {
    "max_impact_ppm": 1_000,
    "markets": {"BTC-PERP": {"daily_volume_micros": 12_600 * USD, "volatility_ppm": 10_000}},
}


def an_account(log: Log, name: str, deposit: str = "100") -> Log:
    return log.move(name, amount=deposit).trade(name, size="4", price="100")


def rationed(*names: str, **sections: Any) -> Log:
    """Return the position of each account, short of 27 from second 1 on."""
    rulebook = a_successor(presets={"cross-margin": {"liquidation": sections}})
    log = Log().rulebook(rulebook)
    for name in names or ("alice",):
        an_account(log, name)
    return log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)


def sold(log: Log, size: str, name: str = "alice", price: str = "84") -> Log:
    return log.trade(name, side="sell", size=size, price=price, liquidation_id=f"{name}:cross:1")


def told(log: Log) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Return account, event or reason, size offered ('' for nothing) and what is withheld."""
    return [
        (
            event["account_id"],
            event["event"] if event["event"] == "opened" else event["reason"],
            "".join(leg["size"] for leg in event["legs"]),
            [(each["size"], each["reason"]) for each in event["withheld"]],
        )
        for event in Replay().run(log).events("liquidations.v1")
        if event["event"] in {"opened", "revised"}
    ]


def test_release_offers_more_as_time_passes() -> None:
    log = rationed(release=RELEASE).marks({}, at_s=61).marks({}, at_s=121)
    assert told(log) == [
        ("alice", "opened", "0.5", [("1.5", "release")]),  # 25 % of 4 lots
        ("alice", "expired", "1.5", [("0.5", "release")]),  # 25 + 60/120 = 75 %
        ("alice", "expired", "2", []),  # 125 %, at most all
    ]
    events = Replay().run(log).events("liquidations.v1")
    assert [event["released_ppm"] for event in events] == [250_000, 750_000, 1_000_000]
    # what an order's share of the equity is changes with its size, its limit does not
    prices = [(leg["limit_price"], leg["bankruptcy_price"]) for e in events for leg in e["legs"]]
    assert prices == [("82", "75")] * 3


def test_what_a_fill_freed_counts_against_the_release() -> None:
    """A lot frees 27/4 = 6.75 and leaves 27 - 42 * 3/16 = 19.125 to be freed by 3 lots.

    At 25 %: 0.25 * (19.125 + 6.75) - 6.75 < 0; at 75 %: 0.75 * 25.875 - 6.75 = 12.656 of 19.125,
    two thirds of 3 lots are 1.98.
    """
    log = sold(rationed(release=RELEASE), "0.5").marks({}, at_s=61)
    assert told(log)[1:] == [
        ("alice", "progress", "", [("1.5", "release")]),
        ("alice", "expired", "0.5", [("1", "release")]),
    ]


def test_small_shortage_and_bankrupt_unit_are_not_phased() -> None:
    small = rationed(release=RELEASE | {"all_below_micros": 27 * USD + 1})
    assert told(small) == [("alice", "opened", "2", [])]
    bankrupt = rationed(release=RELEASE).marks({"BTC": "74"}, at_s=2)
    assert told(bankrupt)[1:] == [("alice", "bankrupt", "4", [])]


def test_dust_goes_with_the_last_phase() -> None:
    """What 2 BTC would leave is worth 168, less than 200: all 8 lots are planned, and offered."""
    log = rationed(release=RELEASE, dust_micros=200 * USD)
    assert told(log.marks({}, at_s=61).marks({}, at_s=121)) == [
        ("alice", "opened", "1", [("3", "release")]),
        ("alice", "expired", "3", [("1", "release")]),
        ("alice", "expired", "4", []),
    ]


def test_isolated_books_share_the_window_of_their_account() -> None:
    """168 of 200 for one book, and 32 are less than a lot for the other."""
    window = {"span_us": 100 * SECOND_US, "account_notional_micros": 200 * USD}
    rulebook = a_successor(presets={"cross-margin": {"liquidation": {"window": window}}})
    log = Log().rulebook(rulebook)
    for book in ("cross", "BTC-PERP"):
        log.move(amount="100", subaccount=book).trade(size="4", price="100", subaccount=book)
    log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)
    assert [(size, withheld) for _, _, size, withheld in told(log)] == [
        ("2", []),
        ("", [("2", "account_window")]),
    ]


def test_window_goes_to_the_worst_first_and_the_rest_waits() -> None:
    """300 of the market: 168 for alice, 126 of the 132 left for bob, 6 are less than a lot."""
    log = rationed("carol", "bob", "alice", window=WINDOW)
    assert told(log) == [
        ("alice", "opened", "2", []),
        ("bob", "opened", "1.5", [("0.5", "market_window")]),
        ("carol", "opened", "", [("2", "market_window")]),
    ]


def test_severity_decides_anew_when_offers_expire() -> None:
    """Nothing was filled; carol fell behind meanwhile and is served first at the renewal."""
    log = rationed("alice", "bob", "carol", window=WINDOW)
    log.move("carol", amount="1", kind="withdrawal").marks({}, at_s=61)
    assert told(log)[3:] == [
        ("carol", "ledger_changed", "", [("2", "market_window")]),
        ("carol", "expired", "2", []),
        ("alice", "expired", "1.5", [("0.5", "market_window")]),
        ("bob", "expired", "", [("2", "market_window")]),
    ]


def test_fills_use_the_window_for_its_span() -> None:
    """alice's 168 are used from second 1 to 101; bob's hold came back at 61.

    Alice has 1.875 left to free, so one lot more. At 61 bob may get 126 of 132 again; at 121 all
    of the 300 are free, and 168 of them are enough.
    """
    log = sold(rationed("alice", "bob", window=WINDOW), "2")
    log.marks({}, at_s=61).marks({}, at_s=121)
    offers = [each for each in told(log) if each[0] == "bob"]
    assert offers == [
        ("bob", "opened", "1.5", [("0.5", "market_window")]),
        ("bob", "expired", "1.5", [("0.5", "market_window")]),
        ("bob", "expired", "2", []),
    ]


def test_account_window_holds_for_all_markets_of_the_account() -> None:
    window = {"span_us": 100 * SECOND_US, "account_notional_micros": 100 * USD}
    assert told(rationed("alice", "bob", window=window)) == [
        ("alice", "opened", "1", [("1", "account_window")]),
        ("bob", "opened", "1", [("1", "account_window")]),
    ]


def test_bankrupt_unit_passes_the_window_but_uses_it() -> None:
    """At 74 bob is bankrupt and takes all 4 BTC, 296 of 300; alice owns 40 more and waits."""
    rulebook = a_successor(presets={"cross-margin": {"liquidation": {"window": WINDOW}}})
    log = an_account(an_account(Log().rulebook(rulebook), "alice", "140"), "bob")
    log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "74"}, at_s=1)
    bob, alice = told(log)
    assert bob == ("bob", "opened", "4", [])
    assert (alice[2], alice[3][0][1]) == ("", "market_window")


def bankrupt_beside_alice(**more: Any) -> Log:
    """At 74 bob and carol are bankrupt, with 4 BTC each worth 296; alice owns 40 more and waits."""
    rulebook = a_successor(presets={"cross-margin": {"liquidation": {"window": WINDOW | more}}})
    log = an_account(Log().rulebook(rulebook), "alice", "140")
    an_account(an_account(log, "bob"), "carol")
    return log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "74"}, at_s=1)


@pytest.mark.parametrize(
    ("bypass", "second"),
    [
        # 300 + 110 - 296 = 114: three lots of 37
        pytest.param(110, ("1.5", [("2.5", "bypass")]), id="in part"),
        pytest.param(292, ("4", []), id="just enough"),
        # what is left of the budget is bankrupt accounts' too, but 4 are less than a lot
        pytest.param(0, ("", [("4", "bypass")]), id="none beyond the budget"),
    ],
)
def test_bankrupt_units_take_no_more_than_budget_and_bypass(
    bypass: int, second: tuple[str, list[tuple[str, str]]]
) -> None:
    log = bankrupt_beside_alice(market_bypass_per_partition_micros=bypass * USD)
    bob, carol, alice = told(log)
    assert bob == ("bob", "opened", "4", [])
    assert carol == ("carol", "opened", *second)
    assert (alice[2], alice[3][0][1]) == ("", "market_window")


#: Windows begin at whole hundreds of seconds, and NOW_US is one: bob's 132 are too few at 1 and 61.
THROTTLED = WINDOW | {"throttle_after_windows": 2}


def test_market_is_throttled_after_exhausted_windows_until_one_is_quiet() -> None:
    log = rationed("alice", "bob", window=THROTTLED)
    log.marks({}, at_s=61)  # still the first window
    log.marks({}, at_s=121)  # the second: alice is served, and bob's is the second exhaustion
    log.marks({}, at_s=181)  # throttled at once, for both
    log.marks({}, at_s=241)  # the third window is to be quiet
    log.marks({}, at_s=299)
    log.marks({}, at_s=301)  # it was
    assert told(log) == [
        ("alice", "opened", "2", []),
        ("bob", "opened", "1.5", [("0.5", "market_window")]),
        ("alice", "expired", "2", []),
        ("bob", "expired", "1.5", [("0.5", "market_window")]),
        ("alice", "expired", "2", []),
        ("bob", "expired", "1.5", [("0.5", "market_window")]),
        ("alice", "expired", "", [("2", "throttled")]),
        ("bob", "expired", "", [("2", "throttled")]),
        ("alice", "expired", "", [("2", "throttled")]),
        ("bob", "expired", "", [("2", "throttled")]),
        ("alice", "expired", "2", []),
        ("bob", "expired", "1.5", [("0.5", "market_window")]),
    ]


def test_window_without_exhaustion_in_between_begins_the_count_anew() -> None:
    log = rationed("alice", "bob", window=THROTTLED).move("bob", amount="60")
    log.marks({}, at_s=121)  # alice alone
    log.marks({}, at_s=201).move("bob", amount="60", kind="withdrawal")  # exhausted, the first
    log.marks({}, at_s=261)
    offers = told(log)
    assert not any(reason == "throttled" for *_, withheld in offers for _, reason in withheld)
    assert [each for each in offers if each[0] == "bob"][-1][2:] == (
        "1.5",
        [("0.5", "market_window")],
    )


def test_bankrupt_units_are_served_in_a_throttled_market_and_keep_it_so() -> None:
    """Two windows are exhausted; then bob is bankrupt, and at 241 exhausts the third."""
    log = rationed(
        "alice", "bob", window=THROTTLED | {"market_notional_per_partition_micros": 50 * USD}
    )
    for at_s in (61, 121):
        log.marks({}, at_s=at_s)
    log.move("bob", amount="40", kind="withdrawal").marks({}, at_s=241).marks({}, at_s=301)
    offers = told(log)
    assert [each for each in offers if each[0] == "bob"][-3:] == [
        ("bob", "bankrupt", "4", []),
        ("bob", "expired", "4", []),
        ("bob", "expired", "4", []),
    ]
    alice = [each for each in offers if each[0] == "alice"]
    assert alice[-2:] == [("alice", "expired", "", [("2", "throttled")])] * 2


def test_budget_is_free_again_when_a_case_ends() -> None:
    log = rationed("alice", "bob", window=WINDOW).move("alice", amount="50")
    log.trade("bob", market="ETH-PERP", size="0.01", price="50")
    assert told(log)[-1] == ("bob", "ledger_changed", "2", [])


def test_fill_read_after_the_expiry_is_late_where_its_budget_is_free_again() -> None:
    """The feed rests, so the offer is not renewed at 61; its time was not over at the fill's."""
    for window, codes in ((WINDOW, ["SLV-206"]), (None, [])):
        log = rationed(**({"window": window} if window else {}))
        log.marks({"BTC": "84"}, at_s=2, state="stale", since_s=2).marks({}, at_s=62)
        rejects = Replay().run(sold(log, "0.5")).events("rejects.v1")
        assert [reject["code"] for reject in rejects] == codes


def test_depth_limits_one_order_and_never_below_a_lot() -> None:
    """126 are worth 3 lots of 42."""
    assert told(rationed(depth=DEPTH)) == [("alice", "opened", "1.5", [("0.5", "depth")])]
    thin = DEPTH | {"max_impact_ppm": 10}
    assert told(rationed(depth=thin)) == [("alice", "opened", "0.5", [("1.5", "depth")])]
    bankrupt = rationed(depth=thin).marks({"BTC": "74"}, at_s=2)
    assert told(bankrupt)[-1] == ("alice", "bankrupt", "4", [])


def test_limits_apply_in_order_and_each_is_told() -> None:
    """4 lots are planned; depth leaves 3, the release 2, the window 1."""
    window = {"span_us": SECOND_US, "market_notional_per_partition_micros": 83 * USD}
    sections = {"depth": DEPTH, "release": RELEASE | {"initial_ppm": 500_000}, "window": window}
    withheld = [("0.5", "depth"), ("0.5", "release"), ("0.5", "market_window")]
    assert told(rationed(**sections)) == [("alice", "opened", "0.5", withheld)]


@pytest.mark.parametrize("sizing", ["full", "steps"])
def test_whole_books_are_rationed_too(sizing: str) -> None:
    """All 8 lots, or 4 of them in steps of half: 3 are 126."""
    steps = {"steps": {"step_ppm": 500_000, "below_ppm": 900_000}} if sizing == "steps" else {}
    window = WINDOW | {"market_notional_per_partition_micros": 130 * USD}
    ((_, _, size, withheld),) = told(rationed(sizing=sizing, window=window, **steps))
    left = {"full": "2.5", "steps": "0.5"}[sizing]
    assert (size, withheld) == ("1.5", [(left, "market_window")])


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"release": {"duration_us": 0}}, "liquidation.release.duration_us: 0"),
        ({"release": {"duration_us": 1, "initial_ppm": 1_000_001}}, "initial_ppm: 1000001"),
        ({"window": {"span_us": 5}}, "market_notional_per_partition_micros, account_notional"),
        ({"window": {"span_us": 5, "account_notional_micros": 0}}, "account_notional_micros: 0"),
        (
            {"depth": DEPTH | {"markets": {"X": DEPTH["markets"]["BTC-PERP"]}}},
            "depth.markets.X: 'X', limit: one of ETH-PERP, BTC-PERP",
        ),
        (
            {"window": {"span_us": 5, "account_notional_micros": 1, "throttle_after_windows": 2}},
            "window.throttle_after_windows: 2, limit: none without market_notional_per_partition",
        ),
        (
            {
                "window": {
                    "span_us": 5,
                    "account_notional_micros": 1,
                    "market_bypass_per_partition_micros": 0,
                }
            },
            "window.market_bypass_per_partition_micros: 0, limit: none without market_notional",
        ),
        ({"window": WINDOW | {"throttle_after_windows": 0}}, "throttle_after_windows: 0"),
        (
            {"window": WINDOW | {"market_bypass_per_partition_micros": -1}},
            "market_bypass_per_partition_micros: -1",
        ),
        ({"depth": DEPTH | {"markets": {}}}, "depth.markets"),
        ({"depth": DEPTH | {"max_impact_ppm": 0}}, "depth.max_impact_ppm: 0"),
        (
            {"release": RELEASE, "lending": {"bonus_ppm": 0}},
            "liquidation.release: .*limit: none with lending or auction",
        ),
    ],
)
def test_bad_sections_are_refused(sections: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as error:
        rationed(**sections)
    assert error.value.code == "SLV-402"
