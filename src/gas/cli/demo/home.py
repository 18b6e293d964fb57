"""The demo's folder: who works in it, which steps are done, what they yielded."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gas.config import HomeSettings
from gas.errors import ConfigurationError

__all__ = ["DemoHome"]

_MARKER = "demo.json"
_FORMAT = 1


@dataclass(slots=True)
class DemoHome:
    """A demo's folder and its journal.

    The journal is written anew after each step, aside and renamed: a killed demo finds either the old or the new one.

    Attributes:
        path: The folder.
        seed: From which every draw of this demo derives.
        results: What each finished step yielded, plain JSON.
    """

    path: Path
    seed: int
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> HomeSettings:
        """Where the parts of a home lie."""
        return HomeSettings(home=self.path)

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return "outcome" in self.results

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, seed: int, fresh: bool) -> Iterator[DemoHome]:
        """Open a demo's folder for this process alone.

        Args:
            path: The folder; made when missing.
            seed: For a new demo; one that is resumed keeps its own.
            fresh: Throw an earlier demo away.

        Raises:
            ConfigurationError: Another demo is running there, or the folder holds something else.
        """
        if path.exists() and not path.is_dir():
            raise ConfigurationError(f"{path} is no folder.", hint="Name another one with --home.")
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("a")
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(
                    f"Another demo is running in {path}.", hint="Wait for it, or name another folder with --home."
                ) from error
            marker = path / _MARKER
            others = {entry.name for entry in path.iterdir()} - {".lock", _MARKER, f"{_MARKER}.new"}
            if others and not marker.exists():
                raise ConfigurationError(
                    f"{path} holds something that is not a demo's.", hint="Name an empty folder with --home."
                )
            if fresh and marker.exists():
                for entry in path.iterdir():
                    if entry.name in (".lock", _MARKER):
                        continue
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                marker.unlink()
            yield cls._load(path, seed)
        finally:
            lock.close()

    @classmethod
    def _load(cls, path: Path, seed: int) -> DemoHome:
        marker = path / _MARKER
        if not marker.exists():
            home = cls(path, seed)
            home.save()
            return home
        try:
            stored = json.loads(marker.read_text())
            if stored["format"] == _FORMAT:
                return cls(path, int(stored["seed"]), dict(stored["results"]))
        except (ValueError, KeyError, TypeError):
            pass
        raise ConfigurationError(
            f"{marker} is damaged or was written by another version.", hint="Begin anew with --fresh."
        )

    def done(self, step: str, result: Any) -> None:
        """Write down that a step is finished."""
        self.results[step] = result
        self.save()

    def save(self) -> None:
        """Write the journal."""
        aside = self.path / f"{_MARKER}.new"
        text = json.dumps({"format": _FORMAT, "seed": self.seed, "results": self.results})
        with aside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path / _MARKER)
