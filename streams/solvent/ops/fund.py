"""The insurance fund of a pipeline, as committed."""

from __future__ import annotations

import orjson

from solvent.engine.published import RULEBOOK_ROW_KEY
from solvent.engine.waterfall import FUND_ROW_KEY, Waterfall
from solvent.errors import ConfigError
from solvent.ops.history import read_table, read_topic
from solvent.rules import CompiledRulebook, compile_document
from solvent.units import MICRO_EXPONENT, format_scaled
from solvent.wire.losses import Socialised
from solvent.wire.outputs import decode_fund_row, decode_loss, decode_rulebook_row
from solvent.wire.topics import LOSSES, PRICE_STATE, Topics

__all__ = ["borne_by", "fund_told"]

#: Of the index of socialised losses: picos of the settlement currency a unit of it.
_INDEX_EXPONENT = -12


def fund_told(
    bootstrap_servers: str, topics: Topics, rulebook: CompiledRulebook
) -> dict[str, object]:
    """Return what the fund has and holds: decimal texts, sizes and prices of its markets.

    Parameters
    ----------
    rulebook : CompiledRulebook
        The worker's file; a published one takes its place.

    Raises
    ------
    ConfigError
        [SLV-455] The pipeline has no fund.
    ServiceError
        [SLV-608, SLV-610] No broker or no such topic.
    """
    rows = read_table(bootstrap_servers, topics.physical(PRICE_STATE)).get(0, {})
    published = rows.get(RULEBOOK_ROW_KEY)
    if published is not None:
        rulebook = compile_document(orjson.dumps(decode_rulebook_row(published).rulebook))
    value = rows.get(FUND_ROW_KEY)
    if value is None:
        msg = (
            f"no insurance fund: the rulebook in force, {rulebook.id} version {rulebook.version}, "
            "has no `insurance`, or no worker has priced under it yet"
        )
        raise ConfigError(msg, code="SLV-455")
    row = decode_fund_row(value)
    waterfall = Waterfall(topics.partitions)
    waterfall.load(value)
    holds = []
    for market, (lots, cost) in sorted(waterfall.held.items()):
        instrument = rulebook.instrument_by_name[market]
        paid = instrument.value_of(1, cost, 1)
        size = instrument.lot.format(lots)
        holds.append({"market": market, "size": size, "cost": format_scaled(paid, MICRO_EXPONENT)})
    told: dict[str, object] = {
        "balance": format_scaled(row.fund_micros, MICRO_EXPONENT),
        "received": format_scaled(row.received_micros, MICRO_EXPONENT),
        "paid": format_scaled(row.paid_micros, MICRO_EXPONENT),
        "takeovers": row.requests,
        "holds": holds,
    }
    rounds = waterfall.rounds
    if rounds.count:
        told["socialised"] = {
            "rounds": rounds.count,
            "loss": format_scaled(rounds.gathered_micros, MICRO_EXPONENT),
            "index": format_scaled(rounds.index, _INDEX_EXPONENT),
            "set_aside": format_scaled(rounds.set_aside_micros, MICRO_EXPONENT),
        }
    return told


def borne_by(bootstrap_servers: str, topics: Topics, account_id: str) -> list[dict[str, int | str]]:
    """Return what an account bore of losses of others, in the order it did; amounts decimal text.

    Raises
    ------
    ServiceError
        [SLV-608, SLV-610] No broker or no such topic.
    """
    found: list[dict[str, int | str]] = []
    for record in read_topic(bootstrap_servers, topics.physical(LOSSES)):
        told = decode_loss(record.value or b"")
        for owner, subaccount, micros in told.borne if isinstance(told, Socialised) else ():
            if owner == account_id:
                assert isinstance(told, Socialised)
                found.append(
                    {
                        "ts_us": told.ts_us,
                        "subaccount": subaccount,
                        "amount": format_scaled(micros, MICRO_EXPONENT),
                        "liquidation_id": told.liquidation_id,
                        "loss": format_scaled(told.loss_micros, MICRO_EXPONENT),
                        "base": format_scaled(told.base_micros, MICRO_EXPONENT),
                    }
                )
    return found
