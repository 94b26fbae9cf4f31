"""`solvent worker` with a death, or a broken clock, built in: run instead of ``solvent.worker``.

The product has no test hooks. This module imports it, wraps what it calls at each step of a slice
and of a take-over, and runs ``solvent.worker.main``, each time in a process forked from one that
has imported everything and compiled the kernels: what takes a worker four seconds of CPU is there
at once, so that a minute holds many deaths (``chaos.forks``). Environment of a worker:

``CHAOS_DIE``
    ``step:n`` or ``step@agent:n``: SIGKILL this very process the n-th time that step is reached.
``CHAOS_FREEZE``
    The same with SIGSTOP: once it is thawed it goes on in the middle of a slice that others may
    have folded meanwhile.
``CHAOS_CLOCK``
    A seed: the wall clock jumps, forward and back by up to a day, all the time.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

#: Steps of a take-over and of a slice, in the order they come.
STEPS = (
    "after-fencing",  # the producer is initialised, nothing is claimed
    "after-claim",  # the claim is committed, nothing is restored
    "during-restore",  # the first rows are read
    "before-rows",  # the transaction is begun, nothing is written
    "between-rows-and-events",  # a part of the slice is on the broker
    "before-commit",  # all of it is
    "during-commit",  # the broker may or may not have committed
    "after-commit",  # committed, but the frames are not acknowledged
)

_claiming: ContextVar[bool] = ContextVar("claiming", default=False)


class Trap:
    """Counts how often its step was reached, and kills at the n-th time."""

    def __init__(self, text: str, number_of_signal: int) -> None:
        self._signal = number_of_signal
        place, _, number = text.partition(":")
        self.step, _, self.agent = place.partition("@")
        self.left = int(number)
        if self.step not in STEPS:
            raise SystemExit(f"CHAOS_DIE: step {self.step!r} is not one of {', '.join(STEPS)}")

    def is_due(self, step: str, agent: str) -> bool:
        """Count one time and tell whether it is the last."""
        if step != self.step or self.agent not in ("", agent):
            return False
        self.left -= 1
        return self.left == 0

    def reach(self, step: str, agent: str) -> None:
        """Spring here, if this is the time."""
        if self.is_due(step, agent):
            self.spring()

    def spring(self) -> None:
        """End as by kill -9, nothing is flushed and nobody told; or stand still, then go on."""
        os.kill(os.getpid(), self._signal)


def set_trap(trap: Trap) -> None:
    """Wrap the steps of take-over and commit; solvent is imported only now."""
    import asyncio

    from aiokafka import AIOKafkaProducer

    from solvent.runtime import lane as lanes
    from solvent.runtime import writer

    def agent_of(producer: Any) -> str:
        manager = producer._txn_manager
        return "" if manager is None else manager.transactional_id.rsplit("-", 2)[1]

    def sprung(old: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            trap.spring()
            return old(*args, **kwargs)

        return wrapped

    def around(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
        def put(make: Callable[..., Any]) -> None:
            old = getattr(owner, name)

            @wraps(old)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                return await make(old, *args, **kwargs)

            setattr(owner, name, wrapped)

        return put

    @around(AIOKafkaProducer, "start")
    async def start(old: Any, producer: Any) -> None:
        await old(producer)
        if agent := agent_of(producer):
            trap.reach("after-fencing", agent)

    @around(writer.PartitionWriter, "claim")
    async def claim(old: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _claiming.set(True)
        try:
            return await old(self, *args, **kwargs)
        finally:
            _claiming.reset(token)

    @around(AIOKafkaProducer, "begin_transaction")
    async def begin(old: Any, producer: Any) -> None:
        await old(producer)
        producer.chaos_first = None
        if not _claiming.get():
            trap.reach("before-rows", agent_of(producer))

    @around(AIOKafkaProducer, "send_batch")
    async def send(old: Any, producer: Any, *args: Any, **kwargs: Any) -> Any:
        if producer.chaos_first is not None and trap.is_due(
            "between-rows-and-events", agent_of(producer)
        ):
            await producer.chaos_first
            trap.spring()
        future = await old(producer, *args, **kwargs)
        producer.chaos_first = producer.chaos_first or future
        return future

    @around(AIOKafkaProducer, "commit_transaction")
    async def commit(old: Any, producer: Any) -> None:
        if _claiming.get():
            return await old(producer)
        agent = agent_of(producer)
        trap.reach("before-commit", agent)
        if trap.is_due("during-commit", agent):
            task = asyncio.ensure_future(old(producer))
            await asyncio.wait([task], timeout=random.uniform(0.0, 0.004))
            trap.spring()
            return await task
        await old(producer)
        trap.reach("after-commit", agent)
        return None

    @around(lanes, "restore_shard")
    async def restore(old: Any, shard: Any, *args: Any, **kwargs: Any) -> Any:
        agent = kwargs["agent"]
        trap.reach("after-claim", agent)
        if trap.is_due("during-restore", agent):
            for name in [n for n in dir(shard) if n.startswith(("load", "resume"))]:
                setattr(shard, name, sprung(getattr(shard, name)))
        return await old(shard, *args, **kwargs)


def break_clock(seed: str) -> None:
    """Let wall time jump every half second or so, by anything up to a day either way."""
    true_ns = time.time_ns
    begin = time.monotonic()

    def offset_ns() -> int:
        step = int((time.monotonic() - begin) * 2)
        return int(random.Random(f"{seed}/{step}").uniform(-86_400, 86_400) * 1e9)

    time.time_ns = lambda: true_ns() + offset_ns()
    time.time = lambda: (true_ns() + offset_ns()) / 1e9


def run() -> int:
    """Run a worker as the environment says; returns its exit code."""
    random.seed()  # not the state of every fork of this process
    if seed := os.environ.get("CHAOS_CLOCK"):
        break_clock(seed)
    for name, number in (("CHAOS_DIE", signal.SIGKILL), ("CHAOS_FREEZE", signal.SIGSTOP)):
        if text := os.environ.get(name):
            set_trap(Trap(text, number))
    from solvent.worker import main

    return main([])


def serve(commands: int, answers: int) -> None:
    """Fork workers and signal them as told, until the commands end; then nothing is left.

    Commands are JSON lines: ``{"log", "env"}`` starts one, ``{"pid", "signal"}`` signals one, if it
    is still there: nobody but this process reaps, so a signal never meets a stranger. Answers are
    ``{"pid"}`` to each start, ``{"pid", "stopped"}`` when one stands still, ``{"pid", "code"}`` at
    each end.
    """
    alive: set[int] = set()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
    signal.set_wakeup_fd(woken)

    def answer(content: dict[str, int]) -> None:
        os.write(answers, json.dumps(content).encode() + b"\n")

    def start(command: dict[str, Any]) -> None:
        if pid := os.fork():
            alive.add(pid)
            answer({"pid": pid})
            return
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for fd in (commands, answers, wake, woken):
                os.close(fd)
            log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ.update(command["env"])
            code = run()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def reap() -> None:
        while alive:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if not pid:
                return
            if os.WIFSTOPPED(status):
                answer({"pid": pid, "stopped": os.WSTOPSIG(status)})
                continue
            alive.discard(pid)
            answer({"pid": pid, "code": os.waitstatus_to_exitcode(status)})

    text = b""
    while True:
        ready, _, _ = select.select([commands, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            reap()
        if commands in ready:
            data = os.read(commands, 1 << 16)
            if not data:
                break
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                command = json.loads(line)
                if "env" in command:
                    start(command)
                elif command["pid"] in alive:
                    os.kill(command["pid"], command["signal"])
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def warm() -> None:
    """Import and compile what a worker needs, without starting a thread."""
    from solvent.engine.margin import warm_up

    for name in ("faust.cli.faust", "kafka", "solvent.app", "solvent.worker"):
        import_module(name)
    warm_up()
    gc.collect()
    gc.freeze()
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.is_dir() else 1
    if threads != 1:
        raise SystemExit(f"{threads} threads before the first fork, 1 expected")


if __name__ == "__main__":
    # The protocol gets descriptors of its own: whatever is printed goes to stderr.
    pipes = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    warm()
    os.write(pipes[1], b"{}\n")
    serve(*pipes)
