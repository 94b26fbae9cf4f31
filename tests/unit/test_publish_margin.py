"""A rulebook published, as the margin shard takes it: all is judged by it, nothing held moves."""

from __future__ import annotations

import pytest

from solvent.errors import PartitionError
from solvent.rules import CompiledRulebook
from support.contracts import validator
from support.margin import Log, Replay, a_rulebook, a_shard, a_successor, ledger_of, rates_of

PRICES = {"BTC": "100", "ETH": "50", "ODD": "1"}
#: Maintenance an eighth in version 1; a half, and a sixteenth, in these.
HARSH = a_successor(presets=rates_of(500_000))
MILD = a_successor(presets=rates_of(62_500))
HARSH_3 = a_successor(3, presets=rates_of(500_000))


def a_position() -> Log:
    """Return 2 BTC bought at 100 on 80 USDC: it needs 25 now, 100 under `HARSH`."""
    return Log().move(amount="80").trade(size="2", price="100").marks(PRICES)


def told(replay: Replay) -> list[str]:
    return [f"{e['event']} {e['reason']}" for e in replay.events("liquidations.v1")]


def test_frame_with_a_rulebook_judges_all_by_it() -> None:
    replay = Replay().run(a_position().rulebook(HARSH, at_s=1))
    (offer,) = replay.events("liquidations.v1")
    assert (offer["event"], offer["requirement"]["maintenance"]) == ("opened", "100")
    assert offer["rulebook"] == HARSH.reference
    assert offer["trigger"]["topic"] == "marks.v1"
    validator("liquidations").validate(offer)
    (status,) = [e for e in replay.events("margin-status.v1") if e["status"] == "liquidating"]
    assert status["rulebook"] == HARSH.reference
    assert replay.shard.rules == HARSH.reference
    assert replay.state["rulebook"] == HARSH.reference


def test_case_that_stands_is_offered_again_and_one_that_no_more_does_recovers() -> None:
    log = a_position().marks({"BTC": "65"}, at_s=1)  # equity 10, needs 16.25
    again = a_successor(presets=rates_of(250_000))
    replay = Replay().run(log.rulebook(again, at_s=2))
    assert told(replay) == ["opened liquidatable", "revised rulebook"]
    first, second = replay.events("liquidations.v1")
    assert first["rulebook"] == a_rulebook().reference
    assert second["rulebook"] == again.reference
    assert second["expires_us"] == first["expires_us"] + 1_000_000
    replay = Replay().run(log.rulebook(a_successor(3, presets=rates_of(10_000)), at_s=3))
    assert told(replay) == ["opened liquidatable", "revised rulebook", "recovered rulebook"]
    for event in replay.events("liquidations.v1"):
        validator("liquidations").validate(event)


def test_case_that_rests_is_offered_again_once_it_can_be_judged() -> None:
    log = a_position().marks({"BTC": "65"}, at_s=1)
    log.marks({"BTC": "65"}, at_s=2, state="stale", since_s=2).rulebook(MILD, at_s=3)
    log.marks({"BTC": "60"}, at_s=4, since_s=4).marks({}, at_s=10)
    assert told(Replay().run(log)) == ["opened liquidatable", "revised expired"]


def test_quarantined_account_stays_as_it_is() -> None:
    log = a_position().trade(size="0.3").rulebook(HARSH, at_s=1)
    replay = Replay().run(log)
    assert told(replay) == []
    assert replay.shard.describe("alice")["quarantined"] is True


def test_market_that_is_new_is_traded_from_there_on() -> None:
    league = {"id": 13, "lot": "1", "tick": "1", "mark_feed": "ETH", "settles_in": "USDC"}
    presets = rates_of(62_500)
    terms = presets["cross-margin"]["requirement"]["sum"][0]["markets"]
    terms["LEAGUE"] = terms["BTC-PERP"]
    need = {"requirement": presets["cross-margin"]["requirement"]}
    more = a_successor(instruments={"LEAGUE": league}, presets=presets | {"strict": need})
    log = a_position().trade("bob", market="LEAGUE", size="1", price="50")
    log.rulebook(more, at_s=1).trade("carol", market="LEAGUE", size="1", price="50")
    replay = Replay().run(log)
    assert [reject["code"] for reject in replay.events("rejects.v1")] == ["SLV-202"]
    ledger = ledger_of(replay.shard)
    assert ledger["carol"][2]["cross"][0] == {"LEAGUE": (1, 50_000_000)}
    assert ledger["alice"][2]["cross"][0] == {"BTC-PERP": (4, 200_000_000)}


def test_totals_stay_with_their_markets() -> None:
    log = a_position().trade(size="1", price="100", fee="1.5").rulebook(HARSH, at_s=1)
    replay = Replay().run(log)
    assert replay.state["fees_micros"] == 1_500_000
    assert replay.state["rounding"] == Replay().run(a_position()).state["rounding"]


def test_rulebook_the_worker_already_has_is_kept_and_judges_nobody_anew() -> None:
    log = a_position().marks({"BTC": "65"}, at_s=1).rulebook(HARSH, at_s=2)
    replay = Replay()
    replay.shard = type(replay.shard)(0, HARSH)
    assert told(replay.run(log)) == ["opened liquidatable"]
    assert b"\0rulebook" in replay.table


@pytest.mark.parametrize("own", [a_rulebook(), HARSH, MILD, HARSH_3], ids=["1", "2", "2b", "3"])
def test_restored_shard_judges_by_what_was_published_whatever_its_worker_has(
    own: CompiledRulebook,
) -> None:
    replay = Replay().run(a_position().rulebook(HARSH, at_s=1))
    described = list(replay.shard.accounts())
    replay.restore(own)
    assert replay.shard.rules == HARSH.reference
    assert list(replay.shard.accounts()) == described


@pytest.mark.parametrize(
    ("rulebook", "named"),
    [
        pytest.param(a_successor(1, presets=rates_of(1)), "rulebook.version", id="no successor"),
        pytest.param(None, "no such key", id="no rulebook"),
    ],
)
def test_frame_with_a_rulebook_that_cannot_follow_is_unsound(
    rulebook: CompiledRulebook | None, named: str
) -> None:
    log = Log().marks(PRICES)
    if rulebook is not None:
        log.rulebook(rulebook)
    else:
        frame = (
            b'{"schema_version":1,"kind":"marks","seq":2,"ts_us":1,"marks":[],"rulebook":{"a":1}}'
        )
        log.add("marks.v1", frame, b"marks")
    ((topic, records),) = log.runs(100)
    shard = a_shard()
    with pytest.raises(PartitionError, match=f"mark frame 2: .*{named}"):
        shard.apply(topic, records)
