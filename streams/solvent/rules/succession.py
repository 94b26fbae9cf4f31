"""Which rulebook may follow another while a pipeline runs (`solvent rulebook publish`).

Rows of accounts hold amounts in lots and quanta, and indices of assets and presets; marks and
settlements are kept by name. All of these must mean the same after as before. So what exists stays
and keeps its steps, its place and its terms of settlement, and more may be added behind it; how it
is judged and priced (presets, oracle, limits, underlyings) is free, as are breakers. Accounts are
bound to a preset when their settings are read, so a class keeps its preset: the preset itself is
what changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solvent.rules.source import config_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from solvent.rules.compile import CompiledRulebook

__all__ = ["check_successor"]

#: Keys that may change, by section whose entries otherwise stay as they are.
_FREE_KEYS: dict[str, frozenset[str]] = {
    "feeds": frozenset(),
    "assets": frozenset({"borrowable", "category", "index_feed", "quality_feed", "underlying"}),
    "instruments": frozenset({"tick", "quality_feed", "rate_feed", "volatility_feed"}),
}
#: Sections whose order is what rows hold.
_INDEXED = ("assets", "presets")


def check_successor(before: CompiledRulebook, after: CompiledRulebook) -> None:
    """Check that a rulebook may take the place of another in a running pipeline.

    Parameters
    ----------
    before, after : CompiledRulebook
        The one in force, and the one to be.

    Raises
    ------
    ConfigError
        [SLV-402] Another rulebook, no later version, or something that accounts hold is missing,
        elsewhere or not what it was; the message names path, value and limit.
    """
    old, new = before.model, after.model
    _same("rulebook.id", before.id, after.id)
    if after.version <= before.version:
        limit = f"above {before.version}, the version in force"
        raise config_error(path="rulebook.version", value=after.version, limit=limit)
    _same("rulebook.settlement_asset", old.rulebook.settlement_asset, new.rulebook.settlement_asset)
    for section in _INDEXED:
        names, names_after = list(getattr(old, section)), list(getattr(new, section))
        for place, name in enumerate(names):
            found = names_after[place] if place < len(names_after) else None
            if found != name:
                limit = f"{name} at place {place + 1}, new ones behind those of the version before"
                raise config_error(path=section, value=found, limit=limit)
    for section, free in _FREE_KEYS.items():
        _entries_stay(section, getattr(old, section), getattr(new, section), free)
    last = max((instrument.id for instrument in before.instruments), default=0)
    for instrument in after.instruments:
        if instrument.id <= last and instrument.name not in before.instrument_by_name:
            limit = f"above {last}, the last of the version before"
            raise config_error(
                path=f"instruments.{instrument.name}.id", value=instrument.id, limit=limit
            )
    for account_class, preset in old.bindings.items():
        _same(f"bindings.{account_class}", preset, new.bindings.get(account_class))
    _same("default_class", old.default_class, new.default_class)


def _entries_stay(
    section: str,
    old: Mapping[str, BaseModel],
    new: Mapping[str, BaseModel],
    free: frozenset[str],
) -> None:
    for name, entry in old.items():
        if name not in new:
            limit = "stays: accounts may hold it"
            raise config_error(path=f"{section}.{name}", value=None, limit=limit)
        for key in type(entry).model_fields:
            if key not in free:
                _same(f"{section}.{name}.{key}", getattr(entry, key), getattr(new[name], key))


def _same(path: str, before: Any, after: Any) -> None:  # noqa: ANN401 - any value of a rulebook
    if after != before:
        limit = f"stays {before!r}, as in the version in force"
        raise config_error(path=path, value=after, limit=limit)
