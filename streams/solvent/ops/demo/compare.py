"""The same day judged under several rulebooks, offline, and what each of them asked for.

Every rulebook gets the same records: what the accounts deposited and traded at the start, and the
prices. Nobody acts on an offer, so fills of a live run's executor are no part of it, whatever the
rulebook: positions stay as they were opened, a case stays open until its unit recovers by itself,
and units go bankrupt that an executor would have closed in time. What differs between two tables
differs because of the rules alone.

Amounts are floats of the settlement currency, for people. Times are event time in microseconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from solvent.engine.replay import ReplayedSlice
from solvent.errors import ConfigError
from solvent.ops.replay import ReplayOptions, Source, replay
from solvent.rules import CompiledRulebook
from solvent.units import PPM
from solvent.wire.outputs import (
    Liquidation,
    MarginStatus,
    decode_liquidation,
    decode_margin_status,
)
from solvent.wire.topics import LIQUIDATIONS, MARGIN_STATUS

__all__ = ["STEP_US", "JudgedDay", "check_plays", "judge_day", "table_of"]

#: Width of the times a day is told by.
STEP_US: Final = 15 * 60 * 1_000_000
_SLICE_RECORDS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedDay:
    """What one rulebook made of the day; no offer was taken.

    Attributes
    ----------
    rulebook : dict
        ``id``, ``version`` and ``hash``.
    accounts : int
        How many were judged.
    margin_call_accounts, liquidated_accounts, bankrupt_accounts : int
        Accounts of which a book was called, was offered, was found bankrupt in an offer.
    liquidations, offers : int
        Cases opened, and all revisions that ask for trades, the first ones included.
    offered_notional : float
        Per book the most that was asked for at once, at the marks of the offer, summed.
    equity_at_first_ppm : int
        Equity left in the books when each was first offered, of the notional they then held: the
        later rules act, the less is left.
    bad_debt : float
        The most each bankrupt book owed in any offer, summed.
    first_us, worst_us : int or None
        The first offer; the quarter of an hour in which most notional was newly offered.
    worst_notional : float
        How much that was.
    curve : tuple of (int, float)
        Notional offered before the end of each quarter of an hour with new offers.
    """

    rulebook: dict[str, str | int]
    accounts: int
    margin_call_accounts: int
    liquidated_accounts: int
    liquidations: int
    offers: int
    offered_notional: float
    bankrupt_accounts: int
    equity_at_first_ppm: int
    bad_debt: float
    first_us: int | None
    worst_us: int | None
    worst_notional: float
    curve: tuple[tuple[int, float], ...]
    seconds: float

    @property
    def name(self) -> str:
        """The rulebook's name and version, for people."""
        return f"{self.rulebook['id']} version {self.rulebook['version']}"

    def as_json(self) -> dict[str, Any]:
        """Return all but the curve as JSON data, amounts as decimal texts."""
        return {
            "rulebook": self.rulebook,
            "accounts": self.accounts,
            "margin_call_accounts": self.margin_call_accounts,
            "liquidated_accounts": self.liquidated_accounts,
            "liquidations": self.liquidations,
            "offers": self.offers,
            "offered_notional": f"{self.offered_notional:.2f}",
            "bankrupt_accounts": self.bankrupt_accounts,
            "bad_debt": f"{self.bad_debt:.2f}",
            "equity_at_first_offer_ppm": self.equity_at_first_ppm,
            "first_offer_us": self.first_us,
            "worst_quarter_us": self.worst_us,
            "worst_quarter_notional": f"{self.worst_notional:.2f}",
            "seconds": round(self.seconds, 2),
        }


@dataclass(slots=True)
class _Unit:
    """What offers said of one margin unit."""

    most_offered: float = 0.0
    most_owed: float = 0.0
    equity_at_first: float = 0.0
    notional_at_first: float = 0.0


@dataclass(slots=True)
class _Told:
    """What one margin partition told, in the order told."""

    called: set[str] = field(default_factory=set)
    units: dict[tuple[str, str], _Unit] = field(default_factory=dict)
    bankrupt: set[str] = field(default_factory=set)
    offers: int = 0
    newly: Counter[int] = field(default_factory=Counter)  # USD by begin of the quarter of an hour
    cases: int = 0
    first_us: int | None = None

    def take(self, brought: ReplayedSlice) -> None:
        """Take what a slice brought."""
        for emit in brought.outputs.records:
            if emit.topic == LIQUIDATIONS:
                self._take_liquidation(decode_liquidation(emit.value or b""))
            elif emit.topic == MARGIN_STATUS:
                self._take_status(decode_margin_status(emit.value or b""))

    def _take_status(self, event: MarginStatus) -> None:
        if event.status == "margin_call":
            self.called.add(event.account_id)

    def _take_liquidation(self, event: Liquidation) -> None:
        self.cases += event.revision == 1
        if not event.is_offer:
            return
        if event.verdict == "bankrupt":
            self.bankrupt.add(event.account_id)
        if not (event.legs or event.swaps):
            return  # all is withheld until later: nothing is asked for yet
        self.offers += 1
        if self.first_us is None:
            self.first_us = event.ts_us
        owed = max(0.0, -float(event.raw_equity))
        unit = self.units.get((event.account_id, event.subaccount))
        if unit is None:
            unit = _Unit(
                equity_at_first=float(event.raw_equity),
                notional_at_first=sum(
                    abs(float(held.size)) * float(held.mark_price or 0) for held in event.positions
                ),
            )
            self.units[event.account_id, event.subaccount] = unit
        unit.most_owed = max(unit.most_owed, owed)
        notional = sum(float(leg.size) * float(leg.mark_price) for leg in event.legs)
        if notional > unit.most_offered:
            quarter_us = event.ts_us // STEP_US * STEP_US
            self.newly[quarter_us] += notional - unit.most_offered  # type: ignore[assignment]
            unit.most_offered = notional


def judge_day(
    sources: Sequence[Source],
    rulebook: CompiledRulebook,
    *,
    accounts: int,
    partitions: int,
    is_stopped: Callable[[], bool] = lambda: False,
) -> JudgedDay:
    """Fold inputs by event time under a rulebook and count what it told.

    Parameters
    ----------
    sources : sequence of Source
        The day, as `solvent.ops.replay.replay` takes it; read from the start again.
    rulebook : CompiledRulebook
        Judges it.
    accounts : int
        How many there are in it; only told.
    partitions : int
        Folded at the same time; they change no figure.
    is_stopped : callable
        Asked from time to time whether to end there.
    """
    began = time.monotonic()
    told = [_Told() for _ in range(partitions)]

    def tell(agent: str, partition: int, brought: ReplayedSlice) -> None:
        if agent == "margin":
            told[partition].take(brought)

    options = ReplayOptions(partitions=partitions, slice_records=_SLICE_RECORDS)
    replay(sources, rulebook, options, is_stopped=is_stopped, tell=tell)
    units = {place: unit for part in told for place, unit in part.units.items()}
    newly: Counter[int] = Counter()
    for part in told:
        newly.update(part.newly)
    curve, total = [], 0.0
    for quarter_us in sorted(newly):
        total += newly[quarter_us]
        curve.append((quarter_us + STEP_US, total))
    worst_us = max(newly, key=lambda us: (newly[us], -us), default=None)
    return JudgedDay(
        rulebook=rulebook.reference,
        accounts=accounts,
        margin_call_accounts=sum(len(part.called) for part in told),
        liquidated_accounts=len({account_id for account_id, _ in units}),
        liquidations=sum(part.cases for part in told),
        offers=sum(part.offers for part in told),
        offered_notional=total,
        bankrupt_accounts=sum(len(part.bankrupt) for part in told),
        equity_at_first_ppm=_share_ppm(
            sum(unit.equity_at_first for unit in units.values()),
            sum(unit.notional_at_first for unit in units.values()),
        ),
        bad_debt=sum(unit.most_owed for unit in units.values()),
        first_us=min((part.first_us for part in told if part.first_us is not None), default=None),
        worst_us=worst_us,
        worst_notional=newly[worst_us] if worst_us is not None else 0.0,
        curve=tuple(curve),
        seconds=time.monotonic() - began,
    )


def _share_ppm(part: float, whole: float) -> int:
    return round(part / whole * PPM) if whole else 0


def check_plays(rulebook: CompiledRulebook, played: CompiledRulebook) -> None:
    """Refuse a rulebook that cannot judge records made for another.

    Raises
    ------
    ConfigError
        [SLV-442] It lacks feeds, assets or markets of the other, or has them in other steps.
    """
    faults = [
        *_faults("feed", played.feed_by_name, rulebook.feed_by_name, lambda feed: (feed.kind,)),
        *_faults(
            "asset",
            played.asset_by_name,
            rulebook.asset_by_name,
            lambda asset: (asset.quantum_exponent, asset.index_feed is None),
        ),
        *_faults(
            "market",
            played.instrument_by_name,
            rulebook.instrument_by_name,
            lambda market: (market.kind, market.lot, market.tick),
        ),
    ]
    for what, own, other in (
        ("index feed of asset", _index_feeds(rulebook), _index_feeds(played)),
        ("mark feed of market", _mark_feeds(rulebook), _mark_feeds(played)),
    ):
        wrong = [name for name in other if name in own and own[name] != other[name]]
        if wrong:
            faults.append(f"has another {what} {', '.join(wrong)}")
    if faults:
        msg = (
            f"rulebook {rulebook.id} cannot judge what {played.id} plays: it {'; it '.join(faults)}"
        )
        raise ConfigError(msg, code="SLV-442")


def _faults(
    noun: str,
    needed: Any,  # noqa: ANN401 - a mapping of feeds, of assets or of instruments
    given: Any,  # noqa: ANN401
    steps_of: Callable[[Any], object],
) -> Iterable[str]:
    missing = [name for name in needed if name not in given]
    if missing:
        yield f"lacks {noun}{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    others = [n for n in needed if n in given and steps_of(needed[n]) != steps_of(given[n])]
    if others:
        yield f"has other steps or another kind of {noun} {', '.join(others)}"


def _index_feeds(rulebook: CompiledRulebook) -> dict[str, str]:
    return {
        asset.name: rulebook.feeds[asset.index_feed].name
        for asset in rulebook.assets
        if asset.index_feed is not None
    }


def _mark_feeds(rulebook: CompiledRulebook) -> dict[str, str]:
    return {
        market.name: rulebook.feeds[market.mark_feed].name
        for market in rulebook.instruments
        if market.kind == "linear"
    }


def table_of(days: Sequence[JudgedDay]) -> list[tuple[str, ...]]:
    """Return a heading and rows for people: what, and what it is under each rulebook."""
    return [
        ("rulebook", *(day.name for day in days)),
        ("accounts judged", *(f"{day.accounts:,}" for day in days)),
        ("accounts called for margin", *(f"{day.margin_call_accounts:,}" for day in days)),
        ("liquidated accounts", *(f"{day.liquidated_accounts:,}" for day in days)),
        ("liquidations opened", *(f"{day.liquidations:,}" for day in days)),
        ("offers, revisions included", *(f"{day.offers:,}" for day in days)),
        ("notional offered, USDC", *(f"{day.offered_notional:,.0f}" for day in days)),
        (
            "equity left at the first offer",
            *(f"{day.equity_at_first_ppm / PPM:.2%} of positions" for day in days),
        ),
        ("bankrupt accounts", *(f"{day.bankrupt_accounts:,}" for day in days)),
        ("bad debt, USDC", *(f"{day.bad_debt:,.0f}" for day in days)),
        ("first offer, UTC", *(_moment(day.first_us) for day in days)),
        ("worst quarter of an hour", *(_moment(day.worst_us) for day in days)),
        ("notional first offered in it", *(f"{day.worst_notional:,.0f}" for day in days)),
    ]


def _moment(ts_us: int | None) -> str:
    if ts_us is None:
        return "-"
    return datetime.fromtimestamp(ts_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M")
