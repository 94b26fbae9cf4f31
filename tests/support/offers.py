"""Liquidation revisions for tests: a valid default, a case names only what matters."""

from __future__ import annotations

from typing import Any

import orjson

from solvent.domain.instrument import Instrument, Step
from solvent.executor.book import Received
from solvent.wire.outputs import Liquidation, decode_liquidation, encode

BTC = Instrument(
    index=0,
    id=1,
    name="BTC-PERP",
    lot=Step.from_text("0.001"),
    tick=Step.from_text("0.1"),
    mark_feed=0,
    price_exponent=-6,
)
INSTRUMENTS = {"BTC-PERP": BTC}


def a_leg(**fields: Any) -> dict[str, Any]:
    """Sell half a coin at 40,000, not below 39,000, fund fee 0.5 %."""
    leg = {
        "market": "BTC-PERP",
        "side": "sell",
        "size": "0.5",
        "mark_price": "40000",
        "limit_price": "39000",
        "bankruptcy_price": "38500",
        "fund_fee_ppm": 5000,
    }
    return {**leg, **fields}


def an_offer_value(**fields: Any) -> bytes:
    """Return a record of liquidations.v1; `legs` may be given as a list of `a_leg`."""
    account_id = fields.get("account_id", "alice")
    subaccount = fields.get("subaccount", "cross")
    episode = fields.get("episode", 1)
    levels = {"initial": "0", "liquidation_end": "0", "maintenance": "0"}
    record = {
        "schema_version": 1,
        "liquidation_id": f"{account_id}:{subaccount}:{episode}",
        "revision": 1,
        "event": "opened",
        "reason": "liquidatable",
        "account_id": account_id,
        "subaccount": subaccount,
        "episode": episode,
        "partition": 0,
        "ts_us": 1_000_000,
        "expires_us": 61_000_000,
        "verdict": "liquidatable",
        "status": "liquidating",
        "mark_seq": 1,
        "equity": levels,
        "requirement": levels,
        "raw_equity": "0",
        "shortfall": "0",
        "positions": [],
        "collateral": [],
        "legs": [a_leg()],
        "trigger": {"topic": "marks.v1", "offset": 1},
        "inputs": {"trades.v1": 10, "collateral.v1": 10, "marks.v1": 2},
        "rulebook": {"id": "test", "version": 1, "hash": "0" * 64},
    }
    return encode({**record, **fields})


def a_standing_value(**fields: Any) -> bytes:
    """Return what stands of that revision, as a record of liquidation-state.v1."""
    event = orjson.loads(an_offer_value(**fields))
    left = {"account_id", "subaccount", "episode", "status", "equity", "requirement", "raw_equity"}
    left |= {"shortfall", "positions", "collateral", "trigger"}
    return encode({"kind": "case", **{n: v for n, v in event.items() if n not in left}})


def an_offer(**fields: Any) -> Liquidation:
    """Return a decoded revision."""
    return decode_liquidation(an_offer_value(**fields))


def a_received(offset: int, *, read_from: int = 0, **fields: Any) -> Received:
    """Return a record as an executor reads it."""
    return Received(read_from, offset, an_offer_value(**fields), 1_000)


def a_received_standing(offset: int, *, read_from: int = 0, **fields: Any) -> Received:
    """Return what stands as an executor reads it at its start."""
    return Received(read_from, offset, a_standing_value(**fields), 1_000, stands=True)
