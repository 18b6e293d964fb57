"""``gascli d train | export``: teach a scaffold on data one has, and pack it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gas.datasets.plan_file import Plan
    from gas.datasets.store import DataStore
    from gas.submissions.package import Package
    from gas.submissions.trainer import Example
    from gas.types import Modality

__all__ = ["export", "train"]

_PAIR = 160
_PAIR_CLIPS = 24


def train(
    folder: Annotated[Path, typer.Argument(help="The package's folder, e.g. of `gascli d init`.")],
    dataset_config: Annotated[
        Path | None, typer.Option(help="Registry of the data sets to learn from; the home's own sets by default.")
    ] = None,
    total: Annotated[int, typer.Option(min=20, help="Media to learn from, at most.")] = 400,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over them.")] = 20,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="End after the epoch that passes this.")] = None,
    batch_size: Annotated[int, typer.Option(min=2, max=256, help="Media in a step.")] = 16,
    rate: Annotated[float, typer.Option(min=1e-6, max=1.0, help="Largest learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads that torch computes with.")] = 1,
    home: Annotated[Path | None, typer.Option(envvar="GAS_HOME", help="Home with the data; .gas by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a package's network on data one has, and write its weights.

    Without data sets of the modality in the home, a small pair is made of what packages carry: real recordings and
    photos, and fakes that generators on this machine make of them. A sixth of the media is kept out; the last line
    is the accuracy on those.
    """
    from gas.clock import SystemClock
    from gas.submissions.check import check
    from gas.submissions.trainer import TrainOptions, train_package

    package = check(folder).require()
    with _bar(not as_json) as bar:
        examples = _examples(package, dataset_config, total, seed, home, bar.step)
        options = TrainOptions(epochs, batch_size, rate, seed, None if minutes is None else 60 * minutes, threads)
        done = train_package(
            folder,
            package,
            examples,
            options,
            SystemClock(),
            lambda p: bar.learn(p.step, p.steps, p.epoch, p.loss, p.accuracy),
        )
    check(folder).require()
    if as_json:
        found = {"folder": str(folder), "epochs": done.epochs, "loss": done.loss, "accuracy": done.accuracy}
        print(json.dumps({**found, "learned": done.learned, "kept_out": done.kept, "seconds": round(done.seconds, 1)}))
        return
    print(f"{folder}: {done.epochs} epochs over {done.learned} media in {done.seconds:.0f} s, loss {done.loss:.4f}")
    if done.accuracy is None:
        print("Too few media were kept out to say how good it is.")
    else:
        print(f"Balanced accuracy on {done.kept} media that it did not learn from: {done.accuracy:.1%}")
    print(f"Next: gascli d check {folder}, gasbench run --{package.modality}-model {folder}")


def export(
    folder: Annotated[Path, typer.Argument(help="The package's folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The zip; FOLDER.zip by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Pack a folder into the zip that is pushed: the same folder gives the same bytes everywhere.

    The static checks come first: what they refuse is not packed.
    """
    from gas.arena.submissions import file_sha256
    from gas.submissions.check import check
    from gas.submissions.pack import pack

    package = check(folder).require()
    target = out or Path(f"{folder.resolve().name}.zip")
    files = pack(folder, target)
    sha256, size = file_sha256(target), target.stat().st_size
    if as_json:
        print(json.dumps({"path": str(target), "sha256": sha256, "bytes": size, "files": list(files)}))
        return
    print(f"{target}: {package.name} {package.version}, {size:,} bytes, {', '.join(files)}")
    print(f"SHA-256 {sha256}")
    print(f"Next: gascli d push --{package.modality}-model {target}")


class _Bar:
    """One progress display for data and for learning."""

    def __init__(self, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._bar.add_task("", total=None)

    def step(self, what: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total)

    def learn(self, step: int, steps: int, epoch: int, loss: float, accuracy: float | None) -> None:
        known = "" if accuracy is None else f", kept out {accuracy:.1%}"
        self.step(f"learning, epoch {epoch}, loss {loss:.3f}{known}", step, steps)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _bar(shown: bool) -> _Bar:
    return _Bar(shown)


def _examples(
    package: Package,
    config: Path | None,
    total: int,
    seed: int,
    home: Path | None,
    report: Callable[[str, int, int], None],
) -> list[Example]:
    """The plan's media as a round would show them, in the model's shape."""
    import tempfile

    from gas.datasets.plan_round import NormalOptions, freeze_plan, poorest_rate
    from gas.errors import MediaRejected
    from gas.media.target import Target, load_medium
    from gas.storage.blobs import FolderBlobs
    from gas.submissions.trainer import Example

    plan, store = _plan(package.modality, config, total, seed, home, report)
    shape = package.preprocessing
    options = NormalOptions(
        frames=max(24, shape.num_frames or 0),
        # As long as a round shows them by default: what is longer would be learnt on, and never be asked.
        seconds=min(2.0, shape.duration_seconds or 2.0),
        poorest_rate=poorest_rate(plan, store),
    )
    target = Target(package.modality, package.input_shape, package.input_dtype, shape.sample_rate or shape.frame_rate)
    examples = []
    with tempfile.TemporaryDirectory(prefix="gas-train-") as name:
        blobs = FolderBlobs(Path(name))
        frozen = freeze_plan(
            plan, store.get, blobs.put, options=options, on_progress=lambda _, d, n: report("normalising", d, n)
        )
        samples = frozen.round.samples
        for number, sample in enumerate(samples, 1):
            data = blobs.get(sample.sample_id)
            try:
                views = tuple(load_medium(data, target, robust=shared) for shared in (False, True))
            except MediaRejected:
                continue
            examples.append(Example(views, sample.media_type.is_fake, sample.origin))
            report("decoding", number, len(samples))
    return examples


def _plan(
    modality: Modality,
    config: Path | None,
    total: int,
    seed: int,
    home: Path | None,
    report: Callable[[str, int, int], None],
) -> tuple[Plan, DataStore]:
    import pyarrow as pa

    from gas.bench.material import fetch_sets, sets_of, store_of
    from gas.bench.settings import BenchSettings
    from gas.config import HomeSettings
    from gas.datasets.plan_draw import CANDIDATE_COLUMNS, draw_plan, slim
    from gas.datasets.plan_spec import PlanMode, PlanSpec

    base = home or HomeSettings().home
    settings = BenchSettings(dataset_config=config, cache_dir=base)
    store = store_of(settings)
    try:
        sets = sets_of(settings, modality, store)
    except ConfigurationError as error:
        if config is not None or error.error_code not in ("empty_round", "one_class"):
            raise
        settings = BenchSettings(dataset_config=_own_pair(modality, base, report), cache_dir=base)
        sets = sets_of(settings, modality, store)
    fetch_sets(store, sets)
    spec = PlanSpec(
        modality=modality,
        mode=PlanMode.FULL,
        seed=seed,
        total=total,
        provenances={one.entry.name: one.provenance for one in sets},
    )
    tables = [slim(store.table(one.entry.name, CANDIDATE_COLUMNS)) for one in sets]
    return draw_plan(pa.concat_tables(tables), spec), store


def _own_pair(modality: Modality, home: Path, report: Callable[[str, int, int], None]) -> Path:
    """Registry of the pair that is made once in a home for people without data."""
    from gas.cli.data_pair import make_pair

    folder = home / "pairs" / modality
    registry = folder / "registry.yaml"
    if not registry.exists():
        # Without its registry a pair is unfinished: a killed command begins it anew.
        shutil.rmtree(folder, ignore_errors=True)
        make_pair(modality, folder, _PAIR if modality != "video" else _PAIR_CLIPS, report=report)
    return registry
