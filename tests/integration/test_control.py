"""`solvent control` on the real broker: pauses in stream order, kept over kills, exact."""

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
from solvent.wire.topics import CONTROL, LIQUIDATIONS
from support.broker import Broker
from support.exact import examine
from support.mixed import mixed_records
from support.pipeline import Pipeline

pytestmark = [pytest.mark.kafka]

RULEBOOK = builtin_rulebook("example")


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A pipeline whose settings are this process's too."""
    made = Pipeline(kafka, tmp_path, partitions=2, max_slice_records=200)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def the_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    found = run([*arguments, "--json"])
    shown = capsys.readouterr()
    assert found == 0, shown.err
    return json.loads(shown.out)


def test_pauses_under_load_and_kills_equal_replay_and_offer_nothing(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = list(mixed_records(RULEBOOK, count=4_500, accounts=150, seed=31))
    pipeline.load(mixed[:1_500])
    pipeline.start()
    pipeline.follower.until(pipeline.is_finished, deadline_s=120, what="the first part")

    why = ["--reason", "drill", "--operator", "desk", "--wait", "60"]
    assert the_json(capsys, "control", "pause", "--market", "SOL-PERP", *why)["pauses"].keys() == {
        "SOL-PERP"
    }
    assert the_json(capsys, "control", "pause", *why)["pauses"].keys() == {"*", "SOL-PERP"}
    pipeline.loaded[CONTROL] += 2
    pipeline.follower.until(pipeline.is_finished, deadline_s=60, what="the pauses")
    last = offers_of(pipeline)
    pipeline.load(mixed[1_500:3_000])
    pipeline.kill_and_restart()
    pipeline.follower.until(pipeline.is_finished, deadline_s=120, what="the second part")
    assert offers_of(pipeline) == last  # nothing is offered in a pause
    assert run(["control", "status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "all markets: paused by desk: drill",
        "SOL-PERP: paused by desk: drill",
    ]

    told = the_json(capsys, "control", "resume", *why)
    assert told["pauses"].keys() == {"SOL-PERP"}
    pipeline.loaded[CONTROL] += 1
    pipeline.load(mixed[3_000:])
    pipeline.finish(deadline_s=180)

    findings = examine(pipeline.kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    assert not findings.problems
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        for agent in ("margin", "prices"):
            assert verify(logs, RULEBOOK, VerifyOptions(agent=agent)).differences == []
    events = [json.loads(record.value or b"") for record in pipeline.read(LIQUIDATIONS)]
    reasons = {(event["event"], event["reason"]) for event in events}
    assert {("suspended", "paused"), ("revised", "resumed")} <= reasons
    resumed = {e["partition"]: e["mark_seq"] for e in events if e["reason"] == "resumed"}
    after = [
        leg for e in events if e["mark_seq"] > resumed.get(e["partition"], 0) for leg in e["legs"]
    ]
    assert after
    assert not any(leg["market"] == "SOL-PERP" for leg in after)


def offers_of(pipeline: Pipeline) -> int:
    """Count the events that ask for trades."""
    events = (json.loads(record.value or b"") for record in pipeline.read(LIQUIDATIONS))
    return sum(event["event"] in {"opened", "revised"} for event in events)


def test_command_that_is_refused_is_told_with_its_reason(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.load(mixed_records(RULEBOOK, count=300, accounts=20, seed=2))
    pipeline.start()
    pipeline.follower.until(pipeline.is_finished, deadline_s=90, what="a start")
    unknown = ["control", "pause", "--market", "DOGE-PERP", "--reason", "x", "--wait", "60"]
    assert run(unknown) == 3
    assert "SLV-202 market 'DOGE-PERP' is not in rulebook example" in capsys.readouterr().err
    assert run(["control", "pause", "--reason", ""]) == 5
    assert "`reason`" in capsys.readouterr().err
    assert run(["control", "status"]) == 0
    assert capsys.readouterr().out.splitlines() == ["nothing is paused"]
