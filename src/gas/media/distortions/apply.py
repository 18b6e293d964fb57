"""Carry a distortion out: pictures, clips and sound, and the masks that belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gas.clock import derive_rng
from gas.media.distortions import codecs, colour, damage, geometry, sound
from gas.media.distortions.codecs import Sound
from gas.media.distortions.geometry import Pixels
from gas.media.distortions.table import KINDS, Distortion, Step
from gas.media.distortions.video import h264
from gas.media.image import RGB
from gas.media.masks import Mask
from gas.types import Modality

__all__ = ["apply_audio", "apply_image", "apply_video"]


def apply_image(rgb: RGB, distortion: Distortion, mask: Mask | None = None) -> tuple[RGB, Mask | None]:
    """Distort a picture, and move its mask with it.

    Args:
        rgb: uint8, (h, w, 3).
        distortion: For images.
        mask: uint8, (h, w); where pixels move, it moves alike (by the nearest neighbour, so that no value is
            mixed), and where only their values change, it stays.

    Returns:
        The picture, uint8 (h', w', 3), and the mask, uint8 (h', w'), or None when there was none.

    Raises:
        ValueError: The distortion is for another modality, or the mask has another size than the picture.
    """
    _check(distortion, Modality.IMAGE)
    frames, masks = _apply_frames([rgb], distortion, None if mask is None else [mask])
    return frames[0], None if masks is None else masks[0]


def apply_video(
    frames: Sequence[RGB], distortion: Distortion, masks: Sequence[Mask] | None = None
) -> tuple[list[RGB], list[Mask] | None]:
    """Distort a clip with the same parameters on every frame, and move its masks with it.

    The same window, angle, colours, blocks; noise has the same strength, and on every frame a draw of its own, as
    a sensor's has.

    Args:
        frames: At least one, uint8 (h, w, 3).
        distortion: For videos.
        masks: One a frame, uint8 (h, w), as in :func:`apply_image`.

    Returns:
        As many frames and masks.

    Raises:
        ValueError: As in :func:`apply_image`, or not one mask a frame.
    """
    _check(distortion, Modality.VIDEO)
    return _apply_frames(list(frames), distortion, None if masks is None else list(masks))


def apply_audio(samples: Sound, rate: int, distortion: Distortion) -> Sound:
    """Distort a sound; every distortion keeps its length and its place in time.

    Args:
        samples: float32 (n,), mono, nominally in [-1, 1].
        rate: Hz.
        distortion: For sound.

    Returns:
        float32 (n,), in [-1, 1].

    Raises:
        ValueError: The distortion is for another modality.
    """
    _check(distortion, Modality.AUDIO)
    for step in distortion.steps:
        samples = _sound_step(samples, rate, step)
    return samples


def _check(distortion: Distortion, modality: Modality) -> None:
    if distortion.modality is not modality:
        raise ValueError(f"A distortion for {distortion.modality} media can't be applied to {modality}.")
    for step in distortion.steps:
        if step.name not in KINDS or modality not in KINDS[step.name].modalities:
            raise ValueError(f"There is no distortion {step.name!r} for {modality} media.")


def _apply_frames(
    frames: list[RGB], distortion: Distortion, masks: list[Mask] | None
) -> tuple[list[RGB], list[Mask] | None]:
    if masks is not None and [mask.shape for mask in masks] != [frame.shape[:2] for frame in frames]:
        raise ValueError("There must be one mask a frame, of the frame's size.")
    for step in distortion.steps:
        options: dict[str, Any] = dict(step.options)
        if step.name == "h264":
            frames = h264(frames, **options)
            continue
        if masks is not None and KINDS[step.name].moves:
            masks = [_moved(mask, step.name, options, nearest=True) for mask in masks]
        frames = [_picture_step(frame, step.name, options, index) for index, frame in enumerate(frames)]
    return frames, masks


def _picture_step(rgb: RGB, name: str, options: dict[str, Any], frame: int) -> RGB:
    if KINDS[name].moves:
        return _moved(rgb, name, options, nearest=False)
    match name:
        case "brightness":
            return colour.brightness(rgb, **options)
        case "contrast":
            return colour.contrast(rgb, **options)
        case "saturation":
            return colour.saturation(rgb, **options)
        case "hue":
            return colour.hue(rgb, **options)
        case "gamma":
            return colour.gamma(rgb, **options)
        case "gaussian_noise":
            return damage.gaussian_noise(rgb, options["sigma"], derive_rng(options["seed"], "noise", frame))
        case "gaussian_blur":
            return damage.gaussian_blur(rgb, **options)
        case "motion_blur":
            return damage.motion_blur(rgb, **options)
        case "block_mean":
            return damage.block_mean(rgb, options["side"], options["share"], derive_rng(options["seed"], "blocks"))
        case "jpeg":
            return damage.jpeg(rgb, **options)
        case "webp":
            return damage.webp(rgb, **options)
    raise ValueError(f"There is no distortion {name!r} of pictures.")


def _moved(pixels: Pixels, name: str, options: dict[str, Any], nearest: bool) -> Pixels:
    match name:
        case "crop":
            return geometry.crop(pixels, **options)
        case "resized_crop":
            return geometry.resized_crop(pixels, **options, nearest=nearest)
        case "flip":
            return geometry.flip(pixels, **options)
        case "rotate":
            return geometry.rotate(pixels, **options, nearest=nearest)
        case "quarter_turn":
            return geometry.quarter_turn(pixels, **options)
        case "rescale":
            return geometry.rescale(pixels, **options, nearest=nearest)
        case "block_shuffle":
            rng = derive_rng(options["seed"], "blocks")
            return damage.block_shuffle(pixels, options["side"], options["share"], rng)
    raise ValueError(f"{name!r} does not move pixels.")


def _sound_step(samples: Sound, rate: int, step: Step) -> Sound:
    options: dict[str, Any] = dict(step.options)
    match step.name:
        case "gain":
            return sound.gain(samples, **options)
        case "resample":
            return codecs.resample_round_trip(samples, rate, **options)
        case "noise":
            return sound.add_noise(samples, options["snr_db"], derive_rng(options["seed"], "noise"))
        case "reverberation":
            rng = derive_rng(options["seed"], "room")
            return sound.reverberate(samples, rate, options["rt60"], options["wet"], rng)
        case "mp3":
            return codecs.mp3(samples, rate, **options)
        case "opus":
            return codecs.opus(samples, rate, **options)
        case "telephone":
            return codecs.telephone(samples, rate, **options)
    raise ValueError(f"There is no distortion {step.name!r} of sound.")
