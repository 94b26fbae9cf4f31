"""Settings, open orders and snapshots on the real broker: read, kept, shown, reconciled, exact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from solvent.cli.main import run
from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import builtin_rulebook
from solvent.wire.topics import (
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    OPEN_ORDERS,
    TRADES,
)
from support.broker import Broker
from support.exact import examine
from support.mixed import START_US, mixed_records, with_statements
from support.pipeline import Pipeline

pytestmark = [pytest.mark.kafka]

RULEBOOK = builtin_rulebook("example")
HEAD = {"schema_version": 1, "account_id": "alice", "ts_us": START_US}
SETTINGS = HEAD | {"account_class": "trader", "leverage": {"BTC-PERP": "12.5"}, "seq": 1}
SIDES = {"bid_size": "0.5", "bid_value": "30000", "ask_size": "0", "ask_value": "0", "count": 2}
ORDERS = HEAD | {"subaccount": "cross", "market": "BTC-PERP", **SIDES}
LONG = {"market": "BTC-PERP", "size": "0.1", "cost_basis": "6100"}
SNAPSHOT = HEAD | {
    "snapshot_id": "s-1",
    "subaccount": "cross",
    "collateral": {"USDC": "2500.5", "ETH": "1"},
    "positions": [LONG],
    "orders": [{"market": "BTC-PERP", **SIDES}],
    "trades_seq": 17,
}


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A pipeline whose settings are this process's too."""
    made = Pipeline(kafka, tmp_path, partitions=2, max_slice_records=200)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def the_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    found = run([*arguments, "--json"])
    shown = capsys.readouterr()
    assert found == code, shown.err
    return json.loads(shown.out)


def records(*told: tuple[str, dict[str, Any]]) -> list[tuple[str, bytes, bytes]]:
    return [(topic, b"alice", json.dumps(content).encode()) for topic, content in told]


def test_statements_are_read_shown_and_reconciled(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.load(records((ACCOUNT_SNAPSHOTS, SNAPSHOT)))
    pipeline.start()
    pipeline.follower.until(pipeline.is_finished, deadline_s=90, what="the snapshot")
    more = [(ACCOUNT_SETTINGS, SETTINGS), (OPEN_ORDERS, ORDERS | {"seq": 8})]
    pipeline.load(records(*more, (TRADES, {"broken": True})))  # the trade quarantines alice
    pipeline.load(records((ACCOUNT_SNAPSHOTS, SNAPSHOT)))  # sent twice: a repeat, no cure
    pipeline.follower.until(pipeline.is_finished, deadline_s=60, what="settings and orders")

    alice = the_json(capsys, "accounts", "show", "alice")
    assert (alice["quarantined"], alice["preset"]) == (True, "cross-margin")
    seqs = ("trades_seq", "collateral_seq", "settings_seq", "orders_seq")
    assert [alice[name] for name in seqs] == [17, None, 1, 8]
    (unit,) = alice["units"]
    assert {c["asset"]: c["amount"] for c in unit["collateral"]} == {"USDC": "2500.5", "ETH": "1"}
    assert unit["orders"] == [{"market": "BTC-PERP", **SIDES, "leverage": "12.5"}]

    pipeline.load(records((ACCOUNT_SNAPSHOTS, SNAPSHOT | {"snapshot_id": "s-2"})))
    pipeline.finish(deadline_s=60)
    assert the_json(capsys, "accounts", "show", "alice")["quarantined"] is False

    path = tmp_path / "believed.jsonl"
    path.write_text(json.dumps(SNAPSHOT) + "\n")
    equal = the_json(capsys, "accounts", "reconcile", str(path))
    assert equal == {"equal": True, "units": 1, "differences": []}
    path.write_text(json.dumps(SNAPSHOT | {"collateral": {"USDC": "2500"}}) + "\n")
    found = the_json(capsys, "accounts", "reconcile", str(path), code=13)
    told = [(d["what"], d["snapshot"], d["table"]) for d in found["differences"]]
    assert told == [("collateral.USDC", "2500", "2500.5"), ("collateral.ETH", "0", "1")]
    assert run(["accounts", "reconcile", str(path)]) == 13
    assert capsys.readouterr().out.splitlines() == [
        "alice cross: collateral.USDC 2500, the table has 2500.5",
        "alice cross: collateral.ETH 0, the table has 1",
        "1 margin unit, 2 differences",
    ]


def test_pipeline_with_statements_killed_equals_independent_fold(pipeline: Pipeline) -> None:
    mixed = mixed_records(RULEBOOK, count=6_000, accounts=200, seed=19)
    pipeline.load(with_statements(mixed, every=4, accounts=200, seed=20))
    total = pipeline.loaded.total()
    assert min(pipeline.loaded[t] for t in (ACCOUNT_SETTINGS, OPEN_ORDERS, ACCOUNT_SNAPSHOTS)) > 300
    pipeline.start()
    for share in (0.3, 0.6):
        goal = total * share
        pipeline.follower.until(
            lambda goal=goal: pipeline.progress >= goal, deadline_s=120, what=f"{goal:.0f} folded"
        )
        pipeline.kill_and_restart()
    pipeline.finish(deadline_s=180)
    findings = examine(pipeline.kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    assert not findings.problems
    assert findings.lost == findings.doubled == 0
    assert findings.rejects
    assert findings.duplicates
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        assert verify(logs, RULEBOOK, VerifyOptions()).differences == []


def test_topics_loaded_from_files_reach_the_table(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {ACCOUNT_SETTINGS: SETTINGS, OPEN_ORDERS: ORDERS, ACCOUNT_SNAPSHOTS: SNAPSHOT}
    for topic, content in told.items():
        path = tmp_path / f"{topic}.jsonl"
        path.write_text(json.dumps(content) + "\n")
        assert the_json(capsys, "load", str(path), "--topic", topic)["sent"] == 1
        pipeline.loaded[topic] += 1
    pipeline.start()
    pipeline.finish(deadline_s=90)
    (unit,) = the_json(capsys, "accounts", "show", "alice")["units"]
    assert unit["orders"][0]["leverage"] == "12.5"
