"""Runs local models: one loaded at a time, in batches that fit the memory, with time and memory of each on record."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from gas.clock import Clock, derive_rng
from gas.errors import GasError, InfrastructureError
from gas.generation.base import GeneratedMedium, GenerationTask, Pipeline, SourceImage
from gas.generation.local import DIFFUSERS, load_pipeline
from gas.generation.memory import PeakMemory, choose_device, free_bytes
from gas.generation.registry import LocalModel, ModelTask
from gas.generation.registry_plan import LocalJob, Turn
from gas.generation.sources import draw_mask, open_source
from gas.media.image import encode_png
from gas.media.masks import encode_mask

__all__ = ["BatchPipeline", "LocalFailure", "LocalMedium", "ModelUse", "load_local", "run_turns"]

_SHARE: Final = 0.8
"""Of the free memory that a batch may take."""

_SOURCE_PIXELS: Final = 1024 * 1024


@runtime_checkable
class BatchPipeline(Protocol):
    """A pipeline that makes several media at a time."""

    def generate_many(self, tasks: Sequence[GenerationTask]) -> list[GeneratedMedium]:
        """Make several media, in the order of their tasks; raises as :meth:`Pipeline.generate`."""
        ...


@dataclass(slots=True)
class ModelUse:
    """What running one model has cost, and what was learnt for the next time.

    Attributes:
        media: Made so far.
        failed: Jobs that failed.
        loads: How often it was loaded.
        load_seconds: All of them together.
        seconds: Making media, all together.
        peak_bytes: The most memory while it was loaded or making media.
        item_bytes: Memory that one more medium of a batch takes, as measured; 0 when not known.
        batch: Batch that fits; 0 when not known yet.
    """

    media: int = 0
    failed: int = 0
    loads: int = 0
    load_seconds: float = 0.0
    seconds: float = 0.0
    peak_bytes: int = 0
    item_bytes: int = 0
    batch: int = 0


@dataclass(frozen=True, slots=True)
class LocalMedium:
    """A medium that was made.

    Attributes:
        job: What was asked for.
        model: Who made it.
        medium: The medium; labelled as the registry says.
        parameters: Of its task.
        source_sha256: Hex digest of the photo's file; empty without one.
        seconds: Its share of its batch's time.
        batch: How many were made at a time.
        peak_bytes: The most memory while its batch was made.
    """

    job: LocalJob
    model: LocalModel
    medium: GeneratedMedium
    parameters: dict[str, object]
    source_sha256: str
    seconds: float
    batch: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class LocalFailure:
    """A job that failed, or ``jobs`` of them (``job`` is None): the model can't be loaded, or has no room at all."""

    model: LocalModel
    error: GasError
    job: LocalJob | None = None
    jobs: int = 1


def load_local(model: LocalModel, *, threads: int = 1, device: str = "auto", downloads: bool = False) -> Pipeline:
    """Load a model of the registry.

    Raises:
        ConfigurationError: It can't be loaded on this machine, or an argument has a wrong value.
        SourceUnreachable: The hub doesn't answer.
    """
    arguments = dict(model.arguments)
    defaults = None
    if model.pipeline.startswith(DIFFUSERS):
        from gas.generation.diffusers_pipeline import Defaults

        named = {name: arguments.pop(name) for name in list(arguments) if name not in ("dtype", "class_name")}
        if isinstance(named.get("size"), list):
            named["size"] = tuple(named["size"])
        defaults = Defaults(**named)
    return load_pipeline(
        model.pipeline, threads=threads, device=device, downloads=downloads, defaults=defaults, **arguments
    )


def run_turns(
    turns: Sequence[Turn],
    *,
    photos: Sequence[Path],
    clock: Clock,
    uses: dict[str, ModelUse],
    device: str = "auto",
    load: Callable[[LocalModel], Pipeline] = load_local,
) -> Iterator[LocalMedium | LocalFailure]:
    """Make media, turn by turn.

    A model is loaded for its turn and let go after it, unless the next turn is its own. The first medium is made alone
    and measured; then batches are as large as the free memory allows. A batch for which memory runs out is halved, and
    what fits is remembered in ``uses``. A job that fails costs nothing but itself; a model that can't be loaded, or for
    which there isn't memory for a single medium, costs its jobs.

    Args:
        turns: Who makes what and when.
        photos: Files of real pictures that ``LocalJob.photo`` counts in.
        clock: Measures the seconds.
        uses: By model name; what earlier runs have learnt goes in, what this one has cost comes out.
        device: What models run on: ``auto``, ``cpu`` or ``cuda...``.
        load: Loads a model.

    Raises:
        ConfigurationError: There is no such device.
    """
    place = str(choose_device(device))
    given_up: set[str] = set()
    loaded: tuple[str, Pipeline] | None = None
    for number, turn in enumerate(turns):
        model = turn.model
        use = uses.setdefault(model.name, ModelUse())
        if model.name in given_up:
            continue
        if loaded is None or loaded[0] != model.name:
            # The old one goes first: two at a time may not fit.
            if loaded is not None:
                loaded = None
                _let_go(place)
            began, peak = clock.monotonic(), PeakMemory(place)
            try:
                loaded = (model.name, load(model))
            except GasError as error:
                given_up.add(model.name)
                left = sum(len(t.jobs) for t in turns if t.model.name == model.name)
                use.failed += left
                yield LocalFailure(model, error, jobs=left)
                continue
            use.loads += 1
            use.load_seconds += clock.monotonic() - began
            use.peak_bytes = max(use.peak_bytes, peak.bytes())
        for made in _turn(turn, loaded[1], photos, clock, use, place):
            result = made
            if isinstance(made, LocalFailure):
                if made.job is None:
                    given_up.add(model.name)
                    later = sum(len(t.jobs) for t in turns[number + 1 :] if t.model.name == model.name)
                    result = replace(made, jobs=made.jobs + later)
                    use.failed += later
                use.failed += made.jobs
            yield result
    loaded = None
    _let_go(place)


@dataclass(slots=True)
class _Asked:
    """A job with its task, ready for the pipeline."""

    job: LocalJob
    task: GenerationTask
    source_sha256: str = ""


def _turn(
    turn: Turn, pipeline: Pipeline, photos: Sequence[Path], clock: Clock, use: ModelUse, place: str
) -> Iterator[LocalMedium | LocalFailure]:
    waiting = list(turn.jobs)
    most = turn.model.max_batch if isinstance(pipeline, BatchPipeline) else 1
    while waiting:
        asked: list[_Asked] = []
        for job in waiting[: min(most, use.batch or 1)]:
            try:
                asked.append(_asked(job, turn.model, photos))
            except GasError as error:
                waiting.remove(job)
                yield LocalFailure(turn.model, error, job)
        if not asked:
            continue
        peak, began = PeakMemory(place), clock.monotonic()
        before = peak.bytes()
        try:
            media = _generate(pipeline, [one.task for one in asked])
        except GasError as error:
            if error.error_code != "out_of_memory":
                yield from _one_by_one(turn, pipeline, asked, error, clock, use)
                waiting = waiting[len(asked) :]
            elif len(asked) > 1:
                use.batch = len(asked) // 2
                _let_go(place)
            else:
                yield LocalFailure(turn.model, error, jobs=len(waiting))
                return
            continue
        seconds, top = clock.monotonic() - began, peak.bytes()
        _learn(use, len(asked), top - before, most, place)
        use.peak_bytes = max(use.peak_bytes, top)
        for one, medium in zip(asked, media, strict=True):
            yield _made(turn.model, one, medium, use, seconds / len(asked), len(asked), top)
        waiting = waiting[len(asked) :]


def _one_by_one(
    turn: Turn, pipeline: Pipeline, asked: list[_Asked], error: GasError, clock: Clock, use: ModelUse
) -> Iterator[LocalMedium | LocalFailure]:
    """One job of a batch failed: each is tried by itself, so that the others don't suffer."""
    if len(asked) == 1:
        yield LocalFailure(turn.model, error, asked[0].job)
        return
    for one in asked:
        began = clock.monotonic()
        try:
            medium = pipeline.generate(one.task)
        except GasError as failure:
            yield LocalFailure(turn.model, failure, one.job)
            continue
        yield _made(turn.model, one, medium, use, clock.monotonic() - began, 1, use.peak_bytes)


def _generate(pipeline: Pipeline, tasks: list[GenerationTask]) -> list[GeneratedMedium]:
    if len(tasks) > 1 and isinstance(pipeline, BatchPipeline):
        return pipeline.generate_many(tasks)
    return [pipeline.generate(task) for task in tasks]


def _learn(use: ModelUse, made: int, grown: int, most: int, place: str) -> None:
    """Choose the next batch by what this one took; once memory has run out at a size, that size isn't tried again."""
    if use.batch and made < use.batch:
        return
    use.item_bytes = max(use.item_bytes, grown // made)
    free = free_bytes(place)
    if use.batch == 0:
        fitting = most if free is None or use.item_bytes <= 0 else int(free * _SHARE) // use.item_bytes
        use.batch = max(1, min(most, fitting))


def _asked(job: LocalJob, model: LocalModel, photos: Sequence[Path]) -> _Asked:
    parameters: dict[str, object] = dict(model.parameters)
    if job.photo is None:
        return _Asked(job, GenerationTask(model.task.modality, job.prompt, job.seed, parameters))
    path = photos[job.photo]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InfrastructureError(f"The photo {path.name} can't be read.", code="photo") from error
    canvas = open_source(SourceImage(data), _SOURCE_PIXELS)
    height, width = canvas.pixels.shape[:2]
    mask = None
    if model.task is ModelTask.INPAINT:
        mask = encode_mask(draw_mask(height, width, derive_rng(job.seed, "mask")))
    # The picture as it was opened: upright, and small enough for its mask to fit it.
    source = SourceImage(encode_png(canvas.pixels), mask)
    task = GenerationTask(model.task.modality, job.prompt, job.seed, parameters, source)
    return _Asked(job, task, hashlib.sha256(data).hexdigest())


def _made(
    model: LocalModel, one: _Asked, medium: GeneratedMedium, use: ModelUse, seconds: float, batch: int, peak: int
) -> LocalMedium:
    use.media += 1
    use.seconds += seconds
    labelled = GeneratedMedium(
        medium.data, medium.mime, model.media_type, medium.model, _mask_of(model, medium), medium.signed
    )
    return LocalMedium(one.job, model, labelled, one.task.parameters, one.source_sha256, seconds, batch, peak)


def _mask_of(model: LocalModel, medium: GeneratedMedium) -> bytes | None:
    """A synthetic medium has no mask."""
    return medium.mask if model.media_type is medium.media_type else None


def _let_go(place: str) -> None:
    gc.collect()
    if place != "cpu":
        import torch

        torch.cuda.empty_cache()
