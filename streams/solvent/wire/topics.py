"""The topic table: one line a topic, with what each must be on the broker.

Logical names (``trades.v1``) are used everywhere inside and in records; the broker's name is the
logical one behind a prefix (``solvent.trades.v1``). Partition counts are either the pipeline's
``partitions`` (co-partitioned by account) or 1 (the price side).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from solvent.errors import ConfigError

__all__ = [
    "ACCOUNTS",
    "ACCOUNT_INPUTS",
    "ACCOUNT_SETTINGS",
    "ACCOUNT_SNAPSHOTS",
    "COLLATERAL",
    "CONTROL",
    "JOURNAL",
    "LIQUIDATIONS",
    "LIQUIDATION_REPORTS",
    "LIQUIDATION_STATE",
    "LOSSES",
    "MARGIN_STATUS",
    "MARKS",
    "MAX_BATCH_BYTES",
    "OPEN_ORDERS",
    "ORACLE_TICKS",
    "PRICE_JOURNAL",
    "PRICE_STATE",
    "REJECTS",
    "TOPICS",
    "TRADES",
    "Role",
    "TopicSpec",
    "Topics",
]

TRADES = "trades.v1"
COLLATERAL = "collateral.v1"
ACCOUNT_SETTINGS = "account-settings.v1"
OPEN_ORDERS = "open-orders.v1"
ACCOUNT_SNAPSHOTS = "account-snapshots.v1"
LIQUIDATION_REPORTS = "liquidation-reports.v1"
ORACLE_TICKS = "oracle-ticks.v1"
CONTROL = "control.v1"
LOSSES = "losses.v1"
MARKS = "marks.v1"
ACCOUNTS = "accounts.v1"
PRICE_STATE = "price-state.v1"
LIQUIDATIONS = "liquidations.v1"
LIQUIDATION_STATE = "liquidation-state.v1"
MARGIN_STATUS = "margin-status.v1"
REJECTS = "rejects.v1"
JOURNAL = "journal.v1"
PRICE_JOURNAL = "price-journal.v1"

#: What is told of accounts, keyed by account.
ACCOUNT_INPUTS = (
    TRADES,
    COLLATERAL,
    ACCOUNT_SETTINGS,
    OPEN_ORDERS,
    ACCOUNT_SNAPSHOTS,
    LIQUIDATION_REPORTS,
)

#: Bytes of the largest record batch we write: one with a single large record. The broker's own
#: limit does not matter where the topic has one.
MAX_BATCH_BYTES = 8 << 20

_DAY_MS = 86_400_000


class Role(StrEnum):
    """What a topic is to the pipeline."""

    INPUT = "input"
    BETWEEN = "between"
    TABLE = "table"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """What one topic must be.

    Attributes
    ----------
    name : str
        Logical name with version suffix.
    role : Role
        Input, between, table or output.
    per_account : bool
        True: as many partitions as the pipeline, keyed by account. False: one partition.
    retention_ms : int or None
        How long records stay; None where the last of each key does, -1 for ever.
    """

    name: str
    role: Role
    per_account: bool
    retention_ms: int | None

    def partitions(self, pipeline_partitions: int) -> int:
        """Return the number of partitions of this topic."""
        return pipeline_partitions if self.per_account else 1

    def config(self) -> dict[str, str]:
        """Return the broker settings that matter, as the admin API spells them.

        Records carry the broker's time. A record's own time is judged against it, and the clock of
        a producer must not get good records refused. The clock of a worker must not either: a
        broker refuses what is an hour ahead of it, and deletes by a record's time.
        """
        config = {"cleanup.policy": "compact", "retention.ms": "-1"}
        if self.retention_ms is not None:
            config = {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}
        config["message.timestamp.type"] = "LogAppendTime"
        if self.role is not Role.INPUT:
            config["max.message.bytes"] = str(MAX_BATCH_BYTES)
        return config


TOPICS: tuple[TopicSpec, ...] = (
    TopicSpec(name=TRADES, role=Role.INPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=COLLATERAL, role=Role.INPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=ACCOUNT_SETTINGS, role=Role.INPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=OPEN_ORDERS, role=Role.INPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=ACCOUNT_SNAPSHOTS, role=Role.INPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=LIQUIDATION_REPORTS, role=Role.INPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=ORACLE_TICKS, role=Role.INPUT, per_account=False, retention_ms=-1),
    TopicSpec(name=CONTROL, role=Role.INPUT, per_account=False, retention_ms=-1),
    TopicSpec(name=LOSSES, role=Role.BETWEEN, per_account=False, retention_ms=-1),
    TopicSpec(name=MARKS, role=Role.BETWEEN, per_account=True, retention_ms=30 * _DAY_MS),
    TopicSpec(name=ACCOUNTS, role=Role.TABLE, per_account=True, retention_ms=None),
    TopicSpec(name=PRICE_STATE, role=Role.TABLE, per_account=False, retention_ms=None),
    TopicSpec(name=LIQUIDATIONS, role=Role.OUTPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=LIQUIDATION_STATE, role=Role.OUTPUT, per_account=True, retention_ms=None),
    TopicSpec(name=MARGIN_STATUS, role=Role.OUTPUT, per_account=True, retention_ms=30 * _DAY_MS),
    TopicSpec(name=REJECTS, role=Role.OUTPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=JOURNAL, role=Role.OUTPUT, per_account=True, retention_ms=-1),
    TopicSpec(name=PRICE_JOURNAL, role=Role.OUTPUT, per_account=False, retention_ms=-1),
)


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of this pipeline's topics on the broker.

    Parameters
    ----------
    prefix : str
        Put before each logical name, ``solvent.`` by default; may be empty.
    partitions : int
        Partitions of every account-keyed topic.
    """

    prefix: str = "solvent."
    partitions: int = 4

    def __post_init__(self) -> None:
        if self.partitions < 1:
            msg = f"partitions {self.partitions}, at least 1 needed"
            raise ConfigError(msg)

    def physical(self, name: str) -> str:
        """Return the broker's name of a logical topic."""
        return self.prefix + name

    def logical(self, physical: str) -> str:
        """Return the logical name of one of this pipeline's topics on the broker."""
        return physical.removeprefix(self.prefix)

    def partitions_of(self, name: str) -> int:
        """Return how many partitions a logical topic has."""
        return next(t for t in TOPICS if t.name == name).partitions(self.partitions)
