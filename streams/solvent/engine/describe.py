"""One account for people: what the table view, the CLI and tests show of it. Decimal texts only."""

from __future__ import annotations

from typing import Any


def describe_account(*_: Any) -> dict[str, Any]:
    raise NotImplementedError
