"""What must hold of any explanation, reckoned from its own text."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson

__all__ = ["EXPLAIN", "LEVELS", "assert_explained", "explain_validator"]

EXPLAIN = Path(__file__).resolve().parents[2] / "schemas" / "explain"
LEVELS = ("initial", "liquidation_end", "maintenance")


@cache
def explain_validator() -> jsonschema_rs.Draft202012Validator:
    """Return the validator of an explanation."""
    return jsonschema_rs.Draft202012Validator(
        orjson.loads((EXPLAIN / "explanation.v1.schema.json").read_bytes())
    )


def assert_explained(told: dict[str, Any], event: dict[str, Any]) -> None:
    """Hold an explanation against the published event and its own parts."""
    explain_validator().validate(told)
    assert told["recomputed"]["equal"] is True
    assert told["published"] == event
    about = told["liquidation"]
    for name in ("liquidation_id", "revision", "event", "reason", "verdict", "rulebook"):
        assert about[name] == event[name]
    for name, rounded in (("equity", math.floor), ("requirement", math.ceil)):
        assert_adds_up(told["verdict"][name], rounded, event[name])
    raw = told["verdict"]["raw_equity"]
    assert micros(math.floor(float(raw["unrounded"]) * 1e6)) == Decimal(event["raw_equity"])
    assert [p["market"] for p in told["verdict"]["positions"] if "size" in p] == [
        p["market"] for p in event["positions"]
    ]
    held = [(c["asset"], c["amount"]) for c in told["verdict"]["collateral"]]
    assert held == [(c["asset"], c["amount"]) for c in event["collateral"]]
    assert_sized(told["sizing"], event)


def assert_adds_up(total: dict[str, Any], rounded: Any, published: dict[str, str]) -> None:
    assert total["published"] == published
    for level in LEVELS:
        found = 0.0
        for part in total["parts"]:
            if part["is_added"]:
                found += float(part[level])
        assert found == float(total["sum"][level])
        if level in total["adjusted"]:
            found = float(total["adjusted"][level]["amount"])
        assert micros(rounded(found * 1e6)) == Decimal(published[level])


def assert_sized(sizing: dict[str, Any] | None, event: dict[str, Any]) -> None:
    if sizing is None:
        assert event["legs"] == []
        assert event.get("swaps", []) == []
        return
    assert sizing["shortage"] == event["shortfall"]
    if event.get("withheld"):
        left = [{name: each[name] for name in event["withheld"][0]} for each in sizing["withheld"]]
        assert left == event["withheld"]
        for each in sizing["legs"]:
            parts = [p for p in (*event["legs"], *left) if p["market"] == each["market"]]
            assert Decimal(each["size"]) == sum(Decimal(part["size"]) for part in parts)
        return
    for kind in ("legs", "swaps"):
        for each, offered in zip(sizing[kind], event.get(kind, []), strict=True):
            assert {name: each[name] for name in offered} == offered
            assert each.get("is_same", True)
    assert sizing["share_ppm"] == event.get("share_ppm")


def micros(amount: int) -> Decimal:
    return Decimal(amount) / 1_000_000
