"""What a balance counts under terms: weights, tiers, caps and cautious prices (MODEL.md 3.2).

Leaves for one balance at one level; amounts are float64 in coins and settlement units. A term that
is off has parameters that change nothing (`solvent.kernel.terms.ASSET_TERMS`).
"""

from __future__ import annotations

import math

from numba.extending import register_jitable

from solvent.kernel.layout import INITIAL, NONE, Marks, Rules
from solvent.kernel.terms import SKEWED, TIERS_OF_COINS, TIERS_OF_VALUE

__all__ = [
    "asset_weight",
    "cautious_prices",
    "debt_weight",
    "feed_value",
    "size_discount",
    "size_premium",
    "tiered_value",
]


@register_jitable
def feed_value(feed: int, rules: Rules, marks: Marks) -> float:
    """Return what a feed says, in settlement units, or as a number where it is no price."""
    return float(float(marks.price[feed]) / rules.feed_units[feed])


@register_jitable
def size_discount(weight: float, imf: float, size: float) -> float:
    """Return C4 of something held: ``min(w, 1.1 / (1 + imf * sqrt(size)))`` (Drift)."""
    if imf == 0.0:
        return weight
    return min(weight, 1.1 / (1.0 + imf * math.sqrt(size)))


@register_jitable
def size_premium(weight: float, imf: float, size: float) -> float:
    """Return C4 of something owed, and R4: ``max(w, 0.8 * w + imf * sqrt(size))`` (Drift)."""
    if imf == 0.0:
        return weight
    return max(weight, 0.8 * weight + imf * math.sqrt(size))


@register_jitable
def cautious_prices(
    preset: int, asset: int, level: int, rules: Rules, marks: Marks
) -> tuple[float, float, float]:
    """Return price, the lower price of what is held and the higher of what is owed (C6, C7).

    The settlement asset is worth 1. Feeds are taken as they are: whether they may judge is the
    caller's to ask.
    """
    feed = rules.asset_feed[asset]
    if feed == NONE:
        return 1.0, 1.0, 1.0
    price = feed_value(feed, rules, marks)
    terms = rules.terms.asset[preset, asset]
    low = high = price
    if terms["confidence_k"] > 0.0:
        confidence = float(marks.confidence[feed]) / rules.feed_units[feed]
        width = min(terms["confidence_k"] * confidence, terms["confidence_most"] * price)
        low = price - width
        high = price + width
    if terms["reference_levels"] >> level & 1 != 0:
        reference = feed_value(terms["reference_feed"], rules, marks)
        low = min(low, reference)
        high = max(high, reference)
    return price, low, high


@register_jitable
def tiered_value(
    coins: float, price: float, preset: int, asset: int, level: int, rules: Rules
) -> float:
    """Return C2: each tier counts what of the balance lies in it at its own ratio."""
    terms = rules.terms.asset[preset, asset]
    is_of_coins = terms["kind"] == TIERS_OF_COINS
    whole = coins if is_of_coins else coins * price
    counted = 0.0
    lower = 0.0
    first = terms["first_tier"]
    for row in range(first, first + terms["tier_count"]):
        tier = rules.terms.tiers[row]
        if whole <= lower:
            break
        counted += (min(whole, tier["upper"]) - lower) * tier["ratio"][level]
        lower = tier["upper"]
    return float(counted * price if is_of_coins else counted)


@register_jitable
def asset_weight(
    coins: float,
    price: float,
    preset: int,
    asset: int,
    level: int,
    category: int,
    rules: Rules,
    marks: Marks,
) -> float:
    """Return what share of a positive balance counts (C1, C3 to C5, C9); not for tiers.

    Parameters
    ----------
    coins, price : float
        Balance, and price in settlement units.
    category : int
        The one category of all that the unit holds and owes, `NONE` if there is none.
    """
    terms = rules.terms.asset[preset, asset]
    weight = rules.asset_weight[preset, level, asset]
    if terms["kind"] == SKEWED:
        haircut = coins / terms["skew_scale"] * terms["skew_scalar"]
        weight = 1.0 - min(max(haircut, terms["skew_lower"]), terms["skew_upper"])
    if category != NONE:
        of_category = rules.terms.category_weight[preset, category, level]
        if of_category >= 0.0:
            weight = of_category
    if level == INITIAL and terms["deposits_feed"] != NONE:
        pool = feed_value(terms["deposits_feed"], rules, marks) * price
        if pool > terms["deposits_start"]:
            weight *= max(terms["scale_floor"], terms["deposits_start"] / pool)
    return float(size_discount(weight, terms["imf"], coins))


@register_jitable
def debt_weight(
    coins: float, price: float, preset: int, asset: int, level: int, rules: Rules, marks: Marks
) -> float:
    """Return at what multiple a debt of so many coins (> 0) counts (C1, C4, C5)."""
    terms = rules.terms.asset[preset, asset]
    weight = rules.debt_weight[preset, level, asset]
    if level == INITIAL and terms["borrows_feed"] != NONE:
        pool = feed_value(terms["borrows_feed"], rules, marks) * price
        if pool > terms["borrows_start"]:
            weight *= pool / terms["borrows_start"]
    return float(size_premium(weight, terms["imf"], coins))


@register_jitable
def is_tiered(preset: int, asset: int, category: int, rules: Rules) -> bool:
    """Tell whether a balance counts by tiers: not where all is of one category with its own say."""
    kind = rules.terms.asset[preset, asset]["kind"]
    if category != NONE and rules.terms.category_weight[preset, category, INITIAL] >= 0.0:
        return False
    return bool(kind in (TIERS_OF_COINS, TIERS_OF_VALUE))
