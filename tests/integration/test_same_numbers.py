"""One history, three tellers: the worker's table, a replay of its journal, `solvent evaluate`.

What each says of every account must be the same text. `evaluate` is given what the venue said and
the amounts and positions of the table, never a figure; marks are those of the marks topic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from solvent import Rulebook, Snapshot, evaluate
from solvent.cli.main import run
from solvent.engine.margin import MarginShard
from solvent.engine.plan import Planner
from solvent.wire.topics import (
    ACCOUNT_INPUTS,
    ACCOUNTS,
    JOURNAL,
    LIQUIDATIONS,
    MARGIN_STATUS,
    MARKS,
    PRICE_JOURNAL,
    REJECTS,
)
from support.broker import Broker
from support.evaluation import evaluate_validator
from support.histories import BEGIN_US, HISTORIES, History, traits
from support.pipeline import Pipeline
from support.venue import Venue, marks_of

pytestmark = [pytest.mark.kafka]

PARTITIONS = 2
#: Margin units that a history has at least.
LEAST = 25
#: What only a unit with a past has; everything else is told by both.
OF_THE_PAST = {"status", "previous_status", "flags", "episode", "revision", "touched_us"}
OF_THE_ACCOUNT = {"account_id", "quarantined"}
AMOUNTS = ("equity", "requirement", "raw_equity", "health", "shortfall", "deposit_to_clear")
#: What the order of topics, which a replay by event time decides anew, may change.
OF_THE_ORDER = {"status", "previous_status", "flags", "episode", "revision", "touched_us"}

Command = Callable[..., Any]


@pytest.fixture
def history(request: pytest.FixtureRequest) -> History:
    """What is said, under which rulebook."""
    return HISTORIES[request.param]()


@pytest.fixture
def pipeline(
    kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: History
) -> Iterator[Pipeline]:
    """A pipeline under the history's rulebook, whose settings are this process's too."""
    rulebook = history.name
    if history.text is not None:
        rulebook = str(tmp_path / f"{history.name}.yaml")
        Path(rulebook).write_text(history.text)
    made = Pipeline(kafka, tmp_path, partitions=PARTITIONS, rulebook=rulebook)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command as a user would and return its JSON."""

    def call(*arguments: str) -> Any:
        code = run([*arguments])
        shown = capsys.readouterr()
        assert code == 0, shown.err or shown.out
        return json.loads(shown.out)

    return call


@pytest.mark.parametrize("history", HISTORIES, indirect=True)
def test_worker_replay_and_evaluate_tell_the_same(
    history: History, pipeline: Pipeline, command: Command, tmp_path: Path
) -> None:
    venue = Venue(BEGIN_US)
    pipeline.start()
    for phase, records in history.phases(venue):
        pipeline.load(records)
        pipeline.follower.until(pipeline.is_finished, deadline_s=90, what=phase)
        if phase == "statements":  # before prices move, the worker at work
            units = command("accounts", "list", "--limit", "1000", "--json")
            judged = evaluated(pipeline, venue, units, command, tmp_path / "before.json")
            assert_same(units, judged, silent_in(pipeline, history))
            assert history.over <= markets_of(units)
    pipeline.finish(deadline_s=60)

    assert len(pipeline.read(REJECTS)) == 2  # what was spoilt on purpose

    units = command("accounts", "list", "--limit", "1000", "--json")
    judged = evaluated(pipeline, venue, units, command, tmp_path / "after.json")
    assert_same(units, judged, silent_in(pipeline, history))
    assert_seen(history, units)
    assert not history.over & markets_of(units)
    assert_offers(pipeline, history, units, judged, tmp_path / "after.json")
    assert_statuses(pipeline, units)

    accounts = {a["account_id"]: a for shard in replayed(pipeline, history) for a in shard}
    for account_id in sorted(accounts)[::9]:
        assert command("accounts", "show", account_id, "--json") == accounts[account_id]
    assert_equal(by_unit(units_of(accounts.values())), by_unit(units))
    for agent in ("margin", "prices"):
        told = command("replay", "--verify", "--agent", agent, "--json")
        assert (told["verified"], told["differences"]) == (True, [])
        journal = JOURNAL if agent == "margin" else PRICE_JOURNAL
        assert told["slices"] == len(pipeline.read(journal)) > 3

    folder = tmp_path / "brought"
    told = command("replay", "--by-event-time", "--out", str(folder), "--json")
    assert told["records"] == pipeline.loaded.total()
    lines = (folder / f"{ACCOUNTS}.jsonl").read_text().splitlines()
    merged = by_unit(units_of([json.loads(line) for line in lines]))
    assert_equal(without(merged, OF_THE_ORDER), without(by_unit(units), OF_THE_ORDER))


# -- what each says


def evaluated(
    pipeline: Pipeline, venue: Venue, units: list[Any], command: Command, path: Path
) -> list[Any]:
    """Return what the command says of the venue's accounts, and hold the Python API against it."""
    marks, ts_us = last_marks(pipeline)
    snapshot = venue.snapshot_of(units, marks, ts_us)
    path.write_text(json.dumps(snapshot))
    assert evaluate_validator("snapshot").is_valid(snapshot)
    rulebook = pipeline.env["SOLVENT_RULEBOOK"]
    told = command("evaluate", "--rulebook", rulebook, "--snapshot", str(path), "--plan")
    found = evaluate(Rulebook.load(rulebook), Snapshot.from_json(path), plan=True).to_dict()
    assert found == told
    accounts: list[Any] = told["accounts"]
    return accounts


def last_marks(pipeline: Pipeline) -> tuple[dict[str, Any], int]:
    """Return the last valid mark of each feed by the frames of one partition, and the time."""
    return marks_of(r.value or b"" for r in pipeline.read(MARKS) if r.partition == 0)


def silent_in(pipeline: Pipeline, history: History) -> set[str]:
    """Return assets and markets whose own feed has no valid mark."""
    told, _ = last_marks(pipeline)
    feeds = {feed.index for feed in history.rulebook.feeds if feed.name not in told}
    assets = {asset.name for asset in history.rulebook.assets if asset.index_feed in feeds}
    markets = history.rulebook.instruments
    return assets | {m.name for m in markets if m.option is None and m.mark_feed in feeds}


def replayed(pipeline: Pipeline, history: History) -> Iterator[list[Any]]:
    """Yield the accounts of each partition after its journal's runs went through a fresh shard."""
    inputs = {topic: pipeline.read(topic) for topic in (*ACCOUNT_INPUTS, MARKS)}
    journal = pipeline.read(JOURNAL)
    for partition in range(PARTITIONS):
        shard = MarginShard(partition, history.rulebook)
        for entry in journal:
            if entry.partition != partition:
                continue
            for topic, first, last in json.loads(entry.value or b"")["runs"]:
                run_of = [
                    record
                    for record in inputs[topic]
                    if record.partition == partition and first <= record.offset <= last
                ]
                shard.apply(topic, run_of)
            shard.cut()
        yield list(shard.accounts())


# -- what must be so


def assert_same(units: list[Any], judged: list[Any], silent: set[str]) -> None:
    """Everything both tell of a unit is equal; each tells what the other does, but for its past.

    `silent` are assets and markets whose last mark may not judge.
    """
    assert len(units) == len(judged) >= LEAST
    for unit, told in zip(units, judged, strict=True):
        place = (unit["account_id"], unit["subaccount"])
        assert place == (told["account_id"], told["subaccount"])
        assert unit.keys() >= OF_THE_PAST | OF_THE_ACCOUNT
        own = OF_THE_PAST | OF_THE_ACCOUNT
        shown = {n: deepcopy(v) for n, v in unit.items() if n not in own}
        wanted = {n: v for n, v in told.items() if n not in {"account_id", "plan"}}
        if unit["quarantined"]:  # evaluation does not know that nobody knows its state
            assert (unit["verdict"], unit["status"]) == ("unknown", "unknown")
            shown = {name: shown[name] for name in AMOUNTS}
            wanted = {name: wanted[name] for name in AMOUNTS}
        else:  # the worker goes on showing a mark that may not judge; evaluation knows of none
            for held, name in prices_of(shown, silent):
                assert held[name] is not None
                held[name] = None
            if unit["verdict"] == "unknown":
                for name in (*AMOUNTS, "health_ratio"):
                    del shown[name], wanted[name]
        assert shown == wanted, differences({place: shown}, {place: wanted})


def assert_seen(history: History, units: list[Any]) -> None:
    """No comparison was idle: what the history is there to show is there."""
    seen = traits(unit for unit in units if not unit["quarantined"])
    assert {name: seen[name] for name in history.sees if seen[name] < 2} == {}, seen
    assert sum(unit["quarantined"] for unit in units) == 1


def assert_offers(
    pipeline: Pipeline, history: History, units: list[Any], judged: list[Any], path: Path
) -> None:
    """The last offer of every open case is the plan that `evaluate` makes of its unit."""
    _, ts_us = last_marks(pipeline)
    rulebook = Rulebook.load(pipeline.env["SOLVENT_RULEBOOK"])

    @cache
    def planned_after(elapsed_us: int) -> dict[tuple[str, str], Any]:
        """What `evaluate` plans of the snapshot, of cases that began so long ago."""
        plan = Planner.plan
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Planner, "plan", lambda *unit: plan(*unit, elapsed_us))
            found = evaluate(rulebook, Snapshot.from_json(path), plan=True).to_dict()
        return {(told["account_id"], told["subaccount"]): told for told in found["accounts"]}

    offers = {}
    for record in pipeline.read(LIQUIDATIONS):
        event = json.loads(record.value or b"")
        offers[event["account_id"], event["subaccount"]] = event
    resting = {(u["account_id"], u["subaccount"]) for u in units if u["verdict"] == "unknown"}
    offers = {
        place: event
        for place, event in offers.items()
        if event["event"] in {"opened", "revised"} and place not in resting
    }
    plans = {(told["account_id"], told["subaccount"]): told for told in judged}
    open_cases = {
        (unit["account_id"], unit["subaccount"])
        for unit in units
        if unit["revision"] and unit["verdict"] != "unknown"
    }
    assert offers.keys() == open_cases
    for unit in units:
        place = (unit["account_id"], unit["subaccount"])
        plan = plans[place]["plan"]
        if unit["verdict"] in {"liquidatable", "bankrupt"}:  # who is called has a plan, no offer
            assert bool(plan["legs"] or plan["swaps"]) == (place in offers), place
    assert len(offers) >= 3
    names = ("legs", "swaps", "share_ppm")
    assert {name for offer in offers.values() for name in names if offer.get(name)} == history.asks
    for place, offer in offers.items():
        told = plans[place]
        assert offer["ts_us"] == ts_us, place
        assert offer["reason"] in {"expired", "bankrupt"}
        plan, auction = told["plan"], offer.get("dutch_auction")
        if auction is not None:  # a plan knows no case, so it is an auction's at its start
            plan = planned_after(ts_us - auction["started_us"])[place]["plan"]
        assert offer["legs"] == plan["legs"], place
        assert offer.get("share_ppm") == plan["share_ppm"], place
        assert offer.get("swaps", []) == plan["swaps"], place
        for name in ("verdict", "equity", "requirement", "raw_equity"):
            assert offer[name] == told[name], (place, name)
        for name in ("positions", "collateral"):
            for held, other in zip(offer[name], told[name], strict=True):
                assert held == {key: other[key] for key in held}, place


def assert_statuses(pipeline: Pipeline, units: list[Any]) -> None:
    """The last event of each unit has the status that the table has; without one it is healthy."""
    told = {}
    for record in pipeline.read(MARGIN_STATUS):
        event = json.loads(record.value or b"")
        told[event["account_id"], event["subaccount"]] = event["status"]
    found = {place: unit["status"] for place, unit in by_unit(units).items()}
    assert found == dict.fromkeys(found, "healthy") | told
    assert len(set(told.values())) >= 3


def prices_of(unit: Mapping[str, Any], silent: set[str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what of a unit is priced by a feed that is silent, and the name of that price."""
    for held in unit["positions"]:
        if held["market"] in silent:
            yield held, "mark_price"
    for held in unit["collateral"]:
        if held["asset"] in silent:
            yield held, "index_price"


# -- texts


def markets_of(units: list[Any]) -> set[str]:
    """Return the markets in which there are positions."""
    return {held["market"] for unit in units for held in unit["positions"]}


def units_of(accounts: Any) -> list[Any]:
    """Return units of accounts as ``accounts list`` shows them."""
    return [
        {"account_id": account["account_id"], "quarantined": account["quarantined"], **unit}
        for account in accounts
        for unit in account["units"]
    ]


def assert_equal(found: Mapping[tuple[str, str], Any], wanted: Mapping[Any, Any]) -> None:
    """Hold units against each other; the first differences are told field by field."""
    assert found.keys() == wanted.keys()
    assert found == wanted, differences(found, wanted)


def differences(found: Mapping[tuple[str, str], Any], wanted: Mapping[Any, Any]) -> str:
    told = [
        f"{place} {name}: {unit.get(name)} against {wanted[place].get(name)}"
        for place, unit in found.items()
        for name in sorted(unit.keys() | wanted[place].keys())
        if unit.get(name) != wanted[place].get(name)
    ]
    return "\n".join(told[:9])


def by_unit(units: list[Any]) -> dict[tuple[str, str], Any]:
    return {(unit["account_id"], unit["subaccount"]): unit for unit in units}


def without(units: Mapping[tuple[str, str], Any], names: set[str]) -> dict[tuple[str, str], Any]:
    return {
        place: {name: value for name, value in unit.items() if name not in names}
        for place, unit in units.items()
    }
