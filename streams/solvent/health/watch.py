"""The watchdog: a thread that notes how long anything that should go on has stood still.

A subject is an event loop or a lane. It stalls while it is waiting for something (records to fold,
a commit to end) and its progress does not change. Seconds are those the watchdog itself was awake:
a process that was frozen as a whole, or a machine that slept, has not stalled. The thread needs no
event loop, so it ends the process even if the loop is blocked or a commit hangs for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Final, NamedTuple

__all__ = ["Stalls", "Subject", "Watch"]

_LONGEST_INTERVAL_S: Final = 1.0
_SHORTEST_INTERVAL_S: Final = 0.02
_LOOKS_PER_LIMIT: Final = 20
#: A look that comes later than this many intervals: the process was not running.
_AWAKE_INTERVALS: Final = 3


class Subject(NamedTuple):
    """What is watched: whether something must come next, and a value that changes when it did."""

    is_waiting: bool
    progress: Hashable


class Stalls:
    """How long each subject has stood still.

    Parameters
    ----------
    longest_step_s : float
        Most seconds one look may add; a later look means that nobody was awake.
    """

    def __init__(self, longest_step_s: float) -> None:
        self._longest_step_s = longest_step_s
        self._last_s: float | None = None
        self._seen: dict[str, Subject] = {}
        #: Subject -> seconds, replaced at each look.
        self.seconds: Mapping[str, float] = {}

    def look(self, now_s: float, subjects: Mapping[str, Subject]) -> None:
        """Note what is seen at a moment of a monotonic clock."""
        step_s = 0.0
        if self._last_s is not None:
            step_s = min(now_s - self._last_s, self._longest_step_s)
        self._last_s = now_s
        before, seconds = self._seen, self.seconds
        self.seconds = {
            name: seconds.get(name, 0.0) + step_s
            if subject.is_waiting and before.get(name) == subject
            else 0.0
            for name, subject in subjects.items()
        }
        self._seen = dict(subjects)

    def worst(self) -> tuple[str | None, float]:
        """Return the subject that has stood still longest, and for how long."""
        seconds = self.seconds
        name = max(seconds, key=lambda each: seconds[each], default=None)
        return name, 0.0 if name is None else seconds[name]


class Watch:
    """The thread that looks.

    Parameters
    ----------
    look : callable
        Returns the subjects as they are now.
    limit_s : float
        A subject may stand still for so long.
    on_stall : callable
        Called in the thread, once, with the subject and its seconds.
    """

    def __init__(
        self,
        look: Callable[[], Mapping[str, Subject]],
        *,
        limit_s: float,
        on_stall: Callable[[str, float], None],
    ) -> None:
        self._look = look
        self._limit_s = limit_s
        self._on_stall = on_stall
        self._interval_s = min(
            _LONGEST_INTERVAL_S, max(_SHORTEST_INTERVAL_S, limit_s / _LOOKS_PER_LIMIT)
        )
        self.stalls = Stalls(_AWAKE_INTERVALS * self._interval_s)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="solvent watchdog", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether it looks; it stops only when told to, or by a bug."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.stalls.look(time.monotonic(), self._look())
            subject, seconds = self.stalls.worst()
            if subject is not None and seconds > self._limit_s:
                self._on_stall(subject, seconds)
                return
