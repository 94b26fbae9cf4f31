"""A population of linear accounts in numpy: rows of the account table, and marks that walk.

Each account has five positions of random sides and sizes and two balances, USDC and ETH, in its
cross book; positions were opened at the prices the walk begins with. `near` accounts, at random
places, stand in a margin call with health (maintenance) of 0.05 to 0.5 % of their gross notional;
all others are healthy, with health (initial) of 2 to 100 % of theirs, log-uniform. So nobody but
those few comes near liquidation in quiet markets, however many accounts there are.

Marks follow a walk with fat tails (Student's t, three degrees of freedom), half of each step common
to all feeds. Its regimes are set by one-minute bars of Binance perpetuals at 50 frames a second:
``calm`` has the 11 basis points a minute of May 2025, ``crash`` the 60 of 2021-05-19 and falls by a
further 600 a minute, as in that day's worst minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.workload import START_US, Workload
from solvent.engine.run import Record, Run
from solvent.kernel.layout import INITIAL, MAINTENANCE, NONE, STATUS_HEALTHY, STATUS_MARGIN_CALL
from solvent.rules import CompiledRulebook
from solvent.state.rows import ROW_VERSION
from solvent.units import format_scaled
from solvent.wire.outputs import encode

__all__ = ["CALM", "CRASH", "POSITIONS", "Population", "Regime", "frames_of", "walk"]

POSITIONS: Final = 5
_BALANCES: Final = 2
_COLLATERAL: Final = "ETH"
_MEAN_NOTIONAL_USD: Final = 2_000.0

_FRAMES_A_SECOND: Final = 50
_FRAME_US: Final = 1_000_000 // _FRAMES_A_SECOND
_FRAMES_A_MINUTE: Final = 60 * _FRAMES_A_SECOND

#: The row of one account, see schemas/accounts/ROW.md.
_UNIT = [
    ("book", "<i4"),
    ("status", "u1"),
    ("previous_status", "u1"),
    ("case_verdict", "u1"),
    ("reserved", "u1"),
    ("flags", "<u4"),
    ("position_count", "<u2"),
    ("balance_count", "<u2"),
    ("episode", "<i8"),
    ("revision", "<i8"),
    ("case_expires_us", "<i8"),
    ("case_notional", "<i8"),
    ("case_fills", "<i8"),
    ("touched_us", "<i8"),
]
_ROW: Final = np.dtype(
    [
        ("key", "S12"),
        ("version", "u1"),
        ("quarantined", "u1"),
        ("unit_count", "<u2"),
        ("trades_seq", "<i8"),
        ("collateral_seq", "<i8"),
        *_UNIT,
        ("balances", [("asset", "<i4"), ("quanta", "<i8")], _BALANCES),
        ("positions", [("id", "<i4"), ("lots", "<i8"), ("cost_micros", "<i8")], POSITIONS),
    ]
)
_KEY_SIZE: Final = 12


@dataclass(frozen=True, slots=True)
class Regime:
    """How marks move: standard deviation and drift of a feed in basis points a minute."""

    deviation_bp: float
    drift_bp: float


CALM: Final = Regime(11.0, 0.0)
CRASH: Final = Regime(60.0, -600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Accounts of one partition.

    Attributes
    ----------
    rulebook : CompiledRulebook
        At least five markets, USDC and ETH.
    accounts, near : int
        All accounts, and those near liquidation.
    seed : int
        Same seed, same rows.
    """

    rulebook: CompiledRulebook
    accounts: int
    near: int
    seed: int = 7

    def prices(self) -> NDArray[np.float64]:
        """Return the marks the walk begins with, in USD by feed."""
        workload = Workload(rulebook=self.rulebook, accounts=1)
        return np.array([workload.mid(feed.name.partition("/")[0]) for feed in self.rulebook.feeds])

    def rows(self) -> Run:
        """Return the account table's rows."""
        table, rules = np.zeros(self.accounts, _ROW), self.rulebook.rules
        chance = np.random.default_rng(self.seed)
        instruments = self.rulebook.instruments
        shape = (self.accounts, POSITIONS)
        chosen = np.argsort(chance.random((self.accounts, len(instruments))))[:, :POSITIONS]
        chosen.sort(axis=1)
        mark = self.prices()[[instrument.mark_feed for instrument in instruments]][chosen]
        coins = (rules.lot_numerator / rules.lot_units)[chosen]
        wanted = -np.log1p(-chance.random(shape)) * _MEAN_NOTIONAL_USD
        lots = np.maximum(1, np.rint(wanted / mark / coins)) * np.where(
            chance.random(shape) < 0.5, -1, 1
        )
        notional = lots * coins * mark
        gross = np.abs(notional)

        is_near = np.zeros(self.accounts, np.bool_)
        is_near[chance.choice(self.accounts, self.near, replace=False)] = True
        level = np.where(is_near, MAINTENANCE, INITIAL)
        preset = self.rulebook.default_preset
        rates = rules.requirement_rate[preset][level[:, None], chosen]
        part = chance.random(self.accounts)
        distance = np.where(is_near, 0.0005 + 0.0045 * part, 0.02 * 50**part) * gross.sum(axis=1)
        equity = distance + (gross * rates).sum(axis=1)
        asset = self.rulebook.asset_by_name[_COLLATERAL]
        eth_usd = self.prices()[asset.index_feed]
        eth = np.floor(0.3 * equity / eth_usd * 10**-asset.quantum_exponent)
        weight = rules.asset_weight[preset][level, asset.index]
        usdc = np.ceil((equity - eth * 10**asset.quantum_exponent * eth_usd * weight) * 1e6)

        table["key"] = [b"acct-%07d" % number for number in range(self.accounts)]
        table["version"], table["unit_count"] = ROW_VERSION, 1
        table["trades_seq"] = table["collateral_seq"] = table["book"] = NONE
        table["status"] = np.where(is_near, STATUS_MARGIN_CALL, STATUS_HEALTHY)
        table["position_count"], table["balance_count"] = POSITIONS, _BALANCES
        table["touched_us"] = START_US
        table["balances"]["asset"] = (rules.settlement_asset, asset.index)
        table["balances"]["quanta"] = np.stack([usdc, eth], axis=1)
        ids = np.array([instrument.id for instrument in instruments])
        table["positions"]["id"] = ids[chosen]
        table["positions"]["lots"] = lots
        table["positions"]["cost_micros"] = np.rint(notional * 1e6)
        first = np.arange(self.accounts, dtype=np.int64) * _ROW.itemsize
        return Run(
            table.view(np.uint8),
            np.arange(self.accounts, dtype=np.int64),
            np.zeros(self.accounts, np.int64),
            first,
            np.full(self.accounts, _KEY_SIZE, np.int32),
            first + _KEY_SIZE,
            np.full(self.accounts, _ROW.itemsize - _KEY_SIZE, np.int32),
        )


def walk(
    rulebook: CompiledRulebook,
    start: NDArray[np.float64],
    regime: Regime,
    frames: int,
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Return marks in USD, float64 of shape (frames, feeds), that set out from `start`."""
    chance = np.random.default_rng(seed)
    steps = chance.standard_t(3, (frames, len(rulebook.feeds)))
    steps += chance.standard_t(3, (frames, 1))
    deviation = regime.deviation_bp * 1e-4 / np.sqrt(_FRAMES_A_MINUTE)
    steps *= deviation / np.sqrt(2 * 3)  # the variance of one is 3
    steps += regime.drift_bp * 1e-4 / _FRAMES_A_MINUTE
    return start * np.exp(np.cumsum(steps, axis=0))


def frames_of(rulebook: CompiledRulebook, marks: NDArray[np.float64]) -> Iterator[Record]:
    """Yield frames of marks as records of ``marks.v1``, one every 20 ms."""
    feeds = rulebook.feeds
    scale = np.array([10.0**-feed.exponent for feed in feeds])
    for number, scaled in enumerate(np.rint(marks * scale).astype(np.int64).tolist()):
        seq = number + 1
        frame: dict[str, Any] = {
            "schema_version": 1,
            "kind": "marks",
            "seq": seq,
            "ts_us": START_US + seq * _FRAME_US,
            "marks": [
                {
                    "feed": feed.name,
                    "price": format_scaled(price, feed.exponent),
                    "state": "valid",
                    "since_us": 0,
                    "sources": 3,
                }
                for feed, price in zip(feeds, scaled, strict=True)
            ],
        }
        yield Record(seq - 1, frame["ts_us"] // 1000, b"marks", encode(frame))
