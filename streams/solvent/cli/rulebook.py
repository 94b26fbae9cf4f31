"""`solvent rulebook`: what ships, what a rulebook says, whether it holds, what differs.

And which one a running pipeline judges by, and how it gets another.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json, print_line, tint
from solvent.cli.exits import EPILOG, EXIT_CHECK_FAILED, EXIT_OK, RULEBOOK_EPILOG, exit_code
from solvent.errors import ConfigError

if TYPE_CHECKING:
    from solvent.rules import CompiledRulebook
    from solvent.rules.catalog import Check, Entry
    from solvent.wire.topics import Topics

__all__ = ["app"]

app = typer.Typer(
    help="List, show, check, compare and publish rulebooks.",
    epilog=RULEBOOK_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)

OwnOption = Annotated[
    Path | None,
    typer.Option(
        "--rulebook", "-r", help="Rulebook workers are started with. [default: SOLVENT_RULEBOOK]"
    ),
]

#: Columns of `list` where the output is no terminal: lines are for programs there, do not fold.
_WIDE = 1_000
_HASH_SHOWN = 12


@app.command("list", epilog=RULEBOOK_EPILOG)
def list_(json: JsonOption = False) -> None:
    """List the rulebooks and families that ship.

    A family is a preset that rulebooks extend; it has no markets of its own.
    """
    from solvent.rules.catalog import shipped

    entries = shipped()
    if json:
        print_json([_entry_json(entry) for entry in entries])
    else:
        _print_entries(entries)


@app.command(epilog=RULEBOOK_EPILOG)
def show(
    name_or_path: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="A file, a built-in rulebook or a family.")
    ],
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Only this preset of a rulebook.")
    ] = None,
    resolved: Annotated[
        bool,
        typer.Option(
            "--resolved",
            help="What it comes to: what it extends merged in and, of a rulebook, defaults filled "
            "in, always in the same order.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Print a rulebook or a family, comments and all.

    The comments say where numbers come from.
    """
    from solvent.rules import parse_rulebook
    from solvent.rules.catalog import find_source, of_preset, preset_text, resolved_source
    from solvent.rules.document import document_yaml

    source = find_source(name_or_path)
    said: dict[str, Any] = {"name": source.name, "kind": source.kind}
    if json and source.kind == "rulebook":
        said |= parse_rulebook(source.text).reference
    if preset is not None:
        said["preset"] = preset
    if resolved:
        document = resolved_source(source)
        document = document if preset is None else of_preset(document, preset)
        said["document"], text = document, document_yaml(document)
    else:
        text = source.text if preset is None else preset_text(source.text, preset)
        said["text"] = text
    if json:
        print_json(said)
    else:
        print_line(text.rstrip("\n"))


@app.command(epilog=RULEBOOK_EPILOG)
def validate(
    rulebooks: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, or built-in rulebooks by name.")
    ],
    json: JsonOption = False,
) -> None:
    """Compile each rulebook; exit 3 if one does not hold.

    The error names the place, the value and the limit.
    """
    from solvent.rules.catalog import check_rulebook

    checks = [check_rulebook(path) for path in rulebooks]
    if json:
        print_json([_check_json(check) for check in checks])
    else:
        for check in checks:
            print_line(_check_line(check))
    failed = [check.error for check in checks if check.error is not None]
    raise typer.Exit(exit_code(failed[0]) if failed else EXIT_OK)


@app.command(epilog=RULEBOOK_EPILOG)
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="A file or a built-in rulebook.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="What to compare it with.")],
    json: JsonOption = False,
) -> None:
    """Print what differs between two rulebooks; exit 1 if anything does.

    Both are resolved first: presets with what they extend, defaults filled in.
    """
    from solvent.rules import find_rulebook
    from solvent.rules.differences import differences
    from solvent.rules.document import resolved_document

    one, other = find_rulebook(before), find_rulebook(after)
    found = differences(resolved_document(one.model), resolved_document(other.model))
    if json:
        print_json(
            {
                "equal": not found,
                "before": one.reference,
                "after": other.reference,
                "differences": [
                    {
                        "path": difference.path,
                        "kind": difference.kind,
                        "before": difference.before,
                        "after": difference.after,
                    }
                    for difference in found
                ],
            }
        )
    else:
        for difference in found:
            print_line(difference.line)
        counts = Counter(difference.kind for difference in found)
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        print_line(f"{_title(one)} -> {_title(other)}: {told or 'no difference'}")
    raise typer.Exit(EXIT_CHECK_FAILED if found else EXIT_OK)


@app.command(epilog=EPILOG)
def publish(
    rulebook: Annotated[
        Path, typer.Argument(metavar="PATH", help="A later version of the rulebook in force.")
    ],
    source: Annotated[
        str, typer.Option(help="Who publishes it; told in the record and in a refusal.")
    ] = "cli",
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait until it is in force.")
    ] = 30.0,
    own: OwnOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Put a rulebook in force while workers run, and say from where on.

    It is checked against the one in force first: what accounts hold must stay. From its place in
    the stream on, prices and accounts are judged by it, also by workers that were started with
    another file.
    """
    from solvent.ops.publish import publish as publish_rulebook
    from solvent.rules import find_rulebook
    from solvent.wire.inputs import is_feed_name

    if not is_feed_name(source):
        msg = f"--source {source!r}: must match [A-Za-z0-9._/-]{{1,64}}"
        raise ConfigError(msg, code="SLV-405")
    pipeline = _pipeline(own, data_dir)
    told = publish_rulebook(
        pipeline.bootstrap,
        pipeline.topics,
        find_rulebook(rulebook),
        own=pipeline.own,
        source=source,
        wait_s=wait_s,
    )
    if json:
        print_json(
            {
                **told.rulebook.reference,
                "before": None if told.before is None else told.before.reference,
                "offset": told.offset,
                "mark_seq": told.seq,
                "ts_us": told.ts_us,
            }
        )
    elif told.offset is None:
        print_line(f"{_title(told.rulebook)} is in force already, hash {told.rulebook.hash}")
    else:
        was = "" if told.before is None else f", was version {told.before.version}"
        print_line(
            f"{_title(told.rulebook)} in force from mark frame {told.seq} on{was}, "
            f"hash {told.rulebook.hash}"
        )


@app.command("in-force", epilog=EPILOG)
def in_force(
    own: OwnOption = None, data_dir: DataDirOption = None, json: JsonOption = False
) -> None:
    """Print the rulebook that a pipeline judges by: the one it began with, or the last published.

    It is resolved: a file to change and publish, or to compare with another.
    """
    from solvent.ops.publish import rulebook_in_force
    from solvent.rules.document import document_yaml, resolved_document

    pipeline = _pipeline(own, data_dir)
    rulebook = rulebook_in_force(pipeline.bootstrap, pipeline.topics, pipeline.own)
    if rulebook is None:
        msg = "no rulebook is in force yet: no worker has priced"
        raise ConfigError(msg, code="SLV-407")
    document = resolved_document(rulebook.model)
    if json:
        print_json({**rulebook.reference, "document": document})
    else:
        print_line(document_yaml(document).rstrip("\n"))


class _Pipeline(NamedTuple):
    """Where a pipeline is, and the rulebook its workers are started with."""

    bootstrap: str
    topics: Topics
    own: CompiledRulebook | None


def _pipeline(own: Path | None, data_dir: Path | None) -> _Pipeline:
    from solvent.ops.broker import resolve_bootstrap
    from solvent.rules import find_rulebook
    from solvent.settings import load_settings
    from solvent.wire.topics import Topics

    settings = load_settings(rulebook=own, data_dir=data_dir)
    return _Pipeline(
        resolve_bootstrap(settings),
        Topics(prefix=settings.topic_prefix, partitions=settings.partitions),
        None if settings.rulebook is None else find_rulebook(settings.rulebook),
    )


def _print_entries(entries: tuple[Entry, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for heading in ("name", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("presets", "markets"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("hash", no_wrap=True)
    table.add_column("description")
    for entry in entries:
        rulebook = entry.rulebook
        counts = (
            ("-", "-", "-")
            if rulebook is None
            else (
                str(len(rulebook.policies)),
                str(len(rulebook.instruments)),
                rulebook.hash[:_HASH_SHOWN],
            )
        )
        table.add_row(entry.name, entry.kind, *counts, entry.description)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        print_line(line.rstrip())


def _entry_json(entry: Entry) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": entry.name,
        "kind": entry.kind,
        "description": entry.description,
    }
    return said if entry.rulebook is None else said | _facts(entry.rulebook)


def _check_json(check: Check) -> dict[str, Any]:
    said: dict[str, Any] = {"path": check.path, "valid": check.error is None}
    if check.rulebook is not None:
        said |= _facts(check.rulebook)
    if check.error is not None:
        said["error"] = {"code": check.error.code, "message": check.error.message}
    return said


def _check_line(check: Check) -> str:
    if check.rulebook is None:
        return f"{tint('fail', 'fail')} {check.path}: {check.error}"
    rulebook = check.rulebook
    counts = ", ".join(
        f"{count} {what if count > 1 else what.removesuffix('s')}"
        for what, count in _counts(rulebook).items()
        if count
    )
    return f"{tint('ok', 'ok')}   {check.path}: {_title(rulebook)}, {counts}, hash {rulebook.hash}"


def _facts(rulebook: CompiledRulebook) -> dict[str, Any]:
    return {**rulebook.reference, **_counts(rulebook)}


def _counts(rulebook: CompiledRulebook) -> dict[str, int]:
    return {
        "presets": len(rulebook.policies),
        "markets": len(rulebook.instruments),
        "assets": len(rulebook.assets),
        "underlyings": len(rulebook.underlyings),
        "feeds": len(rulebook.feeds),
    }


def _title(rulebook: CompiledRulebook) -> str:
    return f"{rulebook.id} version {rulebook.version}"
