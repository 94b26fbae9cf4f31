"""`solvent rulebook` as a user calls it: output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from solvent.cli.main import run
from solvent.rules import builtin_names, builtin_rulebook, load_rulebook, parse_rulebook
from solvent.rules.source import builtin_text, family_names, family_text
from support.books import a_rulebook_dict

Output = pytest.CaptureFixture[str]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.yaml"
    path.write_text(json.dumps(a_rulebook_dict()))
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """`book` with a higher rate."""
    path = tmp_path / "other.yaml"
    rates = {"BTC-PERP": {"initial_rate_ppm": 60_000}}
    path.write_text(json.dumps(a_rulebook_dict(markets=rates)))
    return path


def test_rulebook_list_shows_each_rulebook_and_family_on_a_line(capsys: Output) -> None:
    assert run(["rulebook", "list"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["name", "kind", "presets", "markets", "hash", "description"]
    assert [line.split()[0] for line in lines] == [*builtin_names(), *family_names()]
    (example,) = (line for line in lines if line.startswith("example "))
    assert example.split(maxsplit=5) == [
        *("example", "rulebook", "1", "3", builtin_rulebook("example").hash[:12]),
        "Three perpetuals on USDC, ETH and BTC as collateral; prices from three sources",
    ]
    (family,) = (line for line in lines if line.startswith("cross-margin "))
    assert family.split()[1:5] == ["family", "-", "-", "-"]


def test_rulebook_list_json_has_hashes_of_rulebooks_alone(capsys: Output) -> None:
    assert run(["rulebook", "list", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["example"]["hash"] == builtin_rulebook("example").hash
    assert (found["example"]["presets"], found["example"]["markets"]) == (1, 3)
    assert set(found["cross-margin"]) == {"name", "kind", "description"}


@pytest.mark.parametrize("name", ["example", "cross-margin"])
def test_rulebook_show_prints_the_text_as_shipped(name: str, capsys: Output) -> None:
    assert run(["rulebook", "show", name]) == 0
    text = builtin_text(name) if name in builtin_names() else family_text(name)
    assert capsys.readouterr().out == text


def test_rulebook_show_resolved_reads_back_as_the_same(book: Path, capsys: Output) -> None:
    assert run(["rulebook", "show", str(book), "--resolved"]) == 0
    assert parse_rulebook(capsys.readouterr().out).hash == load_rulebook(book).hash


def test_rulebook_show_json_names_id_version_and_hash(book: Path, capsys: Output) -> None:
    assert run(["rulebook", "show", str(book), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {
        "name": str(book),
        "kind": "rulebook",
        **load_rulebook(book).reference,
        "text": book.read_text(),
    }
    assert run(["rulebook", "show", str(book), "--json", "--resolved"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["hash"] == load_rulebook(book).hash
    assert parse_rulebook(json.dumps(shown["document"])).hash == shown["hash"]


def test_rulebook_show_preset_prints_that_alone(capsys: Output) -> None:
    assert run(["rulebook", "show", "example", "--preset", "cross-margin"]) == 0
    written = yaml.safe_load(capsys.readouterr().out)
    assert list(written) == ["cross-margin"]
    assert written["cross-margin"]["extends"] == "cross-margin"
    assert run(["rulebook", "show", "example", "-p", "cross-margin", "--resolved"]) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["liquidation"]["dust_micros"] == 10_000_000
    assert run(["rulebook", "show", "example", "-p", "cross-margin", "--resolved", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["preset"], shown["document"]) == (
        *("example", "cross-margin"),
        resolved,
    )


def test_rulebook_show_family_resolved_is_the_family_merged(capsys: Output) -> None:
    assert run(["rulebook", "show", "cross-margin", "--resolved", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["kind"]) == ("cross-margin", "family")
    assert shown["document"]["liquidation"]["dust_micros"] == 10_000_000


@pytest.mark.parametrize("more", [[], ["--resolved"]])
@pytest.mark.parametrize("name", ["example", "cross-margin"])
def test_rulebook_show_unknown_preset_exits_three(
    name: str, more: list[str], capsys: Output
) -> None:
    assert run(["rulebook", "show", name, "--preset", "nope", *more]) == 3
    assert capsys.readouterr().err.startswith("solvent: SLV-402 rulebook preset: 'nope', limit: ")


def test_rulebook_validate_tells_id_version_counts_and_hash(book: Path, capsys: Output) -> None:
    assert run(["rulebook", "validate", str(book), "example"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"ok   {book}: test version 1, 1 preset, 3 markets, 3 assets, 5 feeds, "
        f"hash {load_rulebook(book).hash}"
    )
    assert second.startswith("ok   example: example version 1, ")


def test_rulebook_validate_with_one_that_fails_checks_all_and_exits_three(
    book: Path, tmp_path: Path, capsys: Output
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("presets: []\n")
    assert run(["rulebook", "validate", str(bad), str(book)]) == 3
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"fail {bad}: SLV-402 rulebook rulebook: None, limit: required; ")
    assert second.startswith("ok   ")
    assert run(["rulebook", "validate", "--json", str(bad), str(book)]) == 3
    failed, held = json.loads(capsys.readouterr().out)
    assert (failed["path"], failed["valid"], failed["error"]["code"]) == (
        *(str(bad), False),
        "SLV-402",
    )
    assert held == {
        "path": str(book),
        "valid": True,
        **load_rulebook(book).reference,
        "presets": 1,
        "markets": 3,
        "assets": 3,
        "underlyings": 0,
        "feeds": 5,
    }


def test_rulebook_diff_of_the_same_exits_zero(book: Path, capsys: Output) -> None:
    assert run(["rulebook", "diff", str(book), str(book)]) == 0
    assert capsys.readouterr().out == "test version 1 -> test version 1: no difference\n"
    assert run(["rulebook", "diff", str(book), str(book), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["equal"], found["differences"]) == (True, [])


def test_rulebook_diff_of_others_lists_each_difference_and_exits_one(
    book: Path, other: Path, capsys: Output
) -> None:
    path = "presets.cross-margin.requirement.sum.0.markets.BTC-PERP.initial_rate_ppm"
    assert run(["rulebook", "diff", str(book), str(other)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: 50000 -> 60000",
        "test version 1 -> test version 1: 1 changed",
    ]
    assert run(["rulebook", "diff", str(book), str(other), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "equal": False,
        "before": load_rulebook(book).reference,
        "after": load_rulebook(other).reference,
        "differences": [{"path": path, "kind": "changed", "before": 50_000, "after": 60_000}],
    }


def test_rulebook_diff_with_one_that_fails_exits_three(book: Path, capsys: Output) -> None:
    assert run(["rulebook", "diff", str(book), "nope"]) == 3
    assert capsys.readouterr().err.startswith("solvent: SLV-402 rulebook file: 'nope', limit: ")
