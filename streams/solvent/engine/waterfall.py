r"""Who bears what a liquidation could not recover: the fund, those in profit, at last all.

The price shard keeps this ledger, because it is the one place that every margin partition hears
from in one order. Margin shards tell it in ``losses.v1``; it answers in mark frames, which reach
all of them. Both sides write within their slices' transactions, so each word is acted on once.

=================  ==============================  =============================================
told               by                              what follows
=================  ==============================  =============================================
``contribution``   a fill of a case; money that    the fund has more
                   came back
``claim``          a case whose positions are      ``payment``: what the fund pays, at most its
                   closed, the account below 0     balance and the limit of the window
``takeover``       a case nobody closed in time:   ``rank``: every partition is asked for the
                   its position at the bankruptcy  other side of that market
                   price
``ranked``         every partition, to ``rank``    the best ranked of all: ``deleverage``, at the
                                                   price of the takeover
``deleveraged``    every partition, to             what was placed leaves the fund's book; the
                   ``deleverage``                  rest is asked for again, or stays ``unplaced``
``weighed``,       every partition, to ``weigh``   where a loss is socialised, a claim's ``payment``
``socialised``     and ``socialise``               comes when all did (`solvent.engine.socialised`)
=================  ==============================  =============================================

Between takeover and placement the position is the fund's: `Waterfall.held`. A partition gives what
an account still has when the order comes, so nobody ends on the other side, and tells how much that
was; nothing is lost or made between partitions. Of each market one takeover is placed at a time.

Amounts are micros, sizes lots (signed: long above 0), prices feed units, times event time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from solvent.domain.losses import Counterparty, queue_score
from solvent.domain.policy import InsurancePolicy
from solvent.domain.schedule import Grant, grant
from solvent.engine.shard import Emit
from solvent.engine.socialised import Round, Rounds
from solvent.errors import ContractError, PartitionError
from solvent.wire.losses import (
    Claim,
    Contribution,
    Deleveraged,
    FundRow,
    LedgerWord,
    Ranked,
    Socialised,
    Takeover,
    Weighed,
)
from solvent.wire.outputs import decode_fund_row, encode
from solvent.wire.topics import LOSSES

__all__ = ["FUND_ROW_KEY", "Waterfall", "loss_record"]

#: Key of the row of ``price-state.v1``; no feed's name contains a zero byte.
FUND_ROW_KEY: Final = b"\0fund"


def loss_record(partition: int, ts_us: int, kind: str, **members: Any) -> Emit:  # noqa: ANN401
    """Return a record of ``losses.v1``; its key is the partition that tells it."""
    head = {"schema_version": 1, "kind": kind, "partition": partition, "ts_us": ts_us}
    return Emit(LOSSES, str(partition).encode(), encode(head | members))


@dataclass(slots=True)
class _Placement:
    """A takeover being placed: what is left of it, and who has answered."""

    request: int
    market: str
    lots: int
    price: int
    liquidation_id: str
    stage: str = "waiting"  # then "ranking" and "placing", in turn
    answers: dict[str, list[list[Any]]] = field(default_factory=dict)
    placed: dict[str, int] = field(default_factory=dict)


class Waterfall:
    """The insurance fund and what it has taken over.

    Parameters
    ----------
    partitions : int
        Margin partitions, each of which answers every question.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self.rounds = Rounds(partitions)
        self._policy: InsurancePolicy | None = None
        self.fund_micros = 0
        self.received_micros = 0
        self.paid_micros = 0
        self._is_open = False
        self._draws: deque[Grant] = deque()
        self._requests = 0
        self._placements: list[_Placement] = []
        self._unplaced: dict[str, tuple[int, int]] = {}
        self.is_changed = False

    @property
    def held(self) -> dict[str, tuple[int, int]]:
        """Market to the lots the fund has taken over, and the sum of lots times price."""
        held = dict(self._unplaced)
        for placement in self._placements:
            lots, cost = held.get(placement.market, (0, 0))
            cost += placement.lots * placement.price
            held[placement.market] = lots + placement.lots, cost
        return held

    def adopt(self, policy: InsurancePolicy | None) -> None:
        """Follow a policy; the first one opens the fund."""
        self._policy = policy
        if policy is not None and not self._is_open:
            self._is_open = self.is_changed = True
            self.fund_micros = policy.opening_micros

    def take(self, loss: LedgerWord, now_us: int) -> Iterator[dict[str, Any]]:
        """Take a word of a margin shard; yield what frames are to tell."""
        self.is_changed = True
        if isinstance(loss, Contribution):
            self.fund_micros += loss.amount_micros
            self.received_micros += loss.amount_micros
        elif isinstance(loss, Claim):
            yield from self._claimed(loss, now_us)
        elif isinstance(loss, Takeover):
            self._requests += 1
            self._placements.append(
                _Placement(self._requests, loss.market, loss.lots, loss.price, loss.liquidation_id)
            )
            yield from self._ask(loss.market)
        elif isinstance(loss, Weighed | Socialised):
            asked, ended = self.rounds.hear(loss)
            yield from asked
            if ended is not None:
                yield self._settled(ended)
                yield from self.rounds.ask()
        else:
            yield from self._hear(loss)

    def _claimed(self, claim: Claim, now_us: int) -> Iterator[dict[str, Any]]:
        """Pay a claim, or set aside what there is and have all others bear the rest."""
        policy = self._policy
        paid = self._draw(claim.amount_micros, now_us)
        if policy is not None and policy.is_socialising and paid < claim.amount_micros:
            self.rounds.begin(claim, paid)
            yield from self.rounds.ask()
        else:
            yield self._payment(claim, claim.amount_micros, paid)

    def _settled(self, ended: Round) -> dict[str, Any]:
        """Pay a claim what came together; what roundings made more of it is the fund's."""
        gathered = ended.gathered_micros
        surplus = max(0, -ended.missing_micros)
        self.fund_micros += surplus
        self.paid_micros += gathered - surplus
        paid = ended.paid_micros + gathered - surplus
        payment = self._payment(ended, ended.claimed_micros, paid)
        return payment | {"socialised_micros": gathered - surplus}

    def _payment(self, to: Claim | Round, claimed: int, paid: int) -> dict[str, Any]:
        return {
            "kind": "payment",
            "liquidation_id": to.liquidation_id,
            "account_id": to.account_id,
            "subaccount": to.subaccount,
            "claimed_micros": claimed,
            "paid_micros": paid,
            "fund_micros": self.fund_micros,
        }

    def _draw(self, wanted_micros: int, now_us: int) -> int:
        """Take from the fund what it has, up to its limit within a span."""
        paid = min(wanted_micros, max(0, self.fund_micros))
        policy = self._policy
        if policy is not None and policy.draw_span_us is not None:
            assert policy.draw_limit_micros is not None
            span_us = policy.draw_span_us
            while self._draws and self._draws[0].at_us <= now_us - span_us:
                self._draws.popleft()
            paid = grant(
                paid,
                now_us=now_us,
                span_us=span_us,
                cap_micros=policy.draw_limit_micros,
                grants=self._draws,
            )
            if paid:
                self._draws.append(Grant(now_us, paid))
        self.fund_micros -= paid
        self.paid_micros += paid
        return paid

    # -- deleveraging

    def _ask(self, market: str) -> Iterator[dict[str, Any]]:
        """Ask for the other side of the first takeover of a market, unless one is at work."""
        first = next((p for p in self._placements if p.market == market), None)
        if first is not None and first.stage == "waiting":
            first.stage = "ranking"
            first.answers, first.placed = {}, {}
            yield {"kind": "rank", **self._about(first)}

    @staticmethod
    def _about(placement: _Placement) -> dict[str, Any]:
        return {
            "request": placement.request,
            "liquidation_id": placement.liquidation_id,
            "market": placement.market,
            "lots": placement.lots,
            "price": placement.price,
        }

    def _hear(self, answer: Ranked | Deleveraged) -> Iterator[dict[str, Any]]:
        """Take an answer; go on once every partition has answered."""
        stage = "ranking" if isinstance(answer, Ranked) else "placing"
        placement = next((p for p in self._placements if p.request == answer.request), None)
        if placement is None or placement.stage != stage:
            msg = f"losses.v1: {stage} of request {answer.request}, which does not wait for it"
            raise PartitionError(msg)
        partition = str(answer.partition)
        if isinstance(answer, Ranked):
            placement.answers[partition] = [list(row) for row in answer.candidates]
            if len(placement.answers) == self._partitions:
                yield from self._place(placement)
            return
        placement.placed[partition] = sum(fill[2] for fill in answer.fills)
        if len(placement.placed) == self._partitions:
            yield from self._close(placement)

    def _place(self, placement: _Placement) -> Iterator[dict[str, Any]]:
        """Choose among all that partitions ranked: the highest score first, ties by account."""
        candidates = [
            (-queue_score(Counterparty(row[0], *row[2:])), row[0], row[1], row[2])
            for rows in placement.answers.values()
            for row in rows
        ]
        candidates.sort()
        left = abs(placement.lots)
        orders = []
        for _, account_id, subaccount, lots in candidates:
            given = min(left, lots)
            if given:
                orders.append([account_id, subaccount, given])
            left -= given
        placement.answers = {}
        if not orders:
            yield from self._give_up(placement)
            return
        placement.stage = "placing"
        yield {"kind": "deleverage", **self._about(placement), "orders": orders}

    def _close(self, placement: _Placement) -> Iterator[dict[str, Any]]:
        placed = sum(placement.placed.values())
        placement.lots -= placed if placement.lots > 0 else -placed
        if placement.lots and not placed:
            yield from self._give_up(placement)
            return
        if placement.lots:
            placement.stage = "waiting"
        else:
            self._placements.remove(placement)
        yield from self._ask(placement.market)

    def _give_up(self, placement: _Placement) -> Iterator[dict[str, Any]]:
        """Nobody has the other side: the position stays with the fund, and is told."""
        self._placements.remove(placement)
        lots, cost = self._unplaced.get(placement.market, (0, 0))
        cost += placement.lots * placement.price
        self._unplaced[placement.market] = lots + placement.lots, cost
        yield {"kind": "unplaced", **self._about(placement)}
        yield from self._ask(placement.market)

    # -- its row

    def row(self) -> bytes:
        """Return the row of the fund."""
        row: dict[str, Any] = {
            "schema_version": 1,
            "fund_micros": self.fund_micros,
            "received_micros": self.received_micros,
            "paid_micros": self.paid_micros,
            "requests": self._requests,
            "draws": [list(draw) for draw in self._draws],
            "placements": [asdict(p) for p in self._placements],
            "unplaced": self._unplaced,
        }
        if self.rounds.count:
            row["socialised"] = self.rounds.told()
        return encode(row)

    def load(self, value: bytes) -> None:
        """Take the ledger from its row, replacing all.

        Raises
        ------
        PartitionError
            The row cannot be read.
        """
        try:
            row: FundRow = decode_fund_row(value)
        except ContractError as error:
            msg = f"row of the fund: {error.message}"
            raise PartitionError(msg) from error
        self._is_open = True
        self.is_changed = False  # what the constructor opened was opened before
        self.fund_micros, self._requests = row.fund_micros, row.requests
        self.received_micros, self.paid_micros = row.received_micros, row.paid_micros
        self._draws = deque(Grant(*draw) for draw in row.draws)
        self._placements = [_restored(told) for told in row.placements]
        self._unplaced = dict(row.unplaced)
        self.rounds = Rounds(self._partitions)
        if row.socialised is not None:
            self.rounds.load(row.socialised)


def _restored(told: Mapping[str, Any]) -> _Placement:
    return _Placement(**told)
