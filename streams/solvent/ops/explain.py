"""Explain a liquidation: find its event and the slice that brought it, and make both again.

The event lies in ``liquidations.v1``; its trigger names an input record, and the journal the slice
that applied it. The shard is restored to the slice before from its table, or where compaction
removed rows of that state by replaying from the first slice, and applies the slice up to the
record. What it then says is held against the published bytes (`solvent.engine.explain`). Offsets
are places in a partition.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from solvent.agents.margin import margin_agent
from solvent.engine.cursors import InputCursor
from solvent.engine.explain import Explainer, LiquidationId, recompute
from solvent.engine.journal import FENCE_KEY, SliceJournal
from solvent.engine.margin import MarginShard, warm_up
from solvent.engine.replay import JournalledSlice, Log, SliceReplay, read_slice
from solvent.engine.rewind import restore_at
from solvent.engine.run import Record, Run
from solvent.errors import ConfigError, InvariantError, PartitionError, SolventError
from solvent.ops.logs import Logs
from solvent.rules import CompiledRulebook
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    JOURNAL,
    LIQUIDATION_REPORTS,
    LIQUIDATIONS,
    MARKS,
    OPEN_ORDERS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
    PRICE_STATE,
    TRADES,
)

__all__ = ["ExplainOptions", "explain", "parse_liquidation_id"]

_AGENT: Final = "margin"
_ID: Final = re.compile(r"([A-Za-z0-9._-]{1,64}):([A-Za-z0-9._-]{1,64}):([1-9][0-9]{0,17})")
_KINDS: Final = {
    TRADES: "trade",
    COLLATERAL: "collateral move",
    ACCOUNT_SETTINGS: "settings",
    OPEN_ORDERS: "orders",
    ACCOUNT_SNAPSHOTS: "snapshot",
    LIQUIDATION_REPORTS: "report",
}
_CHUNK: Final = 5_000
#: Offsets of one topic that are looked through backwards at most.
_MOST_LOOKED_THROUGH: Final = 2_000_000
_SHOWN_BYTES: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """What to explain.

    Attributes
    ----------
    liquidation_id : str
        ``account:subaccount:episode``.
    revision : int, optional
        From 1; the last one without it.
    records : int
        How many of the account's last records to list.
    """

    liquidation_id: str
    revision: int | None = None
    records: int = 20


class _Found(NamedTuple):
    """A published event."""

    record: Record
    content: dict[str, Any]
    partition: int
    last_revision: int


def parse_liquidation_id(text: str) -> LiquidationId:
    """Return the parts of a liquidation's id.

    Raises
    ------
    ConfigError
        [SLV-454] It is none.
    """
    match = _ID.fullmatch(text)
    if match is None:
        msg = f"liquidation {text!r}: account:subaccount:episode expected, as carol:cross:1"
        raise ConfigError(msg, code="SLV-454")
    account, subaccount, episode = match.groups()
    return LiquidationId(account, subaccount, int(episode))


def explain(logs: Logs, rulebook: CompiledRulebook, options: ExplainOptions) -> dict[str, Any]:
    """Explain one revision of a liquidation, as ``schemas/explain`` says.

    Where the event made again differs from the published one, that is all it says: ``equal`` is
    False, and ``difference`` holds both.

    Parameters
    ----------
    logs : Logs
        A broker's topics, or a tape.
    rulebook : CompiledRulebook
        The one the history began under; those published later are in it.
    options : ExplainOptions
        Which.

    Raises
    ------
    ConfigError
        [SLV-454] No such liquidation or revision; [SLV-407, SLV-451] the rulebook is not the
        history's.
    PartitionError
        [SLV-511, SLV-512, SLV-513] The journal cannot be read, it and the table contradict each
        other, or what the event was made of was deleted.
    ServiceError
        [SLV-608, SLV-610] No broker, or no such topic.
    """
    liquidation = parse_liquidation_id(options.liquidation_id)
    warm_up()  # not to be timed
    began = time.monotonic()
    found = _find_event(logs, liquidation, options.revision)
    event, partition = found.content, found.partition
    trigger = str(event["trigger"]["topic"]), int(event["trigger"]["offset"])
    before, entry = _find_slice(logs, partition, trigger)
    spec = margin_agent(rulebook)
    inputs = {topic: logs.log(topic, partition) for topic in spec.inputs}
    _check_inputs(entry, inputs)
    shard, positions, restored_from = _state_before(logs, rulebook, partition, entry, before)
    try:
        made, applied = recompute(
            shard,
            entry,
            positions,
            inputs,
            trigger,
            (liquidation, event["revision"]),
            takes_over=event["reason"] != "deadline",
        )
    except SolventError:
        _check_rulebook(event, shard)
        raise
    told: dict[str, Any] = {
        "schema_version": 1,
        "liquidation": _about(found, liquidation, entry, trigger),
        "recomputed": {
            "equal": made == found.record.value,
            "bytes": len(found.record.value or b""),
            "state_from": restored_from,
            "records_applied": applied,
        },
    }
    if made != found.record.value:
        _check_rulebook(event, shard)
        told["difference"] = _difference(made, found.record.value)
    else:
        explainer = Explainer(shard, liquidation)
        told["liquidation"]["preset"] = explainer.policy.name
        told["liquidation"]["preset_path"] = explainer.path
        told["verdict"] = explainer.verdict()
        for name in ("equity", "requirement"):
            if told["verdict"][name]["published"] != event[name]:
                msg = f"liquidation {liquidation}: {name} of the state that brought it differs"
                raise InvariantError(msg)
        told["marks"] = _marks(logs, partition, event, explainer)
        told["records"] = _records(logs, partition, event, liquidation, options.records)
        told["sizing"] = explainer.sizing(event) if event["expires_us"] else None
        told["avoided_by"] = explainer.avoided_by()
        told["published"] = event
    told["recomputed"]["seconds"] = round(time.monotonic() - began, 3)
    return told


# -- the event and its slice


def _find_event(logs: Logs, liquidation: LiquidationId, revision: int | None) -> _Found:
    from kafka.partitioner.default import murmur2

    key = liquidation.account_id.encode()
    count = logs.topics.partitions_of(LIQUIDATIONS)
    partition = (int(murmur2(key)) & 0x7FFFFFFF) % count
    log = logs.log(LIQUIDATIONS, partition)
    wanted = f'"liquidation_id":"{liquidation}"'.encode()
    revisions: dict[int, Record] = {}
    others = 0
    for record in _of_key(log, key):
        value = record.value or b""
        if wanted in value:
            revisions[int(orjson.loads(value)["revision"])] = record
        elif b'"revision":1,"event":' in value:
            others += 1
    deleted = ""
    if log.first:
        deleted = f"; the topic begins at offset {log.first}, what is below was deleted"
    place = f"{LIQUIDATIONS} partition {partition}"
    if not revisions:
        held = f"it has {others} others of account {liquidation.account_id}"
        msg = f"liquidation {liquidation}: not in {place}, {held}{deleted}"
        raise ConfigError(msg, code="SLV-454")
    last = max(revisions)
    chosen = revisions.get(last if revision is None else revision)
    if chosen is None:
        msg = f"liquidation {liquidation} revision {revision}: 1 to {last} expected{deleted}"
        raise ConfigError(msg, code="SLV-454")
    return _Found(chosen, orjson.loads(chosen.value or b""), partition, last)


def _of_key(log: Log, key: bytes, start: int | None = None) -> Iterator[Record]:
    """Yield the records of a key, in order."""
    for run in log.runs(log.first if start is None else start):
        for place in _places_of(run, key):
            yield run[place]


def _places_of(run: Run, key: bytes) -> list[int]:
    """Return where a run's records have this key."""
    places = np.flatnonzero(run.key_size == len(key))
    if places.size == 0 or not key:
        return []
    at = run.key_first[places][:, None] + np.arange(len(key))
    is_same = (run.data[at] == np.frombuffer(key, np.uint8)).all(axis=1)
    found: list[int] = places[is_same].tolist()
    return found


def _find_slice(
    logs: Logs, partition: int, trigger: tuple[str, int]
) -> tuple[JournalledSlice | None, JournalledSlice]:
    """Return the slice that applied a record, and the one before if it is there."""
    topic, offset = trigger
    log = logs.log(JOURNAL, partition)

    def is_before(record: Record) -> bool | None:
        entry = read_slice(record, _AGENT, partition)
        lasts = [last for name, _, last in entry.runs if name == topic]
        return lasts[-1] < offset if lasts else None

    before: JournalledSlice | None = None
    for entry in _slices(log, _start_near(log, logs.end(JOURNAL, partition), is_before)):
        if any(name == topic and first <= offset <= last for name, first, last in entry.runs):
            return before, entry
        before = entry
    gone = f" and begins at offset {log.first}, what is below was deleted" if log.first else ""
    msg = f"{JOURNAL} partition {partition}: names no slice with {topic} offset {offset}{gone}"
    raise PartitionError(msg, code="SLV-513")


def _start_near(log: Log, end: int, is_before: Callable[[Record], bool | None]) -> int:
    """Return an offset below what is looked for, or the log's first, by halving while it is far.

    `is_before` tells of a record whether it lies below, None where it does not say.
    """
    low, high = log.first, end
    while high - low > _CHUNK:
        middle = low + (high - low) // 2
        found: tuple[int, bool] | None = None
        for run in log.runs(middle):
            for record in run:
                says = is_before(record) if record.offset < high else False
                if says is not None:
                    found = record.offset, says
                    break
            if found is not None:
                break
        if found is not None and found[1]:
            low = found[0]
        else:
            high = middle
    return low


def _slices(journal: Log, start: int, agent: str = _AGENT) -> Iterator[JournalledSlice]:
    for run in journal.runs(start):
        for record in run:
            yield read_slice(record, agent, journal.partition)


def _check_inputs(entry: JournalledSlice, inputs: Mapping[str, Log]) -> None:
    for topic, first, _ in entry.runs:
        log = inputs[topic]
        if first < log.first:
            msg = (
                f"slice {entry.number} needs {topic} partition {log.partition} from offset "
                f"{first}, it begins at {log.first}: what is below was deleted"
            )
            raise PartitionError(msg, code="SLV-513")


# -- the state before


def _state_before(
    logs: Logs,
    rulebook: CompiledRulebook,
    partition: int,
    entry: JournalledSlice,
    before: JournalledSlice | None,
) -> tuple[MarginShard, dict[str, int], str]:
    """Return a shard as it was before a slice, its positions, and where they are from."""
    shard = MarginShard(partition, rulebook)
    spec = margin_agent(rulebook)
    if entry.number == 1:
        return shard, {}, "nothing: it is the first slice"
    inputs = {topic: logs.log(topic, partition) for topic in spec.inputs}
    table = logs.log(spec.table, partition)
    try:
        journal, _ = restore_at(
            shard,
            agent=_AGENT,
            partition=partition,
            number=entry.number - 1,
            table=table,
            inputs=inputs,
        )
    except PartitionError as error:
        if error.code != "SLV-512":
            raise
        return _replayed(logs, rulebook, partition, entry, inputs, error)
    except ConfigError as error:
        msg = (
            f"rulebook {rulebook.id} version {rulebook.version} ({rulebook.hash[:12]}): slice "
            f"{entry.number - 1} was made under another: {error.message}"
        )
        raise ConfigError(msg, code="SLV-451") from error
    if before is not None and journal.rolling_hash.hex() != before.hash:
        msg = (
            f"{spec.table} partition {partition}: the fence of slice {before.number} has hash "
            f"{journal.rolling_hash.hex()}, its journal record {before.hash}"
        )
        raise PartitionError(msg, code="SLV-512")
    return shard, dict(journal.positions), f"the table, as of slice {entry.number - 1}"


def _replayed(
    logs: Logs,
    rulebook: CompiledRulebook,
    partition: int,
    entry: JournalledSlice,
    inputs: Mapping[str, Log],
    why: PartitionError,
) -> tuple[MarginShard, dict[str, int], str]:
    """Replay from the first slice up to the one before, each held against its hash."""
    shard = MarginShard(partition, rulebook)
    journal = SliceJournal(_AGENT, partition)
    replay = SliceReplay(shard, journal)
    cursors = {topic: InputCursor(log, log.first) for topic, log in inputs.items()}
    journal_log = logs.log(JOURNAL, partition)
    for each in _slices(journal_log, journal_log.first):
        if each.number == entry.number:
            break
        if each.number != journal.slice_number + 1:
            msg = (
                f"{why.message}; nor can it be replayed: {JOURNAL} partition {partition} begins at "
                f"slice {each.number}"
            )
            raise PartitionError(msg, code="SLV-513")
        try:
            _check_inputs(each, inputs)
        except PartitionError as error:
            msg = f"{why.message}; nor can it be replayed: {error.message}"
            raise PartitionError(msg, code="SLV-513") from error
        try:
            brought = replay.apply(
                [(name, cursors[name].take(last)) for name, _, last in each.runs]
            )
        except SolventError:
            _check_rulebook({"rulebook": each.rulebook}, shard)
            raise
        _check_rulebook({"rulebook": each.rulebook}, shard)
        if brought.hash != each.hash:
            msg = (
                f"slice {each.number} replayed has hash {brought.hash}, its journal record "
                f"{each.hash}: `solvent replay --verify` names the first difference"
            )
            raise PartitionError(msg, code="SLV-512")
    return shard, dict(journal.positions), f"a replay of slices 1 to {entry.number - 1}"


def _check_rulebook(told: Mapping[str, Any], shard: MarginShard) -> None:
    """Refuse to explain by other rules than the history's."""
    theirs, mine = told["rulebook"], shard.rules
    if theirs["hash"] != mine["hash"]:
        msg = (
            f"rulebook {mine['id']} version {mine['version']} ({str(mine['hash'])[:12]}): the "
            f"history was made under {theirs['id']} version {theirs['version']} "
            f"({str(theirs['hash'])[:12]})"
        )
        raise ConfigError(msg, code="SLV-451")


def _difference(made: bytes | None, published: bytes | None) -> dict[str, Any]:
    expected, got = made or b"", published or b""
    both = zip(expected, got, strict=False)
    at = next((n for n, (a, b) in enumerate(both) if a != b), min(len(expected), len(got)))
    first = max(0, at - 30)
    shown = slice(first, first + _SHOWN_BYTES)
    return {
        "what": "the record brings no such event" if made is None else f"from byte {at} on",
        "expected": expected[shown].decode("utf-8", "backslashreplace"),
        "got": got[shown].decode("utf-8", "backslashreplace"),
    }


def _about(
    found: _Found, liquidation: LiquidationId, entry: JournalledSlice, trigger: tuple[str, int]
) -> dict[str, Any]:
    event = found.content
    return {
        "liquidation_id": str(liquidation),
        "revision": event["revision"],
        "last_revision": found.last_revision,
        "event": event["event"],
        "reason": event["reason"],
        "account_id": liquidation.account_id,
        "subaccount": liquidation.subaccount,
        "verdict": event["verdict"],
        "status": event["status"],
        "rulebook": event["rulebook"],
        "ts_us": event["ts_us"],
        "expires_us": event["expires_us"],
        "topic": LIQUIDATIONS,
        "partition": found.partition,
        "offset": found.record.offset,
        "slice": entry.number,
        "journal_offset": entry.offset,
        "trigger": {"topic": trigger[0], "partition": found.partition, "offset": trigger[1]},
        "mark_seq": event["mark_seq"],
    }


# -- the records it came from


def _backwards(log: Log, end: int) -> Iterator[Run]:
    """Yield the records below an offset in chunks, the last chunk first."""
    size = _CHUNK
    looked = 0
    while end > log.first and looked < _MOST_LOOKED_THROUGH:
        start = max(log.first, end - size)
        parts = []
        for run in log.runs(start):
            below = run[: int(run.offset.searchsorted(end))]
            if below:
                parts.append(below)
            if len(below) < len(run):
                break
        yield from reversed(parts)
        looked += end - start
        end, size = start, 4 * size


def _marks(
    logs: Logs, partition: int, event: Mapping[str, Any], explainer: Explainer
) -> list[dict[str, Any]]:
    """Return the feeds used, each with the frame that last told it."""
    feeds = explainer.feeds()
    wanted = {name: f'"feed":"{name}"'.encode() for name in feeds}
    frames: dict[str, dict[str, Any]] = {}
    end = int(event["inputs"].get(MARKS, 0))
    for run in _backwards(logs.log(MARKS, partition), end):
        for place in range(len(run) - 1, -1, -1):
            record = run[place]
            value = record.value or b""
            for name in [name for name, text in wanted.items() if text in value]:
                frame = orjson.loads(value)
                frames[name] = {
                    "topic": MARKS,
                    "partition": partition,
                    "offset": record.offset,
                    "seq": frame["seq"],
                    "ts_us": frame["ts_us"],
                }
                del wanted[name]
        if not wanted:
            break
    ticks = _TickRanges(logs)
    return [
        {
            "feed": name,
            **told,
            "record": frames.get(name),
            "ticks": ticks.of(frames[name]["seq"]) if name in frames else None,
        }
        for name, told in feeds.items()
    ]


class _TickRanges:
    """Which ticks a price slice read, as far as the price table still has the fences about it."""

    def __init__(self, logs: Logs) -> None:
        self._slice_of: list[tuple[int, int, int]] = []  # frames above, up to, slice
        self._logs = logs
        before: tuple[int, int] | None = None
        try:
            table = logs.log(PRICE_STATE, 0)
        except SolventError:
            return
        for record in _of_key(table, FENCE_KEY):
            fence = orjson.loads(record.value or b"{}")
            number, seq = int(fence["slice"]), int(fence["state"]["seq"])
            if before is not None and before[0] == number - 1:
                self._slice_of.append((before[1], seq, number))
            elif number == 1:
                self._slice_of.append((0, seq, number))
            before = number, seq
        self._runs: dict[int, list[dict[str, Any]] | None] = {}

    def of(self, seq: int) -> list[dict[str, Any]] | None:
        """Return the runs of ticks of the slice that made a frame; None if it is not known."""
        number = next((n for above, upto, n in self._slice_of if above < seq <= upto), None)
        if number is None:
            return None
        if number not in self._runs:
            self._runs[number] = self._read(number)
        return self._runs[number]

    def _read(self, number: int) -> list[dict[str, Any]] | None:
        log = self._logs.log(PRICE_JOURNAL, 0)
        start = _start_near(
            log,
            self._logs.end(PRICE_JOURNAL, 0),
            lambda record: read_slice(record, "prices", 0).number < number,
        )
        for entry in _slices(log, start, "prices"):
            if entry.number == number:
                return [
                    {"topic": topic, "partition": 0, "first": first, "last": last}
                    for topic, first, last in entry.runs
                    if topic == ORACLE_TICKS
                ]
        return None


def _records(
    logs: Logs,
    partition: int,
    event: Mapping[str, Any],
    liquidation: LiquidationId,
    most: int,
) -> list[dict[str, Any]]:
    """Return the account's last records below the event's inputs, the newest first."""
    key = liquidation.account_id.encode()
    found: list[tuple[int, str, Record]] = []
    for topic in ACCOUNT_INPUTS:
        end = int(event["inputs"].get(topic, 0))
        count = 0
        for run in _backwards(logs.log(topic, partition), end) if most else ():
            places = _places_of(run, key)[::-1][: most - count]
            found += [(run[place].timestamp, topic, run[place]) for place in places]
            count += len(places)
            if count >= most:
                break
    found.sort(key=lambda each: (each[0], each[1], each[2].offset), reverse=True)
    return [
        {
            "topic": topic,
            "partition": partition,
            "offset": record.offset,
            "timestamp_ms": timestamp,
            "kind": _KINDS[topic],
            "is_trigger": (topic, record.offset)
            == (event["trigger"]["topic"], event["trigger"]["offset"]),
            "content": _content(record.value),
        }
        for timestamp, topic, record in found[:most]
    ]


def _content(value: bytes | None) -> Any:  # noqa: ANN401 - JSON data
    try:
        return orjson.loads(value or b"null")
    except orjson.JSONDecodeError:
        return (value or b"")[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
