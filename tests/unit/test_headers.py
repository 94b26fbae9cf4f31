"""Record headers of events: CloudEvents attributes and trace context, read by public parsers."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
import yaml
from aiokafka.record.memory_records import MemoryRecords
from jsonschema import Draft202012Validator
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

from solvent.engine.shard import Emit
from solvent.runtime.writer import event_batches
from solvent.wire.headers import EventHeaders, trace_fill, varint
from solvent.wire.topics import LIQUIDATIONS, MARGIN_STATUS, MAX_BATCH_BYTES
from support.busy_log import a_busy_log
from support.contracts import SCHEMAS
from support.margin import Replay

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01")


def headers_of(emit: Emit) -> dict[str, str]:
    """Read the headers of an event's record as two clients do, which must agree."""
    (batch,) = event_batches([emit], 0, MAX_BATCH_BYTES)
    batch._set_producer_state(1, 0, 0)
    (one,) = MemoryRecords(bytes(batch._build())).next_batch()
    (two,) = KafkaPythonRecords(bytes(batch._build())).next_batch()
    assert list(one.headers) == list(two.headers)
    read = {name: value.decode("ascii") for name, value in one.headers}
    assert len(read) == len(one.headers)
    return read


def an_event(
    case: str = "alice:cross:1",
    number: int = 1,
    *,
    event: str = "opened",
    partition: int = 3,
    ts_us: int = 1_744_007_670_000_000,
) -> dict[str, str]:
    account_id = case.partition(":")[0]
    block = EventHeaders(LIQUIDATIONS, partition, ts_us).block(case, number, event, account_id)
    return headers_of(Emit(LIQUIDATIONS, account_id.encode(), b"{}", headers=block))


def test_headers_are_cloudevents_attributes_and_trace_context() -> None:
    found = an_event("carol:BTC-PERP:1", 2, event="closed", partition=2)
    assert TRACEPARENT.fullmatch(found.pop("traceparent"))
    assert found == {
        "ce_specversion": "1.0",
        "content-type": "application/json",
        "ce_source": "/solvent/margin/2",
        "ce_time": "2025-04-07T06:34:30.000000Z",
        "ce_type": "solvent.liquidation.closed.v1",
        "ce_id": "carol:BTC-PERP:1/2",
        "ce_subject": "carol",
    }


def test_example_of_the_asyncapi_document_is_what_is_sent() -> None:
    document = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())
    message = document["components"]["messages"]["Liquidation"]
    (example,) = message["examples"]
    assert example["headers"] == an_event("carol:BTC-PERP:1", 1, partition=2)
    assert message["headers"] == {"$ref": "#/components/schemas/EventHeaders"}
    schema = document["components"]["schemas"]["EventHeaders"]
    Draft202012Validator(schema).validate(example["headers"])
    assert set(schema["required"]) == set(example["headers"])


@pytest.mark.parametrize("length", [1, 9, 62, 63, 64])
def test_ids_of_any_length_there_may_be_are_read_back(length: int) -> None:
    account_id, book = "a" * length, "B" * length
    found = an_event(f"{account_id}:{book}:{10**15}", 2**31)
    assert found["ce_id"] == f"{account_id}:{book}:{10**15}/{2**31}"
    assert found["ce_subject"] == account_id


def test_trace_is_of_the_case_and_span_of_the_revision() -> None:
    of_one = [an_event("alice:cross:1", number)["traceparent"] for number in range(1, 200)]
    assert len({one[:36] for one in of_one}) == 1  # version and trace
    assert len(set(of_one)) == 199
    assert an_event("alice:cross:2")["traceparent"][3:35] != of_one[0][3:35]
    fill = trace_fill("alice:cross:1", "alice.cross.1.1.BTC-PERP").decode()
    assert TRACEPARENT.fullmatch(fill)
    assert fill[:36] == of_one[0][:36]
    assert fill not in of_one


@pytest.mark.parametrize("ts_us", [0, 1, 1_744_007_670_123_456, 2**53])
def test_time_is_the_event_time_in_microseconds(ts_us: int) -> None:
    told = datetime.fromisoformat(an_event(ts_us=ts_us)["ce_time"])
    since = told - datetime(1970, 1, 1, tzinfo=UTC)
    assert (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds == ts_us


def test_every_liquidation_of_a_busy_log_has_the_headers_of_its_value() -> None:
    replay = Replay().run(a_busy_log(21, 400))
    events = replay.events(LIQUIDATIONS)
    emits = [emit for emit in replay.records if emit.topic == LIQUIDATIONS]
    assert len({event["event"] for event in events}) > 2
    for emit, event in zip(emits, events, strict=True):
        expected = an_event(
            event["liquidation_id"],
            event["revision"],
            event=event["event"],
            partition=event["partition"],
            ts_us=event["ts_us"],
        )
        assert headers_of(emit) == expected
        assert expected["ce_subject"] == event["account_id"]
    statuses = [emit for emit in replay.records if emit.topic == MARGIN_STATUS]
    assert {len(headers_of(emit)) for emit in statuses} == {0}


@pytest.mark.parametrize(
    ("number", "spelled"), [(0, "00"), (1, "02"), (63, "7e"), (64, "8001"), (8192, "808001")]
)
def test_varint_is_zigzag(number: int, spelled: str) -> None:
    assert varint(number).hex() == spelled
