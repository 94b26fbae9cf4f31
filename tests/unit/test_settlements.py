"""Settlements of contracts at expiry, as the price shard takes them."""

from __future__ import annotations

import pytest

from solvent.engine.prices import PriceShard
from solvent.engine.run import Run
from support.prices import START_US, Feeder, Record, a_feeder, a_rulebook


def test_settlement_is_told_in_a_frame_of_its_own_at_its_place() -> None:
    feeder = a_feeder()
    feeder.tick("100")
    feeder.settlement("99.50")
    feeder.tick("101", at=1)
    frames = feeder.cut().frames
    assert [[mark["price"] for mark in frame["marks"]] for frame in frames] == [["100"], ["101"]]
    assert frames[0]["settlements"] == [{"market": "BTC-DATED", "price": "99.5"}]
    assert "settlements" not in frames[1]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"market": "DOGE-DATED"}, "SLV-202", id="unknown market"),
        pytest.param({"market": "BTC-PERP"}, "SLV-304", id="market that does not expire"),
        pytest.param({"at": 99.999999}, "SLV-304", id="just before expiry"),
        pytest.param({"price": "0"}, "SLV-302", id="price of zero"),
        pytest.param({"price": "-5"}, "SLV-302", id="price below zero"),
        pytest.param({"price": "99.505"}, "SLV-104", id="finer than its feed"),
        pytest.param({"price": "1e3"}, "SLV-103", id="no decimal"),
    ],
)
def test_settlement_out_of_contract_is_rejected(changes: dict[str, str], code: str) -> None:
    feeder = a_feeder()
    feeder.settlement(**{"price": "99.50", **changes})  # type: ignore[arg-type]
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == [code]
    assert cut.frames == []
    assert cut.rows == {}


def test_settlement_beyond_its_broker_time_is_rejected() -> None:
    feeder = a_feeder()
    value = (
        b'{"schema_version":1,"kind":"settlement","source":"venue","market":"BTC-DATED",'
        b'"price":"99.5","ts_us":1700001000000000}'
    )
    feeder.raw(value, broker_us=START_US)
    assert [reject["code"] for reject in feeder.cut().rejects] == ["SLV-107"]


def test_settlement_told_again_is_a_duplicate_and_another_price_a_reject() -> None:
    feeder = a_feeder()
    feeder.settlement("99.50")
    first = feeder.cut()
    assert first.rows["\0settlements"]["settlements"] == {
        "BTC-DATED": {"source": "venue", "price": "99.5", "ts_us": START_US + 100_000_000}
    }
    restored = PriceShard(a_rulebook())
    rows = [Record(0, 0, key, value) for key, value in first.outputs.rows]
    restored.load(Run.of(rows))
    restored.resume({}, first.outputs.state)
    for shard in (feeder.shard, restored):
        again = Feeder(shard, offset=1)
        again.settlement("99.5", at=200, source="other")
        again.settlement("99.51")
        cut = again.cut()
        assert [reject["code"] for reject in cut.rejects] == ["SLV-305"]
        assert shard.counts["duplicates"] == 1
        assert (cut.frames, cut.rows) == ([], {})
