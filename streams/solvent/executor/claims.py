"""An executor's claims on leased offers: what is free of one, what a claim is to fill, reports.

Pure, as the book. A claim is ours if the report that claimed is: another program may use our name.
Sizes are coins as decimal text, shares ppm, times microseconds of stream time.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from solvent.units import PPM, parse_scaled
from solvent.wire.outputs import Liquidation, StandingCase, StandingClaim
from solvent.wire.reports import ClaimReport, ReleaseReport

__all__ = ["Claimant", "is_free", "own_claim", "share_of", "token_of"]

_FINEST: Final = -18
#: Cases declined that are remembered; the oldest are forgotten.
_MAX_DECLINED: Final = 10_000
#: Revisions that claims alone brought about: they say nothing new of what is offered.
_OF_CLAIMS: Final = frozenset({"claim", "released", "repriced"})

Offered = Liquidation | StandingCase


def own_claim(offer: Offered, reports: Collection[str]) -> StandingClaim | None:
    """Return the newest claim on an offer that one of our reports made."""
    ours = [claim for claim in offer.claims if claim.report_id in reports]
    return max(ours, key=lambda claim: claim.token, default=None)


def is_free(offer: Offered, executor_id: str, *, is_start: bool) -> bool:
    """Return whether an executor may claim something of a leased offer, on which it has no claim.

    A claim under its name is another program's, which it leaves alone; but of what stands at the
    start it is one of its former life, which a new one fences.
    """
    others = offer.claims
    if is_start:
        others = [claim for claim in others if claim.executor_id != executor_id]
    if any(claim.executor_id == executor_id for claim in others):
        return False
    taken: dict[str, int] = {}
    for claim in others:
        for part in claim.sizes:
            taken[part.market] = taken.get(part.market, 0) + parse_scaled(part.size, _FINEST)
    return any(parse_scaled(leg.size, _FINEST) > taken.get(leg.market, 0) for leg in offer.legs)


def share_of(offer: Offered, claim: StandingClaim) -> Offered:
    """Return an offer as one of its claims may fill it: with that claim alone, and its sizes."""
    sizes = {part.market: part.size for part in claim.sizes}
    legs = [
        msgspec.structs.replace(leg, size=sizes[leg.market])
        for leg in offer.legs
        if leg.market in sizes
    ]
    narrowed: Offered = msgspec.structs.replace(offer, legs=legs, claims=[claim])
    return narrowed


def token_of(offer: Offered) -> int | None:
    """Return the token that fills of an offer need, as `share_of` left it; None without a lease."""
    return offer.claims[0].token if offer.lease is not None and offer.claims else None


class Claimant:
    """Writer of one executor's reports.

    Parameters
    ----------
    executor_id : str
        What the executor is called.
    life : str
        Its own in every life of every program, at most 40 characters of an identifier: reports of
        two under one name can be told apart.
    share_ppm : int
        What to ask for of an offer.
    """

    def __init__(self, executor_id: str, life: str, share_ppm: int = PPM) -> None:
        self.executor_id = executor_id
        self._life = life
        self._share_ppm = share_ppm
        self._count = 0
        self._declined: dict[str, None] = {}  # in the order they were

    def claim(self, offer: Offered, share_ppm: int | None = None) -> ClaimReport:
        """Return the claim on an offer, of the share asked for unless another is given."""
        return ClaimReport(
            schema_version=1,
            report_id=self._next_id(),
            account_id=offer.account_id,
            liquidation_id=offer.liquidation_id,
            executor_id=self.executor_id,
            ts_us=offer.ts_us,
            revision=offer.revision,
            share_ppm=self._share_ppm if share_ppm is None else share_ppm,
        )

    def release(self, offer: Offered, token: int) -> ReleaseReport:
        """Return what gives a claim back; its case is not claimed again for other claims' sake."""
        self._declined[offer.liquidation_id] = None
        if len(self._declined) > _MAX_DECLINED:
            del self._declined[next(iter(self._declined))]
        return ReleaseReport(
            schema_version=1,
            report_id=self._next_id(),
            account_id=offer.account_id,
            liquidation_id=offer.liquidation_id,
            executor_id=self.executor_id,
            ts_us=offer.ts_us,
            token=token,
        )

    def is_wanted(self, offer: Offered) -> bool:
        """Return whether to claim of an offer: not if it was declined and only claims changed."""
        if offer.reason not in _OF_CLAIMS:
            self._declined.pop(offer.liquidation_id, None)
        return offer.liquidation_id not in self._declined

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._life}.{self._count}"
