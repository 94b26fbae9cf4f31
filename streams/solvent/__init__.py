"""Streaming margin risk: Kafka in, margin health in a numba kernel, liquidations out.

Read ARCHITECTURE.md for the decisions; the folder list is the architecture. ``errors`` and
``units`` lie at the bottom, ``cli`` and ``worker`` at the top, and imports point down only.

From Python, accounts are judged without any stream: ``from solvent import Rulebook, Snapshot,
evaluate``. They come from `solvent.api`, which is loaded when one of them is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solvent.api import Evaluation, Rulebook, Snapshot, evaluate

__version__ = "0.1.0"

__all__ = ["Evaluation", "Rulebook", "Snapshot", "__version__", "evaluate"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from solvent import api

        return getattr(api, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
