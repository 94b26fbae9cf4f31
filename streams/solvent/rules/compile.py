"""A rulebook resolved: dense indices, exact steps, and the flat parameters the kernel reads.

Loose YAML becomes a validated model once (`rules.source`, `rules.model`); here contradictions
between its parts are refused and everything is looked up, so that arithmetic looks up nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from solvent.domain.breaker import Breaker, LiquidatedVolume
from solvent.domain.instrument import Asset, Feed, Instrument, Underlying
from solvent.domain.policy import InsurancePolicy, LiquidationPolicy, OraclePolicy
from solvent.kernel.evaluate import entry
from solvent.kernel.layout import Rules
from solvent.kernel.scenario_margin import grid_points
from solvent.kernel.workspace import Workspace, new_workspace
from solvent.rules.breakers import resolve_breakers
from solvent.rules.document import ORDERED_SECTIONS, resolved_document
from solvent.rules.flatten import flatten
from solvent.rules.model import InsuranceModel, RulebookModel
from solvent.rules.resolve import (
    bounded_feeds,
    one_of,
    resolve_assets,
    resolve_instruments,
    resolve_underlyings,
)
from solvent.rules.source import (
    builtin_names,
    builtin_text,
    config_error,
    read_document,
    read_model,
)

__all__ = [
    "CompiledRulebook",
    "builtin_rulebook",
    "compile_document",
    "compile_rulebook",
    "find_rulebook",
    "load_rulebook",
    "parse_rulebook",
]

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
    feeds, assets, underlyings, instruments : tuple
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
    insurance : InsurancePolicy or None
        Who pays what liquidations leave; None: nobody.
    breakers : tuple of Breaker
        By name.
    """

    id: str
    version: int
    hash: str
    effective_at_us: int
    model: RulebookModel
    rules: Rules
    feeds: tuple[Feed, ...]
    assets: tuple[Asset, ...]
    underlyings: tuple[Underlying, ...]
    instruments: tuple[Instrument, ...]
    feed_by_name: Mapping[str, Feed]
    asset_by_name: Mapping[str, Asset]
    instrument_by_name: Mapping[str, Instrument]
    policies: tuple[LiquidationPolicy, ...]
    preset_by_class: Mapping[str, int]
    default_preset: int
    oracle: tuple[OraclePolicy, ...]
    max_future_us: int
    insurance: InsurancePolicy | None
    breakers: tuple[Breaker, ...]

    @property
    def document(self) -> bytes:
        """The resolved rulebook as JSON, for `compile_document`."""
        return json.dumps(resolved_document(self.model), separators=(",", ":")).encode()

    @property
    def reference(self) -> dict[str, str | int]:
        """What outputs say of it: ``{"id", "version", "hash"}``."""
        return {"id": self.id, "version": self.version, "hash": self.hash}

    @property
    def volume_markets(self) -> frozenset[str]:
        """Markets of which breakers watch what is liquidated."""
        watching = [each for each in self.breakers if isinstance(each.driver, LiquidatedVolume)]
        return frozenset(market for each in watching for market in each.feed_by_market)

    @property
    def has_feedback(self) -> bool:
        """Whether margin partitions tell the price side anything (``losses.v1``)."""
        return self.insurance is not None or bool(self.volume_markets)

    def workspace(self) -> Workspace:
        """Return room for one evaluation at a time."""
        terms = self.rules.terms
        scenarios = int(terms.scans["scenario_count"].max(initial=0))
        return new_workspace(
            instruments=len(self.instruments),
            assets=len(self.assets),
            expiries=len(terms.expiries),
            underlyings=len(self.underlyings),
            scans=len(terms.scans),
            points=grid_points(scenarios),
            entry=entry(),
        )


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


@lru_cache(maxsize=8)
def compile_document(document: bytes) -> CompiledRulebook:
    """Compile a resolved rulebook as it travels on topics: JSON, as `CompiledRulebook.document`.

    A worker's shards read the same document one after the other, so the last ones are kept.

    Raises
    ------
    ConfigError
        [SLV-402] Something in it is not allowed; the message names path, value and limit.
    """
    return compile_rulebook(read_document(document))


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
    feed_by_name = {feed.name: feed for feed in feeds}
    assets = resolve_assets(model, feed_by_name)
    asset_by_name = {asset.name: asset for asset in assets}
    underlyings = resolve_underlyings(model, feed_by_name)
    instruments = resolve_instruments(model, feed_by_name, asset_by_name)
    feeds = bounded_feeds(feeds, assets, instruments)
    feed_by_name = {feed.name: feed for feed in feeds}
    rules, policies = flatten(model, feeds, assets, underlyings, instruments)
    preset_index = {name: index for index, name in enumerate(model.presets)}
    for account_class, preset in model.bindings.items():
        if preset not in preset_index:
            raise config_error(
                path=f"bindings.{account_class}", value=preset, limit=one_of(preset_index)
            )
    if model.default_class not in model.bindings:
        raise config_error(
            path="default_class", value=model.default_class, limit=one_of(model.bindings)
        )
    preset_by_class = {name: preset_index[preset] for name, preset in model.bindings.items()}
    return CompiledRulebook(
        id=model.rulebook.id,
        version=model.rulebook.version,
        hash=_hash(model),
        effective_at_us=model.rulebook.effective_at_us,
        model=model,
        rules=rules,
        feeds=feeds,
        assets=assets,
        underlyings=underlyings,
        instruments=instruments,
        feed_by_name=feed_by_name,
        asset_by_name=asset_by_name,
        instrument_by_name={instrument.name: instrument for instrument in instruments},
        policies=policies,
        preset_by_class=preset_by_class,
        default_preset=preset_by_class[model.default_class],
        oracle=_oracle(model, feeds),
        max_future_us=model.limits.max_future_us,
        insurance=_insurance(model.insurance),
        breakers=resolve_breakers(model, feeds, instruments),
    )


def _insurance(model: InsuranceModel | None) -> InsurancePolicy | None:
    if model is None:
        return None
    draws = model.draws
    return InsurancePolicy(
        opening_micros=model.opening_micros,
        draw_span_us=None if draws is None else draws.span_us,
        draw_limit_micros=None if draws is None else draws.limit_micros,
        deleverage_after_us=model.deleverage_after_us,
        is_socialising=model.socialise,
    )


def _feeds(model: RulebookModel) -> tuple[Feed, ...]:
    for name, feed in model.feeds.items():
        if feed.kind == "price" and feed.exponent < _MIN_PRICE_EXPONENT:
            limit = f"at least {_MIN_PRICE_EXPONENT} for prices"
            raise config_error(path=f"feeds.{name}.exponent", value=feed.exponent, limit=limit)
    return tuple(
        Feed(index=index, name=name, exponent=feed.exponent, kind=feed.kind)
        for index, (name, feed) in enumerate(model.feeds.items())
    )


def _oracle(model: RulebookModel, feeds: tuple[Feed, ...]) -> tuple[OraclePolicy, ...]:
    known = {feed.name: feed for feed in feeds}
    for name in model.oracle.feeds:
        if name not in known:
            raise config_error(path=f"oracle.feeds.{name}", value=name, limit=one_of(known))
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

    What equals its default is left out, so that a key added to the schema later changes no hash.
    """
    document = model.model_dump(mode="json", exclude_defaults=True)
    for section in ORDERED_SECTIONS:
        document[section] = list(document.get(section, {}).items())
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
