"""Margin arithmetic over columns: readable functions and their compiled twins; no domain types."""

from __future__ import annotations

__all__ = ["warm_up"]


def warm_up() -> None:
    """Compile every kernel, seconds of work; from then on another argument type raises."""
    from solvent.kernel import batches, evaluate, intake, ledger, names, texts, watch

    batches.warm_up()
    names.warm_up()
    intake.warm_up()
    evaluate.warm_up()
    ledger.warm_up()
    texts.warm_up()
    watch.warm_up()
