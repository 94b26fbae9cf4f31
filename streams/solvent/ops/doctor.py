"""What a worker needs on this machine and on the broker, looked at once; nothing is changed.

Each check gives one finding: ``ok`` (green), ``warn`` (yellow: it works, but) or ``fail`` (red: a
worker would not). A check that cannot be made because an earlier one failed is left out, so the
first red line is the one to act on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from solvent.errors import SolventError
from solvent.ops.broker import answers, resolve_bootstrap
from solvent.ops.jars import find_java, find_maven, jars_dir, java_major, kafka_version
from solvent.ops.workers import ask, known_workers
from solvent.wire.topics import Topics

if TYPE_CHECKING:
    from solvent.settings import Settings

__all__ = ["Finding", "Level", "examine", "pinned_versions"]

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    level: Level
    message: str


def examine(settings: Settings, *, pins: Mapping[str, str] | None = None) -> list[Finding]:
    """Run all checks.

    Parameters
    ----------
    settings : Settings
        The run that would be started.
    pins : mapping, optional
        Distribution name -> version that must be installed; default: what `solvent` itself pins.
    """
    findings = [*_check_java(settings), *_check_maven(settings), *_check_libraries(pins)]
    findings.append(_check_numba_cache())
    findings += _check_broker(settings)
    findings.append(_check_rulebook(settings))
    findings += _check_workers(settings)
    return findings


def pinned_versions() -> dict[str, str]:
    """Return the versions `solvent` pins exactly, read from its own package metadata."""
    pinned = {}
    for requirement in metadata.requires("solvent") or []:
        wanted, _, condition = requirement.partition(";")
        name, exact, version = wanted.partition("==")
        if exact and not condition:
            pinned[name.strip()] = version.strip()
    return pinned


def _check_java(settings: Settings) -> Iterator[Finding]:
    try:
        java = find_java()
    except SolventError as error:
        # Another broker makes Java unnecessary here.
        needed = settings.bootstrap_servers is None
        yield Finding("java", "fail" if needed else "warn", error.message)
    else:
        yield Finding("java", "ok", f"version {java_major(java)} at {java}")


def _check_maven(settings: Settings) -> Iterator[Finding]:
    cached = jars_dir(settings.cache_dir)
    if cached.is_dir():
        kept = f"Kafka {kafka_version()} jars in {cached}"
        try:
            yield Finding("maven", "ok", f"{find_maven()}; {kept}")
        except SolventError:
            yield Finding("maven", "warn", f"no mvn on the PATH, not needed now: {kept}")
        return
    try:
        maven = find_maven()
    except SolventError as error:
        needed = settings.bootstrap_servers is None
        yield Finding("maven", "fail" if needed else "warn", error.message)
    else:
        yield Finding("maven", "ok", f"{maven}; `solvent kafka start` will resolve the jars once")


def _check_libraries(pins: Mapping[str, str] | None) -> Iterator[Finding]:
    try:
        wanted = pinned_versions() if pins is None else pins
    except metadata.PackageNotFoundError:
        yield Finding("libraries", "fail", "solvent is not installed: run `make` or pip install it")
        return
    exact = True
    for name, version in sorted(wanted.items()):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "not installed"
        if found != version:
            exact = False
            message = f"{name} is {found}, {version} needed: pip install {name}=={version}"
            yield Finding("libraries", "fail", message)
    if exact:
        yield _check_hooks(wanted)


def _check_hooks(wanted: Mapping[str, str]) -> Finding:
    """Compare the methods our runtime overrides with those it was made for."""
    from solvent.runtime.pins import check_pins

    try:
        check_pins()
    except SolventError as error:
        return Finding("libraries", "fail", error.message)
    told = ", ".join(f"{name} {version}" for name, version in sorted(wanted.items()))
    return Finding("libraries", "ok", told)


def _check_numba_cache() -> Finding:
    from solvent.kernel.jit import cache_folder

    folder = cache_folder()
    if folder is not None:
        return Finding("numba cache", "ok", f"{folder.parent} can be written")
    message = "no folder can be written: kernels compile at each start; set NUMBA_CACHE_DIR"
    return Finding("numba cache", "warn", message)


def _check_broker(settings: Settings) -> Iterator[Finding]:
    address = resolve_bootstrap(settings)
    if not answers(address):
        message = (
            f"no Kafka at {address}: run `solvent kafka start`, "
            "or set SOLVENT_BOOTSTRAP_SERVERS to one that runs"
        )
        yield Finding("broker", "fail", message)
        return
    yield Finding("broker", "ok", f"answers at {address}")
    try:
        yield from _check_topics(address, settings)
    except SolventError as error:
        yield Finding("topics", "fail", error.message)


def _check_topics(address: str, settings: Settings) -> Iterator[Finding]:
    from solvent.ops.topics import plan

    found = plan(address, Topics(prefix=settings.topic_prefix, partitions=settings.partitions))
    for state in found.states:
        for line in state.findings:
            remedy = (
                "set SOLVENT_PARTITIONS to what exists or use another SOLVENT_TOPIC_PREFIX"
                if state.has_partition_drift
                else "run `solvent topics apply`"
            )
            yield Finding("topics", "fail", f"{line}: {remedy}")
    if found.is_in_line:
        told = f"{len(found.states)} topics, {settings.partitions} partitions"
        yield Finding("topics", "ok", f"{told}, settings as wanted")
    if found.copartition_finding is not None:
        yield Finding("co-partition", "fail", found.copartition_finding)
    elif not any(state.is_missing for state in found.states):
        yield Finding("co-partition", "ok", "all account-keyed topics have the same partitions")


def _check_rulebook(settings: Settings) -> Finding:
    if settings.rulebook is None:
        return Finding("rulebook", "warn", "none set: a worker needs SOLVENT_RULEBOOK")
    from solvent.rules import find_rulebook

    try:
        rulebook = find_rulebook(settings.rulebook)
    except SolventError as error:
        return Finding("rulebook", "fail", error.message)
    return Finding("rulebook", "ok", f"{rulebook.id} version {rulebook.version} holds")


def _check_workers(settings: Settings) -> Iterator[Finding]:
    """Tell what the workers that run on this data directory say of themselves."""
    for address in known_workers(settings.data_dir):
        body = ask(address, "/readyz")
        if body is None:
            continue  # not running
        who = f"{address.instance} (pid {address.pid}) at {address.url}"
        if body["ok"]:
            yield Finding("worker", "ok", f"{who} is ready")
        else:
            yield Finding("worker", "warn", f"{who} is not ready: {'; '.join(body['reasons'])}")
