"""Every dtype, capacity and code that kernels and columns share. Both sides import it from here.

Shapes use: U units (margin units: an account's cross book or one isolated book), P positions,
B balances, O orders, F feeds, I instruments, A assets, R presets. Level axes are ordered as
`LEVELS`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from solvent.kernel.arrays import Float64, Int32, Int64, UInt8
from solvent.kernel.terms import Terms

__all__ = [
    "FLAG_LABELS",
    "INITIAL",
    "LEVELS",
    "LIQUIDATION_END",
    "MAINTENANCE",
    "STATUS_LABELS",
    "VERDICT_LABELS",
    "Accounts",
    "Balances",
    "Cases",
    "Figures",
    "Float64",
    "Int32",
    "Int64",
    "Marks",
    "Moves",
    "Orders",
    "Positions",
    "Rules",
    "Trades",
    "UInt8",
    "Units",
]

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
        Price integers in one settlement unit, an exact power of ten; of a state feed, integers in
        one of its own units.
    feed_is_state : uint8, shape (F,)
        1 for a feed that carries values instead of prices.
    grace_us : int64
        A feed that came back serves for verdicts only this long after (0: at once).
    settlement_asset : int64
        Its asset index.
    terms : Terms
        What weights and rates do not say.
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
    feed_is_state: UInt8
    grace_us: int
    settlement_asset: int
    terms: Terms


ASSET_BORROWABLE: Final = 1
ASSET_LISTED: Final = 2


class Marks(NamedTuple):
    """Prices and values in force, by feed: integers at its exponent, and whether they may judge.

    ``price`` is int64 (F,), above 0, or the signed value of a state feed (0 too while never seen:
    ``is_usable`` uint8 (F,) tells); ``confidence`` int64 (F,), 0 where none is told;
    ``valid_since_us`` int64 (F,), 0 for a feed that never failed. ``clock_us`` int64 (1,) is the
    event time of the last frame, 0 before the first. ``is_settled`` uint8 (I,) marks contracts that
    were settled at expiry.
    """

    price: Int64
    confidence: Int64
    is_usable: UInt8
    valid_since_us: Int64
    clock_us: Int64
    is_settled: UInt8


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
    first_order: Int64
    order_count: Int32
    order_capacity: Int32


class Positions(NamedTuple):
    """Arena of positions; a unit's lie together, ascending by instrument.

    The cost basis is in quanta of the asset the contract settles in. ``funding_index`` is the
    funding index up to which the position has paid, picos a lot.
    """

    instrument: Int32
    size_lots: Int64
    cost_basis_micros: Int64
    funding_index: Int64


class Balances(NamedTuple):
    """Arena of balances; a unit's lie together, ascending by asset.

    Those of an interest-bearing asset are at rest divided by its cumulative index
    (`solvent.kernel.contracts`).
    """

    asset: Int32
    quanta: Int64


class Orders(NamedTuple):
    """Arena of what a unit has in a market beside its position; a unit's rows lie together.

    They ascend by instrument, and one exists while anything in it is not zero: ``bid_lots`` and
    ``ask_lots`` of its open orders, both >= 0, ``bid_value_micros`` and ``ask_value_micros`` of the
    same, ``order_count``; and ``leverage_ppm``, the account's own leverage limit in the market
    times 1e6, 0 without one. All int64 but ``instrument``, int32.
    """

    instrument: Int32
    bid_lots: Int64
    ask_lots: Int64
    bid_value_micros: Int64
    ask_value_micros: Int64
    order_count: Int64
    leverage_ppm: Int64


class Figures(NamedTuple):
    """What the kernel writes per unit; rows are units.

    ``equity_micros`` and ``requirement_micros`` are int64 (U, 3) by level, equity floored and
    requirement ceiled; ``raw_equity_micros`` int64 (U,), floored; ``verdict`` uint8 (U,).
    A unit that cannot be judged has verdict unknown, its amounts are then 0 where not finite.

    The verdict is always that of the marks in force; amounts are those of the unit's last
    evaluation, since a frame judges only the units whose safe move it exceeds. What says so is
    ``level`` uint8 (U,), how far marks may move (`solvent.kernel.safe_move`), ``feeds`` int64 (U,),
    the mask of the feeds concerned, and ``block_levels`` int64 (ceil(U / BLOCK_UNITS),), a bit for
    each level that units of a block have, or had.
    """

    equity_micros: Int64
    requirement_micros: Int64
    raw_equity_micros: Int64
    verdict: UInt8
    level: UInt8
    feeds: Int64
    block_levels: Int64


#: Units of one bit vector of levels: consecutive ones.
BLOCK_UNITS: Final = 256
#: A time no stream reaches.
NEVER_US: Final = 2**63 - 1


class Watch(NamedTuple):
    """How far marks stand from where each level of safe moves was last judged, by feed.

    ``lowest`` and ``highest`` are int64 (F, LEVELS), prices at the feed's exponent: while a mark
    lies within them no unit of the level needs judging because of it (of a state feed both are the
    value judged by); ``inner_lowest`` and ``inner_highest`` int64 (F,) hold the narrowest of them.
    ``is_usable`` uint8 (F,) is what units were judged by, ``fired`` int64 (LEVELS,) the feeds a
    frame fires for a level, as a mask. ``block_expires_us`` int64 (ceil(U / BLOCK_UNITS),) is at
    most the first expiry of an offer to a unit of the block that is not judged at every frame,
    ``first_expires_us`` int64 (1,) at most the first of all. ``read_ahead`` int64 (1,) means
    nothing: without a place to put it, what is read ahead would not be read.
    """

    lowest: Int64
    highest: Int64
    inner_lowest: Int64
    inner_highest: Int64
    is_usable: UInt8
    fired: Int64
    block_expires_us: Int64
    first_expires_us: Int64
    read_ahead: Int64


# -- the ledger side: accounts, cases and batches of decoded records (kernel/ledger.py)

#: Slots of the `counts` vector, int64: rows in use and the arenas' fill.
COUNT_ACCOUNTS: Final = 0
COUNT_UNITS: Final = 1
COUNT_POSITIONS: Final = 2  # arena slots handed out, free ones inside blocks included
COUNT_POSITION_WASTE: Final = 3  # of these, slots of abandoned blocks
COUNT_BALANCES: Final = 4
COUNT_BALANCE_WASTE: Final = 5
COUNT_DIRTY: Final = 6
COUNT_ORDERS: Final = 7
COUNT_ORDER_WASTE: Final = 8
COUNT_SLOTS: Final = 9


class Accounts(NamedTuple):
    """Columns of accounts, shape (capacity,); row = account index in order of first sight.

    ``trades_seq``, ``collateral_seq``, ``settings_seq`` and ``orders_seq`` are int64, the last
    sequence applied of each topic (`NONE` while none came); ``preset`` uint8, that of the account's
    units, those to come included; ``quarantined`` uint8; ``first_unit`` int32, `NONE` without
    units; ``dirty`` uint8, set while the account stands in ``dirty_list`` (int64), which holds the
    indices of the accounts that changed since the last cut, in order.
    """

    trades_seq: Int64
    collateral_seq: Int64
    settings_seq: Int64
    orders_seq: Int64
    preset: UInt8
    quarantined: UInt8
    first_unit: Int32
    dirty: UInt8
    dirty_list: Int64


class Cases(NamedTuple):
    """What a terminal liquidation event reports, int64 (U,): micros and number of fills."""

    notional_micros: Int64
    fills: Int64


# -- what became of a record of a batch; `precheck` uses the same codes
OUTCOME_NONE: Final = 0
OUTCOME_APPLIED: Final = 1
OUTCOME_DUPLICATE: Final = 2  # counted, nothing else
OUTCOME_SEQUENCE_GAP: Final = 3
OUTCOME_OVERFLOW: Final = 4
OUTCOME_QUARANTINE: Final = 5  # no record of its own: only quarantines an account
OUTCOME_EXPIRED: Final = 6  # a fill in a contract that has expired or was settled
#: From here on: rejected by intake; the engine knows the reason.
OUTCOME_REJECTED: Final = 16


class Trades(NamedTuple):
    """A batch of decoded trades, shape (n,).

    ``account`` int32 (`NONE`: not known), ``book`` int32, ``instrument`` int32, ``lots`` int64
    (signed, buy > 0), ``price_ticks`` int64 > 0, ``fee_micros`` int64 (negative: rebate; quanta of
    the asset the contract settles in), ``seq`` int64 or `NONE`, ``ts_us`` int64, ``case_episode``
    int64 (episode of the liquidation the trade says it serves, `NONE` without), ``precheck`` and
    ``outcome`` uint8.
    """

    account: Int32
    book: Int32
    instrument: Int32
    lots: Int64
    price_ticks: Int64
    fee_micros: Int64
    seq: Int64
    ts_us: Int64
    case_episode: Int64
    precheck: UInt8
    outcome: UInt8


class Moves(NamedTuple):
    """A batch of decoded collateral moves, shape (n,).

    As `Trades`; ``quanta`` int64 is signed, what the balance gains; ``is_outflow`` uint8 marks a
    withdrawal or transfer out.
    """

    account: Int32
    book: Int32
    asset: Int32
    quanta: Int64
    is_outflow: UInt8
    seq: Int64
    ts_us: Int64
    precheck: UInt8
    outcome: UInt8


# -- why a fold stopped; it returns (next record, reason, unit or account)
STOP_END: Final = 0
STOP_GROW: Final = 1  # the record was not applied: make room and come again
STOP_UNIT: Final = 2  # the unit's status changes, or its liquidation case is concerned
STOP_QUARANTINE: Final = 3  # the account has just been quarantined
STOP_REPORT: Final = 4  # a gap, to be reported before the account's sequence moves on
