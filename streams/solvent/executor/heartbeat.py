"""Whether somebody still judges: how long ago each partition's last watermark was written.

Ages are seconds, from the broker's time of a watermark to a clock that must agree with the broker's
within the limit. A clock is what tells silence from death; nothing else here asks one to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["Heartbeats"]


class Heartbeats:
    """Watermarks heard.

    Parameters
    ----------
    partitions : iterable of int
        All that should be heard.
    limit_s : float
        Age from which a partition is silent; 0: none ever is.
    clock_s : callable
        Unix time in seconds.
    """

    def __init__(
        self, partitions: Iterable[int], limit_s: float, clock_s: Callable[[], float]
    ) -> None:
        self._last_ms: dict[int, int | None] = dict.fromkeys(partitions)
        self._limit_s = limit_s
        self._clock_s = clock_s

    def heard(self, partition: int, timestamp_ms: int) -> None:
        """Note a watermark and the broker's time of it."""
        self._last_ms[partition] = max(timestamp_ms, self._last_ms.get(partition) or 0)

    def age_s(self, partition: int) -> float | None:
        """Return the age of a partition's last watermark, None before the first."""
        last_ms = self._last_ms[partition]
        return None if last_ms is None else self._clock_s() - last_ms / 1000

    def silent(self) -> frozenset[int]:
        """Return the partitions whose last watermark is too old, or never came."""
        if not self._limit_s:
            return frozenset()
        ages = {partition: self.age_s(partition) for partition in self._last_ms}
        return frozenset(p for p, age_s in ages.items() if age_s is None or age_s > self._limit_s)
