"""The safe-move index at work: which units a frame of marks concerns, and what becomes of them.

Each level of safe moves (`solvent.kernel.safe_move`) has a band of prices around an anchor price,
feed by feed. A mark that leaves its band *fires* that level for that feed: the units of the level
that depend on the feed are judged, go to the level their new safe move gives, and the mark is the
new anchor. Marks lie within all bands after every frame, so a unit may join a level at any time: if
the band is ``anchor * (1 +- t)`` with ``t = move / (2 + move)``, the mark it joins at and any mark
within the band differ by at most ``2 * t / (1 - t) = move`` of the former.

Always judged are units without a safe move, units that have news (status and case are settled
afterwards, by the next frame that is known) and those a record left in liquidation. A feed that
becomes usable, or ceases to be, fires all levels. Offers expire in stream time, and are due then.

What is due is found by blocks: 64 units share a vector of the levels they have. A frame in which
little fires reads eight bytes for 64 units, and nothing of the units themselves.
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
    Positions,
    Rules,
    UInt8,
    Units,
    Watch,
)
from solvent.kernel.ledger import judge_at_marks
from solvent.kernel.safe_move import LEVEL_HOT, LEVELS, feed_bit, move_of

__all__ = ["look_jit", "look_reference", "warm_up"]

_DTYPES: Final[dict[Any, Any]] = {Int64: np.int64, Int32: np.int32, UInt8: np.uint8}
#: Takes what rounding a band's width may add.
_TIGHTER: Final = 1.0 - 2.0**-40
_HOT_BIT: Final = 1 << LEVEL_HOT


@register_jitable
def _anchor(feed: int, level: int, price: int, watch: Watch) -> None:
    """Lay the band of a level around a price."""
    move = move_of(level)
    reach = int(float(price) * (move / (2.0 + move) * _TIGHTER))
    watch.lowest[feed, level] = price - reach
    watch.highest[feed, level] = price + reach


@register_jitable
def _fire(is_all: bool, marks: Marks, watch: Watch) -> int:
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
        lowest = 0
        highest = NEVER_US
        for level in range(LEVEL_HOT + 1, LEVELS):
            is_within = watch.lowest[feed, level] <= price <= watch.highest[feed, level]
            if is_whole or not is_within:
                watch.fired[level] |= feed_bit(feed)
                levels |= 1 << level
                _anchor(feed, level, price, watch)
            lowest = max(lowest, int(watch.lowest[feed, level]))
            highest = min(highest, int(watch.highest[feed, level]))
        watch.inner_lowest[feed] = lowest
        watch.inner_highest[feed] = highest
    return levels


@register_jitable
def _has_news(unit: int, status: int, stream_us: int, units: Units, figures: Figures) -> bool:
    """Tell whether Python must look at a unit just judged.

    Its status changes; or it has positions and stands in liquidation without a case; or its open
    case expired or turned bankrupt.
    """
    if status != units.status[unit]:
        return True
    if status != STATUS_LIQUIDATING:
        return False
    if units.revision[unit] == 0:
        return bool(units.position_count[unit] > 0)
    return bool(
        units.case_expires_us[unit] <= stream_us
        or (
            figures.verdict[unit] == VERDICT_BANKRUPT
            and units.case_verdict[unit] != VERDICT_BANKRUPT
        )
    )


@register_jitable
def _first_expiry(block_count: int, watch: Watch) -> int:
    first_us = NEVER_US
    for block in range(block_count):
        first_us = min(first_us, int(watch.block_expires_us[block]))
    return first_us


def look_reference(
    is_all: bool,
    unit_count: int,
    stream_us: int,
    accounts: Accounts,
    units: Units,
    positions: Positions,
    balances: Balances,
    rules: Rules,
    marks: Marks,
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
    due_levels = _fire(is_all, marks, watch) | _HOT_BIT
    block_count = (unit_count + BLOCK_UNITS - 1) // BLOCK_UNITS
    is_expiring = watch.first_expires_us[0] <= stream_us
    first_expires_us = int(watch.first_expires_us[0])
    found = 0
    judged = 0
    for block in range(block_count):
        is_concerned = is_all or figures.block_levels[block] & due_levels != 0
        if not is_concerned and not (is_expiring and watch.block_expires_us[block] <= stream_us):
            continue
        levels = 0
        expires_us = NEVER_US
        first = block * BLOCK_UNITS
        for unit in range(first, min(first + BLOCK_UNITS, unit_count)):
            level = int(figures.level[unit])
            is_open = units.status[unit] == STATUS_LIQUIDATING and units.revision[unit] > 0
            if (
                is_all
                or level == LEVEL_HOT
                or watch.fired[level] & figures.feeds[unit] != 0
                or (is_open and units.case_expires_us[unit] <= stream_us)
            ):
                judged += 1
                status = judge_at_marks(
                    unit,
                    accounts.quarantined[units.account[unit]] != 0,
                    units,
                    positions,
                    balances,
                    rules,
                    marks,
                    figures,
                )
                if _has_news(unit, status, stream_us, units, figures):
                    figures.level[unit] = LEVEL_HOT
                    out_status[unit] = status
                    out_news[found] = unit
                    found += 1
                level = int(figures.level[unit])
            if is_open and level != LEVEL_HOT:
                expires_us = min(expires_us, int(units.case_expires_us[unit]))
            levels |= 1 << level
        figures.block_levels[block] = levels
        watch.block_expires_us[block] = expires_us
        first_expires_us = min(first_expires_us, expires_us)
    if is_expiring:
        first_expires_us = _first_expiry(block_count, watch)
    watch.first_expires_us[0] = first_expires_us
    return found, judged


look_jit = jit(look_reference)


def warm_up() -> None:
    """Compile the one accepted signature of the kernel; other types raise from then on."""
    if look_jit.signatures:
        return
    units, positions, balances, rules, marks, figures = map(numba.typeof, example_arguments())
    accounts = numba.typeof(_empty(Accounts))
    watch = numba.typeof(_empty(Watch))
    columns = (accounts, units, positions, balances, rules, marks, figures, watch)
    counts = (numba.boolean, numba.int64, numba.int64)
    look_jit.compile((*counts, *columns, numba.uint8[::1], numba.int64[::1]))
    look_jit.disable_compile()


def _empty(layout: type) -> Any:  # noqa: ANN401 -- a NamedTuple of the given type
    columns: list[Any] = []
    for name, kind in get_type_hints(layout).items():
        shape = (0, LEVELS) if name in {"lowest", "highest"} else (0,)
        columns.append(np.zeros(shape, _DTYPES[kind]))
    return layout(*columns)
