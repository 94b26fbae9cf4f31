"""The worker process: checks its surroundings, takes a name in the group, runs the Faust app.

``solvent worker`` replaces itself with this module, so one worker is one process. Arguments that
are not ours go to Faust's own ``worker`` command.

Exit codes: 0 stopped on request; 1 a lane or take-over failed (restart it: it resumes from the
fence); 3 settings, rulebook, topics or library versions refuse; 4 the broker does not answer or
the health port is taken; 7 it made no progress for `stall_exit_s`, or its stop did not end, and it
ended itself, with what its threads and tasks waited for in the log (restart it).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import functools
import gc
import logging
import logging.config
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from solvent.errors import ConfigError, ServiceError, SolventError
from solvent.ops import topics as topic_plan
from solvent.ops.broker import resolve_bootstrap
from solvent.ops.membership import release_name
from solvent.ops.workers import WorkerAddress, last_address, note_address
from solvent.runtime.pulse import Pulse
from solvent.runtime.quiet import Seldom
from solvent.settings import Settings, load_settings
from solvent.wire.topics import Topics

if TYPE_CHECKING:
    from solvent.health.checks import Limits
    from solvent.health.monitor import Monitor

__all__ = ["main"]

log = structlog.get_logger(__name__)

EXIT_CONFIG = 3
EXIT_SERVICE = 4
EXIT_STALLED = 7

#: A feed may be without a valid mark for so long, if the clock is the wall's.
_WALL_ORACLE_AGE_S = 30.0
#: How long the event loop may keep the interpreter to itself while the thread that fetches and
#: keeps the group's membership wants it. Python's 5 ms would be added to each of its wake-ups.
_SWITCH_INTERVAL_S = 0.001
#: From the request to the end; less than the 30 s that supervisors wait before they kill.
_STOP_LIMIT_S = 25.0
#: A log that nobody reads must not keep a stalled worker alive.
_LAST_WORDS_TIMEOUT_S = 2.0

#: Faust spells one level its own way.
_FAUST_LEVELS = {"debug": "debug", "info": "info", "warning": "warn", "error": "error"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worker until it is stopped; returns its exit code."""
    parser = argparse.ArgumentParser(prog="solvent worker", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="TOML settings file")
    ours, faust_arguments = parser.parse_known_args(argv)
    try:
        settings = load_settings(ours.config)
        return _run(settings, [a for a in faust_arguments if a != "--"])
    except ServiceError as error:
        print(f"solvent worker: {error}", file=sys.stderr)  # noqa: T201 - no logger yet
        return EXIT_SERVICE
    except SolventError as error:
        print(f"solvent worker: {error}", file=sys.stderr)  # noqa: T201 - no logger yet
        return EXIT_CONFIG


def _run(settings: Settings, faust_arguments: list[str]) -> int:
    bootstrap = resolve_bootstrap(settings)
    with ExitStack() as stack:
        instance = stack.enter_context(_own_instance(settings))
        # At once, before seconds of imports: others may do a dead predecessor's share meanwhile.
        topics = Topics(prefix=settings.topic_prefix, partitions=settings.partitions)
        was_member = release_name(bootstrap, settings.app_id, instance, topics)
        _check_topics(bootstrap, topics)
        logging_config = configure_logging(settings.log_level)
        if was_member:
            log.info("dead_member_removed", instance=instance)
        from faust.cli.faust import cli

        from solvent.app import build_app
        from solvent.engine.margin import warm_up
        from solvent.health.monitor import Monitor

        pulses: dict[str, Pulse] = {}
        end = functools.partial(_end_stalled, pulses)
        monitor = Monitor(instance, _limits(settings), on_stall=end)
        stack.enter_context(_serving(monitor, settings, instance))
        app = build_app(settings, bootstrap_servers=bootstrap, instance=instance)
        app.conf.logging_config = logging_config
        warm_up()  # compile before joining the group, not on the first live record
        _tune_collector()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        app.finalize()
        app.on_stopping = functools.partial(_limit_stop, end)
        pulses |= {"event loop": app.pulse, "fetch loop": app.fetch_pulse}
        monitor.attach(app.lanes, pulses)
        log.info("worker_starting", instance=instance, pid=os.getpid(), broker=bootstrap)
        try:
            cli(
                args=[
                    "worker",
                    "--without-web",
                    "-l",
                    _FAUST_LEVELS[settings.log_level],
                    *faust_arguments,
                ],
                app=app,
                prog_name="solvent worker",
            )
        except BaseException as stop:
            # A crashed worker ends with what its services made of it, cancellations included.
            if app.refusal is not None:
                raise app.refusal from None
            if isinstance(stop, SystemExit):
                return stop.code if isinstance(stop.code, int) else 1
            raise
    return 0


def _limits(settings: Settings) -> Limits:
    from solvent.health.checks import Limits

    oracle_age_s = settings.ready_oracle_age_s
    if oracle_age_s is None and settings.clock == "wall":
        oracle_age_s = _WALL_ORACLE_AGE_S
    return Limits(
        lag=settings.ready_lag,
        oracle_age_s=oracle_age_s,
        stall_s=settings.ready_stall_s,
        stall_exit_s=settings.stall_exit_s,
    )


@contextmanager
def _serving(monitor: Monitor, settings: Settings, instance: str) -> Iterator[None]:
    """Serve the pages of a monitor and say where: in the log, and beside the worker's lock."""
    from solvent.health.server import HealthServer, bind

    last = last_address(settings.data_dir, instance)
    listening = bind(
        settings.health_host,
        settings.health_port,
        preferred=None if last is None else last.port,
    )
    server = HealthServer(listening, monitor.answers)
    monitor.start()
    server.start()
    try:
        note_address(settings.data_dir, WorkerAddress(instance, os.getpid(), server.url))
        log.info("health_served", url=server.url, pages=list(monitor.answers))
        yield
    finally:
        server.stop()
        monitor.stop()


def _limit_stop(end: Callable[[str, float], None]) -> None:
    """End the process if its stop hangs: all it committed is safe, and a supervisor waits."""
    timer = threading.Timer(_STOP_LIMIT_S, end, ("stop", _STOP_LIMIT_S))
    timer.daemon = True
    timer.start()


def _end_stalled(pulses: Mapping[str, Pulse], subject: str, seconds: float) -> None:
    """End the process from a thread of its own: nothing else in it can be relied on."""
    words = threading.Thread(target=_say_stalled, args=(pulses, subject, seconds), daemon=True)
    words.start()
    words.join(_LAST_WORDS_TIMEOUT_S)
    os._exit(EXIT_STALLED)


def _say_stalled(pulses: Mapping[str, Pulse], subject: str, seconds: float) -> None:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = {
        names.get(ident, str(ident)): traceback.format_stack(frame)[-12:]
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - its only way in
    }
    tasks = {
        name: [_waits_at(task) for task in asyncio.all_tasks(pulse.loop)]
        for name, pulse in pulses.items()
        if pulse.loop is not None
    }
    log.critical(
        "worker_stalled",
        subject=subject,
        seconds=round(seconds, 1),
        exit_code=EXIT_STALLED,
        stacks=stacks,
        tasks=tasks,
    )


def _waits_at(task: asyncio.Task[Any]) -> str:
    """Return a task's name and the calls it waits in, the innermost last."""
    calls = []
    waiting: Any = task.get_coro()
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        calls.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        waiting = waiting.cr_await
    return f"{task.get_name()}: {' > '.join(calls)}"


def _tune_collector() -> None:
    """Make the cycle collector run seldom, and never over what start-up left.

    Records, rows and tuples come by the ten thousand and are freed by reference count; looking
    through them as often as Python does by default took a fifth of the CPU at full load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _check_topics(bootstrap: str, topics: Topics) -> None:
    """Refuse to start on missing topics, wrong partition counts or too small batches."""
    found = topic_plan.plan(bootstrap, topics)
    wrong = [*found.to_create, *found.refused]
    if wrong:
        names = ", ".join(state.name for state in wrong)
        message = f"topics missing or with other partition counts: {names}; `solvent topics plan`"
        raise ConfigError(message)
    for state in found.to_alter:
        size, wanted = state.config_drift.get("max.message.bytes", (None, "0"))
        if size is not None and int(size) < int(wanted):
            message = (
                f"topic {state.physical}: max.message.bytes is {size}, the record batches of a "
                f"slice may have {wanted}: run `solvent topics apply`"
            )
            raise ConfigError(message)


@contextmanager
def _own_instance(settings: Settings) -> Iterator[str]:
    """Hold a name in the group: the configured one, or the first free lock file of the data dir.

    Static membership needs the same name after a restart and another for each live worker; a lock
    that dies with the process gives both.
    """
    if settings.instance_id is not None:
        yield settings.instance_id
        return
    folder = settings.data_dir / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        handle = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            number += 1
            continue
        try:
            yield f"{settings.app_id}-{platform.node()}-{number}"
        finally:
            os.close(handle)
        return


def configure_logging(level: str) -> dict[str, Any]:
    """Send structlog and stdlib records alike to stderr, one JSON object a line.

    Returns the same as a ``dictConfig``, which Faust's worker applies when it starts.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    structlog.processors.JSONRenderer(),
                ],
                "foreign_pre_chain": shared,
            }
        },
        # While the broker is away each lane's producer tries to connect hundreds of times a second.
        "filters": {"seldom": {"()": Seldom, "library": "aiokafka", "every_s": 5.0}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "filters": ["seldom"],
                "formatter": "json",
                "level": level.upper(),
            }
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {"aiokafka": {"level": logging.getLevelName(logging.ERROR)}},
    }
    logging.config.dictConfig(config)
    return config


if __name__ == "__main__":
    raise SystemExit(main())
