"""Fills that answer an offer: any that its leg allows, and those of the simulated counterparty.

Prices are settlement currency per coin and sizes coins, as decimal text on both sides and exact
integers between; slippage and fees are ppm. The fills are for the account: `sell` closes its long.
The simulated counterparty fills each leg whole, at mark less a stated slippage. The executor's
favour is the slippage; every rounding is the account's favour, inside the limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from solvent.domain.instrument import Instrument
from solvent.domain.schedule import Auction
from solvent.domain.sizing import auction_limit
from solvent.errors import ContractError, RejectCode
from solvent.executor.claims import token_of
from solvent.rules.compile import CompiledRulebook
from solvent.units import MICRO_EXPONENT, PPM, format_scaled, parse_scaled
from solvent.wire.headers import TRACEPARENT, trace_fill
from solvent.wire.inputs import encode_trade
from solvent.wire.outputs import Liquidation, OfferAuction, OfferLeg, StandingCase

__all__ = [
    "Fill",
    "Steps",
    "auction_price",
    "check_steps",
    "fill_of",
    "fill_price_ticks",
    "fills_for",
    "trade_id_for",
]

#: Prices are compared at this exponent, which is finer than any feed's and any tick's.
_FINEST = -18
#: The smallest step there is: a price that is on a tick is on it.
_NO_TICK = "0.000000000000000001"
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
    claim_token: int | None = None

    @property
    def key(self) -> bytes:
        """Record key: the account."""
        return self.account_id.encode()

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """Record headers: the fill goes on with the trace of its liquidation."""
        return [(TRACEPARENT, trace_fill(self.liquidation_id, self.trade_id))]

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
            claim_token=self.claim_token,
            ts_us=self.ts_us,
        )


@dataclass(frozen=True, slots=True)
class Steps:
    """What the amounts of a fill are multiples of, by market.

    Attributes
    ----------
    instruments : mapping
        Lots and ticks.
    fee_exponents : mapping
        Power of ten of a fee's unit, that of the asset a market settles in; micros where missing.
    """

    instruments: Mapping[str, Instrument]
    fee_exponents: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rulebook: CompiledRulebook) -> Steps:
        """Return the steps of a rulebook."""
        markets = rulebook.instrument_by_name
        assets = rulebook.assets
        exponents = {name: assets[m.settles_in].quantum_exponent for name, m in markets.items()}
        return cls(markets, exponents)


def auction_price(offer: Liquidation | StandingCase, market: str, ts_us: int, *, tick: str) -> str:
    """Return the worst price the account may get in a market of an offer at a time, as text.

    Of an offer that is auctioned, it moves from the mark towards the bankruptcy price as time
    passes, on ticks; of any other it is the leg's limit price.

    Parameters
    ----------
    offer : Liquidation
        The revision to be answered.
    market : str
        A leg's.
    ts_us : int
        Event time of the fill, microseconds.
    tick : str
        The market's, from the rulebook.

    Raises
    ------
    ContractError
        [SLV-202] no leg in this market.
    """
    leg = _leg_of(offer, market)
    auction = offer.dutch_auction
    if auction is None:
        return leg.limit_price
    price = auction_limit(
        mark_price=parse_scaled(leg.mark_price, _FINEST),
        bankruptcy_price=parse_scaled(leg.bankruptcy_price, _FINEST),
        share_ppm=_share_at(auction, ts_us),
        is_sell=leg.side == "sell",
        tick_price=parse_scaled(tick, _FINEST),
    )
    return format_scaled(price, _FINEST)


def _share_at(auction: OfferAuction, ts_us: int) -> int:
    schedule = Auction(auction.start_ppm, auction.cutoff_ppm, auction.fast_us, auction.slow_us)
    return schedule.share_at(ts_us - auction.started_us)


def _leg_of(offer: Liquidation | StandingCase, market: str) -> OfferLeg:
    leg = next((leg for leg in offer.legs if leg.market == market), None)
    if leg is None:
        what = f"{offer.liquidation_id} revision {offer.revision}"
        markets = ", ".join(each.market for each in offer.legs) or "none"
        msg = f"{what}: market {market!r}, offered are {markets}"
        raise ContractError(msg, code=RejectCode.UNKNOWN_INSTRUMENT)
    return leg


def fill_of(
    offer: Liquidation | StandingCase,
    market: str,
    *,
    size: str,
    price: str,
    fee: str = "0",
    ts_us: int | None = None,
) -> Fill:
    """Return the fill of one leg of an offer, with its side and the id that belongs to it.

    Parameters
    ----------
    offer : Liquidation or StandingCase
        The revision answered; of a leased one our share (`solvent.executor.claims.share_of`).
    market : str
        A leg's.
    size : str
        Coins, above zero, at most the leg's.
    price : str
        Settlement currency per coin, above zero, not beyond the leg's limit; of an auction, not
        beyond its price at `ts_us`.
    fee : str
        Settlement currency the account pays, below zero if it gets it.
    ts_us : int, optional
        Event time of the fill, while the offer stands; the offer's own unless said.

    Raises
    ------
    ContractError
        [SLV-202] no leg in this market, [SLV-103] one of the numbers may not be.
    """
    leg = _leg_of(offer, market)
    what = f"{offer.liquidation_id} revision {offer.revision}"
    try:
        size_parsed, price_parsed = parse_scaled(size, _FINEST), parse_scaled(price, _FINEST)
        parse_scaled(fee, _FINEST)
    except ValueError as error:
        msg = f"{what} {market}: {error}"
        raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT) from None
    if not 0 < size_parsed <= parse_scaled(leg.size, _FINEST):
        msg = f"{what} {market}: size {size}, offered are {leg.size}"
        raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
    if ts_us is not None and not offer.ts_us <= ts_us <= (offer.expires_us or offer.ts_us):
        msg = f"{what} {market}: at {ts_us}, it stands from {offer.ts_us} until {offer.expires_us}"
        raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
    limit = leg.limit_price
    if ts_us is not None:
        limit = auction_price(offer, market, ts_us, tick=_NO_TICK)
    room = price_parsed - parse_scaled(limit, _FINEST)
    if price_parsed <= 0 or (room < 0 if leg.side == "sell" else room > 0):
        msg = f"{what} {market}: {leg.side} at {price}, the limit is {limit}"
        raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
    return _fill(offer, leg, size=size, price=price, fee=fee, ts_us=ts_us)


def check_steps(fill: Fill, steps: Steps) -> None:
    """Refuse a fill the pipeline would: off its steps, it would quarantine the account.

    Raises
    ------
    ContractError
        [SLV-202] a market the rulebook has not, [SLV-104] size, price or fee off their steps.
    """
    instrument = steps.instruments.get(fill.market)
    if instrument is None:
        msg = f"fill {fill.trade_id} in market {fill.market}: not in the rulebook"
        raise ContractError(msg, code=RejectCode.UNKNOWN_INSTRUMENT)
    try:
        instrument.lot.parse(fill.size)
        instrument.tick.parse(fill.price)
        parse_scaled(fill.fee, steps.fee_exponents.get(fill.market, MICRO_EXPONENT))
    except ValueError as error:
        msg = f"fill {fill.trade_id}: {error}"
        raise ContractError(msg, code=RejectCode.OFF_STEP) from None


def fills_for(
    offer: Liquidation | StandingCase, instruments: Mapping[str, Instrument], slippage_ppm: int
) -> list[Fill]:
    """Return one fill for each leg of an offer, in the order of its legs.

    Parameters
    ----------
    offer : Liquidation or StandingCase
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
        price, fee = instrument.tick.format(ticks), format_scaled(fee_micros, MICRO_EXPONENT)
        fills.append(_fill(offer, leg, size=leg.size, price=price, fee=fee))
    return fills


def _fill(
    offer: Liquidation | StandingCase,
    leg: OfferLeg,
    *,
    size: str,
    price: str,
    fee: str,
    ts_us: int | None = None,
) -> Fill:
    return Fill(
        trade_id=trade_id_for(offer, leg.market),
        account_id=offer.account_id,
        subaccount=offer.subaccount,
        market=leg.market,
        side=leg.side,
        size=size,
        price=price,
        fee=fee,
        liquidation_id=offer.liquidation_id,
        ts_us=offer.ts_us if ts_us is None else ts_us,
        claim_token=token_of(offer),
    )


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


def trade_id_for(offer: Liquidation | StandingCase, market: str) -> str:
    """Return the id of the fill of one market of one revision: equal inputs, equal id.

    ``account.subaccount.episode.revision.market``, under a lease ``.token`` behind it since several
    may fill, which reads back from the right because neither
    subaccount nor market holds a dot; where one does, or the whole is longer than an id may be,
    ``liq-`` and 48 hexadecimal digits of BLAKE2b.
    """
    parts = [offer.subaccount, str(offer.episode), str(offer.revision), market]
    named = f"{offer.liquidation_id}:{offer.revision}:{market}"
    if (token := token_of(offer)) is not None:
        parts.append(str(token))
        named = f"{named}:{token}"
    text = ".".join((offer.account_id, *parts))
    if len(text) <= _MAX_ID and not any("." in part for part in parts):
        return text
    return "liq-" + hashlib.blake2b(named.encode(), digest_size=24).hexdigest()
