"""A checked rulebook as plain data again: resolved, canonical, fit to be read, kept and compared.

Presets hold what they extend, defaults are filled in, keys lie in the order of the schema and names
in order. Two rulebooks have the same hash exactly if their documents are equal, order included.
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel

from solvent.rules.model import RulebookModel

__all__ = ["ORDERED_SECTIONS", "document_yaml", "resolved_document"]

#: Sections whose order means something: it fixes indices.
ORDERED_SECTIONS = ("feeds", "assets", "underlyings", "presets")


def resolved_document(model: RulebookModel) -> dict[str, Any]:
    """Return a rulebook as mappings, lists and scalars.

    An optional key that is not set (null) is left out, a `null` that must be written stays.
    Contracts ascend by id.

    Returns
    -------
    dict
        Reads back as a rulebook of the same hash.
    """
    document = _plain_model(model)
    for section in ORDERED_SECTIONS:
        names = getattr(model, section)
        document[section] = {name: document[section][name] for name in names}
    contracts = document["instruments"].items()
    document["instruments"] = dict(sorted(contracts, key=lambda item: item[1]["id"]))
    return document


def document_yaml(document: dict[str, Any]) -> str:
    """Return a document as YAML; innermost mappings lie on one line, or wrapped after 120."""
    return yaml.safe_dump(
        document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


def _plain_model(model: BaseModel) -> dict[str, Any]:
    plain = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value is not None or field.is_required():
            plain[name] = _plain(value)
    return plain


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of a rulebook
    if isinstance(value, BaseModel):
        return _plain_model(value)
    if isinstance(value, dict):
        return {name: _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
