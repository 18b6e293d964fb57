"""``gasbench``: a detector on data sets of one's own, and the comparison of such runs."""

from __future__ import annotations

import json
import os
import sys
from typing import Final

from gas.cli.main import Lazy, dispatch

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "run": Lazy("gas.cli.gasbench_run:run_command", "Benchmark a model on data sets of your own, in the sandbox."),
    "compare": Lazy("gas.cli.gasbench_compare:compare_command", "Which of several runs on one plan is better."),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point; turns an error of ours or of the user's into a sentence and an exit status.

    Exit statuses: 0 fine, 1 refused or failed, 2 wrong usage or could not be done, 130 interrupted.
    """
    from gas.errors import ConfigurationError, GasError

    words = sys.argv[1:] if arguments is None else arguments
    try:
        dispatch(words, COMMANDS, "gasbench", "The benchmark of GAS, for a model and data of your own.")
    except GasError as error:
        if "--json" in words:
            print(json.dumps({"error": error.as_dict()}))
        print(f"gasbench: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigurationError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
