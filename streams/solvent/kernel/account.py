"""A whole margin unit under terms: what it is worth and must hold, at every level (MODEL.md 3.1).

Positions come first, ascending by instrument, then balances, ascending by asset, then underlyings;
what each adds stays in the `Workspace`, so that a figure can be explained by its parts.
`solvent.kernel.evaluate` rounds and judges.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.extending import register_jitable

from solvent.kernel.collateral import (
    asset_weight,
    cautious_prices,
    debt_weight,
    feed_value,
    is_tiered,
    size_premium,
    tiered_value,
)
from solvent.kernel.jit import jit
from solvent.kernel.layout import (
    INITIAL,
    LEVELS,
    LIQUIDATION_END,
    MAINTENANCE,
    NONE,
    Balances,
    Marks,
    Orders,
    Positions,
    Rules,
    Units,
)
from solvent.kernel.portfolio import SECONDS_A_YEAR, Book
from solvent.kernel.reference import Reference, at_address
from solvent.kernel.requirement import counted_pnl, position_requirement
from solvent.kernel.safe_move import feed_bit
from solvent.kernel.terms import BRACKETS, KIND_INVERSE, KIND_OPTION
from solvent.kernel.tree import underlying_requirement
from solvent.kernel.workspace import Tables, Workspace

__all__ = ["evaluate_terms", "evaluate_terms_at", "terms_entry"]

_LEVEL_COUNT = len(LEVELS)
_MICROS = 1e6
_PICOS = 1e12
_PPM = 1e6
_INDEX_ONE = 1e18
_YEAR_US = SECONDS_A_YEAR * 1e6

# -- what stands in the way of a verdict
BLIND = 1  # something owed or open has no price that may judge
UNPRICED_COLLATERAL = 2
INDEBTED = 4  # something is owed, or a requirement hides in equity (P6)

# -- rows of `Workspace.book`
_AMOUNT, _STRIKE, _LOG_STRIKE, _SIGN, _VOLATILITY = range(5)
_FORWARD, _YEARS, _RATE, _QUALITY = range(5, 9)
_SIZE, _PRICE, _LINEAR_QUALITY = range(9, 12)
_HELD, _HELD_QUALITY, _NO_HAIRCUT = range(12, 15)


@register_jitable
def _is_usable(feed: int, marks: Marks) -> bool:
    """Tell whether a feed may judge; one that is not there always may."""
    return bool(feed == NONE or marks.is_usable[feed] != 0)


@register_jitable
def _is_asset_usable(preset: int, asset: int, rules: Rules, marks: Marks) -> bool:
    terms = rules.terms.asset[preset, asset]
    return bool(
        _is_usable(rules.asset_feed[asset], marks)
        and _is_usable(terms["reference_feed"], marks)
        and _is_usable(terms["deposits_feed"], marks)
        and _is_usable(terms["borrows_feed"], marks)
    )


@register_jitable
def _is_market_usable(preset: int, instrument: int, rules: Rules, marks: Marks) -> bool:
    terms = rules.terms.market[preset, instrument]
    contract = rules.terms.instruments[instrument]
    return bool(
        _is_usable(rules.instrument_feed[instrument], marks)
        and _is_usable(terms["interest_feed"], marks)
        and _is_usable(terms["net_pnl_feed"], marks)
        and _is_usable(contract["funding_feed"], marks)
        and _is_asset_usable(preset, contract["settles_in"], rules, marks)
    )


@register_jitable
def _coins(lots: float, instrument: int, mark: float, rules: Rules) -> float:
    """Return the coins that lots are worth; an inverse contract has a fixed value instead."""
    contract = rules.terms.instruments[instrument]
    if contract["kind"] == KIND_INVERSE:
        return float(lots * contract["face"] / mark)
    return float(lots * rules.lot_numerator[instrument] / rules.lot_units[instrument])


@register_jitable
def _category_of(unit: int, units: Units, balances: Balances, rules: Rules) -> int:
    """Return the one category of all a unit holds and owes, `NONE` if there is none (C9)."""
    if units.position_count[unit] > 0:
        return NONE
    category = NONE
    first = units.first_balance[unit]
    for row in range(first, first + units.balance_count[unit]):
        if balances.quanta[row] == 0:
            continue
        own = rules.terms.assets[balances.asset[row]]["category"]
        if own == NONE or (category != NONE and own != category):
            return NONE
        category = own
    return int(category)


@register_jitable
def _add_position(
    place: int,
    row: int,
    order: int,
    instrument: int,
    preset: int,
    positions: Positions,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
) -> None:
    """Add one market of linear or inverse contracts, open orders included, at all levels.

    `row` is that of the position and `order` that of the orders, `NONE` where there are none.
    """
    contract = rules.terms.instruments[instrument]
    of_unit = rules.terms.preset[preset]
    asset = contract["settles_in"]
    is_inverse = contract["kind"] == KIND_INVERSE
    mark = feed_value(rules.instrument_feed[instrument], rules, marks)
    lots = cost = owed = 0.0
    if row != NONE:
        lots = float(positions.size_lots[row])
        cost = float(positions.cost_basis_micros[row]) / rules.asset_units[asset]
        if contract["funding_feed"] != NONE:
            passed = marks.price[contract["funding_feed"]] - positions.funding_index[row]
            owed = lots * float(passed) / _PICOS
    coins = _coins(lots, instrument, mark, rules)
    bids = asks = order_cost = open_loss = leverage = 0.0
    if order != NONE:
        bids = _coins(float(orders.bid_lots[order]), instrument, mark, rules)
        asks = _coins(float(orders.ask_lots[order]), instrument, mark, rules)
        order_cost = of_unit["order_cost"] * float(orders.order_count[order])
        if of_unit["is_own_leverage"] != 0:
            leverage = float(orders.leverage_ppm[order]) / _PPM
        if of_unit["is_open_loss"] != 0:
            bid_value = float(orders.bid_value_micros[order]) / _MICROS
            ask_value = float(orders.ask_value_micros[order]) / _MICROS
            open_loss = max(0.0, bid_value - bids * mark) + max(0.0, asks * mark - ask_value)
            open_loss += of_unit["order_fee"] * (bid_value + ask_value)
    pnl = cost - coins if is_inverse else coins * mark - cost
    pnl -= owed
    price, _, _ = cautious_prices(preset, asset, MAINTENANCE, rules, marks)
    _note_position(
        coins * mark, bids * mark, asks * mark, leverage, cost, preset, instrument, rules, space
    )
    space.position_value[place] = coins * price if is_inverse else coins * mark * price
    space.position_pnl[place] = pnl * price
    space.raw[0] += pnl * price
    for level in range(_LEVEL_COUNT):
        _, low, high = cautious_prices(preset, asset, level, rules, marks)
        exposure = abs(coins)
        has_orders = of_unit["order_levels"] >> level & 1 != 0
        if has_orders:
            exposure = max(abs(coins + bids), abs(coins - asks))
        required = position_requirement(
            exposure,
            high if is_inverse else mark * high,
            abs(cost) * high,
            coins,
            bids if has_orders else 0.0,
            asks if has_orders else 0.0,
            leverage,
            owed * high,
            preset,
            instrument,
            level,
            rules,
            marks,
        )
        if has_orders:
            required += order_cost
        if level == INITIAL:
            required += open_loss if is_inverse else open_loss * high
            space.move[0] += 2.0 * required
        worth = pnl * price
        if of_unit["is_settle_price"] != 0 and of_unit["is_fold"] == 0:
            worth = pnl * (low if pnl > 0.0 else high)
        counted = counted_pnl(worth, required, preset, instrument, level, rules, marks)
        if rules.terms.market[preset, instrument]["is_net"] != 0:
            required = 0.0
        if level == LIQUIDATION_END:
            counted += of_unit["end_buffer"] * min(counted, 0.0)
        space.position_equity[place, level] = counted
        space.position_required[place, level] = required
        space.required[level] += required
        if of_unit["is_fold"] != 0:
            space.fold[asset, level] += counted / price
        else:
            space.equity[level] += counted


@register_jitable
def _note(feed: int, space: Workspace) -> None:
    """Note that a feed was read."""
    if feed != NONE:
        space.seen[0] |= feed_bit(feed)


@register_jitable
def _note_position(
    notional: float,
    bids: float,
    asks: float,
    leverage: float,
    cost: float,
    preset: int,
    instrument: int,
    rules: Rules,
    space: Workspace,
) -> None:
    """Note what a market adds to the swing of a unit, but for its requirement.

    Notional, with orders, moves with the mark. What a market requires is in proportion to the mark,
    so it moves by at most itself, which is added where it is known; brackets rise faster, by at
    most the rate of the last.
    """
    terms = rules.terms.market[preset, instrument]
    exposure = abs(notional) + bids + asks
    space.move[0] += 2.0 * exposure
    if terms["kind"] == BRACKETS:
        space.move[0] += 2.0 * exposure * rules.requirement_rate[preset, INITIAL, instrument]
    if leverage > 0.0:
        space.move[0] += 2.0 * exposure / leverage
    space.move[1] += abs(cost) + terms["add"] + terms["least"]
    space.seen[1] += 2


@register_jitable
def _note_balance(
    coins: float, price: float, asset: int, preset: int, rules: Rules, space: Workspace
) -> None:
    """Note what a balance adds to the swing of a unit: its value, at the largest weight."""
    terms = rules.terms.asset[preset, asset]
    of_unit = rules.terms.preset[preset]
    magnitude = abs(coins) * price
    if coins < 0.0:
        weight = rules.debt_weight[preset, INITIAL, asset]
        magnitude *= size_premium(weight, terms["imf"], -coins) + of_unit["end_buffer"]
        if of_unit["is_debt_required"] != 0:
            magnitude *= 2.0  # what clears a margin call grows with the requirement
    if rules.asset_feed[asset] != NONE:
        space.move[0] += magnitude
    else:
        space.move[1] += magnitude
    space.seen[1] += 2
    _note(rules.asset_feed[asset], space)
    _note(terms["reference_feed"], space)
    _note(terms["deposits_feed"], space)
    _note(rules.terms.assets[asset]["deposit_index_feed"], space)
    _note(rules.terms.assets[asset]["borrow_index_feed"], space)


@register_jitable
def _add_balance(
    place: int,
    coins: float,
    asset: int,
    preset: int,
    category: int,
    is_priced: bool,
    rules: Rules,
    marks: Marks,
    space: Workspace,
) -> None:
    """Add one balance, and the pnl that joins it before weighting (P7), at all levels."""
    terms = rules.terms.asset[preset, asset]
    of_unit = rules.terms.preset[preset]
    price, _, _ = cautious_prices(preset, asset, MAINTENANCE, rules, marks)
    _, _, highest = cautious_prices(preset, asset, INITIAL, rules, marks)
    _note_balance(coins, max(price, highest), asset, preset, rules, space)
    space.balance_value[place] = coins * price
    space.raw[0] += coins * price
    for level in range(_LEVEL_COUNT):
        _, low, high = cautious_prices(preset, asset, level, rules, marks)
        whole = coins + space.fold[asset, level]
        counted = required = 0.0
        if whole > 0.0 and is_priced:
            held = min(whole, terms["cap"])
            if is_tiered(preset, asset, category, rules):
                counted = tiered_value(held, low, preset, asset, level, rules)
                counted = min(counted, terms["cap_value"])
            else:
                weight = asset_weight(held, price, preset, asset, level, category, rules, marks)
                counted = min(held * low * weight, terms["cap_value"])
                if terms["is_required"] != 0:
                    # the same health as above, whatever the cap leaves of the balance
                    whole_value = counted / weight if weight > 0.0 else held * low
                    required = whole_value * (1.0 - weight)
                    counted = whole_value
        elif whole < 0.0:
            weight = debt_weight(-whole, price, preset, asset, level, rules, marks)
            counted = whole * high * weight
            if of_unit["is_debt_required"] != 0:
                required = -counted
                counted = 0.0
            if level == LIQUIDATION_END:
                required += of_unit["end_buffer"] * -whole * high
        space.balance_equity[place, level] = counted
        space.balance_required[place, level] = required
        space.equity[level] += counted
        space.required[level] += required


@register_jitable
def _quality(feed: int, rules: Rules, marks: Marks) -> float:
    return 1.0 if feed == NONE else feed_value(feed, rules, marks)


@register_jitable
def _lay_options(
    unit: int,
    underlying: int,
    units: Units,
    positions: Positions,
    rules: Rules,
    marks: Marks,
    space: Workspace,
) -> tuple[int, int, int, bool]:
    """Write a unit's contracts in one underlying to the book.

    Return how many options, expiries and linear contracts there are, and whether every feed that
    they need may judge.
    """
    instruments = rules.terms.instruments
    is_usable = True
    first = units.first_position[unit]
    last = first + units.position_count[unit]
    options = linear = 0
    for row in range(first, last):
        instrument = positions.instrument[row]
        if instruments[instrument]["underlying"] != underlying or positions.size_lots[row] == 0:
            continue
        is_usable = is_usable and _is_usable(instruments[instrument]["quality_feed"], marks)
        if instruments[instrument]["kind"] != KIND_OPTION:
            mark = feed_value(rules.instrument_feed[instrument], rules, marks)
            lots = float(positions.size_lots[row])
            space.book[_SIZE, linear] = _coins(lots, instrument, mark, rules)
            space.book[_PRICE, linear] = mark
            feed = instruments[instrument]["quality_feed"]
            space.book[_LINEAR_QUALITY, linear] = _quality(feed, rules, marks)
            space.book_dates[linear] = instruments[instrument]["expires_us"]
            linear += 1
            continue
        place = options  # by rank: an insertion sort, as instruments come nearly in that order
        rank = instruments[instrument]["rank"]
        while place > 0:
            before = positions.instrument[space.order[place - 1]]
            if instruments[before]["rank"] < rank:
                break
            space.order[place] = space.order[place - 1]
            place -= 1
        space.order[place] = row
        options += 1
    expiries = 0
    latest = NONE
    for place in range(options):
        row = space.order[place]
        instrument = positions.instrument[row]
        contract = instruments[instrument]
        if contract["expiry"] != latest:
            latest = contract["expiry"]
            expiry = rules.terms.expiries[latest]
            space.book_first[expiries] = place
            left_us = float(expiry["expires_us"] - marks.clock_us[0])
            space.book_ends[expiries] = expiry["expires_us"]
            space.book[_FORWARD, expiries] = feed_value(expiry["forward_feed"], rules, marks)
            space.book[_YEARS, expiries] = max(left_us, 0.0) / _YEAR_US
            rate = 0.0
            if expiry["rate_feed"] != NONE:
                rate = feed_value(expiry["rate_feed"], rules, marks)
            space.book[_RATE, expiries] = rate
            space.book[_QUALITY, expiries] = _quality(expiry["quality_feed"], rules, marks)
            is_usable = (
                is_usable
                and _is_usable(expiry["forward_feed"], marks)
                and _is_usable(expiry["rate_feed"], marks)
                and _is_usable(expiry["quality_feed"], marks)
            )
            expiries += 1
        lots = float(positions.size_lots[row])
        space.book[_AMOUNT, place] = _coins(lots, instrument, 1.0, rules)
        space.book[_STRIKE, place] = contract["strike"]
        space.book[_LOG_STRIKE, place] = contract["log_strike"]
        space.book[_SIGN, place] = contract["sign"]
        space.book[_VOLATILITY, place] = feed_value(contract["volatility_feed"], rules, marks)
        space.book_option[place] = instrument
        is_usable = is_usable and _is_usable(contract["volatility_feed"], marks)
    space.book_first[expiries] = options
    return options, expiries, linear, bool(is_usable)


@register_jitable
def _add_underlying(
    unit: int,
    underlying: int,
    units: Units,
    positions: Positions,
    balances: Balances,
    rules: Rules,
    marks: Marks,
    space: Workspace,
) -> bool:
    """Add what a unit's book in one underlying requires; return whether its feeds may judge."""
    options, expiries, linear, is_usable = _lay_options(
        unit, underlying, units, positions, rules, marks, space
    )
    held = 0
    first = units.first_balance[unit]
    for place in range(units.balance_count[unit]):
        asset = balances.asset[first + place]
        quanta = balances.quanta[first + place]
        of_asset = rules.terms.assets[asset]["underlying"]
        if rules.asset_feed[asset] == NONE or quanta == 0:
            continue
        if quanta > 0 and rules.asset_weight[units.preset[unit], MAINTENANCE, asset] == 0.0:
            continue  # what is no collateral hedges nothing and has nothing to lose
        if of_asset != underlying and (quanta < 0 or of_asset != NONE or underlying != 0):
            continue  # without an underlying: the first one's to doubt, if it is held
        space.book[_HELD, held] = space.balance_value[place]
        feed = rules.terms.assets[asset]["quality_feed"]
        space.book[_HELD_QUALITY, held] = _quality(feed, rules, marks)
        space.book_hedging[held] = 1 if of_asset == underlying else 0
        held += 1
    if options == 0 and linear == 0 and held == 0:
        return True
    of = rules.terms.underlyings[underlying]
    if not (
        is_usable
        and _is_usable(of["spot_feed"], marks)
        and _is_usable(of["quality_feed"], marks)
        and _is_usable(of["stable_feed"], marks)
    ):
        return False
    book = space.book
    stable = 1.0
    if of["stable_feed"] != NONE:
        stable = feed_value(of["stable_feed"], rules, marks)
    whole = Book(
        book[_AMOUNT, :options],
        book[_STRIKE, :options],
        book[_LOG_STRIKE, :options],
        book[_SIGN, :options],
        book[_VOLATILITY, :options],
        space.book_option[:options],
        space.book_first[: expiries + 1],
        space.book_ends[:expiries],
        book[_FORWARD, :expiries],
        book[_YEARS, :expiries],
        book[_RATE, :expiries],
        book[_QUALITY, :expiries],
        book[_SIZE, :linear],
        book[_PRICE, :linear],
        book[_LINEAR_QUALITY, :linear],
        space.book_dates[:linear],
        book[_HELD, :held],
        book[_HELD_QUALITY, :held],
        book[_NO_HAIRCUT, :held],
        book[_NO_HAIRCUT, :held],
        space.book_hedging[:held],
        feed_value(of["spot_feed"], rules, marks),
        _quality(of["quality_feed"], rules, marks),
        stable,
    )
    of_unit = rules.terms.preset[units.preset[unit]]
    value, initial, maintenance, worst = underlying_requirement(
        whole, of_unit["first_step"], of_unit["step_count"], rules.terms, space
    )
    space.group[underlying, 0] = value
    space.group[underlying, 1] = initial
    space.group[underlying, 2] = maintenance
    space.worst[underlying] = worst
    space.raw[0] += value
    space.raw[1] += value
    for level in range(_LEVEL_COUNT):
        space.equity[level] += value
        space.required[level] += initial if level == INITIAL else maintenance
    return True


@register_jitable
def _quanta_now(quanta: int, asset: int, rules: Rules, marks: Marks) -> float:
    """Return what a balance at rest is worth now, in whole quanta (MODEL.md 2).

    It is scaled by a cumulative index, 1 before the first; a part of a quantum is lost to a deposit
    and owed by a debt. Products are floats, so that within their error the quantum may be one off.
    """
    of_asset = rules.terms.assets[asset]
    feed = of_asset["deposit_index_feed"] if quanta > 0 else of_asset["borrow_index_feed"]
    if feed == NONE or marks.price[feed] <= 0:
        return float(quanta)
    return float(np.floor(float(quanta) * (float(marks.price[feed]) / _INDEX_ONE)))


@register_jitable
def _add_fold(
    place: int,
    instrument: int,
    preset: int,
    category: int,
    rules: Rules,
    marks: Marks,
    space: Workspace,
) -> int:
    """Add pnl of a market that waits for a balance; return the place after it."""
    asset = rules.terms.instruments[instrument]["settles_in"]
    pending = space.fold[asset]
    if pending[INITIAL] == 0.0 and pending[LIQUIDATION_END] == 0.0 and pending[MAINTENANCE] == 0.0:
        return place
    _add_balance(place, 0.0, asset, preset, category, True, rules, marks, space)
    space.fold[asset] = 0.0
    return place + 1


@register_jitable
def _add_folds(
    unit: int,
    place: int,
    preset: int,
    category: int,
    units: Units,
    positions: Positions,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
) -> None:
    """Add pnl that joins a balance the unit does not have, of markets with orders alone too."""
    first = units.first_position[unit]
    for row in range(first, first + units.position_count[unit]):
        instrument = positions.instrument[row]
        place = _add_fold(place, instrument, preset, category, rules, marks, space)
    first = units.first_order[unit]
    for row in range(first, first + units.order_count[unit]):
        instrument = orders.instrument[row]
        place = _add_fold(place, instrument, preset, category, rules, marks, space)


@register_jitable
def _end_and_sign(preset: int, rules: Rules, space: Workspace) -> None:
    """Apply where liquidation ends as a ratio, and keep requirements from falling below 0.

    A requirement below 0 takes back value that may not count; less than nothing is equity. Where a
    buffer or a ratio would end liquidation beyond initial or before maintenance it ends there, so
    that health keeps its order (I1).
    """
    ratio = rules.terms.preset[preset]["end_ratio"]
    if ratio > 0.0:
        space.equity[LIQUIDATION_END] = space.equity[MAINTENANCE]
        space.required[LIQUIDATION_END] = ratio * space.required[MAINTENANCE]
    for bound in (INITIAL, MAINTENANCE):
        health = space.equity[LIQUIDATION_END] - space.required[LIQUIDATION_END]
        other = space.equity[bound] - space.required[bound]
        is_beyond = health < other if bound == INITIAL else health > other
        if is_beyond:
            space.equity[LIQUIDATION_END] = space.equity[bound]
            space.required[LIQUIDATION_END] = space.required[bound]
    for level in range(_LEVEL_COUNT):
        if space.required[level] < 0.0:
            space.equity[level] -= space.required[level]
            space.required[level] = 0.0


def evaluate_terms(unit: int, tables: Tables) -> int:
    """Write equity, requirement and their parts of one unit to the workspace.

    A position, a debt or a book whose feeds may not judge makes the unit blind; collateral whose
    feeds may not judge counts 0.

    Parameters
    ----------
    unit : int
        Row.
    tables : Tables
        Columns, parameters and prices in force; the workspace is written.

    Returns
    -------
    int
        Bits: `BLIND`, `UNPRICED_COLLATERAL`, `INDEBTED`.
    """
    units, positions, balances = tables.units, tables.positions, tables.balances
    orders, rules, marks, space = tables.orders, tables.rules, tables.marks, tables.space
    preset = units.preset[unit]
    seen = 0
    space.equity[:] = 0.0
    space.required[:] = 0.0
    space.raw[:] = 0.0
    space.move[:] = 0.0
    space.seen[:] = 0
    instruments = rules.terms.instruments
    first = units.first_position[unit]
    last = first + units.position_count[unit]
    order = units.first_order[unit]
    last_order = order + units.order_count[unit]
    beyond = last - first  # places of markets with orders alone
    row = first
    while row < last or order < last_order:
        at_row, at_order = row, order
        if at_row == last or (
            at_order < last_order and orders.instrument[at_order] < positions.instrument[at_row]
        ):
            at_row = NONE
        elif at_order == last_order or orders.instrument[at_order] > positions.instrument[at_row]:
            at_order = NONE
        if at_row == NONE:
            instrument = orders.instrument[at_order]
            place = beyond
            beyond += 1
        else:
            instrument = positions.instrument[at_row]
            place = row - first
            row += 1
        if at_order != NONE:
            order += 1
        space.position_value[place] = 0.0
        space.position_pnl[place] = 0.0
        space.position_equity[place] = 0.0
        space.position_required[place] = 0.0
        if at_row != NONE and positions.size_lots[at_row] == 0:
            continue
        _note(rules.instrument_feed[instrument], space)
        _note(rules.terms.market[preset, instrument]["net_pnl_feed"], space)
        _note(instruments[instrument]["funding_feed"], space)
        if instruments[instrument]["kind"] == KIND_OPTION:
            if at_row != NONE and instruments[instrument]["is_premium"] == 0:
                cost = float(positions.cost_basis_micros[at_row]) / _MICROS
                space.raw[0] -= cost
                for level in range(_LEVEL_COUNT):
                    space.equity[level] -= cost
            continue
        if not _is_market_usable(preset, instrument, rules, marks):
            if at_row != NONE or rules.terms.preset[preset]["order_levels"] != 0:
                seen |= BLIND
            if marks.price[rules.instrument_feed[instrument]] == 0:
                continue
        if rules.terms.market[preset, instrument]["is_net"] != 0:
            seen |= INDEBTED
        _add_position(
            place, at_row, at_order, instrument, preset, positions, orders, rules, marks, space
        )

    category = _category_of(unit, units, balances, rules)
    first = units.first_balance[unit]
    count = units.balance_count[unit]
    for place in range(count):
        quanta = balances.quanta[first + place]
        asset = balances.asset[first + place]
        is_priced = _is_asset_usable(preset, asset, rules, marks)
        if not is_priced:
            seen |= UNPRICED_COLLATERAL if quanta > 0 else BLIND
        if quanta < 0:
            seen |= INDEBTED
        coins = _quanta_now(quanta, asset, rules, marks) / rules.asset_units[asset]
        if quanta > 0 and not is_priced:
            coins = 0.0
        _add_balance(place, coins, asset, preset, category, is_priced, rules, marks, space)
        space.fold[asset] = 0.0
    if rules.terms.preset[preset]["is_fold"] != 0:
        _add_folds(unit, count, preset, category, units, positions, orders, rules, marks, space)

    if rules.terms.preset[preset]["step_count"] > 0:
        for underlying in range(rules.terms.underlyings.size):
            space.group[underlying] = 0.0
            space.worst[underlying] = NONE
            if not _add_underlying(
                unit, underlying, units, positions, balances, rules, marks, space
            ):
                seen |= BLIND
    _end_and_sign(preset, rules, space)
    return seen


evaluate_terms_jit = jit(evaluate_terms)
#: The same for compiled kernels, none of which then holds a copy of all there is above: it takes
#: the address first, ``tables.space.entry[0]``.
evaluate_terms_at = at_address(evaluate_terms)


def terms_entry(example: Tables) -> int:
    """Return the address of the compiled twin, which is compiled or loaded if it is not there."""
    signature = (numba.int64, Reference(numba.typeof(example)))
    evaluate_terms_jit.compile(signature)  # does nothing a second time
    (compiled,) = evaluate_terms_jit.overloads.values()
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
