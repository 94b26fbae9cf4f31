"""Verdicts on a worker: what must hold for it to count as alive, and as ready.

A check compares one value with one limit and says what the value is about, so that a body of
``/readyz`` explains itself. Ages and stalls are seconds, lags are offsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from solvent.health.observe import LaneSight

__all__ = ["Check", "Limits", "live_checks", "ready_checks", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a worker is held to.

    Attributes
    ----------
    lag : int
        Most offsets an input may be behind, for readiness.
    oracle_age_s : float or None
        Longest time a feed may be without a valid mark, for readiness; None: no limit.
    stall_s : float
        Longest time without progress, or without an answer of the broker, for readiness.
    stall_exit_s : float
        Longest time without progress before the watchdog ends the process; beyond half of it the
        worker does not count as alive.
    """

    lag: int
    oracle_age_s: float | None
    stall_s: float
    stall_exit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One verdict.

    Attributes
    ----------
    check : str
        Its name; a unit is its last word.
    ok : bool
        The verdict.
    value, limit : number, text or None
        None as a value: not known yet, or nothing to know; as a limit: none.
    about : str or None
        What the value was found at, the worst if there are several.
    """

    check: str
    ok: bool
    value: float | str | None
    limit: float | str | None
    about: str | None = None

    def __str__(self) -> str:
        about = f" of {self.about}" if self.about else ""
        value = "not known" if self.value is None else self.value
        return f"{self.check}{about}: {value}, limit {self.limit}"


def live_checks(stalls: Mapping[str, float], limits: Limits, *, is_watched: bool) -> list[Check]:
    """Return what must hold for the worker to be alive.

    Parameters
    ----------
    stalls : mapping of str to float
        Event loop or lane -> seconds without progress it should have made.
    limits : Limits
        Half of `stall_exit_s` counts.
    is_watched : bool
        Whether the watchdog runs.
    """
    watched = "running" if is_watched else "stopped"
    return [
        _stall("progress_s", stalls, limits.stall_exit_s / 2),
        Check(check="watchdog", ok=is_watched, value=watched, limit="running"),
    ]


def ready_checks(
    lanes: Sequence[LaneSight],
    stalls: Mapping[str, float],
    limits: Limits,
    *,
    is_settled: bool,
    now_s: float,
) -> list[Check]:
    """Return what must hold for the worker to be ready; without a lane there is little to check.

    Parameters
    ----------
    lanes : sequence of LaneSight
        Every lane that is ours or being made ours.
    stalls : mapping of str to float
        As for `live_checks`.
    limits : Limits
        What is allowed.
    is_settled : bool
        Whether the group has assigned partitions, or none, and no rebalance is under way.
    now_s : float
        Unix time, seconds.
    """
    assigned = "settled" if is_settled else "pending"
    closed = [lane.name for lane in lanes if lane.state != "open"]
    return [
        Check(check="assignment", ok=is_settled, value=assigned, limit="settled"),
        Check(
            check="lanes_not_open",
            ok=not closed,
            value=len(closed),
            limit=0,
            about=", ".join(closed) or None,
        ),
        _lag(lanes, limits),
        _broker(lanes, limits, now_s),
        _oracle(lanes, limits),
        _stall("progress_s", stalls, limits.stall_s),
    ]


def report(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks as JSON data: whether all hold, the reasons if not, each in full."""
    return {
        "ok": all(check.ok for check in checks),
        "reasons": [str(check) for check in checks if not check.ok],
        "checks": [asdict(check) for check in checks],
    }


def _stall(name: str, stalls: Mapping[str, float], limit_s: float) -> Check:
    worst = max(stalls, key=lambda each: stalls[each], default=None)
    value = 0.0 if worst is None else round(stalls[worst], 3)
    return Check(
        check=name, ok=value <= limit_s, value=value, limit=limit_s, about=worst if value else None
    )


def _lag(lanes: Sequence[LaneSight], limits: Limits) -> Check:
    inputs = [(f"{lane.name} {place.topic}", place.lag) for lane in lanes for place in lane.inputs]
    unknown = [name for name, lag in inputs if lag is None]
    if unknown:
        return Check(check="lag", ok=False, value=None, limit=limits.lag, about=unknown[0])
    known = [(lag, name) for name, lag in inputs if lag is not None]
    lag, about = max(known, default=(0, None))
    return Check(
        check="lag", ok=lag <= limits.lag, value=lag, limit=limits.lag, about=about if lag else None
    )


def _broker(lanes: Sequence[LaneSight], limits: Limits, now_s: float) -> Check:
    name = "broker_answer_age_s"
    answers = [place.answered_s for lane in lanes for place in lane.inputs]
    if not answers:
        return Check(check=name, ok=True, value=None, limit=limits.stall_s)
    known = [answered_s for answered_s in answers if answered_s is not None]
    if not known:
        return Check(check=name, ok=False, value=None, limit=limits.stall_s)
    age_s = round(max(0.0, now_s - max(known)), 3)
    return Check(check=name, ok=age_s <= limits.stall_s, value=age_s, limit=limits.stall_s)


def _oracle(lanes: Sequence[LaneSight], limits: Limits) -> Check:
    name, limit_s = "oracle_age_s", limits.oracle_age_s
    judging = [lane for lane in lanes if lane.oracle_age_s is not None]
    ages = [
        (age_s, f"{lane.name} {feed}")
        for lane in judging
        for feed, age_s in (lane.oracle_age_s or {}).items()
    ]
    unpriced = [lane.name for lane in judging if not lane.oracle_age_s]
    if limit_s is not None and unpriced:
        return Check(check=name, ok=False, value=None, limit=limit_s, about=unpriced[0])
    if not ages:
        return Check(check=name, ok=True, value=None, limit=limit_s)
    age_s, about = max(ages)
    is_ok = limit_s is None or age_s <= limit_s
    return Check(check=name, ok=is_ok, value=round(age_s, 3), limit=limit_s, about=about)
