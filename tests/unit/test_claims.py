"""Claims on leased offers: who gets what for how long, and which fills count.

One unit throughout: 100 USDC deposited, 4 BTC bought at 100, lots of 0.5. At 84, from second 1 on,
it is short of 27 and the offer is to sell 2 BTC, 4 lots, at 82 or better until second 61. A claim
stands for 20 s, holds at most three quarters (3 lots), and an executor may leave 2 in a row unused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
import pytest

from solvent.rules import CompiledRulebook
from support.contracts import validator
from support.margin import NOW_US, SECOND_US, Log, Replay, a_successor, ledger_of

CASE = "alice:cross:1"
LEASE = {"duration_us": 20 * SECOND_US, "max_share_ppm": 750_000, "claims_per_executor": 2}


@cache
def leased(**changes: int) -> CompiledRulebook:
    return a_successor(presets={"cross-margin": {"liquidation": {"lease": LEASE | changes}}})


def an_offer(rulebook: CompiledRulebook | None = None) -> Log:
    log = Log().rulebook(rulebook or leased()).move(amount="100").trade(size="4", price="100")
    return log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)


def sold(log: Log, token: int | None, size: str = "0.5", at_s: int = 2, **changes: Any) -> Log:
    fill = {"side": "sell", "size": size, "price": "84", "liquidation_id": CASE}
    if token is not None:
        fill["claim_token"] = token
    return log.trade(**fill | {"ts_us": NOW_US + at_s * SECOND_US} | changes)


def replayed(log: Log, *, is_restored: bool = False) -> Replay:
    """Apply a log record by record; restored after each, the outputs must be the same."""
    replay = Replay()
    for topic, records in log.runs(1):
        replay.apply(topic, records)
        if is_restored:
            replay.cut()
            replay.restore()
    replay.cut()
    return replay


def standing(event: dict[str, Any]) -> list[tuple[int, str, str, int]]:
    """Return token, executor, BTC left and second of expiry of the claims an event tells."""
    return [
        (c["token"], c["executor_id"], c["sizes"][0]["size"], second(c["expires_us"]))
        for c in event.get("claims", [])
    ]


def second(ts_us: int) -> int:
    return (ts_us - NOW_US) // SECOND_US


def story(replay: Replay) -> list[tuple[str, str, int | None, list[tuple[int, str, str, int]]]]:
    """Return event, reason, second of expiry and standing claims of each revision."""
    told = []
    for event in replay.events("liquidations.v1"):
        validator("liquidations").validate(event)
        expires_us = event["expires_us"]
        at_s = None if expires_us is None else second(expires_us)
        told.append((event["event"], event["reason"], at_s, standing(event)))
    return told


# -- what claims hold, for how long

#: What happens -> revisions after the first, by event, reason, expiry and claims.
STORIES: dict[str, tuple[Callable[[Log], Log], list[Any]]] = {
    # three quarters of 4 lots are 3; the revision is looked at again when the claim expires
    "at most the largest share": (
        lambda log: log.claim(1),
        [("claimed", "claim", 21, [(1, "north", "1.5", 21)])],
    ),
    # 26 % of 4 lots are 1.04, rounded up to 2
    "shares are rounded up to lots": (
        lambda log: log.claim(1, share_ppm=260_000),
        [("claimed", "claim", 21, [(1, "north", "1", 21)])],
    ),
    # north holds 3 of 4 lots, so south gets 1; at 21 both have expired
    "others get what is left, until both expire": (
        lambda log: log.claim(1).claim(2, executor_id="south").marks({}, at_s=21),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("claimed", "claim", 21, [(1, "north", "1.5", 21), (2, "south", "0.5", 21)]),
            ("revised", "expired", 81, []),
        ],
    ),
    # a claim given at 1 expires at 21, one given at 10 at 30: the offer is renewed at each
    "the case is looked at again when each claim expires": (
        lambda log: (
            log.claim(1, share_ppm=500_000)
            .marks({}, at_s=10)
            .claim(2, executor_id="south", share_ppm=500_000)
            .marks({}, at_s=21)
            .claim(4, executor_id="west")
            .marks({}, at_s=30)
        ),
        [
            ("claimed", "claim", 21, [(1, "north", "1", 21)]),
            ("claimed", "claim", 21, [(1, "north", "1", 21), (2, "south", "1", 30)]),
            ("revised", "expired", 30, [(2, "south", "1", 30)]),
            ("claimed", "claim", 30, [(2, "south", "1", 30), (3, "west", "1", 41)]),
            ("revised", "expired", 41, [(3, "west", "1", 41)]),
        ],
    ),
    "another claim of the same executor fences the first": (
        lambda log: log.claim(1, share_ppm=500_000).claim(2),
        [
            ("claimed", "claim", 21, [(1, "north", "1", 21)]),
            ("claimed", "claim", 21, [(2, "north", "1.5", 21)]),
        ],
    ),
    "a release frees at once": (
        lambda log: log.claim(1).report("release", token=1).claim(3, executor_id="south"),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("revised", "released", 61, []),
            ("claimed", "claim", 21, [(2, "south", "1.5", 21)]),
        ],
    ),
    # 1 of the claim's 3 lots is sold; then short of 27 - 3/16*84*0.5 = 19.125: 1.5 BTC are offered
    "a fill takes from its claim": (
        lambda log: sold(log.claim(1), 1),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("revised", "progress", 21, [(1, "north", "1", 21)]),
        ],
    ),
    "a claim that is filled is gone": (
        lambda log: sold(log.claim(1, share_ppm=250_000), 1),
        [
            ("claimed", "claim", 21, [(1, "north", "0.5", 21)]),
            ("revised", "progress", 61, []),
        ],
    ),
    # 13 more USDC leave a shortage of 14, which 1 BTC restores: north keeps 2 lots, south none
    "a smaller offer cuts the newest claim first": (
        lambda log: log.claim(1).claim(2, executor_id="south").move(amount="3").move(amount="10"),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("claimed", "claim", 21, [(1, "north", "1.5", 21), (2, "south", "0.5", 21)]),
            ("revised", "ledger_changed", 21, [(1, "north", "1.5", 21), (2, "south", "0.5", 21)]),
            ("revised", "ledger_changed", 21, [(1, "north", "1", 21)]),
        ],
    ),
    "a larger offer leaves its growth free": (
        lambda log: log.claim(1).move(amount="10", kind="withdrawal").claim(3, executor_id="south"),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("revised", "ledger_changed", 21, [(1, "north", "1.5", 21)]),
            ("claimed", "claim", 21, [(1, "north", "1.5", 21), (2, "south", "1.5", 21)]),
        ],
    ),
    "a pause ends all claims": (
        lambda log: log.claim(1).pauses("BTC-PERP", at_s=2).pauses(at_s=3).claim(4),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("suspended", "paused", None, []),
            ("revised", "resumed", 63, []),
            ("claimed", "claim", 23, [(2, "north", "1.5", 23)]),
        ],
    ),
    "a dry run ends all claims": (
        lambda log: log.claim(1).pauses(dry_run=True, at_s=2),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("revised", "dry_run", 62, []),
        ],
    ),
    "a rulebook without a lease ends all claims": (
        lambda log: log.claim(1).rulebook(a_successor(version=3), at_s=2),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("revised", "rulebook", 62, []),
        ],
    ),
    "recovery ends the case and its claims": (
        lambda log: log.claim(1).marks({"BTC": "120"}, at_s=2),
        [
            ("claimed", "claim", 21, [(1, "north", "1.5", 21)]),
            ("recovered", "market", None, []),
        ],
    ),
}


@pytest.mark.parametrize("is_restored", [False, True])
@pytest.mark.parametrize("name", STORIES)
def test_claims_are_told_as_they_stand(name: str, is_restored: bool) -> None:
    act, expected = STORIES[name]
    replay = replayed(act(an_offer()), is_restored=is_restored)
    assert story(replay) == [("opened", "liquidatable", 61, []), *expected]
    assert replay.events("rejects.v1") == []
    for emit in replay.records:
        if emit.topic == "liquidation-state.v1" and emit.value is not None:
            validator("liquidation-state").validate(orjson.loads(emit.value))


def test_claimed_event_names_its_report_and_the_lease() -> None:
    event = replayed(an_offer().claim(1, report_id="mine")).events("liquidations.v1")[-1]
    assert event["trigger"] == {"topic": "liquidation-reports.v1", "offset": 0}
    assert event["inputs"]["liquidation-reports.v1"] == 1
    assert event["lease"] == {"duration_us": 20 * SECOND_US, "max_share_ppm": 750_000}
    assert event["claims"][0]["report_id"] == "mine"
    assert event["claims"][0]["share_ppm"] == 750_000


# -- fills

FILLS: dict[str, tuple[Callable[[Log], Log], str, str]] = {
    "without a token": (lambda log: sold(log.claim(1), None), "SLV-210", "without `claim_token`"),
    "nobody claimed": (lambda log: sold(log, 1), "SLV-211", "by `claim_token` 1: no such claim"),
    "a token of 0": (lambda log: sold(log.claim(1), 0), "SLV-211", "`claim_token` 0: no such"),
    "fenced by its own executor": (
        lambda log: sold(log.claim(1).claim(2), 1), "SLV-211", "`claim_token` 1: no such claim"
    ),
    "released": (
        lambda log: sold(log.claim(1).report("release", token=1), 1), "SLV-211", "no such claim"
    ),
    "expired in event time, not seen yet": (
        lambda log: sold(log.claim(1).claim(2, executor_id="south").marks({}, at_s=20), 1, at_s=22),
        "SLV-206",
        f"the offer stood until {NOW_US + 21 * SECOND_US}",
    ),
    "a zombie: expired, and its lots are another's": (
        lambda log: sold(log.claim(1).marks({}, at_s=21).claim(3, executor_id="south"), 1, at_s=20),
        "SLV-211",
        "`claim_token` 1: no such claim",
    ),
    "beyond the share": (
        lambda log: sold(log.claim(1), 1, "2"), "SLV-212", "4 lots: `claim_token` 1 has 3"
    ),
    "used up": (
        lambda log: sold(sold(log.claim(1, share_ppm=250_000), 1), 1, at_s=3), "SLV-211", "no such"
    ),
    "more than the offer": (lambda log: sold(log.claim(1), 1, "2.5"), "SLV-208", "4 are offered"),
    "off price": (lambda log: sold(log.claim(1), 1, price="81.5"), "SLV-209", "limit 8200"),
}  # fmt: skip


@pytest.mark.parametrize("is_restored", [False, True])
@pytest.mark.parametrize("name", FILLS)
def test_fill_without_a_standing_claim_is_applied_and_does_not_count(
    name: str, is_restored: bool
) -> None:
    act, code, what = FILLS[name]
    replay = replayed(act(an_offer()), is_restored=is_restored)
    (reject,) = replay.events("rejects.v1")
    validator("rejects").validate(reject)
    assert (reject["code"], reject["applied"], reject["quarantined"]) == (code, True, False)
    assert what in reject["message"]
    _, _, books = ledger_of(replay.shard)["alice"]
    assert books["cross"][0]["BTC-PERP"][0] < 8


def test_two_programs_of_one_name_cannot_both_fill() -> None:
    """Each claimed all it may; of their fills of 0.5 BTC only the second's counts, 42 at 84."""
    log = sold(sold(an_offer().claim(1).claim(2), 1, "0.5"), 2, "0.5")
    replay = replayed(log.marks({"BTC": "120"}, at_s=4))
    last = replay.events("liquidations.v1")[-1]
    assert last["closed_sizes"] == [{"market": "BTC-PERP", "size": "0.5", "notional": "42"}]
    assert last["refused_fills"] == 1


def test_token_without_a_lease_or_without_a_case_says_nothing() -> None:
    raced = replayed(sold(an_offer(a_successor()), 7, "1"))
    assert story(raced)[-1][:2] == ("revised", "progress")
    unnamed = replayed(sold(an_offer().claim(1), 7, "1", liquidation_id=None))
    assert story(unnamed)[-1][:2] == ("revised", "ledger_changed")
    assert raced.events("rejects.v1") == unnamed.events("rejects.v1") == []


# -- reports that change nothing


def an_idle(log: Log) -> Log:
    """Two claims of north expire unused."""
    return log.claim(1).marks({}, at_s=21).claim(3).marks({}, at_s=41)


def crowded(log: Log) -> Log:
    """64 executors claim and give back."""
    for number in range(64):
        log.claim(2 * number + 1, executor_id=f"e{number}")
        log.report("release", token=number + 1, executor_id=f"e{number}")
    return log


REFUSED: dict[str, tuple[Callable[[Log], Log], str, str]] = {
    "no JSON": (lambda log: log.add("liquidation-reports.v1", b"{"), "SLV-101", ""),
    "no key": (
        lambda log: log.add("liquidation-reports.v1", a_claim(), key=None),
        "SLV-105",
        "record key null: `account_id` 'alice' expected",
    ),
    "keyed by another account": (
        lambda log: log.add("liquidation-reports.v1", a_claim(), key=b"bob"),
        "SLV-105",
        "record key b'bob'",
    ),
    "from the future": (lambda log: log.claim(1, at_s=301), "SLV-107", "`ts_us`"),
    "for the case of another account": (
        lambda log: log.claim(1, liquidation_id="bob:cross:1"), "SLV-214", "of account bob, alice"
    ),
    "of an account never heard of": (
        lambda log: log.claim(1, account_id="nobody"), "SLV-214", "no such case stands"
    ),
    "of a book never heard of": (
        lambda log: log.claim(1, liquidation_id="alice:MARS:1"), "SLV-214", "no such case stands"
    ),
    "of a book without a case": (
        lambda log: log.claim(1, liquidation_id="alice:BTC-PERP:1"), "SLV-214", "no such case"
    ),
    "of a later episode": (
        lambda log: log.claim(1, liquidation_id="alice:cross:2"), "SLV-214", "no such case stands"
    ),
    "of a case that recovered": (
        lambda log: log.marks({"BTC": "120"}, at_s=2).claim(1), "SLV-214", "no such case stands"
    ),
    "of a suspended case": (
        lambda log: log.pauses("BTC-PERP", at_s=2).claim(2), "SLV-216", "nothing is offered"
    ),
    "of a halted market": (
        lambda log: log.pauses("BTC-PERP", halted=["BTC-PERP"], at_s=2).claim(2),
        "SLV-216",
        "nothing is offered",
    ),
    "in a dry run": (
        lambda log: log.pauses(dry_run=True, at_s=2).claim(2), "SLV-216", "for show"
    ),
    "while the mark is stale": (
        lambda log: log.marks({"BTC": "84"}, at_s=2, state="stale", since_s=2).claim(1),
        "SLV-216",
        "nothing is offered",
    ),
    "of a stale revision": (
        lambda log: log.move(amount="1").claim(1), "SLV-215", "revision 1, the newest is 2"
    ),
    "of a revision to come": (lambda log: log.claim(2), "SLV-215", "revision 2, the newest is 1"),
    "without anything free": (
        lambda log: (
            log.claim(1).claim(2, executor_id="south").claim(3, executor_id="west")
        ),
        "SLV-216",
        "all of the offer is claimed",
    ),
    "after too many unused ones": (
        lambda log: an_idle(log).claim(5), "SLV-217", "2 claims of north without a fill"
    ),
    "of one executor too many": (
        lambda log: crowded(log).claim(129, executor_id="one-more"), "SLV-217", "64 other executors"
    ),
    "a release of another's claim": (
        lambda log: log.claim(1).report("release", token=1, executor_id="south"),
        "SLV-218",
        "token 1: no claim of south",
    ),
    "a release of a token never given": (
        lambda log: log.claim(1).report("release", token=2), "SLV-218", "token 2: 1 to 1 were given"
    ),
    "a release twice": (
        lambda log: log.claim(1).report("release", token=1).report("release", token=1),
        "SLV-218",
        "token 1: no claim of north that stands",
    ),
    "an attempt without a token": (
        lambda log: log.claim(1).report("attempt"), "SLV-218", "no token: 1 to 1 were given"
    ),
    "a fill by a token never given": (
        lambda log: log.report("fill", trade_id="t", token=1), "SLV-218", "1 to 0 were given"
    ),
}  # fmt: skip


def a_claim() -> bytes:
    (entry,) = Log().claim(1).entries
    value = entry[1].value
    assert value is not None
    return value


@pytest.mark.parametrize("is_restored", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_report_that_changes_nothing_is_told_and_quarantines_nobody(
    name: str, is_restored: bool
) -> None:
    act, code, what = REFUSED[name]
    log = act(an_offer())
    replay = replayed(log, is_restored=is_restored)
    (reject,) = replay.events("rejects.v1")
    validator("rejects").validate(reject)
    assert (reject["code"], reject["quarantined"], reject.get("applied", False)) == (
        code, False, False
    )  # fmt: skip
    assert what in reject["message"]
    assert replay.shard.describe("alice")["quarantined"] is False
    assert list(replay.shard.keys()) == ["alice"]
    del log.entries[-1]
    without = replayed(log).events("liquidations.v1")
    assert replay.events("liquidations.v1") == without


@pytest.mark.parametrize("kind", ["claim", "release"])
def test_claims_without_a_lease_are_refused(kind: str) -> None:
    log = an_offer(a_successor())
    log = log.claim(1) if kind == "claim" else log.report("release", token=1)
    (reject,) = replayed(log).events("rejects.v1")
    assert (reject["code"], reject["quarantined"]) == ("SLV-213", False)


def test_repeated_report_is_counted_and_nothing_else() -> None:
    log = an_offer().claim(1, report_id="same").claim(2, report_id="same", executor_id="south")
    replay = replayed(log, is_restored=True)
    assert [each[0] for each in story(replay)] == ["opened", "claimed"]
    assert replay.events("rejects.v1") == []
    counters = replay.shard.counters
    assert (counters["report"], counters["duplicate_report"]) == (2, 1)


def test_fill_that_counts_lets_its_executor_claim_anew() -> None:
    """Two in a row may go unused; after a fill the count begins again."""
    log = sold(an_offer().claim(1, share_ppm=250_000), 1)  # revisions 2 and 3
    for revision in (3, 4):
        log.claim(revision)
    assert replayed(log).events("rejects.v1") == []
    (reject,) = replayed(log.claim(5)).events("rejects.v1")
    assert reject["code"] == "SLV-217"


def test_claim_that_finds_nothing_in_the_offer_made_anew_is_told() -> None:
    """At 88 the case still stands, and 1 BTC (2 lots) restores it: north's 3 lots are cut to 2."""
    log = an_offer().claim(1).marks({"BTC": "88"}, at_s=2).claim(2, executor_id="south")
    replay = replayed(log, is_restored=True)
    assert story(replay)[-1] == ("revised", "repriced", 21, [(1, "north", "1", 21)])
    (reject,) = replay.events("rejects.v1")
    assert (reject["code"], reject["quarantined"]) == ("SLV-216", False)
    assert "offered anew, nothing is left" in reject["message"]


def test_last_revision_counts_reports_only_if_any_came() -> None:
    log = an_offer(a_successor()).report("attempt").report("attempt").report("fill", trade_id="t")
    log.report("reject", reason="no_liquidity").marks({"BTC": "120"}, at_s=2)
    replay = replayed(log, is_restored=True)
    last = replay.events("liquidations.v1")[-1]
    validator("liquidations").validate(last)
    assert last["reports"] == {"attempt": 2, "fill": 1, "reject": 1}
    quiet = replayed(an_offer(a_successor()).marks({"BTC": "120"}, at_s=2))
    assert "reports" not in quiet.events("liquidations.v1")[-1]


def test_release_of_a_case_at_rest_is_told_with_its_next_revision() -> None:
    log = an_offer().claim(1).marks({"BTC": "84"}, at_s=2, state="stale", since_s=2)
    log.report("release", token=1).marks({"BTC": "84"}, at_s=3, since_s=3).marks({}, at_s=30)
    replay = replayed(log, is_restored=True)
    assert story(replay)[-1] == ("revised", "expired", 90, [])
    assert replay.events("rejects.v1") == []


def test_token_is_read_however_the_trade_is_spelled() -> None:
    """With blanks a record goes through the decoders, and is scanned as it should be spelled."""
    log = sold(an_offer().claim(1), 1)
    topic, record = log.entries.pop()
    assert record.value is not None
    spelled = json.dumps(json.loads(record.value), indent=1).encode()
    replay = replayed(log.add(topic, spelled))
    assert story(replay)[-1] == ("revised", "progress", 21, [(1, "north", "1", 21)])
    assert replay.events("rejects.v1") == []
