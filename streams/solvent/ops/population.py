"""A synthetic population of accounts: heavy-tailed, mostly long, healthy when it begins.

Sizes are in the rulebook's lots, prices on its ticks, collateral in asset quanta, equity and
notional in settlement currency. Everything follows from the seed: equal arguments, equal bytes.

How an account comes about: its equity is lognormal with a Pareto tail, its leverage lognormal, cut
below what the initial rates allow; one to four markets, the first listed the likeliest; four in
five positions long; about one in seven isolated, with collateral of its own. Positions are opened
at the starting price in one to three fills. The cross book holds the settlement asset and, in two
accounts of five, other listed collateral too. Collateral is computed last, from what the positions
require, so that ``health(initial) >= 0`` at the starting prices by construction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from solvent.domain.instrument import Asset, Instrument
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
#: Initial collateral above the initial requirement, ppm: covers marks off the tick and roundings.
_CUSHION_PPM: Final = 5_000


@dataclass(frozen=True, slots=True)
class SyntheticAccount:
    """One account as input records: `key` of all, ``collateral.v1`` and ``trades.v1`` values."""

    key: bytes
    moves: tuple[bytes, ...]
    trades: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Market:
    instrument: Instrument
    ticks: int
    mark_micros_per_lot: float
    initial_rate_ppm: int

    def micros(self, lots: int) -> int:
        """Return the notional of some lots at the starting tick, rounded up."""
        numerator, denominator = self.instrument.tick_value
        return -(-lots * self.ticks * numerator // denominator)


@dataclass(frozen=True, slots=True)
class _Collateral:
    asset: Asset
    price_usd: float
    weight: float


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
        Lots, ticks, rates and haircuts (of the default preset).
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
            highest = 0.95 * PPM / market.initial_rate_ppm
            leverage = min(max(float(leverages[number]), _LEVERAGE_MIN), highest)
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
        required = -(-notional * market.initial_rate_ppm // PPM)
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
            quanta = int(value_usd / (collateral.price_usd * collateral.weight) * 10**-exponent)
            if quanta:
                worth = quanta / 10**-exponent * collateral.price_usd * collateral.weight
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
    rates = rulebook.rules.requirement_rate[rulebook.default_preset, INITIAL]
    markets = []
    for instrument in rulebook.instruments:
        feed = rulebook.feeds[instrument.mark_feed]
        rate_ppm = round(float(rates[instrument.index]) * PPM)
        if feed.name not in prices or rate_ppm <= 0:
            continue
        mark = parse_scaled(prices[feed.name], feed.exponent)
        numerator, denominator = instrument.mark_value
        markets.append(
            _Market(
                instrument=instrument,
                ticks=max(1, round(mark / instrument.tick_price)),
                mark_micros_per_lot=mark * numerator / denominator,
                initial_rate_ppm=rate_ppm,
            )
        )
    return markets


def _collaterals(rulebook: CompiledRulebook, prices: Mapping[str, str]) -> list[_Collateral]:
    weights = rulebook.rules.asset_weight[rulebook.default_preset, INITIAL]
    found = []
    for asset in rulebook.assets:
        if asset.index_feed is None:
            continue
        feed = rulebook.feeds[asset.index_feed]
        weight = float(weights[asset.index])
        if feed.name in prices and weight > 0:
            found.append(_Collateral(asset, float(prices[feed.name]), weight))
    return found
