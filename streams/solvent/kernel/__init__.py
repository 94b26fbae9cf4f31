"""Margin arithmetic over columns: readable functions and their compiled twins; no domain types."""
