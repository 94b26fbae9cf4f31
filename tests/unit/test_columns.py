"""What columns do for many accounts at once equals what they do for one after the other."""

from __future__ import annotations

import random

import pytest

from solvent.state.columns import Columns


def some_columns(count: int) -> Columns:
    columns = Columns()
    for number in range(count):
        columns.add_account(f"{'long-' * (number % 7)}account-{number}")
    columns.take_dirty()
    return columns


@pytest.mark.parametrize("count", [0, 1, 31, 32, 300])
def test_marking_many_dirty_equals_marking_each_in_order(count: int) -> None:
    chance = random.Random(count)
    accounts = [chance.randrange(200) for _ in range(count)]  # some named twice
    together, apart = some_columns(200), some_columns(200)
    for columns in (together, apart):
        columns.mark_dirty(7)  # one already stands in the list
    together.mark_all_dirty(accounts)
    for account in accounts:
        apart.mark_dirty(account)
    assert together.take_dirty().tolist() == apart.take_dirty().tolist()
    assert together.take_dirty().size == 0


def test_keys_of_many_equal_the_key_of_each() -> None:
    columns = some_columns(100)
    accounts = [99, 0, 42, 42, 7]
    assert columns.keys_of(accounts) == [columns.key_of(account) for account in accounts]
    assert columns.keys_of([]) == []
