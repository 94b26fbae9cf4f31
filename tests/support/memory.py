"""A whole pipeline in memory: both shards, their journals and tables, as logs to read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from solvent.agents.margin import margin_agent
from solvent.agents.prices import price_agent
from solvent.engine.journal import FENCE_KEY, SliceJournal
from solvent.engine.run import Record, Run
from solvent.engine.shard import Shard
from solvent.rules import CompiledRulebook
from solvent.runtime.lane import AgentSpec
from solvent.wire.topics import Topics
from support.venue import Produced

__all__ = ["MemoryLog", "MemoryPipeline"]

#: Broker time of every record, milliseconds: later than any event time of a test.
LATE_MS = 4_000_000_000_000


class MemoryLog:
    """One partition of a topic; ``first`` may be moved as retention would."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.partition = 0
        self.first = 0
        self.records: list[Record] = []
        self.next = 0

    def append(self, key: bytes | None, value: bytes | None) -> None:
        self.records.append(Record(self.next, LATE_MS, key, value))
        self.next += 1

    def runs(self, start: int) -> Iterator[Run]:
        found = [record for record in self.records if record.offset >= max(start, self.first)]
        for place in range(0, len(found), 700):
            yield Run.of(found[place : place + 700])

    def grows_beyond(self, offset: int) -> bool:
        del offset
        return False

    def compact(self) -> None:
        """Leave the last record of each key, as the log cleaner does."""
        last = {record.key: record.offset for record in self.records}
        self.records = [record for record in self.records if last[record.key] == record.offset]

    def delete_below(self, offset: int) -> None:
        """Delete the beginning, as retention does."""
        self.first = offset
        self.records = [record for record in self.records if record.offset >= offset]


class MemoryPipeline:
    """One partition under a rulebook: `solvent.ops.logs.Logs` of what it wrote."""

    def __init__(self, rulebook: CompiledRulebook, *, slice_records: int = 200) -> None:
        self.topics = Topics(partitions=1)
        self.logs: dict[str, MemoryLog] = {}
        self._slice_records = slice_records
        self._agents: list[tuple[AgentSpec, Shard, SliceJournal]] = [
            (spec, spec.new_shard(0), SliceJournal(spec.name, 0))
            for spec in (price_agent(rulebook, 1), margin_agent(rulebook))
        ]

    def log(self, topic: str, partition: int) -> MemoryLog:
        assert partition == 0
        return self.logs.setdefault(topic, MemoryLog(topic))

    def end(self, topic: str, partition: int) -> int:
        return self.log(topic, partition).next

    def play(self, records: Iterable[Produced]) -> None:
        """Write records and fold all there is, prices first."""
        for topic, key, value in records:
            self.log(topic, 0).append(key, value)
        for spec, shard, journal in self._agents:
            while self._fold_slice(spec, shard, journal):
                pass

    def _fold_slice(self, spec: AgentSpec, shard: Shard, journal: SliceJournal) -> bool:
        left = self._slice_records
        for topic in spec.inputs:
            for run in self.log(topic, 0).runs(journal.positions.get(topic, 0)):
                part = run[:left]
                if not part:
                    break
                shard.apply(topic, part)
                journal.take(topic, int(part.offset[0]), int(part.offset[-1]), len(part))
                left -= len(part)
        if not journal.has_open_slice:
            return False
        outputs = shard.cut()
        closing = journal.close(outputs)
        table = self.log(spec.table, 0)
        for key, value in outputs.rows:
            table.append(key, value)
        for record in outputs.records:
            self.log(record.topic, 0).append(record.key, record.value)
        self.log(spec.journal, 0).append(closing.journal_key, closing.journal_value)
        table.append(FENCE_KEY, closing.fence_value)
        return True
