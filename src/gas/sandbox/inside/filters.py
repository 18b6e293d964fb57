"""The two seccomp filters: lists of what may be called, for x86-64.

The first holds from bubblewrap's ``exec`` on and leaves the runner what it needs to confine itself further. The
second is installed by the runner when its own imports are done, before a line of the submission is read: it
takes away programs, processes, sockets, and everything that changes identity or limits.
"""

from __future__ import annotations

import errno

from .bpf import Check, Rule, assemble, errno_action

__all__ = ["first_filter", "second_filter"]

_EPERM = errno_action(errno.EPERM)
_ENOSYS = errno_action(errno.ENOSYS)
_ENOTTY = errno_action(errno.ENOTTY)

_NEWER = 424
"""First number of the common table that all architectures share; unknown ones from here on get ENOSYS."""

_PLAIN = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "pipe": 22,
    "select": 23, "sched_yield": 24, "mremap": 25, "msync": 26, "dup": 32,
    "dup2": 33, "nanosleep": 35, "getpid": 39, "exit": 60, "uname": 63, "fsync": 74,
    "fdatasync": 75, "truncate": 76, "ftruncate": 77, "getdents": 78, "getcwd": 79, "chdir": 80, "fchdir": 81,
    "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87, "symlink": 88,
    "readlink": 89, "chmod": 90, "fchmod": 91, "umask": 95, "gettimeofday": 96, "getrlimit": 97,
    "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
    "getppid": 110, "getpgrp": 111, "getgroups": 115, "getresuid": 118, "getresgid": 120, "getpgid": 121,
    "rt_sigpending": 127, "sigaltstack": 131, "statfs": 137, "fstatfs": 138, "sched_getparam": 143,
    "sched_getscheduler": 145, "sched_get_priority_max": 146, "sched_get_priority_min": 147,
    "arch_prctl": 158, "gettid": 186, "time": 201, "futex": 202, "sched_setaffinity": 203,
    "sched_getaffinity": 204, "epoll_create": 213, "getdents64": 217, "set_tid_address": 218,
    "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231,
    "epoll_wait": 232, "epoll_ctl": 233, "openat": 257, "mkdirat": 258, "newfstatat": 262, "unlinkat": 263,
    "renameat": 264, "linkat": 265, "symlinkat": 266, "readlinkat": 267, "fchmodat": 268, "faccessat": 269,
    "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "utimensat": 280, "epoll_pwait": 281,
    "fallocate": 285, "eventfd2": 290, "epoll_create1": 291, "dup3": 292, "pipe2": 293, "preadv": 295,
    "pwritev": 296, "getcpu": 309, "renameat2": 316, "getrandom": 318, "membarrier": 324, "copy_file_range": 326,
    "statx": 332, "rseq": 334, "close_range": 436, "faccessat2": 439,
}  # fmt: skip

_MMAP, _IOCTL, _MADVISE, _CLONE, _FCNTL, _PRCTL, _FADVISE64, _PRLIMIT64 = 9, 16, 28, 56, 72, 157, 221, 302
_TGKILL, _CLONE3 = 234, 435

_IOCTLS = {
    "TCGETS": 0x5401, "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
}  # fmt: skip
_FCNTLS = {
    "F_DUPFD": 0, "F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3, "F_SETFL": 4, "F_DUPFD_CLOEXEC": 1030,
    "F_GET_SEALS": 1034,
}  # fmt: skip
# No locks, neither these nor flock: the files are the host's, and a lock on one would hold up whoever locks it too.
_MADVICES = {
    "MADV_NORMAL": 0, "MADV_RANDOM": 1, "MADV_SEQUENTIAL": 2, "MADV_WILLNEED": 3, "MADV_DONTNEED": 4, "MADV_FREE": 8,
    "MADV_DONTFORK": 10, "MADV_DOFORK": 11, "MADV_HUGEPAGE": 14, "MADV_NOHUGEPAGE": 15, "MADV_DONTDUMP": 16,
    "MADV_DODUMP": 17, "MADV_WIPEONFORK": 18, "MADV_KEEPONFORK": 19, "MADV_POPULATE_READ": 22,
    "MADV_POPULATE_WRITE": 23,
}  # fmt: skip
# Neither advice that merges memory with that of others, or drops pages of files that others read, nor mincore: by the
# time that a page takes, and by which pages are there, one process can watch another or talk to it.
_FADVICES = {"NORMAL": 0, "RANDOM": 1, "SEQUENTIAL": 2, "WILLNEED": 3, "NOREUSE": 5}
_PRCTLS = {"PR_GET_DUMPABLE": 3, "PR_SET_NAME": 15, "PR_GET_NAME": 16, "PR_SET_VMA": 0x53564D41}

_MAP_HUGETLB = 0x00040000
_CLONE_THREAD = 0x00010000
_CLONE_NEW_ANY = 0x7E020080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, and NEWTIME."""

_SETUP = {
    "execve": 59, "wait4": 61, "kill": 62, "setuid": 105, "setgid": 106, "setsid": 112, "setgroups": 116,
    "setresuid": 117, "setresgid": 119, "capget": 125, "capset": 126, "setrlimit": 160, "prctl": 157,
    "prlimit64": 302, "tgkill": 234, "seccomp": 317, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}  # fmt: skip
"""What only the runner needs, between bubblewrap's exec and the second filter."""


def _one_of(index: int, values: dict[str, int]) -> tuple[tuple[Check, ...], ...]:
    return tuple((Check(index, value),) for value in values.values())


_GPU_IOCTLS = (
    # The control device's calls carry the letter F; those of unified memory are small numbers and two large ones.
    (Check(1, ord("F") << 8, 0xFF00),),
    (Check(1, 0, 0xFFFFFF00),),
    (Check(1, 0x30000000, 0xFFFFFFFC),),
)


def _common(gpu: bool) -> tuple[Rule, ...]:
    threads_only = ((Check(0, _CLONE_THREAD, _CLONE_THREAD | _CLONE_NEW_ANY),),)
    return (
        *(Rule(nr) for nr in _PLAIN.values()),
        Rule(_IOCTL, (*_one_of(1, _IOCTLS), *(_GPU_IOCTLS if gpu else ())), otherwise=_ENOTTY),
        Rule(_CLONE, threads_only),
        # glibc falls back to clone, whose flags a filter can see.
        Rule(_CLONE3, action=_ENOSYS),
        Rule(_FCNTL, _one_of(1, _FCNTLS)),
        # Huge pages come out of a store of the whole machine, which no limit of a process counts.
        Rule(_MMAP, ((Check(3, 0, _MAP_HUGETLB),),)),
        Rule(_MADVISE, _one_of(2, _MADVICES)),
        Rule(_FADVISE64, _one_of(3, _FADVICES)),
    )


def first_filter(*, gpu: bool = False) -> bytes:
    """The filter for bubblewrap's ``--seccomp``: everything but what nobody inside ever needs.

    Args:
        gpu: Let through the calls that control a graphics card; Landlock says on which devices.
    """
    rules = (*(Rule(nr) for nr in _SETUP.values()), *_common(gpu))
    return assemble(rules, default=_EPERM, unknown_from=_NEWER, unknown=_ENOSYS)


def second_filter(pid: int, *, gpu: bool = False) -> bytes:
    """The filter under which the submission runs.

    Args:
        pid: The runner's own process id inside its name space; it may signal its own threads only.
        gpu: As for the first.
    """
    rules = (
        *_common(gpu),
        Rule(_PRCTL, _one_of(0, _PRCTLS)),
        Rule(_PRLIMIT64, ((Check(0, 0),), (Check(0, pid),))),
        Rule(_TGKILL, ((Check(0, pid),),)),
    )
    return assemble(rules, default=_EPERM, unknown_from=_NEWER, unknown=_ENOSYS)
