"""Accounts of 30 options, a perpetual and two balances, and marks, under a shipped rulebook.

The rulebook is that of the package but for what is listed: `EXPIRIES` times `STRIKES` calls and
puts take the place of its own options and have their feeds, lots and ticks. Each account has ten
options in each of three expiries, longs and shorts, of random sizes; the first `apart` accounts
have no option in common, all others choose at random. Accounts come as snapshots, marks as a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import yaml

from benchmarks.workload import START_US
from solvent.engine.run import Record
from solvent.rules import CompiledRulebook, parse_rulebook
from solvent.rules.source import builtin_text
from solvent.units import MICRO_EXPONENT, format_scaled
from solvent.wire.outputs import encode
from solvent.wire.statements import AccountSnapshot, SnapshotPosition, encode_statement

__all__ = ["OPTIONS", "OptionAccounts"]

OPTIONS: Final = 30
_CHOSEN: Final = 3  # expiries of an account
_EACH: Final = OPTIONS // _CHOSEN
_DAYS: Final = (7, 14, 30, 60, 90, 120, 180, 270, 360, 540)
EXPIRIES: Final = len(_DAYS)
STRIKES: Final = 50
_SPOTS: Final = {"BTC": 70_000.0, "ETH": 3_500.0}
_DAY_US: Final = 86_400_000_000
#: Steps of ids between markets: ids of rulebooks are below.
_FIRST_ID: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class OptionAccounts:
    """Accounts under one rulebook.

    Attributes
    ----------
    name : str
        Of a shipped rulebook with options and one perpetual of one underlying.
    accounts : int
        At least `apart`.
    seed : int
        Same seed, same records.
    """

    name: str
    accounts: int
    seed: int = 7

    @property
    def apart(self) -> int:
        """How many accounts, the first, hold no option that another of them holds."""
        return 2 * EXPIRIES * STRIKES // OPTIONS

    @cached_property
    def rulebook(self) -> CompiledRulebook:
        """The shipped rulebook with more listed."""
        document = yaml.safe_load(builtin_text(self.name))
        coin = next(iter(document["underlyings"]))
        markets: dict[str, Any] = document["instruments"]
        shipped = next(market for market in markets.values() if market.get("kind") == "option")
        document["instruments"] = {
            name: market for name, market in markets.items() if market.get("kind") != "option"
        }
        for number, days in enumerate(_DAYS):
            expiry = f"{coin}-{days}D"
            feeds = {
                "forward_feed": expiry,
                "rate_feed": f"{expiry}/rate",
                "quality_feed": f"{expiry}/quality",
            }
            state = {"kind": "state", "exponent": MICRO_EXPONENT}
            document["feeds"][expiry] = {"exponent": MICRO_EXPONENT}
            document["feeds"] |= {feeds["rate_feed"]: state, feeds["quality_feed"]: state}
            for place, moneyness in enumerate(np.linspace(0.6, 1.6, STRIKES)):
                strike = round(_SPOTS[coin] * float(moneyness))
                surface = f"{expiry}-{strike}/iv"
                document["feeds"][surface] = state
                for side, right in enumerate(("call", "put")):
                    document["instruments"][f"{expiry}-{strike}-{right[0].upper()}"] = {
                        **shipped,
                        **feeds,
                        "id": _FIRST_ID + 2 * (number * STRIKES + place) + side,
                        "right": right,
                        "strike": f"{strike}",
                        "expires_at_us": START_US + days * _DAY_US,
                        "volatility_feed": surface,
                    }
        return parse_rulebook(yaml.safe_dump(document, sort_keys=False))

    def snapshots(self) -> Iterator[Record]:
        """Yield one record of ``account-snapshots.v1`` an account."""
        chance = np.random.default_rng(self.seed)
        instruments = self.rulebook.instruments
        options = [one for one in instruments if one.option is not None]
        (perpetual,) = (one for one in instruments if one.option is None)
        coin = self.rulebook.underlyings[0].name
        for number in range(self.accounts):
            held = [(perpetual, int(chance.integers(1, 2_000)) * int(chance.choice((-1, 1))))]
            for place in self._places(number, chance):
                lots = int(chance.integers(1, 800)) * int(chance.choice((-1, 1)))
                held.append((options[place], lots))
            # bought at a tenth of spot, and with enough cash to stay healthy
            positions = tuple(
                SnapshotPosition(
                    market=one.name,
                    size=one.lot.format(lots),
                    cost_basis=format_scaled(
                        round(
                            float(one.lot.format(lots))
                            * _SPOTS[coin]
                            * (0.1 if one.option else 1.0)
                            * 1e6
                        ),
                        MICRO_EXPONENT,
                    ),
                )
                for one, lots in held
            )
            account = f"acct-{number:07d}"
            snapshot = AccountSnapshot(
                schema_version=1,
                snapshot_id=f"s-{number}",
                account_id=account,
                subaccount="cross",
                collateral={"USDC": "100000000", coin: f"{1 + int(chance.integers(9))}"},
                positions=positions,
                ts_us=START_US,
            )
            yield Record(number, START_US // 1000, account.encode(), encode_statement(snapshot))

    def _places(self, number: int, chance: np.random.Generator) -> list[int]:
        """Return the options of an account, by place among those listed, ascending."""
        of_expiry = 2 * STRIKES
        if number < self.apart:
            runs = [divmod(_CHOSEN * number + each, EXPIRIES) for each in range(_CHOSEN)]
            return sorted(
                expiry * of_expiry + _EACH * run + place
                for run, expiry in runs
                for place in range(_EACH)
            )
        return sorted(
            int(expiry) * of_expiry + int(place)
            for expiry in chance.choice(EXPIRIES, _CHOSEN, replace=False)
            for place in chance.choice(of_expiry, _EACH, replace=False)
        )

    def frame(self) -> Record:
        """Return the marks all accounts are judged at first, a record of ``marks.v1``."""
        chance = np.random.default_rng(self.seed)
        coin = self.rulebook.underlyings[0].name
        spot = _SPOTS[coin]
        marks: list[dict[str, Any]] = []
        for feed in self.rulebook.feeds:
            name = feed.name
            mark: dict[str, Any] = {"feed": name, "price": None, "state": "valid", "since_us": 0}
            mark["sources"] = 3
            if name.endswith("/iv"):
                value = chance.uniform(0.4, 0.9)
            elif name.endswith("/rate"):
                value = 0.04
            elif name.endswith("/quality"):
                value = 1.0
            else:
                value = spot * chance.uniform(0.99, 1.03) if name.startswith(coin) else 1.0
            mark["value" if feed.is_state else "price"] = format_scaled(
                round(value * 10.0**-feed.exponent), feed.exponent
            )
            marks.append(mark)
        ts_us = START_US + 1_000_000
        frame = {"schema_version": 1, "kind": "marks", "seq": 1, "ts_us": ts_us, "marks": marks}
        return Record(0, ts_us // 1000, b"marks", encode(frame))
