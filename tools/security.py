"""The conformance suite of the sandbox: every hostile model, on every rung that this machine has.

Prints a line for each attempt and rung: what the static check says of it, how it ended, and the seconds; then what
came of each rung. How much is done and about how long the rest takes stands on standard error.

    python tools/security.py [--json] [--only NAME ...] [--rung check|plain|root|user|own-root|own-user ...] [--fast]
        [--jobs N] [--resume FILE] [--spares] [--without-groups]

Ends with 0 when everything was contained, 1 when anything was not, 2 for a wrong option, 3 when a rung that was named
(or, if none was named, every rung that isolates) is not here, 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "hostile"))

from models.crew import Crew, Order, units
from models.suite import (
    ATTEMPTS,
    CHECK,
    OWN_ROOT,
    OWN_USER,
    PLAIN,
    ROOT,
    USER,
    Result,
    chosen,
    find,
    here,
    shares,
    without_groups,
)

import gas
from gas.sandbox import probe
from gas.versions import installed

RUNGS: Final = {
    "check": CHECK, "plain": PLAIN, "root": ROOT, "user": USER, "own-root": OWN_ROOT, "own-user": OWN_USER,
}  # fmt: skip
WIDTH: Final = max(len(name) for name in ATTEMPTS)
RUNG_WIDTH: Final = max(len(rung) for rung in RUNGS.values())
MOST_JOBS: Final = 4
NOT_HERE, INTERRUPTED = 3, 130

Key = tuple[str, str]
"""Name of an attempt, and rung."""


def cost(key: Key) -> float:
    """About how long a run takes, against the others."""
    attempt = ATTEMPTS[key[0]]
    if key[1] == CHECK:
        return 0.15
    return 4.0 if attempt.torch or attempt.graph is not None else 1.0


class Status:
    """How much is done, and about how long the rest takes: one line that is written anew, or a line now and then.

    Args:
        out: A terminal, or not.
        total: Cost of everything.
        runs: Number of runs.
    """

    def __init__(self, out: TextIO, total: float, runs: int) -> None:
        self._out, self._total, self._runs = out, total, runs
        self._live = out.isatty()
        self._began = time.monotonic()
        self._done, self._cost, self._free, self._told = 0, 0.0, 0.0, 0

    def clear(self) -> None:
        """Make room for a line of the table."""
        if self._live:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def skip(self, keys: Iterable[Key]) -> None:
        """Count runs that an earlier call has done: they say nothing of how long the rest takes."""
        for key in keys:
            self._done += 1
            self._cost += cost(key)
            self._free += cost(key)

    def add(self, keys: Iterable[Key], where: str) -> None:
        """Count runs that are done, and tell."""
        for key in keys:
            self._done += 1
            self._cost += cost(key)
        share = self._cost / self._total
        if self._live or int(share * 10) > self._told:
            self._told = int(share * 10)
            left = (time.monotonic() - self._began) * (self._total - self._cost) / (self._cost - self._free)
            text = f"{self._done} of {self._runs} runs, {share:.0%}, {duration(left)} left, {where}"
            self._out.write(f"\r\x1b[K{text}" if self._live else text + "\n")
            self._out.flush()


def duration(seconds: float) -> str:
    """A time that is only about right."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Record:
    """Results that an earlier, interrupted run has left in a file, and a place for those of this one.

    Args:
        path: Lines of JSON: first what they were made with, then one a result. None to keep nothing.
        made_with: Of this run; a file that was made with something else is refused.

    Raises:
        ValueError: The file is no such file, or was made with something else.
    """

    def __init__(self, path: Path | None, made_with: dict[str, object]) -> None:
        self.results: dict[Key, Result] = {}
        self._file: TextIO | None = None
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            first, *rest = path.read_text(encoding="utf-8").splitlines() or [""]
            try:
                if json.loads(first) != made_with:
                    raise ValueError(f"{path} was made by other code, on another machine, or with other options.")
                for number, line in enumerate(rest):
                    try:
                        told = Result(**json.loads(line))
                    except ValueError:
                        if number < len(rest) - 1:
                            raise
                        continue  # it was interrupted while it wrote
                    if told.contained and told.outcome != "not_here":
                        self.results[told.name, told.rung] = told
            except (json.JSONDecodeError, TypeError) as error:
                raise ValueError(f"{path} is no record of this command.") from error
        # Written anew, so that a broken last line and what was not contained are gone; beside, so that nothing else is.
        aside = path.with_name(f"{path.name}.new")
        self._file = aside.open("w", encoding="utf-8")
        for entry in (made_with, *map(asdict, self.results.values())):
            self._write(entry)
        aside.replace(path)

    def add(self, result: Result) -> None:
        """Keep a result."""
        if self._file is not None:
            self._write(asdict(result))

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def main() -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run hostile models on the rungs of the sandbox.")
    parser.add_argument("--json", action="store_true", help="one JSON document at the end")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this attempt; may be repeated")
    parser.add_argument("--rung", action="append", default=[], choices=[*RUNGS], help="this rung; may be repeated")
    parser.add_argument("--fast", action="store_true", help="let attempts that are denied share a process")
    parser.add_argument("--spares", action="store_true", help="give each model to a process that waited for it")
    parser.add_argument(
        "--without-groups", action="store_true", help="as on a machine where no control group can be made"
    )
    jobs = min(len(os.sched_getaffinity(0)), MOST_JOBS)
    parser.add_argument(
        "--jobs", type=int, default=jobs, metavar="N", help="attempts at the same time (%(default)s here)"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="keep results there, and don't run again what was contained"
    )
    options = parser.parse_args()
    unknown = sorted(set(options.only) - set(ATTEMPTS))
    if unknown:
        parser.error(f"there is no attempt called {', '.join(unknown)}")
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    made_with = {
        "code": fingerprint(), "kernel": platform.release(), "user": os.geteuid(),
        "python": platform.python_version(), "packages": installed(("torch", "onnxruntime")), "tier": probe().tier.name,
        "fast": options.fast, "spares": options.spares, "groups": not options.without_groups,
    }  # fmt: skip
    try:
        record = Record(options.resume, made_with)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with contextlib.closing(record):
        return Run(options, record).all()


def fingerprint() -> str:
    """Of all code that decides how an attempt ends."""
    found = hashlib.sha256()
    hostile = Path(__file__).resolve().parent.parent / "tests" / "hostile"
    package = Path(gas.__file__).parent
    for root in (package / "sandbox", package / "submissions", hostile):
        for path in sorted(root.rglob("*.py")):
            found.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return found.hexdigest()


class Run:
    """One call of the command."""

    def __init__(self, options: argparse.Namespace, record: Record) -> None:
        self.options, self.record = options, record
        self.began = time.monotonic()
        self.rungs = [RUNGS[name] for name in dict.fromkeys(options.rung or RUNGS)]
        self.results: list[Result] = []
        self.refusals: dict[str, Result] = {}
        self.seconds: Counter[str] = Counter()
        self.tiers: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def all(self) -> int:
        """Run everything; returns the exit code."""
        if not {CHECK, PLAIN}.issuperset(self.rungs):
            found = {rung: find(rung) for rung in (ROOT, OWN_ROOT)}
            if self.options.without_groups:
                found = {rung: without_groups(probed) for rung, probed in found.items()}
            self.reasons = here(*found.values())
        order = list(dict.fromkeys([CHECK, *self.rungs]))
        work = [(name, rung) for rung in order if not self.reasons.get(rung) for name in self.names(rung)]
        self.status = Status(sys.stderr, sum(map(cost, work)), len(work))
        self.status.skip(key for key in work if key in self.record.results)
        if not self.options.json:
            print(
                f"{'attempt':{WIDTH}}  {'static check':34}  {'rung':{RUNG_WIDTH}}  {'outcome':13}  seconds", flush=True
            )
        interrupted = False
        try:
            with Crew(self.options.jobs) as crew:
                for rung in order:
                    self.run_rung(rung, crew)
        except KeyboardInterrupt:
            interrupted = True
        self.status.clear()
        return self.close(interrupted)

    def names(self, rung: str) -> list[str]:
        """What is to be run on a rung; the check is asked about everything that any line will name."""
        rungs = self.rungs if rung == CHECK and CHECK not in self.rungs else [rung]
        wanted = {attempt.name for one in rungs for attempt in chosen(one, self.options.only)}
        return [name for name in ATTEMPTS if name in wanted]

    def run_rung(self, rung: str, crew: Crew) -> None:
        """Run what a rung is asked for; the check comes first, for each line names its answer."""
        names = self.names(rung)
        if self.reasons.get(rung):
            for name in names:
                self.tell(Result(name, rung, "not_here", True, self.reasons[rung]))
            return
        began = time.monotonic()
        for name in names:
            if (name, rung) in self.record.results:
                self.tell(self.record.results[name, rung])
        left = [name for name in names if (name, rung) not in self.record.results]
        shared = [name for name in left if shares(ATTEMPTS[name])] if self.options.fast and rung != CHECK else []
        order = Order(
            rung,
            somebody_else=rung in {USER, OWN_USER} and os.geteuid() == 0,
            spares=self.options.spares,
            groups=not self.options.without_groups,
        )

        def take(piece: list[str], told: list[dict[str, Any]], trouble: str) -> None:
            answers = {fields["name"]: Result(**fields) for fields in told}
            for name in piece:
                done = answers.get(name) or Result(name, rung, "lost", False, trouble)
                self.record.add(done)
                self.tell(done)
            self.status.add([(name, rung) for name in piece], rung)

        try:
            crew.run(order, units(left, shared), take)
        finally:
            self.seconds[rung] += round(time.monotonic() - began)

    def tell(self, result: Result) -> None:
        """Take a result, and show it."""
        if result.rung == CHECK:
            self.refusals[result.name] = result
        if result.rung not in self.rungs:
            return
        self.results.append(result)
        if result.tier:
            self.tiers[result.rung] = result.tier
        if not self.options.json:
            self.status.clear()
            print(line(result, self.refusals[result.name]), flush=True)

    def close(self, interrupted: bool) -> int:
        """Say what came of it; returns the exit code."""
        holes = [result for result in self.results if not result.contained]
        isolating = [rung for rung in self.rungs if rung not in {CHECK, PLAIN}]
        away = [rung for rung in isolating if self.reasons.get(rung)]
        missing = bool(away) and (bool(self.options.rung) or away == isolating)
        summary = {
            "attempts": len({result.name for result in self.results}),
            "runs": sum(result.outcome != "not_here" for result in self.results),
            "not_contained": len(holes),
            "interrupted": interrupted,
            "rungs": {rung: self.of_rung(rung) for rung in self.rungs},
            "seconds": round(time.monotonic() - self.began, 1),
        }
        if self.options.json:
            rows = [
                {**asdict(r), "tries": ATTEMPTS[r.name].tries, "group": ATTEMPTS[r.name].group} for r in self.results
            ]
            print(json.dumps({"results": rows, "summary": summary}, indent=1))
        else:
            self.show(summary, holes)
        if holes:
            return 1
        return INTERRUPTED if interrupted else NOT_HERE if missing else 0

    def of_rung(self, rung: str) -> dict[str, object]:
        """What came of one rung."""
        mine = [result for result in self.results if result.rung == rung]
        ran = [result for result in mine if result.outcome != "not_here"]
        return {
            "tier": self.tiers.get(rung, ""),
            "attempts": len(self.names(rung)),
            "runs": len(ran),
            "contained": sum(result.contained for result in ran),
            "not_contained": sum(not result.contained for result in ran),
            "outcomes": dict(Counter(result.outcome for result in mine).most_common()),
            "not_here": self.reasons.get(rung, ""),
            "seconds": self.seconds[rung],
        }

    def show(self, summary: dict[str, Any], holes: list[Result]) -> None:
        """Counts by rung, what was not contained once more, and the verdict."""
        print(f"\n{'rung':{RUNG_WIDTH}}  {'tier':17}  contained       seconds  how they ended")
        for rung, told in summary["rungs"].items():
            if told["not_here"]:
                print(f"{rung:{RUNG_WIDTH}}  not here: {told['not_here']}")
                continue
            ended = ", ".join(f"{count} {outcome}" for outcome, count in told["outcomes"].items())
            share = f"{told['contained']} of {told['attempts']}"
            print(f"{rung:{RUNG_WIDTH}}  {told['tier']:17}  {share:14}  {told['seconds']:7}  {ended}")
        for hole in holes:
            print(f"NOT CONTAINED: {hole.name} on {hole.rung}: {hole.outcome}; {hole.detail}")
        verdict = f"{len(holes)} NOT CONTAINED" if holes else "all contained"
        if summary["interrupted"]:
            verdict = "interrupted" + (f", {verdict}" if holes else ", all contained so far")
        print(f"{summary['attempts']} attempts, {summary['runs']} runs, {verdict}, {summary['seconds']} s")


def line(result: Result, refusal: Result) -> str:
    """One row of the table."""
    static = f"{refusal.outcome} {refusal.code}"[:34]
    row = f"{result.name:{WIDTH}}  {static:34}  {result.rung:{RUNG_WIDTH}}  {result.outcome:13}  {result.seconds:7.2f}"
    if not result.contained:
        row += f"  NOT CONTAINED: {result.detail}"
    elif result.outcome == "not_here":
        row += f"  {result.detail}"
    return row


if __name__ == "__main__":
    sys.exit(main())
