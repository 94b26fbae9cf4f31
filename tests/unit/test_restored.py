"""Rows of a changelog on their way into columns: the last of each account, whatever came before."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from solvent.engine.margin import warm_up
from solvent.engine.run import Record, Run
from solvent.errors import PartitionError
from solvent.state import restored
from solvent.state.columns import Columns
from solvent.state.restored import RestoredRows
from solvent.state.rows import encode_rows

INSTRUMENTS = np.array([3, 7], np.int64)

Pair = tuple[bytes | None, bytes | None]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    warm_up()


def a_row(chance: random.Random) -> bytes:
    """An account of one book with up to two balances and positions."""
    positions = chance.randint(0, 2)
    balances = chance.randint(0, 2)
    parts = [
        struct.pack("<BBHqq", 1, 0, 1, chance.randint(-1, 99), -1),
        struct.pack("<iBBBBI", -1, 0, 0, 0, 0, 0),
        struct.pack("<HHqqqqqq", positions, balances, 0, 0, 0, 0, 0, chance.randint(0, 10**15)),
    ]
    parts += [struct.pack("<iq", k, chance.randint(-(10**12), 10**12)) for k in range(balances)]
    parts += [struct.pack("<iqq", int(INSTRUMENTS[k]), k + 1, -k) for k in range(positions)]
    return b"".join(parts)


def a_changelog(seed: int, rows: int, accounts: int) -> list[Pair]:
    """Rows of accounts again and again, with the fences and marks of slices between them."""
    chance = random.Random(seed)
    log: list[Pair] = []
    for _ in range(rows):
        log.append((b"account-%d" % chance.randrange(accounts), a_row(chance)))
        if chance.random() < 0.2:
            log += [(b"\0marks", b"{}"), (b"\0fence", b"{}")]
    return log


def a_run(pairs: list[Pair]) -> Run:
    return Run.of([Record(k, 0, *pair) for k, pair in enumerate(pairs)])


def loaded(pairs: list[Pair], longest: int) -> Columns:
    columns = Columns()
    rows = RestoredRows(columns)
    for first in range(0, len(pairs), longest):
        run = a_run(pairs[first : first + longest])
        rows.take(run.data, run.key_first, run.key_size, run.value_first, run.value_size)
    rows.unpack(instrument_ids=INSTRUMENTS, asset_count=2, preset_count=1)
    return columns


def written(columns: Columns) -> dict[bytes, bytes]:
    """Every account's row as the columns would write it now."""
    accounts = np.arange(len(columns.account_ids), dtype=np.int64)
    data, key_size, value_size = encode_rows(columns, accounts, INSTRUMENTS)
    rows = {}
    at = 0
    for key, value in zip(key_size.tolist(), value_size.tolist(), strict=True):
        rows[data[at : at + key].tobytes()] = data[at + key : at + key + value].tobytes()
        at += key + value
    return rows


@pytest.mark.parametrize("longest", [1, 7, 100_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_columns_hold_the_last_row_of_each_account(
    seed: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restored, "_START_BYTES", 64)  # so that rows are gathered many times
    log = a_changelog(seed, 1500, 300)
    last = {key: value for key, value in log if key and key[:1] != b"\0"}
    assert written(loaded(log, longest)) == last


def test_twins_take_and_gather_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    log = a_changelog(3, 200, 40)
    fast = written(loaded(log, 16))
    monkeypatch.setattr(restored, "_START_BYTES", 64)
    monkeypatch.setattr(restored, "_take_jit", restored._take)
    monkeypatch.setattr(restored, "_gather_jit", restored._gather)
    assert written(loaded(log, 16)) == fast


def test_rows_that_come_again_take_no_more_memory() -> None:
    columns = Columns()
    rows = RestoredRows(columns)
    chance = random.Random(5)
    run = a_run([(b"account-%d" % k, a_row(chance)) for k in range(500)])
    for _ in range(200):
        rows.take(run.data, run.key_first, run.key_size, run.value_first, run.value_size)
    assert rows._kept.size <= restored._START_BYTES
    assert rows._used == int(run.value_size.sum())


@pytest.mark.parametrize(
    ("row", "told"),
    [
        pytest.param((b"alice", None), "account b'alice': deleted", id="deleted"),
        pytest.param((None, b"row"), "no key", id="no key"),
        pytest.param((b"", b"row"), "no key", id="empty key"),
    ],
)
def test_row_that_is_no_account_s_stops_the_partition(row: Pair, told: str) -> None:
    with pytest.raises(PartitionError, match=told):
        loaded([(b"bob", a_row(random.Random(1))), row], 100)


def test_no_rows_are_no_accounts() -> None:
    assert loaded([(b"\0fence", b"{}")], 10).account_ids == []
    assert loaded([], 10).account_ids == []


def test_last_record_of_a_key_is_found_among_keys_of_its_size() -> None:
    run = a_run([(b"\0fence", b"1"), (b"\0claim", b"2"), (b"\0fence", b"3"), (b"accou1", b"4")])
    found = run.last_of(b"\0fence")
    assert found is not None
    assert (found.offset, found.value) == (2, b"3")
    assert run.last_of(b"\0marks") is None
    assert run.last_of(b"") is None
