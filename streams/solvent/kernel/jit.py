"""How every kernel is compiled: no fastmath, no GIL, numpy's division, and a cache that cannot rot.

Compiling all kernels takes ten seconds and more, which a restarted worker does not have. numba's
cache looks only at the file of the function it keeps, not at what it inlines from others, so a
changed leaf would leave a stale kernel behind. Here the cache folder is named after a hash of all
sources that hold kernels: any change makes a new folder. Where none can be written, nothing is
kept.

Kernels allocate nothing, so numba's reference counts are switched off (``_nrt=False``; a kernel
that did allocate would not compile): counting every column at every leaf took 2.1 us of a fold's
step, without it and with the leaves inlined (``inline="always"``) it is 0.06 us.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import njit

__all__ = ["cache_folder", "jit"]

_PACKAGE = Path(__file__).parents[1]
_KERNEL_FOLDERS = ("kernel", "state")


def jit(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - numba's dispatcher is untyped
    """Return the compiled twin of a kernel; it compiles, or loads, when given a signature."""
    folder = cache_folder()
    before = numba.config.CACHE_DIR
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)
    try:
        return njit(nogil=True, error_model="numpy", cache=folder is not None, _nrt=False)(function)
    finally:
        numba.config.CACHE_DIR = before


@cache
def cache_folder() -> Path | None:
    """Return the cache folder of these very sources, or None where it cannot be written.

    It lies in NUMBA_CACHE_DIR if that is set, else beside this file.
    """
    # numba's own key leaves bounds checks out: a run that asks for them must not load kernels
    # without, nor leave checked ones behind
    checks = f"bounds {numba.config.BOUNDSCHECK}"
    digest = hashlib.sha256(f"{numba.__version__} {checks}".encode())
    for name in _KERNEL_FOLDERS:
        for source in sorted((_PACKAGE / name).glob("*.py")):
            digest.update(source.read_bytes())
    chosen = numba.config.CACHE_DIR
    root = Path(chosen) if chosen else Path(__file__).parent / "__pycache__"
    if not os.access(root if root.exists() else root.parent, os.W_OK):
        return None
    return root / f"numba-{digest.hexdigest()[:16]}"
