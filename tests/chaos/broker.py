"""A local Kafka with a cable for each worker, that may be killed, frozen or run out of disk.

Beside its ordinary listener (loader, checks) the node has one listener a worker, whose advertised
address is the near end of that worker's link: all of the worker's traffic goes through it, and
cutting one link leaves the other workers alone.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path

from chaos.links import Links
from solvent.ops.kafka import LocalKafka
from support.waiting import wait_for

__all__ = ["ChaosKafka"]


class ChaosKafka(LocalKafka):
    """One node and `workers` links."""

    def __init__(self, data_dir: Path, *, workers: int) -> None:
        super().__init__(data_dir, heap="512m")
        self._slot_ports = _free_ports(workers)
        self.links = Links(self._slot_ports)

    def address(self, worker: int) -> str:
        """The broker as this worker sees it."""
        return f"127.0.0.1:{self.links.ports[worker]}"

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGCONT)

    def fill_disk(self) -> None:
        """Let the next append to the largest log in use tear in the middle, as on a full disk.

        The kernel's limit on file size stands in for the disk: the append writes what fits, then
        fails, and Kafka ends itself as it does when its last log directory goes bad. A log no
        longer written (of the topics of an earlier round) may be larger than any in use will be.
        """
        assert self.pid is not None
        before = self._log_sizes()
        after = wait_for(self._log_sizes, lambda sizes: sizes != before, 60.0)
        limit = max(size for path, size in after.items() if size != before.get(path)) + 700
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (limit, hard))

    def await_death(self, deadline_s: float = 60.0) -> None:
        """Wait until the node is gone."""
        wait_for(self.is_running, lambda runs: not runs, deadline_s)

    def close(self) -> None:
        """Leave nothing behind."""
        self.thaw()
        self.stop(deadline_s=10.0)
        self.links.close()

    def _log_sizes(self) -> dict[Path, int]:
        logs = (self.folder / "logs").glob("*/*.log")
        return {path: path.stat().st_size for path in logs}

    def _write_properties(self, port: int, controller_port: int) -> Path:
        path = super()._write_properties(port, controller_port)
        slots = [f"SLOT{number}" for number in range(len(self._slot_ports))]
        more = {
            "listeners": [
                f"{n}://127.0.0.1:{p}" for n, p in zip(slots, self._slot_ports, strict=True)
            ],
            "advertised.listeners": [
                f"{n}://127.0.0.1:{p}" for n, p in zip(slots, self.links.ports, strict=True)
            ],
            "listener.security.protocol.map": [f"{n}:PLAINTEXT" for n in slots],
        }
        lines = []
        for line in path.read_text("utf-8").splitlines():
            name, equals, value = line.partition("=")
            lines.append(name + equals + ",".join([value, *more.get(name, [])]))
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
