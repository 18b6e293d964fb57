"""What real media show, in words that prompts are composed from.

Three describers behind one seam: a vision-language model from a local folder writes captions, MobileNet names classes,
and where there is neither, the words of a medium's path and its data set's category have to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from gas.clock import derive_rng
from gas.datasets.words import Category, category_of, words_of
from gas.errors import ConfigurationError, MediaRejected
from gas.generation.prompts.labels import MobileNetLabels, mobilenet_weights
from gas.generation.prompts.lexicon import NOUNS
from gas.generation.prompts.quality import clean_prompt
from gas.generation.prompts.scenes import Scene, draw_scene, pick, with_article
from gas.media.image import RGB, decode_image

__all__ = [
    "CaptionDescriber",
    "Describer",
    "LabelDescriber",
    "RealMedium",
    "WordsDescriber",
    "media_of_folder",
    "open_describer",
    "scenes_of",
]

_PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_CLIPS: Final = frozenset({".mp4", ".webm", ".avi"})
_MAX_FILE: Final = 64 * 1024**2
_SURE: Final = 0.35
_BESIDE: Final = 0.2
_MAX_CAPTION: Final = 200
_CATEGORIES: Final = {"portrait": Category.PORTRAIT, "people": Category.PORTRAIT} | {c.value: c for c in Category}


@dataclass(frozen=True, slots=True)
class RealMedium:
    """A real picture, or a frame of a real clip.

    Attributes:
        rgb: uint8, (height, width, 3).
        title: What its path says; untrusted.
        category: What its data set says it shows; empty when nobody has said.
    """

    rgb: RGB
    title: str = ""
    category: str = ""


class Describer(Protocol):
    """Says what a medium shows.

    Attributes:
        name: ``caption``, ``labels`` or ``words``; the origin of its scenes.
    """

    name: str

    def describe(self, medium: RealMedium) -> Scene | None:
        """The scene; None when nothing can be said about this one. The same medium gives the same scene.

        Raises:
            gas.errors.ConfigurationError: The describer's model is missing or broken.
        """
        ...


class WordsDescriber:
    """From a path's words and a data set's category: what a lexicon has that fits them best."""

    name = "words"

    def describe(self, medium: RealMedium) -> Scene | None:
        """See :meth:`Describer.describe`; None when neither path nor category says anything."""
        words = set(words_of(medium.title))
        given = _CATEGORIES.get(medium.category)
        category = given or category_of(medium.title)
        if category is None:
            return None
        rng = derive_rng(0, "words", hashlib.sha256(medium.rgb.tobytes()).hexdigest())
        fitting = [noun for noun in NOUNS[category] if words & set(words_of(noun))]
        scene = draw_scene(rng, category)
        return Scene(category, with_article(pick(rng, fitting)) if fitting else scene.subject, self.name)


class LabelDescriber:
    """From the classes that MobileNet sees; where it isn't sure, as :class:`WordsDescriber`.

    Args:
        weights: Of MobileNet.

    Raises:
        ConfigurationError: ``weights_unknown``.
    """

    name = "labels"

    def __init__(self, weights: Path) -> None:
        self._labels = MobileNetLabels(weights)
        self._words = WordsDescriber()

    def describe(self, medium: RealMedium) -> Scene | None:
        """See :meth:`Describer.describe`; a second thing is named too when it is likely and no kind of the first."""
        (first, sure, category), (second, also, other), *_ = self._labels.labels(medium.rgb)
        if sure < _SURE:
            return self._words.describe(medium)
        subject = with_article(first)
        if also >= _BESIDE and other is not category:
            subject = f"{subject} beside {with_article(second)}"
        return Scene(category, subject, self.name)


class CaptionDescriber:
    """Captions by a vision-language model in a local folder, in the form of transformers: BLIP and its like.

    Only safetensors are read and no code of the folder is run.

    Args:
        folder: With ``config.json``, weights, tokenizer and image processor.
        tokens: Longest caption.

    Raises:
        ConfigurationError: ``model_missing``: there is no such model.
    """

    name = "caption"

    def __init__(self, folder: Path, tokens: int = 32) -> None:
        if not (folder / "config.json").is_file():
            raise ConfigurationError(f"{folder} holds no model that writes captions.", code="model_missing")
        self._tokens = tokens
        self._processor, self._model = _load_captioner(folder)

    def describe(self, medium: RealMedium) -> Scene | None:
        """See :meth:`Describer.describe`; None when the model has nothing to say."""
        import torch

        inputs = self._processor(images=medium.rgb, return_tensors="pt")
        with torch.inference_mode():
            made = self._model.generate(**inputs, max_new_tokens=self._tokens, do_sample=False, num_beams=1)
        texts = self._processor.batch_decode(made, skip_special_tokens=True)
        caption = clean_prompt(texts[0])[:_MAX_CAPTION].rstrip(" .,;")
        if not words_of(caption):
            return None
        category = _CATEGORIES.get(medium.category) or category_of(caption, Category.SCENE) or Category.SCENE
        return Scene(category, caption[0].lower() + caption[1:], self.name, complete=True)


def open_describer(captioner: Path | None = None, weights: Path | None = None) -> Describer:
    """The best describer of this machine.

    Args:
        captioner: Folder of a vision-language model; where it is given, it is used.
        weights: Of MobileNet; those of the package when left out.

    Raises:
        ConfigurationError: What is given is none.
    """
    if captioner is not None:
        return CaptionDescriber(captioner)
    found = weights or mobilenet_weights()
    return LabelDescriber(found) if found is not None else WordsDescriber()


def media_of_folder(folder: Path, most: int) -> Iterator[RealMedium]:
    """Pictures and first frames of clips of a folder and those below it, in the order of their paths.

    What can't be decoded is left out.

    Args:
        folder: Of real media.
        most: At most so many; when there are more, they are taken at equal steps.

    Raises:
        ConfigurationError: ``folder_missing``: there is none, or it has no picture and no clip.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder}.", code="folder_missing")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _PICTURES | _CLIPS and p.is_file())
    if not found:
        raise ConfigurationError(f"{folder} has no picture and no clip.", code="folder_missing")
    step = max(1, -(-len(found) // most))
    for path in found[::step]:
        try:
            if path.stat().st_size <= _MAX_FILE:
                title = path.relative_to(folder).with_suffix("").as_posix()
                yield RealMedium(_first_picture(path), title)
        except (MediaRejected, OSError):
            continue


def scenes_of(media: Iterator[RealMedium] | Sequence[RealMedium], describer: Describer) -> list[Scene]:
    """Describe media, each thing once; what can't be described is left out."""
    scenes: dict[str, Scene] = {}
    for medium in media:
        scene = describer.describe(medium)
        if scene is not None:
            scenes.setdefault(scene.subject, scene)
    return list(scenes.values())


def _first_picture(path: Path) -> RGB:
    data = path.read_bytes()
    if path.suffix.lower() in _PICTURES:
        return decode_image(data)
    from gas.media.video import decode_video

    return decode_video(data, 1)[0]


def _load_captioner(folder: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "transformers is not installed.", code="model_missing", hint="pip install transformers"
        ) from error
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigurationError(f"The model in {folder} can't be loaded.", code="model_missing") from error
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
    return processor, model.eval()
