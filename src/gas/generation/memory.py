"""Memory of the device that models run on: how much is free, and how much a piece of work took at most."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gas.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

__all__ = ["PeakMemory", "choose_device", "free_bytes", "out_of_memory"]

_CGROUP: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")


def choose_device(name: str) -> torch.device:
    """The device by its name in the settings.

    Args:
        name: ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigurationError: There is no such device.
    """
    import torch

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name != "auto" and not re.fullmatch(r"cuda(:\d{1,3})?", name):
        raise ConfigurationError(f"{name[:40]!r} is no device.", hint="Name auto, cpu, cuda or cuda:N.")
    device = torch.device("cuda" if name == "auto" else name)
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(f"There is no device {name}.", hint="`gascli doctor` shows what torch can use.")
    return device


def free_bytes(device: str) -> int | None:
    """Bytes that can still be used; None where the system doesn't say.

    Args:
        device: ``cpu`` or ``cuda...``. On a CPU the limit of the process's own control group counts too.
    """
    if device != "cpu":
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    found = []
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _read(_PROC / "meminfo"), re.MULTILINE)
    if available:
        found.append(int(available[1]) * 1024)
    most, used = _read(_CGROUP / "memory.max").strip(), _read(_CGROUP / "memory.current").strip()
    if most.isdecimal() and used.isdecimal():
        found.append(max(0, int(most) - int(used)))
    return min(found, default=None)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out: Python's own, or torch's on a GPU or a CPU."""
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError is a RuntimeError; on a CPU its allocator raises a plain one.
    return isinstance(error, RuntimeError) and bool(
        re.search(r"out of memory|can't allocate memory|not enough memory", str(error), re.IGNORECASE)
    )


class PeakMemory:
    """The most memory that was in use since it was last asked to start anew.

    On a GPU it is what torch had allocated there; on a CPU the process's resident memory, without programs that it
    calls.

    Args:
        device: ``cpu`` or ``cuda...``.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.start()

    def start(self) -> None:
        """Measure from now."""
        if self._device != "cpu":
            import torch

            torch.cuda.reset_peak_memory_stats(torch.device(self._device))
            return
        try:
            # proc_pid_clear_refs(5): 5 resets the high-water mark of resident memory.
            (_PROC / "self/clear_refs").write_text("5")
        except OSError:
            # Without that right the mark is that of the whole process so far: an upper bound.
            return

    def bytes(self) -> int:
        """The most bytes since the start; 0 where the system doesn't say."""
        if self._device != "cpu":
            import torch

            return int(torch.cuda.max_memory_allocated(torch.device(self._device)))
        mark = re.search(r"^VmHWM:\s+(\d+) kB", _read(_PROC / "self/status"), re.MULTILINE)
        return int(mark[1]) * 1024 if mark else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
