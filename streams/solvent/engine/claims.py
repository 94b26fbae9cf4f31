"""Claims on offers: under a lease a fill counts only for who holds a share of the offer.

An executor claims a share of the newest revision. The claim gets the next token of its case, lots
in each market and a time until which it stands:

- Lots are the share asked for, at most ``max_share_ppm``, of each order, rounded up to whole lots,
  but never more than other claims leave. What a fill takes it takes from its claim too; one without
  lots is used up and gone.
- A claim stands for ``duration_us`` of event time. Its revision expires with the first claim, so
  the case is looked at again then, and what the claim held is free.
- A renewed offer keeps the claims that stand. If it has fewer lots than they hold, the newest gives
  way first; what it has more is free.
- Another claim of the same executor fences the first: token and lots are gone. Two programs under
  one name cannot both fill.
- An executor that claims and does not fill is refused after ``claims_per_executor`` claims in a
  row; a fill that counts begins anew. A case remembers `MOST_EXECUTORS` of these executors, and
  refuses others beyond.
- A suspension, a dry run, a rulebook without a lease and the end of the case end all claims. No
  token comes twice in a case.

Sizes are lots, shares ppm, times microseconds of stream time; `Orders` are those of
`solvent.engine.cases`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from solvent.domain.instrument import Instrument
from solvent.domain.schedule import Lease
from solvent.errors import RejectCode
from solvent.units import PPM
from solvent.wire.outputs import RowClaims, encode

__all__ = ["MOST_EXECUTORS", "Asked", "Claim", "Claims", "Refused"]

#: Executors with unused claims that a case remembers.
MOST_EXECUTORS: Final = 64

_Orders = Sequence[tuple[int, int, int, int]]
#: A reject's code, and what is wrong.
Refused = tuple[RejectCode, str]


class Claim(NamedTuple):
    """A claim that stands; ``sizes`` are instrument and lots (> 0), ascending by instrument."""

    token: int
    executor_id: str
    report_id: str
    share_ppm: int
    expires_us: int
    sizes: tuple[tuple[int, int], ...]

    def lots(self, instrument: int) -> int:
        """Return what it has left in a market."""
        return dict(self.sizes).get(instrument, 0)


class Asked(NamedTuple):
    """A claim to be granted with the revision being made; it stands until ``expires_us``."""

    executor_id: str
    report_id: str
    share_ppm: int
    expires_us: int


@dataclass(slots=True)
class Claims:
    """The claims of one case, and what executors reported of it.

    Attributes
    ----------
    standing : tuple of Claim
        Ascending by token.
    tokens : int
        How many were given; the last is the newest.
    unused : dict of str to int
        Claims of an executor since its last fill that counted.
    reports : dict of str to int
        Reports taken note of, by kind.
    """

    standing: tuple[Claim, ...] = ()
    tokens: int = 0
    unused: dict[str, int] = field(default_factory=dict)
    reports: dict[str, int] = field(default_factory=dict)

    # -- who may claim

    def refusal(
        self, executor_id: str, orders: _Orders, now_us: int, lease: Lease
    ) -> Refused | None:
        """Return why an executor may not claim of an offer, None if it may."""
        count = self.unused.get(executor_id, 0)
        if count >= lease.claims_per_executor:
            what = f"{count} claims of {executor_id} without a fill: at most that many"
            return RejectCode.CLAIMS_UNUSED, what
        if executor_id not in self.unused and len(self.unused) >= MOST_EXECUTORS:
            what = f"{MOST_EXECUTORS} other executors claimed without a fill: no more are taken"
            return RejectCode.CLAIMS_UNUSED, what
        others = [
            c for c in self.standing if c.executor_id != executor_id and c.expires_us > now_us
        ]
        if not any(_free(order, others) for order in orders):
            return RejectCode.NOTHING_TO_CLAIM, "all of the offer is claimed"
        return None

    def fence(self, executor_id: str) -> None:
        """End what an executor holds: it claims anew."""
        self.standing = tuple([c for c in self.standing if c.executor_id != executor_id])

    def release(self, token: int, executor_id: str) -> bool:
        """End a claim that its executor gives back; False if it has none of this token."""
        kept = tuple([c for c in self.standing if (c.token, c.executor_id) != (token, executor_id)])
        is_found = len(kept) < len(self.standing)
        self.standing = kept
        return is_found

    # -- with each revision

    def lapse(self, now_us: int, lease: Lease | None) -> None:
        """End the claims whose time has come; all where nothing is leased."""
        self.standing = tuple([c for c in self.standing if lease and c.expires_us > now_us])

    def first_expiry(self, expires_us: int) -> int:
        """Return when an offer that would expire then is to be looked at again."""
        return min([expires_us, *(claim.expires_us for claim in self.standing)])

    def refit(self, orders: _Orders) -> None:
        """Cut claims to what is offered now, the newest first."""
        left = {index: abs(lots) for index, lots, _, _ in orders}
        kept = []
        for claim in self.standing:
            sizes = []
            for index, lots in claim.sizes:
                taken = min(lots, left.get(index, 0))
                if taken:
                    left[index] -= taken
                    sizes.append((index, taken))
            if sizes:
                kept.append(claim._replace(sizes=tuple(sizes)))
        self.standing = tuple(kept)

    def grant(self, asked: Asked, orders: _Orders, lease: Lease) -> bool:
        """Give a claim its token and lots of the offer; False if nothing of it is free."""
        share_ppm = min(asked.share_ppm, lease.max_share_ppm)
        sizes = []
        for order in sorted(orders):
            lots = min(_free(order, self.standing), -(-abs(order[1]) * share_ppm // PPM))
            if lots:
                sizes.append((order[0], lots))
        if not sizes:
            return False
        self.tokens += 1
        self.unused[asked.executor_id] = self.unused.get(asked.executor_id, 0) + 1
        claim = Claim(
            self.tokens,
            asked.executor_id,
            asked.report_id,
            share_ppm,
            asked.expires_us,
            tuple(sizes),
        )
        self.standing = (*self.standing, claim)
        return True

    # -- fills

    def fault(self, token: int | None, ts_us: int) -> Refused | None:
        """Return why a fill does not count whatever it is for, None if its claim stands."""
        if token is None:
            return RejectCode.UNCLAIMED_FILL, "without `claim_token`: the offer is leased"
        claim = self._of(token)
        if claim is None:
            return RejectCode.FENCED_FILL, f"by `claim_token` {token}: no such claim stands"
        if ts_us > claim.expires_us:
            what = f"by `claim_token` {token} at {ts_us}: it stood until {claim.expires_us}"
            return RejectCode.FENCED_FILL, what
        return None

    def excess(self, token: int | None, instrument: int, lots: int) -> Refused | None:
        """Return why a fill under a claim that stands is too large for it, None if it is not."""
        claim = None if token is None else self._of(token)
        left = 0 if claim is None else claim.lots(instrument)
        if lots <= left:
            return None
        return RejectCode.OVER_CLAIM_FILL, f"{lots} lots: `claim_token` {token} has {left}"

    def take(self, token: int | None, instrument: int, lots: int) -> None:
        """Count a fill without fault for its claim."""
        kept = []
        for claim in self.standing:
            if claim.token == token:
                self.unused.pop(claim.executor_id, None)
                left = [(i, n - lots if i == instrument else n) for i, n in claim.sizes]
                claim = claim._replace(sizes=tuple([(i, n) for i, n in left if n]))
            if claim.sizes:
                kept.append(claim)
        self.standing = tuple(kept)

    def _of(self, token: int) -> Claim | None:
        return next((claim for claim in self.standing if claim.token == token), None)

    # -- reports

    def note(self, kind: str) -> None:
        """Count a report that asks for nothing."""
        self.reports[kind] = self.reports.get(kind, 0) + 1

    # -- told and kept

    def text(self, instruments: Sequence[Instrument]) -> str:
        """Return the claims that stand as a member of an event."""
        told = [
            {
                "token": claim.token,
                "executor_id": claim.executor_id,
                "report_id": claim.report_id,
                "share_ppm": claim.share_ppm,
                "expires_us": claim.expires_us,
                "sizes": [
                    {"market": instruments[i].name, "size": instruments[i].lot.format(lots)}
                    for i, lots in claim.sizes
                ],
            }
            for claim in self.standing
        ]
        return f'"claims":{encode(told).decode()},' if told else ""

    def row(self) -> Mapping[str, Any]:
        """Return what a case's row has of it."""
        content = {
            "standing": [(*claim[:-1], claim.sizes) for claim in self.standing],
            "tokens": self.tokens,
            "unused": dict(sorted(self.unused.items())),
            "reports": dict(sorted(self.reports.items())),
        }
        return {name: value for name, value in content.items() if value}

    @classmethod
    def of(cls, row: RowClaims) -> Claims:
        """Return what a row was made of."""
        standing = tuple([Claim(*claim) for claim in row.standing])
        return cls(standing, row.tokens, dict(row.unused), dict(row.reports))


def _free(order: tuple[int, int, int, int], claims: Sequence[Claim]) -> int:
    """Return what of an order nobody has claimed, lots."""
    return max(0, abs(order[1]) - sum(claim.lots(order[0]) for claim in claims))
