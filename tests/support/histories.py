"""Histories that make every number move, for holding what tells numbers against each other.

Each is a venue's words in phases. What depends on the order of topics (funding, the rounding of
interest, whether a record comes before the snapshot that heals) is in phases of its own, so that it
is the same however topics are read, as long as a phase is read whole before the next. The last
phase repeats the last prices a minute later: every open offer is then made anew, at the last marks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from random import Random
from typing import Any

from solvent.domain.instrument import Instrument
from solvent.rules import CompiledRulebook, builtin_rulebook
from support.kinds import EXPIRES_US, FUNDED, SETTLING, a_kinds_rulebook, kinds_text
from support.margin import NOW_US
from support.venue import Produced, Quote, Venue

__all__ = ["BEGIN_US", "HISTORIES", "History", "Market", "traits"]

#: Event time at which histories begin.
BEGIN_US = NOW_US
#: Of offers, under all rulebooks here.
_TTL_US = 60_000_000


@dataclass(frozen=True, kw_only=True)
class History:
    """What a venue says under one rulebook.

    Attributes
    ----------
    name : str
        Of a rulebook that ships, or of the test's own.
    rulebook : CompiledRulebook
        What it is said under.
    text : str or None
        The rulebook as a file has it, where it does not ship.
    play : callable
        Says it: yields after each phase.
    sees : frozenset of str
        What at least two of its units have in the end, as `traits` calls it.
    asks : frozenset of str
        What its last offers are made of.
    over : frozenset of str
        Markets in which positions were settled.
    seed : int
        One under which it shows all that.
    """

    name: str
    rulebook: CompiledRulebook
    play: Callable[[Market], Iterator[str]]
    sees: frozenset[str]
    asks: frozenset[str]
    over: frozenset[str] = frozenset()
    seed: int = 11
    text: str | None = None

    def phases(self, venue: Venue) -> Iterator[tuple[str, list[Produced]]]:
        """Yield each phase's name and records."""
        for name in self.play(Market(venue, self.rulebook, Random(self.seed))):
            yield name, venue.take()


class Market:
    """Prices that walk, and accounts that trade at them."""

    def __init__(self, venue: Venue, rulebook: CompiledRulebook, chance: Random) -> None:
        self.venue = venue
        self.rulebook = rulebook
        self.chance = chance
        self.mids: dict[str, float] = {}
        self.states: dict[str, str] = {}
        self.sources = ("one",)
        self._told: dict[str, dict[str, Quote]] = {}

    def step(self, moves: Mapping[str, float] | None = None, *, spread: float = 0.002) -> None:
        """Move every price at random, or those of feeds that begin so by so much; tell all."""
        for feed in self.mids:
            told = (move for start, move in (moves or {}).items() if feed.startswith(start))
            self.mids[feed] *= 1 + next(told, self.chance.gauss(0, spread))
        self._told = {feed: self._quotes(feed) for feed in self.mids}
        self.venue.quotes(self._told, self.states)

    def repeat(self, *silent: str) -> None:
        """Tell the same again when every offer has expired, but of feeds that fall silent."""
        self.venue.ts_us += _TTL_US
        told = {feed: quotes for feed, quotes in self._told.items() if feed not in silent}
        self.venue.quotes(told, self.states)

    def _quotes(self, feed: str) -> dict[str, Quote]:
        places = -self.rulebook.feed_by_name[feed].exponent
        quotes = {}
        for source in self.sources:
            price = self.mids[feed] * self.chance.uniform(0.9998, 1.0002)
            width = price * self.chance.uniform(0, 0.001)
            quotes[source] = (f"{price:.{places}f}", f"{width:.{places}f}")
        return quotes

    # -- accounts

    def coins(self, asset: str, amount: float) -> str:
        """Return an amount of an asset as text."""
        return f"{amount:.{-self.rulebook.asset_by_name[asset].quantum_exponent}f}"

    def price_of(self, market: Instrument) -> float:
        """Return about what a market trades at."""
        if market.option is None:
            return self.mids[self.rulebook.feeds[market.mark_feed].name]
        forward = self.mids[self.rulebook.feeds[market.option.forward_feed].name]
        strike = float(market.option.strike)
        worth = forward - strike if market.option.is_call else strike - forward
        return max(worth, 0.0) + 0.1 * min(forward, strike)

    def trade(self, account: str, name: str, worth: float, book: str = "cross") -> None:
        """Trade so much notional, below 0 sold, near the present price."""
        market = self.rulebook.instrument_by_name[name]
        price = self.price_of(market) * self.chance.uniform(0.999, 1.001)
        coins = worth / price if market.face is None else worth / float(market.face.exact)
        lots = max(1, round(abs(coins) / float(market.lot.exact)))
        size = market.lot.format(lots if worth > 0 else -lots)
        ticks = max(1, round(price / float(market.tick.exact)))
        fee = f"{self.chance.randint(-50, 500) / 1000:.3f}"
        self.venue.trade(account, name, size, market.tick.format(ticks), book=book, fee=fee)

    def sides(self, name: str, worth: float) -> dict[str, Any]:
        """Return open orders of a market: so much bid for, half of it offered."""
        market = self.rulebook.instrument_by_name[name]
        price = self.price_of(market)
        lots = max(2, round(worth / price / float(market.lot.exact)))
        size = float(market.lot.exact) * lots
        return {
            "bid_size": market.lot.format(lots),
            "bid_value": f"{0.99 * price * size:.6f}",
            "ask_size": market.lot.format(lots // 2),
            "ask_value": f"{1.01 * price * (lots // 2) / lots * size:.6f}",
            "count": self.chance.randint(1, 9),
        }

    def heal(self, account: str) -> None:
        """State an account anew that is quarantined."""
        self.venue.snapshot(account, {self.rulebook.assets[0].name: "1234.5"}, ())


# -- lending, isolated books, cross margin


def _generations(market: Market) -> Iterator[str]:
    venue, chance = market.venue, market.chance
    market.sources = ("one", "two", "three")
    market.mids = {
        "BTC-PERP": 60_000.0,
        "ETH-PERP": 2_500.0,
        "SOL-PERP": 150.0,
        "BTC/USD": 60_000.0,
        "ETH/USD": 2_500.0,
        "ETH/USD-slow": 2_490.0,
        "wstETH/USD": 2_950.0,
    }
    perps = ("BTC-PERP", "ETH-PERP", "SOL-PERP")
    fall = {"BTC": -0.14, "ETH-PERP": -0.16, "ETH/USD-slow": -0.05, "ETH": -0.16, "SOL": -0.1}
    fall["wstETH"] = -0.15
    market.step()
    yield "first prices"
    for number in range(16):
        name = f"lender-{number}"
        venue.settle_on(name, "lender", {})
        ether, other = chance.uniform(1, 4), chance.choice(["wstETH", "BTC"])
        venue.move(name, "ETH", market.coins("ETH", ether))
        share = chance.uniform(0.6, 1.05)  # of what collateral counts at maintenance
        if number % 4 == 0:  # all of one category
            debt = ether * 2_500 * 0.94 / 2_950 * share
            venue.move(name, "wstETH", market.coins("wstETH", debt), kind="withdrawal")
            continue
        coins = 0.05 if other == "BTC" else 1.0
        venue.move(name, other, market.coins(other, coins))
        worth = ether * 2_500 * 0.81 + coins * market.mids[f"{other}/USD"] * 0.78
        venue.move(name, "USDC", market.coins("USDC", worth * share), kind="withdrawal")
    for number in range(14):
        name = f"isolated-{number}"
        venue.settle_on(name, "isolated", {"SOL-PERP": "7"} if number % 3 == 0 else {})
        for perp in chance.sample(perps, 1 + number % 2):
            notional = chance.choice([1, 1, -1]) * chance.uniform(2_000, 50_000)
            share = -fall[perp if perp == "ETH-PERP" else perp[:3]] + chance.uniform(-0.03, 0.12)
            margin = market.coins("USDC", abs(notional) * share)
            venue.move(name, "USDC", margin, kind="transfer_in", book=perp)
            market.trade(name, perp, notional, book=perp)
    for number in range(20):
        name = f"trader-{number}"
        if number % 5:
            venue.settle_on(name, "trader", {chance.choice(perps): str(chance.randint(2, 30))})
        notional = 1_500_000 if number == 7 else chance.uniform(10_000, 150_000)
        margin = notional * chance.uniform(0.1, 0.3)
        venue.move(name, "USDC", market.coins("USDC", margin * 0.6))
        asset = chance.choice(["BTC", "ETH", "wstETH"])
        coins = margin * 0.4 / market.mids[f"{asset}/USD"]
        venue.move(name, asset, market.coins(asset, coins))
        for perp in chance.sample(perps, chance.randint(1, 3)):
            market.trade(name, perp, notional * chance.choice([0.5, 0.8, -0.3]))
        for perp in chance.sample(perps, number % 3):
            venue.order(name, perp, market.sides(perp, notional * 0.1))
        if number % 6 == 0:
            venue.move(name, "USDC", "900", kind="transfer_in", book="SOL-PERP")
            market.trade(name, "SOL-PERP", -4_000, book="SOL-PERP")
            venue.order(name, "SOL-PERP", market.sides("SOL-PERP", 2_000), book="SOL-PERP")
    yield "accounts"
    for _ in range(4):
        market.step()
    yield "walk"
    for name in ("trader-1", "trader-2"):
        venue.spoil(name)
    for number in range(3, 20):
        market.trade(f"trader-{number}", chance.choice(perps), chance.uniform(-9_000, 9_000))
    yield "spoilt, trades"
    market.heal("trader-1")
    limits = {"BTC-PERP": "12.5", "ETH-PERP": "3"}
    venue.settle_on("trader-3", "trader", limits)
    venue.settle_on("trader-6", "trader", limits)  # has an isolated book beside
    held = [{"market": "ETH-PERP", "size": "12.5", "cost_basis": "31250.123456"}]
    orders = {perp: market.sides(perp, 9_000) for perp in perps[:2]}
    venue.snapshot("trader-4", {"USDC": "5150.5", "ETH": "0.25"}, held, orders)
    venue.snapshot("trader-9", {"USDC": "-51.25", "BTC": "1.5"}, held, leverage=limits)
    venue.snapshot("lender-3", {"ETH": "3", "USDC": "-5012.34"}, ())
    venue.snapshot("newcomer", {"ETH": "2", "USDC": "-3500"}, (), account_class="lender")
    yield "statements"
    for share in (0.3, 0.4, 0.3):
        market.step({feed: share * move for feed, move in fall.items()})
    yield "fall"
    market.repeat()
    yield "end"


# -- options


def _options(market: Market) -> Iterator[str]:
    venue, chance, rulebook = market.venue, market.chance, market.rulebook
    for feed in rulebook.feeds:
        if feed.is_state:
            market.states[feed.name] = _option_state(feed.name, 0.55)
        elif "USDC/USD" in feed.name or "USDT/USD" in feed.name:
            market.mids[feed.name] = 0.9995
        else:
            level = {"SOL": 150.0, "ETH": 2_500.0}.get(feed.name[:3], 100_000.0)
            market.mids[feed.name] = level * (1.02 if "28JUN" in feed.name else 1.0)
            market.mids[feed.name] *= 1.03 if "27DEC" in feed.name else 1.0
    market.step()
    yield "first prices"
    options = [i for i in rulebook.instruments if i.option is not None]
    perps = [i for i in rulebook.instruments if i.option is None]
    classes = list(rulebook.preset_by_class)
    for number in range(40):
        name = f"desk-{number}"
        limits = {chance.choice(perps).name: "8.5"} if number % 4 == 0 else {}
        venue.settle_on(name, classes[number % len(classes)], limits)
        venue.move(name, "USDC", market.coins("USDC", chance.uniform(8_000, 60_000)))
        if number % 3 == 0:
            venue.move(name, "BTC", market.coins("BTC", chance.uniform(0.05, 0.6)))
        if number % 13 == 0 and "ETH" in rulebook.asset_by_name:
            venue.move(name, "ETH", market.coins("ETH", chance.uniform(0.5, 2)))
        if number % 5 == 0 and "USDT" in rulebook.asset_by_name:
            venue.move(name, "USDT", market.coins("USDT", chance.uniform(500, 9_000)))
        for option in chance.sample(options, chance.randint(1, 4)):
            coins = chance.choice([-1.0, -0.6, 0.4, 1.0]) * chance.uniform(0.2, 1.2)
            market.trade(name, option.name, coins * market.price_of(option))
        if number % 2:
            perp = perps[-1 if number % 8 == 1 else 0]
            market.trade(name, perp.name, chance.uniform(-90_000, 90_000))
            venue.order(name, perp.name, market.sides(perp.name, 20_000))
        option = chance.choice(options)
        venue.order(name, option.name, market.sides(option.name, 5_000))
    yield "accounts"
    for _ in range(3):
        market.step()
    yield "walk"
    for name in ("desk-1", "desk-2"):
        venue.spoil(name)
    yield "spoilt"
    market.heal("desk-1")
    short = {"market": options[4].name, "size": "-0.35", "cost_basis": "0"}
    long = {"market": perps[0].name, "size": "0.25", "cost_basis": "25012.345678"}
    orders = {perps[0].name: market.sides(perps[0].name, 8_000)}
    venue.snapshot("desk-3", {"USDC": "21000.5", "BTC": "0.125"}, (short, long), orders)
    venue.snapshot("newcomer", {"USDC": "60000"}, (short,), account_class=classes[-1])
    yield "statements"
    for name in market.states:
        market.states[name] = _option_state(name, 0.78)
    for _ in range(2):
        market.step({"BTC": 0.07, "SOL": -0.06})
    yield "rise"
    # collateral that nobody prices counts nothing, and a position cannot be judged
    market.repeat("ETH/USDC", "SOL_USDC-PERPETUAL")
    yield "end"


def _option_state(name: str, volatility: float) -> str:
    if name.endswith("/iv"):
        strike = float(name.removesuffix("/iv").rpartition("-")[2])
        return f"{volatility + 0.1 * abs(strike / 100_000 - 1):.6f}"
    if name.endswith("/rate"):
        return "0.041"
    return "0.5" if "27DEC" in name else "0.97"  # quality, of which 0.55 is enough


# -- every kind of contract: funding, inverse, dated, settled; balances that bear interest


def _kinds(market: Market) -> Iterator[str]:
    venue, chance = market.venue, market.chance
    market.mids = {"BTC": 100.0, "USDT": 0.9998}
    indices = {"BTC/iv": "0.6", **dict.fromkeys(sorted(set(FUNDED.values())), "0")}
    market.states = indices | {
        f"{asset}/{side}": "1"
        for asset in ("USDC", "USDT", "BTC")
        for side in ("deposit", "borrow")
    }
    names = [instrument.name for instrument in market.rulebook.instruments]
    for number in range(4):  # before any mark is known: their funding index is 0 as well
        venue.move(f"early-{number}", "USDC", "900.000001")
        venue.trade(f"early-{number}", "BTC-PERP", f"{number - 1.5:.3f}", "100")
    yield "early birds"
    market.step()
    yield "first prices"
    for number in range(36):
        name = f"desk-{number}"
        venue.settle_on(name, "trader", {"BTC-PERP": "4"} if number % 6 == 0 else {})
        for asset in chance.sample(["USDC", "USDT", "BTC"], 2):
            worth = chance.uniform(100, 900) * (0.01 if asset == "BTC" else 1)
            venue.move(name, asset, market.coins(asset, worth))
        owed = chance.choice(["USDC", "USDT", "BTC"])
        worth = chance.uniform(10, 120) * (0.01 if owed == "BTC" else 1)
        venue.move(name, owed, market.coins(owed, worth), kind="withdrawal")
        for contract in chance.sample(names, 3):
            market.trade(name, contract, chance.choice([1, -1]) * chance.uniform(200, 3_500))
        if number % 4 == 0:
            venue.order(name, "BTC-PLAIN", market.sides("BTC-PLAIN", 300))
        if number % 7 == 0:
            venue.move(name, "USDC", "60", kind="transfer_in", book="BTC-PERP")
            market.trade(name, "BTC-PERP", 120, book="BTC-PERP")
    yield "accounts"
    for growth in (1.0731, 1.19):
        _accrue(market, growth)
        market.step()
    yield "walk"
    for name in ("desk-1", "desk-2"):
        venue.spoil(name)
    for number in range(3, 36):  # fills that pay funding, then moves at the indices of now
        market.trade(f"desk-{number}", chance.choice(names), chance.uniform(-90, 90))
    yield "trades"
    for number in range(3, 36):
        asset = chance.choice(["USDC", "USDT", "BTC"])
        worth = chance.uniform(5, 30) * (0.01 if asset == "BTC" else 1)
        kind = chance.choice(["deposit", "withdrawal"])
        venue.move(f"desk-{number}", asset, market.coins(asset, worth), kind=kind)
    yield "moves"
    market.heal("desk-1")
    paid = {"market": "BTC-PERP", "size": "1.2", "cost_basis": "123.4"}
    venue.snapshot(
        "desk-3",
        {"USDC": "87.654321", "USDT": "-3.000007", "BTC": "0.00000007"},
        ({**paid, "funding_index": "0.123456789012"}, {**paid, "market": "BTC-TETHER"}),
    )
    far = {"market": "BTC-INVERSE", "size": "-3", "cost_basis": "-0.2"}
    venue.snapshot("newcomer", {"BTC": "1.0000001"}, ({**far, "funding_index": "-12000.25"},))
    yield "statements"
    _accrue(market, 1.31)
    market.step({"BTC": -0.03})
    yield "interest"
    venue.ts_us = EXPIRES_US
    market.step()
    for name in SETTLING:
        venue.settle(name, "96.5")
    yield "expiry"
    market.step({"BTC": -0.1})
    yield "fall"
    market.repeat()
    yield "end"


def _accrue(market: Market, growth: float) -> None:
    """Let interest grow to so much and funding be paid by longs, by shorts where it is inverse."""
    for name in market.states:
        if name.endswith("/deposit"):
            market.states[name] = f"{1 + (growth - 1) * 0.7:.18f}"
        elif name.endswith("/borrow"):
            market.states[name] = f"{growth:.18f}"
        elif name.endswith("/funding"):
            sign = -1 if "INVERSE" in name else 1
            market.states[name] = f"{sign * (growth - 1) * 0.00123456789:.12f}"


# -- lending by indices


def _pool(market: Market) -> Iterator[str]:
    venue, chance = market.venue, market.chance
    market.mids = {"WETH/USD": 2_500.0, "wstETH/USD": 2_950.0, "WBTC/USD": 60_000.0}
    market.mids |= {"USDC/USD": 0.9999, "DAI/USD": 0.9997, "LINK/USD": 14.0}
    for feed in market.rulebook.feeds:
        if feed.is_state:
            market.states[feed.name] = "1"
    assets = [name.removesuffix("/USD") for name in market.mids]
    market.step()
    yield "first prices"
    for number in range(30):
        name = f"pool-{number}"
        held = chance.sample(["WETH", "wstETH", "WBTC", "LINK"], chance.randint(1, 3))
        worth = 0.0
        for asset in held:
            value = chance.uniform(2_000, 20_000)
            worth += value * (0.5 if asset == "LINK" else 0.72)
            venue.move(name, asset, market.coins(asset, value / market.mids[f"{asset}/USD"]))
        owed = chance.choice([asset for asset in assets if asset not in held])
        debt = worth * chance.uniform(0.6, 1.15) / market.mids[f"{owed}/USD"]
        venue.move(name, owed, market.coins(owed, debt), kind="withdrawal")
    yield "accounts"
    for growth in (1.0123, 1.0345678):
        for name in market.states:
            rate = 0.6 if "deposit" in name else 1.0
            market.states[name] = f"{1 + (growth - 1) * rate:.18f}"
        market.step()
    yield "walk"
    for name in ("pool-1", "pool-2"):
        venue.spoil(name)
    for number in range(3, 30):
        asset = chance.choice(assets)
        coins = chance.uniform(10, 500) / market.mids[f"{asset}/USD"]
        kind = chance.choice(["deposit", "withdrawal"])
        venue.move(f"pool-{number}", asset, market.coins(asset, coins), kind=kind)
    yield "spoilt, moves"
    market.heal("pool-1")
    venue.snapshot("pool-3", {"WETH": "3.000000007", "USDC": "-5012.345677"}, ())
    yield "statements"
    market.step({"WETH": -0.1, "wstETH": -0.11, "WBTC": -0.05, "LINK": -0.15})
    yield "fall"
    market.repeat()
    yield "end"


def traits(units: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Return how many of units, as ``accounts list`` shows them, have what."""
    found: Counter[str] = Counter()
    for unit in units:
        held, orders = unit["positions"], unit["orders"]
        has = {
            unit["preset"]: True,
            unit["verdict"]: True,
            "isolated": unit["subaccount"] != "cross",
            "orders": any(told["count"] for told in orders),
            "limits": any(told["leverage"] for told in orders),
            "debt": any(told["amount"].startswith("-") for told in unit["collateral"]),
            "several assets": len(unit["collateral"]) > 1,
            "several positions": len(held) > 1,
            "groups": bool(unit.get("groups")),
            "options": any(told["mark_price"] is None for told in held),
            "funding paid": any(told.get("funding_index", "0") != "0" for told in held),
            "funding never paid": any(told.get("funding_index") == "0" for told in held),
            "liquidation prices": any(told.get("liquidation_price") for told in held),
            "bankruptcy prices": any(told.get("bankruptcy_price") for told in held),
        }
        found.update(name for name, is_so in has.items() if is_so)
    return found


_VERDICTS = {"healthy", "margin_call", "liquidatable"}
_PRICES = {"liquidation prices", "bankruptcy prices", "several positions"}
_BOOKS = {"orders", "limits", "several assets"}


def _shipped(
    name: str,
    play: Callable[[Market], Iterator[str]],
    sees: Set[str],
    asks: Set[str],
    seed: int = 11,
) -> History:
    rulebook = builtin_rulebook(name)
    presets = {policy.name for policy in rulebook.policies}
    return History(
        name=name,
        rulebook=rulebook,
        play=play,
        sees=frozenset(_VERDICTS | presets | sees),
        asks=frozenset(asks),
        seed=seed,
    )


def _of_kinds() -> History:
    sees = _VERDICTS | _PRICES | _BOOKS | {"whole", "bankrupt", "isolated", "debt"}
    return History(
        name="kinds",
        rulebook=a_kinds_rulebook(has_interest=True),
        text=kinds_text(has_interest=True),
        play=_kinds,
        sees=frozenset(sees | {"funding paid", "funding never paid"}),
        asks=frozenset({"legs"}),
        over=frozenset(SETTLING),
    )


_OF_OPTIONS = _PRICES | _BOOKS | {"bankrupt", "options", "groups"}
#: By name, each made when it is asked for.
HISTORIES: dict[str, Callable[[], History]] = {
    "generations": lambda: _shipped(
        "generations",
        _generations,
        _PRICES | _BOOKS | {"bankrupt", "isolated", "debt"},
        {"legs", "swaps"},
    ),
    "derive-pmrm2": lambda: _shipped("derive-pmrm2", _options, _OF_OPTIONS, {"legs", "share_ppm"}),
    "deribit": lambda: _shipped("deribit", _options, _OF_OPTIONS | {"unknown"}, {"legs"}, seed=19),
    "aave-v3": lambda: _shipped("aave-v3", _pool, {"debt", "several assets"}, {"swaps"}),
    "kinds": _of_kinds,
}
