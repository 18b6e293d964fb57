"""Processes that leave nothing behind: a child dies with its parent, whatever kills the parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["PARENT_PID", "die_with_parent", "spawn", "stop"]

PARENT_PID = "GAS_PARENT_PID"
"""Environment variable with which :func:`spawn` tells a child who its parent is."""

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM at the death of the parent that :data:`PARENT_PID` names; else do nothing.

    Linux counts the *thread* that made the child as its parent: spawn long-lived children from the main thread.
    """
    expected = os.environ.pop(PARENT_PID, "")
    if not expected:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The parent may have died before the kernel was asked.
    if not expected.isdecimal() or os.getppid() != int(expected):
        raise SystemExit(1)


def spawn(args: Sequence[str], env: Mapping[str, str], log_path: Path) -> subprocess.Popen[bytes]:
    """Start ``gascli`` with arguments as a child that dies with this process.

    Args:
        args: Arguments after the program's name.
        env: Variables to be set over this process's own.
        log_path: File to which the child's output is appended.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gas.cli.main", *args],
            env={**os.environ, **env, PARENT_PID: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C reaches the parent alone, which then stops its children in order.
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], *, grace_seconds: float = 10.0) -> int:
    """End a child: SIGTERM, and SIGKILL when that does not help in time; returns its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
