"""Assets, underlyings and contracts of a rulebook: names looked up, steps made exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from solvent.domain.instrument import Asset, Feed, Instrument, Option, Step, Underlying
from solvent.kernel.layout import NONE
from solvent.rules.model import InstrumentModel, RulebookModel
from solvent.rules.source import config_error

__all__ = [
    "bounded_feeds",
    "feed_index",
    "one_of",
    "resolve_assets",
    "resolve_instruments",
    "resolve_underlyings",
]

_MAX_TICK_DENOMINATOR = 1_000
_MAX_TICK_NUMERATOR = 10**9
_MAX_FACE = 2**62
_PICO_PLACES = 12
#: Keys that only some kinds of contracts have, and which of them those need.
_KEYS_OF = {
    "linear": (("mark_feed",), ("funding_feed", "expires_at_us", "underlying", "quality_feed")),
    "inverse": (
        ("mark_feed", "face"),
        ("funding_feed", "expires_at_us", "underlying", "quality_feed"),
    ),
    "option": (
        ("underlying", "right", "strike", "expires_at_us", "forward_feed", "volatility_feed"),
        ("rate_feed", "quality_feed"),
    ),
}
_SOME_KINDS = {key for needed, allowed in _KEYS_OF.values() for key in (*needed, *allowed)}


def one_of(names: Mapping[str, object]) -> str:
    """Return the limit of a name that must be one of these."""
    return "one of " + ", ".join(names)


def feed_index(feeds: Mapping[str, Feed], path: str, name: str, kind: str = "price") -> int:
    """Return the index of a feed; raises ConfigError where there is none of that name and kind."""
    if name not in feeds or feeds[name].kind != kind:
        known = ", ".join(feed.name for feed in feeds.values() if feed.kind == kind)
        limit = (
            f"one of {known or 'none'}" if kind == "price" else f"a state feed: {known or 'none'}"
        )
        raise config_error(path=path, value=name, limit=limit)
    return feeds[name].index


def _optional_feed(
    feeds: Mapping[str, Feed], path: str, name: str | None, kind: str = "price"
) -> int | None:
    return None if name is None else feed_index(feeds, path, name, kind)


def bounded_feeds(
    feeds: Sequence[Feed], assets: Sequence[Asset], instruments: Sequence[Instrument]
) -> tuple[Feed, ...]:
    """Return the feeds with the least value of those states whose sign is known.

    An interest index below its unit would turn a deposit into a debt; below 0 a volatility has no
    price, and the one the kernel would give favours whoever is short. Other states may have any
    sign: a rate and a funding index do, and an open interest or a pool's total below 0, which
    cannot be, counts as one of 0 does.
    """
    least: dict[int, int] = {}
    for instrument in instruments:
        if instrument.option is not None:
            least[instrument.option.volatility_feed] = 0
    for asset in assets:
        for feed in (asset.deposit_index_feed, asset.borrow_index_feed):
            if feed is not None:
                least[feed] = 1
    return tuple(replace(feed, least=least.get(feed.index)) for feed in feeds)


def resolve_assets(model: RulebookModel, feeds: Mapping[str, Feed]) -> tuple[Asset, ...]:
    """Return the assets, the settlement asset first; raises ConfigError."""
    settlement = model.rulebook.settlement_asset
    if settlement not in model.assets:
        raise config_error(
            path="rulebook.settlement_asset", value=settlement, limit=one_of(model.assets)
        )
    names = [settlement, *(name for name in model.assets if name != settlement)]
    assets = []
    for index, name in enumerate(names):
        asset, path = model.assets[name], f"assets.{name}"
        if name == settlement:
            if asset.index_feed is not None:
                limit = "none: the settlement asset is worth 1"
                raise config_error(path=f"{path}.index_feed", value=asset.index_feed, limit=limit)
            if asset.quantum_exponent != -6:
                limit = "-6: amounts of the settlement asset are micros"
                raise config_error(
                    path=f"{path}.quantum_exponent", value=asset.quantum_exponent, limit=limit
                )
        elif asset.index_feed is None:
            raise config_error(
                path=f"{path}.index_feed", value=None, limit="required but for the settlement asset"
            )
        if asset.underlying is not None and asset.underlying not in model.underlyings:
            raise config_error(
                path=f"{path}.underlying", value=asset.underlying, limit=one_of(model.underlyings)
            )
        _optional_feed(feeds, f"{path}.quality_feed", asset.quality_feed, "state")
        assets.append(
            Asset(
                index=index,
                name=name,
                quantum_exponent=asset.quantum_exponent,
                index_feed=_optional_feed(feeds, f"{path}.index_feed", asset.index_feed),
                is_borrowable=asset.borrowable,
                deposit_index_feed=_index_of_interest(
                    model, feeds, f"{path}.deposit_index_feed", asset.deposit_index_feed
                ),
                borrow_index_feed=_index_of_interest(
                    model, feeds, f"{path}.borrow_index_feed", asset.borrow_index_feed
                ),
            )
        )
    return tuple(assets)


def _index_of_interest(
    model: RulebookModel, feeds: Mapping[str, Feed], path: str, name: str | None
) -> int | None:
    index = _optional_feed(feeds, path, name, "state")
    if name is not None and model.feeds[name].exponent != -18:
        limit = "a feed of exponent -18: the index begins at 1"
        raise config_error(path=path, value=name, limit=limit)
    return index


def resolve_underlyings(model: RulebookModel, feeds: Mapping[str, Feed]) -> tuple[Underlying, ...]:
    """Return the underlyings; raises ConfigError."""
    return tuple(
        Underlying(
            index=index,
            name=name,
            spot_feed=feed_index(feeds, f"underlyings.{name}.spot_feed", given.spot_feed),
            quality_feed=_optional_feed(
                feeds, f"underlyings.{name}.quality_feed", given.quality_feed, "state"
            ),
            stable_feed=_optional_feed(feeds, f"underlyings.{name}.stable_feed", given.stable_feed),
        )
        for index, (name, given) in enumerate(model.underlyings.items())
    )


def resolve_instruments(
    model: RulebookModel, feeds: Mapping[str, Feed], assets: Mapping[str, Asset]
) -> tuple[Instrument, ...]:
    """Return the contracts, ascending by id; raises ConfigError."""
    ordered = sorted(model.instruments.items(), key=lambda item: item[1].id)
    instruments: list[Instrument] = []
    for name, given in ordered:
        path = f"instruments.{name}"
        if name == "cross":
            raise config_error(
                path=path, value=name, limit="any other name: it is that of the cross book"
            )
        if instruments and instruments[-1].id == given.id:
            limit = f"an id of its own, {instruments[-1].name} has it"
            raise config_error(path=f"{path}.id", value=given.id, limit=limit)
        instruments.append(_instrument(len(instruments), name, given, model, feeds, assets))
    return tuple(instruments)


def _instrument(
    index: int,
    name: str,
    given: InstrumentModel,
    model: RulebookModel,
    feeds: Mapping[str, Feed],
    assets: Mapping[str, Asset],
) -> Instrument:
    path = f"instruments.{name}"
    _check_keys(path, given)
    _check_settlement(path, given, model, assets)
    underlyings = list(model.underlyings)
    if given.underlying is not None and given.underlying not in underlyings:
        raise config_error(
            path=f"{path}.underlying", value=given.underlying, limit=one_of(model.underlyings)
        )
    tick = _step(f"{path}.tick", given.tick)
    mark_feed = _optional_feed(feeds, f"{path}.mark_feed", given.mark_feed)
    price_exponent = tick.exponent
    if given.mark_feed is not None:
        price_exponent = model.feeds[given.mark_feed].exponent
        if tick.exponent < price_exponent:
            limit = f"a multiple of the mark feed's step 1e{price_exponent}"
            raise config_error(path=f"{path}.tick", value=given.tick, limit=limit)
    funding_feed = _optional_feed(feeds, f"{path}.funding_feed", given.funding_feed, "state")
    if given.funding_feed is not None and model.feeds[given.funding_feed].exponent != -12:
        limit = "a feed of exponent -12: settlement units a lot"
        raise config_error(path=f"{path}.funding_feed", value=given.funding_feed, limit=limit)
    settlement_exponent = price_exponent
    if given.kind == "option" and given.underlying is not None:
        settlement_exponent = model.feeds[model.underlyings[given.underlying].spot_feed].exponent
    instrument = Instrument(
        index=index,
        id=given.id,
        name=name,
        kind=given.kind,
        lot=_step(f"{path}.lot", given.lot),
        tick=tick,
        mark_feed=NONE if mark_feed is None else mark_feed,
        index_feed=_optional_feed(feeds, f"{path}.index_feed", given.index_feed),
        price_exponent=price_exponent,
        settles_in=assets[given.settles_in].index,
        underlying=None if given.underlying is None else underlyings.index(given.underlying),
        quality_feed=_optional_feed(feeds, f"{path}.quality_feed", given.quality_feed, "state"),
        funding_feed=funding_feed,
        expires_us=given.expires_at_us,
        settlement_exponent=settlement_exponent,
        face=None if given.face is None else _step(f"{path}.face", given.face),
        option=_option(path, given, feeds) if given.kind == "option" else None,
    )
    value = instrument.tick_value
    if value.denominator > _MAX_TICK_DENOMINATOR or value.numerator > _MAX_TICK_NUMERATOR:
        limit = (
            "lot * tick * 1e6 is a fraction of at most "
            f"{_MAX_TICK_NUMERATOR}/{_MAX_TICK_DENOMINATOR}"
        )
        shown = (
            f"lot {given.lot} * tick {given.tick} = {value.numerator}/{value.denominator} micros"
        )
        raise config_error(path=path, value=shown, limit=limit)
    if instrument.face is not None:
        _check_face(path, instrument, assets[given.settles_in].quantum_exponent)
    return instrument


def _check_face(path: str, instrument: Instrument, exponent: int) -> None:
    if exponent < -_PICO_PLACES:
        limit = f"an asset of quantum_exponent at least {-_PICO_PLACES}, as fine as funding"
        raise config_error(path=f"{path}.settles_in", value=exponent, limit=limit)
    value = instrument.face_value(exponent)
    if max(value) > _MAX_FACE:
        limit = "lot * face / tick in quanta is a fraction of integers up to 2**62"
        raise config_error(path=path, value=f"{value.numerator}/{value.denominator}", limit=limit)


def _check_keys(path: str, given: InstrumentModel) -> None:
    needed, allowed = _KEYS_OF[given.kind]
    for key in needed:
        if getattr(given, key) is None:
            limit = f"required of a contract of kind {given.kind}"
            raise config_error(path=f"{path}.{key}", value=None, limit=limit)
    for key in sorted(_SOME_KINDS.difference(needed, allowed)):
        if getattr(given, key) is not None:
            limit = f"no key of a contract of kind {given.kind}"
            raise config_error(path=f"{path}.{key}", value=getattr(given, key), limit=limit)


def _check_settlement(
    path: str, given: InstrumentModel, model: RulebookModel, assets: Mapping[str, Asset]
) -> None:
    settlement = model.rulebook.settlement_asset
    path = f"{path}.settles_in"
    if given.settles_in not in assets:
        raise config_error(path=path, value=given.settles_in, limit=one_of(assets))
    if given.kind == "inverse":
        if given.settles_in == settlement:
            limit = "the coin of the contract, not the settlement asset"
            raise config_error(path=path, value=given.settles_in, limit=limit)
    elif given.kind == "option" and given.settles_in != settlement:
        limit = f"the settlement asset {settlement}"
        raise config_error(path=path, value=given.settles_in, limit=limit)
    elif assets[given.settles_in].quantum_exponent != -6:
        limit = "an asset of quantum_exponent -6: values are micros of it"
        raise config_error(path=path, value=given.settles_in, limit=limit)


def _option(path: str, given: InstrumentModel, feeds: Mapping[str, Feed]) -> Option:
    assert given.strike is not None
    assert given.expires_at_us is not None
    assert given.forward_feed is not None
    assert given.volatility_feed is not None
    _step(f"{path}.strike", given.strike)
    return Option(
        is_call=given.right == "call",
        strike=given.strike,
        expires_us=given.expires_at_us,
        forward_feed=feed_index(feeds, f"{path}.forward_feed", given.forward_feed),
        volatility_feed=feed_index(
            feeds, f"{path}.volatility_feed", given.volatility_feed, "state"
        ),
        rate_feed=_optional_feed(feeds, f"{path}.rate_feed", given.rate_feed, "state"),
        quality_feed=_optional_feed(feeds, f"{path}.quality_feed", given.quality_feed, "state"),
        is_premium=given.settlement == "premium",
    )


def _step(path: str, text: str) -> Step:
    try:
        return Step.from_text(text)
    except ValueError as error:
        raise config_error(path=path, value=text, limit=f"a positive decimal ({error})") from error
