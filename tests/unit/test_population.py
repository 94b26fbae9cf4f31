"""The synthetic population: decodable, deterministic, heavy-tailed, healthy at the start."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from statistics import median

import pytest

from solvent.engine.snapshot import evaluate_snapshot
from solvent.errors import ConfigError
from solvent.kernel.layout import INITIAL
from solvent.ops.population import SyntheticAccount, population
from solvent.rules.compile import CompiledRulebook, builtin_rulebook
from solvent.units import format_scaled
from solvent.wire.inputs import decode_collateral_move, decode_trade

PRICES = {
    "BTC-PERP": "82450.05",  # half a tick off: the entry differs from the mark
    "ETH-PERP": "1803.455",
    "LINK-PERP": "13.00049",
    "ADA-PERP": "0.65",
    "BTC/USD": "82451",
    "ETH/USD": "1803.5",
}


@pytest.fixture(scope="module")
def rulebook() -> CompiledRulebook:
    return builtin_rulebook("demo")


@pytest.fixture(scope="module")
def under_terms() -> CompiledRulebook:
    return builtin_rulebook("demo-brackets")


@pytest.fixture(scope="module")
def accounts(rulebook: CompiledRulebook) -> list[SyntheticAccount]:
    return list(population(rulebook, PRICES, accounts=3_000, seed=7, ts_us=1))


def _health_initial(rulebook: CompiledRulebook, account: SyntheticAccount) -> dict[str, Fraction]:
    """Return health(initial) of each book, exactly, from the records alone."""
    marks = {i.name: Fraction(PRICES.get(i.name, "0")) for i in rulebook.instruments}
    rates = rulebook.rules.requirement_rate[0, INITIAL]
    weights = rulebook.rules.asset_weight[0, INITIAL]
    health: dict[str, Fraction] = defaultdict(Fraction)
    sizes: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for value in account.moves:
        move = decode_collateral_move(value)
        asset = rulebook.asset_by_name[move.asset]
        price = Fraction(1) if asset.index_feed is None else Fraction(PRICES[f"{asset.name}/USD"])
        weight = Fraction(round(float(weights[asset.index]) * 1_000_000), 1_000_000)
        health[move.subaccount] += Fraction(move.amount) * price * weight
    for value in account.trades:
        trade = decode_trade(value)
        signed = Fraction(trade.size) * (1 if trade.side == "buy" else -1)
        sizes[trade.subaccount, trade.market] += signed
        profit = signed * (marks[trade.market] - Fraction(trade.price))
        health[trade.subaccount] += profit - Fraction(trade.fee)
    for (book, market), size in sizes.items():
        index = rulebook.instrument_by_name[market].index
        rate = Fraction(round(float(rates[index]) * 1_000_000), 1_000_000)
        health[book] -= abs(size) * marks[market] * rate
    return health


def test_population_is_initially_healthy_in_every_book(
    rulebook: CompiledRulebook, accounts: list[SyntheticAccount]
) -> None:
    for account in accounts:
        assert all(amount >= 0 for amount in _health_initial(rulebook, account).values()), account


def test_population_is_healthy_to_the_engine_too(
    rulebook: CompiledRulebook, accounts: list[SyntheticAccount]
) -> None:
    verdicts = _verdicts(rulebook, accounts)
    assert len(verdicts) > len(accounts)
    assert set(verdicts) == {"healthy"}


def test_population_under_terms_is_healthy_and_has_as_many_positions(
    under_terms: CompiledRulebook, accounts: list[SyntheticAccount]
) -> None:
    own = list(population(under_terms, PRICES, accounts=3_000, seed=7, ts_us=1))
    assert set(_verdicts(under_terms, own)) == {"healthy"}
    held = [{decode_trade(value).market for value in account.trades} for account in own]
    assert held == [{decode_trade(v).market for v in account.trades} for account in accounts]


def test_most_of_the_plain_population_begins_healthy_under_brackets(
    under_terms: CompiledRulebook, accounts: list[SyntheticAccount]
) -> None:
    verdicts = _verdicts(under_terms, accounts)
    assert verdicts.count("healthy") > 0.95 * len(verdicts)
    assert "bankrupt" not in verdicts


def _verdicts(rulebook: CompiledRulebook, accounts: list[SyntheticAccount]) -> list[str]:
    """Return what the engine says of every book at the starting prices."""
    books: dict[tuple[str, str], dict[str, dict[str, Fraction]]] = defaultdict(
        lambda: {"collateral": defaultdict(Fraction), "size": defaultdict(Fraction)}
    )
    costs: dict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    for account in accounts:
        for value in account.moves:
            move = decode_collateral_move(value)
            book = books[move.account_id, move.subaccount]
            book["collateral"][move.asset] += Fraction(move.amount)
        for value in account.trades:
            trade = decode_trade(value)
            book = books[trade.account_id, trade.subaccount]
            signed = Fraction(trade.size) * (1 if trade.side == "buy" else -1)
            book["collateral"]["USDC"] -= Fraction(trade.fee)
            book["size"][trade.market] += signed
            costs[trade.account_id, trade.subaccount, trade.market] += signed * Fraction(
                trade.price
            )
    snapshot = {
        "marks": PRICES,
        "accounts": [
            {
                "account_id": account_id,
                "subaccount": subaccount,
                "collateral": {a: _text(amount, 8) for a, amount in book["collateral"].items()},
                "positions": [
                    {
                        "market": market,
                        "size": _text(size, 8),
                        "cost_basis": _text(costs[account_id, subaccount, market], 6),
                    }
                    for market, size in book["size"].items()
                ],
            }
            for (account_id, subaccount), book in books.items()
        ],
    }
    return [unit["verdict"] for unit in evaluate_snapshot(rulebook, snapshot)["accounts"]]


def _text(number: Fraction, places: int) -> str:
    """Return an exact decimal of at most so many places."""
    scaled = number * 10**places
    assert scaled.denominator == 1
    return format_scaled(int(scaled), -places)


def test_population_is_on_lots_and_ticks_and_isolates_by_market(
    rulebook: CompiledRulebook, accounts: list[SyntheticAccount]
) -> None:
    for account in accounts:
        for value in account.trades:
            trade = decode_trade(value)
            instrument = rulebook.instrument_by_name[trade.market]
            assert instrument.lot.parse(trade.size) > 0
            assert instrument.tick.parse(trade.price) > 0
            assert trade.subaccount in ("cross", trade.market)
            assert trade.account_id.encode() == account.key


def test_population_has_the_stated_shape(accounts: list[SyntheticAccount]) -> None:
    trades = [decode_trade(value) for account in accounts for value in account.trades]
    positions = {(t.account_id, t.subaccount, t.market): t.side for t in trades}
    isolated = sum(book != "cross" for _, book, _ in positions) / len(positions)
    long = sum(side == "buy" for side in positions.values()) / len(positions)
    notional: dict[str, float] = defaultdict(float)
    for trade in trades:
        notional[trade.account_id] += float(trade.size) * float(trade.price)
    assert 0.12 < isolated < 0.18
    assert 0.75 < long < 0.85
    assert max(notional.values()) > 100 * median(notional.values())


def test_population_of_one_seed_is_the_same_bytes(rulebook: CompiledRulebook) -> None:
    once, again, other = (
        list(population(rulebook, PRICES, accounts=50, seed=seed)) for seed in (3, 3, 4)
    )
    assert once == again
    assert once != other


def test_population_without_prices_is_refused(rulebook: CompiledRulebook) -> None:
    with pytest.raises(ConfigError, match="SLV-440"):
        next(population(rulebook, {"DOGE": "1"}))
