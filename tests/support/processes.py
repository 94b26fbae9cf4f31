"""Child processes of tests: started with a log, killed by pid, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path


class Child:
    """One child process with its log file."""

    def __init__(self, arguments: list[str], *, env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                arguments, env={**os.environ, **env}, stdout=sink, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        """Kill -9 and reap."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, deadline_s: float = 30.0) -> int:
        """SIGTERM and wait; returns the exit code."""
        self._process.terminate()
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def ensure_gone(self) -> None:
        if self._process.poll() is None:
            self.thaw()
            self.kill()
