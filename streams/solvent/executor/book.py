"""What an executor knows of liquidations, and whether an event of theirs is to be acted on.

Pure: no Kafka, no clock, no chance. Records of ``liquidations.v1`` go in as they lie in their
partitions, batch by batch, one ruling comes out for each: an action and a reason from a closed
list. At the start those of ``liquidation-state.v1`` go in before, the last of each unit: what
stands, whatever came before it. Times are stream time in microseconds, of the partition a record
was read from: the latest ``ts_us`` seen there, whoever's event or watermark told it. The
conformance pack in ``schemas/liquidations/conformance`` states the same rules by example, for any
language.

======  ==================  =====================================================================
action  reason              when
======  ==================  =====================================================================
act     live                the offer may be taken
act     gap                 the same, but the revision or episode before it was never seen
claim   live, gap           the offer is leased, and something of it is free: claim it first; `act`
                            comes with the revision that tells our claim
end     ended               the case recovered or was closed: drop what is under way for it
ignore  not_understood      no such record: not JSON, another version, an id that is not its own
ignore  stale_episode       of an older episode than one known of this unit
ignore  duplicate           id and revision seen before, the same content
ignore  conflict            id and revision seen before, *other content*: somebody else writes here
ignore  superseded          older than a revision known, before it or in the same batch
ignore  ended               an offer of a case that has ended
ignore  suspended           the case waits for the end of a pause, or has gone to the insurance
                            fund: offers of before hold no more
ignore  unknown_word        an `event` or `side` this program does not know; unknown reasons,
                            verdicts and statuses say nothing that acting depends on
ignore  dry_run             the offer is for show: the pipeline runs dry
ignore  wrong_rulebook      judged by a rulebook that is not among those accepted
ignore  nothing_to_trade    neither legs nor swaps: paused, or all of it is withheld for now
ignore  expired             its partition's stream time is beyond ``expires_us``
ignore  waits_for_own_fill  decided before our own fill was read: one that knows it will follow
ignore  cooldown            of an account we filled less than a cooldown ago, in stream time
ignore  claimed             the offer is leased and all of it is claimed by others, or some of it by
                            another program under our name; so it is to who has no name
ignore  stale_heartbeat     its partition is silent: whoever judges there may be gone
======  ==================  =====================================================================

Of the reasons to ignore, the first that applies counts, in this order; only offers are superseded
within a batch. Whatever is newer than all known of its unit becomes
the newest, also if it is not acted on: an offer holds only while no later revision exists. An offer
left alone is not looked at again; the next revision comes at the latest when it expires. But one
that only waits for a heartbeat is ruled on once more when its partition is heard again, if it is
the newest still. A unit never heard of may begin at any revision (a restart forgets), so that is no
gap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, TypeVar

from solvent.errors import ContractError
from solvent.executor.claims import is_free, own_claim
from solvent.wire.outputs import (
    Liquidation,
    RulebookReference,
    StandingCase,
    StandingClaim,
    decode_liquidation,
    decode_liquidation_state,
)
from solvent.wire.topics import LIQUIDATION_STATE, TRADES

__all__ = ["Action", "Book", "Offered", "Reason", "Received", "RulebookPin", "Ruling", "keep_last"]

#: Revisions of one case whose content is remembered; older ones count as superseded.
_MAX_SEEN: Final = 64
#: Units whose ended case is remembered, and accounts whose last fill is; the oldest are forgotten.
_MAX_REMEMBERED: Final = 100_000
_ENDINGS: Final = frozenset({"recovered", "closed"})
_SIDES: Final = frozenset({"buy", "sell"})
#: In the place of a digest: this revision is known, its content is not.
_KNOWN: Final = b""

#: What an offer is known by: its event, or that it stands.
Offered = Liquidation | StandingCase

_Unit = tuple[str, str]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Action(StrEnum):
    """What to do about an event."""

    ACT = "act"
    CLAIM = "claim"
    END = "end"
    IGNORE = "ignore"


class Reason(StrEnum):
    """Why; the table in this module's docstring says when."""

    LIVE = "live"
    GAP = "gap"
    ENDED = "ended"
    NOT_UNDERSTOOD = "not_understood"
    STALE_EPISODE = "stale_episode"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    SUPERSEDED = "superseded"
    SUSPENDED = "suspended"
    UNKNOWN_WORD = "unknown_word"
    DRY_RUN = "dry_run"
    WRONG_RULEBOOK = "wrong_rulebook"
    NOTHING_TO_TRADE = "nothing_to_trade"
    EXPIRED = "expired"
    WAITS_FOR_OWN_FILL = "waits_for_own_fill"
    COOLDOWN = "cooldown"
    CLAIMED = "claimed"
    STALE_HEARTBEAT = "stale_heartbeat"


@dataclass(frozen=True, slots=True)
class Received:
    """A record of ``liquidations.v1``: where it lay, its bytes, the broker's time.

    If it `stands`, it is one of ``liquidation-state.v1``.
    """

    partition: int
    offset: int
    value: bytes
    timestamp_ms: int = 0
    stands: bool = False


@dataclass(frozen=True, slots=True)
class RulebookPin:
    """A rulebook whose offers are accepted; a version or hash of None accepts any."""

    id: str
    version: int | None = None
    hash: str | None = None

    def admits(self, rulebook: RulebookReference) -> bool:
        """Return whether this is the rulebook meant."""
        return (
            self.id == rulebook.id
            and self.version in {None, rulebook.version}
            and self.hash in {None, rulebook.hash}
        )


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is to be done about one record, and why; `liquidation` is None if not understood."""

    action: Action
    reason: Reason
    received: Received
    liquidation: Liquidation | StandingCase | None = None
    detail: str = ""


@dataclass(slots=True)
class _Case:
    """The newest case of a unit: content digests by revision, the newest last.

    The digest of a revision known only as it stands is empty: any content of it is known.
    """

    episode: int
    revision: int = 0
    has_ended: bool = False
    seen: dict[int, bytes] = field(default_factory=dict)

    def take(self, revision: int, digest: bytes) -> None:
        self.revision = revision
        keep_last(self.seen, revision, digest, _MAX_SEEN)


@dataclass(slots=True)
class Book:
    """The newest revision of each case, and what it asks of us.

    Attributes
    ----------
    accepts : sequence of RulebookPin
        Rulebooks whose offers are acted on; empty: all.
    cooldown_us : int
        Stream time for which an account we filled is left alone.
    executor_id : str
        Under which name leased offers are claimed; empty: they are left alone.
    gaps : int
        How often something before an event was never seen.
    """

    accepts: Sequence[RulebookPin] = ()
    cooldown_us: int = 0
    executor_id: str = ""
    gaps: int = 0
    _stream_us: dict[int, int] = field(default_factory=dict)
    _open: dict[_Unit, _Case] = field(default_factory=dict)
    _ended: dict[_Unit, _Case] = field(default_factory=dict)
    _own_fills: dict[_Unit, int] = field(default_factory=dict)
    _filled_us: dict[str, int] = field(default_factory=dict)
    _silent: frozenset[int] = frozenset()
    _held: dict[_Unit, Ruling] = field(default_factory=dict)
    _own_reports: dict[str, None] = field(default_factory=dict)

    def take(self, batch: Sequence[Received]) -> list[Ruling]:
        """Return one ruling a record, in their order; the batch counts as known all at once."""
        rulings = [self._enter(received) for received in batch]
        newest: dict[_Unit, int] = {}
        for index, ruling in enumerate(rulings):
            if ruling.liquidation is not None and _is_news(ruling):
                newest[_unit_of(ruling.liquidation)] = index
        return [
            self._weigh(ruling, is_newest=newest[_unit_of(ruling.liquidation)] == index)
            if ruling.liquidation is not None and ruling.action is Action.ACT
            else ruling
            for index, ruling in enumerate(rulings)
        ]

    def watermark(self, partition: int, ts_us: int) -> None:
        """Note the stream time a partition's watermark tells."""
        self._pass_time(partition, ts_us)

    def listen(self, silent: Collection[int]) -> None:
        """Note the partitions nothing was heard from for too long: nothing is taken there."""
        self._silent = frozenset(silent)

    def is_silent(self, partition: int) -> bool:
        """Whether a partition is one of those."""
        return partition in self._silent

    def release(self) -> list[Ruling]:
        """Rule once more on offers that waited for a heartbeat which has come."""
        heard = [u for u, held in self._held.items() if held.received.partition not in self._silent]
        return [self._weigh(self._held.pop(unit), is_newest=True) for unit in heard]

    def why_not_now(self, offer: Offered, partition: int) -> Reason | None:
        """Return why an offer that was live may not be taken any more, None if it still may."""
        case = self._open.get(_unit_of(offer))
        if case is None:
            return Reason.ENDED
        if (case.episode, case.revision) != (offer.episode, offer.revision):
            return Reason.SUPERSEDED
        return Reason.EXPIRED if self._has_expired(offer, partition) else None

    def filled(self, account_id: str, subaccount: str, *, offset: int, ts_us: int) -> None:
        """Note a fill of ours: its place in its partition of ``trades.v1``, and its event time."""
        unit = (account_id, subaccount)
        last = max(offset, self._own_fills.get(unit, -1))
        keep_last(self._own_fills, unit, last, _MAX_REMEMBERED)
        if self.cooldown_us:
            latest_us = max(ts_us, self._filled_us.get(account_id, 0))
            keep_last(self._filled_us, account_id, latest_us, _MAX_REMEMBERED)

    def claimed(self, report_id: str) -> None:
        """Note a claim of ours that is being written."""
        keep_last(self._own_reports, report_id, None, _MAX_REMEMBERED)

    def own_claim(self, offer: Offered) -> StandingClaim | None:
        """Return our claim on an offer, if one stands."""
        return own_claim(offer, self._own_reports)

    def _enter(self, received: Received) -> Ruling:
        """Fold a record in; an offer newer than all known comes out as `act`, to be weighed."""
        event: Offered
        try:
            event = _standing(received) if received.stands else decode_liquidation(received.value)
        except ContractError as error:
            return Ruling(Action.IGNORE, Reason.NOT_UNDERSTOOD, received, detail=str(error))
        unit = _unit_of(event)
        own_id = f"{event.account_id}:{event.subaccount}:{event.episode}"
        if event.liquidation_id != own_id or event.revision < 1 or event.episode < 1:
            detail = f"{event.liquidation_id} revision {event.revision}, of {own_id}"
            return Ruling(Action.IGNORE, Reason.NOT_UNDERSTOOD, received, detail=detail)
        self._pass_time(received.partition, event.ts_us)
        known = self._open.get(unit) or self._ended.get(unit)
        digest = _KNOWN
        if not received.stands:
            digest = hashlib.blake2b(received.value, digest_size=16).digest()
        if known is not None and (old := _old_news(event, known, digest)):
            return Ruling(Action.IGNORE, old, received, event)
        is_gap = known is not None and not _follows(event, known)
        self.gaps += is_gap
        self._advance(event, known, digest)
        if event.event in _ENDINGS:
            return Ruling(Action.END, Reason.ENDED, received, event)
        if event.event in {"suspended", "escalated"}:
            return Ruling(Action.IGNORE, Reason.SUSPENDED, received, event)
        if not event.is_offer:
            return Ruling(Action.IGNORE, Reason.UNKNOWN_WORD, received, event, event.event)
        return Ruling(Action.ACT, Reason.GAP if is_gap else Reason.LIVE, received, event)

    def _pass_time(self, partition: int, ts_us: int) -> None:
        self._stream_us[partition] = max(ts_us, self._stream_us.get(partition, 0))

    def _advance(self, event: Offered, known: _Case | None, digest: bytes) -> None:
        unit = _unit_of(event)
        case = known if known and known.episode == event.episode else _Case(event.episode)
        case.take(event.revision, digest)
        self._ended.pop(unit, None)
        self._held.pop(unit, None)
        if event.inputs.get(TRADES, 0) > self._own_fills.get(unit, -1):
            self._own_fills.pop(unit, None)  # known from here on, by all that follows
        if event.event in _ENDINGS:
            case.has_ended = True
            self._open.pop(unit, None)
            keep_last(self._ended, unit, case, _MAX_REMEMBERED)
        else:
            self._open[unit] = case

    def _weigh(self, ruling: Ruling, *, is_newest: bool) -> Ruling:
        """Decide about an offer that was newer than all known when it came."""
        offer, received = ruling.liquidation, ruling.received
        assert offer is not None
        if not is_newest:
            return Ruling(Action.IGNORE, Reason.SUPERSEDED, received, offer)
        strange = next((leg.side for leg in offer.legs if leg.side not in _SIDES), None)
        if strange is not None:
            return Ruling(Action.IGNORE, Reason.UNKNOWN_WORD, received, offer, strange)
        reason = self._obstacle(offer, received)
        if reason is Reason.STALE_HEARTBEAT:
            self._held[_unit_of(offer)] = ruling
        if reason is not None:
            return Ruling(Action.IGNORE, reason, received, offer)
        if offer.lease is not None and self.own_claim(offer) is None:
            return replace(ruling, action=Action.CLAIM)
        return ruling

    def _obstacle(self, offer: Offered, received: Received) -> Reason | None:
        partition = received.partition
        if offer.dry_run:
            return Reason.DRY_RUN
        if self.accepts and not any(pin.admits(offer.rulebook) for pin in self.accepts):
            return Reason.WRONG_RULEBOOK
        if not offer.legs and not offer.swaps:
            return Reason.NOTHING_TO_TRADE
        if self._has_expired(offer, partition):
            return Reason.EXPIRED
        if offer.inputs.get(TRADES, 0) <= self._own_fills.get(_unit_of(offer), -1):
            return Reason.WAITS_FOR_OWN_FILL
        filled_us = self._filled_us.get(offer.account_id)
        if filled_us is not None and self._stream_us[partition] < filled_us + self.cooldown_us:
            return Reason.COOLDOWN
        if offer.lease is not None and self.own_claim(offer) is None:
            is_ours = self.executor_id and is_free(
                offer, self.executor_id, is_start=received.stands
            )
            if not is_ours:
                return Reason.CLAIMED
        return Reason.STALE_HEARTBEAT if partition in self._silent else None

    def _has_expired(self, offer: Offered, partition: int) -> bool:
        expires_us = offer.expires_us
        return expires_us is not None and self._stream_us.get(partition, 0) > expires_us


def _unit_of(event: Offered) -> _Unit:
    return event.account_id, event.subaccount


def _standing(received: Received) -> StandingCase:
    """Return a case that stands; ContractError if the record is none."""
    record = decode_liquidation_state(received.value)
    if not isinstance(record, StandingCase):
        msg = f"{LIQUIDATION_STATE} offset {received.offset}: no case"
        raise ContractError(msg)
    return record


def _is_news(ruling: Ruling) -> bool:
    """Whether a record became the newest of its unit."""
    is_noted = ruling.reason in {Reason.SUSPENDED, Reason.UNKNOWN_WORD}
    return is_noted or ruling.action is not Action.IGNORE


def _old_news(event: Offered, known: _Case, digest: bytes) -> Reason | None:
    """Return why an event is not newer than what is known of its unit, None if it is."""
    if event.episode != known.episode:
        return Reason.STALE_EPISODE if event.episode < known.episode else None
    seen = known.seen.get(event.revision)
    if seen is not None:
        return Reason.DUPLICATE if seen in {digest, _KNOWN} else Reason.CONFLICT
    if event.revision < known.revision:
        return Reason.SUPERSEDED
    return Reason.ENDED if known.has_ended else None


def _follows(event: Offered, known: _Case) -> bool:
    """Whether an event is the next one of a unit: nothing between them was missed."""
    if known.has_ended:
        return (event.episode, event.revision) == (known.episode + 1, 1)
    return (event.episode, event.revision) == (known.episode, known.revision + 1)


def keep_last(kept: dict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Put a value in last, and forget the oldest beyond `most`."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]
