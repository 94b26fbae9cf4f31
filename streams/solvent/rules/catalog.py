"""Rulebooks and families that travel with the package, and the text of any rulebook.

A family is a preset without markets and assets, for rulebooks to extend; it compiles only as part
of one, so it has no hash. Comments of the files say where numbers come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import yaml

from solvent.errors import ConfigError
from solvent.rules.compile import CompiledRulebook, builtin_rulebook, find_rulebook, parse_rulebook
from solvent.rules.document import resolved_document
from solvent.rules.resolve import one_of
from solvent.rules.source import (
    builtin_names,
    builtin_text,
    config_error,
    family_document,
    family_names,
    family_text,
    read_nodes,
    read_text,
)

__all__ = [
    "Check",
    "Entry",
    "Source",
    "check_rulebook",
    "description_of",
    "find_source",
    "of_preset",
    "preset_text",
    "resolved_source",
    "shipped",
]

_Kind = Literal["rulebook", "family"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A rulebook or family that travels with the package.

    Attributes
    ----------
    name, kind, description : str
        The name to call it by, ``rulebook`` or ``family``, and the first sentence of its comment.
    rulebook : CompiledRulebook or None
        None of a family.
    """

    name: str
    kind: _Kind
    description: str
    rulebook: CompiledRulebook | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The text of a rulebook or family, as its author wrote it."""

    name: str
    kind: _Kind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Whether one rulebook holds: either it compiles, or an error says why not."""

    path: str
    rulebook: CompiledRulebook | None
    error: ConfigError | None


def shipped() -> tuple[Entry, ...]:
    """Return all rulebooks, then all families, by name."""
    rulebooks = (
        Entry(
            name=name,
            kind="rulebook",
            description=description_of(builtin_text(name)),
            rulebook=builtin_rulebook(name),
        )
        for name in builtin_names()
    )
    families = (
        Entry(
            name=name,
            kind="family",
            description=description_of(family_text(name)),
            rulebook=None,
        )
        for name in family_names()
    )
    return (*rulebooks, *families)


def description_of(text: str) -> str:
    """Return the first sentence of the comment that a file begins with, empty without one."""
    lines = []
    for line in text.lstrip().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    sentence = re.split(r"\.(?:\s|$)", " ".join(lines), maxsplit=1)[0]
    return " ".join(sentence.split())


def find_source(name_or_path: Path | str) -> Source:
    """Return the text at a path or, where no such file is, of a built-in rulebook or family.

    Raises
    ------
    ConfigError
        [SLV-402] There is none of these.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if path.exists():
        return Source(name=name, kind="rulebook", text=read_text(path))
    if name in builtin_names():
        return Source(name=name, kind="rulebook", text=builtin_text(name))
    if name in family_names():
        return Source(name=name, kind="family", text=family_text(name))
    known = ", ".join((*builtin_names(), *family_names()))
    raise config_error(path="name", value=name, limit=f"a file, or one of {known}")


def resolved_source(source: Source) -> dict[str, Any]:
    """Return a rulebook's canonical document; of a family only what it extends is merged in.

    Raises
    ------
    ConfigError
        [SLV-402] Something in it is not allowed; the message names path, value and limit.
    """
    if source.kind == "family":
        return family_document(source.name)
    return resolved_document(parse_rulebook(source.text).model)


def of_preset(document: dict[str, Any], preset: str) -> dict[str, Any]:
    """Return one preset of a rulebook's document; raises ConfigError where there is none."""
    presets = document.get("presets", {})
    if preset not in presets:
        raise _no_preset(preset, presets)
    found: dict[str, Any] = presets[preset]
    return found


def preset_text(text: str, preset: str) -> str:
    """Return one preset out of a rulebook's text, its comments with it.

    Comments are those inside and those right above, at the depth of the preset's name.

    Raises
    ------
    ConfigError
        [SLV-402] The text is no YAML mapping, or has no such preset.
    """
    found = {}
    for section, presets in _children(read_nodes(text)):
        if section.value == "presets":
            found = {key.value: (key, body) for key, body in _children(presets)}
    if preset not in found:
        raise _no_preset(preset, found)
    key, body = found[preset]
    start, end, column = key.start_mark, body.end_mark, key.start_mark.column
    if not isinstance(body, yaml.MappingNode) or body.flow_style:  # the rest may be on its lines
        return text[start.index : end.index] + "\n"
    lines = text.split("\n")
    first, last = start.line, end.line + (end.column > column)  # the end is where the next begins
    while first > 0 and lines[first - 1].startswith(" " * column + "#"):
        first -= 1
    while _is_outside(lines[last - 1], column):
        last -= 1
    return dedent("\n".join(lines[first:last])) + "\n"


def _no_preset(preset: str, known: Mapping[str, object]) -> ConfigError:
    limit = one_of(known) if known else "none: this is no rulebook with presets"
    return config_error(path="preset", value=preset, limit=limit)


def _children(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _is_outside(line: str, column: int) -> bool:
    """Tell whether a line behind a preset is blank, or a comment on what follows."""
    inner = line.lstrip()
    return not inner or (inner.startswith("#") and len(line) - len(inner) <= column)


def check_rulebook(name_or_path: Path | str) -> Check:
    """Compile a rulebook; what is wrong with it is part of the answer."""
    try:
        rulebook = find_rulebook(name_or_path)
    except ConfigError as error:
        return Check(path=str(name_or_path), rulebook=None, error=error)
    return Check(path=str(name_or_path), rulebook=rulebook, error=None)
