"""Exit codes of every command; published, so a number keeps its meaning.

==== =========================================================================
   0  done, or all well
   1  a check failed: `doctor` is red, `kafka status` finds none, `rulebook diff` some
   2  usage: an unknown option or argument
   3  configuration: settings, rulebook or topics that must not be used (SLV-4xx)
   4  a service around us refuses (SLV-6xx); 41 to 49 say which, see `kafka --help`
   5  input that breaks its contract, contradicts state or is too old (SLV-1xx-3xx)
   6  a partition's log or changelog is unsound (SLV-5xx)
   7  `worker`: it made no progress for too long and ended itself
  10  `topics plan`: apply would create or alter
  11  `topics plan`: a partition count differs, which apply refuses
  12  `replay --verify`, `explain`: the history differs from what its inputs bring
  13  `accounts reconcile`: the account table differs from the snapshots
  70  a bug of ours (SLV-9xx or an unexpected exception)
 130  interrupted
==== =========================================================================
"""

from __future__ import annotations

from solvent.errors import (
    ConfigError,
    ContractError,
    InvariantError,
    MarketDataError,
    PartitionError,
    ServiceError,
    SolventError,
    StateError,
)

__all__ = [
    "EPILOG",
    "EVALUATE_EPILOG",
    "EXIT_BUG",
    "EXIT_CHECK_FAILED",
    "EXIT_DIFFERS",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_PARTITION_DRIFT",
    "EXIT_TOPICS_PENDING",
    "EXIT_UNRECONCILED",
    "KAFKA_EPILOG",
    "RULEBOOK_EPILOG",
    "TOPICS_EPILOG",
    "exit_code",
]

EXIT_OK = 0
EXIT_CHECK_FAILED = 1
EXIT_TOPICS_PENDING = 10
EXIT_PARTITION_DRIFT = 11
EXIT_DIFFERS = 12
EXIT_UNRECONCILED = 13
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

_BY_CLASS: tuple[tuple[type[SolventError], int], ...] = (
    (ConfigError, 3),
    (ServiceError, 4),
    (ContractError, 5),
    (StateError, 5),
    (MarketDataError, 5),
    (PartitionError, 6),
    (InvariantError, EXIT_BUG),
)

EPILOG = (
    "Exit codes: 0 ok, 1 a check failed, 2 usage, 3 configuration, 4 and 41-49 a service, "
    "5 contract, 6 partition, 7 a stalled worker, 10 and 11 topics to change, "
    "12 history differs, 13 accounts differ, 70 a bug, 130 interrupted."
)
KAFKA_EPILOG = (
    "Exit codes: 0 ok, 1 not running (status), 41 no Java 17+, 42 no Maven or jars not resolved, "
    "43 port taken, 44 directory not writable, 45 died while starting, 46 no answer in time, "
    "47 cannot be stopped or runs on another port, 48 no broker at the address."
)
TOPICS_EPILOG = (
    "Exit codes: 0 in line or applied, 10 apply would create or alter (plan), "
    "11 a partition count differs (plan), 3 the same (apply), 48 no broker, 49 broker refused."
)
EVALUATE_EPILOG = (
    "Exit codes: 0 ok, 2 usage, 3 a rulebook, file or folder that cannot be used, "
    "5 a snapshot that says what it must not."
)
RULEBOOK_EPILOG = (
    "Exit codes: 0 ok, 1 the rulebooks differ (diff), 2 usage, 3 a rulebook that must not be used."
)


def exit_code(error: SolventError) -> int:
    """Return the exit code of an error: SLV-601 to SLV-609 give 41 to 49, else by class."""
    if isinstance(error, ServiceError) and "SLV-601" <= error.code <= "SLV-609":
        return 40 + int(error.code[-1])
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), EXIT_BUG)
