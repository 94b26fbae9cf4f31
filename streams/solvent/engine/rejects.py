"""Records for ``rejects.v1``: which input record was not applied, why, and how it began.

A reject must be writable whatever it is about. Kafka's record time is whatever the producer set, so
a time outside ``0..2**53`` microseconds is told as null. A record may be as large as the broker
takes it, and base64 adds a third, so only the first bytes of key and value are kept, far more than
any record of the contract has; coordinates and lengths lead to the rest in the input log.
"""

from __future__ import annotations

import base64
from typing import Final

from solvent.engine.shard import Emit, InputRecord
from solvent.units import MAX_EXACT
from solvent.wire.outputs import encode
from solvent.wire.topics import REJECTS

__all__ = ["KEY_BYTES", "VALUE_BYTES", "reject"]

#: Most bytes of a refused record's key and value that a reject carries.
KEY_BYTES: Final = 1_024
VALUE_BYTES: Final = 16_384

_MS_US: Final = 1_000


def reject(
    record: InputRecord,
    *,
    topic: str,
    partition: int,
    code: str,
    message: str,
    account_id: str | None = None,
    is_quarantined: bool = False,
    is_applied: bool = False,
) -> Emit:
    """Return the reject of one input record.

    Parameters
    ----------
    record : InputRecord
        The record, as read.
    topic, partition : str, int
        Where it was read; the topic by its logical name.
    code, message : str
        A `RejectCode`, and what is wrong, for people.
    account_id : str or None
        The account it was about, if that is clear.
    is_quarantined : bool
        Whether that account is quarantined from here on.
    is_applied : bool
        Whether the record was applied all the same, and only what it says of a liquidation refused.

    Returns
    -------
    Emit
        Its key is the record's key, cut as in the value.
    """
    key, value = record.key, record.value
    ts_us = record.timestamp * _MS_US
    content = {
        "schema_version": 1,
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "code": code,
        "message": message,
        "account_id": account_id,
        "quarantined": is_quarantined,
        "ts_us": ts_us if 0 <= ts_us <= MAX_EXACT else None,
        "key_base64": _beginning(key, KEY_BYTES),
        "key_bytes": None if key is None else len(key),
        "value_base64": _beginning(value, VALUE_BYTES),
        "value_bytes": None if value is None else len(value),
    }
    if is_applied:
        content["applied"] = True
    return Emit(REJECTS, (key or b"")[:KEY_BYTES], encode(content))


def _beginning(content: bytes | None, limit: int) -> str | None:
    return None if content is None else base64.b64encode(content[:limit]).decode()
