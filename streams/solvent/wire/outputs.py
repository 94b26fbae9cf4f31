"""Output records: typed readers of all that this program publishes, and the one way to write it.

Money, prices and sizes are decimal strings (`solvent.units.parse_scaled` reads them), positive in
favour of the account where a sign has a meaning; times are integer microseconds since 1970 UTC.
Readers ignore fields they do not know, and words such as a status are plain text, so that a later
program may add to either without breaking its readers. They refuse another ``schema_version``, a
missing field and a wrong type. ``schemas/*/v1.schema.json`` says what each field means.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
import orjson

from solvent.errors import ContractError, RejectCode
from solvent.wire.inputs import SCHEMA_VERSION
from solvent.wire.losses import FundRow, Loss, LossAnswer
from solvent.wire.topics import (
    ACCOUNTS,
    JOURNAL,
    LIQUIDATION_STATE,
    LIQUIDATIONS,
    LOSSES,
    MARGIN_STATUS,
    MARKS,
    PRICE_STATE,
    REJECTS,
)

__all__ = [
    "WATERMARK_KEY",
    "BreakerInForce",
    "Claim",
    "ControlRow",
    "Fence",
    "JournalEntry",
    "LevelAmounts",
    "Liquidation",
    "MarginStatus",
    "Mark",
    "MarkFrame",
    "MarksRow",
    "OfferAuction",
    "OfferCollateral",
    "OfferLeg",
    "OfferPosition",
    "OfferSwap",
    "Pauses",
    "PriceRow",
    "Reject",
    "RowBreaker",
    "RowBudget",
    "RowCase",
    "RowClaims",
    "RowMark",
    "RowPause",
    "RowSettlement",
    "RowWatch",
    "RulebookReference",
    "RulebookRow",
    "Settlement",
    "SettlementsRow",
    "SourceQuote",
    "SourceWord",
    "StandingCase",
    "StateMark",
    "Trigger",
    "Watermark",
    "WithheldSize",
    "decode_budget_row",
    "decode_case_row",
    "decode_claim",
    "decode_control_row",
    "decode_fence",
    "decode_fund_row",
    "decode_journal_entry",
    "decode_liquidation",
    "decode_liquidation_state",
    "decode_loss",
    "decode_margin_status",
    "decode_mark_frame",
    "decode_marks_row",
    "decode_price_row",
    "decode_reject",
    "decode_rulebook_row",
    "decode_settlements_row",
    "encode",
]


#: Events that ask for trades.
_OFFERS: Final = frozenset({"opened", "revised", "claimed"})


class LevelAmounts(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """An amount of settlement currency at each level (MODEL.md 3.1)."""

    initial: str
    liquidation_end: str
    maintenance: str


class RulebookReference(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The rulebook a decision rests on: name, version, SHA-256 of the resolved model."""

    id: str
    version: int
    hash: str


class Trigger(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The record that caused an event: logical topic and offset in the event's partition."""

    topic: str
    offset: int


class OfferPosition(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """An open position: size in coins (long > 0), cost basis in settlement currency, mark."""

    market: str
    size: str
    cost_basis: str
    mark_price: str | None


class OfferCollateral(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A balance: amount in coins (debt < 0), index price; None for the settlement asset."""

    asset: str
    amount: str
    index_price: str | None = None


class OfferLeg(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What an executor is asked to trade for the account.

    Attributes
    ----------
    market, side, size : str
        `side` and `size` (coins, > 0) as seen from the account: ``sell`` closes a long.
    mark_price : str
        Valuation price of the decision.
    limit_price : str
        Worst price the account may get.
    bankruptcy_price : str
        Price at which the position's share of equity is gone.
    fund_fee_ppm : int
        Insurance fund's part of the traded value, parts per million.
    """

    market: str
    side: str
    size: str
    mark_price: str
    limit_price: str
    bankruptcy_price: str
    fund_fee_ppm: int


class OfferSwap(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Debt an executor is asked to repay for the account, and what it may take, all in coins.

    Attributes
    ----------
    debt, repay : str
        Asset owed, and how much of it.
    collateral, seize : str
        Asset taken for it, and how much.
    protocol : str
        The part of `seize` that the protocol keeps.
    bonus_ppm : int
        What is taken beyond the worth of what is repaid, parts per million.
    """

    debt: str
    repay: str
    collateral: str
    seize: str
    protocol: str
    bonus_ppm: int


class WithheldSize(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a plan would close and its offer does not, in coins, and what withholds it."""

    market: str
    size: str
    reason: str


class OfferAuction(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The Dutch auction an offer is sold in: `executor.strategy.auction_price` prices it.

    Attributes
    ----------
    started_us : int
        Where its time begins: the case's first revision.
    start_ppm, cutoff_ppm, fast_us, slow_us : int
        From the first share to the second in `fast_us`, from there to 0 in `slow_us`.
    share_ppm : int
        What it is at this revision.
    """

    started_us: int
    start_ppm: int
    cutoff_ppm: int
    fast_us: int
    slow_us: int
    share_ppm: int


class ClosedSize(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a liquidation closed in one market, and what it traded for."""

    market: str
    size: str
    notional: str


class OfferLease(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Fills of an offer count only under a claim; how long it stands, and of what share at most."""

    duration_us: int
    max_share_ppm: int


class ClaimedSize(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a claim has left in one market."""

    market: str
    size: str


class StandingClaim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A claim that stands.

    Attributes
    ----------
    token : int
        What fills under it name as ``claim_token``; from 1, never used again in a case.
    executor_id, report_id : str
        Who claimed, and by which report.
    share_ppm : int
        What of each order it was given, before fills and smaller offers.
    expires_us : int
        Stream time after which no fill may use it.
    sizes : list of ClaimedSize
        What is left of it.
    """

    token: int
    executor_id: str
    report_id: str
    share_ppm: int
    expires_us: int
    sizes: list[ClaimedSize]


class Liquidation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One revision of a liquidation: an offer (opened, revised) or its end (recovered, closed).

    Attributes
    ----------
    liquidation_id : str
        ``account_id:subaccount:episode``.
    revision : int
        From 1 without gaps within one `liquidation_id`.
    expires_us : int or None
        Stream time after which the offer must not be taken.
    shortfall : str
        ``max(0, R_E - E_E)``: what liquidation must restore.
    mark_seq : int
        Mark frame in force.
    inputs : dict of str to int
        Next offset of each input topic: the decision rests on all records below.
    swaps, share_ppm
        Under lending terms, debts to repay; where a part of the whole book is sold, how much of it.
    withheld : list of WithheldSize
        What is not offered of the plan yet; `legs` is empty where that is all of it.
    released_ppm : int or None
        Where a shortage is closed in phases: what of it may be closed by now.
    dutch_auction : OfferAuction or None
        Where the book is auctioned.
    lease : OfferLease or None
        Where fills count only under a claim; `claims` are those that stand.
    reports : dict of str to int
        Reports of executors that the case took note of, by kind; in its last revision only.
    liquidated_notional, fills, bad_debt : str, int, str or None
        Of the whole case, in its last revision only; `bad_debt` of a closed case.
    opened_us, duration_us : int or None
        Stream time of the first revision, and from there to the last; in the last alone, as are
    closed_sizes : list of ClosedSize
        what fills that counted closed, by market,
    penalty : str or None
        what those gave up against the mark, and
    refused_fills : int or None
        how many fills named the case and did not count.
    fund_contribution, insurance_paid, socialised_loss : str or None
        What the insurance fund took of the fills, what it paid, and what all others bore.
    deleveraged_sizes : list of ClosedSize
        What the fund took over at the bankruptcy prices.
    dry_run : bool
        The offer is for show: nobody may act on it.
    """

    schema_version: int
    liquidation_id: str
    revision: int
    event: str
    reason: str
    account_id: str
    subaccount: str
    episode: int
    partition: int
    ts_us: int
    expires_us: int | None
    verdict: str
    status: str
    mark_seq: int
    equity: LevelAmounts
    requirement: LevelAmounts
    raw_equity: str
    shortfall: str
    positions: list[OfferPosition]
    collateral: list[OfferCollateral]
    legs: list[OfferLeg]
    trigger: Trigger
    inputs: dict[str, int]
    rulebook: RulebookReference
    swaps: list[OfferSwap] = []
    share_ppm: int | None = None
    withheld: list[WithheldSize] = []
    released_ppm: int | None = None
    dutch_auction: OfferAuction | None = None
    lease: OfferLease | None = None
    claims: list[StandingClaim] = []
    liquidated_notional: str | None = None
    fills: int | None = None
    bad_debt: str | None = None
    opened_us: int | None = None
    duration_us: int | None = None
    closed_sizes: list[ClosedSize] = []
    penalty: str | None = None
    refused_fills: int | None = None
    fund_contribution: str | None = None
    insurance_paid: str | None = None
    socialised_loss: str | None = None
    deleveraged_sizes: list[ClosedSize] = []
    reports: dict[str, int] = {}
    dry_run: bool = False

    @property
    def is_offer(self) -> bool:
        """Whether this revision asks for trades, rather than ending the case."""
        return self.event in _OFFERS


class StandingCase(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="case", tag_field="kind"
):
    """A case as it stands, the last word of ``liquidations.v1`` about a margin unit.

    What a `Liquidation` says, less what acting on it can do without: the snapshot, and of `inputs`
    all but ``trades.v1``. Keyed ``account_id:subaccount``; nothing stands there once it has ended.
    """

    schema_version: int
    liquidation_id: str
    revision: int
    event: str
    reason: str
    partition: int
    ts_us: int
    expires_us: int | None
    verdict: str
    mark_seq: int
    legs: list[OfferLeg]
    inputs: dict[str, int]
    rulebook: RulebookReference
    swaps: list[OfferSwap] = []
    share_ppm: int | None = None
    withheld: list[WithheldSize] = []
    released_ppm: int | None = None
    dutch_auction: OfferAuction | None = None
    lease: OfferLease | None = None
    claims: list[StandingClaim] = []
    dry_run: bool = False

    @property
    def account_id(self) -> str:
        """Account of the unit."""
        return self.liquidation_id.split(":")[0]

    @property
    def subaccount(self) -> str:
        """The unit within its account."""
        return self.liquidation_id.split(":")[1]

    @property
    def episode(self) -> int:
        """Number of this liquidation among the unit's."""
        return int(self.liquidation_id.split(":")[2])

    @property
    def is_offer(self) -> bool:
        """Whether trades are asked for; a suspended case waits."""
        return self.event in _OFFERS


class Watermark(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="watermark", tag_field="kind"
):
    r"""A partition's sign of life, keyed ``\0watermark``: the first mark frame of each second.

    All that lies below `inputs` is judged, and what came of it told.

    Attributes
    ----------
    ts_us, mark_seq : int
        Stream time and the mark frame that brought it.
    open_cases : int
        Cases that stand, suspended ones included.
    """

    schema_version: int
    partition: int
    ts_us: int
    mark_seq: int
    open_cases: int
    inputs: dict[str, int]
    rulebook: RulebookReference


class MarginStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A margin unit whose status changed (quarantine makes it ``unknown``).

    `shortfall` is ``max(0, -health(initial))``, `deposit_to_clear` the settlement currency that
    would end a margin call at these marks.
    """

    schema_version: int
    account_id: str
    subaccount: str
    partition: int
    ts_us: int
    mark_seq: int
    status: str
    previous_status: str
    verdict: str
    quarantined: bool
    flags: list[str]
    equity: LevelAmounts
    requirement: LevelAmounts
    raw_equity: str
    shortfall: str
    deposit_to_clear: str
    trigger: Trigger
    inputs: dict[str, int]
    rulebook: RulebookReference


class Reject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An input record that was not applied: where it is, why, and how it began, in base64.

    With `applied` it was, and only what it says of a liquidation was refused.

    `ts_us` is Kafka's record time in microseconds, not the event time, which may be unreadable;
    None if it lies outside ``0..2**53``. `key_bytes` and `value_bytes` are the lengths of the whole
    key and value; what `key_base64` and `value_base64` lack of them is in the input log.
    """

    schema_version: int
    topic: str
    partition: int
    offset: int
    code: str
    message: str
    account_id: str | None
    quarantined: bool
    ts_us: int | None
    key_base64: str | None
    key_bytes: int | None
    value_base64: str | None
    value_bytes: int | None
    applied: bool = False


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One slice: runs of (topic, first offset, last offset) in the order applied, and the hash.

    `hash` is the hexadecimal rolling BLAKE2b of 16 bytes over all slices so far.
    """

    schema_version: int
    agent: str
    partition: int
    slice: int
    runs: list[tuple[str, int, int]]
    counts: dict[str, int]
    rulebook: RulebookReference
    hash: str


class Mark(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One feed in a mark frame.

    Attributes
    ----------
    feed : str
        Feed name.
    price : str or None
        Settlement currency per coin; the last valid one if `state` is not ``valid``; None if the
        feed was never valid, and for state feeds.
    state : str
        ``valid``, ``stale``, ``uncertain`` or ``diverged``.
    since_us : int
        When this state began; 0 if the feed was valid from its first aggregate on.
    sources : int
        Sources that agreed.
    confidence : str or None
        Half width of the price's interval, in price units.
    value : str or None
        What a state feed says, in the feed's unit, signed; None if it was never valid.
    """

    feed: str
    price: str | None
    state: str
    since_us: int
    sources: int
    confidence: str | None = None
    value: str | None = None


class Settlement(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A contract that is settled at expiry: its market, and the price of its underlying."""

    market: str
    price: str


class BreakerInForce(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A breaker that pauses a market, or all (without one), and since when.

    `cause` is what drives it, unless that is marks.
    """

    name: str
    since_us: int
    market: str | None = None
    cause: str | None = None


class Pauses(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where no liquidation may be offered, and for whom; empty members are left out but the first.

    Operators pause everywhere (`all`), or some `markets`; some are `halted`, as trading in them is;
    `breakers` pause a market or all. With `dry_run` whatever is offered is not meant to be taken.
    """

    all: bool
    markets: list[str]
    halted: list[str] = []
    breakers: list[BreakerInForce] = []
    dry_run: bool = False


class MarkFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What changed in the marks since frame ``seq - 1``; `ts_us` is the stream's time from here.

    `settlements` end all positions in their markets, after the marks are taken. A `rulebook`, the
    resolved document, is what all is judged by from this frame on; such a frame has no marks,
    nor has one that tells the `pauses` in force from it on, or answers `losses`.
    """

    schema_version: int
    kind: str
    seq: int
    ts_us: int
    marks: list[Mark]
    settlements: list[Settlement] | None = None
    rulebook: dict[str, Any] | None = None
    pauses: Pauses | None = None
    losses: list[LossAnswer] = []


class RowMark(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A mark as a margin shard remembers it; fields as in `Mark`, a confidence of 0 left out."""

    price: str | None
    state: str
    since_us: int
    confidence: str | None = None
    value: str | None = None


class MarksRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0marks`` of ``accounts``: the marks in force when the slice was committed.

    `settled` has the price of each market that was settled, `pauses` where no liquidation may be
    offered.
    """

    schema_version: int
    seq: int
    ts_us: int
    marks: dict[str, RowMark]
    settled: dict[str, str] | None = None
    pauses: Pauses | None = None


class Fence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0fence`` of a table: the authority on input positions (next offset to read)."""

    schema_version: int
    positions: dict[str, int]
    slice: int
    hash: str
    state: dict[str, Any]


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0claim`` of a table: who took the partition over, in which group generation."""

    schema_version: int
    generation: int
    instance: str
    pid: int | None = None


class SourceQuote(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The last word of one source about a price."""

    price: str
    confidence: str
    ts_us: int


class SourceWord(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The last word about a state feed, and whose it is."""

    source: str
    value: str
    ts_us: int


class StateMark(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The mark of a feed as its row keeps it; fields as in `Mark`."""

    price: str | None
    state: str | None
    since_us: int
    sources: int
    confidence: str | None = None
    value: str | None = None


class RowWatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a breaker remembers of a feed.

    Of velocity the `mark` last valid, and marks replaced with the time until which they count,
    falling (`highs`) and rising (`lows`); of disagreement when it began.
    """

    mark: str | None = None
    highs: list[tuple[str, int]] = []
    lows: list[tuple[str, int]] = []
    since_us: int | None = None


class PriceRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Row of ``price-state``, keyed by feed: what each source said last, and the mark.

    A state feed has no sources that are aggregated, but one last `word`. `breakers` is what those
    that watch the feed remember of it, by name.
    """

    schema_version: int
    feed: str
    sources: dict[str, SourceQuote]
    mark: StateMark
    word: SourceWord | None = None
    breakers: dict[str, RowWatch] = {}


class RowSettlement(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Who settled a market, at which price and when."""

    source: str
    price: str
    ts_us: int


class SettlementsRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0settlements`` of ``price-state``: the markets settled so far."""

    schema_version: int
    settlements: dict[str, RowSettlement]


class RulebookRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0rulebook`` of ``accounts`` and ``price-state``: the last rulebook published."""

    schema_version: int
    rulebook: dict[str, Any]


class RowPause(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Who paused a market, or all, and why."""

    operator: str
    reason: str
    ts_us: int


class RowBreaker(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A breaker of one market, or of all (without one), that is tripped or overridden.

    `since_us` is when it tripped, `quiet_since_us` since when its condition has not held; `cause`
    is what drives it, unless that is marks.
    """

    name: str
    market: str | None = None
    cause: str | None = None
    since_us: int | None = None
    quiet_since_us: int | None = None
    overridden: bool = False


class ControlRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0control`` of ``price-state``: pauses in force, and what tells repeats.

    `pauses` are by market, that of all markets has the name ``*``; `commands` are the ids last
    obeyed, the newest last, `last_us` the latest time of one. `halts` are by market; `dry_run` is
    absent while it is off; `breakers` are those that are tripped or overridden. `sums` are what
    breakers of losses watch, by name and market (``*`` of all, or of the fund): times from which
    amounts count, ascending, and micros.
    """

    schema_version: int
    pauses: dict[str, RowPause]
    commands: list[str]
    last_us: int
    halts: dict[str, RowPause] = {}
    dry_run: RowPause | None = None
    breakers: list[RowBreaker] = []
    sums: dict[str, dict[str, list[tuple[int, int]]]] = {}


class RowClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `RowCase` says of claims: token, executor, report, share ppm, expiry and sizes of each.

    Sizes are (instrument, lots). `engine.claims` says what the rest is.
    """

    standing: tuple[tuple[int, str, str, int, int, tuple[tuple[int, int], ...]], ...] = ()
    tokens: int = 0
    unused: dict[str, int] = {}
    reports: dict[str, int] = {}


class RowCase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0case\0account\0book`` of ``accounts``: a standing liquidation case.

    `orders` are (instrument, signed lots, limit price, fund fee ppm), `closed` (instrument, lots,
    micros) as is `given`; `terms` are (instrument, held and freed micros, mark and bankruptcy price
    of an auction); prices in feed units. `engine.cases` says what the rest is.
    """

    schema_version: int
    opened_us: int
    orders: tuple[tuple[int, int, int, int], ...] = ()
    closed: tuple[tuple[int, int, int], ...] = ()
    penalty_micros: int = 0
    fund_micros: int = 0
    refused: int = 0
    due_us: int = 0
    is_claimed: bool = False
    is_spent: bool = False
    given: tuple[tuple[int, int, int], ...] = ()
    paid_micros: int = 0
    terms: tuple[tuple[int, int, int, int, int], ...] = ()
    freed_micros: int = 0
    socialised_micros: int = 0
    claims: RowClaims | None = None


class RowBudget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0budget\0...`` of ``accounts``: fills of a window, as (stream time, micros)."""

    schema_version: int
    fills: Annotated[list[tuple[int, int]], msgspec.Meta(min_length=1)]


#: Key of a partition's watermark in ``liquidation-state.v1``; no identifier has a zero byte.
WATERMARK_KEY: Final = b"\0watermark"

_Record = TypeVar("_Record", bound=msgspec.Struct)

_LIQUIDATION_ID = re.compile(r"[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}:[1-9][0-9]{0,15}")

_liquidation = msgspec.json.Decoder(Liquidation)
_liquidation_state = msgspec.json.Decoder(StandingCase | Watermark)
_margin_status = msgspec.json.Decoder(MarginStatus)
_reject = msgspec.json.Decoder(Reject)
_journal_entry = msgspec.json.Decoder(JournalEntry)
_mark_frame = msgspec.json.Decoder(MarkFrame)
_marks_row = msgspec.json.Decoder(MarksRow)
_fence = msgspec.json.Decoder(Fence)
_claim = msgspec.json.Decoder(Claim)
_price_row = msgspec.json.Decoder(PriceRow)
_settlements_row = msgspec.json.Decoder(SettlementsRow)
_rulebook_row = msgspec.json.Decoder(RulebookRow)
_control_row = msgspec.json.Decoder(ControlRow)
_loss = msgspec.json.Decoder(Loss)
_fund_row = msgspec.json.Decoder(FundRow)
_case_row = msgspec.json.Decoder(RowCase)
_budget_row = msgspec.json.Decoder(RowBudget)


class _Head(msgspec.Struct, frozen=True, gc=False):
    schema_version: int


_head = msgspec.json.Decoder(_Head)


def decode_liquidation(value: bytes) -> Liquidation:
    """Return a record of ``liquidations.v1``; ContractError as `decode_reject` raises it."""
    return _read(_liquidation, LIQUIDATIONS, value)


def decode_liquidation_state(value: bytes) -> StandingCase | Watermark:
    """Return a record of ``liquidation-state.v1``; ContractError as `decode_reject` raises it."""
    record: StandingCase | Watermark = _read(_liquidation_state, LIQUIDATION_STATE, value)
    if isinstance(record, StandingCase) and not _LIQUIDATION_ID.fullmatch(record.liquidation_id):
        message = f"{LIQUIDATION_STATE} `liquidation_id` = {ascii(record.liquidation_id)[:80]}"
        raise ContractError(message, code=RejectCode.MALFORMED)
    return record


def decode_margin_status(value: bytes) -> MarginStatus:
    """Return a record of ``margin-status.v1``; ContractError as `decode_reject` raises it."""
    return _read(_margin_status, MARGIN_STATUS, value)


def decode_reject(value: bytes) -> Reject:
    """Return a record of ``rejects.v1``.

    Raises
    ------
    ContractError
        `RejectCode.UNSUPPORTED_VERSION` for another version, `RejectCode.MALFORMED` for bytes that
        are not such a record.
    """
    return _read(_reject, REJECTS, value)


def decode_journal_entry(value: bytes) -> JournalEntry:
    """Return a record of ``journal.v1`` or ``price-journal.v1``; raises as `decode_reject`."""
    return _read(_journal_entry, JOURNAL, value)


def decode_mark_frame(value: bytes) -> MarkFrame:
    """Return a record of ``marks.v1``; ContractError as `decode_reject` raises it."""
    return _read(_mark_frame, MARKS, value)


def decode_marks_row(value: bytes) -> MarksRow:
    """Return the marks row of ``accounts.v1``; ContractError as `decode_reject` raises it."""
    return _read(_marks_row, ACCOUNTS, value)


def decode_fence(value: bytes) -> Fence:
    """Return the fence row of a table; ContractError as `decode_reject` raises it."""
    return _read(_fence, "fence row", value)


def decode_claim(value: bytes) -> Claim:
    """Return the claim row of a table; ContractError as `decode_reject` raises it."""
    return _read(_claim, "claim row", value)


def decode_price_row(value: bytes) -> PriceRow:
    """Return a feed's row of ``price-state.v1``; ContractError as `decode_reject` raises it."""
    return _read(_price_row, PRICE_STATE, value)


def decode_settlements_row(value: bytes) -> SettlementsRow:
    """Return the settlements row of ``price-state.v1``; ContractError as `decode_reject` raises."""
    return _read(_settlements_row, PRICE_STATE, value)


def decode_control_row(value: bytes) -> ControlRow:
    """Return the control row of ``price-state.v1``; ContractError as `decode_reject` raises it."""
    return _read(_control_row, PRICE_STATE, value)


def decode_case_row(value: bytes) -> RowCase:
    """Return the row of a case of ``accounts.v1``; ContractError as `decode_reject` raises it."""
    return _read(_case_row, ACCOUNTS, value)


def decode_budget_row(value: bytes) -> RowBudget:
    """Return the row of a budget of ``accounts.v1``; ContractError as `decode_reject` raises it."""
    return _read(_budget_row, ACCOUNTS, value)


def decode_loss(value: bytes) -> Loss:
    """Return a record of ``losses.v1``; ContractError as `decode_reject` raises it."""
    loss: Loss = _read(_loss, LOSSES, value)
    return loss


def decode_fund_row(value: bytes) -> FundRow:
    """Return the fund's row of ``price-state.v1``; ContractError as `decode_reject` raises it."""
    return _read(_fund_row, PRICE_STATE, value)


def decode_rulebook_row(value: bytes) -> RulebookRow:
    """Return the rulebook row of a table; ContractError as `decode_reject` raises it."""
    return _read(_rulebook_row, "rulebook row", value)


def encode(record: Any) -> bytes:  # noqa: ANN401 -- any JSON-able value, keys in the order given
    """Return a record as compact JSON, keys in the order given: equal content, equal bytes."""
    return orjson.dumps(record)


def _read(decoder: msgspec.json.Decoder[_Record], what: str, value: bytes) -> _Record:
    """Decode, or say what is wrong; the version is looked at first only when decoding fails."""
    try:
        record = decoder.decode(value or b"")
        version = record.schema_version  # type: ignore[attr-defined]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        version = _version_of(value)
        if version in {None, SCHEMA_VERSION}:
            message = f"{what} value = {ascii(value)[:80]}: {fault}"
            raise ContractError(message, code=RejectCode.MALFORMED) from None
    if version != SCHEMA_VERSION:
        message = f"{what} `schema_version` = {version}: only {SCHEMA_VERSION} is read"
        raise ContractError(message, code=RejectCode.UNSUPPORTED_VERSION)
    return record


def _version_of(value: bytes) -> int | None:
    try:
        return _head.decode(value or b"").schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
