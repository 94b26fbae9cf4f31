"""Tables of byte strings: an account, market or event id to its index, without objects.

Names are kept behind each other in one buffer and found by a hash table with linear probing; an
index is the order of arrival and never changes, and nothing is ever taken out. A name may be given
in two parts, which are joined by a colon (no identifier contains one). Whoever adds names makes
room for them first (`longer_names`): kernels do not allocate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import register_jitable

from solvent.kernel.jit import jit
from solvent.kernel.layout import NONE, Int32, Int64, UInt8
from solvent.kernel.words import load64, mix, prefetch

__all__ = [
    "NO_PART",
    "NameTable",
    "add_name",
    "count_names",
    "find_name",
    "hash_name",
    "index_of",
    "longer_names",
    "name_at",
    "name_table",
    "names_at",
    "prefetch_place",
    "prefetch_slot",
    "prefetch_text",
    "put_name",
    "same_bytes",
    "table_of",
    "warm_up",
]

#: Size of a second part that is not there.
NO_PART: Final = -1

_COLON: Final = 58
_SEED: Final = 0x243F6A8885A308D3  # pi
_HASH_MASK: Final = 0x7FFFFFFF  # a hash beside an index fits one slot
_INDEX_MASK: Final = 0xFFFFFFFF

_WORD: Final = 8  # bytes

_NAMES: Final = 0
_BYTES: Final = 1


class NameTable(NamedTuple):
    """Names by index.

    ``text`` uint8, the names behind each other; ``first`` int64, shape (capacity + 1,), where each
    begins, and where the last ends; ``slots`` int64, a power of two of them, at least twice the
    capacity, each ``hash << 32 | index + 1`` or 0; ``used`` int64, shape (2,): names, bytes.
    """

    text: UInt8
    first: Int64
    slots: Int64
    used: Int64


def name_table(capacity: int = 64, text_bytes: int = 1024) -> NameTable:
    """Return an empty table with room for so many names and bytes."""
    slots = 4
    while slots < 2 * capacity:
        slots *= 2
    return NameTable(
        text=np.zeros(text_bytes, np.uint8),
        first=np.zeros(capacity + 1, np.int64),
        slots=np.zeros(slots, np.int64),
        used=np.zeros(2, np.int64),
    )


def table_of(names: Iterable[str]) -> NameTable:
    """Return a table of some names, each at its place in the order given."""
    table = name_table()
    for name in names:
        table = put_name(table, name.encode())
    return table


def index_of(table: NameTable, name: bytes) -> int:
    """Return the index of a name, or `NONE`."""
    index: int = _index_of_jit(table, np.frombuffer(name, np.uint8))
    return index


def put_name(table: NameTable, name: bytes) -> NameTable:
    """Add a name that is not in the table; return the table, or the larger copy it became."""
    table = longer_names(table, 1, len(name))
    _put_jit(table, np.frombuffer(name, np.uint8))
    return table


def count_names(table: NameTable) -> int:
    """Return how many names there are."""
    return int(table.used[_NAMES])


def name_at(table: NameTable, index: int) -> bytes:
    """Return a name.

    Raises
    ------
    IndexError
        There is no such index.
    """
    if not 0 <= index < table.used[_NAMES]:
        msg = f"name {index} of {table.used[_NAMES]}"
        raise IndexError(msg)
    return table.text[table.first[index] : table.first[index + 1]].tobytes()


def names_at(table: NameTable, indices: Sequence[int] | Int32) -> list[bytes]:
    """Return the names of indices that are known to be there; of many, six times as fast."""
    at = np.asarray(indices, np.int64)
    first, end = table.first[at].tolist(), table.first[at + 1].tolist()
    text = table.text.data
    return [text[a:b].tobytes() for a, b in zip(first, end, strict=True)]


def longer_names(table: NameTable, more_names: int, more_bytes: int) -> NameTable:
    """Return the table, or a larger copy of it, with room for so much more."""
    names, used = int(table.used[_NAMES]), int(table.used[_BYTES])
    if names + more_names < table.first.size and used + more_bytes <= table.text.size:
        return table
    capacity, size = table.first.size - 1, table.text.size
    while capacity < names + more_names:
        capacity *= 2
    while size < used + more_bytes:
        size *= 2
    larger = name_table(capacity, size)
    larger.text[:used] = table.text[:used]
    larger.first[: names + 1] = table.first[: names + 1]
    larger.used[:] = table.used
    if larger.slots.size == table.slots.size:
        larger.slots[:] = table.slots
    else:
        _rehash_jit(table.slots, larger.slots)
    return larger


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def same_bytes(left: UInt8, left_first: int, right: UInt8, right_first: int, size: int) -> bool:
    """Return whether two stretches of bytes are equal."""
    if size < _WORD:
        k = 0
        while k < size and left[left_first + k] == right[right_first + k]:
            k += 1
        return k == size
    k = 0
    last = size - _WORD
    while k < last and load64(left, left_first + k) == load64(right, right_first + k):
        k += _WORD
    return k >= last and load64(left, left_first + last) == load64(right, right_first + last)


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _mix_bytes(state: int, text: UInt8, first: int, size: int) -> int:
    """Return the hash state with a stretch of bytes in it; the last word may overlap."""
    if size < _WORD:
        word = size
        for k in range(first, first + size):
            word = word * 256 + int(text[k])
        return mix(state, word)
    for k in range(0, size - _WORD, _WORD):
        state = mix(state, load64(text, first + k))
    return mix(mix(state, size), load64(text, first + size - _WORD))


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def hash_name(text: UInt8, first: int, size: int, second: int, second_size: int) -> int:
    """Return the hash of a name of one part (`NO_PART`) or two."""
    state = _mix_bytes(_SEED, text, first, size)
    if second_size != NO_PART:
        state = _mix_bytes(state, text, second, second_size)
    return int(state & _HASH_MASK)


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _is_name(
    table: NameTable,
    index: int,
    whole: int,
    text: UInt8,
    first: int,
    size: int,
    second: int,
    second_size: int,
) -> bool:
    begin = int(table.first[index])
    if int(table.first[index + 1]) - begin != whole:
        return False
    if not same_bytes(table.text, begin, text, first, size):
        return False
    if second_size == NO_PART:
        return True
    at = begin + size
    return bool(
        table.text[at] == _COLON and same_bytes(table.text, at + 1, text, second, second_size)
    )


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def find_name(
    table: NameTable, hashed: int, text: UInt8, first: int, size: int, second: int, second_size: int
) -> int:
    """Return the index of a name of that hash, or `NONE`."""
    mask = table.slots.size - 1
    at = hashed & mask
    whole = size if second_size == NO_PART else size + 1 + second_size
    found = NONE
    while found == NONE:
        slot = int(table.slots[at])
        if slot == 0:
            break
        index = (slot & _INDEX_MASK) - 1
        if slot >> 32 == hashed and _is_name(
            table, index, whole, text, first, size, second, second_size
        ):
            found = index
        at = (at + 1) & mask
    return found


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def prefetch_slot(table: NameTable, hashed: int) -> None:
    """Ask for where the search for a name of that hash begins."""
    prefetch(table.slots, hashed & (table.slots.size - 1))


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def prefetch_place(table: NameTable, hashed: int) -> None:
    """Ask for where the first name found there begins; its slot was asked for."""
    slot = int(table.slots[hashed & (table.slots.size - 1)])
    if slot != 0:
        prefetch(table.first, (slot & _INDEX_MASK) - 1)


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def prefetch_text(table: NameTable, hashed: int) -> None:
    """Ask for the text of that name; its place was asked for."""
    slot = int(table.slots[hashed & (table.slots.size - 1)])
    if slot != 0:
        prefetch(table.text, int(table.first[(slot & _INDEX_MASK) - 1]))


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def add_name(
    table: NameTable, hashed: int, text: UInt8, first: int, size: int, second: int, second_size: int
) -> int:
    """Add a name that is not in the table, which has room, and return its index."""
    index = int(table.used[_NAMES])
    at = int(table.used[_BYTES])
    for k in range(size):
        table.text[at + k] = text[first + k]
    at += size
    if second_size != NO_PART:
        table.text[at] = _COLON
        at += 1
        for k in range(second_size):
            table.text[at + k] = text[second + k]
        at += second_size
    table.used[_NAMES] = index + 1
    table.used[_BYTES] = at
    table.first[index + 1] = at
    mask = table.slots.size - 1
    place = hashed & mask
    while table.slots[place] != 0:
        place = (place + 1) & mask
    table.slots[place] = (hashed << 32) | (index + 1)
    return index


def _rehash(slots: Int64, out_slots: Int64) -> None:
    """Put every slot of a table into a larger one; each holds its hash, so no name is read."""
    mask = out_slots.size - 1
    for k in range(slots.size):
        slot = int(slots[k])
        if slot != 0:
            place = (slot >> 32) & mask
            while out_slots[place] != 0:
                place = (place + 1) & mask
            out_slots[place] = slot


def _index_of(table: NameTable, name: UInt8) -> int:
    hashed = hash_name(name, 0, name.size, 0, NO_PART)
    return int(find_name(table, hashed, name, 0, name.size, 0, NO_PART))


def _put(table: NameTable, name: UInt8) -> int:
    hashed = hash_name(name, 0, name.size, 0, NO_PART)
    return int(add_name(table, hashed, name, 0, name.size, 0, NO_PART))


_rehash_jit = jit(_rehash)
_index_of_jit = jit(_index_of)
_put_jit = jit(_put)


def warm_up() -> None:
    """Compile the one accepted signature of each kernel here; other types raise from then on."""
    if _rehash_jit.signatures:
        return
    table = numba.typeof(name_table())
    text = types.Array(types.uint8, 1, "C", readonly=True)
    _rehash_jit.compile("void(i8[::1], i8[::1])")
    _index_of_jit.compile((table, text))
    _put_jit.compile((table, text))
    for kernel in (_rehash_jit, _index_of_jit, _put_jit):
        kernel.disable_compile()
