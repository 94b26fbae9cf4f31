"""The local broker: Apache Kafka itself, one KRaft node per data directory.

``<data_dir>/kafka`` holds everything: ``kafka.json`` (pid and ports), ``server.properties`` as
used, ``kafka.log``, ``kafka.out`` (what the JVM printed) and ``logs`` (the data). The process runs
in a session of its own, so it outlives its caller until `LocalKafka.stop`. It is known by a marker
on its command line, never by its pid alone.

Errors, all `ServiceError`, and the exit code the command line gives each:

======= ==== ==================================================================
SLV-601  41  no Java, or older than 17
SLV-602  42  no Maven, or it could not resolve Kafka's jars (needed once)
SLV-603  43  the port is taken
SLV-604  44  the data or cache directory cannot be written
SLV-605  45  Kafka died while starting
SLV-606  46  Kafka did not answer within the deadline
SLV-607  47  Kafka could not be stopped, or runs on a port other than asked for
SLV-608  48  no broker answers at the given address
======= ==== ==================================================================
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import string
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from solvent.errors import ServiceError
from solvent.ops.broker import answers, tcp_open
from solvent.ops.jars import deploy_dir, find_java, kafka_version, resolve_jars
from solvent.ops.locks import file_lock

__all__ = ["KafkaState", "KafkaStatus", "LocalKafka"]

#: JVM property whose value, the broker's directory, tells our process from any other.
_MARKER = "-Dsolvent.kafka.dir="
_POLL_S = 0.1
_PORT_ATTEMPTS = 3
#: Recorded instead of a pid once the node was stopped.
_STOPPED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaState:
    """What ``kafka.json`` remembers between commands."""

    pid: int
    port: int
    controller_port: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaStatus:
    """What `LocalKafka.status` found; ``stale_pid`` names a recorded process that is not ours."""

    running: bool
    answering: bool
    bootstrap_servers: str | None
    controller_port: int | None
    pid: int | None
    stale_pid: int | None
    version: str
    data_dir: str
    log: str


class LocalKafka:
    """One Kafka node under a data directory.

    Parameters
    ----------
    data_dir : Path
        Made if absent; the broker's own files go into its ``kafka`` folder.
    port : int, optional
        Client port on 127.0.0.1. Without it the last one is used again if free, else any free one.
    heap : str
        Java heap, as ``-Xmx`` takes it.
    cache_dir : Path, optional
        Where resolved jars are kept; see `solvent.settings.default_cache_dir`.

    Examples
    --------
    >>> kafka = LocalKafka(Path(".solvent"))  # doctest: +SKIP
    >>> kafka.start()  # doctest: +SKIP
    '127.0.0.1:40123'
    >>> kafka.stop()  # doctest: +SKIP
    """

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        *,
        heap: str = "1g",
        cache_dir: Path | None = None,
    ) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.folder = self.data_dir / "kafka"
        self.log_path = self.folder / "kafka.log"
        self._port = port
        self._heap = heap
        self._cache_dir = cache_dir

    @property
    def bootstrap_servers(self) -> str:
        """The address of this node, as last started.

        Raises
        ------
        ServiceError
            [SLV-608] It was never started.
        """
        state = self._state()
        if state is None:
            msg = f"no Kafka was started in {self.data_dir}: run `solvent kafka start`"
            raise ServiceError(msg, code="SLV-608")
        return f"127.0.0.1:{state.port}"

    @property
    def pid(self) -> int | None:
        """Process id if it runs, else None."""
        state = self._state()
        return state.pid if state is not None and self._is_ours(state.pid) else None

    def is_running(self) -> bool:
        """Tell whether our process is alive (it may still be starting)."""
        return self.pid is not None

    def status(self) -> KafkaStatus:
        """Look, and change nothing."""
        state = self._state()
        pid = self.pid
        address = None if state is None or pid is None else f"127.0.0.1:{state.port}"
        return KafkaStatus(
            running=pid is not None,
            answering=address is not None and answers(address),
            bootstrap_servers=address,
            controller_port=state.controller_port if state is not None and address else None,
            pid=pid,
            stale_pid=state.pid
            if state is not None and pid is None and state.pid != _STOPPED
            else None,
            version=state.version if state is not None else kafka_version(),
            data_dir=str(self.data_dir),
            log=str(self.log_path),
        )

    def start(self, deadline_s: float = 60.0) -> str:
        """Start the node if it does not run, wait until it answers, and return its address.

        Raises
        ------
        ServiceError
            [SLV-601] to [SLV-607], see the module.
        """
        with self._locked():
            state = self._state()
            if state is not None and self._is_ours(state.pid):
                self._accept_running(state, deadline_s)
            else:
                self._launch(state, deadline_s)
        return self.bootstrap_servers

    def stop(self, deadline_s: float = 30.0) -> bool:
        """Stop the node: SIGTERM, then SIGKILL after the deadline. Return whether one was running.

        Raises
        ------
        ServiceError
            [SLV-607] It survives SIGKILL or belongs to somebody else.
        """
        if not self.folder.is_dir():
            return False
        with self._locked():
            pid = self.pid
            if pid is None:
                return False
            for number in (signal.SIGTERM, signal.SIGKILL):
                self._signal(pid, number)
                if self._wait_gone(pid, deadline_s):
                    self._forget_pid()
                    return True
        msg = f"Kafka pid {pid} does not end: stop it by hand"
        raise ServiceError(msg, code="SLV-607")

    def kill(self) -> None:
        """End the node at once with SIGKILL, as a crash would; for tests and drills."""
        pid = self.pid
        if pid is not None:
            self._signal(pid, signal.SIGKILL)
            self._wait_gone(pid, 10.0)

    # -- starting -------------------------------------------------------------------------------

    def _accept_running(self, state: KafkaState, deadline_s: float) -> None:
        if self._port not in (None, state.port):
            msg = (
                f"Kafka pid {state.pid} runs on port {state.port}, asked for {self._port}: "
                "run `solvent kafka stop` first"
            )
            raise ServiceError(msg, code="SLV-607")
        self._wait_ready(state, None, deadline_s)

    def _launch(self, last: KafkaState | None, deadline_s: float) -> None:
        java = find_java()
        jars = resolve_jars(self._cache_dir)
        attempts = 1 if self._port is not None else _PORT_ATTEMPTS
        for attempt in range(attempts):
            ports = self._choose_ports(last if attempt == 0 else None)
            try:
                self._launch_on(java, jars, ports, deadline_s)
            except ServiceError as error:
                if error.code != "SLV-603" or attempt + 1 == attempts:
                    raise
            else:
                return

    def _choose_ports(self, last: KafkaState | None) -> tuple[int, int]:
        if self._port is not None:
            if not _is_free(self._port):
                msg = f"port {self._port} is taken: stop what uses it or give another with --port"
                raise ServiceError(msg, code="SLV-603")
            return self._port, _free_port()
        if last is not None and _is_free(last.port) and _is_free(last.controller_port):
            return last.port, last.controller_port
        return _free_port(), _free_port()

    def _launch_on(self, java: Path, jars: Path, ports: tuple[int, int], deadline_s: float) -> None:
        properties = self._write_properties(*ports)
        self._format(java, jars, properties)
        command = [
            str(java),
            f"-Xmx{self._heap}",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={deploy_dir() / 'log4j2.properties'}",
            f"-Dsolvent.kafka.log={self.log_path.name}",
            f"{_MARKER}{self.folder}",
            "-cp",
            f"{jars}/*",
            "kafka.Kafka",
            properties.name,
        ]
        with (self.folder / "kafka.out").open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        state = KafkaState(
            pid=process.pid, port=ports[0], controller_port=ports[1], version=kafka_version()
        )
        self._write_state(state)
        try:
            self._wait_ready(state, process, deadline_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        # Takes the exit status whenever it comes, so that no zombie is left in a long-lived caller.
        threading.Thread(target=process.wait, name="kafka-reaper", daemon=True).start()

    def _format(self, java: Path, jars: Path, properties: Path) -> None:
        if (self.folder / "logs" / "meta.properties").is_file():
            return
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = [str(java), "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
        command = [*tool, "kafka.tools.StorageTool", "format", "--config", properties.name]
        answer = subprocess.run(
            [*command, f"--cluster-id={cluster_id}"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if answer.returncode != 0:
            lines = (answer.stderr + answer.stdout).strip().splitlines() or ["no output"]
            msg = f"Kafka's storage in {self.folder} could not be formatted: {lines[-1][:200]}"
            raise ServiceError(msg, code="SLV-605")

    def _wait_ready(
        self, state: KafkaState, process: subprocess.Popen[bytes] | None, deadline_s: float
    ) -> None:
        address = f"127.0.0.1:{state.port}"
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            if tcp_open(address) and answers(address):
                return
            if process is None:
                time.sleep(_POLL_S)
                continue
            try:
                process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            raise self._death(state, process.returncode)
        msg = f"Kafka did not answer at {address} within {deadline_s:.0f} s: see {self.log_path}"
        raise ServiceError(msg, code="SLV-606")

    def _death(self, state: KafkaState, returncode: int) -> ServiceError:
        lines: list[str] = []
        for path in (self.log_path, self.folder / "kafka.out"):
            if path.is_file():
                text = path.read_text("utf-8", errors="replace")[-20_000:]
                lines += [
                    s for s in text.splitlines() if "ERROR" in s or "Exception" in s or "rror:" in s
                ]
        if any("Address already in use" in line for line in lines) and not (
            _is_free(state.port) and _is_free(state.controller_port)
        ):
            msg = f"port {state.port} or {state.controller_port} was taken meanwhile: try again"
            return ServiceError(msg, code="SLV-603")
        reason = f": {lines[-1].strip()[:200]}" if lines else ""
        msg = f"Kafka died while starting (exit code {returncode}){reason}: see {self.log_path}"
        return ServiceError(msg, code="SLV-605")

    # -- files ----------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self.folder / "lock"):
                yield
        except OSError as error:
            msg = (
                f"data directory {self.data_dir}: {error.strerror or error}: "
                "give one you can write with --data-dir"
            )
            raise ServiceError(msg, code="SLV-604") from None

    def _write_properties(self, port: int, controller_port: int) -> Path:
        template = string.Template((deploy_dir() / "server.properties").read_text("utf-8"))
        path = self.folder / "server.properties"
        values = {
            "port": str(port),
            "controller_port": str(controller_port),
            # Relative to the node's working directory: Java reads these files as Latin-1, and
            # Kafka splits the value at commas, so no path of the user's may stand here.
            "log_dir": "logs",
        }
        # The template's own comment shows ${...}; `safe_substitute` leaves it alone.
        path.write_text(template.safe_substitute(values), "utf-8")
        return path

    def _write_state(self, state: KafkaState) -> None:
        path = self.folder / "kafka.json"
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(asdict(state)) + "\n", "utf-8")
        scratch.replace(path)

    def _forget_pid(self) -> None:
        """Remember that the node was stopped, not lost; its ports are kept for the next start."""
        state = self._state()
        if state is not None:
            self._write_state(replace(state, pid=_STOPPED))

    def _state(self) -> KafkaState | None:
        try:
            return KafkaState(**json.loads((self.folder / "kafka.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    # -- processes ------------------------------------------------------------------------------

    def _is_ours(self, pid: int) -> bool:
        return f"{_MARKER}{self.folder}" in _arguments(pid)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            msg = f"Kafka pid {pid} belongs to another user: stop it as that user"
            raise ServiceError(msg, code="SLV-607") from None

    def _wait_gone(self, pid: int, deadline_s: float) -> bool:
        deadline = time.monotonic() + deadline_s
        while self._is_ours(pid):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S / 2)
        # A dying process loses its command line before its sockets: wait for those too, so that
        # a start right after finds its last port free.
        state = self._state()
        while state is not None and time.monotonic() < deadline and _exists(pid):
            if _is_free(state.port) and _is_free(state.controller_port):
                break
            time.sleep(_POLL_S / 10)
        return True


def _arguments(pid: int) -> list[str]:
    """Return a process's command line; empty if it is gone, a zombie or not ours to see."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        pass
    if Path("/proc/self/cmdline").exists():
        return []
    answer = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.split()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
