"""Lines, heads and partitions: compiled twins against the functions they are bound from, and both
against what Python, the decoders and kafka-python say."""

from __future__ import annotations

import random

import numpy as np
import pytest
from kafka.partitioner.default import murmur2

from solvent.errors import ContractError
from solvent.kernel import lines
from solvent.ops import files
from solvent.wire.inputs import encode_collateral_move, encode_trade
from solvent.wire.topics import COLLATERAL, TRADES


@pytest.fixture(autouse=True)
def _compiled() -> None:
    lines.warm_up()


def an_array(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


def found_lines(find, text: bytes, room: int = 100) -> list[bytes]:
    """Find all lines, a few at a time."""
    found: list[bytes] = []
    at = 0
    while at < len(text):
        first, size = np.zeros(room, np.int64), np.zeros(room, np.int32)
        count, after = find(an_array(text), at, first, size)
        assert after > at
        at = after
        for place, length in zip(first[:count].tolist(), size[:count].tolist(), strict=True):
            found.append(text[place : place + length])
    return found


@pytest.mark.parametrize("room", [1, 2, 100])
@pytest.mark.parametrize("find", [lines.find_lines_jit, lines.find_lines_reference])
def test_lines_are_those_of_python_stripped(find, room: int) -> None:
    chance = random.Random(5)
    for _ in range(60):
        text = bytes(chance.choices(b"ab{} \t\r\n\n", k=chance.randrange(30)))
        expected = [line.strip() for line in text.split(b"\n")]
        if not text or text.endswith(b"\n"):
            expected.pop()  # nothing follows the last line break
        assert found_lines(find, text, room) == expected


def a_trade(chance: random.Random, **more: object) -> bytes:
    return encode_trade(
        trade_id=f"t{chance.randrange(10**6)}", account_id=f"acct-{chance.randrange(10**4)}",
        subaccount="cross", market="BTC-PERP", side="buy", size="1", price="2", fee="0",
        ts_us=chance.choice([0, 1, 10, 2**53, chance.randrange(2**53)]), **more,
    )  # fmt: skip


def a_move(chance: random.Random) -> bytes:
    return encode_collateral_move(
        move_id="m", account_id=f"acct-{chance.randrange(10**4)}", subaccount="cross",
        asset="USDC", kind="deposit", amount="1", ts_us=chance.randrange(2**53),
    )  # fmt: skip


def heads(read, values: list[bytes], topic: str) -> list[tuple[bytes, int] | None]:
    size = np.array([len(value) for value in values], np.int32)
    first = np.zeros(size.size, np.int64)
    np.cumsum(size[:-1], out=first[1:])
    key_first, key_size = np.zeros(size.size, np.int64), np.zeros(size.size, np.int32)
    ts_us = np.zeros(size.size, np.int64)
    text = b"".join(values)
    others = read(
        an_array(text), first, size, size.size, *files._SPELLING[topic], key_first, key_size, ts_us
    )
    told = [
        (text[place : place + length], time) if length >= 0 else None
        for place, length, time in zip(
            key_first.tolist(), key_size.tolist(), ts_us.tolist(), strict=True
        )
    ]
    assert others == told.count(None)
    return told


@pytest.mark.parametrize(("topic", "make"), [(TRADES, a_trade), (COLLATERAL, a_move)])
def test_heads_of_our_spelling_are_all_found_and_as_decoded(topic: str, make) -> None:
    chance = random.Random(6)
    values = [make(chance) for _ in range(200)]
    expected = [files.KEYS[topic](value) for value in values]
    for read in (lines.read_heads_jit, lines.read_heads_reference):
        assert heads(read, values, topic) == expected


def test_heads_of_mutated_records_agree_with_the_decoder_or_leave_it_the_word() -> None:
    chance = random.Random(7)
    values = []
    for _ in range(3_000):
        value = bytearray(a_trade(chance, seq=chance.choice([None, 3])))
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(value))
            value[place : place + chance.randrange(3)] = bytes(
                chance.choices(b'"\\{}:,0129aZ \x00', k=chance.randrange(3))
            )
        values.append(bytes(value))
    compiled = heads(lines.read_heads_jit, values, TRADES)
    assert heads(lines.read_heads_reference, values, TRADES) == compiled
    agreed = 0
    for value, told in zip(values, compiled, strict=True):
        try:
            expected = files.KEYS[TRADES](value)
        except ContractError:
            continue
        if told is not None:
            assert told == expected
            agreed += 1
    assert agreed > 200


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_partitions_are_those_of_kafkas_partitioner(partitions: int) -> None:
    chance = random.Random(8)
    keys = [chance.randbytes(size) for size in range(70) for _ in range(3)]
    size = np.array([len(key) for key in keys] + [-1], np.int32)
    first = np.zeros(size.size, np.int64)
    np.cumsum(size[:-1], out=first[1:])
    expected = [(int(murmur2(key)) & 0x7FFFFFFF) % partitions for key in keys]
    for assign in (lines.partition_jit, lines.partition_reference):
        out = np.zeros(size.size, np.int32)
        assign(an_array(b"".join(keys)), first, size, size.size, partitions, out)
        assert out.tolist() == [*expected, -1]
