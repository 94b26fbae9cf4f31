"""A rulebook resolved: dense indices, exact steps, and the flat parameters the kernel reads.

Loose YAML becomes a validated model once (`rules.source`, `rules.model`); here contradictions
between its parts are refused and everything is looked up, so that arithmetic looks up nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solvent.domain.instrument import Asset, Feed, Instrument, Step
from solvent.domain.policy import LiquidationPolicy, OraclePolicy
from solvent.kernel.layout import (
    ASSET_BORROWABLE,
    ASSET_LISTED,
    LEVELS,
    NONE,
    Float64,
    Rules,
)
from solvent.rules.model import (
    CollateralModel,
    PresetModel,
    RateModel,
    RulebookModel,
    StateOracleModel,
)
from solvent.rules.source import builtin_names, builtin_text, config_error, read_model
from solvent.units import PPM

__all__ = [
    "CompiledRulebook",
    "builtin_rulebook",
    "compile_rulebook",
    "find_rulebook",
    "load_rulebook",
    "parse_rulebook",
]

_MAX_TICK_DENOMINATOR = 1_000
_MAX_TICK_NUMERATOR = 10**9
_MIN_PRICE_EXPONENT = -12
#: Keys of an oracle override that a state feed has no use for.
_OF_AGGREGATES = ("max_conf_ppm", "min_sources", "quorum_ppm", "band_ppm")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledRulebook:
    """A rulebook ready for use; indices of feeds, assets and instruments are tuple positions.

    Attributes
    ----------
    id, version, hash : str, int, str
        Its name, and the SHA-256 (hex) of the resolved model as canonical JSON.
    effective_at_us : int
        Event time from which it acts.
    model : RulebookModel
        What was read, defaults filled in.
    rules : Rules
        Flat parameters of the kernel; its arrays are never written again.
    feeds, assets, instruments : tuple
        In index order; the settlement asset is asset 0, instruments ascend by id.
    feed_by_name, asset_by_name, instrument_by_name : mapping
        The same by name.
    policies : tuple of LiquidationPolicy
        By preset index.
    preset_by_class : mapping
        Account class to preset index.
    default_preset : int
        Preset of an account without a class.
    oracle : tuple of OraclePolicy
        By feed index.
    max_future_us : int
        How far event time may run ahead of the broker's record time.
    """

    id: str
    version: int
    hash: str
    effective_at_us: int
    model: RulebookModel
    rules: Rules
    feeds: tuple[Feed, ...]
    assets: tuple[Asset, ...]
    instruments: tuple[Instrument, ...]
    feed_by_name: Mapping[str, Feed]
    asset_by_name: Mapping[str, Asset]
    instrument_by_name: Mapping[str, Instrument]
    policies: tuple[LiquidationPolicy, ...]
    preset_by_class: Mapping[str, int]
    default_preset: int
    oracle: tuple[OraclePolicy, ...]
    max_future_us: int

    @property
    def reference(self) -> dict[str, str | int]:
        """What outputs say of it: ``{"id", "version", "hash"}``."""
        return {"id": self.id, "version": self.version, "hash": self.hash}


def load_rulebook(source: Path | str) -> CompiledRulebook:
    """Compile a rulebook from a file (`Path`) or from YAML text (`str`).

    Raises
    ------
    ConfigError
        [SLV-402] Something in it is not allowed; the message names path, value and limit.
    """
    return compile_rulebook(read_model(source))


def parse_rulebook(text: str) -> CompiledRulebook:
    """Compile a rulebook from YAML text; raises as `load_rulebook`."""
    return compile_rulebook(read_model(text))


def builtin_rulebook(name: str) -> CompiledRulebook:
    """Compile a rulebook that travels with the package; raises as `load_rulebook`."""
    return compile_rulebook(read_model(builtin_text(name)))


def find_rulebook(name_or_path: Path | str) -> CompiledRulebook:
    """Compile the rulebook at a path or, where no such file is, the built-in one of that name.

    Raises
    ------
    ConfigError
        [SLV-402] Neither exists, or something in it is not allowed.
    """
    path = Path(name_or_path)
    if not path.exists() and str(name_or_path) in builtin_names():
        return builtin_rulebook(str(name_or_path))
    return load_rulebook(path)


def compile_rulebook(model: RulebookModel) -> CompiledRulebook:
    """Resolve a checked model; raises ConfigError where its parts contradict each other."""
    feeds = _feeds(model)
    price_feeds = {feed.name: feed for feed in feeds if not feed.is_state}
    assets = _assets(model, price_feeds)
    asset_by_name = {asset.name: asset for asset in assets}
    instruments = _instruments(model, price_feeds, asset_by_name)
    rates = [_rates(model, name, preset) for name, preset in model.presets.items()]
    policies = tuple(
        _policy(index, name, preset, tuple(rates[index][i.name] for i in instruments))
        for index, (name, preset) in enumerate(model.presets.items())
    )
    preset_index = {name: index for index, name in enumerate(model.presets)}
    for account_class, preset in model.bindings.items():
        if preset not in preset_index:
            raise config_error(
                path=f"bindings.{account_class}", value=preset, limit=_one_of(preset_index)
            )
    if model.default_class not in model.bindings:
        raise config_error(
            path="default_class", value=model.default_class, limit=_one_of(model.bindings)
        )
    preset_by_class = {name: preset_index[preset] for name, preset in model.bindings.items()}
    return CompiledRulebook(
        id=model.rulebook.id,
        version=model.rulebook.version,
        hash=_hash(model),
        effective_at_us=model.rulebook.effective_at_us,
        model=model,
        rules=_flat_rules(model, feeds, assets, instruments, policies),
        feeds=feeds,
        assets=assets,
        instruments=instruments,
        feed_by_name={feed.name: feed for feed in feeds},
        asset_by_name=asset_by_name,
        instrument_by_name={instrument.name: instrument for instrument in instruments},
        policies=policies,
        preset_by_class=preset_by_class,
        default_preset=preset_by_class[model.default_class],
        oracle=_oracle(model, feeds),
        max_future_us=model.limits.max_future_us,
    )


def _one_of(names: Mapping[str, object]) -> str:
    return "one of " + ", ".join(names)


def _feeds(model: RulebookModel) -> tuple[Feed, ...]:
    for name, feed in model.feeds.items():
        if feed.kind == "price" and feed.exponent < _MIN_PRICE_EXPONENT:
            limit = f"at least {_MIN_PRICE_EXPONENT} for prices"
            raise config_error(path=f"feeds.{name}.exponent", value=feed.exponent, limit=limit)
    return tuple(
        Feed(index=index, name=name, exponent=feed.exponent, kind=feed.kind)
        for index, (name, feed) in enumerate(model.feeds.items())
    )


def _feed_index(feed_by_name: Mapping[str, Feed], path: str, name: str) -> int:
    if name not in feed_by_name:
        raise config_error(path=path, value=name, limit=_one_of(feed_by_name))
    return feed_by_name[name].index


def _assets(model: RulebookModel, feed_by_name: Mapping[str, Feed]) -> tuple[Asset, ...]:
    settlement = model.rulebook.settlement_asset
    if settlement not in model.assets:
        raise config_error(
            path="rulebook.settlement_asset", value=settlement, limit=_one_of(model.assets)
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
            feed = None
        elif asset.index_feed is None:
            raise config_error(
                path=f"{path}.index_feed", value=None, limit="required but for the settlement asset"
            )
        else:
            feed = _feed_index(feed_by_name, f"{path}.index_feed", asset.index_feed)
        assets.append(
            Asset(
                index=index,
                name=name,
                quantum_exponent=asset.quantum_exponent,
                index_feed=feed,
                is_borrowable=asset.borrowable,
            )
        )
    return tuple(assets)


def _instruments(
    model: RulebookModel, feed_by_name: Mapping[str, Feed], asset_by_name: Mapping[str, Asset]
) -> tuple[Instrument, ...]:
    ordered = sorted(model.instruments.items(), key=lambda item: item[1].id)
    instruments: list[Instrument] = []
    for index, (name, model_instrument) in enumerate(ordered):
        path = f"instruments.{name}"
        if name == "cross":
            raise config_error(
                path=path, value=name, limit="any other name: it is that of the cross book"
            )
        if instruments and instruments[-1].id == model_instrument.id:
            limit = f"an id of its own, {instruments[-1].name} has it"
            raise config_error(path=f"{path}.id", value=model_instrument.id, limit=limit)
        if model_instrument.settles_in != model.rulebook.settlement_asset:
            limit = f"the settlement asset {model.rulebook.settlement_asset}"
            raise config_error(
                path=f"{path}.settles_in", value=model_instrument.settles_in, limit=limit
            )
        mark_feed = _feed_index(feed_by_name, f"{path}.mark_feed", model_instrument.mark_feed)
        index_feed = None
        if model_instrument.index_feed is not None:
            index_feed = _feed_index(
                feed_by_name, f"{path}.index_feed", model_instrument.index_feed
            )
        price_exponent = model.feeds[model_instrument.mark_feed].exponent
        tick = _step(f"{path}.tick", model_instrument.tick)
        if tick.exponent < price_exponent:
            limit = f"a multiple of the mark feed's step 1e{price_exponent}"
            raise config_error(path=f"{path}.tick", value=model_instrument.tick, limit=limit)
        instrument = Instrument(
            index=index,
            id=model_instrument.id,
            name=name,
            kind=model_instrument.kind,
            lot=_step(f"{path}.lot", model_instrument.lot),
            tick=tick,
            mark_feed=mark_feed,
            index_feed=index_feed,
            price_exponent=price_exponent,
            settles_in=asset_by_name[model_instrument.settles_in].index,
        )
        value = instrument.tick_value
        if value.denominator > _MAX_TICK_DENOMINATOR or value.numerator > _MAX_TICK_NUMERATOR:
            limit = (
                "lot * tick * 1e6 is a fraction of at most "
                f"{_MAX_TICK_NUMERATOR}/{_MAX_TICK_DENOMINATOR}"
            )
            shown = (
                f"lot {model_instrument.lot} * tick {model_instrument.tick} = "
                f"{value.numerator}/{value.denominator} micros"
            )
            raise config_error(path=path, value=shown, limit=limit)
        instruments.append(instrument)
    return tuple(instruments)


def _step(path: str, text: str) -> Step:
    try:
        return Step.from_text(text)
    except ValueError as error:
        raise config_error(path=path, value=text, limit=f"a positive decimal ({error})") from error


def _check_levels(path: str, key: Callable[[str], str], values: tuple[int, int, int]) -> None:
    """Refuse levels that are not initial >= liquidation_end >= maintenance (MODEL.md 3.1)."""
    initial, end, maintenance = values
    if end < maintenance:
        limit = f"at least {key('maintenance')} {maintenance}"
        raise config_error(path=f"{path}.{key('liquidation_end')}", value=end, limit=limit)
    if initial < end:
        limit = f"at least {key('liquidation_end')} {end} (maintenance {maintenance})"
        raise config_error(path=f"{path}.{key('initial')}", value=initial, limit=limit)


def _rates(
    model: RulebookModel, preset_name: str, preset: PresetModel
) -> dict[str, tuple[int, int, int]]:
    """Return rates by market in level order, each market exactly once."""
    rates: dict[str, tuple[int, int, int]] = {}
    root = f"presets.{preset_name}.requirement.sum"
    for index, term in enumerate(preset.requirement.sum):
        for market, rate in term.markets.items():
            path = f"{root}.{index}.markets.{market}"
            if market not in model.instruments:
                raise config_error(path=path, value=market, limit=_one_of(model.instruments))
            if market in rates:
                raise config_error(path=path, value=market, limit="each market in one term")
            rates[market] = _rate_levels(path, rate, preset.liquidation.end.buffer_ppm)
    missing = [market for market in model.instruments if market not in rates]
    if missing:
        raise config_error(path=root, value=missing, limit="every market needs a rate")
    return rates


def _rate_levels(path: str, rate: RateModel, buffer_ppm: int) -> tuple[int, int, int]:
    end = rate.liquidation_end_rate_ppm
    if end is None:
        end = rate.maintenance_rate_ppm + buffer_ppm
    levels = (rate.initial_rate_ppm, end, rate.maintenance_rate_ppm)
    _check_levels(path, lambda level: f"{level}_rate_ppm", levels)
    return levels


def _policy(
    index: int, name: str, preset: PresetModel, rates: tuple[tuple[int, int, int], ...]
) -> LiquidationPolicy:
    liquidation = preset.liquidation
    return LiquidationPolicy(
        index=index,
        name=name,
        initial_rate_ppm=tuple(rate[0] for rate in rates),
        liquidation_end_rate_ppm=tuple(rate[1] for rate in rates),
        maintenance_rate_ppm=tuple(rate[2] for rate in rates),
        clear_ppm=preset.margin_call.clear_ppm,
        liquidator_fee_ppm=liquidation.liquidator_fee_ppm,
        fund_fee_max_ppm=liquidation.fund_fee_max_ppm,
        spread_ppm=liquidation.fillable.spread_ppm,
        adjustment_ppm=liquidation.fillable.adjustment_ppm,
        dust_micros=liquidation.dust_micros,
        offer_ttl_us=liquidation.offer_ttl_us,
    )


def _haircuts(path: str, listed: CollateralModel) -> tuple[int, int, int]:
    end = listed.liquidation_end_haircut_ppm
    end = listed.maintenance_haircut_ppm if end is None else end
    levels = (listed.initial_haircut_ppm, end, listed.maintenance_haircut_ppm)
    _check_levels(path, lambda level: f"{level}_haircut_ppm", levels)
    return levels


def _surcharges(path: str, listed: CollateralModel) -> tuple[int, int, int]:
    end = listed.liquidation_end_surcharge_ppm
    end = listed.maintenance_surcharge_ppm if end is None else end
    levels = (listed.initial_surcharge_ppm, end, listed.maintenance_surcharge_ppm)
    _check_levels(path, lambda level: f"{level}_surcharge_ppm", levels)
    return levels


def _flat_rules(
    model: RulebookModel,
    feeds: tuple[Feed, ...],
    assets: tuple[Asset, ...],
    instruments: tuple[Instrument, ...],
    policies: tuple[LiquidationPolicy, ...],
) -> Rules:
    shape = (len(policies), len(LEVELS))
    asset_weight = np.zeros((*shape, len(assets)))  # not listed: weight 0
    debt_weight = np.ones((*shape, len(assets)))
    requirement_rate = np.zeros((*shape, len(instruments)))
    asset_by_name = {asset.name: asset for asset in assets}
    asset_flags = np.array([ASSET_BORROWABLE * a.is_borrowable for a in assets], dtype=np.uint8)
    for row, (preset_name, preset) in enumerate(model.presets.items()):
        root = f"presets.{preset_name}.collateral"
        if assets[0].name not in preset.collateral:
            raise config_error(
                path=root, value=list(preset.collateral), limit=f"needs {assets[0].name}"
            )
        for name, listed in preset.collateral.items():
            path = f"{root}.{name}"
            if name not in asset_by_name:
                raise config_error(path=path, value=name, limit=_one_of(asset_by_name))
            haircuts, surcharges = _haircuts(path, listed), _surcharges(path, listed)
            if name == assets[0].name and any((*haircuts, *surcharges)):
                limit = "0 at every level: pnl becomes settlement asset one to one"
                raise config_error(path=path, value=max((*haircuts, *surcharges)), limit=limit)
            index = asset_by_name[name].index
            asset_weight[row, :, index] = [(PPM - haircut) / PPM for haircut in haircuts]
            debt_weight[row, :, index] = [(PPM + surcharge) / PPM for surcharge in surcharges]
            asset_flags[index] |= ASSET_LISTED
        policy = policies[row]
        by_level = (
            policy.initial_rate_ppm,
            policy.liquidation_end_rate_ppm,
            policy.maintenance_rate_ppm,
        )
        for level, rates in enumerate(by_level):
            requirement_rate[row, level] = [rate / PPM for rate in rates]

    def powers(exponents: list[int]) -> Float64:
        return np.array([float(10**-exponent) for exponent in exponents], dtype=np.float64)

    return Rules(
        asset_weight=asset_weight,
        debt_weight=debt_weight,
        requirement_rate=requirement_rate,
        clear_ppm=np.array([policy.clear_ppm for policy in policies], dtype=np.int64),
        asset_feed=np.array(
            [NONE if asset.index_feed is None else asset.index_feed for asset in assets],
            dtype=np.int32,
        ),
        asset_units=powers([asset.quantum_exponent for asset in assets]),
        asset_flags=asset_flags,
        instrument_feed=np.array([i.mark_feed for i in instruments], dtype=np.int32),
        lot_numerator=np.array([float(i.lot.numerator) for i in instruments], dtype=np.float64),
        lot_units=powers([i.lot.exponent for i in instruments]),
        tick_numerator=np.array([i.tick_value.numerator for i in instruments], dtype=np.int64),
        tick_denominator=np.array([i.tick_value.denominator for i in instruments], dtype=np.int64),
        feed_units=powers([feed.exponent for feed in feeds]),
        feed_is_state=np.array([feed.is_state for feed in feeds], dtype=np.uint8),
        grace_us=model.oracle.default.grace_us,
        settlement_asset=0,
    )


def _oracle(model: RulebookModel, feeds: tuple[Feed, ...]) -> tuple[OraclePolicy, ...]:
    known = {feed.name: feed for feed in feeds}
    for name in model.oracle.feeds:
        _feed_index(known, f"oracle.feeds.{name}", name)
    default = model.oracle.default.model_dump()
    of_states = {**default, **model.oracle.state.model_dump()}
    policies = []
    for feed in feeds:
        override = model.oracle.feeds.get(feed.name)
        own = {} if override is None else override.model_dump(exclude_none=True)
        for key in _OF_AGGREGATES:
            if feed.is_state and key in own:
                path = f"oracle.feeds.{feed.name}.{key}"
                raise config_error(path=path, value=own[key], limit="a state feed has none")
        policies.append(OraclePolicy(**{**(of_states if feed.is_state else default), **own}))
    return tuple(policies)


def _hash(model: RulebookModel) -> str:
    """Return the SHA-256 of the resolved model; order counts where it fixes an index.

    Keys younger than the first release count only where they say something: state built under a
    rulebook stays that rulebook's.
    """
    document = model.model_dump(mode="json")
    for feed in document["feeds"].values():
        if feed["kind"] == "price":
            del feed["kind"]
    if model.oracle.state == StateOracleModel():
        del document["oracle"]["state"]
    for section in ("feeds", "assets", "presets"):
        document[section] = list(document[section].items())
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
