"""Ledger, safe moves, intake: compiled twins against the functions they are bound from, bytes."""

from __future__ import annotations

import numpy as np
import pytest

from solvent.engine import intake, margin, window
from solvent.kernel import intake as reading
from solvent.kernel import ledger, watch
from solvent.state import safe_moves
from support.busy_log import a_busy_log, a_stated_log
from support.margin import Log, Replay, a_rulebook

TWINS = [
    (margin, "fold_trades_jit", ledger.fold_trades_reference),
    (margin, "fold_moves_jit", ledger.fold_moves_reference),
    (safe_moves, "look_jit", watch.look_reference),
    (margin, "judge_unit_jit", ledger.judge_unit_reference),
    (margin, "settle_contract_jit", ledger.settle_contract_reference),
    (margin, "find_holders_jit", ledger.find_holders_reference),
    (intake, "read_trades_jit", reading.read_trades_reference),
    (intake, "read_moves_jit", reading.read_moves_reference),
    (intake, "resolve_jit", reading.resolve_reference),
    (window, "enter_window_jit", reading.enter_window_reference),
]


def test_fast_path_is_loaded_and_closed() -> None:
    a_rulebook()
    for module, name, _ in TWINS:
        kernel = getattr(module, name)
        assert len(kernel.nopython_signatures) == 1
        assert not kernel._can_compile


@pytest.mark.parametrize("log", [a_busy_log(11, 250), a_stated_log(12, 250)])
def test_twins_over_busy_log_leave_identical_bytes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = Replay().run(log)
    for module, name, reference in TWINS:
        monkeypatch.setattr(module, name, reference)
    slow = Replay().run(log)

    assert fast.table == slow.table
    assert fast.records == slow.records
    assert fast.state == slow.state
    tables = ("accounts", "units", "cases", "positions", "balances", "orders", "figures")
    for table in tables:
        pairs = zip(
            getattr(fast.shard.columns, table), getattr(slow.shard.columns, table), strict=True
        )
        for compiled, readable in pairs:
            assert compiled.tobytes() == readable.tobytes()
    assert np.array_equal(fast.shard.columns.counts, slow.shard.columns.counts)
