"""Circuit breakers: pauses that prices and losses order, and when they end.

A breaker watches the feeds of its markets, what is liquidated in them, or the insurance fund. A
watch knows whether the breaker's condition holds of one of these; a circuit is what trips: one a
market, or one for all. Times are the event clock, prices positive integers at the feed's exponent.

===============  ==========================================  ====================================
circuit is       and                                         becomes
===============  ==========================================  ====================================
closed           the condition holds                         tripped, from then on
tripped          the condition has not held for `quiet_us`   closed, at a clock record
tripped          an operator resumes its market, or all      closed; overridden while the
                                                             condition holds
overridden       the condition ends                          closed: it may trip again
===============  ==========================================  ====================================

The condition of velocity: within the window, in which a mark counts as long as it was in force, the
highest lies `move_ppm` above the lowest. What left the window is rounded up to a sixtieth of it, so
that a watch remembers at most 62 marks a side, however many there were; a mark is remembered
while no later one was at least as high (as low). Only valid marks count. The condition of
disagreement: diverged or uncertain, or votes dropped as outliers, for as long as the rulebook says.

The condition of a flow (`solvent.engine.flows`): what was liquidated within the span, or what the
fund paid, comes to the limit. Margin shards tell what they liquidated in ``losses.v1``, where they
tell the fund what it is to pay, so these trip at records of that topic.

All of it depends on the order of the records alone. What a watch remembers is in the row of its
feed, what a flow does and what circuits are in the row of `engine.control`; whether a condition
holds is made of that and the clock, and never kept. Another driver is another watch: what it is
told comes by a method here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from solvent.domain.breaker import (
    Breaker,
    Disagreement,
    FundDraws,
    LiquidatedVolume,
    Velocity,
)
from solvent.domain.instrument import Feed
from solvent.engine.flows import ALL, CAUSES, Flow
from solvent.units import format_scaled, parse_scaled
from solvent.wire.outputs import RowBreaker, RowWatch

__all__ = ["Breakers"]

#: Parts of a window to which the time is rounded at which a mark was replaced.
_PARTS: Final = 60
#: Standing of a circuit: tripped since, quiet since, overridden.
_CLOSED: Final = (None, None, False)


class _Watch(ABC):
    """Whether the condition of a breaker holds of one feed."""

    def __init__(self) -> None:
        self.is_holding = False  # as of the last look

    @abstractmethod
    def holds(self, clock_us: int) -> bool:
        """Return whether the condition holds now."""

    @abstractmethod
    def memory(self) -> dict[str, Any]:
        """Return what is to be remembered, as JSON values; empty if that is nothing."""

    @abstractmethod
    def restore(self, row: RowWatch) -> None:
        """Take back what `memory` returned."""


class _Window(_Watch):
    """Marks in force within the last window."""

    def __init__(self, driver: Velocity, exponent: int) -> None:
        super().__init__()
        self.driver = driver
        self._exponent = exponent
        self._part_us = -(-driver.window_us // _PARTS)
        self._mark: int | None = None
        # Marks replaced, and until when they counted: highest and lowest first, then what follows.
        self._highs: deque[tuple[int, int]] = deque()
        self._lows: deque[tuple[int, int]] = deque()

    def take(self, mark: int, clock_us: int) -> bool:
        """Take the mark in force from now on; return whether it is another."""
        before, self._mark = self._mark, mark
        if before is None or before == mark:
            return before != mark
        until_us = -(-clock_us // self._part_us) * self._part_us
        for kept, sign in ((self._highs, 1), (self._lows, -1)):
            while kept and (kept[-1][0] - before) * sign <= 0:
                kept.pop()
            if not kept or kept[-1][1] < until_us:
                kept.append((before, until_us))
            while kept[0][1] < clock_us - self.driver.window_us:
                kept.popleft()
        return True

    def holds(self, clock_us: int) -> bool:
        """Return whether the highest mark of the window lies too far above the lowest."""
        if self._mark is None:
            return False
        high = max(self._mark, self._first(self._highs, clock_us))
        low = min(self._mark, self._first(self._lows, clock_us))
        return self.driver.is_exceeded(high, low)

    def _first(self, kept: deque[tuple[int, int]], clock_us: int) -> int:
        """Return the first mark that still counts; the one in force if none does."""
        begin_us = clock_us - self.driver.window_us
        assert self._mark is not None
        return next((mark for mark, until_us in kept if until_us >= begin_us), self._mark)

    def memory(self) -> dict[str, Any]:
        """Return the marks."""
        if self._mark is None:
            return {}
        told: dict[str, Any] = {"mark": format_scaled(self._mark, self._exponent)}
        for name, kept in (("highs", self._highs), ("lows", self._lows)):
            if kept:
                told[name] = [[format_scaled(mark, self._exponent), at] for mark, at in kept]
        return told

    def restore(self, row: RowWatch) -> None:
        """Take back the marks."""
        self._mark = None if row.mark is None else parse_scaled(row.mark, self._exponent)
        for kept, told in ((self._highs, row.highs), (self._lows, row.lows)):
            kept.extend((parse_scaled(mark, self._exponent), at) for mark, at in told)


class _Doubt(_Watch):
    """Since when sources have not agreed."""

    def __init__(self, driver: Disagreement) -> None:
        super().__init__()
        self.driver = driver
        self._since_us: int | None = None

    def take(self, clock_us: int, *, is_doubtful: bool, dropped: int, votes: int) -> bool:
        """Take what sources say from now on; return whether doubt began or ended."""
        before = self._since_us
        if not is_doubtful and not self.driver.is_split(dropped, votes):
            self._since_us = None
        elif before is None:
            self._since_us = clock_us
        return self._since_us != before

    def holds(self, clock_us: int) -> bool:
        """Return whether the doubt is old enough."""
        return self._since_us is not None and clock_us - self._since_us >= self.driver.after_us

    def memory(self) -> dict[str, Any]:
        """Return when the doubt began."""
        return {} if self._since_us is None else {"since_us": self._since_us}

    def restore(self, row: RowWatch) -> None:
        """Take back when the doubt began."""
        self._since_us = row.since_us


class _Circuit:
    """What a breaker does to one market, or to all (`market` is None)."""

    __slots__ = (
        "breaker",
        "is_overridden",
        "market",
        "quiet_since_us",
        "since_us",
        "watches",
    )

    def __init__(
        self, breaker: Breaker, market: str | None, watches: Sequence[_Watch | Flow]
    ) -> None:
        self.breaker = breaker
        self.market = market
        self.watches = watches  # one a market: markets of one feed have the same
        self.since_us: int | None = None  # None: not tripped
        self.quiet_since_us: int | None = None
        self.is_overridden = False

    @property
    def condition_holds(self) -> bool:
        return sum(watch.is_holding for watch in self.watches) >= self.breaker.at_least

    @property
    def standing(self) -> tuple[int | None, int | None, bool]:
        return self.since_us, self.quiet_since_us, self.is_overridden

    def row(self) -> dict[str, Any]:
        """Return what is in force and what is remembered, as JSON values."""
        told: dict[str, Any] = {"name": self.breaker.name}
        if self.market is not None:
            told["market"] = self.market
        cause = CAUSES.get(type(self.breaker.driver))
        if cause is not None:
            told["cause"] = cause
        if self.since_us is not None:
            told["since_us"] = self.since_us
        if self.quiet_since_us is not None:
            told["quiet_since_us"] = self.quiet_since_us
        if self.is_overridden:
            told["overridden"] = True
        return told


class Breakers:
    """The breakers of a rulebook (module docstring).

    Parameters
    ----------
    breakers : sequence of Breaker
        By name.
    """

    def __init__(self, breakers: Sequence[Breaker]) -> None:
        self._clock_us = 0
        self._windows: dict[str, dict[str, _Window]] = {}  # feed, breaker
        self._doubts: dict[str, dict[str, _Doubt]] = {}
        self._watches: dict[tuple[str, str], _Window | _Doubt] = {}  # breaker, feed
        self._flows: dict[tuple[str, str], Flow] = {}  # breaker, market
        self._volumes: dict[str, list[Flow]] = {}  # market: a flow of all is there for each
        self._draws: list[Flow] = []
        self._circuits: dict[tuple[str, str | None], _Circuit] = {}  # breaker, market
        self._circuits_of: dict[_Watch | Flow, list[_Circuit]] = {}
        self._stirred: dict[_Circuit, None] = {}  # whose condition may be another, in this order
        self._touched: set[str] = set()  # feeds whose watches changed in this slice
        self._has_changed = False  # a circuit or a flow, in this slice
        self.adopt(breakers)

    def adopt(self, breakers: Sequence[Breaker]) -> bool:
        """Take the breakers of another rulebook; return whether one that was tripped is gone.

        A watch stays if its driver is the same, a circuit if its breaker still has the market. A
        sum of all markets goes on as it is, whichever markets it is of from now on.
        """
        old_watches, old_circuits = self._watches, self._circuits
        self._watches, self._circuits, self._circuits_of = {}, {}, {}
        self._adopt_flows(breakers)
        for breaker in breakers:
            driver = breaker.driver
            if not isinstance(driver, LiquidatedVolume | FundDraws):
                for feed in breaker.feed_by_market.values():
                    key = breaker.name, feed.name
                    old = old_watches.get(key)
                    kept = old if old is not None and old.driver == driver else None
                    self._watches.setdefault(key, kept or _watch(driver, feed))
            markets = [None] if breaker.is_for_all else list(breaker.feed_by_market)
            for market in markets:
                circuit = self._circuit(breaker, market)
                before = old_circuits.get((breaker.name, market))
                if before is not None:
                    circuit.since_us, circuit.quiet_since_us, circuit.is_overridden = (
                        before.standing
                    )
                self._circuits[breaker.name, market] = circuit
        self._windows, self._doubts = {}, {}
        for (name, feed_name), watch in self._watches.items():
            if isinstance(watch, _Window):
                self._windows.setdefault(feed_name, {})[name] = watch
            else:
                self._doubts.setdefault(feed_name, {})[name] = watch
        for key, watch in old_watches.items():
            if self._watches.get(key) is not watch and watch.memory():
                self._touched.add(key[1])
        self._stirred = dict.fromkeys(self._circuits.values())
        gone = [old_circuits[key] for key in old_circuits.keys() - self._circuits.keys()]
        self._has_changed |= any(circuit.standing != _CLOSED for circuit in gone)
        return any(circuit.since_us is not None for circuit in gone)

    def _adopt_flows(self, breakers: Sequence[Breaker]) -> None:
        before, self._flows = self._flows, {}
        self._volumes, self._draws = {}, []
        for breaker in breakers:
            driver = breaker.driver
            if not isinstance(driver, LiquidatedVolume | FundDraws):
                continue
            is_one = breaker.is_for_all or isinstance(driver, FundDraws)
            for name in [ALL] if is_one else breaker.feed_by_market:
                old = before.get((breaker.name, name))
                flow = old if old is not None and old.driver == driver else Flow(driver)
                self._flows[breaker.name, name] = flow
            if isinstance(driver, FundDraws):
                self._draws.append(self._flows[breaker.name, ALL])
                continue
            for market in breaker.feed_by_market:
                flow = self._flows[breaker.name, ALL if is_one else market]
                self._volumes.setdefault(market, []).append(flow)
        self._has_changed |= any(
            self._flows.get(key) is not flow and flow.memory() for key, flow in before.items()
        )

    def _circuit(self, breaker: Breaker, market: str | None) -> _Circuit:
        feeds = breaker.feed_by_market
        watches: list[_Watch | Flow] = []
        if isinstance(breaker.driver, LiquidatedVolume | FundDraws):
            flow = self._flows.get((breaker.name, market or ALL))
            watches.append(flow or self._flows[breaker.name, ALL])
        else:
            names = list(feeds) if market is None else [market]
            watches += [self._watches[breaker.name, feeds[name].name] for name in names]
        circuit = _Circuit(breaker, market, watches)
        for watch in dict.fromkeys(watches):
            self._circuits_of.setdefault(watch, []).append(circuit)
        return circuit

    # -- what drives them

    def on_mark(self, feed: str, mark: int, clock_us: int) -> None:
        """Take the valid mark of a feed, changed or not."""
        self.on_clock(clock_us)
        for watch in self._windows.get(feed, {}).values():
            if watch.take(mark, clock_us):
                self._touched.add(feed)
            self._look(watch)

    def on_sources(
        self, feed: str, clock_us: int, *, is_doubtful: bool, dropped: int, votes: int
    ) -> None:
        """Take whether a feed's sources agree, and how many of its votes were dropped."""
        self.on_clock(clock_us)
        for watch in self._doubts.get(feed, {}).values():
            if watch.take(clock_us, is_doubtful=is_doubtful, dropped=dropped, votes=votes):
                self._touched.add(feed)
            self._look(watch)

    def on_liquidated(self, market: str, micros: int, at_us: int, clock_us: int) -> None:
        """Take what was liquidated in a market, micros at the mark, as told at a time."""
        self.on_clock(clock_us)
        for flow in self._volumes.get(market, ()):
            self._has_changed |= flow.take(micros, at_us, clock_us)
            self._look(flow)

    def on_fund(self, paid_micros: int, fund_micros: int, clock_us: int) -> None:
        """Take what the insurance fund pays now, 0 for nothing, and what it has left."""
        self.on_clock(clock_us)
        for flow in self._draws:
            flow.fund_micros = fund_micros
            self._has_changed |= flow.take(paid_micros, clock_us, clock_us)
            self._look(flow)

    def on_clock(self, clock_us: int) -> None:
        """Let time pass."""
        if clock_us > self._clock_us:
            self._clock_us = clock_us
            for watch in self._watches.values():
                self._look(watch)
            for flow in self._flows.values():
                self._look(flow)

    def _look(self, watch: _Watch | Flow) -> None:
        is_holding = watch.holds(self._clock_us)
        if is_holding != watch.is_holding:
            watch.is_holding = is_holding
            self._stirred |= dict.fromkeys(self._circuits_of[watch])

    # -- what they do

    def trip(self) -> bool:
        """Let circuits follow their conditions; return whether one tripped."""
        has_tripped = False
        for circuit in self._stirred:
            before = circuit.standing
            if not circuit.condition_holds:
                circuit.is_overridden = False
                if circuit.since_us is not None and circuit.quiet_since_us is None:
                    circuit.quiet_since_us = self._clock_us
            elif circuit.since_us is not None:
                circuit.quiet_since_us = None
            elif not circuit.is_overridden:
                circuit.since_us = self._clock_us
                has_tripped = True
            self._has_changed |= circuit.standing != before
        self._stirred.clear()
        return has_tripped

    def resume(self) -> bool:
        """Close circuits that were quiet for long enough; return whether there was one."""

        def is_over(circuit: _Circuit) -> bool:
            since_us, quiet_us = circuit.quiet_since_us, circuit.breaker.quiet_us
            if since_us is None or quiet_us is None:
                return False
            return self._clock_us - since_us >= quiet_us

        return self._close(is_over, is_overridden=False)

    def override(self, market: str | None) -> bool:
        """Close circuits of a market, or those for all, as an operator orders it.

        One whose condition holds trips again only after that ended once.

        Returns
        -------
        bool
            Whether there was one.
        """
        return self._close(lambda circuit: circuit.market == market, is_overridden=True)

    def _close(self, is_meant: Callable[[_Circuit], bool], *, is_overridden: bool) -> bool:
        meant = [c for c in self._circuits.values() if c.since_us is not None and is_meant(c)]
        for circuit in meant:
            circuit.since_us = circuit.quiet_since_us = None
            circuit.is_overridden = is_overridden and circuit.condition_holds
        self._has_changed |= bool(meant)
        return bool(meant)

    def in_force(self) -> list[dict[str, Any]]:
        """Return the breakers that are tripped, as frames tell them."""
        return [
            {name: value for name, value in circuit.row().items() if name != "quiet_since_us"}
            for circuit in self._circuits.values()
            if circuit.since_us is not None
        ]

    def tripped(self) -> dict[str, int]:
        """Return for each breaker what it pauses now: markets, or 1 for all of them."""
        found: Counter[str] = Counter()
        for (breaker, _), circuit in list(self._circuits.items()):  # another thread may ask
            found[breaker] += circuit.since_us is not None
        return dict(found)

    # -- rows

    def memory(self, feed: str) -> dict[str, Any]:
        """Return what is to be remembered of a feed, by breaker; empty if that is nothing."""
        watches = {**self._windows.get(feed, {}), **self._doubts.get(feed, {})}
        return {name: told for name, watch in watches.items() if (told := watch.memory())}

    def take_touched(self) -> set[str]:
        """Return the feeds whose `memory` changed since this was asked last."""
        touched, self._touched = self._touched, set()
        return touched

    def sums(self) -> dict[str, dict[str, list[tuple[int, int]]]]:
        """Return what flows remember, by breaker and market, as the row tells it."""
        sums: dict[str, dict[str, list[tuple[int, int]]]] = {}
        for (name, market), flow in self._flows.items():
            if told := flow.memory():
                sums.setdefault(name, {})[market] = told
        return sums

    def take_changed(self) -> bool:
        """Return whether `standing` or `sums` changed since this was asked last."""
        has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def standing(self) -> list[dict[str, Any]]:
        """Return the circuits that are tripped or overridden, as the row tells them."""
        circuits = self._circuits.values()
        return [circuit.row() for circuit in circuits if circuit.standing != _CLOSED]

    def restore(
        self,
        standing: Sequence[RowBreaker],
        memories: Mapping[str, Mapping[str, RowWatch]],
        clock_us: int,
        *,
        sums: Mapping[str, Mapping[str, Sequence[tuple[int, int]]]],
        fund_micros: int,
    ) -> None:
        """Take back what rows remember, as of an event clock.

        Parameters
        ----------
        standing : sequence of RowBreaker
            As `standing` told it.
        memories : mapping
            By feed and breaker.
        clock_us : int
            Event clock.
        sums : mapping
            As `sums` told them.
        fund_micros : int
            What the insurance fund has.
        """
        for flow in self._draws:
            flow.fund_micros = fund_micros
        for name, by_market in sums.items():
            for market, amounts in by_market.items():
                known = self._flows.get((name, market))
                if known is not None:
                    known.restore(amounts)
        for feed, by_breaker in memories.items():
            for name, memory in by_breaker.items():
                watch = self._watches.get((name, feed))
                if watch is not None:
                    watch.restore(memory)
        for told in standing:
            circuit = self._circuits.get((told.name, told.market))
            if circuit is not None:
                circuit.since_us = told.since_us
                circuit.quiet_since_us = told.quiet_since_us
                circuit.is_overridden = told.overridden
        self.on_clock(clock_us)
        self._stirred.clear()  # conditions are what they were


def _watch(driver: Velocity | Disagreement, feed: Feed) -> _Window | _Doubt:
    return _Window(driver, feed.exponent) if isinstance(driver, Velocity) else _Doubt(driver)
