"""The price shard: each check below, at and above its limit; states, frames, restart."""

from __future__ import annotations

import orjson
import pytest

from solvent.engine.prices import MAX_SOURCES, PriceShard
from solvent.engine.run import Run
from solvent.engine.shard import Outputs
from solvent.errors import ConfigError, InvariantError, PartitionError, RejectCode
from solvent.wire.inputs import encode_clock
from solvent.wire.topics import ORACLE_TICKS, TRADES
from support.contracts import validator
from support.prices import SECOND, START_US, Cut, Feeder, Record, a_feeder, a_rulebook

# -- 5.1: what is refused


def test_price_of_zero_or_less_is_rejected_as_non_positive() -> None:
    feeder = a_feeder()
    feeder.tick("0.01", at=0)
    feeder.tick("0", at=1)
    feeder.tick("-0.01", at=2)
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == [RejectCode.NON_POSITIVE_PRICE] * 2
    assert cut.mark()["price"] == "0.01"


@pytest.mark.parametrize(
    ("ahead_us", "codes"),
    [
        pytest.param(5 * SECOND, [], id="at the skew"),
        pytest.param(5 * SECOND + 1, [RejectCode.FUTURE], id="just beyond"),
    ],
)
def test_tick_ahead_of_the_event_clock_is_rejected_beyond_the_skew(
    ahead_us: int, codes: list[str]
) -> None:
    feeder = a_feeder()
    feeder.clock(0)
    feeder.tick("100", at=ahead_us / SECOND)
    assert [reject["code"] for reject in feeder.cut().rejects] == codes


def test_event_clock_follows_clock_records_and_no_tick() -> None:
    feeder = a_feeder()
    feeder.clock(0)
    feeder.tick("100", at=5)
    assert feeder.shard.clock_us == START_US
    feeder.clock(3)
    assert feeder.shard.clock_us == START_US + 3 * SECOND


def test_event_clock_follows_accepted_ticks_before_the_first_clock_record() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=2)
    feeder.tick("100", at=7)
    feeder.tick("100", at=13)  # 6 s beyond, skew 5 s: rejected
    assert feeder.shard.clock_us == START_US + 7 * SECOND


def test_source_ahead_of_time_does_not_make_the_others_stale() -> None:
    feeder = a_feeder(max_age_us=10 * SECOND)
    feeder.clock(0)
    feeder.tick("100", at=0, source="honest")
    for step in range(1, 20):
        feeder.tick("100", at=step, source="hasty")
    feeder.clock(1)
    feeder.tick("100", at=1, source="honest")
    assert feeder.cut().frames[-1]["ts_us"] == START_US + SECOND
    assert feeder.shard.counts["stale"] == 0


@pytest.mark.parametrize(
    ("ahead_us", "codes"),
    [
        pytest.param(300_000_000, [], id="at the limit"),
        pytest.param(300_000_001, [RejectCode.FUTURE], id="just beyond"),
    ],
)
def test_clock_beyond_its_broker_time_is_rejected_beyond_the_limit(
    ahead_us: int, codes: list[str]
) -> None:
    feeder = a_feeder()
    value = orjson.dumps({"schema_version": 1, "kind": "clock", "ts_us": START_US + ahead_us})
    feeder.raw(value, broker_us=START_US)
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == codes
    assert len(cut.frames) == 1 - len(codes)


@pytest.mark.parametrize(
    ("at", "price", "codes", "duplicates"),
    [
        pytest.param(0.999999, "101", [RejectCode.OUT_OF_ORDER], 0, id="just earlier"),
        pytest.param(1.0, "101", [RejectCode.OUT_OF_ORDER], 0, id="same time, other price"),
        pytest.param(1.0, "100", [], 1, id="same time, same price: a duplicate"),
        pytest.param(1.000001, "101", [], 0, id="just later"),
    ],
)
def test_tick_of_a_source_not_later_than_its_last_is_out_of_order(
    at: float, price: str, codes: list[str], duplicates: int
) -> None:
    feeder = a_feeder()
    feeder.tick("100", at=1)
    feeder.tick(price, at=at)
    assert [reject["code"] for reject in feeder.cut().rejects] == codes
    assert feeder.shard.counts["duplicates"] == duplicates


def test_order_is_kept_per_source_and_feed() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=1)
    feeder.tick("100", at=0.5, source="b")
    feeder.tick("100", at=0.5, feed="ETH-PERP")
    assert feeder.cut().rejects == []


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(None, RejectCode.MALFORMED, id="tombstone"),
        pytest.param(b"{", RejectCode.MALFORMED, id="not JSON"),
        pytest.param(
            b'{"schema_version":2,"kind":"clock","ts_us":1}',
            RejectCode.UNSUPPORTED_VERSION,
            id="another version",
        ),
    ],
)
def test_bytes_outside_the_contract_are_rejected_with_their_coordinates(
    value: bytes | None, code: str
) -> None:
    feeder = a_feeder()
    feeder.offset = 41
    feeder.raw(value)
    feeder.clock(1)
    cut = feeder.cut()
    (reject,) = cut.rejects
    assert (reject["topic"], reject["partition"], reject["offset"]) == ("oracle-ticks.v1", 0, 41)
    assert reject["code"] == code
    assert len(cut.frames) == 1  # the stream went on


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        pytest.param({"feed": "DOGE-PERP"}, RejectCode.UNKNOWN_FEED, id="unknown feed"),
        pytest.param({"price": "100.001"}, RejectCode.OFF_STEP, id="finer than the exponent"),
        pytest.param({"price": "1e5"}, RejectCode.OUT_OF_CONTRACT, id="not a plain decimal"),
        pytest.param({"price": "90071992547409.93"}, RejectCode.OUT_OF_CONTRACT, id="2**53 + 1"),
        pytest.param({"confidence": "0.001"}, RejectCode.OFF_STEP, id="confidence too fine"),
        pytest.param({"confidence": "-1"}, RejectCode.OUT_OF_CONTRACT, id="confidence negative"),
    ],
)
def test_tick_the_rulebook_cannot_hold_is_rejected(fields: dict[str, str], code: str) -> None:
    feeder = a_feeder()
    feeder.tick(**{"price": "100", **fields})
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == [code]
    assert cut.rows == {}


def test_price_at_2_to_the_53_is_exact() -> None:
    feeder = a_feeder()
    feeder.tick("90071992547409.92")
    assert feeder.cut().mark()["price"] == "90071992547409.92"


# -- 5.1: what is only counted


@pytest.mark.parametrize(
    ("clock_at", "state"),
    [
        pytest.param(10.0, "valid", id="at max_age"),
        pytest.param(10.000001, "stale", id="just beyond"),
    ],
)
def test_feed_without_ticks_is_stale_beyond_max_age(clock_at: float, state: str) -> None:
    feeder = a_feeder()
    feeder.tick("100", at=0)
    feeder.clock(clock_at)
    mark = feeder.cut().mark()
    assert mark["state"] == state
    assert mark["price"] == "100"  # the last price stays, flagged
    assert mark["sources"] == (1 if state == "valid" else 0)


def test_tick_older_than_max_age_is_counted_and_does_not_vote() -> None:
    feeder = a_feeder()
    feeder.clock(11)
    feeder.tick("100", at=0)
    cut = feeder.cut()
    assert (feeder.shard.counts["stale"], cut.rejects) == (1, [])
    assert (cut.mark()["state"], cut.mark()["price"]) == ("stale", None)


@pytest.mark.parametrize(
    ("confidence", "counted"),
    [
        pytest.param("1", 0, id="at 1 %"),
        pytest.param("1.01", 1, id="just above"),
    ],
)
def test_tick_with_wide_confidence_does_not_vote(confidence: str, counted: int) -> None:
    feeder = a_feeder()  # 1 % of 100 is 1
    feeder.tick("100", at=0, source="a")
    feeder.tick("100", at=1, source="b", confidence=confidence)
    assert feeder.cut().mark()["sources"] == 2 - counted
    assert feeder.shard.counts["uncertain"] == counted


def test_doubt_of_a_source_replaces_its_earlier_word() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=0)
    feeder.tick("100", at=1, confidence="50")
    assert feeder.cut().mark()["state"] == "stale"  # no valid source


def test_e11_bad_source_is_dropped_and_the_quorum_holds() -> None:  # E11
    feeder = a_feeder(min_sources=3, quorum_ppm=800_000)
    quotes = [("300120", "60"), ("300080", "50"), ("300200", "100"), ("300150", "40")]
    for at, (price, confidence) in enumerate([*quotes, ("195000", "10")]):
        feeder.tick(price, at=at, source=f"s{at}", confidence=confidence)
    mark = feeder.cut().mark()
    assert (mark["price"], mark["confidence"]) == ("300125", "55")
    assert (mark["state"], mark["sources"]) == ("valid", 4)  # 4 of 5 is 800,000 ppm exactly
    assert feeder.shard.counts["outliers"] == 1


# -- 5.2: states


@pytest.mark.parametrize(
    ("quorum_ppm", "state"),
    [
        pytest.param(666_666, "valid", id="just below two thirds"),
        pytest.param(666_667, "diverged", id="just above"),
    ],
)
def test_quorum_of_two_in_three_is_judged_exactly(quorum_ppm: int, state: str) -> None:
    feeder = a_feeder(quorum_ppm=quorum_ppm)
    feeder.tick("200", at=0, source="bad")
    feeder.tick("100", at=1, source="a")
    feeder.tick("100", at=2, source="b")
    assert feeder.cut().mark()["state"] == state


@pytest.mark.parametrize(
    ("sources", "state", "price"),
    [
        pytest.param(1, "diverged", None, id="one of two: never valid, no price"),
        pytest.param(2, "valid", "100", id="two of two"),
    ],
)
def test_fewer_than_min_sources_is_diverged(sources: int, state: str, price: str | None) -> None:
    feeder = a_feeder(min_sources=2)
    for index in range(sources):
        feeder.tick("100", at=index, source=f"s{index}")
    mark = feeder.cut().mark()
    assert (mark["state"], mark["price"]) == (state, price)


@pytest.mark.parametrize(
    ("other", "state"),
    [
        # two sources at 100 and p: price 100 + d/2, confidence d/2; 1 % of 100.99 is 1.0099
        pytest.param("101.98", "valid", id="0.99 of 100.99"),
        pytest.param("102.04", "uncertain", id="1.02 of 101.02"),
    ],
)
def test_sources_apart_make_the_aggregate_uncertain(other: str, state: str) -> None:
    feeder = a_feeder(min_sources=2)
    feeder.tick("100", at=0, source="a")
    feeder.tick(other, at=1, source="b")
    assert feeder.cut().mark()["state"] == state


def test_since_is_zero_from_the_start_and_the_event_clock_after_a_failure() -> None:
    feeder = a_feeder(min_sources=2)
    feeder.tick("100", at=0, source="a")
    assert feeder.cut().mark()["since_us"] == START_US  # diverged since the first tick
    feeder.tick("100", at=1, source="b")
    assert feeder.cut().mark()["since_us"] == 0  # valid at last: starting up is no outage
    feeder.clock(20)
    assert feeder.cut().mark()["since_us"] == START_US + 20 * SECOND  # stale
    feeder.clock(22)
    feeder.tick("100", at=21, source="a")
    feeder.tick("100", at=22, source="b")
    mark = feeder.cut().mark()
    assert (mark["state"], mark["since_us"]) == ("valid", START_US + 22 * SECOND)


# -- frames


def test_clock_always_emits_a_frame_with_the_stream_time() -> None:
    feeder = a_feeder()
    feeder.clock(1)
    feeder.clock(0.5)  # behind: the event clock does not run back
    feeder.clock(2)
    frames = feeder.cut().frames
    assert [(frame["seq"], frame["ts_us"] - START_US, frame["marks"]) for frame in frames] == [
        (1, 1 * SECOND, []),
        (2, 1 * SECOND, []),
        (3, 2 * SECOND, []),
    ]


def test_frame_goes_to_every_partition() -> None:
    feeder = a_feeder()
    feeder.clock(1)
    (emit,) = feeder.cut().outputs.records
    assert (emit.topic, emit.key, emit.everywhere) == ("marks.v1", b"marks", True)


def test_frame_holds_the_latest_of_what_changed_since_the_last() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=0)
    feeder.tick("101", at=1)
    feeder.tick("7", at=1, feed="ETH-PERP")
    feeder.clock(1)
    feeder.tick("102", at=2)
    feeder.tick("7", at=2, feed="ETH-PERP")  # same price: nothing to tell
    cut = feeder.cut()
    told = [[(mark["feed"], mark["price"]) for mark in frame["marks"]] for frame in cut.frames]
    assert told == [[("BTC-PERP", "101"), ("ETH-PERP", "7")], [("BTC-PERP", "102")]]
    # the clock stands where its last record put it
    assert [frame["ts_us"] - START_US for frame in cut.frames] == [1 * SECOND, 1 * SECOND]


def test_slice_that_changed_no_mark_emits_no_frame_but_its_row() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=0)
    feeder.cut()
    feeder.tick("100", at=1)
    cut = feeder.cut()
    assert cut.frames == []
    assert cut.rows["BTC-PERP"]["sources"]["a"]["ts_us"] == START_US + SECOND
    assert feeder.cut().rows == {}


def test_confidence_that_changes_alone_is_told() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=0, confidence="0.2")
    feeder.cut()
    feeder.tick("100", at=1, confidence="0.5")
    (frame,) = feeder.cut().frames
    assert [(mark["price"], mark["confidence"]) for mark in frame["marks"]] == [("100", "0.5")]
    feeder.tick("100", at=2, confidence="0.5")
    assert feeder.cut().frames == []


def test_restored_feed_knows_which_confidence_was_told() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=0, confidence="0.2")
    outputs = feeder.cut().outputs
    restored = _restarted(feeder, dict(outputs.rows), outputs)
    restored.clock(1)
    (frame,) = restored.cut().frames
    assert frame["marks"] == []
    restored.tick("100", at=2, confidence="0.3")
    (frame,) = restored.cut().frames
    assert [mark["confidence"] for mark in frame["marks"]] == ["0.3"]


def test_agreement_between_sources_at_one_price_is_told() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=0, source="a")
    feeder.tick("101", at=0, source="b")
    feeder.tick("100.5", at=0, source="c")  # price 100.5, confidence 0.5
    feeder.cut()
    feeder.tick("100.2", at=1, source="a")
    feeder.tick("100.8", at=1, source="b")
    (frame,) = feeder.cut().frames
    assert [(mark["price"], mark["confidence"]) for mark in frame["marks"]] == [("100.5", "0.3")]


def test_state_that_failed_and_came_back_between_frames_is_told() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=0)
    feeder.cut()
    feeder.tick("100", at=20 / 4, confidence="50")  # stale
    feeder.tick("100", at=6)  # valid again, same price, but since another time
    (frame,) = feeder.cut().frames
    assert frame["marks"][0]["since_us"] == START_US + 6 * SECOND


# -- what producers may send that nobody expects


@pytest.mark.parametrize(
    ("timestamp_ms", "code"),
    [
        pytest.param(2**63 - 1, None, id="the largest"),
        pytest.param(-1, RejectCode.FUTURE, id="none set"),
        pytest.param(-(2**63), RejectCode.FUTURE, id="the smallest"),
    ],
)
def test_any_kafka_time_is_judged_and_any_reject_of_it_written(
    timestamp_ms: int, code: str | None
) -> None:
    shard = PriceShard(a_rulebook())
    clock = encode_clock(START_US)
    shard.apply(ORACLE_TICKS, [Record(0, timestamp_ms, None, clock)])
    shard.apply(ORACLE_TICKS, [Record(1, timestamp_ms, b"k" * 1_000_000, b"[" * 1_000_000)])
    cut = Cut(shard.cut())
    assert [r["code"] for r in cut.rejects] == [c for c in (code, RejectCode.MALFORMED) if c]
    for reject in cut.rejects:
        validator("rejects").validate(reject)
        assert reject["ts_us"] is None
    assert max(len(emit.value) for emit in cut.outputs.records) < 25_000


def test_sources_beyond_the_limit_are_rejected_until_one_is_silent() -> None:
    feeder = a_feeder(max_age_us=10 * SECOND)
    for number in range(MAX_SOURCES):
        feeder.tick("100", at=number / 1000, source=f"s{number}")
    feeder.clock(10)
    feeder.tick("100", at=10, source="late")
    (reject,) = feeder.cut().rejects
    assert reject["code"] == RejectCode.OUT_OF_CONTRACT
    assert reject["message"] == f"BTC-PERP has {MAX_SOURCES} live sources, at most {MAX_SOURCES}"
    feeder.clock(10.000001)  # s0 is now older than 10 s
    feeder.tick("100", at=10.000001, source="late")
    cut = feeder.cut()
    assert cut.rejects == []
    assert cut.rows["BTC-PERP"]["sources"].keys() == (
        {f"s{number}" for number in range(1, MAX_SOURCES)} | {"late"}
    )


# -- restart and replay


def _script(feeder: Feeder, step: int) -> None:
    """One step of a stream with every kind of weather in it."""
    at = step * 0.75
    kind = step % 7
    if step % 5 == 0:
        feeder.state(f"{30 - step}.5", at=at - step % 2 * 5)  # every other one is out of order
    if kind == 6:
        feeder.clock(at)
    elif kind == 5:
        feeder.tick("150" if step % 2 else "1e9", at=at, source="c")
    elif step in range(20, 34):
        feeder.tick("50.5", at=at, source="a", feed="ETH-PERP")  # BTC-PERP grows stale
    else:
        feeder.tick(f"100.{step % 90 + 10}", at=at, source="ab"[step % 2], confidence="0.2")


def _restarted(feeder: Feeder, rows: dict[bytes, bytes | None], outputs: Outputs) -> Feeder:
    shard = PriceShard(a_rulebook())
    shard.load(Run.of([Record(0, 0, key, value) for key, value in rows.items()]))
    shard.resume({}, orjson.loads(orjson.dumps(outputs.state)))
    return Feeder(shard, feeder.offset)


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_restart_after_every_slice_continues_byte_for_byte(stride: int) -> None:
    through, restarting = a_feeder(), a_feeder()
    rows: dict[bytes, bytes | None] = {}
    for step in range(60):
        _script(through, step)
        _script(restarting, step)
        if step % stride == stride - 1:
            expected, outputs = through.shard.cut(), restarting.shard.cut()
            assert outputs == expected
            rows.update(outputs.rows)
            restarting = _restarted(restarting, rows, outputs)
    assert through.shard.counts["outliers"] + through.shard.counts["rejects"] > 0


def test_framing_changes_no_row_and_no_gap_in_the_sequence() -> None:
    finals = []
    for stride in (1, 4, 60):
        feeder = a_feeder()
        rows: dict[bytes, bytes | None] = {}
        told: dict[str, object] = {}
        sequence = []
        for step in range(60):
            _script(feeder, step)
            if step % stride == stride - 1:
                cut = feeder.cut()
                rows.update(cut.outputs.rows)
                sequence += [frame["seq"] for frame in cut.frames]
                for frame in cut.frames:
                    for mark in frame["marks"]:
                        told[mark["feed"]] = {k: v for k, v in mark.items() if k != "sources"}
        assert sequence == list(range(1, len(sequence) + 1))
        finals.append((rows, told))
    assert finals[0] == finals[1] == finals[2]


def test_resume_under_another_rulebook_is_refused() -> None:
    feeder = a_feeder()
    feeder.clock(1)
    state = feeder.shard.cut().state
    with pytest.raises(ConfigError, match="price-state"):
        PriceShard(a_rulebook(band_ppm=1)).resume({}, state)


def test_resume_of_a_new_partition_starts_at_sequence_one() -> None:
    shard = PriceShard(a_rulebook())
    shard.resume({}, {})
    feeder = Feeder(shard)
    feeder.clock(1)
    assert feeder.cut().frames[0]["seq"] == 1


def test_deleted_row_is_unsound() -> None:
    shard = PriceShard(a_rulebook())
    shard.load(Run.of([Record(0, 0, b"BTC-PERP", None)]))
    with pytest.raises(PartitionError, match="BTC-PERP"):
        shard.resume({}, {})


def test_another_topic_is_our_bug() -> None:
    with pytest.raises(InvariantError, match=TRADES):
        PriceShard(a_rulebook()).apply(TRADES, [])
