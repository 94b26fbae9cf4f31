"""Cases of `solvent evaluate`: worked ones by rulebook, and the published examples."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from solvent.rules import CompiledRulebook, builtin_rulebook, load_rulebook
from support.contracts import SCHEMAS

DATA = Path(__file__).resolve().parents[1] / "data"
EVALUATE = SCHEMAS / "evaluate"
CASES: list[dict[str, Any]] = json.loads((DATA / "preset_cases.json").read_text())


@cache
def rulebook_of(name: str) -> CompiledRulebook:
    """Return the rulebook a case or example names: of the tests' own, or built in."""
    own = DATA / f"{name.removeprefix('cases/')}.yaml"
    return load_rulebook(own) if own.exists() else builtin_rulebook(name)


def snapshot_of(case: dict[str, Any]) -> dict[str, Any]:
    """Return a worked case's snapshot."""
    return {key: case[key] for key in ("ts_us", "marks", "accounts") if key in case}


def evaluate_schema(name: str) -> dict[str, Any]:
    """Return the schema of the ``snapshot`` or the ``result``."""
    content: dict[str, Any] = json.loads((EVALUATE / f"{name}.v1.schema.json").read_text())
    return content


def evaluate_validator(name: str) -> jsonschema_rs.Draft202012Validator:
    """Return a validator of the ``snapshot`` or the ``result``."""
    return jsonschema_rs.Draft202012Validator(evaluate_schema(name))


def evaluate_examples(name: str, kind: str) -> list[Path]:
    """Return the ``valid`` or ``invalid`` examples; a valid one is named after its rulebook."""
    return sorted((EVALUATE / "examples" / name / kind).glob("*.json"))
