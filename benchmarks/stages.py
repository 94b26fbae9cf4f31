"""Where a trade's CPU time goes: the worker's own functions over the same records, stage by stage.

Runs in a process of its own and prints one JSON object. All trades are fetched first, then folded
and committed slice by slice, one thing at a time, so that the CPU seconds between two marks belong
to one stage:

========  ==========================================================================
fetch     receive, check sums, find the records of each batch (`RunConsumer`)
parse     JSON of each record to columns
resolve   account and market names to indices, duplicate window
fold      ledger and judgement of the touched units
rows      changed accounts to packed rows
journal   rolling hash, journal and fence records
batches   rows to Kafka record batches with their sums
commit    one transaction: produce requests, acknowledgements, end of the transaction
========  ==========================================================================

It writes into the pipeline's own tables, so it must be the last thing done to a pipeline.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from aiokafka import TopicPartition

from solvent.engine.journal import FENCE_KEY, SliceJournal
from solvent.engine.margin import MarginShard, warm_up
from solvent.engine.rows import Rows
from solvent.engine.run import Run
from solvent.kernel import batches
from solvent.rules import builtin_rulebook
from solvent.runtime import writer as writing
from solvent.runtime.raw import RunConsumer
from solvent.runtime.writer import PartitionWriter, Target, tune_transactions
from solvent.wire.topics import ACCOUNTS, COLLATERAL, JOURNAL, MARKS, TRADES, Topics

__all__ = ["STAGES", "measure"]

STAGES = ("fetch", "parse", "resolve", "fold", "rows", "journal", "batches", "commit")


class _Clock:
    """CPU seconds of this process by stage; of nested stages each gets its own part."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what the block takes to a stage, less what stages within it take."""
        before, began = sum(self.seconds.values()), time.process_time()
        yield
        within = sum(self.seconds.values()) - before
        self.seconds[name] += time.process_time() - began - within

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, adding what it takes to a stage."""

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            with self.stage(name):
                return function(*arguments, **named)

        return call


async def measure(
    bootstrap_servers: str, topics: Topics, rulebook: str, slice_records: int
) -> dict[str, Any]:
    """Fold and commit all trades of partition 0 once more; return CPU seconds by stage.

    Returns
    -------
    dict
        ``records``, ``slices``, ``cpu_seconds`` by stage, ``commit_ms`` (mean wall time of a
        transaction with nothing else to do).
    """
    warm_up()
    batches.warm_up()
    tune_transactions()
    clock = _Clock()
    shard = MarginShard(0, builtin_rulebook(rulebook))
    for topic in (MARKS, COLLATERAL):
        for run in await _fetch(bootstrap_servers, topics.physical(topic)):
            shard.apply(topic, run)
    shard.cut()
    with clock.stage("fetch"):
        runs = await _fetch(bootstrap_servers, topics.physical(TRADES))
    intake: Any = shard._intake  # noqa: SLF001 - its parts are stages
    intake._read = clock.timed("parse", intake._read)  # noqa: SLF001
    intake.read_trades = clock.timed("resolve", intake.read_trades)
    writing.record_batches = clock.timed("batches", writing.record_batches)
    writer = PartitionWriter(bootstrap_servers, f"{topics.prefix}stages")
    await writer.start()
    journal = SliceJournal("margin", 0)
    table, history = Target(topics.physical(ACCOUNTS), 0), Target(topics.physical(JOURNAL), 0)
    slices, commit_s = 0, 0.0
    for pieces in _slices(runs, slice_records):
        with clock.stage("fold"):
            for piece in pieces:
                shard.apply(TRADES, piece)
        with clock.stage("rows"):
            outputs = shard.cut()
        with clock.stage("journal"):
            for piece in pieces:
                journal.take(TRADES, int(piece.offset[0]), int(piece.offset[-1]), len(piece))
            closing = journal.close(outputs)
            fence = Rows.of([(FENCE_KEY, closing.fence_value)])
            record = Rows.of([(closing.journal_key, closing.journal_value)])
        began = time.monotonic()
        with clock.stage("commit"):
            await writer.write([(history, [record]), (table, [outputs.rows, fence])])
        commit_s += time.monotonic() - began
        slices += 1
    await writer.stop()
    return {
        "records": sum(map(len, runs)),
        "slices": slices,
        "cpu_seconds": {stage: clock.seconds[stage] for stage in STAGES},
        "commit_ms": 1000 * commit_s / slices,
    }


async def _fetch(bootstrap_servers: str, topic: str) -> list[Run]:
    consumer = RunConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    try:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        end = (await consumer.end_offsets([place]))[place]
        runs: list[Run] = []
        while await consumer.position(place) < end:
            runs += (await consumer.getmany(place, timeout_ms=1000)).values()
        return runs
    finally:
        await consumer.stop()


def _slices(runs: list[Run], size: int) -> Iterator[list[Run]]:
    """Yield runs in slices of so many records, the last may be smaller."""
    pieces: list[Run] = []
    room = size
    for run in runs:
        first = 0
        while first < len(run):
            piece = run[first : first + room]
            pieces.append(piece)
            first += len(piece)
            room -= len(piece)
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap_servers")
    parser.add_argument("prefix")
    parser.add_argument("rulebook")
    parser.add_argument("slice_records", type=int)
    given = parser.parse_args()
    topics = Topics(prefix=given.prefix, partitions=1)
    found = asyncio.run(
        measure(given.bootstrap_servers, topics, given.rulebook, given.slice_records)
    )
    print(orjson.dumps(found).decode(), flush=True)


if __name__ == "__main__":
    main()
