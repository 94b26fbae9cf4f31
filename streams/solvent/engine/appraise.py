"""What figures are made of, and what they would be otherwise: parts, contributions, price bounds.

Everything here comes from the kernel that judges (`solvent.kernel.trial`), asked about one unit;
nothing is changed that is not put back. Money is float64 in the settlement currency as the kernel
adds it, before rounding; prices are integers in feed units.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, Self

import numpy as np

from solvent.domain.verdict import Level
from solvent.engine.markbook import MarkBook
from solvent.kernel.layout import LEVELS, NONE, Float64, Int64
from solvent.kernel.trial import (
    AMOUNTS,
    NOWHERE,
    OF_RAW,
    RAW,
    crossing_price_jit,
    health_without_jit,
    least_close_jit,
    weigh_jit,
)
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import PPM

__all__ = ["Appraisal", "Appraiser", "GroupPart", "Part", "Trial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPart:
    """What a unit's book in one underlying adds.

    Attributes
    ----------
    underlying : int
        Its index.
    option_value : float
        Value of its options.
    initial, maintenance : float
        What the tree of terms requires.
    worst_scenario : int or None
        The scenario that decides, by its place; the basis move comes after the last.
    """

    underlying: int
    option_value: float
    initial: float
    maintenance: float
    worst_scenario: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """What one market, balance or underlying adds to a unit's amounts, by level.

    ``kind`` is ``position``, ``orders`` (a market with open orders alone), ``balance``, ``pnl``
    (of markets, joining a balance the unit does not have) or ``group``; ``index`` is that of the
    instrument, asset or underlying. Where ``joins`` names an asset, the equity is counted within
    that balance and is no part of the sum by itself.
    """

    kind: str
    index: int
    equity: tuple[float, ...]
    requirement: tuple[float, ...]
    joins: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Appraisal:
    """One unit weighed, before rounding; rows follow its positions and balances.

    Attributes
    ----------
    unit : int
        Its row.
    instruments : tuple of int
        Of its positions.
    equity, requirement : float64, shape (3,)
        By level.
    raw_equity, option_value : float
        Equity at weight 1, and what of it options are worth.
    position_value : float64, shape (P,)
        Signed notional; 0 of an option.
    position_pnl : float64, shape (P,)
        Unrealised pnl with funding; 0 of an option.
    position_equity, position_requirement : float64, shape (P, 3)
        What counts of the pnl, and what each position requires by itself.
    balance_value : float64, shape (B,)
        Value of each balance.
    balance_equity, balance_requirement : float64, shape (B, 3)
        What counts of it, and what is required for it.
    groups : tuple of GroupPart
        Of underlyings that the unit's preset margins as a whole.
    """

    unit: int
    instruments: tuple[int, ...]
    equity: Float64
    requirement: Float64
    raw_equity: float
    option_value: float
    position_value: Float64
    position_pnl: Float64
    position_equity: Float64
    position_requirement: Float64
    balance_value: Float64
    balance_equity: Float64
    balance_requirement: Float64
    groups: tuple[GroupPart, ...]

    @property
    def gross_notional(self) -> float:
        """Magnitude of everything open, options at their value."""
        return float(np.abs(self.position_value).sum()) + abs(self.option_value)

    def rates_ppm(self, instrument: int) -> tuple[int, int, int]:
        """Return what a position requires over its notional, ppm by level, rounded up."""
        place = self.instruments.index(instrument)
        notional = abs(float(self.position_value[place]))
        if notional == 0.0:
            return 0, 0, 0
        initial, end, maintenance = (
            min(PPM, ceil(PPM * required / notional))
            for required in self.position_requirement[place].tolist()
        )
        return initial, end, maintenance


class Trial:
    """One unit of which positions may be closed, one after the other; put back when left."""

    def __init__(self, appraiser: Appraiser, unit: int) -> None:
        self._appraiser = appraiser
        self._unit = unit
        columns = appraiser.columns
        first = int(columns.units.first_position[unit])
        self._rows = slice(first, first + int(columns.units.position_count[unit]))
        self._lots = columns.positions.size_lots[self._rows].copy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._appraiser.columns.positions.size_lots[self._rows] = self._lots

    def close(self, place: int) -> None:
        """Take a position away."""
        self._appraiser.columns.positions.size_lots[self._rows.start + place] = 0

    def least_close(self, place: int, proceeds: float, cash: float) -> int | None:
        """Return the fewest lots of a position that restore health(liquidation_end).

        None if not even all of it does. Parameters are those of
        `solvent.kernel.trial.least_close`.
        """
        row = self._rows.start + place
        lots: int = least_close_jit(row, proceeds, cash, *self._appraiser.arguments(self._unit))
        return None if lots == NOWHERE else lots


class Appraiser:
    """Appraiser of the units of one partition.

    Parameters
    ----------
    rulebook, columns, marks
        What is weighed, by what.
    """

    def __init__(self, rulebook: CompiledRulebook, columns: Columns, marks: MarkBook) -> None:
        self._rulebook = rulebook
        self.columns = columns
        self._marks = marks
        self._space = rulebook.workspace()
        self._out: Int64 = np.zeros(AMOUNTS, np.int64)

    def appraise(self, unit: int) -> Appraisal:
        """Return a unit's amounts and their parts, at the marks in force."""
        self._weigh(unit)
        space, units = self._space, self.columns.units
        positions, balances = int(units.position_count[unit]), int(units.balance_count[unit])
        has_tree = self._rulebook.rules.terms.preset["step_count"][units.preset[unit]] > 0
        first = int(units.first_position[unit])
        held = self.columns.positions.instrument[first : first + positions]
        return Appraisal(
            unit=unit,
            instruments=tuple(held.tolist()),
            equity=space.equity.copy(),
            requirement=space.required.copy(),
            raw_equity=float(space.raw[0]),
            option_value=float(space.raw[1]),
            position_value=space.position_value[:positions].copy(),
            position_pnl=space.position_pnl[:positions, 0].copy(),
            position_equity=space.position_equity[:positions].copy(),
            position_requirement=space.position_required[:positions].copy(),
            balance_value=space.balance_value[:balances].copy(),
            balance_equity=space.balance_equity[:balances].copy(),
            balance_requirement=space.balance_required[:balances].copy(),
            groups=tuple(self._groups()) if has_tree else (),
        )

    def parts(self, unit: int) -> list[Part]:
        """Return what a unit's amounts are added from, in the order in which the kernel adds it.

        Added up in that order as float64 they are the amounts to the bit, but for what follows the
        adding: where liquidation ends, and requirements below 0 (`appraise` has the result).
        """
        self._weigh(unit)
        space, columns, rulebook = self._space, self.columns, self._rulebook
        terms = rulebook.rules.terms.preset[columns.units.preset[unit]]
        held = [index for index, _, _ in columns.positions_of(unit)]
        ordered = [o.instrument for o in columns.orders_of(unit) if o.instrument not in held]
        places = {index: place for place, index in enumerate([*held, *ordered])}
        costs = {index: cost for index, _, cost in columns.positions_of(unit)}
        found = []
        for index in sorted(places):
            place, instrument = places[index], rulebook.instruments[index]
            equity = space.position_equity[place].tolist()
            if (
                instrument.kind == "option"
                and not rulebook.rules.terms.instruments[index]["is_premium"]
            ):
                equity = [-costs.get(index, 0) / PPM] * len(LEVELS)
            found.append(
                Part(
                    "position" if index in costs else "orders",
                    index,
                    tuple(equity),
                    tuple(space.position_required[place].tolist()),
                    instrument.settles_in if terms["is_fold"] else None,
                )
            )
        balances = [asset for asset, _ in columns.balances_of(unit)]
        joining = []
        for index in [*held, *ordered]:
            asset = rulebook.instruments[index].settles_in
            if asset not in balances and asset not in joining and terms["is_fold"]:
                pending = [part.equity for part in found if part.joins == asset]
                if any(sum(level) for level in zip(*pending, strict=True)):
                    joining.append(asset)
        found += [
            Part(
                "balance" if place < len(balances) else "pnl",
                asset,
                tuple(space.balance_equity[place].tolist()),
                tuple(space.balance_required[place].tolist()),
            )
            for place, asset in enumerate([*balances, *joining])
        ]
        if terms["step_count"] > 0:
            found += [
                Part("group", index, (value,) * len(LEVELS), (initial, maintenance, maintenance))
                for index, (value, initial, maintenance) in enumerate(space.group.tolist())
            ]
        return found

    def amounts(self, unit: int) -> tuple[list[int], int] | None:
        """Return health by level and raw equity, micros as judged; None if it cannot be judged."""
        if int(self._weigh(unit)) < 0:
            return None
        amounts = self._out.tolist()
        count = len(LEVELS)
        return [amounts[at] - amounts[count + at] for at in range(count)], amounts[RAW]

    def requirement_without(self, unit: int, place: int) -> Float64:
        """Return the requirement by level that stays if one position is taken away."""
        row = int(self.columns.units.first_position[unit]) + place
        lots = int(self.columns.positions.size_lots[row])
        self.columns.positions.size_lots[row] = 0
        self._weigh(unit)
        self.columns.positions.size_lots[row] = lots
        return self._space.required.copy()

    def requirement_alone(self, unit: int, place: int) -> Float64:
        """Return the requirement by level of one position, were it the only one."""
        units, lots = self.columns.units, self.columns.positions.size_lots
        first = int(units.first_position[unit])
        rows = slice(first, first + int(units.position_count[unit]))
        held = lots[rows].copy()
        lots[rows] = 0
        lots[first + place] = held[place]
        self._weigh(unit)
        lots[rows] = held
        return self._space.required.copy()

    def liquidation_price(self, unit: int, place: int) -> int | None:
        """Return the last mark at which maintenance health is not negative, other feeds held.

        None where no price above 0 is one, and for what has no mark of its own.
        """
        return self._crossing(unit, place, Level.MAINTENANCE)

    def bankruptcy_price(self, unit: int, place: int) -> int | None:
        """Return the last mark at which raw equity is not negative; None as above."""
        return self._crossing(unit, place, OF_RAW)

    def crossing(self, unit: int, feed: int, what: int, *, is_rising: bool) -> int | None:
        """Return the last price of a feed at which an amount is not negative, other feeds held.

        `what` and `is_rising` are those of `solvent.kernel.trial.crossing_price`; None where no
        price above 0 is one.
        """
        if feed == NONE or self._marks.marks.price[feed] <= 0:
            return None
        price: int = crossing_price_jit(what, feed, is_rising, *self.arguments(unit), self._out)
        return None if price == NOWHERE else price

    def _crossing(self, unit: int, place: int, what: int) -> int | None:
        columns = self.columns
        row = int(columns.units.first_position[unit]) + place
        instrument = self._rulebook.instruments[int(columns.positions.instrument[row])]
        if instrument.kind == "option":
            return None
        is_rising = bool(columns.positions.size_lots[row] < 0)
        return self.crossing(unit, instrument.mark_feed, what, is_rising=is_rising)

    def _weigh(self, unit: int) -> int:
        return int(weigh_jit(*self.arguments(unit), self._out))

    def trial(self, unit: int) -> Trial:
        """Return a trial of a unit, to be used in a `with`."""
        return Trial(self, unit)

    def health_without(self, unit: int, place: int | None, cash: float) -> float:
        """Return health(liquidation_end) without a position (None: with all), with some cash."""
        row = NOWHERE
        if place is not None:
            row = int(self.columns.units.first_position[unit]) + place
        return float(health_without_jit(row, cash, *self.arguments(unit)))

    def arguments(self, unit: int) -> tuple[Any, ...]:
        """Return what the kernels of trials are given of a unit."""
        columns = self.columns
        return (
            unit,
            columns.units,
            columns.positions,
            columns.balances,
            columns.orders,
            self._rulebook.rules,
            self._marks.marks,
            self._space,
        )

    def _groups(self) -> list[GroupPart]:
        space = self._space
        return [
            GroupPart(
                underlying=index,
                option_value=float(value),
                initial=float(initial),
                maintenance=float(maintenance),
                worst_scenario=int(worst) if worst >= 0 else None,
            )
            for index, ((value, initial, maintenance), worst) in enumerate(
                zip(space.group.tolist(), space.worst.tolist(), strict=True)
            )
            if (value, initial, maintenance) != (0.0, 0.0, 0.0)
        ]
