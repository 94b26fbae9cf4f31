"""What a reader may rely on unread: layers, no clock or chance on the replay path, docs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from solvent.cli.main import COMMANDS
from solvent.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "streams" / "solvent"
SOURCES = sorted(PACKAGE.rglob("*.py"))

#: Everything that a replay runs through: same input, same bytes, on any day and any machine.
REPLAY_PATH = ("engine", "state", "kernel", "rules", "wire", "domain")
REPLAY_SOURCES = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in REPLAY_PATH] + [
    PACKAGE / "units.py",
    PACKAGE / "errors.py",
]

BANNED_MODULES = {"random", "secrets", "uuid", "socket", "threading", "asyncio", "subprocess"}
BANNED_CALLS = {
    *("time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns"),
    *("time.perf_counter", "time.perf_counter_ns", "time.sleep"),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today"),
    *("os.urandom", "os.getenv", "os.environ", "hash", "id"),
    *("np.random", "numpy.random", "np.sum", "np.dot", "numpy.sum", "numpy.dot"),
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` of a name or attribute, the empty string of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def banned_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = {alias.name.split(".")[0] for alias in node.names} & BANNED_MODULES
            yield from (f"line {node.lineno}: import {name}" for name in sorted(found))
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            full = {f"{module}.{alias.name}" for alias in node.names}
            if module.split(".")[0] in BANNED_MODULES or full & BANNED_CALLS:
                yield f"line {node.lineno}: from {module}"
        elif isinstance(node, ast.Call) and dotted(node.func) in BANNED_CALLS:
            yield f"line {node.lineno}: {dotted(node.func)}()"
        elif isinstance(node, ast.Attribute) and dotted(node) in BANNED_CALLS:
            yield f"line {node.lineno}: {dotted(node)}"


@pytest.mark.parametrize("path", REPLAY_SOURCES, ids=name_of)
def test_replay_path_calls_no_clock_chance_or_environment(path: Path) -> None:
    assert sorted(set(banned_in(ast.parse(path.read_text("utf-8"))))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "from time import time\ntime()",
        "from datetime import datetime\ndatetime.now()",
        "import random",
        "from uuid import uuid4",
        "hash('a')",
        "import os\nos.environ['A']",
    ],
)
def test_ban_catches_each_way_of_calling(source: str) -> None:
    assert list(banned_in(ast.parse(source))) != []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_imports_the_package_by_its_name_and_asks_no_foreign_environment(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "a module says what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "streams" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "streams"
            assert node.level == 0
        elif isinstance(node, ast.Attribute | ast.Call):
            target = node.func if isinstance(node, ast.Call) else node
            if dotted(target) in {"os.environ", "os.getenv"}:
                assert name_of(path) == "settings.py", "settings.py alone reads the environment"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_imports_and_exports_what_it_says(path: Path) -> None:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    module = import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    exported = getattr(module, "__all__", [])
    assert [name for name in exported if not hasattr(module, name)] == []
    assert len(set(exported)) == len(exported)


def test_imports_point_down() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    answer = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout[-4000:]


def test_command_line_imports_nothing_heavy() -> None:
    script = "import sys, solvent.cli.main as m; m.run(['--help']); print('\\n', *sys.modules)"
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(answer.stdout.splitlines()[-1].split())
    heavy = {"faust", "aiokafka", "kafka", "numba", "numpy", "polars", "pyarrow", "altair"}
    assert loaded & heavy == set()


def commands() -> Iterator[tuple[str, Any]]:
    """Walk all commands: ``solvent kafka start`` and the object typer made of it."""

    def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
        below = getattr(command, "commands", {})
        if not below:
            yield path, command
        for name, child in below.items():
            yield from walk(f"{path} {name}", child)

    for name, (module, _) in COMMANDS.items():
        app = import_module(f"solvent.cli.{module}").app
        yield from walk(f"solvent {name}", typer.main.get_command(app))


def documentation() -> str:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return "\n".join(path.read_text("utf-8") for path in files if path.is_file())


def test_every_command_listed_exists_and_has_help() -> None:
    found = dict(commands())
    assert [path for path, command in found.items() if not command.help] == []


def test_every_command_is_documented() -> None:
    text = documentation()
    # `solvent kafka start|stop|status` documents all three.
    for group, names in re.findall(r"solvent (\w+) ([\w-]+(?:\|[\w-]+)+)", text):
        text += "".join(f"\nsolvent {group} {name}" for name in names.split("|"))
    assert [path for path, _ in commands() if path not in text] == []


def test_every_setting_is_documented() -> None:
    text = documentation()
    names = [ENV_PREFIX + name.upper() for name in Settings.model_fields]
    assert [name for name in names if name not in text] == []
