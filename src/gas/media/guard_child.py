"""The child of :mod:`gas.media.guard`: ``python -m gas.media.guard_child`` decodes what its parent sends.

It gives itself limits that it can't lift again before the first medium comes in, and answers with raw arrays.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gas.errors import MediaRejected
from gas.media import audio, image, probe, video
from gas.media.limits import MediaLimits

__all__ = ["Answers", "More", "serve"]

_Json: TypeAlias = "dict[str, object]"
_Array: TypeAlias = NDArray[Any]

Answers: TypeAlias = "Callable[..., tuple[list[_Array], _Json]]"
"""From a medium's bytes and named options to arrays and a JSON object."""
More: TypeAlias = "Callable[[MediaLimits, _Json], dict[str, Answers]]"

_PIPE_BYTES: Final = 1 << 20


def serve(more: More | None = None) -> None:
    """The child: decode what comes in by standard input until it is closed, answer by standard output.

    Args:
        more: Makes what else this child answers to, from its limits and from what its parent sends first.
    """
    source, target = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    first = _read_header(source)
    if first is None:
        return
    limits = MediaLimits(**first["limits"])
    # The child's own deadline comes before the parent's, which costs the child.
    limits = replace(limits, max_decode_seconds=0.9 * limits.max_decode_seconds)
    decoders = _decoders(limits) | (more(limits, first) if more else {})
    data = b""
    # What is here now stays: the collector needn't look at it again after every few media.
    gc.collect()
    gc.freeze()
    _confine(limits)
    _write(target, {"ready": True}, [])
    while (header := _read_header(source)) is not None:
        if not header.get("kept"):
            data = _read(source, header["size"])
        spent = sum(os.times()[:2])
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(spent + limits.max_decode_seconds) + 1, hard))
        try:
            arrays, value = decoders[header["name"]](data, **header["options"])
        except MediaRejected as refusal:
            _write(target, {"code": refusal.error_code, "message": refusal.message}, [])
        except MemoryError:
            _write(target, {"code": "too_much_memory", "message": "The medium needs more memory than it may have."}, [])
        else:
            kinds = [{"dtype": array.dtype.name, "shape": array.shape} for array in arrays]
            _write(target, {"arrays": kinds, "value": value}, arrays)


def _decoders(limits: MediaLimits) -> dict[str, Answers]:
    Image.init()
    cv2.setNumThreads(1)

    def sound(data: bytes) -> tuple[list[_Array], _Json]:
        samples, rate = audio.decode_audio(data, limits)
        return [samples], {"rate": rate}

    return {
        "decode_image": lambda data: ([image.decode_image(data, limits)], {}),
        "load_image": lambda data, target: ([image.load_image(data, tuple(target), limits)], {}),
        "decode_video": lambda data, **options: (list(video.decode_video(data, limits=limits, **options)), {}),
        "load_video": lambda data, target, **options: (
            [video.load_video(data, tuple(target), limits=limits, **options)],
            {},
        ),
        "decode_audio": sound,
        "load_audio": lambda data, **options: ([audio.load_audio(data, limits=limits, **options)], {}),
        "probe_medium": lambda data, modality: ([], asdict(probe.probe_medium(data, modality, limits))),
    }


def _confine(limits: MediaLimits) -> None:
    """Limits of the kernel on what a medium may add to what the child has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + limits.max_memory
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _read(source: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = os.read(source, min(size, _PIPE_BYTES))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _read_header(source: int) -> dict[str, Any] | None:
    try:
        header: dict[str, Any] = json.loads(_read(source, int.from_bytes(_read(source, 4), "big")))
    except EOFError:
        return None
    return header


def _write(target: int, header: _Json, arrays: Sequence[_Array]) -> None:
    text = json.dumps(header).encode()
    body = [np.ascontiguousarray(array).data.cast("B") for array in arrays]
    for part in (memoryview(len(text).to_bytes(4, "big") + text), *body):
        left = part
        while left:
            left = left[os.write(target, left) :]


if __name__ == "__main__":
    serve()
