"""The requirement of a whole underlying: a tree of portfolio terms (MODEL.md 3.7, 3.8).

A tree is a run of steps in postfix order: a term pushes what it requires, ``sum``, ``max``, ``min``
and ``scale`` work on what was pushed. Every term requires something at initial and at maintenance;
liquidation ends at maintenance unless the preset says otherwise.
"""

from __future__ import annotations

import math

from numba.extending import register_jitable

from solvent.kernel.elementary import logarithm, normal_cdf
from solvent.kernel.option_margin import StandardRules, option_margin_of
from solvent.kernel.portfolio import Book, Prices
from solvent.kernel.scenario_margin import (
    ContingencyRules,
    ScenarioRules,
    contingencies_of,
    initial_share,
    scan_of,
)
from solvent.kernel.terms import (
    STEP_CONTINGENCIES,
    STEP_DELTA_FLOOR,
    STEP_MAX,
    STEP_MIN,
    STEP_SCALE,
    STEP_SCAN,
    STEP_SHORT_MINIMUM,
    STEP_STANDARD,
    STEP_SUM,
    Terms,
)
from solvent.kernel.workspace import Workspace

__all__ = ["underlying_requirement"]

_LEAST_DEVIATION = 1e-100


@register_jitable
def _scenario_rules(terms: Terms, row: int) -> ScenarioRules:
    scan = terms.scans[row]
    first = scan["first_scenario"]
    last = first + scan["scenario_count"]
    return ScenarioRules(
        terms.shock[first:last],
        terms.damp[first:last],
        terms.direction[first:last],
        scan["range_up"],
        scan["range_down"],
        scan["least_volatility"],
        scan["short_power"],
        scan["long_power"],
        scan["floor_days"],
        scan["loss_maintenance"],
        scan["loss_initial"],
        scan["gain_share"],
        scan["gain_rate_share"],
        scan["gain_rate_more"],
        scan["loss_share"],
        scan["loss_rate_share"],
        scan["loss_rate_more"],
        scan["basis_up"],
        scan["basis_down"],
        scan["basis_share"],
        scan["basis_share_a_year"],
        scan["peg"],
        scan["peg_factor"],
        scan["linear_cap"],
        scan["linear_base"],
        scan["abs_cap"],
        scan["abs_base"],
        scan["least_width"],
        scan["width"],
        scan["width_volatility"],
        scan["width_slope"],
        ContingencyRules(0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    )


@register_jitable
def _standard_rules(terms: Terms, row: int) -> StandardRules:
    standard = terms.standards[row]
    return StandardRules(
        standard["initial_share"],
        standard["initial_least"],
        standard["maintenance_call"],
        standard["maintenance_put"],
        standard["maintenance_put_value"],
        standard["put_ratio"],
        standard["unpaired_initial"],
        standard["unpaired_maintenance"],
        standard["linear_initial"],
        standard["linear_maintenance"],
        standard["base_initial"],
        standard["base_maintenance"],
        standard["quality_threshold"],
        standard["quality_factor"],
        standard["peg"],
        standard["peg_factor"],
        standard["has_max_loss"] != 0.0,
    )


@register_jitable
def _contingency_rules(terms: Terms, row: int) -> ContingencyRules:
    charge = terms.charges[row]
    return ContingencyRules(
        charge["linear_maintenance"],
        charge["linear_more"],
        charge["option_maintenance"],
        charge["option_more"],
        charge["quality_threshold"],
        charge["quality_factor"],
    )


@register_jitable
def _expiry_deltas(book: Book, expiry: int) -> tuple[float, float]:
    """Return net and gross delta of the options of one expiry, in coins (Black-76)."""
    net = 0.0
    gross = 0.0
    root = math.sqrt(max(book.years[expiry], 0.0))
    log_forward = logarithm(book.forward[expiry])
    for row in range(book.first[expiry], book.first[expiry + 1]):
        width = max(book.volatility[row] * root, _LEAST_DEVIATION)
        first = (log_forward - book.log_strike[row]) / width + 0.5 * width
        sign = book.sign[row]
        delta = book.amount[row] * sign * normal_cdf(sign * first)
        net += delta
        gross += abs(delta)
    return net, gross


@register_jitable
def _linear_delta(book: Book) -> tuple[float, float]:
    """Return net and gross size of linear contracts, hedging collateral and debts, in coins."""
    net = 0.0
    gross = 0.0
    for row in range(book.size.size):
        net += book.size[row]
        gross += abs(book.size[row])
    for row in range(book.collateral.size):
        if book.is_hedging[row] != 0:
            held = book.collateral[row] / book.spot
            net += held
            gross += abs(held)
    return net, gross


@register_jitable
def _delta_floor(book: Book, net_share: float, hedged_share: float) -> float:
    """Return ``(net * |net delta| + hedged * (gross - |net|) / 2) * S`` (Paradex)."""
    net, gross = _linear_delta(book)
    for expiry in range(book.forward.size):
        more_net, more_gross = _expiry_deltas(book, expiry)
        net += more_net
        gross += more_gross
    return float((net_share * abs(net) + hedged_share * 0.5 * (gross - abs(net))) * book.spot)


@register_jitable
def _shorts(book: Book) -> float:
    """Return the spot notional of all short options."""
    shorts = 0.0
    for row in range(book.amount.size):
        shorts -= min(0.0, book.amount[row])
    return shorts * book.spot


@register_jitable
def _linear_delta_of(book: Book, date_us: int) -> float:
    """Return the net size of linear contracts that end at one time, 0 for perpetuals."""
    net = 0.0
    for row in range(book.size.size):
        if book.dates[row] == date_us:
            net += book.size[row]
    return net


@register_jitable
def _is_first_of_its_date(book: Book, row: int) -> bool:
    """Tell whether no option and no linear contract before ends when this one does."""
    for expiry in range(book.ends.size):
        if book.ends[expiry] == book.dates[row]:
            return False
    is_first = True
    for other in range(row):
        is_first = is_first and book.dates[other] != book.dates[row]
    return is_first


@register_jitable
def _offset_between_expiries(book: Book) -> float:
    """Return the spot notional of deltas that cancel between dates; what has none is one more."""
    net = _linear_delta_of(book, 0)
    for row in range(book.collateral.size):
        if book.is_hedging[row] != 0:
            net += book.collateral[row] / book.spot
    longs = max(0.0, net)
    shorts = max(0.0, -net)
    for expiry in range(book.forward.size):
        net, _ = _expiry_deltas(book, expiry)
        net += _linear_delta_of(book, book.ends[expiry])
        longs += max(0.0, net)
        shorts += max(0.0, -net)
    for row in range(book.size.size):
        if book.dates[row] != 0 and _is_first_of_its_date(book, row):
            net = _linear_delta_of(book, book.dates[row])
            longs += max(0.0, net)
            shorts += max(0.0, -net)
    return float(min(longs, shorts) * book.spot)


@register_jitable
def underlying_requirement(
    book: Book, first: int, count: int, terms: Terms, space: Workspace
) -> tuple[float, float, float, int]:
    """Return value of the options, requirement at initial and at maintenance, worst scenario.

    Parameters
    ----------
    book : Book
        What a unit has in one underlying.
    first, count : int
        Steps of the preset's tree; at least one of them prices options.
    terms : Terms
        Parameters.
    space : Workspace
        Its stack and scratch are overwritten, its prices brought up to date.

    Returns
    -------
    tuple of float, float, float, int
        The value is that of the last term that prices options; a requirement may be below 0 (see
        `solvent.kernel.option_margin.option_margin_of`).
    """
    stack = space.stack
    top = 0
    value = 0.0
    worst = -1
    for place in range(first, first + count):
        step = terms.steps[place]["step"]
        row = terms.steps[place]["row"]
        if step in (STEP_SUM, STEP_MAX, STEP_MIN):
            top -= row - 1
            for column in range(2):
                result = stack[top - 1, column]
                for other in range(top, top + row - 1):
                    if step == STEP_SUM:
                        result += stack[other, column]
                    elif step == STEP_MAX:
                        result = max(result, stack[other, column])
                    else:
                        result = min(result, stack[other, column])
                stack[top - 1, column] = result
            continue
        if step == STEP_SCALE:
            stack[top - 1, 0] *= terms.steps[place]["factor"]
            stack[top - 1, 1] *= terms.steps[place]["factor"]
            continue
        initial = 0.0
        maintenance = 0.0
        if step == STEP_SCAN:
            rules = _scenario_rules(terms, row)
            prices = Prices(space.scanned.made_of[row], space.scanned.price[row])
            value, least, worst = scan_of(book, rules, prices, space.scratch)
            initial = -least * initial_share(book, rules)
            maintenance = -least * rules.loss_maintenance
        elif step == STEP_STANDARD:
            prices = Prices(space.today.made_of[0], space.today.price[0])
            value, initial, maintenance = option_margin_of(
                book, _standard_rules(terms, row), prices, space.scratch
            )
        elif step == STEP_CONTINGENCIES:
            maintenance, more = contingencies_of(book, _contingency_rules(terms, row))
            initial = maintenance + more
        else:
            charge = terms.charges[row]
            if step == STEP_DELTA_FLOOR:
                base = _delta_floor(book, charge["net"], charge["hedged"])
            elif step == STEP_SHORT_MINIMUM:
                base = _shorts(book)
            else:
                base = _offset_between_expiries(book)
            initial = base * charge["initial"]
            maintenance = base * charge["maintenance"]
        stack[top, 0] = initial
        stack[top, 1] = maintenance
        top += 1
    return value, stack[0, 0], stack[0, 1], worst
