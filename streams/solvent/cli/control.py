"""`solvent control`: pause liquidations, halt a market, run dry, see what is in force.

Exit codes: ``solvent.cli.exits``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json, print_line
from solvent.cli.exits import EPILOG

if TYPE_CHECKING:
    from solvent.wire.outputs import ControlRow
    from solvent.wire.topics import Topics

__all__ = ["app"]

app = typer.Typer(
    help="Pause liquidations, halt a market, run dry, see what is in force.",
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


class Switch(StrEnum):
    """What a dry run is to be."""

    ON = "on"
    OFF = "off"


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

    With a market its halt ends too, and the circuit breakers that pause it; they trip again only
    after their condition ended once. Without one the pause of all ends, and breakers that pause
    all; markets paused by name stay so.
    """
    _order("resume", market, operator, reason, wait_s, data_dir, json)


@app.command(epilog=EPILOG)
def halt(
    market: Annotated[str, typer.Option(help="Where trading has stopped.")],
    reason: ReasonOption,
    operator: OperatorOption = "cli",
    wait_s: WaitOption = 30.0,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Say that trading in a market has stopped: nothing is offered there, no fill is expected.

    Fills that come all the same are applied and counted. A resumption of the market ends it.
    """
    _order("halt", market, operator, reason, wait_s, data_dir, json)


@app.command(epilog=EPILOG)
def dry_run(
    switch: Annotated[Switch, typer.Argument(help="on or off.", show_default=False)],
    reason: ReasonOption,
    operator: OperatorOption = "cli",
    wait_s: WaitOption = 30.0,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Offer liquidations for show: executors leave them alone until it is off again."""
    _order(f"dry_run_{switch}", None, operator, reason, wait_s, data_dir, json)


@app.command(epilog=EPILOG)
def status(data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Say what is paused or halted, by whom and why, and whether offers are for show."""
    from solvent.ops.control import in_force

    _print(in_force(*_pipeline(data_dir)), json)


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

    row = order(
        *_pipeline(data_dir),
        action=action,
        market=market,
        operator=operator,
        reason=reason,
        wait_s=wait_s,
    )
    _print(row, json)


def _pipeline(data_dir: Path | None) -> tuple[str, Topics]:
    from solvent.ops.broker import resolve_bootstrap
    from solvent.settings import load_settings
    from solvent.wire.topics import Topics

    settings = load_settings(data_dir=data_dir)
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    return resolve_bootstrap(settings), topics


def _print(row: ControlRow, json: bool) -> None:
    if json:
        from msgspec import to_builtins

        told = to_builtins(row)
        nothing: dict[str, Any] = {"pauses": {}, "halts": {}, "breakers": [], "dry_run": None}
        print_json({name: told.get(name, value) for name, value in nothing.items()})
        return
    lines = list(_lines(row))
    for line in lines or ["nothing is paused"]:
        print_line(line)


def _lines(row: ControlRow) -> Iterator[str]:
    for name, each in row.pauses.items():
        yield f"{_where(name)}: paused by {each.operator}: {each.reason}"
    for name, each in row.halts.items():
        yield f"{_where(name)}: halted by {each.operator}: {each.reason}"
    for breaker in row.breakers:
        what = f"{_where(breaker.market)}: breaker {breaker.name}"
        if breaker.since_us is None:
            yield f"{what} overridden until its condition ends"
            continue
        since = datetime.fromtimestamp(breaker.since_us / 1e6, UTC)
        cause = "" if breaker.cause is None else f" by {breaker.cause.replace('_', ' ')}"
        yield f"{what} tripped{cause} at {since:%Y-%m-%d %H:%M:%S} UTC"
    if row.dry_run is not None:
        yield f"dry run by {row.dry_run.operator}: {row.dry_run.reason}"


def _where(market: str | None) -> str:
    return "all markets" if market in {None, "*"} else str(market)
