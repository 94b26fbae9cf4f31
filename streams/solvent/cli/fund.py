"""`solvent fund`: what the insurance fund has, and what it has taken over.

Exit codes: ``solvent.cli.exits``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json, print_line
from solvent.cli.exits import EPILOG
from solvent.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(epilog=EPILOG, rich_markup_mode=None)


@app.command(epilog=EPILOG)
def fund(
    rulebook: Annotated[
        Path | None, typer.Option(help="Rulebook the pipeline runs. [default: SOLVENT_RULEBOOK]")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="Show what this account bore of losses of others instead.")
    ] = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Show the insurance fund: its balance, and positions taken over that nobody has yet."""
    from solvent.ops.broker import resolve_bootstrap
    from solvent.ops.fund import borne_by, fund_told
    from solvent.rules import find_rulebook
    from solvent.settings import load_settings
    from solvent.wire.topics import Topics

    settings = load_settings(rulebook=rulebook, data_dir=data_dir)
    if settings.rulebook is None:
        msg = "no rulebook: give --rulebook, or set SOLVENT_RULEBOOK"
        raise ConfigError(msg)
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    if account is not None:
        borne = borne_by(resolve_bootstrap(settings), topics, account)
        if json:
            print_json(borne)
            return
        for one in borne:
            print_line(
                f"{one['ts_us']}  {one['subaccount']}  {one['amount']}: its part of "
                f"{one['loss']} over {one['base']} of equity, for {one['liquidation_id']}"
            )
        return
    told = fund_told(resolve_bootstrap(settings), topics, find_rulebook(settings.rulebook))
    if json:
        print_json(told)
        return
    print_line(f"balance    {told['balance']}")
    print_line(f"received   {told['received']}  (its part of fills, and payments not needed)")
    print_line(f"paid       {told['paid']}")
    print_line(f"takeovers  {told['takeovers']}")
    if "socialised" in told:
        spread = told["socialised"]
        assert isinstance(spread, dict)
        print_line(
            f"spread     {spread['loss']} over all who had equity, in {spread['rounds']} rounds; "
            f"index {spread['index']} a unit"
        )
    holds = told["holds"]
    assert isinstance(holds, list)
    for one in holds:
        print_line(f"holds      {one['size']} {one['market']}, taken over for {one['cost']}")
