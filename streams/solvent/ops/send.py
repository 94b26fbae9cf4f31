"""Write one record and learn where it lies."""

from __future__ import annotations

from typing import Any

from solvent.errors import ServiceError

__all__ = ["send_one"]


def send_one(bootstrap_servers: str, topic: str, value: bytes, *, key: bytes | None = None) -> int:
    """Append a record to partition 0 of a broker's topic; return its offset.

    Raises
    ------
    ServiceError
        [SLV-608] The broker refuses it.
    """
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    producer = KafkaProducer(bootstrap_servers=bootstrap_servers.split(","), acks="all")
    try:
        written: Any = producer.send(topic, key=key, value=value, partition=0).get()
    except KafkaError as error:
        msg = f"topic {topic} refused a record: {error}"
        raise ServiceError(msg, code="SLV-608") from error
    finally:
        producer.close()
    return int(written.offset)
