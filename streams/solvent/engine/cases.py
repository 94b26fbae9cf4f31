r"""What a shard remembers of liquidation cases while they stand, beyond their columns.

When a case began, what its last revision offers, and what fills that name it did. A fill is a
fact: the ledger takes it whatever it says. Whether it *counts* for the case it names is judged
here, first failure wins:

===============  ======================================================  ==========
failure          condition                                               reject
===============  ======================================================  ==========
``late``         the case is over, suspended, or the offer had expired   SLV-206
                 at the fill's event time
``wrong_side``   the offer has no order in that market, or one of the    SLV-207
                 other side
``over_fill``    more lots than the offer still has in that market       SLV-208
``off_price``    beyond the order's limit price                          SLV-209
===============  ======================================================  ==========

Who names a case of another account or book names none: the fill is an ordinary trade.

One row of ``accounts.v1`` a standing case, ``\0case\0account\0book``, deleted at its end. Sizes
are lots, prices in feed units, amounts micros, times microseconds of event time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from solvent.domain.sizing import CloseLeg
from solvent.engine.run import Run
from solvent.errors import ContractError, PartitionError, RejectCode
from solvent.kernel.layout import Units
from solvent.state.columns import Columns
from solvent.units import PPM
from solvent.wire.outputs import RowCase, decode_case_row, encode

__all__ = ["CASE_ROW_PREFIX", "Case", "CaseBook", "Closed", "Fill", "Order"]

#: Begins the keys of rows of cases; no identifier contains a zero byte.
CASE_ROW_PREFIX: Final = b"\0case\0"


class Order(NamedTuple):
    """What the last revision still offers in one market: signed lots (selling below 0)."""

    lots: int
    limit_price: int
    fund_fee_ppm: int


class Closed(NamedTuple):
    """What fills of the case closed in one market: lots (> 0), what they traded for, micros."""

    lots: int = 0
    value_micros: int = 0


class Fill(NamedTuple):
    """A trade that names a case of the unit it is of.

    ``lots`` signed, selling below 0; ``price`` in feed units; ``value_micros`` what it traded for
    and ``mark_micros`` what that was worth at the mark, both above 0.
    """

    episode: int
    unit: int
    instrument: int
    lots: int
    price: int
    value_micros: int
    mark_micros: int
    ts_us: int


@dataclass(slots=True)
class Case:
    """One standing case.

    Attributes
    ----------
    opened_us : int
        Stream time of its first revision.
    orders : dict of int to Order
        By instrument; empty while nothing is offered.
    closed : dict of int to Closed
        By instrument, of fills that counted.
    penalty_micros : int
        What those fills gave up against the mark of their moment, below 0 where they gained.
    fund_micros : int
        What the insurance fund took of them.
    refused : int
        Fills that named the case and did not count.
    due_us : int
        When it is taken over if it still stands, 0 for never.
    is_claimed : bool
        The fund was asked for what the account is below 0 and has not answered yet.
    given : dict of int to Closed
        By instrument, what was taken over at the bankruptcy price.
    paid_micros : int
        What the fund paid.
    """

    opened_us: int
    orders: dict[int, Order] = field(default_factory=dict)
    closed: dict[int, Closed] = field(default_factory=dict)
    penalty_micros: int = 0
    fund_micros: int = 0
    refused: int = 0
    due_us: int = 0
    is_claimed: bool = False
    given: dict[int, Closed] = field(default_factory=dict)
    paid_micros: int = 0

    def give(self, instrument: int, lots: int, value_micros: int) -> None:
        """Note what was taken over."""
        self.orders = {}
        self.given[instrument] = Closed(lots, value_micros)

    def offer(self, legs: Iterable[CloseLeg]) -> None:
        """Note what a revision offers."""
        self.orders = {
            leg.instrument.index: Order(
                leg.size_lots if leg.side == "buy" else -leg.size_lots,
                leg.limit_price,
                leg.fund_fee_ppm,
            )
            for leg in legs
            if leg.size_lots
        }

    def fault(self, fill: Fill, expires_us: int) -> tuple[RejectCode, str] | None:
        """Return why a fill does not count, and its numbers for people; None if it does."""
        order = self.orders.get(fill.instrument)
        if not self.orders:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: nothing is offered"
        if fill.ts_us > expires_us:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: the offer stood until {expires_us}"
        if order is None or (fill.lots > 0) != (order.lots > 0):
            side = "buy" if fill.lots > 0 else "sell"
            return RejectCode.WRONG_SIDE_FILL, f"to {side}: the offer has no such order"
        if abs(fill.lots) > abs(order.lots):
            return RejectCode.OVER_FILL, f"{abs(fill.lots)} lots: {abs(order.lots)} are offered"
        is_beyond = fill.price > order.limit_price
        if fill.lots < 0:
            is_beyond = fill.price < order.limit_price
        if is_beyond:
            return RejectCode.OFF_PRICE_FILL, f"price {fill.price}: limit {order.limit_price}"
        return None

    def take(self, fill: Fill) -> int:
        """Count a fill without fault; return what the insurance fund is due of it, micros."""
        order = self.orders[fill.instrument]
        self.orders[fill.instrument] = order._replace(lots=order.lots - fill.lots)
        before = self.closed.get(fill.instrument, Closed())
        self.closed[fill.instrument] = Closed(
            before.lots + abs(fill.lots), before.value_micros + fill.value_micros
        )
        given_up = fill.mark_micros - fill.value_micros
        self.penalty_micros += given_up if fill.lots < 0 else -given_up
        return fill.value_micros * order.fund_fee_ppm // PPM


class CaseBook:
    """Standing cases of one shard, by unit."""

    def __init__(self) -> None:
        self._cases: dict[int, Case] = {}
        self._changed: set[int] = set()  # units, since the last cut
        self._restored: dict[bytes, bytes | None] = {}

    def __getitem__(self, unit: int) -> Case:
        return self._cases[unit]

    def begin(self, unit: int, opened_us: int, due_us: int) -> Case:
        """Begin a unit's case."""
        case = self._cases[unit] = Case(opened_us, due_us=due_us)
        self._changed.add(unit)
        return case

    def change(self, unit: int) -> Case:
        """Return a unit's case, which is about to change."""
        self._changed.add(unit)
        return self._cases[unit]

    def hold(self, fill: Fill, units: Units) -> int | tuple[RejectCode, str]:
        """Count a fill for the case it names; return what `Case.take` or `Case.fault` returns."""
        case = self.standing(fill.unit, str(fill.episode), units)
        if case is None:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: that case does not stand"
        fault = case.fault(fill, int(units.case_expires_us[fill.unit]))
        if fault is None:
            return case.take(fill)
        case.refused += 1
        return fault

    def standing(self, unit: int, episode: str, units: Units) -> Case | None:
        """Return a unit's case, which is about to change, if it is this one and stands."""
        if not units.revision[unit] or str(units.episode[unit]) != episode:
            return None
        return self.change(unit)

    def end(self, unit: int) -> Case:
        """Forget a unit's case and return it."""
        self._changed.add(unit)
        return self._cases.pop(unit)

    def take_rows(self, columns: Columns) -> list[tuple[bytes, bytes | None]]:
        """Return the rows that changed since the last call, in the order of their keys."""
        changed, self._changed = list(self._changed), set()
        keys = columns.keys_of(columns.units.account[changed])
        books = columns.units.book[changed].tolist()
        rows = [
            (
                CASE_ROW_PREFIX + key + b"\0" + str(book).encode(),
                None if (case := self._cases.get(unit)) is None else _row(case),
            )
            for unit, key, book in zip(changed, keys, books, strict=True)
        ]
        rows.sort()
        return rows

    def load(self, rows: Run) -> None:
        """Take rows during a restore, oldest first."""
        self._restored.update(rows.with_prefix(CASE_ROW_PREFIX))

    def resume(self, columns: Columns) -> None:
        """Finish a restore: the units are in the columns now.

        Raises
        ------
        PartitionError
            A row cannot be read, or is of no unit.
        """
        restored, self._restored = self._restored, {}
        for key, value in restored.items():
            if value is None:
                continue
            account_id, _, book = key.removeprefix(CASE_ROW_PREFIX).decode().partition("\0")
            unit = columns.unit_of(account_id, int(book))
            if unit is None:
                msg = f"row of a case of {account_id} book {book}: there is no such unit"
                raise PartitionError(msg)
            try:
                self._cases[unit] = _case(decode_case_row(value))
            except ContractError as error:
                msg = f"row of a case of {account_id}: {error.message}"
                raise PartitionError(msg) from error


def _row(case: Case) -> bytes:
    content: dict[str, Any] = {"schema_version": 1, "opened_us": case.opened_us}
    if case.orders:
        content["orders"] = [[index, *order] for index, order in sorted(case.orders.items())]
    if case.closed:
        content["closed"] = [[index, *closed] for index, closed in sorted(case.closed.items())]
    if case.given:
        content["given"] = [[index, *given] for index, given in sorted(case.given.items())]
    for name in ("penalty_micros", "fund_micros", "refused", "due_us", "is_claimed", "paid_micros"):
        amount = getattr(case, name)
        if amount:
            content[name] = amount
    return encode(content)


def _case(row: RowCase) -> Case:
    return Case(
        row.opened_us,
        {index: Order(*rest) for index, *rest in row.orders},
        {index: Closed(*rest) for index, *rest in row.closed},
        row.penalty_micros,
        row.fund_micros,
        row.refused,
        row.due_us,
        row.is_claimed,
        {index: Closed(*rest) for index, *rest in row.given},
        row.paid_micros,
    )
