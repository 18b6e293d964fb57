import numpy as np
import pytest

from gas.errors import ConfigurationError, RequestRefused
from gas.generation.base import GenerationTask, SourceImage
from gas.generation.local import load_pipeline
from gas.generation.video import WalkPipeline
from gas.media.image import encode_png
from gas.media.video import VideoReader
from gas.types import MediaType, Modality


@pytest.fixture(scope="module")
def walk():
    return WalkPipeline(frames=4, fps=8, steps=4, refiner_steps=1)


def ask(source=None, seed=1, modality=Modality.VIDEO, **parameters):
    return GenerationTask(modality, "a portrait of a man", seed, parameters, source)


def frames_of(data):
    with VideoReader(data) as reader:
        return [frame.astype(float) for frame in reader]


def test_a_walk_is_a_clip_whose_frames_change_little_by_little(walk):
    made = walk.generate(ask())
    assert (made.mime, made.media_type) == ("video/mp4", MediaType.SYNTHETIC)
    frames = frames_of(made.data)
    assert [frame.shape for frame in frames] == [(256, 256, 3)] * 4
    step, whole = np.abs(frames[1] - frames[0]).mean(), np.abs(frames[3] - frames[0]).mean()
    assert 0 < step < whole
    assert made.data == walk.generate(ask()).data
    assert made.data != walk.generate(ask(seed=2)).data


def test_a_walk_around_a_picture_stays_near_it(walk):
    photo = np.full((100, 160, 3), (200, 60, 60), np.uint8)
    made = walk.generate(ask(SourceImage(encode_png(photo)), frames=2, strength=0.2))
    assert made.media_type is MediaType.SEMISYNTHETIC
    frames = frames_of(made.data)
    assert len(frames) == 2
    assert np.abs(frames[0].mean((0, 1)) - (200, 60, 60)).max() < 30


def test_other_modalities_tiers_and_settings_are_refused(walk):
    for task in (ask(modality=Modality.IMAGE), ask(resolution="1K"), ask(frames=500), ask(fps=0)):
        with pytest.raises(RequestRefused) as refused:
            walk.generate(task)
        assert refused.value.status == 422
    with pytest.raises(ConfigurationError):
        WalkPipeline(turn=0)


def test_it_is_loaded_by_its_name():
    assert load_pipeline("video").modalities == {Modality.VIDEO}
