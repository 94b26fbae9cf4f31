"""Schemas, examples and codecs say the same (DESIGN D10)."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from solvent.errors import ContractError
from solvent.wire import inputs, outputs, reports, statements
from solvent.wire.topics import TOPICS
from support.contracts import (
    DECODE_INPUT,
    DECODE_OUTPUT,
    SCHEMAS,
    compact,
    example_files,
    label,
    program_accepts,
    schema,
    unknown_keywords,
    validator,
)

INPUTS = sorted(DECODE_INPUT)
OUTPUTS = sorted({topic for topic, _ in DECODE_OUTPUT})
ENCODE = {
    inputs.Trade: inputs.encode_trade,
    inputs.CollateralMove: inputs.encode_collateral_move,
    inputs.PriceTick: inputs.encode_tick,
    inputs.StateTick: inputs.encode_state,
    inputs.SettlementTick: inputs.encode_settlement,
    inputs.RulebookTick: inputs.encode_rulebook,
    inputs.ClockTick: inputs.encode_clock,
    inputs.ControlCommand: inputs.encode_control,
}
STATEMENTS = (statements.AccountSettings, statements.OpenOrders, statements.AccountSnapshot)


def test_schemas_one_folder_a_topic_nothing_missing_or_left_over() -> None:
    folders = {path.parent.name for path in SCHEMAS.glob("*/v1.schema.json")}
    assert {f"{folder}.v1" for folder in folders} == {topic.name for topic in TOPICS}
    # no topics: test_evaluate_schemas, test_executor_bridge, test_explain, test_compatibility
    other = {"evaluate", "executor-bridge", "explain", "released"}
    assert {path.name for path in SCHEMAS.iterdir() if path.is_dir()} == folders | other


@pytest.mark.parametrize("topic", INPUTS + OUTPUTS)
def test_schema_itself_is_valid_and_names_its_topic(topic: str) -> None:
    content = schema(topic)
    assert jsonschema_rs.meta.is_valid(content)
    assert content["$id"] == f"urn:solvent:{topic}.v1"
    assert content["title"].startswith(f"{topic}.v1: ")


@pytest.mark.parametrize("topic", INPUTS + OUTPUTS)
def test_schema_says_nothing_that_a_validator_would_pass_over(topic: str) -> None:
    assert unknown_keywords(schema(topic)) == []


@pytest.mark.parametrize("topic", INPUTS + OUTPUTS)
def test_examples_of_topic_are_enough(topic: str) -> None:
    assert len(example_files("valid", [topic])) >= 2
    assert len(example_files("invalid", [topic])) >= 5


@pytest.mark.parametrize("case", example_files("valid"), ids=label)
def test_valid_example_satisfies_schema(case: tuple[str, Path]) -> None:
    topic, path = case
    validator(topic).validate(json.loads(path.read_text()))


@pytest.mark.parametrize("case", example_files("invalid"), ids=label)
def test_invalid_example_breaks_schema(case: tuple[str, Path]) -> None:
    topic, path = case
    assert not validator(topic).is_valid(json.loads(path.read_text()))


def fields_of(record: msgspec.Struct) -> dict[str, object]:
    """Return a record's fields; a rulebook, which is kept as written, as what it says."""
    fields = msgspec.structs.asdict(record)
    if isinstance(record, inputs.RulebookTick):
        fields["rulebook"] = json.loads(bytes(record.rulebook))
    return fields


@pytest.mark.parametrize("case", example_files("valid", INPUTS), ids=label)
def test_valid_input_decodes_and_encodes_to_the_same(case: tuple[str, Path]) -> None:
    topic, path = case
    content = json.loads(path.read_text())
    as_written = DECODE_INPUT[topic](path.read_bytes())
    as_sent = DECODE_INPUT[topic](compact(content))
    assert fields_of(as_written) == fields_of(as_sent)
    assert program_accepts(topic, compact(content))

    fields = msgspec.structs.asdict(as_sent)
    assert fields.pop("schema_version") == inputs.SCHEMA_VERSION
    if isinstance(as_sent, inputs.RulebookTick):
        fields["rulebook"] = bytes(as_sent.rulebook)
    if isinstance(as_sent, STATEMENTS):
        again = statements.encode_statement(as_sent)
    elif isinstance(as_sent, reports.Report):
        again = reports.encode_report(as_sent)
    else:
        again = ENCODE[type(as_sent)](**fields)
    assert json.loads(again) == content
    assert fields_of(DECODE_INPUT[topic](again)) == fields_of(as_sent)


@pytest.mark.parametrize("case", example_files("invalid", INPUTS), ids=label)
def test_invalid_input_is_refused_by_program(case: tuple[str, Path]) -> None:
    topic, path = case
    assert not program_accepts(topic, path.read_bytes())
    assert not program_accepts(topic, compact(json.loads(path.read_text())))


@pytest.mark.parametrize("case", example_files("valid", OUTPUTS), ids=label)
def test_valid_output_decodes_and_encodes_to_a_valid_one(case: tuple[str, Path]) -> None:
    topic, path = case
    decode = next(
        decode
        for (of, row), decode in DECODE_OUTPUT.items()
        if of == topic and path.stem.startswith(row)
    )
    record = decode(path.read_bytes())
    again = outputs.encode(msgspec.to_builtins(record))
    validator(topic).validate(json.loads(again))
    assert decode(again) == record


@pytest.mark.parametrize("topic", OUTPUTS)
def test_output_of_another_version_is_refused_by_its_reader(topic: str) -> None:
    for (of, _), decode in DECODE_OUTPUT.items():
        if of == topic:
            with pytest.raises(ContractError, match=r"SLV-102 .*`schema_version` = 2: only 1"):
                decode(b'{"schema_version":2,"seq":"other"}')
            with pytest.raises(ContractError, match="SLV-101"):
                decode(b'{"schema_version":1}')
            with pytest.raises(ContractError, match="SLV-101"):
                decode(b"")


def _closed_objects(node: object) -> list[bool]:
    if isinstance(node, list):
        return [flag for item in node for flag in _closed_objects(item)]
    if not isinstance(node, dict):
        return []
    own = [node["additionalProperties"] is False] if "required" in node and "type" in node else []
    return own + [flag for item in node.values() for flag in _closed_objects(item)]


@pytest.mark.parametrize("topic", [topic for topic in INPUTS if topic != "oracle-ticks"])
def test_input_schema_takes_no_additions(topic: str) -> None:
    assert all(_closed_objects(schema(topic)))


@pytest.mark.parametrize("topic", OUTPUTS)
def test_output_schema_takes_additions_at_every_level(topic: str) -> None:
    assert not any(_closed_objects(schema(topic)))
