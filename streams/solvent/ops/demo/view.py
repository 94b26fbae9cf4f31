"""The demo's live table, and its plain lines where there is no terminal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from solvent.ops.demo.observe import Tally

__all__ = ["Progress", "one_line", "render"]

_STATUSES = ("margin_call", "liquidating", "bankrupt_closed", "unknown")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the demo is.

    Attributes
    ----------
    phase : str
        What it is doing, for people.
    accounts, units : int
        Population: accounts and their margin units.
    behind : int
        Mark frames made and not yet folded everywhere.
    stream_us : int
        Event time of the newest mark frame.
    rate : float
        Input records folded a second, lately.
    seconds : float
        Since the demo started.
    """

    phase: str
    accounts: int
    units: int
    behind: int
    stream_us: int
    rate: float
    seconds: float


def stream_time(ts_us: int) -> str:
    """Return an event time for people, UTC."""
    if ts_us <= 0:
        return "-"
    return datetime.fromtimestamp(ts_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M")


def render(progress: Progress, tally: Tally) -> RenderableType:
    """Return the live view."""
    pipeline = Table.grid(padding=(0, 2))
    for name, value in (
        ("phase", progress.phase),
        ("market time", stream_time(progress.stream_us)),
        ("elapsed", f"{progress.seconds:.0f} s"),
        ("records folded", f"{tally.folded:,}"),
        ("rate", f"{progress.rate:,.0f} /s"),
        ("lag", f"{max(0, progress.behind):,} frames"),
        ("transactions", f"{tally.slices:,}"),
        ("rejects", f"{tally.rejects:,}"),
    ):
        pipeline.add_row(name, value)
    statuses = Table.grid(padding=(0, 2))
    statuses.add_row("accounts", f"{progress.accounts:,}")
    statuses.add_row("margin units", f"{progress.units:,}")
    elsewhere = sum(tally.statuses[status] for status in _STATUSES)
    statuses.add_row("healthy", f"{progress.units - elsewhere:,}")
    for status in _STATUSES:
        statuses.add_row(status, f"{tally.statuses[status]:,}")
    cases = Table.grid(padding=(0, 2))
    for event in ("opened", "revised", "closed", "recovered"):
        cases.add_row(event, f"{tally.events[event]:,}")
    latest = Table(box=None, padding=(0, 2), expand=True)
    for heading in (
        "market time",
        "liquidation",
        "rev",
        "event",
        "verdict",
        "shortfall",
        "first leg",
    ):
        latest.add_column(heading, justify="right" if heading in {"rev", "shortfall"} else "left")
    for offer in reversed(list(tally.latest)):
        leg = offer.legs[0] if offer.legs else None
        latest.add_row(
            stream_time(offer.ts_us),
            offer.liquidation_id,
            str(offer.revision),
            offer.event,
            offer.verdict,
            f"{float(offer.shortfall):,.2f}",
            f"{leg.side} {leg.size} {leg.market} @ {leg.limit_price}" if leg else offer.reason,
        )
    top = Columns(
        [
            Panel(pipeline, title="pipeline"),
            Panel(statuses, title="statuses"),
            Panel(cases, title="liquidations"),
        ]
    )
    return Group(top, Panel(latest, title="latest liquidation events"))


def one_line(progress: Progress, tally: Tally) -> str:
    """Return the same in one line, for logs."""
    statuses = " ".join(f"{status}={tally.statuses[status]}" for status in _STATUSES)
    events = " ".join(f"{e}={tally.events[e]}" for e in ("opened", "closed", "recovered"))
    return (
        f"{progress.seconds:5.0f} s  {progress.phase}  {stream_time(progress.stream_us)}  "
        f"{tally.folded:,} folded  {progress.rate:,.0f}/s  lag {max(0, progress.behind)}  "
        f"{statuses}  {events}"
    )
