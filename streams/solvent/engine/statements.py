"""Statements resolved: settings, open orders and snapshots as indices and exact integers.

Numbers become integers (signed lots, quanta, micros, ppm) and names indices, as `Intake` does it
for trades and moves, and the first failure wins in the same order: decoding, repeated id (snapshots
alone have one), record key, time, names of the rulebook, subaccount, numbers. The shard then checks
the sequence, and `solvent.engine.restate` applies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from solvent.domain.instrument import Step
from solvent.engine.describe import CROSS_NAME
from solvent.engine.intake import Fault
from solvent.engine.shard import InputRecord
from solvent.engine.window import WINDOW_OFFSETS
from solvent.errors import ContractError, RejectCode
from solvent.kernel.layout import CROSS, NONE
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Order
from solvent.units import MAX_EXACT, MAX_STATE, MICRO_EXPONENT, PPM, parse_scaled
from solvent.wire import statements as wire
from solvent.wire.inputs import best_effort_account_id
from solvent.wire.topics import ACCOUNT_SETTINGS, ACCOUNT_SNAPSHOTS, OPEN_ORDERS

__all__ = ["Orders", "Refusal", "Settings", "Snapshot", "SnapshotIds", "StatementReader"]

_MS_US: Final = 1_000
_MICRO: Final = Step(1, MICRO_EXPONENT)
_PPM: Final = Step(1, -6)
_PICO: Final = Step(1, -12)
#: Finer than any decimal text of the contract: what does not parse with it is no decimal.
_FINEST: Final = -40


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an account is to the rulebook.

    Attributes
    ----------
    preset : int
        Of all its units.
    leverage_ppm : mapping of int to int
        Own limits by instrument, all of them, at least 1e6.
    seq : int
        `NONE` without.
    """

    preset: int
    leverage_ppm: Mapping[int, int]
    seq: int
    ts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Open orders of one unit in one market; the leverage in `order` means nothing."""

    book: int
    order: Order
    seq: int
    ts_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole state of one unit.

    Attributes
    ----------
    balances : mapping of int to int
        Quanta by asset, none of them 0; what they are worth now.
    positions : mapping of int to (int, int, int or None)
        Signed lots, none of them 0, cost basis in quanta of the asset the contract settles in
        (micros mostly), and funding index in picos a lot, None for the present one, by instrument.
    orders : mapping of int to Order
        By instrument; their leverage means nothing.
    preset, leverage_ppm
        As in `Settings`; None: as it was.
    sequences : mapping of str to int
        Last sequence by field (``trades_seq``), as far as told.
    seq : int
        `NONE`: a snapshot has none of its own.
    """

    book: int
    balances: Mapping[int, int]
    positions: Mapping[int, tuple[int, int, int | None]]
    orders: Mapping[int, Order]
    preset: int | None
    leverage_ppm: Mapping[int, int] | None
    sequences: Mapping[str, int]
    ts_us: int
    seq: int = NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a statement is refused, and who is in doubt.

    Attributes
    ----------
    account_ids : tuple of str
        Accounts to quarantine.
    is_creating : bool
        Whether one that is unknown here is created for that.
    """

    fault: Fault
    account_ids: tuple[str, ...]
    is_creating: bool = True


class SnapshotIds:
    """Ids of a partition's snapshots with the offset each was last seen at (`DuplicateWindow`)."""

    def __init__(self) -> None:
        self._generation = 0
        self._newer: dict[tuple[str, str], int] = {}
        self._older: dict[tuple[str, str], int] = {}

    def was_seen(self, account_id: str, snapshot_id: str, offset: int) -> bool:
        """Enter an id and return whether it was there in the last `WINDOW_OFFSETS` offsets."""
        generation = offset // WINDOW_OFFSETS
        if generation != self._generation:
            is_next = generation == self._generation + 1
            self._newer, self._older = {}, self._newer if is_next else {}
            self._generation = generation
        name = account_id, snapshot_id
        last = self._newer.get(name, self._older.get(name))
        self._newer[name] = offset
        return last is not None and offset - last <= WINDOW_OFFSETS


class StatementReader:
    """Reader of one partition's statements under one rulebook."""

    def __init__(self, rulebook: CompiledRulebook) -> None:
        self._seen = SnapshotIds()
        self.adopt(rulebook)
        self._read: dict[str, tuple[Callable[[bytes | None], Any], Callable[[Any], Any]]] = {
            ACCOUNT_SETTINGS: (wire.decode_settings, self._settings),
            OPEN_ORDERS: (wire.decode_open_orders, self._orders),
            ACCOUNT_SNAPSHOTS: (wire.decode_snapshot, self.snapshot),
        }

    def adopt(self, rulebook: CompiledRulebook) -> None:
        """Read by a rulebook from here on; ids of snapshots know nothing of rules."""
        self._rulebook = rulebook

    def remember(self, record: InputRecord) -> None:
        """Enter the id of a snapshot below the fence, nothing else."""
        try:
            content = wire.decode_snapshot(record.value)
        except ContractError:
            return
        self._seen.was_seen(content.account_id, content.snapshot_id, record.offset)

    def read(
        self, topic: str, record: InputRecord
    ) -> tuple[str, Settings | Orders | Snapshot] | Refusal | None:
        """Return the account and what is stated of it, why it is refused, or None for a repeat."""
        decode, resolve = self._read[topic]
        try:
            content = decode(record.value)
        except ContractError as error:
            named = best_effort_account_id(record.value, record.key)
            fault = Fault(error.code, error.message, named)
            return Refusal(fault=fault, account_ids=() if named is None else (named,))
        account_id: str = content.account_id
        if topic == ACCOUNT_SNAPSHOTS and self._seen.was_seen(
            account_id, content.snapshot_id, record.offset
        ):
            return None
        if record.key != account_id.encode():
            return self._wrong_key(account_id, record.key)
        try:
            self._check_time(topic, content.ts_us, record.timestamp)
            return account_id, resolve(content)
        except ContractError as error:
            fault = Fault(error.code, error.message, account_id)
            return Refusal(fault=fault, account_ids=(account_id,))

    def _wrong_key(self, account_id: str, key: bytes | None) -> Refusal:
        shown = "null" if key is None else ascii(key)[:80]
        message = f"record key {shown}: `account_id` {account_id!r} expected"
        keyed = "" if key is None else key.decode("utf-8", "replace")
        return Refusal(
            fault=Fault(RejectCode.WRONG_KEY, message, account_id),
            account_ids=(account_id, keyed),
            is_creating=False,
        )

    def _check_time(self, topic: str, ts_us: int, timestamp_ms: int) -> None:
        limit_us = timestamp_ms * _MS_US + self._rulebook.max_future_us
        if ts_us > limit_us:
            message = f"{topic} `ts_us` = {ts_us}: at most {limit_us}, its Kafka time and the skew"
            raise ContractError(message, code=RejectCode.FUTURE)

    # -- what each says

    def _settings(self, told: wire.AccountSettings) -> Settings:
        topic = ACCOUNT_SETTINGS
        return Settings(
            preset=self._preset(topic, told.account_class),
            leverage_ppm=self._leverage(topic, told.leverage or {}),
            seq=NONE if told.seq is None else told.seq,
            ts_us=told.ts_us,
        )

    def _orders(self, told: wire.OpenOrders) -> Orders:
        topic = OPEN_ORDERS
        market = self._market(topic, told.market)
        if told.subaccount not in {CROSS_NAME, told.market}:
            message = f"{topic} `subaccount` = {told.subaccount!r}: cross or {told.market} expected"
            raise ContractError(message, code=RejectCode.WRONG_SUBACCOUNT)
        return Orders(
            book=CROSS if told.subaccount == CROSS_NAME else market,
            order=self._order(topic, market, told),
            seq=NONE if told.seq is None else told.seq,
            ts_us=told.ts_us,
        )

    def snapshot(self, told: wire.AccountSnapshot) -> Snapshot:
        """Resolve a snapshot.

        Raises
        ------
        ContractError
            A name is not the rulebook's, a number not on its step; with the code of the reject.
        """
        topic, rulebook = ACCOUNT_SNAPSHOTS, self._rulebook
        positions = [(self._market(topic, p.market), p) for p in told.positions]
        orders = [(self._market(topic, o.market), o) for o in told.orders or ()]
        for name in told.collateral:
            if name not in rulebook.asset_by_name:
                message = f"{topic} `collateral` = {name!r}: unknown asset"
                raise ContractError(message, code=RejectCode.OUT_OF_CONTRACT)
        book = CROSS
        if told.subaccount != CROSS_NAME:
            book = self._book(topic, told.subaccount)
        for market in (m for m, _ in (*positions, *orders)):
            if book not in {CROSS, market}:
                name = rulebook.instruments[market].name
                message = f"{topic} `subaccount` = {told.subaccount!r}: {name} is not of it"
                raise ContractError(message, code=RejectCode.WRONG_SUBACCOUNT)
        for named in ([m for m, _ in positions], [m for m, _ in orders]):
            if len(set(named)) != len(named):
                message = f"{topic} `market`: one is named twice, at most once allowed"
                raise ContractError(message, code=RejectCode.OUT_OF_CONTRACT)
        preset = None if told.account_class is None else self._preset(topic, told.account_class)
        leverage = None if told.leverage is None else self._leverage(topic, told.leverage)
        balances = {}
        for name, amount in told.collateral.items():
            asset = rulebook.asset_by_name[name]
            quantum = Step(1, asset.quantum_exponent)
            balances[asset.index] = _steps(topic, f"collateral.{name}", amount, quantum)
        return Snapshot(
            book=book,
            balances={asset: quanta for asset, quanta in sorted(balances.items()) if quanta},
            positions={m: self._position(topic, m, p) for m, p in sorted(positions, key=_market)},
            orders={m: self._order(topic, m, o) for m, o in sorted(orders, key=_market)},
            preset=preset,
            leverage_ppm=leverage,
            sequences={
                name: seq
                for name in ("trades_seq", "collateral_seq", "settings_seq", "orders_seq")
                if (seq := getattr(told, name)) is not None
            },
            ts_us=told.ts_us,
        )

    # -- names and numbers

    def _preset(self, topic: str, account_class: str) -> int:
        preset = self._rulebook.preset_by_class.get(account_class)
        if preset is None:
            known = ", ".join(self._rulebook.preset_by_class)
            message = f"{topic} `account_class` = {account_class!r}: one of {known} expected"
            raise ContractError(message, code=RejectCode.UNKNOWN_CLASS)
        return preset

    def _market(self, topic: str, name: str) -> int:
        instrument = self._rulebook.instrument_by_name.get(name)
        if instrument is None:
            message = f"{topic} `market` = {name!r}: not in rulebook {self._rulebook.id}"
            raise ContractError(message, code=RejectCode.UNKNOWN_INSTRUMENT)
        return instrument.index

    def _book(self, topic: str, name: str) -> int:
        instrument = self._rulebook.instrument_by_name.get(name)
        if instrument is None:
            message = f"{topic} `subaccount` = {name!r}: cross or a market expected"
            raise ContractError(message, code=RejectCode.WRONG_SUBACCOUNT)
        return instrument.index

    def _leverage(self, topic: str, told: Mapping[str, str]) -> dict[int, int]:
        markets = {self._market(topic, name): name for name in told}
        return {
            market: _steps(topic, f"leverage.{name}", told[name], _PPM, least=PPM)
            for market, name in sorted(markets.items())
        }

    def _position(
        self, topic: str, market: int, told: wire.SnapshotPosition
    ) -> tuple[int, int, int | None]:
        instrument = self._rulebook.instruments[market]
        lots = _steps(topic, "size", told.size, instrument.lot)
        if lots == 0:
            message = f"{topic} `size` = {told.size!a}: must not be 0"
            raise ContractError(message, code=RejectCode.OUT_OF_CONTRACT)
        quantum = Step(1, self._rulebook.assets[instrument.settles_in].quantum_exponent)
        cost = _steps(topic, "cost_basis", told.cost_basis, quantum)
        if told.funding_index is None:
            return lots, cost, None
        if instrument.funding_feed is None:
            message = f"{topic} `funding_index`: {instrument.name} has no funding"
            raise ContractError(message, code=RejectCode.OUT_OF_CONTRACT)
        index = _steps(topic, "funding_index", told.funding_index, _PICO, limit=MAX_STATE)
        return lots, cost, index

    def _order(self, topic: str, market: int, told: wire.OpenOrders | wire.SnapshotOrders) -> Order:
        lot = self._rulebook.instruments[market].lot
        return Order(
            instrument=market,
            bid_lots=_steps(topic, "bid_size", told.bid_size, lot, least=0),
            ask_lots=_steps(topic, "ask_size", told.ask_size, lot, least=0),
            bid_value_micros=_steps(topic, "bid_value", told.bid_value, _MICRO, least=0),
            ask_value_micros=_steps(topic, "ask_value", told.ask_value, _MICRO, least=0),
            order_count=told.count,
            leverage_ppm=0,
        )


def _market(pair: tuple[int, Any]) -> int:
    return pair[0]


def _steps(
    topic: str,
    name: str,
    text: str,
    step: Step,
    *,
    least: int | None = None,
    limit: int = MAX_EXACT,
) -> int:
    """Return a decimal text in steps, of which it must be at least so many."""
    try:
        whole = parse_scaled(text, _FINEST)
    except ValueError:
        message = f"{topic} `{name}` = {text!a}: a plain decimal expected"
        raise ContractError(message, code=RejectCode.OUT_OF_CONTRACT) from None
    scaled, finer = divmod(whole, 10 ** (step.exponent - _FINEST))
    count: int
    count, rest = divmod(scaled, step.numerator)
    if not finer and abs(scaled) > limit:
        most = f"2**{limit.bit_length() - 1} steps of {step.format(1)}"
        message = f"{topic} `{name}` = {text!a}: at most {most} expected"
        raise ContractError(message, code=RejectCode.OUT_OF_CONTRACT)
    if finer or rest:
        message = f"{topic} `{name}` = {text}: a multiple of {step.format(1)} expected"
        raise ContractError(message, code=RejectCode.OFF_STEP)
    if least is not None and count < least:
        message = f"{topic} `{name}` = {text!a}: at least {step.format(least)} expected"
        raise ContractError(message, code=RejectCode.OUT_OF_CONTRACT)
    return count
