"""A recorded run keeps its hashes: replaying it brings every byte that lay on its topics.

The tape is of a real run, its worker killed once. It must be recorded anew (``record_tape.py``)
only when published bytes change on purpose.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from solvent.ops.logs import Tape
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import builtin_rulebook
from support.tapes import GOLDEN, lines_of, written

RULEBOOK = builtin_rulebook("example")
CONTENT = "a439f5a062c5d11dea000a6b5cc50c90"
HASHES = {
    "margin": {"0": "2452de844b8a803159e41cdb80006bf7", "1": "4404bae8cfc6e1ebe73a26b933f7c192"},
    "prices": {"0": "522a8ef0f9d2bc8ecd1c944fe9377112"},
}


def test_tape_is_the_one_that_was_recorded() -> None:
    header, lines = lines_of(GOLDEN)
    content = hashlib.blake2b(repr((header, lines)).encode(), digest_size=16).hexdigest()
    assert content == CONTENT
    kinds = {line[0] for line in lines}
    assert {"liquidations.v1", "margin-status.v1", "rejects.v1", "accounts.v1"} <= kinds
    standing = [line for line in lines if line[0] == "liquidation-state.v1"]
    assert any(line[5] is None for line in standing)
    assert any(line[4] == "\0watermark" for line in standing)
    claims = [line for line in lines if line[0] == "accounts.v1" and line[4] == "\0claim"]
    assert len(claims) > 2  # two partitions were taken over again after the kill


@pytest.mark.parametrize("agent", HASHES)
def test_golden_tape_replays_to_its_hashes(agent: str) -> None:
    told = verify(Tape(GOLDEN), RULEBOOK, VerifyOptions(agent=agent)).as_json()
    assert told["differences"] == []
    assert told["hashes"] == HASHES[agent]
    _header, lines = lines_of(GOLDEN)
    journal = "journal.v1" if agent == "margin" else "price-journal.v1"
    assert told["slices"] == sum(line[0] == journal for line in lines)


@pytest.mark.parametrize("agent", HASHES)
def test_golden_tape_from_any_slice_ends_as_from_the_start(agent: str) -> None:
    tape = Tape(GOLDEN)
    whole = verify(tape, RULEBOOK, VerifyOptions(agent=agent))
    for number in range(2, max(part.last_slice for part in whole.partitions) + 1):
        for part in whole.partitions:
            if number > part.last_slice:
                continue
            options = VerifyOptions(agent=agent, partitions=[part.partition], from_slice=number)
            (later,) = verify(tape, RULEBOOK, options).partitions
            assert later.difference is None
            assert (later.last_slice, later.hash) == (part.last_slice, part.hash)
            assert 0 < later.records < part.records


def test_golden_tape_to_a_slice_ends_there(tmp_path: Path) -> None:
    options = VerifyOptions(partitions=[1], from_slice=2, to_slice=4)
    (part,) = verify(Tape(GOLDEN), RULEBOOK, options).partitions
    assert (part.slices, part.last_slice, part.difference) == (3, 4, None)


def test_compacted_table_is_compared_as_a_table_then_row_by_row(tmp_path: Path) -> None:
    header, lines = lines_of(GOLDEN)
    tape = Tape(written(tmp_path / "c.tape.gz", header, compacted(lines, up_to_fence=5)))
    report = verify(tape, RULEBOOK, VerifyOptions(partitions=[0]))
    (part,) = report.partitions
    assert part.difference is None
    assert part.rows_compared_from == 7  # fence 5 is the first left; slice 6 may have replaced rows
    later = verify(tape, RULEBOOK, VerifyOptions(partitions=[0], from_slice=7)).partitions[0]
    assert (later.difference, later.hash) == (None, part.hash)


STATE = "liquidation-state.v1"


def cleaned(lines: list[list], *, below: int, with_ended: bool = False) -> list[list]:
    """Remove what the log cleaner would of what stands; in time also that cases have ended."""
    latest = {(line[1], line[4]): n for n, line in enumerate(lines) if line[0] == STATE}
    return [
        line
        for n, line in enumerate(lines)
        if line[0] != STATE
        or line[2] >= below
        or (latest[line[1], line[4]] == n and not (with_ended and line[5] is None))
    ]


@pytest.mark.parametrize("below", [40, 10_000])
@pytest.mark.parametrize("with_ended", [False, True])
def test_what_the_cleaner_left_of_what_stands_is_compared(
    tmp_path: Path, below: int, with_ended: bool
) -> None:
    header, lines = lines_of(GOLDEN)
    left = cleaned(lines, below=below, with_ended=with_ended)
    assert len(left) < len(lines) - 10
    tape = Tape(written(tmp_path / "c.tape.gz", header, left))
    for from_slice in (1, 4):
        report = verify(tape, RULEBOOK, VerifyOptions(from_slice=from_slice))
        assert report.differences == []
    # of what is left, neither may a record be missing nor another be there
    place = max(n for n, line in enumerate(left) if line[0] == STATE and line[5] is not None)
    without = [*left[:place], *left[place + 1 :]]
    (found,) = verify(
        Tape(written(tmp_path / "w.tape.gz", header, without)), RULEBOOK, VerifyOptions()
    ).differences
    assert (found.topic, found.topic_partition) == (STATE, left[place][1])
    assert found.what.startswith("nothing where ")
    forged = [*left[: place + 1], [*left[place][:2], left[place][2] + 1, *left[place][3:]]]
    forged += left[place + 1 :]
    (found,) = verify(
        Tape(written(tmp_path / "f.tape.gz", header, forged)), RULEBOOK, VerifyOptions()
    ).differences
    assert (found.topic, found.offset) == (STATE, left[place][2] + 1)


def compacted(lines: list[list], *, up_to_fence: int) -> list[list]:
    """Remove what the log cleaner would have removed up to somewhere in the slice after a fence."""
    fences = [
        n for n, line in enumerate(lines) if line[:2] == ["accounts.v1", 0] and line[4] == "\0fence"
    ]
    end = fences[up_to_fence - 1] + 2  # and one row of the next slice
    latest = {}
    for n, line in enumerate(lines[:end]):
        if line[:2] == ["accounts.v1", 0]:
            latest[line[4]] = n
    return [
        line
        for n, line in enumerate(lines)
        if n >= end or line[:2] != ["accounts.v1", 0] or latest[line[4]] == n
    ]
