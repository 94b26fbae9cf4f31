"""A price that comes and goes in waves, and accounts that fall below their margin at known steps.

Canary ``i`` of every partition is long one market that no other account holds, with so much
collateral that it becomes liquidatable at step ``i`` of a wave's way down and recovers at step
``i`` of its way up: each step but the pauses at the turns brings exactly one liquidation event a
partition. Prices are those of the rulebook's feed; one wave is `steps_in` steps and leaves every
canary as it found it, one episode later. Prices of different waves differ by a millionth or so, so
an event's mark says which step it followed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.workload import START_US, Message, Workload
from solvent.domain.instrument import Instrument
from solvent.units import MICRO_EXPONENT, PPM, format_scaled
from solvent.wire.inputs import encode_collateral_move, encode_tick, encode_trade
from solvent.wire.outputs import encode
from solvent.wire.topics import COLLATERAL, TRADES

__all__ = ["FRAME_KEY", "OPENED", "RECOVERED", "Step", "Waves", "frame"]

FRAME_KEY = b"marks"  # as the price agent's
OPENED, RECOVERED = "opened", "recovered"
_LOTS_USD = 10_000.0  # notional of a canary at the mid price
_FIRST_DROP = 0.8  # of the mid price: where the first canary falls
_STEP = 1e-4  # of the mid price between two canaries
_BEYOND = _STEP / 4  # beyond a canary's price; the rest of the step is for the waves
_JIGGLE = 1e-4  # how far the market of all others moves, up or down
_WAVE_PRICE = 1e-6  # between the same steps of two waves
_DISTINCT_WAVES = 400  # they fit between two canaries


@dataclass(frozen=True, slots=True)
class Step:
    """One price, and what follows: the canary it moves (None: nobody) and the event's name."""

    price: str
    canary: int | None
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waves:
    """Canaries and their price path.

    Attributes
    ----------
    workload : Workload
        Rulebook, mid prices and seed.
    market : str
        The canaries' market; nobody else may hold it.
    canaries : int
        In each partition.
    pause : int
        Steps of no change at each turn, so that two ticks taken together never hide a canary.
    """

    workload: Workload
    market: str
    canaries: int = 25
    pause: int = 5

    @property
    def steps_in(self) -> int:
        """Steps of one wave."""
        return 2 * (self.canaries + self.pause)

    @property
    def events_in(self) -> int:
        """Liquidation events of one wave in one partition."""
        return 2 * self.canaries

    def account_id(self, partition: int, canary: int) -> str:
        """Return the id of a canary."""
        return f"canary-{partition}-{canary:03d}"

    def canary_of(self, account_id: str) -> int:
        """Return the number of a canary by its id."""
        return int(account_id.rpartition("-")[2])

    def accounts(self, partition: int) -> Iterator[tuple[Message, Message]]:
        """Yield (deposit, trade) of the canaries of a partition."""
        instrument = self._instrument
        ticks = round(self._mid / float(instrument.tick.format(1)))
        for canary in range(self.canaries):
            account = self.account_id(partition, canary)
            deposit = encode_collateral_move(
                move_id=f"{account}.m",
                account_id=account,
                subaccount="cross",
                asset=self.workload.rulebook.model.rulebook.settlement_asset,
                kind="deposit",
                amount=format_scaled(self._deposit_micros(canary), MICRO_EXPONENT),
                ts_us=START_US,
            )
            trade = encode_trade(
                trade_id=f"{account}.t",
                account_id=account,
                subaccount="cross",
                market=self.market,
                side="buy",
                size=instrument.lot.format(self._lots),
                price=instrument.tick.format(ticks),
                fee="0",
                ts_us=START_US,
            )
            yield (
                Message(COLLATERAL, account.encode(), deposit),
                Message(TRADES, account.encode(), trade),
            )

    def steps(self, waves: int) -> list[Step]:
        """Return the steps of `waves` waves, one after the other."""
        found = []
        for wave in range(waves):
            beyond = _BEYOND * self._mid + (wave % _DISTINCT_WAVES) * _WAVE_PRICE
            downs = [
                Step(self._text(self._falls_at(canary) - beyond), canary, OPENED)
                for canary in range(self.canaries)
            ]
            ups = [
                Step(self._text(self._recovers_at(canary) + beyond), canary, RECOVERED)
                for canary in reversed(range(self.canaries))
            ]
            rest_down = [Step(downs[-1].price, None, "")] * self.pause
            rest_up = [Step(ups[-1].price, None, "")] * self.pause
            found += [*downs, *rest_down, *ups, *rest_up]
        return found

    def ticks(self, waves: int, first: int = 0) -> Iterator[bytes]:
        """Yield the values of `waves` waves for ``oracle-ticks.v1``; the first is step `first`."""
        for number, step in enumerate(self.steps(waves), first):
            yield encode_tick(
                source="bench", feed=self._feed, price=step.price, ts_us=START_US + number + 1
            )

    def frames(self, waves: int, first_seq: int, first: int = 0) -> Iterator[bytes]:
        """Yield mark frames of `waves` waves; in each the first market moves too, a little."""
        other = self.workload.rulebook.instruments[0]
        name = self.workload.rulebook.feeds[other.mark_feed].name
        mid = self.workload.mid(other.name)
        uniform = random.Random(self.workload.seed).random
        for number, step in enumerate(self.steps(waves)):
            moved = self._text(mid * (1 + (2 * uniform() - 1) * _JIGGLE))
            yield frame(
                first_seq + number,
                START_US + first + number + 1,
                {name: moved, self._feed: step.price},
            )

    # -- where it happens

    @property
    def _instrument(self) -> Instrument:
        return next(i for i in self.workload.rulebook.instruments if i.name == self.market)

    @property
    def _feed(self) -> str:
        return self.workload.rulebook.feeds[self._instrument.mark_feed].name

    @property
    def _mid(self) -> float:
        return self.workload.mid(self.market)

    @property
    def _lots(self) -> int:
        return round(_LOTS_USD / self._mid / float(self._instrument.lot.format(1)))

    @property
    def _coins(self) -> float:
        return self._lots * float(self._instrument.lot.format(1))

    def _rate(self, rates_ppm: tuple[int, ...]) -> float:
        return rates_ppm[self._instrument.index] / PPM

    def _falls_at(self, canary: int) -> float:
        """Return the price below which a canary is liquidatable."""
        return self._mid * (_FIRST_DROP - canary * _STEP)

    def _recovers_at(self, canary: int) -> float:
        """Return the price from which on it is above the liquidation end."""
        rulebook = self.workload.rulebook
        policy = rulebook.policies[rulebook.default_preset]
        below = 1 - self._rate(policy.maintenance_rate_ppm)
        return self._falls_at(canary) * below / (1 - self._rate(policy.liquidation_end_rate_ppm))

    def _deposit_micros(self, canary: int) -> int:
        """Return the collateral at which equity meets maintenance where the canary is to fall."""
        rulebook = self.workload.rulebook
        policy = rulebook.policies[rulebook.default_preset]
        below = 1 - self._rate(policy.maintenance_rate_ppm)
        return round(self._coins * (self._mid - self._falls_at(canary) * below) * 1e6)

    @staticmethod
    def _text(price: float) -> str:
        return format_scaled(round(price * 1e6), MICRO_EXPONENT)


def frame(seq: int, ts_us: int, prices: dict[str, str]) -> bytes:
    """Return a mark frame of valid prices, as the price agent writes it."""
    marks = [
        {
            "feed": feed,
            "price": price,
            "state": "valid",
            "since_us": 0,
            "sources": 1,
            "confidence": None,
        }
        for feed, price in prices.items()
    ]
    return encode(
        {"schema_version": 1, "kind": "marks", "seq": seq, "ts_us": ts_us, "marks": marks}
    )
