"""Record batches: our reader against aiokafka's on the same bytes, and the twins on one another."""

from __future__ import annotations

import random
import struct
from collections import Counter
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from structlog.testing import capture_logs

from solvent.kernel import batches as kernel
from solvent.runtime import raw
from support.blobs import Blob, a_blob, batch, marker, summed

PLACE = TopicPartition("t", 0)
TWINS = (
    ("find_batches_jit", kernel.find_batches_reference),
    ("hide_batches_jit", kernel.hide_batches_reference),
    ("read_records_jit", kernel.read_records_reference),
)

Read = tuple[list[tuple[int, int, bytes | None, bytes | None]], int] | type[Exception]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    kernel.warm_up()


def by_aiokafka(blob: Blob, position: int, *, is_committed: bool, check_crcs: bool = True) -> Read:
    reader = PartitionRecords(
        PLACE,
        MemoryRecords(blob.data),
        list(blob.aborted),
        position,
        None,
        None,
        check_crcs,
        int(is_committed),
    )
    try:
        records = [(r.offset, r.timestamp, r.key, r.value) for r in reader]
    except CorruptRecordException:
        return CorruptRecordException
    return records, reader.next_fetch_offset


def by_us(blob: Blob, position: int, *, is_committed: bool, check_crcs: bool = True) -> Read:
    try:
        run, after = raw.read_blob(
            PLACE,
            blob.data,
            blob.aborted,
            position,
            check_crcs=check_crcs,
            is_committed=is_committed,
        )
    except CorruptRecordException:
        return CorruptRecordException
    return [tuple(record) for record in run], after


def by_kernels_alone(blob: Blob, position: int, *, is_committed: bool, check_crcs: bool) -> Any:
    try:
        run, after = raw._read(PLACE, blob.data, blob.aborted, position, check_crcs, is_committed)
    except (CorruptRecordException, raw._UnusualError) as error:
        return type(error)
    return [tuple(record) for record in run], after


def a_position(chance: random.Random, blob: Blob) -> int:
    """An offset within the first batch: a broker begins with the batch that holds it."""
    (last,) = struct.unpack_from(">i", blob.data, 23)
    return blob.first_offset + (chance.randint(0, last) if chance.random() < 0.3 else 0)


@pytest.mark.parametrize("seed", range(6))
def test_whole_and_cut_blobs_read_as_aiokafka_reads_them(seed: int) -> None:
    chance = random.Random(seed)
    seen = 0
    for _ in range(60):
        blob = a_blob(chance)
        position = a_position(chance, blob)
        if chance.random() < 0.3:
            blob.data = blob.data[: chance.randrange(len(blob.data))]
        for is_committed in (True, False):
            expected = by_aiokafka(blob, position, is_committed=is_committed)
            assert by_us(blob, position, is_committed=is_committed) == expected
            # by our own reader: nothing here is left to aiokafka's
            assert (
                by_kernels_alone(blob, position, is_committed=is_committed, check_crcs=True)
                == expected
            )
            seen += len(expected[0])
    assert seen > 1000


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bit_under_checksum_raises_what_aiokafka_raises(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        blob = a_blob(chance)
        start = chance.choice(blob.starts)
        end = min([s for s in blob.starts if s > start], default=len(blob.data))
        damaged = bytearray(blob.data)
        damaged[chance.randrange(start + 17, end)] ^= 1 << chance.randrange(8)
        blob.data = bytes(damaged)
        for is_committed in (True, False):
            expected = by_aiokafka(blob, blob.first_offset, is_committed=is_committed)
            assert expected is CorruptRecordException
            assert by_us(blob, blob.first_offset, is_committed=is_committed) is expected


@pytest.mark.parametrize("seed", range(4))
def test_damage_under_right_checksum_is_refused_or_read_alike(seed: int) -> None:
    """The record parser, not the sum, must notice; what it does not must read the same."""
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for _ in range(250):
        blob = a_blob(chance)
        which = chance.randrange(len(blob.starts))
        start = blob.starts[which]
        end = [*blob.starts, len(blob.data)][which + 1]
        if blob.data[start + 22] & 0x27:
            continue  # compressed or a marker: damage there is the codec's, or hides nothing
        damaged = bytearray(blob.data[start:end])
        damaged[chance.randrange(57, len(damaged))] ^= 1 << chance.randrange(8)
        blob.data = blob.data[:start] + summed(damaged) + blob.data[end:]
        for is_committed in (True, False):
            try:
                expected = by_aiokafka(blob, blob.first_offset, is_committed=is_committed)
            except UnicodeDecodeError:
                continue  # a header's name: we hand no headers over
            found = by_us(blob, blob.first_offset, is_committed=is_committed)
            if found != expected:
                # Offsets that go back: aiokafka passes such records over in silence.
                assert found is CorruptRecordException
                outcomes["stricter"] += 1
            else:
                outcomes["refused" if expected is CorruptRecordException else "same"] += 1
    assert outcomes["refused"] > 5
    assert outcomes["same"] > 5
    assert outcomes["stricter"] <= outcomes.total() // 10


@pytest.mark.parametrize("seed", range(4))
def test_twins_give_the_same_bytes_on_good_cut_and_damaged_blobs(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    cases = []
    for number in range(40):
        blob = a_blob(chance)
        if number % 4 == 1:
            blob.data = blob.data[: chance.randrange(len(blob.data))]
        elif number % 4 > 1:
            damaged = bytearray(blob.data)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            blob.data = bytes(damaged)
        cases.append((blob, chance.random() < 0.5))

    def read_all() -> list:
        found = []
        for blob, is_committed in cases:
            try:
                found.append(
                    by_kernels_alone(
                        blob, blob.first_offset, is_committed=is_committed, check_crcs=False
                    )
                )
            except Exception as error:
                found.append(type(error))
        return found

    fast = read_all()
    for name, reference in TWINS:
        monkeypatch.setattr(raw, name, reference)
    assert read_all() == fast


def test_aborted_records_are_hidden_from_read_committed_only() -> None:
    records = [(0, 5, b"k", b"v", [])]
    data = (
        batch(10, records, producer=1, is_transactional=True)
        + batch(11, records, producer=2, is_transactional=True)
        + marker(12, 1, is_abort=True)
        + marker(13, 2, is_abort=False)
        + batch(14, records, producer=1, is_transactional=True)
        + marker(15, 1, is_abort=False)
    )
    blob = Blob(data, [], [(1, 10)], 10, 16)
    committed = by_us(blob, 10, is_committed=True)
    assert committed == ([(11, 5, b"k", b"v"), (14, 5, b"k", b"v")], 16)
    uncommitted = by_us(blob, 10, is_committed=False)
    assert [r[0] for r in uncommitted[0]] == [10, 11, 14]


def test_batch_whose_offsets_go_back_is_corrupt() -> None:
    records = [(0, 5, b"k", b"v", [])]
    blob = Blob(batch(10, records) + batch(10, records), [], [], 10, 11)
    assert by_us(blob, 10, is_committed=False) is CorruptRecordException


def test_many_small_batches_outgrow_the_first_table_and_are_all_read() -> None:
    data = b"".join(batch(k, [(0, 5, None, b"", [])]) for k in range(1000))
    records, after = by_us(Blob(data, [], [], 0, 1000), 0, is_committed=True)
    assert [r[0] for r in records] == list(range(1000))
    assert after == 1000


def test_older_format_is_left_to_aiokafka_and_reported() -> None:
    from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    builder.append(0, 1234, b"k", b"v")
    blob = Blob(bytes(builder.build()), [], [], 0, 1)
    with capture_logs() as said:
        assert by_us(blob, 0, is_committed=True) == ([(0, 1234, b"k", b"v")], 1)
    assert [line["event"] for line in said] == ["unusual_batch"]


def test_count_that_no_batch_can_hold_reserves_no_memory() -> None:
    data = bytearray(batch(0, [(0, 5, b"k", b"v", [])]))
    struct.pack_into(">i", data, 57, 2**31 - 1)
    assert by_us(Blob(summed(data), [], [], 0, 1), 0, is_committed=False) is CorruptRecordException


def test_run_columns_are_contiguous_as_kernels_want_them() -> None:
    data = batch(0, [(k, 5 + k, b"k", None, []) for k in range(3)])
    run, _ = raw.read_blob(PLACE, data, None, 1, check_crcs=True, is_committed=True)
    columns = (run.offset, run.timestamp_ms, run.key_first, run.key_size, run.value_size)
    assert all(column.flags.c_contiguous for column in columns)
    assert run.offset.tolist() == [1, 2]
    assert run.value_size.tolist() == [-1, -1]
    assert np.array_equal(run.timestamp_ms, [6, 7])
