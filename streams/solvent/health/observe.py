"""What can be seen of a worker's lanes without touching them: states, offsets, ages, progress.

Lags are in offsets: they count transaction markers between records, but none at the end of a log,
so a lane that has folded all there is has lag 0. Any thread may call this.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from solvent.wire.topics import MARKS

if TYPE_CHECKING:
    from solvent.engine.shard import ShardFacts
    from solvent.runtime.lane import Lane
    from solvent.runtime.lanes import LaneKey, Lanes
    from solvent.runtime.transport import FetchState

__all__ = ["LANE_STATES", "InputSight", "LaneSight", "RestoreSight", "behind", "look_at"]

LANE_STATES: Final = ("pending", "restoring", "closed", "open", "closing", "dead")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSight:
    """One input of one lane.

    Attributes
    ----------
    topic : str
        Logical name.
    lag : int or None
        Offsets between what is committed and the log's end at the last fetch; None before one.
    unread : int
        Offsets a reader may see that the lane has not folded; 0 while that is not known.
    answered_s : float or None
        Unix time of the broker's last answer to a fetch, seconds.
    """

    topic: str
    lag: int | None
    unread: int
    answered_s: float | None


@dataclass(frozen=True, slots=True)
class RestoreSight:
    """How far a lane's restore is: rows read, and the share of the table's log in 0 to 1."""

    rows: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSight:
    """One lane.

    Attributes
    ----------
    agent, partition
        Which.
    state : str
        One of `LANE_STATES`.
    is_waiting : bool
        Whether something must come next: records to fold, a commit to end, a restore to proceed.
    progress : hashable
        Changes whenever something did.
    inputs : tuple of InputSight
        While the lane is open.
    restore : RestoreSight or None
        While it restores.
    facts : ShardFacts or None
        What the shard says, once it is whole.
    oracle_age_s : mapping of str to float
        Feed -> seconds since it last had a valid mark; empty before the first frame that this
        lane folded, None for a lane that reads no marks. The age of the newest frame is by its
        Kafka time; what a feed that is not valid adds to it is by event time.
    """

    agent: str
    partition: int
    state: str
    is_waiting: bool
    progress: Hashable
    inputs: tuple[InputSight, ...] = ()
    restore: RestoreSight | None = None
    facts: ShardFacts | None = None
    oracle_age_s: Mapping[str, float] | None = None

    @property
    def name(self) -> str:
        """Return the name logs use, ``margin-0``."""
        return f"{self.agent}-{self.partition}"


def behind(end: int | None, reached: int, fetched: FetchState) -> int | None:
    """Return how many offsets `reached` is behind `end`, None if the end is not known.

    If all that was handed on is below `reached`, what lies between it and the fetcher's position
    are markers and aborted batches, which no record will ever move a lane past.
    """
    if end is None:
        return None
    if fetched.position is not None and fetched.handed <= reached:
        reached = max(reached, fetched.position)
    return max(0, end - reached)


def look_at(lanes: Lanes, *, now_s: float | None = None) -> list[LaneSight]:
    """Look at every lane, sorted by agent and partition.

    Parameters
    ----------
    lanes : Lanes
        Of a running worker.
    now_s : float, optional
        Unix time, seconds; without it shards are not asked, which is cheaper.
    """
    return [_look_at_lane(lanes, key, lane, now_s) for key, lane in sorted(lanes.held().items())]


def _look_at_lane(lanes: Lanes, key: LaneKey, lane: Lane | None, now_s: float | None) -> LaneSight:
    agent, partition = key
    state = lanes.state_of(key)
    if lane is None or state in {"pending", "restoring"}:
        restore = None if lane is None else _restore(lane)
        return LaneSight(
            agent=agent,
            partition=partition,
            state=state,
            is_waiting=True,
            progress=(state, id(lane), restore),
            restore=restore,
        )
    inputs = _inputs(lanes, lane) if state == "open" else ()
    if state == "dead":
        is_waiting = lanes.is_assigned(key)  # to be replaced
    else:
        is_waiting = lane.is_busy or any(place.unread for place in inputs)
    facts = None if now_s is None else lane.shard.facts()
    return LaneSight(
        agent=agent,
        partition=partition,
        state=state,
        is_waiting=is_waiting,
        progress=(state, id(lane), lane.meter.slices),
        inputs=inputs,
        facts=facts,
        oracle_age_s=None if now_s is None else _oracle_age_s(lane, facts, now_s),
    )


def _inputs(lanes: Lanes, lane: Lane) -> tuple[InputSight, ...]:
    durable, read = lane.durable, lane.read_positions()
    sights = []
    for topic in lane.spec.inputs:
        fetched = lanes.fetched(topic, lane.partition)
        if fetched is None:
            sights.append(InputSight(topic=topic, lag=None, unread=0, answered_s=None))
            continue
        answered_ms = fetched.answered_ms
        sights.append(
            InputSight(
                topic=topic,
                lag=behind(fetched.end, durable.get(topic, 0), fetched),
                unread=behind(fetched.stable_end, read[topic], fetched) or 0,
                answered_s=None if answered_ms is None else answered_ms / 1000,
            )
        )
    return tuple(sights)


def _restore(lane: Lane) -> RestoreSight | None:
    progress = lane.restore_progress
    return None if progress is None else RestoreSight(progress.rows, progress.percent / 100)


def _oracle_age_s(lane: Lane, facts: ShardFacts | None, now_s: float) -> dict[str, float] | None:
    if facts is None or MARKS not in lane.spec.inputs:
        return None
    last_ms = lane.meter.last_record_ms.get(MARKS)
    if last_ms is None:
        return {}
    frame_age_s = max(0.0, now_s - last_ms / 1000)
    return {feed: frame_age_s + us / 1e6 for feed, us in facts.unjudged_us.items()}
