"""A benchmark's command line, made from the dataclass of its options: parse, measure, show.

A benchmark module has options (a frozen dataclass whose fields are `option`), ``measure(options)``
that returns `Measured`, and a ``main`` that calls `run`. Machine, versions, commit and load average
are added here, so that every result has the same shape (`benchmarks.report`).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import structlog

from benchmarks import machine, report
from solvent.cli.exits import exit_code
from solvent.errors import SolventError

__all__ = ["Measured", "option", "run", "say"]

_Options = TypeVar("_Options")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a benchmark found.

    Attributes
    ----------
    figures : dict of str to float
        By name, ``what`` or ``who.what``; a figure of None (nothing to time) is left out.
    workload : dict
        What it was measured on, beside the options; the sizes that were really used.
    result_hash : str
        Hash of what the run left behind or published: equal for equal workloads.
    versions : dict of str to str
        Of further libraries that bear on the result; `machine.version_of` gives them.
    """

    figures: dict[str, float | None]
    workload: dict[str, Any]
    result_hash: str
    versions: dict[str, str] = field(default_factory=dict)


def option(default: Any, what: str, *, least: float = 0, most: float = 10**9) -> Any:  # noqa: ANN401
    """Declare one option of a benchmark: a field with a default, help and limits.

    An int, float or str takes a value; a bool gives ``--name`` and ``--no-name``.
    """
    return field(default=default, metadata={"help": what, "least": least, "most": most})


def run(
    bench: str,
    question: str,
    measure: Callable[[_Options], Measured],
    *,
    full: _Options,
    smoke: _Options,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse, measure, print, and write the section of RESULTS.md if asked; return the exit code.

    Parameters
    ----------
    bench : str
        Its name, as in ``solvent bench NAME``.
    question : str
        The module's docstring: first line what is asked, then how it is measured.
    measure : callable
        Takes the options and returns `Measured`.
    full, smoke
        Options of a normal run and of the smallest one.
    arguments : sequence of str, optional
        The command line; this process's if None.
    """
    parser = argparse.ArgumentParser(
        prog=f"solvent bench {bench}",
        description=question,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for part in fields(full):  # type: ignore[arg-type]  # any dataclass
        _add_option(parser, part.name, getattr(full, part.name), part.metadata)
    parser.add_argument(
        "--smoke", action="store_true", help="smallest size: does it work; figures mean nothing"
    )
    report.add_options(parser)
    given = vars(parser.parse_args(arguments))
    base = asdict(smoke if given["smoke"] else full)  # type: ignore[call-overload]
    chosen = {name: given[name] for name in base if given[name] is not None}
    options = type(full)(**{**base, **chosen})
    logging.getLogger("aiokafka").setLevel(logging.ERROR)  # retries after a topic was made
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    loads = {"start": machine.load_average()}
    try:
        found = measure(options)
    except SolventError as error:
        print(f"bench {bench}: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    loads["end"] = machine.load_average()
    result = {
        "bench": bench,
        "figures": {name: value for name, value in found.figures.items() if value is not None},
        "workload": {**asdict(options), **found.workload},  # type: ignore[call-overload]
        "machine": {**machine.describe_machine(), "load_average": loads},
        "versions": {**machine.versions(), **found.versions},
        "commit": machine.commit(),
        "result_hash": found.result_hash,
    }
    report.show(result, as_json=given["json"], write=given["write"], question=question)
    return 0


def say(text: str) -> None:
    """Tell how far a run is: one line with the time of day to standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _add_option(
    parser: argparse.ArgumentParser, name: str, default: object, about: Mapping[str, Any]
) -> None:
    flag = "--" + name.replace("_", "-")
    shown = "yes" if default is True else "no" if default is False else f"{default}"
    text = f"{about['help']} (default {shown})"
    if isinstance(default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    kind: Any = type(default)
    least, most = about["least"], about["most"]

    def read(given: str) -> Any:  # noqa: ANN401
        value = kind(given)
        if kind in {int, float} and not least <= value <= most:
            msg = f"{given} is not within {least:,} to {most:,}"
            raise argparse.ArgumentTypeError(msg)
        return value

    read.__name__ = kind.__name__  # named in argparse's message
    parser.add_argument(flag, type=read, metavar="N" if kind is int else "X", help=text)
