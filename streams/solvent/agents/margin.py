"""The margin agent: what is told of accounts, and marks, in; liquidations and statuses out."""

from __future__ import annotations

from solvent.engine.margin import MarginShard
from solvent.rules import CompiledRulebook
from solvent.runtime.lane import AgentSpec
from solvent.wire.topics import ACCOUNT_INPUTS, ACCOUNTS, JOURNAL, MARKS

__all__ = ["margin_agent"]


def margin_agent(rulebook: CompiledRulebook) -> AgentSpec:
    """Return the margin agent under a rulebook; its partitions are the pipeline's."""
    return AgentSpec(
        name="margin",
        inputs=(*ACCOUNT_INPUTS, MARKS),
        table=ACCOUNTS,
        journal=JOURNAL,
        new_shard=lambda partition: MarginShard(partition, rulebook),
    )
