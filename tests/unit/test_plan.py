"""What a liquidation offers to close under terms beyond flat rates, by hand and by search."""

from __future__ import annotations

from copy import deepcopy
from decimal import ROUND_UP, Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvent.engine.margin import MarginShard
from solvent.engine.snapshot import evaluate_snapshot
from solvent.rules import builtin_rulebook
from solvent.wire.topics import LIQUIDATIONS
from support.contracts import validator
from support.margin import Log, Replay

GENERATIONS = builtin_rulebook("generations")
MARKS = {
    "BTC-PERP": "60000", "ETH-PERP": "2000", "SOL-PERP": "150", "BTC/USD": "60000",
    "ETH/USD": "2300", "ETH/USD-slow": "2300", "wstETH/USD": "2700",
}  # fmt: skip


def planned(rulebook: str, account: dict[str, Any], marks: dict[str, Any], ts_us: int = 0) -> Any:
    """Return one account of a snapshot with its plan."""
    snapshot = {"ts_us": ts_us, "marks": marks, "accounts": [{"account_id": "a", **account}]}
    (told,) = evaluate_snapshot(builtin_rulebook(rulebook), snapshot, has_plan=True)["accounts"]
    return told


def test_healthy_unit_has_nothing_to_close() -> None:
    told = planned("generations", {"collateral": {"USDC": "10"}}, MARKS)
    assert told["plan"] == {"legs": [], "swaps": [], "share_ppm": None}


def test_lender_repays_from_the_collateral_with_the_lowest_threshold() -> None:
    # LT 81 % of 11,960 in ETH and 78 % of 6,000 in BTC: 9,687.60 + 4,680 = 14,367.60, debt
    # 14,804.44, health ratio 0.970: half of the debt at most, and BTC is worth 5,660.38 * 1.06
    account = {
        "account_class": "lender",
        "collateral": {"ETH": "5.2", "BTC": "0.1", "USDC": "-14804.44"},
    }
    told = planned("generations", account, MARKS)
    assert told["equity"]["maintenance"] == "14367.6"
    assert told["requirement"]["maintenance"] == "14804.44"
    (swap,) = told["plan"]["swaps"]
    assert (swap["debt"], swap["collateral"], swap["bonus_ppm"]) == ("USDC", "BTC", 60_000)
    assert abs(Decimal(swap["repay"]) - Decimal("5660.377")) < Decimal("0.001")
    assert Decimal("0.09999999") <= Decimal(swap["seize"]) <= Decimal("0.1")
    # a tenth of the bonus, 339.62 * 0.1 USD of 60,000
    assert abs(Decimal(swap["protocol"]) - Decimal("0.000566")) < Decimal("0.000001")


VENUE_MARKS = {
    "drift-v2": {"SOL/USD": "100", "SOL/USD-5m": "100"},
    "mango-v4": {
        **dict.fromkeys(("ETH/USD", "ETH/USD-stable"), "2000"),
        **dict.fromkeys(("SOL/USD", "SOL/USD-stable"), "100"),
        "BTC-PERP": "60000",
    },
}


def venue_marks(rulebook: str) -> dict[str, str]:
    """Return marks of all feeds of a rulebook, most of them 1, states 0."""
    feeds = builtin_rulebook(rulebook).feeds
    marks = {feed.name: "0" if feed.is_state else "1" for feed in feeds}
    return {**marks, **VENUE_MARKS[rulebook]}


@pytest.mark.parametrize(
    ("rulebook", "collateral", "swap", "freed"),
    [
        # 100 SOL at 100 count 90 %, 8,800 USDT are owed at 105 % and, with the buffer of 2 %, at
        # 107 % where liquidation ends: short of 9,416 - 9,000 = 416. A dollar repaid frees
        # 1.07 - 0.9 * 1.01 = 0.161 at a bonus of 1 %: 416 / 0.161 = 2,583.850931
        pytest.param(
            "drift-v2", {"SOL": "100", "USDT": "-8800"},
            ("USDT", "2583.85", "SOL", "26.09", 10_000), "0.161", id="Drift",
        ),
        # 1 ETH at 2,000 counts 90 %, where liquidation ends 80 %; 1,850 USDC are owed as they are:
        # short of 250. A dollar repaid frees 1 - 0.8 * 1.05 = 0.16: 1,562.5, for 1,640.625
        pytest.param(
            "mango-v4", {"ETH": "1", "USDC": "-1850"},
            ("USDC", "1562.50", "ETH", "0.82", 50_000), "0.16", id="Mango",
        ),
    ],
)  # fmt: skip
def test_swap_makes_up_the_shortage_and_no_more(
    rulebook: str, collateral: dict[str, str], swap: tuple[str, str, str, str, int], freed: str
) -> None:  # Z3, I9
    marks = venue_marks(rulebook)
    told = planned(rulebook, {"collateral": collateral}, marks)
    assert told["verdict"] == "liquidatable"
    (found,) = told["plan"]["swaps"]
    debt, repay, taken, seize, bonus_ppm = swap
    assert (found["debt"], found["collateral"]) == (debt, taken)
    assert found["bonus_ppm"] == bonus_ppm
    assert abs(Decimal(found["repay"]) - Decimal(repay)) < Decimal("0.01")
    assert abs(Decimal(found["seize"]) - Decimal(seize)) < Decimal("0.01")
    after = {
        debt: str(Decimal(collateral[debt]) + Decimal(found["repay"])),
        taken: str(Decimal(collateral[taken]) - Decimal(found["seize"])),
    }
    ended = planned(rulebook, {"collateral": after}, marks)
    health = Decimal(ended["health"]["liquidation_end"])
    assert 0 <= health < Decimal("0.0001")
    # one dollar less would not do
    assert health - Decimal(freed) < 0


@settings(max_examples=60)
@given(
    st.sampled_from(["drift-v2", "mango-v4"]),
    st.integers(1, 10**9),
    st.integers(10_000, 14_000),
    st.sampled_from(["SOL", "USDT"]),
)
def test_swap_is_enough_whatever_size_does_to_weights(
    rulebook: str, cents: int, cover: int, owed: str
) -> None:  # Z3, I9: of Drift's tokens more counts less, and of debts more
    marks = venue_marks(rulebook)
    price = {"SOL": 100, "USDT": 1}
    held = "USDT" if owed == "SOL" else "SOL"
    debt = Decimal(cents) / 100
    collateral = {
        owed: f"{-debt / price[owed]:.6f}",
        held: f"{debt * cover / 10_000 / price[held]:.6f}",
    }
    told = planned(rulebook, {"collateral": collateral}, marks)
    if not told["plan"]["swaps"]:
        assert Decimal(told["health"]["liquidation_end"]) >= 0 or cents < 100
        return
    (swap,) = told["plan"]["swaps"]
    after = {
        owed: str(Decimal(collateral[owed]) + Decimal(swap["repay"])),
        held: str(Decimal(collateral[held]) - Decimal(swap["seize"])),
    }
    least = Decimal("0.01")  # of a coin: a pair used up, but for rounding
    is_used_up = min(-Decimal(after[owed]), Decimal(after[held])) < least
    ended = planned(rulebook, {"collateral": after}, marks)
    assert is_used_up or Decimal(ended["health"]["liquidation_end"]) >= 0


def test_swap_makes_up_what_positions_leave_short() -> None:
    """Mango: 0.01 BTC long, bought at 70,000: closing it for a fee of 1.25 % leaves a shortage."""
    marks = venue_marks("mango-v4")
    position = {"market": "BTC-PERP", "size": "0.01", "cost_basis": "700"}
    account = {"collateral": {"ETH": "1", "USDC": "-1750"}, "positions": [position]}
    told = planned("mango-v4", account, marks)
    (leg,), (swap,) = told["plan"]["legs"], told["plan"]["swaps"]
    assert leg["size"] == "0.01"
    # without it: 1,750 + 100 + 7.5 owed against 1,600
    assert abs(Decimal(swap["repay"]) - Decimal("257.5") / Decimal("0.16")) < Decimal("0.01")
    # 1 BTC: 1,800 - 100 - 250 against 1,500; without it 1,600 - 100 - 250 - 750 are left, so a part
    # of it does, and no debt has to be repaid
    account["collateral"]["USDC"] = "-100"
    account["positions"] = [{**position, "size": "1", "cost_basis": "60250"}]
    told = planned("mango-v4", account, marks)
    assert told["verdict"] == "liquidatable"
    (leg,) = told["plan"]["legs"]
    assert Decimal(leg["size"]) < 1
    assert told["plan"]["swaps"] == []


def test_isolated_book_is_closed_whole() -> None:
    account = {
        "account_class": "isolated",
        "subaccount": "ETH-PERP",
        "collateral": {"USDC": "100"},
        "positions": [{"market": "ETH-PERP", "size": "2", "entry_price": "2045"}],
    }
    (leg,) = planned("generations", account, MARKS)["plan"]["legs"]
    assert (leg["side"], leg["size"], leg["mark_price"]) == ("sell", "2", "2000")
    # raw equity 100 - 90 = 10 over 2 coins
    assert leg["bankruptcy_price"] == "1995"


def test_slice_of_an_option_book_takes_part_of_every_position() -> None:
    rulebook = builtin_rulebook("derive-srm")
    ts_us = 1_900_000_000_000_000
    short = next(i for i in rulebook.instruments if i.option is not None and i.option.is_call)
    marks = {
        feed.name: "0.5" if feed.name.endswith("/iv") else "1" if feed.is_state else "60000"
        for feed in rulebook.feeds
    }
    marks.update({name: "1" for name in marks if name.startswith("USDC/")})
    account = {
        "collateral": {"USDC": "1000000"},
        "positions": [{"market": short.name, "size": "-1"}],
    }
    rich = planned("derive-srm", account, marks, ts_us)
    # 4,000 beyond what the option is worth, where 7.5 % of 60,000 are required
    spare = Decimal(rich["raw_equity"]) - 4_000
    account["collateral"] = {"USDC": str(1_000_000 - spare)}
    told = planned("derive-srm", account, marks, ts_us)
    assert told["verdict"] == "liquidatable"
    assert told["health"]["maintenance"].startswith("-500")
    (leg,) = told["plan"]["legs"]
    assert leg["side"] == "buy"
    # f = B / (B - MV), B = MM + b * (MM - MV), at the start of the auction where d is 1 (7.2 Z7)
    health, value = Decimal(told["health"]["maintenance"]), Decimal(told["raw_equity"])
    buffer = Decimal(rulebook.policies[0].auction_buffer_ppm) / 1_000_000
    below = health + buffer * (health - value)
    share = below / (below - value)
    assert 0 < share < 1
    assert abs(Decimal(told["plan"]["share_ppm"]) / 1_000_000 - share) <= Decimal("0.000002")
    assert Decimal(leg["size"]) == share.quantize(Decimal("0.01"), ROUND_UP)


sizes = st.integers(-40_000, 40_000).filter(bool)


@settings(max_examples=60)
@given(st.tuples(sizes, sizes, sizes), st.integers(0, 10**6), st.integers(-30, 30))
def test_closing_the_last_leg_restores_health_and_one_lot_less_does_not(
    lots: tuple[int, int, int], cash: int, move_percent: int
) -> None:  # I9
    marks = {**MARKS, "BTC-PERP": str(600 * (100 + move_percent))}
    steps = {"BTC-PERP": "0.0001", "ETH-PERP": "0.001", "SOL-PERP": "0.1"}
    entry = {"BTC-PERP": "60000", "ETH-PERP": "2000", "SOL-PERP": "150"}
    account = {
        "account_class": "trader",
        "collateral": {"USDC": str(cash), "ETH": "3"},
        "positions": [
            {
                "market": market,
                "size": str(n * Decimal(steps[market])),
                "entry_price": entry[market],
            }
            for market, n in zip(steps, lots, strict=True)
        ],
    }
    legs = planned("generations", account, marks)["plan"]["legs"]
    if not legs:
        return

    def health(short_of: Decimal) -> Decimal:
        """Health at the liquidation end with the legs closed at the fee, the last one short."""
        left = deepcopy(account)
        for leg in legs:
            size = Decimal(leg["size"]) - (short_of if leg is legs[-1] else 0)
            side = 1 if leg["side"] == "sell" else -1
            price = Decimal(marks[leg["market"]]) * (1 - side * Decimal("0.01"))
            (held,) = (p for p in left["positions"] if p["market"] == leg["market"])
            bought = Decimal(held["entry_price"])
            gain = side * size * (price - bought)
            left["collateral"]["USDC"] = f"{Decimal(left['collateral']['USDC']) + gain:.6f}"
            held["size"] = str(Decimal(held["size"]) - side * size)
        left["positions"] = [p for p in left["positions"] if Decimal(p["size"])]
        return Decimal(planned("generations", left, marks)["health"]["liquidation_end"])

    closes_all = all(
        Decimal(leg["size"]) == abs(Decimal(p["size"]))
        for leg in legs
        for p in account["positions"]
        if p["market"] == leg["market"]
    ) and len(legs) == len(account["positions"])
    slack = Decimal("0.00001")
    assert health(Decimal(0)) >= -slack or closes_all
    step = Decimal(steps[legs[-1]["market"]])
    (held,) = (p for p in account["positions"] if p["market"] == legs[-1]["market"])
    # what is closed whole may have been dust
    if Decimal(legs[-1]["size"]) != abs(Decimal(held["size"])):
        assert health(step) < slack


@pytest.mark.parametrize("account_class", ["lender", "isolated", "trader"])
def test_shard_offers_under_every_generation(account_class: str) -> None:
    """A crash makes an offer that its schema takes, and the end of the debt ends the case."""
    log = Log()
    log.settings("alice", account_class=account_class)
    subaccount = "ETH-PERP" if account_class == "isolated" else "cross"
    log.move("alice", amount="1000", subaccount=subaccount)
    if account_class == "lender":
        log.move("alice", asset="ETH", amount="1")
        log.move("alice", kind="withdrawal", amount="2500")
    else:
        market = {"market": "ETH-PERP", "size": "5", "price": "2000", "subaccount": subaccount}
        log.trade("alice", fee="0", **market)
    log.marks(MARKS)
    log.marks({"ETH/USD": "1500", "ETH/USD-slow": "1500", "ETH-PERP": "1800"})
    replay = Replay(MarginShard(0, GENERATIONS)).run(log)
    offers = replay.events(LIQUIDATIONS)
    assert [offer["event"] for offer in offers] == ["opened"]
    validator("liquidations").validate(offers[0])
    assert bool(offers[0]["swaps"]) == (account_class == "lender")
    assert bool(offers[0]["legs"]) == (account_class != "lender")
    if account_class == "lender":
        (swap,) = offers[0]["swaps"]
        assert (swap["debt"], swap["collateral"]) == ("USDC", "ETH")
        log.move("alice", amount="1500")
        log.marks({})
        ended = Replay(MarginShard(0, GENERATIONS)).run(log).events(LIQUIDATIONS)
        assert [offer["event"] for offer in ended] == ["opened", "recovered"]
