"""Circuit breakers by hand: which mark trips, what is told when, and at which time it resumes.

Windows are 60 s, so a part of one (to which the time a mark was replaced is rounded up) is 1 s.
Marks: one source at exponent -2, times in seconds after the start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from solvent.engine.prices import PriceShard
from solvent.engine.run import Run
from solvent.errors import ConfigError
from solvent.rules import CompiledRulebook, builtin_rulebook, compile_document, parse_rulebook
from support.contracts import validator
from support.prices import SECOND, START_US, Feeder, Record, a_rulebook

#: 10 % within 60 s; the sources of the rulebook live 10 s, so ticks are repeated in between.
CRASH = {"velocity": {"move_ppm": 100_000, "window_us": 60 * SECOND}}
DOUBT = {"disagreement": {"after_us": 5 * SECOND}}
#: $1,000 of a market within 60 s; $300 of the fund, or half of it.
FLOOD = {"liquidated_volume": {"span_us": 60 * SECOND, "limit_micros": 1_000 * SECOND}}
DRAIN = {"fund_draws": {"span_us": 60 * SECOND, "limit_micros": 300 * SECOND}, "level": "all"}
HALF = {"fund_draws": {"span_us": 60 * SECOND, "share_ppm": 500_000}, "level": "all"}


def with_breakers(
    breakers: dict[str, Any] | None, version: int = 1, *, fund_usd: int | None = 1_000
) -> CompiledRulebook:
    """Return the rulebook of price tests with breakers; sources live for an hour, two may differ.

    ETH-PERP is a third market, of the second feed. There is a fund, if any.
    """
    document = json.loads(a_rulebook(max_age_us=3_600 * SECOND).document)
    document["rulebook"]["version"] = version
    document["instruments"]["ETH-PERP"] = document["instruments"]["BTC-PERP"] | {
        "id": 3,
        "mark_feed": "ETH-PERP",
    }
    markets = document["presets"]["cross-margin"]["requirement"]["sum"][0]["markets"]
    markets["ETH-PERP"] = markets["BTC-PERP"]
    if breakers is not None:
        document["breakers"] = breakers
    if fund_usd is not None:
        document["insurance"] = {"opening_micros": fund_usd * SECOND}
    return parse_rulebook(json.dumps(document))


def a_desk(**breakers: Any) -> Feeder:
    return Feeder(PriceShard(with_breakers(breakers or None)))


def frames(feeder: Feeder) -> list[str]:
    """Return what frames tell: marks of feeds, or who is paused since when (seconds)."""
    told = []
    for frame in feeder.cut().frames:
        validator("marks").validate(frame)
        if "pauses" not in frame:
            told.append(" ".join(f"{mark['feed']}={mark['price']}" for mark in frame["marks"]))
            continue
        assert frame["marks"] == []
        pauses = frame["pauses"]
        words = ["all"] * pauses["all"] + pauses["markets"]
        for each in pauses.get("breakers", ()):
            causes = {"flood": "liquidated_volume", "drain": "fund_draws", "half": "fund_draws"}
            assert each.get("cause") == causes.get(each["name"])
        words += [f"halted:{market}" for market in pauses.get("halted", ())]
        words += ["dry"] * pauses.get("dry_run", False)
        words += [
            f"{each['name']}:{each.get('market', '*')}@{(each['since_us'] - START_US) // SECOND}"
            for each in pauses.get("breakers", ())
        ]
        told.append("paused " + (" ".join(words) or "nothing"))
    return told


# -- velocity


@pytest.mark.parametrize(
    ("steps", "trips_at"),
    [
        pytest.param([(0, "100"), (30, "90.91")], None, id="9.99 % of the lower: not yet"),
        pytest.param([(0, "100"), (30, "90.90")], 30, id="10.01 % down"),
        pytest.param([(0, "100"), (30, "110")], 30, id="10 % up"),
        pytest.param([(0, "100"), (30, "95"), (50, "104.5")], 50, id="95 to 104.50 up, after 100"),
        pytest.param([(0, "100"), (300, "90")], 300, id="at one blow, after a quiet time"),
        # 100 was replaced at 10: it counts until 70, since 10 is a whole part
        pytest.param([(0, "100"), (10, "95"), (70, "90")], 70, id="the first still counts"),
        pytest.param([(0, "100"), (10, "95"), (71, "90")], None, id="the first is out"),
        # replaced at 9.5, rounded up to 10
        pytest.param([(0, "100"), (9.5, "95"), (70, "90")], 70, id="counts a part longer"),
    ],
)
def test_velocity_trips_at_the_mark_that_is_too_far_from_another_in_the_window(
    steps: list[tuple[float, str]], trips_at: int | None
) -> None:
    feeder = a_desk(crash={**CRASH, "markets": ["BTC-PERP"]})
    for at, price in steps:
        feeder.clock(at)
        feeder.tick(price, at=at)
    told = [frame for frame in frames(feeder) if frame.startswith("paused")]
    assert told == ([] if trips_at is None else [f"paused crash:BTC-PERP@{trips_at}"])


def test_pause_is_told_ahead_of_the_mark_that_tripped_it() -> None:
    feeder = a_desk(crash={**CRASH, "markets": ["BTC-PERP"]})
    feeder.clock(0)
    feeder.tick("100")
    feeder.tick("50", feed="ETH-PERP")
    feeder.clock(1)
    feeder.tick("49", at=1.1, feed="ETH-PERP")
    feeder.tick("90", at=1.2)
    assert frames(feeder) == [
        "",
        "BTC-PERP=100 ETH-PERP=50",
        "paused crash:BTC-PERP@1",
        "BTC-PERP=90 ETH-PERP=49",
    ]


def test_markets_of_the_feed_trip_together_and_resume_after_a_quiet_time() -> None:
    feeder = a_desk(crash={**CRASH, "quiet_us": 20 * SECOND})
    feeder.clock(0)
    feeder.tick("100")
    feeder.clock(10)
    feeder.tick("90", at=10)  # 100 counts until 70: the condition ends beyond it
    assert frames(feeder)[-2:] == [
        "paused crash:BTC-DATED@10 crash:BTC-PERP@10",
        "BTC-PERP=90",
    ]
    for at in (70, 71, 90):
        feeder.clock(at)
    assert frames(feeder) == ["", "", ""]
    feeder.clock(91)  # quiet since 71
    assert frames(feeder) == ["", "paused nothing"]
    assert feeder.cut().rows == {}


def test_quiet_time_begins_anew_when_the_condition_holds_again() -> None:
    feeder = a_desk(crash={**CRASH, "markets": ["BTC-PERP"], "quiet_us": 20 * SECOND})
    feeder.clock(0)
    feeder.tick("100")
    feeder.clock(10)
    feeder.tick("90", at=10)
    feeder.clock(75)
    row = feeder.cut().rows["\0control"]
    validator("price-state").validate(row)
    quiet = {"since_us": START_US + 10 * SECOND, "quiet_since_us": START_US + 75 * SECOND}
    assert row["breakers"] == [{"name": "crash", "market": "BTC-PERP", **quiet}]
    feeder.clock(90)
    feeder.tick("81", at=90)  # 90 / 81: 11 %
    feeder.clock(110)
    assert [frame for frame in frames(feeder) if "paused" in frame] == []
    feeder.clock(151)  # 90 was replaced at 90: it counts until 150
    feeder.clock(171)
    assert frames(feeder) == ["", "", "paused nothing"]


def test_feed_that_is_not_valid_has_no_velocity() -> None:
    feeder = Feeder(PriceShard(with_breakers({"crash": CRASH})))
    feeder.clock(0)
    feeder.tick("100", source="a")
    feeder.tick("101", source="b")
    feeder.tick("50", source="b", at=0.1)  # two camps: diverged, its median is 75
    feeder.clock(1)
    assert not any("paused" in frame for frame in frames(feeder))
    feeder.tick("101", source="b", at=1.1)
    assert not any("paused" in frame for frame in frames(feeder))


# -- disagreement


def test_disagreement_trips_once_it_has_lasted_and_resumes() -> None:
    feeder = a_desk(doubt={**DOUBT, "markets": ["BTC-PERP"], "quiet_us": SECOND})
    feeder.clock(0)
    feeder.tick("100", source="a")
    feeder.tick("50", source="b")  # since 0
    feeder.clock(4.9)
    assert not any("paused" in frame for frame in frames(feeder))
    feeder.clock(5)
    assert frames(feeder) == ["paused doubt:BTC-PERP@5", ""]
    feeder.clock(6)
    feeder.tick("100", source="b", at=6)  # they agree from 6 on
    feeder.clock(6.9)
    feeder.clock(7)
    assert frames(feeder) == ["", "BTC-PERP=100", "", "paused nothing"]


@pytest.mark.parametrize(("share_ppm", "trips"), [(250_000, True), (250_001, False)])
def test_votes_dropped_as_outliers_are_disagreement_from_a_share_on(
    share_ppm: int, trips: bool
) -> None:
    feeder = a_desk(doubt={"disagreement": {"outliers_ppm": share_ppm}, "markets": ["BTC-PERP"]})
    feeder.clock(0)
    for source, price in (("a", "100"), ("b", "100"), ("c", "101"), ("d", "120")):
        feeder.tick(price, source=source)  # the band is 2 %: one of four is dropped
    told = [frame for frame in frames(feeder) if "paused" in frame]
    assert told == ["paused doubt:BTC-PERP@0"] * trips


def test_outlier_that_falls_silent_ends_the_doubt_though_the_mark_is_the_same() -> None:
    breakers = {"doubt": {"disagreement": {"outliers_ppm": 250_000}, "quiet_us": SECOND}}
    document = json.loads(with_breakers(breakers).document)
    document["oracle"]["default"]["max_age_us"] = 10 * SECOND
    lived = Feeder(PriceShard(compile_document(orjson.dumps(document))))
    lived.clock(0)
    lived.tick("120", source="d")
    for source in "abc":
        lived.tick("100", source=source, at=1)
    lived.clock(1)
    rows = lived.cut().rows
    assert rows["BTC-PERP"]["breakers"] == {"doubt": {"since_us": START_US}}
    lived.clock(10.5)
    assert "breakers" not in lived.cut().rows["BTC-PERP"]


# -- what is liquidated


@pytest.mark.parametrize(
    ("tallies", "now", "trips_at"),
    [
        pytest.param([(1, 600), (30, 399)], 30, None, id="999: not yet"),
        pytest.param([(1, 600), (30, 400)], 30, 30, id="1,000"),
        pytest.param([(30, 400), (1, 600)], 30, 30, id="told late, by another partition"),
        # 600 of second 1 count in (now - 60, now]: until before 61
        pytest.param([(1, 600), (60.5, 400)], 60.5, 60.5, id="the first still counts"),
        pytest.param([(1, 600), (61, 400)], 61, None, id="the first is out"),
        # of 0.5, rounded up to 1: parts are a second
        pytest.param([(0.5, 600), (60.9, 400)], 60.9, 60.9, id="counts a part longer"),
        pytest.param([(60, 999), (0, 600)], 60, None, id="told too late: it counts nothing"),
    ],
)
def test_volume_trips_when_what_was_liquidated_in_the_span_comes_to_the_limit(
    tallies: list[tuple[float, int]], now: float, trips_at: float | None
) -> None:
    feeder = a_desk(flood={**FLOOD, "markets": ["BTC-PERP"]})
    feeder.clock(0)
    for partition, (at, usd) in enumerate(tallies):
        if partition == 1:
            feeder.clock(now)
        feeder.liquidated(at, partition=partition, BTC=usd, ETH=5_000)
    told = [frame for frame in frames(feeder) if frame.startswith("paused")]
    expected = None if trips_at is None else f"paused flood:BTC-PERP@{int(trips_at)}"
    assert told == ([] if expected is None else [expected])


def test_volume_of_a_market_pauses_it_alone_and_resumes_after_a_quiet_time() -> None:
    feeder = a_desk(flood={**FLOOD, "quiet_us": 20 * SECOND})
    feeder.clock(0)
    feeder.tick("100")
    feeder.liquidated(0, BTC=1_000, ETH=999)
    assert frames(feeder) == ["", "paused flood:BTC-PERP@0", "BTC-PERP=100"]
    assert feeder.shard.facts().breakers == {"flood": 1}
    for at in (59, 60, 79):  # the volume of 0 is out at 60: quiet from there on
        feeder.clock(at)
    assert frames(feeder) == ["", "", ""]
    row = orjson.loads(feeder.shard._control.row(feeder.shard._breakers.standing()))
    quiet = {"since_us": START_US, "quiet_since_us": START_US + 60 * SECOND}
    told = {"name": "flood", "market": "BTC-PERP", "cause": "liquidated_volume"}
    assert row["breakers"] == [told | quiet]
    feeder.clock(80)
    assert frames(feeder) == ["", "paused nothing"]
    assert feeder.shard.facts().breakers == {"flood": 0}


def test_volume_of_all_is_the_sum_of_the_markets_watched() -> None:
    feeder = a_desk(flood={**FLOOD, "level": "all", "markets": ["BTC-PERP", "ETH-PERP"]})
    feeder.clock(0)
    feeder.loss("liquidated", markets=[("BTC-DATED", 10**12)])  # not watched
    feeder.liquidated(0, BTC=600, ETH=399)
    assert frames(feeder) == [""]
    feeder.liquidated(0, ETH=1)
    assert frames(feeder) == ["paused flood:*@0"]
    row = feeder.cut().rows
    assert row == {}
    feeder.command("resume", at=1)  # overridden while what was liquidated counts
    feeder.liquidated(0, BTC=600)
    assert frames(feeder) == ["paused nothing"]
    feeder.clock(60)
    feeder.liquidated(60, BTC=1_000)
    assert frames(feeder) == ["", "paused flood:*@60"]


def test_volume_is_remembered_in_few_parts_however_often_it_is_told() -> None:
    feeder = a_desk(flood=FLOOD)
    for tenth in range(1_000):
        feeder.clock(tenth / 10)
        feeder.liquidated(tenth / 10, BTC=1)
    row = feeder.cut().rows["\0control"]
    validator("price-state").validate(row)
    sums = row["sums"]["flood"]["BTC-PERP"]
    # until 99.9: whole seconds from 40 to 100, those of (39, 40] and (99, 99.9] among them
    assert len(sums) == 61
    assert sums[0] == [START_US + 40 * SECOND, 10 * SECOND]
    assert sums[-1] == [START_US + 100 * SECOND, 9 * SECOND]


# -- the insurance fund


def test_draws_of_the_fund_trip_ahead_of_its_answer() -> None:
    feeder = a_desk(drain={**DRAIN, "quiet_us": SECOND})
    feeder.clock(0)
    feeder.tick("100")
    feeder.claim(299)
    feeder.claim(1)
    cut = feeder.cut()
    kinds = [next(k for k in ("pauses", "losses", "marks") if f.get(k)) for f in cut.frames[1:]]
    assert kinds == ["marks", "losses", "pauses", "losses"]
    assert [frame["losses"][0]["paid_micros"] for frame in cut.frames if "losses" in frame] == [
        299 * SECOND,
        SECOND,
    ]
    for at in (60, 61):
        feeder.clock(at)
    assert frames(feeder) == ["", "", "paused nothing"]


def test_claims_that_the_fund_cannot_pay_are_no_draws() -> None:
    feeder = Feeder(PriceShard(with_breakers({"drain": DRAIN}, fund_usd=299)))
    feeder.clock(0)
    feeder.claim(5_000)
    feeder.claim(5_000)
    assert not any("paused" in frame for frame in frames(feeder))


def test_draws_by_share_are_of_what_the_fund_would_have_without_them() -> None:
    feeder = a_desk(half={**HALF, "quiet_us": SECOND})
    feeder.clock(0)
    feeder.claim(499)  # of 1,000
    assert not any("paused" in frame for frame in frames(feeder))
    feeder.claim(1)
    assert [frame for frame in frames(feeder) if "paused" in frame] == ["paused half:*@0"]
    feeder.loss(
        "contribution", liquidation_id="bob:cross:1", reason="fill", amount_micros=SECOND
    )  # 500 of 1,001: quiet from here on
    feeder.clock(1)
    assert frames(feeder) == ["", "paused nothing"]


def test_draws_may_pause_single_markets() -> None:
    feeder = a_desk(drain={**DRAIN, "level": "market", "markets": ["BTC-PERP", "ETH-PERP"]})
    feeder.clock(0)
    feeder.claim(300)
    told = [frame for frame in frames(feeder) if "paused" in frame]
    assert told == ["paused drain:BTC-PERP@0 drain:ETH-PERP@0"]
    feeder.command("resume", "ETH-PERP", at=1)
    assert frames(feeder) == ["paused drain:BTC-PERP@0"]


# -- all markets


def test_breaker_of_all_trips_when_enough_markets_do_at_once() -> None:
    feeder = a_desk(storm={**CRASH, "level": "all", "at_least": 3, "quiet_us": SECOND})
    feeder.clock(0)
    feeder.tick("100")
    feeder.tick("50", feed="ETH-PERP")
    feeder.clock(10)
    feeder.tick("90", at=10)  # two markets
    assert not any("paused" in frame for frame in frames(feeder))
    feeder.clock(20)
    feeder.tick("45", feed="ETH-PERP", at=20)  # the third
    assert frames(feeder)[-2:] == ["paused storm:*@20", "ETH-PERP=45"]
    feeder.clock(71)  # BTC has calmed down: quiet from here on
    feeder.clock(72)
    assert frames(feeder) == ["", "", "paused nothing"]


# -- operators


def test_operators_resumption_overrides_until_the_condition_ended_once() -> None:
    feeder = a_desk(crash={**CRASH, "markets": ["BTC-PERP"]})  # resumes by hand alone
    feeder.clock(0)
    feeder.tick("100")
    feeder.clock(10)
    feeder.tick("90", at=10)
    feeder.command("resume", at=11)  # of all: not of a market that tripped by itself
    feeder.command("resume", "ETH-PERP", at=12)
    assert [frame for frame in frames(feeder) if "paused" in frame] == ["paused crash:BTC-PERP@10"]
    feeder.command("resume", "BTC-PERP", at=13)
    feeder.clock(20)
    feeder.tick("80", at=20)  # still too fast: overridden
    assert [frame for frame in frames(feeder) if "paused" in frame] == ["paused nothing"]
    feeder.clock(81)
    feeder.tick("72.7", at=81)  # 80 / 72.70: 10.04 %, and the condition ended at 81
    assert frames(feeder) == ["", "paused crash:BTC-PERP@81", "BTC-PERP=72.7"]
    feeder.clock(3_000)  # however long it is quiet
    assert frames(feeder) == [""]
    feeder.command("resume", "BTC-PERP", at=3_001)
    assert frames(feeder) == ["paused nothing"]
    assert feeder.cut().rows == {}


def test_resumption_of_all_ends_a_breaker_of_all() -> None:
    feeder = a_desk(storm={**CRASH, "level": "all"})
    feeder.clock(0)
    feeder.tick("100")
    feeder.tick("90", at=1)
    feeder.command("resume", "BTC-PERP", at=1)
    feeder.command("resume", at=2)
    assert [frame for frame in frames(feeder) if "paused" in frame] == [
        "paused storm:*@0",
        "paused nothing",
    ]


def test_pauses_and_breakers_do_not_undo_each_other() -> None:
    feeder = a_desk(crash={**CRASH, "markets": ["BTC-PERP"], "quiet_us": SECOND})
    feeder.clock(0)
    feeder.tick("100")
    feeder.command("pause", "BTC-PERP")
    feeder.tick("90", at=0.5)
    feeder.clock(60.5)
    feeder.clock(61.5)
    assert [frame for frame in frames(feeder) if "paused" in frame] == [
        "paused BTC-PERP",
        "paused BTC-PERP crash:BTC-PERP@0",
        "paused BTC-PERP",
    ]
    feeder.command("resume", "BTC-PERP", at=63)
    assert frames(feeder) == ["paused nothing"]


def test_halt_ends_by_a_resumption_of_its_market_alone() -> None:
    feeder = a_desk(crash={**CRASH, "markets": ["BTC-PERP"], "quiet_us": SECOND})
    feeder.command("halt", "BTC-PERP")
    feeder.command("halt", "BTC-PERP", at=1)  # it is
    feeder.clock(2)
    feeder.tick("100", at=2)
    feeder.tick("90", at=3)
    feeder.clock(63)
    feeder.clock(64)  # the breaker resumes
    feeder.command("pause", at=65)
    feeder.command("resume", at=66)
    feeder.command("resume", "BTC-PERP", at=67)
    assert [frame for frame in frames(feeder) if "paused" in frame] == [
        "paused halted:BTC-PERP",
        "paused halted:BTC-PERP crash:BTC-PERP@2",
        "paused halted:BTC-PERP",
        "paused all halted:BTC-PERP",
        "paused halted:BTC-PERP",
        "paused nothing",
    ]


def test_row_of_control_tells_who_halted_and_who_runs_dry() -> None:
    feeder = a_desk()
    feeder.command("halt", "BTC-PERP")
    feeder.command("dry_run_on", at=1)
    row = feeder.cut().rows["\0control"]
    validator("price-state").validate(row)
    told = {"operator": "desk", "reason": "drill"}
    assert row["halts"] == {"BTC-PERP": {**told, "ts_us": START_US}}
    assert row["dry_run"] == {**told, "ts_us": START_US + SECOND}


def test_dry_run_goes_on_and_off() -> None:
    feeder = a_desk()
    for action in ("dry_run_off", "dry_run_on", "dry_run_on", "dry_run_off", "dry_run_off"):
        feeder.command(action)
    assert frames(feeder) == ["paused dry", "paused nothing"]


# -- restores


def restored(feeder: Feeder, table: dict[bytes, bytes], state: dict[str, Any]) -> Feeder:
    shard = PriceShard(with_breakers(None))
    rulebook = b"\0rulebook" in table
    if not rulebook:
        shard = PriceShard(feeder.shard._rulebook)
    shard.load(Run.of([Record(0, 0, key, value) for key, value in table.items()]))
    shard.resume({}, orjson.loads(orjson.dumps(state)))
    return Feeder(shard, offset=feeder.offset, commands=feeder.commands, losses=feeder.losses)


BREAKERS = {
    "crash": {**CRASH, "quiet_us": 20 * SECOND},
    "doubt": {"disagreement": {"after_us": SECOND, "outliers_ppm": 400_000}},
    "storm": {**CRASH, "level": "all", "at_least": 3, "quiet_us": 40 * SECOND},
    "flood": {**FLOOD, "quiet_us": 20 * SECOND},
    "half": {**HALF, "quiet_us": 20 * SECOND},
}

#: Trips, resumes by quiet time, trips again, an operator in between; then other rulebooks.
HISTORY: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("tick", ("100",), {"at": 0}),  # before the first clock record ticks move the clock
    ("tick", ("50",), {"at": 1, "feed": "ETH-PERP"}),
    ("tick", ("101",), {"at": 2}),
    ("clock", (3,), {}),
    ("tick", ("90",), {"at": 4}),
    ("clock", (10,), {}),
    ("tick", ("44",), {"at": 11, "feed": "ETH-PERP"}),
    ("clock", (40,), {}),
    ("liquidated", (30,), {"BTC": 600, "ETH": 1_100}),
    ("claim", (400,), {"at": 35}),
    ("liquidated", (20,), {"BTC": 399, "partition": 1}),
    ("command", ("resume", "BTC-PERP"), {"at": 41}),
    ("liquidated", (40,), {"BTC": 5, "partition": 1}),
    ("claim", (200,), {"at": 41}),
    ("clock", (70,), {}),
    ("clock", (81,), {}),
    ("clock", (101,), {}),
    ("clock", (122,), {}),
    ("tick", ("80",), {"at": 122.5}),
    ("tick", ("79",), {"at": 123, "source": "b"}),
    ("tick", ("50",), {"at": 124, "source": "b"}),
    ("clock", (126,), {}),
    ("command", ("halt", "ETH-PERP"), {"at": 127}),
    ("command", ("dry_run_on",), {"at": 128}),
    ("tick", ("80",), {"at": 129, "source": "b"}),
    ("clock", (130,), {}),
    ("rulebook", (with_breakers(BREAKERS | {"crash": CRASH}, 2),), {"at": 131}),
    ("clock", (300,), {}),
    ("liquidated", (299,), {"BTC": 1_200}),
    ("command", ("resume", "BTC-PERP"), {"at": 301}),
    ("liquidated", (300,), {"ETH": 700}),
    ("claim", (100,), {"at": 301}),
    ("tick", ("79",), {"at": 302}),
    ("rulebook", (with_breakers({"late": CRASH}, 3),), {"at": 303}),
    ("tick", ("60",), {"at": 304}),
    ("clock", (305,), {}),
    ("tick", ("40",), {"at": 306}),
    ("rulebook", (with_breakers(None, 4),), {"at": 307}),
    ("rulebook", (with_breakers(BREAKERS, 5),), {"at": 308}),
    ("tick", ("30",), {"at": 309}),
    ("clock", (310,), {}),
]


def played(every: int, *, is_restoring: bool) -> tuple[dict[bytes, bytes], list[Any], list[str]]:
    """Return the table, the pauses told, and what each frame says, with a cut every so often."""
    feeder = Feeder(PriceShard(with_breakers(BREAKERS)))
    table: dict[bytes, bytes] = {}
    pauses = []
    marks: dict[str, str] = {}
    for number, (method, arguments, options) in enumerate(HISTORY, 1):
        getattr(feeder, method)(*arguments, **options)
        if number % every and number != len(HISTORY):
            continue
        cut = feeder.cut()
        assert cut.rejects == []
        for key, value in cut.outputs.rows:
            assert value is not None
            name = key.decode()
            schema = orjson.loads(value)
            if name != "\0rulebook":
                validator("price-state").validate(schema)
            table[key] = value
        for frame in cut.frames:
            validator("marks").validate(frame)
            marks |= {mark["feed"]: mark["price"] for mark in frame["marks"]}
            if "pauses" in frame:
                pauses.append((frame["ts_us"], frame["pauses"]))
        if is_restoring:
            feeder = restored(feeder, table, dict(cut.outputs.state))
    return table, pauses, sorted(marks.items())


@pytest.mark.parametrize("is_restoring", [False, True])
def test_before_the_first_clock_record_any_tick_lets_time_pass(is_restoring: bool) -> None:
    feeder = a_desk(doubt={**DOUBT, "markets": ["BTC-PERP"]})
    feeder.tick("100", source="a")
    feeder.tick("50", source="b", at=1)  # since 1
    feeder.state("7", at=5.9)
    cut = feeder.cut()
    assert not any("pauses" in frame for frame in cut.frames)
    if is_restoring:
        table = {key: value for key, value in cut.outputs.rows if value is not None}
        feeder = restored(feeder, table, dict(cut.outputs.state))
    feeder.state("8", at=6)
    assert frames(feeder)[0] == "paused doubt:BTC-PERP@6"
    assert feeder.shard.clock_us == START_US + 6 * SECOND


def test_history_brings_about_what_it_is_for() -> None:
    _, pauses, _ = played(1_000, is_restoring=False)
    told = [
        sorted(f"{each['name']}:{each.get('market', '*')}" for each in frame.get("breakers", ()))
        for _, frame in pauses
    ]
    both = ["crash:BTC-DATED", "crash:BTC-PERP"]
    assert told[:2] == [both, [*both, "crash:ETH-PERP", "storm:*"]]
    assert [*both, "crash:ETH-PERP"] not in told[:2]
    before = [*both, "crash:ETH-PERP", "storm:*"]
    flooded = ["crash:ETH-PERP", "flood:ETH-PERP", "storm:*"]
    assert (
        told[2:5]
        == [
            sorted([*before, "flood:ETH-PERP"]),
            ["crash:BTC-DATED", *flooded],  # the operator
            ["crash:BTC-DATED", "crash:ETH-PERP", "flood:BTC-PERP", *flooded[1:]],
        ]
    )
    assert told[5] == sorted([*told[4], "half:*"])
    assert [] in told[3:]  # quiet
    assert any("doubt:BTC-PERP" in each for each in told)
    assert told[-1]  # and again


@pytest.mark.parametrize("is_restoring", [False, True])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_slices_and_restores_leave_no_trace(every: int, is_restoring: bool) -> None:
    assert played(every, is_restoring=is_restoring) == played(1_000, is_restoring=False)


# -- the rulebook


def test_example_of_the_readme_holds() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    text = readme.partition("## Circuit breakers")[2].partition("```yaml")[2].partition("```")[0]
    rulebook = with_breakers(yaml.safe_load(text)["breakers"])
    names = [breaker.name for breaker in rulebook.breakers]
    assert names == ["crash", "doubt", "drain", "flood", "storm"]


def test_option_is_watched_by_its_forward() -> None:
    document = json.loads(builtin_rulebook("deribit").document)
    document["breakers"] = {"crash": CRASH}
    rulebook = parse_rulebook(json.dumps(document))
    (breaker,) = rulebook.breakers
    options = [each for each in rulebook.instruments if each.option is not None]
    assert options
    for each in options:
        assert each.option is not None
        forward = rulebook.feeds[each.option.forward_feed]
        assert breaker.feed_by_market[each.name] == forward


def test_rulebook_without_breakers_says_nothing_of_them() -> None:
    rulebook = with_breakers(None)
    assert b"breakers" not in rulebook.document
    assert rulebook.breakers == ()
    again = compile_document(with_breakers(BREAKERS).document)
    assert again.hash == with_breakers(BREAKERS).hash != rulebook.hash
    names = [breaker.name for breaker in again.breakers]
    assert names == ["crash", "doubt", "flood", "half", "storm"]


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [
        pytest.param({}, "breakers.b: 'none', limit: one of velocity, disagreement", id="none"),
        pytest.param(
            FLOOD | DRAIN | DOUBT,
            "breakers.b: 'several', limit: one of velocity, disagreement, liquidated_volume, "
            "fund_draws",
            id="three drivers",
        ),
        pytest.param(
            {"liquidated_volume": {"span_us": 0, "limit_micros": 1}},
            "breakers.b.liquidated_volume.span_us: 0, limit: input should be greater",
            id="no span",
        ),
        pytest.param(
            {"liquidated_volume": {"span_us": 1}},
            "breakers.b.liquidated_volume.limit_micros",
            id="no limit",
        ),
        pytest.param(
            {**FLOOD, "level": "all", "at_least": 2},
            "breakers.b.at_least: 2, limit: at most 1, one sum is watched",
            id="one sum",
        ),
        pytest.param(
            {"fund_draws": {"span_us": 1}},
            "breakers.b.fund_draws: {'span_us': 1}, limit: limit_micros, share_ppm or both",
            id="draws without a limit",
        ),
        pytest.param(
            {"fund_draws": {"span_us": 1, "share_ppm": 1_000_001}},
            "breakers.b.fund_draws.share_ppm: 1000001, limit",
            id="more than all",
        ),
        pytest.param(
            {**DRAIN, "markets": ["BTC-PERP"]},
            "breakers.b.markets: ['BTC-PERP'], limit: none at level all: the fund is one",
            id="markets of the fund",
        ),
        pytest.param(CRASH | DOUBT, "breakers.b: 'both', limit: one of", id="two drivers"),
        pytest.param(
            {"velocity": {"move_ppm": 1, "window_us": 0}},
            "breakers.b.velocity.window_us: 0, limit: input should be greater than or equal to 1",
            id="no window",
        ),
        pytest.param(
            {"velocity": {"move_ppm": 10_000_001, "window_us": 1}},
            "breakers.b.velocity.move_ppm: 10000001, limit: input should be less than or equal",
            id="a move too far",
        ),
        pytest.param(
            {**CRASH, "markets": ["DOGE-PERP"]},
            "breakers.b.markets.0: 'DOGE-PERP', limit: one of BTC-PERP, BTC-DATED, ETH-PERP",
            id="unknown market",
        ),
        pytest.param(
            {**CRASH, "markets": ["BTC-PERP", "BTC-PERP"]},
            "breakers.b.markets.1: 'BTC-PERP', limit: each market once",
            id="market twice",
        ),
        pytest.param({**CRASH, "markets": []}, "breakers.b.markets: [], limit", id="no market"),
        pytest.param(
            {**CRASH, "level": "all", "at_least": 4},
            "breakers.b.at_least: 4, limit: at most 3, its markets",
            id="more than there are",
        ),
        pytest.param(
            {**CRASH, "at_least": 2}, "breakers.b.at_least: 2, limit: 1 at level", id="by itself"
        ),
        pytest.param({**CRASH, "quiet_us": 0}, "breakers.b.quiet_us: 0, limit", id="no quiet time"),
        pytest.param({**CRASH, "level": "feed"}, "breakers.b.level: 'feed', limit", id="level"),
        pytest.param({**CRASH, "until": 5}, "breakers.b.until: 5, limit: no such key", id="key"),
    ],
)
def test_breaker_that_does_not_hold_is_refused(breaker: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_breakers({"b": breaker})
    assert caught.value.code == "SLV-402"
    assert expected in caught.value.message


def test_breaker_of_a_fund_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"breakers\.b\.fund_draws: .*, limit: .*no fund"):
        with_breakers({"b": DRAIN}, fund_usd=None)


def test_only_breakers_of_volume_ask_margin_partitions() -> None:
    assert with_breakers({"a": CRASH, "b": DOUBT}).volume_markets == frozenset()
    asked = with_breakers({"a": {**FLOOD, "markets": ["ETH-PERP"]}}, fund_usd=None)
    assert asked.volume_markets == {"ETH-PERP"}
    assert asked.has_feedback
    assert not with_breakers({"a": CRASH}, fund_usd=None).has_feedback
