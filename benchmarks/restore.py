"""How fast does a worker take a partition over, beside a bare read of the same changelog?

One partition of ``accounts.v1`` is written by the worker's own path: deposits and trades lie in the
input topics, a lane folds them and commits each block of accounts in one transaction, with fence
and journal, so that every account has one row, as after compaction. Then, in turns and each in a
process of its own:

- ``restore_shard`` up to a shard that may fold, duplicate window left out (``rows_per_s``,
  ``seconds``); rows include fences and claims;
- a whole `Lane.acquire`, as a worker calls it: producer, claim, rows, and the duplicate window,
  which reads the last 100,000 trades and deposits again (``ready_seconds``);
- a bare aiokafka loop over the same records, read_committed, that looks at none.

Medians of the rounds. Checked: every restored shard has the bytes of all rows, and the counters, of
the shard that wrote them.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.command import Measured, option, run, say
from benchmarks.pipeline import Pipeline, produce, run_process, running_pipeline
from benchmarks.report import rate, ratio
from benchmarks.take_over import margin_lane, table_digest
from benchmarks.workload import Message, Workload
from solvent.engine.margin import MarginShard
from solvent.engine.run import Record, Run
from solvent.errors import InvariantError
from solvent.rules import builtin_rulebook
from solvent.runtime.lane import Lane, LaneLimits
from solvent.runtime.transport import Frame
from solvent.settings import load_settings
from solvent.wire.topics import ACCOUNTS, COLLATERAL, TRADES

__all__ = ["SMOKE", "RestoreOptions", "as_run", "blocks", "measure"]

_RULEBOOK = "demo"
_CHILD_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """What is measured, and on what."""

    accounts: int = option(1_000_000, "accounts, each with one row", least=1, most=9_999_999)
    trades_per_account: int = option(2, "trades an account, on random markets", least=0, most=100)
    block: int = option(10_000, "accounts in one transaction", least=1)
    rounds: int = option(3, "how often each read is done", least=1, most=100)
    seed: int = option(7, "of the workload")


SMOKE = RestoreOptions(accounts=5_000, block=1_000, rounds=1)


def measure(options: RestoreOptions) -> Measured:
    """Run the benchmark and return its result.

    Raises
    ------
    SolventError
        Something the pipeline needs is missing, or a restored shard differs.
    """
    rulebook = builtin_rulebook(_RULEBOOK)
    workload = Workload(rulebook=rulebook, accounts=options.accounts, seed=options.seed)
    found: dict[str, list[dict[str, Any]]] = {"bare": [], "table": [], "lane": []}
    with running_pipeline(load_settings(), partitions=1) as pipeline:
        say(f"writing the changelog of {options.accounts:,} accounts")
        written = asyncio.run(_write(pipeline, workload, options))
        place = (pipeline.bootstrap_servers, pipeline.topics.prefix, _RULEBOOK)
        topic = pipeline.topics.physical(ACCOUNTS)
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}: bare read, restore, take-over")
            found["bare"].append(
                run_process(
                    "benchmarks.peers.aiokafka_changelog", place[0], topic, deadline_s=_CHILD_S
                )
            )
            for what in ("table", "lane"):
                found[what].append(
                    run_process("benchmarks.take_over", what, *place, deadline_s=_CHILD_S)
                )
    _check(written, [*found["table"], *found["lane"]])
    return Measured(
        figures=_figures(found, options),
        workload={
            "partitions": 1,
            "rulebook": rulebook.reference,
            "inputs": sum(written["counters"][kind] for kind in ("trades", "moves")),
            "bytes_a_row": written["bytes_a_row"],
        },
        result_hash=written["table_hash"],
    )


# -- the changelog


async def _write(pipeline: Pipeline, workload: Workload, options: RestoreOptions) -> dict[str, Any]:
    """Fill inputs and changelog block by block; return what a restore must find."""
    size = options.block * (1 + options.trades_per_account)
    limits = LaneLimits(slice_records=size, backlog_records=2 * size, fold_s=3600.0)
    lane = margin_lane(pipeline.bootstrap_servers, pipeline.topics, _RULEBOOK, limits)
    await lane.acquire(generation=1, instance="bench")
    lane.open()
    try:
        ends = {COLLATERAL: 0, TRADES: 0}
        for number, block in enumerate(blocks(workload, options)):
            await _commit(pipeline, lane, number, ends, block)
    finally:
        await lane.close(60.0)
        await lane.drop()
    shard = lane.shard
    if not isinstance(shard, MarginShard):
        raise TypeError
    digest, size = table_digest(shard)
    return {
        "counters": shard.counters,
        "table_hash": digest,
        "bytes_a_row": round(size / options.accounts, 1),
    }


def blocks(workload: Workload, options: RestoreOptions) -> Iterator[dict[str, list[Message]]]:
    """Yield the inputs of each block of accounts by topic: their deposits, then their trades."""
    each = options.trades_per_account
    deposits = workload.deposits()
    fills = workload.fills(workload.accounts * each)
    while block := list(itertools.islice(deposits, options.block)):
        trades = [
            workload.message(fill._replace(account=fill.number // each))
            for fill in itertools.islice(fills, len(block) * each)
        ]
        yield {COLLATERAL: block} | ({TRADES: trades} if trades else {})


async def _commit(
    pipeline: Pipeline,
    lane: Lane,
    number: int,
    ends: dict[str, int],
    inputs: dict[str, list[Message]],
) -> None:
    """Write a block to its input topics, then let the lane fold and commit it in one slice."""
    frames = {}
    for topic, messages in inputs.items():
        await asyncio.to_thread(produce, pipeline, messages)
        frames[topic] = Frame(as_run(messages, ends[topic]), number)
        ends[topic] += len(messages)
    committed = asyncio.Event()
    for topic, frame in frames.items():
        lane.put(topic, frame, committed.set)
    await asyncio.wait_for(committed.wait(), _CHILD_S)


def as_run(messages: Sequence[Message], first: int) -> Run:
    """Return messages as they are fetched, from an offset on, with today's record time."""
    now_ms = time.time_ns() // 1_000_000
    return Run.of([Record(first + k, now_ms, m.key, m.value) for k, m in enumerate(messages)])


# -- what it left


def _check(written: dict[str, Any], restored: list[dict[str, Any]]) -> None:
    """Hold every restored shard against the one that wrote the changelog."""
    for found in restored:
        for what in ("counters", "table_hash"):
            if found[what] != written[what]:
                msg = f"restored {what} {found[what]}, written {written[what]}"
                raise InvariantError(msg)


def _figures(
    found: dict[str, list[dict[str, Any]]], options: RestoreOptions
) -> dict[str, float | None]:
    def median(what: str, key: str) -> float:
        return float(statistics.median(result[key] for result in found[what]))

    rows, bare_rows = found["table"][0]["rows"], found["bare"][0]["records"]
    figures: dict[str, float | None] = {
        "rows_per_s": rate(rows, median("table", "seconds")),
        "rows_per_cpu_s": rate(rows, median("table", "cpu_seconds")),
        "rows": rows,
        "seconds": round(median("table", "seconds"), 3),
        "seconds_per_1m_accounts": round(median("table", "seconds") * 1e6 / options.accounts, 3),
        "ready_seconds": round(median("lane", "seconds"), 3),
        "peak_mib": round(median("lane", "peak_mib"), 1),
        "aiokafka_fetch.rows_per_s": rate(bare_rows, median("bare", "seconds")),
        "aiokafka_fetch.rows_per_cpu_s": rate(bare_rows, median("bare", "cpu_seconds")),
        "aiokafka_fetch.seconds": round(median("bare", "seconds"), 3),
    }
    for unit in ("rows_per_s", "rows_per_cpu_s"):
        figures[f"ratio.{unit}.aiokafka_fetch_to_restore"] = ratio(
            figures[f"aiokafka_fetch.{unit}"], figures[unit]
        )
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; see `benchmarks.command.run`."""
    return run(
        "restore", __doc__ or "", measure, full=RestoreOptions(), smoke=SMOKE, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
