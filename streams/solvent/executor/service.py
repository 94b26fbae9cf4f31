"""The executor at work: takes offers and answers each once, in Kafka transactions.

Two ways to answer: a strategy in this process (`run_executor`), or a program in any language beyond
standard input and output (`run_bridge`). Both read `Connection`, ask the `Book`, and write fills
with their read position. Trade ids are functions of the offer, so even a fill written twice by
other means is one fill to the engine.

A strategy's batch is one transaction, positions and all. A bridge's answers come when they come:
its position stays before the first offer not answered yet, so a restart shows that one again. So
does what stands at the start (`solvent.executor.connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from solvent.errors import ServiceError
from solvent.executor.book import Book
from solvent.executor.bridge import Bridge
from solvent.executor.claims import Claimant
from solvent.executor.connection import Connection, ExecutorConfig
from solvent.executor.desk import Desk
from solvent.executor.fills import Fill, Steps
from solvent.executor.tally import Tally

__all__ = ["ExecutorConfig", "Sink", "run_bridge", "run_executor"]

_CHUNK: Final = 65_536
#: Bytes written at once: progress is seen after each.
_PIECE: Final = 8_192
#: A line without end is not read for ever.
_MAX_LINE: Final = 65_536


async def run_executor(config: ExecutorConfig, desk: Desk) -> dict[str, int]:
    """Answer offers by a strategy until SIGTERM or SIGINT; return the counts.

    Raises
    ------
    ServiceError
        [SLV-608] The broker refuses, [SLV-611] another instance took over.
    """
    tally = desk.tally
    async with _stopping() as stopping, _connected(config, desk.book, tally.log) as connection:
        while not stopping.is_set():
            batch = await connection.poll()
            silent = _listen(connection, tally)
            fills = await desk.decide(batch, silent)
            next_offsets = {
                received.partition: received.offset + 1 for received in batch if not received.stands
            }
            reports = desk.take_reports()
            if fills or reports or next_offsets:
                await connection.write(fills, next_offsets, reports)
                _tell(fills, config, tally)
    tally.log.info("executor_stopped", **tally.counts)
    return tally.counts


async def run_bridge(
    config: ExecutorConfig,
    book: Book,
    steps: Steps,
    tally: Tally,
    *,
    lines_in: int,
    lines_out: int,
    patience_s: float = 30.0,
    claimant: Claimant | None = None,
) -> dict[str, int]:
    """Answer offers by what comes in as lines, until these end, SIGTERM or SIGINT.

    Parameters
    ----------
    lines_in : int
        File descriptor read in a thread of its own.
    lines_out : int
        File descriptor written at once, by a thread of its own; who does not read it stops the
        executor's reading too.
    patience_s : float
        For how long nothing may be read of what was written.
    claimant : Claimant or None
        Claims leased offers; without one they are left alone.

    Raises
    ------
    ServiceError
        [SLV-612] Nobody reads the lines, else as `run_executor`.
    """
    bridge = Bridge(book, steps, tally, claimant)
    async with _stopping() as stopping, _connected(config, book, tally.log) as connection:
        lines, sink = _Lines(lines_in), Sink(lines_out, patience_s)
        committed: dict[int, int] = {}
        polled = asyncio.ensure_future(connection.poll())
        more = asyncio.ensure_future(lines.arrived.wait())
        try:
            while not stopping.is_set():
                await asyncio.wait({polled, more}, return_when=asyncio.FIRST_COMPLETED)
                if polled.done():
                    silent = _listen(connection, tally)
                    await sink.write(bridge.tell(polled.result(), silent), stopping)
                    polled = asyncio.ensure_future(connection.poll())
                # Whether they ended is asked first: no line comes after the end.
                have_ended = lines.have_ended
                fills = [fill for line in lines.take() for fill in bridge.hear(line)]
                positions, reports = bridge.positions(), bridge.take_reports()
                if fills or reports or positions != committed:
                    offsets = await connection.write(fills, positions, reports)
                    bridge.wrote(fills, offsets)
                    committed = positions
                    _tell(fills, config, tally)
                await sink.write(bridge.replies(), stopping)
                if have_ended:
                    break
                if more.done():
                    more = asyncio.ensure_future(lines.arrived.wait())
        except BrokenPipeError:
            tally.log.warning("bridge_reader_gone")
        finally:
            for task in (polled, more):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    tally.log.info("executor_stopped", **tally.counts)
    return tally.counts


class _Lines:
    """Lines of a file descriptor, read by a thread that dies with the process.

    A thread, since a descriptor may be a file, which no event loop can wait for; `os.read`, since
    a buffered reader's lock would be held when the interpreter ends.
    """

    def __init__(self, descriptor: int) -> None:
        self.arrived = asyncio.Event()
        self.have_ended = False
        self._lines: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        arguments = (descriptor,)
        threading.Thread(target=self._read, args=arguments, name="lines", daemon=True).start()

    def take(self) -> list[bytes]:
        """Return the lines that came since."""
        self.arrived.clear()
        lines, self._lines = self._lines, []
        return lines

    def _read(self, descriptor: int) -> None:
        rest = b""
        while chunk := os.read(descriptor, _CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MAX_LINE:
                lines, rest = [*lines, rest], b""
            self._hand_over(lines, is_end=False)
        self._hand_over([rest] if rest else [], is_end=True)

    def _hand_over(self, lines: Sequence[bytes], *, is_end: bool) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has gone: so has all interest
            self._loop.call_soon_threadsafe(self._arrive, lines, is_end)

    def _arrive(self, lines: Sequence[bytes], is_end: bool) -> None:
        self._lines += [line for line in lines if line.strip()]
        self.have_ended = is_end
        if self._lines or is_end:
            self.arrived.set()


class Sink:
    """A file descriptor, written by a thread that dies with the process.

    Parameters
    ----------
    descriptor : int
        Blocks while its reader does not read.
    patience_s : float
        For how long it may.
    """

    def __init__(self, descriptor: int, patience_s: float) -> None:
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._left = 0
        self._error: OSError | None = None
        self._texts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        arguments = (descriptor,)
        threading.Thread(target=self._run, args=arguments, name="sink", daemon=True).start()

    async def write(self, lines: Sequence[bytes], stopping: asyncio.Event) -> None:
        """Return once the lines are written, or `stopping` is set.

        Raises
        ------
        BrokenPipeError
            The reader has gone.
        ServiceError
            [SLV-612] It has not read for too long.
        """
        text = b"".join(line + b"\n" for line in lines)
        if not text:
            return
        self._left += len(text)
        self._texts.put(text)
        stop = asyncio.ensure_future(stopping.wait())
        try:
            while self._left and not stop.done():
                self._moved.clear()
                moved = asyncio.ensure_future(self._moved.wait())
                await asyncio.wait(
                    {moved, stop}, timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED
                )
                moved.cancel()
                if self._error is not None:
                    raise self._error
                if not self._moved.is_set() and not stop.done():
                    msg = (
                        f"bridge: nothing read for {self._patience_s:g} s, {self._left:,} bytes "
                        "wait: the program beyond standard output hangs"
                    )
                    raise ServiceError(msg, code="SLV-612")
        finally:
            stop.cancel()

    def _run(self, descriptor: int) -> None:
        error = None
        while error is None:
            text = self._texts.get()
            for first in range(0, len(text), _PIECE):
                try:
                    done = self._put(descriptor, text[first : first + _PIECE])
                except OSError as raised:
                    done, error = 0, raised
                with contextlib.suppress(RuntimeError):  # the loop has gone
                    self._loop.call_soon_threadsafe(self._note, done, error)
                if error is not None:
                    break

    @staticmethod
    def _put(descriptor: int, piece: bytes) -> int:
        written = 0
        while written < len(piece):
            written += os.write(descriptor, piece[written:])
        return written

    def _note(self, done: int, error: OSError | None) -> None:
        self._left -= done
        self._error = error
        self._moved.set()


@contextlib.asynccontextmanager
async def _stopping() -> AsyncIterator[asyncio.Event]:
    """Give the event that SIGTERM and SIGINT set."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        yield stopping
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _connected(config: ExecutorConfig, book: Book, log: Any) -> AsyncIterator[Connection]:
    """Give an open connection; Kafka's errors become ours."""
    from aiokafka.errors import KafkaError, ProducerFenced

    try:
        async with contextlib.AsyncExitStack() as stack:
            connection = await Connection.open(config, book, stack)
            log.info(
                "executor_started",
                group=config.group_id,
                partitions=len(connection.partitions),
                standing=len(connection.standing),
                dry_run=config.is_dry_run,
            )
            yield connection
    except ProducerFenced as error:
        msg = f"executor {config.group_id}: another instance took over"
        raise ServiceError(msg, code="SLV-611") from error
    except KafkaError as error:
        msg = f"Kafka at {config.bootstrap_servers}: {error!r}"
        raise ServiceError(msg, code="SLV-608") from error


def _listen(connection: Connection, tally: Tally) -> frozenset[int]:
    """Return the partitions that are silent, and say which newly are or are no more."""
    silent = connection.heartbeats.silent()
    tally.listened(connection.partitions, silent, connection.heartbeats.age_s)
    return silent


def _tell(fills: Sequence[Fill], config: ExecutorConfig, tally: Tally) -> None:
    if not config.is_dry_run:
        tally.wrote(len(fills))
    for fill in fills:
        tally.log.info(
            "offer_would_be_taken" if config.is_dry_run else "offer_taken",
            liquidation_id=fill.liquidation_id,
            trade_id=fill.trade_id,
            market=fill.market,
            side=fill.side,
            size=fill.size,
            price=fill.price,
        )
