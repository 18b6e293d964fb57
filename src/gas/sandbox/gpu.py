"""A graphics card in the sandbox: which of its device files and driver libraries a model gets, and nothing else.

What is covered: the model sees the cards' own device files (not those for screens or debugging) and the driver's
libraries, read-only; Landlock and the seccomp filters let it talk to those devices and to no others. What is not: the
driver's interface is a large piece of the kernel that the model can then reach, memory on the card is not limited,
and what an earlier process left in it is the driver's business. Without ``--device`` asking for it, or a card, nothing
of this is used.

The choice is made by pure functions over listings, so that it can be tested on machines without a card.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gas.errors import ConfigurationError

__all__ = ["DEVICES", "GPU_FOLDER", "GpuAccess", "choose_device", "find_gpu", "gpu_access", "gpu_words"]

DEVICES: Final = ("auto", "cpu", "cuda")
"""What a user may ask for."""

GPU_FOLDER: Final = "/gpu"
"""Where the driver's libraries appear inside."""

_CARD: Final = re.compile(r"nvidia\d+")
_SHARED: Final = ("nvidiactl", "nvidia-uvm")
_LIBRARIES: Final = (
    "libcuda.so",
    "libnvidia-gpucomp.so",
    "libnvidia-ml.so",
    "libnvidia-nvvm.so",
    "libnvidia-ptxjitcompiler.so",
)
_LINE: Final = re.compile(r"^\s*(\S+) \(([^)]*)\) => (/\S+)$")
_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class GpuAccess:
    """What the sandbox lets through for the cards of this machine.

    Attributes:
        devices: Device files of the host, in the order of their names.
        libraries: Driver libraries: name under which the loader asks for it, and path on the host.
    """

    devices: tuple[str, ...]
    libraries: tuple[tuple[str, str], ...]


def gpu_access(devices: Iterable[str], ldconfig: str) -> GpuAccess | None:
    """Pick from what a machine has.

    Args:
        devices: Names in ``/dev``.
        ldconfig: What ``ldconfig -p`` prints.

    Returns:
        None without a card, its control devices or its driver library.
    """
    names = set(devices)
    cards = sorted((name for name in names if _CARD.fullmatch(name)), key=lambda name: int(name[6:]))
    libraries: dict[str, str] = {}
    for line in ldconfig.splitlines():
        found = _LINE.match(line)
        if found is None or "x86-64" not in found[2]:
            continue
        if found[1].startswith(_LIBRARIES):
            # The loader takes the first that it lists.
            libraries.setdefault(found[1], found[3])
    if not cards or not names.issuperset(_SHARED) or "libcuda.so.1" not in libraries:
        return None
    return GpuAccess(tuple(f"/dev/{name}" for name in (*cards, *_SHARED)), tuple(sorted(libraries.items())))


def find_gpu(root: Path = Path("/")) -> GpuAccess | None:
    """The cards of this machine; None when there is none that could be used."""
    try:
        names = [path.name for path in (root / "dev").iterdir()]
    except OSError:
        return None
    if not any(_CARD.fullmatch(name) for name in names):
        return None
    program = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        done = subprocess.run(
            [program, "-p"], capture_output=True, check=True, timeout=_SECONDS, text=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return gpu_access(names, done.stdout)


def gpu_words(access: GpuAccess) -> list[str]:
    """Arguments of bubblewrap; they belong after ``--dev /dev`` and before everything becomes read-only."""
    words = []
    for device in access.devices:
        words += ["--dev-bind", device, device]
    words += ["--perms", "0755", "--dir", GPU_FOLDER]
    for name, path in access.libraries:
        words += ["--ro-bind", path, f"{GPU_FOLDER}/{name}"]
    return words


def choose_device(wanted: str, model_format: str, access: GpuAccess | None, versions: dict[str, str]) -> str:
    """Where a model computes.

    Args:
        wanted: One of :data:`DEVICES`.
        model_format: ``"onnx"`` or ``"safetensors"``.
        access: Of this machine; None without a card.
        versions: Installed packages; which build of torch or ONNX Runtime there is decides.

    Returns:
        ``"cpu"`` or ``"cuda"``.

    Raises:
        ConfigurationError: ``unknown_device``; ``no_gpu``: a card is asked for, and something is missing.
    """
    if wanted not in DEVICES:
        raise ConfigurationError(
            f"There is no device {wanted[:80]!r}.", code="unknown_device", hint=f"There are: {', '.join(DEVICES)}."
        )
    if wanted == "cpu":
        return "cpu"
    if access is None:
        missing = "no NVIDIA card with its driver library"
    elif model_format == "onnx" and "onnxruntime-gpu" not in versions:
        missing = "no onnxruntime-gpu, which ONNX models need"
    elif model_format != "onnx" and "+cpu" in versions.get("torch", "+cpu"):
        missing = "no torch that was built for CUDA"
    else:
        return "cuda"
    if wanted == "auto":
        return "cpu"
    raise ConfigurationError(
        f"This machine has {missing}.", code="no_gpu", hint="Leave out --device, or name cpu; it works the same."
    )
