"""Start everything, play the crash, watch, sum up, and leave nothing running.

What is real: the prices (three-minute bars of twelve perpetuals, 6 and 7 April 2025), the broker,
the worker, the two executors, which compete. What is synthetic: the accounts (seeded), USDC at 1,
the BTC and ETH index taken from the perpetuals' own bars, one price source, and time, which runs
some 2,900 times faster than it did, so that a millisecond of the pipeline is three seconds of the
market.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import takewhile
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar

from solvent.engine.margin import warm_up
from solvent.errors import ServiceError
from solvent.ops import topics as topic_plan
from solvent.ops.accounts import bad_debt_micros, read_shards
from solvent.ops.demo import shown
from solvent.ops.demo.closeouts import CloseOut, judge_closeouts, read_tape
from solvent.ops.demo.compare import JudgedDay, check_plays, judge_day
from solvent.ops.demo.observe import Observer, Tally
from solvent.ops.demo.report import ReportData, write_report
from solvent.ops.demo.view import Progress
from solvent.ops.fund import fund_told
from solvent.ops.kafka import LocalKafka
from solvent.ops.load import BarOptions, LoadOptions, Row, Sequence, bars_sequence, load
from solvent.ops.population import SyntheticAccount, population
from solvent.ops.replay import Source, bars_source, kept_source, records_source
from solvent.rules import CompiledRulebook, builtin_rulebook, find_rulebook
from solvent.settings import child_environment, load_settings
from solvent.wire.inputs import PriceTick, decode_collateral_move, decode_tick
from solvent.wire.outputs import encode
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    ACCOUNT_SETTINGS,
    COLLATERAL,
    MARKS,
    ORACLE_TICKS,
    TRADES,
    Topics,
)

__all__ = [
    "CLOSED_ACCOUNTS",
    "COUNTERPART",
    "NO_RULEBOOK",
    "PLAYED",
    "RULEBOOK",
    "DemoOptions",
    "DemoSummary",
    "close_offline",
    "run_demo",
]

BARS: Final = Path(__file__).parents[1] / "data" / "bars_3m_2025-04_tariff_perps.parquet"
FROM_US: Final = 1_743_897_600_000_000  # 2025-04-06 00:00 UTC
TO_US: Final = FROM_US + 2 * 86_400_000_000
#: What is played is made for this one; whatever judges it must know its markets.
PLAYED: Final = "demo"
RULEBOOK: Final = "demo-guarded"
COUNTERPART: Final = "demo-brackets"
#: Given instead of a rulebook to compare with.
NO_RULEBOOK: Final = "none"
_INDEX_OF: Final = {"BTCUSDT": "BTC/USD", "ETHUSDT": "ETH/USD"}
#: Accounts judged offline under two rulebooks, the first ones: some ten seconds for both.
_JUDGED_ACCOUNTS: Final = 3_000
#: Accounts closed offline in three ways, at most: some fifteen seconds for all.
CLOSED_ACCOUNTS: Final = 1_000
#: A class whose books are auctioned, where the rulebook has it: that of every so-manieth account.
_AUCTIONED: Final = "auctioned"
_AUCTIONED_EVERY: Final = 10
#: Who competes for the offers: name, and how long after an offer an auction is bid in, seconds.
_EXECUTORS: Final = (("early", 300), ("late", 1_200))
#: How far the pipeline may lie behind what is loaded: about ten minutes of the market each.
_MAX_TICKS_BEHIND: Final = 400
_MAX_FRAMES_BEHIND: Final = 30
_COMPILE_S: Final = 600.0
_READY_S: Final = 120.0
_DRAIN_S: Final = 180.0
_QUIET_S: Final = 2.0
_STOP_S: Final = 20.0
_ABANDON_S: Final = 5.0

T = TypeVar("T")
Show = Callable[[Progress, Observer], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a demo may be told.

    Attributes
    ----------
    accounts, seed
        Size and seed of the synthetic population.
    seconds : float
        How long the two days shall take.
    partitions : int
        Of the account-keyed topics.
    report : Path
        Where the HTML page goes.
    bootstrap_servers : str or None
        A broker to use; None starts one in a directory of its own and removes it afterwards.
    cache_dir : Path or None
        Where Kafka's jars are kept.
    rulebook : str
        Judges the accounts: a file, or the name of a built-in one.
    against : str or None
        Judges the same day once more, offline, beside it; ``none`` compares nothing, None takes
        `COUNTERPART` if `PLAYED` is live, else that.
    """

    accounts: int = 20_000
    seed: int = 2025
    seconds: float = 60.0
    partitions: int = 2
    report: Path = Path("solvent-demo.html")
    bootstrap_servers: str | None = None
    cache_dir: Path | None = None
    rulebook: str = RULEBOOK
    against: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """The demo in figures; amounts in USDC.

    Attributes
    ----------
    accounts, units : int
        Accounts, and margin units among them (cross books and isolated books).
    events : int
        Input records folded: trades, collateral moves, ticks, clocks, and mark frames once a
        partition.
    mark_frames : int
        Frames the price agent made.
    liquidations_opened, liquidations_closed, liquidations_recovered, liquidations_open : int
        Cases begun, ended by fills, ended by themselves, and still open at the end.
    executor_trades : int
        Trades of the executors that were folded.
    rejects : int
        Records refused.
    late_fills : int
        Of these, answers to an offer that the other executor had answered first.
    breaker_trips : int
        How often circuit breakers paused a market.
    fund : str
        What the insurance fund has at the end; empty without one.
    takeovers, deleveraged : int
        Positions the fund took over, and fills by which accounts in profit gave for them.
    bad_debt, liquidated_notional : str
        Owed beyond all collateral by closed bankrupt units at the end; traded by executors.
    report : str
        Path of the HTML page.
    seconds : float
        From start to end, broker and worker start-up included.
    play_seconds : float
        Of these, playing the two days.
    guards : dict
        Executors, breaker trips, and the phased case and auction that the page shows.
    judged : tuple of JudgedDay
        The same day under two rulebooks, the live one first; empty if nothing was compared.
    closeouts : tuple of CloseOut
        The same day closed in three ways, offline; empty if nothing was compared.
    """

    accounts: int
    units: int
    events: int
    mark_frames: int
    liquidations_opened: int
    liquidations_closed: int
    liquidations_recovered: int
    liquidations_open: int
    executor_trades: int
    late_fills: int
    breaker_trips: int
    fund: str
    takeovers: int
    deleveraged: int
    rejects: int
    bad_debt: str
    liquidated_notional: str
    report: str
    seconds: float
    play_seconds: float
    guards: dict[str, Any] = field(default_factory=dict)
    judged: tuple[JudgedDay, ...] = ()
    closeouts: tuple[CloseOut, ...] = ()

    def figures(self) -> dict[str, Any]:
        """Return what is told of the live run in single figures."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in {"guards", "judged", "closeouts"}
        }

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON data."""
        return {
            **self.figures(),
            **self.guards,
            "judged": [day.as_json() for day in self.judged],
            "closeouts": [way.as_json() for way in self.closeouts],
        }


def run_demo(options: DemoOptions, show: Show) -> DemoSummary:
    """Run the demo and return its figures.

    Parameters
    ----------
    options : DemoOptions
        See there.
    show : callable
        Called a few times a second with where the demo is.

    Raises
    ------
    ConfigError
        [SLV-402, SLV-442] A rulebook is none, or lacks what the demo plays; nothing was started.
    ServiceError
        Something it needs (Java, Maven, a port) is missing, or a process of it died.
    """
    rulebooks = _rulebooks(options)
    with ExitStack() as stack:
        demo = _Demo(options, rulebooks, show, stack)
        try:
            return demo.run()
        finally:
            demo.stopping.set()  # before the broker goes: a loader must not wait for it


class _StoppingError(Exception):
    """Ends a load in the background; nobody waits for its answer any more."""


class _Demo:
    def __init__(
        self,
        options: DemoOptions,
        rulebooks: tuple[CompiledRulebook, ...],
        show: Show,
        stack: ExitStack,
    ) -> None:
        self.options = options
        self.rulebooks = rulebooks  # the live one first
        self.show = show
        self.stack = stack
        self.began = time.monotonic()
        self.phase = "starting Kafka"
        self.units = 0
        self.stopping = threading.Event()
        self._last = (self.began, 0)
        self._rate = 0.0
        self._inputs: list[Source] = []
        self._classes: Source | None = None

    def run(self) -> DemoSummary:
        options = self.options
        folder = Path(tempfile.mkdtemp(prefix="solvent-demo-"))
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        rulebook = self.rulebooks[0]
        bootstrap = options.bootstrap_servers or self._start_kafka(folder)
        topics = Topics(prefix=f"solvent-demo-{os.getpid()}.", partitions=options.partitions)
        topic_plan.apply(bootstrap, topics)
        self._compile()
        self.observer = Observer(bootstrap, topics)
        self.observer.start()
        self.stack.callback(self.observer.stop)
        self._start_processes(folder, bootstrap, topics)

        path, bar_options = _bars(folder)
        bars = bars_sequence(path, bar_options)
        self._inputs.append(kept_source(bars_source(path, bar_options)))
        ticks = self._load(bars, bootstrap, topics, FROM_US, FROM_US + 1, speed=None)
        self._wait(
            lambda: self.tally.inputs[MARKS] >= options.partitions,
            "waiting for the worker and its first prices",
            _READY_S,
        )
        others = self._open_accounts(rulebook, bars, bootstrap, topics, ticks)
        play_began = time.monotonic()
        speed = (TO_US - FROM_US) / 1e6 / options.seconds
        ticks += self._load(bars, bootstrap, topics, FROM_US + 1, TO_US, speed=speed)
        self._wait(lambda: self._is_quiet(ticks, others), "letting the last offers close", _DRAIN_S)
        play_seconds = time.monotonic() - play_began
        self.observer.stop()
        self._check_alive()
        self.tally.settle_refused()
        judged = self._in_background(self._judge_again, "the same day under two rulebooks")
        closeouts = self._in_background(self._close_again, "three ways to close")
        return self._sum_up(rulebook, bootstrap, topics, others, play_seconds, judged, closeouts)

    # -- processes

    def _start_kafka(self, folder: Path) -> str:
        kafka = LocalKafka(folder / "kafka", cache_dir=self.options.cache_dir)
        self.stack.callback(kafka.stop)
        return self._in_background(kafka.start, "starting Kafka")

    def _start_processes(self, folder: Path, bootstrap: str, topics: Topics) -> None:
        commands = {"worker": [sys.executable, "-m", "solvent.worker"]}
        for name, wait_s in _EXECUTORS:
            executor = [sys.executable, "-m", "solvent.cli.main", "executor", "--demo"]
            commands[name] = [*executor, "--seed", name, "--auction-wait-s", str(wait_s)]
        self._processes = {}
        for name, command in commands.items():
            environment = child_environment(
                load_settings(
                    bootstrap_servers=bootstrap,
                    topic_prefix=topics.prefix,
                    partitions=topics.partitions,
                    app_id=f"{topics.prefix}{name}",  # each executor reads all offers
                    data_dir=folder,
                    rulebook=Path(self.options.rulebook),
                    clock="stream",
                    log_level="warning",
                )
            )
            process = self._start(command, environment, folder / f"{name}.log")
            self._processes[name] = process, folder

    def _start(
        self, command: list[str], environment: dict[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        with log.open("wb") as sink:
            # A session of its own: Ctrl-C reaches only the demo, which then stops it by pid.
            process = subprocess.Popen(
                command, env=environment, stdout=sink, stderr=sink, start_new_session=True
            )
        self.stack.callback(_stop, process)
        return process

    def _check_alive(self) -> None:
        for name, (process, folder) in self._processes.items():
            if process.poll() is not None:
                tail = (folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
                message = f"the {name} ended with code {process.returncode}: {tail[-1:]}"
                raise ServiceError(message, code="SLV-620")
        if self.observer.error is not None:
            raise self.observer.error

    # -- loading

    def _load(
        self,
        bars: Sequence,
        bootstrap: str,
        topics: Topics,
        from_us: int,
        to_us: int,
        *,
        speed: float | None,
    ) -> int:
        options = LoadOptions(from_us=from_us, to_us=to_us, speed=speed)

        def work() -> int:
            return load(
                bars,
                file=BARS.name,
                bootstrap_servers=bootstrap,
                topics=topics,
                options=options,
                progress=self._hold_back,
            ).sent

        return self._in_background(work, "playing 6 and 7 April 2025" if speed else "first prices")

    def _hold_back(self, rows: int) -> None:
        """Wait while the pipeline lags: on a slow machine the two days take longer.

        Without it offers would reach the executor hours late, in market time. A demo that is being
        stopped ends the load here.
        """
        while not self.stopping.is_set():
            tally = self.tally
            ticks = rows - tally.inputs[ORACLE_TICKS]
            frames = tally.frames - tally.inputs[MARKS] // self.options.partitions
            if ticks < _MAX_TICKS_BEHIND and frames < _MAX_FRAMES_BEHIND:
                return
            self.stopping.wait(0.02)
        raise _StoppingError

    def _open_accounts(
        self, rulebook: CompiledRulebook, bars: Sequence, bootstrap: str, topics: Topics, ticks: int
    ) -> int:
        """Let every account deposit, and then trade; return how many records that was.

        Some are of the class whose books are auctioned, if the live rulebook has one.

        Topics are not ordered against each other: were the trades sent at once, many would be
        read before their deposits, and their accounts liquidated for a moment.
        """
        sent = 0
        accounts = list(
            population(
                rulebook,
                _first_prices(bars),
                accounts=self.options.accounts,
                seed=self.options.seed,
                ts_us=FROM_US,
            )
        )
        self.units = sum(
            len({decode_collateral_move(move).subaccount for move in account.moves})
            for account in accounts
        )
        judged = accounts[:_JUDGED_ACCOUNTS]
        at_us = FROM_US + 1  # offline as live: once the first prices are there
        loads: list[tuple[str, str, Callable[[SyntheticAccount], tuple[bytes, ...]]]] = [
            (COLLATERAL, "deposits", attrgetter("moves")),
            (TRADES, "first trades", attrgetter("trades")),
        ]
        if _AUCTIONED in rulebook.preset_by_class:
            loads.insert(0, (ACCOUNT_SETTINGS, "classes of accounts", _class_of))
        for topic, phase, values_of in loads:
            records = [(a.key, value) for a in accounts for value in values_of(a)]
            some = [(a.key, value) for a in judged for value in values_of(a)]
            source = records_source(phase, topic, some, at_us)
            if topic == ACCOUNT_SETTINGS:
                self._classes = source
            else:
                self._inputs.append(source)
            self._in_background(
                partial(_produce, bootstrap, topics.physical(topic), records), phase
            )
            sent += len(records)
            self._wait(partial(self._has_folded, ticks, sent), phase, _READY_S)
        return sent

    # -- judging again

    def _judge_again(self) -> tuple[JudgedDay, ...]:
        """Fold what was loaded, without the executor's fills, under each rulebook of two."""
        if len(self.rulebooks) < 2:
            return ()
        return tuple(
            judge_day(
                self._inputs_of(rulebook),
                rulebook,
                accounts=min(self.options.accounts, _JUDGED_ACCOUNTS),
                partitions=self.options.partitions,
                is_stopped=self.stopping.is_set,
            )
            for rulebook in self.rulebooks
        )

    def _inputs_of(self, rulebook: CompiledRulebook) -> list[Source]:
        """Return the day for a rulebook: accounts are of a class where it has that class."""
        if self._classes is None or _AUCTIONED not in rulebook.preset_by_class:
            return self._inputs
        return [self._classes, *self._inputs]

    def _close_again(self) -> tuple[CloseOut, ...]:
        """Close accounts offline in three ways, unless nothing is to be compared."""
        if len(self.rulebooks) < 2:
            return ()
        options = self.options
        return close_offline(options.accounts, options.seed, is_stopped=self.stopping.is_set)

    # -- waiting

    @property
    def tally(self) -> Tally:
        return self.observer.tally

    def _in_background(self, work: Callable[[], T], phase: str) -> T:
        """Run `work` in a thread and keep the view alive meanwhile."""
        results: list[T] = []
        errors: list[BaseException] = []

        def target() -> None:
            try:
                results.append(work())
            except BaseException as error:  # raised again below, in the main thread
                errors.append(error)

        self.phase = phase
        thread = threading.Thread(target=target, name=phase, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(0.2)
                self._tick()
        except BaseException:
            self.stopping.set()
            thread.join(_ABANDON_S)  # what it began must be there to be stopped, or be flushed
            raise
        if errors:
            raise errors[0]
        return results[0]

    def _compile(self) -> None:
        """Have the kernels compiled before a worker needs them: minutes, once a version."""
        compiling = threading.Thread(target=warm_up, daemon=True)
        compiling.start()
        self._wait(
            lambda: not compiling.is_alive(), "compiling kernels, once for this version", _COMPILE_S
        )

    def _wait(self, condition: Callable[[], bool], phase: str, deadline_s: float) -> None:
        self.phase = phase
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                message = f"{phase}: not within {deadline_s:.0f} s"
                raise ServiceError(message, code="SLV-621")
            self.stopping.wait(0.1)
            self._tick()

    def _has_folded(self, ticks: int, others: int) -> bool:
        return self.observer.has_folded(
            ticks=ticks, others=others, partitions=self.options.partitions
        )

    def _is_quiet(self, ticks: int, others: int) -> bool:
        """All input folded, and nothing published for a while: the executor has nothing to do."""
        is_silent = time.monotonic() - self.tally.heard_at > _QUIET_S
        return is_silent and self._has_folded(ticks, others)

    def _tick(self) -> None:
        if not hasattr(self, "observer"):
            return
        if hasattr(self, "_processes"):
            self._check_alive()
        now, folded = time.monotonic(), self.tally.folded
        then, before = self._last
        if now - then >= 1.0:
            self._rate = (folded - before) / (now - then)
            self._last = (now, folded)
        self.show(
            Progress(
                phase=self.phase,
                accounts=self.options.accounts,
                units=self.units,
                behind=self.tally.frames - self.tally.inputs[MARKS] // self.options.partitions,
                stream_us=self.tally.stream_us,
                rate=self._rate,
                seconds=now - self.began,
            ),
            self.observer,
        )

    # -- the end

    def _sum_up(
        self,
        rulebook: CompiledRulebook,
        bootstrap: str,
        topics: Topics,
        others: int,
        play_seconds: float,
        judged: tuple[JudgedDay, ...],
        closeouts: tuple[CloseOut, ...],
    ) -> DemoSummary:
        tally = self.tally
        bad_debt = sum(bad_debt_micros(s) for s in read_shards(bootstrap, topics, rulebook))
        notional = sum(end.notional for end in tally.ends)
        records = sum(tally.inputs[topic] for topic in ACCOUNT_INPUTS)
        insurance = rulebook.insurance
        fund = ""
        if insurance is not None:
            fund = str(fund_told(bootstrap, topics, rulebook)["balance"])
        summary = DemoSummary(
            accounts=self.options.accounts,
            units=self.units,
            events=tally.folded,
            mark_frames=tally.frames,
            liquidations_opened=tally.cases,
            liquidations_closed=tally.events["closed"],
            liquidations_recovered=tally.events["recovered"],
            liquidations_open=tally.cases - tally.events["closed"] - tally.events["recovered"],
            executor_trades=records - others,
            late_fills=sum(executor.late for executor in tally.executors.values()),
            breaker_trips=len(tally.trips),
            fund=fund,
            takeovers=tally.takeovers,
            deleveraged=tally.deleveraged.total(),
            rejects=tally.rejects,
            bad_debt=f"{bad_debt / 1e6:.2f}",
            liquidated_notional=f"{notional:.2f}",
            report=str(self.options.report),
            seconds=round(time.monotonic() - self.began, 1),
            play_seconds=round(play_seconds, 1),
            guards=shown.as_json(tally),
            judged=judged,
            closeouts=closeouts,
        )
        write_report(
            self.options.report,
            ReportData(
                summary=summary.figures(),
                tally=tally,
                units=self.units,
                bars=BARS,
                from_us=FROM_US,
                to_us=TO_US,
                rulebook=rulebook.reference,
                judged=judged,
                closeouts=closeouts,
                closeout_accounts=min(self.options.accounts, CLOSED_ACCOUNTS),
                seed=self.options.seed,
                fund_opening_micros=None if insurance is None else insurance.opening_micros,
            ),
        )
        return summary


def close_offline(
    accounts: int, seed: int, *, is_stopped: Callable[[], bool] = lambda: False
) -> tuple[CloseOut, ...]:
    """Close a population through the crash in three ways, without a broker (`closeouts`).

    At most `CLOSED_ACCOUNTS` of them: a population of its own of that size.
    """
    rulebook = builtin_rulebook(PLAYED)
    with tempfile.TemporaryDirectory(prefix="solvent-demo-") as folder:
        bars = bars_sequence(*_bars(Path(folder)))
        some = population(
            rulebook,
            _first_prices(bars),
            accounts=min(accounts, CLOSED_ACCOUNTS),
            seed=seed,
            ts_us=FROM_US,
        )
        tape = read_tape(row.value for row in bars.rows() if isinstance(row, Row))
        return judge_closeouts(rulebook, BARS, list(some), tape, is_stopped=is_stopped)


def _class_of(account: SyntheticAccount) -> tuple[bytes, ...]:
    """Return the settings of an account: those of every tenth name the class that is auctioned."""
    name = account.key.decode()
    if int(name.rpartition("-")[2]) % _AUCTIONED_EVERY:
        return ()
    settings = {"schema_version": 1, "account_id": name, "account_class": _AUCTIONED}
    return (encode(settings | {"ts_us": FROM_US}),)


def _produce(bootstrap: str, topic: str, records: list[tuple[bytes, bytes]]) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=bootstrap.split(","), linger_ms=20, batch_size=1 << 18
    )
    try:
        for key, value in records:
            producer.send(topic, key=key, value=value)
        producer.flush()
    finally:
        producer.close()


def _first_prices(bars: Sequence) -> dict[str, str]:
    """Return the price each feed starts at, as the bars' first ticks will say."""
    rows = (row for row in bars.rows() if isinstance(row, Row))
    ticks = (decode_tick(row.value) for row in takewhile(lambda r: r.ts_us == FROM_US, rows))
    return {tick.feed: tick.price for tick in ticks if isinstance(tick, PriceTick)}


def _rulebooks(options: DemoOptions) -> tuple[CompiledRulebook, ...]:
    """Return the rulebook of the live run and, unless there is to be none, the one beside it."""
    played = builtin_rulebook(PLAYED)
    live = find_rulebook(options.rulebook)
    against = options.against
    if against is None:
        against = COUNTERPART if live.hash == played.hash else PLAYED
    rulebooks = [live] if against == NO_RULEBOOK else [live, find_rulebook(against)]
    for rulebook in rulebooks:
        check_plays(rulebook, played)
    return tuple(rulebooks)


def _bars(folder: Path) -> tuple[Path, BarOptions]:
    """Return a file of the two days' bars, and how they become ticks of every feed played."""
    import polars as pl

    feeds: dict[str, tuple[str, ...]] = {}
    for instrument in builtin_rulebook(PLAYED).instruments:
        symbol = instrument.name.partition("-")[0] + "USDT"
        index = _INDEX_OF.get(symbol)
        feeds[symbol] = (instrument.name, index) if index else (instrument.name,)
    path = folder / "bars.parquet"
    is_played = pl.col("ts").dt.epoch("us").is_between(FROM_US, TO_US, closed="left")
    pl.read_parquet(BARS).filter(is_played).write_parquet(path)
    return path, BarOptions(feeds=feeds)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a child: ask, then insist."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that either way everything is stopped."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
