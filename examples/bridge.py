"""The smallest executor: takes every leg of every offer at its limit, in any language's manner.

    python examples/bridge.py solvent executor --bridge

starts the command it is given and speaks JSON lines with it; no package is needed. A real one asks
a venue before it answers. `pass` says that an offer will not be taken.
"""

import json
import subprocess
import sys

with subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kit:
    for line in kit.stdout:
        message = json.loads(line)
        if message["type"] == "error":
            print(message["reason"], message["detail"], file=sys.stderr)
        if message["type"] not in {"offer", "claimable"}:
            continue
        case = {"liquidation_id": message["liquidation_id"], "revision": message["revision"]}
        if message["type"] == "claimable":  # a leased offer comes once we have a share of it
            kit.stdin.write(json.dumps(case | {"type": "claim"}).encode() + b"\n")
            kit.stdin.flush()
            continue
        answers = [
            {
                "type": "fill",
                "market": leg["market"],
                "size": leg["size"],
                "price": leg["limit_price"],
            }
            for leg in message["legs"]
        ]
        for answer in answers or [{"type": "pass"}]:
            kit.stdin.write(json.dumps(case | answer).encode() + b"\n")
        kit.stdin.flush()
