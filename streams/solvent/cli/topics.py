"""`solvent topics`: the topic table against the broker. Exit codes: ``solvent.cli.exits``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json, print_line
from solvent.cli.exits import (
    EXIT_OK,
    EXIT_PARTITION_DRIFT,
    EXIT_TOPICS_PENDING,
    TOPICS_EPILOG,
)

if TYPE_CHECKING:
    from pathlib import Path

    from solvent.ops.topics import Plan, TopicState
    from solvent.wire.topics import Topics

__all__ = ["app"]

app = typer.Typer(
    help="Plan, create and list the pipeline's topics.",
    epilog=TOPICS_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)

PartitionsOption = Annotated[
    int | None,
    typer.Option("--partitions", min=1, help="Partitions of account-keyed topics."),
]


@app.command(epilog=TOPICS_EPILOG)
def plan(
    data_dir: DataDirOption = None,
    partitions: PartitionsOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what apply would do, and what it would refuse; change nothing."""
    from solvent.ops import topics as ops

    address, topics = _where(data_dir, partitions)
    found = ops.plan(address, topics)
    if json:
        print_json(_as_json(found))
    else:
        _print_findings(found)
    if found.refused:
        raise typer.Exit(EXIT_PARTITION_DRIFT)
    raise typer.Exit(EXIT_OK if found.is_in_line else EXIT_TOPICS_PENDING)


@app.command(epilog=TOPICS_EPILOG)
def apply(
    data_dir: DataDirOption = None,
    partitions: PartitionsOption = None,
    json: JsonOption = False,
) -> None:
    """Create missing topics and alter settings that drifted; safe to repeat."""
    from solvent.ops import topics as ops

    address, topics = _where(data_dir, partitions)
    done = ops.apply(address, topics)
    if json:
        created = [state.physical for state in done.to_create]
        altered = {state.physical: _drift(state) for state in done.to_alter}
        print_json({"bootstrap_servers": address, "created": created, "altered": altered})
        return
    for state in done.to_create:
        print_line(f"created {state.physical}: {_partitions(state.partitions)}")
    for state in done.to_alter:
        print_line(f"altered {state.physical}: {', '.join(state.config_drift)}")
    if done.is_in_line:
        print_line(f"all {len(done.states)} topics were in line already")


@app.command(name="list", epilog=TOPICS_EPILOG)
def list_(
    data_dir: DataDirOption = None,
    partitions: PartitionsOption = None,
    json: JsonOption = False,
) -> None:
    """List the topics with what they are on the broker."""
    from solvent.ops import topics as ops

    address, topics = _where(data_dir, partitions)
    found = ops.plan(address, topics)
    if json:
        print_json(_as_json(found))
        return
    for state in found.states:
        count = "missing" if state.is_missing else _partitions(state.found_partitions or 0)
        told = ", ".join(f"{key}={value}" for key, value in sorted(state.found_config.items()))
        print_line(f"{state.physical:<40} {count:<15} {told}".rstrip())


def _partitions(count: int) -> str:
    return f"{count} partition" + ("" if count == 1 else "s")


def _where(data_dir: Path | None, partitions: int | None) -> tuple[str, Topics]:
    from solvent.ops.broker import resolve_bootstrap
    from solvent.settings import load_settings
    from solvent.wire.topics import Topics

    settings = load_settings(data_dir=data_dir, partitions=partitions)
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    return resolve_bootstrap(settings), topics


def _print_findings(found: Plan) -> None:
    for state in found.states:
        for line in state.findings:
            print_line(line)
    if found.copartition_finding is not None:
        print_line(found.copartition_finding)
    if found.is_in_line:
        print_line(f"all {len(found.states)} topics are in line")


def _as_json(found: Plan) -> dict[str, Any]:
    return {
        "in_line": found.is_in_line,
        "copartition": found.copartition_finding,
        "topics": [
            {
                "name": state.name,
                "topic": state.physical,
                "state": _state_word(state),
                "partitions": {"found": state.found_partitions, "wanted": state.partitions},
                "config": {"found": dict(state.found_config), "wanted": dict(state.config)},
                "findings": state.findings,
            }
            for state in found.states
        ],
    }


def _state_word(state: TopicState) -> str:
    if state.is_missing:
        return "missing"
    if state.has_partition_drift:
        return "partition_drift"
    return "config_drift" if state.config_drift else "in_line"


def _drift(state: TopicState) -> dict[str, dict[str, str | None]]:
    return {
        key: {"found": found, "wanted": wanted}
        for key, (found, wanted) in state.config_drift.items()
    }
