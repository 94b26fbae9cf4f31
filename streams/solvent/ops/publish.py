"""Publish a rulebook to a running pipeline, and see what became of it.

The record goes to ``oracle-ticks.v1`` like any tick, so it has a place among the prices. The price
agent answers: with a frame of ``marks.v1`` that carries the rulebook, in force from there on, or
with a reject. Nothing is decided here; what would be refused is refused before it is written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import orjson

from solvent.engine.journal import FENCE_KEY
from solvent.engine.published import RULEBOOK_ROW_KEY
from solvent.errors import ConfigError, ServiceError
from solvent.ops.files import RULEBOOK_KEY
from solvent.ops.history import offsets_of, read_table, read_topic
from solvent.ops.send import send_one
from solvent.rules import CompiledRulebook, check_successor, compile_document
from solvent.wire.inputs import encode_rulebook
from solvent.wire.outputs import decode_fence, decode_mark_frame, decode_rulebook_row, encode
from solvent.wire.topics import MARKS, ORACLE_TICKS, PRICE_STATE, REJECTS, Topics

__all__ = ["Publication", "publish", "rulebook_in_force"]

_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A rulebook that is in force.

    Attributes
    ----------
    rulebook : CompiledRulebook
        The one published.
    before : CompiledRulebook or None
        The one in force before; None where the pipeline has none yet.
    offset : int or None
        Its record in ``oracle-ticks.v1``; None if it was in force already and nothing was written.
    seq, ts_us : int or None
        The mark frame from which on all is judged by it, and that frame's event time.
    """

    rulebook: CompiledRulebook
    before: CompiledRulebook | None
    offset: int | None = None
    seq: int | None = None
    ts_us: int | None = None


def rulebook_in_force(
    bootstrap_servers: str, topics: Topics, own: CompiledRulebook | None
) -> CompiledRulebook | None:
    """Return the rulebook that the price agent last committed a slice under.

    Parameters
    ----------
    own : CompiledRulebook or None
        The one workers are started with, which is in force until one is published.

    Returns
    -------
    CompiledRulebook or None
        None before the first slice.

    Raises
    ------
    ConfigError
        [SLV-407] None was published, and `own` is missing or not the one in force.
    ServiceError
        [SLV-608, SLV-610] No broker or no such topic.
    """
    rows = read_table(bootstrap_servers, topics.physical(PRICE_STATE)).get(0, {})
    if RULEBOOK_ROW_KEY in rows:
        return compile_document(encode(decode_rulebook_row(rows[RULEBOOK_ROW_KEY]).rulebook))
    if FENCE_KEY not in rows:
        return None
    found = decode_fence(rows[FENCE_KEY]).state["rulebook"]
    if own is not None and own.hash == found:
        return own
    given = "none is given" if own is None else f"{own.id} version {own.version} has {own.hash}"
    msg = f"the rulebook in force has hash {found}, {given}: give the one workers were started with"
    raise ConfigError(msg, code="SLV-407")


def publish(
    bootstrap_servers: str,
    topics: Topics,
    rulebook: CompiledRulebook,
    *,
    own: CompiledRulebook | None,
    source: str,
    wait_s: float,
) -> Publication:
    """Write a rulebook to the stream and wait until it is in force.

    Parameters
    ----------
    rulebook : CompiledRulebook
        A later version of the one in force.
    own : CompiledRulebook or None
        The one workers are started with.
    source : str
        Who publishes it.
    wait_s : float
        How long to wait for the price agent.

    Raises
    ------
    ConfigError
        [SLV-402] It may not follow the one in force, nothing was written; [SLV-306] the price agent
        refused it, the one in force stays; [SLV-407] it is not known which one is in force.
    ServiceError
        [SLV-608, SLV-610] No broker or no such topic; [SLV-614] nobody answered in time.
    """
    before = rulebook_in_force(bootstrap_servers, topics, own)
    if before is not None:
        if before.hash == rulebook.hash:
            return Publication(rulebook=rulebook, before=before)
        check_successor(before, rulebook)
    ends = {
        topic: offsets_of(bootstrap_servers, topics.physical(topic))[0][1]
        for topic in (MARKS, REJECTS)
    }
    ticks = topics.physical(ORACLE_TICKS)
    ts_us = time.time_ns() // 1_000
    value = encode_rulebook(source=source, rulebook=rulebook.document, ts_us=ts_us)
    offset = send_one(bootstrap_servers, ticks, value, key=RULEBOOK_KEY)
    deadline = time.monotonic() + wait_s
    while True:
        for topic, start in list(ends.items()):
            for record in read_topic(
                bootstrap_servers, topics.physical(topic), [0], start={0: start}
            ):
                ends[topic] = record.offset + 1
                answer = record.value or b""
                if topic == REJECTS:
                    _check_refused(answer, offset)
                elif (frame := _frame_of(answer, rulebook)) is not None:
                    seq, ts_us = frame
                    return Publication(
                        rulebook=rulebook, before=before, offset=offset, seq=seq, ts_us=ts_us
                    )
        if time.monotonic() > deadline:
            msg = (
                f"rulebook {rulebook.id} version {rulebook.version}: no answer within {wait_s:g} s;"
                f" it is record {offset} of {ticks} and judged when a worker prices"
            )
            raise ServiceError(msg, code="SLV-614")
        time.sleep(_POLL_S)


def _check_refused(value: bytes, offset: int) -> None:
    reject = orjson.loads(value)
    if (reject["topic"], reject["offset"]) == (ORACLE_TICKS, offset):
        raise ConfigError(reject["message"], code=reject["code"])


def _frame_of(value: bytes, rulebook: CompiledRulebook) -> tuple[int, int] | None:
    """Return sequence and time of the frame if it carries the rulebook."""
    frame = decode_mark_frame(value)
    if frame.rulebook is None or compile_document(encode(frame.rulebook)).hash != rulebook.hash:
        return None
    return frame.seq, frame.ts_us
