"""The executor's conformance pack: made anew it is the same, and the kit does what it expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from solvent.executor.book import Book, Reason, RulebookPin
from solvent.wire.outputs import decode_liquidation, decode_liquidation_state
from support.conformance import PACK, batches, read, received, scenarios
from support.contracts import validator

FILES = sorted(PACK.glob("*.jsonl"))


def test_pack_made_anew_is_the_pack() -> None:
    texts = {f"{scenario.name}.jsonl": scenario.text() for scenario in scenarios()}
    assert {path.name: path.read_text("utf-8") for path in FILES} == texts


def test_pack_shows_every_reason() -> None:
    reasons = {line["reason"] for path in FILES for line in read(path)[1] if "reason" in line}
    assert reasons == set(Reason)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_kit_does_what_the_pack_expects(path: Path) -> None:
    head, lines = read(path)
    pins = [RulebookPin(**pin) for pin in head["accepts"]]
    book = Book(pins, head["cooldown_us"], head.get("executor_id", ""))
    for batch in batches(lines):
        if "filled" in batch[0]:
            book.filled(**batch[0]["filled"])
            continue
        if "claimed" in batch[0]:
            book.claimed(batch[0]["claimed"])
            continue
        if "watermark" in batch[0]:
            told = batch[0]["watermark"]
            book.watermark(told["partition"], told["ts_us"])
            continue
        if "silent" in batch[0]:
            book.listen(batch[0]["silent"])
            again = [
                {
                    "liquidation_id": ruling.liquidation.liquidation_id,
                    "action": ruling.action,
                    "reason": ruling.reason,
                }
                for ruling in book.release()
                if ruling.liquidation is not None
            ]
            assert again == batch[0]["again"]
            continue
        rulings = book.take([received(line) for line in batch])
        assert [(r.action, r.reason) for r in rulings] == [
            (e["action"], e["reason"]) for e in batch
        ]
        assert [r.received.offset for r in rulings] == [line["offset"] for line in batch]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_events_acted_on_are_what_the_schema_says_unless_of_a_later_version(path: Path) -> None:
    for line in read(path)[1]:
        if line.get("action") != "act" or path.stem == "unknown-words":
            continue
        topic = "liquidation-state" if "stands" in line else "liquidations"
        assert validator(topic).is_valid(line["value"]), line
        decode = decode_liquidation_state if "stands" in line else decode_liquidation
        assert decode(received(line).value).is_offer
