"""Settings: which source wins, and that no typo passes for a default."""

from __future__ import annotations

from pathlib import Path

import pytest

from solvent.errors import ConfigError
from solvent.settings import Settings, child_environment, default_cache_dir, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SOLVENT_{name.upper()}", raising=False)
    monkeypatch.delenv("SOLVENT_CONFIG", raising=False)


def a_file(folder: Path, text: str) -> Path:
    path = folder / "solvent.toml"
    path.write_text(text)
    return path


def test_settings_with_no_source_are_the_defaults() -> None:
    settings = load_settings()
    assert settings.model_fields_set == set()
    assert (settings.topic_prefix, settings.partitions, settings.clock) == ("solvent.", 4, "wall")
    assert settings.bootstrap_servers is None
    assert settings.data_dir == Path(".solvent")


def test_settings_sources_rank_override_environment_file_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_file(tmp_path, 'partitions = 5\napp_id = "filed"\nclock = "stream"\n')
    monkeypatch.setenv("SOLVENT_PARTITIONS", "6")
    monkeypatch.setenv("SOLVENT_APP_ID", "environed")
    settings = load_settings(path, partitions=7, app_id=None)
    assert settings.partitions == 7
    assert settings.app_id == "environed"
    assert settings.clock == "stream"
    assert settings.topic_prefix == "solvent."


def test_settings_file_is_found_by_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOLVENT_CONFIG", str(a_file(tmp_path, "partitions = 9")))
    assert load_settings().partitions == 9


def test_settings_with_empty_variable_keep_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLVENT_RULEBOOK", "")
    assert load_settings().rulebook is None


def test_settings_with_unknown_variable_are_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOLVENT_PARTITION", "4")
    with pytest.raises(ConfigError, match="SOLVENT_PARTITION is not a setting") as caught:
        load_settings()
    assert caught.value.code == "SLV-404"


def test_settings_with_unknown_file_key_are_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key 'partition' is not a setting") as caught:
        load_settings(a_file(tmp_path, "partition = 4"))
    assert caught.value.code == "SLV-404"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARTITIONS", "0"),
        ("PARTITIONS", "many"),
        ("CLOCK", "sun"),
        ("TOPIC_PREFIX", "a b"),
        ("SESSION_TIMEOUT_S", "nan"),
        ("KAFKA_HEAP", "1t"),
        ("KAFKA_PORT", "80"),
    ],
)
def test_settings_with_value_outside_limits_are_refused_by_name_and_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"SOLVENT_{name}", value)
    with pytest.raises(ConfigError, match=f"SOLVENT_{name}.*{value}") as caught:
        load_settings()
    assert caught.value.code == "SLV-405"


@pytest.mark.parametrize("text", ["partitions = ", "\xff"])
def test_settings_file_that_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "solvent.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        load_settings(path)
    assert caught.value.code == "SLV-403"


def test_settings_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_settings(tmp_path / "none.toml")
    assert caught.value.code == "SLV-403"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().partitions = 5


def test_child_environment_resolves_to_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(partitions=3, session_timeout_s=7.5, data_dir=tmp_path, app_id="a")
    monkeypatch.setenv("SOLVENT_APP_ID", "b")
    monkeypatch.setenv("SOLVENT_CLOCK", "stream")
    monkeypatch.setenv("KEPT", "yes")
    environment = child_environment(settings)
    assert environment["KEPT"] == "yes"
    monkeypatch.delenv("SOLVENT_CLOCK")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_cache_dir_by_variable_wins_over_xdg(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "solvent"
    monkeypatch.setenv("SOLVENT_CACHE_DIR", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"


def test_settings_every_field_has_a_description() -> None:
    assert [n for n, field in Settings.model_fields.items() if not field.description] == []
