"""The safe-move index at work: which units a frame of marks concerns, and what becomes of them.

Each level of safe moves (`solvent.kernel.safe_move`) has a band of prices around an anchor price,
feed by feed. A mark that leaves its band *fires* that level for that feed: the units of the level
that depend on the feed are judged, go to the level their new safe move gives, and the mark is the
new anchor. Marks lie within all bands after every frame, so a unit may join a level at any time: if
the band is ``anchor * (1 +- t)`` with ``t = move / (2 + move)``, the mark it joins at and any mark
within the band differ by at most ``2 * t / (1 - t) = move`` of the former.

Safe moves are moves of prices. What a figure makes of a state feed's value (an open interest, an
index, a volatility) no relative move bounds, so its bands are that value alone: any change fires
all levels.

Always judged are units without a safe move, units that have news (status and case are settled
afterwards, by the next frame that is known) and those a record left in liquidation. A feed that
becomes usable, or ceases to be, fires all levels. Offers expire in stream time, and are due then.

What is due is found by blocks: 256 units share a vector of the levels they have. A frame in which
little fires reads eight bytes for 256 units, and nothing of the units themselves.
"""

from __future__ import annotations

from typing import Any, Final, get_type_hints

import numba
import numpy as np
from numba.extending import register_jitable

from solvent.kernel.evaluate import example_arguments
from solvent.kernel.jit import jit
from solvent.kernel.layout import (
    BLOCK_UNITS,
    NEVER_US,
    STATUS_LIQUIDATING,
    VERDICT_BANKRUPT,
    Accounts,
    Balances,
    Figures,
    Int32,
    Int64,
    Marks,
    Orders,
    Positions,
    Rules,
    UInt8,
    Units,
    Watch,
)
from solvent.kernel.ledger import can_close, judge_at_marks
from solvent.kernel.reference import by_reference
from solvent.kernel.safe_move import LEVEL_HOT, LEVELS, feed_bit, move_of
from solvent.kernel.tables import example_table
from solvent.kernel.workspace import Tables, Workspace

__all__ = ["look_jit", "look_reference", "warm_up"]

_DTYPES: Final[dict[Any, Any]] = {Int64: np.int64, Int32: np.int32, UInt8: np.uint8}
#: Takes what rounding a band's width may add.
_TIGHTER: Final = 1.0 - 2.0**-40
_HOT_BIT: Final = 1 << LEVEL_HOT
#: Beyond any price or value.
_FAR: Final = 2**63 - 1
#: Units read ahead of being judged.
_BATCH: Final = 32


@register_jitable
def _anchor(feed: int, level: int, price: int, is_state: bool, watch: Watch) -> None:
    """Lay the band of a level around a price; a value of a state feed is a band of its own."""
    move = move_of(level)
    reach = 0 if is_state else int(abs(float(price)) * (move / (2.0 + move) * _TIGHTER))
    watch.lowest[feed, level] = price - reach
    watch.highest[feed, level] = price + reach


@register_jitable
def _fire(is_all: bool, rules: Rules, marks: Marks, watch: Watch) -> int:
    """Write the feeds that fire each level, lay their new bands; return the levels as bits."""
    levels = 0
    for level in range(LEVELS):
        watch.fired[level] = 0
    for feed in range(marks.price.size):
        price = int(marks.price[feed])
        is_whole = is_all or watch.is_usable[feed] != marks.is_usable[feed]
        if not is_whole and watch.inner_lowest[feed] <= price <= watch.inner_highest[feed]:
            continue
        watch.is_usable[feed] = marks.is_usable[feed]
        lowest = -_FAR
        highest = _FAR
        for level in range(LEVEL_HOT + 1, LEVELS):
            is_within = watch.lowest[feed, level] <= price <= watch.highest[feed, level]
            if is_whole or not is_within:
                watch.fired[level] |= feed_bit(feed)
                levels |= 1 << level
                _anchor(feed, level, price, rules.feed_is_state[feed] != 0, watch)
            lowest = max(lowest, int(watch.lowest[feed, level]))
            highest = min(highest, int(watch.highest[feed, level]))
        watch.inner_lowest[feed] = lowest
        watch.inner_highest[feed] = highest
    return levels


@register_jitable
def _find_due(
    is_all: bool,
    unit_count: int,
    stream_us: int,
    due_levels: int,
    units: Units,
    figures: Figures,
    watch: Watch,
    out_due: Int64,
) -> int:
    """Write the units to be judged, ascending; return how many.

    Blocks that have any keep the levels and the first expiry of the others alone.
    """
    found = 0
    is_expiring = watch.first_expires_us[0] <= stream_us
    for block in range((unit_count + BLOCK_UNITS - 1) // BLOCK_UNITS):
        is_concerned = is_all or figures.block_levels[block] & due_levels != 0
        if not is_concerned and not (is_expiring and watch.block_expires_us[block] <= stream_us):
            continue
        levels = 0
        expires_us = NEVER_US
        first = block * BLOCK_UNITS
        for unit in range(first, min(first + BLOCK_UNITS, unit_count)):
            level = int(figures.level[unit])
            is_due = is_all or level == LEVEL_HOT
            if not is_due and due_levels >> level & 1 != 0:
                is_due = watch.fired[level] & figures.feeds[unit] != 0
            is_open = _is_open(unit, units)
            if is_due or (is_open and units.case_expires_us[unit] <= stream_us):
                out_due[found] = unit
                found += 1
                continue
            levels |= 1 << level
            if is_open:
                expires_us = min(expires_us, int(units.case_expires_us[unit]))
        figures.block_levels[block] = levels
        watch.block_expires_us[block] = expires_us
    return found


@register_jitable
def _is_open(unit: int, units: Units) -> bool:
    """Tell whether a unit has an open case that does not rest."""
    return bool(units.status[unit] == STATUS_LIQUIDATING and units.revision[unit] > 0)


@register_jitable
def _read_ahead(
    due: Int64,
    first: int,
    last: int,
    units: Units,
    positions: Positions,
    balances: Balances,
    figures: Figures,
) -> int:
    """Touch what judging some units will read, many at a time.

    Units that are due lie far apart, and judging one waits for memory a dozen times, one after the
    other. Reads that nothing waits for overlap: 600 ns a unit become 250 in a million units.
    """
    seen = 0
    for k in range(first, last):
        unit = due[k]
        seen ^= (
            int(units.account[unit]) ^ int(units.preset[unit]) ^ int(units.previous_status[unit])
        )
        seen ^= int(units.first_position[unit]) ^ int(units.position_count[unit])
        seen ^= int(units.first_balance[unit]) ^ int(units.balance_count[unit])
        seen ^= int(figures.equity_micros[unit, 0]) ^ int(figures.requirement_micros[unit, 0])
        seen ^= int(figures.raw_equity_micros[unit]) ^ int(figures.verdict[unit])
    for k in range(first, last):
        unit = due[k]
        if units.position_count[unit] > 0:
            row = units.first_position[unit]
            seen ^= int(positions.instrument[row]) ^ int(positions.size_lots[row])
            seen ^= int(positions.cost_basis_micros[row])
        if units.balance_count[unit] > 0:
            row = units.first_balance[unit]
            seen ^= int(balances.asset[row]) ^ int(balances.quanta[row])
    return seen


@register_jitable
def _has_news(
    unit: int,
    status: int,
    stream_us: int,
    units: Units,
    balances: Balances,
    rules: Rules,
    figures: Figures,
) -> bool:
    """Tell whether Python must look at a unit just judged.

    Its status changes; or it has something to close and stands in liquidation without a case; or
    its open case expired or turned bankrupt.
    """
    if status != units.status[unit]:
        return True
    if status != STATUS_LIQUIDATING:
        return False
    if units.revision[unit] == 0:
        return bool(can_close(unit, units, balances, rules))
    return bool(
        units.case_expires_us[unit] <= stream_us
        or (
            figures.verdict[unit] == VERDICT_BANKRUPT
            and units.case_verdict[unit] != VERDICT_BANKRUPT
        )
    )


def look_reference(
    is_all: bool,
    unit_count: int,
    stream_us: int,
    accounts: Accounts,
    units: Units,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
    figures: Figures,
    watch: Watch,
    out_status: UInt8,
    out_news: Int64,
) -> tuple[int, int]:
    """Judge every unit that a frame of marks may concern, and find those with news.

    Parameters
    ----------
    is_all : bool
        Judge all units, as after a restore, when nothing is known of what they were judged by.
    stream_us : int
        Event time of the frame.
    marks : Marks
        Prices in force, those of the frame included.
    figures, watch : Figures, Watch
        Written: figures and levels of the units judged, bands of the levels fired.
    out_status : uint8, shape (>= unit_count,)
        Next status of each unit with news.
    out_news : int64, shape (>= unit_count,)
        The units with news, ascending.

    Returns
    -------
    news, judged : int
        How many units have news, how many were judged.
    """
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    due_levels = _fire(is_all, rules, marks, watch) | _HOT_BIT
    due = out_news  # those with news are written over those judged before
    due_count = int(
        _find_due(is_all, unit_count, stream_us, due_levels, units, figures, watch, due)
    )
    found = 0
    first_expires_us = NEVER_US
    for batch in range(0, due_count, _BATCH):
        last = min(batch + _BATCH, due_count)
        watch.read_ahead[0] = _read_ahead(due, batch, last, units, positions, balances, figures)
        for k in range(batch, last):
            unit = int(due[k])
            block = unit // BLOCK_UNITS
            is_quarantined = accounts.quarantined[units.account[unit]] != 0
            status = judge_at_marks(
                unit,
                is_quarantined,
                units,
                positions,
                balances,
                rules,
                marks,
                figures,
                tables,
            )
            if _has_news(unit, status, stream_us, units, balances, rules, figures):
                figures.level[unit] = LEVEL_HOT
                out_status[unit] = status
                out_news[found] = unit
                found += 1
            elif figures.level[unit] != LEVEL_HOT and _is_open(unit, units):
                expires_us = int(units.case_expires_us[unit])
                watch.block_expires_us[block] = min(watch.block_expires_us[block], expires_us)
                first_expires_us = min(first_expires_us, expires_us)
            figures.block_levels[block] |= 1 << int(figures.level[unit])
    if watch.first_expires_us[0] <= stream_us:
        for block in range((unit_count + BLOCK_UNITS - 1) // BLOCK_UNITS):
            first_expires_us = min(first_expires_us, int(watch.block_expires_us[block]))
        watch.first_expires_us[0] = first_expires_us
    else:
        watch.first_expires_us[0] = min(int(watch.first_expires_us[0]), first_expires_us)
    return found, due_count


look_jit = jit(look_reference)


def warm_up() -> None:
    """Compile the one accepted signature of the kernel; other types raise from then on."""
    if look_jit.signatures:
        return
    units, positions, balances, orders, rules, marks, space, figures = map(
        numba.typeof, example_arguments()
    )
    accounts = numba.typeof(example_table(Accounts))
    watch = numba.typeof(_empty(Watch))
    columns = (accounts, units, positions, balances, orders, rules, marks, space, figures, watch)
    counts = (numba.boolean, numba.int64, numba.int64)
    look_jit.compile((*counts, *columns, numba.uint8[::1], numba.int64[::1]))
    look_jit.disable_compile()


def _empty(layout: type) -> Any:  # noqa: ANN401 -- a NamedTuple of the given type
    columns: list[Any] = []
    for name, kind in get_type_hints(layout).items():
        shape = (0, LEVELS) if name in {"lowest", "highest"} else (0,)
        columns.append(np.zeros(shape, _DTYPES[kind]))
    return layout(*columns)
