"""Streaming margin risk: Kafka in, margin health in a numba kernel, liquidations out.

Read ARCHITECTURE.md for the decisions; the folder list is the architecture. ``errors`` and
``units`` lie at the bottom, ``cli`` and ``worker`` at the top, and imports point down only.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
