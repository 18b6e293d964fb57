"""A task's parameters, read and bounded once for every local pipeline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from gas.errors import RequestRefused
from gas.generation.base import GenerationTask
from gas.scoring.generators import TIERS
from gas.types import Modality

__all__ = ["MOST_FRAMES", "TIER_SIZES", "Wishes", "read_wishes", "unsupported"]

TIER_SIZES: Final[dict[str, tuple[int, int]]] = {
    "1K": (1024, 1024),
    "2K": (2048, 2048),
    "4K": (3584, 3584),
    "480p": (848, 480),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
}
"""Width and height of each tier of pictures and videos, pixels: large enough to be paid as that tier."""

MOST_FRAMES: Final[dict[str, int]] = {"480p": 241, "720p": 161, "1080p": 121}
"""Frames of one video that may be asked for, by tier."""

_ALIKE: Final = ("num_inference_steps", "guidance_scale", "num_frames")
_KNOWN: Final = frozenset(
    (
        *("resolution", "tier", "width", "height", "seed", "steps", "guidance", "negative_prompt"),
        *("frames", "fps", "duration", "strength", *_ALIKE),
    )
)
_FOR_OTHERS: Final = frozenset(("aspect_ratio", "format", "language", "quality", "style", "voice"))
# Local pipelines have no choice of these; paid services do.
_LEAST_SIDE: Final = 64
_LONGEST_NEGATIVE: Final = 1000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a task asks for beyond its prompt; None where it leaves the choice to the pipeline.

    Attributes:
        tier: Name of the tier, one of :data:`gas.scoring.generators.TIERS`.
        size: Width and height in pixels that were asked for in numbers; each 64 or more.
        tier_size: Width and height of the tier: what to come near to where no numbers were given.
        steps: Steps of a diffusion, 1..100.
        guidance: How much the prompt pulls, 0..30.
        negative_prompt: What not to show.
        frames: Of a video, 1 to the tier's :data:`MOST_FRAMES`.
        fps: Frames a second, 1..60.
        seconds: Of a video, 0.1..60; the frames count where both are given.
        most_frames: Of a video of this tier.
        strength: How much of a source is changed, above 0 to 1.
    """

    tier: str | None = None
    size: tuple[int, int] | None = None
    tier_size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    frames: int | None = None
    fps: float | None = None
    seconds: float | None = None
    most_frames: int = 121
    strength: float | None = None

    def frames_of(self, usual: int, fps: float) -> int:
        """Frames to make.

        Args:
            usual: How many when nothing is asked for.
            fps: Frames a second of the video.
        """
        if self.frames is not None:
            return self.frames
        return usual if self.seconds is None else max(1, min(self.most_frames, round(self.seconds * fps)))


def unsupported(message: str) -> RequestRefused:
    """The refusal of a parameter: 422 ``unsupported_parameters``."""
    return RequestRefused(message, status=422, code="unsupported_parameters")


def read_wishes(task: GenerationTask) -> Wishes:
    """Read and check a task's parameters.

    ``steps`` and ``num_inference_steps``, ``guidance`` and ``guidance_scale``, ``frames`` and ``num_frames`` mean the
    same. ``resolution`` is a tier's name, or the shorter side in pixels. ``seed`` is the miner's to use: the task's own
    seed counts here. What only paid services know (``style``, ``voice`` and such) is passed over.

    Raises:
        RequestRefused: 422 ``unsupported_parameters``: an unknown name or tier, or a value out of its bounds.
    """
    given = {name: value for name, value in task.parameters.items() if value is not None}
    unknown = sorted(str(name)[:40] for name in given if name not in _KNOWN | _FOR_OTHERS)
    if unknown:
        raise unsupported(f"There is no parameter {unknown[0]!r}.")
    tier, side = _resolution(given, task.modality)
    tier_size = TIER_SIZES.get(tier) if tier else None
    size = _size(given, side, tier_size, task.modality)
    most_frames = MOST_FRAMES.get(tier or "1080p", MOST_FRAMES["1080p"])
    negative = given.get("negative_prompt", "")
    if not isinstance(negative, str) or len(negative) > _LONGEST_NEGATIVE:
        raise unsupported(f"A negative prompt is a text of up to {_LONGEST_NEGATIVE} characters.")
    steps = _number(given, ("steps", "num_inference_steps"), 1, 100, whole=True)
    frames = _number(given, ("frames", "num_frames"), 1, most_frames, whole=True)
    fps = _number(given, ("fps",), 1, 60)
    seconds = _number(given, ("duration",), 0.1, 60)
    return Wishes(
        tier=tier,
        size=size,
        tier_size=tier_size,
        steps=None if steps is None else int(steps),
        guidance=_number(given, ("guidance", "guidance_scale"), 0, 30),
        negative_prompt=negative,
        frames=None if frames is None else int(frames),
        fps=fps,
        seconds=seconds,
        most_frames=most_frames,
        strength=_number(given, ("strength",), 0.01, 1),
    )


def _resolution(given: dict[str, object], modality: Modality) -> tuple[str | None, int | None]:
    """Name of the tier, or the shorter side in pixels."""
    tiers = TIERS[modality]
    wanted = given.get("resolution")
    index = given.get("tier")
    if wanted is None and index is not None:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(tiers):
            raise unsupported(f"A tier of {modality} is a number from 0 to {len(tiers) - 1}.")
        return tiers[index], None
    if wanted is None:
        return None, None
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return None, wanted
    if isinstance(wanted, str):
        named = next((tier for tier in tiers if tier.lower() == wanted.strip().lower()), None)
        if named is not None:
            return named, None
    raise unsupported(f"{str(wanted)[:40]!r} is no tier of {modality}; there are {', '.join(tiers)}.")


def _size(
    given: dict[str, object], side: int | None, tier: tuple[int, int] | None, modality: Modality
) -> tuple[int, int] | None:
    if modality is Modality.AUDIO:
        return None
    largest = TIER_SIZES[TIERS[modality][-1]]
    longest = max(tier or largest)
    width = _number(given, ("width",), _LEAST_SIDE, longest, whole=True)
    height = _number(given, ("height",), _LEAST_SIDE, longest, whole=True)
    if width is None and height is None and side is None:
        return None
    if side is not None:
        if not _LEAST_SIDE <= side <= min(largest):
            raise unsupported(f"A resolution in pixels is {_LEAST_SIDE} to {min(largest)} for {modality}.")
        long = side * largest[0] // largest[1]
        width, height = width or long, height or side
    width, height = int(width or height or 0), int(height or width or 0)
    if width * height > math.prod(tier or largest):
        raise unsupported(f"{width} x {height} pixels are more than the tier has.")
    return width, height


def _number(
    given: dict[str, object], names: tuple[str, ...], least: float, most: float, *, whole: bool = False
) -> float | None:
    value = next((given[name] for name in names if name in given), None)
    if value is None:
        return None
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    # NaN compares false, so it is refused too.
    if not fits or not least <= float(value) <= most:  # type: ignore[arg-type]
        raise unsupported(f"{names[0]} is a {'whole ' if whole else ''}number from {least:g} to {most:g}.")
    return float(value)  # type: ignore[arg-type]
