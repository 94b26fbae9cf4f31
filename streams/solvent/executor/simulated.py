"""The demo's strategy: offers are filled whole, by a counterparty that is made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from solvent.domain.instrument import Instrument
from solvent.executor.fills import Fill, fills_for
from solvent.executor.strategy import Decision, Offer, Strategy
from solvent.units import parse_scaled

__all__ = ["simulated_counterparty"]

_FINEST = -18


def simulated_counterparty(
    instruments: Mapping[str, Instrument],
    slippage_ppm: int,
    *,
    auction_wait_us: int = 0,
    is_insured: bool = False,
) -> Strategy:
    """Return the strategy that fills each leg at mark less `slippage_ppm`, inside the limit.

    Of a phased offer it fills the first leg alone: what may be closed of the others follows from
    that fill, so the next revision offers them anew. Swaps of debt it leaves alone: there is no
    such trade.

    Parameters
    ----------
    instruments : mapping
        By market name.
    slippage_ppm : int
        Distance from mark, in the executor's favour.
    auction_wait_us : int
        How long after an offer an auctioned leg is bid for, event time, while the offer stands; at
        the price of then.
    is_insured : bool
        The engine takes the fund's fee of a fill itself, so none is charged.
    """

    async def fill_all(offer: Offer) -> Decision | None:
        if auction_wait_us and offer.liquidation.dutch_auction is not None:
            return Decision(_bids(offer, instruments, auction_wait_us))
        fills = fills_for(offer.liquidation, instruments, slippage_ppm)
        if offer.liquidation.released_ppm is not None or offer.liquidation.withheld:
            fills = fills[:1]
        return Decision([replace(fill, fee="0") for fill in fills] if is_insured else fills)

    return fill_all


def _bids(offer: Offer, instruments: Mapping[str, Instrument], wait_us: int) -> list[Fill]:
    """Return a bid for each leg whose price leaves one, at what the auction asks after a wait."""
    case = offer.liquidation
    at_us = min(case.ts_us + wait_us, case.expires_us or case.ts_us)
    bids = []
    for leg in case.legs:
        tick = instruments[leg.market].tick.format(1)
        price = offer.auction_price(leg.market, at_us, tick=tick)
        if parse_scaled(price, _FINEST) > 0:
            bids.append(offer.fill(leg.market, size=leg.size, price=price, ts_us=at_us))
    return bids
