"""The benchmarks of the engine alone at their smallest size: right results, no broker, untimed."""

from __future__ import annotations

import json

import pytest
from benchmarks import frame_scaling, kernel
from benchmarks.population import Population, frames_of
from benchmarks.report import as_markdown

from solvent.engine.margin import MarginShard, warm_up
from solvent.kernel.layout import COUNT_UNITS, STATUS_HEALTHY, STATUS_MARGIN_CALL
from solvent.rules import builtin_rulebook
from solvent.wire.topics import LIQUIDATION_STATE, MARKS


def result_of(bench, capsys: pytest.CaptureFixture[str], *options: str):
    assert bench.main(["--smoke", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_bench_frame_scaling_smoke_equals_full_evaluation_in_any_order_of_sizes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = result_of(frame_scaling, capsys)  # it compares with full evaluation itself
    names = {"frame_us_1k", "frame_us_3k", "frame_cost_ratio_3k_1k", "crash_frame_p99_us_3k"}
    assert names | {"judged_per_frame_1k", "full_frame_us_3k"} <= one["figures"].keys()
    assert one["workload"]["events"]["1k"] > 0
    assert one["figures"]["judged_per_frame_3k"] < 30  # full evaluation judges 3,000
    other = result_of(frame_scaling, capsys, "--sizes", "1000")
    assert other["result_hash"] == one["result_hash"]
    assert f"`{one['result_hash']}`" in as_markdown(one, "A question?\n\nHow.")


def test_bench_kernel_smoke_leaves_equal_figures_however_often_it_is_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = result_of(kernel, capsys)
    names = {"evaluate.accounts_per_s", "memory_copy.bytes_per_s", "fold.trades_per_s"}
    names |= {"portfolio.us_per_account", "standard.us_per_account"}
    assert names <= one["figures"].keys()
    assert result_of(kernel, capsys, "--rounds", "1")["result_hash"] == one["result_hash"]
    assert result_of(kernel, capsys, "--seed", "8")["result_hash"] != one["result_hash"]


@pytest.mark.parametrize("sizes", ["10x", "", "39", "1k,,3k", "11m"])
def test_bench_frame_scaling_size_that_cannot_be_says_why(
    sizes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame_scaling.main(["--smoke", f"--sizes={sizes}"]) == 3
    assert "accounts as 500, 10k or 1m, from 40 (--near) to 9,999,999" in capsys.readouterr().err


def test_population_has_the_accounts_near_liquidation_it_says_and_no_events_at_first() -> None:
    warm_up()
    population = Population(rulebook=builtin_rulebook("demo"), accounts=2_000, near=30)
    shard = MarginShard(0, population.rulebook)
    shard.load(population.rows())
    shard.resume({}, {})
    shard.apply(MARKS, list(frames_of(population.rulebook, population.prices()[None])))
    count = int(shard.columns.counts[COUNT_UNITS])
    statuses = shard.columns.units.status[:count].tolist()
    assert (statuses.count(STATUS_MARGIN_CALL), statuses.count(STATUS_HEALTHY)) == (30, 1_970)
    assert [record.topic for record in shard.cut().records] == [LIQUIDATION_STATE]  # a watermark
