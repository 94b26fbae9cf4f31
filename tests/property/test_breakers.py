"""Circuit breakers equal a recomputation that keeps every mark and asks the definition each time.

A mark counts while it is in force, and until what its replacement's time rounds up to is a window
ago. An amount counts from its time, rounded up, until a span later. The oracle remembers all marks,
amounts and conditions ever, in lists, and knows no row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from solvent.domain.breaker import (
    Breaker,
    Disagreement,
    FundDraws,
    LiquidatedVolume,
    Velocity,
)
from solvent.domain.instrument import Feed
from solvent.engine.breakers import Breakers
from solvent.wire.outputs import RowBreaker, RowWatch

FEEDS = [Feed(index=place, name=name, exponent=-2, kind="price") for place, name in enumerate("XY")]
MARKETS = {"A": FEEDS[0], "B": FEEDS[0], "C": FEEDS[1]}


@dataclass
class Naive:
    """All that ever happened to one breaker, and what follows from it."""

    breaker: Breaker
    marks: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # time, mark
    doubts: dict[str, list[tuple[int, bool]]] = field(default_factory=dict)
    amounts: list[tuple[str, int, int]] = field(default_factory=list)  # market, time, micros
    fund_micros: int = 0
    standing: dict[str | None, dict[str, Any]] = field(default_factory=dict)

    def flows(self, market: str | None, now_us: int) -> bool:
        driver = self.breaker.driver
        assert isinstance(driver, LiquidatedVolume | FundDraws)
        part_us = -(-driver.span_us // 60)
        micros = sum(
            amount
            for of, at_us, amount in self.amounts
            if (market is None or of == market)
            and -(-at_us // part_us) * part_us > now_us - driver.span_us
        )
        if isinstance(driver, LiquidatedVolume):
            return micros >= driver.limit_micros
        limits = [driver.limit_micros]
        if driver.share_ppm is not None and micros:
            limits.append(-(-(micros + self.fund_micros) * driver.share_ppm // 10**6))
        return any(limit is not None and micros >= limit for limit in limits)

    def holds(self, feed: str, now_us: int) -> bool:
        driver = self.breaker.driver
        assert isinstance(driver, Velocity | Disagreement)
        if isinstance(driver, Disagreement):
            since_us = None
            for at_us, is_bad in self.doubts.get(feed, []):
                since_us = None if not is_bad else at_us if since_us is None else since_us
            return since_us is not None and now_us - since_us >= driver.after_us
        marks = self.marks.get(feed, [])
        part_us = -(-driver.window_us // 60)
        counted = [
            mark
            for place, (_, mark) in enumerate(marks)
            if place == len(marks) - 1
            or -(-marks[place + 1][0] // part_us) * part_us >= now_us - driver.window_us
        ]
        return bool(counted) and (max(counted) - min(counted)) * 10**6 >= driver.move_ppm * min(
            counted
        )

    def look(self, now_us: int) -> None:
        driver, markets = self.breaker.driver, self.breaker.feed_by_market
        if isinstance(driver, LiquidatedVolume | FundDraws):
            is_one = self.breaker.is_for_all or isinstance(driver, FundDraws)
            names = [None] if self.breaker.is_for_all else list(markets)
            by_market = {m: self.flows(None if is_one else m, now_us) for m in names}  # type: ignore[misc]
        else:
            by_market = {m: self.holds(f.name, now_us) for m, f in markets.items()}
        if self.breaker.is_for_all and None not in by_market:
            by_market = {None: sum(by_market.values()) >= self.breaker.at_least}  # type: ignore[dict-item]
        for market, holds in by_market.items():
            found = self.standing.setdefault(market, {"since": None, "quiet": None, "over": False})
            if not holds:
                found["over"] = False
                if found["since"] is not None and found["quiet"] is None:
                    found["quiet"] = now_us
            elif found["since"] is not None:
                found["quiet"] = None
            elif not found["over"]:
                found["since"] = now_us
            found["holds"] = holds

    def resume(self, now_us: int) -> None:
        quiet_us = self.breaker.quiet_us
        for found in self.standing.values():
            if None not in {quiet_us, found["quiet"]} and now_us - found["quiet"] >= quiet_us:
                found.update(since=None, quiet=None)

    def override(self, market: str | None) -> None:
        found = self.standing.get(market)
        if found is not None and found["since"] is not None:
            found.update(since=None, quiet=None, over=found["holds"])

    def told(self) -> list[dict[str, Any]]:
        rows = []
        for market, found in self.standing.items():
            row = {"market": market, "since_us": found["since"], "quiet_since_us": found["quiet"]}
            row |= {"overridden": found["over"] or None}
            if any(value is not None for name, value in row.items() if name != "market"):
                causes = {LiquidatedVolume: "liquidated_volume", FundDraws: "fund_draws"}
                cause = causes.get(type(self.breaker.driver))  # type: ignore[arg-type]
                rows.append({"name": self.breaker.name, "cause": cause, **row})
        return [{name: value for name, value in row.items() if value is not None} for row in rows]


drivers = st.one_of(
    st.builds(
        Velocity, move_ppm=st.integers(1, 400_000), window_us=st.sampled_from([1, 59, 60, 120, 200])
    ),
    st.builds(
        Disagreement,
        after_us=st.integers(0, 50),
        outliers_ppm=st.sampled_from([None, 250_000, 1_000_000]),
    ),
    st.builds(
        LiquidatedVolume,
        span_us=st.sampled_from([1, 59, 60, 120, 200]),
        limit_micros=st.integers(1, 60),
    ),
    st.builds(
        FundDraws,
        span_us=st.sampled_from([1, 60, 200]),
        limit_micros=st.integers(1, 60) | st.none(),
        share_ppm=st.sampled_from([1, 300_000, 1_000_000]),
    ),
)


@st.composite
def breakers(draw: st.DrawFn) -> list[Breaker]:
    made = []
    for name in ("one", "two"):
        markets = draw(st.sets(st.sampled_from("ABC"), min_size=1))
        is_for_all = draw(st.booleans())
        driver = draw(drivers)
        is_one = isinstance(driver, LiquidatedVolume | FundDraws) or not is_for_all
        made.append(
            Breaker(
                name=name,
                driver=driver,
                feed_by_market={market: MARKETS[market] for market in sorted(markets)},
                is_for_all=is_for_all,
                at_least=1 if is_one else draw(st.integers(1, len(markets))),
                quiet_us=draw(st.sampled_from([None, 1, 40])),
            )
        )
    return made


feed_names = st.sampled_from("XY")
waits = st.one_of(st.integers(0, 90), st.sampled_from([1, 2, 59, 60]))
steps = st.one_of(
    st.tuples(st.just("mark"), waits, feed_names, st.integers(80, 125)),
    st.tuples(st.just("mark"), st.just(0), feed_names, st.integers(95, 105)),
    st.tuples(st.just("sources"), waits, feed_names, st.booleans(), st.integers(0, 2)),
    st.tuples(
        st.just("liquidated"), waits, st.sampled_from("ABC"), st.integers(0, 30), st.integers(0, 90)
    ),
    st.tuples(st.just("fund"), waits, st.integers(0, 30), st.integers(0, 90)),
    st.tuples(st.just("clock"), st.sampled_from([1, 20, 40, 60, 120, 300])),
    st.tuples(st.just("override"), st.just(0), st.sampled_from([None, *"ABC"])),
    st.tuples(st.just("restore"), st.just(0)),
)


def restored(lived: Breakers, made: list[Breaker], clock_us: int, fund_micros: int) -> Breakers:
    standing = msgspec.json.decode(orjson.dumps(lived.standing()), type=list[RowBreaker])
    told = {feed.name: lived.memory(feed.name) for feed in FEEDS}
    memories = msgspec.json.decode(orjson.dumps(told), type=dict[str, dict[str, RowWatch]])
    sums = msgspec.json.decode(
        orjson.dumps(lived.sums()), type=dict[str, dict[str, list[tuple[int, int]]]]
    )
    again = Breakers(made)
    again.restore(standing, memories, clock_us, sums=sums, fund_micros=fund_micros)
    assert again.sums() == lived.sums()
    return again


@settings(max_examples=300)
@given(made=breakers(), log=st.lists(steps, min_size=10, max_size=60))
def test_breakers_equal_a_recomputation_over_the_whole_window(
    made: list[Breaker], log: list[tuple[Any, ...]]
) -> None:
    lived, naive = Breakers(made), [Naive(breaker) for breaker in made]
    clock_us = 1_000
    for kind, wait, *values in log:
        clock_us += wait
        if kind == "restore":
            lived = restored(lived, made, clock_us, naive[0].fund_micros)
        elif kind == "override":
            lived.override(*values)
            for each in naive:
                each.override(*values)
        elif kind == "liquidated":
            market, micros, late_us = values
            lived.on_liquidated(market, micros, clock_us - late_us, clock_us)
            for each in naive:
                is_volume = isinstance(each.breaker.driver, LiquidatedVolume)
                if is_volume and market in each.breaker.feed_by_market:
                    each.amounts.append((market, clock_us - late_us, micros))
        elif kind == "fund":
            micros, fund_micros = values
            lived.on_fund(micros, fund_micros, clock_us)
            for each in naive:
                each.fund_micros = fund_micros
                if isinstance(each.breaker.driver, FundDraws):
                    each.amounts.append(("*", clock_us, micros))
        elif kind == "mark":
            feed, mark = values
            lived.on_mark(feed, mark, clock_us)
            for each in naive:
                if not (kept := each.marks.setdefault(feed, [])) or kept[-1][1] != mark:
                    kept.append((clock_us, mark))
        elif kind == "sources":
            feed, is_doubtful, dropped = values
            lived.on_sources(feed, clock_us, is_doubtful=is_doubtful, dropped=dropped, votes=4)
            for each in naive:
                driver = each.breaker.driver
                if isinstance(driver, Disagreement):
                    share = driver.outliers_ppm
                    is_split = share is not None and 0 < dropped * 10**6 >= share * 4
                    each.doubts.setdefault(feed, []).append((clock_us, is_doubtful or is_split))
        else:
            lived.on_clock(clock_us)
        if kind not in {"override", "restore"}:
            lived.trip()
            for each in naive:
                each.look(clock_us)
        if kind == "clock":
            lived.resume()
            for each in naive:
                each.resume(clock_us)
        assert lived.standing() == [row for each in naive for row in each.told()]
        for by_market in lived.sums().values():
            assert max(map(len, by_market.values())) <= 61
        for feed in "XY":
            for told in lived.memory(feed).values():
                assert max(len(told.get("highs", ())), len(told.get("lows", ()))) <= 62
