"""What a figure was measured on and with: machine, load, library versions, commit, CPU seconds.

No host names, users or paths: results are published.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from solvent.errors import ServiceError
from solvent.ops.jars import kafka_version

__all__ = ["commit", "cpu_seconds", "describe_machine", "load_average", "version_of", "versions"]

_LIBRARIES = (
    *("solvent", "faust-streaming", "aiokafka", "mode-streaming", "kafka-python"),
    *("numba", "numpy", "msgspec", "orjson"),
)
_ROOT = Path(__file__).resolve().parents[1]


def describe_machine() -> dict[str, Any]:
    """Return CPU model, cores and memory of this machine."""
    cpu = platform.machine()
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            cpu = value.strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def load_average() -> list[float]:
    """Return how many processes wanted a CPU, averaged over 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def versions() -> dict[str, str]:
    """Return the versions that bear on the result."""
    found = {name: version_of(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "kafka": kafka_version(), **found}


def version_of(distribution: str) -> str:
    """Return the version of an installed distribution, or ``not installed``."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Return the short commit of this checkout, with a plus if its sources were changed since."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "streams", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+" if changed else "")


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds a living process has used, all its threads, user and system.

    Raises
    ------
    ServiceError
        There is no ``/proc`` (the benchmarks run on Linux), or the process has ended.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError as error:
        msg = f"CPU time of process {pid}: {error}; benchmarks need Linux and its /proc"
        raise ServiceError(msg) from None
    fields = stat.rpartition(")")[2].split()  # the name in brackets may contain blanks
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
