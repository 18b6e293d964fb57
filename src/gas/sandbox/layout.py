"""What a confined model sees of the machine: one definition for every rung that isolates."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gas.errors import SandboxUnavailable
from gas.sandbox.base import Limits
from gas.sandbox.folders import HeldFolder
from gas.sandbox.gpu import GPU_FOLDER, GpuAccess
from gas.sandbox.runtime import BOOT, RUNNER, Bind, Runtime, child_environment

__all__ = [
    "DEVICES", "FACTS", "GPU_FACTS", "MODEL", "PRIVATE", "Layout", "Package", "package", "parents", "private_uid",
    "readable", "writable",
]  # fmt: skip

MODEL = "/model"
"""Where the package lies inside."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
"""Device files that every model has."""
FACTS = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems")
"""What of ``/proc`` may be read."""
GPU_FACTS = ("/proc/driver/nvidia", "/proc/devices")
PRIVATE = ("/tmp", "/dev/shm")  # noqa: S108 - private ones
"""Empty folders, writable and limited."""

_FIRST_PRIVATE_UID = 1_900_000_000
_PRIVATE_UIDS = 200_000_000
"""Users that no distribution hands out (systemd lists 1879048192 to 2147352575 as unused)."""
_SMALL_UIDS = (40_000, 60_000)
"""Where root itself lives in a container with only 65,536 users."""


def readable(runtime: Runtime, *, gpu: bool) -> tuple[str, ...]:
    """Paths that Landlock leaves readable."""
    system = ("/usr", "/lib", "/lib64", "/etc", "/python", RUNNER, MODEL, *FACTS, *DEVICES)
    return (*system, *runtime.site_folders, *((GPU_FOLDER, *GPU_FACTS) if gpu else ()))


def writable() -> tuple[str, ...]:
    """Paths that Landlock leaves writable."""
    return (*PRIVATE, "/dev/null")


def private_uid() -> int:
    """A user of this session alone: limits and signals of two models never meet."""
    wide = False
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
            first, _, count = (int(word) for word in line.split())
            wide = wide or (first <= _FIRST_PRIVATE_UID and first + count >= _FIRST_PRIVATE_UID + _PRIVATE_UIDS)
    if wide:
        return _FIRST_PRIVATE_UID + secrets.randbelow(_PRIVATE_UIDS)
    low, high = _SMALL_UIDS
    return low + secrets.randbelow(high - low)


def parents(targets: Iterable[str]) -> list[str]:
    """Parent folders of paths below the root, outermost first."""
    found: dict[str, None] = {}
    for target in targets:
        for parent in reversed(Path(target).parents):
            if str(parent) != "/":
                found[str(parent)] = None
    return list(found)


@dataclass(slots=True)
class Package:
    """The model's files as sources of bind mounts; copies of those that another user may not read."""

    binds: list[Bind] = field(default_factory=list)
    copies: HeldFolder | None = None

    def forget_copies(self) -> None:
        """Remove the copies; a running sandbox keeps what it has mounted."""
        if self.copies is not None:
            self.copies.close()
            self.copies = None


def package(folder: Path, *, other_user: bool) -> Package:
    """Bind each regular file by itself: links and subfolders stay out, and the folder's own mode doesn't matter.

    Args:
        folder: The unpacked package.
        other_user: Whether the model's user is another than ours: then files that only we may read are copied.

    Raises:
        gas.errors.SandboxUnavailable: The folder can't be read.
    """
    found = Package()
    try:
        for path in sorted(folder.iterdir()):
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                continue
            source = path.resolve()
            if other_user and not mode & stat.S_IROTH:
                if found.copies is None:
                    found.copies = HeldFolder("gas-model-")
                source = found.copies.path / path.name
                shutil.copyfile(path, source)
                source.chmod(0o444)
            found.binds.append(Bind(source, f"{MODEL}/{path.name}"))
    except OSError as error:
        found.forget_copies()
        raise SandboxUnavailable(f"The model's folder can't be read: {error.strerror}.") from error
    return found


@dataclass(frozen=True, slots=True)
class Layout:
    """One session's view.

    Attributes:
        runtime: Python and libraries.
        package: The model's files.
        limits: Of the session; those of the private folders count.
        threads: Number of threads that the model should compute with.
        as_root: Whether the parent is root: then the model becomes another user without a user name space.
        gpu: Graphics cards to hand in.
    """

    runtime: Runtime
    package: list[Bind]
    limits: Limits
    threads: int
    as_root: bool
    gpu: GpuAccess | None = None

    @property
    def binds(self) -> list[Bind]:
        """Read-only views; parents of the targets are :attr:`folders`."""
        return [*self.runtime.binds, *self.package]

    @property
    def folders(self) -> list[str]:
        """Parent folders of the binds' targets below the root, outermost first; everybody may enter them."""
        return parents(bind.target for bind in self.binds)

    @property
    def environment(self) -> dict[str, str]:
        """The model's whole environment."""
        environment = child_environment(self.threads)
        folders = [GPU_FOLDER] if self.gpu else []
        folders += [self.runtime.library_path] if self.runtime.library_path else []
        if folders:
            environment["LD_LIBRARY_PATH"] = ":".join(folders)
        return environment

    def command(self, settings: int) -> list[str]:
        """The runner's command line; ``settings`` is a descriptor."""
        return [self.runtime.executable, "-s", "-P", "-S", "-B", "-c", BOOT, RUNNER, str(settings)]
