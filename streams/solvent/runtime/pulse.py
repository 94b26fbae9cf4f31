"""Proof that an event loop runs: a counter it advances four times a second."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["Pulse"]

_INTERVAL_S: Final = 0.25


class Pulse:
    """Beats of one event loop; read from other threads.

    Attributes
    ----------
    beats : int
        0 before the loop has run.
    loop : AbstractEventLoop or None
        The loop, once it has run.
    """

    def __init__(self) -> None:
        self.beats = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat for as long as the loop runs; called in its thread."""
        self.beats += 1
        self.loop = loop
        loop.call_later(_INTERVAL_S, self.start, loop)
