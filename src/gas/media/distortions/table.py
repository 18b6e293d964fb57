"""The one table of distortions, the levels that are put together of them, and the seeded draw.

Levels, each holding what the one below draws for the same seed and sample:

===== ============================================ =========================================
level pictures and clips                           sound
===== ============================================ =========================================
0     as it is                                     as it is
1     geometric: cut, mirrored, turned, scaled     level: gain, another sample rate and back
2     + colour: brightness, contrast, saturation,  + surroundings: noise, reverberation
      hue, gamma
3     + noise, blur, blocks, and a codec: JPEG or  + a codec: MP3, Opus or a telephone line
      WebP for pictures, H.264 for clips
===== ============================================ =========================================

A level always holds at least one distortion of its own group and of each below it; each further one comes with a
chance of its own. Preprocessing for a model (centred crop, resize) comes after all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gas.clock import derive_rng
from gas.types import Modality

__all__ = ["KINDS", "LEVELS", "VERSION", "Distortion", "Kind", "Option", "Step", "draw_distortion", "steps_of"]

VERSION: Final = "d1"
"""Of the table and of the draw; changes whenever the same seed would give another distortion."""

LEVELS: Final = (0, 1, 2, 3)

Option = int | float | str
"""Value of one parameter."""

_PICTURES: Final = frozenset({Modality.IMAGE, Modality.VIDEO})
_SOUNDS: Final = frozenset({Modality.AUDIO})


@dataclass(frozen=True, slots=True)
class Step:
    """One elementary distortion with all its parameters.

    Attributes:
        name: In :data:`KINDS`.
        options: Its parameters by name, in the table's order.
    """

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    def __str__(self) -> str:
        shown = (f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in self.options)
        return f"{self.name}({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Distortion:
    """What happens to one medium, with every number that it takes; the same for all frames of a clip.

    Attributes:
        modality: Of the medium.
        steps: In the order in which they are applied.
        level: That it was drawn for; None when it was put together by hand.
        version: Of the table, for receipts.
    """

    modality: Modality
    steps: tuple[Step, ...] = ()
    level: int | None = None
    version: str = VERSION

    @property
    def name(self) -> str:
        """For receipts and captions, e.g. ``d1 level 1: flip(axis=horizontal)``."""
        level = "" if self.level is None else f" level {self.level}"
        return f"{self.version}{level}: {' '.join(map(str, self.steps)) or 'as it is'}"

    def as_dict(self) -> dict[str, object]:
        """JSON form; :meth:`from_dict` reads it."""
        return {
            "version": self.version,
            "modality": str(self.modality),
            "level": self.level,
            "steps": [{"name": step.name, **dict(step.options)} for step in self.steps],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Distortion:
        """Read :meth:`as_dict`'s form.

        Raises:
            ValueError: Another version, an unknown step, or parameters that it does not have.
        """
        listed, level = data.get("steps"), data.get("level")
        if data.get("version") != VERSION or not isinstance(listed, list):
            raise ValueError(f"This is not a distortion of version {VERSION}.")
        if level is not None and level not in LEVELS:
            raise ValueError(f"There is no level {level!r}.")
        modality = Modality(str(data.get("modality")))
        steps = []
        for entry in listed:
            if not isinstance(entry, dict):
                raise ValueError("A step is an object with a name.")
            kind = KINDS.get(str(entry.get("name")))
            if kind is None or modality not in kind.modalities:
                raise ValueError(f"There is no distortion {entry.get('name')!r} for {modality} media.")
            given = {key: value for key, value in entry.items() if key != "name"}
            if set(given) != set(kind.example) or not all(isinstance(v, int | float | str) for v in given.values()):
                raise ValueError(f"{kind.name} takes {', '.join(kind.example)}.")
            steps.append(Step(kind.name, tuple((key, given[key]) for key in kind.example)))
        return cls(modality, tuple(steps), None if level is None else int(str(level)))


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table.

    Attributes:
        name: Of the distortion.
        modalities: That know it.
        group: ``geometry``, ``colour``, ``noise``, ``blur``, ``blocks``, ``codec``, ``level`` or ``room``.
        example: Parameters that show what it does; of ``data show`` and of tests.
        draw: Draws parameters.
        moves: Whether pixels leave their places, and a mask must follow.
    """

    name: str
    modalities: frozenset[Modality]
    group: str
    example: Mapping[str, Option]
    draw: Callable[[np.random.Generator], dict[str, Option]]
    moves: bool = False

    def step(self, options: Mapping[str, Option] | None = None) -> Step:
        """A step of this kind; the example's parameters where none are given."""
        values = self.example if options is None else options
        return Step(self.name, tuple((key, values[key]) for key in self.example))


def _uniform(low: float, high: float) -> Callable[[np.random.Generator], float]:
    return lambda rng: round(float(rng.uniform(low, high)), 4)


def _whole(low: int, high: int) -> Callable[[np.random.Generator], int]:
    return lambda rng: int(rng.integers(low, high + 1))


def _one_of(*values: Option) -> Callable[[np.random.Generator], Option]:
    return lambda rng: values[int(rng.integers(len(values)))]


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))


def _each(**parts: Callable[[np.random.Generator], Option]) -> Callable[[np.random.Generator], dict[str, Option]]:
    return lambda rng: {key: part(rng) for key, part in parts.items()}


def _draw_window(rng: np.random.Generator) -> dict[str, Option]:
    height, width = _uniform(0.6, 0.95)(rng), _uniform(0.6, 0.95)(rng)
    top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    # Rounded down, so that the window stays inside.
    return {"top": int(top * 1e4) / 1e4, "left": int(left * 1e4) / 1e4, "height": height, "width": width}


_WINDOW: Final[Mapping[str, Option]] = {"top": 0.1, "left": 0.2, "height": 0.7, "width": 0.7}
_BLOCKS: Final[Mapping[str, Option]] = {"side": 16, "share": 0.2, "seed": 1}
_DRAW_BLOCKS: Final = _each(side=_one_of(8, 16, 32), share=_uniform(0.02, 0.15), seed=_seed)

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("crop", _PICTURES, "geometry", _WINDOW, _draw_window, moves=True),
        Kind("resized_crop", _PICTURES, "geometry", _WINDOW, _draw_window, moves=True),
        Kind("flip", _PICTURES, "geometry", {"axis": "horizontal"}, _each(axis=_one_of("horizontal")), moves=True),
        Kind("rotate", _PICTURES, "geometry", {"degrees": 12.0}, _each(degrees=_uniform(-15, 15)), moves=True),
        Kind("quarter_turn", _PICTURES, "geometry", {"turns": 1}, _each(turns=_whole(1, 3)), moves=True),
        Kind("rescale", _PICTURES, "geometry", {"factor": 0.4}, _each(factor=_uniform(0.5, 1.5)), moves=True),
        Kind("brightness", _PICTURES, "colour", {"factor": 1.4}, _each(factor=_uniform(0.7, 1.3))),
        Kind("contrast", _PICTURES, "colour", {"factor": 0.5}, _each(factor=_uniform(0.7, 1.3))),
        Kind("saturation", _PICTURES, "colour", {"factor": 0.2}, _each(factor=_uniform(0.5, 1.5))),
        Kind("hue", _PICTURES, "colour", {"degrees": 60.0}, _each(degrees=_uniform(-18, 18))),
        Kind("gamma", _PICTURES, "colour", {"exponent": 1.8}, _each(exponent=_uniform(0.7, 1.4))),
        Kind(
            "gaussian_noise", _PICTURES, "noise", {"sigma": 20.0, "seed": 1}, _each(sigma=_uniform(2, 15), seed=_seed)
        ),
        Kind("gaussian_blur", _PICTURES, "blur", {"sigma": 2.5}, _each(sigma=_uniform(0.5, 2.5))),
        Kind(
            "motion_blur",
            _PICTURES,
            "blur",
            {"length": 15, "degrees": 30.0},
            _each(length=_whole(3, 11), degrees=_uniform(0, 180)),
        ),
        Kind("block_mean", _PICTURES, "blocks", _BLOCKS, _DRAW_BLOCKS),
        Kind("block_shuffle", _PICTURES, "blocks", _BLOCKS, _DRAW_BLOCKS, moves=True),
        Kind("jpeg", _PICTURES, "codec", {"quality": 10}, _each(quality=_whole(30, 95))),
        Kind("webp", _PICTURES, "codec", {"quality": 5}, _each(quality=_whole(30, 95))),
        Kind("h264", frozenset({Modality.VIDEO}), "codec", {"crf": 40}, _each(crf=_whole(20, 38))),
        Kind("gain", _SOUNDS, "level", {"decibels": -12.0}, _each(decibels=_uniform(-9, 3))),
        Kind(
            "resample",
            _SOUNDS,
            "level",
            {"via_rate": 8000},
            _each(via_rate=_one_of(8000, 11025, 12000, 22050, 24000, 32000)),
        ),
        Kind("noise", _SOUNDS, "room", {"snr_db": 10.0, "seed": 1}, _each(snr_db=_uniform(12, 35), seed=_seed)),
        Kind(
            "reverberation",
            _SOUNDS,
            "room",
            {"rt60": 0.8, "wet": 0.5, "seed": 1},
            _each(rt60=_uniform(0.2, 1), wet=_uniform(0.1, 0.5), seed=_seed),
        ),
        Kind("mp3", _SOUNDS, "codec", {"kbps": 24}, _each(kbps=_one_of(32, 48, 64, 96, 128))),
        Kind("opus", _SOUNDS, "codec", {"kbps": 12}, _each(kbps=_one_of(12, 16, 24, 32, 48))),
        Kind("telephone", _SOUNDS, "codec", {"codec": "amr"}, _each(codec=_one_of("mulaw", "amr"))),
    )
}
"""Every distortion by name, in the order in which they are shown."""

_Slot = tuple[float, tuple[str, ...]]
"""A chance, and the kinds of which one is drawn then."""

_GEOMETRY: Final[tuple[_Slot, ...]] = (
    (0.7, ("crop", "resized_crop")),
    (0.5, ("flip",)),
    (0.4, ("rotate",)),
    (0.3, ("rescale",)),
)
_COLOUR: Final[tuple[_Slot, ...]] = (
    (0.5, ("brightness",)),
    (0.5, ("contrast",)),
    (0.5, ("saturation",)),
    (0.3, ("hue",)),
    (0.3, ("gamma",)),
)
_DAMAGE: Final[tuple[_Slot, ...]] = (
    (0.4, ("gaussian_noise",)),
    (0.4, ("gaussian_blur", "motion_blur")),
    (0.2, ("block_mean", "block_shuffle")),
)
_GROUPS: Final[Mapping[Modality, tuple[tuple[_Slot, ...], ...]]] = {
    Modality.IMAGE: (_GEOMETRY, _COLOUR, (*_DAMAGE, (0.8, ("jpeg", "webp")))),
    Modality.VIDEO: (_GEOMETRY, _COLOUR, (*_DAMAGE, (0.8, ("h264",)))),
    Modality.AUDIO: (
        ((0.7, ("gain",)), (0.5, ("resample",))),
        ((0.7, ("noise",)), (0.5, ("reverberation",))),
        ((1.0, ("mp3", "opus", "telephone")),),
    ),
}


def draw_distortion(level: int, seed: int, sample_id: str, modality: Modality) -> Distortion:
    """Draw what happens to one sample.

    Args:
        level: 0..3, as in the module's table.
        seed: The round's.
        sample_id: Of the sample; every sample has a draw of its own, the same on every machine.
        modality: Of the sample.

    Returns:
        The distortion; with the same other arguments, a level begins with all the steps of the one below.

    Raises:
        ValueError: There is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"There is no level {level!r}; levels are 0 to 3.")
    steps: list[Step] = []
    for number, slots in enumerate(_GROUPS[modality][:level], start=1):
        rng = derive_rng(seed, "distortion", VERSION, str(modality), number, sample_id)
        certain = int(rng.integers(len(slots)))
        for position, (chance, names) in enumerate(slots):
            # Everything is drawn whether it is used or not: one chance that changes leaves the other draws alone.
            kind = KINDS[names[int(rng.integers(len(names)))]]
            taken = rng.random() < chance or position == certain
            options = kind.draw(rng)
            if taken:
                steps.append(kind.step(options))
    return Distortion(modality, tuple(steps), level)


def steps_of(modality: Modality) -> tuple[Kind, ...]:
    """The kinds that a modality knows, in the order of the table."""
    return tuple(kind for kind in KINDS.values() if modality in kind.modalities)
