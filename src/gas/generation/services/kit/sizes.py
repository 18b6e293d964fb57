"""What a task asks for, as numbers, and the provider's offer that comes nearest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gas.generation.base import GenerationTask
from gas.generation.wishes import unsupported
from gas.scoring.generators import TIERS, video_tier
from gas.types import Modality

__all__ = ["Offer", "Wish", "choose", "choose_seconds", "free_size", "offers_by_area", "read_wish"]

_RATIO_TOLERANCE: Final = 0.06
_MEGAPIXEL: Final = 1024 * 1024
_SIDES: Final = {"480p": 480, "540p": 540, "720p": 720, "1080p": 1080, "1440p": 1440, "2160p": 2160}
_TIER_SIDES: Final = {
    Modality.IMAGE: {"1k": 0, "2k": 1900, "4k": 3500},
    Modality.VIDEO: {"480p": 480, "720p": 720, "1080p": 1080, "4k": 2160},
}


@dataclass(frozen=True, slots=True)
class Offer:
    """A size that a provider makes.

    Attributes:
        width: Pixels.
        height: Pixels.
        name: What the provider calls it.
        nominal: Width by height that the name stands for; 0 where the pixels say it exactly.
    """

    width: int
    height: int
    name: str
    nominal: float = 0.0

    @property
    def ratio(self) -> float:
        """Width by height."""
        return self.nominal or self.width / self.height


@dataclass(frozen=True, slots=True)
class Wish:
    """What a task asks for.

    Attributes:
        modality: Kind of medium.
        width: Pixels that were asked for in numbers, with ``height``; 0 for no such wish.
        height: See ``width``.
        side: Shorter side of the tier that was asked for, pixels; 0 for the smallest tier of pictures,
            which asks for about a megapixel of any shape.
        ratio: Width by height.
        named_ratio: Whether the ratio was asked for; else it is the usual one.
        seconds: Duration; None for the provider's own.
        seed: For providers that take one.
        negative_prompt: What not to show.
        voice: Who speaks.
        strength: How much of a source changes, above 0 to 1.
    """

    modality: Modality
    width: int = 0
    height: int = 0
    side: int = 0
    ratio: float = 1.0
    named_ratio: bool = False
    seconds: float | None = None
    seed: int = 0
    negative_prompt: str = ""
    voice: str = ""
    strength: float | None = None

    def is_met_by(self, width: int, height: int) -> bool:
        """Whether a medium of this size is of the tier that was asked for, or above."""
        if self.width:
            return width >= self.width and height >= self.height
        if not self.side:
            return width * height >= 0.9 * _MEGAPIXEL
        if min(width, height) >= self.side:
            return True
        if self.modality is Modality.VIDEO and self.side <= 1080:
            asked = 2 if self.side > 720 else 1 if self.side > 480 else 0
            return video_tier(width, height) >= asked
        return False


def read_wish(task: GenerationTask, extras: Iterable[str] = ()) -> Wish:
    """Read and check a task's parameters.

    ``resolution`` is a tier's name (``1K``, ``720p`` ...), a shorter side in pixels or ``WIDTHxHEIGHT``; ``tier`` a
    number from the smallest tier up; ``width`` and ``height`` go together; ``aspect_ratio`` is ``16:9`` and the like;
    ``duration`` is in seconds.

    Args:
        task: What a validator asks for.
        extras: Which of ``negative_prompt``, ``voice``, ``strength`` and ``duration`` the provider can follow.

    Raises:
        RequestRefused: 422 ``unsupported_parameters``: an unknown name or tier, or one that the provider can't follow.
    """
    given = {str(name): value for name, value in task.parameters.items() if value is not None}
    sized = task.modality is not Modality.AUDIO
    known = {"seed", "tier", *extras}
    known |= {"resolution", "width", "height", "aspect_ratio"} if sized else set()
    unknown = sorted(name for name in given if name not in known)
    if unknown:
        raise unsupported(f"The parameter {unknown[0][:40]!r} can't be followed for {task.modality}.")
    width, height, side = _size(given, task.modality) if sized else (0, 0, None)
    ratio = _ratio(given.get("aspect_ratio"))
    usual = 16 / 9 if task.modality is Modality.VIDEO else 1.0
    seed = given.get("seed", task.seed)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise unsupported("The seed is a whole number.")
    return Wish(
        modality=task.modality,
        width=width,
        height=height,
        side=side if side is not None else (0 if task.modality is Modality.IMAGE else 720),
        ratio=width / height if width else ratio or usual,
        named_ratio=bool(width) or ratio is not None,
        seconds=_number(given.get("duration"), "duration", 0.1, 600),
        seed=seed % (2**32 - 1),
        negative_prompt=_text(given.get("negative_prompt"), "negative_prompt", 2000),
        voice=_text(given.get("voice"), "voice", 64),
        strength=_number(given.get("strength"), "strength", 0.01, 1),
    )


def choose(wish: Wish, offers: Sequence[Offer]) -> Offer:
    """The smallest size on offer that meets a wish; below the tier that was asked for, the largest there is.

    Raises:
        RequestRefused: 422 ``unsupported_parameters``: no size of that shape, or none as large as asked for in numbers.
    """
    fitting = [one for one in offers if abs(one.ratio / wish.ratio - 1) <= _RATIO_TOLERANCE]
    if not fitting:
        if wish.named_ratio:
            shapes = ", ".join(sorted({one.name for one in offers})[:16])
            raise unsupported(f"No {wish.modality} of that shape can be made; there are {shapes}.")
        fitting = list(offers)
    enough = [one for one in fitting if wish.is_met_by(one.width, one.height)]
    if enough:
        return min(enough, key=lambda one: one.width * one.height)
    largest = max(fitting, key=lambda one: one.width * one.height)
    if wish.width:
        raise unsupported(f"The largest {wish.modality} of that shape has {largest.width} x {largest.height} pixels.")
    return largest


def choose_seconds(wish: Wish, offered: Sequence[int], usual: int) -> int:
    """The shortest duration on offer that is as long as asked for, seconds.

    Raises:
        RequestRefused: 422 ``unsupported_parameters``: none is.
    """
    if wish.seconds is None:
        return usual
    enough = [seconds for seconds in offered if seconds >= wish.seconds]
    if not enough:
        raise unsupported(f"A {wish.modality} can have {max(offered)} seconds at most.")
    return min(enough)


def free_size(wish: Wish, *, step: int, longest: int, least_pixels: int, most_pixels: int) -> tuple[int, int]:
    """Width and height for a model that makes any size.

    Args:
        wish: What is asked for.
        step: Both are multiples of it.
        longest: Of either side, pixels.
        least_pixels: A smaller picture is made larger.
        most_pixels: A tier that needs more gets as many as there are.

    Raises:
        RequestRefused: 422 ``unsupported_parameters``: a shape beyond 1:3 or 3:1, or a size that is too large.
    """
    if not 1 / 3 <= wish.ratio <= 3:
        raise unsupported("The shape of a picture is between 1:3 and 3:1.")
    narrow = min(wish.ratio, 1 / wish.ratio)
    side = math.sqrt(_MEGAPIXEL * narrow)
    if wish.width or wish.side:
        side = float(min(wish.width, wish.height) if wish.width else wish.side)
    side = min(max(side, math.sqrt(least_pixels * narrow)), longest * narrow, math.sqrt(most_pixels * narrow))
    short, long = _rounded(side, narrow, step)
    while short * long > most_pixels or long > longest:
        side -= 1
        short, long = _rounded(side, narrow, step)
    width, height = (short, long) if wish.ratio < 1 else (long, short)
    if wish.width and (width < wish.width or height < wish.height):
        raise unsupported(f"{wish.width} x {wish.height} pixels are more than can be made.")
    return width, height


def offers_by_area(ratios: Sequence[str], pixels: int, step: int = 64) -> list[Offer]:
    """The sizes of a model that is told a shape only and makes about the same number of pixels for each."""
    offers = []
    for name in ratios:
        wide, high = (int(part) for part in name.split(":"))
        height = math.sqrt(pixels * high / wide)
        width = height * wide / high
        offers.append(Offer(int(width) // step * step, int(height) // step * step, name, wide / high))
    return offers


def _rounded(side: float, narrow: float, step: int) -> tuple[int, int]:
    """A shorter side and its longer one, both rounded up to multiples of a step."""
    # Rounding first to a millionth keeps 1024.0000001 from becoming 1040.
    short, long = (math.ceil(round(value / step, 6)) * step for value in (side, side / narrow))
    return short, long


def _size(given: dict[str, object], modality: Modality) -> tuple[int, int, int | None]:
    """Width and height asked for in numbers (or 0), and the shorter side of the tier (None without one)."""
    width, height = (_number(given.get(name), name, 16, 8192) for name in ("width", "height"))
    if (width is None) != (height is None):
        raise unsupported("Width and height go together.")
    if width is not None and height is not None:
        return int(width), int(height), None
    tiers = TIERS[modality]
    wanted, index = given.get("resolution"), given.get("tier")
    if wanted is None and index is not None:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(tiers):
            raise unsupported(f"A tier of {modality} is a number from 0 to {len(tiers) - 1}.")
        wanted = tiers[index]
    if wanted is None:
        return 0, 0, None
    if isinstance(wanted, int):
        return 0, 0, int(_number(wanted, "resolution", 16, 8192) or 0)
    text = wanted.strip().lower() if isinstance(wanted, str) else type(wanted).__name__
    left, cross, right = text.partition("x")
    if cross and all(part.isascii() and part.isdigit() and 2 <= len(part) <= 4 for part in (left, right)):
        return max(16, int(left)), max(16, int(right)), None
    side = _TIER_SIDES[modality].get(text, _SIDES.get(text))
    if side is None:
        raise unsupported(f"{text[:40]!r} is no tier of {modality}; there are {', '.join(tiers)}.")
    return 0, 0, side


def _ratio(value: object) -> float | None:
    if value is None:
        return None
    left, colon, right = value[:16].partition(":") if isinstance(value, str) else ("", "", "")
    try:
        ratio = float(left) / float(right) if colon else 0.0
    except (ValueError, ZeroDivisionError):
        ratio = 0.0
    if not 0.1 <= ratio <= 10:
        raise unsupported("An aspect ratio is written as 16:9.")
    return ratio


def _number(value: object, name: str, least: float, most: float) -> float | None:
    if value is None:
        return None
    # NaN compares false, so it is refused too.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise unsupported(f"{name} is a number from {least:g} to {most:g}.")
    return float(value)


def _text(value: object, name: str, most: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise unsupported(f"{name} is a text of up to {most} characters.")
    return value
