"""How many trades a second does a worker make durable, exactly once, with every unit judged?

Events are records of ``trades.v1``, preloaded; accounts are all active and funded, and marks are in
force, so each trade is decoded, folded, judged, written to its account's row and committed in its
slice's transaction. Rates are events per second of wall time, and per CPU-second of the workers
(all their threads).

Layouts are partitions x workers: ``solvent`` is the first, one partition and one worker; ``_4p``
has four partitions, ``_2w`` two workers that share them. The trades lie in one open transaction
until every worker is ready; clock and CPU counts start when it is committed, so no work is done
before, and end when a read_committed reader of ``journal.v1`` has seen the last slice: every trade
and all it cost is counted. Neither start-up nor restore is in it. Broker, workers and that reader
share this machine's cores: where they are fewer than busy processes, a second worker cannot double
the rate, and the rate per CPU-second is the one to compare. CPU seconds for the same work differ
between runs on a busy machine (twofold was seen): compare layouts and peers of a quiet one.

What is not done: liquidations (nobody is near trouble), marks during the run. Each run is checked
afterwards: every trade counted once, none refused, every position equal to an independent sum, and
the account tables of all layouts the same.

``budget`` is the CPU time of a record of the first layout by stage, in nanoseconds: the worker's
own functions over the same records, in slices of the same size, one stage at a time (what is in
each: `benchmarks.stages`). ``rest`` is what the measured worker took beyond their sum: event loop,
Faust, and what stages cost each other when they run at once.

Peers read the same records of the first layout, each in a process of its own, and judge nothing:
``aiokafka_fetch`` counts records; ``faust_table`` is a stock Faust agent with a table, at least
once; ``quix_eos`` is Quix Streams exactly-once with its state store; ``kafka_python`` is a loop
written by hand that folds into a dict and commits changed rows with its offsets
(`benchmarks.peers` says what each guarantees). Their clocks start at their first records, with what
was fetched ahead by then not charged to them.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.command import Measured, option, run, say
from benchmarks.pipeline import (
    Journal,
    Pipeline,
    Worker,
    held_back,
    produce,
    python_with,
    read_committed,
    run_process,
    running_pipeline,
    wait_ready,
)
from benchmarks.report import rate, ratio
from benchmarks.workload import Message, Workload
from solvent.engine.journal import FENCE_KEY, SliceJournal
from solvent.engine.margin import MarginShard
from solvent.engine.run import Record, Run
from solvent.errors import ConfigError, InvariantError, ServiceError
from solvent.kernel.layout import COUNT_UNITS
from solvent.ops.history import offsets_of
from solvent.rules import builtin_rulebook
from solvent.settings import load_settings
from solvent.wire.topics import (
    ACCOUNTS,
    COLLATERAL,
    LIQUIDATIONS,
    MARGIN_STATUS,
    MARKS,
    REJECTS,
    TRADES,
)

__all__ = ["IngestOptions", "Layout", "measure"]

_RULEBOOK = "demo"
_READY_S = 240.0
_PEER_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """What is measured, and on what."""

    layouts: str = option("1x1,4x1,4x2", "partitions x workers, by commas; peers read the first")
    events: int = option(1_000_000, "trades", least=1_000, most=100_000_000)
    accounts: int = option(100_000, "active accounts", least=1, most=9_999_999)
    seed: int = option(7, "of the workload")
    slice_records: int = option(20_000, "most records in one transaction", least=1)
    fetch_events: int = option(1_000_000, "trades the bare fetch loop reads; 0: leave it out")
    faust_events: int = option(30_000, "trades the Faust peer reads; 0: leave it out")
    quix_events: int = option(300_000, "trades the Quix Streams peer reads; 0: leave it out")
    kafka_python_events: int = option(
        100_000, "trades the kafka-python peer reads; 0: leave it out"
    )
    budget: bool = option(True, "measure the budget of a record by stage")


SMOKE = IngestOptions(
    layouts="1x1,2x2",
    events=10_000,
    accounts=2_000,
    slice_records=500,
    faust_events=2_000,
    quix_events=2_000,
    kafka_python_events=2_000,
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How many partitions and workers."""

    partitions: int
    workers: int

    @property
    def suffix(self) -> str:
        """What it adds to the names of figures."""
        partitions = f"_{self.partitions}p" if self.partitions > 1 else ""
        return partitions + (f"_{self.workers}w" if self.workers > 1 else "")

    @classmethod
    def read(cls, text: str) -> list[Layout]:
        """Read layouts such as ``1x1,4x2``.

        Raises
        ------
        ConfigError
            [SLV-400] It is none, a worker would have no partition, or peers could not read the
            first.
        """
        found = re.fullmatch(r"[1-9]\d?x[1-9](,[1-9]\d?x[1-9])*", text)
        layouts = [cls(*map(int, part.split("x"))) for part in text.split(",")] if found else []
        if not layouts or any(x.workers > x.partitions for x in layouts):
            msg = f"layouts {text!r}: PARTITIONSxWORKERS by commas, no more workers than partitions"
            raise ConfigError(msg)
        if layouts[0].partitions > 1:
            msg = f"layouts {text!r}: the first must have one partition, since peers read it"
            raise ConfigError(msg)
        return layouts


@dataclass(slots=True)
class IngestRun:
    """What was seen of measured workers, from the commit of the trades on, and what they left."""

    slices: int
    seconds: float
    cpu_seconds: float
    broker_cpu_seconds: float | None
    rows_written: int = 0
    result_hash: str = ""
    published: dict[str, int] = field(default_factory=dict)


def measure(options: IngestOptions) -> Measured:
    """Run the benchmark and return its result.

    Raises
    ------
    SolventError
        Something the pipeline needs is missing, or a run was not complete and correct.
    """
    layouts = Layout.read(options.layouts)
    settings = load_settings()
    rulebook = builtin_rulebook(_RULEBOOK)
    workload = Workload(rulebook=rulebook, accounts=options.accounts, seed=options.seed)
    runs: dict[Layout, IngestRun] = {}
    peers: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    budget: dict[str, float | None] = {}
    size = 0.0
    for layout in layouts:
        say(f"layout: partitions {layout.partitions}, workers {layout.workers}")
        with running_pipeline(settings, partitions=layout.partitions) as pipeline:
            runs[layout], size = _measure_layout(pipeline, layout, workload, options)
            if layout is layouts[0]:
                peers, missing = _measure_peers(pipeline, options)
                if options.budget:
                    say("measuring the budget of a record")
                    budget = _budget(pipeline, runs[layout], options)
    hashes = {found.result_hash for found in runs.values()}
    if len(hashes) > 1:
        msg = f"the account tables of the layouts {options.layouts} differ: {sorted(hashes)}"
        raise InvariantError(msg)
    first = runs[layouts[0]]
    versions = {k: v for found in peers.values() for k, v in found.get("versions", {}).items()}
    return Measured(
        figures=_figures(runs, peers, options.events) | budget,
        workload={
            "rulebook": rulebook.reference,
            "markets": len(rulebook.instruments),
            "bytes_a_trade": round(size, 1),
            "liquidations": first.published[LIQUIDATIONS],
            "status_changes": first.published[MARGIN_STATUS],
            **({"peers": missing} if missing else {}),
        },
        result_hash=first.result_hash,
        versions=versions,
    )


# -- one layout


def _measure_layout(
    pipeline: Pipeline,
    layout: Layout,
    workload: Workload,
    options: IngestOptions,
) -> tuple[IngestRun, float]:
    """Measure one layout; return what was found and the mean bytes of a trade."""
    given = {
        "SOLVENT_RULEBOOK": _RULEBOOK,
        "SOLVENT_MAX_SLICE_RECORDS": str(options.slice_records),
    }
    journal = Journal(pipeline)
    try:
        say("opening accounts")
        _open_accounts(pipeline, workload, journal, given)
        offsets = offsets_of(pipeline.bootstrap_servers, pipeline.topics.physical(ACCOUNTS))
        say(f"writing {options.events:,} trades")
        trades = _Trades(workload, options.events)
        with held_back(pipeline, trades.messages()) as release:
            found = _watch_workers(pipeline, journal, given, layout, options.events, release)
    finally:
        journal.close()
    say("reading the tables back")
    tables = [_read_table(pipeline, p, offsets[p][1]) for p in range(layout.partitions)]
    _check(pipeline, workload, options.events, [table for table, _ in tables], trades.lots)
    found.rows_written = sum(written for _, written in tables)
    found.result_hash = _hash({k: v for table, _ in tables for k, v in table.items()})
    found.published = {t: _published(pipeline, t) for t in (LIQUIDATIONS, MARGIN_STATUS)}
    return found, trades.bytes / options.events


def _open_accounts(
    pipeline: Pipeline, workload: Workload, journal: Journal, settings: dict[str, str]
) -> None:
    """Bring marks into force, then fund every account, by a worker of its own."""
    produce(pipeline, workload.ticks())
    worker = Worker(pipeline, "open", settings)
    try:
        for _ in journal.follow(
            [worker],
            lambda: all(counts[MARKS] for counts in journal.counts),
            what="first marks",
            deadline_s=_READY_S,
        ):
            pass
        produce(pipeline, workload.deposits())
        for _ in journal.follow(
            [worker],
            lambda: journal.total(COLLATERAL) >= workload.accounts,
            what="deposits",
            deadline_s=_READY_S,
        ):
            pass
    finally:
        worker.stop()


class _Trades:
    """The trades, and what they must come to: lots by account and instrument, bytes of values."""

    def __init__(self, workload: Workload, count: int) -> None:
        self._workload = workload
        self._count = count
        self.lots = np.zeros((workload.accounts, len(workload.rulebook.instruments)), np.int64)
        self.bytes = 0

    def messages(self) -> Iterator[Message]:
        """Yield each once, and add it up."""
        for fill in self._workload.fills(self._count):
            self.lots[fill.account, fill.instrument] += fill.lots
            message = self._workload.message(fill)
            self.bytes += len(message.value)
            yield message


@dataclass(frozen=True, slots=True)
class _Cpu:
    """CPU seconds used so far by all workers, and by the broker if it is ours."""

    workers_s: float
    broker_s: float | None

    @classmethod
    def read(cls, pipeline: Pipeline, workers: Sequence[Worker]) -> _Cpu:
        broker = pipeline.broker_pid
        return cls(
            sum(machine.cpu_seconds(worker.pid) for worker in workers),
            None if broker is None else machine.cpu_seconds(broker),
        )


def _watch_workers(
    pipeline: Pipeline,
    journal: Journal,
    settings: dict[str, str],
    layout: Layout,
    count: int,
    release: Callable[[], None],
) -> IngestRun:
    """Get workers ready, let them see the trades, and follow them to the last slice."""
    slices, ended_s = 0, 0.0
    with ExitStack() as stack:
        workers = []
        for number in range(layout.workers):
            workers.append(Worker(pipeline, f"measured-{number}", settings))
            stack.callback(workers[-1].stop)
        shares = wait_ready(workers, layout.partitions, _READY_S)
        say(f"measuring; partitions {' and '.join(str(sorted(share)) for share in shares)}")
        began_s, before = time.monotonic(), _Cpu.read(pipeline, workers)
        release()
        for part in journal.follow(
            workers, lambda: journal.total(TRADES) >= count, what="trades", deadline_s=_READY_S
        ):
            slices += TRADES in part.counts
            ended_s = part.seen_s
        after = _Cpu.read(pipeline, workers)
        if wait_ready(workers, layout.partitions, _READY_S) != shares:
            msg = "partitions moved between the workers while they were measured"
            raise ServiceError(msg)
    broker_s = [cpu.broker_s for cpu in (before, after) if cpu.broker_s is not None]
    return IngestRun(
        slices=slices,
        seconds=ended_s - began_s,
        cpu_seconds=after.workers_s - before.workers_s,
        broker_cpu_seconds=broker_s[1] - broker_s[0] if broker_s else None,
    )


# -- peers


def _measure_peers(
    pipeline: Pipeline, options: IngestOptions
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Measure each peer; return what they found, and which could not be measured and why."""
    place = (pipeline.bootstrap_servers, pipeline.topics.physical(TRADES))
    slice_records = str(options.slice_records)
    # name -> (what it imports, records, further arguments)
    plan: dict[str, tuple[str, int, tuple[str, ...]]] = {
        "aiokafka_fetch": ("aiokafka", options.fetch_events, ()),
        "faust_table": ("faust", options.faust_events, (str(pipeline.folder / "faust-peer"),)),
        "quix_eos": (
            "quixstreams",
            options.quix_events,
            (slice_records, str(pipeline.folder / "quix-peer")),
        ),
        "kafka_python": ("kafka", options.kafka_python_events, (slice_records,)),
    }
    found = {}
    missing = {}
    for name, (module, events, further) in plan.items():
        python = python_with(module)
        if not events:
            missing[name] = "left out"
        elif python is None:
            missing[name] = "not installed"
            say(f"peer {name}: {module} is not installed (`make bench` installs it)")
        else:
            say(f"measuring the peer {name}")
            count = str(min(events, options.events))
            found[name] = run_process(
                f"benchmarks.peers.{name}",
                *place,
                count,
                *further,
                deadline_s=_PEER_S,
                python=python,
            )
    return found, missing


def _budget(
    pipeline: Pipeline, measured: IngestRun, options: IngestOptions
) -> dict[str, float | None]:
    """Return nanoseconds of CPU a record by stage, beside what the measured worker took."""
    found = run_process(
        "benchmarks.stages",
        pipeline.bootstrap_servers,
        pipeline.topics.prefix,
        _RULEBOOK,
        str(math.ceil(options.events / measured.slices)),
        deadline_s=_PEER_S,
    )
    stages = {
        f"budget.{stage}_ns": round(1e9 * seconds / found["records"], 1)
        for stage, seconds in found["cpu_seconds"].items()
    }
    total = sum(stages.values())
    figures: dict[str, float | None] = {**stages, "budget.sum_ns": round(total, 1)}
    worker = 1e9 * measured.cpu_seconds / options.events
    figures |= {"budget.rest_ns": round(worker - total, 1), "budget.worker_ns": round(worker, 1)}
    return figures | {"budget.commit_wall_ms": round(found["commit_ms"], 2)}


# -- what it left


def _read_table(pipeline: Pipeline, partition: int, begin: int) -> tuple[dict[bytes, bytes], int]:
    """Return an account table by key, and how many account rows lie at or above an offset."""
    table: dict[bytes, bytes] = {}
    written = 0
    for record in read_committed(pipeline, ACCOUNTS, partition=partition):
        table[record.key] = record.value
        if record.offset >= begin and record.key[:1] != b"\0":
            written += 1
    return table, written


def _check(
    pipeline: Pipeline,
    workload: Workload,
    events: int,
    tables: list[dict[bytes, bytes]],
    lots: NDArray[np.int64],
) -> None:
    """Hold what was committed against what was sent."""
    counts: Counter[str] = Counter()
    positions: Counter[str] = Counter()
    found_lots = np.zeros_like(lots)
    for partition, table in enumerate(tables):
        journal, state = SliceJournal.from_fence("margin", partition, table[FENCE_KEY])
        counts.update(state["counts"])
        positions.update(journal.positions)
        if not state["mark_seq"]:
            raise InvariantError(f"partition {partition}: no marks were in force")
        shard = MarginShard(partition, workload.rulebook)
        rows = [Record(0, 0, key, value) for key, value in table.items() if key[:1] != b"\0"]
        shard.load(Run.of(rows))
        shard.resume(journal.positions, state)
        found_lots += _lots(shard, lots.shape)
    wrong = [
        f"{name} is {found}, {expected} expected"
        for name, found, expected in (
            ("trades", counts["trades"], events),
            ("moves", counts["moves"], workload.accounts),
            ("duplicates", counts["duplicate_trades"] + counts["duplicate_moves"], 0),
            ("rejects", counts["rejects"], 0),
            ("records in rejects", _published(pipeline, REJECTS), 0),
            ("next trades offset", positions[TRADES], events),
        )
        if found != expected
    ]
    if not np.array_equal(found_lots, lots):
        wrong.append("positions differ from the sum of the fills")
    if wrong:
        msg = "the measured run is not correct: " + "; ".join(wrong)
        raise InvariantError(msg)


def _lots(shard: MarginShard, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the signed lots by account number and instrument, of all units."""
    lots = np.zeros(shape, np.int64)
    columns = shard.columns
    units, positions = columns.units, columns.positions
    numbers = [int(name.rpartition("-")[2]) for name in columns.account_ids]
    for unit in range(int(columns.counts[COUNT_UNITS])):
        begin = int(units.first_position[unit])
        rows = slice(begin, begin + int(units.position_count[unit]))
        number = numbers[units.account[unit]]
        lots[number, positions.instrument[rows]] += positions.size_lots[rows]
    return lots


def _published(pipeline: Pipeline, topic: str) -> int:
    """Return how many records a topic holds; markers are no records."""
    partitions = range(pipeline.topics.partitions_of(topic))
    return sum(len(read_committed(pipeline, topic, partition=p)) for p in partitions)


def _hash(table: dict[bytes, bytes]) -> str:
    """Return a hash of the account rows in key order; slices and runs have no part in it."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(table):
        if key[:1] != b"\0":
            for part in (key, table[key]):
                digest.update(len(part).to_bytes(4, "little") + part)
    return digest.hexdigest()


# -- figures


def _figures(
    runs: dict[Layout, IngestRun], peers: dict[str, dict[str, Any]], events: int
) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for layout, found in runs.items():
        broker_s = found.broker_cpu_seconds
        for name, value in {
            "events_per_s": rate(events, found.seconds),
            "events_per_cpu_s": rate(events, found.cpu_seconds),
            "seconds": round(found.seconds, 3),
            "cpu_seconds": round(found.cpu_seconds, 2),
            "broker_cpu_seconds": None if broker_s is None else round(broker_s, 2),
            "slices": found.slices,
            "records_per_slice": round(events / found.slices, 1),
            "rows_written": found.rows_written,
            "rows_per_s": rate(found.rows_written, found.seconds),
        }.items():
            figures[f"solvent{layout.suffix}.{name}"] = value
    for name, result in peers.items():
        for unit, key in _UNITS:
            figures[f"{name}.{unit}"] = rate(result["records"], result[key])
    for name in peers:
        for unit, _ in _UNITS:
            figures[f"ratio.{unit}.solvent_to_{name}"] = ratio(
                figures[f"solvent.{unit}"], figures[f"{name}.{unit}"]
            )
    for layout in runs:
        one = Layout(layout.partitions, 1)
        if layout.workers > 1 and one in runs:
            for unit, _ in _UNITS:
                names = (f"solvent{layout.suffix}", f"solvent{one.suffix}")
                figures[f"ratio.{unit}.{names[0]}_to_{names[1]}"] = ratio(
                    *(figures[f"{name}.{unit}"] for name in names)
                )
    return figures


#: Unit of a rate -> the seconds it is over.
_UNITS = (("events_per_s", "seconds"), ("events_per_cpu_s", "cpu_seconds"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; see `benchmarks.command.run`."""
    return run(
        "ingest", __doc__ or "", measure, full=IngestOptions(), smoke=SMOKE, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
