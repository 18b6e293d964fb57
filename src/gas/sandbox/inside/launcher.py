"""Make name spaces, a root of its own, and start the runner in it: what bubblewrap does, for machines without it.

Three processes, all ours: this one waits outside and ends as the runner ends; the first process of the new space of
process numbers builds the root and waits inside; the third gives up its powers, takes the first filter and becomes the
runner. Each dies with the one before, and killing the second kills everything inside.

The root is a tmpfs. Old and new root change places twice: first so that the sources of bind mounts can be reached
wherever they are, then for good, and the old one is let go. Everything but the private folders is read-only, no device
node works but those that are handed in, and there is no ``/proc``, only single files of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
from typing import Any, NoReturn

from . import confine

__all__ = ["main"]

_FAILED = 71

_NEWNS, _NEWCGROUP, _NEWUTS, _NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2

_SYS_PIVOT_ROOT = 155
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8

_CAP_SETGID, _CAP_SETUID = 1 << 6, 1 << 7

_BASE = "/tmp"  # noqa: S108 - a folder that every machine has; covered for a moment, in this name space alone
_NEW, _OLD = "/new", "/old"


def _check(what: str, result: int) -> None:
    if result < 0:
        raise confine.ConfinementError(f"{what} failed: {os.strerror(ctypes.get_errno())}.")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _unshare(flags: int) -> None:
    _check("unshare", _libc().unshare(ctypes.c_int(flags)))


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    result = _libc().mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(f"mount on {target}", result)


def _restrict(target: str, attributes: int, *, everything_below: bool = True) -> None:
    """Set attributes of a mount, and of all that is mounted below it."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    attr = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if everything_below else 0
    result = _libc().syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        target.encode(),
        ctypes.c_uint(flags),
        attr,
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    _check(f"mount_setattr of {target}", result)


def _pivot(new: str, old: str) -> None:
    _check("pivot_root", _libc().syscall(ctypes.c_long(_SYS_PIVOT_ROOT), new.encode(), old.encode()))


def _close_all_but(kept: list[int]) -> None:
    low = 3
    for descriptor in sorted({*kept, 1 << 20}):
        if descriptor >= low:
            os.closerange(low, descriptor)
            low = descriptor + 1


def main(settings: int, info: int, gate: int) -> NoReturn:
    """Run until the tree has ended; ends as the runner ended (128 and the signal's number if one killed it).

    Args:
        settings: A descriptor with JSON from :mod:`gas.sandbox.namespaces`; read to its end.
        info: A descriptor to write JSON to: ``child-pid`` is the number of the tree's first process.
        gate: A descriptor from which one byte comes when the tree may be built.
    """
    try:
        parts = []
        while part := os.read(settings, 1 << 20):
            parts.append(part)
        os.close(settings)
        config: dict[str, Any] = json.loads(b"".join(parts))
        confine.die_with_parent()
        if os.getppid() != config["parent"]:
            os._exit(_FAILED)
        os.umask(0)
        _enter(as_root=config["as_root"])
        bound, bound_inside = os.pipe2(os.O_CLOEXEC)
        first = os.fork()
        if first == 0:
            os.close(info)
            _first_process(config, gate, bound_inside)
        os.close(bound_inside)
        # Nobody may open the gate before the first process would die with this one.
        if os.read(bound, 1) != b"x":
            os._exit(_FAILED)
        os.write(info, json.dumps({"child-pid": first}).encode())
        _close_all_but([])
        confine.keep_capabilities(0)
        os._exit(_ended(os.waitpid(first, 0)[1]))
    except (confine.ConfinementError, OSError) as error:
        _give_up(error)


def _give_up(error: Exception) -> NoReturn:
    sys.stderr.write(f"launcher: {error}\n")
    sys.stderr.flush()
    os._exit(_FAILED)


def _ended(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _enter(*, as_root: bool) -> None:
    """Take part in new name spaces; the one of process numbers holds from the next process on."""
    uid, gid = os.geteuid(), os.getegid()
    _unshare(_NEWNS | _NEWIPC | _NEWUTS | _NEWNET | _NEWPID | (0 if as_root else _NEWUSER))
    # Only hides names of groups, and no file that tells them is shown inside.
    with contextlib.suppress(confine.ConfinementError):
        _unshare(_NEWCGROUP)
    if not as_root:
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123
                file.write(line)
    socket.sethostname("sandbox")


def _first_process(config: dict[str, Any], gate: int, bound: int) -> NoReturn:
    """The tree's first process: its end is everybody's."""
    try:
        confine.die_with_parent()
        os.write(bound, b"x")
        # The end of the file means that nobody is left who could open the gate.
        if os.read(gate, 1) != b"x":
            os._exit(_FAILED)
        os.close(gate)
        _build_root(config)
        program = bytes.fromhex(config["filter"])
        runner = os.fork()
        if runner == 0:
            _become_runner(config, program)
        _close_all_but([])
        confine.keep_capabilities(0)
        confine.install_filter(program)
        while True:
            pid, status = os.wait()
            if pid == runner:
                os._exit(_ended(status))
    except (confine.ConfinementError, OSError) as error:
        _give_up(error)


def _become_runner(config: dict[str, Any], program: bytes) -> NoReturn:
    try:
        confine.die_with_parent()
        os.setsid()
        _close_all_but(config["descriptors"])
        os.umask(0o022)
        # A runner that starts as root needs these to become another user, and loses them by that.
        confine.keep_capabilities(_CAP_SETUID | _CAP_SETGID if config["as_root"] else 0)
        confine.install_filter(program)
        os.execve(config["command"][0], config["command"], config["environment"])  # noqa: S606
    except (confine.ConfinementError, OSError) as error:
        _give_up(error)


def _build_root(config: dict[str, Any]) -> None:
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", _BASE, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=64k,nr_inodes=16")
    os.mkdir(_BASE + _NEW, 0o755)  # noqa: PTH102 - no pathlib: this must start fast
    os.mkdir(_BASE + _OLD, 0o755)  # noqa: PTH102
    _pivot(_BASE, _BASE + _OLD)
    os.chdir("/")
    _mount("tmpfs", _NEW, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode=0755,size=1m,nr_inodes={config['root_files']}")
    for folder in config["folders"]:
        os.makedirs(_NEW + folder, 0o755, exist_ok=True)  # noqa: PTH103
    for source, target in config["binds"]:
        _bind(source, target, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for target, path in config["links"]:
        os.symlink(target, _NEW + path)  # noqa: PTH211
    for folder in config["hidden"]:
        options = "mode=0755,size=4k,nr_inodes=2"
        _mount("tmpfs", _NEW + folder, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    for device in config["devices"]:
        _bind(device, device, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NOEXEC)
    for folder in config["private"]:
        # The folder itself counts as a file.
        options = f"mode=1777,size={config['private_bytes']},nr_inodes={config['private_files'] + 1}"
        _mount("tmpfs", _NEW + folder, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
    _restrict(_NEW, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, everything_below=False)
    os.chdir(_NEW)
    # The old root comes to lie on the new one, and is taken off it.
    _pivot(".", ".")
    _check("umount", _libc().umount2(b".", ctypes.c_int(_MNT_DETACH)))
    os.chdir("/")


def _bind(source: str, target: str, attributes: int) -> None:
    old, new = _OLD + source, _NEW + target
    if os.path.isdir(old):  # noqa: PTH112
        os.makedirs(new, 0o755, exist_ok=True)  # noqa: PTH103
    elif not os.path.exists(new):  # noqa: PTH110
        os.close(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    _mount(old, new, None, _MS_BIND | _MS_REC)
    _restrict(new, attributes)
