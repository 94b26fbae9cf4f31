"""How many accounts a second does the margin kernel judge, and what does a trade cost in it?

No broker, no decoding, one thread: the kernels alone, over the linear accounts of
`benchmarks/population.py` (five positions, USDC and ETH, three levels, the safe move included).
`evaluate` writes figures and verdicts of all accounts one after the other; its bytes are those it
must read and write, 217 an account, held against what `memory_copy` moves on this machine, reads
and writes counted alike. `evaluate_in_cache` does the same with 1,000 accounts, and
`evaluate_under_terms` through the loop of presets that are not plain. `fold` applies
trades of random accounts, a tenth as many, at their marks: sequence, position, balance, flags,
evaluation; half of the markets traded are new to an account at first.

`black76` prices options of random strikes, dates and volatilities. `portfolio` is an account of 30
options in 3 expiries, longs and shorts, a perpetual, cash and the underlying under the shipped
rulebook derive-pmrm2 (31 scenarios; 1,020 prices with today's and the basis move's), `standard` one
under derive-srm (closed form), evaluated at all levels as the worker does it, of 1,000 listed
options (`benchmarks/option_accounts.py`). `us_per_account` is a frame: time has passed, so that all
options are priced anew, once for all accounts; `at_the_same_marks` is what an account costs that
trades between frames; `without_a_shared_option` takes accounts of which no two hold the same
option, each of which pays for all of its prices.
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
from benchmarks.option_accounts import OptionAccounts
from benchmarks.population import POSITIONS, Population, frames_of
from benchmarks.workload import START_US
from solvent.engine.margin import MarginShard, warm_up
from solvent.errors import InvariantError
from solvent.kernel.black import CHUNK, black76_prices_jit
from solvent.kernel.evaluate import evaluate_units_jit
from solvent.kernel.layout import (
    COUNT_UNITS,
    CROSS,
    NONE,
    OUTCOME_APPLIED,
    STOP_END,
    VERDICT_UNKNOWN,
    Rules,
    Trades,
)
from solvent.kernel.ledger import fold_trades_jit, total_count
from solvent.kernel.workspace import Workspace
from solvent.rules import builtin_rulebook
from solvent.wire.topics import ACCOUNT_SNAPSHOTS, MARKS

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
    option_accounts: int = option(1_000, "accounts of options evaluated", least=100, most=100_000)
    rounds: int = option(7, "rounds of each, of which the fastest counts", least=1, most=1_000)
    seed: int = option(7, "seed of the trades")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    return command.run(
        "kernel",
        __doc__,
        measure,
        full=Options(),
        smoke=Options(accounts=10_000, trades=5_000, option_accounts=100, rounds=2),
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

    of_options = {
        **_black76(options, hashed),
        **_option_accounts("portfolio", "derive-pmrm2", options, hashed),
        **_option_accounts("standard", "derive-srm", options, hashed),
    }
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


def _black76(options: Options, hashed: hashlib.blake2b) -> dict[str, float | None]:
    """Measure the pricing kernel; its results go into the hash."""
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
    return {"black76.prices_per_s": round(count / black_s)}


def _option_accounts(
    figure: str, name: str, options: Options, hashed: hashlib.blake2b
) -> dict[str, float | None]:
    """Measure accounts of 30 options under a shipped rulebook, the way the worker judges them.

    Raises
    ------
    InvariantError
        An account was not judged.
    """
    say(f"{options.option_accounts:,} accounts of options, {name}")
    population = OptionAccounts(name=name, accounts=options.option_accounts, seed=options.seed)
    shard = MarginShard(0, population.rulebook)
    shard.resume({}, {})
    shard.apply(MARKS, [population.frame()])
    shard.apply(ACCOUNT_SNAPSHOTS, list(population.snapshots()))
    count = int(shard.columns.counts[COUNT_UNITS])
    space = population.rulebook.workspace()

    def judge(accounts: int) -> Callable[[], None]:
        return lambda: _evaluate(shard, accounts, space=space)

    judge(count)()
    verdicts = shard.columns.figures.verdict[:count]
    if count != options.option_accounts or (verdicts == VERDICT_UNKNOWN).any():
        msg = f"accounts of {name} were not judged"
        raise InvariantError(msg)
    hashed.update(_figures(shard))

    def passing() -> None:
        shard.marks.stream_us += 1_000_000  # every option has another price from here on

    frame_s = _fastest(options.rounds, judge(count), before=passing)
    again_s = _fastest(options.rounds, judge(count))
    apart_s = _fastest(options.rounds, judge(population.apart), before=passing)
    return {
        f"{figure}.us_per_account": round(frame_s / count * 1e6, 2),
        f"{figure}.accounts_per_s": round(count / frame_s),
        f"{figure}.us_per_account_at_the_same_marks": round(again_s / count * 1e6, 2),
        f"{figure}.us_per_account_without_a_shared_option": round(
            apart_s / population.apart * 1e6, 2
        ),
    }


def _a_shard(population: Population) -> MarginShard:
    """Return a shard that holds a population, judged at its marks."""
    say(f"{population.accounts:,} accounts")
    shard = MarginShard(0, population.rulebook)
    shard.load(population.rows())
    shard.resume({}, {})
    shard.apply(MARKS, list(frames_of(population.rulebook, population.prices()[None])))
    return shard


def _fastest(
    rounds: int, call: Callable[[], object], *, before: Callable[[], object] = lambda: None
) -> float:
    """Return the CPU seconds of the fastest of some calls; kernels wait for nothing.

    What is to be done before each call is not timed.
    """
    best = float("inf")
    for _ in range(rounds):
        before()
        start = time.thread_time_ns()
        call()
        best = min(best, time.thread_time_ns() - start)
    return max(best, 1) / 1e9


def _evaluate(
    shard: MarginShard,
    count: int,
    *,
    times: int = 1,
    rules: Rules | None = None,
    space: Workspace | None = None,
) -> None:
    columns = shard.columns
    rules = rules or shard.rulebook.rules
    space = space or shard.rulebook.workspace()
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
