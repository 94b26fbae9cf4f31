"""`solvent kafka`: the local broker of a data directory. Exit codes: ``solvent.cli.exits``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from solvent.cli.common import DataDirOption, JsonOption, note, print_json, print_line
from solvent.cli.exits import EXIT_CHECK_FAILED, EXIT_OK, KAFKA_EPILOG

__all__ = ["app"]

app = typer.Typer(
    help="Start, stop and look at the local Kafka: Apache Kafka itself, one node, on 127.0.0.1.",
    epilog=KAFKA_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)

PortOption = Annotated[
    int | None,
    typer.Option("--port", min=1024, max=65_535, help="Client port.  [default: last one, or any]"),
]


@app.command(epilog=KAFKA_EPILOG)
def start(
    data_dir: DataDirOption = None, port: PortOption = None, json: JsonOption = False
) -> None:
    """Start the local Kafka unless it runs, and wait until it answers."""
    from solvent.ops.kafka import LocalKafka
    from solvent.settings import load_settings

    settings = load_settings(data_dir=data_dir, kafka_port=port)
    local = LocalKafka(
        settings.data_dir,
        settings.kafka_port,
        heap=settings.kafka_heap,
        cache_dir=settings.cache_dir,
    )
    was_running = local.is_running()
    address = local.start()
    if json:
        print_json(asdict(local.status()))
    else:
        verb = "already runs" if was_running else "started"
        print_line(f"Kafka {verb} at {address} (pid {local.pid}, data in {local.folder})")
    if settings.bootstrap_servers not in (None, address):
        note(f"note: SOLVENT_BOOTSTRAP_SERVERS={settings.bootstrap_servers} is used, not this node")


@app.command(epilog=KAFKA_EPILOG)
def stop(data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Stop the local Kafka; its data stays."""
    from solvent.ops.kafka import LocalKafka
    from solvent.settings import load_settings

    local = LocalKafka(load_settings(data_dir=data_dir).data_dir)
    stopped = local.stop()
    if json:
        print_json({"stopped": stopped, "data_dir": str(local.data_dir)})
    else:
        print_line("Kafka stopped" if stopped else f"no Kafka runs in {local.data_dir}")


@app.command(epilog=KAFKA_EPILOG)
def status(data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Tell whether the broker in use answers; exit 1 if not."""
    from solvent.ops.broker import answers
    from solvent.ops.kafka import LocalKafka
    from solvent.settings import load_settings

    settings = load_settings(data_dir=data_dir)
    found = LocalKafka(settings.data_dir).status()
    told: dict[str, Any] = asdict(found)
    external = settings.bootstrap_servers
    healthy = found.answering if external is None else answers(external)
    if external is not None:
        told["external"] = {"bootstrap_servers": external, "answering": healthy}
    if json:
        print_json(told)
    elif external is not None:
        outcome = "answers" if healthy else "does not answer"
        print_line(f"Kafka of SOLVENT_BOOTSTRAP_SERVERS at {external} {outcome}")
    elif found.running:
        outcome = "answers" if healthy else f"does not answer yet, see {found.log}"
        print_line(
            f"Kafka {found.version} at {found.bootstrap_servers} {outcome} (pid {found.pid})"
        )
    elif found.stale_pid is not None:
        print_line(
            f"Kafka is not running: pid {found.stale_pid} of {found.data_dir} has ended; "
            "run `solvent kafka start`"
        )
    else:
        print_line(f"Kafka is not running in {found.data_dir}: run `solvent kafka start`")
    raise typer.Exit(EXIT_OK if healthy else EXIT_CHECK_FAILED)
