"""What was altered is found and named: agent, partition, slice, topic and offset.

Each case changes one record of the golden tape, a recorded run, and verifies what it then says.
"""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from solvent.cli.main import run
from solvent.engine.verify import Difference
from solvent.errors import ConfigError, PartitionError
from solvent.ops.logs import Tape
from solvent.ops.verify import Progress, VerifyOptions, verify
from solvent.rules import builtin_rulebook
from support.tapes import GOLDEN, Line, altered, lines_of, written

RULEBOOK = builtin_rulebook("example")


def difference(path: Path, agent: str = "margin", **options: object) -> Difference:
    """Verify a tape and return the only difference found."""
    report = verify(Tape(path), RULEBOOK, VerifyOptions(agent=agent, **options))  # type: ignore[arg-type]
    (found,) = report.differences
    assert report.as_json()["verified"] is False
    return found


def in_partition(partition: int):
    return lambda line: line[1] == partition


def with_value(line: Line, old: str, new: str) -> Line:
    assert old in line[5]
    line[5] = line[5].replace(old, new, 1)
    return line


@pytest.mark.parametrize(
    ("topic", "old", "new"),
    [
        pytest.param("liquidations.v1", '"event":"opened"', '"event":"closed"', id="event"),
        pytest.param("liquidation-state.v1", '"event":"opened"', '"event":"closed"', id="state"),
        pytest.param("margin-status.v1", '"status":"u', '"status":"x', id="status"),
        pytest.param("rejects.v1", '"code":"SLV', '"code":"SLW', id="reject"),
    ],
)
def test_altered_record_is_named_and_the_journal_is_cleared(
    tmp_path: Path, topic: str, old: str, new: str
) -> None:
    path, line = altered(
        tmp_path, topic, lambda r: old in (r[5] or ""), lambda r: with_value(r, old, new)
    )
    found = difference(path)
    assert (found.agent, found.partition) == ("margin", line[1])
    assert (found.topic, found.topic_partition, found.offset) == (topic, line[1], line[2])
    at = line[5].index(old) + next(
        k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b
    )
    assert f"byte {at}: " in found.expected
    assert f"byte {at}: " in found.got
    assert found.expected != found.got
    assert "this record was altered" in found.note
    assert found.suspects == ()


def test_flipped_byte_of_a_row_is_named(tmp_path: Path) -> None:
    def flip(line: Line) -> Line:
        row = bytearray(base64.b64decode(line[5]["base64"]))
        row[30] ^= 1
        line[5] = {"base64": base64.b64encode(bytes(row)).decode()}
        return line

    path, line = altered(
        tmp_path, "accounts.v1", lambda r: r[1] == 0 and r[4].startswith("acct"), flip
    )
    found = difference(path)
    assert (found.topic, found.topic_partition, found.offset) == ("accounts.v1", 0, line[2])
    assert (found.slice, found.what) == (1, f"value of {line[4]}")
    assert "this record was altered" in found.note


@pytest.mark.parametrize("field", ["slice", "positions", "state"])
def test_altered_fence_is_named(tmp_path: Path, field: str) -> None:
    def change(line: Line) -> Line:
        fence = json.loads(line[5])
        fence[field] = 999 if field == "slice" else {}
        line[5] = json.dumps(fence, separators=(",", ":"))
        return line

    path, line = altered(tmp_path, "accounts.v1", lambda r: r[4] == "\0fence", change)
    found = difference(path, partitions=[line[1]])
    assert found.topic == "accounts.v1"
    if field != "slice":  # a later slice's fence first: the table might have been compacted
        assert (found.slice, found.offset) == (1, line[2])


def test_altered_journal_hash_is_named(tmp_path: Path) -> None:
    def change(line: Line) -> Line:
        entry = json.loads(line[5])
        entry["hash"] = entry["hash"][::-1]
        line[5] = json.dumps(entry, separators=(",", ":"))
        return line

    path, line = altered(
        tmp_path, "journal.v1", lambda r: r[1] == 0 and json.loads(r[5])["slice"] == 3, change
    )
    found = difference(path)
    assert (found.topic, found.topic_partition, found.offset) == ("journal.v1", 0, line[2])
    assert (found.slice, found.what) == (3, "rolling hash")
    assert found.got == json.loads(line[5])["hash"][::-1]
    assert "the journal was altered" in found.note


@pytest.mark.parametrize("field", ["runs", "counts", "rulebook"])
def test_altered_journal_record_is_named(tmp_path: Path, field: str) -> None:
    def change(line: Line) -> Line:
        entry = json.loads(line[5])
        if field == "runs":
            entry["runs"][0][1] += 1
        elif field == "counts":
            entry["counts"][entry["runs"][0][0]] += 1
        else:
            entry["rulebook"]["version"] += 1
        line[5] = json.dumps(entry, separators=(",", ":"))
        return line

    path, line = altered(
        tmp_path, "journal.v1", lambda r: r[1] == 0 and json.loads(r[5])["slice"] == 2, change
    )
    found = difference(path)
    assert (found.partition, found.slice) == (0, 2)
    topic = json.loads(line[5])["runs"][0][0] if field == "runs" else "journal.v1"
    assert found.topic == topic


def test_altered_input_is_found_and_its_records_are_suspected(tmp_path: Path) -> None:
    def change(line: Line) -> Line:
        trade = json.loads(line[5])
        trade["size"] += "1" if "." in trade["size"] else "0"
        line[5] = json.dumps(trade, separators=(",", ":"))
        return line

    good = '"subaccount":"cross"'
    path, line = altered(tmp_path, "trades.v1", lambda r: r[1] == 1 and good in r[5], change)
    found = difference(path)
    assert (found.agent, found.partition) == ("margin", 1)
    assert "an input or the program" in found.note
    assert ("trades.v1", line[2]) in found.suspects
    journal = [json.loads(r[5]) for r in lines_of(GOLDEN)[1] if r[:2] == ["journal.v1", 1]]
    applied = next(
        entry["slice"]
        for entry in journal
        for topic, first, last in entry["runs"]
        if topic == "trades.v1" and first <= line[2] <= last
    )
    assert found.slice == applied


@pytest.mark.parametrize("topic", ["trades.v1", "marks.v1"])
def test_missing_input_is_named(tmp_path: Path, topic: str) -> None:
    _header, lines = lines_of(GOLDEN)
    entry = next(json.loads(r[5]) for r in lines if r[:2] == ["journal.v1", 0] and topic in r[5])
    offset = next(first for name, first, _ in entry["runs"] if name == topic)
    path, _ = altered(tmp_path, topic, lambda r: r[1:3] == [0, offset], lambda _: None)
    found = difference(path)
    assert (found.topic, found.offset, found.slice) == (topic, offset, entry["slice"])
    assert "no record at this offset" in found.what


@pytest.mark.parametrize("topic", ["liquidations.v1", "rejects.v1", "accounts.v1"])
def test_missing_record_is_named(tmp_path: Path, topic: str) -> None:
    lines = [r for r in lines_of(GOLDEN)[1] if r[:2] == [topic, 1] and r[4][:1] != "\0"]
    gone = lines[len(lines) // 2]
    path, _ = altered(tmp_path, topic, lambda r: r[1:3] == gone[1:3], lambda _: None)
    found = difference(path)
    assert (found.topic, found.topic_partition) == (topic, 1)
    assert found.offset is None or found.offset > gone[2]


@pytest.mark.parametrize("topic", ["liquidations.v1", "accounts.v1"])
def test_record_of_no_slice_is_named(tmp_path: Path, topic: str) -> None:
    header, lines = lines_of(GOLDEN)
    last = [r for r in lines if r[:2] == [topic, 0]][-1]
    extra = [*last[:2], last[2] + 7, *last[3:]]
    extra[4] = "acct-1"
    found = difference(written(tmp_path / "x.tape.gz", header, [*lines, extra]))
    assert (found.topic, found.topic_partition, found.offset) == (topic, 0, last[2] + 7)


def test_altered_mark_frame_is_named_in_the_partition_it_lies_in(tmp_path: Path) -> None:
    path, line = altered(
        tmp_path, "marks.v1", in_partition(1), lambda r: with_value(r, '"seq":', '"seq": ')
    )
    found = difference(path, agent="prices")
    assert (found.agent, found.partition) == ("prices", 0)
    assert (found.topic, found.topic_partition, found.offset) == ("marks.v1", 1, line[2])


def test_first_difference_ends_its_partition_and_no_other(tmp_path: Path) -> None:
    path, _ = altered(
        tmp_path,
        "liquidations.v1",
        in_partition(0),
        lambda r: with_value(r, "liquidation_id", "liquidation_ix"),
    )
    report = verify(Tape(path), RULEBOOK, VerifyOptions())
    first, second = report.partitions
    assert first.difference is not None
    assert second.difference is None
    whole = verify(Tape(GOLDEN), RULEBOOK, VerifyOptions())
    assert second.hash == whole.partitions[1].hash


def test_events_deleted_by_retention_are_no_difference_but_altered_ones_are(
    tmp_path: Path,
) -> None:
    topic = "margin-status.v1"
    header, lines = lines_of(GOLDEN)
    statuses = [r for r in lines if r[:2] == [topic, 0]]
    cut = statuses[len(statuses) // 3][2]
    header["topics"][topic][0] = cut
    left = [r for r in lines if r[:2] != [topic, 0] or r[2] >= cut]
    path = written(tmp_path / "cut.tape.gz", header, left)
    assert verify(Tape(path), RULEBOOK, VerifyOptions()).differences == []

    spoilt = [
        with_value(list(r), '"status":"', '"status":"x') if r == statuses[-1] else r for r in left
    ]
    found = difference(written(tmp_path / "spoilt.tape.gz", header, spoilt))
    assert (found.topic, found.offset) == (topic, statuses[-1][2])


def test_inputs_deleted_by_retention_say_which_slices_are_left(tmp_path: Path) -> None:
    header, lines = lines_of(GOLDEN)
    frames = [r for r in lines if r[:2] == ["marks.v1", 0]]
    header["topics"]["marks.v1"][0] = frames[1][2]
    path = written(tmp_path / "cut.tape.gz", header, [r for r in lines if r != frames[0]])
    with pytest.raises(PartitionError, match=r"SLV-513 .*--from-slice (\d+)") as refused:
        verify(Tape(path), RULEBOOK, VerifyOptions(partitions=[0]))
    number = int(str(refused.value).rpartition(" ")[2].rstrip(")"))
    report = verify(Tape(path), RULEBOOK, VerifyOptions(partitions=[0], from_slice=number))
    assert report.differences == []


def test_state_of_a_slice_that_compaction_removed_is_refused(tmp_path: Path) -> None:
    header, lines = lines_of(GOLDEN)
    fences = [r for r in lines if r[:2] == ["accounts.v1", 0] and r[4] == "\0fence"]
    path = written(tmp_path / "c.tape.gz", header, [r for r in lines if r not in fences[:3]])
    with pytest.raises(PartitionError, match=r"SLV-512 .* after slice 5 and later"):
        verify(Tape(path), RULEBOOK, VerifyOptions(partitions=[0], from_slice=3))


def test_other_rulebook_and_unknown_partition_are_refused() -> None:
    tape = Tape(GOLDEN)
    with pytest.raises(ConfigError, match="SLV-451 slice 1 was made under rulebook example"):
        verify(tape, builtin_rulebook("demo"), VerifyOptions())
    with pytest.raises(ConfigError, match="partition 2: there are 2"):
        verify(tape, RULEBOOK, VerifyOptions(partitions=[2]))


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", b"\x1f\x8b\x08\x00"], ids=["empty", "text", "cut off"]
)
def test_file_that_is_no_tape_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tape.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"SLV-450 .*x\.tape\.gz"):
        Tape(path)


def test_command_verifies_a_tape_and_tells_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["replay", "--verify", "-r", "example", "--json", "--tape"]
    assert run([*options, str(GOLDEN)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["agent"], told["verified"], told["differences"]) == ("margin", True, [])
    assert set(told["hashes"]) == {"0", "1"}
    assert told["slices"] == sum(part["slices"] for part in told["partitions"]) > 10

    path, _ = altered(
        tmp_path,
        "liquidations.v1",
        in_partition(0),
        lambda r: with_value(r, "liquidation_id", "liquidation_ix"),
    )
    assert run([*options, str(path)]) == 12
    told = json.loads(capsys.readouterr().out)
    assert told["verified"] is False
    assert told["differences"][0]["topic"] == "liquidations.v1"
    assert run([*options[:-2], "--tape", str(path)]) == 12
    shown = capsys.readouterr().out
    assert ": liquidations.v1 partition 0 offset 0: value of acct-" in shown


@pytest.mark.parametrize(
    "arguments", [[], ["--verify", "--record", "x"], ["--verify", "--agent", "x"]]
)
def test_command_without_one_mode_says_what_is_wrong(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", "-r", "example", *arguments]) == 2
    capsys.readouterr()


@contextmanager
def interrupting(monkeypatch: pytest.MonkeyPatch, *, times: int) -> Iterator[None]:
    """Send this process Ctrl-C when the replay first tells how far it is."""

    @contextmanager
    def bar(*, is_quiet: bool) -> Iterator[object]:
        left = times

        def interrupt(_progress: object) -> None:
            nonlocal left
            while left:
                left -= 1
                os.kill(os.getpid(), signal.SIGINT)

        yield interrupt

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr("solvent.cli.replay._bar", bar)
        yield
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_stops_after_the_slice_and_says_where_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["replay", "--verify", "-r", "example", "--tape", str(GOLDEN)]
    assert run([*options, "--json"]) == 0
    hashes = json.loads(capsys.readouterr().out)["hashes"]

    with interrupting(monkeypatch, times=1):
        assert run(options) == 130
    shown = capsys.readouterr()
    assert "stopped after slice 1 of partition 0" in shown.out
    assert shown.err == "stopping after this slice; Ctrl-C again stops at once\n"
    go_on = shown.out.partition("go on with ")[2].splitlines()[0].split()

    assert run([*options, *go_on, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["hashes"] == {"0": hashes["0"]}

    with interrupting(monkeypatch, times=1):
        assert run([*options, "--json"]) == 130
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["interrupted"], told["slices"]) == (False, True, 1)


def test_second_interrupt_stops_at_once_without_a_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with interrupting(monkeypatch, times=2):
        assert run(["replay", "--verify", "-r", "example", "--tape", str(GOLDEN)]) == 130
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out


def test_progress_tells_records_share_and_place_in_order() -> None:
    told: list[Progress] = []
    report = verify(Tape(GOLDEN), RULEBOOK, VerifyOptions(), progress=told.append)
    assert len(told) == sum(part.slices for part in report.partitions)
    assert [p.share for p in told] == sorted(p.share for p in told)
    assert told[-1].share == 1
    assert told[-1].records == sum(part.records for part in report.partitions)
    assert told[0].place == "margin 0 slice 1"


def test_terminal_shows_progress_with_rate() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "solvent.cli.main", "replay", "--verify", "-r", "example"]
    try:
        process = subprocess.Popen(
            [*command, "--tape", str(GOLDEN)],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # a terminal whose other end is closed
            while part := os.read(ours, 4096):
                shown += part
        out, _ = process.communicate()
    finally:
        os.close(ours)
    assert process.returncode == 0
    slices = sum(topic == "journal.v1" for topic, *_ in lines_of(GOLDEN)[1])
    assert f"as it was: {slices} slices".encode() in out
    assert b"records," in shown
    assert b"/s" in shown
    assert b"margin 1 slice" in shown
