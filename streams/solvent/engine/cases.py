r"""What a shard remembers of liquidation cases while they stand, beyond their columns.

When a case began, what its last revision offers, and what fills that name it did. A fill is a
fact: the ledger takes it whatever it says. Whether it *counts* for the case it names is judged
here, first failure wins:

===============  ======================================================  ==========
failure          condition                                               reject
===============  ======================================================  ==========
``late``         the case is over, suspended, or the offer had expired   SLV-206
                 at the fill's event time; where a window budgets
                 offers, also by the stream's time: its budget is free;
                 or it is void: its ledger, or pauses, changed while the
                 unit is unknown
``unclaimed``    the offer is leased and the fill has no claim token     SLV-210
``fenced``       its token is that of no claim that stands at its time   SLV-211
``wrong_side``   the offer has no order in that market, or one of the    SLV-207
                 other side
``over_fill``    more lots than the offer still has in that market       SLV-208
``over_claim``   more lots than its claim has left in that market        SLV-212
``off_price``    beyond the order's limit price; in an auction, beyond   SLV-209
                 the price of the fill's event time
===============  ======================================================  ==========

Who names a case of another account or book names none: the fill is an ordinary trade.

One row of ``accounts.v1`` a standing case, ``\0case\0account\0book``, deleted at its end. Sizes
are lots, prices in feed units, amounts micros, times microseconds of event time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, NamedTuple

from solvent.domain.policy import LiquidationPolicy
from solvent.domain.sizing import CloseLeg, auction_limit
from solvent.engine.budget import Budget
from solvent.engine.claims import Claims
from solvent.engine.run import Run
from solvent.errors import ContractError, PartitionError, RejectCode
from solvent.kernel.layout import Units
from solvent.state.columns import Columns
from solvent.units import PPM
from solvent.wire.outputs import RowCase, decode_case_row, encode

__all__ = ["CASE_ROW_PREFIX", "Case", "CaseBook", "Closed", "Fill", "Order", "Terms"]

#: Begins the keys of rows of cases; no identifier contains a zero byte.
CASE_ROW_PREFIX: Final = b"\0case\0"
#: What a row has of a case where it says something.
_MEMBERS: Final = (
    "orders",
    "closed",
    "penalty_micros",
    "fund_micros",
    "refused",
    "due_us",
    "is_claimed",
    "is_spent",
    "given",
    "paid_micros",
    "terms",
    "freed_micros",
    "socialised_micros",
)


#: What the last revision still offers in one market: instrument, signed lots (selling below 0),
#: limit price, the fund's fee in ppm. A plain tuple, as is `Closed`: a crash makes twenty thousand
#: of them in one frame, and the garbage collector passes over plain tuples of integers.
Order = tuple[int, int, int, int]
#: What more is known of an order where it is rationed or auctioned: instrument, what its lots hold
#: of budgets and free of the shortage (micros), mark and bankruptcy price of an auction, else 0.
Terms = tuple[int, int, int, int, int]
#: What was closed in one market: instrument, lots (> 0), what they traded for in micros.
Closed = tuple[int, int, int]


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
    claim_token: int | None = None


@dataclass(slots=True)
class Case:
    """One standing case.

    Attributes
    ----------
    opened_us : int
        Stream time of its first revision.
    orders : tuple of Order
        Empty while nothing is offered.
    closed : tuple of Closed
        Of fills that counted, ascending by instrument.
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
    is_spent : bool
        The fund paid less than it was asked for: it is not asked again.
    given : tuple of Closed
        What was taken over at the bankruptcy price.
    paid_micros : int
        What the fund paid.
    terms : tuple of Terms
        Of the orders that have some.
    freed_micros : int
        What fills that counted freed of the shortage, where a release asks.
    socialised_micros : int
        What all others bore of it.
    claims : Claims or None
        What executors claimed and reported; None as long as nobody did.
    """

    opened_us: int
    orders: tuple[Order, ...] = ()
    closed: tuple[Closed, ...] = ()
    penalty_micros: int = 0
    fund_micros: int = 0
    refused: int = 0
    due_us: int = 0
    is_claimed: bool = False
    is_spent: bool = False
    given: tuple[Closed, ...] = ()
    paid_micros: int = 0
    terms: tuple[Terms, ...] = ()
    freed_micros: int = 0
    socialised_micros: int = 0
    claims: Claims | None = None

    def give(self, instrument: int, lots: int, value_micros: int) -> None:
        """Note what was taken over."""
        self.orders = self.terms = ()
        self.given = _added(self.given, (instrument, lots, value_micros))

    def offer(self, legs: Iterable[CloseLeg], terms: tuple[Terms, ...] = ()) -> None:
        """Note what a revision offers."""
        self.terms = terms
        self.orders = tuple(
            [
                (instrument.index, lots if side == "buy" else -lots, limit, fee_ppm)
                for instrument, side, lots, _, limit, _, fee_ppm in legs
                if lots
            ]
        )

    def fault(
        self, fill: Fill, expires_us: int, now_us: int, policy: LiquidationPolicy
    ) -> tuple[RejectCode, str] | None:
        """Return why a fill does not count, and its numbers for people; None if it does.

        ``now_us`` is stream time; `policy` what the offer was made under.
        """
        _, offered, limit_price, _ = self._order(fill.instrument)
        if not self.orders:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: nothing is offered"
        if not expires_us:
            what = "the offer is void: its ledger, or pauses, changed while it could not be judged"
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: {what}"
        if fill.ts_us > expires_us:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: the offer stood until {expires_us}"
        if policy.window is not None and now_us >= expires_us:
            what = f"read at {now_us}: the offer held its budget until {expires_us}"
            return RejectCode.LATE_FILL, what
        if policy.lease is not None:
            unclaimed = (self.claims or Claims()).fault(fill.claim_token, fill.ts_us)
            if unclaimed is not None:
                return unclaimed
        if offered == 0 or (fill.lots > 0) != (offered > 0):
            side = "buy" if fill.lots > 0 else "sell"
            return RejectCode.WRONG_SIDE_FILL, f"to {side}: the offer has no such order"
        if abs(fill.lots) > abs(offered):
            return RejectCode.OVER_FILL, f"{abs(fill.lots)} lots: {abs(offered)} are offered"
        if policy.lease is not None and self.claims is not None:
            excess = self.claims.excess(fill.claim_token, fill.instrument, abs(fill.lots))
            if excess is not None:
                return excess
        _, _, _, mark_price, bankruptcy_price = self._terms(fill.instrument)
        if policy.auction is not None and mark_price:
            limit_price = auction_limit(
                mark_price=mark_price,
                bankruptcy_price=bankruptcy_price,
                share_ppm=policy.auction.share_at(fill.ts_us - self.opened_us),
                is_sell=offered < 0,
                tick_price=fill.tick_price,
            )
        is_beyond = fill.price > limit_price
        if fill.lots < 0:
            is_beyond = fill.price < limit_price
        if is_beyond:
            return RejectCode.OFF_PRICE_FILL, f"price {fill.price}: limit {limit_price}"
        return None

    def take(self, fill: Fill) -> int:
        """Count a fill without fault; return what the insurance fund is due of it, micros."""
        index, offered, limit_price, fee_ppm = self._order(fill.instrument)
        rest = (index, offered - fill.lots, limit_price, fee_ppm)
        if self.claims is not None:
            self.claims.take(fill.claim_token, index, abs(fill.lots))
        if self.terms:
            _, held, freed, mark_price, bankruptcy_price = self._terms(index)
            left = offered - fill.lots  # of both, what the fill takes is rounded up
            freed_left = freed * left // offered
            self.freed_micros += freed - freed_left
            kept = (index, held * left // offered, freed_left, mark_price, bankruptcy_price)
            self.terms = tuple([kept if term[0] == index else term for term in self.terms])
        self.orders = tuple([rest if order[0] == index else order for order in self.orders])
        self.closed = _added(self.closed, (index, abs(fill.lots), fill.value_micros))
        given_up = fill.mark_micros - fill.value_micros
        self.penalty_micros += given_up if fill.lots < 0 else -given_up
        return fill.value_micros * fee_ppm // PPM

    def held_micros(self, instrument: int) -> int:
        """Return what the order in a market holds of budgets."""
        return self._terms(instrument)[1]

    def _terms(self, instrument: int) -> Terms:
        return next((t for t in self.terms if t[0] == instrument), (instrument, 0, 0, 0, 0))

    def _order(self, instrument: int) -> Order:
        """Return what is offered in a market; no lots where nothing is."""
        return next((o for o in self.orders if o[0] == instrument), (instrument, 0, 0, 0))


def _added(closed: tuple[Closed, ...], more: Closed) -> tuple[Closed, ...]:
    """Return what was closed, with some more of one market."""
    by_market = {index: (lots, micros) for index, lots, micros in closed}
    index, lots, micros = more
    before_lots, before_micros = by_market.get(index, (0, 0))
    by_market[index] = before_lots + lots, before_micros + micros
    return tuple([(index, *rest) for index, rest in sorted(by_market.items())])


class CaseBook:
    """Standing cases of one shard, by unit, and what they use of budgets."""

    def __init__(self) -> None:
        self.budget = Budget()
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

    def hold(
        self, fill: Fill, units: Units, now_us: int, policy: LiquidationPolicy
    ) -> int | tuple[RejectCode, str]:
        """Count a fill for the case it names; return what `Case.take` or `Case.fault` returns."""
        case = self.standing(fill.unit, str(fill.episode), units)
        if case is None:
            return RejectCode.LATE_FILL, f"at {fill.ts_us}: that case does not stand"
        fault = case.fault(fill, int(units.case_expires_us[fill.unit]), now_us, policy)
        if fault is None:
            held_micros = case.held_micros(fill.instrument)
            due_micros = case.take(fill)
            held_micros -= case.held_micros(fill.instrument)
            if held_micros:
                self.budget.spend(fill.unit, fill.instrument, held_micros, now_us)
            return due_micros
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
        self.budget.free(unit)
        return self._cases.pop(unit)

    def take_rows(self, columns: Columns) -> list[tuple[bytes, bytes | None]]:
        """Return the rows that changed since the last call, in the order of their keys."""
        changed, self._changed = list(self._changed), set()
        keys = columns.keys_of(columns.units.account[changed])
        books = columns.units.book[changed].tolist()
        cases = self._cases
        rows = [
            (
                b"%b%b\0%d" % (CASE_ROW_PREFIX, key, book),
                None if (case := cases.get(unit)) is None else _row(case),
            )
            for unit, key, book in zip(changed, keys, books, strict=True)
        ]
        rows += self.budget.take_rows(columns.key_of)
        rows.sort(key=itemgetter(0))
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
        held = {instrument: micros for instrument, micros, *_ in self._cases[unit].terms if micros}
        if held:
            self.budget.hold(unit, account, expires_us, held)


def _row(case: Case) -> bytes:
    orders = case.orders
    has_past = case.closed or case.refused or case.given or case.paid_micros or case.is_spent
    has_more = has_past or case.socialised_micros or case.due_us or case.terms
    if len(orders) == 1 and not has_more and case.claims is None:
        # As most rows are in a crash: the bytes that the encoder would give, much sooner.
        return b'{"schema_version":1,"opened_us":%d,"orders":[[%d,%d,%d,%d]]}' % (
            case.opened_us,
            *orders[0],
        )
    content: dict[str, Any] = {"schema_version": 1, "opened_us": case.opened_us}
    for name in _MEMBERS:
        value = getattr(case, name)
        if value:
            content[name] = value
    if case.claims is not None:
        content["claims"] = case.claims.row()
    return encode(content)


def _case(row: RowCase) -> Case:
    return Case(
        row.opened_us,
        row.orders,
        row.closed,
        row.penalty_micros,
        row.fund_micros,
        row.refused,
        row.due_us,
        row.is_claimed,
        row.is_spent,
        row.given,
        row.paid_micros,
        row.terms,
        row.freed_micros,
        row.socialised_micros,
        None if row.claims is None else Claims.of(row.claims),
    )
