"""What time does to a liquidation: auction prices, phased release and budgets, in event time.

Times are microseconds, shares ppm, amounts micros of the settlement asset. Every function is of the
time it is given; nothing here knows a clock. Sources: MODEL.md 7.2 (Z6 Paradex, Z7 Derive), 7.5
(auction: Derive; release: Drift) and 7.6 (window: dYdX).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from solvent.units import PPM

__all__ = [
    "Auction",
    "Grant",
    "Lease",
    "Release",
    "Window",
    "auction_share",
    "bid_price",
    "grant",
    "insolvent_price",
    "released",
    "released_share",
    "step_share",
]


class Auction(NamedTuple):
    """A Dutch auction: from `start_ppm` to `cutoff_ppm` in `fast_us`, then to 0 in `slow_us`."""

    start_ppm: int
    cutoff_ppm: int
    fast_us: int
    slow_us: int

    def share_at(self, elapsed_us: int) -> int:
        """Return what of the book's value a bidder pays so long after the start, ppm, rounded up.

        Rounded up, so that no bidder pays less than the straight line says.
        """
        if elapsed_us <= 0:
            return self.start_ppm
        if elapsed_us < self.fast_us:
            fallen = (self.start_ppm - self.cutoff_ppm) * elapsed_us // self.fast_us
            return self.start_ppm - fallen
        slow = elapsed_us - self.fast_us
        if slow >= self.slow_us:
            return 0
        return self.cutoff_ppm - self.cutoff_ppm * slow // self.slow_us


class Lease(NamedTuple):
    """Claims on offers: for how long, of what share at most, how many of an executor unused."""

    duration_us: int
    max_share_ppm: int
    claims_per_executor: int


def bid_price(auction: Auction, elapsed_us: int, *, value_micros: int, cash_micros: int) -> int:
    """Return what a solvent book costs: ``(MV - K) * d``, K the cash kept out of it, rounded up."""
    return -(-(value_micros - cash_micros) * auction.share_at(elapsed_us) // PPM)


def insolvent_price(
    elapsed_us: int, *, value_micros: int, health_micros: int, length_us: int
) -> int:
    """Return what a bidder is paid for (< 0), or pays for, a book whose auction found no bid.

    From ``min(MV, 0)`` to maintenance health linearly; nothing where that is not negative.
    """
    if health_micros >= 0:
        return 0
    first = min(value_micros, 0)
    passed = min(max(elapsed_us, 0), length_us)
    return first + (health_micros - first) * passed // length_us


def auction_share(
    *,
    value_micros: int,
    health_micros: int,
    cash_micros: int,
    buffer_ppm: int,
    share_ppm: int,
) -> int:
    """Return how much of a book one bid may take, ppm, rounded up (Z7, Derive).

    ``f = B / (B - MV * d - K * (1 - d))``, ``B = min(0, MM + b * (MM - MV))``: after so much of the
    book is sold at the share d of its value, maintenance health is back above the buffer. All of it
    where no part does that.

    Parameters
    ----------
    value_micros, health_micros, cash_micros : int
        Mark value MV of the book, maintenance health MM, and the cash K that is not sold.
    buffer_ppm, share_ppm : int
        Buffer b on what is required, and the auction's share d of the value.
    """
    below = min(0, health_micros * PPM + buffer_ppm * (health_micros - value_micros))
    if below == 0:
        return 0
    paid = value_micros * share_ppm + cash_micros * (PPM - share_ppm)
    whole = below - paid
    if whole >= 0 or below < whole:
        return PPM
    return -(-below * PPM // whole)


def step_share(
    *, requirement_micros: int, equity_micros: int, fee_ppm: int, step_ppm: int, below_ppm: int
) -> int:
    """Return the smallest multiple of a step whose closing restores the account, ppm (Z6, Paradex).

    It does where ``R * (1 - k) / (E - k * fee * R)`` is below `below_ppm`; all where no step does.
    """
    for share_ppm in range(step_ppm, PPM, step_ppm):
        required = requirement_micros * (PPM - share_ppm)
        equity = equity_micros * PPM - share_ppm * fee_ppm * requirement_micros // PPM
        if equity > 0 and required * PPM < below_ppm * equity:
            return share_ppm
    return PPM


class Release(NamedTuple):
    """A shortage may be closed in phases: `initial_ppm` at once, all of it after `duration_us`.

    One below `all_below_micros` is closed at once.
    """

    duration_us: int
    initial_ppm: int
    all_below_micros: int


class Window(NamedTuple):
    """Budgets of a rolling window of `span_us`, notional in micros; None: no budget.

    Bankrupt accounts may take `bypass_micros` of a market beyond its budget, None: whatever they
    need. After `throttle_after` exhausted windows in a row only they are liquidated there, None:
    never (`solvent.engine.throttle`).
    """

    span_us: int
    market_micros: int | None
    account_micros: int | None
    bypass_micros: int | None = None
    throttle_after: int | None = None


def released_share(release: Release, elapsed_us: int, shortage_micros: int) -> int:
    """Return what of a shortage is released so long after the case began, ppm, rounded down.

    ``min(1, elapsed/duration + initial)``; all of a shortage below `all_below_micros`.
    """
    if shortage_micros < release.all_below_micros:
        return PPM
    return min(PPM, max(elapsed_us, 0) * PPM // release.duration_us + release.initial_ppm)


def released(release: Release, elapsed_us: int, *, shortage_micros: int, freed_micros: int) -> int:
    """Return how much of a shortage may be closed now, micros, rounded down (Drift).

    ``share * (s + freed) - freed``, at least 0: what was freed since the case began counts against
    what is released.
    """
    share_ppm = released_share(release, elapsed_us, shortage_micros)
    return max(0, (shortage_micros + freed_micros) * share_ppm // PPM - freed_micros)


class Grant(NamedTuple):
    """An amount granted at a time."""

    at_us: int
    micros: int


def grant(
    wanted_micros: int, *, now_us: int, span_us: int, cap_micros: int, grants: Iterable[Grant]
) -> int:
    """Return what of an amount fits into the budget of a rolling window.

    ``min(x, max(0, cap - sum of grants in (now - span, now]))``.
    """
    used = sum(each.micros for each in grants if now_us - span_us < each.at_us <= now_us)
    return min(wanted_micros, max(0, cap_micros - used))
