"""What the runtime knows of a shard: records in, rows and records out.

A shard is the engine's state of one partition of one agent. It is pure: no Kafka, no clock, no
randomness. The runtime feeds it runs of records (`apply`), cuts a slice (`cut`) and writes what the
slice brought in one transaction; on take-over it hands back the rows (`load`, `resume`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from solvent.engine.rows import Rows
from solvent.engine.run import InputRecord, Run
from solvent.wire.headers import NO_HEADERS

__all__ = ["Emit", "InputRecord", "Outputs", "Pending", "Shard", "ShardFacts"]


class Pending(IntEnum):
    """What a slice cut now would hold, by how much it hurts to wait."""

    #: Nothing but marks, stream time and watermarks: applying those records again changes nothing
    #: (DESIGN D3).
    MARKS = 0
    #: Rows of the shard's table, which tell nobody anything yet.
    ROWS = 1
    #: Records for others.
    NEWS = 2


class Emit(NamedTuple):
    """One outgoing record: logical topic (``liquidations.v1``), key and value.

    A value of None, in a compacted topic, says that nothing stands under its key any more. It goes
    to the shard's own partition, or to every partition of the topic if `everywhere`. `headers` is
    the block of its record headers (`solvent.wire.headers`): a function of the rest, so the rolling
    hash leaves it out.
    """

    topic: str
    key: bytes
    value: bytes | None
    everywhere: bool = False
    headers: bytes = NO_HEADERS


@dataclass(slots=True)
class Outputs:
    """What one slice brought.

    Attributes
    ----------
    rows : Rows
        Changed rows of the shard's table; a value of None deletes.
    records : list of Emit
        Events and rejects in the order they came about.
    state : dict
        JSON-able remainder of the shard's state, kept in the fence row and given back to `resume`.
    rules : dict
        Rulebook ``id``, ``version`` and ``hash`` in force at its end, for the journal.
    """

    rows: Rows = field(default_factory=lambda: Rows.of([]))
    records: list[Emit] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """What a shard can tell an operator. Counts only grow while the shard lives.

    Attributes
    ----------
    stream_us : int
        Event time reached, microseconds; 0 before the first record that carries it.
    duplicates : mapping of str to int
        Input topic -> records passed over because they were seen before.
    rejects : mapping of str to int
        Reject code -> records refused.
    accounts : int
        Accounts known.
    units : mapping of str to int
        Status -> margin units that stand in it.
    cases : int
        Liquidation cases open.
    halted_fills : int
        Fills applied in markets that were halted.
    breakers : mapping of str to int
        Circuit breaker -> markets it pauses, or 1 if it pauses all; 0 while it is not tripped.
    unjudged_us : mapping of str to int
        Feed -> event time since it last had a valid mark, 0 while it has one; feeds that never
        had a price are left out.
    tick_age_us : mapping of str to int
        Feed -> event time since its newest tick; feeds without a tick are left out.
    """

    stream_us: int = 0
    duplicates: Mapping[str, int] = field(default_factory=dict)
    rejects: Mapping[str, int] = field(default_factory=dict)
    accounts: int = 0
    units: Mapping[str, int] = field(default_factory=dict)
    cases: int = 0
    halted_fills: int = 0
    breakers: Mapping[str, int] = field(default_factory=dict)
    unjudged_us: Mapping[str, int] = field(default_factory=dict)
    tick_age_us: Mapping[str, int] = field(default_factory=dict)


class Shard(Protocol):
    """State of one partition of one agent."""

    #: input topic -> how many offsets below the fence `remember` wants to see again on take-over
    lookback: Mapping[str, int]

    @property
    def rules(self) -> Mapping[str, Any]:
        """``id``, ``version`` and ``hash`` of the rulebook in force."""
        ...

    @property
    def pending(self) -> Pending:
        """What was brought about since the last cut."""
        ...

    def apply(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Fold a run of records of one input topic (logical name), in order."""
        ...

    def cut(self) -> Outputs:
        """Return what was changed since the last cut and start a new slice."""
        ...

    def load(self, rows: Run) -> None:
        """Take rows of the table during restore, oldest first; later rows replace earlier.

        Keys that begin with a zero byte are the runtime's (fence, claim) or the shard's own.
        """
        ...

    def resume(self, positions: Mapping[str, int], state: Mapping[str, Any]) -> None:
        """Finish a restore: next offset per input topic and the `Outputs.state` of the last slice.

        An empty `state` means a partition that never committed a slice.
        """
        ...

    def remember(self, topic: str, records: Sequence[InputRecord]) -> None:
        """See input records below the fence again, only to rebuild what rows do not hold."""
        ...

    def facts(self) -> ShardFacts:
        """Return what an operator wants to know; another thread may ask while `apply` runs.

        It changes nothing, and a figure may be a record old or new.
        """
        ...
