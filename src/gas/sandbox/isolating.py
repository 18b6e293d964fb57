"""What the rungs that isolate have in common: the view, the user, the control group, the runner's confinement.

Two variants hold, and which one is used follows from who runs the parent:

* root: *no* user name space; the runner keeps CAP_SETUID and CAP_SETGID just long enough to become a user that nobody
  else is. (With a user name space, the model would be root on the host: it could write below ``/proc/sys`` and the
  memory of the tree's first process.)
* anyone else: every name space, user included; the tree's first process, which has the same user, is out of reach by
  Landlock, the filters, or because there is no ``/proc``.
"""

from __future__ import annotations

import abc
import os
import platform
from pathlib import Path

from gas.errors import SandboxUnavailable
from gas.sandbox.base import DEFAULT_LIMITS, Environment, Limits, ModelSpec, Tier
from gas.sandbox.cgroups import Group, Groups
from gas.sandbox.gpu import find_gpu
from gas.sandbox.layout import MODEL, Layout, package, private_uid, readable, writable
from gas.sandbox.opening import Confinement, Launcher, Waiting, open_session, open_waiting
from gas.sandbox.runtime import Bind, find_runtime
from gas.sandbox.session import Session
from gas.sandbox.tree import Start, Tree

__all__ = ["IsolatingSandbox"]


class IsolatingSandbox(abc.ABC):
    """Runs a stranger's model.

    The thread that calls :meth:`start` must live as long as the session: the kernel kills the tree when that
    thread ends.

    Args:
        tier: The rung's name.
        groups: Where control groups can be made; then each session has one, and its limits hold for the whole tree.

    Raises:
        gas.errors.SandboxUnavailable: There is no filter for this processor.
    """

    def __init__(self, tier: Tier, groups: Groups | None = None) -> None:
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            raise SandboxUnavailable(
                f"The seccomp filters are written for Linux on x86-64; this is {platform.system()} on"
                f" {platform.machine()}."
            )
        self.tier = tier
        self._groups = groups
        self._runtime = find_runtime()

    def start(
        self,
        spec: ModelSpec,
        *,
        batch_size: int,
        limits: Limits = DEFAULT_LIMITS,
        threads: int = 1,
    ) -> Session:
        """Start a process tree and load the model in it; see :class:`gas.sandbox.base.Sandbox`."""
        session = self.open(spec, batch_size=batch_size, limits=limits, threads=threads)
        session.load()
        return session

    def open(
        self,
        spec: ModelSpec,
        *,
        batch_size: int,
        limits: Limits,
        threads: int = 1,
        selfcheck: dict[str, object] | None = None,
    ) -> Session:
        """Start a confined runner; the model is loaded by :meth:`Session.load`.

        Raises:
            gas.errors.SandboxUnavailable: The isolation could not be set up.
        """
        files = package(spec.folder, other_user=os.geteuid() == 0)
        try:
            confinement, launch = self._plan(Environment.of(spec, limits, threads), files.binds)
            return open_session(
                spec, confinement, launch,
                tier=self.tier, batch_size=batch_size, limits=limits, threads=threads, selfcheck=selfcheck,
            )  # fmt: skip
        finally:
            files.forget_copies()

    def wait(self, environment: Environment, folder: Path) -> Waiting:
        """Start a runner that is given its package later.

        Args:
            environment: What it is for.
            folder: Where the package's files will lie; the model sees the folder as it is then. For a parent that is
                root it and the files must be readable by everybody.

        Raises:
            gas.errors.SandboxUnavailable: The isolation could not be set up.
        """
        confinement, launch = self._plan(environment, [Bind(folder.resolve(), MODEL)])
        return open_waiting(environment, confinement, launch, tier=self.tier)

    def _plan(self, environment: Environment, binds: list[Bind]) -> tuple[Confinement, Launcher]:
        """What the runner does to itself, and how it is started."""
        as_root = os.geteuid() == 0
        gpu = find_gpu() if environment.device == "cuda" else None
        if environment.device == "cuda" and gpu is None:
            raise SandboxUnavailable("There is no graphics card that could be handed in.", hint="Name the device cpu.")
        confinement = Confinement(
            strict=True,
            model_folder=MODEL,
            site_folders=self._runtime.site_folders,
            uid=private_uid() if as_root else None,
            read=readable(self._runtime, gpu=gpu is not None),
            write=writable(),
            devices=gpu.devices if gpu else (),
        )
        limits = environment.limits
        layout = Layout(self._runtime, binds, limits, environment.threads, as_root=as_root, gpu=gpu)

        def launch(start: Start) -> Tree:
            group = self._groups.make(limits) if self._groups else None
            try:
                return self._launch(layout, start, group)
            except BaseException:
                if group:
                    group.remove()
                raise

        return confinement, launch

    @abc.abstractmethod
    def _launch(self, layout: Layout, start: Start, group: Group | None) -> Tree:
        """Start the tree with this view; the group is the tree's from then on."""
