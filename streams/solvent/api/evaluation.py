"""Rulebook, snapshot, evaluation: three frozen values and the one call between them.

Nothing here computes: `solvent.engine.snapshot` puts accounts into the columns of a live partition
and lets the same kernel judge them. Polars is loaded when a frame is first asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from solvent.engine.snapshot import evaluate_snapshot
from solvent.errors import ConfigError, ContractError, RejectCode
from solvent.rules import CompiledRulebook, find_rulebook, parse_rulebook

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Evaluation", "Rulebook", "Snapshot", "evaluate"]


@dataclass(frozen=True, slots=True, eq=False)
class Rulebook:
    """A venue's margin rules, read, checked and compiled.

    Parameters
    ----------
    compiled : CompiledRulebook
        What the engine reads; `load` and `parse` make it.

    Examples
    --------
    >>> rulebook = Rulebook.load("example")
    >>> rulebook.id, rulebook.version, rulebook.markets
    ('example', 1, ('BTC-PERP', 'ETH-PERP', 'SOL-PERP'))
    """

    compiled: CompiledRulebook

    @classmethod
    def load(cls, name_or_path: str | Path) -> Rulebook:
        """Return the rulebook in a file or, where there is none, the built-in one of that name.

        Raises
        ------
        ConfigError
            [SLV-402] Neither exists, or something in it is not allowed: path, value and limit.
        """
        return cls(find_rulebook(name_or_path))

    @classmethod
    def parse(cls, text: str) -> Rulebook:
        """Return the rulebook that YAML text says.

        Raises
        ------
        ConfigError
            [SLV-402] Something in it is not allowed: path, value and limit.
        """
        return cls(parse_rulebook(text))

    @property
    def id(self) -> str:
        """Its name."""
        return self.compiled.id

    @property
    def version(self) -> int:
        """Its version, 1 or more."""
        return self.compiled.version

    @property
    def hash(self) -> str:
        """SHA-256, hex, of all it says with defaults filled in; equal rules have equal hashes."""
        return self.compiled.hash

    @property
    def feeds(self) -> tuple[str, ...]:
        """Names that marks may have: of prices, and of states such as rates or open interest."""
        return tuple(feed.name for feed in self.compiled.feeds)

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of what may be held or owed; the first one is the settlement asset."""
        return tuple(asset.name for asset in self.compiled.assets)

    @property
    def markets(self) -> tuple[str, ...]:
        """Names of what positions may be in."""
        return tuple(instrument.name for instrument in self.compiled.instruments)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of account classes, each bound to a preset; without one the default preset acts."""
        return tuple(self.compiled.preset_by_class)

    def __repr__(self) -> str:
        return f"Rulebook({self.id!r}, version {self.version}, hash {self.hash[:12]})"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Marks and accounts at one moment, as `solvent evaluate` reads them.

    Parameters
    ----------
    content : mapping
        As `schemas/evaluate/snapshot.v1.schema.json` says. It is not looked at before `evaluate`,
        which knows the rulebook and refuses it by the paths in here (``accounts.0.positions.1``).
    """

    content: Mapping[str, Any]

    @classmethod
    def from_json(cls, source: str | bytes | Path | Mapping[str, Any]) -> Snapshot:
        """Return the snapshot that JSON says.

        Parameters
        ----------
        source : str, bytes, Path or mapping
            JSON text, a file of it, or what it was read into.

        Raises
        ------
        ConfigError
            The file cannot be read.
        ContractError
            [SLV-101] No JSON object, or one that names a field twice.
        """
        if isinstance(source, Mapping):
            return cls(source)
        if isinstance(source, Path):
            try:
                text: str | bytes = source.read_bytes()
            except OSError as error:
                msg = f"snapshot {source}: {error.strerror}"
                raise ConfigError(msg) from None
        else:
            text = source
        return cls(_json_object(text))

    @classmethod
    def from_frames(
        cls,
        *,
        marks: pl.DataFrame,
        positions: pl.DataFrame | None = None,
        collateral: pl.DataFrame | None = None,
        accounts: pl.DataFrame | None = None,
        orders: pl.DataFrame | None = None,
        leverage: pl.DataFrame | None = None,
        history: pl.DataFrame | None = None,
        ts_us: int | None = None,
    ) -> Snapshot:
        """Return the snapshot that polars frames say; `solvent.api.frames_in` lists their columns.

        Decimal columns are `pl.String`, `pl.Decimal` or integers, and null where a value is left
        out. A margin unit is the pair (``account_id``, ``subaccount``), the latter ``cross`` where
        it is left out. Units come in the order of their first row: of `accounts`, which then has
        to list them all, or else of the frames in the order positions, collateral, orders,
        leverage.

        Parameters
        ----------
        marks : polars.DataFrame
            ``feed``; ``price`` (settlement currency, or what the feed is in) or, of a state feed,
            ``value``; optional ``confidence`` in the same unit.
        positions : polars.DataFrame, optional
            ``account_id``, ``market``, ``size`` (coins, long > 0; inverse: contracts), and
            ``cost_basis`` (signed total paid, settlement currency) or ``entry_price``; optional
            ``subaccount`` and ``funding_index``.
        collateral : polars.DataFrame, optional
            ``account_id``, ``asset``, ``amount`` (coins, debt < 0); optional ``subaccount``.
        accounts : polars.DataFrame, optional
            ``account_id``; optional ``subaccount`` and ``account_class``.
        orders : polars.DataFrame, optional
            ``account_id``, ``market``, ``bid_size``, ``ask_size`` (coins), ``bid_value``,
            ``ask_value`` (settlement currency), ``count``; optional ``subaccount``.
        leverage : polars.DataFrame, optional
            ``account_id``, ``market``, ``leverage`` (a ratio, 1 or more); optional ``subaccount``.
        history : polars.DataFrame, optional
            ``feed``, ``price``: past prices at equal steps, those of a feed the oldest first and as
            many of each; accounts then have the correlation of wrong-way risk.
        ts_us : int, optional
            Time of the snapshot, epoch microseconds; needed where a position expires.

        Raises
        ------
        ContractError
            A missing or unknown column, a column of floats (which are not exact) or of another
            type, a null where a value is needed, a row given twice, a unit not in `accounts`; the
            message names the frame, the column or row, and what would be allowed.
        """
        from solvent.api.frames_in import snapshot_of

        frames = {
            "marks": marks,
            "positions": positions,
            "collateral": collateral,
            "accounts": accounts,
            "orders": orders,
            "leverage": leverage,
            "history": history,
        }
        given = {name: frame for name, frame in frames.items() if frame is not None}
        return cls(snapshot_of(given, ts_us=ts_us))

    @classmethod
    def from_parquet(cls, folder: Path, *, ts_us: int | None = None) -> Snapshot:
        """Return the snapshot that a folder of Parquet files says.

        Parameters
        ----------
        folder : Path
            ``marks.parquet`` and, of ``positions``, ``collateral``, ``accounts``, ``orders``,
            ``leverage`` and ``history``, those that there are; columns as in `from_frames`. Other
            files are passed over.
        ts_us : int, optional
            As in `from_frames`.

        Raises
        ------
        ConfigError
            The folder or a file cannot be read, or there is no ``marks.parquet``.
        ContractError
            As `from_frames`, or a file is not Parquet.
        """
        from solvent.api.frames_in import read_folder, snapshot_of

        return cls(snapshot_of(read_folder(folder), ts_us=ts_us))

    def at(self, ts_us: int) -> Snapshot:
        """Return the same at another time, epoch microseconds."""
        return replace(self, content={**self.content, "ts_us": ts_us})


class Evaluation:
    """What each margin unit of a snapshot is worth, must hold, and where it ends.

    Frames are polars, made when first asked for; rows are in the snapshot's order. Every frame
    begins with ``account_id`` and ``subaccount``. Exact amounts are decimals: settlement currency
    as ``Decimal(38, 6)``, and sizes, prices and coins as ``Decimal(38, 18)``. What is derived, or
    is told before rounding, is ``Float64``. A null says that there is no such number: of a unit
    whose ``verdict`` is ``unknown``, or as the column says. `solvent.api.frames_out` lists every
    column with its unit.

    Parameters
    ----------
    content : dict
        As `schemas/evaluate/result.v1.schema.json` says.
    has_plan : bool
        Whether it says what liquidations would close.
    """

    def __init__(self, content: dict[str, Any], *, has_plan: bool) -> None:
        self._content = content
        self.has_plan = has_plan

    def to_dict(self) -> dict[str, Any]:
        """Return what `solvent evaluate` prints: plain JSON data, decimal strings.

        The same object each time, which the frames are made from: do not change it.
        """
        return self._content

    @cached_property
    def accounts(self) -> pl.DataFrame:
        """Margin units: verdict, equity, requirement, health, ratios."""
        return self._frame("accounts")

    @cached_property
    def positions(self) -> pl.DataFrame:
        """Positions: size, cost, mark, their part of the requirement, liquidation price."""
        return self._frame("positions")

    @cached_property
    def collateral(self) -> pl.DataFrame:
        """Balances: amount, value, and what of it is counted at each level."""
        return self._frame("collateral")

    @cached_property
    def groups(self) -> pl.DataFrame:
        """Underlyings margined as a whole: value of options, requirement, deciding scenario."""
        return self._frame("groups")

    @cached_property
    def legs(self) -> pl.DataFrame:
        """Orders of the plans, in the order in which they are to be worked.

        Raises
        ------
        ConfigError
            It was evaluated without a plan: no rows would look like nothing to close.
        """
        return self._frame("legs")

    @cached_property
    def swaps(self) -> pl.DataFrame:
        """Debts that the plans repay, and the collateral taken for them; raises as `legs`."""
        return self._frame("swaps")

    def write_parquet(self, folder: Path) -> list[Path]:
        """Write every frame to ``<name>.parquet`` and return the files.

        Parameters
        ----------
        folder : Path
            It is made if need be. It may hold none of the files yet: what an earlier evaluation,
            or a snapshot, left there would else be mixed with this one.

        Raises
        ------
        ConfigError
            A file is there already, or cannot be written.
        """
        from solvent.api.frames_out import FRAMES, PLAN_FRAMES

        paths = {name: folder / f"{name}.parquet" for name in FRAMES}
        for path in paths.values():
            if path.exists():
                msg = f"{path}: there already, a folder without it expected"
                raise ConfigError(msg)
        written = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, path in paths.items():
                if self.has_plan or name not in PLAN_FRAMES:
                    self._frame(name).write_parquet(path)
                    written.append(path)
        except OSError as error:
            msg = f"{folder}: {error.strerror or error}"
            raise ConfigError(msg) from None
        return written

    def __repr__(self) -> str:
        told = self._content["rulebook"]
        count = len(self._content["accounts"])
        return f"Evaluation({told['id']!r}, version {told['version']}, {count} margin units)"

    def _frame(self, name: str) -> pl.DataFrame:
        from solvent.api.frames_out import PLAN_FRAMES, frame_of

        if name in PLAN_FRAMES and not self.has_plan:
            msg = f"{name}: no plan was made, plan=True expected"
            raise ConfigError(msg)
        return frame_of(name, self._content["accounts"])


def evaluate(rulebook: Rulebook, snapshot: Snapshot, *, plan: bool = False) -> Evaluation:
    """Judge every account of a snapshot; the same engine and numbers as a worker's.

    Equity is rounded down and requirements up to micros (1e-6 of the settlement currency), so
    rounding never favours an account. A process's first call loads the kernels, and compiles them
    (about a minute) where no call before it did.

    Parameters
    ----------
    rulebook : Rulebook
        Rules to judge by.
    snapshot : Snapshot
        Marks and accounts. A unit that needs a mark which is not there has the verdict
        ``unknown``, and no derived figures.
    plan : bool
        Whether to say what a liquidation would close of each account it would touch.

    Raises
    ------
    ContractError
        [SLV-103] A missing or unknown field or name, a number off its grammar, step or range, an
        expired contract, an option that cannot be priced, marks under which options cross; the
        message names its path, value and limit.

    Examples
    --------
    >>> snapshot = Snapshot.from_json({"marks": {}, "accounts": [{"account_id": "bob"}]})
    >>> evaluate(Rulebook.load("example"), snapshot).to_dict()["accounts"][0]["verdict"]
    'healthy'
    """
    content = evaluate_snapshot(rulebook.compiled, snapshot.content, has_plan=plan)
    return Evaluation(content, has_plan=plan)


def _json_object(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object; refuse what the decoder would let pass: names given twice, NaN."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for place, name in enumerate(names) if name in names[:place])
            msg = f"field {repeated!r:.80} is given twice"
            raise ValueError(msg)
        return found

    def no_number(text: str) -> NoReturn:
        msg = f"{text} is no number"
        raise ValueError(msg)

    try:
        content = json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        msg = f"snapshot: not JSON: {error}"
        raise ContractError(msg, code=RejectCode.MALFORMED) from None
    if not isinstance(content, dict):
        msg = f"snapshot: {content!r:.80}: an object expected"
        raise ContractError(msg, code=RejectCode.MALFORMED)
    return content
