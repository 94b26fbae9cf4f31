"""Presets as the flat parameters the kernel reads: weights and rates, and the rows of all terms.

Whatever contradicts itself, or leaves a market or an asset without what it needs, is a ConfigError
that names path, value and limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, inf
from typing import Any, Final

import numpy as np

from solvent.domain.impact import MarketDepth
from solvent.domain.instrument import Asset, Feed, Instrument, Underlying
from solvent.domain.lending import CloseFactor
from solvent.domain.policy import LendingPolicy, LiquidationPolicy
from solvent.domain.schedule import Auction, Lease, Release, Window
from solvent.kernel.elementary import logarithm
from solvent.kernel.layout import (
    ASSET_BORROWABLE,
    ASSET_LISTED,
    INITIAL,
    LEVELS,
    LIQUIDATION_END,
    MAINTENANCE,
    NONE,
    Float64,
    Rules,
)
from solvent.kernel.scenario_margin import DIRECTIONS, MAX_SCENARIOS
from solvent.kernel.terms import (
    ASSET,
    ASSET_TERMS,
    BRACKET,
    BRACKETS,
    CHARGE,
    EXPIRY,
    HAIRCUT,
    INSTRUMENT,
    KIND_INVERSE,
    KIND_LINEAR,
    KIND_OPTION,
    MARGINED_AS_BOOK,
    MARKET_TERMS,
    MAX_STEPS,
    PRESET_TERMS,
    RATE,
    SCAN,
    SKEWED,
    SLIPPAGE,
    STANDARD,
    STEP,
    STEP_CALENDAR,
    STEP_CONTINGENCIES,
    STEP_DELTA_FLOOR,
    STEP_MAX,
    STEP_MIN,
    STEP_SCALE,
    STEP_SCAN,
    STEP_SHORT_MINIMUM,
    STEP_STANDARD,
    STEP_SUM,
    TIER,
    TIERS_OF_COINS,
    TIERS_OF_VALUE,
    UNDERLYING,
    Terms,
)
from solvent.rules.model import LendingModel, LiquidationModel, PresetModel, RulebookModel
from solvent.rules.resolve import feed_index, one_of
from solvent.rules.source import config_error
from solvent.rules.terms import (
    BracketModel,
    BracketsTermModel,
    CalendarTermModel,
    CategoryModel,
    CollateralModel,
    ContingenciesTermModel,
    DeltaFloorTermModel,
    FlatTermModel,
    MarketPnlModel,
    OptionStandardTermModel,
    OwnLeverageTermModel,
    RateModel,
    ScanTermModel,
    ShortMinimumTermModel,
    SlippageModel,
    SlippageTermModel,
    TierModel,
    TreeModel,
)
from solvent.units import PPM

__all__ = ["flatten"]

_KINDS = {"linear": KIND_LINEAR, "inverse": KIND_INVERSE, "option": KIND_OPTION}
_MARKET_TERMS = FlatTermModel | BracketsTermModel | SlippageTermModel
_ALL_LEVELS = 0b111
#: A funding index has so many decimals.
_PICO_PLACES = 12
#: The swing holds the initial requirement twice, which is at least maintenance.
_STEADY_RATIO = 2.0


def flatten(
    model: RulebookModel,
    feeds: tuple[Feed, ...],
    assets: tuple[Asset, ...],
    underlyings: tuple[Underlying, ...],
    instruments: tuple[Instrument, ...],
) -> tuple[Rules, tuple[LiquidationPolicy, ...]]:
    """Return the kernel's parameters, and the liquidation policy of each preset.

    Raises
    ------
    ConfigError
        [SLV-402] Parts of the rulebook contradict each other.
    """
    book = _Presets(model, feeds, assets, underlyings, instruments)
    policies = tuple(book.add(row, name) for row, name in enumerate(model.presets))
    return book.rules(), policies


#: Keys of collateral that let a positive balance count less than it is worth.
_LESS_THAN_WHOLE: Final = (
    *(f"{level}_haircut_ppm" for level in ("initial", "liquidation_end", "maintenance")),
    *("tiers", "skew", "imf", "pool", "cap", "cap_micros"),
)


def _powers(exponents: Sequence[int]) -> Float64:
    return np.array([float(10**-exponent) for exponent in exponents], dtype=np.float64)


def _none(index: int | None) -> int:
    return NONE if index is None else index


def _check_order(
    path: str, key: Callable[[str], str], values: tuple[int, int, int], *, rising: bool = False
) -> None:
    """Refuse levels that are not initial >= liquidation_end >= maintenance (MODEL.md 3.1).

    `rising`: what grows as levels grow laxer, as a weight does.
    """
    initial, end, maintenance = values
    sign = -1 if rising else 1
    word = "at most" if rising else "at least"
    if sign * end < sign * maintenance:
        limit = f"{word} {key('maintenance')} {maintenance}"
        raise config_error(path=f"{path}.{key('liquidation_end')}", value=end, limit=limit)
    if sign * initial < sign * end:
        limit = f"{word} {key('liquidation_end')} {end} (maintenance {maintenance})"
        raise config_error(path=f"{path}.{key('initial')}", value=initial, limit=limit)


def _haircuts(path: str, given: CollateralModel | CategoryModel) -> tuple[int, int, int]:
    initial, maintenance = given.initial_haircut_ppm, given.maintenance_haircut_ppm
    if initial is None or maintenance is None:
        missing = "initial_haircut_ppm" if initial is None else "maintenance_haircut_ppm"
        limit = "required, unless tiers or skew say how it counts"
        raise config_error(path=f"{path}.{missing}", value=None, limit=limit)
    end = given.liquidation_end_haircut_ppm
    levels = (initial, maintenance if end is None else end, maintenance)
    _check_order(path, lambda level: f"{level}_haircut_ppm", levels)
    return levels


def _surcharges(path: str, given: CollateralModel) -> tuple[int, int, int]:
    end = given.liquidation_end_surcharge_ppm
    end = given.maintenance_surcharge_ppm if end is None else end
    levels = (given.initial_surcharge_ppm, end, given.maintenance_surcharge_ppm)
    _check_order(path, lambda level: f"{level}_surcharge_ppm", levels)
    return levels


def _tier_haircuts(path: str, given: TierModel) -> tuple[int, int, int]:
    """Return the haircuts of a tier: one for all levels, or one each."""
    own = (
        given.initial_haircut_ppm,
        given.liquidation_end_haircut_ppm,
        given.maintenance_haircut_ppm,
    )
    if given.haircut_ppm is not None:
        if own != (None, None, None):
            limit = "either haircut_ppm or haircuts by level"
            raise config_error(path=path, value=given.haircut_ppm, limit=limit)
        return (given.haircut_ppm,) * 3
    initial, end, maintenance = own
    if initial is None or maintenance is None:
        raise config_error(path=f"{path}.haircut_ppm", value=None, limit="required")
    levels = (initial, maintenance if end is None else end, maintenance)
    _check_order(path, lambda level: f"{level}_haircut_ppm", levels)
    return levels


def _weights(haircuts: tuple[int, int, int]) -> list[float]:
    return [(PPM - haircut) / PPM for haircut in haircuts]


class _Rows:
    """Rows of one dtype that grow while presets are read."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._rows: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, **fields: object) -> int:
        """Add a row and return its index; fields left out are 0."""
        self._rows.append(fields)
        return len(self._rows) - 1

    def array(self) -> np.ndarray[Any, Any]:
        """Return the rows."""
        array = np.zeros(len(self._rows), self._dtype)
        for index, fields in enumerate(self._rows):
            for name, value in fields.items():
                array[name][index] = value
        return array


class _Presets:
    """All presets, one after the other."""

    def __init__(
        self,
        model: RulebookModel,
        feeds: tuple[Feed, ...],
        assets: tuple[Asset, ...],
        underlyings: tuple[Underlying, ...],
        instruments: tuple[Instrument, ...],
    ) -> None:
        self._model = model
        self._feeds = feeds
        self._feed_by_name = {feed.name: feed for feed in feeds}
        self._assets = assets
        self._asset_by_name = {asset.name: asset for asset in assets}
        self._underlyings = underlyings
        self._instruments = instruments
        count, width, breadth = len(model.presets), len(assets), len(instruments)
        shape = (count, len(LEVELS))
        self._categories = sorted(
            {asset.category for asset in model.assets.values() if asset.category is not None}
        )
        self._asset_weight = np.zeros((*shape, width))  # not listed: weight 0
        self._debt_weight = np.ones((*shape, width))
        self._rate = np.zeros((*shape, breadth))
        self._asset_flags = np.array(
            [ASSET_BORROWABLE * asset.is_borrowable for asset in assets], np.uint8
        )
        self._clear_ppm = np.zeros(count, np.int64)
        self._is_plain = np.zeros(count, np.uint8)
        self._is_steady = np.zeros(count, np.uint8)
        self._preset = np.zeros(count, PRESET_TERMS)
        self._asset = _plain_assets((count, width))
        self._market = _plain_markets((count, breadth))
        self._category_weight = np.full((count, len(self._categories), len(LEVELS)), -1.0)
        self._tiers, self._brackets = _Rows(TIER), _Rows(BRACKET)
        self._steps, self._standards = _Rows(STEP), _Rows(STANDARD)
        self._scans, self._charges = _Rows(SCAN), _Rows(CHARGE)
        self._scenarios: list[tuple[float, float, int]] = []

    # -- one preset

    def add(self, row: int, name: str) -> LiquidationPolicy:
        """Write the rows of one preset and return its liquidation policy."""
        preset = self._model.presets[name]
        path = f"presets.{name}"
        self._clear_ppm[row] = preset.margin_call.clear_ppm
        self._add_collateral(row, f"{path}.collateral", preset)
        self._add_categories(row, f"{path}.categories", preset)
        rates = self._add_requirement(row, f"{path}.requirement", preset)
        self._check_underlyings_held(path, preset)
        self._add_pnl(row, f"{path}.pnl", preset)
        self._add_unit_terms(row, path, preset)
        self._is_plain[row] = self._looks_plain(row)
        self._is_steady[row] = self._looks_steady(row)
        liquidation = preset.liquidation
        return LiquidationPolicy(
            index=row,
            name=name,
            initial_rate_ppm=tuple(rate[INITIAL] for rate in rates),
            liquidation_end_rate_ppm=tuple(rate[LIQUIDATION_END] for rate in rates),
            maintenance_rate_ppm=tuple(rate[MAINTENANCE] for rate in rates),
            clear_ppm=preset.margin_call.clear_ppm,
            liquidator_fee_ppm=liquidation.liquidator_fee_ppm,
            fund_fee_max_ppm=liquidation.fund_fee_max_ppm,
            spread_ppm=liquidation.fillable.spread_ppm,
            adjustment_ppm=liquidation.fillable.adjustment_ppm,
            dust_micros=liquidation.dust_micros,
            offer_ttl_us=liquidation.offer_ttl_us,
            is_plain=(
                bool(self._is_plain[row])
                and liquidation.sizing == "shortage"
                and liquidation.lending is None
            ),
            **self._sizing(f"{path}.liquidation", liquidation),
        )

    def _sizing(self, path: str, liquidation: LiquidationModel) -> dict[str, Any]:
        """Return what a liquidation policy says of sizes beyond fees."""
        found: dict[str, Any] = {"sizing": liquidation.sizing}
        for sizing, section in (("steps", liquidation.steps), ("slice", liquidation.auction)):
            key = "auction" if sizing == "slice" else sizing
            if (liquidation.sizing == sizing) != (section is not None):
                limit = f"given where sizing is {sizing}, and only there"
                raise config_error(path=f"{path}.{key}", value=section, limit=limit)
        if liquidation.steps is not None:
            found["step_ppm"] = liquidation.steps.step_ppm
            found["step_below_ppm"] = liquidation.steps.below_ppm
        if liquidation.auction is not None:
            auction = liquidation.auction
            if auction.cutoff_ppm > auction.start_ppm:
                limit = f"at most start_ppm {auction.start_ppm}"
                at = f"{path}.auction.cutoff_ppm"
                raise config_error(path=at, value=auction.cutoff_ppm, limit=limit)
            found["auction"] = Auction(
                auction.start_ppm, auction.cutoff_ppm, auction.fast_us, auction.slow_us
            )
            found["auction_buffer_ppm"] = auction.buffer_ppm
        if liquidation.lending is not None:
            found["lending"] = self._lending(f"{path}.lending", liquidation.lending)
        if liquidation.lease is not None:
            found["lease"] = _lease(f"{path}.lease", liquidation)
        return found | self._rations(path, liquidation)

    def _rations(self, path: str, given: LiquidationModel) -> dict[str, Any]:
        """Return what may withhold a part of a plan."""
        found: dict[str, Any] = {}
        sections = {"release": given.release, "window": given.window, "depth": given.depth}
        for key, section in sections.items():
            if section is not None and (given.lending is not None or given.auction is not None):
                limit = "none with lending or auction: it holds for orders of single markets"
                raise config_error(path=f"{path}.{key}", value=section.model_dump(), limit=limit)
        if given.release is not None:
            found["release"] = Release(**given.release.model_dump())
            insurance = self._model.insurance
            most_us = None if insurance is None else insurance.deleverage_after_us
            if most_us is not None and given.release.duration_us >= most_us:
                at = f"{path}.release.duration_us"
                limit = f"below insurance.deleverage_after_us {most_us}: phases end before it"
                raise config_error(path=at, value=given.release.duration_us, limit=limit)
        if given.window is not None:
            window = Window(
                given.window.span_us,
                given.window.market_notional_per_partition_micros,
                given.window.account_notional_micros,
                given.window.market_bypass_per_partition_micros,
                given.window.throttle_after_windows,
            )
            if window.market_micros is None and window.account_micros is None:
                limit = "market_notional_per_partition_micros, account_notional_micros or both"
                value = given.window.model_dump(exclude_none=True)
                raise config_error(path=f"{path}.window", value=value, limit=limit)
            for key in ("market_bypass_per_partition_micros", "throttle_after_windows"):
                value = getattr(given.window, key)
                if value is not None and window.market_micros is None:
                    limit = "none without market_notional_per_partition_micros, which it is about"
                    raise config_error(path=f"{path}.window.{key}", value=value, limit=limit)
            found["window"] = window
        if given.depth is not None:
            index_of = {instrument.name: instrument.index for instrument in self._instruments}
            for name in given.depth.markets:
                if name not in index_of:
                    at = f"{path}.depth.markets.{name}"
                    raise config_error(path=at, value=name, limit=one_of(index_of))
            found["depth"] = {
                index_of[name]: MarketDepth(
                    market.daily_volume_micros,
                    market.volatility_ppm,
                    given.depth.y_ppm,
                    given.depth.max_impact_ppm,
                )
                for name, market in given.depth.markets.items()
            }
        return found

    def _lending(self, path: str, given: LendingModel) -> LendingPolicy:
        for name in given.bonus_by_asset_ppm:
            if name not in self._asset_by_name:
                at = f"{path}.bonus_by_asset_ppm.{name}"
                raise config_error(path=at, value=name, limit=one_of(self._asset_by_name))
        factor, target, shortage = given.close_factor, given.target_health, given.shortage
        if target is not None and shortage is not None:
            limit = "either target_health or shortage"
            raise config_error(path=f"{path}.shortage", value=shortage.model_dump(), limit=limit)
        left_usd = (target or shortage or factor).least_left_usd
        return LendingPolicy(
            bonus_ppm=given.bonus_ppm,
            bonus_by_asset={
                self._asset_by_name[name].index: ppm
                for name, ppm in given.bonus_by_asset_ppm.items()
            },
            protocol_share_ppm=given.protocol_share_ppm,
            close_factor=CloseFactor(
                factor.normal_ppm, factor.full_at_ppm, factor.full_below_usd * PPM
            ),
            least_left_micros=left_usd * PPM,
            target_ppm=None if target is None else target.target_ppm,
            bonus_factor_ppm=PPM if target is None else target.bonus_factor_ppm,
            full_bonus_at_ppm=PPM if target is None else target.full_bonus_at_ppm,
            is_by_shortage=shortage is not None,
        )

    def _looks_plain(self, row: int) -> bool:
        """Tell whether weights and flat rates say all there is to say (C1, P1, R1)."""
        plain_unit = np.zeros((), PRESET_TERMS)
        plain_unit["first_step"] = self._preset[row]["first_step"]
        plain_market = _plain_markets(1)[0]
        plain_market["kind"] = RATE
        plain_market["rate_ppm"] = NONE  # rates differ, and `Rules` has them
        market = self._market[row].copy()
        market["rate_ppm"] = NONE
        return (
            _are_same(self._preset[row], plain_unit)
            and _are_same(self._asset[row], _plain_assets(1)[0])
            and _are_same(market, plain_market)
            and bool((self._category_weight[row] < 0.0).all())
            and all(
                instrument.kind == "linear"
                and instrument.settles_in == 0
                and instrument.funding_feed is None
                for instrument in self._instruments
            )
            and all(
                asset.deposit_index_feed is None and asset.borrow_index_feed is None
                for asset in self._assets
            )
        )

    def _looks_steady(self, row: int) -> bool:
        """Tell whether amounts move by at most the sizes at stake (`solvent.kernel.safe_move`).

        They do not where two feeds multiply (open interest and mark, borrows and index, coin and
        mark), where whole books are revalued, and where confidence counts, which no band of prices
        holds.
        """
        of_unit, asset, market = self._preset[row], self._asset[row], self._market[row]
        return bool(
            of_unit["step_count"] == 0
            and of_unit["end_ratio"] <= _STEADY_RATIO
            and (not of_unit["is_fold"] or asset["imf"][0] == 0.0)
            and (asset["confidence_k"] == 0.0).all()
            and (asset["borrows_feed"] == NONE).all()
            and (market["interest_feed"] == NONE).all()
            and all(i.kind == "linear" and i.settles_in == 0 for i in self._instruments)
        )

    # -- collateral

    def _add_collateral(self, row: int, root: str, preset: PresetModel) -> None:
        settlement = self._assets[0].name
        if settlement not in preset.collateral:
            raise config_error(
                path=root, value=list(preset.collateral), limit=f"needs {settlement}"
            )
        for name, given in preset.collateral.items():
            path = f"{root}.{name}"
            if name not in self._asset_by_name:
                raise config_error(path=path, value=name, limit=one_of(self._asset_by_name))
            index = self._asset_by_name[name].index
            surcharges = _surcharges(path, given)
            self._debt_weight[row, :, index] = [(PPM + ppm) / PPM for ppm in surcharges]
            haircuts = self._add_haircuts(row, index, path, given)
            if name == settlement and (any((*haircuts, *surcharges)) or given.tiers or given.skew):
                limit = "0 at every level: pnl becomes settlement asset one to one"
                raise config_error(path=path, value=max((*haircuts, *surcharges)), limit=limit)
            self._add_asset_terms(row, index, path, given)
            self._asset_flags[index] |= ASSET_LISTED

    def _add_haircuts(
        self, row: int, index: int, path: str, given: CollateralModel
    ) -> tuple[int, int, int]:
        terms = self._asset[row, index]
        ways = [key for key in ("tiers", "skew") if getattr(given, key) is not None]
        levels = ("initial", "liquidation_end", "maintenance")
        has_haircut = any(getattr(given, f"{level}_haircut_ppm") is not None for level in levels)
        if len(ways) + has_haircut > 1:
            limit = "one of haircuts, tiers and skew"
            raise config_error(path=path, value=[*ways, "haircut_ppm"][:2], limit=limit)
        if given.tiers is not None:
            terms["kind"] = TIERS_OF_COINS if given.tiers_in == "coins" else TIERS_OF_VALUE
            terms["first_tier"] = len(self._tiers)
            terms["tier_count"] = len(given.tiers)
            lower = 0.0
            for place, tier in enumerate(given.tiers):
                at = f"{path}.tiers.{place}"
                upper = inf if tier.up_to is None else float(tier.up_to)
                if upper <= lower:
                    limit = f"above that of the tier before, {lower:g}"
                    raise config_error(path=f"{at}.up_to", value=tier.up_to, limit=limit)
                ratio = _weights(_tier_haircuts(at, tier))
                self._tiers.add(upper=upper, ratio=ratio)
                self._asset_weight[row, :, index] = np.maximum(
                    self._asset_weight[row, :, index], ratio
                )
                lower = upper
            return 0, 0, 0
        if given.skew is not None:
            skew = given.skew
            if skew.upper_ppm < skew.lower_ppm:
                limit = f"at least lower_ppm {skew.lower_ppm}"
                raise config_error(path=f"{path}.skew.upper_ppm", value=skew.upper_ppm, limit=limit)
            terms["kind"] = SKEWED
            terms["skew_scale"] = _positive(f"{path}.skew.scale", skew.scale)
            terms["skew_scalar"] = skew.scalar_ppm / PPM
            terms["skew_lower"] = skew.lower_ppm / PPM
            terms["skew_upper"] = skew.upper_ppm / PPM
            self._asset_weight[row, :, index] = (PPM - skew.lower_ppm) / PPM
            return 0, 0, 0
        haircuts = _haircuts(path, given)
        terms["kind"] = HAIRCUT
        self._asset_weight[row, :, index] = _weights(haircuts)
        return haircuts

    def _add_asset_terms(self, row: int, index: int, path: str, given: CollateralModel) -> None:
        terms = self._asset[row, index]
        terms["is_required"] = given.haircut_side == "requirement"
        if given.haircut_side == "requirement" and terms["kind"] in {
            TIERS_OF_COINS,
            TIERS_OF_VALUE,
        }:
            limit = "equity where tiers say how it counts"
            raise config_error(path=f"{path}.haircut_side", value=given.haircut_side, limit=limit)
        for key in ("imf", "pool"):
            if given.tiers is not None and getattr(given, key) is not None:
                limit = "none where tiers say how it counts"
                raise config_error(path=f"{path}.{key}", value=getattr(given, key), limit=limit)
        if given.imf is not None:
            terms["imf"] = float(given.imf)
        if given.cap is not None:
            terms["cap"] = float(given.cap)
        if given.cap_micros is not None:
            terms["cap_value"] = given.cap_micros / PPM
        if given.pool is not None:
            for side in ("deposits", "borrows"):
                feed, start = (
                    getattr(given.pool, f"{side}_feed"),
                    getattr(given.pool, f"{side}_start_usd"),
                )
                if (feed is None) != (start is None):
                    limit = f"both {side}_feed and {side}_start_usd, or neither"
                    raise config_error(path=f"{path}.pool", value=feed or start, limit=limit)
                if feed is not None:
                    at = f"{path}.pool.{side}_feed"
                    terms[f"{side}_feed"] = self._state_feed(at, feed)
                    terms[f"{side}_start"] = float(start)
            terms["scale_floor"] = given.pool.floor_ppm / PPM
        price = given.price
        terms["confidence_k"] = price.confidence_k_ppm / PPM
        if price.confidence_k_ppm:
            terms["confidence_most"] = price.confidence_most_ppm / PPM
        if price.reference_feed is not None:
            at = f"{path}.price.reference_feed"
            terms["reference_feed"] = feed_index(self._feed_by_name, at, price.reference_feed)
            is_initial = price.reference_at == "initial"
            terms["reference_levels"] = 1 << INITIAL if is_initial else _ALL_LEVELS

    def _check_underlyings_held(self, path: str, preset: PresetModel) -> None:
        """Refuse a haircut of what `option_standard` counts itself (MODEL.md 3.7).

        Its ``base_*_ppm`` are all that an underlying held counts: they take back the rest of its
        whole value, so that whatever counts less of it elsewhere would be charged twice.
        """
        terms = [] if preset.requirement is None else preset.requirement.sum
        leaves = (leaf for term in terms for leaf in _leaves(term))
        if not any(isinstance(leaf, OptionStandardTermModel) for leaf in leaves):
            return
        limit = "none: option_standard counts the underlying held by base_*_ppm alone"
        for name, given in preset.collateral.items():
            asset = self._model.assets[name]
            if asset.underlying is None:
                continue
            for key in _LESS_THAN_WHOLE:
                value = getattr(given, key)
                if value not in (None, 0):
                    raise config_error(
                        path=f"{path}.collateral.{name}.{key}", value=value, limit=limit
                    )
            if asset.category in preset.categories:
                at = f"{path}.categories.{asset.category}"
                raise config_error(path=at, value=name, limit=limit)

    def _add_categories(self, row: int, root: str, preset: PresetModel) -> None:
        for name, given in preset.categories.items():
            path = f"{root}.{name}"
            if name not in self._categories:
                limit = "one of " + ", ".join(self._categories) + ", the categories of assets"
                raise config_error(path=path, value=name, limit=limit)
            weights = _weights(_haircuts(path, given))
            self._category_weight[row, self._categories.index(name)] = weights
            for asset in self._assets:
                if asset.name not in preset.collateral:  # counts 0 in its category too
                    self._asset[row, asset.index]["cap"] = 0.0

    # -- pnl

    def _add_pnl(self, row: int, path: str, preset: PresetModel) -> None:
        pnl = preset.pnl
        for name in pnl.markets:
            if name not in self._model.instruments:
                at = f"{path}.markets.{name}"
                raise config_error(path=at, value=name, limit=one_of(self._model.instruments))
        if pnl.kind == "full":
            plain = type(pnl)(settle_price=pnl.settle_price, fold=pnl.fold)
            if pnl != plain:
                limit = "weighted, where weights, caps or markets are given"
                raise config_error(path=f"{path}.kind", value=pnl.kind, limit=limit)
        for instrument in self._instruments:
            given = pnl.markets.get(instrument.name, pnl)
            at = f"{path}.markets.{instrument.name}" if given is not pnl else path
            self._add_market_pnl(row, instrument.index, at, given)

    def _add_market_pnl(self, row: int, index: int, path: str, given: MarketPnlModel) -> None:
        terms = self._market[row, index]
        end = given.liquidation_end_ppm
        end = given.maintenance_ppm if end is None else end
        levels = (given.initial_ppm, end, given.maintenance_ppm)
        _check_order(path, lambda level: f"{level}_ppm", levels, rising=True)
        terms["pnl_weight"] = [ppm / PPM for ppm in levels]
        terms["is_net"] = given.net_of_requirement
        if given.imf is not None:
            terms["pnl_imf"] = float(given.imf)
        if given.cap_micros is not None:
            terms["pnl_cap"] = given.cap_micros / PPM
        if given.imbalance is not None:
            at = f"{path}.imbalance.net_pnl_feed"
            terms["net_pnl_feed"] = self._state_feed(at, given.imbalance.net_pnl_feed)
            terms["net_pnl_most"] = float(given.imbalance.most_usd)

    # -- requirement

    def _add_requirement(
        self, row: int, path: str, preset: PresetModel
    ) -> list[tuple[int, int, int]]:
        """Write market terms and the tree; return the rates of each market in level order."""
        path = f"{path}.sum"
        terms = [] if preset.requirement is None else preset.requirement.sum
        by_market: dict[str, tuple[str, _MARKET_TERMS, Any]] = {}
        default: tuple[str, _MARKET_TERMS, Any] | None = None
        tree = []
        for place, term in enumerate(terms):
            at = f"{path}.{place}"
            if isinstance(term, OwnLeverageTermModel):
                self._preset[row]["is_own_leverage"] = 1
            elif isinstance(term, FlatTermModel | BracketsTermModel | SlippageTermModel):
                for market, given in term.markets.items():
                    where = f"{at}.markets.{market}"
                    if market not in self._model.instruments:
                        raise config_error(
                            path=where, value=market, limit=one_of(self._model.instruments)
                        )
                    if market in by_market:
                        raise config_error(
                            path=where, value=market, limit="each market in one term"
                        )
                    by_market[market] = (where, term, given)
                if term.default is not None:
                    if default is not None:
                        raise config_error(
                            path=f"{at}.default", value="default", limit="one default of all terms"
                        )
                    default = (f"{at}.default", term, term.default)
            else:
                tree.append((at, term))
        self._add_tree(row, path, tree)
        rates = []
        missing = []
        for instrument in self._instruments:
            found = by_market.get(instrument.name, default)
            is_option = instrument.kind == "option"
            if is_option and instrument.name in by_market:
                at = by_market[instrument.name][0]
                limit = "no option: a term of its underlying margins it"
                raise config_error(path=at, value=instrument.name, limit=limit)
            if is_option or found is None:
                if not tree or instrument.underlying is None:
                    missing.append(instrument.name)
                self._market[row, instrument.index]["kind"] = MARGINED_AS_BOOK
                rates.append((0, 0, 0))
            else:
                buffer_ppm = preset.liquidation.end.buffer_ppm
                rates.append(self._add_market(row, instrument, *found, buffer_ppm))
        if missing:
            raise config_error(path=path, value=missing, limit="every market needs a rate")
        return rates

    def _add_market(
        self,
        row: int,
        instrument: Instrument,
        path: str,
        term: _MARKET_TERMS,
        given: Any,  # noqa: ANN401 - a rate, brackets or slippage, as the term says
        buffer_ppm: int,
    ) -> tuple[int, int, int]:
        if isinstance(term, FlatTermModel):
            self._market[row, instrument.index]["is_entry_basis"] = term.notional_basis == "entry"
            return self._add_rate(row, instrument.index, path, given, buffer_ppm)
        if isinstance(term, BracketsTermModel):
            return self._add_brackets(row, instrument.index, path, given, buffer_ppm)
        return self._add_slippage(row, instrument.index, path, given)

    def _add_rate(
        self, row: int, index: int, path: str, given: RateModel, buffer_ppm: int
    ) -> tuple[int, int, int]:
        terms = self._market[row, index]
        fraction, rate = given.maintenance_fraction_ppm, given.maintenance_rate_ppm
        if (fraction is None) == (rate is None):
            limit = "either maintenance_rate_ppm or maintenance_fraction_ppm"
            raise config_error(path=path, value=[rate, fraction], limit=limit)
        share = 1.0
        if fraction is not None:
            share = fraction / PPM
            rate = -(-given.initial_rate_ppm * fraction // PPM)  # whole ppm, never less
        assert rate is not None
        end = given.liquidation_end_rate_ppm
        levels = (given.initial_rate_ppm, rate + buffer_ppm if end is None else end, rate)
        _check_order(path, lambda level: f"{level}_rate_ppm", levels)
        exact = given.initial_rate_ppm * share if fraction is not None else float(rate)
        terms["kind"] = RATE
        terms["rate_ppm"] = levels[0], levels[1] - rate + exact if end is None else end, exact
        if given.slope is not None:
            slope = float(given.slope) * PPM
            terms["slope_ppm"] = slope, slope * share, slope * share
        if given.imf is not None:
            terms["imf_ppm"] = float(given.imf) * PPM
        if given.open_interest is not None:
            interest = given.open_interest
            if interest.upper_usd <= interest.lower_usd:
                limit = f"above lower_usd {interest.lower_usd}"
                at = f"{path}.open_interest.upper_usd"
                raise config_error(path=at, value=interest.upper_usd, limit=limit)
            terms["interest_feed"] = self._state_feed(f"{path}.open_interest.feed", interest.feed)
            terms["interest_lower"] = float(interest.lower_usd)
            terms["interest_upper"] = float(interest.upper_usd)
        terms["add"] = given.add_micros / PPM
        terms["least"] = given.least_micros / PPM
        self._rate[row, :, index] = terms["rate_ppm"] / PPM
        return levels

    def _add_brackets(
        self, row: int, index: int, path: str, given: Sequence[BracketModel], buffer_ppm: int
    ) -> tuple[int, int, int]:
        """Write the brackets of a market; return the rates of the first."""
        terms = self._market[row, index]
        terms["kind"] = BRACKETS
        terms["first_bracket"] = len(self._brackets)
        terms["bracket_count"] = len(given)
        first: tuple[int, int, int] | None = None
        before, deduction, lower = (0, 0, 0), (0, 0, 0), 0
        for place, bracket in enumerate(given):
            at = f"{path}.{place}"
            is_last = place == len(given) - 1
            if (bracket.up_to_usd is None) != is_last:
                limit = "null in the last bracket, a bound in every other"
                raise config_error(path=f"{at}.up_to_usd", value=bracket.up_to_usd, limit=limit)
            if bracket.up_to_usd is not None and bracket.up_to_usd <= lower:
                limit = f"above that of the bracket before, {lower}"
                raise config_error(path=f"{at}.up_to_usd", value=bracket.up_to_usd, limit=limit)
            end, rate = bracket.liquidation_end_rate_ppm, bracket.maintenance_rate_ppm
            rates = (bracket.initial_rate_ppm, rate + buffer_ppm if end is None else end, rate)
            _check_order(at, lambda level: f"{level}_rate_ppm", rates)
            for level, own in enumerate(rates):
                if own < before[level]:
                    key = f"{at}.{LEVELS[level]}_rate_ppm"
                    limit = f"at least that of the bracket before, {before[level]}"
                    raise config_error(path=key, value=own, limit=limit)
            if first is None:
                first, before = rates, rates
            steps = zip(deduction, rates, before, strict=True)
            deduction = tuple(sofar + lower * (own - below) for sofar, own, below in steps)  # type: ignore[assignment]
            upper = bracket.up_to_usd
            self._brackets.add(
                upper=inf if upper is None else float(upper),
                rate=[own / PPM for own in rates],
                deduction=[own / PPM for own in deduction],
            )
            before, lower = rates, upper or 0
            terms["rate_ppm"] = rates
            self._rate[row, :, index] = [own / PPM for own in rates]  # the top ones bound all
        assert first is not None
        return first

    def _add_slippage(
        self, row: int, index: int, path: str, given: SlippageModel
    ) -> tuple[int, int, int]:
        terms = self._market[row, index]
        levels = (given.initial_scale_ppm, given.liquidation_end_scale_ppm, PPM)
        _check_order(path, lambda level: f"{level}_scale_ppm", levels)
        terms["kind"] = SLIPPAGE
        for name in ("linear", "quadratic", "risk_long", "risk_short"):
            terms[name] = float(getattr(given, name))
        terms["funding_factor"] = given.funding_factor_ppm / PPM
        terms["scale"] = [level / PPM for level in levels]
        risk = max(float(given.risk_long), float(given.risk_short)) + float(given.linear)
        initial, end, maintenance = (int(risk * level) for level in levels)
        return initial, end, maintenance

    # -- the tree of an underlying

    def _add_tree(self, row: int, path: str, tree: Sequence[tuple[str, Any]]) -> None:
        terms = self._preset[row]
        terms["first_step"] = len(self._steps)
        if not tree:
            return
        if not self._underlyings:
            raise config_error(
                path=tree[0][0], value="no underlyings", limit="a rulebook with some"
            )
        for at, node in tree:
            self._add_node(at, node)
        if len(tree) > 1:
            self._steps.add(step=STEP_SUM, row=len(tree))
        terms["step_count"] = len(self._steps) - terms["first_step"]
        if terms["step_count"] > MAX_STEPS:
            limit = f"at most {MAX_STEPS} terms and nodes"
            raise config_error(path=path, value=int(terms["step_count"]), limit=limit)
        priced = any(
            isinstance(term, ScanTermModel | OptionStandardTermModel)
            for _, node in tree
            for term in _leaves(node)
        )
        if not priced and any(i.kind == "option" for i in self._instruments):
            limit = "scan or option_standard among them, to price options"
            raise config_error(path=path, value=[at for at, _ in tree], limit=limit)

    def _add_node(self, path: str, node: Any) -> None:  # noqa: ANN401 - any term of an underlying
        if isinstance(node, TreeModel):
            given = {key: getattr(node, key) for key in ("sum", "max", "min")}
            chosen = [key for key, below in given.items() if below is not None]
            if len(chosen) != 1:
                raise config_error(path=path, value=chosen, limit="one of sum, max, min or a term")
            below = given[chosen[0]]
            for place, child in enumerate(below):
                self._add_node(f"{path}.{chosen[0]}.{place}", child)
            step = {"sum": STEP_SUM, "max": STEP_MAX, "min": STEP_MIN}[chosen[0]]
            self._steps.add(step=step, row=len(below))
            if node.scale_ppm != PPM:
                self._steps.add(step=STEP_SCALE, factor=node.scale_ppm / PPM)
        elif isinstance(node, ScanTermModel):
            self._steps.add(step=STEP_SCAN, row=self._add_scan(path, node))
        elif isinstance(node, OptionStandardTermModel):
            self._steps.add(step=STEP_STANDARD, row=self._add_standard(path, node))
        elif isinstance(node, ContingenciesTermModel):
            names = CHARGE.names or ()
            fields = {
                name: getattr(node, f"{name}_ppm") / PPM
                for name in names
                if hasattr(node, f"{name}_ppm")
            }
            self._steps.add(step=STEP_CONTINGENCIES, row=self._charges.add(**fields))
        elif isinstance(node, DeltaFloorTermModel):
            charge = self._charges.add(
                net=node.net_ppm / PPM,
                hedged=node.hedged_ppm / PPM,
                initial=1.0,
                maintenance=node.maintenance_ppm / PPM,
            )
            self._steps.add(step=STEP_DELTA_FLOOR, row=charge)
        else:
            assert isinstance(node, ShortMinimumTermModel | CalendarTermModel)
            _check_pair(path, node.initial_ppm, node.maintenance_ppm)
            charge = self._charges.add(
                initial=node.initial_ppm / PPM, maintenance=node.maintenance_ppm / PPM
            )
            is_minimum = isinstance(node, ShortMinimumTermModel)
            self._steps.add(step=STEP_SHORT_MINIMUM if is_minimum else STEP_CALENDAR, row=charge)

    def _add_standard(self, path: str, node: OptionStandardTermModel) -> int:
        for name in ("linear", "unpaired"):
            initial = getattr(node, f"{name}_initial_ppm")
            maintenance = getattr(node, f"{name}_maintenance_ppm")
            if initial < maintenance:
                limit = f"at least {name}_maintenance_ppm {maintenance}"
                raise config_error(path=f"{path}.{name}_initial_ppm", value=initial, limit=limit)
        if node.base_initial_ppm > node.base_maintenance_ppm:
            limit = f"at most base_maintenance_ppm {node.base_maintenance_ppm}"
            at = f"{path}.base_initial_ppm"
            raise config_error(path=at, value=node.base_initial_ppm, limit=limit)
        if node.initial_least_ppm < node.maintenance_call_ppm:
            limit = f"at least maintenance_call_ppm {node.maintenance_call_ppm}"
            at = f"{path}.initial_least_ppm"
            raise config_error(path=at, value=node.initial_least_ppm, limit=limit)
        names = [name for name in STANDARD.names or () if name != "has_max_loss"]
        fields = {name: getattr(node, f"{name}_ppm") / PPM for name in names}
        return self._standards.add(**fields, has_max_loss=float(node.max_loss))

    def _add_scan(self, path: str, node: ScanTermModel) -> int:
        _check_pair(path, node.loss_initial_ppm, node.loss_maintenance_ppm, prefix="loss_")
        if len(node.scenarios) > MAX_SCENARIOS:
            limit = f"at most {MAX_SCENARIOS} scenarios"
            raise config_error(path=f"{path}.scenarios", value=len(node.scenarios), limit=limit)
        first = len(self._scenarios)
        for place, scenario in enumerate(node.scenarios):
            at = f"{path}.scenarios.{place}"
            self._scenarios.append(
                (
                    _positive(f"{at}.spot", scenario.spot),
                    float(scenario.damp),
                    DIRECTIONS.index(scenario.volatility),
                )
            )
        shock, static = node.volatility_shock, node.static_discount
        basis, smile = node.basis, node.smile
        return self._scans.add(
            first_scenario=first,
            scenario_count=len(node.scenarios),
            range_up=shock.up_ppm / PPM,
            range_down=shock.down_ppm / PPM,
            least_volatility=shock.least_ppm / PPM,
            short_power=shock.short_power_ppm / PPM,
            long_power=shock.long_power_ppm / PPM,
            floor_days=_positive(f"{path}.volatility_shock.floor_days", shock.floor_days),
            loss_initial=node.loss_initial_ppm / PPM,
            loss_maintenance=node.loss_maintenance_ppm / PPM,
            gain_share=static.gain_ppm / PPM,
            gain_rate_share=static.gain_rate_ppm / PPM,
            gain_rate_more=static.gain_add_ppm / PPM,
            loss_share=static.loss_ppm / PPM,
            loss_rate_share=static.loss_rate_ppm / PPM,
            loss_rate_more=static.loss_add_ppm / PPM,
            basis_up=_positive(f"{path}.basis.up", basis.up),
            basis_down=_positive(f"{path}.basis.down", basis.down),
            basis_share=basis.add_ppm / PPM,
            basis_share_a_year=basis.mult_ppm / PPM,
            peg=node.peg_ppm / PPM,
            peg_factor=node.peg_factor_ppm / PPM,
            linear_cap=smile.linear_cap_ppm / PPM,
            linear_base=smile.linear_base_ppm / PPM,
            abs_cap=smile.abs_cap_ppm / PPM,
            abs_base=smile.abs_base_ppm / PPM,
            least_width=smile.least_width_ppm / PPM,
            width=smile.width_ppm / PPM,
            width_volatility=smile.width_volatility_ppm / PPM,
            width_slope=smile.width_slope_ppm / PPM,
        )

    # -- the unit

    def _add_unit_terms(self, row: int, path: str, preset: PresetModel) -> None:
        terms = self._preset[row]
        end, orders = preset.liquidation.end, preset.orders
        terms["is_debt_required"] = preset.debt == "requirement"
        terms["is_settle_price"] = preset.pnl.settle_price
        terms["is_fold"] = preset.pnl.fold
        if orders.kind == "worst_case":
            terms["order_levels"] = 1 << INITIAL if orders.at == "initial" else _ALL_LEVELS
        terms["is_open_loss"] = orders.open_loss
        terms["order_cost"] = orders.per_order_micros / PPM
        terms["order_fee"] = orders.fee_ppm / PPM
        if end.of_liabilities:
            terms["end_buffer"] = end.buffer_ppm / PPM
        if end.target_ratio_ppm is not None:
            if end.buffer_ppm:
                limit = "either buffer_ppm or target_ratio_ppm"
                at = f"{path}.liquidation.end.target_ratio_ppm"
                raise config_error(path=at, value=end.target_ratio_ppm, limit=limit)
            if preset.debt == "requirement":
                limit = "none where debt is the requirement: it is the same at every level"
                at = f"{path}.liquidation.end.target_ratio_ppm"
                raise config_error(path=at, value=end.target_ratio_ppm, limit=limit)
            terms["end_ratio"] = end.target_ratio_ppm / PPM

    # -- what does not depend on presets

    def rules(self) -> Rules:
        """Return all parameters."""
        assets, instruments = self._assets, self._instruments
        return Rules(
            asset_weight=self._asset_weight,
            debt_weight=self._debt_weight,
            requirement_rate=self._rate,
            clear_ppm=self._clear_ppm,
            asset_feed=np.array([_none(asset.index_feed) for asset in assets], np.int32),
            asset_units=_powers([asset.quantum_exponent for asset in assets]),
            asset_flags=self._asset_flags,
            instrument_feed=np.array([i.mark_feed for i in instruments], np.int32),
            lot_numerator=np.array([float(i.lot.numerator) for i in instruments]),
            lot_units=_powers([i.lot.exponent for i in instruments]),
            tick_numerator=np.array([i.tick_value.numerator for i in instruments], np.int64),
            tick_denominator=np.array([i.tick_value.denominator for i in instruments], np.int64),
            feed_units=_powers([feed.exponent for feed in self._feeds]),
            feed_is_state=np.array([feed.is_state for feed in self._feeds], np.uint8),
            grace_us=self._model.oracle.default.grace_us,
            settlement_asset=0,
            terms=self._terms(),
        )

    def _terms(self) -> Terms:
        expiries, expiry_of = self._expiries()
        return Terms(
            is_plain=self._is_plain,
            is_steady=self._is_steady,
            preset=self._preset,
            asset=self._asset,
            market=self._market,
            category_weight=self._category_weight,
            instruments=self._contracts(expiry_of),
            assets=self._asset_rows(),
            expiries=expiries,
            underlyings=self._underlying_rows(),
            tiers=self._tiers.array(),
            brackets=self._brackets.array(),
            steps=self._steps.array(),
            standards=self._standards.array(),
            scans=self._scans.array(),
            charges=self._charges.array(),
            shock=np.array([shock for shock, _, _ in self._scenarios], np.float64),
            damp=np.array([damp for _, damp, _ in self._scenarios], np.float64),
            direction=np.array([direction for _, _, direction in self._scenarios], np.uint8),
        )

    def _expiries(self) -> tuple[np.ndarray[Any, Any], dict[tuple[Any, ...], int]]:
        """Return a row for each underlying, date and feeds of options, and the index of each."""
        keys = sorted(
            {_expiry_key(i) for i in self._instruments if i.option is not None},
            key=lambda key: tuple(_none(part) for part in key),
        )
        rows = _Rows(EXPIRY)
        for _, expires_us, forward_feed, rate_feed, quality_feed in keys:
            rows.add(
                expires_us=expires_us,
                forward_feed=forward_feed,
                rate_feed=_none(rate_feed),
                quality_feed=_none(quality_feed),
            )
        return rows.array(), {key: index for index, key in enumerate(keys)}

    def _contracts(self, expiry_of: Mapping[tuple[Any, ...], int]) -> np.ndarray[Any, Any]:
        rows = np.zeros(len(self._instruments), INSTRUMENT)
        for instrument in self._instruments:
            row = rows[instrument.index]
            row["kind"] = _KINDS[instrument.kind]
            row["settles_in"] = instrument.settles_in
            row["underlying"] = _none(instrument.underlying)
            row["expires_us"] = instrument.expires_us or 0
            row["funding_feed"] = _none(instrument.funding_feed)
            row["quality_feed"] = _none(instrument.quality_feed)
            row["expiry"] = row["rank"] = row["volatility_feed"] = NONE
            exponent = self._assets[instrument.settles_in].quantum_exponent
            row["funding_unit"] = 10 ** (_PICO_PLACES + exponent)
            row["has_ledger_terms"] = not (
                instrument.kind == "linear"
                and instrument.settles_in == 0
                and instrument.funding_feed is None
                and instrument.expires_us is None
                and not _bears_interest(self._assets[0])
            )
            if instrument.face is not None:
                face, lot = instrument.face, instrument.lot
                row["face_numerator"], row["face_denominator"] = instrument.face_value(exponent)
                row["face_micros"] = ceil(lot.exact * face.exact * 10**6)
                row["face"] = (
                    face.numerator * lot.numerator * 10.0 ** (face.exponent + lot.exponent)
                )
            if instrument.option is not None:
                option = instrument.option
                row["is_premium"] = option.is_premium
                row["expiry"] = expiry_of[_expiry_key(instrument)]
                row["volatility_feed"] = option.volatility_feed
                row["quality_feed"] = NONE  # that of its expiry
                row["strike"] = float(option.strike)
                row["log_strike"] = logarithm(float(option.strike))
                row["sign"] = 1.0 if option.is_call else -1.0
        options = np.flatnonzero(rows["kind"] == KIND_OPTION)
        order = sorted(
            options,
            key=lambda index: (
                rows["expiry"][index],
                rows["strike"][index],
                -rows["sign"][index],
                index,
            ),
        )
        rows["rank"][order] = np.arange(len(order))
        return rows

    def _asset_rows(self) -> np.ndarray[Any, Any]:
        rows = np.zeros(len(self._assets), ASSET)
        underlyings = {underlying.name: underlying.index for underlying in self._underlyings}
        for asset in self._assets:
            given, row = self._model.assets[asset.name], rows[asset.index]
            row["underlying"] = NONE if given.underlying is None else underlyings[given.underlying]
            row["category"] = (
                NONE if given.category is None else self._categories.index(given.category)
            )
            quality = given.quality_feed
            row["quality_feed"] = NONE if quality is None else self._feed_by_name[quality].index
            row["deposit_index_feed"] = _none(asset.deposit_index_feed)
            row["borrow_index_feed"] = _none(asset.borrow_index_feed)
            row["bears_interest"] = _bears_interest(asset)
        return rows

    def _underlying_rows(self) -> np.ndarray[Any, Any]:
        rows = _Rows(UNDERLYING)
        for underlying in self._underlyings:
            rows.add(
                spot_feed=underlying.spot_feed,
                quality_feed=_none(underlying.quality_feed),
                stable_feed=_none(underlying.stable_feed),
            )
        return rows.array()

    def _state_feed(self, path: str, name: str) -> int:
        """Return the index of a feed that tells a state."""
        return feed_index(self._feed_by_name, path, name, kind="state")


def _plain_assets(shape: int | tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return rows of assets whose terms change nothing."""
    rows = np.zeros(shape, ASSET_TERMS)
    for name in ("reference_feed", "deposits_feed", "borrows_feed"):
        rows[name] = NONE
    for name in ("deposits_start", "borrows_start", "cap", "cap_value"):
        rows[name] = inf
    rows["confidence_most"] = 1.0
    return rows


def _plain_markets(shape: int | tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return rows of markets whose terms change nothing, without rates."""
    rows = np.zeros(shape, MARKET_TERMS)
    for name in ("interest_feed", "net_pnl_feed"):
        rows[name] = NONE
    rows["pnl_weight"] = 1.0
    rows["pnl_cap"] = rows["net_pnl_most"] = inf
    return rows


def _bears_interest(asset: Asset) -> bool:
    return asset.deposit_index_feed is not None or asset.borrow_index_feed is not None


def _are_same(rows: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> bool:
    return all(bool((rows[name] == wanted[name]).all()) for name in wanted.dtype.names or ())


def _expiry_key(instrument: Instrument) -> tuple[Any, ...]:
    option = instrument.option
    assert option is not None
    return (
        instrument.underlying,
        option.expires_us,
        option.forward_feed,
        option.rate_feed,
        option.quality_feed,
    )


def _lease(path: str, given: LiquidationModel) -> Lease:
    """Return the terms of claims; `given` has some."""
    assert given.lease is not None
    if given.lending is not None:
        limit = "none with lending: claims are for orders of single markets"
        raise config_error(path=path, value=given.lease.model_dump(), limit=limit)
    if given.lease.duration_us > given.offer_ttl_us:
        limit = f"at most offer_ttl_us {given.offer_ttl_us}"
        raise config_error(path=f"{path}.duration_us", value=given.lease.duration_us, limit=limit)
    return Lease(**given.lease.model_dump())


def _leaves(node: Any) -> Iterator[Any]:  # noqa: ANN401 - any term of an underlying
    if isinstance(node, TreeModel):
        for child in node.sum or node.max or node.min or ():
            yield from _leaves(child)
    else:
        yield node


def _check_pair(path: str, initial: int, maintenance: int, prefix: str = "") -> None:
    if initial < maintenance:
        limit = f"at least {prefix}maintenance_ppm {maintenance}"
        raise config_error(path=f"{path}.{prefix}initial_ppm", value=initial, limit=limit)


def _positive(path: str, text: str) -> float:
    value = float(text)
    if value <= 0.0:
        raise config_error(path=path, value=text, limit="above 0")
    return value
