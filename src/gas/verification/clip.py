"""CLIP from a local folder: prompt alignment and embeddings by a model that was trained on pictures with captions.

Loads what ``transformers`` saves for any ``CLIPModel``: weights as safetensors, configuration, tokenizer and, where
it is there, ``preprocessor_config.json``. Nothing is fetched and no code of the folder is run. Several folders make an
ensemble: each is one voice of the consensus in :class:`gas.verification.steps.Aligned`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.errors import ConfigurationError
from gas.media.image import RGB

__all__ = ["CLIP_THRESHOLD", "COPY_COSINE", "ClipModel", "load_ensemble"]

CLIP_THRESHOLD: Final = 0.25
"""Smallest cosine of a picture and its prompt."""
COPY_COSINE: Final = 0.98
"""Smallest cosine of two pictures that count as one."""

_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)


class ClipModel:
    """One model; an :class:`gas.verification.base.Alignment` and an :class:`gas.verification.base.Embedder`.

    Args:
        folder: Where it was saved.
        device: Torch's name of where it runs.
        score_threshold: Smallest cosine at which a picture agrees with its prompt.

    Attributes:
        name: Of the folder.
        size: Numbers of an embedding.

    Raises:
        ConfigurationError: The folder holds no such model.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", score_threshold: float = CLIP_THRESHOLD) -> None:
        import torch
        from transformers import AutoTokenizer, CLIPModel

        self.name, self.threshold = folder.name, score_threshold
        try:
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            model = CLIPModel.from_pretrained(folder, use_safetensors=True, **options)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            saved = folder / "preprocessor_config.json"
            settings = json.loads(saved.read_text()) if saved.exists() else {}
            self._mean = np.array(settings.get("image_mean", _MEAN), np.float32)
            self._deviation = np.array(settings.get("image_std", _DEVIATION), np.float32)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{folder} holds no CLIP model with its tokenizer.",
                code="clip_model",
                hint="Save one there with save_pretrained of transformers, weights as safetensors.",
            ) from error
        self._torch, self._device = torch, device
        self._model: Any = model.to(device).eval()
        self.size = int(self._model.config.projection_dim)
        self._side = int(self._model.config.vision_config.image_size)
        self._longest = int(self._model.config.text_config.max_position_embeddings)

    def score_pixels(self, rgb: RGB, prompt: str) -> float:
        """Cosine of a picture (uint8, (h, w, 3)) and its prompt, in [-1, 1]; long prompts are cut off."""
        return float(self.embed(rgb) @ self._text(prompt))

    def embed(self, rgb: RGB) -> NDArray[np.float32]:
        """float32, (size,), of length 1."""
        pixels = self._torch.from_numpy(self._pixels(rgb)[None]).to(self._device)
        with self._torch.inference_mode():
            vision = self._model.vision_model(pixel_values=pixels).pooler_output
            return _unit(self._model.visual_projection(vision)[0].float().cpu().numpy())

    def _text(self, prompt: str) -> NDArray[np.float32]:
        tokens = self._tokenizer(prompt, truncation=True, max_length=self._longest, return_tensors="pt")
        with self._torch.inference_mode():
            text = self._model.text_model(
                input_ids=tokens["input_ids"].to(self._device), attention_mask=tokens["attention_mask"].to(self._device)
            ).pooler_output
            return _unit(self._model.text_projection(text)[0].float().cpu().numpy())

    def _pixels(self, rgb: RGB) -> NDArray[np.float32]:
        """As CLIP was trained: the smaller side brought to the model's, the middle cut out, channels normalised."""
        height, width = rgb.shape[:2]
        scale = self._side / min(height, width)
        size = (max(self._side, round(width * scale)), max(self._side, round(height * scale)))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        top, left = (small.shape[0] - self._side) // 2, (small.shape[1] - self._side) // 2
        square = small[top : top + self._side, left : left + self._side].astype(np.float32) / 255
        return np.ascontiguousarray(((square - self._mean) / self._deviation).transpose(2, 0, 1))


def load_ensemble(folders: Sequence[Path], *, device: str = "cpu") -> tuple[ClipModel, ...]:
    """Every model of some folders.

    Raises:
        ConfigurationError: One of them holds none.
    """
    return tuple(ClipModel(folder, device=device) for folder in folders)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
