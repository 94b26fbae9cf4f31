"""The bridge: what is told of events, what is refused of answers, from where a restart reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import structlog

from solvent.executor.book import Book
from solvent.executor.bridge import Bridge
from solvent.executor.fills import Steps
from solvent.executor.tally import Tally
from support.contracts import SCHEMAS
from support.offers import INSTRUMENTS, a_leg, a_received, a_received_standing

ENDED: dict[str, Any] = {"event": "recovered", "reason": "market", "legs": [], "expires_us": None}


def a_bridge(**fields: Any) -> Bridge:
    log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[])
    return Bridge(Book(**fields), Steps(INSTRUMENTS), Tally(log))


def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    path: Path = SCHEMAS / "executor-bridge" / f"{name}.schema.json"
    content = json.loads(path.read_text("utf-8"))
    assert jsonschema_rs.meta.is_valid(content)
    return jsonschema_rs.Draft202012Validator(content)


OUT, IN = _validator("out"), _validator("in")


def _told(bridge: Bridge, *records: Any) -> list[tuple[str, ...]]:
    lines = [json.loads(line) for line in bridge.tell(records)]
    for line in lines:
        OUT.validate(line)
    return [(line["type"], line["liquidation_id"], line.get("reason", "")) for line in lines]


def a_fill(**fields: Any) -> dict[str, Any]:
    numbers = {"market": "BTC-PERP", "size": "0.5", "price": "39500"}
    return {"type": "fill", "liquidation_id": "alice:cross:1", **numbers, **fields}


def _refusal(bridge: Bridge, line: dict[str, Any] | bytes) -> tuple[str, str]:
    """Send a line that must be refused, and return reason and detail."""
    assert bridge.hear(line if isinstance(line, bytes) else json.dumps(line).encode()) == []
    (reply,) = (json.loads(text) for text in bridge.replies())
    OUT.validate(reply)
    return reply["reason"], reply["detail"]


def _fills(bridge: Bridge, line: dict[str, Any]) -> list[str]:
    IN.validate(line)
    fills = bridge.hear(json.dumps(line).encode())
    assert bridge.replies() == []
    return [fill.trade_id for fill in fills]


def test_offer_is_told_with_its_place_and_all_its_fields() -> None:
    bridge = a_bridge()
    (line,) = bridge.tell([a_received(7, read_from=3, auction={"id": "x"})])
    told = json.loads(line)
    assert (told["type"], told["partition"], told["offset"]) == ("offer", 3, 7)
    assert told["auction"] == {"id": "x"}
    assert told["legs"] == [a_leg()]


def test_duplicates_and_superseded_offers_are_not_told() -> None:
    bridge = a_bridge()
    second = a_received(1, revision=2, event="revised", reason="ledger_changed")
    told = _told(bridge, a_received(0), second, second)
    assert told == [("offer", "alice:cross:1", "ledger_changed")]
    assert _told(bridge, a_received(2, revision=3, **ENDED)) == [("end", "alice:cross:1", "market")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({"legs": []}, "nothing_to_trade", id="nothing left to trade"),
        pytest.param({"event": "suspended"}, "suspended", id="a pause"),
        pytest.param({"dry_run": True}, "dry_run", id="a dry run"),
        pytest.param({"event": "deferred"}, "unknown_word", id="a word of a later version"),
        pytest.param({"account_id": "bob", "ts_us": 61_000_001}, "expired", id="time went on"),
    ],
)
def test_offer_that_falls_without_another_is_withdrawn(fields: dict[str, Any], reason: str) -> None:
    bridge = a_bridge()
    bridge.tell([a_received(0)])
    changes = {"revision": 2, "event": "revised", "reason": "expired"} | fields
    told = _told(bridge, a_received(1, **changes))
    assert ("withdrawn", "alice:cross:1", reason) in told
    assert _refusal(bridge, a_fill())[0] == reason


def test_fill_becomes_a_trade_of_the_offer() -> None:
    bridge = a_bridge()
    bridge.tell([a_received(0)])
    (fill,) = bridge.hear(json.dumps(a_fill(fee="1.5", side="sell", revision=1)).encode())
    assert (fill.trade_id, fill.side, fill.fee) == ("alice.cross.1.1.BTC-PERP", "sell", "1.5")
    assert (fill.account_id, fill.ts_us) == ("alice", 1_000_000)
    bridge.wrote([fill], [12])
    (reply,) = (json.loads(text) for text in bridge.replies())
    OUT.validate(reply)
    assert reply == {
        "type": "filled",
        "liquidation_id": "alice:cross:1",
        "trade_id": "alice.cross.1.1.BTC-PERP",
        "offset": 12,
    }
    assert bridge._tally.counts == {"live": 1, "filled": 1}


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        pytest.param(b"nonsense", "unreadable", "malformed", id="no JSON"),
        pytest.param(b'{"type":"take"}', "unreadable", "take", id="unknown type"),
        pytest.param(a_fill(speed=1), "unreadable", "speed", id="unknown field"),
        pytest.param(a_fill(size=0.5), "unreadable", "size", id="a number for a decimal"),
        pytest.param(
            a_fill(liquidation_id="bob:cross:1"), "unknown_case", "bob:cross:1", id="case"
        ),
        pytest.param(a_fill(market="ETH-PERP"), "not_allowed", "offered are BTC-PERP", id="market"),
        pytest.param(a_fill(size="0.6"), "not_allowed", "offered are 0.5", id="size"),
        pytest.param(a_fill(side="buy"), "not_allowed", "offered is sell", id="side"),
        pytest.param(a_fill(price="38999"), "not_allowed", "limit is 39000", id="price"),
        pytest.param(a_fill(price="39500.05"), "not_allowed", "SLV-104", id="tick"),
        pytest.param(a_fill(revision=2), "superseded", "offered is 1", id="revision"),
    ],
)
def test_answer_that_does_not_fit_is_refused(
    line: dict[str, Any] | bytes, reason: str, detail: str
) -> None:
    bridge = a_bridge()
    bridge.tell([a_received(0)])
    found = _refusal(bridge, line)
    assert found[0] == reason
    assert detail in found[1]
    assert bridge._tally.counts["refused"] == 1
    assert _fills(bridge, a_fill()) == ["alice.cross.1.1.BTC-PERP"]


def test_offer_is_answered_once() -> None:
    bridge = a_bridge()
    legs = [a_leg(), a_leg(market="ETH-PERP")]
    bridge.tell([a_received(0, legs=legs), a_received(1, account_id="bob")])
    assert len(_fills(bridge, a_fill())) == 1
    assert _refusal(bridge, a_fill())[0] == "already_filled"
    assert _fills(bridge, {"type": "pass", "liquidation_id": "alice:cross:1"}) == []
    assert _refusal(bridge, a_fill())[0] == "answered"
    bob = a_fill(liquidation_id="bob:cross:1")
    assert len(_fills(bridge, bob)) == 1
    assert _refusal(bridge, bob)[0] == "answered"


def test_answer_to_an_ended_case_is_refused() -> None:
    bridge = a_bridge()
    bridge.tell([a_received(0)])
    bridge.tell([a_received(1, revision=2, **ENDED)])
    assert _refusal(bridge, a_fill())[0] == "ended"


def test_position_stays_before_the_first_offer_unanswered() -> None:
    bridge = a_bridge()
    names = ["alice", "bob", "carol"]
    bridge.tell([a_received(offset, account_id=name) for offset, name in enumerate(names)])
    bridge.tell([a_received(40, read_from=1, account_id="dora", **ENDED)])
    assert bridge.positions() == {0: 0, 1: 41}
    _fills(bridge, a_fill(liquidation_id="bob:cross:1"))
    assert bridge.positions() == {0: 0, 1: 41}
    _fills(bridge, {"type": "pass", "liquidation_id": "alice:cross:1"})
    assert bridge.positions() == {0: 2, 1: 41}
    bridge.tell([a_received(3, account_id="carol", revision=2, **ENDED)])
    assert bridge.positions() == {0: 4, 1: 41}


def test_offer_that_stood_before_the_start_is_told_with_its_names_and_without_a_place() -> None:
    bridge = a_bridge()
    (line,) = bridge.tell([a_received_standing(7, read_from=3, episode=4)])
    told = json.loads(line)
    OUT.validate(told)
    assert (told["type"], told["partition"], "offset" in told) == ("offer", 3, False)
    assert (told["account_id"], told["subaccount"], told["episode"]) == ("alice", "cross", 4)
    assert told["legs"] == [a_leg()]
    assert bridge.positions() == {}
    fill = a_fill(liquidation_id="alice:cross:4")
    assert _fills(bridge, fill) == ["alice.cross.4.1.BTC-PERP"]
    assert bridge.tell([a_received(0, read_from=3, episode=4)]) == []  # its event comes after all
    assert bridge.positions() == {3: 1}


def test_silent_partition_takes_no_fills_but_its_offers_stand() -> None:
    bridge = a_bridge()
    bridge.tell([a_received(0), a_received(0, read_from=1, account_id="bob")])
    (silent,) = (json.loads(line) for line in bridge.tell([], {0}))
    OUT.validate(silent)
    assert silent == {"type": "heartbeat", "partition": 0, "alive": False}
    assert bridge.tell([], {0}) == []
    assert _refusal(bridge, a_fill())[0] == "stale_heartbeat"
    assert len(_fills(bridge, a_fill(liquidation_id="bob:cross:1"))) == 1
    assert bridge.tell([a_received(1, account_id="carol")], {0}) == []
    alive, offer = (json.loads(line) for line in bridge.tell([]))
    assert alive == {"type": "heartbeat", "partition": 0, "alive": True}
    assert (offer["type"], offer["liquidation_id"]) == ("offer", "carol:cross:1")
    assert len(_fills(bridge, a_fill())) == 1
