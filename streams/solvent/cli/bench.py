"""`solvent bench`: measure this machine with the benchmarks of the source checkout.

Benchmarks are no part of the installed package: each is a module of ``benchmarks/`` beside
``streams/``, run here in a process of its own with this Python. A line in `BENCHMARKS` makes one a
command; its options, their limits and ``--help`` are the module's own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

from solvent.errors import ConfigError

__all__ = ["BENCHMARKS", "app"]

#: Name -> what it measures, in the order `solvent bench` runs them; ``a-b`` is module ``a_b``.
BENCHMARKS: Final[Mapping[str, str]] = {
    "ingest": "Trades per second, everything on, beside what others do with the same records.",
    "latency": "From a frame of marks to the liquidation event a read_committed reader sees.",
    "failover": "How long marks and events pause when a worker is killed or restarted.",
    "kernel": "Accounts per second of the evaluation kernels, no broker.",
    "frame-scaling": "What a frame of marks costs at ten thousand and at a million accounts.",
    "restore": "Rows per second of a take-over, beside a bare read of the same changelog.",
    "replay": "Events per second of an offline replay, no broker.",
}

app = typer.Typer(add_completion=False, no_args_is_help=False)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Smallest sizes: does it work; figures mean nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Of each one JSON object, in its last line.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Replace the sections in benchmarks/RESULTS.md.")
    ] = False,
) -> None:
    """Measure this machine; without a name, every benchmark. Needs a source checkout.

    Brokers are started for the run and removed afterwards; SOLVENT_BOOTSTRAP_SERVERS uses another.
    `solvent bench NAME --help` says what is measured, how, and the options.
    """
    given = {"--smoke": smoke, "--json": as_json, "--write": write}
    flags = [name for name, wanted in given.items() if wanted]
    if context.invoked_subcommand is not None:
        context.obj = flags
        return
    for name in BENCHMARKS:
        _run(name, flags)


def _register(name: str, line: str) -> None:
    """Make a benchmark a command that hands all its options, ``--help`` too, to the module."""

    @app.command(
        name,
        help=line,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def command(context: typer.Context) -> None:
        _run(name, [*context.obj, *context.args])


for _name, _line in BENCHMARKS.items():
    _register(_name, _line)


def _run(name: str, arguments: list[str]) -> None:
    """Run a benchmark of the checkout; a failure ends the command with its exit code.

    Raises
    ------
    ConfigError
        [SLV-400] This is an installed package without its checkout.
    """
    root = Path(__file__).resolve().parents[3]
    module = name.replace("-", "_")
    if not (root / "benchmarks" / f"{module}.py").is_file():
        msg = (
            f"no benchmarks/{module}.py beside this package: `solvent bench` runs in a source "
            "checkout with an editable install (`make bench`)"
        )
        raise ConfigError(msg)
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    code = subprocess.run(command, cwd=root, check=False).returncode  # noqa: S603 - our own module
    if code:
        raise typer.Exit(code)
