"""The health server, the watchdog's thread and the address file, without a worker."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from solvent.errors import ConfigError, ServiceError
from solvent.health.checks import Limits
from solvent.health.monitor import Monitor
from solvent.health.server import Answer, HealthServer, bind
from solvent.health.watch import Subject, Watch
from solvent.ops.workers import WorkerAddress, ask, known_workers, last_address, note_address
from solvent.runtime.pulse import Pulse
from support.waiting import wait_for

LIMITS = Limits(lag=100, oracle_age_s=30.0, stall_s=10.0, stall_exit_s=120.0)


@contextmanager
def serving(answers) -> Iterator[HealthServer]:
    server = HealthServer(bind("127.0.0.1", None), answers)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_server_answers_its_pages_and_no_others() -> None:
    pages = {"/a": lambda: Answer(503, "text/plain; charset=utf-8", b"not now")}
    with serving(pages) as server:
        assert get(server, "/a") == (503, b"not now")
        assert get(server, "/b")[0] == 404
        assert get(server, "/a", "POST")[0] == 405
    with pytest.raises(ConnectionError):
        get(server, "/a")


def test_taken_port_is_refused_by_name_if_it_was_asked_for() -> None:
    with bind("127.0.0.1", None) as first:
        port = first.getsockname()[1]
        with pytest.raises(ServiceError, match=f"SLV-603 health port {port} at 127.0.0.1"):
            bind("127.0.0.1", port)


def test_last_port_is_taken_again_if_it_is_free_and_let_go_if_it_is_not() -> None:
    with bind("127.0.0.1", None) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", None, preferred=port) as second:
            assert second.getsockname()[1] != port
    with bind("127.0.0.1", None, preferred=port) as third:
        assert third.getsockname()[1] == port


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_host_that_is_not_ours_is_a_bad_setting(host: str) -> None:
    with pytest.raises(ConfigError, match="health_host"):
        bind(host, None)


def test_address_file_says_where_a_worker_is_and_a_stale_one_is_seen_through(
    tmp_path: Path,
) -> None:
    monitor = Monitor("solvent-here-0", LIMITS, on_stall=lambda *_: None)
    with serving(monitor.answers) as server:
        mine = WorkerAddress("solvent-here-0", os.getpid(), server.url)
        note_address(tmp_path, mine)
        note_address(tmp_path, WorkerAddress("solvent-here-1", 1, server.url))  # its port is ours
        assert known_workers(tmp_path) == [mine, WorkerAddress("solvent-here-1", 1, server.url)]
        assert last_address(tmp_path, "solvent-here-0") == mine
        assert mine.port == server.port
        page = ask(mine, "/readyz")
        assert page is not None
        assert page["reasons"] == ["start: starting, limit running"]
        assert ask(known_workers(tmp_path)[1], "/readyz") is None
    assert ask(mine, "/readyz") is None
    (tmp_path / "workers" / "solvent-here-0.json").write_text("{")
    assert last_address(tmp_path, "solvent-here-0") is None


def test_starting_worker_is_alive_and_not_ready() -> None:
    monitor = Monitor("w", LIMITS, on_stall=lambda *_: None)
    monitor.start()
    try:
        assert (monitor.livez().status, monitor.readyz().status) == (200, 503)
        assert b'solvent_worker_info{instance="w"' in monitor.metrics().body
        assert b"solvent_worker_ready 0.0" in monitor.metrics().body
    finally:
        monitor.stop()
    assert monitor.livez().status == 503  # nobody watches any more


def test_watchdog_sees_a_blocked_event_loop_from_its_own_thread() -> None:
    pulse, release = Pulse(), threading.Event()
    stalled: list[str] = []

    def end(subject: str, seconds: float) -> None:
        assert seconds > 1.0
        stalled.append(subject)
        release.set()

    watch = Watch(
        lambda: {"event loop": Subject(pulse.beats > 0, pulse.beats)}, limit_s=1.0, on_stall=end
    )

    async def block() -> int:
        pulse.start(asyncio.get_running_loop())
        release.wait(30)  # the loop stands still until the watchdog has seen it
        return pulse.beats

    watch.start()
    try:
        assert asyncio.run(block()) == 1
    finally:
        watch.stop()
    assert stalled == ["event loop"]


def test_stalled_worker_ends_even_if_its_log_is_blocked() -> None:
    script = """
        import logging, threading
        from solvent.worker import _end_stalled, configure_logging
        configure_logging("info")
        logging.getLogger().handlers[0].acquire()  # as by a write to a pipe nobody reads
        threading.Thread(target=_end_stalled, args=({}, "event loop", 1.0)).start()
        threading.Event().wait()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 7


def test_stop_that_hangs_ends_the_process_and_says_what_it_waits_for() -> None:
    script = """
        import asyncio, functools
        from solvent import worker
        from solvent.runtime.pulse import Pulse
        worker.configure_logging("info")
        worker._STOP_LIMIT_S = 0.1

        async def never():
            await asyncio.Event().wait()

        async def stop():
            pulse.start(asyncio.get_running_loop())
            worker._limit_stop(functools.partial(worker._end_stalled, {"event loop": pulse}))
            await never()

        pulse = Pulse()
        asyncio.run(stop())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, timeout=120, check=False, capture_output=True, text=True)
    assert done.returncode == 7
    said = json.loads(done.stderr.splitlines()[-1])
    assert (said["event"], said["subject"]) == ("worker_stalled", "stop")
    ((waits,),) = said["tasks"].values()
    assert [call.partition(":")[0] for call in waits.partition(": ")[2].split(" > ")] == [
        "stop",
        "never",
        "Event.wait",
    ]


def test_watchdog_that_is_told_to_stop_ends_nothing() -> None:
    ended: list[str] = []
    looked = threading.Event()

    def look() -> dict[str, Subject]:
        looked.set()
        return {"lane": Subject(is_waiting=False, progress=0)}

    watch = Watch(look, limit_s=1.0, on_stall=lambda subject, _: ended.append(subject))
    watch.start()
    assert looked.wait(10)
    watch.stop()
    wait_for(lambda: watch.is_running, lambda running: not running)
    assert ended == []


def test_readme_lists_exactly_the_metrics_there_are() -> None:
    monitor = Monitor("w", LIMITS, on_stall=lambda *_: None)
    page = monitor.metrics().body.decode()
    found = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE solvent_")}
    readme = Path(__file__).parents[2].joinpath("README.md").read_text("utf-8")
    rows = [row for row in readme.splitlines() if row.startswith("| `solvent_")]
    documented = {name for row in rows for name in re.findall(r"`(solvent_\w+)`", row)}
    assert found == documented
    assert "# TYPE process_resident_memory_bytes gauge" in page
