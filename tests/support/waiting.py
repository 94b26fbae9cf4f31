"""Wait for what another process does, with a deadline; never a bare sleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_for"]

T = TypeVar("T")


def wait_for(look: Callable[[], T], is_there: Callable[[T], bool], deadline_s: float = 20.0) -> T:
    """Look until the predicate holds and return what was seen; fail with the last sight."""
    end = time.monotonic() + deadline_s
    idle = threading.Event()
    while not is_there(seen := look()):
        if time.monotonic() > end:
            msg = f"not there after {deadline_s} s; last seen: {seen!r}"
            raise AssertionError(msg)
        idle.wait(0.05)
    return seen
