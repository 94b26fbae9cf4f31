"""Every term of the schema against the exact recomputation, under rulebooks by hand and built in.

The oracle is `support.terms`; snapshots come from `support.term_books`, which derives from a model
what may be held and where marks lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from fractions import Fraction
from functools import cache
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import support.books  # noqa: F401 -- sets fixed seeds, no deadline
from solvent.engine.markbook import MarkBook
from solvent.engine.snapshot import _add_unit, evaluate_snapshot
from solvent.kernel.evaluate import evaluate_units_jit
from solvent.kernel.layout import COUNT_UNITS
from solvent.kernel.trial import AMOUNTS, RAW, weigh, weigh_jit
from solvent.kernel.workspace import Workspace
from solvent.rules.compile import CompiledRulebook, compile_rulebook
from solvent.rules.model import RulebookModel
from solvent.rules.source import builtin_names, builtin_text, read_model
from solvent.rules.terms import ContingenciesTermModel, OptionStandardTermModel, ScanTermModel
from solvent.state.columns import Columns
from support.term_books import RULEBOOKS, Generator, models_of
from support.terms import (
    INITIAL,
    LEVELS,
    LIQUIDATION_END,
    MAINTENANCE,
    Amounts,
    exact_amounts,
)

#: Errors as shares of all money added up: plain terms, and terms with logarithms and the normal
#: distribution. Both are far above what is found, a few 1e-16.
RATIONAL = Fraction(1, 10**12)
TRANSCENDENTAL = Fraction(1, 10**9)
MICRO = Fraction(1, 10**6)

TEXTS = {
    **RULEBOOKS,
    **{f"builtin:{name}": builtin_text(name) for name in builtin_names()},
}
every_rulebook = pytest.mark.parametrize("name", TEXTS)
seeds = st.integers(0, 2**32)


class Case(NamedTuple):
    """A rulebook ready for use."""

    model: RulebookModel
    rulebook: CompiledRulebook
    generator: Generator
    bound: Fraction


@cache
def case_of(name: str) -> Case:
    model = read_model(TEXTS[name])
    priced = any(
        isinstance(part, ScanTermModel | OptionStandardTermModel) for part in models_of(model)
    )
    return Case(
        model,
        compile_rulebook(model),
        Generator(model),
        TRANSCENDENTAL if priced else RATIONAL,
    )


def snapshot_of(case: Case, seed: int, *, accounts: int = 1) -> dict[str, Any]:
    random = Random(seed)
    marks, ts_us = case.generator.marks(random)
    return {
        "ts_us": ts_us,
        "marks": marks,
        "accounts": [
            case.generator.account(random, marks, ts_us, name=f"a{number}")
            for number in range(accounts)
        ],
    }


def evaluated(case: Case, snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = evaluate_snapshot(case.rulebook, snapshot)["accounts"]
    return found


def exact(case: Case, snapshot: dict[str, Any], place: int = 0) -> Amounts:
    account = snapshot["accounts"][place]
    return exact_amounts(case.model, account, snapshot["marks"], snapshot["ts_us"])


def error_of(case: Case, amounts: Amounts) -> Fraction:
    """Return by how much an amount may be off: by a quantum where interest is counted in floats."""
    return amounts.scale * case.bound + 2 * amounts.quantum


def end_nearest_to(text: dict[str, Any], amounts: Amounts, error: Fraction) -> Amounts:
    """Return the amounts with the split of the liquidation end that was found, if it is allowed.

    Where two levels have the same health, either may say how it splits into equity and requirement.
    """
    found = Fraction(text["equity"]["liquidation_end"])
    levels = zip(amounts.equity, amounts.requirement, strict=True)
    pairs = [amounts.own_end, *levels]
    health = amounts.health(LIQUIDATION_END)
    allowed = [pair for pair in pairs if abs(pair[0] - pair[1] - health) <= error]
    end = min(allowed, key=lambda pair: abs(pair[0] - found))
    return amounts._replace(
        equity=(amounts.equity[INITIAL], end[0], amounts.equity[MAINTENANCE]),
        requirement=(amounts.requirement[INITIAL], end[1], amounts.requirement[MAINTENANCE]),
    )


def each_amount(text: dict[str, Any], amounts: Amounts) -> Iterator[tuple[str, Fraction, Fraction]]:
    """Yield name, amount found and exact amount."""
    for level, name in enumerate(LEVELS):
        yield f"equity {name}", Fraction(text["equity"][name]), amounts.equity[level]
        required = Fraction(text["requirement"][name])
        yield f"requirement {name}", required, amounts.requirement[level]
    yield "raw equity", Fraction(text["raw_equity"]), amounts.raw_equity


def verdicts_of(amounts: Amounts, error: Fraction) -> set[str]:
    """Return the verdicts that amounts within the error of the exact ones may have (6)."""

    def is_below(amount: Fraction) -> set[bool]:
        return {amount + slack < 0 for slack in (-error - MICRO * 2, error)}

    found = set()
    is_owing = {amounts.requirement[MAINTENANCE] + slack > 0 for slack in (-error, error)}
    for bankrupt in is_below(amounts.raw_equity):
        for short in is_below(amounts.health(MAINTENANCE)):
            for called in is_below(amounts.health(INITIAL)):
                for owing in is_owing:
                    if bankrupt:
                        found.add("bankrupt")
                    elif short and (owing or amounts.is_indebted):
                        found.add("liquidatable")
                    elif called:
                        found.add("margin_call")
                    else:
                        found.add("healthy")
    return found


@every_rulebook
@settings(max_examples=60)
@given(seed=seeds)
def test_amounts_and_verdict_equal_the_exact_ones(name: str, seed: int) -> None:
    case = case_of(name)
    snapshot = snapshot_of(case, seed)
    (found,) = evaluated(case, snapshot)
    amounts = exact(case, snapshot)
    error = error_of(case, amounts)
    if "unrounded" not in found:
        # beyond 2**53 micros nothing is judged
        assert found["verdict"] == "unknown"
        assert amounts.scale > 2**53 * MICRO
        return
    amounts = end_nearest_to(found["unrounded"], amounts, error)
    for what, given_amount, wanted in each_amount(found["unrounded"], amounts):
        assert abs(given_amount - wanted) <= error, (what, float(given_amount), float(wanted))
    for what, given_amount, wanted in each_amount(found, amounts):
        # requirements up, assets down
        low, high = (0, 1) if what.startswith("requirement") else (-1, 0)
        assert low * MICRO - error <= given_amount - wanted <= high * MICRO + error, what
    assert found["verdict"] in verdicts_of(amounts, error)


@every_rulebook
@settings(max_examples=20)
@given(seed=seeds)
def test_health_rises_from_initial_to_maintenance(name: str, seed: int) -> None:  # I1
    case = case_of(name)
    snapshot = snapshot_of(case, seed)
    (found,) = evaluated(case, snapshot)
    if found["verdict"] == "unknown":
        return
    slack = error_of(case, exact(case, snapshot)) + MICRO
    initial, end, maintenance = (Fraction(found["health"][level]) for level in LEVELS)
    assert initial <= end + slack
    assert end <= maintenance + slack


def doubts(case: Case) -> bool:
    """Tell whether doubtful collateral costs (3.7, 3.8): then more of it may help less."""
    return any(
        part.quality_factor_ppm > 0
        for part in models_of(case.model)
        if isinstance(part, ContingenciesTermModel | OptionStandardTermModel)
    )


@every_rulebook
@settings(max_examples=20)
@given(seed=seeds)
def test_health_does_not_rise_when_a_balance_falls(name: str, seed: int) -> None:  # I2
    case = case_of(name)
    snapshot = snapshot_of(case, seed)
    held = snapshot["accounts"][0]["collateral"]
    random = Random(seed + 1)
    # a balance that vanishes may leave all in one category, which is another rule (C9)
    names = [asset for asset in held if Fraction(held[asset]) > 0]
    if not names:
        return
    asset = random.choice(names)
    quantum = 10.0 ** case.model.assets[asset].quantum_exponent
    places = -case.model.assets[asset].quantum_exponent
    less = deepcopy(snapshot)
    coins = max(float(held[asset]) * random.choice([0.01, 0.5, 0.9, 0.999]), quantum)
    less["accounts"][0]["collateral"][asset] = f"{coins:.{places}f}"
    (before,), (after,) = evaluated(case, snapshot), evaluated(case, less)
    if "unknown" in {before["verdict"], after["verdict"]}:
        return
    slack = error_of(case, exact(case, snapshot)) + MICRO
    for level in LEVELS[1:] if doubts(case) else LEVELS:
        assert Fraction(after["health"][level]) <= Fraction(before["health"][level]) + slack, level


@every_rulebook
@settings(max_examples=10)
@given(seed=seeds)
def test_order_of_accounts_and_of_what_they_hold_changes_nothing(name: str, seed: int) -> None:
    """I5."""
    case = case_of(name)
    snapshot = snapshot_of(case, seed, accounts=4)
    turned = deepcopy(snapshot)
    turned["accounts"].reverse()
    for account in turned["accounts"]:
        for key in ("positions", "orders"):
            account[key] = account[key][::-1]
        account["collateral"] = dict(reversed(account["collateral"].items()))
    found = {account["account_id"]: account for account in evaluated(case, snapshot)}
    for account in evaluated(case, turned):
        assert account == found[account["account_id"]]


# -- parity


def columns_of(case: Case, snapshot: dict[str, Any]) -> tuple[Columns, MarkBook]:
    """Return a snapshot as the kernel reads it."""
    columns, marks = Columns(), MarkBook(case.rulebook)
    marks.put(snapshot["marks"])
    marks.stream_us = snapshot["ts_us"]
    for number, account in enumerate(snapshot["accounts"]):
        _add_unit(columns, case.rulebook, marks, f"accounts.{number}", account)
    return columns, marks


def arguments_of(case: Case, columns: Columns, marks: MarkBook) -> tuple[Any, ...]:
    return (
        columns.units, columns.positions, columns.balances, columns.orders,
        case.rulebook.rules, marks.marks,
    )  # fmt: skip


def weighed(
    kernel: Callable[..., int],
    case: Case,
    columns: Columns,
    marks: MarkBook,
    unit: int,
    space: Workspace | None = None,
) -> tuple[int, bytes, dict[str, bytes]]:
    """Return what a kernel writes: bits, micros, and the bytes of the workspace."""
    space, out = space or case.rulebook.workspace(), np.zeros(AMOUNTS, np.int64)
    seen = kernel(unit, *arguments_of(case, columns, marks), space, out)
    told = {
        key: getattr(space, key).tobytes()
        for key in (
            "equity", "required", "raw", "position_value", "position_pnl", "position_equity",
            "position_required", "balance_value", "balance_equity", "balance_required", "group",
            "worst",
        )
    }  # fmt: skip
    return seen, out.tobytes(), told


@every_rulebook
@settings(max_examples=5)
@given(seed=seeds)
def test_compiled_terms_equal_the_readable_ones_bit_for_bit(name: str, seed: int) -> None:
    case = case_of(name)
    columns, marks = columns_of(case, snapshot_of(case, seed))
    readable = weighed(weigh, case, columns, marks, 0)
    assert weighed(weigh_jit, case, columns, marks, 0) == readable
    assert len(weigh_jit.nopython_signatures) == 1


@every_rulebook
@settings(max_examples=10)
@given(seed=seeds)
def test_what_a_workspace_was_used_for_before_changes_no_bit(name: str, seed: int) -> None:
    """Prices of options are kept in it, until forward, time left or volatility move."""
    case = case_of(name)
    columns, marks = columns_of(case, snapshot_of(case, seed, accounts=3))
    _, other = columns_of(case, snapshot_of(case, seed + 1))
    later = deepcopy(marks)
    later.stream_us += 1
    space = case.rulebook.workspace()
    for book in (marks, later, other, marks, marks):
        for unit in range(3):
            fresh = weighed(weigh_jit, case, columns, book, unit)
            used = weighed(weigh_jit, case, columns, book, unit, space)
            assert used[:2] == fresh[:2]
            assert all(used[2][key] == fresh[2][key] for key in ("equity", "required", "raw"))


@every_rulebook
@settings(max_examples=20)
@given(seed=seeds)
def test_judged_figures_equal_weighed_amounts(name: str, seed: int) -> None:
    """Plain presets go another way in the judging kernel and must come to the same micro."""
    case = case_of(name)
    columns, marks = columns_of(case, snapshot_of(case, seed, accounts=3))
    units, *others = arguments_of(case, columns, marks)
    count = int(columns.counts[COUNT_UNITS])
    figures, space = columns.figures, case.rulebook.workspace()
    evaluate_units_jit(units, count, *others, space, figures, 0, count)
    out = np.zeros(AMOUNTS, np.int64)
    for unit in range(count):
        if weigh_jit(unit, units, *others, space, out) == -1:
            continue
        assert figures.equity_micros[unit].tolist() == out[:3].tolist()
        assert figures.requirement_micros[unit].tolist() == out[3:RAW].tolist()
        assert int(figures.raw_equity_micros[unit]) == int(out[RAW])


# -- what the rulebooks cover


def is_given(model: BaseModel, key: str) -> bool:
    """Tell whether a key says something else than its default."""
    return getattr(model, key) != type(model).model_fields[key].get_default(
        call_default_factory=True
    )


def test_rulebooks_by_hand_switch_on_every_term_and_option() -> None:
    given_keys: set[tuple[str, str]] = set()
    known: set[tuple[str, str]] = set()
    for name in RULEBOOKS:
        for part in models_of(case_of(name).model):
            if type(part).__module__ != "solvent.rules.terms":
                continue
            for key in type(part).model_fields:
                known.add((type(part).__name__, key))
                if is_given(part, key):
                    given_keys.add((type(part).__name__, key))
    # what else a market's own pnl says, the section says for all of them
    not_needed = {
        ("MarketPnlModel", "imf"), ("MarketPnlModel", "net_of_requirement"),
        ("MarketPnlModel", "liquidation_end_ppm"), ("PnlModel", "imbalance"),
        ("PnlModel", "cap_micros"),
    }  # fmt: skip
    assert known - given_keys - not_needed == set()
