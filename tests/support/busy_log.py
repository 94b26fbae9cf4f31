"""A seeded log with every kind of record and event in it, for replay and parity tests."""

from __future__ import annotations

import random
from typing import Any

from solvent.wire.topics import COLLATERAL, TRADES
from support.margin import Log

__all__ = ["a_busy_log", "a_stated_log"]

ACCOUNTS = [f"acct-{number}" for number in range(8)]


def a_busy_log(seed: int, steps: int) -> Log:
    """Return trades, moves, bad records, repeats and falling and rising marks of eight accounts."""
    chance = random.Random(seed)
    log = Log()
    price = 100
    seqs: dict[str, int] = {}
    for step in range(steps):
        name = chance.choice(ACCOUNTS)
        kind = chance.random()
        if kind < 0.25:
            price = max(20, price + chance.choice([-9, -4, -1, 1, 3, 6]))
            state = "stale" if chance.random() < 0.1 else "valid"
            since = step if state == "stale" or chance.random() < 0.2 else 0
            log.marks(
                {"BTC": str(price), "ETH": "50", "ODD": "1"},
                at_s=step * 7,
                state=state,
                since_s=since * 7,
            )
        elif kind < 0.45:
            log.move(
                name,
                amount=str(chance.randint(1, 90)),
                kind=chance.choice(["deposit", "deposit", "withdrawal"]),
                subaccount=chance.choice(["cross", "cross", "BTC-PERP"]),
            )
        elif kind < 0.93:
            more: dict[str, Any] = {}
            if chance.random() < 0.3:
                more["seq"] = seqs[name] = seqs.get(name, 0) + 1
            if chance.random() < 0.3:
                more["liquidation_id"] = f"{name}:cross:{chance.randint(1, 2)}"
            log.trade(
                name,
                side=chance.choice(["buy", "buy", "sell"]),
                price=str(price),
                size=f"{chance.randint(1, 8) / 2}",
                fee="0.1",
                subaccount=chance.choice(["cross", "cross", "BTC-PERP"]),
                **more,
            )
        elif kind < 0.97 and log.entries:
            topic, record = chance.choice(log.entries)
            if topic in {TRADES, COLLATERAL}:
                log.add(topic, record.value, record.key)
        else:
            log.add(chance.choice([TRADES, COLLATERAL]), b'{"broken', name.encode())
    return log


def a_stated_log(seed: int, steps: int) -> Log:
    """Return a busy log with settings, open orders and snapshots among its records."""
    chance = random.Random(seed)
    busy = a_busy_log(seed, steps)
    log = Log(marks_seq=busy.marks_seq)
    for topic, record in busy.entries:
        _state_something(chance, log)
        log.add(topic, record.value, record.key)
    return log


def _state_something(chance: random.Random, log: Log) -> None:
    name = chance.choice(ACCOUNTS)
    kind = chance.random()
    market = chance.choice(["BTC-PERP", "ETH-PERP"])
    if kind < 0.06:
        limits = {} if chance.random() < 0.3 else {market: str(chance.randint(1, 20))}
        log.settings(name, account_class=chance.choice(["trader", "careful"]), leverage=limits)
    elif kind < 0.16:
        size = chance.randint(0, 3)
        log.orders(
            name,
            market=market,
            subaccount=chance.choice(["cross", market]),
            bid_size=str(size),
            bid_value=str(size * 80),
            count=size,
            **({"seq": chance.randint(1, 3)} if chance.random() < 0.2 else {}),
        )
    elif kind < 0.22:
        position = {"market": market, "size": str(chance.randint(1, 4)), "cost_basis": "300.5"}
        log.snapshot(
            name,
            subaccount=chance.choice(["cross", market]),
            collateral={"USDC": str(chance.randint(-20, 200))},
            positions=[position] if chance.random() < 0.7 else [],
            **({"trades_seq": chance.randint(1, 9)} if chance.random() < 0.3 else {}),
        )
