"""An explanation for people: the same sections as text for a terminal and as one HTML page.

The page is self-contained: no script, no network.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from solvent.errors import ConfigError
from solvent.kernel.layout import LEVELS

__all__ = ["Section", "sections", "text_of", "write_page"]

_NOT: Final = "-"
_SHOWN_PARTS: Final = 12  # decimal places of what was not rounded yet, for people


class Section(NamedTuple):
    """A heading, what it says, and a table whose first column names the rows; may be empty."""

    title: str
    notes: tuple[str, ...] = ()
    headings: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()


def sections(told: Mapping[str, Any]) -> list[Section]:
    """Return what `solvent.ops.explain.explain` told, section by section."""
    found = [_what(told)]
    if "difference" in told:
        differs = told["difference"]
        notes = (
            f"DIFFERENCE: {differs['what']}",
            f"expected  {differs['expected'] or 'nothing'}",
            f"published {differs['got'] or 'nothing'}",
        )
        return [*found, Section("Not as published", notes)]
    found += _verdict(told["verdict"])
    found.append(_marks(told["marks"]))
    found.append(_records(told["records"]))
    if told["sizing"] is not None:
        found += _sizing(told["sizing"])
    found += _avoided(told["avoided_by"])
    return found


def _what(told: Mapping[str, Any]) -> Section:
    about, made = told["liquidation"], told["recomputed"]
    rulebook, trigger = about["rulebook"], about["trigger"]
    outcome = "equal to what was published" if made["equal"] else "NOT equal to what was published"
    rows = [
        (
            "event",
            (
                f"{about['event']} ({about['reason']}), revision {about['revision']} of "
                f"{about['last_revision']}"
            ),
        ),
        (
            "account",
            (
                f"{about['account_id']} {about['subaccount']}, verdict {about['verdict']}, "
                f"status {about['status']}"
            ),
        ),
        (
            "rules",
            f"{rulebook['id']} version {rulebook['version']} ({rulebook['hash'][:12]})"
            + (f", {about['preset_path']}" if "preset_path" in about else ""),
        ),
        ("stream time", _time(about["ts_us"])),
        ("published", _place(about)),
        (
            "brought by",
            (
                f"{_place(trigger)}, in slice {about['slice']} of the journal (offset "
                f"{about['journal_offset']})"
            ),
        ),
        (
            "made again",
            (
                f"{outcome}, {made['bytes']:,} bytes; state from {made['state_from']}, then "
                f"{made['records_applied']:,} records of the slice"
            ),
        ),
    ]
    return Section(f"Liquidation {about['liquidation_id']}", rows=rows)


def _verdict(verdict: Mapping[str, Any]) -> list[Section]:
    health = verdict["health"]
    notes = (
        f"{verdict['verdict']}: {verdict['rule']}",
        "health " + ", ".join(f"{health[name]} at {name.replace('_', ' ')}" for name in LEVELS),
    )
    found = [Section("Verdict", notes)]
    for name in ("equity", "requirement"):
        total = verdict[name]
        amounts: list[tuple[str, ...]] = []
        for part in total["parts"]:
            label = f"{part['kind']} {part['name']}"
            if not part["is_added"]:
                label += f" (in {part['joins']})"
            amounts.append((label, *_levels(part)))
        amounts.append(("sum", *_levels(total["sum"])))
        if total["adjusted"]:
            adjusted = {n: total["adjusted"].get(n, {}).get("amount") for n in LEVELS}
            amounts.append(("instead", *_levels(adjusted)))
        amounts.append(("published", *(total["published"][level] for level in LEVELS)))
        why = {each["why"] for each in total["adjusted"].values()}
        found.append(
            Section(name.capitalize(), (total["rounding"], *sorted(why)), ("", *LEVELS), amounts)
        )
    raw = verdict["raw_equity"]
    rows: list[tuple[str, ...]]
    rows = [("raw equity", _short(raw["unrounded"]), raw["published"])]
    found.append(Section("Equity at weight 1", (), ("", "sum", "published"), rows))
    rows = [
        (
            f"{each['kind']} {each['asset']}",
            each["amount"],
            each["index_price"] or "1",
            _short(each["value"]),
            *(_short(each["share_counted"][level]) for level in LEVELS),
            each["path"] or "unlisted",
        )
        for each in verdict["collateral"]
    ]
    headings: tuple[str, ...]
    headings = ("", "amount", "price", "value", *(f"counts, {n}" for n in LEVELS), "rule")
    if rows:
        found.append(Section("Collateral and debts", (), headings, rows))
    rows = []
    terms = []
    for each in verdict["positions"]:
        rows.append(
            (
                each["market"],
                *(each.get(k) or _NOT for k in ("size", "entry_price")),
                each.get("mark_price") or _short(each.get("model_price")),
                *(_short(each.get(k)) for k in ("notional", "unrealised_pnl")),
                *(_short(each["requirement"][level]) for level in LEVELS),
            )
        )
        terms += [
            (
                f"{each['market']} {term['term']}",
                ", ".join(_short(each["rate"][level]) for level in LEVELS),
                _parameters(term["parameters"]),
                term["path"],
            )
            for term in each["terms"]
        ]
    headings = ("", "size", "entry", "mark", "notional", "pnl", *(f"needs, {n}" for n in LEVELS))
    if rows:
        found.append(Section("Positions", (), headings, rows))
        if terms:
            headings = ("", "rate in force, by level", "parameters", "rule")
            found.append(Section("Terms of markets", (), headings, terms))
    rows = [
        (
            f"{group['underlying']} {term['term']}",
            _short(term["requirement"]["initial"]),
            _short(term["requirement"]["maintenance"]),
            _parameters(term.get("worst_scenario")),
            term["path"],
        )
        for group in verdict["underlyings"]
        for term in group["terms"]
    ]
    if rows:
        note = "Each term by itself; the tree of the rulebook makes the requirement of them."
        headings = ("", "initial", "maintenance", "worst scenario", "rule")
        found.append(Section("Terms of underlyings", (note,), headings, rows))
    return found


def _marks(marks: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        (
            mark["feed"],
            str(mark.get("value") or mark.get("price") or _NOT),
            str(mark.get("confidence") or _NOT),
            str(mark["state"]) + ("" if mark["may_judge"] else " (may not judge)"),
            ", ".join(mark["used_as"]),
            _NOT
            if mark["record"] is None
            else f"frame {mark['record']['seq']}, {_place(mark['record'])}",
            ", ".join(
                f"{run['topic']} {run['first']} to {run['last']}" for run in mark["ticks"] or ()
            )
            or _NOT,
        )
        for mark in marks
    ]
    headings = ("", "mark", "confidence", "state", "used as", "told by", "ticks of its slice")
    return Section("Marks", (), headings, rows)


def _records(records: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        (
            each["kind"] + (" (brought the event)" if each["is_trigger"] else ""),
            _place(each),
            _parameters(
                {
                    name: value
                    for name, value in each["content"].items()
                    if name not in {"schema_version", "account_id"}
                }
                if isinstance(each["content"], dict)
                else each["content"]
            ),
        )
        for each in records
    ]
    notes = ("Of the account, below the event, the newest first; repeats and refused ones too.",)
    return Section("Records of the account", notes, ("", "place", "what it says"), rows)


def _sizing(sizing: Mapping[str, Any]) -> list[Section]:
    notes: tuple[str, ...] = (
        f"{sizing['formula']}: {sizing['text']}",
        (
            f"short of {sizing['shortage']} where liquidation ends; {sizing['path']}: "
            f"{_parameters(sizing['parameters'])}"
        ),
    )
    if sizing["share_ppm"] is not None:
        notes += (f"share of the book: {sizing['share_ppm']} ppm",)
    found = [Section("Size of the offer", (*notes, *map(_parameters, sizing["inputs"])))]
    kinds = {"legs": "Order", "swaps": "Swap", "withheld": "Withheld"}
    for kind, title in kinds.items():
        for number, each in enumerate(sizing.get(kind, ()), 1):
            rows = [
                (name.replace("_", " "), _parameters(value))
                for name, value in each.items()
                if name != "is_same"
            ]
            found.append(Section(f"{title} {number}", rows=rows))
    return found


def _avoided(avoided: Mapping[str, Any]) -> list[Section]:
    rows: list[tuple[str, ...]]
    headings: tuple[str, ...]
    rows = [
        (
            f"{'repaying' if each['repays'] else 'depositing'} {each['asset']}",
            each["keeps_maintenance"] or _NOT,
            each["restores_liquidation_end"] or _NOT,
        )
        for each in avoided["deposits"]
    ]
    headings = ("", "maintenance holds from", "liquidation ends from")
    found = [Section("What would have avoided it", (), headings, rows)]
    rows = [
        (
            each["of"],
            each["mark"] or _NOT,
            *(each[name] or _NOT for name in ("maintenance", "liquidation_end", "raw_equity")),
        )
        for each in avoided["prices"]
    ]
    if rows:
        headings = ("", "mark", "maintenance holds to", "liquidation ends at", "bankrupt beyond")
        found.append(Section("Prices, others held", (), headings, rows))
    rows = [(each["market"], each["size"], each["most"] or _NOT) for each in avoided["sizes"]]
    if rows:
        headings = ("", "size", "largest that holds")
        found.append(Section("Sizes at the same entry, others held", (), headings, rows))
    if avoided["without_orders"] is not None:
        rows = [("health", *_levels(avoided["without_orders"]))]
        found.append(Section("Without open orders", (), ("", *LEVELS), rows))
    return found


# -- text


def text_of(found: Sequence[Section]) -> str:
    """Return sections as text for a terminal."""
    lines: list[str] = []
    for section in found:
        lines += ["", section.title] if lines else [section.title]
        lines += [f"  {note}" for note in section.notes]
        rows = [row for row in (section.headings, *section.rows) if row]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [
                cell.rjust(width)
                if section.headings and row is not section.headings and _is_number(cell)
                else cell.ljust(width)
                for cell, width in zip(row, widths, strict=True)
            ]
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


# -- HTML


def write_page(path: Path, told: Mapping[str, Any]) -> None:
    """Write an explanation as one self-contained HTML page.

    Raises
    ------
    ConfigError
        [SLV-453] The file cannot be written.
    """
    found = sections(told)
    body = "".join(_section(section) for section in found[1:])
    rows = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in found[0].rows
    )
    page = _PAGE.format(title=html.escape(found[0].title), figures=rows, body=body)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page)
    except OSError as error:
        msg = f"page {path}: {error.strerror or error}"
        raise ConfigError(msg, code="SLV-453") from None


def _section(section: Section) -> str:
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in section.notes)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in section.headings)
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td class="{"n" if _is_number(cell) else "t"}">{html.escape(cell)}</td>'
            for cell in row
        )
        + "</tr>"
        for row in section.rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    return f"<section><h2>{html.escape(section.title)}</h2>{notes}{table}</section>"


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2433; margin: 2rem auto; padding: 0 1rem;
  max-width: 1100px; }}
h1 {{ margin-bottom: .2rem; }} h2 {{ margin: 2rem 0 0; font-size: 1.15rem; }}
p {{ margin: .2rem 0 .4rem; color: #5a6478; overflow-wrap: anywhere; }}
section {{ overflow-x: auto; }}
dl {{ display: grid; gap: .4rem; }}
dl div {{ border: 1px solid #d9dee8; border-radius: 6px; padding: .4rem .7rem; }}
dt {{ color: #5a6478; font-size: .8rem; }} dd {{ margin: 0; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #e6e9f0; }}
th {{ font-weight: 600; }} td.n {{ text-align: right; }}
</style></head><body>
<h1>{title}</h1>
<dl>{figures}</dl>
{body}
</body></html>
"""


# -- cells


def _levels(amounts: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_short(amounts.get(level)) for level in LEVELS)


def _short(text: str | None) -> str:
    """Return a number with at most so many places; the JSON has all of them."""
    if text is None:
        return _NOT
    whole, point, places = text.partition(".")
    return whole + (point + places[:_SHOWN_PARTS]).rstrip("0").rstrip(".") if point else text


def _parameters(value: Any) -> str:  # noqa: ANN401 - JSON data
    if value is None:
        return _NOT
    if isinstance(value, dict):
        return ", ".join(f"{name} {_parameters(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(f"({_parameters(each)})" for each in value) or _NOT
    return str(value)


def _place(at: Mapping[str, Any]) -> str:
    return f"{at['topic']} partition {at['partition']} offset {at['offset']}"


def _time(ts_us: int) -> str:
    return f"{datetime.fromtimestamp(ts_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC ({ts_us} us)"
