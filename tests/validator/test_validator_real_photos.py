"""Real photos of the validator's own data sets are known to the index of copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gas.datasets.items import Item
from gas.media.image import decode_image, encode_jpeg, encode_png
from gas.storage.blobs import sha256_hex
from gas.types import MediaType, Modality
from gas.validator.real_photos import RealPhotos
from gas.verification.duplicates import MediaIndex, Seen
from gas.verification.prints import print_picture


class _Store:
    """As much of a data store as is asked for here."""

    def __init__(self, *media: bytes) -> None:
        self.media = {sha256_hex(data): data for data in media}
        self.reads = 0

    def names(self) -> tuple[str, ...]:
        return ("photos",)

    def items(self, name: str) -> tuple[Item, ...]:
        return tuple(
            Item(sha, name, Modality.IMAGE, MediaType.REAL, "image/png", len(data), sha, name, sha)
            for sha, data in self.media.items()
        )

    def read(self, item: Item) -> bytes:
        self.reads += 1
        return self.media[item.sha256]


def _picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.kron(small, np.ones((16, 16, 1), dtype=np.uint8))


def _look(data: bytes) -> Seen:
    printed = print_picture(decode_image(data))
    return Seen(sha256_hex(data), int.from_bytes(printed.upright.tobytes(), "big"), frames=(printed,), owner="v/m/t")


def test_a_photo_that_is_encoded_anew_is_known_and_no_photo_is_read_twice(tmp_path: Path) -> None:
    store = _Store(*(encode_png(_picture(number)) for number in range(5)), b"broken")
    with MediaIndex(tmp_path) as index:
        photos = RealPhotos(store, index, tmp_path)  # type: ignore[arg-type]
        assert [photos.step(4), photos.step(4), photos.step(4)] == [4, 2, 0]
        assert index.copy_of(_look(encode_jpeg(_picture(3), 60))) is not None
        assert index.copy_of(_look(encode_png(_picture(77)))) is None
    with MediaIndex(tmp_path) as index:
        assert RealPhotos(store, index, tmp_path).step(9) == 0  # type: ignore[arg-type]
    assert store.reads == 6


def test_photos_are_added_again_to_an_index_that_was_lost(tmp_path: Path) -> None:
    store = _Store(encode_png(_picture(1)))
    with MediaIndex(tmp_path) as index:
        RealPhotos(store, index, tmp_path).step(9)  # type: ignore[arg-type]
    for file in tmp_path.glob("*.r*"):
        file.unlink()
    with MediaIndex(tmp_path) as index:
        assert RealPhotos(store, index, tmp_path).step(9) == 1  # type: ignore[arg-type]
        assert index.copy_of(_look(encode_jpeg(_picture(1), 60))) is not None
