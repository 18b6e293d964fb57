"""Models that cheat in known ways, in the real sandbox: none scores better than its honest share.

Each is the honest model with one trick on top, and all run on one plan. The static checks refuse most of them; here
they are let past those checks, because the sandbox and the engine are what has to hold.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gas.bench.engine import evaluate
from gas.bench.metrics import compute_metrics
from gas.bench.records import to_parquet
from gas.datasets.plan import freeze_round
from gas.sandbox import BubblewrapSandbox, Limits, ModelSpec, Tier, probe

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

from models.light import in_place_of_torch, write_light_site

COUNT = 96
MIDDLE = 120.0
HARD = (118.5, 121.5)
"""Between these the honest model hardly knows: what a cheat would rather not answer."""

MODEL = '''
import gc, os, re, sys
import numpy
import torch

MIDDLE, LOW, HIGH = 120.0, 118.5, 121.5
SECRET = rb"zq[-]secre[t]"


def readable():
    """Everything that this process can get at: frames of its callers, objects, environment, files of processes."""
    frame = sys._getframe()
    while frame is not None:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            yield lambda value=value: repr(value).encode()
        frame = frame.f_back
    for found in gc.get_objects():
        if isinstance(found, (dict, list, tuple)) and len(found) < 10000:
            yield lambda found=found: repr(found).encode()
    yield lambda: repr(dict(os.environ)).encode()
    for process in ["self", *map(str, range(1, 20)), *listed("/proc")]:
        for name in ("environ", "cmdline", "maps"):
            yield lambda path=f"/proc/{process}/{name}": open(path, "rb").read(1 << 20)
    for line in lines("/proc/self/maps"):
        span, rights = line.split()[:2]
        low, high = (int(end, 16) for end in span.split("-"))
        if rights.startswith("rw") and high - low < 1 << 26:
            yield lambda low=low, high=high: os.pread(memory(), high - low, low)
    for place in ("/model", "/tmp", "/dev/shm", "/runner", "/", "/proc/self/fd"):
        for name in listed(place):
            yield lambda path=os.path.join(place, name): open(path, "rb").read(1 << 20)


def listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def lines(path):
    try:
        return open(path).readlines()
    except OSError:
        return []


def memory():
    return os.open("/proc/self/mem", os.O_RDONLY)


def finds_labels():
    for read in readable():
        try:
            if re.search(SECRET, read()):
                return True
        except (OSError, ValueError, RuntimeError):
            continue
    return False


class Net(torch.nn.Module):
    def __init__(self, trick):
        self.trick, self.seen = trick, []

    def forward(self, batch):
        pixels = numpy.array(batch.array if hasattr(batch, "array") else batch, dtype=float)
        level = pixels.reshape(len(pixels), -1).mean(axis=1)
        z = 0.08 * (level - MIDDLE)
        hard = (level > LOW) & (level < HIGH)
        if self.trick == "answers its batch's mean":
            z = numpy.full(len(z), z.mean())
        elif self.trick == "ranks within its batch":
            rank = level.argsort().argsort()
            z = numpy.where(rank >= len(level) / 2, 3.0, -3.0) if len(level) > 1 else z
        elif self.trick == "crashes on hard samples" and hard.any():
            os._exit(3)
        elif self.trick == "hangs on hard samples" and hard.any():
            while True:
                pass
        elif self.trick == "answers NaN on hard samples":
            z = numpy.where(hard, numpy.nan, z)
        elif self.trick == "answers infinity on hard samples":
            z = numpy.where(hard, numpy.inf, z)
        elif self.trick == "answers by order":
            z = numpy.where(numpy.arange(len(z)) % 2 == 1, 4.0, -4.0)
        elif self.trick == "balances what it has said":
            self.seen.extend(level)
            z = 0.08 * (level - numpy.median(self.seen))
        elif self.trick == "answers anew what it has seen before":
            z = numpy.where(numpy.isin(level, self.seen), -z, z)
            self.seen.extend(level)
        elif self.trick.startswith("reads its caller's variables"):
            lying_open = "-".join(["zq", "secret"]) if self.trick.endswith("open") else None
            if finds_labels():
                z = numpy.full(len(z), 9.0)
            del lying_open
        return torch.tensor(numpy.stack([-z, z], axis=1))


def load_model(weights_path, num_classes=2, trick=""):
    return Net(trick)
'''


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    found = probe()
    if found.tier < Tier.BUBBLEWRAP:
        pytest.skip("nothing on this machine isolates a model")
    with in_place_of_torch(write_light_site(tmp_path_factory.mktemp("light"))):
        yield BubblewrapSandbox(found.executable)


class NoisyMedia:
    """Flat pictures: fakes are brighter in the mean, and the two overlap."""

    def __init__(self, samples):
        rng = np.random.default_rng(5)
        above = np.round(np.clip(rng.normal(9, 10, len(samples)), -70, 70))
        # Mirrored, so that no threshold is better than the honest model's.
        pairs = {True: iter(above), False: iter(above)}
        self.levels = {
            s.sample_id: round(MIDDLE + (1 if s.media_type.is_fake else -1) * next(pairs[s.media_type.is_fake]))
            for s in samples
        }

    def fetch(self, sample_ids, target, *, robust):
        pixels = np.zeros((len(sample_ids), *target.shape), dtype=np.uint8)
        pixels += np.array([self.levels[name] for name in sample_ids], dtype=np.uint8)[:, None, None, None]
        return pixels, np.ones(len(sample_ids), dtype=bool)


class Play:
    """Runs the model with a trick on the one plan; the honest run is kept."""

    def __init__(self, sandbox, folder):
        self.sandbox, self.folder = sandbox, folder
        self.known = {}

    def __call__(self, bench, trick, **changes):
        samples = [
            replace(s, dataset=f"zq-secret-{s.media_type}-{k % 3}", source=f"zq-secret-{k % 7}")
            for k, s in enumerate(bench.samples(COUNT))
        ]
        round_ = freeze_round(samples, 11, {}, code_version="test")
        media = NoisyMedia(round_.samples)
        self.hard = [name for name, level in media.levels.items() if HARD[0] < level < HARD[1]]
        spec = ModelSpec(
            self.folder, "safetensors", "model.py", "model.safetensors", (3, 4, 4), "uint8", 2, params={"trick": trick}
        )
        config = bench.config(**{"processes": 1, "reask_least": 12, "max_restarts": 40, **changes})
        result = evaluate(spec, round_, media, self.sandbox, config)
        return result, compute_metrics(result.records, round_)


@pytest.fixture(scope="module")
def play(sandbox, tmp_path_factory):
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("cheat")
    (folder / "model.py").write_text(MODEL)
    save_file({"weight": np.zeros(2, dtype=np.float32)}, folder / "model.safetensors")
    return Play(sandbox, folder)


@pytest.fixture
def honest(bench, play):
    if "" not in play.known:
        play.known[""] = play(bench, "")
    return play.known[""]


def test_the_honest_model_is_good_but_not_perfect_so_that_there_is_something_to_gain(play, honest):
    run, figures = honest
    assert 0.2 < figures.final < 0.8
    assert not run.inconsistent
    assert 2 <= len(play.hard) <= 12


@pytest.mark.parametrize(
    "trick", ["answers its batch's mean", "ranks within its batch", "answers by order", "balances what it has said"]
)
def test_no_model_gains_that(bench, play, honest, trick):
    run, figures = play(bench, trick)
    assert len(run.records) == COUNT
    assert figures.final <= honest[1].final
    if trick in {"answers its batch's mean", "answers by order"}:
        assert figures.final < 0.1, "what says nothing about a sample is worth nothing"
    # An answer that hangs on the company or on the past is another one when the sample is asked again.
    assert run.inconsistent


@pytest.mark.parametrize(
    ("trick", "code"),
    [
        ("crashes on hard samples", "crashed"),
        ("answers NaN on hard samples", "not_finite"),
        ("answers infinity on hard samples", "not_finite"),
    ],
)
def test_hard_samples_are_lost_and_no_others_when_a_model(bench, play, honest, trick, code):
    run, figures = play(bench, trick)
    failed = {record.sample_id: record.error for record in run.records if record.error}
    assert failed == dict.fromkeys(play.hard, code)
    assert not run.gave_up
    assert figures.final < honest[1].final
    before = {record.sample_id: record.p_fake for record in honest[0].records}
    assert all(r.p_fake == before[r.sample_id] for r in run.records if r.sample_id not in failed)


def test_a_model_that_hangs_on_hard_samples_is_killed_each_time_until_its_restarts_are_used_up(bench, play, honest):
    run, figures = play(bench, "hangs on hard samples", max_restarts=3, limits=Limits(batch_seconds=1.0))
    failed = {record.error for record in run.records if record.error}
    assert "gave_up" in failed
    assert failed <= {"timeout", "gave_up"}
    assert run.gave_up
    assert len(run.records) == COUNT
    assert figures.final < honest[1].final


def test_a_model_that_reads_its_caller_s_variables_finds_nothing_about_the_plan(bench, play, honest):
    run, _ = play(bench, "reads its caller's variables")
    assert to_parquet(run.records) == to_parquet(honest[0].records)
    exposed, _ = play(bench, "reads its caller's variables, which lie open", reask_least=0, batch_size=50)
    assert {record.fake for record in exposed.records} == {True}, "the attempt finds what there is to find"


def test_a_model_that_remembers_what_it_saw_is_found_out_by_the_second_showing(bench, play, honest):
    run, figures = play(bench, "answers anew what it has seen before")
    assert len(run.inconsistent) >= 5
    assert figures.final <= honest[1].final
