"""A venue that tells a pipeline of its accounts, and what of it a snapshot for evaluation says.

What was stated (classes, leverage limits, open orders) is remembered as it was sent, by the rules
of the contracts and without code of the engine: statements take the place of what they state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from solvent.wire.inputs import (
    encode_clock,
    encode_collateral_move,
    encode_settlement,
    encode_state,
    encode_tick,
    encode_trade,
)
from solvent.wire.topics import (
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    OPEN_ORDERS,
    ORACLE_TICKS,
    TRADES,
)

__all__ = ["Produced", "Quote", "Venue", "marks_of"]

Produced = tuple[str, bytes, bytes]
#: Price and half width of its confidence, decimal text.
Quote = tuple[str, str]

_NO_ORDERS = {"bid_size": "0", "bid_value": "0", "ask_size": "0", "ask_value": "0", "count": 0}


@dataclass
class Venue:
    """One venue's words, in order.

    Attributes
    ----------
    ts_us : int
        Event time of what was said last; each record comes a millisecond after the one before.
    classes : dict of str to str
        Account -> its class, where one was told.
    leverage : dict of str to dict
        Account -> market -> its own limit.
    orders : dict of (str, str) to dict
        Margin unit -> market -> sides and count; what is all zero is not kept.
    """

    ts_us: int
    classes: dict[str, str] = field(default_factory=dict)
    leverage: dict[str, dict[str, str]] = field(default_factory=dict)
    orders: dict[tuple[str, str], dict[str, dict[str, Any]]] = field(default_factory=dict)
    _said: list[Produced] = field(default_factory=list)
    _number: int = 0

    def take(self) -> list[Produced]:
        """Return what was said since the last call."""
        said, self._said = self._said, []
        return said

    # -- what happens

    def move(
        self, account: str, asset: str, amount: str, *, kind: str = "deposit", book: str = "cross"
    ) -> None:
        """Change a balance."""
        self._next()
        value = encode_collateral_move(
            move_id=f"m-{self._number}",
            account_id=account,
            subaccount=book,
            asset=asset,
            kind=kind,
            amount=amount,
            ts_us=self.ts_us,
        )
        self._say(COLLATERAL, account, value)

    def trade(
        self,
        account: str,
        market: str,
        size: str,
        price: str,
        *,
        book: str = "cross",
        fee: str = "0",
    ) -> None:
        """Fill an order of so many coins, below 0 a sale."""
        self._next()
        value = encode_trade(
            trade_id=f"t-{self._number}",
            account_id=account,
            subaccount=book,
            market=market,
            side="sell" if size.startswith("-") else "buy",
            size=size.removeprefix("-"),
            price=price,
            fee=fee,
            ts_us=self.ts_us,
        )
        self._say(TRADES, account, value)

    def spoil(self, account: str) -> None:
        """Say something of an account that cannot be read: it is quarantined."""
        self._next()
        self._say(TRADES, account, json.dumps({"account_id": account}).encode())

    # -- what is so

    def settle_on(self, account: str, account_class: str, leverage: Mapping[str, str]) -> None:
        """State an account's class and all its leverage limits."""
        self.classes[account] = account_class
        self.leverage[account] = dict(leverage)
        told = {"account_class": account_class, "leverage": self.leverage[account]}
        self._state(ACCOUNT_SETTINGS, account, told)

    def order(
        self, account: str, market: str, sides: Mapping[str, Any], book: str = "cross"
    ) -> None:
        """State the open orders of a unit in one market."""
        self._put_orders(account, book, {market: sides})
        self._state(OPEN_ORDERS, account, {"subaccount": book, "market": market, **sides})

    def snapshot(
        self,
        account: str,
        collateral: Mapping[str, str],
        positions: Iterable[Mapping[str, str]],
        orders: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        book: str = "cross",
        **more: Any,
    ) -> None:
        """State a whole unit; its orders are those told, or none."""
        if "account_class" in more:
            self.classes[account] = more["account_class"]
        if "leverage" in more:
            self.leverage[account] = dict(more["leverage"])
        self.orders.pop((account, book), None)
        self._put_orders(account, book, orders or {})
        told = {
            "snapshot_id": f"s-{self._number}",
            "subaccount": book,
            "collateral": dict(collateral),
            "positions": list(positions),
            **({} if orders is None else {"orders": _listed(orders)}),
            **more,
        }
        self._state(ACCOUNT_SNAPSHOTS, account, told)

    # -- what markets say

    def quotes(self, prices: Mapping[str, Mapping[str, Quote]], states: Mapping[str, str]) -> None:
        """Tell the time, then prices by feed and source and states at that time, and it again.

        The time comes first because a word beyond it is refused, and last because it cuts a frame.
        """
        self._next()
        self._say(ORACLE_TICKS, "clock", encode_clock(self.ts_us))
        for feed, quotes in prices.items():
            for source, (price, confidence) in quotes.items():
                value = encode_tick(
                    source=source, feed=feed, price=price, confidence=confidence, ts_us=self.ts_us
                )
                self._say(ORACLE_TICKS, feed, value)
        for feed, state in states.items():
            value = encode_state(source="one", feed=feed, value=state, ts_us=self.ts_us)
            self._say(ORACLE_TICKS, feed, value)
        self._say(ORACLE_TICKS, "clock", encode_clock(self.ts_us))

    def settle(self, market: str, price: str) -> None:
        """End a market at a price."""
        value = encode_settlement(source="one", market=market, price=price, ts_us=self.ts_us)
        self._say(ORACLE_TICKS, market, value)
        self._say(ORACLE_TICKS, "clock", encode_clock(self.ts_us))

    # -- what evaluation is given

    def snapshot_of(
        self, units: Iterable[Mapping[str, Any]], marks: Mapping[str, Any], ts_us: int
    ) -> dict[str, Any]:
        """Return the snapshot for ``solvent evaluate`` of units as ``accounts list`` shows them.

        Amounts and positions are those of the table; classes, limits and orders those stated here,
        and no figure of the table is used. All limits of an account go with each of its units.
        """
        accounts = []
        for unit in units:
            account, book = unit["account_id"], unit["subaccount"]
            told: dict[str, Any] = {"account_id": account, "subaccount": book}
            if account in self.classes:
                told["account_class"] = self.classes[account]
            told["collateral"] = {held["asset"]: held["amount"] for held in unit["collateral"]}
            wanted = ("market", "size", "cost_basis", "funding_index")
            told["positions"] = [
                {name: held[name] for name in wanted if name in held} for held in unit["positions"]
            ]
            told["orders"] = _listed(self.orders.get((account, book), {}))
            told["leverage"] = self.leverage.get(account, {})
            accounts.append(told)
        return {"ts_us": ts_us, "marks": dict(marks), "accounts": accounts}

    def _next(self) -> None:
        self._number += 1
        self.ts_us += 1_000

    def _say(self, topic: str, key: str, value: bytes) -> None:
        self._said.append((topic, key.encode(), value))

    def _state(self, topic: str, account: str, told: Mapping[str, Any]) -> None:
        self._next()
        head = {"schema_version": 1, "account_id": account, "ts_us": self.ts_us}
        self._say(topic, account, json.dumps({**head, **told}, separators=(",", ":")).encode())

    def _put_orders(self, account: str, book: str, orders: Mapping[str, Mapping[str, Any]]) -> None:
        known = self.orders.setdefault((account, book), {})
        for market, sides in orders.items():
            known[market] = dict(sides)
            if sides == _NO_ORDERS:
                del known[market]


def marks_of(frames: Iterable[bytes]) -> tuple[dict[str, Any], int]:
    """Return the last mark of each feed if it is valid, and the time reached.

    Parameters
    ----------
    frames : iterable of bytes
        Values of one partition of ``marks.v1``, all of them, in order.

    Returns
    -------
    dict, int
        Marks as ``solvent evaluate`` takes them, and microseconds.
    """
    marks: dict[str, Any] = {}
    ts_us = 0
    for value in frames:
        frame = json.loads(value)
        ts_us = max(ts_us, frame["ts_us"])
        for told in frame["marks"]:
            marks.pop(told["feed"], None)
            if told["state"] == "valid":
                number = "price" if told.get("value") is None else "value"
                mark = {number: told[number]}
                if told.get("confidence") is not None:
                    mark["confidence"] = told["confidence"]
                marks[told["feed"]] = mark
    return marks, ts_us


def _listed(orders: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"market": market, **sides} for market, sides in orders.items()]
