"""A schedule of faults from a seed.

Each worker slot lives a list of lives, one process each; every life ends in its own way, the last
one when the round does. Beside them the broker has faults of its own, by seconds since the load
began. Times are real time, so two runs of a plan differ in what exactly a fault hits; the plan
itself does not.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from chaos.launcher import STEPS

__all__ = [
    "BrokerFault",
    "Life",
    "Plan",
    "broker_plan",
    "mixed_plan",
    "steps_plan",
    "zombies_plan",
]

#: Session timeout of the workers, s.
SESSION_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process of a slot.

    Attributes
    ----------
    end : str
        ``kill`` kill -9; ``step`` its own kill -9 at a named step; ``leave`` SIGTERM; ``freeze``
        SIGSTOP and SIGCONT; ``cut`` its link silent for a while; ``stay`` until the round ends.
        A frozen or cut worker has to end or rejoin by itself and is then killed.
    after_s : float
        When, since the worker was ready; with `early`, since its process began.
    for_s : float
        How long frozen, cut, or away after leaving.
    step : str
        ``step@agent:n`` as the launcher takes it: where it dies, or freezes.
    clock : str
        Seed of a broken wall clock; empty for a true one.
    """

    end: str
    after_s: float = 0.0
    early: bool = False
    for_s: float = 0.0
    step: str = ""
    clock: str = ""

    def __str__(self) -> str:
        """Return the life on one line."""
        since = "start" if self.early else "ready"
        told = {
            "step": f"kill -9 at {self.step}",
            "kill": f"kill -9 {self.after_s:.1f} s after {since}",
            "leave": f"SIGTERM {self.after_s:.1f} s after ready, away {self.for_s:.1f} s",
            "freeze": f"frozen {self._place} for {self.for_s:.1f} s",
            "cut": f"cut off {self.after_s:.1f} s after ready for {self.for_s:.1f} s",
            "stay": "stays",
        }[self.end]
        return told + (", clock jumping" if self.clock else "")

    @property
    def _place(self) -> str:
        return f"at {self.step}" if self.step else f"{self.after_s:.1f} s after ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFault:
    """One fault of the broker.

    ``kill`` kill -9 and start again after `for_s`; ``freeze`` SIGSTOP for `for_s`; ``silent`` and
    ``reset`` all links cut for `for_s`; ``disk-full`` an append tears, the node ends, room is made,
    it is started again. `at_s` counts from the first worker's being ready.
    """

    kind: str
    at_s: float
    for_s: float = 0.0

    def __str__(self) -> str:
        """Return the fault on one line."""
        return f"{self.kind} at {self.at_s:.1f} s for {self.for_s:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of a round.

    Attributes
    ----------
    name : str
        Which kind of plan.
    seed : int
        Of the input records, and of the rest of the plan.
    lives : tuple of tuple of Life
        By worker slot.
    broker : tuple of BrokerFault
        In order of time.
    partitions, accounts : int
        Of the pipeline.
    rate : float
        Input records a second while faults are on; now and then thousands come at once.
    records : int
        After so many a tenth of the rate is enough.
    slice_records : int
        Most input records in a slice: small, so that there are many.
    trap_s : float
        How long a ready worker may take to reach the step at which it dies; then it is killed.
    """

    name: str
    seed: int
    lives: tuple[tuple[Life, ...], ...]
    broker: tuple[BrokerFault, ...] = ()
    partitions: int = 4
    accounts: int = 300
    rate: float = 800.0
    records: int = 25_000
    slice_records: int = 400
    trap_s: float = 12.0

    def lines(self) -> list[str]:
        """Return the schedule as it is shown with a failure."""
        shown = [f"plan {self.name}, seed {self.seed}, {self.partitions} partitions"]
        for slot, lives in enumerate(self.lives):
            shown.append(f"  worker {slot}: " + "; ".join(map(str, lives)))
        if self.broker:
            shown.append("  broker: " + "; ".join(map(str, self.broker)))
        return shown


_STAY = Life(end="stay")


@dataclass
class _Maker:
    chance: random.Random
    #: How many of the deaths in a slice are reserved for the price agent; its partition may be
    #: elsewhere, and then the trap is not reached.
    prices: float = 0.2
    steps: list[str] = field(default_factory=list)

    def step(self, name: str | None = None) -> Life:
        """A death at a step; every step once before any comes again."""
        if name is None:
            if not self.steps:
                self.steps = list(STEPS)
                self.chance.shuffle(self.steps)
            name = self.steps.pop()
        is_start = name in STEPS[:3]
        nth = self.chance.randint(1, 2) if is_start else self.chance.randint(2, 12)
        if not is_start and self.chance.random() < self.prices:
            name, nth = f"{name}@prices", self.chance.randint(1, 3)
        return Life(end="step", step=f"{name}:{nth}", clock=self.clock())

    def kill(self) -> Life:
        early = self.chance.random() < 0.3
        after = self.chance.uniform(1.0, 6.0) if early else self.chance.uniform(0.05, 2.5)
        return Life(end="kill", after_s=after, early=early, clock=self.clock())

    def leave(self) -> Life:
        return Life(
            end="leave", after_s=self.chance.uniform(0.5, 2.5), for_s=self.chance.uniform(0.0, 2.0)
        )

    def freeze(self, step: str = "") -> Life:
        return Life(
            end="freeze",
            step=f"{step}:{self.chance.randint(2, 8)}" if step else "",
            after_s=self.chance.uniform(0.3, 2.0),
            for_s=SESSION_S + self.chance.uniform(1.5, 4.0),
        )

    def cut(self) -> Life:
        return Life(
            end="cut",
            after_s=self.chance.uniform(0.3, 2.0),
            for_s=SESSION_S + self.chance.uniform(1.5, 6.0),
        )

    def clock(self) -> str:
        return str(self.chance.getrandbits(32)) if self.chance.random() < 0.25 else ""


def steps_plan(seed: int) -> Plan:
    """Every named step once, on three workers."""
    make = _Maker(random.Random(seed), prices=0.0)
    lives = [make.step() for _ in STEPS]
    slots = tuple((*lives[n::3], _STAY) for n in range(3))
    return Plan(name="steps", seed=seed, lives=slots, trap_s=90.0)


def zombies_plan(seed: int) -> Plan:
    """A frozen worker and one cut off, beside one that comes and goes."""
    make = _Maker(random.Random(seed))
    frozen = make.freeze("before-commit")
    lives = ((frozen, _STAY), (make.cut(), _STAY), (make.leave(), make.kill(), _STAY))
    return Plan(name="zombies", seed=seed, lives=lives, trap_s=90.0)


def broker_plan(seed: int) -> Plan:
    """The broker killed, out of disk, and unreachable for a short while."""
    make = _Maker(random.Random(seed))
    faults = (
        BrokerFault(kind="kill", at_s=1.0, for_s=0.0),
        BrokerFault(kind="disk-full", at_s=8.0),
        BrokerFault(kind="silent", at_s=15.0, for_s=4.0),
    )
    lives = ((_STAY,), (make.kill(), Life(end="stay", clock="1")))
    return Plan(name="broker", seed=seed, lives=lives, broker=faults)


def mixed_plan(seed: int) -> Plan:
    """Everything, densely: a round of the long run, a bit over a minute."""
    chance = random.Random(seed)
    make = _Maker(chance)
    slots: list[list[Life]] = [[], [], []]
    for lives in slots:
        lives += [make.step() for _ in range(4)]
        lives += [make.kill() for _ in range(3)]
    slots[chance.randrange(3)].append(make.freeze())
    slots[chance.randrange(3)].append(make.freeze(chance.choice(STEPS[3:])))
    slots[chance.randrange(3)].append(make.cut())
    for lives in slots:
        chance.shuffle(lives)
        lives.append(_STAY)
    # A fourth worker joins and leaves.
    slots.append([make.leave(), make.leave(), _STAY])
    faults = [BrokerFault(kind="kill", at_s=0.0, for_s=chance.choice([0.0, 2.0])) for _ in "12"]
    other = chance.choice(["freeze", "silent", "reset", "disk-full"])
    long = chance.random() < 0.25  # beyond every session and transaction
    faults.append(BrokerFault(kind=other, at_s=0.0, for_s=30.0 if long else chance.uniform(2, 8)))
    chance.shuffle(faults)
    at_s = chance.uniform(1.0, 8.0)
    timed = []
    for fault in faults:
        timed.append(BrokerFault(kind=fault.kind, at_s=at_s, for_s=fault.for_s))
        at_s += fault.for_s + chance.uniform(10.0, 16.0)
    return Plan(
        name="mixed", seed=seed, lives=tuple(map(tuple, slots)), broker=tuple(timed), records=60_000
    )
