"""What the reference executor answers to an offer: one fill a leg, at mark less a stated slippage.

Prices are settlement currency per coin and sizes coins, as decimal text on both sides and exact
integers between; slippage and fees are ppm. The fills are for the account: `sell` closes its long.
The executor's favour is the slippage; every rounding is the account's favour, inside the limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from solvent.domain.instrument import Instrument
from solvent.errors import ContractError, RejectCode
from solvent.units import MICRO_EXPONENT, PPM, format_scaled, parse_scaled
from solvent.wire.inputs import encode_trade
from solvent.wire.outputs import Liquidation, OfferLeg

__all__ = ["Fill", "fill_price_ticks", "fills_for", "latest_of_each_case", "trade_id_for"]

#: Prices are compared at this exponent, which is finer than any feed's and any tick's.
_FINEST = -18
_MAX_ID = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One trade of an account, ready for ``trades.v1``; amounts are decimal text."""

    trade_id: str
    account_id: str
    subaccount: str
    market: str
    side: str
    size: str
    price: str
    fee: str
    liquidation_id: str
    ts_us: int

    @property
    def key(self) -> bytes:
        """Record key: the account."""
        return self.account_id.encode()

    def value(self) -> bytes:
        """Record value."""
        return encode_trade(
            trade_id=self.trade_id,
            account_id=self.account_id,
            subaccount=self.subaccount,
            market=self.market,
            side=self.side,
            size=self.size,
            price=self.price,
            fee=self.fee,
            liquidation_id=self.liquidation_id,
            ts_us=self.ts_us,
        )


def fills_for(
    offer: Liquidation, instruments: Mapping[str, Instrument], slippage_ppm: int
) -> list[Fill]:
    """Return one fill for each leg of an offer, in the order of its legs.

    Parameters
    ----------
    offer : Liquidation
        An opened or revised liquidation; any other revision asks for nothing.
    instruments : mapping
        By market name.
    slippage_ppm : int
        How far from mark the executor trades in its own favour, ``0 <= slippage_ppm < 1e6``.

    Returns
    -------
    list of Fill
        A leg whose limit leaves no whole tick above zero has none.

    Raises
    ------
    ContractError
        The offer names an unknown market, or a size or price off its steps.
    """
    if not offer.is_offer:
        return []
    fills = []
    for leg in offer.legs:
        instrument = instruments.get(leg.market)
        if instrument is None:
            msg = f"offer {offer.liquidation_id} of market {leg.market}: not in the rulebook"
            raise ContractError(msg, code=RejectCode.UNKNOWN_INSTRUMENT)
        try:
            lots = instrument.lot.parse(leg.size)
            ticks = fill_price_ticks(leg, instrument, slippage_ppm)
        except ValueError as error:
            msg = f"offer {offer.liquidation_id} leg {leg.market}: {error}"
            raise ContractError(msg, code=RejectCode.OFF_STEP) from None
        if ticks <= 0:
            continue
        numerator, denominator = instrument.tick_value
        fee_micros = lots * ticks * numerator * leg.fund_fee_ppm // (denominator * PPM)
        fills.append(
            Fill(
                trade_id=trade_id_for(offer, leg.market),
                account_id=offer.account_id,
                subaccount=offer.subaccount,
                market=leg.market,
                side=leg.side,
                size=leg.size,
                price=instrument.tick.format(ticks),
                fee=format_scaled(fee_micros, MICRO_EXPONENT),
                liquidation_id=offer.liquidation_id,
                ts_us=offer.ts_us,
            )
        )
    return fills


def fill_price_ticks(leg: OfferLeg, instrument: Instrument, slippage_ppm: int) -> int:
    """Return the fill price in ticks: mark less slippage, not beyond the limit.

    A sale takes the higher of ``mark * (1 - s)`` and the limit, rounded up to a tick; a purchase
    the lower of ``mark * (1 + s)`` and the limit, rounded down. Both are the account's favour.
    """
    mark = parse_scaled(leg.mark_price, _FINEST)
    limit = parse_scaled(leg.limit_price, _FINEST) * PPM
    scale: int = 10 ** (instrument.tick.exponent - _FINEST)
    tick = instrument.tick.numerator * scale * PPM
    if leg.side == "sell":
        return -(-max(mark * (PPM - slippage_ppm), limit) // tick)
    return min(mark * (PPM + slippage_ppm), limit) // tick


def trade_id_for(offer: Liquidation, market: str) -> str:
    """Return the id of the fill of one market of one revision: equal inputs, equal id.

    ``account.subaccount.episode.revision.market``, which reads back from the right because neither
    subaccount nor market holds a dot; where one does, or the whole is longer than an id may be,
    ``liq-`` and 48 hexadecimal digits of BLAKE2b.
    """
    parts = (offer.subaccount, str(offer.episode), str(offer.revision), market)
    text = ".".join((offer.account_id, *parts))
    if len(text) <= _MAX_ID and not any("." in part for part in parts):
        return text
    named = f"{offer.liquidation_id}:{offer.revision}:{market}".encode()
    return "liq-" + hashlib.blake2b(named, digest_size=24).hexdigest()


def latest_of_each_case(revisions: Sequence[Liquidation]) -> list[Liquidation]:
    """Return the last revision of each liquidation in a batch, in the order these came."""
    last = {revision.liquidation_id: revision for revision in revisions}
    return [revision for revision in revisions if last[revision.liquidation_id] is revision]
