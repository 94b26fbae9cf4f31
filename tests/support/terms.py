"""What a margin unit is worth and must hold under any rulebook, once more, slowly and exactly.

Written from MODEL.md 3 and the words of the schema alone: it reads the checked model and the same
loose snapshot as ``solvent evaluate``, and shares nothing with the kernel or the flat parameters.
Amounts are fractions of the settlement currency; square roots have 50 digits, and so has all that
needs logarithms, powers or the normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import mpmath

from solvent.rules.model import AssetModel, InstrumentModel, PresetModel, RulebookModel
from solvent.rules.terms import (
    BracketsTermModel,
    CalendarTermModel,
    CollateralModel,
    ContingenciesTermModel,
    DeltaFloorTermModel,
    FlatTermModel,
    MarketPnlModel,
    OptionStandardTermModel,
    OwnLeverageTermModel,
    RateModel,
    ScanTermModel,
    ShortMinimumTermModel,
    SlippageTermModel,
    TreeModel,
)

__all__ = ["INITIAL", "LEVELS", "LIQUIDATION_END", "MAINTENANCE", "Amounts", "exact_amounts"]

INITIAL, LIQUIDATION_END, MAINTENANCE = range(3)
LEVELS = ("initial", "liquidation_end", "maintenance")

_DIGITS = 50
_PPM = 10**6
_YEAR_US = 365 * 86_400 * 10**6
_INDEX_ONE = 10**18
#: How long before expiry the settlement price begins to be known.
_SETTLING_US = 1_800 * 10**6

Marks = Mapping[str, str | Mapping[str, str]]
Pair = tuple[Fraction, Fraction]  # at initial and maintenance


class Amounts(NamedTuple):
    """Equity and requirement by level, raw equity; and how they must be read.

    ``scale`` is how much money was added up for them, ``quantum`` what one quantum of each balance
    that bears interest is worth, ``is_indebted`` whether there is anything owed, or a requirement
    inside equity (P6). ``own_end`` is equity and requirement of the liquidation end by its own
    terms, before it is held between the other two levels.
    """

    equity: tuple[Fraction, ...]
    requirement: tuple[Fraction, ...]
    raw_equity: Fraction
    scale: Fraction
    quantum: Fraction
    is_indebted: bool
    own_end: tuple[Fraction, Fraction]

    def health(self, level: int) -> Fraction:
        """Return equity minus requirement."""
        return self.equity[level] - self.requirement[level]


def exact_amounts(
    model: RulebookModel, account: Mapping[str, Any], marks: Marks, ts_us: int
) -> Amounts:
    """Return what a unit of a snapshot is worth and must hold, all its marks given.

    Parameters
    ----------
    model : RulebookModel
        As `solvent.rules.source.read_model` returns it; one that compiles.
    account, marks, ts_us
        Of a snapshot.
    """
    return _Unit(model, account, _Told(marks), ts_us).amounts()


# -- numbers


def _ratio(ppm: int) -> Fraction:
    return Fraction(ppm, _PPM)


def _micros(amount: int) -> Fraction:
    return Fraction(amount, _PPM)


def _root(value: Fraction) -> Fraction:
    """Return the square root, rounded down at 50 digits behind the point."""
    shift = 10**_DIGITS
    inside = value.numerator * value.denominator * shift**2
    return Fraction(math.isqrt(inside), value.denominator * shift)


def _real(value: Fraction) -> Any:
    return mpmath.mpf(value.numerator) / value.denominator


def _fraction(real: Any) -> Fraction:
    numerator, denominator = mpmath.libmp.to_rational(real._mpf_)
    return Fraction(int(numerator), int(denominator))


class _Told:
    """Marks as fractions."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def number(self, feed: str) -> Fraction:
        mark = self._marks[feed]
        if isinstance(mark, str):
            return Fraction(mark)
        return Fraction(mark["price"] if "price" in mark else mark["value"])

    def confidence(self, feed: str) -> Fraction:
        mark = self._marks[feed]
        return Fraction(0) if isinstance(mark, str) else Fraction(mark.get("confidence", "0"))

    def quality(self, feed: str | None) -> Fraction:
        return Fraction(1) if feed is None else self.number(feed)


# -- a unit


@dataclass
class _Orders:
    """Open orders of one market: size bid and asked, and their value at their own prices."""

    bids: Fraction = Fraction(0)
    asks: Fraction = Fraction(0)
    bid_value: Fraction = Fraction(0)
    ask_value: Fraction = Fraction(0)
    count: int = 0


@dataclass
class _Held:
    """A position; coins of an inverse contract are what it is worth at mark."""

    name: str
    contract: InstrumentModel
    size: Fraction = Fraction(0)
    cost: Fraction = Fraction(0)
    owed: Fraction = Fraction(0)  # funding not yet paid
    orders: _Orders = field(default_factory=_Orders)


def _by_level(given: Any, name: str) -> tuple[int, int, int]:
    """Return ``{level}_{name}``; a liquidation end left out equals maintenance."""
    initial = getattr(given, f"initial_{name}")
    end = getattr(given, f"liquidation_end_{name}")
    maintenance = getattr(given, f"maintenance_{name}")
    return initial, maintenance if end is None else end, maintenance


class _Unit:
    def __init__(
        self, model: RulebookModel, account: Mapping[str, Any], told: _Told, ts_us: int
    ) -> None:
        self.model, self.told, self.ts_us = model, told, ts_us
        class_name = account.get("account_class", model.default_class)
        self.preset: PresetModel = model.presets[model.bindings[class_name]]
        self.terms = [] if self.preset.requirement is None else self.preset.requirement.sum
        self.leverage = account.get("leverage", {})
        self.coins = {
            name: self._coins_now(model.assets[name], Fraction(text))
            for name, text in account.get("collateral", {}).items()
            if Fraction(text)
        }
        self.held = self._positions(account)
        self.scale = Fraction(0)

    def amounts(self) -> Amounts:
        """Add everything up, level by level."""
        equity, requirement = [Fraction(0)] * 3, [Fraction(0)] * 3
        options, groups = self._groups()
        raw = options + self._raw()
        for level in range(3):
            counted, required = self._balances_and_pnl(level)
            equity[level] = counted + options
            requirement[level] = required + groups[INITIAL if level == INITIAL else 1]
        for level in range(3):
            if requirement[level] < 0:
                equity[level] -= requirement[level]
                requirement[level] = Fraction(0)
        ratio = self.preset.liquidation.end.target_ratio_ppm
        if ratio is not None:
            equity[LIQUIDATION_END] = equity[MAINTENANCE]
            requirement[LIQUIDATION_END] = requirement[MAINTENANCE] * _ratio(ratio)
        own_end = (equity[LIQUIDATION_END], requirement[LIQUIDATION_END])
        # liquidation never ends beyond initial nor before maintenance (I1)
        health = [counted - required for counted, required in zip(equity, requirement, strict=True)]
        for bound in (INITIAL, MAINTENANCE):
            sign = 1 if bound == INITIAL else -1
            if sign * health[LIQUIDATION_END] < sign * health[bound]:
                health[LIQUIDATION_END] = health[bound]
                equity[LIQUIDATION_END] = equity[bound]
                requirement[LIQUIDATION_END] = requirement[bound]
        is_indebted = any(coins < 0 for coins in self.coins.values()) or any(
            self._is_net(held) for held in self._simple()
        )
        return Amounts(
            tuple(equity),
            tuple(requirement),
            raw,
            self.scale,
            self._quantum(),
            is_indebted,
            own_end,
        )

    def _quantum(self) -> Fraction:
        """Return what a quantum of each interest-bearing balance is worth at its higher price."""
        found = Fraction(0)
        for name in self.coins:
            asset = self.model.assets[name]
            if asset.deposit_index_feed or asset.borrow_index_feed:
                upper = self._cautious(name, INITIAL)[1]
                found += upper * Fraction(10) ** asset.quantum_exponent
        return found

    def _count(self, amount: Fraction) -> Fraction:
        """Note the size of something added up."""
        self.scale += abs(amount)
        return amount

    # -- reading the account (2)

    def _coins_now(self, asset: AssetModel, coins: Fraction) -> Fraction:
        """Return a balance after interest: kept as whole quanta divided by the index.

        What is worth just as much is kept if there is such a balance, else the next below.
        """
        feed = asset.deposit_index_feed if coins > 0 else asset.borrow_index_feed
        if feed is None:
            return coins
        index = self.told.number(feed) * _INDEX_ONE
        quantum = Fraction(10) ** asset.quantum_exponent
        scaled = math.floor(coins / quantum * _INDEX_ONE / index)
        # down: of a deposit less, of a debt more
        worths = [math.floor(at_rest * index / _INDEX_ONE) for at_rest in (scaled, scaled + 1)]
        return coins if coins / quantum in worths else worths[0] * quantum

    def _positions(self, account: Mapping[str, Any]) -> list[_Held]:
        found: dict[str, _Held] = {}
        for given in account.get("positions", []):
            name = given["market"]
            contract = self.model.instruments[name]
            held = found.setdefault(name, _Held(name, contract))
            held.size = Fraction(given["size"])
            held.cost = self._cost(contract, held.size, given)
            if contract.funding_feed is not None:
                now = self.told.number(contract.funding_feed)
                then = Fraction(given["funding_index"]) if "funding_index" in given else now
                held.owed = held.size / Fraction(contract.lot) * (now - then)
        for given in account.get("orders", []):
            name = given["market"]
            contract = self.model.instruments[name]
            orders = found.setdefault(name, _Held(name, contract)).orders
            orders.bids, orders.asks = Fraction(given["bid_size"]), Fraction(given["ask_size"])
            orders.bid_value = Fraction(given["bid_value"])
            orders.ask_value = Fraction(given["ask_value"])
            orders.count = given["count"]
        return list(found.values())

    def _cost(
        self, contract: InstrumentModel, size: Fraction, given: Mapping[str, Any]
    ) -> Fraction:
        if "cost_basis" in given:
            return Fraction(given["cost_basis"])
        if "entry_price" not in given:
            return Fraction(0)
        price = Fraction(given["entry_price"])
        cost = size * price if contract.face is None else size * Fraction(contract.face) / price
        quantum = Fraction(10) ** self.model.assets[contract.settles_in].quantum_exponent
        return math.ceil(cost / quantum) * quantum

    # -- prices (3.2: C6, C7)

    def _price(self, name: str) -> Fraction:
        feed = self.model.assets[name].index_feed
        return Fraction(1) if feed is None else self.told.number(feed)

    def _cautious(self, name: str, level: int) -> tuple[Fraction, Fraction]:
        """Return the lower and the upper price of an asset."""
        price = lower = upper = self._price(name)
        listed = self.preset.collateral.get(name)
        if listed is None:
            return lower, upper
        rules, feed = listed.price, self.model.assets[name].index_feed
        if feed is not None:
            width = min(
                _ratio(rules.confidence_k_ppm) * self.told.confidence(feed),
                _ratio(rules.confidence_most_ppm) * price,
            )
            lower, upper = price - width, price + width
        if rules.reference_feed is not None and (level == INITIAL or rules.reference_at == "all"):
            reference = self.told.number(rules.reference_feed)
            lower, upper = min(lower, reference), max(upper, reference)
        return lower, upper

    # -- collateral (3.2, 3.6)

    def _category(self) -> Any:
        """Return the haircuts of the one category that all balances are of, if there is one.

        A unit with positions has none: what they win or lose is of another kind.
        """
        if any(held.size for held in self.held):
            return None
        found = {self.model.assets[name].category for name in self.coins}
        if len(found) != 1:
            return None
        (only,) = found
        return None if only is None else self.preset.categories.get(only)

    def _asset_weight(
        self, name: str, listed: CollateralModel, coins: Fraction, level: int, price: Fraction
    ) -> Fraction:
        """Return what share of a positive balance counts."""
        category = self._category()
        if category is not None:
            weight = 1 - _ratio(_by_level(category, "haircut_ppm")[level])
        elif listed.tiers is not None:
            amount = coins if listed.tiers_in == "coins" else coins * price
            counted, lower = Fraction(0), Fraction(0)
            for tier in listed.tiers:
                upper = amount if tier.up_to is None else Fraction(tier.up_to)
                part = max(Fraction(0), min(amount, upper) - lower)
                haircut = tier.haircut_ppm
                if haircut is None:
                    haircut = _by_level(tier, "haircut_ppm")[level]
                counted += part * (1 - _ratio(haircut))
                lower = upper
            weight = counted / amount
        elif listed.skew is not None:
            skew = listed.skew
            haircut = coins / Fraction(skew.scale) * _ratio(skew.scalar_ppm)
            weight = 1 - min(max(haircut, _ratio(skew.lower_ppm)), _ratio(skew.upper_ppm))
        else:
            weight = 1 - _ratio(_by_level(listed, "haircut_ppm")[level])
        pool = listed.pool
        if pool is not None and pool.deposits_feed is not None and level == INITIAL:
            assert pool.deposits_start_usd is not None
            deposits = self.told.number(pool.deposits_feed) * self._price(name)
            share = min(Fraction(1), pool.deposits_start_usd / deposits) if deposits > 0 else 1
            weight *= max(_ratio(pool.floor_ppm), share)
        if listed.imf is not None:
            weight = min(weight, Fraction(11, 10) / (1 + Fraction(listed.imf) * _root(coins)))
        return weight

    def _debt_weight(
        self, name: str, listed: CollateralModel | None, coins: Fraction, level: int
    ) -> Fraction:
        if listed is None:
            return Fraction(1)
        weight = 1 + _ratio(_by_level(listed, "surcharge_ppm")[level])
        pool = listed.pool
        if pool is not None and pool.borrows_feed is not None and level == INITIAL:
            assert pool.borrows_start_usd is not None
            borrows = self.told.number(pool.borrows_feed) * self._price(name)
            weight *= max(Fraction(1), borrows / pool.borrows_start_usd)
        if listed.imf is not None:
            weight = max(weight, weight * Fraction(4, 5) + Fraction(listed.imf) * _root(coins))
        return weight

    def _balance(self, name: str, coins: Fraction, level: int) -> tuple[Fraction, Fraction]:
        """Return what a balance adds to equity and to the requirement."""
        listed = self.preset.collateral.get(name)
        lower, upper = self._cautious(name, level)
        if coins < 0:
            owed = -coins * upper * self._debt_weight(name, listed, -coins, level)
            self._count(owed)
            return (
                (Fraction(0), owed) if self.preset.debt == "requirement" else (-owed, Fraction(0))
            )
        if listed is None or coins == 0:
            return Fraction(0), Fraction(0)
        if listed.cap is not None:
            coins = min(coins, Fraction(listed.cap))
        if coins == 0:
            return Fraction(0), Fraction(0)
        value = self._count(coins * lower)
        weight = self._asset_weight(name, listed, coins, level, lower)
        if listed.cap_micros is not None and value * weight > _micros(listed.cap_micros):
            value = _micros(listed.cap_micros) / weight  # no more of it counts
        if listed.haircut_side == "requirement":
            return value, value * (1 - weight)
        return value * weight, Fraction(0)

    # -- positions (3.3, 3.4)

    def _notional(self, held: _Held, size: Fraction | None = None) -> Fraction:
        """Return the signed notional of a size in the asset it settles in."""
        assert held.contract.mark_feed is not None
        size = held.size if size is None else size
        mark = self.told.number(held.contract.mark_feed)
        if held.contract.face is not None:
            return size * Fraction(held.contract.face) / mark
        return size * mark

    def _pnl(self, held: _Held) -> Fraction:
        """Return unrealised pnl with funding, in the asset it settles in."""
        gain = self._notional(held) - held.cost
        return (-gain if held.contract.kind == "inverse" else gain) - held.owed

    def _simple(self) -> Iterator[_Held]:
        return (held for held in self.held if held.contract.kind != "option")

    def _counted_pnl(self, held: _Held, level: int) -> Fraction:
        """Return what counts of the pnl, in settlement currency (P1 to P7)."""
        rules: MarketPnlModel = self.preset.pnl.markets.get(held.name, self.preset.pnl)
        gain = self._pnl(held)
        price = self._price(held.contract.settles_in)
        if self.preset.pnl.settle_price and not self.preset.pnl.fold:
            lower, upper = self._cautious(held.contract.settles_in, level)
            price = lower if gain > 0 else upper
        gain *= price
        if rules.net_of_requirement:
            gain -= self._requirement(held, level) + self._of_orders(held, level)
        if gain <= 0:
            return gain
        share = _ratio(_by_level(rules, "ppm")[level])
        if rules.imf is not None:
            share = min(share, Fraction(11, 10) / (1 + Fraction(rules.imf) * _root(gain)))
        if rules.imbalance is not None and level == INITIAL:
            net = self.told.number(rules.imbalance.net_pnl_feed)
            if net > rules.imbalance.most_usd:
                share *= rules.imbalance.most_usd / net
        counted = gain * share
        if rules.cap_micros is not None and level == INITIAL:
            counted = min(counted, _micros(rules.cap_micros))
        return counted

    def _is_net(self, held: _Held) -> bool:
        """Tell whether the requirement is in the pnl already (P6)."""
        return self.preset.pnl.markets.get(held.name, self.preset.pnl).net_of_requirement

    def _balances_and_pnl(self, level: int) -> tuple[Fraction, Fraction]:
        equity = requirement = Fraction(0)
        coins = dict(self.coins)
        end = self.preset.liquidation.end
        is_buffered = end.of_liabilities and level == LIQUIDATION_END
        for held in self._simple():
            asset = held.contract.settles_in
            for amount in (self._notional(held), held.cost, held.owed):
                self._count(amount * self._price(asset))
            counted = self._counted_pnl(held, level)
            required = self._count(self._requirement(held, level))
            required += self._count(self._of_orders(held, level))
            if not self._is_net(held):
                requirement += required
            if is_buffered:
                counted += _ratio(end.buffer_ppm) * min(Fraction(0), counted)
            if self.preset.pnl.fold:
                coins[asset] = coins.get(asset, Fraction(0)) + counted / self._price(asset)
            else:
                equity += counted
        for name, amount in coins.items():
            added, required = self._balance(name, amount, level)
            equity += added
            requirement += required
            if is_buffered and amount < 0:
                upper = self._cautious(name, level)[1]
                requirement += self._count(_ratio(end.buffer_ppm) * -amount * upper)
        return equity, requirement

    def _raw(self) -> Fraction:
        raw = Fraction(0)
        for name, coins in self.coins.items():
            raw += self._count(coins * self._price(name))
        for held in self._simple():
            raw += self._pnl(held) * self._price(held.contract.settles_in)
        return raw

    # -- requirement of a market

    def _term_of(self, name: str) -> tuple[Any, Any]:
        """Return the term that names a market, or whose default it falls under."""
        chosen = default = (None, None)
        for term in self.terms:
            if isinstance(term, FlatTermModel | BracketsTermModel | SlippageTermModel):
                if name in term.markets:
                    chosen = (term, term.markets[name])
                elif term.default is not None:
                    default = (term, term.default)
        return default if chosen[0] is None else chosen

    def _counts_orders(self, level: int) -> bool:
        orders = self.preset.orders
        return orders.kind == "worst_case" and (level == INITIAL or orders.at == "all")

    def _exposure(self, held: _Held, level: int) -> Fraction:
        """Return the size required for: the position, or the most that orders may make of it."""
        if not self._counts_orders(level):
            return held.size
        return max(held.size + held.orders.bids, held.size - held.orders.asks, key=abs)

    def _requirement(self, held: _Held, level: int) -> Fraction:
        """Return what one market requires by its own term."""
        term, rules = self._term_of(held.name)
        if term is None:
            return Fraction(0)
        upper = self._cautious(held.contract.settles_in, level)[1]
        size = self._exposure(held, level)
        notional = abs(self._notional(held, size)) * upper
        least_rate = Fraction(0)
        is_own = any(isinstance(other, OwnLeverageTermModel) for other in self.terms)
        if is_own and level == INITIAL and held.name in self.leverage:
            least_rate = 1 / Fraction(self.leverage[held.name])
        if isinstance(term, FlatTermModel):
            if term.notional_basis == "entry":
                notional = abs(held.cost) * upper
            rate = max(self._rate(held, rules, size, level), least_rate)
            if size == 0:
                return notional * rate
            return max(_micros(rules.least_micros), notional * rate + _micros(rules.add_micros))
        if isinstance(term, BracketsTermModel):
            return max(self._of_brackets(rules, notional, level), notional * least_rate)
        return self._of_slippage(held, rules, level) * upper

    def _rate(self, held: _Held, rules: RateModel, size: Fraction, level: int) -> Fraction:
        initial = _ratio(rules.initial_rate_ppm)
        share = Fraction(1)
        if rules.maintenance_fraction_ppm is not None:
            share = _ratio(rules.maintenance_fraction_ppm)
            maintenance = initial * share
        else:
            assert rules.maintenance_rate_ppm is not None
            maintenance = _ratio(rules.maintenance_rate_ppm)
        end = maintenance + _ratio(self.preset.liquidation.end.buffer_ppm)
        if rules.liquidation_end_rate_ppm is not None:
            end = _ratio(rules.liquidation_end_rate_ppm)
        rate = (initial, end, maintenance)[level]
        coins = abs(size if held.contract.face is None else self._notional(held, size))
        if rules.slope is not None:
            rate += Fraction(rules.slope) * coins * (1 if level == INITIAL else share)
        if rules.imf is not None:
            rate = max(rate, rate * Fraction(4, 5) + Fraction(rules.imf) * _root(coins))
        interest = rules.open_interest
        if interest is not None and level == INITIAL:
            upper = self._cautious(held.contract.settles_in, level)[1]
            open_notional = self.told.number(interest.feed) * upper
            if held.contract.face is None:
                assert held.contract.mark_feed is not None
                open_notional *= self.told.number(held.contract.mark_feed)
            if open_notional >= interest.upper_usd:
                rate = Fraction(1)
            elif open_notional > interest.lower_usd:
                way = (open_notional - interest.lower_usd) / (
                    interest.upper_usd - interest.lower_usd
                )
                rate += Fraction(math.floor((1 - rate) * way * _PPM), _PPM)
        return rate

    def _of_brackets(self, brackets: Sequence[Any], notional: Fraction, level: int) -> Fraction:
        """Return the sum over brackets of rate times what lies in each."""
        buffer = self.preset.liquidation.end.buffer_ppm
        required = lower = Fraction(0)
        for bracket in brackets:
            end = bracket.liquidation_end_rate_ppm
            end = bracket.maintenance_rate_ppm + buffer if end is None else end
            rate = (bracket.initial_rate_ppm, end, bracket.maintenance_rate_ppm)[level]
            upper = notional if bracket.up_to_usd is None else Fraction(bracket.up_to_usd)
            required += max(Fraction(0), min(notional, upper) - lower) * _ratio(rate)
            lower = upper
        return required

    def _of_slippage(self, held: _Held, rules: Any, level: int) -> Fraction:
        """Return the larger side, in the asset the market settles in."""
        unit = self._notional(held, Fraction(1))
        orders = held.orders if self._counts_orders(level) else _Orders()
        sides = [Fraction(0)]
        for sign, factor, more in (
            (1, Fraction(rules.risk_long), orders.bids),
            (-1, Fraction(rules.risk_short), orders.asks),
        ):
            if sign * held.size + more > 0:
                size = max(Fraction(0), sign * held.size)
                slipped = size * Fraction(rules.linear) + size**2 * Fraction(rules.quadratic)
                sides.append(unit * (slipped + (size + more) * factor))
        required = max(sides) + max(Fraction(0), held.owed * _ratio(rules.funding_factor_ppm))
        scales = (rules.initial_scale_ppm, rules.liquidation_end_scale_ppm, _PPM)
        return required * _ratio(scales[level])

    def _of_orders(self, held: _Held, level: int) -> Fraction:
        """Return what open orders cost besides exposure (O1, O4)."""
        rules, orders = self.preset.orders, held.orders
        upper = self._cautious(held.contract.settles_in, level)[1]
        required = Fraction(0)
        if self._counts_orders(level):
            required += _micros(rules.per_order_micros) * orders.count
        if rules.open_loss and level == INITIAL and held.contract.face is None:
            lost = max(Fraction(0), orders.bid_value - self._notional(held, orders.bids))
            lost += max(Fraction(0), self._notional(held, orders.asks) - orders.ask_value)
            fees = _ratio(rules.fee_ppm) * (orders.bid_value + orders.ask_value)
            required += (lost + fees) * upper
        return required

    # -- what is margined by underlying (3.7, 3.8)

    def _groups(self) -> tuple[Fraction, Pair]:
        """Return what options are worth, and what the trees of all underlyings require."""
        trees = [
            term
            for term in self.terms
            if not isinstance(
                term,
                FlatTermModel | BracketsTermModel | SlippageTermModel | OwnLeverageTermModel,
            )
        ]
        if not trees:
            return Fraction(0), (Fraction(0), Fraction(0))
        worth, initial, maintenance = Fraction(0), Fraction(0), Fraction(0)
        with mpmath.workdps(_DIGITS):
            for name in self.model.underlyings:
                group = _Group(self, name, trees)
                worth += group.worth()
                for tree in trees:
                    at_initial, at_maintenance = group.node(tree)
                    initial += at_initial
                    maintenance += at_maintenance
                self.scale += group.scale
        return worth, (initial, maintenance)


@dataclass
class _Option:
    """Numbers of one option position, as reals."""

    contract: InstrumentModel
    amount: Any
    cost: Any
    strike: Any
    volatility: Any
    is_call: bool


@dataclass
class _Expiry:
    """Options of one date and their market."""

    left_us: int
    forward: Any
    rate: Any
    quality: Any
    options: list[_Option]

    @property
    def years(self) -> Any:
        return mpmath.mpf(self.left_us) / _YEAR_US

    @property
    def settled(self) -> Any:
        """Share of the settlement price that is not known yet."""
        return mpmath.mpf(min(self.left_us, _SETTLING_US)) / _SETTLING_US


def _normal(x: Any) -> Any:
    """Return the normal distribution; 17 deviations out it is 0 or 1 to 60 digits."""
    if abs(x) > 17:
        return mpmath.mpf(1 if x > 0 else 0)
    return mpmath.ncdf(x)


def _black(forward: Any, strike: Any, years: Any, volatility: Any, is_call: bool) -> Any:
    """Return the undiscounted price of one option."""
    sign = 1 if is_call else -1
    width = volatility * mpmath.sqrt(years)
    if width == 0 or forward == 0:
        return max(mpmath.mpf(0), sign * (forward - strike))
    first = mpmath.log(forward / strike) / width + width / 2
    return sign * (forward * _normal(sign * first) - strike * _normal(sign * (first - width)))


def _share(ppm: int) -> Any:
    return mpmath.mpf(ppm) / _PPM


class _Group:
    """A unit's book in one underlying: its options, contracts without a term, and collateral."""

    def __init__(self, unit: _Unit, name: str, trees: Sequence[Any]) -> None:
        told, model = unit.told, unit.model
        self.unit, self.trees = unit, trees
        underlying = model.underlyings[name]
        self.spot = _real(told.number(underlying.spot_feed))
        self.quality = _real(told.quality(underlying.quality_feed))
        self.stable = _real(told.quality(underlying.stable_feed))
        self.expiries = self._expiries_of(name)
        self.linear: list[tuple[Any, Any, Any, int | None]] = []  # coins, value, quality, expiry
        for held in unit._simple():
            contract = held.contract
            if contract.underlying != name or held.size == 0:
                continue
            assert contract.mark_feed is not None
            is_inverse = contract.face is not None
            mark = told.number(contract.mark_feed)
            value = unit._notional(held) * (mark if is_inverse else 1)
            coins = unit._notional(held) if contract.face is not None else held.size
            quality = _real(told.quality(contract.quality_feed))
            self.linear.append((_real(coins), _real(value), quality, contract.expires_at_us))
        self.hedging: list[Any] = []  # value, of a debt below 0: a balance is signed (2)
        # value and quality of collateral; what has no underlying is the first one's to charge
        self.doubtful: list[tuple[Any, Any]] = []
        own = {name, None} if name == next(iter(model.underlyings)) else {name}
        for asset_name, coins in unit.coins.items():
            asset = model.assets[asset_name]
            if asset_name == model.rulebook.settlement_asset:
                continue
            if coins > 0 and asset_name not in unit.preset.collateral:
                continue  # it counts nothing; a debt counts wherever it is
            value = _real(coins * unit._price(asset_name))
            quality = _real(told.quality(asset.quality_feed))
            if asset.underlying == name:
                self.hedging.append(value)
            if asset.underlying in (own if coins > 0 else {name}):
                self.doubtful.append((abs(value), quality))
        self.scale = Fraction(0)
        at_stake = sum(abs(value) for _, value, _, _ in self.linear)
        at_stake += sum(abs(value) for value in self.hedging)
        at_stake += sum(
            abs(o.amount) * max(o.strike, e.forward, self.spot)
            for e in self.expiries
            for o in e.options
        )
        if at_stake:
            self.scale = _fraction(mpmath.mpf(at_stake))

    def _expiries_of(self, name: str) -> list[_Expiry]:
        told = self.unit.told
        found: dict[tuple[Any, ...], _Expiry] = {}
        for held in self.unit.held:
            contract = held.contract
            if contract.kind != "option" or contract.underlying != name:
                continue
            assert contract.expires_at_us is not None
            assert contract.forward_feed is not None
            assert contract.volatility_feed is not None
            assert contract.strike is not None
            feeds = (contract.forward_feed, contract.rate_feed, contract.quality_feed)
            rate = Fraction(0) if contract.rate_feed is None else told.number(contract.rate_feed)
            expiry = found.setdefault(
                (contract.expires_at_us, *feeds),
                _Expiry(
                    max(0, contract.expires_at_us - self.unit.ts_us),
                    _real(told.number(contract.forward_feed)),
                    max(mpmath.mpf(0), _real(rate)),
                    _real(told.quality(contract.quality_feed)),
                    [],
                ),
            )
            expiry.options.append(
                _Option(
                    contract,
                    _real(held.size),
                    _real(held.cost),
                    _real(Fraction(contract.strike)),
                    _real(told.number(contract.volatility_feed)),
                    contract.right == "call",
                )
            )
        return list(found.values())

    # -- value

    def _is_discounted(self) -> bool:
        return any(isinstance(leaf, ScanTermModel) for leaf in _leaves(self.trees))

    def worth(self) -> Fraction:
        """Return what options add to equity: their value, less their cost if it is still owed."""
        worth = mpmath.mpf(0)
        for expiry in self.expiries:
            for option in expiry.options:
                value = option.amount * _black(
                    expiry.forward, option.strike, expiry.years, option.volatility, option.is_call
                )
                if self._is_discounted():
                    value *= mpmath.exp(-expiry.rate * expiry.years)
                if option.contract.settlement == "variation":
                    value -= option.cost
                    self.scale += abs(_fraction(option.cost))
                worth += value
        return _fraction(worth)

    # -- the tree

    def node(self, node: Any) -> Pair:
        """Return what a term or tree requires at initial and at maintenance."""
        if isinstance(node, TreeModel):
            kind, below = next(
                (kind, children)
                for kind in ("sum", "max", "min")
                if (children := getattr(node, kind)) is not None
            )
            combine = {"sum": sum, "max": max, "min": min}[kind]
            pairs = [self.node(child) for child in below]
            scale = _ratio(node.scale_ppm)
            return tuple(combine([pair[n] for pair in pairs]) * scale for n in range(2))  # type: ignore[return-value]
        by_kind = {
            ScanTermModel: self._scan,
            OptionStandardTermModel: self._standard,
            ContingenciesTermModel: self._contingencies,
            DeltaFloorTermModel: self._delta_floor,
            ShortMinimumTermModel: self._short_minimum,
            CalendarTermModel: self._calendar,
        }
        initial, maintenance = by_kind[type(node)](node)
        return _fraction(mpmath.mpf(initial)), _fraction(mpmath.mpf(maintenance))

    # -- 3.8

    def _moved(self, expiry: _Expiry, multiple: Any, volatility_of: Sequence[Any]) -> Any:
        """Return the discounted value of an expiry at a moved forward and other volatilities."""
        moving = expiry.forward * expiry.settled
        forward = multiple * moving + (expiry.forward - moving)
        value = mpmath.mpf(0)
        for option, volatility in zip(expiry.options, volatility_of, strict=True):
            value += option.amount * _black(
                forward, option.strike, expiry.years, volatility, option.is_call
            )
        return value * mpmath.exp(-expiry.rate * expiry.years)

    def _shocked(self, expiry: _Expiry, direction: str, scan: ScanTermModel) -> list[Any]:
        shock, smile = scan.volatility_shock, scan.smile
        days = expiry.years * 365
        power = _share(shock.short_power_ppm if days <= 30 else shock.long_power_ppm)
        k = (30 / max(days, mpmath.mpf(shock.floor_days))) ** power
        root = mpmath.sqrt(expiry.years)
        found = []
        for option in expiry.options:
            volatility = option.volatility
            if direction == "up":
                volatility = max(
                    _share(shock.least_ppm), volatility * (1 + _share(shock.up_ppm) * k)
                )
            elif direction == "down":
                volatility *= max(mpmath.mpf(0), 1 - _share(shock.down_ppm) * k)
            elif direction in {"linear", "abs"}:
                x = mpmath.log(option.strike / expiry.forward)
                x = abs(x) if direction == "abs" else x
                cap = _share(getattr(smile, f"{direction}_base_ppm")) * root
                cap += _share(getattr(smile, f"{direction}_cap_ppm"))
                wing = _share(smile.width_volatility_ppm) + _share(smile.width_slope_ppm) * root
                wing = max(_share(smile.least_width_ppm), root * _share(smile.width_ppm) * wing)
                y = min(cap, x * cap / wing) if x >= 0 else max(-cap, x * cap / wing)
                volatility *= max(mpmath.mpf(0), 1 + y)
            found.append(volatility)
        return found

    def _scan(self, scan: ScanTermModel) -> tuple[Any, Any]:
        static, basis = scan.static_discount, scan.basis
        plain = [[o.volatility for o in e.options] for e in self.expiries]
        one = mpmath.mpf(1)
        now = [self._moved(e, one, plain[n]) for n, e in enumerate(self.expiries)]
        worst = mpmath.mpf(0)
        for scenario in scan.scenarios:
            multiple = mpmath.mpf(scenario.spot)
            change = sum(value for _, value, _, _ in self.linear) * (multiple - 1)
            change += sum(self.hedging) * (multiple - 1)
            is_skew = scenario.volatility in {"linear", "abs"}
            for n, expiry in enumerate(self.expiries):
                volatility_of = self._shocked(expiry, scenario.volatility, scan)
                value = self._moved(expiry, one if is_skew else multiple, volatility_of)
                if value > 0:
                    falling = expiry.rate * _share(static.gain_rate_ppm)
                    falling += _share(static.gain_add_ppm)
                    value *= _share(static.gain_ppm) * mpmath.exp(-expiry.years * falling)
                else:
                    rising = expiry.rate * _share(static.loss_rate_ppm)
                    rising += _share(static.loss_add_ppm)
                    value *= min(
                        mpmath.exp(expiry.rate * expiry.years),
                        _share(static.loss_ppm) * mpmath.exp(expiry.years * rising),
                    )
                change += -abs(value - now[n]) if is_skew else value - now[n]
            worst = min(worst, mpmath.mpf(scenario.damp) * change)
        moved = mpmath.mpf(0)
        for n, expiry in enumerate(self.expiries):
            loss = min(
                self._moved(expiry, mpmath.mpf(basis.up), plain[n]) - now[n],
                self._moved(expiry, mpmath.mpf(basis.down), plain[n]) - now[n],
                mpmath.mpf(0),
            )
            moved += loss * (_share(basis.add_ppm) + _share(basis.mult_ppm) * expiry.years)
        lost = -min(moved, worst)
        more = max(mpmath.mpf(0), _share(scan.peg_ppm) - self.stable) * _share(scan.peg_factor_ppm)
        return (
            (_share(scan.loss_initial_ppm) + more) * lost,
            _share(scan.loss_maintenance_ppm) * lost,
        )

    def _contingencies(self, rules: ContingenciesTermModel) -> tuple[Any, Any]:
        threshold, factor = _share(rules.quality_threshold_ppm), _share(rules.quality_factor_ppm)

        def doubt(quality: Any) -> Any:
            return (1 - quality) * factor if quality < threshold else mpmath.mpf(0)

        maintenance = more = mpmath.mpf(0)
        lowest = min([self.quality, *(quality for _, _, quality, _ in self.linear)])
        for coins, _, quality, _ in self.linear:
            notional = abs(coins) * self.spot
            maintenance += notional * _share(rules.linear_maintenance_ppm)
            more += notional * (_share(rules.linear_more_ppm) + doubt(min(self.quality, quality)))
        for expiry in self.expiries:
            net: dict[Any, Any] = {}
            for option in expiry.options:
                net[option.strike] = net.get(option.strike, mpmath.mpf(0)) + option.amount
            naked = sum(max(mpmath.mpf(0), -amount) for amount in net.values())
            gross = sum(abs(option.amount) for option in expiry.options)
            maintenance += naked * self.spot * _share(rules.option_maintenance_ppm)
            more += naked * self.spot * _share(rules.option_more_ppm)
            more += gross * self.spot * doubt(min(expiry.quality, lowest))
        for value, quality in self.doubtful:
            more += value * doubt(min(quality, self.quality))
        return maintenance + more, maintenance

    def _deltas(self) -> list[tuple[int | None, Any]]:
        """Return expiry and delta of each position."""
        found = [(expiry, coins) for coins, _, _, expiry in self.linear]
        found += [(None, value / self.spot) for value in self.hedging]
        for expiry in self.expiries:
            for option in expiry.options:
                sign = 1 if option.is_call else -1
                width = option.volatility * mpmath.sqrt(expiry.years)
                if width == 0:
                    into = sign * (expiry.forward - option.strike)
                    slope = mpmath.mpf(sign) * (1 + mpmath.sign(into)) / 2
                else:
                    first = mpmath.log(expiry.forward / option.strike) / width + width / 2
                    slope = sign * _normal(sign * first)
                found.append((option.contract.expires_at_us, option.amount * slope))
        return found

    def _delta_floor(self, rules: DeltaFloorTermModel) -> tuple[Any, Any]:
        deltas = [delta for _, delta in self._deltas()]
        net, gross = abs(sum(deltas)), sum(abs(delta) for delta in deltas)
        floor = _share(rules.net_ppm) * net + _share(rules.hedged_ppm) * (gross - net) / 2
        return floor * self.spot, floor * self.spot * _share(rules.maintenance_ppm)

    def _short_minimum(self, rules: ShortMinimumTermModel) -> tuple[Any, Any]:
        shorts = self._shorts() * self.spot
        return shorts * _share(rules.initial_ppm), shorts * _share(rules.maintenance_ppm)

    def _shorts(self) -> Any:
        return sum(
            (max(mpmath.mpf(0), -option.amount) for e in self.expiries for option in e.options),
            mpmath.mpf(0),
        )

    def _calendar(self, rules: CalendarTermModel) -> tuple[Any, Any]:
        by_expiry: dict[int | None, Any] = {}
        for expiry, delta in self._deltas():
            by_expiry[expiry] = by_expiry.get(expiry, mpmath.mpf(0)) + delta
        longs = sum((max(mpmath.mpf(0), net) for net in by_expiry.values()), mpmath.mpf(0))
        shorts = sum((max(mpmath.mpf(0), -net) for net in by_expiry.values()), mpmath.mpf(0))
        offset = min(longs, shorts) * self.spot
        return offset * _share(rules.initial_ppm), offset * _share(rules.maintenance_ppm)

    # -- 3.7

    def _standard(self, rules: OptionStandardTermModel) -> tuple[Any, Any]:
        """Return value less "equity after requirement" of what the unit has here."""
        spot, zero = self.spot, mpmath.mpf(0)
        threshold, factor = _share(rules.quality_threshold_ppm), _share(rules.quality_factor_ppm)

        def doubt(quality: Any, coins: Any) -> Any:
            return (1 - quality) * factor * spot * coins if quality < threshold else zero

        initial = maintenance = zero  # equity after requirement
        value = zero
        for expiry in self.expiries:
            at_initial, at_maintenance, shorts = zero, zero, zero
            for option in expiry.options:
                amount = option.amount
                worth = amount * _black(
                    expiry.forward, option.strike, expiry.years, option.volatility, option.is_call
                )
                value += worth
                if amount >= 0:
                    continue
                shorts -= amount
                sign = 1 if option.is_call else -1
                out = max(zero, sign * (option.strike - spot)) / spot
                need = (
                    amount
                    * spot
                    * max(_share(rules.initial_share_ppm) - out, _share(rules.initial_least_ppm))
                )
                need += worth
                if option.is_call:
                    at_initial += need
                    at_maintenance += worth + _share(rules.maintenance_call_ppm) * spot * amount
                else:
                    least = worth + min(
                        _share(rules.maintenance_put_ppm) * spot * amount,
                        _share(rules.maintenance_put_value_ppm) * worth,
                    )
                    at_maintenance += least
                    at_initial += min(need, _share(rules.put_ratio_ppm) * least)
            if rules.max_loss:
                most = min([zero, *(self._payoff(expiry, x) for x in self._corners(expiry))])
                calls = min(zero, sum(o.amount for o in expiry.options if o.is_call))
                unpaired = expiry.forward * calls
                at_initial = max(at_initial, most + _share(rules.unpaired_initial_ppm) * unpaired)
                at_maintenance = max(
                    at_maintenance, most + _share(rules.unpaired_maintenance_ppm) * unpaired
                )
            initial += at_initial - doubt(min(self.quality, expiry.quality), shorts)
            maintenance += at_maintenance
        for coins, notional, quality, _ in self.linear:
            initial -= abs(notional) * _share(rules.linear_initial_ppm)
            initial -= doubt(min(self.quality, quality), abs(coins))
            maintenance -= abs(notional) * _share(rules.linear_maintenance_ppm)
        for worth in self.hedging:
            if worth < 0:
                continue  # of what is held a share counts, what is owed is owed in full
            # told in the stablecoin; what counts is a share of spot
            at_spot = worth * self.stable
            initial += at_spot * _share(rules.base_initial_ppm)
            initial -= doubt(self.quality, at_spot / spot)
            maintenance += at_spot * _share(rules.base_maintenance_ppm)
            value += worth
        if self.stable < _share(rules.peg_ppm):
            exposed = self._shorts() + sum(abs(coins) for coins, _, _, _ in self.linear)
            gap = _share(rules.peg_ppm) - self.stable
            initial -= gap * _share(rules.peg_factor_ppm) * spot * exposed
        return value - initial, value - maintenance

    def _corners(self, expiry: _Expiry) -> list[Any]:
        return [mpmath.mpf(0), *(option.strike for option in expiry.options)]

    def _payoff(self, expiry: _Expiry, at: Any) -> Any:
        return sum(
            option.amount * max(mpmath.mpf(0), (at - option.strike) * (1 if option.is_call else -1))
            for option in expiry.options
        )


def _leaves(nodes: Sequence[Any]) -> Iterator[Any]:
    for node in nodes:
        if isinstance(node, TreeModel):
            yield from _leaves(node.sum or node.max or node.min or ())
        else:
            yield node
