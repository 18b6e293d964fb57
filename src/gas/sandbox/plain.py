"""The lowest rung: an ordinary process with resource limits, for one's own model (``--trust-model``)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from gas.errors import SandboxUnavailable
from gas.sandbox.base import DEFAULT_LIMITS, Environment, Limits, ModelSpec, Tier
from gas.sandbox.opening import Confinement, Launcher, Waiting, open_session, open_waiting
from gas.sandbox.runtime import BOOT, child_environment, host_site_folders, runner_folder
from gas.sandbox.session import Session
from gas.sandbox.tree import Start, Tree

__all__ = ["PlainSandbox"]


class PlainSandbox:
    """Runs a model with the rights of whoever started it.

    It keeps the contract of the seam (frames, deadlines, limits on memory and time, an environment of its own),
    but hides nothing: the model can read files and use the network. Never for a stranger's model.
    """

    tier = Tier.PLAIN

    def start(
        self,
        spec: ModelSpec,
        *,
        batch_size: int,
        limits: Limits = DEFAULT_LIMITS,
        threads: int = 1,
    ) -> Session:
        """Start a process and load the model in it; see :class:`gas.sandbox.base.Sandbox`."""
        if not spec.folder.is_dir():
            raise SandboxUnavailable(f"There is no folder {spec.folder}.")
        session = open_session(
            spec, _confinement(spec.folder), _launcher(threads),
            tier=self.tier, batch_size=batch_size, limits=limits, threads=threads,
        )  # fmt: skip
        session.load()
        return session

    def wait(self, environment: Environment, folder: Path) -> Waiting:
        """Start a process without a package; see :class:`gas.sandbox.opening.Rung`."""
        return open_waiting(environment, _confinement(folder), _launcher(environment.threads), tier=self.tier)


def _confinement(folder: Path) -> Confinement:
    return Confinement(
        strict=False,
        model_folder=str(folder.resolve()),
        site_folders=tuple(str(site) for site in host_site_folders()),
        parent=os.getpid(),
        # The limit counts everything that this user runs, so it would hit the wrong ones.
        limit_processes=False,
    )


def _launcher(threads: int) -> Launcher:
    def launch(start: Start) -> Tree:
        process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-S", "-B", "-c", BOOT, str(runner_folder()), str(start.settings)],
            stdin=subprocess.DEVNULL,
            stdout=start.pipes.errors_inside,
            stderr=start.pipes.errors_inside,
            pass_fds=start.descriptors,
            env=child_environment(threads),
            cwd="/",
            start_new_session=True,
        )

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        return Tree(process, start.pipes, kill=kill)

    return launch
