import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from tiny_diffusers import save_tiny

from gas.clock import SystemClock
from gas.errors import ConfigurationError, InfrastructureError, RequestRefused, SourceUnreachable
from gas.generation import diffusers_load
from gas.generation.base import GenerationTask, SourceImage
from gas.generation.diffusers_folder import find_model, read_folder, weight_bytes
from gas.generation.diffusers_load import Role, load_model
from gas.generation.diffusers_pipeline import Defaults, DiffusersPipeline
from gas.generation.local import load_pipeline
from gas.generation.signing import TestAuthority, sign_medium
from gas.media.image import decode_image, encode_png, encode_png_mask
from gas.media.masks import decode_mask
from gas.media.video import VideoReader
from gas.types import MediaType, Modality
from gas.verification.provenance import check_provenance

QUICK = Defaults(most_pixels=96 * 96, steps=2, frames=4, fps=8)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny model, built when it is first asked for."""
    folder, known = tmp_path_factory.mktemp("tiny"), {}

    def get(kind):
        if kind not in known:
            known[kind] = save_tiny(kind, folder)
        return known[kind]

    return get


@pytest.fixture(scope="session")
def loaded(tiny):
    known = {}

    def get(kind):
        if kind not in known:
            torch.set_num_threads(1)
            known[kind] = DiffusersPipeline(load_model(find_model(str(tiny(kind))), device="cpu"), QUICK)
        return known[kind]

    return get


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)


@pytest.fixture
def hole():
    mask = np.zeros((70, 90), np.uint8)
    mask[20:50, 30:60] = 255
    return mask


def ask(seed=3, modality=Modality.IMAGE, source=None, prompt="a red tomato", **parameters):
    return GenerationTask(modality, prompt, seed, parameters, source)


def frames_of(data):
    with VideoReader(data) as reader:
        return list(reader)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "flux"])
def test_a_model_of_any_architecture_paints_from_text_and_repeats_itself(loaded, kind):
    pipeline = loaded(kind)
    first, again, other = (pipeline.generate(ask(seed, width=66, height=70)) for seed in (3, 3, 4))
    assert first.data == again.data != other.data
    assert first.mime == "image/png"
    assert first.media_type is MediaType.SYNTHETIC
    assert first.model == kind
    # Sides that the model can't paint are painted larger and cut.
    assert decode_image(first.data).shape == (70, 66, 3)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "flux"])
def test_a_model_changes_a_picture_as_a_whole_or_inside_a_mask_only(loaded, kind, photo, hole):
    pipeline = loaded(kind)
    whole = pipeline.generate(ask(source=SourceImage(encode_png(photo))))
    assert whole.media_type is MediaType.SEMISYNTHETIC
    assert decode_image(whole.data).shape == photo.shape
    part = pipeline.generate(ask(source=SourceImage(encode_png(photo), encode_png_mask(hole))))
    painted = decode_image(part.data)
    assert np.array_equal(painted[hole == 0], photo[hole == 0])
    assert (painted[hole > 0] != photo[hole > 0]).any()
    assert np.array_equal(decode_mask(part.mask), hole // 255)


def test_a_picture_larger_than_the_model_paints_keeps_its_size_around_the_mask(loaded):
    photo = np.random.default_rng(1).integers(0, 255, (150, 200, 3), dtype=np.uint8)
    hole = np.zeros((150, 200), np.uint8)
    hole[40:110, 60:150] = 255
    part = loaded("sd").generate(ask(source=SourceImage(encode_png(photo), encode_png_mask(hole))))
    painted = decode_image(part.data)
    assert painted.shape == photo.shape and np.array_equal(painted[hole == 0], photo[hole == 0])
    assert (painted[hole > 0] != photo[hole > 0]).any()


def test_a_video_model_makes_clips_from_text_and_from_a_picture(loaded, photo):
    pipeline = loaded("ltx")
    assert pipeline.modalities == {Modality.VIDEO}
    made = pipeline.generate(ask(modality=Modality.VIDEO, frames=5, fps=10))
    assert made.mime == "video/mp4"
    # The model can only paint 4n + 1 frames of sides of 32 pixels; the clip has what was asked for.
    assert len(frames_of(made.data)) == 5
    assert made.data == pipeline.generate(ask(modality=Modality.VIDEO, frames=5, fps=10)).data
    moved = pipeline.generate(ask(modality=Modality.VIDEO, source=SourceImage(encode_png(photo)), duration=0.5))
    assert moved.media_type is MediaType.SEMISYNTHETIC
    assert len(frames_of(moved.data)) == 4
    assert frames_of(moved.data)[0].shape == (70, 90, 3)


def test_media_of_a_model_carry_trusted_credentials_once_signed(loaded, tmp_path):
    made = loaded("sd").generate(ask(width=64, height=64))
    authority = TestAuthority(tmp_path, SystemClock())
    signed = sign_medium(made.data, made.mime, authority.leaf("op", "Lab"), title="t", model=made.model)
    assert check_provenance(signed, made.mime, authority.anchors_pem).model == "sd"


def test_a_batch_gives_one_picture_a_task(loaded):
    tasks = [ask(seed, width=64, height=64) for seed in (1, 2, 3)]
    media = loaded("sd").generate_many(tasks)
    assert len({medium.data for medium in media}) == 3


def test_a_tier_above_the_models_reach_gives_what_it_can_reach(loaded):
    assert decode_image(loaded("sd").generate(ask(resolution="2K")).data).shape == (96, 96, 3)


@pytest.mark.parametrize(
    "parameters",
    [
        {"resolution": "8K"},
        {"resolution": "720p"},
        {"resolution": "1K", "width": 2000},
        {"width": 3},
        {"steps": 0},
        {"steps": 1.5},
        {"guidance": float("nan")},
        {"strength": 2},
        {"negative_prompt": "x" * 2000},
        {"magic": 1},
        {"tier": 7},
        {"width": True},
    ],
)
def test_a_parameter_out_of_its_bounds_is_refused(loaded, parameters):
    with pytest.raises(RequestRefused) as refused:
        loaded("sd").generate(ask(**parameters))
    assert (refused.value.status, refused.value.error_code) == (422, "unsupported_parameters")


def test_what_a_safety_checker_objects_to_is_a_moderation_refusal(loaded):
    with pytest.raises(RequestRefused) as refused:
        loaded("prude").generate(ask(width=64, height=64))
    assert (refused.value.status, refused.value.error_code) == (422, "moderation_refused")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"modality": Modality.AUDIO}, "wrong_modality"),
        ({"source": SourceImage(b"no picture")}, "bad_source"),
    ],
)
def test_what_a_model_cannot_take_is_refused(loaded, change, code):
    with pytest.raises(RequestRefused) as refused:
        loaded("sd").generate(ask(**change))
    assert refused.value.error_code == code


def test_a_mask_of_another_size_or_all_black_is_refused(loaded, photo):
    for mask in (np.full((10, 10), 255, np.uint8), np.zeros((70, 90), np.uint8)):
        with pytest.raises(RequestRefused) as refused:
            loaded("sd").generate(ask(source=SourceImage(encode_png(photo), encode_png_mask(mask))))
        assert refused.value.error_code == "bad_mask"


@pytest.mark.parametrize("prompt", ["", "\0\x1b[2J", "\ud800", "😀" * 4000])
def test_a_hostile_prompt_is_only_a_prompt(loaded, prompt):
    assert loaded("sd").generate(ask(prompt=prompt, width=64, height=64)).mime == "image/png"


def test_running_out_of_memory_says_so(loaded, monkeypatch):
    def greedy(*_args, **_more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    pipe = loaded("sd")._model.roles[Role.TEXT_TO_IMAGE]
    monkeypatch.setattr(pipe, "encode_prompt", greedy)
    with pytest.raises(InfrastructureError) as failed:
        loaded("sd").generate(ask(width=64, height=64))
    assert failed.value.error_code == "out_of_memory"


def test_values_that_are_no_numbers_are_no_picture(loaded, monkeypatch):
    pipe = loaded("sd")._model.roles[Role.TEXT_TO_IMAGE]
    monkeypatch.setattr(pipe.image_processor, "postprocess", lambda *_a, **_m: np.full((1, 64, 64, 3), np.nan))
    with pytest.raises(InfrastructureError) as failed:
        loaded("sd").generate(ask(width=64, height=64))
    assert failed.value.error_code == "pipeline_failed"


def test_a_pipeline_is_loaded_by_its_name(tiny):
    pipeline = load_pipeline(f"diffusers:{tiny('sd')}", device="cpu", defaults=QUICK)
    assert decode_image(pipeline.generate(ask()).data).shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "../..", "", "owner/never-fetched-by-anybody"])
def test_a_model_that_is_not_here_is_missing(name):
    with pytest.raises(ConfigurationError) as missing:
        find_model(name)
    assert missing.value.error_code == "model_missing"


COMMIT = "c0ffee" * 6 + "abcd"


class Hub(BaseHTTPRequestHandler):
    """A model hub with one model, ``owner/tiny``, in ``server.folder``."""

    def log_message(self, *_words):
        pass

    def do_GET(self):
        files = [path for path in self.server.folder.rglob("*") if path.is_file()]
        names = [str(path.relative_to(self.server.folder)) for path in files]
        status, data = 200, b""
        if self.path.startswith("/api/models/owner/tiny/tree/"):
            sizes = zip(names, files, strict=True)
            entries = [{"type": "file", "path": n, "size": p.stat().st_size, "oid": "0" * 40} for n, p in sizes]
            data = json.dumps(entries).encode()
        elif self.path.startswith("/api/models/owner/tiny/"):
            siblings = [{"rfilename": name} for name in names]
            data = json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}).encode()
        elif self.path.startswith(f"/owner/tiny/resolve/{COMMIT}/"):
            name = self.path.split(f"{COMMIT}/")[1]
            self.server.asked.add(name)
            data = (self.server.folder / name).read_bytes()
        else:
            status = 404
        self.send_response(status)
        for key, value in (("Content-Length", len(data)), ("ETag", f'"{hash(data)}"'), ("X-Repo-Commit", COMMIT)):
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET


@pytest.fixture
def hub(tiny, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.folder, server.asked = tmp_path / "hub", set()
        shutil.copytree(tiny("sd"), server.folder)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_model_is_fetched_from_the_hub_when_that_is_allowed_and_then_found_without_it(hub, tmp_path):
    (hub.folder / "unet" / "old.bin").write_bytes(b"pickle")
    (hub.folder / "all-in-one.safetensors").write_bytes(b"large")
    place = {"endpoint": f"http://127.0.0.1:{hub.server_port}", "cache": tmp_path / "cache"}
    found = find_model("owner/tiny", downloads=True, **place)
    assert found.title == "owner/tiny"
    assert load_model(found, device="cpu").roles
    assert {"unet/old.bin", "all-in-one.safetensors"} & hub.asked == set()
    hub.asked.clear()
    assert find_model("owner/tiny", **place) == found
    assert not hub.asked


def test_a_model_that_the_hub_has_not_is_told_from_a_hub_that_is_down(hub, tmp_path):
    place = {"downloads": True, "endpoint": f"http://127.0.0.1:{hub.server_port}", "cache": tmp_path / "cache"}
    with pytest.raises(ConfigurationError, match="HTTP 404"):
        find_model("owner/none", **place)
    with pytest.raises(SourceUnreachable):
        find_model("owner/none", **{**place, "endpoint": "http://127.0.0.1:9"})


def test_a_gpu_that_is_not_there_is_refused(tiny):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigurationError, match="no device cuda"):
        load_model(find_model(str(tiny("sd"))), device="cuda")


def test_a_model_that_does_not_fit_the_memory_is_not_loaded(tiny, monkeypatch):
    monkeypatch.setattr(diffusers_load, "free_bytes", lambda _device: 1000)
    with pytest.raises(ConfigurationError) as refused:
        load_model(find_model(str(tiny("sd"))), device="cpu")
    assert refused.value.error_code == "model_too_large"


def test_short_memory_cuts_the_work_into_slices_and_changes_nothing_else(tiny, monkeypatch):
    folder = find_model(str(tiny("sd")))
    monkeypatch.setattr(diffusers_load, "free_bytes", lambda _device: int(weight_bytes(folder.path, 4) * 1.5))
    model = load_model(folder, device="cpu")
    assert model.roles[Role.TEXT_TO_IMAGE].vae.use_slicing
    assert decode_image(DiffusersPipeline(model, QUICK).generate(ask()).data).shape == (64, 64, 3)


def _index(folder, **changes):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _pickled(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")


def _auto_map(folder):
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda folder: _index(folder, unet=["evil", "Unet"]),
        lambda folder: _index(folder, unet=["os", "system"]),
        lambda folder: _index(folder, **{"../up": ["diffusers", "UNet2DConditionModel"]}),
        lambda folder: _index(folder, _class_name="os.system"),
        lambda folder: _index(folder, _class_name=["evil", "Pipeline"]),
        lambda folder: _index(folder, _class_name="AutoencoderKL"),
        lambda folder: (folder / "model_index.json").write_text("[" * 100_000),
        lambda folder: (folder / "unet" / "code.py").write_text("raise SystemExit"),
        lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 100),
        lambda folder: shutil.rmtree(folder / "vae"),
        _pickled,
        _auto_map,
    ],
)
def test_a_model_that_is_damaged_or_brings_code_is_refused(tiny, tmp_path, break_it):
    folder = tmp_path / "model"
    shutil.copytree(tiny("sd"), folder)
    break_it(folder)
    with pytest.raises(ConfigurationError) as refused:
        load_model(read_folder(folder, "model"), device="cpu")
    assert refused.value.error_code == "model_refused"
