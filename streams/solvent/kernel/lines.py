"""Lines of a file of records, where they lie: their ends, keys, event times and partitions.

A record's key is its ``account_id``, its time ``ts_us`` (microseconds). Both are found without
parsing the record, by the spelling our encoders write: compact JSON whose first fields are the
version, the record's id and ``account_id``, and whose last is ``ts_us``. What is spelled otherwise
is left to the caller. A line found so may still break its contract in between; that is for whoever
applies it to say.
"""

from __future__ import annotations

from typing import Final

import numba
from numba import types
from numba.extending import register_jitable

from solvent.kernel.jit import jit
from solvent.kernel.layout import Int32, Int64, UInt8
from solvent.kernel.words import load64

__all__ = [
    "find_lines_jit",
    "find_lines_reference",
    "partition_jit",
    "partition_reference",
    "read_heads_jit",
    "read_heads_reference",
    "warm_up",
]

_TAB: Final = 9
_NEWLINE: Final = 10
_RETURN: Final = 13
#: A word of line breaks; of ones; of the high bits of its bytes, as a signed integer.
_NEWLINES: Final = 0x0A0A0A0A0A0A0A0A
_ONES: Final = 0x0101010101010101
_HIGH_BITS: Final = -0x7F7F7F7F7F7F7F80
_BLANK: Final = 32
_QUOTE: Final = 34
_BACKSLASH: Final = 92
_ZERO: Final = 48
_MOST_DIGITS: Final = 16
_LIMIT: Final = 2**53
_LONGEST_NAME: Final = 64
#: Kafka's murmur2: its seed, multiplier, and the bits of a 32-bit word.
_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF
_POSITIVE: Final = 0x7FFFFFFF


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _is_blank(byte: int) -> bool:
    return byte == _BLANK or _TAB <= byte <= _RETURN


def find_lines_reference(
    data: UInt8, begin: int, out_first: Int64, out_size: Int32
) -> tuple[int, int]:
    """Find lines; blanks at either side are no part of one, and the last needs no line break.

    Parameters
    ----------
    data : uint8, shape (bytes,)
        The file.
    begin : int
        Where a line begins.
    out_first, out_size : shape (n,)
        First byte and bytes of each line, 0 of an empty one; as many lines as there is room for.

    Returns
    -------
    count : int
        Lines found.
    next : int
        Where the next line begins.
    """
    count = 0
    first = begin
    at = begin
    while at <= data.size and first < data.size and count < out_first.size:
        while at + 8 <= data.size:
            # 8 bytes at once: a byte that is a line break becomes 0, and only 0 borrows
            word = load64(data, at) ^ _NEWLINES
            if (word - _ONES) & ~word & _HIGH_BITS:
                break
            at += 8
        if at == data.size or data[at] == _NEWLINE:
            last = at
            while last > first and _is_blank(data[last - 1]):
                last -= 1
            start = first
            while start < last and _is_blank(data[start]):
                start += 1
            out_first[count] = start
            out_size[count] = last - start
            count += 1
            first = at + 1
        at += 1
    return count, min(first, data.size)


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _is_at(data: UInt8, at: int, end: int, text: UInt8) -> bool:
    if at < 0 or at + text.size > end:
        return False
    for k in range(text.size):  # noqa: SIM110 - numba compiles no generators
        if data[at + k] != text[k]:
            return False
    return True


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _quote_from(data: UInt8, at: int, end: int) -> int:
    """Return the place of the quote that ends the name beginning here, or -1."""
    begin = at
    while at < end and at - begin <= _LONGEST_NAME:
        if data[at] == _QUOTE:
            return at if at > begin else -1
        if data[at] == _BACKSLASH or data[at] <= _BLANK:
            return -1
        at += 1
    return -1


def read_heads_reference(
    data: UInt8,
    first: Int64,
    size: Int32,
    count: int,
    head: UInt8,
    middle: UInt8,
    tail: UInt8,
    out_key_first: Int64,
    out_key_size: Int32,
    out_ts_us: Int64,
) -> int:
    """Find key and event time of records.

    Parameters
    ----------
    data : uint8, shape (bytes,)
        What the records lie in.
    first, size : shape (n,)
        Place and bytes of each.
    count : int
        Records.
    head, middle, tail : uint8
        What stands before the record's id, between it and the account, and before the time.
    out_key_first, out_key_size, out_ts_us
        Key and event time; a key size of -1 where the record is spelled otherwise.

    Returns
    -------
    int
        How many are spelled otherwise.
    """
    others = 0
    for k in range(count):
        out_key_size[k] = -1
        begin = int(first[k])
        end = begin + int(size[k])
        others += 1
        if not _is_at(data, begin, end, head) or data[end - 1] != 125:  # }
            continue
        at = _quote_from(data, begin + head.size, end)
        if at < 0 or not _is_at(data, at, end, middle):
            continue
        key = at + middle.size
        at = _quote_from(data, key, end)
        if at < 0:
            continue
        digit = end - 2
        ts_us = 0
        scale = 1
        while digit > at and end - 2 - digit < _MOST_DIGITS:
            value = int(data[digit]) - _ZERO
            if value < 0 or value > 9:
                break
            ts_us += value * scale
            scale *= 10
            digit -= 1
        if digit == end - 2 or (data[digit + 1] == _ZERO and digit != end - 3) or ts_us > _LIMIT:
            continue
        if not _is_at(data, digit + 1 - tail.size, end, tail) or digit + 1 - tail.size <= at:
            continue
        out_key_first[k] = key
        out_key_size[k] = at - key
        out_ts_us[k] = ts_us
        others -= 1
    return others


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _times(a: int, b: int) -> int:
    """Return the low 32 bits of a product of 32-bit words, within int64 all the way."""
    low = (a & 0xFFFF) * b
    high = ((a >> 16) * b) & 0xFFFF
    return (low + (high << 16)) & _WORD


def partition_reference(
    data: UInt8, key_first: Int64, key_size: Int32, count: int, partitions: int, out: Int32
) -> None:
    """Write the partition Kafka's own partitioner gives each key (murmur2), -1 without a key."""
    for k in range(count):
        size = int(key_size[k])
        if size < 0:
            out[k] = -1
            continue
        at = int(key_first[k])
        mixed = (_SEED ^ size) & _WORD
        for _ in range(size // 4):
            word = 0
            for byte in range(4):
                word |= int(data[at + byte]) << (8 * byte)
            at += 4
            word = _times(word, _M)
            word ^= word >> 24
            word = _times(word, _M)
            mixed = _times(mixed, _M) ^ word
        left = size % 4
        if left >= 3:
            mixed ^= int(data[at + 2]) << 16
        if left >= 2:
            mixed ^= int(data[at + 1]) << 8
        if left >= 1:
            mixed = _times(mixed ^ int(data[at]), _M)
        mixed ^= mixed >> 13
        mixed = _times(mixed, _M)
        mixed ^= mixed >> 15
        out[k] = (mixed & _POSITIVE) % partitions


find_lines_jit = jit(find_lines_reference)
read_heads_jit = jit(read_heads_reference)
partition_jit = jit(partition_reference)


def warm_up() -> None:
    """Compile the one accepted signature of each kernel here; other types raise from then on."""
    if partition_jit.signatures:
        return
    text = types.Array(types.uint8, 1, "C", readonly=True)
    wide, narrow, number = numba.int64[::1], numba.int32[::1], numba.int64
    find_lines_jit.compile((text, number, wide, narrow))
    read_heads_jit.compile((text, wide, narrow, number, text, text, text, wide, narrow, wide))
    partition_jit.compile((text, wide, narrow, number, number, narrow))
    for kernel in (find_lines_jit, read_heads_jit, partition_jit):
        kernel.disable_compile()
