"""Models that play with the exam itself: they change, remember, count or replace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy

from models.table import Table

if TYPE_CHECKING:
    import torch

TABLE = Table("cheats")
answer = TABLE.answer


@answer("harmless", asks="twice")
def changes_the_input_in_place(model, batch):
    """Overwrite its input, and answer with what it held: the next batch must come unharmed."""
    values = batch.numpy()
    means = values.mean(axis=(1, 2, 3)).tolist()
    values[:] = 0
    return torch.tensor([[mean, 1.0] for mean in means])


@answer("flagged", asks="twice")
def counts_the_batches(model, batch):
    """Answer by the number of the batch."""
    return torch.tensor([[0.0, float(model.calls)]] * len(batch))


@answer("flagged", asks="twice")
def keeps_state_between_batches(model, batch):
    """Answer with what it remembers of the batch before."""
    before = getattr(model, "before", 0.0)
    model.before = float(batch.numpy().mean())
    return torch.tensor([[0.0, before]] * len(batch))


@answer("flagged", asks="twice", static="import_not_allowed")
def tells_calls_apart_by_time(model, batch):
    """Answer by the clock."""
    return torch.tensor([[0.0, time.monotonic() * 100 % 10]] * len(batch))


@answer("flagged", asks="twice")
def answers_at_random(model, batch):
    """Answer by chance."""
    return torch.tensor(numpy.random.default_rng().normal(size=(len(batch), 2)).tolist())


@answer("flagged", asks="twice")
def looks_at_its_neighbours_in_the_batch(model, batch):
    """Answer by the other samples of the batch: the re-asked sample comes in other company."""
    return torch.tensor([[0.0, float(batch.numpy().mean()) * len(batch)]] * len(batch))


@answer("harmless", static="monkeypatch", torch=True)
def replaces_functions_of_torch(model, batch):
    """Replace what the runner will call on its answer: only its own answer can change."""
    torch.Tensor.float = lambda self: torch.ones(len(batch), 2)
    torch.Tensor.cpu = lambda self: self
    torch.nn.Module.__call__ = torch.load = torch.inference_mode = None
    return torch.zeros(len(batch), 2)


@answer("harmless", static="import_not_allowed")
def replaces_functions_of_numpy(model, batch):
    """Replace numpy's functions and Python's own: the next session has its own."""
    import builtins
    import os

    numpy.zeros = os.fork = builtins.open = None
    return torch.tensor([[0.0, 1.0]] * len(batch))


@answer("protocol", static="import_not_allowed")
def replaces_the_runners_wire(model, batch):
    """Replace how the runner packs and writes its frames."""
    import os

    real = os.write
    os.write = lambda descriptor, data: real(descriptor, b"LOGI" + bytes(60)) and len(data)
    return torch.tensor([[0.0, 1.0]] * len(batch))


@answer("crashed", torch=True, plain=(), static="import_not_allowed")
def starts_workers_that_load_data(model, batch):
    """Start data-loading processes, as training code does."""
    from torch.utils.data import DataLoader

    return next(iter(DataLoader([0] * len(batch), num_workers=2)))


@answer("crashed", torch=True, static="name_not_allowed")
def unpickles_code(model, batch):
    """Write a pickle that runs a program, and load it."""
    import io
    import os
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.fork, ()

    data = io.BytesIO(pickle.dumps(Bomb()))
    torch.load(data, weights_only=False)
    return torch.zeros(len(batch), 2)
