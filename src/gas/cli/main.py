"""``gascli``: the one command, and the table of what it can do.

Commands are loaded when they are called, not when they are listed: this table holds their one-line helps, so that
``gascli --help`` imports nothing but this file and the option parser.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gas import __version__

__all__ = ["main"]


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command that is imported when it is called.

    Attributes:
        target: ``module:attribute`` of a function with typer's annotations, of a typer app, or ``""`` for a group
            that is made of ``commands``.
        help: One line for the list.
        commands: Subcommands of a group of this table.
        aliases: Further names.
    """

    target: str
    help: str
    commands: dict[str, Lazy] | None = None
    aliases: tuple[str, ...] = ()


COMMANDS: dict[str, Lazy] = {
    "demo": Lazy("gas.cli.demo.command:demo", "Play one whole adversarial round on real input, on this machine."),
    "doctor": Lazy("gas.cli.doctor:doctor", "What is installed, what isolates, what is missing, what to do."),
    "status": Lazy("gas.cli.status:status", "What a home holds: chain, wallets, submissions, rounds, pay."),
    "score": Lazy("gas.cli.score:score", "Every metric for anyone's predictions (CSV)."),
    "discriminator": Lazy(
        "",
        "Detectors: check, benchmark and push a model.",
        commands={
            "init": Lazy("gas.cli.init:init", "Scaffold a package that passes the checks."),
            "check": Lazy("gas.cli.check:check", "All static checks of a package, every reason at once."),
            "bench": Lazy("gas.cli.bench:bench", "Benchmark a package on a frozen round, in the sandbox."),
            "compare": Lazy("gas.cli.compare:compare_command", "Which of several runs on one round is better."),
            "push": Lazy("gas.cli.push:push", "Check, upload and commit a package."),
            "status": Lazy("gas.cli.push:status", "Where a pushed model stands, and what to fix."),
            "train": Lazy("gas.cli.train:train", "Train a scaffold's baseline on data of yours."),
            "export": Lazy("gas.cli.train:export", "Pack a folder into a zip that can be pushed."),
            "perf": Lazy("gas.cli.perf:perf", "How a pushed model did, and where it is weak."),
            "withdraw": Lazy("gas.cli.perf:withdraw", "Take a pushed model back."),
        },
        aliases=("d",),
    ),
    "generator": Lazy(
        "",
        "Generators: serve prompts with local pipelines and providers.",
        commands={
            "serve": Lazy("gas.cli.generator:serve", "Answer validators' prompts over HTTP, in the foreground."),
            "start": Lazy("gas.cli.generator_ops:start", "Run the generator in the background, under supervision."),
            "stop": Lazy("gas.cli.generator_ops:stop", "Stop it; its tasks are kept."),
            "restart": Lazy("gas.cli.generator_ops:restart", "Stop it and start it with the settings of now."),
            "status": Lazy("gas.cli.generator_ops:status", "Whether it runs and takes work, and its tasks."),
            "logs": Lazy("gas.cli.generator_ops:logs", "Its last lines; --follow goes on."),
            "info": Lazy("gas.cli.generator_ops:info", "The settings in force, without keys."),
            "delete": Lazy("gas.cli.generator_ops:delete", "Stop it and remove its logs; --tasks its tasks too."),
            "perf": Lazy("gas.cli.generator_perf:perf", "Pass rate, refusals, fool rate, price multiplier, pay."),
            "try": Lazy("gas.cli.generator:try_pipeline", "Make one medium from a prompt, without a network."),
            "cert": Lazy("gas.cli.certificates:app", "Certificates to sign media with: new, show."),
            "sign-c2pa": Lazy("gas.cli.c2pa:sign_command", "Embed content credentials (C2PA) in a file."),
            "verify-c2pa": Lazy("gas.cli.c2pa:verify_command", "Check a file's content credentials (C2PA)."),
        },
        aliases=("gen", "g"),
    ),
    "validator": Lazy(
        "",
        "Validators: challenge generators, judge media, set weights.",
        commands={
            "media": Lazy("gas.cli.validator:media", "How each generator's challenges ended."),
            "weights": Lazy("gas.cli.validator:weights", "What the weights would be now, and why; --set sets them."),
            "prompts": Lazy("gas.cli.prompts:app", "The prompt bank: add, import, compose, draw, report, index."),
            "generate": Lazy("gas.cli.local_media:generate", "Make media with the registry of local models."),
            "serve": Lazy("gas.cli.validator_ops:serve", "Run one of its three services in the foreground."),
            "start": Lazy("gas.cli.validator_ops:start", "Run its three services in the background, supervised."),
            "stop": Lazy("gas.cli.validator_ops:stop", "Stop them; what they were at is in the database."),
            "restart": Lazy("gas.cli.validator_ops:restart", "Stop them and start them with the settings of now."),
            "status": Lazy("gas.cli.validator_ops:status", "Whether they run and live, and how the last day went."),
            "logs": Lazy("gas.cli.validator_ops:logs", "Their last lines; --follow goes on."),
            "miner-stats": Lazy("gas.cli.validator:miner_stats", "Challenges, refusals, latency and rates of miners."),
            "store": Lazy("gas.cli.validator_store:app", "The media store: stats."),
            "publish": Lazy("gas.cli.validator_store:publish", "Publish verified media in weekly shards."),
            "prune": Lazy("gas.cli.validator_store:prune", "Remove published media that nothing needs any more."),
        },
        aliases=("vali", "v"),
    ),
    "arena": Lazy("gas.cli.arena:app", "Submission service and benchmark workers."),
    "receipt": Lazy("gas.cli.receipts:app", "Signed receipts of runs: get, verify."),
    "bench": Lazy("gas.cli.receipts:bench_app", "Replay a run from its receipt."),
    "chain": Lazy("gas.cli.chain:app", "The chain: status, registration, stake, weights, epochs."),
    "wallet": Lazy("gas.cli.wallet:app", "Wallets: new, list, show, sign, verify."),
    "data": Lazy("gas.cli.data:app", "Data sets: add, fetch, verify, stats, plan, diff, audit, show."),
}


def help_text(path: str, about: str, table: dict[str, Lazy]) -> str:
    """The help of a group: its commands with one line each.

    Args:
        path: How the group is called, e.g. ``gascli d``.
        about: One sentence.
        table: Its commands.
    """
    names = [", ".join([name, *lazy.aliases]) for name, lazy in table.items()]
    width = max(map(len, names)) + 4
    columns = max(50, min(100, shutil.get_terminal_size().columns))
    lines = [f"Usage: {path} COMMAND [OPTIONS]", "", about, "", "Commands:"]
    for name, lazy in zip(names, table.values(), strict=True):
        rows = textwrap.wrap(lazy.help, columns - width - 2) or [""]
        lines.append(f"  {name.ljust(width)}{rows[0]}")
        lines += [" " * (width + 2) + row for row in rows[1:]]
    return "\n".join([*lines, "", f"`{path} COMMAND --help` tells more of a command."])


def find(table: dict[str, Lazy], word: str) -> tuple[str, Lazy] | None:
    """Look a command up by its name or an alias."""
    return next(((name, lazy) for name, lazy in table.items() if word == name or word in lazy.aliases), None)


def load(name: str, lazy: Lazy) -> Callable[..., Any]:
    """Import the command that is called, as a typer app."""
    import typer

    module, _, attribute = lazy.target.partition(":")
    target: Any = getattr(importlib.import_module(module), attribute)
    if isinstance(target, typer.Typer):
        return target
    app = typer.Typer(add_completion=False)
    app.command(name, help=None if target.__doc__ else lazy.help)(target)
    return app


def dispatch(words: list[str], table: dict[str, Lazy], path: str, about: str) -> None:
    """Walk down the table by the words of the command line and run what they name."""
    word = words[0] if words else "--help"
    if word in ("--help", "-h"):
        print(help_text(path, about, table))
        return
    if word == "--version":
        print(f"gas {__version__}")
        return
    found = find(table, word)
    if found is None:
        print(f"{path}: there is no command {word!r}. `{path} --help` lists them.", file=sys.stderr)
        raise SystemExit(2)
    name, lazy = found
    if lazy.commands is not None:
        dispatch(words[1:], lazy.commands, f"{path} {word}", lazy.help)
    else:
        load(name, lazy)(args=words[1:], prog_name=f"{path} {word}")


def run_program(program: str, about: str, table: dict[str, Lazy], arguments: list[str] | None = None) -> None:
    """Run what the words of a command line name, and turn an error into a sentence and an exit status.

    Exit statuses: 0 fine, 1 refused or failed, 2 wrong usage or could not be done, 130 interrupted.

    Args:
        program: Its name, for its messages.
        about: What it is, for its help.
        table: Its commands.
        arguments: The words; those that the process was started with when left out.
    """
    from gas.errors import ConfigurationError, GasError, PackageRejected

    words = sys.argv[1:] if arguments is None else arguments
    try:
        dispatch(words, table, program, about)
    except GasError as error:
        if "--json" in words:
            print(json.dumps({"error": error.as_dict()}))
        # A refused package has many reasons, which nobody finds in one line.
        for text in error.reasons if isinstance(error, PackageRejected) else (error,):
            print(f"{program}: {text}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigurationError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``gascli``; see :func:`run_program`."""
    run_program("gascli", "GAS: detectors against generators, judged and paid.", COMMANDS, arguments)


if __name__ == "__main__":
    main()
