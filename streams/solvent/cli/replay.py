"""`solvent replay`: a history run again, to verify it or to see what it would have brought.

Exit codes: ``solvent.cli.exits``.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, note, print_json, print_line
from solvent.cli.exits import EPILOG, EXIT_DIFFERS, EXIT_INTERRUPTED
from solvent.errors import ConfigError

if TYPE_CHECKING:
    from solvent.engine.verify import Difference
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
    """
    from solvent.settings import load_settings

    if verify == (record is not None):
        msg = "say one of --verify and --record"
        raise typer.BadParameter(msg)
    settings = load_settings(rulebook=rulebook, data_dir=data_dir)
    if record is not None:
        _record(settings, record, json=json)
        return
    if agent not in {"margin", "prices"}:
        msg = f"agent {agent!r}: margin or prices"
        raise typer.BadParameter(msg)
    _verify(
        settings,
        tape,
        json=json,
        agent=agent,
        partitions=partition,
        from_slice=from_slice,
        to_slice=to_slice,
    )


def _record(settings: Settings, path: Path, *, json: bool) -> None:
    from solvent.ops.broker import resolve_bootstrap
    from solvent.ops.logs import KafkaLogs, write_tape
    from solvent.wire.topics import Topics

    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    count = write_tape(path, KafkaLogs(resolve_bootstrap(settings), topics))
    told = {"tape": str(path), "records": count, "bytes": path.stat().st_size}
    if json:
        print_json(told)
    else:
        print_line(f"{count:,} records in {path}, {told['bytes']:,} bytes")


def _verify(settings: Settings, tape: Path | None, *, json: bool, **options: Any) -> None:  # noqa: ANN401
    from solvent.ops.broker import resolve_bootstrap
    from solvent.ops.logs import KafkaLogs, Tape
    from solvent.ops.verify import VerifyOptions, verify
    from solvent.wire.topics import Topics

    rulebook = _rulebook(settings)
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    logs = KafkaLogs(resolve_bootstrap(settings), topics) if tape is None else Tape(tape)
    with _stoppable() as is_stopped, _bar(is_quiet=json) as progress:
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
