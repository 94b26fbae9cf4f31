"""A seeded stream of mixed input records, good and bad, for tests on the real broker."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Any

from solvent.rules import CompiledRulebook
from solvent.wire.inputs import (
    encode_clock,
    encode_collateral_move,
    encode_rulebook,
    encode_tick,
    encode_trade,
)
from solvent.wire.statements import (
    AccountSettings,
    AccountSnapshot,
    OpenOrders,
    SnapshotPosition,
    encode_statement,
)
from solvent.wire.topics import (
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    OPEN_ORDERS,
    ORACLE_TICKS,
    TRADES,
)

__all__ = ["START_US", "mixed_records", "with_rulebooks", "with_statements"]

START_US = 1_743_897_600_000_000
_MIDS = {"BTC-PERP": 60_000.0, "ETH-PERP": 2_000.0, "SOL-PERP": 150.0}
_SOURCES = ("one", "two", "three")

Produced = tuple[str, bytes, bytes]


def mixed_records(
    rulebook: CompiledRulebook, *, count: int, accounts: int, seed: int
) -> Iterator[Produced]:
    """Yield (topic, key, value) of about `count` records: deposits first, then everything mixed.

    Marks walk far enough to call, liquidate and bankrupt accounts; a tenth of the accounts number
    their records, one record in two hundred is bad, one in a hundred a repeat, and a few accounts
    skip a number.
    """
    chance = random.Random(seed)
    stream = _Stream(rulebook, chance, accounts)
    for number in range(accounts):
        yield stream.move(f"acct-{number}", kind="deposit", amount=chance.randint(200, 20_000))
    yield from stream.ticks(0)
    recent: list[Produced] = []
    for step in range(count - accounts):
        kind = chance.random()
        if step % 400 == 399:
            yield from stream.ticks(step)
        elif kind < 0.005:
            yield stream.bad()
        elif kind < 0.015 and recent:
            yield chance.choice(recent)
        elif kind < 0.2:
            yield stream.random_move()
        else:
            produced = stream.random_trade()
            recent = [*recent[-50:], produced]
            yield produced


def with_statements(
    records: Iterable[Produced], *, every: int, accounts: int, seed: int
) -> Iterator[Produced]:
    """Yield the records, and one statement after each so many: good, bad and repeated ones."""
    chance = random.Random(seed)
    last: Produced | None = None
    for number, record in enumerate(records):
        yield record
        if number % every == 0:
            if last is None or chance.random() > 0.1:
                last = _statement(chance, number, f"acct-{chance.randrange(accounts)}")
            yield last


def with_rulebooks(
    records: Iterable[Produced], rulebook: CompiledRulebook, *, every: int
) -> Iterator[Produced]:
    """Yield the records, and after each so many a later version of the rulebook: other rates.

    One in three that is published may not follow the one in force.
    """
    told = json.loads(rulebook.document)
    rates = cycle([20_000, 60_000, 10_000, 30_000])
    version = told["rulebook"]["version"]
    for number, record in enumerate(records, 1):
        yield record
        if number % every == 0:
            is_bad = number // every % 3 == 2
            version += not is_bad
            told["rulebook"]["version"] = version
            rate = next(rates)
            for preset in told["presets"].values():
                markets = preset["requirement"]["sum"][0]["markets"]
                for market in markets:
                    markets[market] = {"initial_rate_ppm": 2 * rate, "maintenance_rate_ppm": rate}
            value = encode_rulebook(
                source="desk", rulebook=json.dumps(told).encode(), ts_us=START_US
            )
            yield ORACLE_TICKS, b"rulebook", value


def _statement(chance: random.Random, number: int, account: str) -> Produced:
    market = chance.choice(["BTC-PERP", "ETH-PERP"])
    ts_us = START_US + number * 1_000
    head: dict[str, Any] = {"schema_version": 1, "account_id": account, "ts_us": ts_us}
    kind = chance.choice([ACCOUNT_SETTINGS, OPEN_ORDERS, OPEN_ORDERS, ACCOUNT_SNAPSHOTS])
    if kind == ACCOUNT_SETTINGS:
        limits = {market: str(chance.randint(1, 20))} if chance.random() < 0.7 else None
        account_class = "trader" if chance.random() < 0.95 else "whale"
        value = encode_statement(
            AccountSettings(**head, account_class=account_class, leverage=limits)
        )
    elif kind == OPEN_ORDERS:
        count = chance.randint(0, 2)
        size, worth = str(count), str(count * 1_000)
        sides = {"bid_size": size, "bid_value": worth, "ask_size": "0", "ask_value": "0"}
        book = chance.choice(["cross", market])
        value = encode_statement(
            OpenOrders(**head, subaccount=book, market=market, **sides, count=count)
        )
    else:
        position = SnapshotPosition(market=market, size="0.1", cost_basis="500.25")
        value = encode_statement(
            AccountSnapshot(
                **head,
                snapshot_id=f"s-{number}",
                subaccount=chance.choice(["cross", "cross", market]),
                collateral={"USDC": str(chance.randint(-100, 5_000))},
                positions=(position,) if chance.random() < 0.7 else (),
            )
        )
    return kind, account.encode(), value


class _Stream:
    def __init__(self, rulebook: CompiledRulebook, chance: random.Random, accounts: int) -> None:
        self.rulebook = rulebook
        self.chance = chance
        self.accounts = accounts
        self.mids = dict(_MIDS)
        self.numbers: dict[tuple[str, str], int] = {}
        self.made = 0

    def account(self) -> str:
        return f"acct-{self.chance.randrange(self.accounts)}"

    def seq(self, topic: str, account: str) -> int | None:
        """Number the records of every tenth account; now and then skip one."""
        if not account.endswith("0"):
            return None
        place = (topic, account)
        step = 2 if self.chance.random() < 0.0005 else 1
        self.numbers[place] = self.numbers.get(place, 0) + step
        return self.numbers[place]

    def ts_us(self) -> int:
        self.made += 1
        return START_US + self.made * 1_000

    def move(self, account: str, *, kind: str, amount: float, **more: Any) -> Produced:
        value = encode_collateral_move(
            move_id=f"m-{self.made}",
            account_id=account,
            subaccount=more.get("subaccount", "cross"),
            asset=more.get("asset", "USDC"),
            kind=kind,
            amount=f"{amount:.6f}".rstrip("0").rstrip("."),
            ts_us=self.ts_us(),
            seq=self.seq(COLLATERAL, account),
        )
        return COLLATERAL, account.encode(), value

    def random_move(self) -> Produced:
        chance = self.chance
        asset = chance.choice(["USDC", "USDC", "USDC", "BTC", "ETH"])
        scale = {"USDC": 3_000.0, "BTC": 0.05, "ETH": 1.0}[asset]
        return self.move(
            self.account(),
            kind=chance.choice(["deposit", "deposit", "withdrawal", "transfer_in", "adjustment"]),
            amount=round(chance.uniform(0.01, 1) * scale, 6),
            asset=asset,
            subaccount=chance.choice(["cross", "cross", "cross", "BTC-PERP"]),
        )

    def random_trade(self) -> Produced:
        chance = self.chance
        instrument = chance.choice(self.rulebook.instruments)
        account = self.account()
        mid = self.mids[instrument.name]
        ticks = round(mid * chance.uniform(0.999, 1.001) / float(instrument.tick.format(1)))
        lots = max(1, round(chance.uniform(20, 4_000) / mid / float(instrument.lot.format(1))))
        value = encode_trade(
            trade_id=f"t-{self.made}",
            account_id=account,
            subaccount=chance.choice(["cross", "cross", "cross", instrument.name]),
            market=instrument.name,
            side=chance.choice(["buy", "buy", "sell"]),
            size=instrument.lot.format(lots),
            price=instrument.tick.format(ticks),
            fee=f"{chance.randint(-200, 2_000) / 10_000}",
            ts_us=self.ts_us(),
            seq=self.seq(TRADES, account),
            liquidation_id=f"{account}:cross:1" if chance.random() < 0.02 else None,
        )
        return TRADES, account.encode(), value

    def ticks(self, step: int) -> Iterator[Produced]:
        """Yield ticks of three sources for every feed after a random step, then a clock."""
        for market in self.mids:
            self.mids[market] *= 1 + self.chance.gauss(0, 0.01)
        ts_us = START_US + step * 1_000 + 10_000_000
        yield ORACLE_TICKS, b"clock", encode_clock(ts_us)
        for feed in self.rulebook.feeds:
            mid = self.mids[feed.name.replace("/USD", "-PERP")]
            for source in _SOURCES:
                price = f"{mid * self.chance.uniform(0.9999, 1.0001):.4f}"
                value = encode_tick(source=source, feed=feed.name, price=price, ts_us=ts_us)
                yield ORACLE_TICKS, feed.name.encode(), value
        yield ORACLE_TICKS, b"clock", encode_clock(ts_us)

    def bad(self) -> Produced:
        """Spoil a good record in one of many ways."""
        chance = self.chance
        topic, key, value = chance.choice([self.random_trade, self.random_move])()
        record = json.loads(value)
        record.pop("seq", None)
        money = "price" if topic == TRADES else "amount"
        spoil = chance.randrange(9)
        if spoil == 0:
            return topic, key, value[: len(value) // 2]
        if spoil == 1:
            record["surprise"] = 1
        elif spoil == 2:
            record["ts_us"] = str(record["ts_us"])
        elif spoil == 3:
            record[money] = "1" * 400
        elif spoil == 4:
            record[money] = "0.0000000001"
        elif spoil == 5:
            record["market" if topic == TRADES else "asset"] = "DOGE-PERP"
        elif spoil == 6:
            record["ts_us"] = 9_000_000_000_000_000
        elif spoil == 7:
            return topic, b"somebody-else", value
        else:
            return topic, key, b""
        return topic, key, json.dumps(record).encode()
