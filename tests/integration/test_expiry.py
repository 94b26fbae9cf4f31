"""Funding and expiry on the real broker: indices told, fills, a settlement, the account shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from solvent.cli.main import run
from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.wire.inputs import encode_clock, encode_settlement, encode_state, encode_tick
from solvent.wire.topics import COLLATERAL, ORACLE_TICKS, REJECTS, TRADES
from support.broker import Broker
from support.kinds import EXPIRES_US, a_kinds_rulebook, kinds_text
from support.margin import NOW_US, a_move, a_trade
from support.pipeline import Pipeline

pytestmark = [pytest.mark.kafka]

ALICE = b"alice"


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A pipeline under the rulebook of all kinds, whose settings are this process's too."""
    path = tmp_path / "kinds.yaml"
    path.write_text(kinds_text())
    made = Pipeline(kafka, tmp_path, partitions=2, rulebook=str(path))
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


def ticks(at_us: int, funding: str, *more: bytes) -> list[tuple[str, bytes, bytes]]:
    """Return ticks of the prices and the funding index, more of them, and the time."""
    values = [
        encode_tick(source="venue", feed=feed, price=price, ts_us=at_us)
        for feed, price in (("BTC", "100"), ("USDT", "1"))
    ]
    values.append(encode_state(source="venue", feed="BTC-PERP/funding", value=funding, ts_us=at_us))
    return [(ORACLE_TICKS, b"venue", value) for value in (*values, *more, encode_clock(at_us))]


def trade(
    trade_id: str, market: str, size: str, price: str, ts_us: int
) -> tuple[str, bytes, bytes]:
    value = a_trade(trade_id, "alice", market=market, size=size, price=price, ts_us=ts_us)
    return TRADES, ALICE, value


def test_funding_and_settlement_reach_the_account_and_replay(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    def folded(what: str) -> None:
        pipeline.follower.until(pipeline.is_finished, deadline_s=90, what=what)

    pipeline.load([(COLLATERAL, ALICE, a_move("m1", amount="1000"))])
    pipeline.load(ticks(NOW_US, "1"))
    pipeline.start()
    folded("the first frame")
    pipeline.load(
        [
            trade("t1", "BTC-PERP", "0.004", "250", NOW_US),
            trade("t2", "BTC-CALL", "0.3", "2.5", NOW_US),
        ]
    )
    folded("fills at the index 1")
    pipeline.load(ticks(NOW_US + 1, "2.234567890123"))
    folded("the index")
    pipeline.load([trade("t3", "BTC-PERP", "0.001", "250", NOW_US + 1)])
    folded("a fill that pays it")
    settled = encode_settlement(source="venue", market="BTC-CALL", price="110.5", ts_us=EXPIRES_US)
    pipeline.load(ticks(EXPIRES_US, "2.234567890123", settled))
    folded("the settlement")
    pipeline.kill_and_restart()
    pipeline.load(ticks(EXPIRES_US + 1, "2.234567890123", settled))
    pipeline.load([trade("t4", "BTC-CALL", "0.3", "2.5", NOW_US)])
    pipeline.finish(deadline_s=90)

    assert run(["accounts", "show", "alice", "--json"]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert shown["quarantined"] is True  # by the fill in the settled contract
    (unit,) = shown["units"]
    (position,) = unit["positions"]
    assert (position["market"], position["size"]) == ("BTC-PERP", "0.005")
    assert position["funding_index"] == "2.234567890123"
    cash = 1_000_000_000 - 4_938_272 - 750_000 + 300_000 * 10  # 4 lots, premium, payoff
    assert cash == 997_311_728
    assert unit["collateral"][0]["amount"] == "997.311728"
    (reject,) = [json.loads(record.value or b"") for record in pipeline.read(REJECTS)]
    assert (reject["code"], reject["topic"]) == ("SLV-205", "trades.v1")
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        for agent in ("margin", "prices"):
            assert verify(logs, a_kinds_rulebook(), VerifyOptions(agent=agent)).differences == []
