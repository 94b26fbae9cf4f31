"""The price shard: oracle ticks in, one robust mark per feed out, in frames every partition reads.

Prices and confidences are positive integers at the feed's exponent (decimal text on the wire),
values of state feeds signed ones; times are microseconds of event time. Feeds and their marks:
`engine.feeds`; rules: MODEL.md 5.1 and 5.2.

What happens to the price a source tells, first failure wins:

================  ===========================================  ==================================
failure           condition                                    consequence
================  ===========================================  ==================================
contract          not decodable, unknown feed, state feed,     ``rejects.v1`` with its code
                  price finer than the feed's exponent or
                  beyond 2**53, beyond the record's broker
                  time
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

A state feed (`kind: state`: an open interest, an index, a rate, a volatility) is told, not voted
on: its value is the latest word by event time, whoever said it. One source of truth is meant; with
two, whichever is ahead is believed, and none of them outvoted. What happens to a word:

================  ===========================================  ==================================
failure           condition                                    consequence
================  ===========================================  ==================================
contract          not decodable, unknown feed, price feed,     ``rejects.v1`` with its code
                  value finer than the feed's exponent or
                  beyond 2**62, beyond the record's broker
                  time
``below_least``   an interest index <= 0, a volatility < 0     ``rejects.v1``, SLV-103
``future``        beyond the event clock + ``max_skew_us``     ``rejects.v1``, SLV-107
``out_of_order``  earlier than the feed's last word, or at     ``rejects.v1``, SLV-303; the same
                  the same time by another source with         time and value again: counted as a
                  another value                                duplicate, nothing else
``stale``         older than ``max_age_us``                    becomes the last word, the feed
                                                               stays stale, counted
================  ===========================================  ==================================

A source may say more than one thing within a microsecond (two trades that move one open interest):
its own later record wins. Two sources that contradict each other at one time cannot both be right,
and order in the log is no reason to believe the second. Nothing else is asked of a value: it
may be 0 or negative where the table names no least (`rules.resolve.bounded_feeds`), and has no
confidence.

A settlement ends a contract that has expired, once and for all, so it is told in a frame of its
own, at its place among the ticks. What happens to it:

=====================  ==========================================  ================================
failure                condition                                   consequence
=====================  ==========================================  ================================
contract               not decodable, unknown market (SLV-202),    ``rejects.v1`` with its code
                       price finer than the exponent it is
                       settled at or beyond 2**53, beyond the
                       record's broker time
``non_positive``       price <= 0                                  ``rejects.v1``, SLV-302
``not_expired``        a market that does not expire, or not yet   ``rejects.v1``, SLV-304
                       at ``ts_us``
``settled_otherwise``  settled before at another price             ``rejects.v1``, SLV-305; at the
                                                                   same price: a duplicate
=====================  ==========================================  ================================

A published rulebook is told in a frame of its own, behind one with what changed before it; from
there on feeds are judged by it. Feeds that exist are judged anew at once, and what that changes is
told in the frames that follow. What happens to it:

=====================  ==========================================  ================================
failure                condition                                   consequence
=====================  ==========================================  ================================
contract               not decodable, beyond the record's broker   ``rejects.v1`` with its code
                       time
``rulebook``           it does not hold, may not follow the one    ``rejects.v1``, SLV-306, with
                       in force (`rules.succession`), or acts      path, value and limit; the one in
                       (``effective_at_us``) only after its        force stays; the one in force
                       ``ts_us``                                   again: a duplicate
=====================  ==========================================  ================================

What liquidations could not recover comes on ``losses.v1``; who bears it is kept, and said in
frames of their own, by `solvent.engine.waterfall`. Where breakers ask what was liquidated, margin
shards tell that there too.

Commands of operators come on a topic of their own, ``control.v1``. A pause, a halt, a dry run or
the end of one is told in a frame of its own too, behind one with what changed before it; it carries
all that is in force. What happens to a command, first that applies:

=====================  ==========================================  ================================
outcome                condition                                   consequence
=====================  ==========================================  ================================
contract               not decodable, unknown action, beyond the   ``rejects.v1`` with its code
                       record's broker time, unknown market
                       (SLV-202), a halt without a market, a dry
                       run with one
repeat                 its ``command_id`` is among the last 256    counted as a duplicate
                       obeyed
``stale_command``      earlier than the last command obeyed        ``rejects.v1``, SLV-307
no change              what it orders is so: a pause of what is    obeyed, and no frame
                       paused, a halt of what is halted, a dry
                       run in one, an end of none
change                 else                                        obeyed, and a frame
=====================  ==========================================  ================================

Circuit breakers (`engine.breakers`) pause and resume by what feeds are judged to be. A breaker that
trips is told at its place among the ticks, in a frame like that of a command but *ahead* of marks
that are still to be told: nobody may be liquidated at the very mark that tripped it. One that trips
by what was liquidated or paid is told at that record, ahead of what the fund answers. Breakers
resume at clock records, behind the marks of that clock. A resumption of a market by an operator
ends its pause, its halt and the breakers that pause it; one of all, those that are of all.

State of a price feed: ``stale`` no vote is left · ``diverged`` fewer than ``min_sources`` agree, or
less than ``quorum_ppm`` of the votes · ``uncertain`` the aggregate's own confidence is too wide ·
``valid``. A state feed is ``valid`` while its last word is at most ``max_age_us`` old, then
``stale``, as is one whose word is too low for what a published rulebook uses it for. A feed that
has never been valid has no price or value. ``since_us`` is the event time at which the present
state began, and 0 for a feed valid ever since it was first valid (starting up is not an outage, so
it owes no grace).

The event clock is the largest time among clock records; it never runs back. Ticks move it only
before the first clock record: otherwise a source ahead of time could push it, and let every honest
source look stale. A feed is judged at each of its ticks and, when a vote or word expired, at clock
records; all of that depends on the order of the records alone, so rows do not depend on how records
were framed. Frames are conflated: one at each clock record, and one at the end of a slice for what
changed after its last clock record; each holds the latest mark of every feed whose price or value,
confidence, state or `since_us` changed since the frame before. Confidence is news of its own, as
presets may widen prices by it (MODEL.md 3.2, C6); how many sources agree is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from orjson import Fragment

from solvent.domain.instrument import Instrument
from solvent.engine.breakers import Breakers
from solvent.engine.control import CONTROL_ROW_KEY, Control
from solvent.engine.feeds import MAX_SOURCES, VALID, MarkedFeed, PriceFeed, StateFeed
from solvent.engine.published import RULEBOOK_ROW_KEY, restored_rulebook, rulebook_row
from solvent.engine.rejects import reject
from solvent.engine.rows import Rows
from solvent.engine.run import Run
from solvent.engine.shard import Emit, InputRecord, Outputs, Pending, ShardFacts
from solvent.engine.waterfall import FUND_ROW_KEY, Waterfall
from solvent.errors import ConfigError, ContractError, InvariantError, PartitionError, RejectCode
from solvent.rules import CompiledRulebook, check_successor, compile_document
from solvent.units import MAX_EXACT, MAX_STATE, MAX_TEXT, format_scaled, parse_scaled
from solvent.wire.inputs import (
    PriceTick,
    RulebookTick,
    SettlementTick,
    StateTick,
    decode_control,
    decode_tick,
)
from solvent.wire.losses import Liquidated
from solvent.wire.outputs import (
    RowBreaker,
    decode_control_row,
    decode_loss,
    decode_price_row,
    decode_settlements_row,
    encode,
)
from solvent.wire.topics import CONTROL, LOSSES, MARKS, ORACLE_TICKS

__all__ = ["MAX_SOURCES", "PriceShard"]

_FRAME_KEY: Final = b"marks"
#: Key of the row of settled markets; no feed's name contains a zero byte.
_SETTLEMENTS_KEY: Final = b"\0settlements"
#: What an exact worth of a lot may take, as the ledger multiplies it.
_MAX_WORTH: Final = 2**62
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
_AnyFeed = TypeVar("_AnyFeed", bound=MarkedFeed)


class PriceShard:
    """State of the price side: one partition of ``oracle-ticks.v1`` (`engine.shard.Shard`).

    Parameters
    ----------
    rulebook : CompiledRulebook
        Feeds with exponents, and the oracle policy of each.
    partition : int
        Partition of ``oracle-ticks.v1``, for the coordinates of rejects.
    partitions : int
        Margin partitions, which all answer the fund's questions.
    """

    #: Rows hold every source's last tick, so nothing below the fence is needed.
    lookback: Mapping[str, int] = {}

    def __init__(self, rulebook: CompiledRulebook, partition: int = 0, partitions: int = 1) -> None:
        self._partition = partition
        self._waterfall = Waterfall(partitions)
        self._feeds: dict[str, MarkedFeed] = {}
        self._breakers = Breakers(rulebook.breakers)
        self._adopt(rulebook)
        self._is_published = False  # in this slice
        self._control = Control()
        self._is_commanded = False  # in this slice
        self._rows: dict[bytes, bytes | None] = {}  # while restoring
        self._seq = 0
        self._clock_us = 0
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._rejects_by_code: dict[str, int] = {}  # since this shard began, for `facts` alone
        self._touched: set[str] = set()  # feeds whose row changed in this slice
        self._settled: dict[str, dict[str, Any]] = {}  # market -> source, price, time
        self._has_settled = False  # in this slice
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
    def rules(self) -> Mapping[str, Any]:
        """``id``, ``version`` and ``hash`` of the rulebook in force."""
        return self._rulebook.reference

    @property
    def pending(self) -> Pending:
        """Always news: a mark frame may be waiting, and marks are what latency is made of."""
        return Pending.NEWS

    # -- records in

    def apply(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Fold a run of ticks and clock records, or of commands, in order.

        Raises
        ------
        InvariantError
            A topic this shard does not read.
        """
        if topic == CONTROL:
            for record in records:
                self._on_command(record)
            return
        if topic == LOSSES:
            for record in records:
                self._on_loss(record)
            return
        if topic != ORACLE_TICKS:
            msg = f"price shard was given {topic}, reads only {ORACLE_TICKS}, {CONTROL}, {LOSSES}"
            raise InvariantError(msg)
        counts = self._counts
        max_future_us = self._rulebook.max_future_us
        for record in records:
            try:
                event = decode_tick(record.value)
                if event.ts_us > record.timestamp * 1000 + max_future_us:
                    ahead = _beyond_record(event.ts_us, record, max_future_us)
                    self._reject(ORACLE_TICKS, record, ahead)
                elif type(event) is PriceTick:
                    self._on_price(event)
                    counts["ticks"] += 1
                elif type(event) is StateTick:
                    self._on_state(event)
                    counts["ticks"] += 1
                elif type(event) is SettlementTick:
                    self._on_settlement(event)
                    counts["ticks"] += 1
                elif type(event) is RulebookTick:
                    self._on_rulebook(event)
                    counts["ticks"] += 1
                else:
                    self._on_clock(event.ts_us)
                    counts["clocks"] += 1
            except ContractError as error:
                self._reject(ORACLE_TICKS, record, error)

    def _on_command(self, record: InputRecord) -> None:
        """Check a command in the order of the module's table, and tell what it changes."""
        try:
            command = decode_control(record.value)
            limit_us = self._rulebook.max_future_us
            if command.ts_us > record.timestamp * 1000 + limit_us:
                raise _beyond_record(command.ts_us, record, limit_us)
            if command.market is not None:
                self._instrument(command.market)
            self._control.check(command)
            if self._control.was_obeyed(command):
                self._counts["duplicates"] += 1
                return
            is_news = self._control.obey(command)
            if command.action == "resume":
                is_news |= self._breakers.override(command.market)
        except ContractError as error:
            self._reject(CONTROL, record, error)
            return
        self._is_commanded = True
        if is_news:
            self._emit_pending()
            self._emit_pauses()

    def _on_loss(self, record: InputRecord) -> None:
        """Let breakers and waterfall take a margin shard's word, and tell what follows.

        Raises
        ------
        PartitionError
            It cannot be read: nobody but our margin shards writes there.
        """
        try:
            loss = decode_loss(record.value or b"")
        except ContractError as error:
            msg = f"losses.v1 offset {record.offset}: {error.message}"
            raise PartitionError(msg) from error
        clock_us = self._clock_us
        if isinstance(loss, Liquidated):
            for market, micros in loss.markets:
                self._breakers.on_liquidated(market, micros, loss.ts_us, clock_us)
            self._trip()
            return
        answers = list(self._waterfall.take(loss, clock_us))
        paid_micros = sum(answer.get("paid_micros", 0) for answer in answers)
        self._breakers.on_fund(paid_micros, self._waterfall.fund_micros, clock_us)
        self._trip()
        if answers:
            self._emit_pending()
            self._emit_frame(losses=answers)

    def _on_clock(self, ts_us: int) -> None:
        """Advance the event clock, let old words expire, emit a frame in any case."""
        clock_us = self._clock_us = max(self._clock_us, ts_us)
        for feed in self._feeds.values():
            if feed.expires_us < clock_us:
                before = feed.mark()
                feed.judge(clock_us)
                self._watch(feed)
                if feed.mark() != before:
                    self._touched.add(feed.name)
        self._breakers.on_clock(clock_us)
        self._trip()
        self._emit_frame()
        if self._breakers.resume():
            self._emit_pauses()

    def _on_price(self, tick: PriceTick) -> None:
        """Check a price in the order of the module's table and aggregate its feed."""
        feed = self._feed_of(tick, PriceFeed)
        price = _number(tick.price, feed.exponent, "price")
        confidence = 0
        if tick.confidence is not None:
            confidence = _number(tick.confidence, feed.exponent, "confidence")
            if confidence < 0:
                msg = f"{feed.name} confidence {tick.confidence} of {tick.source}, at least 0"
                raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
        ts_us = tick.ts_us
        if price <= 0:
            msg = f"{feed.name} price {tick.price} of {tick.source}, must be above 0"
            raise ContractError(msg, code=RejectCode.NON_POSITIVE_PRICE)
        self._refuse_future(tick, feed)
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
            feed.forget_silent_source(self._clock_us)
        feed.take(tick.source, (price, confidence), ts_us)
        self._judge_at_tick(feed, ts_us)
        if self._clock_us - ts_us > feed.max_age_us:
            self._counts["stale"] += 1
        elif not feed.is_certain(price, confidence):
            self._counts["uncertain"] += 1
        elif feed.is_outlier(price):
            self._counts["outliers"] += 1

    def _on_state(self, tick: StateTick) -> None:
        """Check a word in the order of the module's table and mark its feed."""
        feed = self._feed_of(tick, StateFeed)
        value = _number(tick.value, feed.exponent, "value", limit=MAX_STATE)
        if feed.is_below(value):
            msg = f"{feed.name} value {tick.value} of {tick.source}, {feed.limit} expected"
            raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
        self._refuse_future(tick, feed)
        ts_us = tick.ts_us
        if feed.source is not None and ts_us <= feed.ts_us:
            is_same_time = ts_us == feed.ts_us
            if is_same_time and value == feed.word:
                self._counts["duplicates"] += 1
                return
            if not (is_same_time and tick.source == feed.source):
                msg = (
                    f"{feed.name} tick of {tick.source} at {ts_us}, "
                    f"must be later than the last, of {feed.source} at {feed.ts_us}"
                )
                raise ContractError(msg, code=RejectCode.OUT_OF_ORDER)
        feed.take(tick.source, value, ts_us)
        self._judge_at_tick(feed, ts_us)
        if self._clock_us - ts_us > feed.max_age_us:
            self._counts["stale"] += 1

    def _on_settlement(self, tick: SettlementTick) -> None:
        """Check a settlement in the order of the module's table and tell it in a frame."""
        instrument = self._instrument(tick.market)
        exponent = instrument.settlement_exponent
        price = _number(tick.price, exponent, "settlement price")
        if price <= 0:
            msg = f"{tick.market} settlement price {tick.price} of {tick.source}, must be above 0"
            raise ContractError(msg, code=RejectCode.NON_POSITIVE_PRICE)
        expires_us = instrument.expires_us
        if expires_us is None or tick.ts_us < expires_us:
            when = "does not expire" if expires_us is None else f"expires at {expires_us}"
            msg = f"{tick.market} settlement of {tick.source} at {tick.ts_us}: it {when}"
            raise ContractError(msg, code=RejectCode.NOT_EXPIRED)
        asset = self._rulebook.assets[instrument.settles_in]
        if max(instrument.worth_at_expiry(price, asset.quantum_exponent)) > _MAX_WORTH:
            msg = f"{tick.market} settlement price {tick.price}: a lot beyond the exact range"
            raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
        text = format_scaled(price, exponent)
        known = self._settled.get(tick.market)
        if known is None:
            self._settled[tick.market] = {
                "source": tick.source,
                "price": text,
                "ts_us": tick.ts_us,
            }
            self._has_settled = True
            self._emit_frame([{"market": tick.market, "price": text}])
        elif known["price"] == text:
            self._counts["duplicates"] += 1
        else:
            msg = f"{tick.market} settlement price {tick.price}: settled at {known['price']}"
            raise ContractError(msg, code=RejectCode.SETTLED_OTHERWISE)

    def _on_rulebook(self, tick: RulebookTick) -> None:
        """Check a rulebook in the order of the module's table, tell it and judge by it."""
        document = bytes(tick.rulebook)
        try:
            rulebook = compile_document(document)
            if rulebook.hash == self._rulebook.hash:
                self._counts["duplicates"] += 1
                return
            check_successor(self._rulebook, rulebook)
        except ConfigError as error:
            msg = f"rulebook of {tick.source} refused: {error.message}"
            raise ContractError(msg, code=RejectCode.RULEBOOK) from None
        if rulebook.effective_at_us > tick.ts_us:
            msg = (
                f"rulebook of {tick.source} refused: rulebook.effective_at_us: "
                f"{rulebook.effective_at_us}, limit: {tick.ts_us}, when it was published"
            )
            raise ContractError(msg, code=RejectCode.RULEBOOK)
        self._emit_pending()
        self._emit_frame(rulebook=rulebook)
        self._adopt(rulebook)
        is_one_gone = self._breakers.adopt(rulebook.breakers)
        self._breakers.on_fund(0, self._waterfall.fund_micros, self._clock_us)
        self._is_published = True
        for feed in self._feeds.values():
            if feed.state is not None:
                before = feed.mark()
                feed.judge(self._clock_us)
                self._watch(feed)
                if feed.mark() != before:
                    self._touched.add(feed.name)
        self._trip()
        if is_one_gone:
            self._emit_pending()
            self._emit_pauses()

    def _adopt(self, rulebook: CompiledRulebook) -> None:
        """Judge by a rulebook, which has all feeds there are."""
        self._rulebook = rulebook
        self._waterfall.adopt(rulebook.insurance)
        for feed, policy in zip(rulebook.feeds, rulebook.oracle, strict=True):
            known = self._feeds.get(feed.name)
            if known is None:
                kind = StateFeed if feed.is_state else PriceFeed
                self._feeds[feed.name] = kind(feed, policy)
            else:
                known.adopt(feed, policy)

    def _instrument(self, market: str) -> Instrument:
        instrument = self._rulebook.instrument_by_name.get(market)
        if instrument is None:
            msg = f"market {market!r} is not in rulebook {self._rulebook.id}"
            raise ContractError(msg, code=RejectCode.UNKNOWN_INSTRUMENT)
        return instrument

    def _feed_of(self, tick: PriceTick | StateTick, kind: type[_AnyFeed]) -> _AnyFeed:
        """Return the feed a tick names, if it is of the tick's kind."""
        feed = self._feeds.get(tick.feed)
        if isinstance(feed, kind):
            return feed
        msg = f"feed {tick.feed!r} is not in rulebook {self._rulebook.id}"
        if feed is not None:
            msg = (
                f"feed {tick.feed!r} of rulebook {self._rulebook.id} is a {feed.kind} feed, "
                f"tick of {tick.source} is of kind {kind.kind}"
            )
        raise ContractError(msg, code=RejectCode.UNKNOWN_FEED)

    def _refuse_future(self, tick: PriceTick | StateTick, feed: MarkedFeed) -> None:
        clock_us = self._clock_us
        if tick.ts_us > clock_us + feed.max_skew_us and clock_us:
            msg = (
                f"{feed.name} tick of {tick.source} {tick.ts_us - clock_us} us "
                f"beyond the event clock, limit {feed.max_skew_us}"
            )
            raise ContractError(msg, code=RejectCode.FUTURE)

    def _judge_at_tick(self, feed: MarkedFeed, ts_us: int) -> None:
        if not self._counts["clocks"]:
            self._clock_us = max(self._clock_us, ts_us)
        feed.judge(self._clock_us)
        self._touched.add(feed.name)
        self._watch(feed)
        self._trip()

    def _watch(self, feed: MarkedFeed) -> None:
        """Show breakers a feed that was judged, and the time; `_trip` lets them act."""
        self._breakers.on_clock(self._clock_us)
        if not isinstance(feed, PriceFeed):
            return
        if feed.state == VALID and feed.value is not None:
            self._breakers.on_mark(feed.name, feed.value, self._clock_us)
        self._breakers.on_sources(
            feed.name,
            self._clock_us,
            is_doubtful=feed.is_doubtful,
            dropped=feed.dropped,
            votes=feed.votes,
        )

    def _trip(self) -> None:
        """Tell of breakers that trip, ahead of the marks that made them."""
        if self._breakers.trip():
            self._emit_pauses()

    def _reject(self, topic: str, record: InputRecord, error: ContractError) -> None:
        self._counts["rejects"] += 1
        code = str(error.code)
        self._rejects_by_code[code] = self._rejects_by_code.get(code, 0) + 1
        self._records.append(
            reject(
                record,
                topic=topic,
                partition=self._partition,
                code=error.code,
                message=error.message,
            )
        )

    # -- rows and records out

    def _emit_pending(self) -> None:
        """Emit what changed so far, if anything did, ahead of a frame that tells of more."""
        if any(feed.news() != feed.published for feed in self._feeds.values()):
            self._emit_frame()

    def _emit_frame(
        self,
        settlements: Sequence[Mapping[str, str]] = (),
        rulebook: CompiledRulebook | None = None,
        pauses: Mapping[str, Any] | None = None,
        losses: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Emit the next frame: every feed that differs from what the frames before it said.

        One of pauses tells no marks.
        """
        marks = []
        for feed in self._feeds.values() if pauses is None else ():
            news = feed.news()
            if news != feed.published:
                feed.published = news
                marks.append({"feed": feed.name, **feed.mark()})
        self._seq += 1
        frame: dict[str, Any] = {
            "schema_version": 1,
            "kind": "marks",
            "seq": self._seq,
            "ts_us": self._clock_us,
            "marks": marks,
        }
        if settlements:
            frame["settlements"] = list(settlements)
        if rulebook is not None:
            frame["rulebook"] = Fragment(rulebook.document)
        if pauses is not None:
            frame["pauses"] = pauses
        if losses:
            frame["losses"] = list(losses)
        self._records.append(Emit(MARKS, _FRAME_KEY, encode(frame), everywhere=True))
        self._counts["frames"] += 1

    def _emit_pauses(self) -> None:
        """Emit a frame that tells all pauses in force, whoever ordered them."""
        pauses = dict(self._control.pauses())
        if breakers := self._breakers.in_force():
            pauses["breakers"] = breakers
        self._emit_frame(pauses=pauses)

    def cut(self) -> Outputs:
        """Return changed rows, frames and rejects; a frame is added for changes not yet told."""
        feeds = self._feeds
        touched = sorted(self._touched | self._breakers.take_touched())
        self._touched = set()
        if any(feeds[name].published != feeds[name].news() for name in touched):
            self._emit_frame()
        records, self._records = self._records, []
        changed = [
            (name.encode(), feeds[name].row(self._breakers.memory(name))) for name in touched
        ]
        if self._has_settled:
            row = {"schema_version": 1, "settlements": self._settled}
            changed.append((_SETTLEMENTS_KEY, encode(row)))
            self._has_settled = False
        if self._is_published:
            changed.append((RULEBOOK_ROW_KEY, rulebook_row(self._rulebook)))
            self._is_published = False
        if self._breakers.take_changed() or self._is_commanded:
            told = self._control.row(self._breakers.standing(), self._breakers.sums())
            changed.append((CONTROL_ROW_KEY, told))
            self._is_commanded = False
        if self._waterfall.is_changed:
            changed.append((FUND_ROW_KEY, self._waterfall.row()))
            self._waterfall.is_changed = False
        return Outputs(
            rows=Rows.of(changed),
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
        """Take rows of ``price-state.v1``; `resume` reads them by the rulebook in force."""
        for row in rows:
            self._rows[row.key or b""] = row.value

    def resume(self, positions: Mapping[str, int], state: Mapping[str, Any]) -> None:
        """Finish a restore.

        Raises
        ------
        ConfigError
            The partition was priced under another rulebook, which was not published to it.
        PartitionError
            A row is a tombstone, or of another rulebook than the state.
        """
        del positions  # the price side needs no offsets of its own
        rows, self._rows = self._rows, {}
        if state:
            published = rows.pop(RULEBOOK_ROW_KEY, None)
            where = f"price-state.v1 partition {self._partition}"
            rulebook = restored_rulebook(self._rulebook, published, state["rulebook"], where)
            if rulebook.hash != self._rulebook.hash:
                self._feeds = {}
                self._adopt(rulebook)
                self._breakers = Breakers(rulebook.breakers)
        settlements = rows.pop(_SETTLEMENTS_KEY, None)
        if settlements is not None:
            self._settled = {
                market: {"source": told.source, "price": told.price, "ts_us": told.ts_us}
                for market, told in decode_settlements_row(settlements).settlements.items()
            }
        standing: Sequence[RowBreaker] = ()
        sums: Mapping[str, Mapping[str, Sequence[tuple[int, int]]]] = {}
        commanded = rows.pop(CONTROL_ROW_KEY, None)
        if commanded is not None:
            control = decode_control_row(commanded)
            self._control = Control.of_row(control)
            standing, sums = control.breakers, control.sums
        fund = rows.pop(FUND_ROW_KEY, None)
        if fund is not None:
            self._waterfall.load(fund)
        memories = {}
        for key, value in rows.items():
            feed = self._feeds.get(key.decode())
            if feed is None:
                continue
            if value is None:
                msg = f"price-state.v1 row {feed.name} was deleted, rows of this table never are"
                raise PartitionError(msg)
            row = decode_price_row(value)
            feed.restore(row)
            memories[feed.name] = row.breakers
        if state:
            self._seq = state["seq"]
            self._clock_us = state["clock_us"]
            self._counts.update(state["counts"])
        self._breakers.restore(
            standing,
            memories,
            self._clock_us,
            sums=sums,
            fund_micros=self._waterfall.fund_micros,
        )

    def remember(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Do nothing: `lookback` asks for no records."""
        del topic, records

    # -- for people and tests

    def facts(self) -> ShardFacts:
        """Return counts and ages for an operator (`Shard.facts`)."""
        clock_us = self._clock_us
        newest = {name: feed.newest_us for name, feed in self._feeds.items()}
        return ShardFacts(
            stream_us=clock_us,
            duplicates={ORACLE_TICKS: self._counts["duplicates"]},
            rejects=dict(self._rejects_by_code),
            tick_age_us={
                name: max(0, clock_us - ts_us)
                for name, ts_us in newest.items()
                if ts_us is not None
            },
            breakers=self._breakers.tripped(),
        )

    def keys(self) -> Iterator[str]:
        """Yield the names of the feeds, as the rulebook lists them."""
        yield from self._feeds

    def describe(self, feed: str) -> dict[str, Any]:
        """Return what sources said of one feed, and its mark: decimal texts, event times.

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


def _number(text: str, exponent: int, what: str, *, limit: int = MAX_EXACT) -> int:
    """Return the integer of a decimal text at the feed's exponent."""
    try:
        value = parse_scaled(text, exponent)
    except ValueError as error:
        code = RejectCode.OFF_STEP if _is_decimal(text) else RejectCode.OUT_OF_CONTRACT
        msg = f"{what} {error}"
        raise ContractError(msg, code=code) from None
    if abs(value) > limit:
        msg = f"{what} {text}, limit 2**{limit.bit_length() - 1} units of 1e{exponent}"
        raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
    return value


def _is_decimal(text: str) -> bool:
    """Return whether a text is a plain decimal, however fine."""
    try:
        parse_scaled(text, -MAX_TEXT)
    except ValueError:
        return False
    return True
