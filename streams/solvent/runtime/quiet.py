"""Fewer log lines while the broker is away: aiokafka repeats itself hundreds of times a second."""

from __future__ import annotations

import logging
import time

__all__ = ["Seldom"]


class Seldom(logging.Filter):
    """Pass what a library says once in a while, and say how often it was said meanwhile.

    Messages are told apart by logger and template, so ``Unable connect to node with id %s: %s`` is
    one, whatever the node.

    Parameters
    ----------
    library : str
        Its loggers alone are looked at: ``aiokafka`` and all below.
    every_s : float
        Seconds between two passes of one message.
    """

    def __init__(self, library: str, every_s: float) -> None:
        super().__init__(library)
        self._every_s = every_s
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record passes."""
        if not super().filter(record):
            return True  # another library's
        place = (record.name, str(record.msg))
        now = time.monotonic()
        last_s, held_back = self._last.get(place, (now - self._every_s, 0))
        if now - last_s < self._every_s:
            self._last[place] = (last_s, held_back + 1)
            return False
        self._last[place] = (now, 0)
        if held_back:
            record.msg = f"{record.getMessage()} (and {held_back} more in {now - last_s:.0f} s)"
            record.args = None
        return True
