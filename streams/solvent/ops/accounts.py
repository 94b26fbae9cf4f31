"""Read the account table back from Kafka into margin shards, as a worker would, and look at it."""

from __future__ import annotations

from solvent.engine.journal import FENCE_KEY, SliceJournal
from solvent.engine.margin import MarginShard
from solvent.engine.run import Run
from solvent.ops.history import HistoryRecord, read_topic
from solvent.rules import CompiledRulebook
from solvent.units import MICRO_EXPONENT, parse_scaled
from solvent.wire.topics import ACCOUNTS, Topics

__all__ = ["bad_debt_micros", "read_shards"]


def read_shards(
    bootstrap_servers: str, topics: Topics, rulebook: CompiledRulebook
) -> list[MarginShard]:
    """Return one shard a partition, as of its last committed slice.

    Raises
    ------
    ServiceError
        [SLV-608, SLV-610] No broker or no table topic.
    ConfigError
        The table was built under another rulebook.
    """
    shards = [MarginShard(partition, rulebook) for partition in range(topics.partitions)]
    tables: list[list[HistoryRecord]] = [[] for _ in shards]
    for record in read_topic(bootstrap_servers, topics.physical(ACCOUNTS)):
        tables[record.partition].append(record)
    for partition, shard in enumerate(shards):
        rows = Run.of(tables[partition])
        shard.load(rows)
        fence = rows.last_of(FENCE_KEY)
        journal, state = SliceJournal.from_fence("margin", partition, fence and fence.value)
        shard.resume(journal.positions, state)
    return shards


def bad_debt_micros(shard: MarginShard) -> int:
    """Return what closed bankrupt units owe beyond their collateral, micros >= 0."""
    return sum(
        -parse_scaled(unit["raw_equity"], MICRO_EXPONENT)
        for account in shard.accounts()
        for unit in account["units"]
        if unit["status"] == "bankrupt_closed"
    )
