"""How much memory is left: of the machine, or of the control groups that this process is in, whichever is least."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gas.sandbox.cgroups import Hierarchy, hierarchies

__all__ = ["available_bytes"]

_FILES: Final = {1: ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"), 2: ("max", "current", "inactive_file")}


def available_bytes(proc: Path = Path("/proc")) -> int:
    """Memory that can still be used, in bytes; 0 when nobody says.

    Args:
        proc: What the kernel tells of this machine and this process.
    """
    found = []
    with contextlib.suppress(OSError):
        if line := re.search(r"^MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text("ascii"), re.MULTILINE):
            found.append(int(line[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        own = proc / "self"
        for one in hierarchies((own / "mountinfo").read_text("utf-8"), (own / "cgroup").read_text("utf-8")):
            if one.version == 2 or "memory" in one.controllers:
                found += _left_in(one)
    return min(found, default=0)


def _left_in(one: Hierarchy) -> Iterator[int]:
    """Of this process's own group and of all above it; a group without a limit says nothing."""
    most, current, cached = _FILES[one.version]
    for folder in (one.folder, *one.folder.parents):
        if not folder.is_relative_to(one.top):
            return
        with contextlib.suppress(OSError, ValueError):
            limit, used = (int((folder / f"memory.{name}").read_text("ascii")) for name in (most, current))
            # What was read from files is given back when somebody needs the room.
            stat = (folder / "memory.stat").read_text("ascii")
            files = re.search(rf"^{cached} (\d+)$", stat, re.MULTILINE)
            yield max(0, limit - used + (int(files[1]) if files else 0))
