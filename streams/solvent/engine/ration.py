"""What an offer withholds of its plan: depth of the market, phases of the release, budgets.

A plan says what restores the unit; an offer may be for less, the rest is withheld until a later
revision and told. In this order, each of what the one before has left, all rounded down to lots:

=============  =====================================================================================
reason         an order's size is at most
=============  =====================================================================================
depth          what moves its market by the limit (`solvent.domain.impact`), a lot at least
release        the share of its plan that the release has let go by now (`schedule.released`)
throttled      nothing in a market whose windows were exhausted (`solvent.engine.throttle`)
market_window  what is left of its market's budget in this partition
account_window  what is left of its account's budget
bypass         of a bankrupt unit: what is left of its market's budget and the bypass together
=============  =====================================================================================

Budgets come last, since a grant is for what is offered. A bankrupt unit is not rationed but by the
bypass, if the rulebook has one: what it loses is no longer its own. Its offers and fills use
budgets all the same, so others wait for them, and never come to more than budget and bypass (I11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from solvent.domain.instrument import Instrument
from solvent.domain.policy import LiquidationPolicy
from solvent.domain.schedule import released, released_share
from solvent.domain.sizing import CloseLeg
from solvent.engine.budget import Budget
from solvent.engine.cases import Terms
from solvent.wire.outputs import encode

__all__ = ["Ration", "Rationed", "Withheld", "notional_micros", "ration"]


class Withheld(NamedTuple):
    """Lots (> 0) of a plan's order that are not offered yet, and why."""

    instrument: Instrument
    lots: int
    reason: str


class Ration(NamedTuple):
    """What rationing goes by besides plan and policy; amounts in micros, times in microseconds."""

    account: int
    preset: int
    now_us: int
    elapsed_us: int
    shortage_micros: int
    freed_micros: int
    is_bankrupt: bool


class Rationed(NamedTuple):
    """What is offered: lots by order of the plan, and terms of those offered.

    ``released_ppm`` is None where nothing is released by time; `exhausted` are the instruments
    whose market's budget was too small.
    """

    lots: tuple[int, ...]
    terms: tuple[Terms, ...]
    withheld: tuple[Withheld, ...]
    released_ppm: int | None
    exhausted: tuple[int, ...]

    @property
    def text(self) -> str:
        """What an offer says of it, as members of an event."""
        told: dict[str, Any] = {}
        if self.released_ppm is not None:
            told["released_ppm"] = self.released_ppm
        told["withheld"] = [
            {
                "market": each.instrument.name,
                "size": each.instrument.lot.format(each.lots),
                "reason": each.reason,
            }
            for each in self.withheld
        ]
        return f"{encode(told)[1:-1].decode()},"


def notional_micros(leg: CloseLeg, lots: int) -> int:
    """Return what lots of an order are worth at its mark, rounded down."""
    return leg.instrument.value_of(lots, leg.mark_price, leg.mark_price)


def ration(
    policy: LiquidationPolicy,
    legs: Sequence[CloseLeg],
    given: Ration,
    budget: Budget,
) -> Rationed:
    """Return what of a plan's orders is offered; nothing is taken of the budget yet.

    Parameters
    ----------
    policy, legs
        Of the unit's preset; the plan's orders.
    given : Ration
        Of the unit and its case.
    budget : Budget
        What is used; the unit's own last offer counts no more.
    """
    planned = [leg.size_lots for leg in legs]
    values = [notional_micros(leg, leg.size_lots) for leg in legs]
    whole = sum(values)
    freeing = [given.shortage_micros * value // whole if whole else 0 for value in values]
    released_ppm = None
    lots, withheld, exhausted = list(planned), list[Withheld](), list[int]()

    def limit(at: int, most: int, reason: str) -> None:
        if most < lots[at]:
            withheld.append(Withheld(legs[at].instrument, lots[at] - most, reason))
            lots[at] = most

    if not given.is_bankrupt:
        for at, leg in enumerate(legs):
            depth = policy.depth.get(leg.instrument.index)
            if depth is not None:
                most = max(1, _lots_worth(leg, planned[at], depth.most_micros))
                limit(at, most, "depth")
        if policy.release is not None and given.shortage_micros:
            released_ppm = released_share(policy.release, given.elapsed_us, given.shortage_micros)
            micros = released(
                policy.release,
                given.elapsed_us,
                shortage_micros=given.shortage_micros,
                freed_micros=given.freed_micros,
            )
            for at, count in enumerate(planned):
                most = count * micros // given.shortage_micros
                limit(at, most, "release")
    window, taken = policy.window, 0
    for at, leg in enumerate(legs):
        if window is None:
            break
        index, now_us = leg.instrument.index, given.now_us
        if not given.is_bankrupt and budget.throttle.is_throttled(
            window, index, given.preset, now_us
        ):
            limit(at, 0, "throttled")
        market = budget.free_of_market(window, index, now_us)
        if market is not None and _lots_worth(leg, lots[at], market) < lots[at]:
            exhausted.append(index)
        if given.is_bankrupt:
            limits = [(budget.free_with_bypass(window, index, now_us), "bypass")]
        else:
            account = budget.free_of_account(window, given.account, now_us)
            rest = None if account is None else account - taken
            limits = [(market, "market_window"), (rest, "account_window")]
        for most_micros, reason in limits:
            if most_micros is not None:
                limit(at, _lots_worth(leg, lots[at], most_micros), reason)
        taken += notional_micros(leg, lots[at])
    is_budgeted, is_phased = policy.window is not None, policy.release is not None
    terms = [
        (
            leg.instrument.index,
            notional_micros(leg, count) if is_budgeted else 0,
            part * count // leg.size_lots if is_phased else 0,
            *(0, 0),
        )
        for leg, count, part in zip(legs, lots, freeing, strict=True)
        if count and (is_budgeted or is_phased)
    ]
    return Rationed(tuple(lots), tuple(terms), tuple(withheld), released_ppm, tuple(exhausted))


def _lots_worth(leg: CloseLeg, lots: int, most_micros: int) -> int:
    """Return how many of an order's lots are worth no more than an amount."""
    value = notional_micros(leg, lots)
    if value <= most_micros:
        return lots
    found = lots * most_micros // value
    while notional_micros(leg, found) > most_micros:  # values are rounded down, so by a lot at most
        found -= 1
    return found
