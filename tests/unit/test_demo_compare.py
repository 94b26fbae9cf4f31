"""The same day under two rulebooks: counted as events say, over inputs both are given alike."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from solvent.errors import ConfigError
from solvent.ops.demo.compare import STEP_US, JudgedDay, check_plays, judge_day, table_of
from solvent.ops.demo.observe import Tally
from solvent.ops.demo.report import ReportData, write_report
from solvent.ops.demo.run import BARS, DemoOptions, run_demo
from solvent.ops.replay import ReplayOptions, Source, kept_source, records_source, replay
from solvent.rules import CompiledRulebook, builtin_rulebook, parse_rulebook
from solvent.rules.source import builtin_text
from solvent.wire.inputs import encode_clock, encode_collateral_move, encode_tick, encode_trade
from solvent.wire.outputs import decode_liquidation
from solvent.wire.topics import COLLATERAL, LIQUIDATIONS, ORACLE_TICKS, TRADES
from support.margin import Log, Replay

FROM_US = 1_743_897_600_000_000  # 00:00, a full quarter of an hour
MINUTE_US = 60_000_000
#: BTC falls by 2,000 a minute from 80,000 to 60,000, and stays.
PRICES = [*range(80_000, 60_000, -2_000), *[60_000] * 30]


@pytest.fixture(scope="module")
def flat() -> CompiledRulebook:
    return builtin_rulebook("demo")


@pytest.fixture(scope="module")
def strict() -> CompiledRulebook:
    """The demo's rulebook, but BTC needs 10 % at maintenance instead of 2.5 %."""
    rates = "BTC-PERP: {initial_rate_ppm: 50000, maintenance_rate_ppm: 25000}"
    more = "BTC-PERP: {initial_rate_ppm: 120000, maintenance_rate_ppm: 100000}"
    text = builtin_text("demo").replace("id: demo,", "id: strict,")
    assert rates in text
    return parse_rulebook(text.replace(rates, more))


def _account(name: str, deposit: str) -> tuple[bytes, bytes, bytes]:
    """Long 1 BTC at 80,000, on so much collateral."""
    move = encode_collateral_move(
        move_id=f"{name}.m",
        account_id=name,
        subaccount="cross",
        asset="USDC",
        kind="deposit",
        amount=deposit,
        ts_us=FROM_US,
    )
    trade = encode_trade(
        trade_id=f"{name}.t",
        account_id=name,
        subaccount="cross",
        market="BTC-PERP",
        side="buy",
        size="1",
        price="80000",
        fee="0",
        ts_us=FROM_US,
    )
    return name.encode(), move, trade


@pytest.fixture(scope="module")
def day() -> list[Source]:
    accounts = [_account("poor", "6000"), _account("middling", "15000"), _account("rich", "90000")]
    ticks: list[tuple[bytes, bytes, int]] = []
    for minute, price in enumerate(PRICES):
        at_us = FROM_US + minute * MINUTE_US
        tick = encode_tick(feed="BTC-PERP", source="test", price=str(price), ts_us=at_us)
        ticks += [
            (b"clock", encode_clock(at_us), at_us),
            (b"BTC-PERP", tick, at_us),
            (b"clock", encode_clock(at_us), at_us),
        ]
    prices = [
        records_source(f"minute {at}", ORACLE_TICKS, [(k, v) for k, v, us in ticks if us == at], at)
        for at in sorted({at_us for _, _, at_us in ticks})
    ]
    return [
        records_source("deposits", COLLATERAL, [(k, m) for k, m, _ in accounts], FROM_US + 1),
        records_source("trades", TRADES, [(k, t) for k, _, t in accounts], FROM_US + 1),
        *(kept_source(source) for source in prices),
    ]


def judged(day: list[Source], rulebook: CompiledRulebook, partitions: int = 2) -> JudgedDay:
    return judge_day(day, rulebook, accounts=3, partitions=partitions)


def test_day_counts_whom_each_rulebook_offers_and_when(
    day: list[Source], flat: CompiledRulebook, strict: CompiledRulebook
) -> None:
    lax, hard = judged(day, flat), judged(day, strict)
    # Equity is deposit + price - 80,000. Below 2.5 % of the price: poor at 74,000 (0), minute 3;
    # middling at 66,000 (1,000 < 1,650), minute 7. Rich never: 70,000 are left at 60,000.
    assert lax.liquidated_accounts == 2
    assert lax.first_us == FROM_US + 3 * MINUTE_US
    # Below 10 %: poor at once (6,000 < 8,000), in the first frame after it traded; middling at
    # 72,000 (7,000 < 7,200), minute 4.
    assert hard.liquidated_accounts == 2
    assert hard.first_us is not None
    assert hard.first_us <= FROM_US + MINUTE_US
    # Owed at the lowest price told of: at most 14,000 by poor and 5,000 by middling.
    assert lax.bankrupt_accounts == hard.bankrupt_accounts == 2
    assert 0 < lax.bad_debt <= 14_000 + 5_000
    assert lax.worst_us == FROM_US
    assert lax.equity_at_first_ppm < hard.equity_at_first_ppm


def test_day_is_what_the_events_of_a_replay_say(
    day: list[Source], flat: CompiledRulebook, tmp_path: Path
) -> None:
    found = judged(day, flat)
    replay(day, flat, ReplayOptions(partitions=1, out=tmp_path / "out"))
    lines = (tmp_path / "out" / f"{LIQUIDATIONS}.jsonl").read_bytes().splitlines()
    offers = [e for e in map(json.loads, lines) if e["event"] in {"opened", "revised"}]
    most: dict[str, float] = defaultdict(float)
    for offer in offers:
        asked = sum(float(leg["size"]) * float(leg["mark_price"]) for leg in offer["legs"])
        most[offer["account_id"]] = max(most[offer["account_id"]], asked)
    assert found.offers == len(offers)
    assert found.offered_notional == pytest.approx(sum(most.values()))
    assert found.first_us == min(offer["ts_us"] for offer in offers)
    times, totals = zip(*found.curve, strict=True)
    assert list(times) == sorted(times)
    assert all(time_us % STEP_US == 0 for time_us in times)
    assert list(totals) == sorted(totals)
    assert totals[-1] == found.offered_notional


def test_day_does_not_depend_on_partitions(day: list[Source], flat: CompiledRulebook) -> None:
    once, again = judged(day, flat, 1).as_json(), judged(day, flat, 3).as_json()
    del once["seconds"], again["seconds"]
    assert once == again


def test_report_has_a_table_and_a_chart_of_both(
    day: list[Source], flat: CompiledRulebook, strict: CompiledRulebook, tmp_path: Path
) -> None:
    days = (judged(day, flat), judged(day, strict))
    names = ("accounts", "events", "mark_frames", "liquidations_opened", "liquidations_closed")
    names += ("liquidations_recovered", "liquidations_open", "rejects", "seconds")
    names += ("takeovers", "breaker_trips", "late_fills")
    summary = {**dict.fromkeys(names, 0), "liquidated_notional": "0", "bad_debt": "0"}
    data = ReportData(
        summary=summary,
        tally=Tally(),
        units=3,
        bars=BARS,
        from_us=FROM_US,
        to_us=FROM_US + 86_400_000_000,
        rulebook=flat.reference,
        judged=days,
    )
    write_report(tmp_path / "page.html", data)
    page = (tmp_path / "page.html").read_text()
    section = page.split("The same day under two rulebooks")[1]
    assert section.count("<svg") == 1
    for _, *cells in table_of(days):
        assert all(f">{cell}</t" in section for cell in cells)


def test_rulebook_that_lacks_markets_is_refused_with_their_names(flat: CompiledRulebook) -> None:
    with pytest.raises(ConfigError, match="SLV-442") as caught:
        check_plays(builtin_rulebook("example"), flat)
    for name in ("lacks feeds BNB-PERP", "lacks markets BNB-PERP", "ALGO-PERP"):
        assert name in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param('lot: "0.001", tick: "0.1"', 'lot: "0.01", tick: "0.1"', "market BTC-PERP"),
        pytest.param("BTC: {quantum_exponent: -8", "BTC: {quantum_exponent: -6", "asset BTC"),
        pytest.param(
            "index_feed: ETH/USD}\ninstruments",
            "index_feed: BTC/USD}\ninstruments",
            "another index feed of asset ETH",
        ),
    ],
)
def test_rulebook_with_other_steps_or_feeds_is_refused(
    flat: CompiledRulebook, old: str, new: str, problem: str
) -> None:
    text = builtin_text("demo")
    assert old in text
    with pytest.raises(ConfigError, match=problem):
        check_plays(parse_rulebook(text.replace(old, new)), flat)


def test_offers_that_withhold_all_ask_for_nothing_yet(
    day: list[Source], flat: CompiledRulebook
) -> None:
    # Poor is due at minute 3, and a release that begins at nothing withholds all of it. At minute 4
    # it is bankrupt, which is not rationed.
    document = json.loads(flat.document)
    liquidation = document["presets"]["cross-margin"]["liquidation"]
    liquidation["release"] = {"duration_us": 30 * MINUTE_US, "initial_ppm": 0}
    phased = parse_rulebook(json.dumps(document))
    events = []
    replay(
        day,
        phased,
        ReplayOptions(partitions=1),
        tell=lambda _agent, _partition, brought: events.extend(
            decode_liquidation(emit.value or b"")
            for emit in brought.outputs.records
            if emit.topic == LIQUIDATIONS
        ),
    )
    offers = [event for event in events if event.is_offer]
    asking = [event for event in offers if event.legs]
    assert offers[0].legs == []
    assert offers[0].ts_us == FROM_US + 3 * MINUTE_US
    assert [part.reason for part in offers[0].withheld] == ["release"]
    found = judged(day, phased)
    assert found.offers == len(asking) < len(offers)
    assert found.first_us == asking[0].ts_us == FROM_US + 4 * MINUTE_US
    assert found.liquidations == judged(day, flat).liquidations


@pytest.mark.parametrize("name", ["demo", "demo-brackets", "demo-guarded"])
def test_builtin_rulebooks_judge_what_the_demo_plays(flat: CompiledRulebook, name: str) -> None:
    check_plays(builtin_rulebook(name), flat)


def test_case_that_a_breaker_suspends_at_once_is_one_that_began(
    day: list[Source], flat: CompiledRulebook
) -> None:
    # 10 % in 5 minutes: at minute 4, 80,000 lies 11.1 % above 72,000. Poor was offered at minute 3;
    # middling, due at minute 7, is suspended. 66,000 was replaced at minute 8 and counts until 13;
    # quiet from 14 on, so it resumes at 17, in the second quarter.
    velocity = {"move_ppm": 100_000, "window_us": 5 * MINUTE_US}
    document = json.loads(flat.document)
    document["breakers"] = {"crash": {"velocity": velocity, "quiet_us": 3 * MINUTE_US}}
    with_breaker = parse_rulebook(json.dumps(document))
    plain, paused = judged(day, flat), judged(day, with_breaker)
    assert (plain.liquidations, plain.liquidated_accounts) == (2, 2)
    assert (paused.liquidations, paused.liquidated_accounts) == (2, 2)
    assert plain.first_us == paused.first_us == FROM_US + 3 * MINUTE_US
    quarter_us = 15 * MINUTE_US
    assert [at_us for at_us, _ in plain.curve] == [FROM_US + quarter_us]
    assert [at_us for at_us, _ in paused.curve] == [FROM_US + quarter_us, FROM_US + 2 * quarter_us]


def test_tally_counts_cases_by_their_first_revision() -> None:
    log = Log().move(amount="100").trade(size="4", price="100")
    log.marks({"BTC": "104", "ETH": "50", "ODD": "1"}).pauses(breakers=["BTC-PERP"], at_s=1)
    log.marks({"BTC": "84"}, at_s=2).pauses(at_s=3).marks({"BTC": "104"}, at_s=4)
    tally = Tally()
    for emit in Replay().run(log).records:
        if emit.topic == LIQUIDATIONS:
            tally.take_liquidation(decode_liquidation(emit.value))
    assert tally.events == {"suspended": 1, "revised": 1, "recovered": 1}
    assert tally.cases == 1
    (end,) = tally.ends
    assert (end.event, end.raw_equity_at_open, end.raw_equity) == ("recovered", 36.0, 116.0)


def test_demo_without_its_markets_starts_nothing(tmp_path: Path) -> None:
    options = DemoOptions(rulebook="example", report=tmp_path / "page.html")
    with pytest.raises(ConfigError, match="SLV-442"):
        run_demo(options, lambda _progress, _observer: pytest.fail("it shows something"))
