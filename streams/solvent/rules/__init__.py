"""Rulebooks: the YAML a venue writes, checked, and the flat parameters made from it."""

from solvent.rules.compile import (
    CompiledRulebook,
    builtin_rulebook,
    compile_document,
    find_rulebook,
    load_rulebook,
    parse_rulebook,
)
from solvent.rules.source import builtin_names
from solvent.rules.succession import check_successor

__all__ = [
    "CompiledRulebook",
    "builtin_names",
    "builtin_rulebook",
    "check_successor",
    "compile_document",
    "find_rulebook",
    "load_rulebook",
    "parse_rulebook",
]
