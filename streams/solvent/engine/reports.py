"""Reports of executors, held against the cases they name; a report moves no money.

So a report that is refused leaves no account in doubt: it goes to ``rejects.v1``, and nobody is
quarantined. First failure wins:

=============================================================================  ==========
it decodes (`solvent.wire.reports`)                                            SLV-101, 102, 103
its ``report_id`` is not a repeat in the duplicate window                      counted, no reject
the record's key is its account                                                SLV-105
its event time is not in the future of its Kafka time                          SLV-107
``liquidation_id`` is of that account, and the case stands                     SLV-214
a claim or release: the rulebook leases                                        SLV-213
any but a claim: its token, where it has or needs one, is one of the case's,   SLV-218
of a release: one of a claim of its executor that stands
a claim: its revision is the newest of the case                                SLV-215
a claim: something is offered, judged, not for show                            SLV-216
a claim: its executor fills what it claims                                     SLV-217
a claim: not all of the offer is claimed                                       SLV-216
=============================================================================  ==========

Under a lease every report but a claim needs a token; without one what tokens say is ignored.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from solvent.domain.schedule import Lease
from solvent.engine.cases import Case, CaseBook
from solvent.engine.claims import Claims
from solvent.engine.describe import CROSS_NAME
from solvent.engine.intake import Fault
from solvent.engine.markbook import MarkBook
from solvent.engine.shard import InputRecord
from solvent.engine.statements import SnapshotIds
from solvent.errors import ContractError, RejectCode
from solvent.kernel.layout import CROSS, NEVER_US, STATUS_LIQUIDATING
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.wire.inputs import best_effort_account_id
from solvent.wire.reports import ClaimReport, ReleaseReport, Report, decode_report
from solvent.wire.topics import LIQUIDATION_REPORTS

__all__ = ["Renewal", "ReportReader", "hold_report"]

_MS_US: Final = 1_000


class Renewal(NamedTuple):
    """A unit whose offer is to be made anew: for a claim, or without one for a release."""

    unit: int
    claim: ClaimReport | None


class ReportReader:
    """Reader of one partition's reports."""

    def __init__(self) -> None:
        self._seen = SnapshotIds()

    def remember(self, record: InputRecord) -> None:
        """Enter the id of a report below the fence, nothing else."""
        try:
            report = decode_report(record.value)
        except ContractError:
            return
        self._seen.was_seen(report.account_id, report.report_id, record.offset)

    def read(self, record: InputRecord, max_future_us: int) -> Report | Fault | None:
        """Return a report, why it is refused, or None for a repeat."""
        try:
            report = decode_report(record.value)
        except ContractError as error:
            named = best_effort_account_id(record.value, record.key)
            return Fault(error.code, error.message, named)
        account_id = report.account_id
        if self._seen.was_seen(account_id, report.report_id, record.offset):
            return None
        if record.key != account_id.encode():
            shown = "null" if record.key is None else ascii(record.key)[:80]
            message = f"record key {shown}: `account_id` {account_id!r} expected"
            return Fault(RejectCode.WRONG_KEY, message, account_id)
        limit_us = record.timestamp * _MS_US + max_future_us
        if report.ts_us > limit_us:
            message = (
                f"{LIQUIDATION_REPORTS} `ts_us` = {report.ts_us}: at most {limit_us}, its Kafka "
                "time and the skew"
            )
            return Fault(RejectCode.FUTURE, message, account_id)
        return report


def hold_report(
    report: Report, rulebook: CompiledRulebook, columns: Columns, marks: MarkBook, cases: CaseBook
) -> Fault | Renewal | None:
    """Take note of a report; return why not, or what must be offered anew for it."""
    account_id, what = report.account_id, f"report {report.report_id} of {report.liquidation_id}"

    def refused(code: RejectCode, why: str) -> Fault:
        return Fault(code, f"{what}: {why}", account_id)

    owner, subaccount, episode = report.liquidation_id.split(":")
    if owner != account_id:
        return refused(RejectCode.NO_CASE, f"of account {owner}, {account_id} expected")
    found = _standing(rulebook, columns, cases, account_id, subaccount, episode)
    if found is None:
        return refused(RejectCode.NO_CASE, "no such case stands")
    unit, case = found
    lease = rulebook.policies[columns.units.preset[unit]].lease
    claims = case.claims or Claims()
    if isinstance(report, ClaimReport | ReleaseReport) and lease is None:
        return refused(RejectCode.NO_LEASE, "the rulebook leases no offers")
    if isinstance(report, ClaimReport):
        assert lease is not None
        why = _refusal(report, unit, columns, marks, case, claims, lease)
        return Renewal(unit, report) if why is None else refused(*why)
    if lease is not None and (report.token is None or report.token > claims.tokens):
        shown = "no token" if report.token is None else f"token {report.token}"
        return refused(RejectCode.NOT_ITS_CLAIM, f"{shown}: 1 to {claims.tokens} were given")
    if isinstance(report, ReleaseReport):
        if not claims.release(report.token, report.executor_id):
            why_not = f"token {report.token}: no claim of {report.executor_id} that stands"
            return refused(RejectCode.NOT_ITS_CLAIM, why_not)
        cases.change(unit)
        columns.mark_dirty(int(columns.units.account[unit]))
        return None if _is_at_rest(unit, columns, marks) else Renewal(unit, None)
    case = cases.change(unit)
    case.claims = claims
    claims.note(type(report).__struct_config__.tag)  # type: ignore[arg-type]
    columns.mark_dirty(int(columns.units.account[unit]))
    return None


def _standing(
    rulebook: CompiledRulebook,
    columns: Columns,
    cases: CaseBook,
    account_id: str,
    subaccount: str,
    episode: str,
) -> tuple[int, Case] | None:
    """Return a unit and its case, if that case stands."""
    book = CROSS
    if subaccount != CROSS_NAME:
        instrument = rulebook.instrument_by_name.get(subaccount)
        if instrument is None:
            return None
        book = instrument.index
    unit = columns.unit_of(account_id, book)
    units = columns.units
    if unit is None or not units.revision[unit] or str(units.episode[unit]) != episode:
        return None
    return unit, cases[unit]


def _refusal(
    report: ClaimReport,
    unit: int,
    columns: Columns,
    marks: MarkBook,
    case: Case,
    claims: Claims,
    lease: Lease,
) -> tuple[RejectCode, str] | None:
    """Return why a claim cannot be granted, None if something of the offer is free for it."""
    units = columns.units
    newest = int(units.revision[unit])
    if report.revision != newest:
        return RejectCode.STALE_CLAIM, f"revision {report.revision}, the newest is {newest}"
    if marks.is_dry_run:
        return RejectCode.NOTHING_TO_CLAIM, "the offer is for show"
    if _is_at_rest(unit, columns, marks) or not case.orders:
        return RejectCode.NOTHING_TO_CLAIM, "nothing is offered"
    return claims.refusal(report.executor_id, case.orders, marks.stream_us, lease)


def _is_at_rest(unit: int, columns: Columns, marks: MarkBook) -> bool:
    """Return whether a case can not be offered anew: unknown, quarantined, suspended, expired."""
    units = columns.units
    return bool(
        units.status[unit] != STATUS_LIQUIDATING
        or columns.accounts.quarantined[units.account[unit]]
        or units.case_expires_us[unit] == NEVER_US
        or units.case_expires_us[unit] <= marks.stream_us
    )
