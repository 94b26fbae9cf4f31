"""What a library repeats is logged seldom, with a count; everybody else's lines pass."""

from __future__ import annotations

import logging

import pytest

from solvent.runtime import quiet


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(quiet.time, "monotonic", lambda: clock[0])
    return clock


def said(name: str, text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, text, args, None)


def test_repeated_message_passes_once_in_a_while_and_tells_how_often_it_came(
    now: list[float],
) -> None:
    seldom = quiet.Seldom("aiokafka", every_s=5.0)
    passed = []
    for second in range(12):
        now[0] = 100.0 + second
        record = said("aiokafka.client", "node %s: %s", second, "away")
        if seldom.filter(record):
            passed.append(record.getMessage())
    assert passed == [
        "node 0: away",
        "node 5: away (and 4 more in 5 s)",
        "node 10: away (and 4 more in 5 s)",
    ]


def test_other_message_other_logger_and_other_library_pass(now: list[float]) -> None:
    seldom = quiet.Seldom("aiokafka", every_s=5.0)
    assert seldom.filter(said("aiokafka", "one"))
    assert not seldom.filter(said("aiokafka", "one"))
    assert seldom.filter(said("aiokafka", "another"))
    assert seldom.filter(said("aiokafka.consumer", "one"))
    assert all(seldom.filter(said("solvent.runtime.lane", "one")) for _ in range(3))
