"""A file of account snapshots held against the account table: ``solvent accounts reconcile``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solvent.engine.margin import MarginShard
from solvent.engine.reconcile import Difference, differences
from solvent.engine.statements import StatementReader
from solvent.errors import ContractError
from solvent.ops.files import read_values
from solvent.rules import CompiledRulebook
from solvent.wire.statements import decode_snapshot
from solvent.wire.topics import ACCOUNT_SNAPSHOTS

__all__ = ["Reconciliation", "reconcile"]


@dataclass(slots=True)
class Reconciliation:
    """What was compared, and what differs.

    Attributes
    ----------
    units : int
        Snapshots read.
    differences : list of Difference
        In the order of the file.
    """

    units: int = 0
    differences: list[Difference] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "equal": not self.differences,
            "units": self.units,
            "differences": [difference._asdict() for difference in self.differences],
        }


def reconcile(
    path: Path, shards: Sequence[MarginShard], rulebook: CompiledRulebook
) -> Reconciliation:
    """Compare each snapshot of a JSON-lines file with the state of the shards.

    Raises
    ------
    ConfigError
        [SLV-430] The file cannot be read.
    ContractError
        A line is no snapshot, or names what the rulebook does not have.
    """
    reader = StatementReader(rulebook)
    found = Reconciliation()
    for values, _ in read_values(path, ACCOUNT_SNAPSHOTS):
        for record in values.run:
            try:
                told = decode_snapshot(record.value)
                snapshot = reader.snapshot(told)
            except ContractError as error:
                message = f"{path} line {record.offset}: {error.message}"
                raise ContractError(message, code=error.code) from None
            found.units += 1
            found.differences += differences(shards, told.account_id, told.subaccount, snapshot)
    return found
