"""How much debt a liquidator may repay, and what of the collateral it takes: exact integers.

Amounts are values in micros of the settlement asset, rates and ratios ppm. The health factor is
equity (collateral after its liquidation threshold) over debt. Rounding never favours the account in
what it gives, nor the liquidator in what it takes. Sources: MODEL.md 7.2 (Z3 Drift, Z4 Aave v4,
Z5 Aave v3), 7.3, and for the bonus that helps Warmuz et al.; worked example E5.
"""

from __future__ import annotations

from typing import NamedTuple

from solvent.units import PPM

__all__ = [
    "CloseFactor",
    "Seizure",
    "bonus_at",
    "debt_for_shortage",
    "debt_to_target",
    "helping_bonus",
    "repay_limit",
    "seizure_of",
    "without_dust",
]


def debt_to_target(
    *,
    debt_micros: int,
    equity_micros: int,
    target_ppm: int,
    bonus_ppm: int,
    threshold_ppm: int,
) -> int:
    """Return the debt to repay so that the health factor reaches the target (Z4).

    ``x = (HF_t * D - E) / (HF_t - (1 + bonus) * LT)``, rounded up and at most the debt; all of it
    where repaying cannot raise the factor that far, that is with a divisor of 0 or less.

    Parameters
    ----------
    debt_micros, equity_micros : int
        All debt, and all collateral after its thresholds.
    target_ppm : int
        Health factor wanted.
    bonus_ppm, threshold_ppm : int
        Of the collateral that is taken.
    """
    need = target_ppm * debt_micros - PPM * equity_micros
    if need <= 0:
        return 0
    gain = target_ppm * PPM - (PPM + bonus_ppm) * threshold_ppm
    if gain <= 0:
        return debt_micros
    return min(debt_micros, -(-need * PPM // gain))


def debt_for_shortage(
    shortage_micros: int,
    *,
    debt_micros: int,
    collateral_micros: int,
    debt_weight_ppm: int,
    collateral_weight_ppm: int,
    debt_multiplier_ppm: int,
    collateral_multiplier_ppm: int,
    fund_fee_ppm: int,
) -> int:
    """Return the debt that a swap against collateral must repay to make up a shortage (Z3, Drift).

    ``x = s / (w_d - w_c * m_c/m_d - fee_fund * w_d)`` in value, rounded up; at most the debt, and
    what the collateral pays for, ``C * m_d/m_c``. The most that can be where a swap frees nothing.

    Parameters
    ----------
    shortage_micros : int
        Requirement minus equity at the liquidation end.
    debt_micros, collateral_micros : int
        Of the two assets.
    debt_weight_ppm, collateral_weight_ppm : int
        At the liquidation end; the former 1,000,000 or more.
    debt_multiplier_ppm, collateral_multiplier_ppm : int
        What the liquidator's swap makes of a unit's price: debt at or below 1,000,000, collateral
        at or above it.
    fund_fee_ppm : int
        What the fund takes of the debt repaid.
    """
    if shortage_micros <= 0:
        return 0
    most = min(debt_micros, collateral_micros * debt_multiplier_ppm // collateral_multiplier_ppm)
    freed = debt_weight_ppm * (PPM - fund_fee_ppm) * debt_multiplier_ppm
    freed -= collateral_weight_ppm * collateral_multiplier_ppm * PPM
    if freed <= 0:  # over debt_multiplier_ppm * PPM * PPM: of a unit of debt
        return most
    return min(most, -(-shortage_micros * debt_multiplier_ppm * PPM * PPM // freed))


class CloseFactor(NamedTuple):
    """How much of a debt one liquidation may repay.

    ``normal_ppm`` of all debt; all of a reserve's where the health factor is at most
    ``full_at_ppm``, or its debt or collateral below ``full_below_micros``.
    """

    normal_ppm: int
    full_at_ppm: int
    full_below_micros: int


def repay_limit(
    rule: CloseFactor,
    *,
    reserve_debt_micros: int,
    reserve_collateral_micros: int,
    debt_micros: int,
    equity_micros: int,
) -> int:
    """Return the most of one reserve's debt that may be repaid against one collateral (Z5).

    Parameters
    ----------
    rule : CloseFactor
        Limits.
    reserve_debt_micros, reserve_collateral_micros : int
        The debt repaid and the collateral taken for it.
    debt_micros, equity_micros : int
        All debt, and all collateral after its thresholds.
    """
    is_deep = PPM * equity_micros <= rule.full_at_ppm * debt_micros
    smaller = min(reserve_debt_micros, reserve_collateral_micros)
    if is_deep or smaller < rule.full_below_micros:
        return reserve_debt_micros
    return min(reserve_debt_micros, debt_micros * rule.normal_ppm // PPM)


def without_dust(
    repay_micros: int,
    *,
    reserve_debt_micros: int,
    reserve_collateral_micros: int,
    bonus_ppm: int,
    least_micros: int,
) -> int:
    """Return what to repay so that neither side is left with less than `least_micros`, but 0.

    Debt that would stay below it is repaid too. Collateral that would stay below it is taken too,
    and the debt repaid follows, at most all of it (Aave v4).
    """
    if 0 < reserve_debt_micros - repay_micros < least_micros:
        repay_micros = reserve_debt_micros
    left = reserve_collateral_micros - repay_micros * (PPM + bonus_ppm) // PPM
    if left < least_micros:
        repay_micros = -(-reserve_collateral_micros * PPM // (PPM + bonus_ppm))
    return min(repay_micros, reserve_debt_micros)


class Seizure(NamedTuple):
    """Collateral taken for a repayment, micros: all of it, and the protocol's part of it."""

    seized_micros: int
    protocol_micros: int

    @property
    def liquidator_micros(self) -> int:
        """What the liquidator keeps."""
        return self.seized_micros - self.protocol_micros


def seizure_of(repay_micros: int, *, bonus_ppm: int, protocol_share_ppm: int) -> Seizure:
    """Return what is taken for a repayment: ``floor(x * (1 + bonus))``, and the protocol's part.

    ``protocol = ceil((seized - floor(seized / (1 + bonus))) * share)`` (Aave v3).
    """
    seized = repay_micros * (PPM + bonus_ppm) // PPM
    bonus = seized - seized * PPM // (PPM + bonus_ppm)
    return Seizure(seized, -(-bonus * protocol_share_ppm // PPM))


def bonus_at(
    *, debt_micros: int, equity_micros: int, least_ppm: int, most_ppm: int, most_at_ppm: int
) -> int:
    """Return the bonus at a health factor below 1, ppm, rounded down (Aave v4).

    ``b = b_min + (b_max - b_min) * (1 - HF) / (1 - HF_max)``; `most_ppm` where the factor is at
    most `most_at_ppm`, `least_ppm` where it is 1 or more.
    """
    if equity_micros >= debt_micros:
        return least_ppm
    if PPM * equity_micros <= most_at_ppm * debt_micros:
        return most_ppm
    missing = (debt_micros - equity_micros) * PPM
    return least_ppm + (most_ppm - least_ppm) * missing // ((PPM - most_at_ppm) * debt_micros)


def helping_bonus(
    bonus_ppm: int,
    *,
    debt_micros: int,
    collateral_micros: int,
    equity_micros: int,
    threshold_ppm: int,
) -> int:
    """Return the bonus, lowered until a step helps the account, ppm, rounded down.

    It must leave the account solvent, ``(1 + i) * D <= C``, and not lower the health factor,
    ``(1 + i) * LT <= HF``: else it is ``max(0, min(C/D - 1, HF/LT - 1))``.

    Parameters
    ----------
    bonus_ppm : int
        Bonus by the rules.
    debt_micros, collateral_micros, equity_micros : int
        All debt > 0, all collateral before and after its thresholds.
    threshold_ppm : int
        Of the collateral taken, > 0.
    """
    solvent = collateral_micros * PPM // debt_micros - PPM
    rising = equity_micros * PPM * PPM // (debt_micros * threshold_ppm) - PPM
    return max(0, min(bonus_ppm, solvent, rising))
