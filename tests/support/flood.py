"""A crash in which what is liquidated trips a breaker: records in phases, under `flooded`.

Each of twenty accounts holds 0.1 BTC bought at 65,000 on 400 USDC: at 62,500 there are 150 left and
2.5 % of 6,250 are needed. Then each sells 0.01 for its case: 625 at the mark, 12,500 in all. The
breaker's limit is 5,000 within 5 s.
"""

from __future__ import annotations

import yaml

from solvent.rules import CompiledRulebook, builtin_rulebook, parse_rulebook
from solvent.rules.document import resolved_document
from solvent.wire.inputs import encode_clock, encode_collateral_move, encode_tick, encode_trade
from solvent.wire.topics import COLLATERAL, ORACLE_TICKS, TRADES

__all__ = ["ACCOUNTS", "flooded", "phases"]

_Records = list[tuple[str, bytes, bytes]]
SECOND = 1_000_000
START_US = 1_760_000_000 * SECOND
ACCOUNTS = tuple(f"acc-{number}" for number in range(20))


def flooded() -> CompiledRulebook:
    """Return the example rulebook with the breaker."""
    volume = {"span_us": 5 * SECOND, "limit_micros": 5_000 * SECOND}
    flood = {"liquidated_volume": volume, "markets": ["BTC-PERP"], "quiet_us": 2 * SECOND}
    document = resolved_document(builtin_rulebook("example").model)
    return parse_rulebook(
        yaml.safe_dump({**document, "breakers": {"flood": flood}}, sort_keys=False)
    )


def phases() -> list[_Records]:
    """Return what happens before the crash, at it, the fills, and a calm time, each for itself."""
    begin: _Records = []
    fills: _Records = []
    for account_id in ACCOUNTS:
        key = account_id.encode()
        about = {"account_id": account_id, "subaccount": "cross"}
        move = encode_collateral_move(
            move_id=f"m-{account_id}",
            **about,
            asset="USDC",
            kind="deposit",
            amount="400",
            ts_us=START_US,
        )
        begin.append((COLLATERAL, key, move))
        for topic, side, size, price, at_us, case in (
            (begin, "buy", "0.1", "65000", START_US, None),
            (fills, "sell", "0.01", "62500", START_US + 2 * SECOND, f"{account_id}:cross:1"),
        ):
            trade = encode_trade(
                trade_id=f"{side}-{account_id}",
                **about,
                market="BTC-PERP",
                side=side,
                size=size,
                price=price,
                fee="0",
                ts_us=at_us,
                liquidation_id=case,
            )
            topic.append((TRADES, key, trade))
    calm = [record for second in range(3, 16) for record in _ticks(second, "62500")]
    return [begin, [*_ticks(0, "65000"), *_ticks(1, "62500")], fills, calm]


def _ticks(second: int, price: str) -> _Records:
    ts_us = START_US + second * SECOND
    told: _Records = [
        (
            ORACLE_TICKS,
            source.encode(),
            encode_tick(source=source, feed="BTC-PERP", price=price, confidence=None, ts_us=ts_us),
        )
        for source in ("one", "two")
    ]
    return [*told, (ORACLE_TICKS, b"clock", encode_clock(ts_us))]
