"""`solvent rulebook publish` on the real broker: in force at its place, kept, refused, exact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from solvent.cli.main import run
from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import builtin_rulebook, load_rulebook
from solvent.wire.inputs import encode_collateral_move, encode_rulebook, encode_trade
from solvent.wire.topics import (
    COLLATERAL,
    JOURNAL,
    LIQUIDATIONS,
    MARKS,
    ORACLE_TICKS,
    REJECTS,
    TRADES,
)
from support.broker import Broker
from support.exact import examine
from support.mixed import START_US, mixed_records, with_statements
from support.pipeline import Pipeline

pytestmark = [pytest.mark.kafka]

RULEBOOK = builtin_rulebook("example")
SUI = {"id": 4, "lot": "1", "tick": "0.001", "mark_feed": "SUI-PERP", "settles_in": "USDC"}


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A pipeline whose settings are this process's too."""
    made = Pipeline(kafka, tmp_path, partitions=2, max_slice_records=200)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def a_version(path: Path, version: int, rate_ppm: int, **changes: Any) -> Path:
    """Write a later version of the example: other BTC rates, and a market more with its feed."""
    told = json.loads(RULEBOOK.document)
    told["rulebook"]["version"] = version
    told["feeds"]["SUI-PERP"] = {"exponent": -6}
    told["instruments"]["SUI-PERP"] = SUI
    markets = told["presets"]["cross-margin"]["requirement"]["sum"][0]["markets"]
    markets["BTC-PERP"] = {"initial_rate_ppm": 2 * rate_ppm, "maintenance_rate_ppm": rate_ppm}
    markets["SUI-PERP"] = markets["SOL-PERP"]
    path.write_text(json.dumps(told | changes))
    return path


def the_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    found = run([*arguments, "--json"])
    shown = capsys.readouterr()
    assert found == code, shown.err
    return json.loads(shown.out) if code == 0 else shown.err


def a_deposit(account: str, amount: str) -> tuple[str, bytes, bytes]:
    move = encode_collateral_move(
        move_id=f"m-{account}-{amount}",
        account_id=account,
        subaccount="cross",
        asset="USDC",
        kind="deposit",
        amount=amount,
        ts_us=START_US,
    )
    return COLLATERAL, account.encode(), move


def a_sui_trade(account: str) -> tuple[str, bytes, bytes]:
    trade = encode_trade(
        trade_id=f"sui-{account}",
        account_id=account,
        subaccount="cross",
        market="SUI-PERP",
        side="buy",
        size="10",
        price="3.5",
        fee="0",
        ts_us=START_US,
    )
    return TRADES, account.encode(), trade


def test_rulebooks_published_under_load_and_kills_equal_independent_fold(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = list(
        with_statements(
            mixed_records(RULEBOOK, count=5_000, accounts=150, seed=29),
            every=9,
            accounts=150,
            seed=3,
        )
    )
    parts = [mixed[:2_000], mixed[2_000:4_000], mixed[4_000:]]
    pipeline.load([*parts[0], a_deposit("early", "100"), a_sui_trade("early")])
    pipeline.start()
    pipeline.follower.until(pipeline.is_finished, deadline_s=120, what="the first part")

    second = a_version(tmp_path / "v2.json", 2, 60_000)
    told = the_json(capsys, "rulebook", "publish", str(second), "--wait", "60")
    assert (told["version"], told["before"]["version"]) == (2, 1)
    pipeline.loaded[ORACLE_TICKS] += 1
    pipeline.load([*parts[1], a_deposit("late", "100"), a_sui_trade("late")])
    pipeline.kill_and_restart()  # started with version 1 again
    goal = pipeline.loaded.total() * 0.95
    pipeline.follower.until(
        lambda: pipeline.progress >= goal, deadline_s=120, what="most of the second part"
    )
    pipeline.kill_and_restart()

    third = a_version(tmp_path / "v3.json", 3, 10_000)
    told = the_json(capsys, "rulebook", "publish", str(third), "--wait", "60")
    assert (told["version"], told["before"]["version"]) == (3, 2)
    pipeline.loaded[ORACLE_TICKS] += 1
    pipeline.env["SOLVENT_RULEBOOK"] = str(second)  # whatever it is started with
    pipeline.kill_and_restart()
    pipeline.load(parts[2])
    pipeline.finish(deadline_s=180)

    findings = examine(pipeline.kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    assert not findings.problems
    assert findings.lost == findings.doubled == 0
    assert_verified(pipeline)

    versions = {entry["rulebook"]["version"] for entry in entries(pipeline, JOURNAL)}
    assert versions == {1, 2, 3}
    events = entries(pipeline, LIQUIDATIONS)
    assert {event["rulebook"]["version"] for event in events} == {1, 2, 3}
    reasons = {(event["event"], event["reason"]) for event in events}
    assert ("revised", "rulebook") in reasons
    assert ("recovered", "rulebook") in reasons
    refused = [r for r in entries(pipeline, REJECTS) if r["code"] == "SLV-202"]
    assert {r["account_id"] for r in refused if "SUI-PERP" in r["message"]} == {"early"}
    late = the_json(capsys, "accounts", "show", "late")
    assert [p["market"] for p in late["units"][0]["positions"]] == ["SUI-PERP"]

    force = the_json(capsys, "rulebook", "in-force")
    assert (force["version"], force["hash"]) == (3, load_rulebook(third).hash)
    assert run(["rulebook", "publish", str(third)]) == 0
    assert "version 3 is in force already" in capsys.readouterr().out


def test_bad_rulebook_is_refused_and_reported_and_the_one_in_force_stays(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.load(mixed_records(RULEBOOK, count=300, accounts=20, seed=2))
    pipeline.start()
    pipeline.follower.until(pipeline.is_finished, deadline_s=90, what="a start")
    written = len(pipeline.read(ORACLE_TICKS))

    # Refused before anything is written: it does not hold, or what accounts hold is gone.
    same = a_version(tmp_path / "same.json", 1, 60_000)
    assert "rulebook.version: 1, limit: above 1" in the_json(
        capsys, "rulebook", "publish", str(same), code=3
    )
    wrong = a_version(tmp_path / "wrong.json", 2, 60_000, bindings={"trader": "nobody"})
    assert "bindings.trader: 'nobody'" in the_json(
        capsys, "rulebook", "publish", str(wrong), code=3
    )
    assert len(pipeline.read(ORACLE_TICKS)) == written

    # Written by somebody else, or meant for later: refused by the price agent.
    later = a_version(tmp_path / "later.json", 2, 60_000)
    told = json.loads(later.read_text())
    told["rulebook"]["effective_at_us"] = 2**52
    later.write_text(json.dumps(told))
    message = the_json(capsys, "rulebook", "publish", str(later), "--source", "desk/eve", code=3)
    assert "SLV-306" in message
    assert f"rulebook of desk/eve refused: rulebook.effective_at_us: {2**52}" in message
    pipeline.loaded[ORACLE_TICKS] += 1
    broken = RULEBOOK.document.replace(b'"quantum_exponent":-6', b'"quantum_exponent":-7')
    value = encode_rulebook(source="eve", rulebook=broken, ts_us=START_US)
    pipeline.load([(ORACLE_TICKS, b"rulebook", value)])
    pipeline.load(mixed_records(RULEBOOK, count=100, accounts=20, seed=3))
    pipeline.finish(deadline_s=90)
    refused = [r for r in entries(pipeline, REJECTS) if r["code"] == "SLV-306"]
    assert [r["topic"] for r in refused] == [ORACLE_TICKS] * 2
    assert "settlement" in refused[1]["message"]
    assert not any("rulebook" in frame for frame in entries(pipeline, MARKS))
    assert the_json(capsys, "rulebook", "in-force")["hash"] == RULEBOOK.hash
    findings = examine(pipeline.kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    assert not findings.problems


def test_rulebook_published_while_nobody_prices_waits_in_the_stream(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = a_version(tmp_path / "v2.json", 2, 60_000)
    message = the_json(capsys, "rulebook", "publish", str(second), "--wait", "0", code=4)
    assert "SLV-614" in message
    pipeline.loaded[ORACLE_TICKS] += 1
    message = the_json(capsys, "rulebook", "in-force", code=3)
    assert "no worker has priced" in message
    pipeline.start()
    pipeline.finish(deadline_s=90)
    assert the_json(capsys, "rulebook", "in-force")["version"] == 2


def assert_verified(pipeline: Pipeline) -> None:
    """Replay both agents from the first slice on, beginning with the first version."""
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        for agent in ("margin", "prices"):
            assert verify(logs, RULEBOOK, VerifyOptions(agent=agent)).differences == []


def entries(pipeline: Pipeline, topic: str) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"") for record in pipeline.read(topic)]
