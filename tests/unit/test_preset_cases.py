"""Worked cases of venue rulebooks: published numbers where a licence allows, else by hand.

Each case of ``tests/data/preset_cases.json`` says where its numbers are from.
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from solvent.engine.snapshot import evaluate_snapshot
from solvent.rules import CompiledRulebook, builtin_rulebook, load_rulebook

DATA = Path(__file__).parents[1] / "data"
CASES = json.loads((DATA / "preset_cases.json").read_text())


def rulebook_of(name: str) -> CompiledRulebook:
    own = DATA / f"{name.removeprefix('cases/')}.yaml"
    return load_rulebook(own) if own.exists() else builtin_rulebook(name)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{number} {case['rulebook']}") for number, case in enumerate(CASES)],
)
def test_case(case: dict[str, Any]) -> None:
    snapshot = {key: case[key] for key in ("ts_us", "marks", "accounts") if key in case}
    told = evaluate_snapshot(rulebook_of(case["rulebook"]), snapshot)
    for account in told["accounts"]:
        expected = case["expected"][account["account_id"]]
        allowed = Decimal(expected.get("tolerance", "0.000002"))
        for level in ("initial", "maintenance"):
            for what, wanted in expected.get(level, {}).items():
                found = Decimal(account[what][level])
                assert abs(found - Decimal(wanted)) <= allowed, (account["account_id"], level, what)
        assert account["verdict"] == expected.get("verdict", account["verdict"])
