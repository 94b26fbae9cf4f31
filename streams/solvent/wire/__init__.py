"""The wire: bytes to typed records and back, and the table of topics.

`topics` names every topic; `inputs` reads and writes what venues and sources send (strict: unknown
fields are refused); `outputs` reads and writes what this program publishes (tolerant: readers
ignore fields they do not know). Money, prices and sizes are decimal strings, times are integer
microseconds since 1970 UTC. The published contract is ``schemas/``, and tests hold code and schema
against each other. Nothing here knows the rulebook, so names and steps are judged by the engine.
"""

from __future__ import annotations

__all__: list[str] = []
