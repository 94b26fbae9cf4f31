"""Status changes and liquidation cases: what follows when a unit was judged.

A case is one liquidation of one unit: ``account:subaccount:episode``, revisions from 1 without
gaps. Money in events is decimal text in the settlement currency.

===========  =====================  ==============================================================
event        reason                 when
===========  =====================  ==============================================================
opened       liquidatable,          the unit stands in liquidation, has positions and no case
             bankrupt
revised      bankrupt               the verdict escalated
             progress               a fill naming this case, and more is to be closed
             ledger_changed         another trade, a move, statement or settlement changed the unit
                                    and it is still liquidating
             rulebook               another rulebook judges from here on, it is still liquidating
             expired                the last offer's ``expires_us`` has come
             paused, halted,        a market was paused, halted or tripped a circuit breaker:
             breaker                nothing in it is offered any more
             resumed                offered again after a pause
             dry_run                a dry run began or ended; the offer says which
             released               an executor gave its claim back
             repriced               a claim came, but made anew the offer has nothing left for it
claimed      claim                  an executor claimed a share of the offer (`engine.claims`)
suspended    paused, halted,        a pause leaves nothing to offer; the first of a case that
             breaker                begins meanwhile. ``breaker``: but for breakers there would be
                                    something; ``halted``: trading has stopped in all its markets
escalated    deadline               nobody closed it in time: its positions are taken over at their
                                    bankruptcy prices (`solvent.engine.backstop`)
             insurance              nothing is left to close, and the fund is asked for the rest;
                                    the first of a case where collateral that was not sold has
                                    fallen below the debt of a unit that was liquidated before
closed       target_reached         a fill naming this case restored health(liquidation_end)
             insured                the fund paid what was missing
             socialised             all who have equity bore what the fund could not pay
             deleveraged            its positions were taken over, and nothing is missing
             exhausted              nothing is left to close; what is missing is ``bad_debt``
recovered    market, deposit,       health(liquidation_end) was restored by a mark frame, a
             trade, settings,       collateral move, a trade that is not the case's, a statement, or
             orders, snapshot,      the settlement of a contract at expiry, or a rulebook
             settlement, rulebook
===========  =====================  ==============================================================

While a pause leaves a unit nothing to offer (`solvent.engine.control`, `solvent.engine.breakers`)
its case is suspended: it ends as any case does, is not renewed, and is offered again when the pause
ends. Who pauses may change meanwhile: nothing is said of that.

An offer may be for less than its plan, and even for nothing (`solvent.engine.ration`): what is
withheld is told, and looked at again when the offer expires or is revised.

While a unit is `unknown` (its feed may not judge) an open case rests: no revision, no end, and no
new offer. What it offers is void once its ledger changes, or pauses of its markets do, and is
revised when the unit can be judged again (``expired``, or ``suspended``). A
quarantined account's case rests until a snapshot ends the quarantine: its offers expire and are not
renewed.

Beside each revision goes what stands of the case, to ``liquidation-state.v1``, where it takes the
place of the revision before; after the last it is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from solvent.domain.verdict import MarginFigures, Verdict
from solvent.engine.announce import Announcer, Batch, Ending
from solvent.engine.cases import CaseBook
from solvent.engine.claims import Asked, Claims
from solvent.engine.describe import CROSS_NAME, amounts_text
from solvent.engine.markbook import MarkBook
from solvent.engine.shard import Emit
from solvent.engine.waterfall import loss_record
from solvent.kernel.layout import (
    COUNT_UNITS,
    NEVER_US,
    STATUS_BANKRUPT_CLOSED,
    STATUS_HEALTHY,
    STATUS_LABELS,
    STATUS_LIQUIDATING,
    STATUS_MARGIN_CALL,
    STATUS_UNKNOWN,
    VERDICT_BANKRUPT,
    Int64,
)
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.wire.outputs import encode
from solvent.wire.reports import ClaimReport
from solvent.wire.topics import MARGIN_STATUS, MARKS

__all__ = ["Cause", "Desk"]

#: Cause -> why it closes a case.
_BACKSTOPPED: Final = {"insurance": "insured", "deleverage": "deleveraged"}


@dataclass(frozen=True, slots=True)
class Cause:
    """What made a unit be judged.

    Attributes
    ----------
    topic, offset : str, int
        The record.
    kind : str
        ``market``, ``deposit`` (any collateral move), ``trade``, ``settings``, ``orders``,
        ``snapshot``, ``settlement`` or ``rulebook``, the reason of a recovery; ``pause`` for a
        frame that changed the pauses, ``report`` for an executor's.
    is_ledger : bool
        Whether the record changed the unit's ledger, or the rulebook it is judged by.
    is_progress : bool
        Whether it is a trade that names the unit's case.
    """

    topic: str
    offset: int
    kind: str
    is_ledger: bool
    is_progress: bool = False


class Desk:
    """Writer of statuses and cases, and of the events they make.

    Parameters
    ----------
    partition : int
        Named in events.
    rulebook, columns, marks
        What is judged, by what.
    cases : CaseBook
        What is remembered of standing cases, the shard's.
    offsets : mapping of str to int
        Next offset of each input, kept current by the shard.
    records : list of Emit
        Where events go, the shard's.
    """

    def __init__(
        self,
        partition: int,
        rulebook: CompiledRulebook,
        columns: Columns,
        marks: MarkBook,
        cases: CaseBook,
        offsets: Mapping[str, int],
        records: list[Emit],
    ) -> None:
        self._partition = partition
        self._rulebook = rulebook
        self._columns = columns
        self._marks = marks
        self._cases = cases
        self._offsets = offsets
        self.announcer = Announcer(partition, rulebook, columns, marks, cases, offsets)
        #: Units whose case stood too long: their positions are to be taken over.
        self.overdue: list[int] = []
        self._records = records
        self._changed: list[int] = []  # accounts, of the batch being settled
        self._open_cases = 0
        self.count_cases()

    def count_cases(self) -> None:
        """Count the cases that stand in the columns, which somebody else has filled."""
        units = self._columns.units.revision[: self._columns.counts[COUNT_UNITS]]
        self._open_cases = int(np.count_nonzero(units))

    # -- what happens

    def settle(self, units: Int64, statuses: Sequence[int], cause: Cause) -> None:
        """Bring freshly judged units' statuses and cases to where they belong, in this order.

        Parameters
        ----------
        units : int64, shape (n,)
            Each once; their figures are current.
        statuses : sequence of int
            The status each calls for.
        cause : Cause
            Why they were judged.
        """
        batch = self.announcer.about(units, cause)
        for at, status in enumerate(statuses):
            self._settle(batch, at, status, cause)
        self._columns.mark_all_dirty(self._changed)
        self._changed.clear()

    def tell_watermark(self) -> None:
        """Say that all up to here is judged and told."""
        self._records.append(self.announcer.watermark(self._open_cases))

    def renew(self, unit: int, status: int, cause: Cause, claim: ClaimReport | None) -> bool:
        """Offer a unit's case anew for a claim, or without one since a claim was given back.

        Returns
        -------
        bool
            Whether the claim was granted; False without one.
        """
        case = self._cases.change(unit)
        claims = case.claims = case.claims or Claims()
        before = claims.tokens
        if claim is not None:
            claims.fence(claim.executor_id)
        batch = self.announcer.about(np.array([unit], np.int64), cause)
        reason = "released" if claim is None else "repriced"
        self._offer(batch, 0, status, "revised", reason, claim)
        self._columns.mark_all_dirty(self._changed)
        self._changed.clear()
        return claims.tokens > before

    def tell(self, units: Int64, statuses: Sequence[int], cause: Cause) -> None:
        """Tell of units of an account that is judged again and whose status does not change."""
        batch = self.announcer.about(units, cause)
        self._records.extend(
            batch.status_event(at, status, status)
            for at, status in enumerate(statuses)
            if status == batch.status[at]
        )

    def quarantine(self, account: int, cause: Cause) -> None:
        """Take an account that has just been quarantined out of judgement, and say so."""
        units = list(self._columns.units_of(account))
        if not units:
            self._emit_bare_status(account, cause)
            return
        self.settle(np.array(units, np.int64), [STATUS_UNKNOWN] * len(units), cause)

    def _settle(self, batch: Batch, at: int, status: int, cause: Cause) -> None:
        columns = self._columns
        units = columns.units
        unit, account, before = batch.unit[at], batch.account[at], batch.status[at]
        if status != before:
            if status == STATUS_UNKNOWN:
                units.previous_status[unit] = before
            units.status[unit] = status
            self._changed.append(account)
            self._records.append(batch.status_event(at, before, status))
        if batch.is_quarantined[at]:
            return
        revision = batch.revision[at]
        if status == STATUS_UNKNOWN:
            is_due = units.case_expires_us[unit] != NEVER_US  # else it waits for the end of a pause
            is_news = cause.is_ledger
            if cause.kind == "pause":
                is_news = batch.pause(at) is not None or batch.pause_news(at) is not None
            if revision and is_news and is_due:
                units.case_expires_us[unit] = 0  # revise as soon as it can be judged
                self._cases.budget.free(unit)
                self._changed.append(account)
            return
        if revision:
            self._continue_case(batch, at, status, cause)
        elif status == STATUS_LIQUIDATING and batch.can_close[at]:
            columns.cases.notional_micros[unit] = 0
            columns.cases.fills[unit] = 0
            self._cases.begin(unit, batch.now_us, self._due_us(batch.now_us))
            units.episode[unit] = batch.episode[at] + 1
            self._open_cases += 1
            if (pause := batch.pause(at)) is not None:
                self._withdraw(batch, at, status, "suspended", pause)
                return
            is_bankrupt = batch.verdict[at] == VERDICT_BANKRUPT
            reason = "bankrupt" if is_bankrupt else "liquidatable"
            self._offer(batch, at, status, "opened", reason)
        elif self._is_lost_later(batch, at, before, status, cause):
            self._cases.begin(unit, self._marks.stream_us, 0)
            units.episode[unit] = batch.episode[at] + 1
            self._open_cases += 1
            self._claim(batch, at, status)

    def _is_lost_later(self, batch: Batch, at: int, before: int, status: int, cause: Cause) -> bool:
        """Tell whether a unit that was liquidated has just fallen below 0 by the market alone.

        Nothing is left to close, but collateral that was not sold lost more than the debt it was
        for. Once it is below 0 what it loses further is not looked at.
        """
        if before == STATUS_UNKNOWN:
            before = int(self._columns.units.previous_status[batch.unit[at]])
        return (
            self._rulebook.insurance is not None
            and status == STATUS_BANKRUPT_CLOSED
            and before != STATUS_BANKRUPT_CLOSED
            and batch.episode[at] > 0
            and cause.topic == MARKS
        )

    def _continue_case(self, batch: Batch, at: int, status: int, cause: Cause) -> None:
        units = self._columns.units
        unit = batch.unit[at]
        case = self._cases[unit]
        if status in {STATUS_HEALTHY, STATUS_MARGIN_CALL}:
            if cause.is_progress:
                self._end(batch, at, status, "closed", "target_reached")
            elif cause.kind in _BACKSTOPPED:
                reason = "socialised" if case.socialised_micros else _BACKSTOPPED[cause.kind]
                self._end(batch, at, status, "closed", reason)
            else:
                reason = "market" if cause.kind == "pause" else cause.kind  # time has passed
                self._end(batch, at, status, "recovered", reason)
        elif case.is_claimed:
            return  # the fund has not answered yet
        elif not batch.can_close[at]:
            is_insured = self._rulebook.insurance is not None and not case.is_spent
            if is_insured and batch.raw_equity_micros[at] < 0:
                self._claim(batch, at, status)
            else:
                self._end(batch, at, status, "closed", "exhausted")
        elif (pause := batch.pause(at)) is not None:
            if units.case_expires_us[unit] != NEVER_US:
                self._withdraw(batch, at, status, "suspended", pause)
            elif units.case_verdict[unit] != batch.verdict[at]:
                units.case_verdict[unit] = batch.verdict[at]
                self._changed.append(batch.account[at])
        elif units.case_expires_us[unit] == NEVER_US:
            self._cases.change(unit).due_us = self._due_us(batch.now_us)
            self._offer(batch, at, status, "revised", "resumed")
        elif 0 < case.due_us <= batch.now_us and batch.has_positions[at]:
            self._withdraw(batch, at, status, "escalated", "deadline")
            self.overdue.append(unit)
        elif cause.kind == "pause" and (news := batch.pause_news(at)) is not None:
            self._offer(batch, at, status, "revised", news)
        elif batch.verdict[at] == VERDICT_BANKRUPT and units.case_verdict[unit] != VERDICT_BANKRUPT:
            self._offer(batch, at, status, "revised", "bankrupt")
        elif cause.is_progress:
            self._offer(batch, at, status, "revised", "progress")
        elif cause.is_ledger:
            reason = "rulebook" if cause.kind == "rulebook" else "ledger_changed"
            self._offer(batch, at, status, "revised", reason)
        elif units.case_expires_us[unit] <= batch.now_us:
            self._offer(batch, at, status, "revised", "expired")

    def _offer(
        self,
        batch: Batch,
        at: int,
        status: int,
        event: str,
        reason: str,
        claim: ClaimReport | None = None,
    ) -> None:
        """Emit an offer: the next revision of the unit's case."""
        units = self._columns.units
        unit = batch.unit[at]
        policy = self._rulebook.policies[batch.preset[at]]
        revision = batch.revision[at] + 1
        now_us = batch.now_us
        expires_us = now_us + policy.offer_ttl_us
        due_us = self._cases[unit].due_us
        if now_us < due_us:
            expires_us = min(expires_us, due_us)
        case = self._cases.change(unit)
        asked = None
        if case.claims is not None:
            lease = None if self._marks.is_dry_run else policy.lease
            case.claims.lapse(now_us, lease)
            if claim is not None and lease is not None:
                until_us = min(expires_us, now_us + lease.duration_us)
                asked = Asked(claim.executor_id, claim.report_id, claim.share_ppm, until_us)
                expires_us = until_us
            expires_us = case.claims.first_expiry(expires_us)
        units.revision[unit] = revision
        units.case_verdict[unit] = batch.verdict[at]
        units.case_expires_us[unit] = expires_us
        self._changed.append(batch.account[at])
        self._records.extend(
            batch.case_event(
                at,
                status,
                event,
                reason,
                episode=int(units.episode[unit]),
                revision=revision,
                case=case,
                expires_us=expires_us,
                asked=asked,
            )
        )

    def _due_us(self, now_us: int) -> int:
        """Return when a case that begins to be offered now is taken over, 0 for never."""
        insurance = self._rulebook.insurance
        if insurance is None or insurance.deleverage_after_us is None:
            return 0
        return now_us + insurance.deleverage_after_us

    def _claim(self, batch: Batch, at: int, status: int) -> None:
        """Ask the fund for what a closed account is below 0; its answer ends the case."""
        case = self._cases.change(batch.unit[at])
        case.is_claimed = True
        if self._columns.units.case_expires_us[batch.unit[at]] != NEVER_US:
            self._withdraw(batch, at, status, "escalated", "insurance")
        account_id, subaccount = batch.names(at)
        episode = int(self._columns.units.episode[batch.unit[at]])
        self._records.append(
            loss_record(
                self._partition,
                batch.now_us,
                "claim",
                liquidation_id=f"{account_id}:{subaccount}:{episode}",
                account_id=account_id,
                subaccount=subaccount,
                amount_micros=-batch.raw_equity_micros[at],
            )
        )

    def _withdraw(self, batch: Batch, at: int, status: int, event: str, reason: str) -> None:
        """Emit the next revision of the unit's case, in which nothing is offered."""
        units = self._columns.units
        unit = batch.unit[at]
        revision = batch.revision[at] + 1
        units.revision[unit] = revision
        units.case_verdict[unit] = batch.verdict[at]
        units.case_expires_us[unit] = NEVER_US
        self._changed.append(batch.account[at])
        self._records.extend(
            batch.case_event(
                at,
                status,
                event,
                reason,
                episode=int(units.episode[unit]),
                revision=revision,
                case=self._cases.change(unit),
                expires_us=None,
            )
        )

    def _end(self, batch: Batch, at: int, status: int, event: str, reason: str) -> None:
        """Emit the last revision of the unit's case and forget the case."""
        units, cases = self._columns.units, self._columns.cases
        unit = batch.unit[at]
        bad_debt_micros = None
        if event == "closed":
            is_lost = reason == "exhausted"
            bad_debt_micros = max(0, -batch.raw_equity_micros[at]) if is_lost else 0
        case = self._cases.end(unit)
        ending = Ending(
            int(cases.notional_micros[unit]),
            int(cases.fills[unit]),
            bad_debt_micros,
            case,
            batch.now_us,
        )
        self._records.extend(
            batch.case_event(
                at,
                status,
                event,
                reason,
                episode=batch.episode[at],
                revision=batch.revision[at] + 1,
                case=case,
                expires_us=None,
                ending=ending,
            )
        )
        self._open_cases -= 1
        units.revision[unit] = 0
        units.case_expires_us[unit] = 0
        units.case_verdict[unit] = 0
        cases.notional_micros[unit] = 0
        cases.fills[unit] = 0
        self._changed.append(batch.account[at])

    def _emit_bare_status(self, account: int, cause: Cause) -> None:
        """Say that an account without a single unit was quarantined."""
        columns = self._columns
        nothing = MarginFigures(
            equity_micros=(0, 0, 0),
            requirement_micros=(0, 0, 0),
            raw_equity_micros=0,
            verdict=Verdict.UNKNOWN,
        )
        record = {
            "schema_version": 1,
            "account_id": columns.id_of(account),
            "subaccount": CROSS_NAME,
            "partition": self._partition,
            "ts_us": self._marks.stream_us,
            "mark_seq": self._marks.seq,
            "status": STATUS_LABELS[STATUS_UNKNOWN],
            "previous_status": STATUS_LABELS[0],
            "verdict": Verdict.UNKNOWN.label,
            "quarantined": True,
            "flags": [],
            **amounts_text(nothing),
            "shortfall": "0",
            "deposit_to_clear": "0",
            **self._references(cause),
        }
        self._records.append(Emit(MARGIN_STATUS, columns.key_of(account), encode(record)))

    def _references(self, cause: Cause) -> dict[str, Any]:
        return {
            "trigger": {"topic": cause.topic, "offset": cause.offset},
            "inputs": dict(self._offsets),
            "rulebook": self._rulebook.reference,
        }
