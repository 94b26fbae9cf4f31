"""Fund, deleveraging and socialised losses across partitions under kill -9: told and done once.

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
from typing import Any

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
#: A fund that can pay, and one that soon runs dry.
INSURANCE: dict[str, dict[str, Any]] = {
    "insured": {"opening_micros": 2_000_000_000, "deleverage_after_us": 2_000_000},
    "dry": {"opening_micros": 50_000_000, "deleverage_after_us": 2_000_000, "socialise": True},
}


def text_of(name: str) -> str:
    document = resolved_document(builtin_rulebook("example").model)
    return yaml.safe_dump({**document, "insurance": INSURANCE[name]}, sort_keys=False)


RULEBOOKS = {name: parse_rulebook(text_of(name)) for name in INSURANCE}


@pytest.fixture(scope="module", params=list(INSURANCE))
def name(request: pytest.FixtureRequest) -> str:
    """Return which fund it is."""
    return str(request.param)


@pytest.fixture(scope="module")
def pipeline(
    local_kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory, name: str
) -> Iterator[Pipeline]:
    """A history whose worker was killed five times."""
    folder: Path = tmp_path_factory.mktemp(name)
    (folder / "insured.yaml").write_text(text_of(name))
    kafka = Broker(local_kafka.bootstrap_servers, local_kafka, f"test-{name}.")
    made = Pipeline(
        kafka,
        folder,
        partitions=PARTITIONS,
        max_slice_records=400,
        rulebook=folder / "insured.yaml",
    )
    try:
        chance = random.Random(6)
        records = list(mixed_records(RULEBOOKS[name], count=6_000, accounts=200, seed=606))
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


def test_accounts_and_fund_hold_together_what_venues_told(pipeline: Pipeline, name: str) -> None:
    rulebook, opening = RULEBOOKS[name], INSURANCE[name]["opening_micros"]
    servers = pipeline.kafka.bootstrap_servers
    told = [json.loads(record.value or b"") for record in pipeline.read(LOSSES)]
    kinds = Counter(loss["kind"] for loss in told)
    wanted = ["claim", "takeover", "ranked", "deleveraged"]
    wanted += ["weighed", "socialised"] if name == "dry" else []
    assert min(kinds[kind] for kind in wanted) > 1, kinds
    rows = [r.value for r in pipeline.read(PRICE_STATE) if r.key == FUND_ROW_KEY]
    waterfall = Waterfall(PARTITIONS)
    waterfall.load(rows[-1] or b"")
    assert json.loads(rows[-1] or b"")["placements"] == []
    assert waterfall.rounds.set_aside_micros == 0
    borne = [each for loss in told if loss["kind"] == "socialised" for each in loss["borne"]]
    assert waterfall.rounds.gathered_micros == sum(micros for _, _, micros in borne)
    assert (len({account for account, _, _ in borne}) > 50) is (name == "dry")
    micros = waterfall.fund_micros - opening
    lots: Counter[str] = Counter()
    for market, (held, cost) in waterfall.held.items():
        instrument = rulebook.instrument_by_name[market]
        lots[market] += held
        micros -= instrument.value_of(1, cost, 1)
    for shard in read_shards(servers, pipeline.topics, rulebook):
        columns = shard.columns
        for account in range(len(columns.account_ids)):
            for unit in columns.units_of(account):
                micros += dict(columns.balances_of(unit)).get(0, 0)
                for index, held, cost in columns.positions_of(unit):
                    lots[rulebook.instruments[index].name] += held
                    micros -= cost
    for fold in folds_of(servers, pipeline.topics, rulebook).values():
        for told_account in fold.accounts.values():
            for book in told_account.books.values():
                micros -= book.balances.get("USDC", 0)
                for market, (held, cost) in book.positions.items():
                    lots[market] -= held
                    micros += cost
    assert not any(lots.values())
    assert micros == 0


@pytest.mark.parametrize("agent", ["margin", "prices"])
def test_history_is_verified_record_by_record(pipeline: Pipeline, agent: str, name: str) -> None:
    with KafkaLogs(pipeline.kafka.bootstrap_servers, pipeline.topics) as logs:
        report = verify(logs, RULEBOOKS[name], VerifyOptions(agent=agent))
    assert report.differences == []
    assert all(part.events > 100 for part in report.partitions)


def test_every_case_ends_at_most_once_and_none_that_ended_is_kept(
    pipeline: Pipeline, name: str
) -> None:
    ended: Counter[str] = Counter()
    standing: set[str] = set()
    reasons: Counter[tuple[str, str]] = Counter()
    for record in pipeline.read(LIQUIDATIONS):
        event = json.loads(record.value or b"")
        case = event["liquidation_id"]
        reasons[event["event"], event["reason"]] += 1
        if event["event"] in {"closed", "recovered"}:
            ended[case] += 1
            standing.discard(case)
        else:
            assert not ended[case]
            standing.add(case)
    assert set(ended.values()) == {1}
    assert reasons["closed", "deleveraged"] > 5
    assert reasons["closed", "socialised" if name == "dry" else "insured"] > 1, reasons
    rows = {r.key: r.value for r in pipeline.read(ACCOUNTS) if r.key.startswith(CASE_ROW_PREFIX)}
    assert sum(value is not None for value in rows.values()) == len(standing)


def test_command_shows_what_the_fund_has(
    pipeline: Pipeline,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for setting, value in pipeline.env.items():
        monkeypatch.setenv(setting, value)
    assert run(["fund", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    balance, received, paid = (Decimal(told[of]) for of in ("balance", "received", "paid"))
    spread = told.get("socialised", {"loss": "0", "index": "0"})
    opening = Decimal(INSURANCE[name]["opening_micros"]) / 10**6
    assert balance == opening + received + Decimal(spread["loss"]) - paid
    assert (Decimal(spread["index"]) > 0) is (name == "dry")
    assert told["takeovers"] > 1
    assert run(["fund"]) == 0
    lines = capsys.readouterr().out
    assert f"balance    {told['balance']}\n" in lines
    assert (f"spread     {spread['loss']} over" in lines) is (name == "dry")
    losses = [json.loads(record.value or b"") for record in pipeline.read(LOSSES)]
    debits = [f for loss in losses if loss["kind"] == "socialised" for f in loss["borne"]]
    account = max((account for account, _, _ in debits), default="acct-7")
    assert run(["fund", "--account", account, "--json"]) == 0
    borne = json.loads(capsys.readouterr().out)
    assert [int(Decimal(one["amount"]) * 10**6) for one in borne] == [
        micros for owner, _, micros in debits if owner == account
    ]
    assert run(["fund", "--account", account]) == 0
    assert capsys.readouterr().out.count(" of equity, for ") == len(borne)
    assert (len(borne) > 0) is (name == "dry")
    monkeypatch.setenv("SOLVENT_TOPIC_PREFIX", "nowhere.")
    assert run(["fund"]) == 4


def test_case_that_was_socialised_is_explained_as_published(
    pipeline: Pipeline,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for setting, value in pipeline.env.items():
        monkeypatch.setenv(setting, value)
    events = [json.loads(record.value or b"") for record in pipeline.read(LIQUIDATIONS)]
    reason = "socialised" if name == "dry" else "insured"
    end = next(event for event in events if event["reason"] == reason)
    revision = str(end["revision"])
    assert run(["explain", end["liquidation_id"], "--revision", revision, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["liquidation"]["reason"] == reason
    assert told["published"] == end
