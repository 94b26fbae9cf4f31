"""What does a frame of marks cost when there are a hundred times as many accounts?

The margin shard alone, no broker: frames of 14 marks are applied one by one to partitions of
different sizes with the same number of accounts near liquidation (`benchmarks/population.py`): a
calm minute at 50 frames a second, then twenty seconds of a crash, in which accounts come near in
proportion to how many there are. Times are CPU times of `MarginShard.apply`, which waits for
nothing, decoding and events included; `judged` counts the units a frame evaluates.

`full_frame` is the median of the last frames, calm ones, with every unit evaluated. In the smallest
partition all frames are applied once more in that way: rows, events and state must come out byte
for byte the same.
"""

from __future__ import annotations

import gc
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks import command
from benchmarks.command import Measured, option, say
from benchmarks.population import CALM, CRASH, Population, frames_of, walk
from solvent.engine.margin import MarginShard, warm_up
from solvent.engine.run import Record, Run
from solvent.engine.shard import Outputs
from solvent.errors import ConfigError, InvariantError
from solvent.kernel.layout import COUNT_UNITS
from solvent.rules import CompiledRulebook, builtin_rulebook
from solvent.wire.topics import MARKS

_THOUSANDS = {"k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured."""

    sizes: str = option("10k,100k,1m", "accounts of each partition, smallest first")
    near: int = option(500, "accounts near liquidation in each", least=1, most=100_000)
    calm_frames: int = option(3_000, "frames of a quiet market", least=10, most=1_000_000)
    crash_frames: int = option(1_000, "frames of a crash", least=10, most=1_000_000)
    full_frames: int = option(20, "frames that evaluate every unit", least=1, most=10_000)
    seed: int = option(7, "seed of accounts and marks")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    return command.run(
        "frame-scaling",
        __doc__,
        measure,
        full=Options(),
        smoke=Options(sizes="1k,3k", near=40, calm_frames=60, crash_frames=60, full_frames=2),
        arguments=arguments,
    )


def measure(options: Options) -> Measured:
    """Measure each size, and hold the smallest against full evaluation.

    Raises
    ------
    ConfigError
        [SLV-400] A size cannot be read, or has too few accounts.
    InvariantError
        Full evaluation gave other bytes.
    """
    sizes = {name: _accounts(name, options.near) for name in options.sizes.split(",")}
    warm_up()
    rulebook = builtin_rulebook("demo")
    figures: dict[str, float | None] = {}
    events: dict[str, int] = {}
    result_hash = ""
    for name, accounts in sizes.items():
        say(f"{accounts:,} accounts")
        population = Population(
            rulebook=rulebook, accounts=accounts, near=options.near, seed=options.seed
        )
        rows = population.rows()
        quick, slow = _frames(population, options)
        shard = _restored(rulebook, rows)
        timings = _apply(shard, quick)
        # The first frame after a restore judges all units, as any would: it is no part of these.
        crash = len(quick) - options.crash_frames
        figures |= _figures(name, timings.part(1, crash))
        figures |= _figures(name, timings.part(crash, len(quick)), "crash_")
        in_full = _apply(shard, slow, is_full=True)
        figures[f"full_frame_us_{name}"] = round(float(np.median(in_full.us)), 1)
        figures[f"index_bytes_per_account_{name}"] = round(_index_bytes(shard) / accounts, 2)
        outputs = shard.cut()
        events[name] = len(outputs.records)
        if not result_hash:
            result_hash = _hash(outputs)
            other = _restored(rulebook, rows)
            _apply(other, [*quick, *slow], is_full=True)
            if _hash(other.cut()) != result_hash:
                msg = f"{accounts} accounts: the index and full evaluation give different bytes"
                raise InvariantError(msg)
    largest, smallest = list(sizes)[-1], next(iter(sizes))
    for regime in ("", "crash_"):
        of_largest = figures[f"{regime}frame_us_{largest}"] or 0.0
        of_smallest = figures[f"{regime}frame_us_{smallest}"] or 1.0
        figures[f"{regime}frame_cost_ratio_{largest}_{smallest}"] = round(
            of_largest / of_smallest, 2
        )
    workload = {"markets": len(rulebook.instruments), "events": events}
    return Measured(figures=figures, workload=workload, result_hash=result_hash)


@dataclass(frozen=True, slots=True)
class _Timings:
    """By frame: what it took in microseconds, and how many units it judged."""

    us: NDArray[np.float64]
    judged: NDArray[np.int64]

    def part(self, first: int, last: int) -> _Timings:
        return _Timings(self.us[first:last], self.judged[first:last])


def _accounts(name: str, near: int) -> int:
    unit = _THOUSANDS.get(name[-1:], 1)
    digits = name if unit == 1 else name[:-1]
    if not digits.isascii() or not digits.isdigit() or not near <= int(digits) * unit < 10**7:
        msg = f"--sizes: {name!r}: accounts as 500, 10k or 1m, from {near:,} (--near) to 9,999,999"
        raise ConfigError(msg)
    return int(digits) * unit


def _frames(population: Population, options: Options) -> tuple[list[Record], list[Record]]:
    """Return the frames to be timed with the index, and those with every unit evaluated."""
    rulebook, seed = population.rulebook, options.seed
    start = population.prices()
    calm = walk(rulebook, start, CALM, options.calm_frames, seed=seed)
    crash = walk(rulebook, calm[-1], CRASH, options.crash_frames, seed=seed + 1)
    after = walk(rulebook, crash[-1], CALM, options.full_frames, seed=seed + 2)
    marks = np.concatenate([start[None], calm, crash, after])
    records = list(frames_of(rulebook, marks))
    return records[: -options.full_frames], records[-options.full_frames :]


def _restored(rulebook: CompiledRulebook, rows: Run) -> MarginShard:
    shard = MarginShard(0, rulebook)
    shard.load(rows)
    shard.resume({}, {})
    return shard


def _apply(shard: MarginShard, records: Sequence[Record], *, is_full: bool = False) -> _Timings:
    """Apply frames one by one."""
    timings = _Timings(np.zeros(len(records)), np.zeros(len(records), np.int64))
    gc.collect()
    gc.disable()  # a worker, too, looks for garbage seldom
    for number, record in enumerate(records):
        if is_full:
            shard.safe_moves.forget()
        before = time.thread_time_ns()
        shard.apply(MARKS, [record])
        timings.us[number] = (time.thread_time_ns() - before) / 1e3
        timings.judged[number] = shard.safe_moves.judged
    gc.enable()
    return timings


def _figures(name: str, timings: _Timings, regime: str = "") -> dict[str, float | None]:
    us = timings.us
    return {
        f"{regime}frame_us_{name}": round(float(us.mean()), 1),
        f"{regime}frame_p50_us_{name}": round(float(np.median(us)), 1),
        f"{regime}frame_p99_us_{name}": round(float(np.percentile(us, 99)), 1),
        f"{regime}frame_max_us_{name}": round(float(us.max()), 1),
        f"{regime}judged_per_frame_{name}": round(float(timings.judged.mean()), 2),
    }


def _index_bytes(shard: MarginShard) -> int:
    """Return what the index takes for the units there are, room to grow left out."""
    units, figures, moves = shard.columns.units, shard.columns.figures, shard.safe_moves
    of_units: list[np.ndarray] = [
        figures.level,
        figures.feeds,
        figures.block_levels,
        moves.next_status,
    ]
    of_units += [moves.watch.block_expires_us, moves.news]
    in_use = int(shard.columns.counts[COUNT_UNITS]) / len(units.account)
    of_feeds = [moves.watch.lowest, moves.watch.highest]
    return int(in_use * sum(a.nbytes for a in of_units)) + sum(a.nbytes for a in of_feeds)


def _hash(outputs: Outputs) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for key, value in outputs.rows:
        hashed.update(key + (value or b""))
    for record in outputs.records:
        hashed.update(record.topic.encode() + record.key + (record.value or b""))
    hashed.update(orjson.dumps(outputs.state))
    return hashed.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
