"""Tables by reference and kernels by address: compiled callers see what readable ones do."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import pytest
from numba import njit

from solvent.kernel.arrays import Float64, Int64
from solvent.kernel.reference import Reference, at_address, by_reference


class Inner(NamedTuple):
    amounts: Float64
    counts: Int64


class Outer(NamedTuple):
    inner: Inner
    factor: float
    total: Float64


def fold(number: int, tables: Outer) -> int:
    """Add amounts up to a row, times a factor, to the total; return the row's count."""
    if number >= tables.inner.counts.size:
        raise ValueError("no such row")
    for row in range(number + 1):
        tables.total[0] += tables.inner.amounts[row] * tables.factor
    return int(tables.inner.counts[number])


fold_jit = njit(fold)
fold_at = at_address(fold)


def fold_all(address: int, inner: Inner, factor: float, total: Float64, last: int) -> int:
    """Fold every row up to one, by address."""
    tables = by_reference(Outer(inner, factor, total))
    found = 0
    for number in range(last + 1):
        found += fold_at(address, number, tables)
    return found


fold_all_jit = njit(fold_all)


@pytest.fixture(scope="module")
def address() -> int:
    example = Outer(Inner(np.zeros(1), np.zeros(1, np.int64)), 0.0, np.zeros(1))
    fold_jit.compile((numba.int64, Reference(numba.typeof(example))))
    (compiled,) = fold_jit.overloads.values()
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


def test_compiled_calls_by_address_leave_what_readable_calls_leave(address: int) -> None:
    inner = Inner(np.array([0.1, 0.2, 0.4]), np.array([5, 7, 11]))
    readable, compiled = np.zeros(1), np.zeros(1)
    assert fold_all(0, inner, 3.0, readable, 2) == 23
    assert fold_all_jit(address, inner, 3.0, compiled, 2) == 23
    assert compiled.tobytes() == readable.tobytes()


def test_an_error_behind_an_address_reaches_the_caller(address: int) -> None:
    inner = Inner(np.zeros(2), np.zeros(2, np.int64))
    for kernel in (fold_all, fold_all_jit):
        with pytest.raises(ValueError, match="no such row"):
            kernel(address, inner, 1.0, np.zeros(1), 2)
