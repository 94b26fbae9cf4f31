"""Which rulebook may follow another, and what each refusal says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from solvent.errors import ConfigError
from solvent.rules import builtin_names, builtin_rulebook, check_successor, compile_document
from solvent.rules.compile import compile_rulebook
from solvent.rules.source import MAX_DOCUMENT_BYTES
from support.margin import a_rulebook, a_successor, merged, rates_of

LEAGUE = {"id": 13, "lot": "1", "tick": "1", "mark_feed": "ETH", "settles_in": "USDC"}
GOLD = {"quantum_exponent": -3, "index_feed": "ODD"}
MARKETS = ("BTC-PERP", "ETH-PERP", "ODD-PERP")


def presets_of(markets: tuple[str, ...]) -> dict[str, Any]:
    """Return both presets of the tests' rulebook with rates for these markets."""
    rates = {
        market: {"initial_rate_ppm": 400_000, "maintenance_rate_ppm": 200_000} for market in markets
    }
    need = {"requirement": {"sum": [{"term": "flat", "markets": rates}]}}
    return {"cross-margin": need, "strict": need}


@pytest.mark.parametrize("name", builtin_names())
def test_document_of_a_rulebook_compiles_to_the_same(name: str) -> None:
    rulebook = builtin_rulebook(name)
    assert compile_document(rulebook.document).hash == rulebook.hash
    assert len(rulebook.document) < MAX_DOCUMENT_BYTES


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="nothing but the version"),
        pytest.param({"presets": rates_of(200_000)}, id="rates"),
        pytest.param({"oracle": {"default": {"band_ppm": 1}}}, id="oracle"),
        pytest.param({"limits": {"max_future_us": 1}}, id="limits"),
        pytest.param({"feeds": {"SOL": {"exponent": -3}}}, id="feed more"),
        pytest.param(
            {"instruments": {"LEAGUE": LEAGUE}, "presets": presets_of((*MARKETS, "LEAGUE"))},
            id="market more",
        ),
        pytest.param({"instruments": {"BTC-PERP": {"tick": "1"}}}, id="another tick"),
        pytest.param({"assets": {"ETHER": {"borrowable": True}}}, id="borrowable"),
        pytest.param(
            {"assets": {"GOLD": {"quantum_exponent": -3, "index_feed": "ODD"}}}, id="asset more"
        ),
        pytest.param({"bindings": {"maker": "strict"}}, id="class more"),
    ],
)
def test_successor_that_keeps_what_accounts_hold_is_allowed(changes: dict[str, Any]) -> None:
    check_successor(a_rulebook(), a_successor(**changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"rulebook": {"id": "x"}}, ["rulebook.id", "'x'", "'tests'"], id="id"),
        pytest.param(
            {"rulebook": {"version": 1}}, ["rulebook.version", "1", "above 1"], id="same version"
        ),
        pytest.param({"feeds": {"BTC": {"exponent": -3}}}, ["feeds.BTC.exponent", "-3"], id="feed"),
        pytest.param(
            {"assets": {"ETHER": {"quantum_exponent": -9}}},
            ["assets.ETHER.quantum_exponent", "-9", "-8"],
            id="quantum",
        ),
        pytest.param(
            {"instruments": {"BTC-PERP": {"lot": "0.25"}}},
            ["instruments.BTC-PERP.lot", "0.25", "0.5"],
            id="lot",
        ),
        pytest.param(
            {"instruments": {"ODD-PERP": None}, "presets": presets_of(MARKETS[:2])},
            ["instruments.ODD-PERP", "None", "stays"],
            id="market less",
        ),
        pytest.param(
            {
                "instruments": {"LEAGUE": LEAGUE | {"id": 5}},
                "presets": presets_of((*MARKETS, "LEAGUE")),
            },
            ["instruments.LEAGUE.id", "5", "above 12"],
            id="market between",
        ),
        pytest.param(
            {"bindings": {"trader": "strict"}},
            ["bindings.trader", "'strict'", "'cross-margin'"],
            id="class bound otherwise",
        ),
        pytest.param({"bindings": {"careful": None}}, ["bindings.careful", "None"], id="no class"),
        pytest.param({"default_class": "careful"}, ["default_class", "'careful'"], id="default"),
    ],
)
def test_successor_that_moves_what_accounts_hold_is_refused(
    changes: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_successor(a_rulebook(), a_successor(**changes))
    assert all(word in refused.value.message for word in named), refused.value.message


@pytest.mark.parametrize("section", ["assets", "presets"])
def test_successor_with_another_order_is_refused(section: str) -> None:
    after = a_successor()
    model = after.model.model_copy(
        update={section: dict(reversed(getattr(after.model, section).items()))}
    )
    with pytest.raises(ConfigError, match=f"rulebook {section}: .* at place 1"):
        check_successor(a_rulebook(), compile_rulebook(model))


@pytest.mark.parametrize(
    ("document", "named"),
    [
        pytest.param(b"", "valid JSON", id="empty"),
        pytest.param(b"[]", "a mapping of sections", id="a list"),
        pytest.param(b'{"rulebook": NaN}', "a finite number", id="NaN"),
        pytest.param(b'{"feeds": {"A": {}, "A": {}}}', "each key once", id="key twice"),
        pytest.param(b'{"x": ' * 5_000 + b"1" + b"}" * 5_000, "valid JSON", id="deep"),
        pytest.param(b" " * (MAX_DOCUMENT_BYTES + 1), f"at most {MAX_DOCUMENT_BYTES}", id="long"),
        pytest.param(b'{"speed": 1}', "no such key", id="unknown key"),
    ],
)
def test_document_that_is_none_is_refused(document: bytes, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        compile_document(document)


def test_families_do_not_travel() -> None:
    document = a_successor().model.model_dump(mode="json", exclude_none=True)
    document = merged(document, {"presets": {"strict": {"extends": "cross-perp-brackets"}}})
    with pytest.raises(ConfigError, match=r"presets\.strict\.extends: .* no such key"):
        compile_document(json.dumps(document).encode())
