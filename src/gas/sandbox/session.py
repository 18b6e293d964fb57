"""A session: one loaded model behind a protocol of frames; the same for every rung of the ladder."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from gas.errors import ModelFailed, SandboxUnavailable
from gas.sandbox.base import Limits, ModelSpec, Tier
from gas.sandbox.inside import wire
from gas.sandbox.memory import InputMemory, sealed_file
from gas.sandbox.tree import Ended, Late, Overdrawn, Pipes, Tree, printable

__all__ = ["Confinement", "Session", "open_session"]

_SETUP_SECONDS = 120.0
"""Wall clock for everything that is ours: name spaces, confinement, imports."""

_CODES: Final = frozenset({"load_failed", "crashed", "timeout", "out_of_memory", "bad_output", "protocol"})
_MEMORY_WORDS: Final = ("bad_alloc", "MemoryError", "out of memory", "can't allocate memory")


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a rung asks of the runner.

    Attributes:
        strict: Landlock, the second seccomp filter, and a refusal to run with root's powers.
        uid: User (and group) to become, or None to stay.
        parent: Process id that must still be the runner's parent, or None where it can't be known.
        model_folder: The package's folder as the runner sees it.
        site_folders: Folders with packages as the runner sees them.
        read: Paths that Landlock leaves readable.
        write: Paths that Landlock leaves writable.
        limit_processes: Whether the limit on processes counts this tree alone.
        devices: Device files of a graphics card.
    """

    strict: bool
    model_folder: str
    site_folders: tuple[str, ...]
    uid: int | None = None
    parent: int | None = None
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    limit_processes: bool = True
    devices: tuple[str, ...] = ()


Launcher = Callable[[Pipes, tuple[int, ...], int, float], Tree]
"""Starts the runner: (pipes, further descriptors to hand down, descriptor of the settings, deadline) -> tree."""


def _settings(
    spec: ModelSpec,
    confinement: Confinement,
    pipes: Pipes,
    memory: InputMemory,
    *,
    batch_size: int,
    limits: Limits,
    threads: int,
    nonce: int,
    selfcheck: dict[str, object] | None,
) -> bytes:
    resources = {
        # The driver of a card reserves address space by the hundred GiB; what is written to is counted then.
        "DATA" if spec.device == "cuda" else "AS": limits.memory_bytes,
        "CPU": limits.cpu_seconds,
        "FSIZE": limits.file_bytes,
        "NOFILE": limits.open_files,
    }
    if confinement.limit_processes:
        resources["NPROC"] = limits.processes
    try:
        return json.dumps(
            {
                "requests": pipes.requests_inside,
                "answers": pipes.answers_inside,
                "shared": memory.descriptor,
                "shared_bytes": memory.size,
                "nonce": nonce,
                "strict": confinement.strict,
                "uid": confinement.uid,
                "parent": confinement.parent,
                "limits": resources,
                "read": confinement.read,
                "write": confinement.write,
                "devices": confinement.devices,
                "sys_path": confinement.site_folders,
                "model_folder": confinement.model_folder,
                "format": spec.format,
                "entry": spec.entry,
                "weights_file": spec.weights_file,
                "input_shape": spec.input_shape,
                "input_dtype": spec.input_dtype,
                "num_classes": spec.num_classes,
                "dtype": spec.dtype,
                "device": spec.device,
                "params": spec.params,
                "batch_size": batch_size,
                "threads": threads,
                "selfcheck": selfcheck,
            },
            allow_nan=False,
        ).encode()
    except (TypeError, ValueError) as error:
        raise ModelFailed(
            "The parameters for load_model are not plain JSON values.", code="load_failed", hint=str(error)
        ) from error


def open_session(
    spec: ModelSpec,
    confinement: Confinement,
    launch: Launcher,
    *,
    tier: Tier,
    batch_size: int,
    limits: Limits,
    threads: int,
    selfcheck: dict[str, object] | None = None,
) -> Session:
    """Start a runner and wait until it is confined; the model is not loaded yet.

    Raises:
        gas.errors.SandboxUnavailable: Anything went wrong: up to here, everything is ours.
        gas.errors.ModelFailed: ``spec.params`` can't be handed over.
        ValueError: ``batch_size``, ``threads`` or the spec's shape is not positive, or a word is unknown.
    """
    if spec.format not in {"onnx", "safetensors", "selfcheck"} or spec.input_dtype not in {"uint8", "float32"}:
        raise ValueError(f"Unknown format {spec.format!r} or dtype {spec.input_dtype!r}.")
    if min(batch_size, threads, spec.num_classes, *spec.input_shape) < 1:
        raise ValueError("Batch size, threads, classes and every axis of a sample must be at least 1.")
    deadline = time.monotonic() + _SETUP_SECONDS
    # Unpredictable to the model, so not one of the draws that a round derives from its seed.
    nonce = secrets.randbits(64)
    sample_bytes = math.prod(spec.input_shape) * np.dtype(spec.input_dtype).itemsize
    with contextlib.ExitStack() as undo:
        try:
            memory = InputMemory(batch_size * sample_bytes, wire.SLOTS)
            undo.callback(memory.close)
            pipes = Pipes()
            undo.callback(pipes.close)
            text = _settings(
                spec, confinement, pipes, memory,
                batch_size=batch_size, limits=limits, threads=threads, nonce=nonce, selfcheck=selfcheck,
            )  # fmt: skip
            settings = sealed_file("settings", text)
            try:
                tree = launch(pipes, (memory.descriptor, settings), settings, deadline)
            finally:
                os.close(settings)
        except OSError as error:
            raise SandboxUnavailable(f"The sandbox could not be started: {error.strerror}.") from error
        undo.callback(tree.kill)
        _await_confined(tree, nonce, deadline)
        undo.pop_all()
    return Session(tree, memory, spec, tier=tier, batch_size=batch_size, limits=limits, nonce=nonce)


def _await_confined(tree: Tree, nonce: int, deadline: float) -> None:
    """Wait for the frame that says: every restriction is in force."""
    try:
        kind, size, echoed = wire.HEADER.unpack(tree.receive(wire.HEADER.size, deadline))
        if kind == wire.FAILED and size <= wire.MAX_PAYLOAD:
            _, text = wire.unpack_failure(tree.receive(size, deadline))
            raise SandboxUnavailable(f"The runner could not confine itself: {printable(text)}")
        if kind != wire.CONFINED or echoed != nonce or size:
            raise SandboxUnavailable("The runner answered with an unknown frame.")
    except (Late, Overdrawn) as error:
        raise SandboxUnavailable("The runner did not get ready in time.", hint=tree.tail or None) from error
    except Ended as error:
        tree.outcome()
        raise SandboxUnavailable("The runner ended before it was confined.", hint=tree.tail or None) from error


class Session:
    """A model in its process tree; see :class:`gas.sandbox.base.ModelSession`.

    Use it from one thread. Several sessions may live side by side.

    Attributes:
        tier: The rung that holds it.
    """

    def __init__(
        self,
        tree: Tree,
        memory: InputMemory,
        spec: ModelSpec,
        *,
        tier: Tier,
        batch_size: int,
        limits: Limits,
        nonce: int,
    ) -> None:
        self.tier = tier
        self._tree = tree
        self._memory = memory
        self._spec = spec
        self._batch_size = batch_size
        self._limits = limits
        self._nonce = nonce
        self._closed = False
        self._waiting: deque[tuple[int, int]] = deque()
        self._slot = 0
        self._since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the tree's outermost process."""
        return self._tree.pid

    def close(self) -> None:
        """Kill the tree and free shared memory; may be called twice."""
        if not self._closed:
            self._closed = True
            self._waiting.clear()
            self._tree.kill()
            self._memory.close()

    def load(self) -> None:
        """Wait until the submission is loaded.

        Raises:
            gas.errors.ModelFailed: It did not load.
            gas.errors.SandboxUnavailable: Our own machinery broke.
        """
        seconds = self._limits.load_seconds
        self._answer(self._nonce, wire.READY, 0, seconds, time.monotonic() + seconds, failing="load_failed")

    def report(self) -> list[str]:
        """Findings of the self-check; only for sessions started with one.

        Raises:
            gas.errors.SandboxUnavailable: The self-check did not finish.
        """
        deadline = time.monotonic() + self._limits.load_seconds
        try:
            kind, size, _ = wire.HEADER.unpack(self._tree.receive(wire.HEADER.size, deadline))
            if kind != wire.REPORT or size > wire.MAX_PAYLOAD:
                raise SandboxUnavailable("The self-check answered with an unknown frame.")
            return [str(finding) for finding in json.loads(self._tree.receive(size, deadline))]
        except (Late, Ended, Overdrawn) as error:
            self._tree.outcome()
            raise SandboxUnavailable("The self-check did not finish.", hint=self._tree.tail or None) from error

    def infer(self, batch: NDArray[np.generic]) -> NDArray[np.float32]:
        """Run the model on one batch: :meth:`submit`, then :meth:`collect`; nothing else may be waiting.

        Raises:
            gas.errors.ModelFailed, gas.errors.SandboxUnavailable, ValueError: As these two.
        """
        if self._waiting:
            raise ValueError("Batches that were submitted have to be collected first.")
        self.submit(batch)
        return self.collect()

    @property
    def capacity(self) -> int:
        """How many batches may wait for their answers at the same time."""
        return wire.SLOTS

    def submit(self, batch: NDArray[np.generic]) -> None:
        """Hand a batch over; the model computes it as soon as it is done with the one before.

        Args:
            batch: Shape (n, *input_shape), dtype ``input_dtype``; 1 <= n <= the session's batch size.

        Raises:
            gas.errors.ModelFailed: The model is dead, or said something that nobody had asked for. The oldest batch
                that waits (this one when there is none) may be what it died of.
            gas.errors.SandboxUnavailable: Our own machinery broke, or the session is closed.
            ValueError: The batch has another shape or dtype than agreed, or :attr:`capacity` batches wait.
        """
        if self._closed:
            raise SandboxUnavailable("The session is closed.")
        samples = len(batch)
        if batch.shape[1:] != self._spec.input_shape or batch.dtype != self._spec.input_dtype:
            raise ValueError(
                f"A batch must have shape (n, {self._spec.input_shape}) and dtype {self._spec.input_dtype};"
                f" this one has {batch.shape} and {batch.dtype}."
            )
        if not 1 <= samples <= self._batch_size:
            raise ValueError(f"A batch must have 1 to {self._batch_size} samples; this one has {samples}.")
        if len(self._waiting) == wire.SLOTS:
            raise ValueError(f"No more than {wire.SLOTS} batches can wait.")
        # While a batch waits, its answer may lie there; whatever is too much of it then has the next one's nonce wrong.
        if not self._waiting and self._tree.has_unread_answers():
            raise self._failed("The model's process sent data that nobody had asked for.", "protocol")
        self._memory.write(batch, self._slot)
        nonce = secrets.randbits(64)
        now = time.monotonic()
        try:
            request = wire.REQUEST.pack(wire.RUN, samples, nonce, self._slot)
            self._tree.send(request, now + self._limits.batch_seconds)
        except Late as error:
            raise self._failed("The model did not take the batch in time.", "timeout") from error
        except Overdrawn as error:
            raise self._failed(str(error), "out_of_memory") from error
        except Ended as error:
            raise self._ended("crashed") from error
        if not self._waiting:
            self._since = now
        self._waiting.append((nonce, samples))
        self._slot = (self._slot + 1) % wire.SLOTS

    def collect(self) -> NDArray[np.float32]:
        """Wait for the answer to the oldest batch that was submitted.

        Its time runs from the moment at which the model could begin with it.

        Returns:
            Logits, shape (n, num_classes), float32, as the model gave them: NaN and infinities included.

        Raises:
            gas.errors.ModelFailed: Crash, time-out, out of memory, wrong shape, broken protocol.
            gas.errors.SandboxUnavailable: Our own machinery broke, or the session is closed.
            ValueError: Nothing was submitted.
        """
        if self._closed:
            raise SandboxUnavailable("The session is closed.")
        if not self._waiting:
            raise ValueError("No batch was submitted.")
        nonce, samples = self._waiting[0]
        seconds = self._limits.batch_seconds
        size = samples * self._spec.num_classes * 4
        payload = self._answer(nonce, wire.LOGITS, size, seconds, self._since + seconds, failing="crashed")
        self._waiting.popleft()
        self._since = time.monotonic()
        logits = np.frombuffer(payload, dtype=np.float32).reshape(samples, self._spec.num_classes)
        return logits.copy()

    def _answer(
        self, nonce: int, expected: bytes, size: int, seconds: float, deadline: float, *, failing: str
    ) -> bytes:
        """Read one frame of the expected kind and size, or turn what came instead into the right error."""
        try:
            kind, announced, echoed = wire.HEADER.unpack(self._tree.receive(wire.HEADER.size, deadline))
            if echoed != nonce:
                raise self._failed("The model's process answered before it was asked.", "protocol")
            if kind == expected and announced == size:
                return self._tree.receive(size, deadline)
            if kind == wire.FAILED and announced <= wire.MAX_PAYLOAD:
                code, text = wire.unpack_failure(self._tree.receive(announced, deadline))
                self._tree.outcome()
                raise self._failed(printable(text, 1000), code if code in _CODES else "protocol")
            raise self._failed("The model's process answered with a frame of the wrong kind or size.", "protocol")
        except Late as error:
            raise self._failed(f"The model took more than {seconds:g} s.", "timeout") from error
        except Overdrawn as error:
            raise self._failed(str(error), "out_of_memory") from error
        except Ended as error:
            raise self._ended(failing) from error

    def _failed(self, message: str, code: str) -> ModelFailed:
        """Kill the tree and say why; the author sees the end of what the model printed."""
        self.close()
        tail = self._tree.tail
        return ModelFailed(message, code=code, hint=f"Last output of the model:\n{tail}" if tail else None)

    def _ended(self, failing: str) -> ModelFailed | SandboxUnavailable:
        """Find out why the answers' pipe was closed."""
        status = self._tree.outcome()
        if status is None:
            return self._failed("The model's process closed its channel for answers.", "protocol")
        if self._tree.was_killed_from_outside:
            self.close()
            return SandboxUnavailable(f"The sandbox was killed from outside ({_signal_name(-status)}).")
        number = -status if status < 0 else status - 128
        name = _signal_name(number)
        tail = self._tree.tail
        if name == "SIGXCPU":
            return self._failed(f"The model used more than {self._limits.cpu_seconds} s of processor time.", "timeout")
        if self._tree.ran_out_of_memory or name == "SIGKILL" or any(words in tail for words in _MEMORY_WORDS):
            return self._failed("The model's process was killed, most likely for want of memory.", "out_of_memory")
        if name:
            return self._failed(f"The model's process was killed by {name}.", failing)
        return self._failed(f"The model's process ended with code {status}.", failing)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
