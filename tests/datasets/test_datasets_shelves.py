"""One decode a medium and shape, whoever asks; and what kills, power cuts and full disks leave."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gas.datasets import shelves as shelves_module
from gas.datasets.shelves import RoundShelves
from gas.errors import StorageError
from gas.media.audio import decode_audio, preprocess_audio
from gas.media.encode import encode_mp4, encode_wav
from gas.media.image import decode_image, encode_jpeg, preprocess_image
from gas.media.target import Target, load_medium
from gas.media.transforms import sharing_chain, sharing_chain_audio, sharing_chain_video
from gas.media.video import decode_video, preprocess_video
from gas.storage.blobs import FolderBlobs
from gas.types import MediaType, Modality, Provenance, Sample

SMALL = Target(Modality.IMAGE, (3, 32, 32), "uint8")
WIDE = Target(Modality.IMAGE, (3, 24, 40), "uint8")


def sample_of(name: str, modality: Modality = Modality.IMAGE) -> Sample:
    return Sample(name, modality, MediaType.REAL, Provenance.PUBLIC, "d", "s", name)


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


@pytest.fixture
def names(blobs: FolderBlobs) -> list[str]:
    rng = np.random.default_rng(0)
    return [blobs.put(encode_jpeg(rng.integers(0, 256, (40 + i, 48, 3), dtype=np.uint8))) for i in range(8)]


def opened(blobs: FolderBlobs, names: list[str], tmp_path: Path, **more: int) -> RoundShelves:
    return RoundShelves(map(sample_of, names), blobs, tmp_path / "cache", **more)


def test_many_models_cost_one_decode_a_medium_and_shape(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    with opened(blobs, names, tmp_path) as shelves:
        for _ in range(3):
            for robust in (False, True):
                inputs, usable = shelves.fetch(names, SMALL, robust=robust)
                assert inputs.shape == (8, 3, 32, 32)
                assert usable.all()
        assert shelves.decodes == 16
        shelves.fetch(names, WIDE, robust=False)
        assert shelves.decodes == 24
    with opened(blobs, names, tmp_path) as again:
        again.fetch(names, WIDE, robust=False)
        assert again.decodes == 0


def test_threads_that_ask_at_once_share_one_decode(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    with opened(blobs, names, tmp_path) as shelves, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: shelves.fetch([name], SMALL, robust=False), names * 8))
        assert shelves.decodes == 8


def test_what_comes_from_the_shelf_is_the_projects_own_preprocessing(
    blobs: FolderBlobs, names: list[str], tmp_path: Path
) -> None:
    with opened(blobs, names, tmp_path) as shelves:
        for _ in range(2):
            plain, _ = shelves.fetch(names[::-1], WIDE, robust=False)
            robust, _ = shelves.fetch(names, WIDE, robust=True)
            for i, name in enumerate(names):
                rgb = decode_image(blobs.get(name))
                assert np.array_equal(plain[7 - i], preprocess_image(rgb, (24, 40)))
                assert np.array_equal(robust[i], preprocess_image(sharing_chain(rgb), (24, 40)))


def test_video_and_sound_are_read_by_the_same_shelves(blobs: FolderBlobs, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    clip = encode_mp4([np.roll(base, k, axis=1) for k in range(20)], 10.0)
    sound = encode_wav(rng.normal(0, 0.1, 30_000).astype(np.float32).clip(-1, 1), 22_050)
    video = Target(Modality.VIDEO, (6, 3, 32, 32), "uint8", 5.0)
    audio = Target(Modality.AUDIO, (8_000,), "float32", 8_000)
    for data, modality, target in ((clip, Modality.VIDEO, video), (sound, Modality.AUDIO, audio)):
        name = blobs.put(data)
        with RoundShelves([sample_of(name, modality)], blobs, tmp_path / "cache") as shelves:
            for robust in (False, True, False, True):
                inputs, usable = shelves.fetch([name], target, robust=robust)
                assert usable.all()
                assert inputs.dtype == target.dtype
                assert np.array_equal(inputs[0], load_medium(data, target, robust=robust))
            assert shelves.decodes == 2
    frames = decode_video(clip, 6, 5.0)
    assert np.array_equal(load_medium(clip, video), preprocess_video(frames, (32, 32), 6))
    chain = preprocess_video(sharing_chain_video(frames), (32, 32), 6)
    assert np.array_equal(load_medium(clip, video, robust=True), chain)
    mono, rate = decode_audio(sound)
    heard = preprocess_audio(sharing_chain_audio(mono, rate), rate, target_rate=8_000, seconds=1.0)
    assert np.array_equal(load_medium(sound, audio, robust=True), heard)


def test_another_frame_rate_is_another_shelf(blobs: FolderBlobs, tmp_path: Path) -> None:
    base = np.random.default_rng(2).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    name = blobs.put(encode_mp4([np.roll(base, 3 * k, axis=1) for k in range(20)], 10.0))
    with RoundShelves([sample_of(name, Modality.VIDEO)], blobs, tmp_path / "cache") as shelves:
        slow, first = (
            shelves.fetch([name], Target(Modality.VIDEO, (4, 3, 32, 32), "uint8", rate), robust=False)[0]
            for rate in (2.5, None)
        )
    assert np.array_equal(slow[0, 0], first[0, 0])
    assert not np.array_equal(slow[0, 1], first[0, 1])


def test_an_undecodable_medium_is_left_out_once_for_all(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    broken = blobs.put(b"\xff\xd8\xff but no picture")
    for decodes in (1, 0):
        with opened(blobs, [*names, broken], tmp_path) as shelves:
            for _ in range(3):
                inputs, usable = shelves.fetch([broken, names[0]], SMALL, robust=False)
                assert usable.tolist() == [False, True]
                assert not inputs[0].any()
            assert (shelves.decodes == 2) == bool(decodes)
            assert list(shelves.errors) == [broken] * decodes


def test_a_missing_or_changed_blob_is_our_trouble_not_the_mediums(
    blobs: FolderBlobs, names: list[str], tmp_path: Path
) -> None:
    with opened(blobs, names, tmp_path) as shelves:
        blobs.delete(names[0])
        with pytest.raises(StorageError) as error:
            shelves.fetch(names[:1], SMALL, robust=False)
        assert error.value.error_code == "blob_missing"
        path = blobs.root / names[1][:2] / names[1]
        path.write_bytes(path.read_bytes() + b"x")
        with pytest.raises(StorageError) as error:
            shelves.fetch(names[1:2], SMALL, robust=False)
        assert error.value.error_code == "blob_damaged"
        with pytest.raises(StorageError) as error:
            shelves.fetch(["f" * 64], SMALL, robust=False)
        assert error.value.error_code == "sample_unknown"


def test_what_does_not_fit_is_decoded_each_time_and_right(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    with opened(blobs, names, tmp_path, max_bytes=3 * SMALL.nbytes) as shelves:
        first, _ = shelves.fetch(names, SMALL, robust=False)
        second, _ = shelves.fetch(names, SMALL, robust=False)
        assert np.array_equal(first, second)
        assert shelves.decodes == 8 + 5
    taken = sum(path.stat().st_blocks * 512 for path in (tmp_path / "cache").glob("*.slots"))
    assert taken <= 3 * SMALL.nbytes + 4096


def test_old_shelves_make_way_and_open_ones_stay(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    room = 8 * 12_288 + 4096
    big = Target(Modality.IMAGE, (3, 64, 64), "uint8")
    tall = Target(Modality.IMAGE, (3, 128, 32), "uint8")
    with opened(blobs, names, tmp_path, max_bytes=room) as old:
        old.fetch(names, big, robust=False)
        with opened(blobs, names, tmp_path, max_bytes=room) as late:
            late.fetch(names, tall, robust=False)
            late.fetch(names, tall, robust=False)
            assert late.decodes > 8
        old.fetch(names, big, robust=False)
        assert old.decodes == 8
    with opened(blobs, names, tmp_path, max_bytes=room) as new:
        for _ in range(2):
            new.fetch(names, tall, robust=False)
        assert new.decodes <= 8
        new.fetch(names, big, robust=False)
        assert new.decodes > 8


def test_after_a_power_cut_a_shelf_is_not_believed(
    blobs: FolderBlobs, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(blobs, names, tmp_path) as shelves:
        shelves.fetch(names, SMALL, robust=False)
    with opened(blobs, names, tmp_path) as same_boot:
        same_boot.fetch(names, SMALL, robust=False)
        assert same_boot.decodes == 0
    # The power went, and some of the content never reached the disk.
    for path in (tmp_path / "cache").glob("*.slots"):
        os.truncate(path, 0)
    monkeypatch.setattr(shelves_module, "_boot_id", lambda: "another boot")
    with opened(blobs, names, tmp_path) as again:
        inputs, _ = again.fetch(names, SMALL, robust=False)
        assert again.decodes == 8
        assert np.array_equal(inputs[0], preprocess_image(decode_image(blobs.get(names[0])), (32, 32)))


def test_a_shelf_of_another_decoder_is_not_read(
    blobs: FolderBlobs, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(blobs, names, tmp_path) as shelves:
        shelves.fetch(names, SMALL, robust=False)
    monkeypatch.setattr(shelves_module, "installed", lambda _names: {"opencv-python-headless": "another version"})
    with opened(blobs, names, tmp_path) as later:
        later.fetch(names, SMALL, robust=False)
        assert later.decodes == 8


def test_a_machine_that_shares_the_folder_does_not_cut_off_the_flags_of_another(
    blobs: FolderBlobs, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(blobs, names, tmp_path) as here:
        here.fetch(names, SMALL, robust=False)
        (flags,) = (tmp_path / "cache").glob("*.flags")
        size = flags.stat().st_size
        least = []
        truncate = os.ftruncate
        monkeypatch.setattr(os, "ftruncate", lambda fd, length: (least.append(length), truncate(fd, length))[1])
        monkeypatch.setattr(shelves_module, "_boot_id", lambda: "of another machine")
        with opened(blobs, names, tmp_path) as there:
            there.fetch(names, SMALL, robust=False)
            assert there.decodes == 8
        # A mapped page that is cut off kills who looks at it.
        assert all(length >= size for length in least)
        assert flags.stat().st_size == size
        assert here.fetch(names, SMALL, robust=False)[1].all()


def test_shelves_that_another_process_removes_meanwhile_are_no_trouble(
    blobs: FolderBlobs, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glob = Path.glob
    gone = tmp_path / "cache" / "gone.slots"
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*glob(self, pattern), gone])
    with opened(blobs, names, tmp_path) as shelves:
        assert shelves.fetch(names, SMALL, robust=False)[1].all()


def test_a_killed_process_leaves_only_good_slots(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from gas.datasets.shelves import RoundShelves
from gas.media.target import Target
from gas.storage.blobs import FolderBlobs
from gas.types import MediaType, Modality, Provenance, Sample
names = {names!r}
samples = [Sample(n, Modality.IMAGE, MediaType.REAL, Provenance.PUBLIC, "d", "s", n) for n in names]
shelves = RoundShelves(samples, FolderBlobs(Path({str(blobs.root)!r})), Path({str(tmp_path / "cache")!r}))
shelves.fetch(names[:5], Target(Modality.IMAGE, (3, 32, 32), "uint8"), robust=False)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with opened(blobs, names, tmp_path) as shelves:
        inputs, _ = shelves.fetch(names, SMALL, robust=False)
        assert shelves.decodes == 3
    for k, name in enumerate(names):
        assert np.array_equal(inputs[k], preprocess_image(decode_image(blobs.get(name)), (32, 32)))


def test_a_full_disk_costs_speed_and_nothing_else(blobs: FolderBlobs, names: list[str], tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with opened(blobs, names, tmp_path) as shelves:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 * SMALL.nbytes, before[1]))
            inputs = [shelves.fetch(names, SMALL, robust=False)[0] for _ in range(2)]
            assert shelves.full
            assert np.array_equal(*inputs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full_from_the_beginning_costs_speed_and_nothing_else(
    blobs: FolderBlobs, names: list[str], tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with opened(blobs, names, tmp_path) as shelves:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            inputs = [shelves.fetch(names, SMALL, robust=False)[0] for _ in range(2)]
            assert shelves.full
            assert shelves.decodes == 2 * len(names)
            assert np.array_equal(*inputs)
            assert inputs[0].any()
            assert not list((tmp_path / "cache").glob("*.seal?*"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
