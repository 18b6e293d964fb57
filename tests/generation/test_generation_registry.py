import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gas.cli.local_media import generate
from gas.clock import ManualClock
from gas.errors import ConfigurationError, InfrastructureError, RequestRefused
from gas.generation import registry_run
from gas.generation.base import GeneratedMedium
from gas.generation.registry import LocalModel, ModelTask, builtin_models, load_models
from gas.generation.registry_files import MediaFolder
from gas.generation.registry_plan import plan_jobs, plan_turns
from gas.generation.registry_run import LocalFailure, ModelUse, load_local, run_turns
from gas.media.image import decode_image, encode_png
from gas.media.masks import decode_mask
from gas.types import MediaType, Modality

PIPELINES = {"t2i": "diffusion", "i2i": "image-to-image", "inpaint": "inpainting", "t2v": "video", "tts": "speech"}
PNG = encode_png(np.zeros((8, 8, 3), np.uint8))


def entry(name="m", task="t2i", **more):
    return LocalModel.model_validate({"name": name, "task": task, "pipeline": PIPELINES[task], **more})


class Fake:
    """A pipeline that notes its batches, and has room for ``room`` media at a time."""

    name = "fake"
    modalities = frozenset(Modality)

    def __init__(self, room=99, clock=None, refuses=()):
        self.batches, self.room, self.clock, self.refuses = [], room, clock, refuses

    def generate(self, task):
        return self.generate_many([task])[0]

    def generate_many(self, tasks):
        self.batches.append(len(tasks))
        if self.clock:
            self.clock.advance(2.0)
        if len(tasks) > self.room:
            raise InfrastructureError("No room.", code="out_of_memory")
        if any(task.prompt in self.refuses for task in tasks):
            raise RequestRefused("No.", status=422, code="moderation_refused")
        return [GeneratedMedium(PNG, "image/png", MediaType.SYNTHETIC, "fake") for _ in tasks]


def run(models, pipelines, count=8, per_turn=4, photos=(), clock=None, uses=None, **more):
    jobs = {m.name: plan_jobs(m, count, seed=1, photos=[p.name for p in photos], **more) for m in models}
    loaded = []

    def load(model):
        loaded.append(model.name)
        if isinstance(pipelines[model.name], Exception):
            raise pipelines[model.name]
        return pipelines[model.name]

    uses = {} if uses is None else uses
    results = list(
        run_turns(
            plan_turns(models, jobs, per_turn),
            photos=list(photos),
            clock=clock or ManualClock(),
            uses=uses,
            device="cpu",
            load=load,
        )
    )
    return results, uses, loaded


def test_the_shipped_registry_has_every_task_and_runs_on_a_cpu():
    models = builtin_models()
    assert {model.task for model in models} == set(ModelTask)
    assert {model.pipeline for model in models} >= {"resynthesis", "diffusion", "inpainting", "speech"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("models: [", "no YAML"),
        ("[]", "models"),
        ("models: []", "models"),
        ("models: [{name: a, task: t2i, pipeline: diffusion}]\nmore: 1", "models"),
        ("models: [{name: a, task: t2i, pipeline: magic}]", "no pipeline"),
        ("models: [{name: a, task: fly, pipeline: diffusion}]", "task"),
        ("models: [{name: A/../b, task: t2i, pipeline: diffusion}]", "name"),
        ("models: [{name: a, task: tts, pipeline: diffusion}]", "does t2i"),
        ("models: [{name: a, task: t2i, pipeline: diffusion, media_type: real}]", "real"),
        ("models: [{name: a, task: t2i, pipeline: diffusion, media_type: semisynthetic}]", "synthetic"),
        ("models: [{name: a, task: t2i, pipeline: diffusion, arguments: {steps: 3}}]", "no argument 'steps'"),
        ("models: [{name: a, task: t2i, pipeline: diffusion, colour: red}]", "colour"),
        (
            "models: [{name: a, task: t2i, pipeline: diffusion}, {name: a, task: tts, pipeline: speech}]",
            "stands twice",
        ),
    ],
)
def test_a_registry_that_is_wrong_says_where(tmp_path, text, word):
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        load_models(tmp_path / "models.yaml")
    assert refused.value.error_code == "models_invalid"
    assert word in str(refused.value)


def test_every_fault_of_a_registry_is_listed_at_once(tmp_path):
    (tmp_path / "m.yaml").write_text("models: [{name: a, task: x, pipeline: y}, {name: b, task: t2i}]")
    with pytest.raises(ConfigurationError) as refused:
        load_models(tmp_path / "m.yaml")
    assert "a: task" in str(refused.value)
    assert "b: pipeline" in str(refused.value)


@given(
    st.lists(st.tuples(st.sampled_from(["t2i", "t2v", "tts"]), st.integers(0, 9)), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_every_job_has_one_turn_and_no_modality_waits_long(shape, per_turn):
    models = [entry(f"m{i}", task) for i, (task, _) in enumerate(shape)]
    jobs = {m.name: plan_jobs(m, count, seed=0) for m, (_, count) in zip(models, shape, strict=True)}
    turns = plan_turns(models, jobs, per_turn)
    assert Counter(job.id for turn in turns for job in turn.jobs) == Counter(
        job.id for mine in jobs.values() for job in mine
    )
    assert all(1 <= len(turn.jobs) <= per_turn for turn in turns)
    for index, (one, two) in enumerate(pairwise(turns)):
        if one.model.task.modality is two.model.task.modality:
            # Only when nothing else is left.
            assert {turn.model.task.modality for turn in turns[index:]} == {one.model.task.modality}


def test_the_same_seed_plans_the_same_jobs_and_another_model_other_ones():
    first = plan_jobs(entry(), 5, seed=3)
    assert first == plan_jobs(entry(), 5, seed=3)
    assert first[:3] == plan_jobs(entry(), 3, seed=3)
    assert len({job.id for job in (*first, *plan_jobs(entry("n"), 5, seed=3), *plan_jobs(entry(), 5, seed=4))}) == 15


def test_models_take_turns_and_are_loaded_once_each_turn():
    models = [entry("paint"), entry("speak", "tts")]
    results, uses, loaded = run(models, {"paint": Fake(), "speak": Fake()})
    assert loaded == ["paint", "speak", "paint", "speak"]
    assert [r.model.name for r in results] == ["paint"] * 4 + ["speak"] * 4 + ["paint"] * 4 + ["speak"] * 4
    assert uses["paint"].media == 8
    assert uses["paint"].loads == 2


def test_the_first_medium_is_made_alone_and_then_whole_batches():
    fake = Fake()
    run([entry(max_batch=4)], {"m": fake}, count=9, per_turn=9)
    assert fake.batches == [1, 4, 4]


def test_a_batch_that_finds_no_room_is_halved_and_the_size_remembered():
    fake, uses = Fake(room=2), {}
    results, uses, _ = run([entry(max_batch=8)], {"m": fake}, count=9, per_turn=9, uses=uses)
    assert fake.batches == [1, 8, 4, 2, 2, 2, 2]
    assert len(results) == 9
    assert uses["m"].batch == 2
    again = Fake(room=2)
    run([entry(max_batch=8)], {"m": again}, count=4, per_turn=4, uses=uses)
    assert again.batches == [2, 2]


def test_a_batch_fits_what_memory_is_free(monkeypatch):
    class Marks:
        def __init__(self, _device):
            self.values = iter((100, 130))

        def bytes(self):
            return next(self.values, 130)

    monkeypatch.setattr(registry_run, "PeakMemory", Marks)
    monkeypatch.setattr(registry_run, "free_bytes", lambda _device: 120)
    fake = Fake()
    _, uses, _ = run([entry(max_batch=8)], {"m": fake}, count=7, per_turn=7)
    # 30 bytes a medium, and 80 % of 120 to take.
    assert fake.batches == [1, 3, 3]
    assert uses["m"].peak_bytes == 130


def test_a_model_without_room_for_one_medium_costs_its_own_jobs_only():
    results, uses, _ = run([entry("a"), entry("b", "tts")], {"a": Fake(room=0), "b": Fake()}, count=6, per_turn=3)
    failed = [r for r in results if isinstance(r, LocalFailure)]
    assert {f.model.name for f in failed} == {"a"}
    assert sum(f.jobs for f in failed) == uses["a"].failed == 6
    assert uses["b"].media == 6


def test_a_model_that_cannot_be_loaded_costs_its_own_jobs_only():
    broken = ConfigurationError("No such weights.")
    results, uses, loaded = run([entry("a"), entry("b", "tts")], {"a": broken, "b": Fake()})
    failures = [r for r in results if isinstance(r, LocalFailure)]
    assert [(f.model.name, f.jobs) for f in failures] == [("a", 8)]
    assert loaded.count("a") == 1
    assert uses["b"].media == 8


def test_a_prompt_that_is_refused_costs_nothing_but_itself():
    prompts = ["good", "bad", "fine"]
    results, uses, _ = run([entry(max_batch=4)], {"m": Fake(refuses=("bad",))}, count=12, per_turn=12, prompts=prompts)
    failed = [r for r in results if isinstance(r, LocalFailure)]
    made = [r for r in results if not isinstance(r, LocalFailure)]
    assert {f.job.prompt for f in failed} == {"bad"}
    assert {m.job.prompt for m in made} == {"good", "fine"}
    assert len(made) + len(failed) == 12
    assert uses["m"].failed == len(failed)


def test_seconds_are_shared_by_a_batch():
    clock = ManualClock()
    results, uses, _ = run([entry(max_batch=4)], {"m": Fake(clock=clock)}, count=5, per_turn=5, clock=clock)
    assert [r.seconds for r in results] == [2.0, 0.5, 0.5, 0.5, 0.5]
    assert uses["m"].seconds == 4.0


def test_a_photo_that_is_damaged_costs_its_own_jobs_only(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.png").write_bytes(encode_png(np.zeros((40, 40, 3), np.uint8)))
    photos = sorted(tmp_path.iterdir())
    results, _, _ = run([entry(task="i2i")], {"m": Fake()}, count=10, per_turn=10, photos=photos)
    failed = [r for r in results if isinstance(r, LocalFailure)]
    assert 0 < len(failed) < 10
    assert {f.error.error_code for f in failed} == {"bad_source"}


def test_a_folder_takes_up_where_it_was_left(tmp_path):
    results, uses, _ = run([entry()], {"m": Fake()}, count=2)
    with MediaFolder(tmp_path) as folder:
        for result in results:
            folder.add(result)
        folder.keep_uses(uses)
    with (tmp_path / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"id": "half of a li')
    with MediaFolder(tmp_path) as folder:
        assert folder.done == {r.job.id for r in results}
        assert folder.uses() == uses
    (tmp_path / folder.rows()[0]["file"]).unlink()
    with MediaFolder(tmp_path) as folder:
        assert folder.done == {results[1].job.id}


def test_a_folder_with_a_damaged_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.jsonl").write_text("nonsense\n")
    with pytest.raises(ConfigurationError) as refused:
        MediaFolder(tmp_path)
    assert refused.value.error_code == "manifest_damaged"
    (tmp_path / "models.json").write_text("[]")
    (tmp_path / "manifest.jsonl").unlink()
    with MediaFolder(tmp_path) as folder:
        assert folder.uses() == {}


def test_a_diffusers_entry_hands_its_arguments_on(monkeypatch):
    seen = {}
    monkeypatch.setattr(registry_run, "load_pipeline", lambda name, **more: seen.update(more, name=name) or Fake())
    arguments = {"dtype": "float16", "steps": 7, "size": [640, 360]}
    load_local(
        LocalModel.model_validate(
            {"name": "m", "task": "t2v", "pipeline": "diffusers:owner/name", "arguments": arguments}
        ),
        device="cpu",
    )
    assert seen["name"] == "diffusers:owner/name"
    assert seen["dtype"] == "float16"
    assert (seen["defaults"].steps, seen["defaults"].size) == (7, (640, 360))


@pytest.fixture
def gascli():
    app = typer.Typer()
    app.command()(generate)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_makes_media_with_masks_and_a_manifest_and_makes_none_twice(gascli, tmp_path, picture_folder):
    words = ["--out", tmp_path / "out", "--photos", picture_folder, "--count", 1, "--device", "cpu", "--json"]
    words += ["--only", "inpaint", "--only", "small-diffusion"]
    first = gascli(*words)
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert (told["made"], told["failed"]) == (2, 0)
    assert told["models"]["small-diffusion"]["peak_bytes"] > 0
    rows = {row["task"]: row for row in MediaFolder(tmp_path / "out").rows()}
    part = rows["inpaint"]
    assert part["media_type"] == "semisynthetic"
    assert len(part["source_sha256"]) == 64
    pixels = decode_image((tmp_path / "out" / part["file"]).read_bytes())
    assert decode_mask((tmp_path / "out" / part["mask"]).read_bytes()).shape == pixels.shape[:2]
    assert {"prompt", "seed", "parameters", "made_by", "seconds", "tags"} <= rows["t2i"].keys()
    assert rows["t2i"]["mask"] is None
    again = json.loads(gascli(*words).stdout)
    assert (again["made"], again["already"]) == (0, 2)


def test_the_command_lists_and_refuses(gascli, tmp_path):
    assert "small-diffusion-inpainting" in gascli("--list").stdout
    for words in (["--only", "magic"], ["--photos", tmp_path / "none"], ["--prompts", tmp_path / "none"]):
        assert isinstance(gascli("--out", tmp_path / "out", *words).exception, ConfigurationError)


def test_models_without_photos_to_start_from_are_left_out_and_named(gascli, tmp_path):
    done = gascli("--out", tmp_path, "--only", "inpaint", "--json")
    assert json.loads(done.stdout)["skipped"] == ["small-diffusion-inpainting"]


def test_costs_of_two_runs_add_up():
    uses = {"m": ModelUse(media=3, seconds=1.0, batch=4)}
    _, uses, _ = run([entry(max_batch=4)], {"m": Fake()}, count=4, uses=uses)
    assert uses["m"].media == 7
