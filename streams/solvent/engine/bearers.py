"""Who bears a socialised loss, and what of it: the margin side of the last resort.

A unit bears if it is judged healthy or in a margin call, has no case of its own and equity above 0,
and its account is not quarantined. Equity is raw equity: at the mark, all weights 1. What it bears
is taken in the settlement currency, so one without any gets a debt; never more than its equity, so
none falls below 0 by it. What it does to the unit's status follows as from any posting.
"""

from __future__ import annotations

import numpy as np

from solvent.domain.losses import socialised_due, socialised_shares
from solvent.engine.postings import Poster
from solvent.kernel.layout import (
    COUNT_UNITS,
    FLAG_OVERDRAWN,
    FLAG_WITHDRAWAL_BELOW_INITIAL,
    VERDICT_HEALTHY,
    VERDICT_MARGIN_CALL,
    Int64,
)
from solvent.state.columns import Columns
from solvent.wire.losses import LossAnswer

__all__ = ["Bearers"]

#: What only a withdrawal raises.
_OF_OUTFLOWS = FLAG_OVERDRAWN | FLAG_WITHDRAWAL_BELOW_INITIAL


class Bearers:
    """Units of one shard that can bear a loss; figures are current for all of them.

    Parameters
    ----------
    columns, poster
        The shard's.
    partition : int
        Its number.
    """

    def __init__(self, columns: Columns, poster: Poster, partition: int) -> None:
        self._columns = columns
        self._poster = poster
        self._partition = partition

    def base_micros(self) -> int:
        """Return the equity of all of them."""
        raw: Int64 = self._columns.figures.raw_equity_micros
        return sum(raw[self._units()].tolist())

    def bear(self, answer: LossAnswer) -> tuple[list[tuple[bytes, int, int]], list[int]]:
        """Debit what an order says.

        Returns
        -------
        debits : list of (bytes, int, int)
            Account id, book and micros, by name.
        concerned : list of int
            Units to be settled.
        """
        units = self._units()
        columns = self._columns
        keys = columns.keys_of(columns.units.account[units])
        books = columns.units.book[units].tolist()
        order = sorted(zip(keys, books, units.tolist(), strict=True))
        units = np.array([unit for _, _, unit in order], np.int64)
        bases = columns.figures.raw_equity_micros[units].tolist()
        due = socialised_due(
            loss_micros=answer.loss_micros,
            base_micros=answer.base_micros,
            weighed_micros=answer.bases[self._partition],
            own_micros=sum(bases),
        )
        shares = np.array(socialised_shares(due, bases), np.int64)
        bearing = np.flatnonzero(shares)
        units = units[bearing]
        before = columns.units.flags[units] & _OF_OUTFLOWS
        is_taken, concerned = self._poster.debit(units, shares[bearing])
        columns.units.flags[units] &= before | ~_OF_OUTFLOWS
        taken = bearing[is_taken]
        debits = [
            (*order[place][:2], micros)
            for place, micros in zip(taken.tolist(), shares[taken].tolist(), strict=True)
        ]
        return debits, concerned

    def _units(self) -> Int64:
        columns = self._columns
        units, figures = columns.units, columns.figures
        count = int(columns.counts[COUNT_UNITS])
        verdict = figures.verdict[:count]
        can_bear = (verdict == VERDICT_HEALTHY) | (verdict == VERDICT_MARGIN_CALL)
        can_bear &= figures.raw_equity_micros[:count] > 0
        can_bear &= units.revision[:count] == 0
        can_bear &= columns.accounts.quarantined[units.account[:count]] == 0
        return np.flatnonzero(can_bear).astype(np.int64)
