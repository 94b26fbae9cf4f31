"""What a lane counts about itself, a slice at a time: the source of its metrics.

Counters start at zero with the lane; times are seconds, record times Kafka's milliseconds. Written
by the lane alone, once a fetched run and once a slice, and read by other threads: each field is
replaced or added to in one step, so a reader may see a slice half counted, never a wrong type.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

__all__ = ["Histogram", "LaneMeter", "SliceMeter"]

#: Upper bounds of folds and commits, s.
_WORK_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: Upper bounds of ages, s: from a record's way through an idle worker to the backlog of a day.
_AGE_BOUNDS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0)


class Histogram:
    """Counts of values by upper bound, and their sum.

    Parameters
    ----------
    bounds : tuple of float
        Ascending upper bounds, inclusive; what is above the last is counted too.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulated(self) -> list[tuple[str, float]]:
        """Return (upper bound, values up to it), the last bound being ``+Inf``."""
        labels = [*(repr(bound) for bound in self.bounds), "+Inf"]
        return list(zip(labels, map(float, accumulate(self.counts)), strict=True))


@dataclass(slots=True)
class SliceMeter:
    """One slice: records by input topic, the oldest record's time, when its commit began."""

    records: Counter[str] = field(default_factory=Counter)
    oldest_ms: int | None = None
    began_s: float = 0.0


class LaneMeter:
    """Counters of one lane.

    Attributes
    ----------
    records : Counter
        Input records committed, by logical topic.
    slices : int
        Transactions committed.
    commit_s, fold_s : Histogram
        Seconds a slice's transaction took, and its folding.
    age_s : Histogram
        Seconds from the Kafka time of a slice's oldest record to the end of its commit.
    last_record_ms : dict of str to int
        Kafka time of the last record folded, by logical topic.
    """

    def __init__(self) -> None:
        self.records: Counter[str] = Counter()
        self.slices = 0
        self.commit_s = Histogram(_WORK_BOUNDS_S)
        self.fold_s = Histogram(_WORK_BOUNDS_S)
        self.age_s = Histogram(_AGE_BOUNDS_S)
        self.last_record_ms: dict[str, int] = {}
        self._open = SliceMeter()

    def take(self, topic: str, count: int, first_ms: int, last_ms: int) -> None:
        """Note that a run was folded."""
        self._open.records[topic] += count
        oldest_ms = self._open.oldest_ms
        self._open.oldest_ms = first_ms if oldest_ms is None else min(oldest_ms, first_ms)
        self.last_record_ms[topic] = last_ms

    def cut(self, folded_s: float) -> SliceMeter:
        """Begin a new slice; the old one, whose commit starts now, is returned."""
        closing, self._open = self._open, SliceMeter()
        closing.began_s = time.perf_counter()
        self.fold_s.observe(folded_s)
        return closing

    def commit(self, committed: SliceMeter) -> None:
        """Count a slice whose transaction is through."""
        self.commit_s.observe(time.perf_counter() - committed.began_s)
        if committed.oldest_ms is not None:
            # Clocks of two machines may differ; an age is never below zero.
            self.age_s.observe(max(0.0, time.time() - committed.oldest_ms / 1000))
        self.records.update(committed.records)
        self.slices += 1
