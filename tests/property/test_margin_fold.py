"""The margin shard against an independent fold, over good and bad records in any framing."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from solvent.wire.topics import (
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    OPEN_ORDERS,
    TRADES,
)
from support.margin import (
    NOW_MS,
    NOW_US,
    Log,
    Record,
    Replay,
    a_move,
    a_snapshot,
    a_trade,
    fold_log,
    ledger_of,
    ledger_of_fold,
    orders_in,
    settings_of,
    snapshots_of,
    standing_of,
    standing_of_fold,
)

ACCOUNTS = ("alice", "bob", "carol")
MARKETS = ("BTC-PERP", "ETH-PERP", "ODD-PERP")

_good_trade = st.fixed_dictionaries(
    {
        "market": st.sampled_from(MARKETS),
        "side": st.sampled_from(["buy", "sell"]),
        "size": st.integers(1, 60).map(lambda n: f"{n * 5 // 10}.{n * 5 % 10}"),
        "price": st.integers(1, 4000).map(lambda n: f"{n * 5 // 10}.{n * 5 % 10}"),
        "fee": st.sampled_from(["0", "0.000001", "-0.25", "3.5"]),
    }
)
_good_move = st.fixed_dictionaries(
    {
        "asset": st.sampled_from(["USDC", "ETHER", "JUNK"]),
        "kind": st.sampled_from(["deposit", "withdrawal", "transfer_in", "transfer_out"]),
        "amount": st.integers(1, 100_000).map(lambda n: f"{n // 100}.{n % 100:02d}"),
    }
)
_bad_trade = st.sampled_from(
    [
        {"size": "0.3"},
        {"size": "0"},
        {"size": "-1"},
        {"size": "1e3"},
        {"size": "9" * 40},
        {"price": "100.3"},
        {"price": "NaN"},
        {"price": "9007199254740993"},
        {"fee": "0.0000001"},
        {"fee": "1\n2"},
        {"market": "DOGE-PERP"},
        {"subaccount": "ETH-PERP", "market": "BTC-PERP"},
        {"subaccount": "nowhere"},
        {"ts_us": NOW_US + 300_000_001},
        {"size": "4503599627370496", "price": "1000000"},
    ]
)
_bad_move = st.sampled_from(
    [
        {"asset": "GOLD"},
        {"amount": "0"},
        {"amount": "-5"},
        {"amount": "0.0000001"},
        {"amount": "+5"},
        {"kind": "adjustment", "amount": "0"},
        {"subaccount": "nowhere"},
        {"ts_us": NOW_US + 300_000_001},
    ]
)
_raw = st.sampled_from(
    [None, b"", b"{", b"[]", b"null", b"\xff", b'{"schema_version":2}', b'{"schema_version":1}']
)


_leverage = st.dictionaries(
    st.sampled_from(MARKETS), st.sampled_from(["1", "2.5", "10.000001"]), max_size=3
)
_settings = st.fixed_dictionaries(
    {"account_class": st.sampled_from(["trader", "careful"])}, optional={"leverage": _leverage}
)
_sides = st.fixed_dictionaries(
    {
        "bid_size": st.sampled_from(["0", "0.5", "3"]),
        "bid_value": st.sampled_from(["0", "17.25"]),
        "ask_size": st.sampled_from(["0", "1.0"]),
        "ask_value": st.sampled_from(["0", "0.000001"]),
        "count": st.integers(0, 2),
    }
)
_bad_statement = st.sampled_from(
    [
        (ACCOUNT_SETTINGS, {"account_class": "whale"}),
        (ACCOUNT_SETTINGS, {"leverage": {"BTC-PERP": "0.5"}}),
        (ACCOUNT_SETTINGS, {"leverage": {"DOGE-PERP": "5"}}),
        (OPEN_ORDERS, {"bid_size": "-1"}),
        (OPEN_ORDERS, {"bid_size": "0.3"}),
        (OPEN_ORDERS, {"ask_value": "0.0000001"}),
        (OPEN_ORDERS, {"ask_value": "9007199254.740993"}),
        (OPEN_ORDERS, {"count": -1}),
        (OPEN_ORDERS, {"subaccount": "nowhere"}),
        (ACCOUNT_SNAPSHOTS, {"collateral": {"GOLD": "1"}}),
        (ACCOUNT_SNAPSHOTS, {"subaccount": "nowhere"}),
        (ACCOUNT_SNAPSHOTS, {"account_class": "whale"}),
        (ACCOUNT_SNAPSHOTS, {"ts_us": NOW_US + 300_000_001}),
    ]
)


@st.composite
def _snapshot(draw: st.DrawFn) -> dict[str, object]:
    book = draw(st.sampled_from(["cross", *MARKETS]))
    allowed = st.sampled_from(MARKETS if book == "cross" else (book,))
    positions, orders = (draw(st.sets(allowed)) for _ in range(2))
    content: dict[str, object] = {
        "subaccount": book,
        "collateral": draw(
            st.dictionaries(st.sampled_from(["USDC", "ETHER", "JUNK"]), st.sampled_from(AMOUNTS))
        ),
        "positions": [
            {
                "market": market,
                "size": draw(st.sampled_from(["1", "-2.5"])),
                "cost_basis": draw(st.sampled_from(["0", "95.5", "-101.000001"])),
            }
            for market in sorted(positions)
        ],
    }
    if draw(st.booleans()):
        content["orders"] = [{"market": market, **draw(_sides)} for market in sorted(orders)]
    if draw(st.booleans()):
        content |= draw(_settings)
    for topic in ("trades", "collateral", "settings", "orders"):
        if draw(st.booleans()):
            content[f"{topic}_seq"] = draw(st.integers(5, 9))
    return content


AMOUNTS = ("0", "12.25", "-3")


@st.composite
def stated_logs(draw: st.DrawFn) -> Log:
    """A log of all account topics, good and bad records."""
    log = Log()
    for topic, record in draw(logs()).entries:
        for _ in range(draw(st.integers(0, 2))):
            account_id = draw(st.sampled_from(ACCOUNTS))
            kind = draw(st.sampled_from([ACCOUNT_SETTINGS, OPEN_ORDERS, ACCOUNT_SNAPSHOTS]))
            bad: dict[str, object] = {}
            if draw(st.integers(0, 9)) == 0:
                kind, bad = draw(_bad_statement)
            more = {"seq": draw(st.integers(5, 8))} if draw(st.booleans()) else {}
            market = draw(st.sampled_from(MARKETS))
            if kind == ACCOUNT_SETTINGS:
                value = settings_of(account_id, **{**draw(_settings), **more, **bad})
            elif kind == OPEN_ORDERS:
                book = {"subaccount": draw(st.sampled_from(["cross", market]))}
                value = orders_in(market, account_id, **{**draw(_sides), **book, **more, **bad})
            else:
                name = draw(st.sampled_from(["s1", f"s{len(log.entries)}"]))
                value = a_snapshot(name, account_id, **{**draw(_snapshot()), **bad})
            key = account_id.encode() if draw(st.integers(0, 19)) else b"dave"
            log.add(kind, value, key)
        log.add(topic, record.value, record.key, record.timestamp)
    return log


@st.composite
def logs(draw: st.DrawFn, *, bad: bool = True) -> Log:
    log = Log()
    next_seq: dict[tuple[str, str], int] = {}
    for number in range(draw(st.integers(1, 30))):
        topic = draw(st.sampled_from([TRADES, COLLATERAL]))
        account_id = draw(st.sampled_from(ACCOUNTS))
        kind = draw(st.integers(0, 9)) if bad else 0
        changes = dict(draw(_good_trade if topic == TRADES else _good_move))
        book = draw(st.booleans())
        if book:
            changes["subaccount"] = changes.get("market", "BTC-PERP")
        if draw(st.booleans()):  # a sequence, mostly the next one
            place = (topic, account_id)
            step = draw(st.sampled_from([1, 1, 1, 1, 0, 2] if bad else [1]))
            changes["seq"] = next_seq.get(place, 5) + step
            next_seq[place] = max(next_seq.get(place, 0), changes["seq"])
        if kind == 8:
            changes |= draw(_bad_trade if topic == TRADES else _bad_move)
        name = draw(st.sampled_from(["x1", "x2", f"n{number}"])) if bad else f"n{number}"
        make = a_trade if topic == TRADES else a_move
        value: bytes | None = make(name, account_id, **changes)
        key: bytes | None = account_id.encode()
        if kind == 9:
            value = draw(_raw)
        if kind == 7 and draw(st.booleans()):
            key = draw(st.sampled_from([None, b"dave", b"bob", b"\xff", b"not an id"]))
        log.add(topic, value, key, NOW_MS)
        if bad and draw(st.integers(0, 7)) == 0:
            prices = {"BTC": str(draw(st.integers(1, 3000))), "ETH": "50", "ODD": "1.5"}
            log.marks(prices, at_s=number)
    return log


@settings(max_examples=300, deadline=None)
@given(log=logs(), longest=st.sampled_from([1, 2, 7, 1000]))
def test_shard_over_any_records_equals_independent_fold(log: Log, longest: int) -> None:
    replay = Replay().run(log, longest=longest)
    fold = fold_log(log)
    assert ledger_of(replay.shard) == ledger_of_fold(fold)
    rejects = [(r["topic"], r["offset"], r["code"]) for r in replay.events("rejects.v1")]
    assert rejects == fold.rejects
    counters = replay.shard.counters
    assert counters["duplicate_trades"] + counters["duplicate_moves"] == fold.duplicates
    assert counters["rejects"] == len(fold.rejects)


@settings(max_examples=300, deadline=None)
@given(log=stated_logs(), longest=st.sampled_from([1, 7, 1000]))
def test_shard_over_any_statements_equals_independent_fold(log: Log, longest: int) -> None:
    replay = Replay().run(log, longest=longest)
    fold = fold_log(log)
    for _ in range(2):
        assert ledger_of(replay.shard) == ledger_of_fold(fold)
        assert standing_of(replay.shard) == standing_of_fold(fold)
        replay.restore()
    rejects = [(r["topic"], r["offset"], r["code"]) for r in replay.events("rejects.v1")]
    assert rejects == fold.rejects
    facts = replay.shard.facts()
    assert sum(facts.duplicates.values()) - facts.duplicates["marks.v1"] == fold.duplicates


@settings(max_examples=100, deadline=None)
@given(log=stated_logs())
def test_snapshots_of_all_units_equal_the_fold_that_led_to_them(log: Log) -> None:
    """Whatever an account went through, quarantine apart, is in the snapshots of its units."""
    lived = Replay().run(log)
    fold = fold_log(log)
    imported = Replay()
    for account_id, account in fold.accounts.items():
        described = lived.shard.describe(account_id)
        for offset, value in enumerate(snapshots_of(described, account.account_class or "trader")):
            record = Record(offset, NOW_MS, account_id.encode(), value)
            imported.apply(ACCOUNT_SNAPSHOTS, [record])
        account.quarantined = False
    whole = {name for name, account in fold.accounts.items() if account.books}
    ledger, standing = ledger_of_fold(fold), standing_of_fold(fold)
    assert ledger_of(imported.shard) == {name: ledger[name] for name in ledger if name in whole}
    assert standing_of(imported.shard) == {name: standing[name] for name in ledger if name in whole}


@settings(max_examples=100, deadline=None)
@given(log=logs(bad=False))
def test_ledger_over_matched_trades_conserves_money(log: Log) -> None:  # I6
    matched = Log()
    for topic, record in log.entries:
        if topic == TRADES:  # each trade has its other side, of an account of its own
            assert record.value is not None
            other = record.value.replace(b'"account_id":"', b'"account_id":"counter-')
            swap = {b'"side":"buy"': b'"side":"sell"', b'"side":"sell"': b'"side":"buy"'}
            side = next(text for text in swap if text in other)
            matched.add(topic, record.value, record.key)
            matched.add(topic, other.replace(side, swap[side]), b"counter-" + (record.key or b""))
        else:
            matched.add(topic, record.value, record.key)
    replay = Replay().run(matched)
    fold = fold_log(matched)
    state = replay.state
    instruments = replay.shard.rulebook.instrument_by_name
    rounding = sum(
        (
            Fraction(units, instruments[name].tick_value.denominator)
            for name, units in state["rounding"].items()
        ),
        Fraction(0),
    )
    balances = costs = 0
    for _, _, books in ledger_of(replay.shard).values():
        for positions, quanta in books.values():
            balances += quanta.get("USDC", 0)
            costs += sum(cost for _, cost in positions.values())
    deposits = fold.deposits.get("USDC", 0)
    assert balances - costs + state["fees_micros"] + rounding == deposits
    assert state["fees_micros"] == fold.fees
    assert rounding == fold.rounding
