"""Rulebooks as documents: canonical, compared, excerpted; and what ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from solvent.errors import ConfigError
from solvent.rules import builtin_names, builtin_rulebook, parse_rulebook
from solvent.rules.catalog import (
    check_rulebook,
    description_of,
    find_source,
    preset_text,
    resolved_source,
    shipped,
)
from solvent.rules.differences import Difference, differences
from solvent.rules.document import document_yaml, resolved_document
from solvent.rules.source import family_names, family_text
from support.books import a_rulebook_dict

Document = dict[str, Any]


def resolved(document: Document) -> Document:
    return resolved_document(parse_rulebook(json.dumps(document)).model)


def a_rich_document() -> Document:
    """A rulebook whose `null` counts: the last bracket and the last tier have no bound."""
    document = a_rulebook_dict()
    rates = {"initial_rate_ppm": 50_000, "maintenance_rate_ppm": 25_000}
    document["feeds"]["OI"] = {"exponent": -18, "kind": "state"}
    preset = document["presets"]["cross-margin"]
    preset["collateral"]["ETH"] = {
        "tiers": [{"up_to": "0.50", "haircut_ppm": 1}, {"up_to": None, "haircut_ppm": 2}]
    }
    preset["requirement"]["sum"] = [
        {"term": "brackets", "default": [{"up_to_usd": 9, **rates}, {"up_to_usd": None, **rates}]},
        {
            "term": "flat",
            "markets": {
                "SOL-PERP": {
                    **rates,
                    "open_interest": {"feed": "OI", "lower_usd": 1, "upper_usd": 2},
                }
            },
        },
    ]
    return document


# -- documents


@pytest.mark.parametrize("name", builtin_names())
def test_document_of_builtin_reads_back_as_the_same_rulebook(name: str) -> None:
    rulebook = builtin_rulebook(name)
    document = resolved_document(rulebook.model)
    again = parse_rulebook(document_yaml(document))
    assert again.hash == rulebook.hash
    assert resolved_document(again.model) == document


def test_document_with_unbounded_last_tier_and_bracket_keeps_their_null() -> None:
    document = resolved(a_rich_document())
    preset = document["presets"]["cross-margin"]
    assert [tier["up_to"] for tier in preset["collateral"]["ETH"]["tiers"]] == ["0.50", None]
    assert preset["requirement"]["sum"][0]["default"][1]["up_to_usd"] is None
    text = document_yaml(document)
    assert "null" in text
    assert parse_rulebook(text).hash == parse_rulebook(json.dumps(a_rich_document())).hash


def test_document_is_the_same_however_the_rulebook_was_written() -> None:
    document = a_rich_document()
    shuffled = dict(reversed(document.items()))
    shuffled["instruments"] = dict(reversed(document["instruments"].items()))
    shuffled["oracle"] = {"default": {"max_age_us": 60_000_000}}  # the default
    one, other = resolved(document), resolved(shuffled)
    assert document_yaml(one) == document_yaml(other)
    assert list(other["instruments"]) == ["BTC-PERP", "ETH-PERP", "SOL-PERP"]
    assert "extends" not in other["presets"]["cross-margin"]
    assert other["presets"]["cross-margin"]["liquidation"]["dust_micros"] == 10_000_000  # family's


# -- differences


def test_differences_of_equal_rulebooks_are_none() -> None:
    assert differences(resolved(a_rich_document()), resolved(a_rich_document())) == ()


def set_rate(document: Document) -> None:
    markets = document["presets"]["cross-margin"]["requirement"]["sum"][1]["markets"]
    markets["SOL-PERP"]["initial_rate_ppm"] = 60_000


def add_asset(document: Document) -> None:
    document["assets"]["SOL"] = {"quantum_exponent": -9, "index_feed": "SOL-PERP"}


def drop_bracket(document: Document) -> None:
    del document["presets"]["cross-margin"]["requirement"]["sum"][0]["default"][0]


def set_option(document: Document) -> None:
    document["presets"]["cross-margin"]["collateral"]["ETH"]["cap"] = "5"


def add_empty(document: Document) -> None:
    document["oracle"] = {"feeds": {"BTC/USD": {}}}


def reorder_feeds(document: Document) -> None:
    feeds = document["feeds"]
    document["feeds"] = {"OI": feeds.pop("OI"), **feeds}


SUM = "presets.cross-margin.requirement.sum"


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        pytest.param(
            set_rate,
            [f"{SUM}.1.markets.SOL-PERP.initial_rate_ppm: 50000 -> 60000"],
            id="value",
        ),
        pytest.param(
            add_asset,
            [
                (
                    'assets.SOL: added {"quantum_exponent": -9, "index_feed": "SOL-PERP", '
                    '"borrowable": false}'
                )
            ],
            id="name",
        ),
        pytest.param(
            drop_bracket,
            [
                f"{SUM}.0.default.0.up_to_usd: 9 -> null",
                (
                    f'{SUM}.0.default.1: removed {{"up_to_usd": null, "initial_rate_ppm": 50000, '
                    '"maintenance_rate_ppm": 25000}'
                ),
            ],
            id="list",
        ),
        pytest.param(
            set_option,
            ['presets.cross-margin.collateral.ETH.cap: added "5"'],
            id="optional key",
        ),
        pytest.param(add_empty, ["oracle.feeds.BTC/USD: added {}"], id="empty section"),
        pytest.param(
            reorder_feeds,
            [
                (
                    'feeds: reordered ["BTC-PERP", "ETH-PERP", "SOL-PERP", "BTC/USD", "ETH/USD", '
                    '"OI"] -> ["OI", "BTC-PERP", "ETH-PERP", "SOL-PERP", "BTC/USD", "ETH/USD"]'
                )
            ],
            id="order",
        ),
    ],
)
def test_differences_name_path_before_and_after_and_the_hash_tells_too(
    change: Callable[[Document], None], lines: list[str]
) -> None:
    before, after = a_rich_document(), a_rich_document()
    change(after)
    found = differences(resolved(before), resolved(after))
    assert [difference.line for difference in found] == lines
    back = differences(resolved(after), resolved(before))
    opposite = {"added": "removed", "removed": "added"}
    assert sorted((d.path, d.kind) for d in back) == sorted(
        (d.path, opposite.get(d.kind, d.kind)) for d in found
    )
    one, other = (parse_rulebook(json.dumps(document)) for document in (before, after))
    assert one.hash != other.hash


def test_difference_of_true_and_one_is_seen() -> None:
    sections: Document = {"feeds": {}, "assets": {}, "underlyings": {}, "presets": {}}
    found = differences({**sections, "a": True}, {**sections, "a": 1})
    assert found == (Difference(path="a", kind="changed", before=True, after=1),)


# -- what ships


def test_shipped_are_all_rulebooks_and_families_under_names_of_their_own() -> None:
    entries = shipped()
    names = [entry.name for entry in entries]
    assert names == [*builtin_names(), *family_names()]
    assert len(set(names)) == len(names)
    for entry in entries:
        assert entry.description, f"{entry.name} begins with a comment that says what it is"
        assert (entry.rulebook is None) == (entry.kind == "family")


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("# One. Two.\na: 1\n", "One"),
        ("\n# Of v3.2, in\n#   two lines.\n# More.\n", "Of v3.2, in two lines"),
        ("# No period\na: 1\n# Later.\n", "No period"),
        ("a: 1\n# Later.\n", ""),
        ("", ""),
    ],
)
def test_description_is_the_first_sentence_of_the_first_comment(
    text: str, description: str
) -> None:
    assert description_of(text) == description


@pytest.mark.parametrize("name", family_names())
def test_family_resolves_to_a_mapping_that_extends_nothing(name: str) -> None:
    found = resolved_source(find_source(name))
    assert found
    assert "extends" not in found


def test_source_of_a_file_goes_before_a_builtin_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_source("example").text.startswith("#")
    assert find_source("cross-margin").text == family_text("cross-margin")
    Path("example").write_text("a: 1\n")
    assert find_source("example").text == "a: 1\n"


def test_source_of_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"name: 'nope', limit: a file, or one of .*example.*"):
        find_source("nope")


def test_check_of_absent_file_is_an_error_and_no_rulebook(tmp_path: Path) -> None:
    check = check_rulebook(tmp_path / "none.yaml")
    assert check.rulebook is None
    assert check.error is not None
    assert check.error.code == "SLV-402"


# -- excerpts

TWO = """\
feeds: {}
presets:
  # Of the venue's page.

  # Of its API,
  # yesterday.
  a:
    extends: x  # tail

    # on pnl
    pnl:
      kind: full
      # the end of a

  # On b.
  "b": {extends: x,
        pnl: {kind: full}}
  # On c.
  c:
    {extends: x}
  d:
    pnl: {}
bindings: {}
"""


@pytest.mark.parametrize(
    ("preset", "excerpt"),
    [
        (
            "a",
            (
                "# Of its API,\n# yesterday.\na:\n  extends: x  # tail\n\n  # on pnl\n  pnl:\n"
                "    kind: full\n    # the end of a\n"
            ),
        ),
        ("b", '"b": {extends: x,\n        pnl: {kind: full}}\n'),
        ("c", "c:\n    {extends: x}\n"),
        ("d", "d:\n  pnl: {}\n"),
    ],
)
def test_preset_text_is_the_preset_with_its_comments(preset: str, excerpt: str) -> None:
    found = preset_text(TWO, preset)
    assert found == excerpt
    assert yaml.safe_load(found) == {preset: yaml.safe_load(TWO)["presets"][preset]}


def test_preset_text_at_the_end_of_a_text_without_newline_is_whole() -> None:
    assert preset_text("presets:\n  a:\n    b:\n      c: 1", "a") == "a:\n  b:\n    c: 1\n"
    assert preset_text('{"presets": {"a": {"b": 1}}}', "a") == '"a": {"b": 1}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO, "preset: 'e', limit: one of a, b, c, d"),
        ("a: 1", "preset: 'e', limit: none: this is no rulebook with presets"),
        ("- 1", "preset: 'e', limit: none: this is no rulebook with presets"),
        ("", "preset: 'e', limit: none: this is no rulebook with presets"),
        ("a: [", "valid YAML"),
    ],
)
def test_preset_text_without_that_preset_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preset_text(text, "e")
