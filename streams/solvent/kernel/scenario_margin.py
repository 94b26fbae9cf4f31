"""Portfolio margin: the worst that a grid of spot and volatility moves makes of a book.

MODEL.md 3.8, after Derive's PMRM-2. Every scenario revalues the options of each expiry by
Black-76 at a moved forward and a shocked volatility, together with linear contracts and hedging
collateral; tails are dampened; gains and losses against today's value are discounted to be on the
safe side. Two scenarios skew the smile instead of moving spot, and a basis move shifts forwards
alone. To the worst of them come contingencies.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from numba.extending import register_jitable

from solvent.kernel.black import CHUNK, black76_grid
from solvent.kernel.elementary import exponential, logarithm, power
from solvent.kernel.jit import jit
from solvent.kernel.layout import Float64, UInt8
from solvent.kernel.portfolio import (
    DAYS_A_YEAR,
    SECONDS_A_YEAR,
    Book,
    Prices,
    Scratch,
    below,
    is_priced,
    note_priced,
)

__all__ = [
    "DIRECTIONS",
    "MAX_SCENARIOS",
    "ContingencyRules",
    "ScenarioRules",
    "contingencies_of",
    "grid_points",
    "initial_share",
    "scan_of",
    "scenario_margin",
    "scenario_margin_jit",
    "scenario_margin_of",
]

#: What a scenario does to volatility; a code is the place in this tuple.
DIRECTIONS: Final = ("none", "up", "down", "linear", "abs")
_UP: Final = 1
_DOWN: Final = 2
_LINEAR: Final = 3
_ABS: Final = 4

#: Points of a grid beside the scenarios: today, and forwards moved up and down by the basis.
_MORE_POINTS: Final = 3
MAX_SCENARIOS: Final = CHUNK - _MORE_POINTS
#: Grids are filled up to whole vector registers.
_LANES: Final = 8
#: The settlement price is an average over the last half hour: what of it is known moves no more.
_AVERAGING_YEARS: Final = 1_800.0 / SECONDS_A_YEAR
_SHORT_DAYS: Final = 30.0


class ContingencyRules(NamedTuple):
    """Parameters of contingencies, ratios.

    Attributes
    ----------
    linear_maintenance, linear_more, option_maintenance, option_more : float
        Shares of spot notional, at maintenance and on top of it at initial.
    quality_threshold, quality_factor : float
        Quality below which exposures cost at initial.
    """

    linear_maintenance: float
    linear_more: float
    option_maintenance: float
    option_more: float
    quality_threshold: float
    quality_factor: float


class ScenarioRules(NamedTuple):
    """Parameters of scenario margin; shares and rates are ratios, times in years.

    Attributes
    ----------
    shock, damp : float64, shape (S,)
        Spot multiple and damping of each scenario.
    direction : uint8, shape (S,)
        Code of `DIRECTIONS`.
    range_up, range_down, least_volatility : float
        Volatility shock at 30 days, and what it never falls below when shocked upwards.
    short_power, long_power, floor_days : float
        How the shock scales with ``30 days / days left``, up to 30 days and above.
    loss_maintenance, loss_initial : float
        Share of the scan that is required.
    gain_share, gain_rate_share, gain_rate_more : float
        Static discount of a positive value.
    loss_share, loss_rate_share, loss_rate_more : float
        Static mark-up of a negative one.
    basis_up, basis_down, basis_share, basis_share_a_year : float
        Forward multiples of the basis move, and what of its loss counts.
    peg, peg_factor : float
        Stablecoin price below which the scan counts for more, and how much a unit.
    linear_cap, linear_base, abs_cap, abs_base : float
        How far a skew scenario may change volatility.
    least_width, width, width_volatility, width_slope : float
        Distance of strikes from the forward at which it does so.
    beside : ContingencyRules
        What is required beside the scan.
    """

    shock: Float64
    damp: Float64
    direction: UInt8
    range_up: float
    range_down: float
    least_volatility: float
    short_power: float
    long_power: float
    floor_days: float
    loss_maintenance: float
    loss_initial: float
    gain_share: float
    gain_rate_share: float
    gain_rate_more: float
    loss_share: float
    loss_rate_share: float
    loss_rate_more: float
    basis_up: float
    basis_down: float
    basis_share: float
    basis_share_a_year: float
    peg: float
    peg_factor: float
    linear_cap: float
    linear_base: float
    abs_cap: float
    abs_base: float
    least_width: float
    width: float
    width_volatility: float
    width_slope: float
    beside: ContingencyRules


@register_jitable
def grid_points(scenarios: int) -> int:
    """Return the points of a grid of so many scenarios, those that fill it up included."""
    return (scenarios + _MORE_POINTS + _LANES - 1) // _LANES * _LANES


@register_jitable
def _lay_out(book: Book, expiry: int, rules: ScenarioRules, scratch: Scratch, points: int) -> None:
    """Write forwards, their logarithms and volatility shocks of one expiry's grid."""
    scenarios = rules.shock.size
    years = book.years[expiry]
    forward = book.forward[expiry]
    moving = forward * min(max(years, 0.0), _AVERAGING_YEARS) / _AVERAGING_YEARS
    settled = forward - moving
    days = years * DAYS_A_YEAR
    exponent = rules.short_power if days <= _SHORT_DAYS else rules.long_power
    scale = power(_SHORT_DAYS / max(days, rules.floor_days), exponent)
    up = 1.0 + rules.range_up * scale
    down = max(0.0, 1.0 - rules.range_down * scale)
    for point in range(points):
        scratch.forward[point] = forward
        scratch.multiple[point] = 1.0
        scratch.least[point] = 0.0
    for point in range(scenarios):
        direction = rules.direction[point]
        if direction < _LINEAR:
            scratch.forward[point] = rules.shock[point] * moving + settled
        if direction == _UP:
            scratch.multiple[point] = up
            scratch.least[point] = rules.least_volatility
        elif direction == _DOWN:
            scratch.multiple[point] = down
    scratch.forward[scenarios + 1] = rules.basis_up * moving + settled
    scratch.forward[scenarios + 2] = rules.basis_down * moving + settled
    for point in range(points):
        scratch.log_forward[point] = logarithm(scratch.forward[point])


@register_jitable
def _skew(distance: float, cap: float, width: float) -> float:
    """Return the volatility multiple of an option so far from the forward (in logarithms)."""
    change = distance * cap / width
    change = min(cap, change) if distance >= 0.0 else max(-cap, change)
    return max(0.0, 1.0 + change)


@register_jitable
def _static_discount(years: float, rate: float, rules: ScenarioRules) -> tuple[float, float]:
    """Return what a shocked value above 0 falls by with time, and the mark-up of a negative one."""
    falling = rate * rules.gain_rate_share + rules.gain_rate_more
    rising = rate * rules.loss_rate_share + rules.loss_rate_more
    most = exponential(rate * years)
    return (
        exponential(-years * falling),
        min(most, rules.loss_share * exponential(years * rising)),
    )


@register_jitable
def _price_expiry(
    book: Book, expiry: int, rules: ScenarioRules, prices: Prices, scratch: Scratch, points: int
) -> None:
    """Price those of one expiry's options anew that the market has moved for.

    Undiscounted, at each point of the grid.
    """
    _lay_out(book, expiry, rules, scratch, points)
    root = math.sqrt(max(book.years[expiry], 0.0))
    log_forward = logarithm(book.forward[expiry])
    linear_cap = rules.linear_base * root + rules.linear_cap
    abs_cap = rules.abs_base * root + rules.abs_cap
    width = root * rules.width * (rules.width_volatility + rules.width_slope * root)
    width = max(rules.least_width, width)
    for row in range(book.first[expiry], book.first[expiry + 1]):
        if is_priced(book, row, expiry, prices):
            continue
        volatility = book.volatility[row]
        distance = book.log_strike[row] - log_forward
        for point in range(points):
            shocked = max(volatility * scratch.multiple[point], scratch.least[point])
            scratch.deviation[point] = shocked * root
        for point in range(rules.shock.size):
            if rules.direction[point] == _LINEAR:
                skewed = volatility * _skew(distance, linear_cap, width)
                scratch.deviation[point] = skewed * root
            elif rules.direction[point] == _ABS:
                skewed = volatility * _skew(abs(distance), abs_cap, width)
                scratch.deviation[point] = skewed * root
        black76_grid(
            scratch.forward,
            scratch.log_forward,
            scratch.deviation,
            book.strike[row],
            book.log_strike[row],
            book.sign[row],
            points,
            scratch.work,
            prices.price[book.option[row]],
        )
        note_priced(book, row, expiry, prices)


@register_jitable
def _value_expiry(
    book: Book, expiry: int, rules: ScenarioRules, prices: Prices, scratch: Scratch, points: int
) -> None:
    """Write the undiscounted value of one expiry's options at each point of its grid."""
    first, last = book.first[expiry], book.first[expiry + 1]
    for row in range(first, last):
        if not is_priced(book, row, expiry, prices):
            _price_expiry(book, expiry, rules, prices, scratch, points)
            break
    for point in range(points):
        scratch.value[point] = 0.0
    for row in range(first, last):
        amount = book.amount[row]
        price = prices.price[book.option[row]]
        for point in range(points):
            scratch.value[point] += amount * price[point]


@register_jitable
def contingencies_of(book: Book, rules: ContingencyRules) -> tuple[float, float]:
    """Return what is required beside the scan: at maintenance, and on top of it at initial."""
    maintenance = 0.0
    more = 0.0
    linear_quality = book.spot_quality
    for row in range(book.size.size):
        notional = abs(book.size[row]) * book.spot
        maintenance += notional * rules.linear_maintenance
        quality = min(book.spot_quality, book.linear_quality[row])
        doubt = below(rules.quality_threshold, quality) * rules.quality_factor
        more += notional * (rules.linear_more + doubt)
        linear_quality = min(linear_quality, quality)
    for expiry in range(book.forward.size):
        gross = 0.0
        naked = 0.0
        at_strike = 0.0
        for row in range(book.first[expiry], book.first[expiry + 1]):
            gross += abs(book.amount[row])
            if row > book.first[expiry] and book.strike[row] != book.strike[row - 1]:
                naked += max(0.0, -at_strike)
                at_strike = 0.0
            at_strike += book.amount[row]
        naked += max(0.0, -at_strike)
        maintenance += naked * book.spot * rules.option_maintenance
        quality = min(book.quality[expiry], linear_quality)
        doubt = below(rules.quality_threshold, quality) * rules.quality_factor
        more += book.spot * (naked * rules.option_more + gross * doubt)
    for row in range(book.collateral.size):
        value = abs(book.collateral[row])
        maintenance += value * book.haircut[row]
        quality = min(book.collateral_quality[row], book.spot_quality)
        doubt = below(rules.quality_threshold, quality) * rules.quality_factor
        more += value * (book.haircut_more[row] + doubt)
    return maintenance, more


@register_jitable
def scan_of(
    book: Book, rules: ScenarioRules, prices: Prices, scratch: Scratch
) -> tuple[float, float, int]:
    """Return value of the options, what the worst scenario makes of the book (<= 0), and which.

    Parameters
    ----------
    book : Book
        One unit in one underlying. Values of linear contracts and of collateral are the caller's to
        add to equity; here they only move.
    rules : ScenarioRules
        At most `MAX_SCENARIOS` scenarios.
    prices : Prices
        Of these rules, at `grid_points` points; made anew where the market has moved.
    scratch : Scratch
        Overwritten; afterwards ``total`` holds the gain of each scenario.

    Returns
    -------
    tuple of float, float, int
        Value of all options today; the least gain; the scenario that has it, -1 if none loses, S if
        it is the basis move.
    """
    scenarios = rules.shock.size
    today, basis_up, basis_down = scenarios, scenarios + 1, scenarios + 2
    points = grid_points(scenarios)
    moving = 0.0
    for row in range(book.size.size):
        moving += book.size[row] * book.price[row]
    for row in range(book.collateral.size):
        if book.is_hedging[row] != 0:
            moving += book.collateral[row]
    for point in range(scenarios):
        scratch.total[point] = moving * (rules.shock[point] - 1.0)
    value = 0.0
    basis = 0.0
    for expiry in range(book.forward.size):
        years = book.years[expiry]
        rate = max(book.rate[expiry], 0.0)
        discount = exponential(-rate * years)
        _value_expiry(book, expiry, rules, prices, scratch, points)
        now = scratch.value[today] * discount
        value += now
        fall, rise = _static_discount(years, rate, rules)
        for point in range(scenarios):
            shocked = scratch.value[point] * discount
            discounted = shocked * rules.gain_share * fall if shocked > 0.0 else shocked * rise
            change = discounted - now
            scratch.total[point] += -abs(change) if rules.direction[point] >= _LINEAR else change
        least = min(scratch.value[basis_up], scratch.value[basis_down]) * discount - now
        share = rules.basis_share + rules.basis_share_a_year * years
        basis += min(least, 0.0) * share
    least = 0.0
    worst = -1
    for point in range(scenarios):
        scratch.total[point] *= rules.damp[point]
        if scratch.total[point] < least:
            least = scratch.total[point]
            worst = point
    if basis < least:
        least = basis
        worst = scenarios
    return value, least, worst


@register_jitable
def initial_share(book: Book, rules: ScenarioRules) -> float:
    """Return what share of the worst loss is required at initial: more below the peg."""
    return rules.loss_initial + max(0.0, rules.peg - book.stable) * rules.peg_factor


@register_jitable
def scenario_margin_of(
    book: Book, rules: ScenarioRules, prices: Prices, scratch: Scratch
) -> tuple[float, float, float, int]:
    """Return value of the options, requirements at initial and maintenance (>= 0), worst scenario.

    Parameters and the worst scenario are those of `scan_of`.
    """
    value, least, worst = scan_of(book, rules, prices, scratch)
    maintenance, more = contingencies_of(book, rules.beside)
    return (
        value,
        -least * initial_share(book, rules) + maintenance + more,
        -least * rules.loss_maintenance + maintenance,
        worst,
    )


def scenario_margin(
    book: Book, rules: ScenarioRules, prices: Prices, scratch: Scratch, out: Float64
) -> int:
    """Write what `scenario_margin_of` returns: ``out = value, initial, maintenance``."""
    value, initial, maintenance, worst = scenario_margin_of(book, rules, prices, scratch)
    out[0] = value
    out[1] = initial
    out[2] = maintenance
    return int(worst)


scenario_margin_jit = jit(scenario_margin)
