"""Intake of mutated records: kernels take nothing the strict decoders refuse, nor another value.

The oracle is slow and separate: `decode_trade`/`decode_collateral_move`, `parse_scaled` and a dict.
Every record is cut to its own length out of a larger buffer, so a read beyond a value would show.
"""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from solvent.engine.intake import Intake
from solvent.engine.run import Record, Run
from solvent.errors import ContractError
from solvent.kernel.intake import REJECTED_UNDECODABLE, REJECTED_WRONG_KEY
from solvent.kernel.layout import (
    CROSS,
    NONE,
    OUTCOME_DUPLICATE,
    OUTCOME_NONE,
    OUTCOME_QUARANTINE,
    OUTCOME_REJECTED,
)
from solvent.rules import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import parse_scaled
from solvent.wire.inputs import (
    decode_collateral_move,
    decode_trade,
    encode_collateral_move,
    encode_trade,
)
from solvent.wire.topics import COLLATERAL, TRADES
from support.margin import a_rulebook

TIME_MS = 1_743_120_000_000
TIME_US = TIME_MS * 1_000
MUTANTS = 20_000

_INSERTS = [
    b" ",
    b'"',
    b"\\",
    b",",
    b":",
    b"{",
    b"}",
    b"0",
    b"9",
    b".",
    b"-",
    b"e",
    b"\x00",
    b"\xff",
]
_INSERTS += [b'"seq":1,', b'"seq":null,', b'"side":"buy",', b"\\u0061", "é".encode(), b"1" * 30]


def mutated(value: bytes, chance: random.Random) -> bytes:
    """Change a record in one to three small ways, or leave it."""
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        at = chance.randrange(len(value) + 1)
        way = chance.randrange(6)
        if way == 0 and at < len(value):
            value = value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]
        elif way == 1:
            value = value[:at] + value[at + 1 :]
        elif way == 2:
            value = value[:at] + chance.choice(_INSERTS) + value[at:]
        elif way == 3:
            end = min(len(value), at + chance.randrange(1, 12))
            value = value[:end] + value[at:]
        elif way == 4:
            value = value[: max(1, at)]
        else:  # another order of fields
            fields = value[1:-1].split(b",")
            chance.shuffle(fields)
            value = value[:1] + b",".join(fields) + value[-1:]
        if not value:
            return b"{}"
    return value


def mostly(chance: random.Random, good: list[str], bad: list[str]) -> str:
    return chance.choice(good if chance.random() < 0.9 else bad)


def a_trade_value(chance: random.Random) -> bytes:
    account = f"acct-{chance.randrange(40)}"
    market = mostly(chance, ["BTC-PERP", "ETH-PERP", "ODD-PERP"], ["NO-PERP"])
    more = {}
    if chance.random() < 0.3:
        more["seq"] = chance.choice([0, 1, 2**53, 10**6])
    if chance.random() < 0.3:
        episode = mostly(chance, ["1", "12", "9999999999999999"], ["0", "01"])
        more["liquidation_id"] = f"{chance.choice([account, 'other'])}:cross:{episode}"
    return encode_trade(
        trade_id=f"t{chance.randrange(5_000)}",
        account_id=account,
        subaccount=mostly(chance, ["cross", market], ["BTC-PERP", "nowhere"]),
        market=market,
        side=chance.choice(["buy", "sell"]),
        size=mostly(chance, ["1", "0.5", "5.50"], ["0.25", "0", "-1", "1e3", "1" * 20]),
        price=mostly(chance, ["100", "100.5"], ["0.1", "99.99", "007", ".5", "5."]),
        fee=mostly(chance, ["0", "-0.5", "0.000001", "-0"], ["0.0000001", "x"]),
        ts_us=TIME_US + int(mostly(chance, ["0", "300000000"], ["300000001"])),
        **more,
    )


def a_move_value(chance: random.Random) -> bytes:
    more = {}
    if chance.random() < 0.3:
        more["seq"] = chance.choice([0, 1, 2**53])
    if chance.random() < 0.3:
        more["transfer_id"] = "both-legs"
    return encode_collateral_move(
        move_id=f"m{chance.randrange(5_000)}",
        account_id=f"acct-{chance.randrange(40)}",
        subaccount=mostly(chance, ["cross", "BTC-PERP"], ["nowhere"]),
        asset=mostly(chance, ["USDC", "ETHER"], ["GOLD"]),
        kind=chance.choice(["deposit", "withdrawal", "transfer_in", "transfer_out", "adjustment"]),
        amount=mostly(
            chance, ["1", "250.00"], ["0", "-3", "0.00000001", "1e2", "9007199254.740993"]
        ),
        ts_us=TIME_US + int(mostly(chance, ["0"], ["300000001"])),
        **more,
    )


def steps_of(text: str, step: Fraction) -> int | None:
    """Return how many steps a plain decimal is, exactly, within 2**53; None if it is not that."""
    try:
        value = Fraction(parse_scaled(text, -40), 10**40)
    except ValueError:
        return None
    steps = value / step
    return int(steps) if steps.denominator == 1 and abs(steps) <= 2**53 else None


class Oracle:
    """What intake must say of each record, one after the other."""

    def __init__(self, rulebook: CompiledRulebook) -> None:
        self.markets = {i.name: i for i in rulebook.instruments}
        self.assets = {a.name: a for a in rulebook.assets}
        self.seen: dict[tuple[str, str], int] = {}

    def book(self, name: str) -> int | None:
        if name == "cross":
            return CROSS
        return self.markets[name].index if name in self.markets else None

    def is_repeat(self, account_id: str, event_id: str, seq: int | None, offset: int) -> bool:
        if seq is not None:
            return False
        last = self.seen.get((account_id, event_id))
        self.seen[account_id, event_id] = offset
        return last is not None and offset - last <= 100_000

    def trade(self, record: Record) -> tuple[object, ...]:
        try:
            trade = decode_trade(record.value)
        except ContractError:
            return (REJECTED_UNDECODABLE,)
        if self.is_repeat(trade.account_id, trade.trade_id, trade.seq, record.offset):
            return (OUTCOME_DUPLICATE,)
        if record.key != trade.account_id.encode():
            return (REJECTED_WRONG_KEY,)
        market, book = self.markets.get(trade.market), self.book(trade.subaccount)
        if market is None or book not in {CROSS, market.index}:
            return (OUTCOME_REJECTED,)
        lots = steps_of(trade.size, Fraction(market.lot.format(1)))
        ticks = steps_of(trade.price, Fraction(market.tick.format(1)))
        fee = steps_of(trade.fee, Fraction(1, 10**6))
        is_late = trade.ts_us > record.timestamp * 1_000 + 300_000_000
        if is_late or fee is None or not lots or not ticks or lots < 0 or ticks < 0:
            return (OUTCOME_REJECTED,)
        offer = (trade.liquidation_id or "::").rpartition(":")
        is_ours = offer[0] == f"{trade.account_id}:{trade.subaccount}"
        return (
            OUTCOME_NONE,
            trade.account_id,
            book,
            market.index,
            lots if trade.side == "buy" else -lots,
            ticks,
            fee,
            NONE if trade.seq is None else trade.seq,
            trade.ts_us,
            int(offer[2]) if is_ours else NONE,
        )

    def move(self, record: Record) -> tuple[object, ...]:
        try:
            move = decode_collateral_move(record.value)
        except ContractError:
            return (REJECTED_UNDECODABLE,)
        if self.is_repeat(move.account_id, move.move_id, move.seq, record.offset):
            return (OUTCOME_DUPLICATE,)
        if record.key != move.account_id.encode():
            return (REJECTED_WRONG_KEY,)
        asset, book = self.assets.get(move.asset), self.book(move.subaccount)
        if asset is None or book is None or move.ts_us > record.timestamp * 1_000 + 300_000_000:
            return (OUTCOME_REJECTED,)
        quanta = steps_of(move.amount, Fraction(10) ** asset.quantum_exponent)
        if not quanta or (quanta < 0 and move.kind != "adjustment"):
            return (OUTCOME_REJECTED,)
        is_outflow = move.kind in {"withdrawal", "transfer_out"}
        return (
            OUTCOME_NONE,
            move.account_id,
            book,
            asset.index,
            -quanta if is_outflow else quanta,
            int(is_outflow),
            NONE if move.seq is None else move.seq,
            move.ts_us,
        )


def mutants(topic: str, seed: int, count: int) -> Run:
    chance = random.Random(seed)
    records = []
    offset = 90_000  # so that the duplicate window changes its generation on the way
    for _ in range(count):
        value = mutated((a_trade_value if topic == TRADES else a_move_value)(chance), chance)
        try:
            decoded = (decode_trade if topic == TRADES else decode_collateral_move)(value)
            key = decoded.account_id.encode() if chance.random() < 0.95 else b"acct-0"
        except ContractError:
            key = chance.choice([b"acct-1", b"\xff", b""])
        offset += chance.choice([1, 1, 2, 7])
        records.append(Record(offset, TIME_MS, key, value))
    return Run.of(records)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("topic", [TRADES, COLLATERAL])
def test_intake_of_mutants_says_what_the_decoders_say(topic: str, seed: int) -> None:
    rulebook = a_rulebook()
    run = mutants(topic, seed, MUTANTS)
    columns, oracle = Columns(), Oracle(rulebook)
    intake = Intake(rulebook, columns)
    row = good = 0
    for first in range(0, len(run), 3_000):
        part = run[first : first + 3_000]
        if topic == TRADES:
            batch, record_of = intake.read_trades(part)
            fields = (batch.book, batch.instrument, batch.lots, batch.price_ticks)
            fields += (batch.fee_micros, batch.seq, batch.ts_us, batch.case_episode)
        else:
            batch, record_of = intake.read_moves(part)
            fields = (batch.book, batch.asset, batch.quanta, batch.is_outflow)
            fields += (batch.seq, batch.ts_us)
        for row in range(record_of.size):
            if batch.precheck[row] == OUTCOME_QUARANTINE:
                assert record_of[row] == record_of[row - 1]  # second row of a wrong key
                continue
            record = part[int(record_of[row])]
            wanted = oracle.trade(record) if topic == TRADES else oracle.move(record)
            code = int(batch.precheck[row])
            assert code == wanted[0], record
            if code == OUTCOME_NONE:
                found = (columns.id_of(int(batch.account[row])), *(int(f[row]) for f in fields))
                assert found == wanted[1:], record
                good += 1
            elif code >= OUTCOME_REJECTED:
                assert intake.fault(topic, code, record).message
        assert np.array_equal(np.unique(record_of), np.arange(len(part)))
    assert good > MUTANTS // 10
    assert 0 < intake.close_looks < MUTANTS
