"""The seeded workload that benchmarks and tests share: deposits, trades, ticks of one rulebook.

Sizes and prices are on the lots and ticks of the rulebook's markets; every account first deposits
enough USDC to stay healthy, so that a run measures ingest and evaluation, not liquidation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from solvent.rules import CompiledRulebook
from solvent.units import format_scaled
from solvent.wire.inputs import encode_clock, encode_collateral_move, encode_tick, encode_trade

START_US = 1_743_120_000_000_000  # 2025-03-28 00:00 UTC

#: Mid prices in USD by market base; any other market trades around 10.
_MIDS = {"BTC": 80_000.0, "ETH": 1_800.0, "SOL": 130.0, "BNB": 600.0, "XRP": 2.1}


@dataclass(frozen=True, slots=True)
class Message:
    """One record to produce: logical topic, key, value."""

    topic: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A population and its activity.

    Attributes
    ----------
    rulebook : CompiledRulebook
        Markets, lots and ticks.
    accounts : int
        Number of accounts; all are active.
    seed : int
        Same seed, same bytes.
    """

    rulebook: CompiledRulebook
    accounts: int
    seed: int = 7

    def account_id(self, number: int) -> str:
        """Return the id of an account by number."""
        return f"acct-{number:07d}"

    def mid(self, market: str) -> float:
        """Return the price in USD that a market trades around."""
        return _MIDS.get(market.partition("-")[0], 10.0)

    def deposits(self, amount: str = "1000000") -> Iterator[Message]:
        """Yield one USDC deposit an account."""
        asset = self.rulebook.model.rulebook.settlement_asset
        for number in range(self.accounts):
            account = self.account_id(number)
            value = encode_collateral_move(
                move_id=f"dep-{number}",
                account_id=account,
                subaccount="cross",
                asset=asset,
                kind="deposit",
                amount=amount,
                ts_us=START_US,
            )
            yield Message("collateral.v1", account.encode(), value)

    def trades(self, count: int, *, stream: int = 0) -> Iterator[Message]:
        """Yield `count` trades of random accounts, sides and markets near the mid price."""
        rng = random.Random(self.seed * 1_000_003 + stream)
        instruments = list(self.rulebook.instruments)
        plans = []
        for instrument in instruments:
            mid = self.mid(instrument.name)
            mid_ticks = max(2, round(mid / float(instrument.tick.format(1))))
            lots = max(1, round(50.0 / mid / float(instrument.lot.format(1))))
            plans.append((instrument, mid_ticks, lots))
        uniform = rng.random
        for number in range(count):
            instrument, mid_ticks, lots = plans[int(uniform() * len(plans))]
            account = self.account_id(int(uniform() * self.accounts))
            ticks = mid_ticks + int((uniform() - 0.5) * mid_ticks * 0.002)
            size = 1 + int(uniform() * lots * 2)
            value = encode_trade(
                trade_id=f"t{stream}-{number}",
                account_id=account,
                subaccount="cross",
                market=instrument.name,
                side="buy" if uniform() < 0.5 else "sell",
                size=instrument.lot.format(size),
                price=instrument.tick.format(ticks),
                fee=format_scaled(int(uniform() * 30_000), -6),
                ts_us=START_US + number * 10,
            )
            yield Message("trades.v1", account.encode(), value)

    def ticks(self, ts_us: int = START_US) -> Iterator[Message]:
        """Yield one tick a feed at the mid prices, then a clock record."""
        for feed in self.rulebook.feeds:
            price = format_scaled(round(self.mid(feed.name.partition("/")[0]) * 1e6), -6)
            value = encode_tick(source="bench", feed=feed.name, price=price, ts_us=ts_us)
            yield Message("oracle-ticks.v1", feed.name.encode(), value)
        yield Message("oracle-ticks.v1", b"clock", encode_clock(ts_us=ts_us))
