"""The margin shard against an independent fold, over good and bad records in any framing."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from solvent.wire.topics import COLLATERAL, TRADES
from support.margin import (
    NOW_MS,
    NOW_US,
    Log,
    Replay,
    a_move,
    a_trade,
    fold_log,
    ledger_of,
    ledger_of_fold,
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
