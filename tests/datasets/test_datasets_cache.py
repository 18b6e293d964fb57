from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gas.datasets.cache import RoundCache
from gas.errors import MediaRejected, StorageError
from gas.media.image import encode_jpeg, preprocess_image
from gas.media.transforms import sharing_chain
from gas.storage.blobs import FolderBlobs
from gas.types import MediaType, Modality, Provenance, Sample


def sample_of(name: str, modality: Modality = Modality.IMAGE) -> Sample:
    return Sample(name, modality, MediaType.REAL, Provenance.PUBLIC, "d", "s", name)


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


@pytest.fixture
def names(blobs: FolderBlobs) -> list[str]:
    rng = np.random.default_rng(0)
    return [blobs.put(encode_jpeg(rng.integers(0, 256, (40 + i, 48, 3), dtype=np.uint8))) for i in range(8)]


def test_many_models_cost_one_decode_a_sample(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    cache = RoundCache(map(sample_of, names), blobs, tmp_path / "cache")
    for target in ((32, 32), (24, 40), (32, 32)):
        for robust in (False, True):
            assert cache.preprocessed(names, target, robust=robust).shape == (8, 3, *target)
    assert cache.decodes == 8
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: cache.preprocessed([n], (16, 16), robust=True), names * 4))
    assert cache.decodes == 8
    again = RoundCache(map(sample_of, names), blobs, tmp_path / "cache")
    again.preprocessed(names, (32, 32))
    assert again.decodes == 0


def test_threads_that_ask_at_once_share_one_decode(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    cache = RoundCache(map(sample_of, names), blobs, tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache.preprocessed([n], (16, 16)), names * 8))
    assert cache.decodes == 8


def test_the_batches_are_the_projects_own_preprocessing(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    cache = RoundCache(map(sample_of, names), blobs, tmp_path / "cache")
    batch = cache.preprocessed(names[::-1], (30, 20))
    robust = cache.preprocessed(names, (30, 20), robust=True)
    assert batch.dtype == np.uint8
    for i, name in enumerate(names):
        rgb = np.array(cache.pixels(name))
        assert np.array_equal(batch[7 - i], preprocess_image(rgb, (30, 20)))
        assert np.array_equal(robust[i], preprocess_image(sharing_chain(rgb), (30, 20)))


def test_an_undecodable_medium_is_left_out_once_for_all(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    broken = blobs.put(b"\xff\xd8\xff broken")
    everything = [*names, broken]
    cache = RoundCache(map(sample_of, everything), blobs, tmp_path / "cache")
    steps: list[tuple[str, int, int]] = []
    usable = cache.prepare(on_progress=lambda *step: steps.append(step))
    assert set(usable) == set(names)
    assert steps[-1][1:] == (9, 9)
    assert cache.errors[broken].error_code == "undecodable"
    with pytest.raises(MediaRejected):
        cache.preprocessed([names[0], broken], (16, 16))
    assert cache.decodes == 9
    again = RoundCache(map(sample_of, everything), blobs, tmp_path / "cache")
    assert set(again.errors) == {broken}
    assert again.prepare(everything) == tuple(names)
    assert again.decodes == 0


def test_a_missing_blob_is_our_trouble_not_the_medium(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    blobs.delete(names[0])
    cache = RoundCache(map(sample_of, names), blobs, tmp_path / "cache")
    with pytest.raises(StorageError):
        cache.prepare()
    assert cache.errors == {}


def test_the_size_limit_holds(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    cache = RoundCache(map(sample_of, names), blobs, tmp_path / "cache", max_bytes=20_000)
    with pytest.raises(StorageError) as caught:
        cache.prepare()
    assert caught.value.error_code == "cache_full"
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.npy")) <= 20_000 + 8 * 128


def test_strangers_and_other_modalities_are_refused(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    cache = RoundCache([sample_of(names[0]), sample_of(names[1], Modality.VIDEO)], blobs, tmp_path / "cache")
    assert cache.prepare() == (names[0],)
    for name in (names[1], "../../etc/passwd"):
        with pytest.raises(StorageError):
            cache.pixels(name)


def test_half_written_pixels_do_not_count(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "999999999-abc.part").write_bytes(b"half")
    (folder / "1-abc.part").write_bytes(b"another process is at it")
    cache = RoundCache(map(sample_of, names), blobs, folder)
    cache.prepare()
    assert [path.name for path in folder.glob("*.part")] == ["1-abc.part"]
    (folder / f"{names[0]}.npy").write_bytes(b"damaged")
    with pytest.raises(StorageError):
        RoundCache(map(sample_of, names), blobs, folder).pixels(names[0])
