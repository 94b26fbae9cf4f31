"""The gate of ``make check`` finds each change that breaks a topic, and lets others pass."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from compatibility.baseline import RELEASED, ROOT, findings, release, released_version
from compatibility.rules import compare
from solvent.wire.topics import TOPICS, Role
from support.contracts import DECODE_INPUT, DECODE_OUTPUT, compact, program_accepts, schema

Change = Callable[[dict[str, Any]], object]

INPUTS = {topic.name for topic in TOPICS if topic.role is Role.INPUT}
IDENTIFIER = "^[A-Za-z0-9._-]{1,64}$"


def put(path: str, value: Any) -> Change:
    """Set what a JSON pointer names."""
    *names, last = path.split("/")

    def change(node: Any) -> None:
        for name in names:
            node = node[int(name) if isinstance(node, list) else name]
        node[int(last) if isinstance(node, list) else last] = value

    return change


def take(path: str) -> Change:
    """Remove what a JSON pointer names."""
    *names, last = path.split("/")

    def change(node: Any) -> None:
        for name in names:
            node = node[int(name) if isinstance(node, list) else name]
        del node[int(last) if isinstance(node, list) else last]

    return change


def drop(path: str, word: str) -> Change:
    """Remove a word from the list that a JSON pointer names."""

    def change(node: Any) -> None:
        for name in path.split("/"):
            node = node[int(name) if isinstance(node, list) else name]
        node.remove(word)

    return change


def add(path: str, *words: Any) -> Change:
    """Add to the list that a JSON pointer names."""

    def change(node: Any) -> None:
        for name in path.split("/"):
            node = node[int(name) if isinstance(node, list) else name]
        node += words

    return change


def both(*changes: Change) -> Change:
    return lambda node: [change(node) for change in changes]


def changed(topic: str, change: Change) -> list[Any]:
    released, present = schema(topic), schema(topic)
    change(present)
    assert present != released
    name = f"{topic}.v1"
    return compare(name, is_input=name in INPUTS, released=released, present=present)


TEXT = {"type": "string"}
A_KIND = {"properties": {"kind": {"const": "fee"}}}

BREAKING: dict[str, tuple[str, Change, str, str, str]] = {
    # Inputs: a record that was valid would be refused.
    "new required field": (
        *("trades", both(put("properties/venue", TEXT), add("required", "venue"))),
        *("#/required", "nothing", '["venue"]'),
    ),
    "optional field required": (
        *("trades", add("required", "seq"), "#/required", "nothing", '["seq"]'),
    ),
    "field of a part required": (
        *("account-snapshots", add("$defs/position/required", "funding_index")),
        *("#/$defs/position/required", "nothing", '["funding_index"]'),
    ),
    "optional field removed": (
        *("trades", take("properties/seq"), "#/properties/seq"),
        *('{"$ref": "#/$defs/count", "description": "Gapless', "nothing"),
    ),
    "type narrowed": (
        *("oracle-ticks", put("$defs/rulebook/properties/rulebook/type", "string")),
        *("#/$defs/rulebook/properties/rulebook/type", '"object"', '"string"'),
    ),
    "number for text": (
        *("trades", put("$defs/decimal", {"type": "number"}), "#/$defs/decimal/type"),
        *('"string"', '"number"'),
    ),
    "pattern changed": (
        *("trades", put("$defs/identifier/pattern", "^[a-z]{1,64}$")),
        *("#/$defs/identifier/pattern", f'"{IDENTIFIER}"', '"^[a-z]{1,64}$"'),
    ),
    "pattern of names changed": (
        *("account-snapshots", put("$defs/collateral/propertyNames", {"pattern": "^[A-Z]+$"})),
        *("#/$defs/collateral/propertyNames/pattern", f'"{IDENTIFIER}"', '"^[A-Z]+$"'),
    ),
    "word of an input removed": (
        *("trades", drop("properties/side/enum", "sell")),
        *("#/properties/side/enum", '["sell"]', "nothing"),
    ),
    "text of an input closed": (
        *("trades", put("properties/market", {"enum": ["BTC-PERP"]})),
        *("#/properties/market/enum", "nothing", '["BTC-PERP"]'),
    ),
    "constant changed": (
        *("trades", put("properties/schema_version/const", 2)),
        *("#/properties/schema_version/const", "[1]", "nothing"),
    ),
    "minimum raised": (
        *("trades", put("$defs/count/minimum", 1), "#/$defs/count/minimum", "0", "1"),
    ),
    "minimum new": (
        *("trades", put("$defs/count/exclusiveMinimum", 0)),
        *("#/$defs/count/exclusiveMinimum", "nothing", "0"),
    ),
    "numbers for integers, and a minimum raised": (
        *("trades", both(put("$defs/count/type", "number"), put("$defs/count/minimum", 1))),
        *("#/$defs/count/minimum", "0", "1"),
    ),
    "maximum lowered": (
        *("trades", put("$defs/time_us/maximum", 4102444800000000)),
        *("#/$defs/time_us/maximum", "9007199254740992", "4102444800000000"),
    ),
    "length shortened": (
        *("trades", put("$defs/decimal/maxLength", 20), "#/$defs/decimal/maxLength", "40", "20"),
    ),
    "items bounded": (
        *("account-snapshots", put("properties/positions/maxItems", 100)),
        *("#/properties/positions/maxItems", "nothing", "100"),
    ),
    "items required": (
        *("account-snapshots", put("properties/positions/minItems", 1)),
        *("#/properties/positions/minItems", "0", "1"),
    ),
    "items narrowed": (
        *("account-snapshots", put("properties/positions/items", {"type": "string"})),
        *("#/properties/positions/items/type", '"object"', '"string"'),
    ),
    "open object closed": (
        *("oracle-ticks", put("$defs/rulebook/properties/rulebook/additionalProperties", False)),
        *("#/$defs/rulebook/properties/rulebook/additionalProperties", "true", "false"),
    ),
    "field in place of anything": (
        *("oracle-ticks", put("$defs/rulebook/properties/rulebook/properties", {"id": TEXT})),
        *("#/$defs/rulebook/properties/rulebook/properties/id/type", "nothing", '"string"'),
    ),
    "unknown keyword": (
        *("trades", put("$defs/identifier/format", "hostname")),
        *("#/$defs/identifier/format", "nothing", '"hostname"'),
    ),
    "kind of an input removed": (
        *("oracle-ticks", drop("properties/kind/enum", "settlement")),
        *("#/properties/kind/enum", '["settlement"]', "nothing"),
    ),
    "branch narrowed": (
        *("collateral", put("else/properties/amount", {"const": "1"})),
        *("#/else/properties/amount/const", "nothing", '["1"]'),
    ),
    "condition new": (
        *("trades", put("if", {"required": ["seq"]}), "#/if", "nothing", '{"required": ["seq"]}'),
    ),
    "nested branch narrowed": (
        *("oracle-ticks", add("$defs/settlement/required", "seq")),
        *("#/$defs/settlement/required", "nothing", '["seq"]'),
    ),
    # Outputs: readers would meet what they were told cannot be.
    "required mark removed": (
        *("liquidations", drop("required", "legs"), "#/required", '["legs"]', "nothing"),
    ),
    "required mark of a part removed": (
        *("margin-status", drop("$defs/levels/required", "initial")),
        *("#/$defs/levels/required", '["initial"]', "nothing"),
    ),
    "field of an output removed": (
        *("margin-status", both(take("properties/flags"), drop("required", "flags"))),
        *("#/properties/flags", '{"type": "array", ', "nothing"),
    ),
    "null added": (
        *("liquidations", put("properties/episode/type", ["integer", "null"])),
        *("#/properties/episode/type", '"integer"', '["integer", "null"]'),
    ),
    "null added as an alternative": (
        *(
            "liquidations",
            put(
                "$defs/leg/properties/mark_price",
                {"anyOf": [{"$ref": "#/$defs/positive"}, {"type": "null"}]},
            ),
        ),
        *("#/$defs/leg/properties/mark_price/anyOf/1/type", '"string"', '"null"'),
    ),
    "alternative added": (
        *("rejects", add("properties/account_id/anyOf", {"type": "integer"})),
        *("#/properties/account_id/anyOf/2", "nothing", '{"type": "integer"}'),
    ),
    "kind of row removed": (
        *("accounts", take("anyOf/1"), "#/anyOf/1", '{"$ref": "#/$defs/claim"}', "nothing"),
    ),
    "row changed": (
        *("accounts", drop("$defs/claim/required", "generation")),
        *("#/$defs/claim/required", '["generation"]', "nothing"),
    ),
    "pattern of an output changed": (
        *("journal", put("$defs/hash16/pattern", "^[0-9a-f]+$")),
        *("#/$defs/hash16/pattern", '"^[0-9a-f]{32}$"', '"^[0-9a-f]+$"'),
    ),
    "limit of an output lifted": (
        *("liquidations", take("$defs/leg/properties/fund_fee_ppm/maximum")),
        *("#/$defs/leg/properties/fund_fee_ppm/maximum", "1000000", "nothing"),
    ),
    "word of an output removed": (
        *("liquidations", drop("properties/event/enum", "revised")),
        *("#/properties/event/enum", '["revised"]', "nothing"),
    ),
    "word of an output renamed": (
        *("liquidations", put("properties/event/enum/1", "amended")),
        *("#/properties/event/enum", '["revised"]', '["amended"]'),
    ),
    "words no longer listed": (
        *("liquidations", put("properties/event", TEXT)),
        *("#/properties/event/enum", '["opened", "revised", ', "nothing"),
    ),
    "version of an output widened": (
        *("liquidations", put("properties/schema_version", {"enum": [1, 2]})),
        *("#/properties/schema_version/const", "nothing", "[2]"),
    ),
    "promise of a condition dropped": (
        *("liquidations", take("allOf/1"), "#/allOf/4/then/required", '["bad_debt"]', "nothing"),
    ),
    "condition of an output dropped": (
        *("liquidations", take("allOf/0"), "#/allOf/0/if", '{"properties": {"event": ', "nothing"),
    ),
    "element of a run added": (
        *("journal", add("properties/runs/items/prefixItems", TEXT)),
        *("#/properties/runs/items/prefixItems/3", "false", '{"type": "string"}'),
    ),
    "elements no longer unique": (
        *("margin-status", take("properties/flags/uniqueItems")),
        *("#/properties/flags/uniqueItems", "true", "nothing"),
    ),
}

ALLOWED: dict[str, tuple[str, Change]] = {
    "optional field of an input": ("trades", put("properties/venue", TEXT)),
    "required mark of an input removed": ("trades", drop("required", "fee")),
    "word of an input added": ("collateral", add("properties/kind/enum", "fee")),
    "constant of an input widened": ("trades", put("properties/schema_version", {"enum": [1, 2]})),
    "limit of an input lifted": ("trades", take("$defs/count/maximum")),
    "length of an input grown": ("trades", put("$defs/decimal/maxLength", 60)),
    "pattern of an input dropped": ("trades", take("$defs/identifier/pattern")),
    "pattern beside the old one": (
        "trades",
        put("$defs/identifier", {"type": "string", "anyOf": [
            {"pattern": IDENTIFIER}, {"pattern": "^urn:.+$"}]}),
    ),
    "type of an input widened": ("trades", put("$defs/count/type", ["integer", "string"])),
    "alternative of an input added": (
        "trades",
        put("properties/price", {"anyOf": [{"$ref": "#/$defs/positive"}, {"type": "null"}]}),
    ),
    "numbers for integers": ("trades", put("$defs/count/type", "number")),
    "input opened": ("trades", put("additionalProperties", True)),
    "definition renamed": (
        "account-settings",
        both(
            put("$defs/name", {"type": "string", "pattern": IDENTIFIER}),
            put("properties/account_class", {"$ref": "#/$defs/name"}),
        ),
    ),
    "definition written out": (
        "trades",
        put("properties/market", {"type": "string", "pattern": IDENTIFIER}),
    ),
    "prose": ("trades", put("properties/side/description", "Which way")),
    "prose of a condition": ("collateral", put("if/description", "Where it may be negative")),
    "optional field of an output": ("liquidations", put("properties/venue", TEXT)),
    "required field of an output": (
        "liquidations",
        both(put("properties/venue", TEXT), add("required", "venue")),
    ),
    "field of a part of an output": ("liquidations", put("$defs/leg/properties/venue", TEXT)),
    "null no longer written": (
        "liquidations",
        put("properties/expires_us", {"$ref": "#/$defs/time_us"}),
    ),
    "limit of an output lowered": ("margin-status", put("$defs/decimal/maxLength", 30)),
    "condition of an output added": (
        "liquidations",
        add("allOf", {"if": {"required": ["swaps"]}, "then": {"required": ["share_ppm"]}}),
    ),
}  # fmt: skip

NOTED: dict[str, tuple[str, Change, str]] = {
    "word of an output": (
        *("margin-status", add("$defs/status/enum", "paused")),
        '#/$defs/status/enum: was nothing, is ["paused"]',
    ),
    "kind of frame": (
        *("marks", put("properties/kind", {"enum": ["marks", "rates"]})),
        '#/properties/kind/const: was nothing, is ["rates"]',
    ),
    "kind of an input": (
        "oracle-ticks",
        both(
            add("properties/kind/enum", "fee"),
            lambda node: node.update(
                {"if": A_KIND, "then": TEXT, "else": {k: node[k] for k in ("if", "then", "else")}}
            ),
        ),
        '#/then: was nothing, is {"properties": {"kind": {"const": "fee"}}}',
    ),
    "condition of an input": (
        *("collateral", put("if", {"properties": {"kind": {"enum": ["adjustment", "fee"]}}})),
        '#: was {"properties": {"kind": {"const": "adjustment"}}}, is {"properties"',
    ),
}


@pytest.mark.parametrize("name", BREAKING)
def test_change_that_breaks_a_topic_is_found(name: str) -> None:
    topic, change, pointer, was, now = BREAKING[name]
    (found,) = changed(topic, change)
    assert found.breaks
    assert (found.topic, found.pointer) == (f"{topic}.v1", pointer)
    assert found.was.startswith(was)
    assert found.now.startswith(now)
    whom = "producers" if f"{topic}.v1" in INPUTS else "readers"
    assert whom in found.why
    assert f"begin {topic}.v2 beside it" in found.way
    assert "\n" not in str(found)


def test_branch_narrowed_under_a_changed_condition_is_found() -> None:
    amount = put("else/properties/amount", {"const": "1"})
    note, found = changed("collateral", both(put("if", A_KIND), amount))
    assert (note.breaks, found.breaks) == (False, True)
    assert found.pointer == "#/else/properties/amount/const"


@pytest.mark.parametrize("name", ALLOWED)
def test_change_that_breaks_nobody_passes_without_a_word(name: str) -> None:
    assert changed(*ALLOWED[name]) == []


@pytest.mark.parametrize("name", NOTED)
def test_change_that_a_reviewer_should_know_is_noted(name: str) -> None:
    topic, change, expected = NOTED[name]
    (found,) = changed(topic, change)
    assert not found.breaks
    assert expected in str(found)


def test_schema_that_contains_itself_is_compared() -> None:
    tree = {"type": "object", "properties": {"leaf": TEXT, "below": {"$ref": "#"}}}
    other = {"type": "object", "properties": {"leaf": {"type": "null"}, "below": {"$ref": "#"}}}
    assert compare("tree.v1", is_input=True, released=tree, present=tree) == []
    (found,) = compare("tree.v1", is_input=True, released=tree, present=other)
    assert found.pointer == "#/properties/leaf/type"


def test_reference_to_nothing_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"#/properties/\w+: \$ref #/\$defs/count names nothing"):
        changed("trades", take("$defs/count"))


# The gate on a checkout: baseline, examples, AsyncAPI document, command.


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    release(tmp_path)
    assert findings(tmp_path) == []
    return tmp_path


def edit(path: Path, change: Change) -> None:
    is_json = path.suffix == ".json"
    content = json.loads(path.read_text()) if is_json else yaml.safe_load(path.read_text())
    change(content)
    path.write_text(json.dumps(content) if is_json else yaml.safe_dump(content))


def test_present_schemas_keep_what_was_released() -> None:
    assert [str(found) for found in findings() if found.breaks] == []


def test_baseline_holds_each_topic_with_examples() -> None:
    topics = {path.parent.name for path in RELEASED.glob("*/v1.schema.json")}
    assert topics <= {topic.name.removesuffix(".v1") for topic in TOPICS}
    assert topics == {path.name for path in RELEASED.iterdir() if path.is_dir()}
    for topic in topics:
        assert len([*(RELEASED / topic / "examples" / "valid").glob("*.json")]) >= 2


@pytest.mark.parametrize("path", sorted(RELEASED.glob("*/examples/valid/*.json")), ids=str)
def test_released_example_is_read_by_the_present_program(path: Path) -> None:
    # Inputs, tables and journals outlive the program that wrote them.
    topic = path.parents[2].name
    if topic in DECODE_INPUT:
        assert program_accepts(topic, compact(json.loads(path.read_text())))
    else:
        rows = [row for of, row in DECODE_OUTPUT if of == topic and path.stem.startswith(row)]
        DECODE_OUTPUT[topic, rows[0]](path.read_bytes())


def test_released_input_that_a_new_condition_refuses_is_found(checkout: Path) -> None:
    # "adjustment-down" is below zero: under the other `if`, an adjustment may no longer be.
    edit(checkout / "schemas/collateral/v1.schema.json", put("if", A_KIND))
    note, found = findings(checkout)
    assert not note.breaks
    assert (found.breaks, found.topic) == (True, "collateral.v1")
    assert found.pointer == "#/$defs/positive/pattern"
    assert "released/collateral/examples/valid/adjustment-down.json" in found.why


def test_present_output_that_the_released_schema_refuses_is_found(checkout: Path) -> None:
    # The schemas are equal, so only the example can say that something else is written.
    topic = checkout / "schemas" / "liquidations"
    edit(topic / "examples/valid/opened.json", put("episode", None))
    (found,) = findings(checkout)
    assert found.pointer == "#/properties/episode/type"
    assert "liquidations/examples/valid/opened.json" in found.why


def test_present_output_with_additions_holds(checkout: Path) -> None:
    topic = checkout / "schemas" / "margin-status"
    edit(topic / "v1.schema.json", add("$defs/status/enum", "paused"))
    for path in (topic / "examples/valid").glob("*.json"):
        edit(path, both(put("status", "paused"), put("venue", "x")))
    (note,) = findings(checkout)
    assert not note.breaks


def test_topic_removed_is_found(checkout: Path) -> None:
    shutil.rmtree(checkout / "schemas" / "rejects")
    (found,) = findings(checkout)
    assert (found.topic, found.was, found.now) == ("rejects.v1", "a topic", "nothing")


def test_topic_added_or_of_a_next_version_passes(checkout: Path) -> None:
    schemas = checkout / "schemas"
    shutil.copytree(schemas / "rejects", schemas / "complaints")
    shutil.copyfile(schemas / "trades/v1.schema.json", schemas / "trades/v2.schema.json")
    edit(schemas / "trades/v2.schema.json", take("properties/seq"))
    assert findings(checkout) == []


@pytest.mark.parametrize(
    ("change", "pointer", "was", "now"),
    [
        (take("channels/rejects"), "", "a channel", "nothing"),
        (
            *(put("channels/rejects/address", "{prefix}refused.v1"), "/address"),
            *("{prefix}rejects.v1", "{prefix}refused.v1"),
        ),
        (put("operations/sendRejects/action", "receive"), "/action", "send", "receive"),
        (
            *(put("components/messages/Reject/contentType", "application/cbor"),),
            *("/messages/reject/contentType", "application/json", "application/cbor"),
        ),
        (
            *(put("components/messages/Reject/bindings/kafka/key/type", "integer"),),
            *("/messages/reject/key", "string", "integer"),
        ),
    ],
)
def test_channel_changed_is_found(
    checkout: Path, change: Change, pointer: str, was: str, now: str
) -> None:
    path = checkout / "schemas" / "asyncapi.yaml"
    # A document whose channel is gone has no operation on it either.
    edit(path, both(change, take("operations/sendRejects")) if not pointer else change)
    (found,) = findings(checkout)
    assert (found.topic, found.was, found.now) == ("rejects.v1", was, now)
    assert found.pointer == f"asyncapi.yaml#/channels/rejects{pointer}"


def test_channel_added_passes(checkout: Path) -> None:
    path = checkout / "schemas" / "asyncapi.yaml"

    def change(document: Any) -> None:
        document["channels"]["complaints"] = document["channels"]["rejects"]

    edit(path, change)
    assert findings(checkout) == []


def test_version_without_a_baseline_is_found(checkout: Path) -> None:
    path = checkout / "pyproject.toml"
    path.write_text(path.read_text().replace(f'"{released_version()}"', '"99.0.0"', 1))
    (found,) = findings(checkout)
    assert found.way == "make release-schemas"
    release(checkout)
    assert findings(checkout) == []
    assert released_version(checkout) == "99.0.0"


def test_gate_is_part_of_make_check() -> None:
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert "PYTHONPATH=tests $(BIN)/python -m compatibility\n" in recipe[1]


@pytest.mark.parametrize(("breaks", "code"), [(False, 0), (True, 1)])
def test_gate_prints_findings_and_says_by_its_exit_code_whether_any_breaks(
    checkout: Path, breaks: bool, code: int
) -> None:
    shutil.copytree(ROOT / "tests" / "compatibility", checkout / "tests" / "compatibility")
    if breaks:
        edit(checkout / "schemas/trades/v1.schema.json", add("required", "seq"))
    script = "import sys, runpy; runpy.run_module('compatibility', run_name='__main__')"
    heavy = "import atexit, sys; atexit.register(lambda: print('numba' in sys.modules)); "
    answer = subprocess.run(
        [sys.executable, "-c", heavy + script],
        cwd=checkout / "tests",
        capture_output=True,
        text=True,
        check=False,
    )
    *lines, last, loaded = answer.stdout.splitlines()
    assert answer.returncode == code, answer.stderr
    assert loaded == "False"
    if not breaks:
        assert lines == []
        assert last == f"Schemas: all that {released_version()} promised holds."
    else:
        (line,) = lines
        why = "what producers may send would be refused"
        way = "make seq optional, or begin trades.v2 beside it"
        assert line == f'breaks trades.v1 #/required: was nothing, is ["seq"]: {why}; {way}'
        assert last == f"Schemas: 1 changes break what {released_version()} promised."


def test_release_is_refused_while_something_breaks(checkout: Path) -> None:
    shutil.copytree(ROOT / "tests" / "compatibility", checkout / "tests" / "compatibility")
    edit(checkout / "schemas/trades/v1.schema.json", add("required", "seq"))
    before = (checkout / "schemas/released/trades/v1.schema.json").read_text()
    command = [sys.executable, "-m", "compatibility", "release"]
    answer = subprocess.run(command, cwd=checkout / "tests", capture_output=True, check=False)
    assert answer.returncode == 1
    assert (checkout / "schemas/released/trades/v1.schema.json").read_text() == before
