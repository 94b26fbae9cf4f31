"""The marks of a shard: prices and states, what is known and usable, rows, marks by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from solvent.engine.margin import MarginShard
from solvent.engine.markbook import MARKS_ROW_KEY, MarkBook
from solvent.engine.prices import PriceShard
from solvent.engine.snapshot import evaluate_snapshot
from solvent.errors import ContractError, PartitionError
from solvent.wire.topics import MARKS
from support.contracts import validator
from support.margin import Record as Frame
from support.margin import Replay, a_rulebook_with_states, marks_of
from support.prices import SECOND, START_US, Feeder

#: Feeds of the rulebook: two prices at 0.01, one at 1e-6, states at 0.1 and 1e-18.
BTC, ETH, ODD, SKEW, RATE = range(5)


def a_book(*frames: bytes) -> MarkBook:
    book = MarkBook(a_rulebook_with_states())
    for frame in frames:
        assert book.apply(frame)
    return book


def arrays(book: MarkBook) -> dict[str, list[int]]:
    return {name: array.tolist() for name, array in book.marks._asdict().items()}


def test_value_of_zero_is_known_and_one_never_told_is_not() -> None:
    book = a_book(marks_of(1, 7, {"BTC": "100"}, values={"SKEW": "0"}))
    assert book.marks.price[[BTC, SKEW, RATE]].tolist() == [10_000, 0, 0]
    assert book.marks.is_usable[[BTC, SKEW, RATE]].tolist() == [1, 1, 0]
    assert [book.price_text(feed) for feed in (BTC, SKEW, RATE)] == ["100", "0", None]
    assert book.unjudged_us() == {"BTC": 0, "SKEW": 0}
    assert book.marks.clock_us.tolist() == [7] == [book.stream_us]


def test_state_feed_that_grows_stale_keeps_its_value_and_shows() -> None:
    book = a_book(
        marks_of(1, 7, {}, values={"SKEW": "-12.5"}),
        marks_of(2, 20, {}, values={"SKEW": "-12.5"}, state="stale", since_us=20),
        marks_of(3, 50, {}),
    )
    assert (book.marks.price[SKEW], book.marks.is_usable[SKEW]) == (-125, 0)
    assert book.unjudged_us() == {"SKEW": 30}


def test_feed_never_valid_has_no_price_and_no_alarm() -> None:
    frame = orjson.loads(marks_of(1, 7, {"BTC": "1"}, values={"SKEW": "1"}, state="stale"))
    for mark in frame["marks"]:
        mark.update({key: None for key in ("price", "value") if key in mark})
    book = a_book(orjson.dumps(frame))
    assert (book.price_text(BTC), book.price_text(SKEW), book.unjudged_us()) == (None, None, {})
    told = orjson.loads(book.row())["marks"]
    assert told["BTC"] == {"price": None, "state": "stale", "since_us": 0}
    assert told["SKEW"] == {"price": None, "value": None, "state": "stale", "since_us": 0}


def test_confidence_is_at_the_feeds_exponent_and_that_of_the_latest_mark() -> None:
    frame = orjson.loads(marks_of(1, 7, {"BTC": "100", "ETH": "5"}))
    frame["marks"][0]["confidence"] = "0.25"
    book = a_book(orjson.dumps(frame))
    assert book.marks.confidence[[BTC, ETH, SKEW]].tolist() == [25, 0, 0]
    assert orjson.loads(book.row())["marks"]["BTC"]["confidence"] == "0.25"
    assert book.apply(marks_of(2, 8, {"BTC": "101"}))
    assert book.marks.confidence[BTC] == 0


def test_row_of_a_price_without_confidence_is_what_it_was_before_states_came() -> None:
    book = a_book(marks_of(1, 7, {"BTC": "100"}))
    assert book.row() == (
        b'{"schema_version":1,"seq":1,"ts_us":7,'
        b'"marks":{"BTC":{"price":"100","state":"valid","since_us":0}}}'
    )


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        pytest.param({"feed": "X", "price": "1"}, "'X': not in the rulebook", id="no such feed"),
        pytest.param({"feed": "BTC", "price": "0"}, "price 0, above 0", id="price 0"),
        pytest.param({"feed": "BTC", "price": "-1"}, "price -1, above 0", id="price negative"),
        pytest.param({"feed": "BTC", "price": "1.001"}, "price .* finer", id="price too fine"),
        pytest.param({"feed": "BTC", "price": None, "value": "1"}, "1 is no price", id="value"),
        pytest.param({"feed": "SKEW", "price": "1"}, "1 is no value", id="price of a state"),
        pytest.param(
            {"feed": "SKEW", "price": None, "value": "461168601842738790.5"},
            "within 2\\*\\*62", id="value beyond 2**62",
        ),
        pytest.param(
            {"feed": "BTC", "price": "1", "confidence": "-1"}, "confidence -1, 0 or more",
            id="confidence negative",
        ),
        pytest.param(
            {"feed": "BTC", "price": "1", "confidence": "0.001"}, "confidence .* finer",
            id="confidence too fine",
        ),
    ],
)  # fmt: skip
def test_mark_a_feed_cannot_have_is_refused(mark: dict[str, Any], message: str) -> None:
    frame = orjson.loads(marks_of(1, 7, {}))
    frame["marks"] = [{"state": "valid", "since_us": 0, "sources": 1, **mark}]
    with pytest.raises(PartitionError, match=message):
        a_book(orjson.dumps(frame))


# -- from ticks to kernels, and back from rows


def test_state_reaches_the_marks_of_a_margin_shard_and_comes_back_from_its_rows() -> None:
    rulebook = a_rulebook_with_states()
    prices, margin = Feeder(PriceShard(rulebook)), Replay(MarginShard(0, rulebook))

    def step() -> None:
        cut = prices.cut()
        for number, frame in enumerate(cut.frames):
            validator("marks").validate(frame)
            margin.apply(MARKS, [Frame(number, 0, b"marks", orjson.dumps(frame))])
        margin.cut()

    prices.state("-12.5", feed="SKEW", source="venue")
    prices.state("0.000000000000000001", feed="RATE")
    prices.tick("100", feed="BTC", confidence="0.5")
    prices.clock(1)
    step()
    book = margin.shard.marks
    assert book.marks.price[[BTC, SKEW, RATE]].tolist() == [10_000, -125, 1]
    assert book.marks.confidence[[BTC, SKEW]].tolist() == [50, 0]
    assert book.marks.is_usable[[BTC, ETH, SKEW, RATE]].tolist() == [1, 0, 1, 1]
    assert book.marks.clock_us.tolist() == [START_US + SECOND]

    prices.state("0", at=2, feed="SKEW")
    prices.clock(3602)  # RATE is older than an hour, SKEW an hour old
    step()
    before = arrays(margin.shard.marks)
    assert before["is_usable"][SKEW] == 1
    assert (before["price"][SKEW], before["price"][RATE], before["is_usable"][RATE]) == (0, 1, 0)
    assert margin.shard.facts().unjudged_us["RATE"] == 0  # stale as of this frame
    validator("accounts").validate(orjson.loads(margin.table[MARKS_ROW_KEY]))

    row = margin.shard.marks.row()
    margin.restore()
    assert arrays(margin.shard.marks) == before
    assert margin.shard.marks.row() == row
    prices.clock(3612)
    step()
    assert margin.shard.facts().unjudged_us == {"BTC": 10 * SECOND, "RATE": 10 * SECOND, "SKEW": 0}


# -- marks by hand


def test_marks_by_hand_are_texts_or_objects() -> None:
    book = MarkBook(a_rulebook_with_states())
    book.put(
        {
            "BTC": "100",
            "ETH": {"price": "5", "confidence": "0.5"},
            "SKEW": "-1.5",
            "RATE": {"value": "0"},
        }
    )
    at = [BTC, ETH, SKEW, RATE]
    assert book.marks.price[at].tolist() == [10_000, 500, -15, 0]
    assert book.marks.confidence[at].tolist() == [0, 50, 0, 0]
    assert np.all(book.marks.is_usable[at] == 1)


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        pytest.param({"X": "1"}, "'X': one of BTC", id="no such feed"),
        pytest.param({"X": {"price": "1"}}, "'X': one of BTC", id="no such feed, an object"),
        pytest.param({"BTC": 100}, "marks.BTC: 100: a decimal string", id="number"),
        pytest.param({"BTC": {"price": 1}}, r"marks.BTC.price: 1: a decimal", id="number inside"),
        pytest.param({"BTC": {"value": "1"}}, "'price' is missing", id="value of a price"),
        pytest.param({"SKEW": {"price": "1"}}, "'value' is missing", id="price of a state"),
        pytest.param({"BTC": {"price": "1", "x": "1"}}, "unknown field 'x'", id="unknown field"),
    ],
)
def test_snapshot_with_bad_marks_is_refused(marks: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        evaluate_snapshot(a_rulebook_with_states(), {"marks": marks, "accounts": []})


def test_snapshot_may_tell_states_and_confidences() -> None:
    marks = {"BTC": {"price": "90", "confidence": "1"}, "SKEW": "-3"}
    position = {"market": "BTC-PERP", "size": "1", "entry_price": "100"}
    snapshot = {"marks": marks, "accounts": [{"account_id": "a", "positions": [position]}]}
    (found,) = evaluate_snapshot(a_rulebook_with_states(), snapshot)["accounts"]
    assert found["raw_equity"] == "-10"
