"""Media in a store, for the tests of publishing, pruning and the data service."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url

from gas.clock import ManualClock
from gas.media.image import encode_png
from gas.storage.blobs import FolderBlobs, sha256_hex
from gas.storage.database import Database, open_database
from gas.storage.tables import MediumRow, WeightsLogRow

HOTKEYS = ("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
DAY = 86400.0
WEEK = "2026-W47"
MONDAY = 1_794_787_200.0
"""2026-11-16 00:00 UTC, when that week begins."""


@dataclass
class Store:
    """A database, blobs and a clock in a folder."""

    folder: Path
    database: Database
    blobs: FolderBlobs
    clock: ManualClock

    def add(self, number: int, *, day: float = 1.0, source: str = "miner", mask: bool = False, **fields) -> str:
        """A small picture that was verified on a day of the week; returns its hash."""
        rng = np.random.default_rng(number)
        data = encode_png(rng.integers(0, 256, (24, 32, 3), np.uint8))
        sha256 = self.blobs.put(data)
        drawn = None
        if mask:
            white = np.zeros((24, 32, 3), np.uint8)
            white[:12] = 255
            drawn = self.blobs.put(encode_png(white))
        row = {
            "sha256": sha256,
            "validator": "v",
            "generator": HOTKEYS[number % 2],
            "task_id": str(number),
            "modality": "image",
            "media_type": "semisynthetic" if mask else "synthetic",
            "width": 32,
            "height": 24,
            "mime": "image/png",
            "issuer": "GAS",
            "verified_at": MONDAY + day * DAY,
            "source": source,
            "model": "model-a",
            "prompt": f"prompt {number % 3}",
            "bytes": len(data),
            "mask_sha256": drawn,
        }
        with self.database.write() as session:
            session.add(MediumRow(**(row | fields)))
        return sha256

    def row(self, sha256: str) -> MediumRow:
        with self.database.read() as session:
            return session.get_one(MediumRow, sha256)

    def pay(self, at: float) -> None:
        """Weights are set."""
        with self.database.write() as session:
            session.add(WeightsLogRow(netuid=1, block=1, weights={}, reasons={}, created_at=at))


@cache
def _empty() -> bytes:
    """The file of an empty database: migrations take longer than a test."""
    with tempfile.TemporaryDirectory() as folder:
        open_database(f"sqlite:///{folder}/gas.db").close()
        return (Path(folder) / "gas.db").read_bytes()


def open_store_at(folder: Path) -> Store:
    """A store whose clock stands two hours after the week's end."""
    file = folder / "gas.db"
    folder.mkdir(exist_ok=True)
    url = service_url(folder)
    if url.startswith("sqlite") and not file.exists():
        file.write_bytes(_empty())
    database = open_database(url, migrate=False)
    return Store(folder, database, FolderBlobs(folder / "blobs"), ManualClock(MONDAY + 7 * DAY + 7200))


__all__ = ["DAY", "HOTKEYS", "MONDAY", "WEEK", "Store", "open_store_at", "sha256_hex"]
