"""A worker refuses libraries its runtime was not made for: another version, or a changed method."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher

from solvent.errors import ConfigError, InvariantError
from solvent.runtime.pins import PINNED_VERSIONS, check_pins, fingerprint
from solvent.runtime.raw import RunFetcher, rebound


def test_pins_of_the_installed_libraries_hold() -> None:
    check_pins()


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"SLV-401 aiokafka 0\.14\.0 .*made for 0\.13\.9 only"):
        check_pins(versions=PINNED_VERSIONS | {"aiokafka": "0.13.9"})


def test_changed_method_is_refused_although_the_version_is_right() -> None:
    with pytest.raises(ConfigError, match=f"SLV-406 .*{fingerprint()}, expected 0000"):
        check_pins(expected="0000")


def test_name_that_aiokafka_no_longer_uses_is_refused_instead_of_ignored() -> None:
    """Replacing a name nobody looks up would bring objects a record back in silence."""
    with pytest.raises(ConfigError, match=r"SLV-406 .*Fetcher\._proc_fetch_request .*RecordPages"):
        rebound(Fetcher._proc_fetch_request, RecordPages=object)


async def test_fetch_that_is_no_run_is_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    place = TopicPartition("t", 0)

    async def stock(self, partitions, timeout=0, max_records=None):  # noqa: ASYNC109
        return {place: ["a record", "another"]}

    monkeypatch.setattr(Fetcher, "fetched_records", stock)
    fetcher = object.__new__(RunFetcher)
    with pytest.raises(InvariantError, match=r"fetch of .* gave 2 x str, one run expected"):
        await fetcher.fetched_records([place])
