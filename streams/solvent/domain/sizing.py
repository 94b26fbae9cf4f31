"""How much of a unit to close, and at which prices: exact integers, every rounding stated.

Prices are integers in units of the mark feed, sizes lots, amounts micros, rates ppm. The unit is
short of `s` micros at the liquidation-end level; closing `x` lots of a position at the liquidator's
fee gives back ``x * p * (r_E - fee_liq - fee_fund)``. Long positions are closed by selling.
Sources: MODEL.md 7.1 (order), 7.2 Z1 and 7.3 (size, fund fee; Drift), 7.4 (prices; dYdX,
Hyperliquid), worked examples E6 and E7.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor, lcm
from typing import NamedTuple

from solvent.domain.instrument import Instrument, Ratio
from solvent.domain.policy import LiquidationPolicy
from solvent.units import PPM

__all__ = [
    "CloseLeg",
    "OpenPosition",
    "auction_limit",
    "bankruptcy_price",
    "fillable_price",
    "fund_fee",
    "inverse_bankruptcy_price",
    "limit_price",
    "liquidation_price",
    "plan_close",
    "shortage_lots",
]

#: Share of the room above the liquidator's fee that the fund may take (Drift: 19/20).
_FUND_SHARE, _FUND_WHOLE = 19, 20


class OpenPosition(NamedTuple):
    """A position at its mark: signed lots, not 0, and a mark price > 0 in feed units."""

    instrument: Instrument
    size_lots: int
    mark_price: int


class CloseLeg(NamedTuple):
    """One order of a liquidation offer.

    ``side`` is the unit's own (``sell`` closes a long); ``size_lots`` > 0; prices in feed units.
    The unit must not trade beyond `limit_price` (a multiple of the tick); at `bankruptcy_price` the
    leg uses up its share of the raw equity.
    """

    instrument: Instrument
    side: str
    size_lots: int
    mark_price: int
    limit_price: int
    bankruptcy_price: int
    fund_fee_ppm: int


def shortage_lots(
    position: OpenPosition,
    policy: LiquidationPolicy,
    shortage_numerator: int,
    shortage_denominator: int = 1,
) -> tuple[int, int]:
    """Return the lots to close for a shortage, and the fund's fee in ppm (Z1).

    ``fee_fund = min(max, floor(19/20 * max(0, r_E - fee_liq - s/|N|)))`` and
    ``x = s / (p * (r_E - fee_liq - fee_fund))``, rounded up to lots and capped at the position. All
    of it if ``r_E <= fee_liq``: closing then gives nothing back. If what stays has a notional below
    ``dust_micros``, that is closed too.

    Parameters
    ----------
    position : OpenPosition
        What to close.
    policy : LiquidationPolicy
        Rates, fees and dust of the unit's preset.
    shortage_numerator, shortage_denominator : int
        The shortage ``s`` in micros as a fraction, denominator > 0.

    Returns
    -------
    lots : int
        0 <= lots <= ``|size_lots|``; 0 without a shortage.
    fund_fee_ppm : int
        What the fund takes of the closed notional.
    """
    if shortage_numerator <= 0:
        return 0, 0
    instrument = position.instrument
    size_lots = abs(position.size_lots)
    value = instrument.mark_value
    lot_value = value.numerator * position.mark_price  # over value.denominator: micros per lot
    room_ppm = policy.liquidation_end_rate_ppm[instrument.index] - policy.liquidator_fee_ppm
    if room_ppm <= 0:
        return size_lots, 0
    needed = shortage_numerator * value.denominator
    fund_fee_ppm = fund_fee(position, policy, shortage_numerator, shortage_denominator)
    gain = lot_value * shortage_denominator * (room_ppm - fund_fee_ppm)
    lots = -(-needed * PPM // gain)
    if (size_lots - lots) * lot_value < policy.dust_micros * value.denominator:
        lots = size_lots
    return lots, fund_fee_ppm


def fund_fee(
    position: OpenPosition,
    policy: LiquidationPolicy,
    shortage_numerator: int,
    shortage_denominator: int = 1,
) -> int:
    """Return what the fund takes of a closed notional, ppm, rounded down (7.3, Drift).

    ``min(max, 19/20 * max(0, r_E - fee_liq - s/|N|))``; parameters are those of `shortage_lots`.
    """
    instrument = position.instrument
    value = instrument.mark_value
    room_ppm = policy.liquidation_end_rate_ppm[instrument.index] - policy.liquidator_fee_ppm
    # s / |N| = needed / whole
    needed = shortage_numerator * value.denominator
    lot_value = value.numerator * position.mark_price
    whole = abs(position.size_lots) * lot_value * shortage_denominator
    spare = room_ppm * whole - PPM * needed  # over whole: ppm
    if spare <= 0:
        return 0
    return min(policy.fund_fee_max_ppm, _FUND_SHARE * spare // (_FUND_WHOLE * whole))


def plan_close(
    positions: Iterable[OpenPosition],
    policy: LiquidationPolicy,
    *,
    shortage_micros: int,
    raw_equity_micros: int,
    maintenance_micros: int,
) -> tuple[CloseLeg, ...]:
    """Return the orders that restore the liquidation end, or close all if nothing can.

    Positions go in the order of ``gain_per_cost = floor(1e6 * (r_E - fee)/fee)`` descending, then
    total release ``|N| * r_E`` descending, then instrument id. What a leg gives back at the
    liquidator's fee is taken off the shortage exactly, before the next is sized.

    Parameters
    ----------
    positions : iterable of OpenPosition
        Everything open in the unit.
    policy : LiquidationPolicy
        Of the unit's preset.
    shortage_micros : int
        Requirement minus equity at the liquidation end.
    raw_equity_micros, maintenance_micros : int
        Equity at weight 1 and the maintenance requirement of the whole unit; each leg's prices rest
        on the same two numbers.

    Returns
    -------
    tuple of CloseLeg
        Empty without a shortage.
    """
    if shortage_micros <= 0:
        return ()
    candidates = list(positions)
    scale = lcm(*[position.instrument.mark_value.denominator for position in candidates]) * PPM
    if len(candidates) > 1:
        rates, fee_ppm = policy.liquidation_end_rate_ppm, policy.liquidator_fee_ppm

        def order(position: OpenPosition) -> tuple[int, int, int]:
            instrument = position.instrument
            rate_ppm = rates[instrument.index]
            # without a cost every gain is infinite, so all tie
            gain = PPM * (rate_ppm - fee_ppm) // fee_ppm if fee_ppm else 0
            value = instrument.mark_value
            notional = abs(position.size_lots) * position.mark_price * value.numerator
            return -gain, -notional * (scale // value.denominator) * rate_ppm, instrument.id

        candidates.sort(key=order)
    shortage = shortage_micros * scale  # over scale: micros
    legs = []
    for position in candidates:
        lots, fund_fee_ppm = shortage_lots(position, policy, shortage, scale)
        instrument = position.instrument
        value = instrument.mark_value
        cost_ppm = policy.liquidator_fee_ppm + fund_fee_ppm
        gain_ppm = policy.liquidation_end_rate_ppm[instrument.index] - cost_ppm
        lot_value = value.numerator * position.mark_price
        shortage -= lots * lot_value * gain_ppm * (scale // (value.denominator * PPM))
        legs.append(
            CloseLeg(
                instrument,
                "sell" if position.size_lots > 0 else "buy",
                lots,
                position.mark_price,
                limit_price(position, policy, raw_equity_micros, maintenance_micros),
                bankruptcy_price(position, policy, lots, raw_equity_micros, maintenance_micros),
                fund_fee_ppm,
            )
        )
        if shortage <= 0:
            break
    return tuple(legs)


def bankruptcy_price(
    position: OpenPosition,
    policy: LiquidationPolicy,
    close_lots: int,
    raw_equity_micros: int,
    maintenance_micros: int,
) -> int:
    """Return the price at which closing `close_lots` uses up their share of the raw equity.

    The quote received is ``B = -dN - floor(E * |dR|/R)`` micros, dN and dR the change of notional
    and of maintenance; the price is ``|B|`` over the size, rounded towards the mark (up for a long,
    down for a short) so that it never flatters the account. At least 0; with nothing required the
    share is all of the equity.

    Parameters
    ----------
    position, policy
        What is closed and its rates.
    close_lots : int
        0 < close_lots <= ``|size_lots|``.
    raw_equity_micros, maintenance_micros : int
        Of the whole unit.
    """
    value = position.instrument.mark_value
    share_micros = raw_equity_micros
    if maintenance_micros > 0:
        rate_ppm = policy.maintenance_rate_ppm[position.instrument.index]
        released = close_lots * value.numerator * position.mark_price * rate_ppm
        share_micros = (
            raw_equity_micros * released // (value.denominator * PPM * maintenance_micros)
        )
    distance = share_micros * value.denominator // (close_lots * value.numerator)
    if position.size_lots > 0:
        return max(0, position.mark_price - distance)
    return max(0, position.mark_price + distance)


def inverse_bankruptcy_price(
    position: OpenPosition, coin_price: int, raw_equity_micros: int, share: Ratio
) -> int:
    """Return the price at which an inverse position has used up its share of the raw equity.

    A contract is worth ``face / p`` coins, so ``1/p_b = 1/p + e/(face * lots)`` for a long and
    minus for a short, e the share of raw equity in coins (MODEL.md 7.4, Bybit, without fees).
    Rounded towards the mark; 0 for a short that nothing can bankrupt.

    Parameters
    ----------
    position : OpenPosition
        What is closed.
    coin_price : int
        Price of its coin in feed units of the same exponent as the mark.
    raw_equity_micros : int
        Of the whole unit.
    share : Ratio
        What of it is this position's.
    """
    instrument = position.instrument
    assert instrument.face is not None
    unit = Fraction(10) ** instrument.price_exponent
    face = Fraction(
        instrument.face.numerator * instrument.lot.numerator * abs(position.size_lots)
    ) * Fraction(10) ** (instrument.face.exponent + instrument.lot.exponent)
    equity = Fraction(raw_equity_micros * share.numerator, PPM * share.denominator)
    coins = equity / (coin_price * unit)
    side = 1 if position.size_lots > 0 else -1
    inverse = 1 / (position.mark_price * unit) + side * coins / face
    if inverse <= 0:
        return 0
    price = 1 / (inverse * unit)
    return ceil(price) if side > 0 else floor(price)


def fillable_price(
    position: OpenPosition,
    policy: LiquidationPolicy,
    raw_equity_micros: int,
    maintenance_micros: int,
) -> int:
    """Return the worst price dYdX's formula lets the account trade at, towards the mark.

    ``(N - ABR * spread * R_i) / q`` with ``ABR = clamp(adjustment * (1 - E/R), 0, 1)``, E raw
    equity, R maintenance of the unit, R_i of the position; that is ``p * (1 -/+ ABR * spread *
    r_M)`` for a long or short. Rounded up for a long and down for a short; at least 0.
    """
    if maintenance_micros > 0:
        whole = PPM * maintenance_micros
        ratio = policy.adjustment_ppm * (maintenance_micros - raw_equity_micros)
        ratio = min(max(ratio, 0), whole)
    else:
        whole, ratio = 1, 1 if raw_equity_micros < 0 else 0
    rate_ppm = policy.maintenance_rate_ppm[position.instrument.index]
    distance = position.mark_price * ratio * policy.spread_ppm * rate_ppm // (whole * PPM * PPM)
    if position.size_lots > 0:
        return max(0, position.mark_price - distance)
    return position.mark_price + distance


def limit_price(
    position: OpenPosition,
    policy: LiquidationPolicy,
    raw_equity_micros: int,
    maintenance_micros: int,
) -> int:
    """Return the worst price the offer allows: fillable, but never tighter than the fee.

    ``min(fillable, p * (1 - fee_liq))`` for a long, ``max(fillable, p * (1 + fee_liq))`` for a
    short, so an executor may always take the fee that sizing assumes. It is then rounded towards
    the mark to a multiple of the tick, at least one tick: what sizing assumed is never undercut,
    and an executor may lose less than one tick of the fee. Where no tick lies from there to the
    mark, it is the last one before the mark instead: beyond it nobody would trade, and a unit that
    waits for the mark to move is worse off than by less than a tick.
    """
    fillable = fillable_price(position, policy, raw_equity_micros, maintenance_micros)
    mark_price, tick_price = position.mark_price, position.instrument.tick_price
    distance = mark_price * policy.liquidator_fee_ppm // PPM
    if position.size_lots > 0:
        limit = -(-min(fillable, mark_price - distance) // tick_price)
        return max(1, min(limit, mark_price // tick_price)) * tick_price
    limit = max(fillable, mark_price + distance) // tick_price
    return max(limit, -(-mark_price // tick_price)) * tick_price


def auction_limit(
    *, mark_price: int, bankruptcy_price: int, share_ppm: int, is_sell: bool, tick_price: int
) -> int:
    """Return the worst price an auctioned order allows while its share is so much (7.5).

    At a share of 1 that is the mark, at 0 the bankruptcy price, on the line between else: the
    order gives up as much of its part of the equity as a bidder need not pay. Rounded towards the
    mark to a multiple of the tick, as `limit_price` is. The bankruptcy price lies on the losing
    side of the mark, or is it.
    """
    fallen = (mark_price - bankruptcy_price) * (PPM - share_ppm)
    if is_sell:
        limit = -(-(mark_price * PPM - fallen) // (PPM * tick_price))
        return max(1, min(limit, mark_price // tick_price)) * tick_price
    limit = (mark_price * PPM - fallen) // (PPM * tick_price)
    return max(limit, -(-mark_price // tick_price)) * tick_price


def liquidation_price(
    position: OpenPosition, *, health_micros: int, maintenance_rate_ppm: int
) -> int | None:
    """Return the mark at which maintenance health would be 0, other marks held.

    ``p* = p - health / (q - |q| * r)``, rounded towards safety, that is up for a long and down for
    a short: at the price returned the unit is healthy, one unit beyond it is not (I15). A unit
    already liquidatable has it on the other side of the mark. None where no positive price solves
    it.
    """
    value = position.instrument.mark_value
    lots = abs(position.size_lots)
    is_long = position.size_lots > 0
    slope_ppm = PPM - maintenance_rate_ppm if is_long else PPM + maintenance_rate_ppm
    if slope_ppm <= 0:
        return None
    distance = health_micros * value.denominator * PPM // (lots * value.numerator * slope_ppm)
    price = position.mark_price - distance if is_long else position.mark_price + distance
    return price if price > 0 else None
