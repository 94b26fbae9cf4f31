"""The whole life of a case, by a state machine: whatever happens, in any order, topics agree.

Accounts trade, pay in and out, are liquidated while prices crash, recover, fall silent and
disagree; executors fill what is offered, exactly, in part, too much, too late and absurdly;
operators pause, halt and play dry, breakers trip, rulebooks change under standing cases; shards
work in any order, a few records at a time, and die between any two of them. An independent reader
of what was published (`support.lifecycle`) follows every case; shards that never died publish the
same; and when all is read, money and lots are where they were, but for what came from outside.
"""

from __future__ import annotations

import json
from collections import Counter
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cache
from typing import Any, ClassVar

import orjson
import pytest
import yaml
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from solvent.engine.margin import MarginShard
from solvent.engine.prices import PriceShard
from solvent.engine.run import Run
from solvent.rules import CompiledRulebook, parse_rulebook
from solvent.wire.inputs import (
    encode_collateral_move,
    encode_control,
    encode_rulebook,
    encode_trade,
)
from solvent.wire.outputs import WATERMARK_KEY
from solvent.wire.topics import (
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    CONTROL,
    LIQUIDATION_STATE,
    LIQUIDATIONS,
    MARGIN_STATUS,
    MARKS,
    ORACLE_TICKS,
    REJECTS,
    TRADES,
)
from support import margin
from support.house import PRICES, House
from support.lifecycle import CaseReader, Window
from support.margin import SECOND_US, merged, rates_of, snapshots_of

MICRO = 1_000_000
ACCOUNTS = [f"acct{n}" for n in range(6)]
FEEDS = {"BTC-PERP": "BTC", "ETH-PERP": "ETH"}
#: Coins in a lot, and what prices of fills are multiples of.
LOTS = {"BTC-PERP": Decimal("0.5"), "ETH-PERP": Decimal("0.01")}
TICKS = {"BTC-PERP": Decimal("0.5"), "ETH-PERP": Decimal("0.01")}
WINDOW = Window(60 * SECOND_US, Decimal(300), Decimal(120))
OPENING = 40 * MICRO

_INSURED = {"opening_micros": OPENING, "deleverage_after_us": 16 * SECOND_US}
_PHASED = {
    "release": {"duration_us": 14 * SECOND_US, "initial_ppm": 300_000},
    "window": {
        "span_us": WINDOW.span_us,
        "market_notional_per_partition_micros": int(WINDOW.market) * MICRO,
        "account_notional_micros": int(WINDOW.account) * MICRO,
    },
}
_AUCTION = {
    "sizing": "slice",
    "auction": {
        "cutoff_ppm": 800_000,
        "fast_us": 10 * SECOND_US,
        "slow_us": 30 * SECOND_US,
        "insolvent_us": SECOND_US,
        "buffer_ppm": 100_000,
    },
}
_BREAKERS = {
    "crash": {
        "velocity": {"move_ppm": 150_000, "window_us": 10 * SECOND_US},
        "quiet_us": 4 * SECOND_US,
    },
    "doubt": {"disagreement": {"after_us": SECOND_US}, "markets": ["BTC-PERP"]},
}
#: What a rulebook has beside markets and rates: sections of a liquidation, and of the whole.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "insured": ({}, {"insurance": _INSURED}),
    "phased": (_PHASED, {}),
    "insured and phased": (_PHASED, {"insurance": _INSURED}),
    "auctioned": (_AUCTION, {"insurance": _INSURED}),
    "with breakers": ({}, {"breakers": _BREAKERS, "insurance": _INSURED}),
}


@cache
def a_rulebook(kind: str, version: int = 1, rate_ppm: int = 125_000) -> CompiledRulebook:
    """Return a rulebook of a kind; offers live for 20 s."""
    margin.a_rulebook()  # compiles the kernels
    of_liquidation, of_all = KINDS[kind]
    document = merged(yaml.safe_load(margin._RULEBOOK), of_all)
    document = merged(document, {"rulebook": {"version": version}, "presets": rates_of(rate_ppm)})
    liquidation = {"offer_ttl_us": 20 * SECOND_US, **of_liquidation}
    document = merged(document, {"presets": {"cross-margin": {"liquidation": liquidation}}})
    return parse_rulebook(yaml.safe_dump(document, sort_keys=False))


#: What these histories must come to, that they mean something: events, and what fills were told.
REACHED = [
    *(("opened", reason) for reason in ("liquidatable", "bankrupt")),
    *(("revised", reason) for reason in ("bankrupt", "progress", "ledger_changed", "rulebook")),
    *(("revised", reason) for reason in ("expired", "resumed")),
    *(("escalated", reason) for reason in ("deadline", "insurance")),
    *(("closed", reason) for reason in ("target_reached", "insured", "deleveraged", "exhausted")),
    *(("recovered", reason) for reason in ("market", "deposit")),
    *(("fill", code) for code in ("", "SLV-206", "SLV-207", "SLV-208", "SLV-209")),
    ("breakers", ""),
]


class Venue(House):
    """A house whose shards have twins that never die, and whose every word is read."""

    def __init__(self, rulebook: CompiledRulebook, partitions: int, window: Window | None) -> None:
        super().__init__(rulebook, partitions)
        self.readers = [CaseReader(partition, window) for partition in range(partitions)]
        self.stands: dict[tuple[str, str], dict[str, Any]] = {}
        self.watermarks = 0
        self._twins: dict[Any, Any] = {p: MarginShard(p, rulebook) for p in range(partitions)}
        self._twins[PRICES] = PriceShard(rulebook, 0, partitions)

    def inputs(self, who: Any) -> tuple[tuple[str, int], ...]:
        more = () if who == PRICES else ((ACCOUNT_SNAPSHOTS, who),)
        return (*super().inputs(who), *more)

    def step(self, who: Any, most: int = 1_000, first: int = 0, *, dies: bool = False) -> int:
        """Let a shard fold and commit; or fold, and die before that."""
        inputs = self.inputs(who)
        first %= len(inputs)
        applied = []
        for topic, partition in (*inputs[first:], *inputs[:first]):
            begin = self._positions[who].get(topic, 0)
            part = self.logs.get((topic, partition), [])[begin : begin + most]
            if part:
                self._shards[who].apply(topic, Run.of(part))
                applied.append((topic, part))
        if dies:
            self.restore(who)
            return 0
        for topic, part in applied:
            self._twins[who].apply(topic, Run.of(part))
            self._positions[who][topic] = part[-1].offset + 1
        if applied:
            self._commit_both(who, applied)
        return sum(len(part) for _, part in applied)

    def _commit_both(self, who: Any, applied: list[tuple[str, Any]]) -> None:
        outputs, twin = self._shards[who].cut(), self._twins[who].cut()
        assert list(outputs.rows) == list(twin.rows)
        assert outputs.records == twin.records
        assert outputs.state == twin.state
        for key, value in outputs.rows:
            self._tables[who].pop(key, None)
            if value is not None:
                self._tables[who][key] = value
        self._states[who] = orjson.loads(orjson.dumps(outputs.state))
        for emit in outputs.records:
            self._deliver(who, emit)
        if who != PRICES:
            self._read(who, applied, outputs.records)

    def _read(self, partition: int, applied: list[tuple[str, Any]], records: list[Any]) -> None:
        """Hold a slice against its inputs, and what stands against the events beside it."""

        def told(topic: str) -> list[dict[str, Any]]:
            return [orjson.loads(emit.value) for emit in records if emit.topic == topic]

        events = told(LIQUIDATIONS)
        beside = iter(events)
        for emit in records:
            if emit.topic != LIQUIDATION_STATE:
                continue
            if emit.key == WATERMARK_KEY:
                self.watermarks += 1
                open_cases = sum(key[0] in self._held(partition) for key in self.stands)
                assert orjson.loads(emit.value)["open_cases"] == open_cases
                continue
            event = next(beside)
            account_id, subaccount = event["account_id"], event["subaccount"]
            assert emit.key == f"{account_id}:{subaccount}".encode()
            if event["event"] in {"closed", "recovered"}:
                assert emit.value is None
                del self.stands[account_id, subaccount]
                continue
            stands = orjson.loads(emit.value)
            assert stands.pop("kind") == "case"
            assert stands.pop("inputs") == {TRADES: event["inputs"][TRADES]}
            assert stands == {name: event[name] for name in stands}
            self.stands[account_id, subaccount] = event
        assert next(beside, None) is None
        self.readers[partition].follow(
            [(topic, record) for topic, part in applied for record in part],
            events=events,
            statuses=told(MARGIN_STATUS),
            rejects=told(REJECTS),
        )

    def _held(self, partition: int) -> set[str]:
        return {name for name in ACCOUNTS if self.place(name) == partition}

    def sums(self) -> Counter[str]:
        """Return micros and, by market, lots of all units and of the fund."""
        sums: Counter[str] = Counter()
        for partition in range(self.partitions):
            columns = self.margin(partition).columns
            for account in range(len(columns.account_ids)):
                for unit in columns.units_of(account):
                    sums["micros"] += dict(columns.balances_of(unit)).get(0, 0)
                    for index, lots, cost in columns.positions_of(unit):
                        sums[self.rulebook.instruments[index].name] += lots
                        sums["micros"] -= cost
        waterfall = self.prices._waterfall
        sums["micros"] += waterfall.fund_micros
        for market, (lots, cost) in waterfall.held.items():
            sums[market] += lots
            sums["micros"] -= self.rulebook.instrument_by_name[market].value_of(1, cost, 1)
        return sums


accounts = st.sampled_from(ACCOUNTS)
markets = st.sampled_from(["BTC-PERP", "BTC-PERP", "ETH-PERP"])
sizes = st.sampled_from(["0.5", "1", "2", "3.5"])
#: How far a price goes in a tick: mostly calm.
calm = st.sampled_from([0.97, 0.99, 1.0, 1.01, 1.03])
shocks = st.sampled_from([0.7, 0.8, 0.88, 0.93, 1.1, 1.25])
#: What a spoilt trade and fills that do not count are refused with; and nothing else is refused.
EXPECTED = {"SLV-104", "SLV-206", "SLV-207", "SLV-208", "SLV-209"}
FILLS = ("exact", "partial", "over", "wrong side", "wrong market", "late", "absurd", "repeated")


class Life(RuleBasedStateMachine):
    """A venue; each rule is something that happens to it."""

    kind: ClassVar[str]
    seen: ClassVar[Counter[tuple[str, str]]] = Counter()
    kinds: ClassVar[set[str]] = set()
    deaths = 0
    watermarks = 0

    @initialize(
        partitions=st.integers(1, 3),
        is_prompt=st.sampled_from([True, True, False]),
    )
    def begin(self, partitions: int, is_prompt: bool) -> None:
        kind = self.kind
        self.is_prompt = is_prompt
        has_window = "window" in KINDS[kind][0]
        self.venue = Venue(a_rulebook(kind), partitions, WINDOW if has_window else None)
        self.version = 1
        self.made = 0
        self.outside: Counter[str] = Counter()
        if "insurance" in KINDS[kind][1]:
            self.outside["micros"] = OPENING
        self.prices = {"BTC": 100.0, "ETH": 100.0}
        self.fills: list[tuple[str, bytes]] = []
        self.spoiled: set[str] = set()
        for name in ACCOUNTS:
            self.pay(name, 100, "cross")
        self.tick(1.0, 1.0, 1.0)
        for buyer, seller in zip(ACCOUNTS[::2], ACCOUNTS[1::2], strict=True):
            self.trade(buyer, seller, "BTC-PERP", "2", "cross")
            self.trade(buyer, seller, "ETH-PERP", "2", "cross")
        self.settle()

    # -- what venues, sources and operators tell

    def _append(self, topic: str, key: str, value: bytes) -> None:
        partition = self.venue.place(key) if key in ACCOUNTS else 0
        self.venue._append(topic, partition, key.encode(), value)

    def _next(self) -> int:
        self.made += 1
        return self.made

    def _trade(
        self, account_id: str, market: str, side: str, size: Decimal, price: Decimal, **more: Any
    ) -> None:
        value = encode_trade(
            trade_id=f"t{self._next()}",
            account_id=account_id,
            market=market,
            side=side,
            size=f"{size:f}",
            price=f"{price:f}",
            fee="0.01",
            **{"subaccount": "cross", "ts_us": self.venue.now_us, **more},
        )
        self._append(TRADES, account_id, value)
        lots = int(size / LOTS[market]) * (1 if side == "buy" else -1)
        self.outside[market] += lots
        self.outside["micros"] -= int(lots * LOTS[market] * price * MICRO) + MICRO // 100
        if "liquidation_id" in more:
            self.fills.append((account_id, value))

    def _on_tick(self, market: str, price: Decimal | float, *, up: bool = False) -> Decimal:
        steps = Decimal(str(price)) / TICKS[market]
        steps = steps.to_integral_value(ROUND_CEILING if up else ROUND_FLOOR)
        return max(Decimal(1), steps) * TICKS[market]

    @rule(buyer=accounts, seller=accounts, market=markets, size=sizes,
          book=st.sampled_from(["cross", "cross", "cross", "isolated"]))  # fmt: skip
    def trade(self, buyer: str, seller: str, market: str, size: str, book: str) -> None:
        if buyer == seller:
            return
        price = self._on_tick(market, self.prices[FEEDS[market]])
        subaccount = market if book == "isolated" else "cross"
        for name, side in ((buyer, "buy"), (seller, "sell")):
            self._trade(name, market, side, Decimal(size), price, subaccount=subaccount)

    @rule(account_id=accounts, amount=st.sampled_from([1, 5, 20, 60, -5, -20]),
          book=st.sampled_from(["cross", "cross", "BTC-PERP"]))  # fmt: skip
    def pay(self, account_id: str, amount: int, book: str) -> None:
        value = encode_collateral_move(
            move_id=f"m{self._next()}",
            account_id=account_id,
            subaccount=book,
            asset="USDC",
            kind="deposit" if amount > 0 else "withdrawal",
            amount=f"{abs(amount)}",
            ts_us=self.venue.now_us,
        )
        self._append(COLLATERAL, account_id, value)
        self.outside["micros"] += amount * MICRO

    @rule(which=st.integers(0, 9), amount=st.sampled_from([5, 40, 90]))
    def rescue(self, which: int, amount: int) -> None:
        """Pay in where a case stands."""
        if units := list(self.venue.stands):
            account_id, book = units[which % len(units)]
            self.pay(account_id, amount, book)

    def _told(self, **content: Any) -> None:
        record = {"schema_version": 1, **content, "ts_us": self.venue.now_us}
        self._append(ORACLE_TICKS, "ticks", orjson.dumps(record))

    @rule(btc=calm, eth=calm, after_s=st.sampled_from([0.3, 1.0, 1.0, 4.0]))
    def tick(self, btc: float, eth: float, after_s: float) -> None:
        self.venue.now_us += round(after_s * SECOND_US)
        self._told(kind="clock")  # a tick may not be far ahead of it
        for feed, change in (("BTC", btc), ("ETH", eth)):
            self.prices[feed] = min(400.0, max(15.0, self.prices[feed] * change))
            price = f"{self.prices[feed]:.2f}"
            self._told(kind="price", source="one", feed=feed, price=price)
        self._told(kind="clock")

    @rule(change=shocks, feed=st.sampled_from(["BTC", "BTC", "ETH"]))
    def shock(self, change: float, feed: str) -> None:
        self.tick(*(change if name == feed else 1.0 for name in ("BTC", "ETH")), 1.0)

    @rule(target_price=st.sampled_from([60.0, 100.0, 140.0]))
    def come_back(self, target_price: float) -> None:
        self.tick(target_price / self.prices["BTC"], 1.0, 2.0)

    @rule(feed=st.sampled_from(["BTC", "ETH"]))
    def fall_silent(self, feed: str) -> None:
        """Ticks of the other feed alone, for longer than a tick lives (10 s)."""
        other = "ETH" if feed == "BTC" else "BTC"
        for _ in range(2):
            self.venue.now_us += 6 * SECOND_US
            self._told(kind="clock")
            price = f"{self.prices[other]:.2f}"
            self._told(kind="price", source="one", feed=other, price=price)
            self._told(kind="clock")

    @rule(feed=st.sampled_from(["BTC", "ETH"]), share=st.sampled_from([0.7, 1.5]))
    def disagree(self, feed: str, share: float) -> None:
        self.venue.now_us += SECOND_US // 10
        self._told(kind="clock")
        price = f"{self.prices[feed] * share:.2f}"
        self._told(kind="price", source="two", feed=feed, price=price)

    @rule(action=st.sampled_from(["pause", "resume", "resume", "halt", "dry_run_on",
                                  "dry_run_off"]),
          market=st.sampled_from([None, "BTC-PERP", "ETH-PERP"]))  # fmt: skip
    def command(self, action: str, market: str | None) -> None:
        if action == "halt":
            market = market or "BTC-PERP"
        if action.startswith("dry_run"):
            market = None
        value = encode_control(
            command_id=f"c{self._next()}",
            action=action,
            market=market,
            operator="desk",
            reason="drill",
            ts_us=self.venue.now_us,
        )
        self._append(CONTROL, "desk", value)

    @rule(rate_ppm=st.sampled_from([50_000, 125_000, 200_000]))
    def publish(self, rate_ppm: int) -> None:
        self.version += 1
        rulebook = a_rulebook(self.kind, self.version, rate_ppm)
        value = encode_rulebook(source="desk", rulebook=rulebook.document, ts_us=self.venue.now_us)
        self._append(ORACLE_TICKS, "rulebook", value)

    @rule()
    def all_clear(self) -> None:
        """Sources agree, nobody is paused, no account in doubt."""
        self.venue.now_us += SECOND_US // 10
        self._told(kind="clock")
        for feed, price in self.prices.items():
            self._told(kind="price", source="two", feed=feed, price=f"{price:.2f}")
        self.tick(1.0, 1.0, 0.3)
        for action, market in (("resume", None), ("resume", "BTC-PERP"), ("resume", "ETH-PERP"),
                               ("dry_run_off", None)):  # fmt: skip
            self.command(action, market)
        while self.spoiled:
            self.heal()

    # -- what executors do

    @rule(how=st.sampled_from(["exact", "exact", "partial"]), which=st.integers(0, 20))
    def fill_well(self, how: str, which: int) -> None:
        """Answer a current offer at its mark."""
        self.fill(how, 2 * which, is_current=True)

    @rule(
        how=st.sampled_from(FILLS),
        which=st.integers(0, 20),
        is_current=st.sampled_from([True, True, False]),
    )
    def fill(self, how: str, which: int, *, is_current: bool) -> None:
        if is_current:
            self.all_clear()
            self.settle()
            for _ in range(3):
                if any(event["legs"] for event in self.venue.stands.values()):
                    break
                self.shock(0.9, "BTC" if which % 3 else "ETH")
                self.settle()
        if how == "repeated":
            if self.fills:
                account_id, value = self.fills[which % len(self.fills)]
                self._append(TRADES, account_id, value)
            return
        offers = [event for event in self.venue.stands.values() if event["legs"]]
        if not offers:
            return
        solvent = [event for event in offers if event["verdict"] == "liquidatable"]
        event = (solvent or offers)[which % len(solvent or offers)]
        leg = event["legs"][which % len(event["legs"])]
        market, side, size = leg["market"], leg["side"], Decimal(leg["size"])
        price, ts_us = Decimal(leg["mark_price"]), max(event["ts_us"], self.venue.now_us)
        if how == "partial":
            size = max(LOTS[market], size // 2 // LOTS[market] * LOTS[market])
        elif how == "over":
            size += LOTS[market]
        elif how == "wrong side":
            side = "buy" if side == "sell" else "sell"
        elif how == "wrong market" and event["subaccount"] == "cross":
            market = "ETH-PERP" if market == "BTC-PERP" else "BTC-PERP"
            size = LOTS[market]
        elif how == "late":
            ts_us = event["expires_us"] + 1
        elif how == "absurd":
            price = Decimal(1) if side == "sell" else price * 3
        else:
            price = Decimal(leg["limit_price"]) if which % 2 else price
        self._trade(
            *(event["account_id"], market, side, size),
            self._on_tick(market, price, up=side == "sell"),
            subaccount=event["subaccount"],
            liquidation_id=event["liquidation_id"],
            ts_us=ts_us,
        )

    @rule(account_id=accounts, named=st.sampled_from(["old", "coming", "another's"]),
          side=st.sampled_from(["buy", "sell"]))  # fmt: skip
    def fill_of_no_standing_case(self, account_id: str, named: str, side: str) -> None:
        ended = [case for reader in self.venue.readers for case in reader.ended]
        name = f"{account_id}:cross:9"
        if named == "old" and ended:
            account_id, name = ended[-1]["account_id"], ended[-1]["liquidation_id"]
        elif named == "another's":
            name = f"{ACCOUNTS[0] if account_id != ACCOUNTS[0] else ACCOUNTS[1]}:cross:1"
        price = self._on_tick("BTC-PERP", self.prices["BTC"])
        subaccount = name.split(":")[1] if named == "old" else "cross"
        size = LOTS["BTC-PERP"]
        more = {"subaccount": subaccount, "liquidation_id": name}
        market = "BTC-PERP" if subaccount == "cross" else subaccount
        price = self._on_tick(market, self.prices[FEEDS[market]])
        self._trade(account_id, market, side, size, price, **more)

    # -- bad input, and its end

    @rule(account_id=accounts)
    def spoil(self, account_id: str) -> None:
        """A trade off its step quarantines its account."""
        value = encode_trade(
            trade_id=f"t{self._next()}", account_id=account_id, subaccount="cross",
            market="BTC-PERP", side="buy", size="0.3", price="100", fee="0",
            ts_us=self.venue.now_us,
        )  # fmt: skip
        self._append(TRADES, account_id, value)
        self.spoiled.add(account_id)

    @precondition(lambda self: self.spoiled)
    @rule()
    def heal(self) -> None:
        """State the account as it is: its quarantine ends."""
        self.settle()
        account_id = min(self.spoiled)
        self.spoiled.remove(account_id)
        told = self.venue.margin(self.venue.place(account_id)).describe(account_id)
        for value in snapshots_of(told, "trader"):
            content = json.loads(value)
            content["snapshot_id"] = f"s{self._next()}"
            self._append(ACCOUNT_SNAPSHOTS, account_id, orjson.dumps(content))
        self.settle()

    # -- work

    @rule(who=st.integers(0, 3), most=st.sampled_from([1, 2, 5, 50]), first=st.integers(0, 3),
          then=st.sampled_from(["goes on", "goes on", "restored", "dies", "dies"]))  # fmt: skip
    def work(self, who: int, most: int, first: int, then: str) -> None:
        shard = PRICES if who == 3 else who % self.venue.partitions
        self.venue.step(shard, most, first, dies=then == "dies")
        if then == "restored":
            self.venue.restore(shard)
        Life.deaths += then != "goes on"

    @invariant()
    def keep_up(self) -> None:
        """Where work is prompt, all is read after each step; now and then somebody dies."""
        if not self.is_prompt:
            return
        for who in (PRICES, *range(self.venue.partitions)):
            dies = self.made % 4 == 0
            self.venue.step(who, 3, self.made, dies=dies)
            Life.deaths += dies
        self.settle()

    @rule()
    def settle(self) -> None:
        self.venue.settle()
        self.agree()

    def agree(self) -> None:
        """When all is read, all agree."""
        venue = self.venue
        cases = {unit: case.event for r in venue.readers for unit, case in r.cases.items()}
        assert cases == venue.stands
        log: dict[bytes, bytes | None] = {}
        for (topic, _), records in venue.logs.items():
            if topic == LIQUIDATION_STATE:
                log |= {r.key: r.value for r in records if r.key != WATERMARK_KEY}
        left = {key for key, value in log.items() if value is not None}
        assert left == {f"{a}:{s}".encode() for a, s in cases}
        sums = venue.sums()
        assert sums == self.outside, f"{sums - self.outside}, {self.outside - sums} missing"
        refused = [
            each["message"] for each in venue.events(REJECTS) if each["code"] not in EXPECTED
        ]
        assert not refused, refused

    def teardown(self) -> None:
        if not hasattr(self, "venue"):
            return
        self.settle()
        for reader in self.venue.readers:
            Life.seen.update(reader.seen)
        Life.watermarks += self.venue.watermarks
        frames = self.venue.events(MARKS)
        Life.seen["breakers", ""] += sum(
            bool(frame.get("pauses", {}).get("breakers")) for frame in frames
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_life_of_a_case_keeps_to_the_rules(kind: str) -> None:
    """Histories of up to 60 steps; a failure prints its own. Shrinking one would take minutes."""
    plan = settings(
        max_examples=35,
        stateful_step_count=60,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    of_kind = seed(list(KINDS).index(kind))(type("LifeOfAKind", (Life,), {"kind": kind}))
    run_state_machine_as_test(of_kind, settings=plan)
    Life.kinds.add(kind)


def test_histories_reach_every_stage() -> None:
    if Life.kinds != set(KINDS):
        pytest.skip("only some of the histories were played")
    assert set(REACHED) <= Life.seen.keys(), set(REACHED) - Life.seen.keys()
    assert Life.deaths > 1_000
    assert Life.watermarks > 1_000
