"""Units and accounts as text: what events, the table view and ``solvent evaluate`` show of them.

Decimal strings throughout: money in the settlement currency, sizes in coins (long > 0), amounts in
coins (debt < 0), prices in settlement currency per coin. Nothing here changes state.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from solvent.domain.verdict import Level, MarginFigures, Verdict
from solvent.engine.appraise import Appraisal, Appraiser, GroupPart
from solvent.engine.markbook import MarkBook
from solvent.kernel.layout import CROSS, FLAG_LABELS, LEVELS, NONE, STATUS_LABELS, Float64
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import MICRO_EXPONENT, format_scaled

__all__ = ["CROSS_NAME", "PICO_EXPONENT", "Describer", "amounts_text", "float_text", "money_text"]

CROSS_NAME: Final = "cross"
#: Of a funding index.
PICO_EXPONENT: Final = -12
_RATIO_EXPONENT: Final = -6


def money_text(micros: int) -> str:
    """Return micros as decimal text."""
    return format_scaled(micros, MICRO_EXPONENT)


def float_text(amount: float) -> str:
    """Return a float as the shortest plain decimal that reads back as the same float."""
    return np.format_float_positional(amount, trim="-")


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
        self._appraiser = Appraiser(rulebook, columns, marks)

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

    def positions(self, unit: int) -> list[dict[str, Any]]:
        """Return a unit's positions as they are published."""
        texts = []
        for index, size, cost in self._columns.positions_of(unit):
            instrument = self._rulebook.instruments[index]
            texts.append(
                {
                    "market": instrument.name,
                    "size": instrument.lot.format(size),
                    "cost_basis": format_scaled(
                        cost, self._rulebook.assets[instrument.settles_in].quantum_exponent
                    ),
                    "mark_price": (
                        self._marks.price_text(instrument.mark_feed)
                        if instrument.mark_feed != NONE
                        else None
                    ),
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
                    "amount": format_scaled(
                        self._marks.unscaled(asset, quanta), asset.quantum_exponent
                    ),
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

        Beside the amounts it is judged by, and what follows from them:

        ``unrounded``
            Equity and requirement by level, and raw equity, as the kernel adds them.
        ``gross_notional``, ``leverage``
            Magnitude of everything open, and that over raw equity (None without any).
        ``capital_efficiency``, ``idle_equity``
            Gross notional over the initial requirement (None where nothing is required), and
            equity above it.
        ``collateral_concentration``
            Sum of squared shares of positive collateral by asset, 1 if all is in one.
        ``diversification``
            ``1 - R/sum of stand-alone R`` at maintenance over positions, None with none.
        ``groups``
            Underlyings margined as a whole: value of options, requirement, deciding scenario.

        A position has its ``funding_index``, the one up to which it has paid, if its market has
        funding; its notional, pnl, own requirement, ``contribution`` (what the requirement falls by
        without it), and the marks at which, other feeds held, maintenance health and raw equity
        become 0: None where no positive price does. Nothing but amounts is said of a unit that
        cannot be judged.
        """
        units = self._columns.units
        figures = self.figures(unit)
        return {
            "subaccount": self.subaccount(unit),
            "preset": self._rulebook.policies[units.preset[unit]].name,
            "status": STATUS_LABELS[units.status[unit]],
            "previous_status": STATUS_LABELS[units.previous_status[unit]],
            "verdict": figures.verdict.label,
            "flags": self.flags(unit),
            "episode": int(units.episode[unit]),
            "revision": int(units.revision[unit]),
            "touched_us": int(units.touched_us[unit]),
            **self.judgement(unit, figures),
            **self._derived(unit, figures),
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

    def _derived(self, unit: int, figures: MarginFigures) -> dict[str, Any]:
        """Return what follows from a unit's parts; positions and collateral with theirs."""
        positions, collateral = self.positions(unit), self.collateral(unit)
        for text, index in zip(positions, self._columns.funding_of(unit), strict=True):
            if self._rulebook.instrument_by_name[text["market"]].funding_feed is not None:
                text["funding_index"] = format_scaled(index, PICO_EXPONENT)
        if not figures.is_judged:
            for text in positions:
                text["liquidation_price"] = text["bankruptcy_price"] = None
            return {"positions": positions, "collateral": collateral}
        appraisal = self._appraiser.appraise(unit)
        alone = 0.0
        for place, text in enumerate(positions):
            text.update(self._position_parts(unit, place, appraisal))
            alone += float(self._appraiser.requirement_alone(unit, place)[Level.MAINTENANCE])
        for place, text in enumerate(collateral):
            text["value"] = float_text(appraisal.balance_value[place])
            text["counted"] = _by_level(appraisal.balance_equity[place])
        gross, required = appraisal.gross_notional, appraisal.requirement
        idle = appraisal.equity[Level.INITIAL] - required[Level.INITIAL]
        return {
            "unrounded": {
                "equity": _by_level(appraisal.equity),
                "requirement": _by_level(required),
                "raw_equity": float_text(appraisal.raw_equity),
            },
            "gross_notional": float_text(gross),
            "leverage": _ratio(gross, appraisal.raw_equity),
            "capital_efficiency": _ratio(gross, float(required[Level.INITIAL])),
            "idle_equity": float_text(max(0.0, float(idle))),
            "collateral_concentration": _concentration(appraisal.balance_value),
            "diversification": (
                float_text(1.0 - float(required[Level.MAINTENANCE]) / alone)
                if alone > 0.0
                else None
            ),
            "positions": positions,
            "collateral": collateral,
            "groups": [self._group(part) for part in appraisal.groups],
        }

    def _position_parts(self, unit: int, place: int, appraisal: Appraisal) -> dict[str, Any]:
        appraiser = self._appraiser
        row = int(self._columns.units.first_position[unit]) + place
        instrument = self._rulebook.instruments[int(self._columns.positions.instrument[row])]
        without = appraiser.requirement_without(unit, place)
        parts: dict[str, Any] = {
            "requirement": _by_level(appraisal.position_requirement[place]),
            "contribution": _by_level(appraisal.requirement - without),
        }
        if instrument.kind == "option":
            return parts
        at_liquidation = appraiser.liquidation_price(unit, place)
        at_bankruptcy = appraiser.bankruptcy_price(unit, place)
        exponent = instrument.price_exponent
        return {
            "notional": float_text(appraisal.position_value[place]),
            "unrealised_pnl": float_text(appraisal.position_pnl[place]),
            **parts,
            "liquidation_price": (
                None if at_liquidation is None else format_scaled(at_liquidation, exponent)
            ),
            "bankruptcy_price": (
                None if at_bankruptcy is None else format_scaled(at_bankruptcy, exponent)
            ),
        }

    def _group(self, part: GroupPart) -> dict[str, Any]:
        return {
            "underlying": self._rulebook.underlyings[part.underlying].name,
            "option_value": float_text(part.option_value),
            "requirement": {
                LEVELS[Level.INITIAL]: float_text(part.initial),
                LEVELS[Level.MAINTENANCE]: float_text(part.maintenance),
            },
            "worst_scenario": part.worst_scenario,
        }


def _by_level(amounts: Float64) -> dict[str, str]:
    return {name: float_text(amount) for name, amount in zip(LEVELS, amounts, strict=True)}


def _ratio(part: float, whole: float) -> str | None:
    return float_text(part / whole) if whole > 0.0 else None


def _concentration(values: Float64) -> str | None:
    held = values[values > 0.0]
    total = float(held.sum())
    return float_text(float(((held / total) ** 2).sum())) if total > 0.0 else None
