"""From YAML text to a checked model: strict reading, `extends`, and errors worth reading.

A preset may say ``extends: NAME`` of another preset of the rulebook or of a family preset shipped
in ``rules/presets/base``, a family so of another family; mappings merge key by key, everything
else is replaced by the extension.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from solvent.errors import ConfigError
from solvent.rules.model import RulebookModel

if TYPE_CHECKING:
    from yaml import SafeLoader as _Loader
else:  # libyaml's where there is one: it reads the same, faster
    _Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "builtin_names",
    "builtin_text",
    "config_error",
    "family_document",
    "family_names",
    "family_text",
    "read_document",
    "read_model",
    "read_nodes",
    "read_text",
]

#: The longest resolved rulebook that travels on topics: a frame of it goes to every partition.
MAX_DOCUMENT_BYTES = 524_288

_MAX_TEXT = 4_000_000
_MAX_DEPTH = 64
#: What pydantic calls a node of a requirement that is no term.
_TREE_TAG = "tree"


def config_error(*, path: str, value: object, limit: str) -> ConfigError:
    """Return the error of one place: path, value found, and what would be allowed."""
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return ConfigError(f"rulebook {path}: {shown}, limit: {limit}", code="SLV-402")


class _StrictLoader(_Loader):
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
    return _yaml_names(_presets())


def builtin_text(name: str) -> str:
    """Return the YAML of a rulebook that travels with the package.

    Raises
    ------
    ConfigError
        No rulebook of that name.
    """
    if name not in builtin_names():
        raise config_error(path="name", value=name, limit="one of " + ", ".join(builtin_names()))
    return (_presets() / f"{name}.yaml").read_text("utf-8")


def family_names() -> tuple[str, ...]:
    """Return the names of the family presets that travel with the package."""
    return _yaml_names(_presets() / "base")


def family_text(name: str) -> str:
    """Return the YAML of a family preset.

    Raises
    ------
    ConfigError
        No family of that name.
    """
    if name not in family_names():
        raise config_error(path="family", value=name, limit="one of " + ", ".join(family_names()))
    return (_presets() / "base" / f"{name}.yaml").read_text("utf-8")


def family_document(name: str) -> dict[str, Any]:
    """Return a family preset as plain data, what it extends merged in; nothing else is checked.

    Raises
    ------
    ConfigError
        No such family, or families that extend each other.
    """
    return _family(name, (name,))


def read_text(path: Path) -> str:
    """Return the text of a rulebook file; raises ConfigError where it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        limit = f"a readable text ({error})"
        raise config_error(path="file", value=str(path), limit=limit) from error


def read_nodes(text: str) -> yaml.Node | None:
    """Return YAML text as nodes, which know their places; raises ConfigError where it is none."""
    with _yaml_errors():
        _check_form(text)
        return yaml.compose(text, _StrictLoader)


def read_model(source: Path | str) -> RulebookModel:
    """Read a rulebook from a file (`Path`) or from YAML text (`str`) and check every key.

    Raises
    ------
    ConfigError
        The file cannot be read, the text is no YAML mapping, or a key or value is not allowed;
        the message names path, value and limit.
    """
    if isinstance(source, Path):
        source = read_text(source)
    document = _read_yaml(source)
    _resolve_extends(document)
    try:
        return RulebookModel.model_validate(document)
    except ValidationError as error:
        raise _as_config_error(error) from error


def read_document(document: bytes) -> RulebookModel:
    """Read a resolved rulebook (`rules.document`) told as JSON, as it travels on topics.

    Families and aliases do not travel: a preset has no ``extends`` here.

    Raises
    ------
    ConfigError
        It is no JSON object, longer than `MAX_DOCUMENT_BYTES`, or a key or value is not allowed.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        limit = f"at most {MAX_DOCUMENT_BYTES} bytes"
        raise config_error(path="document", value=len(document), limit=limit)
    try:
        content = json.loads(
            document, object_pairs_hook=_each_key_once, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise config_error(path="document", value=str(error), limit="valid JSON") from error
    if not isinstance(content, dict):
        raise config_error(path="document", value=content, limit="a mapping of sections")
    try:
        return RulebookModel.model_validate(content)
    except ValidationError as error:
        raise _as_config_error(error) from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise config_error(path="document", value=repeated, limit="each key once in its mapping")
    return mapping


def _refuse_constant(word: str) -> None:
    raise config_error(path="document", value=word, limit="a finite number")


def _read_yaml(text: str) -> dict[str, Any]:
    with _yaml_errors():
        _check_form(text)
        document = yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader
    if not isinstance(document, dict):
        raise config_error(path="text", value=document, limit="a mapping of sections")
    return document


@contextmanager
def _yaml_errors() -> Iterator[None]:
    try:
        yield
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date with a month 13
        shown = " ".join(str(error).split())
        raise config_error(path="text", value=shown, limit="valid YAML") from error


def _check_form(text: str) -> None:
    """Refuse long text, tags, and depths at which building it would overflow libyaml's stack."""
    if len(text) > _MAX_TEXT:
        raise config_error(path="text", value=len(text), limit=f"at most {_MAX_TEXT} characters")
    depth = 0
    for event in yaml.parse(text, _StrictLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        assert event.start_mark is not None  # only events that somebody makes have none
        line, tag = event.start_mark.line + 1, getattr(event, "tag", None)
        if depth > _MAX_DEPTH:
            raise config_error(path=f"line {line}", value=depth, limit=f"{_MAX_DEPTH} levels")
        if tag is not None:
            raise config_error(path=f"line {line}", value=tag, limit="no tags")


def _as_config_error(error: ValidationError) -> ConfigError:
    """Turn pydantic's findings into one error; the first is named, the others follow."""
    found = []
    for item in error.errors(include_url=False):
        path = _path(item["loc"]) or "document"
        kind, value = item["type"], item["input"]
        if kind == "missing":
            value, limit = None, "required"
        elif kind == "extra_forbidden":
            limit = "no such key"
        elif kind == "union_tag_invalid":  # only a mapping names a term
            path, value = f"{path}.term", value["term"]
            terms = item["ctx"]["expected_tags"].replace("'", "").split(", ")
            limit = "one of " + ", ".join(term for term in terms if term != _TREE_TAG)
        else:
            limit = item["msg"][0].lower() + item["msg"][1:]
        found.append(config_error(path=path, value=value, limit=limit).message)
    return ConfigError("; ".join(found), code="SLV-402")


def _path(place: tuple[str | int, ...]) -> str:
    """Return a place as the file has it: without the name of its term, which pydantic adds."""
    tags: set[int] = set()
    if place[:1] == ("presets",) and place[2:4] == ("requirement", "sum"):
        at = 5  # presets, a name, requirement, sum, an index, the tag
        tags.add(at)
        while place[at : at + 1] == (_TREE_TAG,):
            at += 3  # sum, max or min, an index, the tag
            tags.add(at)
    return ".".join(str(part) for index, part in enumerate(place) if index not in tags)


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
    """Return a preset with all it extends; a preset of the rulebook goes before a family."""
    if "extends" not in body:
        return dict(body)
    parent = body["extends"]
    if isinstance(parent, str) and parent not in chain and isinstance(presets.get(parent), dict):
        base = _resolved(parent, presets[parent], presets, (*chain, parent))
    elif isinstance(parent, str) and parent in family_names():
        base = _family(parent, (parent,))
    else:
        known = {*presets, *family_names()}.difference(chain)
        raise _extends_error(parent, known, chain, path=f"presets.{name}.extends")
    return _merged(base, _own(body))


def _family(name: str, chain: tuple[str, ...]) -> dict[str, Any]:
    body = _read_yaml(family_text(name))
    if "extends" not in body:
        return body
    parent = body["extends"]
    known = set(family_names()).difference(chain)
    if not isinstance(parent, str) or parent not in known:
        raise _extends_error(parent, known, chain, path=f"family {name}.extends")
    return _merged(_family(parent, (*chain, parent)), _own(body))


def _extends_error(
    parent: object, known: Iterable[str], chain: tuple[str, ...], *, path: str
) -> ConfigError:
    limit = "one of " + (", ".join(sorted(known)) or "none")
    if parent in chain:
        limit = f"without a cycle: {' -> '.join((*chain, str(parent)))}; {limit}"
    return config_error(path=path, value=parent, limit=limit)


def _own(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "extends"}


def _presets() -> Traversable:
    return files("solvent.rules") / "presets"


def _yaml_names(folder: Traversable) -> tuple[str, ...]:
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged
