"""From a plan to a round: every medium fetched, normalised, stored again, and the whole frozen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from gas.datasets.normalise import NORMALISATION, normalise_image, normalise_mask
from gas.datasets.plan import Round
from gas.errors import ConfigurationError, MediaRejected
from gas.types import MediaType, Modality, Sample

if TYPE_CHECKING:
    from gas.datasets.plan_file import Plan
    from gas.datasets.store import DataStore

__all__ = ["FrozenPlan", "NormalOptions", "freeze_plan", "normalise", "poorest_rate"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class NormalOptions:
    """How normalised media look.

    Attributes:
        size: Side of pictures and frames, pixels.
        frames: Of a clip.
        seconds: Of a sound.
        poorest_rate: Lowest sample rate among the sounds, Hz.
    """

    size: int = 256
    frames: int = 24
    seconds: float = 2.0
    poorest_rate: int = 8_000


@dataclass(frozen=True, slots=True)
class FrozenPlan:
    """A plan that has become a round.

    Attributes:
        round: Its samples are the normalised media.
        media: Normalised medium of each sample of the plan.
        rejected: Why a sample of the plan is not in the round, by its id: the codes of
            :class:`~gas.errors.MediaRejected`, ``duplicate`` where two normalised media are the same, or
            ``mask_empty`` where nothing of what was changed is left to be seen.
    """

    round: Round
    media: Mapping[str, str]
    rejected: Mapping[str, str]


def normalise(
    data: bytes,
    modality: Modality,
    *,
    seed: int,
    origin: str,
    rank: int | None = None,
    options: NormalOptions | None = None,
) -> bytes:
    """A medium of any modality as it enters a round; see :mod:`gas.datasets.normalise` and its siblings.

    Raises:
        MediaRejected: The medium can't be taken.
    """
    chosen = options or NormalOptions()
    if modality is Modality.IMAGE:
        return normalise_image(data, seed=seed, origin=origin, size=chosen.size, rank=rank)
    if modality is Modality.VIDEO:
        from gas.datasets.normalise_video import normalise_video

        return normalise_video(data, seed=seed, origin=origin, size=chosen.size, frames=chosen.frames, rank=rank)
    from gas.datasets.normalise_audio import normalise_audio

    return normalise_audio(
        data, seed=seed, origin=origin, seconds=chosen.seconds, poorest_rate=chosen.poorest_rate, rank=rank
    )


def freeze_plan(
    plan: Plan,
    get: Callable[[str], bytes],
    put: Callable[[bytes], str],
    parameters: Mapping[str, object] | None = None,
    *,
    options: NormalOptions | None = None,
    workers: int = 2,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> FrozenPlan:
    """Normalise every medium of a plan and freeze the round.

    The masks of semisynthetic media are moved with them and stored; the round's parameter ``masks`` names them by
    the ids of its samples.

    Args:
        plan: Drawn.
        get: Fetches a medium or a mask as it was published by its hash, e.g. ``store.get``.
        put: Stores a normalised medium and returns its id, e.g. ``blobs.put``.
        parameters: Further parameters of the round.
        options: How the media are to look.
        workers: Threads that fetch and normalise; the result does not depend on their number.
        on_progress: Told the step, how many media are done and how many there are.

    Raises:
        ConfigurationError: ``one_class`` or ``empty_round``: too little was left.
        gas.errors.StorageError: A medium can't be fetched or stored.
    """
    chosen = options or NormalOptions()
    masks_of = dict(zip(plan.table["sample_id"].to_pylist(), plan.table["mask_sha256"].to_pylist(), strict=True))
    samples = plan.samples()
    places: Counter[tuple[str, MediaType]] = Counter()
    ranks: dict[str, int] = {}
    for sample in samples:
        group = sample.dataset, sample.media_type
        ranks[sample.sample_id] = places[group]
        places[group] += 1

    def made(sample: Sample) -> tuple[bytes, bytes | None] | str:
        mask_id = masks_of[sample.sample_id]
        try:
            data = get(sample.sample_id)
            medium = normalise(
                data,
                sample.modality,
                seed=plan.seed,
                origin=sample.origin,
                rank=ranks[sample.sample_id],
                options=chosen,
            )
            return medium, None if mask_id is None else _mask(get(mask_id), data, sample, chosen)
        except MediaRejected as error:
            return error.error_code

    media: dict[str, str] = {}
    rejected: dict[str, str] = {}
    masks: dict[str, str] = {}
    taken: set[str] = set()
    with ThreadPoolExecutor(workers) as pool:
        for done, (sample, found) in enumerate(_mapped(pool, made, samples, 8 * workers), start=1):
            if isinstance(found, str):
                rejected[sample.sample_id] = found
            elif (name := put(found[0])) in taken:
                rejected[sample.sample_id] = "duplicate"
            else:
                taken.add(name)
                media[sample.sample_id] = name
                if found[1] is not None:
                    masks[name] = put(found[1])
            if on_progress:
                on_progress("normalising", done, len(samples))
    classes = {sample.media_type.is_fake for sample in samples if sample.sample_id in media}
    if len(classes) == 1:
        raise ConfigurationError("All media of one class were rejected.", code="one_class")
    own: dict[str, object] = {"normalisation": _STEPS[plan.modality](), **({"masks": masks} if masks else {})}
    return FrozenPlan(plan.to_round({**(parameters or {}), **own}, media=media), media, rejected)


def poorest_rate(plan: Plan, store: DataStore) -> int:
    """Lowest sample rate among a plan's sounds, within what the normalisation can take; Hz."""
    import pyarrow.compute as pc

    from gas.datasets.normalise_audio import MIN_SOURCE_RATE, SOUND_RATE

    lowest = float(SOUND_RATE)
    for name in pc.unique(plan.table["dataset"]).to_pylist() if plan.modality is Modality.AUDIO else ():
        rows = store.table(name, ["sha256", "rate"])
        rates = rows.filter(pc.is_in(rows["sha256"], value_set=plan.table["sample_id"].combine_chunks()))["rate"]
        lowest = min(lowest, pc.min(rates.filter(pc.greater_equal(rates, MIN_SOURCE_RATE))).as_py() or lowest)
    return int(lowest)


def _mapped(
    pool: ThreadPoolExecutor, work: Callable[[Sample], _T], samples: Sequence[Sample], window: int
) -> Iterator[tuple[Sample, _T]]:
    """As ``pool.map``, but with a bounded number of results waiting."""
    for start in range(0, len(samples), window):
        part = samples[start : start + window]
        yield from zip(part, pool.map(work, part), strict=True)


def _mask(mask: bytes, data: bytes, sample: Sample, options: NormalOptions) -> bytes | None:
    from gas.media.masks import decode_mask, decode_masks

    if sample.modality is Modality.IMAGE:
        moved = normalise_mask(mask, data, size=options.size)
        changed = bool(decode_mask(moved).any())
    elif sample.modality is Modality.VIDEO:
        from gas.datasets.normalise_video import normalise_video_masks

        moved = normalise_video_masks(mask, data, size=options.size, frames=options.frames)
        changed = any(one.any() for one in decode_masks(moved, options.frames))
    else:
        return None
    if not changed:
        # What is left would be a real medium with the label of a fake one.
        raise MediaRejected("What was changed lies outside of what a round shows.", code="mask_empty")
    return moved


def _video_steps() -> str:
    from gas.datasets.normalise_video import VIDEO_NORMALISATION

    return VIDEO_NORMALISATION


def _audio_steps() -> str:
    from gas.datasets.normalise_audio import AUDIO_NORMALISATION

    return AUDIO_NORMALISATION


_STEPS: Final[Mapping[Modality, Callable[[], str]]] = {
    Modality.IMAGE: lambda: NORMALISATION,
    Modality.VIDEO: _video_steps,
    Modality.AUDIO: _audio_steps,
}
