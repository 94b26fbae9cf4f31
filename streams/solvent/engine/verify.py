"""Whether a history is what its inputs make of it: every byte of every slice, compared.

For one partition of one agent the slices of the journal are replayed (`solvent.engine.replay`), and
what each brings is held against the logs: events and rejects, rows and the fence of the table, the
journal record with its hash. Where the records of a slice lie on a topic follows from order alone,
in the table from the fence that ends the slice. The first thing that differs is named.

Two things may be gone without being wrong. Compaction removes rows that later ones replaced: the
slices it can have reached, up to the one after the first fence left, are compared as one table; of
what stands of cases, what is left is compared, and the last of each key must be. Retention deletes
the oldest events: comparing begins with the first one left.

What cannot be seen is an input altered in a way that changes nothing that goes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson

from solvent.engine.cursors import (
    InputCursor,
    OutputCursor,
    SliceRows,
    StandingCursor,
    TableCursor,
)
from solvent.engine.journal import FENCE_KEY, SliceJournal
from solvent.engine.replay import JournalledSlice, Log, ReplayedSlice, SliceReplay
from solvent.engine.rows import Rows
from solvent.engine.run import Record, Run
from solvent.engine.shard import Shard
from solvent.wire.topics import CONTROL, LIQUIDATION_STATE, LOSSES, ORACLE_TICKS, REJECTS

__all__ = ["Difference", "Verifier"]

_SHOWN_BYTES: Final = 100
_SHOWN_BEFORE: Final = 30
_MOST_SUSPECTS: Final = 5

_Runs = list[tuple[str, Run]]
_Row = tuple[bytes, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first thing in which history and replay differ.

    Attributes
    ----------
    agent, partition, slice : str, int, int
        Whose slice.
    topic, topic_partition, offset : str, int, int or None
        Where it lies; no offset if something is missing at the end of a log.
    what : str
        What differs, in words.
    expected, got : str
        What the replay brought and what the log holds, from a little before the first byte that
        differs; empty for nothing.
    note : str
        What this points to.
    suspects : tuple of (topic, offset)
        Input records of the account concerned in this slice, where one of them may be to blame.
    """

    agent: str
    partition: int
    slice: int
    topic: str
    topic_partition: int
    offset: int | None
    what: str
    expected: str = ""
    got: str = ""
    note: str = ""
    suspects: tuple[tuple[str, int], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


@dataclass(slots=True)
class _Tables:
    """Rows of the slices that compaction reached: as replayed, and as left in the log."""

    expected: dict[bytes, bytes | None] = field(default_factory=dict)
    found: dict[bytes, Record] = field(default_factory=dict)
    fences: int = 0


class Verifier:
    """Compares one partition of one agent with its replay, slice by slice.

    Parameters
    ----------
    agent, partition : str, int
        Whose history it is.
    shard, journal
        Fresh, or as `solvent.engine.rewind.restore_at` left them.
    journal_topic : str
        Logical name of the journal, to name it.
    inputs : mapping of topic to log
        Input logs of the partition.
    outputs : mapping of topic to logs
        Outgoing logs: of the shard's own partition, or of every one if its records go everywhere.
    table : Log
        The table's log.
    table_start : int
        Where the rows of the next slice begin.
    """

    def __init__(
        self,
        agent: str,
        partition: int,
        shard: Shard,
        journal: SliceJournal,
        *,
        journal_topic: str,
        inputs: Mapping[str, Log],
        outputs: Mapping[str, Sequence[Log]],
        table: Log,
        table_start: int,
    ) -> None:
        self._agent = agent
        self._partition = partition
        self._journal_topic = journal_topic
        self._replay = SliceReplay(shard, journal)
        self._inputs = {
            topic: InputCursor(log, journal.positions.get(topic, 0))
            for topic, log in inputs.items()
        }
        is_from_start = journal.slice_number == 0
        self._outputs: dict[str, list[OutputCursor | StandingCursor]] = {
            topic: [
                StandingCursor(log, is_from_start=is_from_start)
                if topic == LIQUIDATION_STATE
                else OutputCursor(log, _ours(agent, partition, topic), is_from_start=is_from_start)
                for log in logs
            ]
            for topic, logs in outputs.items()
        }
        self._table = TableCursor(table, table_start)
        self._tables: _Tables | None = None
        #: First slice whose rows are compared one by one; those below it as one table.
        self.rows_compared_from = journal.slice_number + 1
        self.records = 0
        self.events = 0
        self.rows = 0

    @property
    def number(self) -> int:
        """The last slice replayed; 0 before the first."""
        return self._replay.journal.slice_number

    @property
    def rules(self) -> Mapping[str, Any]:
        """``id``, ``version`` and ``hash`` of the rulebook in force after it."""
        return self._replay.shard.rules

    @property
    def hash(self) -> str:
        """Rolling hash after it."""
        return self._replay.journal.rolling_hash.hex()

    @property
    def positions(self) -> Mapping[str, int]:
        """Next offset of each input topic after it."""
        return self._replay.journal.positions

    def check(self, entry: JournalledSlice) -> Difference | None:
        """Replay one slice and compare all it brought."""
        runs: _Runs = []
        difference = self._collect(entry, runs)
        if difference is not None:
            return difference
        replayed = self._replay.apply(runs)
        self.records += sum(len(run) for _, run in runs)
        return (
            self._compare_events(entry, replayed, runs)
            or self._compare_rows(entry, replayed, runs)
            or self._compare_journal(entry, replayed)
        )

    def check_end(self) -> Difference | None:
        """Look for records beyond those of the last slice; nobody may be writing any more."""
        for cursor in (c for cursors in self._outputs.values() for c in cursors):
            found = cursor.left_over()
            if found is not None:
                return self._at(cursor.log, found, "a record that no slice brought")
            lost = cursor.missing() if isinstance(cursor, StandingCursor) else None
            if lost is not None:
                what, expected, _ = _told((lost.key, lost.value), None)
                return self._difference(self.number, cursor.log, None, what, expected)
        found = self._table.left_over()
        if found is not None:
            return self._at(self._table.log, found, f"a row of {_text(found.key)} of no slice")
        return None

    # -- inputs

    def _collect(self, entry: JournalledSlice, runs: _Runs) -> Difference | None:
        """Read the runs of a slice; what the journal says of them must be so."""
        due = self.number + 1
        if entry.number != due:
            return self._in_journal(entry, "number of the slice", str(due), str(entry.number))
        counts: dict[str, int] = {}
        for topic, first, last in entry.runs:
            cursor = self._inputs.get(topic)
            if cursor is None:
                return self._in_journal(entry, "a topic this agent does not read", "", topic)
            run = cursor.take(last)
            named = f"the journal names offsets {first} to {last}"
            if run and run[0].offset < first:
                return self._at(cursor.log, run[0], f"a record never applied: {named} next", entry)
            missing = first if not run or run[0].offset > first else last
            if not run or run[0].offset != first or run[-1].offset != last:
                what = f"no record at this offset, {named}"
                return self._difference(entry.number, cursor.log, missing, what)
            counts[topic] = counts.get(topic, 0) + len(run)
            runs.append((topic, run))
        if counts != entry.counts:
            told = (orjson.dumps(told).decode() for told in (counts, entry.counts))
            return self._in_journal(entry, "number of records in the runs", *told)
        return None

    # -- what goes out

    def _compare_events(
        self, entry: JournalledSlice, replayed: ReplayedSlice, runs: _Runs
    ) -> Difference | None:
        for emit in replayed.outputs.records:
            for cursor in self._outputs[emit.topic]:
                is_equal, found = cursor.match(emit)
                if not is_equal:
                    row = (emit.key, emit.value)
                    return self._unequal(entry, replayed, runs, cursor.log, row, found)
        self.events += len(replayed.outputs.records)
        return None

    def _compare_rows(
        self, entry: JournalledSlice, replayed: ReplayedSlice, runs: _Runs
    ) -> Difference | None:
        rows = replayed.outputs.rows
        self.rows += len(rows)
        ahead = self._table.peek()
        if ahead is None:
            what = f"the table ends before the fence of slice {entry.number}"
            return self._difference(entry.number, self._table.log, None, what)
        if entry.number == 1 and (ahead.number > 1 or len(ahead.rows) < len(rows)):
            self._tables = _Tables()
        if self._tables is not None:
            return self._compare_tables(entry, replayed, rows, ahead, self._tables)
        self._table.take()
        fence = (FENCE_KEY, replayed.fence_value)
        if _is_same(rows, ahead.rows) and ahead.fence.value == replayed.fence_value:
            return None
        found = [*ahead.rows, ahead.fence]
        for place, row in enumerate([*rows, fence]):
            got = found[place] if place < len(found) else None
            if got is None or (got.key, got.value) != row:
                return self._unequal(entry, replayed, runs, self._table.log, row, got)
        extra = found[len(rows) + 1]
        return self._at(self._table.log, extra, f"a row of {_text(extra.key)} too many", entry)

    def _compare_tables(
        self,
        entry: JournalledSlice,
        replayed: ReplayedSlice,
        rows: Rows,
        ahead: SliceRows,
        tables: _Tables,
    ) -> Difference | None:
        """Gather rows up to the second fence left, then compare what is left of each key."""
        tables.expected.update(rows)
        tables.expected[FENCE_KEY] = replayed.fence_value
        if ahead.number > entry.number:
            return None
        tables.found.update({record.key or b"": record for record in ahead.rows})
        tables.found[FENCE_KEY] = ahead.fence
        tables.fences += 1
        self._table.take()
        if tables.fences == 1 and self._table.peek() is not None:
            return None
        self._tables = None
        self.rows_compared_from = entry.number + 1
        for key in sorted({*tables.expected, *tables.found}):
            got = tables.found.get(key)
            value = tables.expected.get(key)
            if got is None and value is None:
                continue  # deleted, and compaction has taken the tombstone too
            if got is None or got.value != value:
                log = self._table.log
                what, expected, shown = _told((key, value), got)
                what += f", in the table after slice {entry.number}, which was compacted"
                place = got.offset if got is not None else None
                return self._difference(entry.number, log, place, what, expected, shown)
        return None

    def _compare_journal(
        self, entry: JournalledSlice, replayed: ReplayedSlice
    ) -> Difference | None:
        if replayed.hash != entry.hash:
            note = "what the slice brought is as replayed: the journal was altered"
            return self._in_journal(entry, "rolling hash", replayed.hash, entry.hash, note)
        if replayed.journal_value != entry.value:
            shown = _excerpts(replayed.journal_value, entry.value)
            return self._in_journal(entry, "journal record", *shown)
        return None

    # -- naming

    def _unequal(
        self,
        entry: JournalledSlice,
        replayed: ReplayedSlice,
        runs: _Runs,
        log: Log,
        row: _Row,
        found: Record | None,
    ) -> Difference:
        """Name a record that is not as replayed, and say where to look."""
        is_hash_equal = replayed.hash == entry.hash
        note = "the journal's hash is as replayed: this record was altered"
        if not is_hash_equal:
            note = "the journal's hash differs too: an input or the program is not what it was"
        return self._difference(
            entry.number,
            log,
            None if found is None else found.offset,
            *_told(row, found),
            note=note,
            suspects=() if is_hash_equal else _suspects(runs, row[0]),
        )

    def _at(
        self, log: Log, found: Record, what: str, entry: JournalledSlice | None = None
    ) -> Difference:
        number = self.number if entry is None else entry.number
        _, got = _excerpts(b"", found.value or b"")
        return self._difference(number, log, found.offset, what, "", got)

    def _in_journal(
        self, entry: JournalledSlice, what: str, expected: str, got: str, note: str = ""
    ) -> Difference:
        return Difference(
            agent=self._agent,
            partition=self._partition,
            slice=entry.number,
            topic=self._journal_topic,
            topic_partition=self._partition,
            offset=entry.offset,
            what=what,
            expected=expected,
            got=got,
            note=note,
        )

    def _difference(
        self,
        number: int,
        log: Log,
        offset: int | None,
        what: str,
        expected: str = "",
        got: str = "",
        note: str = "",
        suspects: tuple[tuple[str, int], ...] = (),
    ) -> Difference:
        return Difference(
            agent=self._agent,
            partition=self._partition,
            slice=number,
            topic=log.topic,
            topic_partition=log.partition,
            offset=offset,
            what=what,
            expected=expected,
            got=got,
            note=note,
            suspects=suspects,
        )


def _ours(agent: str, partition: int, topic: str) -> Callable[[Record], bool]:
    """Tell a shard's own records: both agents write rejects of partition 0, all shards losses."""
    if topic == LOSSES:
        return lambda record: record.key == str(partition).encode()
    if topic != REJECTS:
        return lambda _: True

    def is_ours(record: Record) -> bool:
        try:
            of_prices = orjson.loads(record.value or b"")["topic"] in {ORACLE_TICKS, CONTROL}
        except (KeyError, TypeError, ValueError):
            return True  # nobody's as it is: it differs from whatever is due
        return of_prices == (agent == "prices")

    return is_ours


def _is_same(rows: Rows, found: Run) -> bool:
    """Whether rows lie in the table as they were brought, all of them in order."""
    sizes = found.value_size
    if len(rows) != len(found) or not (sizes == rows.value_size).all():
        return False
    if not (found.key_size == rows.key_size).all():
        return False
    data = found.data.tobytes()
    places = zip(
        found.key_first.tolist(),
        found.key_size.tolist(),
        found.value_first.tolist(),
        sizes.clip(0).tolist(),
        strict=True,
    )
    parts: list[bytes] = []
    for key, key_size, value, size in places:
        parts += (data[key : key + key_size], data[value : value + size])
    return b"".join(parts) == rows.data.tobytes()


def _suspects(runs: Iterable[tuple[str, Run]], key: bytes) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for topic, run in runs:
        for record in run:
            if record.key == key:
                found.append((topic, record.offset))
                if len(found) == _MOST_SUSPECTS:
                    return tuple(found)
    return tuple(found)


def _told(row: _Row, found: Record | None) -> tuple[str, str, str]:
    """Return what differs between what was replayed and what was found, and both."""
    key, value = row
    if found is None:
        expected, _ = _excerpts(value or b"", b"")
        return f"nothing where {_text(key)} is due", expected, ""
    if found.key != key:
        return "key", _text(key), _text(found.key)
    return f"value of {_text(key)}", *_excerpts(value or b"", found.value or b"")


def _excerpts(expected: bytes, got: bytes) -> tuple[str, str]:
    """Return both from a little before the first byte that differs, that byte's place before."""
    at = next(
        (k for k, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b),
        min(len(expected), len(got)),
    )
    first = max(0, at - _SHOWN_BEFORE)
    shown = [
        f"byte {at}: {'...' if first else ''}{_text(whole[first : first + _SHOWN_BYTES])}"
        if whole
        else ""
        for whole in (expected, got)
    ]
    return shown[0], shown[1]


def _text(raw: bytes | None) -> str:
    return "null" if raw is None else raw.decode("utf-8", "backslashreplace")
