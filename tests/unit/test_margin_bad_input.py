"""Bad input through the margin shard: the reject's code and place, and that nothing else moved."""

from __future__ import annotations

import base64

import orjson
import pytest

from solvent.errors import PartitionError
from solvent.wire.topics import COLLATERAL, MARKS, TRADES
from support.contracts import validator
from support.margin import (
    NOW_MS,
    NOW_US,
    Log,
    Record,
    Replay,
    a_move,
    a_shard,
    a_trade,
    ledger_of,
    marks_of,
)

GOOD = orjson.loads(a_trade("t", fee="0.1", seq=3))


def changed(**fields: object) -> bytes:
    return orjson.dumps(GOOD | fields)


BAD_TRADES = [
    pytest.param(b'{"schema_version":1', "SLV-101", id="malformed json"),
    pytest.param(b"", "SLV-101", id="empty value"),
    pytest.param(None, "SLV-101", id="tombstone"),
    pytest.param(changed(colour="red"), "SLV-101", id="unknown field"),
    pytest.param(changed(size=1), "SLV-101", id="number where text is due"),
    pytest.param(changed(ts_us="1"), "SLV-101", id="text where a number is due"),
    pytest.param(changed(price=None), "SLV-101", id="null"),
    pytest.param(a_trade("t").replace(b'"1"', b"NaN"), "SLV-101", id="bare NaN"),
    pytest.param(changed(schema_version=2), "SLV-102", id="another version"),
    pytest.param(changed(size="NaN"), "SLV-103", id="NaN as text"),
    pytest.param(changed(size="9" * 400), "SLV-103", id="400 digits"),
    pytest.param(changed(size="9" * 40), "SLV-103", id="40 digits"),
    pytest.param(changed(size="0"), "SLV-103", id="size 0"),
    pytest.param(changed(price="0"), "SLV-103", id="price 0"),
    pytest.param(changed(price="-1"), "SLV-103", id="price below 0"),
    pytest.param(changed(side="hold"), "SLV-103", id="unknown side"),
    pytest.param(changed(trade_id="a b"), "SLV-103", id="bad identifier"),
    pytest.param(changed(size="0.3"), "SLV-104", id="off the lot"),
    pytest.param(changed(price="100.3"), "SLV-104", id="off the tick"),
    pytest.param(changed(fee="0.0000001"), "SLV-104", id="fee below a micro"),
    pytest.param(changed(subaccount="ETH-PERP"), "SLV-106", id="another market's book"),
    pytest.param(changed(subaccount="margin"), "SLV-106", id="unknown book"),
    pytest.param(changed(ts_us=NOW_US + 300_000_001), "SLV-107", id="far future"),
    pytest.param(changed(seq=5), "SLV-201", id="sequence gap"),
    pytest.param(changed(market="DOGE-PERP"), "SLV-202", id="unknown market"),
    pytest.param(changed(size="400000000000000", price="400000000000000"), "SLV-203", id="huge"),
]
GOOD_MOVE = orjson.loads(a_move("m", seq=7))
BAD_MOVES = [
    pytest.param(b"[]", "SLV-101", id="not an object"),
    pytest.param(orjson.dumps(GOOD_MOVE | {"asset": "GOLD"}), "SLV-103", id="unknown asset"),
    pytest.param(orjson.dumps(GOOD_MOVE | {"kind": "gift"}), "SLV-103", id="unknown kind"),
    pytest.param(orjson.dumps(GOOD_MOVE | {"amount": "-1"}), "SLV-103", id="negative deposit"),
    pytest.param(orjson.dumps(GOOD_MOVE | {"amount": "0.0000001"}), "SLV-104", id="off quantum"),
    pytest.param(orjson.dumps(GOOD_MOVE | {"subaccount": "x"}), "SLV-106", id="unknown book"),
    pytest.param(orjson.dumps(GOOD_MOVE | {"seq": 9}), "SLV-201", id="sequence gap"),
    pytest.param(orjson.dumps(GOOD_MOVE | {"amount": "9007199254.740992"}), "SLV-203", id="huge"),
]


def an_account() -> Log:
    return Log().move(amount="100", seq=6).trade(size="1", fee="0.5", seq=2)


def check_reject(topic: str, value: bytes | None, code: str) -> None:
    replay = Replay().run(an_account())
    before = ledger_of(replay.shard)["alice"]
    assert before[1] is False

    replay.apply(topic, [Record(4711, NOW_MS, b"alice", value)])
    replay.cut()

    (reject,) = replay.events("rejects.v1")
    assert (reject["code"], reject["topic"], reject["offset"]) == (code, topic, 4711)
    assert (reject["partition"], reject["ts_us"]) == (0, NOW_MS * 1000)
    assert (reject["account_id"], reject["quarantined"]) == ("alice", True)
    assert base64.b64decode(reject["key_base64"]) == b"alice"
    shown = reject["value_base64"]
    assert (None if shown is None else base64.b64decode(shown)) == value
    (status,) = replay.events("margin-status.v1")
    assert (status["status"], status["quarantined"]) == ("unknown", True)

    assert ledger_of(replay.shard)["alice"] == (before[0], True, before[2])
    replay.restore()
    assert ledger_of(replay.shard)["alice"] == (before[0], True, before[2])


@pytest.mark.parametrize(("value", "code"), BAD_TRADES)
def test_bad_trade_is_rejected_and_quarantines(value: bytes | None, code: str) -> None:
    check_reject(TRADES, value, code)


@pytest.mark.parametrize(("value", "code"), BAD_MOVES)
def test_bad_move_is_rejected_and_quarantines(value: bytes | None, code: str) -> None:
    check_reject(COLLATERAL, value, code)


def test_bad_record_of_unknown_account_makes_quarantined_row_without_units() -> None:
    replay = Replay().run(Log().add(TRADES, b"{", b"zoe"))
    assert ledger_of(replay.shard) == {"zoe": ([None, None], True, {})}
    assert b"zoe" in replay.table
    assert [e["account_id"] for e in replay.events("margin-status.v1")] == ["zoe"]


@pytest.mark.parametrize(
    ("key", "quarantined"),
    [
        pytest.param(b"bob", {"alice", "bob"}, id="of another account here"),
        pytest.param(b"zoe", {"alice"}, id="of an account unknown here"),
        pytest.param(None, {"alice"}, id="missing"),
        pytest.param(b"\xff", {"alice"}, id="not text"),
    ],
)
def test_wrong_key_quarantines_known_accounts_and_creates_none(
    key: bytes | None, quarantined: set[str]
) -> None:
    log = Log().move("alice").move("bob").add(TRADES, a_trade("t", "alice"), key)
    replay = Replay().run(log)
    (reject,) = replay.events("rejects.v1")
    assert (reject["code"], reject["account_id"]) == ("SLV-105", "alice")
    ledger = ledger_of(replay.shard)
    assert ledger.keys() == {"alice", "bob"}
    assert {name for name, account in ledger.items() if account[1]} == quarantined


def test_repeated_ids_and_sequences_are_counted_and_change_nothing() -> None:
    once = Log().add(COLLATERAL, a_move("m1")).add(TRADES, a_trade("t1", seq=4))
    twice = Log().add(COLLATERAL, a_move("m1")).add(TRADES, a_trade("t1", seq=4))
    twice.add(COLLATERAL, a_move("m1", amount="7")).add(TRADES, a_trade("t9", seq=4))
    replay = Replay().run(twice)
    assert ledger_of(replay.shard) == ledger_of(Replay().run(once).shard)
    assert replay.records == []
    counters = replay.shard.counters
    assert (counters["duplicate_moves"], counters["duplicate_trades"]) == (1, 1)


@pytest.mark.parametrize(
    ("distance", "applied"),
    [pytest.param(100_000, 1, id="at the edge"), pytest.param(100_001, 2, id="just beyond")],
)
def test_repeated_id_within_window_only_is_dropped(distance: int, applied: int) -> None:
    shard = a_shard()
    for offset in (5, 5 + distance):
        shard.apply(COLLATERAL, [Record(offset, NOW_MS, b"alice", a_move("m1", amount="1"))])
    assert ledger_of(shard)["alice"][2]["cross"][1] == {"USDC": applied * 1_000_000}


def test_gap_in_mark_frames_stops_the_partition() -> None:
    shard = a_shard()
    shard.apply(MARKS, [Record(0, NOW_MS, b"marks", marks_of(1, NOW_US, {"BTC": "1"}))])
    shard.apply(MARKS, [Record(1, NOW_MS, b"marks", marks_of(1, NOW_US, {"BTC": "2"}))])
    assert shard.marks.price_text(0) == "1"  # a repeat is ignored
    with pytest.raises(PartitionError, match="mark frame 3: 2 expected"):
        shard.apply(MARKS, [Record(2, NOW_MS, b"marks", marks_of(3, NOW_US, {"BTC": "3"}))])


@pytest.mark.parametrize(
    ("timestamp_ms", "ts_us"),
    [
        pytest.param(2**63 - 1, None, id="the largest"),
        pytest.param(2**53 // 1000 + 1, None, id="beyond 2**53 us"),
        pytest.param(2**53 // 1000, 2**53 // 1000 * 1000, id="within 2**53 us"),
        pytest.param(-1, None, id="none set"),
        pytest.param(-(2**63), None, id="the smallest"),
    ],
)
@pytest.mark.parametrize("topic", [TRADES, COLLATERAL])
def test_reject_of_any_kafka_time_is_written(
    topic: str, timestamp_ms: int, ts_us: int | None
) -> None:
    replay = Replay()
    replay.apply(topic, [Record(0, timestamp_ms, b"alice", b"{")])
    replay.cut()
    (reject,) = replay.events("rejects.v1")
    validator("rejects").validate(reject)
    assert (reject["code"], reject["ts_us"]) == ("SLV-101", ts_us)


def test_event_time_is_judged_by_any_kafka_time() -> None:
    replay = Replay()
    for offset, timestamp_ms in enumerate((2**63 - 1, -1, -(2**63))):
        value = a_move(f"m{offset}", f"a{offset}")
        replay.apply(COLLATERAL, [Record(offset, timestamp_ms, b"a%d" % offset, value)])
    replay.cut()
    found = [(r["account_id"], r["code"]) for r in replay.events("rejects.v1")]
    assert found == [("a1", "SLV-107"), ("a2", "SLV-107")]
    assert ledger_of(replay.shard)["a0"][2]["cross"][1] == {"USDC": 100_000_000}


def test_reject_of_huge_record_keeps_its_beginning_and_lengths() -> None:
    key, value = b"k" * 1_000_000, b"[" * 1_000_000
    replay = Replay()
    replay.apply(TRADES, [Record(0, NOW_MS, key, value)])
    (emit,) = replay.shard.cut().records
    reject = orjson.loads(emit.value)
    validator("rejects").validate(reject)
    assert base64.b64decode(reject["key_base64"]) == emit.key == key[:1024]
    assert base64.b64decode(reject["value_base64"]) == value[:16384]
    assert (reject["key_bytes"], reject["value_bytes"]) == (1_000_000, 1_000_000)
    assert len(emit.value) < 25_000  # whatever came in


@pytest.mark.parametrize("depth", [64, 65, *range(900, 1000, 3), 990, 995, 996, 997, 1000])
def test_deeply_nested_record_is_rejected_like_any_other(depth: int) -> None:
    replay = Replay()
    for topic in (TRADES, COLLATERAL):
        replay.apply(topic, [Record(0, NOW_MS, b"alice", b"[" * depth + b"]" * depth)])
    replay.cut()
    assert [r["code"] for r in replay.events("rejects.v1")] == ["SLV-101", "SLV-101"]
