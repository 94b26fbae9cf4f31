"""The demo's strategy: every offer is filled whole, at once, by a counterparty that is made up."""

from __future__ import annotations

from collections.abc import Mapping

from solvent.domain.instrument import Instrument
from solvent.executor.fills import fills_for
from solvent.executor.strategy import Decision, Offer, Strategy

__all__ = ["simulated_counterparty"]


def simulated_counterparty(instruments: Mapping[str, Instrument], slippage_ppm: int) -> Strategy:
    """Return the strategy that fills each leg at mark less `slippage_ppm`, inside the limit.

    Swaps of debt it leaves alone: there is no such trade.
    """

    async def fill_all(offer: Offer) -> Decision | None:
        return Decision(fills_for(offer.liquidation, instruments, slippage_ppm))

    return fill_all
