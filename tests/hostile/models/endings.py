"""Models that end too early, crash, or forge what their process says to the parent."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import threading
import time

from models.inside import call, can_write, frames, runner, the_input
from models.table import Table

TABLE = Table("endings")
model = TABLE.model


@model("load_failed", plain=("load_failed",))
def exits_while_loading(p):
    """Call sys.exit(0) while loading."""
    sys.exit(0)


@model("load_failed", plain=("load_failed",))
def ends_quietly_while_loading(p):
    """End its process with code 0 while loading."""
    os._exit(0)


@model("crashed", plain=("crashed",), at="batch")
def ends_quietly_on_a_batch(p):
    """End its process with code 0 instead of an answer."""
    os._exit(0)


@model("crashed", plain=("crashed",), at="batch")
def reads_address_zero(p):
    """Crash by SIGSEGV."""
    ctypes.string_at(0)


@model("crashed", plain=("crashed",), at="batch")
def aborts(p):
    """Crash by SIGABRT."""
    os.abort()


@model("out_of_memory", plain=("out_of_memory",), at="batch")
def kills_itself(p):
    """Die of a SIGKILL of its own, to look like a fault of the worker."""
    signal.raise_signal(signal.SIGKILL)


@model("crashed", plain=("crashed",), at="batch", static="name_refused")
def interrupts_itself(p):
    """Raise KeyboardInterrupt, which handlers of errors let through."""
    raise KeyboardInterrupt


@model("crashed", plain=("crashed",), at="batch", static="name_refused")
def raises_an_error_that_can_not_be_shown(p):
    """Raise an error whose text raises another."""

    class Mute(BaseException):
        def __str__(self):
            raise SystemExit(0)

    raise Mute


@model("protocol")
def closes_every_channel(p):
    """Close all descriptors and live on."""
    os.closerange(3, 256)
    time.sleep(1e6)


@model("protocol")
def announces_more_than_agreed(p):
    """Announce a frame of many kilobytes."""
    names = runner()
    names["send"](b"FAIL", names["config"]["nonce"], b"x" * 60_000)
    time.sleep(1e6)


@model("protocol")
def blames_the_sandbox(p):
    """Report a failure of the sandbox, which would cost its author nothing."""
    names = runner()
    names["send"](b"FAIL", names["config"]["nonce"], b"sandbox_unavailable\n\x1b[2Jnot me")
    os._exit(0)


@model("load_failed")
def exits_like_a_failed_sandbox(p):
    """End with the code by which the runner says that its own set-up failed."""
    os._exit(70)


@model("protocol")
def guesses_the_number_of_the_batch(p):
    """Answer with a number of its own instead of the parent's."""
    runner()["send"](b"REDY", 12345)
    time.sleep(1e6)


@model("protocol", at="batch", asks="twice")
def answers_twice(p):
    """Answer a batch twice, so that the second answer meets the next batch."""
    names = runner()
    names["send"](b"LOGI", names["nonce"], bytes(16))


@model("protocol", at="batch", asks="twice")
def answers_before_it_is_asked(p):
    """Leave a thread behind that answers the next batch early."""
    names = runner()
    threading.Thread(target=lambda: names["send"](b"LOGI", names["nonce"] + 1, bytes(16)), daemon=True).start()
    time.sleep(0.05)


@model("protocol", at="batch")
def floods_the_answers(p):
    """Write without end into the pipe for answers."""
    names = runner()
    while True:
        os.write(names["config"]["answers"], b"LOGI" * 10_000)


@model("crashed", at="batch")
def writes_to_the_input(p):
    """Write into the shared input by a raw pointer."""
    ctypes.memset(runner()["batches"].ctypes.data, 1, 1)


@model()
def makes_the_input_writable(p):
    """Map the shared input writable (mprotect)."""
    for names in frames():
        for value in list(names.values()):
            if isinstance(value, mmap.mmap):
                import numpy

                address, size = numpy.frombuffer(value, dtype=numpy.uint8).ctypes.data, len(value)
                return call(10, address & ~4095, (size + 4095) & ~4095, 3)
    raise LookupError


@model()
def reopens_the_input_for_writing(p):
    """Open the shared input again through /proc/self/map_files."""
    return any(can_write(f"/proc/self/map_files/{name}") for name in os.listdir("/proc/self/map_files"))  # noqa: PTH208


@model()
def writes_to_the_input_by_its_descriptor(p):
    """Write into the shared input through the descriptor behind its mapping."""
    return os.pwrite(the_input(), b"x", 0)


@model()
def cuts_the_input_off(p):
    """Cut the shared input to nothing, so that the parent dies when it writes there."""
    return os.ftruncate(the_input(), 0) is None


@model()
def opens_the_input_anew(p):
    """Make the shared input's mode generous, and open it again for writing by the link of its descriptor."""
    number = the_input()
    with contextlib.suppress(OSError):
        os.fchmod(number, 0o777)
    again = os.open(f"/proc/self/fd/{number}", os.O_RDWR)
    for attempt in (lambda: os.pwrite(again, b"x", 0), lambda: os.ftruncate(again, 0), lambda: mmap.mmap(again, 1)):
        with contextlib.suppress(OSError):
            attempt()
            return True
    return False


@model()
def maps_the_input_writable(p):
    """Map the shared input a second time, for writing."""
    return mmap.mmap(the_input(), 1, prot=mmap.PROT_READ | mmap.PROT_WRITE) is not None
