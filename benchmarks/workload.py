"""The seeded workload that benchmarks and tests share: deposits, trades, ticks of one rulebook.

Sizes are in lots, prices in ticks of the rulebook's markets, fees in micros; every account first
deposits enough USDC to stay healthy, so that a run measures ingest and evaluation, not liquidation.
Only `random.Random.random` is drawn from, whose sequence Python keeps for ever: same seed, same
bytes, on any machine.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kafka.partitioner.default import murmur2

from solvent.rules import CompiledRulebook
from solvent.units import MICRO_EXPONENT, format_scaled
from solvent.wire.inputs import encode_clock, encode_collateral_move, encode_tick, encode_trade
from solvent.wire.topics import COLLATERAL, ORACLE_TICKS, TRADES

__all__ = ["START_US", "Fill", "Message", "Workload", "partition_of"]

START_US = 1_743_120_000_000_000  # 2025-03-28 00:00 UTC

#: Mid prices in USD by market base; any other market trades around 10.
_MIDS = {"BTC": 80_000.0, "ETH": 1_800.0, "SOL": 130.0, "BNB": 600.0, "XRP": 2.1}
_OTHER_MID = 10.0
_MEAN_NOTIONAL = 50.0  # USD a trade
_PRICE_RANGE = 0.002  # prices lie within a tenth of a percent of the mid
_MAX_FEE_MICROS = 30_000
_TRADE_EVERY_US = 10


class Message(NamedTuple):
    """One record to produce: logical topic, key, value."""

    topic: str
    key: bytes
    value: bytes


class Fill(NamedTuple):
    """One trade before it is written down: account number, instrument index, signed lots."""

    number: int
    account: int
    instrument: int
    lots: int
    price_ticks: int
    fee_micros: int


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
        return _MIDS.get(market.partition("-")[0], _OTHER_MID)

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
            yield Message(COLLATERAL, account.encode(), value)

    def fills(self, count: int, *, stream: int = 0) -> Iterator[Fill]:
        """Yield `count` fills of random accounts, sides and markets near the mid price."""
        uniform = random.Random(self.seed * 1_000_003 + stream).random
        plans = []
        for instrument in self.rulebook.instruments:
            mid = self.mid(instrument.name)
            mid_ticks = max(2, round(mid / float(instrument.tick.format(1))))
            lots = max(1, round(_MEAN_NOTIONAL / mid / float(instrument.lot.format(1))))
            plans.append((mid_ticks, lots))
        for number in range(count):
            index = int(uniform() * len(plans))
            mid_ticks, lots = plans[index]
            account = int(uniform() * self.accounts)
            ticks = mid_ticks + int((uniform() - 0.5) * mid_ticks * _PRICE_RANGE)
            size = 1 + int(uniform() * lots * 2)
            side = 1 if uniform() < 0.5 else -1
            yield Fill(number, account, index, side * size, ticks, int(uniform() * _MAX_FEE_MICROS))

    def message(self, fill: Fill, *, stream: int = 0) -> Message:
        """Write a fill down as a record of ``trades.v1``, on the cross book."""
        instrument = self.rulebook.instruments[fill.instrument]
        account = self.account_id(fill.account)
        value = encode_trade(
            trade_id=f"t{stream}-{fill.number}",
            account_id=account,
            subaccount="cross",
            market=instrument.name,
            side="buy" if fill.lots > 0 else "sell",
            size=instrument.lot.format(abs(fill.lots)),
            price=instrument.tick.format(fill.price_ticks),
            fee=format_scaled(fill.fee_micros, MICRO_EXPONENT),
            ts_us=START_US + fill.number * _TRADE_EVERY_US,
        )
        return Message(TRADES, account.encode(), value)

    def trades(self, count: int, *, stream: int = 0) -> Iterator[Message]:
        """Yield `count` trades of random accounts, sides and markets near the mid price."""
        for fill in self.fills(count, stream=stream):
            yield self.message(fill, stream=stream)

    def ticks(self, ts_us: int = START_US) -> Iterator[Message]:
        """Yield one tick a feed at the mid prices, then a clock record."""
        for feed in self.rulebook.feeds:
            mid = self.mid(feed.name.partition("/")[0])
            price = format_scaled(round(mid * 1e6), MICRO_EXPONENT)
            value = encode_tick(source="bench", feed=feed.name, price=price, ts_us=ts_us)
            yield Message(ORACLE_TICKS, feed.name.encode(), value)
        yield Message(ORACLE_TICKS, b"clock", encode_clock(ts_us=ts_us))


@functools.lru_cache(maxsize=1 << 20)  # murmur2 in Python costs more than all else of a message
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's producers choose for a key."""
    return 0 if partitions == 1 else (int(murmur2(key)) & 0x7FFFFFFF) % partitions
