"""Verify a pipeline's history against its inputs: partitions, slices, progress, what was found.

What is compared and how: `solvent.engine.verify`. The logs may be those of a pipeline at work: the
journal is read up to where it ends when its partition's turn comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

from solvent.agents.margin import margin_agent
from solvent.agents.prices import price_agent
from solvent.engine.journal import SliceJournal
from solvent.engine.margin import warm_up
from solvent.engine.replay import JournalledSlice, Log, read_slice
from solvent.engine.rewind import restore_at
from solvent.engine.verify import Difference, Verifier
from solvent.errors import ConfigError, PartitionError, SolventError
from solvent.ops.logs import Logs
from solvent.rules import CompiledRulebook
from solvent.runtime.lane import AgentSpec
from solvent.wire.topics import (
    LIQUIDATION_STATE,
    LIQUIDATIONS,
    LOSSES,
    MARGIN_STATUS,
    MARKS,
    REJECTS,
)

__all__ = ["AGENTS", "PartitionReport", "Progress", "VerifyOptions", "VerifyReport", "verify"]

#: Agent -> what makes its spec, the topics its events go to, and those that all partitions get.
AGENTS: Final[
    dict[str, tuple[Callable[[CompiledRulebook, int], AgentSpec], tuple[str, ...], str]]
] = {
    "margin": (
        lambda rulebook, _partitions: margin_agent(rulebook),
        (LIQUIDATIONS, LIQUIDATION_STATE, MARGIN_STATUS, REJECTS, LOSSES),
        "",
    ),
    "prices": (price_agent, (MARKS, REJECTS), MARKS),
}


class Progress(NamedTuple):
    """How far a replay is: records done, share of all in 0..1, and where it is now."""

    records: int
    share: float
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What to verify.

    Attributes
    ----------
    agent : str
        ``margin`` or ``prices``.
    partitions : sequence of int, optional
        Only these; all without it.
    from_slice : int
        First slice replayed; from 2 on the state before it is restored from the table.
    to_slice : int, optional
        Last slice replayed; the journal's last without it.
    """

    agent: str = "margin"
    partitions: Sequence[int] | None = None
    from_slice: int = 1
    to_slice: int | None = None


@dataclass(slots=True, kw_only=True)
class PartitionReport:
    """What was verified of one partition.

    Attributes
    ----------
    last_slice : int
        Last slice replayed; ``from_slice - 1`` if none was.
    records, events, rows : int
        Input records applied, events and rows compared.
    rows_compared_from : int
        First slice whose rows were compared one by one, later than `from_slice` if the table was
        compacted.
    hash : str
        Rolling hash after the last slice.
    difference : Difference or None
        The first one found; the replay of the partition ends there.
    """

    partition: int
    from_slice: int
    last_slice: int
    records: int = 0
    events: int = 0
    rows: int = 0
    rows_compared_from: int = 1
    hash: str = ""
    difference: Difference | None = None

    @property
    def slices(self) -> int:
        """Slices replayed."""
        return self.last_slice - self.from_slice + 1


@dataclass(slots=True, kw_only=True)
class VerifyReport:
    """What was verified of an agent."""

    agent: str
    partitions: list[PartitionReport] = field(default_factory=list)
    seconds: float = 0.0
    is_interrupted: bool = False

    @property
    def differences(self) -> list[Difference]:
        """The first difference of each partition that has one."""
        return [p.difference for p in self.partitions if p.difference is not None]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        partitions = [{**asdict(p), "slices": p.slices} for p in self.partitions]
        records = sum(p.records for p in self.partitions)
        return {
            "agent": self.agent,
            "verified": not self.differences and not self.is_interrupted,
            "interrupted": self.is_interrupted,
            "slices": sum(p.slices for p in self.partitions),
            "records": records,
            "events": sum(p.events for p in self.partitions),
            "rows": sum(p.rows for p in self.partitions),
            "seconds": round(self.seconds, 3),
            "records_per_s": round(records / self.seconds) if self.seconds else 0,
            "hashes": {str(p.partition): p.hash for p in self.partitions},
            "differences": [difference.as_json() for difference in self.differences],
            "partitions": partitions,
        }


def verify(
    logs: Logs,
    rulebook: CompiledRulebook,
    options: VerifyOptions,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> VerifyReport:
    """Replay an agent's history and compare every byte; a difference ends its partition only.

    Parameters
    ----------
    logs : Logs
        A broker's topics, or a tape.
    rulebook : CompiledRulebook
        The one the history began under; those published later are in it.
    options : VerifyOptions
        Which part of it.
    progress : callable
        Told after each slice.
    is_stopped : callable
        Asked after each slice whether to end there.

    Raises
    ------
    ConfigError
        [SLV-451] The rulebook or a partition is not the history's.
    PartitionError
        [SLV-511, SLV-512, SLV-513] The journal cannot be read, the state of the first slice cannot
        be restored, or inputs of it were deleted.
    ServiceError
        [SLV-608, SLV-610] No broker, or no such topic.
    """
    make_spec, _, _ = AGENTS[options.agent]
    spec = make_spec(rulebook, logs.topics.partitions)
    count = logs.topics.partitions_of(spec.inputs[0])
    partitions = range(count) if options.partitions is None else options.partitions
    for partition in partitions:
        if not 0 <= partition < count:
            msg = f"{options.agent} partition {partition}: there are {count}, from 0"
            raise ConfigError(msg, code="SLV-451")
    warm_up()  # not to be timed
    began = time.monotonic()
    report = VerifyReport(agent=options.agent)
    meter = _Meter(logs, spec, partitions, progress)
    for partition in partitions:
        report.is_interrupted = is_stopped()
        if report.is_interrupted:
            break
        part = PartitionReport(
            partition=partition, from_slice=options.from_slice, last_slice=options.from_slice - 1
        )
        report.partitions.append(part)
        report.is_interrupted = _verify_partition(logs, spec, options, part, meter, is_stopped)
    report.seconds = time.monotonic() - began
    return report


def _verify_partition(
    logs: Logs,
    spec: AgentSpec,
    options: VerifyOptions,
    report: PartitionReport,
    meter: _Meter,
    is_stopped: Callable[[], bool],
) -> bool:
    """Fill the report of one partition; return whether it was stopped."""
    partition = report.partition
    inputs = {topic: logs.log(topic, partition) for topic in spec.inputs}
    journal_log = logs.log(spec.journal, partition)
    _check_inputs(journal_log, inputs, spec.name, options.from_slice)
    verifier = _new_verifier(logs, spec, options, partition, inputs)
    meter.enter(partition, verifier)
    next_offset = journal_log.first
    for entry in _slices(journal_log, spec.name):
        next_offset = entry.offset + 1
        if entry.number < options.from_slice:
            continue
        if options.to_slice is not None and entry.number > options.to_slice:
            break
        try:
            report.difference = verifier.check(entry)
        except SolventError:  # nothing to wonder at under other rules
            _check_rulebook(entry, verifier.rules)
            raise
        if verifier.number == entry.number:
            _check_rulebook(entry, verifier.rules)
        _tell(report, verifier)
        meter.tell()
        if report.difference is not None:
            return False
        if is_stopped():
            return True
    else:
        found = verifier.check_end()
        # a pipeline at work has written since: what is beyond the last slice read is of a new one
        if found is not None and not journal_log.grows_beyond(next_offset):
            report.difference = found
    _tell(report, verifier)
    return False


def _tell(report: PartitionReport, verifier: Verifier) -> None:
    report.last_slice = max(report.last_slice, verifier.number)
    report.records, report.events, report.rows = verifier.records, verifier.events, verifier.rows
    report.rows_compared_from = verifier.rows_compared_from
    report.hash = verifier.hash


def _new_verifier(
    logs: Logs, spec: AgentSpec, options: VerifyOptions, partition: int, inputs: dict[str, Log]
) -> Verifier:
    _, outgoing, everywhere = AGENTS[spec.name]
    shard = spec.new_shard(partition)
    table = logs.log(spec.table, partition)
    journal, start = SliceJournal(spec.name, partition), table.first
    if options.from_slice > 1:
        journal, start = restore_at(
            shard,
            agent=spec.name,
            partition=partition,
            number=options.from_slice - 1,
            table=table,
            inputs=inputs,
        )
    outputs = {
        topic: [
            logs.log(topic, place)
            for place in (
                range(logs.topics.partitions_of(topic))
                if topic == everywhere
                else (min(partition, logs.topics.partitions_of(topic) - 1),)
            )
        ]
        for topic in outgoing
    }
    return Verifier(
        spec.name,
        partition,
        shard,
        journal,
        journal_topic=spec.journal,
        inputs=inputs,
        outputs=outputs,
        table=table,
        table_start=start,
    )


def _slices(journal: Log, agent: str) -> Iterator[JournalledSlice]:
    for run in journal.runs(journal.first):
        for record in run:
            yield read_slice(record, agent, journal.partition)


def _check_inputs(journal: Log, inputs: dict[str, Log], agent: str, from_slice: int) -> None:
    """Refuse slices whose inputs retention deleted, and say which are left."""
    if not any(log.first for log in inputs.values()):
        return
    first_left, told = 1, ""
    for entry in _slices(journal, agent):
        for topic, first, _ in entry.runs:
            if first < inputs[topic].first:
                first_left = entry.number + 1
                told = f"{topic} partition {journal.partition} begins at {inputs[topic].first}"
    if from_slice < first_left:
        msg = (
            f"{agent} partition {journal.partition}: {told}, what is below was deleted; "
            f"slices from {first_left} on can be replayed (--from-slice {first_left})"
        )
        raise PartitionError(msg, code="SLV-513")


def _check_rulebook(entry: JournalledSlice, mine: Mapping[str, Any]) -> None:
    """Refuse a replay under other rules than the slice was made under."""
    if entry.rulebook.get("hash") != mine["hash"]:
        found = {name: entry.rulebook.get(name) for name in ("id", "version", "hash")}
        msg = (
            f"slice {entry.number} was made under rulebook {found['id']} version "
            f"{found['version']} ({str(found['hash'])[:12]}), this is {mine['id']} "
            f"({mine['hash'][:12]})"
        )
        raise ConfigError(msg, code="SLV-451")


class _Meter:
    """Turns positions into a share of all that is to be read."""

    def __init__(
        self,
        logs: Logs,
        spec: AgentSpec,
        partitions: Sequence[int],
        progress: Callable[[Progress], None],
    ) -> None:
        self._progress = progress
        self._spec = spec
        self._ends = {
            partition: {topic: logs.end(topic, partition) for topic in spec.inputs}
            for partition in partitions
        }
        self._total = sum(sum(ends.values()) for ends in self._ends.values()) or 1
        self._done_before = 0  # offsets of partitions done
        self._records_before = 0
        self._partition: int | None = None
        self._verifier: Verifier | None = None

    def enter(self, partition: int, verifier: Verifier) -> None:
        """Begin a partition."""
        if self._partition is not None and self._verifier is not None:
            self._done_before += sum(self._ends[self._partition].values())
            self._records_before += self._verifier.records
        self._partition, self._verifier = partition, verifier

    def tell(self) -> None:
        """Pass on how far it is."""
        assert self._verifier is not None
        done = self._done_before + sum(self._verifier.positions.values())
        self._progress(
            Progress(
                self._records_before + self._verifier.records,
                min(1.0, done / self._total),
                f"{self._spec.name} {self._partition} slice {self._verifier.number}",
            )
        )
