"""From scenes to prompts: a grammar of registers and length bands, for pictures, clips and speech.

The same generator state and the same scenes give the same prompts on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gas.datasets.words import Category
from gas.generation.prompts.lexicon import (
    ACTIONS,
    CAMERA_MOVES,
    COLOURS,
    DETAILS,
    INDOOR_DETAILS,
    ITEMS,
    LEADS,
    LIGHTS,
    LOOKS,
    MOTIONS,
    OUTDOOR_DETAILS,
    PLACES,
    POSITIONS,
    TIMES,
    WEATHERS,
)
from gas.generation.prompts.scenes import Scene, draw_scene, pick, with_article
from gas.generation.prompts.spoken import compose_speech
from gas.generation.prompts.terms import REGISTERS, LengthBand, Register, band_of
from gas.types import Modality

__all__ = ["BANDS", "Composed", "Composer", "compose"]

BANDS: Final = (LengthBand.SHORT, LengthBand.MEDIUM, LengthBand.LONG)
"""The length bands that prompts are composed in."""

_RANGE: Final = {LengthBand.SHORT: (4, 12), LengthBand.MEDIUM: (13, 28), LengthBand.LONG: (29, 60)}
_TRIES: Final = 40
_STILL_WORDS: Final = re.compile(r"photo|picture|still\b|snapshot|screenshot|\bframe\b|\bshot of an?\b|image")
_MOTION_WORDS: Final = re.compile(
    r"footage|video|recording|recorded|\bclip\b|newsreel|movie|report\b|coverage|observation|filmed|vlog about"
)
_INDOOR_PLACE: Final = re.compile(
    r"kitchen|shop|room|lift|hall|stairwell|backstage|gym|counter|laundrette|airport gate|call centre|factory|bakery"
    r"|train\b|chair|club|workbench|attic|shelf|garage|museum case|bed\b|evidence|back seat|lobby|classroom|storage"
    r"|laborator|clinic|sofa|shelter|barn|stable|canteen|sheet|pan\b|slab|refrigerator|airplane|\bbar\b|diner|tray"
    r"|greenhouse|hospital"
)
_VIDEO_NAMES: Final = {
    Register.CCTV: "CCTV footage",
    Register.SCREEN_RECORDING: "screen recording",
    Register.PHONE_VIDEO: "phone video",
    Register.SOCIAL: "follower clip",
}
_STAGED: Final = frozenset({Register.STUDIO, Register.PRODUCT})
_ONLY: Final[dict[Register, frozenset[Category]]] = {
    Register.PRODUCT: frozenset({Category.FOOD, Category.OBJECT}),
    Register.WILDLIFE: frozenset({Category.ANIMAL, Category.SCENE}),
    Register.STUDIO: frozenset({Category.FOOD, Category.OBJECT, Category.PORTRAIT, Category.ANIMAL}),
    Register.SOCIAL: frozenset({Category.FOOD, Category.PORTRAIT, Category.ANIMAL, Category.OBJECT, Category.SCENE}),
    Register.BODY_CAM: frozenset({Category.PORTRAIT, Category.SCENE, Category.ANIMAL, Category.OBJECT}),
}


@dataclass(frozen=True, slots=True)
class Composed:
    """A composed prompt and what it is.

    Attributes:
        text: The prompt.
        modality: What is to be made of it.
        register: In whose manner.
        length: Its band.
        origin: Where its scene came from: :attr:`gas.generation.prompts.scenes.Scene.origin`.
    """

    text: str
    modality: Modality
    register: Register
    length: LengthBand
    origin: str


class Composer:
    """Composes prompts without end, all registers and length bands alike.

    Args:
        modality: What they are for.
        scenes: Of the real media to start from; made up where there are none.
        registers: Only these; all of the modality when empty.
        bands: Only these length bands.
    """

    def __init__(
        self,
        modality: Modality,
        scenes: Sequence[Scene] = (),
        registers: Sequence[Register] = (),
        bands: Sequence[LengthBand] = BANDS,
    ) -> None:
        self._modality = modality
        self._scenes = tuple(scenes)
        self._registers = tuple(registers) or REGISTERS[modality]
        self._bands = tuple(bands)

    def draw(self, rng: np.random.Generator) -> Composed:
        """One prompt; its scene, register and band are drawn first."""
        register = pick(rng, self._registers)
        band = pick(rng, self._bands)
        return compose(self._scene(rng, register), self._modality, register, band, rng)

    def stream(self, rng: np.random.Generator) -> Iterator[Composed]:
        """Prompts without end."""
        while True:
            yield self.draw(rng)

    def _scene(self, rng: np.random.Generator, register: Register) -> Scene:
        wanted = _ONLY.get(register)
        if not self._scenes:
            return draw_scene(rng, pick(rng, sorted(wanted)) if wanted else None)
        scene = pick(rng, self._scenes)
        for _ in range(_TRIES):
            if wanted is None or scene.category in wanted:
                break
            scene = pick(rng, self._scenes)
        return scene


def compose(
    scene: Scene, modality: Modality, register: Register, band: LengthBand, rng: np.random.Generator
) -> Composed:
    """One prompt about a scene.

    Args:
        scene: What is shown, or spoken about.
        modality: Pictures get a moment, clips something that moves, sounds a text to be spoken.
        register: In whose manner.
        band: Short, medium or long; a subject that is too long for it decides the band itself.
        rng: Decides everything else.
    """
    if modality is Modality.AUDIO:
        text = compose_speech(scene, register, band, rng)
    else:
        text = _compose_visual(scene, modality, register, band, rng)
    return Composed(text, modality, register, band_of(text), scene.origin)


def _compose_visual(
    scene: Scene, modality: Modality, register: Register, band: LengthBand, rng: np.random.Generator
) -> str:
    low, high = _RANGE[band]
    text = ""
    for attempt in range(_TRIES):
        # The more tries fail, the barer the sentence: a short band has room for little.
        bare = attempt > _TRIES // 2
        place = "" if scene.complete or bare or register in _STAGED else pick(rng, PLACES[scene.category])
        core = _core(scene, modality, register, band, place, rng, bare=bare)
        text = _grown(core, _extras(scene, modality, register, place, rng), low, high, rng)
        if low <= len(text.split()) <= high:
            return text
    return text


def _core(
    scene: Scene,
    modality: Modality,
    register: Register,
    band: LengthBand,
    place: str,
    rng: np.random.Generator,
    *,
    bare: bool,
) -> str:
    """The first clause: the register's lead around what is shown."""
    leads = _leads(register, modality)
    lead = min(leads, key=len) if bare else pick(rng, leads)
    action = "" if scene.complete else pick(rng, ACTIONS[scene.category])
    short = band is LengthBand.SHORT
    if modality is Modality.VIDEO:
        return _moving(scene, lead, "" if short else place, register, rng, bare=bare)
    if bare or (short and rng.random() < 0.2):
        shown = scene.subject
    elif short:
        shown = _joined(scene.subject, pick(rng, (place, action)))
    else:
        shown = _joined(scene.subject, *((action, place) if rng.random() < 0.7 else (place, action)))
    return lead.replace("%", shown)


def _moving(scene: Scene, lead: str, place: str, register: Register, rng: np.random.Generator, *, bare: bool) -> str:
    """A clip's first clause; something happens in it."""
    if scene.complete:
        return f"{lead.replace('%', scene.subject)}, {pick(rng, CAMERA_MOVES)}"
    if scene.is_plural:
        return lead.replace("%", _joined(scene.subject, pick(rng, ACTIONS[scene.category]), place))
    motions = [pick(rng, MOTIONS[scene.category]) for _ in range(6 if bare else 1)]
    motion = min(motions, key=lambda text: len(text.split()))
    way = rng.random()
    if bare or way < 0.4:
        name = _VIDEO_NAMES.get(register, f"{register.value.replace('_', ' ')} footage")
        return f"{_joined(scene.subject, motion, place)}, {name}"
    shown = lead.replace("%", _joined(scene.subject, place))
    person = scene.category is Category.PORTRAIT
    return f"{shown}, {'who' if person else 'which'} {motion}" if way < 0.7 else _two_steps(shown, motion, person)


def _two_steps(shown: str, motion: str, person: bool) -> str:
    return f"{shown}; then {'the person' if person else 'it'} {motion}"


def _extras(scene: Scene, modality: Modality, register: Register, place: str, rng: np.random.Generator) -> list[str]:
    """Clauses that may follow, in a drawn order: what fits the place, and what the register's device does to it."""
    inside = register in _STAGED or bool(_INDOOR_PLACE.search(place or scene.subject))
    details = DETAILS + (INDOOR_DETAILS if inside else OUTDOOR_DETAILS)
    extras = [
        LOOKS[register][at] for at in rng.permutation(len(LOOKS[register]))[: 6 if register is Register.PRODUCT else 2]
    ]
    if not scene.complete and register is not Register.PRODUCT:
        extras += [details[at] for at in rng.permutation(len(details))[:2]]
        things = (f"{pick(rng, COLOURS)} {pick(rng, ITEMS)}" for _ in range(3))
        extras += [f"{with_article(thing)} {pick(rng, POSITIONS)}" for thing in things]
    if register not in _STAGED:
        extras.append(pick(rng, TIMES))
    if not inside:
        extras.append(pick(rng, WEATHERS))
    extras.append(f"lit by {pick(rng, LIGHTS)}")
    if modality is Modality.VIDEO:
        extras.append(pick(rng, CAMERA_MOVES))
    return [extras[at] for at in rng.permutation(len(extras))]


def _grown(core: str, extras: list[str], low: int, high: int, rng: np.random.Generator) -> str:
    """Add clauses up to a length drawn from the band; each as part of the sentence or as one of its own."""
    words = len(core.split())
    target = int(rng.integers(low, high + 1))
    parts, text = 0, core
    for extra in extras:
        count = len(extra.split())
        if words >= max(low, min(target, high)) or words + count > high:
            continue
        text = f"{text}. {extra[0].upper()}{extra[1:]}" if parts and rng.random() < 0.4 else f"{text}, {extra}"
        words += count
        parts += 1
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    if ". " in text:
        text = f"{text[0].upper()}{text[1:]}."
    return text


def _leads(register: Register, modality: Modality) -> tuple[str, ...]:
    wrong = _MOTION_WORDS if modality is Modality.IMAGE else _STILL_WORDS
    leads = LEADS.get(register, LEADS[Register.OTHER])
    return tuple(lead for lead in leads if not wrong.search(lead)) or leads


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)
