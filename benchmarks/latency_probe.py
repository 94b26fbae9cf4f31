"""The measuring end, in a process of its own: send on a schedule, note when events become visible.

``python -m benchmarks.latency_probe PLAN RESULT`` reads a JSON plan, sends its values on time and
writes what it saw. Times are `time.monotonic_ns`. The schedule is open: a value is sent when its
time has come, whatever became of those before it, and the time noted for it is the scheduled one,
so that a stall counts against every value that had to wait for it.

``python -m benchmarks.latency_probe --trades PLAN`` writes trades at a steady rate until its
standard input is closed.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.workload import START_US
from solvent.wire.inputs import encode_trade

_LEAD_S = 0.2  # from ready to the first send
_CHUNK_S = 0.005  # trades are sent in chunks of so much time
_POLL_S = 0.2


def trader_id(number: int) -> str:
    """Return the id of an account that trades."""
    return f"trader-{number:07d}"


def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """Send the plan's values on time and return when each was due and what was seen when."""
    due: list[int] = []
    seen: list[tuple[int, int, bytes]] = []
    reader = _reader(plan)
    stop = threading.Event()
    thread = threading.Thread(target=_read, args=(reader, plan["expected"], seen, stop))
    thread.start()
    producer = _producer(plan["bootstrap_servers"], linger_ms=0)
    topic, key, partitions = plan["send_to"], plan["key"].encode(), plan["send_partitions"]
    values = [value.encode() for value in plan["values"]]
    interval_ns = int(1e9 / plan["rate"])
    next_ns = time.monotonic_ns() + int(_LEAD_S * 1e9)
    for value in values:
        wait_ns = next_ns - time.monotonic_ns()
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        for partition in partitions:
            producer.produce(topic, value, key, partition)
        producer.poll(0)
        due.append(next_ns)
        next_ns += interval_ns
    producer.flush(10)
    done_ns = time.monotonic_ns()
    while thread.is_alive() and not stop.is_set():
        thread.join(_POLL_S)
        last_ns = max(done_ns, seen[-1][0] if seen else 0)
        if time.monotonic_ns() - last_ns > plan["patience_s"] * 1e9:
            stop.set()
    thread.join()
    reader.close()
    return {"due_ns": due, "seen": [(at, p, value.decode()) for at, p, value in seen]}


def _reader(plan: dict[str, Any]) -> Consumer:
    """Return a read_committed consumer that stands at the end of the event topic."""
    reader = Consumer(
        {
            "bootstrap.servers": plan["bootstrap_servers"],
            "group.id": "latency-probe",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 500,
            "fetch.min.bytes": 1,
        }
    )
    places = []
    for partition in range(plan["read_partitions"]):
        place = TopicPartition(plan["read_from"], partition)
        # A definite offset: "the end" would be looked up after the first event is there.
        place.offset = reader.get_watermark_offsets(place, timeout=10)[1]
        places.append(place)
    reader.assign(places)
    return reader


def _read(
    reader: Consumer, expected: int, seen: list[tuple[int, int, bytes]], stop: threading.Event
) -> None:
    poll, now = reader.poll, time.monotonic_ns
    while len(seen) < expected and not stop.is_set():
        message = poll(_POLL_S)
        if message is not None and message.error() is None:
            seen.append((now(), message.partition(), message.value()))


def _await_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def trade(plan: dict[str, Any]) -> None:
    """Write trades at the plan's rate until standard input ends; print how many."""
    chunk = max(1, round(plan["rate"] * _CHUNK_S))
    ready = list(_trades(plan, round(plan["rate"] * plan["seconds"])))
    producer = _producer(plan["bootstrap_servers"], linger_ms=2)
    stop = threading.Event()
    threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
    print("ready", flush=True)
    topic = plan["send_to"]
    next_s = time.monotonic()
    at = 0
    while at < len(ready) and not stop.is_set():
        for partition, key, value in ready[at : at + chunk]:
            producer.produce(topic, value, key, partition)
        producer.poll(0)
        at += chunk
        next_s += _CHUNK_S
        time.sleep(max(0.0, next_s - time.monotonic()))
    producer.flush(30)
    print(min(at, len(ready)), flush=True)


def _trades(plan: dict[str, Any], count: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (partition, key, value): one lot bought or sold by a random account, without a fee."""
    uniform = random.Random(plan["seed"]).random
    accounts, partitions = plan["accounts"], plan["partitions"]
    for number in range(count):
        chosen = int(uniform() * accounts)
        account = trader_id(chosen)
        value = encode_trade(
            trade_id=f"b{number}",
            account_id=account,
            subaccount="cross",
            market=plan["market"],
            side="buy" if uniform() < 0.5 else "sell",
            size=plan["size"],
            price=plan["price"],
            fee="0",
            ts_us=START_US + number,
        )
        yield chosen % partitions, account.encode(), value


def _producer(bootstrap_servers: str, *, linger_ms: int) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": linger_ms,
            "acks": "all",
            "queue.buffering.max.messages": 1_000_000,
            "socket.nagle.disable": True,
        }
    )


def main(arguments: list[str]) -> None:
    gc.disable()
    if arguments[0] == "--trades":
        trade(orjson.loads(Path(arguments[1]).read_bytes()))
        return
    found = measure(orjson.loads(Path(arguments[0]).read_bytes()))
    Path(arguments[1]).write_bytes(orjson.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
