"""Room in which one unit is evaluated under terms; what is left in it explains the figures."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from solvent.kernel.arrays import Float64, Int64, UInt8
from solvent.kernel.layout import Balances, Marks, Orders, Positions, Rules, Units
from solvent.kernel.portfolio import Prices, Scratch, new_prices, new_scratch
from solvent.kernel.terms import MAX_STEPS

__all__ = ["Tables", "Workspace", "new_workspace"]

#: Rows of `Workspace.book`.
BOOK_COLUMNS: Final = 15


class Workspace(NamedTuple):
    """Room for one evaluation, overwritten by each; what it leaves behind explains the figures.

    Prices of options alone outlive an evaluation, so a workspace serves one rulebook.

    Attributes
    ----------
    equity, required : float64, shape (3,)
        Of the unit, by level, before rounding.
    raw : float64, shape (2,)
        Raw equity before rounding; value of options.
    move : float64, shape (2,)
        What amounts may change by per relative move of marks, and magnitudes that no mark moves
        (`solvent.kernel.safe_move`); of a preset that is not steady they mean nothing.
    seen : int64, shape (2,)
        Mask of the feeds that were read; terms added.
    position_value : float64, shape (I,)
        Signed notional of the unit's positions, in their order.
    position_pnl, position_equity, position_required : float64, shape (I, 3)
        Unrealised pnl with funding (column 0), what counts of it, what each requires.
    balance_value : float64, shape (A,)
        Value of the unit's balances, in their order.
    balance_equity, balance_required : float64, shape (A, 3)
        What counts of it, and what is required for it.
    fold : float64, shape (A, 3)
        Pnl that joins a balance before weighting (P7); 0 between evaluations.
    book : float64, shape (15, >= I + A)
        Columns of the book of one underlying; the last stays 0.
    book_first, book_ends, book_dates : int64, shape (X + 1,), (X,) and (I,)
        Where each expiry begins, when it ends, and when linear contracts end (0: never).
    book_hedging : uint8, shape (A,)
    order, book_option : int64, shape (I,)
        Rows of options in the arena, by rank, and which instruments they are.
    stack : float64, shape (MAX_STEPS, 2)
        Results of a requirement tree, initial and maintenance.
    group : float64, shape (V, 3)
        By underlying: value of its options, initial and maintenance requirement.
    worst : int64, shape (V,)
        Worst scenario of the underlying's last scan, -1 none.
    scratch : Scratch
        Of option pricing.
    today, scanned : Prices
        Prices of options by instrument: at the market, one table of one point, and under the
        scenarios of each scan.
    entry : int64, shape (1,)
        Where the compiled loop of terms is (`solvent.kernel.account.terms_entry`).
    """

    equity: Float64
    required: Float64
    raw: Float64
    move: Float64
    seen: Int64
    position_value: Float64
    position_pnl: Float64
    position_equity: Float64
    position_required: Float64
    balance_value: Float64
    balance_equity: Float64
    balance_required: Float64
    fold: Float64
    book: Float64
    book_first: Int64
    book_ends: Int64
    book_dates: Int64
    book_hedging: UInt8
    order: Int64
    book_option: Int64
    stack: Float64
    group: Float64
    worst: Int64
    scratch: Scratch
    today: Prices
    scanned: Prices
    entry: Int64


class Tables(NamedTuple):
    """All that a unit is evaluated from, and in: what the loop of terms takes."""

    units: Units
    positions: Positions
    balances: Balances
    orders: Orders
    rules: Rules
    marks: Marks
    space: Workspace


def new_workspace(
    *,
    instruments: int,
    assets: int,
    expiries: int,
    underlyings: int,
    scans: int,
    points: int,
    entry: int,
) -> Workspace:
    """Return room for evaluations under a rulebook of so many instruments and so on.

    `points` are those of the largest grid of its scans.
    """
    options = instruments if expiries else 0
    return Workspace(
        equity=np.zeros(3),
        required=np.zeros(3),
        raw=np.zeros(2),
        move=np.zeros(2),
        seen=np.zeros(2, np.int64),
        position_value=np.zeros(instruments),
        position_pnl=np.zeros((instruments, 3)),
        position_equity=np.zeros((instruments, 3)),
        position_required=np.zeros((instruments, 3)),
        balance_value=np.zeros(assets),
        balance_equity=np.zeros((assets, 3)),
        balance_required=np.zeros((assets, 3)),
        fold=np.zeros((assets, 3)),
        book=np.zeros((BOOK_COLUMNS, instruments + assets + expiries)),
        book_first=np.zeros(expiries + 1, np.int64),
        book_ends=np.zeros(expiries, np.int64),
        book_dates=np.zeros(instruments, np.int64),
        book_hedging=np.zeros(assets, np.uint8),
        order=np.zeros(instruments, np.int64),
        book_option=np.zeros(instruments, np.int64),
        stack=np.zeros((MAX_STEPS, 2)),
        group=np.zeros((underlyings, 3)),
        worst=np.zeros(underlyings, np.int64),
        scratch=new_scratch(),
        today=new_prices(1, options, 1),
        scanned=new_prices(scans, options, points),
        entry=np.array([entry]),
    )
