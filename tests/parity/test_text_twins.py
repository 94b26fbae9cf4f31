"""Decimal texts written in bulk: the compiled kernel, its function and `format_scaled` agree."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from solvent.kernel import texts
from solvent.units import format_scaled
from support.margin import a_rulebook

a_rulebook()  # compiles the kernels

AMOUNTS = st.lists(
    st.tuples(st.integers(-(2**63) + 1, 2**63 - 1), st.integers(0, 18)), min_size=0, max_size=20
)


@given(AMOUNTS)
def test_decimal_texts_are_those_of_format_scaled(amounts: list[tuple[int, int]]) -> None:
    values = np.array([value for value, _ in amounts], np.int64)
    places = np.array([place for _, place in amounts], np.int64)
    wanted = [format_scaled(value, -place) for value, place in amounts]
    assert texts.decimal_texts(values, places) == wanted
    out = np.zeros(len(amounts) * texts.MAX_DECIMAL_BYTES, np.uint8)
    with np.errstate(all="raise"):
        used = texts.format_decimals_reference(values, places, out)
    assert out[:used].tobytes().decode() == "".join(f"{text}\n" for text in wanted)


def test_decimal_texts_at_the_edges_fit_their_room() -> None:
    edges = [2**63 - 1, -(2**63) + 1, 0, 1, -1, 10**18, -(10**18)]
    for place in (0, 6, 18):
        places = np.full(len(edges), place, np.int64)
        wanted = [format_scaled(value, -place) for value in edges]
        assert texts.decimal_texts(np.array(edges, np.int64), places) == wanted
        assert max(map(len, wanted)) < texts.MAX_DECIMAL_BYTES


def test_fast_path_is_loaded_and_closed() -> None:
    assert len(texts.format_decimals_jit.nopython_signatures) == 1
    assert not texts.format_decimals_jit._can_compile
