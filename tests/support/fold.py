"""An independent fold of what is told of accounts: what the account table must hold.

Plain Python integers, written from MODEL.md 2 and the wire contracts alone; it shares no code with
`solvent.engine`, `solvent.state` or `solvent.kernel`, not even the decoders. Slow and simple: the
other route to the same numbers, for property and chaos tests.

Give it every input record in the order the journal says (`Fold.take`); of mark frames only funding
and interest indices, settlements and rulebooks concern it. Amounts: lots signed (long > 0), cost
basis in quanta of the asset that a market settles in, balances in quanta (debt < 0), those of an
interest-bearing asset divided by its index.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from solvent.rules.model import RulebookModel

__all__ = ["Account", "Book", "Fold", "FoldRules"]

LIMIT = 2**53
WINDOW = 100_000
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OFFER = re.compile(r"[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}:[1-9][0-9]{0,15}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")

_TRADE = {
    "schema_version": int,
    "trade_id": str,
    "account_id": str,
    "subaccount": str,
    "market": str,
    "side": str,
    "size": str,
    "price": str,
    "fee": str,
    "ts_us": int,
}
_TRADE_MORE = {"seq": int, "liquidation_id": str}
_MOVE = {
    "schema_version": int,
    "move_id": str,
    "account_id": str,
    "subaccount": str,
    "asset": str,
    "kind": str,
    "amount": str,
    "ts_us": int,
}
_MOVE_MORE = {"seq": int, "transfer_id": str}
_SETTINGS = {"schema_version": int, "account_id": str, "account_class": str, "ts_us": int}
_SETTINGS_MORE = {"seq": int, "leverage": dict}
_SIDES = {"bid_size": str, "bid_value": str, "ask_size": str, "ask_value": str, "count": int}
_ORDERS = {
    "schema_version": int,
    "account_id": str,
    "subaccount": str,
    "market": str,
    "ts_us": int,
    **_SIDES,
}
_ORDERS_MORE = {"seq": int}
_SNAPSHOT = {
    "schema_version": int,
    "snapshot_id": str,
    "account_id": str,
    "subaccount": str,
    "collateral": dict,
    "positions": list,
    "ts_us": int,
}
_SEQUENCES = ("trades_seq", "collateral_seq", "settings_seq", "orders_seq")
_SNAPSHOT_MORE = {
    "account_class": str,
    "leverage": dict,
    "orders": list,
    **dict.fromkeys(_SEQUENCES, int),
}
_POSITION = {"market": str, "size": str, "cost_basis": str}
_MICRO = Decimal("0.000001")
_KINDS = {"deposit": 1, "transfer_in": 1, "adjustment": 1, "withdrawal": -1, "transfer_out": -1}


@dataclass
class FoldRules:
    """What the fold needs of a rulebook: steps of markets, quanta of assets, classes, limits.

    ``markets``: name -> (lot, tick) as `Decimal`; ``assets``: name -> quantum exponent;
    ``presets``: class -> preset; ``contracts``: market -> its entry in the rulebook; ``interest``:
    asset -> deposit and borrow index feed; ``exponents``: state feed -> exponent.
    """

    settlement: str
    markets: Mapping[str, tuple[Decimal, Decimal]]
    assets: Mapping[str, int]
    presets: Mapping[str, str]
    default_class: str
    max_future_us: int = 300_000_000
    contracts: Mapping[str, Any] = field(default_factory=dict)
    interest: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    exponents: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any) -> FoldRules:
        """Read them off a rulebook's model (`CompiledRulebook.model`)."""
        return cls(
            settlement=model.rulebook.settlement_asset,
            markets={
                name: (Decimal(item.lot), Decimal(item.tick))
                for name, item in model.instruments.items()
            },
            assets={name: item.quantum_exponent for name, item in model.assets.items()},
            presets=model.bindings,
            default_class=model.default_class,
            max_future_us=model.limits.max_future_us,
            contracts=model.instruments,
            interest={
                name: (item.deposit_index_feed, item.borrow_index_feed)
                for name, item in model.assets.items()
                if item.deposit_index_feed or item.borrow_index_feed
            },
            exponents={
                name: item.exponent for name, item in model.feeds.items() if item.kind == "state"
            },
        )


@dataclass
class Book:
    """One margin unit: ``positions`` market -> (lots, cost basis), ``balances`` asset -> quanta.

    ``orders``: market -> (bid lots, bid micros, ask lots, ask micros, count); ``funding``: market
    -> index paid up to, picos a lot, of each position.
    """

    positions: dict[str, tuple[int, int]] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    orders: dict[str, tuple[int, ...]] = field(default_factory=dict)
    funding: dict[str, int] = field(default_factory=dict)


@dataclass
class Account:
    """One account; a sequence is None while none came. ``leverage``: market -> limit, ppm."""

    trades_seq: int | None = None
    collateral_seq: int | None = None
    settings_seq: int | None = None
    orders_seq: int | None = None
    account_class: str | None = None
    leverage: dict[str, int] = field(default_factory=dict)
    quarantined: bool = False
    books: dict[str, Book] = field(default_factory=dict)


class _Reject(Exception):  # noqa: N818 -- an outcome, not an error
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Fold:
    """State of one partition.

    Attributes
    ----------
    accounts : dict
        Account id -> `Account`.
    rejects : list of (topic, offset, code)
        In the order they came about.
    duplicates : int
        Records dropped as repeats.
    fees, rounding : int, Fraction
        Micros paid in fees, and what rounding of fill values took.
    deposits : dict
        Asset -> quanta in less quanta out.
    fees_in, funding, settled, traded : dict
        Quanta of fees by asset, settlement asset apart; by market quanta paid for funding, paid out
        at expiry, and the signed values of fills in inverse contracts.
    """

    def __init__(self, rules: FoldRules) -> None:
        self.rules = rules
        self.accounts: dict[str, Account] = {}
        self.rejects: list[tuple[str, int, str]] = []
        self.duplicates = 0
        self.fees = 0
        self.rounding = Fraction(0)
        self.deposits: dict[str, int] = {}
        self.fees_in: Counter[str] = Counter()
        self.funding: Counter[str] = Counter()
        self.settled: Counter[str] = Counter()
        self.traded: Counter[str] = Counter()
        self.states: dict[str, int] = {}
        self.over: set[str] = set()
        self._seen: dict[tuple[str, str, str], int] = {}

    def take(
        self, topic: str, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None
    ) -> None:
        """Fold one record of an account topic; other topics are ignored."""
        if topic == "marks.v1":
            self._frame(json.loads(value or b""))
            return
        if topic == "trades.v1":
            fields, more, own_id, apply = _TRADE, _TRADE_MORE, "trade_id", self._trade
        elif topic == "collateral.v1":
            fields, more, own_id, apply = _MOVE, _MOVE_MORE, "move_id", self._move
        elif topic == "account-settings.v1":
            fields, more, own_id, apply = _SETTINGS, _SETTINGS_MORE, "", self._settings
        elif topic == "open-orders.v1":
            fields, more, own_id, apply = _ORDERS, _ORDERS_MORE, "", self._orders
        elif topic == "account-snapshots.v1":
            fields, more, own_id, apply = _SNAPSHOT, _SNAPSHOT_MORE, "snapshot_id", self._snapshot
        else:
            return
        try:
            record = _decode(value, fields, more)
        except _Reject as reject:
            named = _account_of(value, key)
            if named is not None:
                self._account(named).quarantined = True
            self.rejects.append((topic, offset, reject.code))
            return
        account_id = record["account_id"]
        if own_id and "seq" not in record:
            place = (topic, account_id, record[own_id])
            last = self._seen.get(place)
            self._seen[place] = offset
            if last is not None and offset - last <= WINDOW:
                self.duplicates += 1
                return
        if key != account_id.encode():
            keyed = None if key is None else key.decode("utf-8", "replace")
            for name in (account_id, keyed):
                if name in self.accounts:
                    self.accounts[name].quarantined = True
            self.rejects.append((topic, offset, "SLV-105"))
            return
        account = self._account(account_id)
        try:
            if record["ts_us"] > timestamp_ms * 1000 + self.rules.max_future_us:
                raise _Reject("SLV-107")
            apply(account, record)
        except _Reject as reject:
            account.quarantined = True
            self.rejects.append((topic, offset, reject.code))

    # -- trades

    def _trade(self, account: Account, record: dict[str, Any]) -> None:
        if record["market"] not in self.rules.markets:
            raise _Reject("SLV-202")
        if record["subaccount"] not in {"cross", record["market"]}:
            raise _Reject("SLV-106")
        lot, tick = self.rules.markets[record["market"]]
        size = _steps(record["size"], lot, positive=True)
        ticks = _steps(record["price"], tick, positive=True)
        asset = self._asset_of(record["market"])
        quantum = Decimal(1).scaleb(self.rules.assets[asset])
        fee = _steps(record["fee"], quantum, positive=False)
        lots = size if record["side"] == "buy" else -size
        if not self._is_next(account.trades_seq, record):
            return
        market, contract = record["market"], self.rules.contracts.get(record["market"])
        if self._is_over(market, record["ts_us"]):
            raise _Reject("SLV-205")
        book = account.books.get(record["subaccount"], Book())
        held, cost = book.positions.get(market, (0, 0))
        payment = self._funding_due(book, market)
        is_inverse = contract is not None and contract.kind == "inverse"
        is_premium = (
            contract is not None and contract.kind == "option" and contract.settlement == "premium"
        )
        price = ticks * Fraction(tick)
        worth = Fraction(contract.face) / price if is_inverse else price
        a_lot = worth * Fraction(lot) / Fraction(quantum)
        closing = min(abs(lots), abs(held)) if held * lots < 0 and not is_premium else 0
        closed = closing if lots > 0 else -closing
        realised = traded = 0
        rounding = Fraction(0)
        if closing:
            value = ceil(closed * a_lot)
            rounding += value - closed * a_lot
            released = floor(Fraction(cost * closing, abs(held)))
            realised = released + value if is_inverse else -value - released
            traded += value
            cost -= released
            held += closed
            _exact(value)
        opened = lots - closed
        if opened:
            value = ceil(opened * a_lot)
            rounding += value - opened * a_lot
            if is_premium:
                realised -= value
            else:
                cost += value
            held += opened
            traded += value
            _exact(value)
        _exact(held, cost, realised)
        cash = self._credited(book, asset, realised - payment - fee)
        if held:
            book.positions[market] = (held, cost)
            book.funding[market] = self._funding_index(market)
        else:
            assert cost == 0
            book.positions.pop(market, None)
            book.funding.pop(market, None)
        self._set_balance(book, asset, cash)
        account.books[record["subaccount"]] = book
        account.trades_seq = record.get("seq", account.trades_seq)
        self.funding[market] += payment
        if asset == self.rules.settlement:
            self.fees += fee
        else:
            self.fees_in[asset] += fee
        if is_inverse:
            self.traded[market] += traded
        else:
            self.rounding += rounding

    # -- funding, interest, expiry

    def _asset_of(self, market: str) -> str:
        contract = self.rules.contracts.get(market)
        return self.rules.settlement if contract is None else contract.settles_in

    def _funding_index(self, market: str) -> int:
        contract = self.rules.contracts.get(market)
        return 0 if contract is None else self.states.get(contract.funding_feed, 0)

    def _funding_due(self, book: Book, market: str) -> int:
        """Return the quanta that a position pays for funding since it last did."""
        held, _ = book.positions.get(market, (0, 0))
        passed = self._funding_index(market) - book.funding.get(market, 0)
        quantum = Fraction(10) ** self.rules.assets[self._asset_of(market)]
        return ceil(held * passed * Fraction(1, 10**12) / quantum)

    def _interest(self, asset: str, is_debt: bool) -> Fraction:
        deposit, borrow = self.rules.interest[asset]
        return Fraction(self.states.get((borrow if is_debt else deposit) or "", 10**18), 10**18)

    def _credited(self, book: Book, asset: str, change: int) -> int:
        """Return a balance at rest after a change."""
        held = book.balances.get(asset, 0)
        if asset not in self.rules.interest:
            _exact(held + change)
            return held + change
        value = floor(held * self._interest(asset, held < 0)) + change
        if held * value > 0:
            total = held + floor(change / self._interest(asset, held < 0))
        else:
            total = floor(value / self._interest(asset, value < 0))
        _exact(value, total)
        return total

    def _restored(self, asset: str, worth: int) -> int:
        """Return the balance at rest of a worth that is told, the nearest below if none has it."""
        below = self._credited(Book(), asset, worth)
        same = [held for held in (below, below + 1) if self.worth(asset, held) == worth]
        return same[0] if same else below

    def worth(self, asset: str, quanta: int) -> int:
        """Return what a balance at rest is worth now."""
        if asset not in self.rules.interest:
            return quanta
        return floor(quanta * self._interest(asset, quanta < 0))

    def _frame(self, frame: dict[str, Any]) -> None:
        if "rulebook" in frame:
            self.rules = FoldRules.of(RulebookModel.model_validate(frame["rulebook"]))
        for mark in frame["marks"]:
            if mark.get("value") is not None and mark["feed"] in self.rules.exponents:
                exponent = self.rules.exponents[mark["feed"]]
                self.states[mark["feed"]] = int(Fraction(mark["value"]) / Fraction(10) ** exponent)
        for settlement in frame.get("settlements", []):
            if settlement["market"] not in self.over:
                self._settle(settlement["market"], Fraction(settlement["price"]))

    def _settle(self, market: str, price: Fraction) -> None:
        """Close every position of a market; an overflow leaves it and quarantines the account."""
        self.over.add(market)
        contract = self.rules.contracts[market]
        asset = contract.settles_in
        payoff = price
        if contract.kind == "option":
            distance = price - Fraction(contract.strike)
            payoff = max(distance if contract.right == "call" else -distance, Fraction(0))
        elif contract.kind == "inverse":
            payoff = Fraction(contract.face) / price
        a_lot = payoff * Fraction(contract.lot) / Fraction(10) ** self.rules.assets[asset]
        for account in self.accounts.values():
            for book in account.books.values():
                if market not in book.positions:
                    book.orders.pop(market, None)
                    continue
                held, cost = book.positions[market]
                worth, payment = floor(held * a_lot), self._funding_due(book, market)
                gained = cost - worth if contract.kind == "inverse" else worth - cost
                try:
                    _exact(worth)
                    cash = self._credited(book, asset, gained - payment)
                except _Reject:
                    account.quarantined = True
                    continue
                del book.positions[market]
                book.funding.pop(market, None)
                book.orders.pop(market, None)
                self._set_balance(book, asset, cash)
                self.funding[market] += payment
                self.settled[market] += worth

    def _is_over(self, market: str, ts_us: int) -> bool:
        """Return whether a contract can have no fill, and so no order, at a time."""
        contract = self.rules.contracts.get(market)
        expires_us = None if contract is None else contract.expires_at_us
        return expires_us is not None and (ts_us >= expires_us or market in self.over)

    # -- collateral

    def _move(self, account: Account, record: dict[str, Any]) -> None:
        if record["asset"] not in self.rules.assets:
            raise _Reject("SLV-103")
        if record["subaccount"] not in {"cross", *self.rules.markets}:
            raise _Reject("SLV-106")
        quantum = Decimal(1).scaleb(self.rules.assets[record["asset"]])
        amount = _steps(record["amount"], quantum, positive=record["kind"] != "adjustment")
        if amount == 0:
            raise _Reject("SLV-103")
        if not self._is_next(account.collateral_seq, record):
            return
        change = amount * _KINDS[record["kind"]]
        book = account.books.get(record["subaccount"], Book())
        self._set_balance(book, record["asset"], self._credited(book, record["asset"], change))
        account.books[record["subaccount"]] = book
        account.collateral_seq = record.get("seq", account.collateral_seq)
        self.deposits[record["asset"]] = self.deposits.get(record["asset"], 0) + change

    # -- statements

    def _settings(self, account: Account, record: dict[str, Any]) -> None:
        self._check_class(record)
        leverage = self._leverage(record.get("leverage", {}))
        if not self._is_next(account.settings_seq, record):
            return
        account.settings_seq = record.get("seq", account.settings_seq)
        self._set_settings(account, record["account_class"], leverage)

    def _orders(self, account: Account, record: dict[str, Any]) -> None:
        market, name = record["market"], record["subaccount"]
        if market not in self.rules.markets:
            raise _Reject("SLV-202")
        if name not in {"cross", market}:
            raise _Reject("SLV-106")
        orders = self._sides(market, record)
        if not self._is_next(account.orders_seq, record):
            return
        if any(orders) and self._is_over(market, record["ts_us"]):
            raise _Reject("SLV-205")
        account.orders_seq = record.get("seq", account.orders_seq)
        if any(orders):
            account.books.setdefault(name, Book()).orders[market] = orders
        elif name in account.books:
            account.books[name].orders.pop(market, None)

    def _snapshot(self, account: Account, record: dict[str, Any]) -> None:
        name, rules = record["subaccount"], self.rules
        entries = [*record["positions"], *record.get("orders", [])]
        if any(entry["market"] not in rules.markets for entry in entries):
            raise _Reject("SLV-202")
        if not record["collateral"].keys() <= rules.assets.keys():
            raise _Reject("SLV-103")
        allowed = set(rules.markets) if name == "cross" else {name} & set(rules.markets)
        if not allowed or any(entry["market"] not in allowed for entry in entries):
            raise _Reject("SLV-106")
        for group in (record["positions"], record.get("orders", [])):
            if len({entry["market"] for entry in group}) != len(group):
                raise _Reject("SLV-103")
        if "account_class" in record:
            self._check_class(record)
        leverage = self._leverage(record.get("leverage", {}))
        book = Book()
        for asset, amount in record["collateral"].items():
            quantum = Decimal(1).scaleb(rules.assets[asset])
            change = _steps(amount, quantum, positive=False)
            self._set_balance(book, asset, self._restored(asset, change))
        for entry in record["positions"]:
            lots = _steps(entry["size"], rules.markets[entry["market"]][0], positive=False)
            if not lots:
                raise _Reject("SLV-103")
            market = entry["market"]
            quantum = Decimal(1).scaleb(rules.assets[self._asset_of(market)])
            cost = _steps(entry["cost_basis"], quantum, positive=False)
            book.positions[market] = (lots, cost)
            book.funding[market] = self._funding_index(market)
            if "funding_index" in entry:
                book.funding[market] = int(Fraction(entry["funding_index"]) * 10**12)
        if self.over & book.positions.keys():
            raise _Reject("SLV-205")
        for entry in record.get("orders", []):
            orders = self._sides(entry["market"], entry)
            if any(orders):
                if self._is_over(entry["market"], record["ts_us"]):
                    raise _Reject("SLV-205")
                book.orders[entry["market"]] = orders
        account.books[name] = book
        for field_name in _SEQUENCES:
            if field_name in record or account.quarantined:
                setattr(account, field_name, record.get(field_name))
        account.quarantined = False
        self._set_settings(
            account,
            record.get("account_class", account.account_class),
            leverage if "leverage" in record else account.leverage,
        )

    def _check_class(self, record: dict[str, Any]) -> None:
        if record["account_class"] not in self.rules.presets:
            raise _Reject("SLV-204")

    def _leverage(self, told: dict[str, str]) -> dict[str, int]:
        if not told.keys() <= self.rules.markets.keys():
            raise _Reject("SLV-202")
        limits = {market: _steps(text, _MICRO, positive=True) for market, text in told.items()}
        if any(limit < 10**6 for limit in limits.values()):
            raise _Reject("SLV-103")
        return limits

    @staticmethod
    def _set_settings(
        account: Account, account_class: str | None, leverage: dict[str, int]
    ) -> None:
        account.account_class, account.leverage = account_class, leverage
        if leverage:
            account.books.setdefault("cross", Book())

    def _sides(self, market: str, record: dict[str, Any]) -> tuple[int, ...]:
        lot, _ = self.rules.markets[market]
        steps = {"size": lot, "value": _MICRO}
        sides = [
            _steps(record[f"{side}_{what}"], step, positive=False)
            for side in ("bid", "ask")
            for what, step in steps.items()
        ]
        if any(amount < 0 for amount in sides):
            raise _Reject("SLV-103")
        return (*sides, record["count"])

    # -- all

    def _account(self, account_id: str) -> Account:
        return self.accounts.setdefault(account_id, Account())

    def _is_next(self, last: int | None, record: dict[str, Any]) -> bool:
        seq = record.get("seq")
        if seq is None or last is None or seq == last + 1:
            return True
        if seq <= last:
            self.duplicates += 1
            return False
        raise _Reject("SLV-201")

    @staticmethod
    def _set_balance(book: Book, asset: str, quanta: int) -> None:
        if quanta:
            book.balances[asset] = quanta
        else:
            book.balances.pop(asset, None)


def _exact(*amounts: int) -> None:
    if any(abs(amount) > LIMIT for amount in amounts):
        raise _Reject("SLV-203")


def _steps(text: str, step: Decimal, *, positive: bool) -> int:
    """Return a decimal text in whole steps."""
    if not _DECIMAL.fullmatch(text):
        raise _Reject("SLV-103")
    places = max(0, -int(step.normalize().as_tuple().exponent))
    scaled = Fraction(text) * 10**places  # in units of the step's last decimal
    if scaled.denominator != 1:
        raise _Reject("SLV-104")
    if abs(scaled) > LIMIT:
        raise _Reject("SLV-103")
    steps = scaled / (Fraction(step) * 10**places)
    if steps.denominator != 1:
        raise _Reject("SLV-104")
    if positive and steps <= 0:
        raise _Reject("SLV-103")
    return int(steps)


def _decode(
    value: bytes | None, fields: Mapping[str, type], more: Mapping[str, type]
) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in items}) != len(items):
            raise _Reject("SLV-101")
        return dict(items)

    def refuse(_: str) -> None:
        raise _Reject("SLV-101")

    try:
        record = json.loads(
            (value or b"").decode("utf-8"), object_pairs_hook=pairs, parse_constant=refuse
        )
    except (ValueError, RecursionError):
        raise _Reject("SLV-101") from None
    if not isinstance(record, dict):
        raise _Reject("SLV-101")
    version = record.get("schema_version")
    if type(version) is int and version != 1:
        raise _Reject("SLV-102")
    allowed = {**fields, **more}
    if not fields.keys() <= record.keys() <= allowed.keys():
        raise _Reject("SLV-101")
    if any(type(record[name]) is not kind for name, kind in allowed.items() if name in record):
        raise _Reject("SLV-101")
    identifiers = ("trade_id", "move_id", "account_id", "subaccount", "market", "asset")
    identifiers += ("snapshot_id", "account_class")
    rules: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys((*identifiers, "transfer_id"), lambda v: bool(_ID.fullmatch(v))),
        **dict.fromkeys(("ts_us", "seq", "count", *_SEQUENCES), lambda v: 0 <= v <= LIMIT),
        **dict.fromkeys(("size", "price", "fee", "amount"), lambda v: 1 <= len(v) <= 40),
        **dict.fromkeys(_SIDES.keys() - {"count"}, lambda v: 1 <= len(v) <= 40),
        "side": lambda v: v in {"buy", "sell"},
        "kind": lambda v: v in _KINDS,
        "liquidation_id": lambda v: bool(_OFFER.fullmatch(v)),
    }
    if any(name in record and not rule(record[name]) for name, rule in rules.items()):
        raise _Reject("SLV-103")
    return record


def _account_of(value: bytes | None, key: bytes | None) -> str | None:
    """Return whose undecodable record it was, if key and value do not contradict each other."""
    try:
        account_id = (key or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not _ID.fullmatch(account_id):
        return None
    try:
        content = json.loads((value or b"").decode("utf-8"))
    except (ValueError, RecursionError):
        return account_id
    named = content.get("account_id") if isinstance(content, dict) else None
    return None if isinstance(named, str) and named != account_id else account_id
