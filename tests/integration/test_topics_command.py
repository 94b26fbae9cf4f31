"""`solvent topics` as a user calls it: output and exit codes."""

from __future__ import annotations

import json

import pytest

from solvent.cli.main import run
from solvent.ops.broker import admin_client
from solvent.wire.topics import TOPICS, TRADES
from support.broker import Broker

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def _settings(kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLVENT_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("SOLVENT_TOPIC_PREFIX", kafka.prefix)
    monkeypatch.setenv("SOLVENT_PARTITIONS", "2")


def test_topics_commands_plan_apply_plan_turn_from_ten_to_zero(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["topics", "plan"]) == 10
    assert capsys.readouterr().out.count("missing") == len(TOPICS)
    assert run(["topics", "apply", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["created"]) == len(TOPICS)
    assert run(["topics", "plan"]) == 0
    assert capsys.readouterr().out == f"all {len(TOPICS)} topics are in line\n"
    assert run(["topics", "list", "--json"]) == 0
    assert {t["state"] for t in json.loads(capsys.readouterr().out)["topics"]} == {"in_line"}


def test_topics_commands_with_other_partition_count_exit_eleven_and_three(
    kafka: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    trades = kafka.topics().physical(TRADES)
    with admin_client(kafka.bootstrap_servers) as admin:
        admin.create_topics({trades: {"num_partitions": 5}}, wait_for_metadata=True)
    assert run(["topics", "plan"]) == 11
    assert f"{trades}: 5 partitions, 2 wanted" in capsys.readouterr().out
    assert run(["topics", "apply"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "set SOLVENT_PARTITIONS to what exists" in error
