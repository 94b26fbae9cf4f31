"""How long do marks and liquidation events pause when a worker is killed, stopped or restarted?

Two workers share four partitions and the price agent; ticks come at a steady pace, and nearly each
brings one liquidation event a partition (`benchmarks.waves`). A read_committed reader notes when
frames and events become visible; a gap is the longest silence of one partition from a second before
the fault until all lanes are ready again. Silence begins at the last frame before the fault, so
twice the tick interval is the floor.

``kill``: kill -9 of the worker that prices, started again at once under its name (a static member);
``kill_renamed``: under a new name, which is what a dynamic member would see; ``kill_alone``: not
started again, so the others must find out by the session timeout, ``_short`` with a short one;
``stop``: SIGTERM, not started again; ``rolling``: SIGTERM and start of one worker after the other,
each when the last is ready. ``marks`` are gaps of the mark frames, ``events`` those of every
partition; percentiles over partitions and rounds.
Checked: mark frames without a gap in their sequence, revisions of each case without a gap and none
twice. The result hash covers the faults, not the times.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from hdrh.histogram import HdrHistogram

from benchmarks import machine
from benchmarks.command import Measured, option, run, say
from benchmarks.pipeline import Pipeline, Worker, produce, running_pipeline
from benchmarks.waves import Waves
from benchmarks.workload import START_US, Message, Workload
from solvent.errors import ConfigError, InvariantError, ServiceError
from solvent.ops.population import population
from solvent.rules import builtin_rulebook
from solvent.settings import load_settings
from solvent.wire.topics import COLLATERAL, LIQUIDATIONS, MARKS, ORACLE_TICKS, TRADES

__all__ = ["FailoverOptions", "measure"]

_RULEBOOK = "demo"
_CANARY_MARKET = "ALGO-PERP"
_READY_S = 180.0
_POLL_S = 0.02
_CALM_S = 1.0  # of undisturbed running before a fault and after it
_HIGHEST_MS = 600_000
_WORKERS = 2
_SHORT = "_short"  # after a fault's name: with the short session timeout
_TICKS_OF_A_CREW = 1_000_000  # at most; far below the clock skew that the price agent allows


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverOptions:
    """What is done, on what."""

    accounts: int = option(20_000, "accounts with positions, in all partitions", least=10)
    partitions: int = option(4, "partitions", least=1, most=64)
    ticks: float = option(50.0, "ticks a second", least=5)
    rounds: int = option(3, "rounds of each fault", least=1)
    session: float = option(6.0, "session timeout of the workers, s", least=1, most=300)
    short_session: float = option(1.5, "the short session timeout, s", least=1, most=300)
    faults: str = option(
        "kill,kill_renamed,kill_alone,stop,rolling,kill_alone_short", "which, by comma"
    )
    seed: int = option(7, "of the population")


SMOKE = FailoverOptions(accounts=200, partitions=2, rounds=1, session=3.0, faults="kill,rolling")


@dataclass(slots=True)
class _Gaps:
    """Gaps of one kind of fault, ms."""

    marks: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)


def measure(options: FailoverOptions) -> Measured:
    """Run every fault.

    Raises
    ------
    SolventError
        Something the pipeline needs is missing, or an output is missing or doubled.
    """
    gaps: dict[str, _Gaps] = defaultdict(_Gaps)
    with running_pipeline(load_settings(), partitions=options.partitions) as pipeline:
        _fill(pipeline, options)
        chosen = _chosen(options.faults)
        for number, session_s in enumerate((options.session, options.short_session)):
            is_short = number > 0
            mine = [name for name in chosen if name.endswith(_SHORT) == is_short]
            if not mine:
                continue
            crew = _Crew(pipeline, session_s, begin_us=number * _TICKS_OF_A_CREW)
            with crew.running(options):
                for name in mine:
                    for _ in range(options.rounds):
                        _FAULTS[name.removesuffix(_SHORT)](crew, gaps[name])
                    say(f"{name}: {_shown(gaps[name])}")
            crew.watched.check()
    figures: dict[str, float | None] = {}
    for name, found in gaps.items():
        for what, values in (("marks", found.marks), ("events", found.events)):
            histogram = HdrHistogram(1, _HIGHEST_MS, 3)
            for value in values:
                histogram.record_value(max(1, round(value)))
            for label, percentile in (("p50", 50), ("p99", 99)):
                gap = histogram.get_value_at_percentile(percentile)
                figures[f"{name}.{what}_gap_{label}_ms"] = gap
    faults_done = orjson.dumps({name: len(found.marks) for name, found in gaps.items()})
    return Measured(
        figures=figures,
        workload={"workers": _WORKERS},
        result_hash=hashlib.blake2b(faults_done, digest_size=16).hexdigest(),
        versions={name: machine.version_of(name) for name in ("confluent-kafka", "hdrhistogram")},
    )


# -- faults


def _kill(crew: _Crew, gaps: _Gaps) -> None:
    """Kill the worker that prices; its supervisor starts it again at once."""
    with crew.observed(gaps):
        name = crew.pricing()
        crew.kill(name)
        crew.start(name)


def _kill_renamed(crew: _Crew, gaps: _Gaps) -> None:
    """Kill the worker that prices; another comes in its place."""
    with crew.observed(gaps):
        crew.kill(crew.pricing())
        crew.start(crew.new_name())


def _kill_alone(crew: _Crew, gaps: _Gaps) -> None:
    """Kill the worker that prices; nobody comes until the others have taken over."""
    with crew.observed(gaps):
        name = crew.pricing()
        crew.kill(name)
    crew.start(name)
    crew.wait_ready()


def _stop(crew: _Crew, gaps: _Gaps) -> None:
    """Stop the worker that prices; nobody comes until the others have taken over."""
    with crew.observed(gaps):
        name = crew.pricing()
        crew.stop(name)
    crew.start(name)
    crew.wait_ready()


def _rolling(crew: _Crew, gaps: _Gaps) -> None:
    """Restart one worker after the other."""
    for name in sorted(crew.names):
        with crew.observed(gaps):
            crew.stop(name)
            crew.start(name)


_FAULTS: dict[str, Callable[[_Crew, _Gaps], None]] = {
    "kill": _kill,
    "kill_renamed": _kill_renamed,
    "kill_alone": _kill_alone,
    "stop": _stop,
    "rolling": _rolling,
}


def _chosen(faults: str) -> list[str]:
    """Return the names of faults in a list.

    Raises
    ------
    ConfigError
        [SLV-400] There is no such fault.
    """
    names = faults.split(",")
    for name in names:
        if name.removesuffix(_SHORT) not in _FAULTS:
            msg = f"fault {name!r}: {', '.join(_FAULTS)} expected, with {_SHORT} at will"
            raise ConfigError(msg)
    return names


# -- how


class _Crew:
    """The workers of a pipeline."""

    def __init__(self, pipeline: Pipeline, session_s: float, begin_us: int) -> None:
        self._pipeline = pipeline
        self._session_s = session_s
        self._begin_us = begin_us
        self._workers: dict[str, Worker] = {}
        self._started = 0
        self.watched: _Watcher

    @property
    def names(self) -> list[str]:
        """Names of the living workers."""
        return list(self._workers)

    @contextmanager
    def running(self, options: FailoverOptions) -> Iterator[None]:
        """Start all workers, and ticks, and stop them afterwards."""
        try:
            for _ in range(_WORKERS):
                self.start(self.new_name())
            self.wait_ready()
            with (
                _Watcher(self._pipeline) as self.watched,
                _ticking(self._pipeline, options, self._begin_us),
            ):
                self.watched.wait_for_frames(self._check)
                yield
        finally:
            for worker in self._workers.values():
                worker.stop()

    def new_name(self) -> str:
        """Return a name that no worker had."""
        self._started += 1
        return f"w{self._session_s:g}-{self._started}"

    def start(self, name: str) -> None:
        """Start a worker under a name in the group."""
        settings = {
            "SOLVENT_RULEBOOK": _RULEBOOK,
            "SOLVENT_INSTANCE_ID": name,
            "SOLVENT_SESSION_TIMEOUT_S": str(self._session_s),
        }
        self._started += 1
        self._workers[name] = Worker(self._pipeline, f"{name}-{self._started}", settings)

    def kill(self, name: str) -> None:
        """Kill a worker, kill -9."""
        worker = self._workers.pop(name)
        os.kill(worker.pid, signal.SIGKILL)
        worker.stop()  # reap

    def stop(self, name: str) -> None:
        """Stop a worker, SIGTERM, and wait for its end."""
        self._workers.pop(name).stop()

    def pricing(self) -> str:
        """Return the name of the worker that prices."""
        for name, worker in self._workers.items():
            ready = worker.logged("worker_ready")
            if ready and "prices-0" in ready[-1]["lanes"]:
                return name
        msg = "no worker prices"
        raise ServiceError(msg)

    def wait_ready(self) -> None:
        """Wait until the living workers hold every lane, all in one generation."""
        wanted = {f"margin-{p}" for p in range(self._pipeline.topics.partitions)} | {"prices-0"}
        end = time.monotonic() + _READY_S
        while time.monotonic() < end:
            self._check()
            last = [w.logged("worker_ready")[-1:] for w in self._workers.values()]
            if all(last):
                lanes = [lane for line in last for lane in line[0]["lanes"]]
                generations = {line[0]["generation"] for line in last}
                if len(generations) == 1 and sorted(lanes) == sorted(wanted):
                    return
            time.sleep(_POLL_S)
        msg = f"the workers did not hold every lane within {_READY_S:.0f} s"
        raise ServiceError(msg)

    @contextmanager
    def observed(self, gaps: _Gaps) -> Iterator[None]:
        """Note the gaps that what is done inside brings."""
        time.sleep(_CALM_S)
        begin = time.monotonic() - _CALM_S
        yield
        self.wait_ready()
        self.watched.wait_for_frames(self._check)
        time.sleep(_CALM_S)
        marks, events = self.watched.gaps(begin, time.monotonic())
        gaps.marks.append(max(marks))
        gaps.events.extend(events)

    def _check(self) -> None:
        for worker in self._workers.values():
            worker.check()


class _Watcher:
    """Notes when mark frames and liquidation events of each partition become visible."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._partitions = pipeline.topics.partitions
        self._topics = {pipeline.topics.physical(t): t for t in (MARKS, LIQUIDATIONS)}
        self._seen: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._values: dict[tuple[str, int], list[bytes]] = defaultdict(list)
        self._stop = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": pipeline.bootstrap_servers,
                "group.id": "failover-watcher",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.min.bytes": 1,
            }
        )
        self._consumer.assign(
            [TopicPartition(t, p, 0) for t in self._topics for p in range(self._partitions)]
        )
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _watch(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                place = self._topics[message.topic()], message.partition()
                self._seen[place].append(time.monotonic())
                self._values[place].append(message.value())

    def wait_for_frames(self, check: Callable[[], None]) -> None:
        """Wait until every partition has shown a new frame and a new event."""
        places = [(t, p) for t in (MARKS, LIQUIDATIONS) for p in range(self._partitions)]
        before = {place: len(self._seen[place]) for place in places}
        end = time.monotonic() + _READY_S
        while any(len(self._seen[place]) == before[place] for place in places):
            check()
            if time.monotonic() > end:
                msg = f"no frames or events of some partition within {_READY_S:.0f} s"
                raise ServiceError(msg)
            time.sleep(_POLL_S)

    def gaps(self, begin: float, end: float) -> tuple[list[float], list[float]]:
        """Return the longest silence of each partition, ms: of frames and of events."""
        return (
            [self._gap(MARKS, p, begin, end) for p in range(self._partitions)],
            [self._gap(LIQUIDATIONS, p, begin, end) for p in range(self._partitions)],
        )

    def _gap(self, topic: str, partition: int, begin: float, end: float) -> float:
        times = [begin, *(s for s in list(self._seen[topic, partition]) if begin < s < end), end]
        return max(b - a for a, b in pairwise(times)) * 1000

    def check(self) -> None:
        """Hold what was seen against what must be: nothing missing, nothing twice.

        Raises
        ------
        InvariantError
            A frame or a revision is missing or doubled.
        """
        wrong = []
        for (topic, partition), values in self._values.items():
            records = [orjson.loads(value) for value in values]
            if topic == MARKS:
                found = [record["seq"] for record in records]
                if found != list(range(1, len(found) + 1)):
                    wrong.append(f"mark frames of partition {partition} are not 1, 2, 3, ...")
                continue
            cases: dict[str, list[int]] = defaultdict(list)
            for record in records:
                cases[record["liquidation_id"]].append(record["revision"])
            wrong += [
                f"case {name} has revisions {revisions}"
                for name, revisions in cases.items()
                if revisions != list(range(1, len(revisions) + 1))
            ]
        if wrong:
            msg = f"after the faults: {'; '.join(wrong[:3])} ({len(wrong)} such)"
            raise InvariantError(msg)


def _fill(pipeline: Pipeline, options: FailoverOptions) -> None:
    """Write accounts, canaries and first prices; the workers will read them."""
    waves = _waves(options)
    workload = waves.workload
    prices = {
        feed.name: str(workload.mid(feed.name.partition("/")[0]))
        for feed in workload.rulebook.feeds
        if feed.name != _CANARY_MARKET
    }
    accounts = list(
        population(
            workload.rulebook,
            {name: price.removesuffix(".0") for name, price in prices.items()},
            accounts=options.accounts,
            seed=options.seed,
            ts_us=START_US,
        )
    )
    for partition in range(options.partitions):
        canaries = list(waves.accounts(partition))
        mine = accounts[partition :: options.partitions]
        moves = [Message(COLLATERAL, a.key, v) for a in mine for v in a.moves]
        trades = [Message(TRADES, a.key, v) for a in mine for v in a.trades]
        produce(pipeline, moves + [m for m, _ in canaries], partition=partition)
        produce(pipeline, trades + [t for _, t in canaries], partition=partition)
    produce(pipeline, workload.ticks(START_US))


def _waves(options: FailoverOptions) -> Waves:
    workload = Workload(
        rulebook=builtin_rulebook(_RULEBOOK), accounts=options.accounts, seed=options.seed
    )
    return Waves(workload=workload, market=_CANARY_MARKET, pause=1)


@contextmanager
def _ticking(pipeline: Pipeline, options: FailoverOptions, begin_us: int) -> Iterator[None]:
    """Write ticks at a steady pace meanwhile, a microsecond of event time apart."""
    producer = Producer(
        {"bootstrap.servers": pipeline.bootstrap_servers, "linger.ms": 0, "acks": "all"}
    )
    topic = pipeline.topics.physical(ORACLE_TICKS)
    stop = threading.Event()

    def tick() -> None:
        waves = _waves(options)
        next_s = time.monotonic()
        first = begin_us
        while not stop.is_set():
            for value in waves.ticks(1, first):
                producer.produce(topic, value, _CANARY_MARKET.encode(), 0)
                producer.poll(0)
                next_s += 1 / options.ticks
                if stop.wait(max(0.0, next_s - time.monotonic())):
                    break
            first += waves.steps_in
        producer.flush(10)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _shown(gaps: _Gaps) -> str:
    marks, events = sorted(gaps.marks), sorted(gaps.events)
    return (
        f"marks {', '.join(f'{gap:,.0f}' for gap in marks)} ms; events median "
        f"{events[len(events) // 2]:,.0f}, longest {events[-1]:,.0f} ms"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; see `benchmarks.command`."""
    return run(
        "failover",
        __doc__ or "",
        measure,
        full=FailoverOptions(),
        smoke=SMOKE,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
