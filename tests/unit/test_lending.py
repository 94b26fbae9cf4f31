"""Repayment, seizure and bonus: E5 of the model with its arithmetic, limits, and what must hold."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.domain.lending import (
    CloseFactor,
    bonus_at,
    debt_for_shortage,
    debt_to_target,
    helping_bonus,
    repay_limit,
    seizure_of,
    without_dust,
)
from solvent.units import PPM

USD = 1_000_000
LT = 800_000

# E5: 5.2 ETH at 2,300 (LT 80 %), 0.1 BTC at 58,000 (LT 70 %): 13,628 after thresholds, 17,760
# before; debt 14,800 USDC at 1.0003 = 14,804.44, so HF = 0.9205
DEBT = 14_804_440_000
EQUITY = 13_628 * USD
COLLATERAL = 17_760 * USD


def test_e5_repays_9488_to_reach_a_health_factor_of_1_05() -> None:
    """(1.05 * 14,804.44 - 13,628) / (1.05 - 1.06 * 0.80) = 1,916.662 / 0.202 = 9,488.4257."""
    repay = debt_to_target(
        debt_micros=DEBT, equity_micros=EQUITY, target_ppm=1_050_000, bonus_ppm=60_000,
        threshold_ppm=LT,
    )  # fmt: skip
    assert repay == 9_488_425_743
    seizure = seizure_of(repay, bonus_ppm=60_000, protocol_share_ppm=100_000)
    assert seizure.seized_micros == 10_057_731_287  # 1.06 times
    assert seizure.protocol_micros == 56_930_555  # a tenth of 569.3055
    after = Fraction(EQUITY * PPM - LT * seizure.seized_micros, PPM * (DEBT - repay))
    assert Fraction(105, 100) <= after < Fraction(105_000_001, 100_000_000)
    # LTV 0.8336 <= 1/1.06: the step helps, so the bonus stands
    assert helping_bonus(60_000, debt_micros=DEBT, collateral_micros=COLLATERAL,
                         equity_micros=EQUITY, threshold_ppm=LT) == 60_000  # fmt: skip


def test_debt_to_target_is_nothing_above_it_and_all_where_it_cannot_be_reached() -> None:
    given_ = {"debt_micros": 100 * USD, "target_ppm": 1_050_000, "bonus_ppm": 60_000}
    assert debt_to_target(**given_, equity_micros=106 * USD, threshold_ppm=LT) == 0
    # 1.06 * 0.995 > 1.05: each repayment takes more than it helps
    assert debt_to_target(**given_, equity_micros=90 * USD, threshold_ppm=995_000) == 100 * USD
    assert debt_to_target(**given_, equity_micros=0, threshold_ppm=LT) == 100 * USD


@given(
    debt=st.integers(1, 10**15),
    factor=st.integers(0, 1_200_000),
    target=st.integers(1_000_000, 1_300_000),
    bonus=st.integers(0, 200_000),
    threshold=st.integers(1, 950_000),
)
def test_debt_to_target_is_the_least_that_reaches_it(
    debt: int, factor: int, target: int, bonus: int, threshold: int
) -> None:
    equity = debt * factor // PPM
    repay = debt_to_target(debt_micros=debt, equity_micros=equity, target_ppm=target,
                           bonus_ppm=bonus, threshold_ppm=threshold)  # fmt: skip

    def missing(repaid: int) -> Fraction:
        taken = Fraction(repaid * (PPM + bonus), PPM)
        return Fraction(target, PPM) * (debt - repaid) - (equity - taken * threshold / PPM)

    assert 0 <= repay <= debt
    if repay < debt:
        assert missing(repay) <= 0
        assert repay == 0 or missing(repay - 1) > 0


@given(
    shortage=st.integers(0, 10**13),
    debt=st.integers(1, 10**13),
    collateral=st.integers(1, 10**13),
    debt_weight=st.integers(1_000_000, 1_500_000),
    weight=st.integers(0, 1_000_000),
    debt_multiplier=st.integers(900_000, 1_000_000),
    multiplier=st.integers(1_000_000, 1_100_000),
    fee=st.integers(0, 20_000),
)
def test_debt_for_shortage_is_the_least_swap_that_makes_it_up(
    shortage: int, debt: int, collateral: int, debt_weight: int, weight: int,
    debt_multiplier: int, multiplier: int, fee: int,
) -> None:  # fmt: skip
    repay = debt_for_shortage(
        shortage,
        debt_micros=debt,
        collateral_micros=collateral,
        debt_weight_ppm=debt_weight,
        collateral_weight_ppm=weight,
        debt_multiplier_ppm=debt_multiplier,
        collateral_multiplier_ppm=multiplier,
        fund_fee_ppm=fee,
    )
    price = Fraction(multiplier, debt_multiplier)  # collateral given for a unit of debt
    freed = Fraction(debt_weight * (PPM - fee), PPM**2) - Fraction(weight, PPM) * price
    most = min(debt, int(collateral / price))
    assert 0 <= repay <= most
    if freed <= 0 < shortage:
        assert repay == most
    elif repay < most:
        assert repay * freed >= shortage
        assert repay == 0 or (repay - 1) * freed < shortage


def test_debt_for_shortage_by_hand() -> None:
    """1,000 short; debt at 1.2, collateral at 0.8, 2 % to the liquidator, 0.5 % of 1.2 to the fund.

    A unit repaid frees 1.2 - 0.8 * 1.02 - 0.006 = 0.378: 1,000 / 0.378 = 2,645.5027.
    """
    repay = debt_for_shortage(
        1_000 * USD,
        debt_micros=9_000 * USD,
        collateral_micros=12_000 * USD,
        debt_weight_ppm=1_200_000,
        collateral_weight_ppm=800_000,
        debt_multiplier_ppm=PPM,
        collateral_multiplier_ppm=1_020_000,
        fund_fee_ppm=5_000,
    )
    assert repay == 2_645_502_646


RULE = CloseFactor(normal_ppm=500_000, full_at_ppm=950_000, full_below_micros=2_000 * USD)


@pytest.mark.parametrize(
    ("reserve_debt", "reserve_collateral", "debt", "equity", "most"),
    [
        (8_000, 9_000, 10_000, 9_800, 5_000),  # half of all debt, not of the reserve's
        (3_000, 9_000, 10_000, 9_800, 3_000),  # the reserve has less
        (8_000, 9_000, 10_000, 9_500, 8_000),  # at 0.95 all of the reserve
        (8_000, 1_999, 10_000, 9_800, 8_000),  # little collateral
        (1_999, 9_000, 10_000, 9_800, 1_999),  # little debt
        (2_000, 2_000, 3_000, 2_900, 1_500),  # exactly 2,000 is not little
    ],
)
def test_repay_limit(
    reserve_debt: int, reserve_collateral: int, debt: int, equity: int, most: int
) -> None:
    found = repay_limit(
        RULE,
        reserve_debt_micros=reserve_debt * USD,
        reserve_collateral_micros=reserve_collateral * USD,
        debt_micros=debt * USD,
        equity_micros=equity * USD,
    )
    assert found == most * USD


@pytest.mark.parametrize(
    ("repay", "debt", "collateral", "then"),
    [
        (500, 5_000, 9_000, 500),
        (4_500, 5_000, 9_000, 5_000),  # 500 of debt would stay
        (4_500, 5_000, 5_500, 5_000),  # and with it 250 of collateral
        (5_000, 9_000, 5_900, "5619.047620"),  # 650 would stay: all 5,900 / 1.05 are repaid
        (5_000, 5_000, 5_250, 5_000),
    ],
)
def test_without_dust(repay: int, debt: int, collateral: int, then: int | str) -> None:
    found = without_dust(
        repay * USD,
        reserve_debt_micros=debt * USD,
        reserve_collateral_micros=collateral * USD,
        bonus_ppm=50_000,
        least_micros=1_000 * USD,
    )
    assert found == Fraction(then) * USD


@pytest.mark.parametrize(
    ("factor", "bonus"), [(1_000, 10), (999, 11), (950, 60), (900, 110), (850, 110)]
)
def test_bonus_rises_as_health_falls(factor: int, bonus: int) -> None:
    """From 1 % at 1 to 11 % at 0.9: 1 % + 10 % * (1 - HF) / 0.1."""
    found = bonus_at(debt_micros=1_000, equity_micros=factor, least_ppm=10_000, most_ppm=110_000,
                     most_at_ppm=900_000)  # fmt: skip
    assert found == bonus * 1_000


def test_helping_bonus_is_lowered_to_what_leaves_the_account_no_worse() -> None:
    # collateral 104 for a debt of 100: 4 % is all there is
    assert helping_bonus(60_000, debt_micros=100, collateral_micros=104, equity_micros=90,
                         threshold_ppm=850_000) == 40_000  # fmt: skip
    # HF 0.9, LT 0.88: (1 + i) * 0.88 <= 0.9 -> i <= 2.27 %
    assert helping_bonus(60_000, debt_micros=100, collateral_micros=200, equity_micros=90,
                         threshold_ppm=880_000) == 22_727  # fmt: skip
    assert helping_bonus(60_000, debt_micros=100, collateral_micros=90, equity_micros=80,
                         threshold_ppm=880_000) == 0  # fmt: skip


@given(st.integers(1, 10**15), st.integers(0, 300_000), st.integers(0, 1_000_000))
def test_seizure_parts_are_within_it(repay: int, bonus: int, share: int) -> None:
    seizure = seizure_of(repay, bonus_ppm=bonus, protocol_share_ppm=share)
    assert repay <= seizure.seized_micros <= repay * (PPM + bonus) / PPM
    assert 0 <= seizure.protocol_micros <= seizure.seized_micros - repay + 1
    assert seizure.liquidator_micros >= repay - 1
