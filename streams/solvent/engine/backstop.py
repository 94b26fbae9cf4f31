"""The margin side of the loss waterfall: what a shard tells the fund, and what it does for it.

`solvent.engine.waterfall` keeps the fund and says what follows; it is told in ``losses.v1`` and
answers in mark frames. Every word a shard has for it goes out with the slice that brought it about,
every answer is acted on at its place among the frames: a case is claimed, paid, taken over and
deleveraged exactly once, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from solvent.domain.losses import Counterparty, queue_score
from solvent.domain.sizing import CloseLeg
from solvent.engine.announce import Announcer
from solvent.engine.bearers import Bearers
from solvent.engine.cases import CaseBook, Fill
from solvent.engine.describe import CROSS_NAME
from solvent.engine.markbook import MarkBook
from solvent.engine.postings import Poster
from solvent.engine.shard import Emit
from solvent.engine.surface import mark_price_of
from solvent.engine.waterfall import loss_record
from solvent.errors import PartitionError
from solvent.kernel.layout import (
    COUNT_UNITS,
    CROSS,
    STATUS_HEALTHY,
    STATUS_MARGIN_CALL,
    VERDICT_UNKNOWN,
)
from solvent.kernel.ledger import find_holders_jit
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.wire.losses import LossAnswer

__all__ = ["Backstop"]

#: Most candidates that a partition names in one answer; what they do not have is asked for again.
_MOST_CANDIDATES = 256
#: Most entries of one record, so that it stays well below what a broker takes.
_MOST_DEBITS = 4_000


class Backstop:
    """What one shard does for the fund.

    Parameters
    ----------
    announcer : Announcer
        Of the shard: names, figures and plans.
    cases, poster, records
        The shard's.
    judge : callable
        Evaluates a unit and returns the status it calls for.
    """

    def __init__(
        self,
        announcer: Announcer,
        cases: CaseBook,
        poster: Poster,
        records: list[Emit],
        judge: Callable[[int], int],
    ) -> None:
        self._announcer = announcer
        self._rulebook: CompiledRulebook = announcer.rulebook
        self._columns: Columns = announcer.columns
        self._marks: MarkBook = announcer.marks
        self._cases = cases
        self._poster = poster
        self._records = records
        self._judge = judge
        self._bearers = Bearers(self._columns, poster, announcer.partition)

    # -- told

    def _tell(self, kind: str, **members: Any) -> None:  # noqa: ANN401 - of a loss record
        partition, ts_us = self._announcer.partition, self._marks.stream_us
        self._records.append(loss_record(partition, ts_us, kind, **members))

    def collect(self, fill: Fill, due_micros: int) -> None:
        """Take the fund's part of a fill from the account, no more than its equity."""
        unit = fill.unit
        self._judge(unit)
        figures = self._columns.figures
        if figures.verdict[unit] == VERDICT_UNKNOWN:
            return
        due_micros = min(due_micros, max(0, int(figures.raw_equity_micros[unit])))
        if due_micros and self._poster.cash(unit, -due_micros):
            self._cases.change(unit).fund_micros += due_micros
            self._tell(
                "contribution",
                liquidation_id=self._liquidation_id(unit, fill.episode),
                reason="fill",
                amount_micros=due_micros,
            )

    def take_over(self, unit: int) -> None:
        """Close all positions of a unit at their bankruptcy prices; the fund has them from here."""
        columns = self._columns
        case = self._cases.change(unit)
        figures = self._announcer.describer.figures(unit)
        liquidation_id = self._liquidation_id(unit, int(columns.units.episode[unit]))
        for leg in self._announcer.planner.full_close(unit, figures):
            instrument = leg.instrument
            lots = leg.size_lots if leg.side == "sell" else -leg.size_lots
            price = _at_tick(leg)
            mark_price = mark_price_of(self._rulebook, self._marks, instrument)
            if not self._poster.fill(unit, instrument.index, -lots, price // instrument.tick_price):
                return  # quarantined: its ledger would leave the exact range
            case.give(
                instrument.index,
                leg.size_lots,
                instrument.value_of(leg.size_lots, price, mark_price),
            )
            self._tell(
                "takeover",
                liquidation_id=liquidation_id,
                account_id=columns.id_of(columns.units.account[unit]),
                subaccount=self._subaccount(unit),
                market=instrument.name,
                lots=lots,
                price=price,
            )

    # -- answered

    def pay(self, answer: LossAnswer) -> int | None:
        """Credit what the fund pays; return the unit, None if it is not here."""
        unit = self._unit(answer.account_id, answer.subaccount)
        if unit is None:
            return None
        columns, paid = self._columns, answer.paid_micros
        is_quarantined = columns.accounts.quarantined[columns.units.account[unit]]
        self._judge(unit)
        if not is_quarantined and columns.figures.verdict[unit] != VERDICT_UNKNOWN:
            paid = min(paid, max(0, -int(columns.figures.raw_equity_micros[unit])))
        if paid and not self._poster.cash(unit, paid):
            paid = 0
        case = self._cases.standing(unit, answer.liquidation_id.rpartition(":")[2], columns.units)
        if case is not None:
            case.is_claimed = False
            case.is_spent = answer.paid_micros < answer.claimed_micros
            of_fund = min(paid, answer.paid_micros - answer.socialised_micros)
            case.paid_micros += of_fund
            case.socialised_micros += paid - of_fund
        if paid < answer.paid_micros:  # a deposit came first
            self._tell(
                "contribution",
                liquidation_id=answer.liquidation_id,
                reason="returned",
                amount_micros=answer.paid_micros - paid,
            )
        return unit

    def rank(self, answer: LossAnswer) -> None:
        """Name those on the other side of a takeover, who are to give first, first."""
        index = self._instrument(answer.market)
        found = []
        for unit, lots, cost in self._other_side(index, answer.lots):
            status = self._judge(unit)
            if status in {STATUS_HEALTHY, STATUS_MARGIN_CALL}:
                found.append((self._counterparty(unit, index, lots, cost), self._subaccount(unit)))
        found.sort(key=lambda one: (-queue_score(one[0]), one[0].account_id, one[1]))
        candidates = []
        left = abs(answer.lots)
        for counterparty, subaccount in found[:_MOST_CANDIDATES]:
            if left <= 0:
                break
            left -= counterparty.lots
            candidates.append([counterparty.account_id, subaccount, *counterparty[1:]])
        self._tell("ranked", request=answer.request, candidates=candidates)

    def deleverage(self, answer: LossAnswer) -> list[int]:
        """Close what orders name of accounts that are here; return their units."""
        index = self._instrument(answer.market)
        instrument = self._rulebook.instruments[index]
        fills, concerned = [], []
        for account_id, subaccount, wanted in answer.orders:
            unit = self._unit(account_id, subaccount)
            if unit is None:
                continue
            held = next((n for i, n, _ in self._columns.positions_of(unit) if i == index), 0)
            if held == 0 or (held > 0) == (answer.lots > 0):
                continue
            lots = min(wanted, abs(held))
            signed = lots if held < 0 else -lots
            if self._poster.fill(unit, index, signed, answer.price // instrument.tick_price):
                fills.append([account_id, subaccount, lots])
                concerned.append(unit)
        self._tell("deleveraged", request=answer.request, fills=fills)
        return concerned

    def weigh(self, answer: LossAnswer) -> None:
        """Tell what equity here can bear a loss; all figures are current."""
        equity_micros = self._bearers.base_micros()
        self._tell("weighed", request=answer.request, equity_micros=equity_micros)

    def bear(self, answer: LossAnswer) -> list[int]:
        """Debit what this partition bears of a loss, and tell who did; return units concerned."""
        debits, concerned = self._bearers.bear(answer)
        name = self._announcer.book_name
        told = [[key.decode(), name(book), micros] for key, book, micros in debits]
        parts = [told[at : at + _MOST_DEBITS] for at in range(0, len(told), _MOST_DEBITS)] or [[]]
        for rest, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
            self._tell(
                "socialised",
                request=answer.request,
                liquidation_id=answer.liquidation_id,
                loss_micros=answer.loss_micros,
                base_micros=answer.base_micros,
                borne=part,
                rest=rest,
            )
        return concerned

    # -- who and what

    def _other_side(self, index: int, taken_lots: int) -> list[tuple[int, int, int]]:
        """Return (unit, lots, cost basis) of judged accounts on the other side, by name."""
        columns = self._columns
        count = int(columns.counts[COUNT_UNITS])
        found = np.empty(count, np.int64)
        held = (columns.units, columns.positions, columns.orders)
        found = found[: find_holders_jit(index, count, *held, found)]
        keys = columns.keys_of(columns.units.account[found])
        order = sorted(zip(keys, columns.units.book[found].tolist(), found.tolist(), strict=True))
        return [
            (unit, lots, cost)
            for _, _, unit in order
            if not columns.accounts.quarantined[columns.units.account[unit]]
            for instrument, lots, cost in columns.positions_of(unit)
            if instrument == index and (lots > 0) != (taken_lots > 0)
        ]

    def _counterparty(self, unit: int, index: int, lots: int, cost: int) -> Counterparty:
        """Return a position as the queue looks at it.

        Its own bankruptcy price takes the share of the account's equity that the position is of
        all its positions by value. Profit and cost of an inverse contract are in its coin.
        """
        columns = self._columns
        values = {
            held: self._value(held, abs(size)) for held, size, _ in columns.positions_of(unit)
        }
        instrument = self._rulebook.instruments[index]
        if instrument.face is None:
            pnl = self._value(index, lots) - cost
        else:
            exponent = self._rulebook.assets[instrument.settles_in].quantum_exponent
            mark_price = mark_price_of(self._rulebook, self._marks, instrument)
            pnl = cost - instrument.cost_of(lots, mark_price, exponent)
        raw = int(columns.figures.raw_equity_micros[unit])
        share = raw * values[index] // max(1, sum(values.values()))
        return Counterparty(
            columns.id_of(columns.units.account[unit]),
            abs(lots),
            pnl,
            abs(cost),
            values[index],
            values[index] - share,
        )

    def _value(self, index: int, lots: int) -> int:
        instrument = self._rulebook.instruments[index]
        mark_price = mark_price_of(self._rulebook, self._marks, instrument)
        return instrument.value_of(lots, mark_price, mark_price)

    def _unit(self, account_id: str, subaccount: str) -> int | None:
        book = CROSS if subaccount == CROSS_NAME else self._instrument(subaccount)
        return self._columns.unit_of(account_id, book)

    def _instrument(self, market: str) -> int:
        instrument = self._rulebook.instrument_by_name.get(market)
        if instrument is None:
            msg = f"mark frame {self._marks.seq}: losses in {market!r}, not in the rulebook"
            raise PartitionError(msg)
        return instrument.index

    def _subaccount(self, unit: int) -> str:
        return self._announcer.book_name(int(self._columns.units.book[unit]))

    def _liquidation_id(self, unit: int, episode: int) -> str:
        account_id = self._columns.id_of(self._columns.units.account[unit])
        return f"{account_id}:{self._subaccount(unit)}:{episode}"


def _at_tick(leg: CloseLeg) -> int:
    """Return a leg's bankruptcy price at a tick, so that the account ends at 0 or a hair above."""
    tick = leg.instrument.tick_price
    ticks = leg.bankruptcy_price // tick
    if leg.side == "sell":
        ticks = -(-leg.bankruptcy_price // tick)
    return max(1, ticks) * tick
