"""A shard's table as a Faust table: a read-only view over the columns of the lanes held here.

Declaring it makes Faust's assignor keep a topic's partition p and its table's partition p on one
worker; item access and iteration serve people and tools. State changes only by records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from faust.tables.table import Table

from solvent.errors import InvariantError

__all__ = ["ShardTable"]


class ShardTable(Table):
    """View of one agent's shards.

    Parameters
    ----------
    shards : callable
        Returns the open shards of this worker by partition; each offers ``keys()`` and
        ``describe(key)``, which raises KeyError for an unknown key.
    """

    def __init__(self, app: Any, *, shards: Callable[[], dict[int, Any]], **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._shards = shards

    async def on_start(self) -> None:
        """Start nothing: there is no store, and topics are created by ``solvent topics``."""

    def persisted_offset(self, tp: Any) -> None:  # noqa: ARG002
        """Return None: the fence row says where a shard is."""
        return

    async def on_rebalance(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: lanes follow the assignment."""

    async def on_recovery_completed(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: lanes are restored by then."""

    def __getitem__(self, key: Any) -> Any:
        for shard in self._shards().values():
            try:
                return shard.describe(key)
            except KeyError:
                continue
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        for _, shard in sorted(self._shards().items()):
            yield from shard.keys()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    def __setitem__(self, key: Any, value: Any) -> None:
        self._refuse(key)

    def __delitem__(self, key: Any) -> None:
        self._refuse(key)

    def on_key_set(self, key: Any, value: Any) -> None:  # noqa: ARG002
        """Refuse `update` too: Faust would write to the changelog from here."""
        self._refuse(key)

    def on_key_del(self, key: Any) -> None:
        """Refuse `pop` and `clear` too."""
        self._refuse(key)

    def _refuse(self, key: Any) -> None:
        message = f"table {self.name}: {key!r} changed directly; rows change by input records only"
        raise InvariantError(message)

    def keys(self) -> Any:
        """Return the keys held by this worker, by partition."""
        return list(self)

    def values(self) -> Any:
        """Return what `describe` says of each key."""
        return [self[key] for key in self]

    def items(self) -> Any:
        """Return pairs of key and what `describe` says of it."""
        return [(key, self[key]) for key in self]
