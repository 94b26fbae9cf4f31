"""The ledger: trades and collateral moves folded into positions, cost basis and balances.

Exact integers (lots, micros, quanta; long, bought and owned are > 0), MODEL.md 2 to the letter.
A fold steps over a batch record by record: sequence, apply, flags, then judge the one unit it
touched, so results do not depend on how records were framed. It stops where Python must act and is
called again from there. A record that is rejected or a duplicate changes no sequence, balance,
position or flag; a reject quarantines its account.
"""

from __future__ import annotations

from typing import Any, Final, get_type_hints

import numba
import numpy as np
from numba.extending import register_jitable

from solvent.kernel.arithmetic import LIMIT, fits, multiply_divide_floor, trade_value, value_residue
from solvent.kernel.blocks import (
    end_orders,
    find_balance,
    find_order,
    find_position,
    find_unit,
    has_orders,
    has_room,
    insert_balance,
    insert_position,
    mark_dirty,
    open_unit,
    remove_balance,
    remove_position,
)
from solvent.kernel.contracts import (
    apply_inverse_fill,
    apply_premium_fill,
    credited,
    expiry_cash,
    funding_due,
    is_over,
)
from solvent.kernel.evaluate import evaluate_unit, example_arguments
from solvent.kernel.jit import jit
from solvent.kernel.judge import next_status
from solvent.kernel.layout import (
    ASSET_BORROWABLE,
    ASSET_LISTED,
    BLOCK_UNITS,
    CROSS,
    FLAG_OVERDRAWN,
    FLAG_UNBORROWABLE_DEBT,
    FLAG_UNFUNDED_BOOK,
    FLAG_UNLISTED_COLLATERAL,
    FLAG_WITHDRAWAL_BELOW_INITIAL,
    INITIAL,
    NONE,
    OUTCOME_APPLIED,
    OUTCOME_DUPLICATE,
    OUTCOME_EXPIRED,
    OUTCOME_NONE,
    OUTCOME_OVERFLOW,
    OUTCOME_SEQUENCE_GAP,
    STATUS_LIQUIDATING,
    STATUS_UNKNOWN,
    STOP_END,
    STOP_GROW,
    STOP_QUARANTINE,
    STOP_REPORT,
    STOP_UNIT,
    VERDICT_UNKNOWN,
    Accounts,
    Balances,
    Cases,
    Figures,
    Int32,
    Int64,
    Marks,
    Moves,
    Orders,
    Positions,
    Rules,
    Trades,
    UInt8,
    Units,
)
from solvent.kernel.reference import by_reference
from solvent.kernel.safe_move import LEVEL_HOT, LEVEL_TOP
from solvent.kernel.tables import (
    example_table,
    prefetch_account,
    prefetch_books,
    prefetch_figures,
    prefetch_unit,
)
from solvent.kernel.terms import KIND_INVERSE, KIND_OPTION
from solvent.kernel.workspace import Tables, Workspace

__all__ = [
    "TOTAL_FEES",
    "TOTAL_SLOTS",
    "apply_contract_fill",
    "apply_fill",
    "can_close",
    "check_sequence",
    "find_holders_jit",
    "find_holders_reference",
    "fold_moves_jit",
    "fold_moves_reference",
    "fold_trades_jit",
    "fold_trades_reference",
    "judge_at_marks",
    "judge_unit",
    "judge_unit_jit",
    "needs_python",
    "refresh_flags",
    "refresh_withdrawal_flag",
    "settle_contract_jit",
    "settle_contract_reference",
    "total_count",
    "warm_up",
]

#: Slots of `totals`: fees in micros; after it, per instrument, the rounding account in micros over
#: the instrument's tick denominator, of an inverse contract the signed value of its fills in quanta
#: (which is what rounding gave, once both sides of every trade are in); then, per instrument each,
#: quanta paid for funding and quanta paid out at expiry; then fees in quanta by asset, those in the
#: settlement asset excepted (`total_count`).
TOTAL_FEES = 0
TOTAL_SLOTS = 1

#: Records between asking for an account's row, its unit's, its positions', and applying the record.
_STRIDE: Final = 4


def total_count(rules: Rules) -> int:
    """Return how many slots the totals under some rules have."""
    return TOTAL_SLOTS + 3 * int(rules.instrument_feed.size) + int(rules.asset_feed.size)


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def check_sequence(seq: int, last: int) -> int:
    """Return the outcome a sequence alone decides, `OUTCOME_NONE` if the record is next."""
    if seq == NONE or last == NONE or seq == last + 1:
        return OUTCOME_NONE
    return OUTCOME_DUPLICATE if seq <= last else OUTCOME_SEQUENCE_GAP


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def apply_fill(
    size: int, cost: int, lots: int, ticks: int, numerator: int, denominator: int
) -> tuple[int, int, int, int, int, bool]:
    """Return what a fill makes of a position: MODEL.md 2 Fill.

    Parameters
    ----------
    size, cost : int
        Signed lots and cost basis in micros before.
    lots, ticks : int
        Signed lots of the fill and its price.
    numerator, denominator : int
        Micros per lot and tick.

    Returns
    -------
    size, cost : int
        After; a closed position has cost 0 exactly.
    realised : int
        Micros of pnl made by closing, signed.
    residue : int
        What rounding took, micros over the denominator, >= 0.
    value : int
        Micros of the whole fill, unsigned.
    is_exact : bool
        False if anything left the exact range; the rest is then meaningless.
    """
    closing = 0
    if (size > 0 and lots < 0) or (size < 0 and lots > 0):
        open_lots = size if size > 0 else -size
        closing = min(open_lots, lots if lots > 0 else -lots)
    realised = 0
    residue = 0
    total = 0
    if closing > 0:
        part = closing if lots > 0 else -closing
        value, is_exact = trade_value(part, ticks, numerator, denominator)
        if not is_exact:
            return 0, 0, 0, 0, 0, False
        open_lots = size if size > 0 else -size
        released = multiply_divide_floor(cost, closing, open_lots)
        realised = -value - released
        cost -= released
        size += part
        residue += value_residue(value, part, ticks, numerator, denominator)
        total += value if value > 0 else -value
    else:
        part = 0
    rest = lots - part
    if rest != 0:
        value, is_exact = trade_value(rest, ticks, numerator, denominator)
        if not is_exact:
            return 0, 0, 0, 0, 0, False
        cost += value
        size += rest
        residue += value_residue(value, rest, ticks, numerator, denominator)
        total += value if value > 0 else -value
    is_exact = fits(size) and fits(cost) and fits(realised)
    return size, cost, realised, residue, total, is_exact


@register_jitable
def apply_contract_fill(
    size: int,
    cost: int,
    funding_index: int,
    lots: int,
    ticks: int,
    instrument: int,
    rules: Rules,
    marks: Marks,
) -> tuple[int, int, int, int, int, int, int, bool]:
    """Return what a fill makes of a position under terms: funding first, then the fill of its kind.

    Returns
    -------
    size, cost, funding_index : int
        After.
    gained : int
        Quanta of cash made by the fill, before funding and fee.
    payment : int
        Quanta paid for funding.
    residue : int
        What rounding took, as `apply_fill` tells it; of an inverse contract the signed value.
    value : int
        Micros of the whole fill, unsigned.
    is_exact : bool
        False if anything left the exact range; the rest is then meaningless.
    """
    payment, funding_index, is_paid = funding_due(instrument, size, funding_index, rules, marks)
    contract = rules.terms.instruments[instrument]
    numerator = int(rules.tick_numerator[instrument])
    denominator = int(rules.tick_denominator[instrument])
    if contract["kind"] == KIND_INVERSE:
        size, cost, gained, residue, value, is_exact = apply_inverse_fill(
            size, cost, lots, ticks, instrument, rules
        )
    elif contract["kind"] == KIND_OPTION and contract["is_premium"] != 0:
        size, gained, residue, value, is_exact = apply_premium_fill(
            size, lots, ticks, numerator, denominator
        )
    else:
        size, cost, gained, residue, value, is_exact = apply_fill(
            size, cost, lots, ticks, numerator, denominator
        )
    return size, cost, funding_index, gained, payment, residue, value, is_paid and is_exact


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _quanta_of(unit: int, asset: int, units: Units, balances: Balances) -> int:
    row = find_balance(unit, asset, units, balances)
    return int(balances.quanta[row]) if row != NONE else 0


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _set_balance(
    unit: int, asset: int, quanta: int, units: Units, balances: Balances, counts: Int64
) -> None:
    """Write a balance; zero has no row."""
    row = find_balance(unit, asset, units, balances)
    if quanta == 0:
        if row != NONE:
            remove_balance(unit, row, units, balances)
        return
    if row == NONE:
        row = insert_balance(unit, asset, units, balances, counts)
    balances.quanta[row] = quanta


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _set_position(
    unit: int,
    instrument: int,
    size: int,
    cost: int,
    units: Units,
    positions: Positions,
    counts: Int64,
) -> None:
    """Write a position; a closed one has no row."""
    row = find_position(unit, instrument, units, positions)
    if size == 0:
        if row != NONE:
            remove_position(unit, row, units, positions)
        return
    if row == NONE:
        row = insert_position(unit, instrument, units, positions, counts)
    positions.size_lots[row] = size
    positions.cost_basis_micros[row] = cost


@register_jitable
def _set_terms(
    unit: int,
    instrument: int,
    asset: int,
    funding_index: int,
    payment: int,
    fee: int,
    units: Units,
    positions: Positions,
    rules: Rules,
    totals: Int64,
) -> None:
    """Write what a fill under terms leaves beside size, cost and cash."""
    row = find_position(unit, instrument, units, positions)
    if row != NONE:
        positions.funding_index[row] = funding_index
    instruments = rules.instrument_feed.size
    totals[TOTAL_SLOTS + instruments + instrument] += payment
    if asset == rules.settlement_asset:
        totals[TOTAL_FEES] += fee
    else:
        totals[TOTAL_SLOTS + 3 * instruments + asset] += fee


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def _balance_flags(unit: int, units: Units, balances: Balances, rules: Rules) -> tuple[int, bool]:
    """Return the flags that follow from the balances alone, and whether there is collateral.

    Debt in a non-borrowable asset keeps the flag that says how it came about (`refresh_flags`).
    """
    flags = 0
    has_collateral = False
    first = int(units.first_balance[unit])
    for row in range(first, first + int(units.balance_count[unit])):
        asset_flags = int(rules.asset_flags[balances.asset[row]])
        quanta = int(balances.quanta[row])
        if quanta > 0:
            has_collateral = True
            if asset_flags & ASSET_LISTED == 0:
                flags |= FLAG_UNLISTED_COLLATERAL
        elif quanta < 0 and asset_flags & ASSET_BORROWABLE == 0:
            flags |= FLAG_OVERDRAWN | FLAG_UNBORROWABLE_DEBT
    return flags, has_collateral


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def refresh_flags(unit: int, cause: int, units: Units, balances: Balances, rules: Rules) -> None:
    """Bring the flags up to date after a record; `cause` is the debt flag this record may raise.

    ``overdrawn`` and ``unborrowable_debt`` stay while any non-borrowable balance is negative,
    ``unfunded_book`` until the book has collateral, ``unlisted_collateral`` as long as it is true;
    ``withdrawal_below_initial`` is judged with the figures (`judge_unit`).
    """
    before = int(units.flags[unit])
    derived, has_collateral = _balance_flags(unit, units, balances, rules)
    after = before & FLAG_WITHDRAWAL_BELOW_INITIAL
    after |= derived & FLAG_UNLISTED_COLLATERAL
    if derived & FLAG_OVERDRAWN != 0:
        kept = before & (FLAG_OVERDRAWN | FLAG_UNBORROWABLE_DEBT)
        after |= kept | cause
        if after & (FLAG_OVERDRAWN | FLAG_UNBORROWABLE_DEBT) == 0:
            after |= FLAG_UNBORROWABLE_DEBT
    if not has_collateral and before & FLAG_UNFUNDED_BOOK != 0:
        after |= FLAG_UNFUNDED_BOOK
    units.flags[unit] = after


@register_jitable
def can_close(unit: int, units: Units, balances: Balances, rules: Rules) -> bool:
    """Tell whether a liquidation has something to close: positions, or debt with collateral."""
    if units.position_count[unit] > 0:
        return True
    if rules.terms.preset[units.preset[unit]]["is_debt_required"] == 0:
        return False
    has_debt = has_collateral = False
    first = units.first_balance[unit]
    for row in range(first, first + units.balance_count[unit]):
        has_debt = has_debt or balances.quanta[row] < 0
        has_collateral = has_collateral or balances.quanta[row] > 0
    return bool(has_debt and has_collateral)


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def judge_at_marks(
    unit: int,
    is_quarantined: bool,
    units: Units,
    positions: Positions,
    balances: Balances,
    rules: Rules,
    marks: Marks,
    figures: Figures,
    tables: Tables,
) -> int:
    """Evaluate one unit, write the level of its safe move and return its next status.

    Parameters
    ----------
    is_quarantined : bool
        The account's state is not known: verdict and status are unknown whatever the figures.
    """
    evaluate_unit(units, unit, positions, balances, rules, marks, figures, tables)
    if is_quarantined:
        figures.verdict[unit] = VERDICT_UNKNOWN
        figures.level[unit] = LEVEL_TOP
        figures.feeds[unit] = 0
        status = STATUS_UNKNOWN
    else:
        status = int(
            next_status(
                int(units.status[unit]),
                int(units.previous_status[unit]),
                int(figures.verdict[unit]),
                figures.equity_micros[unit],
                figures.requirement_micros[unit],
                int(rules.clear_ppm[units.preset[unit]]),
                can_close(unit, units, balances, rules),
            )
        )
    if status != units.status[unit]:
        figures.level[unit] = LEVEL_HOT  # found for the status it has; soon it has another
    return status


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def judge_unit(
    unit: int,
    is_quarantined: bool,
    is_judging: bool,
    units: Units,
    positions: Positions,
    balances: Balances,
    rules: Rules,
    marks: Marks,
    figures: Figures,
    tables: Tables,
) -> int:
    """Judge one unit outside a frame, as `judge_at_marks`; return its next status.

    Parameters
    ----------
    is_judging : bool
        False before the first mark frame: nobody is judged without prices.
    """
    if not is_judging:
        figures.verdict[unit] = VERDICT_UNKNOWN
        return STATUS_UNKNOWN if is_quarantined else int(units.status[unit])
    status = int(
        judge_at_marks(
            unit, is_quarantined, units, positions, balances, rules, marks, figures, tables
        )
    )
    if status == STATUS_LIQUIDATING:
        figures.level[unit] = LEVEL_HOT  # only a frame knows when its offer expires
    figures.block_levels[unit // BLOCK_UNITS] |= 1 << int(figures.level[unit])
    return status


def judge_unit_reference(
    unit: int,
    is_quarantined: bool,
    is_judging: bool,
    units: Units,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
    figures: Figures,
) -> int:
    """Do what `judge_unit` does, as a kernel of its own."""
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    return int(
        judge_unit(
            unit,
            is_quarantined,
            is_judging,
            units,
            positions,
            balances,
            rules,
            marks,
            figures,
            tables,
        )
    )


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def needs_python(
    unit: int, status: int, is_quarantined: bool, units: Units, balances: Balances, rules: Rules
) -> bool:
    """Return whether a record just applied to a unit has a consequence beyond its columns."""
    if status != units.status[unit]:
        return True
    if is_quarantined:
        return False  # an open case rests until somebody resolves the quarantine
    return units.revision[unit] > 0 or (
        status == STATUS_LIQUIDATING and can_close(unit, units, balances, rules)
    )


@register_jitable(inline="always")  # type: ignore[untyped-decorator, unused-ignore]
def refresh_withdrawal_flag(unit: int, is_outflow: bool, units: Units, figures: Figures) -> None:
    """Raise or clear ``withdrawal_below_initial`` after the unit was judged on known prices."""
    if figures.verdict[unit] == VERDICT_UNKNOWN:
        return
    equity = figures.equity_micros[unit, INITIAL]
    is_below = equity - figures.requirement_micros[unit, INITIAL] < 0
    if not is_below:
        units.flags[unit] &= ~FLAG_WITHDRAWAL_BELOW_INITIAL
    elif is_outflow:
        units.flags[unit] |= FLAG_WITHDRAWAL_BELOW_INITIAL


@register_jitable
def _prefetch(
    record: int,
    account: Int32,
    accounts: Accounts,
    units: Units,
    positions: Positions,
    balances: Balances,
    figures: Figures,
) -> None:
    """Ask for what records to come will touch: memory, not arithmetic, is most of a record."""
    if record + 3 * _STRIDE < account.size:
        prefetch_account(int(account[record + 3 * _STRIDE]), accounts)
        prefetch_unit(int(account[record + 2 * _STRIDE]), accounts, units)
        prefetch_figures(int(account[record + 2 * _STRIDE]), accounts, figures)
        prefetch_books(int(account[record + _STRIDE]), accounts, units, positions, balances)


def fold_trades_reference(
    trades: Trades,
    first: int,
    is_judging: bool,
    totals: Int64,
    counts: Int64,
    accounts: Accounts,
    units: Units,
    cases: Cases,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
    figures: Figures,
) -> tuple[int, int, int]:
    """Apply trades from record `first` on until Python must act.

    Returns
    -------
    next_record, reason, subject : int
        Where to go on; one of ``STOP_…``; the unit (`STOP_UNIT`, `STOP_GROW`, where it may be
        `NONE`) or account (`STOP_QUARANTINE`, `STOP_REPORT`) concerned. Figures of a stopped unit
        are fresh.
    """
    settlement = int(rules.settlement_asset)
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    for record in range(first, trades.account.size):
        _prefetch(record, trades.account, accounts, units, positions, balances, figures)
        account = int(trades.account[record])
        outcome = int(trades.precheck[record])
        unit = NONE
        if outcome == OUTCOME_NONE:
            seq = int(trades.seq[record])
            outcome = check_sequence(seq, int(accounts.trades_seq[account]))
            instrument = int(trades.instrument[record])
            has_terms = rules.terms.instruments[instrument]["has_ledger_terms"] != 0
            if (
                has_terms
                and outcome == OUTCOME_NONE
                and is_over(instrument, int(trades.ts_us[record]), rules, marks)
            ):
                outcome = OUTCOME_EXPIRED
        if outcome == OUTCOME_NONE:
            book = int(trades.book[record])
            unit = find_unit(accounts, units, account, book)
            if not has_room(unit, units, positions, balances, orders, counts):
                return record, STOP_GROW, unit
            size = 0
            cost = 0
            cash = 0
            funding_index = 0
            payment = 0
            is_funded = False
            asset = settlement
            if has_terms:
                asset = int(rules.terms.instruments[instrument]["settles_in"])
            if unit != NONE:
                row = find_position(unit, instrument, units, positions)
                if row != NONE:
                    size = int(positions.size_lots[row])
                    cost = int(positions.cost_basis_micros[row])
                    if has_terms:
                        funding_index = int(positions.funding_index[row])
                cash = _quanta_of(unit, asset, units, balances)
                is_funded = units.balance_count[unit] > 0
            fee = int(trades.fee_micros[record])
            if not has_terms:
                size, cost, realised, residue, value, is_exact = apply_fill(
                    size,
                    cost,
                    int(trades.lots[record]),
                    int(trades.price_ticks[record]),
                    int(rules.tick_numerator[instrument]),
                    int(rules.tick_denominator[instrument]),
                )
                cash += realised - fee
                is_exact = is_exact and fits(cash)
            else:
                size, cost, funding_index, gained, payment, residue, value, is_exact = (
                    apply_contract_fill(
                        size,
                        cost,
                        funding_index,
                        int(trades.lots[record]),
                        int(trades.price_ticks[record]),
                        instrument,
                        rules,
                        marks,
                    )
                )
                if is_exact:
                    cash, is_exact = credited(asset, cash, gained - payment - fee, rules, marks)
            if is_exact:
                outcome = OUTCOME_APPLIED
                if unit == NONE:
                    unit = open_unit(account, book, accounts, units, cases, orders, counts)
                _set_position(unit, instrument, size, cost, units, positions, counts)
                _set_balance(unit, asset, cash, units, balances, counts)
                if has_terms:
                    _set_terms(
                        unit,
                        instrument,
                        asset,
                        funding_index,
                        payment,
                        fee,
                        units,
                        positions,
                        rules,
                        totals,
                    )
                else:
                    totals[TOTAL_FEES] += fee
                totals[TOTAL_SLOTS + instrument] += residue
                if seq != NONE:
                    accounts.trades_seq[account] = seq
                units.touched_us[unit] = trades.ts_us[record]
                if book != CROSS and not is_funded:
                    units.flags[unit] |= FLAG_UNFUNDED_BOOK
                refresh_flags(unit, FLAG_UNBORROWABLE_DEBT, units, balances, rules)
                if (
                    units.revision[unit] > 0
                    and trades.case_episode[record] == units.episode[unit]
                    and cases.notional_micros[unit] <= LIMIT
                ):
                    cases.notional_micros[unit] += value
                    cases.fills[unit] += 1
                mark_dirty(accounts, counts, account)
            else:
                outcome = OUTCOME_OVERFLOW
        trades.outcome[record] = outcome
        if outcome == OUTCOME_DUPLICATE:
            continue
        if outcome != OUTCOME_APPLIED:
            if account != NONE and accounts.quarantined[account] == 0:
                accounts.quarantined[account] = 1
                mark_dirty(accounts, counts, account)
                return record + 1, STOP_QUARANTINE, account
            if outcome == OUTCOME_SEQUENCE_GAP:
                return record + 1, STOP_REPORT, account
            continue
        is_quarantined = accounts.quarantined[account] != 0
        status = judge_unit(
            unit,
            is_quarantined,
            is_judging,
            units,
            positions,
            balances,
            rules,
            marks,
            figures,
            tables,
        )
        if is_judging:
            refresh_withdrawal_flag(unit, False, units, figures)
        if needs_python(unit, status, is_quarantined, units, balances, rules):
            return record + 1, STOP_UNIT, unit
    return trades.account.size, STOP_END, NONE


def fold_moves_reference(
    moves: Moves,
    first: int,
    is_judging: bool,
    counts: Int64,
    accounts: Accounts,
    units: Units,
    cases: Cases,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
    space: Workspace,
    figures: Figures,
) -> tuple[int, int, int]:
    """Apply collateral moves from record `first` on until Python must act; as `fold_trades`."""
    tables = by_reference(Tables(units, positions, balances, orders, rules, marks, space))
    for record in range(first, moves.account.size):
        _prefetch(record, moves.account, accounts, units, positions, balances, figures)
        account = int(moves.account[record])
        outcome = int(moves.precheck[record])
        unit = NONE
        is_outflow = False
        if outcome == OUTCOME_NONE:
            seq = int(moves.seq[record])
            outcome = check_sequence(seq, int(accounts.collateral_seq[account]))
        if outcome == OUTCOME_NONE:
            book = int(moves.book[record])
            asset = int(moves.asset[record])
            unit = find_unit(accounts, units, account, book)
            if not has_room(unit, units, positions, balances, orders, counts):
                return record, STOP_GROW, unit
            held = 0
            if unit != NONE:
                held = _quanta_of(unit, asset, units, balances)
            quanta, is_exact = credited(asset, held, int(moves.quanta[record]), rules, marks)
            if is_exact:
                outcome = OUTCOME_APPLIED
                if unit == NONE:
                    unit = open_unit(account, book, accounts, units, cases, orders, counts)
                _set_balance(unit, asset, quanta, units, balances, counts)
                if seq != NONE:
                    accounts.collateral_seq[account] = seq
                units.touched_us[unit] = moves.ts_us[record]
                is_outflow = moves.quanta[record] < 0
                cause = FLAG_OVERDRAWN if is_outflow and quanta < 0 else 0
                refresh_flags(unit, cause, units, balances, rules)
                mark_dirty(accounts, counts, account)
            else:
                outcome = OUTCOME_OVERFLOW
        moves.outcome[record] = outcome
        if outcome == OUTCOME_DUPLICATE:
            continue
        if outcome != OUTCOME_APPLIED:
            if account != NONE and accounts.quarantined[account] == 0:
                accounts.quarantined[account] = 1
                mark_dirty(accounts, counts, account)
                return record + 1, STOP_QUARANTINE, account
            if outcome == OUTCOME_SEQUENCE_GAP:
                return record + 1, STOP_REPORT, account
            continue
        is_quarantined = accounts.quarantined[account] != 0
        status = judge_unit(
            unit,
            is_quarantined,
            is_judging,
            units,
            positions,
            balances,
            rules,
            marks,
            figures,
            tables,
        )
        if is_judging:
            refresh_withdrawal_flag(unit, is_outflow, units, figures)
        if needs_python(unit, status, is_quarantined, units, balances, rules):
            return record + 1, STOP_UNIT, unit
    return moves.account.size, STOP_END, NONE


def settle_contract_reference(
    holders: Int64,
    first: int,
    instrument: int,
    numerator: int,
    denominator: int,
    ts_us: int,
    out_is_settled: UInt8,
    totals: Int64,
    counts: Int64,
    accounts: Accounts,
    units: Units,
    positions: Positions,
    balances: Balances,
    orders: Orders,
    rules: Rules,
    marks: Marks,
) -> int:
    """Close every position in a contract at its settlement, from holder `first` on.

    Funding is settled, `solvent.kernel.contracts.expiry_cash` paid, the position removed, and with
    it open orders, which nothing can fill any more; nobody is judged here.

    Parameters
    ----------
    holders : int64, shape (n,)
        Units with a position or open orders.
    numerator, denominator : int
        Quanta that a lot is worth; both > 0, or 0 and 1.
    ts_us : int
        Event time of the settlement.
    out_is_settled : uint8, shape (n,)
        0 of a unit whose amounts left the exact range: it is as it was.

    Returns
    -------
    int
        The holder that there is no room for, or their number.
    """
    asset = int(rules.terms.instruments[instrument]["settles_in"])
    instruments = rules.instrument_feed.size
    for k in range(first, holders.size):
        unit = int(holders[k])
        if not has_room(unit, units, positions, balances, orders, counts):
            return k
        row = find_position(unit, instrument, units, positions)
        if row != NONE:
            size = int(positions.size_lots[row])
            cost = int(positions.cost_basis_micros[row])
            payment, _, is_paid = funding_due(
                instrument, size, int(positions.funding_index[row]), rules, marks
            )
            gained, worth, is_exact = expiry_cash(
                size, cost, numerator, denominator, instrument, rules
            )
            cash = _quanta_of(unit, asset, units, balances)
            if is_paid and is_exact:
                cash, is_exact = credited(asset, cash, gained - payment, rules, marks)
            out_is_settled[k] = is_paid and is_exact
            if out_is_settled[k] == 0:
                continue
            remove_position(unit, row, units, positions)
            _set_balance(unit, asset, cash, units, balances, counts)
            totals[TOTAL_SLOTS + instruments + instrument] += payment
            totals[TOTAL_SLOTS + 2 * instruments + instrument] += worth
        out_is_settled[k] = 1
        end_orders(unit, instrument, units, orders)
        units.touched_us[unit] = ts_us
        refresh_flags(unit, FLAG_UNBORROWABLE_DEBT, units, balances, rules)
        mark_dirty(accounts, counts, int(units.account[unit]))
    return holders.size


def find_holders_reference(
    instrument: int,
    count: int,
    units: Units,
    positions: Positions,
    orders: Orders,
    out_units: Int64,
) -> int:
    """Write the units, of the first `count`, with a position or open orders; return how many."""
    found = 0
    for unit in range(count):
        is_holder = find_position(unit, instrument, units, positions) != NONE
        if not is_holder:
            order = find_order(unit, instrument, units, orders)
            is_holder = order != NONE and has_orders(order, orders)
        if is_holder:
            out_units[found] = unit
            found += 1
    return found


fold_trades_jit = jit(fold_trades_reference)
fold_moves_jit = jit(fold_moves_reference)
judge_unit_jit = jit(judge_unit_reference)
settle_contract_jit = jit(settle_contract_reference)
find_holders_jit = jit(find_holders_reference)


def _empty(layout: type) -> Any:  # noqa: ANN401 -- a NamedTuple of the given type
    dtypes: dict[Any, Any] = {Int64: np.int64, Int32: np.int32, UInt8: np.uint8}
    return layout(*(np.zeros(0, dtypes[kind]) for kind in get_type_hints(layout).values()))


def warm_up() -> None:
    """Compile the one accepted signature of each kernel here; other types raise from then on."""
    if judge_unit_jit.signatures:
        return
    units, positions, balances, orders, rules, marks, space, figures = map(
        numba.typeof, example_arguments()
    )
    accounts = numba.typeof(example_table(Accounts))
    cases = numba.typeof(example_table(Cases))
    vector = numba.int64[::1]
    judged = (units, positions, balances, orders, rules, marks, space, figures)
    columns = (vector, accounts, units, cases, positions, balances, orders, *judged[4:])
    batch = (numba.int64, numba.boolean)
    fold_trades_jit.compile((numba.typeof(_empty(Trades)), *batch, vector, *columns))
    fold_moves_jit.compile((numba.typeof(_empty(Moves)), *batch, *columns))
    judge_unit_jit.compile((numba.int64, numba.boolean, numba.boolean, *judged))
    number = numba.int64
    settled = (accounts, units, positions, balances, orders, rules, marks)
    settle_contract_jit.compile((vector, *[number] * 5, numba.uint8[::1], vector, vector, *settled))
    find_holders_jit.compile((number, number, units, positions, orders, vector))
    for kernel in (
        fold_trades_jit,
        fold_moves_jit,
        judge_unit_jit,
        settle_contract_jit,
        find_holders_jit,
    ):
        kernel.disable_compile()
