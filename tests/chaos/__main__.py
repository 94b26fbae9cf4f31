"""Chaos rounds on one broker, with totals: ``make chaos ARGS="--rounds N --seed S"``.

Round i of a run is the plan of seed S + i, so a failing round is run again by its own seed alone;
it is printed with its schedule. ``--scenario`` runs load or limits instead (``chaos.scenarios``),
or executors that race (``chaos.executors``).
``--write`` puts the totals into ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine, report
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chaos.broker import ChaosKafka
from chaos.executors import race
from chaos.forks import Forks
from chaos.plan import Plan, broker_plan, mixed_plan, steps_plan, zombies_plan
from chaos.rounds import Outcome, Round
from chaos.scenarios import limits, overload
from support.broker import Broker

PLANS: dict[str, Callable[[int], Plan]] = {
    "mixed": mixed_plan,
    "steps": steps_plan,
    "zombies": zombies_plan,
    "broker": broker_plan,
}

QUESTION = """Is anything lost or doubled if workers and broker are killed, frozen, cut off?

Rounds on a real broker, each with topics of its own: load, up to four workers that are killed
(kill -9, at random and at every named step of a take-over and of a slice), frozen beyond their
session and thawed, cut off from the broker, stopped and started, some with a jumping wall clock,
while the broker is killed, frozen, made unreachable or torn in the middle of an append. After each
round the account table equals an independent fold of the inputs, the journal covers every input
offset once, fresh shards fed the journal's runs reproduce every hash and every outgoing record,
every offer has its later life, and the group has no lag. `make chaos` runs it.
"""

QUESTIONS = {
    "overload": """Does a worker stay within its memory under far more load than it gets through?

One worker, four partitions, 1,000 accounts, tiny slices that make it slow. Its pace is measured
while it is saturated; then trades come at a multiple of it, for minutes, and the resident memory of
the worker is sampled twice a second. Afterwards the worker gets slices of ordinary size and drains
what has piled up; the journal must cover every record once and `solvent replay --verify` must
reproduce every hash and every event.
""",
    "limits": """Is everything exact at the limits of records, markets and accounts?

*large*: good and bad records just below the 8 MiB that the broker takes, among ordinary ones.
*wide*: a rulebook of 10,000 markets, an account with 1,000 positions that is liquidated, a hot
account with half of all trades. Each run is held against an independent fold of its inputs and
against a replay of its journal, as a chaos round is.
""",
    "executors": """Is more liquidated than is offered, or a case lost, if executors race and die?

A worker under an insurance fund and phased release, two `solvent executor` processes and a program
with fill ids of its own after the same offers; worker and executors killed (kill -9) in turn,
markets halted and dry runs ordered meanwhile. Then, from the topics alone: each fill that counted
was within what was offered, in time and price, and no other counted; no position was turned round
by its case; each case has one end or stands; accounts and fund hold what inputs brought; and
`solvent replay --verify` finds no difference.
""",
}


def main(argv: list[str] | None = None) -> int:
    """Run rounds; returns 1 if one does not hold."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how many rounds (default 3)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first round")
    parser.add_argument("--plan", choices=PLANS, default="mixed", help="kind of plan")
    parser.add_argument("--keep", action="store_true", help="keep logs and data of good rounds too")
    parser.add_argument("--stop", action="store_true", help="stop at the first failing round")
    parser.add_argument("--scenario", choices=QUESTIONS, help="something else than rounds")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load (default 10)")
    parser.add_argument("--factor", type=float, default=10.0, help="load over pace (default 10)")
    report.add_options(parser)
    options = parser.parse_args(argv)
    console = Console(stderr=True)
    folder = Path(tempfile.mkdtemp(prefix="solvent-chaos-"))
    if options.scenario is not None:
        return _run_scenario(options, folder, console)
    outcomes: list[Outcome] = []
    load = {"start": machine.load_average()}
    began = time.monotonic()
    try:
        _run(options, folder, outcomes, console)
    except KeyboardInterrupt:
        console.print("interrupted")
    bad = [outcome for outcome in outcomes if outcome.problems]
    if not bad and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"logs and data: {folder}")
    if outcomes:
        load["end"] = machine.load_average()
        result = _result(options, outcomes, load, time.monotonic() - began)
        report.show(
            result,
            as_json=options.json,
            write=options.write and not bad,
            question=QUESTION,
        )
    return 1 if bad or not outcomes else 0


def _run_scenario(options: argparse.Namespace, folder: Path, console: Console) -> int:
    """Run a scenario; returns 1 if something is wrong."""
    load = {"start": machine.load_average()}
    kafka = ChaosKafka(folder / "kafka", workers=0)

    def say(text: str) -> None:
        console.print(f"{options.scenario}: {text}", markup=False)

    workload: dict[str, object] = {"seed": options.seed}
    try:
        kafka.start()
        own = folder / options.scenario
        if options.scenario == "overload":
            workload["load over pace"] = options.factor
            figures, problems = overload(
                kafka,
                own,
                say,
                minutes=options.minutes,
                factor=options.factor,
                seed=options.seed,
            )
        elif options.scenario == "executors":
            broker = Broker(kafka.bootstrap_servers, kafka, f"race-{options.seed}.")
            figures, problems = race(broker, own, say, seed=options.seed, minutes=options.minutes)
        else:
            figures, problems = limits(kafka, own, say, seed=options.seed)
    finally:
        kafka.close()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    for problem in problems:
        say(problem)
    load["end"] = machine.load_average()
    result = _described(options.scenario, figures, workload, load)
    question = QUESTIONS[options.scenario]
    write = options.write and not problems
    report.show(result, as_json=options.json, write=write, question=question)
    return 1 if problems else 0


def _run(
    options: argparse.Namespace, folder: Path, outcomes: list[Outcome], console: Console
) -> None:
    plans = [PLANS[options.plan](options.seed + number) for number in range(options.rounds)]
    kafka = ChaosKafka(folder / "kafka", workers=max(len(plan.lives) for plan in plans))
    progress = Progress(
        TextColumn("chaos"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        console=console,
    )
    forks = None
    try:
        kafka.start()
        forks = Forks()
        with progress:
            task = progress.add_task("rounds", total=len(plans), told="")
            for plan in plans:
                path = folder / f"round-{plan.seed}"
                prefix = f"{plan.name}-{plan.seed}."
                outcome = Round(plan, kafka, forks, path, prefix=prefix).run()
                outcomes.append(outcome)
                done = sum((o.done for o in outcomes), Counter())
                progress.update(
                    task,
                    advance=1,
                    told=f"{done['kill -9']} kill -9, {done['freeze']} frozen, "
                    f"{done['broker kill']} broker kills, {done['rebalance']} rebalances",
                )
                verdict = "FAILS" if outcome.problems else "exact"
                found = outcome.findings
                progress.console.print(
                    f"seed {plan.seed}: {verdict} in {outcome.seconds:.0f} s, "
                    f"{outcome.done['kill -9']} kill -9, {found.inputs:,} inputs, "
                    f"{found.slices:,} slices, {found.outputs:,} records out"
                )
                if outcome.problems:
                    progress.console.print(outcome.report(), markup=False, highlight=False)
                    if options.stop:
                        return
    finally:
        if forks is not None:
            forks.close()
        kafka.close()


def _result(
    options: argparse.Namespace,
    outcomes: list[Outcome],
    load: dict[str, list[float]],
    seconds: float,
) -> dict[str, object]:
    done = sum((outcome.done for outcome in outcomes), Counter())
    findings = [outcome.findings for outcome in outcomes]
    figures: dict[str, float] = {
        "rounds": len(outcomes),
        "failed_rounds": sum(1 for outcome in outcomes if outcome.problems),
        "lost": sum(found.lost for found in findings),
        "doubled": sum(found.doubled for found in findings),
        "minutes": round(seconds / 60, 1),
        "input_records": sum(found.inputs for found in findings),
        "slices": sum(found.slices for found in findings),
        "records_out": sum(found.outputs for found in findings),
        "offers_opened": sum(found.events["opened"] for found in findings),
        "refused_records": sum(found.rejects for found in findings),
        "repeats_dropped": sum(found.duplicates for found in findings),
    }
    figures |= {f"faults.{name}": count for name, count in sorted(done.items())}
    workload: dict[str, object] = {
        "plan": options.plan,
        "seeds": f"{options.seed} to {options.seed + len(outcomes) - 1}",
        "partitions": outcomes[0].plan.partitions,
        "accounts": outcomes[0].plan.accounts,
    }
    return _described("chaos", figures, workload, load)


def _described(
    name: str,
    figures: dict[str, float],
    workload: dict[str, object],
    load: dict[str, list[float]],
) -> dict[str, object]:
    return {
        "bench": name,
        "figures": figures,
        "workload": workload,
        "machine": {**machine.describe_machine(), "load_average": load},
        "versions": machine.versions(),
        "commit": machine.commit(),
        "result_hash": "none: what happens when differs from run to run",
    }


if __name__ == "__main__":
    sys.exit(main())
