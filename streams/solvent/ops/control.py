"""Order a pause of liquidations, a halt, a dry run or the end of one, and see what is in force.

A command goes to ``control.v1``; the price agent obeys it and tells all margin shards in a mark
frame. Its row of ``price-state.v1`` says which commands were obeyed, what they ordered that is in
force, and which circuit breakers are tripped.
"""

from __future__ import annotations

import time
import uuid

import orjson

from solvent.engine.control import CONTROL_ROW_KEY
from solvent.errors import ConfigError, ServiceError
from solvent.ops.history import offsets_of, read_table, read_topic
from solvent.ops.send import send_one
from solvent.wire.inputs import decode_control, encode_control
from solvent.wire.outputs import ControlRow, decode_control_row
from solvent.wire.topics import CONTROL, PRICE_STATE, REJECTS, Topics

__all__ = ["in_force", "order"]

_POLL_S = 0.2


def in_force(bootstrap_servers: str, topics: Topics) -> ControlRow:
    """Return what is in force; pauses and halts by market, all markets are ``*``.

    Raises
    ------
    ServiceError
        [SLV-608, SLV-610] No broker or no such topic.
    """
    row = _control_row(bootstrap_servers, topics)
    return row or ControlRow(schema_version=1, pauses={}, commands=[], last_us=0)


def order(
    bootstrap_servers: str,
    topics: Topics,
    *,
    action: str,
    market: str | None,
    operator: str,
    reason: str,
    wait_s: float,
) -> ControlRow:
    """Write a command, wait until it is obeyed, and return what is in force then.

    Parameters
    ----------
    action, market, operator, reason
        As in ``control.v1``.
    wait_s : float
        How long to wait for the price agent.

    Raises
    ------
    ContractError
        The command breaks the contract of the topic; nothing was written.
    ConfigError
        The price agent refused it, with the code of the reject.
    ServiceError
        [SLV-608, SLV-610] No broker or no such topic; [SLV-614] nobody answered in time.
    """
    command_id = uuid.uuid4().hex
    value = encode_control(
        command_id=command_id,
        action=action,
        market=market,
        operator=operator,
        reason=reason,
        ts_us=time.time_ns() // 1_000,
    )
    decode_control(value)
    rejects = offsets_of(bootstrap_servers, topics.physical(REJECTS))[0][1]
    offset = send_one(bootstrap_servers, topics.physical(CONTROL), value)
    deadline = time.monotonic() + wait_s
    while True:
        row = _control_row(bootstrap_servers, topics)
        if row is not None and command_id in row.commands:
            return row
        for record in read_topic(
            bootstrap_servers, topics.physical(REJECTS), [0], start={0: rejects}
        ):
            rejects = record.offset + 1
            reject = orjson.loads(record.value or b"")
            if (reject["topic"], reject["offset"]) == (CONTROL, offset):
                raise ConfigError(reject["message"], code=reject["code"])
        if time.monotonic() > deadline:
            msg = (
                f"{action} of {market or 'all markets'}: no answer within {wait_s:g} s; it is "
                f"record {offset} of {topics.physical(CONTROL)} and obeyed when a worker prices"
            )
            raise ServiceError(msg, code="SLV-614")
        time.sleep(_POLL_S)


def _control_row(bootstrap_servers: str, topics: Topics) -> ControlRow | None:
    rows = read_table(bootstrap_servers, topics.physical(PRICE_STATE)).get(0, {})
    value = rows.get(CONTROL_ROW_KEY)
    return None if value is None else decode_control_row(value)
