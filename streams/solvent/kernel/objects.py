"""Compact JSON objects in place: where each field's text lies, or the integer it is.

A scanner for records of a published contract, 189 bytes in 0.2 us instead of a decoder's object. It
takes exactly the compact spelling (no blanks, no escapes, fields in any order, none twice, none
unknown, ASCII only) and nothing that the strict decoders of `solvent.wire.inputs` would refuse for
its form; whatever else comes is left to them. What a decimal text says is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numba.extending import register_jitable

from solvent.kernel.layout import NONE, Int64, UInt8
from solvent.kernel.names import same_bytes

__all__ = [
    "DECIMAL",
    "FEED",
    "IDENTIFIER",
    "INTEGER",
    "LINK",
    "Contract",
    "contract",
    "scan_object",
]

# -- kinds of a field; the texts' double as bits of `_CLASSES`
INTEGER: Final = 0  # 0 .. 2**53
IDENTIFIER: Final = 1  # [A-Za-z0-9._-]{1,64}
FEED: Final = 2  # an identifier that may contain /
LINK: Final = 4  # identifiers and colons, 5..146
DECIMAL: Final = 8  # 1..40 printable characters, to be parsed

_SHORTEST: Final = {INTEGER: 1, IDENTIFIER: 1, FEED: 1, LINK: 5, DECIMAL: 1}
_LONGEST: Final = {INTEGER: 16, IDENTIFIER: 64, FEED: 64, LINK: 146, DECIMAL: 40}

_LIMIT: Final = 2**53
_QUOTE: Final = 34
_BACKSLASH: Final = 92
_COMMA: Final = 44
_OPEN: Final = 123
_CLOSE: Final = 125
_ZERO: Final = 48


def _classes() -> UInt8:
    classes = np.zeros(256, np.uint8)
    for byte in range(0x20, 0x7F):
        if byte not in {_QUOTE, _BACKSLASH}:
            classes[byte] |= DECIMAL
        character = chr(byte)
        if character.isalnum() or character in "._-":
            classes[byte] |= IDENTIFIER | FEED | LINK
    classes[ord("/")] |= FEED
    classes[ord(":")] |= LINK
    return classes


class Contract(NamedTuple):
    """The fields of a record, in the order in which most producers write them.

    ``text`` uint8, each field's ``"name":`` behind the other; ``first`` int64, shape (F + 1,),
    where each begins; ``kind`` uint8, ``shortest`` and ``longest`` int64, shape (F,), characters;
    ``classes`` uint8, shape (256,), the kinds each byte may be part of; ``needed`` int64, a bit for
    each field that must be there.
    """

    text: UInt8
    first: Int64
    kind: UInt8
    shortest: Int64
    longest: Int64
    classes: UInt8
    needed: int


def contract(fields: Iterable[tuple[str, int, bool]]) -> Contract:
    """Return the contract of some fields: name, kind, and whether it must be there."""
    listed = list(fields)
    texts = [f'"{name}":'.encode() for name, _, _ in listed]
    first = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=first[1:])
    return Contract(
        text=np.frombuffer(bytearray(b"".join(texts)), np.uint8),
        first=first,
        kind=np.array([kind for _, kind, _ in listed], np.uint8),
        shortest=np.array([_SHORTEST[kind] for _, kind, _ in listed], np.int64),
        longest=np.array([_LONGEST[kind] for _, kind, _ in listed], np.int64),
        classes=_classes(),
        needed=sum(1 << k for k, (_, _, is_needed) in enumerate(listed) if is_needed),
    )


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _find_field(data: UInt8, at: int, last: int, fields: Contract, expected: int) -> int:
    """Return the field whose ``"name":`` stands at a place, trying the expected one first."""
    count = fields.kind.size
    found = NONE
    turn = 0
    while found == NONE and turn < count:
        candidate = expected + turn
        if candidate >= count:
            candidate -= count
        begin = int(fields.first[candidate])
        size = int(fields.first[candidate + 1]) - begin
        if last - at > size and same_bytes(data, at, fields.text, begin, size):
            found = candidate
        turn += 1
    return found


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def scan_object(
    data: UInt8, first: int, last: int, fields: Contract, out_first: Int64, out_size: Int64
) -> bool:
    """Scan one object in bytes ``first`` to before ``last``.

    Parameters
    ----------
    out_first, out_size : int64, shape (F,)
        First byte and length of each text, without its quotes; of an integer its value and digits.
        A field that is not there has size 0.

    Returns
    -------
    bool
        False if a decoder must look at it; the outputs then mean nothing.
    """
    for field in range(fields.kind.size):
        out_size[field] = 0
    if first >= last or data[first] != _OPEN:
        return False
    seen = 0
    expected = 0
    at = first + 1
    is_open = True
    while is_open:
        field = _find_field(data, at, last, fields, expected)
        if field == NONE or (seen >> field) & 1 != 0:
            return False
        seen |= 1 << field
        expected = field + 1 if field + 1 < fields.kind.size else 0
        at += int(fields.first[field + 1]) - int(fields.first[field])
        kind = int(fields.kind[field])
        if kind == INTEGER:
            start = at
            value = 0
            while at < last and _ZERO <= data[at] <= _ZERO + 9 and at - start <= 16:
                value = value * 10 + int(data[at]) - _ZERO
                at += 1
            size = at - start
            if value > _LIMIT or (size > 1 and data[start] == _ZERO):
                return False
            out_first[field] = value
        else:
            if data[at] != _QUOTE:  # a field's name is found only where a byte follows
                return False
            at += 1
            start = at
            while at < last and int(fields.classes[data[at]]) & kind != 0:
                at += 1
            size = at - start
            if at >= last or data[at] != _QUOTE:
                return False
            at += 1
            out_first[field] = start
        if size < fields.shortest[field] or size > fields.longest[field] or at >= last:
            return False
        out_size[field] = size
        is_open = data[at] == _COMMA
        if not is_open and data[at] != _CLOSE:
            return False
        at += 1
    return at == last and seen & fields.needed == fields.needed
