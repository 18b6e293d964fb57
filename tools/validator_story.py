"""The validator's acceptance: ``python tools/validator_story.py --challenges 200``.

Three service processes and eight generators on this machine, six of which cheat or fail. Each service is killed with
``kill -9`` in turn, the validator's own also in the middle of an epoch. In the end every challenge, medium, reward,
score and weight is compared with what must be, reckoned a second time from the database. Prints a table; ends with 1
when anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from bad_actors import BEHAVIOURS
from validator_network import SERVICES
from validator_story import CAST, play, table


def main() -> None:
    """Play, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--challenges", type=int, default=200, help="Of all generators together.")
    parser.add_argument("--seconds", type=float, default=30.0, help="Time for one delivery.")
    parser.add_argument("--cast", default="", help=f"Behaviours with commas between them: {', '.join(BEHAVIOURS)}.")
    parser.add_argument("--second", action="store_true", help="Another validator asks, with a store of its own.")
    parser.add_argument("--no-kills", action="store_true", help="Let the services live.")
    options = parser.parse_args()
    names = [name for name in options.cast.split(",") if name]
    cast = [(f"{name}-{at}" if names.count(name) > 1 else name, name) for at, name in enumerate(names)] or CAST
    rounds = max(2, -(-options.challenges // len(cast)))
    every = max(1, rounds // 7)
    kills = [(at, SERVICES[(at // every) % len(SERVICES)]) for at in range(every, rounds, every)]
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {line}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        story = play(
            Path(folder), rounds, cast=cast, seconds=options.seconds, kills=() if options.no_kills else kills,
            second=options.second, say=say,
        )  # fmt: skip
    print(table(story))
    print(f"{sum(line.challenges for line in story.lines)} challenges, kill -9 of {', '.join(story.kills) or 'none'}")
    for problem in story.problems:
        print(f"WRONG: {problem}")
    raise SystemExit(1 if story.problems else 0)


if __name__ == "__main__":
    main()
