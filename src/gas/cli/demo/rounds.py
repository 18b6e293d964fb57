"""The demo's frozen round: public and held-out photos, what the arena's owner made of them, and the arena's media."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gas import __version__
from gas.arena.rounds import open_round
from gas.chain.keys import load_hotkey
from gas.cli.demo.cast import GENERATORS, VALIDATOR
from gas.cli.demo.home import DemoHome
from gas.cli.demo.material import photos_of
from gas.clock import SystemClock, derive_rng, derive_seed
from gas.datasets.audit import audit_round
from gas.datasets.normalise import NORMALISATION, normalise_image
from gas.datasets.photos import Split
from gas.datasets.plan import freeze_round
from gas.generation.resynthesis import Painter
from gas.media.image import RGB, decode_image
from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database
from gas.types import Hotkey, MediaType, Modality, Provenance, Sample
from gas.validator.tasks import Challenges

__all__ = ["EXAM_FAKE", "EXAM_REAL", "FAKES_OF", "freeze"]

_REAL_PER_SPLIT: Final = 60
_FAKE_PER_SPLIT: Final = 24
EXAM_REAL: Final = 30
EXAM_FAKE: Final = 24
_ROBUST: Final = 12
"""Samples of each data set that are evaluated again after the sharing chain."""

FAKES_OF: Final = {"public": "animevideov3-x2", "holdout": "animevideov3-x4"}
"""With which network the arena's owner makes fakes from a split's photos; authors never see the holdout's."""


@dataclass(frozen=True, slots=True)
class _Raw:
    """A medium before the normalisation."""

    data: bytes | RGB
    media_type: MediaType
    provenance: Provenance
    dataset: str
    source: str
    origin: str
    hotkey: Hotkey | None = None


async def freeze(home: DemoHome, database: Database, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Make, normalise and freeze the round and its exam, and open them.

    Every medium is decoded once here and once in the benchmark, where all models share the pixels.

    Args:
        home: The demo, its generators done.
        database: Where the round is opened.
        report: Told how many media of how many are ready.

    Returns:
        ``{"id", "seed", "data_hash", "sizes", "samples", "exam_id", "exam_samples", "audit", "folder"}``
    """
    return await asyncio.to_thread(_freeze, home, database, report)


def _freeze(home: DemoHome, database: Database, report: Callable[[int, int], None]) -> dict[str, Any]:
    clock, settings = SystemClock(), home.settings
    blobs = FolderBlobs(settings.blobs_path)
    seed = derive_seed(home.seed, "round") >> 1
    validator = load_hotkey(settings.wallets_path, VALIDATOR.name).ss58_address
    delivered = Challenges(database, validator, clock).media()
    total = 2 * _REAL_PER_SPLIT + 2 * _FAKE_PER_SPLIT + EXAM_REAL + len(delivered)
    done = 0

    def ready(count: int = 1) -> None:
        nonlocal done
        done += count
        report(done, total)

    names = {home.results["found"]["members"][m.name]["hotkey"]: m.name for m in GENERATORS}
    media = (
        _Raw(
            blobs.get(row.sha256), MediaType.SYNTHETIC, Provenance.ARENA, f"arena-{names[row.generator]}",
            names[row.generator], row.sha256, Hotkey(row.generator),
        )
        for row in delivered
    )  # fmt: skip
    samples = _normalised(media, seed, blobs, ready)
    exam: list[Sample] = []
    parts: tuple[tuple[Split, Provenance], ...] = (("public", Provenance.PUBLIC), ("holdout", Provenance.HOLDOUT))
    for split, provenance in parts:
        photos = _order(photos_of(home, split), seed, split)
        real, rest = photos[:_REAL_PER_SPLIT], photos[_REAL_PER_SPLIT:]
        makers, rest = rest[:_FAKE_PER_SPLIT], rest[_FAKE_PER_SPLIT:]
        samples += _normalised(_photos(real, split, provenance), seed, blobs, ready)
        fakes = _normalised(_fakes(makers, split, provenance, seed), seed, blobs, ready)
        samples += fakes
        if split == "public":
            exam = _normalised(_photos(rest[:EXAM_REAL], split, provenance), seed, blobs, ready) + fakes[:EXAM_FAKE]
    parameters = {"normalisation": NORMALISATION, "robustness_per_dataset": _ROBUST}
    round_ = freeze_round(samples, seed, parameters, code_version=__version__)
    exam_round = freeze_round(
        exam, seed, {"normalisation": NORMALISATION, "robustness_per_dataset": 0}, code_version=__version__
    )
    open_round(database, blobs, round_, exam_round, clock)
    audit = {
        pair: None if result is None else {"balanced_accuracy": result.balanced_accuracy, "high": result.high}
        for pair, result in audit_round(round_.samples, blobs.get, seed).items()
    }
    return {
        "id": round_.round_id,
        "seed": seed,
        "data_hash": round_.data_hash,
        "sizes": round_.sizes,
        "samples": len(round_.samples),
        "exam_id": exam_round.round_id,
        "exam_samples": len(exam_round.samples),
        "exam_sizes": exam_round.sizes,
        "audit": audit,
    }


def _order(photos: Iterable[dict[str, Any]], seed: int, split: Split | str) -> list[dict[str, Any]]:
    return sorted(photos, key=lambda photo: derive_seed(seed, "pick", split, photo["sha256"]))


def _photos(photos: Iterable[dict[str, Any]], split: str, provenance: Provenance) -> Iterable[_Raw]:
    for photo in photos:
        data = Path(photo["path"]).read_bytes()
        yield _Raw(data, MediaType.REAL, provenance, f"{split}-photos", photo["package"], photo["sha256"])


def _fakes(photos: Sequence[dict[str, Any]], split: str, provenance: Provenance, seed: int) -> Iterable[_Raw]:
    """One resynthesis of each photo, by the network of the split."""
    painter = Painter(FAKES_OF[split], threads=2)
    for photo in photos:
        pixels = decode_image(Path(photo["path"]).read_bytes())
        painted = painter.repaint(pixels, derive_rng(seed, "fake", photo["sha256"]))
        yield _Raw(
            painted,
            MediaType.SYNTHETIC,
            provenance,
            f"{split}-resyntheses",
            f"owner-{FAKES_OF[split]}",
            photo["sha256"],
        )


def _normalised(media: Iterable[_Raw], seed: int, blobs: FolderBlobs, ready: Callable[[], None]) -> list[Sample]:
    out = []
    for rank, medium in enumerate(media):
        data = normalise_image(medium.data, seed=seed, origin=medium.origin, rank=rank)
        out.append(
            Sample(
                blobs.put(data),
                Modality.IMAGE,
                medium.media_type,
                medium.provenance,
                medium.dataset,
                medium.source,
                medium.origin,
                medium.hotkey,
            )
        )
        ready()
    return out
