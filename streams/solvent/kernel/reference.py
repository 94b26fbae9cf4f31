# ruff: noqa: ANN401 -- numba hands types and builders of its own
"""Tables by reference: a compiled call passes one address where it would pass hundreds of words.

numba passes a named tuple of arrays as all the words of all its arrays, some eight hundred for the
tables of a unit, at each call that is not inlined. Written to the stack once, they are read where
they are needed. A reference has the fields of its tuple, and those that are tuples of several types
are references too; one of a single type is small, and read whole. Readable kernels know none of it:
there a reference is the tuple itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import types
from numba.core import cgutils, imputils, typing
from numba.core.typing import templates
from numba.extending import lower_builtin, models, register_model, type_callable

__all__ = ["Reference", "at_address", "by_reference"]

_Tuple = TypeVar("_Tuple", bound=tuple[Any, ...])


class Reference(types.Type):  # type: ignore[misc, unused-ignore]
    """The type of the address of a named tuple."""

    def __init__(self, target: Any) -> None:
        self.target = target
        super().__init__(name=f"Reference({target.instance_class.__name__})")

    @property
    def key(self) -> Any:
        """What tells it from other types."""
        return self.target

    def member(self, name: str) -> tuple[int, Any]:
        """Return place and type of a field."""
        place = self.target.fields.index(name)
        return place, self.target.types[place]


@register_model(Reference)
class _ReferenceModel(models.PrimitiveModel):  # type: ignore[misc, unused-ignore]
    def __init__(self, manager: Any, reference: Reference) -> None:
        pointee = manager.lookup(reference.target).get_value_type()
        super().__init__(manager, reference, pointee.as_pointer())


@templates.infer_getattr
class _Fields(templates.AttributeTemplate):  # type: ignore[misc, unused-ignore]
    key = Reference

    def generic_resolve(self, reference: Reference, name: str) -> Any:
        """Return the type of a field."""
        if name not in reference.target.fields:
            return None
        _, member = reference.member(name)
        return Reference(member) if isinstance(member, types.NamedTuple) else member


@imputils.lower_getattr_generic(Reference)
def _field(context: Any, builder: Any, reference: Reference, address: Any, name: str) -> Any:
    place, member = reference.member(name)
    inside = cgutils.gep_inbounds(builder, address, 0, place)
    if isinstance(member, types.NamedTuple):
        return inside
    return imputils.impl_ret_borrowed(context, builder, member, builder.load(inside))


def by_reference(value: _Tuple) -> _Tuple:
    """Return a named tuple by reference; it lives as long as the call it is made in."""
    return value


@type_callable(by_reference)
def _type_by_reference(_context: Any) -> Any:
    return lambda value: Reference(value)


@lower_builtin(by_reference, types.NamedTuple)
def _put(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    return cgutils.alloca_once_value(builder, arguments[0])


def at_address(function: Callable[[int, Any], int]) -> Callable[[int, int, Any], int]:
    """Return a kernel of (number, tables) as one that compiled callers call by its address.

    They pass the address of its compiled twin, an int64, before its arguments, and the tables by
    reference. To readable callers the address means nothing.
    """

    def call(address: int, number: int, tables: Any) -> int:  # noqa: ARG001
        return function(number, tables)

    @type_callable(call)
    def typed(_context: Any) -> Any:
        def typer(address: Any, number: Any, tables: Any) -> Any:  # noqa: ARG001
            return typing.signature(types.int64, types.int64, types.int64, tables)

        return typer

    @lower_builtin(call, types.int64, types.int64, Reference)
    def lowered(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        convention = context.call_conv
        address, *others = arguments
        kind = convention.get_function_type(types.int64, signature.args[1:])
        callee = builder.inttoptr(address, kind.as_pointer())
        status, result = convention.call_function(
            builder, callee, types.int64, signature.args[1:], others
        )
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        return result

    return call
