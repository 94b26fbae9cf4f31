"""Ticks, clocks and a price shard for tests: valid by default, a case names only what matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from solvent.engine.prices import PriceShard
from solvent.engine.shard import Emit, Outputs
from solvent.engine.waterfall import loss_record
from solvent.rules import CompiledRulebook, compile_document, load_rulebook
from solvent.wire.inputs import (
    encode_clock,
    encode_control,
    encode_rulebook,
    encode_settlement,
    encode_state,
    encode_tick,
)
from solvent.wire.topics import CONTROL, LOSSES, MARKS, ORACLE_TICKS, REJECTS

SECOND = 1_000_000
#: Where the tests' time begins: a whole second, so broker time (ms) is exact.
START_US = 1_700_000_000 * SECOND

RULEBOOK = """
rulebook: {{id: prices, version: 1, effective_at_us: 0, settlement_asset: USDC}}
limits: {{max_future_us: 300000000}}
feeds:
  BTC-PERP: {{exponent: -2}}
  ETH-PERP: {{exponent: -2}}
  BTC-PERP/oi: {{exponent: -1, kind: state}}
assets:
  USDC: {{quantum_exponent: -6, borrowable: true}}
instruments:
  BTC-PERP: {{id: 1, lot: "0.0001", tick: "0.1", mark_feed: BTC-PERP, settles_in: USDC}}
  BTC-DATED:
    id: 2
    lot: "0.0001"
    tick: "0.1"
    mark_feed: BTC-PERP
    settles_in: USDC
    expires_at_us: 1700000100000000
presets:
  cross-margin:
    collateral: {{USDC: {{initial_haircut_ppm: 0, maintenance_haircut_ppm: 0}}}}
    pnl: {{kind: full}}
    requirement:
      sum:
        - term: flat
          markets:
            BTC-PERP: &rates {{initial_rate_ppm: 50000, maintenance_rate_ppm: 25000}}
            BTC-DATED: *rates
    margin_call: {{clear_ppm: 10000}}
    liquidation:
      end: {{buffer_ppm: 10000}}
      sizing: shortage
      liquidator_fee_ppm: 10000
      fund_fee_max_ppm: 5000
      fillable: {{spread_ppm: 1500000, adjustment_ppm: 1000000}}
      dust_micros: 10000000
      offer_ttl_us: 60000000
bindings: {{trader: cross-margin}}
default_class: trader
oracle:
  default:
    max_age_us: {max_age_us}
    max_conf_ppm: {max_conf_ppm}
    min_sources: {min_sources}
    quorum_ppm: {quorum_ppm}
    band_ppm: {band_ppm}
    max_skew_us: {max_skew_us}
    grace_us: 0
  state: {{max_age_us: {state_age_us}}}
"""


def a_rulebook(**policy: int) -> CompiledRulebook:
    """Return two price feeds at exponent -2 under one oracle policy, and a state feed at -1."""
    defaults = {
        "max_age_us": 10 * SECOND,
        "max_conf_ppm": 10_000,
        "min_sources": 1,
        "quorum_ppm": 600_000,
        "band_ppm": 20_000,
        "max_skew_us": 5 * SECOND,
        "state_age_us": 100 * SECOND,
    }
    return load_rulebook(RULEBOOK.format(**{**defaults, **policy}))


def a_successor(version: int = 2, *, old: str = "", new: str = "") -> CompiledRulebook:
    """Return a later version of `a_rulebook`; the first such text of its document replaced."""
    text = a_rulebook().document.decode()
    assert old in text
    text = text.replace('"version":1,', f'"version":{version},', 1).replace(old, new, 1)
    return compile_document(text.encode())


@dataclass(frozen=True)
class Record:
    """An input record as the shard sees it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass
class Feeder:
    """Feed records to a shard, counting offsets; broker time equals event time unless told."""

    shard: PriceShard
    offset: int = 0
    commands: int = 0
    losses: int = 0

    def raw(self, value: bytes | None, *, broker_us: int = START_US) -> None:
        """Apply one record as it is."""
        record = Record(self.offset, broker_us // 1000, b"key", value)
        self.offset += 1
        self.shard.apply(ORACLE_TICKS, [record])

    def tick(
        self,
        price: str,
        *,
        at: float = 0.0,
        source: str = "a",
        feed: str = "BTC-PERP",
        confidence: str | None = None,
    ) -> None:
        """Apply one tick `at` seconds after the start."""
        ts_us = START_US + round(at * SECOND)
        value = encode_tick(
            source=source, feed=feed, price=price, confidence=confidence, ts_us=ts_us
        )
        self.raw(value, broker_us=ts_us + SECOND)

    def state(
        self, value: str, *, at: float = 0.0, source: str = "venue", feed: str = "BTC-PERP/oi"
    ) -> None:
        """Apply one word about a state feed `at` seconds after the start."""
        ts_us = START_US + round(at * SECOND)
        record = encode_state(source=source, feed=feed, value=value, ts_us=ts_us)
        self.raw(record, broker_us=ts_us + SECOND)

    def settlement(
        self, price: str, *, at: float = 100.0, source: str = "venue", market: str = "BTC-DATED"
    ) -> None:
        """Apply a settlement `at` seconds after the start; BTC-DATED expires at 100."""
        ts_us = START_US + round(at * SECOND)
        record = encode_settlement(source=source, market=market, price=price, ts_us=ts_us)
        self.raw(record, broker_us=ts_us + SECOND)

    def rulebook(
        self, rulebook: CompiledRulebook | bytes, *, at: float = 0.0, source: str = "desk"
    ) -> None:
        """Publish a rulebook, or what somebody takes for one, `at` seconds after the start."""
        ts_us = START_US + round(at * SECOND)
        document = rulebook if isinstance(rulebook, bytes) else rulebook.document
        record = encode_rulebook(source=source, rulebook=document, ts_us=ts_us)
        self.raw(record, broker_us=ts_us + SECOND)

    def command(
        self,
        action: str,
        market: str | None = None,
        *,
        at: float = 0.0,
        command_id: str | None = None,
    ) -> None:
        """Order a pause or its end `at` seconds after the start."""
        ts_us = START_US + round(at * SECOND)
        value = encode_control(
            command_id=command_id or f"c-{self.commands}",
            action=action,
            market=market,
            operator="desk",
            reason="drill",
            ts_us=ts_us,
        )
        self.raw_command(value, broker_us=ts_us + SECOND)

    def raw_command(self, value: bytes | None, *, broker_us: int = START_US) -> None:
        """Apply one record of ``control.v1`` as it is."""
        record = Record(self.commands, broker_us // 1000, None, value)
        self.commands += 1
        self.shard.apply(CONTROL, [record])

    def loss(self, kind: str, *, at: float = 0.0, partition: int = 0, **members: Any) -> None:
        """Apply a word of a margin shard about what it liquidated or lost."""
        ts_us = START_US + round(at * SECOND)
        emit = loss_record(partition, ts_us, kind, **members)
        record = Record(self.losses, ts_us // 1000, emit.key, emit.value)
        self.losses += 1
        self.shard.apply(LOSSES, [record])

    def liquidated(self, at: float = 0.0, *, partition: int = 0, **usd: int) -> None:
        """Tell what was liquidated, dollars by market (``BTC`` is BTC-PERP)."""
        markets = [(f"{name}-PERP", amount * SECOND) for name, amount in sorted(usd.items())]
        self.loss("liquidated", at=at, partition=partition, markets=markets)

    def claim(self, usd: int, *, at: float = 0.0) -> None:
        """Claim dollars of the insurance fund."""
        members = {"account_id": "alice", "subaccount": "cross", "amount_micros": usd * SECOND}
        self.loss("claim", at=at, liquidation_id="alice:cross:1", **members)

    def clock(self, at: float) -> None:
        """Apply one clock record."""
        ts_us = START_US + round(at * SECOND)
        self.raw(encode_clock(ts_us), broker_us=ts_us + SECOND)

    def cut(self) -> Cut:
        """Cut a slice."""
        return Cut(self.shard.cut())


@dataclass(frozen=True)
class Cut:
    """A slice's outputs, decoded."""

    outputs: Outputs

    def _of(self, topic: str) -> list[Emit]:
        return [emit for emit in self.outputs.records if emit.topic == topic]

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Mark frames."""
        return [orjson.loads(emit.value) for emit in self._of(MARKS)]

    @property
    def rejects(self) -> list[dict[str, Any]]:
        """Rejected records."""
        return [orjson.loads(emit.value) for emit in self._of(REJECTS)]

    @property
    def rows(self) -> dict[str, Any]:
        """Changed rows by feed."""
        return {key.decode(): orjson.loads(value or b"null") for key, value in self.outputs.rows}

    def mark(self, feed: str = "BTC-PERP") -> dict[str, Any]:
        """Return a feed's mark as its row has it."""
        mark: dict[str, Any] = self.rows[feed]["mark"]
        return mark


def a_feeder(**policy: int) -> Feeder:
    """Return a feeder of a fresh shard."""
    return Feeder(PriceShard(a_rulebook(**policy)))
