"""Executors under a lease on a real broker: one is killed with its claims, the other finishes.

Nothing is filled twice: every fill counts, and what was closed is what was traded.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import parse_rulebook
from solvent.wire.topics import (
    COLLATERAL,
    LIQUIDATION_REPORTS,
    LIQUIDATIONS,
    ORACLE_TICKS,
    REJECTS,
    TRADES,
)
from support.broker import Broker
from support.margin import NOW_US, SECOND_US, a_move, a_successor, a_trade
from support.pipeline import Pipeline
from support.processes import Child
from support.waiting import wait_for

pytestmark = pytest.mark.kafka

ACCOUNTS = ("a", "b", "c")
LEASE = {"duration_us": 20 * SECOND_US, "max_share_ppm": 500_000, "claims_per_executor": 3}
RULEBOOK = a_successor(1, presets={"cross-margin": {"liquidation": {"lease": LEASE}}})
_MAIN = "from solvent.cli.main import main; main()"
#: Holds what it claimed and never answers.
_STUCK = """
import asyncio

async def wait(offer):
    await asyncio.sleep(3600)
"""


def tick(price: str | None, at_s: int) -> tuple[str, bytes, bytes]:
    """Return a price of BTC, or the time alone."""
    told: dict[str, Any] = {"schema_version": 1, "kind": "clock"}
    if price is not None:
        told |= {"kind": "price", "source": "one", "feed": "BTC", "price": price}
    return ORACLE_TICKS, b"k", orjson.dumps(told | {"ts_us": NOW_US + at_s * SECOND_US})


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path) -> Iterator[Pipeline]:
    path = tmp_path / "leased.yaml"
    path.write_bytes(RULEBOOK.document)
    assert parse_rulebook(path.read_text()).hash == RULEBOOK.hash
    made = Pipeline(kafka, tmp_path, partitions=2, rulebook=path)
    yield made
    made.close()


def test_one_executor_is_killed_with_its_claims_and_the_other_finishes(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    (tmp_path / "stuck.py").write_text(_STUCK, "utf-8")

    def executor(name: str, *options: str) -> Child:
        path = {"PYTHONPATH": ":".join([str(tmp_path), *(p for p in sys.path if p)])}
        arguments = [sys.executable, "-c", _MAIN, "executor", "--executor-id", name, *options]
        child = Child(arguments, env=pipeline.env | path, log=tmp_path / f"{name}.log")
        pipeline.others.append(child)
        return child

    def events() -> list[dict[str, Any]]:
        return [json.loads(record.value or b"") for record in pipeline.read(LIQUIDATIONS)]

    def claimants() -> set[str]:
        return {c["executor_id"] for e in events() for c in e.get("claims", [])}

    pipeline.start()
    north = executor("north", "--strategy", "stuck:wait")
    wait_for((tmp_path / "north.log").read_text, lambda log: "executor_started" in log)
    for name in ACCOUNTS:
        key = name.encode()
        pipeline.load([(COLLATERAL, key, a_move(f"m-{name}", name, amount="1000"))])
        pipeline.load([(TRADES, key, a_trade(f"t-{name}", name, size="40"))])
    pipeline.load([tick("104", 0), tick(None, 0), tick("84", 1), tick(None, 1)])
    wait_for(claimants, lambda names: names == {"north"}, deadline_s=120)
    executor("south", "--demo", "--slippage-ppm", "0")
    wait_for(claimants, lambda names: names == {"north", "south"}, deadline_s=60)
    wait_for(lambda: len(pipeline.read(TRADES)), lambda count: count > len(ACCOUNTS))
    north.kill()
    assert not any(event["event"] == "closed" for event in events())
    for at_s in range(2, 23):  # north's claims expire at 21
        pipeline.load([tick("84", at_s), tick(None, at_s)])
    wait_for(
        lambda: Counter(e["event"] for e in events())["closed"],
        lambda closed: closed == len(ACCOUNTS),
        deadline_s=120,
    )

    assert pipeline.read(REJECTS) == []
    closed = [event for event in events() if event["event"] == "closed"]
    assert {(e["reason"], e["refused_fills"]) for e in closed} == {("target_reached", 0)}
    trades = [json.loads(record.value or b"") for record in pipeline.read(TRADES)]
    fills = [trade for trade in trades if "liquidation_id" in trade]
    assert all("claim_token" in fill for fill in fills)
    assert len({fill["trade_id"] for fill in fills}) == len(fills)
    for event in closed:
        case = event["liquidation_id"]
        filled = sum(Decimal(f["size"]) for f in fills if f["liquidation_id"] == case)
        assert [Decimal(each["size"]) for each in event["closed_sizes"]] == [filled]
    reports = [json.loads(record.value or b"") for record in pipeline.read(LIQUIDATION_REPORTS)]
    assert {report["executor_id"] for report in reports} == {"north", "south"}
    worker = pipeline.worker
    assert worker is not None
    assert worker.stop() == 0
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        for agent in ("margin", "prices"):
            assert verify(logs, RULEBOOK, VerifyOptions(agent=agent)).differences == []
