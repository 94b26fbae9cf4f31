"""Kafka record batches, format version 2: bytes to columns and rows to bytes, no object a record.

A fetched blob is read in three steps: `find_batches` walks the batch headers into a table,
`hide_batches` tells what an application may see of them, `read_records` reads the records of the
rest into columns. The caller checks sums and unpacks compressed batches in between. Whatever these
kernels do not expect is answered with `ODD`; a complete reader must then look. `put_rows` writes
rows into a new batch, whose header `seal_batch` fills in. Offsets count records, times are
milliseconds since 1970 UTC. CRC-32C comes from the `crc32c` library: 30 GB/s, 0.2 us a call.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from numba import types
from numba.extending import register_jitable

from solvent.kernel.jit import jit
from solvent.kernel.layout import Int32, Int64, UInt8
from solvent.kernel.words import copy_bytes

__all__ = [
    "BATCH_BASE",
    "BATCH_BEGIN",
    "BATCH_CODEC",
    "BATCH_COUNT",
    "BATCH_CRC",
    "BATCH_END",
    "BATCH_SLOTS",
    "BATCH_START",
    "DISORDER",
    "FULL",
    "GOOD",
    "HEADER_BYTES",
    "ODD",
    "ROW_OVERHEAD",
    "SMALLEST_RECORD",
    "find_batches_jit",
    "find_batches_reference",
    "hide_batches_jit",
    "hide_batches_reference",
    "put_rows_jit",
    "put_rows_reference",
    "read_records_jit",
    "read_records_reference",
    "seal_batch",
    "set_producer",
    "warm_up",
]

# -- columns of the table of batches
BATCH_BASE: Final = 0  # offset of the first record
BATCH_LAST: Final = 1  # offset of the last, also where compaction took it away
BATCH_START: Final = 2  # place of the header
BATCH_BEGIN: Final = 3  # of the records
BATCH_END: Final = 4  # behind them
BATCH_COUNT: Final = 5  # records
BATCH_FIRST_MS: Final = 6
BATCH_MAX_MS: Final = 7
BATCH_FLAGS: Final = 8  # without the codec
BATCH_CODEC: Final = 9  # 0: not compressed
BATCH_PRODUCER: Final = 10  # -1: none
BATCH_CRC: Final = 11
BATCH_SLOTS: Final = 12

# -- answers
GOOD: Final = 0
FULL: Final = 1  # more batches than the table has rows
ODD: Final = 2  # not what a broker sends: another format version, damage, a marker of another kind
DISORDER: Final = 3  # offsets go back

HEADER_BYTES: Final = 61
#: A record's bytes beside key and value, at most, as written here.
ROW_OVERHEAD: Final = 22
#: No record is shorter.
SMALLEST_RECORD: Final = 7

_LENGTH_AT: Final = 8
_MAGIC_AT: Final = 16
_CRC_AT: Final = 17
_FLAGS_AT: Final = 21
_PRODUCER_AT: Final = 43
_AFTER_LENGTH: Final = 12

_CODEC_MASK: Final = 7
_LOG_APPEND_TIME: Final = 8
_TRANSACTIONAL: Final = 16
_CONTROL: Final = 32
_ABORT: Final = 0

#: Offsets, times and deltas beyond this could overflow when added.
_LIMIT: Final = 2**60

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_PRODUCER: Final = struct.Struct(">qhi")
_CRC: Final = struct.Struct(">I")


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _big_endian(data: UInt8, at: int, size: int) -> int:
    """Return the signed integer in `size` bytes."""
    value = np.int64(data[at])
    if value >= 128:
        value -= 256
    for k in range(1, size):
        value = value * 256 + np.int64(data[at + k])
    return int(value)


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _varint(data: UInt8, at: int, end: int) -> tuple[int, int]:
    """Return (value, place after it) of a zigzag varint; the place is -1 where there is none.

    One of ten bytes, beyond 2**62, is none for us.
    """
    value = np.int64(0)
    shift = np.int64(0)
    while at < end and shift < 63:
        byte = np.int64(data[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return int((value >> 1) ^ -(value & 1)), at
        shift += 7
    return 0, -1


def find_batches_reference(data: UInt8, out: Int64) -> tuple[int, int]:
    """Write one row per whole batch of a blob; a last one that was cut off is left out.

    Parameters
    ----------
    data : uint8, shape (bytes,)
        The blob.
    out : int64, shape (rows, BATCH_SLOTS)
        Table of batches.

    Returns
    -------
    count : int
        Batches found.
    answer : int
        `GOOD`, or why the next batch was not taken: `FULL`, `ODD`, `DISORDER`.
    """
    count = 0
    at = 0
    size = data.size
    while size - at >= _AFTER_LENGTH:
        length = _big_endian(data, at + _LENGTH_AT, 4)
        end = at + _AFTER_LENGTH + length
        if length >= 0 and end > size:
            break
        if length < HEADER_BYTES - _AFTER_LENGTH or data[at + _MAGIC_AT] != 2:
            return count, ODD
        if count == len(out):
            return count, FULL
        batch = out[count]
        flags = _big_endian(data, at + _FLAGS_AT, 2)
        last_delta = _big_endian(data, at + 23, 4)
        base = _big_endian(data, at, 8)
        if base < 0 or base > _LIMIT or last_delta < 0:
            return count, ODD
        batch[BATCH_BASE] = base
        batch[BATCH_LAST] = base + last_delta
        batch[BATCH_START] = at
        batch[BATCH_BEGIN] = at + HEADER_BYTES
        batch[BATCH_END] = end
        batch[BATCH_COUNT] = _big_endian(data, at + 57, 4)
        batch[BATCH_FIRST_MS] = _big_endian(data, at + 27, 8)
        batch[BATCH_MAX_MS] = _big_endian(data, at + 35, 8)
        batch[BATCH_FLAGS] = flags & ~_CODEC_MASK
        batch[BATCH_CODEC] = flags & _CODEC_MASK
        batch[BATCH_PRODUCER] = _big_endian(data, at + _PRODUCER_AT, 8)
        batch[BATCH_CRC] = _big_endian(data, at + _CRC_AT, 4) & 0xFFFFFFFF
        if batch[BATCH_COUNT] < 0:
            return count, ODD
        # Base offset and length lie outside the checksum: an order that goes back is damage.
        if count > 0 and base <= out[count - 1, BATCH_LAST]:
            return count, DISORDER
        count += 1
        at = end
    return count, GOOD


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _marker(data: UInt8, at: int, end: int) -> int:
    """Return the type in a control batch's first record, -1 if it cannot be read.

    The record's key is its version and the type, 16 bits each; versions other than 0 are odd.
    """
    _, at = _varint(data, at, end)  # length
    if at < 0:
        return -1
    at += 1  # attributes
    _, at = _varint(data, at, end)  # time
    if at < 0:
        return -1
    _, at = _varint(data, at, end)  # offset
    if at < 0:
        return -1
    size, at = _varint(data, at, end)
    if at < 0 or size < 4 or size > end - at:
        return -1
    if _big_endian(data, at, 2) != 0:
        return -1
    kind: int = _big_endian(data, at + 2, 2)
    return kind


def hide_batches_reference(
    data: UInt8,
    batches: Int64,
    is_committed: bool,
    aborted_producer: Int64,
    aborted_first: Int64,
    scratch: Int64,
    out_visible: UInt8,
) -> int:
    """Write which batches an application may see: no markers, and no aborted ones if so asked.

    Parameters
    ----------
    data : uint8, shape (bytes,)
        The blob.
    batches : int64, shape (n, BATCH_SLOTS)
        What `find_batches` found.
    is_committed : bool
        Hide records of aborted transactions.
    aborted_producer, aborted_first : int64, shape (aborted,)
        Producer and first offset of the blob's aborted transactions, ascending by offset.
    scratch : int64, shape (at least aborted,)
        Overwritten.
    out_visible : uint8, shape (n,)
        1 for what may be seen.

    Returns
    -------
    answer : int
        `GOOD`, or `ODD` for a marker that cannot be read.
    """
    next_aborted = 0
    active = 0  # producers in `scratch` whose transaction is known to be aborted
    for row in range(len(batches)):
        batch = batches[row]
        flags = batch[BATCH_FLAGS]
        producer = batch[BATCH_PRODUCER]
        is_visible = (flags & _CONTROL) == 0
        if is_committed:
            while (
                next_aborted < aborted_first.size
                and aborted_first[next_aborted] <= batch[BATCH_BASE]
            ):
                scratch[active] = aborted_producer[next_aborted]
                active += 1
                next_aborted += 1
            if not is_visible:
                kind = _marker(data, batch[BATCH_BEGIN], batch[BATCH_END])
                if kind < 0:
                    return ODD
                if kind == _ABORT:
                    kept = 0
                    for k in range(active):
                        if scratch[k] != producer:
                            scratch[kept] = scratch[k]
                            kept += 1
                    active = kept
            elif flags & _TRANSACTIONAL:
                for k in range(active):
                    if scratch[k] == producer:
                        is_visible = False
        out_visible[row] = is_visible
    return GOOD


def read_records_reference(
    data: UInt8,
    batches: Int64,
    visible: UInt8,
    position: int,
    out_offset: Int64,
    out_time: Int64,
    out_key_first: Int64,
    out_key_size: Int32,
    out_value_first: Int64,
    out_value_size: Int32,
) -> tuple[int, int, int]:
    """Write the records of the visible batches from a position on.

    Parameters
    ----------
    data : uint8, shape (bytes,)
        Where `BATCH_BEGIN` and `BATCH_END` point; nothing in it is compressed.
    batches : int64, shape (n, BATCH_SLOTS)
        Table of batches.
    visible : uint8, shape (n,)
        0: pass over the batch.
    position : int
        Offset wanted first; a batch may begin below it.
    out_offset, out_time, out_key_first, out_key_size, out_value_first, out_value_size
        Columns of `solvent.engine.run.Run`, with room for the sum of `BATCH_COUNT`.

    Returns
    -------
    count : int
        Records written.
    position : int
        The next one: behind the last batch, seen or not.
    answer : int
        `GOOD`, or `ODD`: a record is not what it should be, and nothing here may be used.
    """
    row = 0
    for k in range(len(batches)):
        batch = batches[k]
        base = batch[BATCH_BASE]
        last = batch[BATCH_LAST]
        if visible[k]:
            at = batch[BATCH_BEGIN]
            end = batch[BATCH_END]
            is_log_time = (batch[BATCH_FLAGS] & _LOG_APPEND_TIME) != 0
            begin_ms = batch[BATCH_MAX_MS] if is_log_time else batch[BATCH_FIRST_MS]
            if begin_ms > _LIMIT or begin_ms < -_LIMIT:
                return row, position, ODD
            previous = -1
            for _ in range(batch[BATCH_COUNT]):
                size, at = _varint(data, at, end)
                if at < 0 or size < 1 or size > end - at or data[at] >= 128:
                    return row, position, ODD
                stop = at + size
                delta_ms, at = _varint(data, at + 1, stop)
                if at < 0 or delta_ms > _LIMIT or delta_ms < -_LIMIT:
                    return row, position, ODD
                delta, at = _varint(data, at, stop)
                if at < 0:
                    return row, position, ODD
                key_size, at = _varint(data, at, stop)
                if at < 0 or key_size < -1 or key_size > stop - at:
                    return row, position, ODD
                key_first = at
                at += max(key_size, 0)
                value_size, at = _varint(data, at, stop)
                if at < 0 or value_size < -1 or value_size > stop - at:
                    return row, position, ODD
                value_first = at
                at += max(value_size, 0)
                headers, at = _varint(data, at, stop)
                if at < 0 or headers < 0:
                    return row, position, ODD
                for _ in range(headers):
                    name_size, at = _varint(data, at, stop)
                    if at < 0 or name_size < 0 or name_size > stop - at:
                        return row, position, ODD
                    text_size, at = _varint(data, at + name_size, stop)
                    if at < 0 or text_size < -1 or text_size > stop - at:
                        return row, position, ODD
                    at += max(text_size, 0)
                offset = base + delta
                if at != stop or delta <= previous or offset > last:
                    return row, position, ODD
                previous = delta
                if offset >= position:
                    out_offset[row] = offset
                    out_time[row] = begin_ms if is_log_time else begin_ms + delta_ms
                    out_key_first[row] = key_first
                    out_key_size[row] = key_size
                    out_value_first[row] = value_first
                    out_value_size[row] = value_size
                    row += 1
                    position = offset + 1
            if at != end:
                return row, position, ODD
        position = max(position, last + 1)
    return row, position, GOOD


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _put_varint(out: UInt8, at: int, value: int) -> int:
    """Write a zigzag varint of a value of -1 or more; return the place after it."""
    rest = value * 2 if value >= 0 else 1
    while rest >= 128:
        out[at] = (rest & 127) | 128
        rest >>= 7
        at += 1
    out[at] = rest
    return at + 1


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _varint_bytes(value: int) -> int:
    """Return how many bytes `_put_varint` takes."""
    rest = value * 2 if value >= 0 else 1
    size = 1
    while rest >= 128:
        rest >>= 7
        size += 1
    return size


def put_rows_reference(
    data: UInt8,
    key_size: Int32,
    value_size: Int32,
    row: int,
    data_at: int,
    limit: int,
    out: UInt8,
    at: int,
    count: int,
) -> tuple[int, int, int, int]:
    """Write rows as records, from one row on and as many as a batch has room for.

    Parameters
    ----------
    data, key_size, value_size
        Columns of `solvent.engine.rows.Rows`.
    row, data_at : int
        The first row to write and its place in `data`.
    limit : int
        Bytes of the batch, at most; `out` has as many, or `ROW_OVERHEAD` a row beside its data.
    out : uint8, shape (bytes,)
        The batch.
    at : int
        Where to go on in it, `HEADER_BYTES` at first.
    count : int
        Records that are in it already.

    Returns
    -------
    row, data_at : int
        The first row not written and its place.
    at, count : int
        The batch's bytes and records so far.
    """
    for k in range(row, key_size.size):
        key = int(key_size[k])
        value = int(value_size[k])
        value_bytes = max(value, 0)
        size = (
            3  # attributes, time and headers, all zero
            + _varint_bytes(count)
            + _varint_bytes(key)
            + key
            + _varint_bytes(value)
            + value_bytes
        )
        if at + _varint_bytes(size) + size > limit:
            return k, data_at, at, count
        at = _put_varint(out, at, size)
        out[at] = 0
        out[at + 1] = 0
        at = _put_varint(out, at + 2, count)
        at = _put_varint(out, at, key)
        copy_bytes(data, data_at, key, out, at)
        at += key
        data_at += key
        at = _put_varint(out, at, value)
        copy_bytes(data, data_at, value_bytes, out, at)
        at += value_bytes
        data_at += value_bytes
        out[at] = 0
        at += 1
        count += 1
    return key_size.size, data_at, at, count


find_batches_jit = jit(find_batches_reference)
hide_batches_jit = jit(hide_batches_reference)
read_records_jit = jit(read_records_reference)
put_rows_jit = jit(put_rows_reference)


def seal_batch(
    batch: bytearray, count: int, now_ms: int, *, is_transactional: bool, codec: int = 0
) -> None:
    """Write the header of a batch; producer and checksum are `set_producer`'s.

    Its records are packed already, by the codec of this number, or not at all.
    """
    _HEADER.pack_into(
        batch,
        0,
        0,  # base offset: the broker's
        len(batch) - _AFTER_LENGTH,
        -1,  # leader epoch: the broker's
        2,
        0,
        codec | (_TRANSACTIONAL if is_transactional else 0),
        count - 1,
        now_ms,
        now_ms,
        -1,
        -1,
        -1,
        count,
    )


def set_producer(batch: bytearray, producer: int, epoch: int, sequence: int) -> None:
    """Write who sends a sealed batch, and the checksum, which covers that."""
    _PRODUCER.pack_into(batch, _PRODUCER_AT, producer, epoch, sequence)
    with memoryview(batch) as whole:
        _CRC.pack_into(batch, _CRC_AT, crc32c(whole[_FLAGS_AT:]))


def warm_up() -> None:
    """Compile the one accepted signature of each kernel."""
    if find_batches_jit.signatures:
        return
    # Fetched bytes are read-only; numba takes writable ones for them too.
    text: Any = types.Array(types.uint8, 1, "C", readonly=True)
    out: Any = types.uint8[::1]
    wide: Any = types.int64[::1]
    narrow: Any = types.int32[::1]
    table: Any = types.int64[:, ::1]
    number = types.int64
    _compile(find_batches_jit, types.UniTuple(number, 2)(text, table))
    _compile(hide_batches_jit, number(text, table, types.boolean, wide, wide, wide, out))
    _compile(
        read_records_jit,
        types.UniTuple(number, 3)(text, table, out, number, wide, wide, wide, narrow, wide, narrow),
    )
    _compile(
        put_rows_jit,
        types.UniTuple(number, 4)(
            text, narrow, narrow, number, number, number, out, number, number
        ),
    )


def _compile(kernel: Any, signature: Any) -> None:  # noqa: ANN401 - numba is untyped
    kernel.compile(signature)
    kernel.disable_compile()
