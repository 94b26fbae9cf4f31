"""The samples of ``examples/`` hold under the rulebooks the README uses them with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from solvent.cli.main import run
from solvent.engine.margin import MarginShard
from solvent.engine.snapshot import evaluate_snapshot
from solvent.ops.reconcile import reconcile
from solvent.rules import builtin_rulebook
from solvent.wire.inputs import decode_collateral_move, decode_trade
from solvent.wire.topics import COLLATERAL, TRADES

SAMPLES = Path(__file__).parents[2] / "examples"
FILES = {COLLATERAL: "collateral.jsonl", TRADES: "trades.jsonl"}
DECODERS = {COLLATERAL: decode_collateral_move, TRADES: decode_trade}


class Loaded(NamedTuple):
    """A sample's line as a partition would hold it."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes


def records_of(topic: str) -> list[Loaded]:
    lines = (SAMPLES / FILES[topic]).read_bytes().splitlines()
    records = [DECODERS[topic](line) for line in lines]
    return [
        Loaded(offset, record.ts_us // 1000, record.account_id.encode(), line)
        for offset, (record, line) in enumerate(zip(records, lines, strict=True))
    ]


@pytest.mark.parametrize("rulebook", ["example", "demo"])
def test_sample_records_are_applied_without_a_reject(rulebook: str) -> None:
    shard = MarginShard(0, builtin_rulebook(rulebook))
    for topic in (COLLATERAL, TRADES):
        shard.apply(topic, records_of(topic))
    assert shard.counters["moves"] == len(records_of(COLLATERAL)) == 6
    assert shard.counters["trades"] == len(records_of(TRADES)) == 4
    assert shard.counters["rejects"] == 0
    assert shard.cut().records == []
    assert sorted(shard.keys()) == ["alice", "bob", "carol", "dave"]


@pytest.mark.parametrize("name", ["example", "demo"])
def test_sample_snapshots_differ_from_the_table_as_the_readme_says(name: str) -> None:
    rulebook = builtin_rulebook(name)
    shard = MarginShard(0, rulebook)
    for topic in (COLLATERAL, TRADES):
        shard.apply(topic, records_of(topic))
    found = reconcile(SAMPLES / "snapshots.jsonl", [shard], rulebook)
    assert found.units == 2
    assert found.differences == [("carol", "cross", "collateral.BTC", "0.06", "0.05")]


def test_sample_snapshot_holds_two_units_to_liquidate() -> None:
    snapshot = orjson.loads((SAMPLES / "snapshot.json").read_bytes())
    accounts = evaluate_snapshot(builtin_rulebook("example"), snapshot)["accounts"]
    assert [(a["account_id"], a["verdict"]) for a in accounts] == [
        ("bob", "liquidatable"),
        ("carol", "liquidatable"),
    ]
    # 1,490.97 + 2 x 1,421.50 x 0.92 + 10 x (1,420 - 1,806.05)
    assert accounts[0]["equity"]["maintenance"] == "246.03"
    # 10 x 1,420 x 2.5 %
    assert accounts[0]["requirement"]["maintenance"] == "355"


def test_phased_sample_offers_what_the_readme_says(tmp_path: Path) -> None:
    out = tmp_path / "phased"
    command = ["replay", "--inputs", str(SAMPLES / "phased"), "--partitions", "1"]
    assert run([*command, "-r", "demo-phased", "--out", str(out)]) == 0
    events = map(orjson.loads, (out / "liquidations.v1.jsonl").read_bytes().splitlines())
    readme = (SAMPLES.parent / "README.md").read_text()
    for event in events:
        withheld = [[each["size"], each["reason"]] for each in event["withheld"]]
        sizes = [leg["size"] for leg in event["legs"]]
        told = [event["account_id"], event["event"], sizes, event["released_ppm"], withheld]
        assert f"\n{orjson.dumps(told).decode()}\n" in readme


def test_leased_sample_is_claimed_as_the_readme_says(tmp_path: Path) -> None:
    out, folder = tmp_path / "leased", SAMPLES / "leased"
    command = ["replay", "--inputs", str(folder), "--partitions", "1"]
    assert run([*command, "-r", str(folder / "rulebook.yaml"), "--out", str(out)]) == 0
    readme = (SAMPLES.parent / "README.md").read_text()
    for line in (out / "liquidations.v1.jsonl").read_bytes().splitlines():
        event = orjson.loads(line)
        claims = [
            [claim["token"], claim["executor_id"], *(size["size"] for size in claim["sizes"])]
            for claim in event.get("claims", [])
        ]
        told = [event["event"], event["reason"], [leg["size"] for leg in event["legs"]], claims]
        assert f"\n{orjson.dumps(told).decode()}\n" in readme
    (reject,) = map(orjson.loads, (out / "rejects.v1.jsonl").read_bytes().splitlines())
    assert f"\n{reject['code']} {reject['message']}\n" in readme
