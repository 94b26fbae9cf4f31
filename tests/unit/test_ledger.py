"""The fill table of MODEL.md 2 and worked example E1, by visible arithmetic."""

from __future__ import annotations

import pytest

from solvent.kernel.arithmetic import LIMIT, multiply_divide_floor, trade_value
from solvent.kernel.ledger import apply_fill
from support.margin import Log, Replay, ledger_of

TICK_VALUE = 250_000  # micros a lot and tick, as in E1


def fill(size: int, cost: int, lots: int, ticks: int) -> tuple[int, int, int]:
    size, cost, realised, residue, _, is_exact = apply_fill(size, cost, lots, ticks, TICK_VALUE, 1)
    assert is_exact
    assert residue == 0
    return size, cost, realised


def test_fills_of_worked_example_give_its_cost_basis_and_pnl() -> None:  # E1
    size, cost, realised = fill(0, 0, 7, 103)
    size, cost, realised = fill(size, cost, 5, 110)
    assert (size, cost, realised) == (12, (7 * 103 + 5 * 110) * 250_000, 0)

    size, cost, first = fill(size, cost, -8, 120)
    released = 317_750_000 * 8 // 12
    assert released == 211_833_333
    assert first == 8 * 120 * 250_000 - released == 28_166_667
    assert (size, cost) == (4, 317_750_000 - released) == (4, 105_916_667)

    size, cost, second = fill(size, cost, -6, 118)
    assert second == 4 * 118 * 250_000 - 105_916_667 == 12_083_333
    assert (size, cost) == (-2, -2 * 118 * 250_000) == (-2, -59_000_000)

    unrealised = -2 * 119 * 250_000 - cost
    cash_flows = (-7 * 103 - 5 * 110 + 8 * 120 + 6 * 118) * 250_000
    assert first + second + unrealised == 39_750_000 == cash_flows - 2 * 119 * 250_000


@pytest.mark.parametrize(
    ("before", "fill_of", "after"),
    [
        pytest.param((0, 0), (3, 10), (3, 30, 0), id="open long"),
        pytest.param((0, 0), (-3, 10), (-3, -30, 0), id="open short"),
        pytest.param((3, 30), (2, 11), (5, 52, 0), id="add to long"),
        pytest.param((-3, -30), (-2, 11), (-5, -52, 0), id="add to short"),
        pytest.param((3, 30), (-1, 12), (2, 20, 2), id="reduce long with gain"),
        pytest.param((-3, -30), (1, 12), (-2, -20, -2), id="reduce short with loss"),
        pytest.param((3, 31), (-1, 12), (2, 21, 12 - 10), id="release floors"),
        pytest.param((-3, -31), (1, 12), (-2, -20, 11 - 12), id="release floors below zero"),
        pytest.param((3, 31), (-3, 12), (0, 0, 36 - 31), id="close long"),
        pytest.param((-3, -31), (3, 12), (0, 0, 31 - 36), id="close short"),
        pytest.param((3, 30), (-5, 12), (-2, -24, 36 - 30), id="through zero downwards"),
        pytest.param((-3, -30), (5, 12), (2, 24, 30 - 36), id="through zero upwards"),
    ],
)
def test_fill_by_case_gives_size_cost_and_realised(
    before: tuple[int, int], fill_of: tuple[int, int], after: tuple[int, int, int]
) -> None:
    size, cost, realised, _, _, is_exact = apply_fill(*before, *fill_of, 1, 1)
    assert is_exact
    assert (size, cost, realised) == after


@pytest.mark.parametrize(
    ("lots", "value"),
    [
        pytest.param(7, 1, id="buyer pays 0.7 micros: up to 1"),
        pytest.param(-7, 0, id="seller receives 0.7 micros: down to 0"),
        pytest.param(10, 1, id="whole micros do not round"),
        pytest.param(-10, -1, id="whole micros do not round, sold"),
    ],
)
def test_value_of_broken_micros_rounds_up_for_both_sides(lots: int, value: int) -> None:
    assert trade_value(lots, 1, 1, 10) == (value, True)


@pytest.mark.parametrize(
    ("lots", "ticks", "is_exact"),
    [
        pytest.param(LIMIT, 1, True, id="at the limit"),
        pytest.param(LIMIT, 2, False, id="twice the limit"),
        pytest.param(LIMIT, LIMIT, False, id="beyond int64"),
        pytest.param(-LIMIT, LIMIT, False, id="beyond int64, sold"),
    ],
)
def test_value_beyond_exact_range_is_refused(lots: int, ticks: int, is_exact: bool) -> None:
    assert trade_value(lots, ticks, 1, 1)[1] is is_exact


def test_release_of_128_bit_product_is_exact() -> None:
    amount, part, whole = LIMIT - 1, LIMIT - 3, LIMIT
    assert multiply_divide_floor(amount, part, whole) == amount * part // whole
    assert multiply_divide_floor(-amount, part, whole) == -amount * part // whole


def test_trade_realises_pnl_less_fee_into_settlement_balance() -> None:
    log = Log().move(amount="100").trade(size="2", price="100", fee="0.5")
    log.trade(side="sell", size="1", price="103", fee="0.25")
    (_, _, books) = ledger_of(Replay().run(log).shard)["alice"]
    # lots of 0.5: 4 bought for 200, 2 sold for 103 that had cost 100
    balance = 100_000_000 - 500_000 + 3_000_000 - 250_000
    assert books == {"cross": ({"BTC-PERP": (2, 100_000_000)}, {"USDC": balance})}
