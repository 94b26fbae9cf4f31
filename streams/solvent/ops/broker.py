"""Which broker is meant, and an admin client for it whose failures are one-line errors."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from solvent.errors import ServiceError

if TYPE_CHECKING:
    from pathlib import Path

    from solvent.settings import Settings

__all__ = ["DEFAULT_BOOTSTRAP", "admin_client", "answers", "resolve_bootstrap", "tcp_open"]

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"


def resolve_bootstrap(settings: Settings) -> str:
    """Return the broker to use: the setting, else the running local Kafka, else port 9092."""
    return settings.bootstrap_servers or _local(settings.data_dir) or DEFAULT_BOOTSTRAP


@contextmanager
def admin_client(bootstrap_servers: str, timeout_s: float = 10.0) -> Iterator[Any]:
    """Open kafka-python's admin client and close it again.

    Parameters
    ----------
    bootstrap_servers : str
        ``host:port[,host:port]``.
    timeout_s : float
        How long to try for a first answer and to wait for each later one.

    Raises
    ------
    ServiceError
        [SLV-608] Nothing answers there, or the broker refuses a request.
    """
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    servers = [server.strip() for server in bootstrap_servers.split(",") if server.strip()]
    if not any(tcp_open(server, timeout_s=min(timeout_s, 3.0)) for server in servers):
        msg = (
            f"no Kafka at {bootstrap_servers}: run `solvent kafka start`, "
            "or set SOLVENT_BOOTSTRAP_SERVERS to one that runs"
        )
        raise ServiceError(msg, code="SLV-608")
    timeout_ms = int(timeout_s * 1000)
    try:
        client = KafkaAdminClient(
            bootstrap_servers=servers,
            bootstrap_timeout_ms=timeout_ms,
            request_timeout_ms=max(timeout_ms, 5_000),
        )
    except KafkaError as error:
        msg = f"Kafka at {bootstrap_servers} does not answer: {_one_line(error)}"
        raise ServiceError(msg, code="SLV-608") from None
    try:
        yield client
    except KafkaError as error:
        msg = f"Kafka at {bootstrap_servers} refused: {_one_line(error)}"
        raise ServiceError(msg, code="SLV-608") from error
    finally:
        client.close()


def answers(bootstrap_servers: str, timeout_s: float = 3.0) -> bool:
    """Tell whether a broker answers a metadata request with at least one live broker."""
    try:
        with admin_client(bootstrap_servers, timeout_s=timeout_s) as admin:
            return bool(admin.describe_cluster()["brokers"])
    except ServiceError:
        return False


def tcp_open(server: str, timeout_s: float = 0.5) -> bool:
    """Tell whether something listens at ``host:port``."""
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _local(data_dir: Path) -> str | None:
    from solvent.ops.kafka import LocalKafka

    local = LocalKafka(data_dir)
    return local.bootstrap_servers if local.is_running() else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
