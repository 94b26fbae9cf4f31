"""Records of ``losses.v1`` and what mark frames answer: who bears what liquidations leave.

What was liquidated goes the same way, where circuit breakers ask for it.

Between our own agents, so numbers are the engine's integers: amounts micros of the settlement
currency, sizes lots, prices in units of the market's feed.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "Claim",
    "Contribution",
    "Deleveraged",
    "FundRow",
    "FundSocialised",
    "LedgerWord",
    "Liquidated",
    "Loss",
    "LossAnswer",
    "Ranked",
    "Socialised",
    "Takeover",
    "Weighed",
]


class _Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    schema_version: int
    partition: int
    ts_us: int


class Contribution(_Told, frozen=True, kw_only=True, tag="contribution"):
    """Money for the fund: its part of a fill (``fill``), or a payment not needed (``returned``)."""

    liquidation_id: str
    reason: str
    amount_micros: int


class Claim(_Told, frozen=True, kw_only=True, tag="claim"):
    """What an account without positions is below 0."""

    liquidation_id: str
    account_id: str
    subaccount: str
    amount_micros: int


class Takeover(_Told, frozen=True, kw_only=True, tag="takeover"):
    """A position that the fund takes at the bankruptcy price; `lots` signed, long above 0."""

    liquidation_id: str
    account_id: str
    subaccount: str
    market: str
    lots: int
    price: int


class Ranked(_Told, frozen=True, kw_only=True, tag="ranked"):
    """The best of a partition to deleverage.

    A candidate: account, subaccount, lots, then unrealised pnl, cost, value at the mark and at its
    own bankruptcy price in micros (`solvent.domain.losses.Counterparty`).
    """

    request: int
    candidates: list[tuple[str, str, int, int, int, int, int]]


class Deleveraged(_Told, frozen=True, kw_only=True, tag="deleveraged"):
    """What accounts of a partition gave: account, subaccount, lots; at the price of the request."""

    request: int
    fills: list[tuple[str, str, int]]


class Weighed(_Told, frozen=True, kw_only=True, tag="weighed"):
    """The equity of a partition's accounts that can bear a loss; none of them is named."""

    request: int
    equity_micros: int


class Socialised(_Told, frozen=True, kw_only=True, tag="socialised"):
    """What accounts of a partition bore of a loss: account, subaccount, micros.

    The loss is that of a liquidation, over the equity of all partitions. `rest` records of the same
    answer are still to come.
    """

    request: int
    liquidation_id: str
    loss_micros: int
    base_micros: int
    borne: list[tuple[str, str, int]]
    rest: int


class Liquidated(_Told, frozen=True, kw_only=True, tag="liquidated"):
    """Value at the mark of fills that counted for cases since the frame before, by market."""

    markets: list[tuple[str, int]]


#: What the fund's ledger takes.
LedgerWord = Contribution | Claim | Takeover | Ranked | Deleveraged | Weighed | Socialised
Loss = LedgerWord | Liquidated


class LossAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a mark frame tells of losses; by `kind` some members are there.

    ``payment``: of a claim; `socialised_micros` of it came from other accounts. ``rank``: who has
    the other side? ``deleverage``: `orders` of (account, subaccount, lots). ``unplaced``: nobody
    had it. ``weigh``: what equity can bear a loss? ``socialise``: it bears `loss_micros` in
    proportion; `base_micros` is all of it, `bases` by partition, `index` what a unit of it bore so
    far (picos).
    """

    kind: str
    liquidation_id: str
    account_id: str = ""
    subaccount: str = ""
    claimed_micros: int = 0
    paid_micros: int = 0
    fund_micros: int = 0
    request: int = 0
    market: str = ""
    lots: int = 0
    price: int = 0
    orders: list[tuple[str, str, int]] = []
    socialised_micros: int = 0
    loss_micros: int = 0
    base_micros: int = 0
    bases: list[int] = []
    index: int = 0


class FundSocialised(msgspec.Struct, frozen=True, kw_only=True):
    """Socialised losses in the fund's row: how many, what accounts bore, picos a unit of equity."""

    rounds: int
    gathered_micros: int
    index: int
    standing: list[dict[str, Any]]


class FundRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    r"""Row ``\0fund`` of ``price-state.v1``: the fund, its draws, and what it has taken over.

    `unplaced` are by market lots that nobody had the other side of, and the sum of lots times the
    prices they were taken at.
    """

    schema_version: int
    fund_micros: int
    received_micros: int
    paid_micros: int
    requests: int
    draws: list[tuple[int, int]]
    placements: list[dict[str, Any]]
    unplaced: dict[str, tuple[int, int]]
    socialised: FundSocialised | None = None
