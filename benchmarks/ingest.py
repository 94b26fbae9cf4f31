"""How many trades a second does one worker make durable, exactly once, with every unit judged?

Events are records of ``trades.v1``, one partition, preloaded; accounts are all active and funded,
and marks are in force, so each trade is decoded, folded, judged, written to its account's row and
committed in its slice's transaction. Rates are events per second of wall time, and per CPU-second
of the worker (all its threads).

What is timed: from the first committed slice with trades to the last, as a read_committed reader of
``journal.v1`` sees them; the records seen first are not counted, so neither start-up nor restore
is in the figure. What is not done: liquidations (nobody is near trouble), marks during the run.
Restore, a figure of its own, is the measured worker's take-over: the account rows, and the deposits
read again for the duplicate window.
The run is checked afterwards: every trade counted once, none refused, and every position equal to
an independent sum.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.command import Measured, option, run, say
from benchmarks.pipeline import (
    Journal,
    Pipeline,
    Slice,
    Worker,
    produce,
    read_committed,
    run_peer,
    running_pipeline,
)
from benchmarks.workload import Message, Workload
from solvent.engine.journal import FENCE_KEY, SliceJournal
from solvent.engine.margin import MarginShard
from solvent.errors import InvariantError
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

__all__ = ["IngestOptions", "IngestRun", "measure"]

_RULEBOOK = "demo"
_READY_S = 180.0
_PEER_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """What is measured, and on what."""

    events: int = option(1_000_000, "trades", least=1_000, most=100_000_000)
    accounts: int = option(100_000, "active accounts", least=1, most=9_999_999)
    seed: int = option(7, "of the workload")
    slice_records: int = option(20_000, "most records in one transaction", least=1)
    faust_events: int = option(30_000, "trades the Faust peer reads; 0: leave it out")
    fetch_peer: bool = option(True, "measure the bare fetch loop")


SMOKE = IngestOptions(events=10_000, accounts=2_000, slice_records=500, faust_events=0)


@dataclass(slots=True)
class IngestRun:
    """What was seen of the measured worker; seconds between the first and the last slice seen."""

    records: int
    timed_records: int
    slices: int
    seconds: float
    cpu_seconds: float
    restored_rows: int
    restore_seconds: float


def measure(options: IngestOptions) -> Measured:
    """Run the benchmark and return its result.

    Raises
    ------
    SolventError
        Something the pipeline needs is missing, or the run was not complete and correct.
    """
    settings = load_settings()
    rulebook = builtin_rulebook(_RULEBOOK)
    workload = Workload(rulebook=rulebook, accounts=options.accounts, seed=options.seed)
    worker_settings = {
        "SOLVENT_RULEBOOK": _RULEBOOK,
        "SOLVENT_MAX_SLICE_RECORDS": str(options.slice_records),
    }
    with running_pipeline(settings) as pipeline:
        journal = Journal(pipeline)
        try:
            say("opening accounts")
            _open_accounts(pipeline, workload, journal, worker_settings)
            say(f"writing {options.events:,} trades")
            lots, size = _load_trades(pipeline, workload, options.events)
            rows_before = offsets_of(pipeline.bootstrap_servers, pipeline.topics.physical(ACCOUNTS))
            say("measuring the worker")
            found = _measure_worker(pipeline, journal, worker_settings, options.events)
        finally:
            journal.close()
        say("reading the table back")
        table, rows_written = _read_table(pipeline, rows_before[0][1])
        _check(pipeline, workload, options.events, table, lots)
        peers = _measure_peers(pipeline, options)
        published = {topic: _published(pipeline, topic) for topic in (LIQUIDATIONS, MARGIN_STATUS)}
    return Measured(
        figures=_figures(found, rows_written, peers),
        workload={
            "partitions": 1,
            "rulebook": rulebook.reference,
            "markets": len(rulebook.instruments),
            "bytes_a_trade": round(size / options.events, 1),
            "liquidations": published[LIQUIDATIONS],
            "status_changes": published[MARGIN_STATUS],
        },
        result_hash=_hash(table),
    )


# -- the run


def _open_accounts(
    pipeline: Pipeline, workload: Workload, journal: Journal, settings: dict[str, str]
) -> None:
    """Bring marks into force, then fund every account, by a worker of its own."""
    produce(pipeline, workload.ticks())
    worker = Worker(pipeline, "open", settings)
    try:
        for topic, count, what in (
            (MARKS, 1, "first marks"),
            (COLLATERAL, workload.accounts, "deposits"),
        ):
            if topic == COLLATERAL:
                produce(pipeline, workload.deposits())
            for _ in journal.follow(
                worker, lambda t, k=topic, n=count: t.get(k, 0) >= n, what=what, deadline_s=_READY_S
            ):
                pass
    finally:
        worker.stop()


def _load_trades(
    pipeline: Pipeline, workload: Workload, count: int
) -> tuple[NDArray[np.int64], int]:
    """Write the trades; return the lots each account must end with, and the bytes of the values."""
    lots = np.zeros((workload.accounts, len(workload.rulebook.instruments)), np.int64)
    size = 0

    def messages() -> Iterator[Message]:
        nonlocal size
        for fill in workload.fills(count):
            lots[fill.account, fill.instrument] += fill.lots
            message = workload.message(fill)
            size += len(message.value)
            yield message

    produce(pipeline, messages())
    return lots, size


def _measure_worker(
    pipeline: Pipeline, journal: Journal, settings: dict[str, str], count: int
) -> IngestRun:
    worker = Worker(pipeline, "measured", settings)
    seen: list[Slice] = []
    cpu: list[float] = []
    try:
        for part in journal.follow(
            worker, lambda t: t.get(TRADES, 0) >= count, what="trades", deadline_s=_READY_S
        ):
            if TRADES in part.counts:
                seen.append(part)
                cpu.append(machine.cpu_seconds(worker.pid))
    finally:
        worker.stop()
    acquired = next(line for line in worker.logged("lane_acquired") if line["agent"] == "margin")
    return IngestRun(
        records=sum(part.counts[TRADES] for part in seen),
        timed_records=sum(p.counts[TRADES] for p in seen if p.seen_s > seen[0].seen_s),
        slices=len(seen),
        seconds=seen[-1].seen_s - seen[0].seen_s,
        cpu_seconds=cpu[-1] - cpu[0],
        restored_rows=acquired["rows"],
        restore_seconds=acquired["seconds"],
    )


def _measure_peers(pipeline: Pipeline, options: IngestOptions) -> dict[str, dict[str, Any]]:
    topic = pipeline.topics.physical(TRADES)
    place = (pipeline.bootstrap_servers, topic)
    peers = {}
    if options.fetch_peer:
        say("measuring a bare fetch loop")
        peers["aiokafka_fetch"] = run_peer(
            "aiokafka_fetch", *place, str(options.events), deadline_s=_PEER_S
        )
    if options.faust_events:
        say("measuring stock Faust with a table")
        events = str(min(options.faust_events, options.events))
        folder = str(pipeline.folder / "faust-peer")
        peers["faust_table"] = run_peer("faust_table", *place, events, folder, deadline_s=_PEER_S)
    return peers


# -- what it left


def _read_table(pipeline: Pipeline, begin: int) -> tuple[dict[bytes, bytes], int]:
    """Return the account table by key, and how many account rows lie at or above an offset."""
    table: dict[bytes, bytes] = {}
    written = 0
    for record in read_committed(pipeline, ACCOUNTS):
        table[record.key] = record.value
        if record.offset >= begin and record.key[:1] != b"\0":
            written += 1
    return table, written


def _check(
    pipeline: Pipeline,
    workload: Workload,
    events: int,
    table: dict[bytes, bytes],
    lots: NDArray[np.int64],
) -> None:
    """Hold what was committed against what was sent."""
    journal, state = SliceJournal.from_fence("margin", 0, table[FENCE_KEY])
    counts = state["counts"]
    wrong = [
        f"{name} is {found}, {expected} expected"
        for name, found, expected in (
            ("trades", counts["trades"], events),
            ("moves", counts["moves"], workload.accounts),
            ("duplicates", counts["duplicate_trades"] + counts["duplicate_moves"], 0),
            ("rejects", counts["rejects"], 0),
            ("records in rejects", _published(pipeline, REJECTS), 0),
            ("next trades offset", journal.positions[TRADES], events),
        )
        if found != expected
    ]
    shard = MarginShard(0, workload.rulebook)
    for key, value in table.items():
        if key[:1] != b"\0":
            shard.load(key, value)
    shard.resume(journal.positions, state)
    if not np.array_equal(_lots(shard, lots.shape), lots):
        wrong.append("positions differ from the sum of the fills")
    if not state["mark_seq"]:
        wrong.append("no marks were in force")
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
    return len(read_committed(pipeline, topic))


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
    run: IngestRun, rows_written: int, peers: dict[str, dict[str, Any]]
) -> dict[str, float | None]:
    figures: dict[str, float | None] = {
        "solvent.events_per_s": _rate(run.timed_records, run.seconds),
        "solvent.events_per_cpu_s": _rate(run.timed_records, run.cpu_seconds),
        "solvent.seconds": round(run.seconds, 3),
        "solvent.slices": run.slices,
        "solvent.records_per_slice": round(run.records / run.slices, 1),
        "solvent.rows_written": rows_written,
        "solvent.rows_per_s": _rate(rows_written * run.timed_records / run.records, run.seconds),
        "solvent.restored_rows": run.restored_rows,
        "solvent.restore_rows_per_s": _rate(run.restored_rows, run.restore_seconds),
    }
    for name, found in peers.items():
        for unit, key in (("events_per_s", "seconds"), ("events_per_cpu_s", "cpu_seconds")):
            ours, theirs = figures[f"solvent.{unit}"], _rate(found["records"], found[key])
            figures[f"{name}.{unit}"] = theirs
            ratio = None if ours is None or not theirs else float(f"{ours / theirs:.3g}")
            figures[f"ratio.{unit}.solvent_to_{name}"] = ratio
    return figures


def _rate(count: float, seconds: float) -> float | None:
    """Return count a second in four figures; None if there was nothing to time."""
    if count <= 0 or seconds <= 0:
        return None
    rate = count / seconds
    return round(rate, max(0, 3 - math.floor(math.log10(rate))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; see `benchmarks.command.run`."""
    return run(
        "ingest", __doc__ or "", measure, full=IngestOptions(), smoke=SMOKE, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
