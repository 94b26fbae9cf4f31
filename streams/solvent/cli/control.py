"""`solvent control`: pause liquidations, let them go on, see what is paused.

Exit codes: ``solvent.cli.exits``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json, print_line
from solvent.cli.exits import EPILOG

if TYPE_CHECKING:
    from solvent.wire.outputs import RowPause
    from solvent.wire.topics import Topics

__all__ = ["app"]

app = typer.Typer(
    help="Pause liquidations, let them go on, see what is paused.",
    epilog=EPILOG,
    rich_markup_mode=None,
    no_args_is_help=True,
)

MarketOption = Annotated[
    str | None, typer.Option(help="Only this market. [default: all of them]", show_default=False)
]
ReasonOption = Annotated[str, typer.Option(help="Why; told to whoever looks.")]
OperatorOption = Annotated[str, typer.Option(help="Who orders it.")]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait until it is obeyed.")
]


@app.command(epilog=EPILOG)
def pause(
    reason: ReasonOption,
    market: MarketOption = None,
    operator: OperatorOption = "cli",
    wait_s: WaitOption = 30.0,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Offer no liquidation any more, in one market or in all; statuses go on.

    Cases that stand are suspended, or lose what they offered in the market. Resume ends it.
    """
    _order("pause", market, operator, reason, wait_s, data_dir, json)


@app.command(epilog=EPILOG)
def resume(
    reason: ReasonOption,
    market: MarketOption = None,
    operator: OperatorOption = "cli",
    wait_s: WaitOption = 30.0,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """End a pause: what is still in liquidation is offered again.

    Without a market the pause of all ends; markets paused by name stay so.
    """
    _order("resume", market, operator, reason, wait_s, data_dir, json)


@app.command(epilog=EPILOG)
def status(data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Say what is paused, by whom and why."""
    from solvent.ops.control import pauses_in_force

    _print(pauses_in_force(*_pipeline(data_dir)), json)


def _order(
    action: str,
    market: str | None,
    operator: str,
    reason: str,
    wait_s: float,
    data_dir: Path | None,
    json: bool,
) -> None:
    from solvent.ops.control import order

    pauses = order(
        *_pipeline(data_dir),
        action=action,
        market=market,
        operator=operator,
        reason=reason,
        wait_s=wait_s,
    )
    _print(pauses, json)


def _pipeline(data_dir: Path | None) -> tuple[str, Topics]:
    from solvent.ops.broker import resolve_bootstrap
    from solvent.settings import load_settings
    from solvent.wire.topics import Topics

    settings = load_settings(data_dir=data_dir)
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    return resolve_bootstrap(settings), topics


def _print(pauses: Mapping[str, RowPause], json: bool) -> None:
    if json:
        told = {
            name: {"operator": each.operator, "reason": each.reason, "ts_us": each.ts_us}
            for name, each in pauses.items()
        }
        print_json({"pauses": told})
        return
    for name, each in pauses.items():
        what = "all markets" if name == "*" else name
        print_line(f"{what}: paused by {each.operator}: {each.reason}")
    if not pauses:
        print_line("nothing is paused")
