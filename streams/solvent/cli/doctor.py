"""`solvent doctor`: everything a worker needs, one line each. Exit 0 green or yellow, 1 red."""

from __future__ import annotations

from dataclasses import asdict

import typer

from solvent.cli.common import DataDirOption, JsonOption, print_json, print_line, tint
from solvent.cli.exits import EXIT_CHECK_FAILED, EXIT_OK

__all__ = ["app"]

_EPILOG = "Exit codes: 0 all green or yellow, 1 at least one red line, 3 settings do not hold."
_WORDS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog=_EPILOG)
def doctor(data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Check Java, Maven, libraries, broker, topics and rulebook; change nothing."""
    from solvent.ops.doctor import examine
    from solvent.settings import load_settings

    findings = examine(load_settings(data_dir=data_dir))
    healthy = all(finding.level != "fail" for finding in findings)
    if json:
        print_json({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            word = tint(finding.level, _WORDS[finding.level])
            print_line(f"{word} {finding.check:<14} {finding.message}")
    raise typer.Exit(EXIT_OK if healthy else EXIT_CHECK_FAILED)
