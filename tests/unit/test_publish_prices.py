"""A rulebook published, as the price shard takes it: told in order, judged by, kept, refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from solvent.engine.prices import PriceShard
from solvent.engine.run import Run
from solvent.errors import ConfigError, PartitionError
from solvent.rules import CompiledRulebook, parse_rulebook
from support.contracts import validator
from support.kinds import a_kinds_rulebook
from support.prices import START_US, Cut, Feeder, Record, a_feeder, a_rulebook, a_successor

WIDE = a_successor(old='"band_ppm":20000', new='"band_ppm":200000')
STRICT = a_successor(old='"min_sources":1', new='"min_sources":2')
MORE = a_successor(old='"feeds":{', new='"feeds":{"SOL-PERP":{"exponent":-3},')


def with_header(rulebook: CompiledRulebook, **changes: Any) -> bytes:
    told = json.loads(rulebook.document)
    told["rulebook"] |= changes
    return json.dumps(told).encode()


def without_feed(rulebook: CompiledRulebook, feed: str) -> bytes:
    told = json.loads(rulebook.document)
    del told["feeds"][feed]
    return json.dumps(told).encode()


def restored(cuts: list[Cut], own: CompiledRulebook) -> Feeder:
    """Return a shard restored from the rows of all slices, by a worker with a rulebook."""
    shard = PriceShard(own)
    for cut in cuts:
        shard.load(Run.of([Record(0, 0, key, value) for key, value in cut.outputs.rows]))
    shard.resume({}, cuts[-1].outputs.state)
    return Feeder(shard, offset=100)


def test_rulebook_is_told_in_a_frame_of_its_own_behind_what_changed_before() -> None:
    feeder = a_feeder()
    feeder.tick("100")
    feeder.rulebook(WIDE)
    feeder.tick("101", at=1)
    cut = feeder.cut()
    first, second, third = cut.frames
    assert [mark["price"] for mark in first["marks"]] == ["100"]
    assert (second["marks"], "settlements" in second) == ([], False)
    assert second["rulebook"] == json.loads(WIDE.document)
    assert [mark["price"] for mark in third["marks"]] == ["101"]
    assert [frame["seq"] for frame in cut.frames] == [1, 2, 3]
    assert not any("rulebook" in frame for frame in (first, third))
    for frame in cut.frames:
        validator("marks").validate(frame)
    assert cut.rows["\0rulebook"] == {"schema_version": 1, "rulebook": json.loads(WIDE.document)}
    validator("price-state").validate(cut.rows["\0rulebook"])
    assert (cut.outputs.state["rulebook"], cut.outputs.rules) == (WIDE.hash, WIDE.reference)
    assert feeder.shard.rules == WIDE.reference
    assert "\0rulebook" not in feeder.cut().rows


def test_feeds_are_judged_by_it_at_once() -> None:
    feeder = a_feeder()
    feeder.tick("100")
    assert feeder.cut().mark()["state"] == "valid"
    feeder.clock(2)
    feeder.rulebook(STRICT)
    cut = feeder.cut()
    assert [len(frame["marks"]) for frame in cut.frames] == [0, 0, 1]
    assert cut.frames[-1]["marks"][0] | {"sources": 0} == {
        "feed": "BTC-PERP",
        "price": "100",
        "confidence": "0",
        "state": "diverged",
        "since_us": START_US + 2_000_000,
        "sources": 0,
    }
    feeder.tick("100.5", at=2.5, source="b")
    assert feeder.cut().mark()["state"] == "valid"


def test_state_used_otherwise_from_there_on_is_bounded_by_its_new_use() -> None:
    """A word below 0 is one until a rulebook calls its feed a volatility; then nobody is judged."""
    feed, before = "USDC/deposit", a_kinds_rulebook()
    model = json.loads(before.document)
    model["rulebook"]["version"] = 2
    for option in ("BTC-CALL", "BTC-PUT"):
        model["instruments"][option]["volatility_feed"] = feed
    after = parse_rulebook(json.dumps(model))
    feeder = Feeder(PriceShard(before))
    feeder.state("-1", feed=feed)
    assert feeder.cut().mark(feed)["state"] == "valid"
    feeder.rulebook(after, at=1)
    cut = feeder.cut()
    assert (cut.rejects, cut.frames[-1]["marks"][0]["state"]) == ([], "stale")
    feeder.clock(2)
    feeder.state("-2", feed=feed, at=2)
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == ["SLV-103"]
    feeder.state("0.5", feed=feed, at=3)
    mark = feeder.cut().mark(feed)
    assert (mark["state"], mark["value"]) == ("valid", "0.5")


def test_feed_that_is_new_takes_ticks_from_there_on() -> None:
    feeder = a_feeder()
    feeder.tick("7", feed="SOL-PERP")
    feeder.rulebook(MORE)
    feeder.tick("7.125", feed="SOL-PERP", at=1)
    cut = feeder.cut()
    assert [reject["code"] for reject in cut.rejects] == ["SLV-301"]
    assert cut.mark("SOL-PERP")["price"] == "7.125"


def test_rulebook_in_force_published_again_is_a_duplicate() -> None:
    feeder = a_feeder()
    feeder.rulebook(a_rulebook())
    feeder.rulebook(WIDE)
    feeder.cut()
    feeder.rulebook(WIDE)
    cut = feeder.cut()
    assert (cut.frames, cut.rejects, cut.rows) == ([], [], {})
    assert feeder.shard.counts["duplicates"] == 2


@pytest.mark.parametrize(
    ("told", "named"),
    [
        pytest.param(b"{}", "rulebook rulebook: None, limit: required", id="empty"),
        pytest.param(
            WIDE.document.replace(b'"band_ppm":200000', b'"band_ppm":"wide"'),
            "oracle.default.band_ppm: 'wide'",
            id="wrong type",
        ),
        pytest.param(
            WIDE.document.replace(b'"maintenance_rate_ppm":25000', b'"maintenance_rate_ppm":60000'),
            "initial_rate_ppm: 50000",
            id="maintenance above initial",
        ),
        pytest.param(
            WIDE.document.replace(b'"presets":{', b'"presets":{"x":{"extends":"y"},'),
            "presets.x.extends: 'y', limit: no such key",
            id="extends",
        ),
        pytest.param(with_header(WIDE, version=1), "rulebook.version: 1", id="no later version"),
        pytest.param(with_header(WIDE, id="other"), "rulebook.id: 'other'", id="another rulebook"),
        pytest.param(
            with_header(WIDE, effective_at_us=START_US + 1),
            f"rulebook.effective_at_us: {START_US + 1}, limit: {START_US}",
            id="not yet",
        ),
        pytest.param(
            without_feed(WIDE, "BTC-PERP/oi"),
            "feeds.BTC-PERP/oi: None",
            id="feed less",
        ),
    ],
)
def test_rulebook_that_does_not_hold_or_follow_is_refused_and_changes_nothing(
    told: bytes, named: str
) -> None:
    feeder = a_feeder()
    feeder.tick("100")
    feeder.cut()
    feeder.rulebook(told)
    cut = feeder.cut()
    (reject,) = cut.rejects
    assert reject["code"] == "SLV-306"
    assert named in reject["message"], reject["message"]
    assert "rulebook of desk refused" in reject["message"]
    validator("rejects").validate(reject)
    assert (cut.frames, cut.rows) == ([], {})
    assert feeder.shard.rules == a_rulebook().reference
    feeder.rulebook(WIDE)
    assert feeder.cut().frames[0]["rulebook"]["rulebook"]["version"] == 2


@pytest.mark.parametrize("own", [a_rulebook(), WIDE, a_successor(version=9)], ids=["1", "2", "9"])
def test_restored_shard_judges_by_what_was_published_whatever_its_worker_has(
    own: CompiledRulebook,
) -> None:
    lived = a_feeder()
    lived.clock(0)
    lived.tick("100", source="a")
    cuts = [lived.cut()]
    lived.rulebook(STRICT)
    cuts.append(lived.cut())
    other = restored(cuts, own)
    lived.offset = other.offset
    assert other.shard.rules == STRICT.reference
    for feeder in (lived, other):
        feeder.tick("100.1", source="b", at=1)
        feeder.clock(1)
        feeder.rulebook(a_successor(version=3))
        feeder.clock(2)
    assert lived.cut().outputs.records == (found := other.cut().outputs).records
    assert found.rules == a_successor(version=3).reference


def test_state_of_another_rulebook_without_its_row_is_refused() -> None:
    feeder = a_feeder()
    feeder.rulebook(WIDE)
    cut = feeder.cut()
    shard = PriceShard(a_rulebook())
    with pytest.raises(ConfigError, match=f"hash {WIDE.hash[:12]}.*rulebook publish"):
        shard.resume({}, cut.outputs.state)


def test_row_of_another_rulebook_than_the_state_is_unsound() -> None:
    feeder = a_feeder()
    feeder.rulebook(WIDE)
    cut = feeder.cut()
    shard = PriceShard(a_rulebook())
    shard.load(Run.of([Record(0, 0, key, value) for key, value in cut.outputs.rows]))
    with pytest.raises(PartitionError, match=WIDE.hash):
        shard.resume({}, cut.outputs.state | {"rulebook": "ab" * 32})
