"""The bridge: live offers as JSON lines for a program in any language, its answers as fills.

Pure but for what it is told; amounts are decimal text. Lines out, each with a `type`:

=========  ========================================================================================
offer      a live offer: the event of ``liquidations.v1`` with `partition` and `offset`, or, if it
           stood before the start, that of ``liquidation-state.v1``, without the latter
claimable  a leased offer of which something is free: the event; an ``offer`` of what you got of it
           comes once a ``claim`` of yours is told, with its `token`, and legs of your share
withdrawn  an offer told before holds no more, without another in its place; `reason`
end        a case has recovered or was closed, told before or not: the event
filled     a fill of yours is committed: `trade_id`, and its `offset` in its partition of trades
error      a line of yours was refused: `reason`, `detail`, and the line
heartbeat  a `partition` fell silent, or is heard again: `alive`; offers there stand, but no fill of
           theirs is taken while it is silent
=========  ========================================================================================

Lines in: ``claim``, ``fill`` and ``pass``, which gives a claim back; `revision`, where given, must
be the one offered last. Each market of a revision is filled once. ``schemas/executor-bridge`` has
both as JSON Schema.

The read position stays before the oldest offer that stands unanswered: after a restart it is told
again. Answering it again does no harm, since equal offers have fills with equal ids. So is every
offer that stands when the bridge starts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
import orjson

from solvent.errors import ContractError
from solvent.executor.book import Action, Book, Offered, Reason, Received, Ruling, keep_last
from solvent.executor.claims import Claimant, share_of, token_of
from solvent.executor.fills import Fill, Steps, check_steps, fill_of
from solvent.executor.tally import Tally
from solvent.units import PPM
from solvent.wire.outputs import encode
from solvent.wire.reports import Report

__all__ = ["Bridge"]

#: Offers that stand no more, remembered to say why when they are answered after all.
_MAX_LAPSED: Final = 10_000
_SHOWN: Final = 200


class _FillLine(
    msgspec.Struct, frozen=True, kw_only=True, tag="fill", tag_field="type",
    forbid_unknown_fields=True,
):  # fmt: skip
    liquidation_id: str
    market: str
    size: str
    price: str
    fee: str = "0"
    side: str | None = None
    revision: int | None = None


class _PassLine(
    msgspec.Struct, frozen=True, kw_only=True, tag="pass", tag_field="type",
    forbid_unknown_fields=True,
):  # fmt: skip
    liquidation_id: str
    revision: int | None = None


class _ClaimLine(
    msgspec.Struct, frozen=True, kw_only=True, tag="claim", tag_field="type",
    forbid_unknown_fields=True,
):  # fmt: skip
    liquidation_id: str
    share_ppm: Annotated[int, msgspec.Meta(ge=1, le=PPM)] | None = None
    revision: int | None = None


_answer = msgspec.json.Decoder(_FillLine | _PassLine | _ClaimLine)


@dataclass(slots=True)
class _Standing:
    """An offer told and not done with."""

    offer: Offered
    partition: int
    offset: int | None
    timestamp_ms: int
    filled: set[str] = field(default_factory=set)
    is_claimable: bool = False


class _Refusal(Exception):  # noqa: N818 - an outcome, told to the other side
    def __init__(self, detail: str, *, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Bridge:
    """Between the book and the other side: what was told, and what may still be answered.

    Parameters
    ----------
    book : Book
        What is known.
    steps : Steps
        Of the pipeline's rulebook: fills must be on them.
    tally : Tally
        Counts what became of it all.
    claimant : Claimant or None
        Claims leased offers; without one they are left alone.
    """

    def __init__(
        self, book: Book, steps: Steps, tally: Tally, claimant: Claimant | None = None
    ) -> None:
        self._book = book
        self._steps = steps
        self._tally = tally
        self._standing: dict[str, _Standing] = {}
        self._lapsed: dict[str, str] = {}
        self._next: dict[int, int] = {}
        self._replies: list[bytes] = []
        self._silent: set[int] = set()
        self._claimant = claimant
        self._reports: list[Report] = []

    def tell(self, batch: Sequence[Received], silent: Collection[int] = ()) -> list[bytes]:
        """Return the lines that a batch of records is worth, and partitions newly silent or heard.

        Parameters
        ----------
        batch : sequence of Received
            What was read.
        silent : collection of int
            Partitions nothing was heard from for too long.
        """
        changed = sorted(self._silent ^ set(silent))
        self._silent = set(silent)
        lines = [
            encode({"type": "heartbeat", "partition": p, "alive": p not in self._silent})
            for p in changed
        ]
        self._book.listen(silent)
        rulings = [*self._book.take(batch), *self._book.release()]
        self._tally.ruled(rulings, self._book)
        for received in batch:
            if not received.stands:
                self._next[received.partition] = received.offset + 1
        for ruling in rulings:
            if ruling.action in {Action.ACT, Action.CLAIM}:
                lines.append(self._offer(ruling))
            elif ruling.action is Action.END:
                lines.append(self._end(ruling))
        return [*self._withdrawn(rulings), *lines]

    def hear(self, line: bytes) -> list[Fill]:
        """Return the fills a line of the other side comes to; a refusal is among the replies."""
        try:
            return self._hear(line)
        except (_Refusal, ContractError) as refusal:
            reason = refusal.reason if isinstance(refusal, _Refusal) else "not_allowed"
            shown = line[:_SHOWN].decode("utf-8", "replace")
            why = {"reason": str(reason), "detail": str(refusal), "line": shown}
            self._replies.append(encode({"type": "error"} | why))
            self._tally.log.warning("bridge_refused", **why)
            self._tally.answered("refused")
            return []

    def wrote(self, fills: Sequence[Fill], offsets: Sequence[int]) -> None:
        """Note that fills are committed, where they lie, and reply so; none do in a dry run."""
        for fill, offset in zip(fills, offsets, strict=False):
            reply = {"type": "filled", "liquidation_id": fill.liquidation_id}
            self._replies.append(encode({**reply, "trade_id": fill.trade_id, "offset": offset}))

    def take_reports(self) -> list[Report]:
        """Return the reports to be written with the fills, once."""
        reports, self._reports = self._reports, []
        return reports

    def replies(self) -> list[bytes]:
        """Return the replies to what was heard, once."""
        replies, self._replies = self._replies, []
        return replies

    def positions(self) -> dict[int, int]:
        """Return the next offset of each partition from where a restart must read."""
        positions = dict(self._next)
        for standing in self._standing.values():
            if standing.offset is not None and not standing.is_claimable:
                positions[standing.partition] = min(positions[standing.partition], standing.offset)
        return positions

    # -- what is told

    def _offer(self, ruling: Ruling) -> bytes:
        offer, received = ruling.liquidation, ruling.received
        assert offer is not None
        self._lapsed.pop(offer.liquidation_id, None)
        offset = None if received.stands else received.offset
        standing = _Standing(offer, received.partition, offset, received.timestamp_ms)
        self._standing[offer.liquidation_id] = standing
        kind, share = "offer", {}
        if ruling.action is Action.CLAIM:
            kind, standing.is_claimable = "claimable", True
        elif (claim := self._book.own_claim(offer)) is not None:
            standing.offer = share_of(offer, claim)
            share = {"legs": standing.offer.legs, "token": claim.token}
        if received.stands:
            return _told_standing(kind, offer, received, share)
        return _told(kind, received, share)

    def _end(self, ruling: Ruling) -> bytes:
        assert ruling.liquidation is not None
        self._lapse(ruling.liquidation.liquidation_id, Reason.ENDED)
        return _told("end", ruling.received, {})

    def _withdrawn(self, rulings: Sequence[Ruling]) -> list[bytes]:
        """Return a line for each offer that fell without another or an end in its place."""
        whys = {
            (r.liquidation.account_id, r.liquidation.subaccount): r.reason
            for r in rulings
            if r.liquidation is not None and r.action is Action.IGNORE
        }
        lines = []
        for case, standing in list(self._standing.items()):
            offer = standing.offer
            reason = self._book.why_not_now(offer, standing.partition)
            if reason is None:
                continue
            why = whys.get((offer.account_id, offer.subaccount), reason)
            reason = why if reason is Reason.SUPERSEDED else reason
            self._lapse(case, reason)
            line = {"type": "withdrawn", "liquidation_id": case, "revision": offer.revision}
            lines.append(encode({**line, "reason": str(reason)}))
        return lines

    def _lapse(self, case: str, reason: str) -> None:
        self._standing.pop(case, None)
        keep_last(self._lapsed, case, str(reason), _MAX_LAPSED)

    # -- what is heard

    def _hear(self, line: bytes) -> list[Fill]:
        try:
            answer = _answer.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _Refusal(str(error), reason="unreadable") from None
        standing = self._standing_for(answer.liquidation_id, answer.revision)
        offer = standing.offer
        if isinstance(answer, _PassLine):
            self._lapse(answer.liquidation_id, "answered")
            self._tally.answered("passed", standing.timestamp_ms)
            token = None if standing.is_claimable else token_of(offer)
            if token is not None and self._claimant is not None and not standing.filled:
                self._reports.append(self._claimant.release(offer, token))
            return []
        if self._book.is_silent(standing.partition):
            detail = f"{offer.liquidation_id}: partition {standing.partition} is silent"
            raise _Refusal(detail, reason=Reason.STALE_HEARTBEAT)
        if isinstance(answer, _ClaimLine):
            self._claim(standing, answer.share_ppm)
            return []
        if standing.is_claimable:
            detail = f"{offer.liquidation_id}: claim a share of it first"
            raise _Refusal(detail, reason="unclaimed")
        if answer.market in standing.filled:
            detail = f"{offer.liquidation_id} revision {offer.revision}: {answer.market} is filled"
            raise _Refusal(detail, reason="already_filled")
        fill = fill_of(offer, answer.market, size=answer.size, price=answer.price, fee=answer.fee)
        if answer.side is not None and answer.side != fill.side:
            detail = (
                f"{offer.liquidation_id} {fill.market}: {answer.side!r}, offered is {fill.side}"
            )
            raise _Refusal(detail, reason="not_allowed")
        check_steps(fill, self._steps)
        standing.filled.add(fill.market)
        if standing.filled == {leg.market for leg in offer.legs} and not offer.swaps:
            self._lapse(offer.liquidation_id, "answered")
        self._tally.answered("filled", standing.timestamp_ms)
        return [fill]

    def _claim(self, standing: _Standing, share_ppm: int | None) -> None:
        offer = standing.offer
        if not standing.is_claimable or self._claimant is None:
            detail = f"{offer.liquidation_id}: there is nothing to claim"
            raise _Refusal(detail, reason="not_claimable")
        report = self._claimant.claim(offer, share_ppm)
        self._book.claimed(report.report_id)
        self._reports.append(report)
        self._lapse(offer.liquidation_id, "answered")
        self._tally.answered("claimed", standing.timestamp_ms)

    def _standing_for(self, case: str, revision: int | None) -> _Standing:
        standing = self._standing.get(case)
        if standing is None:
            reason = self._lapsed.get(case, "unknown_case")
            detail = f"no offer of {case} stands"
            raise _Refusal(detail, reason=reason)
        offer = standing.offer
        if revision is not None and revision != offer.revision:
            detail = f"{case}: revision {revision}, offered is {offer.revision}"
            raise _Refusal(detail, reason=Reason.SUPERSEDED)
        if (why := self._book.why_not_now(offer, standing.partition)) is not None:
            detail = f"{case} revision {offer.revision} stands no more"
            raise _Refusal(detail, reason=why)
        return standing


def _told(kind: str, received: Received, share: Mapping[str, Any]) -> bytes:
    """Return an event as a line: as it lay, fields unknown to us too, with its place.

    `share` says of an offer what differs for us.
    """
    place = {"type": kind, "partition": received.partition, "offset": received.offset}
    event = _without(orjson.loads(received.value), place)
    return encode(place | event | msgspec.to_builtins(share))


def _told_standing(
    kind: str, offer: Offered, received: Received, share: Mapping[str, Any]
) -> bytes:
    """Return a case that stands as a line: what its id tells is told as events tell it."""
    place = {"type": kind, "partition": received.partition}
    names = {
        "account_id": offer.account_id,
        "subaccount": offer.subaccount,
        "episode": offer.episode,
    }
    event = _without(orjson.loads(received.value), place | {"kind": "case"})
    return encode(place | event | names | msgspec.to_builtins(share))


def _without(event: dict[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in taken}
