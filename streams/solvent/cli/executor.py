"""`solvent executor`: the reference liquidation executor. Exit codes: ``solvent.cli.exits``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json
from solvent.cli.exits import EPILOG

if TYPE_CHECKING:
    from solvent.rules.compile import CompiledRulebook

__all__ = ["app"]

app = typer.Typer(epilog=EPILOG, rich_markup_mode=None)


@app.command(epilog=EPILOG)
def executor(
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Fill every offer at once against a simulated counterparty."),
    ] = False,
    slippage_ppm: Annotated[
        int, typer.Option(min=0, max=999_999, help="Distance of a fill from mark, ppm.")
    ] = 1_000,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Kafka to use, host:port[,host:port].")
    ] = None,
    rulebook: Annotated[
        Path | None, typer.Option(help="Rulebook (YAML) the pipeline runs. [default: the demo's]")
    ] = None,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:
    """Answer liquidation offers until stopped by SIGTERM or SIGINT; logs are JSON lines on stderr.

    The one strategy so far is --demo: it has no venue behind it and invents the other side.
    """
    import asyncio

    from solvent.executor.service import ExecutorConfig, run_executor
    from solvent.ops.broker import resolve_bootstrap
    from solvent.settings import load_settings
    from solvent.wire.topics import Topics

    if not demo:
        msg = "this executor only simulates fills: say so with --demo"
        raise typer.BadParameter(msg)
    settings = load_settings(
        data_dir=data_dir, bootstrap_servers=bootstrap_servers, rulebook=rulebook
    )
    config = ExecutorConfig(
        bootstrap_servers=resolve_bootstrap(settings),
        topics=Topics(prefix=settings.topic_prefix, partitions=settings.partitions),
        app_id=settings.app_id,
        slippage_ppm=slippage_ppm,
    )
    rules = _rulebook(settings.rulebook)
    counts = asyncio.run(run_executor(config, rules.instrument_by_name, _logger()))
    if json:
        print_json({"offers": counts})


def _rulebook(path: Path | None) -> CompiledRulebook:
    from solvent.rules import find_rulebook

    return find_rulebook("demo" if path is None else path)


def _logger() -> Any:  # noqa: ANN401 - structlog's wrappers have no common type
    import sys

    import structlog

    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )
