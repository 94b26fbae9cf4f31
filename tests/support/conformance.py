"""The executor's conformance pack: streams of liquidations, and what to do about each event.

``python -m support.conformance`` (with ``tests`` on the path) writes the pack anew. Events come
from the engine, fed a small history; what no right producer writes (repeats, losses, conflicts,
zombies, words of a later version) is edited in afterwards. What is expected is said here by hand,
beside each event: never taken from a program that the pack is there to check.

One unit throughout unless a scenario says otherwise: 100 USDC deposited, 4 BTC bought at 100. It is
liquidatable below 85.71 and restored from 92.31 on (``tests/unit/test_margin_cases.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solvent.engine.margin import MarginShard
from solvent.executor.book import Received
from solvent.wire.outputs import encode
from support.margin import NOW_US, SECOND_US, Log, Replay, a_rulebook, a_successor, rates_of

PACK = Path(__file__).resolve().parents[2] / "schemas" / "liquidations" / "conformance"

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """An event or raw text, what is expected of it, and the partition it lies in."""

    value: Event | str
    expected: str
    partition: int = 0


@dataclass
class Scenario:
    """A stream in batches, with fills of the executor's own between them."""

    name: str
    says: str
    accepts: list[dict[str, Any]] = field(default_factory=list)
    cooldown_us: int = 0
    executor_id: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    _batches: int = 0
    _offsets: dict[int, int] = field(default_factory=dict)

    def batch(self, *steps: Step) -> Scenario:
        """Append events that an executor reads at once."""
        self._batches += 1
        for step in steps:
            offset = self._offsets.get(step.partition, 0)
            self._offsets[step.partition] = offset + 1
            action, reason = step.expected.split()
            content = "raw" if isinstance(step.value, str) else "value"
            self.lines.append(
                {
                    "batch": self._batches,
                    "partition": step.partition,
                    "offset": offset,
                    "action": action,
                    "reason": reason,
                    content: step.value,
                }
            )
        return self

    def each(self, *steps: Step) -> Scenario:
        """Append events, each a batch of its own."""
        for step in steps:
            self.batch(step)
        return self

    def filled(self, offset: int, *, at_s: int, account_id: str = "alice") -> Scenario:
        """Append a fill of ours that was committed: its place in trades.v1, its event time."""
        fill = {"account_id": account_id, "subaccount": "cross", "offset": offset}
        self.lines.append({"filled": {**fill, "ts_us": NOW_US + at_s * SECOND_US}})
        return self

    def stands(self, *steps: Step) -> Scenario:
        """Append what stands at the start, the last of each unit: with the next batch."""
        first = len(self.lines)
        self.batch(*steps)
        self._batches -= 1
        for line in self.lines[first:]:
            self._offsets[line["partition"]] -= 1
            line["stands"] = True
        return self

    def claimed(self, report_id: str) -> Scenario:
        """Append a claim of ours that is being written."""
        self.lines.append({"claimed": report_id})
        return self

    def watermark(self, *, at_s: int, partition: int = 0) -> Scenario:
        """Append a watermark, for the stream time it tells."""
        ts_us = NOW_US + at_s * SECOND_US
        self.lines.append({"watermark": {"partition": partition, "ts_us": ts_us}})
        return self

    def silent(self, *partitions: int, then: list[str] | None = None) -> Scenario:
        """Append that these partitions, and no others, are silent; what is ruled on once more."""
        told = [expected.split() for expected in then or []]
        again = [{"liquidation_id": i, "action": a, "reason": r} for i, a, r in told]
        self.lines.append({"silent": list(partitions), "again": again})
        return self

    def text(self) -> str:
        """Return the file."""
        head = {
            "scenario": self.name,
            "says": self.says,
            "accepts": self.accepts,
            "cooldown_us": self.cooldown_us,
        }
        if self.executor_id:
            head["executor_id"] = self.executor_id
        return "".join(encode(line).decode() + "\n" for line in [head, *self.lines])


# -- histories


def opened(*accounts: str) -> Log:
    """A position for each account, all healthy, then a mark that makes them liquidatable."""
    log = Log()
    for account_id in accounts or ("alice",):
        log.move(account_id, amount="100").trade(account_id, size="4", price="100")
    log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}, at_s=0)
    return log.marks({"BTC": "84"}, at_s=1)


def filled(log: Log, size: str = "0.5", *, episode: int = 1) -> Log:
    """A fill for alice's case."""
    case = f"alice:cross:{episode}"
    return log.trade(side="sell", size=size, price="84", liquidation_id=case)


def events_of(log: Log, partition: int = 0) -> list[Event]:
    """What the engine publishes of it."""
    replay = Replay(MarginShard(partition, a_rulebook())).run(log)
    return replay.events("liquidations.v1")


def edited(event: Event, /, **changes: Any) -> Event:
    """An event with other content; a revision or episode of its own changes its id too."""
    result = event | changes
    result["liquidation_id"] = "{account_id}:{subaccount}:{episode}".format_map(result)
    return result


def rulebooks_in_turn() -> Log:
    """Another rulebook under which alice is still short, then one under which she is not."""
    log = opened().rulebook(a_successor(2, presets=rates_of(150_000)), at_s=2)
    return log.rulebook(a_successor(3, presets=rates_of(50_000)), at_s=3)


def states_of(log: Log) -> list[Event]:
    """What the engine says stands, one word after the other."""
    replay = Replay(MarginShard(0, a_rulebook())).run(log)
    values = [e.value for e in replay.records if e.topic == "liquidation-state.v1" and e.value]
    return [event for event in map(json.loads, values) if event["kind"] == "case"]


def leased() -> Log:
    """Alice is short as ever, under a rulebook that leases: for 20 s, half of an offer at most."""
    lease = {"duration_us": 20 * SECOND_US, "max_share_ppm": 500_000, "claims_per_executor": 3}
    rulebook = a_successor(2, presets={"cross-margin": {"liquidation": {"lease": lease}}})
    log = Log().rulebook(rulebook).move(amount="100").trade(size="4", price="100")
    log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)
    return log


def claimable(event: Event) -> Step:
    return Step(event, "claim live")


def live(event: Event, partition: int = 0) -> Step:
    return Step(event, "act live", partition)


def end(event: Event) -> Step:
    return Step(event, "end ended")


def ignored(event: Event | str, reason: str, partition: int = 0) -> Step:
    return Step(event, f"ignore {reason}", partition)


# -- scenarios


def plain_life() -> Scenario:
    first, second, closed = events_of(filled(filled(opened()), "2.5"))
    says = "Opened, filled in part, revised, filled to the target, closed."
    scenario = Scenario("plain-life", says).each(live(first)).filled(1, at_s=1)
    return scenario.each(live(second)).filled(2, at_s=1).each(end(closed))


def one_batch() -> Scenario:
    first, second, closed = events_of(filled(filled(opened()), "2.5"))
    other = events_of(opened("bob"))
    says = "What is read at once counts as known at once: only the newest of a unit is acted on."
    scenario = Scenario("one-batch", says)
    scenario.batch(ignored(first, "superseded"), live(second))
    scenario.batch(end(closed))
    bob, again = other[0], edited(other[0], revision=2, event="revised", reason="ledger_changed")
    over = edited(bob, revision=3, event="recovered", reason="market", expires_us=None, legs=[])
    over |= {"liquidated_notional": "0", "fills": 0}
    anew = edited(bob, episode=2)
    ahead = ignored(bob, "superseded"), ignored(again, "superseded")
    return scenario.batch(*ahead, end(over), live(anew))


def crash() -> Scenario:
    names = ["a1", "a2", "a3", "a4", "a5"]
    says = "One frame opens five cases, worst first as the engine wrote them: all are live."
    return Scenario("crash", says).batch(*(live(event) for event in events_of(opened(*names))))


def duplicates() -> Scenario:
    first, second, closed = events_of(filled(filled(opened()), "2.5"))
    says = "The same records again: at once, later, after a newer revision, after the end."
    scenario = Scenario("duplicates", says)
    scenario.batch(live(first), ignored(first, "duplicate"))
    scenario.each(ignored(first, "duplicate"), live(second), ignored(first, "duplicate"))
    scenario.batch(end(closed), ignored(closed, "duplicate"))
    return scenario.each(ignored(second, "duplicate"), ignored(closed, "duplicate"))


def gap() -> Scenario:
    log = filled(filled(opened())).marks({"BTC": "104"}, at_s=2).marks({"BTC": "80"}, at_s=3)
    first, _, third, _, anew = events_of(log)
    says = "A revision and a whole end were lost: the newest is acted on, the loss is counted."
    scenario = Scenario("gap", says).each(live(first), Step(third, "act gap"))
    scenario.each(Step(anew, "act gap"))
    much_later = edited(anew, episode=4)
    over = edited(anew, revision=2, event="recovered", reason="market", expires_us=None, legs=[])
    over |= {"liquidated_notional": "0", "fills": 0}
    scenario.each(end(over), Step(much_later, "act gap"))
    newcomer = edited(events_of(opened("bob"))[0], revision=5, event="revised", reason="expired")
    return scenario.each(live(newcomer))  # never heard of: nothing is known to be missing


def conflict() -> Scenario:
    first, second, closed = events_of(filled(filled(opened()), "2.5"))
    says = "Id and revision seen, other content: the first stays, the other is reported loudly."
    changed = edited(first, legs=[first["legs"][0] | {"size": "1"}])
    scenario = Scenario("conflict", says).batch(live(first), ignored(changed, "conflict"))
    scenario.each(ignored(changed, "conflict"), ignored(first, "duplicate"), live(second))
    scenario.each(ignored(edited(second, shortfall="1"), "conflict"))
    scenario.each(ignored(changed, "conflict"))  # of an older revision too
    return scenario.each(end(closed), ignored(edited(closed, fills=1), "conflict"))


def expiry() -> Scenario:
    alice, bob = events_of(opened("alice", "bob"))
    # The engine renews offers at their expiry; those records are left out, as if yet to come.
    says = "Another account's event moves the partition's time: at expires_us live, then no more."
    at_end = edited(bob, ts_us=alice["expires_us"])
    scenario = Scenario("expiry", says).batch(live(alice), live(at_end))
    late = edited(alice, account_id="carol")
    after = edited(bob, revision=2, event="revised", ts_us=alice["expires_us"] + 1)
    scenario.batch(ignored(late, "expired"), ignored(after, "expired"))
    unhurried = edited(alice, account_id="dora", expires_us=None)
    renewed = edited(alice, revision=2, event="revised", reason="expired")
    renewed |= {"ts_us": alice["expires_us"], "expires_us": alice["expires_us"] + 60 * SECOND_US}
    return scenario.batch(live(unhurried), live(renewed))


def own_fill() -> Scenario:
    log = filled(opened().move(amount="1"))
    first, second, third = events_of(log)
    says = "Our fill lies at offset 1: what was decided before it was read would sell too much."
    # Without a cooldown the fill's time says nothing, even if it is ahead.
    scenario = Scenario("own-fill", says).each(live(first)).filled(1, at_s=100)
    scenario.each(ignored(second, "waits_for_own_fill"), live(third))
    return scenario.each(live(edited(second, account_id="bob")))


def cooldown() -> Scenario:
    first, second, third = events_of(filled(filled(opened())))
    says = "Ten seconds of stream time after our fill the account may be offered again, not before."
    scenario = Scenario("cooldown", says, cooldown_us=10 * SECOND_US)
    scenario.each(live(first)).filled(1, at_s=1)
    early = edited(second, ts_us=NOW_US + 11 * SECOND_US - 1)
    scenario.each(ignored(early, "cooldown"), live(edited(early, account_id="bob")))
    isolated = edited(first, subaccount="BTC-PERP", ts_us=early["ts_us"])
    scenario.each(ignored(isolated, "cooldown"))  # another unit of the same account
    return scenario.each(live(edited(third, ts_us=NOW_US + 11 * SECOND_US)))


def zombie() -> Scenario:
    log = opened().marks({"BTC": "104"}, at_s=2).marks({"BTC": "84"}, at_s=3)
    first, recovered, anew, newer = events_of(filled(log, episode=2))
    says = "A producer that lost its partition goes on: its episodes and revisions are behind."
    scenario = Scenario("zombie", says).each(live(first), end(recovered))
    beyond = edited(first, revision=3, event="revised", reason="expired")
    scenario.each(ignored(beyond, "ended"), live(anew))
    scenario.each(ignored(beyond, "stale_episode"), ignored(recovered, "stale_episode"))
    scenario.batch(live(newer), ignored(beyond, "stale_episode"))
    late = edited(newer, account_id="bob")
    before = edited(anew, account_id="bob")
    return scenario.each(live(late), ignored(before, "superseded"))


def recovery_at_work() -> Scenario:
    log = opened().marks({"BTC": "104"}, at_s=2).marks({"BTC": "84"}, at_s=3)
    first, recovered, anew, knows = events_of(filled(log, episode=2))
    says = "The case recovers while its offer is worked on: our fill is waited for all the same."
    scenario = Scenario("recovery-at-work", says).each(live(first), end(recovered))
    scenario.filled(1, at_s=1)
    scenario.each(ignored(anew, "waits_for_own_fill"), live(knows))
    # An end decided before our fill was read does not make it known either.
    bobs = [edited(e, account_id="bob") for e in (first, recovered, anew, knows)]
    scenario.each(live(bobs[0])).filled(1, at_s=1, account_id="bob").each(end(bobs[1]))
    return scenario.each(ignored(bobs[2], "waits_for_own_fill"), live(bobs[3]))


def endings() -> Scenario:
    says = "All ways to end, and one of a later version."
    scenario = Scenario("endings", says)
    deposit = events_of(opened().move(amount="27"))
    trade = events_of(opened().trade(side="sell", size="3", price="84"))
    log = opened().marks({"BTC": "70"}, at_s=2)
    bankrupt = events_of(filled(log, "4"))
    settled = [edited(event, account_id="zoe") for event in deposit]
    settled[1] |= {"reason": "settlement"}
    strange = [edited(event, account_id="yves") for event in deposit]
    strange[1] |= {"reason": "forgiven"}
    named = [("bob", deposit), ("carol", trade), ("dora", bankrupt)]
    lives = [[edited(e, account_id=n) for e in events] for n, events in named]
    for life in [*lives, settled, strange]:
        *offers, last = life
        scenario.each(*(live(offer) for offer in offers), end(last))
    return scenario


def unknown_words() -> Scenario:
    first, second, third = events_of(filled(filled(opened())))
    says = "A later version's words: reasons, statuses and fields are passed over, events are not."
    fields = {"priority": 7, "legs": [first["legs"][0] | {"venue": "x"}], "auction": {"id": "a"}}
    scenario = Scenario("unknown-words", says)
    scenario.each(live(edited(first, reason="regulator", verdict="grave", status="eyed", **fields)))
    deferred = edited(second, event="deferred", reason="appeal")
    scenario.each(ignored(deferred, "unknown_word"))
    scenario.each(ignored(second, "conflict"))  # the revision is used up
    scenario.each(live(third))
    fourth = edited(third, revision=4)
    deferred = edited(deferred, revision=5)
    scenario.batch(ignored(fourth, "superseded"), ignored(deferred, "unknown_word"))
    sideways = edited(third, revision=6, legs=[third["legs"][0] | {"side": "hold"}])
    return scenario.each(ignored(sideways, "unknown_word"), live(edited(third, revision=7)))


def paused() -> Scenario:
    log = opened().pauses(everywhere=True, at_s=2).pauses(at_s=3)
    first, suspended, resumed = events_of(log.pauses(everywhere=True, at_s=4))[:3]
    says = (
        "A pause: what was offered holds no more, also within a batch, until it is offered again."
    )
    scenario = Scenario("paused", says)
    scenario.each(live(first), ignored(suspended, "suspended"), live(resumed))
    again = [edited(event, revision=revision) for revision, event in ((4, first), (5, suspended))]
    scenario.batch(ignored(again[0], "superseded"), ignored(again[1], "suspended"))
    bob = edited(suspended, account_id="bob", revision=1)  # a case that began in the pause
    return scenario.each(
        ignored(bob, "suspended"), live(edited(resumed, account_id="bob", revision=2))
    )


def dry_run() -> Scenario:
    log = opened().pauses(dry_run=True, at_s=2).marks({"BTC": "60"}, at_s=3).pauses(at_s=4)
    first, shown, bankrupt, live_again = events_of(log)
    says = "A dry run: offers are for show, and withdraw the one before, until one is meant again."
    scenario = Scenario("dry-run", says)
    scenario.each(live(first), ignored(shown, "dry_run"), ignored(bankrupt, "dry_run"))
    scenario.each(live(live_again))
    again = [edited(e, revision=revision) for revision, e in ((5, first), (6, shown))]
    scenario.batch(ignored(again[0], "superseded"), ignored(again[1], "dry_run"))
    strange = edited(shown, account_id="bob", revision=1)
    strange["legs"] = [shown["legs"][0] | {"side": "hold"}]
    scenario.each(ignored(strange, "unknown_word"))
    plain = edited(first, account_id="bob", revision=2, dry_run=False)
    return scenario.each(live(plain))


def offers_without_legs() -> Scenario:
    first = events_of(opened())[0]
    swap = {"debt": "USDC", "repay": "10", "collateral": "ETHER", "seize": "0.2"}
    swap |= {"protocol": "0", "bonus_ppm": 60_000}
    says = "Swaps are something to trade; neither legs nor swaps is nothing."
    scenario = Scenario("offers-without-legs", says)
    scenario.each(ignored(edited(first, legs=[]), "nothing_to_trade"))
    again = edited(first, revision=2, event="revised", reason="ledger_changed")
    again |= {"legs": [], "swaps": [swap]}
    return scenario.each(
        live(again), ignored(edited(again, revision=3, swaps=[]), "nothing_to_trade")
    )


def partitions() -> Scenario:
    alice = events_of(opened())[0]
    bob = edited(events_of(opened("bob"), 1)[0], ts_us=alice["expires_us"] + SECOND_US)
    bob["expires_us"] = bob["ts_us"] + 60 * SECOND_US
    says = "Each partition has its own time: one that is ahead lets nothing expire elsewhere."
    scenario = Scenario("partitions", says).batch(live(bob, 1), live(alice))
    carol = edited(alice, account_id="carol")
    return scenario.batch(ignored(carol, "expired", 1), live(edited(carol, account_id="dora")))


def rulebook_revised() -> Scenario:
    first, revised, recovered = events_of(rulebooks_in_turn())
    says = "Another rulebook is published: the offer is made again under it, then recovers by one."
    return Scenario("rulebook", says).each(live(first), live(revised), end(recovered))


def wrong_rulebook() -> Scenario:
    first, revised, recovered = events_of(rulebooks_in_turn())
    says = "This executor accepts one rulebook: what others judge is left alone, its end is heard."
    book = first["rulebook"]
    accepts = [{"id": book["id"], "version": 1, "hash": None}]
    scenario = Scenario("wrong-rulebook", says, accepts=accepts)
    scenario.each(live(first), ignored(revised, "wrong_rulebook"), end(recovered))
    other = edited(first, account_id="bob", rulebook=book | {"id": "other"})
    return scenario.each(ignored(other, "wrong_rulebook"))


def wrong_hash() -> Scenario:
    first = events_of(opened())[0]
    book = first["rulebook"]
    says = "Two rulebooks are accepted, one by its hash: the same name and version is not enough."
    exact = {"id": book["id"], "version": 1, "hash": book["hash"]}
    accepts = [{"id": "other", "version": None, "hash": None}, exact]
    scenario = Scenario("wrong-hash", says, accepts=accepts).each(live(first))
    forged = edited(first, account_id="bob", rulebook=book | {"hash": "0" * 64})
    scenario.each(ignored(forged, "wrong_rulebook"))
    return scenario.each(live(edited(forged, account_id="carol", rulebook=book | {"id": "other"})))


def not_understood() -> Scenario:
    first = events_of(opened())[0]
    says = "Records that are none: passed over, and they move no time."
    texts = ["", "null", "[]", "not json", '{"schema_version":1}']
    late_us = first["expires_us"] + SECOND_US
    wrong = [
        first | {"schema_version": 2, "ts_us": late_us},
        first | {"liquidation_id": "bob:cross:1", "ts_us": late_us},
        first | {"revision": 0, "ts_us": late_us},
        first | {"revision": "1", "ts_us": late_us},
        {name: value for name, value in first.items() if name != "expires_us"},
    ]
    steps = [ignored(value, "not_understood") for value in [*texts, *wrong]]
    return Scenario("not-understood", says).batch(*steps, live(first))


def bootstrap() -> Scenario:
    log = filled(filled(opened("alice", "bob")), "2.5")
    first, bobs, second, closed = events_of(log)
    stood = states_of(log)
    suspended = states_of(opened("carol").pauses(everywhere=True, at_s=2))[-1]
    says = (
        "What stands at the start is acted on; its event, and what came before, are known then. "
        "A watermark tells the time too."
    )
    scenario = Scenario("bootstrap", says)
    scenario.stands(live(stood[1]), live(stood[2]), ignored(suspended, "suspended"))
    scenario.batch(ignored(first, "superseded"), ignored(bobs, "duplicate"))
    scenario.each(ignored(second, "duplicate"), end(closed))
    scenario.watermark(at_s=62)
    late = edited(bobs, account_id="dora")
    scenario.each(ignored(late, "expired"))
    resumed = edited(bobs, account_id="carol", revision=3, event="revised", reason="resumed")
    resumed |= {"ts_us": NOW_US + 62 * SECOND_US, "expires_us": NOW_US + 122 * SECOND_US}
    return scenario.each(live(resumed))


def stale_heartbeat() -> Scenario:
    alice, bob = events_of(opened("alice", "bob"))
    other = events_of(opened("carol"), 1)[0]
    says = (
        "Nothing is taken where nobody may judge any more; what waited is looked at again when "
        "watermarks come, unless it was replaced or has expired."
    )
    scenario = Scenario("stale-heartbeat", says).silent(0)
    scenario.stands(ignored(states_of(opened("zoe"))[0], "stale_heartbeat"))
    scenario.batch(
        ignored(alice, "stale_heartbeat"), ignored(bob, "stale_heartbeat"), live(other, 1)
    )
    scenario.silent(1, then=[f"{who}:cross:1 act live" for who in ("zoe", "alice", "bob")])
    dora = edited(other, account_id="dora")
    erin = edited(other, account_id="erin")
    scenario.batch(ignored(dora, "stale_heartbeat", 1), ignored(erin, "stale_heartbeat", 1))
    over = edited(dora, revision=2, event="recovered", reason="market", expires_us=None, legs=[])
    over |= {"liquidated_notional": "0", "fills": 0}
    scenario.batch(Step(over, "end ended", 1))
    scenario.watermark(at_s=62, partition=1)
    return scenario.silent(then=["erin:cross:1 ignore expired"]).silent()


def claim() -> Scenario:
    log = leased().claim(1, report_id="n.1").claim(2, report_id="s.1", executor_id="south")
    fill = {"side": "sell", "price": "84", "liquidation_id": "alice:cross:1", "claim_token": 1}
    first, ours, both, filled_once, closed = events_of(
        log.trade(size="1", **fill).trade(size="1", **fill | {"claim_token": 2})
    )
    says = (
        "A leased offer is claimed first; what is ours is acted on, others' claims beside it too."
    )
    scenario = Scenario("claim", says, executor_id="north").each(claimable(first)).claimed("n.1")
    scenario.each(live(ours), live(both)).filled(1, at_s=1)
    # Our claim is used up, the rest is south's.
    return scenario.each(ignored(filled_once, "claimed"), end(closed))


def claimed_by_others() -> Scenario:
    log = leased().claim(1, report_id="s.1", executor_id="south")
    log.claim(2, report_id="w.1", executor_id="west")
    log.report("release", token=1, executor_id="south").marks({}, at_s=21)
    first, half, whole, released, lapsed = events_of(log)
    says = "What others leave can be claimed: half, nothing, half again, and all when they lapse."
    scenario = Scenario("claimed-by-others", says, executor_id="north")
    scenario.each(claimable(first), claimable(half), ignored(whole, "claimed"))
    return scenario.each(claimable(released), claimable(lapsed))


def cancel_after_claim() -> Scenario:
    log = leased().claim(1, report_id="n.1").pauses("BTC-PERP", at_s=2).pauses(at_s=3)
    log.claim(4, report_id="n.2").marks({"BTC": "120"}, at_s=4)
    first, ours, suspended, resumed, again, recovered = events_of(log)
    says = "A pause ends our claim: afterwards the offer is claimed anew. So does the case's end."
    scenario = Scenario("cancel-after-claim", says, executor_id="north")
    scenario.each(claimable(first)).claimed("n.1").each(live(ours))
    scenario.each(ignored(suspended, "suspended"), claimable(resumed)).claimed("n.2")
    return scenario.each(live(again), end(recovered))


def zombie_token() -> Scenario:
    log = leased().claim(1, report_id="n.1").claim(2, report_id="twin.1")
    log.marks({}, at_s=21)
    stands = states_of(log)[1]
    first, ours, fenced, lapsed = events_of(log)
    says = (
        "Another program under our name fences our claim: it is left alone until that one lapses. "
        "A claim of our name that stands at the start is of a former life, which we fence."
    )
    scenario = Scenario("zombie-token", says, executor_id="north")
    bob = {"liquidation_id": "bob:cross:1"}
    scenario.stands(claimable(stands | bob))
    scenario.each(claimable(first)).claimed("n.1").each(live(ours))
    scenario.each(ignored(fenced, "claimed"), ignored(ours, "duplicate"), claimable(lapsed))
    return scenario.each(live(edited(ours, revision=5)))  # should n.1 ever stand again


def claimed_without_a_name() -> Scenario:
    first, half = events_of(leased().claim(1, report_id="s.1", executor_id="south"))
    says = "An executor without a name to claim under leaves leased offers alone."
    scenario = Scenario("claimed-without-a-name", says)
    return scenario.each(ignored(first, "claimed"), ignored(half, "claimed"))


def scenarios() -> list[Scenario]:
    """Return the whole pack."""
    return [
        plain_life(),
        one_batch(),
        crash(),
        duplicates(),
        gap(),
        conflict(),
        expiry(),
        own_fill(),
        cooldown(),
        zombie(),
        recovery_at_work(),
        endings(),
        paused(),
        dry_run(),
        unknown_words(),
        offers_without_legs(),
        partitions(),
        rulebook_revised(),
        wrong_rulebook(),
        wrong_hash(),
        not_understood(),
        bootstrap(),
        stale_heartbeat(),
        claim(),
        claimed_by_others(),
        cancel_after_claim(),
        zombie_token(),
        claimed_without_a_name(),
    ]


# -- the pack as a consumer reads it


def received(line: dict[str, Any]) -> Received:
    """Return the record a line holds."""
    value = line["raw"].encode() if "raw" in line else encode(line["value"])
    return Received(line["partition"], line["offset"], value, stands=line.get("stands", False))


def batches(lines: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return lines in runs: the events of one batch, or one fill of ours."""
    runs: list[list[dict[str, Any]]] = []
    for line in lines:
        if runs and line.get("batch") == runs[-1][0].get("batch") and "batch" in line:
            runs[-1].append(line)
        else:
            runs.append([line])
    return runs


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return head and lines of a file."""
    head, *lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    return head, lines


def main() -> None:
    """Write the pack."""
    PACK.mkdir(exist_ok=True)
    for path in PACK.glob("*.jsonl"):
        path.unlink()
    for scenario in scenarios():
        (PACK / f"{scenario.name}.jsonl").write_text(scenario.text(), "utf-8")


if __name__ == "__main__":
    main()
