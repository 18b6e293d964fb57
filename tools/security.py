"""The conformance suite of the sandbox: every hostile model, on every rung that this machine has.

Prints a line for each attempt and rung: what it tried, whether the static check refuses it, how it ended, and the
seconds. Ends with code 1 when any attempt was not contained.

    python tools/security.py [--json] [--only NAME ...] [--rung check|plain|root|user|own-root|own-user ...] [--fast]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "hostile"))

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
    run_on,
    static_check,
)

RUNGS = {"check": CHECK, "plain": PLAIN, "root": ROOT, "user": USER, "own-root": OWN_ROOT, "own-user": OWN_USER}
WIDTH = max(len(name) for name in ATTEMPTS)


def main() -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description="Run hostile models on the rungs of the sandbox.")
    parser.add_argument("--json", action="store_true", help="one JSON document at the end")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this attempt; may be repeated")
    parser.add_argument("--rung", action="append", default=[], choices=[*RUNGS], help="this rung; may be repeated")
    parser.add_argument("--fast", action="store_true", help="let attempts that are denied share a process")
    parser.add_argument("--spares", action="store_true", help="give each model to a process that waited for it")
    options = parser.parse_args()
    unknown = sorted(set(options.only) - set(ATTEMPTS))
    if unknown:
        parser.error(f"there is no attempt called {', '.join(unknown)}")

    began = time.monotonic()
    rungs = [RUNGS[name] for name in options.rung or RUNGS]
    isolating = not {CHECK, PLAIN}.issuperset(rungs)
    found = {rung: find(rung) for rung in (ROOT, OWN_ROOT)} if isolating else {}
    reasons = here() if isolating else {PLAIN: ""}
    refusals = {attempt.name: static_check(attempt) for attempt in chosen(CHECK, options.only)}
    results: list[Result] = []

    def tell(result: Result) -> None:
        results.append(result)
        if not options.json:
            print(line(result, refusals[result.name]), flush=True)

    if not options.json:
        print(f"{'attempt':{WIDTH}}  {'static check':34}  {'rung':17}  {'outcome':13}  seconds")
    for rung in rungs:
        attempts = chosen(rung, options.only)
        if rung == CHECK:
            for attempt in attempts:
                tell(refusals[attempt.name])
        elif reasons[rung]:
            for attempt in attempts:
                tell(Result(attempt.name, rung, "not_here", True, reasons[rung]))
        elif attempts:
            run_on(rung, attempts, tell, found=found.get(rung), together=options.fast, spares=options.spares)

    holes = [result for result in results if not result.contained]
    summary = {
        "attempts": len({result.name for result in results}),
        "runs": len(results),
        "not_contained": len(holes),
        "outcomes": {rung: dict(Counter(r.outcome for r in results if r.rung == rung)) for rung in RUNGS.values()},
        "tiers": {rung: probed.tier.name for rung, probed in found.items()},
        "not_here": {rung: reason for rung, reason in reasons.items() if reason},
        "seconds": round(time.monotonic() - began, 1),
    }
    if options.json:
        rows = [{**asdict(r), "tries": ATTEMPTS[r.name].tries, "group": ATTEMPTS[r.name].group} for r in results]
        print(json.dumps({"results": rows, "summary": summary}, indent=1))
    else:
        closing(summary)
    return 1 if holes else 0


def line(result: Result, refusal: Result) -> str:
    """One row of the table."""
    static = f"{refusal.outcome} {refusal.code}"[:34]
    row = f"{result.name:{WIDTH}}  {static:34}  {result.rung:17}  {result.outcome:13}  {result.seconds:7.2f}"
    if not result.contained:
        row += f"  NOT CONTAINED: {result.detail}"
    elif result.outcome == "not_here":
        row += f"  {result.detail}"
    return row


def closing(summary: dict[str, object]) -> None:
    """Counts by rung and outcome, and the verdict."""
    print()
    outcomes, missing, tiers = summary["outcomes"], summary["not_here"], summary["tiers"]
    assert isinstance(outcomes, dict) and isinstance(missing, dict) and isinstance(tiers, dict)
    for rung, counts in outcomes.items():
        if counts:
            told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items(), key=lambda kv: -kv[1]))
            print(f"{rung:17}  {told}" + (f" (tier {tiers[rung]})" if rung in tiers else ""))
    for rung, reason in missing.items():
        print(f"{rung:17}  not here: {reason}")
    holes = summary["not_contained"]
    verdict = "all contained" if not holes else f"{holes} NOT CONTAINED"
    print(f"{summary['attempts']} attempts, {summary['runs']} runs, {verdict}, {summary['seconds']} s")


if __name__ == "__main__":
    sys.exit(main())
