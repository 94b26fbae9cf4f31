"""Logs to replay from: the topics of a broker, or a tape of them.

A tape is what was committed on a pipeline's topics at one moment, in one file: gzipped JSON lines,
first a header ``{"solvent_tape": 1, "topics": {topic: [first offset of each partition]}}``, then
``[topic, partition, offset, timestamp ms, key, value]`` a record, topics by logical name, each
partition in offset order. Bytes are text where they are UTF-8, else ``{"base64": ...}``. Headers
are left out: those of events are functions of key and value, those of inputs are not read.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from solvent.engine.replay import Log
from solvent.engine.run import Record, Run
from solvent.errors import ConfigError, ServiceError
from solvent.ops.broker import tcp_open
from solvent.runtime.reader import RunReader
from solvent.wire.topics import TOPICS, Role, Topics

__all__ = ["KafkaLogs", "Logs", "Tape", "write_tape"]

_CHUNK: Final = 5_000  # records in a run
_SETTLE_S: Final = 3.0  # a commit's markers reach all its partitions within moments
_SETTLE_STEP_S: Final = 0.05
_VERSION: Final = 1


class Logs(Protocol):
    """The logs of a pipeline."""

    #: how many partitions a topic has
    topics: Topics

    def log(self, topic: str, partition: int) -> Log:
        """Return one partition of a topic, by logical name."""
        ...

    def end(self, topic: str, partition: int) -> int:
        """Return the next offset to come of a partition."""
        ...


class KafkaLogs:
    """The topics of a broker, read committed; a context, which closes its connections.

    Parameters
    ----------
    bootstrap_servers : str
        Broker addresses.
    topics : Topics
        Names and partitions.
    """

    def __init__(self, bootstrap_servers: str, topics: Topics) -> None:
        self.topics = topics
        self._bootstrap_servers = bootstrap_servers
        self._bounds: dict[str, dict[int, tuple[int, int]]] = {}

    def __enter__(self) -> KafkaLogs:
        return self

    def __exit__(self, *_raised: object) -> None:
        if "reader" in self.__dict__:
            self.reader.close()

    @cached_property
    def reader(self) -> RunReader:
        """What reads them; closed when the context ends.

        Raises
        ------
        ServiceError
            [SLV-608] The broker does not answer.
        """
        servers = [server.strip() for server in self._bootstrap_servers.split(",")]
        if not any(tcp_open(server, timeout_s=3.0) for server in servers if server):
            msg = f"no Kafka at {self._bootstrap_servers}: run `solvent kafka start`"
            raise ServiceError(msg, code="SLV-608")
        return RunReader(self._bootstrap_servers)

    def log(self, topic: str, partition: int) -> Log:
        """Return one partition of a topic.

        Raises
        ------
        ServiceError
            [SLV-608, SLV-610] No broker, no topic or no such partition.
        """
        first, _ = self._bounds_of(topic, partition)
        return _KafkaLog(self, topic, partition, first)

    def end(self, topic: str, partition: int) -> int:
        """Return the last stable offset, as it was when the topic was first looked at."""
        return self._bounds_of(topic, partition)[1]

    def _bounds_of(self, topic: str, partition: int) -> tuple[int, int]:
        if topic not in self._bounds:
            self._bounds[topic] = self.look(topic)
        bounds = self._bounds[topic]
        if partition not in bounds:
            msg = f"topic {topic} has no partition {partition}, only {len(bounds)} partitions"
            raise ServiceError(msg, code="SLV-610")
        return bounds[partition]

    def look(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return first and next offset of each partition now."""
        return self.reader.bounds(self.topics.physical(topic))


class _KafkaLog:
    def __init__(self, logs: KafkaLogs, topic: str, partition: int, first: int) -> None:
        self._logs = logs
        self.topic = topic
        self.partition = partition
        self.first = first

    def runs(self, start: int) -> Iterator[Run]:
        physical = self._logs.topics.physical(self.topic)
        return self._logs.reader.runs(physical, self.partition, start)

    def grows_beyond(self, offset: int) -> bool:
        deadline = time.monotonic() + _SETTLE_S
        while self._logs.look(self.topic)[self.partition][1] <= offset:
            if time.monotonic() > deadline:
                return False
            time.sleep(_SETTLE_STEP_S)
        return True


def _in_runs(records: Iterator[Record]) -> Iterator[Run]:
    part: list[Record] = []
    for record in records:
        part.append(record)
        if len(part) == _CHUNK:
            yield Run.of(part)
            part = []
    if part:
        yield Run.of(part)


# -- tapes


class Tape:
    """A tape in memory; a context like `KafkaLogs`, with nothing to close.

    Parameters
    ----------
    path : Path
        Written by `write_tape`.

    Raises
    ------
    ConfigError
        [SLV-450] No such file, or it is no tape.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[tuple[str, int], list[Record]] = {}
        try:
            with gzip.open(path, "rb") as lines:
                header = orjson.loads(next(lines, b""))
                self._firsts: dict[str, list[int]] = header["topics"]
                if header["solvent_tape"] != _VERSION:
                    msg = f"tape {path}: version {header['solvent_tape']}, {_VERSION} expected"
                    raise ConfigError(msg, code="SLV-450")
                for line in lines:
                    topic, partition, offset, timestamp, key, value = orjson.loads(line)
                    record = Record(offset, timestamp, _bytes(key), _bytes(value))
                    self._records.setdefault((topic, partition), []).append(record)
        except OSError as error:
            msg = f"tape {path}: {error.strerror or error}"
            raise ConfigError(msg, code="SLV-450") from None
        except (EOFError, KeyError, TypeError, ValueError, binascii.Error) as error:
            msg = f"file {path} is no tape ({type(error).__name__}: {error})"
            raise ConfigError(msg, code="SLV-450") from None
        self.topics = Topics(partitions=max(len(firsts) for firsts in self._firsts.values()))
        self._inputs = {
            spec.name: self.topics.partitions_of(spec.name)
            for spec in TOPICS
            if spec.role is Role.INPUT
        }

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, *_raised: object) -> None:
        return None

    def log(self, topic: str, partition: int) -> Log:
        """Return one partition of a topic.

        Raises
        ------
        ConfigError
            [SLV-450] It is not on the tape.
        """
        firsts = self._firsts.get(topic, [])
        if not firsts:  # a tape older than the topic, if that is one of inputs: nothing was in it
            firsts = [0] * self._inputs.get(topic, 0)
        if partition >= len(firsts):
            msg = f"tape {self._path} has no {topic} partition {partition}"
            raise ConfigError(msg, code="SLV-450")
        records = self._records.get((topic, partition), [])
        return _TapeLog(topic, partition, firsts[partition], records)

    def end(self, topic: str, partition: int) -> int:
        """Return the offset after the last record."""
        records = self._records.get((topic, partition))
        return records[-1].offset + 1 if records else 0


class _TapeLog:
    def __init__(self, topic: str, partition: int, first: int, records: list[Record]) -> None:
        self.topic = topic
        self.partition = partition
        self.first = first
        self._records = records

    def runs(self, start: int) -> Iterator[Run]:
        yield from _in_runs(record for record in self._records if record.offset >= start)

    def grows_beyond(self, offset: int) -> bool:
        del offset
        return False


def write_tape(path: Path, logs: KafkaLogs) -> int:
    """Write all that is committed on a pipeline's topics now, and return how many records.

    Journals first, so that what they name is there; a pipeline at work may be further than they
    are in the end, so stop its workers if the tape is to end with its last slice.

    Raises
    ------
    ConfigError
        [SLV-450] The file cannot be written.
    ServiceError
        [SLV-608, SLV-610] No broker, or not all topics.
    """
    count = 0
    places = [
        (spec.name, partition)
        for spec in TOPICS
        for partition in range(logs.topics.partitions_of(spec.name))
    ]
    places.sort(key=lambda place: "journal" not in place[0])
    firsts: dict[str, list[int]] = {}
    for topic, partition in places:
        firsts.setdefault(topic, []).append(logs.log(topic, partition).first)
    try:
        # no name and no time in the gzip header: the same records make the same file
        with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as out:
            out.write(orjson.dumps({"solvent_tape": _VERSION, "topics": firsts}) + b"\n")
            for topic, partition in places:
                log = logs.log(topic, partition)
                for record in (record for run in log.runs(log.first) for record in run):
                    key, value = _shown(record.key), _shown(record.value)
                    line = [topic, partition, record.offset, record.timestamp, key, value]
                    out.write(orjson.dumps(line) + b"\n")
                    count += 1
    except OSError as error:
        msg = f"tape {path}: {error.strerror}"
        raise ConfigError(msg, code="SLV-450") from None
    return count


def _shown(raw: bytes | None) -> str | dict[str, str] | None:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def _bytes(shown: Any) -> bytes | None:  # noqa: ANN401 - JSON data
    if shown is None or isinstance(shown, str):
        return None if shown is None else shown.encode()
    return base64.b64decode(shown["base64"], validate=True)
