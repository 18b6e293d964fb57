"""A round of flat pictures and a sandbox without isolation, for tests of the engine."""

import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gas.bench.engine import RunConfig
from gas.datasets.plan import Round, freeze_round
from gas.errors import ModelFailed
from gas.sandbox.base import Limits, ModelSpec, Tier
from gas.types import Hotkey, MediaType, Modality, Provenance, Sample

sys.path.insert(0, str(Path(__file__).parent))


def make_round(count: int, seed: int = 7, **parameters: object) -> Round:
    """A frozen round of :func:`make_samples`."""
    return freeze_round(make_samples(count), seed, parameters, code_version="test")


def make_samples(count: int) -> tuple[Sample, ...]:
    """Real and fake in turn; three data sets; arena media of one generator."""
    samples = []
    for i in range(count):
        fake = i % 2 == 1
        dataset = ("photos", "made", "wild", "arena-one")[i % 4]
        arena = dataset == "arena-one"
        samples.append(
            Sample(
                sample_id=f"{i:064x}",
                modality=Modality.IMAGE,
                media_type=MediaType.SYNTHETIC if fake else MediaType.REAL,
                provenance=Provenance.ARENA if arena else Provenance.PUBLIC,
                dataset=dataset,
                source=f"{dataset}-{i % 5}",
                origin=f"{i:064x}",
                generator_hotkey=Hotkey("generator-one") if arena else None,
            )
        )
    return tuple(samples)


@dataclass
class FlatMedia:
    """Sample number i is a picture of the value i; robust pixels are marked in the last row."""

    broken: frozenset[int] = frozenset()
    fetched: list[tuple[str, bool]] = field(default_factory=list)

    def fetch(self, sample_ids, target, *, robust):
        self.fetched += [(name, robust) for name in sample_ids]
        numbers = np.array([int(name, 16) for name in sample_ids])
        pixels = np.zeros((len(numbers), *target.shape), dtype=np.uint8)
        pixels[:, 0] = (numbers % 256)[:, None, None]
        pixels[:, 1] = (numbers // 256)[:, None, None]
        pixels[:, 2] = robust
        return pixels, np.array([number not in self.broken for number in numbers])


def numbers_of(batch):
    """Which samples a model double sees."""
    return batch[:, 0, 0, 0].astype(int) + 256 * batch[:, 1, 0, 0].astype(int)


def honest(batch):
    """Right about every sample, with confidence."""
    fake = numbers_of(batch) % 2 == 1
    return np.stack([np.where(fake, -2.0, 2.0), np.where(fake, 2.0, -2.0)], axis=1).astype(np.float32)


class FakeSession:
    """A model in this process; dead after a failure, as a real one."""

    def __init__(self, sandbox):
        self.tier, self._sandbox, self.closed = sandbox.tier, sandbox, False

    def infer(self, batch):
        assert not self.closed, "a dead session was asked again"
        with self._sandbox.lock:
            self._sandbox.batches.append(numbers_of(batch).tolist())
        return self._sandbox.model(batch)

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class FakeSandbox:
    """Counts what the engine asks of a sandbox."""

    def __init__(self, model=honest, tier=Tier.BUBBLEWRAP, load=None):
        self.model, self.tier, self.load = model, tier, load
        self.sessions, self.batches, self.lock = [], [], threading.Lock()

    def start(self, spec, *, batch_size, limits=None, threads=1):
        with self.lock:
            if self.load is not None:
                self.load(len(self.sessions))
            session = FakeSession(self)
            self.sessions.append(session)
        return session


@pytest.fixture
def bench():
    """The doubles, as one name."""

    class Doubles:
        samples, round = staticmethod(make_samples), staticmethod(make_round)
        Media, Sandbox = FlatMedia, FakeSandbox
        honest, numbers_of = staticmethod(honest), staticmethod(numbers_of)
        spec = ModelSpec(Path("/nowhere"), "onnx", "model.onnx", None, (3, 4, 4), "uint8", 2)

        @staticmethod
        def config(**changes):
            return RunConfig(**{"nonce": "0123456789abcdef", "batch_size": 8, "processes": 2, **changes})

        @staticmethod
        def dies_on(*guilty):
            """An honest model that crashes on some samples."""

            def model(batch):
                if set(guilty) & set(numbers_of(batch).tolist()):
                    raise ModelFailed("The model died.", code="crashed")
                return honest(batch)

            return model

        limits = Limits()

    return Doubles
