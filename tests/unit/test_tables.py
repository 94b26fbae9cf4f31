"""The Faust tables of a worker: dictionaries for people over real shards, and nothing to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faust
import pytest

from solvent.engine.prices import PriceShard
from solvent.errors import InvariantError
from solvent.runtime.tables import ShardTable
from support.margin import Log, Replay, a_rulebook
from support.prices import a_feeder


def a_table(shards: dict[int, Any]) -> ShardTable:
    app = faust.App("tables", broker="kafka://localhost:9", store="memory://")
    return ShardTable(app, shards=lambda: shards, name="accounts", partitions=2)


@pytest.fixture
def accounts() -> ShardTable:
    first = Replay().run(Log().move("bob").move("alice", amount="7"))
    second = Replay().run(Log().trade("carol").add("trades.v1", b"{", b"dave"))
    return a_table({1: second.shard, 0: first.shard})


def test_account_by_item_is_what_its_shard_says(accounts: ShardTable) -> None:
    alice = accounts["alice"]
    assert alice["account_id"] == "alice"
    assert [unit["subaccount"] for unit in alice["units"]] == ["cross"]
    (held,) = alice["units"][0]["collateral"]
    assert (held["asset"], held["amount"], held["index_price"]) == ("USDC", "7", None)
    assert (accounts["dave"]["quarantined"], accounts["dave"]["units"]) == (True, [])


def test_iteration_goes_by_partition_then_first_sight(accounts: ShardTable) -> None:
    names = ["bob", "alice", "carol", "dave"]
    assert list(accounts) == accounts.keys() == names
    assert len(accounts) == 4
    assert [account["account_id"] for account in accounts.values()] == names
    assert [(name, account["account_id"]) for name, account in accounts.items()] == [
        (name, name) for name in names
    ]


def test_account_of_another_worker_is_not_there(accounts: ShardTable) -> None:
    assert "alice" in accounts
    assert "zoe" not in accounts
    with pytest.raises(KeyError, match="zoe"):
        accounts["zoe"]
    assert accounts.get("zoe") is None


def test_table_follows_the_shards_it_is_given() -> None:
    shards: dict[int, Any] = {}
    table = a_table(shards)
    assert list(table) == []
    shards[0] = Replay().run(Log().move("alice")).shard
    assert list(table) == ["alice"]


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda table: table.__setitem__("alice", {}), id="set"),
        pytest.param(lambda table: table.__delitem__("alice"), id="delete"),
        pytest.param(lambda table: table.pop("alice"), id="pop"),
        pytest.param(lambda table: table.update(alice={}), id="update"),
        pytest.param(lambda table: table.setdefault("zoe", {}), id="setdefault"),
        pytest.param(lambda table: table.clear(), id="clear"),
    ],
)
def test_write_to_the_table_is_refused_and_changes_nothing(
    accounts: ShardTable, write: Callable[[ShardTable], object]
) -> None:
    before = accounts["alice"]
    with pytest.raises(InvariantError, match="rows change by input records only"):
        write(accounts)
    assert accounts["alice"] == before


def test_looking_at_the_table_changes_no_byte_of_what_follows() -> None:
    log = Log().move(amount="100").trade(size="4", price="100")
    log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).marks({"BTC": "84"}, at_s=1)
    log.trade(size="0.3").marks({"BTC": "60"}, at_s=2)
    alone, watched = Replay().run(log), Replay()
    for topic, records in log.runs(1):
        watched.apply(topic, records)
        assert a_table({0: watched.shard}).values()
    watched.cut()
    assert (watched.table, watched.records, watched.state) == (
        alone.table,
        alone.records,
        alone.state,
    )


def test_price_table_shows_feeds_with_sources_and_mark() -> None:
    feeder = a_feeder()
    feeder.tick("100", at=1, source="okx")
    table = a_table({0: feeder.shard})
    assert list(table) == ["BTC-PERP", "ETH-PERP", "BTC-PERP/oi"]
    assert table["BTC-PERP"]["mark"]["price"] == "100"
    assert table["BTC-PERP"]["sources"].keys() == {"okx"}
    assert table["ETH-PERP"]["mark"]["price"] is None
    assert "DOGE-PERP" not in a_table({0: PriceShard(a_rulebook())})
