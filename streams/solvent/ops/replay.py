"""Replay a history without a journal: files or topics, merged by event time, in one process.

Files are those `solvent load` takes (`solvent.ops.files`), price bars too, and no broker is needed
for them; topics are read as they are now, and their records keep offsets and Kafka times. What the
replay brings can be kept in a folder, one file a topic: the values of its records, partition by
partition, one a line (or Parquet, a column a field); of ``accounts.v1`` the accounts as they are in
the end. How records are merged, and where slices are cut: `solvent.engine.merge`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol, TypeVar

import numpy as np
import orjson

from solvent.engine.margin import MarginShard, warm_up
from solvent.engine.merge import ORDER, Arrivals, EventTimeReplay, windows
from solvent.engine.replay import ReplayedSlice
from solvent.engine.run import Record, Run
from solvent.errors import ConfigError, ContractError
from solvent.kernel import lines
from solvent.kernel.layout import Int32
from solvent.ops import load
from solvent.ops.files import BadRow, Keyed, keyed, read_values, times_of
from solvent.ops.logs import Logs
from solvent.ops.verify import Progress
from solvent.rules import CompiledRulebook
from solvent.settings import limit_polars_threads
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    ACCOUNTS,
    JOURNAL,
    LIQUIDATION_STATE,
    MARKS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
)

__all__ = [
    "ReplayOptions",
    "ReplayReport",
    "Source",
    "bars_source",
    "file_source",
    "input_files",
    "kept_source",
    "records_source",
    "replay",
    "topic_sources",
]

_T = TypeVar("_T")

#: What the name of a file begins with -> the topic its records are of.
_TOPICS: Final = {topic.partition(".")[0]: topic for topic in ORDER}
_SUFFIXES: Final = (".jsonl", ".parquet")
_BAR_CHUNK: Final = 10_000
_NEVER_US: Final = -(2**63)


class Source(Protocol):
    """One sequence of input records.

    Attributes
    ----------
    name, topic : str
        For people; logical.
    size, done : int
        How much there is to read, and how much of it was read, in one unit.
    """

    name: str
    topic: str
    size: int
    done: int

    def parts(self) -> Iterator[tuple[Keyed, Int32 | None]]:
        """Yield records, and their partitions if they have some already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """How to replay.

    Attributes
    ----------
    partitions : int
        Margin partitions.
    slice_records : int
        Records of a margin partition after which its slice is cut; it decides the hash.
    skip_bad : bool
        Count rows without a key or a time and go on; else the first one ends the replay.
    out : Path, optional
        New or empty folder for what the replay brings.
    form : str
        ``jsonl`` or ``parquet``.
    """

    partitions: int = 4
    slice_records: int = 1_000_000
    skip_bad: bool = False
    out: Path | None = None
    form: Literal["jsonl", "parquet"] = "jsonl"


@dataclass(slots=True, kw_only=True)
class ReplayReport:
    """What was replayed, and what it brought.

    Attributes
    ----------
    inputs : list of dict
        ``name``, ``topic``, ``records``, ``bad`` of each sequence.
    counts, events : dict of str to int
        Records applied, and records brought, by topic.
    late : int
        Records whose own time was before one their sequence had reached.
    reached_us : int
        Event time up to which all is applied.
    hash : str
        One hash over `hashes`, the rolling hashes of all partitions.
    """

    inputs: list[dict[str, Any]] = field(default_factory=list)
    first_bad: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    late: int = 0
    reached_us: int = 0
    slices: int = 0
    hashes: dict[str, dict[int, str]] = field(default_factory=dict)
    hash: str = ""
    seconds: float = 0.0
    is_interrupted: bool = False

    @property
    def records(self) -> int:
        """Input records applied; frames made here are not among them."""
        topics = {told["topic"] for told in self.inputs}
        return sum(count for topic, count in self.counts.items() if topic in topics)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "interrupted": self.is_interrupted,
            "records": self.records,
            "seconds": round(self.seconds, 3),
            "records_per_s": round(self.records / self.seconds) if self.seconds else 0,
            "slices": self.slices,
            "hash": self.hash,
            "hashes": {
                agent: {str(partition): told for partition, told in hashes.items()}
                for agent, hashes in self.hashes.items()
            },
            "counts": self.counts,
            "events": self.events,
            "late": self.late,
            "reached_us": self.reached_us,
            "inputs": self.inputs,
            "first_bad": self.first_bad,
        }


# -- sources


def input_files(paths: Sequence[str]) -> list[tuple[str, Path]]:
    """Return (topic, file) of what ``--inputs`` names: ``TOPIC=FILE``, a file, a folder of files.

    A file whose name begins with ``trades``, ``collateral``, ``oracle-ticks`` or ``marks`` holds
    records of that topic; of a folder all such files count, ordered by name.

    Raises
    ------
    ConfigError
        [SLV-452] A name tells no topic, or a folder has no such file.
    """
    found: list[tuple[str, Path]] = []
    for text in paths:
        topic, equals, name = text.partition("=")
        if equals and topic in ORDER:
            found.append((topic, Path(name)))
            continue
        path = Path(text)
        if not path.is_dir():
            found.append((_topic_of(path), path))
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and _told(p))
        if not inside:
            msg = f"folder {path} has no files named {', '.join(_TOPICS)}*{'|'.join(_SUFFIXES)}"
            raise ConfigError(msg, code="SLV-452")
        found += [(_topic_of(p), p) for p in inside]
    return found


def _told(path: Path) -> str | None:
    return next((topic for stem, topic in _TOPICS.items() if path.name.startswith(stem)), None)


def _topic_of(path: Path) -> str:
    topic = _told(path)
    if topic is None:
        msg = (
            f"file {path}: its name tells no topic; begin it with {', '.join(_TOPICS)}, "
            "or give TOPIC=FILE"
        )
        raise ConfigError(msg, code="SLV-452")
    return topic


class _FileSource:
    def __init__(self, path: Path, topic: str) -> None:
        if path.suffix == ".parquet" and topic == MARKS:
            msg = f"file {path}: mark frames are read from JSON lines only"
            raise ConfigError(msg, code="SLV-452")
        self.name = str(path)
        self.topic = topic
        self._path = path
        try:
            self.size = path.stat().st_size
        except OSError as error:
            msg = f"file {path}: {error.strerror}"
            raise ConfigError(msg, code="SLV-430") from None
        self.done = 0

    def parts(self) -> Iterator[tuple[Keyed, Int32 | None]]:
        for values, share in read_values(self._path, self.topic):
            yield keyed(values, self.topic), None
            self.done = round(self.size * share)


def file_source(path: Path, topic: str) -> Source:
    """Return the records of a file of one input topic.

    Raises
    ------
    ConfigError
        [SLV-430, SLV-452] No such file, or a format its topic does not come in.
    """
    return _FileSource(path, topic)


class _BarsSource:
    def __init__(self, path: Path, options: load.BarOptions) -> None:
        self.name = str(path)
        self.topic = ORACLE_TICKS
        self._sequence = load.bars_sequence(path, options)
        self.size = path.stat().st_size
        self.done = 0

    def parts(self) -> Iterator[tuple[Keyed, Int32 | None]]:
        records: list[Record] = []
        times: list[int] = []
        bad: list[BadRow] = []
        total = self._sequence.size or 1
        for count, row in enumerate(self._sequence.rows(), start=1):
            if isinstance(row, BadRow):
                bad.append(row)
            else:
                records.append(Record(row.number, -(-row.ts_us // 1000), row.key, row.value))
                times.append(row.ts_us)
            if len(records) == _BAR_CHUNK or count == total:
                self.done = self.size * count // total
                yield Keyed(Run.of(records), np.array(times, np.int64), bad), None
                records, times, bad = [], [], []


class _RecordsSource:
    def __init__(
        self, name: str, topic: str, records: Sequence[tuple[bytes, bytes]], at_us: int
    ) -> None:
        self.name = name
        self.topic = topic
        self.size = len(records)
        self.done = 0
        self._records = records
        self._at_us = at_us

    def parts(self) -> Iterator[tuple[Keyed, Int32 | None]]:
        if self._records:
            at_ms = -(-self._at_us // 1000)
            run = Run.of(
                [Record(n, at_ms, key, value) for n, (key, value) in enumerate(self._records, 1)]
            )
            yield Keyed(run, np.full(len(run), self._at_us, np.int64), []), None
        self.done = self.size


class _KeptSource:
    def __init__(self, source: Source) -> None:
        self.name = source.name
        self.topic = source.topic
        self.size = source.size
        self.done = 0
        self._source = source
        self._parts: list[tuple[Keyed, Int32 | None]] | None = None

    def parts(self) -> Iterator[tuple[Keyed, Int32 | None]]:
        if self._parts is None:
            self._parts = list(self._source.parts())
        yield from self._parts
        self.done = self.size


def kept_source(source: Source) -> Source:
    """Return a source whose records stay in memory, for several replays of it."""
    return _KeptSource(source)


def records_source(
    name: str, topic: str, records: Sequence[tuple[bytes, bytes]], at_us: int
) -> Source:
    """Return records (key, value) at hand as a sequence, all due at one time."""
    return _RecordsSource(name, topic, records, at_us)


def bars_source(path: Path, options: load.BarOptions) -> Source:
    """Return ticks and clock records along the bars of a Parquet file (`solvent.ops.load`).

    Raises
    ------
    ConfigError
        [SLV-430] No such file or columns, or none of the symbols is in it.
    """
    return _BarsSource(path, options)


class _TopicSource:
    """One partition of a topic; what has no time, or one from the future, moves no time."""

    def __init__(self, logs: Logs, topic: str, partition: int, max_future_us: int) -> None:
        self.name = f"{topic} partition {partition}"
        self.topic = topic
        self._partition = partition
        self._log = logs.log(topic, partition)
        self._max_future_us = max_future_us
        self._begin = self._log.first
        self.size = max(0, logs.end(topic, partition) - self._begin)
        self.done = 0

    def parts(self) -> Iterator[tuple[Keyed, Int32 | None]]:
        for run in self._log.runs(self._begin):
            ts_us, is_known = times_of(run, self.topic)
            is_known &= ts_us <= run.timestamp_ms * 1000 + self._max_future_us
            told = Keyed(run, np.where(is_known, ts_us, _NEVER_US), [])
            yield told, np.full(len(run), self._partition, np.int32)
            self.done = int(run.offset[-1]) + 1 - self._begin


def topic_sources(logs: Logs, rulebook: CompiledRulebook) -> list[Source]:
    """Return every partition of the account topics and of oracle-ticks.

    Raises
    ------
    ServiceError
        [SLV-608, SLV-610] No broker, or not all topics.
    """
    return [
        _TopicSource(logs, topic, partition, rulebook.max_future_us)
        for topic in (*ACCOUNT_INPUTS, ORACLE_TICKS)
        for partition in range(logs.topics.partitions_of(topic))
    ]


# -- the replay


def replay(
    sources: Sequence[Source],
    rulebook: CompiledRulebook,
    options: ReplayOptions,
    *,
    is_numbered: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    is_stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[str, int, ReplayedSlice], None] = lambda _agent, _partition, _slice: None,
) -> ReplayReport:
    """Merge sources by event time and replay them through the price side and the margin side.

    Parameters
    ----------
    sources : sequence of Source
        Of one topic in the order of records of the same time; either ticks or frames of marks.
    rulebook : CompiledRulebook
        The rules.
    options : ReplayOptions
        How.
    is_numbered : bool
        The sources are topics, whose records have offsets.
    progress, is_stopped : callable
        Told, and asked whether to end there, from time to time.
    tell : callable
        Told of every slice, with its agent and partition: a partition's in order, those of several
        from several threads.

    Raises
    ------
    ConfigError
        [SLV-452] Both ticks and marks; [SLV-453] the folder is not empty or cannot be written.
    ContractError
        A row has no key or time, unless `skip_bad`.
    """
    if {ORACLE_TICKS, MARKS} <= {source.topic for source in sources}:
        msg = f"both {ORACLE_TICKS} and {MARKS} given: prices come from one of them"
        raise ConfigError(msg, code="SLV-452")
    limit_polars_threads()
    ordered = sorted(sources, key=lambda source: ORDER.index(source.topic))
    warm_up()  # not to be timed
    lines.warm_up()
    report = ReplayReport()
    events: Counter[tuple[str, str, int]] = Counter()  # of each partition by one thread only
    output = _Output(options.out, options.form) if options.out is not None else None

    def on_slice(agent: str, partition: int, brought: ReplayedSlice) -> None:
        events.update(
            (emit.topic, agent, partition)
            for emit in brought.outputs.records
            if emit.topic != LIQUIDATION_STATE  # what stands, not what happened
        )
        if output is not None:
            output.add(agent, partition, brought)
        tell(agent, partition, brought)

    engine = EventTimeReplay(
        rulebook,
        partitions=options.partitions,
        slice_records=options.slice_records,
        is_numbered=is_numbered,
        on_slice=on_slice,
    )
    began = time.monotonic()
    total = sum(source.size for source in ordered) or 1
    sequences = [_arrivals(source, options, report) for source in ordered]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for window in _read_ahead(windows(sequences), pool):
            engine.advance(window, pool.map)
            done = sum(source.done for source in ordered)
            records = sum(count for topic, count in engine.counts.items() if topic != MARKS)
            progress(Progress(records, min(1.0, done / total), _moment(engine.reached_us)))
            report.is_interrupted = is_stopped()
            if report.is_interrupted:
                break
    engine.finish()
    report.seconds = time.monotonic() - began
    if output is not None:
        output.finish(engine.shards)
    report.counts = engine.counts
    for (topic, _, _), count in events.items():
        report.events[topic] = report.events.get(topic, 0) + count
    report.reached_us, report.slices = engine.reached_us, engine.slices
    report.hashes, report.hash = engine.hashes, engine.final_hash
    return report


def _read_ahead(parts: Iterator[_T], pool: Executor) -> Iterator[_T]:
    """Yield what an iterator does, getting the next while the last is used."""
    ahead = pool.submit(next, parts, None)
    while (part := ahead.result()) is not None:
        ahead = pool.submit(next, parts, None)
        yield part


def _moment(ts_us: int) -> str:
    return str(np.datetime64(ts_us, "us").astype("datetime64[s]"))


def _arrivals(source: Source, options: ReplayOptions, report: ReplayReport) -> Iterator[Arrivals]:
    told: dict[str, Any] = {"name": source.name, "topic": source.topic, "records": 0, "bad": 0}
    report.inputs.append(told)
    latest = _NEVER_US
    for part, partition in source.parts():
        told["bad"] += len(part.bad)
        for row in part.bad[:1]:
            report.first_bad = report.first_bad or f"{source.name} row {row.number}: {row.reason}"
            if not options.skip_bad:
                raise ContractError(report.first_bad, code=row.code)
        count = len(part.run)
        if not count:
            continue
        told["records"] += count
        at_us = np.maximum.accumulate(np.maximum(part.ts_us, latest))
        latest = int(at_us[-1])
        is_late = (part.ts_us < at_us) & (part.ts_us != _NEVER_US)
        report.late += int(np.count_nonzero(is_late))
        if partition is None:
            partition = _partitions(part.run, source.topic, options.partitions)
        yield Arrivals(source.topic, part.run, at_us, partition)


def _partitions(run: Run, topic: str, count: int) -> Int32:
    out = np.zeros(len(run), np.int32)
    if count > 1 and topic in ACCOUNT_INPUTS:
        lines.partition_jit(run.data, run.key_first, run.key_size, len(run), count, out)
    return out


# -- what it brought


class _Output:
    """A folder with one file a topic; while it grows, one a topic, agent and partition."""

    def __init__(self, folder: Path, form: str) -> None:
        self._folder = folder
        self._form = form
        self._parts: dict[tuple[str, str, int], IO[bytes]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                msg = f"folder {folder} is not empty"
                raise ConfigError(msg, code="SLV-453")
        except OSError as error:
            msg = f"folder {folder}: {error.strerror}"
            raise ConfigError(msg, code="SLV-453") from None

    def add(self, agent: str, partition: int, brought: ReplayedSlice) -> None:
        """Add what a slice brought."""
        for emit in brought.outputs.records:
            if emit.topic != LIQUIDATION_STATE:
                self._write(emit.topic, agent, partition, emit.value or b"")
        journal = JOURNAL if agent == "margin" else PRICE_JOURNAL
        self._write(journal, agent, partition, brought.journal_value)

    def finish(self, shards: Sequence[MarginShard]) -> None:
        """Write the accounts, and put the parts together."""
        for shard in shards:
            for account in shard.accounts():
                self._write(ACCOUNTS, "margin", shard.partition, orjson.dumps(account))
        whole: dict[str, list[Path]] = {}
        for topic, agent, partition in sorted(self._parts):
            self._parts[topic, agent, partition].close()
            whole.setdefault(topic, []).append(self._path(topic, agent, partition))
        for topic, parts in whole.items():
            path = self._folder / f"{topic}.jsonl"
            with path.open("wb") as out:
                for part in parts:
                    with part.open("rb") as content:
                        shutil.copyfileobj(content, out)
                    part.unlink()
            if self._form == "parquet":
                import polars as pl

                frame = pl.read_ndjson(path, infer_schema_length=None)
                if topic == MARKS and "rulebook" in frame.columns:  # a document, no table: as text
                    as_text = {"rulebook": pl.String}
                    frame = pl.read_ndjson(path, infer_schema_length=None, schema_overrides=as_text)
                frame.write_parquet(path.with_suffix(".parquet"))
                path.unlink()

    def _write(self, topic: str, agent: str, partition: int, value: bytes) -> None:
        place = (topic, agent, partition)
        if place not in self._parts:
            self._parts[place] = self._path(*place).open("wb")
        self._parts[place].write(value + b"\n")

    def _path(self, topic: str, agent: str, partition: int) -> Path:
        return self._folder / f".{topic}.{agent}.{partition:05}"
