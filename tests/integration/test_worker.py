"""The worker process at its edges: refusals with their exit codes, and the wall clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from solvent.ops.broker import admin_client
from solvent.ops.topics import plan
from solvent.rules import builtin_rulebook
from solvent.wire.topics import (
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    ACCOUNTS,
    COLLATERAL,
    MARKS,
    OPEN_ORDERS,
    ORACLE_TICKS,
)
from support.broker import Broker
from support.mixed import mixed_records
from support.pipeline import Pipeline
from support.reading import Follower
from support.waiting import wait_for

pytestmark = [pytest.mark.kafka]

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def make_pipeline(kafka: Broker, tmp_path: Path) -> Iterator[MakePipeline]:
    made: list[Pipeline] = []

    def make(**settings: str | int) -> Pipeline:
        made.append(Pipeline(kafka, tmp_path, partitions=2, **settings))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


def exit_of(pipeline: Pipeline) -> tuple[int, str]:
    """Run the worker to its end; return its exit code and the last line of its log."""
    pipeline.start()
    worker = pipeline.worker
    assert worker is not None
    code = wait_for(lambda: worker.returncode, lambda found: found is not None)
    return code, worker.log.read_text().strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "code", "told"),
    [
        pytest.param({"rulebook": ""}, 3, "no rulebook", id="no rulebook"),
        pytest.param({"rulebook": "/nowhere.yaml"}, 3, "/nowhere.yaml", id="missing rulebook"),
        pytest.param({"topic_prefix": "other."}, 3, "topics missing", id="missing topics"),
        pytest.param({"partitions": "3"}, 3, "partition", id="other partition count"),
        pytest.param(
            {"bootstrap_servers": "127.0.0.1:1"}, 4, "no Kafka at 127.0.0.1:1", id="no broker"
        ),
    ],
)
def test_worker_without_what_it_needs_refuses_in_one_line(
    make_pipeline: MakePipeline, settings: dict[str, str], code: int, told: str
) -> None:
    pipeline = make_pipeline()
    pipeline.env |= {f"SOLVENT_{name.upper()}": value for name, value in settings.items()}
    found, line = exit_of(pipeline)
    assert found == code
    assert line.startswith("solvent worker: SLV-")
    assert told in line


def test_worker_whose_table_takes_small_batches_only_refuses(make_pipeline: MakePipeline) -> None:
    """Else the first large slice would end it, and every restart after that."""
    from kafka.admin import ConfigResource

    pipeline = make_pipeline()
    accounts = pipeline.topics.physical(ACCOUNTS)
    with admin_client(pipeline.kafka.bootstrap_servers) as admin:
        admin.alter_configs(
            [ConfigResource("topic", accounts, {"max.message.bytes": str(1 << 20)})]
        )
    wait_for(
        lambda: plan(pipeline.kafka.bootstrap_servers, pipeline.topics),
        lambda found: bool(found.to_alter),
    )
    code, last = exit_of(pipeline)
    assert code == 3
    assert f"topic {accounts}: max.message.bytes is 1048576" in last
    assert "8388608: run `solvent topics apply`" in last


@pytest.mark.parametrize("topic", [ACCOUNT_SETTINGS, OPEN_ORDERS, ACCOUNT_SNAPSHOTS])
def test_worker_on_a_broker_older_than_its_topics_refuses(
    make_pipeline: MakePipeline, topic: str
) -> None:
    pipeline = make_pipeline()
    missing = pipeline.topics.physical(topic)
    with admin_client(pipeline.kafka.bootstrap_servers) as admin:
        admin.delete_topics([missing])
    wait_for(
        lambda: plan(pipeline.kafka.bootstrap_servers, pipeline.topics),
        lambda found: bool(found.to_create),
    )
    code, last = exit_of(pipeline)
    assert code == 3
    assert f"{topic}; `solvent topics plan`" in last


def test_worker_under_another_rulebook_than_its_table_refuses(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    rulebook = builtin_rulebook("example")
    pipeline.load(mixed_records(rulebook, count=300, accounts=20, seed=3))
    pipeline.start()
    pipeline.finish(deadline_s=90)
    pipeline.env["SOLVENT_RULEBOOK"] = "demo"
    code, line = exit_of(pipeline)
    assert code == 3  # a restart would not help, so no supervisor should try
    assert rulebook.hash[:12] in line or rulebook.id in line


def test_worker_on_the_wall_clock_writes_clocks_that_become_frames(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(clock="wall", clock_interval_ms=50)
    pipeline.start()
    frames: list[bytes] = []
    follower = Follower(
        pipeline.kafka.bootstrap_servers,
        [pipeline.topics.physical(MARKS)],
        lambda _, record: frames.append(record.value or b""),
    )
    try:
        follower.until(lambda: len(frames) >= 8, deadline_s=90, what="four frames a partition")
    finally:
        follower.close()
    assert pipeline.worker is not None
    assert pipeline.worker.stop() == 0
    assert all(record.key == b"clock" for record in pipeline.read(ORACLE_TICKS))
    assert not pipeline.read(COLLATERAL)


#: As after an answer of a broker that had just started and then went away: none is known.
FORGETFUL = """
from aiokafka.client import AIOKafkaClient

AIOKafkaClient.get_random_node = lambda self: None
"""


def test_worker_whose_group_coordinator_is_lost_ends(make_pipeline: MakePipeline) -> None:
    """aiokafka tells only callers of its own ``getmany``; unheard, the worker would sit idle."""
    pipeline = make_pipeline()
    (pipeline.tmp_path / "sitecustomize.py").write_text(FORGETFUL)
    pipeline.env["PYTHONPATH"] = str(pipeline.tmp_path)
    code, line = exit_of(pipeline)
    assert code == 4
    assert "SLV-613" in line
    assert "Did we not perform bootstrap?" in line
