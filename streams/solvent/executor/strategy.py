"""What a strategy is: one async function that is shown an offer and answers with fills, or passes.

    async def strategy(offer: Offer) -> Decision | None:
        fill = offer.fill("BTC-PERP", size="0.5", price="39960", fee="0")
        return Decision([fill])

`None` passes. Sizes are coins, prices settlement currency per coin, as decimal text. A strategy
that cannot take this offer for a reason that is no fault raises a `Benign`: it is counted, and the
executor goes on. Any other exception stops it before anything of the batch is written.

An offer passed over is not shown again; its next revision is, at the latest when it expires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from solvent.executor.fills import Fill, auction_price, fill_of
from solvent.wire.outputs import Liquidation, StandingCase

__all__ = [
    "AlreadyTaken",
    "Benign",
    "Decision",
    "Offer",
    "OutOfCapital",
    "PriceMoved",
    "Strategy",
    "pick_order",
]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Offer:
    """A live offer: the revision, its place in ``liquidations.v1``, and the broker's time.

    One that stood before the executor started is a `StandingCase`: without the snapshot of
    positions and collateral, its place that in ``liquidation-state.v1``. A leased one is shown once
    a share of it is claimed: its legs are that share, and `claims` holds our claim alone.
    """

    liquidation: Liquidation | StandingCase
    partition: int
    offset: int
    timestamp_ms: int = 0

    def fill(
        self, market: str, *, size: str, price: str, fee: str = "0", ts_us: int | None = None
    ) -> Fill:
        """Return the fill of one leg, its side and id those of the offer; raises as `fill_of`."""
        return fill_of(self.liquidation, market, size=size, price=price, fee=fee, ts_us=ts_us)

    def auction_price(self, market: str, ts_us: int, *, tick: str) -> str:
        """Return the worst price the account may get at an event time; raises as the function."""
        return auction_price(self.liquidation, market, ts_us, tick=tick)


@dataclass(frozen=True, slots=True)
class Decision:
    """The fills that answer an offer, at most one a market; none is a pass."""

    fills: Sequence[Fill] = ()


Strategy = Callable[[Offer], Awaitable[Decision | None]]


class Benign(Exception):  # noqa: N818 - an outcome of competing, not an error
    """The offer cannot be taken, and nobody is to blame: counted by `reason`, passed over."""

    reason = "benign"


class AlreadyTaken(Benign):
    """Somebody else was first."""

    reason = "already_taken"


class PriceMoved(Benign):
    """The market left the offer's limit."""

    reason = "price_moved"


class OutOfCapital(Benign):
    """There is no capital for it now."""

    reason = "out_of_capital"


def pick_order(
    items: Sequence[_Item], name_of: Callable[[_Item], str], *, seed: str, window: int
) -> list[_Item]:
    """Return items of a batch in the order to be tried: jittered, but no further than a window.

    Offers of one frame come worst first. Executors that all begin with the worst collide on it and
    leave the rest waiting, so each shuffles by a seed of its own, within successive windows: what
    is ahead by a window stays ahead. A window of 1 keeps the order.
    """

    def draw(item: _Item) -> bytes:
        return hashlib.blake2b(f"{seed}:{name_of(item)}".encode(), digest_size=8).digest()

    order: list[_Item] = []
    for first in range(0, len(items), window):
        order += sorted(items[first : first + window], key=draw)
    return order
