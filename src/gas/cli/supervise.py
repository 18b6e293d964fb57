"""Services that outlive the terminal, without a service manager: start, stop, restart, status, logs.

Each service has a supervisor of its own (:mod:`gas.cli.supervisor`), a small process in a session of its own that
starts the service, starts it again with growing pauses when it ends by itself, and keeps its output in a log that is
rotated. Files in the state folder, for a service ``NAME``: ``NAME.lock`` (held while the supervisor lives),
``NAME.json`` (what is going on), ``NAME.spec.json`` (what to run; no secrets), ``NAME.log``, ``NAME.log.1`` ...
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gas.errors import ConfigurationError, InfrastructureError

__all__ = ["Supervised", "SupervisedStatus", "is_held", "process_start"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_START_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class SupervisedStatus:
    """What goes on with a service; times are seconds since the epoch.

    Attributes:
        state: ``stopped``, ``running``, ``waiting`` (to be started again after it ended by itself), or ``failed``
            (it ended with status 2, which says that starting again is no use).
        pid: The supervisor's; None when there is none.
        child_pid: The service's; None when it doesn't run.
        since: When this state began; None when nothing is known.
        restarts: How often the service was started again.
        last_exit: Exit status of its last end; negative for a signal; None when it never ended.
    """

    state: str
    pid: int | None = None
    child_pid: int | None = None
    since: float | None = None
    restarts: int = 0
    last_exit: int | None = None

    @property
    def running(self) -> bool:
        """Whether a supervisor looks after it."""
        return self.pid is not None

    def sentence(self) -> str:
        """For people: the state, the process, and how it fared."""
        parts = [self.state]
        if self.child_pid:
            parts.append(f"process {self.child_pid}")
        if self.restarts:
            parts.append(f"started again {self.restarts} times")
        if self.last_exit is not None:
            parts.append(f"last ended with status {self.last_exit}")
        return ", ".join(parts)


class Supervised:
    """One service under supervision.

    Args:
        name: Lower-case letters, digits, ``-`` and ``_``.
        command: What to run; absolute program first.
        state_dir: Where its files are.
        env: Variables over this process's own; may hold secrets, which no file repeats.
        cwd: Working folder of the service; this process's when left out.
        grace_seconds: How long a stop waits after SIGTERM before SIGKILL.

    Raises:
        ConfigurationError: The name is no name.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        state_dir: Path,
        env: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
        grace_seconds: float = 15.0,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError("A service's name consists of lower-case letters, digits, '-' and '_'.")
        self.name = name
        self.state_dir = state_dir
        self._command = list(command)
        self._env = dict(env or {})
        self._cwd = cwd or Path.cwd()
        self._grace = grace_seconds

    @property
    def log_path(self) -> Path:
        """File that its output goes to."""
        return self.state_dir / f"{self.name}.log"

    def start(self) -> SupervisedStatus:
        """Start the supervisor, and with it the service; returns when the service's process is there.

        Raises:
            ConfigurationError: ``already_running``, or the state folder can't be used.
            InfrastructureError: ``not_started``.
        """
        if self.status().state == "failed":
            # Its supervisor is on its way out.
            self._ended(_START_SECONDS)
        if is_held(self._path("lock")):
            raise ConfigurationError(f"{self.name} runs already.", code="already_running", hint="Restart or stop it.")
        spec = {"name": self.name, "command": self._command, "cwd": str(self._cwd), "grace_seconds": self._grace}
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path("json").unlink(missing_ok=True)
            _write_whole(self._path("spec.json"), json.dumps(spec))
            with self.log_path.open("ab") as log:
                # Returns at once: the supervisor leaves this process's family.
                subprocess.run(
                    [sys.executable, "-m", "gas.cli.supervisor", str(self.state_dir.resolve()), self.name],
                    env={**os.environ, **self._env},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    check=False,
                )
        except OSError as error:
            raise ConfigurationError(f"{self.state_dir} can't be used ({error.strerror}).", code="state_dir") from error
        end = time.monotonic() + _START_SECONDS
        while (status := self.status()).since is None:
            if time.monotonic() > end:
                hint = f"See {self.log_path}."
                raise InfrastructureError(f"{self.name} did not start.", code="not_started", hint=hint)
            time.sleep(_LOOK_SECONDS)
        return status

    def stop(self) -> bool:
        """Stop the service and its supervisor; whether there was something to stop.

        Raises:
            InfrastructureError: ``not_stopped``: even SIGKILL did not end it.
        """
        status = self.status()
        if not status.running:
            return False
        self._signal(status, signal.SIGTERM)
        if self._ended(self._grace + 5.0):
            return True
        status = self.status()
        for pid in (status.pid, status.child_pid):
            if pid is not None:
                _send(pid, signal.SIGKILL)
        if not self._ended(5.0):
            raise InfrastructureError(f"{self.name} did not stop.", code="not_stopped")
        return True

    def restart(self) -> SupervisedStatus:
        """Stop when it runs, and start; raises as the two."""
        self.stop()
        return self.start()

    def status(self) -> SupervisedStatus:
        """What goes on; never raises for files that are missing or damaged."""
        try:
            raw = json.loads(self._path("json").read_text())
        except (OSError, ValueError):
            raw = {}
        data: dict[str, Any] = raw if isinstance(raw, dict) else {}
        pid, started = data.get("pid"), data.get("started")
        alive = (
            is_held(self._path("lock")) and isinstance(pid, int) and started is not None
            and process_start(pid) == started
        )  # fmt: skip
        state = str(data.get("state", "stopped"))
        if not alive:
            state = state if state == "failed" else "stopped"
        return SupervisedStatus(
            state=state,
            pid=pid if alive else None,
            child_pid=data.get("child_pid") if alive else None,
            since=data.get("since"),
            restarts=int(data.get("restarts", 0)),
            last_exit=data.get("last_exit"),
        )

    def logs(self, lines: int = 100) -> list[str]:
        """The last lines of its output, also from files that were rotated away."""
        kept: deque[str] = deque(maxlen=lines)
        for number in range(9, -1, -1):
            path = self.log_path if number == 0 else self.log_path.with_name(f"{self.log_path.name}.{number}")
            try:
                with path.open(errors="replace") as file:
                    kept.extend(line.rstrip("\n") for line in file)
            except FileNotFoundError:
                continue
        return list(kept)

    def follow(self) -> Iterator[str]:
        """Lines as they come, from now on, through rotations; ends only with its reader."""
        file = None
        try:
            while True:
                try:
                    if file is None:
                        file = self.log_path.open(errors="replace")
                        file.seek(0, os.SEEK_END)
                    line = file.readline()
                    if line:
                        yield line.rstrip("\n")
                        continue
                    if os.fstat(file.fileno()).st_ino != self.log_path.stat().st_ino:
                        file.close()
                        file = self.log_path.open(errors="replace")
                        continue
                except FileNotFoundError:
                    pass
                time.sleep(0.2)
        finally:
            if file is not None:
                file.close()

    def delete(self) -> bool:
        """Stop it and remove its files, the log included; whether there was something."""
        stopped = self.stop()
        found = [path for path in self.state_dir.glob(f"{self.name}.*") if self._is_ours(path)]
        for path in found:
            path.unlink(missing_ok=True)
        return stopped or bool(found)

    def _is_ours(self, path: Path) -> bool:
        rest = path.name.removeprefix(f"{self.name}.")
        return rest in ("lock", "json", "spec.json", "log") or re.fullmatch(r"log\.\d", rest) is not None

    def _path(self, ending: str) -> Path:
        return self.state_dir / f"{self.name}.{ending}"

    def _signal(self, status: SupervisedStatus, number: signal.Signals) -> None:
        if status.pid is not None:
            _send(status.pid, number)

    def _ended(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not is_held(self._path("lock")):
                return True
            time.sleep(_LOOK_SECONDS)
        return not is_held(self._path("lock"))


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on a file."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def process_start(pid: int) -> str | None:
    """When a process began, in the system's own words: with its number it names one process for good.

    Returns:
        None when there is no such process.
    """
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may itself hold spaces and parentheses.
            return stat.read_text(errors="replace").rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            return None
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _write_whole(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".part")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    aside.replace(path)
