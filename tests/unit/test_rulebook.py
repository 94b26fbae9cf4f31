"""What a rulebook may say, what it may not, and that errors name path, value and limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from solvent.domain.instrument import Ratio, Step
from solvent.errors import ConfigError
from solvent.kernel.evaluate import example_arguments
from solvent.kernel.layout import ASSET_BORROWABLE, ASSET_LISTED, NONE
from solvent.rules import builtin_names, builtin_rulebook, load_rulebook, parse_rulebook
from solvent.rules.source import family_document
from support.books import a_rulebook_dict, some_rules
from support.term_books import RULEBOOKS


def changed(path: str, value: Any) -> str:
    """Return the valid rulebook and a state feed with one place set (removed by `...`), as text."""
    document = a_rulebook_dict()
    document["feeds"]["SKEW"] = {"exponent": -18, "kind": "state"}
    *parents, last = path.split("/")
    place: Any = document
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    key = int(last) if isinstance(place, list) else last
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return json.dumps(document)


PRESET = "presets/cross-margin"
MARKETS = f"{PRESET}/requirement/sum/0/markets"
TREE_TERMS = "scan, contingencies, delta_floor, short_minimum, calendar_spread, option_standard"


def a_bracket(up_to_usd: int | None = None) -> dict[str, Any]:
    return {"up_to_usd": up_to_usd, "initial_rate_ppm": 50_000, "maintenance_rate_ppm": 25_000}


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        pytest.param("colour", "red", ("colour", "'red'", "no such key"), id="unknown section"),
        pytest.param(
            f"{PRESET}/liquidation/fee", 1,
            ("presets.cross-margin.liquidation.fee", "1", "no such key"), id="unknown key",
        ),
        pytest.param("default_class", ..., ("default_class", "None", "required"), id="missing"),
        pytest.param(
            "default_class", "whale", ("default_class", "'whale'", "one of trader"), id="no class",
        ),
        pytest.param(
            "bindings/trader", "x", ("bindings.trader", "'x'", "one of cross-margin"),
            id="no preset",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/initial_rate_ppm", 34_999,
            ("BTC-PERP.initial_rate_ppm", "34999", "at least liquidation_end_rate_ppm 35000"),
            id="initial below the end that the buffer makes",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/liquidation_end_rate_ppm", 24_999,
            ("liquidation_end_rate_ppm", "24999", "at least maintenance_rate_ppm 25000"),
            id="end below maintenance",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/maintenance_rate_ppm", 0,
            ("BTC-PERP.maintenance_rate_ppm", "0", "greater than or equal to 1"), id="rate 0",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/maintenance_rate_ppm", 2.5,
            ("BTC-PERP.maintenance_rate_ppm", "2.5", "valid integer"), id="rate is no integer",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH/initial_haircut_ppm", 79_999,
            ("ETH.initial_haircut_ppm", "79999", "at least liquidation_end_haircut_ppm 80000"),
            id="haircut order",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH/liquidation_end_haircut_ppm", 79_999,
            ("ETH.liquidation_end_haircut_ppm", "79999", "at least maintenance_haircut_ppm 80000"),
            id="haircut order at the end",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH/maintenance_surcharge_ppm", 5,
            ("ETH.initial_surcharge_ppm", "0", "at least liquidation_end_surcharge_ppm 5"),
            id="surcharge order",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH/initial_haircut_ppm", 1_000_001,
            ("ETH.initial_haircut_ppm", "1000001", "less than or equal to 1000000"),
            id="haircut above one",
        ),
        pytest.param(
            f"{PRESET}/collateral/DOGE",
            {"initial_haircut_ppm": 0, "maintenance_haircut_ppm": 0},
            ("collateral.DOGE", "'DOGE'", "one of USDC, ETH, BTC"), id="no such asset",
        ),
        pytest.param(
            f"{PRESET}/collateral/USDC/initial_haircut_ppm", 1,
            ("collateral.USDC", "1", "0 at every level"), id="haircut on the settlement asset",
        ),
        pytest.param(
            f"{PRESET}/collateral/USDC", ..., ("collateral", "needs USDC"), id="no settlement",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP", ..., ("requirement.sum", "BTC-PERP", "every market"),
            id="market without a rate",
        ),
        pytest.param(
            f"{MARKETS}/XRP-PERP",
            {"initial_rate_ppm": 100_000, "maintenance_rate_ppm": 50_000},
            ("markets.XRP-PERP", "'XRP-PERP'", "one of BTC-PERP"), id="rate without a market",
        ),
        pytest.param(
            f"{PRESET}/extends", "nothing", ("cross-margin.extends", "'nothing'", "cross-margin"),
            id="extends nothing",
        ),
        pytest.param(
            "instruments/BTC-PERP/tick", "0.01234567",
            ("instruments.BTC-PERP.tick", "'0.01234567'", "1e-6"), id="tick finer than the feed",
        ),
        pytest.param(
            "instruments/BTC-PERP/lot", "0.00000001",
            # 1e-8 * 0.1 * 1e6 = 1/1000 is the limit; 1e-8 * 0.01 below
            None, id="tick fraction at the limit",
        ),
        pytest.param(
            "instruments/BTC-PERP/lot", "0.000000001",
            ("instruments.BTC-PERP", "lot 0.000000001 * tick 0.1 = 1/10000 micros", "/1000"),
            id="tick fraction too fine",
        ),
        pytest.param(
            "instruments/BTC-PERP/lot", "100000",
            ("instruments.BTC-PERP", "10000000000/1 micros", "1000000000/"),
            id="tick fraction too coarse",
        ),
        pytest.param(
            "instruments/BTC-PERP/lot", 0.1, ("BTC-PERP.lot", "0.1", "valid string"),
            id="float lot",
        ),
        pytest.param(
            "instruments/BTC-PERP/lot", "0.0", ("BTC-PERP.lot", "'0.0'", "positive"), id="lot 0",
        ),
        pytest.param(
            "instruments/BTC-PERP/id", 2, ("ETH-PERP.id", "2", "an id of its own"), id="same id",
        ),
        pytest.param(
            "instruments/BTC-PERP/mark_feed", "X",
            ("instruments.BTC-PERP.mark_feed", "'X'", "one of BTC-PERP"), id="no mark feed",
        ),
        pytest.param(
            "instruments/BTC-PERP/settles_in", "ETH",
            ("BTC-PERP.settles_in", "'ETH'", "an asset of quantum_exponent -6"),
            id="settles elsewhere",
        ),
        pytest.param(
            "instruments/cross",
            {"id": 9, "lot": "1", "tick": "1", "mark_feed": "BTC-PERP", "settles_in": "USDC"},
            ("instruments.cross", "'cross'", "cross book"), id="reserved name",
        ),
        pytest.param(
            "assets/ETH/index_feed", ..., ("assets.ETH.index_feed", "None", "required"),
            id="asset without a price",
        ),
        pytest.param(
            "assets/USDC/index_feed", "BTC/USD",
            ("assets.USDC.index_feed", "'BTC/USD'", "worth 1"), id="settlement with a price",
        ),
        pytest.param(
            "assets/USDC/quantum_exponent", -8,
            ("assets.USDC.quantum_exponent", "-8", "-6"), id="settlement quantum",
        ),
        pytest.param(
            "rulebook/settlement_asset", "EUR",
            ("rulebook.settlement_asset", "'EUR'", "one of USDC"), id="no settlement asset",
        ),
        pytest.param(
            "oracle", {"feeds": {"X": {"min_sources": 2}}},
            ("oracle.feeds.X", "'X'", "one of BTC-PERP"), id="oracle of no feed",
        ),
        pytest.param(
            "oracle", {"feeds": {"SKEW": {"quorum_ppm": 1}}},
            ("oracle.feeds.SKEW.quorum_ppm", "1", "a state feed has none"), id="quorum of a state",
        ),
        pytest.param(
            "oracle", {"state": {"max_conf_ppm": 1}}, ("oracle.state.max_conf_ppm", "no such key"),
            id="confidence of states",
        ),
        pytest.param(
            "feeds/BTC-PERP/exponent", -13, ("feeds.BTC-PERP.exponent", "-13", "at least -12"),
            id="price finer than 1e-12",
        ),
        pytest.param(
            "feeds/SKEW/exponent", -19, ("feeds.SKEW.exponent", "-19", "equal to -18"),
            id="state finer than 1e-18",
        ),
        pytest.param(
            "feeds/SKEW/kind", "volume", ("feeds.SKEW.kind", "'volume'", "'price' or 'state'"),
            id="no such kind of feed",
        ),
        pytest.param(
            "instruments/BTC-PERP/mark_feed", "SKEW",
            ("instruments.BTC-PERP.mark_feed", "'SKEW'", "one of BTC-PERP"), id="marked by a state",
        ),
        pytest.param(
            "assets/ETH/index_feed", "SKEW", ("assets.ETH.index_feed", "'SKEW'", "one of BTC-PERP"),
            id="asset priced by a state",
        ),
        pytest.param("feeds", [], ("feeds", "[]", "dictionary"), id="list for a mapping"),
        pytest.param(
            f"{MARKETS}/BTC-PERP/maintenance_rate_ppm", 50_001,
            ("presets.cross-margin.requirement.sum.0.markets.BTC-PERP.initial_rate_ppm", "50000",
             "at least liquidation_end_rate_ppm 60001 (maintenance 50001)"),
            id="maintenance above initial",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/initial_rate_ppm", 1_000_001,
            ("rulebook presets.cross-margin.requirement.sum.0.markets.BTC-PERP.initial_rate_ppm:",
             "1000001", "less than or equal to 1000000"), id="rate above its limit",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/rate", 1,
            ("rulebook presets.cross-margin.requirement.sum.0.markets.BTC-PERP.rate:",
             "1", "no such key"), id="unknown key of a term",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/flat", 1,
            ("requirement.sum.0.markets.BTC-PERP.flat", "no such key"),
            id="unknown key named as a term",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/maintenance_fraction_ppm", 500_000,
            ("sum.0.markets.BTC-PERP", "[25000, 500000]",
             "either maintenance_rate_ppm or maintenance_fraction_ppm"), id="two maintenance rates",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH/initial_haircut_ppm", -1,
            ("presets.cross-margin.collateral.ETH.initial_haircut_ppm", "-1",
             "greater than or equal to 0"), id="negative haircut",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH",
            {"tiers": [{"up_to": "20", "haircut_ppm": 1}, {"up_to": "10", "haircut_ppm": 2}]},
            ("collateral.ETH.tiers.1.up_to", "'10'", "above that of the tier before, 20"),
            id="tiers unsorted",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH",
            {"tiers": [{"up_to": "10", "haircut_ppm": 1}, {"up_to": "10", "haircut_ppm": 2}]},
            ("collateral.ETH.tiers.1.up_to", "'10'", "above that of the tier before, 10"),
            id="tiers that overlap",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH",
            {"tiers": [{"up_to": None, "haircut_ppm": 1}, {"up_to": "10", "haircut_ppm": 2}]},
            ("collateral.ETH.tiers.1.up_to", "'10'", "above that of the tier before, inf"),
            id="tier above the unbounded one",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH/tiers", [{"up_to": None, "haircut_ppm": 1}],
            ("collateral.ETH", "['tiers', 'haircut_ppm']", "one of haircuts, tiers and skew"),
            id="tiers and haircuts",
        ),
        pytest.param(
            f"{PRESET}/collateral/ETH",
            {"tiers": [{"up_to": None, "haircut_ppm": 1}], "liquidation_end_haircut_ppm": 1},
            ("collateral.ETH", "['tiers', 'haircut_ppm']", "one of haircuts, tiers and skew"),
            id="tiers and a haircut at the end",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0",
            {"term": "brackets", "default": [a_bracket(20_000), a_bracket(10_000), a_bracket()]},
            ("requirement.sum.0.default.1.up_to_usd", "10000",
             "above that of the bracket before, 20000"), id="brackets unsorted",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0",
            {"term": "brackets", "default": [a_bracket(20_000), a_bracket(20_000), a_bracket()]},
            ("requirement.sum.0.default.1.up_to_usd", "20000",
             "above that of the bracket before, 20000"), id="brackets that overlap",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0",
            {"term": "brackets", "default": [a_bracket(), a_bracket()]},
            ("requirement.sum.0.default.0.up_to_usd", "None", "null in the last bracket"),
            id="bracket above the unbounded one",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0",
            {"term": "brackets", "markets": {"sum": [{**a_bracket(), "scan": 1}]}},
            ("requirement.sum.0.markets.sum.0.scan", "1", "no such key"),
            id="unknown key named as a term below a market named as a tree",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0/term", "flatt",
            ("rulebook presets.cross-margin.requirement.sum.0.term:", "'flatt'",
             f"one of flat, brackets, slippage, own_leverage, {TREE_TERMS}"), id="unknown term",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0/term", None,
            ("requirement.sum.0.term", "None", "one of flat, brackets"), id="term that is null",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0/term", ...,
            ("requirement.sum.0.markets", "no such key"), id="term without its name",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0", 5,
            ("rulebook presets.cross-margin.requirement.sum.0:", "5", "valid dictionary"),
            id="number for a term",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0", {"max": [{"sum": [{"term": "flat", "markets": {}}]}]},
            ("rulebook presets.cross-margin.requirement.sum.0.max.0.sum.0.term:", "'flat'",
             f"limit: one of {TREE_TERMS}"), id="market term in a tree",
        ),
        pytest.param(
            f"{PRESET}/requirement/sum/0",
            {"max": [{"term": "delta_floor", "net_ppm": 1, "hedged_ppm": -1}]},
            ("rulebook presets.cross-margin.requirement.sum.0.max.0.hedged_ppm:", "-1",
             "greater than or equal to 0"), id="wrong value in a tree",
        ),
        pytest.param(
            f"{PRESET}/pnl", {"kind": "weighted", "markets": {"XRP-PERP": {}}},
            ("presets.cross-margin.pnl.markets.XRP-PERP", "'XRP-PERP'", "one of BTC-PERP"),
            id="pnl of no market",
        ),
        pytest.param(
            f"{PRESET}/liquidation/end", {"buffer_ppm": 1, "target_ratio_ppm": 1_050_000},
            ("presets.cross-margin.liquidation.end.target_ratio_ppm", "1050000",
             "either buffer_ppm or target_ratio_ppm"), id="buffer and target ratio",
        ),
        pytest.param(
            f"{PRESET}/liquidation/lending",
            {"bonus_ppm": 1, "target_health": {"target_ppm": 1_050_000}, "shortage": {}},
            ("presets.cross-margin.liquidation.lending.shortage", "{'least_left_usd': 0}",
             "either target_health or shortage"), id="target and shortage",
        ),
        pytest.param(
            "instruments/BTC-PERP/settles_in", "DOGE",
            ("instruments.BTC-PERP.settles_in", "'DOGE'", "one of USDC, ETH, BTC"),
            id="settles in no asset",
        ),
        pytest.param(
            f"{MARKETS}/BTC-PERP/open_interest",
            {"feed": "BTC-PERP", "lower_usd": 1, "upper_usd": 2},
            ("sum.0.markets.BTC-PERP.open_interest.feed", "'BTC-PERP'", "a state feed: SKEW"),
            id="open interest of a price",
        ),
        pytest.param(
            "underlyings", {"BTC": {"spot_feed": "SKEW"}},
            ("underlyings.BTC.spot_feed", "'SKEW'", "one of BTC-PERP"), id="spot of a state",
        ),
        pytest.param(
            "assets/ETH/deposit_index_feed", "ETH/USD",
            ("assets.ETH.deposit_index_feed", "'ETH/USD'", "a state feed: SKEW"),
            id="index that is a price",
        ),
        pytest.param(
            "instruments/CALL",
            {"id": 9, "kind": "option", "lot": "1", "tick": "0.1", "settles_in": "USDC",
             "underlying": "BTC", "right": "call", "strike": "100", "expires_at_us": 1,
             "forward_feed": "BTC/USD"},
            ("instruments.CALL.volatility_feed", "None", "required of a contract of kind option"),
            id="option without volatility",
        ),
    ],
)  # fmt: skip
def test_rulebook_with_one_flaw_names_path_value_and_limit(
    path: str, value: Any, named: tuple[str, ...] | None
) -> None:
    text = changed(path, value)
    if named is None:
        assert parse_rulebook(text).instruments[0].tick_value == Ratio(1, 1_000)
        return
    with pytest.raises(ConfigError) as caught:
        parse_rulebook(text)
    for part in named:
        assert part in caught.value.message
    assert caught.value.code == "SLV-402"


@pytest.mark.parametrize(
    ("listed", "at", "shown"),
    [
        pytest.param(
            {"initial_haircut_ppm": 100_000, "maintenance_haircut_ppm": 0},
            "collateral.X.initial_haircut_ppm", "100000", id="haircut",
        ),
        pytest.param(
            {"initial_haircut_ppm": 1, "maintenance_haircut_ppm": 1,
             "haircut_side": "requirement"},
            "collateral.X.initial_haircut_ppm", "1", id="haircut in the requirement",
        ),
        pytest.param(
            {"tiers": [{"up_to": None, "haircut_ppm": 0}]}, "collateral.X.tiers", "", id="tiers"
        ),
        pytest.param({"cap": "5"}, "collateral.X.cap", "'5'", id="cap"),
        pytest.param({"pool": {"deposits_feed": "X/quality", "deposits_start_usd": 1}},
                     "collateral.X.pool", "", id="pool"),
    ],
)  # fmt: skip
def test_underlying_held_that_option_standard_counts_has_no_other_haircut(
    listed: dict[str, Any], at: str, shown: str
) -> None:
    """MODEL.md 3.7: ``base * S * factor(h)`` is all that the underlying held counts."""
    document = yaml.safe_load(RULEBOOKS["options"])
    preset = document["presets"]["standard"]
    parse_rulebook(json.dumps(document))
    none = {"initial_haircut_ppm": 0, "maintenance_haircut_ppm": 0}
    preset["collateral"]["X"] = listed if "tiers" in listed else {**none, **listed}
    with pytest.raises(ConfigError) as caught:
        parse_rulebook(json.dumps(document))
    assert caught.value.message.startswith(f"rulebook presets.standard.{at}: {shown}")
    assert caught.value.message.endswith(
        "limit: none: option_standard counts the underlying held by base_*_ppm alone"
    )
    preset["collateral"]["X"] = {**none, "initial_surcharge_ppm": 5, "price": {}}
    parse_rulebook(json.dumps(document))


def test_category_of_an_underlying_held_that_option_standard_counts_is_refused() -> None:
    document = yaml.safe_load(RULEBOOKS["options"])
    document["assets"]["X"]["category"] = "coins"
    document["presets"]["standard"]["categories"] = {
        "coins": {"initial_haircut_ppm": 0, "maintenance_haircut_ppm": 0}
    }
    with pytest.raises(
        ConfigError, match=r"presets\.standard\.categories\.coins: 'X', limit: none"
    ):
        parse_rulebook(json.dumps(document))


def test_rulebook_with_repeated_key_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"line 3: 'feeds', limit: each key once"):
        parse_rulebook("rulebook: {}\nfeeds: {}\nfeeds: {}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "valid YAML"),
        ("- 1", "a mapping of sections"),
        ("1: 2", "keys are strings"),
        ("a: 2025-13-01", "valid YAML"),
        ("a: !!python/name:os.system x", "line 1: 'tag:yaml.org,2002:.*no tags"),
        ("a: 1\nb: !!timestamp x", "line 2: 'tag:yaml.org,2002:timestamp', limit: no tags"),
        ("a:\n  " + "[" * 64 + "]" * 64, "line 2: 65, limit: 64 levels"),
        ("a: " + "{a: " * 100_000, "line 1: 65, limit: 64 levels"),
        ("", "mapping"),
    ],
)  # fmt: skip
def test_rulebook_text_that_is_no_mapping_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rulebook(text)


def test_rulebook_market_in_two_terms_is_refused() -> None:
    document = a_rulebook_dict()
    document["presets"]["cross-margin"]["requirement"]["sum"].append(
        {
            "term": "flat",
            "markets": {"BTC-PERP": {"initial_rate_ppm": 50_000, "maintenance_rate_ppm": 1}},
        }
    )
    with pytest.raises(ConfigError, match=r"sum\.1\.markets\.BTC-PERP: .* one term"):
        parse_rulebook(json.dumps(document))


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e3"])
@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"{MARKETS}/BTC-PERP/initial_rate_ppm", "requirement.sum.0.markets.BTC-PERP"),
        (f"{PRESET}/collateral/ETH/initial_haircut_ppm", "collateral.ETH"),
    ],
)
def test_rulebook_number_that_is_no_integer_is_refused(path: str, shown: str, value: str) -> None:
    text = changed(path, "@").replace('"@"', value)
    with pytest.raises(ConfigError) as caught:
        parse_rulebook(text)
    found = repr(yaml.safe_load(value))
    key = path.rpartition("/")[2]
    assert caught.value.message == (
        f"rulebook presets.cross-margin.{shown}.{key}: {found}, "
        "limit: input should be a valid integer"
    )


def test_rulebook_with_two_flaws_names_both() -> None:
    text = changed(f"{MARKETS}/BTC-PERP", {"initial_rate_ppm": 0})
    flawed = json.loads(text)
    flawed["colour"] = "red"
    with pytest.raises(ConfigError) as caught:
        parse_rulebook(json.dumps(flawed))
    assert "BTC-PERP.initial_rate_ppm: 0, limit: " in caught.value.message
    assert "; rulebook colour: 'red', limit: no such key" in caught.value.message


def test_rulebook_presets_that_extend_each_other_are_refused_with_the_chain() -> None:
    document = a_rulebook_dict()
    document["presets"]["a"] = {"extends": "b"}
    document["presets"]["b"] = {"extends": "c"}
    document["presets"]["c"] = {"extends": "a"}
    with pytest.raises(ConfigError) as caught:
        parse_rulebook(json.dumps(document))
    assert caught.value.message.startswith(
        "rulebook presets.c.extends: 'a', limit: without a cycle: a -> b -> c -> a; one of "
    )


@pytest.fixture
def families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of families in place of those that travel with the package."""
    folder = tmp_path / "presets" / "base"
    folder.mkdir(parents=True)
    monkeypatch.setattr("solvent.rules.source.files", lambda _: tmp_path)
    return folder


def test_family_extends_family_and_rulebook_extends_both(families: Path) -> None:
    (families / "cross-margin.yaml").write_text(
        "extends: perps\nliquidation: {liquidator_fee_ppm: 7, dust_micros: 8}\n"
    )
    (families / "perps.yaml").write_text(
        "extends: common\nliquidation: {fund_fee_max_ppm: 6, liquidator_fee_ppm: 6}\n"
    )
    (families / "common.yaml").write_text(
        "liquidation: {liquidator_fee_ppm: 5, fund_fee_max_ppm: 5, dust_micros: 5,\n"
        "  offer_ttl_us: 5, fillable: {spread_ppm: 5, adjustment_ppm: 5}}\n"
    )
    policy = some_rules(liquidation={"dust_micros": 9}).policies[0]
    assert (policy.offer_ttl_us, policy.fund_fee_max_ppm) == (5, 6)
    assert (policy.liquidator_fee_ppm, policy.dust_micros) == (7, 9)
    assert family_document("cross-margin")["liquidation"] == {
        "liquidator_fee_ppm": 7,
        "fund_fee_max_ppm": 6,
        "dust_micros": 8,
        "offer_ttl_us": 5,
        "fillable": {"spread_ppm": 5, "adjustment_ppm": 5},
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        pytest.param(
            {"cross-margin": "a", "a": "b", "b": "cross-margin"},
            "rulebook family b.extends: 'cross-margin', limit: without a cycle: "
            "cross-margin -> a -> b -> cross-margin; one of none",
            id="cycle",
        ),
        pytest.param(
            {"cross-margin": "cross-margin", "a": "b"},
            "rulebook family cross-margin.extends: 'cross-margin', limit: without a cycle: "
            "cross-margin -> cross-margin; one of a",
            id="itself",
        ),
        pytest.param(
            {"cross-margin": "trader", "a": "b"},
            "rulebook family cross-margin.extends: 'trader', limit: one of a",
            id="no family",
        ),
        pytest.param(
            {"cross-margin": "[a]", "a": "b"},
            "rulebook family cross-margin.extends: ['a'], limit: one of a",
            id="a list",
        ),
    ],
)
def test_family_that_extends_what_it_may_not_is_refused(
    families: Path, texts: dict[str, str], message: str
) -> None:
    for name, parent in texts.items():
        (families / f"{name}.yaml").write_text(f"extends: {parent}\n")
    with pytest.raises(ConfigError) as caught:
        some_rules()
    assert caught.value.message == message


def test_rulebook_file_that_is_absent_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rulebook file: .*none\.yaml"):
        load_rulebook(tmp_path / "none.yaml")


def test_rulebook_file_and_text_compile_alike(tmp_path: Path) -> None:
    text = json.dumps(a_rulebook_dict())
    (tmp_path / "book.yaml").write_text(text)
    assert load_rulebook(tmp_path / "book.yaml").hash == parse_rulebook(text).hash


def test_rulebook_hash_ignores_layout_and_sees_every_value() -> None:
    base = some_rules()
    reordered = json.dumps(dict(reversed(a_rulebook_dict().items())), indent=3)
    assert parse_rulebook(reordered).hash == base.hash
    assert some_rules(clear_ppm=10_001).hash != base.hash
    assert base.reference == {"id": "test", "version": 1, "hash": base.hash}
    document = a_rulebook_dict()
    document["feeds"] = dict(reversed(document["feeds"].items()))  # indices move with it
    assert parse_rulebook(json.dumps(document)).hash != base.hash


def test_preset_extends_base_and_keeps_own_values() -> None:
    rulebook = some_rules(liquidation={"liquidator_fee_ppm": 20_000})
    policy = rulebook.policies[0]
    assert (policy.liquidator_fee_ppm, policy.fund_fee_max_ppm) == (20_000, 5_000)
    assert policy.liquidation_end_rate_ppm == (35_000, 35_000, 60_000)


def test_compiled_rules_carry_weights_rates_and_indices() -> None:
    rulebook = some_rules(
        collateral={
            "ETH": {
                "initial_haircut_ppm": 120_000,
                "maintenance_haircut_ppm": 80_000,
                "liquidation_end_haircut_ppm": 100_000,
                "initial_surcharge_ppm": 50_000,
            }
        }
    )
    rules = rulebook.rules
    usdc, eth, btc = (rulebook.asset_by_name[name].index for name in ("USDC", "ETH", "BTC"))
    assert (usdc, rules.settlement_asset) == (0, 0)
    assert rules.asset_weight[0, :, eth].tolist() == [0.88, 0.90, 0.92]
    assert rules.debt_weight[0, :, eth].tolist() == [1.05, 1.0, 1.0]
    assert rules.asset_weight[0, :, btc].tolist() == [0.0, 0.0, 0.0]  # not listed
    assert rules.requirement_rate[0, :, 0].tolist() == [0.05, 0.035, 0.025]
    assert rules.asset_feed.tolist() == [NONE, 4, 3]
    assert rules.asset_flags.tolist() == [
        ASSET_BORROWABLE | ASSET_LISTED,
        ASSET_BORROWABLE | ASSET_LISTED,
        0,
    ]
    assert (rules.lot_numerator[0], rules.lot_units[0]) == (1.0, 10_000.0)
    assert (rules.tick_numerator[0], rules.tick_denominator[0]) == (10, 1)
    for found, wanted in zip(rules, example_arguments()[4], strict=True):
        if isinstance(wanted, np.ndarray):
            assert (found.dtype, found.ndim) == (wanted.dtype, wanted.ndim)
            assert found.flags.c_contiguous


def test_oracle_policy_of_a_feed_overrides_the_default() -> None:
    document = a_rulebook_dict()
    document["oracle"] = {
        "default": {"max_age_us": 7, "grace_us": 3},
        "feeds": {"BTC/USD": {"max_age_us": 9}},
    }
    rulebook = parse_rulebook(json.dumps(document))
    ages = {feed.name: rulebook.oracle[feed.index].max_age_us for feed in rulebook.feeds}
    assert (ages["BTC/USD"], ages["ETH/USD"]) == (9, 7)
    assert (rulebook.rules.grace_us, rulebook.oracle[0].grace_us) == (3, 3)


def test_state_feed_has_an_age_of_its_own_and_is_told_apart() -> None:
    document = a_rulebook_dict()
    for name in ("OI", "RATE"):
        document["feeds"][name] = {"exponent": -18, "kind": "state"}
    document["oracle"] = {
        "default": {"max_age_us": 7, "max_skew_us": 2},
        "feeds": {"RATE": {"max_age_us": 9}},
    }
    rulebook = parse_rulebook(json.dumps(document))
    oi, rate = rulebook.feed_by_name["OI"], rulebook.feed_by_name["RATE"]
    assert (oi.is_state, rulebook.feeds[0].is_state) == (True, False)
    assert rulebook.rules.feed_is_state.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert rulebook.rules.feed_units[oi.index] == 1e18
    assert rulebook.oracle[oi.index].max_age_us == 3_600_000_000
    assert rulebook.oracle[oi.index].max_skew_us == 2
    assert rulebook.oracle[rate.index].max_age_us == 9
    document["oracle"]["state"] = {"max_age_us": 8}
    ages = [policy.max_age_us for policy in parse_rulebook(json.dumps(document)).oracle]
    assert ages == [7, 7, 7, 7, 7, 8, 9]


def test_rulebook_hash_counts_what_states_say_only_where_they_say_something() -> None:
    base, document = some_rules(), a_rulebook_dict()
    document["feeds"]["BTC/USD"]["kind"] = "price"
    document["oracle"] = {"state": {"max_age_us": 3_600_000_000}}
    assert parse_rulebook(json.dumps(document)).hash == base.hash
    document["oracle"]["state"]["max_age_us"] += 1
    assert parse_rulebook(json.dumps(document)).hash != base.hash


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_rulebook_compiles(name: str) -> None:
    rulebook = builtin_rulebook(name)
    assert rulebook.id == name
    assert all(i.tick_value.denominator <= 1_000 for i in rulebook.instruments)


def test_builtin_rulebook_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'nope', limit: one of .*demo, .*example"):
        builtin_rulebook("nope")


@pytest.mark.parametrize(
    ("text", "step"),
    [("0.0001", Step(1, -4)), ("0.50", Step(5, -1)), ("10", Step(10, 0)), ("1.0", Step(1, 0))],
)
def test_step_from_text_drops_trailing_zeros(text: str, step: Step) -> None:
    assert Step.from_text(text) == step


@pytest.mark.parametrize("text", ["0.015", "-0.015", "0"])
def test_step_parse_and_format_are_inverse(text: str) -> None:
    step = Step.from_text("0.005")
    assert step.format(step.parse(text)) == text


@pytest.mark.parametrize("text", ["0.007", "0.0051", "x", "1e3"])
def test_step_parse_off_step_raises(text: str) -> None:
    with pytest.raises(ValueError, match=r"multiple|finer|decimal"):
        Step.from_text("0.005").parse(text)
