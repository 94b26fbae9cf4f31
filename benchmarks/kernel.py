"""How many accounts a second does the margin kernel judge, and what does a trade cost in it?

No broker, no decoding, one thread: the kernels alone, over the linear accounts of
`benchmarks/population.py` (five positions, USDC and ETH, three levels, the safe move included).
`evaluate` writes figures and verdicts of all accounts one after the other; its bytes are those it
must read and write, 217 an account, held against what `memory_copy` moves on this machine, reads
and writes counted alike. `evaluate_in_cache` does the same with 1,000 accounts, and
`evaluate_under_terms` through the loop of presets that are not plain. `fold` applies
trades of random accounts, a tenth as many, at their marks: sequence, position, balance, flags,
evaluation; half of the markets traded are new to an account at first.

`black76` prices options of random strikes, dates and volatilities; `portfolio` is the scenario
margin of a book of 30 options in 3 expiries, a perpetual and a hedging balance under 31 scenarios
(1,020 prices with today's and the basis move's), `standard` the closed form of the same book.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks import command
from benchmarks.command import Measured, option, say
from benchmarks.population import POSITIONS, Population, frames_of
from benchmarks.workload import START_US
from solvent.engine.margin import MarginShard, warm_up
from solvent.errors import InvariantError
from solvent.kernel.black import CHUNK, black76_prices_jit
from solvent.kernel.evaluate import evaluate_units_jit
from solvent.kernel.layout import COUNT_UNITS, CROSS, NONE, OUTCOME_APPLIED, STOP_END, Rules, Trades
from solvent.kernel.ledger import fold_trades_jit, total_count
from solvent.kernel.option_margin import StandardRules, option_margin_jit
from solvent.kernel.portfolio import Book, new_scratch
from solvent.kernel.scenario_margin import (
    DIRECTIONS,
    ContingencyRules,
    ScenarioRules,
    scenario_margin_jit,
)
from solvent.rules import builtin_rulebook
from solvent.wire.topics import MARKS

# What evaluating an account reads (status, preset, places and counts; rows) and writes.
_POSITION_BYTES: Final = 4 + 8 + 8
_BALANCE_BYTES: Final = 4 + 8
_UNIT_BYTES: Final = 3 * 1 + 2 * 8 + 2 * 4
_FIGURE_BYTES: Final = 2 * 3 * 8 + 8 + 1 + 1 + 8
_ACCOUNT_BYTES: Final = (
    _UNIT_BYTES + POSITIONS * _POSITION_BYTES + 2 * _BALANCE_BYTES + _FIGURE_BYTES
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured."""

    accounts: int = option(1_000_000, "accounts evaluated", least=10_000, most=9_999_999)
    trades: int = option(1_000_000, "trades folded", least=1_000, most=10**8)
    rounds: int = option(7, "rounds of each, of which the fastest counts", least=1, most=1_000)
    seed: int = option(7, "seed of the trades")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    return command.run(
        "kernel",
        __doc__,
        measure,
        full=Options(),
        smoke=Options(accounts=10_000, trades=5_000, rounds=2),
        arguments=arguments,
    )


def measure(options: Options) -> Measured:
    """Measure the kernels; the result hash is that of all figures, before and after the trades.

    Raises
    ------
    InvariantError
        A trade was not applied.
    """
    warm_up()
    rulebook = builtin_rulebook("demo")
    population = Population(
        rulebook=rulebook,
        accounts=options.accounts,
        near=options.accounts // 200,
        seed=options.seed,
    )
    say(f"{options.accounts:,} accounts")
    shard = MarginShard(0, rulebook)
    shard.load(population.rows())
    shard.resume({}, {})
    shard.apply(MARKS, list(frames_of(rulebook, population.prices()[None])))
    hashed = hashlib.blake2b(digest_size=16)
    hashed.update(_figures(shard))

    whole_s = _fastest(options.rounds, lambda: _evaluate(shard, options.accounts))
    few = 1_000
    again = 100
    few_s = _fastest(options.rounds, lambda: _evaluate(shard, few, times=again)) / again
    terms_s = _under_terms(shard, few, options.rounds)
    block = np.ones(32 << 20, np.int64)  # 256 MiB, beyond any cache
    target = np.zeros_like(block)
    copy_s = _fastest(options.rounds, lambda: np.copyto(target, block))
    say(f"{options.trades:,} trades")
    few_accounts = Population(rulebook=rulebook, accounts=options.accounts // 10, near=0)
    folding = _a_shard(few_accounts)
    fold_s = _fold(folding, _trades(few_accounts, options.trades, options.seed))
    hashed.update(_figures(folding))

    say("options")
    of_options = _options(options, hashed)
    evaluate_bytes = options.accounts * _ACCOUNT_BYTES / whole_s
    copied = 2 * block.nbytes / copy_s
    figures: dict[str, float | None] = {
        "evaluate.accounts_per_s": round(options.accounts / whole_s),
        "evaluate.ns_per_account": round(whole_s / options.accounts * 1e9, 1),
        "evaluate_in_cache.accounts_per_s": round(few / few_s),
        "evaluate_in_cache.ns_per_account": round(few_s / few * 1e9, 1),
        "evaluate_under_terms.accounts_per_s": round(few / terms_s),
        "evaluate_under_terms.ns_per_account": round(terms_s / few * 1e9, 1),
        "evaluate.bytes_per_s": round(evaluate_bytes),
        "memory_copy.bytes_per_s": round(copied),
        "ratio.bytes_per_s.evaluate_to_memory_copy": round(evaluate_bytes / copied, 3),
        "fold.trades_per_s": round(options.trades / fold_s),
        "fold.ns_per_trade": round(fold_s / options.trades * 1e9, 1),
        **of_options,
    }
    workload = {"markets": len(rulebook.instruments), "bytes_per_account": _ACCOUNT_BYTES}
    return Measured(figures=figures, workload=workload, result_hash=hashed.hexdigest())


def _under_terms(shard: MarginShard, count: int, rounds: int) -> float:
    """Return the seconds a pass over some accounts takes in the loop of terms.

    Accounts and parameters are those of `evaluate`; that their preset is plain is not said, so
    every term is asked for and found to change nothing.
    """
    before = _figures(shard)
    rules = shard.rulebook.rules
    terms = rules.terms._replace(is_plain=np.zeros_like(rules.terms.is_plain))
    unsaid = rules._replace(terms=terms)
    seconds = _fastest(rounds, lambda: _evaluate(shard, count, times=10, rules=unsaid)) / 10
    if _figures(shard) != before:
        msg = "the loop of terms gives other figures than the plain one"
        raise InvariantError(msg)
    return seconds


def _options(options: Options, hashed: hashlib.blake2b) -> dict[str, float | None]:
    """Measure the kernels of options; their results go into the hash."""
    chance = np.random.default_rng(options.seed)
    count, again = 4_096, 50
    forward, strike = 100.0 * np.exp(chance.normal(0.0, 0.3, (2, count)))
    deviation = chance.uniform(0.05, 1.5, count) * np.sqrt(chance.uniform(0.003, 2.0, count))
    sign = np.where(chance.random(count) < 0.5, 1.0, -1.0)
    out, work = np.empty(count), np.empty(2 * CHUNK)
    log_forward, log_strike = np.log(forward), np.log(strike)

    def price() -> None:
        for _ in range(again):
            black76_prices_jit(forward, log_forward, deviation, strike, log_strike, sign, work, out)

    price()  # compiles
    black_s = _fastest(options.rounds, price) / again
    hashed.update(out.tobytes())
    book, scratch, three = _option_book(chance), new_scratch(), np.empty(3)

    def scan() -> None:
        for _ in range(again):
            scenario_margin_jit(book, _SCENARIOS, scratch, three)

    def standard() -> None:
        for _ in range(again):
            option_margin_jit(book, _STANDARD, scratch, three)

    figures: dict[str, float | None] = {"black76.prices_per_s": round(count / black_s)}
    for name, call in (("portfolio", scan), ("standard", standard)):
        call()  # compiles
        spent_s = _fastest(options.rounds, call) / again
        hashed.update(three.tobytes())
        figures[f"{name}.us_per_account"] = round(spent_s * 1e6, 2)
        figures[f"{name}.accounts_per_s"] = round(1 / spent_s)
    return figures


def _option_book(chance: np.random.Generator) -> Book:
    """Return 30 options in 3 expiries, a perpetual and a hedging balance."""
    expiries, each = 3, 10
    strike = np.tile(np.linspace(60_000.0, 80_000.0, each), expiries)
    return Book(
        amount=chance.integers(-8, 9, strike.size) / 4.0,
        strike=strike,
        log_strike=np.log(strike),
        sign=np.where(chance.random(strike.size) < 0.5, 1.0, -1.0),
        volatility=chance.uniform(0.4, 0.9, strike.size),
        first=np.arange(0, strike.size + 1, each),
        ends=np.zeros(strike.size // each, np.int64),
        forward=np.full(expiries, 70_000.0),
        years=np.array([7.0, 30.0, 180.0]) / 365.0,
        rate=np.full(expiries, 0.04),
        quality=np.ones(expiries),
        size=np.array([-1.5]),
        price=np.array([70_100.0]),
        linear_quality=np.ones(1),
        dates=np.zeros(1, np.int64),
        collateral=np.array([140_000.0]),
        collateral_quality=np.ones(1),
        haircut=np.array([0.05]),
        haircut_more=np.array([0.02]),
        is_hedging=np.ones(1, np.uint8),
        spot=70_000.0,
        spot_quality=1.0,
        stable=1.0,
    )


_SHOCKS: Final = (
    *((m, d, 1.0) for m in (0.82, 0.91, 1.0, 1.09, 1.18) for d in ("up", "none", "down")),
    *((m, d, 1.0) for m in (0.865, 0.955, 1.045, 1.135) for d in ("up", "down")),
    *((m, "up", 0.05) for m in (0.34, 0.67, 1.5, 2.0, 3.0, 4.0)),
    (1.0, "linear", 1.0),
    (1.0, "abs", 1.0),
)
_SCENARIOS: Final = ScenarioRules(
    shock=np.array([m for m, _, _ in _SHOCKS]),
    damp=np.array([damp for _, _, damp in _SHOCKS]),
    direction=np.array([DIRECTIONS.index(d) for _, d, _ in _SHOCKS], np.uint8),
    range_up=0.5,
    range_down=0.275,
    least_volatility=0.45,
    short_power=0.3,
    long_power=0.13,
    floor_days=1.0,
    loss_maintenance=0.8,
    loss_initial=1.0,
    gain_share=0.95,
    gain_rate_share=1.0,
    gain_rate_more=0.08,
    loss_share=1.04,
    loss_rate_share=0.5,
    loss_rate_more=0.08,
    basis_up=1.045,
    basis_down=0.955,
    basis_share=0.5,
    basis_share_a_year=2.0,
    peg=0.98,
    peg_factor=2.0,
    linear_cap=0.15,
    linear_base=-0.05,
    abs_cap=0.15,
    abs_base=-0.05,
    least_width=0.01,
    width=4.0,
    width_volatility=0.6,
    width_slope=-0.1,
    beside=ContingencyRules(
        quality_threshold=0.55,
        quality_factor=1.0,
        linear_maintenance=0.015,
        linear_more=0.005,
        option_maintenance=0.003,
        option_more=0.002,
    ),
)
_STANDARD: Final = StandardRules(
    initial_share=0.15,
    initial_least=0.1,
    maintenance_call=0.075,
    maintenance_put=0.075,
    maintenance_put_value=0.075,
    put_ratio=1.05,
    unpaired_initial=1.2,
    unpaired_maintenance=1.1,
    linear_initial=0.065,
    linear_maintenance=0.05,
    base_initial=0.8,
    base_maintenance=0.9,
    quality_threshold=0.4,
    quality_factor=0.4,
    peg=0.98,
    peg_factor=1.2,
    has_max_loss=True,
)


def _a_shard(population: Population) -> MarginShard:
    """Return a shard that holds a population, judged at its marks."""
    say(f"{population.accounts:,} accounts")
    shard = MarginShard(0, population.rulebook)
    shard.load(population.rows())
    shard.resume({}, {})
    shard.apply(MARKS, list(frames_of(population.rulebook, population.prices()[None])))
    return shard


def _fastest(rounds: int, call: Callable[[], object]) -> float:
    """Return the CPU seconds of the fastest of some calls; kernels wait for nothing."""
    best = float("inf")
    for _ in range(rounds):
        before = time.thread_time_ns()
        call()
        best = min(best, time.thread_time_ns() - before)
    return max(best, 1) / 1e9


def _evaluate(
    shard: MarginShard, count: int, *, times: int = 1, rules: Rules | None = None
) -> None:
    columns = shard.columns
    rules = rules or shard.rulebook.rules
    space = shard.rulebook.workspace()
    for _ in range(times):
        evaluate_units_jit(
            columns.units,
            int(columns.counts[COUNT_UNITS]),
            columns.positions,
            columns.balances,
            columns.orders,
            rules,
            shard.marks.marks,
            space,
            columns.figures,
            0,
            count,
        )


def _figures(shard: MarginShard) -> bytes:
    count = int(shard.columns.counts[COUNT_UNITS])
    figures = shard.columns.figures
    return b"".join(
        column[:count].tobytes()
        for column in (figures.equity_micros, figures.requirement_micros, figures.verdict)
    )


def _trades(population: Population, count: int, seed: int) -> Trades:
    """Return trades of random accounts and markets at the marks, the size of some 10 USD."""
    rulebook = population.rulebook
    chance = np.random.default_rng(seed)
    instruments = rulebook.instruments
    instrument = (chance.random(count) * len(instruments)).astype(np.int32)
    tick = np.array([float(one.tick.format(1)) for one in instruments])
    mark = population.prices()[[one.mark_feed for one in instruments]]
    ticks = np.rint(mark / tick).astype(np.int64)
    lot_usd = mark * np.array([float(one.lot.format(1)) for one in instruments])
    most = np.maximum(1.0, 20.0 / lot_usd)
    lots = 1 + (chance.random(count) * most[instrument]).astype(np.int64)
    lots[chance.random(count) < 0.5] *= -1
    return Trades(
        account=(chance.random(count) * population.accounts).astype(np.int32),
        book=np.full(count, CROSS, np.int32),
        instrument=instrument,
        lots=lots,
        price_ticks=ticks[instrument],
        fee_micros=np.full(count, 1_000, np.int64),
        seq=np.full(count, NONE, np.int64),
        ts_us=np.full(count, START_US, np.int64),
        case_episode=np.full(count, NONE, np.int64),
        precheck=np.zeros(count, np.uint8),
        outcome=np.zeros(count, np.uint8),
    )


def _fold(shard: MarginShard, trades: Trades) -> float:
    """Fold trades, making room and passing over news as the shard would; return CPU seconds."""
    columns = shard.columns
    totals = np.zeros(total_count(shard.rulebook.rules), np.int64)
    space = shard.rulebook.workspace()
    at, reason, taken = 0, NONE, 0
    while reason != STOP_END:
        before = time.thread_time_ns()
        at, reason, unit = fold_trades_jit(
            trades,
            at,
            True,
            totals,
            columns.counts,
            columns.accounts,
            columns.units,
            columns.cases,
            columns.positions,
            columns.balances,
            columns.orders,
            shard.rulebook.rules,
            shard.marks.marks,
            space,
            columns.figures,
        )
        taken += time.thread_time_ns() - before
        columns.make_room(unit)
    if not (trades.outcome == OUTCOME_APPLIED).all():
        msg = "a trade of the benchmark was not applied"
        raise InvariantError(msg)
    return max(taken, 1) / 1e9


if __name__ == "__main__":
    sys.exit(main())
