"""Circuit breakers of a rulebook: their markets looked up, contradictions refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solvent.domain.breaker import (
    Breaker,
    Disagreement,
    FundDraws,
    LiquidatedVolume,
    Velocity,
)
from solvent.domain.instrument import Feed, Instrument
from solvent.rules.model import BreakerModel, RulebookModel
from solvent.rules.resolve import one_of
from solvent.rules.source import config_error

__all__ = ["resolve_breakers"]


def resolve_breakers(
    model: RulebookModel, feeds: Sequence[Feed], instruments: Sequence[Instrument]
) -> tuple[Breaker, ...]:
    """Return the breakers by name, however the file orders them; raises ConfigError."""
    feed_by_market = {
        instrument.name: feeds[
            instrument.mark_feed if instrument.option is None else instrument.option.forward_feed
        ]
        for instrument in instruments
    }
    breakers = sorted((model.breakers or {}).items())
    for name, given in breakers:
        if given.fund_draws is not None and model.insurance is None:
            path = f"breakers.{name}.fund_draws"
            limit = "a rulebook with `insurance`: there is no fund"
            raise config_error(path=path, value=given.fund_draws.model_dump(), limit=limit)
    return tuple(_breaker(name, given, feed_by_market) for name, given in breakers)


def _breaker(name: str, given: BreakerModel, known: Mapping[str, Feed]) -> Breaker:
    path = f"breakers.{name}"
    markets = list(known) if given.markets is None else given.markets
    for place, market in enumerate(markets):
        where = f"{path}.markets.{place}"
        if market not in known:
            raise config_error(path=where, value=market, limit=one_of(known))
        if market in markets[:place]:
            raise config_error(path=where, value=market, limit="each market once")
    if not markets:
        limit = "a rulebook with markets"
        raise config_error(path=f"{path}.markets", value=given.markets, limit=limit)
    driver = _driver(path, given)
    most, what = (len(markets), "its markets") if given.level == "all" else (1, "")
    if isinstance(driver, LiquidatedVolume | FundDraws):
        most, what = 1, "one sum is watched"
        if isinstance(driver, FundDraws) and given.level == "all" and given.markets is not None:
            limit = "none at level all: the fund is one"
            raise config_error(path=f"{path}.markets", value=given.markets, limit=limit)
    if given.at_least > most:
        limit = f"at most {most}, {what}" if what else "1 at level market"
        raise config_error(path=f"{path}.at_least", value=given.at_least, limit=limit)
    return Breaker(
        name=name,
        driver=driver,
        feed_by_market={market: known[market] for market in sorted(markets)},
        is_for_all=given.level == "all",
        at_least=given.at_least,
        quiet_us=given.quiet_us,
    )


def _driver(
    path: str, given: BreakerModel
) -> Velocity | Disagreement | LiquidatedVolume | FundDraws:
    drivers = ("velocity", "disagreement", "liquidated_volume", "fund_draws")
    found = [name for name in drivers if getattr(given, name) is not None]
    if len(found) != 1:
        words = {0: "none", 2: "both"}
        limit = f"one of {', '.join(drivers)}: what drives it"
        raise config_error(path=path, value=words.get(len(found), "several"), limit=limit)
    if given.velocity is not None:
        return Velocity(**given.velocity.model_dump())
    if given.disagreement is not None:
        return Disagreement(**given.disagreement.model_dump())
    if given.liquidated_volume is not None:
        return LiquidatedVolume(**given.liquidated_volume.model_dump())
    draws = given.fund_draws
    assert draws is not None
    if draws.limit_micros is None and draws.share_ppm is None:
        value = draws.model_dump(exclude_none=True)
        limit = "limit_micros, share_ppm or both"
        raise config_error(path=f"{path}.fund_draws", value=value, limit=limit)
    return FundDraws(**draws.model_dump())
