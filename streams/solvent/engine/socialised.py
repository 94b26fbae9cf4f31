"""The last resort of the loss waterfall: what the fund cannot pay, all who have equity bear.

The ledger's side of it, kept beside the fund (`solvent.engine.waterfall`). A claim that the fund
pays in part becomes a round; one is at work at a time, the others wait in their order.

==============  =================  ==============================================================
stage           asked in a frame   answered by every partition
==============  =================  ==============================================================
``waiting``     nothing
``weighing``    ``weigh``          ``weighed``: the equity of its accounts that can bear a loss
``bearing``     ``socialise``      ``socialised``: what they bore, in several records if many did
==============  =================  ==============================================================

Who bears is said where it is booked (`solvent.engine.bearers`). Of a loss ``L`` over a base ``B``
each partition books its part, rounded up; what that comes to beyond the loss, less than a micro a
partition, is the fund's. Where accounts lost equity between both questions less comes together,
and what is missing is asked for again; nothing of it is left to bear only when nobody has equity.

Each order adds to the **index**, ``ceil(L * 1e12 / B)``: picos of the settlement currency that a
whole unit of equity bears. Amounts are micros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from solvent.domain.losses import socialised_index
from solvent.errors import PartitionError
from solvent.units import MICROS
from solvent.wire.losses import Claim, FundSocialised, Socialised, Weighed

__all__ = ["Round", "Rounds"]


@dataclass(slots=True)
class Round:
    """A claim that the fund paid in part, and what came together of the rest."""

    request: int
    liquidation_id: str
    account_id: str
    subaccount: str
    claimed_micros: int
    paid_micros: int  # by the fund, which has set it aside
    gathered_micros: int = 0
    stage: str = "waiting"
    weighed: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    answered: int = 0

    @property
    def missing_micros(self) -> int:
        """What nobody has borne yet."""
        return self.claimed_micros - self.paid_micros - self.gathered_micros


class Rounds:
    """Rounds of socialised losses: those that stand, and what all before them came to.

    Parameters
    ----------
    partitions : int
        Margin partitions, each of which answers every question.

    Attributes
    ----------
    count, gathered_micros, index : int
        Rounds so far, what accounts bore in them, and the cumulative index (picos a unit).
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._standing: list[Round] = []
        self.count = self.gathered_micros = self.index = 0

    @property
    def set_aside_micros(self) -> int:
        """What the fund and accounts gave for claims that are not answered yet."""
        return sum(one.paid_micros + one.gathered_micros for one in self._standing)

    def begin(self, claim: Claim, paid_micros: int) -> None:
        """Take a claim of which the fund pays so much."""
        self.count += 1
        self._standing.append(
            Round(
                self.count,
                claim.liquidation_id,
                claim.account_id,
                claim.subaccount,
                claim.amount_micros,
                paid_micros,
            )
        )

    def ask(self) -> Iterator[dict[str, Any]]:
        """Weigh for the first round, unless it is at work."""
        if self._standing and self._standing[0].stage == "waiting":
            first = self._standing[0]
            first.stage = "weighing"
            yield {"kind": "weigh", **self._about(first), "loss_micros": first.missing_micros}

    @staticmethod
    def _about(one: Round) -> dict[str, Any]:
        return {"request": one.request, "liquidation_id": one.liquidation_id}

    def hear(self, answer: Weighed | Socialised) -> tuple[list[dict[str, Any]], Round | None]:
        """Take an answer; return what is asked next, and the round if that ended it.

        Raises
        ------
        PartitionError
            It was not asked for.
        """
        stage, partition = "bearing", str(answer.partition)
        if isinstance(answer, Weighed):
            stage = "weighing"
        one = next((r for r in self._standing if r.request == answer.request), None)
        if one is None or one.stage != stage:
            msg = f"losses.v1: {stage} of request {answer.request}, which does not wait for it"
            raise PartitionError(msg)
        if isinstance(answer, Weighed):
            one.weighed[partition] = answer.equity_micros
            one.answered += 1
        else:
            borne = sum(micros for _, _, micros in answer.borne)
            one.taken[partition] = one.taken.get(partition, 0) + borne
            one.answered += answer.rest == 0
        if one.answered < self._partitions:
            return [], None
        one.answered = 0
        return self._order(one) if stage == "weighing" else self._close(one)

    def _order(self, one: Round) -> tuple[list[dict[str, Any]], Round | None]:
        bases = [one.weighed[str(partition)] for partition in range(self._partitions)]
        one.weighed = {}
        base = sum(bases)
        if not base:
            return [], self._end(one)
        loss = min(base, one.missing_micros)
        self.index += socialised_index(loss * MICROS, base)
        one.stage = "bearing"
        order = {"kind": "socialise", **self._about(one), "loss_micros": loss}
        return [{**order, "base_micros": base, "bases": bases, "index": self.index}], None

    def _close(self, one: Round) -> tuple[list[dict[str, Any]], Round | None]:
        taken, one.taken = sum(one.taken.values()), {}
        one.gathered_micros += taken
        self.gathered_micros += taken
        if not taken or one.missing_micros <= 0:
            return [], self._end(one)
        one.stage = "waiting"
        return list(self.ask()), None

    def _end(self, one: Round) -> Round:
        self._standing.remove(one)
        return one

    # -- in the row of the fund

    def told(self) -> dict[str, Any]:
        """Return what the fund's row has of it."""
        return {
            "rounds": self.count,
            "gathered_micros": self.gathered_micros,
            "index": self.index,
            "standing": [asdict(one) for one in self._standing],
        }

    def load(self, told: FundSocialised) -> None:
        """Take it from the fund's row, replacing all."""
        self.count, self.gathered_micros = told.rounds, told.gathered_micros
        self.index = told.index
        self._standing = [Round(**one) for one in told.standing]
