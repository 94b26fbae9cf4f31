"""Why a liquidation said what it said: its verdict, its sizes, and what would have avoided it.

Everything is asked of the very state that brought the event, which a replay of its slice has made
again, and of the kernels that judged it (`solvent.engine.appraise`, `solvent.engine.plan`); nothing
is reckoned a second way. Amounts are decimal text: of settlement currency to the micro where they
were published so, else as the kernel holds them, the shortest decimal of the same float64. A field
named ``path`` is a place in the resolved rulebook. ``schemas/explain`` has the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final, NamedTuple

import orjson
from pydantic import BaseModel

from solvent.domain.sizing import (
    OpenPosition,
    bankruptcy_price,
    fillable_price,
    limit_price,
    shortage_lots,
)
from solvent.domain.verdict import Level, MarginFigures, Verdict
from solvent.engine.appraise import Appraisal, Appraiser, Part
from solvent.engine.cursors import InputCursor
from solvent.engine.describe import CROSS_NAME, Describer, float_text, money_text
from solvent.engine.margin import MarginShard
from solvent.engine.plan import Planner, plan_text
from solvent.engine.replay import JournalledSlice, Log, count_below
from solvent.engine.restate import write_order
from solvent.engine.surface import option_prices
from solvent.kernel import blocks
from solvent.kernel.collateral import cautious_prices
from solvent.kernel.layout import CROSS, LEVELS, NONE
from solvent.kernel.trial import OF_RAW
from solvent.rules.compile import CompiledRulebook
from solvent.rules.terms import (
    BracketsTermModel,
    FlatTermModel,
    OwnLeverageTermModel,
    ScanTermModel,
    SlippageTermModel,
    TreeModel,
)
from solvent.state.columns import Columns
from solvent.units import MAX_EXACT, PPM, format_scaled
from solvent.wire.topics import LIQUIDATIONS

__all__ = ["Explainer", "LiquidationId", "recompute"]

_OF_MARKETS: Final = (FlatTermModel, BracketsTermModel, SlippageTermModel)
_RULES: Final = {
    Verdict.BANKRUPT: "raw equity < 0",
    Verdict.LIQUIDATABLE: "health(maintenance) < 0 and something is required or owed",
    Verdict.MARGIN_CALL: "health(initial) < 0",
    Verdict.HEALTHY: "health(initial) >= 0",
    Verdict.UNKNOWN: "a feed that may not judge, or an amount that is not exact",
}
_ROUNDING: Final = {
    "equity": "the sum is rounded down to 0.000001",
    "requirement": "the sum is rounded up to 0.000001",
}
#: What sizes a plan, by MODEL.md 7.2; `preset.liquidation` says which.
_FORMULAS: Final = {
    "Z1": "x = s / (p * (r_E - fee_liq - fee_fund)), up to the lot, at most the position",
    "Z2, Z8": "fewest lots at which the kernel finds health(liquidation_end) >= 0, by bisection",
    "Z3": "repay what makes up the shortage that orders leave, at the weights of liquidation end",
    "Z4": "x = D * (HF_t - HF) / (HF_t - (1 + bonus) * LT)",
    "Z5": "close factor: all of the debt below a health ratio or a size, else a share of all debt",
    "Z6": "smallest multiple of a step of the book after which requirement/equity is below a bound",
    "Z7": "f = B / (B - MV * d - K * (1 - d)), B = min(0, MM + b * (MM - MV))",
    "full": "everything is closed",
}


class LiquidationId(NamedTuple):
    """``account:subaccount:episode``."""

    account_id: str
    subaccount: str
    episode: int

    def __str__(self) -> str:
        return f"{self.account_id}:{self.subaccount}:{self.episode}"


def recompute(
    shard: MarginShard,
    entry: JournalledSlice,
    positions: Mapping[str, int],
    inputs: Mapping[str, Log],
    trigger: tuple[str, int],
    wanted: tuple[LiquidationId, int],
    *,
    takes_over: bool = True,
) -> tuple[bytes | None, int]:
    """Apply a slice up to the record that brought an event; return the event, and records applied.

    Parameters
    ----------
    shard : MarginShard
        As it was after the slice before. It is left as it was after the record.
    entry : JournalledSlice
        The slice.
    positions : mapping of topic to int
        Next offset of each input at its beginning.
    inputs : mapping of topic to log
        Input logs of the partition.
    trigger : tuple of (str, int)
        Topic and offset of the record, one of the slice's.
    wanted : tuple of (LiquidationId, int)
        The event: a liquidation and its revision. None is returned if the record brings no such.
    takes_over : bool
        Whether units whose case stood too long are taken over at the record; what says that they
        are to be speaks of them as they were before.
    """
    topic, offset = trigger
    cursors = {name: InputCursor(log, positions.get(name, 0)) for name, log in inputs.items()}
    applied = 0
    for name, first, last in entry.runs:
        run = cursors[name].take(last)
        if name != topic or not first <= offset <= last:
            shard.apply(name, run)
            applied += len(run)
            continue
        below, beyond = count_below(run, offset), count_below(run, offset + 1)
        shard.apply(name, run[:below])
        shard.cut()
        shard.takes_over = takes_over
        shard.apply(name, run[below:beyond])
        applied += beyond
        break
    liquidation, revision = wanted
    for record in shard.cut().records:
        if record.topic == LIQUIDATIONS and record.key == liquidation.account_id.encode():
            content = orjson.loads(record.value or b"")
            if (content["liquidation_id"], content["revision"]) == (str(liquidation), revision):
                return record.value, applied
    return None, applied


class Explainer:
    """Explains one margin unit of a shard, as it stands.

    Parameters
    ----------
    shard : MarginShard
        As `recompute` left it.
    liquidation : LiquidationId
        Whose unit it is.
    """

    def __init__(self, shard: MarginShard, liquidation: LiquidationId) -> None:
        self.shard = shard
        self.rulebook: CompiledRulebook = shard.rulebook
        self.columns = shard.columns
        self.marks = shard.marks
        book = CROSS
        if liquidation.subaccount != CROSS_NAME:
            book = self.rulebook.instrument_by_name[liquidation.subaccount].index
        unit = self.columns.unit_of(liquidation.account_id, book)
        assert unit is not None
        self.unit = unit
        self.policy = self.rulebook.policies[self.columns.units.preset[unit]]
        self.preset = self.rulebook.model.presets[self.policy.name]
        self._describer = Describer(self.rulebook, self.columns, self.marks)
        self._appraiser = Appraiser(self.rulebook, self.columns, self.marks)
        self.figures: MarginFigures = self._describer.figures(unit)

    @property
    def path(self) -> str:
        """Where the unit's preset is in the rulebook."""
        return f"presets.{self.policy.name}"

    # -- the verdict

    def verdict(self) -> dict[str, Any]:
        """Return equity and requirement by part, and the rule that makes the verdict of them."""
        figures, appraisal = self.figures, self._appraiser.appraise(self.unit)
        parts = self._appraiser.parts(self.unit)
        told = self._describer.unit(self.unit)
        return {
            "verdict": figures.verdict.label,
            "rule": _RULES[figures.verdict],
            "health": told["health"],
            "health_ratio": told["health_ratio"],
            "equity": self._sum("equity", parts, appraisal, figures.equity_micros),
            "requirement": self._sum("requirement", parts, appraisal, figures.requirement_micros),
            "raw_equity": {
                "unrounded": float_text(appraisal.raw_equity),
                "published": money_text(figures.raw_equity_micros),
                "rounding": _ROUNDING["equity"],
            },
            "collateral": self._collateral(told["collateral"], parts, appraisal),
            "positions": self._positions(told["positions"], parts, appraisal),
            "orders": told["orders"],
            "underlyings": self._underlyings(told.get("groups", [])),
        }

    def _sum(
        self,
        name: str,
        parts: Sequence[Part],
        appraisal: Appraisal,
        published: tuple[int, int, int],
    ) -> dict[str, Any]:
        """Return what an amount was added from, in order, and how it became what was published."""
        final = getattr(appraisal, name)
        sums = [0.0] * len(LEVELS)
        told = []
        for part in parts:
            amounts = getattr(part, name)
            is_added = name != "equity" or part.joins is None
            if is_added:
                sums = [total + amount for total, amount in zip(sums, amounts, strict=True)]
            if any(amounts):
                told.append({**self._named(part), **_by_level(amounts), "is_added": is_added})
                if part.joins is not None and name == "equity":
                    told[-1]["joins"] = self.rulebook.assets[part.joins].name
        adjusted = {
            LEVELS[level]: {"amount": float_text(float(final[level])), "why": self._why(level)}
            for level in Level
            if float(final[level]) != sums[level]
        }
        return {
            "parts": told,
            "sum": _by_level(sums),
            "adjusted": adjusted,
            "published": {LEVELS[level]: money_text(published[level]) for level in Level},
            "rounding": _ROUNDING[name],
        }

    def _named(self, part: Part) -> dict[str, str]:
        rulebook = self.rulebook
        table: Sequence[Any] = rulebook.instruments
        if part.kind == "group":
            table = rulebook.underlyings
        elif part.kind in {"balance", "pnl"}:
            table = rulebook.assets
        return {"kind": part.kind, "name": table[part.index].name}

    def _why(self, level: int) -> str:
        end = self.preset.liquidation.end
        if level == Level.LIQUIDATION_END and end.target_ratio_ppm is not None:
            return (
                f"{self.path}.liquidation.end.target_ratio_ppm = {end.target_ratio_ppm}: equity of "
                "maintenance, its requirement times that"
            )
        if level == Level.LIQUIDATION_END:
            return "liquidation ends between initial and maintenance: kept within them"
        return "a requirement below 0 is 0, and what is below is equity"

    def _collateral(
        self, told: list[dict[str, Any]], parts: Sequence[Part], appraisal: Appraisal
    ) -> list[dict[str, Any]]:
        held = {part.index: part for part in parts if part.kind in {"balance", "pnl"}}
        rules, marks = self.rulebook.rules, self.marks.marks
        preset = int(self.columns.units.preset[self.unit])
        found = []
        for place, text in enumerate(told):
            asset = self.rulebook.asset_by_name[text["asset"]]
            part = held[asset.index]
            prices = [cautious_prices(preset, asset.index, lv, rules, marks) for lv in Level]
            is_debt = float(appraisal.balance_value[place]) < 0.0
            model = self.preset.collateral.get(asset.name)
            found.append(
                {
                    **text,
                    "kind": "debt" if is_debt else "collateral",
                    "price_counted": _by_level([p[2] if is_debt else p[1] for p in prices]),
                    "share_counted": _by_level(
                        [
                            _over(amount, float(appraisal.balance_value[place]))
                            for amount in part.equity
                        ]
                    ),
                    "required": _by_level(part.requirement),
                    "path": f"{self.path}.collateral.{asset.name}" if model else None,
                    "parameters": _parameters(model),
                }
            )
        return found

    def _positions(
        self, told: list[dict[str, Any]], parts: Sequence[Part], appraisal: Appraisal
    ) -> list[dict[str, Any]]:
        ordered = {o["market"]: o for o in self._describer.orders(self.unit)}
        by_index = _of_markets(parts)
        without_orders = self._with_preset(order_levels=0, is_open_loss=0)
        without_limit = self._with_preset(is_own_leverage=0)
        bare = _of_markets(without_orders.parts(self.unit))
        free = _of_markets(without_limit.parts(self.unit))
        texts = {text["market"]: text for text in told}
        found = []
        for index, part in by_index.items():
            instrument = self.rulebook.instruments[index]
            text = texts.get(instrument.name, {"market": instrument.name})
            if instrument.option is not None and self.figures.is_judged:
                price = option_prices(self.rulebook, self.marks, [instrument])[index]
                text["model_price"] = float_text(price)
            lots = next((n for i, n, _ in self.columns.positions_of(self.unit) if i == index), 0)
            terms = self._terms_of(instrument.name)
            if instrument.name in ordered and bare[index].requirement != part.requirement:
                counted = zip(part.requirement, bare[index].requirement, strict=True)
                terms.append(
                    {
                        "term": "orders",
                        "path": f"{self.path}.orders",
                        "parameters": _parameters(self.preset.orders),
                        "inputs": ordered[instrument.name],
                        "adds": _by_level([a - b for a, b in counted]),
                    }
                )
            if free[index].requirement != part.requirement:
                counted = zip(part.requirement, free[index].requirement, strict=True)
                path = next(
                    at for at, node in self._requirement() if isinstance(node, OwnLeverageTermModel)
                )
                terms.append(
                    {
                        "term": "own_leverage",
                        "path": path,
                        "parameters": {"leverage": ordered[instrument.name]["leverage"]},
                        "adds": _by_level([a - b for a, b in counted]),
                    }
                )
            found.append(
                {
                    **text,
                    "entry_price": self._entry(text, instrument.kind) if lots else None,
                    "counted": _by_level(part.equity),
                    "requirement": _by_level(part.requirement),
                    "rate": _by_level(
                        [_over(r, abs(self._notional(index, appraisal))) for r in part.requirement]
                    ),
                    "pnl_path": f"{self.path}.pnl",
                    "pnl_parameters": _parameters(self.preset.pnl),
                    "terms": terms,
                }
            )
        return found

    @staticmethod
    def _entry(text: Mapping[str, Any], kind: str) -> str | None:
        size, cost = Fraction(text["size"]), Fraction(text["cost_basis"])
        if not size or not cost:
            return None
        return float_text(float(abs(size / cost) if kind == "inverse" else cost / size))

    @staticmethod
    def _notional(index: int, appraisal: Appraisal) -> float:
        if index not in appraisal.instruments:
            return 0.0
        return float(appraisal.position_value[appraisal.instruments.index(index)])

    def _requirement(self) -> Iterator[tuple[str, Any]]:
        terms = () if self.preset.requirement is None else self.preset.requirement.sum
        for place, term in enumerate(terms):
            yield f"{self.path}.requirement.sum.{place}", term

    def _terms_of(self, market: str) -> list[dict[str, Any]]:
        """Return the term that a market's own requirement comes from; none if it has none."""
        default: tuple[str, Any, Any] | None = None
        for at, term in self._requirement():
            if isinstance(term, _OF_MARKETS):
                own = term.markets.get(market)
                if own is not None:
                    return [_term_text(f"{at}.markets.{market}", term, own)]
                if term.default is not None:
                    default = f"{at}.default", term, term.default
        if default is None or self.rulebook.instrument_by_name[market].kind == "option":
            return []
        return [_term_text(*default)]

    def _with_preset(self, **changes: int) -> Appraiser:
        """Return an appraiser under the same rules but for some of the preset's."""
        rules = self.rulebook.rules
        presets = rules.terms.preset.copy()
        for name, value in changes.items():
            presets[name][self.columns.units.preset[self.unit]] = value
        changed = rules._replace(terms=rules.terms._replace(preset=presets))
        return Appraiser(replace(self.rulebook, rules=changed), self.columns, self.marks)

    def _underlyings(self, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what each term of an underlying requires by itself, evaluated alone."""
        row = self.rulebook.rules.terms.preset[self.columns.units.preset[self.unit]]
        leaves = []
        step = int(row["first_step"])
        for at, term in self._requirement():
            if not isinstance(term, (*_OF_MARKETS, OwnLeverageTermModel)):
                for path, node in _leaves(at, term):
                    if node is not None:
                        leaves.append((step, path, node))
                    step += 1
        found = []
        for text in told:
            terms = []
            for place, path, node in leaves:
                alone = self._with_preset(first_step=place, step_count=1).appraise(self.unit)
                index = next(
                    u.index for u in self.rulebook.underlyings if u.name == text["underlying"]
                )
                group = next((g for g in alone.groups if g.underlying == index), None)
                initial, maintenance = (
                    (0.0, 0.0) if group is None else (group.initial, group.maintenance)
                )
                terms.append(
                    {
                        "term": node.term,
                        "path": path,
                        "requirement": {
                            LEVELS[Level.INITIAL]: float_text(initial),
                            LEVELS[Level.MAINTENANCE]: float_text(maintenance),
                        },
                    }
                )
                if isinstance(node, ScanTermModel) and group is not None:
                    terms[-1]["worst_scenario"] = _scenario(node, group.worst_scenario)
            found.append({**text, "terms": terms})
        return found

    # -- marks

    def feeds(self) -> dict[str, dict[str, Any]]:
        """Return the feeds that the unit was judged by: what they say, and what they are for."""
        rulebook, columns, unit = self.rulebook, self.columns, self.unit
        rules, preset = rulebook.rules, int(self.columns.units.preset[unit])
        uses: dict[int, list[str]] = {}

        def note(feed: int, use: str) -> None:
            if feed != NONE and use not in uses.setdefault(int(feed), []):
                uses[int(feed)].append(use)

        def note_all(row: Any, of: str) -> None:  # noqa: ANN401 - a row of a structured array
            for name in row.dtype.names or ():
                if name.endswith("_feed"):
                    note(row[name], f"{name.removesuffix('_feed').replace('_', ' ')} of {of}")

        assets = [asset for asset, _ in columns.balances_of(unit)]
        markets = [index for index, _, _ in columns.positions_of(unit)]
        markets += [o.instrument for o in columns.orders_of(unit) if o.instrument not in markets]
        for index in markets:
            instrument = rulebook.instruments[index]
            contract = rules.terms.instruments[index]
            note(rules.instrument_feed[index], f"mark of {instrument.name}")
            note_all(contract, instrument.name)
            note_all(rules.terms.market[preset, index], instrument.name)
            if instrument.kind == "option":
                note_all(rules.terms.expiries[contract["expiry"]], instrument.name)
            assets.append(instrument.settles_in)
        for index in assets:
            name = rulebook.assets[index].name
            note(rules.asset_feed[index], f"price of {name}")
            note_all(rules.terms.assets[index], name)
            note_all(rules.terms.asset[preset, index], name)
        if rules.terms.preset[preset]["step_count"] > 0:
            for index, underlying in enumerate(rulebook.underlyings):
                note_all(rules.terms.underlyings[index], underlying.name)
        return {
            rulebook.feeds[feed].name: {
                **(self.marks.told(feed) or {"price": None, "state": "unknown", "since_us": 0}),
                "may_judge": bool(self.marks.marks.is_usable[feed]),
                "used_as": used,
            }
            for feed, used in sorted(uses.items())
        }

    # -- sizes

    def sizing(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return how the orders and swaps of an offer were sized; None where nothing is offered.

        Where some of it is withheld, orders are those of the plan, and what withholds it is told.

        Parameters
        ----------
        event : mapping
            The offer as published.
        """
        figures, policy = self.figures, self.policy
        if figures.shortage_micros == 0:
            return None
        auction, withheld = event.get("dutch_auction"), event.get("withheld")
        elapsed_us = event["ts_us"] - auction["started_us"] if auction else 0
        notes: list[dict[str, Any]] = []
        plan = Planner(self.rulebook, self.columns, self.marks, notes).plan(
            self.unit, figures, elapsed_us
        )
        told = plan_text(self.rulebook, plan)
        if policy.is_plain:
            name = "Z1"
            told["legs"] = list(self._plain_legs(told["legs"] if withheld else event["legs"]))
        else:
            lending = policy.lending
            name = {"steps": "Z6", "slice": "Z7", "full": "full"}.get(policy.sizing, "Z2, Z8")
            if policy.sizing == "shortage" and plan.swaps and lending is not None:
                swaps = "Z5"
                if lending.target_ppm is not None:
                    swaps = "Z4"
                elif lending.is_by_shortage:
                    swaps = "Z3"
                told["swaps"] = [
                    {**swap, "formula": swaps, "text": _FORMULAS[swaps], "inputs": _inputs(note)}
                    for swap, note in zip(told["swaps"], _of_step(notes, "swap"), strict=True)
                ]
                name = name if plan.legs else swaps
            told["legs"] = [self._leg_with(leg, notes) for leg in told["legs"]]
        return {
            "policy": policy.sizing,
            "formula": name,
            "text": _FORMULAS[name],
            "shortage": money_text(figures.shortage_micros),
            "path": f"{self.path}.liquidation",
            "parameters": _parameters(self.preset.liquidation),
            **told,
            "inputs": [_inputs(n) for n in notes if n["step"] in {"slice", "steps", "rank"}],
            **({} if withheld is None else {"withheld": [*map(self._withheld(event), withheld)]}),
        }

    def _withheld(
        self, event: Mapping[str, Any]
    ) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        """Return what tells of a withheld size by which numbers of the rulebook it is."""
        liquidation = self.preset.liquidation
        windowed = ("market_window", "account_window", "throttled", "bypass")
        sections = dict.fromkeys(windowed, "window")

        def told(each: Mapping[str, Any]) -> Mapping[str, Any]:
            section = sections.get(each["reason"], each["reason"])
            found = {
                **each,
                "path": f"{self.path}.liquidation.{section}",
                "parameters": _parameters(getattr(liquidation, section)),
            }
            if section == "release":
                return found | {"released_ppm": event["released_ppm"]}
            if section == "depth":
                depth = self.policy.depth[self.rulebook.instrument_by_name[each["market"]].index]
                return found | {"most": money_text(depth.most_micros)}
            return found

        return told

    def _plain_legs(self, legs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the orders of a plain preset with what the closed form was given."""
        figures, policy = self.figures, self.policy
        held = {index: lots for index, lots, _ in self.columns.positions_of(self.unit)}
        shortage = Fraction(figures.shortage_micros)
        raw = figures.raw_equity_micros
        required = figures.requirement_micros[Level.MAINTENANCE]
        for leg in legs:
            instrument = self.rulebook.instrument_by_name[leg["market"]]
            mark = int(self.marks.marks.price[instrument.mark_feed])
            position = OpenPosition(instrument, held[instrument.index], mark)
            end_ppm = policy.liquidation_end_rate_ppm[instrument.index]
            lots, fund_ppm = shortage_lots(
                position, policy, shortage.numerator, shortage.denominator
            )
            lot_value = Fraction(*instrument.mark_value) * mark
            gain = lot_value * (end_ppm - policy.liquidator_fee_ppm - fund_ppm) / PPM
            exact = None if end_ppm <= policy.liquidator_fee_ppm else shortage / gain
            whole = abs(position.size_lots)
            exponent = instrument.price_exponent
            yield {
                **leg,
                "shortage_before": float_text(float(shortage / PPM)),
                "rates_ppm": {
                    "liquidation_end": end_ppm,
                    "maintenance": policy.maintenance_rate_ppm[instrument.index],
                    "liquidator_fee": policy.liquidator_fee_ppm,
                    "fund_fee": fund_ppm,
                },
                "lot_value": float_text(float(lot_value / PPM)),
                "lots_exact": None if exact is None else float_text(float(exact)),
                "lots": lots,
                "lot": instrument.lot.format(1),
                "position_lots": whole,
                "why_all": self._why_all(exact, lots, whole),
                "limit": self._limit(
                    position, fillable_price(position, policy, raw, required), exponent
                ),
                "bankruptcy": {
                    "raw_equity": money_text(raw),
                    "maintenance": money_text(required),
                    "released_ppm": policy.maintenance_rate_ppm[instrument.index],
                },
                "is_same": (
                    leg["size"] == instrument.lot.format(lots)
                    and leg["limit_price"]
                    == format_scaled(limit_price(position, policy, raw, required), exponent)
                    and leg["bankruptcy_price"]
                    == format_scaled(
                        bankruptcy_price(position, policy, lots, raw, required), exponent
                    )
                ),
            }
            shortage -= lots * gain

    @staticmethod
    def _why_all(exact: Fraction | None, lots: int, whole: int) -> str | None:
        if lots < whole:
            return None
        if exact is None:
            return "the liquidator's fee takes all that closing releases"
        if exact >= whole:
            return "closing all of it releases no more than is missing"
        return "what would stay is less than a lot, or dust"

    def _limit(self, position: OpenPosition, fillable: int, exponent: int) -> dict[str, Any]:
        fee_ppm = self.policy.liquidator_fee_ppm
        distance = position.mark_price * fee_ppm // PPM
        side = 1 if position.size_lots > 0 else -1
        return {
            "fillable_price": format_scaled(fillable, exponent),
            "at_fee": format_scaled(position.mark_price - side * distance, exponent),
            "tick": position.instrument.tick.format(1),
            "spread_ppm": self.policy.spread_ppm,
            "adjustment_ppm": self.policy.adjustment_ppm,
        }

    def _leg_with(self, leg: dict[str, Any], notes: Iterable[dict[str, Any]]) -> dict[str, Any]:
        instrument = self.rulebook.instrument_by_name[leg["market"]]
        found = [note for note in notes if note.get("market") == leg["market"]]
        told = {**leg, "lot": instrument.lot.format(1)}
        for note in found:
            content = _inputs(note)
            if "fillable_price" in content:
                exponent = instrument.price_exponent
                content["fillable_price"] = format_scaled(content["fillable_price"], exponent)
            told[note["step"]] = content
        return told

    # -- what would have avoided it

    def avoided_by(self) -> dict[str, Any]:
        """Return what would have kept the unit from liquidation, each other thing as it was.

        Deposits are the least that do, to the quantum. A price is the last one at which health is
        not negative; a size the largest, at the entry price it had.
        """
        trial = _TrialUnit(self)
        assets = self.rulebook.assets
        owed = [a for a, quanta in self.columns.balances_of(self.unit) if quanta < 0]
        deposits = []
        for asset in dict.fromkeys([0, *owed]):
            told: dict[str, Any] = {
                "asset": assets[asset].name,
                "repays": asset in owed,
            }
            for name, level in (("keeps", Level.MAINTENANCE), ("restores", Level.LIQUIDATION_END)):
                least = trial.least_deposit(asset, level)
                told[f"{name}_{LEVELS[level]}"] = (
                    None if least is None else format_scaled(least, assets[asset].quantum_exponent)
                )
            deposits.append(told)
        return {
            "deposits": deposits,
            "prices": self._prices(),
            "sizes": [
                {
                    "market": self.rulebook.instruments[index].name,
                    "size": self.rulebook.instruments[index].lot.format(lots),
                    "most": None
                    if (most := trial.most_lots(index)) is None
                    else self.rulebook.instruments[index].lot.format(most),
                }
                for index, lots, _ in self.columns.positions_of(self.unit)
            ],
            "without_orders": trial.health_without_orders(),
        }

    def _prices(self) -> list[dict[str, Any]]:
        found = []
        rulebook = self.rulebook
        hurt: list[tuple[str, int, bool]] = [
            (f"position {rulebook.instruments[i].name}", rulebook.instruments[i].mark_feed, n < 0)
            for i, n, _ in self.columns.positions_of(self.unit)
            if rulebook.instruments[i].kind != "option"
        ]
        for asset, quanta in self.columns.balances_of(self.unit):
            feed = rulebook.assets[asset].index_feed
            if feed is not None:
                kind = "debt" if quanta < 0 else "collateral"
                hurt.append((f"{kind} {rulebook.assets[asset].name}", feed, quanta < 0))
        for of, feed, is_rising in hurt:
            told: dict[str, Any] = {
                "of": of,
                "feed": rulebook.feeds[feed].name,
                "mark": self.marks.price_text(feed),
            }
            for name, what in (
                ("maintenance", int(Level.MAINTENANCE)),
                ("liquidation_end", int(Level.LIQUIDATION_END)),
                ("raw_equity", OF_RAW),
            ):
                price = self._appraiser.crossing(self.unit, feed, what, is_rising=is_rising)
                told[name] = (
                    None if price is None else format_scaled(price, rulebook.feeds[feed].exponent)
                )
            found.append(told)
        return found


class _TrialUnit:
    """A copy of one unit by itself, on which anything may be tried."""

    def __init__(self, of: Explainer) -> None:
        self._of = of
        source, rulebook = of.columns, of.rulebook
        columns = self._columns = Columns(rulebook.default_preset, is_funded=source.is_funded)
        account = columns.add_account("trial")
        columns.make_room(NONE)
        book, preset = int(source.units.book[of.unit]), int(source.units.preset[of.unit])
        counts = columns.counts
        self._unit: int = blocks.add_unit(
            account, book, preset, columns.accounts, columns.units, columns.cases, counts
        )
        for asset, quanta in {0: 0, **dict(source.balances_of(of.unit))}.items():
            self._balance_row(asset, quanta)
        funding = source.funding_of(of.unit)
        for (index, lots, cost), paid in zip(source.positions_of(of.unit), funding, strict=True):
            columns.make_room(self._unit)
            row = blocks.insert_position(
                self._unit, index, columns.units, columns.positions, counts
            )
            columns.positions.size_lots[row] = lots
            columns.positions.cost_basis_micros[row] = cost
            columns.positions.funding_index[row] = paid
        for order in source.orders_of(of.unit):
            write_order(columns, self._unit, order)
        self._appraiser = Appraiser(rulebook, columns, of.marks)

    def _balance_row(self, asset: int, quanta: int) -> int:
        columns = self._columns
        columns.make_room(self._unit)
        row: int = blocks.insert_balance(
            self._unit, asset, columns.units, columns.balances, columns.counts
        )
        columns.balances.quanta[row] = quanta
        return row

    def _holds(self, level: int) -> bool:
        found = self._appraiser.amounts(self._unit)
        return found is not None and found[0][level] >= 0 and found[1] >= 0

    def least_deposit(self, asset: int, level: int) -> int | None:
        """Return the fewest quanta of an asset that keep health of a level; None if none do."""
        columns, marks, of = self._columns, self._of.marks, self._of.rulebook.assets[asset]
        first = int(columns.units.first_balance[self._unit])
        held = [index for index, _ in columns.balances_of(self._unit)]
        row = first + held.index(asset)
        before = int(columns.balances.quanta[row])
        worth = marks.unscaled(of, before)

        def holds(more: int) -> bool:
            columns.balances.quanta[row] = marks.scaled(of, worth + more)
            return self._holds(level)

        try:
            return _least(holds, MAX_EXACT - max(worth, 0))
        finally:
            columns.balances.quanta[row] = before

    def most_lots(self, instrument: int) -> int | None:
        """Return the largest size of a position, at its entry price, that keeps maintenance."""
        columns = self._columns
        first = int(columns.units.first_position[self._unit])
        held = [index for index, _, _ in columns.positions_of(self._unit)]
        row = first + held.index(instrument)
        lots = int(columns.positions.size_lots[row])
        cost = int(columns.positions.cost_basis_micros[row])
        whole, sign = abs(lots), 1 if lots > 0 else -1

        def holds(closed: int) -> bool:
            left = whole - closed
            columns.positions.size_lots[row] = sign * left
            columns.positions.cost_basis_micros[row] = -(-cost * left // whole)
            return self._holds(Level.MAINTENANCE)

        try:
            closed = _least(holds, whole)
        finally:
            columns.positions.size_lots[row] = lots
            columns.positions.cost_basis_micros[row] = cost
        return None if closed is None else sign * (whole - closed)

    def health_without_orders(self) -> dict[str, str] | None:
        """Return health by level had the unit no open orders; None if it has none."""
        orders = self._columns.orders_of(self._unit)
        if not any(o.order_count or o.bid_lots or o.ask_lots for o in orders):
            return None
        for order in orders:
            write_order(
                self._columns,
                self._unit,
                order._replace(
                    bid_lots=0, bid_value_micros=0, ask_lots=0, ask_value_micros=0, order_count=0
                ),
            )
        found = self._appraiser.amounts(self._unit)
        for order in orders:
            write_order(self._columns, self._unit, order)
        if found is None:
            return None
        return {LEVELS[level]: money_text(found[0][level]) for level in Level}


def _of_markets(parts: Iterable[Part]) -> dict[int, Part]:
    return {part.index: part for part in parts if part.kind in {"position", "orders"}}


def _least(holds: Callable[[int], bool], most: int) -> int | None:
    """Return the least number from 0 to `most` at which something holds from there on."""
    if holds(0):
        return 0
    bad, good = 0, 1
    while not holds(good):
        if good >= most:
            return None
        bad, good = good, min(2 * good, most)
    while good - bad > 1:
        middle = bad + (good - bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def _leaves(path: str, node: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any term or tree
    """Yield one item a step of the compiled tree, in its order: a term, or None for a node."""
    if not isinstance(node, TreeModel):
        yield path, node
        return
    for key in ("sum", "max", "min"):
        for place, child in enumerate(getattr(node, key) or ()):
            yield from _leaves(f"{path}.{key}.{place}", child)
    yield path, None
    if node.scale_ppm != PPM:
        yield path, None


def _scenario(node: ScanTermModel, place: int | None) -> dict[str, Any] | None:
    if place is None:
        return None
    if place >= len(node.scenarios):
        return {"place": place, "basis": _parameters(node.basis)}
    return {"place": place, **node.scenarios[place].model_dump(mode="json")}


def _term_text(path: str, term: Any, own: Any) -> dict[str, Any]:  # noqa: ANN401 - models
    told = {"term": term.term, "path": path, "parameters": _parameters(own)}
    if getattr(term, "notional_basis", "mark") != "mark":
        told["notional_basis"] = term.notional_basis
    return told


def _parameters(model: Any) -> Any:  # noqa: ANN401 - JSON data
    """Return what a section of the rulebook says, but for defaults."""
    if isinstance(model, BaseModel):
        return model.model_dump(mode="json", exclude_defaults=True)
    if isinstance(model, list):
        return [_parameters(each) for each in model]
    return model


def _of_step(notes: Iterable[dict[str, Any]], step: str) -> list[dict[str, Any]]:
    return [note for note in notes if note["step"] == step]


def _inputs(note: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: float_text(value) if isinstance(value, float) else value
        for key, value in note.items()
        if key != "step"
    }


def _over(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _by_level(amounts: Iterable[float | None]) -> dict[str, str | None]:
    return {
        name: None if amount is None else float_text(amount)
        for name, amount in zip(LEVELS, amounts, strict=True)
    }
