"""`solvent evaluate`: judge one snapshot offline by the worker's own engine; JSON out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from solvent.cli.common import note, print_json
from solvent.cli.exits import EVALUATE_EPILOG
from solvent.errors import ConfigError

if TYPE_CHECKING:
    from solvent.api import Snapshot

__all__ = ["app"]

app = typer.Typer(epilog=EVALUATE_EPILOG, rich_markup_mode=None)


@app.command(epilog=EVALUATE_EPILOG)
def evaluate(
    snapshot: Annotated[
        Path,
        typer.Option(
            "--snapshot",
            "-s",
            help="A JSON file (- reads standard input), or a folder of Parquet files.",
        ),
    ],
    rulebook: Annotated[
        Path | None,
        typer.Option(
            "--rulebook", "-r", help="Rulebook: a file, or a name. [default: SOLVENT_RULEBOOK]"
        ),
    ] = None,
    has_plan: Annotated[
        bool, typer.Option("--plan", help="Say what a liquidation would close.")
    ] = False,
    ts_us: Annotated[
        int | None,
        typer.Option(
            "--ts-us", min=0, help="Time of the snapshot, epoch microseconds, instead of its own."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write the result's tables to as well, as Parquet."),
    ] = None,
) -> None:
    """Print equity, requirement, health and verdict of every account of a snapshot.

    A snapshot is `{"ts_us"?, "marks": {feed: price or value}, "accounts": [{"account_id",
    "subaccount"?, "account_class"?, "collateral": {asset: amount}, "positions": [{"market", "size",
    "cost_basis" or "entry_price"}], "orders"?, "leverage"?}]}`; all numbers are decimal strings.
    A folder holds marks.parquet and, of positions, collateral, accounts, orders and leverage, what
    there is. Schemas of snapshot and result, and all columns, are in schemas/evaluate.

    Nothing is printed or written unless the whole snapshot holds.
    """
    from solvent.api import Rulebook
    from solvent.api import evaluate as judge
    from solvent.settings import load_settings

    settings = load_settings(rulebook=rulebook)
    if settings.rulebook is None:
        msg = "no rulebook: give --rulebook, or set SOLVENT_RULEBOOK"
        raise ConfigError(msg)
    rules = Rulebook.load(settings.rulebook)
    given = _read(snapshot)
    if ts_us is not None:
        given = given.at(ts_us)
    result = judge(rules, given, plan=has_plan)
    if out is not None:
        for path in result.write_parquet(out):
            note(f"wrote {path}")
    print_json(result.to_dict())


def _read(path: Path) -> Snapshot:
    from solvent.api import Snapshot

    if str(path) == "-":
        return Snapshot.from_json(sys.stdin.buffer.read())
    return Snapshot.from_parquet(path) if path.is_dir() else Snapshot.from_json(path)
