"""The ledger of every kind of contract against an independent fold in fractions.

Conservation (I6) is exact in integers. With all sides of all trades in one partition, of each asset
::

    balances = deposits - fees - funding - traded + settled + cost basis (inverse: - cost basis)

where `traded` are the values of fills, rounded up for both sides (`rounding` is by how much, of
linear contracts and options over both sides), `funding` payments and `settled` what positions were
worth at expiry, both rounded against the account. Where balances bear interest, a change of one is
conserved at its moment, less at most one quantum of rounding.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from solvent.wire.topics import MARKS, TRADES
from support.fold import Fold
from support.kinds import (
    EXPIRES_US,
    FUNDED,
    MARKETS,
    SETTLING,
    KindsLog,
    a_fold_of_kinds,
    funding_of,
    run_of,
)
from support.margin import (
    NOW_US,
    Replay,
    ledger_of,
    ledger_of_fold,
    standing_of,
    standing_of_fold,
)

ACCOUNTS = ("alice", "bob", "carol")
ASSETS = ("USDC", "USDT", "BTC")
_index_feeds = st.sampled_from(
    [f"{asset}/{side}" for asset in ASSETS for side in ("deposit", "borrow")]
)
_indices = st.integers(10**18, 4 * 10**18).map(lambda n: f"{n // 10**18}.{n % 10**18:018d}")
_funding = st.integers(-(10**13), 10**13).map(
    lambda n: f"{'-' if n < 0 else ''}{abs(n) // 10**12}.{abs(n) % 10**12:012d}"
)


def _lots_text(market: str, lots: int) -> str:
    sizes = {
        "BTC-PERP": ("0.001", 3),
        "BTC-TETHER": ("0.0003", 4),
        "BTC-INVERSE": ("1", 0),
        "BTC-INVERSE-DATED": ("1", 0),
        "BTC-DATED": ("0.000003", 6),
        "BTC-CALL": ("0.0000003", 7),
        "BTC-PUT": ("0.0000003", 7),
        "BTC-PLAIN": ("0.01", 2),
    }
    lot, places = sizes[market]
    return f"{lots * Decimal(lot):.{places}f}"


@st.composite
def logs(draw: st.DrawFn, *, matched: bool = False, longest: int = 40) -> KindsLog:
    """Fills in all markets, moves, indices, settlements; the other side of each fill if matched."""
    log = KindsLog()
    seconds = 0
    left = list(SETTLING)
    for _ in range(draw(st.integers(1, longest))):
        kind = draw(st.integers(0, 9))
        account_id = draw(st.sampled_from(ACCOUNTS))
        if kind < 2:
            seconds += draw(st.integers(0, 300))
            values = draw(st.dictionaries(_index_feeds, _indices, max_size=3))
            funded = st.sampled_from(sorted(set(FUNDED.values())))
            values |= draw(st.dictionaries(funded, _funding, max_size=2))
            settlements = {}
            if left and draw(st.integers(0, 2)) == 0:
                market = left.pop(draw(st.integers(0, len(left) - 1)))
                cents = draw(st.integers(1, 30_000))
                settlements = {market: f"{cents // 100}.{cents % 100:02d}"}
            price = str(draw(st.integers(50, 200)))
            log.frame(price=price, at_s=seconds, values=values, settlements=settlements)
        elif kind == 2 and not matched:
            market = draw(st.sampled_from(sorted(MARKETS)))
            lots = draw(st.integers(0, 400))
            log.orders(
                account_id,
                market=market,
                subaccount=draw(st.sampled_from(["cross", "cross", market])),
                bid_size=_lots_text(market, lots),
                bid_value=str(lots),
                count=min(lots, 1),
                ts_us=EXPIRES_US if draw(st.integers(0, 15)) == 0 else NOW_US,
            )
        elif kind < 4:
            log.move(
                account_id,
                asset=draw(st.sampled_from(ASSETS)),
                kind=draw(st.sampled_from(["deposit", "deposit", "withdrawal"])),
                amount=f"{draw(st.integers(1, 3_000_000)) / 10**6:.6f}",
                subaccount=draw(st.sampled_from(["cross", "cross", "BTC-INVERSE"])),
            )
        else:
            market = draw(st.sampled_from(sorted(MARKETS)))
            halves = draw(st.integers(100, 400))
            late = draw(st.integers(0, 15)) == 0
            trade = {
                "market": market,
                "side": draw(st.sampled_from(["buy", "sell"])),
                "size": _lots_text(market, draw(st.integers(1, 400))),
                "price": f"{halves // 2}.{halves % 2 * 5}",
                "fee": draw(st.sampled_from(["0", "0.000001", "-0.25", "0.003"])),
                "subaccount": draw(st.sampled_from(["cross", "cross", market])),
                "ts_us": EXPIRES_US if late and not matched else NOW_US,
            }
            log.trade(account_id, **trade)
            if matched:
                other = {"buy": "sell", "sell": "buy"}[str(trade["side"])]
                log.trade(f"counter-{account_id}", **{**trade, "side": other})
    return log


def check_against(fold: Fold, replay: Replay) -> None:
    """Compare a shard with the fold of the same records."""
    assert ledger_of(replay.shard) == ledger_of_fold(fold)
    assert standing_of(replay.shard) == standing_of_fold(fold)
    found = {place: held for place, held in funding_of(replay.shard).items() if held}
    wanted = {
        (account_id, name): book.funding
        for account_id, account in fold.accounts.items()
        for name, book in account.books.items()
        if book.funding
    }
    assert found == wanted
    state = replay.state
    assert state["fees_micros"] == fold.fees
    for name, counted in (
        ("fees", fold.fees_in),
        ("funding", fold.funding),
        ("settled", fold.settled),
    ):
        assert state.get(name, {}) == {key: quanta for key, quanta in counted.items() if quanta}


@settings(max_examples=200, deadline=None)
@given(log=logs(), longest=st.sampled_from([1, 3, 1000]), has_interest=st.booleans())
def test_shard_over_any_kinds_of_contracts_equals_independent_fold(
    log: KindsLog, longest: int, has_interest: bool
) -> None:
    replay = run_of(log, has_interest=has_interest, longest=longest)
    fold = a_fold_of_kinds(log, has_interest=has_interest)
    check_against(fold, replay)
    rejects = [(r["topic"], r["offset"], r["code"]) for r in replay.events("rejects.v1")]
    assert rejects == fold.rejects
    replay.restore()
    check_against(fold, replay)


@settings(max_examples=60, deadline=None)
@given(log=logs(), has_interest=st.booleans(), data=st.data())
def test_kinds_of_contracts_restored_anywhere_leave_the_same_bytes(
    log: KindsLog, has_interest: bool, data: st.DataObject
) -> None:
    whole = run_of(log, has_interest=has_interest)
    runs = list(log.runs(1))
    stop = data.draw(st.integers(0, len(runs)))
    broken = run_of(KindsLog(), has_interest=has_interest)
    for number, (topic, records) in enumerate(runs):
        if number == stop:
            broken.cut()
            broken.restore()
        broken.apply(topic, records)
    broken.cut()
    assert broken.table.keys() == whole.table.keys()
    assert broken.table == whole.table
    assert broken.records == whole.records
    assert broken.state == whole.state


@settings(max_examples=100, deadline=None)
@given(log=logs(matched=True))
def test_kinds_of_contracts_conserve_money(log: KindsLog) -> None:  # I6
    replay = run_of(log)
    fold = a_fold_of_kinds(log)
    rulebook, state = replay.shard.rulebook, replay.state
    settles_in = {i.name: rulebook.assets[i.settles_in].name for i in rulebook.instruments}
    inverse = {i.name for i in rulebook.instruments if i.kind == "inverse"}
    for asset in ("USDC", "BTC"):  # USDT bears interest
        balances = 0
        costs = Fraction(0)
        for _, _, books in ledger_of(replay.shard).values():
            for positions, quanta in books.values():
                balances += quanta.get(asset, 0)
                for market, (_, cost) in positions.items():
                    if settles_in[market] == asset:
                        costs += -cost if market in inverse else cost
        fees = state["fees_micros"] if asset == "USDC" else state.get("fees", {}).get(asset, 0)
        flows = Fraction(0)
        for market in (name for name, of in settles_in.items() if of == asset):
            instrument = rulebook.instrument_by_name[market]
            rounding = state["rounding"].get(market, 0)
            if market in inverse:
                flows += rounding - state.get("settled", {}).get(market, 0)
            else:
                flows -= Fraction(rounding, instrument.tick_value.denominator)
                flows += state.get("settled", {}).get(market, 0)
            flows -= state.get("funding", {}).get(market, 0)
        deposits = fold.deposits.get(asset, 0)
        assert balances == deposits - fees + flows + costs
        # what rounding took of those who trade with each other is never less than nothing
        assert all(quanta >= 0 for quanta in state.get("funding", {}).values())
        assert all(quanta <= 0 for quanta in state.get("settled", {}).values())


@settings(max_examples=60, deadline=None)
@given(log=logs())
def test_closed_position_of_any_kind_leaves_no_row(log: KindsLog) -> None:  # I7
    replay = run_of(log)
    for _, _, books in ledger_of(replay.shard).values():
        for positions, _ in books.values():
            assert all(size != 0 for size, _ in positions.values())
            assert positions.get("BTC-CALL", (1, 0))[1] == 0  # premium keeps no cost
            assert not a_fold_of_kinds(log).over & positions.keys()


@settings(max_examples=100, deadline=None)
@given(log=logs(longest=20))
def test_change_of_bearing_balance_is_conserved_less_a_quantum(log: KindsLog) -> None:  # I6
    """Each move of a balance is in what the balance is worth then, rounded down at most once."""
    states = [
        a_fold_of_kinds(KindsLog(log.entries[:count]), has_interest=True)
        for count in range(len(log.entries) + 1)
    ]
    for (before, after), (topic, _) in zip(pairwise(states), log.entries, strict=True):
        if topic in {MARKS, TRADES}:
            continue
        change = sum(after.deposits.values()) - sum(before.deposits.values())
        gained = sum(
            side * fold.worth(asset, quanta)
            for side, fold in ((1, after), (-1, before))
            for account in fold.accounts.values()
            for book in account.books.values()
            for asset, quanta in book.balances.items()
        )
        # adding floors the balance at rest, and what a balance is worth floors twice
        assert change - 6 <= gained <= change + 1
