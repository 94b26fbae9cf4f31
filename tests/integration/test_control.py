"""`solvent control` and circuit breakers on the real broker: in stream order, kept over kills."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from solvent.cli.main import run
from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.ops.workers import known_workers
from solvent.rules import builtin_rulebook, load_rulebook
from solvent.wire.topics import CONTROL, LIQUIDATIONS, LOSSES, MARKS
from support.broker import Broker
from support.exact import examine
from support.flood import ACCOUNTS, flooded, phases
from support.mixed import mixed_records
from support.pipeline import Pipeline

pytestmark = [pytest.mark.kafka]

#: Marks come every 0.4 s and walk by 1 %: these trip and resume every few of them.
BREAKERS = {
    "flicker": {
        "velocity": {"move_ppm": 8_000, "window_us": 300_000},
        "markets": ["BTC-PERP", "ETH-PERP"],
        "quiet_us": 300_000,
    },
    "gust": {
        "velocity": {"move_ppm": 8_000, "window_us": 300_000},
        "level": "all",
        "at_least": 3,
        "quiet_us": 300_000,
    },
}
RULEBOOK = load_rulebook(
    json.dumps({**json.loads(builtin_rulebook("example").document), "breakers": BREAKERS})
)


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A pipeline whose settings are this process's too."""
    path = tmp_path / "breakers.json"
    path.write_bytes(RULEBOOK.document)
    made = Pipeline(kafka, tmp_path, partitions=2, max_slice_records=200, rulebook=str(path))
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
    assert capsys.readouterr().out.splitlines()[:2] == [
        "all markets: paused by desk: drill",
        "SOL-PERP: paused by desk: drill",
    ]

    told = the_json(capsys, "control", "resume", *why)
    assert told["pauses"].keys() == {"SOL-PERP"}
    assert the_json(capsys, "control", "dry-run", "on", *why)["dry_run"]["operator"] == "desk"
    pipeline.loaded[CONTROL] += 2
    pipeline.load(mixed[3_000:3_500])
    pipeline.follower.until(pipeline.is_finished, deadline_s=120, what="the dry run")
    assert the_json(capsys, "control", "dry-run", "off", *why)["dry_run"] is None
    told = the_json(capsys, "control", "halt", "--market", "SOL-PERP", *why)
    assert told["halts"].keys() == {"SOL-PERP"}
    pipeline.loaded[CONTROL] += 2
    pipeline.load(mixed[3_500:])
    pipeline.finish(deadline_s=180)

    findings = examine(pipeline.kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    assert not findings.problems
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        for agent in ("margin", "prices"):
            assert verify(logs, RULEBOOK, VerifyOptions(agent=agent)).differences == []
    events = [json.loads(record.value or b"") for record in pipeline.read(LIQUIDATIONS)]
    reasons = {(event["event"], event["reason"]) for event in events}
    assert {("suspended", "paused"), ("suspended", "breaker"), ("revised", "resumed")} <= reasons
    frames = [json.loads(r.value or b"") for r in pipeline.read(MARKS) if r.partition == 0]
    pauses = [(frame["seq"], frame["pauses"]) for frame in frames if "pauses" in frame]
    paused_at = next(seq for seq, told in pauses if "SOL-PERP" in told["markets"])
    after = [leg for event in events if event["mark_seq"] >= paused_at for leg in event["legs"]]
    assert after
    assert not any(leg["market"] == "SOL-PERP" for leg in after)
    dry = [seq for seq, told in pauses if told.get("dry_run")]
    end = next(seq for seq, told in pauses if seq > max(dry) and not told.get("dry_run"))
    shown = [event["mark_seq"] for event in events if event.get("dry_run")]
    assert min(dry) <= min(shown) <= max(shown) < end
    meant = [event["mark_seq"] for event in events if event["legs"] and not event.get("dry_run")]
    assert not any(min(dry) <= seq < end for seq in meant)
    names = [{each["name"] for each in told.get("breakers", ())} for _, told in pauses]
    assert set() in names
    assert {"flicker", "gust"} <= set().union(*names)


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


def test_what_is_liquidated_trips_a_breaker_once_over_kills_and_it_resumes(
    kafka: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rulebook = flooded()
    path = tmp_path / "flooded.json"
    path.write_bytes(rulebook.document)
    pipeline = Pipeline(kafka, tmp_path, partitions=2, rulebook=str(path))
    for name, value in pipeline.env.items():
        monkeypatch.setenv(name, value)
    try:
        pipeline.start()
        begin, crash, fills, calm = phases()
        for part in (begin, crash, fills, calm[:6], calm[6:]):
            pipeline.load(part)
            if part is fills:
                pipeline.kill_and_restart()
            pipeline.follower.until(pipeline.is_finished, deadline_s=120, what="a phase")
            if part == calm[:6]:
                (address,) = known_workers(tmp_path)
                with urlopen(f"{address.url}/metrics") as page:
                    metrics = page.read().decode()
                found = re.findall(r"solvent_breaker_tripped\{(.*)\} (\S+)", metrics)
                assert found == [('agent="prices",breaker="flood",partition="0"', "1.0")]
                pipeline.kill_and_restart()
                assert run(["control", "status"]) == 0
                told = capsys.readouterr().out
                assert told.startswith("BTC-PERP: breaker flood tripped by liquidated volume at ")
        pipeline.finish(deadline_s=60)
        volume = sum(
            micros
            for record in pipeline.read(LOSSES)
            for _, micros in json.loads(record.value or b"")["markets"]
        )
        assert volume == 12_500 * 10**6  # 20 fills of 0.01 at 62,500: told once, whoever died
        frames = [json.loads(r.value or b"") for r in pipeline.read(MARKS) if r.partition == 0]
        pauses = [frame["pauses"] for frame in frames if "pauses" in frame]
        assert [len(told.get("breakers", ())) for told in pauses] == [1, 0]
        events = [json.loads(record.value or b"") for record in pipeline.read(LIQUIDATIONS)]
        told_of = {
            name: [e["event"] for e in events if e["account_id"] == name] for name in ACCOUNTS
        }
        assert all(
            told == ["opened", "revised", "suspended", "revised"] for told in told_of.values()
        )
        with KafkaLogs(kafka.bootstrap_servers, pipeline.topics) as logs:
            for agent in ("margin", "prices"):
                assert verify(logs, rulebook, VerifyOptions(agent=agent)).differences == []
    finally:
        pipeline.close()
