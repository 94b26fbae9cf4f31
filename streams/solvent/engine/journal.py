"""The journal of one shard: what was read in which order, and a rolling hash of what it brought.

Each slice leaves one journal record (runs of input offsets in the order applied) and one fence row
(next offset of each input). The hash covers every row and record of every slice since the first, so
equal hashes mean equal histories: a replay that applies the same runs and cuts at the same places
must reproduce it (DESIGN D7). The live runtime and replay both build it here.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from solvent.engine.shard import Outputs
from solvent.errors import PartitionError

__all__ = ["CLAIM_KEY", "FENCE_KEY", "SliceJournal", "SliceRecords"]

#: Table row that carries positions and the small state of a shard; the authority on positions.
FENCE_KEY: Final = b"\0fence"
#: Table row that proves ownership on take-over and marks the end of the log to restore.
CLAIM_KEY: Final = b"\0claim"

_HASH_BYTES: Final = 16
#: Pieces that are hashed at once: few calls, yet no copy of all that a mass event brought.
_JOINED: Final = 128
_SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class SliceRecords:
    """The two records that close a slice."""

    journal_key: bytes
    journal_value: bytes
    fence_value: bytes


@dataclass(slots=True)
class SliceJournal:
    """Positions, slice number and rolling hash of one shard.

    Attributes
    ----------
    agent : str
        ``margin`` or ``prices``.
    partition : int
        The shard's partition.
    positions : dict of str to int
        Next offset to read, by logical input topic.
    slice_number : int
        Slices closed so far.
    rolling_hash : bytes
        16 bytes of BLAKE2b; zeros before the first slice.
    """

    agent: str
    partition: int
    positions: dict[str, int] = field(default_factory=dict)
    slice_number: int = 0
    rolling_hash: bytes = b"\0" * _HASH_BYTES
    _runs: list[tuple[str, int, int]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_fence(
        cls, agent: str, partition: int, fence: bytes | None
    ) -> tuple[SliceJournal, dict[str, Any]]:
        """Rebuild journal and shard state from the last committed fence row.

        Returns
        -------
        journal : SliceJournal
            At the committed positions; empty if no slice was ever committed.
        state : dict
            What `Outputs.state` held; empty if no slice was ever committed.

        Raises
        ------
        PartitionError
            [SLV-500] The row is of a version this program does not know.
        """
        if fence is None:
            return cls(agent, partition), {}
        row = orjson.loads(fence)
        if row.get("schema_version") != _SCHEMA_VERSION:
            message = (
                f"{agent} partition {partition}: fence row of version "
                f"{row.get('schema_version')}, this program reads {_SCHEMA_VERSION}"
            )
            raise PartitionError(message)
        journal = cls(
            agent,
            partition,
            positions=dict(row["positions"]),
            slice_number=row["slice"],
            rolling_hash=bytes.fromhex(row["hash"]),
        )
        return journal, row["state"]

    @property
    def has_open_slice(self) -> bool:
        """Whether records were taken since the last `close`."""
        return bool(self._runs)

    @property
    def open_count(self) -> int:
        """How many records were taken since the last `close`."""
        return sum(self._counts.values())

    @property
    def open_runs(self) -> int:
        """How many runs that makes; they all go into one journal record."""
        return len(self._runs)

    def take(self, topic: str, first: int, last: int, count: int) -> None:
        """Note that `count` records with offsets `first` to `last` were applied."""
        if self._runs and self._runs[-1][0] == topic:
            first = self._runs[-1][1]
            self._runs[-1] = (topic, first, last)
        else:
            self._runs.append((topic, first, last))
        self._counts[topic] = self._counts.get(topic, 0) + count
        self.positions[topic] = last + 1

    def close(self, outputs: Outputs) -> SliceRecords:
        """Close the slice: advance number and hash, and return its journal and fence records."""
        self.slice_number += 1
        self.rolling_hash = _chain(self.rolling_hash, outputs)
        head = {
            "schema_version": _SCHEMA_VERSION,
            "agent": self.agent,
            "partition": self.partition,
            "slice": self.slice_number,
            "runs": self._runs,
            "counts": self._counts,
            "rulebook": outputs.rules,
            "hash": self.rolling_hash.hex(),
        }
        fence = {
            "schema_version": _SCHEMA_VERSION,
            "positions": self.positions,
            "slice": self.slice_number,
            "hash": self.rolling_hash.hex(),
            "state": outputs.state,
        }
        records = SliceRecords(
            journal_key=f"{self.agent}-{self.partition}".encode(),
            journal_value=orjson.dumps(head),
            fence_value=orjson.dumps(fence),
        )
        self._runs = []
        self._counts = {}
        return records


def _chain(previous: bytes, outputs: Outputs) -> bytes:
    """Return the hash of the previous hash and all that a slice brought, lengths included."""
    rows = outputs.rows
    sizes = np.empty(2 * len(rows), np.uint32)
    sizes[::2] = rows.key_size
    sizes[1::2] = np.maximum(rows.value_size, 0)
    parts: list[bytes] = []
    for topic, key, value, *_ in outputs.records:
        parts += (topic.encode(), key, value or b"")
    lengths = (array("I", [len(previous)]), sizes, array("I", map(len, parts)))
    digest = hashlib.blake2b(b"".join(each.tobytes() for each in lengths), digest_size=_HASH_BYTES)
    digest.update(previous)
    digest.update(rows.data.data)
    for first in range(0, len(parts), _JOINED):
        digest.update(b"".join(parts[first : first + _JOINED]))
    return digest.digest()
