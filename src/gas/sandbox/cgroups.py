"""Control groups around models: one for each session, below this process's own, wherever they may be made.

A group counts what no limit of a single process counts: memory together with the files in the private folders and with
the kernel's own for both, and threads together with processes. It also tells for sure whether the kernel killed
something for want of memory, and kills every process in it at once.

Version 1 (a hierarchy for each controller) and version 2 (one for all) are used as they are mounted, also side by side;
what the files mean is in the kernel's ``admin-guide/cgroup-v1`` and ``admin-guide/cgroup-v2``. Groups lie below this
process's own, so that limits set for it from outside go on holding. Version 2 hands controllers only to groups without
processes: where this process's group may not hand them on, its parent is used if it was delegated to us (systemd's
``Delegate=yes`` with ``DelegateSubgroup=``, or a user's own part of the tree).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gas.errors import SandboxUnavailable
from gas.sandbox.base import Limits

__all__ = ["Group", "Groups", "Hierarchy", "find_groups", "hierarchies", "limit_files", "out_of_memory_kills"]

_NEEDED: Final = frozenset({"memory", "pids"})
_USED: Final = _NEEDED | {"freezer"}
_HELPERS: Final = 3
"""Processes of the tree that are ours: its first, and what it needs for a moment to start the model's."""
_PATIENCE: Final = 5.0
_PAUSE: Final = 0.002
_NAME: Final = re.compile(r"gas-(\d+)-(\d+)-(\d+)-[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy and this process's own group in it.

    Attributes:
        version: 1 or 2.
        controllers: Of those that are used here: what the mount is for (version 1 only).
        folder: This process's own group.
        top: Where the hierarchy is mounted; nothing above it can be seen.
    """

    version: int
    controllers: frozenset[str]
    folder: Path
    top: Path


def hierarchies(mountinfo: str, own: str) -> list[Hierarchy]:
    """Find the hierarchies that are mounted and show this process's own group.

    Args:
        mountinfo: ``/proc/self/mountinfo``.
        own: ``/proc/self/cgroup``.
    """
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    found: list[Hierarchy] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:
            continue
        root, top = (_unescaped(field) for field in fields[3:5])
        version = 2 if kind[0] == "cgroup2" else 1
        controllers = frozenset() if version == 2 else _USED & frozenset(kind[2].split(","))
        path = paths.get("" if version == 2 else min(controllers, default="-"), "")
        if not path or ".." in Path(path).parts or not Path(path).is_relative_to(root):
            continue
        found.append(Hierarchy(version, controllers, Path(top) / Path(path).relative_to(root), Path(top)))
    return found


def _unescaped(field: str) -> str:
    """A path as the kernel writes it: blanks and backslashes as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def limit_files(version: int, controllers: Iterable[str], limits: Limits) -> list[tuple[str, str, bool]]:
    """What to write into a new group.

    Args:
        version: Of the hierarchy.
        controllers: That the group has.
        limits: Of the session; ``memory_bytes`` and ``processes`` count.

    Returns:
        (file, content, whether the limit holds only with it), in the order of writing.
    """
    memory, processes = str(limits.memory_bytes), str(limits.processes + _HELPERS)
    has = set(controllers)
    files: list[tuple[str, str, bool]] = []
    if "memory" in has and version == 1:
        # Memory and swap together may not be less than memory alone, so that is lowered first.
        files += [("memory.limit_in_bytes", memory, True), ("memory.memsw.limit_in_bytes", memory, False)]
    elif "memory" in has:
        files += [("memory.max", memory, True), ("memory.swap.max", "0", False), ("memory.oom.group", "1", False)]
    if "pids" in has:
        files.append(("pids.max", processes, True))
    return files


def out_of_memory_kills(text: str) -> int:
    """Number of processes that were killed for want of memory within the group's own limit.

    Version 2 counts those, too, that were killed because the machine ran out of memory, but also how often the group's
    own limit was the cause (``oom``). Version 1 doesn't tell the two apart.

    Args:
        text: ``memory.oom_control`` (version 1) or ``memory.events`` (version 2).
    """
    counts = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return int(counts.get("oom_kill", 0)) if int(counts.get("oom", 1)) else 0


@dataclass(frozen=True, slots=True)
class _Place:
    """A group below which groups may be made, and what these have."""

    version: int
    controllers: frozenset[str]
    folder: Path


class Groups:
    """Makes groups for models; from :func:`find_groups`."""

    def __init__(self, places: tuple[_Place, ...]) -> None:
        self._places = places

    def make(self, limits: Limits) -> Group:
        """Make a group with a session's limits; removes those that dead workers have left.

        Raises:
            gas.errors.SandboxUnavailable: The kernel refuses.
        """
        self.sweep()
        name = f"gas-{_pid_space()}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(6)}"
        group = Group([(place.version, place.controllers, place.folder / name) for place in self._places])
        try:
            group.fill(limits)
        except OSError as error:
            group.remove()
            raise SandboxUnavailable(f"A control group for the model can't be made: {error.strerror}.") from error
        return group

    def sweep(self) -> int:
        """Remove groups whose worker died without doing so, and kill what lives in them; returns how many."""
        here, removed = str(_pid_space()), 0
        for place in self._places:
            with contextlib.suppress(OSError):
                for entry in os.scandir(place.folder):
                    found = _NAME.fullmatch(entry.name)
                    # A number of another space of processes says nothing here.
                    if found is None or found[1] != here or str(_started(int(found[2]))) == found[3]:
                        continue
                    _remove(Path(entry.path), place.version, place.controllers)
                    removed += 1
        return removed


class Group:
    """One session's group, in each hierarchy that is used."""

    def __init__(self, folders: list[tuple[int, frozenset[str], Path]]) -> None:
        self._folders = folders
        self._starved = False

    def fill(self, limits: Limits) -> None:
        """Make the folders and set the limits."""
        for version, controllers, folder in self._folders:
            folder.mkdir(mode=0o755)
            for name, content, needed in limit_files(version, controllers, limits):
                with contextlib.nullcontext() if needed else contextlib.suppress(OSError):
                    _write(folder / name, content)

    def join(self, pid: int) -> None:
        """Put a process into the group; whatever it starts from then on is in it too.

        Raises:
            OSError: The kernel refuses.
        """
        for _, _, folder in self._folders:
            _write(folder / "cgroup.procs", str(pid))

    def members(self) -> set[int]:
        """Process ids in the group."""
        return {pid for _, _, folder in self._folders for pid in _members(folder)}

    def starved(self) -> bool:
        """Whether the kernel has killed something in the group for want of memory."""
        for version, controllers, folder in self._folders:
            if "memory" in controllers and not self._starved:
                name = "memory.oom_control" if version == 1 else "memory.events"
                with contextlib.suppress(OSError, ValueError):
                    self._starved = out_of_memory_kills((folder / name).read_text(encoding="ascii")) > 0
        return self._starved

    def kill(self) -> None:
        """Kill every process in the group."""
        for version, controllers, folder in sorted(self._folders, key=lambda one: -one[0]):
            _kill(folder, version, controllers)

    def remove(self) -> None:
        """Kill what is left in the group and remove it; may be called twice."""
        self.starved()
        for version, controllers, folder in self._folders:
            _remove(folder, version, controllers)


def find_groups(proc: Path = Path("/proc/self")) -> tuple[Groups | None, str]:
    """Look where groups with limits on memory and processes can be made; tries it by making one.

    Args:
        proc: What the kernel tells of this process.

    Returns:
        The maker, or None and why not, in one sentence.
    """
    try:
        mounted = hierarchies((proc / "mountinfo").read_text("utf-8"), (proc / "cgroup").read_text("utf-8"))
    except (OSError, ValueError):
        return None, "The kernel tells nothing of control groups."
    places: list[_Place] = []
    refused = ""
    missing = set(_NEEDED)
    seen: set[tuple[int, frozenset[str]]] = set()
    for one in sorted(mounted, key=lambda one: one.version):
        if (one.version, one.controllers) in seen:
            # The same hierarchy, mounted at a second place.
            continue
        seen.add((one.version, one.controllers))
        if one.version == 2:
            place, why = _unified(one, frozenset(missing))
        else:
            writable = bool(one.controllers) and os.access(one.folder, os.W_OK)
            place = _Place(1, one.controllers, one.folder) if writable else None
            why = f"This user may not make control groups in {one.folder}." if one.controllers else ""
        if place is not None:
            places.append(place)
            missing -= place.controllers
        elif why:
            refused = refused or why
    if missing:
        lacking = " and ".join(sorted(missing))
        return None, refused or f"No control group hierarchy that is mounted here limits {lacking}."
    groups = Groups(tuple(places))
    try:
        group = groups.make(Limits())
    except SandboxUnavailable as error:
        return None, error.message
    group.remove()
    return groups, ""


def _unified(one: Hierarchy, wanted: frozenset[str]) -> tuple[_Place | None, str]:
    """Where in a version 2 hierarchy groups with these controllers can be made, or why nowhere."""
    if not wanted:
        usable = os.access(one.folder, os.W_OK)
        return (_Place(2, frozenset(), one.folder) if usable else None), ""
    candidates = [one.folder]
    if one.folder != one.top and _is_ours(one.folder.parent):
        candidates.append(one.folder.parent)
    why = ""
    for folder in candidates:
        if not os.access(folder, os.W_OK):
            why = why or f"This user may not make control groups in {folder}."
            continue
        try:
            offered = set((folder / "cgroup.controllers").read_text("ascii").split())
            handed_on = set((folder / "cgroup.subtree_control").read_text("ascii").split())
            if not wanted <= offered:
                why = (
                    why or f"The control group {folder} has no controller for {' and '.join(sorted(wanted - offered))}."
                )
                continue
            if not wanted <= handed_on:
                _write(folder / "cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(wanted)))
        except OSError as error:
            why = (
                f"The control group {folder} can't hand on its controllers: {error.strerror}; a service needs"
                " Delegate=yes and DelegateSubgroup=main."
            )
            continue
        return _Place(2, wanted, folder), ""
    return None, why


def _is_ours(folder: Path) -> bool:
    """Whether a group was handed over to us: owned by this ordinary user, or marked by systemd."""
    with contextlib.suppress(OSError):
        if os.geteuid() != 0 and folder.stat().st_uid == os.geteuid():
            return True
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def _write(path: Path, text: str) -> None:
    """Write a control file in one call; never makes one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _members(folder: Path) -> list[int]:
    try:
        return [int(word) for word in (folder / "cgroup.procs").read_text("ascii").split()]
    except OSError:
        return []


def _kill(folder: Path, version: int, controllers: frozenset[str]) -> None:
    if version == 2:
        try:
            # From Linux 5.14 on.
            _write(folder / "cgroup.kill", "1")
        except OSError:
            pass
        else:
            return
    name, stop, go = ("cgroup.freeze", "1", "0") if version == 2 else ("freezer.state", "FROZEN", "THAWED")
    freezes = version == 2 or "freezer" in controllers
    # What is frozen can't make processes while we go through the list.
    for content, pids in ((stop, _members(folder)), (go, [])):
        if freezes:
            with contextlib.suppress(OSError):
                _write(folder / name, content)
        for pid in pids and _members(folder):
            # Zero would be ourselves; it stands for processes that can't be seen from here.
            if pid > 1:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)


def _remove(folder: Path, version: int, controllers: frozenset[str]) -> None:
    """Remove a group; one that can't be emptied stays, for the next sweep."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                return
            if _members(folder):
                _kill(folder, version, controllers)
            time.sleep(_PAUSE)
        else:
            return


def _pid_space() -> int:
    """Which space of process numbers this process lives in."""
    return Path("/proc/self/ns/pid").stat().st_ino


def _started(pid: int) -> int:
    """When a process began, in clock ticks since the machine started; 0 for a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
