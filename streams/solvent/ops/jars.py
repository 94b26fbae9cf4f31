"""Java, Maven and Kafka's jars: found, checked and resolved once into a cache.

The jars come through the machine's own Maven settings by the pinned ``deploy/kafka/pom.xml``. They
are copied into a fresh directory that is renamed into place under a file lock, so two callers at
once are safe and a broken download leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import solvent
from solvent.errors import InvariantError, ServiceError
from solvent.ops.locks import file_lock
from solvent.settings import default_cache_dir, java_home

__all__ = [
    "JAVA_MAJOR",
    "deploy_dir",
    "find_java",
    "find_maven",
    "jars_dir",
    "java_major",
    "kafka_version",
    "resolve_jars",
]

#: Kafka 4 needs this Java or a newer one.
JAVA_MAJOR = 17
_POM = "{http://maven.apache.org/POM/4.0.0}"
_MAVEN_DEADLINE_S = 600.0
_MAVEN_HINT = "check the network and Maven's settings"


def deploy_dir() -> Path:
    """Return the folder with ``pom.xml`` and ``server.properties``: checkout first, then wheel."""
    package = Path(solvent.__file__).resolve().parent
    for folder in (package.parents[1] / "deploy" / "kafka", package / "_deploy" / "kafka"):
        if (folder / "pom.xml").is_file():
            return folder
    msg = f"deploy/kafka/pom.xml is neither beside nor inside {package}: reinstall solvent"
    raise ServiceError(msg, code="SLV-602")


def kafka_version() -> str:
    """Return the pinned Kafka version, read from the pom."""
    found = ET.parse(deploy_dir() / "pom.xml").find(f"{_POM}properties/{_POM}kafka.version")  # noqa: S314 - our own file
    if found is None or not found.text:
        msg = f"{deploy_dir() / 'pom.xml'} names no kafka.version"
        raise InvariantError(msg)
    return found.text


def find_java() -> Path:
    """Return a Java of at least version 17.

    Raises
    ------
    ServiceError
        [SLV-601] None on the PATH or in JAVA_HOME, or too old.
    """
    home = java_home()
    found = shutil.which("java") if home is None else shutil.which(str(home / "bin" / "java"))
    where = "on the PATH" if home is None else f"in JAVA_HOME {home}"
    if found is None:
        msg = (
            f"no java {where}: install a Java runtime {JAVA_MAJOR} or newer "
            f"(e.g. openjdk-{JAVA_MAJOR}-jre-headless)"
        )
        raise ServiceError(msg, code="SLV-601")
    major = java_major(Path(found))
    if major < JAVA_MAJOR:
        msg = (
            f"java {found} is version {major}, at least {JAVA_MAJOR} needed: "
            "install one or set JAVA_HOME"
        )
        raise ServiceError(msg, code="SLV-601")
    return Path(found)


def java_major(java: Path) -> int:
    """Return the major version a Java binary reports, 0 if it cannot tell."""
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(found.group(1)) if found else 0


def find_maven() -> Path:
    """Return Maven's ``mvn``.

    Raises
    ------
    ServiceError
        [SLV-602] It is not on the PATH.
    """
    found = shutil.which("mvn")
    if found is None:
        msg = (
            "no mvn on the PATH: install Maven 3.6 or newer (e.g. apt install maven), "
            "or set SOLVENT_BOOTSTRAP_SERVERS to a Kafka you run"
        )
        raise ServiceError(msg, code="SLV-602")
    return Path(found)


def jars_dir(cache_dir: Path | None = None) -> Path:
    """Return where this pom's jars are cached, resolved or not."""
    pom = (deploy_dir() / "pom.xml").read_bytes()
    digest = hashlib.sha256(pom).hexdigest()[:8]
    return (cache_dir or default_cache_dir()).resolve() / f"kafka-{kafka_version()}-{digest}"


def resolve_jars(cache_dir: Path | None = None) -> Path:
    """Return the folder with Kafka's jars, asking Maven for them the first time.

    Raises
    ------
    ServiceError
        [SLV-602] no Maven, or it failed; [SLV-604] the cache cannot be written.
    """
    target = jars_dir(cache_dir)
    if _is_complete(target):
        return target
    maven = find_maven()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target.with_name(target.name + ".lock")):
            if not _is_complete(target):
                shutil.rmtree(target, ignore_errors=True)  # emptied by a cleaner of caches
                _ask_maven(maven, target)
    except OSError as error:
        msg = (
            f"cache {target.parent}: {error.strerror}: "
            "set SOLVENT_CACHE_DIR to a directory you can write"
        )
        raise ServiceError(msg, code="SLV-604") from None
    return target


def _is_complete(folder: Path) -> bool:
    return any(folder.glob("kafka_2.13-*.jar"))


def _ask_maven(maven: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".resolving-") as scratch:
        shutil.copy(deploy_dir() / "pom.xml", scratch)
        jars = Path(scratch) / "jars"
        command = [
            str(maven),
            "-q",
            "-B",
            "-f",
            f"{scratch}/pom.xml",
            "dependency:copy-dependencies",
        ]
        try:
            answer = subprocess.run(
                [*command, f"-DoutputDirectory={jars}"],
                capture_output=True,
                text=True,
                timeout=_MAVEN_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            msg = f"mvn did not resolve Kafka within {_MAVEN_DEADLINE_S:.0f} s: {_MAVEN_HINT}"
            raise ServiceError(msg, code="SLV-602") from None
        if answer.returncode != 0 or not _is_complete(jars):
            lines = [s for s in (answer.stdout + answer.stderr).splitlines() if "ERROR" in s]
            reason = lines[0].strip()[:200] if lines else f"exit code {answer.returncode}"
            msg = f"mvn could not resolve Kafka {kafka_version()}: {reason}: {_MAVEN_HINT}"
            raise ServiceError(msg, code="SLV-602")
        jars.rename(target)
