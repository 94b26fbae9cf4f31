"""Results for people and for programs: a Markdown section, one JSON line, and RESULTS.md.

A result is ``{"bench", "figures", "workload", "machine", "versions", "commit", "result_hash"}``;
figures are numbers named ``what`` or ``who.what``, with the unit at the end of the name
(``events_per_s``, ``p99_ms``). In Markdown each ``who`` has a table. RESULTS.md holds one section a
benchmark, between comments that name it; writing replaces that section and leaves the others.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

__all__ = ["RESULTS", "add_options", "as_markdown", "rate", "ratio", "replace_section", "show"]

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = (
    "# Results\n\n"
    "Written by `solvent bench NAME --write`; each section says on what it was measured, and the "
    "peers in it ran in the same run.\n"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options every benchmark has."""
    parser.add_argument("--json", action="store_true", help="one JSON object, in the last line")
    parser.add_argument("--write", action="store_true", help="replace its section in RESULTS.md")


def show(result: dict[str, Any], *, as_json: bool, write: bool, question: str) -> None:
    """Print a result, and write its section if asked."""
    section = as_markdown(result, question)
    if write:
        before = RESULTS.read_text("utf-8") if RESULTS.is_file() else _HEAD
        RESULTS.write_text(replace_section(before, result["bench"], section), "utf-8")
        print(f"wrote the section {result['bench']} of {RESULTS.name}", file=sys.stderr)
    if as_json:
        print(orjson.dumps(result).decode(), flush=True)
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(section))
    else:
        print(section)


def as_markdown(result: dict[str, Any], question: str) -> str:
    """Return the section of a result.

    Parameters
    ----------
    result : dict
        See the module.
    question : str
        The benchmark's docstring; its first line is what is asked, its last paragraphs how.
    """
    asked, _, how = question.strip().partition("\n")
    machine, loads = result["machine"], result["machine"]["load_average"]
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": f"`{result['commit']}` (a plus: with changes since)",
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}",
        "load average (1, 5, 15 min)": f"{_list(loads['start'])} at the start, "
        f"{_list(loads['end'])} at the end",
        "workload": _pairs(result["workload"]),
        "versions": _pairs(result["versions"]),
        "result hash": f"`{result['result_hash']}`",
    }
    lines = [f"## {result['bench']}", "", f"*{asked}*", "", how.strip(), ""]
    for who, figures in _groups(result["figures"]).items():
        lines += [f"| {who} | value |", "|---|---:|"]
        lines += [f"| {name} | {_number(value)} |" for name, value in figures.items()]
        lines += [""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    return "\n".join(lines) + "\n"


def replace_section(text: str, name: str, section: str) -> str:
    """Return `text` with the section of that name replaced, or appended if there was none."""
    begin, end = f"<!-- bench {name} -->", f"<!-- end of {name} -->"
    block = f"{begin}\n{section}{end}\n"
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}\n", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: block, text)
    return f"{text.rstrip()}\n\n{block}"


def rate(count: float, seconds: float) -> float | None:
    """Return count a second in four figures; None if there was nothing to time."""
    if count <= 0 or seconds <= 0:
        return None
    found = count / seconds
    return round(found, max(0, 3 - math.floor(math.log10(found))))


def ratio(one: float | None, other: float | None) -> float | None:
    """Return one over the other in three figures; None if either is missing."""
    return None if one is None or not other else float(f"{one / other:.3g}")


def _groups(figures: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return figures by who they are of, each group where its first figure stood."""
    groups: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        who, dot, _ = name.partition(".")
        groups.setdefault(who if dot else "figure", {})[name] = value
    return groups


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,}"


def _list(values: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _pairs(values: dict[str, Any]) -> str:
    """Return ``name value`` pairs; a mapping inside as its own pairs, a rulebook as its id."""
    shown = []
    for name, value in values.items():
        text = f"{value:,}" if type(value) is int else str(value)
        if isinstance(value, dict):  # the rulebook's reference, or a list of things by name
            text = f"{value['id']} v{value['version']}" if "id" in value else f"({_pairs(value)})"
        shown.append(f"{name.replace('_', ' ')} {text}")
    return ", ".join(shown)
