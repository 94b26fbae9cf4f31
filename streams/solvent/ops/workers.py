"""Where this machine's workers serve their health, as files of the data directory say.

``workers/<instance>.json`` holds the pid and the URL of a worker, and stays when it ends: its next
start takes the same port if that is free.
"""

from __future__ import annotations

import http.client
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

__all__ = ["WorkerAddress", "ask", "known_workers", "last_address", "note_address"]

_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """One worker: its name in the group, its process, where its pages are."""

    instance: str
    pid: int
    url: str

    @property
    def port(self) -> int | None:
        """Return the port of its pages."""
        return urlsplit(self.url).port


def note_address(data_dir: Path, address: WorkerAddress) -> None:
    """Write the file of a worker that serves now."""
    path = _path(data_dir, address.instance)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(orjson.dumps(asdict(address)) + b"\n")
    part.replace(path)


def last_address(data_dir: Path, instance: str) -> WorkerAddress | None:
    """Return what a worker of that name wrote last, None if there is nothing of use."""
    return _read(_path(data_dir, instance))


def known_workers(data_dir: Path) -> list[WorkerAddress]:
    """Return every worker that wrote its address here, running or not, by name."""
    found = (_read(path) for path in sorted((data_dir / "workers").glob("*.json")))
    return [address for address in found if address is not None]


def ask(address: WorkerAddress, page: str) -> dict[str, Any] | None:
    """Return the JSON of a page, None if that worker does not answer there any more."""
    parts = urlsplit(address.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", page)
        body = orjson.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError):
        return None
    finally:
        connection.close()
    is_same = isinstance(body, dict) and body.get("pid") == address.pid
    return body if is_same else None


def _path(data_dir: Path, instance: str) -> Path:
    return data_dir / "workers" / f"{instance}.json"


def _read(path: Path) -> WorkerAddress | None:
    try:
        row = orjson.loads(path.read_bytes())
        return WorkerAddress(str(row["instance"]), int(row["pid"]), str(row["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
