"""A worker refuses libraries its runtime was not made for: another version, or a changed method."""

from __future__ import annotations

import pytest

from solvent.errors import ConfigError
from solvent.runtime.pins import PINNED_VERSIONS, check_pins, fingerprint


def test_pins_of_the_installed_libraries_hold() -> None:
    check_pins()


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"SLV-401 aiokafka 0\.14\.0 .*made for 0\.13\.9 only"):
        check_pins(versions=PINNED_VERSIONS | {"aiokafka": "0.13.9"})


def test_changed_method_is_refused_although_the_version_is_right() -> None:
    with pytest.raises(ConfigError, match=f"SLV-406 .*{fingerprint()}, expected 0000"):
        check_pins(expected="0000")
