"""The `solvent` command: one module a command group, imported only when it is called.

`COMMANDS` is the whole registration: a name, a module of this package, the line `--help` shows.
The module exports ``app``, a `typer.Typer`; one with a single command becomes that command.
Exit codes: ``solvent.cli.exits``. Read next: the module of the command you look for.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from solvent.cli.exits import EPILOG, EXIT_BUG, EXIT_OK, exit_code
from solvent.errors import SolventError

__all__ = ["COMMANDS", "main", "run"]

#: Command name -> (module of solvent.cli, one line of help), in the order `--help` lists them.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "demo": ("demo", "Real crash prices, thousands of accounts, live liquidations, a report."),
    "worker": ("worker", "Run the pipeline's agents until stopped."),
    "kafka": ("kafka", "Start, stop and look at the local Kafka."),
    "doctor": ("doctor", "Check everything a worker needs; red lines say what to do."),
    "topics": ("topics", "Plan, create and list the pipeline's topics."),
    "load": ("load", "Load history from a file into the input topics."),
    "replay": ("replay", "Run a history again: verify it, or see what it brings."),
    "explain": ("explain", "Explain a liquidation, made again from the journal."),
    "evaluate": ("evaluate", "Judge one snapshot offline: JSON in, JSON out."),
    "control": ("control", "Pause liquidations, halt a market, run dry, see what is in force."),
    "fund": ("fund", "Show the insurance fund."),
    "rulebook": ("rulebook", "List, show, check and compare rulebooks."),
    "accounts": ("accounts", "Look at the account table of a running pipeline."),
    "executor": ("executor", "Run the reference liquidation executor."),
    "bench": ("bench", "Measure throughput and latency on this machine."),
    "config": ("config", "Show and check the resolved settings."),
}


#: Options typer adds to each app of its own.
_COMPLETION = ("install_completion", "show_completion")


class _LazyGroup(TyperGroup):
    """Commands by name from `COMMANDS`; listing them imports none."""

    # typer's own copy of click is private to it, hence the wide types.
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"solvent.cli.{COMMANDS[cmd_name][0]}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        command.params = [p for p in command.params if p.name not in _COMPLETION]
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    cls=_LazyGroup,
    name="solvent",
    help="Streaming collateral and margin risk on Kafka.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"solvent {version('solvent')}")
        raise typer.Exit(EXIT_OK)


@app.callback()
def _root(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Settings file (TOML), instead of SOLVENT_CONFIG."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - acted on by its callback
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    if config is not None:
        from solvent.settings import use_config_file

        use_config_file(config)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors become one line on standard error."""
    command = typer.main.get_command(app)
    try:
        command.main(args=None if arguments is None else list(arguments), prog_name="solvent")
    except SystemExit as ending:  # typer ends so: usage errors 2, interrupts 130, a closed pipe 1
        return ending.code if isinstance(ending.code, int) else EXIT_OK
    except SolventError as error:
        typer.echo(f"solvent: {error}", err=True)
        return exit_code(error)
    except Exception as error:
        traceback.print_exc()
        typer.echo(f"solvent: bug: {type(error).__name__}: {error}", err=True)
        return EXIT_BUG
    return EXIT_OK


def main() -> None:
    """Enter from the console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
