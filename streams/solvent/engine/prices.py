"""The price shard: oracle ticks in, one robust mark per feed out, in frames every partition reads.

Prices and confidences are positive integers at the feed's exponent (decimal text on the wire),
times are microseconds of event time. Arithmetic: `engine.median`; rules: MODEL.md 5.1 and 5.2.

What happens to a tick, first failure wins:

================  ===========================================  ==================================
failure           condition                                    consequence
================  ===========================================  ==================================
contract          not decodable, unknown feed, price finer     ``rejects.v1`` with its code
                  than the feed's exponent or beyond 2**53,
                  beyond the record's broker time
``non_positive``  price <= 0                                   ``rejects.v1``, SLV-302
``future``        beyond the event clock + ``max_skew_us``     ``rejects.v1``, SLV-107
``out_of_order``  not later than the source's last tick of     ``rejects.v1``, SLV-303; the same
                  this feed                                    time and price again: counted as a
                                                               duplicate, nothing else
``stale``         older than ``max_age_us``                    kept as the source's last word,
                                                               does not vote, counted
``uncertain``     confidence / price > ``max_conf_ppm``        the same
``outlier``       outside ``band_ppm`` of the first aggregate  the same; the aggregate is retaken
                                                               once without it
================  ===========================================  ==================================

The first group breaks the topic's contract, so the record is kept where an operator finds it. The
last three are ordinary market weather: a source that is late, unsure or alone says so itself, and
its latest word replaces its earlier one, so an old confident price never outlives a newer doubt.
A feed remembers at most `MAX_SOURCES` sources: a new one takes the place of the one that has been
silent longest, beyond ``max_age_us``; if there is none, its tick breaks the contract too. They are
judged whenever the feed is aggregated; the counters count ticks at their arrival.

State of a feed: ``stale`` no vote is left · ``diverged`` fewer than ``min_sources`` agree, or less
than ``quorum_ppm`` of the votes · ``uncertain`` the aggregate's own confidence is too wide ·
``valid``. A feed that has never been valid has no price. ``since_us`` is the event time at which
the present state began, and 0 for a feed valid ever since it was first valid (starting up is not an
outage, so it owes no grace).

The event clock is the largest time among clock records; it never runs back. Ticks move it only
before the first clock record: otherwise a source ahead of time could push it, and let every honest
source look stale. A feed is aggregated at each of its ticks and, when a vote expired, at clock
records; all of that depends on the order of the records alone, so rows do not depend on how records
were framed. Frames are conflated: one at each clock record, and one at the end of a slice for what
changed after its last clock record; each holds the latest mark of every feed whose price, state or
`since_us` changed since the frame before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from solvent.domain.policy import OraclePolicy
from solvent.engine.median import Quote, consensus, is_within_band
from solvent.engine.rejects import reject
from solvent.engine.rows import Rows
from solvent.engine.run import Run
from solvent.engine.shard import Emit, InputRecord, Outputs, Pending, ShardFacts
from solvent.errors import ConfigError, ContractError, InvariantError, PartitionError, RejectCode
from solvent.rules.compile import CompiledRulebook
from solvent.units import MAX_EXACT, MAX_TEXT, PPM, format_scaled, parse_scaled
from solvent.wire.inputs import PriceTick, decode_tick
from solvent.wire.outputs import PriceRow, decode_price_row, encode
from solvent.wire.topics import MARKS, ORACLE_TICKS

__all__ = ["DIVERGED", "MAX_SOURCES", "STALE", "UNCERTAIN", "VALID", "PriceShard"]

VALID: Final = "valid"
STALE: Final = "stale"
UNCERTAIN: Final = "uncertain"
DIVERGED: Final = "diverged"

#: Most sources of one feed; it bounds the feed's row and the work of a tick.
MAX_SOURCES: Final = 64

_FRAME_KEY: Final = b"marks"
_NEVER_US: Final = 2**63 - 1
#: What is counted, in the order it is written to the fence row.
_COUNTERS: Final = (
    "ticks",
    "clocks",
    "duplicates",
    "stale",
    "uncertain",
    "outliers",
    "rejects",
    "frames",
)


class _Source:
    """The last word of one source about one feed."""

    __slots__ = ("is_certain", "quote", "ts_us")

    def __init__(self, quote: Quote, ts_us: int, *, is_certain: bool) -> None:
        self.quote = quote
        self.ts_us = ts_us
        self.is_certain = is_certain


class _Feed:
    """One feed: its sources and the mark they make."""

    __slots__ = (
        "agreeing",
        "band_ppm",
        "confidence",
        "expires_us",
        "exponent",
        "first_price",
        "max_age_us",
        "max_conf_ppm",
        "max_skew_us",
        "min_sources",
        "name",
        "price",
        "published",
        "quorum_ppm",
        "since_us",
        "sources",
        "state",
    )

    def __init__(self, name: str, exponent: int, policy: OraclePolicy) -> None:
        self.name = name
        self.exponent = exponent
        self.max_age_us = policy.max_age_us
        self.max_conf_ppm = policy.max_conf_ppm
        self.min_sources = policy.min_sources
        self.quorum_ppm = policy.quorum_ppm
        self.band_ppm = policy.band_ppm
        self.max_skew_us = policy.max_skew_us
        self.sources: dict[str, _Source] = {}
        self.price: int | None = None
        self.confidence = 0
        self.state: str | None = None
        self.since_us = 0
        self.agreeing = 0
        self.first_price = 0
        #: The event clock beyond which a present vote is too old.
        self.expires_us = _NEVER_US
        self.published: tuple[int | None, str | None, int] = (None, None, 0)

    def judge(self, clock_us: int) -> None:
        """Aggregate the sources as of `clock_us` (MODEL.md 5.2)."""
        oldest_us = clock_us - self.max_age_us
        votes: list[Quote] = []
        first_expiry_us = _NEVER_US
        for source in self.sources.values():
            if source.is_certain and source.ts_us >= oldest_us:
                votes.append(source.quote)
                first_expiry_us = min(first_expiry_us, source.ts_us)
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
        is_first = self.price is None
        if state is VALID or not is_first:
            self.price, self.confidence = final
        self._enter(state, 0 if is_first and state is VALID else clock_us)

    def _enter(self, state: str, since_us: int) -> None:
        if state != self.state:
            self.state = state
            self.since_us = since_us

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

    def is_outlier(self, price: int) -> bool:
        """Return whether `price`, one of the present votes, lay outside the band."""
        return not is_within_band(price, self.first_price, self.band_ppm)

    def mark(self) -> dict[str, Any]:
        """Return the mark as JSON values, without the feed's name."""
        known = self.price is not None
        return {
            "price": format_scaled(self.price, self.exponent) if self.price is not None else None,
            "confidence": format_scaled(self.confidence, self.exponent) if known else None,
            "state": self.state,
            "since_us": self.since_us,
            "sources": self.agreeing,
        }

    def describe(self) -> dict[str, Any]:
        """Return sources and mark as JSON values."""
        exponent = self.exponent
        sources = {
            name: {
                "price": format_scaled(source.quote[0], exponent),
                "confidence": format_scaled(source.quote[1], exponent),
                "ts_us": source.ts_us,
            }
            for name, source in sorted(self.sources.items())
        }
        return {"feed": self.name, "sources": sources, "mark": self.mark()}

    def row(self) -> bytes:
        """Return the value of this feed's row of ``price-state.v1``."""
        return encode({"schema_version": 1, **self.describe()})

    def restore(self, row: PriceRow) -> None:
        """Take back what `row` wrote."""
        exponent = self.exponent
        self.sources = {}
        for name, source in row.sources.items():
            price = parse_scaled(source.price, exponent)
            confidence = parse_scaled(source.confidence, exponent)
            is_certain = self.is_certain(price, confidence)
            self.sources[name] = _Source((price, confidence), source.ts_us, is_certain=is_certain)
        mark = row.mark
        self.price = None if mark.price is None else parse_scaled(mark.price, exponent)
        self.confidence = parse_scaled(mark.confidence, exponent) if mark.confidence else 0
        self.state = mark.state
        self.since_us = mark.since_us
        self.agreeing = mark.sources
        # A slice ends with a frame of all that changed, so what rows hold has been published.
        self.published = (self.price, self.state, self.since_us)
        self.expires_us = 0  # judged again at the next clock record: the same votes, the same mark

    def is_certain(self, price: int, confidence: int) -> bool:
        """Return whether confidence / price is at most ``max_conf_ppm``."""
        return confidence * PPM <= self.max_conf_ppm * price


class PriceShard:
    """State of the price side: one partition of ``oracle-ticks.v1`` (`engine.shard.Shard`).

    Parameters
    ----------
    rulebook : CompiledRulebook
        Feeds with exponents, and the oracle policy of each.
    partition : int
        Partition of ``oracle-ticks.v1``, for the coordinates of rejects.
    """

    #: Rows hold every source's last tick, so nothing below the fence is needed.
    lookback: Mapping[str, int] = {}

    def __init__(self, rulebook: CompiledRulebook, partition: int = 0) -> None:
        self._rulebook = rulebook
        self._partition = partition
        self._feeds = {
            feed.name: _Feed(feed.name, feed.exponent, rulebook.oracle[feed.index])
            for feed in rulebook.feeds
        }
        self._seq = 0
        self._clock_us = 0
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._rejects_by_code: dict[str, int] = {}  # since this shard began, for `facts` alone
        self._touched: set[str] = set()  # feeds whose row changed in this slice
        self._records: list[Emit] = []

    @property
    def seq(self) -> int:
        """Sequence of the last mark frame; 0 before the first."""
        return self._seq

    @property
    def clock_us(self) -> int:
        """The event clock; 0 before the first accepted record."""
        return self._clock_us

    @property
    def counts(self) -> Mapping[str, int]:
        """What was counted since the partition began."""
        return self._counts

    @property
    def pending(self) -> Pending:
        """Always news: a mark frame may be waiting, and marks are what latency is made of."""
        return Pending.NEWS

    # -- records in

    def apply(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Fold a run of ticks and clock records, in order.

        Raises
        ------
        InvariantError
            A topic this shard does not read.
        """
        if topic != ORACLE_TICKS:
            msg = f"price shard was given {topic}, reads only {ORACLE_TICKS}"
            raise InvariantError(msg)
        counts = self._counts
        max_future_us = self._rulebook.max_future_us
        for record in records:
            try:
                event = decode_tick(record.value)
                if event.ts_us > record.timestamp * 1000 + max_future_us:
                    self._reject(record, _beyond_record(event.ts_us, record, max_future_us))
                elif type(event) is PriceTick:
                    self._on_tick(event)
                    counts["ticks"] += 1
                else:
                    self._on_clock(event.ts_us)
                    counts["clocks"] += 1
            except ContractError as error:
                self._reject(record, error)

    def _on_clock(self, ts_us: int) -> None:
        """Advance the event clock, let old votes expire, emit a frame in any case."""
        clock_us = self._clock_us = max(self._clock_us, ts_us)
        for feed in self._feeds.values():
            if feed.expires_us < clock_us:
                before = (feed.price, feed.state, feed.agreeing, feed.confidence)
                feed.judge(clock_us)
                if before != (feed.price, feed.state, feed.agreeing, feed.confidence):
                    self._touched.add(feed.name)
        self._emit_frame()

    def _on_tick(self, tick: PriceTick) -> None:
        """Check one tick in the order of the module's table and aggregate its feed."""
        feed = self._feeds.get(tick.feed)
        if feed is None:
            msg = f"feed {tick.feed!r} is not in rulebook {self._rulebook.id}"
            raise ContractError(msg, code=RejectCode.UNKNOWN_FEED)
        price = _price(tick.price, feed.exponent, "price")
        confidence = 0
        if tick.confidence is not None:
            confidence = _price(tick.confidence, feed.exponent, "confidence")
            if confidence < 0:
                msg = f"{feed.name} confidence {tick.confidence} of {tick.source}, at least 0"
                raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
        ts_us = tick.ts_us
        if price <= 0:
            msg = f"{feed.name} price {tick.price} of {tick.source}, must be above 0"
            raise ContractError(msg, code=RejectCode.NON_POSITIVE_PRICE)
        clock_us = self._clock_us
        if ts_us > clock_us + feed.max_skew_us and clock_us:
            msg = (
                f"{feed.name} tick of {tick.source} {ts_us - clock_us} us beyond the event clock, "
                f"limit {feed.max_skew_us}"
            )
            raise ContractError(msg, code=RejectCode.FUTURE)
        source = feed.sources.get(tick.source)
        if source is not None and ts_us <= source.ts_us:
            if ts_us == source.ts_us and price == source.quote[0]:
                self._counts["duplicates"] += 1
                return
            msg = (
                f"{feed.name} tick of {tick.source} at {ts_us}, "
                f"must be later than its last at {source.ts_us}"
            )
            raise ContractError(msg, code=RejectCode.OUT_OF_ORDER)
        if source is None and len(feed.sources) >= MAX_SOURCES:
            feed.forget_silent_source(clock_us)
        if not self._counts["clocks"]:
            clock_us = self._clock_us = max(clock_us, ts_us)
        is_certain = feed.is_certain(price, confidence)
        if source is None:
            feed.sources[tick.source] = _Source((price, confidence), ts_us, is_certain=is_certain)
        else:
            source.quote = (price, confidence)
            source.ts_us = ts_us
            source.is_certain = is_certain
        feed.judge(clock_us)
        self._touched.add(feed.name)
        if clock_us - ts_us > feed.max_age_us:
            self._counts["stale"] += 1
        elif not is_certain:
            self._counts["uncertain"] += 1
        elif feed.is_outlier(price):
            self._counts["outliers"] += 1

    def _reject(self, record: InputRecord, error: ContractError) -> None:
        self._counts["rejects"] += 1
        code = str(error.code)
        self._rejects_by_code[code] = self._rejects_by_code.get(code, 0) + 1
        self._records.append(
            reject(
                record,
                topic=ORACLE_TICKS,
                partition=self._partition,
                code=error.code,
                message=error.message,
            )
        )

    # -- rows and records out

    def _emit_frame(self) -> None:
        """Emit the next frame: every feed that differs from what the frames before it said."""
        marks = []
        for feed in self._feeds.values():
            current = (feed.price, feed.state, feed.since_us)
            if current != feed.published:
                feed.published = current
                marks.append({"feed": feed.name, **feed.mark()})
        self._seq += 1
        frame = {
            "schema_version": 1,
            "kind": "marks",
            "seq": self._seq,
            "ts_us": self._clock_us,
            "marks": marks,
        }
        self._records.append(Emit(MARKS, _FRAME_KEY, encode(frame), everywhere=True))
        self._counts["frames"] += 1

    def cut(self) -> Outputs:
        """Return changed rows, frames and rejects; a frame is added for changes not yet told."""
        feeds = self._feeds
        touched, self._touched = sorted(self._touched), set()
        if any(
            feeds[name].published != (feeds[name].price, feeds[name].state, feeds[name].since_us)
            for name in touched
        ):
            self._emit_frame()
        records, self._records = self._records, []
        return Outputs(
            rows=Rows.of([(name.encode(), feeds[name].row()) for name in touched]),
            records=records,
            state={
                "seq": self._seq,
                "clock_us": self._clock_us,
                "counts": dict(self._counts),
                "rulebook": self._rulebook.hash,
            },
            rules=dict(self._rulebook.reference),
        )

    # -- restore

    def load(self, rows: Run) -> None:
        """Take rows of ``price-state.v1``; a feed the rulebook no longer has is passed over.

        `resume` then refuses the other rulebook, with its hash.

        Raises
        ------
        PartitionError
            A row is a tombstone.
        """
        for key, value in {row.key: row.value for row in rows}.items():
            feed = self._feeds.get((key or b"").decode())
            if feed is None:
                continue
            if value is None:
                msg = f"price-state.v1 row {feed.name} was deleted, rows of this table never are"
                raise PartitionError(msg)
            feed.restore(decode_price_row(value))

    def resume(self, positions: Mapping[str, int], state: Mapping[str, Any]) -> None:
        """Finish a restore.

        Raises
        ------
        ConfigError
            The partition was priced under another rulebook.
        """
        del positions  # the price side needs no offsets of its own
        if not state:
            return
        if state["rulebook"] != self._rulebook.hash:
            msg = (
                f"rulebook {self._rulebook.id} has hash {self._rulebook.hash}, "
                f"price-state.v1 was written under {state['rulebook']}"
            )
            raise ConfigError(msg)
        self._seq = state["seq"]
        self._clock_us = state["clock_us"]
        self._counts.update(state["counts"])

    def remember(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Do nothing: `lookback` asks for no records."""
        del topic, records

    # -- for people and tests

    def facts(self) -> ShardFacts:
        """Return counts and ages for an operator (`Shard.facts`)."""
        clock_us = self._clock_us
        newest = {
            name: max(source.ts_us for source in sources)
            for name, feed in self._feeds.items()
            if (sources := list(feed.sources.values()))
        }
        return ShardFacts(
            stream_us=clock_us,
            duplicates={ORACLE_TICKS: self._counts["duplicates"]},
            rejects=dict(self._rejects_by_code),
            tick_age_us={name: max(0, clock_us - ts_us) for name, ts_us in newest.items()},
        )

    def keys(self) -> Iterator[str]:
        """Yield the names of the feeds, as the rulebook lists them."""
        yield from self._feeds

    def describe(self, feed: str) -> dict[str, Any]:
        """Return the sources and the mark of one feed: decimal texts, event times.

        Raises
        ------
        KeyError
            The rulebook has no such feed.
        """
        return self._feeds[feed].describe()


def _beyond_record(ts_us: int, record: InputRecord, limit_us: int) -> ContractError:
    ahead_us = ts_us - record.timestamp * 1000
    msg = f"ts_us {ahead_us} us beyond the record's broker time, limit {limit_us}"
    return ContractError(msg, code=RejectCode.FUTURE)


def _price(text: str, exponent: int, what: str) -> int:
    """Return the integer of a price text at the feed's exponent."""
    try:
        value = parse_scaled(text, exponent)
    except ValueError as error:
        code = RejectCode.OFF_STEP if _is_decimal(text) else RejectCode.OUT_OF_CONTRACT
        msg = f"{what} {error}"
        raise ContractError(msg, code=code) from None
    if not -MAX_EXACT <= value <= MAX_EXACT:
        msg = f"{what} {text}, limit 2**53 units of 1e{exponent}"
        raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
    return value


def _is_decimal(text: str) -> bool:
    """Return whether a text is a plain decimal, however fine."""
    try:
        parse_scaled(text, -MAX_TEXT)
    except ValueError:
        return False
    return True
