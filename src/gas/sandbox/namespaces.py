"""The rung for machines without bubblewrap: name spaces and a root of our own making.

Then as with bubblewrap: Landlock, two seccomp filters, resource limits, and a control group where one can be made.

The work is done by :mod:`gas.sandbox.inside.launcher` in a process of its own. Against bubblewrap there is more of our
own code in it, which fewer people have read; that is why it stands below. In two points it is stricter: the private
folders are mounted with a limit on the number of files and without programs, and there is no ``/proc`` but for the few
files that the model's libraries look at.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

from gas.sandbox.base import Tier
from gas.sandbox.cgroups import Group, Groups
from gas.sandbox.gpu import GPU_FOLDER
from gas.sandbox.inside.filters import first_filter
from gas.sandbox.isolating import IsolatingSandbox
from gas.sandbox.launch import start_guarded
from gas.sandbox.layout import DEVICES, FACTS, GPU_FACTS, PRIVATE, Layout, parents
from gas.sandbox.memory import sealed_file
from gas.sandbox.runtime import runner_folder
from gas.sandbox.tree import Start, Tree

__all__ = ["NamespaceSandbox"]

_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from inside.launcher import main;"
    " main(*(int(word) for word in sys.argv[2:]))"
)
_SPARE_FILES = 64


class NamespaceSandbox(IsolatingSandbox):
    """Runs a stranger's model; see :class:`gas.sandbox.isolating.IsolatingSandbox`.

    Args:
        groups: Where control groups can be made.

    Raises:
        gas.errors.SandboxUnavailable: There is no filter for this processor.
    """

    def __init__(self, *, groups: Groups | None = None) -> None:
        super().__init__(Tier.NAMESPACES_CGROUP if groups else Tier.NAMESPACES, groups)

    def _launch(self, layout: Layout, start: Start, group: Group | None) -> Tree:
        plan = sealed_file("plan", json.dumps(_plan(layout, start)).encode())

        def command(info: int, gate: int) -> list[str]:
            words = (runner_folder(), plan, info, gate)
            return [sys.executable, "-I", "-S", "-B", "-c", _BOOT, *map(str, words)]

        with contextlib.ExitStack() as stack:
            stack.callback(os.close, plan)
            return start_guarded(command, start, who="The launcher", more=(plan,), group=group)


def _plan(layout: Layout, start: Start) -> dict[str, object]:
    """What the launcher must know; sources of bind mounts are resolved, for it sees them below another root."""
    binds = [(str(bind.source.resolve()), bind.target) for bind in layout.binds]
    devices = list(DEVICES)
    facts = list(FACTS)
    if layout.gpu:
        devices += layout.gpu.devices
        facts += GPU_FACTS
        binds += [(str(Path(path).resolve()), f"{GPU_FOLDER}/{name}") for name, path in layout.gpu.libraries]
    binds += [(path, path) for path in facts if Path(path).exists()]
    targets = [*(target for _, target in binds), *devices, *PRIVATE]
    folders = [*layout.folders, *parents(targets)]
    return {
        "parent": os.getpid(),
        "as_root": layout.as_root,
        "folders": [*dict.fromkeys(folders), *PRIVATE],
        "binds": binds,
        "links": layout.runtime.links,
        "hidden": layout.runtime.hidden,
        "devices": devices,
        "private": PRIVATE,
        "private_bytes": layout.limits.tmp_bytes,
        "private_files": layout.limits.tmp_files,
        "root_files": 2 * len(targets) + len(folders) + _SPARE_FILES,
        "filter": first_filter(gpu=layout.gpu is not None).hex(),
        "descriptors": start.descriptors,
        "command": layout.command(start.settings),
        "environment": layout.environment,
    }
