"""`solvent explain` on the real broker: under kills and published rulebooks, to the last digit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from solvent.cli.main import run
from solvent.ops.logs import KafkaLogs, Tape, write_tape
from solvent.rules import builtin_rulebook, parse_rulebook
from solvent.rules.document import resolved_document
from solvent.wire.inputs import encode_control
from solvent.wire.topics import CONTROL, LIQUIDATIONS, ORACLE_TICKS
from support.broker import Broker
from support.explained import assert_explained
from support.mixed import START_US, mixed_records, with_statements
from support.pipeline import Pipeline

pytestmark = [pytest.mark.kafka]

RULEBOOK = builtin_rulebook("example")
#: Of every kind of event, where the history has so many.
OF_A_KIND = 2


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A pipeline whose settings are this process's too."""
    made = Pipeline(kafka, tmp_path, partitions=2, max_slice_records=200)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def a_version(path: Path, version: int, rate_ppm: int) -> Path:
    """Write a later version of the example with other BTC rates."""
    told = json.loads(RULEBOOK.document)
    told["rulebook"]["version"] = version
    markets = told["presets"]["cross-margin"]["requirement"]["sum"][0]["markets"]
    markets["BTC-PERP"] = {"initial_rate_ppm": 2 * rate_ppm, "maintenance_rate_ppm": rate_ppm}
    path.write_text(json.dumps(told))
    return path


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = run(["explain", *arguments, "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    told: dict[str, Any] = json.loads(shown.out)
    return told


def test_liquidations_of_every_kind_are_explained_under_kills_and_rulebooks(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = list(
        with_statements(
            mixed_records(RULEBOOK, count=4_000, accounts=120, seed=31),
            every=9,
            accounts=120,
            seed=5,
        )
    )
    pipeline.load(mixed[:2_000])
    pipeline.start()
    pipeline.follower.until(pipeline.is_finished, deadline_s=120, what="the first part")
    second = a_version(tmp_path / "v2.json", 2, 60_000)
    assert run(["rulebook", "publish", str(second), "--wait", "60"]) == 0
    pipeline.loaded[ORACLE_TICKS] += 1
    pipeline.load(mixed[2_000:3_000])
    pipeline.kill_and_restart()
    goal = pipeline.loaded.total() * 0.95
    pipeline.follower.until(lambda: pipeline.progress >= goal, deadline_s=120, what="the second")
    pipeline.kill_and_restart()
    pipeline.load(mixed[3_000:])
    pipeline.finish(deadline_s=180)
    capsys.readouterr()

    events = [json.loads(record.value or b"") for record in pipeline.read(LIQUIDATIONS)]
    seen: dict[tuple[Any, ...], int] = {}
    chosen = []
    for event in reversed(events):
        kind = event["event"], event["reason"], event["rulebook"]["version"]
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= OF_A_KIND:
            chosen.append(event)
    assert len(chosen) >= 10
    assert {version for _, _, version in seen} == {1, 2}
    assert {event for event, _, _ in seen} == {"opened", "revised", "recovered", "closed"}
    assert ("revised", "rulebook", 2) in seen
    for event in chosen:
        revision = str(event["revision"])
        told = explained(capsys, event["liquidation_id"], "--revision", revision)
        assert_explained(told, event)
        assert all(mark["record"] for mark in told["marks"] if mark["state"] != "unknown")
        assert told["records"]

    # the same of a tape of it, whose table is whole as well
    tape = tmp_path / "history.tape.gz"
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        write_tape(tape, logs)
    event = chosen[0]
    arguments = [event["liquidation_id"], "--revision", str(event["revision"])]
    told = explained(capsys, *arguments)
    from_tape = explained(capsys, *arguments, "--tape", str(tape))
    for each in (told, from_tape):
        del each["recomputed"]["seconds"]
    assert from_tape == told
    assert Tape(tape).topics.partitions == pipeline.partitions


#: Under these the example's liquidations are paid for, taken over in time, and phased.
INSURED = {"opening_micros": 1_000_000_000, "deleverage_after_us": 2_000_000}
PHASED = {"offer_ttl_us": 500_000, "release": {"duration_us": 1_500_000, "initial_ppm": 400_000}}


def test_ten_liquidations_of_differing_kinds_are_explained_byte_for_byte(
    kafka: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One history with a fund, phases and operators, whose worker dies once; all by the command."""
    document = resolved_document(RULEBOOK.model) | {"insurance": INSURED}
    for preset in document["presets"].values():
        preset["liquidation"] |= PHASED
    text = yaml.safe_dump(document, sort_keys=False)
    (tmp_path / "insured.yaml").write_text(text)
    pipeline = Pipeline(
        kafka, tmp_path, partitions=2, max_slice_records=200, rulebook=tmp_path / "insured.yaml"
    )
    for name, value in pipeline.env.items():
        monkeypatch.setenv(name, value)
    records = list(mixed_records(parse_rulebook(text), count=3_000, accounts=120, seed=77))
    orders = iter([("pause", None), ("resume", None), ("halt", "BTC-PERP"), ("resume", "BTC-PERP")])
    try:
        pipeline.start()
        for number, begin in enumerate(range(0, len(records), 500)):
            pipeline.load(records[begin : begin + 500])
            pipeline.follower.until(pipeline.is_finished, deadline_s=120, what="a part folded")
            if (order := next(orders, None)) is not None:
                pipeline.load([(CONTROL, b"desk", a_command(number, *order))])
            if number == 2:
                pipeline.kill_and_restart()
        pipeline.finish(deadline_s=120)
        published: dict[tuple[Any, ...], bytes] = {}  # the last of each kind
        for record in pipeline.read(LIQUIDATIONS):
            event = json.loads(record.value or b"")
            is_cross = event["subaccount"] == "cross"
            kind = event["event"], event["reason"], is_cross, bool(event["legs"])
            published.pop(kind, None)
            published[kind] = record.value or b""
        assert {event for event, *_ in published} == {
            *("opened", "revised", "suspended", "escalated", "closed", "recovered")
        }
        ids = {json.loads(value)["liquidation_id"] for value in published.values()}
        assert len(ids) >= 10, ids
        assert any(not is_cross for _, _, is_cross, _ in published)
        for value in published.values():
            event = json.loads(value)
            capsys.readouterr()
            told = explained(capsys, event["liquidation_id"], "--revision", str(event["revision"]))
            assert json.dumps(told["published"], separators=(",", ":")).encode() == value
            assert_explained(told, event)
    finally:
        pipeline.close()


def a_command(number: int, action: str, market: str | None) -> bytes:
    return encode_control(
        command_id=f"c{number}",
        action=action,
        market=market,
        operator="desk",
        reason="drill",
        ts_us=START_US + number,
    )
