from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.datasets.plan import DEFAULT_SHARES, check_shares, data_hash, freeze_round, read_round, select, write_round
from gas.errors import ConfigurationError, StorageError
from gas.types import Hotkey, MediaType, Modality, Provenance, Sample


def sample(i: int, **changes: object) -> Sample:
    name = hashlib.sha256(str(i).encode()).hexdigest()
    kind = MediaType.REAL if i % 2 else MediaType.SYNTHETIC
    made = Sample(
        sample_id=name,
        modality=Modality.IMAGE,
        media_type=kind,
        provenance=Provenance.PUBLIC if i % 2 else Provenance.ARENA,
        dataset=f"set{i % 3}",
        source=f"source{i % 5}",
        origin=name,
        generator_hotkey=None if i % 2 else Hotkey(f"5Hot{i % 4}"),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


SAMPLES = [sample(i) for i in range(30)]


def test_a_round_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    frozen = freeze_round(SAMPLES, 7, {"alpha": 1.2, "plan": {"n": [1, 2]}}, code_version="1.0")
    write_round(frozen, tmp_path / "round")
    assert read_round(tmp_path / "round") == frozen
    assert frozen.parameters["shares"] == {str(name): share for name, share in DEFAULT_SHARES.items()}
    assert sum(frozen.sizes.values()) == 30


def test_the_id_depends_on_everything_and_not_on_the_order() -> None:
    def of(samples: list[Sample] = SAMPLES, seed: int = 1, alpha: float = 1.0, code: str = "1") -> str:
        return freeze_round(samples, seed, {"alpha": alpha}, code_version=code).round_id

    assert of() == of(SAMPLES[::-1])
    relabelled = [dataclasses.replace(SAMPLES[0], media_type=MediaType.SEMISYNTHETIC), *SAMPLES[1:]]
    assert len({of(), of(seed=2), of(alpha=2.0), of(code="2"), of(SAMPLES[1:]), of(relabelled)}) == 6
    assert data_hash(SAMPLES) == data_hash(SAMPLES[::-1])


def tampered(folder: Path, **changes: object) -> str:
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(manifest))
    with pytest.raises(StorageError) as caught:
        read_round(folder)
    return caught.value.error_code


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"parameters": {}},
        {"code_version": "2"},
        {"round_id": "0" * 16},
        {"data_hash": "0" * 64},
        {"format": 99},
        {"files": {}},
    ],
)
def test_a_changed_manifest_is_found_out(changes: dict[str, object], tmp_path: Path) -> None:
    write_round(freeze_round(SAMPLES, 7, {}, code_version="1"), tmp_path)
    assert tampered(tmp_path, **changes) == "round_damaged"


def test_changed_samples_are_found_out_even_with_a_matching_file_hash(tmp_path: Path) -> None:
    write_round(freeze_round(SAMPLES, 7, {}, code_version="1"), tmp_path)
    relabelled = [dataclasses.replace(s, media_type=MediaType.REAL) for s in SAMPLES]
    write_round(freeze_round(relabelled, 7, {}, code_version="1"), tmp_path / "other")
    packed = (tmp_path / "other" / "samples.parquet").read_bytes()
    (tmp_path / "samples.parquet").write_bytes(packed)
    assert tampered(tmp_path) == "round_damaged"
    assert tampered(tmp_path, files={"samples.parquet": hashlib.sha256(packed).hexdigest()}) == "round_damaged"


def test_a_folder_without_a_manifest_is_no_round(tmp_path: Path) -> None:
    write_round(freeze_round(SAMPLES, 7, {}, code_version="1"), tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StorageError) as caught:
        read_round(tmp_path)
    assert caught.value.error_code == "round_missing"


def test_the_holdout_shares_no_photo_with_the_rest() -> None:
    held = sample(101, provenance=Provenance.HOLDOUT)
    derived = sample(102, origin=held.origin)
    with pytest.raises(ConfigurationError) as caught:
        freeze_round([held, derived], 1, {}, code_version="1")
    assert caught.value.error_code == "split_leak"
    freeze_round([held, sample(102, origin=held.origin, provenance=Provenance.HOLDOUT)], 1, {}, code_version="1")


@pytest.mark.parametrize(
    ("samples", "parameters"),
    [
        ([], {}),
        ([SAMPLES[0], SAMPLES[0]], {}),
        (SAMPLES, {"shares": {"public": 0.5}}),
        (SAMPLES, {"shares": {"private": 1.0}}),
        (SAMPLES, {"shares": {"public": 1.5, "arena": -0.5}}),
        (SAMPLES, {"shares": 3}),
        (SAMPLES, {"x": float("nan")}),
        (SAMPLES, {"x": object()}),
    ],
)
def test_a_round_that_cannot_be_is_refused(samples: list[Sample], parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        freeze_round(samples, 1, parameters, code_version="1")


def test_shares_are_checked() -> None:
    assert check_shares({"public": 0.25, "holdout": 0.75}) == {Provenance.PUBLIC: 0.25, Provenance.HOLDOUT: 0.75}


@given(st.permutations(SAMPLES), st.integers(0, 10), st.integers(0, 1000))
def test_the_drawing_does_not_depend_on_the_order(shuffled: list[Sample], n: int, seed: int) -> None:
    drawn = select(shuffled, n, seed)
    assert drawn == select(SAMPLES, n, seed)
    for dataset in {s.dataset for s in SAMPLES}:
        for kind in MediaType:
            have = [s for s in SAMPLES if s.dataset == dataset and s.media_type == kind]
            assert sum(s in drawn for s in have) == min(n, len(have))


def test_more_samples_keep_most_of_a_drawing() -> None:
    few = set(select(SAMPLES[:20], 2, 3))
    assert few & set(select(SAMPLES, 2, 3))
    assert set(select(SAMPLES, 2, 3)) <= set(select(SAMPLES, 3, 3))
