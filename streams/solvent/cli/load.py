"""`solvent load`: history from a file into an input topic. Exit codes: ``solvent.cli.exits``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, note, print_json, print_line
from solvent.cli.exits import EPILOG
from solvent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from solvent.ops.load import LoadSummary

__all__ = ["DEFAULT_FEEDS", "app", "symbol_feeds"]

app = typer.Typer(epilog=EPILOG, no_args_is_help=True, rich_markup_mode=None)

DEFAULT_FEEDS = ("BTCUSDT=BTC-PERP",)


@app.command(epilog=EPILOG)
def load(
    file: Annotated[Path, typer.Argument(help="JSON lines, or Parquet by its name's end.")],
    topic: Annotated[
        str | None,
        typer.Option(help="Input topic the records are for: trades.v1, collateral.v1, ..."),
    ] = None,
    bars: Annotated[
        bool, typer.Option("--bars", help="The file holds price bars: make ticks and clocks.")
    ] = False,
    feed: Annotated[
        list[str] | None,
        typer.Option(help="With --bars: SYMBOL=FEED, may repeat. [default: BTCUSDT=BTC-PERP]"),
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option(help="With --bars: SYMBOL=FEED, one more feed from the same bars."),
    ] = None,
    source: Annotated[str, typer.Option(help="With --bars: source named in the ticks.")] = "bars",
    bar_seconds: Annotated[
        float | None, typer.Option(min=0.001, help="With --bars: length of a bar, if not found.")
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="First event time, ISO 8601 (UTC) or us.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="First event time left out.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Most records a second.")] = None,
    speed: Annotated[
        float | None, typer.Option(min=0.001, help="Event seconds a second; 1: as it was.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count rows that break the contract and go on.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on after rows loaded before.")
    ] = True,
    resume_window: Annotated[
        int, typer.Option(min=0, help="Records at each partition's end looked at for that.")
    ] = 100_000,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Load a file's records into an input topic; run again to go on where a load stopped."""
    from solvent.ops import load as ops
    from solvent.ops.broker import resolve_bootstrap
    from solvent.settings import load_settings
    from solvent.wire.topics import ORACLE_TICKS, Topics

    if bars:
        if topic not in (None, ORACLE_TICKS):
            msg = f"--bars makes records of {ORACLE_TICKS}, --topic says {topic}"
            raise typer.BadParameter(msg)
        feeds = symbol_feeds([*(feed or DEFAULT_FEEDS), *(index or ())])
        bar_us = None if bar_seconds is None else round(bar_seconds * 1_000_000)
        options = ops.BarOptions(feeds=feeds, source=source, bar_us=bar_us)
        sequence = ops.bars_sequence(file, options)
    elif topic is None:
        msg = "say which records these are: --topic TOPIC or --bars"
        raise typer.BadParameter(msg)
    else:
        sequence = ops.file_sequence(file, topic)
    settings = load_settings(data_dir=data_dir)
    with _progress(file.name, sequence.size) as progress:
        summary = ops.load(
            sequence,
            file=str(file),
            bootstrap_servers=resolve_bootstrap(settings),
            topics=Topics(prefix=settings.topic_prefix, partitions=settings.partitions),
            options=ops.LoadOptions(
                skip_bad=skip_bad,
                from_us=None if from_ is None else ops.parse_time(from_),
                to_us=None if to is None else ops.parse_time(to),
                rate=rate,
                speed=speed,
                resume=resume,
                resume_window=resume_window,
            ),
            progress=progress,
        )
    if json:
        print_json(summary.as_json())
    else:
        _print(summary)


def symbol_feeds(pairs: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the feeds of each symbol from SYMBOL=FEED pairs.

    Raises
    ------
    ConfigError
        [SLV-432] One is no such pair.
    """
    feeds: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        symbol, equals, name = pair.partition("=")
        if not (symbol and equals and name):
            msg = f"{pair!r} is not SYMBOL=FEED"
            raise ConfigError(msg, code="SLV-432")
        if name not in feeds.get(symbol, ()):
            feeds[symbol] = (*feeds.get(symbol, ()), name)
    return feeds


@contextmanager
def _progress(name: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error if that is a terminal, else nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _rows: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns: list[Any] = [TextColumn(name), BarColumn(), MofNCompleteColumn(), Remaining()]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=size)
        yield lambda rows: bar.update(task, completed=rows)


def _print(summary: LoadSummary) -> None:
    print_line(
        f"{summary.topic}: {summary.sent} of {summary.rows} rows sent in {summary.seconds:.1f} s"
    )
    told = {
        "loaded before": summary.already_loaded,
        "outside --from/--to": summary.outside_range,
        "refused": summary.bad,
    }
    for what, count in told.items():
        if count:
            print_line(f"  {count} {what}")
    if summary.first_bad is not None:
        note(f"first refused: {summary.first_bad}")
