"""Fetched blobs of record batches as a broker sends them, and the ways they can be damaged."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

__all__ = ["Blob", "a_blob", "batch", "marker", "summed"]

FIRST_MS = 1_700_000_000_000
CODECS = (0, 1, 2, 3, 4)  # none, gzip, snappy, lz4, zstd


@dataclass
class Blob:
    """Bytes, where each batch begins, and what the broker says of aborted transactions."""

    data: bytes
    starts: list[int]
    aborted: list[tuple[int, int]]
    first_offset: int
    next_offset: int


def summed(data: bytearray) -> bytes:
    """Return a batch with its checksum put right."""
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)


def batch(
    base: int,
    records: list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]],
    *,
    codec: int = 0,
    producer: int = -1,
    is_transactional: bool = False,
    is_log_time: bool = False,
    last: int | None = None,
) -> bytes:
    """Build a batch of (delta, ms, key, value, headers) with aiokafka's builder."""
    builder = DefaultRecordBatchBuilder(
        2,
        codec,
        is_transactional=is_transactional,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1 << 24,
    )
    for delta, ms, key, value, headers in records:
        assert builder.append(delta, ms, key, value, headers) is not None
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    if last is not None:
        struct.pack_into(">i", data, 23, last)
    if is_log_time:
        data[22] |= 8
    return summed(data)


def marker(base: int, producer: int, *, is_abort: bool) -> bytes:
    """Build the control batch that ends a transaction."""
    key = struct.pack(">hh", 0, 0 if is_abort else 1)
    records = [(0, FIRST_MS, key, b"\0" * 6, [])]
    data = bytearray(batch(base, records, producer=producer, is_transactional=True))
    data[22] |= 0x20
    return summed(data)


def _records(chance: random.Random, *, has_gaps: bool) -> list:
    records = []
    delta = 0
    for index in range(chance.randint(1, 40)):
        key = chance.choice([None, b"", b"k%d" % index, b"z" * 300])
        value = chance.choice([None, b"", b"v" * chance.randint(1, 400), b"x"])
        headers = [] if chance.random() < 0.8 else [("h", chance.choice([None, b"", b"abc"]))]
        records.append((delta, FIRST_MS + chance.randint(-1000, 100_000), key, value, headers))
        delta += 1 + (chance.randint(0, 3) if has_gaps else 0)
    return records


def a_blob(chance: random.Random) -> Blob:
    """Return up to twelve batches: every codec, transactions, markers, gaps, both times."""
    parts: list[bytes] = []
    starts: list[int] = []
    offset = first_offset = chance.randint(0, 1000)
    aborted: list[tuple[int, int]] = []
    open_: dict[int, tuple[int, bool]] = {}
    size = 0
    for _ in range(chance.randint(1, 12)):
        if chance.random() < 0.5 or not open_:
            is_transactional = chance.random() < 0.6
            producer = chance.randint(1, 4) if is_transactional else chance.choice([-1, 1, 2, 9])
            if is_transactional:
                open_.setdefault(producer, (offset, chance.random() < 0.5))
            has_gaps = chance.random() < 0.3
            records = _records(chance, has_gaps=has_gaps)
            last = records[-1][0] + (chance.randint(0, 5) if has_gaps else 0)
            if has_gaps and chance.random() < 0.2:
                records = []  # all compacted away
            part = batch(
                offset,
                records,
                codec=chance.choice(CODECS) if records else 0,
                producer=producer,
                is_transactional=is_transactional,
                is_log_time=chance.random() < 0.2,
                last=last,
            )
            offset += last + 1
        else:
            producer = chance.choice(list(open_))
            first, is_abort = open_.pop(producer)
            if is_abort:
                aborted.append((producer, first))
            part = marker(offset, producer, is_abort=is_abort)
            offset += 1
        starts.append(size)
        parts.append(part)
        size += len(part)
    aborted += [(producer, first) for producer, (first, is_abort) in open_.items() if is_abort]
    chance.shuffle(aborted)
    return Blob(b"".join(parts), starts, aborted, first_offset, offset)
