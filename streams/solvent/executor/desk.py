"""Decides a batch: the book's rulings, the strategy's answers, and counts of what became of them.

Knows nothing of Kafka. Counts are by reason (`solvent.executor.book.Reason`); offers that were live
are counted once more by what the strategy did: ``filled``, ``passed``, the reason of a `Benign`, or
``not_understood``, where offer or fill contradict the rulebook. ``gaps`` counts missed events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from solvent.errors import ContractError
from solvent.executor.book import Action, Book, Reason, Received, Ruling
from solvent.executor.fills import Fill, Steps, check_steps, fill_of
from solvent.executor.strategy import Benign, Offer, Strategy, pick_order

__all__ = ["Desk", "count_rulings"]


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
    log : Any
        Structured logger.
    seed, window
        Of the order in which live offers of a batch are tried: `pick_order`.
    """

    book: Book
    strategy: Strategy
    steps: Steps
    log: Any
    seed: str = ""
    window: int = 1
    counts: dict[str, int] = field(default_factory=dict)

    async def decide(self, batch: Sequence[Received]) -> list[Fill]:
        """Return the fills that answer a batch; raises what the strategy raises, unless benign."""
        rulings = self.book.take(batch)
        count_rulings(rulings, self.counts, self.book, self.log)
        offers = [
            Offer(r.liquidation, r.received.partition, r.received.offset, r.received.timestamp_ms)
            for r in rulings
            if r.action is Action.ACT and r.liquidation is not None
        ]
        fills: list[Fill] = []
        for offer in pick_order(offers, _name_of, seed=self.seed, window=self.window):
            fills += await self._answer(offer)
        return fills

    async def _answer(self, offer: Offer) -> list[Fill]:
        outcome, fills = "passed", []
        try:
            decision = await self.strategy(offer)
            if decision is not None and decision.fills:
                outcome, fills = "filled", self._checked(offer, decision.fills)
        except Benign as error:
            outcome = error.reason
            self.log.info("offer_left", **_where(offer), reason=outcome, detail=str(error))
        except ContractError as error:
            outcome = str(Reason.NOT_UNDERSTOOD)
            self.log.warning("offer_left", **_where(offer), reason=outcome, detail=str(error))
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        return fills

    def _checked(self, offer: Offer, fills: Sequence[Fill]) -> list[Fill]:
        """Return the fills, each what the offer allows, on its steps and alone in its market."""
        checked: dict[str, Fill] = {}
        for fill in fills:
            allowed = fill_of(
                offer.liquidation, fill.market, size=fill.size, price=fill.price, fee=fill.fee
            )
            if fill != allowed or fill.market in checked:
                msg = (
                    f"fill {fill.trade_id}: not the one fill of {fill.market} in {_name_of(offer)}"
                )
                raise ContractError(msg)
            check_steps(fill, self.steps)
            checked[fill.market] = fill
        return list(checked.values())


def count_rulings(rulings: Sequence[Ruling], counts: dict[str, int], book: Book, log: Any) -> None:
    """Count rulings by reason, and say aloud what should not be."""
    for ruling in rulings:
        counts[ruling.reason] = counts.get(ruling.reason, 0) + 1
        received = ruling.received
        where: dict[str, Any] = {"partition": received.partition, "offset": received.offset}
        event = ruling.liquidation
        if event is not None:
            where |= {"liquidation_id": event.liquidation_id, "revision": event.revision}
        if ruling.reason is Reason.CONFLICT:
            log.error("liquidation_conflict", **where)
        elif ruling.reason is Reason.NOT_UNDERSTOOD:
            log.warning("liquidation_unreadable", **where, reason=ruling.detail)
        elif ruling.reason in {Reason.GAP, Reason.UNKNOWN_WORD, Reason.STALE_EPISODE}:
            log.warning("liquidation_odd", **where, reason=str(ruling.reason), detail=ruling.detail)
    if book.gaps:
        counts["gaps"] = book.gaps


def _name_of(offer: Offer) -> str:
    return f"{offer.liquidation.liquidation_id}:{offer.liquidation.revision}"


def _where(offer: Offer) -> dict[str, Any]:
    event = offer.liquidation
    return {"liquidation_id": event.liquidation_id, "revision": event.revision}
