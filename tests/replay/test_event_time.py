"""A history without a journal: merged as documented, the same from lines and from Parquet.

The oracle sorts all records with Python's own sort by (time reached in the file, topic, file, row)
and feeds them to shards one by one; it shares neither the merge nor the readers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from kafka.partitioner.default import murmur2

from solvent.cli.main import run
from solvent.engine.journal import SliceJournal
from solvent.engine.margin import MarginShard
from solvent.engine.merge import ORDER, Arrivals, windows
from solvent.engine.prices import PriceShard
from solvent.engine.run import Record, Run
from solvent.errors import ConfigError, ContractError
from solvent.ops import files, replay
from solvent.ops.load import BarOptions
from solvent.ops.logs import Tape
from solvent.rules import CompiledRulebook, builtin_rulebook, parse_rulebook
from solvent.rules.document import resolved_document
from solvent.wire.inputs import (
    RulebookTick,
    decode_collateral_move,
    decode_tick,
    decode_trade,
)
from solvent.wire.reports import decode_report
from solvent.wire.statements import decode_open_orders, decode_settings, decode_snapshot
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    LIQUIDATION_REPORTS,
    LIQUIDATIONS,
    LOSSES,
    MARKS,
    OPEN_ORDERS,
    ORACLE_TICKS,
    TRADES,
)
from support.flood import flooded, phases
from support.mixed import mixed_records, with_rulebooks, with_statements
from support.tapes import GOLDEN, lines_of

RULEBOOK = builtin_rulebook("example")
PARTITIONS = 3
SLICE = 170
DECODE = {
    ACCOUNT_SETTINGS: decode_settings,
    COLLATERAL: decode_collateral_move,
    TRADES: decode_trade,
    OPEN_ORDERS: decode_open_orders,
    ACCOUNT_SNAPSHOTS: decode_snapshot,
    LIQUIDATION_REPORTS: decode_report,
    ORACLE_TICKS: decode_tick,
}


def test_order_of_topics_at_one_time_is_that_of_this_oracle() -> None:
    assert (*DECODE, MARKS) == ORDER


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JSON lines: good records, some late ones, their times in event order mostly.

    Rulebooks are published among the ticks.
    """
    chance = random.Random(9)
    told: dict[str, list[bytes]] = {topic: [] for topic in DECODE}
    mixed = with_rulebooks(
        mixed_records(RULEBOOK, count=4_000, accounts=150, seed=77), RULEBOOK, every=901
    )
    for topic, _, value in with_statements(mixed, every=9, accounts=150, seed=78):
        try:
            record = json.loads(value)
            DECODE[topic](value)
        except (ValueError, ContractError):
            continue
        if topic == ORACLE_TICKS:
            record["ts_us"] -= 10_000_000  # mixed_records lets prices run ahead
        elif record["ts_us"] > 2**52:
            continue
        elif chance.random() < 0.02:
            record["ts_us"] -= 40_000  # late
        told[topic].append(json.dumps(record, separators=(",", ":")).encode())
    for number, value in enumerate(told[TRADES][::50]):
        trade = json.loads(value)
        account_id, ts_us = trade["account_id"], trade["ts_us"]
        case = {"account_id": account_id, "liquidation_id": f"{account_id}:cross:1"}
        report = {"schema_version": 1, "kind": "attempt", "report_id": f"r{number}", **case}
        report |= {"executor_id": "north", "ts_us": ts_us}
        told[LIQUIDATION_REPORTS].append(json.dumps(report, separators=(",", ":")).encode())
    folder = tmp_path_factory.mktemp("history")
    for topic, values in told.items():
        (folder / f"{topic}.jsonl").write_bytes(b"\n".join(values) + b"\n")
    return folder


@pytest.fixture(scope="module")
def parquet(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same account records in Parquet; clocks have no Parquet form."""
    folder = tmp_path_factory.mktemp("parquet")
    for topic in ACCOUNT_INPUTS:
        frame = pl.read_ndjson(history / f"{topic}.jsonl", infer_schema_length=None)
        frame.drop("schema_version").write_parquet(folder / f"{topic}.parquet")
    ticks = f"{ORACLE_TICKS}.jsonl"
    (folder / ticks).write_bytes((history / ticks).read_bytes())
    return folder


def replayed(
    folder: Path, rulebook: CompiledRulebook = RULEBOOK, **options: Any
) -> replay.ReplayReport:
    sources = [replay.file_source(p, t) for t, p in replay.input_files([str(folder)])]
    options = {"partitions": PARTITIONS, "slice_records": SLICE, **options}
    return replay.replay(sources, rulebook, replay.ReplayOptions(**options))


def insured(**insurance: int) -> CompiledRulebook:
    document = {**resolved_document(RULEBOOK.model), "insurance": insurance}
    return parse_rulebook(yaml.safe_dump(document, sort_keys=False))


# -- the oracle


def in_order(folder: Path) -> Iterator[tuple[int, str, Record]]:
    entries = []
    for rank, topic in enumerate(DECODE):
        reached = 0
        for row, value in enumerate((folder / f"{topic}.jsonl").read_bytes().splitlines()):
            decoded = DECODE[topic](value)
            reached = max(reached, decoded.ts_us)
            other = "rulebook" if isinstance(decoded, RulebookTick) else "clock"
            key = getattr(decoded, "account_id", None) or getattr(decoded, "feed", other)
            record = Record(row, -(-decoded.ts_us // 1000), key.encode(), value)
            entries.append((reached, rank, row, topic, record))
    entries.sort(key=lambda entry: entry[:3])
    return ((at, topic, record) for at, _, _, topic, record in entries)


class OracleLane:
    def __init__(self, agent: str, partition: int, shard: Any) -> None:
        self.shard, self.journal = shard, SliceJournal(agent, partition)
        self.events: list[tuple[str, bytes, bytes]] = []

    def feed(self, topic: str, record: Record, *, is_numbered: bool = False) -> None:
        if not is_numbered:
            record = record._replace(offset=self.journal.positions.get(topic, 0))
        self.shard.apply(topic, [record])
        self.journal.take(topic, record.offset, record.offset, 1)
        if self.journal.open_count == SLICE:
            self.cut()

    def cut(self) -> list[tuple[str, bytes, bytes]]:
        outputs = self.shard.cut()
        self.journal.close(outputs)
        told = [(emit.topic, emit.key, emit.value) for emit in outputs.records]
        self.events += told
        return told


def of_tape() -> Iterator[tuple[int, str, int, Record]]:
    """Records of the golden tape; what has no time, or a future one, moves none."""
    entries = []
    for rank, topic in enumerate(DECODE):
        for partition in range(1 if topic == ORACLE_TICKS else 2):
            reached = -(2**63)
            for line in lines_of(GOLDEN)[1]:
                if line[:2] != [topic, partition]:
                    continue
                offset, timestamp, key, value = line[2:]
                record = Record(offset, timestamp, key.encode(), value.encode())
                try:
                    ts_us = DECODE[topic](record.value).ts_us
                    if ts_us <= timestamp * 1000 + RULEBOOK.max_future_us:
                        reached = max(reached, ts_us)
                except ContractError:
                    pass
                entries.append((reached, rank, partition, offset, topic, record))
    entries.sort(key=lambda entry: entry[:4])
    return ((at, topic, partition, record) for at, _, partition, _, topic, record in entries)


def of_files(folder: Path) -> Iterator[tuple[int, str, int, Record]]:
    for at, topic, record in in_order(folder):
        yield at, topic, (int(murmur2(record.key)) & 0x7FFFFFFF) % PARTITIONS, record


def oracle(
    records: Iterator[tuple[int, str, int, Record]], partitions: int, *, is_numbered: bool = False
) -> tuple[dict[str, dict[int, str]], list[tuple[str, bytes, bytes]]]:
    margin = [OracleLane("margin", p, MarginShard(p, RULEBOOK)) for p in range(partitions)]
    prices = OracleLane("prices", 0, PriceShard(RULEBOOK, 0))
    tick_at: int | None = None

    def tell_frames() -> None:
        frames = prices.cut()
        for topic, key, value in frames:
            if topic == MARKS:
                for lane in margin:
                    lane.feed(MARKS, Record(0, -(-tick_at // 1000), key, value))

    for at, topic, partition, record in records:
        if tick_at is not None and (at > tick_at or topic != ORACLE_TICKS):
            tell_frames()
            tick_at = None
        if topic == ORACLE_TICKS:
            tick_at = at
            prices.shard.apply(topic, [record])
            prices.journal.take(topic, record.offset, record.offset, 1)
        else:
            margin[partition].feed(topic, record, is_numbered=is_numbered)
    if tick_at is not None:
        tell_frames()
    for lane in margin:
        if lane.journal.has_open_slice:
            lane.cut()
    hashes = {
        "margin": {p: lane.journal.rolling_hash.hex() for p, lane in enumerate(margin)},
        "prices": {0: prices.journal.rolling_hash.hex()},
    }
    return hashes, [event for lane in margin for event in lane.events]


def test_topics_replay_as_the_documented_order_of_their_records() -> None:
    hashes, _ = oracle(of_tape(), 2, is_numbered=True)
    report = replay.replay(
        replay.topic_sources(Tape(GOLDEN), RULEBOOK),
        RULEBOOK,
        replay.ReplayOptions(partitions=2, slice_records=SLICE),
        is_numbered=True,
    )
    assert report.hashes == hashes
    assert report.events["rejects.v1"] > 4  # bad records are applied as a worker would


def test_files_replay_as_the_documented_order_of_their_records(
    history: Path, tmp_path: Path
) -> None:
    hashes, events = oracle(of_files(history), PARTITIONS)
    report = replayed(history, out=tmp_path / "out")
    assert report.hashes == hashes
    assert report.late > 20
    told = [value for topic, _, value in events if topic == LIQUIDATIONS]
    assert len(told) > 100
    assert len({json.loads(event)["rulebook"]["version"] for event in told}) > 2
    written = (tmp_path / "out" / f"{LIQUIDATIONS}.jsonl").read_bytes().splitlines()
    assert written == told


def test_parquet_and_lines_of_the_same_history_have_the_same_hash(
    history: Path, parquet: Path
) -> None:
    by_line, by_column = replayed(history), replayed(parquet)
    assert by_line.hash == by_column.hash
    assert by_line.hashes == by_column.hashes
    assert by_line.records == by_column.records > 3_000


@pytest.mark.parametrize("chunk", [1, 37, 1_000])
def test_replay_does_not_depend_on_how_files_are_read(
    history: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    whole = replayed(history)
    monkeypatch.setattr(files, "_CHUNK_ROWS", chunk)
    assert replayed(history).hash == whole.hash


def test_hash_tells_another_slicing_another_partitioning_and_another_record(
    history: Path, tmp_path: Path
) -> None:
    whole = replayed(history)
    assert replayed(history, slice_records=SLICE + 1).hash != whole.hash
    assert replayed(history, partitions=PARTITIONS + 1).hash != whole.hash
    for path in history.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    trades = tmp_path / f"{TRADES}.jsonl"
    lines = trades.read_bytes().splitlines()
    trade = json.loads(lines[50])
    trade["fee"] = "3.25"
    lines[50] = json.dumps(trade, separators=(",", ":")).encode()
    trades.write_bytes(b"\n".join(lines))
    assert replayed(tmp_path).hash != whole.hash


def test_frames_of_marks_bring_what_the_ticks_they_came_from_brought(
    history: Path, tmp_path: Path
) -> None:
    whole = replayed(history, out=tmp_path / "out")
    inputs = [f"{topic}={history / topic}.jsonl" for topic in ACCOUNT_INPUTS]
    inputs.append(str(tmp_path / "out" / f"{MARKS}.jsonl"))
    sources = [replay.file_source(p, t) for t, p in replay.input_files(inputs)]
    options = replay.ReplayOptions(partitions=PARTITIONS, slice_records=SLICE)
    again = replay.replay(sources, RULEBOOK, options)
    assert again.hashes["margin"] == whole.hashes["margin"]
    ticks = replay.file_source(history / f"{ORACLE_TICKS}.jsonl", ORACLE_TICKS)
    with pytest.raises(ConfigError, match="prices come from one of them"):
        replay.replay([*sources, ticks], RULEBOOK, options)


def test_bars_are_the_ticks_they_stand_for(tmp_path: Path) -> None:
    bars = pl.DataFrame(
        {
            "ts": [0, 60_000_000], "symbol": ["B"] * 2, "open": [100.0, 104.0],
            "high": [110.0, 105.0], "low": [90.0, 80.5], "close": [104.0, 85.0],
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us")))  # fmt: skip
    bars.write_parquet(tmp_path / "bars.parquet")
    source = replay.bars_source(tmp_path / "bars.parquet", BarOptions(feeds={"B": ("BTC-PERP",)}))
    report = replay.replay([source], builtin_rulebook("demo"), replay.ReplayOptions())
    assert report.counts[ORACLE_TICKS] == 2 * 4 * 3
    assert report.counts[MARKS] == 2 * 4 * 2  # a frame a clock record


# -- windows


@pytest.mark.parametrize("seed", range(30))
def test_windows_give_each_record_once_and_nothing_before_its_time(seed: int) -> None:
    chance = random.Random(seed)
    sequences: list[list[Arrivals]] = []
    for _ in range(chance.randrange(1, 5)):
        at, parts, offset = 0, [], 0
        for _ in range(chance.randrange(5)):
            count = chance.randrange(1, 6)
            times = []
            for _ in range(count):
                at += chance.choice([0, 0, 1, 3])
                times.append(at)
            run = Run.of([Record(offset + n, 0, b"k", b"v") for n in range(count)])
            offset += count
            parts.append(Arrivals("t", run, np.array(times), np.zeros(count, np.int32)))
        sequences.append(parts)
    pulled = [0] * len(sequences)

    def reading(place: int) -> Iterator[Arrivals]:
        for part in sequences[place]:
            pulled[place] += 1
            yield part

    last = -1
    seen = 0
    for window in windows([reading(place) for place in range(len(sequences))]):
        times = np.concatenate([part.at_us for part in window])
        assert times.min() > last  # records of one time are never torn apart
        last = int(times.max())
        seen += times.size
    assert seen == sum(len(part.run) for parts in sequences for part in parts)
    assert pulled == [len(parts) for parts in sequences]


# -- the command


def test_command_replays_a_folder_into_another(
    history: Path, parquet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(folder: Path, *more: str) -> dict[str, Any]:
        options = ["-r", "example", "--partitions", "2", "--json", *more]
        assert run(["replay", "--inputs", str(folder), *options]) == 0
        return json.loads(capsys.readouterr().out)

    lines = told(history, "--out", str(tmp_path / "a"))
    columns = told(parquet, "--out", str(tmp_path / "b"), "--format", "parquet")
    assert lines["hash"] == columns["hash"]
    assert lines["events"] == columns["events"]
    assert set(lines["hashes"]["margin"]) == {"0", "1"}
    for topic, count in lines["events"].items():
        values = (tmp_path / "a" / f"{topic}.jsonl").read_bytes().splitlines()
        assert len(values) == count == pl.read_parquet(tmp_path / "b" / f"{topic}.parquet").height
    accounts = pl.read_parquet(tmp_path / "b" / "accounts.v1.parquet")
    assert accounts["account_id"].n_unique() == accounts.height == 150
    journal = (tmp_path / "a" / "journal.v1.jsonl").read_bytes().splitlines()
    last = {(entry := json.loads(line))["partition"]: entry["hash"] for line in journal}
    assert {str(p): told for p, told in last.items()} == lines["hashes"]["margin"]

    assert (
        run(["replay", "--inputs", str(history), "-r", "example", "--out", str(tmp_path / "a")])
        == 3
    )
    assert "is not empty" in capsys.readouterr().err


def test_row_that_is_no_record_ends_the_replay_or_is_passed_over(
    history: Path, tmp_path: Path
) -> None:
    for path in history.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    trades = tmp_path / f"{TRADES}.jsonl"
    trades.write_bytes(b'{"half":\n' + trades.read_bytes())
    with pytest.raises(ContractError, match=r"trades\.v1\.jsonl row 1: "):
        replayed(tmp_path)
    report = replayed(tmp_path, skip_bad=True)
    assert report.hash == replayed(history).hash
    assert sum(told["bad"] for told in report.inputs) == 1
    assert report.first_bad is not None
    assert "row 1" in report.first_bad


@pytest.mark.parametrize("name", ["fills.jsonl", "nowhere.csv"])
def test_file_whose_name_tells_no_topic_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"SLV-452 file .*{name}.*TOPIC=FILE"):
        replay.input_files([str(tmp_path / name)])
    assert replay.input_files([f"{TRADES}={tmp_path / name}"]) == [(TRADES, tmp_path / name)]
    with pytest.raises(ConfigError, match="SLV-452 folder"):
        replay.input_files([str(tmp_path)])


def test_replay_that_is_stopped_closes_its_slices_and_says_how_far_it_came(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CHUNK_ROWS", 200)
    sources = [replay.file_source(p, t) for t, p in replay.input_files([str(history)])]
    asked: list[float] = []
    report = replay.replay(
        sources,
        RULEBOOK,
        replay.ReplayOptions(partitions=PARTITIONS, slice_records=SLICE),
        progress=lambda told: asked.append(told.share),
        is_stopped=lambda: len(asked) == 3,
    )
    assert report.is_interrupted
    assert 0 < report.records < replayed(history).records
    assert asked == sorted(asked)
    assert 0 < asked[-1] < 1
    assert report.reached_us > 0


def test_breaker_of_volume_hears_of_fills_in_step_with_the_ticks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[bytes]] = {}
    for topic, _, value in (record for phase in phases() for record in phase):
        told.setdefault(topic, []).append(value)
    for topic, values in told.items():
        (tmp_path / f"{topic}.jsonl").write_bytes(b"\n".join(values) + b"\n")
    whole = replayed(tmp_path, flooded())
    assert whole.events[LOSSES] == PARTITIONS  # each tells once what it liquidated
    for chunk in (1, 7):
        monkeypatch.setattr(files, "_CHUNK_ROWS", chunk)
        again = replayed(tmp_path, flooded())
        assert (again.hash, again.events) == (whole.hash, whole.events)


@pytest.mark.parametrize(("opening", "socialise"), [(10**12, False), (0, True)])
def test_losses_are_told_and_answered_however_files_are_read(
    history: Path, monkeypatch: pytest.MonkeyPatch, opening: int, socialise: bool
) -> None:
    rulebook = insured(opening_micros=opening, deleverage_after_us=2_000_000, socialise=socialise)
    whole = replayed(history, rulebook)
    assert whole.events[LOSSES] > 50
    for chunk in (1, 37):
        monkeypatch.setattr(files, "_CHUNK_ROWS", chunk)
        again = replayed(history, rulebook)
        assert (again.hash, again.events) == (whole.hash, whole.events)
