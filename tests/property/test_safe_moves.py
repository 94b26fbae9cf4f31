"""The safe-move index against full evaluation: same verdicts, statuses and bytes, always (D12).

First which units a state feed makes due, since no move of its value is safe; then one unit under
marks anywhere within its safe move; then whole shards, one of which judges all units at every
frame, over walks, jumps, trades, moves, outages of feeds, pauses, rulebooks, expiries and
restores.
"""

from __future__ import annotations

import json
import operator
import random
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from solvent.engine.margin import MarginShard
from solvent.kernel.evaluate import evaluate_units_jit
from solvent.kernel.judge import next_status_jit
from solvent.kernel.layout import CROSS, STATUS_LABELS, STATUS_UNKNOWN, Marks
from solvent.kernel.ledger import can_close
from solvent.kernel.safe_move import LEVEL_HOT, feed_bit, move_of
from solvent.rules import CompiledRulebook, parse_rulebook
from solvent.units import format_scaled
from solvent.wire.topics import MARKS
from support.books import Book, Columns, a_rulebook_dict, books, pack, prices, some_rules
from support.margin import NOW_US, Log, Replay, a_rulebook, a_rulebook_with_states, a_successor

RULES = some_rules(
    collateral={
        "ETH": {
            "initial_haircut_ppm": 120_000,
            "maintenance_haircut_ppm": 80_000,
            "initial_surcharge_ppm": 70_000,
            "maintenance_surcharge_ppm": 50_000,
        }
    },
    clear_ppm=200_000,
)
FEEDS = len(RULES.feeds)


def with_terms(*, lends: bool) -> CompiledRulebook:
    """Return the same markets under terms beyond flat rates that leave safe moves known."""
    document = a_rulebook_dict()
    preset = document["presets"]["cross-margin"]
    preset["collateral"]["ETH"] = {
        "tiers": [
            {"up_to": "2", "haircut_ppm": 50_000},
            {"up_to": "40", "initial_haircut_ppm": 300_000, "maintenance_haircut_ppm": 200_000},
            {"up_to": None, "haircut_ppm": 1_000_000},
        ],
        "initial_surcharge_ppm": 150_000,
        "price": {"reference_feed": "SOL-PERP", "reference_at": "initial"},
    }
    preset["collateral"]["BTC"] = {
        "initial_haircut_ppm": 100_000,
        "maintenance_haircut_ppm": 50_000,
        "imf": "0.05",
        "cap": "1.5",
    }
    brackets = [
        {"up_to_usd": 20_000, "initial_rate_ppm": 20_000, "maintenance_rate_ppm": 10_000},
        {"up_to_usd": 60_000, "initial_rate_ppm": 80_000, "maintenance_rate_ppm": 40_000},
        {"up_to_usd": None, "initial_rate_ppm": 500_000, "maintenance_rate_ppm": 250_000},
    ]
    rate = {"initial_rate_ppm": 50_000, "maintenance_fraction_ppm": 500_000}
    slippage = {
        "linear": "0.01",
        "quadratic": "0.0001",
        "risk_long": "0.05",
        "risk_short": "0.07",
        "initial_scale_ppm": 1_500_000,
    }
    preset["requirement"] = {
        "sum": [
            {"term": "brackets", "markets": {"BTC-PERP": brackets}},
            {
                "term": "flat",
                "markets": {"ETH-PERP": {**rate, "slope": "0.0004", "imf": "0.002"}},
            },
            {"term": "slippage", "markets": {"SOL-PERP": slippage}},
        ]
    }
    preset["pnl"] = {
        "kind": "weighted",
        "initial_ppm": 800_000,
        "maintenance_ppm": 1_000_000,
        "imf": "0.001",
        "cap_micros": 5_000_000_000,
        "markets": {"SOL-PERP": {"initial_ppm": 500_000, "net_of_requirement": True}},
    }
    preset["liquidation"]["end"] = {"buffer_ppm": 5_000, "of_liabilities": True}
    preset["margin_call"]["clear_ppm"] = 200_000
    if lends:
        preset["debt"] = "requirement"
    else:  # offers of less than their plans, and of nothing, which are looked at again
        preset["liquidation"]["release"] = {"duration_us": 60_000_000, "initial_ppm": 200_000}
        preset["liquidation"]["window"] = {
            "span_us": 90_000_000,
            "market_notional_per_partition_micros": 20_000_000_000,
        }
    rulebook = parse_rulebook(json.dumps(document))
    assert (rulebook.rules.terms.is_plain[0], rulebook.rules.terms.is_steady[0]) == (0, 1)
    return rulebook


RULEBOOKS = {
    "plain": RULES,
    "terms": with_terms(lends=False),
    "lending": with_terms(lends=True),
}

# -- state feeds

#: Values that repeat, change by a step or two, or jump and change sign.
values = st.builds(
    operator.add, st.sampled_from([0, 10**6, -(10**6), 2**61, -(2**61)]), st.integers(-2, 2)
)


@settings(max_examples=60)
@given(st.lists(st.tuples(values, st.booleans()), min_size=1, max_size=12))
def test_any_change_of_a_state_feed_judges_the_units_that_depend_on_it(
    frames: list[tuple[int, bool]],
) -> None:
    rulebook = a_rulebook_with_states()
    skew = rulebook.feed_by_name["SKEW"]
    log, replay = Log(), Replay(MarginShard(0, rulebook))
    for name in ("far", "idle", "other"):
        log.move(name, amount="1000")
    log.trade("far").trade("other", market="ETH-PERP", price="50")
    log.marks({"BTC": "100", "ETH": "50"})
    for topic, record in log.entries:
        replay.apply(topic, [record])
    figures = replay.shard.columns.figures
    assert not (figures.level[:3] == LEVEL_HOT).any()
    known: int | None = None
    for value, has_price in frames:
        figures.feeds[:2] |= feed_bit(skew.index)  # as if two of three units depended on it
        log.marks({"BTC": "100"} if has_price else {}, values={"SKEW": format_scaled(value, -1)})
        topic, record = log.entries[-1]
        replay.apply(topic, [record])
        assert replay.shard.safe_moves.judged == (0 if value == known else 2)
        known = value


# -- one unit


def judged(columns: Columns, marks: Marks, rulebook: CompiledRulebook) -> tuple[int, int]:
    """Evaluate the one unit and return its verdict and next status."""
    units, figures = columns.units, columns.figures
    evaluate_units_jit(
        units, 1, columns.positions, columns.balances, columns.orders, rulebook.rules, marks,
        rulebook.workspace(), figures, 0, 1,
    )  # fmt: skip
    status = next_status_jit(
        int(units.status[0]),
        int(units.previous_status[0]),
        int(figures.verdict[0]),
        figures.equity_micros[0],
        figures.requirement_micros[0],
        int(rulebook.rules.clear_ppm[0]),
        can_close(0, units, columns.balances, rulebook.rules),
    )
    return int(figures.verdict[0]), status


def at_rest(columns: Columns, marks: Marks, rulebook: CompiledRulebook) -> tuple[int, int]:
    """Give the unit the status its figures call for, as the shard would settle it."""
    for _ in range(3):
        verdict, status = judged(columns, marks, rulebook)
        before = int(columns.units.status[0])
        if status == before:
            return verdict, status
        if status == STATUS_UNKNOWN:
            columns.units.previous_status[0] = before
        columns.units.status[0] = status
    msg = "a status that does not come to rest"
    raise AssertionError(msg)


usable = st.lists(st.sampled_from([1, 1, 1, 0]), min_size=FEEDS, max_size=FEEDS)
#: Where in its safe range each feed goes, -1 to 1: mostly to an end.
corners = st.lists(
    st.one_of(st.sampled_from([-1.0, 1.0]), st.floats(-1, 1)), min_size=FEEDS, max_size=FEEDS
)


def moved(marks: Marks, move: float, where: list[float]) -> Marks:
    """Return marks moved by at most `move`, rounded inwards and kept above 0."""
    reach = [
        int(float(price) * move * abs(part)) for price, part in zip(marks.price, where, strict=True)
    ]
    signed = [-far if part < 0 else far for far, part in zip(reach, where, strict=True)]
    return marks._replace(price=np.maximum(marks.price + np.array(signed, np.int64), 1))


@pytest.mark.parametrize("rulebook", list(RULEBOOKS.values()), ids=list(RULEBOOKS))
@settings(max_examples=400)
@given(
    books(RULES),
    prices(RULES),
    usable,
    st.sampled_from(range(len(STATUS_LABELS))),
    st.lists(corners, min_size=1, max_size=4),
    st.floats(0.9, 1.1),
)
def test_marks_within_a_units_safe_move_change_neither_verdict_nor_status(
    rulebook: CompiledRulebook,
    book: Book,
    marks: Marks,
    is_usable: list[int],
    status: int,
    wheres: list[list[float]],
    cushion: float,
) -> None:
    marks = marks._replace(is_usable=np.array(is_usable, np.uint8))
    columns = pack([funded(book, marks, cushion, rulebook)], rulebook)
    columns.units.status[0] = status
    verdict, rest = at_rest(columns, marks, rulebook)
    level = int(columns.figures.level[0])
    assume(level != LEVEL_HOT)
    for where in wheres:
        there = moved(marks, move_of(level), where)
        assert judged(columns, there, rulebook) == (verdict, rest)


def funded(book: Book, marks: Marks, cushion: float, rulebook: CompiledRulebook) -> Book:
    """Return the book with USDC that brings equity near the initial requirement."""
    columns = pack([book], rulebook)
    judged(columns, marks._replace(is_usable=np.ones(FEEDS, np.uint8)), rulebook)
    equity = int(columns.figures.equity_micros[0, 0])
    wanted = int(columns.figures.requirement_micros[0, 0] * cushion)
    balances = dict(book.balances)
    balances["USDC"] = max(-(2**52), min(2**52, balances.get("USDC", 0) + wanted - equity))
    return Book(book.legs, tuple(sorted(balances.items())))


# -- whole shards


def a_wide_rulebook() -> CompiledRulebook:
    """Return the rulebook of these tests with 70 more markets: more feeds than bits of a mask."""
    model = a_rulebook().model.model_dump(mode="json", exclude_none=True)
    presets = model["presets"].values()
    like = model["instruments"]["BTC-PERP"]
    for number in range(70):
        name = f"M{number}"
        model["feeds"][name] = {"exponent": -2}
        model["instruments"][f"{name}-PERP"] = {**like, "id": 100 + number, "mark_feed": name}
        for preset in presets:
            markets = preset["requirement"]["sum"][0]["markets"]
            markets[f"{name}-PERP"] = markets["BTC-PERP"]
    return parse_rulebook(json.dumps(model))


class Pair:
    """Two shards fed alike; one is restored now and then, the other judges all at each frame."""

    def __init__(self, rulebook: CompiledRulebook) -> None:
        self.rulebook = rulebook
        self.version = rulebook.version
        self.feeds = [feed.name for feed in rulebook.feeds]
        self.markets = [instrument.name for instrument in rulebook.instruments]
        self.indexed = Replay(MarginShard(0, rulebook))
        self.full = Replay(MarginShard(0, rulebook))
        self.log = Log()
        self.prices = dict.fromkeys(self.feeds, 100.0)
        self.time_s = 0
        self.judged = 0
        self.judged_in_full = 0

    def feed(self) -> None:
        """Apply what the log gained to both, cut both, and hold them against each other."""
        for topic, record in self.log.entries[len(self.full.seen) :]:
            self.full.shard.safe_moves.forget()
            for replay in (self.indexed, self.full):
                replay.apply(topic, [record])
            if topic == MARKS:
                self.judged += self.indexed.shard.safe_moves.judged
                self.judged_in_full += self.full.shard.safe_moves.judged
                assert self.verdicts(self.indexed) == self.verdicts(self.full)
        one, other = self.indexed.cut(), self.full.cut()
        assert list(one.rows) == list(other.rows)
        assert one.records == other.records
        assert one.state == other.state

    @staticmethod
    def verdicts(replay: Replay) -> dict[tuple[str, int], int]:
        columns = replay.shard.columns
        return {
            (name, int(columns.units.book[unit])): int(columns.figures.verdict[unit])
            for account, name in enumerate(replay.shard.keys())
            for unit in columns.units_of(account)
        }

    def frame(self, names: list[str], state: str = "valid", since_s: int = 0) -> None:
        texts = {name: f"{self.prices[name]:.2f}" for name in names}
        self.log.marks(texts, at_s=self.time_s, state=state, since_s=since_s)

    def move_prices(self, changes: dict[int, float]) -> None:
        names = []
        for number, change in changes.items():
            name = self.feeds[number % len(self.feeds)]
            self.prices[name] = min(1e6, max(1.0, self.prices[name] * (1 + change)))
            names.append(name)
        self.frame(names)

    def publish(self, rate_ppm: int) -> None:
        """Publish a later version: another rate for the class of most."""
        self.version += 1
        told = json.loads(self.rulebook.document)
        told["rulebook"]["version"] = self.version
        markets = told["presets"]["cross-margin"]["requirement"]["sum"][0]["markets"]
        rates = {"initial_rate_ppm": 2 * rate_ppm, "maintenance_rate_ppm": rate_ppm}
        told["presets"]["cross-margin"]["requirement"]["sum"][0]["markets"] = dict.fromkeys(
            markets, rates
        )
        self.log.rulebook(parse_rulebook(json.dumps(told)), at_s=self.time_s)

    def spread(self, loss: int, more: int) -> None:
        """Spread a loss over this partition and others: first weigh, then bear a part."""
        loss_micros, base_micros = loss * 10**6, (loss + more) * 10**6
        told = {"request": 1, "liquidation_id": "x:cross:1", "loss_micros": loss_micros}
        self.log.losses({"kind": "weigh", **told}, at_s=self.time_s)
        bases = {"base_micros": base_micros, "bases": [base_micros], "index": 1}
        self.log.losses({"kind": "socialise", **told, **bases}, at_s=self.time_s)

    def trade(self, account: int, market: int, lots: int, kind: int) -> None:
        name = self.markets[market % len(self.markets)]
        feed = name.removesuffix("-PERP")
        more: dict[str, Any] = {}
        if kind == 1:
            more["subaccount"] = name
        if kind == 2:
            more["liquidation_id"] = f"acct-{account}:cross:1"
            more["claim_token"] = 1 + abs(lots)
        self.log.trade(
            f"acct-{account}",
            market=name,
            side="buy" if lots > 0 else "sell",
            size=f"{abs(lots) / 2}",
            price=f"{round(self.prices[feed] * 2) / 2}",
            fee="0.01",
            **more,
        )

    def deposit(self, account: int, asset: str, amount: int, is_isolated: bool) -> None:
        self.log.move(
            f"acct-{account}",
            asset=asset,
            kind="deposit" if amount > 0 else "withdrawal",
            amount=f"{max(1, abs(amount))}",
            subaccount="BTC-PERP" if is_isolated else "cross",
        )

    def report(self, account: int, kind: int, number: int, executor: str) -> None:
        """Claim the newest revision or an older one, or release a token."""
        columns, name = self.full.shard.columns, f"acct-{account}"
        unit = columns.unit_of(name, CROSS)
        assert unit is not None
        told = {
            "liquidation_id": f"{name}:cross:{max(1, int(columns.units.episode[unit]))}",
            "executor_id": executor,
            "ts_us": NOW_US,
        }
        if kind == 3:
            self.log.report("release", name, token=number, **told)
            return
        revision = max(1, int(columns.units.revision[unit]) - (kind == 2))
        self.log.claim(revision, name, share_ppm=250_000 * number, **told)

    def snapshot(self, account: int, amount: int, lots: int, is_isolated: bool) -> None:
        position = {"market": "BTC-PERP", "size": f"{lots / 2}", "cost_basis": f"{lots * 50}"}
        self.log.snapshot(
            f"acct-{account}",
            collateral={"USDC": f"{amount}"},
            positions=[position] if lots else [],
            subaccount="BTC-PERP" if is_isolated else "cross",
        )


accounts, feed_numbers = st.integers(0, 5), st.integers(0, 80)
tiny, small, large = st.floats(-0.0005, 0.0005), st.floats(-0.02, 0.02), st.floats(-0.6, 1.2)
steps = st.one_of(
    st.tuples(st.just("marks"), st.dictionaries(feed_numbers, tiny, max_size=4)),
    st.tuples(st.just("marks"), st.dictionaries(st.integers(0, 3), small, max_size=4)),
    st.tuples(st.just("marks"), st.dictionaries(st.integers(0, 3), small, max_size=4)),
    st.tuples(st.just("marks"), st.dictionaries(feed_numbers, large, max_size=2)),
    st.tuples(
        st.just("trade"), accounts, st.integers(0, 9), st.integers(-4, 6).filter(bool),
        st.integers(0, 3),
    ),
    st.tuples(
        st.just("deposit"), accounts, st.sampled_from(["USDC", "USDC", "ETHER", "JUNK"]),
        st.integers(-40, 80), st.booleans(),
    ),
    st.tuples(st.just("state"), feed_numbers, st.sampled_from(["stale", "uncertain", "valid"])),
    st.tuples(st.just("state"), st.integers(0, 2), st.sampled_from(["stale", "valid", "valid"])),
    st.tuples(st.just("wait"), st.integers(1, 70)),
    st.tuples(st.just("restore")),
    st.tuples(
        st.just("pause"), st.booleans(), st.sets(st.sampled_from(["BTC-PERP", "ETH-PERP"]))
    ),
    st.tuples(
        st.just("breakers"), st.sets(st.sampled_from(["BTC-PERP", "ETH-PERP", "ODD-PERP"])),
        st.sampled_from([(), ("BTC-PERP",), ("BTC-PERP", "ETH-PERP"), (None,)]), st.booleans(),
    ),
    st.tuples(st.just("rulebook"), st.sampled_from([20_000, 125_000, 400_000])),
    st.tuples(st.just("loss"), st.integers(1, 60), st.integers(0, 200)),
    st.tuples(st.just("gap"), accounts),
    st.tuples(
        st.just("report"), accounts, st.integers(0, 3), st.integers(1, 4),
        st.sampled_from(["north", "south"]),
    ),
    st.tuples(st.just("class"), accounts, st.sampled_from(["trader", "careful"])),
    st.tuples(
        st.just("snapshot"), accounts, st.integers(-40, 80), st.integers(-4, 6), st.booleans()
    ),
)  # fmt: skip


def play(pair: Pair, step: tuple[Any, ...]) -> None:
    kind, *values = step
    if kind == "marks":
        pair.move_prices(values[0])
    elif kind == "trade":
        pair.trade(*values)
    elif kind == "deposit":
        pair.deposit(*values)
    elif kind == "state":
        name = pair.feeds[values[0] % len(pair.feeds)]
        pair.frame([name], values[1], pair.time_s)  # a valid one serves after its grace
    elif kind == "wait":
        pair.time_s += values[0]
        pair.frame([])
    elif kind == "report":
        pair.report(*values)
    elif kind == "loss":
        pair.spread(*values)
    elif kind == "class":
        pair.log.settings(f"acct-{values[0]}", account_class=values[1])
    elif kind == "snapshot":
        pair.snapshot(*values)
    elif kind == "restore":
        pair.indexed.restore(pair.rulebook)  # what its worker was started with
    elif kind == "pause":
        pair.log.pauses(*sorted(values[1]), everywhere=values[0], at_s=pair.time_s)
    elif kind == "breakers":
        halted, tripped, dry_run = values
        pair.log.pauses(halted=sorted(halted), breakers=tripped, dry_run=dry_run, at_s=pair.time_s)
    elif kind == "rulebook":
        pair.publish(*values)
    else:
        for seq in (1, 5):
            pair.log.trade(f"acct-{values[0]}", seq=seq)
    pair.feed()


def a_leased_rulebook() -> CompiledRulebook:
    """Return the rulebook of these tests with claims on offers, 30 s of the 60 of an offer."""
    lease = {"duration_us": 30_000_000, "max_share_ppm": 500_000, "claims_per_executor": 3}
    return a_successor(1, presets={"cross-margin": {"liquidation": {"lease": lease}}})


@pytest.fixture(scope="module", params=["narrow", "wide", "leased"])
def rulebook(request: pytest.FixtureRequest) -> CompiledRulebook:
    made = {"narrow": a_rulebook, "wide": a_wide_rulebook, "leased": a_leased_rulebook}
    return made[request.param]()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=st.lists(steps, min_size=10, max_size=50))
def test_shard_with_index_equals_full_evaluation(
    rulebook: CompiledRulebook, log: list[tuple[Any, ...]]
) -> None:
    pair = Pair(rulebook)
    for account in range(6):
        pair.deposit(account, "USDC", 30 + 15 * account, False)
    pair.frame(pair.feeds)
    for account in range(6):
        pair.trade(account, account % 3, 2, 0)
    pair.feed()
    for step in log:
        play(pair, step)
    check_claims(pair.full.events("liquidations.v1"))


def check_claims(events: list[dict[str, Any]]) -> None:
    """Hold claims against what must be so of any: within the offer, tokens given once, not over."""
    newest: dict[str, int] = {}
    for event in events:
        claims, case = event.get("claims", []), event["liquidation_id"]
        offered = {leg["market"]: Decimal(leg["size"]) for leg in event["legs"]}
        held: dict[str, Decimal] = {}
        for part in (part for claim in claims for part in claim["sizes"]):
            held[part["market"]] = held.get(part["market"], Decimal(0)) + Decimal(part["size"])
        assert all(size <= offered[market] for market, size in held.items())
        tokens = [claim["token"] for claim in claims]
        executors = [claim["executor_id"] for claim in claims]
        assert tokens == sorted(set(tokens))
        assert len(executors) == len(set(executors))
        assert all(event["ts_us"] < event["expires_us"] <= c["expires_us"] for c in claims)
        if event["event"] == "claimed":
            assert tokens[-1] == newest.get(case, 0) + 1
            newest[case] = tokens[-1]
        assert not tokens or tokens[-1] <= newest[case]


def test_long_walk_of_claims_equals_full_evaluation() -> None:
    """400 frames over 20 accounts that trade and are liquidated: claims, releases, fills."""
    chance = random.Random(11)
    pair = Pair(a_leased_rulebook())
    for account in range(20):
        pair.deposit(account, "USDC", chance.randint(105, 135), False)
    pair.frame(pair.feeds)
    for account in range(20):
        pair.trade(account, 0, 16, 0)
    pair.feed()
    for step in range(400):
        pair.move_prices({0: chance.gauss(0, 0.01)})
        pair.time_s += chance.choice([0, 0, 1, 5])
        pair.trade(chance.randrange(20), 0, 4, 0)
        pair.deposit(chance.randrange(20), "USDC", 22, False)
        for _ in range(6):
            account, executor = chance.randrange(20), chance.choice(["north", "south", "west"])
            kind = chance.choice([0, 0, 1, 2, 3])
            pair.report(account, kind, chance.randint(1, 4), executor)
            if chance.random() < 0.1:
                pair.trade(account, 0, -chance.choice([1, 1, 2, 3]), 2)
            pair.feed()
        if step % 40 == 39:
            pair.indexed.restore(pair.rulebook)
    pair.feed()
    events = pair.full.events("liquidations.v1")
    check_claims(events)
    told = {(event["event"], event["reason"]) for event in events}
    assert told >= {("claimed", "claim"), ("revised", "released"), ("revised", "progress")}
    codes = {reject["code"] for reject in pair.full.events("rejects.v1")}
    assert codes >= {"SLV-211", "SLV-214", "SLV-215", "SLV-216", "SLV-217", "SLV-218"}


def test_long_walk_judges_few_and_equals_full_evaluation() -> None:
    """1,500 frames of 20 basis points over 600 accounts, three blocks; trades, some restores."""
    chance = random.Random(5)
    pair = Pair(a_rulebook())
    for account in range(600):
        pair.deposit(account, "USDC", chance.choice([chance.randint(16, 40), 300, 300, 300]), False)
    pair.frame(pair.feeds)
    for account in range(600):
        pair.trade(account, 0, chance.choice([-2, 2]), 0)
    pair.feed()
    assert pair.judged_in_full == 600
    before = pair.judged
    for step in range(1_500):
        changes = {feed: chance.gauss(0, 0.002) for feed in range(3)}
        pair.move_prices(changes)
        pair.time_s += 1
        if step % 10 == 0:
            pair.trade(chance.randrange(600), 0, chance.choice([-1, 1]), 0)
        if step % 500 == 499:
            pair.feed()
            pair.indexed.restore()
    pair.feed()
    events = {event["event"] for event in pair.full.events("liquidations.v1")}
    assert events >= {"opened", "revised"}
    assert 20 * (pair.judged - before) < pair.judged_in_full
