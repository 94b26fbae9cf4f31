"""The benchmarks at their smallest size: do they run, and is what they measured right? Untimed.

Each checks what its run left behind; here it is run as users run it, and its result hash, which
must not depend on slicing, partitions or workers, is held against a second run of other shape.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks import ingest, replay, restore
from benchmarks.report import as_markdown, replace_section
from benchmarks.stages import STAGES
from benchmarks.take_over import table_digest
from benchmarks.workload import START_US, Workload

from solvent.engine.journal import SliceJournal
from solvent.engine.margin import MarginShard
from solvent.engine.prices import PriceShard
from solvent.engine.run import Record
from solvent.ops.broker import admin_client
from solvent.rules import builtin_rulebook
from solvent.wire.topics import MARKS
from support.broker import Broker

EVENTS, ACCOUNTS = 10_000, 2_000


#: What every result has; `commit` says which sources.
SHAPE = {"bench", "figures", "workload", "machine", "versions", "commit", "result_hash"}


def bench(kafka: Broker, name: str, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "solvent.cli.main", "bench", name, "--smoke", "--json"]
    done = subprocess.run(
        [*command, *options],
        env={**os.environ, "SOLVENT_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() == SHAPE
    assert result["bench"] == name
    assert all(isinstance(value, int | float) for value in result["figures"].values())
    assert {"cpu", "cores", "memory_gib", "load_average"} <= result["machine"].keys()
    return result


def topics_left(kafka: Broker) -> list[str]:
    with admin_client(kafka.bootstrap_servers) as admin:
        return [name for name in admin.list_topics() if "solvent-bench-" in name]


@pytest.mark.kafka
@pytest.mark.timeout(1200)
def test_bench_ingest_smoke_in_any_layout_is_complete_and_leaves_equal_tables(
    kafka: Broker,
) -> None:
    first = bench(kafka, "ingest", "--layouts", "1x1")
    figures = first["figures"]
    assert {
        "solvent.events_per_s",
        "solvent.events_per_cpu_s",
        "aiokafka_fetch.events_per_s",
        "faust_table.events_per_s",
        "kafka_python.events_per_s",
        "ratio.events_per_s.solvent_to_aiokafka_fetch",
    } | {f"budget.{stage}_ns" for stage in STAGES} <= figures.keys()
    is_measured = "quix_eos.events_per_s" in figures
    assert is_measured or first["workload"]["peers"]["quix_eos"] == "not installed"
    assert figures["solvent.slices"] * figures["solvent.records_per_slice"] == EVENTS
    assert figures["solvent.rows_written"] >= ACCOUNTS - 100  # 5 trades an account on average
    assert (first["workload"]["events"], first["workload"]["accounts"]) == (EVENTS, ACCOUNTS)
    assert (first["workload"]["liquidations"], first["workload"]["status_changes"]) == (0, 0)

    peerless = [f"--{peer}-events=0" for peer in ("fetch", "faust", "quix", "kafka-python")]
    second = bench(
        kafka, "ingest", "--layouts", "1x1,2x2", "--slice-records", "1700", "--no-budget", *peerless
    )
    assert second["result_hash"] == first["result_hash"]
    assert second["figures"]["solvent_2p_2w.slices"] >= 2
    assert topics_left(kafka) == []

    section = as_markdown(first, "A question?\n\nHow.")
    assert f"`{first['result_hash']}`" in section
    assert "| solvent | value |" in section
    once = replace_section("# Results\n", "ingest", section)
    assert replace_section(once, "ingest", section) == once
    assert replace_section(once, "other", "new\n").startswith(once.rstrip())


@pytest.mark.kafka
@pytest.mark.timeout(1200)
def test_bench_restore_smoke_restores_what_the_engine_alone_makes_of_the_same_inputs(
    kafka: Broker,
) -> None:
    result = bench(kafka, "restore")
    figures = result["figures"]
    assert {
        "rows_per_s",
        "ready_seconds",
        "seconds_per_1m_accounts",
        "aiokafka_fetch.rows_per_s",
        "ratio.rows_per_s.aiokafka_fetch_to_restore",
    } <= figures.keys()
    slices = restore.SMOKE.accounts // restore.SMOKE.block
    assert figures["rows"] >= restore.SMOKE.accounts + slices  # a fence a slice; and claims
    assert topics_left(kafka) == []

    rulebook = builtin_rulebook("demo")
    workload = Workload(rulebook=rulebook, accounts=restore.SMOKE.accounts, seed=restore.SMOKE.seed)
    shard = MarginShard(0, rulebook)
    ends: Counter[str] = Counter()
    for block in restore.blocks(workload, restore.SMOKE):
        for topic, messages in block.items():
            shard.apply(topic, restore.as_run(messages, ends[topic]))
            ends[topic] += len(messages)
    assert result["result_hash"] == table_digest(shard)[0]


@pytest.mark.kafka
@pytest.mark.timeout(1200)
def test_bench_replay_smoke_brings_what_a_shard_alone_brings(kafka: Broker) -> None:
    result = bench(kafka, "replay")
    figures = result["figures"]
    for who in ("jsonl", "parquet", "jsonl_4p", "parquet_4p", "verify"):
        assert {f"{who}.events_per_s", f"{who}.events_per_cpu_s"} <= figures.keys()
    assert figures["verify.slices"] > 1
    assert topics_left(kafka) == []

    # deposits, then the trade of the same time, then the frame, then the other trades
    options, rulebook = replay.SMOKE, builtin_rulebook("demo")
    workload = Workload(rulebook=rulebook, accounts=options.accounts, seed=options.seed)
    records = [(m.topic, m.key, m.value, START_US) for m in workload.deposits()]
    for number, m in enumerate(workload.trades(options.events)):
        records.append((m.topic, m.key, m.value, START_US + 10 * number))
    prices = PriceShard(rulebook)
    for m in workload.ticks():
        prices.apply(m.topic, [Record(0, START_US // 1000, m.key, m.value)])
    (frame,) = prices.cut().records
    records.insert(options.accounts + 1, (MARKS, frame.key, frame.value, START_US))
    shard, journal = MarginShard(0, rulebook), SliceJournal("margin", 0)
    for topic, key, value, ts_us in records:
        offset = journal.positions.get(topic, 0)
        shard.apply(topic, [Record(offset, -(-ts_us // 1000), key, value)])
        journal.take(topic, offset, offset, 1)
        if journal.open_count == options.slice_records:
            journal.close(shard.cut())
    journal.close(shard.cut())
    assert result["result_hash"] == journal.rolling_hash.hex()


def test_bench_workload_same_seed_same_bytes() -> None:
    rulebook = builtin_rulebook("demo")
    one, same = (Workload(rulebook=rulebook, accounts=50, seed=3) for _ in range(2))
    other = Workload(rulebook=rulebook, accounts=50, seed=4)
    assert list(one.trades(200)) == list(same.trades(200))
    assert list(one.trades(200)) != list(other.trades(200))


def test_bench_without_a_checkout_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from solvent.cli import bench as command
    from solvent.cli.main import run

    monkeypatch.setattr(command, "__file__", str(tmp_path / "a/b/c/d/bench.py"))
    assert run(["bench", "ingest"]) == 3
    assert "source checkout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layouts", "1x2"], "no more workers than partitions"),
        (["--layouts", "4x1"], "the first must have one partition"),
    ],
)
def test_bench_ingest_with_layouts_that_cannot_be_says_why(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingest.main(["--smoke", *options]) == 3
    assert said in capsys.readouterr().err


def test_bench_option_beyond_its_limit_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        ingest.main(["--events", "5"])
    assert ending.value.code == 2
    assert "--events: 5 is not within 1,000 to 100,000,000" in capsys.readouterr().err
