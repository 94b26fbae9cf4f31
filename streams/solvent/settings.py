"""Settings: one frozen model, filled from the environment, a TOML file and defaults, in that order.

Every field ``name`` is set by the variable ``SOLVENT_NAME`` or by the key ``name`` of the file
given with ``--config`` or ``SOLVENT_CONFIG``. Keys and ``SOLVENT_*`` variables that name no field
are errors, so a typo cannot pass for a default. This module is the only reader of the environment;
everything else is handed values. Read next: ``solvent.ops.broker`` (which broker is meant).
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from solvent.errors import ConfigError

__all__ = [
    "ENV_PREFIX",
    "Settings",
    "child_environment",
    "default_cache_dir",
    "java_home",
    "limit_polars_threads",
    "load_settings",
    "use_config_file",
]

ENV_PREFIX = "SOLVENT_"
#: Names the configuration file; a variable of its own, not a setting.
CONFIG_VARIABLE = "SOLVENT_CONFIG"

_NAME = r"^[A-Za-z0-9._-]+$"


class _FileSource(PydanticBaseSettingsSource):
    """The keys of the TOML file, already read."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ANN401 - signature of pydantic-settings
        del field
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._values)


class Settings(BaseSettings):
    """What a run of `solvent` may be told from outside.

    Attributes carry their unit in the name: ``_ms`` milliseconds, ``_s`` seconds.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    bootstrap_servers: str | None = Field(
        default=None,
        description="Kafka to use, host:port[,host:port]. Unset: the local Kafka of data_dir if it "
        "runs, else 127.0.0.1:9092.",
    )
    data_dir: Path = Field(
        default=Path(".solvent"),
        description="Where the local Kafka, worker locks and reports live.",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Where resolved Kafka jars are kept. Unset: $XDG_CACHE_HOME/solvent, else "
        "~/.cache/solvent.",
    )
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=100)] = Field(
        default="solvent.", description="Put before every topic name; may be empty."
    )
    partitions: int = Field(
        default=4, ge=1, le=10_000, description="Partitions of every account-keyed topic."
    )
    app_id: Annotated[str, Field(pattern=_NAME, max_length=100)] = Field(
        default="solvent", description="Consumer group and prefix of transactional ids."
    )
    rulebook: Path | None = Field(default=None, description="The rulebook (YAML) to judge by.")
    clock: Literal["wall", "stream"] = Field(
        default="wall",
        description="wall: the worker that prices writes clock records; stream: the loader does.",
    )
    clock_interval_ms: int = Field(
        default=250, ge=10, le=60_000, description="Time between clock records when clock is wall."
    )
    instance_id: Annotated[str, Field(pattern=_NAME, max_length=200)] | None = Field(
        default=None,
        description="Static group membership id. Unset: from a lock file in data_dir.",
    )
    session_timeout_s: float = Field(
        default=6.0,
        ge=1.0,
        le=300.0,
        description="A silent worker loses its partitions after this.",
    )
    max_slice_records: int = Field(
        default=20_000, ge=1, le=1_000_000, description="Most input records in one transaction."
    )
    lazy_commit_ms: int = Field(
        default=250,
        ge=0,
        le=60_000,
        description="A slice of marks that changed nothing may wait this long to commit.",
    )
    health_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Where a worker serves /livez, /readyz and /metrics; nobody is asked who they "
        "are.",
    )
    health_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="Port of these pages. Unset: the worker's last one if free, else any free one; "
        "its log and data_dir/workers/*.json say which.",
    )
    ready_lag: int = Field(
        default=100_000,
        ge=0,
        description="Not ready while an input is more offsets behind than this.",
    )
    ready_oracle_age_s: float | None = Field(
        default=None,
        gt=0.0,
        description="Not ready while a feed has had no valid mark for longer. Unset: 30 if clock "
        "is wall, no limit if it is stream, since history is old.",
    )
    ready_stall_s: float = Field(
        default=10.0,
        gt=0.0,
        description="Not ready without progress, or an answer of the broker, for longer.",
    )
    stall_exit_s: float = Field(
        default=120.0,
        ge=1.0,
        description="A worker without progress for so long ends itself (exit code 7); after half "
        "of it it is not alive.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged."
    )
    kafka_heap: Annotated[str, Field(pattern=r"^[1-9][0-9]*[mg]$")] = Field(
        default="1g", description="Java heap of the local Kafka (-Xmx)."
    )
    kafka_port: int | None = Field(
        default=None,
        ge=1024,
        le=65_535,
        description="Port of the local Kafka. Unset: its last port if free, else any free one.",
    )

    @field_validator("data_dir", "cache_dir", "rulebook")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:  # noqa: ANN401 - before validation anything may come
        return value.lower() if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: arguments, environment. The file is put below by `load_settings`."""
        del settings_cls, dotenv_settings, file_secret_settings
        return (init_settings, env_settings)

    def shown(self) -> dict[str, Any]:
        """Return all values as JSON data; fields typed ``SecretStr`` come out as asterisks."""
        return self.model_dump(mode="json")


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:  # noqa: ANN401 - one value a field
    """Resolve the settings: overrides, then environment, then file, then defaults.

    Parameters
    ----------
    config : Path, optional
        TOML file. Without it ``SOLVENT_CONFIG`` is looked at; without both no file is read.
    **overrides
        Values from command-line options, by field name; ``None`` means not given.

    Raises
    ------
    ConfigError
        [SLV-404] unknown key or variable, [SLV-405] a value outside its limits,
        [SLV-403] the file cannot be read or is not TOML. The message names the key.
    """
    path = config
    if path is None and os.environ.get(CONFIG_VARIABLE):
        path = Path(os.environ[CONFIG_VARIABLE])
    _refuse_unknown_variables()
    values = {} if path is None else _read_file(path)
    given = {name: value for name, value in overrides.items() if value is not None}

    class _WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            *sources: PydanticBaseSettingsSource,
            **named: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            upper = Settings.settings_customise_sources(settings_cls, *sources, **named)
            return (*upper, _FileSource(settings_cls, values))

    try:
        resolved = _WithFile(**given)
    except ValidationError as error:
        raise _as_config_error(error) from None
    return Settings.model_construct(
        _fields_set=set(resolved.model_fields_set),
        **{name: getattr(resolved, name) for name in Settings.model_fields},
    )


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which a child process resolves these very settings.

    All other ``SOLVENT_*`` variables are left out, the settings file included; the rest of this
    process's environment is passed on.
    """
    others = {k: v for k, v in os.environ.items() if not k.upper().startswith(ENV_PREFIX)}
    own = {
        ENV_PREFIX + name.upper(): str(value)
        for name in Settings.model_fields
        if (value := getattr(settings, name)) is not None
    }
    return others | own


def default_cache_dir() -> Path:
    """Return where jars are cached if no setting says otherwise (XDG base directories)."""
    if own := os.environ.get("SOLVENT_CACHE_DIR"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "solvent"
    return Path.home() / ".cache" / "solvent"


def limit_polars_threads() -> None:
    """Give polars one thread, unless POLARS_MAX_THREADS says otherwise.

    It looks there when it is first imported. For whoever reads ahead of threads that compute: more
    of polars' own would take the cores from them.
    """
    os.environ.setdefault("POLARS_MAX_THREADS", "1")


def java_home() -> Path | None:
    """Return ``JAVA_HOME`` if it is set; it wins over ``java`` on the PATH."""
    home = os.environ.get("JAVA_HOME")
    return Path(home) if home else None


def use_config_file(path: Path) -> None:
    """Make a settings file count for this process and those it starts, as `--config` asks."""
    os.environ[CONFIG_VARIABLE] = str(path.resolve())


def _refuse_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_VARIABLE}
    unknown = sorted(
        name
        for name in os.environ
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known
    )
    if unknown:
        msg = f"environment variable {unknown[0]} is not a setting; known: {_listed(known)}"
        raise ConfigError(msg, code="SLV-404")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        msg = f"settings file {path}: {error.strerror}"
        raise ConfigError(msg, code="SLV-403") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"settings file {path} is not TOML: {error}"
        raise ConfigError(msg, code="SLV-403") from None
    unknown = sorted(values.keys() - Settings.model_fields.keys())
    if unknown:
        known = _listed(Settings.model_fields)
        msg = f"settings file {path}: key {unknown[0]!r} is not a setting; known: {known}"
        raise ConfigError(msg, code="SLV-404")
    return values


def _as_config_error(error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "?"
    if first["type"] == "extra_forbidden":
        return ConfigError(f"setting {name} is not known", code="SLV-404")
    msg = f"setting {name} ({ENV_PREFIX}{name.upper()}): value {first['input']!r}: {first['msg']}"
    return ConfigError(msg, code="SLV-405")


def _listed(names: Any) -> str:  # noqa: ANN401 - any iterable of names
    return ", ".join(sorted(names))
