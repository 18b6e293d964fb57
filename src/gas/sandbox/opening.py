"""From nothing to a confined runner, and from that to a session; the same for every rung of the ladder.

The two are apart, because everything that takes long (name spaces, confinement, imports) can be done before anybody
knows which package will run: a runner that waits knows nothing of a submission, and takes one, once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gas.errors import ModelFailed, SandboxUnavailable
from gas.sandbox.base import Environment, Limits, ModelSpec, Sandbox, Tier
from gas.sandbox.inside import wire
from gas.sandbox.memory import InputMemory, sealed_file
from gas.sandbox.session import Session
from gas.sandbox.tree import Ended, Late, Overdrawn, Pipes, Start, Tree, printable

__all__ = ["Confinement", "Launcher", "Rung", "Waiting", "open_session", "open_waiting"]

_SETUP_SECONDS = 120.0
"""Wall clock for everything that is ours: name spaces, confinement, imports."""
_PATIENCE = 1.0


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


Launcher = Callable[[Start], Tree]
"""Starts a runner; what it starts owns the pipes from then on."""


def _settings(
    environment: Environment, confinement: Confinement, pipes: Pipes, memory: InputMemory, *, nonce: int
) -> bytes:
    """What a runner must know to confine itself and to wait."""
    limits = environment.limits
    resources = {
        # The driver of a card reserves address space by the hundred GiB; what is written to is counted then.
        "DATA" if environment.device == "cuda" else "AS": limits.memory_bytes,
        "CPU": limits.cpu_seconds,
        "FSIZE": limits.file_bytes,
        "NOFILE": limits.open_files,
    }
    if confinement.limit_processes:
        resources["NPROC"] = limits.processes
    return json.dumps(
        {
            "requests": pipes.requests_inside,
            "answers": pipes.answers_inside,
            "shared": memory.descriptor,
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
            "format": environment.format,
            "device": environment.device,
            "threads": environment.threads,
        }
    ).encode()


def _package(spec: ModelSpec, batch_size: int, selfcheck: dict[str, object] | None) -> bytes:
    """What a runner must know of its package.

    Raises:
        gas.errors.ModelFailed: ``spec.params`` are not plain JSON values.
        ValueError: A size is not positive, or a word unknown.
    """
    if spec.format not in {"onnx", "safetensors", "selfcheck"} or spec.input_dtype not in {"uint8", "float32"}:
        raise ValueError(f"Unknown format {spec.format!r} or dtype {spec.input_dtype!r}.")
    if min(batch_size, spec.num_classes, *spec.input_shape) < 1:
        raise ValueError("Batch size, classes and every axis of a sample must be at least 1.")
    try:
        return json.dumps(
            {
                "shared_bytes": _slot_bytes(spec, batch_size) * wire.SLOTS,
                "entry": spec.entry,
                "weights_file": spec.weights_file,
                "input_shape": spec.input_shape,
                "input_dtype": spec.input_dtype,
                "num_classes": spec.num_classes,
                "dtype": spec.dtype,
                "params": spec.params,
                "batch_size": batch_size,
                "selfcheck": selfcheck,
            },
            allow_nan=False,
        ).encode()
    except (TypeError, ValueError) as error:
        raise ModelFailed(
            "The parameters for load_model are not plain JSON values.", code="load_failed", hint=str(error)
        ) from error


def _slot_bytes(spec: ModelSpec, batch_size: int) -> int:
    return batch_size * math.prod(spec.input_shape) * np.dtype(spec.input_dtype).itemsize


class Waiting:
    """A runner that confines itself, or is confined already, and waits for its one package.

    Made by :func:`open_waiting`. The thread that made it must live as long as it and its session.

    Attributes:
        environment: What it was made for.
    """

    def __init__(
        self, tree: Tree, memory: InputMemory, environment: Environment, *, tier: Tier, nonce: int, deadline: float
    ) -> None:
        self.environment = environment
        self._tree, self._memory, self._tier, self._nonce = tree, memory, tier, nonce
        self._deadline = deadline
        self._mine = True

    @property
    def pid(self) -> int:
        """Process id of the tree's outermost process."""
        return self._tree.pid

    @property
    def is_settled(self) -> bool:
        """Whether every restriction is in force and every import done: only its package is missing."""
        return self._mine and self._tree.has_unread_answers()

    def begin(
        self,
        spec: ModelSpec,
        *,
        batch_size: int,
        limits: Limits,
        selfcheck: dict[str, object] | None = None,
        release: Callable[[bool], None] = lambda _: None,
    ) -> Session:
        """Give it its package, once; the model is loaded by :meth:`Session.load`.

        The package's files must lie where the runner looks for them. Whatever is raised, the runner is gone then.

        Args:
            spec: What to load; of the format and device that the runner was made for.
            batch_size: Most samples a batch will have.
            limits: For the wall clocks; the others were settled when the runner was made.
            selfcheck: For the format ``"selfcheck"``.
            release: As for :class:`gas.sandbox.session.Session`; not called when this method raises.

        Raises:
            gas.errors.SandboxUnavailable: The runner could not be confined, or has died since.
            gas.errors.ModelFailed: ``spec.params`` can't be handed over.
            ValueError: A size is not positive, the spec is of another environment, or this runner has its package.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            if not self._mine or Environment.of(spec, limits, self.environment.threads) != self.environment:
                raise ValueError("This runner was made for something else, or has its package.")
            text = _package(spec, batch_size, selfcheck)
            # One that has waited long has said it long ago.
            self._expect(wire.CONFINED, max(self._deadline, time.monotonic() + _PATIENCE))
            deadline = time.monotonic() + _SETUP_SECONDS
            self._memory.allocate(_slot_bytes(spec, batch_size), wire.SLOTS)
            try:
                self._tree.send(wire.REQUEST.pack(wire.LOAD, len(text), self._nonce, 0) + text, deadline)
            except (Late, Overdrawn, Ended) as error:
                raise SandboxUnavailable("The runner takes no package.", hint=self._tree.tail or None) from error
            self._expect(wire.BEGUN, deadline)
            undo.pop_all()
        self._mine = False
        return Session(
            self._tree, self._memory, spec,
            tier=self._tier, batch_size=batch_size, limits=limits, nonce=self._nonce, release=release,
        )  # fmt: skip

    def close(self) -> None:
        """Kill the tree, unless it has become a session's; may be called twice."""
        if self._mine:
            self._mine = False
            self._tree.kill()
            self._memory.close()

    def _expect(self, expected: bytes, deadline: float) -> None:
        """Wait for a frame of the trusted runner."""
        try:
            kind, size, echoed = wire.HEADER.unpack(self._tree.receive(wire.HEADER.size, deadline))
            if kind == wire.FAILED and size <= wire.MAX_PAYLOAD:
                _, text = wire.unpack_failure(self._tree.receive(size, deadline))
                raise SandboxUnavailable(f"The runner could not confine itself: {printable(text)}")
            if kind != expected or echoed != self._nonce or size:
                raise SandboxUnavailable("The runner answered with an unknown frame.")
        except (Late, Overdrawn) as error:
            raise SandboxUnavailable("The runner did not get ready in time.", hint=self._tree.tail or None) from error
        except Ended as error:
            self._tree.outcome()
            raise SandboxUnavailable(
                "The runner ended before it was confined.", hint=self._tree.tail or None
            ) from error


class Rung(Sandbox, Protocol):
    """A sandbox that can be started without a package."""

    def wait(self, environment: Environment, folder: Path) -> Waiting:
        """Start a runner that is given its package later; it confines itself while the caller goes on.

        Args:
            environment: What it is for.
            folder: Empty; the package's files are put there before it is given its package. Read-only inside.

        Raises:
            gas.errors.SandboxUnavailable: The isolation could not be set up.
        """
        ...


def open_waiting(environment: Environment, confinement: Confinement, launch: Launcher, *, tier: Tier) -> Waiting:
    """Start a runner without a package; it may still be confining itself and importing when this returns.

    Args:
        environment: What it is for.
        confinement: What the rung asks of it.
        launch: Starts it.
        tier: The rung.

    Raises:
        gas.errors.SandboxUnavailable: It could not be started.
        ValueError: The number of threads is not positive.
    """
    if environment.threads < 1:
        raise ValueError("The number of threads must be at least 1.")
    deadline = time.monotonic() + _SETUP_SECONDS
    # Unpredictable to the model, so not one of the draws that a round derives from its seed.
    nonce = secrets.randbits(64)
    with contextlib.ExitStack() as undo:
        try:
            memory = InputMemory()
            undo.callback(memory.close)
            pipes = Pipes()
            undo.callback(pipes.close)
            text = _settings(environment, confinement, pipes, memory, nonce=nonce)
            settings = sealed_file("settings", text)
            try:
                tree = launch(Start(pipes, memory.descriptor, settings, deadline))
            finally:
                os.close(settings)
        except OSError as error:
            raise SandboxUnavailable(f"The sandbox could not be started: {error.strerror}.") from error
        undo.pop_all()
    return Waiting(tree, memory, environment, tier=tier, nonce=nonce, deadline=deadline)


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
    """Start a runner for one package and wait until it is confined; the model is not loaded yet.

    Raises:
        gas.errors.SandboxUnavailable: Anything went wrong: up to here, everything is ours.
        gas.errors.ModelFailed: ``spec.params`` can't be handed over.
        ValueError: ``batch_size``, ``threads`` or the spec's shape is not positive, or a word is unknown.
    """
    _package(spec, batch_size, selfcheck)  # refused before anything is started
    environment = Environment.of(spec, limits, threads)
    waiting = open_waiting(environment, confinement, launch, tier=tier)
    return waiting.begin(spec, batch_size=batch_size, limits=limits, selfcheck=selfcheck)
