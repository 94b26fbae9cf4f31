"""Tapes read and altered line by line, without the product's reader."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["GOLDEN", "altered", "lines_of", "written"]

#: Recorded by tests/replay/record_tape.py.
GOLDEN = Path(__file__).resolve().parents[1] / "replay" / "golden.tape.gz"

#: [topic, partition, offset, timestamp, key, value]
Line = list[Any]


def lines_of(path: Path) -> tuple[dict[str, Any], list[Line]]:
    """Return header and records of a tape."""
    header, *lines = (json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines())
    return header, lines


def written(path: Path, header: dict[str, Any], lines: list[Line]) -> Path:
    """Write a tape."""
    text = "\n".join(json.dumps(content) for content in (header, *lines))
    path.write_bytes(gzip.compress(text.encode(), 1))
    return path


def altered(
    folder: Path,
    topic: str,
    is_meant: Callable[[Line], bool],
    change: Callable[[Line], Line | None],
) -> tuple[Path, Line]:
    """Write the golden tape with one record of a topic changed, or left out if it becomes None.

    Returns
    -------
    path : Path
        Of the altered tape.
    line : list
        The record as it was.
    """
    header, lines = lines_of(GOLDEN)
    place = next(_places(lines, topic, is_meant))
    before = lines[place]
    after = change(list(before))
    lines[place : place + 1] = [] if after is None else [after]
    return written(folder / "altered.tape.gz", header, lines), before


def _places(lines: list[Line], topic: str, is_meant: Callable[[Line], bool]) -> Iterator[int]:
    return (n for n, line in enumerate(lines) if line[0] == topic and is_meant(line))
