"""Commands of operators, and the pauses that are in force.

A pause stops liquidations from being offered, in one market or in all; marks, verdicts and statuses
go on. Who resumes all resumes what was paused as a whole: a market paused by name stays so until it
is named again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from solvent.errors import ContractError, RejectCode
from solvent.wire.inputs import ControlCommand
from solvent.wire.outputs import RowPause, decode_control_row, encode

__all__ = ["CONTROL_ROW_KEY", "Control"]

#: Key of the row of ``price-state.v1``; no feed's name contains a zero byte.
CONTROL_ROW_KEY: Final = b"\0control"

#: Commands whose ids are remembered; an operator's tool repeats one within seconds.
_REMEMBERED: Final = 256
#: All markets; no identifier contains it.
_ALL: Final = "*"


class Control:
    """Pauses in force, and the commands that made them."""

    def __init__(self) -> None:
        self._pauses: dict[str, RowPause] = {}
        self._commands: deque[str] = deque(maxlen=_REMEMBERED)
        self._last_us = 0

    @classmethod
    def of_row(cls, value: bytes) -> Control:
        """Return what `row` wrote; raises ContractError if it is no such row."""
        row = decode_control_row(value)
        control = cls()
        control._pauses = dict(row.pauses)
        control._commands.extend(row.commands)
        control._last_us = row.last_us
        return control

    def row(self) -> bytes:
        """Return the control row."""
        pauses = {
            name: {"operator": told.operator, "reason": told.reason, "ts_us": told.ts_us}
            for name, told in sorted(self._pauses.items())
        }
        content: dict[str, Any] = {"schema_version": 1, "pauses": pauses}
        return encode(content | {"commands": list(self._commands), "last_us": self._last_us})

    def pauses(self) -> Mapping[str, Any]:
        """Return the pauses in force as frames tell them."""
        return {
            "all": _ALL in self._pauses,
            "markets": sorted(name for name in self._pauses if name != _ALL),
        }

    def was_obeyed(self, command: ControlCommand) -> bool:
        """Whether a command with this id was obeyed before."""
        return command.command_id in self._commands

    def obey(self, command: ControlCommand) -> bool:
        """Take a command; return whether it changes the pauses.

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
        name = _ALL if command.market is None else command.market
        was_paused = name in self._pauses
        if command.action == "pause":
            told = RowPause(operator=command.operator, reason=command.reason, ts_us=command.ts_us)
            self._pauses.setdefault(name, told)
        else:
            self._pauses.pop(name, None)
        return was_paused != (command.action == "pause")
