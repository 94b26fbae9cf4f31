"""Schemas, examples and codecs side by side, for tests that hold them against each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec

from solvent.errors import ContractError
from solvent.units import parse_scaled
from solvent.wire import inputs, outputs, reports, statements

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"

#: Finer than any decimal of 40 characters: `parse_scaled` then judges the grammar alone.
_FINEST = -40

_KEYWORDS_OF_SCHEMAS = {
    "additionalProperties",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
}
_KEYWORDS = {
    *("$id", "$ref", "$schema", "const", "contentEncoding", "description", "enum", "maxItems"),
    *("maxLength", "maximum", "minItems", "minLength", "minProperties", "minimum", "pattern"),
    *("required", "title", "type", "uniqueItems"),
}

DECODE_INPUT: dict[str, Callable[[bytes | None], msgspec.Struct]] = {
    "trades": inputs.decode_trade,
    "collateral": inputs.decode_collateral_move,
    "account-settings": statements.decode_settings,
    "open-orders": statements.decode_open_orders,
    "account-snapshots": statements.decode_snapshot,
    "liquidation-reports": reports.decode_report,
    "oracle-ticks": inputs.decode_tick,
    "control": inputs.decode_control,
}

#: Decoder of an output example; rows of a table are told apart by the example's name.
DECODE_OUTPUT: dict[tuple[str, str], Callable[[bytes], msgspec.Struct]] = {
    ("marks", ""): outputs.decode_mark_frame,
    ("accounts", "fence"): outputs.decode_fence,
    ("accounts", "claim"): outputs.decode_claim,
    ("accounts", "marks"): outputs.decode_marks_row,
    ("accounts", "rulebook"): outputs.decode_rulebook_row,
    ("price-state", "fence"): outputs.decode_fence,
    ("price-state", "claim"): outputs.decode_claim,
    ("price-state", "feed"): outputs.decode_price_row,
    ("price-state", "settlements"): outputs.decode_settlements_row,
    ("price-state", "rulebook"): outputs.decode_rulebook_row,
    ("price-state", "control"): outputs.decode_control_row,
    ("price-state", "fund"): outputs.decode_fund_row,
    ("accounts", "case"): outputs.decode_case_row,
    ("accounts", "budget"): outputs.decode_budget_row,
    ("losses", ""): outputs.decode_loss,
    ("liquidations", ""): outputs.decode_liquidation,
    ("liquidation-state", ""): outputs.decode_liquidation_state,
    ("margin-status", ""): outputs.decode_margin_status,
    ("rejects", ""): outputs.decode_reject,
    ("journal", ""): outputs.decode_journal_entry,
    ("price-journal", ""): outputs.decode_journal_entry,
}


def schema(topic: str) -> dict[str, Any]:
    """Return the schema of a topic, named without version (``trades``)."""
    content: dict[str, Any] = json.loads((SCHEMAS / topic / "v1.schema.json").read_text())
    return content


def validator(topic: str) -> jsonschema_rs.Draft202012Validator:
    """Return a validator of a topic's schema; use ``validator(topic).validate(record)``."""
    return jsonschema_rs.Draft202012Validator(schema(topic))


def unknown_keywords(node: Any, path: str = "") -> list[str]:
    """Return where a schema has keys that no validator reads: misspelt, or at the wrong depth."""
    found = []
    for key, value in node.items() if isinstance(node, dict) else ():
        at = f"{path}/{key}"
        if key in {"properties", "$defs"}:
            for name, child in value.items():
                found += unknown_keywords(child, f"{at}/{name}")
        elif key in {"allOf", "anyOf", "oneOf", "prefixItems"}:
            for child in value:
                found += unknown_keywords(child, at)
        elif key in _KEYWORDS_OF_SCHEMAS:
            found += unknown_keywords(value, at)
        elif key not in _KEYWORDS:
            found.append(at)
    return found


def example_files(kind: str, topics: list[str] | None = None) -> list[tuple[str, Path]]:
    """Return (topic, file) of all ``valid`` or ``invalid`` examples, in a stable order."""
    found = sorted(SCHEMAS.glob(f"*/examples/{kind}/*.json"))
    named = [(path.parents[2].name, path) for path in found]
    return [(topic, path) for topic, path in named if topics is None or topic in topics]


def label(case: tuple[str, Path]) -> str:
    """Return ``topic/example`` for a test id."""
    return f"{case[0]}/{case[1].stem}"


def compact(record: Any) -> bytes:
    """Return the record as most producers write it: UTF-8, no blanks."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def program_accepts(topic: str, value: bytes | None) -> bool:
    """Return whether codec and engine together take a value, before any rulebook is asked.

    The codec leaves decimal text to the engine, whose rules are: `parse_scaled` takes it; sizes,
    prices and amounts above zero, an adjustment non-zero, a confidence zero or more, a value any;
    orders zero or more, a position non-zero, a leverage limit one or more.
    """
    try:
        record: Any = DECODE_INPUT[topic](value)
        if topic == "liquidation-reports":
            return True
        if topic == "account-settings":
            return _is_leverage(record.leverage)
        if topic == "open-orders":
            return _is_orders(record)
        if topic == "account-snapshots":
            for amount in record.collateral.values():
                _amount(amount)
            for position in record.positions:
                _amount(position.cost_basis)
                _amount(position.funding_index or "0")
            return (
                _is_leverage(record.leverage)
                and all(_amount(position.size) != 0 for position in record.positions)
                and all(_is_orders(orders) for orders in record.orders or ())
            )
        if topic == "trades":
            parse_scaled(record.fee, _FINEST)
            return _amount(record.size) > 0 and _amount(record.price) > 0
        if topic == "collateral":
            amount = _amount(record.amount)
            return amount > 0 or (record.kind == "adjustment" and amount != 0)
        if isinstance(record, inputs.ClockTick | inputs.RulebookTick | inputs.ControlCommand):
            return True
        if isinstance(record, inputs.StateTick):
            _amount(record.value)
            return True
        if isinstance(record, inputs.SettlementTick):
            return _amount(record.price) > 0
        confidence = 0 if record.confidence is None else _amount(record.confidence)
        return _amount(record.price) > 0 and confidence >= 0
    except (ContractError, ValueError):
        return False


def _is_leverage(limits: dict[str, str] | None) -> bool:
    return all(_amount(limit) >= 10**-_FINEST for limit in (limits or {}).values())


def _is_orders(orders: Any) -> bool:
    sides = (orders.bid_size, orders.bid_value, orders.ask_size, orders.ask_value)
    return all(_amount(side) >= 0 for side in sides)


def _amount(text: str) -> int:
    return parse_scaled(text, _FINEST)
