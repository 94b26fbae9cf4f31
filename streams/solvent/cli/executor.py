"""`solvent executor`: liquidation offers answered. Exit codes: ``solvent.cli.exits``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json
from solvent.cli.exits import EPILOG

if TYPE_CHECKING:
    from solvent.executor.book import RulebookPin
    from solvent.executor.strategy import Strategy
    from solvent.rules.compile import CompiledRulebook

__all__ = ["app"]

#: Age of the last watermark from which nothing is taken, by what tells the engine the time.
_HEARTBEAT_S = {"wall": 5.0, "stream": 0.0}

app = typer.Typer(epilog=EPILOG, rich_markup_mode=None)


@app.command(epilog=EPILOG)
def executor(
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Fill every offer at once against a simulated counterparty."),
    ] = False,
    strategy: Annotated[
        str | None, typer.Option(help="Ask a strategy of yours, module:function.")
    ] = None,
    bridge: Annotated[
        bool,
        typer.Option("--bridge", help="Offers as JSON lines on stdout, answers on stdin."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide and log, send nothing, commit nothing.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(help="Act under this rulebook alone, id[:version[:hash]]; may be repeated."),
    ] = None,
    cooldown_s: Annotated[
        float, typer.Option(min=0, help="Leave an account alone for so long after a fill of ours.")
    ] = 0.0,
    heartbeat_s: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Take nothing in a partition without a watermark for so long; 0: never mind. "
            "[default: 5 if SOLVENT_CLOCK is wall, else 0: a history's clock ends with it]",
        ),
    ] = None,
    window: Annotated[
        int, typer.Option(min=1, help="Shuffle offers of a batch within so many; 1 keeps order.")
    ] = 8,
    seed: Annotated[
        str | None, typer.Option(help="Of that shuffle. [default: another one each start]")
    ] = None,
    executor_id: Annotated[
        str | None,
        typer.Option(
            help="Name under which leased offers are claimed; executors of several names work "
            "beside each other. [default: executor]"
        ),
    ] = None,
    claim_share_ppm: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="What to claim of a leased offer, ppm.")
    ] = 1_000_000,
    slippage_ppm: Annotated[
        int, typer.Option(min=0, max=999_999, help="--demo: distance of a fill from mark, ppm.")
    ] = 1_000,
    auction_wait_s: Annotated[
        float,
        typer.Option(
            min=0, help="--demo: bid for auctioned offers so long after they are made, event time."
        ),
    ] = 0.0,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, help="Serve /metrics there, on SOLVENT_HEALTH_HOST; 0: any free one."),
    ] = None,
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

    By --demo, which has no venue behind it and invents the other side, by a --strategy, or by a
    program in any language beyond --bridge.
    """
    import asyncio
    import secrets
    import sys
    import time

    from solvent.executor.book import Book
    from solvent.executor.claims import Claimant
    from solvent.executor.desk import Desk
    from solvent.executor.fills import Steps
    from solvent.executor.service import ExecutorConfig, run_bridge, run_executor
    from solvent.executor.simulated import simulated_counterparty
    from solvent.executor.tally import Tally, served
    from solvent.ops.broker import resolve_bootstrap
    from solvent.settings import load_settings
    from solvent.wire.inputs import is_identifier
    from solvent.wire.topics import Topics

    if demo + bridge + (strategy is not None) != 1:
        msg = "who answers? one of --demo, --strategy and --bridge"
        raise typer.BadParameter(msg)
    if bridge and json:
        msg = "--bridge writes offers to standard output: no --json beside it"
        raise typer.BadParameter(msg)
    settings = load_settings(
        data_dir=data_dir, bootstrap_servers=bootstrap_servers, rulebook=rulebook
    )
    name = "executor" if executor_id is None else executor_id
    if not is_identifier(name):
        msg = f"--executor-id {name!a}: must match [A-Za-z0-9._-]{{1,64}}"
        raise typer.BadParameter(msg)
    claimant = Claimant(name, secrets.token_hex(8), claim_share_ppm)
    book = Book(
        accepts=[_pin(text) for text in accept or ()],
        cooldown_us=round(cooldown_s * 1e6),
        executor_id=name,
    )
    answer = _strategy(strategy) if strategy is not None else None
    config = ExecutorConfig(
        bootstrap_servers=resolve_bootstrap(settings),
        topics=Topics(prefix=settings.topic_prefix, partitions=settings.partitions),
        app_id=settings.app_id,
        executor_id=executor_id,
        heartbeat_s=_HEARTBEAT_S[settings.clock] if heartbeat_s is None else heartbeat_s,
        is_dry_run=dry_run,
    )
    rules = _rulebook(settings.rulebook)
    steps = Steps.of(rules)
    tally = Tally(_logger(), time.time)
    if bridge:
        lines_in, lines_out = sys.stdin.fileno(), sys.stdout.fileno()
        with served(tally, settings.health_host, metrics_port):
            work = run_bridge(
                config,
                book,
                steps,
                tally,
                lines_in=lines_in,
                lines_out=lines_out,
                claimant=claimant,
            )
            asyncio.run(work)
        return
    desk = Desk(
        book=book,
        strategy=answer
        or simulated_counterparty(
            steps.instruments,
            slippage_ppm,
            auction_wait_us=round(auction_wait_s * 1e6),
            is_insured=rules.insurance is not None,
        ),
        steps=steps,
        tally=tally,
        seed=secrets.token_hex(8) if seed is None else seed,
        window=window,
        claimant=claimant,
    )
    with served(tally, settings.health_host, metrics_port):
        counts = asyncio.run(run_executor(config, desk))
    if json:
        print_json({"offers": counts})


def _pin(text: str) -> RulebookPin:
    from solvent.executor.book import RulebookPin

    name, *rest = text.split(":")
    version, digest = [*rest, None, None][:2]
    if not name or len(rest) > 2 or (version is not None and not version.isdecimal()):
        msg = f"--accept {text}: not id, id:version or id:version:hash"
        raise typer.BadParameter(msg)
    return RulebookPin(name, None if version is None else int(version), digest)


def _strategy(name: str) -> Strategy:
    """Return the function a name ``module:function`` stands for; the working folder counts."""
    import sys
    from importlib import import_module

    module, _, function = name.partition(":")
    sys.path.insert(0, "")
    try:
        found: Strategy = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"--strategy {name}: {error}"
        raise typer.BadParameter(msg) from None
    return found


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
