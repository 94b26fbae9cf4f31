"""The executor process on a real broker: killed at any moment, it answers each offer once.

So does a program beyond the bridge; a strategy of one's own is asked, a dry run changes nothing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from kafka import KafkaProducer

from solvent.ops.history import read_topic
from solvent.wire.inputs import decode_trade
from solvent.wire.topics import LIQUIDATION_STATE, LIQUIDATIONS, TRADES, Topics
from support.broker import Broker
from support.exact import partition_of
from support.offers import a_leg, a_standing_value, an_offer_value
from support.processes import Child
from support.waiting import wait_for

pytestmark = pytest.mark.kafka


_MAIN = "from solvent.cli.main import main; main()"
_BRIDGE = Path(__file__).resolve().parents[2] / "examples" / "bridge.py"
#: Takes half of what alice must sell, at its limit, and nothing of anybody else.
_STRATEGY = """
from solvent.executor.strategy import AlreadyTaken, Decision

async def take_half(offer):
    if offer.liquidation.account_id != "alice":
        raise AlreadyTaken
    (leg,) = offer.liquidation.legs
    return Decision([offer.fill(leg.market, size="0.25", price=leg.limit_price)])
"""
#: Starts the executor, gives it neither a line nor an ear, and passes on SIGTERM.
_DEAF_READER = """
import signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
signal.signal(signal.SIGTERM, lambda *_: child.terminate())
sys.exit(child.wait())
"""


class Desk:
    """The executor process of a test, and what it wrote."""

    def __init__(self, kafka: Broker, folder: Path) -> None:
        self.topics: Topics = kafka.apply_topics(partitions=2)
        self._servers = kafka.bootstrap_servers
        self._folder = folder
        self._log = folder / "executor.log"
        self._children: list[Child] = []
        self._producer = KafkaProducer(bootstrap_servers=self._servers)

    def start(self, *options: str, before: tuple[str, ...] = (), path: str = "") -> Child:
        """Start an executor, the demo's unless options are given, by a command `before` it."""
        options = options or ("--demo", "--slippage-ppm", "1000")
        child = Child(
            [*before, sys.executable, "-c", _MAIN, "executor", *options],
            env=self._env(path),
            log=self._log,
        )
        self._children.append(child)
        return child

    def start_worker(self) -> Child:
        """Start a worker that tells the time; without a price it judges nobody."""
        worker = Child(
            [sys.executable, "-m", "solvent.worker"],
            env=self._env()
            | {"SOLVENT_CLOCK": "wall", "SOLVENT_RULEBOOK": "demo"}
            | {"SOLVENT_DATA_DIR": str(self._folder)},
            log=self._folder / "worker.log",
        )
        self._children.append(worker)
        return worker

    def _env(self, path: str = "") -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join(p for p in (path, *sys.path) if p),
            "SOLVENT_BOOTSTRAP_SERVERS": self._servers,
            "SOLVENT_TOPIC_PREFIX": self.topics.prefix,
            "SOLVENT_APP_ID": self.topics.prefix.strip("."),
            "SOLVENT_PARTITIONS": "2",
            "SOLVENT_CLOCK": "stream",  # nobody writes watermarks, unless a test does
        }

    def offer(self, *, stands: bool = True, **fields: object) -> None:
        """Write a revision as an engine does, what stands after it included unless told not to."""
        account_id = str(fields["account_id"])
        fields = {"inputs": {"trades.v1": 0}, **fields}  # decided before any fill of these tests
        partition = partition_of(account_id.encode(), 2)
        if stands:  # first: there is no transaction here, and what an event tells must stand
            has_ended = fields.get("event") == "recovered"
            self._producer.send(
                self.topics.physical(LIQUIDATION_STATE),
                key=f"{account_id}:cross".encode(),
                value=None if has_ended else a_standing_value(**fields),
                partition=partition,
            ).get()
        self._producer.send(
            self.topics.physical(LIQUIDATIONS),
            key=account_id.encode(),
            value=an_offer_value(**fields),
        )

    def flush(self) -> None:
        self._producer.flush()

    def trades(self) -> list[str]:
        """Ids of committed trades, as readers see them."""
        topic = self.topics.physical(TRADES)
        return [decode_trade(r.value).trade_id for r in read_topic(self._servers, topic)]

    def sizes(self) -> dict[str, str]:
        """Sizes of committed trades by id."""
        topic = self.topics.physical(TRADES)
        trades = [decode_trade(r.value) for r in read_topic(self._servers, topic)]
        return {trade.trade_id: trade.size for trade in trades}

    def metric(self, name: str, action: str, reason: str) -> float:
        """Return a counter of the last executor started with ``--metrics-port``, 0 without."""
        urls = re.findall(r'"(http://[^"]*/metrics)"', self.log())
        if not urls:
            return 0.0
        with urlopen(urls[-1]) as page:
            text = page.read().decode()
        series = f'solvent_executor_{name}_total{{action="{action}",reason="{reason}"}} '
        values = [line for line in text.splitlines() if line.startswith(series)]
        return float(values[0].removeprefix(series)) if values else 0.0

    def log(self) -> str:
        return self._log.read_text("utf-8")

    def close(self) -> None:
        for child in self._children:
            child.ensure_gone()
        self._producer.close()


@pytest.fixture
def desk(kafka: Broker, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(kafka, tmp_path)
    yield desk
    desk.close()


def test_executor_killed_and_restarted_answers_each_offer_once(desk: Desk) -> None:
    first = [f"a{number}" for number in range(50)]
    second = [f"b{number}" for number in range(50)]
    for account_id in first:
        desk.offer(account_id=account_id)
    desk.flush()
    child = desk.start()
    wait_for(desk.trades, lambda ids: len(ids) > 0)
    child.kill()
    child = desk.start()
    for account_id in second:
        desk.offer(account_id=account_id)
        desk.flush()  # one by one, so that the kill falls between transactions or into one
    wait_for(desk.trades, lambda ids: len(ids) > len(first))
    child.kill()
    child = desk.start()
    wait_for(desk.trades, lambda ids: len(ids) >= len(first + second))
    wait_for(desk.log, lambda log: log.count("executor_started") == 3)
    assert child.stop() == 0
    assert sorted(desk.trades()) == sorted(f"{a}.cross.1.1.BTC-PERP" for a in first + second)
    assert "executor_stopped" in desk.log()


def test_executor_leaves_superseded_and_ended_offers_alone(desk: Desk) -> None:
    desk.offer(account_id="alice")
    desk.offer(account_id="alice", revision=2, event="revised")
    desk.offer(account_id="bob")
    desk.offer(account_id="bob", revision=2, event="recovered", reason="market", legs=[])
    desk.offer(account_id="carol")
    desk.flush()
    child = desk.start()
    wait_for(desk.trades, lambda ids: len(ids) >= 2)
    assert child.stop() == 0
    assert sorted(desk.trades()) == ["alice.cross.1.2.BTC-PERP", "carol.cross.1.1.BTC-PERP"]


def test_executor_restarted_remembers_fills_an_offer_may_not_know(desk: Desk) -> None:
    desk.offer(account_id="alice", inputs={"trades.v1": 0})
    desk.flush()
    child = desk.start()
    wait_for(desk.trades, lambda ids: len(ids) == 1)
    child.kill()
    # decided before our fill (offset 0) was read: a second fill would close too much
    desk.offer(account_id="alice", revision=2, event="revised", inputs={"trades.v1": 0})
    desk.offer(account_id="bob")
    desk.flush()
    child = desk.start()
    wait_for(desk.trades, lambda ids: "bob.cross.1.1.BTC-PERP" in ids)
    assert child.stop() == 0
    assert sorted(desk.trades()) == ["alice.cross.1.1.BTC-PERP", "bob.cross.1.1.BTC-PERP"]


def test_second_executor_fences_the_first_which_stops_with_its_code(desk: Desk) -> None:
    first = desk.start()
    wait_for(desk.log, lambda log: log.count("executor_started") == 1)
    second = desk.start()
    wait_for(desk.log, lambda log: log.count("executor_started") == 2)
    desk.offer(account_id="alice")
    desk.flush()
    wait_for(lambda: first.returncode, lambda code: code is not None)
    assert first.returncode == 4
    assert "SLV-611" in desk.log()
    wait_for(desk.trades, lambda ids: ids == ["alice.cross.1.1.BTC-PERP"])
    assert second.stop() == 0


def test_bridge_killed_and_restarted_answers_each_offer_once(desk: Desk) -> None:
    first = [f"a{number}" for number in range(20)]
    second = [f"b{number}" for number in range(20)]
    for account_id in first:
        desk.offer(account_id=account_id)
    desk.flush()
    bridge = (sys.executable, str(_BRIDGE))
    child = desk.start("--bridge", before=bridge)
    wait_for(desk.trades, lambda ids: len(ids) > 0)
    child.kill()  # the program beyond the bridge: its lines end, and so does the executor
    wait_for(desk.log, lambda log: "executor_stopped" in log)
    child = desk.start("--bridge", before=bridge)
    for account_id in second:
        desk.offer(account_id=account_id)
    desk.offer(account_id="z", legs=[a_leg(size="0.0005")])  # off the lot: refused, not sent
    desk.flush()
    wait_for(desk.trades, lambda ids: len(ids) >= len(first + second))
    wait_for(desk.log, lambda log: "bridge_refused" in log)
    assert sorted(desk.trades()) == sorted(f"{a}.cross.1.1.BTC-PERP" for a in first + second)
    child.kill()
    wait_for(desk.log, lambda log: log.count("executor_stopped") == 2)


def test_strategy_of_ones_own_is_asked(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "halves.py").write_text(_STRATEGY, "utf-8")
    desk.offer(account_id="bob")
    desk.offer(account_id="alice")
    desk.flush()
    child = desk.start("--strategy", "halves:take_half", path=str(tmp_path))
    wait_for(desk.log, lambda log: "already_taken" in log)
    wait_for(desk.trades, lambda ids: len(ids) == 1)
    assert child.stop() == 0
    assert desk.sizes() == {"alice.cross.1.1.BTC-PERP": "0.25"}


def test_dry_run_says_what_it_would_do_and_leaves_no_trace(desk: Desk) -> None:
    desk.offer(account_id="alice")
    desk.flush()
    child = desk.start("--demo", "--dry-run", "--json")
    wait_for(desk.log, lambda log: "offer_would_be_taken" in log)
    assert child.stop() == 0
    assert '"offers": {' in desk.log()
    assert desk.trades() == []
    child = desk.start()
    wait_for(desk.trades, lambda ids: ids == ["alice.cross.1.1.BTC-PERP"])
    assert child.stop() == 0


def test_fresh_executor_acts_on_what_stands_and_does_not_read_history(desk: Desk) -> None:
    revised = {"revision": 2, "event": "revised", "reason": "ledger_changed"}
    for account_id in ("alice", "bob"):
        desk.offer(account_id=account_id)
    desk.offer(account_id="alice", **revised)
    desk.offer(account_id="bob", revision=2, event="recovered", reason="market", legs=[])
    desk.offer(account_id="carol", stands=False)  # whoever read history would take it
    desk.flush()
    child = desk.start()
    wait_for(desk.trades, lambda ids: ids == ["alice.cross.1.2.BTC-PERP"])
    desk.offer(account_id="alice", stands=False, **revised)  # known since the start
    desk.offer(account_id="bob", episode=2)
    desk.flush()
    wait_for(desk.trades, lambda ids: "bob.cross.2.1.BTC-PERP" in ids)
    child.kill()
    # What stands is answered already: its fills are found, unknown to it as they are.
    child = desk.start()
    wait_for(desk.log, lambda log: log.count("executor_started") == 2)
    desk.offer(account_id="dora")
    desk.flush()
    wait_for(desk.trades, lambda ids: "dora.cross.1.1.BTC-PERP" in ids)
    assert child.stop() == 0
    taken = ("alice.cross.1.2", "bob.cross.2.1", "dora.cross.1.1")
    assert sorted(desk.trades()) == [f"{name}.BTC-PERP" for name in taken]


def test_nothing_is_taken_while_the_worker_is_gone_and_what_waited_is_when_it_is_back(
    desk: Desk,
) -> None:
    late = {"expires_us": 2**52}
    worker = desk.start_worker()
    child = desk.start("--demo", "--heartbeat-s", "3", "--metrics-port", "0")
    wait_for(desk.log, lambda log: "executor_started" in log)
    desk.offer(account_id="alice", **late)
    desk.flush()
    wait_for(desk.trades, lambda ids: ids == ["alice.cross.1.1.BTC-PERP"], deadline_s=120)
    before = desk.log().count("heartbeat_stale")
    worker.kill()
    wait_for(desk.log, lambda log: log.count("heartbeat_stale") == before + 2)
    desk.offer(account_id="bob", **late)
    desk.flush()
    wait_for(lambda: desk.metric("events", "ignore", "stale_heartbeat"), bool)
    assert desk.trades() == ["alice.cross.1.1.BTC-PERP"]
    desk.start_worker()
    wait_for(desk.trades, lambda ids: "bob.cross.1.1.BTC-PERP" in ids, deadline_s=120)
    assert child.stop() == 0


def test_bridge_whose_reader_never_reads_stops_when_it_is_asked_to(desk: Desk) -> None:
    for number in range(100):
        desk.offer(account_id=f"a{number}", auction="x" * 2_000)  # in all more than a pipe holds
    desk.flush()
    child = desk.start(
        *("--bridge", "--metrics-port", "0"), before=(sys.executable, "-c", _DEAF_READER)
    )
    wait_for(lambda: desk.metric("events", "act", "live"), lambda count: count == 100)
    assert child.stop() == 0
    assert "executor_stopped" in desk.log()
