r"""What liquidations of one shard have used of the budgets of rolling windows (MODEL.md 7.6).

Two things use a budget, of a market and of an account: an offer that stands, for the notional it
offers, until its expiry or whatever replaces it; and each fill that counts, for what was granted
for its lots, for a window's span. A fill moves its part from the offer to the fills, so that the
sum never grows by filling. What was never filled is free again when the offer ends.

A row of ``accounts.v1`` for each market (``\0budget\0m\0index``) and account
(``\0budget\0a\0account``) with fills in the longest window, deleted when there are none.
What stands offered is in the rows of cases. Amounts are micros of notional, times stream time in
microseconds. Fills are kept in 64 steps of the longest window, each as late as its latest: a
budget returns up to a 64th of that late, never early.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, NamedTuple

from solvent.domain.schedule import Grant, Window, grant
from solvent.engine.run import Run
from solvent.engine.throttle import Throttle
from solvent.errors import ContractError, PartitionError
from solvent.wire.outputs import decode_budget_row, encode

__all__ = ["BUDGET_ROW_PREFIX", "Budget"]

#: Begins the keys of rows of budgets; no identifier contains a zero byte.
BUDGET_ROW_PREFIX: Final = b"\0budget\0"
_STEPS: Final = 64

_MARKET: Final = "m"
_ACCOUNT: Final = "a"
#: Of a market or an account, and the index of either.
_Key = tuple[str, int]


class _Hold(NamedTuple):
    """What a unit's offer holds: until when, of whose account, by instrument."""

    expires_us: int
    account: int
    by_market: dict[int, int]


class Budget:
    """Used budgets of one shard.

    Attributes
    ----------
    throttle : Throttle
        Markets whose budgets were exhausted.
    """

    def __init__(self) -> None:
        self.throttle = Throttle()
        self._span_us = 0
        self._fills: dict[_Key, list[Grant]] = {}  # each ascending by time
        self._changed: set[_Key] = set()  # since the last cut
        self._holds: dict[int, _Hold] = {}  # by unit
        self._held: Counter[_Key] = Counter()
        self._expiries: list[tuple[int, int]] = []  # a heap of (time, unit); some are outdated
        self._restored: dict[bytes, bytes | None] = {}

    def adopt(self, windows: list[Window]) -> None:
        """Keep fills as long as the longest window of a rulebook asks for."""
        self._span_us = max((window.span_us for window in windows), default=0)

    def free_of_market(self, window: Window, instrument: int, now_us: int) -> int | None:
        """Return what may still be offered in a market, at least 0; None without a budget."""
        return self._free((_MARKET, instrument), window.market_micros, window.span_us, now_us)

    def free_with_bypass(self, window: Window, instrument: int, now_us: int) -> int | None:
        """Return what may still be offered of bankrupt accounts; None without a bypass."""
        if window.market_micros is None or window.bypass_micros is None:
            return None
        cap_micros = window.market_micros + window.bypass_micros
        return self._free((_MARKET, instrument), cap_micros, window.span_us, now_us)

    def free_of_account(self, window: Window, account: int, now_us: int) -> int | None:
        """Return what may still be offered of an account, at least 0; None without a budget."""
        return self._free((_ACCOUNT, account), window.account_micros, window.span_us, now_us)

    def hold(self, unit: int, account: int, expires_us: int, by_market: dict[int, int]) -> None:
        """Note what a unit's offer takes until it expires; nothing of the unit is held."""
        self._holds[unit] = _Hold(expires_us, account, by_market)
        self._add(self._holds[unit], 1)
        heappush(self._expiries, (expires_us, unit))

    def free(self, unit: int) -> None:
        """Return what a unit's offer holds, if it has one."""
        held = self._holds.pop(unit, None)
        if held is not None:
            self._add(held, -1)

    def spend(self, unit: int, instrument: int, micros: int, now_us: int) -> None:
        """Count a fill: what it takes of its offer's hold is used from now on for a span."""
        held = self._holds[unit]
        held.by_market[instrument] -= micros
        for key in ((_MARKET, instrument), (_ACCOUNT, held.account)):
            self._held[key] -= micros
            self._use(key, micros, now_us)
        self._forget_fills(now_us)

    def take_rows(self, name_of: Callable[[int], bytes]) -> list[tuple[bytes, bytes | None]]:
        """Return the rows that changed since the last call; accounts by their ids."""
        changed, self._changed = self._changed, set()
        return [(_row_key(key, name_of), self._row(key)) for key in changed]

    def load(self, rows: Run) -> None:
        """Take rows during a restore, oldest first."""
        self._restored.update(rows.with_prefix(BUDGET_ROW_PREFIX))

    def resume(self, index_of: Callable[[str], int]) -> None:
        """Finish a restore: accounts can be found by their ids now.

        Raises
        ------
        PartitionError
            A row cannot be read.
        """
        restored, self._restored = self._restored, {}
        found: dict[_Key, list[Grant]] = {}
        for row_key, value in restored.items():
            if value is None:
                continue
            kind, _, name = row_key.removeprefix(BUDGET_ROW_PREFIX).decode().partition("\0")
            try:
                row = decode_budget_row(value)
            except ContractError as error:
                msg = f"row of a budget of {name}: {error.message}"
                raise PartitionError(msg) from error
            key = (kind, int(name) if kind == _MARKET else index_of(name))
            found[key] = [Grant(*used) for used in row.fills]
        # As they lie while a shard lives: in the order of their last fills.
        self._fills = dict(sorted(found.items(), key=lambda item: item[1][-1].at_us))

    # -- used

    def _free(self, key: _Key, cap_micros: int | None, span_us: int, now_us: int) -> int | None:
        if cap_micros is None:
            return None
        self._forget_holds(now_us)
        used = [*self._fills.get(key, ()), Grant(now_us, self._held[key])]
        return grant(cap_micros, now_us=now_us, span_us=span_us, cap_micros=cap_micros, grants=used)

    def _add(self, held: _Hold, sign: int) -> None:
        for instrument, micros in held.by_market.items():
            self._held[_MARKET, instrument] += sign * micros
            self._held[_ACCOUNT, held.account] += sign * micros

    def _forget_holds(self, now_us: int) -> None:
        while self._expiries and self._expiries[0][0] <= now_us:
            expires_us, unit = heappop(self._expiries)
            held = self._holds.get(unit)
            if held is not None and held.expires_us == expires_us:
                self.free(unit)

    def _use(self, key: _Key, micros: int, now_us: int) -> None:
        used = self._fills.pop(key, [])  # and put in last, so that the oldest are the first
        step = max(1, self._span_us // _STEPS)
        if used and used[-1].at_us // step == now_us // step:
            micros += used.pop().micros
        kept = [each for each in used if each.at_us > now_us - self._span_us]
        self._fills[key] = [*kept, Grant(now_us, micros)]
        self._changed.add(key)

    def _forget_fills(self, now_us: int) -> None:
        while self._fills:
            key = next(iter(self._fills))
            if self._fills[key][-1].at_us > now_us - self._span_us:
                return
            del self._fills[key]
            self._changed.add(key)

    def _row(self, key: _Key) -> bytes | None:
        used = self._fills.get(key)
        return None if used is None else encode({"schema_version": 1, "fills": [*map(list, used)]})


def _row_key(key: _Key, name_of: Callable[[int], bytes]) -> bytes:
    kind, index = key
    name = str(index).encode() if kind == _MARKET else name_of(index)
    return BUDGET_ROW_PREFIX + kind.encode() + b"\0" + name
