"""The local Kafka: starting, stopping, surviving, and one clear line for each thing that fails."""

from __future__ import annotations

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from solvent.cli.main import run
from solvent.errors import ServiceError
from solvent.ops import jars
from solvent.ops.broker import admin_client, answers, resolve_bootstrap
from solvent.ops.kafka import LocalKafka
from solvent.settings import Settings, default_cache_dir
from support.broker import running_kafka

pytestmark = pytest.mark.kafka

HEAP = "512m"


def a_program(folder: Path, name: str, script: str) -> None:
    """Put a shell script on a PATH of its own."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the whole PATH; no JAVA_HOME."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def test_kafka_started_by_two_at_once_is_one_process(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        nodes = [LocalKafka(tmp_path, heap=HEAP) for _ in range(2)]
        addresses = list(pool.map(LocalKafka.start, nodes))
    try:
        assert addresses[0] == addresses[1]
        assert nodes[0].pid == nodes[1].pid is not None
    finally:
        assert nodes[0].stop() is True
    assert not nodes[1].is_running()
    assert nodes[1].stop() is False


def test_kafka_killed_and_started_again_keeps_its_port_and_topics(tmp_path: Path) -> None:
    with running_kafka(tmp_path) as node:
        address, first_pid = node.bootstrap_servers, node.pid
        with admin_client(address) as admin:
            admin.create_topics({"kept": {"num_partitions": 3}}, wait_for_metadata=True)

        node.kill()
        assert not node.is_running()
        assert node.status().stale_pid == first_pid
        assert not answers(address)

        assert node.start() == address
        assert node.pid != first_pid
        with admin_client(address) as admin:
            assert admin.list_topics() == ["kept"]


def test_kafka_in_directory_with_odd_name_starts(tmp_path: Path) -> None:
    with running_kafka(tmp_path / "Käfka, data $1") as node:
        assert answers(node.bootstrap_servers)
        assert (node.folder / "logs" / "meta.properties").is_file()


def test_kafka_outlives_an_interrupt_of_its_caller(local_kafka: LocalKafka) -> None:
    pid = local_kafka.pid
    assert pid is not None
    # Ctrl-C goes to the caller's process group: the node must be in another one.
    assert os.getsid(pid) == pid != os.getsid(0)


def test_kafka_without_setting_is_the_running_one_of_the_data_dir(
    local_kafka: LocalKafka, tmp_path: Path
) -> None:
    here = local_kafka.data_dir
    assert resolve_bootstrap(Settings(data_dir=tmp_path)) == "127.0.0.1:9092"
    assert resolve_bootstrap(Settings(data_dir=here)) == local_kafka.bootstrap_servers
    assert resolve_bootstrap(Settings(data_dir=here, bootstrap_servers="kafka:1")) == "kafka:1"


def test_kafka_commands_start_status_stop_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data-dir", str(tmp_path), "--json"]
    try:
        assert run(["kafka", "status", *where]) == 1
        assert json.loads(capsys.readouterr().out)["running"] is False
        assert run(["kafka", "start", *where]) == 0
        started = json.loads(capsys.readouterr().out)
        assert run(["kafka", "start", *where]) == 0
        assert json.loads(capsys.readouterr().out)["pid"] == started["pid"]
        assert run(["kafka", "status", *where]) == 0
        assert json.loads(capsys.readouterr().out)["answering"] is True
    finally:
        assert run(["kafka", "stop", *where]) == 0
    assert json.loads(capsys.readouterr().out)["stopped"] is True


def test_kafka_with_running_node_refuses_another_port(local_kafka: LocalKafka) -> None:
    with pytest.raises(ServiceError, match="asked for 1234") as caught:
        LocalKafka(local_kafka.data_dir, 1234).start()
    assert caught.value.code == "SLV-607"
    assert local_kafka.is_running()


def test_kafka_with_stale_pid_never_touches_the_process_that_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kafka"
    folder.mkdir()
    other = {"pid": os.getpid(), "port": 40_000, "controller_port": 40_001, "version": "4.1.0"}
    (folder / "kafka.json").write_text(json.dumps(other))
    node = LocalKafka(tmp_path)
    assert node.is_running() is False
    assert node.stop() is False
    node.kill()
    assert node.status().stale_pid == os.getpid()
    assert run(["kafka", "status", "--data-dir", str(tmp_path)]) == 1
    assert "has ended; run `solvent kafka start`" in capsys.readouterr().out


def test_kafka_on_taken_port_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert run(["kafka", "start", "--data-dir", str(tmp_path), "--port", str(port)]) == 43
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"SLV-603 port {port} is taken: stop what uses it" in error


def test_kafka_that_dies_while_starting_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "kafka" / "logs"
    logs.mkdir(parents=True)
    (logs / "meta.properties").write_text("version=1\nnode.id=77\ncluster.id=somebody-elses\n")
    assert run(["kafka", "start", "--data-dir", str(tmp_path)]) == 45
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "SLV-605 Kafka died while starting" in error
    assert "node" in error
    assert not LocalKafka(tmp_path).is_running()


def test_kafka_past_its_deadline_is_ended(tmp_path: Path) -> None:
    node = LocalKafka(tmp_path, heap=HEAP)
    with pytest.raises(ServiceError, match="within 0 s") as caught:
        node.start(deadline_s=0.0)
    assert caught.value.code == "SLV-606"
    assert not node.is_running()


def test_kafka_in_unwritable_directory_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a directory")
    assert run(["kafka", "start", "--data-dir", str(tmp_path / "file" / "below")]) == 44
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "give one you can write with --data-dir" in error


def test_kafka_without_java_says_what_to_install(
    tmp_path: Path, own_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["kafka", "start", "--data-dir", str(tmp_path)]) == 41
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "SLV-601 no java on the PATH: install a Java runtime 17 or newer" in error


def test_kafka_with_old_java_names_both_versions(tmp_path: Path, own_path: Path) -> None:
    a_program(own_path, "java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    with pytest.raises(ServiceError, match="is version 11, at least 17 needed") as caught:
        LocalKafka(tmp_path).start()
    assert caught.value.code == "SLV-601"


def test_jars_without_maven_say_what_to_install(tmp_path: Path, own_path: Path) -> None:
    with pytest.raises(ServiceError, match="no mvn on the PATH: install Maven") as caught:
        jars.resolve_jars(tmp_path / "cache")
    assert caught.value.code == "SLV-602"


def test_jars_with_failing_maven_give_its_reason_and_leave_nothing(
    tmp_path: Path, own_path: Path
) -> None:
    a_program(own_path, "mvn", "echo '[ERROR] Could not transfer artifact'; exit 1")
    with pytest.raises(ServiceError, match=r"not transfer artifact.*check the network") as caught:
        jars.resolve_jars(tmp_path / "cache")
    assert caught.value.code == "SLV-602"
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_jars_asked_for_by_two_at_once_are_resolved_once(tmp_path: Path, own_path: Path) -> None:
    calls = tmp_path / "calls"
    a_program(
        own_path,
        "mvn",
        f"echo called >> {calls}\n"
        'for a in "$@"; do case $a in -DoutputDirectory=*) d=${a#*=};; esac; done\n'
        "/bin/mkdir -p $d && : > $d/kafka_2.13-4.1.0.jar",
    )
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(jars.resolve_jars, [tmp_path / "cache"] * 4))
    assert len(found) == 1
    assert [path.name for path in found.pop().iterdir()] == ["kafka_2.13-4.1.0.jar"]
    assert calls.read_text() == "called\n"


def test_jars_in_emptied_cache_are_resolved_again(tmp_path: Path, own_path: Path) -> None:
    jars.jars_dir(tmp_path).mkdir()
    with pytest.raises(ServiceError, match="no mvn on the PATH"):
        jars.resolve_jars(tmp_path)


def test_jars_of_the_pinned_version_are_what_the_pom_says() -> None:
    folder = jars.resolve_jars()
    assert folder.parent == default_cache_dir().resolve()
    assert (folder / f"kafka_2.13-{jars.kafka_version()}.jar").is_file()
    assert jars.kafka_version() == "4.1.0"


def test_kafka_that_ignores_sigterm_is_killed_after_the_deadline(tmp_path: Path) -> None:
    with running_kafka(tmp_path) as node:
        assert node.pid is not None
        os.kill(node.pid, signal.SIGSTOP)  # a frozen process cannot act on SIGTERM
        assert node.stop(deadline_s=0.5) is True
        assert not node.is_running()
