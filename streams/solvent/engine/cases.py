r"""What a shard remembers of liquidation cases while they stand, beyond their columns.

When a case began, what its last revision offers, and what fills that name it did. A fill is a
fact: the ledger takes it whatever it says. Whether it *counts* for the case it names is judged
here, first failure wins:

===============  ======================================================  ==========
failure          condition                                               reject
===============  ======================================================  ==========
``late``         the case is over, suspended, or the offer had expired   SLV-206
                 at the fill's event time; where a window budgets
                 offers, also by the stream's time: its budget is free
``wrong_side``   the offer has no order in that market, or one of the    SLV-207
                 other side
``over_fill``    more lots than the offer still has in that market       SLV-208
``off_price``    beyond the order's limit price; in an auction, beyond   SLV-209
                 the price of the fill's event time
===============  ======================================================  ==========

Who names a case of another account or book names none: the fill is an ordinary trade.

One row of ``accounts.v1`` a standing case, ``\0case\0account\0book``, deleted at its end. Sizes
are lots, prices in feed units, amounts micros, times microseconds of event time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from solvent.domain.policy import LiquidationPolicy
from solvent.domain.schedule import Auction
from solvent.domain.sizing import CloseLeg, auction_limit
from solvent.engine.budget import Budget
from solvent.engine.run import Run
from solvent.errors import ContractError, PartitionError, RejectCode
from solvent.kernel.layout import Units
from solvent.state.columns import Columns
from solvent.wire.outputs import RowCase, decode_case_row, encode

__all__ = ["CASE_ROW_PREFIX", "Case", "CaseBook", "Closed", "Fill", "Order"]

#: Begins the keys of rows of cases; no identifier contains a zero byte.
CASE_ROW_PREFIX: Final = b"\0case\0"


class Order(NamedTuple):
    """What the last revision still offers in one market: signed lots (selling below 0).

    ``held_micros`` is what these lots take of budgets, ``freed_micros`` what closing them frees of
    the shortage, where a release asks; prices other than the limit are those of an auctioned order.
    """

    lots: int
    limit_price: int
    fund_fee_ppm: int
    held_micros: int = 0
    freed_micros: int = 0
    mark_price: int = 0
    bankruptcy_price: int = 0

    @property
    def is_auctioned(self) -> bool:
        """Whether its limit falls with time."""
        return self.mark_price > 0

    def limit_at(self, elapsed_us: int, auction: Auction | None, tick_price: int) -> int:
        """Return the limit price so long after the case began."""
        if auction is None or not self.is_auctioned:
            return self.limit_price
        return auction_limit(
            mark_price=self.mark_price,
            bankruptcy_price=self.bankruptcy_price,
            share_ppm=auction.share_at(elapsed_us),
            is_sell=self.lots < 0,
            tick_price=tick_price,
        )


class Closed(NamedTuple):
    """What fills of the case closed in one market: lots (> 0), what they traded for, micros."""

    lots: int = 0
    value_micros: int = 0


class Fill(NamedTuple):
    """A trade that names a case of the unit it is of.

    ``lots`` signed, selling below 0; ``price`` and a tick in feed units; ``value_micros`` what it
    traded for and ``mark_micros`` what that was worth at the mark, both above 0.
    """

    episode: int
    unit: int
    instrument: int
    lots: int
    price: int
    tick_price: int
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
    freed_micros : int
        What fills that counted freed of the shortage, where a release asks.
    """

    opened_us: int
    orders: dict[int, Order] = field(default_factory=dict)
    closed: dict[int, Closed] = field(default_factory=dict)
    penalty_micros: int = 0
    fund_micros: int = 0
    refused: int = 0
    freed_micros: int = 0

    def offer(
        self,
        legs: Iterable[CloseLeg],
        *,
        held: Mapping[int, int] | None = None,
        freed: Mapping[int, int] | None = None,
        is_auctioned: bool = False,
    ) -> None:
        """Note what a revision offers, and by instrument what it holds and frees, micros."""
        held, freed = held or {}, freed or {}
        self.orders = {
            leg.instrument.index: Order(
                leg.size_lots if leg.side == "buy" else -leg.size_lots,
                leg.limit_price,
                leg.fund_fee_ppm,
                held.get(leg.instrument.index, 0),
                freed.get(leg.instrument.index, 0),
                mark_price=leg.mark_price if is_auctioned else 0,
                bankruptcy_price=leg.bankruptcy_price if is_auctioned else 0,
            )
            for leg in legs
            if leg.size_lots
        }

    def fault(
        self, fill: Fill, expires_us: int, now_us: int, policy: LiquidationPolicy
    ) -> tuple[RejectCode, str] | None:
        """Return why a fill does not count, and its numbers for people; None if it does.

        ``now_us`` is stream time; `policy` what the offer was made under.
        """
        order = self.orders.get(fill.instrument)
        if not self.orders:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: nothing is offered"
        if fill.ts_us > expires_us:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: the offer stood until {expires_us}"
        if policy.window is not None and now_us >= expires_us:
            what = f"read at {now_us}: the offer held its budget until {expires_us}"
            return RejectCode.LATE_FILL, what
        if order is None or (fill.lots > 0) != (order.lots > 0):
            side = "buy" if fill.lots > 0 else "sell"
            return RejectCode.WRONG_SIDE_FILL, f"to {side}: the offer has no such order"
        if abs(fill.lots) > abs(order.lots):
            return RejectCode.OVER_FILL, f"{abs(fill.lots)} lots: {abs(order.lots)} are offered"
        limit = order.limit_at(fill.ts_us - self.opened_us, policy.auction, fill.tick_price)
        is_beyond = fill.price > limit
        if fill.lots < 0:
            is_beyond = fill.price < limit
        if is_beyond:
            return RejectCode.OFF_PRICE_FILL, f"price {fill.price}: limit {limit}"
        return None

    def take(self, fill: Fill) -> int:
        """Count a fill without fault; return what it takes of what its order held, micros."""
        order = self.orders[fill.instrument]
        held, freed = (  # its part, rounded up
            -(-part * fill.lots // order.lots) for part in (order.held_micros, order.freed_micros)
        )
        self.freed_micros += freed
        self.orders[fill.instrument] = order._replace(
            lots=order.lots - fill.lots,
            held_micros=order.held_micros - held,
            freed_micros=order.freed_micros - freed,
        )
        before = self.closed.get(fill.instrument, Closed())
        self.closed[fill.instrument] = Closed(
            before.lots + abs(fill.lots), before.value_micros + fill.value_micros
        )
        given_up = fill.mark_micros - fill.value_micros
        self.penalty_micros += given_up if fill.lots < 0 else -given_up
        return held


class CaseBook:
    """Standing cases of one shard, by unit, and what they use of budgets."""

    def __init__(self) -> None:
        self.budget = Budget()
        self._cases: dict[int, Case] = {}
        self._changed: set[int] = set()  # units, since the last cut
        self._restored: dict[bytes, bytes | None] = {}

    def __getitem__(self, unit: int) -> Case:
        return self._cases[unit]

    def begin(self, unit: int, opened_us: int) -> Case:
        """Begin a unit's case."""
        case = self._cases[unit] = Case(opened_us)
        self._changed.add(unit)
        return case

    def change(self, unit: int) -> Case:
        """Return a unit's case, which is about to change."""
        self._changed.add(unit)
        return self._cases[unit]

    def hold(
        self, fill: Fill, units: Units, now_us: int, policy: LiquidationPolicy
    ) -> tuple[RejectCode, str] | None:
        """Count a fill for the case it names; return why not, as `Case.fault`."""
        unit = fill.unit
        if not units.revision[unit] or units.episode[unit] != fill.episode:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: that case does not stand"
        case = self.change(unit)
        fault = case.fault(fill, int(units.case_expires_us[unit]), now_us, policy)
        if fault is None:
            held_micros = case.take(fill)
            if held_micros:
                self.budget.spend(unit, fill.instrument, held_micros, now_us)
        else:
            case.refused += 1
        return fault

    def end(self, unit: int) -> Case:
        """Forget a unit's case and return it."""
        self._changed.add(unit)
        self.budget.free(unit)
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
        rows += self.budget.take_rows(columns.key_of)
        rows.sort()
        return rows

    def load(self, rows: Run) -> None:
        """Take rows during a restore, oldest first."""
        self.budget.load(rows)
        self._restored.update(rows.with_prefix(CASE_ROW_PREFIX))

    def resume(self, columns: Columns, now_us: int) -> None:
        """Finish a restore: the units are in the columns now, `now_us` is the stream's time.

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
            expires_us = int(columns.units.case_expires_us[unit])
            if expires_us > now_us:
                self.hold_budget(unit, int(columns.units.account[unit]), expires_us)
        self.budget.resume(columns.index_of)

    def hold_budget(self, unit: int, account: int, expires_us: int) -> None:
        """Let what a unit's case offers hold its budget; nothing of the unit does."""
        orders = self._cases[unit].orders
        held = {index: order.held_micros for index, order in orders.items() if order.held_micros}
        if held:
            self.budget.hold(unit, account, expires_us, held)


def _row(case: Case) -> bytes:
    content: dict[str, Any] = {"schema_version": 1, "opened_us": case.opened_us}
    if case.orders:
        content["orders"] = [
            [index, *(order if any(order[3:]) else order[:3])]
            for index, order in sorted(case.orders.items())
        ]
    if case.closed:
        content["closed"] = [[index, *closed] for index, closed in sorted(case.closed.items())]
    for name in ("penalty_micros", "fund_micros", "refused", "freed_micros"):
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
        row.freed_micros,
    )
