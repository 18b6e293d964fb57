"""The sandbox's seam: what the benchmark engine may ask of any isolation.

Who may fail: :class:`gas.errors.SandboxUnavailable` is ours (no isolation could be set up, or it broke);
:class:`gas.errors.ModelFailed` is the author's. The two never mix.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT_LIMITS", "Environment", "Limits", "ModelSession", "ModelSpec", "Sandbox", "Tier"]


class Tier(IntEnum):
    """Rungs of the ladder, ordered by strength; stored with each result."""

    PLAIN = 0
    """An ordinary process: only for one's own model (``--trust-model``)."""
    NAMESPACES = 1
    """Own name spaces, pivot_root, Landlock, two seccomp filters, limits."""
    NAMESPACES_CGROUP = 2
    """The same inside a control group of its own."""
    BUBBLEWRAP = 3
    """bubblewrap, Landlock, two seccomp filters, limits."""
    BUBBLEWRAP_CGROUP = 4
    """The same inside a control group of its own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a submitted model may use.

    Attributes:
        memory_bytes: Address space or group memory of the whole tree. On a graphics card, whose driver reserves address
            space by the hundred GiB, it limits what is written to instead; memory on the card is not limited.
        cpu_seconds: Processor time of a process.
        processes: Threads and processes of the tree.
        file_bytes: Largest file it may write.
        open_files: Descriptors.
        tmp_bytes: Size of its private /tmp, and of its private /dev/shm.
        load_seconds: Wall clock for loading the model, counted from the moment at which our own part is ready.
        batch_seconds: Wall clock for one batch.
        tmp_files: Files, folders and links in either of the two; under bubblewrap looked at a few times a second, so
            that it can be overdrawn for a moment.
    """

    memory_bytes: int = 6 * 2**30
    cpu_seconds: int = 5 * 3600
    processes: int = 64
    file_bytes: int = 64 * 2**20
    open_files: int = 256
    tmp_bytes: int = 64 * 2**20
    load_seconds: float = 120.0
    batch_seconds: float = 60.0
    tmp_files: int = 10_000


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the trusted runner must know to load a checked package; built by ``gas.submissions``.

    Attributes:
        folder: Unpacked, checked package; becomes read-only for the model.
        format: ``"onnx"`` or ``"safetensors"``.
        entry: File name inside the folder: the ``.onnx`` file, or ``model.py``.
        weights_file: Name of the safetensors file inside the folder; None for ONNX.
        input_shape: Shape of one sample: (3, H, W), (T, 3, H, W) or (samples,).
        input_dtype: ``"uint8"`` or ``"float32"``.
        num_classes: Width of the answer.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``: autocast of safetensors models.
        params: Further keyword arguments for ``load_model``; plain JSON values.
        input_rate: Frames a second at which a video is sampled (None: the first consecutive frames); Hz of sound.
        device: ``"cpu"`` or ``"cuda"``: where the model computes.
    """

    folder: Path
    format: str
    entry: str
    weights_file: str | None
    input_shape: tuple[int, ...]
    input_dtype: str
    num_classes: int
    dtype: str = "float32"
    params: dict[str, object] = field(default_factory=dict)
    input_rate: float | None = None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Environment:
    """What of a sandbox is settled before it is given a package; for two packages with equal ones, any of two will do.

    Attributes:
        format: ``"onnx"`` or ``"safetensors"``: which libraries are imported.
        limits: What the tree may use. The wall clocks are the parent's and don't count here: they are the default's.
        threads: Number of threads to compute with.
        device: ``"cpu"`` or ``"cuda"``.
    """

    format: str
    limits: Limits = DEFAULT_LIMITS
    threads: int = 1
    device: str = "cpu"

    @classmethod
    def of(cls, spec: ModelSpec, limits: Limits = DEFAULT_LIMITS, threads: int = 1) -> Self:
        """What a package needs."""
        return cls(spec.format, limits, threads, spec.device)

    def __post_init__(self) -> None:
        usual = DEFAULT_LIMITS
        limits = replace(self.limits, load_seconds=usual.load_seconds, batch_seconds=usual.batch_seconds)
        object.__setattr__(self, "limits", limits)


class ModelSession(Protocol):
    """A loaded model; a context manager that kills the whole tree on exit."""

    tier: Tier

    def infer(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run the model on one batch.

        Args:
            batch: Shape (n, *input_shape), dtype ``input_dtype``; n up to the session's batch size.

        Returns:
            Logits, shape (n, num_classes), float32. Values may be NaN or infinite: the engine counts such a
            sample as a model error.

        Raises:
            gas.errors.ModelFailed: Crash, time-out, out of memory, wrong shape. The session is dead afterwards.
            gas.errors.SandboxUnavailable: Our own machinery broke.
        """
        ...

    def close(self) -> None:
        """Kill the tree and free shared memory; may be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Sandbox(Protocol):
    """A way to run a stranger's model."""

    tier: Tier

    def start(self, spec: ModelSpec, *, batch_size: int, limits: Limits = ..., threads: int = 1) -> ModelSession:
        """Start a process tree and load the model in it.

        Args:
            spec: What to load.
            batch_size: Most samples a batch will have.
            limits: What the tree may use.
            threads: Number of threads that the model should compute with.

        Raises:
            gas.errors.ModelFailed: The model did not load (``load_failed``, ``timeout``, ``out_of_memory``).
            gas.errors.SandboxUnavailable: The isolation could not be set up.
        """
        ...
