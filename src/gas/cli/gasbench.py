"""``gasbench``: a detector on data sets of one's own, and the comparison of such runs."""

from __future__ import annotations

from typing import Final

from gas.cli.main import Lazy, run_program

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "run": Lazy("gas.cli.gasbench_run:run_command", "Benchmark a model on data sets of your own, in the sandbox."),
    "compare": Lazy("gas.cli.gasbench_compare:compare_command", "Which of several runs on one plan is better."),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``gasbench``; see :func:`gas.cli.main.run_program`."""
    run_program("gasbench", "The benchmark of GAS, for a model and data of your own.", COMMANDS, arguments)


if __name__ == "__main__":
    main()
