"""An independent reader of liquidation cases: what topics say, held against what must hold of it.

It knows no engine. Given the inputs of one partition in the order in which they were applied, and
what was published, it follows every case: revisions without a gap, one end and nothing behind it,
no offer where markets are paused, what each fill that names a case may be told (the table in
``README.md``), what was closed against what was offered, and budgets of rolling windows. Amounts
are decimals, times microseconds of event time.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from solvent.wire.topics import COLLATERAL, MARKS, TRADES

__all__ = ["CaseReader", "Window"]

_ENDS = {"closed", "recovered"}
_OFFERS = {"opened", "revised"}
_LATE, _WRONG_SIDE, _OVER, _OFF_PRICE = "SLV-206", "SLV-207", "SLV-208", "SLV-209"
#: Where an auction's price may be rounded to: a tick of the markets of these tests.
_TICK = Fraction(1, 2)

_Unit = tuple[str, str]


class _Input(Protocol):
    @property
    def offset(self) -> int: ...
    @property
    def value(self) -> bytes | None: ...


class Window(NamedTuple):
    """Budgets of a rolling window: its span, and notional in settlement currency."""

    span_us: int
    market: Decimal
    account: Decimal


@dataclass
class _Leg:
    """One order that stands: coins left, above 0, and the price it may not go beyond."""

    side: str
    left: Decimal
    limit: Decimal
    mark: Decimal
    bankruptcy: Decimal


@dataclass
class _Standing:
    """A case that stands, as its last revision tells it."""

    event: dict[str, Any]
    opened_us: int
    legs: dict[str, _Leg] = field(default_factory=dict)
    positions: dict[str, Decimal] = field(default_factory=dict)
    closed: Counter[str] = field(default_factory=Counter)
    counted: int = 0
    refused: int = 0
    #: Whether its ledger, or pauses, changed while it could not be judged: its offer is void.
    is_void: bool = False


class CaseReader:
    """Follows the cases of one partition.

    Parameters
    ----------
    partition : int
        Which.
    window : Window, optional
        Budgets of all presets, if there are any.
    """

    def __init__(self, partition: int, window: Window | None = None) -> None:
        self.partition = partition
        self.cases: dict[_Unit, _Standing] = {}
        self.ended: list[dict[str, Any]] = []
        #: By event and reason, and of fills by code; a fill that counts has the code "".
        self.seen: Counter[tuple[str, str]] = Counter()
        self.now_us = 0
        self._window = window
        self._episodes: Counter[_Unit] = Counter()
        self._statuses: dict[_Unit, str] = {}
        self._quarantined: dict[str, bool] = {}
        self._pauses: dict[str, Any] = {}
        self._fills: list[tuple[int, str, str, Decimal]] = []  # that used a budget
        self._ids: set[tuple[str, str, str]] = set()

    # -- what was published

    def follow(
        self,
        inputs: Iterable[tuple[str, _Input]],
        *,
        events: Iterable[dict[str, Any]],
        statuses: Iterable[dict[str, Any]],
        rejects: Iterable[dict[str, Any]],
    ) -> None:
        """Take inputs in the order in which they were applied, and all that came of them."""
        due = _by_trigger(events), _by_trigger(statuses)
        refused = {(each["topic"], each["offset"]): each for each in rejects}
        for topic, record in inputs:
            place = topic, record.offset
            concerned = self._take_input(topic, record, refused.pop(place, None))
            passed = defaultdict[_Unit, set[str]](set)  # statuses that a unit left just now
            for status in due[1].pop(place, ()):
                self._take_status(status, passed)
            told = due[0].pop(place, [])
            for unit in concerned - {(e["account_id"], e["subaccount"]) for e in told}:
                self._rest(unit)
            for event in told:
                self._take_event(event, passed)
            if topic == MARKS:
                self._check_pauses()
        assert not any(due), f"of records that were not applied: {due}"
        assert not refused, f"refused, but not applied: {refused}"

    def _take_input(self, topic: str, record: _Input, reject: dict[str, Any] | None) -> set[_Unit]:
        """Take one input; return the units whose ledger it may have changed."""
        if topic == MARKS:
            assert reject is None
            return self._hear(json.loads(record.value or b""))
        if reject is not None and not reject.get("applied"):
            return set()
        if topic not in {TRADES, COLLATERAL}:
            assert reject is None
            account_id = json.loads(record.value or b"")["account_id"]
            return {unit for unit in self.cases if unit[0] == account_id}
        told = json.loads(record.value or b"")
        unit = told["account_id"], told["subaccount"]
        name = topic, told["account_id"], told["trade_id" if topic == TRADES else "move_id"]
        if name in self._ids:
            assert reject is None, reject
            return set()
        self._ids.add(name)
        if topic == TRADES:
            self._hold(unit, told, reject)
        return {unit}

    def _hear(self, frame: dict[str, Any]) -> set[_Unit]:
        self.now_us = frame["ts_us"]
        if "pauses" in frame:
            held = {u: {m for m, n in c.positions.items() if n} for u, c in self.cases.items()}
            before = {market: self._is_paused(market) for each in held.values() for market in each}
            is_changed = bool(self._pauses.get("dry_run")) != bool(frame["pauses"].get("dry_run"))
            self._pauses = frame["pauses"]
            changed = {m for m, was_paused in before.items() if was_paused != self._is_paused(m)}
            return {unit for unit, its in held.items() if is_changed or its & changed}
        if "rulebook" in frame:
            return set(self.cases)
        answers = frame.get("losses", [])
        given = {(o[0], o[1]) for each in answers for o in each.get("orders", ())}
        paid = {(a["account_id"], a["subaccount"]) for a in answers if a["kind"] == "payment"}
        return given | paid

    def _take_status(self, told: dict[str, Any], passed: dict[_Unit, set[str]]) -> None:
        unit = told["account_id"], told["subaccount"]
        passed[unit].add(told["previous_status"])
        before = self._statuses.get(unit, "healthy")
        if before == "unknown" and told["quarantined"] and self._quarantined[unit[0]]:
            before = told["previous_status"]  # told of an account that had no unit until now
            assert before in {"healthy", "unknown"}
        assert told["previous_status"] == before, f"{unit} was {before}, not as told: {told}"
        self._statuses[unit] = told["status"]
        self._quarantined[told["account_id"]] = told["quarantined"]

    def _take_event(self, event: dict[str, Any], passed: dict[_Unit, set[str]]) -> None:
        unit = event["account_id"], event["subaccount"]
        name = f"{unit[0]}:{unit[1]}:{event['episode']}"
        assert event["liquidation_id"] == name
        assert event["partition"] == self.partition
        known = {self._statuses[unit], *passed[unit]}
        assert event["status"] in known, f"{name}: status is of {known}, not as told: {event}"
        assert not self._quarantined.get(unit[0]), f"{name}: quarantined, and an event"
        kind = event["event"]
        self.seen[kind, event["reason"]] += 1
        case = self.cases.get(unit)
        if case is None:
            assert event["revision"] == 1
            # Escalated at once: closed before, and its collateral fell below its debt since.
            is_claim = (kind, event["reason"]) == ("escalated", "insurance")
            is_claim = is_claim and self._episodes[unit] > 0
            assert is_claim or kind in {"opened", "suspended"}, f"{name}: begins as {kind}"
            assert event["episode"] == self._episodes[unit] + 1
            self._episodes[unit] += 1
            case = self.cases[unit] = _Standing(event, event["ts_us"])
        else:
            assert name == case.event["liquidation_id"]
            assert event["revision"] == case.event["revision"] + 1, f"{name}: {event['revision']}"
            assert kind != "opened"
        case.event, case.is_void = event, False
        case.legs = {
            leg["market"]: _Leg(
                leg["side"],
                *(Decimal(leg[n]) for n in ("size", "limit_price", "mark_price")),
                Decimal(leg["bankruptcy_price"]),
            )
            for leg in event["legs"]
        }
        case.positions = {p["market"]: Decimal(p["size"]) for p in event["positions"]}
        if kind in _OFFERS:
            self._check_offer(unit, event)
        else:
            assert (event["legs"], event["expires_us"]) == ([], None), f"{name}: offers in {kind}"
        if kind in _ENDS:
            self._check_end(case, event)
            del self.cases[unit]
            self.ended.append(event)

    def _check_offer(self, unit: _Unit, event: dict[str, Any]) -> None:
        case = self.cases[unit]
        assert event["expires_us"] > event["ts_us"] == self.now_us
        assert bool(event.get("dry_run")) == bool(self._pauses.get("dry_run"))
        for market, leg in case.legs.items():
            assert not self._is_paused(market), f"{event['liquidation_id']} offers in {market}"
            position = case.positions[market]
            assert (leg.side == "sell") == (position > 0)
            assert 0 < leg.left <= abs(position)
        if self._window is not None and event["verdict"] != "bankrupt":
            self._check_budgets(unit, case, self._window)
        planned: Counter[str] = Counter()
        for each in (*event["legs"], *event.get("withheld", ())):
            planned[each["market"]] += Decimal(each["size"])  # type: ignore[assignment]
        for market, leg in case.legs.items():
            assert leg.left <= planned[market] * event.get("released_ppm", 10**6) / 10**6

    def _check_end(self, case: _Standing, event: dict[str, Any]) -> None:
        closed = {each["market"]: Decimal(each["size"]) for each in event["closed_sizes"]}
        assert closed == dict(case.closed), f"{event['liquidation_id']}: {closed}, {case.closed}"
        assert event["refused_fills"] == case.refused, event
        assert event["opened_us"] == case.opened_us
        assert event["duration_us"] == event["ts_us"] - case.opened_us
        is_back = self._statuses[event["account_id"], event["subaccount"]] in {
            *("healthy", "margin_call"),
        }
        assert is_back or event["reason"] == "exhausted", event

    # -- pauses

    def _is_paused(self, market: str) -> bool:
        told = self._pauses
        if told.get("all") or market in {*told.get("markets", ()), *told.get("halted", ())}:
            return True
        return any(each.get("market", market) == market for each in told.get("breakers", ()))

    def _rests(self, unit: _Unit) -> bool:
        """Whether nothing may be said of a unit: it cannot be judged."""
        return self._statuses.get(unit) == "unknown" or self._quarantined.get(unit[0], False)

    def _check_pauses(self) -> None:
        """What stands is as of the pauses in force, unless it rests."""
        for unit, case in self.cases.items():
            if self._rests(unit) or case.event["event"] not in _OFFERS:
                continue
            for market in case.legs:
                assert not self._is_paused(market), f"{unit} still offers in {market}"
            is_dry_run = bool(case.event.get("dry_run"))
            assert is_dry_run == bool(self._pauses.get("dry_run")), f"{unit}: dry run"

    def _rest(self, unit: _Unit) -> None:
        """Something changed about a unit, and nothing was said of its case."""
        case = self.cases.get(unit)
        if case is None or self._quarantined.get(unit[0]):
            return
        if self._statuses.get(unit) == "unknown" and case.event["event"] in _OFFERS:
            case.is_void = True

    # -- fills

    def _hold(self, unit: _Unit, trade: dict[str, Any], reject: dict[str, Any] | None) -> None:
        """Hold a trade against the case it names; what was refused must have been, and so told."""
        named = trade.get("liquidation_id")
        case = self.cases.get(unit)
        market, size = trade["market"], Decimal(trade["size"])
        signed = size if trade["side"] == "buy" else -size
        if named is None or named.rsplit(":", 1)[0] != f"{unit[0]}:{unit[1]}":
            assert reject is None, f"an ordinary trade: {reject}"
            if case is not None:
                case.positions[market] = case.positions.get(market, Decimal(0)) + signed
            return
        wanted = self._fault(case, trade)
        found = "" if reject is None else reject["code"]
        assert found in wanted, f"{trade}: {found or 'counted'}, not {wanted}"
        self.seen["fill", found] += 1
        if case is None:
            return
        is_of_case = named == case.event["liquidation_id"]
        before = case.positions.get(market, Decimal(0))
        case.positions[market] = before + signed
        if found:
            case.refused += is_of_case
            return
        leg = case.legs[market]
        leg.left -= size
        case.closed[market] += size  # type: ignore[assignment] # decimals count as well
        case.counted += 1
        if not self._quarantined.get(unit[0]):
            assert before * (before + signed) >= 0, f"{trade}: turns {before} round"
        if self._window is not None:
            self._fills.append((self.now_us, unit[0], market, size * leg.mark))

    def _fault(self, case: _Standing | None, trade: dict[str, Any]) -> Sequence[str]:
        """Return the codes a fill may be refused with, "" if it may count."""
        if case is None or case.event["liquidation_id"] != trade["liquidation_id"]:
            return [_LATE]
        expires_us = case.event["expires_us"]
        if not case.legs or case.is_void or trade["ts_us"] > expires_us:
            return [_LATE]
        if self._window is not None and self.now_us >= expires_us:
            return [_LATE]
        leg = case.legs.get(trade["market"])
        if leg is None or leg.left == 0 or leg.side != trade["side"]:
            return [_WRONG_SIDE]
        if Decimal(trade["size"]) > leg.left:
            return [_OVER]
        sign = 1 if leg.side == "sell" else -1
        price, limit, slack = Fraction(trade["price"]), Fraction(leg.limit), Fraction(0)
        auction = case.event.get("dutch_auction")
        if auction is not None:
            share = _share_at(auction, trade["ts_us"] - auction["started_us"])
            limit = Fraction(leg.bankruptcy) + Fraction(leg.mark - leg.bankruptcy) * share
            slack = _TICK
        room = sign * (price - limit)
        if abs(room) < slack:
            return ["", _OFF_PRICE]
        return [""] if room >= 0 else [_OFF_PRICE]

    # -- budgets

    def _check_budgets(self, unit: _Unit, case: _Standing, window: Window) -> None:
        """What is offered and what was filled in the span, together, are within the budgets."""
        used: Counter[tuple[str, str]] = Counter()

        def use(account_id: str, market: str, notional: Decimal) -> None:
            used["market", market] += notional  # type: ignore[assignment]
            used["account", account_id] += notional  # type: ignore[assignment]

        for at_us, account_id, market, notional in self._fills:
            if at_us > self.now_us - window.span_us:
                use(account_id, market, notional)
        for other, standing in self.cases.items():
            expires_us = standing.event["expires_us"] or 0
            if other == unit or (expires_us > self.now_us and not standing.is_void):
                for market, leg in standing.legs.items():
                    use(other[0], market, leg.left * leg.mark)
        for market, leg in case.legs.items():
            assert used["market", market] <= window.market or not leg.left, f"{unit} {market}"
        if case.legs:
            assert used["account", unit[0]] <= window.account, f"{unit}: {used}"


def _by_trigger(told: Iterable[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    found = defaultdict(list)
    for each in told:
        found[each["trigger"]["topic"], each["trigger"]["offset"]].append(each)
    return dict(found)


def _share_at(auction: dict[str, int], elapsed_us: int) -> Fraction:
    """Return what of a book's value is paid: falling fast to the cutoff, then slowly to nothing."""
    start, cutoff = (Fraction(auction[n], 10**6) for n in ("start_ppm", "cutoff_ppm"))
    if elapsed_us < auction["fast_us"]:
        return start - (start - cutoff) * Fraction(max(0, elapsed_us), auction["fast_us"])
    slow = Fraction(elapsed_us - auction["fast_us"], auction["slow_us"])
    return cutoff * max(Fraction(0), 1 - slow)
