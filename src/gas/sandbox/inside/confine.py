"""What the runner does to itself before it reads a byte of the submission.

The order matters: identity, limits, Landlock (before there is a second thread: older kernels restrict only the
calling one), imports, second seccomp filter. System calls without a libc wrapper are made by number; the numbers
are those of x86-64.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from typing import Any

__all__ = [
    "ConfinementError",
    "capabilities",
    "die_with_parent",
    "drop_ids",
    "forbid_dumps",
    "install_filter",
    "keep_capabilities",
    "landlock_version",
    "restrict_files",
    "set_limits",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_SIGKILL = 9
_CPU_GRACE = 5

_SYS_CAPGET = 125
_SYS_CAPSET = 126
_CAPABILITY_HEADER = struct.pack("=Ii", 0x20080522, 0)
_SYS_PRCTL = 157
_SYS_SECCOMP = 317
_SYS_LANDLOCK_CREATE = 444
_SYS_LANDLOCK_ADD = 445
_SYS_LANDLOCK_RESTRICT = 446

_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1

_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_RULE_PATH_BENEATH = 1

_FS_WRITE_FILE = 1 << 1
_FS_READ_FILE = 1 << 2
_FS_READ_DIR = 1 << 3
_FS_REMOVE_DIR = 1 << 4
_FS_REMOVE_FILE = 1 << 5
_FS_MAKE_DIR = 1 << 7
_FS_MAKE_REG = 1 << 8
_FS_MAKE_SYM = 1 << 12
_FS_REFER = 1 << 13
_FS_TRUNCATE = 1 << 14
_FS_IOCTL_DEV = 1 << 15

_FS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_NET_BIND_AND_CONNECT = 0b11
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

_READ = _FS_READ_FILE | _FS_READ_DIR
_WRITE = (_READ | _FS_WRITE_FILE | _FS_REMOVE_DIR | _FS_REMOVE_FILE | _FS_MAKE_DIR | _FS_MAKE_REG | _FS_MAKE_SYM) | (
    _FS_REFER | _FS_TRUNCATE
)
_FILE_ONLY = _FS_READ_FILE | _FS_WRITE_FILE | _FS_TRUNCATE | _FS_IOCTL_DEV
_DEVICE = _FS_READ_FILE | _FS_WRITE_FILE | _FS_IOCTL_DEV


class ConfinementError(Exception):
    """A restriction could not be put in force; the submission must not be loaded."""


def _syscall(what: str, number: int, *args: Any) -> int:
    result = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *args))
    if result < 0:
        code = ctypes.get_errno()
        raise ConfinementError(f"{what} failed: {os.strerror(code)}.")
    return result


def _prctl(what: str, option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _syscall(what, _SYS_PRCTL, ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero)


def capabilities() -> int:
    """Union of the effective, permitted and inheritable capabilities of this process, as a bit set."""
    header = ctypes.create_string_buffer(_CAPABILITY_HEADER, 8)
    data = ctypes.create_string_buffer(24)
    _syscall("capget", _SYS_CAPGET, header, data)
    words: tuple[int, ...] = struct.unpack("=6I", data.raw)
    return words[0] | words[1] | words[2] | words[3] << 32 | words[4] << 32 | words[5] << 32


def drop_ids(uid: int, gid: int) -> None:
    """Become another user for good; loses the capabilities that came with root.

    Raises:
        ConfinementError: The change did not happen, or can be undone.
    """
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise ConfinementError(f"The runner can't become user {uid}: {error.strerror}.") from error
    # The change of user leaves the inheritable set behind.
    header = ctypes.create_string_buffer(_CAPABILITY_HEADER, 8)
    _syscall("capset", _SYS_CAPSET, header, ctypes.create_string_buffer(24))
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups():
        raise ConfinementError("The runner kept an identity that it should have given up.")


def keep_capabilities(kept: int) -> None:
    """Give up every capability but these, for good: what is started from here on can't get them back either.

    Args:
        kept: A bit set; those that this process does not have are not given to it.

    Raises:
        ConfinementError: The kernel refuses.
    """
    last = 63
    for number in range(last + 1):
        if not kept >> number & 1:
            try:
                _prctl("prctl(PR_CAPBSET_DROP)", _PR_CAPBSET_DROP, number)
            except ConfinementError:
                # The first number that the kernel does not know; without CAP_SETPCAP not even the first is dropped.
                if number == 0:
                    raise
                break
    _prctl("prctl(PR_CAP_AMBIENT)", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = ctypes.create_string_buffer(_CAPABILITY_HEADER, 8)
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0), 24)
    _syscall("capset", _SYS_CAPSET, header, data)
    if capabilities() != kept:
        raise ConfinementError("The process kept capabilities that it should have given up.")


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; a change of user undoes it."""
    _prctl("prctl(PR_SET_PDEATHSIG)", _PR_SET_PDEATHSIG, _SIGKILL)


def forbid_dumps() -> None:
    """Have the kernel leave no dump of this process when it crashes; a change of user undoes it.

    A limit of 0 on dumps is not enough: a host's program that collects them (``core_pattern`` with a pipe) gets them
    all the same, and would read what a stranger has prepared, outside of the sandbox.
    """
    _prctl("prctl(PR_SET_DUMPABLE)", _PR_SET_DUMPABLE, 0)


def set_limits(limits: dict[str, int]) -> None:
    """Set resource limits, soft and hard alike; only of processor time some seconds lie between.

    Then the kernel says by SIGXCPU what was used up, and a process that ignores that is killed a little later.

    Args:
        limits: Values by the names of :mod:`resource` without ``RLIMIT_``, e.g. ``{"NOFILE": 256}``.

    Raises:
        ConfinementError: A limit was refused.
    """
    for name, wanted in {**limits, "CORE": 0, "MSGQUEUE": 0, "MEMLOCK": 0}.items():
        kind = int(getattr(resource, f"RLIMIT_{name}"))
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        last = value
        if name == "CPU":
            last = value + _CPU_GRACE if hard == resource.RLIM_INFINITY else min(value + _CPU_GRACE, hard)
        try:
            resource.setrlimit(kind, (value, last))
        except (OSError, ValueError) as error:
            raise ConfinementError(f"The limit {name} was refused: {error}.") from error


def landlock_version() -> int:
    """Version of Landlock that the kernel offers; 0 when there is none."""
    try:
        return _syscall("landlock", _SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_CREATE_RULESET_VERSION)
    except ConfinementError:
        return 0


def restrict_files(read: list[str], write: list[str], devices: list[str] | None = None) -> None:
    """Put a Landlock domain in force: files below these paths, no programs, no TCP, no signals to others.

    Args:
        read: Files and folders that may be read; those that don't exist are skipped.
        write: Files and folders that may also be written.
        devices: Device files that may be read, written and controlled.

    Raises:
        ConfinementError: The kernel has no Landlock, or refuses a rule.
    """
    version = landlock_version()
    if version < 1:
        raise ConfinementError("The kernel offers no Landlock.")
    handled = _FS_BY_VERSION[max(known for known in _FS_BY_VERSION if known <= version)]
    attributes = struct.pack(
        "=QQQ",
        handled,
        _NET_BIND_AND_CONNECT if version >= 4 else 0,
        _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0,
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _syscall(
        "landlock_create_ruleset",
        _SYS_LANDLOCK_CREATE,
        ctypes.create_string_buffer(attributes, 24),
        ctypes.c_size_t(size),
        ctypes.c_uint32(0),
    )
    try:
        for paths, access in ((read, _READ), (write, _WRITE), (devices or [], _DEVICE)):
            for path in paths:
                _add_rule(ruleset, path, access & handled)
        _prctl("prctl(PR_SET_NO_NEW_PRIVS)", _PR_SET_NO_NEW_PRIVS, 1)
        _syscall("landlock_restrict_self", _SYS_LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _add_rule(ruleset: int, path: str, access: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfinementError(f"The runner can't reach {path}: {error.strerror}.") from error
    try:
        if not os.path.isdir(path):  # noqa: PTH112
            access &= _FILE_ONLY
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, target), 12)
        _syscall(
            f"landlock_add_rule for {path}",
            _SYS_LANDLOCK_ADD,
            ctypes.c_int(ruleset),
            ctypes.c_int(_LANDLOCK_RULE_PATH_BENEATH),
            rule,
            ctypes.c_uint32(0),
        )
    finally:
        os.close(target)


def install_filter(program: bytes) -> None:
    """Put a seccomp filter in force for every thread of this process.

    Args:
        program: An array of ``struct sock_filter`` from :mod:`.filters`.

    Raises:
        ConfinementError: The kernel refuses it.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    descriptor = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions)), struct.calcsize("@HP")
    )
    _prctl("prctl(PR_SET_NO_NEW_PRIVS)", _PR_SET_NO_NEW_PRIVS, 1)
    result = _syscall(
        "seccomp",
        _SYS_SECCOMP,
        ctypes.c_uint(_SECCOMP_SET_MODE_FILTER),
        ctypes.c_uint(_SECCOMP_FILTER_FLAG_TSYNC),
        descriptor,
    )
    if result != 0:
        raise ConfinementError(f"Thread {result} could not be put under the filter.")
