"""Reports: what executors tell of liquidation cases in ``liquidation-reports.v1``, strictly read.

No money moves by a report. A claim asks for a share of an offer, which its fills then must name
(lease mode of a rulebook); a release gives one back; the rest is told for the record. Shares are
ppm, times microseconds of event time. As with all inputs a decoder answers with a typed, frozen
record or raises `ContractError`. Reports are few, so each is looked at closely.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from solvent.units import MAX_EXACT, PPM
from solvent.wire.scrutiny import FAULTS, check_closely, refusal
from solvent.wire.topics import LIQUIDATION_REPORTS

__all__ = [
    "AttemptReport",
    "ClaimReport",
    "FillReport",
    "RejectReport",
    "ReleaseReport",
    "Report",
    "decode_report",
    "encode_report",
]

_Identifier = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
_LiquidationId = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}:[A-Za-z0-9._-]{1,64}:[1-9][0-9]{0,15}\Z")
]
_Time = Annotated[int, Meta(ge=0, le=MAX_EXACT)]
_Number = Annotated[int, Meta(ge=1, le=MAX_EXACT)]
_Share = Annotated[int, Meta(ge=1, le=PPM)]

Why = Literal["no_liquidity", "price_moved", "risk_limit", "out_of_capital", "other"]


class _Report(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
):
    """What all reports say.

    Attributes
    ----------
    report_id : str
        Unique per account; the same again is a repeat.
    account_id, liquidation_id : str
        The account, and one of its cases.
    executor_id : str
        Who reports; whoever may write to the topic may use any name.
    ts_us : int
        When, microseconds.
    """

    schema_version: Literal[1]
    report_id: _Identifier
    account_id: _Identifier
    liquidation_id: _LiquidationId
    executor_id: _Identifier
    ts_us: _Time


class ClaimReport(_Report, frozen=True, kw_only=True, tag="claim"):
    """Asks for a share (ppm) of the offer of a revision, the newest of its case."""

    revision: _Number
    share_ppm: _Share


class ReleaseReport(_Report, frozen=True, kw_only=True, tag="release"):
    """Gives a claim back before it expires."""

    token: _Number


class AttemptReport(_Report, frozen=True, kw_only=True, tag="attempt"):
    """Says that orders were sent to a venue."""

    token: _Number | None = None


class FillReport(_Report, frozen=True, kw_only=True, tag="fill"):
    """Says which trade an attempt led to; the trade itself comes in ``trades.v1``."""

    trade_id: _Identifier
    token: _Number | None = None


class RejectReport(_Report, frozen=True, kw_only=True, tag="reject"):
    """Says why an offer was not taken."""

    reason: Why
    token: _Number | None = None


Report = ClaimReport | ReleaseReport | AttemptReport | FillReport | RejectReport

_report: Any = msgspec.json.Decoder(Report)


def decode_report(value: bytes | None) -> Report:
    """Return the report in a record of ``liquidation-reports.v1``.

    Raises
    ------
    ContractError
        With code `RejectCode.MALFORMED`, `UNSUPPORTED_VERSION` or `OUT_OF_CONTRACT`.
    """
    try:
        report: Report = _report.decode(value or b"")
    except FAULTS as fault:
        raise refusal(LIQUIDATION_REPORTS, value, fault) from None
    check_closely(LIQUIDATION_REPORTS, value, ())
    return report


def encode_report(report: Report) -> bytes:
    """Return a value of ``liquidation-reports.v1``."""
    return orjson.dumps(msgspec.to_builtins(report))
