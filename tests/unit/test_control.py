"""Commands of operators: what the price shard makes of them, and what pauses do to cases."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from solvent.cli.control import _print
from solvent.engine.prices import PriceShard
from solvent.engine.run import Run
from solvent.errors import PartitionError
from solvent.wire.outputs import ControlRow, RowBreaker, RowPause
from support.contracts import validator
from support.margin import Log, Replay
from support.prices import START_US, Feeder, Record, a_feeder, a_rulebook

# -- the price shard


def pauses_told(feeder: Feeder) -> list[dict[str, Any]]:
    frames = feeder.cut().frames
    for frame in frames:
        validator("marks").validate(frame)
    return [frame["pauses"] for frame in frames if "pauses" in frame]


def test_pauses_are_told_whole_in_a_frame_of_their_own_behind_what_changed_before() -> None:
    feeder = a_feeder()
    feeder.tick("100")
    feeder.command("pause", "BTC-PERP")
    feeder.command("pause", at=1)
    feeder.command("resume", at=2)
    cut = feeder.cut()
    assert [len(frame["marks"]) for frame in cut.frames] == [1, 0, 0, 0]
    assert [frame.get("pauses") for frame in cut.frames] == [
        None,
        {"all": False, "markets": ["BTC-PERP"]},
        {"all": True, "markets": ["BTC-PERP"]},
        {"all": False, "markets": ["BTC-PERP"]},
    ]
    row = cut.rows["\0control"]
    validator("price-state").validate(row)
    told = {"operator": "desk", "reason": "drill", "ts_us": START_US}
    assert row["pauses"] == {"BTC-PERP": told}
    assert row["commands"] == ["c-0", "c-1", "c-2"]


def test_command_without_change_is_obeyed_and_tells_nothing() -> None:
    feeder = a_feeder()
    feeder.command("resume")
    feeder.command("pause")
    feeder.command("pause", at=1)
    assert pauses_told(feeder) == [{"all": True, "markets": []}]


def test_repeated_command_is_a_duplicate_and_an_older_one_stale() -> None:
    feeder = a_feeder()
    feeder.command("pause", at=5, command_id="x")
    feeder.command("resume", at=6)
    feeder.command("pause", at=5, command_id="x")
    feeder.command("pause", at=5.9)
    cut = feeder.cut()
    (reject,) = cut.rejects
    assert (reject["code"], reject["topic"]) == ("SLV-307", "control.v1")
    assert f"not before {START_US + 6_000_000}" in reject["message"]
    validator("rejects").validate(reject)
    assert feeder.shard.counts["duplicates"] == 1
    assert cut.frames[-1]["pauses"] == {"all": False, "markets": []}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"market": "DOGE-PERP"}, "SLV-202", id="unknown market"),
        pytest.param({"action": "explode"}, "SLV-103", id="unknown action"),
        pytest.param({"action": "halt"}, "SLV-103", id="a halt of all"),
        pytest.param(
            {"action": "dry_run_on", "market": "BTC-PERP"}, "SLV-103", id="a dry run of a market"
        ),
        pytest.param({"action": "halt", "market": "DOGE"}, "SLV-202", id="a halt of no market"),
        pytest.param({"reason": ""}, "SLV-103", id="no reason"),
        pytest.param({"ts_us": START_US + 400_000_000}, "SLV-107", id="of the future"),
        pytest.param({"until_us": 5}, "SLV-101", id="unknown field"),
    ],
)
def test_command_out_of_contract_is_rejected_and_changes_nothing(
    changes: dict[str, Any], code: str
) -> None:
    feeder = a_feeder()
    command = {"schema_version": 1, "command_id": "c", "action": "pause", "operator": "eve"}
    feeder.raw_command(orjson.dumps(command | {"reason": "why", "ts_us": START_US} | changes))
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == [code]
    assert cut.rejects[0]["message"]
    assert (cut.frames, cut.rows) == ([], {})


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"\xff"])
def test_record_that_is_no_command_is_rejected(value: bytes | None) -> None:
    feeder = a_feeder()
    feeder.raw_command(value)
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == ["SLV-101"]
    assert (cut.frames, cut.rows) == ([], {})


@pytest.mark.parametrize("action", ["pause", "halt", "dry_run_on"])
def test_what_is_so_already_is_obeyed_and_not_told_again(action: str) -> None:
    feeder = a_feeder()
    market = None if action == "dry_run_on" else "BTC-PERP"
    end = "dry_run_off" if action == "dry_run_on" else "resume"
    for number, order in enumerate((end, action, action, end, end)):
        feeder.command(order, market, at=number)
    cut = feeder.cut()
    assert len(cut.frames) == 2
    assert cut.rows["\0control"]["commands"] == [f"c-{number}" for number in range(5)]
    told = cut.rows["\0control"].get("pauses"), cut.rows["\0control"].get("halts")
    assert told == ({}, None)


def test_256_commands_are_remembered() -> None:
    feeder = a_feeder()
    for number in range(257):
        feeder.command("pause", at=number, command_id=f"n-{number}")
    feeder.command("resume", at=1, command_id="n-1")  # the oldest of those remembered
    feeder.command("resume", at=0, command_id="n-0")  # forgotten, so it is an old command
    assert feeder.shard.counts["duplicates"] == 1
    assert [reject["code"] for reject in feeder.cut().rejects] == ["SLV-307"]


def test_restored_shard_knows_pauses_repeats_and_the_last_time() -> None:
    lived = a_feeder()
    lived.command("pause", "BTC-PERP", at=5, command_id="x")
    first = lived.cut()
    shard = PriceShard(a_rulebook())
    shard.load(Run.of([Record(0, 0, key, value) for key, value in first.outputs.rows]))
    shard.resume({}, first.outputs.state)
    other = Feeder(shard, offset=lived.offset, commands=lived.commands)
    for feeder in (lived, other):
        feeder.command("pause", "BTC-PERP", at=5, command_id="x")
        feeder.command("pause", at=4)
        feeder.command("pause", at=6)
    one, two = lived.cut(), other.cut()
    assert one.outputs.records == two.outputs.records
    assert list(one.outputs.rows) == list(two.outputs.rows)
    assert one.frames[-1]["pauses"] == {"all": True, "markets": ["BTC-PERP"]}


# -- the margin shard

PRICES = {"BTC": "104", "ETH": "50", "ODD": "1"}


def a_position(account: str = "alice") -> Log:
    """Return 4 BTC bought at 100 on 100 USDC: liquidatable below 85.71."""
    return Log().move(account, amount="100").trade(account, size="4", price="100").marks(PRICES)


def told(replay: Replay) -> list[str]:
    events = replay.events("liquidations.v1")
    for event in events:
        validator("liquidations").validate(event)
    return [f"{event['event']} {event['reason']}" for event in events]


def test_standing_case_is_suspended_and_offered_again() -> None:
    log = a_position().marks({"BTC": "84"}, at_s=1).pauses(everywhere=True, at_s=2)
    log.marks({"BTC": "83"}, at_s=3).marks({}, at_s=500).pauses(at_s=501)
    replay = Replay().run(log)
    assert told(replay) == ["opened liquidatable", "suspended paused", "revised resumed"]
    _, suspended, resumed = replay.events("liquidations.v1")
    assert (suspended["legs"], suspended["expires_us"]) == ([], None)
    assert resumed["legs"]
    assert [event["revision"] for event in replay.events("liquidations.v1")] == [1, 2, 3]


def test_case_that_begins_in_a_pause_begins_suspended_once() -> None:
    log = a_position().pauses(everywhere=True, at_s=1)
    for at_s, price in enumerate((84, 83, 82, 70), 2):
        log.marks({"BTC": str(price)}, at_s=at_s)
    replay = Replay().run(log)
    assert told(replay) == ["suspended paused"]
    statuses = [event["status"] for event in replay.events("margin-status.v1")]
    assert statuses == ["liquidating"]
    assert told(Replay().run(log.pauses(at_s=9)))[1:] == ["revised resumed"]


def test_suspended_case_ends_as_any_does() -> None:
    log = a_position().marks({"BTC": "84"}, at_s=1).pauses(everywhere=True, at_s=2)
    replay = Replay().run(log.marks({"BTC": "104"}, at_s=3).pauses(at_s=4))
    assert told(replay)[-1] == "recovered market"
    log = a_position().marks({"BTC": "84"}, at_s=1).pauses(everywhere=True, at_s=2)
    replay = Replay().run(log.move(amount="500").pauses(at_s=4))
    assert told(replay) == ["opened liquidatable", "suspended paused", "recovered deposit"]


def two_markets() -> Log:
    """Return 4 BTC at 100 and 4 ETH at 50 on 130 USDC, then a fall that liquidates."""
    log = Log().move(amount="130").trade(size="4", price="100")
    log.trade(market="ETH-PERP", size="4", price="50").marks({**PRICES, "BTC": "100"})
    return log.marks({"BTC": "84"}, at_s=1)


def test_paused_market_is_offered_no_more_and_others_are() -> None:
    log = two_markets()
    before = Replay().run(log).events("liquidations.v1")[-1]
    assert {leg["market"] for leg in before["legs"]} == {"BTC-PERP"}
    replay = Replay().run(log.pauses("BTC-PERP", at_s=2))
    assert told(replay) == ["opened liquidatable", "revised paused"]
    assert {leg["market"] for leg in replay.events("liquidations.v1")[-1]["legs"]} == {"ETH-PERP"}
    replay = Replay().run(log.pauses("BTC-PERP", "ETH-PERP", at_s=3).pauses("ETH-PERP", at_s=4))
    assert told(replay)[2:] == ["suspended paused", "revised resumed"]
    assert {leg["market"] for leg in replay.events("liquidations.v1")[-1]["legs"]} == {"BTC-PERP"}


def test_pause_of_another_market_says_nothing() -> None:
    log = a_position().marks({"BTC": "84"}, at_s=1).pauses("ETH-PERP", at_s=2)
    assert told(Replay().run(log.pauses(at_s=3))) == ["opened liquidatable"]


@pytest.mark.parametrize("order", [{"halted": ["BTC-PERP"]}, {"breakers": ["BTC-PERP"]}, {}])
def test_what_was_offered_is_void_from_a_pause_on_though_nothing_can_be_told(
    order: dict[str, Any],
) -> None:
    """The unit cannot be judged when the pause comes; when it can, its offer is as of the pause."""
    log = two_markets().marks({"ETH": "50"}, at_s=2, state="stale")
    log.pauses(*() if order else ("BTC-PERP",), **order, at_s=3)
    fill = {"side": "sell", "size": "0.5", "price": "84", "liquidation_id": "alice:cross:1"}
    log.trade(**fill).marks({"ETH": "50"}, at_s=4)
    replay = Replay().run(log)
    (reject,) = replay.events("rejects.v1")
    assert (reject["code"], reject["applied"]) == ("SLV-206", True)
    assert "the offer is void: its ledger, or pauses, changed" in reject["message"]
    assert told(replay) == ["opened liquidatable", "revised expired"]
    assert {leg["market"] for leg in replay.events("liquidations.v1")[-1]["legs"]} == {"ETH-PERP"}


def test_pause_of_another_market_leaves_an_offer_that_rests_as_it_is() -> None:
    log = two_markets().marks({"ETH": "50"}, at_s=2, state="stale").pauses("ODD-PERP", at_s=3)
    assert told(Replay().run(log.marks({"ETH": "50"}, at_s=4))) == ["opened liquidatable"]


def test_dry_run_that_begins_while_a_case_rests_is_told_when_it_can_be() -> None:
    log = two_markets().marks({"ETH": "50"}, at_s=2, state="stale").pauses(dry_run=True, at_s=3)
    replay = Replay().run(log.marks({"ETH": "50"}, at_s=4))
    assert told(replay) == ["opened liquidatable", "revised expired"]
    assert replay.events("liquidations.v1")[-1]["dry_run"] is True


def test_bankruptcy_in_a_pause_is_offered_at_its_end() -> None:
    log = a_position().marks({"BTC": "84"}, at_s=1).pauses(everywhere=True, at_s=2)
    replay = Replay().run(log.marks({"BTC": "60"}, at_s=3).marks({}, at_s=4).pauses(at_s=5))
    assert told(replay) == ["opened liquidatable", "suspended paused", "revised resumed"]
    assert replay.events("liquidations.v1")[-1]["verdict"] == "bankrupt"


@pytest.mark.parametrize(
    "pauses", [{"halted": ["DOGE-PERP"]}, {"breakers": ["DOGE-PERP"]}, {"markets": ["DOGE-PERP"]}]
)
def test_pause_of_an_unknown_market_is_unsound(pauses: dict[str, Any]) -> None:
    log = Log().marks(PRICES).pauses(*pauses.pop("markets", ()), **pauses)
    ((topic, records),) = log.runs(10)
    with pytest.raises(PartitionError, match="DOGE-PERP"):
        Replay().shard.apply(topic, records)


def test_pauses_are_in_the_marks_row() -> None:
    replay = Replay().run(a_position().pauses("ODD-PERP", everywhere=True, at_s=1))
    row = json.loads(replay.table[b"\0marks"])
    assert row["pauses"] == {"all": True, "markets": ["ODD-PERP"]}
    validator("accounts").validate(row)
    replay.restore()
    assert replay.shard.marks.is_all_paused


# -- what the command line says


def test_status_lists_all_that_is_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    by = RowPause(operator="desk", reason="drill", ts_us=START_US)
    breakers = [
        RowBreaker(name="crash", market="BTC-PERP", since_us=START_US),
        RowBreaker(name="crash", market="ETH-PERP", overridden=True),
        RowBreaker(name="storm", since_us=START_US, quiet_since_us=START_US + 1),
        RowBreaker(name="drain", cause="fund_draws", since_us=START_US),
    ]
    row = ControlRow(
        schema_version=1,
        pauses={"*": by},
        halts={"BTC-PERP": by},
        breakers=breakers,
        dry_run=by,
        commands=[],
        last_us=0,
    )
    _print(row, False)
    assert capsys.readouterr().out.splitlines() == [
        "all markets: paused by desk: drill",
        "BTC-PERP: halted by desk: drill",
        "BTC-PERP: breaker crash tripped at 2023-11-14 22:13:20 UTC",
        "ETH-PERP: breaker crash overridden until its condition ends",
        "all markets: breaker storm tripped at 2023-11-14 22:13:20 UTC",
        "all markets: breaker drain tripped by fund draws at 2023-11-14 22:13:20 UTC",
        "dry run by desk: drill",
    ]
    _print(row, True)
    told = json.loads(capsys.readouterr().out)
    assert told["breakers"][1] == {"name": "crash", "market": "ETH-PERP", "overridden": True}
    assert told.keys() == {"pauses", "halts", "breakers", "dry_run"}
    _print(ControlRow(schema_version=1, pauses={}, commands=[], last_us=0), False)
    assert capsys.readouterr().out == "nothing is paused\n"


# -- breakers, halts and dry runs


def test_breaker_suspends_for_a_reason_of_its_own() -> None:
    log = a_position().marks({"BTC": "84"}, at_s=1).pauses(breakers=["BTC-PERP"], at_s=2)
    assert told(Replay().run(log)) == ["opened liquidatable", "suspended breaker"]
    replay = Replay().run(log.pauses("BTC-PERP", at_s=3).pauses(at_s=4))
    assert told(replay)[1:] == ["suspended breaker", "revised resumed"]
    log = a_position().pauses(breakers=[None], at_s=1).marks({"BTC": "84"}, at_s=2)
    assert told(Replay().run(log)) == ["suspended breaker"]


@pytest.mark.parametrize(
    ("pauses", "reason"),
    [
        pytest.param({"breakers": ["BTC-PERP", "ETH-PERP"]}, "suspended breaker", id="breakers"),
        pytest.param(
            {"halted": ["BTC-PERP"], "breakers": ["ETH-PERP"]},
            "suspended breaker",
            id="one of both",
        ),
        pytest.param(
            {"halted": ["BTC-PERP", "ETH-PERP"], "everywhere": True}, "suspended halted", id="halts"
        ),
        pytest.param(
            {"halted": ["BTC-PERP"], "everywhere": True, "breakers": [None]},
            "suspended paused",
            id="operators would do",
        ),
        pytest.param({"halted": ["BTC-PERP"], "breakers": ["BTC-PERP"]}, "revised halted", id="1"),
        pytest.param({"breakers": ["BTC-PERP"]}, "revised breaker", id="one market, a breaker"),
        pytest.param({"breakers": ["ODD-PERP"]}, None, id="another market"),
    ],
)
def test_reason_is_who_would_do_to_leave_nothing(
    pauses: dict[str, Any], reason: str | None
) -> None:
    news = told(Replay().run(two_markets().pauses(**pauses, at_s=2)))[1:]
    assert news == ([] if reason is None else [reason])


def test_fills_in_a_halted_market_are_applied_and_counted() -> None:
    log = a_position().trade(side="buy", size="1", price="104").pauses(halted=["BTC-PERP"], at_s=1)
    log.trade(side="sell", size="1", price="104").trade(market="ETH-PERP", size="1", price="50")
    log.trade(side="sell", size="0.3", price="104")  # off its lot: rejected
    replay = Replay().run(log)
    assert replay.shard.facts().halted_fills == 1
    (unit,) = replay.shard.describe("alice")["units"]
    assert [position["size"] for position in unit["positions"]] == ["1", "4"]
    replay.restore()
    assert replay.shard.facts().halted_fills == 1
    quiet = Replay().run(a_position().trade(side="sell", size="1", price="104"))
    assert "halted_fills" not in quiet.state["counts"]


def test_dry_run_offers_what_nobody_may_take_and_offers_it_anew_at_its_end() -> None:
    log = a_position().marks({"BTC": "84"}, at_s=1).pauses(dry_run=True, at_s=2)
    log.marks({}, at_s=62).pauses(everywhere=True, dry_run=True, at_s=63)
    log.pauses(dry_run=True, at_s=64).pauses(at_s=65).marks({}, at_s=125)
    replay = Replay().run(log)
    shown = [event.get("dry_run") for event in replay.events("liquidations.v1")]
    assert list(zip(told(replay), shown, strict=True)) == [
        ("opened liquidatable", None),
        ("revised dry_run", True),
        ("revised expired", True),
        ("suspended paused", None),
        ("revised resumed", True),
        ("revised dry_run", None),
        ("revised expired", None),
    ]


def test_all_that_is_in_force_is_in_the_marks_row() -> None:
    pauses = {"halted": ["ODD-PERP"], "breakers": ["BTC-PERP", None], "dry_run": True}
    replay = Replay().run(a_position().pauses("ETH-PERP", "BTC-PERP", **pauses, at_s=1))
    row = json.loads(replay.table[b"\0marks"])
    validator("accounts").validate(row)
    assert row["pauses"]["halted"] == ["ODD-PERP"]
    assert [each.get("market") for each in row["pauses"]["breakers"]] == ["BTC-PERP", None]
    replay.restore()
    marks = replay.shard.marks
    assert (marks.is_all_paused, marks.is_dry_run, len(marks.paused)) == (True, True, 3)
    assert json.loads(marks.row()) == row
    replay = Replay().run(a_position().pauses("ETH-PERP", **pauses, at_s=1).pauses(at_s=2))
    assert "pauses" not in json.loads(replay.table[b"\0marks"])
