"""Volatility surfaces: what no options market can show at once is refused.

Undiscounted prices of one expiry must fall with the strike for calls and rise for puts, never by
more than the strike moves; otherwise a spread of two options would be worth less than it can lose,
and the margin of whoever holds it would be wrong by any amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from solvent.domain.instrument import Instrument
from solvent.engine.markbook import MarkBook
from solvent.errors import ContractError, RejectCode
from solvent.kernel.black import CHUNK, black76_prices
from solvent.kernel.elementary import logarithm
from solvent.kernel.portfolio import SECONDS_A_YEAR
from solvent.kernel.terms import KIND_OPTION
from solvent.rules.compile import CompiledRulebook

__all__ = ["check_surfaces", "mark_price_of", "option_prices"]

_YEAR_US = SECONDS_A_YEAR * 1e6
#: Prices are float64 and may differ by so much of the strike without meaning it.
_SLACK = 1e-9


def check_surfaces(rulebook: CompiledRulebook, marks: MarkBook) -> None:
    """Refuse marks under which two options of an expiry cross.

    Options without a forward or a volatility, and expired ones, are passed over.

    Raises
    ------
    ContractError
        Two options cross; the message names them, their strikes and their prices.
    """
    terms = rulebook.rules.terms
    groups: dict[tuple[int, bool], list[Instrument]] = {}
    for index in np.flatnonzero(terms.instruments["kind"] == KIND_OPTION).tolist():
        instrument = rulebook.instruments[index]
        option = instrument.option
        assert option is not None
        feeds = [option.forward_feed, option.volatility_feed]
        if option.expires_us > marks.stream_us and marks.marks.is_usable[feeds].all():
            key = (int(terms.instruments["expiry"][index]), option.is_call)
            groups.setdefault(key, []).append(instrument)
    for (_, is_call), group in groups.items():
        group.sort(key=lambda option: terms.instruments["strike"][option.index])
        prices = _prices(rulebook, marks, group)
        strikes = [float(terms.instruments["strike"][option.index]) for option in group]
        for low, high in pairwise(range(len(group))):
            rise = prices[high] - prices[low]
            step = strikes[high] - strikes[low]
            gain = -rise if is_call else rise
            slack = _SLACK * strikes[high]
            if step > 0.0 and not -slack <= gain <= step + slack:
                msg = (
                    f"marks: crossed surface: {group[low].name} is worth {prices[low]:.9g} and "
                    f"{group[high].name} {prices[high]:.9g}, strikes {step:g} apart: a "
                    f"{'fall' if is_call else 'rise'} from 0 to that expected"
                )
                raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)


def mark_price_of(rulebook: CompiledRulebook, marks: MarkBook, instrument: Instrument) -> int:
    """Return what an instrument is worth in feed units: an option by its model, at least 1.

    0 while its feed has had no price.
    """
    if instrument.option is None:
        return int(marks.marks.price[instrument.mark_feed])
    price = option_prices(rulebook, marks, [instrument])[instrument.index]
    return max(1, round(price * float(10**-instrument.price_exponent)))


def option_prices(
    rulebook: CompiledRulebook, marks: MarkBook, options: Sequence[Instrument]
) -> dict[int, float]:
    """Return the undiscounted price of options in settlement units, by instrument index."""
    by_expiry: dict[int, list[Instrument]] = {}
    for option in options:
        expiry = int(rulebook.rules.terms.instruments["expiry"][option.index])
        by_expiry.setdefault(expiry, []).append(option)
    return {
        option.index: price
        for group in by_expiry.values()
        for option, price in zip(group, _prices(rulebook, marks, group), strict=True)
    }


def _prices(rulebook: CompiledRulebook, marks: MarkBook, group: list[Instrument]) -> list[float]:
    """Return the undiscounted prices of options of one expiry and right."""
    terms, units = rulebook.rules.terms, rulebook.rules.feed_units
    option = group[0].option
    assert option is not None
    forward = float(marks.marks.price[option.forward_feed] / units[option.forward_feed])
    years = max(0, option.expires_us - marks.stream_us) / _YEAR_US
    rows = terms.instruments[[member.index for member in group]]
    feeds = rows["volatility_feed"]
    deviation = marks.marks.price[feeds] / units[feeds] * np.sqrt(years)
    prices = np.zeros(len(group))
    work = np.zeros(2 * CHUNK)
    for first in range(0, len(group), CHUNK):
        part = slice(first, first + CHUNK)
        count = len(rows[part])
        black76_prices(
            np.full(count, forward),
            np.full(count, logarithm(forward)),
            deviation[part],
            np.ascontiguousarray(rows["strike"][part]),
            np.ascontiguousarray(rows["log_strike"][part]),
            np.ascontiguousarray(rows["sign"][part]),
            work,
            prices[part],
        )
    return [float(price) for price in prices]
