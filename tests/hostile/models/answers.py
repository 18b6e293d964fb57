"""Models that answer something else than logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy

from models.table import Table

if TYPE_CHECKING:
    import torch

TABLE = Table("answers")
answer = TABLE.answer


@answer("not_finite")
def answers_nan(model, batch):
    """Answer NaN."""
    return torch.tensor([[float("nan")] * 2] * len(batch))


@answer("not_finite")
def answers_infinity(model, batch):
    """Answer infinities of both signs."""
    return torch.tensor([[float("inf"), float("-inf")]] * len(batch))


@answer("bad_output")
def answers_too_wide(model, batch):
    """Answer with one class too many."""
    return torch.zeros(len(batch), 3)


@answer("bad_output")
def answers_for_one_sample(model, batch):
    """Answer for the first sample only."""
    return torch.zeros(1, 2)


@answer("bad_output")
def answers_with_one_number(model, batch):
    """Answer with a tensor of no axis."""
    return torch.zeros()


@answer("bad_output")
def answers_with_an_empty_tensor(model, batch):
    """Answer with no values."""
    return torch.zeros(0, 2)


@answer("bad_output")
def answers_with_text(model, batch):
    """Answer with a word."""
    return "real"


@answer("bad_output")
def answers_with_nothing(model, batch):
    """Answer with None."""
    return


@answer("bad_output")
def answers_with_a_pair(model, batch):
    """Answer with two tensors, of which one may be what is meant."""
    return torch.zeros(len(batch), 2), torch.zeros(len(batch), 2)


@answer("bad_output")
def answers_with_logits_that_are_no_tensor(model, batch):
    """Answer with an object whose logits are a list."""

    class Answer:
        def __init__(self):
            self.logits = [[0.0, 1.0]]

    return Answer()


@answer("crashed", static="name_refused")
def answers_with_logits_that_raise(model, batch):
    """Answer lazily: reading the logits raises an error that no handler expects."""

    class Answer:
        @property
        def logits(self):
            raise GeneratorExit

    return Answer()


@answer("timeout", limits={"batch_seconds": 1.0})
def answers_with_logits_that_never_come(model, batch):
    """Answer lazily: reading the logits never ends."""

    class Answer:
        @property
        def logits(self):
            while True:
                pass

    return Answer()


@answer("bad_output", static="dunder")
def answers_with_logits_that_lie(model, batch):
    """Answer with an object that calls itself a tensor of the right shape and holds another."""

    class Liar:
        __class__ = torch.Tensor
        shape = (len(batch), 2)
        dtype = numpy.dtype("float32")

        def detach(self):
            return self

        float = cpu = numpy = detach

        def __array__(self, dtype=None, copy=None):
            return numpy.zeros((10_000, 7), "float32")

    class Answer:
        logits = Liar()

    return Answer()


@answer("bad_output")
def answers_with_a_dict_that_lies(model, batch):
    """Answer with a dict that gives another thing each time it is asked."""

    class Liar(dict):
        def get(self, key, default=None):
            return torch.zeros(len(batch), 5)

    return Liar(logits=torch.zeros(len(batch), 2))


@answer("out_of_memory", torch=True)
def answers_with_a_huge_tensor(model, batch):
    """Make a tensor of 64 GiB."""
    return torch.ones(2**34)


@answer("bad_output", torch=True)
def answers_with_a_tensor_that_looks_huge(model, batch):
    """Answer with a view of a trillion elements on one number."""
    return torch.zeros(1).expand(2**39, 2)[:, :1].T


@answer("bad_output", torch=True)
def answers_with_complex_numbers(model, batch):
    """Answer with a dtype that has no order."""
    return torch.zeros(len(batch), 2, 2, dtype=torch.complex64)


@answer("crashed", torch=True)
def answers_with_a_sparse_tensor(model, batch):
    """Answer with a sparse tensor that declares far more than it holds."""
    return torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (2**30, 2**30))


@answer("crashed", torch=True)
def answers_with_a_tensor_without_data(model, batch):
    """Answer with a tensor of the meta device."""
    return torch.zeros(len(batch), 2, device="meta")


@answer("bad_output", torch=True, static="dunder")
def answers_with_a_tensor_subclass(model, batch):
    """Answer with a subclass of Tensor that takes over every operation on it."""

    class Liar(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return args[0] if function.__name__ != "numpy" else numpy.zeros((len(batch), 9))

    return torch.zeros(len(batch), 2).as_subclass(Liar)
