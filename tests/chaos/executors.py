"""Executors in the loop: several race for the same offers while everybody is killed.

Workers judge under an insurance fund and phased release. Two ``solvent executor`` processes and a
program of another firm answer the same offers, each knowing nothing of the others; all but that
program, which lives here, are killed again and again, and operators halt a market and play dry.
Afterwards topics alone must show that no more was liquidated than was offered, that no case was
lost, and that money and lots are where they were (`support.lifecycle`, the independent fold).
"""

from __future__ import annotations

import json
import random
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from kafka import KafkaProducer

from solvent.engine.waterfall import FUND_ROW_KEY, Waterfall
from solvent.ops.accounts import read_shards
from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import CompiledRulebook, builtin_rulebook, parse_rulebook
from solvent.rules.document import resolved_document
from solvent.wire.inputs import encode_control, encode_trade
from solvent.wire.outputs import WATERMARK_KEY
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    CONTROL,
    JOURNAL,
    LIQUIDATION_STATE,
    LIQUIDATIONS,
    MARGIN_STATUS,
    MARKS,
    PRICE_STATE,
    REJECTS,
    TRADES,
)
from support.broker import Broker
from support.exact import folds_of
from support.lifecycle import CaseReader
from support.mixed import START_US, mixed_records
from support.pipeline import Pipeline
from support.processes import Child
from support.reading import Follower, Read

__all__ = ["race"]

_PARTITIONS = 3
_OPENING_MICROS = 2_000_000_000
#: Records a part of the load, between which all is read and operators speak.
_PART = 700
_EXECUTORS = ("first", "second")
_MAIN = "from solvent.cli.main import main; main()"
Say = Callable[[str], None]


def _document() -> dict[str, Any]:
    """Return the example's rulebook with a fund, a deadline and phases that end before it."""
    document = resolved_document(builtin_rulebook("example").model)
    document["insurance"] = {
        "opening_micros": _OPENING_MICROS,
        "deleverage_after_us": 3_000_000,
    }
    for preset in document["presets"].values():
        preset["liquidation"] |= {
            "offer_ttl_us": 1_000_000,
            "release": {"duration_us": 2_000_000, "initial_ppm": 400_000},
        }
    return document


def race(
    broker: Broker, folder: Path, say: Say, *, seed: int, minutes: float, least_parts: int = 6
) -> tuple[dict[str, float], list[str]]:
    """Let executors race; return figures and what is wrong.

    Parameters
    ----------
    broker : Broker
        Where, under a prefix nobody else uses.
    folder : Path
        For the rulebook, locks and logs.
    say : callable
        Told the progress.
    seed : int
        Of the load and of who is killed when.
    minutes : float
        How long load comes; at least `least_parts` parts of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = _document()
    rulebook = parse_rulebook(yaml.safe_dump(document, sort_keys=False))
    path = folder / "raced.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    pipeline = Pipeline(
        broker, folder, partitions=_PARTITIONS, max_slice_records=200, rulebook=path
    )
    venue = _Race(pipeline, path, random.Random(seed))
    began = time.monotonic()
    try:
        venue.start()
        parts = _parts(rulebook, seed)
        done = 0
        while done < least_parts or time.monotonic() - began < 60 * minutes:
            venue.play(next(parts), done)
            done += 1
            say(f"part {done}: " + ", ".join(f"{n} {c}" for n, c in sorted(venue.done.items())))
        venue.finish()
        figures, problems = _examine(pipeline, rulebook)
    finally:
        venue.close()
    figures |= {f"faults.{name}": count for name, count in sorted(venue.done.items())}
    return {"parts": done, "seconds": round(time.monotonic() - began), **figures}, problems


def _parts(rulebook: CompiledRulebook, seed: int) -> Iterator[list[tuple[str, bytes, bytes]]]:
    """Yield the load part by part, without end."""
    records = mixed_records(rulebook, count=10**9, accounts=200, seed=seed)
    while True:
        yield [next(records) for _ in range(_PART)]


class _Race:
    """The processes that take part, and the rival that lives in this one."""

    def __init__(self, pipeline: Pipeline, rulebook: Path, chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._pipeline = pipeline
        self._rulebook = rulebook
        self._chance = chance
        self._executors: dict[str, Child] = {}
        self._rival = _Rival(pipeline, chance)
        self._commands = 0

    def start(self) -> None:
        self._pipeline.start()
        for name in _EXECUTORS:
            self._start_executor(name)

    def _start_executor(self, name: str) -> None:
        env = self._pipeline.env | {
            "SOLVENT_APP_ID": f"{self._pipeline.topics.prefix}{name}",
            "SOLVENT_RULEBOOK": str(self._rulebook),
            "PYTHONPATH": ":".join(path for path in sys.path if path),
        }
        self._executors[name] = Child(
            [sys.executable, "-c", _MAIN, "executor", "--demo", "--slippage-ppm", "500"],
            env=env,
            log=self._pipeline.tmp_path / f"executor-{name}.log",
        )

    def play(self, records: list[tuple[str, bytes, bytes]], number: int) -> None:
        """Load a part, kill somebody while it is folded, and wait until it is."""
        pipeline, chance = self._pipeline, self._chance
        if number % 3 == 1:
            self._command("halt", "BTC-PERP")
        elif number % 3 == 2:
            self._command("dry_run_on", None)
        goal = pipeline.progress + len(records) * chance.random()
        pipeline.load(records)
        self._until(lambda: pipeline.progress >= goal, f"{goal:.0f} folded")
        if number % 2 == 0:
            pipeline.kill_and_restart()
            self.done["worker kill -9"] += 1
        name = chance.choice(_EXECUTORS)
        self._executors[name].kill()
        self.done["executor kill -9"] += 1
        self._start_executor(name)
        if number % 3 == 1:
            self._command("resume", "BTC-PERP")
        elif number % 3 == 2:
            self._command("dry_run_off", None)
        self._settle()

    def _command(self, action: str, market: str | None) -> None:
        self._commands += 1
        value = encode_control(
            command_id=f"c{self._commands}",
            action=action,
            market=market,
            operator="desk",
            reason="chaos",
            ts_us=START_US + self._commands,
        )
        self._pipeline.load([(CONTROL, b"desk", value)])
        self.done[action] += 1

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        def look() -> bool:
            self._rival.answer()
            return condition()

        self._pipeline.follower.until(look, deadline_s=180, what=what)

    def _settle(self) -> None:
        """Wait until all that executors wrote is folded as well."""
        pipeline = self._pipeline

        def is_settled() -> bool:
            if pipeline.progress < pipeline.loaded.total():
                return False
            pipeline.loaded[TRADES] = len(pipeline.read(TRADES))  # executors wrote some as well
            return pipeline.is_finished()

        self._until(is_settled, "a part folded")

    def finish(self) -> None:
        """Stop who competes, then the worker behind the last fill."""
        for executor in self._executors.values():
            code = executor.stop()
            assert code == 0, f"executor stopped with {code}"
        self._settle()
        assert self._pipeline.worker is not None
        assert self._pipeline.worker.stop() == 0

    def close(self) -> None:
        for executor in self._executors.values():
            executor.ensure_gone()
        self._rival.close()
        self._pipeline.close()


class _Rival:
    """A program of another firm: fills a third of all offers, under ids of its own.

    It answers whatever it reads, late as well: what it wants may long be taken.
    """

    def __init__(self, pipeline: Pipeline, chance: random.Random) -> None:
        self._pipeline = pipeline
        self._chance = chance
        self._count = 0
        servers = pipeline.kafka.bootstrap_servers
        self._producer = KafkaProducer(bootstrap_servers=servers)
        name = pipeline.topics.physical(LIQUIDATIONS)
        self._follower = Follower(servers, [name], self._see)

    def answer(self) -> None:
        self._follower.poll(timeout_ms=0)

    def _see(self, topic: str, record: Read) -> None:
        del topic
        event = json.loads(record.value or b"")
        for leg in event["legs"]:
            if self._chance.random() > 0.35:
                continue
            self._count += 1
            value = encode_trade(
                trade_id=f"rival-{self._count}",
                account_id=event["account_id"],
                subaccount=event["subaccount"],
                market=leg["market"],
                side=leg["side"],
                size=leg["size"],
                price=leg["limit_price"],
                fee="0",
                liquidation_id=event["liquidation_id"],
                ts_us=event["ts_us"],
            )
            self._producer.send(self._pipeline.topics.physical(TRADES), key=record.key, value=value)
        self._producer.flush()

    def close(self) -> None:
        self._follower.close()
        self._producer.close()


# -- what topics say


def _examine(pipeline: Pipeline, rulebook: CompiledRulebook) -> tuple[dict[str, float], list[str]]:
    problems: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    standing = ended = 0
    for partition in range(pipeline.partitions):
        try:
            reader = _read_cases(pipeline, partition)
        except AssertionError as error:
            problems.append(f"cases of partition {partition}: {error}")
            continue
        seen += reader.seen
        standing += len(reader.cases)
        ended += len(reader.ended)
    problems += _check_conserved(pipeline, rulebook)
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        for agent in ("margin", "prices"):
            report = verify(logs, rulebook, VerifyOptions(agent=agent))
            problems += [f"replay --verify: {each}" for each in report.differences]
    opened = sum(seen["opened", reason] for reason in ("bankrupt", "liquidatable"))
    figures: dict[str, float] = {
        "cases_begun": standing + ended,
        "offers_opened": opened,
        "cases_ended": ended,
        "cases_standing": standing,
        "fills_counted": seen["fill", ""],
        "fills_refused": sum(n for (kind, code), n in seen.items() if kind == "fill" and code),
        "fills_repeated": _repeats(pipeline),
    }
    figures |= {
        f"ended.{event}.{reason}": count
        for (event, reason), count in sorted(seen.items())
        if event in {"closed", "recovered"}
    }
    return figures, problems


def _repeats(pipeline: Pipeline) -> int:
    """Return how many fills executors wrote that another had written before, id and all."""
    ids: Counter[tuple[str, str]] = Counter()
    for record in pipeline.read(TRADES):
        if b'"liquidation_id"' in (record.value or b""):
            try:
                told = json.loads(record.value or b"")
            except ValueError:
                continue
            ids[told["account_id"], told["trade_id"]] += 1
    return ids.total() - len(ids)


def _read_cases(pipeline: Pipeline, partition: int) -> CaseReader:
    """Follow the cases of a partition in the order in which its journal applied the inputs."""

    def read(topic: str) -> list[Read]:
        return [r for r in pipeline.read(topic) if r.partition == partition]

    def told(topic: str) -> list[dict[str, Any]]:
        return [json.loads(r.value or b"") for r in read(topic)]

    inputs = {topic: read(topic) for topic in (*ACCOUNT_INPUTS, MARKS)}
    offsets = {topic: [r.offset for r in records] for topic, records in inputs.items()}
    applied: list[tuple[str, Read]] = []
    for entry in told(JOURNAL):
        for topic, first, last in entry["runs"]:
            begin, end = bisect_left(offsets[topic], first), bisect_right(offsets[topic], last)
            applied += [(topic, record) for record in inputs[topic][begin:end]]
    assert len(applied) == sum(map(len, inputs.values())), "inputs in no slice, or in two"
    events = told(LIQUIDATIONS)
    rejects = [json.loads(r.value or b"") for r in pipeline.read(REJECTS)]
    reader = CaseReader(partition)
    reader.follow(
        applied,
        events=events,
        statuses=told(MARGIN_STATUS),
        rejects=[e for e in rejects if e["topic"] in inputs and e["partition"] == partition],
    )
    stands = {r.key: r.value for r in read(LIQUIDATION_STATE) if r.key != WATERMARK_KEY}
    left = {key: json.loads(value) for key, value in stands.items() if value is not None}
    assert left.keys() == {f"{a}:{s}".encode() for a, s in reader.cases}, "another case stands"
    for (account_id, subaccount), case in reader.cases.items():
        found = left[f"{account_id}:{subaccount}".encode()]
        for name in found.keys() - {"kind", "inputs"}:
            assert found[name] == case.event[name], f"{case.event['liquidation_id']}: {name}"
    return reader


def _check_conserved(pipeline: Pipeline, rulebook: CompiledRulebook) -> list[str]:
    """Accounts and fund hold together what inputs brought, by a fold that knows no fund."""
    servers = pipeline.kafka.bootstrap_servers
    rows = [r.value for r in pipeline.read(PRICE_STATE) if r.key == FUND_ROW_KEY]
    waterfall = Waterfall(pipeline.partitions)
    waterfall.load(rows[-1] or b"")
    sums: Counter[str] = Counter({"micros": waterfall.fund_micros - _OPENING_MICROS})
    for market, (lots, cost) in waterfall.held.items():
        sums[market] += lots
        sums["micros"] -= rulebook.instrument_by_name[market].value_of(1, cost, 1)
    for shard in read_shards(servers, pipeline.topics, rulebook):
        columns = shard.columns
        for account in range(len(columns.account_ids)):
            for unit in columns.units_of(account):
                sums["micros"] += dict(columns.balances_of(unit)).get(0, 0)
                for index, lots, cost in columns.positions_of(unit):
                    sums[rulebook.instruments[index].name] += lots
                    sums["micros"] -= cost
    for fold in folds_of(servers, pipeline.topics, rulebook).values():
        for told in fold.accounts.values():
            for book in told.books.values():
                sums["micros"] -= book.balances.get("USDC", 0)
                for market, (lots, cost) in book.positions.items():
                    sums[market] -= lots
                    sums["micros"] += cost
    wrong = {name: amount for name, amount in sums.items() if amount}
    return [f"not conserved: {wrong}"] if wrong else []
