"""Peer: Quix Streams exactly-once, a StreamingDataFrame over a state store keyed by account.

As its documentation would write it: JSON, one stateful update a record, RocksDB with a changelog
topic, ``processing_guarantee="exactly-once"``; a checkpoint holds as many records as a transaction
of ours. It keeps position and cost by market and a balance of each account, in floats, and judges
nothing. Guarantee: state changes and input offsets of a checkpoint are committed in one Kafka
transaction.

The clock runs from the first record processed to the first one after the last whole checkpoint, so
every counted record's checkpoint is committed. Runs in the environment of the `bench` extra, so it
imports nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from typing import Any

from quixstreams import Application, State

__all__ = ["fold", "measure"]


def fold(trade: dict[str, Any], state: State) -> None:
    """Add one trade to its account's book."""
    book = state.get("book") or {"balance": 0.0, "markets": {}}
    size, price = float(trade["size"]), float(trade["price"])
    if trade["side"] == "sell":
        size = -size
    position = book["markets"].setdefault(trade["market"], [0.0, 0.0])
    position[0] += size
    position[1] += size * price
    book["balance"] -= float(trade["fee"])
    state.set("book", book)


def measure(
    bootstrap_servers: str, topic: str, count: int, checkpoint: int, folder: str
) -> dict[str, Any]:
    """Process `count` records of a topic of one partition and return the figures.

    Returns
    -------
    dict
        ``records`` timed, ``seconds`` and ``cpu_seconds`` they took, ``versions``.
    """
    app = Application(
        broker_address=bootstrap_servers,
        consumer_group=f"{topic}-quix-peer",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_every=checkpoint,
        commit_interval=60.0,
        state_dir=folder,
        auto_create_topics=True,
        loglevel=None,
    )
    trades = app.topic(topic, key_deserializer="str", value_deserializer="json")
    timed = (count - 1) // checkpoint * checkpoint
    seen = 0
    times: list[tuple[float, float]] = []

    def update(trade: dict[str, Any], state: State) -> None:
        nonlocal seen
        if seen in {0, timed}:
            times.append((time.monotonic(), time.process_time()))
        seen += 1
        fold(trade, state)

    app.dataframe(trades).update(update, stateful=True)
    app.run(count=count, collect=False)
    (began, cpu_began), (ended, cpu_ended) = times
    return {
        "records": timed,
        "seconds": ended - began,
        "cpu_seconds": cpu_ended - cpu_began,
        "versions": {name: version(name) for name in ("quixstreams", "confluent-kafka")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap_servers")
    parser.add_argument("topic")
    parser.add_argument("count", type=int)
    parser.add_argument("checkpoint", type=int)
    parser.add_argument("folder")
    given = parser.parse_args()
    figures = measure(
        given.bootstrap_servers, given.topic, given.count, given.checkpoint, given.folder
    )
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
