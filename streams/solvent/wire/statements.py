"""Statements: strict codecs of ``account-settings``, ``open-orders`` and ``account-snapshots``.

A trade tells what happened; a statement tells what is so, and takes the place of the last one.
Units are those of `solvent.wire.inputs`, and so is the contract: a decoder answers with a typed,
frozen record or raises `ContractError`. Names are checked at every depth; decimal text, its sign
and its step, and names of the rulebook are left to the engine. Statements are few, so each is
looked at closely, however it is spelled.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from solvent.errors import ContractError, RejectCode
from solvent.units import MAX_EXACT
from solvent.wire.scrutiny import FAULTS, refusal
from solvent.wire.topics import ACCOUNT_SETTINGS, ACCOUNT_SNAPSHOTS, OPEN_ORDERS

__all__ = [
    "AccountSettings",
    "AccountSnapshot",
    "OpenOrders",
    "SnapshotOrders",
    "SnapshotPosition",
    "decode_open_orders",
    "decode_settings",
    "decode_snapshot",
    "encode_statement",
]

_Identifier = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
_Decimal = Annotated[str, Meta(min_length=1, max_length=40)]
_Count = Annotated[int, Meta(ge=0, le=MAX_EXACT)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may hold nothing but its fields; those without a value are not written."""


class AccountSettings(_Record, frozen=True, kw_only=True):
    """What an account is to the rulebook.

    Attributes
    ----------
    account_id : str
        All its margin units, present and to come.
    account_class : str
        A class the rulebook binds to a preset.
    leverage : dict of str to str, optional
        Own leverage limit by market, at least 1; it replaces all limits, and without it there are
        none.
    seq : int or None
        Gapless number per account within this topic, where the venue gives one.
    ts_us : int
        Event time, microseconds.
    """

    schema_version: Literal[1]
    account_id: _Identifier
    account_class: _Identifier
    leverage: dict[_Identifier, _Decimal] | None = None
    seq: _Count | None = None
    ts_us: _Count


class OpenOrders(_Record, frozen=True, kw_only=True):
    """All open orders of a margin unit in one market, in sum; all zero: none are left.

    Attributes
    ----------
    account_id, subaccount, market : str
        The margin unit, and the market, which an isolated unit is named after.
    bid_size, ask_size : str
        Coins, zero or more.
    bid_value, ask_value : str
        Size times limit price, in the settlement currency, zero or more.
    count : int
        Number of orders.
    seq, ts_us
        As in `AccountSettings`.
    """

    schema_version: Literal[1]
    account_id: _Identifier
    subaccount: _Identifier
    market: _Identifier
    bid_size: _Decimal
    bid_value: _Decimal
    ask_size: _Decimal
    ask_value: _Decimal
    count: _Count
    seq: _Count | None = None
    ts_us: _Count


class SnapshotPosition(_Record, frozen=True, kw_only=True):
    """One position: coins, long > 0, and the signed total paid for them.

    `funding_index` is the index up to which it has paid; without it, the present one.
    """

    market: _Identifier
    size: _Decimal
    cost_basis: _Decimal
    funding_index: _Decimal | None = None


class SnapshotOrders(_Record, frozen=True, kw_only=True):
    """Open orders of one market, as in `OpenOrders`."""

    market: _Identifier
    bid_size: _Decimal
    bid_value: _Decimal
    ask_size: _Decimal
    ask_value: _Decimal
    count: _Count


class AccountSnapshot(_Record, frozen=True, kw_only=True):
    """The whole state of one margin unit; it replaces what was known of the unit.

    Attributes
    ----------
    snapshot_id : str
        The venue's id, unique per account.
    account_id, subaccount : str
        The margin unit.
    account_class, leverage
        As in `AccountSettings`; each stays as it is without the field.
    collateral : dict of str to str
        Coins by asset, debt < 0.
    positions : tuple of SnapshotPosition
        A market at most once.
    orders : tuple of SnapshotOrders
        A market at most once; none are open without the field.
    trades_seq, collateral_seq, settings_seq, orders_seq : int or None
        Last ``seq`` of each topic that the snapshot knows of.
    ts_us : int
        Event time, microseconds.
    """

    schema_version: Literal[1]
    snapshot_id: _Identifier
    account_id: _Identifier
    subaccount: _Identifier
    account_class: _Identifier | None = None
    leverage: dict[_Identifier, _Decimal] | None = None
    collateral: dict[_Identifier, _Decimal]
    positions: tuple[SnapshotPosition, ...]
    orders: tuple[SnapshotOrders, ...] | None = None
    trades_seq: _Count | None = None
    collateral_seq: _Count | None = None
    settings_seq: _Count | None = None
    orders_seq: _Count | None = None
    ts_us: _Count


Statement = AccountSettings | OpenOrders | AccountSnapshot

_settings = msgspec.json.Decoder(AccountSettings)
_open_orders = msgspec.json.Decoder(OpenOrders)
_snapshot = msgspec.json.Decoder(AccountSnapshot)


def decode_settings(value: bytes | None) -> AccountSettings:
    """Return the settings in a record of ``account-settings.v1``.

    Raises
    ------
    ContractError
        With code `RejectCode.MALFORMED`, `UNSUPPORTED_VERSION` or `OUT_OF_CONTRACT`.
    """
    settings: AccountSettings = _decoded(ACCOUNT_SETTINGS, _settings, value)
    return settings


def decode_open_orders(value: bytes | None) -> OpenOrders:
    """Return the orders in a record of ``open-orders.v1``; raises as `decode_settings`."""
    orders: OpenOrders = _decoded(OPEN_ORDERS, _open_orders, value)
    return orders


def decode_snapshot(value: bytes | None) -> AccountSnapshot:
    """Return the snapshot in a record of ``account-snapshots.v1``; raises as `decode_settings`."""
    snapshot: AccountSnapshot = _decoded(ACCOUNT_SNAPSHOTS, _snapshot, value)
    return snapshot


def encode_statement(statement: Statement) -> bytes:
    """Return a value of the statement's topic; keys in the order of its fields."""
    return orjson.dumps(msgspec.to_builtins(statement))


def _decoded(topic: str, decoder: Any, value: bytes | None) -> Any:  # noqa: ANN401 - a statement
    """Decode, and refuse what a decoder lets pass: a name given twice, a null."""

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            repeated = next(name for k, (name, _) in enumerate(pairs) if name in dict(pairs[:k]))
            message = f"{topic} `{repeated}`: named twice, at most once allowed"
            raise ContractError(message, code=RejectCode.MALFORMED)
        for name, content in pairs:
            if content is None:
                message = f"{topic} `{name}`: null, leave the field out instead"
                raise ContractError(message, code=RejectCode.MALFORMED)
        return found

    try:
        statement = decoder.decode(value or b"")
    except FAULTS as fault:
        raise refusal(topic, value, fault) from None
    json.loads(value or b"", object_pairs_hook=check)
    return statement
