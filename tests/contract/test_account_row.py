"""The packed account row is what ``schemas/accounts/ROW.md`` says (DESIGN D4)."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest

from solvent.errors import PartitionError
from solvent.kernel.layout import FLAG_LABELS, STATUS_LABELS, VERDICT_LABELS
from solvent.state.columns import Columns
from solvent.state.rows import encode_rows
from support.contracts import SCHEMAS
from support.table import load_rows

DOCUMENT = (SCHEMAS / "accounts" / "ROW.md").read_text()
EXAMPLE, FULL_EXAMPLE, FUNDED_EXAMPLE = map(
    bytes.fromhex, re.findall(r"```hex\n([0-9a-f\n]+)```", DOCUMENT)
)
INSTRUMENT_IDS = np.array([1, 4, 7], np.int64)


def documented_formats() -> dict[str, str]:
    """Read the layout table: part -> struct format, each offset checked on the way."""
    formats: dict[str, str] = {}
    sizes: dict[str, int] = {}
    part = ""
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 5 or cells[2] not in set("BHIiq"):
            continue
        if cells[0]:
            part, size = re.match(r"(\w+), (\d+) bytes", cells[0]).groups()  # type: ignore[union-attr]
            formats[part], sizes[part] = "<", int(size)
        assert struct.calcsize(formats[part]) == int(cells[1])
        formats[part] += cells[2]
    assert {part: struct.calcsize(text) for part, text in formats.items()} == sizes
    return formats


def restored(row: bytes) -> Columns:
    columns = Columns()
    load_rows(columns, {b"carol": row}, instrument_ids=INSTRUMENT_IDS, asset_count=2)
    return columns


def test_account_row_example_read_by_the_documented_layout_says_what_the_text_says() -> None:
    formats = documented_formats()
    at = 0

    def take(part: str) -> tuple[int, ...]:
        nonlocal at
        at += struct.calcsize(formats[part])
        return struct.unpack_from(formats[part], EXAMPLE, at - struct.calcsize(formats[part]))

    now = 1760131200000000
    assert take("header") == (1, 0, 2, 17, -1)
    cross = (-1, 2, 1, 2, 0, 0, 1, 2, 3, 1, now + 60_000_000, 1_400_000_000, 1, now)
    assert take("unit") == cross
    assert take("balance") == (0, -250_000_000)
    assert take("balance") == (1, 150_000_000)
    assert take("position") == (1, 5000, 32_500_250_000)
    assert take("unit") == (7, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, now - 1000)
    assert take("position") == (7, -12, -3_350_000_000)
    assert at == len(EXAMPLE)


def test_account_row_of_version_2_read_by_the_documented_layout_says_what_the_text_says() -> None:
    formats = documented_formats()
    parts = ("header", "settings", "unit", "more", "balance", "order", "order")
    at, found = 0, []
    for part in parts:
        found.append(struct.unpack_from(formats[part], FULL_EXAMPLE, at))
        at += struct.calcsize(formats[part])
    assert at == len(FULL_EXAMPLE)
    header, settings, unit, more, balance, first, second = found
    assert (header, settings) == ((2, 0, 1, 17, -1), (4, 9, 1))
    assert unit == (-1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1760131200000000)
    assert (more, balance) == ((2,), (0, 5_000_000_000))
    assert first == (1, 500, 0, 30_000_500_000, 0, 2, 10_000_000)
    assert second == (7, 0, 0, 0, 0, 0, 2_500_000)


def test_account_row_with_funding_read_by_the_documented_layout_says_what_the_text_says() -> None:
    formats = documented_formats()
    parts = ("header", "settings", "unit", "more", "position", "position", "funding", "funding")
    at, found = 0, []
    for part in parts:
        found.append(struct.unpack_from(formats[part], FUNDED_EXAMPLE, at))
        at += struct.calcsize(formats[part])
    assert at == len(FUNDED_EXAMPLE)
    assert found[:2] == [(2, 0, 1, 3, -1), (-1, -1, 0)]
    assert found[2] == (-1, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 1760131200000000)
    assert found[3:6] == [(0,), (1, 500, 30_000_500_000), (7, -4, -2_000_000)]
    assert found[6:] == [(1_234_567_890_123,), (0,)]
    columns = restored(FUNDED_EXAMPLE)
    assert columns.funding_of(0) == [1_234_567_890_123, 0]


@pytest.mark.parametrize(
    "row",
    [EXAMPLE, FULL_EXAMPLE, FUNDED_EXAMPLE],
    ids=["version 1", "version 2", "with funding"],
)
def test_account_row_example_restored_and_written_again_is_the_same(row: bytes) -> None:
    columns = restored(row)
    data, key_size, value_size = encode_rows(columns, np.array([0], np.int64), INSTRUMENT_IDS)
    assert data.tobytes() == b"carol" + row
    assert (key_size.tolist(), value_size.tolist()) == ([5], [len(row)])


def test_account_row_of_version_1_is_of_the_default_preset_and_has_no_orders() -> None:
    columns = Columns(default_preset=1)
    load_rows(columns, {b"carol": EXAMPLE}, instrument_ids=INSTRUMENT_IDS, asset_count=2)
    units = list(columns.units_of(0))
    assert columns.accounts.preset[0] == 1
    assert [int(columns.units.preset[unit]) for unit in units] == [1, 1]
    assert [columns.orders_of(unit) for unit in units] == [[], []]
    assert (columns.accounts.settings_seq[0], columns.accounts.orders_seq[0]) == (-1, -1)


def test_account_row_naming_a_preset_the_rulebook_lacks_is_refused() -> None:
    row = FULL_EXAMPLE[:36] + b"\x02\x00" + FULL_EXAMPLE[38:]
    with pytest.raises(PartitionError, match="carol: unusable preset"):
        restored(row)


def test_account_row_of_another_version_is_refused() -> None:
    with pytest.raises(PartitionError, match="carol"):
        load_rows(
            Columns(),
            {b"carol": b"\x03" + EXAMPLE[1:]},
            instrument_ids=INSTRUMENT_IDS,
            asset_count=2,
        )


def test_account_row_codes_in_document_are_the_kernel_s() -> None:
    statuses = ", ".join(f"{code} {name}" for code, name in enumerate(STATUS_LABELS))
    verdicts = ", ".join(f"{code} {name}" for code, name in enumerate(VERDICT_LABELS))
    flags = ", ".join(f"{bit} {name}" for bit, name in sorted(FLAG_LABELS.items()))
    for codes in (statuses, verdicts, flags):
        assert codes in DOCUMENT
