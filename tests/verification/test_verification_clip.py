"""The CLIP loader on a tiny random model of that architecture, and embeddings in the index."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from gas.errors import ConfigurationError
from gas.verification.clip import ClipModel, load_ensemble
from gas.verification.duplicates import MediaIndex, Seen

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CLIP model of a few thousand weights, saved as real ones are."""
    path = tmp_path_factory.mktemp("tiny-clip")
    torch.manual_seed(0)
    words = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {word: at for at, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (path / "vocab.json").write_text(json.dumps(vocabulary))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt"))
    tokenizer.save_pretrained(path)
    common = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={
            **common,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 16,
            "bos_token_id": vocabulary["<|startoftext|>"],
            "eos_token_id": vocabulary["<|endoftext|>"],
        },
        vision_config={**common, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    transformers.CLIPModel(config).save_pretrained(path)
    return path


def photo(seed):
    return np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def test_a_saved_model_scores_pictures_and_prompts(folder):
    (model,) = load_ensemble([folder])
    assert (model.size, model.threshold) == (24, 0.25)
    assert np.linalg.norm(model.embed(photo(0))) == pytest.approx(1, abs=1e-5)
    score = model.score_pixels(photo(0), "a cat on a mat with very many words that go on and on")
    assert -1 <= score <= 1
    assert score == model.score_pixels(photo(0), "a cat on a mat with very many words that go on and on")


def test_the_embedding_is_that_of_transformers_own_features(folder):
    model = ClipModel(folder)
    pixels = torch.from_numpy(model._pixels(photo(1))[None])
    own = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = own.get_image_features(pixel_values=pixels)
    found = getattr(found, "pooler_output", found)[0].numpy()
    assert np.allclose(model.embed(photo(1)), found / np.linalg.norm(found), atol=1e-5)


def test_a_folder_without_a_model_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError):
        ClipModel(tmp_path)


def test_media_of_nearly_one_embedding_are_one(tmp_path):
    def seen(number, vector, **more):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        phash = int.from_bytes(hashlib.sha256(b"x%d" % number).digest(), "big")
        return Seen(digest, phash, embedding=(vector / np.linalg.norm(vector)).astype(np.float32), **more)

    vectors = np.random.default_rng(0).normal(size=(50, 24))
    with MediaIndex(tmp_path, embedding=(24, 0.98)) as index:
        for number, vector in enumerate(vectors):
            assert index.claim(seen(number, vector)) is None
    with MediaIndex(tmp_path, embedding=(24, 0.98)) as index:
        match = index.claim(seen(99, vectors[7] + 0.05 * vectors[8]))
        assert match is not None
        assert (match.kind, match.sha256) == ("embedding", hashlib.sha256(b"7").hexdigest())
        assert index.claim(seen(100, vectors[7] + vectors[8])) is None
