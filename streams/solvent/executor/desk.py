"""Decides a batch: the book's rulings, then the strategy's answers. Knows nothing of Kafka."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from solvent.errors import ContractError
from solvent.executor.book import Action, Book, Offered, Reason, Received
from solvent.executor.claims import Claimant, share_of, token_of
from solvent.executor.fills import Fill, Steps, check_steps, fill_of
from solvent.executor.strategy import Benign, Offer, Strategy, pick_order
from solvent.executor.tally import Tally
from solvent.wire.reports import Report

__all__ = ["Desk"]


@dataclass(slots=True)
class Desk:
    """One executor's book, strategy and counts.

    Attributes
    ----------
    book : Book
        What is known.
    strategy : Strategy
        Asked about each live offer, one after the other.
    steps : Steps
        Of the pipeline's rulebook: fills must be on them.
    tally : Tally
        Counts what became of it all.
    seed, window
        Of the order in which live offers of a batch are tried: `pick_order`.
    claimant : Claimant or None
        Claims leased offers; without one they are left alone.
    """

    book: Book
    strategy: Strategy
    steps: Steps
    tally: Tally
    seed: str = ""
    window: int = 1
    claimant: Claimant | None = None
    _reports: list[Report] = field(default_factory=list)

    async def decide(self, batch: Sequence[Received], silent: Collection[int] = ()) -> list[Fill]:
        """Return the fills that answer a batch; raises what the strategy raises, unless benign.

        What is to be reported beside them `take_reports` returns.

        Parameters
        ----------
        batch : sequence of Received
            What was read.
        silent : collection of int
            Partitions nothing was heard from for too long.
        """
        self.book.listen(silent)
        rulings = [*self.book.take(batch), *self.book.release()]
        self.tally.ruled(rulings, self.book)
        for ruling in rulings:
            if ruling.action is Action.CLAIM and ruling.liquidation is not None:
                self._claim(ruling.liquidation, ruling.received.timestamp_ms)
        offers = [
            Offer(
                self._share(r.liquidation),
                r.received.partition,
                r.received.offset,
                r.received.timestamp_ms,
            )
            for r in rulings
            if r.action is Action.ACT and r.liquidation is not None
        ]
        fills: list[Fill] = []
        for offer in pick_order(offers, _name_of, seed=self.seed, window=self.window):
            fills += await self._answer(offer)
        return fills

    def take_reports(self) -> list[Report]:
        """Return the reports to be written with the fills, once."""
        reports, self._reports = self._reports, []
        return reports

    def _claim(self, offer: Offered, timestamp_ms: int) -> None:
        if self.claimant is not None and self.claimant.is_wanted(offer):
            report = self.claimant.claim(offer)
            self.book.claimed(report.report_id)
            self._reports.append(report)
            self.tally.answered("claimed", timestamp_ms)

    def _share(self, offer: Offered) -> Offered:
        """Return what of an offer is ours to fill: all of it, under a lease what we claimed."""
        claim = self.book.own_claim(offer)
        return offer if claim is None else share_of(offer, claim)

    async def _answer(self, offer: Offer) -> list[Fill]:
        outcome, fills = "passed", []
        try:
            decision = await self.strategy(offer)
            if decision is not None and decision.fills:
                outcome, fills = "filled", self._checked(offer, decision.fills)
        except Benign as error:
            outcome = error.reason
            self.tally.log.info("offer_left", **_where(offer), reason=outcome, detail=str(error))
        except ContractError as error:
            outcome = str(Reason.NOT_UNDERSTOOD)
            self.tally.log.warning("offer_left", **_where(offer), reason=outcome, detail=str(error))
        self.tally.answered(outcome, offer.timestamp_ms)
        token = token_of(offer.liquidation)
        if token is not None and not fills and self.claimant is not None:
            self._reports.append(self.claimant.release(offer.liquidation, token))
            self.tally.answered("released")
        return fills

    def _checked(self, offer: Offer, fills: Sequence[Fill]) -> list[Fill]:
        """Return the fills, each what the offer allows, on its steps and alone in its market."""
        checked: dict[str, Fill] = {}
        for fill in fills:
            allowed = fill_of(
                offer.liquidation,
                fill.market,
                size=fill.size,
                price=fill.price,
                fee=fill.fee,
                ts_us=fill.ts_us,
            )
            if fill != allowed or fill.market in checked:
                msg = (
                    f"fill {fill.trade_id}: not the one fill of {fill.market} in {_name_of(offer)}"
                )
                raise ContractError(msg)
            check_steps(fill, self.steps)
            checked[fill.market] = fill
        return list(checked.values())


def _name_of(offer: Offer) -> str:
    return f"{offer.liquidation.liquidation_id}:{offer.liquidation.revision}"


def _where(offer: Offer) -> dict[str, Any]:
    event = offer.liquidation
    return {"liquidation_id": event.liquidation_id, "revision": event.revision}
