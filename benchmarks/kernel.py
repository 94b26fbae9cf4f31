"""How many accounts a second does the margin kernel judge, and what does a trade cost in it?

No broker, no decoding, one thread: the kernels alone, over the linear accounts of
`benchmarks/population.py` (five positions, USDC and ETH, three levels, the safe move included).
`evaluate` writes figures and verdicts of all accounts one after the other; its bytes are those it
must read and write, 217 an account, held against what `memory_copy` moves on this machine, reads
and writes counted alike. `evaluate_in_cache` does the same with 1,000 accounts. `fold` applies
trades of random accounts, a tenth as many, at their marks: sequence, position, balance, flags,
evaluation; half of the markets traded are new to an account at first.
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
from solvent.kernel.evaluate import evaluate_units_jit
from solvent.kernel.layout import COUNT_UNITS, CROSS, NONE, OUTCOME_APPLIED, STOP_END, Trades
from solvent.kernel.ledger import TOTAL_SLOTS, fold_trades_jit
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
    block = np.ones(32 << 20, np.int64)  # 256 MiB, beyond any cache
    target = np.zeros_like(block)
    copy_s = _fastest(options.rounds, lambda: np.copyto(target, block))
    say(f"{options.trades:,} trades")
    few_accounts = Population(rulebook=rulebook, accounts=options.accounts // 10, near=0)
    folding = _a_shard(few_accounts)
    fold_s = _fold(folding, _trades(few_accounts, options.trades, options.seed))
    hashed.update(_figures(folding))

    evaluate_bytes = options.accounts * _ACCOUNT_BYTES / whole_s
    copied = 2 * block.nbytes / copy_s
    figures: dict[str, float | None] = {
        "evaluate.accounts_per_s": round(options.accounts / whole_s),
        "evaluate.ns_per_account": round(whole_s / options.accounts * 1e9, 1),
        "evaluate_in_cache.accounts_per_s": round(few / few_s),
        "evaluate_in_cache.ns_per_account": round(few_s / few * 1e9, 1),
        "evaluate.bytes_per_s": round(evaluate_bytes),
        "memory_copy.bytes_per_s": round(copied),
        "ratio.bytes_per_s.evaluate_to_memory_copy": round(evaluate_bytes / copied, 3),
        "fold.trades_per_s": round(options.trades / fold_s),
        "fold.ns_per_trade": round(fold_s / options.trades * 1e9, 1),
    }
    workload = {"markets": len(rulebook.instruments), "bytes_per_account": _ACCOUNT_BYTES}
    return Measured(figures=figures, workload=workload, result_hash=hashed.hexdigest())


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


def _evaluate(shard: MarginShard, count: int, *, times: int = 1) -> None:
    columns = shard.columns
    for _ in range(times):
        evaluate_units_jit(
            columns.units,
            int(columns.counts[COUNT_UNITS]),
            columns.positions,
            columns.balances,
            shard.rulebook.rules,
            shard.marks.marks,
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
    totals = np.zeros(TOTAL_SLOTS + len(shard.rulebook.instruments), np.int64)
    at, reason, taken = 0, NONE, 0
    while reason != STOP_END:
        before = time.thread_time_ns()
        at, reason, unit = fold_trades_jit(
            trades,
            at,
            True,
            shard.rulebook.default_preset,
            totals,
            columns.counts,
            columns.accounts,
            columns.units,
            columns.cases,
            columns.positions,
            columns.balances,
            shard.rulebook.rules,
            shard.marks.marks,
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
