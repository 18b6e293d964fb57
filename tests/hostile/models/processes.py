# ruff: noqa: PTH123
"""Models that make processes, or reach for those of others."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

from models.inside import LIBC, call, is_allowed
from models.table import Table

TABLE = Table("processes")
model = TABLE.model


@model()
def forks(p):
    """Make a process."""
    if os.fork() == 0:
        os._exit(0)
    return True


@model()
def forks_by_number(p):
    """Make a process by the number of the system call."""
    return call(57)


@model()
def forks_without_end(p):
    """Fork in a loop, and each child again."""
    while True:
        os.fork()


@model()
def leaves_a_daemon(p):
    """Leave a process behind that has a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    return True


@model()
def clones_into_new_name_spaces(p):
    """Make a process with a user name space of its own."""
    return call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)


@model()
def clones_by_the_newer_call(p):
    """Make a process by clone3, whose flags a filter can't see."""
    return is_allowed(435, 0, 0)


@model()
def starts_a_shell(p):
    """Run /bin/sh."""
    return subprocess.run(["/bin/sh", "-c", "true"], check=False).returncode == 0


@model()
def becomes_another_program(p):
    """Replace itself by a fresh interpreter."""
    os.execv(sys.executable, [sys.executable, "-c", "pass"])
    return True


@model()
def becomes_a_program_by_its_descriptor(p):
    """Run a program by a descriptor, without a path (execveat)."""
    return is_allowed(322, -1, b"", 0, 0, 0x1000)


@model()
def clones_a_process_that_shares_its_memory(p):
    """Make a process that is nearly a thread: it shares everything, but not the number (CLONE_VM, CLONE_VFORK)."""
    return is_allowed(56, 0x4100 | signal.SIGCHLD, 0, 0, 0, 0)


@model()
def makes_a_program_without_a_file(p):
    """Make an anonymous file to run."""
    return os.memfd_create("x")


@model()
def runs_a_program_from_tmp(p):
    """Write a program to /tmp and run it."""
    with open("/tmp/program", "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod("/tmp/program", 0o755)  # noqa: PTH101
    os.execv("/tmp/program", ["program"])
    return True


@model()
def traces_the_first_process(p):
    """Attach to the tree's first process by ptrace."""
    return call(101, 16, 1, 0, 0)


@model()
def asks_to_be_traced(p):
    """Ask its parent to trace it."""
    return call(101, 0, 0, 0, 0)


@model()
def reads_another_process(p):
    """Read memory of another process by process_vm_readv."""
    return is_allowed(310, 1, 0, 0, 0, 0, 0)


@model()
def writes_another_process(p):
    """Write memory of another process by process_vm_writev."""
    return is_allowed(311, 1, 0, 0, 0, 0, 0)


@model()
def takes_a_handle_of_a_process(p):
    """Take a pidfd of the first process."""
    return call(434, 1, 0)


@model()
def steals_a_descriptor(p):
    """Take a descriptor of another process by pidfd_getfd."""
    return is_allowed(438, 0, 0, 0)


@model()
def signals_the_first_process(p):
    """Kill the tree's first process."""
    os.kill(1, signal.SIGKILL)
    return True


@model()
def signals_its_parent(p):
    """Kill its parent."""
    os.kill(os.getppid(), signal.SIGKILL)
    return True


@model()
def signals_everybody(p):
    """Signal every process that it may signal."""
    os.kill(-1, 0)
    return True


@model()
def signals_the_worker(p):
    """Signal the worker on the host, whose number it was told."""
    os.kill(p["host_pid"], 0)
    return True


@model()
def signals_a_thread_of_the_first_process(p):
    """Signal a thread of another process."""
    return call(234, 1, 1, 0)


@model()
def queues_a_signal_for_another(p):
    """Signal another process by the calls that carry a value (rt_sigqueueinfo, rt_tgsigqueueinfo)."""
    return is_allowed(129, 1, 0, 0) or is_allowed(297, 1, 1, 0, 0)


@model()
def makes_a_descriptor_signal_others(p):
    """Have the kernel signal another process whenever a pipe is ready (F_SETOWN)."""
    import fcntl

    end, _ = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETOWN, 1)
    return True


@model()
def changes_the_limits_of_the_first_process(p):
    """Change the limits of another process."""
    return is_allowed(302, 1, 7, 0, 0)


@model()
def raises_its_own_limits(p):
    """Raise its limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))
    except ValueError:  # what Python makes of EPERM here
        return False
    return True


@model()
def takes_a_higher_priority(p):
    """Become a real-time process, before which every other one waits."""
    return is_allowed(144, 0, 1, 0) or is_allowed(141, 0, 0, -20)


@model()
def takes_off_the_death_signal(p):
    """Ask to outlive its parent."""
    return call(157, 1, 0, 0, 0, 0)


@model()
def becomes_traceable(p):
    """Make itself dumpable, so that others may look into it."""
    return call(157, 4, 1, 0, 0, 0)


@model()
def types_on_the_terminal(p):
    """Put characters into the terminal's input (TIOCSTI)."""
    return LIBC.ioctl(2, 0x5412, b"x") == 0
