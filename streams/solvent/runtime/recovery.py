"""Where the runtime hooks into Faust's recovery: take over, seek, then open the gate.

Faust calls recovery after each rebalance, with all partitions paused. Its own recovery replays
changelogs record by record into stores; this one hands the assignment to `Lanes.take_over` and then
resumes exactly what stock Faust would resume, in the order that does not let records slip through
before the seek (FAUST.md 1.3).
"""

from __future__ import annotations

from typing import Any

import structlog
from faust.tables import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from mode import Service

from solvent.errors import ConfigError

__all__ = ["LaneRecovery", "LaneTableManager"]

log = structlog.get_logger(__name__)


class LaneRecovery(Recovery):
    """Recovery that takes lanes over instead of replaying changelogs."""

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):
                break
            self.signal_recovery_start.clear()
            generation = self._generation_id
            try:
                # Cancelled, with RebalanceAgain, when a new rebalance begins meanwhile.
                await self._wait(self._take_over(generation))
            except RebalanceAgain:
                log.info("take_over_interrupted", generation=generation)
            except ServiceStopped:
                break
            except Exception as error:
                refusal = _refusal(error)
                if refusal is None:
                    log.exception("take_over_failed", generation=generation)
                else:
                    log.critical("take_over_refused", reason=str(refusal))
                    self.app.refusal = refusal
                await self.app.crash(error)
                break

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Read nothing: restore has its own reader."""
        await self.wait_until_stopped()

    async def _take_over(self, generation: int) -> None:
        app, consumer = self.app, self.app.consumer
        self.completed.clear()
        self._set_recovery_started()
        inputs = {tp for tp in consumer.assignment() if app.lanes.is_input(tp.topic)}
        await consumer.pause_changelogs()
        await app.lanes.take_over(inputs, generation)
        self._set_recovery_ended()
        await app.on_rebalance_complete.send()
        if app.consumer_generation_id != generation:
            return
        await consumer.perform_seek()  # first to the fences ...
        consumer.resume_partitions(inputs)  # ... then open the gate
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        app.on_rebalance_end()
        log.info("worker_ready", generation=generation, lanes=app.lanes.names)


def _refusal(error: BaseException) -> ConfigError | None:
    """Return the configuration error in it, if that is why: a restart would not help."""
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for e in error.exceptions if (found := _refusal(e))), None)
    return None


class LaneTableManager(TableManager):
    """Faust's table manager with `LaneRecovery`."""

    _recovery: LaneRecovery | None

    async def on_start(self) -> None:
        """Subscribe at once; stock Faust sleeps a second first."""
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> Any:
        """Recovery service of this app."""
        if self._recovery is None:
            self._recovery = LaneRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
