"""Hold everything a pipeline committed against its inputs: nothing lost, nothing doubled.

Three routes to the same numbers. The journal must cover each input offset once and have no gap;
fresh shards fed the journal's runs must reproduce every hash and every outgoing record, byte for
byte; an independent fold of the inputs (``support.fold``, no code shared with the engine) must give
the ledger that restoring the account table gives. `examine` collects what is wrong instead of
stopping at the first, and counts it.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka.partitioner.default import murmur2

from solvent.engine.cases import CASE_ROW_PREFIX
from solvent.engine.journal import CLAIM_KEY, FENCE_KEY, SliceJournal
from solvent.engine.margin import MarginShard
from solvent.engine.markbook import MARKS_ROW_KEY
from solvent.engine.prices import PriceShard
from solvent.engine.published import RULEBOOK_ROW_KEY
from solvent.ops.accounts import read_shards
from solvent.rules import CompiledRulebook
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    ACCOUNTS,
    CONTROL,
    JOURNAL,
    LIQUIDATION_STATE,
    LIQUIDATIONS,
    LOSSES,
    MARGIN_STATUS,
    MARKS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
    REJECTS,
    Topics,
)
from support.contracts import validator
from support.fold import Fold, FoldRules
from support.margin import ledger_of, ledger_of_fold, standing_of, standing_of_fold
from support.reading import Read, read_topic

__all__ = ["Findings", "examine", "folds_of", "partition_of"]

_MARGIN_INPUTS = (*ACCOUNT_INPUTS, MARKS)
_PRICE_INPUTS = (ORACLE_TICKS, CONTROL, LOSSES)
_OUTPUTS = (LIQUIDATIONS, MARGIN_STATUS, REJECTS)
_SHOWN = 20


@dataclass
class Findings:
    """What `examine` saw.

    Attributes
    ----------
    problems : list of str
        Empty if all is exact.
    lost, doubled : int
        Input records in no slice or in two; outgoing records missing or there twice.
    inputs, slices, outputs : int
        Input records, journal records of both agents, outgoing records.
    events : Counter
        Liquidation events by kind.
    rejects, duplicates : int
        Refused records; records dropped as repeats.
    rulebooks : int
        Rulebooks published that came into force.
    """

    problems: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    inputs: int = 0
    slices: int = 0
    outputs: int = 0
    events: Counter[str] = field(default_factory=Counter)
    rejects: int = 0
    duplicates: int = 0
    rulebooks: int = 0

    def say(self, problem: str) -> None:
        """Note a problem; after twenty only their number grows."""
        if len(self.problems) < _SHOWN:
            self.problems.append(problem)
        elif len(self.problems) == _SHOWN:
            self.problems.append("... and more")

    def expect(self, holds: object, problem: str) -> None:
        """Note a problem unless `holds`."""
        if not holds:
            self.say(problem)


class _Log:
    """The committed records of a topic, by partition, with look-up of offset ranges."""

    def __init__(self, records: list[Read]) -> None:
        self.records = records
        self.by_partition: dict[int, list[Read]] = {}
        for record in records:
            self.by_partition.setdefault(record.partition, []).append(record)
        self._offsets = {p: [r.offset for r in rs] for p, rs in self.by_partition.items()}

    def run(self, partition: int, first: int, last: int) -> list[Read]:
        offsets = self._offsets.get(partition, [])
        found = slice(bisect_left(offsets, first), bisect_right(offsets, last))
        return self.by_partition.get(partition, [])[found]


def partition_of(key: bytes, partitions: int) -> int:
    """Return where Kafka's own partitioner puts a key."""
    partition: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return partition


def examine(bootstrap_servers: str, topics: Topics, rulebook: CompiledRulebook) -> Findings:
    """Read everything committed and compare it with the inputs."""

    def read(topic: str) -> _Log:
        return _Log(read_topic(bootstrap_servers, topics.physical(topic)))

    findings = Findings()
    inputs = {topic: read(topic) for topic in (*_MARGIN_INPUTS, *_PRICE_INPUTS)}
    journal, price_journal = _entries(read(JOURNAL)), _entries(read(PRICE_JOURNAL))
    findings.inputs = sum(len(log.records) for log in inputs.values())
    findings.slices = len(journal) + len(price_journal)
    frames = inputs[MARKS].by_partition.get(0, [])
    findings.rulebooks = sum(b'"rulebook":' in (frame.value or b"") for frame in frames)
    _check_journal(findings, journal, {t: inputs[t] for t in _MARGIN_INPUTS})
    _check_journal(findings, price_journal, {t: inputs[t] for t in _PRICE_INPUTS})

    shards, made = _replay(findings, "margin", journal, inputs, lambda p: MarginShard(p, rulebook))
    _, marks_made = _replay(
        findings,
        "prices",
        price_journal,
        inputs,
        lambda p: PriceShard(rulebook, p, topics.partitions),
    )
    outputs = {topic: read(topic) for topic in _OUTPUTS}
    outputs[REJECTS], of_ticks = _split_rejects(outputs[REJECTS])
    _check_outputs(findings, REJECTS, 0, of_ticks, marks_made.get((REJECTS, 0), []))
    for topic, log in outputs.items():
        findings.outputs += len(log.records)
        for partition in range(topics.partitions):
            _check_outputs(findings, topic, partition, log, made.get((topic, partition), []))
    for partition in range(topics.partitions):  # all write into one partition, under their own keys
        key = str(partition).encode()
        told = _Log([r for r in inputs[LOSSES].records if r.key == key])
        _check_outputs(findings, LOSSES, 0, told, made.get((LOSSES, partition), []))
    standing = read(LIQUIDATION_STATE)
    for partition in range(topics.partitions):
        _check_standing(findings, partition, standing, made.get((LIQUIDATION_STATE, partition), []))
        frames = marks_made.get((MARKS, 0), [])
        _check_outputs(findings, MARKS, partition, inputs[MARKS], frames)

    folds = _folds(rulebook, journal, inputs, topics.partitions)
    restored = read_shards(bootstrap_servers, topics, rulebook)
    _check_ledger(findings, folds, restored, shards)
    _check_rejects(findings, folds, outputs[REJECTS])
    _check_liquidations(findings, outputs[LIQUIDATIONS], restored)
    _check_schema(findings, "margin-status", outputs[MARGIN_STATUS])
    _check_foreign(findings, read(ACCOUNTS), topics.partitions)
    return findings


# -- the journal


def _entries(log: _Log) -> list[tuple[int, dict[str, Any]]]:
    return [(r.partition, json.loads(r.value or b"")) for r in log.records]


def _check_journal(
    findings: Findings, journal: list[tuple[int, dict[str, Any]]], inputs: Mapping[str, _Log]
) -> None:
    """Every input offset is in one run, in order; slice numbers have no gap."""
    slices: Counter[int] = Counter()
    counted: Counter[str] = Counter()
    covered: Counter[tuple[str, int, int]] = Counter()
    last_of: dict[tuple[str, int], int] = {}
    for partition, entry in journal:
        number = slices[partition] + 1
        where = f"{entry['agent']}-{partition} slice {entry['slice']}"
        findings.expect(entry["slice"] == number, f"{where}: {number} expected")
        slices[partition] = entry["slice"]
        counted.update(entry["counts"])
        for topic, first, last in entry["runs"]:
            before = last_of.get((topic, partition), -1)
            findings.expect(first > before, f"{where}: {topic} run from {first}, {before} was read")
            last_of[topic, partition] = last
            run = inputs[topic].run(partition, first, last)
            covered.update((topic, partition, record.offset) for record in run)
    for topic, log in inputs.items():
        missing = [r for r in log.records if not covered[topic, r.partition, r.offset]]
        if missing:
            findings.lost += len(missing)
            first = missing[0]
            findings.say(
                f"{topic}: {len(missing)} records in no slice, "
                f"first {first.partition}/{first.offset}"
            )
        if counted[topic] != len(log.records):
            findings.say(f"{topic}: journal counts {counted[topic]}, log {len(log.records)}")
    twice = [place for place, count in covered.items() if count > 1]
    if twice:
        findings.doubled += len(twice)
        findings.say(f"{len(twice)} records in two slices, first {twice[0]}")


# -- the same once more, through fresh shards

Made = dict[tuple[str, int], list[tuple[bytes, bytes | None]]]


def _replay(
    findings: Findings,
    agent: str,
    journal: list[tuple[int, dict[str, Any]]],
    inputs: Mapping[str, _Log],
    new_shard: Callable[[int], Any],
) -> tuple[dict[int, Any], Made]:
    """Apply the journal's runs to fresh shards; return them and all they would have written."""
    shards: dict[int, Any] = {}
    journals: dict[int, SliceJournal] = {}
    broken: set[int] = set()
    made: Made = {}
    for partition, entry in journal:
        if partition not in shards:
            shards[partition] = new_shard(partition)
            journals[partition] = SliceJournal(agent, partition)
        for topic, first, last in entry["runs"]:
            run = inputs[topic].run(partition, first, last)
            if run:
                shards[partition].apply(topic, run)
                journals[partition].take(topic, first, last, len(run))
        outputs = shards[partition].cut()
        for emit in outputs.records:
            made.setdefault((emit.topic, partition), []).append((emit.key, emit.value))
        found = json.loads(journals[partition].close(outputs).journal_value)
        if found["hash"] != entry["hash"] and partition not in broken:
            broken.add(partition)
            findings.say(f"{agent}-{partition} slice {entry['slice']}: replay gives another hash")
    return shards, made


def _check_outputs(
    findings: Findings,
    topic: str,
    partition: int,
    log: _Log,
    made: list[tuple[bytes, bytes | None]],
) -> None:
    """What was written is what the replay writes, in its order."""
    written = [(r.key or b"", r.value or b"") for r in log.by_partition.get(partition, [])]
    if written == made:
        return
    lost, extra = Counter(made) - Counter(written), Counter(written) - Counter(made)
    findings.lost += lost.total()
    findings.doubled += extra.total()
    findings.say(
        f"{topic} {partition}: {len(written)} records, replay {len(made)}; "
        f"{lost.total()} missing, {extra.total()} too many"
        + ("" if lost or extra else "; another order")
    )


def _check_standing(
    findings: Findings, partition: int, log: _Log, made: list[tuple[bytes, bytes | None]]
) -> None:
    """What stands is what the replay says; the cleaner may have taken what was replaced."""
    written = [(r.key or b"", r.value) for r in log.by_partition.get(partition, [])]
    due = iter(made)
    for record in written:
        if record not in due:  # goes on behind the last one found
            findings.say(f"{LIQUIDATION_STATE} {partition}: {record[0]!r} is not of the replay")
            return
    last, left = dict(made), dict(written)
    for key, value in last.items():
        if left.get(key) != value:
            findings.lost += 1
            findings.say(f"{LIQUIDATION_STATE} {partition}: the last of {key!r} differs")


# -- the independent fold


def _folds(
    rulebook: CompiledRulebook,
    journal: list[tuple[int, dict[str, Any]]],
    inputs: Mapping[str, _Log],
    partitions: int,
) -> dict[int, Fold]:
    rules = FoldRules.of(rulebook.model)
    folds = {partition: Fold(rules) for partition in range(partitions)}
    for partition, entry in journal:
        for topic, first, last in entry["runs"]:
            for r in inputs[topic].run(partition, first, last):
                folds[partition].take(topic, r.offset, r.timestamp, r.key, r.value)
    return folds


def folds_of(bootstrap_servers: str, topics: Topics, rulebook: CompiledRulebook) -> dict[int, Fold]:
    """Return the independent fold of each partition of a history, in the order of its journal."""
    inputs = {
        topic: _Log(read_topic(bootstrap_servers, topics.physical(topic)))
        for topic in _MARGIN_INPUTS
    }
    journal = _entries(_Log(read_topic(bootstrap_servers, topics.physical(JOURNAL))))
    return _folds(rulebook, journal, inputs, topics.partitions)


def _check_ledger(
    findings: Findings,
    folds: Mapping[int, Fold],
    restored: list[MarginShard],
    replayed: Mapping[int, MarginShard],
) -> None:
    """Every column of the ledger, as restored from the table, equals the fold."""
    duplicates = 0
    for partition, shard in enumerate(restored):
        found, wanted = ledger_of(shard), ledger_of_fold(folds[partition])
        wrong = {n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n)}
        if wrong:
            name = min(wrong)
            findings.say(
                f"partition {partition}: {len(wrong)} accounts differ from the fold, first {name}: "
                f"{found.get(name)} against {wanted.get(name)}"
            )
        findings.expect(
            standing_of(shard) == standing_of_fold(folds[partition]),
            f"partition {partition}: settings, orders or limits differ from the fold",
        )
        repeats = shard.facts().duplicates
        duplicates += sum(repeats[topic] for topic in ACCOUNT_INPUTS)
        if partition in replayed:
            statuses, others = _statuses(shard), _statuses(replayed[partition])
            findings.expect(
                statuses == others, f"partition {partition}: statuses differ from the replay"
            )
    findings.duplicates = sum(fold.duplicates for fold in folds.values())
    findings.expect(
        duplicates == findings.duplicates,
        f"{duplicates} repeats dropped, {findings.duplicates} by the fold",
    )


def _statuses(shard: MarginShard) -> dict[str, list[tuple[int, ...]]]:
    units = shard.columns.units
    columns = (units.book, units.status, units.episode, units.revision, units.case_verdict)
    return {
        name: [tuple(int(c[u]) for c in columns) for u in shard.columns.units_of(index)]
        for index, name in enumerate(shard.columns.account_ids)
    }


def _split_rejects(log: _Log) -> tuple[_Log, _Log]:
    """Return the rejects of the margin agent and those of the price agent, in their order."""
    mine: list[Read] = []
    of_ticks: list[Read] = []
    for record in log.records:
        is_tick = json.loads(record.value or b"")["topic"] in {ORACLE_TICKS, CONTROL}
        (of_ticks if is_tick else mine).append(record)
    return _Log(mine), _Log(of_ticks)


def _check_rejects(findings: Findings, folds: Mapping[int, Fold], log: _Log) -> None:
    """Each refused record once, with its coordinates and code, in a record its schema allows."""
    _check_schema(findings, "rejects", log)
    found: Counter[tuple[str, int, int, str]] = Counter()
    for record in log.records:
        reject = json.loads(record.value or b"")
        if reject.get("applied"):
            continue  # of a liquidation, of which the fold knows nothing
        found[reject["topic"], reject["partition"], reject["offset"], reject["code"]] += 1
    wanted = Counter(
        (topic, partition, offset, code)
        for partition, fold in folds.items()
        for topic, offset, code in fold.rejects
    )
    findings.rejects = wanted.total()
    if found != wanted:
        findings.say(
            f"rejects: {(wanted - found).total()} missing, {(found - wanted).total()} too many"
        )


# -- liquidations


def _check_liquidations(findings: Findings, log: _Log, restored: list[MarginShard]) -> None:
    """Every id and revision once, gapless, opened first, at most one end, last; and the rest open.

    A case without an end must be the open case of its unit in the restored table, at the revision
    last published; and no other unit may have one.
    """
    _check_schema(findings, "liquidations", log)
    cases: dict[str, list[dict[str, Any]]] = {}
    for record in log.records:
        event = json.loads(record.value or b"")
        name = event["liquidation_id"]
        findings.expect(record.key == event["account_id"].encode(), f"{name}: key {record.key!r}")
        findings.expect(
            record.partition == event["partition"],
            f"{name}: says partition {event['partition']}, lies in {record.partition}",
        )
        cases.setdefault(name, []).append(event)
        findings.events[event["event"]] += 1
    still_open: dict[str, int] = {}
    episodes: dict[tuple[str, str], list[int]] = {}
    for name, events in cases.items():
        revisions = [e["revision"] for e in events]
        findings.expect(
            revisions == list(range(1, len(events) + 1)), f"{name}: revisions {revisions}"
        )
        kinds = [e["event"] for e in events]
        ends = [kind in {"closed", "recovered"} for kind in kinds]
        findings.expect(
            kinds[0] in {"opened", "suspended"}
            and "opened" not in kinds[1:]
            and not any(ends[:-1]),
            f"{name}: a life of {kinds}",
        )
        if not ends[-1]:
            still_open[name] = revisions[-1]
        first = events[0]
        place = (first["account_id"], first["subaccount"])
        episodes.setdefault(place, []).append(first["episode"])
    for place, numbers in episodes.items():
        findings.expect(numbers == list(range(1, len(numbers) + 1)), f"{place}: {numbers}")
    held = dict(case for shard in restored for case in _open_cases(shard))
    findings.expect(
        held == still_open,
        f"open cases: table {len(held)}, events {len(still_open)}, "
        f"differing {sorted(held.items() ^ still_open.items())[:4]}",
    )


def _open_cases(shard: MarginShard) -> Iterator[tuple[str, int]]:
    units = shard.columns.units
    for index, account_id in enumerate(shard.columns.account_ids):
        for unit in shard.columns.units_of(index):
            if revision := int(units.revision[unit]):
                book = int(units.book[unit])
                name = "cross" if book < 0 else shard.rulebook.instruments[book].name
                yield f"{account_id}:{name}:{int(units.episode[unit])}", revision


# -- all records


def _check_schema(findings: Findings, topic: str, log: _Log) -> None:
    valid = validator(topic)
    wrong = [r for r in log.records if not valid.is_valid(json.loads(r.value or b""))]
    findings.expect(not wrong, f"{topic}: {len(wrong)} records against the schema")


def _account_of(key: bytes) -> bytes:
    """Return the account a row is about: its key, or what the key of a case's row names."""
    if not key.startswith(CASE_ROW_PREFIX):
        return key
    return key.removeprefix(CASE_ROW_PREFIX).partition(b"\0")[0]


def _check_foreign(findings: Findings, table: _Log, partitions: int) -> None:
    """Rows lie only where their key belongs."""
    own = {FENCE_KEY, CLAIM_KEY, MARKS_ROW_KEY, RULEBOOK_ROW_KEY}
    places = {(r.key or b"", r.partition) for r in table.records}
    foreign = sorted(
        (key, partition)
        for key, partition in places
        if key not in own and partition_of(_account_of(key), partitions) != partition
    )
    findings.expect(not foreign, f"accounts: {len(foreign)} foreign rows, first {foreign[:1]}")
