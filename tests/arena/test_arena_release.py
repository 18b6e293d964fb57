"""Closing a round releases its holdouts, but for those that a round which still runs holds out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gas.arena.rounds import open_round
from gas.chain.keys import ensure_wallet, load_hotkey
from gas.chain.local.founding import create_ledger, create_subnet
from gas.cli.main import main
from gas.clock import ManualClock, SystemClock, derive_rng
from gas.config import HomeSettings
from gas.datasets.plan import freeze_round
from gas.storage.blobs import open_blobs
from gas.storage.database import open_database
from gas.types import MediaType, Modality, Provenance, Sample, Vertical


@pytest.fixture
def gascli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    for name in ("GAS_HOME", "GAS_CHAIN_ENDPOINT", "GAS_DATABASE_URL", "GAS_BLOBS_URL"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    ensure_wallet(home / "wallets", "validator")
    key = load_hotkey(home / "wallets", "validator")
    ledger = create_ledger(home / "chain.db", root=key.ss58_address, clock=SystemClock(), block_seconds=0.1)
    create_subnet(ledger, key, 1, owner=key.ss58_address, owner_hotkey=key.ss58_address)

    def run(*words: object, as_json: bool = True) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in (*words, "--home", home, *(("--json",) if as_json else ()))])
        out, err = capsys.readouterr()
        assert not ended.value.code, out + err
        return json.loads(out) if as_json else out

    return run


def test_the_last_round_that_holds_a_set_releases_it(tmp_path: Path, gascli: Callable[..., Any]) -> None:
    home = tmp_path / "home"
    for name in ("shared", "own"):
        folder = tmp_path / name
        folder.mkdir()
        pixels = derive_rng(2, name).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "one.png")
        gascli("data", "add", name, "--source", "folder", "--path", folder, "--modality", "image",
               "--media-type", "real", "--holdout", "--releasable")  # fmt: skip
        gascli("data", "fetch", name)
    settings = HomeSettings(home=home)
    blobs, database = open_blobs(settings.resolved_blobs_url), open_database(settings.resolved_database_url)
    rounds = {}
    for seed, (vertical, sets) in enumerate({Vertical.GENERAL: ("shared", "own"), Vertical.HUMAN: ("shared",)}.items()):
        samples = [
            Sample(f"{i:064x}", Modality.IMAGE, MediaType.REAL, Provenance.HOLDOUT, name, "folder", f"{i:064x}")
            for i, name in enumerate(sets)
        ]
        public = Sample("f" * 64, Modality.IMAGE, MediaType.REAL, Provenance.PUBLIC, "open", "folder", "f" * 64)
        plan, exam = (freeze_round(shown, seed, {}, code_version="0") for shown in (samples, [public]))
        rounds[vertical] = open_round(database, blobs, plan, exam, ManualClock(), vertical=vertical)
    database.close()

    closed = gascli("arena", "round", "close", "image")
    assert closed["released"] == ["own"]
    assert closed["held"] == {"shared": [f"image round {rounds[Vertical.HUMAN]}"]}
    told = gascli("arena", "round", "close", "image-human", as_json=False)
    assert "Released into the public data: shared." in told
    assert "Not released" not in told
