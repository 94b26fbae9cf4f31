"""`solvent explain`: why a liquidation said what it said, made again from the journal.

Exit codes: ``solvent.cli.exits``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solvent.cli.common import DataDirOption, JsonOption, note, print_json, print_line
from solvent.cli.exits import EPILOG, EXIT_DIFFERS
from solvent.errors import ConfigError

if TYPE_CHECKING:
    from solvent.ops.logs import KafkaLogs, Tape
    from solvent.settings import Settings

__all__ = ["app"]

app = typer.Typer(epilog=EPILOG, no_args_is_help=True, rich_markup_mode=None)


@app.command(epilog=EPILOG)
def explain(
    liquidation_id: Annotated[
        str, typer.Argument(help="account:subaccount:episode, as in liquidations.")
    ],
    revision: Annotated[
        int | None, typer.Option(min=1, help="Which revision of it. [default: the last]")
    ] = None,
    records: Annotated[
        int, typer.Option(min=0, help="How many of the account's last records to list.")
    ] = 20,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write it to one HTML page as well.")
    ] = None,
    tape: Annotated[Path | None, typer.Option(help="A recorded tape instead of a broker.")] = None,
    rulebook: Annotated[
        Path | None,
        typer.Option(
            "--rulebook",
            "-r",
            help="Rulebook the history began under. [default: SOLVENT_RULEBOOK]",
        ),
    ] = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Explain a liquidation: its verdict, its sizes, its records, and what would have avoided it.

    The slice of the journal that brought the event is applied again, up to the record that did, and
    the event it brings is held against the published one byte by byte: where they differ, both are
    shown and the command exits with 12. Every figure is of the state that brought it.

    The JSON's shape is in schemas/explain.
    """
    from solvent.ops.explain import ExplainOptions
    from solvent.ops.explain import explain as explain_liquidation
    from solvent.ops.explained import sections, text_of, write_page
    from solvent.rules import find_rulebook
    from solvent.settings import load_settings

    settings = load_settings(rulebook=rulebook, data_dir=data_dir)
    if settings.rulebook is None:
        msg = "no rulebook: give --rulebook, or set SOLVENT_RULEBOOK"
        raise ConfigError(msg)
    options = ExplainOptions(liquidation_id=liquidation_id, revision=revision, records=records)
    with _logs(settings, tape) as logs:
        told = explain_liquidation(logs, find_rulebook(settings.rulebook), options)
    if html is not None:
        write_page(html, told)
        note(f"wrote {html}")
    if json:
        print_json(told)
    else:
        print_line(text_of(sections(told)))
    if not told["recomputed"]["equal"]:
        raise typer.Exit(EXIT_DIFFERS)


def _logs(settings: Settings, tape: Path | None) -> KafkaLogs | Tape:
    import structlog

    from solvent.ops.broker import resolve_bootstrap
    from solvent.ops.logs import KafkaLogs, Tape
    from solvent.wire.topics import Topics

    # what the reader of batches may warn of belongs beside the result
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if tape is not None:
        return Tape(tape)
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    return KafkaLogs(resolve_bootstrap(settings), topics)
