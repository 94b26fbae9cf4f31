"""Evaluate accounts given by hand, outside any stream: ``solvent evaluate``.

The snapshot goes into the same columns and through the same kernel as a live partition. Numbers are
decimal strings, as on the wire: money in the settlement currency, sizes in coins (long > 0; of
inverse contracts: in contracts), amounts in coins (debt < 0)::

    {"ts_us": 1735689600000000,
     "marks": {"BTC-PERP": "60000", "ETH/USD": {"price": "2000", "confidence": "1.5"}},
     "accounts": [{"account_id": "alice", "subaccount": "cross", "account_class": "trader",
                   "collateral": {"USDC": "1000"},
                   "positions": [{"market": "BTC-PERP", "size": "-0.5", "cost_basis": "-30500"}],
                   "orders": [{"market": "BTC-PERP", "bid_size": "1", "bid_value": "59000",
                               "ask_size": "0", "ask_value": "0", "count": 3}],
                   "leverage": {"BTC-PERP": "10"}}]}

``ts_us`` is needed, and above 0, where a position expires; ``subaccount`` is ``cross`` if left out,
``account_class`` the rulebook's default. A position has either ``cost_basis`` or ``entry_price``
(cost basis = size x entry price, rounded up); an option with premium settlement may have neither.
``funding_index`` is the index up to which funding is paid, the present one if left out. A mark is a
text, or an object with its ``price`` (of a state feed its ``value``) and ``confidence``. A feed
without a mark may not judge; an option needs all of its feeds.

``history`` may tell past prices of feeds, ``{"BTC-PERP": ["59000", "60000"]}``, at equal steps and
the oldest first, as many of each: accounts then have ``wrong_way`` (`solvent.engine.wrong_way`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any

import numpy as np

from solvent.domain.instrument import Instrument
from solvent.engine.appraise import Appraiser
from solvent.engine.describe import CROSS_NAME, Describer
from solvent.engine.markbook import MarkBook
from solvent.engine.plan import Plan, Planner, plan_text
from solvent.engine.restate import write_order
from solvent.engine.surface import check_surfaces
from solvent.engine.wrong_way import MAX_PRICES, MIN_PRICES, wrong_way_text
from solvent.errors import ContractError, PartitionError, RejectCode
from solvent.kernel import blocks
from solvent.kernel.contracts import is_over
from solvent.kernel.evaluate import evaluate_units_jit
from solvent.kernel.layout import COUNT_UNITS, CROSS, NONE, Float64
from solvent.rules.compile import CompiledRulebook
from solvent.state.columns import Columns, Order
from solvent.units import MAX_EXACT, MAX_STATE, MICRO_EXPONENT, PPM, parse_scaled
from solvent.wire.inputs import is_identifier

__all__ = ["evaluate_snapshot"]

_PPM_EXPONENT = -6
_SIDES = ("bid_size", "bid_value", "ask_size", "ask_value")
#: Names that an error lists of those it would have known.
_NAMES_SHOWN = 20


def evaluate_snapshot(
    rulebook: CompiledRulebook, snapshot: Mapping[str, Any], *, has_plan: bool = False
) -> dict[str, Any]:
    """Return what each margin unit of a snapshot is worth, must hold and where it ends.

    Parameters
    ----------
    rulebook : CompiledRulebook
        Rules to judge by.
    snapshot : mapping
        As the module describes.
    has_plan : bool
        Whether to say what a liquidation would close.

    Returns
    -------
    dict
        ``{"rulebook", "accounts": [...]}`` in the snapshot's order, each account as
        `solvent.engine.describe.Describer.unit` has it; JSON-able, decimal strings. With a plan an
        account that a liquidation would touch has ``plan``: orders (``legs``), debts to repay
        (``swaps``), and the share of the book where a part of all of it is sold (``share_ppm``).

    Raises
    ------
    ContractError
        A missing or unknown field, name or number; the message gives its path, value and limit.
    """
    _checked("snapshot", snapshot, {"marks", "accounts"}, {"ts_us", "history"})
    columns, marks = Columns(), MarkBook(rulebook)
    _put_marks(rulebook, marks, _mapping("marks", snapshot["marks"]))
    ts_us = snapshot.get("ts_us", 0)
    if not isinstance(ts_us, int) or isinstance(ts_us, bool) or not 0 <= ts_us <= MAX_EXACT:
        raise _refusal(path="ts_us", problem=f"{ts_us!r:.80}: microseconds, 0 to 2**53, expected")
    marks.stream_us = ts_us
    check_surfaces(rulebook, marks)
    books = [
        _add_unit(columns, rulebook, marks, f"accounts.{number}", account)
        for number, account in enumerate(_sequence("accounts", snapshot["accounts"]))
    ]
    count = int(columns.counts[COUNT_UNITS])
    space = rulebook.workspace()
    evaluate_units_jit(
        columns.units,
        count,
        columns.positions,
        columns.balances,
        columns.orders,
        rulebook.rules,
        marks.marks,
        space,
        columns.figures,
        0,
        count,
    )
    returns = _returns(rulebook, snapshot.get("history"))
    appraiser = Appraiser(rulebook, columns, marks)
    describer = Describer(rulebook, columns, marks)
    planner = Planner(rulebook, columns, marks)
    accounts = []
    for account_id, unit in books:
        text = describer.unit(unit)
        for live in ("status", "previous_status", "flags", "episode", "revision", "touched_us"):
            del text[live]
        figures = describer.figures(unit)
        if returns is not None and figures.is_judged:
            held = tuple(asset for asset, _ in columns.balances_of(unit))
            text["wrong_way"] = wrong_way_text(rulebook, appraiser.appraise(unit), held, returns)
        if has_plan:
            plan = planner.plan(unit, figures) if figures.is_judged else Plan()
            text["plan"] = plan_text(rulebook, plan)
        accounts.append({"account_id": account_id, **text})
    return {"rulebook": rulebook.reference, "accounts": accounts}


def _put_marks(rulebook: CompiledRulebook, marks: MarkBook, given: Mapping[str, Any]) -> None:
    """Take the marks of the snapshot: each a text, or an object of texts."""
    for name, mark in given.items():
        feed = _named("marks", name, rulebook.feed_by_name)
        path = f"marks.{name}"
        if isinstance(mark, Mapping):
            fields = _checked(path, mark, {feed.number}, {"confidence"})
            told = {key: _text(f"{path}.{key}", text) for key, text in fields.items()}
        else:
            told = {feed.number: _text(path, mark)}
        try:
            marks.put({name: told})
        except PartitionError as error:
            problem = error.message.removeprefix(f"mark of feed {name}: ")
            raise _refusal(path=path, problem=problem) from error
        if feed.is_below(int(marks.marks.price[feed.index])):
            problem = f"{marks.price_text(feed.index)}: {feed.limit} expected"
            raise _refusal(path=path, problem=problem)


def _returns(rulebook: CompiledRulebook, given: object) -> dict[int, Float64] | None:
    """Return the returns of each feed whose history is told; None without a history."""
    if given is None:
        return None
    found: dict[int, Float64] = {}
    count: int | None = None
    for name, told in _mapping("history", given).items():
        feed = _named("history", name, rulebook.feed_by_name)
        path = f"history.{name}"
        if feed.is_state:
            raise _refusal(path=path, problem="a state feed: only prices have returns")
        texts = _sequence(path, told)
        count = len(texts) if count is None else count
        if not MIN_PRICES <= len(texts) <= MAX_PRICES or len(texts) != count:
            limit = f"{MIN_PRICES} to {MAX_PRICES}, as many as of the others, expected"
            raise _refusal(path=path, problem=f"{len(texts)} prices: {limit}")
        prices = np.array(
            [_number(f"{path}.{at}", text, feed.exponent) for at, text in enumerate(texts)],
            np.float64,
        )
        if prices.min() <= 0.0:
            at = int(prices.argmin())
            raise _refusal(path=f"{path}.{at}", problem=f"{texts[at]}: above 0 expected")
        found[feed.index] = np.diff(prices) / prices[:-1]
    return found


def _add_unit(
    columns: Columns, rulebook: CompiledRulebook, marks: MarkBook, path: str, given: object
) -> tuple[str, int]:
    """Put one account of the snapshot into the columns; return its id and unit."""
    allowed = {"subaccount", "account_class", "collateral", "positions", "orders", "leverage"}
    account = _checked(path, given, {"account_id"}, allowed)
    account_id = account["account_id"]
    if not isinstance(account_id, str) or not is_identifier(account_id):
        raise _refusal(
            path=f"{path}.account_id", problem=f"{account_id!r}: [A-Za-z0-9._-]{{1,64}} expected"
        )
    subaccount = account.get("subaccount", CROSS_NAME)
    if subaccount == CROSS_NAME:
        book = CROSS
    else:
        book = _named(f"{path}.subaccount", subaccount, rulebook.instrument_by_name).index
    if columns.unit_of(account_id, book) is not None:
        raise _refusal(path=path, problem=f"{account_id} {subaccount}: given twice")
    preset = rulebook.default_preset
    if "account_class" in account:
        name = f"{path}.account_class"
        preset = _named(name, account["account_class"], rulebook.preset_by_class)
    index = columns.add_account(account_id)
    columns.make_room(NONE)
    unit: int = blocks.add_unit(
        index,
        book,
        preset,
        columns.accounts,
        columns.units,
        columns.cases,
        columns.counts,
    )
    for name, amount in _mapping(f"{path}.collateral", account.get("collateral", {})).items():
        asset = _named(f"{path}.collateral", name, rulebook.asset_by_name)
        quanta = _number(f"{path}.collateral.{name}", amount, asset.quantum_exponent)
        quanta = marks.scaled(asset, quanta)
        if abs(quanta) > MAX_EXACT:
            problem = f"{amount}: at most 2**53 units of 1e{asset.quantum_exponent} before interest"
            raise _refusal(path=f"{path}.collateral.{name}", problem=problem)
        columns.make_room(unit)
        if quanta:
            row = blocks.insert_balance(
                unit, asset.index, columns.units, columns.balances, columns.counts
            )
            columns.balances.quanta[row] = quanta
    positions = _sequence(f"{path}.positions", account.get("positions", []))
    for number, position in enumerate(positions):
        _add_position(columns, rulebook, marks, unit, f"{path}.positions.{number}", position)
    for order in _orders(rulebook, marks, book, path, account):
        write_order(columns, unit, order)
    return account_id, unit


def _orders(
    rulebook: CompiledRulebook, marks: MarkBook, book: int, path: str, account: Mapping[str, Any]
) -> Iterator[Order]:
    """Yield what an account has in each market beside its position: orders, own leverage."""
    limits: dict[int, int] = {}
    for name, text in _mapping(f"{path}.leverage", account.get("leverage", {})).items():
        market = _named(f"{path}.leverage", name, rulebook.instrument_by_name)
        limits[market.index] = _number(f"{path}.leverage.{name}", text, _PPM_EXPONENT)
        if limits[market.index] < PPM:
            raise _refusal(path=f"{path}.leverage.{name}", problem=f"{text}: at least 1 expected")
    seen: set[int] = set()
    for place, given in enumerate(_sequence(f"{path}.orders", account.get("orders", []))):
        at = f"{path}.orders.{place}"
        told = _checked(at, given, {"market", "count", *_SIDES})
        market = _named(f"{at}.market", told["market"], rulebook.instrument_by_name)
        if market.index in seen or book not in {CROSS, market.index}:
            problem = f"{market.name}: once, and in a book that may trade it"
            raise _refusal(path=f"{at}.market", problem=problem)
        seen.add(market.index)
        count = told["count"]
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_EXACT:
            raise _refusal(path=f"{at}.count", problem=f"{count!r:.80}: 0 to 2**53 expected")
        order = Order(
            instrument=market.index,
            bid_lots=_steps(f"{at}.bid_size", told["bid_size"], market),
            ask_lots=_steps(f"{at}.ask_size", told["ask_size"], market),
            bid_value_micros=_number(f"{at}.bid_value", told["bid_value"], MICRO_EXPONENT),
            ask_value_micros=_number(f"{at}.ask_value", told["ask_value"], MICRO_EXPONENT),
            order_count=count,
            leverage_ppm=limits.pop(market.index, 0),
        )
        sides = (order.bid_lots, order.bid_value_micros, order.ask_lots, order.ask_value_micros)
        for name, amount in zip(_SIDES, sides, strict=True):
            if amount >= 0:
                continue
            raise _refusal(path=f"{at}.{name}", problem=f"{told[name]}: at least 0 expected")
        if any((count, *sides)) and is_over(
            market.index, marks.stream_us, rulebook.rules, marks.marks
        ):
            problem = f"{market.name}: expired at {market.expires_us}, nothing fills its orders"
            raise _refusal(path=f"{at}.market", problem=problem)
        yield order
    for index, limit in limits.items():
        if book in {CROSS, index}:  # an account's limits go with all its units, as in settings
            yield Order(index, 0, 0, 0, 0, 0, limit)


def _add_position(
    columns: Columns,
    rulebook: CompiledRulebook,
    marks: MarkBook,
    unit: int,
    path: str,
    given: object,
) -> None:
    allowed = {"cost_basis", "entry_price", "funding_index"}
    position = _checked(path, given, {"market", "size"}, allowed)
    instrument = _named(f"{path}.market", position["market"], rulebook.instrument_by_name)
    book = int(columns.units.book[unit])
    if book not in {CROSS, instrument.index}:
        raise _refusal(
            path=f"{path}.market", problem=f"{instrument.name}: not the market of this subaccount"
        )
    if blocks.find_position(unit, instrument.index, columns.units, columns.positions) != NONE:
        raise _refusal(path=f"{path}.market", problem=f"{instrument.name}: given twice")
    size = _steps(f"{path}.size", position["size"], instrument)
    if size == 0:
        raise _refusal(path=f"{path}.size", problem="0: must not be 0")
    _check_alive(rulebook, marks, f"{path}.market", instrument)
    cost = _cost_basis(rulebook, path, position, instrument, size)
    funding_index = 0
    if instrument.funding_feed is not None:
        funding_index = int(marks.marks.price[instrument.funding_feed])
        if "funding_index" in position:
            exponent = rulebook.feeds[instrument.funding_feed].exponent
            at = f"{path}.funding_index"
            funding_index = _number(at, position["funding_index"], exponent, limit=MAX_STATE)
    elif "funding_index" in position:
        problem = f"{instrument.name} has no funding index"
        raise _refusal(path=f"{path}.funding_index", problem=problem)
    columns.make_room(unit)
    row = blocks.insert_position(
        unit, instrument.index, columns.units, columns.positions, columns.counts
    )
    columns.positions.size_lots[row] = size
    columns.positions.cost_basis_micros[row] = cost
    columns.positions.funding_index[row] = funding_index


def _check_alive(
    rulebook: CompiledRulebook, marks: MarkBook, path: str, instrument: Instrument
) -> None:
    """Refuse a contract that has expired, or may have, and an option that cannot be priced."""
    if instrument.expires_us is not None and marks.stream_us == 0:
        problem = f"{instrument.name} expires: the time of the snapshot, above 0, expected"
        raise _refusal(path="ts_us", problem=problem)
    if instrument.expires_us is not None and instrument.expires_us < marks.stream_us:
        problem = (
            f"{instrument.name}: expired at {instrument.expires_us}, the snapshot is of "
            f"{marks.stream_us}"
        )
        raise _refusal(path=path, problem=problem)
    option = instrument.option
    if option is None or instrument.underlying is None:
        return
    needed = {
        "spot": rulebook.underlyings[instrument.underlying].spot_feed,
        "forward": option.forward_feed,
        "volatility": option.volatility_feed,
        "rate": option.rate_feed,
    }
    for what, feed in needed.items():
        if feed is not None and not marks.marks.is_usable[feed]:
            problem = f"{instrument.name}: no {what}, feed {rulebook.feeds[feed].name} has no mark"
            raise _refusal(path=path, problem=problem)


def _cost_basis(
    rulebook: CompiledRulebook,
    path: str,
    position: Mapping[str, Any],
    instrument: Instrument,
    size: int,
) -> int:
    """Return the cost basis a position is given with, or makes of its entry price."""
    given = [key for key in ("cost_basis", "entry_price") if key in position]
    if not given and instrument.option is not None and instrument.option.is_premium:
        return 0
    if len(given) != 1:
        raise _refusal(path=path, problem="either cost_basis or entry_price expected")
    asset = rulebook.assets[instrument.settles_in]
    if given == ["cost_basis"]:
        return _number(f"{path}.cost_basis", position["cost_basis"], asset.quantum_exponent)
    price = _number(f"{path}.entry_price", position["entry_price"], instrument.price_exponent)
    if price <= 0:
        raise _refusal(
            path=f"{path}.entry_price", problem=f"{position['entry_price']}: must be above 0"
        )
    cost = instrument.cost_of(size, price, asset.quantum_exponent)
    if abs(cost) > MAX_EXACT:
        problem = f"cost basis {cost} at 1e{asset.quantum_exponent}, at most 2**53"
        raise _refusal(path=f"{path}.entry_price", problem=problem)
    return cost


# -- reading loose input


def _refusal(*, path: str, problem: str) -> ContractError:
    return ContractError(f"{path}: {problem}", code=RejectCode.OUT_OF_CONTRACT)


def _checked(
    path: str, value: object, needed: Set[str], allowed: Set[str] = frozenset()
) -> Mapping[str, Any]:
    names = _mapping(path, value).keys()
    for name in sorted(needed - names):
        raise _refusal(path=path, problem=f"field {name!r} is missing")
    for name in sorted(names - needed - allowed):
        raise _refusal(path=path, problem=f"unknown field {name!r}")
    return _mapping(path, value)


def _mapping(path: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refusal(path=path, problem=f"{value!r:.80}: an object expected")
    return value


def _sequence(path: str, value: object) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise _refusal(path=path, problem=f"{value!r:.80}: a list expected")
    return value


def _named(path: str, name: object, known: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- what it names
    if not isinstance(name, str) or name not in known:
        shown = ", ".join(islice(known, _NAMES_SHOWN))
        more = f" or {len(known) - _NAMES_SHOWN} more" if len(known) > _NAMES_SHOWN else ""
        raise _refusal(path=path, problem=f"{name!r:.80}: one of {shown}{more} expected")
    return known[name]


def _text(path: str, text: object) -> str:
    if not isinstance(text, str):
        raise _refusal(path=path, problem=f"{text!r:.80}: a decimal string expected")
    return text


def _number(path: str, given: object, exponent: int, *, limit: int = MAX_EXACT) -> int:
    text = _text(path, given)
    try:
        value = parse_scaled(text, exponent)
    except ValueError as error:
        raise _refusal(path=path, problem=str(error)) from error
    if abs(value) > limit:
        most = f"2**{limit.bit_length() - 1}"
        raise _refusal(path=path, problem=f"{text}: at most {most} units of 1e{exponent}")
    return value


def _steps(path: str, given: object, instrument: Instrument) -> int:
    text = _text(path, given)
    try:
        size = instrument.lot.parse(text)
    except ValueError as error:
        raise _refusal(path=path, problem=str(error)) from error
    if abs(size) > MAX_EXACT:
        raise _refusal(
            path=path, problem=f"{text}: at most 2**53 lots of {instrument.lot.format(1)}"
        )
    return size
