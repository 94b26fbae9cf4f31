"""A venue in memory with several margin partitions: what each side writes, the others read.

Records go from log to log as a broker would carry them, a few at a time, so that any order of work
between partitions can be played; any shard may be restored from its table at any moment.
"""

from __future__ import annotations

from typing import Any

import orjson

from solvent.engine.margin import MarginShard
from solvent.engine.prices import PriceShard
from solvent.engine.run import Record, Run
from solvent.engine.shard import Emit
from solvent.rules import CompiledRulebook
from solvent.wire.inputs import encode_collateral_move, encode_trade
from solvent.wire.topics import COLLATERAL, CONTROL, LOSSES, MARKS, ORACLE_TICKS, TRADES
from support.exact import partition_of
from support.margin import NOW_MS, NOW_US, SECOND_US

__all__ = ["House"]

PRICES = "prices"


class House:
    """Price shard, margin shards, and the logs between them."""

    def __init__(self, rulebook: CompiledRulebook, partitions: int = 3) -> None:
        self.rulebook = rulebook
        self.partitions = partitions
        self.logs: dict[tuple[str, int], list[Record]] = {}
        self._shards: dict[Any, Any] = {p: MarginShard(p, rulebook) for p in range(partitions)}
        self._shards[PRICES] = PriceShard(rulebook, 0, partitions)
        self._positions: dict[Any, dict[str, int]] = {who: {} for who in self._shards}
        self._tables: dict[Any, dict[bytes, bytes]] = {who: {} for who in self._shards}
        self._states: dict[Any, dict[str, Any]] = {who: {} for who in self._shards}
        self._count = 0
        self.now_us = NOW_US

    @property
    def prices(self) -> PriceShard:
        shard: PriceShard = self._shards[PRICES]
        return shard

    def margin(self, partition: int) -> MarginShard:
        shard: MarginShard = self._shards[partition]
        return shard

    # -- what the venue tells

    def _append(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        log = self.logs.setdefault((topic, partition), [])
        log.append(Record(len(log), NOW_MS + 10**9, key, value))

    def place(self, account_id: str) -> int:
        return partition_of(account_id.encode(), self.partitions)

    def deposit(self, account_id: str, amount: str, asset: str = "USDC") -> None:
        self._move("deposit", account_id, amount, asset)

    def withdraw(self, account_id: str, amount: str) -> None:
        self._move("withdrawal", account_id, amount, "USDC")

    def _move(self, kind: str, account_id: str, amount: str, asset: str) -> None:
        self._count += 1
        value = encode_collateral_move(
            move_id=f"m{self._count}",
            account_id=account_id,
            subaccount="cross",
            asset=asset,
            kind=kind,
            amount=amount,
            ts_us=self.now_us,
        )
        self._append(COLLATERAL, self.place(account_id), account_id.encode(), value)

    def trade(
        self, account_id: str, side: str, size: str, price: str, liquidation_id: str | None = None
    ) -> None:
        self._count += 1
        value = encode_trade(
            trade_id=f"t{self._count}",
            account_id=account_id,
            subaccount="cross",
            market="BTC-PERP",
            side=side,
            size=size,
            price=price,
            fee="0",
            ts_us=self.now_us,
            **({} if liquidation_id is None else {"liquidation_id": liquidation_id}),
        )
        self._append(TRADES, self.place(account_id), account_id.encode(), value)

    def match(self, buyer: str, seller: str, size: str, price: str) -> None:
        """Trade between two accounts."""
        self.trade(buyer, "buy", size, price)
        self.trade(seller, "sell", size, price)

    def price(self, price: str, after_s: float = 1.0, feed: str = "BTC") -> None:
        """A tick and a clock record, later."""
        self.now_us += round(after_s * SECOND_US)
        for value in (
            {"kind": "price", "source": "one", "feed": feed, "price": price},
            {"kind": "clock"},
        ):
            record = {"schema_version": 1, **value, "ts_us": self.now_us}
            self._append(ORACLE_TICKS, 0, b"k", orjson.dumps(record))

    # -- work

    def inputs(self, who: Any) -> tuple[tuple[str, int], ...]:
        if who == PRICES:
            return ((ORACLE_TICKS, 0), (CONTROL, 0), (LOSSES, 0))
        return ((TRADES, who), (COLLATERAL, who), (MARKS, who))

    def step(self, who: Any, most: int = 1_000) -> int:
        """Let one shard fold up to so many records of each input, and commit."""
        positions, done = self._positions[who], 0
        for topic, partition in self.inputs(who):
            log = self.logs.get((topic, partition), [])
            begin = positions.get(topic, 0)
            part = log[begin : begin + most]
            if part:
                self._shards[who].apply(topic, Run.of(part))
                positions[topic] = begin + len(part)
                done += len(part)
        if done:
            self._commit(who)
        return done

    def _commit(self, who: Any) -> None:
        outputs = self._shards[who].cut()
        for key, value in outputs.rows:
            self._tables[who].pop(key, None)
            if value is not None:
                self._tables[who][key] = value
        self._states[who] = orjson.loads(orjson.dumps(outputs.state))
        for emit in outputs.records:
            self._deliver(who, emit)

    def _deliver(self, who: Any, emit: Emit) -> None:
        if emit.everywhere:
            for partition in range(self.partitions):
                self._append(emit.topic, partition, emit.key, emit.value)
        else:
            place = 0 if who == PRICES or emit.topic == LOSSES else who
            self._append(emit.topic, place, emit.key, emit.value)

    def restore(self, who: Any) -> None:
        """Take a shard away and have a new owner take over."""
        shard: Any = PriceShard(self.rulebook, 0, self.partitions)
        if who != PRICES:
            shard = MarginShard(who, self.rulebook)
        table = self._tables[who]
        shard.load(Run.of([Record(0, 0, key, value) for key, value in table.items()]))
        shard.resume(dict(self._positions[who]), self._states[who])
        for topic in shard.lookback:
            below = self._positions[who].get(topic, 0)
            if who != PRICES:
                shard.remember(topic, Run.of(self.logs.get((topic, who), [])[:below]))
        self._shards[who] = shard

    def settle(self) -> None:
        """Work until nobody has anything left to read."""
        while sum(self.step(who) for who in self._shards):
            pass

    # -- what came of it

    def events(self, topic: str) -> list[dict[str, Any]]:
        return [
            orjson.loads(record.value or b"{}")
            for (name, _), log in sorted(self.logs.items())
            if name == topic
            for record in log
        ]

    def holdings(self, account_id: str) -> tuple[int, int, int]:
        """Cash in micros, lots of BTC-PERP, cost basis in micros."""
        columns = self.margin(self.place(account_id)).columns
        unit = columns.unit_of(account_id, -1)
        assert unit is not None
        cash = dict(columns.balances_of(unit)).get(0, 0)
        lots, cost = next(((n, c) for _, n, c in columns.positions_of(unit)), (0, 0))
        return cash, lots, cost

    def total(self) -> tuple[int, int]:
        """Micros and lots of all accounts and the fund: what conservation is about.

        An account counts its cash less the cost basis of its position (what a fill moves from one
        to the other), the fund its money, what it was told on the way, and what it holds.
        """
        micros = lots = 0
        for partition in range(self.partitions):
            columns = self.margin(partition).columns
            for account_id in columns.account_ids:
                cash, held, cost = self.holdings(account_id)
                micros += cash - cost
                lots += held
        instrument = self.rulebook.instrument_by_name["BTC-PERP"]
        waterfall = self.prices._waterfall
        micros += waterfall.fund_micros + waterfall.rounds.set_aside_micros
        for market, (held, cost) in waterfall.held.items():
            assert market == "BTC-PERP"
            lots += held
            micros -= instrument.value_of(1, cost, 1)
        return micros, lots
