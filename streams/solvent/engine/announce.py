"""Events as JSON text, for many units at once: statuses, revisions of cases and what stands.

One frame may move twenty thousand units, and their offers are worth most in the first second. So
the amounts of all units of a batch become text in one kernel call, what is the same for all (the
trigger, the offsets, the rulebook) is written once, and an event is put together from pieces. The
bytes are those `solvent.wire.outputs.encode` would give; a test holds them equal. Nothing here
needs escaping: identifiers are ``[A-Za-z0-9._-]``, amounts are digits, names of the rulebook are
quoted by the JSON encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from solvent.domain.instrument import Instrument
from solvent.domain.policy import LiquidationPolicy
from solvent.domain.sizing import CloseLeg, OpenPosition, plan_close
from solvent.engine.cases import Case, CaseBook, Closed, Terms
from solvent.engine.claims import Asked
from solvent.engine.describe import CROSS_NAME, Describer
from solvent.engine.markbook import MarkBook
from solvent.engine.plan import Planner, swap_text
from solvent.engine.ration import Ration, ration
from solvent.engine.shard import Emit
from solvent.kernel.layout import (
    CROSS,
    FLAG_LABELS,
    INITIAL,
    LIQUIDATION_END,
    MAINTENANCE,
    NONE,
    STATUS_LABELS,
    VERDICT_BANKRUPT,
    VERDICT_LABELS,
    Int32,
    Int64,
)
from solvent.kernel.ledger import can_close
from solvent.kernel.texts import decimal_texts
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns
from solvent.units import MICRO_EXPONENT, PPM, format_scaled
from solvent.wire.headers import EventHeaders
from solvent.wire.outputs import WATERMARK_KEY, encode
from solvent.wire.topics import LIQUIDATION_STATE, LIQUIDATIONS, MARGIN_STATUS, TRADES

if TYPE_CHECKING:
    from solvent.engine.liquidation import Cause

__all__ = ["Announcer", "Batch", "Ending"]

#: Columns of a batch's amounts.
_RAW, _SHORTFALL, _DEPOSIT, _SHORTAGE = 6, 7, 8, 9
_AMOUNTS: Final = 10
_INT64_MAX: Final = 2**63 - 1


class Ending(NamedTuple):
    """What the last revision of a case adds: the account of the whole case, amounts in micros."""

    notional_micros: int
    fills: int
    bad_debt_micros: int | None
    case: Case
    ended_us: int

    def text(self, instruments: Sequence[Instrument]) -> str:
        """Return it as the last members of an event."""
        case = self.case

        def sizes(closed: Iterable[Closed]) -> list[dict[str, str]]:
            return [
                {
                    "market": instruments[index].name,
                    "size": instruments[index].lot.format(lots),
                    "notional": format_scaled(value, MICRO_EXPONENT),
                }
                for index, lots, value in closed
            ]

        told: dict[str, Any] = {
            "liquidated_notional": format_scaled(self.notional_micros, MICRO_EXPONENT),
            "fills": self.fills,
        }
        if self.bad_debt_micros is not None:
            told["bad_debt"] = format_scaled(self.bad_debt_micros, MICRO_EXPONENT)
        told["opened_us"] = case.opened_us
        told["duration_us"] = self.ended_us - case.opened_us
        told["closed_sizes"] = sizes(case.closed)
        told["penalty"] = format_scaled(case.penalty_micros, MICRO_EXPONENT)
        told["refused_fills"] = case.refused
        if case.fund_micros:
            told["fund_contribution"] = format_scaled(case.fund_micros, MICRO_EXPONENT)
        if case.given:
            told["deleveraged_sizes"] = sizes(case.given)
        if case.paid_micros:
            told["insurance_paid"] = format_scaled(case.paid_micros, MICRO_EXPONENT)
        if case.socialised_micros:
            told["socialised_loss"] = format_scaled(case.socialised_micros, MICRO_EXPONENT)
        if case.claims is not None and case.claims.reports:
            told["reports"] = dict(sorted(case.claims.reports.items()))
        return f",{encode(told)[1:-1].decode()}"


class Announcer:
    """Writer of one partition's events.

    Parameters
    ----------
    partition : int
        Named in events.
    rulebook, columns, marks
        Names, state and prices; figures are those last written to the columns.
    cases : CaseBook
        What offers use budgets of, the shard's.
    offsets : mapping of str to int
        Next offset of each input, kept current by the shard.
    """

    def __init__(
        self,
        partition: int,
        rulebook: CompiledRulebook,
        columns: Columns,
        marks: MarkBook,
        cases: CaseBook,
        offsets: Mapping[str, int],
    ) -> None:
        self.partition = partition
        self.rulebook = rulebook
        self.columns = columns
        self.marks = marks
        self.cases = cases
        self._offsets = offsets
        self._rulebook_text = encode(rulebook.reference).decode()
        self.markets = [encode(instrument.name).decode() for instrument in rulebook.instruments]
        self.assets = [encode(asset.name).decode() for asset in rulebook.assets]
        self.lot_numerators = np.array([i.lot.numerator for i in rulebook.instruments], np.int64)
        self.lot_places = np.array([-i.lot.exponent for i in rulebook.instruments], np.int64)
        self.asset_places = np.array([-a.quantum_exponent for a in rulebook.assets], np.int64)
        self.cost_places = self.asset_places[[i.settles_in for i in rulebook.instruments]]
        self.bears_interest = any(
            asset.deposit_index_feed is not None or asset.borrow_index_feed is not None
            for asset in rulebook.assets
        )
        self.describer = Describer(rulebook, columns, marks)
        self.planner = Planner(rulebook, columns, marks)

    def about(self, units: Int64, cause: Cause) -> Batch:
        """Look at units together; their figures are current."""
        return Batch(self, units, cause)

    def book_name(self, book: int) -> str:
        """Return the wire name of a book."""
        return CROSS_NAME if book == CROSS else self.rulebook.instruments[book].name

    def trigger(self, cause: Cause) -> str:
        """Return the record that decided, as a member of an event."""
        return f'"trigger":{{"topic":"{cause.topic}","offset":{cause.offset}}}'

    def basis(self) -> str:
        """Return what a decision rests on, as the last members of an event."""
        inputs = encode(self._offsets).decode()
        return f'"inputs":{inputs},"rulebook":{self._rulebook_text}'

    def terms(self) -> str:
        """Return of `basis` what an offer may not be taken without; the rest is the event's."""
        trades = self._offsets[TRADES]
        return f'"inputs":{{"{TRADES}":{trades}}},"rulebook":{self._rulebook_text}'

    def watermark(self, open_cases: int) -> Emit:
        """Return the sign of life of a partition: all up to here is judged and told."""
        value = (
            f'{{"schema_version":1,"kind":"watermark","partition":{self.partition},'
            f'"ts_us":{self.marks.stream_us},"mark_seq":{self.marks.seq},'
            f'"open_cases":{open_cases},{self.basis()}}}'
        )
        return Emit(LIQUIDATION_STATE, WATERMARK_KEY, value.encode())


class Batch:
    """Units judged together, and the text of what is said of them; by place in the batch.

    Attributes
    ----------
    unit, account, status, preset, revision, episode, verdict, raw_equity_micros : list of int
        As the columns had them when the batch was made.
    now_us : int
        Stream time.
    has_positions, can_close, is_quarantined : list
        Whether it has positions; whether a liquidation has something to close; whether the account
        is out of judgement.
    """

    def __init__(self, announcer: Announcer, units: Int64, cause: Cause) -> None:
        self._announcer = announcer
        columns, rulebook, marks = announcer.columns, announcer.rulebook, announcer.marks
        table, figures = columns.units, columns.figures
        self._units = units
        self.now_us = marks.stream_us
        accounts = table.account[units]
        self.unit: list[int] = units.tolist()
        self.account: list[int] = accounts.tolist()
        self.status: list[int] = table.status[units].tolist()
        self.revision: list[int] = table.revision[units].tolist()
        self.episode: list[int] = table.episode[units].tolist()
        self.verdict: list[int] = figures.verdict[units].tolist()
        self.has_positions: list[bool] = (table.position_count[units] > 0).tolist()
        self.can_close: list[bool] = [
            has_positions or can_close(unit, table, columns.balances, rulebook.rules)
            for unit, has_positions in zip(self.unit, self.has_positions, strict=True)
        ]
        self.is_quarantined: list[int] = columns.accounts.quarantined[accounts].tolist()
        self.preset: list[int] = table.preset[units].tolist()
        self._flags: list[int] = table.flags[units].tolist()
        self._book: list[int] = table.book[units].tolist()
        equity, need = figures.equity_micros[units], figures.requirement_micros[units]
        raw = figures.raw_equity_micros[units]
        shortfall = np.maximum(0, need[:, INITIAL] - equity[:, INITIAL])
        shortage = np.maximum(0, need[:, LIQUIDATION_END] - equity[:, LIQUIDATION_END])
        clear_ppm = rulebook.rules.clear_ppm.tolist()
        amounts = np.empty((units.size, _AMOUNTS), np.int64)
        amounts[:, 0:3] = equity
        amounts[:, 3:6] = need
        amounts[:, _RAW] = raw
        amounts[:, _SHORTFALL] = shortfall
        amounts[:, _SHORTAGE] = shortage
        # A share of the requirement, rounded up, less health: beyond int64 on the way.
        amounts[:, _DEPOSIT] = [
            max(0, -(-clear_ppm[preset] * required // PPM) - has + required)
            for preset, has, required in zip(
                self.preset, equity[:, INITIAL].tolist(), need[:, INITIAL].tolist(), strict=True
            )
        ]
        self._text = decimal_texts(
            amounts.reshape(-1), np.full(amounts.size, -MICRO_EXPONENT, np.int64)
        )
        self.raw_equity_micros: list[int] = raw.tolist()
        self._shortage: list[int] = shortage.tolist()
        self._maintenance: list[int] = need[:, MAINTENANCE].tolist()
        self._key = columns.keys_of(self.account)
        self._ledger: _Ledger | None = None
        self._when = f'"partition":{announcer.partition},"ts_us":{self.now_us}'
        self._mark_seq = f'"mark_seq":{marks.seq}'
        self._trigger = announcer.trigger(cause)
        self._basis = announcer.basis()
        self._terms = announcer.terms()
        self._headers: EventHeaders | None = None

    def __len__(self) -> int:
        return len(self.unit)

    def names(self, at: int) -> tuple[str, str]:
        """Return a unit's account id and subaccount."""
        return self._key[at].decode(), self._announcer.book_name(self._book[at])

    def pause(self, at: int) -> str | None:
        """Return why nothing of a unit's may be offered, as `MarkBook.pause_of`."""
        marks = self._announcer.marks
        if not (marks.is_all_paused or marks.paused):
            return None
        return marks.pause_of(self._markets(at))

    def pause_news(self, at: int) -> str | None:
        """Return what was done to offers of a unit just now, as `MarkBook.news_of`."""
        return self._announcer.marks.news_of(self._markets(at))

    def _markets(self, at: int) -> set[int]:
        positions = self._announcer.columns.positions_of(self.unit[at])
        return {instrument for instrument, _, _ in positions}

    def status_event(self, at: int, before: int, status: int) -> Emit:
        """Return the event of a status that changed."""
        key = self._key[at]
        flags = self._flags[at]
        labels = (
            ",".join(f'"{label}"' for bit, label in FLAG_LABELS.items() if flags & bit)
            if flags
            else ""
        )
        first = at * _AMOUNTS
        text = self._text
        value = (
            f'{{"schema_version":1,"account_id":"{key.decode()}",'
            f'"subaccount":"{self._announcer.book_name(self._book[at])}",{self._when},'
            f'{self._mark_seq},"status":"{STATUS_LABELS[status]}",'
            f'"previous_status":"{STATUS_LABELS[before]}",'
            f'"verdict":"{VERDICT_LABELS[self.verdict[at]]}",'
            f'"quarantined":{"true" if self.is_quarantined[at] else "false"},"flags":[{labels}],'
            f"{self._amounts(at)},"
            f'"shortfall":"{text[first + _SHORTFALL]}",'
            f'"deposit_to_clear":"{text[first + _DEPOSIT]}",'
            f"{self._trigger},{self._basis}}}"
        )
        return Emit(MARGIN_STATUS, key, value.encode())

    def case_event(
        self,
        at: int,
        status: int,
        event: str,
        reason: str,
        *,
        episode: int,
        revision: int,
        case: Case,
        expires_us: int | None,
        ending: Ending | None = None,
        asked: Asked | None = None,
    ) -> tuple[Emit, Emit]:
        """Return one revision of a case, and what stands of the case after it.

        It is an offer with its orders if it expires, else without; what it offers is noted in
        the case. With `ending` it is the last, and nothing stands any more. A claim `asked` for is
        granted of it if anything of it is free; the event then is ``claimed``.
        """
        announcer = self._announcer
        ledger = self._ledger
        if ledger is None:
            ledger = self._ledger = _Ledger(announcer, self._units)
        key = self._key[at]
        account_id = key.decode()
        subaccount = announcer.book_name(self._book[at])
        legs = rest = ""
        case.offer(())
        announcer.cases.budget.free(self.unit[at])
        if expires_us is not None:
            legs, rest = self._legs(at, ledger, case, expires_us)
            if announcer.marks.is_dry_run:
                rest += '"dry_run":true,'
        lease = announcer.rulebook.policies[self.preset[at]].lease
        if case.claims is not None:
            case.claims.refit(case.orders)
            if asked is not None and lease and case.claims.grant(asked, case.orders, lease):
                event, reason = "claimed", "claim"
        if lease is not None and expires_us is not None:
            told = {"duration_us": lease.duration_us, "max_share_ppm": lease.max_share_ppm}
            rest += f'"lease":{encode(told).decode()},'
            if case.claims is not None:
                rest += case.claims.text(announcer.rulebook.instruments)
        shortage = self._text[at * _AMOUNTS + _SHORTAGE]
        account_of_case = "" if ending is None else ending.text(announcer.rulebook.instruments)
        liquidation_id = f"{account_id}:{subaccount}:{episode}"
        about = (
            f'"liquidation_id":"{liquidation_id}",'
            f'"revision":{revision},"event":"{event}","reason":"{reason}",'
        )
        until = (
            f'{self._when},"expires_us":{"null" if expires_us is None else expires_us},'
            f'"verdict":"{VERDICT_LABELS[self.verdict[at]]}",'
        )
        value = (
            f'{{"schema_version":1,{about}'
            f'"account_id":"{account_id}","subaccount":"{subaccount}","episode":{episode},'
            f'{until}"status":"{STATUS_LABELS[status]}",'
            f'{self._mark_seq},{self._amounts(at)},"shortfall":"{shortage}",'
            f'"positions":[{ledger.positions(at)}],"collateral":[{ledger.collateral(at)}],'
            f'"legs":[{legs}],{rest}{self._trigger},{self._basis}{account_of_case}}}'
        )
        stands = None
        if ending is None:
            stands = (
                f'{{"schema_version":1,"kind":"case",{about}{until}{self._mark_seq},'
                f'"legs":[{legs}],{rest}{self._terms}}}'
            ).encode()
        unit = f"{account_id}:{subaccount}".encode()
        if self._headers is None:
            self._headers = EventHeaders(LIQUIDATIONS, announcer.partition, self.now_us)
        headers = self._headers.block(liquidation_id, revision, event, account_id)
        return (
            Emit(LIQUIDATIONS, key, value.encode(), headers=headers),
            Emit(LIQUIDATION_STATE, unit, stands),
        )

    def _amounts(self, at: int) -> str:
        first = at * _AMOUNTS
        a, b, c, d, e, f, raw = self._text[first : first + _SHORTFALL]
        return (
            f'"equity":{{"initial":"{a}","liquidation_end":"{b}","maintenance":"{c}"}},'
            f'"requirement":{{"initial":"{d}","liquidation_end":"{e}","maintenance":"{f}"}},'
            f'"raw_equity":"{raw}"'
        )

    def _legs(self, at: int, ledger: _Ledger, case: Case, expires_us: int) -> tuple[str, str]:
        """Return the orders that restore health(liquidation_end), and what else is said of them."""
        announcer = self._announcer
        policy = announcer.rulebook.policies[self.preset[at]]
        elapsed_us = self.now_us - case.opened_us
        if policy.is_plain:
            legs = plan_close(
                ledger.open_positions(at),
                policy,
                shortage_micros=self._shortage[at],
                raw_equity_micros=self.raw_equity_micros[at],
                maintenance_micros=self._maintenance[at],
            )
            return self._offered(at, policy, case, legs, elapsed_us, expires_us)
        unit = self.unit[at]
        plan = announcer.planner.plan(unit, announcer.describer.figures(unit), elapsed_us)
        swaps = encode([swap_text(announcer.rulebook, swap) for swap in plan.swaps]).decode()
        share = "null" if plan.share_ppm is None else plan.share_ppm
        rest = f'"swaps":{swaps},"share_ppm":{share},'
        auction = policy.auction
        if auction is None or plan.auction_ppm is None:
            offered, withheld = self._offered(at, policy, case, plan.legs, elapsed_us, expires_us)
            return offered, rest + withheld
        case.offer(plan.legs, tuple(map(_terms_of, plan.legs)))
        told = {
            "started_us": case.opened_us,
            **auction._asdict(),
            "share_ppm": plan.auction_ppm,
        }
        return self._leg_texts(plan.legs), f'{rest}"dutch_auction":{encode(told).decode()},'

    def _offered(
        self,
        at: int,
        policy: LiquidationPolicy,
        case: Case,
        legs: tuple[CloseLeg, ...],
        elapsed_us: int,
        expires_us: int,
    ) -> tuple[str, str]:
        """Offer of a plan's orders what is not to be withheld; return it and the rest as text."""
        if not policy.is_rationed:
            case.offer(legs)
            return self._leg_texts(legs), ""
        announcer, unit = self._announcer, self.unit[at]
        given = Ration(
            account=self.account[at],
            preset=self.preset[at],
            now_us=self.now_us,
            elapsed_us=elapsed_us,
            shortage_micros=self._shortage[at],
            freed_micros=case.freed_micros,
            is_bankrupt=self.verdict[at] == VERDICT_BANKRUPT,
        )
        rationed = ration(policy, legs, given, announcer.cases.budget)
        if rationed.withheld:
            figures = announcer.describer.figures(unit)
            offered = announcer.planner.resized(unit, figures, legs, rationed.lots)
        else:
            offered = legs
        for instrument in rationed.exhausted:
            assert policy.window is not None
            announcer.cases.budget.throttle.exhaust(
                policy.window, instrument, given.preset, given.now_us
            )
        case.offer(offered, rationed.terms)
        announcer.cases.hold_budget(unit, self.account[at], expires_us)
        return self._leg_texts(offered), rationed.text

    def _leg_texts(self, legs: Sequence[CloseLeg]) -> str:
        parts = []
        for leg in legs:
            instrument, side, size_lots, mark_price, limit_price, bankruptcy, fund_fee_ppm = leg
            exponent = instrument.price_exponent
            parts.append(
                f'{{"market":{self._announcer.markets[instrument.index]},"side":"{side}",'
                f'"size":"{instrument.lot.format(size_lots)}",'
                f'"mark_price":"{format_scaled(mark_price, exponent)}",'
                f'"limit_price":"{format_scaled(limit_price, exponent)}",'
                f'"bankruptcy_price":"{format_scaled(bankruptcy, exponent)}",'
                f'"fund_fee_ppm":{fund_fee_ppm}}}'
            )
        return ",".join(parts)


def _terms_of(leg: CloseLeg) -> Terms:
    """Return what prices an auctioned order."""
    return leg.instrument.index, 0, 0, leg.mark_price, leg.bankruptcy_price


class _Ledger:
    """Positions and balances of a batch, as text; by place in the batch."""

    def __init__(self, announcer: Announcer, units: Int64) -> None:
        self._announcer = announcer
        columns = announcer.columns
        table, positions, balances = columns.units, columns.positions, columns.balances
        rows, self._position_first = _rows(table.first_position[units], table.position_count[units])
        markets = positions.instrument[rows].astype(np.int64)
        sizes = positions.size_lots[rows]
        self._market: list[int] = markets.tolist()
        self._size: list[int] = sizes.tolist()
        numerators = announcer.lot_numerators[markets]
        self._cost_text = decimal_texts(
            positions.cost_basis_micros[rows], announcer.cost_places[markets]
        )
        if (np.abs(sizes) <= _INT64_MAX // numerators).all():
            self._size_text = decimal_texts(sizes * numerators, announcer.lot_places[markets])
        else:
            lots = [i.lot for i in announcer.rulebook.instruments]
            self._size_text = [
                lots[m].format(s) for m, s in zip(self._market, self._size, strict=True)
            ]
        rows, self._balance_first = _rows(table.first_balance[units], table.balance_count[units])
        assets = balances.asset[rows].astype(np.int64)
        self._asset: list[int] = assets.tolist()
        quanta = balances.quanta[rows]
        if announcer.bears_interest:
            held, marks = announcer.rulebook.assets, announcer.marks
            quanta = np.array(
                [
                    marks.unscaled(held[asset], amount)
                    for asset, amount in zip(self._asset, quanta.tolist(), strict=True)
                ],
                np.int64,
            )
        self._amount_text = decimal_texts(quanta, announcer.asset_places[assets])
        self._price_text: dict[int | None, str] = {None: "null"}

    def positions(self, at: int) -> str:
        """Return a unit's positions."""
        instruments, markets = self._announcer.rulebook.instruments, self._announcer.markets
        parts = []
        for row in range(self._position_first[at], self._position_first[at + 1]):
            market = self._market[row]
            parts.append(
                f'{{"market":{markets[market]},"size":"{self._size_text[row]}",'
                f'"cost_basis":"{self._cost_text[row]}",'
                f'"mark_price":{self.price(instruments[market].mark_feed)}}}'
            )
        return ",".join(parts)

    def collateral(self, at: int) -> str:
        """Return a unit's balances."""
        assets, names = self._announcer.rulebook.assets, self._announcer.assets
        parts = []
        for row in range(self._balance_first[at], self._balance_first[at + 1]):
            asset = self._asset[row]
            parts.append(
                f'{{"asset":{names[asset]},"amount":"{self._amount_text[row]}",'
                f'"index_price":{self.price(assets[asset].index_feed)}}}'
            )
        return ",".join(parts)

    def open_positions(self, at: int) -> list[OpenPosition]:
        """Return a unit's positions at their marks, for sizing; all marks must be known.

        Those in paused markets stay as they are.
        """
        instruments = self._announcer.rulebook.instruments
        price = self._announcer.marks.marks.price
        found = []
        for row in range(self._position_first[at], self._position_first[at + 1]):
            instrument = instruments[self._market[row]]
            if instrument.index in self._announcer.marks.paused:
                continue
            found.append(
                OpenPosition(instrument, self._size[row], int(price[instrument.mark_feed]))
            )
        return found

    def price(self, feed: int | None) -> str:
        """Return the last price of a feed as JSON; null without one, and for no feed."""
        text = self._price_text.get(feed)
        if text is None:
            price = None if feed is None or feed == NONE else self._announcer.marks.price_text(feed)
            text = self._price_text[feed] = "null" if price is None else f'"{price}"'
        return text


def _rows(first: Int64, count: Int32) -> tuple[Int64, list[int]]:
    """Return the arena rows of all blocks behind each other, and where each block begins there."""
    counts = count.astype(np.int64)
    ends = np.cumsum(counts)
    rows = np.arange(ends[-1] if ends.size else 0) + np.repeat(first - (ends - counts), counts)
    return rows, [0, *ends.tolist()]
