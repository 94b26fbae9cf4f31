"""`solvent config`: the resolved settings, and whether they hold."""

from __future__ import annotations

import typer

from solvent.cli.common import JsonOption, print_json, print_line
from solvent.cli.exits import EPILOG

__all__ = ["app"]

app = typer.Typer(
    help="Show and check the resolved settings (environment, then file, then default).",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog=EPILOG)
def show(json: JsonOption = False) -> None:
    """Print every setting with its value; secrets come out as asterisks."""
    from solvent.settings import ENV_PREFIX, load_settings

    settings = load_settings()
    shown = settings.shown()
    if json:
        print_json(shown)
        return
    for name, value in shown.items():
        text = "(unset)" if value is None else str(value)
        origin = "" if name in settings.model_fields_set else "  (default)"
        print_line(f"{ENV_PREFIX}{name.upper():<20} {text}{origin}")


@app.command(epilog=EPILOG)
def validate(json: JsonOption = False) -> None:
    """Check the settings and the rulebook they name; exit 3 with one line if they do not hold."""
    from solvent.settings import load_settings

    settings = load_settings()
    reference = None
    if settings.rulebook is not None:
        from solvent.rules import find_rulebook

        reference = find_rulebook(settings.rulebook).reference
    if json:
        print_json({"valid": True, "rulebook": reference})
    else:
        told = "" if reference is None else f", rulebook {reference['id']} {reference['version']}"
        print_line(f"settings hold{told}")
