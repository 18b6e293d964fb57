"""Teaching a package's own network on media that one has: the baseline from which an author sets out.

The model's code is the author's own, so it runs here, in this process, as any training script would. Nothing that
comes from others is ever loaded this way.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gas.clock import Clock, derive_rng, derive_seed
from gas.errors import ConfigurationError
from gas.submissions.checkpoint import Checkpoint, save_tensors
from gas.submissions.package import Package
from gas.types import Modality

if TYPE_CHECKING:
    import torch

__all__ = ["Example", "TrainOptions", "TrainProgress", "Trained", "keep_out", "train_package"]

_KEEP_OUT: Final = 6
_SMOOTHING: Final = 0.05
_DECAY: Final = 0.03
_WARM_UP: Final = 0.3
_TRIALS: Final = 5
_STEPS: Final = 360
_LEAST_EPOCHS: Final = 12


@dataclass(frozen=True, slots=True)
class Example:
    """One medium to learn from.

    Attributes:
        views: Inputs of the model's shape: the medium as rounds show it, and as it looks after it was shared.
        fake: Whether a generator made it, wholly or in part.
        origin: What it was made from: an origin is wholly learned from or wholly kept out.
    """

    views: tuple[NDArray[np.generic], ...]
    fake: bool
    origin: str


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs: Passes over the examples, at least 1; as many as make 360 steps, but not below 12, when left out.
        batch_size: Examples in a step, at least 2.
        rate: Largest learning rate, above 0.
        seed: Of the order, the crops, the mirroring, what torch draws, and what is kept out. On a CPU the same seed,
            threads and kind of processor give the same weights.
        seconds: Wall clock after which training ends with the weights it has; None for no limit.
        threads: Of torch. Nets this small gain little by a second one, and it waits by spinning.
        crop: Side of the random crops that pictures and frames are cut to, pixels, where the network takes any size:
            the evidence is local, and a crop costs a quarter. 0 for whole ones.
        excerpt: Part of each sound that is learnt from at a time, in (0, 1], where the network takes any length and no
            sound is filled up with silence.
        device: Torch's name of one; the first CUDA device where there is one, else the CPU, when left out.
    """

    epochs: int | None = None
    batch_size: int = 32
    rate: float = 3e-3
    seed: int = 0
    seconds: float | None = None
    threads: int = 1
    crop: int = 112
    excerpt: float = 0.5
    device: str | None = None


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Where training stands.

    Attributes:
        step: Steps done.
        steps: Steps in all.
        epoch: Epoch under way, from 1.
        loss: Mean loss of the epoch so far.
        accuracy: Balanced accuracy on what is kept out, after the last epoch that was tried on it; None before.
        device: Torch's name of what computes.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    accuracy: float | None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Trained:
    """How training ended.

    Attributes:
        epochs: Whole epochs.
        loss: Mean loss of the last one.
        accuracy: Balanced accuracy of the written weights on what was kept out, over all of its views, in [0, 1];
            None when too little could be kept out. Nothing was chosen by it.
        learned: Media that were learned from.
        kept: Media that were kept out.
        seconds: Wall clock, of this call.
        resumed: Epochs of an earlier call that was cut short.
        device: Torch's name of what computed.
    """

    epochs: int
    loss: float
    accuracy: float | None
    learned: int
    kept: int
    seconds: float
    resumed: int = 0
    device: str = "cpu"


def keep_out(examples: Sequence[Example], seed: int) -> frozenset[str]:
    """Origins that are kept out of learning: a sixth of those of each class, and one of each where there are two.

    Which ones depends on their names and the seed alone, not on the order of the examples.
    """
    out: set[str] = set()
    for fake in (False, True):
        origins = sorted({e.origin for e in examples if e.fake is fake}, key=lambda o: derive_seed(seed, "kept out", o))
        out.update(origins[: max(len(origins) // _KEEP_OUT, int(len(origins) > 1))])
    return frozenset(out)


def train_package(
    folder: Path,
    package: Package,
    examples: Sequence[Example],
    options: TrainOptions,
    clock: Clock,
    on_progress: Callable[[TrainProgress], None] | None = None,
    checkpoints: Path | None = None,
) -> Trained:
    """Teach a safetensors package's network, and write its weights in place when it has learnt.

    Cross-entropy with smoothed labels, as many of each class, AdamW, one cycle of the rate. The last weights are
    written: at the end of the cycle they are the best that can be known without looking at what is kept out.

    Args:
        folder: The package.
        package: What its configuration says.
        examples: Media of both classes, in the model's shape.
        options: How.
        clock: For the limit.
        on_progress: Told after each step.
        checkpoints: Folder in which each epoch is kept until the last one: the same call on the same package and
            examples goes on after it, and ends with the weights that it would have had. None for none.

    Raises:
        ConfigurationError: ``onnx_not_trained``, ``one_class``, ``no_device``, ``diverged``, or ``model_code``: the
            code does not load, or its network has nothing to learn.
        StorageError: The weights or a checkpoint can't be written.
    """
    import torch
    from torch import nn

    if package.weights_file is None:
        raise ConfigurationError(
            "An ONNX file can't be trained.",
            code="onnx_not_trained",
            hint="Begin with `gascli d init NAME --format safetensors`, or train where the file was made.",
        )
    kept = keep_out(examples, options.seed)
    learn = [e for e in examples if e.origin not in kept]
    keep = [e for e in examples if e.origin in kept]
    if len({e.fake for e in learn}) < 2:
        raise ConfigurationError("There are media of one class only to learn from.", code="one_class")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device, weights, begun = _device(options.device), folder / package.weights_file, clock.monotonic()
    model = _load(folder, weights, package).to(device)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            # A third of the time less on a CPU, for the same sums.
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([_label(package, e.fake) for e in learn], device=device)
    steps_each = max(1, math.ceil(len(learn) / options.batch_size))
    epochs = options.epochs or max(_LEAST_EPOCHS, math.ceil(_STEPS / steps_each))
    steps = epochs * steps_each
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=options.rate, weight_decay=_DECAY
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=_SMOOTHING)
    crop = _part(model, learn, package.modality, options)
    saved = None if checkpoints is None else Checkpoint(checkpoints, _key(folder, package, examples, options))
    resumed = 0 if saved is None else saved.load(model, optimiser)
    accuracy, epoch, loss = None, resumed, math.nan
    for epoch in range(resumed + 1, epochs + 1):
        model.train()
        # Of the epoch and the seed alone, so that one that goes on draws what one that ran through would have.
        torch.manual_seed(derive_seed(options.seed, "torch", epoch) >> 1)
        rng, total = derive_rng(options.seed, "order", epoch), 0.0
        batches = _batches(learn, options.batch_size, rng)
        for step in range(steps_each):
            done = (epoch - 1) * steps_each + step
            for group in optimiser.param_groups:
                group["lr"], group["betas"] = _cycle(done / steps, options.rate)
            rows = next(batches)
            batch = np.stack([_view(learn[row], package.modality, crop, rng) for row in rows])
            value = loss_of(_logits(model(torch.from_numpy(batch).to(device))), labels[rows])
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            total += value.item()
            loss = total / (step + 1)
            if not math.isfinite(loss):
                raise ConfigurationError(
                    "The loss is no number any more: nothing was written.",
                    code="diverged",
                    hint=f"Try a smaller --rate than {options.rate:g}.",
                )
            if on_progress is not None:
                on_progress(TrainProgress(done + 1, steps, epoch, loss, accuracy, device))
        late = options.seconds is not None and clock.monotonic() - begun > options.seconds
        if late or epoch == epochs:
            break
        if saved is not None:
            saved.save(epoch, model, optimiser)
        if epoch % max(1, epochs // _TRIALS) == 0:
            accuracy = _accuracy(model, keep, package, device)
    save_tensors({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, weights)
    if saved is not None:
        saved.remove()
    accuracy = _accuracy(model, keep, package, device)
    return Trained(epoch, loss, accuracy, len(learn), len(keep), clock.monotonic() - begun, resumed, device)


def _device(wanted: str | None) -> str:
    import torch

    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        # Torch without CUDA says so by an assertion.
        raise ConfigurationError(
            f"Torch can't compute on {wanted!r} here.", code="no_device", hint="Leave --device out, or take cpu."
        ) from error
    return wanted


def _cycle(part: float, top: float) -> tuple[float, tuple[float, float]]:
    """Learning rate and AdamW's betas after a part of all steps: one cycle (Smith and Topin 2019), cosines."""
    up = part < _WARM_UP
    where = part / _WARM_UP if up else 1 - (part - _WARM_UP) / (1 - _WARM_UP)
    high = 0.5 - 0.5 * math.cos(math.pi * where)
    least = top / (25 if up else 250_000)
    return least + (top - least) * high, (0.95 - 0.1 * high, 0.999)


def _part(model: torch.nn.Module, learn: Sequence[Example], modality: Modality, options: TrainOptions) -> int:
    """Pixels or samples that are learnt from at a time; 0 for whole inputs."""
    crop = options.crop
    if modality is Modality.AUDIO:
        crop = 0 if _any_filled_up(learn) else int(options.excerpt * learn[0].views[0].shape[-1])
    return crop if _takes(model, learn[0], modality, crop) else 0


def _key(folder: Path, package: Package, examples: Sequence[Example], options: TrainOptions) -> str:
    """Of everything that the weights depend on but the device and the time allowed."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(json.dumps([path.name, path.stat().st_size]).encode())
        digest.update(path.read_bytes())
    values = (options.epochs, options.batch_size, options.rate, options.seed, options.crop, options.excerpt)
    digest.update(json.dumps([package.num_classes, *values]).encode())
    for one in examples:
        digest.update(json.dumps([one.origin, one.fake, len(one.views)]).encode())
        digest.update(np.ascontiguousarray(one.views[0]).data)
    return digest.hexdigest()[:32]


def _load(folder: Path, weights: Path, package: Package) -> torch.nn.Module:
    spec = importlib.util.spec_from_file_location("gas_package_to_train", folder / "model.py")
    if spec is None or spec.loader is None:
        raise ConfigurationError("The package has no model.py.", code="model_code")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        model = module.load_model(str(weights), num_classes=package.num_classes, **package.params)
    # The author's own code, in the author's own process: whatever it raises is shown to the author.
    except Exception as error:
        raise ConfigurationError(
            f"model.py does not load: {type(error).__name__}: {error}", code="model_code", hint="gascli d check FOLDER"
        ) from error
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError("The network has no parameter that could be learnt.", code="model_code")
    return model  # type: ignore[no-any-return]


def _label(package: Package, fake: bool) -> int:
    """Index of the logit that should be high."""
    if package.classes is None:
        return int(fake)
    real = package.classes.index("real")
    return next(k for k in range(len(package.classes)) if k != real) if fake else real


def _takes(model: torch.nn.Module, example: Example, modality: Modality, crop: int) -> bool:
    """Whether a network answers crops as well as whole pictures and sounds."""
    import torch

    view = example.views[0]
    sides = 1 if modality is Modality.AUDIO else 2
    if not 0 < crop < min(view.shape[-sides:]):
        return False
    part = view[..., :crop] if sides == 1 else view[..., :crop, :crop]
    model.eval()
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            return _logits(model(torch.from_numpy(part[None].copy()).to(device))).shape[0] == 1
    except (RuntimeError, ValueError, IndexError):
        return False


def _any_filled_up(examples: Sequence[Example]) -> bool:
    """Whether a sound ends in silence of an eighth of its length: its excerpts would say nothing, or something else."""
    return any(not np.any(view[..., -(view.shape[-1] // 8) :]) for one in examples for view in one.views)


def _batches(examples: Sequence[Example], size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Rows of the examples, without end: classes by turns, and no medium twice before each of its class was there."""
    left: dict[bool, list[int]] = {False: [], True: []}
    turn = False
    while True:
        batch = []
        for _ in range(size):
            if not left[turn]:
                left[turn] = [int(k) for k in rng.permutation([n for n, e in enumerate(examples) if e.fake is turn])]
            batch.append(left[turn].pop())
            turn = not turn
        yield batch


def _view(example: Example, modality: Modality, crop: int, rng: np.random.Generator) -> NDArray[np.generic]:
    view = example.views[int(rng.integers(len(example.views)))]
    if modality is Modality.AUDIO:
        start = int(rng.integers(view.shape[-1] - crop + 1)) if crop else 0
        return view[..., start : start + crop] if crop else view
    if crop:
        top, left = (int(rng.integers(side - crop + 1)) for side in view.shape[-2:])
        view = view[..., top : top + crop, left : left + crop]
    # A mirrored picture is as real, or as fake, as the picture.
    return np.ascontiguousarray(view[..., ::-1] if rng.random() < 0.5 else view)


def _logits(output: Any) -> torch.Tensor:
    """The logits in whatever form the contract allows (submissions.md, section 1)."""
    import torch

    if isinstance(output, dict):
        output = output.get("logits", output.get("output"))
    elif isinstance(output, tuple):
        output = output[0]
    logits = output.logits if hasattr(output, "logits") else output
    if logits.shape[1] == 1:
        # One logit is that of "fake", against 0 for "real".
        logits = torch.cat((torch.zeros_like(logits), logits), dim=1)
    return logits  # type: ignore[no-any-return]


def _accuracy(model: torch.nn.Module, examples: Sequence[Example], package: Package, device: str) -> float | None:
    """Balanced accuracy over every view of what is kept out; None when a class is missing."""
    import torch

    model.eval()
    hits: dict[bool, list[bool]] = {True: [], False: []}
    real = package.classes.index("real") if package.classes else 0
    with torch.inference_mode():
        for example in examples:
            logits = _logits(model(torch.from_numpy(np.stack(example.views)).to(device)))
            p_real = torch.softmax(logits.float(), dim=1)[:, real]
            hits[example.fake] += [bool(p < 0.5) == example.fake for p in p_real.tolist()]
    if not hits[True] or not hits[False]:
        return None
    return float(np.mean([np.mean(found) for found in hits.values()]))
