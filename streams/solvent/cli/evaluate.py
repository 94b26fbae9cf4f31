"""`solvent evaluate`: judge one snapshot offline by the worker's own engine; JSON in and out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from solvent.cli.common import print_json
from solvent.cli.exits import EPILOG
from solvent.errors import ConfigError, ContractError

__all__ = ["app"]

app = typer.Typer(epilog=EPILOG, rich_markup_mode=None)


@app.command(epilog=EPILOG)
def evaluate(
    snapshot: Annotated[
        Path, typer.Option("--snapshot", "-s", help="Snapshot file (JSON); - reads standard input.")
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
) -> None:
    """Print equity, requirement, health and verdict of every account of a snapshot.

    A snapshot is `{"ts_us"?, "marks": {feed: price or value}, "accounts": [{"account_id",
    "subaccount"?, "account_class"?, "collateral": {asset: amount}, "positions": [{"market", "size",
    "cost_basis" or "entry_price"}], "orders"?, "leverage"?}]}`; all numbers are decimal strings.
    Its schema, and that of what is printed, is in schemas/evaluate.
    """
    import orjson

    from solvent.engine.snapshot import evaluate_snapshot
    from solvent.rules import find_rulebook
    from solvent.settings import load_settings

    settings = load_settings(rulebook=rulebook)
    if settings.rulebook is None:
        msg = "no rulebook: give --rulebook, or set SOLVENT_RULEBOOK"
        raise ConfigError(msg)
    try:
        text = sys.stdin.buffer.read() if str(snapshot) == "-" else snapshot.read_bytes()
    except OSError as error:
        msg = f"snapshot {snapshot}: {error.strerror}"
        raise ConfigError(msg) from None
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        msg = f"snapshot {snapshot}: not JSON: {error}"
        raise ContractError(msg) from None
    print_json(evaluate_snapshot(find_rulebook(settings.rulebook), content, has_plan=has_plan))
