# ruff: noqa: PTH110, PTH123
"""Models that call the kernel for what only root, or nobody, should have."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from models.inside import LIBC, can_write, is_allowed
from models.table import Table, text_code

TABLE = Table("kernel")
model = TABLE.model


@model()
def becomes_root(p):
    """Take root's identity."""
    os.setresuid(0, 0, 0)
    return os.geteuid() == 0


@model()
def is_root(p):
    """Be root from the start."""
    return os.geteuid() == 0


@model()
def becomes_root_by_a_setuid_program(p):
    """Run a program that makes its caller root."""
    return subprocess.run(["/usr/bin/su", "-c", "true"], check=False).returncode == 0


@model()
def takes_a_group(p):
    """Join root's group."""
    os.setgroups([0])
    return True


@model()
def gives_itself_capabilities(p):
    """Set its own capabilities."""
    return is_allowed(126, 0, 0)


@model()
def changes_the_root(p):
    """Take another root folder."""
    os.chroot("/tmp")
    return True


@model()
def maps_itself_to_root(p):
    """Open the map of users of its own process, by which a user name space makes root."""
    return can_write("/proc/self/uid_map")


@model()
def moves_itself_to_another_control_group(p):
    """Find the control groups, to leave its own or to limit others."""
    return any(os.path.exists(path) for path in ("/sys/fs/cgroup", "/sys/kernel"))


@model()
def asks_the_kernel_about_the_host(p):
    """Read what tells one host from another: its command line, symbols, mounts, modules, networks, identity."""
    found = []
    for name in (
        "/proc/cmdline",
        "/proc/kallsyms",
        "/proc/mounts",
        "/proc/modules",
        "/proc/net/tcp",
        "/proc/keys",
        "/proc/sys/kernel/random/boot_id",
        "/proc/loadavg",
        "/etc/hostname",
        "/etc/machine-id",
        "/sys/class/dmi/id/product_uuid",
        "/sys/class/net",
    ):
        try:
            found.append(os.open(name, os.O_RDONLY))
        except OSError:
            continue
    return found


@model()
def opens_a_terminal(p):
    """Open the terminal of whoever started the worker, or make a new one."""
    for path in ("/dev/tty", "/dev/console", "/dev/ptmx", "/dev/pts/ptmx"):
        try:
            return os.open(path, os.O_RDWR | os.O_NOCTTY) >= 0
        except OSError:
            continue
    return False


@model()
def leaves_a_dump_when_it_crashes(p):
    """Be a process whose memory a program of the host collects when it crashes."""
    return LIBC.prctl(3, 0, 0, 0, 0) != 0


@model()
def drops_pages_that_others_read(p):
    """Throw a library that the host shares out of its memory, to see who reads it again, and when."""
    with open(os.__file__) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


@model()
def uses_calls_of_another_table(p):
    """Make a call of the x32 table, which a careless filter forgets."""
    return is_allowed(0x40000000 | 39)


_INSIDE = Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
_CALLS = {
    "makes_a_user_name_space": ("unshare a user name space", (272, 0x10000000)),
    "makes_a_network_name_space": ("unshare a network name space", (272, 0x40000000)),
    "makes_a_mount_name_space": ("unshare a mount name space", (272, 0x00020000)),
    "joins_a_name_space": ("setns", (308, 0, 0)),
    "mounts": ("mount", (165, 0, 0, 0, 0, 0)),
    "mounts_by_the_newer_calls": ("open_tree", (428, 0, 0, 0)),
    "unmounts": ("umount2", (166, 0, 0)),
    "pivots_the_root": ("pivot_root", (155, 0, 0)),
    "adds_a_key": ("add_key", (248, 0, 0, 0, 0, 0)),
    "asks_for_keys": ("keyctl", (250, 0, 0, 0, 0, 0)),
    "counts_events_of_the_processor": ("perf_event_open", (298, 0, 0, 0, 0, 0)),
    "loads_a_bpf_program": ("bpf", (321, 0, 0, 0)),
    "sets_up_io_uring": ("io_uring_setup", (425, 0, 0)),
    "enters_io_uring": ("io_uring_enter", (426, 0, 0, 0, 0, 0)),
    "handles_page_faults": ("userfaultfd", (323, 0)),
    "sees_which_pages_others_read": ("mincore", (27, 0, 0, 0)),
    "asks_how_much_of_a_file_is_in_memory": ("cachestat", (451, 0, 0, 0, 0)),
    "takes_huge_pages": (
        "mmap with huge pages, of which the machine has one store",
        (9, 0, 1 << 21, 3, 0x40022, -1, 0),
    ),
    "merges_its_memory_with_others": ("merge its memory with equal pages of others (KSM)", (28, 0, 0, 12)),
    "pages_out_what_others_read": ("page out what others read", (28, 0, 0, 21)),
    "reads_without_waiting_for_the_disk": ("preadv2, which tells whether a page is there", (327, 0, 0, 0, 0, 0, 8)),
    "moves_pages_through_pipes": ("splice, which once wrote to files that can only be read", (275, 0, 0, 0, 0, 0, 0)),
    "hands_pages_to_a_pipe": ("vmsplice", (278, 0, 0, 0, 0)),
    "asks_others_for_keys": ("request_key", (249, 0, 0, 0, 0)),
    "moves_memory_between_nodes": ("mbind", (237, 0, 0, 0, 0, 0, 0)),
    "changes_its_personality": ("personality", (135, 0x0040000)),
    "makes_system_v_shared_memory": ("shmget", (29, 0, 4096, 0o1666)),
    "makes_a_system_v_queue": ("msgget", (68, 0, 0o1666)),
    "makes_a_system_v_semaphore": ("semget", (64, 0, 1, 0o1666)),
    "makes_a_posix_queue": ("mq_open", (240, b"q", 0o102, 0o600, 0)),
    "changes_its_descriptors_table": ("modify_ldt", (154, 0, 0, 0)),
    "speaks_to_ports": ("iopl", (172, 3)),
    "loads_a_kernel_module": ("init_module", (175, 0, 0, 0)),
    "loads_another_kernel": ("kexec_load", (246, 0, 0, 0, 0)),
    "unloads_a_kernel_module": ("delete_module", (176, 0, 0)),
    "keeps_the_kernels_accounts": ("acct", (163, 0)),
    "reboots": ("reboot", (169, 0, 0, 0, 0)),
    "swaps": ("swapon", (167, 0, 0)),
    "sets_the_clock": ("settimeofday", (164, 0, 0)),
    "reads_the_kernels_log": ("syslog", (103, 3, 0, 0)),
    "compares_kernel_objects": ("kcmp", (312, 1, 1, 0, 0, 0)),
    "locks_memory": ("mlockall", (151, 1)),
    "makes_secret_memory": ("memfd_secret", (447, 0)),
    "adds_a_filter_of_its_own": ("seccomp", (317, 1, 0, 0)),
    "makes_a_landlock_domain": ("landlock_create_ruleset", (444, 0, 0, 1)),
    "sets_quotas": ("quotactl", (179, 0, 0, 0, 0)),
    "names_the_host": ("sethostname", (170, b"owned", 5)),
}
for _name, (_what, _arguments) in _CALLS.items():
    _body = f"\n\ndef attack(facts):\n    return is_allowed{_arguments!r}\n"
    TABLE.add(
        _name,
        f"Call {_what}" if " " not in _what else _what.capitalize(),
        static="import_not_allowed",
        expected=("denied",),
        code=text_code(_INSIDE + _body),
    )


_MACHINE_CODE = """
import ctypes
import mmap

def attack(facts):
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)() >= 0
"""
TABLE.add(
    "calls_the_kernel_as_a_32_bit_program",
    "Make an int 0x80 call, whose numbers mean other things",
    static="import_not_allowed",
    expected=("crashed",),
    # mov eax, 20 (getpid); int 0x80; ret
    code=text_code(_MACHINE_CODE.replace("CODE", repr(b"\xb8\x14\0\0\0\xcd\x80\xc3")), at="batch"),
)
TABLE.add(
    "runs_machine_code_of_its_own",
    "Make a socket by machine code, past Python and libc",
    static="import_not_allowed",
    expected=("denied",),
    # mov edi, 2; mov esi, 1; xor edx, edx; mov eax, 41 (socket); syscall; ret
    code=text_code(
        _MACHINE_CODE.replace("CODE", repr(b"\xbf\x02\0\0\0\xbe\x01\0\0\0\x31\xd2\xb8\x29\0\0\0\x0f\x05\xc3"))
    ),
)
