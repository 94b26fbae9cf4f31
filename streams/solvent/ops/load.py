"""Put history into the input topics: JSON lines, Parquet, or price bars turned into ticks.

Prices and sizes stay decimal text, times are microseconds of event time. A file is a numbered
sequence of records; each record carries two headers, ``solvent-file`` (which sequence) and
``solvent-row`` (its number), from which a later load knows where to go on.

What a load guarantees. Every row is checked by the wire codec before anything of it is sent. Rows
of a partition are appended in the order of the file, each once: the producer is idempotent, so
its own retries make no doubles and no holes. A load that was stopped, or killed, goes on after the
highest row each partition has of the same sequence, found among the partition's last
``resume_window`` records; so a row is appended once, provided that (1) two loads of one file do not
run at the same time, (2) no more than ``resume_window`` records of others were appended meanwhile,
and (3) no request of a *killed* load was still on its way when the next one looked (the broker
takes such a request within moments or never). Should that fail, the doubles carry the same ids and
times, and the engine counts them as duplicates.

The sequence is named by the file's bytes and the options that decide its records; ``--from``,
``--to`` and pacing are not among them, so a file can be loaded in parts, earlier parts first.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from solvent.errors import ConfigError, ContractError, ServiceError
from solvent.ops.broker import tcp_open
from solvent.ops.files import KEYS, BadRow, decimal_text, parquet_size, read_values
from solvent.ops.history import offsets_of, read_topic
from solvent.wire.inputs import (
    encode_clock,
    encode_tick,
)
from solvent.wire.topics import ORACLE_TICKS, Topics

__all__ = [
    "FILE_HEADER",
    "ROW_HEADER",
    "BadRow",
    "BarOptions",
    "LoadOptions",
    "LoadSummary",
    "Row",
    "Sequence",
    "bars_sequence",
    "file_sequence",
    "load",
    "parse_time",
]

FILE_HEADER: Final = "solvent-file"
ROW_HEADER: Final = "solvent-row"
_CLOCK_KEY: Final = b"clock"
#: Places of a bar's open, first extreme, second extreme and close, in quarters of the bar.
_PATH_QUARTERS: Final = (0, 1, 2, 3)
_CHUNK: Final = 200  # rows between looks at pacing, failures and progress


class Row(NamedTuple):
    """One record to load: its number in the sequence from 1, key, value and event time."""

    number: int
    key: bytes
    value: bytes
    ts_us: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """A numbered sequence of records for one topic.

    Attributes
    ----------
    id : str
        16 hexadecimal digits: the content and the options that decide the records.
    topic : str
        Logical name.
    size : int or None
        How many rows there are, for the progress bar; None if not known beforehand.
    rows : callable
        Starts the sequence from its first row.
    is_by_time : bool
        Times never run back, so nothing after the end of the range is of interest.
    """

    id: str
    topic: str
    size: int | None
    rows: Callable[[], Iterator[Row | BadRow]]
    is_by_time: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BarOptions:
    """How OHLC bars become ticks.

    Attributes
    ----------
    feeds : mapping of symbol to feeds
        Which feeds each symbol's bars price; other symbols are passed over.
    source : str
        Source named in the ticks.
    bar_us : int, optional
        Length of a bar; the smallest step between bars without it.
    """

    feeds: Mapping[str, tuple[str, ...]]
    source: str = "bars"
    bar_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Which rows to load, and how fast.

    Attributes
    ----------
    skip_bad : bool
        Count rows the codec refuses and go on; else the first one ends the load.
    from_us, to_us : int, optional
        Event times: rows from the first, before the second.
    rate : float, optional
        At most so many records a second.
    speed : float, optional
        Event seconds a second: 1 plays history in its own time.
    resume : bool
        Look for rows loaded before and leave them out.
    resume_window : int
        How many records at the end of each partition are looked at for that.
    """

    skip_bad: bool = False
    from_us: int | None = None
    to_us: int | None = None
    rate: float | None = None
    speed: float | None = None
    resume: bool = True
    resume_window: int = 100_000


@dataclass(slots=True, kw_only=True)
class LoadSummary:
    """What a load did; `as_json` is the shape of ``--json``."""

    file: str
    sequence: str
    topic: str
    rows: int = 0
    sent: int = 0
    already_loaded: int = 0
    outside_range: int = 0
    bad: int = 0
    first_bad: str | None = None
    first_ts_us: int | None = None
    last_ts_us: int | None = None
    seconds: float = 0.0
    partitions: dict[int, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON data."""
        content = asdict(self)
        content["partitions"] = {str(key): count for key, count in self.partitions.items()}
        return content


# -- sequences


def file_sequence(path: Path, topic: str) -> Sequence:
    """Return the records of a JSON-lines or Parquet file (``.parquet``) of one input topic.

    How a row becomes a record: `solvent.ops.files`.

    Raises
    ------
    ConfigError
        [SLV-430] Not an input topic, or no such file.
    """
    if topic not in KEYS:
        msg = f"topic {topic} takes no loads, only {', '.join(sorted(KEYS))}"
        raise ConfigError(msg, code="SLV-430")
    name = _content_id(path, topic)
    size = parquet_size(path) if path.suffix == ".parquet" else None
    return Sequence(name, topic, size, lambda: _file_rows(path, topic))


def bars_sequence(path: Path, options: BarOptions) -> Sequence:
    """Return ticks and clock records along the bars of a Parquet file.

    Columns ``ts`` (bar open, timestamp), ``symbol``, ``open``, ``high``, ``low``, ``close``. Within
    a bar the price goes open, low, high, close if it rose or stayed, else open, high, low, close,
    at 0, 1/4, 2/4 and 3/4 of the bar. At each of these times: a clock record, so that no tick runs
    ahead of it; the ticks of all feeds; a clock record, so that a frame of marks has exactly this
    time.

    Raises
    ------
    ConfigError
        [SLV-430] No such file or columns, or none of the symbols is in it.
    """
    import polars as pl

    if not path.is_file():
        msg = f"file {path} does not exist"
        raise ConfigError(msg, code="SLV-430")
    columns = ["ts", "symbol", "open", "high", "low", "close"]
    try:
        bars = pl.read_parquet(path, columns=columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"file {path} has no bars: {str(error).splitlines()[0]}"
        raise ConfigError(msg, code="SLV-430") from None
    bars = (
        bars.filter(pl.col("symbol").is_in(list(options.feeds)))
        .with_columns(ts_us=pl.col("ts").dt.epoch("us"))
        .sort("ts_us", "symbol")
    )
    if bars.is_empty():
        msg = f"file {path} has no bars of {', '.join(options.feeds)}"
        raise ConfigError(msg, code="SLV-430")
    times = bars["ts_us"].unique().sort()
    bar_us = options.bar_us or int(times.diff().min() or 60_000_000)  # type: ignore[arg-type]
    name = _content_id(path, f"{sorted(options.feeds.items())} {options.source} {bar_us}")
    ticks = sum(len(options.feeds[symbol]) for symbol in bars["symbol"].to_list())
    size = len(_PATH_QUARTERS) * (ticks + 2 * len(times))
    table = bars.select("ts_us", "symbol", "open", "high", "low", "close")
    return Sequence(
        name, ORACLE_TICKS, size, lambda: _bar_rows(table, bar_us, options), is_by_time=True
    )


def _checked(number: int, value: bytes, topic: str) -> Row | BadRow:
    try:
        key, ts_us = KEYS[topic](value)
    except ContractError as error:
        return BadRow(number, error.message, error.code)
    return Row(number, key, value, ts_us)


def _file_rows(path: Path, topic: str) -> Iterator[Row | BadRow]:
    for values, _ in read_values(path, topic):
        bad = iter(values.bad)
        next_bad = next(bad, None)
        for record in values.run:
            while next_bad is not None and next_bad.number < record.offset:
                yield next_bad
                next_bad = next(bad, None)
            yield _checked(record.offset, record.value or b"", topic)
        yield from (row for row in (next_bad, *bad) if row is not None)


def _bar_rows(table: Any, bar_us: int, options: BarOptions) -> Iterator[Row | BadRow]:  # noqa: ANN401 - a polars frame
    number = 0
    for (ts_us,), group in table.group_by(["ts_us"], maintain_order=True):
        paths = [
            (feed, _path(*prices))
            for _, symbol, *prices in group.iter_rows()
            for feed in options.feeds[symbol]
        ]
        for quarter in _PATH_QUARTERS:
            at_us = ts_us + quarter * bar_us // len(_PATH_QUARTERS)
            number += 1
            yield Row(number, _CLOCK_KEY, encode_clock(at_us), at_us)
            for feed, path in paths:
                number += 1
                try:
                    price = decimal_text(path[quarter])
                except (TypeError, ValueError) as error:
                    yield BadRow(number, f"bar of {feed} at {ts_us}: {error}")
                    continue
                value = encode_tick(source=options.source, feed=feed, price=price, ts_us=at_us)
                yield _checked(number, value, ORACLE_TICKS)
            number += 1
            yield Row(number, _CLOCK_KEY, encode_clock(at_us), at_us)


def _path(open_: float, high: float, low: float, close: float) -> tuple[float, float, float, float]:
    """Return the four prices of a bar in the order they are taken to have come."""
    if close >= open_:
        return open_, low, high, close
    return open_, high, low, close


def _content_id(path: Path, *options: str) -> str:
    digest = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    except OSError as error:
        msg = f"file {path}: {error.strerror}"
        raise ConfigError(msg, code="SLV-430") from None
    digest.update("\n".join(("", *options)).encode())
    return digest.hexdigest()


# -- loading


def load(
    sequence: Sequence,
    *,
    file: str,
    bootstrap_servers: str,
    topics: Topics,
    options: LoadOptions,
    progress: Callable[[int], None] = lambda _rows: None,
) -> LoadSummary:
    """Append a sequence to its topic; see the module for what that guarantees.

    Parameters
    ----------
    sequence : Sequence
        From `file_sequence` or `bars_sequence`.
    file : str
        Named in the summary.
    progress : callable
        Told every few hundred rows how many are done; the load waits until it returns.

    Raises
    ------
    ContractError
        A bad row, unless `skip_bad`; the rows before it were loaded.
    ServiceError
        [SLV-608] The broker does not answer or refuses a record; [SLV-610] the topic is missing.
    """
    physical = topics.physical(sequence.topic)
    summary = LoadSummary(file=file, sequence=sequence.id, topic=sequence.topic)
    started = time.monotonic()
    done = _rows_loaded(bootstrap_servers, physical, sequence.id, options)
    partition_of = _partitioner(len(done))
    pace = _Pace(options)
    with _Producer(bootstrap_servers, physical) as producer:
        for row in sequence.rows():
            summary.rows += 1
            if isinstance(row, BadRow):
                summary.bad += 1
                summary.first_bad = summary.first_bad or f"row {row.number}: {row.reason}"
                if not options.skip_bad:
                    msg = f"{file} row {row.number}: {row.reason}"
                    raise ContractError(msg, code=row.code)
                continue
            if summary.rows % _CHUNK == 0:
                producer.check()
                progress(summary.rows)
            if sequence.is_by_time and options.to_us is not None and row.ts_us >= options.to_us:
                break
            if not _is_in_range(row.ts_us, options):
                summary.outside_range += 1
                continue
            partition = partition_of(row.key)
            if row.number <= done[partition]:
                summary.already_loaded += 1
                continue
            pace.wait(row.ts_us, producer.flush)
            headers = [(FILE_HEADER, sequence.id.encode()), (ROW_HEADER, b"%d" % row.number)]
            producer.send(partition, row, headers)
            summary.sent += 1
            summary.partitions[partition] = summary.partitions.get(partition, 0) + 1
            if summary.first_ts_us is None:
                summary.first_ts_us = row.ts_us
            summary.last_ts_us = row.ts_us
    progress(summary.rows)
    summary.partitions = dict(sorted(summary.partitions.items()))
    summary.seconds = round(time.monotonic() - started, 3)
    return summary


def parse_time(text: str) -> int:
    """Return event time microseconds of ``2021-05-19T12:00`` (UTC unless it says) or an integer.

    Raises
    ------
    ConfigError
        [SLV-431] It is neither.
    """
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = f"time {text!r} is neither ISO 8601 nor microseconds"
        raise ConfigError(msg, code="SLV-431") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def _is_in_range(ts_us: int, options: LoadOptions) -> bool:
    return not (
        (options.from_us is not None and ts_us < options.from_us)
        or (options.to_us is not None and ts_us >= options.to_us)
    )


def _rows_loaded(
    bootstrap_servers: str, physical: str, sequence_id: str, options: LoadOptions
) -> dict[int, int]:
    """Return the highest row of the sequence in each partition, 0 where there is none.

    Uncommitted records are looked at too: an executor's open transaction would hide ours behind it.
    """
    ends = offsets_of(bootstrap_servers, physical, committed=False)
    highest = dict.fromkeys(ends, 0)
    if not options.resume:
        return highest
    start = {place: max(first, end - options.resume_window) for place, (first, end) in ends.items()}
    wanted = sequence_id.encode()
    for record in read_topic(bootstrap_servers, physical, start=start, committed=False):
        headers = dict(record.headers)
        if headers.get(FILE_HEADER) == wanted:
            row = int(headers[ROW_HEADER])
            highest[record.partition] = max(highest[record.partition], row)
    return highest


def _partitioner(count: int) -> Callable[[bytes], int]:
    """Return Kafka's default partitioner, remembering keys: hashing in Python is slow."""
    from kafka.partitioner.default import murmur2

    known: dict[bytes, int] = {}

    def partition_of(key: bytes) -> int:
        partition = known.get(key)
        if partition is None:
            partition = known[key] = (int(murmur2(key)) & 0x7FFFFFFF) % count
        return partition

    return partition_of


class _Pace:
    """Hold rows back to a rate, or to event time times a speed."""

    def __init__(self, options: LoadOptions) -> None:
        self._rate = options.rate
        self._speed = options.speed
        self._started = time.monotonic()
        self._first_us: int | None = None
        self._sent = 0

    def wait(self, ts_us: int, flush: Callable[[], None]) -> None:
        """Wait until this row is due; what was sent before goes out first."""
        if self._rate is None and self._speed is None:
            return
        if self._first_us is None:
            self._first_us, self._started = ts_us, time.monotonic()
        due = 0.0
        if self._speed is not None:
            due = (ts_us - self._first_us) / 1e6 / self._speed
        if self._rate is not None:
            due = max(due, self._sent / self._rate)
        self._sent += 1
        ahead = self._started + due - time.monotonic()
        if ahead > 0.001:
            flush()
            time.sleep(max(0.0, self._started + due - time.monotonic()))


class _Producer:
    """kafka-python's idempotent producer for one topic; the first failure ends the load."""

    def __init__(self, bootstrap_servers: str, physical: str) -> None:
        from kafka import KafkaProducer

        servers = [server.strip() for server in bootstrap_servers.split(",") if server.strip()]
        if not any(tcp_open(server, timeout_s=3.0) for server in servers):
            msg = f"no Kafka at {bootstrap_servers}: run `solvent kafka start`"
            raise ServiceError(msg, code="SLV-608")
        self._physical = physical
        self._failure: BaseException | None = None
        self._producer: Any = KafkaProducer(
            bootstrap_servers=servers,
            enable_idempotence=True,
            acks="all",
            linger_ms=20,
            batch_size=256 * 1024,
        )

    def __enter__(self) -> _Producer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        try:
            if self._failure is None:
                self.flush()
        finally:
            self._producer.close()
        if kind is None:
            self.check()

    def send(self, partition: int, row: Row, headers: list[tuple[str, bytes]]) -> None:
        """Queue one record."""
        self._producer.send(
            self._physical, value=row.value, key=row.key, headers=headers, partition=partition
        ).add_errback(self._failed)

    def flush(self) -> None:
        """Wait until everything queued is acknowledged."""
        self._producer.flush()
        self.check()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            msg = f"topic {self._physical} refused a record: {failure}"
            raise ServiceError(msg, code="SLV-608") from failure

    def _failed(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
