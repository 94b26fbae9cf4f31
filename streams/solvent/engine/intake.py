"""Intake: records of ``trades`` and ``collateral`` to batches the ledger can fold.

Decimal texts become exact integers (signed lots, ticks, micros, quanta), names become indices. What
cannot be applied is named here and marked in the batch; the ledger then rejects it at its place in
the order. First failure wins:

1. the record decodes (`solvent.wire.inputs`)             SLV-101, SLV-102, SLV-103
2. its id is not a repeat in the duplicate window         counted, no reject
3. the record's key is its account                        SLV-105
4. its event time is not in the future of its Kafka time  SLV-107
5. its market (SLV-202) or asset (SLV-103) is known
6. its subaccount fits                                    SLV-106
7. its numbers are in contract (SLV-103) and on their steps (SLV-104), field by field
8. in the ledger: its sequence (repeat: counted; gap: SLV-201), exact range (SLV-203)

A reject quarantines its account, which is created if it was unknown. The account of an undecodable
record is the one its key names. With a wrong key nobody can tell whose state is in doubt: the
account the key names and the one the record names are quarantined if they exist in this partition,
and neither is created.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from solvent.domain.instrument import Asset
from solvent.engine.shard import InputRecord
from solvent.engine.window import DuplicateWindow
from solvent.errors import ContractError, RejectCode
from solvent.kernel.decimals import FAULT_FINER, FAULT_NONE, parse_decimals_jit
from solvent.kernel.layout import (
    CROSS,
    NONE,
    OUTCOME_DUPLICATE,
    OUTCOME_NONE,
    OUTCOME_QUARANTINE,
    OUTCOME_REJECTED,
    Moves,
    Trades,
)
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import MICRO_EXPONENT
from solvent.wire.inputs import (
    CollateralMove,
    Trade,
    best_effort_account_id,
    decode_collateral_move,
    decode_trade,
)
from solvent.wire.topics import COLLATERAL, TRADES

__all__ = ["Fault", "Intake", "MoveBatch", "TradeBatch"]

_CROSS_NAME: Final = "cross"
_UNUSED: Final = "0"


class Fault(NamedTuple):
    """Why a record is rejected, and the account it was about if that is clear."""

    code: str
    message: str
    account_id: str | None


@dataclass(slots=True)
class TradeBatch:
    """Trades to fold; row k came from record `record_of[k]` of the run."""

    trades: Trades
    record_of: list[int]
    faults: dict[int, Fault] = field(default_factory=dict)


@dataclass(slots=True)
class MoveBatch:
    """Moves to fold; row k came from record `record_of[k]` of the run."""

    moves: Moves
    record_of: list[int]
    faults: dict[int, Fault] = field(default_factory=dict)


class _Rows:
    """What trades and moves have in common while a batch is built, one list per column."""

    __slots__ = ("account", "book", "faults", "item", "precheck", "record_of", "seq", "ts_us")

    def __init__(self) -> None:
        self.account: list[int] = []
        self.book: list[int] = []
        self.item: list[int] = []
        self.seq: list[int] = []
        self.ts_us: list[int] = []
        self.precheck: list[int] = []
        self.record_of: list[int] = []
        self.faults: dict[int, Fault] = {}

    def add(self, account: int, precheck: int, record: int) -> None:
        """Add a row the ledger will not apply."""
        self.account.append(account)
        self.book.append(CROSS)
        self.item.append(NONE)
        self.seq.append(NONE)
        self.ts_us.append(0)
        self.precheck.append(precheck)
        self.record_of.append(record)


class _Numbers:
    """One decimal field of a batch: its texts, and after `parse` its values and faults."""

    __slots__ = ("faults", "name", "texts", "values")

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []
        self.values: NDArray[np.int64] = np.zeros(0, np.int64)
        self.faults: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def parse(
        self, kind: NDArray[np.int32], places: NDArray[np.int64], step: NDArray[np.int64]
    ) -> None:
        """Read all texts; a row of negative `kind` is left alone."""
        joined = "\n".join(self.texts)
        if joined.count("\n") >= max(len(self.texts), 1):  # a text with a line break of its own
            joined = "\n".join("?" if "\n" in text else text for text in self.texts)
        count = len(self.texts)
        self.values = np.empty(count, np.int64)
        self.faults = np.empty(count, np.uint8)
        data = np.frombuffer(bytearray(joined, "utf-8", "replace"), np.uint8)
        parse_decimals_jit(data, kind, places, step, self.values, self.faults)


class Intake:
    """Reader of one partition's records under one rulebook.

    Parameters
    ----------
    rulebook : CompiledRulebook
        Names, steps and limits.
    columns : Columns
        Where accounts get their index.
    """

    def __init__(self, rulebook: CompiledRulebook, columns: Columns) -> None:
        self._columns = columns
        self._max_future_us = rulebook.max_future_us
        self._markets = {i.name: i.index for i in rulebook.instruments}
        self._assets = {a.name: a.index for a in rulebook.assets}
        self._books = {_CROSS_NAME: CROSS, **self._markets}
        self._rulebook = rulebook
        self._lots = _steps([(-i.lot.exponent, i.lot.numerator) for i in rulebook.instruments])
        self._ticks = _steps([(-i.tick.exponent, i.tick.numerator) for i in rulebook.instruments])
        self._quanta = _steps([(-a.quantum_exponent, 1) for a in rulebook.assets])
        self._micros = _steps([(-MICRO_EXPONENT, 1)])
        self.windows = {TRADES: DuplicateWindow(), COLLATERAL: DuplicateWindow()}

    def remember(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Enter records below the fence into the duplicate window, nothing else."""
        window = self.windows[topic]
        if topic == TRADES:
            for record in records:
                try:
                    trade = decode_trade(record.value)
                except ContractError:
                    continue
                if trade.seq is None:
                    window.seen(trade.account_id, trade.trade_id, record.offset)
            return
        for record in records:
            try:
                move = decode_collateral_move(record.value)
            except ContractError:
                continue
            if move.seq is None:
                window.seen(move.account_id, move.move_id, record.offset)

    # -- trades

    def read_trades(self, records: Sequence[InputRecord]) -> TradeBatch:
        """Return a batch of the run's trades, in order."""
        rows = _Rows()
        sizes, prices, fees = _Numbers("size"), _Numbers("price"), _Numbers("fee")
        sell: list[bool] = []
        episode: list[int] = []
        columns, index, keys = self._columns, self._columns.index, self._columns.keys
        markets, books, horizon = self._markets, self._books, self._max_future_us
        seen = self.windows[TRADES].seen
        for number, record in enumerate(records):
            before = len(rows.account)
            try:
                trade = decode_trade(record.value)
            except ContractError as error:
                self._undecodable(rows, number, record, error)
            else:
                account_id = trade.account_id
                seq = trade.seq
                account = index.get(account_id, NONE)
                if seq is None and seen(account_id, trade.trade_id, record.offset):
                    rows.add(account, OUTCOME_DUPLICATE, number)
                elif (
                    keys[account] != record.key
                    if account >= 0
                    else account_id.encode() != record.key
                ):
                    self._wrong_key(rows, number, record, account_id)
                else:
                    if account < 0:
                        account = columns.add_account(account_id)
                    market = markets.get(trade.market, NONE)
                    book = books.get(trade.subaccount)
                    if (
                        market >= 0
                        and book is not None
                        and (book < 0 or book == market)  # cross, or the market's own book
                        and trade.ts_us <= record.timestamp * 1000 + horizon
                    ):
                        rows.account.append(account)
                        rows.book.append(book)
                        rows.item.append(market)
                        rows.seq.append(NONE if seq is None else seq)
                        rows.ts_us.append(trade.ts_us)
                        rows.precheck.append(OUTCOME_NONE)
                        rows.record_of.append(number)
                        sizes.texts.append(trade.size)
                        prices.texts.append(trade.price)
                        fees.texts.append(trade.fee)
                        sell.append(trade.side == "sell")
                        offer = trade.liquidation_id
                        episode.append(
                            NONE if offer is None else _episode(offer, account_id, trade.subaccount)
                        )
                        continue
                    fault = self._trade_fault(trade, record)
                    rows.faults[len(rows.account)] = fault
                    rows.add(account, OUTCOME_REJECTED, number)
            for _ in range(len(rows.account) - before):
                sizes.texts.append(_UNUSED)
                prices.texts.append(_UNUSED)
                fees.texts.append(_UNUSED)
                sell.append(False)
                episode.append(NONE)
        item = np.array(rows.item, np.int32)
        sizes.parse(item, *self._lots)
        prices.parse(item, *self._ticks)
        fees.parse(np.where(item >= 0, 0, NONE).astype(np.int32), *self._micros)
        precheck = np.array(rows.precheck, np.uint8)
        used = item >= 0
        bad = sizes.faults | prices.faults | fees.faults
        bad_rows = np.flatnonzero(
            used & ((bad != FAULT_NONE) | (sizes.values <= 0) | (prices.values <= 0))
        )
        for row in bad_rows.tolist():
            rows.faults[row] = self._number_fault(
                TRADES,
                rows,
                row,
                (
                    (sizes, True, lambda i: self._rulebook.instruments[i].lot.format(1)),
                    (prices, True, lambda i: self._rulebook.instruments[i].tick.format(1)),
                    (fees, False, lambda _: "0.000001"),
                ),
            )
            precheck[row] = OUTCOME_REJECTED
        lots = np.where(np.array(sell, np.bool_), -sizes.values, sizes.values)
        trades = Trades(
            account=np.array(rows.account, np.int32),
            book=np.array(rows.book, np.int32),
            instrument=item,
            lots=np.ascontiguousarray(lots, np.int64),
            price_ticks=prices.values,
            fee_micros=fees.values,
            seq=np.array(rows.seq, np.int64),
            ts_us=np.array(rows.ts_us, np.int64),
            case_episode=np.array(episode, np.int64),
            precheck=precheck,
            outcome=np.zeros(len(precheck), np.uint8),
        )
        return TradeBatch(trades, rows.record_of, rows.faults)

    def _trade_fault(self, trade: Trade, record: InputRecord) -> Fault:
        """Name what is wrong with a trade whose names or time do not hold."""
        late = self._future(TRADES, trade.ts_us, record)
        if late is not None:
            return Fault(RejectCode.FUTURE, late, trade.account_id)
        if trade.market not in self._markets:
            message = f"{TRADES} `market` = {trade.market!r}: not in rulebook {self._rulebook.id}"
            return Fault(RejectCode.UNKNOWN_INSTRUMENT, message, trade.account_id)
        message = f"{TRADES} `subaccount` = {trade.subaccount!r}: cross or {trade.market} expected"
        return Fault(RejectCode.WRONG_SUBACCOUNT, message, trade.account_id)

    # -- collateral moves

    def read_moves(self, records: Sequence[InputRecord]) -> MoveBatch:
        """Return a batch of the run's collateral moves, in order."""
        rows = _Rows()
        amounts = _Numbers("amount")
        outflow: list[bool] = []
        signed: list[bool] = []
        columns, index, keys = self._columns, self._columns.index, self._columns.keys
        assets, books, horizon = self._assets, self._books, self._max_future_us
        seen = self.windows[COLLATERAL].seen
        for number, record in enumerate(records):
            before = len(rows.account)
            try:
                move = decode_collateral_move(record.value)
            except ContractError as error:
                self._undecodable(rows, number, record, error)
            else:
                account_id = move.account_id
                seq = move.seq
                account = index.get(account_id, NONE)
                if seq is None and seen(account_id, move.move_id, record.offset):
                    rows.add(account, OUTCOME_DUPLICATE, number)
                elif (
                    keys[account] != record.key
                    if account >= 0
                    else account_id.encode() != record.key
                ):
                    self._wrong_key(rows, number, record, account_id)
                else:
                    if account < 0:
                        account = columns.add_account(account_id)
                    asset = assets.get(move.asset, NONE)
                    book = books.get(move.subaccount)
                    if (
                        asset >= 0
                        and book is not None
                        and move.ts_us <= record.timestamp * 1000 + horizon
                    ):
                        rows.account.append(account)
                        rows.book.append(book)
                        rows.item.append(asset)
                        rows.seq.append(NONE if seq is None else seq)
                        rows.ts_us.append(move.ts_us)
                        rows.precheck.append(OUTCOME_NONE)
                        rows.record_of.append(number)
                        amounts.texts.append(move.amount)
                        outflow.append(move.kind in {"withdrawal", "transfer_out"})
                        signed.append(move.kind == "adjustment")
                        continue
                    rows.faults[len(rows.account)] = self._move_fault(move, record)
                    rows.add(account, OUTCOME_REJECTED, number)
            for _ in range(len(rows.account) - before):
                amounts.texts.append(_UNUSED)
                outflow.append(False)
                signed.append(False)
        item = np.array(rows.item, np.int32)
        amounts.parse(item, *self._quanta)
        precheck = np.array(rows.precheck, np.uint8)
        is_outflow = np.array(outflow, np.bool_)
        is_signed = np.array(signed, np.bool_)
        is_wrong_sign = np.where(is_signed, amounts.values == 0, amounts.values <= 0)
        bad_rows = np.flatnonzero((item >= 0) & ((amounts.faults != FAULT_NONE) | is_wrong_sign))
        for row in bad_rows.tolist():
            rows.faults[row] = self._number_fault(
                COLLATERAL,
                rows,
                row,
                ((amounts, not signed[row], lambda i: _quantum(self._rulebook.assets[i])),),
            )
            precheck[row] = OUTCOME_REJECTED
        moves = Moves(
            account=np.array(rows.account, np.int32),
            book=np.array(rows.book, np.int32),
            asset=item,
            quanta=np.where(is_outflow, -amounts.values, amounts.values).astype(np.int64),
            is_outflow=is_outflow.astype(np.uint8),
            seq=np.array(rows.seq, np.int64),
            ts_us=np.array(rows.ts_us, np.int64),
            precheck=precheck,
            outcome=np.zeros(len(precheck), np.uint8),
        )
        return MoveBatch(moves, rows.record_of, rows.faults)

    def _move_fault(self, move: CollateralMove, record: InputRecord) -> Fault:
        """Name what is wrong with a move whose names or time do not hold."""
        late = self._future(COLLATERAL, move.ts_us, record)
        if late is not None:
            return Fault(RejectCode.FUTURE, late, move.account_id)
        if move.asset not in self._assets:
            message = f"{COLLATERAL} `asset` = {move.asset!r}: unknown asset"
            return Fault(RejectCode.OUT_OF_CONTRACT, message, move.account_id)
        message = f"{COLLATERAL} `subaccount` = {move.subaccount!r}: cross or a market expected"
        return Fault(RejectCode.WRONG_SUBACCOUNT, message, move.account_id)

    # -- what both share

    def _future(self, topic: str, ts_us: int, record: InputRecord) -> str | None:
        limit_us = record.timestamp * 1000 + self._max_future_us
        if ts_us <= limit_us:
            return None
        return f"{topic} `ts_us` = {ts_us}: at most {limit_us}, its Kafka time and the skew"

    def _undecodable(
        self, rows: _Rows, number: int, record: InputRecord, error: ContractError
    ) -> None:
        account_id = best_effort_account_id(record.value, record.key)
        account = NONE if account_id is None else self._columns.add_account(account_id)
        rows.faults[len(rows.account)] = Fault(error.code, error.message, account_id)
        rows.add(account, OUTCOME_REJECTED, number)

    def _wrong_key(self, rows: _Rows, number: int, record: InputRecord, account_id: str) -> None:
        shown = "null" if record.key is None else ascii(record.key)[:80]
        message = f"record key {shown}: `account_id` {account_id!r} expected"
        named = self._columns.index.get(account_id, NONE)
        keyed = NONE
        if record.key is not None:
            keyed = self._columns.index_of_key(record.key)
        rows.faults[len(rows.account)] = Fault(RejectCode.WRONG_KEY, message, account_id)
        rows.add(named, OUTCOME_REJECTED, number)
        if keyed != NONE:
            rows.add(keyed, OUTCOME_QUARANTINE, number)

    def _number_fault(
        self,
        topic: str,
        rows: _Rows,
        row: int,
        fields: tuple[tuple[_Numbers, bool, Callable[[int], str]], ...],
    ) -> Fault:
        """Name the first field of a row that breaks its contract or step."""
        account_id = self._columns.account_ids[rows.account[row]]
        for numbers, must_be_positive, step in fields:
            text = numbers.texts[row]
            if numbers.faults[row] == FAULT_FINER:
                message = f"{topic} `{numbers.name}` = {text}: a multiple of"
                message = f"{message} {step(rows.item[row])} expected"
                return Fault(RejectCode.OFF_STEP, message, account_id)
            shown = ascii(text)
            if numbers.faults[row] != FAULT_NONE:
                message = f"{topic} `{numbers.name}` = {shown}: a plain decimal of at most 2**53"
                message = f"{message} steps of {step(rows.item[row])} expected"
                return Fault(RejectCode.OUT_OF_CONTRACT, message, account_id)
            if must_be_positive and numbers.values[row] <= 0:
                message = f"{topic} `{numbers.name}` = {shown}: must be above 0"
                return Fault(RejectCode.OUT_OF_CONTRACT, message, account_id)
        message = f"{topic} `{fields[0][0].name}` = {fields[0][0].texts[row]}: must not be 0"
        return Fault(RejectCode.OUT_OF_CONTRACT, message, account_id)


def _steps(steps: list[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return (
        np.array([places for places, _ in steps], np.int64),
        np.array([step for _, step in steps], np.int64),
    )


def _quantum(asset: Asset) -> str:
    return f"1e{asset.quantum_exponent}"


def _episode(liquidation_id: str, account_id: str, subaccount: str) -> int:
    """Return the episode an offer's id names if it is this unit's, else `NONE`."""
    unit, _, episode = liquidation_id.rpartition(":")
    return int(episode) if unit == f"{account_id}:{subaccount}" else NONE
