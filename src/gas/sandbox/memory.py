"""The shared memory through which a batch reaches the model: the parent writes, the model can only read."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from gas.errors import SandboxUnavailable

__all__ = ["InputMemory", "sealed_file"]

_F_SEAL_FUTURE_WRITE = 0x0010
_MFD_NOEXEC_SEAL = 0x0008


def sealed_file(name: str, content: bytes) -> int:
    """A descriptor of an anonymous file that nobody can change any more.

    Args:
        name: Shown in ``/proc``; says nothing about the model or the data.
        content: The whole file.

    Returns:
        A descriptor open for reading at offset 0; the caller closes it.

    Raises:
        gas.errors.SandboxUnavailable: The kernel refuses.
    """
    try:
        descriptor = _anonymous_file(name)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            fcntl.fcntl(
                descriptor,
                fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
            )
            return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SandboxUnavailable(f"The kernel gives no sealed memory: {error.strerror}.") from error


def _anonymous_file(name: str) -> int:
    """A descriptor of an empty file that can be sealed, and never run; hardened kernels refuse any other."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(name, flags)  # before Linux 6.3


class InputMemory:
    """Anonymous memory, mapped writable here and sealed so that no other mapping can ever be written.

    It is made empty, so that a process can be given its descriptor before anybody knows how large a batch is, and gets
    its size and its seals by :meth:`allocate`, before that process runs a stranger's code.

    Attributes:
        descriptor: Open for reading; what the model's process gets.
        size: Bytes; 0 before :meth:`allocate`.

    Raises:
        gas.errors.SandboxUnavailable: The kernel refuses.
    """

    def __init__(self) -> None:
        self.size = self._slot_bytes = 0
        self._bytes: NDArray[np.uint8] | None = None
        self._map: mmap.mmap | None = None
        self._writable = self.descriptor = -1
        try:
            self._writable = _anonymous_file("input")
            os.fchmod(self._writable, 0o444)
            self.descriptor = os.open(f"/proc/self/fd/{self._writable}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise _refused(error) from error

    def allocate(self, slot_bytes: int, slots: int = 1) -> None:
        """Give it its size, once.

        The seals are put on after this process has mapped it: FUTURE_WRITE keeps out every later writer, whatever
        its uid; without SHRINK a model could cut the file and kill the parent by SIGBUS.

        Args:
            slot_bytes: Size of one batch's place; at least 1.
            slots: Number of places.

        Raises:
            gas.errors.SandboxUnavailable: The kernel refuses.
            ValueError: It has its size already, or is closed.
        """
        if self._writable < 0:
            raise ValueError("The session's memory has its size already.")
        size = slot_bytes * slots
        try:
            # Allocated now, so that no batch pays for the first touch of a page.
            os.posix_fallocate(self._writable, 0, size)
            self._map = mmap.mmap(self._writable, size, flags=mmap.MAP_SHARED)
            fcntl.fcntl(
                self._writable,
                fcntl.F_ADD_SEALS,
                _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
            )
        except OSError as error:
            raise _refused(error) from error
        os.close(self._writable)
        self._writable = -1
        self.size, self._slot_bytes = size, slot_bytes
        self._bytes = np.frombuffer(self._map, dtype=np.uint8)

    def write(self, batch: NDArray[np.generic], slot: int = 0) -> None:
        """Copy a batch to the start of a place.

        Args:
            batch: Any shape and dtype, at most ``slot_bytes`` bytes.
            slot: Number of the place, from 0.

        Raises:
            ValueError: It is too large, or the memory is closed.
        """
        start = slot * self._slot_bytes
        if self._bytes is None or batch.nbytes > self._slot_bytes or not 0 <= start < self.size:
            raise ValueError("The batch does not fit into the session's memory.")
        target = self._bytes[start : start + batch.nbytes].view(batch.dtype).reshape(batch.shape)
        np.copyto(target, batch)

    def close(self) -> None:
        """Give the memory back; may be called twice."""
        self._bytes = None
        if self._map is not None:
            self._map.close()
            self._map = None
        for descriptor in (self._writable, self.descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._writable = self.descriptor = -1


def _refused(error: OSError) -> SandboxUnavailable:
    return SandboxUnavailable(f"The kernel gives no shared memory: {error.strerror}.")
