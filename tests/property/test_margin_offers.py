"""No offer is ever made of a unit nobody may judge: unknown, quarantined, or on a stale feed."""

from __future__ import annotations

import orjson
import pytest

from support.busy_log import a_busy_log
from support.margin import Replay


@pytest.mark.parametrize("seed", range(20, 32))
def test_offers_are_of_judged_units_alone(seed: int) -> None:
    replay = Replay()
    quarantined: set[str] = set()
    unknown: set[tuple[str, str]] = set()
    offers = told = 0
    for topic, records in a_busy_log(seed, 400).runs(1):
        replay.apply(topic, records)
        is_usable = dict(
            zip(("BTC", "ETH", "ODD"), replay.shard.marks.marks.is_usable.tolist(), strict=True)
        )
        replay.cut()
        for emit in replay.records[told:]:
            event = orjson.loads(emit.value or b"{}")
            unit = (event.get("account_id"), event.get("subaccount"))
            if emit.topic == "margin-status.v1":
                quarantined |= {event["account_id"]} if event["quarantined"] else set()
                unknown = unknown | {unit} if event["status"] == "unknown" else unknown - {unit}
            elif emit.topic == "liquidations.v1":
                offers += event["event"] in {"opened", "revised"}
                assert event["account_id"] not in quarantined
                assert unit not in unknown
                assert event["verdict"] != "unknown"
                assert all(is_usable[p["market"][:3]] for p in event["positions"])
                if event["event"] in {"opened", "revised"}:
                    assert event["status"] == "liquidating"
        told = len(replay.records)
    assert offers > 10
    assert quarantined
    assert unknown
