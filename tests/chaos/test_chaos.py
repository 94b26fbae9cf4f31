"""The fast selection: every step of a slice, zombies, and a broker that comes and goes.

Each test is one round (``chaos.rounds``) of a fixed seed; the long run is ``make chaos``. A
failure prints the schedule and how to run just that round again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.broker import ChaosKafka
from chaos.executors import race
from chaos.forks import Forks
from chaos.launcher import STEPS
from chaos.plan import Plan, broker_plan, steps_plan, zombies_plan
from chaos.rounds import Outcome, Round
from support.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

SEED = 4


@pytest.fixture(scope="module")
def chaos_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosKafka]:
    """A node of these tests' own: it is killed."""
    kafka = ChaosKafka(tmp_path_factory.mktemp("chaos-kafka"), workers=3)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.close()


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture
def play(chaos_kafka: ChaosKafka, forks: Forks, tmp_path: Path) -> Callable[[Plan], Outcome]:
    def play(plan: Plan) -> Outcome:
        outcome = Round(plan, chaos_kafka, forks, tmp_path / "round", prefix=f"{plan.name}.").run()
        assert not outcome.problems, outcome.report()
        assert outcome.findings.lost == outcome.findings.doubled == 0
        assert outcome.findings.events["opened"] > 5  # the load must mean something
        assert outcome.findings.rejects > 5
        assert outcome.findings.rulebooks > 2, outcome.report()  # published under way
        return outcome

    return play


def test_workers_killed_at_every_step_of_take_over_and_slice_lose_and_double_nothing(
    play: Callable[[Plan], Outcome],
) -> None:
    outcome = play(steps_plan(SEED))
    missing = [step for step in STEPS if not outcome.done[f"kill -9 {step}"]]
    assert not missing, outcome.report()


def test_frozen_and_cut_off_workers_are_fenced_and_end_or_rejoin_by_themselves(
    play: Callable[[Plan], Outcome],
) -> None:
    outcome = play(zombies_plan(SEED))
    assert outcome.done["lane fenced"], outcome.report()
    assert outcome.done["rebalance"] >= 2, outcome.report()


def test_broker_killed_torn_and_unreachable_loses_and_doubles_nothing(
    play: Callable[[Plan], Outcome],
) -> None:
    outcome = play(broker_plan(SEED))
    assert {f"broker {kind}" for kind in ("kill", "disk-full", "silent")} <= outcome.done.keys()


def test_executors_that_race_and_are_killed_liquidate_no_more_than_is_offered(
    chaos_kafka: ChaosKafka, tmp_path: Path
) -> None:
    told: list[str] = []
    broker = Broker(chaos_kafka.bootstrap_servers, chaos_kafka, "race.")
    found, problems = race(broker, tmp_path, told.append, seed=SEED, minutes=0, least_parts=3)
    assert not problems, problems
    assert min(found["faults.worker kill -9"], found["faults.executor kill -9"]) >= 2, found
    assert found["cases_ended"] > 50, found
    assert min(found["fills_counted"], found["fills_refused"], found["fills_repeated"]) > 50, found
