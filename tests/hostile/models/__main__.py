"""Run attempts as the user that this process has; an order comes on stdin, results go out as lines of JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from models.suite import Result, chosen, run_on


def main() -> None:
    """Read the order, run, tell."""
    order = json.load(sys.stdin)

    def tell(result: Result) -> None:
        print(json.dumps(asdict(result)), flush=True)

    attempts = chosen(order["rung"], order["names"])
    run_on(order["rung"], attempts, tell, together=order["together"], spares=order["spares"])


main()
