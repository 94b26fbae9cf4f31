"""Published margin cases of a public engine as rulebooks and snapshots for ``solvent evaluate``.

The file lies beside the project, as its source's licence does not let it travel inside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

__all__ = ["VECTORS", "case_of", "number", "vectors"]

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "portfolio_margin.json"

NOW_US = 1_735_689_600_000_000
_YEAR_US = 365 * 86_400 * 10**6
#: A price feed has at most 12 places and 2**53 steps; a state is told with 15.
_STATE = {"exponent": -15, "kind": "state"}


def number(given: float | int | str) -> Fraction:
    """Return a number of the file: a float by its shortest text, a decimal, or a ratio."""
    return Fraction(str(given))


def decimal(value: Fraction, places: int) -> str:
    """Return a fraction as a decimal rounded to so many places."""
    scaled = round(value * 10**places)
    digits = f"{abs(scaled):0{places + 1}d}"
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return ("-" if scaled < 0 else "") + text


def ppm(given: float | int | str) -> int:
    """Return a ratio of the file in ppm, which all of them are whole numbers of."""
    value = number(given) * 10**6
    assert value.denominator == 1, given
    return int(value)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merged(merged[key], value) if isinstance(value, Mapping) else value
    return merged


class _Case:
    """A rulebook and a snapshot that grow together."""

    def __init__(self, cash: Fraction) -> None:
        self.feeds: dict[str, Any] = {}
        self.marks: dict[str, str] = {}
        self.assets: dict[str, Any] = {"USDC": {"quantum_exponent": -6, "borrowable": True}}
        self.instruments: dict[str, Any] = {}
        self.underlyings: dict[str, Any] = {}
        self.haircuts = {"USDC": {"initial_haircut_ppm": 0, "maintenance_haircut_ppm": 0}}
        self.balances = {"USDC": decimal(cash, 6)}
        self.positions: list[dict[str, str]] = []

    def price(self, name: str, value: Fraction) -> str:
        places = max(0, min(12, 15 - len(str(int(value)))))
        self.feeds[name] = {"exponent": -places}
        self.marks[name] = decimal(value, places)
        return name

    def state(self, name: str, value: Fraction) -> str:
        self.feeds[name] = dict(_STATE)
        self.marks[name] = decimal(value, 15)
        return name

    def perp(self, name: str, size: Fraction, price: Fraction, pnl: Fraction, **keys: str) -> None:
        self._add(
            f"{name}-PERP",
            size,
            cost_basis=decimal(size * price - pnl, 6),
            mark_feed=self.price(f"{name}-PERP", price),
            underlying=name,
            **keys,
        )

    def options(
        self,
        name: str,
        place: int,
        left_us: int,
        forward: Fraction,
        given: Sequence[Any],
        **keys: str,
    ) -> None:
        at = f"{name}-{place}"
        feed = self.price(f"{at}/F", forward)
        for index, option in enumerate(given):
            self._add(
                f"{at}-{index}",
                number(option["amount"]),
                kind="option",
                underlying=name,
                right="call" if option["call"] else "put",
                strike=decimal(number(option["K"]), 9),
                expires_at_us=NOW_US + left_us,
                forward_feed=feed,
                volatility_feed=self.state(f"{at}-{index}/iv", number(option["vol"])),
                **keys,
            )

    def _add(self, market: str, size: Fraction, cost_basis: str = "", **keys: Any) -> None:
        # sizes are floats: as many places as 2**53 lots leave
        places = 9 if (size * 10**9).denominator == 1 else 15 - len(str(int(abs(size))))
        lot, tick = f"0.{1:0>{places}}", f"{10 ** max(0, places - 9)}"
        whole = {"lot": lot, "tick": tick, "settles_in": "USDC"}
        self.instruments[market] = {"id": len(self.instruments) + 1, **whole, **keys}
        position = {"market": market, "size": decimal(size, places)}
        if cost_basis:
            position["cost_basis"] = cost_basis
        self.positions.append(position)

    def rulebook(self, extends: str, terms: list[Any]) -> str:
        preset = {
            "extends": extends,
            "collateral": self.haircuts,
            "requirement": {"sum": terms},
        }
        return yaml.safe_dump(
            {
                "rulebook": {"id": "vector", "version": 1, "settlement_asset": "USDC"},
                "feeds": self.feeds,
                "assets": self.assets,
                "underlyings": self.underlyings,
                "instruments": self.instruments,
                "presets": {"vector": preset},
                "bindings": {"all": "vector"},
                "default_class": "all",
            },
            sort_keys=False,
        )

    def snapshot(self) -> dict[str, Any]:
        account = {
            "account_id": "a",
            "collateral": self.balances,
            "positions": self.positions,
        }
        return {"ts_us": NOW_US, "marks": self.marks, "accounts": [account]}


def case_of(vector: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return rulebook (YAML) and snapshot of a case."""
    return (_standard if vector["model"] == "derive_srm" else _scan)(vector, params)


def _standard(vector: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    inputs = vector["inputs"]
    p = {**params["derive_srm_params"], **inputs.get("params", {})}
    stable = number(inputs.get("stable", 1))
    case = _Case(number(inputs["cash"]))
    stable_feed = case.price("USDC/USD", stable)
    for market in inputs["markets"]:
        name, spot = market["underlying"], number(market["spot"])
        spot_quality = number(market.get("spot_conf", 1))
        case.underlyings[name] = {
            "spot_feed": case.price(f"{name}/USD", spot),
            "quality_feed": case.state(f"{name}/quality", spot_quality),
            "stable_feed": stable_feed,
        }
        if "perp" in market:
            perp = market["perp"]
            quality = case.state(f"{name}-PERP/quality", number(perp.get("conf", 1)))
            pnl = number(market.get("perp_upnl", 0))
            size, price = number(perp["size"]), number(perp["price"])
            case.perp(name, size, price, pnl, quality_feed=quality)
        for place, expiry in enumerate(market.get("expiries", [])):
            quality = min(number(expiry.get(key, 1)) for key in ("forward_conf", "vol_conf"))
            left_us = round(number(expiry["T_years"]) * _YEAR_US)
            case.options(
                name, place, left_us, number(expiry["forward"]), expiry["options"],
                quality_feed=case.state(f"{name}-{place}/quality", quality),
            )  # fmt: skip
        if "base" in market:
            case.assets[name] = {
                "quantum_exponent": -9,
                "index_feed": case.price(f"{name}/USDC", spot / stable),
                "underlying": name,
            }
            case.haircuts[name] = case.haircuts["USDC"]
            case.balances[name] = decimal(number(market["base"]), 9)
    term = {
        "term": "option_standard",
        "initial_share_ppm": ppm(p["max_spot_req"]),
        "initial_least_ppm": ppm(p["min_spot_req"]),
        "maintenance_call_ppm": ppm(p["mm_call_spot_req"]),
        "maintenance_put_ppm": ppm(p["mm_put_spot_req"]),
        "maintenance_put_value_ppm": ppm(p["mm_put_mtm_req"]),
        "put_ratio_ppm": ppm(p["put_im_mm_ratio"]),
        "unpaired_initial_ppm": ppm(p["unpaired_im"]),
        "unpaired_maintenance_ppm": ppm(p["unpaired_mm"]),
        "linear_initial_ppm": ppm(p["perp_im"]),
        "linear_maintenance_ppm": ppm(p["perp_mm"]),
        "base_initial_ppm": ppm(number(p["base_margin_factor"]) * number(p["base_im_scale"])),
        "base_maintenance_ppm": ppm(p["base_margin_factor"]),
        "quality_threshold_ppm": ppm(p["oc_threshold"]),
        "quality_factor_ppm": ppm(p["oc_factor"]),
        "peg_ppm": ppm(p["depeg_threshold"]),
        "peg_factor_ppm": ppm(p["depeg_factor"]),
    }
    return case.rulebook("cross-margin", [term]), case.snapshot()


def _scan(vector: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    inputs = vector["inputs"]
    p = _merged(params["derive_pmrm2_params"], inputs.get("params", {}))
    stable = number(inputs["stable"])
    pnl = number(inputs.get("perp_upnl", 0)) + number(inputs.get("perp_funding", 0))
    case = _Case(number(inputs["cash"]))
    case.underlyings["X"] = {
        "spot_feed": case.price("X/USD", number(inputs["spot"])),
        "quality_feed": case.state("X/quality", number(inputs["spot_conf"])),
        "stable_feed": case.price("USDC/USD", stable),
    }
    if "perp_size" in inputs:
        case.perp(
            "X", number(inputs["perp_size"]), number(inputs["perp_price"]), pnl,
            quality_feed=case.state("X-PERP/quality", number(inputs.get("perp_conf", 1))),
        )  # fmt: skip
    else:
        assert not pnl
    for place, expiry in enumerate(inputs.get("expiries", [])):
        case.options(
            "X", place, int(expiry["seconds"]) * 10**6, number(expiry["forward"]),
            expiry["options"],
            rate_feed=case.state(f"X-{place}/rate", number(expiry.get("rate", 0))),
            quality_feed=case.state(f"X-{place}/quality", number(expiry.get("conf", 1))),
        )  # fmt: skip
    for place, held in enumerate(inputs.get("collaterals", [])):
        name = f"C{place}"
        case.assets[name] = {
            "quantum_exponent": -9,
            "index_feed": case.price(f"{name}/USDC", number(held["price"]) / stable),
            "quality_feed": case.state(f"{name}/quality", number(held["conf"])),
        }
        if held["risk_cancelling"]:
            case.assets[name]["underlying"] = "X"
        haircut = number(held["mm_haircut"])
        case.haircuts[name] = {
            "initial_haircut_ppm": round((haircut + number(held["im_haircut"])) * 10**6),
            "maintenance_haircut_ppm": round(haircut * 10**6),
            "haircut_side": "requirement",
        }
        case.balances[name] = decimal(number(held["amount"]), 9)
    shock, margin, basis = p["vol_shock"], p["margin"], p["basis"]
    other, skew = p["other"], p["skew"]
    scan = {
        "term": "scan",
        "scenarios": [
            {"spot": str(spot), "volatility": volatility, "damp": str(damp)}
            for spot, volatility, damp in p["scenarios"]
        ],
        "volatility_shock": {
            "up_ppm": ppm(shock["range_up"]),
            "down_ppm": ppm(shock["range_down"]),
            "least_ppm": ppm(shock["min_vol"]),
            "short_power_ppm": ppm(shock["short_power"]),
            "long_power_ppm": ppm(shock["long_power"]),
            "floor_days": str(shock["dte_floor"]),
        },
        "static_discount": {
            "gain_ppm": ppm(margin["static_discount_pos"]),
            "gain_rate_ppm": ppm(margin["pos_rate_mult"]),
            "gain_add_ppm": ppm(margin["pos_rate_add"]),
            "loss_ppm": ppm(margin["static_discount_neg"]),
            "loss_rate_ppm": ppm(margin["neg_rate_mult"]),
            "loss_add_ppm": ppm(margin["neg_rate_add"]),
        },
        "basis": {
            "up": str(basis["up"]),
            "down": str(basis["down"]),
            "add_ppm": ppm(basis["add"]),
            "mult_ppm": ppm(basis["mult"]),
        },
        "smile": {
            "linear_cap_ppm": ppm(skew["linear_cap"]),
            "linear_base_ppm": ppm(skew["linear_base"]),
            "abs_cap_ppm": ppm(skew["abs_cap"]),
            "abs_base_ppm": ppm(skew["abs_base"]),
            "least_width_ppm": ppm(skew["min_k_star"]),
            "width_ppm": ppm(skew["width"]),
            "width_volatility_ppm": ppm(skew["vol_static"]),
            "width_slope_ppm": ppm(skew["vol_scale"]),
        },
        "loss_initial_ppm": ppm(margin["im_loss"]),
        "loss_maintenance_ppm": ppm(margin["mm_loss"]),
        "peg_ppm": ppm(other["peg_threshold"]),
        "peg_factor_ppm": ppm(other["peg_factor"]),
    }
    beside = {
        "term": "contingencies",
        "linear_maintenance_ppm": ppm(other["mm_perp"]),
        "linear_more_ppm": ppm(other["im_perp"]),
        "option_maintenance_ppm": ppm(other["mm_option"]),
        "option_more_ppm": ppm(other["im_option"]),
        "quality_threshold_ppm": ppm(other["conf_threshold"]),
        "quality_factor_ppm": ppm(other["conf_margin"]),
    }
    return case.rulebook("cross-margin", [scan, beside]), case.snapshot()


def vectors() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each case with the parameter sets; nothing where the file is not there."""
    if VECTORS.exists():
        document = json.loads(VECTORS.read_text())
        for vector in document["vectors"]:
            yield vector, document["params"]
