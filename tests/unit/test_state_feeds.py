"""State feeds in the price shard: the latest word wins; what is refused, what it is worth, rows."""

from __future__ import annotations

import orjson
import pytest

from solvent.engine.prices import PriceShard
from solvent.engine.run import Run
from solvent.engine.snapshot import evaluate_snapshot
from solvent.errors import ContractError, RejectCode
from support.contracts import validator
from support.kinds import a_kinds_rulebook
from support.prices import SECOND, START_US, Feeder, Record, a_feeder, a_rulebook

OI = "BTC-PERP/oi"  # steps of 0.1; stale beyond 100 s


@pytest.mark.parametrize("value", ["0", "-12.5", "12.5", "-0.1"])
def test_word_is_the_value_with_its_sign(value: str) -> None:
    feeder = a_feeder(min_sources=3)
    feeder.state(value)
    cut = feeder.cut()
    assert cut.rejects == []
    expected = {"price": None, "value": value, "state": "valid", "since_us": 0, "sources": 1}
    assert cut.mark(OI) == expected
    (frame,) = cut.frames
    assert frame["marks"] == [{"feed": OI, **expected}]
    validator("marks").validate(frame)
    validator("price-state").validate(cut.rows[OI])


@pytest.mark.parametrize(
    ("source", "at", "value", "codes", "duplicates", "last"),
    [
        pytest.param("venue", 1.000001, "6", [], 0, "6", id="later"),
        pytest.param("other", 1.000001, "6", [], 0, "6", id="later, of another source"),
        pytest.param("venue", 1, "6", [], 0, "6", id="same time and source: the later record"),
        pytest.param("venue", 1, "5", [], 1, "5", id="same time and value: a duplicate"),
        pytest.param("other", 1, "5", [], 1, "5", id="the same, of another source"),
        pytest.param(
            *("other", 1, "6", [RejectCode.OUT_OF_ORDER], 0, "5"), id="same time, contradicting"
        ),
        pytest.param("venue", 0.999999, "6", [RejectCode.OUT_OF_ORDER], 0, "5", id="earlier"),
        pytest.param(
            *("other", 0.999999, "6", [RejectCode.OUT_OF_ORDER], 0, "5"),
            id="earlier, of another source",
        ),
    ],
)
def test_latest_word_by_event_time_wins(
    source: str, at: float, value: str, codes: list[str], duplicates: int, last: str
) -> None:
    feeder = a_feeder()
    feeder.state("5", at=1)
    feeder.state(value, at=at, source=source)
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == codes
    assert feeder.shard.counts["duplicates"] == duplicates
    assert cut.mark(OI)["value"] == last


def test_word_out_of_order_is_rejected_by_name_and_time() -> None:
    feeder = a_feeder()
    feeder.state("5", at=1)
    feeder.state("6", at=0.5, source="other")
    (reject,) = feeder.cut().rejects
    assert reject["message"] == (
        f"{OI} tick of other at {START_US + SECOND // 2}, "
        f"must be later than the last, of venue at {START_US + SECOND}"
    )


@pytest.mark.parametrize(
    ("feed", "value", "code"),
    [
        pytest.param("ETH-PERP/oi", "5", RejectCode.UNKNOWN_FEED, id="unknown feed"),
        pytest.param("BTC-PERP", "5", RejectCode.UNKNOWN_FEED, id="a price feed"),
        pytest.param(OI, "5.01", RejectCode.OFF_STEP, id="finer than the exponent"),
        pytest.param(OI, "5e3", RejectCode.OUT_OF_CONTRACT, id="not a plain decimal"),
        pytest.param(OI, "461168601842738790.5", RejectCode.OUT_OF_CONTRACT, id="2**62 + 1"),
        pytest.param(OI, "-461168601842738790.5", RejectCode.OUT_OF_CONTRACT, id="-2**62 - 1"),
    ],
)
def test_word_the_rulebook_cannot_hold_is_rejected(feed: str, value: str, code: str) -> None:
    feeder = a_feeder()
    feeder.state(value, feed=feed)
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == [code]
    assert cut.rows == {}


LEAST = [
    pytest.param("USDC/deposit", "0", "above 0", id="deposit index 0"),
    pytest.param("BTC/borrow", "-1", "above 0", id="borrow index below 0"),
    pytest.param("BTC/iv", "-0.000001", "0 or more", id="volatility below 0"),
]


@pytest.mark.parametrize(("feed", "value", "limit"), LEAST)
def test_word_below_what_its_state_can_be_is_refused_live_and_by_evaluate(
    feed: str, value: str, limit: str
) -> None:
    rulebook = a_kinds_rulebook(has_interest=True)
    feeder = Feeder(PriceShard(rulebook))
    feeder.state(value, feed=feed)
    cut = feeder.cut()
    (reject,) = cut.rejects
    assert reject["code"] == RejectCode.OUT_OF_CONTRACT
    assert reject["message"] == f"{feed} value {value} of venue, {limit} expected"
    assert (cut.rows, cut.frames) == ({}, [])
    with pytest.raises(ContractError) as refused:
        evaluate_snapshot(rulebook, {"marks": {feed: value}, "accounts": []})
    assert refused.value.message == f"marks.{feed}: {value}: {limit} expected"


@pytest.mark.parametrize(
    ("feed", "value"),
    [
        pytest.param("USDC/deposit", "0.000000000000000001", id="smallest index"),
        pytest.param("BTC/iv", "0", id="volatility 0"),
        pytest.param("BTC-PERP/funding", "-1", id="funding index below 0"),
    ],
)
def test_word_at_the_least_of_its_state_is_taken(feed: str, value: str) -> None:
    rulebook = a_kinds_rulebook(has_interest=True)
    feeder = Feeder(PriceShard(rulebook))
    feeder.state(value, feed=feed)
    cut = feeder.cut()
    assert (cut.rejects, cut.mark(feed)["value"]) == ([], value)
    evaluate_snapshot(rulebook, {"marks": {feed: value}, "accounts": []})


@pytest.mark.parametrize("value", ["461168601842738790.4", "-461168601842738790.4"])
def test_value_at_2_to_the_62_is_exact(value: str) -> None:
    feeder = a_feeder()
    feeder.state(value)
    assert feeder.cut().mark(OI)["value"] == value


def test_price_of_a_state_feed_is_rejected_with_both_kinds_named() -> None:
    feeder = a_feeder()
    feeder.tick("5", feed=OI)
    cut = feeder.cut()
    (reject,) = cut.rejects
    assert reject["code"] == RejectCode.UNKNOWN_FEED
    assert reject["message"] == (
        f"feed '{OI}' of rulebook prices is a state feed, tick of a is of kind price"
    )
    assert cut.rows == {}


@pytest.mark.parametrize(
    ("ahead_us", "codes"),
    [
        pytest.param(5 * SECOND, [], id="at the skew"),
        pytest.param(5 * SECOND + 1, [RejectCode.FUTURE], id="just beyond"),
    ],
)
def test_word_ahead_of_the_event_clock_is_rejected_beyond_the_skew(
    ahead_us: int, codes: list[str]
) -> None:
    feeder = a_feeder()
    feeder.clock(0)
    feeder.state("5", at=ahead_us / SECOND)
    assert [reject["code"] for reject in feeder.cut().rejects] == codes


@pytest.mark.parametrize(
    ("clock_at", "state"),
    [
        pytest.param(100, "valid", id="at max_age"),
        pytest.param(100.000001, "stale", id="just beyond"),
    ],
)
def test_word_is_stale_beyond_max_age_and_stays(clock_at: float, state: str) -> None:
    feeder = a_feeder()
    feeder.state("-5", at=0)
    feeder.clock(clock_at)
    mark = feeder.cut().mark(OI)
    is_valid = state == "valid"
    assert (mark["state"], mark["value"], mark["sources"]) == (state, "-5", int(is_valid))
    assert mark["since_us"] == (0 if is_valid else START_US + round(clock_at * SECOND))
    assert feeder.shard.facts().tick_age_us == {OI: round(clock_at * SECOND)}


def test_word_that_comes_too_old_has_no_value_until_one_is_valid() -> None:
    feeder = a_feeder()
    feeder.clock(200)
    feeder.state("5", at=99)
    mark = feeder.cut().mark(OI)
    assert (mark["state"], mark["value"]) == ("stale", None)
    assert feeder.shard.counts["stale"] == 1
    feeder.state("6", at=100)
    mark = feeder.cut().mark(OI)
    assert (mark["state"], mark["value"], mark["since_us"]) == ("valid", "6", 0)


def test_word_after_an_outage_is_valid_since_the_event_clock() -> None:
    feeder = a_feeder()
    feeder.state("5", at=0)
    feeder.clock(200)
    feeder.state("6", at=199)
    mark = feeder.cut().mark(OI)
    assert (mark["state"], mark["since_us"]) == ("valid", START_US + 200 * SECOND)


def test_row_keeps_the_last_word_and_whose_it_was() -> None:
    feeder = a_feeder()
    feeder.state("5", at=1, source="other")
    feeder.state("-6", at=2)
    outputs = feeder.cut().outputs
    (row,) = (orjson.loads(value or b"") for _, value in outputs.rows)
    assert row["sources"] == {}
    assert row["word"] == {"source": "venue", "value": "-6", "ts_us": START_US + 2 * SECOND}

    shard = PriceShard(a_rulebook())
    shard.load(Run.of([Record(0, 0, key, value) for key, value in outputs.rows]))
    shard.resume({}, outputs.state)
    assert shard.describe(OI) == feeder.shard.describe(OI)
    restored = Feeder(shard, feeder.offset)
    restored.state("-7", at=2, source="other")  # contradicts the word before the restart
    restored.state("-7", at=2)
    assert [reject["code"] for reject in restored.cut().rejects] == [RejectCode.OUT_OF_ORDER]
    assert shard.describe(OI)["mark"]["value"] == "-7"
