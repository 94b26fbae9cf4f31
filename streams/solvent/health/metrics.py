"""Prometheus metrics of a worker, read from its lanes when somebody scrapes.

Names follow Prometheus: base units in the name, counters end in ``_total``. Counters are this
process's since it took a partition over. No label holds an account. Topics are logical names
(``trades.v1``), agents ``margin`` and ``prices``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from solvent.health.observe import LANE_STATES, LaneSight
from solvent.wire.topics import MARKS, ORACLE_TICKS

if TYPE_CHECKING:
    from solvent.engine.shard import ShardFacts
    from solvent.runtime.lane import Lane
    from solvent.runtime.lanes import Lanes

__all__ = ["WorkerCollector", "render", "worker_registry"]

_LANE: Final = ("agent", "partition")
_INPUT: Final = (*_LANE, "topic")

_COUNTERS: Final = {
    "solvent_records": (_INPUT, "Input records committed."),
    "solvent_slices": (_LANE, "Slices committed, one transaction each."),
    "solvent_duplicates": (_INPUT, "Records passed over because they were seen before."),
    "solvent_rejects": ((*_LANE, "code"), "Records refused, by reject code."),
    "solvent_halted_fills": (_LANE, "Fills applied in markets that operators halted."),
    "solvent_transactions_fenced": (
        ("agent",),
        "Transactions the broker refused since another worker owned the partition.",
    ),
}
_HISTOGRAMS: Final = {
    "solvent_fold_seconds": "Folding of a slice, without waiting.",
    "solvent_commit_seconds": "Transaction of a slice, from cut to committed.",
    "solvent_record_age_seconds": "Oldest record of a slice: from its Kafka time to committed.",
}
_GAUGES: Final = {
    "solvent_lane_state": ((*_LANE, "state"), "1 for the state a lane is in, 0 for the others."),
    "solvent_lag_offsets": (_INPUT, "Log end at the last fetch minus committed position."),
    "solvent_backlog_records": (_LANE, "Records fetched that wait to be folded."),
    "solvent_stalled_seconds": (
        ("subject",),
        "Time without the progress that a lane or event loop should have made.",
    ),
    "solvent_event_age_seconds": (_LANE, "Wall clock minus event time reached."),
    "solvent_oracle_age_seconds": (
        (*_LANE, "feed"),
        "Time since the feed last had a valid mark.",
    ),
    "solvent_tick_age_seconds": ((*_LANE, "feed"), "Time since the feed's newest tick."),
    "solvent_rulebook_info": (
        (*_LANE, "id", "version", "hash"),
        "Always 1; the rulebook in force.",
    ),
    "solvent_accounts": (_LANE, "Accounts known."),
    "solvent_units": ((*_LANE, "status"), "Margin units by status."),
    "solvent_cases_open": (_LANE, "Liquidation cases open."),
    "solvent_breaker_tripped": (
        (*_LANE, "breaker"),
        "Markets that a circuit breaker pauses, 1 if it pauses all; 0 while it is not tripped.",
    ),
    "solvent_restore_rows": (_LANE, "Table rows read by the restore under way."),
    "solvent_restore_ratio": (_LANE, "Share of the table's log read by it, 0 to 1."),
}


class WorkerCollector(Collector):
    """Reads the lanes of one worker at each scrape.

    Parameters
    ----------
    instance : str
        The worker's name in its group.
    lanes : callable
        Returns the lanes, None before there are any.
    stalls : callable
        Returns seconds without progress by lane or event loop.
    look : callable
        Returns whether ``/readyz`` would say ready at a moment of Unix time, and the lanes as
        they were seen for it.
    """

    def __init__(
        self,
        instance: str,
        *,
        lanes: Callable[[], Lanes | None],
        stalls: Callable[[], Mapping[str, float]],
        look: Callable[[float], tuple[bool, Sequence[LaneSight]]],
    ) -> None:
        self._instance = instance
        self._lanes = lanes
        self._stalls = stalls
        self._look = look

    def describe(self) -> Iterator[Metric]:
        """Say nothing: the registry needs no names in advance."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield every family, also those without a sample yet."""
        now_s = time.time()
        is_ready, sights = self._look(now_s)
        yield from self._about_the_worker(is_ready=is_ready)
        scrape = _Scrape()
        for subject, seconds in self._stalls().items():
            scrape.add("solvent_stalled_seconds", [subject], seconds)
        lanes = self._lanes()
        if lanes is not None:
            scrape.read(lanes, sights, now_s)
        yield from scrape.families()

    def _about_the_worker(self, *, is_ready: bool) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "solvent_worker_info", "Always 1; who this is.", labels=("instance", "version")
        )
        info.add_metric([self._instance, metadata.version("solvent")], 1)
        yield info
        yield GaugeMetricFamily("solvent_worker_ready", "1 if /readyz says ready.", value=is_ready)


def worker_registry(collector: WorkerCollector) -> CollectorRegistry:
    """Return a registry of its own with the collector and the process's memory, CPU and files."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """Return the metrics in Prometheus's text format."""
    return generate_latest(registry)


class _Scrape:
    """Every family of one scrape, filled lane by lane."""

    def __init__(self) -> None:
        self._plain: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, (labels, told) in _COUNTERS.items():
            self._plain[name] = CounterMetricFamily(name, told, labels=labels)
        for name, (labels, told) in _GAUGES.items():
            self._plain[name] = GaugeMetricFamily(name, told, labels=labels)
        self._histograms = {
            name: HistogramMetricFamily(name, told, labels=_LANE)
            for name, told in _HISTOGRAMS.items()
        }

    def families(self) -> Iterator[Metric]:
        """Yield every family, also those without a sample."""
        yield from self._plain.values()
        yield from self._histograms.values()

    def add(self, name: str, labels: Sequence[str], value: float) -> None:
        """Add one sample."""
        self._plain[name].add_metric(labels, value)

    def read(self, lanes: Lanes, sights: Sequence[LaneSight], now_s: float) -> None:
        """Add what was seen of the lanes at a moment of Unix time, and what they counted."""
        for agent in lanes.specs:
            self.add("solvent_transactions_fenced", [agent], lanes.fenced[agent])
        held = lanes.held()
        for sight in sights:
            self._add_sight(sight)
            lane = held.get((sight.agent, sight.partition))
            if lane is None:
                continue
            self._add_meter(lane, sight)
            if sight.facts is not None:
                self._add_facts(lane, sight, sight.facts, now_s)

    def _add_sight(self, sight: LaneSight) -> None:
        names = _names(sight)
        for state in LANE_STATES:
            self.add("solvent_lane_state", [*names, state], float(state == sight.state))
        for place in sight.inputs:
            if place.lag is not None:
                self.add("solvent_lag_offsets", [*names, place.topic], place.lag)
        if sight.restore is not None:
            self.add("solvent_restore_rows", names, sight.restore.rows)
            self.add("solvent_restore_ratio", names, sight.restore.share)
        for feed, age_s in (sight.oracle_age_s or {}).items():
            self.add("solvent_oracle_age_seconds", [*names, feed], age_s)

    def _add_meter(self, lane: Lane, sight: LaneSight) -> None:
        names, meter = _names(sight), lane.meter
        records = dict(meter.records)
        for topic in lane.spec.inputs:
            self.add("solvent_records", [*names, topic], records.get(topic, 0))
        self.add("solvent_slices", names, meter.slices)
        self.add("solvent_backlog_records", names, lane.backlog)
        for name, histogram in (
            ("solvent_fold_seconds", meter.fold_s),
            ("solvent_commit_seconds", meter.commit_s),
            ("solvent_record_age_seconds", meter.age_s),
        ):
            self._histograms[name].add_metric(names, histogram.cumulated(), histogram.total)

    def _add_facts(self, lane: Lane, sight: LaneSight, facts: ShardFacts, now_s: float) -> None:
        names, before = _names(sight), lane.facts_before
        rules = lane.shard.rules
        told = [str(rules[name]) for name in ("id", "version", "hash")]
        self.add("solvent_rulebook_info", [*names, *told], 1)
        for topic, count in facts.duplicates.items():
            since = count - before.duplicates.get(topic, 0)
            self.add("solvent_duplicates", [*names, topic], since)
        for code, count in sorted(facts.rejects.items()):
            self.add("solvent_rejects", [*names, code], count - before.rejects.get(code, 0))
        if facts.stream_us:
            self.add("solvent_event_age_seconds", names, now_s - facts.stream_us / 1e6)
        for status, count in facts.units.items():
            self.add("solvent_units", [*names, status], count)
        for breaker, count in facts.breakers.items():
            self.add("solvent_breaker_tripped", [*names, breaker], count)
        if MARKS in lane.spec.inputs:
            self.add("solvent_accounts", names, facts.accounts)
            self.add("solvent_cases_open", names, facts.cases)
            since = facts.halted_fills - before.halted_fills
            self.add("solvent_halted_fills", names, since)
        last_ms = lane.meter.last_record_ms.get(ORACLE_TICKS)
        if last_ms is not None:
            since_s = max(0.0, now_s - last_ms / 1000)
            for feed, age_us in facts.tick_age_us.items():
                self.add("solvent_tick_age_seconds", [*names, feed], since_s + age_us / 1e6)


def _names(sight: LaneSight) -> list[str]:
    return [sight.agent, str(sight.partition)]
