"""The margin shard: what is told of accounts, and mark frames, in; account rows and events out.

State of one partition: `solvent.state.columns` (ledger, statuses, cases), the marks in force, the
duplicate windows, counters. Amounts are exact integers at rest; time is the stream's (``ts_us`` of
the last mark frame). Pure: the same records in the same order give the same bytes, however they
are framed and wherever a slice is cut.

Until the first mark frame nobody is judged. Rows of changed accounts, the marks row and
`Outputs.state` together restore a shard exactly; what they do not hold, the duplicate windows, is
read again from the log (`remember`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from solvent import kernel
from solvent.engine.backstop import Backstop
from solvent.engine.cases import CaseBook, Fill
from solvent.engine.describe import Describer
from solvent.engine.intake import Fault, Intake
from solvent.engine.liquidation import Cause, Desk
from solvent.engine.markbook import MARKS_ROW_KEY, MarkBook
from solvent.engine.postings import Poster
from solvent.engine.published import RULEBOOK_ROW_KEY, restored_rulebook, rulebook_row
from solvent.engine.rejects import reject
from solvent.engine.reports import Renewal, ReportReader, hold_report
from solvent.engine.restate import apply_orders, apply_settings, apply_snapshot, ended_market
from solvent.engine.rows import Rows
from solvent.engine.run import Run
from solvent.engine.severity import Standing, by_severity
from solvent.engine.shard import Emit, InputRecord, Outputs, Pending, ShardFacts
from solvent.engine.statements import Orders, Refusal, Settings, Snapshot, StatementReader
from solvent.engine.surface import mark_price_of
from solvent.engine.turnover import Turnover
from solvent.engine.window import WINDOW_OFFSETS
from solvent.errors import ConfigError, InvariantError, PartitionError, RejectCode
from solvent.kernel.layout import (
    COUNT_ACCOUNTS,
    COUNT_DIRTY,
    COUNT_UNITS,
    MAINTENANCE,
    NONE,
    OUTCOME_APPLIED,
    OUTCOME_DUPLICATE,
    OUTCOME_EXPIRED,
    OUTCOME_NONE,
    OUTCOME_OVERFLOW,
    OUTCOME_QUARANTINE,
    OUTCOME_REJECTED,
    OUTCOME_SEQUENCE_GAP,
    STATUS_LABELS,
    STOP_END,
    STOP_GROW,
    STOP_QUARANTINE,
    STOP_REPORT,
    VERDICT_BANKRUPT,
    Int32,
    Int64,
    Moves,
    Trades,
)
from solvent.kernel.ledger import (
    TOTAL_FEES,
    TOTAL_SLOTS,
    check_sequence,
    find_holders_jit,
    fold_moves_jit,
    fold_trades_jit,
    judge_unit_jit,
    needs_python,
    refresh_withdrawal_flag,
    settle_contract_jit,
    total_count,
)
from solvent.rules import CompiledRulebook, check_successor, compile_document
from solvent.state import restored, rows
from solvent.state.columns import Columns
from solvent.state.restored import RestoredRows
from solvent.state.safe_moves import SafeMoves
from solvent.wire.inputs import decode_trade
from solvent.wire.losses import LossAnswer
from solvent.wire.reports import ClaimReport
from solvent.wire.topics import (
    ACCOUNT_SETTINGS,
    ACCOUNT_SNAPSHOTS,
    ACCOUNTS,
    COLLATERAL,
    LIQUIDATION_REPORTS,
    MARKS,
    OPEN_ORDERS,
    TRADES,
)

__all__ = ["MarginShard", "warm_up"]

#: Stream time between watermarks: the first frame of each second tells one.
_WATERMARK_US: Final = 1_000_000
_COUNTERS: Final = (
    "trades",
    "moves",
    "frames",
    "duplicate_trades",
    "duplicate_moves",
    "repeated_frames",
    "rejects",
)
#: Topic of statements -> how it is called as a cause, and what its counters are named after.
_STATEMENTS: Final = {
    ACCOUNT_SETTINGS: "settings",
    OPEN_ORDERS: "orders",
    ACCOUNT_SNAPSHOTS: "snapshot",
}
#: Answers for which every unit is looked at.
_ASK_ALL: Final = frozenset({"weigh", "socialise"})
#: Topic -> column of its sequence.
_SEQUENCES: Final = {
    TRADES: "trades_seq",
    COLLATERAL: "collateral_seq",
    ACCOUNT_SETTINGS: "settings_seq",
    OPEN_ORDERS: "orders_seq",
}


class MarginShard:
    """State of one partition of the margin agent (`solvent.engine.shard.Shard`).

    Parameters
    ----------
    partition : int
        Named in events and rejects.
    rulebook : CompiledRulebook
        Rules in force; its settlement asset's quantum is one micro.
    """

    lookback: Mapping[str, int] = dict.fromkeys(
        (TRADES, COLLATERAL, ACCOUNT_SNAPSHOTS, LIQUIDATION_REPORTS), WINDOW_OFFSETS
    )

    def __init__(self, partition: int, rulebook: CompiledRulebook) -> None:
        self.partition = partition
        self.columns = Columns(rulebook.default_preset)
        self._intake = Intake(rulebook, self.columns)
        self._statements = StatementReader(rulebook)
        self._reports = ReportReader()
        # Topics of statements and reports, and their counts, join when their first record is read.
        self._offsets = {TRADES: 0, COLLATERAL: 0, MARKS: 0}
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._rejects_by_code: dict[str, int] = {}
        self._records: list[Emit] = []
        #: Whether cases that stood too long are taken over; an explanation looks before that.
        self.takes_over = True
        self._cases = CaseBook()
        self._turnover = Turnover()
        self._watermarks = 0  # of those: what is told again if its frames are applied again
        self._restored = RestoredRows(self.columns)
        self._marks_row: bytes | None = None
        self._marks_changed = False
        self._rulebook_row: bytes | None = None
        self._rulebook_changed = False
        self._adopt(rulebook)
        self._totals = np.zeros(total_count(rulebook.rules), np.int64)

    def _adopt(self, rulebook: CompiledRulebook) -> None:
        """Judge by a rulebook; nothing is known of the marks yet, and all units are to be judged.

        What is made of the rulebook is made anew, and of what the shard holds only that: amounts
        and indices mean the same under a successor (`solvent.rules.succession`).
        """
        self.rulebook = rulebook
        self._space = rulebook.workspace()
        self.columns.default_preset = rulebook.default_preset
        if any(instrument.funding_feed is not None for instrument in rulebook.instruments):
            self.columns.is_funded = True
        self.marks = MarkBook(rulebook)
        self._intake.adopt(rulebook)
        self._turnover.adopt(rulebook.volume_markets)
        self._cases.budget.adopt([p.window for p in rulebook.policies if p.window is not None])
        self._statements.adopt(rulebook)
        self._instrument_ids = np.array([i.id for i in rulebook.instruments], np.int64)
        self._desk = Desk(
            self.partition,
            rulebook,
            self.columns,
            self.marks,
            self._cases,
            self._offsets,
            self._records,
        )
        self._backstop: Backstop | None = None  # made of the totals, which come later
        self.safe_moves = SafeMoves(len(rulebook.feeds))

    # -- the Shard interface

    @property
    def rules(self) -> Mapping[str, Any]:
        """``id``, ``version`` and ``hash`` of the rulebook in force."""
        return self.rulebook.reference

    @property
    def pending(self) -> Pending:
        """What was brought about since the last cut."""
        if len(self._records) > self._watermarks:
            return Pending.NEWS
        has_rows = self._rulebook_changed or self.columns.counts[COUNT_DIRTY]
        return Pending.ROWS if has_rows else Pending.MARKS

    def apply(self, topic: str, records: Sequence[InputRecord]) -> None:
        """Fold a run of records of one input topic, in order."""
        if not records:
            return
        if topic == TRADES:
            self._apply_trades(Run.of(records))
        elif topic == COLLATERAL:
            self._apply_moves(Run.of(records))
        elif topic == MARKS:
            for record in records:
                self._apply_frame(record)
        elif topic in _STATEMENTS:
            for record in records:
                self._apply_statement(topic, record)
        elif topic == LIQUIDATION_REPORTS:
            for record in records:
                self._apply_report(record)
        else:
            msg = f"topic {topic}: not an input of the margin shard"
            raise InvariantError(msg)

    def cut(self) -> Outputs:
        """Return what was changed since the last cut and start a new slice."""
        changed = self.columns.take_dirty()
        out = Rows(*rows.encode_rows(self.columns, changed, self._instrument_ids))
        if case_rows := self._cases.take_rows(self.columns):
            out = out.joined(Rows.of(case_rows))
        if self._marks_changed:
            out = out.joined(Rows.of([(MARKS_ROW_KEY, self.marks.row())]))
        if self._rulebook_changed:
            out = out.joined(Rows.of([(RULEBOOK_ROW_KEY, rulebook_row(self.rulebook))]))
        records = self._records.copy()
        self._records.clear()
        self._watermarks = 0
        self._marks_changed = self._rulebook_changed = False
        return Outputs(
            rows=out, records=records, state=self._state(), rules=self.rulebook.reference
        )

    def load(self, rows: Run) -> None:
        """Take rows of the table during restore, oldest first.

        Raises
        ------
        PartitionError
            An account's row was deleted.
        """
        self._restored.take(
            rows.data, rows.key_first, rows.key_size, rows.value_first, rows.value_size
        )
        self._cases.load(rows)
        marks_row = rows.last_of(MARKS_ROW_KEY)
        if marks_row is not None:
            self._marks_row = marks_row.value
        published = rows.last_of(RULEBOOK_ROW_KEY)
        if published is not None:
            self._rulebook_row = published.value

    def resume(self, positions: Mapping[str, int], state: Mapping[str, Any]) -> None:
        """Finish a restore.

        Raises
        ------
        ConfigError
            The state was built under another rulebook than this worker's, and none was published.
        PartitionError
            A row cannot be read.
        """
        if state:
            where = f"{ACCOUNTS} partition {self.partition}"
            built_hash = state["rulebook"]["hash"]
            rulebook = restored_rulebook(self.rulebook, self._rulebook_row, built_hash, where)
            if rulebook.hash != self.rulebook.hash:
                self._adopt(rulebook)
            self._counts.update(state["counts"])
            self._rejects_by_code.update(state["rejects"])
            self._turnover.load(state.get("liquidated", {}))
            self._cases.budget.throttle.load(state.get("exhausted", []))
            self._take_totals(state)
        for topic in state["offsets"] if state else list(self._offsets):
            known = state["offsets"][topic] if state else positions.get(topic, 0)
            self._offsets[topic] = known
        if self._marks_row is not None:
            self.marks.load(self._marks_row)
        if state:
            self.marks.seq = state["mark_seq"]
            self.marks.stream_us = state["stream_us"]
        self._restored.unpack(
            instrument_ids=self._instrument_ids,
            asset_count=len(self.rulebook.assets),
            preset_count=len(self.rulebook.policies),
        )
        self._cases.resume(self.columns, self.marks.stream_us)
        self._desk.count_cases()

    def remember(self, topic: str, records: Sequence[InputRecord]) -> None:
        """See input records below the fence again, to rebuild the duplicate window."""
        if topic == ACCOUNT_SNAPSHOTS:
            for record in records:
                self._statements.remember(record)
        elif topic == LIQUIDATION_REPORTS:
            for record in records:
                self._reports.remember(record)
        else:
            self._intake.remember(topic, records)

    # -- folding

    def _apply_trades(self, run: Run) -> None:
        batch = self._intake.read_trades(run)
        trades = batch.trades
        columns, marks = self.columns, self.marks
        at = 0
        reason = STOP_GROW
        while reason != STOP_END:
            done, reason, subject = fold_trades_jit(
                trades,
                at,
                marks.seq > 0,
                self._totals,
                columns.counts,
                columns.accounts,
                columns.units,
                columns.cases,
                columns.positions,
                columns.balances,
                columns.orders,
                self.rulebook.rules,
                marks.marks,
                self._space,
                columns.figures,
            )
            is_progress = self._report(TRADES, run, batch.record_of, trades, at, done)
            self._consider(TRADES, reason, subject, "trade", is_progress)
            at = done
        self._counts["trades"] += len(run)

    def _apply_moves(self, run: Run) -> None:
        batch = self._intake.read_moves(run)
        moves = batch.moves
        columns, marks = self.columns, self.marks
        at = 0
        reason = STOP_GROW
        while reason != STOP_END:
            done, reason, subject = fold_moves_jit(
                moves,
                at,
                marks.seq > 0,
                columns.counts,
                columns.accounts,
                columns.units,
                columns.cases,
                columns.positions,
                columns.balances,
                columns.orders,
                self.rulebook.rules,
                marks.marks,
                self._space,
                columns.figures,
            )
            self._report(COLLATERAL, run, batch.record_of, moves, at, done)
            self._consider(COLLATERAL, reason, subject, "deposit")
            at = done
        self._counts["moves"] += len(run)

    def _apply_statement(self, topic: str, record: InputRecord) -> None:
        self._offsets[topic] = record.offset + 1
        kind = _STATEMENTS[topic]
        self._count(kind)
        read = self._statements.read(topic, record)
        if isinstance(read, Refusal):
            self._refuse(topic, record, read)
        elif read is None:
            self._count(f"duplicate_{kind}")
        else:
            account_id, stated = read
            account = self.columns.add_account(account_id)
            last = NONE
            if topic in _SEQUENCES:
                last = int(getattr(self.columns.accounts, _SEQUENCES[topic])[account])
            outcome = int(check_sequence(stated.seq, last))
            over = ended_market(self.rulebook, self.marks, stated)
            if outcome == OUTCOME_DUPLICATE:
                self._count(f"duplicate_{kind}")
            elif outcome == OUTCOME_NONE and over is not None:
                message = f"{topic} `market` = {over!r}: it has expired or was settled"
                fault = Fault(RejectCode.EXPIRED, message, account_id)
                self._refuse(topic, record, Refusal(fault=fault, account_ids=(account_id,)))
            elif outcome == OUTCOME_NONE:
                self._restate(account, stated, Cause(topic, record.offset, kind, True))
            else:
                fault = self._state_fault(topic, outcome, account, stated.seq)
                self._refuse(topic, record, Refusal(fault=fault, account_ids=(account_id,)))

    def _apply_report(self, record: InputRecord) -> None:
        self._offsets[LIQUIDATION_REPORTS] = record.offset + 1
        self._count("report")
        report = self._reports.read(record, self.rulebook.max_future_us)
        if report is None:
            self._count("duplicate_report")
            return
        held: Fault | Renewal | None
        if isinstance(report, Fault):
            held = report
        else:
            held = hold_report(report, self.rulebook, self.columns, self.marks, self._cases)
        if isinstance(held, Renewal):
            cause = Cause(LIQUIDATION_REPORTS, record.offset, "report", False)
            status = self._judge(held.unit)
            is_granted = self._desk.renew(held.unit, status, cause, held.claim)
            held = None
            if not is_granted and isinstance(report, ClaimReport):
                what = f"report {report.report_id} of {report.liquidation_id}"
                message = f"{what}: offered anew, nothing is left that is not claimed"
                held = Fault(RejectCode.NOTHING_TO_CLAIM, message, report.account_id)
        if held is not None:
            self._reject(LIQUIDATION_REPORTS, record, held, False)

    def _count(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1

    def _restate(self, account: int, stated: Settings | Orders | Snapshot, cause: Cause) -> None:
        """Apply a statement and settle the units that it may concern."""
        columns = self.columns
        was_quarantined = bool(columns.accounts.quarantined[account])
        if isinstance(stated, Settings):
            found = apply_settings(columns, account, stated)
        elif isinstance(stated, Orders):
            found = apply_orders(columns, account, stated)
        else:
            found = apply_snapshot(columns, self.rulebook, self.marks, account, stated)
        is_quarantined = bool(columns.accounts.quarantined[account])
        is_released = was_quarantined and not is_quarantined
        news: dict[int, int] = {}
        for unit in found:
            status = self._judge(unit)
            if self.marks.seq:
                refresh_withdrawal_flag(unit, False, columns.units, columns.figures)
            elif is_released:
                status = int(columns.units.previous_status[unit])
            if is_released or needs_python(
                unit,
                status,
                is_quarantined,
                columns.units,
                columns.balances,
                self.rulebook.rules,
            ):
                news[unit] = status
        if news:
            units = np.array(list(news), np.int64)
            if is_released:
                self._desk.tell(units, list(news.values()), cause)
            self._settle(units, list(news.values()), cause)

    # -- fills of cases

    def _fill(self, trades: Trades, row: int, record: InputRecord) -> Fill:
        """Return what a trade that names a case of its unit did, in micros at fill and mark."""
        account, book = int(trades.account[row]), int(trades.book[row])
        unit = self.columns.unit_of(self.columns.id_of(account), book)
        assert unit is not None  # the trade was applied to it
        instrument = self.rulebook.instruments[int(trades.instrument[row])]
        lots = int(trades.lots[row])
        price = int(trades.price_ticks[row]) * instrument.tick_price
        mark_price = price
        if self.marks.seq:
            mark_price = mark_price_of(self.rulebook, self.marks, instrument) or price
        policy = self.rulebook.policies[self.columns.units.preset[unit]]
        return Fill(
            episode=int(trades.case_episode[row]),
            unit=unit,
            instrument=instrument.index,
            lots=lots,
            price=price,
            tick_price=instrument.tick_price,
            value_micros=instrument.value_of(abs(lots), price, mark_price),
            mark_micros=instrument.value_of(abs(lots), mark_price, mark_price),
            ts_us=int(trades.ts_us[row]),
            claim_token=None if policy.lease is None else decode_trade(record.value).claim_token,
        )

    def _serves_case(self, record: InputRecord, fill: Fill) -> bool:
        """Hold a fill against the case it names; tell if it does not count, return if it stands."""
        units = self.columns.units
        policy = self.rulebook.policies[units.preset[fill.unit]]
        fault = self._cases.hold(fill, units, self.marks.stream_us, policy)
        if isinstance(fault, int):
            market = self.rulebook.instruments[fill.instrument].name
            self._turnover.add(market, fill.mark_micros)
            if fault and self.rulebook.insurance is not None:
                self.backstop.collect(fill, fault)
            return True
        account_id = self.columns.id_of(units.account[fill.unit])
        market = self.rulebook.instruments[fill.instrument].name
        code, what = fault
        message = f"fill of account {account_id} in {market} for episode {fill.episode} {what}"
        self._reject(TRADES, record, Fault(code, message, account_id), False, is_applied=True)
        return code is not RejectCode.LATE_FILL

    def _consider(
        self, topic: str, reason: int, subject: int, kind: str, is_progress: bool = False
    ) -> None:
        """Do what a fold stopped for."""
        if reason in {STOP_END, STOP_REPORT}:
            return
        if reason == STOP_GROW:
            self.columns.make_room(subject)
            return
        cause = Cause(topic, self._offsets[topic] - 1, kind, True, is_progress)
        if reason == STOP_QUARANTINE:
            self._quarantine(subject, cause)
        else:
            self._settle(np.array([subject], np.int64), [self._judge(subject)], cause)

    def _settle(self, units: Int64, statuses: Sequence[int], cause: Cause) -> None:
        """Settle freshly judged units, and take over what nobody closed in time."""
        desk = self._desk
        desk.settle(units, statuses, cause)
        if desk.overdue and self.takes_over:
            overdue = np.array(desk.overdue, np.int64)
            desk.overdue.clear()
            for unit in overdue.tolist():
                self.backstop.take_over(unit)
            closing = Cause(cause.topic, cause.offset, "deleverage", True)
            self._settle(overdue, [self._judge(unit) for unit in overdue.tolist()], closing)

    @property
    def backstop(self) -> Backstop:
        """What this shard does for the insurance fund."""
        if self._backstop is None:
            poster = Poster(self.rulebook, self.columns, self.marks, self._space, self._totals)
            self._backstop = Backstop(
                self._desk.announcer, self._cases, poster, self._records, self._judge
            )
        return self._backstop

    def _quarantine(self, account: int, cause: Cause) -> None:
        for unit in self.columns.units_of(account):
            self._judge(unit)
        self._desk.quarantine(account, cause)

    def _judge(self, unit: int) -> int:
        """Evaluate one unit and return its next status."""
        columns = self.columns
        account = columns.units.account[unit]
        status: int = judge_unit_jit(
            unit,
            bool(columns.accounts.quarantined[account]),
            self.marks.seq > 0,
            columns.units,
            columns.positions,
            columns.balances,
            columns.orders,
            self.rulebook.rules,
            self.marks.marks,
            self._space,
            columns.figures,
        )
        return status

    # -- marks

    def _apply_frame(self, record: InputRecord) -> None:
        self._offsets[MARKS] = record.offset + 1
        before_us = self.marks.stream_us
        if not self.marks.apply(record.value):
            self._counts["repeated_frames"] += 1
            return
        self._counts["frames"] += 1
        self._marks_changed = True
        liquidated = self._turnover.tell(self.partition, self.marks.stream_us)
        if liquidated is not None:
            self._records.append(liquidated)
        for instrument, price in self.marks.settling:
            self._settle_contract(instrument, price, record.offset)
        is_succeeded = self.marks.published is not None and self._succeed(self.marks.published)
        asks_all = any(answer.kind in _ASK_ALL for answer in self.marks.losses)
        if self.marks.pauses_changed or asks_all:
            self.safe_moves.forget()  # what is said of cases, or all, must be as of now
        signalled = self.safe_moves.look(
            self.columns, self.rulebook.rules, self.marks.marks, self._space, self.marks.stream_us
        )
        for answer in self.marks.losses:
            self._on_answer(answer, Cause(MARKS, record.offset, "insurance", True))
        for unit in signalled.tolist() if self.marks.losses else ():
            self.safe_moves.next_status[unit] = self._judge(unit)  # answers changed some
        if is_succeeded:
            concerned = self._with_standing_cases(signalled)
            self._settle_worst_first(concerned, Cause(MARKS, record.offset, "rulebook", True))
        elif self.marks.pauses_changed:
            concerned = self._with_standing_cases(signalled)
            self._settle_worst_first(concerned, Cause(MARKS, record.offset, "pause", False))
        else:
            self._settle_worst_first(signalled, Cause(MARKS, record.offset, "market", False))
        if before_us // _WATERMARK_US != self.marks.stream_us // _WATERMARK_US:
            self._desk.tell_watermark()
            self._watermarks += 1

    def _on_answer(self, answer: LossAnswer, cause: Cause) -> None:
        """Do what the fund answered, and settle the units that it changed."""
        if answer.kind == "payment":
            paid = self.backstop.pay(answer)
            concerned = [] if paid is None else [paid]
        elif answer.kind == "deleverage":
            concerned = self.backstop.deleverage(answer)
            cause = replace(cause, kind="deleverage")
        elif answer.kind == "socialise":
            concerned = self.backstop.bear(answer)
            cause = replace(cause, kind="socialise")
        elif answer.kind == "weigh":
            self.backstop.weigh(answer)
            return
        elif answer.kind == "rank":
            self.backstop.rank(answer)
            return
        else:
            return
        units, columns = [], self.columns
        for unit in concerned:
            status = self._judge(unit)
            is_quarantined = bool(columns.accounts.quarantined[columns.units.account[unit]])
            refresh_withdrawal_flag(unit, False, columns.units, columns.figures)
            if needs_python(
                unit, status, is_quarantined, columns.units, columns.balances, self.rulebook.rules
            ):
                units.append((unit, status))
        if units:
            self._settle(np.array([u for u, _ in units], np.int64), [s for _, s in units], cause)

    def _succeed(self, document: bytes) -> bool:
        """Let a published rulebook take the place of the one in force; False: it is the same."""
        self._rulebook_changed = True
        try:
            rulebook = compile_document(document)
            if rulebook.hash == self.rulebook.hash:
                return False  # this worker was started with it and reads the log from before
            check_successor(self.rulebook, rulebook)
        except ConfigError as error:
            msg = f"mark frame {self.marks.seq}: {error.message}"
            raise PartitionError(msg) from error
        marks, state = self.marks.row(), self._state()
        self._adopt(rulebook)
        self.marks.load(marks)
        self._take_totals(state)
        return True

    def _with_standing_cases(self, signalled: Int64) -> Int64:
        """Add the units whose case stands: its offer counts no more as it was made."""
        units, count = self.columns.units, int(self.columns.counts[COUNT_UNITS])
        standing = np.setdiff1d(np.flatnonzero(units.revision[:count]), signalled)
        self.safe_moves.next_status[standing] = units.status[standing]
        self.safe_moves.look_again(self.columns.figures, standing)
        return np.union1d(signalled, standing)

    def _settle_worst_first(self, signalled: Int64, cause: Cause) -> None:
        """Settle units that were just looked at, the worst first."""
        if not signalled.size:
            return
        columns = self.columns
        units, figures = columns.units, columns.figures
        standings = map(
            Standing,
            signalled.tolist(),
            (figures.verdict[signalled] == VERDICT_BANKRUPT).tolist(),
            figures.equity_micros[signalled, MAINTENANCE].tolist(),
            figures.requirement_micros[signalled, MAINTENANCE].tolist(),
            columns.keys_of(units.account[signalled]),
            units.book[signalled].tolist(),
        )
        worst_first = np.array([standing.unit for standing in by_severity(standings)], np.int64)
        statuses = self.safe_moves.next_status[worst_first].tolist()
        self._settle(worst_first, statuses, cause)

    def _settle_contract(self, index: int, price: int, offset: int) -> None:
        """Close every position in a contract at its settlement price, and judge its unit.

        Open orders in it end too.

        Units act in the order of account and book, not of their rows, which a restore changes.
        """
        columns, rulebook = self.columns, self.rulebook
        instrument = rulebook.instruments[index]
        exponent = rulebook.assets[instrument.settles_in].quantum_exponent
        worth = instrument.worth_at_expiry(price, exponent)
        count = int(columns.counts[COUNT_UNITS])
        found = np.empty(count, np.int64)
        held = (columns.units, columns.positions, columns.orders)
        found = found[: find_holders_jit(index, count, *held, found)]
        keys = columns.keys_of(columns.units.account[found])
        order = sorted(zip(keys, columns.units.book[found].tolist(), found.tolist(), strict=True))
        holders = np.array([unit for _, _, unit in order], np.int64)
        is_settled = np.zeros(holders.size, np.uint8)
        done = 0
        while done < holders.size:
            done = settle_contract_jit(
                holders,
                done,
                index,
                worth.numerator,
                worth.denominator,
                self.marks.stream_us,
                is_settled,
                self._totals,
                columns.counts,
                columns.accounts,
                columns.units,
                columns.positions,
                columns.balances,
                columns.orders,
                rulebook.rules,
                self.marks.marks,
            )
            if done < holders.size:
                columns.make_room(int(holders[done]))
        cause = Cause(MARKS, offset, "settlement", True)
        concerned, statuses = [], []
        for unit in holders[is_settled != 0].tolist():
            is_quarantined = bool(columns.accounts.quarantined[columns.units.account[unit]])
            status = self._judge(unit)
            refresh_withdrawal_flag(unit, False, columns.units, columns.figures)
            if needs_python(
                unit, status, is_quarantined, columns.units, columns.balances, rulebook.rules
            ):
                concerned.append(unit)
                statuses.append(status)
        self._settle(np.array(concerned, np.int64), statuses, cause)
        for unit in holders[is_settled == 0].tolist():
            account = int(columns.units.account[unit])
            if not columns.accounts.quarantined[account]:
                columns.accounts.quarantined[account] = 1
                columns.mark_dirty(account)
                self._quarantine(account, cause)

    # -- rejects

    def _report(
        self, topic: str, run: Run, record_of: Int32, batch: Trades | Moves, first: int, last: int
    ) -> bool:
        """Count duplicates and publish rejects of the rows ``first`` to before ``last``.

        Fills that name a case are held against it; returns whether the last row is one of a case
        that stands.
        """
        if last:
            self._offsets[topic] = int(run.offset[record_of[last - 1]]) + 1
        part = batch.outcome[first:last]
        if self.marks.halted and isinstance(batch, Trades):
            self._count_halted_fills(batch.instrument[first:last][part == OUTCOME_APPLIED])
        told = part > OUTCOME_DUPLICATE
        if isinstance(batch, Trades):
            told |= (part == OUTCOME_APPLIED) & (batch.case_episode[first:last] != NONE)
        elif not (part != OUTCOME_APPLIED).any():
            return False
        is_progress = False
        duplicates = int(np.count_nonzero(part == OUTCOME_DUPLICATE))
        self._counts["duplicate_trades" if topic == TRADES else "duplicate_moves"] += duplicates
        for row in (first + np.flatnonzero(told)).tolist():
            code = int(batch.outcome[row])
            if code == OUTCOME_APPLIED:
                assert isinstance(batch, Trades)
                record = run[int(record_of[row])]
                serves = self._serves_case(record, self._fill(batch, row, record))
                is_progress = serves and row == last - 1
                continue
            if code == OUTCOME_QUARANTINE:
                continue
            record = run[int(record_of[row])]
            account = int(batch.account[row])
            if code >= OUTCOME_REJECTED:
                fault = self._intake.fault(topic, code, record)
            else:
                fault = self._state_fault(topic, code, account, int(batch.seq[row]))
            self._reject(topic, record, fault, account != NONE)
        return is_progress

    def _count_halted_fills(self, instruments: Int32) -> None:
        """Count fills in markets in which trading has stopped: somebody trades all the same."""
        count = int(np.isin(instruments, list(self.marks.halted)).sum())
        if count:
            self._counts["halted_fills"] = self._counts.get("halted_fills", 0) + count

    def _state_fault(self, topic: str, code: int, account: int, seq: int) -> Fault:
        account_id = self.columns.id_of(account)
        if code == OUTCOME_SEQUENCE_GAP:
            column = getattr(self.columns.accounts, _SEQUENCES[topic])
            expected = int(column[account]) + 1
            message = f"{topic} `seq` of account {account_id} = {seq}: {expected} expected"
            return Fault(RejectCode.SEQUENCE_GAP, message, account_id)
        if code == OUTCOME_EXPIRED:
            message = f"{topic} `market` of account {account_id}: it has expired or was settled"
            return Fault(RejectCode.EXPIRED, message, account_id)
        if code != OUTCOME_OVERFLOW:
            msg = f"outcome {code} without a fault"
            raise InvariantError(msg)
        message = f"account {account_id}: applying the record would leave the exact range 2**53"
        return Fault(RejectCode.OVERFLOW, message, account_id)

    def _refuse(self, topic: str, record: InputRecord, refusal: Refusal) -> None:
        """Reject a statement and quarantine the accounts it leaves in doubt."""
        columns = self.columns
        add = columns.add_account if refusal.is_creating else columns.index_of
        doubtful = [add(account_id) for account_id in refusal.account_ids]
        self._reject(topic, record, refusal.fault, doubtful[:1] not in ([], [NONE]))
        for account in doubtful:
            if account != NONE and not columns.accounts.quarantined[account]:
                columns.accounts.quarantined[account] = 1
                columns.mark_dirty(account)
                kind = _STATEMENTS[topic]
                self._quarantine(account, Cause(topic, record.offset, kind, True))

    def _reject(
        self,
        topic: str,
        record: InputRecord,
        fault: Fault,
        is_quarantined: bool,
        *,
        is_applied: bool = False,
    ) -> None:
        code = str(fault.code)
        self._counts["rejects"] += 1
        self._rejects_by_code[code] = self._rejects_by_code.get(code, 0) + 1
        emit = reject(
            record,
            topic=topic,
            partition=self.partition,
            code=code,
            message=fault.message,
            account_id=fault.account_id,
            is_quarantined=is_quarantined,
            is_applied=is_applied,
        )
        self._records.append(emit)

    # -- state beside the rows

    def _state(self) -> dict[str, Any]:
        totals = self._totals.tolist()
        return {
            "schema_version": 1,
            "rulebook": self.rulebook.reference,
            "mark_seq": self.marks.seq,
            "stream_us": self.marks.stream_us,
            "offsets": dict(self._offsets),
            "counts": dict(self._counts),
            "rejects": dict(self._rejects_by_code),
            "fees_micros": totals[TOTAL_FEES],
            **({"liquidated": liquidated} if (liquidated := self._turnover.state()) else {}),
            **({"exhausted": windows} if (windows := self._cases.budget.throttle.state()) else {}),
            **{
                name: told
                for name, slots in self._named_totals().items()
                if (told := {key: totals[slot] for key, slot in slots.items() if totals[slot]})
                or name == "rounding"
            },
        }

    def _named_totals(self) -> dict[str, dict[str, int]]:
        """Return the slots of the totals by name; those that are all 0 are not told."""
        instruments, assets = self.rulebook.instruments, self.rulebook.assets
        count = len(instruments)
        names = ("rounding", "funding", "settled")
        slots = {
            name: {i.name: TOTAL_SLOTS + place * count + i.index for i in instruments}
            for place, name in enumerate(names)
        }
        first = TOTAL_SLOTS + len(names) * count
        return {**slots, "fees": {asset.name: first + asset.index for asset in assets}}

    def _take_totals(self, state: Mapping[str, Any]) -> None:
        """Set the totals to what `_state` told of them, by name."""
        self._totals = np.zeros(total_count(self.rulebook.rules), np.int64)
        self._backstop = None
        self._totals[TOTAL_FEES] = state["fees_micros"]
        for name, totals in self._named_totals().items():
            for key, slot in totals.items():
                self._totals[slot] = state.get(name, {}).get(key, 0)

    # -- for people and tests

    @property
    def counters(self) -> dict[str, int]:
        """Records by kind, duplicates and rejects since the partition began."""
        kinds = (*_STATEMENTS.values(), "report")
        stated = dict.fromkeys([*kinds, *(f"duplicate_{kind}" for kind in kinds)], 0)
        return {**stated, **self._counts}

    def facts(self) -> ShardFacts:
        """Return counts and ages for an operator (`Shard.facts`)."""
        columns = self.columns
        count = int(columns.counts[COUNT_UNITS])
        status = columns.units.status[:count]
        return ShardFacts(
            stream_us=self.marks.stream_us,
            duplicates={
                TRADES: self._counts["duplicate_trades"],
                COLLATERAL: self._counts["duplicate_moves"],
                MARKS: self._counts["repeated_frames"],
                **{
                    topic: self._counts.get(f"duplicate_{kind}", 0)
                    for topic, kind in _STATEMENTS.items()
                },
                LIQUIDATION_REPORTS: self._counts.get("duplicate_report", 0),
            },
            rejects=dict(self._rejects_by_code),
            accounts=int(columns.counts[COUNT_ACCOUNTS]),
            units={
                label: int(np.count_nonzero(status == code))
                for code, label in enumerate(STATUS_LABELS)
            },
            cases=int(np.count_nonzero(columns.units.revision[:count])),
            halted_fills=self._counts.get("halted_fills", 0),
            unjudged_us=self.marks.unjudged_us(),
        )

    def keys(self) -> Iterator[str]:
        """Yield account ids in order of first sight."""
        yield from self.columns.account_ids

    def accounts(self) -> Iterator[dict[str, Any]]:
        """Yield what `describe` says of each account, in order of first sight."""
        for account_id in self.columns.account_ids:
            yield self.describe(account_id)

    def describe(self, account_id: str) -> dict[str, Any]:
        """Return one account for people: decimal texts, figures, statuses, liquidation prices.

        Raises
        ------
        KeyError
            The account is not in this partition.
        """
        account = self.columns.index_of(account_id)
        if account == NONE:
            raise KeyError(account_id)
        if self.marks.seq:
            for unit in self.columns.units_of(account):
                self._judge(unit)
        return Describer(self.rulebook, self.columns, self.marks).account(account)


def warm_up() -> None:
    """Compile every kernel the shard calls; any other argument type raises from then on."""
    kernel.warm_up()
    rows.warm_up()
    restored.warm_up()
