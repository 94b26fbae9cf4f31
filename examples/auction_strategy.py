"""Take auctioned offers as their price falls: `solvent executor --strategy auction_strategy:bid`.

An order may be priced for any event time while its offer stands; here that is two seconds after
the offer was made, which is when the fill says that it happened.
"""

from __future__ import annotations

from solvent.executor.strategy import Decision, Offer

#: By market, from the rulebook.
TICKS = {"BTC-PERP": "0.5"}


async def bid(offer: Offer) -> Decision | None:
    """Bid for every leg whose tick is known, at what the auction asks two seconds from here."""
    liquidation = offer.liquidation
    at_us = min(liquidation.ts_us + 2_000_000, liquidation.expires_us or liquidation.ts_us)
    fills = []
    for leg in liquidation.legs:
        if leg.market in TICKS:
            price = offer.auction_price(leg.market, at_us, tick=TICKS[leg.market])
            fills.append(offer.fill(leg.market, size=leg.size, price=price, ts_us=at_us))
    return Decision(fills)
