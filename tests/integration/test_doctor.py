"""`solvent doctor` green on a sound machine, and red for each thing made really wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from solvent.cli.main import run
from solvent.ops.broker import admin_client
from solvent.ops.doctor import Finding, examine, pinned_versions
from solvent.ops.topics import plan
from solvent.settings import Settings
from solvent.wire.topics import ACCOUNTS, JOURNAL, MARKS
from support.broker import Broker
from support.waiting import wait_for

pytestmark = pytest.mark.kafka


def settings_for(kafka: Broker, partitions: int = 2) -> Settings:
    return Settings(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=kafka.prefix,
        partitions=partitions,
    )


def of(findings: list[Finding], check: str) -> list[tuple[str, str]]:
    return [(f.level, f.message) for f in findings if f.check == check]


def test_doctor_on_sound_machine_is_green(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.apply_topics()
    monkeypatch.setenv("SOLVENT_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("SOLVENT_TOPIC_PREFIX", kafka.prefix)
    monkeypatch.setenv("SOLVENT_PARTITIONS", "2")
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    levels = {finding["check"]: finding["level"] for finding in report["findings"]}
    assert {"java", "maven", "libraries", "broker", "topics", "co-partition"} <= levels.keys()
    assert set(levels.values()) <= {"ok", "warn"}


def test_doctor_without_java_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert run(["doctor", "--data-dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "FAIL java           no java on the PATH: install a Java runtime 17 or newer" in out


def test_doctor_without_java_but_with_a_broker_given_is_yellow(
    kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert [level for level, _ in of(examine(settings_for(kafka)), "java")] == ["warn"]


def test_doctor_without_maven_but_with_jars_is_yellow(
    kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = shutil.which("java")
    assert java is not None
    (tmp_path / "java").symlink_to(java)
    monkeypatch.setenv("PATH", str(tmp_path))
    ((level, message),) = of(examine(settings_for(kafka)), "maven")
    assert level == "warn"
    assert "not needed now" in message


def test_doctor_without_broker_is_red(tmp_path: Path) -> None:
    findings = examine(Settings(bootstrap_servers="127.0.0.1:1", data_dir=tmp_path))
    ((level, message),) = of(findings, "broker")
    assert level == "fail"
    assert "run `solvent kafka start`" in message
    assert of(findings, "topics") == []


def test_doctor_with_missing_topic_is_red(kafka: Broker) -> None:
    topics = kafka.apply_topics()
    missing = topics.physical(JOURNAL)
    with admin_client(kafka.bootstrap_servers) as admin:
        admin.delete_topics([missing])
    wait_for(lambda: plan(kafka.bootstrap_servers, topics).to_create, bool)
    assert of(examine(settings_for(kafka)), "topics") == [
        ("fail", f"{missing}: missing, 2 partitions wanted: run `solvent topics apply`")
    ]


def test_doctor_with_wrong_partition_count_is_red(kafka: Broker) -> None:
    topics = kafka.apply_topics(partitions=2)
    marks = topics.physical(MARKS)
    with admin_client(kafka.bootstrap_servers) as admin:
        admin.create_partitions({marks: 3})
    wait_for(lambda: plan(kafka.bootstrap_servers, topics).refused, bool)
    findings = examine(settings_for(kafka))
    ((level, message),) = of(findings, "topics")
    assert level == "fail"
    assert message.startswith(f"{marks}: 3 partitions, 2 wanted: set SOLVENT_PARTITIONS")
    assert [level for level, _ in of(findings, "co-partition")] == ["fail"]


def test_doctor_with_drifted_setting_is_red(kafka: Broker) -> None:
    from kafka.admin import ConfigResource

    topics = kafka.apply_topics()
    accounts = topics.physical(ACCOUNTS)
    with admin_client(kafka.bootstrap_servers) as admin:
        admin.alter_configs([ConfigResource("topic", accounts, {"cleanup.policy": "delete"})])
    wait_for(lambda: plan(kafka.bootstrap_servers, topics).to_alter, bool)
    message = f"{accounts}: cleanup.policy is delete, compact wanted: run `solvent topics apply`"
    assert of(examine(settings_for(kafka)), "topics") == [("fail", message)]


def test_doctor_with_other_library_version_is_red() -> None:
    findings = examine(Settings(bootstrap_servers="127.0.0.1:1"), pins={"aiokafka": "0.13.0"})
    assert of(findings, "libraries") == [
        ("fail", "aiokafka is 0.14.0, 0.13.0 needed: pip install aiokafka==0.13.0")
    ]


def test_doctor_pins_are_those_of_the_package() -> None:
    assert pinned_versions() == {
        "faust-streaming": "0.15.3",
        "aiokafka": "0.14.0",
        "mode-streaming": "0.7.1",
    }


def test_doctor_with_absent_rulebook_is_red(tmp_path: Path) -> None:
    settings = Settings(bootstrap_servers="127.0.0.1:1", rulebook=tmp_path / "none.yaml")
    assert [level for level, _ in of(examine(settings), "rulebook")] == ["fail"]
