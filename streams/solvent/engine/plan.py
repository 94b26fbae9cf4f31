"""What a liquidation offers to close: orders of single markets, swaps of debt, or part of a book.

Sizes come from the kernel that judges, so they hold under any terms; prices, bonuses and shares
come from the exact arithmetic of `solvent.domain`. Units of plain presets, whose closed forms are
exact, are sized by `solvent.domain.sizing.plan_close` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np

from solvent.domain.instrument import Ratio
from solvent.domain.lending import (
    bonus_at,
    debt_for_shortage,
    debt_to_target,
    helping_bonus,
    repay_limit,
    seizure_of,
    without_dust,
)
from solvent.domain.policy import LendingPolicy, LiquidationPolicy
from solvent.domain.schedule import auction_share, step_share
from solvent.domain.sizing import (
    CloseLeg,
    OpenPosition,
    auction_limit,
    bankruptcy_price,
    fillable_price,
    fund_fee,
    inverse_bankruptcy_price,
    limit_price,
    plan_close,
)
from solvent.domain.verdict import Level, MarginFigures
from solvent.engine.appraise import Appraisal, Appraiser
from solvent.engine.markbook import MarkBook
from solvent.engine.surface import option_prices
from solvent.kernel.collateral import asset_weight, cautious_prices, debt_weight
from solvent.kernel.layout import NONE
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import PPM, format_scaled

__all__ = ["Plan", "Planner", "Swap", "plan_text", "swap_text"]

#: What rounding may take off a health: equity down and requirement up to a micro, before and after.
_ROUNDED_MICROS = 2
#: Weights are floats: this much of a ppm, up or down, is none.
_SLACK_PPM = 1e-3


class Swap(NamedTuple):
    """Debt to repay, and collateral to take for it; quantities in quanta, all above 0.

    ``repay`` of asset ``debt`` is paid in, ``seize`` of asset ``collateral`` taken, of which the
    protocol keeps ``protocol``.
    """

    debt: int
    repay: int
    collateral: int
    seize: int
    protocol: int
    bonus_ppm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one offer is for.

    Attributes
    ----------
    legs : tuple of CloseLeg
        Orders, in the order in which they are to be worked.
    swaps : tuple of Swap
        Debts to repay, likewise.
    share_ppm : int or None
        Where a part of the whole book is sold: how much of it. ``legs`` are then that part, and go
        together.
    auction_ppm : int or None
        Where the book is auctioned: the share of its value that a bidder pays now.
    """

    legs: tuple[CloseLeg, ...] = ()
    swaps: tuple[Swap, ...] = ()
    share_ppm: int | None = None
    auction_ppm: int | None = None


def plan_text(rulebook: CompiledRulebook, plan: Plan) -> dict[str, Any]:
    """Return a plan as it is published: decimal strings, names of the rulebook."""
    legs = [
        {
            "market": leg.instrument.name,
            "side": leg.side,
            "size": leg.instrument.lot.format(leg.size_lots),
            "mark_price": format_scaled(leg.mark_price, leg.instrument.price_exponent),
            "limit_price": format_scaled(leg.limit_price, leg.instrument.price_exponent),
            "bankruptcy_price": format_scaled(leg.bankruptcy_price, leg.instrument.price_exponent),
            "fund_fee_ppm": leg.fund_fee_ppm,
        }
        for leg in plan.legs
    ]
    swaps = [swap_text(rulebook, swap) for swap in plan.swaps]
    return {"legs": legs, "swaps": swaps, "share_ppm": plan.share_ppm}


def swap_text(rulebook: CompiledRulebook, swap: Swap) -> dict[str, Any]:
    """Return a swap as it is published."""
    debt, collateral = rulebook.assets[swap.debt], rulebook.assets[swap.collateral]
    return {
        "debt": debt.name,
        "repay": format_scaled(swap.repay, debt.quantum_exponent),
        "collateral": collateral.name,
        "seize": format_scaled(swap.seize, collateral.quantum_exponent),
        "protocol": format_scaled(swap.protocol, collateral.quantum_exponent),
        "bonus_ppm": swap.bonus_ppm,
    }


def _auctioned(leg: CloseLeg, price_ppm: int) -> CloseLeg:
    """Return an order with the limit price of an auction."""
    limit = auction_limit(
        mark_price=leg.mark_price,
        bankruptcy_price=leg.bankruptcy_price,
        share_ppm=price_ppm,
        is_sell=leg.side == "sell",
        tick_price=leg.instrument.tick_price,
    )
    return leg._replace(limit_price=limit)


class Planner:
    """Planner of the units of one partition.

    Parameters
    ----------
    rulebook, columns, marks
        What is judged, by what; plans are made at the marks in force.
    notes : list of dict, optional
        Where what sizes came from is noted: a dict a step, named by ``step``; amounts are numbers
        of settlement units, sizes lots.
    """

    def __init__(
        self,
        rulebook: CompiledRulebook,
        columns: Columns,
        marks: MarkBook,
        notes: list[dict[str, Any]] | None = None,
    ) -> None:
        self._rulebook = rulebook
        self._notes = notes
        self._columns = columns
        self._marks = marks
        self._appraiser = Appraiser(rulebook, columns, marks)

    def plan(self, unit: int, figures: MarginFigures, elapsed_us: int = 0) -> Plan:
        """Return what restores health(liquidation_end) of a unit, or all there is to close.

        Parameters
        ----------
        unit : int
            A unit that can be judged; its positions in paused markets stay.
        figures : MarginFigures
            Its figures at the marks in force.
        elapsed_us : int
            Since its case began: an auction's price falls.
        """
        policy = self._rulebook.policies[self._columns.units.preset[unit]]
        if figures.shortage_micros == 0:
            return Plan()
        if policy.is_plain:
            return Plan(legs=self._plain_legs(unit, policy, figures))
        appraisal = self._appraiser.appraise(unit)
        positions = self._positions(unit)
        if policy.sizing == "slice":
            share_ppm = self._slice(policy, figures, appraisal, elapsed_us)
        elif policy.sizing == "steps":
            self._note(
                "steps",
                requirement=figures.requirement_micros[Level.MAINTENANCE] / PPM,
                equity=figures.equity_micros[Level.MAINTENANCE] / PPM,
                fee_ppm=policy.liquidator_fee_ppm,
                step_ppm=policy.step_ppm,
                below_ppm=policy.step_below_ppm,
            )
            share_ppm = step_share(
                requirement_micros=figures.requirement_micros[Level.MAINTENANCE],
                equity_micros=figures.equity_micros[Level.MAINTENANCE],
                fee_ppm=policy.liquidator_fee_ppm,
                step_ppm=policy.step_ppm,
                below_ppm=policy.step_below_ppm,
            )
        elif policy.sizing == "full":
            share_ppm = PPM
        else:
            legs, left_micros = self._restoring_legs(unit, policy, figures, appraisal, positions)
            swaps: tuple[Swap, ...] = ()
            lending = policy.lending
            if lending is not None and not (lending.is_by_shortage and left_micros == 0):
                swaps = self._swaps(unit, lending, figures, appraisal, left_micros)
            return Plan(legs=legs, swaps=swaps)
        lots = [-(-abs(p.size_lots) * share_ppm // PPM) for p in positions]
        offered = [
            (position, count)
            for position, count in zip(positions, lots, strict=True)
            if position.instrument.index not in self._marks.paused
        ]
        legs = self._priced(policy, figures, appraisal, offered)
        auction = policy.auction
        price_ppm = None
        if auction is not None and figures.raw_equity_micros >= 0:
            price_ppm = auction.share_at(elapsed_us)
            legs = tuple(_auctioned(leg, price_ppm) for leg in legs)
        return Plan(
            legs=legs, share_ppm=share_ppm if share_ppm < PPM else None, auction_ppm=price_ppm
        )

    def resized(
        self, unit: int, figures: MarginFigures, legs: Sequence[CloseLeg], lots: Sequence[int]
    ) -> tuple[CloseLeg, ...]:
        """Return a plan's orders for fewer lots, bankruptcy prices anew; without those of none."""
        policy = self._rulebook.policies[self._columns.units.preset[unit]]
        raw, required = figures.raw_equity_micros, figures.requirement_micros[Level.MAINTENANCE]
        held = {index: size for index, size, _ in self._columns.positions_of(unit)}
        appraisal = None if policy.is_plain else self._appraiser.appraise(unit)
        found = []
        for leg, count in zip(legs, lots, strict=True):
            if 0 < count < leg.size_lots:
                position = OpenPosition(leg.instrument, held[leg.instrument.index], leg.mark_price)
                own = policy
                if appraisal is not None:
                    own = self._at_its_rates(policy, position, appraisal)
                price = self._bankruptcy_price(position, own, count, raw, required)
                found.append(leg._replace(size_lots=count, bankruptcy_price=price))
            elif count:
                found.append(leg)
        return tuple(found)

    def full_close(self, unit: int, figures: MarginFigures) -> tuple[CloseLeg, ...]:
        """Return orders for all positions of a unit; parameters as of `plan`."""
        policy = self._rulebook.policies[self._columns.units.preset[unit]]
        positions = self._positions(unit)
        if not policy.is_plain:
            appraisal = self._appraiser.appraise(unit)
            whole = [(position, abs(position.size_lots)) for position in positions]
            return self._priced(policy, figures, appraisal, whole)
        raw, required = figures.raw_equity_micros, figures.requirement_micros[Level.MAINTENANCE]
        return tuple(
            CloseLeg(
                position.instrument,
                "sell" if position.size_lots > 0 else "buy",
                abs(position.size_lots),
                position.mark_price,
                limit_price(position, policy, raw, required),
                bankruptcy_price(position, policy, abs(position.size_lots), raw, required),
                0,
            )
            for position in positions
        )

    def _note(self, step: str, **inputs: Any) -> None:  # noqa: ANN401 - whatever a step is of
        if self._notes is not None:
            self._notes.append({"step": step, **inputs})

    # -- orders

    def _plain_legs(
        self, unit: int, policy: LiquidationPolicy, figures: MarginFigures
    ) -> tuple[CloseLeg, ...]:
        instruments, price = self._rulebook.instruments, self._marks.marks.price
        return plan_close(
            [
                OpenPosition(instruments[index], lots, int(price[instruments[index].mark_feed]))
                for index, lots, _ in self._columns.positions_of(unit)
                if index not in self._marks.paused
            ],
            policy,
            shortage_micros=figures.shortage_micros,
            raw_equity_micros=figures.raw_equity_micros,
            maintenance_micros=figures.requirement_micros[Level.MAINTENANCE],
        )

    def _positions(self, unit: int) -> list[OpenPosition]:
        """Return a unit's positions at their marks; an option's is its model's price."""
        held = self._columns.positions_of(unit)
        instruments = [self._rulebook.instruments[index] for index, _, _ in held]
        modelled = option_prices(
            self._rulebook, self._marks, [i for i in instruments if i.option is not None]
        )
        found = []
        for instrument, (_, lots, _) in zip(instruments, held, strict=True):
            if instrument.option is None:
                mark = int(self._marks.marks.price[instrument.mark_feed])
            else:
                mark = max(1, round(modelled[instrument.index] * 10**-instrument.price_exponent))
            found.append(OpenPosition(instrument, lots, mark))
        return found

    def _restoring_legs(
        self,
        unit: int,
        policy: LiquidationPolicy,
        figures: MarginFigures,
        appraisal: Appraisal,
        positions: list[OpenPosition],
    ) -> tuple[tuple[CloseLeg, ...], int]:
        """Close positions one by one until liquidation ends (7.1, 7.2 Z2 and Z8).

        Those that release most for their cost go first. What releases nothing, as a hedge does, is
        left alone unless closing everything else does not do. Returned with it: what the unit is
        short of once all are closed, micros, 0 where that is not needed.
        """
        proceeds = [
            self._proceeds(place, position, policy, appraisal)
            for place, position in enumerate(positions)
        ]
        health = self._appraiser.health_without(unit, None, 0.0)
        ranked = []
        for place, (position, (bring, cost)) in enumerate(zip(positions, proceeds, strict=True)):
            if position.instrument.index in self._marks.paused:
                continue
            gain = self._appraiser.health_without(unit, place, bring) - health
            score = int(PPM * gain / cost) if cost > 0.0 and np.isfinite(gain) else 0
            ranked.append((gain <= 0.0, -score, -gain, position.instrument.id, place))
            self._note(
                "rank",
                market=position.instrument.name,
                gain=gain,
                proceeds=bring,
                cost=cost,
                score_ppm=score,
            )
        ranked.sort()
        chosen: list[tuple[OpenPosition, int]] = []
        cash = 0.0
        left_micros = 0
        with self._appraiser.trial(unit) as trial:
            for _, _, _, _, place in ranked:
                position = positions[place]
                bring = proceeds[place][0]
                lots = trial.least_close(place, bring, cash)
                whole = abs(position.size_lots)
                self._note(
                    "close",
                    market=position.instrument.name,
                    cash_before=cash,
                    least_lots=lots,
                    whole_lots=whole,
                )
                if lots is not None:
                    if lots:
                        chosen.append((position, self._without_dust(position, lots, policy)))
                    break
                chosen.append((position, whole))
                cash += bring
                trial.close(place)
            else:
                left = -self._appraiser.health_without(unit, None, cash) * PPM
                left_micros = ceil(left) + _ROUNDED_MICROS if left > 0.0 else 0
        return self._priced(policy, figures, appraisal, chosen), left_micros

    def _proceeds(
        self, place: int, position: OpenPosition, policy: LiquidationPolicy, appraisal: Appraisal
    ) -> tuple[float, float]:
        """Return what closing all of a position brings, fee paid, and the fee."""
        if position.instrument.option is None:
            cost = abs(float(appraisal.position_value[place])) * policy.liquidator_fee_ppm / PPM
            return float(appraisal.position_pnl[place]) - cost, cost
        value = position.instrument.mark_value
        price = position.mark_price * value.numerator / value.denominator / PPM
        worth = position.size_lots * price
        cost = abs(worth) * policy.liquidator_fee_ppm / PPM
        return worth - cost, cost

    @staticmethod
    def _without_dust(position: OpenPosition, lots: int, policy: LiquidationPolicy) -> int:
        whole = abs(position.size_lots)
        instrument = position.instrument
        left = abs(instrument.cost_of(whole - lots, position.mark_price))
        return whole if left < policy.dust_micros and instrument.face is None else lots

    def _priced(
        self,
        policy: LiquidationPolicy,
        figures: MarginFigures,
        appraisal: Appraisal,
        chosen: list[tuple[OpenPosition, int]],
    ) -> tuple[CloseLeg, ...]:
        """Return orders with their limit and bankruptcy prices (7.4)."""
        required = figures.requirement_micros[Level.MAINTENANCE]
        raw = figures.raw_equity_micros
        legs = []
        for position, lots in chosen:
            if lots == 0:
                continue
            own = self._at_its_rates(policy, position, appraisal)
            index = position.instrument.index
            if self._notes is not None:
                self._note(
                    "price",
                    market=position.instrument.name,
                    liquidation_end_rate_ppm=own.liquidation_end_rate_ppm[index],
                    maintenance_rate_ppm=own.maintenance_rate_ppm[index],
                    fillable_price=fillable_price(position, own, raw, required),
                )
            legs.append(
                CloseLeg(
                    position.instrument,
                    "sell" if position.size_lots > 0 else "buy",
                    lots,
                    position.mark_price,
                    limit_price(position, own, raw, required),
                    self._bankruptcy_price(position, own, lots, raw, required),
                    fund_fee(position, own, figures.shortage_micros),
                )
            )
        return tuple(legs)

    def _bankruptcy_price(
        self,
        position: OpenPosition,
        policy: LiquidationPolicy,
        lots: int,
        raw_equity_micros: int,
        maintenance_micros: int,
    ) -> int:
        instrument = position.instrument
        if instrument.face is None:
            return bankruptcy_price(position, policy, lots, raw_equity_micros, maintenance_micros)
        coin = self._rulebook.assets[instrument.settles_in].index_feed
        assert coin is not None
        exponent = self._rulebook.feeds[coin].exponent - instrument.price_exponent
        price = (
            int(self._marks.marks.price[coin]) * 10 ** max(0, exponent) // 10 ** max(0, -exponent)
        )
        notional = abs(instrument.cost_of(position.size_lots, position.mark_price, -12)) * price
        required = notional * policy.maintenance_rate_ppm[instrument.index]
        whole = maintenance_micros * 10 ** (12 - instrument.price_exponent)
        share = Ratio(required, whole) if 0 < required < whole else Ratio(1, 1)
        return inverse_bankruptcy_price(position, price, raw_equity_micros, share)

    def _at_its_rates(
        self, policy: LiquidationPolicy, position: OpenPosition, appraisal: Appraisal
    ) -> LiquidationPolicy:
        """Return the policy with the rates a position has on the whole at its present size."""
        index = position.instrument.index
        _, end, maintenance = appraisal.rates_ppm(index)

        def with_own(rates: tuple[int, ...], own: int) -> tuple[int, ...]:
            return (*rates[:index], own, *rates[index + 1 :])

        return replace(
            policy,
            liquidation_end_rate_ppm=with_own(policy.liquidation_end_rate_ppm, end),
            maintenance_rate_ppm=with_own(policy.maintenance_rate_ppm, maintenance),
        )

    def _slice(
        self,
        policy: LiquidationPolicy,
        figures: MarginFigures,
        appraisal: Appraisal,
        elapsed_us: int,
    ) -> int:
        """Return what share of the book one bid may take at the auction's present price (Z7)."""
        assert policy.auction is not None
        price_ppm = policy.auction.share_at(elapsed_us)
        cash = sum(
            quanta
            for asset, quanta in self._columns.balances_of(appraisal.unit)
            if self._rulebook.assets[asset].index_feed is None
        )
        self._note(
            "slice",
            value=figures.raw_equity_micros / PPM,
            health=figures.health_micros(Level.MAINTENANCE) / PPM,
            cash=max(0, cash) / PPM,
            buffer_ppm=policy.auction_buffer_ppm,
            price_ppm=price_ppm,
        )
        return auction_share(
            value_micros=figures.raw_equity_micros,
            health_micros=figures.health_micros(Level.MAINTENANCE),
            cash_micros=max(0, cash),
            buffer_ppm=policy.auction_buffer_ppm,
            share_ppm=price_ppm,
        )

    # -- debt

    def _swaps(
        self,
        unit: int,
        lending: LendingPolicy,
        figures: MarginFigures,
        appraisal: Appraisal,
        shortage_micros: int,
    ) -> tuple[Swap, ...]:
        """Repay the largest debt from the collateral with the lowest threshold first (7.2).

        Orders leave the unit `shortage_micros` short, which matters to Z3 alone.
        """
        assets = self._rulebook.assets
        balances = [
            (asset, self._marks.unscaled(assets[asset], quanta))
            for asset, quanta in self._columns.balances_of(unit)
        ]
        amounts = dict(balances)
        values = [round(value * PPM) for value in appraisal.balance_value.tolist()]
        level = int(Level.MAINTENANCE)
        debts = sorted((value, asset) for (asset, _), value in zip(balances, values, strict=True))
        held = sorted(
            (float(counted[level]) * PPM / value, -value, place)
            for place, (counted, value) in enumerate(
                zip(appraisal.balance_equity, values, strict=True)
            )
            if value > 0
        )
        if not debts or debts[0][0] >= 0 or not held:
            return ()
        debt_micros = -sum(value for value, _ in debts if value < 0)
        equity_micros = figures.equity_micros[Level.MAINTENANCE]
        preset = self._columns.units.preset[unit]
        if self._rulebook.rules.terms.preset[preset]["is_debt_required"] == 0:
            equity_micros += debt_micros  # debt is owed in equity: what counts is the collateral
        collateral_micros = sum(value for value in values if value > 0)
        owed_micros, debt = -debts[0][0], debts[0][1]
        threshold, negative, place = held[0]
        threshold_ppm, reserve_micros = int(threshold * PPM), -negative
        collateral, _ = balances[place]
        bonus_ppm = lending.bonus_by_asset.get(collateral, lending.bonus_ppm)
        if lending.target_ppm is not None:
            bonus_ppm = bonus_at(
                debt_micros=debt_micros,
                equity_micros=equity_micros,
                least_ppm=bonus_ppm * lending.bonus_factor_ppm // PPM,
                most_ppm=bonus_ppm,
                most_at_ppm=lending.full_bonus_at_ppm,
            )
        if threshold_ppm > 0:
            bonus_ppm = helping_bonus(
                bonus_ppm,
                debt_micros=debt_micros,
                collateral_micros=collateral_micros,
                equity_micros=equity_micros,
                threshold_ppm=threshold_ppm,
            )
        repay = repay_limit(
            lending.close_factor,
            reserve_debt_micros=owed_micros,
            reserve_collateral_micros=reserve_micros,
            debt_micros=debt_micros,
            equity_micros=equity_micros,
        )
        if lending.target_ppm is not None:
            wanted = debt_to_target(
                debt_micros=debt_micros,
                equity_micros=equity_micros,
                target_ppm=lending.target_ppm,
                bonus_ppm=bonus_ppm,
                threshold_ppm=threshold_ppm,
            )
            repay = min(owed_micros, wanted)
        elif lending.is_by_shortage:
            repay = debt_for_shortage(
                shortage_micros,
                debt_micros=owed_micros,
                collateral_micros=reserve_micros,
                debt_weight_ppm=self._end_weight_ppm(unit, debt, amounts[debt]),
                collateral_weight_ppm=self._end_weight_ppm(unit, collateral, amounts[collateral]),
                debt_multiplier_ppm=PPM,
                collateral_multiplier_ppm=PPM + bonus_ppm,
                fund_fee_ppm=0,
            )
        repay = min(repay, reserve_micros * PPM // (PPM + bonus_ppm))
        repay = without_dust(
            repay,
            reserve_debt_micros=owed_micros,
            reserve_collateral_micros=reserve_micros,
            bonus_ppm=bonus_ppm,
            least_micros=lending.least_left_micros,
        )
        seized = seizure_of(
            repay, bonus_ppm=bonus_ppm, protocol_share_ppm=lending.protocol_share_ppm
        )
        self._note(
            "swap",
            debt=assets[debt].name,
            debt_value=owed_micros / PPM,
            all_debt=debt_micros / PPM,
            equity=equity_micros / PPM,
            collateral=assets[collateral].name,
            collateral_value=reserve_micros / PPM,
            threshold_ppm=threshold_ppm,
            bonus_ppm=bonus_ppm,
            protocol_share_ppm=lending.protocol_share_ppm,
            shortage_left=shortage_micros / PPM,
            repay_value=repay / PPM,
            seized_value=seized.seized_micros / PPM,
            protocol_value=seized.protocol_micros / PPM,
        )
        swap = Swap(
            debt=debt,
            repay=min(-amounts[debt], ceil(repay * -amounts[debt] / owed_micros)),
            collateral=collateral,
            seize=min(
                amounts[collateral],
                seized.seized_micros * amounts[collateral] // reserve_micros,
            ),
            protocol=seized.protocol_micros * amounts[collateral] // reserve_micros,
            bonus_ppm=bonus_ppm,
        )
        return (swap,) if swap.repay > 0 else ()

    def _end_weight_ppm(self, unit: int, asset: int, quanta: int) -> int:
        """Return what a balance counts of its value where liquidation ends, ppm.

        At its present size and the cautious price. A smaller debt counts no more, a smaller
        collateral no less, so that what is sized by it is enough. Rounded against the swap.
        """
        rules, marks = self._rulebook.rules, self._marks.marks
        preset, level = int(self._columns.units.preset[unit]), int(Level.LIQUIDATION_END)
        price, low, high = cautious_prices(preset, asset, level, rules, marks)
        coins = abs(quanta) / float(rules.asset_units[asset])
        if quanta < 0:
            weight = float(debt_weight(coins, price, preset, asset, level, rules, marks))
            weight += float(rules.terms.preset[preset]["end_buffer"])
            owed_ppm: float = weight * high / price * PPM
            return floor(owed_ppm + _SLACK_PPM)
        categories = {NONE, int(rules.terms.assets[asset]["category"])}
        weight = max(
            asset_weight(coins, price, preset, asset, level, category, rules, marks)
            for category in categories
        )
        held_ppm: float = weight * low / price * PPM
        return ceil(held_ppm - _SLACK_PPM)
