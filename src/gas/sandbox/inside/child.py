"""The runner: confines itself, waits for the one submission that it is given, answers one batch at a time."""

from __future__ import annotations

import json
import mmap
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from . import confine, filters, wire

__all__ = ["main"]

_SETUP_FAILED = 70


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(descriptor, size - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


def _read_config(descriptor: int) -> dict[str, Any]:
    parts = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    os.close(descriptor)
    config: dict[str, Any] = json.loads(b"".join(parts))
    return config


def _read_package(requests: int) -> dict[str, Any]:
    """Wait for the one package that this process is for; ends the process when the parent ends first."""
    magic, size, _, _ = wire.REQUEST.unpack(_read_exactly(requests, wire.REQUEST.size))
    if magic != wire.LOAD:
        os._exit(_SETUP_FAILED)
    package: dict[str, Any] = json.loads(_read_exactly(requests, size))
    return package


def _confine(config: dict[str, Any]) -> None:
    """Everything that can be taken away before the trusted imports."""
    if config["uid"] is not None:
        confine.drop_ids(config["uid"], config["uid"])
    confine.die_with_parent()
    if config["parent"] is not None and os.getppid() != config["parent"]:
        os._exit(0)
    if config["strict"] and (os.geteuid() == 0 or confine.capabilities() != 0):
        raise confine.ConfinementError("The runner still has root's powers.")
    confine.set_limits(config["limits"])
    if config["strict"]:
        confine.forbid_dumps()
        confine.restrict_files(config["read"], config["write"], config["devices"])


def main(config_descriptor: int) -> NoReturn:
    """Run until the parent closes its end.

    Args:
        config_descriptor: A descriptor with the parent's JSON; read to its end and closed.
    """
    config = _read_config(config_descriptor)
    requests, answers, shared = config["requests"], config["answers"], config["shared"]

    def send(kind: bytes, nonce: int, payload: bytes = b"") -> None:
        _write_all(answers, wire.HEADER.pack(kind, len(payload), nonce) + payload)

    start = config["nonce"]
    try:
        sys.path[:0] = config["sys_path"]
        _confine(config)
        from . import models

        models.import_libraries(config["format"], config["threads"])
        if config["strict"]:
            confine.install_filter(filters.second_filter(os.getpid(), gpu=bool(config["devices"])))
        send(wire.CONFINED, start)
        config |= _read_package(requests)
        memory = mmap.mmap(shared, config["shared_bytes"], flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        os.close(shared)
    except (confine.ConfinementError, OSError, ImportError, RuntimeError, MemoryError) as error:
        send(wire.FAILED, start, wire.pack_failure("setup", f"{type(error).__name__}: {error}"))
        os._exit(_SETUP_FAILED)
    send(wire.BEGUN, start)
    if config["format"] == "selfcheck":
        from . import selfcheck

        findings = selfcheck.run(config["selfcheck"], memory)
        send(wire.REPORT, start, json.dumps(findings).encode()[: wire.MAX_PAYLOAD])
        os._exit(0)
    _serve(config, models, memory, requests, send)


def _serve(
    config: dict[str, Any],
    models: Any,
    memory: mmap.mmap,
    requests: int,
    send: Callable[..., None],
) -> NoReturn:
    import numpy as np

    def fail(error: BaseException, nonce: int, *, code: str, doing: str) -> NoReturn:
        told = models.explain(error, code=code, doing=doing)
        if not isinstance(error, models.ModelError):
            traceback.print_exception(error, limit=-8)
            sys.stderr.flush()
        send(wire.FAILED, nonce, wire.pack_failure(told.code, told.text))
        os._exit(1)

    try:
        model = models.load(config)
    except BaseException as error:  # noqa: BLE001 - a stranger's code may raise anything, SystemExit included
        fail(error, config["nonce"], code="load_failed", doing="loading the model")
    send(wire.READY, config["nonce"])
    shape, dtype = tuple(config["input_shape"]), np.dtype(config["input_dtype"])
    batches = np.frombuffer(memory, dtype=dtype, count=wire.SLOTS * config["batch_size"] * int(np.prod(shape)))
    batches = batches.reshape(wire.SLOTS, config["batch_size"], *shape)
    while True:
        magic, samples, nonce, slot = wire.REQUEST.unpack(_read_exactly(requests, wire.REQUEST.size))
        if magic != wire.RUN:
            os._exit(_SETUP_FAILED)
        try:
            logits = model(batches[slot, :samples])
        except BaseException as error:  # noqa: BLE001 - see above
            fail(error, nonce, code="crashed", doing="computing a batch")
        send(wire.LOGITS, nonce, logits.tobytes())
