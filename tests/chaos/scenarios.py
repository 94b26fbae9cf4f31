"""Load and limits, on the real broker: part of the long run (``make chaos``), not of `make test`.

``overload``
    Ten times as many trades as the worker gets through, for minutes: its memory stays flat, the lag
    grows, and afterwards nothing is lost. The worker is slow because its slices are tiny, and its
    pace is measured first; so the load is honest and the log stays small enough for a disk.
``limits``
    Records as large as the broker takes; 10,000 markets, an account with 1,000 positions, a hot
    account with half of all trades.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from chaos.broker import ChaosKafka
from solvent.rules import builtin_rulebook, load_rulebook
from solvent.wire.inputs import encode_clock, encode_collateral_move, encode_tick, encode_trade
from solvent.wire.topics import (
    COLLATERAL,
    JOURNAL,
    LIQUIDATIONS,
    MARKS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
    REJECTS,
    TRADES,
)
from support.broker import Broker
from support.exact import Findings, examine, partition_of
from support.mixed import mixed_records
from support.pipeline import Pipeline

__all__ = ["limits", "overload"]

START_US = 1_743_897_600_000_000
Produced = tuple[str, bytes, bytes]
Say = Callable[[str], None]


# -- overload

#: Records a slice while overloaded.
_TINY_SLICE = 5
#: Seconds over which the pace is measured.
_PACE_OVER_S = 20
#: Seconds of overload before memory is looked at: until then buffers are still growing.
_WARM_UP_S = 60


class _Flood:
    """Trades at a steady rate, from a thread: numbered by account, so that none is dropped."""

    def __init__(self, pipeline: Pipeline, *, accounts: int, rate: float) -> None:
        self.sent = 0
        self.rate = rate  # may be changed at any time
        self._pipeline = pipeline
        self._ends = threading.Event()
        self._error: BaseException | None = None
        self._accounts = [f"acct-{number}" for number in range(accounts)]
        self._thread = threading.Thread(target=self._guarded, name="flood")
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait until all is on the broker."""
        self._ends.set()
        self._thread.join(120)
        self.check()

    def check(self) -> None:
        """Raise what ended the thread."""
        if self._error is not None:
            raise AssertionError(f"the flood ended: {self._error!r}")

    def _guarded(self) -> None:
        try:
            asyncio.run(self._produce())
        except BaseException as error:
            self._error = error

    async def _produce(self) -> None:
        topic = self._pipeline.topics.physical(TRADES)
        partitions = self._pipeline.partitions
        places = [partition_of(name.encode(), partitions) for name in self._accounts]
        numbers = [0] * len(self._accounts)
        producer = AIOKafkaProducer(
            bootstrap_servers=self._pipeline.kafka.bootstrap_servers,
            enable_idempotence=True,
            max_batch_size=1 << 20,
        )
        await producer.start()
        try:
            last, owed = time.monotonic(), 0.0
            while not self._ends.is_set():
                now = time.monotonic()
                owed, last = min(owed + (now - last) * self.rate, 20_000.0), now
                due = int(owed)
                owed -= due
                batches = [producer.create_batch() for _ in range(partitions)]
                for number in range(self.sent, self.sent + due):
                    account = number % len(self._accounts)
                    numbers[account] += 1
                    batch = batches[places[account]]
                    batch.append(
                        key=self._accounts[account].encode(),
                        value=_trade(self._accounts[account], number, numbers[account]),
                        timestamp=None,
                    )
                self.sent += due
                sends = [
                    await producer.send_batch(batch, topic, partition=partition)
                    for partition, batch in enumerate(batches)
                    if batch.record_count()
                ]
                await asyncio.gather(*sends)
                await asyncio.sleep(0.05)
        finally:
            await producer.stop()


def _trade(account: str, number: int, seq: int) -> bytes:
    return encode_trade(
        trade_id=f"t-{number}",
        account_id=account,
        subaccount="cross",
        market="BTC-PERP",
        side="sell" if seq % 2 else "buy",
        size="0.001",
        price="60000.0",
        fee="0.01",
        ts_us=START_US + number,
        seq=seq,
    )


def _rss_mib(pid: int) -> float:
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) / 1024


def overload(
    kafka: ChaosKafka, folder: Path, say: Say, *, minutes: float, factor: float, seed: int
) -> tuple[dict[str, float], list[str]]:
    """Overload a worker; return figures and what is wrong.

    Parameters
    ----------
    kafka : ChaosKafka
        A node that runs.
    folder : Path
        For locks and logs.
    say : callable
        Told the progress.
    minutes : float
        How long.
    factor : float
        Load over what the worker gets through.
    seed : int
        Makes the topic prefix its own.
    """
    accounts = 1_000
    broker = Broker(kafka.bootstrap_servers, kafka, f"overload-{seed}.")
    folder.mkdir(parents=True)
    pipeline = Pipeline(broker, folder, partitions=4, max_slice_records=_TINY_SLICE)
    problems: list[str] = []
    flood = None
    try:
        pipeline.load(_deposits(accounts))
        pipeline.start()
        assert pipeline.worker is not None
        pipeline.follower.until(
            lambda: pipeline.progress >= accounts, deadline_s=180, what="deposits folded"
        )
        # Saturated from the start: what it gets through now is its pace.
        flood = _Flood(pipeline, accounts=accounts, rate=20_000)
        paces: deque[tuple[float, int]] = deque(maxlen=_PACE_OVER_S)
        paces.append((time.monotonic(), pipeline.progress))

        def next_second() -> float:
            """Wait a second and return how fast the worker was over the last ones."""
            end = time.monotonic() + 1.0
            pipeline.follower.until(lambda: time.monotonic() > end, deadline_s=60, what="a second")
            flood.check()
            paces.append((time.monotonic(), pipeline.progress))
            return (paces[-1][1] - paces[0][1]) / (paces[-1][0] - paces[0][0])

        for _ in range(_PACE_OVER_S + _WARM_UP_S):
            pace = next_second()
            flood.rate = max(flood.rate, factor * pace)
        sent, before, began = flood.sent, pipeline.progress, time.monotonic()
        samples: list[tuple[float, int]] = []  # MiB, lag
        while (at := time.monotonic() - began) < minutes * 60:
            flood.rate = factor * pace
            pace = next_second()
            lag = flood.sent + accounts - pipeline.progress
            samples.append((_rss_mib(pipeline.worker.pid), lag))
            if len(samples) % 30 == 0:
                say(
                    f"{at:.0f} s: pace {pace:,.0f}/s, load {flood.rate:,.0f}/s, lag {lag:,}, "
                    f"{samples[-1][0]:.0f} MiB"
                )
        seconds = time.monotonic() - began
        got = (pipeline.progress - before) / seconds
        load = (flood.sent - sent) / seconds
        flood.stop()
        say(f"drain {flood.sent + accounts - pipeline.progress:,}")
        assert pipeline.worker.stop(60) == 0
        pipeline.env["SOLVENT_MAX_SLICE_RECORDS"] = "20000"
        pipeline.start()
        pipeline.loaded[TRADES] += flood.sent
        pipeline.finish(deadline_s=900)
        problems += _check_coverage(pipeline)
        problems += _verify(pipeline)
    finally:
        if flood is not None:
            flood._ends.set()
        pipeline.close()
    rss = [mib for mib, _ in samples]
    fifth = max(1, len(rss) // 5)
    first, last = statistics.median(rss[fifth : 2 * fifth]), statistics.median(rss[-fifth:])
    growth = last / first - 1
    if growth > 0.05:
        problems.append(f"memory grew from {first:.0f} to {last:.0f} MiB, by {growth:.1%}")
    lags = [lag for _, lag in samples]
    if not lags[0] < lags[len(lags) // 2] < lags[-1]:
        problems.append(f"lag does not grow: {lags[0]}, {lags[len(lags) // 2]}, {lags[-1]}")
    figures = {
        "minutes": round(seconds / 60, 1),
        "load_per_s": round(load),
        "folded_per_s": round(got),
        "load_over_pace": round(load / got, 1),
        "trades_sent": flood.sent,
        "lag_at_end": lags[-1],
        "rss_second_fifth_mib": round(first, 1),
        "rss_last_fifth_mib": round(last, 1),
        "rss_max_mib": round(max(rss), 1),
        "lost": float(sum("lost" in problem for problem in problems)),
    }
    return figures, problems


def _deposits(accounts: int) -> Iterator[Produced]:
    for number in range(accounts):
        account = f"acct-{number}"
        yield COLLATERAL, account.encode(), _deposit(account, number)


def _deposit(account: str, number: int, amount: str = "1000000") -> bytes:
    return encode_collateral_move(
        move_id=f"m-{number}",
        account_id=account,
        subaccount="cross",
        asset="USDC",
        kind="deposit",
        amount=amount,
        ts_us=START_US,
    )


def _check_coverage(pipeline: Pipeline) -> list[str]:
    """Runs of the journal tile each input from its first record to its last."""
    problems = []
    ends: dict[tuple[str, int], int] = {}
    for record in sorted(pipeline.read(JOURNAL), key=lambda r: (r.partition, r.offset)):
        for topic, first, last in json.loads(record.value or b"")["runs"]:
            place = (topic, record.partition)
            if topic != MARKS and first != ends.get(place, 0):
                problems.append(f"lost or doubled: {place} run from {first}, {ends.get(place, 0)}")
            ends[place] = last + 1
    consumer = KafkaConsumer(bootstrap_servers=pipeline.kafka.bootstrap_servers)
    try:
        for topic in (TRADES, COLLATERAL):
            name = pipeline.topics.physical(topic)
            for partition in range(pipeline.partitions):
                place = TopicPartition(name, partition)
                end = consumer.end_offsets([place])[place]
                if ends.get((topic, partition), 0) != end:
                    problems.append(f"lost: {topic}/{partition} ends at {end}")
    finally:
        consumer.close()
    return problems[:5]


def _verify(pipeline: Pipeline) -> list[str]:
    """`solvent replay --verify` over all of it."""
    answer = subprocess.run(
        [sys.executable, "-m", "solvent.cli.main", "replay", "--verify", "--json"],
        env={**os.environ, **pipeline.env},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if answer.returncode == 0:
        return []
    return [f"replay --verify exits with {answer.returncode}: {answer.stderr[-300:]}"]


# -- limits


def limits(
    kafka: ChaosKafka, folder: Path, say: Say, *, seed: int
) -> tuple[dict[str, float], list[str]]:
    """Go to the limits; return figures and what is wrong."""
    figures: dict[str, float] = {}
    problems: list[str] = []
    for name, scenario in (("large", _large_records), ("wide", _wide_rulebook)):
        began = time.monotonic()
        own = folder / name
        own.mkdir(parents=True)
        broker = Broker(kafka.bootstrap_servers, kafka, f"{name}-{seed}.")
        found, more = scenario(broker, own, seed)
        figures |= {f"{name}.{key}": value for key, value in found.items()}
        figures[f"{name}.seconds"] = round(time.monotonic() - began, 1)
        problems += [f"{name}: {problem}" for problem in more]
        say(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in found.items()))
    return figures, problems


def _counts(findings: Findings) -> dict[str, float]:
    return {
        "input_records": findings.inputs,
        "lost": findings.lost,
        "doubled": findings.doubled,
        "refused_records": findings.rejects,
        "offers_opened": findings.events["opened"],
    }


def _large_records(broker: Broker, folder: Path, seed: int) -> tuple[dict[str, float], list[str]]:
    """Good and bad records just below the broker's limit, among ordinary ones."""
    limit = 8 << 20  # message.max.bytes of the broker, for a batch with its header
    size = limit - 1_000
    rulebook = builtin_rulebook("example")
    pipeline = Pipeline(broker, folder, partitions=2)
    try:
        records = list(mixed_records(rulebook, count=3_000, accounts=100, seed=seed))
        trades = [place for place, record in enumerate(records) if record[0] == TRADES]
        chance = random.Random(seed)
        for place in chance.sample(trades[100:], 12):
            topic, key, value = records[place]
            # The same record, spelt with eight million blanks; or eight megabytes of nonsense.
            large = value.ljust(size) if chance.random() < 0.5 else b"x" * size
            records[place] = (topic, key, large)
        producer = KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers,
            max_request_size=limit,
            max_block_ms=120_000,
        )
        for topic, key, value in records:
            producer.send(pipeline.topics.physical(topic), key=key, value=value)
            pipeline.loaded[topic] += 1
        producer.flush()
        producer.close()
        pipeline.start()
        assert pipeline.worker is not None
        pipeline.finish(deadline_s=300)
        findings = examine(broker.bootstrap_servers, pipeline.topics, rulebook)
        largest = max(len(value) for _, _, value in records)
        rejects = max(len(r.value or b"") for r in pipeline.read(REJECTS))
        return {
            "largest_record_bytes": largest,
            "largest_reject_bytes": rejects,
            **_counts(findings),
        }, findings.problems
    finally:
        pipeline.close()


MARKETS = 10_000
POSITIONS = 1_000
WIDE_TRADES = 60_000


def _wide_rulebook(broker: Broker, folder: Path, seed: int) -> tuple[dict[str, float], list[str]]:
    """10,000 markets; one account holds 1,000 of them; one account does half of all trades."""
    text = yaml.safe_dump(_many_markets(), sort_keys=False)
    path = folder / "rulebook.yaml"
    path.write_text(text, "utf-8")
    rulebook = load_rulebook(text)
    pipeline = Pipeline(broker, folder, partitions=4, rulebook=str(path))
    try:
        pipeline.load(_wide_records(seed))
        pipeline.start()
        pipeline.finish(deadline_s=600)
        findings = examine(broker.bootstrap_servers, pipeline.topics, rulebook)
        problems = findings.problems
        events = [r for r in pipeline.read(LIQUIDATIONS) if r.key == b"wide"]
        if not events:
            problems.append(f"the account with {POSITIONS} positions was never liquidated")
        frames = [len(r.value or b"") for r in pipeline.read(MARKS)]
        return {
            "markets": MARKETS,
            "positions_of_one_account": POSITIONS,
            "trades": WIDE_TRADES,
            "largest_frame_bytes": max(frames, default=0),
            "largest_event_bytes": max((len(r.value or b"") for r in events), default=0),
            "journal_records": len(pipeline.read(JOURNAL)) + len(pipeline.read(PRICE_JOURNAL)),
            **_counts(findings),
        }, problems
    finally:
        pipeline.close()


def _market(number: int) -> str:
    return f"M{number:04d}-PERP"


def _many_markets() -> dict[str, Any]:
    names = [_market(number) for number in range(MARKETS)]
    rates = {"initial_rate_ppm": 100_000, "maintenance_rate_ppm": 50_000}
    return {
        "rulebook": {
            "id": "wide",
            "version": 1,
            "effective_at_us": 0,
            "settlement_asset": "USDC",
        },
        "feeds": {name: {"exponent": -4} for name in names},
        "assets": {"USDC": {"quantum_exponent": -6, "borrowable": True}},
        "instruments": {
            name: {
                "id": number + 1,
                "lot": "0.01",
                "tick": "0.01",
                "mark_feed": name,
                "settles_in": "USDC",
            }
            for number, name in enumerate(names)
        },
        "presets": {
            "cross-margin": {
                "extends": "cross-margin",
                "collateral": {"USDC": {"initial_haircut_ppm": 0, "maintenance_haircut_ppm": 0}},
                "requirement": {
                    "sum": [{"term": "flat", "markets": {name: dict(rates) for name in names}}]
                },
            }
        },
        "bindings": {"trader": "cross-margin"},
        "default_class": "trader",
        "oracle": {
            "default": {
                "max_age_us": 60_000_000,
                "max_conf_ppm": 10_000,
                "min_sources": 1,
                "quorum_ppm": 600_000,
                "band_ppm": 20_000,
                "max_skew_us": 5_000_000,
                "grace_us": 0,
            }
        },
    }


def _wide_records(seed: int) -> Iterator[Produced]:
    """Deposits, positions, then three rounds of prices: at 100, at 99, at 80."""
    chance = random.Random(seed)
    accounts = ["hot", "wide", *(f"acct-{number}" for number in range(300))]
    for number, account in enumerate(accounts):
        yield COLLATERAL, account.encode(), _deposit(account, number, "15000")
    yield from _prices(0, "100.00")
    for number in range(WIDE_TRADES):
        if number < POSITIONS:
            account, market, side = "wide", _market(number * 7), "buy"
        else:
            account = "hot" if number % 2 else chance.choice(accounts[2:])
            market = _market(chance.randrange(MARKETS))
            side = "buy" if chance.random() < 0.5 else "sell"
        value = encode_trade(
            trade_id=f"t-{number}",
            account_id=account,
            subaccount="cross",
            market=market,
            side=side,
            size="1" if account == "wide" else "0.05",
            price="100.00",
            fee="0",
            ts_us=START_US + number,
        )
        yield TRADES, account.encode(), value
    yield from _prices(1, "99.00")
    yield from _prices(2, "80.00")


def _prices(step: int, price: str) -> Iterator[Produced]:
    ts_us = START_US + step * 1_000_000
    for number in range(MARKETS):
        name = _market(number)
        value = encode_tick(source="one", feed=name, price=price, ts_us=ts_us)
        yield ORACLE_TICKS, name.encode(), value
    yield ORACLE_TICKS, b"clock", encode_clock(ts_us)
