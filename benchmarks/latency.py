"""How long from a mark to the liquidation event that a read_committed reader sees?

One worker process, its partitions full of accounts with positions; canaries among them become
liquidatable, and recover, at known frames (`benchmarks.waves`). A process of its own sends each
frame when its time has come, whatever became of those before, and reads the events; what is
measured runs from the *scheduled* time of a frame to the return of the poll that brought its event,
so a stall counts against every frame that waited for it (no coordinated omission). The first wave
of a scenario is not counted, nor are the first two scenarios of a pipeline, which warm up a broker
just started. Percentiles are HdrHistogram's, three digits.

``frames``: frames are written into ``marks.v1`` by the benchmark, one hop. ``ticks``: ticks go
through the price agent, two transactions. ``mass``: one frame below which 22,558 further accounts
must be offered at once; the figure is the last offer seen, the worst of its rounds. ``p1`` one
partition, ``p4`` four; the same frame goes to each. Everything runs on one machine: broker, worker
and probe share its cores.
Checked: each canary's event once a wave and no other event, each mass account once a round, and
every trade folded. Ticks that had to wait are conflated to one frame; ``conflated`` events never
came about for that. The result hash covers who was offered what in ``frames`` and ``mass``.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, TopicPartition
from hdrh.histogram import HdrHistogram

from benchmarks import machine
from benchmarks.command import Measured, option, run, say
from benchmarks.latency_probe import trader_id
from benchmarks.pipeline import Pipeline, Worker, produce, read_committed, running_pipeline
from benchmarks.waves import FRAME_KEY, Waves, frame
from benchmarks.workload import START_US, Message, Workload
from solvent.errors import InvariantError, ServiceError
from solvent.ops.population import population
from solvent.rules import builtin_rulebook
from solvent.settings import load_settings
from solvent.units import MICRO_EXPONENT, format_scaled
from solvent.wire.inputs import encode_collateral_move, encode_trade
from solvent.wire.topics import COLLATERAL, JOURNAL, LIQUIDATIONS, MARKS, ORACLE_TICKS, TRADES

__all__ = ["LatencyOptions", "measure"]

_RULEBOOK = "demo"
_CANARY_MARKET = "ALGO-PERP"
_MASS_MARKET = "BSV-PERP"
_TRADE_MARKET = "ADA-PERP"
_READY_S = 240.0
_PATIENCE_S = 3.0  # of silence after the last event
_HIGHEST_US = 60_000_000
_TRADER_SHARE = 5  # every fifth account trades


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyOptions:
    """What is measured, and on what."""

    accounts: int = option(100_000, "accounts with positions, in all partitions", least=10)
    seconds: float = option(30.0, "length of each scenario", least=0.1)
    slow: float = option(50.0, "frames, and ticks, a second", least=1)
    fast: float = option(500.0, "frames a second on one partition", least=1)
    trades: float = option(20_000.0, "trades a second beside frames on four partitions", least=100)
    mass: int = option(22_558, "accounts that one frame makes liquidatable", least=1)
    rounds: int = option(3, "mass events", least=1)
    canaries: int = option(25, "accounts that come and go, in each partition", least=2)
    seed: int = option(7, "of the population")


SMOKE = LatencyOptions(
    accounts=400,
    seconds=1.0,
    slow=50.0,
    fast=100.0,
    trades=1_000.0,
    mass=40,
    rounds=1,
    canaries=5,
)


@dataclass(slots=True)
class _Findings:
    """What the scenarios gave so far."""

    figures: dict[str, float | None] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))


def measure(options: LatencyOptions) -> Measured:
    """Run every scenario.

    Raises
    ------
    SolventError
        Something the pipeline needs is missing, or an event is missing, doubled or foreign.
    """
    found = _Findings()
    one = _Bench(options, partitions=1, mass=options.mass)
    with one.running():
        one.warm_up()
        one.ticks(found, options.slow)
        one.frames(found, options.slow)
        one.frames(found, options.fast)
        one.mass_event(found)
    four = _Bench(options, partitions=4, mass=0)
    with four.running():
        four.warm_up()
        four.ticks(found, options.slow)
        four.frames(found, options.slow)
        with four.trading(found):
            four.frames(found, options.slow, f"_trades_{options.trades / 1000:g}k")
    return Measured(
        figures=found.figures,
        workload={"rulebook": one.workload.rulebook.reference, "events": found.events},
        result_hash=found.digest.hexdigest(),
        versions={name: machine.version_of(name) for name in ("confluent-kafka", "hdrhistogram")},
    )


class _Bench:
    """One pipeline with its worker, loaded; scenarios run on it one after the other."""

    def __init__(self, options: LatencyOptions, *, partitions: int, mass: int) -> None:
        self._options = options
        self._partitions = partitions
        rulebook = builtin_rulebook(_RULEBOOK)
        self.workload = Workload(rulebook=rulebook, accounts=options.accounts, seed=options.seed)
        self._traders = options.accounts // _TRADER_SHARE
        self._waves = Waves(
            workload=self.workload, market=_CANARY_MARKET, canaries=options.canaries
        )
        self._mass = mass
        self._ticked = 0
        self._seq = 0
        self._pipeline: Pipeline
        self._worker: Worker
        self._journal: _Totals

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the pipeline, load its accounts, and put marks into force."""
        with running_pipeline(load_settings(), partitions=self._partitions) as self._pipeline:
            self._worker = Worker(self._pipeline, "measured", {"SOLVENT_RULEBOOK": _RULEBOOK})
            self._journal = _Totals(self._pipeline, self._worker)
            try:
                self._load()
                yield
            finally:
                self._worker.stop()
                self._journal.close()

    def _load(self) -> None:
        say(f"loading {self.workload.accounts:,} accounts into {self._partitions} partitions")
        prices = {
            feed.name: self._text(self.workload.mid(feed.name.partition("/")[0]))
            for feed in self.workload.rulebook.feeds
            if feed.name not in {_CANARY_MARKET, _MASS_MARKET}
        }
        accounts = population(
            self.workload.rulebook,
            prices,
            accounts=max(1, self.workload.accounts - self._traders - self._mass),
            seed=self._options.seed,
            ts_us=START_US,
        )
        moves: list[list[Message]] = [[] for _ in range(self._partitions)]
        trades: list[list[Message]] = [[] for _ in range(self._partitions)]
        for number, account in enumerate(accounts):
            partition = number % self._partitions
            moves[partition] += [Message(COLLATERAL, account.key, v) for v in account.moves]
            trades[partition] += [Message(TRADES, account.key, v) for v in account.trades]
        for partition in range(self._partitions):
            for deposit, trade in self._waves.accounts(partition):
                moves[partition].append(deposit)
                trades[partition].append(trade)
        for number in range(self._traders):
            moves[number % self._partitions].append(self._trader(number))
        for number in range(self._mass):
            deposit, *fills = self._mass_account(number)
            moves[0].append(deposit)
            trades[0] += fills
        for partition in range(self._partitions):
            produce(self._pipeline, moves[partition], partition=partition)
            produce(self._pipeline, trades[partition], partition=partition)
        totals = {COLLATERAL: sum(map(len, moves)), TRADES: sum(map(len, trades))}
        self._journal.wait(totals, "accounts", _READY_S)
        # No feed has a price until all is loaded, so nobody was judged half loaded.
        produce(self._pipeline, self.workload.ticks(START_US))
        self._journal.wait({MARKS: self._partitions}, "first marks", _READY_S)
        self._seq = 0

    def _trader(self, number: int) -> Message:
        """Return the deposit of an account that trades and never comes into trouble."""
        account = trader_id(number)
        deposit = encode_collateral_move(
            move_id=f"{account}.m",
            account_id=account,
            subaccount="cross",
            asset=self.workload.rulebook.model.rulebook.settlement_asset,
            kind="deposit",
            amount="1000000",
            ts_us=START_US,
        )
        return Message(COLLATERAL, account.encode(), deposit)

    def _mass_account(self, number: int) -> list[Message]:
        """Return deposit and fills of an account that falls with the mass market.

        Long that market for a varying amount, with collateral of 12 % of it; every second is also
        short a little of the first market of the rulebook.
        """
        account = f"mass-{number:07d}"
        lots = 100 + 37 * number % 900
        instruments = {i.name: i for i in self.workload.rulebook.instruments}
        mass = instruments[_MASS_MARKET]
        usd = lots * float(mass.lot.format(1)) * self.workload.mid(mass.name)
        first = self.workload.rulebook.instruments[0]
        collateral_usd = 0.12 * usd
        orders = [(mass, "buy", lots)]
        if number % 2:
            orders.append((first, "sell", 1))
            collateral_usd += 0.05 * float(first.lot.format(1)) * self.workload.mid(first.name)
        deposit = encode_collateral_move(
            move_id=f"{account}.m",
            account_id=account,
            subaccount="cross",
            asset=self.workload.rulebook.model.rulebook.settlement_asset,
            kind="deposit",
            amount=self._text(collateral_usd),
            ts_us=START_US,
        )
        fills = [
            encode_trade(
                trade_id=f"{account}.t{index}",
                account_id=account,
                subaccount="cross",
                market=instrument.name,
                side=side,
                size=instrument.lot.format(size),
                price=self._text(self.workload.mid(instrument.name)),
                fee="0",
                ts_us=START_US,
            )
            for index, (instrument, side, size) in enumerate(orders)
        ]
        key = account.encode()
        return [Message(COLLATERAL, key, deposit), *(Message(TRADES, key, fill) for fill in fills)]

    # -- scenarios

    def warm_up(self) -> None:
        """Run as if to measure: a broker just started compiles its code for a minute.

        Ticks only: once the benchmark has written frames, the price agent's are too low in number.
        """
        for _ in range(2):
            self.ticks(_Findings(), self._options.slow)

    def ticks(self, found: _Findings, rate: float) -> None:
        """Ticks through the price agent: two transactions."""
        waves = self._waves_in(rate)
        values = list(self._waves.ticks(waves, self._ticked))
        self._ticked += len(values)
        self._wave_scenario(
            found, f"ticks_{rate:g}_p{self._partitions}", rate, waves, values, ORACLE_TICKS, [0]
        )

    def frames(self, found: _Findings, rate: float, suffix: str = "") -> None:
        """Frames written into ``marks.v1``: one transaction."""
        waves = self._waves_in(rate)
        first_seq = self._next_seq()
        values = list(self._waves.frames(waves, first_seq, first_seq + self._ticked))
        self._seq = first_seq + len(values)
        name = f"frames_{rate:g}_p{self._partitions}{suffix}"
        everywhere = list(range(self._partitions))
        self._wave_scenario(found, name, rate, waves, values, MARKS, everywhere)

    def mass_event(self, found: _Findings) -> None:
        """Let one frame open every mass account, and another let all recover."""
        mid = self.workload.mid(_MASS_MARKET)
        low, high = self._text(mid * 0.89), self._text(mid)
        worst_first = worst_last = 0.0
        for number in range(self._options.rounds):
            for price, event in ((low, "opened"), (high, "recovered")):
                seq = self._next_seq()
                value = frame(seq, START_US + seq + self._ticked, {_MASS_MARKET: price})
                self._seq = seq + 1
                due, seen = self._probe([value], 1.0, MARKS, [0], expected=self._mass)
                events = [orjson.loads(value) for _, _, value in seen]
                self._check_mass(events, event)
                self._digest(found, "mass", ((0, e) for e in events))
                if event == "opened":
                    worst_first = max(worst_first, (seen[0][0] - due[0]) / 1e6)
                    worst_last = max(worst_last, (seen[-1][0] - due[0]) / 1e6)
            say(f"mass event {number + 1}: last offer after {worst_last:,.0f} ms at worst")
        found.figures["mass.first_offer_ms"] = round(worst_first, 1)
        found.figures["mass.last_offer_ms"] = round(worst_last, 1)
        found.events["mass"] = self._mass * 2 * self._options.rounds

    @contextmanager
    def trading(self, found: _Findings) -> Iterator[None]:
        """Write trades meanwhile, at a steady rate; all must be folded."""
        instrument = next(i for i in self.workload.rulebook.instruments if i.name == _TRADE_MARKET)
        seconds = self._options.seconds * 1.5 + 10
        plan = {
            "bootstrap_servers": self._pipeline.bootstrap_servers,
            "send_to": self._pipeline.topics.physical(TRADES),
            "rate": self._options.trades,
            "seconds": seconds,
            "seed": self._options.seed,
            "accounts": self._traders,
            "partitions": self._partitions,
            "market": instrument.name,
            "size": instrument.lot.format(1),
            "price": self._text(self.workload.mid(instrument.name)),
        }
        path = self._pipeline.folder / "trades.json"
        path.write_bytes(orjson.dumps(plan))
        before = self._journal.totals[TRADES]
        command = [sys.executable, "-m", "benchmarks.latency_probe", "--trades", str(path)]
        with subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as writer:
            if writer.stdout is None or writer.stdin is None:
                raise AssertionError
            if writer.stdout.readline().strip() != b"ready":
                msg = f"the writer of trades ended with code {writer.wait()}"
                raise ServiceError(msg)
            began_s = time.monotonic()
            try:
                yield
            finally:
                writer.stdin.close()
                sent = int(writer.stdout.readline() or 0)
        spent_s = time.monotonic() - began_s
        self._journal.wait({TRADES: before + sent}, "trades", _READY_S)
        found.figures["trades_beside.events_per_s"] = round(sent / spent_s)

    # -- how

    def _cpu_seconds(self) -> dict[str, float]:
        """Return what worker and broker have used; a broker that is not ours is left out."""
        pids = {"worker": self._worker.pid, "broker": self._pipeline.broker_pid}
        return {who: machine.cpu_seconds(pid) for who, pid in pids.items() if pid is not None}

    def _waves_in(self, rate: float) -> int:
        return 1 + max(1, round(self._options.seconds * rate / self._waves.steps_in))

    def _next_seq(self) -> int:
        """Return the sequence that the next frame must have."""
        if not self._seq:
            last = read_committed(self._pipeline, MARKS)[-1]
            self._seq = orjson.loads(last.value)["seq"] + 1
        return self._seq

    def _wave_scenario(
        self,
        found: _Findings,
        name: str,
        rate: float,
        waves: int,
        values: list[bytes],
        topic: str,
        partitions: list[int],
    ) -> None:
        say(f"{name}: {len(values):,} in {len(values) / rate:.0f} s")
        self._seq = 0 if topic == ORACLE_TICKS else self._seq
        expected = waves * self._waves.events_in * self._partitions
        began, began_s = self._cpu_seconds(), time.monotonic()
        due, seen = self._probe(values, rate, topic, partitions, expected=expected)
        spent_s = time.monotonic() - began_s
        events = [(at, p, orjson.loads(value)) for at, p, value in seen]
        # Ticks that waited together become one frame, with the last of them.
        is_conflated = topic == ORACLE_TICKS
        histogram, missed = self._histogram(name, due, events, waves, may_miss=is_conflated)
        for label, percentile in (("p50", 50), ("p90", 90), ("p99", 99), ("p999", 99.9)):
            value = histogram.get_value_at_percentile(percentile)
            found.figures[f"{name}.{label}_ms"] = round(value / 1000, 2)
        found.figures[f"{name}.max_ms"] = round(histogram.get_max_value() / 1000, 2)
        for who, seconds in self._cpu_seconds().items():
            found.figures[f"{name}.{who}_cpu_share"] = round((seconds - began[who]) / spent_s, 3)
        found.events[name] = histogram.get_total_count()
        say(
            "  "
            + ", ".join(
                f"{k.rpartition('.')[2]} {v}"
                for k, v in found.figures.items()
                if k.startswith(name + ".")
            )
        )
        if is_conflated:
            found.figures[f"{name}.conflated"] = missed
        else:
            self._digest(found, name, ((p, e) for _, p, e in events))

    def _probe(
        self, values: list[bytes], rate: float, topic: str, partitions: list[int], *, expected: int
    ) -> tuple[list[int], list[tuple[int, int, str]]]:
        """Send values and return when each was due and (seen, partition, event) in that order."""
        folder = self._pipeline.folder
        plan = {
            "bootstrap_servers": self._pipeline.bootstrap_servers,
            "send_to": self._pipeline.topics.physical(topic),
            "send_partitions": partitions,
            "key": FRAME_KEY.decode() if topic == MARKS else _CANARY_MARKET,
            "rate": rate,
            "values": [value.decode() for value in values],
            "read_from": self._pipeline.topics.physical(LIQUIDATIONS),
            "read_partitions": self._partitions,
            "expected": expected,
            "patience_s": _PATIENCE_S,
        }
        (folder / "plan.json").write_bytes(orjson.dumps(plan))
        command = [sys.executable, "-m", "benchmarks.latency_probe"]
        done = subprocess.run(
            [*command, str(folder / "plan.json"), str(folder / "result.json")],
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        self._worker.check()
        if done.returncode:
            msg = f"the probe ended with code {done.returncode}: {done.stderr[-300:]}"
            raise ServiceError(msg)
        result = orjson.loads((folder / "result.json").read_bytes())
        return result["due_ns"], result["seen"]

    def _histogram(
        self,
        name: str,
        due: list[int],
        events: list[tuple[int, int, Any]],
        waves: int,
        *,
        may_miss: bool,
    ) -> tuple[Any, int]:
        """Return microseconds from each step to its event, and how many events there were not.

        An event's mark names the step it followed; its canary's own step is that one or, where
        several were taken together, the last before it.
        """
        steps = self._waves.steps(waves)
        step_of_price: dict[str, int] = {}
        for number, step in enumerate(steps):
            step_of_price.setdefault(step.price, number)
        own = {(s.canary, s.event): n for n, s in enumerate(steps[: self._waves.steps_in])}
        seen: set[tuple[int, int]] = set()
        histogram = HdrHistogram(1, _HIGHEST_US, 3)
        for at_ns, partition, event in events:
            account = event["account_id"]
            if not account.startswith(f"canary-{partition}-"):
                msg = f"{name}: an event of {account}, canaries alone were expected"
                raise InvariantError(msg)
            now = step_of_price[event["positions"][0]["mark_price"]]
            at = own[self._waves.canary_of(account), event["event"]]
            at += (now - at) // self._waves.steps_in * self._waves.steps_in
            if (partition, at) in seen:
                msg = f"{name}: {account} {event['event']} twice at step {at}"
                raise InvariantError(msg)
            seen.add((partition, at))
            if at >= self._waves.steps_in:  # the first wave is for warming up
                histogram.record_value(max(1, (at_ns - due[at]) // 1000))
        missed = waves * self._waves.events_in * self._partitions - len(seen)
        if missed and not may_miss:
            msg = f"{name}: {missed} of {missed + len(seen)} events are missing"
            raise InvariantError(msg)
        return histogram, missed

    def _check_mass(self, events: list[Any], event: str) -> None:
        accounts = {e["account_id"] for e in events if e["event"] == event}
        if len(events) != self._mass or len(accounts) != self._mass:
            msg = (
                f"mass event: {len(events)} events of {len(accounts)} accounts {event}, "
                f"{self._mass} expected"
            )
            raise InvariantError(msg)

    @staticmethod
    def _digest(found: _Findings, name: str, events: Iterator[tuple[int, Any]]) -> None:
        """Hash who was offered what; offsets and framing have no part in it."""
        lines = sorted(
            f"{name} {p} {e['account_id']} {e['event']} {e['reason']} {e['shortfall']}"
            for p, e in events
        )
        found.digest.update("\n".join(lines).encode())

    @staticmethod
    def _text(price: float) -> str:
        return format_scaled(round(price * 1e6), MICRO_EXPONENT)


class _Totals:
    """How many records of each input all partitions have committed, from ``journal.v1``."""

    def __init__(self, pipeline: Pipeline, worker: Worker) -> None:
        self.totals: dict[str, int] = defaultdict(int)
        self._worker = worker
        self._consumer = Consumer(
            {
                "bootstrap.servers": pipeline.bootstrap_servers,
                "group.id": "latency-totals",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        topic = pipeline.topics.physical(JOURNAL)
        self._consumer.assign(
            [TopicPartition(topic, p, 0) for p in range(pipeline.topics.partitions)]
        )

    def wait(self, least: dict[str, int], what: str, deadline_s: float) -> None:
        """Wait until the totals have come that far.

        Raises
        ------
        ServiceError
            The worker ended, or the deadline passed.
        """
        end = time.monotonic() + deadline_s
        while any(self.totals[topic] < count for topic, count in least.items()):
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                for topic, count in orjson.loads(message.value())["counts"].items():
                    self.totals[topic] += count
                continue
            self._worker.check()
            if time.monotonic() > end:
                msg = f"{what}: not within {deadline_s:.0f} s; read so far: {dict(self.totals)}"
                raise ServiceError(msg)

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; see `benchmarks.command`."""
    return run(
        "latency",
        __doc__ or "",
        measure,
        full=LatencyOptions(),
        smoke=SMOKE,
        arguments=arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
