"""Peer: idiomatic stock Faust, a record model and one table write an event.

As a Faust tutorial would write it: typed JSON model, agent, table, at-least-once delivery. It keeps
one number an account and judges nothing, so it does much less than a margin agent. The clock runs
from the first event the agent sees to the last of `count`.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import faust
import orjson

__all__ = ["Trade", "build_app"]


class Trade(faust.Record, serializer="json"):  # type: ignore[call-arg]  # Any to mypy
    """A record of ``trades.v1``."""

    schema_version: int
    trade_id: str
    account_id: str
    subaccount: str
    market: str
    side: str
    size: str
    price: str
    fee: str
    ts_us: int


def build_app(bootstrap_servers: str, topic: str, count: int) -> faust.App:
    """Build the app; its agent prints the figures after `count` events."""
    app = faust.App(
        f"{topic}-faust-peer",
        broker=[f"kafka://{server}" for server in bootstrap_servers.split(",")],
        store="memory://",
        topic_partitions=1,
        topic_replication_factor=1,
        web_enabled=False,
        worker_redirect_stdouts=False,  # the result is printed
    )
    trades = app.topic(topic, key_type=str, key_serializer="raw", value_type=Trade, partitions=1)
    paid = app.Table("paid", default=float, partitions=1)

    async def fold(stream: Any) -> None:  # noqa: ANN401
        seen, began, cpu_began = 0, 0.0, 0.0
        async for trade in stream:
            cost = float(trade.size) * float(trade.price)
            if trade.side == "sell":
                cost = -cost
            paid[trade.account_id] += cost + float(trade.fee)
            seen += 1
            if seen == 1:
                began, cpu_began = time.monotonic(), time.process_time()
            elif seen == count:
                figures = {
                    "records": seen - 1,
                    "seconds": time.monotonic() - began,
                    "cpu_seconds": time.process_time() - cpu_began,
                }
                print(orjson.dumps(figures).decode(), flush=True)

    app.agent(trades)(fold)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap_servers")
    parser.add_argument("topic")
    parser.add_argument("count", type=int)
    parser.add_argument("data_dir")
    arguments = parser.parse_args()
    app = build_app(arguments.bootstrap_servers, arguments.topic, arguments.count)
    app.conf.datadir = arguments.data_dir
    faust.Worker(app, loglevel="error").execute_from_commandline()


if __name__ == "__main__":
    main()
