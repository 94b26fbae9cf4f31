"""Rulebooks: the YAML a venue writes, checked, and the flat parameters made from it."""

from solvent.rules.compile import (
    CompiledRulebook,
    builtin_rulebook,
    find_rulebook,
    load_rulebook,
    parse_rulebook,
)
from solvent.rules.source import builtin_names

__all__ = [
    "CompiledRulebook",
    "builtin_names",
    "builtin_rulebook",
    "find_rulebook",
    "load_rulebook",
    "parse_rulebook",
]
