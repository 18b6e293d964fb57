"""Where locally made media go: a folder with one file a medium, its mask beside it, and a manifest that grows.

A line of ``manifest.jsonl`` is written after its file, so what it names is there. A run that was cut off goes on where
it stopped: jobs that the manifest names are not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from gas.errors import ConfigurationError, StorageError
from gas.generation.registry_run import LocalMedium, ModelUse

__all__ = ["MediaFolder"]

_MANIFEST: Final = "manifest.jsonl"
_USES: Final = "models.json"
_ENDINGS: Final = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "audio/wav": "wav",
}


class MediaFolder:
    """A folder of locally made media; used in a ``with`` statement by one process at a time.

    Args:
        folder: Made when it isn't there.

    Raises:
        ConfigurationError: It can't be written, or what it holds is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifest: TextIO | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._mend()
            self.done = frozenset(str(row["id"]) for row in self.rows() if (folder / str(row["file"])).is_file())
        except OSError as error:
            raise ConfigurationError(f"{folder} can't be used ({error.strerror}).", code="not_written") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._manifest is not None:
            self._manifest.close()

    def rows(self) -> list[dict[str, Any]]:
        """The manifest: one dictionary a medium, as :meth:`add` gives them.

        Raises:
            ConfigurationError: ``manifest_damaged``.
        """
        path = self.folder / _MANIFEST
        if not path.exists():
            return []
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
            if not all(isinstance(row, dict) and {"id", "file"} <= row.keys() for row in rows):
                raise ValueError("no such row")
        except ValueError as error:
            raise ConfigurationError(
                f"{path} is damaged.", code="manifest_damaged", hint="Move it away to begin anew."
            ) from error
        return rows

    def add(self, made: LocalMedium) -> dict[str, Any]:
        """Store a medium.

        Returns:
            Its row: file, hash, label, model, prompt, seed, parameters, source's hash, mask, seconds and memory.

        Raises:
            StorageError: The disk is full or can't be written.
        """
        medium, job = made.medium, made.job
        name = f"{made.model.name}/{job.id}"
        file = f"{name}.{_ENDINGS.get(medium.mime, 'bin')}"
        mask = f"{name}.mask.png" if medium.mask is not None else None
        row = {
            "id": job.id,
            "file": file,
            "mime": medium.mime,
            "sha256": hashlib.sha256(medium.data).hexdigest(),
            "bytes": len(medium.data),
            "modality": made.model.task.modality.value,
            "media_type": medium.media_type.value,
            "mask": mask,
            "task": made.model.task.value,
            "model": made.model.name,
            "made_by": medium.model,
            "tags": list(made.model.tags),
            "prompt": job.prompt,
            "seed": job.seed,
            "parameters": made.parameters,
            "source_sha256": made.source_sha256 or None,
            "seconds": round(made.seconds, 3),
            "batch": made.batch,
            "peak_bytes": made.peak_bytes,
        }
        try:
            (self.folder / made.model.name).mkdir(exist_ok=True)
            if mask is not None and medium.mask is not None:
                _replace(self.folder / mask, medium.mask)
            _replace(self.folder / file, medium.data)
            if self._manifest is None:
                self._manifest = (self.folder / _MANIFEST).open("a", encoding="utf-8")
            self._manifest.write(json.dumps(row) + "\n")
            self._manifest.flush()
        except OSError as error:
            raise StorageError(
                f"The medium could not be stored ({error.strerror}).", hint="Make room, and run the command again."
            ) from error
        return row

    def uses(self) -> dict[str, ModelUse]:
        """What earlier runs have learnt of each model; empty where that is missing or of another version."""
        known = {field.name for field in fields(ModelUse)}
        try:
            document = json.loads((self.folder / _USES).read_text(encoding="utf-8"))
            return {
                str(name): ModelUse(**{key: value for key, value in row.items() if key in known})
                for name, row in document.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def keep_uses(self, uses: dict[str, ModelUse]) -> None:
        """Store what running the models has cost.

        Raises:
            StorageError: The disk is full or can't be written.
        """
        text = json.dumps({name: asdict(use) for name, use in sorted(uses.items())}, indent=1)
        try:
            _replace(self.folder / _USES, text.encode())
        except OSError as error:
            raise StorageError(f"{_USES} could not be stored ({error.strerror}).") from error

    def _mend(self) -> None:
        """Cut off a last line that a kill has left half written."""
        path = self.folder / _MANIFEST
        if not path.exists():
            return
        with path.open("rb+") as file:
            data = file.read()
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".new")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
