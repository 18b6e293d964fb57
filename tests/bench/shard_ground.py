"""One model on a small round of real files, ready to be run in any way; for tests of shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gasbench_ground import SHAPES, mean_onnx, media, registry

from gas.bench.journal import Journal, run_identity
from gas.bench.local import SetBlobs, evaluate_package, packed
from gas.bench.material import draw, fetch_sets, sets_of, store_of
from gas.bench.records import to_parquet
from gas.bench.runs import RunConfig, RunResult
from gas.bench.settings import BenchSettings
from gas.bench.shards import evaluate_sharded
from gas.datasets.plan import Round
from gas.sandbox import best_sandbox
from gas.sandbox.base import Tier
from gas.submissions.check import check
from gas.submissions.fingerprint import file_sha256
from gas.submissions.package import Package
from gas.types import Modality


@dataclass
class Ground:
    """A round, a model and how it is run."""

    root: Path
    archive: Path
    checked: Package
    round: Round
    blobs: SetBlobs
    config: RunConfig

    def journal(self, folder: Path) -> Journal:
        """The run's journal, in a folder of one's own."""
        return Journal(folder, run_identity(file_sha256(self.archive), self.round, self.config), self.config.nonce)

    def local(self, folder: Path) -> RunResult:
        """The run on this machine, as everybody's is by default."""
        with self.journal(folder) as journal:
            (folder / "work").mkdir()
            return evaluate_package(
                self.archive, self.checked, self.round, self.blobs, best_sandbox(Tier.BUBBLEWRAP), self.config,
                work=folder / "work", pixels=folder / "pixels", journal=journal,
            )[0]  # fmt: skip

    def sharded(self, folder: Path, executor, **more) -> RunResult:
        """The run over an executor."""
        (folder / "work").mkdir(parents=True)
        with self.journal(folder) as journal:
            return evaluate_sharded(
                self.archive, self.checked, self.round, self.blobs, best_sandbox(Tier.BUBBLEWRAP), self.config,
                executor, work=folder / "work", pixels=folder / "pixels", journal=journal, **more,
            )[0]  # fmt: skip


def ground(root: Path, kind: str = "honest", count: int = 10, **config: object) -> Ground:
    """A model of pictures on ``count`` real and ``count`` fake ones, in batches of four."""
    if not (root / "sets.yaml").exists():
        media(root, "image", count)
        registry(root / "sets.yaml", ("image",))
    settings = BenchSettings(mode="small", dataset_config=root / "sets.yaml", cache_dir=root / "cache")
    store = store_of(settings)
    sets = sets_of(settings, Modality.IMAGE, store)
    fetch_sets(store, sets)
    round_ = draw(store, sets, Modality.IMAGE, settings).to_round()
    (root / kind).mkdir()
    archive = packed(mean_onnx(root / f"{kind}.onnx", SHAPES["image"], 0.05, 127.0, kind), root / kind)
    checked = check(archive, modality=Modality.IMAGE).require()
    complete = {"nonce": "a secret of the run", "batch_size": 4, "robustness_per_dataset": 3, "processes": 1, **config}
    return Ground(root, archive, checked, round_, SetBlobs(store.blobs.root, round_.samples), RunConfig(**complete))


def record_bytes(result: RunResult) -> bytes:
    """What ``records.parquet`` would hold."""
    return to_parquet(result.records)
