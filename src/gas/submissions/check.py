"""All static checks of a package, in one fixed order, before anything of it runs.

Covered: see the modules for archives, code, weights, ONNX files and configuration. Not covered: what a model does
when it runs; **the sandbox is the boundary**.

Who may fail: what an author did wrong is a :class:`gas.errors.Reason` in the report, and never an exception; what we
can't do (a disk that is full, a file that can't be read) is a :class:`gas.errors.InfrastructureError`.
"""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gas.errors import InfrastructureError, PackageRejected, Reason
from gas.submissions.archive import Listing, check_sum, expected_name, extract, inspect_archive, is_stored
from gas.submissions.code import check_code
from gas.submissions.fingerprint import (
    Fingerprint,
    code_sha256,
    file_sha256,
    onnx_weights,
    tensor_weights,
)
from gas.submissions.limits import Limits
from gas.submissions.lookup import lookup_in_weights
from gas.submissions.onnx_check import check_onnx
from gas.submissions.package import CODE, CONFIG, EXTRA_CONFIG, Package, layout, onnx_package, read_config
from gas.submissions.parts import Part
from gas.submissions.sketch import TensorSketch
from gas.submissions.weights import check_weights, read_header
from gas.types import Modality

__all__ = ["CheckReport", "check"]

_IGNORED_FOLDERS: Final = frozenset({"__pycache__"})


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What the static checks found.

    Attributes:
        reasons: Every finding, sorted by file, line and code; empty for a clean package.
        package: What the package says about itself; None when there are reasons.
        fingerprint: What it is compared by; parts that could not be read are None.
    """

    reasons: tuple[Reason, ...]
    package: Package | None
    fingerprint: Fingerprint

    @property
    def ok(self) -> bool:
        """Whether the package is clean."""
        return not self.reasons

    @property
    def hashes(self) -> dict[str, str | None]:
        """Exact hashes of the archive, the weights and the code."""
        return self.fingerprint.hashes()

    def require(self) -> Package:
        """The package, when it is clean.

        Raises:
            gas.errors.PackageRejected: It isn't; carries every reason.
        """
        if self.package is None or self.reasons:
            raise PackageRejected(self.reasons)
        return self.package

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "state": "clean" if self.ok else "refused",
            "reasons": [reason.as_dict() for reason in self.reasons],
            "package": self.package.as_dict() if self.package else None,
            "hashes": self.hashes,
        }


def check(
    path: Path, limits: Limits | None = None, *, modality: Modality | None = None, workdir: Path | None = None
) -> CheckReport:
    """Check a package without running anything of it.

    Args:
        path: A zip file, or the folder that one would be made of.
        limits: What a package may measure.
        modality: The modality that it is pushed for; None takes any.
        workdir: Where to unpack; the system's folder for temporary files when None. Nothing stays there.

    Raises:
        gas.errors.InfrastructureError: The check could not be made.
    """
    limits = limits or Limits()
    try:
        if path.is_dir():
            names, found = _folder(path)
            parts = {name: Part.of(path / name) for name in names}
            return _Check(parts, limits, modality, workdir).report(found)
        return _check_zip(path, limits, modality, workdir)
    except OSError as error:
        raise InfrastructureError(f"The package {path.name} can't be checked: {error.strerror}.") from error


def _check_zip(path: Path, limits: Limits, modality: Modality | None, workdir: Path | None) -> CheckReport:
    listing = inspect_archive(path, limits)
    # The hash of the archive, the checksums and the hash of the weights take the most; none needs another.
    with ThreadPoolExecutor(2, thread_name_prefix="archive") as pool:
        archive_hash = pool.submit(file_sha256, path)
        report = _check_listed(path, listing, limits, modality, workdir, pool)
        return replace(report, fingerprint=replace(report.fingerprint, archive_sha256=archive_hash.result()))


def _check_listed(
    path: Path, listing: Listing, limits: Limits, modality: Modality | None, workdir: Path | None, pool: Executor
) -> CheckReport:
    """The report on an archive whose structure is known, without the archive's own hash."""
    nothing = Fingerprint(None, None, None)
    if listing.broken:
        return CheckReport(_sorted(listing.reasons), None, nothing)
    folder = Path(tempfile.mkdtemp(prefix="gas-check-", dir=workdir))
    in_place = [entry for entry in listing.entries if is_stored(entry)]
    try:
        sums = [pool.submit(check_sum, path, entry) for entry in in_place]
        with path.open("rb") as file:
            extract(file, tuple(entry for entry in listing.entries if entry not in in_place), folder, limits)
        parts = {entry.name: Part(path, entry.data_offset, entry.size, entry.name) for entry in in_place}
        parts = {e.name: parts.get(e.name) or Part.of(folder / e.name) for e in listing.entries}
        report = _Check(parts, limits, modality, folder).report(list(listing.unexpected))
        for one in sums:
            one.result()
        return report
    except PackageRejected as rejected:
        return CheckReport(_sorted((*listing.unexpected, *rejected.reasons)), None, nothing)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(folder: Path) -> tuple[list[str], list[Reason]]:
    """Names of a folder's files that belong into a package, and findings about the others."""
    names, found = [], []
    for entry in sorted(folder.iterdir()):
        mode = entry.lstat().st_mode
        if stat.S_ISLNK(mode):
            found.append(Reason("link", "Links are not taken.", entry.name))
        elif stat.S_ISREG(mode) and expected_name(entry.name):
            names.append(entry.name)
        elif not entry.name.startswith(".") and entry.name not in _IGNORED_FOLDERS:
            found.append(Reason("unexpected_file", "This doesn't belong into a package: remove it.", entry.name))
    return names, found


def _sorted(reasons: tuple[Reason, ...] | list[Reason]) -> tuple[Reason, ...]:
    return tuple(sorted(set(reasons), key=lambda r: (r.file or "", r.line or 0, r.code, r.message)))


class _Check:
    """The checks of one package, whose files lie somewhere.

    Args:
        parts: Its files by name.
        limits: What they may measure.
        modality: The modality that it is pushed for; None takes any.
        scratch: Folder for files under way; the system's when None.
    """

    def __init__(
        self, parts: Mapping[str, Part], limits: Limits, modality: Modality | None, scratch: Path | None
    ) -> None:
        self.parts = parts
        self.limits = limits
        self.modality = modality
        self.scratch = scratch

    def report(self, found: list[Reason]) -> CheckReport:
        form = layout(self.parts)
        found = [*found, *form.reasons]
        if form.format == "onnx":
            package, prints = self.onnx(form.weights, found)
        else:
            package, prints = self.safetensors(form.weights, found)
        if package is not None and self.modality not in (None, package.modality):
            where = package.entry if package.format == "onnx" else CONFIG
            found.append(
                Reason("wrong_modality", f"The model is for {package.modality}, not for {self.modality}.", where)
            )
        return CheckReport(_sorted(found), None if found else package, prints)

    def onnx(self, name: str | None, found: list[Reason]) -> tuple[Package | None, Fingerprint]:
        prints = Fingerprint(None, None, None)
        if name is None:
            return None, prints
        report = check_onnx(self.parts[name], self.limits)
        found += report.reasons
        if report.model is None or report.file is None:
            return None, prints
        package, reasons = onnx_package(name, report.model)
        found += reasons
        weights_hash, sketches = onnx_weights(report.file)
        return package, Fingerprint(None, weights_hash, None, sketches)

    def safetensors(self, weights: str | None, found: list[Reason]) -> tuple[Package | None, Fingerprint]:
        package = code_hash = weights_hash = None
        sketches: tuple[TensorSketch, ...] = ()
        if CONFIG in self.parts:
            package, reasons = read_config(self.read(CONFIG, self.limits.config_bytes), weights, self.limits)
            found += reasons
        if CODE in self.parts:
            source = self.read(CODE, self.limits.source_bytes)
            found += check_code(source, CODE, self.limits)
            code_hash = code_sha256(source)
        if EXTRA_CONFIG in self.parts:
            found += self.extra_config()
        if weights is not None:
            part = self.parts[weights]
            reasons_of_weights = check_weights(part, self.limits, self.scratch)
            found += reasons_of_weights or lookup_in_weights(part, read_header(part, self.limits).tensors)
            if not reasons_of_weights:
                weights_hash, sketches = tensor_weights(part, self.limits)
        return package, Fingerprint(None, weights_hash, code_hash, sketches)

    def read(self, name: str, most: int) -> bytes:
        """At most one byte more than allowed: enough to see that it is too much."""
        with self.parts[name].open() as reader:
            return reader.read(0, most + 1)

    def extra_config(self) -> list[Reason]:
        data = self.read(EXTRA_CONFIG, self.limits.config_bytes)
        if len(data) > self.limits.config_bytes:
            return [Reason("json_too_large", f"Allowed are {self.limits.config_bytes} bytes.", EXTRA_CONFIG)]
        try:
            table = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return [Reason("json_broken", "This is no valid JSON.", EXTRA_CONFIG)]
        if not isinstance(table, dict):
            return [Reason("json_broken", "The file must hold a JSON object.", EXTRA_CONFIG)]
        if "auto_map" in table:
            return [Reason("remote_code", "auto_map may not be given: code from elsewhere is never run.", EXTRA_CONFIG)]
        return []
