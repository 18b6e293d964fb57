"""Which packages are installed, in which versions: what a run says of itself, and what its caches depend on."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Final

from gas import __version__

__all__ = ["DECODERS", "installed"]

DECODERS: Final = (
    "av", "numpy", "opencv-python-headless", "pillow", "scipy", "simplejpeg", "soundfile", "soxr",
)  # fmt: skip
"""Packages that media go through before a model sees them."""


def installed(names: Iterable[str]) -> dict[str, str]:
    """Versions of this project and of those of some packages that are here, by the names of their distributions."""
    found = {"gas": __version__}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
