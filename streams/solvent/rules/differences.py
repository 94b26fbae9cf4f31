"""What differs between two resolved rulebooks: place, value before, value after.

Read next: `rules.document` for what is compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from solvent.rules.document import ORDERED_SECTIONS

__all__ = ["Difference", "differences"]

_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place where two rulebooks are not the same.

    Attributes
    ----------
    path : str
        Keys and list indices, joined by dots.
    kind : str
        ``added``, ``removed``, ``changed``, or ``reordered`` of a section whose order counts.
    before, after : plain data
        A scalar, or all of what only one of them has; None where there is nothing. Of a section
        reordered, the names that both have, in order.
    """

    path: str
    kind: Literal["added", "removed", "changed", "reordered"]
    before: Any
    after: Any

    @property
    def line(self) -> str:
        """The difference in words: ``path: 50000 -> 60000``."""
        before, after = (json.dumps(side, ensure_ascii=False) for side in (self.before, self.after))
        if self.kind == "added":
            return f"{self.path}: added {after}"
        if self.kind == "removed":
            return f"{self.path}: removed {before}"
        word = "" if self.kind == "changed" else "reordered "
        return f"{self.path}: {word}{before} -> {after}"


def differences(before: dict[str, Any], after: dict[str, Any]) -> tuple[Difference, ...]:
    """Compare two documents value by value; none differs exactly if their hashes are equal.

    Parameters
    ----------
    before, after : dict
        Of `resolved_document`.

    Returns
    -------
    tuple of Difference
        In the order of the first document, what only the second has behind; sections that are only
        in another order at the end.
    """
    return (*_compare("", before, after), *_reordered(before, after))


def _compare(path: str, before: Any, after: Any) -> Iterator[Difference]:  # noqa: ANN401
    if isinstance(before, dict) and isinstance(after, dict):
        for key in (*before, *(key for key in after if key not in before)):
            yield from _compare(
                f"{path}.{key}" if path else key,
                before.get(key, _ABSENT),
                after.get(key, _ABSENT),
            )
    elif isinstance(before, list) and isinstance(after, list):
        yield from _compare(path, dict(enumerate(before)), dict(enumerate(after)))
    elif before is _ABSENT:
        yield Difference(path=path, kind="added", before=None, after=after)
    elif after is _ABSENT:
        yield Difference(path=path, kind="removed", before=before, after=None)
    elif before != after or type(before) is not type(after):
        yield Difference(path=path, kind="changed", before=before, after=after)


def _reordered(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Difference]:
    for section in ORDERED_SECTIONS:
        was = [name for name in before[section] if name in after[section]]
        now = [name for name in after[section] if name in before[section]]
        if was != now:
            yield Difference(path=section, kind="reordered", before=was, after=now)
