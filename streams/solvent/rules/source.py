"""From YAML text to a checked model: strict reading, `extends`, and errors worth reading.

A preset may say ``extends: NAME`` of another preset of the rulebook or of a base preset shipped in
``rules/presets/base``; mappings merge key by key, everything else is replaced by the extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from solvent.errors import ConfigError
from solvent.rules.model import RulebookModel

__all__ = ["builtin_names", "builtin_text", "config_error", "read_model"]

_MAX_TEXT = 4_000_000


def config_error(*, path: str, value: object, limit: str) -> ConfigError:
    """Return the error of one place: path, value found, and what would be allowed."""
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return ConfigError(f"rulebook {path}: {shown}, limit: {limit}", code="SLV-402")


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml
    """Safe YAML whose repeated keys are errors: the later would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a key that was already there."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                line = key_node.start_mark.line + 1
                raise config_error(path=f"line {line}", value=key, limit="keys are strings")
            if key in seen:
                line = key_node.start_mark.line + 1
                raise config_error(
                    path=f"line {line}", value=key, limit="each key once in its mapping"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def builtin_names() -> tuple[str, ...]:
    """Return the names of the rulebooks that travel with the package."""
    folder = files("solvent.rules") / "presets"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def builtin_text(name: str) -> str:
    """Return the YAML of a rulebook that travels with the package.

    Raises
    ------
    ConfigError
        No rulebook of that name.
    """
    if name not in builtin_names():
        raise config_error(path="name", value=name, limit="one of " + ", ".join(builtin_names()))
    return (files("solvent.rules") / "presets" / f"{name}.yaml").read_text("utf-8")


def read_model(source: Path | str) -> RulebookModel:
    """Read a rulebook from a file (`Path`) or from YAML text (`str`) and check every key.

    Raises
    ------
    ConfigError
        The file cannot be read, the text is no YAML mapping, or a key or value is not allowed;
        the message names path, value and limit.
    """
    if isinstance(source, Path):
        try:
            source = source.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise config_error(
                path="file", value=str(source), limit=f"a readable text ({error})"
            ) from error
    document = _read_yaml(source)
    _resolve_extends(document)
    try:
        return RulebookModel.model_validate(document)
    except ValidationError as error:
        raise _as_config_error(error) from error


def _read_yaml(text: str) -> dict[str, Any]:
    if len(text) > _MAX_TEXT:
        raise config_error(path="text", value=len(text), limit=f"at most {_MAX_TEXT} characters")
    try:
        document = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise config_error(
            path="text", value=" ".join(str(error).split()), limit="valid YAML"
        ) from error
    if not isinstance(document, dict):
        raise config_error(path="text", value=document, limit="a mapping of sections")
    return document


def _as_config_error(error: ValidationError) -> ConfigError:
    """Turn pydantic's findings into one error; the first is named, the others follow."""
    found = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"]) or "document"
        kind = item["type"]
        if kind == "missing":
            found.append(config_error(path=path, value=None, limit="required").message)
        elif kind == "extra_forbidden":
            found.append(config_error(path=path, value=item["input"], limit="no such key").message)
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            found.append(config_error(path=path, value=item["input"], limit=message).message)
    return ConfigError("; ".join(found), code="SLV-402")


def _resolve_extends(document: dict[str, Any]) -> None:
    """Replace each preset that extends another by the merged mapping, in place."""
    presets = document.get("presets")
    if not isinstance(presets, dict):
        return  # the model says what is wrong
    document["presets"] = {
        name: _resolved(name, body, presets, (name,)) if isinstance(body, dict) else body
        for name, body in presets.items()
    }


def _resolved(
    name: str, body: Mapping[str, Any], presets: Mapping[str, Any], chain: tuple[str, ...]
) -> dict[str, Any]:
    if "extends" not in body:
        return dict(body)
    path = f"presets.{name}.extends"
    parent = body["extends"]
    own = {key: value for key, value in body.items() if key != "extends"}
    if isinstance(parent, str) and parent not in chain and isinstance(presets.get(parent), dict):
        base = _resolved(parent, presets[parent], presets, (*chain, parent))
    elif isinstance(parent, str) and parent in _base_names():
        base = _read_yaml(
            (files("solvent.rules") / "presets" / "base" / f"{parent}.yaml").read_text("utf-8")
        )
    else:
        known = sorted({*presets, *_base_names()} - set(chain))
        raise config_error(
            path=path, value=parent, limit="one of " + ", ".join(known) + ", without a cycle"
        )
    return _merged(base, own)


def _base_names() -> set[str]:
    folder = files("solvent.rules") / "presets" / "base"
    return {
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged
