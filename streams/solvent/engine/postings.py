"""What the engine itself writes to the ledger: fills of deleveraging, money of the fund, losses.

Each goes through the kernel that folds what venues tell, as a batch of records without sequence or
id, so that kinds of contracts, funding, interest and rounding are those of any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from solvent.engine.markbook import MarkBook
from solvent.kernel.layout import (
    NONE,
    OUTCOME_APPLIED,
    OUTCOME_NONE,
    STOP_END,
    STOP_GROW,
    Int32,
    Int64,
    Moves,
    Trades,
    UInt8,
)
from solvent.kernel.ledger import fold_moves_jit, fold_trades_jit
from solvent.kernel.workspace import Workspace
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns

__all__ = ["Poster"]

BoolArray = npt.NDArray[np.bool_]


def _int32(value: int) -> Int32:
    return np.array([value], np.int32)


def _int64(value: int) -> Int64:
    return np.array([value], np.int64)


def _uint8(value: int) -> UInt8:
    return np.array([value], np.uint8)


class Poster:
    """Writer of single entries of one shard.

    Parameters
    ----------
    rulebook, columns, marks, space, totals
        The shard's.
    """

    def __init__(
        self,
        rulebook: CompiledRulebook,
        columns: Columns,
        marks: MarkBook,
        space: Workspace,
        totals: Int64,
    ) -> None:
        self._rulebook = rulebook
        self._columns = columns
        self._marks = marks
        self._space = space
        self._totals = totals

    def fill(self, unit: int, instrument: int, lots: int, ticks: int) -> bool:
        """Trade signed lots at a price in ticks, without fee; return whether the ledger took it."""
        columns = self._columns
        trades = Trades(
            account=_int32(columns.units.account[unit]),
            book=_int32(columns.units.book[unit]),
            instrument=_int32(instrument),
            lots=_int64(lots),
            price_ticks=_int64(ticks),
            fee_micros=_int64(0),
            seq=_int64(NONE),
            ts_us=_int64(self._marks.stream_us),
            case_episode=_int64(NONE),
            precheck=_uint8(OUTCOME_NONE),
            outcome=_uint8(OUTCOME_NONE),
        )
        is_judging = self._marks.seq > 0
        self._fold(lambda: fold_trades_jit(trades, 0, is_judging, self._totals, *self._tables()))
        return bool(trades.outcome[0] == OUTCOME_APPLIED)

    def cash(self, unit: int, micros: int) -> bool:
        """Credit (or debit) settlement currency; return whether the ledger took it."""
        columns = self._columns
        moves = Moves(
            account=_int32(columns.units.account[unit]),
            book=_int32(columns.units.book[unit]),
            asset=_int32(int(self._rulebook.rules.settlement_asset)),
            quanta=_int64(micros),
            is_outflow=_uint8(0),
            seq=_int64(NONE),
            ts_us=_int64(self._marks.stream_us),
            precheck=_uint8(OUTCOME_NONE),
            outcome=_uint8(OUTCOME_NONE),
        )
        is_judging = self._marks.seq > 0
        self._fold(lambda: fold_moves_jit(moves, 0, is_judging, *self._tables()))
        return bool(moves.outcome[0] == OUTCOME_APPLIED)

    def debit(self, units: Int64, micros: Int64) -> tuple[BoolArray, list[int]]:
        """Debit settlement currency of many units.

        Returns
        -------
        is_taken : bool, shape (n,)
            Whether the ledger took it.
        concerned : list of int
            Units whose status it changes, or that it puts out of judgement.
        """
        columns, count = self._columns, units.size
        moves = Moves(
            account=columns.units.account[units].astype(np.int32),
            book=columns.units.book[units].astype(np.int32),
            asset=np.full(count, int(self._rulebook.rules.settlement_asset), np.int32),
            quanta=-micros,
            is_outflow=np.zeros(count, np.uint8),
            seq=np.full(count, NONE, np.int64),
            ts_us=np.full(count, self._marks.stream_us, np.int64),
            precheck=np.full(count, OUTCOME_NONE, np.uint8),
            outcome=np.full(count, OUTCOME_NONE, np.uint8),
        )
        is_judging = self._marks.seq > 0
        concerned: list[int] = []
        done, reason = 0, STOP_GROW
        while reason != STOP_END:
            done, reason, subject = fold_moves_jit(moves, done, is_judging, *self._tables())
            if reason == STOP_GROW:
                self._columns.make_room(subject)
            elif reason != STOP_END:
                concerned.append(int(units[done - 1]))
        return moves.outcome == OUTCOME_APPLIED, concerned

    def _fold(self, fold: Callable[[], tuple[int, int, int]]) -> None:
        """Fold a batch of one, making room as often as it asks for some."""
        _, reason, subject = fold()
        while reason == STOP_GROW:
            self._columns.make_room(subject)
            _, reason, subject = fold()

    def _tables(self) -> tuple[Any, ...]:
        """Return what both folds end with; room made for a unit may have replaced some of it."""
        columns = self._columns
        return (
            columns.counts,
            columns.accounts,
            columns.units,
            columns.cases,
            columns.positions,
            columns.balances,
            columns.orders,
            self._rulebook.rules,
            self._marks.marks,
            self._space,
            columns.figures,
        )
