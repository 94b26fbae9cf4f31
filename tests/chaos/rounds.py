"""One round: topics of its own, load, workers and faults by plan; then drain, stop and check.

The broker is shared by the rounds of a run. A round never stops at the first finding: `Outcome`
says all that is wrong and counts what was really done (a trap that was never reached is no fault).
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from traceback import format_exception

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer
from confluent_kafka import TopicPartition as Partition
from kafka import KafkaConsumer, TopicPartition

from chaos.broker import ChaosKafka
from chaos.forks import Forks, Worker
from chaos.plan import SESSION_S, BrokerFault, Life, Plan
from solvent.ops import topics as ops_topics
from solvent.rules import CompiledRulebook, builtin_rulebook
from solvent.wire.topics import ACCOUNT_INPUTS, LIQUIDATIONS, MARKS, ORACLE_TICKS, Topics
from solvent.worker import EXIT_SERVICE
from support.exact import Findings, examine
from support.mixed import mixed_records, with_rulebooks
from support.reading import read_topic

__all__ = ["Outcome", "Round"]

_TICK_S = 0.02
_READY_DEADLINE_S = 120.0
#: A thawed or mended worker has to end or rejoin within this. A fenced lane that the group does
#: not take away ends the worker after 15 s; then the session and a take-over may follow.
_ZOMBIE_DEADLINE_S = 45.0
_DRAIN_DEADLINE_S = 120.0
_STOP_DEADLINE_S = 40.0
_RESTARTS = 8
_SUPERVISOR_WAITS_S = 1.0
#: At the end all records must be with the broker within this.
_LOAD_TIMEOUT_S = 140.0
#: librdkafka now and then sends nothing any more after its broker came back.
_STUCK_S = 12.0
#: Records between one rulebook published and the next.
_RULEBOOK_EVERY = 1_001
#: Records that come at once now and then.
_BURST = 3_000

Script = Generator[None, None, None]


@dataclass
class Outcome:
    """What a round did and found.

    Attributes
    ----------
    plan : Plan
        What was to be done.
    done : Counter
        What was done, by kind.
    problems : list of str
        Empty if the round holds.
    findings : Findings
        Of the exactness check.
    seconds : float
        Wall time.
    """

    plan: Plan
    done: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    seconds: float = 0.0

    def report(self) -> str:
        """Return schedule and problems, as shown with a failure."""
        again = f'make chaos ARGS="--plan {self.plan.name} --rounds 1 --seed {self.plan.seed}"'
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()))
        return "\n".join(
            [*self.plan.lines(), f"done: {done}", *self.problems, f"once more: {again}"]
        )


class Round:
    """One round on a broker that runs.

    Parameters
    ----------
    plan : Plan
        What to do.
    kafka : ChaosKafka
        At least as many links as the plan has worker slots.
    forks : Forks
        Where workers come from.
    folder : Path
        Made for worker locks and logs.
    prefix : str
        Topic prefix nobody else uses.
    """

    def __init__(
        self, plan: Plan, kafka: ChaosKafka, forks: Forks, folder: Path, *, prefix: str
    ) -> None:
        self.plan = plan
        self.kafka = kafka
        self.forks = forks
        self.folder = folder
        self.topics = Topics(prefix=prefix, partitions=plan.partitions)
        self.app_id = f"{prefix}app"
        self.rulebook: CompiledRulebook = builtin_rulebook("example")
        self.outcome = Outcome(plan)
        #: When a fault of the broker last began or ended; workers may end by themselves around it.
        self.disturbed_at = 0.0
        self._slots = [Slot(self, number, lives) for number, lives in enumerate(plan.lives)]

    def run(self) -> Outcome:
        """Run the round; every process is gone afterwards, except the broker."""
        began = time.monotonic()
        self.folder.mkdir(parents=True)
        ops_topics.apply(self.kafka.bootstrap_servers, self.topics)
        loader = _Loader(self)
        reader = _SlowReader(self)
        try:
            self._act(loader)
            loader.stop()
            self._drain()
            for slot in self._slots:
                slot.stop()
            self._check_lag()
            self.outcome.findings = examine(
                self.kafka.bootstrap_servers, self.topics, self.rulebook
            )
            self.outcome.problems += self.outcome.findings.problems
            reader.check()
        except Exception as error:  # other rounds may still tell something
            self.problem("".join(format_exception(error)))
        finally:
            loader.close()
            reader.stop()
            for slot in self._slots:
                slot.close()
        self._count_logs()
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def problem(self, text: str) -> None:
        """Note what is wrong."""
        self.outcome.problems.append(text)

    def count(self, kind: str) -> None:
        """Count what was done."""
        self.outcome.done[kind] += 1

    @property
    def excuses_ends(self) -> bool:
        """Whether a worker may end by itself now: the broker was away a moment ago."""
        return time.monotonic() - self.disturbed_at < 60.0

    @property
    def names_of_inputs(self) -> list[str]:
        return [*ACCOUNT_INPUTS, ORACLE_TICKS, MARKS]

    # -- faults

    def _act(self, loader: _Loader) -> None:
        """Carry the plan out."""
        longest = sum(fault.for_s + 20.0 for fault in self.plan.broker)
        longest += max(
            sum(30.0 + self.plan.trap_s + life.for_s for life in lives) for lives in self.plan.lives
        )
        deadline = time.monotonic() + 120.0 + longest
        scripts: list[Script] = [slot.live() for slot in self._slots]
        broker = self._broker_script()
        idle = threading.Event()
        while True:
            for script in scripts:
                next(script)
            is_broker_done = next(broker, True)
            if is_broker_done and all(slot.is_staying for slot in self._slots):
                return
            loader.raise_error()
            if time.monotonic() > deadline:
                self.problem(f"the plan is not done after {120.0 + longest:.0f} s")
                return
            idle.wait(_TICK_S)

    def _broker_script(self) -> Iterator[bool]:
        """Yield False until every fault of the broker is over."""
        while not any(slot.was_ready for slot in self._slots):
            yield False
        zero = time.monotonic()
        with ThreadPoolExecutor(1) as threads:
            for fault in self.plan.broker:
                while time.monotonic() < zero + fault.at_s:
                    yield False
                self.disturbed_at = time.monotonic()
                running: Future[None] = threads.submit(self._break, fault)
                while not running.done():
                    self.disturbed_at = time.monotonic()
                    yield False
                running.result()
                self.count(f"broker {fault.kind}")

    def _break(self, fault: BrokerFault) -> None:
        wait = threading.Event().wait
        kafka = self.kafka
        match fault.kind:
            case "kill":
                kafka.kill()
                wait(fault.for_s)
                kafka.start()
            case "disk-full":
                kafka.fill_disk()
                kafka.await_death()
                kafka.start()
            case "freeze":
                kafka.freeze()
                wait(fault.for_s)
                kafka.thaw()
            case "silent" | "reset":
                for slot in range(len(self._slots)):
                    kafka.links.cut(slot, reset=fault.kind == "reset")
                wait(fault.for_s)
                for slot in range(len(self._slots)):
                    kafka.links.mend(slot)
            case _:
                raise ValueError(fault.kind)

    # -- the end

    def _drain(self) -> None:
        """Wait until every input is below a committed fence, watching the workers go on."""
        end = time.monotonic() + _DRAIN_DEADLINE_S
        scripts = [slot.live_on() for slot in self._slots]
        with _Lag(self) as lag:
            while left := lag.look():
                for script in scripts:
                    next(script)
                if time.monotonic() > end:
                    raise TimeoutError(f"not drained after {_DRAIN_DEADLINE_S:.0f} s: {left}")

    def _check_lag(self) -> None:
        """Positions reported to the group are at the end of each input once all workers left."""
        with _Lag(self) as lag:
            if left := lag.look():
                self.problem(f"group lag after the end: {left}")

    def _count_logs(self) -> None:
        """Count what the workers' logs say: group generations, lanes fenced."""
        generations = set()
        for path in self.folder.glob("worker-*.log"):
            for line in path.read_bytes().splitlines():
                if not line.startswith(b"{"):
                    continue
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the last line of a killed process
                event = entry.get("event")
                if event == "worker_ready":
                    generations.add(entry["generation"])
                elif event in {"lane_fenced", "lane_lost_meanwhile"}:
                    self.count("lane fenced")
        self.outcome.done["rebalance"] += max(0, len(generations) - 1)


class Slot:
    """One place for a worker: its processes one after the other."""

    def __init__(self, round_: Round, number: int, lives: tuple[Life, ...]) -> None:
        self._round = round_
        self._number = number
        self._lives = lives
        self._child: Worker | None = None
        self._started = 0
        self._restarts = 0
        self.is_staying = False
        self.was_ready = False

    # -- scripts: generators that are resumed every few milliseconds

    def live(self) -> Script:
        """Live all lives, then stay; never ends."""
        for life in self._lives:
            if life.end == "stay":
                break
            yield from self._live(life)
        self._start(self._lives[-1])
        yield from self._until_ready()
        self.is_staying = True
        yield from self.live_on()

    def live_on(self) -> Script:
        """Start again whenever the process ends by itself, as a supervisor does."""
        while True:
            if self._ended():
                yield from self._end_by_itself()
                self._start(self._lives[-1])
            yield

    def _live(self, life: Life) -> Script:
        while True:
            self._start(life)
            if life.end == "step":
                if (yield from self._die_at_step()):
                    return
            elif life.end == "kill" and life.early:
                yield from self._pause(life.after_s)
                if not self._ended():
                    self._kill()
                    return
            elif (yield from self._until_ready()):
                if life.step:
                    yield from self._until_still()
                else:
                    yield from self._pause(life.after_s)
                if not self._ended():
                    break
            yield from self._end_by_itself()  # and the same once more
        match life.end:
            case "kill":
                self._kill()
            case "leave":
                yield from self._leave(life.for_s)
            case "freeze":
                self._running.freeze()  # if it does not stand still already
                yield from self._pause(life.for_s)
                self._running.thaw()
                yield from self._rejoin("freeze")
            case "cut":
                links = self._round.kafka.links
                links.cut(self._number)
                yield from self._pause(life.for_s)
                links.mend(self._number)
                yield from self._rejoin("cut off")

    def _die_at_step(self) -> Generator[None, None, bool]:
        """Wait for the trap; one that is not reached in time becomes an ordinary kill -9."""
        ready_at = None
        began = time.monotonic()
        while not self._ended():
            now = time.monotonic()
            if ready_at is None and self._ready_count():
                ready_at = now
            if now - (ready_at or now) > self._round.plan.trap_s or now - began > _READY_DEADLINE_S:
                self._kill()
                self._round.count("trap not reached")
                return True
            yield
        if self._running.returncode != -9:
            return False
        life = self._running_life.step.partition(":")[0].partition("@")[0]
        self._round.count(f"kill -9 {life}")
        self._round.count("kill -9")
        return True

    def _rejoin(self, kind: str) -> Script:
        """Whoever was given up for dead must end or rejoin by itself; then it is killed."""
        self._round.count(kind)
        ready = self._ready_count()
        began = time.monotonic()
        while not self._ended() and self._ready_count() == ready:
            if time.monotonic() - began > _ZOMBIE_DEADLINE_S:
                # With the broker away, nobody may have noticed that it was.
                if not self._round.excuses_ends:
                    self._round.problem(
                        f"worker {self._number} neither ended nor rejoined within "
                        f"{_ZOMBIE_DEADLINE_S:.0f} s of its {kind}: {self._log.name}"
                    )
                break
            yield
        if self._ended():
            self._round.count(f"{kind}: ended")
            self._note_end(excused=True)
        else:
            self._round.count(f"{kind}: rejoined")
            self._kill()

    def _leave(self, away_s: float) -> Script:
        self._running.terminate()
        began = time.monotonic()
        while not self._ended():
            if time.monotonic() - began > _STOP_DEADLINE_S:
                if not self._round.excuses_ends:
                    self._round.problem(f"worker {self._number} does not stop: {self._log.name}")
                self._running.kill()
            yield
        code = self._running.returncode
        if code and not self._round.excuses_ends:
            self._round.problem(f"worker {self._number} stopped with {code}: {self._log.name}")
        self._round.count("leave and join")
        yield from self._pause(away_s, despite_end=True)

    def _until_still(self) -> Script:
        """Wait until it freezes itself at its step; if that is not reached it is frozen anyway."""
        end = time.monotonic() + self._round.plan.trap_s
        while not (self._ended() or self._running.stops):
            if time.monotonic() > end:
                self._round.count("trap not reached")
                return
            yield

    def _until_ready(self) -> Generator[None, None, bool]:
        began = time.monotonic()
        while not self._ready_count():
            if self._ended():
                return False
            if time.monotonic() - began > _READY_DEADLINE_S:
                self._round.problem(f"worker {self._number} is never ready: {self._log.name}")
                self._running.kill()
                return False
            yield
        self.was_ready = True
        return True

    def _pause(self, seconds: float, *, despite_end: bool = False) -> Script:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (despite_end or not self._ended()):
            yield

    # -- the process

    @property
    def _running(self) -> Worker:
        assert self._child is not None
        return self._child

    @property
    def _log(self) -> Path:
        return self._running.log

    def _start(self, life: Life) -> None:
        round_ = self._round
        self._started += 1
        self._running_life = life
        env = {
            "SOLVENT_BOOTSTRAP_SERVERS": round_.kafka.address(self._number),
            "SOLVENT_TOPIC_PREFIX": round_.topics.prefix,
            "SOLVENT_PARTITIONS": str(round_.topics.partitions),
            "SOLVENT_APP_ID": round_.app_id,
            "SOLVENT_DATA_DIR": str(round_.folder),
            "SOLVENT_RULEBOOK": "example",
            "SOLVENT_CLOCK": "stream",
            "SOLVENT_SESSION_TIMEOUT_S": str(SESSION_S),
            "SOLVENT_MAX_SLICE_RECORDS": str(round_.plan.slice_records),
            "CHAOS_DIE": life.step if life.end == "step" else "",
            "CHAOS_FREEZE": life.step if life.end == "freeze" else "",
            "CHAOS_CLOCK": life.clock,
        }
        if life.clock:
            round_.count("clock jumping")
        log = round_.folder / f"worker-{self._number}-{self._started}.log"
        self._child = round_.forks.start(env=env, log=log)
        self._ready_seen = (0, 0)

    def _ended(self) -> bool:
        return self._running.returncode is not None

    def _ready_count(self) -> int:
        """How often this process said that its lanes are open."""
        place, count = self._ready_seen
        with self._log.open("rb") as log:
            log.seek(place)
            text = log.read()
        whole = text.rfind(b"\n") + 1
        count += text[:whole].count(b'"worker_ready"')
        self._ready_seen = (place + whole, count)
        return count

    def _kill(self) -> None:
        self._running.kill()
        self._round.count("kill -9")

    def _end_by_itself(self) -> Script:
        """Wait a moment before the next start, as a supervisor does."""
        self._note_end()
        yield from self._pause(_SUPERVISOR_WAITS_S, despite_end=True)

    def _note_end(self, *, excused: bool = False) -> None:
        """A worker ended by itself: a supervisor would start it again, and we look why."""
        code = self._running.returncode
        self._round.count(f"worker ended by itself, code {code}")
        self._restarts += code != EXIT_SERVICE  # no broker: no wonder, and no limit
        if not (excused or self._round.excuses_ends):
            self._round.problem(
                f"worker {self._number} ended by itself with {code}, no fault of the broker "
                f"near: {self._log.name}"
            )
        if self._restarts > _RESTARTS:
            raise AssertionError(f"worker {self._number} was started {self._restarts} times")

    def stop(self) -> None:
        """Stop the last process as an operator would."""
        self._running.terminate()
        try:
            code = self._running.wait(_STOP_DEADLINE_S)
        except AssertionError:
            self._round.problem(f"worker {self._number} does not stop: {self._log.name}")
            return
        if code != 0:
            self._round.problem(f"worker {self._number} stopped with {code}: {self._log.name}")

    def close(self) -> None:
        """Leave nothing behind."""
        if self._child is not None:
            self._child.kill()


class _Loader:
    """Produces the seeded records in a thread: steadily, and now and then thousands at once."""

    def __init__(self, round_: Round) -> None:
        self._round = round_
        self._ends = threading.Event()
        self._error: BaseException | None = None
        self._waiting: dict[int, tuple[str, bytes, bytes]] = {}  # not delivered yet, by number
        self._thread = threading.Thread(target=self._guarded, name="loader")
        self._thread.start()

    def stop(self) -> None:
        self.close()
        self.raise_error()

    def close(self) -> None:
        self._ends.set()
        self._thread.join(2 * _LOAD_TIMEOUT_S)

    def raise_error(self) -> None:
        if self._error is not None:
            raise AssertionError(f"the loader failed: {self._error!r}")

    def _guarded(self) -> None:
        try:
            self._load()
        except BaseException as error:
            self._error = error

    def _load(self) -> None:
        plan, topics = self._round.plan, self._round.topics
        rulebook = self._round.rulebook
        records = with_rulebooks(
            mixed_records(rulebook, count=10**9, accounts=plan.accounts, seed=plan.seed),
            rulebook,
            every=_RULEBOOK_EVERY,
        )
        self._producer = self._new_producer()
        last, due, sent, next_burst = time.monotonic(), 0.0, 0, 2_000
        while not self._ends.is_set():
            now = time.monotonic()
            # A slow machine must not drown in what a slow round produces.
            due += (now - last) * (plan.rate if sent < plan.records else plan.rate / 10)
            last = now
            if next_burst < sent < plan.records:
                due += _BURST
                next_burst += 4 * _BURST
            for topic, key, value in islice(records, int(due)):
                self._produce(sent, (topics.physical(topic), key, value))
                sent += 1
            due -= int(due)
            self._go_on()
        end = time.monotonic() + _LOAD_TIMEOUT_S
        while self._waiting:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self._waiting)} records not produced")
            self._go_on()

    def _new_producer(self) -> Producer:
        self._moved = time.monotonic()
        return Producer(
            {
                "bootstrap.servers": self._round.kafka.bootstrap_servers,
                # Not idempotent: repeats are welcome, each is to be dropped.
                "acks": "all",
                "max.in.flight.requests.per.connection": 1,
                "linger.ms": 5,
                "partitioner": "murmur2_random",  # Kafka's own
                "message.timeout.ms": int(_LOAD_TIMEOUT_S * 1000),
                "log_level": 0,  # that the broker is away is no news
            }
        )

    def _produce(self, number: int, record: tuple[str, bytes, bytes]) -> None:
        topic, key, value = record

        def delivered(error: object, _: object) -> None:
            if error is None:
                self._moved = time.monotonic()
                self._waiting.pop(number, None)

        self._waiting[number] = record
        self._producer.produce(topic, key=key, value=value, on_delivery=delivered)

    def _go_on(self) -> None:
        """Let the producer work; one that stands still is replaced, and all it kept sent again."""
        self._producer.poll(0.05)
        if self._waiting and time.monotonic() - self._moved > _STUCK_S:
            self._producer.purge()
            self._producer = self._new_producer()
            for number, record in list(self._waiting.items()):
                self._produce(number, record)


class _SlowReader:
    """A read_committed reader that lags far behind: what it sees in the end must be the same."""

    def __init__(self, round_: Round) -> None:
        self._round = round_
        self._name = round_.topics.physical(LIQUIDATIONS)
        self._seen: list[tuple[int, int, bytes | None]] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._read, name="slow reader")
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join(30)

    def check(self) -> None:
        """Let it read on to the end at full speed and compare."""
        everything = read_topic(self._round.kafka.bootstrap_servers, self._name)
        self.stop()
        seen = {(p, o): value for p, o, value in self._seen}
        if len(seen) != len(self._seen):
            self._round.problem("the slow reader saw an event twice")
        whole = {(r.partition, r.offset): r.value for r in everything}
        if any(whole.get(place) != value for place, value in seen.items()):
            self._round.problem("the slow reader saw an event that a fast one does not see")

    def _read(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self._round.kafka.bootstrap_servers,
                "group.id": f"{self._round.app_id}.reader",  # asked for, not used: it assigns
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "max.partition.fetch.bytes": 4096,
                "queued.max.messages.kbytes": 16,
                "log_level": 0,
            }
        )
        partitions = range(self._round.topics.partitions)
        consumer.assign([Partition(self._name, p, OFFSET_BEGINNING) for p in partitions])
        while not self._ends.wait(0.5):
            for record in consumer.consume(num_messages=3, timeout=0.1):
                if record.error() is None:
                    self._seen.append((record.partition(), record.offset(), record.value()))
        consumer.close()


class _Lag:
    """How far the group's reported positions are from the end of the inputs."""

    def __init__(self, round_: Round) -> None:
        topics = round_.topics
        self._places = {
            TopicPartition(topics.physical(name), p): name
            for name in round_.names_of_inputs
            for p in range(topics.partitions_of(name))
        }
        self._consumer = KafkaConsumer(
            bootstrap_servers=round_.kafka.bootstrap_servers,
            group_id=round_.app_id,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        marks = [place for place, name in self._places.items() if name == MARKS]
        self._consumer.assign(marks)
        self._consumer.seek_to_beginning(*marks)
        #: Behind a transaction's last record lies its marker, which no position ever passes.
        self._last_mark: dict[TopicPartition, int] = {}

    def __enter__(self) -> _Lag:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def look(self) -> dict[str, int]:
        """Return the lag by input partition, where there is one."""
        consumer = self._consumer
        plain = [place for place, name in self._places.items() if name != MARKS]
        ends = consumer.end_offsets(plain)
        lag = self._behind(ends)
        if lag:
            self._poll()
            return lag
        marks = [place for place, name in self._places.items() if name == MARKS]
        marks_ends = consumer.end_offsets(marks)
        while any(consumer.position(place) < marks_ends[place] for place in marks):
            self._poll()
        return self._behind({place: self._last_mark.get(place, -1) + 1 for place in marks})

    def _poll(self) -> None:
        for place, batch in self._consumer.poll(timeout_ms=100).items():
            self._last_mark[place] = batch[-1].offset

    def _behind(self, ends: dict[TopicPartition, int]) -> dict[str, int]:
        found = {}
        for place, end in ends.items():
            lag = end - (self._consumer.committed(place) or 0)
            if lag:
                found[f"{self._places[place]}/{place.partition}"] = lag
        return found
