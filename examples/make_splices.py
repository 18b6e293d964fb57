r"""Put cut-outs into photos: semisynthetic pictures whose masks say, pixel by pixel, what was changed.

    gascli data fetch tuxpaint-stamps plasma-wallpapers --home HOME
    python examples/make_splices.py --home HOME --photos plasma-wallpapers --cutouts tuxpaint-stamps --out splices
    gascli data add splices --source folder --path splices --modality image --media-type semisynthetic \
        --include "images/*" --mask-column "masks/{stem}.png" --generator splice --home HOME

Photos and cut-outs are fetched data sets; a cut-out is a PNG with an alpha channel. OUT/images gets JPEG files,
OUT/masks a PNG for each: white where the cut-out covers at least half of a pixel.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.clock import derive_rng
from gas.datasets.store import open_store
from gas.errors import ConfigurationError, GasError, MediaRejected
from gas.media.image import RGB, decode_image, encode_jpeg
from gas.media.masks import Mask, encode_mask

_MOST_SIDE = 1024


def main() -> int:
    """Make as many as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="home that the data sets were fetched into")
    parser.add_argument("--photos", required=True, help="name of a set of photos")
    parser.add_argument("--cutouts", required=True, help="name of a set of PNG files with alpha")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--count", type=int, default=20, help="pictures to make")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    arguments = parser.parse_args()
    try:
        make(arguments.home, arguments.photos, arguments.cutouts, arguments.out, arguments.count, arguments.seed)
    except GasError as error:
        print(f"make_splices: {error}", file=sys.stderr)
        return 1
    return 0


def make(home: Path | None, photos: str, cutouts: str, out: Path, count: int, seed: int) -> None:
    """Write ``count`` pictures and their masks."""
    store = open_store(home)
    # Sorted by content: the same splices on every machine.
    sources = sorted(store.items(photos), key=lambda item: item.sha256)
    stamps = sorted((item for item in store.items(cutouts) if item.mime == "image/png"), key=lambda item: item.sha256)
    if not sources or not stamps:
        raise ConfigurationError("There are no photos, or no PNG cut-outs.", code="empty_set")
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    made = skipped = 0
    while made < count and skipped < 10 * count:
        rng = derive_rng(seed, "splice", made, skipped)
        photo = sources[int(rng.integers(len(sources)))]
        stamp = stamps[int(rng.integers(len(stamps)))]
        try:
            picture, mask = splice(decode_image(store.read(photo)), cutout(store.read(stamp)), rng)
        except MediaRejected:
            skipped += 1
            continue
        (out / "images" / f"{made:04}.jpg").write_bytes(encode_jpeg(picture, int(rng.integers(80, 96))))
        (out / "masks" / f"{made:04}.png").write_bytes(encode_mask(mask))
        made += 1
    print(f"{made} pictures in {out / 'images'}, their masks in {out / 'masks'}")


def cutout(data: bytes) -> NDArray[np.uint8]:
    """A PNG with its alpha channel, uint8 (h, w, 4) in the order R, G, B, alpha, cut to what can be seen of it."""
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3 or found.shape[2] != 4 or not (found[..., 3] > 127).any():
        raise MediaRejected("The cut-out has no alpha channel.", code="unsupported")
    rows, columns = np.nonzero(found[..., 3] > 127)
    seen = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return np.asarray(cv2.cvtColor(seen, cv2.COLOR_BGRA2RGBA), np.uint8)


def splice(photo: RGB, stamp: NDArray[np.uint8], rng: np.random.Generator) -> tuple[RGB, Mask]:
    """The photo with the stamp somewhere in it, a fifth to a half as large, and the mask of what has changed."""
    scale = min(1.0, _MOST_SIDE / max(photo.shape[:2]))
    picture = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    height, width = picture.shape[:2]
    grow = rng.uniform(0.2, 0.5) * min(height / stamp.shape[0], width / stamp.shape[1])
    sides = max(1, round(stamp.shape[1] * grow)), max(1, round(stamp.shape[0] * grow))
    small = cv2.resize(stamp, sides, interpolation=cv2.INTER_AREA).astype(np.float32)
    if rng.random() < 0.5:
        small = small[:, ::-1]
    top = int(rng.integers(height - small.shape[0] + 1))
    left = int(rng.integers(width - small.shape[1] + 1))
    window = slice(top, top + small.shape[0]), slice(left, left + small.shape[1])
    cover = small[..., 3:] / 255
    picture[window] = cover * small[..., :3] + (1 - cover) * picture[window]
    mask = np.zeros((height, width), np.uint8)
    mask[window] = small[..., 3] >= 128
    return np.asarray(picture.round(), np.uint8), mask


if __name__ == "__main__":
    raise SystemExit(main())
