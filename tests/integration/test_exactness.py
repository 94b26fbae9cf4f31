"""The whole pipeline under kill -9: ledger, journal, events and hashes are exact.

The oracle (``support.exact``) is an independent fold of the input topics in journal order, which
shares no code with the engine; the rolling hashes are reproduced by applying the journal's runs to
fresh shards, slice by slice. More faults: ``tests/chaos``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import builtin_rulebook
from solvent.wire.topics import JOURNAL, ORACLE_TICKS, PRICE_JOURNAL
from support.broker import Broker
from support.exact import examine
from support.mixed import mixed_records
from support.pipeline import Pipeline

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
    findings = examine(pipeline.kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    assert not findings.problems
    assert findings.lost == findings.doubled == 0
    assert findings.events["opened"] > 50  # the log must mean something
    assert findings.rejects
    assert findings.duplicates
    # and the product's own verification, which reads and compares by other means, agrees
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        for agent in ("margin", "prices"):
            report = verify(logs, RULEBOOK, VerifyOptions(agent=agent))
            assert report.differences == []
            assert report.as_json()["slices"] == len(
                pipeline.read(JOURNAL if agent == "margin" else PRICE_JOURNAL)
            )
