"""Snapshot and result of `solvent evaluate`: schemas, examples and program say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from solvent import Rulebook, Snapshot, evaluate
from solvent.errors import ContractError
from solvent.rules import builtin_names
from support.contracts import unknown_keywords
from support.evaluation import (
    CASES,
    EVALUATE,
    evaluate_examples,
    evaluate_schema,
    evaluate_validator,
    rulebook_of,
    snapshot_of,
)

#: Built-in rulebooks without a worked case: of the tour and the demo, whose sample stands in.
OF_THE_TOUR = {name for name in builtin_names() if name.startswith("demo")} | {"example"}
SAMPLE = EVALUATE.parents[1] / "examples" / "snapshot.json"

worked = pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{number} {case['rulebook']}") for number, case in enumerate(CASES)],
)


def stem(path: Path) -> str:
    return path.stem


def judge(rulebook: str, snapshot: Snapshot) -> dict[str, Any]:
    return evaluate(Rulebook(rulebook_of(rulebook)), snapshot, plan=True).to_dict()


def without_hash(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "rulebook": {**result["rulebook"], "hash": None}}


@pytest.mark.parametrize("name", ["snapshot", "result"])
def test_schema_is_valid_named_and_has_examples(name: str) -> None:
    content = evaluate_schema(name)
    assert jsonschema_rs.meta.is_valid(content)
    assert unknown_keywords(content) == []
    assert content["$id"] == f"urn:solvent:evaluate.{name}.v1"
    assert len(evaluate_examples(name, "valid")) >= 2
    assert len(evaluate_examples(name, "invalid")) >= 5


@pytest.mark.parametrize("name", ["snapshot", "result"])
def test_examples_satisfy_schema_or_break_it_as_their_folder_says(name: str) -> None:
    validate = evaluate_validator(name)
    for path in evaluate_examples(name, "valid"):
        validate.validate(json.loads(path.read_text()))
    bad = [path.stem for path in evaluate_examples(name, "invalid")]
    assert bad == [
        path.stem
        for path in evaluate_examples(name, "invalid")
        if not validate.is_valid(json.loads(path.read_text()))
    ]


@pytest.mark.parametrize("path", evaluate_examples("snapshot", "valid"), ids=stem)
def test_valid_snapshot_is_judged_and_gives_the_result_of_the_same_name(path: Path) -> None:
    found = judge(path.stem.split(".")[0], Snapshot.from_json(path))
    expected = json.loads((EVALUATE / "examples/result/valid" / path.name).read_text())
    assert without_hash(found) == without_hash(expected)


@pytest.mark.parametrize("path", evaluate_examples("snapshot", "invalid"), ids=stem)
def test_invalid_snapshot_is_refused_by_program(path: Path) -> None:
    with pytest.raises(ContractError):
        judge("example", Snapshot.from_json(path))


def test_every_builtin_rulebook_has_a_result_to_validate() -> None:
    assert {case["rulebook"] for case in CASES} | OF_THE_TOUR >= set(builtin_names())


@worked
def test_worked_case_and_its_result_satisfy_schemas(case: dict[str, Any]) -> None:
    evaluate_validator("snapshot").validate(snapshot_of(case))
    result = judge(case["rulebook"], Snapshot.from_json(snapshot_of(case)))
    evaluate_validator("result").validate(result)


@pytest.mark.parametrize("name", sorted(OF_THE_TOUR))
def test_result_of_sample_satisfies_schema(name: str) -> None:
    evaluate_validator("snapshot").validate(json.loads(SAMPLE.read_text()))
    evaluate_validator("result").validate(judge(name, Snapshot.from_json(SAMPLE)))
