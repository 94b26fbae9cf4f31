"""Status changes and liquidation cases: what follows when a unit was judged.

A case is one liquidation of one unit: ``account:subaccount:episode``, revisions from 1 without
gaps. Money in events is decimal text in the settlement currency.

===========  =====================  ==============================================================
event        reason                 when
===========  =====================  ==============================================================
opened       liquidatable,          the unit stands in liquidation, has positions and no case
             bankrupt
revised      bankrupt               the verdict escalated
             ledger_changed         a trade or move changed the unit and it is still liquidating
             expired                the last offer's ``expires_us`` has come
closed       target_reached         a fill naming this case restored health(liquidation_end)
             exhausted              nothing is left to close; what is missing is ``bad_debt``
recovered    market, deposit,       health(liquidation_end) was restored by a mark frame, a
             trade                  collateral move, or a trade that is not the case's
===========  =====================  ==============================================================

While a unit is `unknown` (its feed may not judge) an open case rests: no revision, no end, and no
new offer; when the unit can be judged again, a case whose ledger changed meanwhile is revised. A
quarantined account's case rests for good: its offers expire and are not renewed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from solvent.domain.sizing import plan_close
from solvent.domain.verdict import Level, MarginFigures, Verdict
from solvent.engine.describe import CROSS_NAME, Describer, amounts_text, money_text
from solvent.engine.markbook import MarkBook
from solvent.engine.shard import Emit
from solvent.kernel.layout import (
    STATUS_HEALTHY,
    STATUS_LABELS,
    STATUS_LIQUIDATING,
    STATUS_MARGIN_CALL,
    STATUS_UNKNOWN,
    VERDICT_BANKRUPT,
    VERDICT_LABELS,
)
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import format_scaled
from solvent.wire.outputs import encode
from solvent.wire.topics import LIQUIDATIONS, MARGIN_STATUS

__all__ = ["Cause", "Desk"]


@dataclass(frozen=True, slots=True)
class Cause:
    """What made a unit be judged.

    Attributes
    ----------
    topic, offset : str, int
        The record.
    kind : str
        ``market``, ``deposit`` (any collateral move) or ``trade``; the reason of a recovery.
    is_ledger : bool
        Whether the record changed the unit's ledger.
    case_episode : int
        Episode of the case a trade says it serves, -1 without.
    """

    topic: str
    offset: int
    kind: str
    is_ledger: bool
    case_episode: int = -1


class Desk:
    """Writer of statuses and cases, and of the events they make.

    Parameters
    ----------
    partition : int
        Named in events.
    rulebook, columns, marks
        What is judged, by what.
    offsets : mapping of str to int
        Next offset of each input, kept current by the shard.
    """

    def __init__(
        self,
        partition: int,
        rulebook: CompiledRulebook,
        columns: Columns,
        marks: MarkBook,
        offsets: Mapping[str, int],
    ) -> None:
        self._partition = partition
        self._rulebook = rulebook
        self._columns = columns
        self._marks = marks
        self._offsets = offsets
        self._describer = Describer(rulebook, columns, marks)
        self.records: list[Emit] = []

    # -- what happens

    def settle(self, unit: int, status: int, cause: Cause) -> None:
        """Bring a freshly judged unit's status and case to where they belong.

        Parameters
        ----------
        unit : int
            Its figures are current.
        status : int
            The status they call for.
        cause : Cause
            Why it was judged.
        """
        columns = self._columns
        units = columns.units
        account = int(units.account[unit])
        before = int(units.status[unit])
        if status != before:
            if status == STATUS_UNKNOWN:
                units.previous_status[unit] = before
            units.status[unit] = status
            columns.mark_dirty(account)
            self._emit_status(unit, before, cause)
        revision = int(units.revision[unit])
        if columns.accounts.quarantined[account]:
            return
        if status == STATUS_UNKNOWN:
            if revision and cause.is_ledger:
                units.case_expires_us[unit] = 0  # revise as soon as it can be judged
                columns.mark_dirty(account)
            return
        if revision:
            self._continue_case(unit, status, cause)
        elif status == STATUS_LIQUIDATING and units.position_count[unit]:
            units.episode[unit] += 1
            columns.cases.notional_micros[unit] = 0
            columns.cases.fills[unit] = 0
            is_bankrupt = columns.figures.verdict[unit] == VERDICT_BANKRUPT
            self._offer(unit, "opened", "bankrupt" if is_bankrupt else "liquidatable", cause)

    def quarantine(self, account: int, cause: Cause) -> None:
        """Take an account that has just been quarantined out of judgement, and say so."""
        units = list(self._columns.units_of(account))
        if not units:
            self._emit_bare_status(account, cause)
        for unit in units:
            self.settle(unit, STATUS_UNKNOWN, cause)

    def _continue_case(self, unit: int, status: int, cause: Cause) -> None:
        units = self._columns.units
        if status in {STATUS_HEALTHY, STATUS_MARGIN_CALL}:
            if cause.kind == "trade" and cause.case_episode == units.episode[unit]:
                self._end(unit, "closed", "target_reached", cause)
            else:
                self._end(unit, "recovered", cause.kind, cause)
        elif not units.position_count[unit]:
            self._end(unit, "closed", "exhausted", cause)
        elif (
            self._columns.figures.verdict[unit] == VERDICT_BANKRUPT
            and units.case_verdict[unit] != VERDICT_BANKRUPT
        ):
            self._offer(unit, "revised", "bankrupt", cause)
        elif cause.is_ledger:
            self._offer(unit, "revised", "ledger_changed", cause)
        elif units.case_expires_us[unit] <= self._marks.stream_us:
            self._offer(unit, "revised", "expired", cause)

    def _offer(self, unit: int, event: str, reason: str, cause: Cause) -> None:
        """Emit an offer: the next revision of the unit's case."""
        units = self._columns.units
        policy = self._rulebook.policies[units.preset[unit]]
        units.revision[unit] += 1
        units.case_verdict[unit] = self._columns.figures.verdict[unit]
        units.case_expires_us[unit] = self._marks.stream_us + policy.offer_ttl_us
        self._columns.mark_dirty(int(units.account[unit]))
        self._emit_case(unit, event, reason, cause, self._legs(unit), None)

    def _end(self, unit: int, event: str, reason: str, cause: Cause) -> None:
        """Emit the last revision of the unit's case and forget the case."""
        units, cases = self._columns.units, self._columns.cases
        units.revision[unit] += 1
        ending: dict[str, Any] = {
            "liquidated_notional": money_text(int(cases.notional_micros[unit])),
            "fills": int(cases.fills[unit]),
        }
        if event == "closed":
            raw_equity = int(self._columns.figures.raw_equity_micros[unit])
            is_lost = reason == "exhausted"
            ending["bad_debt"] = money_text(max(0, -raw_equity) if is_lost else 0)
        self._emit_case(unit, event, reason, cause, [], ending)
        units.revision[unit] = 0
        units.case_expires_us[unit] = 0
        units.case_verdict[unit] = 0
        cases.notional_micros[unit] = 0
        cases.fills[unit] = 0
        self._columns.mark_dirty(int(units.account[unit]))

    # -- what is said

    def _legs(self, unit: int) -> list[dict[str, Any]]:
        """Return the orders that restore health(liquidation_end), as they are published."""
        units = self._columns.units
        figures = self._describer.figures(unit)
        legs = plan_close(
            self._describer.open_positions(unit),
            self._rulebook.policies[units.preset[unit]],
            shortage_micros=figures.shortage_micros,
            raw_equity_micros=figures.raw_equity_micros,
            maintenance_micros=figures.requirement_micros[Level.MAINTENANCE],
        )
        return [
            {
                "market": leg.instrument.name,
                "side": leg.side,
                "size": leg.instrument.lot.format(leg.size_lots),
                "mark_price": format_scaled(leg.mark_price, leg.instrument.price_exponent),
                "limit_price": format_scaled(leg.limit_price, leg.instrument.price_exponent),
                "bankruptcy_price": format_scaled(
                    leg.bankruptcy_price, leg.instrument.price_exponent
                ),
                "fund_fee_ppm": leg.fund_fee_ppm,
            }
            for leg in legs
        ]

    def _emit_case(
        self,
        unit: int,
        event: str,
        reason: str,
        cause: Cause,
        legs: list[dict[str, Any]],
        ending: dict[str, Any] | None,
    ) -> None:
        columns = self._columns
        units = columns.units
        figures = self._describer.figures(unit)
        account_id = columns.id_of(int(units.account[unit]))
        subaccount = self._describer.subaccount(unit)
        episode = int(units.episode[unit])
        record = {
            "schema_version": 1,
            "liquidation_id": f"{account_id}:{subaccount}:{episode}",
            "revision": int(units.revision[unit]),
            "event": event,
            "reason": reason,
            "account_id": account_id,
            "subaccount": subaccount,
            "episode": episode,
            "partition": self._partition,
            "ts_us": self._marks.stream_us,
            "expires_us": None if ending else int(units.case_expires_us[unit]),
            "verdict": figures.verdict.label,
            "status": STATUS_LABELS[units.status[unit]],
            "mark_seq": self._marks.seq,
            **amounts_text(figures),
            "shortfall": money_text(figures.shortage_micros),
            "positions": self._describer.positions(unit),
            "collateral": self._describer.collateral(unit),
            "legs": legs,
            **self._references(cause),
            **(ending or {}),
        }
        self.records.append(Emit(LIQUIDATIONS, account_id.encode(), encode(record)))

    def _emit_status(self, unit: int, before: int, cause: Cause) -> None:
        columns = self._columns
        units = columns.units
        account = int(units.account[unit])
        figures = self._describer.figures(unit)
        clear_ppm = int(self._rulebook.rules.clear_ppm[units.preset[unit]])
        record = {
            "schema_version": 1,
            "account_id": columns.id_of(account),
            "subaccount": self._describer.subaccount(unit),
            "partition": self._partition,
            "ts_us": self._marks.stream_us,
            "mark_seq": self._marks.seq,
            "status": STATUS_LABELS[units.status[unit]],
            "previous_status": STATUS_LABELS[before],
            "verdict": VERDICT_LABELS[columns.figures.verdict[unit]],
            "quarantined": bool(columns.accounts.quarantined[account]),
            "flags": self._describer.flags(unit),
            **amounts_text(figures),
            "shortfall": money_text(figures.shortfall_micros),
            "deposit_to_clear": money_text(figures.deposit_to_clear_micros(clear_ppm)),
            **self._references(cause),
        }
        self.records.append(Emit(MARGIN_STATUS, columns.key_of(account), encode(record)))

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
        self.records.append(Emit(MARGIN_STATUS, columns.key_of(account), encode(record)))

    def _references(self, cause: Cause) -> dict[str, Any]:
        return {
            "trigger": {"topic": cause.topic, "offset": cause.offset},
            "inputs": dict(self._offsets),
            "rulebook": self._rulebook.reference,
        }
