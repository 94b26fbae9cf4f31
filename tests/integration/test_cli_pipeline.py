"""The commands of a tour on a real broker: topics, load, worker, executor, accounts, doctor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from solvent.cli.main import run
from solvent.ops import history
from solvent.wire.inputs import encode_clock, encode_collateral_move, encode_tick, encode_trade
from solvent.wire.topics import COLLATERAL, LIQUIDATIONS, ORACLE_TICKS, TOPICS, TRADES
from support.broker import Broker
from support.pipeline import Pipeline
from support.processes import Child
from support.waiting import wait_for

NOW_US = 1_743_897_600_000_000
FEEDS = {"BTC-PERP": "61000", "ETH-PERP": "2400", "SOL-PERP": "148.5"}
FEEDS |= {"BTC/USD": "61000", "ETH/USD": "2400"}

Command = Callable[..., Any]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command as a user would and return its JSON."""

    def call(*arguments: str) -> Any:
        code = run([*arguments])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return json.loads(shown.out)

    return call


@pytest.fixture
def pipeline(
    kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> Iterator[Pipeline]:
    """A pipeline whose settings are this process's too; its topics made by `topics apply`."""
    monkeypatch.setenv("SOLVENT_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("SOLVENT_TOPIC_PREFIX", kafka.prefix)
    created = command("topics", "apply", "--partitions", "2", "--json")["created"]
    assert len(created) == len(TOPICS)
    made = Pipeline(kafka, tmp_path, partitions=2)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def a_file(folder: Path, name: str, values: list[bytes]) -> str:
    path = folder / name
    path.write_bytes(b"\n".join(values) + b"\n")
    return str(path)


def ticks(at_us: int, **changed: str) -> list[bytes]:
    """Return a tick of two sources for every feed, and the time."""
    prices = FEEDS | {name.replace("_", "-"): price for name, price in changed.items()}
    said = [
        encode_tick(source=source, feed=feed, price=price, ts_us=at_us)
        for feed, price in prices.items()
        for source in ("one", "two")
    ]
    return [*said, encode_clock(at_us)]


def deposit(account_id: str, asset: str, amount: str) -> bytes:
    return encode_collateral_move(
        move_id=f"{account_id}.{asset}",
        account_id=account_id,
        subaccount="cross",
        asset=asset,
        kind="deposit",
        amount=amount,
        ts_us=NOW_US,
    )


def trade(account_id: str, market: str, side: str, size: str, price: str) -> bytes:
    return encode_trade(
        trade_id=f"{account_id}.{market}",
        account_id=account_id,
        subaccount="cross",
        market=market,
        side=side,
        size=size,
        price=price,
        fee="0",
        ts_us=NOW_US,
    )


@pytest.mark.kafka
def test_tour_from_topics_to_a_closed_liquidation(
    pipeline: Pipeline, command: Command, tmp_path: Path
) -> None:
    def load(topic: str, values: list[bytes]) -> None:
        name = f"{topic}-{pipeline.loaded[topic]}.jsonl"
        told = command("load", a_file(tmp_path, name, values), "--topic", topic, "--json")
        assert told["sent"] == len(values)
        pipeline.loaded[topic] += len(values)

    # alice: 2,000 USDC, long 0.4 BTC at 61,000 ; bob: 50,000 USDC, short 1 ETH at 2,400
    load(COLLATERAL, [deposit("alice", "USDC", "2000"), deposit("bob", "USDC", "50000")])
    load(
        TRADES,
        [
            trade("alice", "BTC-PERP", "buy", "0.4", "61000"),
            trade("bob", "ETH-PERP", "sell", "1", "2400"),
        ],
    )
    load(ORACLE_TICKS, ticks(NOW_US))
    pipeline.start()
    pipeline.follower.until(pipeline.is_finished, deadline_s=60, what="first records folded")

    units = command("accounts", "list", "--json")
    assert [(u["account_id"], u["status"]) for u in units] == [
        ("alice", "healthy"),  # 2,000 over 24,400 * 2.5 % = 610
        ("bob", "healthy"),  # 50,000 over 2,400 * 2.5 % = 60: farther from liquidation
    ]
    assert units[0]["health_ratio"] == "3.278688"  # 2,000 / 610

    # at 57,000: E = 2,000 - 1,600 = 400 < R_M = 22,800 * 2.5 % = 570
    load(ORACLE_TICKS, ticks(NOW_US + 1_000_000, BTC_PERP="57000"))
    executor = Child(
        [sys.executable, "-m", "solvent.cli.main", "executor", "--demo"],
        env=pipeline.env,
        log=tmp_path / "executor.log",
    )
    try:
        wait_for(lambda: events(pipeline), lambda told: told[-1:] == ["closed"], deadline_s=60)
        assert executor.stop() == 0
    finally:
        executor.ensure_gone()
    assert events(pipeline) == ["opened", "closed"]
    opened, closed = (json.loads(r.value or b"") for r in pipeline.read(LIQUIDATIONS))
    assert (closed["liquidation_id"], closed["reason"]) == ("alice:cross:1", "target_reached")
    assert closed["fills"] == 1
    assert_one_trace(pipeline)

    alice = command("accounts", "show", "alice", "--json")
    (unit,) = alice["units"]
    (position,) = unit["positions"]
    (leg,) = opened["legs"]
    sold = float(leg["size"])
    assert float(position["size"]) == pytest.approx(0.4 - sold)
    # the executor pays 57,000 less 0.1 %, the fund takes its share of that; R_E counts 3.5 %
    fund_fee = sold * 56_943 * leg["fund_fee_ppm"] / 1e6
    equity = 400 - sold * 57 - fund_fee
    assert float(unit["equity"]["maintenance"]) == pytest.approx(equity, abs=0.001)
    assert equity >= 57_000 * float(position["size"]) * 0.035
    assert unit["status"] in {"healthy", "margin_call"}
    assert float(closed["liquidated_notional"]) == pytest.approx(sold * 56_943)
    assert command("accounts", "show", "bob", "--json")["units"][0]["episode"] == 0
    assert command("doctor", "--json")["healthy"] is True

    assert pipeline.worker is not None
    assert pipeline.worker.stop() == 0
    assert command("accounts", "show", "alice", "--json") == alice


def assert_one_trace(pipeline: Pipeline) -> None:
    """The offer, its fill and its end have their headers on the broker, and share a trace."""
    servers = pipeline.kafka.bootstrap_servers
    told = list(history.read_topic(servers, pipeline.topics.physical(LIQUIDATIONS)))
    fill = list(history.read_topic(servers, pipeline.topics.physical(TRADES)))[-1]
    opened, closed = (dict(record.headers) for record in told)
    assert opened["ce_specversion"] == b"1.0"
    assert (opened["ce_id"], closed["ce_id"]) == (b"alice:cross:1/1", b"alice:cross:1/2")
    assert closed["ce_type"] == b"solvent.liquidation.closed.v1"
    assert closed["ce_source"] == f"/solvent/margin/{told[1].partition}".encode()
    contexts = [headers["traceparent"] for headers in (opened, dict(fill.headers), closed)]
    assert len({context[:35] for context in contexts}) == 1  # version and trace
    assert len(set(contexts)) == 3


def events(pipeline: Pipeline) -> list[str]:
    return [json.loads(r.value or b"")["event"] for r in pipeline.read(LIQUIDATIONS)]


@pytest.mark.parametrize(
    ("eth", "verdict", "equity_initial", "equity_maintenance"),
    [
        # 600 - 18.25 + 1.5 ETH at 88 %, 92 % ; pnl 24,400 - 24,100 - 14,850 + 14,600 = 50
        pytest.param("2400", "healthy", "3799.75", str(581.75 + 3312 + 50), id="ETH 2,400"),
        pytest.param("1300", "margin_call", "2347.75", "2425.75", id="ETH 1,300"),
    ],
)
def test_evaluate_of_worked_example_gives_its_figures(  # E2, its funding paid
    tmp_path: Path,
    command: Command,
    eth: str,
    verdict: str,
    equity_initial: str,
    equity_maintenance: str,
) -> None:
    snapshot = {
        "marks": {"BTC-PERP": "61000", "SOL-PERP": "148.5", "ETH/USD": eth},
        "accounts": [
            {
                "account_id": "e2",
                "collateral": {"USDC": "581.75", "ETH": "1.5"},
                "positions": [
                    {"market": "BTC-PERP", "size": "0.4", "cost_basis": "24100"},
                    {"market": "SOL-PERP", "size": "-100", "cost_basis": "-14600"},
                ],
            }
        ],
    }
    path = a_file(tmp_path, "e2.json", [json.dumps(snapshot).encode()])
    (found,) = command("evaluate", "--rulebook", "example", "--snapshot", path)["accounts"]
    assert found["verdict"] == verdict
    assert found["equity"]["initial"] == equity_initial
    assert found["equity"]["maintenance"] == equity_maintenance
    assert found["requirement"]["initial"] == str(1_220 + 1_485)
    assert found["requirement"]["maintenance"] == str(610 + 742.5)
