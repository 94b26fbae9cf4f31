"""A journalled history run again: the runs of each slice applied to a shard, cut where it was cut.

The journal says which input offsets each slice applied, in which order. Applied to a fresh shard,
or to one restored to the slice before, they must bring the same rows, records and rolling hash
(DESIGN D7); `solvent.engine.verify` compares them. Offsets are places in a partition, slices count
from 1. Pure: logs are handed in, whoever reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson

from solvent.engine.journal import SliceJournal
from solvent.engine.run import Run
from solvent.engine.shard import InputRecord, Outputs, Shard
from solvent.errors import PartitionError

__all__ = [
    "JournalledSlice",
    "Log",
    "ReplayedSlice",
    "SliceReplay",
    "count_below",
    "read_slice",
]

_SCHEMA_VERSION: Final = 1


class Log(Protocol):
    """The committed records of one partition of one topic."""

    @property
    def topic(self) -> str:
        """Logical name."""
        ...

    @property
    def partition(self) -> int:
        """Partition of the topic."""
        ...

    @property
    def first(self) -> int:
        """Offset the log begins at; what was below it is deleted."""
        ...

    def runs(self, start: int) -> Iterator[Run]:
        """Yield the records from an offset to the present end, in order, no run empty."""
        ...

    def grows_beyond(self, offset: int) -> bool:
        """Whether records come at or above an offset, waiting a moment for a commit under way."""
        ...


class JournalledSlice(NamedTuple):
    """One record of the journal.

    Attributes
    ----------
    offset : int
        Of the journal record.
    number : int
        The slice's, from 1.
    runs : list of (topic, first, last)
        Input offsets in the order applied.
    counts : dict of str to int
        Input records by topic.
    hash : str
        Rolling hash after the slice, hexadecimal.
    rulebook : dict
        ``id``, ``version`` and ``hash`` of the rules in force.
    value : bytes
        The record's value as it lies in the log.
    """

    offset: int
    number: int
    runs: list[tuple[str, int, int]]
    counts: dict[str, int]
    hash: str
    rulebook: dict[str, Any]
    value: bytes


def read_slice(record: InputRecord, agent: str, partition: int) -> JournalledSlice:
    """Return what a journal record says.

    Raises
    ------
    PartitionError
        [SLV-511] It is no journal record of this agent and partition.
    """
    value = record.value or b""
    place = f"journal of {agent} partition {partition}, offset {record.offset}"
    try:
        content = orjson.loads(value)
        found = JournalledSlice(
            offset=record.offset,
            number=int(content["slice"]),
            runs=[(str(topic), int(first), int(last)) for topic, first, last in content["runs"]],
            counts=dict(content["counts"]),
            hash=str(content["hash"]),
            rulebook=dict(content["rulebook"]),
            value=value,
        )
        written = content["schema_version"], content["agent"], content["partition"]
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{place}: no journal record ({type(error).__name__}: {error})"
        raise PartitionError(msg, code="SLV-511") from None
    if written != (_SCHEMA_VERSION, agent, partition):
        msg = f"{place}: version {written[0]} of {written[1]} partition {written[2]}"
        raise PartitionError(msg, code="SLV-511")
    return found


class ReplayedSlice(NamedTuple):
    """What a slice brought again, and the records that close it."""

    outputs: Outputs
    journal_value: bytes
    fence_value: bytes
    hash: str


class SliceReplay:
    """A shard and its journal, fed slice by slice.

    Parameters
    ----------
    shard : Shard
        Fresh, or restored to where `journal` stands.
    journal : SliceJournal
        Advances with every slice.
    """

    def __init__(self, shard: Shard, journal: SliceJournal) -> None:
        self.shard = shard
        self.journal = journal

    def apply(self, runs: Iterable[tuple[str, Sequence[InputRecord]]]) -> ReplayedSlice:
        """Apply the runs of one slice, each of at least one record, and cut."""
        for topic, records in runs:
            self.shard.apply(topic, records)
            first, last = records[0].offset, records[-1].offset
            self.journal.take(topic, first, last, len(records))
        outputs = self.shard.cut()
        closing = self.journal.close(outputs)
        return ReplayedSlice(
            outputs, closing.journal_value, closing.fence_value, self.journal.rolling_hash.hex()
        )


def count_below(run: Run, offset: int) -> int:
    """Return how many records of a run lie below an offset."""
    return int(run.offset.searchsorted(offset))
