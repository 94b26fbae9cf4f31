"""A synthetic population of accounts: heavy-tailed, mostly long, healthy when it begins.

Sizes are in the rulebook's lots, prices on its ticks, collateral in asset quanta, equity and
notional in settlement currency. Everything follows from the seed: equal arguments, equal bytes.

How an account comes about: its equity is lognormal with a Pareto tail, its leverage lognormal, cut
below what the initial rates allow; one to four markets, the first listed the likeliest; four in
five positions long; about one in seven isolated, with collateral of its own. Positions are opened
at the starting price in one to three fills. The cross book holds the settlement asset and, in two
accounts of five, other listed collateral too. Collateral is computed last, from what the positions
require, so that ``health(initial) >= 0`` at the starting prices by construction. Where weights and
rates do not say all (brackets, tiers), the kernel appraises a lone position and a lone balance of
each size on a ladder, and every size counts as the next rung up does: cautious where larger sizes
cost more, as in all rulebooks of whole positions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import Any, Final

import numpy as np

from solvent.domain.instrument import Asset, Instrument
from solvent.engine.snapshot import evaluate_snapshot
from solvent.errors import ConfigError
from solvent.kernel.layout import INITIAL
from solvent.rules.compile import CompiledRulebook
from solvent.units import MICRO_EXPONENT, MICROS, PPM, format_scaled, parse_scaled
from solvent.wire.inputs import encode_collateral_move, encode_trade

__all__ = ["SyntheticAccount", "population"]

_EQUITY_MEDIAN_USD: Final = 2_500.0
_EQUITY_SIGMA: Final = 1.5
_EQUITY_TAIL: Final = 1.3  # Pareto exponent of the richest twentieth
_EQUITY_LIMITS_USD: Final = (50.0, 20_000_000.0)
_LEVERAGE_MEDIAN: Final = 4.0
_LEVERAGE_SIGMA: Final = 0.8
_LEVERAGE_MIN: Final = 0.2
_LONG_SHARE: Final = 0.8
_ISOLATED_SHARE: Final = 0.15
_MIXED_COLLATERAL_SHARE: Final = 0.4
_FEE_PPM: Final = 200
_MAX_POSITIONS: Final = 4
_MAX_FILLS: Final = 3
#: Sizes appraised under terms, settlement currency: each twice the one before, up to a billion.
_RUNGS_USD: Final = tuple(float(64 << step) for step in range(25))
#: Initial collateral above the initial requirement, ppm: covers marks off the tick and roundings.
_CUSHION_PPM: Final = 5_000


@dataclass(frozen=True, slots=True)
class SyntheticAccount:
    """One account as input records: `key` of all, ``collateral.v1`` and ``trades.v1`` values."""

    key: bytes
    moves: tuple[bytes, ...]
    trades: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Ladder:
    """A number by size: that of the smallest rung not below it, of the last one beyond all."""

    rungs_usd: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, amount_usd: float) -> float:
        place = bisect_left(self.rungs_usd, amount_usd)
        return self.values[min(place, len(self.values) - 1)]


@dataclass(frozen=True, slots=True)
class _Market:
    instrument: Instrument
    ticks: int
    mark_micros_per_lot: float
    initial_rates_ppm: _Ladder

    def initial_rate_ppm(self, notional_usd: float) -> int:
        """Return what a position of so much needs at initial, ppm of it, rounded up."""
        return int(self.initial_rates_ppm.at(notional_usd))

    def micros(self, lots: int) -> int:
        """Return the notional of some lots at the starting tick, rounded up."""
        numerator, denominator = self.instrument.tick_value
        return -(-lots * self.ticks * numerator // denominator)


@dataclass(frozen=True, slots=True)
class _Collateral:
    asset: Asset
    price_usd: float
    weights: _Ladder


def population(
    rulebook: CompiledRulebook,
    prices: Mapping[str, str],
    *,
    accounts: int = 20_000,
    seed: int = 1,
    ts_us: int = 0,
    first: int = 0,
) -> Iterator[SyntheticAccount]:
    """Yield accounts ``first`` to ``first + accounts - 1``, in order.

    Parameters
    ----------
    rulebook : CompiledRulebook
        Lots, ticks, requirements and collateral weights (of the default preset).
    prices : mapping of feed to decimal text
        Starting prices; markets and collateral without one are left out.
    accounts, seed
        How many, and which population.
    ts_us : int
        Event time of all records.
    first : int
        Number of the first account, in its id; a population of its own for each value.

    Raises
    ------
    ConfigError
        [SLV-440] No market of the rulebook has a starting price.
    """
    markets = _markets(rulebook, prices)
    if not markets:
        msg = f"no market of rulebook {rulebook.id} has a starting price: {sorted(prices)[:5]}"
        raise ConfigError(msg, code="SLV-440")
    others = _collaterals(rulebook, prices)
    settlement = rulebook.assets[rulebook.rules.settlement_asset]
    random = np.random.default_rng([seed, first])
    equities = _equities(random, accounts)
    leverages = random.lognormal(np.log(_LEVERAGE_MEDIAN), _LEVERAGE_SIGMA, accounts)
    counts = np.minimum(random.geometric(0.6, accounts), min(_MAX_POSITIONS, len(markets)))
    popularity = 1.0 / np.arange(1, len(markets) + 1)
    popularity /= popularity.sum()
    for number in range(accounts):
        chosen = random.choice(len(markets), int(counts[number]), replace=False, p=popularity)
        account = _Account(f"acct-{first + number:07d}", ts_us, settlement)
        share = equities[number] / len(chosen)
        for market_index in sorted(chosen):
            market = markets[market_index]
            leverage = max(float(leverages[number]), _LEVERAGE_MIN)
            highest = 0.95 * PPM / market.initial_rate_ppm(share * leverage)
            leverage = min(leverage, highest)
            is_isolated, is_long, fills = (
                random.random() < _ISOLATED_SHARE,
                random.random() < _LONG_SHARE,
                int(random.integers(1, _MAX_FILLS + 1)),
            )
            account.open(market, share, share * leverage, is_isolated, is_long, fills)
        account.fund(others, random)
        yield account.built()


class _Account:
    """Builds one account's records."""

    def __init__(self, account_id: str, ts_us: int, settlement: Asset) -> None:
        self._id = account_id
        self._ts_us = ts_us
        self._settlement = settlement
        self._trades: list[bytes] = []
        self._moves: list[bytes] = []
        self._cross_micros = 0  # collateral the cross book is to hold at initial weights

    def open(
        self,
        market: _Market,
        equity_usd: float,
        notional_usd: float,
        is_isolated: bool,
        is_long: bool,
        fills: int,
    ) -> None:
        """Open one position near a notional and set aside the collateral it needs."""
        name = market.instrument.name
        lots = max(1, int(notional_usd * MICROS / market.mark_micros_per_lot))
        book = name if is_isolated else "cross"
        fee_micros = 0
        fills = min(fills, lots)
        for fill in range(fills):
            part = lots // fills + (1 if fill < lots % fills else 0)
            fee = -(-market.micros(part) * _FEE_PPM // PPM)
            fee_micros += fee
            self._trades.append(
                encode_trade(
                    trade_id=f"{self._id}.t{len(self._trades)}",
                    account_id=self._id,
                    subaccount=book,
                    market=name,
                    side="buy" if is_long else "sell",
                    size=market.instrument.lot.format(part),
                    price=market.instrument.tick.format(market.ticks),
                    fee=format_scaled(fee, MICRO_EXPONENT),
                    ts_us=self._ts_us,
                )
            )
        # Entry is a tick's rounding from the mark at most: one more tick a lot covers it.
        notional = market.micros(lots) + -(-market.micros(lots) // market.ticks)
        required = -(-notional * market.initial_rate_ppm(notional / MICROS) // PPM)
        loss = -(-market.micros(lots) // market.ticks)
        needed = required + required * _CUSHION_PPM // PPM + loss + fee_micros + fills
        micros = max(needed, int(equity_usd * MICROS))
        if is_isolated:
            self._deposit(book, self._settlement, micros, MICRO_EXPONENT)
        else:
            self._cross_micros += micros

    def fund(self, others: list[_Collateral], random: np.random.Generator) -> None:
        """Deposit the cross book's collateral, of several assets in some accounts."""
        left = self._cross_micros
        mixed = others if random.random() < _MIXED_COLLATERAL_SHARE else []
        shares = random.dirichlet(np.ones(len(mixed) + 1)) if mixed else ()
        for collateral, share in zip(mixed, shares, strict=False):
            if not left or share < 0.05:
                continue
            exponent = collateral.asset.quantum_exponent
            value_usd = self._cross_micros / MICROS * float(share)
            price_usd, weight = collateral.price_usd, collateral.weights.at(value_usd)
            quanta = int(value_usd / (price_usd * weight) * 10**-exponent)
            if quanta:
                weight = collateral.weights.at(quanta / 10**-exponent * price_usd)
                worth = quanta / 10**-exponent * price_usd * weight
                left -= int(worth * MICROS) - 1  # rounded against the account
                self._deposit("cross", collateral.asset, quanta, exponent)
        if left > 0:
            self._deposit("cross", self._settlement, left, MICRO_EXPONENT)

    def _deposit(self, book: str, asset: Asset, amount: int, exponent: int) -> None:
        # Rounded up where the asset's quantum is coarser than the amount's unit.
        quanta = -(-amount * 10 ** max(0, exponent - asset.quantum_exponent)) // 10 ** max(
            0, asset.quantum_exponent - exponent
        )
        self._moves.append(
            encode_collateral_move(
                move_id=f"{self._id}.m{len(self._moves)}",
                account_id=self._id,
                subaccount=book,
                asset=asset.name,
                kind="deposit",
                amount=format_scaled(quanta, asset.quantum_exponent),
                ts_us=self._ts_us,
            )
        )

    def built(self) -> SyntheticAccount:
        """Return what was built."""
        return SyntheticAccount(self._id.encode(), tuple(self._moves), tuple(self._trades))


def _equities(
    random: np.random.Generator, accounts: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return equities in settlement currency: lognormal, the upper twentieth with a Pareto tail."""
    body = random.lognormal(np.log(_EQUITY_MEDIAN_USD), _EQUITY_SIGMA, accounts)
    is_rich = random.random(accounts) < 0.05
    tail = _EQUITY_MEDIAN_USD * 20 * (1 + random.pareto(_EQUITY_TAIL, accounts))
    return np.clip(np.where(is_rich, tail, body), *_EQUITY_LIMITS_USD)


def _markets(rulebook: CompiledRulebook, prices: Mapping[str, str]) -> list[_Market]:
    priced = [
        instrument
        for instrument in rulebook.instruments
        if instrument.kind == "linear" and rulebook.feeds[instrument.mark_feed].name in prices
    ]
    if rulebook.policies[rulebook.default_preset].is_plain:
        rates = rulebook.rules.requirement_rate[rulebook.default_preset, INITIAL]
        ladders = [_flat(round(float(rates[i.index]) * PPM)) for i in priced]
    else:
        ladders = _appraised_rates(rulebook, prices, priced)
    markets = []
    for instrument, ladder in zip(priced, ladders, strict=True):
        if min(ladder.values, default=0) <= 0:
            continue
        feed = rulebook.feeds[instrument.mark_feed]
        mark = parse_scaled(prices[feed.name], feed.exponent)
        markets.append(
            _Market(
                instrument=instrument,
                ticks=max(1, round(mark / instrument.tick_price)),
                mark_micros_per_lot=_mark_micros_per_lot(instrument, mark),
                initial_rates_ppm=ladder,
            )
        )
    return markets


def _mark_micros_per_lot(instrument: Instrument, mark: int) -> float:
    numerator, denominator = instrument.mark_value
    return mark * numerator / denominator


def _collaterals(rulebook: CompiledRulebook, prices: Mapping[str, str]) -> list[_Collateral]:
    priced = [
        (asset, float(prices[rulebook.feeds[asset.index_feed].name]))
        for asset in rulebook.assets
        if asset.index_feed is not None and rulebook.feeds[asset.index_feed].name in prices
    ]
    if rulebook.policies[rulebook.default_preset].is_plain:
        weights = rulebook.rules.asset_weight[rulebook.default_preset, INITIAL]
        ladders = [_flat(float(weights[asset.index])) for asset, _ in priced]
    else:
        ladders = _appraised_weights(rulebook, prices, priced)
    return [
        _Collateral(asset, price_usd, ladder)
        for (asset, price_usd), ladder in zip(priced, ladders, strict=True)
        if min(ladder.values, default=0) > 0
    ]


def _flat(value: float) -> _Ladder:
    return _Ladder((), (value,))


# -- under terms: what the kernel says


def _appraised_rates(
    rulebook: CompiledRulebook, prices: Mapping[str, str], priced: Sequence[Instrument]
) -> list[_Ladder]:
    """Return ppm of notional that a lone position needs; no rungs if it cannot be judged."""
    books: list[dict[str, Any]] = []
    for instrument in priced:
        feed = rulebook.feeds[instrument.mark_feed]
        per_lot = _mark_micros_per_lot(instrument, parse_scaled(prices[feed.name], feed.exponent))
        for rung in _RUNGS_USD:
            size = instrument.lot.format(ceil(rung * MICROS / per_lot))
            position = {"market": instrument.name, "size": size, "entry_price": prices[feed.name]}
            books.append({"positions": [position]})
    return _ladders(
        _appraisals(rulebook, prices, books),
        # The smallest sizes are a lot each: what they need is of their notional, not the rung's.
        lambda unit: ceil(
            float(unit["requirement"]["initial"]) / float(unit["gross_notional"]) * PPM
        ),
        max,
    )


def _appraised_weights(
    rulebook: CompiledRulebook, prices: Mapping[str, str], priced: Sequence[tuple[Asset, float]]
) -> list[_Ladder]:
    """Return the share of a lone balance's value that counts at initial."""
    books: list[dict[str, Any]] = []
    for asset, price_usd in priced:
        for rung in _RUNGS_USD:
            quanta = ceil(rung / price_usd * 10**-asset.quantum_exponent)
            amount = format_scaled(quanta, asset.quantum_exponent)
            books.append({"collateral": {asset.name: amount}})
    return _ladders(
        _appraisals(rulebook, prices, books),
        lambda unit: float(unit["equity"]["initial"]) / float(unit["collateral"][0]["value"]),
        min,
    )


def _appraisals(
    rulebook: CompiledRulebook, prices: Mapping[str, str], books: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    marks = {name: price for name, price in prices.items() if name in rulebook.feed_by_name}
    accounts = [{"account_id": f"rung-{place}", **book} for place, book in enumerate(books)]
    judged: list[dict[str, Any]] = evaluate_snapshot(
        rulebook, {"marks": marks, "accounts": accounts}
    )["accounts"]
    return judged


def _ladders(
    units: Sequence[dict[str, Any]],
    number_of: Callable[[dict[str, Any]], float],
    worse: Callable[[float, float], float],
) -> list[_Ladder]:
    """Return a ladder for each `_RUNGS_USD` units; a rung is never better than one below it."""
    ladders = []
    for begin in range(0, len(units), len(_RUNGS_USD)):
        own = units[begin : begin + len(_RUNGS_USD)]
        if any(unit["verdict"] == "unknown" for unit in own):
            ladders.append(_Ladder((), ()))
        else:
            values = tuple(accumulate((number_of(unit) for unit in own), worse))
            ladders.append(_Ladder(_RUNGS_USD, values))
    return ladders
