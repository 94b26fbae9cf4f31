"""What a lane sees of its frames, apart from any broker: it refuses a run that does not follow."""

from __future__ import annotations

import pytest

from solvent.engine.run import Record, Run
from solvent.engine.shard import Pending
from solvent.errors import InvariantError
from solvent.runtime.lane import Lane, LaneLimits
from solvent.runtime.transport import Frame
from solvent.wire.topics import TRADES, Topics
from support.toy import toy_specs


async def a_lane(**limits: float) -> Lane:
    async def crashed(lane: Lane, error: BaseException) -> None:
        raise AssertionError(lane) from error

    _, margin = toy_specs()
    return Lane(
        margin,
        0,
        app_id="unit",
        bootstrap_servers="127.0.0.1:1",  # never connected to: nothing is committed
        topics=Topics(),
        # commits wait for longer than the test lives
        limits=LaneLimits(**{"lazy_commit_s": 60.0, **limits}),
        on_crash=crashed,
        on_room=lambda lane: None,
    )


def a_frame(number: int) -> Frame:
    return Frame(Run.of([Record(number, 0, b"a", b"1")]), number)


async def test_frame_that_follows_the_last_is_taken_whatever_the_first_number() -> None:
    lane = await a_lane()
    lane.open()
    lane.put(TRADES, a_frame(41), lambda: None)
    lane.put(TRADES, a_frame(42), lambda: None)
    await lane.drop()


@pytest.mark.parametrize("number", [40, 41, 43])
async def test_frame_that_does_not_follow_the_last_is_our_bug(number: int) -> None:
    lane = await a_lane()
    lane.open()
    lane.put(TRADES, a_frame(41), lambda: None)
    with pytest.raises(InvariantError, match=f"run {number} after 41, 42 expected"):
        lane.put(TRADES, a_frame(number), lambda: None)
    await lane.drop()


@pytest.mark.parametrize(
    ("held", "may_wait"), [(Pending.MARKS, True), (Pending.ROWS, False), (Pending.NEWS, False)]
)
async def test_slice_waits_by_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, held: Pending, may_wait: bool
) -> None:
    lane = await a_lane(rows_commit_s=0.0)
    lane.open()
    monkeypatch.setattr(type(lane.shard), "pending", Pending.MARKS)
    assert lane._may_wait()
    monkeypatch.setattr(type(lane.shard), "pending", held)
    assert lane._may_wait() is may_wait
    await lane.drop()


async def test_slice_of_news_is_not_kept_by_the_patience_of_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane = await a_lane(rows_commit_s=60.0)
    lane.open()
    monkeypatch.setattr(type(lane.shard), "pending", Pending.ROWS)
    assert lane._may_wait()
    monkeypatch.setattr(type(lane.shard), "pending", Pending.NEWS)
    assert not lane._may_wait()
    await lane.drop()
