"""Who is in the group: a stopped worker leaves, a lone one stays, a dead one's name is released.

The session timeout of these workers is longer than any deadline here, so nothing below can come
from waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from solvent.ops.broker import admin_client
from solvent.ops.membership import release_name
from support.broker import Broker
from support.pipeline import Pipeline
from support.processes import Child
from support.waiting import wait_for

pytestmark = [pytest.mark.kafka]

PARTITIONS = 2
LANES = ["margin-0", "margin-1", "prices-0"]


@pytest.fixture
def pipeline(kafka: Broker, tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(kafka, tmp_path, partitions=PARTITIONS, session_timeout_s=120)
    yield made
    made.close()


def logged(worker: Child, event: str) -> list[dict[str, Any]]:
    lines = [orjson.loads(x) for x in worker.log.read_text().splitlines() if x.startswith("{")]
    return [line for line in lines if line.get("event") == event]


def wait_until_held(*workers: Child) -> None:
    """Wait until these workers hold every lane between them, in one generation."""

    def held() -> tuple[set[int], list[str]]:
        last = [line for w in workers for line in logged(w, "worker_ready")[-1:]]
        lanes = sorted(lane for line in last for lane in line["lanes"])
        return {line["generation"] for line in last}, lanes

    wait_for(held, lambda seen: len(seen[0]) == 1 and seen[1] == LANES, deadline_s=240)


def members(pipeline: Pipeline) -> list[str]:
    """Return the instance names of the group's members."""
    group = pipeline.env["SOLVENT_APP_ID"]
    with admin_client(pipeline.kafka.bootstrap_servers) as admin:
        found = admin.describe_groups([group])[group]["members"]
    return sorted(member["group_instance_id"] for member in found)


def test_stopped_worker_leaves_to_others_and_a_lone_one_stays(pipeline: Pipeline) -> None:
    pipeline.start()
    assert pipeline.worker is not None
    other = pipeline.start_another()
    wait_until_held(pipeline.worker, other)
    both = members(pipeline)
    assert len(both) == 2

    assert pipeline.worker.stop() == 0
    assert logged(pipeline.worker, "group_left")
    wait_until_held(other)
    assert len(members(pipeline)) == 1

    assert other.stop() == 0
    assert logged(other, "group_kept")
    assert len(members(pipeline)) == 1


def test_restarted_worker_releases_the_name_of_its_killed_self(pipeline: Pipeline) -> None:
    pipeline.start()
    assert pipeline.worker is not None
    other = pipeline.start_another()
    wait_until_held(pipeline.worker, other)
    before = len(logged(other, "worker_ready"))

    pipeline.kill_and_restart()
    ready = wait_for(
        lambda: logged(other, "worker_ready")[before:], lambda lines: len(lines) > 1, deadline_s=240
    )
    assert logged(pipeline.worker, "dead_member_removed")
    # The other took everything over while the killed one was still loading.
    assert sorted(ready[0]["lanes"]) == LANES
    wait_until_held(pipeline.worker, other)
    assert len(members(pipeline)) == 2


def test_release_name_where_nobody_is_to_be_released_does_nothing(pipeline: Pipeline) -> None:
    servers, group = pipeline.kafka.bootstrap_servers, pipeline.env["SOLVENT_APP_ID"]
    assert not release_name(servers, group, "nobody", pipeline.topics)
    assert not release_name("127.0.0.1:1", group, "nobody", pipeline.topics)
    pipeline.start()
    assert pipeline.worker is not None
    wait_until_held(pipeline.worker)
    (name,) = members(pipeline)
    # Alone: a restart in place moves nothing.
    assert not release_name(servers, group, name, pipeline.topics)
    assert not release_name(servers, group, "nobody", pipeline.topics)
    assert members(pipeline) == [name]


def test_restart_after_topics_were_made_anew_with_more_partitions_reads_them_all(
    pipeline: Pipeline, kafka: Broker
) -> None:
    """The broker would give a lone static member the very partitions it had before."""
    pipeline.start()
    assert pipeline.worker is not None
    wait_until_held(pipeline.worker)
    assert pipeline.worker.stop() == 0

    with admin_client(kafka.bootstrap_servers) as admin:

        def own() -> list[str]:
            return [name for name in admin.list_topics() if name.startswith(kafka.prefix)]

        admin.delete_topics(own())
        wait_for(own, lambda names: not names, deadline_s=60)
    kafka.apply_topics(4)
    pipeline.env["SOLVENT_PARTITIONS"] = "4"
    pipeline.start()
    lanes = ["margin-0", "margin-1", "margin-2", "margin-3", "prices-0"]
    wait_for(
        lambda: logged(pipeline.worker, "worker_ready")[-1:],
        lambda ready: [sorted(line["lanes"]) for line in ready] == [lanes],
        deadline_s=240,
    )
