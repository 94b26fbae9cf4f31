"""The AsyncAPI document names every topic and points to what exists."""

from __future__ import annotations

from typing import Any

import yaml

from solvent.wire.topics import TOPICS, Role
from support.contracts import SCHEMAS

DOCUMENT: dict[str, Any] = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())


def resolve(reference: str) -> Any:
    node: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        node = node[name]
    return node


def test_asyncapi_channels_are_the_topics() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    addresses = [channel["address"] for channel in DOCUMENT["channels"].values()]
    assert addresses == ["{prefix}" + topic.name for topic in TOPICS]


def test_asyncapi_messages_name_their_schema_file() -> None:
    for channel in DOCUMENT["channels"].values():
        topic = channel["address"].removeprefix("{prefix}")
        for reference in channel["messages"].values():
            message = resolve(reference["$ref"])
            assert message["name"] == topic
            assert message["payload"]["schemaFormat"].endswith("draft-2020-12")
            path = SCHEMAS / message["payload"]["schema"]["$ref"]
            assert path.resolve() == SCHEMAS / topic.removesuffix(".v1") / "v1.schema.json"
            assert path.is_file()


def test_asyncapi_operations_receive_inputs_and_send_the_rest() -> None:
    actions = {
        resolve(operation["channel"]["$ref"])["address"].removeprefix("{prefix}"): operation[
            "action"
        ]
        for operation in DOCUMENT["operations"].values()
    }
    expected = {topic.name: "receive" if topic.role is Role.INPUT else "send" for topic in TOPICS}
    assert actions == expected
