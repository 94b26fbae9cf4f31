"""Alter a record where a broker keeps it: flip bytes in a log segment and mend the batch's sum.

The broker sends batches as they lie on disk, so what is changed there is what readers get. The
replacement has the length of what it replaces, and batches must not be compressed.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

from support.broker import Broker

__all__ = ["tamper"]

_HEADER = 61
_LENGTH_AT = 8
_CRC_AT = 17
_SUMMED_FROM = 21
_LAST_OFFSET_DELTA_AT = 23


def tamper(kafka: Broker, topic: str, partition: int, offset: int, old: bytes, new: bytes) -> None:
    """Replace some bytes in the batch that holds an offset of a partition of a broker's topic.

    The offset says which: a slice given up and done again leaves the same bytes twice in the log,
    first in a batch nobody reads.
    """
    assert len(old) == len(new)
    assert old != new
    (segment,) = kafka.local.data_dir.glob(f"**/{topic}-{partition}/{0:020}.log")
    content = bytearray(segment.read_bytes())
    begin, end = _batch_of(content, offset)
    at = bytes(content).index(old, begin + _HEADER, end)
    content[at : at + len(new)] = new
    struct.pack_into(
        ">I", content, begin + _CRC_AT, crc32c(bytes(content[begin + _SUMMED_FROM : end]))
    )
    with segment.open("r+b") as file:
        file.seek(begin)
        file.write(content[begin:end])


def _batch_of(content: bytearray, offset: int) -> tuple[int, int]:
    """Where the batch with an offset begins and ends."""
    begin = 0
    while True:
        base, length = struct.unpack_from(">qi", content, begin)
        (last,) = struct.unpack_from(">i", content, begin + _LAST_OFFSET_DELTA_AT)
        end = begin + _LENGTH_AT + 4 + length
        if base <= offset <= base + last:
            return begin, end
        begin = end
