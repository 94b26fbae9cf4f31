"""What the README shows of `evaluate` was really printed: commands, samples, the Python example."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from solvent.cli.main import run

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "README.md").read_text("utf-8").split("\n## Evaluate\n")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    parts = SECTION.split(f"\n```{language}\n")[1:]
    return [part.split("\n```")[0] for part in parts]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each command shown, and the lines under it."""
    for block in blocks("console"):
        for part in ("\n" + block).split("\n$ ")[1:]:
            command, *lines = part.split("\n")
            yield command, lines


def test_samples_shown_are_the_files() -> None:
    shown = {command: lines for command, lines in commands() if command.startswith("cat ")}
    assert len(shown) == 2
    for command, lines in shown.items():
        assert (ROOT / command.removeprefix("cat ")).read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("command", "lines"),
    [case for case in commands() if case[0].startswith("solvent evaluate")],
)
def test_output_shown_was_printed_in_this_order(
    command: str,
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert run(shlex.split(command)[1:]) == 0
    printed = iter(capsys.readouterr().out.splitlines())
    assert [line for line in lines if line != "…" and line not in printed] == []


def test_python_example_prints_what_is_shown() -> None:
    (code,), (shown,) = blocks("python"), blocks("text")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert answer.stdout.decode().strip() == shown
