"""`solvent replay`: a history run again, to verify it or to see what it would have brought.

Exit codes: ``solvent.cli.exits``.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, note, print_json, print_line
from solvent.cli.exits import EPILOG, EXIT_DIFFERS, EXIT_INTERRUPTED
from solvent.cli.load import DEFAULT_FEEDS, symbol_feeds
from solvent.errors import ConfigError

if TYPE_CHECKING:
    from solvent.engine.verify import Difference
    from solvent.ops.logs import KafkaLogs
    from solvent.ops.replay import ReplayReport
    from solvent.ops.verify import Progress, VerifyReport
    from solvent.rules import CompiledRulebook
    from solvent.settings import Settings

__all__ = ["app"]

app = typer.Typer(epilog=EPILOG, no_args_is_help=True, rich_markup_mode=None)


@app.command(epilog=EPILOG)
def replay(
    verify: Annotated[
        bool, typer.Option("--verify", help="Replay the journal; compare every byte it brought.")
    ] = False,
    agent: Annotated[
        str, typer.Option(help="With --verify: margin or prices.", metavar="AGENT")
    ] = "margin",
    partition: Annotated[
        list[int] | None,
        typer.Option(min=0, help="With --verify: only this one, may repeat. [default: all]"),
    ] = None,
    from_slice: Annotated[
        int,
        typer.Option(min=1, help="With --verify: first slice; the state before it is restored."),
    ] = 1,
    to_slice: Annotated[
        int | None, typer.Option(min=1, help="With --verify: last slice. [default: the last]")
    ] = None,
    tape: Annotated[
        Path | None, typer.Option(help="With --verify: a recorded tape instead of a broker.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write all that is on the pipeline's topics to a tape.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--inputs",
            help="Replay files: FILE, TOPIC=FILE or a folder, may repeat.",
            metavar="PATH",
        ),
    ] = None,
    bars: Annotated[
        Path | None, typer.Option(help="With --inputs: prices from the bars of a Parquet file.")
    ] = None,
    feed: Annotated[
        list[str] | None,
        typer.Option(help="With --bars: SYMBOL=FEED, may repeat. [default: BTCUSDT=BTC-PERP]"),
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option(help="With --bars: SYMBOL=FEED, one more feed from the same bars."),
    ] = None,
    by_event_time: Annotated[
        bool,
        typer.Option("--by-event-time", help="Replay the input topics merged by event time."),
    ] = False,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="With --inputs. [default: SOLVENT_PARTITIONS]")
    ] = None,
    slice_records: Annotated[
        int, typer.Option(min=1, help="Without a journal: records in a slice.")
    ] = 1_000_000,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="With --inputs: pass over rows that are no records.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Without a journal: new folder for what it brings.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="With --out: jsonl or parquet.", metavar="FORMAT")
    ] = "jsonl",
    rulebook: Annotated[
        Path | None,
        typer.Option("--rulebook", "-r", help="Rulebook. [default: SOLVENT_RULEBOOK]"),
    ] = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Run a history again.

    --verify follows the journal: every slice must bring the hash it had and every byte that lies on
    the topics, else the first difference is named and the command exits with 12. --record keeps a
    pipeline's history in one file, for --verify --tape.

    --inputs and --by-event-time need no journal: the inputs are merged by event time and go through
    the price side and the margin side in one process; a hash in the end tells whether two replays
    brought the same. Files need no broker.
    """
    from solvent.settings import load_settings

    modes = (verify, record is not None, bool(inputs or bars), by_event_time)
    if sum(modes) != 1:
        msg = "say one of --verify, --record, --inputs and --by-event-time"
        raise typer.BadParameter(msg)
    if agent not in {"margin", "prices"}:
        msg = f"agent {agent!r}: margin or prices"
        raise typer.BadParameter(msg)
    if form not in {"jsonl", "parquet"}:
        msg = f"format {form!r}: jsonl or parquet"
        raise typer.BadParameter(msg)
    settings = load_settings(rulebook=rulebook, data_dir=data_dir, partitions=partitions)
    if record is not None:
        _record(settings, record, json=json)
    elif verify:
        _verify(
            settings,
            tape,
            json=json,
            agent=agent,
            partitions=partition,
            from_slice=from_slice,
            to_slice=to_slice,
        )
    else:
        _merge(
            settings,
            inputs or [],
            None if bars is None else (bars, [*(feed or DEFAULT_FEEDS), *(index or ())]),
            json=json,
            slice_records=slice_records,
            skip_bad=skip_bad,
            out=out,
            form=form,
        )


def _logs(settings: Settings) -> KafkaLogs:
    import structlog

    from solvent.ops.broker import resolve_bootstrap
    from solvent.ops.logs import KafkaLogs
    from solvent.wire.topics import Topics

    # what the reader of batches may warn of belongs beside the result
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    return KafkaLogs(resolve_bootstrap(settings), topics)


def _record(settings: Settings, path: Path, *, json: bool) -> None:
    from solvent.ops.logs import write_tape

    with _logs(settings) as logs:
        count = write_tape(path, logs)
    told = {"tape": str(path), "records": count, "bytes": path.stat().st_size}
    if json:
        print_json(told)
    else:
        print_line(f"{count:,} records in {path}, {told['bytes']:,} bytes")


def _verify(settings: Settings, tape: Path | None, *, json: bool, **options: Any) -> None:  # noqa: ANN401
    from solvent.ops.logs import Tape
    from solvent.ops.verify import VerifyOptions, verify

    rulebook = _rulebook(settings)
    with (
        _logs(settings) if tape is None else Tape(tape) as logs,
        _stoppable() as is_stopped,
        _bar(is_quiet=json) as progress,
    ):
        report = verify(
            logs,
            rulebook,
            VerifyOptions(**options),
            progress=progress,
            is_stopped=is_stopped,
        )
    if json:
        print_json(report.as_json())
    else:
        _print_verified(report)
    if report.differences:
        raise typer.Exit(EXIT_DIFFERS)
    if report.is_interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def _merge(
    settings: Settings,
    inputs: list[str],
    bars: tuple[Path, list[str]] | None,
    *,
    json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    from solvent.ops import replay as ops
    from solvent.ops.load import BarOptions

    rulebook = _rulebook(settings)
    sources = [ops.file_source(path, topic) for topic, path in ops.input_files(inputs)]
    if bars is not None:
        sources.append(ops.bars_source(bars[0], BarOptions(feeds=symbol_feeds(bars[1]))))
    is_numbered = not sources
    with ExitStack() as stack:
        if is_numbered:
            sources = ops.topic_sources(stack.enter_context(_logs(settings)), rulebook)
        is_stopped = stack.enter_context(_stoppable())
        progress = stack.enter_context(_bar(is_quiet=json))
        report = ops.replay(
            sources,
            rulebook,
            ops.ReplayOptions(partitions=settings.partitions, **options),
            is_numbered=is_numbered,
            progress=progress,
            is_stopped=is_stopped,
        )
    if json:
        print_json(report.as_json())
    else:
        _print_merged(report)
    if report.is_interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def _print_merged(report: ReplayReport) -> None:
    for told in report.inputs:
        bad = f", {told['bad']:,} bad" if told["bad"] else ""
        print_line(f"{told['topic']:<16} {told['records']:>12,} records{bad}  {told['name']}")
    for topic, count in sorted(report.events.items()):
        print_line(f"  brought {topic:<16} {count:>12,}")
    if report.late:
        print_line(f"  {report.late:,} records were behind their sequence's time")
    if report.is_interrupted:
        print_line(f"stopped at event time {report.reached_us}, slices closed")
    told = report.as_json()
    print_line(
        f"hash {report.hash}: {report.slices:,} slices, {report.records:,} records in "
        f"{report.seconds:.1f} s ({told['records_per_s']:,}/s)"
    )
    if report.first_bad is not None:
        note(f"first bad: {report.first_bad}")


def _rulebook(settings: Settings) -> CompiledRulebook:
    from solvent.rules import find_rulebook

    if settings.rulebook is None:
        msg = "no rulebook: give --rulebook, or set SOLVENT_RULEBOOK"
        raise ConfigError(msg)
    return find_rulebook(settings.rulebook)


def _print_verified(report: VerifyReport) -> None:
    for part in report.partitions:
        print_line(
            f"{report.agent} partition {part.partition}: slices {part.from_slice} to "
            f"{part.last_slice}, {part.records:,} records, {part.events:,} events, "
            f"{part.rows:,} rows, hash {part.hash}"
        )
        if part.difference is not None:
            _print_difference(part.difference)
        elif part.rows_compared_from > part.from_slice:
            below = part.rows_compared_from
            print_line(f"  compacted: rows below slice {below} were compared as one table")
    told = report.as_json()
    if report.is_interrupted:
        last = report.partitions[-1] if report.partitions else None
        place = "before the first slice"
        if last is not None:
            place = (
                f"after slice {last.last_slice} of partition {last.partition}; go on with "
                f"--partition {last.partition} --from-slice {last.last_slice + 1}"
            )
        print_line(f"stopped {place}")
    outcome = "differs" if report.differences else "as it was"
    print_line(
        f"{outcome}: {told['slices']:,} slices, {told['records']:,} records in "
        f"{report.seconds:.1f} s ({told['records_per_s']:,}/s)"
    )


def _print_difference(found: Difference) -> None:
    offset = "at its end" if found.offset is None else f"offset {found.offset}"
    print_line(
        f"  DIFFERENCE in slice {found.slice}: {found.topic} partition {found.topic_partition} "
        f"{offset}: {found.what}"
    )
    for name, text in (("expected", found.expected), ("got", found.got), ("note", found.note)):
        if text:
            print_line(f"    {name:<9}{text}")
    if found.suspects:
        places = ", ".join(f"{topic} offset {offset}" for topic, offset in found.suspects)
        print_line(f"    inputs   of that key in the slice: {places}")


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C end the replay after the slice at hand, and the second at once."""
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        if stopped:
            signal.default_int_handler(number, frame)  # type: ignore[arg-type]
        stopped = True
        note("stopping after this slice; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(*, is_quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show progress, rate and remaining time on standard error if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if is_quiet or not console.is_terminal:
        yield lambda _: None
        return
    import time

    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[told]}"),
        Remaining(),
    )
    began = time.monotonic()
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=1.0, told="")

        def show(progress: Progress) -> None:
            rate = progress.records / max(time.monotonic() - began, 1e-9)
            told = f"{progress.records:,} records, {rate:,.0f}/s"
            bars.update(task, completed=progress.share, description=progress.place, told=told)

        yield show
