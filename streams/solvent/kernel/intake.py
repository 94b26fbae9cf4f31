"""From a run's bytes to batches the ledger can fold, record by record and without an object.

Reading (`read_trades`, `read_moves`) is a function of the record and the rulebook alone: texts
become exact integers, names indices. Resolving (`resolve`) goes over the records in order: repeated
ids, record keys, accounts. `solvent.engine.intake` says which check comes when; it also looks at
what these kernels leave to the strict decoders, and names what is wrong.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, get_type_hints

import numba
import numpy as np
from numba import types
from numba.extending import register_jitable

from solvent.kernel.blocks import add_account
from solvent.kernel.decimals import FAULT_NONE, parse_decimal
from solvent.kernel.jit import jit
from solvent.kernel.layout import (
    CROSS,
    NONE,
    OUTCOME_DUPLICATE,
    OUTCOME_NONE,
    OUTCOME_QUARANTINE,
    OUTCOME_REJECTED,
    Accounts,
    Int32,
    Int64,
    Moves,
    Trades,
    UInt8,
)
from solvent.kernel.names import (
    NO_PART,
    NameTable,
    add_name,
    find_name,
    hash_name,
    name_table,
    prefetch_place,
    prefetch_slot,
    prefetch_text,
    same_bytes,
)
from solvent.kernel.objects import (
    DECIMAL,
    IDENTIFIER,
    INTEGER,
    LINK,
    Contract,
    contract,
    scan_object,
)
from solvent.kernel.tables import example_table

__all__ = [
    "MOVE_CONTRACT",
    "READ_FAULTY",
    "READ_GOOD",
    "READ_NOT",
    "READ_UNDECODABLE",
    "REJECTED_UNDECODABLE",
    "REJECTED_WRONG_KEY",
    "TRADE_CONTRACT",
    "Heads",
    "Steps",
    "Window",
    "enter_window_jit",
    "new_heads",
    "read_moves_jit",
    "read_moves_reference",
    "read_trades_jit",
    "read_trades_reference",
    "resolve_jit",
    "resolve_reference",
    "warm_up",
]

# -- what reading made of a record
READ_GOOD: Final = 0
READ_FAULTY: Final = 1  # decodes, but a name, number or time does not hold
READ_NOT: Final = 2  # for the decoder to say
READ_UNDECODABLE: Final = 3  # the decoder said no

# -- reasons of a reject beside `OUTCOME_REJECTED`, which is a faulty record
REJECTED_UNDECODABLE: Final = OUTCOME_REJECTED + 1
REJECTED_WRONG_KEY: Final = OUTCOME_REJECTED + 2

#: A subaccount that is neither cross nor a market.
_NO_BOOK: Final = -2

_MS_US: Final = 1_000
_MAX_MS: Final = 2**53

(
    _VERSION,
    _ID,
    _ACCOUNT,
    _SUBACCOUNT,
    _MARKET,
    _SIDE,
    _SIZE,
    _PRICE,
    _FEE,
    _SEQ,
    _LIQUIDATION_ID,
    _CLAIM_TOKEN,
    _TS,
) = range(13)
#: Fields of ``trades.v1`` in the order `encode_trade` of `solvent.wire.inputs` writes them. The
#: token of a claim is read again from the record where a fill is held against its case.
TRADE_CONTRACT: Final = contract(
    [
        ("schema_version", INTEGER, True),
        ("trade_id", IDENTIFIER, True),
        ("account_id", IDENTIFIER, True),
        ("subaccount", IDENTIFIER, True),
        ("market", IDENTIFIER, True),
        ("side", IDENTIFIER, True),
        ("size", DECIMAL, True),
        ("price", DECIMAL, True),
        ("fee", DECIMAL, True),
        ("seq", INTEGER, False),
        ("liquidation_id", LINK, False),
        ("claim_token", INTEGER, False),
        ("ts_us", INTEGER, True),
    ]
)

# The first four fields are those of trades.
_ASSET, _KIND, _AMOUNT, _MOVE_SEQ, _TRANSFER_ID, _MOVE_TS = range(4, 10)
#: Fields of ``collateral.v1`` in the order `encode_collateral_move` writes them.
MOVE_CONTRACT: Final = contract(
    [
        ("schema_version", INTEGER, True),
        ("move_id", IDENTIFIER, True),
        ("account_id", IDENTIFIER, True),
        ("subaccount", IDENTIFIER, True),
        ("asset", IDENTIFIER, True),
        ("kind", IDENTIFIER, True),
        ("amount", DECIMAL, True),
        ("seq", INTEGER, False),
        ("transfer_id", IDENTIFIER, False),
        ("ts_us", INTEGER, True),
    ]
)

#: Words of ``side`` and of ``kind``, by the index `read_trades` and `read_moves` expect.
SIDES: Final = ("buy", "sell")
KINDS: Final = ("deposit", "transfer_in", "withdrawal", "transfer_out", "adjustment")
_SELL: Final = 1
_FIRST_OUTFLOW: Final = 2
_ADJUSTMENT: Final = 4

#: Records between asking for a name's slot, its place, its text, and looking it up.
_STRIDE: Final = 4

_COLON: Final = 58
_ZERO: Final = 48


class Steps(NamedTuple):
    """How a decimal text becomes steps, by market or asset, int64.

    It is read as ``n * 10**-places``, and ``n`` must be a multiple of ``step``.
    """

    places: Int64
    step: Int64


class Vocabulary(NamedTuple):
    """The names a topic's records may use, each at its index.

    ``words`` are `SIDES` or `KINDS`, ``books`` cross and then the markets, ``items`` the markets or
    the assets.
    """

    words: NameTable
    books: NameTable
    items: NameTable


class Heads(NamedTuple):
    """What trades and moves have in common, one row a record, shape (n,).

    ``state`` uint8, a ``READ_…``; ``account_first``, ``id_first`` int64 and ``account_size``,
    ``id_size`` int32, where the record names its account (size -1: it does not) and itself.
    """

    state: UInt8
    account_first: Int64
    account_size: Int32
    id_first: Int64
    id_size: Int32


class Window(NamedTuple):
    """Ids seen lately: two generations of names ``account:id`` with the offset each was last at."""

    newer: NameTable
    newer_offset: Int64
    older: NameTable
    older_offset: Int64


def new_heads(count: int) -> Heads:
    """Return heads for so many records."""
    return Heads(
        state=np.empty(count, np.uint8),
        account_first=np.empty(count, np.int64),
        account_size=np.empty(count, np.int32),
        id_first=np.empty(count, np.int64),
        id_size=np.empty(count, np.int32),
    )


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _is_late(ts_us: int, timestamp_ms: int, horizon_us: int) -> bool:
    """Return whether an event time lies beyond its Kafka record time and the skew allowed."""
    if timestamp_ms > _MAX_MS:
        return False  # beyond every event time
    if timestamp_ms < -_MAX_MS:
        return True
    return ts_us > timestamp_ms * _MS_US + horizon_us


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _name_index(table: NameTable, data: UInt8, first: int, size: int) -> int:
    hashed = hash_name(data, first, size, 0, NO_PART)
    return int(find_name(table, hashed, data, first, size, 0, NO_PART))


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _read_steps(data: UInt8, first: int, size: int, places: int, step: int) -> tuple[int, bool]:
    """Return the steps a decimal text stands for, and whether it stands for any."""
    value, fault = parse_decimal(data, first, first + size, places)
    if fault != FAULT_NONE or value % step != 0:
        return 0, False
    return value // step, True


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _part_end(data: UInt8, first: int, last: int) -> int:
    """Return the end of the identifier that begins at a place, `NONE` if it is too long or none."""
    at = first
    while at < last and data[at] != _COLON:
        at += 1
    return at if 1 <= at - first <= 64 else NONE


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _case_episode(
    data: UInt8,
    first: int,
    size: int,
    account_first: int,
    account_size: int,
    book_first: int,
    book_size: int,
) -> tuple[int, bool]:
    """Return the episode of ``account:subaccount:episode`` and whether the text is of that form.

    The episode is `NONE` if the offer is not this unit's.
    """
    last = first + size
    account_end = _part_end(data, first, last)
    if account_end in (NONE, last):
        return NONE, False
    book_end = _part_end(data, account_end + 1, last)
    if book_end in (NONE, last):
        return NONE, False
    digits = last - book_end - 1
    if digits < 1 or digits > 16 or data[book_end + 1] == _ZERO:
        return NONE, False
    episode = 0
    for at in range(book_end + 1, last):
        digit = int(data[at]) - _ZERO
        if digit < 0 or digit > 9:
            return NONE, False
        episode = episode * 10 + digit
    is_ours = (
        account_end - first == account_size
        and book_end - account_end - 1 == book_size
        and same_bytes(data, first, data, account_first, account_size)
        and same_bytes(data, account_end + 1, data, book_first, book_size)
    )
    return (episode if is_ours else NONE), True


def read_trades_reference(
    data: UInt8,
    value_first: Int64,
    value_size: Int32,
    timestamp_ms: Int64,
    fields: Contract,
    vocabulary: Vocabulary,
    lots: Steps,
    ticks: Steps,
    fee_places: Int64,
    horizon_us: int,
    part_first: Int64,
    part_size: Int64,
    heads: Heads,
    trades: Trades,
) -> int:
    """Read the trades of a run, each for itself.

    Parameters
    ----------
    data, value_first, value_size, timestamp_ms
        Columns of `solvent.engine.run.Run`.
    fields : Contract
        `TRADE_CONTRACT`.
    lots, ticks : Steps
        By market, of ``size`` and ``price``.
    fee_places : int64, shape (I,)
        Decimal places of a fee by market: those of the asset it settles in.
    horizon_us : int
        How far ``ts_us`` may lie beyond the record time.
    part_first, part_size : int64, shape (F,)
        Room to work in.
    heads, trades : Heads, Trades
        Written; of a trade that is not good only `heads` means something.

    Returns
    -------
    int
        How many are left to the decoder (`READ_NOT`).
    """
    left = 0
    for k in range(value_size.size):
        first = int(value_first[k])
        is_read = value_size[k] > 0 and scan_object(
            data, first, first + int(value_size[k]), fields, part_first, part_size
        )
        side = NONE
        episode = NONE
        if is_read:
            is_read = part_first[_VERSION] == 1
            side = _name_index(
                vocabulary.words, data, int(part_first[_SIDE]), int(part_size[_SIDE])
            )
        if is_read and part_size[_LIQUIDATION_ID] > 0:
            episode, is_read = _case_episode(
                data,
                int(part_first[_LIQUIDATION_ID]),
                int(part_size[_LIQUIDATION_ID]),
                int(part_first[_ACCOUNT]),
                int(part_size[_ACCOUNT]),
                int(part_first[_SUBACCOUNT]),
                int(part_size[_SUBACCOUNT]),
            )
        if not is_read or side == NONE:
            heads.state[k] = READ_NOT
            left += 1
            continue
        heads.account_first[k] = part_first[_ACCOUNT]
        heads.account_size[k] = part_size[_ACCOUNT]
        heads.id_first[k] = part_first[_ID]
        heads.id_size[k] = part_size[_ID]
        trades.seq[k] = part_first[_SEQ] if part_size[_SEQ] > 0 else NONE
        heads.state[k] = READ_FAULTY
        market = _name_index(
            vocabulary.items, data, int(part_first[_MARKET]), int(part_size[_MARKET])
        )
        book = (
            _name_index(
                vocabulary.books, data, int(part_first[_SUBACCOUNT]), int(part_size[_SUBACCOUNT])
            )
            - 1
        )
        if market == NONE or (book != CROSS and book != market):
            continue
        ts_us = int(part_first[_TS])
        if _is_late(ts_us, int(timestamp_ms[k]), horizon_us):
            continue
        size_lots, is_size = _read_steps(
            data,
            int(part_first[_SIZE]),
            int(part_size[_SIZE]),
            int(lots.places[market]),
            int(lots.step[market]),
        )
        price_ticks, is_price = _read_steps(
            data,
            int(part_first[_PRICE]),
            int(part_size[_PRICE]),
            int(ticks.places[market]),
            int(ticks.step[market]),
        )
        fee_micros, is_fee = _read_steps(
            data, int(part_first[_FEE]), int(part_size[_FEE]), int(fee_places[market]), 1
        )
        if not (is_size and is_price and is_fee) or size_lots <= 0 or price_ticks <= 0:
            continue
        heads.state[k] = READ_GOOD
        trades.book[k] = book
        trades.instrument[k] = market
        trades.lots[k] = -size_lots if side == _SELL else size_lots
        trades.price_ticks[k] = price_ticks
        trades.fee_micros[k] = fee_micros
        trades.ts_us[k] = ts_us
        trades.case_episode[k] = episode
    return left


def read_moves_reference(
    data: UInt8,
    value_first: Int64,
    value_size: Int32,
    timestamp_ms: Int64,
    fields: Contract,
    vocabulary: Vocabulary,
    quanta: Steps,
    horizon_us: int,
    part_first: Int64,
    part_size: Int64,
    heads: Heads,
    moves: Moves,
) -> int:
    """Read the collateral moves of a run, each for itself; as `read_trades`.

    `fields` is `MOVE_CONTRACT`; `quanta` are the steps of ``amount`` by asset.
    """
    left = 0
    for k in range(value_size.size):
        first = int(value_first[k])
        is_read = value_size[k] > 0 and scan_object(
            data, first, first + int(value_size[k]), fields, part_first, part_size
        )
        kind = NONE
        if is_read and part_first[_VERSION] == 1:
            kind = _name_index(
                vocabulary.words, data, int(part_first[_KIND]), int(part_size[_KIND])
            )
        if kind == NONE:
            heads.state[k] = READ_NOT
            left += 1
            continue
        heads.account_first[k] = part_first[_ACCOUNT]
        heads.account_size[k] = part_size[_ACCOUNT]
        heads.id_first[k] = part_first[_ID]
        heads.id_size[k] = part_size[_ID]
        moves.seq[k] = part_first[_MOVE_SEQ] if part_size[_MOVE_SEQ] > 0 else NONE
        heads.state[k] = READ_FAULTY
        asset = _name_index(vocabulary.items, data, int(part_first[_ASSET]), int(part_size[_ASSET]))
        book = _name_index(
            vocabulary.books, data, int(part_first[_SUBACCOUNT]), int(part_size[_SUBACCOUNT])
        )
        ts_us = int(part_first[_MOVE_TS])
        if asset == NONE or book == NONE or _is_late(ts_us, int(timestamp_ms[k]), horizon_us):
            continue
        amount, is_amount = _read_steps(
            data,
            int(part_first[_AMOUNT]),
            int(part_size[_AMOUNT]),
            int(quanta.places[asset]),
            int(quanta.step[asset]),
        )
        if not is_amount or amount == 0 or (amount < 0 and kind != _ADJUSTMENT):
            continue
        is_outflow = _FIRST_OUTFLOW <= kind < _ADJUSTMENT
        heads.state[k] = READ_GOOD
        moves.book[k] = book - 1
        moves.asset[k] = asset
        moves.quanta[k] = -amount if is_outflow else amount
        moves.is_outflow[k] = 1 if is_outflow else 0
        moves.ts_us[k] = ts_us
    return left


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _account_hash(data: UInt8, heads: Heads, k: int) -> int:
    """Return the hash of a record's account, 0 if it names none."""
    size = int(heads.account_size[k])
    if size <= 0:
        return 0
    return int(hash_name(data, int(heads.account_first[k]), size, 0, NO_PART))


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _event_hash(data: UInt8, heads: Heads, k: int) -> int:
    """Return the hash of a decoded record's account and id."""
    return int(
        hash_name(
            data,
            int(heads.account_first[k]),
            int(heads.account_size[k]),
            int(heads.id_first[k]),
            int(heads.id_size[k]),
        )
    )


@register_jitable  # type: ignore[untyped-decorator, unused-ignore]
def _was_seen(
    data: UInt8, heads: Heads, k: int, hashed: int, offset: int, reach: int, window: Window
) -> bool:
    """Enter a record's id and return whether it was there, at most `reach` offsets ago."""
    first, size = int(heads.account_first[k]), int(heads.account_size[k])
    second, second_size = int(heads.id_first[k]), int(heads.id_size[k])
    entry = find_name(window.newer, hashed, data, first, size, second, second_size)
    if entry != NONE:
        last = int(window.newer_offset[entry])
    else:
        last = NONE
        older = find_name(window.older, hashed, data, first, size, second, second_size)
        if older != NONE:
            last = int(window.older_offset[older])
        entry = add_name(window.newer, hashed, data, first, size, second, second_size)
    window.newer_offset[entry] = offset
    return last != NONE and offset - last <= reach


def enter_window_reference(
    data: UInt8, offset: Int64, heads: Heads, seq: Int64, first: int, last: int, window: Window
) -> None:
    """Enter the ids of the records ``first`` to before ``last`` that have no sequence."""
    for k in range(first, last):
        if heads.state[k] != READ_UNDECODABLE and seq[k] == NONE:
            hashed = _event_hash(data, heads, k)
            _was_seen(data, heads, k, hashed, int(offset[k]), 0, window)


def resolve_reference(
    data: UInt8,
    offset: Int64,
    key_first: Int64,
    key_size: Int32,
    heads: Heads,
    seq: Int64,
    first: int,
    last: int,
    reach: int,
    window: Window,
    names: NameTable,
    accounts: Accounts,
    counts: Int64,
    preset: int,
    row: int,
    account_hash: Int64,
    event_hash: Int64,
    out_record: Int32,
    out_account: Int32,
    out_precheck: UInt8,
) -> int:
    """Go over the records ``first`` to before ``last`` in order: repeats, keys, accounts.

    Parameters
    ----------
    data, offset, key_first, key_size
        Columns of `solvent.engine.run.Run`.
    heads, seq
        As read, none of them `READ_NOT`.
    reach : int
        Offsets within which an id is a repeat.
    window : Window
        Its newer generation has room for these records.
    names, accounts, counts
        The accounts, with room for as many new ones.
    preset : int
        Of new ones.
    row : int
        The next row to write.
    account_hash, event_hash : int64, shape (n,)
        Room to work in.
    out_record, out_account : int32; out_precheck : uint8
        The rows of the batch, at most two a record: from which record, which account (`NONE`: none
        here), and what the ledger must not do with it.

    Returns
    -------
    int
        The next row.
    """
    for k in range(first, last):
        account_hash[k] = _account_hash(data, heads, k)
        is_decoded = heads.state[k] != READ_UNDECODABLE
        event_hash[k] = _event_hash(data, heads, k) if is_decoded else 0
    for k in range(first, last):
        if k + 3 * _STRIDE < last:
            # Names lie at random: memory, not arithmetic, would be most of a record.
            prefetch_slot(names, int(account_hash[k + 3 * _STRIDE]))
            prefetch_slot(window.newer, int(event_hash[k + 3 * _STRIDE]))
            prefetch_slot(window.older, int(event_hash[k + 3 * _STRIDE]))
            prefetch_place(names, int(account_hash[k + 2 * _STRIDE]))
            prefetch_text(names, int(account_hash[k + _STRIDE]))
        state = int(heads.state[k])
        account_first, account_size = int(heads.account_first[k]), int(heads.account_size[k])
        account = NONE
        hashed = int(account_hash[k])
        if account_size > 0:
            account = find_name(names, hashed, data, account_first, account_size, 0, NO_PART)
        keyed = NONE
        is_new = account == NONE and account_size > 0
        precheck = OUTCOME_NONE
        if state == READ_UNDECODABLE:
            precheck = REJECTED_UNDECODABLE
        elif seq[k] == NONE and _was_seen(
            data, heads, k, int(event_hash[k]), int(offset[k]), reach, window
        ):
            precheck = OUTCOME_DUPLICATE
            is_new = False
        elif key_size[k] != account_size or not same_bytes(
            data, int(key_first[k]), data, account_first, account_size
        ):
            precheck = REJECTED_WRONG_KEY
            is_new = False
            if key_size[k] > 0:
                keyed = _name_index(names, data, int(key_first[k]), int(key_size[k]))
        elif state == READ_FAULTY:
            precheck = OUTCOME_REJECTED
        if is_new:
            account = add_name(names, hashed, data, account_first, account_size, 0, NO_PART)
            add_account(account, preset, accounts, counts)
        out_record[row] = k
        out_account[row] = account
        out_precheck[row] = precheck
        row += 1
        if keyed != NONE:
            out_record[row] = k
            out_account[row] = keyed
            out_precheck[row] = OUTCOME_QUARANTINE
            row += 1
    return row


read_trades_jit = jit(read_trades_reference)
read_moves_jit = jit(read_moves_reference)
enter_window_jit = jit(enter_window_reference)
resolve_jit = jit(resolve_reference)


def _empty(layout: type) -> Any:  # noqa: ANN401 -- a NamedTuple of the given type
    dtypes: dict[Any, Any] = {Int64: np.int64, Int32: np.int32, UInt8: np.uint8}
    return layout(*(np.zeros(0, dtypes[kind]) for kind in get_type_hints(layout).values()))


def warm_up() -> None:
    """Compile the one accepted signature of each kernel here; other types raise from then on."""
    if resolve_jit.signatures:
        return
    text = types.Array(types.uint8, 1, "C", readonly=True)
    wide, narrow, small = numba.int64[::1], numba.int32[::1], numba.uint8[::1]
    number = numba.int64
    names = name_table()
    table, fields = numba.typeof(names), numba.typeof(TRADE_CONTRACT)
    vocabulary = numba.typeof(Vocabulary(names, names, names))
    window = numba.typeof(Window(names, np.zeros(0, np.int64), names, np.zeros(0, np.int64)))
    steps, heads = numba.typeof(_empty(Steps)), numba.typeof(_empty(Heads))
    trades, moves = numba.typeof(_empty(Trades)), numba.typeof(_empty(Moves))
    accounts = numba.typeof(example_table(Accounts))
    run = (text, wide, narrow, wide, fields, vocabulary)
    room = (number, wide, wide, heads)
    read_trades_jit.compile((*run, steps, steps, wide, *room, trades))
    read_moves_jit.compile((*run, steps, *room, moves))
    enter_window_jit.compile((text, wide, heads, wide, number, number, window))
    resolve_jit.compile(
        (
            *(text, wide, wide, narrow, heads, wide, number, number, number, window),
            *(table, accounts, wide, number, number, wide, wide, narrow, narrow, small),
        )
    )
    for kernel in (read_trades_jit, read_moves_jit, enter_window_jit, resolve_jit):
        kernel.disable_compile()
