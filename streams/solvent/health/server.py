"""HTTP for health: GET only, a thread and an event loop of its own, plain text and JSON.

The worker's own event loop is not asked, so a worker whose loop is blocked still answers.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from aiohttp import web

from solvent.errors import ConfigError, InvariantError, ServiceError

__all__ = ["Answer", "HealthServer", "bind"]

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 5.0


class Answer(NamedTuple):
    """Status, content type and body of one answer."""

    status: int
    content_type: str
    body: bytes


def bind(host: str, port: int | None, *, preferred: int | None = None) -> socket.socket:
    """Return a listening socket.

    Parameters
    ----------
    host : str
        Address or name to listen on.
    port : int or None
        The port; None: `preferred` if it is free, else any free one.
    preferred : int, optional
        The port of last time.

    Raises
    ------
    ServiceError
        [SLV-603] The port is taken, or may not be used.
    ConfigError
        [SLV-405] The host is no address of this machine.
    """
    try:
        address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        msg = f"health_host {host!r}: {error.strerror}; an address of this machine expected"
        raise ConfigError(msg, code="SLV-405") from None
    family, place = address[0], str(address[4][0])
    if port is None and preferred is not None:
        try:
            return socket.create_server((place, preferred), family=family)
        except OSError:
            port = None  # any other will do
    try:
        return socket.create_server((place, port or 0), family=family)
    except OSError as error:
        if port is None:
            msg = f"health_host {host!r}: {error.strerror}; an address of this machine expected"
            raise ConfigError(msg, code="SLV-405") from None
        msg = (
            f"health port {port} at {host}: {error.strerror}; stop what uses it, set "
            "SOLVENT_HEALTH_PORT to another, or leave it unset for any free one"
        )
        raise ServiceError(msg, code="SLV-603") from None


class HealthServer:
    """The server.

    Parameters
    ----------
    listening : socket.socket
        From `bind`; it is closed at the end.
    answers : mapping of str to callable
        Path -> what makes its answer; called in the server's thread.
    """

    def __init__(
        self, listening: socket.socket, answers: Mapping[str, Callable[[], Answer]]
    ) -> None:
        self._listening = listening
        self._answers = answers
        host, self.port = listening.getsockname()[:2]
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="solvent health", daemon=True)

    def start(self) -> None:
        """Serve from now on; returns once requests are answered.

        Raises
        ------
        InvariantError
            The server's thread did not come up.
        """
        self._thread.start()
        if not self._serving.wait(_START_TIMEOUT_S):
            msg = f"health server at {self.url}: not serving after {_START_TIMEOUT_S} s"
            raise InvariantError(msg)

    def stop(self) -> None:
        """Stop serving and close the socket."""
        loop = self._loop
        if loop is not None and self._thread.is_alive():
            loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application()
        for path, make in self._answers.items():
            app.router.add_get(path, _handler(make))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, self._listening).start()
            self._serving.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()


def _handler(make: Callable[[], Answer]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        del request
        status, content_type, body = make()
        headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
        return web.Response(status=status, body=body, headers=headers)

    return handle
