"""From amounts to a verdict, and from a verdict to the next status, on integers (MODEL.md 6).

Amounts are micros: equity floored, requirements ceiled. Health is equity minus requirement, zero
is healthy. The functions here are leaves: plain Python alone, compiled when a kernel calls them.
"""

from __future__ import annotations

from numba.extending import register_jitable

from solvent.kernel.jit import jit
from solvent.kernel.layout import (
    INITIAL,
    LIQUIDATION_END,
    STATUS_BANKRUPT_CLOSED,
    STATUS_HEALTHY,
    STATUS_LIQUIDATING,
    STATUS_MARGIN_CALL,
    STATUS_UNKNOWN,
    VERDICT_BANKRUPT,
    VERDICT_HEALTHY,
    VERDICT_LIQUIDATABLE,
    VERDICT_MARGIN_CALL,
    VERDICT_UNKNOWN,
    Int64,
)

__all__ = ["clearing_micros", "judge_amounts", "next_status", "next_status_jit"]

_PPM = 1_000_000


@register_jitable
def judge_amounts(
    health_initial_micros: int,
    health_micros: int,
    raw_equity_micros: int,
    requirement_micros: int,
    has_debt: bool,
) -> int:
    """Return the verdict of a unit that can be judged; first match wins (MODEL.md 6).

    `health_micros` and `requirement_micros` are those of maintenance.
    """
    if raw_equity_micros < 0:
        return VERDICT_BANKRUPT
    if health_micros < 0 and (requirement_micros > 0 or has_debt):
        return VERDICT_LIQUIDATABLE
    if health_initial_micros < 0:
        return VERDICT_MARGIN_CALL
    return VERDICT_HEALTHY


@register_jitable
def clearing_micros(requirement_micros: int, clear_ppm: int) -> int:
    """Return the health(initial) that ends a margin call: ``ceil(clear_ppm * R_I / 1e6)``.

    Exact without a 128-bit product.
    """
    whole = requirement_micros // _PPM
    rest = requirement_micros - whole * _PPM
    return clear_ppm * whole + (clear_ppm * rest + _PPM - 1) // _PPM


def next_status(
    status: int,
    previous_status: int,
    verdict: int,
    equity_micros: Int64,
    requirement_micros: Int64,
    clear_ppm: int,
    has_positions: bool,
) -> int:
    """Return the status after an evaluation (table of MODEL.md 6).

    Parameters
    ----------
    status : int
        Status before it.
    previous_status : int
        Status that `unknown` interrupted; a unit that can be judged again goes on from there.
    verdict : int
        Verdict of this evaluation.
    equity_micros, requirement_micros : int64, shape (3,)
        Amounts by level.
    clear_ppm : int
        Hysteresis of a margin call, 0 to 1,000,000.
    has_positions : bool
        Whether any position is open.

    Returns
    -------
    int
        ``STATUS_…``; equal to `status` when nothing changes. A bankrupt unit with nothing open is
        `bankrupt_closed`; it leaves that when its raw equity is no longer negative.
    """
    if verdict == VERDICT_UNKNOWN:
        return STATUS_UNKNOWN
    if verdict == VERDICT_BANKRUPT:
        return STATUS_LIQUIDATING if has_positions else STATUS_BANKRUPT_CLOSED
    if verdict == VERDICT_LIQUIDATABLE:
        return STATUS_LIQUIDATING
    base = previous_status if status == STATUS_UNKNOWN else status
    if base == STATUS_LIQUIDATING and (
        equity_micros[LIQUIDATION_END] - requirement_micros[LIQUIDATION_END] < 0
    ):
        return STATUS_LIQUIDATING
    if verdict == VERDICT_MARGIN_CALL:
        return STATUS_MARGIN_CALL
    if base in (STATUS_LIQUIDATING, STATUS_MARGIN_CALL) and (
        equity_micros[INITIAL] - requirement_micros[INITIAL]
        < clearing_micros(requirement_micros[INITIAL], clear_ppm)
    ):
        return STATUS_MARGIN_CALL
    return STATUS_HEALTHY


next_status = register_jitable(next_status)
next_status_jit = jit(next_status)
