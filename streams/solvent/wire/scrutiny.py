"""A close look at input records: what the fast decoders leave open, and why a record was refused.

The names of the contract (identifiers, feeds, liquidation ids) are defined here. Nothing here is on
the way of a good compact record; see `solvent.wire.inputs` for what is.
"""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

from solvent.errors import ContractError, RejectCode
from solvent.wire.topics import ORACLE_TICKS

__all__ = [
    "FAULTS",
    "SCHEMA_VERSION",
    "check_closely",
    "is_deep",
    "is_feed_name",
    "is_identifier",
    "is_liquidation_id",
    "out_of_contract",
    "refusal",
]

#: The one version of every contract this program reads and writes.
SCHEMA_VERSION: Final = 1

#: All that a msgspec decoder raises on bad bytes.
FAULTS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_SHOWN = 80  # characters of a bad value quoted in a message

#: Deepest nesting that is looked at; records of the contract have 1. Where Python's own recursion
#: limit strikes depends on who calls, and the answer to a record must not.
_MAX_DEPTH: Final = 64

_match_identifier = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_match_feed = re.compile(r"[A-Za-z0-9._/-]{1,64}").fullmatch
_match_liquidation_id = re.compile(
    r"[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}:[1-9][0-9]{0,15}"
).fullmatch

_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_find_brackets = re.compile(rb"[][{}]").findall


def is_identifier(text: str) -> bool:
    """Return whether a text is an account, subaccount, market, asset, trade or move id."""
    return _match_identifier(text) is not None


def is_feed_name(text: str) -> bool:
    """Return whether a text is a feed or source: an identifier that may contain ``/``."""
    return _match_feed(text) is not None


def is_liquidation_id(text: str) -> bool:
    """Return whether a text is ``account_id:subaccount:episode``."""
    return _match_liquidation_id(text) is not None


def is_deep(value: bytes) -> bool:
    """Return whether brackets, those in texts apart, nest deeper than any record has reason to."""
    depth = 0
    for bracket in _find_brackets(_TEXTS.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MAX_DEPTH:
            return True
    return False


def check_closely(topic: str, value: bytes | None, identifiers: tuple[str, ...]) -> None:
    """Judge a decoded record that is not compact: blanks and escapes are legal, the rest is not."""
    pairs = json.loads(value or b"", object_pairs_hook=list)
    record = dict(pairs)
    if len(record) != len(pairs):
        repeated = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        message = f"{topic} `{repeated}`: named twice, at most once allowed"
        raise ContractError(message, code=RejectCode.MALFORMED)
    matches, rule = _match_identifier, "[A-Za-z0-9._-]{1,64}"
    if topic == ORACLE_TICKS:
        matches, rule = _match_feed, "[A-Za-z0-9._/-]{1,64}"
    for name, content in record.items():
        if content is None:
            message = f"{topic} `{name}`: null, leave the field out instead"
            raise ContractError(message, code=RejectCode.MALFORMED)
        if name in identifiers and not matches(content):
            raise out_of_contract(topic, name, content, f"must match {rule}")


def out_of_contract(topic: str, name: str, content: object, limit: str) -> ContractError:
    """Return the error of a value of the right type beyond what its field may hold."""
    return ContractError(
        f"{topic} `{name}` = {_shown(content)}: {limit}", code=RejectCode.OUT_OF_CONTRACT
    )


def _shown(content: object) -> str:
    text = ascii(content[: _SHOWN + 1] if isinstance(content, str | bytes) else content)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


#: What the decoder says of a value of the right type outside its list or range.
_RANGE_FAULTS = (
    "Invalid enum value",
    "Invalid value",
    "Integer value out of range",
    "Number out of range",
    "Expected `int` <",
    "Expected `int` >",
    "Expected `str` of length",
    "Expected `str` matching",
)
_find_field = re.compile(r" - at (?:`key` in )?`\$\.([^`]+)`$").search


def refusal(topic: str, value: bytes | None, fault: Exception) -> ContractError:
    """Return the error that names what is wrong with a record no decoder took."""
    malformed = RejectCode.MALFORMED
    if not value:
        return ContractError(f"{topic} value: empty, a JSON object expected", code=malformed)
    if is_deep(value):
        message = f"{topic} value = {_shown(value)}: nested deeper than {_MAX_DEPTH}"
        return ContractError(message, code=malformed)
    try:
        content = msgspec.json.decode(value)
    except msgspec.ValidationError as reason:  # a number beyond what any decoder holds
        return ContractError(
            f"{topic} value = {_shown(value)}: {reason}", code=RejectCode.OUT_OF_CONTRACT
        )
    except FAULTS as reason:
        return ContractError(f"{topic} value = {_shown(value)}: {reason}", code=malformed)
    if not isinstance(content, dict):
        message = f"{topic} value = {_shown(content)}: a JSON object expected"
        return ContractError(message, code=malformed)
    version = content.get("schema_version")
    if type(version) is int and version != SCHEMA_VERSION:
        message = f"{topic} `schema_version` = {_shown(version)}: only {SCHEMA_VERSION} is read"
        return ContractError(message, code=RejectCode.UNSUPPORTED_VERSION)
    said = str(fault)
    code = RejectCode.OUT_OF_CONTRACT if said.startswith(_RANGE_FAULTS) else malformed
    field = _find_field(said)
    if field is None:
        return ContractError(f"{topic} value = {_shown(value)}: {said[:_SHOWN]}", code=code)
    name, said = field[1], said[: field.start()][:_SHOWN]
    if name not in content:  # within a field
        return ContractError(f"{topic} `{name}`: {said}", code=code)
    return ContractError(f"{topic} `{name}` = {_shown(content[name])}: {said}", code=code)
