"""Who makes what and when: the jobs of a run, and the turns in which models take them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gas.clock import derive_rng, derive_seed
from gas.generation.prompts import PromptSource
from gas.generation.registry import LocalModel
from gas.types import Modality

__all__ = ["LocalJob", "Turn", "plan_jobs", "plan_turns"]


@dataclass(frozen=True, slots=True)
class LocalJob:
    """One medium to be made.

    Attributes:
        id: 16 hex digits; the same for the same model (its arguments included), index, seed, prompt and photo.
        model: Name of the model.
        index: Its number among the model's jobs of this run, from 0.
        prompt: What to show or say.
        seed: Of the pipeline's draws.
        photo: Index of the source among the run's photos; None where none is needed.
    """

    id: str
    model: str
    index: int
    prompt: str
    seed: int
    photo: int | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """Jobs that one model makes while it is loaded."""

    model: LocalModel
    jobs: tuple[LocalJob, ...] = field(repr=False)


def plan_jobs(
    model: LocalModel, count: int, *, seed: int, prompts: Sequence[str] = (), photos: Sequence[str] = ()
) -> tuple[LocalJob, ...]:
    """The jobs of one model.

    Args:
        model: The model.
        count: How many media.
        seed: Of the run; the same one gives the same jobs.
        prompts: To draw from; from templates when empty.
        photos: Names or hashes of the sources to draw from.

    Raises:
        ValueError: The model needs a source and there is none.
    """
    if model.task.needs_source and not photos:
        raise ValueError("This model needs photos.")
    source = PromptSource()
    jobs = []
    for index in range(count):
        rng = derive_rng(seed, "local", model.name, index)
        prompt = prompts[int(rng.integers(len(prompts)))] if prompts else source.draw(rng)
        photo = int(rng.integers(len(photos))) if model.task.needs_source else None
        what = [
            model.model_dump(mode="json", include={"name", "task", "pipeline", "arguments", "parameters"}),
            seed, index, prompt, None if photo is None else photos[photo],
        ]  # fmt: skip
        digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
        jobs.append(
            LocalJob(digest[:16], model.name, index, prompt, derive_seed(seed, "job", model.name, index) % 2**63, photo)
        )
    return tuple(jobs)


def plan_turns(models: Iterable[LocalModel], jobs: Mapping[str, Sequence[LocalJob]], per_turn: int) -> tuple[Turn, ...]:
    """Cut every model's jobs into turns and put them in an order in which no modality waits long.

    The modalities take turns, and within each its models do. A model is loaded once a turn, so ``per_turn`` jobs share
    the cost of one loading.

    Args:
        models: In the order in which they begin.
        jobs: Of each model, by its name.
        per_turn: Jobs of one turn at most, at least 1.

    Returns:
        Every job once. Where two modalities have work left, no two turns of one of them follow each other.
    """
    queues: dict[Modality, list[list[Turn]]] = {}
    for model in models:
        mine = jobs.get(model.name, ())
        turns = [Turn(model, tuple(mine[i : i + per_turn])) for i in range(0, len(mine), per_turn)]
        if turns:
            queues.setdefault(model.task.modality, []).append(turns)
    order: list[Turn] = []
    while queues:
        for modality in list(queues):
            waiting = queues[modality]
            first = waiting.pop(0)
            order.append(first.pop(0))
            if first:
                waiting.append(first)
            if not waiting:
                del queues[modality]
    return tuple(order)
