"""Published cases of a public engine's option and portfolio margin, through a snapshot."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from solvent.engine.snapshot import evaluate_snapshot
from solvent.rules import parse_rulebook
from support.vectors import VECTORS, case_of, number, vectors


@pytest.mark.skipif(not VECTORS.exists(), reason="the vectors do not travel with the project")
def test_all_vectors_are_there() -> None:
    assert len(list(vectors())) == 99


@pytest.mark.parametrize(
    ("vector", "params"), [pytest.param(*case, id=case[0]["id"]) for case in vectors()]
)
def test_published_case(vector: dict[str, Any], params: dict[str, Any]) -> None:
    text, snapshot = case_of(vector, params)
    rulebook = parse_rulebook(text)
    (account,) = evaluate_snapshot(rulebook, snapshot)["accounts"]
    unrounded = account["unrounded"]
    found = {
        "im": number(unrounded["equity"]["initial"]) - number(unrounded["requirement"]["initial"]),
        "mm": number(unrounded["equity"]["maintenance"])
        - number(unrounded["requirement"]["maintenance"]),
        "mtm": number(unrounded["raw_equity"]),
    }
    for key, value in found.items():
        if key in vector["expected"]:
            expected = number(vector["expected"][key])
            tolerance = number(vector["tol_rel"]) * max(Fraction(1), abs(expected))
            assert abs(value - expected) <= tolerance, (key, float(value), float(expected))
        elif f"{key}_trunc" in vector["expected"]:
            # the file's integer parts come of exact arithmetic, ours is off by a float's error
            assert int(value + Fraction(1 if value > 0 else -1, 10**6)) == number(
                vector["expected"][f"{key}_trunc"]
            )
