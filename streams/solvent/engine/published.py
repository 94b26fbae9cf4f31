"""The rulebook in force in a shard: the worker's own until one is published to the stream.

A rulebook published (kind ``rulebook`` of ``oracle-ticks.v1``) is told to every margin shard in a
frame of ``marks.v1`` and acts from its place in the stream on. Both kinds of shard keep it in a row
of their table, so that whoever takes the partition over judges by it, whatever file it was started
with; the file counts only for a pipeline to which nothing was published.
"""

from __future__ import annotations

from typing import Final

from orjson import Fragment

from solvent.errors import ConfigError, PartitionError
from solvent.rules import CompiledRulebook, compile_document
from solvent.wire.outputs import decode_rulebook_row, encode

__all__ = ["RULEBOOK_ROW_KEY", "restored_rulebook", "rulebook_row"]

#: Key of the row, of ``accounts.v1`` and ``price-state.v1``; no identifier contains a zero byte.
RULEBOOK_ROW_KEY: Final = b"\0rulebook"


def rulebook_row(rulebook: CompiledRulebook) -> bytes:
    """Return the row of a rulebook that was published."""
    return encode({"schema_version": 1, "rulebook": Fragment(rulebook.document)})


def restored_rulebook(
    own: CompiledRulebook, row: bytes | None, built_hash: str, where: str
) -> CompiledRulebook:
    """Return the rulebook that a restored shard judges by.

    Parameters
    ----------
    own : CompiledRulebook
        The worker's.
    row : bytes or None
        The shard's rulebook row; None if nothing was ever published to it.
    built_hash : str
        Hash of the rulebook its state was built under.
    where : str
        The partition, for people.

    Raises
    ------
    ConfigError
        [SLV-407] Nothing was published, and the worker has another rulebook.
    PartitionError
        The row is not of the rulebook the state was built under.
    """
    rulebook = own if row is None else compile_document(encode(decode_rulebook_row(row).rulebook))
    if rulebook.hash == built_hash:
        return rulebook
    if row is not None:
        msg = f"{where}: its rulebook row has hash {rulebook.hash}, its state {built_hash}"
        raise PartitionError(msg)
    msg = (
        f"{where}: its state was built under the rulebook of hash {built_hash[:12]}, this worker "
        f"has {own.id} version {own.version} ({own.hash[:12]}): start with the former and "
        "`solvent rulebook publish` the latter"
    )
    raise ConfigError(msg, code="SLV-407")
