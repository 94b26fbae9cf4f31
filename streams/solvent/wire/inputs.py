"""Input records: strict decoders and encoders of ``trades``, ``collateral`` and ``oracle-ticks``.

Money, prices and sizes are decimal strings in units of their asset or of the settlement currency,
signed where the field says so; times are integer microseconds since 1970 UTC. A decoder answers
with a typed, frozen record or raises `ContractError` with a `RejectCode`; nothing in between.

What a decoder has checked: JSON without repeated keys or nulls, exactly the published fields, their
types, closed lists, identifiers (characters and 1..64 of them), ``ts_us`` and ``seq`` within
``0..2**53``. What the engine still must check, because it needs the rulebook: decimal text (by
`solvent.units.parse_scaled`), its sign and its step, that the key equals ``account_id``, and known
names. ``schemas/*/v1.schema.json`` states the same contract in JSON Schema.

One record costs about half a microsecond, so characters are not checked field by field: deleting
every identifier character from a compact record leaves its punctuation, whose length is known from
the fields that were decoded. Any other character, repeated key, null or blank makes it longer, and
only then is the record looked at closely. Producers that write compact JSON (no blanks after ``:``
and ``,``) stay on the short path.
"""

from __future__ import annotations

import string
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from solvent.units import MAX_EXACT
from solvent.wire.scrutiny import (
    FAULTS,
    SCHEMA_VERSION,
    check_closely,
    is_deep,
    is_feed_name,
    is_identifier,
    is_liquidation_id,
    out_of_contract,
    refusal,
)
from solvent.wire.topics import COLLATERAL, CONTROL, ORACLE_TICKS, TRADES

__all__ = [
    "SCHEMA_VERSION",
    "ClockTick",
    "CollateralMove",
    "ControlCommand",
    "PriceTick",
    "RulebookTick",
    "SettlementTick",
    "StateTick",
    "Tick",
    "Trade",
    "best_effort_account_id",
    "decode_collateral_move",
    "decode_control",
    "decode_tick",
    "decode_trade",
    "encode_clock",
    "encode_collateral_move",
    "encode_control",
    "encode_rulebook",
    "encode_settlement",
    "encode_state",
    "encode_tick",
    "encode_trade",
    "is_feed_name",
    "is_identifier",
    "is_liquidation_id",
]

_Identifier = Annotated[str, Meta(min_length=1, max_length=64)]
_LiquidationId = Annotated[str, Meta(min_length=5, max_length=146)]
_Decimal = Annotated[str, Meta(min_length=1, max_length=40)]
_Count = Annotated[int, Meta(ge=0, le=MAX_EXACT)]

Side = Literal["buy", "sell"]
MoveKind = Literal["deposit", "withdrawal", "transfer_in", "transfer_out", "adjustment"]


class Trade(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """One fill of an account.

    Attributes
    ----------
    trade_id : str
        The venue's id, unique per account.
    account_id, subaccount : str
        The margin unit; `subaccount` is ``cross`` or the market it isolates.
    market : str
        Instrument name.
    side : str
        ``buy`` adds to the position, ``sell`` takes from it.
    size, price : str
        Coins, and settlement currency per coin; both above zero.
    fee : str
        Settlement currency paid by the account; negative for a rebate.
    ts_us : int
        Event time, microseconds.
    seq : int or None
        Gapless number per account within this topic, where the venue gives one.
    liquidation_id : str or None
        The offer this fill answers.
    claim_token : int or None
        The claim on it that the fill uses (`solvent.wire.reports`).
    """

    schema_version: Literal[1]
    trade_id: _Identifier
    account_id: _Identifier
    subaccount: _Identifier
    market: _Identifier
    side: Side
    size: _Decimal
    price: _Decimal
    fee: _Decimal
    ts_us: _Count
    seq: _Count | None = None
    liquidation_id: _LiquidationId | None = None
    claim_token: _Count | None = None


class CollateralMove(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True
):
    """One change of a balance.

    Attributes
    ----------
    move_id : str
        The venue's id, unique per account.
    account_id, subaccount : str
        The margin unit.
    asset : str
        Asset name.
    kind : str
        ``deposit`` and ``transfer_in`` add the amount, ``withdrawal`` and ``transfer_out`` take it,
        ``adjustment`` adds it with its own sign.
    amount : str
        Coins of the asset, above zero; of an adjustment non-zero, signed.
    ts_us : int
        Event time, microseconds.
    seq : int or None
        Gapless number per account within this topic.
    transfer_id : str or None
        What the two legs of a transfer have in common.
    """

    schema_version: Literal[1]
    move_id: _Identifier
    account_id: _Identifier
    subaccount: _Identifier
    asset: _Identifier
    kind: MoveKind
    amount: _Decimal
    ts_us: _Count
    seq: _Count | None = None
    transfer_id: _Identifier | None = None


class PriceTick(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="price",
):
    """One source's price of one feed.

    Attributes
    ----------
    source, feed : str
        Who says it and of what; both may contain ``/``.
    price : str
        Settlement currency per coin.
    ts_us : int
        Event time at the source, microseconds.
    confidence : str or None
        Half width of the interval the source stands by, in price units, zero or more.
    """

    schema_version: Literal[1]
    source: _Identifier
    feed: _Identifier
    price: _Decimal
    ts_us: _Count
    confidence: _Decimal | None = None


class StateTick(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="state",
):
    """One source's word on one number of the market that is no price.

    Attributes
    ----------
    source, feed : str
        Who says it and of what; both may contain ``/``.
    value : str
        In the feed's own unit, signed, zero allowed.
    ts_us : int
        Event time at the source, microseconds.
    """

    schema_version: Literal[1]
    source: _Identifier
    feed: _Identifier
    value: _Decimal
    ts_us: _Count


class SettlementTick(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="settlement",
):
    """The price at which a contract is settled when it expires; all positions in it end.

    Attributes
    ----------
    source : str
        Who says it; may contain ``/``.
    market : str
        Instrument name.
    price : str
        Settlement currency per coin of the underlying, above zero.
    ts_us : int
        Event time, microseconds, not before the contract expires.
    """

    schema_version: Literal[1]
    source: _Identifier
    market: _Identifier
    price: _Decimal
    ts_us: _Count


class RulebookTick(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="rulebook",
):
    """A rulebook published: if it may follow the one in force, all judge by it from here on.

    Attributes
    ----------
    source : str
        Who publishes it; may contain ``/``.
    rulebook : msgspec.Raw
        The resolved rulebook, a JSON object (`solvent.rules.document`).
    ts_us : int
        When it was published, microseconds.
    """

    schema_version: Literal[1]
    source: _Identifier
    rulebook: msgspec.Raw
    ts_us: _Count


class ClockTick(
    msgspec.Struct,
    frozen=True,
    gc=False,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="clock",
):
    """The time it is, microseconds: staleness and expiry are judged in this time only."""

    schema_version: Literal[1]
    ts_us: _Count


class ControlCommand(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True
):
    """What an operator orders: liquidations of a market, or of all, pause or go on, and the like.

    Attributes
    ----------
    command_id : str
        Unique; the same again is a repeat.
    action : str
        ``pause``, ``resume``, ``halt``, ``dry_run_on`` or ``dry_run_off``.
    operator, reason : str
        Who orders it and why, for people.
    ts_us : int
        When it was ordered, microseconds.
    market : str or None
        Instrument name; None for all markets, apart from those paused by name. A halt has one, a
        dry run none.
    """

    schema_version: Literal[1]
    command_id: _Identifier
    action: Literal["pause", "resume", "halt", "dry_run_on", "dry_run_off"]
    operator: _Identifier
    reason: Annotated[str, Meta(min_length=1, max_length=200)]
    ts_us: _Count
    market: _Identifier | None = None


Tick = PriceTick | StateTick | SettlementTick | RulebookTick | ClockTick

_WORD = string.ascii_letters + string.digits + "._-"
_WORD_BYTES = _WORD.encode()
_FEED_BYTES = _WORD_BYTES + b"/"

_read_trade = msgspec.json.Decoder(Trade).decode
_read_collateral_move = msgspec.json.Decoder(CollateralMove).decode
_read_control = msgspec.json.Decoder(ControlCommand).decode
_read_tick: Any = msgspec.json.Decoder(Tick).decode


def _punctuation(fields: int, texts: int) -> int:
    """Return the characters of a compact object that belong to no name, text or number."""
    return 2 + 3 * fields + (fields - 1) + 2 * texts  # {} ; "": each ; commas ; "" each


_TRADE_SIZE = _punctuation(10, 8)
_MOVE_SIZE = _punctuation(8, 6)
_PRICE_SIZE = _punctuation(6, 4)
_STATE_SIZE = _punctuation(6, 4)
_SETTLEMENT_SIZE = _punctuation(6, 4)
_CLOCK_SIZE = _punctuation(3, 1)
_NUMBER_SIZE = 4  # ,"":
_TEXT_SIZE = 6  # ,"":""


def decode_trade(value: bytes | None) -> Trade:
    """Return the trade in a record of ``trades.v1``.

    Raises
    ------
    ContractError
        With code `RejectCode.MALFORMED`, `UNSUPPORTED_VERSION` or `OUT_OF_CONTRACT`.
    """
    try:
        trade = _read_trade(value or b"")
    except FAULTS as fault:
        raise refusal(TRADES, value, fault) from None
    size = _TRADE_SIZE
    if trade.seq is not None:
        size += _NUMBER_SIZE
    if trade.claim_token is not None:
        size += _NUMBER_SIZE
    if trade.liquidation_id is not None:
        size += _TEXT_SIZE + 2  # its two colons, which the pattern proves are all it has
        _check_liquidation_id(trade.liquidation_id)
    if len(value.translate(None, _WORD_BYTES)) != size:  # type: ignore[union-attr]
        check_closely(TRADES, value, ("trade_id", "account_id", "subaccount", "market"))
    return trade


def decode_collateral_move(value: bytes | None) -> CollateralMove:
    """Return the move in a record of ``collateral.v1``.

    Raises
    ------
    ContractError
        With code `RejectCode.MALFORMED`, `UNSUPPORTED_VERSION` or `OUT_OF_CONTRACT`.
    """
    try:
        move = _read_collateral_move(value or b"")
    except FAULTS as fault:
        raise refusal(COLLATERAL, value, fault) from None
    size = _MOVE_SIZE
    if move.seq is not None:
        size += _NUMBER_SIZE
    if move.transfer_id is not None:
        size += _TEXT_SIZE
    if len(value.translate(None, _WORD_BYTES)) != size:  # type: ignore[union-attr]
        names = ("move_id", "account_id", "subaccount", "asset", "transfer_id")
        check_closely(COLLATERAL, value, names)
    return move


def decode_tick(value: bytes | None) -> Tick:
    """Return the price, state, settlement, rulebook or clock in a record of ``oracle-ticks.v1``.

    A rulebook is not looked into: that is for those who judge by it.

    Raises
    ------
    ContractError
        With code `RejectCode.MALFORMED`, `UNSUPPORTED_VERSION` or `OUT_OF_CONTRACT`.
    """
    try:
        tick: Tick = _read_tick(value or b"")
    except FAULTS as fault:
        raise refusal(ORACLE_TICKS, value, fault) from None
    size = _CLOCK_SIZE
    if type(tick) is PriceTick:
        size = _PRICE_SIZE if tick.confidence is None else _PRICE_SIZE + _TEXT_SIZE
    elif type(tick) is StateTick:
        size = _STATE_SIZE
    elif type(tick) is SettlementTick:
        size = _SETTLEMENT_SIZE
        if "/" in tick.market:
            raise out_of_contract(
                ORACLE_TICKS, "market", tick.market, "must match [A-Za-z0-9._-]{1,64}"
            )
    elif type(tick) is RulebookTick:
        if not bytes(tick.rulebook).lstrip().startswith(b"{"):
            other = msgspec.ValidationError("Expected `object` - at `$.rulebook`")
            raise refusal(ORACLE_TICKS, value, other)
        size = -1  # never compact: most of it is no identifier
    if len(value.translate(None, _FEED_BYTES)) != size:  # type: ignore[union-attr]
        try:
            check_closely(ORACLE_TICKS, value, ("source", "feed", "market"))
        except RecursionError as deep:  # a rulebook at the decoder's own depth
            raise refusal(ORACLE_TICKS, value, deep) from None
    return tick


def decode_control(value: bytes | None) -> ControlCommand:
    """Return the command in a record of ``control.v1``.

    Raises
    ------
    ContractError
        With code `RejectCode.MALFORMED`, `UNSUPPORTED_VERSION` or `OUT_OF_CONTRACT`.
    """
    try:
        command = _read_control(value or b"")
    except FAULTS as fault:
        raise refusal(CONTROL, value, fault) from None
    check_closely(CONTROL, value, ("command_id", "operator", "market"))
    return command


def best_effort_account_id(value: bytes | None, key: bytes | None) -> str | None:
    """Return the account a refused record was about, if that is clear.

    The key is the account by contract, and it chose the partition: without a valid key the account
    may live elsewhere, so the answer is None. It is also None if the value can be read and names
    another account, since then nobody can tell whose state is in doubt.
    """
    account_id = _text_of(key)
    if account_id is None or not is_identifier(account_id):
        return None
    if value is not None and is_deep(value):
        return account_id
    try:
        content = msgspec.json.decode(value or b"")
    except FAULTS:
        return account_id
    named = content.get("account_id") if isinstance(content, dict) else None
    return None if isinstance(named, str) and named != account_id else account_id


def encode_trade(
    *,
    trade_id: str,
    account_id: str,
    subaccount: str,
    market: str,
    side: str,
    size: str,
    price: str,
    fee: str,
    ts_us: int,
    seq: int | None = None,
    liquidation_id: str | None = None,
    claim_token: int | None = None,
) -> bytes:
    """Return a value of ``trades.v1``; keys in the order of the parameters, ``ts_us`` last."""
    record: dict[str, str | int] = {
        "schema_version": SCHEMA_VERSION,
        "trade_id": trade_id,
        "account_id": account_id,
        "subaccount": subaccount,
        "market": market,
        "side": side,
        "size": size,
        "price": price,
        "fee": fee,
    }
    if seq is not None:
        record["seq"] = seq
    if liquidation_id is not None:
        record["liquidation_id"] = liquidation_id
    if claim_token is not None:
        record["claim_token"] = claim_token
    record["ts_us"] = ts_us
    return orjson.dumps(record)


def encode_collateral_move(
    *,
    move_id: str,
    account_id: str,
    subaccount: str,
    asset: str,
    kind: str,
    amount: str,
    ts_us: int,
    seq: int | None = None,
    transfer_id: str | None = None,
) -> bytes:
    """Return a value of ``collateral.v1``; keys in the order of the parameters, ``ts_us`` last."""
    record: dict[str, str | int] = {
        "schema_version": SCHEMA_VERSION,
        "move_id": move_id,
        "account_id": account_id,
        "subaccount": subaccount,
        "asset": asset,
        "kind": kind,
        "amount": amount,
    }
    if seq is not None:
        record["seq"] = seq
    if transfer_id is not None:
        record["transfer_id"] = transfer_id
    record["ts_us"] = ts_us
    return orjson.dumps(record)


def encode_tick(
    *, source: str, feed: str, price: str, ts_us: int, confidence: str | None = None
) -> bytes:
    """Return a price for ``oracle-ticks.v1``; keys in the order of the parameters, ts_us last."""
    record: dict[str, str | int] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "price",
        "source": source,
        "feed": feed,
        "price": price,
    }
    if confidence is not None:
        record["confidence"] = confidence
    record["ts_us"] = ts_us
    return orjson.dumps(record)


def encode_state(*, source: str, feed: str, value: str, ts_us: int) -> bytes:
    """Return a state for ``oracle-ticks.v1``; keys in the order of the parameters."""
    return orjson.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "state",
            "source": source,
            "feed": feed,
            "value": value,
            "ts_us": ts_us,
        }
    )


def encode_settlement(*, source: str, market: str, price: str, ts_us: int) -> bytes:
    """Return a settlement for ``oracle-ticks.v1``; keys in the order of the parameters."""
    return orjson.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "settlement",
            "source": source,
            "market": market,
            "price": price,
            "ts_us": ts_us,
        }
    )


def encode_rulebook(*, source: str, rulebook: bytes, ts_us: int) -> bytes:
    """Return the publication of a resolved rulebook, told as JSON, for ``oracle-ticks.v1``."""
    return orjson.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "rulebook",
            "source": source,
            "rulebook": orjson.Fragment(rulebook),
            "ts_us": ts_us,
        }
    )


def encode_control(
    *,
    command_id: str,
    action: str,
    operator: str,
    reason: str,
    ts_us: int,
    market: str | None = None,
) -> bytes:
    """Return a command for ``control.v1``; without a market it is about all."""
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "command_id": command_id,
        "action": action,
    }
    if market is not None:
        content["market"] = market
    return orjson.dumps(content | {"operator": operator, "reason": reason, "ts_us": ts_us})


def encode_clock(ts_us: int) -> bytes:
    """Return a clock record for ``oracle-ticks.v1``."""
    return orjson.dumps({"schema_version": SCHEMA_VERSION, "kind": "clock", "ts_us": ts_us})


def _text_of(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None


def _check_liquidation_id(text: str) -> None:
    if not is_liquidation_id(text):
        raise out_of_contract(TRADES, "liquidation_id", text, "account_id:subaccount:episode")
