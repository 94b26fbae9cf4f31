"""The monitor of one worker: the watchdog and the three pages, over lanes that come later.

``/livez`` and ``/readyz`` answer 200 or 503 with JSON that lists every check; ``/metrics`` is
Prometheus text. The monitor starts before the kernels compile, when a worker is alive but not
ready; the lanes and event loops are given to it once they exist.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from solvent.health.checks import Check, Limits, live_checks, ready_checks, report
from solvent.health.metrics import WorkerCollector, render, worker_registry
from solvent.health.observe import LaneSight, look_at
from solvent.health.server import Answer
from solvent.health.watch import Subject, Watch

if TYPE_CHECKING:
    from solvent.runtime.lanes import Lanes
    from solvent.runtime.pulse import Pulse

__all__ = ["Monitor"]

_OK: Final = 200
_UNAVAILABLE: Final = 503
_JSON: Final = "application/json"


class Monitor:
    """Watches one worker and answers for it.

    Parameters
    ----------
    instance : str
        The worker's name in its group.
    limits : Limits
        What it is held to.
    on_stall : callable
        Called by the watchdog with what stood still and for how many seconds; it ends the process.
    """

    def __init__(
        self, instance: str, limits: Limits, *, on_stall: Callable[[str, float], None]
    ) -> None:
        self._instance = instance
        self._limits = limits
        self._lanes: Lanes | None = None
        self._pulses: Mapping[str, Pulse] = {}
        self._watch = Watch(self._subjects, limit_s=limits.stall_exit_s, on_stall=on_stall)
        self._registry = worker_registry(
            WorkerCollector(
                instance,
                lanes=lambda: self._lanes,
                stalls=lambda: self._watch.stalls.seconds,
                look=self._look,
            )
        )

    @property
    def answers(self) -> Mapping[str, Callable[[], Answer]]:
        """What a server needs: the pages by path."""
        return {"/livez": self.livez, "/readyz": self.readyz, "/metrics": self.metrics}

    def attach(self, lanes: Lanes, pulses: Mapping[str, Pulse]) -> None:
        """Begin to look at lanes and at the pulses of event loops, by name."""
        self._pulses = dict(pulses)
        self._lanes = lanes

    def start(self) -> None:
        """Start the watchdog."""
        self._watch.start()

    def stop(self) -> None:
        """Stop the watchdog."""
        self._watch.stop()

    # -- pages

    def livez(self) -> Answer:
        """Answer whether the worker makes progress."""
        stalls = self._watch.stalls.seconds
        return self._page(live_checks(stalls, self._limits, is_watched=self._watch.is_running))

    def readyz(self) -> Answer:
        """Answer whether it may be relied on, and how far each lane is."""
        checks, sights = self._ready(time.time())
        return self._page(checks, lanes=[_lane_page(sight) for sight in sights])

    def metrics(self) -> Answer:
        """Answer with the metrics."""
        return Answer(_OK, CONTENT_TYPE_LATEST, render(self._registry))

    def _look(self, now_s: float) -> tuple[bool, list[LaneSight]]:
        checks, sights = self._ready(now_s)
        return all(check.ok for check in checks), sights

    def _ready(self, now_s: float) -> tuple[list[Check], list[LaneSight]]:
        lanes = self._lanes
        if lanes is None or not all(pulse.beats for pulse in self._pulses.values()):
            starting = Check(check="start", ok=False, value="starting", limit="running")
            return [starting], []
        sights = look_at(lanes, now_s=now_s)
        stalls = self._watch.stalls.seconds
        settled = lanes.is_settled
        return (
            ready_checks(sights, stalls, self._limits, is_settled=settled, now_s=now_s),
            sights,
        )

    def _page(self, checks: list[Check], **more: Any) -> Answer:  # noqa: ANN401 - any JSON data
        found = report(checks)
        body = {"instance": self._instance, "pid": os.getpid(), **found, **more}
        status = _OK if found["ok"] else _UNAVAILABLE
        return Answer(status, _JSON, orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")

    # -- the watchdog

    def _subjects(self) -> dict[str, Subject]:
        subjects = {
            name: Subject(is_waiting=pulse.beats > 0, progress=pulse.beats)
            for name, pulse in self._pulses.items()
        }
        if self._lanes is not None:
            for sight in look_at(self._lanes):
                subjects[sight.name] = Subject(sight.is_waiting, sight.progress)
        return subjects


def _lane_page(sight: LaneSight) -> dict[str, Any]:
    restore = sight.restore
    return {
        "lane": sight.name,
        "state": sight.state,
        "restore": None
        if restore is None
        else {"rows": restore.rows, "percent": round(100 * restore.share, 1)},
        "lag": {place.topic: place.lag for place in sight.inputs},
    }
