"""Every kind of bad input through a real worker: told in `rejects`, and nothing else moved.

Each bad record comes between good records of an account of its own, so that what must not change
is known: the ledger equals an independent fold that applies the good records alone, and exactly the
accounts whose state is no longer known are quarantined.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kafka import KafkaProducer

from solvent.ops.accounts import read_shards
from solvent.rules import builtin_rulebook
from solvent.wire.inputs import encode_clock, encode_collateral_move, encode_tick, encode_trade
from solvent.wire.topics import (
    COLLATERAL,
    LIQUIDATIONS,
    MARGIN_STATUS,
    MARKS,
    ORACLE_TICKS,
    REJECTS,
    TRADES,
)
from support.broker import Broker
from support.contracts import validator
from support.fold import Fold, FoldRules
from support.margin import ledger_of, ledger_of_fold
from support.pipeline import Pipeline

pytestmark = [pytest.mark.kafka]

PARTITIONS = 2
RULEBOOK = builtin_rulebook("example")
NOW_US = 1_743_897_600_000_000
BEYOND_US = 4_000_000_000_000_000  # the year 2096, whatever the broker's clock
OVERSIZED = b'{"a":"' + b"x" * 1_000_000 + b'"}'  # the broker takes it, its reject must be smaller


class Bad(NamedTuple):
    """One bad record: what must be said of it, and whether its account is then in doubt."""

    name: str
    value: bytes | None
    code: str
    key: bytes | None = b""  # empty: the account's own
    timestamp_ms: int | None = None
    is_quarantining: bool = True


def a_trade(account_id: str, trade_id: str, **changes: Any) -> bytes:
    content: dict[str, Any] = {
        "trade_id": trade_id,
        "account_id": account_id,
        "subaccount": "cross",
        "market": "BTC-PERP",
        "side": "buy",
        "size": "0.01",
        "price": "60000.1",
        "fee": "0.25",
        "ts_us": NOW_US,
    }
    return encode_trade(**content | changes)


def a_move(account_id: str, move_id: str, **changes: Any) -> bytes:
    content: dict[str, Any] = {
        "move_id": move_id,
        "account_id": account_id,
        "subaccount": "cross",
        "asset": "USDC",
        "kind": "deposit",
        "amount": "1000",
        "ts_us": NOW_US,
    }
    return encode_collateral_move(**content | changes)


def edited(value: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(value) | fields, separators=(",", ":")).encode()


def bad_records(good: bytes, number: str) -> Iterator[Bad]:
    """Yield what is bad in a trade and in a move alike; `number` is one of its decimal fields."""
    yield Bad("malformed", good[:-1], "SLV-101")
    yield Bad("empty", b"", "SLV-101")
    yield Bad("tombstone", None, "SLV-101")
    yield Bad("deep", b"[" * 997, "SLV-101")
    yield Bad("oversized", OVERSIZED, "SLV-101")
    yield Bad("unknown-field", edited(good, colour="red"), "SLV-101")
    yield Bad("wrong-type", edited(good, **{number: 1}), "SLV-101")
    yield Bad("bare-nan", edited(good, **{number: float("nan")}), "SLV-101")
    yield Bad("version", edited(good, schema_version=2), "SLV-102")
    for text in ("NaN", "Infinity", "-1", "0", "1e3", "9" * 400):
        yield Bad(f"text-{text[:8]}", edited(good, **{number: text}), "SLV-103")
    yield Bad("off-step", edited(good, **{number: "0.00000000001"}), "SLV-104")
    yield Bad("future", edited(good, ts_us=BEYOND_US), "SLV-107")
    yield Bad("wrong-key", good, "SLV-105", key=b"nobody")
    yield Bad("no-key", good, "SLV-105", key=None)
    yield Bad("gap", edited(good, seq=12), "SLV-201")
    yield Bad("subaccount", edited(good, subaccount="margin"), "SLV-106")


def bad_trades(account_id: str) -> Iterator[Bad]:
    good = a_trade(account_id, "bad")
    yield from bad_records(good, "size")
    yield Bad("market", edited(good, market="DOGE-PERP"), "SLV-202")
    yield Bad("side", edited(good, side="hold"), "SLV-103")
    yield Bad("off-lot", edited(good, size="0.00005"), "SLV-104")
    yield Bad("off-tick", edited(good, price="60000.15"), "SLV-104")
    yield Bad("other-book", edited(good, subaccount="ETH-PERP"), "SLV-106")
    yield Bad("overflow", edited(good, size="900000000000", price="60000"), "SLV-203")


def bad_moves(account_id: str) -> Iterator[Bad]:
    good = a_move(account_id, "bad")
    yield from bad_records(good, "amount")
    yield Bad("asset", edited(good, asset="DOGE"), "SLV-103")
    yield Bad("kind", edited(good, kind="gift"), "SLV-103")


def bad_ticks() -> Iterator[Bad]:
    good = encode_tick(source="one", feed="BTC-PERP", price="1", ts_us=NOW_US + 1)
    yield Bad("malformed", good[:-1], "SLV-101")
    yield Bad("empty", b"", "SLV-101")
    yield Bad("oversized", OVERSIZED, "SLV-101")
    yield Bad("deep", b"[" * 997, "SLV-101")
    yield Bad("unknown-field", edited(good, colour="red"), "SLV-101")
    yield Bad("wrong-type", edited(good, price=1.5), "SLV-101")
    yield Bad("bare-nan", edited(good, price=float("nan")), "SLV-101")
    yield Bad("version", edited(good, schema_version=2), "SLV-102")
    yield Bad("nan", edited(good, price="NaN"), "SLV-103")
    yield Bad("infinity", edited(good, price="inf"), "SLV-103")
    yield Bad("digits", edited(good, price="9" * 400), "SLV-103")
    yield Bad("negative-confidence", edited(good, confidence="-1"), "SLV-103")
    yield Bad("fine", edited(good, price="0.0000001"), "SLV-104")
    yield Bad("future", edited(good, ts_us=BEYOND_US), "SLV-107")
    yield Bad("future-clock", encode_clock(BEYOND_US), "SLV-107")
    yield Bad("skew", edited(good, ts_us=NOW_US + 60_000_000), "SLV-107")
    yield Bad("feed", edited(good, feed="DOGE-PERP"), "SLV-301")
    yield Bad("zero", edited(good, price="0"), "SLV-302")
    yield Bad("negative", edited(good, price="-5"), "SLV-302")
    yield Bad("out-of-order", edited(good, ts_us=NOW_US - 1), "SLV-303")


class Expected(NamedTuple):
    """A reject that must be there: its coordinates and what it is about."""

    topic: str
    partition: int
    offset: int
    code: str


class Feed:
    """Produces records and keeps where they went."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._producer = KafkaProducer(
            bootstrap_servers=pipeline.kafka.bootstrap_servers, max_request_size=1 << 21
        )
        self._sent: list[tuple[Bad, str, Any]] = []

    def send(self, topic: str, key: bytes | None, value: bytes | None) -> Any:
        self._pipeline.loaded[topic] += 1
        return self._producer.send(self._pipeline.topics.physical(topic), key=key, value=value)

    def send_bad(self, topic: str, account_id: str, bad: Bad) -> None:
        """Send a bad record to the partition its account has."""
        name = self._pipeline.topics.physical(topic)
        key = account_id.encode() if bad.key == b"" else bad.key
        partition = 0
        if topic != ORACLE_TICKS:
            at = self.send(topic, account_id.encode(), self._good(topic, account_id))
            partition = at.get(10).partition
        self._pipeline.loaded[topic] += 1
        sent = self._producer.send(
            name, key=key, value=bad.value, partition=partition, timestamp_ms=bad.timestamp_ms
        )
        self._sent.append((bad, topic, sent))

    @staticmethod
    def _good(topic: str, account_id: str) -> bytes:
        make = a_trade if topic == TRADES else a_move
        return make(account_id, "good", seq=10)

    def close(self) -> set[Expected]:
        """Return the rejects that must follow."""
        self._producer.flush()
        self._producer.close()
        return {
            Expected(topic, sent.get(10).partition, sent.get(10).offset, bad.code)
            for bad, topic, sent in self._sent
        }


def feed_ticks(feed: Feed, at_us: int, btc: str) -> None:
    prices = {"BTC-PERP": btc, "ETH-PERP": "2000", "SOL-PERP": "150"}
    prices |= {"BTC/USD": btc, "ETH/USD": "2000"}
    for name, price in prices.items():
        for source in ("one", "two"):
            tick = encode_tick(source=source, feed=name, price=price, ts_us=at_us)
            feed.send(ORACLE_TICKS, b"k", tick)
    feed.send(ORACLE_TICKS, b"k", encode_clock(at_us))


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(kafka, tmp_path, partitions=PARTITIONS)
    yield made
    made.close()


def test_bad_input_of_every_kind_is_told_and_moves_nothing(pipeline: Pipeline) -> None:
    feed = Feed(pipeline)
    quarantined: set[str] = set()
    feed_ticks(feed, NOW_US, "60000")
    for topic, kinds in ((TRADES, bad_trades), (COLLATERAL, bad_moves)):
        short = topic.split(".")[0]
        for number, name in enumerate(bad.name for bad in kinds("x")):
            account_id = f"{short}.{name}"
            (bad,) = (b for b in kinds(account_id) if b.name == name)
            key = account_id.encode()
            feed.send(COLLATERAL, key, a_move(account_id, "first"))
            feed.send_bad(topic, account_id, bad)
            quarantined.add(account_id)
            feed.send(TRADES, key, a_trade(account_id, "after", side="sell", size="0.02"))
            if number % 3 == 0:  # a repeat is counted, and no fault
                feed.send(COLLATERAL, key, a_move(account_id, "first"))
    for bad in bad_ticks():
        feed.send_bad(ORACLE_TICKS, "", bad)
    feed.send(TRADES, b"calm", a_trade("calm", "t", seq=1))
    feed.send(TRADES, b"calm", a_trade("calm", "other", seq=1))
    feed.send(COLLATERAL, b"calm", a_move("calm", "m"))
    feed_ticks(feed, NOW_US + 1_000_000, "1")  # ruin for every buyer who may be judged
    expected = feed.close()
    pipeline.start()
    pipeline.finish(deadline_s=60)

    check_rejects(pipeline, expected)
    shards = read_shards(pipeline.kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    folds = fold_inputs(pipeline)
    for shard, fold in zip(shards, folds, strict=True):
        assert ledger_of(shard) == ledger_of_fold(fold)
    told = {a["account_id"]: a for shard in shards for a in shard.accounts()}
    assert {name for name, account in told.items() if account["quarantined"]} == quarantined
    assert told.keys() == quarantined | {"calm"}
    duplicates = sum(
        shard.counters["duplicate_trades"] + shard.counters["duplicate_moves"] for shard in shards
    )
    assert duplicates == sum(fold.duplicates for fold in folds) > len(quarantined) // 3
    check_marks(pipeline)
    check_events(pipeline, quarantined)


def check_rejects(pipeline: Pipeline, expected: set[Expected]) -> None:
    inputs = {
        (topic, r.partition, r.offset): r
        for topic in (TRADES, COLLATERAL, ORACLE_TICKS)
        for r in pipeline.read(topic)
    }
    found = []
    for record in pipeline.read(REJECTS):
        reject = json.loads(record.value or b"")
        validator("rejects").validate(reject)
        at = (reject["topic"], reject["partition"], reject["offset"])
        found.append(Expected(*at, reject["code"]))
        refused = inputs[at]
        assert reject["ts_us"] == refused.timestamp * 1000
        assert reject["value_bytes"] == (None if refused.value is None else len(refused.value))
        shown = reject["value_base64"]
        beginning = None if refused.value is None else refused.value[:16_384]
        assert (None if shown is None else base64.b64decode(shown)) == beginning
        assert reject["quarantined"] == (reject["topic"] != ORACLE_TICKS)
    assert sorted(found) == sorted(expected)


def fold_inputs(pipeline: Pipeline) -> list[Fold]:
    """Fold each partition, moves before trades: no balance here depends on the order of topics."""
    folds = [Fold(FoldRules.of(RULEBOOK.model)) for _ in range(PARTITIONS)]
    for topic in (COLLATERAL, TRADES):
        for r in pipeline.read(topic):
            folds[r.partition].take(topic, r.offset, r.timestamp, r.key, r.value)
    return folds


def check_marks(pipeline: Pipeline) -> None:
    """Frames are gapless in each partition, and the last prices are the good ones."""
    prices: dict[str, str] = {}
    seqs: dict[int, list[int]] = {p: [] for p in range(PARTITIONS)}
    for record in pipeline.read(MARKS):
        frame = json.loads(record.value or b"")
        seqs[record.partition].append(frame["seq"])
        assert frame["ts_us"] <= NOW_US + 1_000_000
        for mark in frame["marks"]:
            prices[mark["feed"]] = mark["price"]
            assert mark["price"] in {None, "60000", "1", "2000", "150"}
    assert prices["BTC-PERP"] == "1"
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seqs.values())


def check_events(pipeline: Pipeline, quarantined: set[str]) -> None:
    """Each quarantined account is said to be one; who is fine despite a repeat gets no offer."""
    told: set[str] = set()
    for record in pipeline.read(MARGIN_STATUS):
        status = json.loads(record.value or b"")
        validator("margin-status").validate(status)
        if status["quarantined"]:
            assert (status["status"], status["verdict"]) == ("unknown", "unknown")
            told.add(status["account_id"])
    assert told == quarantined
    opened = set()
    for record in pipeline.read(LIQUIDATIONS):
        event = json.loads(record.value or b"")
        validator("liquidations").validate(event)
        opened.add(event["account_id"])
    assert "calm" not in opened  # 0.01 BTC at a loss of 600 against 1000
