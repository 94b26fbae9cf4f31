"""The feeds of the price shard: what sources said last, and the mark it makes.

A price feed aggregates its sources (`engine.median`; MODEL.md 5.1, 5.2), a state feed repeats the
latest word. Prices and confidences are positive integers at the feed's exponent, values of state
feeds signed ones; times are microseconds of event time. What may become of a tick is told in
`engine.prices`, which checks it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final

from solvent.domain.instrument import Feed
from solvent.domain.policy import OraclePolicy
from solvent.engine.median import Quote, consensus, is_within_band
from solvent.errors import ContractError, RejectCode
from solvent.units import PPM, format_scaled, parse_scaled
from solvent.wire.outputs import PriceRow, encode

__all__ = [
    "DIVERGED",
    "MAX_SOURCES",
    "STALE",
    "UNCERTAIN",
    "VALID",
    "MarkedFeed",
    "PriceFeed",
    "StateFeed",
]

VALID: Final = "valid"
STALE: Final = "stale"
UNCERTAIN: Final = "uncertain"
DIVERGED: Final = "diverged"

#: Most sources of one feed; it bounds the feed's row and the work of a tick.
MAX_SOURCES: Final = 64

_NEVER_US: Final = 2**63 - 1


class MarkedFeed(ABC):
    """One feed and its mark.

    Attributes
    ----------
    value : int or None
        Price or value at the feed's exponent, the last valid one of a price; None before the first
        valid one.
    confidence : int
        Half width of the price's interval at the feed's exponent; 0 of a value, and of a price not
        valid yet.
    state : str or None
        What the mark is worth; None before the first tick.
    since_us : int
        Event time at which that began, 0 for a feed valid ever since it was first valid.
    expires_us : int
        The event clock beyond which the mark must be judged again.
    published : tuple
        What frames said of it last, as `news` tells it.
    """

    __slots__ = (
        "agreeing",
        "confidence",
        "expires_us",
        "exponent",
        "max_age_us",
        "max_skew_us",
        "name",
        "published",
        "since_us",
        "state",
        "value",
    )
    #: Of tick and feed, as the rulebook names it.
    kind: str

    def __init__(self, feed: Feed, policy: OraclePolicy) -> None:
        self.name = feed.name
        self.exponent = feed.exponent
        self.adopt(feed, policy)
        self.value: int | None = None
        self.confidence = 0
        self.state: str | None = None
        self.since_us = 0
        self.agreeing = 0
        self.expires_us = _NEVER_US
        self.published = self.news()

    def adopt(self, feed: Feed, policy: OraclePolicy) -> None:
        """Take the rules that ticks and the mark are judged by from here on."""
        del feed  # its name and exponent stay
        self.max_age_us = policy.max_age_us
        self.max_skew_us = policy.max_skew_us

    @property
    @abstractmethod
    def newest_us(self) -> int | None:
        """Event time of the newest tick."""

    @abstractmethod
    def judge(self, clock_us: int) -> None:
        """Make the mark of what sources said, as of `clock_us`."""

    @abstractmethod
    def mark(self) -> dict[str, Any]:
        """Return the mark as JSON values, without the feed's name."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what sources said, and the mark, as JSON values."""

    def news(self) -> tuple[int | None, int, str | None, int]:
        """Return what a frame tells anew once it differs: all that anybody is judged by."""
        return (self.value, self.confidence, self.state, self.since_us)

    def row(self, breakers: Mapping[str, Any]) -> bytes:
        """Return the value of this feed's row of ``price-state.v1``; what `breakers` remember."""
        told = {"schema_version": 1, **self.describe()}
        return encode({**told, "breakers": breakers} if breakers else told)

    def restore(self, row: PriceRow) -> None:
        """Take back what `row` wrote."""
        self.state = row.mark.state
        self.since_us = row.mark.since_us
        self.agreeing = row.mark.sources
        # A slice ends with a frame of all that changed, so what rows hold has been published.
        self.published = self.news()
        self.expires_us = 0  # judged again at the next clock record: the same words, the same mark

    def _enter(self, state: str, since_us: int) -> None:
        if state != self.state:
            self.state = state
            self.since_us = since_us

    def _text(self, value: int | None) -> str | None:
        return None if value is None else format_scaled(value, self.exponent)

    def _parsed(self, text: str | None) -> int | None:
        return None if text is None else parse_scaled(text, self.exponent)


class _Source:
    """The last word of one source about one price."""

    __slots__ = ("is_certain", "quote", "ts_us")

    def __init__(self, quote: Quote, ts_us: int, *, is_certain: bool) -> None:
        self.quote = quote
        self.ts_us = ts_us
        self.is_certain = is_certain


class PriceFeed(MarkedFeed):
    """A price: its sources and the mark they agree on."""

    __slots__ = (
        "band_ppm",
        "first_price",
        "max_conf_ppm",
        "min_sources",
        "quorum_ppm",
        "sources",
        "votes",
    )
    kind = "price"

    def __init__(self, feed: Feed, policy: OraclePolicy) -> None:
        self.sources: dict[str, _Source] = {}
        self.votes = 0  # sources that voted when it was judged last
        super().__init__(feed, policy)
        self.first_price = 0

    def adopt(self, feed: Feed, policy: OraclePolicy) -> None:
        """Take the rules, by which each source's last word is certain or not."""
        super().adopt(feed, policy)
        self.max_conf_ppm = policy.max_conf_ppm
        self.min_sources = policy.min_sources
        self.quorum_ppm = policy.quorum_ppm
        self.band_ppm = policy.band_ppm
        for source in self.sources.values():
            source.is_certain = self.is_certain(*source.quote)

    @property
    def newest_us(self) -> int | None:
        """Event time of the newest tick."""
        return max((source.ts_us for source in self.sources.values()), default=None)

    def take(self, source: str, quote: Quote, ts_us: int) -> None:
        """Keep a source's last word; `judge` makes the mark of it."""
        is_certain = self.is_certain(*quote)
        known = self.sources.get(source)
        if known is None:
            self.sources[source] = _Source(quote, ts_us, is_certain=is_certain)
        else:
            known.quote = quote
            known.ts_us = ts_us
            known.is_certain = is_certain

    def judge(self, clock_us: int) -> None:
        """Aggregate the sources as of `clock_us` (MODEL.md 5.2)."""
        oldest_us = clock_us - self.max_age_us
        votes: list[Quote] = []
        first_expiry_us = _NEVER_US
        for source in self.sources.values():
            if source.is_certain and source.ts_us >= oldest_us:
                votes.append(source.quote)
                first_expiry_us = min(first_expiry_us, source.ts_us)
        self.votes = len(votes)
        if not votes:
            self.expires_us = _NEVER_US
            self.agreeing = 0
            self._enter(STALE, clock_us)
            return
        self.expires_us = first_expiry_us + self.max_age_us
        first, final, agreeing = consensus(votes, self.band_ppm)
        self.first_price = first.price
        self.agreeing = agreeing
        if agreeing < self.min_sources or agreeing * PPM < self.quorum_ppm * len(votes):
            state = DIVERGED
        elif final.confidence * PPM > self.max_conf_ppm * final.price:
            state = UNCERTAIN
        else:
            state = VALID
        is_first = self.value is None
        if state is VALID or not is_first:
            self.value, self.confidence = final
        self._enter(state, 0 if is_first and state is VALID else clock_us)

    def forget_silent_source(self, clock_us: int) -> None:
        """Make room for one source; what is forgotten is too old to vote.

        Raises
        ------
        ContractError
            [SLV-103] Every source is within ``max_age_us`` of `clock_us`.
        """
        ts_us, name = min((source.ts_us, name) for name, source in self.sources.items())
        if clock_us - ts_us <= self.max_age_us:
            msg = f"{self.name} has {len(self.sources)} live sources, at most {MAX_SOURCES}"
            raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
        del self.sources[name]

    def is_certain(self, price: int, confidence: int) -> bool:
        """Return whether confidence / price is at most ``max_conf_ppm``."""
        return confidence * PPM <= self.max_conf_ppm * price

    @property
    def dropped(self) -> int:
        """How many votes lay outside the band."""
        return self.votes - self.agreeing

    @property
    def is_doubtful(self) -> bool:
        """Whether sources speak but do not agree on a price."""
        return self.state in {DIVERGED, UNCERTAIN}

    def is_outlier(self, price: int) -> bool:
        """Return whether `price`, one of the present votes, lay outside the band."""
        return not is_within_band(price, self.first_price, self.band_ppm)

    def mark(self) -> dict[str, Any]:
        """Return the mark as JSON values, without the feed's name."""
        return {
            "price": self._text(self.value),
            "confidence": None if self.value is None else self._text(self.confidence),
            "state": self.state,
            "since_us": self.since_us,
            "sources": self.agreeing,
        }

    def describe(self) -> dict[str, Any]:
        """Return sources and mark as JSON values."""
        sources = {
            name: {
                "price": self._text(source.quote[0]),
                "confidence": self._text(source.quote[1]),
                "ts_us": source.ts_us,
            }
            for name, source in sorted(self.sources.items())
        }
        return {"feed": self.name, "sources": sources, "mark": self.mark()}

    def restore(self, row: PriceRow) -> None:
        """Take back what `row` wrote."""
        self.sources = {}
        for name, source in row.sources.items():
            price = parse_scaled(source.price, self.exponent)
            confidence = parse_scaled(source.confidence, self.exponent)
            self.take(name, (price, confidence), source.ts_us)
        self.value = self._parsed(row.mark.price)
        self.confidence = self._parsed(row.mark.confidence) or 0
        super().restore(row)


class StateFeed(MarkedFeed):
    """A number of the market's state: the latest word about it, whoever said it."""

    __slots__ = ("is_below", "limit", "source", "ts_us", "word")
    kind = "state"

    def __init__(self, feed: Feed, policy: OraclePolicy) -> None:
        super().__init__(feed, policy)
        self.source: str | None = None
        self.word = 0
        self.ts_us = 0

    def adopt(self, feed: Feed, policy: OraclePolicy) -> None:
        """Take the rules, by which a word may be too low."""
        super().adopt(feed, policy)
        self.is_below = feed.is_below
        self.limit = feed.limit

    @property
    def newest_us(self) -> int | None:
        """Event time of the last word."""
        return None if self.source is None else self.ts_us

    def take(self, source: str, word: int, ts_us: int) -> None:
        """Keep the last word; `judge` makes the mark of it."""
        self.source = source
        self.word = word
        self.ts_us = ts_us

    def judge(self, clock_us: int) -> None:
        """Mark the last word: valid while it is at most ``max_age_us`` old, stale after that.

        So is one that was told while the rulebook let its feed be lower.
        """
        is_valid = clock_us - self.ts_us <= self.max_age_us and not self.is_below(self.word)
        is_first = self.value is None
        if is_valid or not is_first:
            self.value = self.word
        self.agreeing = int(is_valid)
        self.expires_us = self.ts_us + self.max_age_us if is_valid else _NEVER_US
        self._enter(VALID if is_valid else STALE, 0 if is_first and is_valid else clock_us)

    def mark(self) -> dict[str, Any]:
        """Return the mark as JSON values, without the feed's name."""
        return {
            "price": None,
            "value": self._text(self.value),
            "state": self.state,
            "since_us": self.since_us,
            "sources": self.agreeing,
        }

    def describe(self) -> dict[str, Any]:
        """Return the last word and the mark as JSON values."""
        told: dict[str, Any] = {"feed": self.name, "sources": {}}
        if self.source is not None:
            value = self._text(self.word)
            told["word"] = {"source": self.source, "value": value, "ts_us": self.ts_us}
        return {**told, "mark": self.mark()}

    def restore(self, row: PriceRow) -> None:
        """Take back what `row` wrote."""
        if row.word is None:
            return  # of a rulebook that calls this feed a price, which `resume` refuses
        self.take(row.word.source, parse_scaled(row.word.value, self.exponent), row.word.ts_us)
        self.value = self._parsed(row.mark.value)
        super().restore(row)
