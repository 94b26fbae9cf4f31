# ruff: noqa: ANN401 -- numba hands types and builders of its own
"""Words in byte arrays: little-endian loads and stores at any place, and a 64-bit mix for hashes.

Each is a plain function for readable kernels and one or two instructions for compiled ones, where
loops over bytes cost ten times as much. Compiled, nobody checks that the bytes are there: that is
the caller's part.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable
from numba.np import arrayobj

from solvent.kernel.layout import UInt8

__all__ = [
    "copy_bytes",
    "load16",
    "load32",
    "load64",
    "mix",
    "prefetch",
    "store16",
    "store32",
    "store64",
]

assert sys.byteorder == "little", "account rows and hashes are little-endian"

_M64: Final = 2**64 - 1
_MULTIPLIER: Final = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, odd


def load64(data: UInt8, at: int) -> int:
    """Return the signed integer in 8 bytes at a place."""
    return int.from_bytes(data[at : at + 8].tobytes(), "little", signed=True)


def load32(data: UInt8, at: int) -> int:
    """Return the signed integer in 4 bytes at a place."""
    return int.from_bytes(data[at : at + 4].tobytes(), "little", signed=True)


def load16(data: UInt8, at: int) -> int:
    """Return the unsigned integer in 2 bytes at a place."""
    return int.from_bytes(data[at : at + 2].tobytes(), "little")


def store64(out: UInt8, at: int, value: int) -> None:
    """Write the low 8 bytes of an integer at a place."""
    _store(out, at, value, 8)


def store32(out: UInt8, at: int, value: int) -> None:
    """Write the low 4 bytes of an integer at a place."""
    _store(out, at, value, 4)


def store16(out: UInt8, at: int, value: int) -> None:
    """Write the low 2 bytes of an integer at a place."""
    _store(out, at, value, 2)


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def copy_bytes(data: UInt8, first: int, size: int, out: UInt8, at: int) -> None:
    """Copy so many bytes from a place to a place in another array."""
    done = 0
    while done + 8 <= size:
        store64(out, at + done, load64(data, first + done))
        done += 8
    while done < size:
        out[at + done] = data[first + done]
        done += 1


def mix(state: int, word: int) -> int:
    """Return a hash state, 0 <= state < 2**63, with one more word in it."""
    product = (((int(state) ^ int(word)) & _M64) * _MULTIPLIER) & _M64
    return (product ^ (product >> 32)) >> 1


def prefetch(column: Any, row: int) -> None:
    """Ask for a row of a column ahead of its use; no row need be there."""


def _store(out: UInt8, at: int, value: int, size: int) -> None:
    for k in range(size):
        out[at + k] = (int(value) >> (8 * k)) & 255


# -- the same for compiled kernels


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, bits: int) -> Any:
    data = arrayobj.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), ir.IntType(bits).as_pointer())


def _loader(bits: int, *, is_signed: bool) -> Any:
    @intrinsic
    def load(_typing: Any, data: Any, at: Any) -> Any:  # noqa: ARG001
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, place = arguments
            word = builder.load(_pointer(context, builder, signature.args[0], array, place, bits))
            word.align = 1
            if bits == 64:
                return word
            return (builder.sext if is_signed else builder.zext)(word, ir.IntType(64))

        return types.int64(data, types.int64), build

    return load


def _storer(bits: int) -> Any:
    @intrinsic
    def keep(_typing: Any, out: Any, at: Any, value: Any) -> Any:  # noqa: ARG001
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array, place, word = arguments
            if bits != 64:
                word = builder.trunc(word, ir.IntType(bits))
            pointer = _pointer(context, builder, signature.args[0], array, place, bits)
            builder.store(word, pointer).align = 1
            return context.get_dummy_value()

        return types.void(out, types.int64, types.int64), build

    return keep


@intrinsic
def _mixed(_typing: Any, state: Any, word: Any) -> Any:  # noqa: ARG001
    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        def constant(value: int) -> Any:
            return ir.Constant(ir.IntType(64), value)

        product = builder.mul(builder.xor(*arguments), constant(_MULTIPLIER))
        folded = builder.xor(product, builder.lshr(product, constant(32)))
        return builder.lshr(folded, constant(1))

    return types.int64(types.int64, types.int64), build


_load64, _load32 = _loader(64, is_signed=True), _loader(32, is_signed=True)
_load16 = _loader(16, is_signed=False)
_store64, _store32, _store16 = _storer(64), _storer(32), _storer(16)


@overload(load64, strict=False)
def _compiled_load64(data: Any, at: Any) -> Any:  # noqa: ARG001
    return lambda data, at: _load64(data, at)


@overload(load32, strict=False)
def _compiled_load32(data: Any, at: Any) -> Any:  # noqa: ARG001
    return lambda data, at: _load32(data, at)


@overload(load16, strict=False)
def _compiled_load16(data: Any, at: Any) -> Any:  # noqa: ARG001
    return lambda data, at: _load16(data, at)


@overload(store64, strict=False)
def _compiled_store64(out: Any, at: Any, value: Any) -> Any:  # noqa: ARG001
    return lambda out, at, value: _store64(out, at, value)


@overload(store32, strict=False)
def _compiled_store32(out: Any, at: Any, value: Any) -> Any:  # noqa: ARG001
    return lambda out, at, value: _store32(out, at, value)


@overload(store16, strict=False)
def _compiled_store16(out: Any, at: Any, value: Any) -> Any:  # noqa: ARG001
    return lambda out, at, value: _store16(out, at, value)


@intrinsic
def _ask(_typing: Any, column: Any, row: Any) -> Any:  # noqa: ARG001
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(array.strides, 0)
        byte = builder.bitcast(array.data, ir.IntType(8).as_pointer())
        place = builder.gep(byte, [builder.mul(arguments[1], stride)])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        flags = [ir.Constant(number, flag) for flag in (0, 3, 1)]  # read, keep, data
        builder.call(ask, [place, *flags])
        return context.get_dummy_value()

    return types.void(column, types.int64), build


@overload(prefetch, strict=False)
def _compiled_prefetch(column: Any, row: Any) -> Any:  # noqa: ARG001
    return lambda column, row: _ask(column, row)


@overload(mix, strict=False)
def _compiled_mix(state: Any, word: Any) -> Any:  # noqa: ARG001
    return lambda state, word: _mixed(state, word)
