"""An aiokafka consumer that hands over runs: columns over the fetched bytes, no object a record.

Positions, seeking, pausing, rebalances, prefetching and errors stay aiokafka's; only what reads a
fetched blob is ours. Nothing of aiokafka is changed: two of its functions run once more over a copy
of their module's names in which three classes are replaced, so every other consumer of the process
is untouched. A blob that holds anything unusual is read by aiokafka's own classes, which also raise
its errors; that is logged. See ``pins`` for what is relied on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FunctionType
from typing import Any, Final, TypeVar, cast

import numpy as np
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition, codec
from aiokafka.consumer import fetcher as stock
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from crc32c import crc32c

from solvent.engine.run import Run
from solvent.errors import ConfigError, InvariantError
from solvent.kernel import batches as kernel
from solvent.kernel.batches import (
    BATCH_BEGIN,
    BATCH_CODEC,
    BATCH_COUNT,
    BATCH_CRC,
    BATCH_END,
    BATCH_SLOTS,
    BATCH_START,
    DISORDER,
    FULL,
    GOOD,
    SMALLEST_RECORD,
    find_batches_jit,
    hide_batches_jit,
    read_records_jit,
)
from solvent.kernel.layout import Int64, UInt8

__all__ = ["RunConsumer", "RunFetcher", "read_blob", "rebound"]

log = structlog.get_logger(__name__)

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: A batch's checksum covers everything from here on.
_SUMMED_FROM: Final = 21
_USUAL_BATCH_BYTES: Final = 4096

#: Codec number of a batch -> what unpacks it, aiokafka's own.
_UNPACK: Final[Mapping[int, Callable[[bytes], bytes]]] = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}

Aborted = Collection[tuple[int, int]] | None


class _UnusualError(Exception):
    """A blob our reader leaves to aiokafka's."""


def rebound(function: _Function, **names: object) -> _Function:
    """Return the same function over a copy of its module's names with some replaced.

    Raises
    ------
    ConfigError
        [SLV-406] The function does not use one of the names: it would run as if nothing had been
        replaced.
    """
    code = cast("FunctionType", function)
    for name in names:
        if name not in code.__code__.co_names:
            msg = f"{code.__module__}.{code.__qualname__} no longer uses {name}"
            raise ConfigError(msg, code="SLV-406")
    made = FunctionType(
        code.__code__,
        {**code.__globals__, **names},
        code.__name__,
        code.__defaults__,
        code.__closure__,
    )
    made.__kwdefaults__ = code.__kwdefaults__
    made.__qualname__ = code.__qualname__
    return cast("_Function", made)


def read_blob(
    place: TopicPartition,
    data: bytes,
    aborted: Aborted,
    position: int,
    *,
    check_crcs: bool,
    is_committed: bool,
) -> tuple[Run, int]:
    """Return the records of a fetched blob that an application may see, and the next offset.

    Parameters
    ----------
    place : TopicPartition
        Named in errors.
    data : bytes
        Record batches; a last one may be cut off.
    aborted : collection of (producer, first offset)
        The blob's aborted transactions, as the broker lists them.
    position : int
        Offset asked for; the first batch may begin below it.
    check_crcs : bool
        Check each batch's sum.
    is_committed : bool
        Leave aborted transactions out (the broker sends no open ones).

    Returns
    -------
    run : Run
        May be empty.
    position : int
        Where to go on.

    Raises
    ------
    CorruptRecordException
        A sum is wrong, offsets go back, or a record cannot be read.
    UnsupportedCodecError
        A library is missing.
    """
    try:
        return _read(place, data, aborted, position, check_crcs, is_committed)
    except _UnusualError as unusual:
        run, position = _read_by_aiokafka(place, data, aborted, position, check_crcs, is_committed)
        log.warning(
            "unusual_batch",
            topic=place.topic,
            partition=place.partition,
            what=str(unusual),
            records=len(run),
        )
        return run, position


def _read(
    place: TopicPartition,
    data: bytes,
    aborted: Aborted,
    position: int,
    check_crcs: bool,
    is_committed: bool,
) -> tuple[Run, int]:
    blob = np.frombuffer(data, np.uint8)
    found = _find(place, blob)
    if check_crcs:
        _check_sums(place, data, found)
    ordered = sorted(aborted or (), key=lambda one: one[1])
    visible = np.empty(len(found), np.uint8)
    answer = hide_batches_jit(
        blob,
        found,
        is_committed,
        np.array([producer for producer, _ in ordered], np.int64),
        np.array([first for _, first in ordered], np.int64),
        np.empty(len(ordered), np.int64),
        visible,
    )
    if answer != GOOD:
        what = "transaction marker"
        raise _UnusualError(what)
    if found[:, BATCH_CODEC].any():
        blob = _unpacked(data, found, visible)
    # A batch may lie about its count; no record is shorter than this.
    room = int(np.minimum(found[:, BATCH_COUNT], blob.size // SMALLEST_RECORD)[visible > 0].sum())
    if int(found[:, BATCH_COUNT][visible > 0].sum()) != room:
        what = "record count"
        raise _UnusualError(what)
    wide = np.empty((4, room), np.int64)
    narrow = np.empty((2, room), np.int32)
    offset, time, key_first, value_first = wide
    key_size, value_size = narrow
    count, position, answer = read_records_jit(
        blob,
        found,
        visible,
        position,
        offset,
        time,
        key_first,
        key_size,
        value_first,
        value_size,
    )
    if answer != GOOD:
        what = "record"
        raise _UnusualError(what)
    run = Run(blob, offset, time, key_first, key_size, value_first, value_size)
    return (run if count == room else run[:count]), position


def _find(place: TopicPartition, blob: UInt8) -> Int64:
    """Return the table of a blob's batches."""
    table = np.empty((max(16, blob.size // _USUAL_BATCH_BYTES), BATCH_SLOTS), np.int64)
    count, answer = find_batches_jit(blob, table)
    if answer == FULL:
        table = np.empty((blob.size // kernel.HEADER_BYTES, BATCH_SLOTS), np.int64)
        count, answer = find_batches_jit(blob, table)
    if answer == DISORDER:
        msg = f"{place}: offsets go back after {table[count - 1, kernel.BATCH_LAST]}"
        raise CorruptRecordException(msg)
    if answer != GOOD:
        what = "batch header"
        raise _UnusualError(what)
    return table[:count]


def _check_sums(place: TopicPartition, data: bytes, found: Int64) -> None:
    with memoryview(data) as view:
        for start, end, expected in found[:, [BATCH_START, BATCH_END, BATCH_CRC]].tolist():
            if crc32c(view[start + _SUMMED_FROM : end]) != expected:
                msg = f"Invalid CRC - {place}"
                raise CorruptRecordException(msg)


def _unpacked(data: bytes, found: Int64, visible: UInt8) -> UInt8:
    """Return the visible batches' records in one buffer, and let the table point there."""
    parts = []
    size = 0
    for row in np.flatnonzero(visible).tolist():
        part = data[found[row, BATCH_BEGIN] : found[row, BATCH_END]]
        number = int(found[row, BATCH_CODEC])
        if number:
            unpack = _UNPACK.get(number)
            if unpack is None or not _is_installed(number):
                what = f"codec {number}"
                raise _UnusualError(what)
            part = unpack(part)
        parts.append(part)
        found[row, BATCH_BEGIN] = size
        size += len(part)
        found[row, BATCH_END] = size
    return np.frombuffer(b"".join(parts), np.uint8)


def _is_installed(number: int) -> bool:
    has = {2: codec.has_snappy, 3: codec.has_lz4, 4: codec.has_zstd}.get(number, codec.has_gzip)
    return bool(has())


def _read_by_aiokafka(
    place: TopicPartition,
    data: bytes,
    aborted: Aborted,
    position: int,
    check_crcs: bool,
    is_committed: bool,
) -> tuple[Run, int]:
    reader = stock.PartitionRecords(
        place,
        MemoryRecords(data),
        aborted,
        position,
        None,
        None,
        check_crcs,
        stock.READ_COMMITTED if is_committed else stock.READ_UNCOMMITTED,
    )
    run = Run.of(list(reader))
    if (np.diff(run.offset) <= 0).any():
        msg = f"{place}: offsets go back"
        raise CorruptRecordException(msg)
    return run, reader.next_fetch_offset


class _Blob:
    """Stands where aiokafka has its `MemoryRecords`: the same bytes, not yet looked into."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._stock = MemoryRecords(data)

    def has_next(self) -> bool:
        """Whether there is a whole batch."""
        return bool(self._stock.has_next())

    def size_in_bytes(self) -> int:
        """Return the bytes fetched."""
        return len(self.data)


class _RunReader:
    """Stands where aiokafka has its `PartitionRecords`: an iterator over one run, or none.

    The blob is read when the run is taken. An error leaves the position where it was, so the
    partition is fetched again and raises again, as with aiokafka's own ``getmany``.
    """

    def __init__(
        self,
        tp: TopicPartition,
        records: _Blob,
        aborted_transactions: Aborted,
        fetch_offset: int,
        key_deserializer: None,
        value_deserializer: None,
        check_crcs: bool,
        isolation_level: int,
    ) -> None:
        del key_deserializer, value_deserializer  # the engine decodes
        self.next_fetch_offset = fetch_offset
        self._arguments: Any = (tp, records.data, aborted_transactions, fetch_offset)
        self._check_crcs = check_crcs
        self._is_committed = isolation_level == stock.READ_COMMITTED

    def __iter__(self) -> Iterator[Run]:
        return self

    def __next__(self) -> Run:
        arguments, self._arguments = self._arguments, None
        if arguments is None:
            raise StopIteration
        run, self.next_fetch_offset = read_blob(
            *arguments, check_crcs=self._check_crcs, is_committed=self._is_committed
        )
        if not run:
            raise StopIteration
        return run


class RunFetcher(stock.Fetcher):
    """Fetcher whose blobs are read by `read_blob`."""

    _proc_fetch_request = rebound(
        stock.Fetcher._proc_fetch_request, MemoryRecords=_Blob, PartitionRecords=_RunReader
    )

    async def fetched_records(
        self,
        partitions: Collection[TopicPartition],
        timeout: float = 0,  # noqa: ASYNC109 - aiokafka's
        max_records: int | None = None,
    ) -> dict[TopicPartition, Run]:
        """Return one run per partition that has records; it is never cut, whatever `max_records`.

        Raises
        ------
        InvariantError
            [SLV-900] aiokafka read a blob on its own: what this hook replaces is no longer used.
        """
        del max_records
        fetched = await super().fetched_records(partitions, timeout)
        return {place: _only_run(place, found) for place, found in fetched.items()}

    async def close(self) -> None:
        """Close, whatever the fetches under way make of it.

        One that waits before its next attempt raises its cancellation in aiokafka's own ``close``,
        which ends there: the thread it runs on would die and its service never stop.
        """
        self._fetch_task.cancel()
        await asyncio.wait([self._fetch_task])
        for task in self._pending_tasks:
            task.cancel()
        await asyncio.gather(*self._pending_tasks, return_exceptions=True)
        self._pending_tasks.clear()
        await super().close()


def _only_run(place: TopicPartition, found: list[Any]) -> Run:
    if len(found) != 1 or not isinstance(found[0], Run):
        msg = f"fetch of {place} gave {len(found)} x {type(found[0]).__name__}, one run expected"
        raise InvariantError(msg)
    return found[0]


class RunConsumer(AIOKafkaConsumer):
    """Consumer whose ``getmany`` returns one `Run` per partition that has records."""

    start = rebound(AIOKafkaConsumer.start, Fetcher=RunFetcher)
