"""Places in logs that move in step with a replay: inputs by run, events by record, rows by slice.

Offsets are places in a partition. What a log lacks by design is passed over here: rows of claims,
records of another agent on a shared topic, events that retention deleted or that belong to slices
before the replay began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import orjson

from solvent.engine.journal import CLAIM_KEY, FENCE_KEY
from solvent.engine.replay import Log, count_below
from solvent.engine.run import Record, Run
from solvent.engine.shard import Emit

__all__ = ["InputCursor", "OutputCursor", "SliceRows", "StandingCursor", "TableCursor", "joined"]


def joined(runs: list[Run]) -> Run:
    """Return consecutive runs as one; of one run the run itself, of none an empty one."""
    if len(runs) == 1:
        return runs[0]
    if not runs:
        return Run.of([])
    shifts = np.cumsum([0, *(run.data.size for run in runs[:-1])]).tolist()
    return Run(
        np.concatenate([run.data for run in runs]),
        np.concatenate([run.offset for run in runs]),
        np.concatenate([run.timestamp_ms for run in runs]),
        np.concatenate([run.key_first + by for run, by in zip(runs, shifts, strict=True)]),
        np.concatenate([run.key_size for run in runs]),
        np.concatenate([run.value_first + by for run, by in zip(runs, shifts, strict=True)]),
        np.concatenate([run.value_size for run in runs]),
    )


class InputCursor:
    """An input log, handed out run by run as the journal names them.

    Parameters
    ----------
    log : Log
        The log.
    start : int
        The next offset to apply.
    """

    def __init__(self, log: Log, start: int) -> None:
        self.log = log
        self._runs = log.runs(start)
        self._rest: Run | None = None

    def take(self, last: int) -> Run:
        """Return the records up to an offset."""
        parts: list[Run] = []
        while True:
            if self._rest is None:
                self._rest = next(self._runs, None)
            if self._rest is None:
                break
            count = count_below(self._rest, last + 1)
            if count:
                parts.append(self._rest[:count])
            if count < len(self._rest):
                self._rest = self._rest[count:]
                break
            self._rest = None
        return joined(parts)


class OutputCursor:
    """An outgoing log, compared record by record.

    Parameters
    ----------
    log : Log
        The log.
    is_ours : callable
        Tells records of this agent from those of another that writes there too.
    is_from_start : bool
        The replay began with the first slice, so the log's first record is the first to compare.
    """

    def __init__(self, log: Log, is_ours: Callable[[Record], bool], *, is_from_start: bool) -> None:
        self.log = log
        self._is_ours = is_ours
        self._next_offset = log.first
        self._records = self._read()
        self._is_aligned = is_from_start and log.first == 0
        self._there: set[bytes] | None = None  # what the log holds, while not aligned

    def _read(self) -> Iterator[Record]:
        for run in self.log.runs(self._next_offset):
            for record in run:
                self._next_offset = record.offset + 1
                if self._is_ours(record):
                    yield record

    def match(self, emit: Emit) -> tuple[bool, Record | None]:
        """Return whether the log goes on with this record, and what it holds instead."""
        if not self._is_aligned:
            return self._align(emit), None
        found = next(self._records, None)
        if found is None and self.log.grows_beyond(self._next_offset):
            self._records = self._read()
            found = next(self._records, None)
        if found is not None and (found.key, found.value) == (emit.key, emit.value):
            return True, None
        return False, found

    def _align(self, emit: Emit) -> bool:
        """Look for the first record to compare: those before it belong to earlier slices.

        Not finding it is no difference where retention deleted the log's beginning.
        """
        if self._there is None:
            self._there = {_digest(record.key, record.value) for record in self._read()}
            self._next_offset = self.log.first
            self._records = self._read()
        if _digest(emit.key, emit.value) not in self._there:
            return self.log.first > 0
        while not self._is_aligned:
            found = next(self._records)
            self._is_aligned = (found.key, found.value) == (emit.key, emit.value)
        self._there = None
        return True

    def left_over(self) -> Record | None:
        """Return a record beyond the last one compared, if there is one."""
        return next(self._records, None) if self._is_aligned else None


class StandingCursor:
    """A compacted outgoing log: what is there is compared, and that the last of each key is.

    The cleaner takes records that later ones of their key replaced, and in time those that say
    that nothing stands. What it leaves keeps its offset: between neighbours nothing is missing.

    Parameters
    ----------
    log : Log
        The log.
    is_from_start : bool
        The replay began with the first slice; else the log is looked through for where it began.
    """

    def __init__(self, log: Log, *, is_from_start: bool) -> None:
        self.log = log
        self._next_offset = log.first
        self._is_from_start = is_from_start
        self._records = self._read()
        self._ahead: Record | None = None
        self._last: Record | None = None  # the last one matched
        self._missing: dict[bytes, Emit] = {}  # the last of a key, if it is not in the log
        self._there: set[bytes] | None = None

    def _read(self) -> Iterator[Record]:
        for run in self.log.runs(self._next_offset):
            for record in run:
                self._next_offset = record.offset + 1
                yield record

    def _peek(self) -> Record | None:
        if self._ahead is None:
            self._ahead = next(self._records, None)
            if self._ahead is None and self.log.grows_beyond(self._next_offset):
                self._records = self._read()
                self._ahead = next(self._records, None)
        return self._ahead

    def match(self, emit: Emit) -> tuple[bool, Record | None]:
        """Return whether the log goes on with this record or may lack it, and what it holds."""
        if not self._is_from_start and self._last is None and not self._find_start(emit):
            self._missing[emit.key] = emit
            return True, None
        found = self._peek()
        if found is not None and (found.key, found.value) == (emit.key, emit.value):
            self._last, self._ahead = found, None
            self._missing.pop(emit.key, None)
            return True, None
        if found is not None and found.offset == self._next_if_none_is_missing():
            return False, found
        self._missing[emit.key] = emit
        return True, None

    def _next_if_none_is_missing(self) -> int | None:
        if self._last is not None:
            return self._last.offset + 1
        return 0 if self._is_from_start else None

    def _find_start(self, emit: Emit) -> bool:
        """Pass over records of earlier slices; those that say that nothing stands look alike."""
        if self._there is None:
            self._there = {_digest(record.key, record.value) for record in self._read()}
            self._next_offset = self.log.first
            self._records = self._read()
        if emit.value is None or _digest(emit.key, emit.value) not in self._there:
            return False
        while (found := self._peek()) is not None and found.value != emit.value:
            self._ahead = None
        return True

    def missing(self) -> Emit | None:
        """Return the last record of a key that the log should hold and does not."""
        return next((emit for emit in self._missing.values() if emit.value is not None), None)

    def left_over(self) -> Record | None:
        """Return a record beyond the last one compared, if there is one."""
        if not self._is_from_start and self._last is None:
            return None
        return self._ahead or next(self._records, None)


def _digest(key: bytes | None, value: bytes | None) -> bytes:
    parts = (key or b"", value or b"")
    return hashlib.blake2b(b"%d:%b%b" % (len(parts[0]), *parts), digest_size=16).digest()


class SliceRows(NamedTuple):
    """The rows of one slice as they lie in the table, and the fence that ends it."""

    number: int
    rows: Run
    fence: Record


class TableCursor:
    """A table's log, slice by slice.

    Parameters
    ----------
    log : Log
        The log.
    start : int
        Where the rows of the first slice to compare begin.
    """

    def __init__(self, log: Log, start: int) -> None:
        self.log = log
        self._next_offset = start
        self._runs = log.runs(start)
        self._rows: list[Run] = []
        self._fences: list[SliceRows] = []  # read ahead, the next one last

    def peek(self) -> SliceRows | None:
        """Return the next slice that still has its fence; None at the end of the log."""
        while not self._fences:
            run = next(self._runs, None)
            if run is None:
                if not self.log.grows_beyond(self._next_offset):
                    return None
                self._runs = self.log.runs(self._next_offset)
                continue
            self._next_offset = int(run.offset[-1]) + 1
            self._split(run)
        return self._fences[-1]

    def take(self) -> None:
        """Go on to the slice after the one seen."""
        self._fences.pop()

    def left_over(self) -> Record | None:
        """Return a row beyond the slices taken, if there is one."""
        while not self._fences and (run := next(self._runs, None)) is not None:
            self._split(run)
        if self._fences:
            ahead = self._fences[-1]
            return ahead.rows[0] if ahead.rows else ahead.fence
        return next((run[0] for run in self._rows), None)

    def _split(self, run: Run) -> None:
        """Take a run apart at its fences; rows of claims are left out."""
        first = run.data[np.minimum(run.key_first, run.data.size - 1)]
        is_own = (run.key_size > 0) & (first == 0)
        begin = 0
        fences: list[SliceRows] = []
        for place in np.flatnonzero(is_own).tolist():
            record = run[place]
            if record.key not in {FENCE_KEY, CLAIM_KEY}:
                continue  # the marks row
            if place > begin:
                self._rows.append(run[begin:place])
            begin = place + 1
            if record.key == FENCE_KEY:
                fences.append(SliceRows(_number_of(record), joined(self._rows), record))
                self._rows = []
        if begin < len(run):
            self._rows.append(run[begin:])
        self._fences = fences[::-1]


def _number_of(fence: Record) -> int:
    try:
        return int(orjson.loads(fence.value or b"")["slice"])
    except (KeyError, TypeError, ValueError):
        return -1  # no slice's: it differs from whichever is due
