"""Real photos: gathered from the registry's sources, filtered, de-duplicated and split.

Each file is decoded once. What is not a photo (drawings, screenshots, blank cards) or too small is dropped by
:func:`judge`, which measures the pixels instead of trusting names. Copies are found by the exact and by the
perceptual hash. The split is by photo: whatever is derived from a photo (a crop, a resynthesis, a near
duplicate) is on the same side of it as the photo itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

import cv2
import numpy as np

from gas.clock import derive_seed
from gas.datasets.registry import Registry, builtin_registry
from gas.datasets.sources.packages import FetchedFile, files_of
from gas.errors import ConfigurationError, MediaRejected
from gas.media.hashing import hamming_matrix, perceptual_hash, pixel_sha256, thumbnail
from gas.media.image import RGB, decode_image
from gas.types import MediaType, Modality

__all__ = ["SPLITS", "SPLIT_SEED", "Photo", "PhotoLibrary", "Split", "gather", "judge", "split_photos"]

Split = Literal["train", "library", "public", "holdout"]
"""``train``: authors learn from them. ``library``: generator operators start from them. ``public``: the round's
public reals and the entrance exam. ``holdout``: no author and no generator has seen them."""

SPLITS: Final[dict[Split, float]] = {"train": 0.4, "library": 0.2, "public": 0.2, "holdout": 0.2}
"""Share of the photos that each split gets."""

SPLIT_SEED: Final = 0
"""Seed of the published split: what ships trained was trained on its ``train`` part."""

MIN_SIDE: Final = 160
"""Smaller side that a photo must have, pixels; a round's media are never enlarged much beyond it."""

DUPLICATE_BITS: Final = 6
"""Two photos whose perceptual hashes differ in at most so many of 64 bits are one photo."""

RELATED_BITS: Final = 12
"""Up to so many bits two photos stay in one split: another crop, another exposure of the same scene."""

_Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Photo:
    """One distinct real photo on this machine.

    Attributes:
        sha256: Hex SHA-256 of its shape and pixels; its identity, and the ``origin`` of what derives from it.
        phash: Perceptual hash, in [0, 2**64).
        path: The file.
        relative: The file's path inside its package.
        package: Name of the data set it comes from; a stratum of the split, a cluster of the bootstrap.
        licence: SPDX expression of the package.
        width: Pixels, as displayed.
        height: Pixels, as displayed.
        category: Coarse word for what it shows: portrait, people, food, scene, object, animal, other.
        group: Photos of one group are related and never straddle a split; the sha256 of one of them.
    """

    sha256: str
    phash: int
    path: Path
    relative: str
    package: str
    licence: str
    width: int
    height: int
    category: str
    group: str

    def decode(self) -> RGB:
        """The photo's pixels: uint8, (height, width, 3).

        Raises:
            MediaRejected: The file changed since it was gathered.
        """
        try:
            return decode_image(self.path.read_bytes())
        except OSError as error:
            raise MediaRejected(f"The photo {self.relative} can't be read any more.", code="undecodable") from error


@dataclass(frozen=True, slots=True)
class PhotoLibrary:
    """All distinct photos, and why the other files are not among them.

    Attributes:
        photos: In the order of their sha256.
        dropped: Files by reason: ``undecodable``, ``too_large``, ``unsupported``, ``too_small``, ``flat``,
            ``few_colours``, ``duplicate``.
        dropped_files: Reason of each file that was dropped, by ``dataset/relative path``.
    """

    photos: tuple[Photo, ...]
    dropped: Mapping[str, int]
    dropped_files: Mapping[str, str]

    @property
    def packages(self) -> dict[str, int]:
        """Number of photos of each package."""
        return dict(sorted(Counter(photo.package for photo in self.photos).items()))

    @property
    def licences(self) -> dict[str, str]:
        """Licence of each package."""
        return {photo.package: photo.licence for photo in sorted(self.photos, key=lambda p: p.package)}

    def split(self, seed: int, shares: Mapping[Split, float] = SPLITS) -> dict[Split, tuple[Photo, ...]]:
        """See :func:`split_photos`."""
        return split_photos(self.photos, seed, shares)


def judge(rgb: RGB) -> str | None:
    """Why a picture is not a usable photo, or None.

    Measured on a thumbnail of 128 pixels, which lets JPEG noise vanish:

    - ``too_small``: the smaller side is below :data:`MIN_SIDE`.
    - ``flat``: more than 72 % of the pixels hardly differ from their neighbours (a brightness gradient below
      1.5 levels a pixel): cards, icons, small cut-outs on a blank ground.
    - ``few_colours``: fewer than 100 of the 4,096 colours of 4 bits a channel: drawings and logos.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        return "too_small"
    return _judge_thumbnail(thumbnail(rgb))


def gather(
    material_dir: Path,
    on_progress: _Progress | None = None,
    *,
    registry: Registry | None = None,
    workers: int = 2,
) -> PhotoLibrary:
    """Decode every photo of the registry once and keep the distinct ones.

    Args:
        material_dir: Where ``gascli data fetch`` put the packages.
        on_progress: Told the step, how many files are done and how many there are.
        registry: Which data sets; the built-in one when left out.
        workers: Decoding threads.

    Returns:
        The library; the same on every machine with the same packages.

    Raises:
        ConfigurationError: The material was not fetched, or holds no photo at all.
    """
    files = [
        (entry, file)
        for entry in (registry or builtin_registry()).datasets
        if entry.modality is Modality.IMAGE and entry.media_type is MediaType.REAL
        for file in files_of(entry, material_dir)
    ]
    dropped: dict[str, str] = {}
    found: list[Photo] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for done, ((entry, file), result) in enumerate(
            zip(files, pool.map(lambda item: _look(item[1]), files), strict=True), start=1
        ):
            if on_progress:
                on_progress("decoding photos", done, len(files))
            if isinstance(result, str):
                dropped[f"{entry.name}/{file.relative}"] = result
            else:
                sha256, phash, width, height = result
                found.append(
                    Photo(
                        sha256=sha256,
                        phash=phash,
                        path=file.path,
                        relative=file.relative,
                        package=entry.name,
                        licence=entry.licence,
                        width=width,
                        height=height,
                        category=entry.category(file.relative),
                        group=f"{entry.name}/{entry.series_of(file.relative)}",
                    )
                )
    photos = _distinct(found, dropped)
    if not photos:
        raise ConfigurationError("There is no photo in the material folder.", code="material_missing")
    return PhotoLibrary(photos, dict(sorted(Counter(dropped.values()).items())), dict(sorted(dropped.items())))


def split_photos(
    photos: Iterable[Photo], seed: int, shares: Mapping[Split, float] = SPLITS
) -> dict[Split, tuple[Photo, ...]]:
    """Divide photos among the splits, package by package.

    Groups of related photos are dealt out whole, in an order drawn from the seed and the group's hash, each to
    the split that is furthest behind its share of the package. Groups that span packages count for the package
    of their first photo.

    Args:
        photos: Distinct photos.
        seed: Of the round.
        shares: Must sum to 1.

    Returns:
        Every photo in exactly one split, in the order of sha256.

    Raises:
        ConfigurationError: The shares don't sum to 1 or one is negative.
    """
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) < 0:
        raise ConfigurationError("The shares of the splits must sum to 1.")
    groups: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted(photos, key=lambda p: p.sha256):
        groups[photo.group].append(photo)
    strata: dict[str, list[list[Photo]]] = defaultdict(list)
    for group in groups.values():
        strata[group[0].package].append(group)
    names = [name for name in get_args(Split) if name in shares]
    out: dict[Split, list[Photo]] = {name: [] for name in names}
    for package in sorted(strata):
        given = dict.fromkeys(names, 0)
        for group in sorted(strata[package], key=lambda g: derive_seed(seed, "split", g[0].group)):
            total = sum(given.values()) + len(group)
            # Ties, as at the first photo of a package, are broken by the seed: small packages reach every split.
            best = max(
                (name for name in names if shares[name] > 0),
                key=lambda name: (
                    round(shares[name] * total - given[name], 9),
                    derive_seed(seed, "tie", package, str(name)),
                ),
            )
            given[best] += len(group)
            out[best].extend(group)
    return {name: tuple(sorted(members, key=lambda p: p.sha256)) for name, members in out.items()}


def _judge_thumbnail(small: RGB) -> str | None:
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8
    if float((gradient < 1.5).mean()) > 0.72:
        return "flat"
    codes = (small.astype(np.int32) >> 4) @ np.array([256, 16, 1])
    tones = len(np.unique(grey.astype(np.uint8)))
    if len(np.unique(codes)) < 100 and tones < 100:
        return "few_colours"
    return None


def _look(file: FetchedFile) -> tuple[str, int, int, int] | str:
    try:
        rgb = decode_image(file.path.read_bytes())
    except MediaRejected as error:
        return error.error_code
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        return "too_small"
    small = thumbnail(rgb)
    return _judge_thumbnail(small) or (pixel_sha256(rgb), perceptual_hash(small), width, height)


def _distinct(found: Sequence[Photo], dropped: dict[str, str]) -> tuple[Photo, ...]:
    """Keep the largest of each set of duplicates, and tie related photos and shots of one series to groups."""
    # Largest first: of two copies the one with more pixels stays. The hash makes the order total.
    order = sorted(found, key=lambda p: (-p.width * p.height, p.sha256, p.package, p.relative))
    if not order:
        return ()
    distances = hamming_matrix(np.array([p.phash for p in order], np.uint64))
    kept: list[int] = []
    for index, photo in enumerate(order):
        if kept and int(distances[index, kept].min()) <= DUPLICATE_BITS:
            dropped[f"{photo.package}/{photo.relative}"] = "duplicate"
        else:
            kept.append(index)
    parent = {index: index for index in kept}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for a, b in zip(*np.nonzero(distances[np.ix_(kept, kept)] <= RELATED_BITS), strict=True):
        parent[root(kept[int(a)])] = root(kept[int(b)])
    first: dict[str, int] = {}
    for index in kept:
        parent[root(index)] = root(first.setdefault(order[index].group, index))
    members: dict[int, list[str]] = defaultdict(list)
    for index in kept:
        members[root(index)].append(order[index].sha256)
    photos = [replace(order[index], group=min(members[root(index)])) for index in kept]
    return tuple(sorted(photos, key=lambda p: p.sha256))
