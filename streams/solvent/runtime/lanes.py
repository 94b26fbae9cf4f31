"""All lanes of a worker: who owns what, dispatch of frames, back-pressure, crashes.

Ownership changes in one order only. On revoke: stop feeding, let the commit in flight end. On
take-over: lanes that are no longer ours are dropped; a lane that stays is kept only if a claim with
its *old* producer commits (a frozen worker may have lost the partition and got it back without
Faust seeing a change); every other is built anew by `Lane.acquire`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog
from faust.types import TP

from solvent.errors import InvariantError
from solvent.runtime.lane import AgentSpec, Lane, LaneLimits
from solvent.runtime.transport import FetchState
from solvent.runtime.writer import FENCED_ERRORS
from solvent.wire.topics import Topics

__all__ = ["LaneKey", "Lanes"]

log = structlog.get_logger(__name__)

#: (agent name, partition)
LaneKey = tuple[str, int]

_REVOKE_TIMEOUT_S = 3.0
_ACQUIRE_ATTEMPTS = 3
#: A fenced lane that is still ours after this long means the group forgot to tell us: start over.
_FENCED_GRACE_S = 15.0


class Lanes:
    """Lanes of one worker.

    Parameters
    ----------
    specs : iterable of AgentSpec
        The agents.
    app_id, instance : str
        Consumer group and this worker's name in it.
    bootstrap_servers, topics, limits
        Passed on to each lane.
    """

    def __init__(
        self,
        specs: Iterable[AgentSpec],
        *,
        app_id: str,
        instance: str,
        bootstrap_servers: str,
        topics: Topics,
        limits: LaneLimits,
    ) -> None:
        self.specs: dict[str, AgentSpec] = {spec.name: spec for spec in specs}
        self.topics = topics
        self._spec_of_topic = {topic: spec for spec in self.specs.values() for topic in spec.inputs}
        self._app_id = app_id
        self._instance = instance
        self._bootstrap_servers = bootstrap_servers
        self._limits = limits
        self._lanes: dict[LaneKey, Lane] = {}
        self._acquiring: dict[LaneKey, Lane] = {}
        self._assigned: set[LaneKey] = set()
        self._generation = -1
        self._paused: set[LaneKey] = set()
        self._changing = asyncio.Lock()
        self._watches: set[asyncio.Task[None]] = set()
        #: Transactions and claims that the broker refused, since another worker had taken over.
        self.fenced: Counter[str] = Counter()
        #: Set by the transport: how far an input was fetched.
        self.fetch_state: Callable[[TP], FetchState | None] = lambda _: None
        #: Set by the app: stop the worker with this error.
        self.crash: Callable[[BaseException], Awaitable[None]] | None = None
        #: Set by the app: pause and resume inputs in the consumer.
        self.pause: Callable[[set[TP]], None] = lambda _: None
        self.resume: Callable[[set[TP]], None] = lambda _: None

    # -- what the consumer asks ----------------------------------------------------------------

    def is_input(self, topic: str) -> bool:
        """Whether a topic, by its name on the broker, is read by one of the agents."""
        return self.topics.logical(topic) in self._spec_of_topic

    def read_positions(self) -> dict[TP, int]:
        """Return the next offset to read of every input of every open lane."""
        return {
            TP(self.topics.physical(topic), lane.partition): offset
            for lane in self._lanes.values()
            if lane.is_open
            for topic, offset in lane.read_positions().items()
        }

    def durable_positions(self) -> dict[TP, int]:
        """Return the committed next offset of every input of every lane."""
        return {
            TP(self.topics.physical(topic), lane.partition): offset
            for lane in self._lanes.values()
            if not lane.is_dead
            for topic, offset in lane.durable.items()
        }

    def open_lanes(self, agent: str) -> dict[int, Lane]:
        """Return the open lanes of one agent by partition."""
        return {p: lane for (a, p), lane in self._lanes.items() if a == agent and lane.is_open}

    @property
    def is_holding_back(self) -> bool:
        """Whether inputs of some lane are paused, so that the consumer should look again soon."""
        return bool(self._paused)

    @property
    def names(self) -> list[str]:
        """Names of the lanes held, as logs show them."""
        return [f"{agent}-{partition}" for agent, partition in sorted(self._lanes)]

    # -- what an operator asks, from another thread ---------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether the group has assigned partitions (or none) and every lane of them is ready."""
        return self._generation >= 0

    def is_assigned(self, key: LaneKey) -> bool:
        """Whether the group says the partition is ours."""
        return key in self._assigned

    def held(self) -> dict[LaneKey, Lane | None]:
        """Return every lane that is ours or being made ours; None: not even begun."""
        lanes: dict[LaneKey, Lane | None] = dict.fromkeys(self._assigned)
        return lanes | self._lanes | self._acquiring

    def fetched(self, topic: str, partition: int) -> FetchState | None:
        """Return how far an input (logical name) was fetched, None if it is not assigned."""
        return self.fetch_state(TP(self.topics.physical(topic), partition))

    def state_of(self, key: LaneKey) -> str:
        """Return `Lane.state`, or ``pending`` or ``restoring`` of one that is being made ours."""
        if key in self._acquiring:
            return "restoring"
        lane = self._lanes.get(key)
        return "pending" if lane is None else lane.state

    # -- frames --------------------------------------------------------------------------------

    def dispatch(self, event: Any) -> None:
        """Hand a frame to its lane; frames of lanes or generations that are gone are let go."""
        message = event.message
        topic = self.topics.logical(message.topic)
        key = (self._spec_of_topic[topic].name, message.partition)
        lane = self._lanes.get(key)
        if lane is None or not lane.is_open or message.generation_id != self._generation:
            return
        lane.put(topic, message.value, event.ack)
        if lane.is_full and key not in self._paused:
            # Pausing this lane's inputs, and no more, keeps one slow partition from holding up
            # the prices of all the others: one fetcher feeds every agent.
            self._paused.add(key)
            self.pause(self._inputs_of(key))

    def _resume(self, lane: Lane) -> None:
        """Take a lane's inputs up again, long before it has nothing left to fold."""
        key = (lane.spec.name, lane.partition)
        if key in self._paused and self._lanes.get(key) is lane and lane.is_open:
            self._paused.discard(key)
            self.resume(self._inputs_of(key))

    def _inputs_of(self, key: LaneKey) -> set[TP]:
        agent, partition = key
        return {TP(self.topics.physical(t), partition) for t in self.specs[agent].inputs}

    # -- ownership -----------------------------------------------------------------------------

    async def revoke(self) -> None:
        """Close every lane: what comes back must prove its ownership first."""
        self._assigned = set()
        self._generation = -1
        closed = await asyncio.gather(
            *(lane.close(_REVOKE_TIMEOUT_S) for lane in self._lanes.values())
        )
        if closed:
            log.info("lanes_revoked", lanes=len(closed), clean=sum(closed))

    async def drop(self) -> None:
        """Give every lane up, at the end of the worker."""
        await asyncio.gather(*(lane.drop() for lane in self._lanes.values()))
        self._lanes.clear()
        for watch in self._watches:
            watch.cancel()

    async def take_over(self, assigned: Iterable[TP], generation: int) -> None:
        """Own exactly the lanes of `assigned` inputs, restored and open.

        Raises
        ------
        InvariantError
            [SLV-900] The inputs of an agent are not co-partitioned.
        """
        wanted = self._lane_keys(assigned)
        async with self._changing:  # a cancelled take-over cleans up first
            self._assigned = wanted
            self._paused.clear()
            for key in [k for k in self._lanes if k not in wanted or self._lanes[k].is_dead]:
                await self._lanes.pop(key).drop()
            async with asyncio.TaskGroup() as group:
                for key in sorted(wanted):
                    group.create_task(self._own(key, generation))
            # Only now: until every lane is ready no frame may pass.
            self._generation = generation
            for lane in self._lanes.values():
                lane.open()

    def _lane_keys(self, assigned: Iterable[TP]) -> set[LaneKey]:
        by_topic: dict[str, set[int]] = {topic: set() for topic in self._spec_of_topic}
        for tp in assigned:
            by_topic[self.topics.logical(tp.topic)].add(tp.partition)
        keys: set[LaneKey] = set()
        for spec in self.specs.values():
            partitions = by_topic[spec.inputs[0]]
            for topic in spec.inputs:
                if by_topic[topic] != partitions:
                    message = (
                        f"agent {spec.name}: assigned {topic} {sorted(by_topic[topic])}, "
                        f"{spec.inputs[0]} {sorted(partitions)}; they must be co-partitioned"
                    )
                    raise InvariantError(message)
            keys.update((spec.name, partition) for partition in partitions)
        return keys

    async def _own(self, key: LaneKey, generation: int) -> None:
        lane = self._lanes.get(key)
        if lane is not None:
            if await self._may_keep(lane, generation):
                return
            del self._lanes[key]
            await lane.drop()
        self._lanes[key] = await self._acquire(key, generation)

    async def _may_keep(self, lane: Lane, generation: int) -> bool:
        if not await lane.close(_REVOKE_TIMEOUT_S):
            return False
        try:
            await lane.claim(generation, self._instance)
        except FENCED_ERRORS:
            self.fenced[lane.spec.name] += 1
            log.info("lane_lost_meanwhile", agent=lane.spec.name, partition=lane.partition)
            return False
        log.info("lane_kept", agent=lane.spec.name, partition=lane.partition, generation=generation)
        return True

    async def _acquire(self, key: LaneKey, generation: int) -> Lane:
        agent, partition = key
        for attempt in range(1, _ACQUIRE_ATTEMPTS + 1):
            lane = Lane(
                self.specs[agent],
                partition,
                app_id=self._app_id,
                bootstrap_servers=self._bootstrap_servers,
                topics=self.topics,
                limits=self._limits,
                on_crash=self._on_lane_crash,
                on_room=self._resume,
            )
            self._acquiring[key] = lane
            try:
                await lane.acquire(generation, self._instance)
            except FENCED_ERRORS:
                self.fenced[agent] += 1
                # A late start of our own cancelled take-over may fence the new producer.
                await lane.drop()
                log.warning("acquire_fenced", agent=agent, partition=partition, attempt=attempt)
                if attempt == _ACQUIRE_ATTEMPTS:
                    raise
            except BaseException:
                await lane.drop()
                raise
            else:
                return lane
            finally:
                del self._acquiring[key]
        raise AssertionError

    # -- failure -------------------------------------------------------------------------------

    async def _on_lane_crash(self, lane: Lane, error: BaseException) -> None:
        name = f"{lane.spec.name}-{lane.partition}"
        if isinstance(error, FENCED_ERRORS):
            self.fenced[lane.spec.name] += 1
            log.warning("lane_fenced", lane=name, error=repr(error))
            watch = asyncio.create_task(self._crash_if_still_ours(lane, error))
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)
            return
        log.error("lane_failed", lane=name, error=repr(error), exc_info=error)
        await self._stop_worker(error)

    async def _crash_if_still_ours(self, lane: Lane, error: BaseException) -> None:
        """End the worker if the group never takes a fenced lane away (it would sit idle)."""
        await asyncio.sleep(_FENCED_GRACE_S)
        key = (lane.spec.name, lane.partition)
        if self._lanes.get(key) is lane and key in self._assigned:
            log.error("lane_fenced_but_assigned", lane=key)
            await self._stop_worker(error)

    async def _stop_worker(self, error: BaseException) -> None:
        if self.crash is None:
            raise error
        await self.crash(error)
