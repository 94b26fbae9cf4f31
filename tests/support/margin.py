"""Builders for tests of the margin shard: a small rulebook, records, and a log that is replayed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson

from solvent.engine.margin import MarginShard, warm_up
from solvent.engine.run import Run
from solvent.engine.shard import Emit, Outputs
from solvent.rules import CompiledRulebook, parse_rulebook
from solvent.wire.inputs import encode_collateral_move, encode_trade
from solvent.wire.topics import (
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    COLLATERAL,
    LIQUIDATION_REPORTS,
    MARKS,
    OPEN_ORDERS,
    TRADES,
)
from support.fold import Fold, FoldRules

__all__ = [
    "SECOND_US",
    "Log",
    "Record",
    "Replay",
    "a_fold",
    "a_move",
    "a_rulebook",
    "a_rulebook_with_states",
    "a_shard",
    "a_snapshot",
    "a_successor",
    "a_trade",
    "ledger_of",
    "ledger_of_fold",
    "marks_of",
    "merged",
    "orders_in",
    "rates_of",
    "settings_of",
    "snapshots_of",
    "standing_of",
    "standing_of_fold",
]

SECOND_US = 1_000_000
#: Broker time of every record unless said otherwise, milliseconds.
NOW_MS = 1_700_000_000_000
NOW_US = NOW_MS * 1000

# Maintenance 1/8, liquidation end 3/16, initial 1/4: exact in binary. A lot and tick of ODD-PERP
# is a tenth of a micro, so its fills round. The rates of class careful are twice those of trader.
_RULEBOOK = """
rulebook: {id: tests, version: 1, effective_at_us: 0, settlement_asset: USDC}
limits: {max_future_us: 300000000}
feeds:
  BTC: {exponent: -2}
  ETH: {exponent: -2}
  ODD: {exponent: -6}
assets:
  USDC: {quantum_exponent: -6, borrowable: true}
  ETHER: {quantum_exponent: -8, index_feed: ETH, borrowable: false}
  JUNK: {quantum_exponent: -2, index_feed: ODD, borrowable: false}
instruments:
  BTC-PERP: {id: 7, lot: "0.5", tick: "0.5", mark_feed: BTC, settles_in: USDC}
  ETH-PERP: {id: 3, lot: "0.01", tick: "0.01", mark_feed: ETH, settles_in: USDC}
  ODD-PERP: {id: 12, lot: "0.001", tick: "0.0001", mark_feed: ODD, settles_in: USDC}
presets:
  cross-margin:
    collateral:
      USDC: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
      ETHER: {initial_haircut_ppm: 250000, maintenance_haircut_ppm: 125000}
    pnl: {kind: full}
    requirement:
      sum:
        - term: flat
          markets:
            BTC-PERP: &rates
              initial_rate_ppm: 250000
              liquidation_end_rate_ppm: 187500
              maintenance_rate_ppm: 125000
            ETH-PERP: *rates
            ODD-PERP: *rates
    margin_call: {clear_ppm: 10000}
    liquidation: &liquidation
      end: {buffer_ppm: 10000}
      sizing: shortage
      liquidator_fee_ppm: 10000
      fund_fee_max_ppm: 5000
      fillable: {spread_ppm: 1500000, adjustment_ppm: 1000000}
      dust_micros: 0
      offer_ttl_us: 60000000
  strict:
    collateral:
      USDC: {initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}
    pnl: {kind: full}
    requirement:
      sum:
        - term: flat
          markets:
            BTC-PERP: &twice
              initial_rate_ppm: 500000
              liquidation_end_rate_ppm: 375000
              maintenance_rate_ppm: 250000
            ETH-PERP: *twice
            ODD-PERP: *twice
    margin_call: {clear_ppm: 10000}
    liquidation: *liquidation
bindings: {trader: cross-margin, careful: strict}
default_class: trader
oracle:
  default:
    max_age_us: 10000000
    max_conf_ppm: 10000
    min_sources: 1
    quorum_ppm: 500000
    band_ppm: 50000
    max_skew_us: 1000000
    grace_us: 5000000
"""


@cache
def a_rulebook() -> CompiledRulebook:
    """Return the rulebook of these tests; kernels are compiled by then."""
    warm_up()
    return parse_rulebook(_RULEBOOK)


@cache
def a_rulebook_with_states() -> CompiledRulebook:
    """Return the rulebook of these tests with two state feeds, ``SKEW`` (0.1) and ``RATE``."""
    model = a_rulebook().model.model_dump(mode="json", exclude_none=True)
    model["feeds"]["SKEW"] = {"exponent": -1, "kind": "state"}
    model["feeds"]["RATE"] = {"exponent": -18, "kind": "state"}
    return parse_rulebook(json.dumps(model))


def a_successor(version: int = 2, **sections: Any) -> CompiledRulebook:
    """Return a later version of `a_rulebook`: sections merged in, key by key, null removing one."""
    document = json.loads(a_rulebook().document)
    document["rulebook"]["version"] = version
    return parse_rulebook(json.dumps(merged(document, sections)))


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` put into it, mappings key by key; null removes a key."""
    result = dict(base)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = merged(base[key], value)
        else:
            result[key] = value
    return result


def rates_of(rate_ppm: int) -> dict[str, Any]:
    """Return presets whose cross-margin class needs this maintenance rate, twice it at first."""
    rates = {"initial_rate_ppm": 2 * rate_ppm, "maintenance_rate_ppm": rate_ppm}
    rates["liquidation_end_rate_ppm"] = rate_ppm * 3 // 2
    markets = dict.fromkeys(("BTC-PERP", "ETH-PERP", "ODD-PERP"), rates)
    return {"cross-margin": {"requirement": {"sum": [{"term": "flat", "markets": markets}]}}}


@dataclass(frozen=True, slots=True)
class Record:
    """One input record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def a_shard() -> MarginShard:
    """Return an empty shard of partition 0."""
    return MarginShard(0, a_rulebook())


def a_fold() -> Fold:
    """Return an empty independent fold under the same rulebook."""
    return Fold(FoldRules.of(a_rulebook().model))


def a_trade(trade_id: str, account_id: str = "alice", **changes: Any) -> bytes:
    """Return a trade: alice buys 1 BTC at 100 without a fee, unless changed."""
    content: dict[str, Any] = {
        "trade_id": trade_id,
        "account_id": account_id,
        "subaccount": "cross",
        "market": "BTC-PERP",
        "side": "buy",
        "size": "1",
        "price": "100",
        "fee": "0",
        "ts_us": NOW_US,
    }
    return encode_trade(**content | changes)


def a_move(move_id: str, account_id: str = "alice", **changes: Any) -> bytes:
    """Return a move: alice deposits 100 USDC, unless changed."""
    content: dict[str, Any] = {
        "move_id": move_id,
        "account_id": account_id,
        "subaccount": "cross",
        "asset": "USDC",
        "kind": "deposit",
        "amount": "100",
        "ts_us": NOW_US,
    }
    return encode_collateral_move(**content | changes)


def settings_of(account_id: str = "alice", **changes: Any) -> bytes:
    """Return settings: alice is a trader without limits of her own, unless changed."""
    content = {"schema_version": 1, "account_id": account_id, "account_class": "trader"}
    return orjson.dumps(content | {"ts_us": NOW_US} | changes)


def orders_in(market: str = "BTC-PERP", account_id: str = "alice", **changes: Any) -> bytes:
    """Return open orders: alice bids for 1 coin at 90 in her cross book, unless changed."""
    content = {
        "schema_version": 1,
        "account_id": account_id,
        "subaccount": "cross",
        "market": market,
        "bid_size": "1",
        "bid_value": "90",
        "ask_size": "0",
        "ask_value": "0",
        "count": 1,
        "ts_us": NOW_US,
    }
    return orjson.dumps(content | changes)


def a_snapshot(snapshot_id: str, account_id: str = "alice", **changes: Any) -> bytes:
    """Return a snapshot: alice has 100 USDC in her cross book and nothing else, unless changed."""
    content = {
        "schema_version": 1,
        "snapshot_id": snapshot_id,
        "account_id": account_id,
        "subaccount": "cross",
        "collateral": {"USDC": "100"},
        "positions": [],
        "ts_us": NOW_US,
    }
    return orjson.dumps(content | changes)


def snapshots_of(account: dict[str, Any], account_class: str) -> list[bytes]:
    """Return a snapshot of each unit of an account, from what `MarginShard.describe` says of it."""
    limits: dict[str, str] = {}
    for unit in account["units"]:
        limits |= {o["market"]: o["leverage"] for o in unit["orders"] if o["leverage"]}
    seqs = ("trades_seq", "collateral_seq", "settings_seq", "orders_seq")
    sides = ("market", "bid_size", "bid_value", "ask_size", "ask_value", "count")
    return [
        a_snapshot(
            f"s-{unit['subaccount']}",
            account["account_id"],
            subaccount=unit["subaccount"],
            account_class=account_class,
            leverage=limits,
            collateral={c["asset"]: c["amount"] for c in unit["collateral"]},
            positions=[
                {name: p[name] for name in ("market", "size", "cost_basis")}
                for p in unit["positions"]
            ],
            orders=[{name: o[name] for name in sides} for o in unit["orders"]],
            **{name: account[name] for name in seqs if account[name] is not None},
        )
        for unit in account["units"]
    ]


def marks_of(
    seq: int,
    ts_us: int,
    prices: dict[str, str],
    *,
    values: dict[str, str] | None = None,
    state: str = "valid",
    since_us: int = 0,
) -> bytes:
    """Return a mark frame that sets some feeds, state feeds by `values`."""
    numbers = [(feed, {"price": price}) for feed, price in prices.items()]
    numbers += [(feed, {"price": None, "value": text}) for feed, text in (values or {}).items()]
    marks = [
        {"feed": feed, **number, "state": state, "since_us": since_us, "sources": 1}
        for feed, number in numbers
    ]
    frame = {"schema_version": 1, "kind": "marks", "seq": seq, "ts_us": ts_us, "marks": marks}
    return orjson.dumps(frame)


@dataclass
class Log:
    """A log of all inputs in one order; builders append and return the log."""

    entries: list[tuple[str, Record]] = field(default_factory=list)
    marks_seq: int = 0

    def add(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = b"alice",
        timestamp_ms: int = NOW_MS,
    ) -> Log:
        """Append a record at the topic's next offset."""
        offset = sum(1 for known, _ in self.entries if known == topic)
        self.entries.append((topic, Record(offset, timestamp_ms, key, value)))
        return self

    def trade(self, account_id: str = "alice", **changes: Any) -> Log:
        """Append a trade with an id of its own."""
        name = f"t{len(self.entries)}"
        return self.add(TRADES, a_trade(name, account_id, **changes), account_id.encode())

    def move(self, account_id: str = "alice", **changes: Any) -> Log:
        """Append a collateral move with an id of its own."""
        name = f"m{len(self.entries)}"
        return self.add(COLLATERAL, a_move(name, account_id, **changes), account_id.encode())

    def settings(self, account_id: str = "alice", **changes: Any) -> Log:
        """Append settings."""
        return self.add(ACCOUNT_SETTINGS, settings_of(account_id, **changes), account_id.encode())

    def orders(self, account_id: str = "alice", **changes: Any) -> Log:
        """Append open orders."""
        market = changes.pop("market", "BTC-PERP")
        value = orders_in(market, account_id, **changes)
        return self.add(OPEN_ORDERS, value, account_id.encode())

    def snapshot(self, account_id: str = "alice", **changes: Any) -> Log:
        """Append a snapshot with an id of its own."""
        value = a_snapshot(f"s{len(self.entries)}", account_id, **changes)
        return self.add(ACCOUNT_SNAPSHOTS, value, account_id.encode())

    def report(self, kind: str, account_id: str = "alice", at_s: int = 0, **changes: Any) -> Log:
        """Append a report of executor north with an id of its own, about the first case."""
        content = {
            "schema_version": 1,
            "kind": kind,
            "report_id": f"r{len(self.entries)}",
            "account_id": account_id,
            "liquidation_id": f"{account_id}:cross:1",
            "executor_id": "north",
            "ts_us": NOW_US + at_s * SECOND_US,
        }
        return self.add(LIQUIDATION_REPORTS, orjson.dumps(content | changes), account_id.encode())

    def claim(self, revision: int, account_id: str = "alice", **changes: Any) -> Log:
        """Append a claim of all of a revision, unless changed."""
        asked = {"revision": revision, "share_ppm": 1_000_000} | changes
        return self.report("claim", account_id, **asked)

    def marks(
        self,
        prices: dict[str, str],
        *,
        values: dict[str, str] | None = None,
        at_s: int = 0,
        state: str = "valid",
        since_s: int = 0,
    ) -> Log:
        """Append the next mark frame; times in seconds of the stream, 0 for never."""
        self.marks_seq += 1
        since_us = NOW_US + since_s * SECOND_US if since_s else 0
        ts_us = NOW_US + at_s * SECOND_US
        frame = marks_of(
            self.marks_seq, ts_us, prices, values=values, state=state, since_us=since_us
        )
        return self.add(MARKS, frame, b"marks")

    def rulebook(self, rulebook: CompiledRulebook, *, at_s: int = 0) -> Log:
        """Append the frame that publishes a rulebook."""
        self.marks_seq += 1
        frame = {"schema_version": 1, "kind": "marks", "seq": self.marks_seq, "marks": []}
        document = orjson.loads(rulebook.document)
        value = frame | {"ts_us": NOW_US + at_s * SECOND_US, "rulebook": document}
        return self.add(MARKS, orjson.dumps(value), b"marks")

    def pauses(
        self,
        *markets: str,
        everywhere: bool = False,
        halted: Sequence[str] = (),
        breakers: Sequence[str | None] = (),
        dry_run: bool = False,
        at_s: int = 0,
    ) -> Log:
        """Append the frame that tells all pauses in force; breakers by market, None for all."""
        self.marks_seq += 1
        frame = {"schema_version": 1, "kind": "marks", "seq": self.marks_seq, "marks": []}
        told: dict[str, Any] = {"all": everywhere, "markets": list(markets)}
        if halted:
            told["halted"] = list(halted)
        if breakers:
            told["breakers"] = [
                {"name": "crash", "since_us": NOW_US} | ({"market": market} if market else {})
                for market in breakers
            ]
        if dry_run:
            told["dry_run"] = True
        value = frame | {"ts_us": NOW_US + at_s * SECOND_US, "pauses": told}
        return self.add(MARKS, orjson.dumps(value), b"marks")

    def losses(self, *answers: dict[str, Any], at_s: int = 0) -> Log:
        """Append a frame in which the fund answers."""
        self.marks_seq += 1
        frame = {"schema_version": 1, "kind": "marks", "seq": self.marks_seq, "marks": []}
        value = frame | {"ts_us": NOW_US + at_s * SECOND_US, "losses": list(answers)}
        return self.add(MARKS, orjson.dumps(value), b"marks")

    def runs(self, longest: int) -> Iterator[tuple[str, list[Record]]]:
        """Yield the log as runs of one topic, none longer than said."""
        run: list[Record] = []
        topic = ""
        for name, record in self.entries:
            if run and (name != topic or len(run) == longest):
                yield topic, run
                run = []
            topic = name
            run.append(record)
        if run:
            yield topic, run


@dataclass
class Replay:
    """A shard and all it wrote so far: the table by key, the records in order."""

    shard: MarginShard = field(default_factory=a_shard)
    table: dict[bytes, bytes] = field(default_factory=dict)
    records: list[Emit] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, Record]] = field(default_factory=list)

    def apply(self, topic: str, records: Sequence[Record]) -> None:
        """Apply a run."""
        self.shard.apply(topic, records)
        self.seen.extend((topic, record) for record in records)

    def cut(self) -> Outputs:
        """Cut a slice, keep what it brought as the broker would, and return it."""
        outputs = self.shard.cut()
        for key, value in outputs.rows:
            self.table.pop(key, None)  # a changelog keeps the last of a key, at its last place
            if value is not None:
                self.table[key] = value
        self.records.extend(outputs.records)
        self.state = orjson.loads(orjson.dumps(outputs.state))
        return outputs

    def restore(self, rulebook: CompiledRulebook | None = None) -> None:
        """Go on with a new shard, restored as a new owner of the partition would.

        It was started with `rulebook`, or with the one now in force.
        """
        self.shard = MarginShard(0, rulebook or self.shard.rulebook)
        self.shard.load(Run.of([Record(0, 0, key, value) for key, value in self.table.items()]))
        self.shard.resume({}, self.state)
        for topic in self.shard.lookback:
            self.shard.remember(topic, [r for name, r in self.seen if name == topic])

    def run(self, log: Log, *, longest: int = 1_000_000) -> Replay:
        """Apply a log and cut once at the end."""
        for topic, records in log.runs(longest):
            self.apply(topic, records)
        self.cut()
        return self

    def events(self, topic: str) -> list[dict[str, Any]]:
        """Return the values of the records of one output topic."""
        return [orjson.loads(emit.value) for emit in self.records if emit.topic == topic]


def ledger_of(shard: MarginShard) -> dict[str, Any]:
    """Return the ledger of a shard in a form that compares with `ledger_of_fold`."""
    columns, rulebook = shard.columns, shard.rulebook
    ledger = {}
    for index, account_id in enumerate(columns.account_ids):
        accounts = columns.accounts
        sequences = [int(accounts.trades_seq[index]), int(accounts.collateral_seq[index])]
        books = {}
        for unit in columns.units_of(index):
            book = int(columns.units.book[unit])
            positions = {
                rulebook.instruments[i].name: (size, cost)
                for i, size, cost in columns.positions_of(unit)
            }
            balances = {rulebook.assets[a].name: quanta for a, quanta in columns.balances_of(unit)}
            name = "cross" if book < 0 else rulebook.instruments[book].name
            books[name] = (positions, balances)
        ledger[account_id] = (
            [None if seq < 0 else seq for seq in sequences],
            bool(accounts.quarantined[index]),
            books,
        )
    return ledger


def ledger_of_fold(fold: Fold) -> dict[str, Any]:
    """Return the ledger of an independent fold."""
    return {
        account_id: (
            [account.trades_seq, account.collateral_seq],
            account.quarantined,
            {name: (book.positions, book.balances) for name, book in account.books.items()},
        )
        for account_id, account in fold.accounts.items()
    }


def standing_of(shard: MarginShard) -> dict[str, Any]:
    """Return presets, orders and limits of a shard in a form that compares with `standing_of_fold`.

    By account: sequences of settings and orders, preset, and by unit and market (bid lots, bid
    micros, ask lots, ask micros, count, leverage ppm).
    """
    columns, rulebook = shard.columns, shard.rulebook
    standing = {}
    for index, account_id in enumerate(columns.account_ids):
        accounts, units = columns.accounts, columns.units
        sequences = [int(accounts.settings_seq[index]), int(accounts.orders_seq[index])]
        presets = {int(accounts.preset[index])}
        books = {}
        for unit in columns.units_of(index):
            presets.add(int(units.preset[unit]))
            book = int(units.book[unit])
            books["cross" if book < 0 else rulebook.instruments[book].name] = {
                rulebook.instruments[o.instrument].name: (
                    *(o.bid_lots, o.bid_value_micros, o.ask_lots, o.ask_value_micros),
                    *(o.order_count, o.leverage_ppm),
                )
                for o in columns.orders_of(unit)
            }
        (preset,) = presets
        standing[account_id] = (
            [None if seq < 0 else seq for seq in sequences],
            rulebook.policies[preset].name,
            books,
        )
    return standing


def standing_of_fold(fold: Fold) -> dict[str, Any]:
    """Return the same of an independent fold."""
    return {
        account_id: (
            [account.settings_seq, account.orders_seq],
            fold.rules.presets[account.account_class or fold.rules.default_class],
            {
                name: {
                    market: (
                        *book.orders.get(market, (0, 0, 0, 0, 0)),
                        account.leverage.get(market, 0),
                    )
                    for market in fold.rules.markets
                    if market in book.orders
                    or (market in account.leverage and name in {"cross", market})
                }
                for name, book in account.books.items()
            },
        )
        for account_id, account in fold.accounts.items()
    }


def fold_log(log: Log | Iterable[tuple[str, Record]]) -> Fold:
    """Return the independent fold of a log."""
    fold = a_fold()
    for topic, record in log.entries if isinstance(log, Log) else log:
        fold.take(topic, record.offset, record.timestamp, record.key, record.value)
    return fold
