"""Settings, open orders and snapshots through the margin shard: what each takes the place of."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from solvent.wire.topics import ACCOUNT_SETTINGS, ACCOUNT_SNAPSHOTS, OPEN_ORDERS, TRADES
from support.contracts import validator
from support.margin import (
    NOW_MS,
    NOW_US,
    Log,
    Record,
    Replay,
    a_shard,
    a_snapshot,
    ledger_of,
    orders_in,
    settings_of,
    snapshots_of,
    standing_of,
)

MARKS = {"BTC": "90", "ETH": "50", "ODD": "1"}


def a_position() -> Log:
    """Return 4 BTC bought at 100 on 100 USDC: equity 60, maintenance 45 at a mark of 90."""
    return Log().move(amount="100", seq=6).trade(size="4", price="100", seq=2).marks(MARKS)


def told(replay: Replay) -> list[str]:
    """Return what became of cases, in words."""
    return [f"{e['event']} {e['reason']}" for e in replay.events("liquidations.v1")]


def statuses(replay: Replay) -> list[tuple[str, str, bool]]:
    return [
        (e["subaccount"], e["status"], e["quarantined"]) for e in replay.events("margin-status.v1")
    ]


def orders_by_unit(replay: Replay, account_id: str = "alice") -> dict[str, Any]:
    units = replay.shard.describe(account_id)["units"]
    return {
        unit["subaccount"]: {o["market"]: (o["bid_size"], o["leverage"]) for o in unit["orders"]}
        for unit in units
    }


# -- settings


def test_settings_bind_all_units_present_and_to_come_to_the_preset() -> None:
    log = Log().move("bob").trade("bob", subaccount="BTC-PERP").settings(account_class="careful")
    log.settings("bob", account_class="careful").trade("bob", subaccount="ETH-PERP", **ETH)
    log.trade("carol").trade("alice")
    replay = Replay().run(log)
    presets = {name: standing[1] for name, standing in standing_of(replay.shard).items()}
    assert presets == {"alice": "strict", "bob": "strict", "carol": "cross-margin"}
    assert list(standing_of(replay.shard)["bob"][2]) == ["cross", "ETH-PERP", "BTC-PERP"]


ETH = {"market": "ETH-PERP", "price": "50"}


def test_settings_that_make_a_unit_unhealthy_open_a_case_and_better_ones_end_it() -> None:
    log = a_position().marks({"BTC": "94"}, at_s=1)  # equity 76, liquidation end 70.5
    log.settings(account_class="careful").settings(account_class="trader")
    replay = Replay().run(log)
    assert told(replay) == ["opened liquidatable", "recovered settings"]
    opened, recovered = replay.events("liquidations.v1")
    assert opened["trigger"] == {"topic": ACCOUNT_SETTINGS, "offset": 0}
    assert opened["requirement"]["maintenance"] == "94"  # 4 x 94 x 25 %
    assert opened["inputs"][ACCOUNT_SETTINGS] == 1
    for event in (opened, recovered):
        validator("liquidations").validate(event)


def test_leverage_lies_with_the_cross_book_and_the_isolated_book_of_its_market() -> None:
    limits = {"BTC-PERP": "10", "ETH-PERP": "2.5"}
    log = Log().trade(subaccount="BTC-PERP").settings(leverage=limits)
    log.trade(subaccount="ETH-PERP", **ETH)  # opened later: takes its limit from the cross book
    replay = Replay().run(log)
    assert orders_by_unit(replay) == {
        "cross": {"ETH-PERP": ("0", "2.5"), "BTC-PERP": ("0", "10")},
        "ETH-PERP": {"ETH-PERP": ("0", "2.5")},
        "BTC-PERP": {"BTC-PERP": ("0", "10")},
    }


@pytest.mark.parametrize("given", [{"leverage": {}}, {}], ids=["empty", "left out"])
def test_settings_replace_all_limits(given: dict[str, Any]) -> None:
    log = Log().trade(subaccount="BTC-PERP").settings(leverage={"BTC-PERP": "10"})
    log.settings(leverage={"ETH-PERP": "3"})
    replay = Replay().run(log)
    assert orders_by_unit(replay) == {"cross": {"ETH-PERP": ("0", "3")}, "BTC-PERP": {}}
    replay.run(Log().add(ACCOUNT_SETTINGS, settings_of(**given)))
    assert orders_by_unit(replay) == {"cross": {}, "BTC-PERP": {}}


# -- open orders


def test_orders_replace_the_last_ones_and_zero_removes_them() -> None:
    log = Log().settings(leverage={"BTC-PERP": "10"}).orders().orders(market="ETH-PERP")
    replay = Replay().run(log.orders(bid_size="2.5", bid_value="200"))
    assert orders_by_unit(replay) == {
        "cross": {"ETH-PERP": ("1", None), "BTC-PERP": ("2.5", "10")},
    }
    nothing = {"bid_size": "0", "bid_value": "0", "count": 0}
    replay.run(Log().orders(**nothing).orders(market="ETH-PERP", **nothing))
    assert orders_by_unit(replay) == {"cross": {"BTC-PERP": ("0", "10")}}  # the limit stays


def test_orders_open_a_book_and_none_open_no_book() -> None:
    nothing = {"bid_size": "0", "bid_value": "0.0", "count": 0}
    log = Log().orders("bob", seq=4, **nothing).orders(subaccount="BTC-PERP", seq=8)
    replay = Replay().run(log)
    assert standing_of(replay.shard) == {
        "bob": ([None, 4], "cross-margin", {}),
        "alice": (
            [None, 8],
            "cross-margin",
            {"BTC-PERP": {"BTC-PERP": (2, 90_000_000, 0, 0, 1, 0)}},
        ),
    }


# -- sequences


@pytest.mark.parametrize("topic", [ACCOUNT_SETTINGS, OPEN_ORDERS])
@pytest.mark.parametrize(
    ("seqs", "last", "duplicates", "code"),
    [
        pytest.param([7], 7, 0, None, id="the first sets the base"),
        pytest.param([7, 8, 9], 9, 0, None, id="each follows"),
        pytest.param([7, 7, 6], 7, 2, None, id="repeats"),
        pytest.param([7, None, 8], 8, 0, None, id="one without"),
        pytest.param([7, 9], 7, 0, "SLV-201", id="a hole"),
    ],
)
def test_sequence_of_a_statement_is_gapless_by_account_and_topic(
    topic: str, seqs: list[int | None], last: int, duplicates: int, code: str | None
) -> None:
    make = settings_of if topic == ACCOUNT_SETTINGS else orders_in
    log = Log().trade(seq=1)
    for seq in seqs:
        log.add(topic, make() if seq is None else make(seq=seq))
    replay = Replay().run(log)
    found = standing_of(replay.shard)["alice"][0]
    assert found == ([last, None] if topic == ACCOUNT_SETTINGS else [None, last])
    assert replay.shard.facts().duplicates[topic] == duplicates
    rejects = replay.events("rejects.v1")
    assert [r["code"] for r in rejects] == ([] if code is None else [code])
    assert ledger_of(replay.shard)["alice"][1] is (code is not None)
    for reject in rejects:
        assert (reject["topic"], reject["offset"]) == (topic, len(seqs) - 1)


# -- bad input


def settings(**changes: object) -> bytes:
    return settings_of(**changes)


BAD = [
    pytest.param(ACCOUNT_SETTINGS, b"{", "SLV-101", id="settings malformed"),
    pytest.param(ACCOUNT_SETTINGS, None, "SLV-101", id="settings tombstone"),
    pytest.param(ACCOUNT_SETTINGS, settings(leverage=None), "SLV-101", id="leverage null"),
    pytest.param(
        ACCOUNT_SETTINGS,
        settings(leverage={"BTC-PERP": "2"}).replace(b'"2"', b'"2","BTC-PERP":"3"'),
        "SLV-101",
        id="market named twice",
    ),
    pytest.param(ACCOUNT_SETTINGS, settings(schema_version=2), "SLV-102", id="settings version"),
    pytest.param(ACCOUNT_SETTINGS, settings(account_class="a b"), "SLV-103", id="class not a name"),
    pytest.param(
        ACCOUNT_SETTINGS, settings(leverage={"BTC-PERP": "0.9"}), "SLV-103", id="leverage below 1"
    ),
    pytest.param(
        ACCOUNT_SETTINGS,
        settings(leverage={"BTC-PERP": "1.0000001"}),
        "SLV-104",
        id="leverage below a millionth",
    ),
    pytest.param(
        ACCOUNT_SETTINGS, settings(ts_us=NOW_US + 300_000_001), "SLV-107", id="settings future"
    ),
    pytest.param(
        ACCOUNT_SETTINGS, settings(leverage={"DOGE-PERP": "2"}), "SLV-202", id="leverage market"
    ),
    pytest.param(
        ACCOUNT_SETTINGS, settings(account_class="market-maker"), "SLV-204", id="unknown class"
    ),
    pytest.param(OPEN_ORDERS, orders_in(bid_size="-1"), "SLV-103", id="size below 0"),
    pytest.param(OPEN_ORDERS, orders_in(ask_value="9" * 40), "SLV-103", id="value beyond 2^53"),
    pytest.param(OPEN_ORDERS, orders_in(bid_size="NaN"), "SLV-103", id="size not a number"),
    pytest.param(OPEN_ORDERS, orders_in(bid_size="0.3"), "SLV-104", id="off the lot"),
    pytest.param(OPEN_ORDERS, orders_in(bid_value="0.0000001"), "SLV-104", id="below a micro"),
    pytest.param(OPEN_ORDERS, orders_in(subaccount="ETH-PERP"), "SLV-106", id="another book"),
    pytest.param(OPEN_ORDERS, orders_in("DOGE-PERP"), "SLV-202", id="orders market"),
    pytest.param(
        ACCOUNT_SNAPSHOTS, a_snapshot("s", collateral={"GOLD": "1"}), "SLV-103", id="asset"
    ),
    pytest.param(
        ACCOUNT_SNAPSHOTS,
        a_snapshot("s", positions=[{"market": "BTC-PERP", "size": "0", "cost_basis": "0"}]),
        "SLV-103",
        id="position of nothing",
    ),
    pytest.param(
        ACCOUNT_SNAPSHOTS,
        a_snapshot("s", positions=[{"market": "BTC-PERP", "size": "1", "cost_basis": "0"}] * 2),
        "SLV-103",
        id="position twice",
    ),
    pytest.param(
        ACCOUNT_SNAPSHOTS, a_snapshot("s", collateral={"JUNK": "0.001"}), "SLV-104", id="quantum"
    ),
    pytest.param(ACCOUNT_SNAPSHOTS, a_snapshot("s", subaccount="margin"), "SLV-106", id="book"),
    pytest.param(
        ACCOUNT_SNAPSHOTS,
        a_snapshot(
            "s",
            subaccount="ETH-PERP",
            positions=[{"market": "BTC-PERP", "size": "1", "cost_basis": "9"}],
        ),
        "SLV-106",
        id="position of another book",
    ),
    pytest.param(
        ACCOUNT_SNAPSHOTS,
        a_snapshot("s", positions=[{"market": "DOGE-PERP", "size": "1", "cost_basis": "9"}]),
        "SLV-202",
        id="snapshot market",
    ),
    pytest.param(ACCOUNT_SNAPSHOTS, a_snapshot("s", account_class="x"), "SLV-204", id="class"),
]


@pytest.mark.parametrize(("topic", "value", "code"), BAD)
def test_bad_statement_is_rejected_and_quarantines(
    topic: str, value: bytes | None, code: str
) -> None:
    replay = Replay().run(a_position().orders().settings(leverage={"ETH-PERP": "4"}))
    ledger, standing = ledger_of(replay.shard)["alice"], standing_of(replay.shard)
    replay.records.clear()
    replay.apply(topic, [Record(4711, NOW_MS, b"alice", value)])
    replay.cut()

    (reject,) = replay.events("rejects.v1")
    validator("rejects").validate(reject)
    assert (reject["code"], reject["topic"], reject["offset"]) == (code, topic, 4711)
    assert (reject["account_id"], reject["quarantined"]) == ("alice", True)
    shown = reject["value_base64"]
    assert (None if shown is None else base64.b64decode(shown)) == value
    assert statuses(replay) == [("cross", "unknown", True)]
    assert [emit.topic for emit in replay.records] == ["rejects.v1", "margin-status.v1"]
    for _ in range(2):
        assert ledger_of(replay.shard)["alice"] == (ledger[0], True, ledger[2])
        assert standing_of(replay.shard) == standing
        replay.restore()


@pytest.mark.parametrize("topic", [ACCOUNT_SETTINGS, OPEN_ORDERS, ACCOUNT_SNAPSHOTS])
def test_bad_statement_of_an_unknown_account_makes_it_and_quarantines_it(topic: str) -> None:
    replay = Replay().run(Log().add(topic, b"{", b"zoe"))
    assert ledger_of(replay.shard) == {"zoe": ([None, None], True, {})}
    assert [e["account_id"] for e in replay.events("margin-status.v1")] == ["zoe"]


@pytest.mark.parametrize(
    ("key", "quarantined"),
    [
        pytest.param(b"bob", {"alice", "bob"}, id="of another account here"),
        pytest.param(b"zoe", {"alice"}, id="of an account unknown here"),
        pytest.param(None, {"alice"}, id="missing"),
        pytest.param(b"\xff", {"alice"}, id="not text"),
    ],
)
@pytest.mark.parametrize(
    ("topic", "value"),
    [
        (ACCOUNT_SETTINGS, settings_of()),
        (OPEN_ORDERS, orders_in()),
        (ACCOUNT_SNAPSHOTS, a_snapshot("s")),
    ],
    ids=["settings", "orders", "snapshot"],
)
def test_wrong_key_of_a_statement_quarantines_known_accounts_and_creates_none(
    topic: str, value: bytes, key: bytes | None, quarantined: set[str]
) -> None:
    replay = Replay().run(Log().move("alice").move("bob").add(topic, value, key))
    (reject,) = replay.events("rejects.v1")
    assert (reject["code"], reject["account_id"]) == ("SLV-105", "alice")
    ledger = ledger_of(replay.shard)
    assert ledger.keys() == {"alice", "bob"}
    assert {name for name, account in ledger.items() if account[1]} == quarantined


def test_statements_of_a_quarantined_account_are_applied_but_do_not_end_it() -> None:
    log = a_position().trade(seq=9).settings(account_class="careful").orders()
    replay = Replay().run(log)
    assert ledger_of(replay.shard)["alice"][1] is True
    assert standing_of(replay.shard)["alice"][1] == "strict"
    assert orders_by_unit(replay)["cross"] == {"BTC-PERP": ("1", None)}
    assert told(replay) == []


# -- snapshots

LONG = {"market": "BTC-PERP", "size": "1", "cost_basis": "95.5"}
SHORT = {"market": "ETH-PERP", "size": "-2", "cost_basis": "-101"}


def test_snapshot_takes_the_place_of_all_that_was_known_of_the_unit() -> None:
    log = a_position().move(asset="ETHER", amount="2").orders().orders(market="ODD-PERP")
    log.settings(leverage={"BTC-PERP": "10"}).trade(subaccount="ETH-PERP", **ETH)
    side = {"bid_size": "0", "bid_value": "0", "ask_size": "1", "ask_value": "60", "count": 2}
    log.snapshot(
        collateral={"USDC": "-5.25", "JUNK": "7"},
        positions=[LONG, SHORT],
        orders=[{"market": "ETH-PERP", **side}],
    )
    replay = Replay().run(log)
    sequences, is_quarantined, books = ledger_of(replay.shard)["alice"]
    assert (sequences, is_quarantined) == ([2, 6], False)  # as they were: it tells none
    assert books["cross"] == (
        {"ETH-PERP": (-200, -101_000_000), "BTC-PERP": (2, 95_500_000)},
        {"USDC": -5_250_000, "JUNK": 700},
    )
    assert books["ETH-PERP"] == ({"ETH-PERP": (100, 50_000_000)}, {})
    _, _, orders = standing_of(replay.shard)["alice"]
    assert orders["cross"] == {
        "ETH-PERP": (0, 0, 100, 60_000_000, 2, 0),
        "BTC-PERP": (0, 0, 0, 0, 0, 10_000_000),  # limits are the account's, and stay
    }
    assert replay.shard.describe("alice")["units"][0]["flags"] == ["unlisted_collateral"]


def test_snapshot_imports_an_account_and_its_records_follow_the_sequences_told() -> None:
    log = Log().snapshot(
        account_class="careful",
        leverage={"ETH-PERP": "3"},
        positions=[LONG],
        trades_seq=17,
        collateral_seq=3,
        settings_seq=1,
        orders_seq=0,
    )
    log.trade(seq=17).move(seq=3).settings(seq=1).orders(seq=0)  # part of the snapshot
    log.trade(seq=18, price="90").move(seq=4).orders(seq=1)
    replay = Replay().run(log)
    assert replay.records == []
    assert ledger_of(replay.shard)["alice"] == (
        [18, 4],
        False,
        {"cross": ({"BTC-PERP": (4, 185_500_000)}, {"USDC": 200_000_000})},
    )
    sequences, preset, _ = standing_of(replay.shard)["alice"]
    assert (sequences, preset) == ([1, 1], "strict")
    assert orders_by_unit(replay)["cross"] == {"ETH-PERP": ("0", "3"), "BTC-PERP": ("1", None)}


@pytest.mark.parametrize(
    ("told_seqs", "next_seq", "code"),
    [
        pytest.param({"trades_seq": 9}, 10, None, id="the record after the one told"),
        pytest.param({"trades_seq": 9}, 11, "SLV-201", id="a gap to the one told"),
        pytest.param({}, 4711, None, id="without one, any record"),
    ],
)
def test_snapshot_ends_a_quarantine_and_sequences_begin_anew(
    told_seqs: dict[str, int], next_seq: int, code: str | None
) -> None:
    replay = Replay().run(a_position().trade(seq=9))
    assert ledger_of(replay.shard)["alice"][1] is True
    replay.records.clear()
    value = a_snapshot("s1", collateral={"USDC": "500"}, positions=[LONG], **told_seqs)
    replay.apply(ACCOUNT_SNAPSHOTS, [Record(0, NOW_MS, b"alice", value)])
    replay.cut()
    assert statuses(replay) == [("cross", "healthy", False)]
    assert ledger_of(replay.shard)["alice"][1] is False
    replay.restore()
    after = Log().trade(seq=next_seq, size="0.5", price="90").move(seq=99)
    replay.apply(TRADES, [after.entries[0][1]])
    replay.apply("collateral.v1", [after.entries[1][1]])
    replay.cut()
    assert [r["code"] for r in replay.events("rejects.v1")] == ([] if code is None else [code])


def test_snapshot_of_one_unit_leaves_the_others_and_all_are_judged_again() -> None:
    log = a_position().trade(subaccount="ETH-PERP", **ETH).move(subaccount="ETH-PERP")
    log.trade(size="0.3").snapshot(positions=[LONG])
    replay = Replay().run(log)
    assert statuses(replay)[-2:] == [("cross", "healthy", False), ("ETH-PERP", "healthy", False)]
    books = ledger_of(replay.shard)["alice"][2]
    assert books["ETH-PERP"] == ({"ETH-PERP": (100, 50_000_000)}, {"USDC": 100_000_000})


def test_end_of_a_quarantine_is_told_although_the_unit_stays_unknown() -> None:
    log = a_position().trade(size="0.3").marks({"BTC": "90"}, state="stale", since_s=1)
    replay = Replay().run(log.snapshot(positions=[LONG]))
    assert statuses(replay)[-1] == ("cross", "unknown", False)
    replay.run(Log(marks_seq=2).marks({"BTC": "90"}, at_s=9))
    assert statuses(replay)[-1] == ("cross", "healthy", False)


def test_quarantine_ended_before_the_first_frame_leaves_the_status_of_before() -> None:
    replay = Replay().run(Log().move().trade(size="0.3").snapshot())
    assert statuses(replay) == [("cross", "unknown", True), ("cross", "healthy", False)]


def test_case_that_rested_in_quarantine_is_revised_by_the_snapshot() -> None:
    log = a_position().marks({"BTC": "84"}, at_s=1).trade(size="0.3")
    log.marks({"BTC": "83"}, at_s=70).snapshot(
        positions=[{"market": "BTC-PERP", "size": "4", "cost_basis": "400"}]
    )
    replay = Replay().run(log)
    assert told(replay) == ["opened liquidatable", "revised ledger_changed"]
    _, revised = replay.events("liquidations.v1")
    assert revised["trigger"] == {"topic": ACCOUNT_SNAPSHOTS, "offset": 0}
    assert (revised["liquidation_id"], revised["revision"]) == ("alice:cross:1", 2)


@pytest.mark.parametrize(
    ("changes", "end", "bad_debt"),
    [
        pytest.param(
            {"collateral": {"USDC": "900"}, "positions": [LONG]},
            "recovered snapshot",
            None,
            id="well",
        ),
        pytest.param(
            {"collateral": {"USDC": "-3"}}, "closed exhausted", "3", id="nothing left but debt"
        ),
    ],
)
def test_case_is_judged_by_what_the_snapshot_says(
    changes: dict[str, Any], end: str, bad_debt: str | None
) -> None:
    log = a_position().marks({"BTC": "84"}, at_s=1).snapshot(**changes)
    replay = Replay().run(log)
    assert told(replay) == ["opened liquidatable", end]
    last = replay.events("liquidations.v1")[-1]
    validator("liquidations").validate(last)
    assert last.get("bad_debt") == bad_debt


@pytest.mark.parametrize("is_restored", [False, True], ids=["lived", "restored"])
@pytest.mark.parametrize(
    ("distance", "balance"),
    [pytest.param(100_000, 150, id="at the edge"), pytest.param(100_001, 100, id="just beyond")],
)
def test_repeated_snapshot_within_window_only_is_dropped(
    distance: int, balance: int, *, is_restored: bool
) -> None:
    replay = Replay()
    value = a_snapshot("s1")
    replay.apply(ACCOUNT_SNAPSHOTS, [Record(5, NOW_MS, b"alice", value)])
    replay.apply("collateral.v1", [Log().move(amount="50").entries[0][1]])
    replay.cut()
    if is_restored:
        replay.restore()
    replay.apply(ACCOUNT_SNAPSHOTS, [Record(5 + distance, NOW_MS, b"alice", value)])
    assert ledger_of(replay.shard)["alice"][2]["cross"][1] == {"USDC": balance * 1_000_000}
    repeats = replay.shard.facts().duplicates[ACCOUNT_SNAPSHOTS]
    assert repeats == (1 if distance == 100_000 else 0)


def test_snapshot_id_need_be_unique_per_account_only() -> None:
    log = Log().add(ACCOUNT_SNAPSHOTS, a_snapshot("s1"))
    replay = Replay().run(log.add(ACCOUNT_SNAPSHOTS, a_snapshot("s1", "bob"), b"bob"))
    assert ledger_of(replay.shard).keys() == {"alice", "bob"}


# -- rows and the fence


def test_shard_that_read_no_statement_leaves_no_trace_of_the_topics() -> None:
    replay = Replay().run(a_position())
    assert replay.state["offsets"].keys() == {"trades.v1", "collateral.v1", "marks.v1"}
    assert not any("settings" in name for name in replay.state["counts"])
    assert replay.table[b"alice"][0] == 1  # the row of before


def test_state_with_statements_is_restored_exactly() -> None:
    log = a_position().settings(account_class="careful", leverage={"BTC-PERP": "7.5"}, seq=1)
    log.orders(seq=3).orders("bob", subaccount="ETH-PERP", market="ETH-PERP")
    replay = Replay().run(log.move("carol"))
    assert [replay.table[name][0] for name in (b"alice", b"bob", b"carol")] == [2, 2, 1]
    described = list(replay.shard.accounts())
    counters = replay.shard.counters
    replay.restore()
    assert list(replay.shard.accounts()) == described
    assert replay.shard.counters == counters


def test_snapshots_of_an_account_as_described_make_the_same_account() -> None:
    log = a_position().settings(account_class="careful", leverage={"ETH-PERP": "7.5"}, seq=1)
    log.orders(seq=3).trade(subaccount="ETH-PERP", seq=3, **ETH)
    replay = Replay().run(log)
    account = replay.shard.describe("alice")
    copy = Replay(a_shard())
    for offset, value in enumerate(snapshots_of(account, "careful")):
        assert orjson.loads(value)["trades_seq"] == 3
        copy.apply(ACCOUNT_SNAPSHOTS, [Record(offset, NOW_MS, b"alice", value)])
    assert ledger_of(copy.shard) == ledger_of(replay.shard)
    assert standing_of(copy.shard) == standing_of(replay.shard)
