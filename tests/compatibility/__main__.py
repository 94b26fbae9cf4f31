"""Refuse what breaks a released topic: ``make check`` runs it, ``make release-schemas`` then keeps.

Prints one line a finding. Exit code 1 if anything breaks, 0 if nothing does.
"""

from __future__ import annotations

import sys

from compatibility.baseline import RELEASED, findings, release, released_version


def main(arguments: list[str]) -> int:
    """Hold the schemas against the baseline; with ``release`` make them the next one."""
    if arguments == ["release"] and not RELEASED.exists():
        release()  # the first
    found = findings()
    if arguments == ["release"]:
        # Its own version is what a release brings; all else must hold first.
        found = [finding for finding in found if finding.topic != "version"]
    for finding in found:
        print(finding)
    if broken := sum(finding.breaks for finding in found):
        print(f"Schemas: {broken} changes break what {released_version()} promised.")
        return 1
    if arguments == ["release"]:
        release()
    print(f"Schemas: all that {released_version()} promised holds.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
