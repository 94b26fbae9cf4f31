"""Alter a record where a broker keeps it: flip bytes in a log segment and mend the batch's sum.

The broker sends batches as they lie on disk, so what is changed there is what readers get. The
replacement has the length of what it replaces, and a batch packed by lz4 is packed again into as
many bytes as it had.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from itertools import product

import lz4.block
import lz4.frame
from crc32c import crc32c

from support.broker import Broker

__all__ = ["tamper"]

_HEADER = 61
_LENGTH_AT = 8
_CRC_AT = 17
_SUMMED_FROM = 21
_LAST_OFFSET_DELTA_AT = 23
_CODEC = 0b111
_LZ4 = 3
_FRAME_HEADER = bytes.fromhex("04224d18607073")  # independent blocks of up to 4 MiB
_FRAME_END = bytes(4)
_STORED = 1 << 31  # a block of a frame that is not compressed


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
    (flags,) = struct.unpack_from(">h", content, begin + _SUMMED_FROM)
    is_packed = flags & _CODEC == _LZ4
    body = bytes(content[begin + _HEADER : end])
    records = lz4.frame.decompress(body) if is_packed else body
    at = records.index(old)
    records = records[:at] + new + records[at + len(new) :]
    content[begin + _HEADER : end] = _packed(records, len(body)) if is_packed else records
    struct.pack_into(
        ">I", content, begin + _CRC_AT, crc32c(bytes(content[begin + _SUMMED_FROM : end]))
    )
    with segment.open("r+b") as file:
        file.seek(begin)
        file.write(content[begin:end])


def _packed(records: bytes, size: int) -> bytes:
    """Return an lz4 frame of so many bytes: packed too well, some of both ends stays unpacked."""
    # What is left unpacked makes it longer, nearly always.
    near = bisect_left(range(len(records)), size, key=lambda back: len(_frame(records, 0, back)))
    for front, back in product(range(64), range(max(0, near - 64), near + 64)):
        frame = _frame(records, front, back)
        if len(frame) == size:
            assert lz4.frame.decompress(frame) == records
            return frame
    msg = f"no frame of {size} bytes holds these {len(records)}"
    raise AssertionError(msg)


def _frame(records: bytes, front: int, back: int) -> bytes:
    """Return an lz4 frame with so many bytes of both ends unpacked."""
    end = len(records) - back
    middle = lz4.block.compress(
        records[front:end], mode="high_compression", compression=12, store_size=False
    )
    packed = struct.pack("<I", len(middle)) + middle
    return _FRAME_HEADER + _stored(records[:front]) + packed + _stored(records[end:]) + _FRAME_END


def _stored(part: bytes) -> bytes:
    """Return a block of a frame that is not compressed; one of nothing would end the frame."""
    return struct.pack("<I", len(part) | _STORED) + part if part else b""


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
