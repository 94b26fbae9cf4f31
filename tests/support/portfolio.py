"""Option and scenario margin written down once more, slowly: the oracle of the kernels.

Straight from the formulas of MODEL.md 3.7 and 3.8, one option and one scenario at a time, with the
C library's functions, in the form "equity after requirement" in which the source states them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from solvent.kernel.option_margin import StandardRules
from solvent.kernel.portfolio import Book
from solvent.kernel.scenario_margin import DIRECTIONS, ContingencyRules, ScenarioRules

__all__ = [
    "Collateral",
    "Expiry",
    "Linear",
    "Option",
    "Portfolio",
    "scenario_rules",
    "slow_scenario_margin",
    "slow_standard_margin",
    "standard_rules",
]

_YEAR_S = 365 * 86_400


class Option(NamedTuple):
    """One position."""

    strike: float
    is_call: bool
    amount: float
    volatility: float


@dataclass(frozen=True)
class Expiry:
    """Options of one date."""

    years: float
    forward: float
    options: Sequence[Option]
    rate: float = 0.0
    quality: float = 1.0


class Linear(NamedTuple):
    """A perpetual or a future."""

    size: float
    price: float
    quality: float = 1.0


class Collateral(NamedTuple):
    """A balance, its value told in the stablecoin; below 0 a debt in the underlying."""

    value: float
    quality: float = 1.0
    haircut: float = 0.0
    haircut_more: float = 0.0
    is_hedging: bool = False


@dataclass(frozen=True)
class Portfolio:
    """What a unit has in one underlying."""

    spot: float
    expiries: Sequence[Expiry] = ()
    linear: Sequence[Linear] = ()
    collateral: Sequence[Collateral] = ()
    spot_quality: float = 1.0
    stable: float = 1.0

    def book(self) -> Book:
        """Return the same as the kernels take it."""
        ordered = [
            sorted(expiry.options, key=lambda o: (o.strike, not o.is_call))
            for expiry in self.expiries
        ]
        flat = [option for options in ordered for option in options]

        def floats(values: Sequence[float]) -> np.ndarray:
            return np.array(values, dtype=np.float64)

        return Book(
            amount=floats([o.amount for o in flat]),
            strike=floats([o.strike for o in flat]),
            log_strike=floats([math.log(o.strike) for o in flat]),
            sign=floats([1.0 if o.is_call else -1.0 for o in flat]),
            volatility=floats([o.volatility for o in flat]),
            option=np.arange(len(flat)),
            first=np.cumsum([0, *(len(options) for options in ordered)], dtype=np.int64),
            ends=np.zeros(len(self.expiries), np.int64),
            forward=floats([e.forward for e in self.expiries]),
            years=floats([e.years for e in self.expiries]),
            rate=floats([e.rate for e in self.expiries]),
            quality=floats([e.quality for e in self.expiries]),
            size=floats([each.size for each in self.linear]),
            price=floats([each.price for each in self.linear]),
            linear_quality=floats([each.quality for each in self.linear]),
            dates=np.zeros(len(self.linear), np.int64),
            collateral=floats([c.value for c in self.collateral]),
            collateral_quality=floats([c.quality for c in self.collateral]),
            haircut=floats([c.haircut for c in self.collateral]),
            haircut_more=floats([c.haircut_more for c in self.collateral]),
            is_hedging=np.array([c.is_hedging for c in self.collateral], dtype=np.uint8),
            spot=self.spot,
            spot_quality=self.spot_quality,
            stable=self.stable,
        )


def _cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _black(forward: float, strike: float, years: float, volatility: float, is_call: bool) -> float:
    sign = 1 if is_call else -1
    width = volatility * math.sqrt(max(years, 0.0))
    if width == 0:
        return max(0.0, sign * (forward - strike))
    first = math.log(forward / strike) / width + width / 2
    return sign * (forward * _cdf(sign * first) - strike * _cdf(sign * (first - width)))


def _value(expiry: Expiry) -> float:
    """Undiscounted."""
    return sum(
        o.amount * _black(expiry.forward, o.strike, expiry.years, o.volatility, o.is_call)
        for o in expiry.options
    )


# -- closed form (3.7)


def standard_rules(p: Mapping[str, float]) -> StandardRules:
    """Return the kernel's parameters from the names of the source."""
    return StandardRules(
        initial_share=p["max_spot_req"],
        initial_least=p["min_spot_req"],
        maintenance_call=p["mm_call_spot_req"],
        maintenance_put=p["mm_put_spot_req"],
        maintenance_put_value=p["mm_put_mtm_req"],
        put_ratio=p["put_im_mm_ratio"],
        unpaired_initial=p["unpaired_im"],
        unpaired_maintenance=p["unpaired_mm"],
        linear_initial=p["perp_im"],
        linear_maintenance=p["perp_mm"],
        base_initial=p["base_margin_factor"] * p["base_im_scale"],
        base_maintenance=p["base_margin_factor"],
        quality_threshold=p["oc_threshold"],
        quality_factor=p["oc_factor"],
        peg=p["depeg_threshold"],
        peg_factor=p["depeg_factor"],
        has_max_loss=True,
    )


def slow_standard_margin(held: Portfolio, p: Mapping[str, float]) -> tuple[float, float, float]:
    """Return equity after requirement at initial and maintenance, and value; cash and pnl apart."""
    spot = held.spot
    initial = maintenance = value = shorts = 0.0
    for expiry in held.expiries:
        at_initial = at_maintenance = short = 0.0
        for option in expiry.options:
            if option.amount >= 0:
                continue
            amount = option.amount
            short -= amount
            price = _black(
                expiry.forward, option.strike, expiry.years, option.volatility, option.is_call
            )
            sign = 1 if option.is_call else -1
            out = max(0.0, sign * (option.strike - spot)) / spot
            worth = amount * price
            need = amount * spot * max(p["max_spot_req"] - out, p["min_spot_req"]) + worth
            if option.is_call:
                at_initial += need
                at_maintenance += worth + p["mm_call_spot_req"] * spot * amount
            else:
                least = worth + min(
                    p["mm_put_spot_req"] * spot * amount, p["mm_put_mtm_req"] * worth
                )
                at_maintenance += least
                at_initial += min(need, p["put_im_mm_ratio"] * least)
        points = {0.0, *(o.strike for o in expiry.options)}
        payoffs = [
            sum(
                o.amount * max(0.0, (x - o.strike) if o.is_call else (o.strike - x))
                for o in expiry.options
            )
            for x in points
        ]
        loss = min([0.0, *payoffs])
        calls = min(0.0, sum(o.amount for o in expiry.options if o.is_call))
        initial += max(at_initial, loss + p["unpaired_im"] * expiry.forward * calls)
        maintenance += max(at_maintenance, loss + p["unpaired_mm"] * expiry.forward * calls)
        quality = min(held.spot_quality, expiry.quality)
        if quality < p["oc_threshold"]:
            initial -= (1 - quality) * p["oc_factor"] * spot * short
        value += _value(expiry)
        shorts += short
    for each in held.linear:
        notional = abs(each.size) * each.price
        initial -= notional * p["perp_im"]
        maintenance -= notional * p["perp_mm"]
        quality = min(held.spot_quality, each.quality)
        if quality < p["oc_threshold"]:
            initial -= (1 - quality) * p["oc_factor"] * spot * abs(each.size)
        shorts += abs(each.size)
    for base in held.collateral:
        if not base.is_hedging or base.value < 0:
            continue
        at_spot = base.value * held.stable
        initial += at_spot * p["base_margin_factor"] * p["base_im_scale"]
        maintenance += at_spot * p["base_margin_factor"]
        value += base.value
        if held.spot_quality < p["oc_threshold"]:
            initial -= (1 - held.spot_quality) * p["oc_factor"] * at_spot
    initial -= max(0.0, p["depeg_threshold"] - held.stable) * p["depeg_factor"] * spot * shorts
    return initial, maintenance, value


# -- scenarios (3.8)

Groups = Mapping[str, Mapping[str, float]]


def scenario_rules(scenarios: Sequence[tuple[float, str, float]], groups: Groups) -> ScenarioRules:
    """Return the kernel's parameters from the names of the source."""
    shock, margin, basis = groups["vol_shock"], groups["margin"], groups["basis"]
    other, skew = groups["other"], groups["skew"]
    return ScenarioRules(
        shock=np.array([s[0] for s in scenarios], dtype=np.float64),
        damp=np.array([s[2] for s in scenarios], dtype=np.float64),
        direction=np.array([DIRECTIONS.index(s[1]) for s in scenarios], dtype=np.uint8),
        range_up=shock["range_up"],
        range_down=shock["range_down"],
        least_volatility=shock["min_vol"],
        short_power=shock["short_power"],
        long_power=shock["long_power"],
        floor_days=shock["dte_floor"],
        loss_maintenance=margin["mm_loss"],
        loss_initial=margin["im_loss"],
        gain_share=margin["static_discount_pos"],
        gain_rate_share=margin["pos_rate_mult"],
        gain_rate_more=margin["pos_rate_add"],
        loss_share=margin["static_discount_neg"],
        loss_rate_share=margin["neg_rate_mult"],
        loss_rate_more=margin["neg_rate_add"],
        basis_up=basis["up"],
        basis_down=basis["down"],
        basis_share=basis["add"],
        basis_share_a_year=basis["mult"],
        peg=other["peg_threshold"],
        peg_factor=other["peg_factor"],
        linear_cap=skew["linear_cap"],
        linear_base=skew["linear_base"],
        abs_cap=skew["abs_cap"],
        abs_base=skew["abs_base"],
        least_width=skew["min_k_star"],
        width=skew["width"],
        width_volatility=skew["vol_static"],
        width_slope=skew["vol_scale"],
        beside=ContingencyRules(
            quality_threshold=other["conf_threshold"],
            quality_factor=other["conf_margin"],
            linear_maintenance=other["mm_perp"],
            linear_more=other["im_perp"],
            option_maintenance=other["mm_option"],
            option_more=other["im_option"],
        ),
    )


def _moved(expiry: Expiry, multiple: float, volatility_of: Mapping[int, float]) -> float:
    """Discounted value at a moved forward; what is settled in the last half hour moves no more."""
    moving = expiry.forward * min(max(expiry.years, 0) * _YEAR_S, 1_800) / 1_800
    forward = multiple * moving + (expiry.forward - moving)
    value = sum(
        o.amount * _black(forward, o.strike, expiry.years, volatility_of[n], o.is_call)
        for n, o in enumerate(expiry.options)
    )
    return value * math.exp(-max(expiry.rate, 0) * expiry.years)


def _shocked(expiry: Expiry, direction: str, groups: Groups) -> dict[int, float]:
    shock, skew = groups["vol_shock"], groups["skew"]
    years = max(expiry.years, 0)
    days = expiry.years * 365
    power = shock["short_power"] if days <= 30 else shock["long_power"]
    scale = (30 / max(days, shock["dte_floor"])) ** power
    found = {}
    for n, option in enumerate(expiry.options):
        volatility = option.volatility
        if direction == "up":
            volatility = max(shock["min_vol"], volatility * (1 + shock["range_up"] * scale))
        elif direction == "down":
            volatility *= max(0, 1 - shock["range_down"] * scale)
        elif direction in {"linear", "abs"}:
            x = math.log(option.strike / expiry.forward)
            x = abs(x) if direction == "abs" else x
            cap = skew[f"{direction}_base"] * math.sqrt(years) + skew[f"{direction}_cap"]
            width = skew["vol_static"] + skew["vol_scale"] * math.sqrt(years)
            width = max(skew["min_k_star"], math.sqrt(years) * skew["width"] * width)
            y = min(cap, x * cap / width) if x >= 0 else max(-cap, x * cap / width)
            volatility *= max(0, 1 + y)
        found[n] = volatility
    return found


def slow_scenario_margin(
    held: Portfolio, scenarios: Sequence[tuple[float, str, float]], groups: Groups
) -> tuple[float, float, float]:
    """Return equity after requirement at initial and maintenance, and value; cash and pnl apart."""
    margin, basis, other = groups["margin"], groups["basis"], groups["other"]
    plain = [{n: o.volatility for n, o in enumerate(e.options)} for e in held.expiries]
    now = [_moved(e, 1.0, plain[i]) for i, e in enumerate(held.expiries)]
    worst = 0.0
    for multiple, direction, damp in scenarios:
        change = sum(each.size * each.price for each in held.linear) * (multiple - 1)
        change += sum(c.value for c in held.collateral if c.is_hedging) * (multiple - 1)
        for i, expiry in enumerate(held.expiries):
            is_skew = direction in {"linear", "abs"}
            value = _moved(
                expiry, 1.0 if is_skew else multiple, _shocked(expiry, direction, groups)
            )
            rate = max(expiry.rate, 0)
            if value > 0:
                falling = rate * margin["pos_rate_mult"] + margin["pos_rate_add"]
                value *= margin["static_discount_pos"] * math.exp(-expiry.years * falling)
            else:
                rising = rate * margin["neg_rate_mult"] + margin["neg_rate_add"]
                value *= min(
                    math.exp(rate * expiry.years),
                    margin["static_discount_neg"] * math.exp(expiry.years * rising),
                )
            change += -abs(value - now[i]) if is_skew else value - now[i]
        worst = min(worst, damp * change)
    moved = 0.0
    for i, expiry in enumerate(held.expiries):
        loss = min(
            _moved(expiry, basis["up"], plain[i]) - now[i],
            _moved(expiry, basis["down"], plain[i]) - now[i],
            0.0,
        )
        moved += loss * (basis["add"] + basis["mult"] * expiry.years)
    scan = -min(moved, worst)

    spot, threshold, factor = held.spot, other["conf_threshold"], other["conf_margin"]
    at_maintenance = more = 0.0

    def doubt(quality: float) -> float:
        return (1 - quality) * factor if quality < threshold else 0.0

    lowest = min([held.spot_quality, *(each.quality for each in held.linear)])
    for each in held.linear:
        notional = abs(each.size) * spot
        at_maintenance += notional * other["mm_perp"]
        quality = min(held.spot_quality, each.quality)
        more += notional * (other["im_perp"] + doubt(quality))
    for expiry in held.expiries:
        net: dict[float, float] = {}
        for o in expiry.options:
            net[o.strike] = net.get(o.strike, 0.0) + o.amount
        naked = sum(max(0.0, -amount) for amount in net.values())
        gross = sum(abs(o.amount) for o in expiry.options)
        at_maintenance += naked * spot * other["mm_option"]
        more += naked * spot * other["im_option"]
        more += gross * spot * doubt(min(expiry.quality, lowest))
    for c in held.collateral:
        at_maintenance += abs(c.value) * c.haircut
        more += abs(c.value) * (c.haircut_more + doubt(min(c.quality, held.spot_quality)))
    value = sum(now) + sum(c.value for c in held.collateral)
    share = margin["im_loss"] + max(0, other["peg_threshold"] - held.stable) * other["peg_factor"]
    return (
        value - share * scan - at_maintenance - more,
        value - margin["mm_loss"] * scan - at_maintenance,
        value,
    )
