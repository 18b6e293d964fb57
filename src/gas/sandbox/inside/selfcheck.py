"""A tiny program that tries to get out, run by the probe in place of a model.

A rung that starts but does not hold is worse than none: the probe believes only what was tried.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
from collections.abc import Callable
from typing import Any

__all__ = ["run"]


def run(task: dict[str, Any], memory: mmap.mmap) -> list[str]:
    """Try each way out.

    Args:
        task: ``port`` of a listener on the host's loopback, ``secret`` (path of a file that must not be
            readable), ``environment`` (name of a variable of the host).
        memory: The shared input, mapped read-only.

    Returns:
        One sentence for each thing that should have been refused and wasn't; empty when the rung holds.
    """
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("the host's loopback can be reached", lambda: _connect(int(task["port"]))),
        ("a socket can be made", lambda: socket.socket(socket.AF_UNIX).close()),
        ("a file of the host can be read", lambda: _read(task["secret"])),
        ("the host's /etc/passwd can be read", lambda: _read("/etc/passwd")),
        ("the host's /root can be listed", lambda: os.listdir("/root")),  # noqa: PTH208
        ("the root folder can be written", lambda: _write("/probe")),
        ("the interpreter's folder can be written", lambda: _write(os.path.dirname(os.__file__) + "/probe")),  # noqa: PTH120
        ("the model's folder can be written", lambda: _write(task["model_folder"] + "/probe")),
        ("kernel settings can be written", lambda: _open_for_writing("/proc/sys/kernel/core_pattern")),
        ("memory of the first process can be opened", lambda: _read("/proc/1/mem")),
        ("a process can be made", _fork),
        ("a program can be started", _exec),
        ("root's identity can be taken", lambda: os.setuid(0)),
        ("name spaces can be made", lambda: _unshare(0x10000000)),
        ("another process can be traced", lambda: _call("ptrace", 16, 1, None, None)),
    ]
    findings = [sentence for sentence, attempt in attempts if _succeeds(attempt)]
    if os.geteuid() == 0:
        findings.append("the runner is root")
    if task["environment"] in os.environ:
        findings.append("the host's environment is visible")
    if not _writes_to_tmp():
        findings.append("the private /tmp can't be written")
    if not _is_read_only(memory):
        findings.append("the input can be written")
    return findings


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _call(name: str, *args: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*args) < 0:
        raise OSError(ctypes.get_errno(), name)


def _unshare(flags: int) -> None:
    _call("unshare", flags)


def _connect(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        pass


def _read(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123
        file.read(1)


def _write(path: str) -> None:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"x")


def _open_for_writing(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def _exec() -> None:
    os.execv("/proc/self/exe", ["x", "-c", "pass"])  # noqa: S606


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _writes_to_tmp() -> bool:
    return _succeeds(lambda: _write("/tmp/probe"))  # noqa: S108


def _is_read_only(memory: mmap.mmap) -> bool:
    try:
        memory[0] = 1
    except TypeError:
        return True
    return False
