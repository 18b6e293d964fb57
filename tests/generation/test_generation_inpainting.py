import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.clock import derive_rng
from gas.errors import ConfigurationError, RequestRefused
from gas.generation.base import GenerationTask, SourceImage
from gas.generation.inpainting import RepaintPipeline
from gas.generation.local import load_pipeline
from gas.generation.sources import Canvas, draw_mask, open_source
from gas.media.image import decode_image, encode_png, encode_png_mask
from gas.media.masks import decode_mask
from gas.types import MediaType, Modality


@pytest.fixture(scope="module")
def inpainting():
    return RepaintPipeline(steps=4, refiner_steps=1)


@pytest.fixture
def photo():
    rng = np.random.default_rng(1)
    return np.repeat(np.repeat(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), 20, 0), 20, 1)


@pytest.fixture
def hole():
    mask = np.zeros((240, 320), np.uint8)
    mask[60:120, 100:220] = 255
    return mask


def ask(source=None, seed=1, modality=Modality.IMAGE, **parameters):
    return GenerationTask(modality, "a red tomato", seed, parameters, source)


def test_inpainting_changes_the_mask_and_not_a_pixel_besides(inpainting, photo, hole):
    task = ask(SourceImage(encode_png(photo), encode_png_mask(hole)))
    made = inpainting.generate(task)
    pixels = decode_image(made.data)
    assert np.array_equal(pixels[hole == 0], photo[hole == 0])
    inside = np.abs(pixels[hole > 0].astype(int) - photo[hole > 0])
    assert inside.mean() > 10
    assert made.media_type is MediaType.SEMISYNTHETIC
    assert np.array_equal(decode_mask(made.mask), hole // 255)
    assert made.data == inpainting.generate(task).data
    assert made.data != inpainting.generate(ask(task.source, seed=2)).data


def test_a_mask_at_the_edge_of_a_flat_picture_works_too(inpainting):
    photo = np.full((40, 300, 3), 90, np.uint8)
    mask = np.zeros((40, 300), np.uint8)
    mask[:, :70] = 255
    pixels = decode_image(inpainting.generate(ask(SourceImage(encode_png(photo), encode_png_mask(mask)))).data)
    assert np.array_equal(pixels[:, 70:], photo[:, 70:])
    assert (pixels[:, :70] != 90).any()


def test_a_whole_picture_stays_like_itself_and_the_more_so_the_weaker_the_change(photo):
    pipeline = RepaintPipeline(masked=False, steps=4, refiner_steps=1)
    square = cv2.resize(photo[:, 40:280], (256, 256)).astype(float)
    changes = []
    for strength in (0.1, 0.9):
        made = pipeline.generate(ask(SourceImage(encode_png(photo)), strength=strength))
        pixels = decode_image(made.data)
        assert pixels.shape == (256, 256, 3)
        assert decode_mask(made.mask).all()
        changes.append(np.abs(pixels - square).mean())
    assert changes[0] < changes[1]


def test_without_a_source_a_photo_and_a_region_of_ones_own_are_taken(picture_folder):
    pipeline = RepaintPipeline(picture_folder, steps=4, refiner_steps=1)
    made = pipeline.generate(ask())
    mask = decode_mask(made.mask)
    assert mask.shape == decode_image(made.data).shape[:2] == (240, 320)
    assert 0.01 < mask.mean() < 0.6


def test_without_a_source_and_a_library_there_is_nothing_to_change(inpainting):
    with pytest.raises(RequestRefused) as refused:
        inpainting.generate(ask())
    assert refused.value.error_code == "needs_source"


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (SourceImage(b""), "bad_source"),
        (SourceImage(b"GIF89a but not really"), "bad_source"),
        (SourceImage(encode_png(np.zeros((8, 8, 3), np.uint8))), "bad_source"),
        (SourceImage(encode_png(np.zeros((64, 64, 3), np.uint8)), b"no mask"), "bad_mask"),
    ],
)
def test_a_source_that_is_no_picture_is_refused(inpainting, source, code):
    with pytest.raises(RequestRefused) as refused:
        inpainting.generate(ask(source))
    assert (refused.value.status, refused.value.error_code) == (422, code)


def test_other_modalities_and_parameters_are_refused(inpainting):
    for task, code in ((ask(modality=Modality.VIDEO), "wrong_modality"), (ask(magic=1), "unsupported_parameters")):
        with pytest.raises(RequestRefused) as refused:
            inpainting.generate(task)
        assert refused.value.error_code == code


def test_settings_out_of_their_range_are_refused():
    with pytest.raises(ConfigurationError):
        RepaintPipeline(strength=2)


@pytest.mark.parametrize("name", ["inpainting", "image-to-image"])
def test_both_are_loaded_by_their_names(name):
    pipeline = load_pipeline(name)
    assert pipeline.name == name
    assert pipeline.modalities == {Modality.IMAGE}


@given(st.integers(32, 300), st.integers(32, 300), st.integers(0, 2**32))
def test_a_drawn_mask_lies_inside_and_leaves_something_outside(height, width, seed):
    mask = draw_mask(height, width, derive_rng(seed, "mask"))
    assert mask.shape == (height, width)
    assert 0 < mask.mean() < 0.9


@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 2**32))
def test_what_lies_outside_a_mask_is_never_touched(height, width, seed):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, (height, width), dtype=np.uint8)
    pixels, painted = rng.integers(0, 255, (2, height, width, 3), dtype=np.uint8)
    kept = Canvas(pixels, mask).keep_outside(painted)
    assert np.array_equal(kept[mask == 0], pixels[mask == 0])


def test_a_large_source_is_shrunk_together_with_its_mask():
    canvas = open_source(
        SourceImage(encode_png(np.zeros((400, 200, 3), np.uint8)), encode_png_mask(np.full((400, 200), 255, np.uint8))),
        most_pixels=20_000,
    )
    assert canvas.pixels.shape == (200, 100, 3)
    assert canvas.mask.shape == (200, 100)
