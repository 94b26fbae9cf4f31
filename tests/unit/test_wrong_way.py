"""Wrong-way risk by visible arithmetic: correlations, what is left out, what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.api import Rulebook, Snapshot, evaluate
from solvent.engine.snapshot import evaluate_snapshot
from solvent.engine.wrong_way import correlation
from solvent.errors import ContractError
from solvent.rules import builtin_rulebook
from support.contracts import SCHEMAS
from support.margin import a_rulebook

#: ETH up a tenth and down a tenth; BTC the same, mirrored, and at rest.
HISTORY = {"ETH": ["8", "8.8", "7.92"], "BTC": ["100", "110", "99"], "ODD": ["1", "1", "1"]}


def a_unit(size: str = "4", **changes: Any) -> dict[str, Any]:
    position = {"market": "BTC-PERP", "size": size, "entry_price": "90"}
    return {
        "account_id": "a",
        "collateral": {"USDC": "20", "ETHER": "8"},
        "positions": [position],
    } | (changes)


def wrong_way(unit: dict[str, Any], history: dict[str, list[str]]) -> dict[str, Any]:
    marks = {"BTC": "90", "ETH": "8", "ODD": "1"}
    snapshot = {"marks": marks, "accounts": [unit], "history": history}
    found: dict[str, Any] = evaluate_snapshot(a_rulebook(), snapshot)["accounts"][0]["wrong_way"]
    return found


def test_correlation_of_two_steps_weighs_the_last_one_more() -> None:
    # 0.97 * 1 * 1 + 1 * 1 * -1 = -0.03, over 1.97 for each
    one, other = np.array([1.0, 1.0]), np.array([1.0, -1.0])
    assert correlation(one, other) == pytest.approx(-0.03 / 1.97, rel=1e-14)
    assert correlation(one, np.zeros(2)) is None


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=50))
def test_correlation_lies_between_its_bounds_and_knows_no_scale(
    steps: list[tuple[float, float]],
) -> None:
    one, other = (np.array(side) for side in zip(*steps, strict=True))
    found = correlation(one, other)
    if found is not None:
        assert -1.0 <= found <= 1.0
        assert correlation(one * 2.0, other * 4.0) == found
        assert correlation(one, -other) == -found


def test_collateral_that_falls_with_a_long_position_is_wrong_way() -> None:
    # equity 20 + 64 * 7/8 = 76, 360/8 = 45 required: more than half
    assert wrong_way(a_unit(), HISTORY) == {"correlation": "1", "warning": True}
    assert wrong_way(a_unit("-4"), HISTORY) == {"correlation": "-1", "warning": False}
    # 0.5 BTC needs 5.625, little of it
    assert wrong_way(a_unit("0.5"), HISTORY) == {"correlation": "1", "warning": False}


@pytest.mark.parametrize(
    ("unit", "history"),
    [
        pytest.param(a_unit(collateral={"USDC": "100"}), HISTORY, id="collateral at rest"),
        pytest.param(a_unit(positions=[]), HISTORY, id="no position"),
        pytest.param(a_unit(), {"BTC": HISTORY["BTC"]}, id="no history of the collateral"),
        pytest.param(a_unit(), {"ETH": HISTORY["ETH"]}, id="no history of the position"),
        pytest.param(a_unit(), {}, id="no history at all"),
        pytest.param(a_unit(), {**HISTORY, "BTC": ["5", "5", "5"]}, id="price at rest"),
    ],
)
def test_correlation_is_not_given_where_nothing_moves_or_is_known(
    unit: dict[str, Any], history: dict[str, list[str]]
) -> None:
    assert wrong_way(unit, history) == {"correlation": None, "warning": False}


def test_book_with_options_has_none() -> None:
    folder = SCHEMAS / "evaluate" / "examples" / "snapshot" / "valid"
    content = json.loads((folder / "deribit.options.json").read_text())
    rulebook = builtin_rulebook("deribit")
    feeds = [feed.name for feed in rulebook.feeds if not feed.is_state]
    content["history"] = {name: ["1", "2", "1"] for name in feeds}
    accounts = evaluate_snapshot(rulebook, content)["accounts"]
    told = [account["wrong_way"]["correlation"] for account in accounts if "wrong_way" in account]
    assert told
    assert None in told


def test_without_a_history_nothing_is_said() -> None:
    snapshot = {"marks": {"BTC": "90", "ETH": "8"}, "accounts": [a_unit()]}
    assert "wrong_way" not in evaluate_snapshot(a_rulebook(), snapshot)["accounts"][0]


@pytest.mark.parametrize(
    ("history", "named"),
    [
        pytest.param({"DOGE": ["1", "1", "1"]}, "history: 'DOGE'", id="unknown feed"),
        pytest.param({"BTC": ["1", "1"]}, "history.BTC: 2 prices: 3 to 10000", id="too few"),
        pytest.param(
            {"BTC": ["1", "1", "1"], "ETH": ["1"] * 4}, "history.ETH: 4 prices", id="not as many"
        ),
        pytest.param({"BTC": ["1", "0", "1"]}, "history.BTC.1: 0: above 0", id="no price"),
        pytest.param({"BTC": ["1", "-2", "1"]}, "history.BTC.1: -2: above 0", id="below 0"),
        pytest.param({"BTC": ["1", 2, "1"]}, "history.BTC.1: 2: a decimal string", id="number"),
        pytest.param({"BTC": ["1", "0.001", "1"]}, "history.BTC.1", id="too fine"),
        pytest.param({"BTC": "1"}, "history.BTC: '1': a list", id="no list"),
        pytest.param([], "history: []: an object", id="no object"),
    ],
)
def test_history_out_of_contract_is_refused(history: Any, named: str) -> None:
    with pytest.raises(ContractError) as refused:
        wrong_way(a_unit(), history)
    assert named in refused.value.message, refused.value.message


def test_frames_in_and_out_have_it() -> None:
    rows = [(feed, price) for feed, prices in HISTORY.items() for price in prices]
    snapshot = Snapshot.from_frames(
        marks=pl.DataFrame({"feed": ["BTC", "ETH"], "price": ["90", "8"]}),
        positions=pl.DataFrame(
            {"account_id": ["a"], "market": ["BTC-PERP"], "size": ["4"], "entry_price": ["90"]}
        ),
        collateral=pl.DataFrame({"account_id": ["a"], "asset": ["ETHER"], "amount": ["8"]}),
        history=pl.DataFrame(rows, schema=["feed", "price"], orient="row"),
    )
    accounts = evaluate(Rulebook(a_rulebook()), snapshot).accounts
    assert accounts["wrong_way_correlation"].to_list() == [1.0]
    assert accounts["wrong_way_warning"].to_list() == [True]
