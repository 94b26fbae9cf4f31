"""Wrong-way risk: whether collateral falls when positions lose (MODEL.md 8).

The measure is the correlation of the return of a unit's collateral with the pnl of its positions,
at their present sizes, over a history of prices told at equal steps: exponentially weighted, decay
0.97 a step, means taken as 0 (RiskMetrics). An alarm for people; no margin depends on it. Linear
and inverse positions count at their notional; the correlation of a book with options would need
their deltas over time, and is not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, Final

import numpy as np

from solvent.domain.verdict import Level
from solvent.engine.appraise import Appraisal
from solvent.engine.describe import float_text
from solvent.kernel.layout import Float64
from solvent.rules.compile import CompiledRulebook

__all__ = ["MAX_PRICES", "MIN_PRICES", "correlation", "wrong_way_text"]

#: Fewest and most prices of a feed: two returns at least, and what has not decayed to nothing.
MIN_PRICES: Final = 3
MAX_PRICES: Final = 10_000
_DECAY: Final = 0.97
#: Above this, and with more than half of equity required, somebody should look (MODEL.md 8).
_WARNED: Final = 0.5
_LARGE_SHARE: Final = 0.5


def correlation(one: Float64, other: Float64) -> float | None:
    """Return the exponentially weighted correlation of two series about 0, the newest last.

    None where one of them never moves.
    """
    weights = _DECAY ** np.arange(one.size - 1, -1, -1, dtype=np.float64)
    both = float((weights * one * other).sum())
    own = float((weights * one * one).sum()) * float((weights * other * other).sum())
    return max(-1.0, min(1.0, both / sqrt(own))) if own > 0.0 else None


def wrong_way_text(
    rulebook: CompiledRulebook,
    appraisal: Appraisal,
    assets: tuple[int, ...],
    returns: Mapping[int, Float64],
) -> dict[str, Any]:
    """Return the correlation of a unit's collateral with its positions, and whether it warns.

    Parameters
    ----------
    rulebook : CompiledRulebook
        Names the feeds of assets and instruments.
    appraisal : Appraisal
        The unit weighed.
    assets : tuple of int
        Of its balances, in their order.
    returns : mapping of feed to float64, shape (n,)
        Simple returns, the oldest first, of every feed whose history is told.

    Returns
    -------
    dict
        ``correlation`` as decimal text, None without collateral or positions that move, where the
        history of a feed is missing and for a book with options; ``warning``, True where it is
        above 0.5 and the maintenance requirement exceeds half of equity.
    """
    found = None
    collateral = _collateral(rulebook, appraisal, assets, returns)
    pnl = _pnl(rulebook, appraisal, returns)
    if collateral is not None and pnl is not None:
        found = correlation(collateral, pnl)
    level = Level.MAINTENANCE
    required, equity = float(appraisal.requirement[level]), float(appraisal.equity[level])
    is_large = required > _LARGE_SHARE * equity
    return {
        "correlation": None if found is None else float_text(found),
        "warning": found is not None and found > _WARNED and is_large,
    }


def _collateral(
    rulebook: CompiledRulebook,
    appraisal: Appraisal,
    assets: tuple[int, ...],
    returns: Mapping[int, Float64],
) -> Float64 | None:
    """Return what collateral gains a step, in settlement units; None where a feed is missing."""
    gained = np.zeros(_length(returns))
    for asset, value in zip(assets, appraisal.balance_value.tolist(), strict=True):
        feed = rulebook.assets[asset].index_feed
        if value <= 0.0 or feed is None:
            continue  # debts are no collateral, and the settlement asset does not move
        if feed not in returns:
            return None
        gained += value * returns[feed]
    return gained


def _pnl(
    rulebook: CompiledRulebook, appraisal: Appraisal, returns: Mapping[int, Float64]
) -> Float64 | None:
    """Return what positions gain a step; None where a feed is missing, or with an option."""
    gained = np.zeros(_length(returns))
    for index, value in zip(appraisal.instruments, appraisal.position_value.tolist(), strict=True):
        instrument = rulebook.instruments[index]
        if instrument.option is not None or instrument.mark_feed not in returns:
            return None
        gained += value * returns[instrument.mark_feed]
    return gained


def _length(returns: Mapping[int, Float64]) -> int:
    return next((series.size for series in returns.values()), 0)
