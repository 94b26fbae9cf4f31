"""Workers forked from a process that is warm, held by the same handle as any other child."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from support.waiting import wait_for

__all__ = ["Forks", "Worker"]


class Worker:
    """One worker process; a signal after its end does nothing."""

    def __init__(self, forks: Forks, pid: int, log: Path) -> None:
        self._forks = forks
        self.pid = pid
        self.log = log

    @property
    def returncode(self) -> int | None:
        """Exit code, negative if a signal ended it; None while it runs."""
        return self._forks.codes.get(self.pid)

    @property
    def stops(self) -> int:
        """How often it was stopped by a signal."""
        return self._forks.stops[self.pid]

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._forks.tell({"pid": self.pid, "signal": number})

    def kill(self) -> None:
        """Kill -9 and wait."""
        self.signal(signal.SIGKILL)
        self.wait(30.0)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.signal(signal.SIGTERM)

    def wait(self, deadline_s: float) -> int:
        """Wait for the end; AssertionError after the deadline."""
        code = wait_for(lambda: self.returncode, lambda found: found is not None, deadline_s)
        assert code is not None
        return code


class Forks:
    """The warm process and what came from it; all of it ends with `close`, or with this process."""

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.stops: Counter[int] = Counter()
        self._pids: SimpleQueue[int] = SimpleQueue()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("launcher.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A thread before the fork would not be there after it.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"no workers can be forked: exit code {self._process.wait()}")
        self._reader = threading.Thread(target=self._read, name="forks")
        self._reader.start()

    def start(self, *, env: dict[str, str], log: Path) -> Worker:
        """Start a worker with these variables beside our own."""
        with self._lock:
            self._write({"env": env, "log": str(log)})
            log.touch()
            return Worker(self, self._pids.get(timeout=30), log)

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command (``chaos.launcher.serve``)."""
        with self._lock:
            self._write(command)

    def close(self) -> None:
        """End every worker, and the process they came from."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        self._process.stdout.close()

    def _write(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "code" in answer:
                self.codes[answer["pid"]] = answer["code"]
            elif "stopped" in answer:
                self.stops[answer["pid"]] += 1
            else:
                self.codes.pop(answer["pid"], None)  # an earlier bearer's
                self.stops.pop(answer["pid"], None)
                self._pids.put(answer["pid"])
