"""`solvent bench`: measure this machine with the benchmarks of the source checkout.

Benchmarks are no part of the installed package: each is a module of ``benchmarks/`` beside
``streams/``, run here in a process of its own with this Python. Names of figures are in its output.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from solvent.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(add_completion=False, no_args_is_help=False)

#: Names of benchmarks, in the order `solvent bench` runs them.
_ALL = ("ingest",)

_Json = Annotated[bool, typer.Option("--json", help="One JSON object, in the last line.")]
_Write = Annotated[
    bool, typer.Option("--write", help="Replace its section in benchmarks/RESULTS.md.")
]
_Smoke = Annotated[
    bool, typer.Option("--smoke", help="Smallest size: does it work; figures mean nothing.")
]


@app.callback(invoke_without_command=True)
def bench(context: typer.Context) -> None:
    """Measure this machine; without a name, every benchmark. Needs a source checkout.

    A broker is started for the run and removed afterwards; SOLVENT_BOOTSTRAP_SERVERS uses another.
    """
    if context.invoked_subcommand is None:
        for name in _ALL:
            _run(name, [])


@app.command()
def ingest(
    events: Annotated[
        int | None, typer.Option(min=1_000, max=100_000_000, help="Trades.", show_default="1000000")
    ] = None,
    accounts: Annotated[
        int | None,
        typer.Option(min=1, max=9_999_999, help="Active accounts.", show_default="100000"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the workload.", show_default="7")
    ] = None,
    slice_records: Annotated[
        int | None,
        typer.Option(min=1, help="Most records in a transaction.", show_default="20000"),
    ] = None,
    faust_events: Annotated[
        int | None,
        typer.Option(min=0, help="Trades the Faust peer reads; 0: none.", show_default="30000"),
    ] = None,
    smoke: _Smoke = False,
    as_json: _Json = False,
    write: _Write = False,
) -> None:
    """Trades per second of one worker, everything on, beside a bare fetch loop and stock Faust."""
    numbers = {
        "--events": events,
        "--accounts": accounts,
        "--seed": seed,
        "--slice-records": slice_records,
        "--faust-events": faust_events,
    }
    flags = {"--smoke": smoke, "--json": as_json, "--write": write}
    arguments = [f"{name}={value}" for name, value in numbers.items() if value is not None]
    _run("ingest", [*arguments, *(name for name, wanted in flags.items() if wanted)])


def _run(name: str, arguments: list[str]) -> None:
    """Run a benchmark of the checkout; a failure ends the command with its exit code.

    Raises
    ------
    ConfigError
        [SLV-400] This is an installed package without its checkout.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "benchmarks" / f"{name}.py").is_file():
        msg = (
            f"no benchmarks/{name}.py beside this package: `solvent bench` runs in a source "
            "checkout with an editable install (`make bench`)"
        )
        raise ConfigError(msg)
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    code = subprocess.run(command, cwd=root, check=False).returncode  # noqa: S603 - our own module
    if code:
        raise typer.Exit(code)
