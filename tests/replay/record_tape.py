"""Record the golden tape: a short run on a real broker, its worker killed once, kept in one file.

Run it from the checkout when published bytes change on purpose, and copy the hashes it prints into
``test_golden_tape.py``::

    .venv/bin/python tests/replay/record_tape.py
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from solvent.ops.logs import KafkaLogs, Tape, write_tape
from solvent.ops.verify import VerifyOptions, verify
from solvent.rules import builtin_rulebook
from support.broker import Broker, running_kafka
from support.mixed import mixed_records
from support.pipeline import Pipeline

_PARTS = 8
TAPE = Path(__file__).with_name("golden.tape.gz")


def main() -> None:
    rulebook = builtin_rulebook("example")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_kafka(folder / "kafka") as local:
            kafka = Broker(local.bootstrap_servers, local, "golden.")
            pipeline = Pipeline(kafka, folder, partitions=2, max_slice_records=100)
            try:
                records = list(mixed_records(rulebook, count=1_800, accounts=60, seed=23))
                size = -(-len(records) // _PARTS)
                pipeline.start()
                # In parts, so that frames come between trades and cases live and end in all ways.
                for part in range(_PARTS):
                    pipeline.load(records[part * size : (part + 1) * size])
                    if part == _PARTS // 2:
                        pipeline.kill_and_restart()
                    pipeline.follower.until(
                        pipeline.is_finished, deadline_s=300, what=f"part {part} folded"
                    )
                pipeline.finish(deadline_s=300)
                write_tape(TAPE, KafkaLogs(local.bootstrap_servers, pipeline.topics))
            finally:
                pipeline.close()
    tape = Tape(TAPE)
    for agent in ("margin", "prices"):
        print(agent, json.dumps(verify(tape, rulebook, VerifyOptions(agent=agent)).as_json()))
    print(len(gzip.decompress(TAPE.read_bytes())), "bytes,", TAPE.stat().st_size, "gzipped")


if __name__ == "__main__":
    main()
