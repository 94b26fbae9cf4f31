"""`solvent demo` as a process: what it says at its end, its page, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.waiting import wait_for

FIELDS = {
    "accounts",
    "events",
    "mark_frames",
    "liquidations_opened",
    "liquidations_closed",
    "liquidations_recovered",
    "rejects",
    "late_fills",
    "breaker_trips",
    "fund",
    "takeovers",
    "deleveraged",
    "bad_debt",
    "report",
    "seconds",
}

#: What would make a page ask for another file.
LOADS = r"""\b(?:src|data)\s*=\s*["'](?!data:)|url\(["']?(?!#|data:)|@import|<link\b|<script\b"""


class Demo:
    """One demo in a session, a working and a temporary directory of its own."""

    def __init__(self, folder: Path, *more: str, seconds: int) -> None:
        self._mark = f"DEMO_TEST={uuid.uuid4()}"
        self._log = folder / "demo.log"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        name, _, value = self._mark.partition("=")
        arguments = ["--accounts", "300", "--seconds", str(seconds), "--no-live", "--json", *more]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "solvent.cli.main", "demo", *arguments],
                cwd=folder,
                env={**os.environ, name: value, "TMPDIR": str(self.temporary)},
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )

    def log(self) -> str:
        return self._log.read_text()

    def processes(self) -> dict[int, str]:
        """Return every process that inherited this demo's environment, by pid."""
        mark = self._mark.encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = command.decode(errors="replace")
            except OSError:  # gone meanwhile, or not ours
                continue
        return found

    def clean_up(self) -> None:
        """End what a failed test left, by pid."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def demos(tmp_path: Path) -> Iterator[list[Demo]]:
    made: list[Demo] = []
    yield made
    for demo in made:
        demo.clean_up()


def test_demo_ends_with_its_figures_and_a_page(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(tmp_path, seconds=20)
    demos.append(demo)
    shown, _ = demo.process.communicate(timeout=200)
    assert demo.process.returncode == 0, demo.log()
    summary = json.loads(shown.splitlines()[-1])
    assert summary.keys() >= FIELDS
    assert summary["accounts"] == 300
    assert summary["liquidations_opened"] > 0
    assert summary["liquidations_opened"] == (
        summary["liquidations_closed"]
        + summary["liquidations_recovered"]
        + summary["liquidations_open"]
    )
    assert summary["mark_frames"] >= 2 * 24 * 20  # a frame a bar at least
    assert summary["rejects"] == 0
    assert float(summary["bad_debt"]) >= 0
    live, beside = summary["judged"]
    assert (live["rulebook"]["id"], beside["rulebook"]["id"]) == ("demo-guarded", "demo")
    for day in (live, beside):
        assert day["accounts"] == 300
        assert 0 < day["liquidated_accounts"] <= day["liquidations"] <= day["offers"]

    early, late = (summary["executors"][name] for name in ("early", "late"))
    assert early["fills"] + late["fills"] > 0
    assert early["late"] + late["late"] == summary["late_fills"]
    written = sum(one["fills"] + one["late"] for one in (early, late))
    assert written == summary["executor_trades"]

    # The prices alone trip breakers, whatever the accounts: ETH moves 5 % in a quarter of an hour
    # at the low of 7 April.
    trips = summary["breakers"]
    assert summary["breaker_trips"] == len(trips) > 0
    assert "ETH-PERP" in {trip["market"] for trip in trips}
    assert all(trip["until_us"] > trip["since_us"] for trip in trips)

    phases = summary["phased"]["revisions"]
    closed = [float(phase["closed"]) for phase in phases]
    assert closed == sorted(closed)
    assert len(set(closed)) > 1
    released = [phase["released_ppm"] for phase in phases if phase["released_ppm"] is not None]
    assert released[0] < max(released)

    ways = summary["closeouts"]
    assert [way["way"] for way in ways] == ["one-shot", "phased", "phased-capped"]
    for way in ways:
        assert way["cases"] > 0
        assert float(way["liquidated_notional"]) > float(way["executor_profit"]) > 0
        assert way["worst_impact_ppm"] > 0
        assert way["refused"] == 0

    page = (tmp_path / summary["report"]).read_text()
    level = float(re.search(r"at the end ([0-9,]+[.][0-9]{2})", page)[1].replace(",", ""))  # type: ignore[index]
    assert level == pytest.approx(float(summary["fund"]), abs=0.01)  # told and committed agree
    for title in ("A liquidation in phases", "Circuit breakers", "Executors in a race"):
        assert title in page
    for title in ("Insurance fund and deleveraging", "Three ways to close"):
        assert title in page
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") >= 6  # prices, statuses, notional, phases, fund, two rulebooks
    assert "Judged, not executed" in page
    assert "<table" in page  # largest losses
    assert re.findall(LOADS, page, re.IGNORECASE) == []
    assert demo.processes() == {}
    assert list(demo.temporary.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--rulebook", "example"], id="live"),
        pytest.param(["--against", "example"], id="beside"),
    ],
)
def test_demo_refuses_a_rulebook_without_its_markets(
    demos: list[Demo], tmp_path: Path, options: list[str]
) -> None:
    demo = Demo(tmp_path, *options, seconds=10)
    demos.append(demo)
    assert demo.process.wait(60) == 3
    assert "SLV-442 rulebook example cannot judge what demo plays: it lacks" in demo.log()
    assert "BNB-PERP" in demo.log()
    assert list(demo.temporary.iterdir()) == []  # nothing was started
    assert not (tmp_path / "solvent-demo.html").exists()


@pytest.mark.parametrize(
    "moment", ["starting Kafka", "waiting for the worker", "playing 6 and 7 April"]
)
def test_demo_interrupted_leaves_nothing_behind(
    demos: list[Demo], tmp_path: Path, moment: str
) -> None:
    demo = Demo(tmp_path, seconds=60)
    demos.append(demo)
    if moment == "starting Kafka":  # the broker's process is there, its answer is not
        wait_for(demo.processes, lambda found: any("kafka.Kafka" in c for c in found.values()))
    else:
        wait_for(demo.log, lambda log: moment in log, deadline_s=60)
    os.killpg(demo.process.pid, signal.SIGINT)  # as a terminal does
    assert demo.process.wait(40) == 130
    assert demo.processes() == {}
    assert list(demo.temporary.iterdir()) == []
    assert "Traceback" not in demo.log()


def test_demo_offline_closes_the_crash_in_three_ways_and_starts_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "solvent.cli.main", "demo", "--offline", "--json"]
    told = subprocess.run(
        [*command, "--accounts", "100", "--seed", "7"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(told.stdout)
    assert (answer["accounts"], answer["seed"]) == (100, 7)
    assert [way["way"] for way in answer["closeouts"]] == ["one-shot", "phased", "phased-capped"]
    assert list(tmp_path.iterdir()) == []
