"""A two-agent toy pipeline on the real runtime: proves the runtime apart from the margin engine.

Ticks (1 partition) carry numbers; the toy price shard sends each on to every partition of marks
with a gapless sequence. The toy margin shard counts trades per account and answers every trade and
every mark with one event. Run as ``python -m support.toy`` it is a worker.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import MappingProxyType

from solvent.engine.rows import Rows
from solvent.engine.shard import Emit, Outputs, Pending, ShardFacts
from solvent.errors import InvariantError
from solvent.runtime.lane import AgentSpec, LaneLimits
from solvent.wire.topics import (
    ACCOUNTS,
    JOURNAL,
    LIQUIDATIONS,
    MARKS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
    PRICE_STATE,
    TRADES,
    Topics,
)


class ToyPrices:
    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.lookback: dict[str, int] = {}
        self.seq = 0
        self.sums: dict[bytes, int] = {}
        self.changed: set[bytes] = set()
        self.out: list[Emit] = []

    pending = Pending.NEWS
    rules = MappingProxyType({})

    def apply(self, topic, records):
        assert topic == ORACLE_TICKS
        for record in records:
            self.seq += 1
            self.sums[record.key] = self.sums.get(record.key, 0) + int(record.value)
            self.changed.add(record.key)
            frame = {"seq": self.seq, "key": record.key.decode(), "sum": self.sums[record.key]}
            self.out.append(Emit(MARKS, b"marks", json.dumps(frame).encode(), everywhere=True))

    def cut(self):
        rows = [(key, b"%d" % self.sums[key]) for key in sorted(self.changed)]
        outputs = Outputs(rows=Rows.of(rows), records=self.out, state={"seq": self.seq})
        self.changed, self.out = set(), []
        return outputs

    def load(self, rows):
        for row in rows:
            if row.key[:1] != b"\0":
                self.sums[row.key] = int(row.value)

    def resume(self, positions, state):
        self.seq = state.get("seq", 0)

    def remember(self, topic, records):
        raise AssertionError(topic)

    def facts(self):
        return ShardFacts()

    def keys(self):
        return [key.decode() for key in self.sums]

    def describe(self, key):
        return self.sums[key.encode()]


class ToyMargin:
    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.lookback = {TRADES: 100}
        self.remembered = 0
        self.mark_seq = 0
        self.sums: dict[bytes, list[int]] = {}
        self.changed: set[bytes] = set()
        self.out: list[Emit] = []

    rules = MappingProxyType({})

    @property
    def pending(self):
        if self.out:
            return Pending.NEWS
        return Pending.ROWS if self.changed else Pending.MARKS

    def apply(self, topic, records):
        for record in records:
            if topic == TRADES:
                row = self.sums.setdefault(record.key, [0, 0])
                row[0] += int(record.value)
                row[1] += 1
                self.changed.add(record.key)
                identity = b"%b:%d" % (record.key, row[1])
                self.out.append(Emit(LIQUIDATIONS, identity, b"%d" % row[0]))
            else:
                frame = json.loads(record.value)
                if frame["seq"] != self.mark_seq + 1:
                    raise InvariantError(f"mark {frame['seq']}, expected {self.mark_seq + 1}")
                self.mark_seq = frame["seq"]
                identity = b"mark:%d:%d" % (self.partition, self.mark_seq)
                self.out.append(Emit(LIQUIDATIONS, identity, record.value))

    def cut(self):
        rows = [(key, b"%d %d" % tuple(self.sums[key])) for key in sorted(self.changed)]
        state = {"mark_seq": self.mark_seq}
        outputs = Outputs(rows=Rows.of(rows), records=self.out, state=state)
        self.changed, self.out = set(), []
        return outputs

    def load(self, rows):
        for row in rows:
            if row.key[:1] != b"\0":
                self.sums[row.key] = [int(part) for part in row.value.split()]

    def resume(self, positions, state):
        self.mark_seq = state.get("mark_seq", 0)

    def remember(self, topic, records):
        self.remembered += len(records)
        assert self.remembered <= 100

    def facts(self):
        return ShardFacts()

    def keys(self):
        return [key.decode() for key in self.sums]

    def describe(self, key):
        return list(self.sums[key.encode()])


def toy_specs() -> tuple[AgentSpec, AgentSpec]:
    return (
        AgentSpec(
            name="prices",
            inputs=(ORACLE_TICKS,),
            table=PRICE_STATE,
            journal=PRICE_JOURNAL,
            new_shard=ToyPrices,
        ),
        AgentSpec(
            name="margin",
            inputs=(TRADES, MARKS),
            table=ACCOUNTS,
            journal=JOURNAL,
            new_shard=ToyMargin,
        ),
    )


def main() -> None:
    from faust.cli.faust import cli

    from solvent.agents.frames import register_agent
    from solvent.runtime.app import RuntimeOptions, make_lane_app

    env = os.environ
    specs = toy_specs()
    app = make_lane_app(
        RuntimeOptions(
            app_id=env["TOY_APP"],
            instance=env["TOY_INSTANCE"],
            bootstrap_servers=env["TOY_BROKER"],
            topics=Topics(prefix=env["TOY_PREFIX"], partitions=int(env["TOY_PARTITIONS"])),
            data_dir=Path(env["TOY_DATA"]),
            limits=LaneLimits(
                slice_records=int(env["TOY_SLICE"]), backlog_records=int(env["TOY_BACKLOG"])
            ),
        ),
        specs,
    )
    for spec in specs:
        register_agent(app, app.lanes, spec)
    app.finalize()
    cli(args=["worker", "-l", "info", "--without-web", *sys.argv[1:]], app=app)


if __name__ == "__main__":
    main()
