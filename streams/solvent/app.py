"""The worker's app: both agents, their tables and the clock, wired from settings."""

from __future__ import annotations

from pathlib import Path

from solvent.agents.frames import register_agent
from solvent.agents.margin import margin_agent
from solvent.agents.prices import price_agent
from solvent.errors import ConfigError
from solvent.rules import CompiledRulebook, find_rulebook
from solvent.runtime.app import LaneApp, RuntimeOptions, make_lane_app
from solvent.runtime.clock import write_wall_clock
from solvent.runtime.lane import LaneLimits
from solvent.settings import Settings
from solvent.wire.topics import ORACLE_TICKS, Topics

__all__ = ["build_app"]


def build_app(settings: Settings, *, bootstrap_servers: str, instance: str) -> LaneApp:
    """Build the Faust app of one worker.

    Parameters
    ----------
    settings : Settings
        The run's settings; `rulebook` must be set.
    bootstrap_servers : str
        The broker that was found.
    instance : str
        This worker's name in its group, unique among live workers.

    Raises
    ------
    ConfigError
        No rulebook, a rulebook that does not hold, or libraries of another version.
    """
    rulebook = _rulebook(settings.rulebook)
    topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
    specs = (price_agent(rulebook, topics.partitions), margin_agent(rulebook))
    app = make_lane_app(
        RuntimeOptions(
            app_id=settings.app_id,
            instance=instance,
            bootstrap_servers=bootstrap_servers,
            topics=topics,
            data_dir=settings.data_dir,
            session_timeout_s=settings.session_timeout_s,
            limits=LaneLimits(
                slice_records=settings.max_slice_records,
                backlog_records=2 * settings.max_slice_records,
                lazy_commit_s=settings.lazy_commit_ms / 1000,
            ),
        ),
        specs,
    )
    for spec in specs:
        register_agent(app, app.lanes, spec)
    if settings.clock == "wall":
        _register_clock(app, settings, bootstrap_servers, topics)
    return app


def _rulebook(path: Path | None) -> CompiledRulebook:
    if path is None:
        message = (
            "no rulebook: set SOLVENT_RULEBOOK (or `rulebook` in the settings file) to a file, "
            "or to demo or example"
        )
        raise ConfigError(message)
    return find_rulebook(path)


def _register_clock(
    app: LaneApp, settings: Settings, bootstrap_servers: str, topics: Topics
) -> None:
    async def clock(*_: object) -> None:
        await write_wall_clock(
            bootstrap_servers=bootstrap_servers,
            topic=topics.physical(ORACLE_TICKS),
            interval_s=settings.clock_interval_ms / 1000,
            is_mine=lambda: bool(app.lanes.open_lanes("prices")),
            should_stop=lambda: app.should_stop,
        )

    app.task(clock)
