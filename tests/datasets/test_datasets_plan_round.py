from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from gas.datasets.audit import audit_round
from gas.datasets.items import Item, items_to_table
from gas.datasets.plan_draw import draw_plan
from gas.datasets.plan_file import Plan
from gas.datasets.plan_round import NormalOptions, freeze_plan, normalise
from gas.datasets.plan_spec import PlanMode, PlanSpec
from gas.errors import ConfigurationError, StorageError
from gas.media.image import decode_image, encode_jpeg, encode_png
from gas.media.masks import decode_mask, encode_mask
from gas.storage.blobs import FolderBlobs, sha256_hex
from gas.types import MediaType, Modality


def photo(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def speech(seed: int, rate: int, seconds: float) -> bytes:
    sink = io.BytesIO()
    sound = np.random.default_rng(seed).normal(0, 0.1, round(rate * seconds))
    soundfile.write(sink, sound, rate, format="WAV")
    return sink.getvalue()


class World:
    """Media as published, by their hashes, and the rows that describe them."""

    def __init__(self) -> None:
        self.media: dict[str, bytes] = {}
        self.items: list[Item] = []

    def add(self, data: bytes, kind: MediaType, modality: Modality = Modality.IMAGE, mask: bytes | None = None) -> str:
        name = sha256_hex(data)
        self.media[name] = data
        if mask is not None:
            self.media[sha256_hex(mask)] = mask
        self.items.append(
            Item(
                sha256=name,
                dataset=f"set-{kind}",
                modality=modality,
                media_type=kind,
                mime="x/y",
                size=len(data),
                path="p",
                source="s",
                origin=name,
                mask_sha256=None if mask is None else sha256_hex(mask),
            )
        )
        return name

    def plan(self, modality: Modality = Modality.IMAGE) -> Plan:
        return draw_plan(items_to_table(self.items), PlanSpec(modality, PlanMode.FULL, 9))


SMALL = NormalOptions(size=64, frames=4, seconds=0.5)


def test_a_plan_is_normalised_and_frozen_with_its_masks_moved(tmp_path: Path) -> None:
    world, blobs = World(), FolderBlobs(tmp_path)
    for i in range(12):
        world.add(encode_jpeg(photo(i), 60 + i), MediaType.REAL)
        spliced, mask = photo(100 + i), np.zeros((90, 120), np.uint8)
        spliced[20:70, 15 + i : 65 + i] = 255
        mask[20:70, 15 + i : 65 + i] = 1
        world.add(encode_png(spliced), MediaType.SEMISYNTHETIC, mask=encode_mask(mask))
    told: list[tuple[int, int]] = []
    frozen = freeze_plan(
        world.plan(),
        world.media.__getitem__,
        blobs.put,
        {"robust_weight": 0.3},
        options=SMALL,
        on_progress=lambda _, done, total: told.append((done, total)),
    )
    assert told == [(i, 24) for i in range(1, 25)]
    assert len(frozen.round.samples) == 24
    assert not frozen.rejected
    assert frozen.round.parameters["robust_weight"] == 0.3
    assert "jpeg" in str(frozen.round.parameters["normalisation"])
    masks = frozen.round.parameters["masks"]
    assert isinstance(masks, dict)
    assert set(masks) == {s.sample_id for s in frozen.round.samples if s.media_type is MediaType.SEMISYNTHETIC}
    for sample_id, mask_id in masks.items():
        white = decode_image(blobs.get(sample_id)).min(axis=2) > 235
        moved = decode_mask(blobs.get(mask_id)) > 0
        assert (white & moved).sum() / (white | moved).sum() > 0.8
    results = audit_round(frozen.round.samples, blobs.get)
    assert results["set-semisynthetic"] is not None
    assert results["set-semisynthetic"].passes


def test_threads_change_nothing(tmp_path: Path) -> None:
    world, blobs = World(), FolderBlobs(tmp_path)
    for i in range(20):
        world.add(encode_jpeg(photo(i)), MediaType.REAL if i % 2 else MediaType.SYNTHETIC)
    plan = world.plan()
    rounds = {
        freeze_plan(plan, world.media.__getitem__, blobs.put, options=SMALL, workers=n).round.round_id for n in (1, 3)
    }
    assert len(rounds) == 1


def test_what_cannot_be_taken_is_left_out_with_its_reason(tmp_path: Path) -> None:
    world, blobs = World(), FolderBlobs(tmp_path)
    for i in range(4):
        world.add(encode_jpeg(photo(i)), MediaType.REAL)
        world.add(encode_png(photo(10 + i)), MediaType.SYNTHETIC)
    tiny, broken = world.add(encode_png(photo(50, 40, 40)), MediaType.REAL), world.add(b"text", MediaType.REAL)
    lone = world.add(encode_png(photo(60)), MediaType.SEMISYNTHETIC, mask=encode_mask(np.ones((9, 9), np.uint8)))
    frozen = freeze_plan(world.plan(), world.media.__getitem__, blobs.put, options=SMALL)
    assert frozen.rejected == {tiny: "too_small", broken: "unsupported", lone: "mask_mismatch"}
    assert len(frozen.round.samples) == len(frozen.media) == 8


def test_one_class_that_is_rejected_wholly_is_an_error(tmp_path: Path) -> None:
    world, blobs = World(), FolderBlobs(tmp_path)
    world.add(encode_jpeg(photo(1)), MediaType.REAL)
    world.add(b"no picture", MediaType.SYNTHETIC)
    with pytest.raises(ConfigurationError) as caught:
        freeze_plan(world.plan(), world.media.__getitem__, blobs.put, options=SMALL)
    assert caught.value.error_code == "one_class"


def test_a_medium_that_is_gone_is_an_error_of_ours_and_not_left_out_silently(tmp_path: Path) -> None:
    world, blobs = World(), FolderBlobs(tmp_path / "new")
    for i in range(4):
        world.add(encode_jpeg(photo(i)), MediaType.REAL if i % 2 else MediaType.SYNTHETIC)
    with pytest.raises(StorageError):
        freeze_plan(world.plan(), FolderBlobs(tmp_path / "empty").get, blobs.put, options=SMALL)


def test_sounds_are_frozen_the_same_way_and_twins_count_once(tmp_path: Path) -> None:
    world, blobs = World(), FolderBlobs(tmp_path)
    for i in range(11):
        world.add(speech(i, 8000, 0.6 + i / 20), MediaType.REAL, Modality.AUDIO)
        world.add(speech(50 + i, 22050, 1), MediaType.SYNTHETIC, Modality.AUDIO)
    short = world.add(speech(99, 16000, 0.3), MediaType.SYNTHETIC, Modality.AUDIO)
    plan = world.plan(Modality.AUDIO)
    raw = audit_round(plan.samples(), world.media.__getitem__)["set-synthetic"]
    assert raw is not None
    assert raw.balanced_accuracy > 0.95
    frozen = freeze_plan(plan, world.media.__getitem__, blobs.put, options=SMALL)
    assert frozen.rejected == {short: "too_short"}
    after = audit_round(frozen.round.samples, blobs.get)["set-synthetic"]
    assert after is not None
    assert after.balanced_accuracy == 0.5
    names = iter(["a" * 64, "a" * 64, *(f"{i:064x}" for i in range(len(plan)))])
    twins = freeze_plan(plan, world.media.__getitem__, lambda _: next(names), options=SMALL)
    assert sorted(twins.rejected.values()) == ["duplicate", "too_short"]


def test_a_mixed_round_is_audited_by_modality(tmp_path: Path) -> None:
    world = World()
    for i in range(12):
        for kind in (MediaType.REAL, MediaType.SYNTHETIC):
            world.add(encode_jpeg(photo(i + 30 * kind.label), 70), kind)
            world.add(speech(i + 30 * kind.label, 16000 + 8000 * kind.label, 0.5), kind, Modality.AUDIO)
    samples = [*world.plan().samples(), *world.plan(Modality.AUDIO).samples()]
    told: list[int] = []
    found = audit_round(
        samples, world.media.__getitem__, most=10, on_progress=lambda _, done, total: told.append(total - done)
    )
    assert set(found) == {"set-synthetic (audio)", "set-synthetic (image)"}
    audio, image = found["set-synthetic (audio)"], found["set-synthetic (image)"]
    assert audio is not None
    assert image is not None
    assert (audio.balanced_accuracy, image.balanced_accuracy) == (1, 0.5)
    assert (audio.real, audio.fake) == (10, 10)
    assert told == list(range(39, -1, -1))


def test_each_modality_has_its_normalisation() -> None:
    assert normalise(encode_png(photo(1)), Modality.IMAGE, seed=1, origin="o", options=SMALL)[:2] == b"\xff\xd8"
    assert normalise(speech(1, 8000, 1), Modality.AUDIO, seed=1, origin="o", options=SMALL)[:4] == b"RIFF"


def test_a_splice_that_the_square_cuts_away_is_left_out(tmp_path: Path) -> None:
    world, blobs = World(), FolderBlobs(tmp_path)
    for i in range(4):
        world.add(encode_png(photo(i)), MediaType.REAL)
        seen = np.zeros((90, 120), np.uint8)
        seen[40:50, 50:60] = 1
        world.add(encode_png(photo(50 + i)), MediaType.SEMISYNTHETIC, mask=encode_mask(seen))
    edge = np.zeros((90, 120), np.uint8)
    edge[:, :10] = 1
    lost = world.add(encode_png(photo(90)), MediaType.SEMISYNTHETIC, mask=encode_mask(edge))
    frozen = freeze_plan(world.plan(), world.media.__getitem__, blobs.put, options=SMALL)
    assert frozen.rejected == {lost: "mask_empty"}
    assert len(frozen.round.parameters["masks"]) == 4
