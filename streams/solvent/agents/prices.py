"""The price agent: ticks and commands in, mark frames to every partition of ``marks`` out."""

from __future__ import annotations

from solvent.engine.prices import PriceShard
from solvent.rules import CompiledRulebook
from solvent.runtime.lane import AgentSpec
from solvent.wire.topics import CONTROL, LOSSES, ORACLE_TICKS, PRICE_JOURNAL, PRICE_STATE

__all__ = ["price_agent"]


def price_agent(rulebook: CompiledRulebook, partitions: int) -> AgentSpec:
    """Return the price agent under a rulebook; it has one partition, the margin agent several."""
    return AgentSpec(
        name="prices",
        inputs=(ORACLE_TICKS, CONTROL, LOSSES),
        table=PRICE_STATE,
        journal=PRICE_JOURNAL,
        new_shard=lambda partition: PriceShard(rulebook, partition, partitions),
    )
