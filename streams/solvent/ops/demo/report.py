"""The demo's report: one self-contained HTML page, plots as inline SVG, no script, no network.

Amounts are floats of the settlement currency, for people.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from solvent.ops.demo.closeouts import ASSUMED, CloseOut, closeouts_table
from solvent.ops.demo.compare import STEP_US, JudgedDay, table_of
from solvent.ops.demo.observe import Tally
from solvent.ops.demo.shown import (
    AuctionPath,
    Phase,
    auction_shown,
    executors_table,
    fund_levels,
    phased_shown,
    trips_table,
)
from solvent.ops.demo.view import stream_time

__all__ = ["ReportData", "write_report"]

_BUCKET_US: Final = STEP_US
_FUND_STEP_US: Final = 60_000_000
_WIDTH: Final = 980
_STATUS_ORDER: Final = ("margin_call", "liquidating", "bankrupt_closed", "unknown")
_COLOURS: Final = ("#e0a100", "#d1495b", "#3d0814", "#8d99ae")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """All the page is made of; `summary`, `judged`, `closeouts` as in `DemoSummary`.

    `fund_opening_micros` is what the fund began with, None without one; times microseconds.
    """

    summary: dict[str, Any]
    tally: Tally
    units: int
    bars: Path
    from_us: int
    to_us: int
    rulebook: dict[str, Any]
    judged: tuple[JudgedDay, ...] = ()
    closeouts: tuple[CloseOut, ...] = ()
    closeout_accounts: int = 0
    seed: int = 0
    fund_opening_micros: int | None = None


def write_report(path: Path, data: ReportData) -> None:
    """Write the page."""
    sections = [
        ("Prices", "Each market against its price at the start.", _prices(data)),
        ("Margin units by status", "Healthy units are not drawn.", _statuses(data)),
        ("Liquidated notional", "Per quarter of an hour, by how the case ended.", _notional(data)),
        ("Largest losses", "Equity lost between the first offer and the end.", _losses(data)),
    ]
    sections += _guards(data)
    if data.closeouts:
        sections.append(
            (
                "Three ways to close",
                _CLOSEOUTS.format(accounts=data.closeout_accounts, seed=data.seed, assumed=ASSUMED),
                _table(closeouts_table(data.closeouts), "figures"),
            )
        )
    if data.judged:
        sections.append(("The same day under two rulebooks", _TWO_RULEBOOKS, _two_rulebooks(data)))
    body = "".join(
        f"<section><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>{plot}</section>"
        for title, text, plot in sections
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.format(figures=_figures(data), body=body, rulebook=_rulebook(data)))


def _guards(data: ReportData) -> list[tuple[str, str, str]]:
    """Return a section each for what guarded the run: those of which there is something."""
    tally, found = data.tally, []
    if (phased := phased_shown(tally)) is not None:
        name, phases = phased
        found.append((f"A liquidation in phases: {name}", _PHASED, _phases(phases)))
    if (path := auction_shown(tally)) is not None:
        title = f"An auction: {path.liquidation_id}, {path.side} {path.market}"
        found.append((title, _AUCTION, _auction(path)))
    if tally.trips:
        text = (
            f"{len(tally.trips)} trips; offers that a breaker suspended: "
            f"{sum(w.reason == 'breaker' for h in tally.histories.values() for w in h.words):,} "
            "revisions."
        )
        found.append(("Circuit breakers", text, _table(trips_table(tally))))
    if data.fund_opening_micros is not None:
        found.append(("Insurance fund and deleveraging", _fund_text(data), _fund(data)))
    if tally.executors:
        found.append(("Executors in a race", _RACE, _table(executors_table(tally))))
    return found


def _phases(phases: list[Phase]) -> str:
    import altair as alt

    rows = [("revision", "event", "time, UTC", "released", "offered", "withheld", "closed so far")]
    for phase in phases:
        withheld = ", ".join(f"{usd:,.0f} {why}" for why, usd in sorted(phase.withheld.items()))
        released = "" if phase.released_ppm is None else f"{phase.released_ppm / 1e6:.0%}"
        rows.append(
            (
                str(phase.revision),
                phase.event,
                stream_time(phase.ts_us),
                released,
                f"{phase.offered:,.0f}",
                withheld,
                f"{phase.closed:,.0f}",
            )
        )
    points = [
        {"us": phase.ts_us, "what": what, "usd": usd}
        for phase in phases
        for what, usd in (
            ("closed so far", phase.closed),
            ("closed and offered", phase.closed + phase.offered),
        )
    ]
    chart = (
        alt.Chart(alt.Data(values=_values(points)))
        .mark_line(interpolate="step-after", strokeWidth=2, point=True)
        .encode(
            x=_time_axis(),
            y=alt.Y("usd:Q", title="USDC", axis=alt.Axis(format="~s")),
            color=alt.Color(
                "what:N",
                title=None,
                scale=alt.Scale(
                    domain=["closed so far", "closed and offered"], range=_COLOURS[:2][::-1]
                ),
            ),
        )
    )
    return _svg(chart) + _table(rows)


def _auction(path: AuctionPath) -> str:
    import altair as alt

    def points(what: str, pairs: Iterable[tuple[int, float]]) -> list[dict[str, Any]]:
        return _values({"us": us, "what": what, "price": price} for us, price in pairs)

    encoded = {
        "x": _time_axis(),
        "y": alt.Y("price:Q", title="price", scale=alt.Scale(zero=False)),
        "color": alt.Color(
            "what:N",
            title=None,
            scale=alt.Scale(domain=["asked", "mark of an offer", "fill"], range=_COLOURS[:3]),
        ),
    }
    asked = alt.Chart(alt.Data(values=points("asked", path.asked))).mark_line().encode(**encoded)
    dots = points("mark of an offer", path.marks) + points("fill", path.fills)
    told = alt.Chart(alt.Data(values=dots)).mark_point(filled=True, size=70).encode(**encoded)
    return _svg(asked + told)


def _fund_text(data: ReportData) -> str:
    tally = data.tally
    got = sum(micros for _, micros in tally.fund if micros > 0) / 1e6
    paid = -sum(micros for _, micros in tally.fund if micros < 0) / 1e6
    assert data.fund_opening_micros is not None
    level = fund_levels(tally, data.fund_opening_micros, data.from_us)[-1][1]
    return (
        f"Opened with {data.fund_opening_micros / 1e6:,.2f}; it got {got:,.2f} of fills, paid "
        f"{paid:,.2f} for accounts below 0 and has at the end {level:,.2f}. Positions taken "
        f"over: {tally.takeovers:,}; for them {tally.deleveraged.total():,} fills of "
        f"{len(tally.deleveraged):,} accounts in profit were deleveraged; the other side of "
        f"{tally.unplaced:,} nobody had."
    )


def _fund(data: ReportData) -> str:
    import altair as alt

    assert data.fund_opening_micros is not None
    levels = fund_levels(data.tally, data.fund_opening_micros, data.from_us)
    last = {us // _FUND_STEP_US: (us, usd) for us, usd in levels}  # the last of each minute
    points = [{"us": us, "usd": usd} for us, usd in last.values()]
    points.append({"us": data.to_us, "usd": levels[-1][1]})
    chart = (
        alt.Chart(alt.Data(values=_values(points)))
        .mark_line(interpolate="step-after", strokeWidth=2, color=_COLOURS[1])
        .encode(
            x=_time_axis(),
            y=alt.Y("usd:Q", title="USDC in the fund", axis=alt.Axis(format="~s")),
        )
    )
    return _svg(chart)


def _table(rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """Return a heading and rows as a table."""
    headings, *body = rows
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headings)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in body
    )
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'


def _figures(data: ReportData) -> str:
    summary = data.summary
    shown = {
        "accounts": f"{summary['accounts']:,}",
        "input records folded": f"{summary['events']:,}",
        "mark frames": f"{summary['mark_frames']:,}",
        "liquidations opened": f"{summary['liquidations_opened']:,}",
        "closed": f"{summary['liquidations_closed']:,}",
        "recovered": f"{summary['liquidations_recovered']:,}",
        "still open": f"{summary['liquidations_open']:,}",
        "liquidated notional": f"{float(summary['liquidated_notional']):,.0f} USDC",
        "bad debt": f"{float(summary['bad_debt']):,.2f} USDC",
        "taken over by the fund": f"{summary['takeovers']:,}",
        "breaker trips": f"{summary['breaker_trips']:,}",
        "fills too late": f"{summary['late_fills']:,}",
        "rejects": f"{summary['rejects']:,}",
        "seconds": f"{summary['seconds']:,.1f}",
    }
    return "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in shown.items()
    )


def _rulebook(data: ReportData) -> str:
    rulebook = data.rulebook
    return html.escape(f"{rulebook['id']} version {rulebook['version']}, {rulebook['hash'][:16]}…")


def _prices(data: ReportData) -> str:
    import altair as alt
    import polars as pl

    bars = (
        pl.read_parquet(data.bars, columns=["ts", "symbol", "close"])
        .with_columns(us=pl.col("ts").dt.epoch("us"))
        .filter(pl.col("us").is_between(data.from_us, data.to_us, closed="left"))
        .sort("us")
        .with_columns(change=pl.col("close") / pl.col("close").first().over("symbol") - 1)
        .with_columns(market=pl.col("symbol").str.strip_suffix("USDT"))
        .filter(pl.col("us") % _BUCKET_US == 0)
    )
    chart = (
        alt.Chart(alt.Data(values=_values(bars.select("us", "market", "change").to_dicts())))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=_time_axis(),
            y=alt.Y("change:Q", title=None, axis=alt.Axis(format="+%")),
            color=alt.Color("market:N", title=None, scale=alt.Scale(scheme="tableau20")),
        )
    )
    return _svg(chart)


def _statuses(data: ReportData) -> str:
    import altair as alt

    level: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    changes = sorted(data.tally.changes, key=lambda change: change.ts_us)
    position = 0
    for end in range(data.from_us + _BUCKET_US, data.to_us + _BUCKET_US, _BUCKET_US):
        while position < len(changes) and changes[position].ts_us < end:
            level[changes[position].before] -= 1
            level[changes[position].after] += 1
            position += 1
        rows.extend(
            {"us": end - _BUCKET_US, "status": status, "units": level[status]}
            for status in _STATUS_ORDER
        )
    chart = (
        alt.Chart(alt.Data(values=_values(rows)))
        .mark_area()
        .encode(
            x=_time_axis(),
            y=alt.Y("units:Q", title="margin units", stack="zero"),
            color=alt.Color(
                "status:N",
                title=None,
                scale=alt.Scale(domain=list(_STATUS_ORDER), range=list(_COLOURS)),
            ),
        )
    )
    return _svg(chart)


def _notional(data: ReportData) -> str:
    import altair as alt

    sums: Counter[tuple[int, str]] = Counter()
    for end in data.tally.ends:
        sums[end.ts_us // _BUCKET_US * _BUCKET_US, end.event] += end.notional  # type: ignore[assignment]
    rows = [{"us": us, "event": event, "usd": usd} for (us, event), usd in sorted(sums.items())]
    chart = (
        alt.Chart(alt.Data(values=_values(rows)))
        .mark_bar(width=4)
        .encode(
            x=_time_axis(),
            y=alt.Y("usd:Q", title="USDC", axis=alt.Axis(format="~s")),
            color=alt.Color("event:N", title=None),
        )
    )
    return _svg(chart)


def _losses(data: ReportData) -> str:
    worst = sorted(data.tally.ends, key=lambda end: end.raw_equity - end.raw_equity_at_open)[:12]
    rows = [("liquidation", "end", "notional", "equity at open", "equity at end", "bad debt")]
    rows += [
        (
            end.liquidation_id,
            f"{end.event}: {end.reason}",
            f"{end.notional:,.0f}",
            f"{end.raw_equity_at_open:,.2f}",
            f"{end.raw_equity:,.2f}",
            f"{end.bad_debt:,.2f}",
        )
        for end in worst
    ]
    return _table(rows)


def _two_rulebooks(data: ReportData) -> str:
    import altair as alt

    table = _table(table_of(data.judged), "figures")
    points = [
        {"us": us, "rulebook": day.name, "usd": usd}
        for day in data.judged
        for us, usd in ((data.from_us, 0.0), *day.curve, (data.to_us, day.offered_notional))
    ]
    chart = (
        alt.Chart(alt.Data(values=_values(points)))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=_time_axis(),
            y=alt.Y("usd:Q", title="USDC offered so far", axis=alt.Axis(format="~s")),
            color=alt.Color(
                "rulebook:N",
                title=None,
                scale=alt.Scale(domain=[day.name for day in data.judged], range=_COLOURS[:2][::-1]),
            ),
        )
    )
    return table + _svg(chart)


def _time_axis() -> Any:  # noqa: ANN401 - altair's types are not imported at run time
    import altair as alt

    return alt.X("time:T", title=None, axis=alt.Axis(format="%d %b %H:%M", tickCount=8))


def _values(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each row its time in the milliseconds plots want."""
    return [{**row, "time": row["us"] // 1000} for row in rows]


def _svg(chart: Any) -> str:  # noqa: ANN401
    import vl_convert

    spec = chart.properties(width=_WIDTH - 160, height=260).to_dict()
    spec.setdefault("config", {})["font"] = "sans-serif"
    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg


_PHASED: Final = (
    "Of the cases that were released in phases, the one closed in most steps. Offered and withheld "
    "are at the marks of the revision, closed at the prices of fills; a fill shortens what is left "
    "to close, and a price that moves may lengthen it."
)
_AUCTION: Final = (
    "The worst price the account may get falls from the mark towards the bankruptcy price. Bids "
    "are at the price of their own time: one executor bids five minutes after an offer, the other "
    "twenty, and the first to write is the one that counts."
)
_RACE: Final = (
    "Both read the same offers and answer all they can. Of two fills of one offer the first in the "
    "log counts; the other came too late, and the engine knows it as a repeat, by its id. A first "
    "one that finds its case changed, by time (SLV-206) or by the fill of another order of the "
    "same offer (SLV-207, SLV-208), is applied and does not count for the case."
)

_CLOSEOUTS: Final = (
    "A population of {accounts:,} accounts, seed {seed}, and the same prices, offline, where "
    "closing moves the prices. {assumed}"
)

_TWO_RULEBOOKS: Final = (
    "Judged, not executed: after the live run what accounts (the first of the population, as many "
    "as the table says) deposited and traded at the start, and the prices, were folded offline "
    "once under each rulebook, the live one too, merged by event time. No executor acts here, and "
    "its fills in the live run are left out of both: positions stay as they were opened, so cases "
    "stay open until prices recover or the fund of a rulebook takes them over, and whether an "
    "account goes bankrupt depends on prices rather than on rules. These figures compare with "
    "each other, not with those above. Notional counts "
    "per book, at the most that was asked for at once; bad debt is the most the bankrupt books "
    "owed in any offer."
)

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>solvent demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2433; margin: 2rem auto; padding: 0 1rem;
  max-width: 1000px; }}
h1 {{ margin-bottom: .2rem; }} h2 {{ margin: 2rem 0 0; }}
p {{ margin: .2rem 0 .8rem; color: #5a6478; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: .6rem; }}
dl div {{ border: 1px solid #d9dee8; border-radius: 6px; padding: .5rem .7rem; }}
dt {{ color: #5a6478; font-size: .8rem; }} dd {{ margin: 0; font-size: 1.15rem; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #e6e9f0; }}
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) {{ text-align: left; }}
table.figures td:nth-child(2), table.figures th:nth-child(2) {{ text-align: right; }}
svg {{ max-width: 100%; height: auto; }}
</style></head><body>
<h1>6 and 7 April 2025, through solvent</h1>
<p>Prices are real: three-minute bars of twelve perpetuals (source and licence in the package's
NOTICE). The accounts are synthetic and seeded; USDC is taken at 1, the BTC and ETH index from the
perpetuals' own bars, one price source. Time ran some thousand times faster than it did, so an
executor that needs 0.1 seconds here acts minutes late. Rulebook: {rulebook}.</p>
<dl>{figures}</dl>
{body}
</body></html>
"""
