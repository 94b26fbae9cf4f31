"""Record headers: what an event is by CloudEvents, and the trace it belongs to by W3C.

Events carry the attributes of CloudEvents 1.0 in the binary mode of its Kafka protocol binding
(``ce_id``, ``ce_source``, …, ``content-type``) and a ``traceparent``. All are functions of the
event: one made again has the same. A liquidation is one trace, so what answers it can be found by
its id alone; each revision of it is a span, and so is each fill.

In a record of a Kafka batch headers are one block behind the value: their number, then each name
and value, all behind their lengths (varints, zigzag). A mass event has tens of thousands of them,
so a block is made as one piece of text.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np

from solvent.wire.topics import LIQUIDATIONS

__all__ = ["EXECUTOR", "NO_HEADERS", "TRACEPARENT", "EventHeaders", "trace_fill", "varint"]

#: The block of a record without headers.
NO_HEADERS: Final = b"\0"

TRACEPARENT: Final = "traceparent"

#: Header of a fill: the ``SOLVENT_APP_ID`` of the executor that wrote it, for people alone.
EXECUTOR: Final = "solvent_executor"

#: What the types of a topic's events begin with; an event adds its word, and the topic's version.
_TYPES: Final = {LIQUIDATIONS: "solvent.liquidation"}

_SPAN_BYTES: Final = 8
_TRACE_BYTES: Final = 16
_TRACE_DIGITS: Final = 2 * _TRACE_BYTES
_TRACEPARENT_BYTES: Final = 55
_HEADERS: Final = 8


@lru_cache(maxsize=1 << 15)
def varint(number: int) -> bytes:
    """Return a length or count (0 or more) as records of a batch spell it."""
    rest = number << 1
    spelled = bytearray()
    while rest > 0x7F:
        spelled.append(rest & 0x7F | 0x80)
        rest >>= 7
    spelled.append(rest)
    return bytes(spelled)


def _spell(text: str) -> str:
    """Return text of ASCII behind its length, one character a byte."""
    return varint(len(text)).decode("latin-1") + text


#: Lengths by number, as characters: those of all ids there may be.
_LENGTHS: Final = tuple(varint(length).decode("latin-1") for length in range(256))
_ID, _SUBJECT = _spell("ce_id"), _spell("ce_subject")
_TRACE: Final = _spell(TRACEPARENT) + _LENGTHS[_TRACEPARENT_BYTES]


class EventHeaders:
    """Header blocks of what one partition tells on one topic at one moment of event time.

    Parameters
    ----------
    topic : str
        Logical name of a topic whose events carry headers.
    partition : int
        The partition that tells them.
    ts_us : int
        Event time, microseconds since 1970 UTC.
    """

    def __init__(self, topic: str, partition: int, ts_us: int) -> None:
        version = topic.rpartition(".")[2]
        self._type = f"{_TYPES[topic]}.{{}}.{version}"
        self._spans = int.from_bytes(blake2b(topic.encode(), digest_size=_SPAN_BYTES).digest())
        self._by_event: dict[str, str] = {}
        same = {
            "ce_specversion": "1.0",
            "content-type": "application/json",
            "ce_source": f"/solvent/margin/{partition}",
            "ce_time": f"{np.datetime64(ts_us, 'us')}Z",
        }
        self._same = "".join(map(_spell, (part for pair in same.items() for part in pair)))

    def block(self, case: str, number: int, event: str, account_id: str) -> bytes:
        """Return the headers of one event.

        Parameters
        ----------
        case : str
            The liquidation it is about: its trace.
        number : int
            What tells it from other events about that liquidation on this topic: a revision.
        event : str
            What happened, one word.
        account_id : str
            Whose account it is.
        """
        start = self._by_event.get(event)
        if start is None:
            kind = _spell("ce_type") + _spell(self._type.format(event))
            start = f"{_LENGTHS[_HEADERS]}{self._same}{kind}{_ID}"
            self._by_event[event] = start
        digits = blake2b(case.encode(), digest_size=_TRACE_BYTES + _SPAN_BYTES).hexdigest()
        # Distinct numbers make distinct spans, without a second hash.
        span = int(digits[_TRACE_DIGITS:], 16) ^ self._spans ^ number
        name = f"{case}/{number}"
        # Lengths are bytes beyond ASCII, all else is ASCII: latin-1 spells each as it is.
        return (
            f"{start}{_LENGTHS[len(name)]}{name}{_SUBJECT}{_LENGTHS[len(account_id)]}{account_id}"
            f"{_TRACE}00-{digits[:_TRACE_DIGITS]}-{span:016x}-01"
        ).encode("latin-1")


def trace_fill(liquidation_id: str, trade_id: str) -> bytes:
    """Return the ``traceparent`` of a fill: a span of its own in the trace of its liquidation."""
    trace = blake2b(liquidation_id.encode(), digest_size=_TRACE_BYTES + _SPAN_BYTES).hexdigest()
    span = blake2b(trade_id.encode(), digest_size=_SPAN_BYTES).hexdigest()
    return f"00-{trace[:_TRACE_DIGITS]}-{span}-01".encode()
