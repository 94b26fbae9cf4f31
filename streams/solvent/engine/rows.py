"""Rows that go out in one slice: keys and values behind each other in one buffer.

A slice of a busy partition changes thousands of rows. They are packed, hashed for the journal and
put into record batches by kernels, so no row becomes a Python object on the way; for everybody else
this is a plain sequence of ``(key, value)``, where a value of None deletes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from solvent.kernel.layout import Int32, UInt8

__all__ = ["Rows"]

_Pair = tuple[bytes, bytes | None]


class Rows(Sequence[_Pair]):
    """Keys and values of changed rows, in order.

    Parameters
    ----------
    data : uint8, shape (bytes,)
        Key, value, key, value, and so on.
    key_size, value_size : int32, shape (n,)
        Bytes; a `value_size` of -1 deletes the row.
    """

    __slots__ = ("_ends", "data", "key_size", "value_size")

    def __init__(self, data: UInt8, key_size: Int32, value_size: Int32) -> None:
        self.data = data
        self.key_size = key_size
        self.value_size = value_size
        self._ends = np.cumsum(key_size + np.maximum(value_size, 0), dtype=np.int64)

    @classmethod
    def of(cls, pairs: Iterable[_Pair]) -> Rows:
        """Pack ordinary pairs."""
        listed = list(pairs)
        return cls(
            np.frombuffer(b"".join([part or b"" for pair in listed for part in pair]), np.uint8),
            np.array([len(key) for key, _ in listed], np.int32),
            np.array([-1 if value is None else len(value) for _, value in listed], np.int32),
        )

    def joined(self, more: Rows) -> Rows:
        """Return these rows and then some more."""
        if not len(self):
            return more
        return Rows(
            np.concatenate([self.data, more.data]),
            np.concatenate([self.key_size, more.key_size]),
            np.concatenate([self.value_size, more.value_size]),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rows):
            return NotImplemented
        return bool(
            np.array_equal(self.key_size, other.key_size)
            and np.array_equal(self.value_size, other.value_size)
            and np.array_equal(self.data, other.data)
        )

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return self.key_size.size

    @overload
    def __getitem__(self, index: int) -> _Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[_Pair]: ...
    def __getitem__(self, index: int | slice) -> _Pair | list[_Pair]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        end = int(self._ends[index])
        size = int(self.value_size[index])
        middle = end - max(size, 0)
        key = self.data[middle - int(self.key_size[index]) : middle].tobytes()
        return key, None if size < 0 else self.data[middle:end].tobytes()

    def __iter__(self) -> Iterator[_Pair]:
        for index in range(len(self)):
            yield self[index]
