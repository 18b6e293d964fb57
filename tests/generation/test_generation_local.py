import io
import shutil

import numpy as np
import pytest
import soundfile

from gas.errors import ConfigurationError, RequestRefused
from gas.generation import memory
from gas.generation.base import GenerationTask, SourceImage
from gas.generation.diffusion import DiffusionPipeline
from gas.generation.local import load_pipeline
from gas.generation.memory import PeakMemory, choose_device, free_bytes, out_of_memory
from gas.generation.resynthesis import ResynthesisPipeline
from gas.generation.wishes import read_wishes
from gas.media.image import decode_image, encode_png, encode_png_mask
from gas.types import MediaType, Modality


def ask(modality=Modality.IMAGE, source=None, prompt="a red tomato", **parameters):
    return GenerationTask(modality, prompt, 1, parameters, source)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is missing")
def test_speech_is_loaded_by_its_name_and_reads_several_prompts_at_a_time():
    pipeline = load_pipeline("speech", model="espeak")
    media = pipeline.generate_many([ask(Modality.AUDIO, prompt=text) for text in ("one", "one and two and three")])
    lengths = [len(soundfile.read(io.BytesIO(medium.data))[0]) for medium in media]
    assert 0 < lengths[0] < lengths[1]
    with pytest.raises(RequestRefused) as refused:
        pipeline.generate(ask(Modality.AUDIO, magic=1))
    assert refused.value.error_code == "unsupported_parameters"


@pytest.mark.parametrize(
    ("name", "more"), [("speech", {"model": "siren"}), ("diffusers", {}), ("diffusers:", {}), ("magic", {})]
)
def test_an_unknown_pipeline_or_voice_is_refused(name, more):
    with pytest.raises(ConfigurationError):
        load_pipeline(name, **more)


def test_the_diffusion_model_paints_a_batch(picture_folder):
    pipeline = DiffusionPipeline(steps=4, refiner_steps=1)
    one = pipeline.generate(ask())
    both = pipeline.generate_many([ask(), ask(prompt="a white goat")])
    assert len(both) == 2
    # In a batch only the last bits differ.
    assert np.abs(decode_image(both[0].data).astype(int) - decode_image(one.data)).max() <= 2


def test_resynthesis_takes_the_source_it_is_given():
    pytest.importorskip("ncnn")
    pipeline = ResynthesisPipeline(None, model="animevideov3-x2")
    photo = np.full((80, 120, 3), (30, 160, 60), np.uint8)
    made = pipeline.generate(ask(source=SourceImage(encode_png(photo))))
    assert made.media_type is MediaType.SEMISYNTHETIC
    assert np.abs(decode_image(made.data).mean((0, 1)) - (30, 160, 60)).max() < 20
    mask = np.zeros((80, 120), np.uint8)
    mask[:40] = 255
    part = decode_image(pipeline.generate(ask(source=SourceImage(encode_png(photo), encode_png_mask(mask)))).data)
    assert np.array_equal(part[40:], photo[40:])
    with pytest.raises(RequestRefused) as refused:
        pipeline.generate(ask())
    assert refused.value.error_code == "needs_source"


@pytest.mark.parametrize(
    ("modality", "parameters", "size", "tier"),
    [
        (Modality.IMAGE, {"resolution": "1k"}, None, "1K"),
        (Modality.IMAGE, {"resolution": 512}, (512, 512), None),
        (Modality.VIDEO, {"resolution": 480}, (853, 480), None),
        (Modality.VIDEO, {"tier": 1}, None, "720p"),
        (Modality.IMAGE, {"width": 640}, (640, 640), None),
        (Modality.IMAGE, {"width": 640, "height": 480, "voice": "alloy"}, (640, 480), None),
        (Modality.AUDIO, {"resolution": "standard"}, None, "standard"),
        (Modality.IMAGE, {"resolution": None}, None, None),
    ],
)
def test_sizes_are_read_from_tiers_and_numbers(modality, parameters, size, tier):
    wishes = read_wishes(GenerationTask(modality, "x", 1, parameters))
    assert (wishes.size, wishes.tier) == (size, tier)


def test_a_duration_becomes_frames_within_the_tiers_bound():
    wishes = read_wishes(GenerationTask(Modality.VIDEO, "x", 1, {"duration": 60, "resolution": "1080p"}))
    assert wishes.frames_of(10, 24.0) == 121
    assert read_wishes(GenerationTask(Modality.VIDEO, "x", 1, {"duration": 2})).frames_of(10, 24.0) == 48
    assert read_wishes(GenerationTask(Modality.VIDEO, "x", 1, {})).frames_of(10, 24.0) == 10


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigurationError):
        choose_device(name)


def test_free_memory_is_the_smaller_of_the_machines_and_the_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert free_bytes("cpu") is None
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:    1000 kB\n")
    assert free_bytes("cpu") == 1_024_000
    (tmp_path / "memory.max").write_text("2000\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert free_bytes("cpu") == 1500


def test_the_peak_shows_memory_that_has_been_given_back():
    peak = PeakMemory("cpu")
    before = peak.bytes()
    block = np.ones(30_000_000, np.uint8)
    del block
    assert peak.bytes() - before > 20_000_000


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(error, is_memory):
    assert out_of_memory(error) is is_memory
