"""The robust price of one feed: a median over three votes a source, and its confidence.

Unit: integers at the feed's exponent, prices > 0, confidences >= 0. Nothing here knows sources by
name, time or feed; `engine.feeds` decides which quotes may vote. Formulas: MODEL.md 5.2 (equal
weights, Pyth's percentile votes), worked example E11, invariant I12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from solvent.units import PPM

__all__ = ["Aggregate", "Consensus", "Quote", "aggregate", "consensus", "is_within_band"]

#: Price and confidence of one source, integers at the feed's exponent.
Quote = tuple[int, int]


class Aggregate(NamedTuple):
    """A price and how far the sources lie apart around it, at the feed's exponent."""

    price: int
    confidence: int


class Consensus(NamedTuple):
    """What the sources agree on once outliers are gone.

    Attributes
    ----------
    first : Aggregate
        Over all quotes.
    final : Aggregate
        Over the quotes within the band of `first`; `first` itself if none lies outside.
    agreeing : int
        How many quotes lie within the band; 0 is possible when the quotes fall into two camps.
    """

    first: Aggregate
    final: Aggregate
    agreeing: int


def aggregate(quotes: Sequence[Quote]) -> Aggregate:
    """Return median and confidence of `quotes`, each voting ``p - c``, ``p`` and ``p + c``.

    Parameters
    ----------
    quotes : sequence of (price, confidence)
        At least one; their order does not matter.

    Returns
    -------
    Aggregate
        An even count of votes takes the floor of the mean of the middle two. The price lies
        between the lowest and the highest quoted price, so it is > 0 when those are.
    """
    if len(quotes) == 1:
        return Aggregate(*quotes[0])  # votes p-c, p, p+c: p50 = p and c either side
    votes = [price for price, _ in quotes]
    votes += [price - confidence for price, confidence in quotes]
    votes += [price + confidence for price, confidence in quotes]
    votes.sort()
    count = len(votes)
    half = count >> 1
    median = votes[half] if count & 1 else (votes[half - 1] + votes[half]) // 2
    low, high = votes[count >> 2], votes[count - 1 - (count >> 2)]
    return Aggregate(median, max(high - median, median - low))


def is_within_band(price: int, reference: int, band_ppm: int) -> bool:
    """Return whether `price` differs from `reference` by at most `band_ppm` of the latter."""
    return abs(price - reference) * PPM <= band_ppm * reference


def consensus(quotes: Sequence[Quote], band_ppm: int) -> Consensus:
    """Aggregate, drop what lies outside the band of the first aggregate, aggregate once more.

    If every quote lies outside (two camps far apart) the first aggregate stands and `agreeing`
    is 0, which no quorum above 0 accepts.
    """
    first = aggregate(quotes)
    inside = [quote for quote in quotes if is_within_band(quote[0], first.price, band_ppm)]
    agreeing = len(inside)
    if agreeing in (0, len(quotes)):
        return Consensus(first, first, agreeing)
    return Consensus(first, aggregate(inside), agreeing)
