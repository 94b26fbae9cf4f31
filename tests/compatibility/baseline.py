"""What was released last, kept in ``schemas/released``, and what of it no longer holds.

The baseline is a copy: the schemas with their valid examples, ``asyncapi.yaml`` and the version.
``rules`` compare schemas; here their examples are tried across versions, which also judges what
rules cannot, and the channels of the AsyncAPI document are compared. A topic's role is what the
released document says: the program receives inputs and sends all else.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from compatibility.rules import Finding, compare

__all__ = ["RELEASED", "ROOT", "findings", "release", "released_version"]

ROOT = Path(__file__).resolve().parents[2]
RELEASED = ROOT / "schemas" / "released"


def findings(root: Path = ROOT) -> list[Finding]:
    """Return what in ``schemas`` of a checkout does not keep what its baseline promised."""
    schemas = root / "schemas"
    released = schemas / "released"
    before, now = _channels(released), _channels(schemas)
    found = [*_channel_findings(before, now)]
    roles = {one["address"].removeprefix("{prefix}"): one["action"] for one in before.values()}
    for path in sorted(released.glob("*/v*.schema.json")):
        topic = f"{path.parent.name}.{path.name.removesuffix('.schema.json')}"
        found += _topic_findings(topic, path, schemas, is_input=roles[topic] == "receive")
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if version != (kept := released_version(root)):
        why, way = "what is released must be kept to be compared with", "make release-schemas"
        found.append(Finding("version", "schemas/released", kept, version, why, way))
    return found


def released_version(root: Path = ROOT) -> str:
    """Return the version of the program whose schemas the baseline is."""
    return (root / "schemas" / "released" / "VERSION").read_text().strip()


def release(root: Path = ROOT) -> None:
    """Put the present schemas in the baseline's place, as of the version in pyproject.toml."""
    schemas = root / "schemas"
    released = schemas / "released"
    shutil.rmtree(released, ignore_errors=True)
    for path in sorted(schemas.glob("*/v*.schema.json")):
        folder = released / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)
        examples = Path("examples", "valid")
        shutil.copytree(path.parent / examples, folder / examples, dirs_exist_ok=True)
    shutil.copyfile(schemas / "asyncapi.yaml", released / "asyncapi.yaml")
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    (released / "VERSION").write_text(f"{version}\n")


def _topic_findings(
    topic: str, released: Path, schemas: Path, *, is_input: bool
) -> Iterator[Finding]:
    present = schemas / released.relative_to(schemas / "released")
    if not present.is_file():
        who = "producers have nowhere to write" if is_input else "readers have nothing to read"
        way = "keep the topic; to retire it, delete it from schemas/released too"
        yield Finding(topic, "#", "a topic", "nothing", who, way)
        return
    before, now = (json.loads(path.read_text()) for path in (released, present))
    changed = compare(topic, is_input=is_input, released=before, present=now)
    yield from changed
    if any(finding.breaks for finding in changed):
        return  # the examples would say it again, less well
    schema = now if is_input else _without_words(before)
    validator = jsonschema_rs.Draft202012Validator(schema)
    folder = (released if is_input else present).parent / "examples" / "valid"
    for path in sorted(folder.glob("*.json")):
        for error in validator.iter_errors(json.loads(path.read_text())):
            at = "/".join(["#", *map(str, error.schema_path)])
            was, is_now = ("valid", "refused") if is_input else ("refused", "written")
            why = f"{path.relative_to(schemas)} says {error.message}"
            yield Finding(topic, at, was, is_now, why, "keep what was, or begin a new version")


def _without_words(schema: Any) -> Any:
    """Return a schema whose lists of words take any text: readers pass over unknown ones.

    Conditions keep theirs, or they would hold for every record.
    """
    if isinstance(schema, list):
        return [_without_words(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    open_ = {key: value if key == "if" else _without_words(value) for key, value in schema.items()}
    for key in ("const", "enum"):
        words = [schema[key]] if key == "const" and key in schema else schema.get(key, [])
        if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
            del open_[key]
            open_["type"] = "string"
    return open_


def _channels(schemas: Path) -> dict[str, dict[str, str]]:
    """Return what the AsyncAPI document promises of each channel, one text a promise."""
    document: dict[str, Any] = yaml.safe_load((schemas / "asyncapi.yaml").read_text())
    channels: dict[str, dict[str, str]] = {}
    for name, channel in document["channels"].items():
        channels[name] = {"address": channel["address"]}
        for alias, reference in channel["messages"].items():
            message = document["components"]["messages"][reference["$ref"].rpartition("/")[2]]
            key = message.get("bindings", {}).get("kafka", {}).get("key", {})
            channels[name] |= {
                f"messages/{alias}/contentType": message["contentType"],
                f"messages/{alias}/key": key.get("type", "free"),
                f"messages/{alias}/schema": message["payload"]["schema"]["$ref"],
            }
    for operation in document["operations"].values():
        channels[operation["channel"]["$ref"].rpartition("/")[2]]["action"] = operation["action"]
    return channels


def _channel_findings(
    before: dict[str, dict[str, str]], now: dict[str, dict[str, str]]
) -> Iterator[Finding]:
    for name, promises in before.items():
        topic = promises["address"].removeprefix("{prefix}")
        at = f"asyncapi.yaml#/channels/{name}"
        if name not in now:
            way = "keep the channel; to retire it, delete it from schemas/released too"
            yield Finding(topic, at, "a channel", "nothing", "who uses it has none", way)
            continue
        for key, was in promises.items():
            is_now = now[name].get(key, "nothing")
            if is_now != was:
                why = "who uses the channel relies on it"
                way = "keep what was, or add a channel beside it"
                yield Finding(topic, f"{at}/{key}", was, is_now, why, way)
