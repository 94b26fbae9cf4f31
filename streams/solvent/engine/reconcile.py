"""Snapshots held against the account table: every amount in which the two differ.

A venue says what it believes of its margin units, in the form of ``account-snapshots.v1``; here it
is compared, exactly, with the state of a shard. Only what a snapshot says is compared: its
balances, positions and orders are all there are; class, limits and sequences count where it tells
them. Amounts are decimal text, as on the wire; "0" is what is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from solvent.engine.describe import PICO_EXPONENT, money_text
from solvent.engine.margin import MarginShard
from solvent.engine.statements import Snapshot
from solvent.kernel import blocks
from solvent.kernel.layout import CROSS, NONE
from solvent.state.columns import Order
from solvent.units import format_scaled

__all__ = ["Difference", "differences"]

_LEVERAGE_EXPONENT = -6


class Difference(NamedTuple):
    """One thing that snapshot and table say differently.

    Attributes
    ----------
    what : str
        ``collateral.USDC``, ``positions.BTC-PERP.size``, ``trades_seq``; ``unit`` where the table
        has none.
    snapshot, table : str
        What each says.
    """

    account_id: str
    subaccount: str
    what: str
    snapshot: str
    table: str


def differences(
    shards: Iterable[MarginShard], account_id: str, subaccount: str, snapshot: Snapshot
) -> list[Difference]:
    """Return in what a unit's snapshot differs from the table, in the order of its fields.

    Parameters
    ----------
    shards : iterable of MarginShard
        One of them may hold the account.
    account_id, subaccount : str
        The unit's names.
    snapshot : Snapshot
        As resolved under the shards' rulebook.
    """
    for shard in shards:
        account = shard.columns.index_of(account_id)
        if account != NONE:
            found = _compare(shard, account, snapshot)
            return [Difference(account_id, subaccount, *told) for told in found]
    return [Difference(account_id, subaccount, "account", "known", "unknown")]


def _compare(
    shard: MarginShard, account: int, snapshot: Snapshot
) -> Iterator[tuple[str, str, str]]:
    columns, rulebook = shard.columns, shard.rulebook
    unit = int(blocks.find_unit(columns.accounts, columns.units, account, snapshot.book))
    balances: Mapping[int, int] = {}
    positions: Mapping[int, tuple[int, int, int]] = {}
    orders: Mapping[int, Order] = {}
    if unit != NONE:
        balances = {
            asset: shard.marks.unscaled(rulebook.assets[asset], quanta)
            for asset, quanta in columns.balances_of(unit)
        }
        positions = {
            held[0]: (held[1], held[2], index)
            for held, index in zip(
                columns.positions_of(unit), columns.funding_of(unit), strict=True
            )
        }
        orders = {order.instrument: order for order in columns.orders_of(unit)}
    elif snapshot.balances or snapshot.positions or snapshot.orders:
        yield "unit", "known", "unknown"
    if snapshot.preset is not None:
        names = [rulebook.policies[p].name for p in (snapshot.preset, _preset(shard, account))]
        yield from _unequal("preset", *names)
    yield from _limits(shard, account, snapshot)
    for index in sorted({*snapshot.balances, *balances}):
        asset = rulebook.assets[index]
        both = [
            format_scaled(held.get(index, 0), asset.quantum_exponent)
            for held in (snapshot.balances, balances)
        ]
        yield from _unequal(f"collateral.{asset.name}", *both)
    for index in sorted({*snapshot.positions, *positions}):
        market, lot = rulebook.instruments[index].name, rulebook.instruments[index].lot
        size, cost, stated = snapshot.positions.get(index, (0, 0, None))
        held, paid, known_index = positions.get(index, (0, 0, 0))
        quantum = rulebook.assets[rulebook.instruments[index].settles_in].quantum_exponent
        yield from _unequal(f"positions.{market}.size", lot.format(size), lot.format(held))
        both = [format_scaled(amount, quantum) for amount in (cost, paid)]
        yield from _unequal(f"positions.{market}.cost_basis", *both)
        if stated is not None:
            both = [format_scaled(picos, PICO_EXPONENT) for picos in (stated, known_index)]
            yield from _unequal(f"positions.{market}.funding_index", *both)
    for index in sorted({*snapshot.orders, *orders}):
        told, known = (_order_texts(shard, index, o.get(index)) for o in (snapshot.orders, orders))
        for name, text in told.items():
            yield from _unequal(
                f"orders.{rulebook.instruments[index].name}.{name}", text, known[name]
            )
    for name, seq in snapshot.sequences.items():
        last = int(getattr(columns.accounts, name)[account])
        yield from _unequal(name, str(seq), "none" if last == NONE else str(last))


def _limits(shard: MarginShard, account: int, snapshot: Snapshot) -> Iterator[tuple[str, str, str]]:
    """Compare leverage limits, which are the account's and lie with its cross book."""
    if snapshot.leverage_ppm is None:
        return
    columns = shard.columns
    cross = int(blocks.find_unit(columns.accounts, columns.units, account, CROSS))
    known = {}
    if cross != NONE:
        known = {o.instrument: o.leverage_ppm for o in columns.orders_of(cross)}
    for index in sorted({*snapshot.leverage_ppm, *known}):
        both = [limits.get(index, 0) for limits in (snapshot.leverage_ppm, known)]
        told, held = (format_scaled(limit, _LEVERAGE_EXPONENT) for limit in both)
        yield from _unequal(f"leverage.{shard.rulebook.instruments[index].name}", told, held)


def _preset(shard: MarginShard, account: int) -> int:
    return int(shard.columns.accounts.preset[account])


def _order_texts(shard: MarginShard, index: int, order: Order | None) -> dict[str, str]:
    lot = shard.rulebook.instruments[index].lot
    order = order or Order(index, 0, 0, 0, 0, 0, 0)
    return {
        "bid_size": lot.format(order.bid_lots),
        "bid_value": money_text(order.bid_value_micros),
        "ask_size": lot.format(order.ask_lots),
        "ask_value": money_text(order.ask_value_micros),
        "count": str(order.order_count),
    }


def _unequal(what: str, snapshot: str, table: str) -> Iterator[tuple[str, str, str]]:
    if snapshot != table:
        yield what, snapshot, table
