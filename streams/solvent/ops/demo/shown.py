"""What the report shows of a run's tally: one case in phases, one auction, trips, fund, executors.

Amounts are floats of the settlement currency, for people; times event time in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from solvent.domain.schedule import Auction
from solvent.ops.demo.observe import CaseHistory, Tally
from solvent.units import MICROS, PPM

__all__ = [
    "AuctionPath",
    "Phase",
    "auction_shown",
    "executors_table",
    "fund_levels",
    "phased_shown",
    "phases_of",
    "trips_table",
]

_POINTS = 60
#: Revisions that a table shows at a glance.
_FEW = 12


@dataclass(frozen=True, slots=True)
class Phase:
    """A revision of a case that is closed in phases, and what fills had closed by then.

    `closed` counts all fills told of at its time or before, at their prices.
    """

    ts_us: int
    revision: int
    event: str
    released_ppm: int | None
    offered: float
    withheld: dict[str, float]
    closed: float


@dataclass(frozen=True, slots=True)
class AuctionPath:
    """How the price of an auctioned case's first order fell, and what was bid.

    Attributes
    ----------
    market, side : str
        The order.
    asked : tuple of (int, float)
        The worst price the account may get, by time, from the case's first revision on; between
        mark and bankruptcy price as of the revision in force.
    marks, fills : tuple of (int, float)
        The mark at each revision, and prices of fills in the market.
    """

    liquidation_id: str
    market: str
    side: str
    asked: tuple[tuple[int, float], ...]
    marks: tuple[tuple[int, float], ...]
    fills: tuple[tuple[int, float], ...]


def phases_of(history: CaseHistory) -> list[Phase]:
    """Return a case's revisions, each with what was closed before it.

    A fill has the time of its offer, so it counts from the first progress of that time on.
    """
    fills = sorted((fill.ts_us, fill.notional) for fill in history.fills)
    phases: list[Phase] = []
    progress_us = -1
    for word in history.words:
        if word.reason == "progress":
            progress_us = word.ts_us
        closed = sum(
            notional for ts_us, notional in fills if ts_us < word.ts_us or ts_us == progress_us
        )
        phases.append(
            Phase(
                word.ts_us,
                word.revision,
                f"{word.event}: {word.reason}",
                word.released_ppm,
                word.offered,
                word.withheld,
                closed,
            )
        )
    return phases


def phased_shown(tally: Tally) -> tuple[str, list[Phase]] | None:
    """Return the case that was closed in most steps, of ended ones released in phases.

    One of few revisions if there is one, for the sake of readers; then the most behind which more
    was closed, then the largest. None where there is none at all.
    """

    def rank(case: tuple[str, list[Phase]]) -> tuple[bool, int, float, str]:
        name, phases = case
        steps = len({phase.closed for phase in phases})
        return len(phases) <= _FEW, steps, phases[-1].closed, name

    cases = [
        (name, phases_of(history))
        for name, history in tally.histories.items()
        if history.end
        and history.fills
        and len({word.released_ppm for word in history.words} - {None}) > 1
    ]
    return max(cases, key=rank, default=None)


def auction_shown(tally: Tally) -> AuctionPath | None:
    """Return the auctioned case with the most fills in its first market, then the longest."""
    best: tuple[tuple[int, int, str], AuctionPath] | None = None
    for name, history in tally.histories.items():
        words = [word for word in history.words if word.leg is not None]
        if history.auction is None or not words or not history.fills:
            continue
        path = _path(name, history)
        rank = (len(path.fills), path.asked[-1][0] - path.asked[0][0], name)
        if path.fills and (best is None or rank > best[0]):
            best = rank, path
    return None if best is None else best[1]


def _path(name: str, history: CaseHistory) -> AuctionPath:
    told = history.auction
    assert told is not None
    legs = [(word.ts_us, word.leg) for word in history.words if word.leg is not None]
    market, side = legs[0][1].market, legs[0][1].side
    legs = [(ts_us, leg) for ts_us, leg in legs if leg.market == market]
    fills = sorted((fill.ts_us, fill.price) for fill in history.fills if fill.market == market)
    auction = Auction(told.start_ppm, told.cutoff_ppm, told.fast_us, told.slow_us)
    end_us = max([history.words[-1].ts_us, *(ts_us for ts_us, _ in fills)])
    asked = []
    for place, (begin_us, leg) in enumerate(legs):
        until_us = legs[place + 1][0] if place + 1 < len(legs) else end_us
        mark, bankruptcy = float(leg.mark_price), float(leg.bankruptcy_price)
        for at_us in _times(begin_us, until_us):
            share = auction.share_at(at_us - told.started_us) / PPM
            asked.append((at_us, bankruptcy + (mark - bankruptcy) * share))
    marks = tuple((ts_us, float(leg.mark_price)) for ts_us, leg in legs)
    return AuctionPath(name, market, side, tuple(asked), marks, tuple(fills))


def _times(begin_us: int, until_us: int) -> Iterator[int]:
    for step in range(_POINTS + 1):
        yield begin_us + (until_us - begin_us) * step // _POINTS


def fund_levels(tally: Tally, opening_micros: int, from_us: int) -> list[tuple[int, float]]:
    """Return the fund's level after everything it got or paid, in the order of time."""
    changes = sorted(tally.fund, key=lambda change: change[0])
    levels = accumulate((micros for _, micros in changes), initial=opening_micros)
    times = [from_us, *(ts_us for ts_us, _ in changes)]
    return [(ts_us, micros / MICROS) for ts_us, micros in zip(times, levels, strict=True)]


def trips_table(tally: Tally) -> list[tuple[str, ...]]:
    """Return a heading and a row a trip, for people."""
    return [
        ("breaker", "market", "tripped, UTC", "resumed, UTC"),
        *(
            (trip.name, trip.market or "all", _moment(trip.since_us), _moment(trip.until_us))
            for trip in tally.trips
        ),
    ]


def executors_table(tally: Tally) -> list[tuple[str, ...]]:
    """Return a heading and a row an executor, for people."""
    total = sum(executor.fills for executor in tally.executors.values()) or 1
    return [
        ("executor", "first to fill", "share", "notional", "too late", "did not count"),
        *(
            (
                name,
                f"{executor.fills:,}",
                f"{executor.fills / total:.1%}",
                f"{executor.notional:,.0f}",
                f"{executor.late:,}",
                ", ".join(f"{n:,} {code}" for code, n in sorted(executor.refused.items())) or "0",
            )
            for name, executor in sorted(tally.executors.items())
        ),
    ]


def as_json(tally: Tally) -> dict[str, Any]:
    """Return executors, trips and the case shown as JSON data, amounts as decimal texts."""
    shown = phased_shown(tally)
    path = auction_shown(tally)
    return {
        "executors": {
            name: {
                "fills": executor.fills,
                "notional": f"{executor.notional:.2f}",
                "late": executor.late,
                "refused": dict(sorted(executor.refused.items())),
            }
            for name, executor in sorted(tally.executors.items())
        },
        "breakers": [
            {
                "name": trip.name,
                "market": trip.market,
                "since_us": trip.since_us,
                "until_us": trip.until_us,
            }
            for trip in tally.trips
        ],
        "phased": None
        if shown is None
        else {
            "liquidation_id": shown[0],
            "revisions": [
                {
                    "revision": phase.revision,
                    "ts_us": phase.ts_us,
                    "released_ppm": phase.released_ppm,
                    "offered": f"{phase.offered:.2f}",
                    "closed": f"{phase.closed:.2f}",
                }
                for phase in shown[1]
            ],
        },
        "auction": None
        if path is None
        else {
            "liquidation_id": path.liquidation_id,
            "market": path.market,
            "fills": [{"ts_us": ts_us, "price": f"{price:g}"} for ts_us, price in path.fills],
        },
    }


def _moment(ts_us: int | None) -> str:
    if ts_us is None:
        return "-"
    return datetime.fromtimestamp(ts_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
