"""The TypeScript consumer: it compiles strictly and does what the conformance pack expects."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.conformance import PACK

_ROOT = Path(__file__).resolve().parents[2]
_SOURCE = _ROOT / "examples" / "executor-ts"


def _run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled consumer; the compiler comes from npm's cache or registry, by the lock file."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("no node with npm on the PATH: the TypeScript consumer is not checked")
    folder = tmp_path_factory.mktemp("executor-ts") / "consumer"
    shutil.copytree(_SOURCE, folder, ignore=shutil.ignore_patterns("node_modules", "build"))
    options = ("--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts")
    answer = _run(npm, "ci", *options, folder=folder)
    if answer.returncode != 0:
        pytest.skip(f"npm ci brings no tsc here: {answer.stderr.strip()[-300:]}")
    answer = _run(node, "node_modules/typescript/bin/tsc", folder=folder)
    assert answer.returncode == 0, answer.stdout
    return folder


def test_typescript_consumer_does_what_the_pack_expects(build: Path) -> None:
    answer = _run("node", "build/conformance.js", PACK, folder=build)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"{len(list(PACK.glob('*.jsonl')))} scenarios" in answer.stdout


def test_typescript_consumer_says_where_it_differs(build: Path, tmp_path: Path) -> None:
    text = (PACK / "plain-life.jsonl").read_text("utf-8")
    wrong = text.replace('"reason":"live"', '"reason":"gap"', 1)
    (tmp_path / "wrong.jsonl").write_text(wrong, "utf-8")
    answer = _run("node", "build/conformance.js", tmp_path, folder=build)
    assert answer.returncode == 1
    assert "plain-life partition 0 offset 0: act live, expected act gap" in answer.stdout


def test_lock_file_names_no_address() -> None:
    assert "://" not in (_SOURCE / "package-lock.json").read_text("utf-8")
