"""Which changes of a released topic schema break somebody (DESIGN D10).

Both directions are one question: is every record that satisfies schema `a` one that satisfies `b`?
Of an input, `a` is the released schema: what producers send must stay valid. Of an output, `a` is
the present one: what the program writes must stay what readers were told.

================================  ==========================  ====================================
change                            input                       output, table, between
================================  ==========================  ====================================
required field                    new: breaks                 no longer required: breaks
optional field                    new: fine                   new: fine where additions are
field removed                     breaks                      breaks
type, limit, length               narrower: breaks            wider: breaks
pattern                           changed: breaks             changed: breaks
list of words (enum, const)       word removed: breaks        word removed: breaks; added: a note
anyOf                             alternative lost: breaks    added, or an object lost: breaks
additionalProperties, items       as the schema they name     as the schema they name
if, then, else                    by equal `if`; new: breaks  by equal `if`; dropped: breaks
any other keyword                 changed: breaks             changed: breaks
description, title                fine                        fine
================================  ==========================  ====================================

``$ref`` and ``allOf`` are resolved. A wider pattern cannot be told from a narrower one: an input
takes more by ``anyOf`` of the old pattern and the new. Where an `if` itself has changed there is a
note: its branches are compared, but which records go which way is left to the examples
(``baseline``), and so is whether alternatives of a ``oneOf`` overlap; else it is like ``anyOf``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jsonschema_rs

__all__ = ["Finding", "compare"]

_ANNOTATIONS = {"$comment", "$defs", "description", "examples", "title"}
_IF = {"if", "then", "else"}
_APART = {"$ref", "allOf", "anyOf", "oneOf", *_IF}
_TYPES = {"array", "boolean", "integer", "null", "number", "object", "string"}

#: Keyword -> the type of values it speaks of, of others it says nothing. Every number schema has
#: integers among its values.
_LOWER = {"minimum": "integer", "exclusiveMinimum": "integer"}
_UPPER = {"maximum": "integer", "exclusiveMaximum": "integer", "maxLength": "string"}
_LOWER |= {"minLength": "string", "minItems": "array", "minProperties": "object"}
_UPPER |= {"maxItems": "array", "maxProperties": "object"}
_OBJECT = {"additionalProperties", "properties", "propertyNames", "required"}
_ARRAY = {"items", "prefixItems", "uniqueItems"}
_OF_WORDS = {"type", "const", "enum", "pattern", *_LOWER, *_UPPER}
_COMPARED = {*_OF_WORDS, *_OBJECT, *_ARRAY}


class Finding(NamedTuple):
    """What a change breaks, or (`breaks` False) what a reviewer should know of it."""

    topic: str
    pointer: str
    was: str
    now: str
    why: str
    way: str
    breaks: bool = True

    def __str__(self) -> str:
        """Return the line that is printed."""
        kind = "breaks" if self.breaks else "note  "
        way = f"; {self.way}" if self.way else ""
        return f"{kind} {self.topic} {self.pointer}: was {self.was}, is {self.now}: {self.why}{way}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A schema, or a part of one, and where it stands in its document."""

    node: Any
    pointer: str
    root: Any

    def at(self, *names: str | int) -> _Place:
        """Return a schema below; where there is none, everything is allowed."""
        node = self.node
        for name in names:
            node = node.get(name, True) if isinstance(node, dict) else node[int(name)]
        escaped = [str(name).replace("~", "~0").replace("/", "~1") for name in names]
        return _Place(node, "/".join([self.pointer, *escaped]), self.root)

    def only(self, names: set[str]) -> _Place:
        """Return the same with some of its keywords alone."""
        return _Place({k: v for k, v in self.node.items() if k in names}, self.pointer, self.root)

    def keywords(self) -> set[str]:
        """Return the names of what the schema says."""
        return set() if isinstance(self.node, bool) else set(self.node)

    def parts(self) -> list[_Place]:
        """Return what holds all at once: own keywords, references, members of allOf, conditions."""
        if isinstance(self.node, bool):
            return [] if self.node else [self]
        parts = [self.only(set(self.node) - _APART - _ANNOTATIONS)]
        if "$ref" in self.node:
            names = self.node["$ref"].split("/")[1:]
            target = _Place(self.root, "#", self.root).at(*names)
            if target.node is True:  # a schema of ours never names what allows everything
                msg = f"{self.pointer}: $ref {self.node['$ref']} names nothing"
                raise LookupError(msg)
            parts += target.parts()
        for index in range(len(self.node.get("allOf", ()))):
            parts += self.at("allOf", index).parts()
        parts += [self.only({key}) for key in ("anyOf", "oneOf")]
        parts.append(self.only(_IF))
        return [part for part in parts if part.node != {}]

    def alternatives(self) -> list[_Place]:
        """Return the alternatives of an anyOf or oneOf, none of any other schema."""
        for key in ("anyOf", "oneOf"):
            if isinstance(self.node, dict) and key in self.node:
                return [self.at(key, index) for index in range(len(self.node[key]))]
        return []

    def cases(self) -> _Chain:
        """Return the branches of a chain of conditions."""
        cases: dict[str, _Place] = {}
        rest = self
        while isinstance(rest.node, dict) and "if" in rest.node.keys() <= {*_IF, *_ANNOTATIONS}:
            cases.setdefault(_canonical(rest.node["if"]), rest.at("then"))
            rest = rest.at("else")
        return cases, rest

    def types(self) -> set[str]:
        """Return the types a value may have; integers are numbers too."""
        types = self.node.get("type", _TYPES)
        types = {types} if isinstance(types, str) else set(types)
        return types | ({"integer"} if "number" in types else set())

    def words(self) -> list[Any] | None:
        """Return the values of a closed list, None where the schema is not one."""
        if "const" in self.node:
            return [self.node["const"]]
        words: list[Any] | None = self.node.get("enum")
        return words

    def takes(self, word: object) -> bool:
        """Return whether a value of no parts satisfies the part (its lists of words aside)."""
        part = self.only(_OF_WORDS - {"const", "enum"}).node
        return jsonschema_rs.Draft202012Validator(part).is_valid(word)


#: Branches by condition, and the branch of all the rest.
_Chain = tuple[dict[str, _Place], _Place]


def compare(topic: str, *, is_input: bool, released: Any, present: Any) -> list[Finding]:
    """Return what changed between two schemas of a topic, and whom it breaks."""
    comparison = _Comparison(topic, is_input)
    before, now = (_Place(schema, "#", schema) for schema in (released, present))
    return list(dict.fromkeys(comparison.within(*comparison.ordered(before, now))))


def _breaks(found: list[Finding]) -> int:
    return sum(finding.breaks for finding in found)


def _best(tries: list[list[Finding]]) -> list[Finding]:
    """Return the findings of the nearest counterpart: with the fewest that break."""
    return min(tries, key=lambda found: _breaks(found))


def _canonical(node: object) -> str:
    """Return a schema as text, without its prose."""
    if not isinstance(node, dict):
        return json.dumps(node)
    said = {key: value for key, value in node.items() if not isinstance(value, str)}
    said |= {key: value for key, value in node.items() if key not in _ANNOTATIONS}
    inner = {key: json.loads(_canonical(value)) for key, value in said.items()}
    return json.dumps(inner, sort_keys=True)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Comparison:
    """One topic's schemas, compared; `a` and `b` are as the module's docstring says."""

    def __init__(self, topic: str, is_input: bool) -> None:
        self._topic = topic
        self._is_input = is_input
        self._known: dict[tuple[str, str], list[Finding]] = {}

    def ordered(self, before: Any, now: Any) -> tuple[Any, Any]:
        """Return (a, b) of (released, present), and the reverse."""
        return (before, now) if self._is_input else (now, before)

    def within(self, a: _Place, b: _Place) -> list[Finding]:
        """Return why some record satisfies `a` and not `b`; nothing if none does."""
        key = (a.pointer, b.pointer)
        if key not in self._known:
            self._known[key] = []  # a schema that contains itself: what is outside it decides
            ours, theirs = a.parts(), b.parts()
            found = []
            for part in theirs:
                if isinstance(part.node, dict) and "if" in part.node:
                    found += self._conditions(a, ours, part, theirs)
                else:
                    plain = [one for one in ours if one.node is False or "if" not in one.node]
                    plain = plain or [_Place({}, a.pointer, a.root)]
                    likest = sorted(plain, key=lambda one: -len(one.keywords() & part.keywords()))
                    found += _best([self._part(one, part) for one in likest])
            self._known[key] = found
        return self._known[key]

    def _finding(
        self,
        a: _Place,
        b: _Place,
        keyword: str,
        values: tuple[object, object],
        way: str = "",
        *,
        is_lost: bool = False,
    ) -> Finding:
        """Return a finding of `a` and `b` with these values; `is_lost`: what was there is gone."""
        _, now = self.ordered(a, b)
        was, is_now = self.ordered(*values)
        if self._is_input:
            why = "what producers may send would be refused"
        elif is_lost:
            why = "readers rely on it"
        else:
            why = "readers would meet what they were told cannot be"
        pointer = f"{now.pointer}/{keyword}" if keyword else now.pointer
        ways = f"{way or 'keep what was'}, or begin {self._next()} beside it"
        return Finding(self._topic, pointer, _said(was), _said(is_now), why, ways)

    def _next(self) -> str:
        name, _, version = self._topic.rpartition(".v")
        return f"{name}.v{int(version) + 1}"

    def _part(self, a: _Place, b: _Place) -> list[Finding]:
        if a.node is False:
            return []
        if b.node is False:
            return [self._finding(a, b, "", (a.node or True, False))]
        if a.alternatives() or b.alternatives():
            return self._alternatives(a, b)
        return [finding for rule in self._rules() for finding in rule(a, b)]

    def _alternatives(self, a: _Place, b: _Place) -> list[Finding]:
        ours, theirs = a.alternatives() or [a], b.alternatives() or [b]
        if "oneOf" in b.node and "oneOf" not in a.node:
            return [self._finding(a, b, "oneOf", (_Nothing, b.node["oneOf"]))]
        found: list[Finding] = []
        tries = [[self.within(one, other) for other in theirs] for one in ours]
        for index, (one, row) in enumerate(zip(ours, tries, strict=True)):
            best = _best(row)
            if not _breaks(best) or len(theirs) == 1:
                found += best
            elif len(ours) == len(theirs):
                found += row[index]
            else:
                found.append(self._finding(one, b, "", (one.node, _Nothing)))
        if not self._is_input and 1 < len(ours) < len(theirs):
            for index, other in enumerate(theirs):
                is_object = any("object" in part.node.get("type", ()) for part in other.parts())
                if is_object and all(_breaks(row[index]) for row in tries):
                    values = _Nothing, other.node
                    found.append(self._finding(other, other, "", values, is_lost=True))
        return found

    def _conditions(
        self, a: _Place, ours: list[_Place], part: _Place, theirs: list[_Place]
    ) -> list[Finding]:
        """Compare the conditions of `b`'s part with those of `a` that ask the same."""
        wanted, rest = part.cases()
        chains = [one.cases() for one in ours if isinstance(one.node, dict) and "if" in one.node]
        asked = {case for one in theirs if isinstance(one.node, dict) for case in one.cases()[0]}
        same = [chain for chain in chains if wanted.keys() & chain[0].keys()]
        if not same:
            others = [chain for chain in chains if not chain[0].keys() & asked]
            if not others:
                values = _Nothing, part.node["if"]
                return [self._finding(part, part, "if", values, is_lost=True)]
            cases, other = others[0]
            found = [self._unjudged(part, json.loads(next(iter(cases))), part.node["if"])]
            for branches in zip([*cases.values(), other], [*wanted.values(), rest], strict=False):
                found += self.within(*branches)
            return found
        return _best([self._chain(chain, (wanted, rest)) for chain in same])

    def _chain(self, ours: _Chain, theirs: _Chain) -> list[Finding]:
        (cases, other), (wanted, rest) = ours, theirs
        found = [*self.within(other, rest)]
        for case, branch in wanted.items():
            if case in cases:
                found += self.within(cases[case], branch)
            elif self._is_input:
                found.append(self._unjudged(branch, _Nothing, json.loads(case)))
            else:
                found += self.within(other, branch)
        for case in sorted(cases.keys() - wanted.keys()):
            found += self.within(cases[case], rest)
        return found

    def _unjudged(self, part: _Place, *conditions: object) -> Finding:
        was, now = self.ordered(*conditions)
        why = "a condition has changed; which records it concerns, the examples judge"
        return Finding(self._topic, part.pointer, _said(was), _said(now), why, "", breaks=False)

    def _rules(self) -> tuple[Callable[[_Place, _Place], Iterator[Finding]], ...]:
        return (self._words, self._types, self._limits, self._object, self._array, self._other)

    def _words(self, a: _Place, b: _Place) -> Iterator[Finding]:
        ours, theirs = a.words(), b.words()
        keyword = "const" if "const" in b.node else "enum"
        if theirs is not None:
            if ours is None:
                yield self._finding(a, b, keyword, (_Nothing, theirs))
                return
            more = [word for word in ours if word not in theirs]
            less = [] if self._is_input else [word for word in theirs if word not in ours]
            if more and (self._is_input or less or not all(isinstance(w, str) for w in more)):
                yield self._finding(a, b, keyword, (more, less or _Nothing), is_lost=bool(less))
            elif more:
                why = "readers must not act on words they do not know (schemas/README.md)"
                place = f"{a.pointer}/{keyword}"
                words = "nothing", _shown(more)
                yield Finding(self._topic, place, *words, why, way="", breaks=False)
            elif less:
                way = "keep it in the list"
                yield self._finding(a, b, keyword, (_Nothing, less), way, is_lost=True)
        elif ours is not None and not all(b.takes(word) for word in ours):
            yield self._finding(a, b, "", (ours, b.node))

    def _types(self, a: _Place, b: _Place) -> Iterator[Finding]:
        if a.words() is None and not a.types() <= b.types():
            values = a.node.get("type", _Nothing), b.node["type"]
            yield self._finding(a, b, "type", values)

    def _limits(self, a: _Place, b: _Place) -> Iterator[Finding]:
        if a.words() is not None:
            return
        for keyword, limit in b.node.items():
            kind = (_LOWER | _UPPER | {"pattern": "string"}).get(keyword)
            if kind not in a.types() & b.types():
                continue
            # Without a word on it, lengths and counts begin at 0; numbers begin nowhere.
            own = a.node.get(keyword, 0 if keyword in _LOWER and kind != "integer" else None)
            way = ""
            if keyword == "pattern":
                worse = own != limit
                way = "take both patterns: anyOf" if self._is_input and own else ""
            else:
                worse = own is None or (own < limit if keyword in _LOWER else own > limit)
            if worse:
                yield self._finding(a, b, keyword, (_Nothing if own is None else own, limit), way)

    def _object(self, a: _Place, b: _Place) -> Iterator[Finding]:
        if "object" not in a.types() & b.types():
            return
        before, now = self.ordered(a, b)
        fields, kept = (side.node.get("properties", {}) for side in (before, now))
        for name in sorted({*a.node.get("properties", {}), *b.node.get("properties", {})}):
            one, other = (
                side.at(*(("properties", name) if name in side.node.get("properties", {})
                          else ("additionalProperties",)))
                for side in (a, b)
            )  # fmt: skip
            if name in fields and name not in kept:
                way = f"keep {name}" if self._is_input else f"keep {name}, and write it"
                values = self.ordered(fields[name], _Nothing)
                at = _Place(None, before.at("properties", name).pointer, None)
                yield self._finding(at, at, "", values, way, is_lost=True)
            else:
                yield from self.within(one, other)
        ours, theirs = (set(side.node.get("required", ())) for side in (a, b))
        gone = fields.keys() - kept.keys()  # said already
        if missing := sorted(theirs - ours - gone):
            way = f"make {', '.join(missing)} optional"
            if not self._is_input:
                way = f"write {', '.join(missing)} always"
            yield self._finding(a, b, "required", (_Nothing, missing), way, is_lost=True)
        yield from self.within(a.at("additionalProperties"), b.at("additionalProperties"))
        names = a.at("propertyNames")
        if isinstance(names.node, dict):  # names are texts, said or not
            names = _Place({"type": "string", **names.node}, names.pointer, a.root)
        elif "propertyNames" in b.node:
            names = _Place({"type": "string"}, names.pointer, a.root)
        yield from self.within(names, b.at("propertyNames"))

    def _array(self, a: _Place, b: _Place) -> Iterator[Finding]:
        if "array" not in a.types() & b.types():
            return
        lengths = [len(side.node.get("prefixItems", ())) for side in (a, b)]
        for index in range(max(lengths)):
            one, other = (
                side.at(*(("prefixItems", index) if index < length else ("items",)))
                for side, length in zip((a, b), lengths, strict=True)
            )
            yield from self.within(one, other)
        yield from self.within(a.at("items"), b.at("items"))
        if b.node.get("uniqueItems", False) and not a.node.get("uniqueItems", False):
            yield self._finding(a, b, "uniqueItems", (_Nothing, True))

    def _other(self, a: _Place, b: _Place) -> Iterator[Finding]:
        for keyword in sorted((a.node.keys() | b.node.keys()) - _COMPARED):
            values = a.node.get(keyword, _Nothing), b.node.get(keyword, _Nothing)
            if values[0] != values[1]:
                yield self._finding(a, b, keyword, values)


class _Nothing:
    """Stands for a keyword that is not there."""


def _said(value: object) -> str:
    return "nothing" if value is _Nothing else _shown(value)
