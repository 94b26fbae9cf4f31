"""`solvent explain`: equal to what was published, parts that add up, and what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from solvent.cli.main import run
from solvent.engine import snapshot
from solvent.engine.appraise import Appraiser
from solvent.engine.markbook import MarkBook
from solvent.engine.snapshot import evaluate_snapshot
from solvent.errors import ConfigError, PartitionError
from solvent.ops import explain as ops
from solvent.ops.explain import ExplainOptions, explain, parse_liquidation_id
from solvent.ops.explained import sections, text_of, write_page
from solvent.ops.logs import Tape
from solvent.rules import CompiledRulebook, builtin_rulebook, parse_rulebook
from solvent.state.columns import Columns
from solvent.wire.inputs import encode_control, encode_rulebook
from solvent.wire.topics import (
    ACCOUNTS,
    COLLATERAL,
    CONTROL,
    JOURNAL,
    LIQUIDATIONS,
    MARKS,
    ORACLE_TICKS,
    TRADES,
)
from support.contracts import unknown_keywords
from support.evaluation import CASES, rulebook_of, snapshot_of
from support.explained import EXPLAIN, LEVELS, assert_explained, explain_validator
from support.histories import BEGIN_US, HISTORIES
from support.house import House
from support.margin import SECOND_US, Log, a_rulebook, a_successor, rates_of
from support.memory import MemoryPipeline
from support.tapes import GOLDEN, altered
from support.venue import Venue
from unit.test_waterfall import insured

EXAMPLE = builtin_rulebook("example")
#: An offer, a revision and ends of the golden tape, by event and reason.
KINDS_OF_GOLDEN = {
    ("opened", "liquidatable"),
    ("opened", "bankrupt"),
    ("revised", "ledger_changed"),
    ("revised", "bankrupt"),
    ("recovered", "trade"),
    ("recovered", "deposit"),
    ("recovered", "market"),
    ("closed", "exhausted"),
}


def events_in(logs: Any) -> list[dict[str, Any]]:
    return [
        json.loads(record.value)
        for partition in range(logs.topics.partitions_of(LIQUIDATIONS))
        for run_ in logs.log(LIQUIDATIONS, partition).runs(0)
        for record in run_
    ]


def of_each_kind(events: list[dict[str, Any]], most: int = 3) -> Iterator[dict[str, Any]]:
    """Yield a few events of each kind, the last ones, of which more came before."""
    seen: dict[tuple[Any, ...], int] = {}
    for event in reversed(events):
        kind = (
            *(event["event"], event["reason"], event["subaccount"] == "cross"),
            *(bool(event["legs"]), bool(event.get("swaps"))),
        )
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= most:
            yield event


def explained(logs: Any, rulebook: Any, event: dict[str, Any], **more: Any) -> dict[str, Any]:
    options = ExplainOptions(
        liquidation_id=event["liquidation_id"], revision=event["revision"], **more
    )
    return explain(logs, rulebook, options)


@cache
def history_of(name: str) -> tuple[Any, MemoryPipeline]:
    history = HISTORIES[name]()
    pipeline = MemoryPipeline(history.rulebook)
    for _, records in history.phases(Venue(BEGIN_US)):
        pipeline.play(records)
    return history, pipeline


def test_every_event_of_the_golden_tape_is_made_again_and_adds_up() -> None:
    tape = Tape(GOLDEN)
    events = events_in(tape)
    assert {(e["event"], e["reason"]) for e in events} == KINDS_OF_GOLDEN
    for event in events:
        assert_explained(explained(tape, EXAMPLE, event), event)


@pytest.mark.parametrize("name", HISTORIES)
def test_histories_of_every_rulebook_are_explained(name: str) -> None:
    history, pipeline = history_of(name)
    events = list(of_each_kind(events_in(pipeline)))
    assert len(events) > 3
    formulas = set()
    for event in events:
        told = explained(pipeline, history.rulebook, event)
        assert_explained(told, event)
        assert text_of(sections(told))
        if told["sizing"]:
            formulas.add(told["sizing"]["formula"])
            formulas |= {swap["formula"] for swap in told["sizing"]["swaps"]}
    expected = {"generations": {"Z2, Z8", "Z5", "full"}, "derive-pmrm2": {"Z7"}}
    expected |= {"aave-v3": {"Z5"}, "deribit": {"Z2, Z8"}}
    assert expected.get(name, set()) <= formulas


def test_terms_of_an_underlying_are_named_with_their_worst_scenario() -> None:
    history, pipeline = history_of("derive-pmrm2")
    event = next(e for e in reversed(events_in(pipeline)) if e["legs"])
    told = explained(pipeline, history.rulebook, event)
    (underlying,) = told["verdict"]["underlyings"]
    assert [term["term"] for term in underlying["terms"]] == ["scan", "contingencies"]
    for level in ("initial", "maintenance"):
        whole = sum(float(term["requirement"][level]) for term in underlying["terms"])
        assert whole == pytest.approx(float(underlying["requirement"][level]), rel=1e-12)
    assert underlying["terms"][0]["path"] == "presets.portfolio.requirement.sum.0"
    assert "spot" in underlying["terms"][0]["worst_scenario"]
    used = {mark["feed"] for mark in told["marks"]}
    assert {"BTC/USD", "USDC/USD"} <= used
    assert all(mark["record"] for mark in told["marks"] if mark["state"] != "unknown")


def test_brackets_orders_and_leverage_are_terms_with_paths_and_amounts() -> None:
    history, pipeline = history_of("generations")
    terms = [
        term
        for event in events_in(pipeline)
        if event["account_id"].startswith("trader") and event["legs"]
        for position in explained(pipeline, history.rulebook, event, records=0)["verdict"][
            "positions"
        ]
        for term in position["terms"]
    ]
    assert {term["term"] for term in terms} == {"brackets", "orders", "own_leverage"}
    paths = {term["path"].rpartition(".markets")[0] or term["path"] for term in terms}
    assert "presets.current-generation.requirement.sum.0" in paths
    added = [term["adds"] for term in terms if "adds" in term]
    assert all(any(float(amount) > 0 for amount in each.values()) for each in added)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["rulebook"]))
def test_parts_add_up_to_the_bit_under_every_rulebook(case: dict[str, Any]) -> None:
    rulebook, content = rulebook_of(case["rulebook"]), snapshot_of(case)
    columns, marks = Columns(), MarkBook(rulebook)
    snapshot._put_marks(rulebook, marks, content["marks"])
    marks.stream_us = content.get("ts_us", 0)
    appraiser = Appraiser(rulebook, columns, marks)
    for account in content["accounts"]:
        _, unit = snapshot._add_unit(columns, rulebook, marks, "accounts", account)
        parts, appraisal = appraiser.parts(unit), appraiser.appraise(unit)
        for level in (0, 2):  # where liquidation ends may be set by the whole
            equity = required = 0.0
            for part in parts:
                equity += part.equity[level] if part.joins is None else 0.0
                required += part.requirement[level]
            assert (equity, required) == (appraisal.equity[level], appraisal.requirement[level])


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({}, {"depth", "release", "market_window", "account_window"}),
        ({"throttle_after_windows": 1}, {"depth", "release", "market_window", "throttled"}),
    ],
)
def test_what_is_withheld_is_explained_by_the_plan_and_its_limits(
    window: dict[str, int], expected: set[str]
) -> None:
    document = json.loads(builtin_rulebook("demo-phased").document)
    document["presets"]["cross-margin"]["liquidation"]["window"] |= window
    rulebook = parse_rulebook(json.dumps(document))
    pipeline = MemoryPipeline(rulebook)
    keys = {"collateral": "account_id", "trades": "account_id", "oracle-ticks": "feed"}
    for name, key in keys.items():
        lines = (
            (Path(__file__).parents[2] / "examples" / "phased" / f"{name}.jsonl")
            .read_bytes()
            .splitlines()
        )
        records = [(f"{name}.v1", json.loads(line).get(key, "").encode(), line) for line in lines]
        for record in records:
            pipeline.play([record])
    reasons = set()
    for event in events_in(pipeline):
        told = explained(pipeline, rulebook, event)
        assert_explained(told, event)
        assert "Withheld 1" in text_of(sections(told))
        for each in told["sizing"]["withheld"]:
            reasons.add(each["reason"])
            assert each["path"].startswith("presets.cross-margin.liquidation.")
            assert each["parameters"]
    assert expected <= reasons


# -- a small account, by hand: maintenance 1/8, liquidation end 3/16, liquidator 1 %


def by_hand(rulebook: CompiledRulebook | None = None) -> tuple[MemoryPipeline, dict[str, Any]]:
    pipeline = MemoryPipeline(rulebook or a_rulebook(), slice_records=3)
    venue = Venue(BEGIN_US)
    venue.quotes({"BTC": {"one": ("100.00", "0")}}, {})
    pipeline.play(venue.take())
    for _ in range(4):
        venue.move("alice", "USDC", "5")
    pipeline.play(venue.take())
    venue.trade("alice", "BTC-PERP", "1", "100")
    pipeline.play(venue.take())
    venue.quotes({"BTC": {"one": ("90.00", "0")}}, {})
    pipeline.play(venue.take())
    (event,) = events_in(pipeline)
    return pipeline, event


def test_what_would_have_avoided_it_by_hand() -> None:
    # equity 20 - 10 = 10; maintenance 90/8 = 11.25, liquidation end 90 * 3/16 = 16.875
    pipeline, event = by_hand()
    told = explained(pipeline, a_rulebook(), event)
    assert_explained(told, event)
    assert told["verdict"]["health"]["maintenance"] == "-1.25"
    avoided = told["avoided_by"]
    assert avoided["deposits"] == [
        {
            "asset": "USDC",
            "repays": False,
            "keeps_maintenance": "1.25",
            "restores_liquidation_end": "6.875",
        }
    ]
    (price,) = avoided["prices"]
    # 20 + p - 100 = p/8 at p = 91.428..., on the safe side; raw equity is 0 at 80
    assert (price["of"], price["mark"]) == ("position BTC-PERP", "90")
    assert (price["maintenance"], price["raw_equity"]) == ("91.43", "80")
    # lots of half a coin: half of it needs 5.625 and has 20 - 5
    assert avoided["sizes"] == [{"market": "BTC-PERP", "size": "1", "most": "0.5"}]
    (leg,) = told["sizing"]["legs"]
    # shortage 6.875; a lot is worth 45 and gives back 45 * (0.1875 - 0.01 - fund fee)
    assert leg["lot_value"] == "45"
    assert leg["rates_ppm"]["liquidation_end"] == 187_500
    assert float(leg["lots_exact"]) == pytest.approx(
        6.875 / 45 / (0.1775 - leg["rates_ppm"]["fund_fee"] / 1e6)
    )
    assert leg["lots"] == 1


def test_deposit_that_keeps_maintenance_is_the_least_by_another_evaluation() -> None:
    tape = Tape(GOLDEN)
    event = next(e for e in events_in(tape) if e["verdict"] == "liquidatable" and e["legs"])
    told = explained(tape, EXAMPLE, event)
    marks = {mark["feed"]: mark["price"] for mark in told["marks"]}
    least = Decimal(told["avoided_by"]["deposits"][0]["keeps_maintenance"])
    held = {c["asset"]: Decimal(c["amount"]) for c in event["collateral"]}
    for deposit, is_kept in ((least, True), (least - Decimal("0.000001"), False)):
        with_it = held | {"USDC": held.get("USDC", Decimal(0)) + deposit}
        account = {
            "account_id": "a",
            "subaccount": event["subaccount"],
            "collateral": {asset: f"{amount:f}" for asset, amount in with_it.items()},
            "positions": [
                {name: p[name] for name in ("market", "size", "cost_basis")}
                for p in event["positions"]
            ],
        }
        found = evaluate_snapshot(EXAMPLE, {"marks": marks, "accounts": [account]})["accounts"][0]
        assert (found["verdict"] in {"healthy", "margin_call"}) is is_kept


def test_records_and_marks_are_named_by_place() -> None:
    pipeline, event = by_hand()
    told = explained(pipeline, a_rulebook(), event, records=3)
    assert [(r["topic"], r["offset"], r["kind"]) for r in told["records"]] == [
        (TRADES, 0, "trade"),
        (COLLATERAL, 3, "collateral move"),
        (COLLATERAL, 2, "collateral move"),
    ]
    assert told["records"][1]["content"]["amount"] == "5"
    (mark,) = told["marks"]
    assert (mark["feed"], mark["price"], mark["used_as"]) == ("BTC", "90", ["mark of BTC-PERP"])
    assert told["liquidation"]["trigger"] == {"topic": MARKS, "partition": 0, "offset": 3}
    frame = pipeline.log(MARKS, 0).records[mark["record"]["offset"]]
    assert json.loads(frame.value or b"")["seq"] == mark["record"]["seq"]
    ticks = [pipeline.log(ORACLE_TICKS, 0).records[run_["last"]] for run_ in mark["ticks"]]
    assert any(b'"BTC"' in (tick.value or b"") or b"clock" in (tick.value or b"") for tick in ticks)


def test_event_under_a_rulebook_published_in_between_is_explained_by_it() -> None:
    pipeline, first = by_hand()
    second = a_successor(2, presets=rates_of(110_000))
    value = encode_rulebook(source="desk", rulebook=second.document, ts_us=BEGIN_US + 1)
    pipeline.play([(ORACLE_TICKS, b"rulebook", value)])
    events = events_in(pipeline)
    assert [(e["event"], e["reason"]) for e in events] == [
        ("opened", "liquidatable"),
        ("revised", "rulebook"),
    ]
    told = explained(pipeline, a_rulebook(), events[1])
    assert_explained(told, events[1])
    assert told["liquidation"]["rulebook"]["version"] == 2
    (position,) = told["verdict"]["positions"]
    assert position["terms"][0]["parameters"]["maintenance_rate_ppm"] == 110_000
    assert_explained(explained(pipeline, a_rulebook(), first), first)


def test_events_of_a_pause_are_explained() -> None:
    pipeline, _ = by_hand()
    for number, action in enumerate(("pause", "resume"), 1):
        command = encode_control(
            command_id=f"c{number}",
            action=action,
            market="BTC-PERP",
            operator="desk",
            reason="drill",
            ts_us=BEGIN_US + number,
        )
        pipeline.play([(CONTROL, b"", command)])
    events = events_in(pipeline)
    told = [(event["event"], event["reason"], len(event["legs"])) for event in events]
    assert told == [
        ("opened", "liquidatable", 1),
        ("suspended", "paused", 0),
        ("revised", "resumed", 1),
    ]
    for event in events:
        assert_explained(explained(pipeline, a_rulebook(), event), event)


def test_suspension_by_a_breaker_and_its_end_are_explained() -> None:
    move = {"move_ppm": 110_000, "window_us": 60_000_000}  # from 100 to 90: 11.1 %
    rulebook = a_successor(1, breakers={"crash": {"velocity": move}})
    pipeline, event = by_hand(rulebook)
    assert (event["event"], event["reason"], event["legs"]) == ("suspended", "breaker", [])
    orders = (("halt", "BTC-PERP"), ("dry_run_on", None), ("resume", "BTC-PERP"))
    for number, (action, market) in enumerate(orders, 1):
        command = encode_control(
            command_id=f"c{number}",
            action=action,
            market=market,
            operator="desk",
            reason="drill",
            ts_us=BEGIN_US + number,
        )
        pipeline.play([(CONTROL, b"", command)])
    events = events_in(pipeline)
    told = [(each["event"], each["reason"], each.get("dry_run")) for each in events]
    assert told == [("suspended", "breaker", None), ("revised", "resumed", True)]
    for each in events:
        assert_explained(explained(pipeline, rulebook, each), each)


# -- what is gone, and what is wrong


def test_state_that_compaction_removed_is_replayed_from_the_first_slice() -> None:
    pipeline, event = by_hand()
    whole = explained(pipeline, a_rulebook(), event)
    assert whole["recomputed"]["state_from"].startswith("the table, as of slice")
    pipeline.log(ACCOUNTS, 0).compact()
    told = explained(pipeline, a_rulebook(), event)
    assert told["recomputed"]["state_from"].startswith("a replay of slices 1 to ")
    for each in (whole, told):
        del each["recomputed"]
    assert whole == told


def test_far_slices_are_found_by_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_CHUNK", 1)
    history, pipeline = history_of("generations")
    for event in list(of_each_kind(events_in(pipeline), most=1)):
        told = explained(pipeline, history.rulebook, event, records=50)
        assert_explained(told, event)
        assert all(mark["record"] for mark in told["marks"] if mark["state"] != "unknown")
        offsets = [r["offset"] for r in told["records"] if r["topic"] == TRADES]
        assert offsets == sorted(offsets, reverse=True)


def test_what_retention_deleted_is_named() -> None:
    pipeline, event = by_hand()
    pipeline.log(ACCOUNTS, 0).compact()
    pipeline.log(COLLATERAL, 0).delete_below(2)
    with pytest.raises(PartitionError, match=r"SLV-513.*collateral\.v1 partition 0.*begins at 2"):
        explained(pipeline, a_rulebook(), event)

    pipeline, event = by_hand()
    pipeline.log(MARKS, 0).delete_below(3)
    with pytest.raises(PartitionError, match=r"SLV-513.*marks\.v1 partition 0.*begins at 3"):
        explained(pipeline, a_rulebook(), event)

    pipeline, event = by_hand()
    pipeline.log(JOURNAL, 0).delete_below(pipeline.log(JOURNAL, 0).next)
    with pytest.raises(PartitionError, match=r"SLV-513 journal\.v1 .* deleted"):
        explained(pipeline, a_rulebook(), event)

    pipeline, event = by_hand()
    pipeline.log(LIQUIDATIONS, 0).delete_below(1)
    with pytest.raises(ConfigError, match=r"SLV-454 .* begins at offset 1, what is below"):
        explained(pipeline, a_rulebook(), event)


@pytest.mark.parametrize("text", ["", "bob", "bob:cross", "bob:cross:0", "bob:cross:x", "b b:c:1"])
def test_malformed_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"SLV-454 .*account:subaccount:episode expected"):
        parse_liquidation_id(text)


def test_unknown_liquidation_and_revision_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str, tape: str = str(GOLDEN)) -> str:
        assert run(["explain", *arguments, "--tape", tape, "-r", "example"]) == 3
        return capsys.readouterr().err

    assert "SLV-454 liquidation nobody:cross:1: not in liquidations.v1" in refused("nobody:cross:1")
    message = refused("acct-5:BTC-PERP:1", "--revision", "9")
    assert "SLV-454 liquidation acct-5:BTC-PERP:1 revision 9: 1 to 4 expected" in message
    assert "SLV-450" in refused("acct-5:BTC-PERP:1", tape="nowhere")


@pytest.mark.parametrize("is_compacted", [False, True])
def test_another_rulebook_than_the_history_s_is_refused(is_compacted: bool) -> None:
    pipeline, event = by_hand()
    if is_compacted:
        pipeline.log(ACCOUNTS, 0).compact()
    with pytest.raises(ConfigError, match=r"SLV-451 .*"):
        explained(pipeline, a_successor(2, presets=rates_of(110_000)), event)
    with pytest.raises(ConfigError, match=r"SLV-451 .*"):
        explained(pipeline, EXAMPLE, event)


def test_event_that_was_altered_is_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, line = altered(
        tmp_path,
        LIQUIDATIONS,
        lambda line: '"revision":1,' in line[5],
        lambda line: [*line[:5], line[5].replace('"shortfall":"', '"shortfall":"9')],
    )
    event = json.loads(line[5])
    arguments = [event["liquidation_id"], "--revision", "1", "--tape", str(path), "-r", "example"]
    assert run(["explain", *arguments, "--json"]) == 12
    told = json.loads(capsys.readouterr().out)
    explain_validator().validate(told)
    assert told["recomputed"]["equal"] is False
    assert f'"shortfall":"9{event["shortfall"][:2]}' in told["difference"]["got"]
    assert run(["explain", *arguments]) == 12
    assert "NOT equal to what was published" in capsys.readouterr().out


# -- how it is shown


def test_command_prints_text_json_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "pages" / "why.html"
    arguments = ["explain", "acct-5:BTC-PERP:1", "--tape", str(GOLDEN), "-r", "example"]
    assert run([*arguments, "--revision", "2", "--html", str(page)]) == 0
    shown = capsys.readouterr()
    assert "equal to what was published" in shown.out
    assert "presets.cross-margin.requirement.sum.0.markets.BTC-PERP" in shown.out
    assert f"wrote {page}" in shown.err
    text = page.read_text()
    assert "<script" not in text
    assert "http" not in text
    assert "What would have avoided it" in text
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["liquidation"]["revision"] == told["liquidation"]["last_revision"] == 4
    with pytest.raises(ConfigError, match=r"SLV-453 page /dev/null/x: "):
        write_page(Path("/dev/null/x"), told)


def test_page_escapes_what_records_say() -> None:
    pipeline, event = by_hand()
    told = explained(pipeline, a_rulebook(), event)
    told["records"][0]["content"] = "<b>&"
    assert "&lt;b&gt;&amp;" in _page_of(told)


def _page_of(told: dict[str, Any]) -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        write_page(path, told)
        return path.read_text()


# -- the schema


def test_schema_is_valid_and_its_examples_satisfy_or_break_it() -> None:
    schema = json.loads((EXPLAIN / "explanation.v1.schema.json").read_text())
    assert jsonschema_rs.meta.is_valid(schema)
    assert unknown_keywords(schema) == []
    assert schema["$id"] == "urn:solvent:explain.explanation.v1"
    folder = EXPLAIN / "examples" / "explanation"
    for path in sorted((folder / "valid").glob("*.json")):
        explain_validator().validate(json.loads(path.read_text()))
    bad = sorted((folder / "invalid").glob("*.json"))
    assert len(bad) >= 3
    assert not any(explain_validator().is_valid(json.loads(path.read_text())) for path in bad)


def test_example_is_what_the_program_says() -> None:
    path = EXPLAIN / "examples" / "explanation" / "valid" / "golden-tape.json"
    expected = json.loads(path.read_text())
    about = expected["liquidation"]
    found = explained(Tape(GOLDEN), EXAMPLE, about, records=2)
    found["recomputed"]["seconds"] = expected["recomputed"]["seconds"]
    assert found == expected
    assert set(expected["verdict"]["equity"]["sum"]) == set(LEVELS)


def test_every_event_of_an_insured_history_is_made_again() -> None:
    rulebook = insured(opening_micros=15_000_000, deleverage_after_us=3_000_000)
    house = House(rulebook, partitions=1)
    pipeline = MemoryPipeline(rulebook, slice_records=3)
    told: Counter[str] = Counter()

    def go_on() -> None:
        for topic in (COLLATERAL, TRADES, ORACLE_TICKS):
            log = house.logs.get((topic, 0), [])[told[topic] :]
            told[topic] += len(log)
            pipeline.play([(topic, record.key or b"", record.value or b"") for record in log])
        for _ in range(4):  # the fund is asked and answers
            pipeline.play([])

    for account_id in "abcd":
        house.deposit(account_id, "100")
    house.price("100")
    house.match("a", "b", "4", "100")
    house.match("c", "d", "4", "100")
    go_on()
    house.price("70")
    go_on()
    house.trade("a", "sell", "4", "70", "a:cross:1")
    go_on()
    house.price("70", after_s=3)
    go_on()
    events = events_in(pipeline)
    assert [(event["event"], event["reason"]) for event in events] == [
        ("opened", "bankrupt"),
        ("opened", "bankrupt"),
        ("escalated", "insurance"),
        ("closed", "exhausted"),
        ("escalated", "deadline"),
        ("closed", "deleveraged"),
    ]
    for event in events:
        assert explained(pipeline, rulebook, event, records=2)["recomputed"]["equal"]


def test_every_event_of_a_leased_history_is_made_again() -> None:
    lease = {"duration_us": 20 * SECOND_US, "max_share_ppm": 500_000, "claims_per_executor": 2}
    rulebook = a_successor(1, presets={"cross-margin": {"liquidation": {"lease": lease}}})
    house = House(rulebook, partitions=1)
    pipeline = MemoryPipeline(rulebook, slice_records=2)
    house.deposit("alice", "1000")
    house.price("104")
    house.trade("alice", "buy", "40", "100")
    house.price("84")
    for topic in (COLLATERAL, TRADES, ORACLE_TICKS):
        pipeline.play([(topic, r.key or b"", r.value or b"") for r in house.logs[topic, 0]])
    at_s = 2
    claims = Log().claim(1, at_s=at_s).claim(2, executor_id="south", at_s=at_s)
    claims.report("release", token=2, executor_id="south", at_s=at_s)
    pipeline.play([(topic, r.key or b"", r.value or b"") for topic, r in claims.entries])
    fill = Log().trade(
        side="sell", size="1", price="84", claim_token=1, liquidation_id="alice:cross:1",
        ts_us=house.now_us,
    )  # fmt: skip
    pipeline.play([(topic, r.key or b"", r.value or b"") for topic, r in fill.entries])
    events = events_in(pipeline)
    assert [event["reason"] for event in events] == [
        "liquidatable",
        "claim",
        "claim",
        "released",
        "progress",
    ]
    for event in events:
        found = explained(pipeline, rulebook, event, records=9)
        assert found["recomputed"]["equal"]
    kinds = Counter(record["kind"] for record in found["records"])
    assert kinds == {"trade": 2, "report": 3, "collateral move": 1}
