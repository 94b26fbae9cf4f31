"""Batches we build: aiokafka, kafka-python and our own reader find in them what was put in."""

from __future__ import annotations

import random

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.record.memory_records import MemoryRecords
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

from solvent.engine.rows import Rows
from solvent.engine.shard import Emit
from solvent.errors import InvariantError
from solvent.kernel import batches as kernel
from solvent.runtime import raw, writer
from solvent.runtime.writer import event_batches, record_batches
from solvent.wire.headers import EventHeaders
from solvent.wire.topics import LIQUIDATIONS, MARKS, MAX_BATCH_BYTES

NOW_MS = 1_760_131_200_123
Pair = tuple[bytes, bytes | None]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    kernel.warm_up()


def pairs(seed: int, count: int) -> list[Pair]:
    """Keys and values of sizes around those where a varint grows, tombstones among them."""
    chance = random.Random(seed)
    sizes = (0, 1, 62, 63, 64, 65, 160, 8190, 8191, 8192, 8200)
    return [
        (
            b"k%d" % number + b"x" * chance.choice((0, 60, 61, 62)),
            chance.choice((None, chance.randbytes(chance.choice(sizes)))),
        )
        for number in range(count)
    ]


def built(rows: list[Rows], limit: int = MAX_BATCH_BYTES) -> list[bytes]:
    """What is sent: batches with producer, sequence and checksum."""
    sent = []
    sequence = 7
    for batch in record_batches(rows, NOW_MS, limit, limit):
        assert batch.closed()
        assert batch.append(key=b"k", value=b"v", timestamp=None) is None
        batch._set_producer_state(4711, 3, sequence)
        sequence += batch.record_count()
        data = bytes(batch._build())
        assert len(data) == batch.size() <= limit
        sent.append(data)
    return sent


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [9000, 70_000, MAX_BATCH_BYTES])
def test_batches_read_back_by_aiokafka_are_the_rows(seed: int, limit: int) -> None:
    wanted = pairs(seed, 300)
    sent = built([Rows.of(wanted[:200]), Rows.of(wanted[200:])], limit)
    found: list[Pair] = []
    sequence = 7
    for data in sent:
        records = MemoryRecords(data)
        batch = records.next_batch()
        assert not records.has_next()
        assert batch.validate_crc()
        assert batch.is_transactional
        assert not batch.is_control_batch
        assert (batch.producer_id, batch.producer_epoch) == (4711, 3)
        assert batch.base_sequence == sequence
        for place, record in enumerate(batch):
            assert record.offset == place
            assert record.timestamp == NOW_MS
            assert not record.headers
            found.append((record.key, record.value))
            sequence += 1
        assert batch.next_offset == place + 1
    assert found == wanted
    assert (len(sent) == 1) is (limit == MAX_BATCH_BYTES)


def test_batches_read_back_by_kafka_python_are_the_rows() -> None:
    wanted = pairs(9, 200)
    found: list[Pair] = []
    for data in built([Rows.of(wanted)], 50_000):
        records = KafkaPythonRecords(data)
        while records.has_next():
            batch = records.next_batch()
            assert batch.validate_crc()
            found += [(record.key, record.value) for record in batch]
    assert found == wanted


def test_batches_read_back_by_our_reader_are_the_rows() -> None:
    wanted = pairs(10, 200)
    (data,) = built([Rows.of(wanted)])
    run, position = raw.read_blob(
        TopicPartition("t", 0), data, None, 0, check_crcs=True, is_committed=True
    )
    assert [(record.key, record.value) for record in run] == wanted
    assert run.timestamp_ms.tolist() == [NOW_MS] * 200
    assert position == 200


def test_batches_are_filled_to_the_limit_but_never_beyond() -> None:
    wanted = [(b"key", b"v" * 100)] * 1000
    sent = built([Rows.of(wanted)], 10_000)
    one = len(built([Rows.of(wanted[:1])])[0]) - kernel.HEADER_BYTES
    assert all(10_000 - one - 4 < len(data) <= 10_000 for data in sent[:-1])


def test_row_beyond_the_limit_is_our_bug() -> None:
    rows = Rows.of([(b"small", b""), (b"large", b"x" * 200)])
    with pytest.raises(InvariantError, match="row b'large' of 205 bytes, limit 200 a batch"):
        record_batches([rows], NOW_MS, 200, 200)


def test_a_record_beyond_the_aim_has_a_batch_of_its_own_size() -> None:
    small, large = [(b"key", b"v" * 100)] * 3, (b"large", b"x" * 5000)
    wanted = [*small, large, *small]
    rows = record_batches([Rows.of(wanted)], NOW_MS, 1000, 6000)
    emits = [Emit(MARKS, key, value) for key, value in wanted]
    events = list(event_batches(emits, NOW_MS, 1000, 6000))
    # Three small ones, then what begins with the large one.
    assert [batch.record_count() for batch in rows] == [3, 4]
    assert [batch.record_count() for batch in events] == [3, 1, 3]
    for batches in (rows, events):
        found = [
            (record.key, record.value)
            for batch in batches
            for record in MemoryRecords(bytes(batch._build())).next_batch()
        ]
        assert found == wanted


def test_no_rows_make_no_batch() -> None:
    assert record_batches([Rows.of([])], NOW_MS, 1000) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [9000, 70_000, MAX_BATCH_BYTES])
def test_batches_of_events_read_back_are_the_events(seed: int, limit: int) -> None:
    made = EventHeaders(LIQUIDATIONS, 0, NOW_MS * 1000)
    events = [
        Emit(LIQUIDATIONS, key, value, headers=made.block(f"a:cross:{n}", 1, "opened", "a"))
        if n % 3
        else Emit(MARKS, key, value)
        for n, (key, value) in enumerate(pairs(seed, 300))
        if value is not None
    ]
    ours, theirs, others = [], [], []
    for batch in event_batches(events, NOW_MS, limit, limit):
        batch._set_producer_state(4711, 3, 0)
        data = bytes(batch._build())
        assert len(data) == batch.size() <= limit
        run, _ = raw.read_blob(
            TopicPartition("t", 0), data, None, 0, check_crcs=True, is_committed=True
        )
        ours += [(record.key, record.value) for record in run]
        for client, found in ((MemoryRecords, theirs), (KafkaPythonRecords, others)):
            one = client(data).next_batch()
            assert one.validate_crc()
            records = list(one)
            assert [record.offset for record in records] == list(range(batch.record_count()))
            found += [(record.key, record.value, len(record.headers)) for record in records]
    assert ours == [(event.key, event.value) for event in events]
    assert theirs == others
    assert theirs == [(e.key, e.value, 8 if e.topic == LIQUIDATIONS else 0) for e in events]


def test_event_beyond_the_limit_is_our_bug() -> None:
    events = [Emit(MARKS, b"small", b""), Emit(MARKS, b"large", b"x" * 200)]
    with pytest.raises(InvariantError, match="event b'large' of 209 bytes, limit 200 a batch"):
        list(event_batches(events, NOW_MS, 200, 200))


@pytest.mark.parametrize("limit", [9000, MAX_BATCH_BYTES])
def test_twin_builds_the_same_bytes(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Rows.of(pairs(3, 100)), Rows.of(pairs(4, 5))]
    fast = built(rows, limit)
    monkeypatch.setattr(writer, "put_rows_jit", kernel.put_rows_reference)
    assert built(rows, limit) == fast


def test_rows_over_read_only_bytes_are_taken_without_another_compilation() -> None:
    data = np.frombuffer(b"kv", np.uint8)
    assert not data.flags.writeable
    one = np.ones(1, np.int32)
    assert len(built([Rows(data, one, one)])) == 1
    assert len(kernel.put_rows_jit.nopython_signatures) == 1
