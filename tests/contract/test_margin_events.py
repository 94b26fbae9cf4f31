"""Every record and row the margin shard writes satisfies its published schema and its reader."""

from __future__ import annotations

import orjson
import pytest

from solvent.wire.outputs import (
    decode_liquidation,
    decode_liquidation_state,
    decode_margin_status,
    decode_reject,
)
from support.busy_log import a_busy_log
from support.contracts import validator
from support.margin import Replay

READERS = {
    "liquidations.v1": decode_liquidation,
    "liquidation-state.v1": decode_liquidation_state,
    "margin-status.v1": decode_margin_status,
    "rejects.v1": decode_reject,
}


@pytest.mark.parametrize("topic", READERS)
def test_events_of_busy_log_satisfy_schema_and_reader(topic: str) -> None:
    validate = validator(topic.removesuffix(".v1")).validate
    emits = [emit for emit in Replay().run(a_busy_log(21, 400)).records if emit.topic == topic]
    emits = [emit for emit in emits if emit.value is not None]
    assert emits
    for emit in emits:
        validate(orjson.loads(emit.value))
        READERS[topic](emit.value)
        # Put together from pieces: still the bytes the JSON encoder gives.
        assert orjson.dumps(orjson.loads(emit.value)) == emit.value


def test_marks_row_satisfies_schema() -> None:
    row = Replay().run(a_busy_log(21, 50)).table[b"\0marks"]
    validator("accounts").validate(orjson.loads(row))
