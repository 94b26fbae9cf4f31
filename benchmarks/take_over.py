"""One take-over of the margin agent's partition 0, in a process of its own: prints one JSON object.

``table`` times `restore_shard` alone, without the duplicate window; ``lane`` times all that a
worker does until the lane may take records: producer, claim, rows, duplicate window. Kernels are
compiled before, as a worker does before it joins its group.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import resource
import sys
import time
from typing import Any

import numpy as np
import orjson
import structlog

from solvent.agents.margin import margin_agent
from solvent.engine.journal import CLAIM_KEY
from solvent.engine.margin import MarginShard, warm_up
from solvent.engine.shard import Shard
from solvent.kernel import batches
from solvent.rules import builtin_rulebook
from solvent.runtime.lane import Lane, LaneLimits
from solvent.runtime.restore import RestoreProgress, restore_shard
from solvent.runtime.writer import PartitionWriter, Target
from solvent.state.rows import encode_rows
from solvent.wire.topics import Topics

__all__ = ["APP_ID", "margin_lane", "table_digest"]

APP_ID = "solvent-bench-restore"


def margin_lane(bootstrap_servers: str, topics: Topics, rulebook: str, limits: LaneLimits) -> Lane:
    """Return a lane of the margin agent's partition 0, kernels compiled.

    Parameters
    ----------
    bootstrap_servers, topics, limits
        As `Lane` takes them.
    rulebook : str
        Name of a built-in rulebook.
    """
    warm_up()
    batches.warm_up()

    async def crash(lane: Lane, error: BaseException) -> None:
        msg = f"lane {lane.spec.name}-{lane.partition} failed"
        raise RuntimeError(msg) from error

    return Lane(
        margin_agent(builtin_rulebook(rulebook)),
        0,
        app_id=APP_ID,
        bootstrap_servers=bootstrap_servers,
        topics=topics,
        limits=limits,
        on_crash=crash,
        on_room=lambda _: None,
    )


def table_digest(shard: MarginShard) -> tuple[str, int]:
    """Return a hash of all account rows, in order of first sight, and their bytes with keys."""
    columns = shard.columns
    ids = np.array([instrument.id for instrument in shard.rulebook.instruments], np.int64)
    everyone = np.arange(len(columns.account_ids), dtype=np.int64)
    data, key_size, value_size = encode_rows(columns, everyone, ids)
    digest = hashlib.blake2b(digest_size=16)
    for part in (data, key_size, value_size):
        digest.update(part.tobytes())
    return digest.hexdigest(), data.size


async def _take_over(servers: str, topics: Topics, rulebook: str) -> dict[str, Any]:
    """Acquire a lane as a worker does."""
    lane = margin_lane(servers, topics, rulebook, LaneLimits())
    began, cpu_began = time.monotonic(), time.process_time()
    await lane.acquire(generation=1, instance="bench")
    found = {
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu_began,
    }
    await lane.drop()
    return found | _restored(lane.shard)


async def _read_table(servers: str, topics: Topics, rulebook: str) -> dict[str, Any]:
    """Restore a shard without its duplicate window; the claim before is not timed."""
    warm_up()
    batches.warm_up()
    spec = margin_agent(builtin_rulebook(rulebook))
    shard = spec.new_shard(0)
    shard.lookback = {}
    writer = PartitionWriter(servers, f"{APP_ID}-{spec.name}-0")
    await writer.start()
    row = orjson.dumps({"schema_version": 1, "generation": 1, "instance": "bench"})
    progress = RestoreProgress(
        end=await writer.claim(Target(topics.physical(spec.table), 0), CLAIM_KEY, row)
    )
    began, cpu_began = time.monotonic(), time.process_time()
    await restore_shard(
        shard,
        agent=spec.name,
        partition=0,
        table=spec.table,
        inputs=spec.inputs,
        topics=topics,
        bootstrap_servers=servers,
        progress=progress,
    )
    found = {
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "rows": progress.rows,
    }
    await writer.stop()
    return found | _restored(shard)


def _restored(shard: Shard) -> dict[str, Any]:
    """Say what a restored shard holds, and what it took."""
    if not isinstance(shard, MarginShard):
        raise TypeError
    return {
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "counters": shard.counters,
        "table_hash": table_digest(shard)[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("table", "lane"))
    parser.add_argument("bootstrap_servers")
    parser.add_argument("prefix")
    parser.add_argument("rulebook")
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    take_over = {"table": _read_table, "lane": _take_over}[given.what]
    topics = Topics(prefix=given.prefix, partitions=1)
    found = asyncio.run(take_over(given.bootstrap_servers, topics, given.rulebook))
    print(orjson.dumps(found).decode(), flush=True)


if __name__ == "__main__":
    main()
