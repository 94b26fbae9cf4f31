"""`solvent demo`: real crash prices, thousands of accounts, live liquidations, an HTML report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solvent.cli.common import note, print_json_line, print_line
from solvent.settings import load_settings

if TYPE_CHECKING:
    from solvent.ops.demo.closeouts import CloseOut
    from solvent.ops.demo.observe import Observer
    from solvent.ops.demo.run import Show
    from solvent.ops.demo.view import Progress

__all__ = ["app"]

app = typer.Typer(add_completion=False)

_LINE_EVERY_S = 5.0
_WHAT_IS_WHAT = (
    "Real: three-minute bars of twelve perpetuals, 6 and 7 April 2025; Kafka, worker, two "
    "competing executors.\n"
    "Synthetic: {accounts} accounts (seed {seed}), USDC at 1, BTC and ETH index from the "
    "perpetuals' bars, one price source, time some 2,900 times faster."
)
_JUDGED = "The same day under two rulebooks: judged offline, no executor acts."
_CLOSED = "Three ways to close: {accounts} accounts (seed {seed}), offline; closing moves prices."


@app.command()
def demo(
    accounts: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Synthetic accounts.")
    ] = 20_000,
    seconds: Annotated[
        float, typer.Option(min=10, max=3600, help="How long the two days shall take.")
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of the population.")] = 2025,
    partitions: Annotated[int, typer.Option(min=1, max=64, help="Partitions to use.")] = 2,
    report: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path(
        "solvent-demo.html"
    ),
    rulebook: Annotated[
        str, typer.Option(help="Judges the accounts: a file, or a name.", metavar="NAME_OR_PATH")
    ] = "demo-guarded",
    against: Annotated[
        str | None,
        typer.Option(
            help="Judges the same day beside it, offline; none: no comparison. [default: "
            "demo, or demo-brackets if that is live]",
            metavar="NAME_OR_PATH",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            help="No live run and no page: only close the crash in three ways, as the page tells."
        ),
    ] = False,
    live: Annotated[
        bool | None, typer.Option("--live/--no-live", help="Live table; default: on a terminal.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, in the last line.")
    ] = False,
) -> None:
    """Play 6 and 7 April 2025 through the pipeline: Kafka, a worker and two executors.

    Real: the prices of twelve perpetuals. Synthetic: the accounts (seeded), USDC at 1, BTC and ETH
    index from the perpetuals' bars, one source, and the speed of time. SOLVENT_BOOTSTRAP_SERVERS
    uses another broker instead of starting one. Everything started is stopped, on Ctrl-C too.
    """
    from solvent.ops.demo.compare import table_of
    from solvent.ops.demo.run import (
        CLOSED_ACCOUNTS,
        DemoOptions,
        close_offline,
        run_demo,
        sigterm_as_interrupt,
    )

    if offline:
        closed = min(accounts, CLOSED_ACCOUNTS)
        rows = close_offline(closed, seed)
        if as_json:
            told = [row.as_json() for row in rows]
            print_json_line({"accounts": closed, "seed": seed, "closeouts": told})
        else:
            _print_closeouts(rows, closed, seed)
        return
    settings = load_settings()
    options = DemoOptions(
        accounts=accounts,
        seconds=seconds,
        seed=seed,
        partitions=partitions,
        report=report,
        bootstrap_servers=settings.bootstrap_servers,
        cache_dir=settings.cache_dir,
        rulebook=rulebook,
        against=against,
    )
    note(_WHAT_IS_WHAT.format(accounts=f"{accounts:,}", seed=seed))
    if live is None:
        live = sys.stdout.isatty() and not as_json
    with sigterm_as_interrupt(), _live_view() if live else _plain_view() as show:
        summary = run_demo(options, show)
    if as_json:
        print_json_line(summary.as_json())
    else:
        for name, value in summary.figures().items():
            print_line(f"{name.replace('_', ' '):>24}  {value}")
        if summary.judged:
            print_line(_JUDGED)
            for what, *cells in table_of(summary.judged):
                print_line(f"{what:>30}" + "".join(f"  {cell:>24}" for cell in cells))
        if summary.closeouts:
            _print_closeouts(summary.closeouts, min(accounts, CLOSED_ACCOUNTS), seed)


def _print_closeouts(rows: Sequence[CloseOut], accounts: int, seed: int) -> None:
    from solvent.ops.demo.closeouts import ASSUMED, closeouts_table

    print_line(_CLOSED.format(accounts=f"{accounts:,}", seed=seed))
    for what, *cells in closeouts_table(rows):
        print_line(f"{what:>26}" + "".join(f"  {cell:>28}" for cell in cells))
    print_line(ASSUMED)


@contextmanager
def _live_view() -> Iterator[Show]:
    from rich.live import Live

    from solvent.ops.demo.view import render

    with Live(refresh_per_second=4, transient=False) as live:
        yield lambda progress, observer: live.update(render(progress, observer.tally))


@contextmanager
def _plain_view() -> Iterator[Show]:
    from solvent.ops.demo.view import one_line

    shown_phase, shown_at = "", 0.0

    def show(progress: Progress, observer: Observer) -> None:
        nonlocal shown_phase, shown_at
        if progress.phase != shown_phase or progress.seconds - shown_at >= _LINE_EVERY_S:
            shown_phase, shown_at = progress.phase, progress.seconds
            note(one_line(progress, observer.tally))

    yield show
