"""The demo's real material: photos from installed packages, split before anybody sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gas.cli.demo.cast import GENERATORS
from gas.cli.demo.home import DemoHome
from gas.datasets.photos import SPLIT_SEED, Photo, PhotoLibrary, Split, gather
from gas.datasets.sources.packages import default_material_dir
from gas.errors import ConfigurationError
from gas.generation.library import export_library

__all__ = ["collect", "library_folder", "photos_of"]

_MIN_PHOTOS: Final = 200
_MIN_PACKAGES: Final = 3


def collect(home: DemoHome, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Gather, split, and give each generator's operator a library of photos.

    Args:
        home: Where the libraries go.
        report: Told how many files of how many are decoded.

    Returns:
        ``{"photos": {split: [photo ...]}, "packages", "licences", "dropped"}``

    Raises:
        ConfigurationError: There are fewer than 200 photos, or they come from fewer than three packages.
    """
    gathered = gather(default_material_dir(), lambda _step, done, total: report(done, total))
    if len(gathered.photos) < _MIN_PHOTOS or len(gathered.packages) < _MIN_PACKAGES:
        raise ConfigurationError(
            f"Only {len(gathered.photos)} photos from {len(gathered.packages)} packages are on this machine.",
            hint="Run gascli data fetch.",
        )
    parts = gathered.split(SPLIT_SEED)
    for index, member in enumerate(GENERATORS):
        export_library(parts["library"][index :: len(GENERATORS)], library_folder(home, member.name))
    return {
        "photos": {name: [_stored(photo) for photo in photos] for name, photos in parts.items()},
        "packages": gathered.packages,
        "licences": gathered.licences,
        "dropped": dict(gathered.dropped),
        "counts": _counts(gathered, parts),
    }


def library_folder(home: DemoHome, member: str) -> Path:
    """Folder of an operator's own photos."""
    return home.path / "libraries" / member


def photos_of(home: DemoHome, split: Split) -> list[dict[str, Any]]:
    """The photos of a split, as the journal keeps them."""
    return list(home.results["photos"]["photos"][split])


def _stored(photo: Photo) -> dict[str, Any]:
    return {
        "sha256": photo.sha256,
        "path": str(photo.path),
        "package": photo.package,
        "category": photo.category,
    }


def _counts(gathered: PhotoLibrary, parts: dict[Split, tuple[Photo, ...]]) -> dict[str, dict[str, int]]:
    def by_package(photos: Sequence[Photo]) -> dict[str, int]:
        return {name: sum(photo.package == name for photo in photos) for name in gathered.packages}

    return {name: by_package(photos) for name, photos in parts.items()}
