"""Worked cases of venue rulebooks: published numbers where a licence allows, else by hand.

Each case of ``tests/data/preset_cases.json`` says where its numbers are from.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from solvent.engine.snapshot import evaluate_snapshot
from support.evaluation import CASES, rulebook_of, snapshot_of


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{number} {case['rulebook']}") for number, case in enumerate(CASES)],
)
def test_case(case: dict[str, Any]) -> None:
    told = evaluate_snapshot(rulebook_of(case["rulebook"]), snapshot_of(case))
    for account in told["accounts"]:
        expected = case["expected"][account["account_id"]]
        allowed = Decimal(expected.get("tolerance", "0.000002"))
        for level in ("initial", "maintenance"):
            for what, wanted in expected.get(level, {}).items():
                found = Decimal(account[what][level])
                assert abs(found - Decimal(wanted)) <= allowed, (account["account_id"], level, what)
        assert account["verdict"] == expected.get("verdict", account["verdict"])
