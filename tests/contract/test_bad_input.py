"""Bytes no schema can be shown: what is refused, with which code and which words."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvent.errors import ContractError, RejectCode
from solvent.wire import inputs, statements
from support.contracts import DECODE_INPUT, compact, example_files, program_accepts, validator

TRADE = (
    b'{"schema_version":1,"trade_id":"t-1","account_id":"alice","subaccount":"cross",'
    b'"market":"BTC-PERP","side":"buy","size":"0.5","price":"65000.5","fee":"1.2",'
    b'"seq":17,"ts_us":1760131200000000}'
)
MALFORMED = RejectCode.MALFORMED
VERSION = RejectCode.UNSUPPORTED_VERSION
OUTSIDE = RejectCode.OUT_OF_CONTRACT


def changed(old: bytes, new: bytes) -> bytes:
    assert TRADE.count(old) == 1
    return TRADE.replace(old, new)


BAD = {
    "none": (None, MALFORMED, "empty"),
    "empty": (b"", MALFORMED, "empty"),
    "blank": (b"  ", MALFORMED, "truncated"),
    "cut off": (TRADE[:-1], MALFORMED, "truncated"),
    "trailing bytes": (TRADE + b"x", MALFORMED, "trailing"),
    "two records": (TRADE + TRADE, MALFORMED, "trailing"),
    "byte order mark": (b"\xef\xbb\xbf" + TRADE, MALFORMED, "invalid character"),
    "utf-16": (TRADE.decode().encode("utf-16"), MALFORMED, "invalid character"),
    "single quotes": (TRADE.replace(b'"', b"'"), MALFORMED, "JSON"),
    "a number": (b"17", MALFORMED, "a JSON object expected"),
    "an array": (b"[" + TRADE + b"]", MALFORMED, "a JSON object expected"),
    "invalid utf-8": (changed(b"alice", b"al\xffce"), MALFORMED, "utf-8"),
    "lone surrogate": (changed(b"alice", b"al\\ud800ce"), MALFORMED, "surrogate"),
    "control character": (changed(b"alice", b"al\x01ce"), MALFORMED, "invalid character"),
    "escaped zero byte": (changed(b"alice", b"al\\u0000ce"), OUTSIDE, "`account_id`"),
    "escaped quote": (changed(b"alice", b'al\\"ce'), OUTSIDE, "`account_id`"),
    "blank in id": (changed(b"alice", b"al ce"), OUTSIDE, "`account_id` = 'al ce'"),
    "newline after id": (changed(b"alice", b"alice\\n"), OUTSIDE, "`account_id`"),
    "colons in ids": (changed(b"alice", b"alice::"), OUTSIDE, "`account_id` = 'alice::'"),
    "nan": (changed(b":17,", b":NaN,"), MALFORMED, "invalid character"),
    "infinity": (changed(b":17,", b":-Infinity,"), MALFORMED, "invalid"),
    "float": (changed(b":17,", b":17.5,"), MALFORMED, "`seq` = 17.5: Expected `int"),
    "float of whole value": (changed(b":17,", b":17.0,"), MALFORMED, "`seq` = 17.0"),
    "exponent": (changed(b":17,", b":1e3,"), MALFORMED, "`seq`"),
    "leading zero": (changed(b":17,", b":017,"), MALFORMED, "invalid number"),
    "true": (changed(b":17,", b":true,"), MALFORMED, "`seq` = True"),
    "null": (changed(b":17,", b":null,"), MALFORMED, "`seq`: null"),
    "below zero": (changed(b":17,", b":-1,"), OUTSIDE, "`seq` = -1: Expected `int` >= 0"),
    "2^53 + 1": (changed(b":17,", b":9007199254740993,"), OUTSIDE, "<= 9007199254740992"),
    "2^64": (changed(b":17,", b":18446744073709551616,"), OUTSIDE, "`seq`"),
    "400 digits": (changed(b":17,", b":" + b"9" * 400 + b","), OUTSIDE, "`seq` = 999"),
    "5000 digits": (changed(b":17,", b":" + b"9" * 5000 + b","), OUTSIDE, "out of range"),
    "number for text": (changed(b'"0.5"', b"0.5"), MALFORMED, "`size` = 0.5: Expected `str`"),
    "text for number": (changed(b":17,", b':"17",'), MALFORMED, "`seq` = '17'"),
    "huge text": (changed(b"65000.5", b"1" * 400), OUTSIDE, "`price`"),
    "empty text": (changed(b"alice", b""), OUTSIDE, "`account_id` = ''"),
    "unknown side": (changed(b'"buy"', b'"long"'), OUTSIDE, "`side` = 'long'"),
    "unknown field": (changed(b'"seq"', b'"sequence"'), MALFORMED, "unknown field `sequence`"),
    "unknown field of huge name": (changed(b'"seq"', b'"' + b"s" * 10**6 + b'"'), MALFORMED, "sss"),
    "huge side": (changed(b'"buy"', b'"' + b"b" * 10**6 + b'"'), OUTSIDE, "`side` = 'bbb"),
    "missing field": (changed(b'"fee":"1.2",', b""), MALFORMED, "required field `fee`"),
    "named twice": (changed(b'"seq":17', b'"seq":17,"seq":17'), MALFORMED, "`seq`: named twice"),
    "escaped name twice": (
        changed(b'"seq":17', b'"\\u0073eq":18,"seq":17'),
        MALFORMED,
        "`seq`: named twice",
    ),
    "null, then a value": (
        changed(b'"seq":17', b'"seq":null,"seq":17'),
        MALFORMED,
        "`seq`: named twice",
    ),
    "deep nesting": (b"[" * 100_000, MALFORMED, "nested deeper than 64"),
    "nesting at the limit": (b"[" * 64 + b"]" * 64, MALFORMED, "a JSON object expected"),
    "deep nesting in a field": (
        changed(b'"alice"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        MALFORMED,
        "nested deeper than 64",
    ),
    "version 2 with new fields": (
        changed(b'"schema_version":1', b'"schema_version":2,"new":[]'),
        VERSION,
        "`schema_version` = 2: only 1 is read",
    ),
    "version true": (
        changed(b'"schema_version":1', b'"schema_version":true'),
        MALFORMED,
        "`schema_version` = True",
    ),
    "no version": (changed(b'"schema_version":1,', b""), MALFORMED, "`schema_version`"),
}


@pytest.mark.parametrize(("value", "code", "words"), BAD.values(), ids=BAD.keys())
def test_decode_trade_bad_bytes_refused_with_code_and_reason(
    value: bytes | None, code: RejectCode, words: str
) -> None:
    with pytest.raises(ContractError) as caught:
        inputs.decode_trade(value)
    assert caught.value.code == code
    assert words in caught.value.message
    assert caught.value.message.startswith("trades.v1 ")
    assert len(caught.value.message) < 300  # a bad megabyte is not repeated


@pytest.mark.parametrize(
    ("decode", "value", "words"),
    [
        (statements.decode_settings, {"leverage": {"BTC-PERP": 10}}, "`leverage[...]`: Expected"),
        (statements.decode_settings, {"leverage": {"B/C": "1"}}, "`leverage`"),
        (statements.decode_snapshot, {"positions": [{"market": "m"}]}, "`positions[0]`: Object"),
        (
            statements.decode_snapshot,
            {"positions": [{"market": "m", "size": 1, "cost_basis": "1"}]},
            "`positions[0].size`: Expected `str`, got `int`",
        ),
    ],
    ids=["limit", "market", "field missing", "number for text"],
)
def test_fault_within_a_field_is_named_by_its_place(
    decode: Callable[[bytes | None], object], value: dict[str, object], words: str
) -> None:
    topic = "account-settings" if decode is statements.decode_settings else "account-snapshots"
    with pytest.raises(ContractError) as caught:
        decode(compact(VALID[topic][0] | value))
    assert words in caught.value.message
    assert caught.value.message.startswith(f"{topic}.v1 ")


def test_deep_nesting_gives_the_same_answer_however_deep_the_caller() -> None:
    def refuse(value: bytes, frames: int) -> str:
        if frames:
            return refuse(value, frames - 1)
        assert inputs.best_effort_account_id(value, b"alice") == "alice"
        with pytest.raises(ContractError) as caught:
            inputs.decode_trade(value)
        return caught.value.message

    for depth in range(60, 1000, 47):
        for value in (b"[" * depth + b"]" * depth, b'{"side":' + b"[" * depth + b"]" * depth):
            assert len({refuse(value, frames) for frames in (0, 300, 600)}) == 1
    brackets_in_text = b'{"account_id":"bob","a":"' + b"[" * 100 + b'\\"{"}'
    assert inputs.best_effort_account_id(brackets_in_text, b"alice") is None


@pytest.mark.parametrize("decode", DECODE_INPUT.values(), ids=DECODE_INPUT.keys())
@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_decode_of_no_object_refused_as_malformed(
    decode: Callable[[bytes | None], object], value: bytes | None
) -> None:
    with pytest.raises(ContractError) as caught:
        decode(value)
    assert caught.value.code == RejectCode.MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        json.dumps(json.loads(TRADE)).encode(),
        json.dumps(json.loads(TRADE), indent=2).encode(),
        json.dumps(dict(sorted(json.loads(TRADE).items()))).encode(),
        TRADE + b"\n",
        TRADE.replace(b"alice", b"\\u0061lice"),
        TRADE.replace(b'"market"', b'"mar\\u006bet"'),
    ],
    ids=["blanks", "indented", "other order", "newline", "escaped text", "escaped name"],
)
def test_decode_trade_other_spelling_of_json_gives_the_same(value: bytes) -> None:
    assert inputs.decode_trade(value) == inputs.decode_trade(TRADE)


def test_decode_tick_escaped_slash_gives_the_same() -> None:
    tick = inputs.encode_tick(source="okx", feed="ETH/USD", price="2950", ts_us=1)
    assert inputs.decode_tick(tick.replace(b"/", b"\\/")) == inputs.decode_tick(tick)


def test_decode_trade_colon_hidden_behind_a_liquidation_id_refused() -> None:
    # The compact check expects two colons in the id; here two others sit in the account.
    value = changed(b'"seq":17', b'"liquidation_id":"alice"').replace(b'"alice",', b'"a::b",', 1)
    with pytest.raises(ContractError, match=r"SLV-103 .*`liquidation_id`"):
        inputs.decode_trade(value)


@pytest.mark.parametrize(
    ("value", "key", "account_id"),
    [
        (b"not json", b"alice", "alice"),
        (b'{"account_id":"alice"}', b"alice", "alice"),
        (b'{"account_id":17}', b"alice", "alice"),
        (b"[1]", b"alice", "alice"),
        (None, b"alice", "alice"),
        (b'{"account_id":"bob"}', b"alice", None),
        (b'{"account_id":"alice"}', None, None),
        (b"not json", b"al ice", None),
        (b"not json", b"", None),
        (b"not json", b"\xff", None),
        (b"not json", b"a" * 65, None),
        (b"[" * 100_000, b"alice", "alice"),
    ],
)
def test_best_effort_account_id_is_the_key_unless_in_doubt(
    value: bytes | None, key: bytes | None, account_id: str | None
) -> None:
    assert inputs.best_effort_account_id(value, key) == account_id


# -- schema and program agree on whatever a producer might send

VALID = {
    topic: [json.loads(path.read_text()) for _, path in example_files("valid", [topic])]
    for topic in DECODE_INPUT
}
VALIDATORS = {topic: validator(topic) for topic in DECODE_INPUT}
LIMIT = 2**53

texts = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "-0",
            "0.0",
            "-1",
            "1.",
            ".5",
            "1e3",
            "+1",
            "01",
            "NaN",
            "Infinity",
            "a b",
            "a:b:1",
            "a:b:0",
            "a:b:c",
            "A/B",
            "cross",
            "buy",
            "sell",
        ]
    ),
    st.sampled_from(["deposit", "adjustment", "price", "clock", "１", "²", "a\n", "1\n"]),
    st.sampled_from(["1" * 40, "1" * 41, "0." + "0" * 38, "a" * 64, "a" * 65]),
    st.from_regex(r"-?[0-9]{1,3}(\.[0-9]{0,3})?", fullmatch=True),
    st.text(max_size=8),
)
# Whole floats are left out: to JSON Schema 1.0 is an integer, the program refuses it (README).
numbers = st.one_of(
    st.sampled_from([0, 1, 2, -1, LIMIT, LIMIT + 1, 2**63, 2**64, 10**400]),
    st.integers(),
    st.sampled_from([0.5, -1.5, 1e-9]),
)
#: Fields of a position in a snapshot, and one it has not.
ENTRY = ("market", "size", "cost_basis", "count")
contents = st.one_of(
    texts,
    numbers,
    st.none(),
    st.booleans(),
    st.lists(st.integers(0, 1), max_size=2),
    st.dictionaries(st.sampled_from(["a", "ts_us"]), st.integers(0, 1), max_size=2),
    st.dictionaries(st.sampled_from(["BTC-PERP", "A/B"]), texts, max_size=2),
    st.lists(st.dictionaries(st.sampled_from(ENTRY), texts, max_size=3), max_size=2),
    st.lists(st.fixed_dictionaries(dict.fromkeys(ENTRY[:3], texts)), max_size=2),
)
NAMES = sorted({name for records in VALID.values() for record in records for name in record})


@st.composite
def mutated(draw: st.DrawFn, topic: str) -> dict[str, object]:
    record = dict(draw(st.sampled_from(VALID[topic])))
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.one_of(st.sampled_from(sorted(record)), st.sampled_from([*NAMES, "extra"])))
        if draw(st.booleans()) and name in record and len(record) > 1:
            del record[name]
        else:
            record[name] = draw(contents)
    return record


@pytest.mark.parametrize("topic", sorted(DECODE_INPUT))
@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_schema_and_program_mutated_record_same_answer(topic: str, data: st.DataObject) -> None:
    record = data.draw(mutated(topic))
    answer = VALIDATORS[topic].is_valid(record)
    assert program_accepts(topic, compact(record)) == answer
    assert program_accepts(topic, json.dumps(record, indent=1).encode()) == answer


@settings(max_examples=200, deadline=None, derandomize=True)
@given(value=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_decoders_any_bytes_give_a_record_or_a_contract_error(value: bytes) -> None:
    for decode in DECODE_INPUT.values():
        code = None
        try:
            assert isinstance(decode(value), msgspec.Struct)
        except ContractError as error:
            code = error.code
        assert code in {None, MALFORMED, VERSION, OUTSIDE}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_decode_trade_changed_bytes_never_differ_from_strict_reading(data: st.DataObject) -> None:
    """The compact check lets through exactly what reading every field closely lets through."""
    value = bytearray(TRADE)
    at = data.draw(st.integers(0, len(value) - 1))
    value[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        trade = inputs.decode_trade(bytes(value))
    except ContractError:
        return
    pairs = json.loads(bytes(value), object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names))
    assert None not in dict(pairs).values()
    for text in (trade.trade_id, trade.account_id, trade.subaccount, trade.market):
        assert inputs.is_identifier(text)
