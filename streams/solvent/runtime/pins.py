"""What the runtime relies on in Faust, mode and aiokafka, and the check that it is still there.

The hooks subclass private methods. A new version may rename one, and Python would not complain: the
stock method would run and Faust's own, lossy rules with it. So versions are pinned exactly and the
source of every method that is overridden or called privately is fingerprinted; a worker refuses to
start on anything else (DESIGN D2). After an upgrade read the diffs, run the chaos tests, then write
the new table.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from faust.app.base import App
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import ConsumerMessage, Message

from solvent.errors import ConfigError

__all__ = ["PINNED_VERSIONS", "check_pins", "fingerprint"]

PINNED_VERSIONS: Final[Mapping[str, str]] = {
    "faust-streaming": "0.15.3",
    "mode-streaming": "0.7.1",
    "aiokafka": "0.14.0",
}

_RELIED_ON: Final[tuple[Any, ...]] = (
    App._new_transport,
    App._on_partitions_assigned,
    App._on_partitions_revoked,
    Collection.on_start,
    Consumer._add_gap,
    Consumer._drain_messages,
    Consumer._filter_committable_offsets,
    Consumer._filter_tps_with_pending_acks,
    Consumer._wait_next_records,
    Consumer.getmany,
    Consumer.pause_partitions,
    Consumer.perform_seek,
    Consumer.resume_partitions,
    Recovery._restart_recovery,
    Recovery._slurp_changelogs,
    Recovery.on_rebalance,
    TableManager._update_channels,
    TableManager.on_rebalance,
    TableManager.on_start,
    driver.AIOKafkaConsumerThread._create_worker_consumer,
    driver.AIOKafkaConsumerThread._seek_wait,
    driver.Consumer._new_consumer_thread,
    driver.AIOKafkaConsumerThread._fetch_records,
    driver.Consumer._to_message,
    ConsumerMessage,
    Message,
    AIOKafkaConsumer.getmany,
    AIOKafkaConsumer.start,
    FetchResult,
    Fetcher._proc_fetch_request,
    Fetcher.close,
    Fetcher.fetched_records,
    PartitionRecords,
    GroupCoordinator._coordination_routine,
    GroupCoordinator._maybe_leave_group,
    GroupCoordinator._push_error_to_user,
    GroupCoordinator._send_req,
    GroupCoordinator.check_errors,
    GroupCoordinator.close,
    AIOKafkaProducer.commit_transaction,
    AIOKafkaProducer.send_batch,
    BatchBuilder,
    MessageAccumulator._append_batch,
    MessageAccumulator._pop_batch,
    MessageAccumulator.add_batch,
    MessageBatch,
    sender.SendProduceReqHandler.create_request,
    sender.Sender._do_add_partitions_to_txn,
)

#: Fingerprint of the methods above in the pinned versions.
_FINGERPRINT: Final = "7788bd0c8ab543438d09957638b251c8"


def fingerprint() -> str:
    """Return a hash of the source of every method relied on."""
    digest = hashlib.sha256()
    for method in _RELIED_ON:
        # mode wraps service tasks in an object that keeps the method as `fun`.
        digest.update(inspect.getsource(getattr(method, "fun", method)).encode())
    return digest.hexdigest()[:32]


def check_pins(versions: Mapping[str, str] = PINNED_VERSIONS, expected: str = _FINGERPRINT) -> None:
    """Refuse libraries this runtime was not made for.

    Raises
    ------
    ConfigError
        [SLV-401] Another version is installed; [SLV-406] a method relied on has changed.
    """
    for name, wanted in versions.items():
        found = metadata.version(name)
        if found != wanted:
            message = f"{name} {found} is installed, the runtime is made for {wanted} only"
            raise ConfigError(message, code="SLV-401")
    found = fingerprint()
    if found != expected:
        installed = ", ".join(f"{name} {metadata.version(name)}" for name in versions)
        message = f"methods relied on have fingerprint {found}, expected {expected} ({installed})"
        raise ConfigError(message, code="SLV-406")
