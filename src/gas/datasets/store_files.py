"""How the data store lies on disk: folders, locks, manifests, and the journal of a fetch that isn't done."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from sys import intern
from typing import Any, Final

from pydantic import ValidationError

from gas.datasets.entries import DatasetEntry
from gas.datasets.sources.base import RemoteFile
from gas.errors import ConfigurationError, StorageError

__all__ = ["FileRecord", "Journal", "Layout", "SetManifest", "locked", "part_name", "write_aside"]

_FORMAT: Final = 1
_WORD: Final = 24
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class SetManifest:
    """What is known about a data set that was fetched whole.

    Attributes:
        entry: The registry's entry that it was fetched by.
        revision: Of the source, resolved.
        items: Media.
        rejected: Media that were set aside.
        bytes: Of all media, as published.
        content_hash: Hex SHA-256 over the rows; the same on every machine and in whatever order files came.
        table_sha256: Hex SHA-256 of the table's file.
        fetched_at: Seconds since the epoch.
        last_used: When it was last read for a plan, seconds since the epoch.
    """

    entry: DatasetEntry
    revision: str
    items: int
    rejected: int
    bytes: int
    content_hash: str
    table_sha256: str
    fetched_at: float
    last_used: float

    def to_json(self) -> str:
        """The manifest's file."""
        fields = {**{name: getattr(self, name) for name in _PLAIN}, "format": _FORMAT, "entry": self.entry.as_dict()}
        return json.dumps({**fields, "entry_hash": self.entry.digest}, indent=1, sort_keys=True) + "\n"


_PLAIN: Final = (
    "revision", "items", "rejected", "bytes", "content_hash", "table_sha256", "fetched_at", "last_used",
)  # fmt: skip


class Layout:
    """Paths of a store.

    ``blobs/`` media; ``sets/NAME/`` complete sets; ``fetching/NAME/`` those under way; ``released/``; ``locks/``.

    Args:
        root: Folder of the store; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.registry = root / "registry.yaml"

    def set_folder(self, name: str) -> Path:
        """Of a complete set."""
        return self.root / "sets" / _checked(name)

    def fetching(self, name: str) -> Path:
        """Of a set under way."""
        return self.root / "fetching" / _checked(name)

    def lock_of(self, name: str) -> Path:
        """Held by whoever changes the set."""
        return self.root / "locks" / f"set-{_checked(name)}"

    def released(self, name: str) -> Path:
        """There once a holdout has become public; outlives the set, for what is known can't be unknown."""
        return self.root / "released" / _checked(name)

    @property
    def store_lock(self) -> Path:
        """Held shared while blobs are put and written down, exclusively while blobs are deleted."""
        return self.root / "locks" / "store"

    def names(self) -> tuple[str, ...]:
        """Complete sets."""
        folder = self.root / "sets"
        if not folder.is_dir():
            return ()
        for aside in folder.glob(".*.new"):
            self._recover(aside)
        return tuple(sorted(p.name for p in folder.iterdir() if (p / "manifest.json").exists() and p.name[0] != "."))

    def under_way(self) -> tuple[str, ...]:
        """Sets whose fetch has begun and not ended."""
        folder = self.root / "fetching"
        return tuple(sorted(p.name for p in folder.iterdir() if _NAME.fullmatch(p.name))) if folder.is_dir() else ()

    def manifest(self, name: str) -> SetManifest:
        """Of a complete set.

        Raises:
            ConfigurationError: ``not_fetched``.
            StorageError: The manifest is broken.
        """
        folder = self.set_folder(name)
        aside = folder.with_name(f".{name}.new")
        if aside.exists():
            self._recover(aside)
        try:
            found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"The data set {name} is not here.", code="not_fetched", hint=f"Run `gascli data fetch {name}`."
            ) from error
        except (OSError, ValueError) as error:
            raise _broken(name) from error
        try:
            if found["format"] != _FORMAT:
                raise _broken(name)
            fields = {field: found[field] for field in _PLAIN}
            used = folder / "used"
            if used.exists():
                fields["last_used"] = max(fields["last_used"], float(used.read_text(encoding="ascii")))
            return SetManifest(entry=DatasetEntry.model_validate(found["entry"]), **fields)
        except (OSError, KeyError, TypeError, ValueError, ValidationError) as error:
            raise _broken(name) from error

    def publish(self, name: str, files: Mapping[str, Path], manifest: SetManifest) -> None:
        """Make a set complete: its files first, the manifest last, in one step for readers.

        Args:
            name: Of the set.
            files: Name in the set's folder -> where the file lies now; it stays there, too.
            manifest: Of the set.

        Raises:
            StorageError: The disk is full or can't be written.
        """
        folder = self.set_folder(name)
        aside = folder.with_name(f".{name}.new")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            for target, path in files.items():
                _link(path, aside / target)
            write_aside(aside / "manifest.json", manifest.to_json())
            self._recover(aside)
        except OSError as error:
            raise StorageError(f"The data set {name} could not be written ({error.strerror}).", hint=_FULL) from error

    def _recover(self, aside: Path) -> None:
        """Put a finished new folder in the place of the old one, also after a kill between the two steps."""
        name = aside.name[1:].removesuffix(".new")
        if not (aside / "manifest.json").exists() or not _NAME.fullmatch(name):
            return
        target = aside.with_name(name)
        old = aside.with_name(f".{name}.old")
        try:
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                target.replace(old)
            aside.replace(target)
        except FileNotFoundError:
            return  # Somebody else was faster.
        shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of the source that was read to its end.

    Attributes:
        file: As the source listed it.
        rows: One list a medium, in the order of the file; see :class:`gas.datasets.store_rows.Row`.
        rejected: Index, path, code and message of each medium that was set aside.
    """

    file: RemoteFile
    rows: Sequence[Any]
    rejected: list[tuple[int, str, str, str]]


class Journal:
    """Which files of a fetch are done, one line each; survives a kill at any byte.

    Args:
        path: Its file.
        digest: Of the entry; a journal of another entry is begun anew.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self._path = path
        self._digest = digest
        self._writing = threading.Lock()

    def read(self) -> Iterator[FileRecord]:
        """The files that are done; what was cut off by a kill is removed first."""
        try:
            with self._path.open("rb") as file:
                good = 0
                for number, line in enumerate(file):
                    record = _line(line, self._digest, number)
                    if record is False:
                        break
                    good += len(line)
                    if isinstance(record, FileRecord):
                        yield record
            if good != self._path.stat().st_size:
                os.truncate(self._path, good)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"A fetch's journal can't be read ({error.strerror}).") from error

    def peek(self) -> Iterator[FileRecord]:
        """The files that are done, by whichever entry; the file stays as it is, for somebody may be writing it."""
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file):
                    record = _line(line, "", number) if number else True
                    if record is False:
                        return
                    if isinstance(record, FileRecord):
                        yield record
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"A fetch's journal can't be read ({error.strerror}).") from error

    def append(self, record: FileRecord) -> None:
        """Write a file down as done, durably; may be called from several threads.

        Raises:
            StorageError: The disk is full or can't be written; nothing of the line stays.
        """
        line = json.dumps(
            {"file": asdict(record.file), "rows": record.rows, "rejected": record.rejected}, separators=(",", ":")
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing, self._path.open("ab") as file:
                at = file.tell()
                try:
                    if at == 0:
                        file.write(json.dumps({"entry": self._digest}).encode() + b"\n")
                    file.write(line.encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self._path, at)
                    raise
        except OSError as error:
            raise StorageError(f"A fetch's journal can't be written ({error.strerror}).", hint=_FULL) from error


_FULL: Final = "Is the disk full? What was fetched is kept: run it again to go on."


def _line(line: bytes, digest: str, number: int) -> FileRecord | bool:
    """A journal's line: a record, True for a good header, False where the journal ends."""
    if not line.endswith(b"\n"):
        return False
    try:
        found = json.loads(line)
        if number == 0:
            return bool(found["entry"] == digest)
        # Each copy of a word that a million rows share would take memory; and the collector of cycles has to look at
        # lists time and again, but not at tuples of plain values.
        rows = [tuple(intern(v) if type(v) is str and len(v) < _WORD else v for v in row) for row in found["rows"]]
        return FileRecord(RemoteFile(**found["file"]), rows, found["rejected"])
    except (ValueError, KeyError, TypeError):
        return False


@contextmanager
def locked(
    path: Path, *, shared: bool = False, wait: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a lock among processes and threads; the system lets it go when its holder dies.

    Args:
        path: The lock's file.
        shared: Together with others who hold it shared.
        wait: Until it is free.
        on_wait: Told before waiting.

    Raises:
        StorageError: ``busy``: somebody holds it and ``wait`` is off; or the file can't be made.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise StorageError(f"The data store can't be written ({error.strerror}).") from error
    with file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise StorageError(
                    "Somebody else is changing this data set.", code="busy", hint="Wait until they are done."
                ) from error
            if on_wait:
                on_wait()
            fcntl.flock(file, kind)
        yield


def write_aside(path: Path, text: str) -> None:
    """Write a file so that readers see the old one or the new one, also after a crash."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _link(path: Path, target: Path) -> None:
    try:
        target.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def part_name(file: RemoteFile) -> str:
    """Name of an unfinished file; another version of the same path has another one."""
    text = json.dumps([file.path, file.size, file.sha256, file.version])
    return hashlib.sha256(text.encode()).hexdigest()[:40] + ".part"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name[:100]!r} can't be the name of a data set.", code="set_name")
    return name


def _broken(name: str) -> StorageError:
    return StorageError(
        f"The manifest of the data set {name} is broken.", hint=f"Run `gascli data fetch {name} --refresh`."
    )
