"""The crash once more under three ways to close positions, where closing moves the prices.

Each way gets the same accounts and the same tape, offline and in the engine itself
(`EventTimeReplay`, one partition), and the same executor, which is a rule. Assumed are:

- **Depth.** What a market trades and how far it moves in a day is what the tape says of the days
  before (`market_depths`); the venue has `LIQUIDITY_PPM` of that volume to close in.
- **Impact.** What was closed, net, is a market's imbalance Q, of which half is forgotten every
  `HALF_LIFE_US`. It moves the price by ``Y * s * sqrt(|Q| / V)`` (`solvent.domain.impact`), down
  where longs were closed. The law is of Q and not of each order: many small orders at once move a
  price as far as a large one, and only time makes a difference.
- **Feedback.** The next ticks are the tape's prices moved so far, the mark's and the index's alike:
  what was closed may call for more.
- **The executor** answers offers in the order told, before the next tick, one order of each: a fill
  changes what the others are for, and the case is told again at once. Of an order it takes what it
  can pass on at the limit or better, at the price its own order leaves, and passes the rest; the
  case's next revision is another chance. The account gets the price left less `MARGIN_PPM`, but
  never less than the limit; the difference is the executor's profit.
- **Takeovers** by the fund and deleveraging move no price: they do not meet the market.

All follows from the tape and the seed. Amounts are micros of the settlement currency and shares
ppm, in exact integers; times event time in microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from solvent.domain.impact import MarketDepth
from solvent.domain.instrument import Instrument
from solvent.engine.margin import warm_up
from solvent.engine.merge import Arrivals, EventTimeReplay
from solvent.engine.replay import ReplayedSlice
from solvent.engine.run import Record, Run
from solvent.ops.accounts import bad_debt_micros
from solvent.ops.population import SyntheticAccount
from solvent.rules import CompiledRulebook, compile_document
from solvent.units import MICROS, PPM, format_scaled, parse_scaled
from solvent.wire.inputs import PriceTick, decode_tick, encode_clock, encode_tick, encode_trade
from solvent.wire.losses import Contribution, Takeover
from solvent.wire.outputs import (
    Liquidation,
    OfferLeg,
    decode_liquidation,
    decode_loss,
    decode_mark_frame,
)
from solvent.wire.topics import (
    COLLATERAL,
    LIQUIDATIONS,
    LOSSES,
    MARKS,
    ORACLE_TICKS,
    REJECTS,
    TRADES,
)

__all__ = [
    "ASSUMED",
    "CloseOut",
    "Flow",
    "Tape",
    "close_out",
    "closeouts_table",
    "judge_closeouts",
    "market_depths",
    "read_tape",
    "take",
    "ways",
]

#: Of the volumes on the tape, which are those of a whole exchange, what the venue can close in.
LIQUIDITY_PPM: Final = 100_000
#: After which half of what was closed moves prices no more.
HALF_LIFE_US: Final = 30 * 60 * 1_000_000
#: What the executor keeps of the price it passes an order on at.
MARGIN_PPM: Final = 1_000
#: The ``Y`` of the law.
_Y_PPM: Final = 1_000_000
#: What one order may be expected to move its market where orders are capped.
_MAX_IMPACT_PPM: Final = 2_500

ASSUMED: Final = (
    f"Volume and volatility of a day are the tape's before the crash; the venue has "
    f"{LIQUIDITY_PPM / PPM:.0%} of that volume. Impact: volatility x sqrt(imbalance / volume), "
    f"of the imbalance half forgotten every {HALF_LIFE_US // 60_000_000} minutes, added to mark "
    f"and index. The executor takes what it can pass on within the limit at the price its order "
    f"leaves, and keeps up to {MARGIN_PPM / PPM:.1%}. Takeovers move no price."
)

#: Prices are compared at this exponent, finer than any tick's and feed's.
_FINEST: Final = -18
#: Of all feeds that the demo plays.
_TICK_EXPONENT: Final = -6
_SLICE_RECORDS: Final = 1_000_000
_CLOCK_KEY: Final = b"clock"


# -- the market


@dataclass(slots=True)
class Flow:
    """What was closed in one market lately, and where it leaves the price.

    Attributes
    ----------
    depth : MarketDepth
        Of the market; its `max_impact_ppm` is not used.
    micros : int
        The imbalance: bought above 0, sold below.
    """

    depth: MarketDepth
    micros: int = 0

    def forget(self, elapsed_us: int) -> None:
        """Let time pass: half is left after a half-life."""
        self.micros = int(self.micros * 0.5 ** (elapsed_us / HALF_LIFE_US))

    @property
    def impact_ppm(self) -> int:
        """How far the price is moved now, with its sign."""
        return _signed(self.depth.impact_ppm, self.micros)

    def room_micros(self, room_ppm: int, *, is_sell: bool) -> int:
        """Return how much can be traded until the price is moved by `room_ppm` that way.

        Parameters
        ----------
        room_ppm : int
            From the tape's price in the direction of the order, below 0 if the price must come
            back the other way.
        """
        if room_ppm < 0:
            room_ppm -= 1  # impacts are rounded down
        bound = _signed(lambda ppm: self.depth._replace(max_impact_ppm=ppm).most_micros, room_ppm)
        return max(0, bound - (-self.micros if is_sell else self.micros))


def _signed(law: Callable[[int], int], amount: int) -> int:
    return law(amount) if amount >= 0 else -law(-amount)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What the executor takes of an order."""

    lots: int
    ticks: int
    notional_micros: int
    profit_micros: int
    impact_cost_micros: int


def take(leg: OfferLeg, instrument: Instrument, price: int, flow: Flow) -> _Taken | None:
    """Answer an order, and let it move the market; None where nothing is to be had.

    Parameters
    ----------
    leg : OfferLeg
        The order.
    instrument : Instrument
        Its market.
    price : int
        What the tape says, at 1e-18.
    flow : Flow
        Of the market; takes up what is closed.
    """
    is_sell = leg.side == "sell"
    limit = parse_scaled(leg.limit_price, _FINEST)
    room_ppm = (price - limit if is_sell else limit - price) * PPM // price
    lot = instrument.lot.exact * price * MICROS / 10**-_FINEST  # micros, as a fraction
    room_micros = flow.room_micros(room_ppm, is_sell=is_sell)
    lots = min(instrument.lot.parse(leg.size), int(room_micros / lot))
    if not lots:
        return None
    traded = int(lot * lots)
    flow.micros += -traded if is_sell else traded
    left = price * (PPM + flow.impact_ppm) // PPM
    tick = instrument.tick.exact * 10**-_FINEST
    if is_sell:
        ticks = -(-max(left * (PPM - MARGIN_PPM) // PPM, limit) // tick)
    else:
        ticks = min(left * (PPM + MARGIN_PPM) // PPM, limit) // tick
    moved = price - left if is_sell else left - price
    gain = left - ticks * tick if is_sell else ticks * tick - left
    size = instrument.lot.exact * lots * MICROS / 10**-_FINEST
    return _Taken(lots, int(ticks), traded, int(size * gain), int(size * moved))


def market_depths(bars: Path, rulebook: CompiledRulebook, before_us: int) -> dict[str, MarketDepth]:
    """Return what each market trades and moves in a day, by its bars before a time.

    Volume: the mean of a day, times `LIQUIDITY_PPM`. Volatility: standard deviation of the log
    returns of bars, times the square root of how many there are in a day.
    """
    import polars as pl

    table = (
        pl.read_parquet(bars, columns=["ts", "symbol", "close", "volume"])
        .filter(pl.col("ts").dt.epoch("us") < before_us)
        .sort("symbol", "ts")
    )
    step = table["ts"].unique().sort().diff().min()
    day_bars = 86_400 / step.total_seconds()  # type: ignore[union-attr]
    found = table.group_by("symbol").agg(
        volume=(pl.col("volume") * pl.col("close")).mean() * day_bars,
        volatility=pl.col("close").log().diff().std() * day_bars**0.5,
    )
    by_symbol = {symbol: (volume, sigma) for symbol, volume, sigma in found.iter_rows()}
    depths = {}
    for market in rulebook.instruments:
        volume, sigma = by_symbol[market.name.partition("-")[0] + "USDT"]
        depths[market.name] = MarketDepth(
            daily_volume_micros=round(volume) * LIQUIDITY_PPM,  # units times ppm: micros
            volatility_ppm=round(sigma * PPM),
            y_ppm=_Y_PPM,
            max_impact_ppm=_MAX_IMPACT_PPM,
        )
    return depths


# -- the ways


def ways(
    rulebook: CompiledRulebook, depths: Mapping[str, MarketDepth]
) -> list[tuple[str, CompiledRulebook]]:
    """Return the three ways by name: a rulebook's, insured, that differ in how they close.

    ``one-shot`` closes a book whole; ``phased`` what restores it, over half an hour, at most two
    million an hour in a market and 250,000 of an account; ``phased-capped`` does so by orders that
    may be expected to move their market by `_MAX_IMPACT_PPM`. All have a fund of a million, which
    takes over what stands for four hours.
    """
    release = {"duration_us": 1_800_000_000, "initial_ppm": 250_000, "all_below_micros": 50_000_000}
    window = {
        "span_us": 3_600_000_000,
        "market_notional_per_partition_micros": 2_000_000 * MICROS,
        "account_notional_micros": 250_000 * MICROS,
    }
    depth = {
        "max_impact_ppm": _MAX_IMPACT_PPM,
        "y_ppm": _Y_PPM,
        "markets": {
            name: {
                "daily_volume_micros": market.daily_volume_micros,
                "volatility_ppm": market.volatility_ppm,
            }
            for name, market in depths.items()
        },
    }
    told: dict[str, dict[str, Any]] = {
        "one-shot": {"sizing": "full"},
        "phased": {"sizing": "shortage", "release": release, "window": window},
        "phased-capped": {
            "sizing": "shortage",
            "release": release,
            "window": window,
            "depth": depth,
        },
    }
    found = []
    for name, liquidation in told.items():
        document = orjson.loads(rulebook.document)
        document["rulebook"]["id"] = name
        document["insurance"] = {
            "opening_micros": 1_000_000 * MICROS,
            "deleverage_after_us": 4 * 3_600_000_000,
        }
        for preset in document["presets"].values():
            preset["liquidation"] |= {"offer_ttl_us": 600_000_000, **liquidation}
        found.append((name, compile_document(orjson.dumps(document))))
    return found


# -- the tape


#: Times, and the price of each feed then, at 1e-18.
Tape = Sequence[tuple[int, Mapping[str, int]]]


def read_tape(ticks: Iterable[bytes]) -> Tape:
    """Return the prices of ticks by time; other records of ``oracle-ticks.v1`` are passed over."""
    by_time: dict[int, dict[str, int]] = {}
    for value in ticks:
        tick = decode_tick(value)
        if isinstance(tick, PriceTick):
            by_time.setdefault(tick.ts_us, {})[tick.feed] = parse_scaled(tick.price, _FINEST)
    return sorted(by_time.items())


# -- playing it


@dataclass(slots=True, kw_only=True)
class CloseOut:
    """What one way made of the crash; amounts in micros.

    Attributes
    ----------
    way : str
        Its name.
    rulebook : dict
        ``id``, ``version`` and ``hash``.
    liquidated_micros, fills : int
        What the executor took, at the tape's prices, and in how many fills.
    cases : int
        Liquidations begun.
    taken_over_micros, takeovers : int
        What the fund took over and gave to those in profit, at the bankruptcy prices.
    bad_debt_micros : int
        Owed by closed bankrupt units in the end.
    fund_paid_micros, fund_received_micros : int
        What the fund paid for accounts below 0, and what it got of fills.
    profit_micros : int
        The executor's.
    impact_cost_micros : int
        How far the price each fill was passed on at lay below the tape's (of a purchase: above),
        times its size, summed.
    worst_impact_ppm, worst_market, worst_us
        The largest move of a price by what was closed, where and when.
    refused : int
        Records the engine refused, fills beyond what was still offered among them.
    hash : str
        Of all the engine wrote.
    """

    way: str
    rulebook: dict[str, str | int]
    liquidated_micros: int = 0
    fills: int = 0
    cases: int = 0
    taken_over_micros: int = 0
    takeovers: int = 0
    bad_debt_micros: int = 0
    fund_paid_micros: int = 0
    fund_received_micros: int = 0
    profit_micros: int = 0
    impact_cost_micros: int = 0
    worst_impact_ppm: int = 0
    worst_market: str = ""
    worst_us: int | None = None
    refused: int = 0
    hash: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data, amounts as decimal texts."""
        return {
            "way": self.way,
            "rulebook": self.rulebook,
            "liquidated_notional": _amount(self.liquidated_micros),
            "fills": self.fills,
            "cases": self.cases,
            "taken_over_notional": _amount(self.taken_over_micros),
            "takeovers": self.takeovers,
            "bad_debt": _amount(self.bad_debt_micros),
            "fund_paid": _amount(self.fund_paid_micros),
            "fund_received": _amount(self.fund_received_micros),
            "executor_profit": _amount(self.profit_micros),
            "impact_cost": _amount(self.impact_cost_micros),
            "worst_impact_ppm": self.worst_impact_ppm,
            "worst_impact_market": self.worst_market,
            "worst_impact_us": self.worst_us,
            "refused": self.refused,
            "hash": self.hash,
            "seconds": round(self.seconds, 2),
        }


@dataclass(slots=True)
class _Heard:
    """What the engine told and the executor has not answered: the last word of each case."""

    told: CloseOut
    markets: Mapping[str, Instrument]
    offers: dict[str, Liquidation] = field(default_factory=dict)

    def hear(self, _agent: str, _partition: int, brought: ReplayedSlice) -> None:
        """Take what a slice brought."""
        told = self.told
        for emit in brought.outputs.records:
            value = emit.value or b""
            if emit.topic == LIQUIDATIONS:
                event = decode_liquidation(value)
                told.cases += event.revision == 1
                self.offers.pop(event.liquidation_id, None)
                if event.is_offer and event.legs:
                    self.offers[event.liquidation_id] = event
            elif emit.topic == LOSSES:
                loss = decode_loss(value)
                if isinstance(loss, Contribution):
                    told.fund_received_micros += loss.amount_micros
                elif isinstance(loss, Takeover):
                    market = self.markets[loss.market]
                    told.takeovers += 1
                    told.taken_over_micros += market.value_of(
                        abs(loss.lots), loss.price, loss.price
                    )
            elif emit.topic == MARKS and b'"losses"' in value:
                for answer in decode_mark_frame(value).losses:
                    told.fund_paid_micros += answer.paid_micros
            elif emit.topic == REJECTS:
                told.refused += 1


def close_out(
    way: str,
    rulebook: CompiledRulebook,
    depths: Mapping[str, MarketDepth],
    accounts: Sequence[SyntheticAccount],
    tape: Tape,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
) -> CloseOut:
    """Play the tape by one way; accounts deposit and trade behind its first prices.

    Parameters
    ----------
    way, rulebook
        Its name, and what accounts are judged by.
    depths : mapping of market to MarketDepth
        Of every market of the rulebook.
    accounts : sequence of SyntheticAccount
        Whose accounts.
    tape : Tape
        The prices before anything is closed.
    is_stopped : callable
        Asked from time to time whether to end there.
    """
    began = time.monotonic()
    told = CloseOut(way=way, rulebook=rulebook.reference)
    markets = rulebook.instrument_by_name
    heard = _Heard(told, markets)
    flows = {name: Flow(depths[name]) for name in markets}
    market_of = _market_by_feed(rulebook)
    warm_up()
    engine = EventTimeReplay(
        rulebook,
        partitions=1,
        slice_records=_SLICE_RECORDS,
        is_numbered=False,
        on_slice=heard.hear,
    )
    last_us = tape[0][0]
    fills: list[tuple[bytes, bytes]] = []
    for step, (at_us, now) in enumerate(tape):
        if is_stopped():
            break
        for name, flow in flows.items():
            flow.forget(at_us - last_us)
            if abs(flow.impact_ppm) > told.worst_impact_ppm:
                told.worst_impact_ppm = abs(flow.impact_ppm)
                told.worst_market, told.worst_us = name, at_us
        window = [_arrivals(TRADES, fills, at_us)] if fills else []
        if step == 1:
            for topic, values in (
                (COLLATERAL, [(a.key, move) for a in accounts for move in a.moves]),
                (TRADES, [(a.key, trade) for a in accounts for trade in a.trades]),
            ):
                window.append(_arrivals(topic, values, last_us + 1))
        window.append(_arrivals(ORACLE_TICKS, _ticks(at_us, now, flows, market_of), at_us))
        engine.advance(window)
        last_us = at_us
        fills = _answers(heard, flows, now, rulebook)
    engine.finish()
    told.bad_debt_micros = sum(bad_debt_micros(shard) for shard in engine.shards)
    told.hash = engine.final_hash
    told.seconds = time.monotonic() - began
    return told


def _answers(
    heard: _Heard,
    flows: Mapping[str, Flow],
    prices: Mapping[str, int],
    rulebook: CompiledRulebook,
) -> list[tuple[bytes, bytes]]:
    """Return the executor's fills of all that is offered; what it passes is not shown again."""
    told, fills = heard.told, []
    for offer in heard.offers.values():
        for leg in offer.legs:
            market = heard.markets[leg.market]
            price = prices[rulebook.feeds[market.mark_feed].name]
            taken = take(leg, market, price, flows[leg.market])
            if taken is None:
                continue
            told.fills += 1
            told.liquidated_micros += taken.notional_micros
            told.profit_micros += taken.profit_micros
            told.impact_cost_micros += taken.impact_cost_micros
            value = encode_trade(
                trade_id=f"{offer.account_id}.{offer.episode}.{offer.revision}.{leg.market}",
                account_id=offer.account_id,
                subaccount=offer.subaccount,
                market=leg.market,
                side=leg.side,
                size=market.lot.format(taken.lots),
                price=market.tick.format(taken.ticks),
                fee="0",
                ts_us=offer.ts_us,
                liquidation_id=offer.liquidation_id,
            )
            fills.append((offer.account_id.encode(), value))
            break
    heard.offers.clear()
    return fills


def _market_by_feed(rulebook: CompiledRulebook) -> dict[str, str]:
    """Return the market whose closing moves a feed: its mark's and its index's."""
    found = {}
    for name, market in rulebook.model.instruments.items():
        for feed in (market.mark_feed, market.index_feed):
            if feed is not None:
                found[feed] = name
    return found


def _ticks(
    at_us: int, prices: Mapping[str, int], flows: Mapping[str, Flow], market_of: Mapping[str, str]
) -> list[tuple[bytes, bytes]]:
    """Return the ticks of a time, moved, between two clock records as `bars_sequence` does."""
    clock = (_CLOCK_KEY, encode_clock(at_us))
    ticks = []
    for feed, price in prices.items():
        impact_ppm = flows[market_of[feed]].impact_ppm if feed in market_of else 0
        moved = max(1, price * (PPM + impact_ppm) // PPM // 10 ** (_TICK_EXPONENT - _FINEST))
        text = format_scaled(moved, _TICK_EXPONENT)
        ticks.append(
            (feed.encode(), encode_tick(source="tape", feed=feed, price=text, ts_us=at_us))
        )
    return [clock, *ticks, clock]


def _arrivals(topic: str, records: Sequence[tuple[bytes, bytes]], at_us: int) -> Arrivals:
    at_ms = -(-at_us // 1000)
    run = Run.of([Record(n, at_ms, key, value) for n, (key, value) in enumerate(records)])
    return Arrivals(
        topic, run, np.full(len(records), at_us, np.int64), np.zeros(len(records), np.int32)
    )


def judge_closeouts(
    rulebook: CompiledRulebook,
    bars: Path,
    accounts: Sequence[SyntheticAccount],
    tape: Tape,
    *,
    is_stopped: Callable[[], bool] = lambda: False,
) -> tuple[CloseOut, ...]:
    """Play the tape by each of `ways`; raises as `market_depths`."""
    depths = market_depths(bars, rulebook, tape[0][0])
    return tuple(
        close_out(name, variant, depths, accounts, tape, is_stopped=is_stopped)
        for name, variant in ways(rulebook, depths)
    )


def closeouts_table(rows: Sequence[CloseOut]) -> list[tuple[str, ...]]:
    """Return a heading and rows for people: what, and what it is by each way."""

    def worst(row: CloseOut) -> str:
        if row.worst_us is None:
            return "none"
        moment = datetime.fromtimestamp(row.worst_us / 1e6, tz=UTC)
        return f"{row.worst_impact_ppm / PPM:.2%} {row.worst_market} {moment:%d %b %H:%M}"

    def mean(row: CloseOut) -> str:
        return f"{row.impact_cost_micros / max(1, row.liquidated_micros):.3%}"

    return [
        ("closed", *(row.way for row in rows)),
        ("liquidations", *(f"{row.cases:,}" for row in rows)),
        ("liquidated notional", *(_whole(row.liquidated_micros) for row in rows)),
        ("in fills", *(f"{row.fills:,}" for row in rows)),
        ("taken over, deleveraged", *(_whole(row.taken_over_micros) for row in rows)),
        ("bad debt", *(_whole(row.bad_debt_micros) for row in rows)),
        ("paid by the fund", *(_whole(row.fund_paid_micros) for row in rows)),
        ("fees to the fund", *(_whole(row.fund_received_micros) for row in rows)),
        ("executor's profit", *(_whole(row.profit_micros) for row in rows)),
        ("mean price impact of fills", *(mean(row) for row in rows)),
        ("worst price impact", *(worst(row) for row in rows)),
    ]


def _amount(micros: int) -> str:
    return format_scaled(micros, -6)


def _whole(micros: int) -> str:
    return f"{micros / MICROS:,.0f}"
