"""A rulebook with every kind of contract, and a log builder for it.

Prices are exponent -2; a lot of every market is coarse, so that rounding shows. All balances of a
variant ``interest`` bear interest, the settlement asset's too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson

from solvent.engine.margin import MarginShard, warm_up
from solvent.rules import CompiledRulebook, parse_rulebook
from solvent.wire.topics import MARKS
from support.fold import Fold, FoldRules
from support.margin import NOW_US, SECOND_US, Log, Replay

__all__ = [
    "EXPIRES_US",
    "FUNDED",
    "MARKETS",
    "SETTLING",
    "KindsLog",
    "a_fold_of_kinds",
    "a_kinds_rulebook",
    "a_kinds_shard",
    "funding_of",
    "kinds_text",
    "run_of",
]

#: When every dated market expires.
EXPIRES_US = NOW_US + 1_000 * SECOND_US
#: Market -> asset it settles in.
MARKETS = {
    "BTC-PERP": "USDC",
    "BTC-TETHER": "USDT",
    "BTC-INVERSE": "BTC",
    "BTC-INVERSE-DATED": "BTC",
    "BTC-DATED": "USDC",
    "BTC-CALL": "USDC",
    "BTC-PUT": "USDC",
    "BTC-PLAIN": "USDC",
}
#: Markets that are settled.
SETTLING = ("BTC-INVERSE-DATED", "BTC-DATED", "BTC-CALL", "BTC-PUT")
#: Market -> funding feed.
FUNDED = {
    "BTC-PERP": "BTC-PERP/funding",
    "BTC-TETHER": "BTC-TETHER/funding",
    "BTC-INVERSE": "BTC-INVERSE/funding",
    "BTC-INVERSE-DATED": "BTC-INVERSE/funding",
}
_FEEDS = {
    "BTC": {"exponent": -2},
    "USDT": {"exponent": -6},
    "BTC/iv": {"exponent": -6, "kind": "state"},
    **{name: {"exponent": -12, "kind": "state"} for name in sorted(set(FUNDED.values()))},
    **{
        f"{asset}/{side}": {"exponent": -18, "kind": "state"}
        for asset in ("USDC", "USDT", "BTC")
        for side in ("deposit", "borrow")
    },
}
_OPTION = {
    "kind": "option",
    "underlying": "BTC",
    "forward_feed": "BTC",
    "volatility_feed": "BTC/iv",
    "strike": "100.5",
    "expires_at_us": EXPIRES_US,
    "tick": "0.5",
}
_SHAPES: dict[str, dict[str, Any]] = {
    "BTC-PERP": {"lot": "0.001", "tick": "0.01"},
    "BTC-TETHER": {"lot": "0.0003", "tick": "0.01"},
    "BTC-INVERSE": {"kind": "inverse", "face": "7", "lot": "1", "tick": "0.5"},
    "BTC-INVERSE-DATED": {
        "kind": "inverse",
        "face": "10",
        "lot": "1",
        "tick": "0.5",
        "expires_at_us": EXPIRES_US,
    },
    "BTC-DATED": {"lot": "0.000003", "tick": "0.01", "expires_at_us": EXPIRES_US},
    "BTC-CALL": {**_OPTION, "lot": "0.0000003", "right": "call"},
    "BTC-PUT": {**_OPTION, "lot": "0.0000003", "right": "put", "settlement": "variation"},
    "BTC-PLAIN": {"lot": "0.01", "tick": "0.01"},
}


def _model(*, has_interest: bool) -> dict[str, Any]:
    bearing = ("USDC", "USDT", "BTC") if has_interest else ("USDT",)
    exponents = {"USDC": -6, "USDT": -6, "BTC": -8}
    assets: dict[str, dict[str, Any]] = {}
    for asset, exponent in exponents.items():
        assets[asset] = {"quantum_exponent": exponent, "borrowable": True}
        if asset != "USDC":
            assets[asset]["index_feed"] = asset
        if asset in bearing:
            assets[asset]["deposit_index_feed"] = f"{asset}/deposit"
            assets[asset]["borrow_index_feed"] = f"{asset}/borrow"
    instruments: dict[str, dict[str, Any]] = {}
    for number, (market, asset) in enumerate(MARKETS.items()):
        shape = {"id": 3 * number + 1, "settles_in": asset, **_SHAPES[market]}
        if shape.get("kind") != "option":
            shape["mark_feed"] = "BTC"
        if market in FUNDED:
            shape["funding_feed"] = FUNDED[market]
        instruments[market] = shape
    rates = {"initial_rate_ppm": 250_000, "maintenance_rate_ppm": 125_000}
    linear = {m: rates for m, shape in _SHAPES.items() if shape.get("kind") != "option"}
    return {
        "rulebook": {"id": "kinds", "version": 1, "effective_at_us": 0, "settlement_asset": "USDC"},
        "limits": {"max_future_us": 10**15},
        "feeds": _FEEDS,
        "assets": assets,
        "underlyings": {"BTC": {"spot_feed": "BTC"}},
        "instruments": instruments,
        "presets": {
            "whole": {
                "extends": "cross-option-standard",
                "collateral": {
                    asset: {"initial_haircut_ppm": 0, "maintenance_haircut_ppm": 0}
                    for asset in exponents
                },
                "requirement": {
                    "sum": [
                        {
                            "term": "option_standard",
                            "max_loss": False,
                            "initial_share_ppm": 150_000,
                            "initial_least_ppm": 100_000,
                            "maintenance_call_ppm": 75_000,
                            "maintenance_put_ppm": 75_000,
                            "maintenance_put_value_ppm": 75_000,
                            "put_ratio_ppm": 1_000_000,
                            "unpaired_initial_ppm": 0,
                            "unpaired_maintenance_ppm": 0,
                            "linear_initial_ppm": 20_000,
                            "linear_maintenance_ppm": 10_000,
                        },
                        {"term": "flat", "markets": linear},
                    ]
                },
                "liquidation": {"sizing": "shortage", "auction": None, "fund_fee_max_ppm": 5_000},
            }
        },
        "bindings": {"trader": "whole"},
        "default_class": "trader",
        "oracle": {
            "default": {
                "max_age_us": 10**12,
                "max_conf_ppm": 10_000,
                "min_sources": 1,
                "quorum_ppm": 500_000,
                "band_ppm": 50_000,
                "max_skew_us": 10**12,
                "grace_us": 0,
            }
        },
    }


@cache
def a_kinds_rulebook(*, has_interest: bool = False) -> CompiledRulebook:
    """Return the rulebook; kernels are compiled by then."""
    warm_up()
    return parse_rulebook(kinds_text(has_interest=has_interest))


def kinds_text(*, has_interest: bool = False) -> str:
    """Return the rulebook as a file has it."""
    return json.dumps(_model(has_interest=has_interest))


def a_kinds_shard(*, has_interest: bool = False) -> MarginShard:
    """Return an empty shard under the rulebook."""
    return MarginShard(0, a_kinds_rulebook(has_interest=has_interest))


def a_fold_of_kinds(log: Log, *, has_interest: bool = False) -> Fold:
    """Return the independent fold of a log under the rulebook."""
    fold = Fold(FoldRules.of(a_kinds_rulebook(has_interest=has_interest).model))
    for topic, record in log.entries:
        fold.take(topic, record.offset, record.timestamp, record.key, record.value)
    return fold


@dataclass
class KindsLog(Log):
    """A log whose mark frames may settle markets.

    ``values`` of the last frames are kept, so that a frame names only what changes.
    """

    values: dict[str, str] = field(default_factory=dict)

    def frame(
        self,
        *,
        price: str = "100",
        at_s: int = 0,
        values: Mapping[str, str] | None = None,
        settlements: Mapping[str, str] | None = None,
    ) -> KindsLog:
        """Append the next mark frame: BTC at a price, state feeds, settlements."""
        self.marks({"BTC": price, "USDT": "1"}, values=dict(values or {}), at_s=at_s)
        if settlements:
            topic, record = self.entries.pop()
            assert record.value is not None
            frame = orjson.loads(record.value)
            frame["settlements"] = [{"market": m, "price": p} for m, p in settlements.items()]
            self.add(topic, orjson.dumps(frame), b"marks")
        assert self.entries[-1][0] == MARKS
        return self


def run_of(log: Log, *, has_interest: bool = False, longest: int = 1_000_000) -> Replay:
    """Return a replay of a log under the rulebook."""
    return Replay(a_kinds_shard(has_interest=has_interest)).run(log, longest=longest)


def funding_of(shard: MarginShard) -> dict[tuple[str, str], dict[str, int]]:
    """Return the funding index of each position, by account and book."""
    columns, rulebook = shard.columns, shard.rulebook
    found = {}
    for index, account_id in enumerate(columns.account_ids):
        for unit in columns.units_of(index):
            book = int(columns.units.book[unit])
            name = "cross" if book < 0 else rulebook.instruments[book].name
            markets = [rulebook.instruments[i].name for i, _, _ in columns.positions_of(unit)]
            found[account_id, name] = dict(zip(markets, columns.funding_of(unit), strict=True))
    return found
