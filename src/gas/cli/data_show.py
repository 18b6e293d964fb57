"""``gascli data show``: look at a medium, its mask, and what distortions do to it."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.errors import ConfigurationError, MediaRejected, StorageError
from gas.types import Modality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gas.media.distortions.codecs import Sound
    from gas.media.distortions.table import Distortion
    from gas.media.image import RGB
    from gas.media.sheets import Panel

__all__ = ["register", "show_command"]

_FRAMES, _SECONDS = 16, 6.0
_SIDE, _STRIP, _SHOWN, _DETAIL = 320, 110, 3, 70

_Render = Callable[["Distortion | str | None"], "RGB"]


@dataclass(frozen=True, slots=True)
class _Medium:
    """What is to be shown.

    Attributes:
        name: For the title.
        sample_id: Hex SHA-256 of the bytes; seeds its distortions.
        data: Encoded.
        mask: PNG, or zip of one PNG a frame.
        modality: Where it is known.
    """

    name: str
    sample_id: str
    data: bytes
    mask: bytes | None
    modality: Modality | None


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command("show")(show_command)


def show_command(
    item: Annotated[str, typer.Argument(help="A file; or of the store: a SHA-256 or its beginning, or SET:INDEX.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")],
    distortions: Annotated[bool, typer.Option("--distortions", help="Beside it, what each distortion does.")] = False,
    level: Annotated[int | None, typer.Option(min=0, max=3, help="Beside it, what this level draws for it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the level's draw.")] = 0,
    mask: Annotated[Path | None, typer.Option(help="Of a file: its mask, PNG or zip of one PNG a frame.")] = None,
    modality: Annotated[Modality | None, typer.Option(help="Of a file; by its content when left out.")] = None,
    home: Annotated[Path | None, typer.Option("--home", help="Home of the store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw one medium as a PNG: a picture, a strip of a clip's frames, or a sound's spectrogram and waveform.

    Masks are tinted red. With --distortions or --level, the distorted medium stands beside it; of a clip its first
    16 frames are distorted, of a sound the 6 seconds in its middle, which is what a model sees of them by default.
    Level 0 is the medium as it is, 1 adds geometry, 2 colour, 3 noise, blur, blocks and a codec.
    """
    medium = _load(item, mask, modality, home)
    kind, facts, render = _renderer(medium, whole=not distortions and level is None)
    wanted: list[tuple[str, Distortion | str | None]] = [(f"as it is: {facts}", None)]
    wanted += _wanted(kind, medium.sample_id, distortions, level, seed)
    panels = _panels(wanted, render)
    width, height = _write(panels, medium.name, out)
    if as_json:
        shown = [value.as_dict() if value is not None and not isinstance(value, str) else value for _, value in wanted]
        document = {
            "item": medium.name,
            "sha256": medium.sample_id,
            "modality": str(kind),
            "masked": medium.mask is not None,
            "out": str(out),
            "width": width,
            "height": height,
            "panels": [
                {"caption": caption, "distortion": value} for (caption, _), value in zip(wanted, shown, strict=True)
            ],
        }
        typer.echo(json.dumps(document))
        return
    typer.echo(f"{out}: {width} x {height} pixels, {len(panels)} {'panel' if len(panels) == 1 else 'panels'}")


def _load(item: str, mask: Path | None, modality: Modality | None, home: Path | None) -> _Medium:
    from gas.storage.blobs import sha256_hex

    path = Path(item)
    if path.is_file():
        data = _read(path)
        return _Medium(path.name, sha256_hex(data), data, None if mask is None else _read(mask), modality)
    name, colon, index = item.rpartition(":")
    if not (colon and index.isdecimal()) and not re.fullmatch("[0-9a-f]{6,64}", item):
        raise ConfigurationError(
            f"There is no file {item}.",
            hint="Give a file; or of the store, a SHA-256 (at least its first 6 digits) or SET:INDEX.",
        )
    if mask is not None or modality is not None:
        raise ConfigurationError(
            "--mask and --modality are for files.", hint="An item of the store brings its own; leave them out."
        )
    from gas.datasets.store import open_store

    store = open_store(home)
    found = store.item(name, int(index)) if colon else store.find(item)
    return _Medium(
        f"{found.dataset}: {found.path}", found.sha256, store.read(found), store.read_mask(found), found.modality
    )


def _read(path: Path) -> bytes:
    from gas.media.limits import DEFAULT_LIMITS

    try:
        with path.open("rb") as file:
            data = file.read(DEFAULT_LIMITS.max_bytes + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read ({error.strerror}).") from error
    DEFAULT_LIMITS.check_bytes(len(data))
    return data


def _renderer(medium: _Medium, whole: bool) -> tuple[Modality, str, _Render]:
    """Decode the medium; its modality, a line of facts, and what draws it after a distortion."""
    from gas.media.audio import AUDIO_MIMES
    from gas.media.image import IMAGE_MIMES, sniff_mime
    from gas.media.video import VIDEO_MIMES

    mime = sniff_mime(medium.data)
    kind = medium.modality
    if kind is Modality.IMAGE or (kind is None and mime in IMAGE_MIMES):
        return Modality.IMAGE, *_image(medium)
    if kind is Modality.VIDEO or (kind is None and mime in VIDEO_MIMES):
        return Modality.VIDEO, *_video(medium)
    if kind is Modality.AUDIO or mime in AUDIO_MIMES:
        if medium.mask is not None:
            raise ConfigurationError("A sound has no mask.")
        return Modality.AUDIO, *_audio(medium, whole)
    raise MediaRejected("This is no picture, video or sound that the project knows.", code="unsupported")


def _image(medium: _Medium) -> tuple[str, _Render]:
    from gas.media.distortions.apply import apply_image
    from gas.media.image import decode_image
    from gas.media.masks import decode_mask
    from gas.media.transforms import sharing_chain

    rgb = decode_image(medium.data)
    mask = None if medium.mask is None else decode_mask(medium.mask)
    if mask is not None:
        _match(mask, rgb)

    def render(distortion: Distortion | str | None) -> RGB:
        if isinstance(distortion, str):
            return _picture(sharing_chain(rgb), mask)
        return _picture(rgb, mask) if distortion is None else _picture(*apply_image(rgb, distortion, mask))

    return f"{rgb.shape[1]} x {rgb.shape[0]}, {len(medium.data):,} bytes", render


def _video(medium: _Medium) -> tuple[str, _Render]:
    from gas.media.distortions.apply import apply_video
    from gas.media.masks import decode_masks
    from gas.media.transforms import sharing_chain_video
    from gas.media.video import decode_video

    frames = decode_video(medium.data, _FRAMES)
    masks = None if medium.mask is None else decode_masks(medium.mask, len(frames))
    for mask, frame in zip(masks or [], frames, strict=False):
        _match(mask, frame)

    def render(distortion: Distortion | str | None) -> RGB:
        if isinstance(distortion, str):
            return _strip(sharing_chain_video(frames), masks)
        return _strip(frames, masks) if distortion is None else _strip(*apply_video(frames, distortion, masks))

    return f"{frames[0].shape[1]} x {frames[0].shape[0]}, first {len(frames)} frames", render


def _audio(medium: _Medium, whole: bool) -> tuple[str, _Render]:
    from gas.media.audio import decode_audio
    from gas.media.distortions.apply import apply_audio
    from gas.media.spectrogram import plot_sound
    from gas.media.transforms import sharing_chain_audio

    sound, rate = decode_audio(medium.data)
    facts = f"{len(sound) / rate:.2f} s at {rate} Hz"
    if not whole and len(sound) > rate * _SECONDS:
        start = (len(sound) - int(rate * _SECONDS)) // 2
        sound = sound[start : start + int(rate * _SECONDS)]
        facts += f", the {_SECONDS:g} s in its middle"
    size = (960, 480) if whole else (480, 300)

    def render(distortion: Distortion | str | None) -> RGB:
        out: Sound = sound
        if isinstance(distortion, str):
            out = sharing_chain_audio(sound, rate)
        elif distortion is not None:
            out = apply_audio(sound, rate, distortion)
        return plot_sound(out, rate, *size)

    return facts, render


def _wanted(
    kind: Modality, sample_id: str, distortions: bool, level: int | None, seed: int
) -> list[tuple[str, Distortion | str | None]]:
    """Captions and distortions; a text is the name of the sharing chain."""
    from gas.media import transforms
    from gas.media.distortions.table import Distortion, draw_distortion, steps_of

    wanted: list[tuple[str, Distortion | str | None]] = []
    if distortions:
        wanted += [(str(row.step()), Distortion(kind, (row.step(),))) for row in steps_of(kind)]
        chain = {
            Modality.IMAGE: transforms.SHARING_CHAIN,
            Modality.VIDEO: transforms.SHARING_CHAIN_VIDEO,
            Modality.AUDIO: transforms.SHARING_CHAIN_AUDIO,
        }[kind]
        wanted.append((f"sharing chain: {chain}", chain))
    if level is not None:
        drawn = draw_distortion(level, seed, sample_id, kind)
        wanted.append((f"{drawn.name} [seed {seed}]", drawn))
    return wanted


def _panels(wanted: list[tuple[str, Distortion | str | None]], render: _Render) -> list[Panel]:
    from gas.media.sheets import Panel

    return [Panel(render(distortion), caption) for caption, distortion in wanted]


def _write(panels: list[Panel], title: str, out: Path) -> tuple[int, int]:
    from gas.media.image import encode_png
    from gas.media.sheets import contact_sheet

    columns = {1: 1, 2: 2}.get(len(panels), 4 if panels[0].picture.shape[1] <= _SIDE else 3)
    sheet = contact_sheet(panels, columns, title)
    try:
        out.write_bytes(encode_png(sheet))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        kind = StorageError if full else ConfigurationError
        raise kind(f"{out} can't be written ({error.strerror}).") from error
    return sheet.shape[1], sheet.shape[0]


def _match(mask: NDArray[np.uint8], rgb: RGB) -> None:
    if mask.shape != rgb.shape[:2]:
        raise MediaRejected(
            f"The mask has {mask.shape[1]} x {mask.shape[0]} pixels, the picture {rgb.shape[1]} x {rgb.shape[0]}.",
            code="mask_mismatch",
        )


def _picture(rgb: RGB, mask: NDArray[np.uint8] | None) -> RGB:
    """The picture as a whole, and below it the pixels of its middle, each twice as wide and high."""
    from gas.media.sheets import fit_into, overlay

    whole = fit_into(rgb if mask is None else overlay(rgb, mask), _SIDE, _SIDE)
    return _stack(whole, _middle(rgb, _SIDE // 2, _DETAIL))


def _strip(frames: list[RGB], masks: list[NDArray[np.uint8]] | None) -> RGB:
    """Frames side by side, and below each the pixels of its middle, each twice as wide and high."""
    from gas.media.sheets import film_strip, overlay

    shown = frames if masks is None else [overlay(f, m) for f, m in zip(frames, masks, strict=True)]
    across = max(1, round(frames[0].shape[1] * _STRIP / frames[0].shape[0]) // 2)
    middles = [_middle(frame, across, _DETAIL // 2) for frame in frames]
    return _stack(film_strip(shown, _SHOWN, _STRIP), film_strip(middles, _SHOWN, middles[0].shape[0]))


def _middle(rgb: RGB, width: int, height: int) -> RGB:
    top, left = max(0, (rgb.shape[0] - height) // 2), max(0, (rgb.shape[1] - width) // 2)
    return rgb[top : top + height, left : left + width].repeat(2, axis=0).repeat(2, axis=1)


def _stack(above: RGB, below: RGB) -> RGB:
    import numpy as np

    out = np.full((above.shape[0] + 4 + below.shape[0], max(above.shape[1], below.shape[1]), 3), 255, np.uint8)
    out[: above.shape[0], : above.shape[1]] = above
    out[above.shape[0] + 4 :, : below.shape[1]] = below
    return out
