"""The compiled kernel is loaded, and equals the readable one byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvent.kernel.evaluate import evaluate_units, evaluate_units_jit, warm_up
from solvent.kernel.judge import next_status, next_status_jit
from solvent.kernel.layout import Figures, Marks
from solvent.kernel.tables import new_table
from support.books import Book, Columns, books, marks_of, pack, prices, some_rules

RULES = some_rules()


@pytest.fixture(scope="module", autouse=True)
def loaded_kernels() -> None:
    warm_up()
    assert len(evaluate_units_jit.nopython_signatures) == 1
    assert len(next_status_jit.nopython_signatures) == 1


def run(kernel, columns: Columns, marks: Marks, first: int, last: int) -> tuple[bytes, ...]:
    """Evaluate into fresh figures and return their bytes."""
    figures = new_table(Figures, columns.unit_count)
    for array in figures:
        array[:] = 7
    kernel(
        columns.units, columns.unit_count, columns.positions, columns.balances, columns.orders,
        RULES.rules, marks, RULES.workspace(), figures, first, last,
    )  # fmt: skip
    return tuple(array.tobytes() for array in figures)


usable = st.lists(st.booleans(), min_size=len(RULES.feeds), max_size=len(RULES.feeds))


@given(st.lists(books(RULES), min_size=1, max_size=8), prices(RULES), usable)
def test_evaluate_jit_equals_reference_byte_for_byte(
    some_books: list[Book], marks: Marks, is_usable: list[bool]
) -> None:
    columns = pack(some_books, RULES)
    marks = marks._replace(is_usable=np.array(is_usable, dtype=np.uint8))
    expected = run(evaluate_units, columns, marks, 0, columns.unit_count)
    assert run(evaluate_units_jit, columns, marks, 0, columns.unit_count) == expected


@given(st.lists(books(RULES), min_size=3, max_size=3), prices(RULES))
def test_evaluate_writes_only_its_rows(some_books: list[Book], marks: Marks) -> None:
    columns = pack(some_books, RULES)
    whole = run(evaluate_units_jit, columns, marks, 0, 9)  # rows beyond the count are left alone
    middle = run(evaluate_units_jit, columns, marks, 1, 2)
    assert middle == run(evaluate_units, columns, marks, 1, 2)
    verdicts = np.frombuffer(middle[3], dtype=np.uint8)
    assert (verdicts[0], verdicts[2]) == (7, 7)
    assert verdicts[1] == np.frombuffer(whole[3], dtype=np.uint8)[1]


@given(
    st.integers(0, 4), st.integers(0, 3), st.integers(0, 4),
    st.lists(st.integers(-(2**53), 2**53), min_size=3, max_size=3),
    st.lists(st.integers(0, 2**53), min_size=3, max_size=3),
    st.integers(0, 1_000_000), st.booleans(),
)  # fmt: skip
def test_next_status_jit_equals_reference(
    status: int,
    previous: int,
    verdict: int,
    equity: list[int],
    requirement: list[int],
    clear_ppm: int,
    has_positions: bool,
) -> None:
    arguments = (
        status, previous, verdict, np.array(equity), np.array(requirement), clear_ppm,
        has_positions,
    )  # fmt: skip
    assert next_status_jit(*arguments) == next_status(*arguments)


def test_kernel_refuses_any_other_type() -> None:
    columns = pack([Book()], RULES)
    marks = marks_of(RULES, {})
    marks = marks._replace(price=marks.price.astype(np.float64))
    with pytest.raises(TypeError):
        run(evaluate_units_jit, columns, marks, 0, 1)


BOUNDS_CHECK = """
import numpy as np
from hypothesis import given, settings, strategies as st
from solvent.kernel.evaluate import evaluate_units, evaluate_units_jit, warm_up
from solvent.kernel.layout import Figures, Units
from solvent.kernel.tables import new_table
from support.books import books, marks_of, pack, prices, some_rules
RULES = some_rules()
warm_up()

@settings(max_examples=50, deadline=None, database=None, derandomize=True)
@given(st.lists(books(RULES), min_size=1, max_size=8), prices(RULES))
def check(some_books, marks):
    columns = pack(some_books, RULES)
    outputs = []
    for kernel in (evaluate_units, evaluate_units_jit):
        figures = new_table(Figures, columns.unit_count)
        kernel(columns.units, columns.unit_count, columns.positions, columns.balances,
               columns.orders, RULES.rules, marks, RULES.workspace(), figures, 0,
               columns.unit_count)
        outputs.append([array.tobytes() for array in figures])
    assert outputs[0] == outputs[1]

check()
columns = pack([], RULES)
broken, figures = new_table(Units, 1), new_table(Figures, 1)
for array in broken:
    array[:] = 5
try:
    evaluate_units_jit(broken, 1, columns.positions, columns.balances, columns.orders, RULES.rules,
                       marks_of(RULES, {}), RULES.workspace(), figures, 0, 1)
except IndexError:
    print("checked")
"""


def test_evaluate_with_bounds_checks_stays_inside_its_arrays() -> None:
    environment = {
        **os.environ,
        "NUMBA_BOUNDSCHECK": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-c", BOUNDS_CHECK],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "checked"  # and a row outside is seen
