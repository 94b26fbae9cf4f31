"""Decides a batch: the book's rulings, then the strategy's answers. Knows nothing of Kafka."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from solvent.errors import ContractError
from solvent.executor.book import Action, Book, Reason, Received
from solvent.executor.fills import Fill, Steps, check_steps, fill_of
from solvent.executor.strategy import Benign, Offer, Strategy, pick_order
from solvent.executor.tally import Tally

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
    """

    book: Book
    strategy: Strategy
    steps: Steps
    tally: Tally
    seed: str = ""
    window: int = 1

    async def decide(self, batch: Sequence[Received], silent: Collection[int] = ()) -> list[Fill]:
        """Return the fills that answer a batch; raises what the strategy raises, unless benign.

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
            self.tally.log.info("offer_left", **_where(offer), reason=outcome, detail=str(error))
        except ContractError as error:
            outcome = str(Reason.NOT_UNDERSTOOD)
            self.tally.log.warning("offer_left", **_where(offer), reason=outcome, detail=str(error))
        self.tally.answered(outcome, offer.timestamp_ms)
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
