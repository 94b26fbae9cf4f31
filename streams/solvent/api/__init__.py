"""Judge accounts from Python, by the engine and with the numbers of a worker.

::

    from solvent import Rulebook, Snapshot, evaluate

    rulebook = Rulebook.load("generations")
    snapshot = Snapshot.from_frames(marks=marks, collateral=collateral, positions=positions)
    result = evaluate(rulebook, snapshot, plan=True)
    result.accounts  # polars: one row a margin unit, exact money as pl.Decimal
    result.to_dict()  # what `solvent evaluate` prints

Numbers go in as exact decimals (text, `pl.Decimal`, integers), never as floats. Errors are those of
`solvent.errors`: `ConfigError` for a rulebook or file that cannot be used, `ContractError` for what
a snapshot says; both name the place, the value and what would be allowed. ``evaluation`` holds the
values and the call, ``frames_in`` and ``frames_out`` say which columns there are and their units.
"""

from solvent.api.evaluation import Evaluation, Rulebook, Snapshot, evaluate

__all__ = ["Evaluation", "Rulebook", "Snapshot", "evaluate"]
