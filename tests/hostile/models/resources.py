# ruff: noqa: PTH108, PTH123
"""Models that take more than their share."""

from __future__ import annotations

import os
import sys
import threading
import time

from models.table import Table

TABLE = Table("resources")
model = TABLE.model


@model()
def opens_too_many_files(p):
    """Open more files than allowed."""
    opened = []
    try:
        while len(opened) <= p["open_files"]:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


@model()
def starts_too_many_threads(p):
    """Start more threads than allowed."""
    stop = threading.Event()
    started = []
    try:
        while len(started) <= p["processes"]:
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            started.append(thread)
    finally:
        stop.set()
        for thread in started:
            thread.join()
    return True


@model(static="name_refused")
def fills_tmp(p):
    """Write more into /tmp than it holds."""
    written = 0
    while written <= p["tmp_bytes"]:
        with open(f"/tmp/fill{written}", "wb", buffering=0) as file:
            written += file.write(bytes(1 << 20))
    return True


@model(static="name_refused")
def fills_shared_memory(p):
    """Write more into /dev/shm than it holds."""
    written = 0
    while written <= p["tmp_bytes"]:
        with open(f"/dev/shm/fill{written}", "wb", buffering=0) as file:
            written += file.write(bytes(1 << 20))
    return True


@model()
def keeps_deleted_files(p):
    """Fill /tmp with files that have no name any more."""
    kept = []
    written = 0
    while written <= p["tmp_bytes"]:
        file = open("/tmp/gone", "wb", buffering=0)  # noqa: SIM115
        os.unlink("/tmp/gone")
        written += file.write(bytes(1 << 20))
        kept.append(file)
    return True


@model(static="name_refused")
def writes_a_huge_file(p):
    """Make a file of a terabyte that takes no space."""
    with open("/tmp/huge", "wb", buffering=0) as file:
        return file.truncate(1 << 40)


@model("out_of_memory", "harmless", static="name_refused", limits={"memory_bytes": 512 << 20, "tmp_bytes": 160 << 20})
def takes_memory_and_fills_its_folders(p):
    """Take less memory than allowed, and put files beside it, so that both together are more."""
    kept = bytearray(256 << 20)
    for folder in ("/tmp", "/dev/shm"):
        for number in range(3):
            with open(f"{folder}/part{number}", "wb", buffering=0) as file:
                file.write(memoryview(kept)[: 48 << 20])
    return True


@model("out_of_memory", "denied")
def makes_files_without_end(p):
    """Make empty files in /tmp until the kernel has no memory for their names."""
    number = 0
    while True:
        os.close(os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY))
        number += 1


@model("denied", plain=("denied",), static=None)
def takes_more_memory_than_allowed(p):
    """Take as much memory as its limit is."""
    return len(bytearray(p["memory_bytes"]))


@model("denied", plain=("denied",), at="batch", static=None)
def takes_memory_bit_by_bit(p):
    """Take memory in small pieces until there is none."""
    kept = []
    while True:
        kept.append(bytearray(1 << 24))


@model("timeout", plain=("timeout",), at="batch", limits={"cpu_seconds": 1, "batch_seconds": 20.0}, static=None)
def burns_the_processor(p):
    """Compute longer than its processor time."""
    while True:
        pass


@model("timeout", plain=("timeout",), limits={"load_seconds": 1.0})
def sleeps_while_loading(p):
    """Never end loading, and use nothing meanwhile."""
    time.sleep(1e6)


@model("timeout", plain=("timeout",), at="batch", limits={"batch_seconds": 1.0}, static=None)
def never_ends(p):
    """Never end a batch."""
    while True:
        pass


@model("timeout", plain=("timeout",), at="batch", limits={"batch_seconds": 1.0})
def never_ends_and_ignores_signals(p):
    """Never end a batch, with every signal blocked."""
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
    while True:
        pass


@model("timeout", plain=("timeout",), at="batch", limits={"batch_seconds": 1.0})
def never_lets_go_of_the_interpreter(p):
    """Match a pattern that takes for ever, without a chance for other threads."""
    import re

    return re.match(r"(a+)+$", "a" * 200 + "b")


@model("timeout", plain=("timeout",), at="batch", limits={"batch_seconds": 1.0})
def waits_for_itself(p):
    """Take the same lock twice."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@model("timeout", plain=("timeout",), at="batch", limits={"batch_seconds": 1.0})
def stops_itself(p):
    """Stop its own process by SIGSTOP."""
    import signal

    signal.raise_signal(signal.SIGSTOP)


@model("timeout", plain=("timeout",), at="batch", limits={"batch_seconds": 2.0})
def prints_without_end(p):
    """Print gigabytes."""
    while True:
        os.write(1, b"\x1b[31mflood\a" * 100_000)


@model("denied", plain=("denied",))
def prints_what_commands_a_terminal(p):
    """Print control characters and broken text to both outputs."""
    for _ in range(16):
        os.write(1, b"\x1b[2J\x1b]0;owned\a" * 10_000)
        os.write(2, b"\xff\x00" * 100_000)
    return False


@model("load_failed", plain=("load_failed",), static=None)
def raises_a_message_of_megabytes(p):
    """Fail with a message of many megabytes, full of control characters."""
    raise ValueError("\x1b[2J" * 10_000_000)


@model("load_failed", plain=("load_failed",))
def overflows_the_stack(p):
    """Show a list that is two hundred thousand lists deep, until the stack is full."""
    sys.setrecursionlimit(2**31 - 1)
    deep = []
    for _ in range(200_000):
        deep = [deep]
    return repr(deep)
