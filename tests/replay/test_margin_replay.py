"""One log in one frame, in many frames, and with a restore at every offset: identical bytes."""

from __future__ import annotations

import hashlib

import orjson
import pytest

from support.busy_log import a_busy_log
from support.margin import Log, Replay


def outcome(replay: Replay) -> tuple[dict[bytes, bytes], list[tuple[str, bytes, bytes]], object]:
    records = [(emit.topic, emit.key, emit.value) for emit in replay.records]
    return replay.table, records, replay.state


def test_log_exercises_every_kind_of_event() -> None:
    replay = Replay().run(a_busy_log(1, 400))
    seen = {(e["event"], e["reason"]) for e in replay.events("liquidations.v1")}
    assert {event for event, _ in seen} == {"opened", "revised", "recovered", "closed"}
    assert {e["status"] for e in replay.events("margin-status.v1")} >= {
        "healthy",
        "margin_call",
        "liquidating",
        "unknown",
    }
    assert replay.events("rejects.v1")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_log_in_any_framing_gives_identical_bytes(seed: int) -> None:
    log = a_busy_log(seed, 300)
    whole = outcome(Replay().run(log))
    assert outcome(Replay().run(log, longest=1)) == whole
    in_slices = Replay()
    for topic, records in log.runs(3):
        in_slices.apply(topic, records)
        in_slices.cut()
    assert outcome(in_slices) == whole


def test_gaps_of_quarantined_account_report_the_sequence_of_their_moment() -> None:
    log = Log()
    for seq in (5, 9, 9, 6, 9):
        log.trade(seq=seq)
    whole = Replay().run(log)
    wanted = [reject["message"].rsplit(": ")[1] for reject in whole.events("rejects.v1")]
    assert wanted == ["6 expected", "6 expected", "7 expected"]
    assert outcome(Replay().run(log, longest=1)) == outcome(whole)


@pytest.mark.parametrize("seed", [1, 2])
def test_log_with_restore_at_every_offset_gives_identical_bytes(seed: int) -> None:
    log = a_busy_log(seed, 150)
    whole = outcome(Replay().run(log))
    replay = Replay()
    for topic, records in log.runs(1):
        replay.apply(topic, records)
        replay.cut()
        replay.restore()
    assert outcome(replay) == whole


def test_case_revisions_have_no_gap_and_every_event_is_once() -> None:
    events = Replay().run(a_busy_log(4, 600)).events("liquidations.v1")
    cases: dict[str, list[tuple[int, str]]] = {}
    for event in events:
        cases.setdefault(event["liquidation_id"], []).append((event["revision"], event["event"]))
    assert len(cases) > 10
    for revisions in cases.values():
        assert [revision for revision, _ in revisions] == list(range(1, len(revisions) + 1))
        kinds = [kind for _, kind in revisions]
        assert kinds[0] == "opened"
        assert set(kinds[1:-1]) <= {"revised"}


def test_golden_log_keeps_its_hash() -> None:
    """Rows and events of one log, byte for byte; a change here is a change of published bytes."""
    table, records, _ = outcome(Replay().run(a_busy_log(5, 300)))
    digest, of_state = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    for key in sorted(table):
        digest.update(key + table[key])
    for topic, key, value in records:
        event = orjson.loads(value or b"{}")
        event.pop("rulebook", None)  # its hash changes whenever the rulebook's model grows
        into = of_state if topic == "liquidation-state.v1" else digest
        into.update(topic.encode() + key + orjson.dumps(event))
    assert digest.hexdigest() == GOLDEN
    assert of_state.hexdigest() == GOLDEN_STATE


GOLDEN = "a2a340b801b2cb8c84cebd1c33893131"
GOLDEN_STATE = "d769261225a31c2d3c0f8f0372ab0056"
