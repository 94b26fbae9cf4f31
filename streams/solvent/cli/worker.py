"""`solvent worker`: this process becomes the worker, so one worker is one process to supervise."""

from __future__ import annotations

import os
import sys

import typer

__all__ = ["app"]

app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def worker(context: typer.Context) -> None:
    """Run the price and margin agents until stopped (SIGTERM or Ctrl-C).

    Needs a broker, its topics (`solvent topics apply`) and SOLVENT_RULEBOOK. Options after `--`
    go to Faust's worker. Start several to share the partitions. Its log says at which URL it
    serves /livez, /readyz and /metrics (SOLVENT_HEALTH_PORT fixes the port).
    """
    os.execv(sys.executable, [sys.executable, "-m", "solvent.worker", *context.args])  # noqa: S606
