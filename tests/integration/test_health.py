"""Health of real workers: ready after restore, metrics equal what was loaded, the watchdog."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from solvent.health.server import bind
from solvent.ops.accounts import read_shards
from solvent.ops.doctor import examine
from solvent.ops.kafka import LocalKafka
from solvent.ops.workers import ask, known_workers
from solvent.rules import builtin_rulebook
from solvent.settings import Settings
from solvent.wire.topics import MARKS, REJECTS
from support.broker import Broker, running_kafka
from support.mixed import mixed_records
from support.pipeline import Pipeline
from support.waiting import wait_for

pytestmark = [pytest.mark.kafka]

RULEBOOK = builtin_rulebook("example")
#: A worker compiles its kernels if no test before it has.
START_S = 180.0

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def make_pipeline(kafka: Broker, tmp_path: Path) -> Iterator[MakePipeline]:
    made: list[Pipeline] = []

    def make(broker: Broker = kafka, **settings: str | int) -> Pipeline:
        made.append(Pipeline(broker, tmp_path, partitions=2, **settings))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    """A node that a test may freeze; named before `make_pipeline`, it outlives the workers."""
    with running_kafka(tmp_path / "own") as local:
        yield local


def pages_of(pipeline: Pipeline, page: str = "/readyz") -> list[dict[str, Any]]:
    """Return what every running worker of the pipeline answers."""
    for worker in (pipeline.worker, *pipeline.others):
        if worker is not None and worker.returncode:
            pytest.fail(f"worker ended with {worker.returncode}: {worker.log.read_text()[-2000:]}")
    asked = (ask(address, page) for address in known_workers(pipeline.tmp_path))
    return [body for body in asked if body is not None]


def until_ready(pipeline: Pipeline, workers: int = 1) -> list[dict[str, Any]]:
    """Wait until so many workers are ready; whenever one says so, every lane of it is open."""

    def look() -> list[dict[str, Any]]:
        bodies = pages_of(pipeline)
        for body in bodies:
            if body["ok"]:
                assert {lane["state"] for lane in body["lanes"]} <= {"open"}
        return bodies

    return wait_for(
        look, lambda seen: len(seen) == workers and all(b["ok"] for b in seen), deadline_s=START_S
    )


def samples(pipeline: Pipeline) -> dict[str, Counter[tuple[str, ...]]]:
    """Scrape the one worker: name -> label values in order of their names -> value."""
    (address,) = known_workers(pipeline.tmp_path)
    host, port = address.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for family in text_string_to_metric_families(answer.partition(b"\r\n\r\n")[2].decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, Counter())[labels] = sample.value
    return found


def test_worker_is_ready_after_restore_and_its_metrics_are_what_was_loaded(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    pipeline.load(mixed_records(RULEBOOK, count=4_000, accounts=200, seed=9))
    pipeline.start()
    until_ready(pipeline)
    pipeline.follower.until(pipeline.is_finished, deadline_s=120, what="all input folded")
    body = wait_for(
        lambda: pages_of(pipeline)[0],
        lambda seen: all(lag == 0 for lane in seen["lanes"] for lag in lane["lag"].values()),
    )
    assert body["ok"], body["reasons"]
    (worker,) = [f for f in examine(settings_of(pipeline)) if f.check == "worker"]
    assert worker.level == "ok"
    assert f"(pid {body['pid']})" in worker.message

    seen = samples(pipeline)
    marks = len(pipeline.read(MARKS))
    records: Counter[str] = Counter()
    for (_, _, topic), count in seen["solvent_records_total"].items():
        records[topic] += int(count)
    assert records == pipeline.loaded + Counter({MARKS: marks})
    rejects = Counter(json.loads(record.value or b"")["code"] for record in pipeline.read(REJECTS))
    counted: Counter[str] = Counter()
    for (_, code, _), count in seen["solvent_rejects_total"].items():
        counted[code] += int(count)
    assert sum(rejects.values()) > 10
    assert counted == rejects
    assert seen["solvent_units"] == units_of(pipeline)
    for name in ("fold_seconds", "commit_seconds", "record_age_seconds"):
        counts = seen[f"solvent_{name}_count"]
        assert counts == seen["solvent_slices_total"], name
        assert seen[f"solvent_{name}_sum"].total() > 0
    assert seen["solvent_worker_ready"] == {(): 1}
    assert set(seen["solvent_lag_offsets"].values()) == {0}
    assert seen["solvent_transactions_fenced_total"] == {("margin",): 0, ("prices",): 0}
    assert seen["solvent_oracle_age_seconds"].keys() >= {("margin", "BTC-PERP", "0")}
    transient = {"solvent_restore_rows", "solvent_restore_ratio"}
    transient.add("solvent_breaker_tripped")  # of breakers, and the example rulebook has none
    readme = Path(__file__).parents[2].joinpath("README.md").read_text("utf-8")
    for row in (row for row in readme.splitlines() if row.startswith("| `solvent_")):
        for name in row.split("|")[1].replace("`", "").replace(" ", "").split(","):
            is_there = name in seen or f"{name}_bucket" in seen
            assert is_there or name in transient, name

    assert pipeline.worker is not None
    pipeline.worker.stop()
    assert pages_of(pipeline) == []
    pipeline.start()
    until_ready(pipeline)
    again = samples(pipeline)
    assert again["solvent_units"] == seen["solvent_units"]  # restored
    assert again["solvent_records_total"].total() == 0  # of this process
    assert again["solvent_rejects_total"].total() == 0


def settings_of(pipeline: Pipeline) -> Settings:
    return Settings(
        **{
            name.removeprefix("SOLVENT_").lower(): value
            for name, value in pipeline.env.items()
            if name != "SOLVENT_PARTITIONS"
        },
        partitions=pipeline.partitions,
    )


def units_of(pipeline: Pipeline) -> Counter[tuple[str, ...]]:
    """Count margin units by (agent, partition, status) in the account table as committed."""
    found: Counter[tuple[str, ...]] = Counter()
    for partition, shard in enumerate(
        read_shards(pipeline.kafka.bootstrap_servers, pipeline.topics, RULEBOOK)
    ):
        for status, count in shard.facts().units.items():
            found["margin", str(partition), status] = count
    return found


def test_two_workers_on_one_machine_serve_at_two_addresses(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    pipeline.start()
    pipeline.start_another()
    bodies = until_ready(pipeline, workers=2)
    assert len({address.url for address in known_workers(pipeline.tmp_path)}) == 2
    lanes = [lane["lane"] for body in bodies for lane in body["lanes"]]
    assert sorted(lanes) == ["margin-0", "margin-1", "prices-0"]


def test_taken_health_port_ends_the_worker_in_one_line(make_pipeline: MakePipeline) -> None:
    with bind("127.0.0.1", None) as taken:
        pipeline = make_pipeline(health_port=taken.getsockname()[1])
        pipeline.start()
        worker = pipeline.worker
        assert worker is not None
        code = wait_for(lambda: worker.returncode, lambda found: found is not None, deadline_s=60)
    assert code == 4
    line = worker.log.read_text().strip().splitlines()[-1]
    assert line.startswith(f"solvent worker: SLV-603 health port {taken_port(pipeline)}")
    assert "SOLVENT_HEALTH_PORT" in line


def taken_port(pipeline: Pipeline) -> str:
    return pipeline.env["SOLVENT_HEALTH_PORT"]


def test_worker_whose_commit_hangs_is_not_alive_and_then_ends_itself(
    own_kafka: LocalKafka, make_pipeline: MakePipeline
) -> None:
    broker = Broker(own_kafka.bootstrap_servers, own_kafka, "frozen.")
    pipeline = make_pipeline(
        broker, clock="wall", clock_interval_ms=20, stall_exit_s=10, ready_oracle_age_s=3600
    )
    pipeline.start()
    worker = pipeline.worker
    assert worker is not None
    until_frames_are_folded(pipeline)
    pid = own_kafka.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # connections stay, nothing is answered any more
    try:
        stuck = wait_for(
            lambda: pages_of(pipeline, "/livez"),
            lambda seen: bool(seen) and not seen[0]["ok"],
            deadline_s=60,
        )
        assert "progress_s of" in stuck[0]["reasons"][0]
        code = wait_for(lambda: worker.returncode, lambda found: found is not None, deadline_s=60)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert code == 7
    last = json.loads(worker.log.read_text().strip().splitlines()[-1])
    assert (last["event"], last["exit_code"]) == ("worker_stalled", 7)
    assert last["seconds"] >= 10
    assert "MainThread" in last["stacks"]


def until_frames_are_folded(pipeline: Pipeline) -> None:
    """Wait until the clock's frames go round: from then on a commit is nearly always in flight."""

    def folded() -> float:
        if not pages_of(pipeline):
            return 0
        return sum(
            count
            for (agent, _, topic), count in samples(pipeline)
            .get("solvent_records_total", Counter())
            .items()
            if topic == MARKS
        )

    wait_for(folded, lambda count: count > 20, deadline_s=START_S)
