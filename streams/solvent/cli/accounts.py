"""`solvent accounts`: the account table as committed; held against what a venue believes.

Exit codes: ``solvent.cli.exits``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json, print_line
from solvent.cli.exits import EPILOG, EXIT_UNRECONCILED
from solvent.errors import ConfigError

if TYPE_CHECKING:
    from solvent.engine.margin import MarginShard

__all__ = ["app"]

app = typer.Typer(epilog=EPILOG, rich_markup_mode=None, no_args_is_help=True)

#: What stands for an account that holds nothing: one of which only refused records are known.
_NO_UNIT: dict[str, Any] = {
    "subaccount": "-",
    "status": "unknown",
    "health_ratio": None,
    "equity": {"maintenance": "0"},
    "requirement": {"maintenance": "0"},
    "positions": [],
}
_LEFT_ALIGNED = 3  # names; amounts are right-aligned

RulebookOption = Annotated[
    Path | None, typer.Option(help="Rulebook the pipeline runs. [default: SOLVENT_RULEBOOK]")
]


@app.command("list")
def list_accounts(
    limit: Annotated[int, typer.Option(min=1, help="At most so many margin units.")] = 20,
    status: Annotated[str | None, typer.Option(help="Only units of this status.")] = None,
    rulebook: RulebookOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """List margin units by health ratio, the nearest to liquidation first."""
    units = [
        {"account_id": account["account_id"], "quarantined": account["quarantined"], **unit}
        for shard in _shards(rulebook, data_dir)
        for account in shard.accounts()
        for unit in account["units"] or [_NO_UNIT]
        if status is None or unit["status"] == status
    ]
    units.sort(key=_distance)
    if json:
        print_json(units[:limit])
        return
    _print_table(units[:limit])
    if len(units) > limit:
        print_line(f"{limit} of {len(units)} margin units")


@app.command("show")
def show_account(
    account_id: Annotated[str, typer.Argument(help="The account.")],
    rulebook: RulebookOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Show one account: balances, positions, figures at each level, liquidation prices."""
    for shard in _shards(rulebook, data_dir):
        try:
            account = shard.describe(account_id)
        except KeyError:
            continue
        if json:
            print_json(account)
        else:
            _print_account(account)
        return
    msg = f"account {account_id!r} is not in the table"
    raise ConfigError(msg, code="SLV-441")


@app.command("reconcile", epilog=EPILOG)
def reconcile_accounts(
    file: Annotated[
        Path, typer.Argument(help="Snapshots of margin units, JSON lines as in account-snapshots.")
    ],
    rulebook: RulebookOption = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Compare snapshots with the table and list every difference; exit with 13 if there is one.

    Only the units in the file are compared, and only what their snapshots say.
    """
    from solvent.ops.reconcile import reconcile

    shards = _shards(rulebook, data_dir)
    found = reconcile(file, shards, shards[0].rulebook)
    if json:
        print_json(found.as_json())
    else:
        for each in found.differences:
            unit = f"{each.account_id} {each.subaccount}"
            print_line(f"{unit}: {each.what} {each.snapshot}, the table has {each.table}")
        units, count = found.units, len(found.differences)
        told = f"{units} margin unit{'s' * (units != 1)}, {count} difference{'s' * (count != 1)}"
        print_line(told)
    if found.differences:
        raise typer.Exit(EXIT_UNRECONCILED)


def _shards(rulebook: Path | None, data_dir: Path | None) -> list[MarginShard]:
    from solvent.ops.accounts import read_shards
    from solvent.ops.broker import resolve_bootstrap
    from solvent.rules import find_rulebook
    from solvent.settings import load_settings
    from solvent.wire.topics import Topics

    settings = load_settings(rulebook=rulebook, data_dir=data_dir)
    if settings.rulebook is None:
        msg = "no rulebook: give --rulebook, or set SOLVENT_RULEBOOK"
        raise ConfigError(msg)
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    return read_shards(resolve_bootstrap(settings), topics, find_rulebook(settings.rulebook))


def _distance(unit: dict[str, Any]) -> tuple[float, str, str]:
    """Order by health ratio; units that need no margin come last."""
    ratio = unit["health_ratio"]
    return (math.inf if ratio is None else float(ratio), unit["account_id"], unit["subaccount"])


def _print_table(units: list[dict[str, Any]]) -> None:
    headings = ("account", "subaccount", "status", "ratio", "equity", "maintenance", "positions")
    rows = [
        (
            unit["account_id"] + (" (quarantined)" if unit["quarantined"] else ""),
            unit["subaccount"],
            unit["status"],
            unit["health_ratio"] or "-",
            unit["equity"]["maintenance"],
            unit["requirement"]["maintenance"],
            str(len(unit["positions"])),
        )
        for unit in units
    ]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = [
            cell.ljust(width) if index < _LEFT_ALIGNED else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print_line("  ".join(cells).rstrip())


def _print_account(account: dict[str, Any]) -> None:
    import yaml

    print_line(yaml.safe_dump(account, sort_keys=False, allow_unicode=True).rstrip())
