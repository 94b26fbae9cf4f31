"""Units and accounts as text: what events, the table view and ``solvent evaluate`` show of them.

Decimal strings throughout: money in the settlement currency, sizes in coins (long > 0), amounts in
coins (debt < 0), prices in settlement currency per coin. Nothing here changes state.
"""

from __future__ import annotations

from typing import Any, Final

from solvent.domain.sizing import OpenPosition, bankruptcy_price, liquidation_price
from solvent.domain.verdict import Level, MarginFigures, Verdict
from solvent.engine.markbook import MarkBook
from solvent.kernel.layout import CROSS, FLAG_LABELS, LEVELS, NONE, STATUS_LABELS
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import MICRO_EXPONENT, format_scaled

__all__ = ["CROSS_NAME", "Describer", "amounts_text", "money_text"]

CROSS_NAME: Final = "cross"
_RATIO_EXPONENT: Final = -6


def money_text(micros: int) -> str:
    """Return micros as decimal text."""
    return format_scaled(micros, MICRO_EXPONENT)


def amounts_text(figures: MarginFigures) -> dict[str, Any]:
    """Return equity, requirement and raw equity as they are published."""
    return {
        "equity": {LEVELS[level]: money_text(figures.equity_micros[level]) for level in Level},
        "requirement": {
            LEVELS[level]: money_text(figures.requirement_micros[level]) for level in Level
        },
        "raw_equity": money_text(figures.raw_equity_micros),
    }


class Describer:
    """Reader of one partition's columns.

    Parameters
    ----------
    rulebook, columns, marks
        Names, state and prices; figures are those last written to the columns.
    """

    def __init__(self, rulebook: CompiledRulebook, columns: Columns, marks: MarkBook) -> None:
        self._rulebook = rulebook
        self._columns = columns
        self._marks = marks

    def figures(self, unit: int) -> MarginFigures:
        """Return the figures last written for a unit."""
        figures = self._columns.figures
        initial, end, maintenance = figures.equity_micros[unit].tolist()
        need_initial, need_end, need_maintenance = figures.requirement_micros[unit].tolist()
        return MarginFigures(
            equity_micros=(initial, end, maintenance),
            requirement_micros=(need_initial, need_end, need_maintenance),
            raw_equity_micros=int(figures.raw_equity_micros[unit]),
            verdict=Verdict(int(figures.verdict[unit])),
        )

    def subaccount(self, unit: int) -> str:
        """Return the wire name of a unit's book."""
        book = int(self._columns.units.book[unit])
        return CROSS_NAME if book == CROSS else self._rulebook.instruments[book].name

    def flags(self, unit: int) -> list[str]:
        """Return the labels of a unit's flags."""
        flags = int(self._columns.units.flags[unit])
        return [label for bit, label in FLAG_LABELS.items() if flags & bit]

    def open_positions(self, unit: int) -> list[OpenPosition]:
        """Return a unit's positions at their marks, for sizing; all marks must be known."""
        instruments = self._rulebook.instruments
        return [
            OpenPosition(
                instruments[index],
                size,
                int(self._marks.marks.price[instruments[index].mark_feed]),
            )
            for index, size, _ in self._columns.positions_of(unit)
        ]

    def positions(self, unit: int) -> list[dict[str, Any]]:
        """Return a unit's positions as they are published."""
        texts = []
        for index, size, cost in self._columns.positions_of(unit):
            instrument = self._rulebook.instruments[index]
            texts.append(
                {
                    "market": instrument.name,
                    "size": instrument.lot.format(size),
                    "cost_basis": money_text(cost),
                    "mark_price": self._marks.price_text(instrument.mark_feed),
                }
            )
        return texts

    def collateral(self, unit: int) -> list[dict[str, Any]]:
        """Return a unit's balances as they are published."""
        texts = []
        for index, quanta in self._columns.balances_of(unit):
            asset = self._rulebook.assets[index]
            feed = asset.index_feed
            texts.append(
                {
                    "asset": asset.name,
                    "amount": format_scaled(quanta, asset.quantum_exponent),
                    "index_price": None if feed is None else self._marks.price_text(feed),
                }
            )
        return texts

    def orders(self, unit: int) -> list[dict[str, Any]]:
        """Return a unit's open orders and leverage limits by market; no limit is None."""
        texts = []
        for order in self._columns.orders_of(unit):
            instrument = self._rulebook.instruments[order.instrument]
            limit = order.leverage_ppm
            texts.append(
                {
                    "market": instrument.name,
                    "bid_size": instrument.lot.format(order.bid_lots),
                    "bid_value": money_text(order.bid_value_micros),
                    "ask_size": instrument.lot.format(order.ask_lots),
                    "ask_value": money_text(order.ask_value_micros),
                    "count": order.order_count,
                    "leverage": format_scaled(limit, _RATIO_EXPONENT) if limit else None,
                }
            )
        return texts

    def unit(self, unit: int) -> dict[str, Any]:
        """Return all there is to say of a unit.

        ``health_ratio`` is equity over requirement at maintenance, None where nothing is required.
        A position's ``liquidation_price`` and ``bankruptcy_price`` hold the other marks; they are
        None where no positive price solves them or the unit cannot be judged.
        """
        units = self._columns.units
        figures = self.figures(unit)
        return {
            "subaccount": self.subaccount(unit),
            "status": STATUS_LABELS[units.status[unit]],
            "previous_status": STATUS_LABELS[units.previous_status[unit]],
            "verdict": figures.verdict.label,
            "flags": self.flags(unit),
            "episode": int(units.episode[unit]),
            "revision": int(units.revision[unit]),
            "touched_us": int(units.touched_us[unit]),
            **self.judgement(unit, figures),
            "positions": self._priced_positions(unit, figures),
            "collateral": self.collateral(unit),
            "orders": self.orders(unit),
        }

    def judgement(self, unit: int, figures: MarginFigures) -> dict[str, Any]:
        """Return the amounts a unit is judged by, and what follows from them."""
        required = figures.requirement_micros[Level.MAINTENANCE]
        ratio = None
        if required:
            scaled = figures.equity_micros[Level.MAINTENANCE] * 10**-_RATIO_EXPONENT // required
            ratio = format_scaled(scaled, _RATIO_EXPONENT)
        clear_ppm = int(self._rulebook.rules.clear_ppm[self._columns.units.preset[unit]])
        return {
            **amounts_text(figures),
            "health": {LEVELS[level]: money_text(figures.health_micros(level)) for level in Level},
            "health_ratio": ratio,
            "shortfall": money_text(figures.shortfall_micros),
            "deposit_to_clear": money_text(figures.deposit_to_clear_micros(clear_ppm)),
        }

    def account(self, account: int) -> dict[str, Any]:
        """Return all there is to say of an account; a sequence is None while none came."""
        accounts = self._columns.accounts
        sequences = {
            name: None if (seq := int(getattr(accounts, name)[account])) == NONE else seq
            for name in ("trades_seq", "collateral_seq", "settings_seq", "orders_seq")
        }
        return {
            "account_id": self._columns.id_of(account),
            "preset": self._rulebook.policies[accounts.preset[account]].name,
            "quarantined": bool(accounts.quarantined[account]),
            **sequences,
            "units": [self.unit(unit) for unit in self._columns.units_of(account)],
        }

    def _priced_positions(self, unit: int, figures: MarginFigures) -> list[dict[str, Any]]:
        texts = self.positions(unit)
        policy = self._rulebook.policies[self._columns.units.preset[unit]]
        for text, position in zip(texts, self.open_positions(unit), strict=True):
            at_liquidation = at_bankruptcy = None
            if figures.is_judged:
                at_liquidation = liquidation_price(
                    position,
                    health_micros=figures.health_micros(Level.MAINTENANCE),
                    maintenance_rate_ppm=policy.maintenance_rate_ppm[position.instrument.index],
                )
                at_bankruptcy = bankruptcy_price(
                    position,
                    policy,
                    abs(position.size_lots),
                    figures.raw_equity_micros,
                    figures.requirement_micros[Level.MAINTENANCE],
                )
            exponent = position.instrument.price_exponent
            text["liquidation_price"] = (
                None if at_liquidation is None else format_scaled(at_liquidation, exponent)
            )
            text["bankruptcy_price"] = (
                None if at_bankruptcy is None else format_scaled(at_bankruptcy, exponent)
            )
        return texts
