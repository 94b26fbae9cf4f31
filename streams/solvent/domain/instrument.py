"""What is traded, held and priced: instruments, assets and feeds, with their exact steps.

Exponents are powers of ten of one unit (at most 0); a :class:`Step` is an exact decimal
``numerator * 10**exponent``. Indices are dense and are the rows of the kernel's arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd
from typing import NamedTuple

from solvent.units import MICRO_EXPONENT, format_scaled, parse_scaled

__all__ = ["Asset", "Feed", "Instrument", "Option", "Ratio", "Step", "Underlying"]


class Ratio(NamedTuple):
    """An exact non-negative fraction in lowest terms."""

    numerator: int
    denominator: int


class Step(NamedTuple):
    """An exact decimal step, ``numerator * 10**exponent`` with exponent at most 0.

    Examples
    --------
    >>> lot = Step.from_text("0.0050")
    >>> lot
    Step(numerator=5, exponent=-3)
    >>> lot.parse("0.015"), lot.format(-3)
    (3, '-0.015')
    """

    numerator: int
    exponent: int

    @classmethod
    def from_text(cls, text: str) -> Step:
        """Return the step a decimal string names, without trailing zeros.

        Raises
        ------
        ValueError
            If the text is no plain decimal, is not positive, or has more than 18 places.
        """
        numerator, exponent = parse_scaled(text, -18), -18
        if numerator <= 0:
            msg = f"{text!r} is not positive"
            raise ValueError(msg)
        while exponent < 0 and numerator % 10 == 0:
            numerator, exponent = numerator // 10, exponent + 1
        return cls(numerator, exponent)

    def parse(self, text: str) -> int:
        """Return how many steps a decimal string is.

        Raises
        ------
        ValueError
            If the text is no plain decimal or lies between two steps.
        """
        count, rest = divmod(parse_scaled(text, self.exponent), self.numerator)
        if rest:
            msg = f"{text!r} is not a multiple of {self.format(1)}"
            raise ValueError(msg)
        return count

    @property
    def exact(self) -> Fraction:
        """The step as a fraction."""
        return self.numerator * Fraction(10) ** self.exponent

    def format(self, count: int) -> str:
        """Return `count` steps as the shortest plain decimal."""
        return format_scaled(count * self.numerator, self.exponent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """A stream of numbers, integers at ``10**exponent``: prices, or values of a market's state.

    A price is above 0, in settlement units. A value is what its ``kind`` of feed, ``state``, needs:
    an open interest, an index, a rate, a volatility; it has a sign and may be 0, down to ``least``
    (an integer at the exponent) where what it is used for has one.
    """

    index: int
    name: str
    exponent: int
    kind: str = "price"
    least: int | None = None

    @property
    def limit(self) -> str:
        """What ``least`` asks of a value, as text."""
        return "above 0" if self.least else "0 or more"

    def is_below(self, value: int) -> bool:
        """Tell whether a value is below what its use allows."""
        return self.least is not None and value < self.least

    @property
    def is_state(self) -> bool:
        """Whether it carries values instead of prices."""
        return self.kind == "state"

    @property
    def number(self) -> str:
        """What its numbers are called: ``price`` or ``value``."""
        return "value" if self.is_state else "price"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """Something an account holds (balance > 0) or owes (< 0), in quanta.

    ``index_feed`` is the index of its feed; None for the settlement asset, whose price is 1. What
    it bears interest by are ``deposit_index_feed`` and ``borrow_index_feed``.
    """

    index: int
    name: str
    quantum_exponent: int
    index_feed: int | None
    is_borrowable: bool
    deposit_index_feed: int | None = None
    borrow_index_feed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlying:
    """What options and scenario margin are reckoned in; feeds by index."""

    index: int
    name: str
    spot_feed: int
    quality_feed: int | None = None
    stable_feed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What makes a contract a European option; feeds by index, the strike in settlement units."""

    is_call: bool
    strike: str
    expires_us: int
    forward_feed: int
    volatility_feed: int
    rate_feed: int | None = None
    quality_feed: int | None = None
    is_premium: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """A contract: signed lots (long > 0), trade prices in ticks, marks in feed units.

    Attributes
    ----------
    index, id, name
        Row of the kernel's arrays, number in the rulebook (ascending with `index`), market name.
    kind : str
        ``linear``, ``inverse`` or ``option``.
    lot, tick : Step
        Smallest size in coins (of an inverse contract: in contracts) and smallest price step in
        settlement units.
    mark_feed : int
        Index of the feed that values positions; -1 of an option, which its model values.
    index_feed : int or None
        Index of the feed of the underlying, if the rulebook names one.
    price_exponent : int
        Exponent of the mark feed; of an option, that of its tick.
    settles_in : int
        Index of the asset that fills, fees and funding are paid in.
    underlying : int or None
        Index of the underlying it belongs to.
    quality_feed, funding_feed : int or None
        What the mark feed says of itself, and the cumulative funding index.
    expires_us : int or None
        From when on a dated contract has no fills and may be settled.
    settlement_exponent : int
        Exponent of the price it is settled at: that of its mark feed, of an option that of its
        underlying's spot feed.
    face : Step or None
        Settlement units one contract of an inverse market is worth.
    option : Option or None
        What makes it an option.
    tick_value : Ratio
        Micros per lot and tick: ``value = ceil(lots * ticks * numerator / denominator)``.
    mark_value : Ratio
        Micros per lot and feed price unit.
    tick_price : int
        Feed price units in one tick.
    """

    index: int
    id: int
    name: str
    kind: str = "linear"
    lot: Step
    tick: Step
    mark_feed: int
    index_feed: int | None = None
    price_exponent: int
    settles_in: int = 0
    underlying: int | None = None
    quality_feed: int | None = None
    funding_feed: int | None = None
    expires_us: int | None = None
    settlement_exponent: int = 0
    face: Step | None = None
    option: Option | None = None
    tick_value: Ratio = field(init=False)
    mark_value: Ratio = field(init=False)
    tick_price: int = field(init=False)

    def cost_of(self, lots: int, price: int, exponent: int = MICRO_EXPONENT) -> int:
        """Return what signed lots cost at a price in feed units, rounded up, at ``10**exponent``.

        Of an inverse contract it is coins: ``face * lots / price``.
        """
        if self.face is None:
            value = self.mark_value
            scale = (
                Ratio(1, 1)
                if exponent == MICRO_EXPONENT
                else _reduced(1, MICRO_EXPONENT - exponent)
            )
            numerator = lots * price * value.numerator * scale.numerator
            return -(-numerator // (value.denominator * scale.denominator))
        face = _reduced(
            self.lot.numerator * self.face.numerator,
            self.lot.exponent + self.face.exponent - self.price_exponent - exponent,
        )
        return -(-lots * face.numerator // (price * face.denominator))

    def value_of(self, lots: int, price: int, mark_price: int) -> int:
        """Return what lots trade for at a price, micros of the settlement currency, rounded down.

        Of an inverse contract the coins change with the price, against it: ``face * price / mark``
        is what they bring, so that selling below the mark gives up as much as of a linear one.
        """
        if self.face is None:
            return lots * price * self.mark_value.numerator // self.mark_value.denominator
        face = self.face_value(MICRO_EXPONENT)
        return lots * face.numerator * price // (face.denominator * mark_price)

    def face_value(self, exponent: int) -> Ratio:
        """Return what a lot of an inverse contract is worth times ticks, at ``10**exponent``.

        Its value at a price is ``ceil(lots * numerator / (ticks * denominator))``.
        """
        assert self.face is not None
        value = self.lot.exact * self.face.exact / self.tick.exact / Fraction(10) ** exponent
        return Ratio(value.numerator, value.denominator)

    def worth_at_expiry(self, price: int, exponent: int = MICRO_EXPONENT) -> Ratio:
        """Return what a lot is worth at ``10**exponent`` once settled at a price, at least 0.

        Parameters
        ----------
        price : int
            Of the underlying, above 0, at ``settlement_exponent``.
        exponent : int
            Of the asset it settles in.
        """
        underlying = price * Fraction(10) ** self.settlement_exponent
        if self.option is not None:
            distance = underlying - Fraction(self.option.strike)
            value = max(distance if self.option.is_call else -distance, Fraction(0))
        elif self.face is not None:
            value = self.face.exact / underlying
        else:
            value = underlying
        value = value * self.lot.exact / Fraction(10) ** exponent
        return Ratio(value.numerator, value.denominator)

    def __post_init__(self) -> None:
        tick_value = _reduced(
            self.lot.numerator * self.tick.numerator,
            self.lot.exponent + self.tick.exponent - MICRO_EXPONENT,
        )
        mark_value = _reduced(
            self.lot.numerator, self.lot.exponent + self.price_exponent - MICRO_EXPONENT
        )
        tick_price = _reduced(self.tick.numerator, self.tick.exponent - self.price_exponent)
        if tick_price.denominator != 1:
            msg = (
                f"instrument {self.name}: tick {self.tick.format(1)} is finer than its mark feed, "
                f"whose exponent is {self.price_exponent}"
            )
            raise ValueError(msg)
        object.__setattr__(self, "tick_value", tick_value)
        object.__setattr__(self, "mark_value", mark_value)
        object.__setattr__(self, "tick_price", tick_price.numerator)


def _reduced(numerator: int, exponent: int) -> Ratio:
    """Return ``numerator * 10**exponent`` in lowest terms."""
    if exponent >= 0:
        return Ratio(numerator * 10**exponent, 1)
    denominator: int = 10**-exponent
    divisor = gcd(numerator, denominator)
    return Ratio(numerator // divisor, denominator // divisor)
