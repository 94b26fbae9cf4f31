"""How many events a second does a replay apply: offline from files, and from the broker, verified?

Events are records of ``trades.v1`` and ``collateral.v1``: a deposit an account, then trades of
random accounts, markets and sides near the mid price, marks in force and nobody near trouble.

Offline (``jsonl``, ``parquet``; no broker): the files `solvent load` takes, read, keyed, merged by
event time, decoded, folded, every touched unit judged, rows packed and hashed, in one process; with
one margin partition, and with several, which are folded at the same time on as many cores as there
are. Each figure is the median of the rounds; seconds run from the first byte read to the last
slice cut, kernels being compiled and files in the page cache. Beside them: events per CPU-second,
all threads together.

Verified (``verify``): a worker has folded the deposits and some of the trades on one partition of a
broker; then every slice is replayed in the order of its journal, and each outgoing byte compared.

Checked: lines and Parquet give the same hashes in every round, and the verification finds no
difference. The result hash is the rolling hash of the replay with one partition.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import Measured, option, run, say
from benchmarks.pipeline import Journal, Worker, produce, running_pipeline
from benchmarks.report import rate
from benchmarks.workload import Message, Workload
from solvent.engine import margin
from solvent.errors import InvariantError
from solvent.kernel import lines
from solvent.ops import replay
from solvent.ops.logs import KafkaLogs
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import CompiledRulebook, builtin_rulebook
from solvent.settings import limit_polars_threads, load_settings
from solvent.wire.topics import COLLATERAL, MARKS, ORACLE_TICKS, TRADES

__all__ = ["SMOKE", "ReplayOptions", "measure"]

_RULEBOOK = "demo"
_READY_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What is measured, and on what."""

    events: int = option(2_000_000, "trades in the files", least=1)
    accounts: int = option(100_000, "accounts, each with a deposit", least=1, most=9_999_999)
    partitions: int = option(4, "margin partitions of the second layout", least=2, most=1_000)
    slice_records: int = option(1_000_000, "records of a partition in a slice", least=1)
    rounds: int = option(3, "how often each is done", least=1, most=100)
    verify_events: int = option(500_000, "trades of the verified history; 0: leave it out")
    seed: int = option(7, "of the workload")


SMOKE = ReplayOptions(
    events=10_000, accounts=2_000, slice_records=3_000, rounds=1, verify_events=3_000
)


def measure(options: ReplayOptions) -> Measured:
    """Run the benchmark and return its result.

    Raises
    ------
    SolventError
        Something the pipeline needs is missing, hashes differ, or the history is not verified.
    """
    rulebook = builtin_rulebook(_RULEBOOK)
    workload = Workload(rulebook=rulebook, accounts=options.accounts, seed=options.seed)
    figures: dict[str, float | None] = {}
    sizes: dict[str, int] = {}
    hashes: dict[int, set[str]] = {}
    margin.warm_up()
    lines.warm_up()
    with tempfile.TemporaryDirectory(prefix="solvent-bench-") as name:
        say(f"writing files of {options.events:,} trades")
        folders = _write(Path(name), workload, options)
        for form, folder in folders.items():
            sizes[f"{form}_bytes"] = sum(path.stat().st_size for path in folder.iterdir())
        for (form, folder), partitions in itertools.product(
            folders.items(), (1, options.partitions)
        ):
            say(f"replaying {form}, partitions {partitions}")
            found = [_replay(folder, rulebook, partitions, options) for _ in range(options.rounds)]
            hashes.setdefault(partitions, set()).update(told["hash"] for told in found)
            suffix = "" if partitions == 1 else f"_{partitions}p"
            for unit, seconds in (("events_per_s", "seconds"), ("events_per_cpu_s", "cpu_seconds")):
                figures[f"{form}{suffix}.{unit}"] = rate(
                    found[0]["records"], statistics.median(told[seconds] for told in found)
                )
    for partitions, different in hashes.items():
        if len(different) > 1:
            msg = f"replays of the same history with {partitions} partitions: {sorted(different)}"
            raise InvariantError(msg)
    if options.verify_events:
        figures |= _verify(rulebook, workload, options)
    (result_hash,) = hashes[1]
    return Measured(
        figures=figures,
        workload={"rulebook": rulebook.reference, **sizes},
        result_hash=result_hash,
    )


def _write(root: Path, workload: Workload, options: ReplayOptions) -> dict[str, Path]:
    """Write the history as JSON lines and as Parquet; ticks, which are few, as lines in both."""
    limit_polars_threads()  # as the replay would, which is too late after this
    import polars as pl

    folders = {form: root / form for form in ("jsonl", "parquet")}
    for folder in folders.values():
        folder.mkdir()
        _write_lines(folder / f"{ORACLE_TICKS}.jsonl", workload.ticks())
    for topic, messages in (
        (COLLATERAL, workload.deposits()),
        (TRADES, workload.trades(options.events)),
    ):
        path = folders["jsonl"] / f"{topic}.jsonl"
        _write_lines(path, messages)
        pl.read_ndjson(path).write_parquet(folders["parquet"] / f"{topic}.parquet")
    return folders


def _write_lines(path: Path, messages: Iterable[Message]) -> None:
    with path.open("wb") as out:
        out.writelines(message.value + b"\n" for message in messages)


def _replay(
    folder: Path, rulebook: CompiledRulebook, partitions: int, options: ReplayOptions
) -> dict[str, Any]:
    sources = [replay.file_source(path, topic) for topic, path in replay.input_files([str(folder)])]
    chosen = replay.ReplayOptions(partitions=partitions, slice_records=options.slice_records)
    began = time.process_time()
    report = replay.replay(sources, rulebook, chosen)
    spent = time.process_time() - began
    due = options.events + options.accounts
    counted = report.counts[TRADES] + report.counts[COLLATERAL]
    if counted != due or report.events.get(MARKS) != 1:
        msg = f"{counted} of {due} records replayed, {report.events.get(MARKS)} of 1 frame"
        raise InvariantError(msg)
    hashes = report.hashes["margin"]
    return {
        "records": counted,
        "seconds": report.seconds,
        "cpu_seconds": spent,
        "hash": " ".join(hashes[partition] for partition in sorted(hashes)),
    }


def _verify(
    rulebook: CompiledRulebook, workload: Workload, options: ReplayOptions
) -> dict[str, float | None]:
    """Let a worker fold a history, and verify it."""
    with running_pipeline(load_settings(), partitions=1) as pipeline:
        journal = Journal(pipeline)
        worker = Worker(pipeline, "worker", {"SOLVENT_RULEBOOK": _RULEBOOK})
        say(f"a worker folds {options.verify_events:,} trades")
        try:
            for messages, topic, count in (
                (workload.ticks(), MARKS, 1),
                (workload.deposits(), COLLATERAL, options.accounts),
                (workload.trades(options.verify_events), TRADES, options.verify_events),
            ):
                produce(pipeline, messages)
                for _ in journal.follow(
                    [worker],
                    lambda topic=topic, count=count: journal.total(topic) >= count,  # type: ignore[misc]
                    what=topic,
                    deadline_s=_READY_S,
                ):
                    pass
        finally:
            worker.stop()
            journal.close()
        say("verifying")
        with KafkaLogs(pipeline.bootstrap_servers, pipeline.topics) as logs:
            began = time.process_time()
            report = verify(logs, rulebook, VerifyOptions())
            spent = time.process_time() - began
    (part,) = report.partitions
    due = options.verify_events + options.accounts + 1
    if part.difference is not None or part.records != due:
        msg = f"history of {due} records: {part.records} verified, {part.difference}"
        raise InvariantError(msg)
    return {
        "verify.events_per_s": rate(part.records, report.seconds),
        "verify.events_per_cpu_s": rate(part.records, spent),
        "verify.rows_per_s": rate(part.rows, report.seconds),
        "verify.slices": part.slices,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; see `benchmarks.command.run`."""
    return run(
        "replay", __doc__ or "", measure, full=ReplayOptions(), smoke=SMOKE, arguments=arguments
    )


if __name__ == "__main__":
    sys.exit(main())
