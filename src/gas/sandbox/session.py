"""A session: one loaded model behind a protocol of frames; the same for every rung of the ladder."""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from gas.errors import ModelFailed, SandboxUnavailable
from gas.sandbox.base import Limits, ModelSpec, Tier
from gas.sandbox.inside import wire
from gas.sandbox.memory import InputMemory
from gas.sandbox.tree import Ended, Late, Overdrawn, Tree, printable

__all__ = ["Session"]

_CODES: Final = frozenset({"load_failed", "crashed", "timeout", "out_of_memory", "bad_output", "protocol"})
_MEMORY_WORDS: Final = ("bad_alloc", "MemoryError", "out of memory", "can't allocate memory")


class Session:
    """A model in its process tree; see :class:`gas.sandbox.base.ModelSession`.

    Use it from one thread. Several sessions may live side by side.

    Args:
        tree: The confined runner, which has been given its package.
        memory: Its input.
        spec: The package.
        tier: The rung that holds it.
        batch_size: Most samples of a batch.
        limits: For the wall clocks.
        nonce: With which the runner says that the model is loaded.
        release: Called once the tree is gone, with whether it ended by the model's fault.

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
        release: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.tier = tier
        self._model_failed = False
        self._release = release
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
            self._release(self._model_failed)

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
            what = "answer a batch" if expected == wire.LOGITS else "load"
            raise self._failed(f"The model took more than {seconds:g} s to {what}.", "timeout") from error
        except Overdrawn as error:
            raise self._failed(str(error), "out_of_memory") from error
        except Ended as error:
            raise self._ended(failing) from error

    def _failed(self, message: str, code: str) -> ModelFailed:
        """Kill the tree and say why; the author sees the end of what the model printed."""
        self._model_failed = True
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
        if self._tree.ran_out_of_memory:
            limit = self._limits.memory_bytes / 2**20
            words = f"The model, with its files, took more than {limit:,.0f} MiB of memory."
            return self._failed(words, "out_of_memory")
        if name == "SIGKILL" or any(words in tail for words in _MEMORY_WORDS):
            return self._failed("The model's process was killed, most likely for want of memory.", "out_of_memory")
        if name:
            return self._failed(f"The model's process was killed by {name}.", failing)
        return self._failed(f"The model's process ended with code {status}.", failing)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
