"""The process that looks after one service: ``python -m gas.cli.supervisor STATE_DIR NAME``.

It is started by :class:`gas.cli.supervise.Supervised`. A service that ends by itself is started again after 1, 2, 4 ...
up to 60 seconds; one that ends with status 2 (wrong settings) is not, because nothing would change. SIGTERM stops the
service, after a grace time by SIGKILL.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from gas.cli.processes import PARENT_PID
from gas.cli.supervise import process_start

__all__ = ["RotatingLog", "Supervisor", "main"]

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_STEADY_SECONDS: Final = 60.0
_WRONG_SETTINGS: Final = 2
_LOG_BYTES: Final = 10 * 1024 * 1024
_LOG_FILES: Final = 4


class RotatingLog:
    """Appends to a file, which is renamed to ``.1``, ``.2`` ... when it has grown; a full disk loses lines only.

    Args:
        path: The file.
        max_bytes: Size from which a new one is begun.
        files: How many files there are at most.
    """

    def __init__(self, path: Path, *, max_bytes: int = _LOG_BYTES, files: int = _LOG_FILES) -> None:
        self._path = path
        self._max = max_bytes
        self._files = files
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        try:
            self._file.write(data)
            if self._file.tell() >= self._max:
                self._rotate()
        except OSError:
            # Nowhere to tell it; the service itself must go on.
            return

    def _rotate(self) -> None:
        for number in range(self._files - 2, -1, -1):
            old = self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")
            if old.exists():
                old.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._file.close()
        self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Supervisor:
    """Looks after one service until it is told to stop.

    Args:
        folder: The state folder.
        name: The service's.
    """

    def __init__(self, folder: Path, name: str) -> None:
        spec = json.loads((folder / f"{name}.spec.json").read_text())
        self._command: list[str] = [str(word) for word in spec["command"]]
        self._cwd = str(spec["cwd"])
        self._grace = float(spec["grace_seconds"])
        self._folder = folder
        self._name = name
        self._log = RotatingLog(folder / f"{name}.log")
        self._stopping = threading.Event()
        self._kill_at: float | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._last_exit: int | None = None

    def run(self) -> int:
        """Look after it; returns this process's exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            self._last_exit = self._run_once()
            if self._stopping.is_set():
                break
            self._say(f"ended with status {self._last_exit}")
            if self._last_exit == _WRONG_SETTINGS:
                self._note("failed")
                return _WRONG_SETTINGS
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            self._note("waiting")
            self._stopping.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            self._restarts += 1
        self._note("stopped")
        return 0

    def _run_once(self) -> int:
        try:
            child = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env={**os.environ, PARENT_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._say(f"can't be started: {error.strerror}")
            return _WRONG_SETTINGS
        self._child = child
        self._note("running")
        if self._stopping.is_set():
            child.terminate()
        pipe = child.stdout
        open_ = pipe is not None
        while child.poll() is None or open_:
            if open_ and pipe is not None:
                ready, _, _ = select.select([pipe], [], [], 0.2)
                if ready:
                    data = os.read(pipe.fileno(), 65536)
                    open_ = bool(data)
                    self._log.write(data)
                elif child.poll() is not None:
                    # A grandchild may hold the pipe open for longer.
                    open_ = False
            else:
                time.sleep(0.05)
            if self._kill_at is not None and time.monotonic() > self._kill_at and child.poll() is None:
                self._say("does not end: SIGKILL")
                child.kill()
                self._kill_at = None
        if pipe is not None:
            pipe.close()
        self._child = None
        return child.wait()

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stopping.set()
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace
        child = self._child
        if child is not None and child.poll() is None:
            child.terminate()

    def _say(self, what: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._log.write(f"{stamp} supervisor: {self._name} {what}\n".encode())

    def _note(self, state: str) -> None:
        data = {
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "child_pid": self._child.pid if self._child is not None else None,
            "state": state,
            "since": time.time(),
            "restarts": self._restarts,
            "last_exit": self._last_exit,
        }
        path = self._folder / f"{self._name}.json"
        aside = path.with_name(path.name + ".part")
        try:
            aside.write_text(json.dumps(data))
            aside.replace(path)
        except OSError as error:
            self._say(f"its state can't be noted: {error.strerror}")


def main(arguments: list[str]) -> int:
    """Supervise; returns the exit status: 0 stopped, 2 the service's settings are wrong, 3 another one does it.

    The caller's child ends at once with status 0; the supervisor is its child, which nobody has to wait for.
    """
    folder, name = Path(arguments[0]), arguments[1]
    if os.fork():
        os._exit(0)
    handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    for _attempt in range(20):
        try:
            # Whoever asks for the status holds the lock for a moment too.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
        else:
            return Supervisor(folder, name).run()
    return 3


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
