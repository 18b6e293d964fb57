"""Make the zip of a package: the same folder gives the same bytes on every machine."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from gas.errors import InfrastructureError, PackageRejected, Reason
from gas.submissions.archive import expected_name
from gas.submissions.package import layout

__all__ = ["pack"]

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = (stat.S_IFREG | 0o644) << 16


def pack(folder: Path, out_zip: Path) -> tuple[str, ...]:
    """Write a folder's package files into a zip; other files of the folder are left out.

    Files are stored and not squeezed: weights hardly shrink, and compressors differ from version to version.

    Args:
        folder: Where the package lies.
        out_zip: File to write; replaced in one step when it exists.

    Returns:
        Names of the packed files, sorted.

    Raises:
        gas.errors.PackageRejected: The files don't make a package; ``out_zip`` is untouched.
        gas.errors.InfrastructureError: Reading or writing failed.
    """
    try:
        files = sorted(p for p in folder.iterdir() if expected_name(p.name))
        links = [Reason("link", "Links are not taken.", p.name) for p in files if not stat.S_ISREG(p.lstat().st_mode)]
        reasons = (*links, *layout([p.name for p in files]).reasons)
        if reasons:
            raise PackageRejected(reasons)
        with tempfile.NamedTemporaryFile(dir=out_zip.parent, prefix=".packing-", delete=False) as draft:
            stage = Path(draft.name)
        try:
            _write(files, stage)
            stage.chmod(0o644)
            stage.replace(out_zip)
        finally:
            stage.unlink(missing_ok=True)
    except OSError as error:
        raise InfrastructureError(f"The folder {folder.name} can't be packed: {error.strerror}.") from error
    return tuple(p.name for p in files)


def _write(files: list[Path], target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            info = zipfile.ZipInfo(path.name, _EPOCH)
            info.create_system = 3
            info.external_attr = _MODE
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as out:
                shutil.copyfileobj(source, out, 1 << 20)
