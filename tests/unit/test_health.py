"""Verdicts on a worker: lags without markers, readiness at each limit, how long a stall is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from solvent.health.checks import Check, Limits, live_checks, ready_checks, report
from solvent.health.observe import InputSight, LaneSight, RestoreSight, behind, look_at
from solvent.health.watch import Stalls, Subject
from solvent.runtime.lane import Lane, LaneLimits
from solvent.runtime.lanes import Lanes
from solvent.runtime.meter import Histogram, LaneMeter
from solvent.runtime.restore import RestoreProgress
from solvent.runtime.transport import FetchState
from solvent.wire.topics import COLLATERAL, MARKS, TRADES, Topics
from support.toy import toy_specs

NOW_S = 1_000.0
LIMITS = Limits(lag=100, oracle_age_s=30.0, stall_s=10.0, stall_exit_s=120.0)


def fetched(*, handed: int, position: int | None) -> FetchState:
    return FetchState(handed, position, stable_end=None, end=None, answered_ms=None)


@pytest.mark.parametrize(
    ("end", "reached", "state", "offsets"),
    [
        pytest.param(50, 40, fetched(handed=50, position=50), 10, id="handed on, not folded"),
        pytest.param(50, 40, fetched(handed=40, position=40), 10, id="not fetched"),
        pytest.param(50, 50, fetched(handed=50, position=50), 0, id="all folded"),
        pytest.param(51, 50, fetched(handed=50, position=51), 0, id="a marker at the end"),
        pytest.param(51, 49, fetched(handed=50, position=51), 2, id="a record and a marker"),
        pytest.param(60, 50, fetched(handed=50, position=51), 9, id="a marker, then unfetched"),
        pytest.param(50, 45, fetched(handed=50, position=45), 5, id="sought back to the fence"),
        pytest.param(50, 50, fetched(handed=0, position=None), 0, id="position not known"),
        pytest.param(7, 0, fetched(handed=0, position=7), 0, id="nothing but markers"),
        pytest.param(40, 41, fetched(handed=41, position=41), 0, id="end older than the commit"),
        pytest.param(None, 41, fetched(handed=41, position=41), None, id="no answer yet"),
    ],
)
def test_behind_counts_offsets_that_records_may_lie_at(
    end: int | None, reached: int, state: FetchState, offsets: int | None
) -> None:
    assert behind(end, reached, state) == offsets


def a_lane(**changes) -> LaneSight:
    inputs = tuple(
        InputSight(topic=topic, lag=0, unread=0, answered_s=NOW_S)
        for topic in (TRADES, COLLATERAL, MARKS)
    )
    lane = LaneSight(
        agent="margin",
        partition=1,
        state="open",
        is_waiting=False,
        progress=0,
        inputs=inputs,
        oracle_age_s={"BTC-PERP": 0.5, "ETH-PERP": 0.25},
    )
    return replace(lane, **changes)


def with_lag(lag: int | None) -> LaneSight:
    lane = a_lane()
    return replace(lane, inputs=(replace(lane.inputs[0], lag=lag), *lane.inputs[1:]))


def answered(answered_s: float | None) -> LaneSight:
    lane = a_lane()
    return replace(
        lane, inputs=tuple(replace(place, answered_s=answered_s) for place in lane.inputs)
    )


def verdict(lane: LaneSight, *, stalls=None, limits: Limits = LIMITS) -> dict[str, Check]:
    checks = ready_checks([lane], stalls or {}, limits, is_settled=True, now_s=NOW_S)
    return {check.check: check for check in checks}


def test_ready_worker_passes_every_check() -> None:
    assert [check for check in verdict(a_lane()).values() if not check.ok] == []


def test_worker_without_a_partition_is_ready_once_the_group_says_so() -> None:
    for is_settled in (True, False):
        checks = ready_checks([], {"event loop": 0.0}, LIMITS, is_settled=is_settled, now_s=NOW_S)
        assert all(check.ok for check in checks) is is_settled


@pytest.mark.parametrize(
    ("name", "lane", "is_ok", "value", "about"),
    [
        pytest.param("lag", with_lag(100), True, 100, "margin-1 trades.v1", id="lag at limit"),
        pytest.param("lag", with_lag(101), False, 101, "margin-1 trades.v1", id="lag above"),
        pytest.param("lag", with_lag(None), False, None, "margin-1 trades.v1", id="lag unknown"),
        pytest.param(
            "broker_answer_age_s", answered(990.0), True, 10.0, None, id="answer at limit"
        ),
        pytest.param("broker_answer_age_s", answered(989.5), False, 10.5, None, id="answer old"),
        pytest.param("broker_answer_age_s", answered(None), False, None, None, id="no answer"),
        pytest.param(
            "oracle_age_s",
            a_lane(oracle_age_s={"A": 1.0, "B": 30.0}),
            True,
            30.0,
            "margin-1 B",
            id="oracle at limit",
        ),
        pytest.param(
            "oracle_age_s",
            a_lane(oracle_age_s={"A": 30.001, "B": 2.0}),
            False,
            30.001,
            "margin-1 A",
            id="one feed too old",
        ),
        pytest.param(
            "oracle_age_s", a_lane(oracle_age_s={}), False, None, "margin-1", id="no mark yet"
        ),
        pytest.param(
            "oracle_age_s", a_lane(oracle_age_s=None), True, None, None, id="lane without marks"
        ),
        pytest.param(
            "lanes_not_open",
            a_lane(state="restoring", inputs=(), oracle_age_s=None),
            False,
            1,
            "margin-1",
            id="restoring",
        ),
    ],
)
def test_ready_check_turns_at_its_limit(
    name: str, lane: LaneSight, *, is_ok: bool, value: object, about: str | None
) -> None:
    found = verdict(lane)[name]
    assert (found.ok, found.value, found.about) == (is_ok, value, about)


def test_oracle_age_without_limit_is_told_and_never_refuses() -> None:
    limits = replace(LIMITS, oracle_age_s=None)
    assert verdict(a_lane(oracle_age_s={"A": 5e6}), limits=limits)["oracle_age_s"].value == 5e6
    assert verdict(a_lane(oracle_age_s={"A": 5e6}), limits=limits)["oracle_age_s"].ok
    assert verdict(a_lane(oracle_age_s={}), limits=limits)["oracle_age_s"].ok


@pytest.mark.parametrize(("stall_s", "is_ready", "is_alive"), [
    (10.0, True, True),
    (10.1, False, True),
    (60.0, False, True),
    (60.1, False, False),
])  # fmt: skip
def test_stall_ends_readiness_at_its_limit_and_life_at_half_of_the_watchdogs(
    stall_s: float, *, is_ready: bool, is_alive: bool
) -> None:
    stalls = {"event loop": 0.0, "margin-1": stall_s}
    progress = verdict(a_lane(), stalls=stalls)["progress_s"]
    assert (progress.ok, progress.about) == (is_ready, "margin-1")
    assert all(check.ok for check in live_checks(stalls, LIMITS, is_watched=True)) is is_alive


def test_worker_whose_watchdog_died_is_not_alive() -> None:
    assert not all(check.ok for check in live_checks({}, LIMITS, is_watched=False))


def test_report_gives_the_reason_in_words_and_is_json() -> None:
    found = report(list(verdict(with_lag(101)).values()))
    assert found["ok"] is False
    assert found["reasons"] == ["lag of margin-1 trades.v1: 101, limit 100"]
    assert json.loads(json.dumps(found)) == found


# -- stalls


def stalls_after(*looks: tuple[float, bool, int]) -> float:
    """Look at one subject at given seconds, with given waiting and progress."""
    stalls = Stalls(longest_step_s=3.0)
    for now_s, is_waiting, progress in looks:
        stalls.look(now_s, {"lane": Subject(is_waiting, progress)})
    return stalls.seconds["lane"]


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        pytest.param([(0, True, 1)], 0.0, id="first sight"),
        pytest.param([(0, True, 1), (1, True, 1), (2, True, 1)], 2.0, id="stands still"),
        pytest.param([(0, True, 1), (1, True, 1), (2, True, 2)], 0.0, id="went on"),
        pytest.param([(0, True, 1), (1, True, 1), (2, False, 1)], 0.0, id="has nothing to do"),
        pytest.param([(0, False, 1), (1, False, 1), (2, False, 1)], 0.0, id="idle"),
        pytest.param([(0, False, 1), (9, True, 1), (10, True, 1)], 1.0, id="work came"),
        pytest.param([(0, True, 1), (500, True, 1)], 3.0, id="the process itself was frozen"),
    ],
)
def test_stall_counts_seconds_awake_without_progress(
    looks: list[tuple[float, bool, int]], seconds: float
) -> None:
    assert stalls_after(*looks) == seconds


def test_worst_stall_is_named_and_a_subject_that_is_gone_is_forgotten() -> None:
    stalls = Stalls(longest_step_s=3.0)
    assert stalls.worst() == (None, 0.0)
    busy = Subject(is_waiting=True, progress=0)
    stalls.look(0.0, {"a": busy, "b": busy})
    stalls.look(1.0, {"a": busy, "b": Subject(is_waiting=True, progress=1)})
    assert stalls.worst() == ("a", 1.0)
    stalls.look(2.0, {"b": busy})
    assert stalls.worst() == ("b", 0.0)


# -- meters


def test_histogram_counts_a_bound_as_within_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 1.0, 2.0):
        histogram.observe(value)
    assert histogram.cumulated() == [("0.1", 2.0), ("1.0", 4.0), ("+Inf", 5.0)]
    assert histogram.total == pytest.approx(0.05 + 0.1 + 0.5 + 1.0 + 2.0)


def test_meter_counts_a_slice_once_it_is_committed() -> None:
    meter = LaneMeter()
    meter.take(TRADES, 3, first_ms=1_000, last_ms=1_002)
    meter.take(MARKS, 1, first_ms=900, last_ms=900)
    closing = meter.cut(folded_s=0.02)
    meter.take(TRADES, 5, first_ms=1_003, last_ms=1_009)  # of the next slice
    assert (meter.slices, meter.records.total()) == (0, 0)
    assert closing.oldest_ms == 900
    meter.commit(closing)
    assert (meter.slices, dict(meter.records)) == (1, {TRADES: 3, MARKS: 1})
    assert meter.last_record_ms == {TRADES: 1_009, MARKS: 900}
    assert meter.age_s.cumulated()[-1] == ("+Inf", 1.0)


# -- lanes as they are seen


class Sights:
    """Lanes of one worker that was assigned margin-0 and prices-0, nothing begun."""

    def __init__(self) -> None:
        async def crashed(lane: Lane, error: BaseException) -> None:
            raise AssertionError(lane) from error

        specs = toy_specs()
        place = {"app_id": "unit", "bootstrap_servers": "127.0.0.1:1", "topics": Topics()}
        self.lanes = Lanes(specs, instance="unit-0", limits=LaneLimits(), **place)
        self.lanes._assigned = {("margin", 0), ("prices", 0)}
        self.lane = Lane(
            specs[1],
            0,
            limits=LaneLimits(lazy_commit_s=60.0),
            on_crash=crashed,
            on_room=lambda lane: None,
            **place,
        )

    def margin(self) -> LaneSight:
        margin, prices = look_at(self.lanes, now_s=NOW_S)
        assert (margin.name, prices.name) == ("margin-0", "prices-0")
        assert (prices.state, prices.is_waiting) == ("pending", True)
        return margin


@pytest.fixture
async def sights() -> AsyncIterator[Sights]:
    made = Sights()
    yield made
    await made.lane.drop()


async def test_lane_being_restored_shows_rows_and_share_and_each_row_is_progress(
    sights: Sights,
) -> None:
    sights.lanes._acquiring["margin", 0] = sights.lane
    before = sights.margin()
    assert (before.state, before.is_waiting, before.restore) == ("restoring", True, None)
    sights.lane.restore_progress = RestoreProgress(rows=10, offset=25, end=100)
    first = sights.margin()
    assert first.restore == RestoreSight(rows=10, share=0.25)
    sights.lane.restore_progress.rows += 1
    assert len({before.progress, first.progress, sights.margin().progress}) == 3


async def test_open_lane_waits_while_records_are_unread_and_not_for_a_marker(
    sights: Sights,
) -> None:
    sights.lanes._lanes["margin", 0] = sights.lane
    sights.lane.open()
    states = {TRADES: FetchState(0, 0, 5, 7, 1_000_000), MARKS: FetchState(0, 3, 3, 3, None)}
    sights.lanes.fetch_state = lambda tp: states.get(sights.lanes.topics.logical(tp.topic))
    waiting = sights.margin()
    assert (waiting.state, waiting.is_waiting) == ("open", True)
    assert waiting.inputs == (
        InputSight(topic=TRADES, lag=7, unread=5, answered_s=1_000.0),
        InputSight(topic=MARKS, lag=0, unread=0, answered_s=None),
    )
    # All of it turned out to be markers and aborted batches; 2 offsets are not stable yet.
    states[TRADES] = FetchState(0, 5, 5, 7, 1_000_000)
    idle = sights.margin()
    assert (idle.is_waiting, idle.inputs[0].lag, idle.inputs[0].unread) == (False, 2, 0)


async def test_dead_lane_waits_to_be_replaced_while_the_partition_is_ours(sights: Sights) -> None:
    sights.lanes._lanes["margin", 0] = sights.lane
    await sights.lane.drop()
    assert (sights.margin().state, sights.margin().is_waiting) == ("dead", True)
    sights.lanes._assigned = set()
    (only,) = look_at(sights.lanes)
    assert (only.state, only.is_waiting) == ("dead", False)
