"""Intake: records of ``trades`` and ``collateral`` to batches the ledger can fold.

Decimal texts become exact integers (signed lots, ticks, micros, quanta), names become indices. What
cannot be applied is marked in the batch; the ledger then rejects it at its place in the order, and
`Intake.fault` names what is wrong. First failure wins:

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

Kernels (`solvent.kernel.intake`) read compact records where they lie. Whatever is spelled otherwise
goes through the strict decoders, one record at a time and counted (`Intake.close_looks`): if it
decodes, its compact spelling takes its place, so one path decides what all records mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from solvent.domain.instrument import Asset
from solvent.engine.run import Run
from solvent.engine.shard import InputRecord
from solvent.engine.window import WINDOW_OFFSETS, DuplicateWindow
from solvent.errors import ContractError, InvariantError, RejectCode
from solvent.kernel.decimals import FAULT_FINER, FAULT_NONE, parse_decimal
from solvent.kernel.intake import (
    KINDS,
    MOVE_CONTRACT,
    READ_NOT,
    READ_UNDECODABLE,
    REJECTED_UNDECODABLE,
    REJECTED_WRONG_KEY,
    SIDES,
    TRADE_CONTRACT,
    Heads,
    Steps,
    Vocabulary,
    new_heads,
    read_moves_jit,
    read_trades_jit,
    resolve_jit,
)
from solvent.kernel.layout import Int32, Moves, Trades, UInt8
from solvent.kernel.names import table_of
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import format_scaled
from solvent.wire.inputs import (
    CollateralMove,
    Trade,
    best_effort_account_id,
    decode_collateral_move,
    decode_trade,
    encode_collateral_move,
    encode_trade,
)
from solvent.wire.topics import COLLATERAL, TRADES

__all__ = ["Fault", "Intake", "MoveBatch", "TradeBatch"]

_CROSS_NAME: Final = "cross"
_MS_US: Final = 1_000


class Fault(NamedTuple):
    """Why a record is rejected, and the account it was about if that is clear."""

    code: str
    message: str
    account_id: str | None


class TradeBatch(NamedTuple):
    """Trades to fold; row k came from record ``record_of[k]`` of the run."""

    trades: Trades
    record_of: Int32


class MoveBatch(NamedTuple):
    """Moves to fold; row k came from record ``record_of[k]`` of the run."""

    moves: Moves
    record_of: Int32


class _Reading(NamedTuple):
    """A run as read: where names lie in `data`, and columns with a row a record."""

    data: UInt8
    heads: Heads
    columns: Any  # Trades or Moves


class Intake:
    """Reader of one partition's records under one rulebook.

    Parameters
    ----------
    rulebook : CompiledRulebook
        Names, steps and limits.
    columns : Columns
        Where accounts get their index.

    Attributes
    ----------
    close_looks : int
        Records that kernels left to the decoders so far.
    """

    def __init__(self, rulebook: CompiledRulebook, columns: Columns) -> None:
        self.close_looks = 0
        self._columns = columns
        self._windows = {TRADES: DuplicateWindow(), COLLATERAL: DuplicateWindow()}
        self.adopt(rulebook)

    def adopt(self, rulebook: CompiledRulebook) -> None:
        """Read by a rulebook from here on; duplicate windows know nothing of rules."""
        self._max_future_us = rulebook.max_future_us
        self._rulebook = rulebook
        markets = [i.name for i in rulebook.instruments]
        assets = [a.name for a in rulebook.assets]
        self._markets = {name: index for index, name in enumerate(markets)}
        self._assets = {name: index for index, name in enumerate(assets)}
        books, market_table = table_of([_CROSS_NAME, *markets]), table_of(markets)
        self._trade_names = Vocabulary(table_of(SIDES), books, market_table)
        self._move_names = Vocabulary(table_of(KINDS), books, table_of(assets))
        self._lots = _steps([(-i.lot.exponent, i.lot.numerator) for i in rulebook.instruments])
        self._ticks = _steps([(-i.tick.exponent, i.tick.numerator) for i in rulebook.instruments])
        # A fee is told in the asset its market settles in, micros of the settlement asset mostly.
        self._fees = _steps(
            [(-rulebook.assets[i.settles_in].quantum_exponent, 1) for i in rulebook.instruments]
        )
        self._quanta = _steps([(-a.quantum_exponent, 1) for a in rulebook.assets])
        fields = max(TRADE_CONTRACT.kind.size, MOVE_CONTRACT.kind.size)
        self._parts = np.zeros(fields, np.int64), np.zeros(fields, np.int64)

    def remember(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Enter records below the fence into the duplicate window, nothing else."""
        run = Run.of(records)
        data, heads, columns = self._read(topic, run)
        self._windows[topic].enter(data, run.offset, heads, columns.seq)

    def read_trades(self, run: Run) -> TradeBatch:
        """Return a batch of the run's trades, in order."""
        return TradeBatch(*self._resolve(TRADES, run))

    def read_moves(self, run: Run) -> MoveBatch:
        """Return a batch of the run's collateral moves, in order."""
        return MoveBatch(*self._resolve(COLLATERAL, run))

    def _resolve(self, topic: str, run: Run) -> tuple[Any, Int32]:
        data, heads, read = self._read(topic, run)
        columns = self._columns
        count = len(run)
        columns.reserve_accounts(count, int(np.maximum(heads.account_size, 0).sum()))
        record_of = np.empty(2 * count, np.int32)
        account = np.empty(2 * count, np.int32)
        precheck = np.empty(2 * count, np.uint8)
        account_hash, event_hash = np.empty(count, np.int64), np.empty(count, np.int64)
        row = 0
        for first, last, window in self._windows[topic].parts(run.offset, heads):
            row = resolve_jit(
                data,
                run.offset,
                run.key_first,
                run.key_size,
                heads,
                read.seq,
                first,
                last,
                WINDOW_OFFSETS,
                window,
                columns.names,
                columns.accounts,
                columns.counts,
                columns.default_preset,
                row,
                account_hash,
                event_hash,
                record_of,
                account,
                precheck,
            )
        record_of = record_of[:row]
        if row != count:  # some record has two rows: all columns follow
            read = type(read)(*(column[record_of] for column in read))
        read = read._replace(
            account=account[:row], precheck=precheck[:row], outcome=np.zeros(row, np.uint8)
        )
        return read, record_of

    # -- reading

    def _read(self, topic: str, run: Run) -> _Reading:
        """Read a run's records, each for itself, with kernels and where they cannot, closely."""
        heads, columns, left = self._scan(topic, run)
        if not left:
            return _Reading(run.data, heads, columns)
        self.close_looks += left
        looked_at = np.flatnonzero(heads.state == READ_NOT)
        spelled: list[bytes] = []
        refused: dict[int, bytes] = {}
        for number in looked_at.tolist():
            record = run[number]
            try:
                spelled.append(_respell(topic, record.value))
            except ContractError:
                account_id = best_effort_account_id(record.value, record.key)
                refused[number] = b"" if account_id is None else account_id.encode()
        decoded = np.array([n for n in looked_at.tolist() if n not in refused], np.int64)
        # What was spelled anew and the accounts of what was refused lie behind the run's own bytes.
        data = np.concatenate(
            [run.data, np.frombuffer(b"".join([*spelled, *refused.values()]), np.uint8)]
        )
        sizes = np.array([len(text) for text in spelled], np.int32)
        firsts = run.data.size + np.cumsum(sizes, dtype=np.int64) - sizes
        again = Run(
            data,
            run.offset[decoded],
            run.timestamp_ms[decoded],
            run.key_first[decoded],
            run.key_size[decoded],
            firsts,
            sizes,
        )
        heads_again, columns_again, left = self._scan(topic, again)
        if left:
            number = int(decoded[np.flatnonzero(heads_again.state == READ_NOT)[0]])
            message = f"{topic} offset {run.offset[number]}: decodes, but kernels do not read it"
            raise InvariantError(message)
        for column, column_again in zip(
            (*heads, *columns), (*heads_again, *columns_again), strict=True
        ):
            column[decoded] = column_again
        at = run.data.size + int(sizes.sum())
        for number, account in refused.items():
            heads.state[number] = READ_UNDECODABLE
            heads.account_first[number] = at
            heads.account_size[number] = len(account) or -1
            heads.id_size[number] = 0
            at += len(account)
        return _Reading(data, heads, columns)

    def _scan(self, topic: str, run: Run) -> tuple[Heads, Any, int]:
        count = len(run)
        heads = new_heads(count)
        if topic == TRADES:
            trades = _new_trades(count)
            left = read_trades_jit(
                run.data,
                run.value_first,
                run.value_size,
                run.timestamp_ms,
                TRADE_CONTRACT,
                self._trade_names,
                self._lots,
                self._ticks,
                self._fees.places,
                self._max_future_us,
                *self._parts,
                heads,
                trades,
            )
            return heads, trades, left
        moves = _new_moves(count)
        left = read_moves_jit(
            run.data,
            run.value_first,
            run.value_size,
            run.timestamp_ms,
            MOVE_CONTRACT,
            self._move_names,
            self._quanta,
            self._max_future_us,
            *self._parts,
            heads,
            moves,
        )
        return heads, moves, left

    # -- naming faults

    def fault(self, topic: str, precheck: int, record: InputRecord) -> Fault:
        """Name what is wrong with a record that intake marked."""
        if precheck == REJECTED_UNDECODABLE:
            account_id = best_effort_account_id(record.value, record.key)
            try:
                _respell(topic, record.value)
            except ContractError as error:
                return Fault(error.code, error.message, account_id)
            message = f"{topic} offset {record.offset}: refused, but it decodes"
            raise InvariantError(message)
        read = decode_trade if topic == TRADES else decode_collateral_move
        content = read(record.value)
        if precheck == REJECTED_WRONG_KEY:
            shown = "null" if record.key is None else ascii(record.key)[:80]
            message = f"record key {shown}: `account_id` {content.account_id!r} expected"
            return Fault(RejectCode.WRONG_KEY, message, content.account_id)
        limit_us = record.timestamp * _MS_US + self._max_future_us
        if content.ts_us > limit_us:
            message = f"{topic} `ts_us` = {content.ts_us}: at most {limit_us}, its Kafka time and"
            return Fault(RejectCode.FUTURE, f"{message} the skew", content.account_id)
        if isinstance(content, Trade):
            return self._trade_fault(content)
        return self._move_fault(content)

    def _trade_fault(self, trade: Trade) -> Fault:
        market = self._markets.get(trade.market)
        if market is None:
            message = f"{TRADES} `market` = {trade.market!r}: not in rulebook {self._rulebook.id}"
            return Fault(RejectCode.UNKNOWN_INSTRUMENT, message, trade.account_id)
        if trade.subaccount not in {_CROSS_NAME, trade.market}:
            message = f"{TRADES} `subaccount` = {trade.subaccount!r}: cross or {trade.market}"
            return Fault(RejectCode.WRONG_SUBACCOUNT, f"{message} expected", trade.account_id)
        instrument = self._rulebook.instruments[market]
        fee_exponent = self._rulebook.assets[instrument.settles_in].quantum_exponent
        found = (
            _number_fault(TRADES, "size", trade.size, self._lots, market, instrument.lot.format)
            or _number_fault(
                TRADES, "price", trade.price, self._ticks, market, instrument.tick.format
            )
            or _number_fault(
                TRADES,
                "fee",
                trade.fee,
                self._fees,
                market,
                lambda _: format_scaled(1, fee_exponent),
                is_signed=True,
            )
        )
        return _known(found, trade.account_id)

    def _move_fault(self, move: CollateralMove) -> Fault:
        index = self._assets.get(move.asset)
        if index is None:
            message = f"{COLLATERAL} `asset` = {move.asset!r}: unknown asset"
            return Fault(RejectCode.OUT_OF_CONTRACT, message, move.account_id)
        if move.subaccount != _CROSS_NAME and move.subaccount not in self._markets:
            message = f"{COLLATERAL} `subaccount` = {move.subaccount!r}: cross or a market expected"
            return Fault(RejectCode.WRONG_SUBACCOUNT, message, move.account_id)
        asset = self._rulebook.assets[index]
        is_signed = move.kind == "adjustment"
        found = _number_fault(
            COLLATERAL,
            "amount",
            move.amount,
            self._quanta,
            index,
            lambda _: _quantum(asset),
            is_signed=is_signed,
        )
        if found is None and is_signed:
            message = f"{COLLATERAL} `amount` = {move.amount}: must not be 0"
            found = RejectCode.OUT_OF_CONTRACT, message
        return _known(found, move.account_id)


def _respell(topic: str, value: bytes | None) -> bytes:
    """Return the compact spelling of a record, as its producer should have written it.

    A number's text that no kernel would scan stands for itself as ``?``: it is no number.

    Raises
    ------
    ContractError
        The record does not decode.
    """
    if topic == TRADES:
        trade = decode_trade(value)
        return encode_trade(
            trade_id=trade.trade_id,
            account_id=trade.account_id,
            subaccount=trade.subaccount,
            market=trade.market,
            side=trade.side,
            size=_scannable(trade.size),
            price=_scannable(trade.price),
            fee=_scannable(trade.fee),
            ts_us=trade.ts_us,
            seq=trade.seq,
            liquidation_id=trade.liquidation_id,
            claim_token=trade.claim_token,
        )
    move = decode_collateral_move(value)
    return encode_collateral_move(
        move_id=move.move_id,
        account_id=move.account_id,
        subaccount=move.subaccount,
        asset=move.asset,
        kind=move.kind,
        amount=_scannable(move.amount),
        ts_us=move.ts_us,
        seq=move.seq,
        transfer_id=move.transfer_id,
    )


def _scannable(text: str) -> str:
    return text if set(text) <= set("0123456789.-") else "?"


def _number_fault(
    topic: str,
    name: str,
    text: str,
    steps: Steps,
    kind: int,
    step: Callable[[int], str],
    *,
    is_signed: bool = False,
) -> tuple[RejectCode, str] | None:
    """Say what is wrong with a number, if anything is."""
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    value, fault = parse_decimal(data, 0, data.size, int(steps.places[kind]))
    if fault == FAULT_NONE and value % int(steps.step[kind]):
        fault = FAULT_FINER
    if fault == FAULT_FINER:
        message = f"{topic} `{name}` = {text}: a multiple of {step(1)} expected"
        return RejectCode.OFF_STEP, message
    if fault != FAULT_NONE:
        message = f"{topic} `{name}` = {text!a}: a plain decimal of at most 2**53 steps of"
        return RejectCode.OUT_OF_CONTRACT, f"{message} {step(1)} expected"
    if value <= 0 and not is_signed:
        return RejectCode.OUT_OF_CONTRACT, f"{topic} `{name}` = {text!a}: must be above 0"
    return None


def _known(found: tuple[RejectCode, str] | None, account_id: str) -> Fault:
    if found is None:
        msg = f"account {account_id}: a record was refused, but nothing is wrong with it"
        raise InvariantError(msg)
    return Fault(*found, account_id)


def _new_trades(count: int) -> Trades:
    return Trades(
        account=np.empty(count, np.int32),
        book=np.empty(count, np.int32),
        instrument=np.empty(count, np.int32),
        lots=np.empty(count, np.int64),
        price_ticks=np.empty(count, np.int64),
        fee_micros=np.empty(count, np.int64),
        seq=np.empty(count, np.int64),
        ts_us=np.empty(count, np.int64),
        case_episode=np.empty(count, np.int64),
        precheck=np.empty(count, np.uint8),
        outcome=np.empty(count, np.uint8),
    )


def _new_moves(count: int) -> Moves:
    return Moves(
        account=np.empty(count, np.int32),
        book=np.empty(count, np.int32),
        asset=np.empty(count, np.int32),
        quanta=np.empty(count, np.int64),
        is_outflow=np.empty(count, np.uint8),
        seq=np.empty(count, np.int64),
        ts_us=np.empty(count, np.int64),
        precheck=np.empty(count, np.uint8),
        outcome=np.empty(count, np.uint8),
    )


def _steps(steps: list[tuple[int, int]]) -> Steps:
    return Steps(
        np.array([places for places, _ in steps], np.int64),
        np.array([step for _, step in steps], np.int64),
    )


def _quantum(asset: Asset) -> str:
    return f"1e{asset.quantum_exponent}"
