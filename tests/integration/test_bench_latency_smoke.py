"""The benchmarks of latency and failover at their smallest size; they check what they measured.

Latency must see each canary's event once a wave, failover no gap and nothing twice. Untimed: the
result hash, which says who was offered what, must be the same in every run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from benchmarks import failover, latency
from benchmarks.waves import Waves
from benchmarks.workload import Workload

from solvent.engine.margin import MarginShard, warm_up
from solvent.ops.broker import admin_client
from solvent.rules import builtin_rulebook
from solvent.wire.topics import COLLATERAL, LIQUIDATIONS, MARKS, TRADES
from support.broker import Broker
from support.margin import Record

LATENCY_HASH = "f12015055861d65bf9f25bcd0e39493b"
SCENARIOS = {
    "ticks_50_p1",
    "frames_50_p1",
    "frames_100_p1",
    "ticks_50_p4",
    "frames_50_p4",
    "frames_50_p4_trades_1k",
}


def bench(kafka: Broker, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "solvent.cli.main", "bench", name, "--smoke", "--json"]
    done = subprocess.run(
        command,
        env={**os.environ, "SOLVENT_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with admin_client(kafka.bootstrap_servers) as admin:
        assert [topic for topic in admin.list_topics() if "solvent-bench-" in topic] == []
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["bench"] == name
    return result


def records(values: list[tuple[bytes, bytes]]) -> list[Record]:
    return [Record(n, 1_800_000_000_000, key, value) for n, (key, value) in enumerate(values)]


def test_each_step_of_a_wave_moves_the_one_canary_it_names() -> None:
    warm_up()
    rulebook = builtin_rulebook("demo")
    waves = Waves(
        workload=Workload(rulebook=rulebook, accounts=1), market="ALGO-PERP", canaries=7, pause=2
    )
    shard = MarginShard(0, rulebook)
    accounts = list(waves.accounts(0))
    shard.apply(COLLATERAL, records([(m.key, m.value) for m, _ in accounts]))
    shard.apply(TRADES, records([(t.key, t.value) for _, t in accounts]))
    frames = records([(b"marks", value) for value in waves.frames(2, 1)])
    steps = waves.steps(2)
    assert len(steps) == len(frames) == 2 * waves.steps_in
    shard.apply(MARKS, frames[:0])
    for step, record in zip(steps, frames, strict=True):
        shard.apply(MARKS, [record])
        events = [json.loads(e.value) for e in shard.cut().records if e.topic == LIQUIDATIONS]
        found = [(waves.canary_of(e["account_id"]), e["event"]) for e in events]
        assert found == ([] if step.canary is None else [(step.canary, step.event)])


@pytest.mark.kafka
@pytest.mark.timeout(1200)
def test_bench_latency_smoke_sees_every_event_once(kafka: Broker) -> None:
    found = bench(kafka, "latency")
    figures = found["figures"]
    for name in SCENARIOS:
        assert 0 < figures[f"{name}.p50_ms"] <= figures[f"{name}.p99_ms"]
        assert figures[f"{name}.p999_ms"] <= figures[f"{name}.max_ms"]
    assert 0 < figures["mass.first_offer_ms"] <= figures["mass.last_offer_ms"]
    size = latency.SMOKE
    events = found["workload"]["events"]
    assert events.keys() == SCENARIOS | {"mass"}
    assert events["mass"] == 2 * size.mass * size.rounds
    assert all(events[name] > 0 for name in SCENARIOS)
    for name in SCENARIOS:
        if name.startswith("frames"):  # ticks that wait are conflated
            assert events[name] % (2 * size.canaries) == 0
    assert found["result_hash"] == LATENCY_HASH


@pytest.mark.kafka
@pytest.mark.timeout(1200)
def test_bench_failover_smoke_loses_and_doubles_nothing(kafka: Broker) -> None:
    figures = bench(kafka, "failover")["figures"]
    faults = failover.SMOKE.faults.split(",")
    assert {name.partition(".")[0] for name in figures} == set(faults)
    for name in faults:
        for what in ("marks", "events"):
            assert 0 < figures[f"{name}.{what}_gap_p50_ms"] <= figures[f"{name}.{what}_gap_p99_ms"]
