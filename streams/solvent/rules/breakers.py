"""Circuit breakers of a rulebook: their markets looked up, contradictions refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from solvent.domain.breaker import Breaker, Disagreement, Velocity
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
    most = len(markets) if given.level == "all" else 1
    if given.at_least > most:
        limit = f"at most {most}, its markets" if given.level == "all" else "1 at level market"
        raise config_error(path=f"{path}.at_least", value=given.at_least, limit=limit)
    return Breaker(
        name=name,
        driver=_driver(path, given),
        feed_by_market={market: known[market] for market in sorted(markets)},
        is_for_all=given.level == "all",
        at_least=given.at_least,
        quiet_us=given.quiet_us,
    )


def _driver(path: str, given: BreakerModel) -> Velocity | Disagreement:
    velocity, disagreement = given.velocity, given.disagreement
    if velocity is not None and disagreement is None:
        return Velocity(move_ppm=velocity.move_ppm, window_us=velocity.window_us)
    if disagreement is not None and velocity is None:
        return Disagreement(after_us=disagreement.after_us, outliers_ppm=disagreement.outliers_ppm)
    found = "none" if velocity is None else "both"
    limit = "one of velocity, disagreement: what drives it"
    raise config_error(path=path, value=found, limit=limit)
