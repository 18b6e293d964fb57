"""Decoding media from strangers in processes that are thrown away.

:class:`GuardedDecoder` gives the same results as the functions of this package, from a small pool of child
processes (:mod:`gas.media.guard_child`). A child is killed when a medium takes too long, needs too much memory
or crashes it, and replaced by a fresh one; the caller sees a :class:`gas.errors.MediaRejected`.

What is covered: time (the parent kills at the wall deadline, the kernel at a limit of processor time, also when
the parent is gone), memory (a limit on the child's address space), crashes, core dumps, files that a decoder
would write, answers of the wrong size or type. What is not: a decoder that an attacker takes over can still read
what its user may read and reach the network. Run the whole service in a sandbox where that matters.

The wire: four bytes of length, a JSON header, then raw bytes, in both directions. Nothing is unpickled.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gas.clock import Clock
from gas.errors import InfrastructureError, MediaRejected
from gas.media.image import RGB
from gas.media.limits import DEFAULT_LIMITS, Deadline, MediaLimits
from gas.media.probe import MediumInfo
from gas.types import Modality

__all__ = ["GuardedDecoder"]

_Json: TypeAlias = "dict[str, object]"
_Array: TypeAlias = NDArray[Any]

_MAX_HEADER: Final = 1 << 16
_PIPE_BYTES: Final = 1 << 20
_START_SECONDS: Final = 60.0
_MOST_KEPT: Final = 16 << 20
_DTYPES: Final[dict[object, np.dtype[Any]]] = {"uint8": np.dtype(np.uint8), "float32": np.dtype("<f4")}
_CODES: Final = frozenset({"unsupported", "undecodable", "too_large", "too_slow", "too_much_memory"})


class GuardedDecoder:
    """A pool of decoding processes; a context manager, and safe to be shared by threads.

    Args:
        limits: What a medium may cost; ``max_decode_seconds`` and ``max_memory`` are enforced here.
        workers: How many media are decoded at once; further callers wait.
        media_per_worker: After so many a child is replaced, so that no leak of a library adds up.
        clock: The machine's own when left out.

    A subclass may name another module for its children, which does more for it, and the codes with which that refuses
    media. A medium that is asked about twice in a row is sent to a child once.

    Every method raises:
        MediaRejected: What the function of the same name raises, and ``too_slow``, ``too_much_memory`` or
            ``decoder_crashed``.
        InfrastructureError: No child can be started, or the decoder is closed.
    """

    child: ClassVar[str] = "gas.media.guard_child"
    codes: ClassVar[frozenset[str]] = _CODES

    def __init__(
        self,
        limits: MediaLimits = DEFAULT_LIMITS,
        workers: int = 1,
        media_per_worker: int = 1000,
        clock: Clock | None = None,
    ) -> None:
        self._limits = limits
        self._media_per_worker = media_per_worker
        self._clock = clock
        self._setup: _Json = {"limits": asdict(limits)}
        self._closed = threading.Event()
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._count = workers
        for _ in range(workers):
            self._slots.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the media under way, and end all children."""
        self._closed.set()
        for _ in range(self._count):
            worker = self._slots.get()
            if worker is not None:
                worker.stop()
        for _ in range(self._count):
            self._slots.put(None)

    def decode_image(self, data: bytes) -> RGB:
        """As :func:`gas.media.image.decode_image`."""
        arrays, _ = self._ask("decode_image", {}, data)
        return _picture(_only(arrays), self._limits)

    def load_image(self, data: bytes, target: tuple[int, int]) -> NDArray[np.uint8]:
        """As :func:`gas.media.image.load_image`."""
        arrays, _ = self._ask("load_image", {"target": list(target)}, data)
        return _shaped(_only(arrays), np.uint8, (3, *target))

    def decode_video(self, data: bytes, num_frames: int = 16, frame_rate: float | None = None) -> list[RGB]:
        """As :func:`gas.media.video.decode_video`; a frame that is seen twice is two arrays."""
        options: _Json = {"num_frames": num_frames, "frame_rate": frame_rate}
        arrays, _ = self._ask("decode_video", options, data, count=num_frames)
        return [_picture(array, self._limits) for array in arrays]

    def load_video(
        self, data: bytes, target: tuple[int, int], num_frames: int = 16, frame_rate: float | None = None
    ) -> NDArray[np.uint8]:
        """As :func:`gas.media.video.load_video`."""
        options: _Json = {"target": list(target), "num_frames": num_frames, "frame_rate": frame_rate}
        arrays, _ = self._ask("load_video", options, data)
        return _shaped(_only(arrays), np.uint8, (num_frames, 3, *target))

    def decode_audio(self, data: bytes) -> tuple[NDArray[np.float32], int]:
        """As :func:`gas.media.audio.decode_audio`."""
        arrays, value = self._ask("decode_audio", {}, data)
        samples, rate = _only(arrays), value.get("rate")
        if not isinstance(rate, int) or samples.ndim != 1 or len(samples) == 0:
            raise _nonsense()
        self._limits.check_sound(rate, 1, len(samples))
        return _finite(_shaped(samples, np.float32, samples.shape)), rate

    def load_audio(self, data: bytes, target_rate: int = 16_000, seconds: float = 6.0) -> NDArray[np.float32]:
        """As :func:`gas.media.audio.load_audio`."""
        arrays, _ = self._ask("load_audio", {"target_rate": target_rate, "seconds": seconds}, data)
        return _finite(_shaped(_only(arrays), np.float32, (round(target_rate * seconds),)))

    def probe_medium(self, data: bytes, modality: Modality | str) -> MediumInfo:
        """As :func:`gas.media.probe.probe_medium`."""
        _, value = self._ask("probe_medium", {"modality": Modality(modality).value}, data, count=0)
        try:
            fields = {name: tuple(part) if isinstance(part, list) else part for name, part in value.items()}
            return MediumInfo(**{**fields, "modality": Modality(modality)})  # type: ignore[arg-type]
        except TypeError as error:
            raise _nonsense() from error

    def _ask(self, name: str, options: _Json, data: bytes, count: int = 1) -> tuple[list[_Array], _Json]:
        self._limits.check_bytes(len(data))
        while True:
            worker = self._slots.get()
            used = worker is not None and worker.alive
            try:
                if self._closed.is_set():
                    raise InfrastructureError("The guarded decoder is closed.")
                if worker is not None and not worker.alive:
                    worker.stop()
                    worker = None
                if worker is None:
                    worker = _Worker(self.child, self._setup, self.codes, self._limits, self._clock)
                answer = worker.ask(name, options, data, count)
            except _Died as death:
                # What an earlier medium left behind must not be blamed on this one.
                if used and death.again:
                    continue
                raise death.refusal from None
            finally:
                if worker is not None:
                    spent = worker.served >= self._media_per_worker or self._closed.is_set()
                    # One that was interrupted still has an answer under way, which nobody may take for the next one.
                    if spent or worker.busy:
                        worker.stop()
                self._slots.put(worker if worker is not None and worker.alive else None)
            return answer


class _Died(Exception):
    """The child is gone; carries what its medium is refused with, and whether another child may be tried."""

    def __init__(self, refusal: MediaRejected, *, again: bool) -> None:
        super().__init__()
        self.refusal = refusal
        self.again = again


def _command(module: str) -> list[str]:
    return [sys.executable, "-P", "-m", module]


def _environment() -> dict[str, str]:
    """Nothing of the parent's but where Python finds this package; memory of the usual sizes is reused."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 27),
    }


class _Worker:
    """One child and the pipes to it."""

    def __init__(
        self, module: str, setup: _Json, codes: frozenset[str], limits: MediaLimits, clock: Clock | None
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._codes = codes
        self._kept: bytes | None = None
        self.served = 0
        self.busy = False
        try:
            self._process = subprocess.Popen(
                _command(module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise InfrastructureError("A decoding process can't be started.") from error
        if self._process.stdin is None or self._process.stdout is None:
            raise InfrastructureError("A decoding process has no pipes.")
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            os.set_blocking(pipe, False)
            _widen(pipe)
        ready = False
        try:
            deadline = Deadline(_START_SECONDS, clock)
            self._send(setup, b"", deadline)
            self._receive_header(deadline)
            ready = True
        except (_Late, _Nonsense, EOFError, OSError) as error:
            raise InfrastructureError("A decoding process doesn't start.") from error
        finally:
            if not ready:
                self.stop()

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Kill the child and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, name: str, options: _Json, data: bytes, count: int) -> tuple[list[_Array], _Json]:
        """Have one medium decoded.

        Raises:
            MediaRejected: The child says so; it lives on.
            _Died: The child is gone.
        """
        self.served += 1
        self.busy = True
        deadline = Deadline(self._limits.max_decode_seconds, self._clock)
        try:
            kept = data is self._kept
            self._send(
                {"name": name, "options": options, "size": len(data), "kept": kept}, b"" if kept else data, deadline
            )
            # The child has it as well; larger ones are worth their room more than another sending.
            self._kept = data if len(data) <= _MOST_KEPT else None
            header = self._receive_header(deadline)
            if "code" in header:
                refusal = _refusal(header, self._codes)
                self.busy = False
                raise refusal
            arrays = self._receive_arrays(header.get("arrays"), count, deadline)
            self.busy = False
            value = header.get("value")
            return arrays, value if isinstance(value, dict) else {}
        except _Nonsense as error:
            self.stop()
            raise _Died(_nonsense(), again=False) from error
        except _Late as error:
            self.stop()
            slow = f"The medium takes more than {self._limits.max_decode_seconds:g} seconds to decode."
            raise _Died(MediaRejected(slow, code="too_slow"), again=False) from error
        except (BrokenPipeError, EOFError) as error:
            self._process.wait()
            killed = self._process.returncode
            self.stop()
            if killed == -signal.SIGXCPU:
                slow = "The medium takes too much processor time to decode."
                raise _Died(MediaRejected(slow, code="too_slow"), again=False) from error
            crash = MediaRejected("The medium crashes its decoder.", code="decoder_crashed")
            raise _Died(crash, again=True) from error

    def _send(self, header: _Json, data: bytes, deadline: Deadline) -> None:
        text = json.dumps(header).encode()
        for part in (len(text).to_bytes(4, "big") + text, data):
            view = memoryview(part)
            while view:
                _wait(self._in, select.POLLOUT, deadline)
                view = view[os.write(self._in, view[:_PIPE_BYTES]) :]

    def _receive_header(self, deadline: Deadline) -> _Json:
        length = int.from_bytes(self._receive(bytearray(4), deadline), "big")
        if length > _MAX_HEADER:
            raise _Nonsense
        try:
            header = json.loads(bytes(self._receive(bytearray(length), deadline)))
        except ValueError as error:
            raise _Nonsense from error
        if not isinstance(header, dict):
            raise _Nonsense
        return header

    def _receive_arrays(self, kinds: object, count: int, deadline: Deadline) -> list[_Array]:
        if not isinstance(kinds, list) or len(kinds) > count or (count and not kinds):
            raise _Nonsense
        arrays: list[_Array] = []
        left = self._limits.max_memory
        for kind in kinds:
            dtype = _DTYPES.get(kind.get("dtype")) if isinstance(kind, dict) else None
            shape = kind.get("shape") if isinstance(kind, dict) else None
            if dtype is None or not isinstance(shape, list) or not 1 <= len(shape) <= 4:
                raise _Nonsense
            if not all(type(side) is int and 0 < side < 2**31 for side in shape):
                raise _Nonsense
            left -= math.prod(shape) * dtype.itemsize
            if left < 0:
                raise _Nonsense
            array = np.empty(shape, dtype)
            self._receive(array.data.cast("B"), deadline)
            arrays.append(array)
        return arrays

    def _receive(self, into: bytearray | memoryview, deadline: Deadline) -> bytearray | memoryview:
        view = memoryview(into)
        while view:
            _wait(self._out, select.POLLIN, deadline)
            count = os.readv(self._out, [view])
            if count == 0:
                raise EOFError
            view = view[count:]
        return into


class _Late(Exception):
    """The deadline has passed."""


class _Nonsense(Exception):
    """The child's answer is not one that this module writes."""


def _wait(pipe: int, event: int, deadline: Deadline) -> None:
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(1000 * deadline.left):
        raise _Late


def _widen(pipe: int) -> None:
    try:
        fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), _PIPE_BYTES)
    except OSError:
        # A user's pipes may have used up what the kernel grants; a narrow pipe is only slower.
        return


def _refusal(header: _Json, codes: frozenset[str]) -> MediaRejected:
    code, message = header["code"], str(header.get("message"))[:500]
    if not isinstance(code, str) or code not in codes:
        raise _Nonsense
    return MediaRejected(message, code=code)


def _nonsense() -> MediaRejected:
    return MediaRejected("The medium makes its decoder answer nonsense.", code="decoder_crashed")


def _only(arrays: Sequence[_Array]) -> _Array:
    if len(arrays) != 1:
        raise _nonsense()
    return arrays[0]


def _shaped(array: _Array, dtype: type[np.generic], shape: tuple[int, ...]) -> _Array:
    if array.dtype != dtype or array.shape != shape:
        raise _nonsense()
    return array


def _finite(samples: _Array) -> _Array:
    if not np.isfinite(samples).all():
        raise _nonsense()
    return samples


def _picture(array: _Array, limits: MediaLimits) -> RGB:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise _nonsense()
    limits.check_size(array.shape[1], array.shape[0])
    return array
