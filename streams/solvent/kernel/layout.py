"""Every dtype, capacity and code that kernels and columns share. Both sides import it from here.

Shapes use: U units (margin units: an account's cross book or one isolated book), P positions,
B balances, F feeds, I instruments, A assets, R presets. Level axes are ordered as `LEVELS`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FLAG_LABELS",
    "INITIAL",
    "LEVELS",
    "LIQUIDATION_END",
    "MAINTENANCE",
    "STATUS_LABELS",
    "VERDICT_LABELS",
    "Balances",
    "Figures",
    "Marks",
    "Positions",
    "Rules",
    "Units",
]

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]

# -- levels, in the order of health: initial <= liquidation_end <= maintenance (MODEL.md 3.1)
INITIAL: Final = 0
LIQUIDATION_END: Final = 1
MAINTENANCE: Final = 2
LEVELS: Final = ("initial", "liquidation_end", "maintenance")

# -- verdicts (MODEL.md 6); order is by gravity, unknown apart
VERDICT_HEALTHY: Final = 0
VERDICT_MARGIN_CALL: Final = 1
VERDICT_LIQUIDATABLE: Final = 2
VERDICT_BANKRUPT: Final = 3
VERDICT_UNKNOWN: Final = 4
VERDICT_LABELS: Final = ("healthy", "margin_call", "liquidatable", "bankrupt", "unknown")

# -- statuses of a margin unit (MODEL.md 6)
STATUS_HEALTHY: Final = 0
STATUS_MARGIN_CALL: Final = 1
STATUS_LIQUIDATING: Final = 2
STATUS_BANKRUPT_CLOSED: Final = 3
STATUS_UNKNOWN: Final = 4
STATUS_LABELS: Final = ("healthy", "margin_call", "liquidating", "bankrupt_closed", "unknown")

# -- flags of a margin unit (MODEL.md 2), bits
FLAG_WITHDRAWAL_BELOW_INITIAL: Final = 1
FLAG_OVERDRAWN: Final = 2
FLAG_UNFUNDED_BOOK: Final = 4
FLAG_UNBORROWABLE_DEBT: Final = 8
FLAG_UNLISTED_COLLATERAL: Final = 16
FLAG_LABELS: Final = {
    FLAG_WITHDRAWAL_BELOW_INITIAL: "withdrawal_below_initial",
    FLAG_OVERDRAWN: "overdrawn",
    FLAG_UNFUNDED_BOOK: "unfunded_book",
    FLAG_UNBORROWABLE_DEBT: "unborrowable_debt",
    FLAG_UNLISTED_COLLATERAL: "unlisted_collateral",
}

#: The cross book of an account; other values are the instrument an isolated book belongs to.
CROSS: Final = -1
#: No sequence seen, no feed, no next.
NONE: Final = -1


class Rules(NamedTuple):
    """A rulebook resolved to flat parameters; arrays are C-contiguous and never written again.

    Attributes
    ----------
    asset_weight, debt_weight : float64, shape (R, 3, A)
        ``1 - haircut`` of a positive balance, ``1 + surcharge`` of a negative one, by level.
    requirement_rate : float64, shape (R, 3, I)
        Requirement over notional magnitude, by level (term R1).
    clear_ppm : int64, shape (R,)
        Hysteresis of a margin call: it clears at ``health(initial) >= clear_ppm * R_I / 1e6``.
    asset_feed : int32, shape (A,)
        Index feed of an asset; `NONE` for the settlement asset (price 1).
    asset_units : float64, shape (A,)
        Quanta in one coin, an exact power of ten.
    asset_flags : uint8, shape (A,)
        Bit 1 borrowable, bit 2 listed as collateral.
    instrument_feed : int32, shape (I,)
        Mark feed.
    lot_numerator, lot_units : float64, shape (I,)
        ``coins = lots * lot_numerator / lot_units``; both exact, the latter a power of ten.
    tick_numerator, tick_denominator : int64, shape (I,)
        Micros per lot and tick as a reduced fraction: ``value = ceil(lots*ticks*num/den)``.
    feed_units : float64, shape (F,)
        Price integers in one settlement unit, an exact power of ten.
    grace_us : int64
        A feed that came back serves for verdicts only this long after (0: at once).
    settlement_asset : int64
        Its asset index.
    """

    asset_weight: Float64
    debt_weight: Float64
    requirement_rate: Float64
    clear_ppm: Int64
    asset_feed: Int32
    asset_units: Float64
    asset_flags: UInt8
    instrument_feed: Int32
    lot_numerator: Float64
    lot_units: Float64
    tick_numerator: Int64
    tick_denominator: Int64
    feed_units: Float64
    grace_us: int
    settlement_asset: int


ASSET_BORROWABLE: Final = 1
ASSET_LISTED: Final = 2


class Marks(NamedTuple):
    """Prices in force, shape (F,): integers at the feed's exponent, and whether they may judge.

    ``price`` is int64 (0 while never seen), ``is_usable`` uint8, ``valid_since_us`` int64 (0 for a
    feed that never failed).
    """

    price: Int64
    is_usable: UInt8
    valid_since_us: Int64


class Units(NamedTuple):
    """Columns of margin units, shape (capacity,); row = unit index."""

    account: Int32
    book: Int32  # CROSS or the isolated instrument
    next_unit: Int32  # next unit of the same account, NONE at the end
    preset: UInt8
    status: UInt8
    previous_status: UInt8  # the status that `unknown` interrupted
    flags: Int64
    episode: Int64  # number of liquidations so far
    revision: Int64  # of the open case; 0: no case is open
    case_expires_us: Int64
    case_verdict: UInt8  # verdict of the case's last revision
    touched_us: Int64  # event time of the last record that changed the unit
    first_position: Int64
    position_count: Int32
    position_capacity: Int32
    first_balance: Int64
    balance_count: Int32
    balance_capacity: Int32


class Positions(NamedTuple):
    """Arena of positions; a unit's lie together, ascending by instrument. Cost basis in micros."""

    instrument: Int32
    size_lots: Int64
    cost_basis_micros: Int64


class Balances(NamedTuple):
    """Arena of balances; a unit's lie together, ascending by asset."""

    asset: Int32
    quanta: Int64


class Figures(NamedTuple):
    """What the kernel writes per unit; rows are units.

    ``equity_micros`` and ``requirement_micros`` are int64 (U, 3) by level, equity floored and
    requirement ceiled; ``raw_equity_micros`` int64 (U,), floored; ``verdict`` uint8 (U,).
    A unit that cannot be judged has verdict unknown, its amounts are then 0 where not finite.
    """

    equity_micros: Int64
    requirement_micros: Int64
    raw_equity_micros: Int64
    verdict: UInt8


