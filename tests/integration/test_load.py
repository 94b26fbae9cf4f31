"""Loads on a real broker: in order, resumable after a kill, each row once."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import pytest

from solvent.errors import ContractError, ServiceError
from solvent.ops.history import HistoryRecord, offsets_of, read_table, read_topic
from solvent.ops.load import ROW_HEADER, LoadOptions, LoadSummary, file_sequence, load
from solvent.wire.inputs import encode_trade
from solvent.wire.topics import TRADES, Topics
from support.broker import Broker
from support.processes import Child
from support.waiting import wait_for

pytestmark = pytest.mark.kafka


def _trades(path: Path, count: int) -> Path:
    lines = [
        encode_trade(
            trade_id=f"t{n}", account_id=f"a{n % 7}", subaccount="cross", market="BTC-PERP",
            side="buy", size="1", price="2", fee="0", ts_us=n,
        )
        for n in range(1, count + 1)
    ]  # fmt: skip
    path.write_bytes(b"\n".join(lines))
    return path


def _load(kafka: Broker, topics: Topics, path: Path, **options: object) -> LoadSummary:
    return load(
        file_sequence(path, TRADES),
        file=path.name,
        bootstrap_servers=kafka.bootstrap_servers,
        topics=topics,
        options=LoadOptions(**options),  # type: ignore[arg-type]
    )


def _rows(kafka: Broker, topics: Topics) -> dict[int, list[int]]:
    """Row numbers by partition, in log order."""
    rows: dict[int, list[int]] = {}
    for record in read_topic(kafka.bootstrap_servers, topics.physical(TRADES)):
        rows.setdefault(record.partition, []).append(int(dict(record.headers)[ROW_HEADER]))
    return rows


def test_load_appends_each_row_once_in_order_and_again_nothing(
    kafka: Broker, tmp_path: Path
) -> None:
    topics = kafka.apply_topics()
    path = _trades(tmp_path / "trades.jsonl", 500)
    summary = _load(kafka, topics, path)
    assert (summary.rows, summary.sent, summary.bad) == (500, 500, 0)
    again = _load(kafka, topics, path)
    assert (again.sent, again.already_loaded) == (0, 500)
    rows = _rows(kafka, topics)
    assert all(numbers == sorted(numbers) for numbers in rows.values())
    assert sorted(chain(*rows.values())) == list(range(1, 501))


def test_load_in_parts_goes_on_where_the_first_part_ended(kafka: Broker, tmp_path: Path) -> None:
    topics = kafka.apply_topics()
    path = _trades(tmp_path / "trades.jsonl", 100)
    assert _load(kafka, topics, path, to_us=41).sent == 40
    rest = _load(kafka, topics, path, from_us=11)
    assert (rest.outside_range, rest.already_loaded, rest.sent) == (10, 30, 60)


def test_load_stops_at_a_bad_row_or_counts_it(kafka: Broker, tmp_path: Path) -> None:
    topics = kafka.apply_topics()
    path = _trades(tmp_path / "trades.jsonl", 10)
    path.write_bytes(path.read_bytes() + b"\n{}\n")
    with pytest.raises(ContractError, match=r"trades\.jsonl row 11: .*trades\.v1") as refused:
        _load(kafka, topics, path)
    assert refused.value.code == "SLV-101"
    summary = _load(kafka, topics, path, skip_bad=True)
    assert (summary.already_loaded, summary.bad) == (10, 1)  # the rows before it were loaded


def test_load_killed_in_the_middle_and_run_again_appends_each_row_once(
    kafka: Broker, tmp_path: Path
) -> None:
    topics = kafka.apply_topics()
    path = _trades(tmp_path / "trades.jsonl", 5_000)
    env = {
        "SOLVENT_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SOLVENT_TOPIC_PREFIX": topics.prefix,
        "SOLVENT_PARTITIONS": "2",
    }
    command = [sys.executable, "-c", "from solvent.cli.main import main; main()", "load"]
    command += [str(path), "--topic", TRADES]
    slow = Child([*command, "--rate", "2000"], env=env, log=tmp_path / "slow.log")
    physical = topics.physical(TRADES)
    wait_for(
        lambda: sum(end for _, end in offsets_of(kafka.bootstrap_servers, physical).values()),
        lambda count: count > 200,
    )
    slow.kill()
    loaded = sum(len(numbers) for numbers in _rows(kafka, topics).values())
    assert 200 < loaded < 5_000
    summary = _load(kafka, topics, path)
    assert summary.sent == 5_000 - summary.already_loaded
    rows = _rows(kafka, topics)
    assert all(numbers == sorted(numbers) for numbers in rows.values())
    assert sorted(chain(*rows.values())) == list(range(1, 5_001))


def test_history_of_part_of_a_topic_is_that_part(kafka: Broker, tmp_path: Path) -> None:
    topics = kafka.apply_topics()
    _load(kafka, topics, _trades(tmp_path / "trades.jsonl", 100))
    physical = topics.physical(TRADES)
    read = read_topic(kafka.bootstrap_servers, physical, [0], start={0: 3}, end={0: 7})
    records: list[HistoryRecord] = list(read)
    assert [(r.partition, r.offset) for r in records] == [(0, 3), (0, 4), (0, 5), (0, 6)]
    table = read_table(kafka.bootstrap_servers, physical)
    assert sorted(key for rows in table.values() for key in rows) == [b"a%d" % n for n in range(7)]


def test_history_of_a_topic_that_is_not_there_is_refused(kafka: Broker) -> None:
    with pytest.raises(ServiceError, match="SLV-610"):
        list(read_topic(kafka.bootstrap_servers, "nowhere"))
