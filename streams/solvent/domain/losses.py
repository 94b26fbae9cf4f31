"""Who bears what a liquidation could not recover: exact integers, every part accounted for.

The order is the account's collateral, the insurance fund, deleveraging of those in profit, and at
last all holders by index (MODEL.md 7.7). Amounts are micros of the settlement asset, positions
lots, indices picos a lot. Sources: dYdX (fund), Chitra (pro rata), BitMEX (queue), Drift
(socialised loss); worked examples E7 and E12.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from solvent.errors import InvariantError
from solvent.units import PPM

__all__ = [
    "Counterparty",
    "deleverage_pro_rata",
    "deleverage_queue",
    "fund_change",
    "queue_score",
    "socialised_due",
    "socialised_index",
    "socialised_shares",
]

_PICOS_A_MICRO = 1_000_000


def fund_change(
    *, fill_micros: int, bankrupt_micros: int, max_fee_ppm: int, available_micros: int
) -> tuple[int, int]:
    """Return what the insurance fund gains by a closing fill, and what of a loss is left over.

    Better than bankruptcy the fund gets ``min(fill - bankrupt, floor(|fill| * max_fee))``; worse,
    it pays the gap as far as it can, and the rest is for others to bear (dYdX).

    Parameters
    ----------
    fill_micros, bankrupt_micros : int
        Quote the account received for closing, and would have needed to end with nothing: signed,
        paid amounts below 0.
    max_fee_ppm : int
        Of the traded value.
    available_micros : int
        What the fund may pay: its balance, or its limit in this window if that is less; >= 0.

    Returns
    -------
    change_micros, left_micros : int
        Of the fund, and of the loss.
    """
    spare = fill_micros - bankrupt_micros
    if spare >= 0:
        return min(spare, abs(fill_micros) * max_fee_ppm // PPM), 0
    paid = min(-spare, available_micros)
    return -paid, -spare - paid


class Counterparty(NamedTuple):
    """A position on the other side that may be deleveraged.

    ``pnl_micros`` unrealised, ``cost_micros`` its cost basis, ``mark_micros`` and
    ``bankrupt_micros`` its value at the mark and at its own bankruptcy price, all magnitudes but
    the first; ``lots`` > 0.
    """

    account_id: str
    lots: int
    pnl_micros: int
    cost_micros: int
    mark_micros: int
    bankrupt_micros: int


def deleverage_pro_rata(need_lots: int, others: Sequence[Counterparty]) -> dict[str, int]:
    """Return the lots each gives, in proportion to its positive pnl (Chitra).

    Shares are rounded down and the largest remainders get one more, ties by account id; nobody
    gives more than it has, and what is missing then falls on the rest in the same way.

    Raises
    ------
    InvariantError
        Those in profit have fewer lots than are needed.
    """
    given = {other.account_id: 0 for other in others if other.pnl_micros > 0}
    open_ = [other for other in others if other.pnl_micros > 0]
    if need_lots > sum(other.lots for other in open_):
        msg = f"deleveraging {need_lots} lots: those in profit hold fewer"
        raise InvariantError(msg)
    left = need_lots
    while left:
        whole = sum(other.pnl_micros for other in open_)
        shares = {o.account_id: divmod(left * o.pnl_micros, whole) for o in open_}
        rest = left - sum(lots for lots, _ in shares.values())
        by_remainder = sorted(open_, key=lambda o: (-shares[o.account_id][1], o.account_id))
        more = {other.account_id for other in by_remainder[:rest]}
        for other in open_:
            wanted = shares[other.account_id][0] + (other.account_id in more)
            lots = min(wanted, other.lots - given[other.account_id])
            given[other.account_id] += lots
            left -= lots
        open_ = [other for other in open_ if given[other.account_id] < other.lots]
    return given


def queue_score(other: Counterparty) -> Fraction:
    """Return a position's place in the queue: profit in percent times leverage (BitMEX).

    ``pnl/cost * L`` in profit and ``pnl/cost / L`` in loss, ``L = mark / |mark - bankrupt|``; with
    both the same, leverage counts as the whole value in micros.
    """
    profit = Fraction(other.pnl_micros, max(1, other.cost_micros))
    distance = abs(other.mark_micros - other.bankrupt_micros)
    leverage = Fraction(other.mark_micros, max(1, distance))
    if other.pnl_micros > 0 or not leverage:
        return profit * leverage
    return profit / leverage


def deleverage_queue(need_lots: int, others: Sequence[Counterparty]) -> dict[str, int]:
    """Return the lots each gives when the highest score goes first, ties by account id.

    Raises
    ------
    InvariantError
        There are fewer lots than are needed.
    """
    left = need_lots
    given: dict[str, int] = {}
    for other in sorted(others, key=lambda o: (-queue_score(o), o.account_id)):
        given[other.account_id] = min(left, other.lots)
        left -= given[other.account_id]
    if left:
        msg = f"deleveraging {need_lots} lots: {left} more than all hold"
        raise InvariantError(msg)
    return {account: lots for account, lots in given.items() if lots}


def socialised_index(loss_micros: int, open_lots: int) -> int:
    """Return what a loss adds to the funding index, picos a lot: ``ceil(loss * 1e6 / open)``.

    Parameters
    ----------
    loss_micros : int
        >= 0.
    open_lots : int
        Long and short lots together, > 0; of a loss spread by equity, its whole units.
    """
    return -(-loss_micros * _PICOS_A_MICRO // open_lots)


def socialised_due(
    *, loss_micros: int, base_micros: int, weighed_micros: int, own_micros: int
) -> int:
    """Return what a partition bears of a loss spread by equity: its part, rounded up.

    What came to it since it was weighed does not add to its part, what left it takes away: so
    nobody bears more of its equity than ``loss / base``, but for rounding.

    Parameters
    ----------
    loss_micros, base_micros : int
        The loss, and the equity of all partitions that it is spread over; ``0 < loss <= base``.
    weighed_micros, own_micros : int
        The partition's part of the base, and what that is now; >= 0.
    """
    return -(-min(weighed_micros, own_micros) * loss_micros // base_micros)


def socialised_shares(due_micros: int, bases: Sequence[int]) -> list[int]:
    """Return what each of a partition's accounts bears; exactly `due_micros` together.

    The first ``n`` bear ``floor(due * their bases / all bases)`` together: each within a micro of
    its exact share, and none more than its base.

    Parameters
    ----------
    due_micros : int
        >= 0, at most the sum of `bases`.
    bases : sequence of int
        > 0, in the order of accounts.
    """
    whole = max(1, sum(bases))
    shares, base_so_far, borne_so_far = [], 0, 0
    for base in bases:
        base_so_far += base
        borne = due_micros * base_so_far // whole
        shares.append(borne - borne_so_far)
        borne_so_far = borne
    return shares
