"""Rows of ``accounts.v1`` into columns, as a restore loads them."""

from __future__ import annotations

from collections.abc import Mapping

from solvent.engine.run import Record, Run
from solvent.kernel.layout import Int64
from solvent.state.columns import Columns
from solvent.state.restored import RestoredRows

__all__ = ["load_rows"]


def load_rows(
    columns: Columns, rows: Mapping[bytes, bytes], *, instrument_ids: Int64, asset_count: int
) -> None:
    """Restore empty columns from rows by account id."""
    run = Run.of([Record(0, 0, key, value) for key, value in rows.items()])
    restored = RestoredRows(columns)
    restored.take(run.data, run.key_first, run.key_size, run.value_first, run.value_size)
    restored.unpack(instrument_ids=instrument_ids, asset_count=asset_count, preset_count=2)
