"""Commands of operators, and what they ordered that is in force.

A pause stops liquidations from being offered, in one market or in all; marks, verdicts and statuses
go on. Who resumes all resumes what was paused as a whole: a market paused by name stays so until it
is named again. A halt says that trading itself has stopped in a market: nothing is offered there
either, and fills in it are counted, since none is expected. In a dry run offers are made, and say
that nobody may act on them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import asdict

from solvent.errors import ContractError, RejectCode
from solvent.wire.inputs import ControlCommand
from solvent.wire.outputs import ControlRow, RowPause, encode

__all__ = ["CONTROL_ROW_KEY", "Control"]

#: Key of the row of ``price-state.v1``; no feed's name contains a zero byte.
CONTROL_ROW_KEY: Final = b"\0control"

#: Commands whose ids are remembered; an operator's tool repeats one within seconds.
_REMEMBERED: Final = 256
#: All markets; no identifier contains it.
_ALL: Final = "*"


class Control:
    """Pauses, halts and dry run in force, and the commands that made them."""

    def __init__(self) -> None:
        self._pauses: dict[str, RowPause] = {}
        self._halts: dict[str, RowPause] = {}
        self._dry_run: RowPause | None = None
        self._commands: deque[str] = deque(maxlen=_REMEMBERED)
        self._last_us = 0

    @classmethod
    def of_row(cls, row: ControlRow) -> Control:
        """Return what `row` wrote."""
        control = cls()
        control._pauses = dict(row.pauses)
        control._halts = dict(row.halts)
        control._dry_run = row.dry_run
        control._commands.extend(row.commands)
        control._last_us = row.last_us
        return control

    def row(
        self, breakers: Sequence[Mapping[str, Any]], sums: Mapping[str, Any] | None = None
    ) -> bytes:
        """Return the control row, with the breakers that stand otherwise than closed.

        And with the `sums` that breakers watch.
        """
        content: dict[str, Any] = {
            "schema_version": 1,
            "pauses": _told(self._pauses),
            "commands": list(self._commands),
            "last_us": self._last_us,
        }
        if self._halts:
            content["halts"] = _told(self._halts)
        if self._dry_run is not None:
            content["dry_run"] = asdict(self._dry_run)
        if breakers:
            content["breakers"] = breakers
        if sums:
            content["sums"] = sums
        return encode(content)

    def pauses(self) -> Mapping[str, Any]:
        """Return what is in force as frames tell it."""
        told: dict[str, Any] = {
            "all": _ALL in self._pauses,
            "markets": sorted(name for name in self._pauses if name != _ALL),
        }
        if self._halts:
            told["halted"] = sorted(self._halts)
        if self._dry_run is not None:
            told["dry_run"] = True
        return told

    @staticmethod
    def check(command: ControlCommand) -> None:
        """Check that a command is about what its action can be about.

        Raises
        ------
        ContractError
            [SLV-103] A halt without a market, or a dry run with one.
        """
        what = f"command {command.command_id} of {command.operator}: {command.action}"
        if command.action == "halt" and command.market is None:
            msg = f"{what} of all markets, must name one"
            raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)
        if command.action.startswith("dry_run") and command.market is not None:
            msg = f"{what} of {command.market}, must name no market: it is of all"
            raise ContractError(msg, code=RejectCode.OUT_OF_CONTRACT)

    def was_obeyed(self, command: ControlCommand) -> bool:
        """Whether a command with this id was obeyed before."""
        return command.command_id in self._commands

    def obey(self, command: ControlCommand) -> bool:
        """Take a command; return whether it changes what is in force.

        Raises
        ------
        ContractError
            [SLV-307] It is older than the last one obeyed.
        """
        if command.ts_us < self._last_us:
            msg = (
                f"command {command.command_id} of {command.operator} at {command.ts_us}: "
                f"not before {self._last_us}, when the last was given"
            )
            raise ContractError(msg, code=RejectCode.STALE_COMMAND)
        self._last_us = command.ts_us
        self._commands.append(command.command_id)
        before = self.pauses()
        name = _ALL if command.market is None else command.market
        told = RowPause(operator=command.operator, reason=command.reason, ts_us=command.ts_us)
        if command.action == "pause":
            self._pauses.setdefault(name, told)
        elif command.action == "halt":
            self._halts.setdefault(name, told)
        elif command.action == "resume":
            self._pauses.pop(name, None)
            self._halts.pop(name, None)
        elif command.action == "dry_run_on":
            self._dry_run = self._dry_run or told
        else:
            self._dry_run = None
        return self.pauses() != before


def _told(ordered: Mapping[str, RowPause]) -> dict[str, Any]:
    return {name: asdict(told) for name, told in sorted(ordered.items())}
