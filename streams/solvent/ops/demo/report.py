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

from solvent.ops.demo.compare import STEP_US, JudgedDay, table_of
from solvent.ops.demo.observe import Tally

__all__ = ["ReportData", "write_report"]

_BUCKET_US: Final = STEP_US
_WIDTH: Final = 980
_STATUS_ORDER: Final = ("margin_call", "liquidating", "bankrupt_closed", "unknown")
_COLOURS: Final = ("#e0a100", "#d1495b", "#3d0814", "#8d99ae")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """All the page is made of; `summary` and `judged` as in `DemoSummary`, times microseconds."""

    summary: dict[str, Any]
    tally: Tally
    units: int
    bars: Path
    from_us: int
    to_us: int
    rulebook: dict[str, Any]
    judged: tuple[JudgedDay, ...] = ()


def write_report(path: Path, data: ReportData) -> None:
    """Write the page."""
    sections = [
        ("Prices", "Each market against its price at the start.", _prices(data)),
        ("Margin units by status", "Healthy units are not drawn.", _statuses(data)),
        ("Liquidated notional", "Per quarter of an hour, by how the case ended.", _notional(data)),
        ("Largest losses", "Equity lost between the first offer and the end.", _losses(data)),
    ]
    if data.judged:
        sections.append(("The same day under two rulebooks", _TWO_RULEBOOKS, _two_rulebooks(data)))
    body = "".join(
        f"<section><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>{plot}</section>"
        for title, text, plot in sections
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.format(figures=_figures(data), body=body, rulebook=_rulebook(data)))


def _figures(data: ReportData) -> str:
    summary = data.summary
    shown = {
        "accounts": f"{summary['accounts']:,}",
        "input records folded": f"{summary['events']:,}",
        "mark frames": f"{summary['mark_frames']:,}",
        "liquidations opened": f"{summary['liquidations_opened']:,}",
        "closed by the executor": f"{summary['liquidations_closed']:,}",
        "recovered": f"{summary['liquidations_recovered']:,}",
        "still open": f"{summary['liquidations_open']:,}",
        "liquidated notional": f"{float(summary['liquidated_notional']):,.0f} USDC",
        "bad debt": f"{float(summary['bad_debt']):,.2f} USDC",
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
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for end in worst
        for cells in [
            (
                end.liquidation_id,
                f"{end.event}: {end.reason}",
                f"{end.notional:,.0f}",
                f"{end.raw_equity_at_open:,.2f}",
                f"{end.raw_equity:,.2f}",
                f"{end.bad_debt:,.2f}",
            )
        ]
    )
    headings = "".join(
        f"<th>{h}</th>"
        for h in ("liquidation", "end", "notional", "equity at open", "equity at end", "bad debt")
    )
    return f"<table><thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table>"


def _two_rulebooks(data: ReportData) -> str:
    import altair as alt

    headings, *rows = table_of(data.judged)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in rows
    )
    table = f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
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


_TWO_RULEBOOKS: Final = (
    "Judged, not executed: after the live run what accounts (the first of the population, as many "
    "as the table says) deposited and traded at the start, and the prices, were folded offline "
    "once under each rulebook, the live one too, merged by event time. No executor acts here, and "
    "its fills in the live run are left out of both: positions stay as they were opened, so cases "
    "stay open until prices recover, and whether an account goes bankrupt depends on prices rather "
    "than on rules. These figures compare with each other, not with those above. Notional counts "
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
