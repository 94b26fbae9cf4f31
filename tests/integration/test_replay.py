"""`solvent replay` on the real broker: a history verified, and every kind of tampering named.

One pipeline runs once for the module, its worker killed twice; what a test alters in the broker's
log segments it puts back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from solvent.cli.main import run
from solvent.ops import replay
from solvent.ops.kafka import LocalKafka
from solvent.ops.logs import KafkaLogs, Tape, write_tape
from solvent.ops.verify import VerifyOptions, VerifyReport, verify
from solvent.rules import builtin_rulebook
from solvent.wire.topics import (
    ACCOUNTS,
    JOURNAL,
    LIQUIDATIONS,
    MARKS,
    PRICE_JOURNAL,
    TRADES,
)
from support.broker import Broker
from support.mixed import mixed_records
from support.pipeline import Pipeline
from support.tamper import tamper

pytestmark = [pytest.mark.kafka]

RULEBOOK = builtin_rulebook("example")
PARTITIONS = 2


@pytest.fixture(scope="module")
def pipeline(
    local_kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """A finished history: loaded in two parts, the worker killed in each."""
    kafka = Broker(local_kafka.bootstrap_servers, local_kafka, "test-replay.")
    folder = tmp_path_factory.mktemp("pipeline")
    made = Pipeline(kafka, folder, partitions=PARTITIONS, max_slice_records=300)
    try:
        records = list(mixed_records(RULEBOOK, count=8_000, accounts=300, seed=31))
        half = len(records) // 2
        made.start()
        for part in (records[:half], records[half:]):
            before = made.progress
            made.load(part)
            made.follower.until(
                lambda goal=before + half // 3: made.progress > goal, deadline_s=180, what="a third"
            )
            made.kill_and_restart()
        made.finish(deadline_s=180)
        yield made
    finally:
        made.close()


@pytest.fixture
def command(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Run ``solvent replay ... --json`` against the pipeline; returns exit code and answer."""
    for name, value in pipeline.env.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> tuple[int, Any]:
        code = run(["replay", *arguments, "--json"])
        shown = capsys.readouterr()
        return code, json.loads(shown.out) if shown.out else shown.err

    return call


def verified(pipeline: Pipeline, **options: Any) -> VerifyReport:
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        return verify(logs, RULEBOOK, VerifyOptions(**options))


def last_hashes(pipeline: Pipeline, topic: str) -> dict[str, str]:
    return {str(r.partition): json.loads(r.value or b"")["hash"] for r in pipeline.read(topic)}


@pytest.mark.parametrize(("agent", "journal"), [("margin", JOURNAL), ("prices", PRICE_JOURNAL)])
def test_history_with_kills_is_verified(
    pipeline: Pipeline, command: Any, agent: str, journal: str
) -> None:
    code, told = command("--verify", "--agent", agent)
    assert (code, told["verified"], told["differences"]) == (0, True, [])
    assert told["slices"] == len(pipeline.read(journal))
    assert told["hashes"] == last_hashes(pipeline, journal)
    if agent == "margin":
        loaded = pipeline.progress - pipeline.loaded["oracle-ticks.v1"]
        assert told["records"] == loaded + pipeline.folded[MARKS]
        others = {b"\0fence", b"\0claim"}
        assert told["rows"] == sum(r.key not in others for r in pipeline.read(ACCOUNTS))


def test_history_from_any_slice_ends_as_from_the_start(pipeline: Pipeline) -> None:
    whole = verified(pipeline)
    for part in whole.partitions:
        for number in (2, part.last_slice // 2, part.last_slice):
            (later,) = verified(pipeline, partitions=[part.partition], from_slice=number).partitions
            assert later.difference is None
            assert (later.hash, later.last_slice) == (part.hash, part.last_slice)
            assert later.records < part.records


def test_flipped_byte_of_a_stored_event_is_named(pipeline: Pipeline, command: Any) -> None:
    event = [r for r in pipeline.read(LIQUIDATIONS) if r.partition == 1][40]
    assert event.value is not None
    spoilt = event.value.replace(b'"revision":', b'"revisiom":')
    with altered(pipeline, LIQUIDATIONS, event, event.value, spoilt):
        code, told = command("--verify")
    assert code == 12
    (found,) = told["differences"]
    assert (found["topic"], found["topic_partition"], found["offset"]) == (
        *(LIQUIDATIONS, 1),
        event.offset,
    )
    assert "this record was altered" in found["note"]
    assert told["partitions"][0]["difference"] is None


def test_changed_journal_hash_is_named(pipeline: Pipeline) -> None:
    entry = [r for r in pipeline.read(JOURNAL) if r.partition == 0][3]
    content = json.loads(entry.value or b"")
    old = content["hash"].encode()
    with altered(pipeline, JOURNAL, entry, old, old[::-1]):
        (found,) = verified(pipeline).differences
    assert (found.topic, found.topic_partition, found.offset) == (JOURNAL, 0, entry.offset)
    assert (found.slice, found.what, found.got) == (
        content["slice"],
        "rolling hash",
        old[::-1].decode(),
    )


def test_altered_input_is_found_and_suspected(pipeline: Pipeline) -> None:
    rejected = {json.loads(r.value or b"")["account_id"] for r in pipeline.read("rejects.v1")}
    trade = next(
        r
        for r in pipeline.read(TRADES)
        if r.partition == 1 and b'"side":"buy"' in r.value and r.key.decode() not in rejected
    )
    assert trade.value is not None
    spoilt = trade.value.replace(b'"fee":"0', b'"fee":"7').replace(b'"fee":"-', b'"fee":"1')
    with altered(pipeline, TRADES, trade, trade.value, spoilt):
        (found,) = verified(pipeline).differences
    assert (found.agent, found.partition) == ("margin", 1)
    assert (TRADES, trade.offset) in found.suspects
    assert trade.key.decode() in found.what


def test_altered_row_and_frame_are_named(pipeline: Pipeline) -> None:
    row = [r for r in pipeline.read(ACCOUNTS) if r.partition == 0 and r.key[:4] == b"acct"][5]
    assert row.value is not None
    spoilt = row.value[:-1] + bytes([row.value[-1] ^ 1])
    with altered(pipeline, ACCOUNTS, row, row.value, spoilt):
        (found,) = verified(pipeline, partitions=[0]).differences
    assert (found.topic, found.offset) == (ACCOUNTS, row.offset)

    frame = [r for r in pipeline.read(MARKS) if r.partition == 1][2]
    assert frame.value is not None
    spoilt = frame.value.replace(b'"kind"', b'"kinb"')
    with altered(pipeline, MARKS, frame, frame.value, spoilt):
        (found,) = verified(pipeline, agent="prices").differences
    assert (found.topic, found.topic_partition, found.offset) == (MARKS, 1, frame.offset)
    assert verified(pipeline, agent="prices").differences == []


class altered:  # noqa: N801 - reads as what it does
    """Alter bytes in the broker's log and put them back."""

    def __init__(self, pipeline: Pipeline, topic: str, record: Any, old: bytes, new: bytes) -> None:
        physical = pipeline.topics.physical(topic)
        self._place = (pipeline.kafka, physical, record.partition, record.offset)
        self._old, self._new = old, new

    def __enter__(self) -> None:
        tamper(*self._place, self._old, self._new)

    def __exit__(self, *_raised: object) -> None:
        tamper(*self._place, self._new, self._old)


def test_tape_of_the_pipeline_tells_what_the_broker_tells(
    pipeline: Pipeline, command: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run.tape.gz"
    code, told = command("--record", str(path))
    assert code == 0
    assert told["bytes"] == path.stat().st_size
    by_tape = verify(Tape(path), RULEBOOK, VerifyOptions())
    by_broker = verified(pipeline)
    assert by_tape.differences == by_broker.differences == []
    assert [p.hash for p in by_tape.partitions] == [p.hash for p in by_broker.partitions]
    again = tmp_path / "again.tape.gz"
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        assert write_tape(again, logs) == told["records"]
    assert again.read_bytes() == path.read_bytes()


def test_topics_by_event_time_have_one_hash_however_they_are_read(
    pipeline: Pipeline, command: Any, tmp_path: Path
) -> None:
    code, told = command("--by-event-time")
    assert code == 0
    assert told["records"] == pipeline.loaded.total()
    assert told["events"][LIQUIDATIONS] > 100
    path = tmp_path / "run.tape.gz"
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        write_tape(path, logs)
    tape = Tape(path)
    report = replay.replay(
        replay.topic_sources(tape, RULEBOOK),
        RULEBOOK,
        replay.ReplayOptions(partitions=PARTITIONS),
        is_numbered=True,
    )
    assert report.hash == told["hash"]


def test_pipeline_at_work_is_verified_up_to_where_it_was(kafka: Broker, tmp_path: Path) -> None:
    made = Pipeline(kafka, tmp_path, partitions=1, max_slice_records=50)
    try:
        made.load(mixed_records(RULEBOOK, count=3_000, accounts=100, seed=5))
        made.start()
        made.follower.until(lambda: made.progress > 200, deadline_s=180, what="a beginning")
        report = verified(made)
        assert report.differences == []
        assert report.partitions[0].last_slice > 1
        made.finish(deadline_s=180)
    finally:
        made.close()


def test_broker_that_is_not_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOLVENT_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    for mode in (["--verify"], ["--by-event-time"], ["--record", "x.tape.gz"]):
        assert run(["replay", *mode, "-r", "example"]) == 48
        shown = capsys.readouterr()
        assert shown.err.startswith("solvent: SLV-608 no Kafka at 127.0.0.1:1")
        assert len(shown.err.splitlines()) == 1


def test_topics_that_are_not_there_are_named(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOLVENT_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("SOLVENT_TOPIC_PREFIX", kafka.prefix)
    assert run(["replay", "--verify", "-r", "example"]) == 4
    shown = capsys.readouterr().err
    assert "SLV-610 topic" in shown
    assert "does not exist: run `solvent topics apply`" in shown
