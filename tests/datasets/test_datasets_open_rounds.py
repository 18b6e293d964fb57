"""What an open round needs is never pruned, and may be once the round is closed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from store_helpers import entry_of, picture

from gas.arena.rounds import open_round
from gas.cli.data_known import pinned_blobs
from gas.cli.main import main
from gas.clock import SystemClock
from gas.config import HomeSettings
from gas.datasets.plan import freeze_round
from gas.datasets.sources.open import open_source
from gas.datasets.store import open_store
from gas.media.masks import encode_mask
from gas.storage.blobs import FolderBlobs
from gas.storage.database import open_database
from gas.types import Provenance, Sample


def test_pruning_keeps_the_media_and_masks_of_an_open_round(tmp_path: Path) -> None:
    settings = HomeSettings(home=tmp_path / "home")
    store = open_store(settings.home)
    for name, kind, first in (("real", "real", 0), ("spliced", "semisynthetic", 10)):
        folder = tmp_path / name
        (folder / "masks").mkdir(parents=True)
        for number in range(first, first + 4):
            (folder / f"{number}.jpg").write_bytes(picture(number))
            if kind != "real":
                mask = cv2.circle(np.zeros((48, 64), np.uint8), (20 + number, 20), 9, 1, -1)
                (folder / "masks" / f"{number}.png").write_bytes(encode_mask(mask))
        rule = {} if kind == "real" else {"mask_column": "masks/{stem}.png", "generator": "splice"}
        entry = entry_of(name=name, path=str(folder), media_type=kind, **rule)
        store.fetch(entry, open_source(entry, tmp_path, {}))
    items = {name: store.items(name) for name in ("real", "spliced")}
    samples = [
        Sample(i.sha256, i.modality, i.media_type, Provenance.PUBLIC, f"public/{i.media_type}", i.source, i.origin)
        for name in items
        for i in items[name]
    ]
    masks = {item.sha256: item.mask_sha256 for item in items["spliced"][:3]}
    taken = [s for s in samples if s.sample_id in masks or s.sample_id == items["real"][0].sha256]
    exam = [s for s in samples if s not in taken]
    database = open_database(settings.resolved_database_url)
    try:
        round_ = freeze_round(taken, 1, {"masks": masks}, code_version="1")
        blobs = FolderBlobs(settings.blobs_path)
        open_round(database, blobs, round_, freeze_round(exam, 1, {}, code_version="1"), SystemClock())
    finally:
        database.close()
    needed = {sample.sample_id for sample in samples} | set(masks.values())
    assert pinned_blobs(settings.home) == needed
    lost = items["spliced"][3].mask_sha256
    with pytest.raises(SystemExit):
        main(["data", "prune", "--max-disk", "0", "--home", str(settings.home)])
    assert store.names() == ()
    assert set(store.blobs.names()) == needed
    assert lost not in needed
