"""A run: consecutive records of one partition in columns over the bytes they were fetched in.

One record costs 40 bytes of positions and no Python object, so kernels can read a million records
a second. For everybody else a run is a plain sequence: indexing and iterating make light records on
the way. Offsets ascend, with gaps where markers or aborted batches lie; times are Kafka record
times in milliseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, overload

import numpy as np

from solvent.kernel.layout import Int32, Int64, UInt8

__all__ = ["InputRecord", "Record", "Run"]


class InputRecord(Protocol):
    """One record as read from Kafka (aiokafka's and kafka-python's records both fit)."""

    @property
    def offset(self) -> int:
        """Place in its partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Kafka record time, milliseconds since 1970 UTC."""
        ...

    @property
    def key(self) -> bytes | None:
        """Record key."""
        ...

    @property
    def value(self) -> bytes | None:
        """Record value; None is a tombstone."""
        ...


class Record(NamedTuple):
    """One record of a run (`InputRecord`)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Run(Sequence[Record]):
    """Records of one partition, in offset order.

    Parameters
    ----------
    data : uint8, shape (bytes,)
        What keys and values lie in.
    offset, timestamp_ms : int64, shape (n,)
        Place in the partition, and Kafka record time.
    key_first, value_first : int64, shape (n,)
        First byte in `data`.
    key_size, value_size : int32, shape (n,)
        Bytes; -1 where the key is null or the value a tombstone.
    """

    __slots__ = (
        "data",
        "key_first",
        "key_size",
        "offset",
        "timestamp_ms",
        "value_first",
        "value_size",
    )

    def __init__(
        self,
        data: UInt8,
        offset: Int64,
        timestamp_ms: Int64,
        key_first: Int64,
        key_size: Int32,
        value_first: Int64,
        value_size: Int32,
    ) -> None:
        self.data = data
        self.offset = offset
        self.timestamp_ms = timestamp_ms
        self.key_first = key_first
        self.key_size = key_size
        self.value_first = value_first
        self.value_size = value_size

    @classmethod
    def of(cls, records: Sequence[InputRecord]) -> Run:
        """Return records as a run; a run is returned as it is."""
        if isinstance(records, Run):
            return records
        texts: list[bytes | None] = []
        for record in records:
            texts += (record.key, record.value)
        sizes = np.array([-1 if text is None else len(text) for text in texts], np.int32)
        firsts = np.zeros(len(texts), np.int64)
        np.cumsum(np.maximum(sizes[:-1], 0), out=firsts[1:])
        return cls(
            np.frombuffer(b"".join(text or b"" for text in texts), np.uint8),
            np.array([record.offset for record in records], np.int64),
            np.array([record.timestamp for record in records], np.int64),
            np.ascontiguousarray(firsts[::2]),
            np.ascontiguousarray(sizes[::2]),
            np.ascontiguousarray(firsts[1::2]),
            np.ascontiguousarray(sizes[1::2]),
        )

    def __len__(self) -> int:
        return self.offset.size

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Run: ...
    def __getitem__(self, index: int | slice) -> Record | Run:
        if isinstance(index, slice):
            return Run(
                self.data,
                self.offset[index],
                self.timestamp_ms[index],
                self.key_first[index],
                self.key_size[index],
                self.value_first[index],
                self.value_size[index],
            )
        return Record(
            int(self.offset[index]),
            int(self.timestamp_ms[index]),
            self._text(int(self.key_first[index]), int(self.key_size[index])),
            self._text(int(self.value_first[index]), int(self.value_size[index])),
        )

    def __iter__(self) -> Iterator[Record]:
        for index in range(len(self)):
            yield self[index]

    def last_of(self, key: bytes) -> Record | None:
        """Return the last record of a key, None if there is none."""
        found = np.flatnonzero(self.key_size == len(key))
        for place, byte in enumerate(key):
            found = found[self.data[self.key_first[found] + place] == byte]
        return self[int(found[-1])] if found.size else None

    def with_prefix(self, prefix: bytes) -> dict[bytes, bytes | None]:
        """Return the last value of each key that begins with some bytes."""
        found = np.flatnonzero(self.key_size > len(prefix))
        for place, byte in enumerate(prefix):
            found = found[self.data[self.key_first[found] + place] == byte]
        records = (self[place] for place in found.tolist())
        return {record.key or b"": record.value for record in records}

    def _text(self, first: int, size: int) -> bytes | None:
        return None if size < 0 else self.data[first : first + size].tobytes()
