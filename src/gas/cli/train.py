"""``gascli d train | export``: teach a scaffold on data one has, and pack it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gas.datasets.plan_file import Plan
    from gas.datasets.store import DataStore
    from gas.submissions.package import Package
    from gas.submissions.trainer import Example, TrainProgress
    from gas.types import Modality, Sample

__all__ = ["export", "train"]

_PAIR = 160
_PAIR_CLIPS = 24
_SHOWINGS = 3
"""How often a picture or a sound is normalised: rounds draw anew, and what is learnt must outlive the draw."""


def train(
    folder: Annotated[Path, typer.Argument(help="The package's folder, e.g. of `gascli d init`.")],
    dataset_config: Annotated[
        Path | None, typer.Option(help="Registry of the data sets to learn from; the home's own sets by default.")
    ] = None,
    total: Annotated[int, typer.Option(min=20, help="Media to learn from, at most.")] = 400,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over them; by default as many as make 360 steps, and at least 12.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.1, help="End after the epoch that passes this.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, max=256, help="Media in a step; 32 by default, 16 videos.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1e-6, max=1.0, help="Largest learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads that torch computes with.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Device of torch, e.g. cpu or cuda:1; a GPU where there is one by default.")
    ] = None,
    home: Annotated[Path | None, typer.Option(envvar="GAS_HOME", help="Home with the data; .gas by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a package's network on data one has, and write its weights.

    Without data sets of the modality in the home, a small pair is made of what packages carry: real recordings and
    photos, and fakes that generators on this machine make of them. A sixth of the media is kept out, never a photo
    without the fake that was made of it; the last line is the accuracy on those. When it is interrupted, the same
    command goes on after the last whole epoch.
    """
    from gas.clock import SystemClock
    from gas.config import HomeSettings
    from gas.submissions.check import check
    from gas.submissions.trainer import TrainOptions, train_package
    from gas.types import Modality

    package = check(folder).require()
    base = home or HomeSettings().home
    limit = None if minutes is None else 60 * minutes
    with _Bar(not as_json) as bar:
        examples = _examples(package, dataset_config, total, seed, base, bar.step)
        batch = batch_size or (16 if package.modality is Modality.VIDEO else 32)
        options = TrainOptions(epochs, batch, rate, seed, limit, threads, device=device)
        done = train_package(folder, package, examples, options, SystemClock(), bar.learn, base / "training")
    check(folder).require()
    if as_json:
        found = {"folder": str(folder), "epochs": done.epochs, "loss": done.loss, "accuracy": done.accuracy}
        found |= {"learned": done.learned, "kept_out": done.kept, "seconds": round(done.seconds, 1)}
        print(json.dumps({**found, "resumed": done.resumed, "device": done.device, "seed": seed}))
        return
    where = f" on {done.device}" + (f", going on after epoch {done.resumed}" if done.resumed else "")
    print(
        f"{folder}: {done.epochs} epochs over {done.learned} media in {done.seconds:.0f} s{where}; loss {done.loss:.4f}"
    )
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
    """One progress display for data and for learning; a line a stage where standard error is no terminal."""

    def __init__(self, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._lines = shown and not console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not shown or self._lines,
        )
        self._task = self._bar.add_task("", total=None)
        self._stage = ""

    def step(self, what: str, done: int, total: int) -> None:
        self._show(what, what, done, total)

    def learn(self, at: TrainProgress) -> None:
        known = "" if at.accuracy is None else f", kept out {at.accuracy:.1%}"
        self._show(
            "learning", f"learning on {at.device}, epoch {at.epoch}, loss {at.loss:.3f}{known}", at.step, at.steps
        )

    def _show(self, stage: str, text: str, done: int, total: int) -> None:
        if stage != self._stage:
            # The time left is told by this stage's own speed.
            self._bar.reset(self._task)
            self._stage = stage
            if self._lines:
                print(f"{stage}: {total}", file=sys.stderr, flush=True)
        self._bar.update(self._task, description=text, completed=done, total=total)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _examples(
    package: Package,
    config: Path | None,
    total: int,
    seed: int,
    home: Path,
    report: Callable[[str, int, int], None],
) -> list[Example]:
    """The plan's media as rounds would show them, in the model's shape.

    What is kept out is shown as one round would, what is learned from as several.
    """
    import tempfile
    from concurrent.futures import ThreadPoolExecutor
    from dataclasses import replace

    from gas.clock import derive_seed
    from gas.datasets.plan_round import NormalOptions, freeze_plan, normalise, poorest_rate
    from gas.errors import MediaRejected
    from gas.media.target import Target, load_medium
    from gas.storage.blobs import FolderBlobs
    from gas.submissions.trainer import Example, keep_out
    from gas.types import Modality

    plan, store = _plan(package.modality, config, total, seed, home, report)
    shape = package.preprocessing
    options = NormalOptions(
        frames=max(24, shape.num_frames or 0),
        # As long as a round shows them by default: what is longer would be learnt on, and never be asked.
        seconds=min(2.0, shape.duration_seconds or 2.0),
        poorest_rate=poorest_rate(plan, store),
    )
    target = Target(package.modality, package.input_shape, package.input_dtype, shape.sample_rate or shape.frame_rate)
    with tempfile.TemporaryDirectory(prefix="gas-train-") as name:
        blobs = FolderBlobs(Path(name))
        frozen = freeze_plan(
            plan, store.get, blobs.put, options=options, on_progress=lambda _, d, n: report("normalising", d, n)
        )
        if not frozen.media:
            codes = ", ".join(sorted(set(frozen.rejected.values())))
            raise ConfigurationError(f"None of the media can be used: {codes}.", code="empty_round")
        samples = [sample for sample in plan.samples() if sample.sample_id in frozen.media]
        origins = _origins(plan, store, samples)
        bare = [Example((), sample.media_type.is_fake, origins[sample.sample_id]) for sample in samples]
        kept = keep_out(bare, seed)
        more = 1 if package.modality is Modality.VIDEO else _SHOWINGS

        def shown(place: int) -> Example | None:
            sample, one = samples[place], bare[place]
            data = [blobs.get(frozen.media[sample.sample_id])]
            try:
                for number in range(1, 1 if one.origin in kept else more):
                    draws = derive_seed(seed, "showing", number)
                    data.append(
                        normalise(
                            store.get(sample.sample_id),
                            sample.modality,
                            seed=draws,
                            origin=sample.origin,
                            rank=place,
                            options=options,
                        )
                    )
                views = [load_medium(one_of, target, robust=shared) for one_of in data for shared in (False, True)]
            except MediaRejected:
                return None
            return replace(one, views=tuple(views))

        examples = []
        with ThreadPoolExecutor(2) as pool:
            for number, example in enumerate(pool.map(shown, range(len(samples))), 1):
                report("decoding", number, len(samples))
                if example is not None:
                    examples.append(example)
    return examples


def _origins(plan: Plan, store: DataStore, samples: list[Sample]) -> dict[str, str]:
    """What each medium was made from, by its id: the plan's origin, joined over files of one name.

    In a pair of folders a fake is called as the photo that it was made of. A name that is there twice in a set, like
    ``image.png`` in every folder, says nothing.
    """
    from collections import Counter

    import pyarrow.compute as pc

    joined: dict[str, str] = {}

    def root(origin: str) -> str:
        while joined.get(origin, origin) != origin:
            origin = joined[origin]
        return origin

    origin_of = {sample.sample_id: sample.origin for sample in samples}
    first: dict[str, str] = {}
    for name in sorted(pc.unique(plan.table["dataset"]).to_pylist()):
        rows = store.table(name, ["sha256", "path"]).to_pylist()
        stems = Counter(str(Path(row["path"]).with_suffix("")) for row in rows)
        for row in rows:
            stem = str(Path(row["path"]).with_suffix(""))
            if stems[stem] == 1 and row["sha256"] in origin_of:
                a, b = root(origin_of[row["sha256"]]), root(first.setdefault(stem, origin_of[row["sha256"]]))
                joined[max(a, b)] = min(a, b)
    return {sample_id: root(origin) for sample_id, origin in origin_of.items()}


def _plan(
    modality: Modality,
    config: Path | None,
    total: int,
    seed: int,
    home: Path,
    report: Callable[[str, int, int], None],
) -> tuple[Plan, DataStore]:
    import pyarrow as pa

    from gas.bench.material import fetch_sets, sets_of, store_of
    from gas.bench.settings import BenchSettings
    from gas.datasets.plan_draw import CANDIDATE_COLUMNS, draw_plan, slim
    from gas.datasets.plan_spec import PlanMode, PlanSpec

    settings = BenchSettings(dataset_config=config, cache_dir=home)
    store = store_of(settings)
    try:
        sets = sets_of(settings, modality, store)
    except ConfigurationError as error:
        if config is not None or error.error_code not in ("empty_round", "one_class"):
            raise
        settings = BenchSettings(dataset_config=_own_pair(modality, home, report), cache_dir=home)
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
