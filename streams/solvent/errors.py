"""Every error `solvent` raises, by what the caller must do about it.

::

    SolventError                  code; topic, partition, offset, account_id where known
    ├─ ContractError     SLV-1xx  bytes break the contract: that record to `rejects`, go on
    ├─ StateError        SLV-2xx  the event contradicts state: `rejects` and quarantine
    ├─ MarketDataError   SLV-3xx  too old or too uncertain to judge: no liquidation, raise the alarm
    ├─ ConfigError       SLV-4xx  refuse to start, or refuse the command
    ├─ PartitionError    SLV-5xx  ownership, changelog or restore unsound: commit nothing, restore
    ├─ ServiceError      SLV-6xx  something around us (broker, Java, disk) is missing or refuses
    └─ InvariantError    SLV-9xx  our bug: stop the worker without committing; nobody catches it

A code, once published, keeps its meaning. Messages name the thing, the value, the limit, in that
order. Codes of rejected records are listed in :class:`RejectCode`; they are values, not exceptions,
because a bad record is an expected outcome.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "ConfigError",
    "ContractError",
    "InvariantError",
    "MarketDataError",
    "PartitionError",
    "RejectCode",
    "ServiceError",
    "SolventError",
    "StateError",
]


class SolventError(Exception):
    """Root of all errors of this package.

    Parameters
    ----------
    message : str
        The thing, the value and the limit.
    code : str, optional
        A more precise code than the class's own.
    """

    code = "SLV-000"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        self.code = code or type(self).code
        self.message = message
        super().__init__(f"{self.code} {message}")


class ContractError(SolventError):
    """Bytes or values outside the published contract of a topic."""

    code = "SLV-100"


class StateError(SolventError):
    """An event that contradicts the state it meets."""

    code = "SLV-200"


class MarketDataError(SolventError):
    """Prices too old or too uncertain to judge by."""

    code = "SLV-300"


class ConfigError(SolventError):
    """Settings, rulebook or topics that must not be used."""

    code = "SLV-400"


class PartitionError(SolventError):
    """A partition whose ownership, changelog or input log is unsound."""

    code = "SLV-500"


class ServiceError(SolventError):
    """Something outside this program is missing, busy or refuses."""

    code = "SLV-600"


class InvariantError(SolventError):
    """A bug of ours. The worker stops without committing."""

    code = "SLV-900"


class RejectCode(StrEnum):
    """Why a record went to ``rejects.v1``; part of its public contract."""

    MALFORMED = "SLV-101"  # not JSON, empty, wrong type, unknown or missing field
    UNSUPPORTED_VERSION = "SLV-102"
    # size 0, price <= 0, state below what it can be, not a decimal, beyond 2**53, bad identifier
    OUT_OF_CONTRACT = "SLV-103"
    OFF_STEP = "SLV-104"  # size off the lot, price off the tick, amount below the quantum
    WRONG_KEY = "SLV-105"  # record key differs from account_id
    WRONG_SUBACCOUNT = "SLV-106"  # isolated book contradicts the market or is unknown
    FUTURE = "SLV-107"  # event time beyond the record's broker time plus the allowed skew
    SEQUENCE_GAP = "SLV-201"
    UNKNOWN_INSTRUMENT = "SLV-202"
    OVERFLOW = "SLV-203"  # applying it would leave the exact range (2**53 units)
    UNKNOWN_CLASS = "SLV-204"  # an account class the rulebook does not bind
    EXPIRED = "SLV-205"  # a fill, position or order in a contract that has expired or was settled
    # A fill that names a liquidation and does not count for it; the trade itself is applied.
    LATE_FILL = "SLV-206"  # the case is over, suspended, or the offer expired or void
    WRONG_SIDE_FILL = "SLV-207"  # the offer has no order in that market or to that side
    OVER_FILL = "SLV-208"  # more than the offer still has
    OFF_PRICE_FILL = "SLV-209"  # beyond the order's limit price
    UNCLAIMED_FILL = "SLV-210"  # a lease asks for the token of a claim, the fill has none
    FENCED_FILL = "SLV-211"  # its token is that of no claim that stands
    OVER_CLAIM_FILL = "SLV-212"  # more than its claim has left
    # A report of an executor that changes nothing.
    NO_LEASE = "SLV-213"  # a claim or release where the rulebook leases nothing
    NO_CASE = "SLV-214"  # of another account, or it does not stand
    STALE_CLAIM = "SLV-215"  # of a revision that is not the newest
    NOTHING_TO_CLAIM = "SLV-216"  # suspended, for show, at rest, or all of it is claimed
    CLAIMS_UNUSED = "SLV-217"  # its executor claimed too often without a fill
    NOT_ITS_CLAIM = "SLV-218"  # the case gave no such token, or it is not its executor's claim
    UNKNOWN_FEED = "SLV-301"  # no feed of this name and kind (price or state) in the rulebook
    NON_POSITIVE_PRICE = "SLV-302"
    OUT_OF_ORDER = "SLV-303"
    NOT_EXPIRED = "SLV-304"  # a settlement of a contract that does not expire, or not yet
    SETTLED_OTHERWISE = "SLV-305"  # a second settlement of a contract, at another price
    RULEBOOK = "SLV-306"  # published, but does not hold or may not follow the one in force
    STALE_COMMAND = "SLV-307"  # an operator's command older than the last that was obeyed
