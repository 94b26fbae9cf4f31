"""A cable between a worker and the broker that can be cut: a TCP relay in a thread.

Cut *silently*, bytes wait in the cable and come out when it is mended, as TCP delivers what it kept
sending over an interrupted network; so a worker that was given up for dead may still have its
commit delivered. Cut *with a reset*, connections break and new ones are refused.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any

__all__ = ["Link", "Links"]


class Link:
    """One relay, from a port of its own to a port of the broker."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._relay, sock=self._socket)

    async def cut(self, *, reset: bool) -> None:
        """Cut it; see the module."""
        if reset:
            self._refuses = True
            for writer in list(self._writers):
                writer.transport.abort()
        else:
            self._flows.clear()

    async def mend(self) -> None:
        self._refuses = False
        self._flows.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            await self._flows.wait()
            if self._refuses:
                return
            try:
                far_reader, far_writer = await asyncio.open_connection(
                    "127.0.0.1", self.target_port
                )
            except OSError:
                return
            self._writers.add(far_writer)
            try:
                pumps = [
                    asyncio.ensure_future(self._pump(reader, far_writer)),
                    asyncio.ensure_future(self._pump(far_reader, writer)),
                ]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
            finally:
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except asyncio.CancelledError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass


class Links:
    """Some links in a thread with a loop of its own.

    Parameters
    ----------
    target_ports : list of int
        One link each; `ports` gives the near ends, in the same order.
    """

    def __init__(self, target_ports: list[int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()
        self._links = [self._do(_made(port)) for port in target_ports]
        self.ports = [link.port for link in self._links]

    def cut(self, index: int, *, reset: bool = False) -> None:
        """Cut one link."""
        self._do(self._links[index].cut(reset=reset))

    def mend(self, index: int) -> None:
        """Mend one link."""
        self._do(self._links[index].mend())

    def close(self) -> None:
        """Close all and end the thread."""
        for link in self._links:
            self._do(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


async def _made(target_port: int) -> Link:
    link = Link(target_port)
    await link.open()
    return link
