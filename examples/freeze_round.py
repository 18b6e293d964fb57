"""Freeze pictures of your own to a round, to benchmark a detector on it or to open it in an arena.

    python examples/freeze_round.py --real photos --fake generated --out my-round
    python examples/freeze_round.py --real photos --fake generated --out my-round --open HOME

The first form writes a folder for ``gascli d bench --round my-round``. The second also opens the round, and an
entrance exam of pictures that the round does not use, in the arena whose home is HOME.

A fake that was made from a photo should have the photo's file name (the ending may differ): both then count as one
origin and stay on one side of every split. The folder of a fake below ``--fake`` names its source, e.g. its generator.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from gas import __version__
from gas.arena.rounds import open_round
from gas.clock import SystemClock, derive_rng
from gas.config import HomeSettings
from gas.datasets.normalise import NORMALISATION, normalise_image
from gas.datasets.plan import Round, freeze_round, write_round
from gas.errors import GasError, MediaRejected
from gas.storage.blobs import BlobStore, FolderBlobs, open_blobs, sha256_hex
from gas.storage.database import open_database
from gas.types import MediaType, Modality, Provenance, Sample


def main() -> int:
    """Freeze, and open where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder of real pictures")
    parser.add_argument("--fake", type=Path, required=True, help="folder of fake pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the round; its media go to OUT/blobs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the splits and of the normalisation")
    parser.add_argument("--holdout", type=float, default=0.4, help="share of the origins that are held out")
    parser.add_argument("--exam", type=float, default=0.2, help="share of the origins that the exam takes (--open)")
    parser.add_argument("--open", type=Path, metavar="HOME", help="also open the round in the arena of this home")
    arguments = parser.parse_args()
    try:
        return freeze(arguments)
    except GasError as error:
        print(f"freeze_round: {error}", file=sys.stderr)
        return 1


def freeze(arguments: argparse.Namespace) -> int:
    """Do what the command line says."""
    blobs: BlobStore = FolderBlobs(arguments.out / "blobs")
    exam_share = arguments.exam if arguments.open else 0.0
    origins = {path.stem: sha256_hex(path.read_bytes()) for path in pictures(arguments.real)}
    samples: dict[bool, list[Sample]] = {True: [], False: []}
    skipped: Counter[str] = Counter()
    for kind, root in ((MediaType.REAL, arguments.real), (MediaType.SYNTHETIC, arguments.fake)):
        for rank, path in enumerate(pictures(root)):
            origin = origins.get(path.stem) or sha256_hex(path.read_bytes())
            # One draw for an origin decides its place, whatever else is in the folders.
            place = derive_rng(arguments.seed, "place", origin).random()
            held = exam_share <= place < exam_share + arguments.holdout
            try:
                data = normalise_image(path.read_bytes(), seed=arguments.seed, origin=origin, rank=rank)
            except MediaRejected as error:
                skipped[error.error_code] += 1
                continue
            provenance = Provenance.HOLDOUT if held else Provenance.PUBLIC
            source = path.relative_to(root).parts[0] if path.parent != root else root.name
            samples[place < exam_share].append(
                Sample(
                    blobs.put(data),
                    Modality.IMAGE,
                    kind,
                    provenance,
                    f"{provenance}-{kind}",
                    f"{kind}-{source}",
                    origin,
                )
            )
    round_ = plan(samples[False], arguments.seed, robust=20)
    write_round(round_, arguments.out)
    print(f"round {round_.round_id}: " + ", ".join(f"{count} {name}" for name, count in round_.sizes.items()))
    if skipped:
        print("skipped: " + ", ".join(f"{count} {code}" for code, count in skipped.items()))
    if arguments.open:
        exam = plan(samples[True], arguments.seed, robust=0)
        settings = HomeSettings(home=arguments.open)
        store = open_blobs(settings.resolved_blobs_url)
        for sample in (*round_.samples, *exam.samples):
            store.put(blobs.get(sample.sample_id))
        database = open_database(settings.resolved_database_url)
        try:
            open_round(database, store, round_, exam, SystemClock())
        finally:
            database.close()
        print(f"exam {exam.round_id}: " + ", ".join(f"{count} {name}" for name, count in exam.sizes.items()))
        print(f"opened in {arguments.open}")
    return 0


def plan(samples: list[Sample], seed: int, *, robust: int) -> Round:
    """Freeze samples; a picture that is there twice counts once."""
    distinct = {sample.sample_id: sample for sample in samples}
    parameters = {"normalisation": NORMALISATION, "robustness_per_dataset": robust}
    return freeze_round(distinct.values(), seed, parameters, code_version=__version__)


def pictures(root: Path) -> list[Path]:
    """All pictures below a folder, in a fixed order."""
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))


if __name__ == "__main__":
    raise SystemExit(main())
