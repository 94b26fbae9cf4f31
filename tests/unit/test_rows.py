"""Packed account rows against a reference packer that follows the published table."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from solvent.engine.rows import Rows
from solvent.errors import PartitionError
from solvent.kernel.layout import COUNT_POSITION_WASTE
from solvent.state.columns import Columns
from solvent.state.rows import encode_rows
from support.margin import Log, Replay, a_rulebook, a_trade, ledger_of
from support.table import load_rows


def reference_row(columns: Columns, account: int) -> bytes:
    """Pack one account field by field, as schemas/accounts/ROW.md says."""
    ids = [instrument.id for instrument in a_rulebook().instruments]
    accounts, units, cases = columns.accounts, columns.units, columns.cases
    body = b""
    chain = list(columns.units_of(account))
    for unit in chain:
        positions, balances = columns.positions_of(unit), columns.balances_of(unit)
        book = int(units.book[unit])
        body += struct.pack(
            "<iBBBBIHHqqqqqq",
            -1 if book < 0 else ids[book],
            units.status[unit],
            units.previous_status[unit],
            units.case_verdict[unit],
            0,
            units.flags[unit],
            len(positions),
            len(balances),
            units.episode[unit],
            units.revision[unit],
            units.case_expires_us[unit],
            cases.notional_micros[unit],
            cases.fills[unit],
            units.touched_us[unit],
        )
        for asset, quanta in balances:
            body += struct.pack("<iq", asset, quanta)
        for instrument, size, cost in positions:
            body += struct.pack("<iqq", ids[instrument], size, cost)
    return (
        struct.pack(
            "<BBHqq",
            1,
            accounts.quarantined[account],
            len(chain),
            accounts.trades_seq[account],
            accounts.collateral_seq[account],
        )
        + body
    )


def a_busy_state() -> Replay:
    log = Log().move(amount="100").trade(size="4", price="100").move(asset="ETHER", amount="0.5")
    log.trade(market="ETH-PERP", side="sell", size="1", price="50", seq=17)
    log.trade("bob", subaccount="ETH-PERP", market="ETH-PERP", size="2", price="49")
    log.trade("bob", subaccount="BTC-PERP", side="sell", size="1").move("bob", kind="withdrawal")
    log.marks({"BTC": "76", "ETH": "50", "ODD": "1"}).add("trades.v1", b"{", b"carol")
    log.trade(side="sell", size="0.5", price="76", liquidation_id="alice:cross:1")
    return Replay().run(log)


def test_rows_of_busy_state_equal_reference_packer() -> None:
    replay = a_busy_state()
    columns = replay.shard.columns
    for account, key in enumerate(map(str.encode, columns.account_ids)):
        assert replay.table[key] == reference_row(columns, account)
    assert int(columns.cases.fills[0]) == 1


def test_rows_decoded_in_bulk_give_the_same_columns() -> None:
    replay = a_busy_state()
    before = ledger_of(replay.shard)
    replay.restore()
    assert ledger_of(replay.shard) == before
    columns = replay.shard.columns
    for account, key in enumerate(map(str.encode, columns.account_ids)):
        assert reference_row(columns, account) == replay.table[key]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        pytest.param(b"", "size", id="empty"),
        pytest.param(b"\x03" + bytes(19), "version", id="another version"),
        pytest.param(b"\x01" + bytes(20), "size", id="a byte too many"),
        pytest.param(b"\x01\x00\x01" + bytes(17), "size", id="unit missing"),
        pytest.param(
            struct.pack("<BBHqq", 1, 0, 1, 0, 0) + struct.pack("<i", 99) + bytes(60),
            "instrument",
            id="unknown instrument",
        ),
        pytest.param(
            struct.pack("<BBHqq", 1, 0, 1, 0, 0)
            + struct.pack("<iIIHH", -1, 0, 0, 0, 1)
            + bytes(48)
            + struct.pack("<iq", 77, 1),
            "asset",
            id="unknown asset",
        ),
    ],
)
def test_row_that_cannot_be_read_stops_the_partition(row: bytes, problem: str) -> None:
    ids = np.array([instrument.id for instrument in a_rulebook().instruments], np.int64)
    with pytest.raises(PartitionError, match=f"account alice: unusable {problem}"):
        load_rows(Columns(), {b"alice": row}, instrument_ids=ids, asset_count=3)


def test_columns_grow_and_pack_without_losing_a_position() -> None:
    replay = Replay()
    markets = ("ODD-PERP", "BTC-PERP", "ETH-PERP")
    log = Log()
    for number in range(400):  # three positions and a balance each: blocks move, arenas double
        for market in markets:
            log.trade(f"acct-{number}", market=market, size="1", price=str(1 + number % 50))
    replay.run(log)
    columns = replay.shard.columns
    before = ledger_of(replay.shard)
    assert len(before) == 400
    assert columns.counts[COUNT_POSITION_WASTE] > 0
    rows = Rows(*encode_rows(columns, np.arange(400), np.array([3, 7, 12], np.int64)))
    columns._pack_positions()
    columns._pack_balances()
    columns._pack_orders()
    assert columns.counts[COUNT_POSITION_WASTE] == 0
    assert ledger_of(replay.shard) == before
    again = Rows(*encode_rows(columns, np.arange(400), np.array([3, 7, 12], np.int64)))
    assert list(again) == list(rows)
    replay.run(Log().add("trades.v1", a_trade("more", "acct-0", price="3"), b"acct-0"))
    assert ledger_of(replay.shard)["acct-0"][2]["cross"][0]["BTC-PERP"] == (4, 4_000_000)
