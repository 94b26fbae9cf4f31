"""The whole pipeline under kill -9: ledger, journal, events and hashes are exact.

The oracle is an independent fold of the input topics in journal order (``support.fold``), which
shares no code with the engine; the rolling hashes are reproduced by applying the journal's runs to
fresh shards, slice by slice.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from solvent.engine.journal import SliceJournal
from solvent.engine.margin import MarginShard
from solvent.engine.prices import PriceShard
from solvent.ops.accounts import read_shards
from solvent.rules import builtin_rulebook
from solvent.wire.topics import (
    COLLATERAL,
    JOURNAL,
    LIQUIDATIONS,
    MARGIN_STATUS,
    MARKS,
    ORACLE_TICKS,
    PRICE_JOURNAL,
    REJECTS,
    TRADES,
)
from support.broker import Broker
from support.contracts import validator
from support.fold import Fold, FoldRules
from support.margin import ledger_of, ledger_of_fold
from support.mixed import mixed_records
from support.pipeline import Pipeline
from support.reading import Read

pytestmark = [pytest.mark.kafka]

PARTITIONS = 4
RECORDS = 200_000
ACCOUNTS = 5_000
KILLS = 6
SEED = 411
RULEBOOK = builtin_rulebook("example")


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(kafka, tmp_path, partitions=PARTITIONS, max_slice_records=2000)
    yield made
    made.close()


def test_pipeline_killed_repeatedly_equals_independent_fold(pipeline: Pipeline) -> None:
    chance = random.Random(SEED)
    pipeline.load(mixed_records(RULEBOOK, count=RECORDS, accounts=ACCOUNTS, seed=SEED))
    total = pipeline.loaded.total()
    pipeline.start()
    for kill in range(KILLS):
        goal = total * (kill + chance.random()) / (KILLS + 1)
        pipeline.follower.until(
            lambda goal=goal: pipeline.progress >= goal, deadline_s=120, what=f"{goal:.0f} folded"
        )
        pipeline.kill_and_restart()
    pipeline.finish(deadline_s=180)

    check_exact(pipeline)


def test_pipeline_of_two_workers_killed_and_frozen_equals_independent_fold(
    pipeline: Pipeline,
) -> None:
    pipeline.load(mixed_records(RULEBOOK, count=RECORDS // 4, accounts=ACCOUNTS // 4, seed=SEED))
    total = pipeline.loaded.total()

    def fold(share: float) -> None:
        pipeline.follower.until(
            lambda: pipeline.progress >= total * share, deadline_s=120, what=f"{share:.0%} folded"
        )

    pipeline.start()
    other = pipeline.start_another()
    assert pipeline.worker is not None
    fold(0.1)
    pipeline.kill_and_restart()
    fold(0.4)
    other.freeze()  # beyond its session: its partitions go to the worker that is left
    pipeline.follower.until(pipeline.is_finished, deadline_s=180, what="all input folded by one")
    other.thaw()
    more = mixed_records(RULEBOOK, count=20_000, accounts=ACCOUNTS // 4, seed=SEED + 1)
    pipeline.load(record for record in more if record[0] != ORACLE_TICKS)  # time has moved on
    pipeline.finish(deadline_s=180)
    check_exact(pipeline)


def check_exact(pipeline: Pipeline) -> None:
    """Compare all that was committed with the inputs."""
    inputs = {t: pipeline.read(t) for t in (TRADES, COLLATERAL, MARKS, ORACLE_TICKS)}
    journal = pipeline.read(JOURNAL)
    check_journal(journal, {t: inputs[t] for t in (TRADES, COLLATERAL, MARKS)})
    check_journal(pipeline.read(PRICE_JOURNAL), {ORACLE_TICKS: inputs[ORACLE_TICKS]})
    folds = fold_in_journal_order(journal, inputs)
    check_ledger(pipeline, folds)
    check_rejects(pipeline, folds)
    events = check_liquidations(pipeline)
    assert events["opened"] > 50  # the log must mean something
    check_replay(pipeline, journal, inputs)


def runs_of(journal: list[Read]) -> Iterator[tuple[int, dict]]:
    for record in journal:
        yield record.partition, json.loads(record.value or b"")


def check_journal(journal: list[Read], inputs: dict[str, list[Read]]) -> None:
    """Every input offset is in one run, in order; slice numbers have no gap."""
    covered: dict[tuple[str, int], list[tuple[int, int]]] = {}
    slices: dict[int, int] = {}
    counted: Counter[str] = Counter()
    for partition, entry in runs_of(journal):
        assert entry["slice"] == slices.get(partition, 0) + 1
        slices[partition] = entry["slice"]
        counted.update(entry["counts"])
        for topic, first, last in entry["runs"]:
            covered.setdefault((topic, partition), []).append((first, last))
    for topic, records in inputs.items():
        assert counted[topic] == len(records)
        for partition in {r.partition for r in records}:
            runs = covered[topic, partition]
            assert all(a[1] < b[0] for a, b in pairwise(runs))
            within = iter(runs)
            first, last = next(within)
            for record in (r for r in records if r.partition == partition):
                while record.offset > last:
                    first, last = next(within)
                assert first <= record.offset <= last


def fold_in_journal_order(journal: list[Read], inputs: dict[str, list[Read]]) -> dict[int, Fold]:
    rules = FoldRules.of(RULEBOOK.model)
    folds = {partition: Fold(rules) for partition in range(PARTITIONS)}
    for partition, topic, records in in_journal_order(journal, inputs):
        if topic != MARKS:
            for r in records:
                folds[partition].take(topic, r.offset, r.timestamp, r.key, r.value)
    return folds


def in_journal_order(
    journal: list[Read], inputs: dict[str, list[Read]]
) -> Iterator[tuple[int, str, list[Read]]]:
    by_place = {
        (topic, partition): iter([r for r in records if r.partition == partition])
        for topic, records in inputs.items()
        for partition in range(PARTITIONS)
    }
    pending: dict[tuple[str, int], Read | None] = {k: next(v, None) for k, v in by_place.items()}
    for partition, entry in runs_of(journal):
        for topic, _, last in entry["runs"]:
            place = (topic, partition)
            run: list[Read] = []
            while (record := pending[place]) is not None and record.offset <= last:
                run.append(record)
                pending[place] = next(by_place[place], None)
            yield partition, topic, run


def check_ledger(pipeline: Pipeline, folds: dict[int, Fold]) -> None:
    """Every column of the ledger, as restored from the table, equals the fold."""
    kafka = pipeline.kafka
    shards = read_shards(kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    for partition, shard in enumerate(shards):
        assert ledger_of(shard) == ledger_of_fold(folds[partition])
    duplicates = sum(
        shard.counters["duplicate_trades"] + shard.counters["duplicate_moves"] for shard in shards
    )
    assert duplicates == sum(fold.duplicates for fold in folds.values()) > 0


def check_rejects(pipeline: Pipeline, folds: dict[int, Fold]) -> None:
    """Each refused record once, with its coordinates and code, in a record its schema allows."""
    valid = validator("rejects")
    found: Counter[tuple[str, int, int, str]] = Counter()
    for record in pipeline.read(REJECTS):
        reject = json.loads(record.value or b"")
        valid.validate(reject)
        found[reject["topic"], reject["partition"], reject["offset"], reject["code"]] += 1
    expected = Counter(
        (topic, partition, offset, code)
        for partition, fold in folds.items()
        for topic, offset, code in fold.rejects
    )
    assert found == expected
    assert expected


def check_liquidations(pipeline: Pipeline) -> Counter[str]:
    """Every id and revision once; revisions gapless, opened first, at most one end, last."""
    valid = validator("liquidations")
    cases: dict[str, list[dict]] = {}
    kinds: Counter[str] = Counter()
    for record in pipeline.read(LIQUIDATIONS):
        event = json.loads(record.value or b"")
        valid.validate(event)
        assert record.key == event["account_id"].encode()
        assert record.partition == event["partition"]
        cases.setdefault(event["liquidation_id"], []).append(event)
        kinds[event["event"]] += 1
    episodes: dict[tuple[str, str], list[int]] = {}
    for events in cases.values():
        assert [e["revision"] for e in events] == list(range(1, len(events) + 1))
        assert [e["event"] == "opened" for e in events] == [True] + [False] * (len(events) - 1)
        ends = [e["event"] in {"closed", "recovered"} for e in events]
        assert not any(ends[:-1])
        first = events[0]
        place = (first["account_id"], first["subaccount"])
        episodes.setdefault(place, []).append(first["episode"])
    for numbers in episodes.values():
        assert numbers == list(range(1, len(numbers) + 1))
    valid = validator("margin-status")
    for record in pipeline.read(MARGIN_STATUS):
        valid.validate(json.loads(record.value or b""))
    return kinds


def check_replay(pipeline: Pipeline, journal: list[Read], inputs: dict[str, list[Read]]) -> None:
    """Fresh shards fed the journal's runs reproduce every rolling hash, of both agents."""
    for agent, entries, make in (
        ("margin", journal, lambda p: MarginShard(p, RULEBOOK)),
        ("prices", pipeline.read(PRICE_JOURNAL), lambda p: PriceShard(RULEBOOK, p)),
    ):
        shards = {p: make(p) for p in range(PARTITIONS)}
        journals = {p: SliceJournal(agent, p) for p in range(PARTITIONS)}
        runs = in_journal_order(entries, inputs)
        for partition, entry in runs_of(entries):
            for _ in entry["runs"]:
                _, topic, records = next(runs)
                shards[partition].apply(topic, records)
                first, last = records[0].offset, records[-1].offset
                journals[partition].take(topic, first, last, len(records))
            closing = journals[partition].close(shards[partition].cut())
            assert json.loads(closing.journal_value)["hash"] == entry["hash"]
