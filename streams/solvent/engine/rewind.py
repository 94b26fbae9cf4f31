"""The state of a shard as it was after a slice, from the rows that lie below the slice's fence.

Compaction removes rows that later ones replaced. It goes over a beginning of the log, so of the
fences there it leaves the last; the rows of the slice after that may have replaced earlier ones
too. So the state is whole from the second fence that is left on, and at the first one if nothing
was removed before it. Slices count from 1, offsets are places in the table's partition.
"""

from __future__ import annotations

from collections.abc import Mapping

from solvent.engine.cursors import SliceRows, TableCursor
from solvent.engine.journal import SliceJournal
from solvent.engine.replay import Log, count_below
from solvent.engine.shard import Shard
from solvent.errors import PartitionError

__all__ = ["restore_at"]


def restore_at(
    shard: Shard,
    *,
    agent: str,
    partition: int,
    number: int,
    table: Log,
    inputs: Mapping[str, Log],
) -> tuple[SliceJournal, int]:
    """Restore a fresh shard to the state after slice `number`.

    Parameters
    ----------
    shard : Shard
        Ready to apply the next slice afterwards.
    agent, partition : str, int
        Whose table it is.
    number : int
        A slice, from 1.
    table : Log
        Its rows up to the fence of the slice make the state.
    inputs : mapping of topic to log
        For what the shard wants to see again (`Shard.lookback`).

    Returns
    -------
    journal : SliceJournal
        Standing after that slice.
    next_offset : int
        Of the table: where the rows of the next slice begin.

    Raises
    ------
    PartitionError
        [SLV-512] Compaction removed rows of the state, or the table has no such slice.
    """
    place = f"{table.topic} partition {table.partition}"
    groups = TableCursor(table, table.first)
    first_left: int | None = None
    is_whole = False
    while (group := groups.peek()) is not None:
        groups.take()
        shard.load(group.rows)
        is_whole = first_left is not None or (group.number == 1 and _is_dense(group))
        first_left = group.number if first_left is None else first_left
        if group.number == number and is_whole:
            journal, state = SliceJournal.from_fence(agent, partition, group.fence.value)
            shard.resume(journal.positions, state)
            _remember(shard, journal, inputs)
            return journal, group.fence.offset + 1
        if group.number >= number:
            msg = (
                f"{place}: compaction removed rows of the state after slice {number}; "
                f"it is whole after slice {first_left + 1} and later ones"
            )
            raise PartitionError(msg, code="SLV-512")
    msg = f"{place}: no fence of slice {number}"
    raise PartitionError(msg, code="SLV-512")


def _is_dense(group: SliceRows) -> bool:
    """Whether no offset is missing between the rows and up to their fence."""
    rows = group.rows
    return not rows or group.fence.offset - rows[0].offset == len(rows)


def _remember(shard: Shard, journal: SliceJournal, inputs: Mapping[str, Log]) -> None:
    """Show the shard the input records it wants to see again, as the runtime does on take-over."""
    for topic, depth in shard.lookback.items():
        end = journal.positions.get(topic, 0)
        for run in inputs[topic].runs(max(inputs[topic].first, end - depth)):
            below = run[: count_below(run, end)]
            if below:
                shard.remember(topic, below)
            if len(below) < len(run):
                break
