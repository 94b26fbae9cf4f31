"""What became of events and offers: counts for the log, and the same for Prometheus.

Counts are by reason (`solvent.executor.book.Reason`); offers that were live are counted once more
by how they were answered: ``claimed`` where they are leased, then ``filled``, ``passed`` (and
``released``), the reason of a `Benign`, ``not_understood``
where offer or fill contradict the rulebook, ``refused`` for lines of a bridge. ``gaps`` counts
events before which something was never seen. No label names an account.

Latency runs from the broker's time of an offer to its answer, in seconds, and needs a clock: the
one thing here that is not a function of the records. Nothing is decided by it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from solvent.errors import ServiceError
from solvent.executor.book import Book, Reason, Ruling

__all__ = ["Tally", "served"]

_LATENCY_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_ODD: Final = frozenset({Reason.GAP, Reason.UNKNOWN_WORD, Reason.STALE_EPISODE})


class Tally:
    """Counts of one executor.

    Parameters
    ----------
    log : Any
        Structured logger, told of what should not be.
    clock_s : callable or None
        Unix time in seconds; None: no latency is measured.

    Attributes
    ----------
    counts : dict
        By reason and by answer.
    registry : CollectorRegistry
        The same as metrics.
    """

    def __init__(self, log: Any, clock_s: Callable[[], float] | None = None) -> None:
        self.log = log
        self.counts: dict[str, int] = {}
        self.registry = CollectorRegistry()
        self._clock_s = clock_s
        self._silent: frozenset[int] = frozenset()
        self._events = Counter(
            "solvent_executor_events",
            "Liquidation events read, by what was to be done about them and why.",
            ["action", "reason"],
            registry=self.registry,
        )
        self._answers = Counter(
            "solvent_executor_answers",
            "Live offers by how they were answered, and lines of a bridge that were refused.",
            ["answer"],
            registry=self.registry,
        )
        self._fills = Counter(
            "solvent_executor_fills", "Fills committed to trades.v1.", registry=self.registry
        )
        self._gaps = Counter(
            "solvent_executor_gaps",
            "Events before which something was never seen.",
            registry=self.registry,
        )
        self._stale = Gauge(
            "solvent_executor_heartbeat_stale",
            "1 while no fills are sent, since the partition's last watermark is too old.",
            ["partition"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "solvent_executor_answer_seconds",
            "From the broker's time of an offer to its answer.",
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )

    def ruled(self, rulings: Sequence[Ruling], book: Book) -> None:
        """Count the rulings on a batch, and say aloud what should not be."""
        for ruling in rulings:
            self._add(str(ruling.reason))
            self._events.labels(str(ruling.action), str(ruling.reason)).inc()
            if ruling.reason is Reason.CONFLICT:
                self.log.error("liquidation_conflict", **_where(ruling))
            elif ruling.reason is Reason.NOT_UNDERSTOOD:
                self.log.warning("liquidation_unreadable", **_where(ruling), reason=ruling.detail)
            elif ruling.reason in _ODD:
                odd = {"reason": str(ruling.reason), "detail": ruling.detail}
                self.log.warning("liquidation_odd", **_where(ruling), **odd)
        more = book.gaps - self.counts.get("gaps", 0)
        if more:
            self._add("gaps", more)
            self._gaps.inc(more)

    def listened(
        self,
        partitions: Sequence[int],
        silent: frozenset[int],
        age_s: Callable[[int], float | None],
    ) -> None:
        """Say which partitions fell silent and which are heard again, and keep count of it."""
        for partition in partitions:
            self._stale.labels(partition).set(partition in silent)
            if (partition in silent) == (partition in self._silent):
                continue
            age = age_s(partition)
            told = {"partition": partition, "age_s": None if age is None else round(age, 3)}
            if partition in silent:
                self.log.warning("heartbeat_stale", **told)
            else:
                self.log.info("heartbeat_back", **told)
        self._silent = silent

    def answered(self, answer: str, timestamp_ms: int | None = None) -> None:
        """Count an answer, and how long it took since an offer's broker time."""
        self._add(answer)
        self._answers.labels(answer).inc()
        if self._clock_s is not None and timestamp_ms is not None:
            self._latency.observe(max(0.0, self._clock_s() - timestamp_ms / 1000))

    def wrote(self, fills: int) -> None:
        """Count fills that are committed."""
        self._fills.inc(fills)

    def _add(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by


@contextlib.contextmanager
def served(tally: Tally, host: str, port: int | None) -> Iterator[None]:
    """Serve the metrics on a port from a thread of its own, if there is one; 0 takes any free one.

    Raises
    ------
    ServiceError
        [SLV-603] The port is taken.
    """
    if port is None:
        yield
        return
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, addr=host, registry=tally.registry)
    except OSError as error:
        msg = f"metrics at {host}:{port}: {error}"
        raise ServiceError(msg, code="SLV-603") from error
    try:
        tally.log.info("metrics_served", url=f"http://{host}:{server.server_port}/metrics")
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _where(ruling: Ruling) -> dict[str, Any]:
    where: dict[str, Any] = {
        "partition": ruling.received.partition,
        "offset": ruling.received.offset,
    }
    if (event := ruling.liquidation) is not None:
        where |= {"liquidation_id": event.liquidation_id, "revision": event.revision}
    return where
