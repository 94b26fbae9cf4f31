"""What commands share: options, printing, the settings of this call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "DataDirOption",
    "JsonOption",
    "note",
    "print_json",
    "print_json_line",
    "print_line",
    "tint",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Where the local Kafka and worker locks live.", show_default=False
    ),
]

_TINTS = {
    "ok": typer.colors.GREEN,
    "warn": typer.colors.YELLOW,
    "fail": typer.colors.RED,
}


def print_line(text: str) -> None:
    """Print one line to standard output."""
    typer.echo(text)


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON data
    """Print a value as indented JSON to standard output."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_json_line(value: Any) -> None:  # noqa: ANN401 - any JSON data
    """Print a value as JSON in one line to standard output, for programs that read lines."""
    import orjson

    typer.echo(orjson.dumps(value).decode())


def note(text: str) -> None:
    """Tell the user something beside the result: one line to standard error."""
    typer.echo(text, err=True)


def tint(level: str, text: str) -> str:
    """Colour a text green, yellow or red; colours are dropped when the output is no terminal."""
    return typer.style(text, fg=_TINTS[level])
