"""A Faust app whose agents run on lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust

from solvent.errors import ConfigError, ServiceError
from solvent.kernel import batches
from solvent.runtime.lane import AgentSpec, LaneLimits
from solvent.runtime.lanes import Lanes
from solvent.runtime.pins import check_pins
from solvent.runtime.pulse import Pulse
from solvent.runtime.recovery import LaneTableManager
from solvent.runtime.tables import ShardTable
from solvent.runtime.transport import FrameTransport
from solvent.runtime.writer import tune_transactions
from solvent.wire.topics import Topics

__all__ = ["LaneApp", "RuntimeOptions", "make_lane_app"]

#: How old the consumer's knowledge of topics may be, ms; aiokafka's default is five minutes.
METADATA_MAX_AGE_MS = 3_000

#: Between heartbeats at most, s.
HEARTBEAT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """How a worker meets Kafka.

    Attributes
    ----------
    app_id : str
        Consumer group, and first part of every transactional id.
    instance : str
        This worker's name in the group (static membership): unique among live workers, the same
        after a restart.
    bootstrap_servers : str
        Broker addresses, comma separated.
    topics : Topics
        Names and partitions.
    data_dir : Path
        Faust insists on one; nothing of value is kept there.
    session_timeout_s : float
        A worker silent for longer loses its partitions.
    limits : LaneLimits
        Sizes of slices and backlogs.
    """

    app_id: str
    instance: str
    bootstrap_servers: str
    topics: Topics
    data_dir: Path
    session_timeout_s: float = 6.0
    limits: LaneLimits = LaneLimits()  # noqa: RUF009 - frozen


class LaneApp(faust.App):
    """Faust app with the frame transport; `lanes` is set before the consumer exists."""

    lanes: Lanes
    #: Of the event loop that folds and commits, and of the one that fetches and keeps membership.
    pulse: Pulse
    fetch_pulse: Pulse
    #: Set by the worker: called when the app begins to stop.
    on_stopping: Callable[[], None] = staticmethod(lambda: None)
    #: Why the app crashed, if the reason lies outside it: configuration or broker.
    refusal: ConfigError | ServiceError | None = None

    def _new_transport(self) -> FrameTransport:
        return FrameTransport(self.conf.broker_consumer, self, positions=self.lanes)

    async def on_start(self) -> None:
        """Start the pulse before anything can hang."""
        self.pulse.start(asyncio.get_running_loop())
        await super().on_start()

    async def on_stop(self) -> None:
        """Let commits in flight end, leave the group, then close the producers.

        Others may take the partitions over from here on: nothing more is written.
        """
        self.on_stopping()
        await self.lanes.revoke()
        if self._consumer is not None:
            await self._consumer.leave_group()
        await super().on_stop()
        await self.lanes.drop()


def make_lane_app(options: RuntimeOptions, specs: Iterable[AgentSpec]) -> LaneApp:
    """Build the app: lanes, and one table an agent; agents are registered by the caller.

    Raises
    ------
    ConfigError
        [SLV-401, SLV-406] Faust, mode or aiokafka is not what the runtime was made for.
    """
    check_pins()
    batches.warm_up()  # not on the first fetch
    tune_transactions()
    specs = tuple(specs)
    options.data_dir.mkdir(parents=True, exist_ok=True)
    app = LaneApp(
        options.app_id,
        broker=[f"kafka://{server}" for server in options.bootstrap_servers.split(",")],
        store="memory://",
        datadir=str(options.data_dir / "faust"),
        TableManager=LaneTableManager,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        # Frames, not records: few in number, large each.
        stream_buffer_maxsize=64,
        consumer_max_fetch_size=4 << 20,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=options.instance,
        # A broker just started may answer that it knows no topics, and the group's leader then
        # assigns none: nobody works until the leader asks again.
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        broker_commit_interval=1.0,
        broker_session_timeout=options.session_timeout_s,
        # A member learns of a rebalance from the answer to a heartbeat: it is part of every gap.
        broker_heartbeat_interval=min(HEARTBEAT_S, options.session_timeout_s / 6),
        broker_request_timeout=max(30.0, options.session_timeout_s),
        worker_redirect_stdouts=False,
        web_enabled=False,
    )
    app.pulse = Pulse()
    app.fetch_pulse = Pulse()
    app.lanes = Lanes(
        specs,
        app_id=options.app_id,
        instance=options.instance,
        bootstrap_servers=options.bootstrap_servers,
        topics=options.topics,
        limits=options.limits,
    )
    app.lanes.crash = app.crash
    app.lanes.pause = lambda tps: app.consumer.pause_partitions(tps)
    app.lanes.resume = lambda tps: app.consumer.resume_partitions(tps)
    for spec in specs:
        _declare_table(app, spec, options.topics)

    async def on_revoked(sender: Any, revoked: Any, **kwargs: Any) -> None:  # noqa: ARG001
        await app.lanes.revoke()

    app.on_partitions_revoked.connect(on_revoked)
    app.keep_alive = on_revoked  # signals hold weak references
    return app


def _declare_table(app: LaneApp, spec: AgentSpec, topics: Topics) -> None:
    def shards() -> dict[int, Any]:
        return {p: lane.shard for p, lane in app.lanes.open_lanes(spec.name).items()}

    changelog = app.topic(
        topics.physical(spec.table),
        key_type=bytes,
        value_type=bytes,
        partitions=topics.partitions_of(spec.table),
        compacting=True,
    )
    app.tables.add(
        ShardTable(
            app,
            shards=shards,
            name=spec.table.partition(".")[0],
            changelog_topic=changelog,
            partitions=topics.partitions_of(spec.table),
            key_type=bytes,
            value_type=bytes,
        )
    )
