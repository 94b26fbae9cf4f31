"""Rulebooks: the YAML a venue writes, checked, and the flat parameters made from it."""
