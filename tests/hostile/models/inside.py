# ruff: noqa: PTH108
"""What hostile models share; this text stands at the top of the ``model.py`` of those that use it."""

import ctypes
import errno
import os

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def call(number, *args):
    """A raw system call; raises like the functions of os."""
    result = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def is_allowed(number, *args):
    """For calls that fail anyway with these arguments: whether permission was what they lacked."""
    try:
        return call(number, *args)
    except OSError as error:
        return error.errno not in {errno.EPERM, errno.ENOSYS}


def can_write(path):
    """Whether an existing file opens for writing."""
    os.close(os.open(path, os.O_WRONLY))
    return True


def can_create(folder):
    """Whether a file can be made there; it is removed again."""
    path = f"{folder}/escaped"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    os.unlink(path)
    return True


def frames():
    """The local variables of every frame of this process, the runner's among them."""
    import sys

    for frame in list(sys._current_frames().values()):
        while frame is not None:
            yield frame.f_locals
            frame = frame.f_back


def runner():
    """The local variables of the runner's loop."""
    return next(names for names in frames() if "send" in names and "config" in names)


def the_input():
    """A descriptor of the shared input: Python keeps one behind the mapping."""
    size = runner()["config"]["shared_bytes"]
    for number in range(3, 256):
        try:
            if os.fstat(number).st_size == size:
                return number
        except OSError:
            continue
    raise LookupError("The input has no descriptor.")
