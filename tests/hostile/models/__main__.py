"""Run attempts as the user that this process has; orders come on stdin, results go out, each in a line of JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict

from models.suite import ATTEMPTS, CHECK, Result, Worker, static_check


def main() -> None:
    """Read an order, run it, answer, until the input ends."""
    out = sys.stdout
    # What an attempt's own libraries print is no answer.
    sys.stdout = sys.stderr
    with contextlib.ExitStack() as stack:
        worker: Worker | None = None
        for line in sys.stdin:
            order = json.loads(line)
            attempts = [ATTEMPTS[name] for name in order["names"]]
            results: list[Result] = []
            if order["rung"] == CHECK:
                results = [static_check(attempt) for attempt in attempts]
            else:
                if worker is None or worker.rung != order["rung"]:
                    stack.close()
                    worker = stack.enter_context(Worker(order["rung"], spares=order["spares"], groups=order["groups"]))
                worker.run_all(attempts, results.append, together=len(attempts) > 1)
            tier = worker.tier if worker and worker.rung == order["rung"] else ""
            answers = [{**asdict(result), "tier": tier} for result in results]
            print(json.dumps(answers), file=out, flush=True)


with contextlib.suppress(BrokenPipeError):  # whoever ordered was killed
    main()
