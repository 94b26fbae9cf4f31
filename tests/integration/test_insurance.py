"""The insurance fund and deleveraging across partitions under kill -9: told once, done once.

The oracle is the independent fold of what venues told, which knows nothing of a fund: what it makes
of all accounts together is what accounts and fund hold together, to the micro and the lot.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from solvent.cli.main import run
from solvent.engine.cases import CASE_ROW_PREFIX
from solvent.engine.waterfall import FUND_ROW_KEY, Waterfall
from solvent.ops.accounts import read_shards
from solvent.ops.kafka import LocalKafka
from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import builtin_rulebook, parse_rulebook
from solvent.rules.document import resolved_document
from solvent.wire.topics import ACCOUNTS, LIQUIDATIONS, LOSSES, PRICE_STATE
from support.broker import Broker
from support.exact import folds_of
from support.mixed import mixed_records
from support.pipeline import Pipeline

pytestmark = [pytest.mark.kafka]

PARTITIONS = 3
OPENING = 2_000_000_000
DOCUMENT = {
    **resolved_document(builtin_rulebook("example").model),
    "insurance": {"opening_micros": OPENING, "deleverage_after_us": 2_000_000},
}
RULEBOOK = parse_rulebook(yaml.safe_dump(DOCUMENT, sort_keys=False))


@pytest.fixture(scope="module")
def pipeline(
    local_kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """A history whose worker was killed five times."""
    folder: Path = tmp_path_factory.mktemp("insured")
    (folder / "insured.yaml").write_text(yaml.safe_dump(DOCUMENT, sort_keys=False))
    kafka = Broker(local_kafka.bootstrap_servers, local_kafka, "test-insurance.")
    made = Pipeline(
        kafka,
        folder,
        partitions=PARTITIONS,
        max_slice_records=400,
        rulebook=folder / "insured.yaml",
    )
    try:
        chance = random.Random(6)
        records = list(mixed_records(RULEBOOK, count=6_000, accounts=200, seed=606))
        part = -(-len(records) // 10)  # in parts, so that accounts live through the prices
        made.start()
        for begin in range(0, len(records), part):
            before = made.loaded.total()
            made.load(records[begin : begin + part])
            goal = before + (made.loaded.total() - before) * chance.random()
            made.follower.until(
                lambda goal=goal: made.progress >= goal, deadline_s=180, what=f"{goal:.0f} folded"
            )
            if begin % (2 * part) == 0:
                made.kill_and_restart()
            made.follower.until(made.is_finished, deadline_s=180, what="a part folded")
        made.finish(deadline_s=180)
        yield made
    finally:
        made.close()


def test_accounts_and_fund_hold_together_what_venues_told(pipeline: Pipeline) -> None:
    servers = pipeline.kafka.bootstrap_servers
    told = [json.loads(record.value or b"") for record in pipeline.read(LOSSES)]
    kinds = Counter(loss["kind"] for loss in told)
    assert min(kinds[kind] for kind in ("claim", "takeover", "ranked", "deleveraged")) > 1, kinds
    rows = [r.value for r in pipeline.read(PRICE_STATE) if r.key == FUND_ROW_KEY]
    waterfall = Waterfall(PARTITIONS)
    waterfall.load(rows[-1] or b"")
    assert json.loads(rows[-1] or b"")["placements"] == []
    micros = waterfall.fund_micros - OPENING
    lots: Counter[str] = Counter()
    for market, (held, cost) in waterfall.held.items():
        instrument = RULEBOOK.instrument_by_name[market]
        lots[market] += held
        micros -= instrument.value_of(1, cost, 1)
    for shard in read_shards(servers, pipeline.topics, RULEBOOK):
        columns = shard.columns
        for account in range(len(columns.account_ids)):
            for unit in columns.units_of(account):
                micros += dict(columns.balances_of(unit)).get(0, 0)
                for index, held, cost in columns.positions_of(unit):
                    lots[RULEBOOK.instruments[index].name] += held
                    micros -= cost
    for fold in folds_of(servers, pipeline.topics, RULEBOOK).values():
        for told_account in fold.accounts.values():
            for book in told_account.books.values():
                micros -= book.balances.get("USDC", 0)
                for market, (held, cost) in book.positions.items():
                    lots[market] -= held
                    micros += cost
    assert not any(lots.values())
    assert micros == 0


@pytest.mark.parametrize("agent", ["margin", "prices"])
def test_history_is_verified_record_by_record(pipeline: Pipeline, agent: str) -> None:
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        report = verify(logs, RULEBOOK, VerifyOptions(agent=agent))
    assert report.differences == []
    assert all(part.events > 100 for part in report.partitions)


def test_every_case_ends_at_most_once_and_none_that_ended_is_kept(pipeline: Pipeline) -> None:
    ended: Counter[str] = Counter()
    standing: set[str] = set()
    reasons: Counter[tuple[str, str]] = Counter()
    for record in pipeline.read(LIQUIDATIONS):
        event = json.loads(record.value or b"")
        name = event["liquidation_id"]
        reasons[event["event"], event["reason"]] += 1
        if event["event"] in {"closed", "recovered"}:
            ended[name] += 1
            standing.discard(name)
        else:
            assert not ended[name]
            standing.add(name)
    assert set(ended.values()) == {1}
    assert reasons["closed", "deleveraged"] > 5
    assert reasons["closed", "insured"] > 1
    rows = {r.key: r.value for r in pipeline.read(ACCOUNTS) if r.key.startswith(CASE_ROW_PREFIX)}
    assert sum(value is not None for value in rows.values()) == len(standing)


def test_command_shows_what_the_fund_has(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in pipeline.env.items():
        monkeypatch.setenv(name, value)
    assert run(["fund", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    amounts = [Decimal(told[name]) for name in ("balance", "received", "paid")]
    assert amounts[0] == Decimal(OPENING) / 10**6 + amounts[1] - amounts[2]
    assert told["takeovers"] > 1
    assert run(["fund"]) == 0
    assert f"balance    {told['balance']}\n" in capsys.readouterr().out
    monkeypatch.setenv("SOLVENT_TOPIC_PREFIX", "nowhere.")
    assert run(["fund"]) == 4
