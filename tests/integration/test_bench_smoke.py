"""The ingest benchmark at its smallest size: does it run, and is what it measured right? Untimed.

It checks itself that every trade was counted once, none refused and every position is the sum of
its fills; here it is run as users run it, and twice, since the table must not depend on slicing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.report import as_markdown, replace_section
from benchmarks.workload import Workload

from solvent.ops.broker import admin_client
from solvent.rules import builtin_rulebook
from support.broker import Broker

EVENTS, ACCOUNTS = 10_000, 2_000


def bench(kafka: Broker, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "solvent.cli.main", "bench", "ingest", "--smoke", "--json"]
    done = subprocess.run(
        [*command, *options],
        env={**os.environ, "SOLVENT_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.kafka
def test_bench_ingest_smoke_twice_is_complete_and_leaves_equal_tables(kafka: Broker) -> None:
    first = bench(kafka)
    assert first["bench"] == "ingest"
    figures = first["figures"]
    assert figures["solvent.events_per_s"] > 0
    assert figures["aiokafka_fetch.events_per_s"] > 0
    assert {
        "solvent.events_per_cpu_s",
        "ratio.events_per_s.solvent_to_aiokafka_fetch",
    } <= figures.keys()
    assert figures["solvent.slices"] * figures["solvent.records_per_slice"] == EVENTS
    assert figures["solvent.restored_rows"] == ACCOUNTS + 1  # and the marks row
    assert figures["solvent.rows_written"] >= ACCOUNTS - 100  # 5 trades an account on average
    assert (first["workload"]["events"], first["workload"]["accounts"]) == (EVENTS, ACCOUNTS)
    assert (first["workload"]["liquidations"], first["workload"]["status_changes"]) == (0, 0)
    assert {"cpu", "cores", "memory_gib", "load_average"} <= first["machine"].keys()

    second = bench(kafka, "--slice-records", "1700")
    assert second["result_hash"] == first["result_hash"]
    with admin_client(kafka.bootstrap_servers) as admin:
        left = [name for name in admin.list_topics() if name.startswith("solvent-bench-")]
    assert left == []

    section = as_markdown(first, "A question?\n\nHow.")
    assert f"`{first['result_hash']}`" in section
    once = replace_section("# Results\n", "ingest", section)
    assert replace_section(once, "ingest", section) == once
    assert replace_section(once, "other", "new\n").startswith(once.rstrip())


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
