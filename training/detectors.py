"""Train the detectors that the demo pushes, on the photos' ``train`` split and on fakes made from it.

    python training/detectors.py              # makes the fakes (cached), trains, writes the packages
    python training/detectors.py --evaluate   # only prints the figures of the packages as they are

Real media are photos of the ``train`` split, and nothing else is ever looked at. Fakes are made from the same split:
resyntheses by two of Real-ESRGAN's networks, and pictures of the small diffusion model. All pass through the round's
normalisation, again and again with other draws. A sixth of the photos, by the hash of their group, is kept out of
learning; the last lines print accuracy, MCC and sn34 on it. The same photos, seed, number of threads and kind of
processor print the same figures again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

from gas.clock import derive_rng, derive_seed
from gas.datasets.normalise import normalise_image
from gas.datasets.photos import SPLIT_SEED, gather
from gas.datasets.registry import builtin_registry
from gas.datasets.sources.packages import default_material_dir
from gas.generation.base import GenerationTask
from gas.generation.diffusion import DiffusionPipeline
from gas.generation.prompts import PromptSource
from gas.generation.resynthesis import Painter
from gas.media.image import decode_image, encode_png, preprocess_image
from gas.media.transforms import sharing_chain
from gas.scoring.sn34 import sn34_score
from gas.types import Modality

PACKAGES = Path(__file__).resolve().parents[1] / "src" / "gas" / "cli" / "demo" / "packages"
CACHE = Path.home() / ".cache" / "gas" / "training"
SEED = 20_261_121
VARIANTS = 6
"""How often each medium is normalised, each time with other draws; one variant more has passed a sharing chain."""
DIFFUSION_SAMPLES = 160
KEPT_OUT = 6


@dataclass(frozen=True)
class Medium:
    """A medium before normalisation; ``kept_out`` ones are for the figures only."""

    path: Path
    origin: str
    fake: bool
    maker: str
    kept_out: bool


def make_media(cache: Path) -> list[Medium]:
    """The real photos and the fakes made of them; fakes are kept in ``cache`` between runs."""
    # Photos of Python packages are left out: they would come and go with what is installed.
    fetched = {entry.name for entry in builtin_registry().datasets if entry.source == "npm"}
    photos = [p for p in gather(default_material_dir()).split(SPLIT_SEED)["train"] if p.package in fetched]
    media = [Medium(p.path, p.sha256, False, p.package, _kept_out(p.group)) for p in photos]
    for model, every in (("x4plus", 2), ("animevideov3-x2", 2)):
        painter = Painter(model, threads=2)
        offset = 0 if model == "x4plus" else 1
        for index, photo in enumerate(photos):
            if index % every != offset:
                continue
            path = cache / model / f"{photo.sha256}.png"
            if not path.exists():
                rng = derive_rng(SEED, model, photo.sha256)
                _write(path, encode_png(painter.repaint(photo.decode(), rng)))
            media.append(Medium(path, photo.sha256, True, model, _kept_out(photo.group)))
    missing = [i for i in range(DIFFUSION_SAMPLES) if not (cache / "diffusion" / f"{i}.png").exists()]
    if missing:
        pipeline, prompts = DiffusionPipeline(), PromptSource()
        for index in missing:
            prompt = prompts.draw(derive_rng(SEED, "prompt", index))
            made = pipeline.generate(GenerationTask(Modality.IMAGE, prompt, derive_seed(SEED, "diffusion", index)))
            _write(cache / "diffusion" / f"{index}.png", made.data)
    for index in range(DIFFUSION_SAMPLES):
        origin = hashlib.sha256(f"diffusion/{index}".encode()).hexdigest()
        media.append(Medium(cache / "diffusion" / f"{index}.png", origin, True, "diffusion", index % KEPT_OUT == 0))
    return media


def _kept_out(group: str) -> bool:
    return derive_seed(SEED, "kept out", group) % KEPT_OUT == 0


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_bytes(data)
    aside.replace(path)


def normalised(media: Sequence[Medium], variants: int) -> NDArray[np.uint8]:
    """Pixels as a round would have them: uint8, (media, variants, 256, 256, 3); odd variants after a sharing chain."""

    def look(medium: Medium) -> NDArray[np.uint8]:
        rgb = decode_image(medium.path.read_bytes())
        out = []
        for variant in range(variants):
            seed = derive_seed(SEED, "variant", variant, medium.path.name) >> 1
            pixels = decode_image(normalise_image(rgb, seed=seed, origin=medium.origin))
            out.append(sharing_chain(pixels) if variant % 3 == 2 else pixels)
        return np.stack(out)

    with ThreadPoolExecutor(2) as pool:
        return np.stack(list(pool.map(look, media)))


class Residual(nn.Module):
    """A small CNN over a picture and its high-pass residual; (n, 3, h, w) in 0..255 -> (n, 2) logits."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        layers: list[nn.Module] = []
        before = 6
        for width in widths:
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            before = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(before, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float() / 255.0
        residual = (x - self.blur(x)) * 8.0
        features = self.layers(torch.cat((x - 0.5, residual), dim=1))
        return self.head(features.mean(dim=(2, 3)))


class Colours(nn.Module):
    """A weak detector: nothing but the mean colour of 4 x 4 fields."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(48, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fields = nn.functional.adaptive_avg_pool2d(x.float() / 255.0, 4)
        return self.head(fields.flatten(1))


def train(
    model: nn.Module, pixels: NDArray[np.uint8], labels: NDArray[np.int64], size: int, epochs: int, seed: int
) -> None:
    """Cross-entropy with balanced classes, AdamW, one cosine; mirrored half of the time."""
    torch.manual_seed(seed)
    n, variants = pixels.shape[:2]
    weight = torch.tensor([1.0 / np.mean(labels == c) for c in (0, 1)], dtype=torch.float32)
    loss_of = nn.CrossEntropyLoss(weight=weight / weight.sum() * 2, label_smoothing=0.02)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    batch = 32
    steps = epochs * (n // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    model.train()
    rng = derive_rng(seed, "order")
    begun = time.monotonic()
    for epoch in range(epochs):
        order, total = rng.permutation(n), 0.0
        for start in range(0, n - batch + 1, batch):
            rows = order[start : start + batch]
            chosen = pixels[rows, rng.integers(0, variants, batch)]
            x = batch_of(chosen, size)
            if rng.random() < 0.5:
                x = x.flip(3)
            loss = loss_of(model(x), torch.from_numpy(labels[rows]))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * batch
        print(f"  epoch {epoch + 1}/{epochs}  loss {total / n:.4f}  {time.monotonic() - begun:.0f} s", flush=True)
    model.eval()


def batch_of(pixels: NDArray[np.uint8], size: int) -> torch.Tensor:
    """Decoded pictures -> a batch as the benchmark's preprocessing makes it: uint8 (n, 3, size, size)."""
    return torch.from_numpy(np.stack([preprocess_image(p, (size, size)) for p in pixels]))


@torch.inference_mode()
def figures(model: nn.Module, media: Sequence[Medium], pixels: NDArray[np.uint8], size: int) -> str:
    """Accuracy by maker, and the score, on media that were kept out; first variant of each."""
    logits = torch.cat([model(batch_of(pixels[i : i + 32, 0], size)) for i in range(0, len(pixels), 32)])
    p_fake = torch.softmax(logits.float(), dim=1)[:, 1].double().numpy()
    labels = np.array([int(m.fake) for m in media])
    right = (p_fake > 0.5) == labels
    makers = sorted({m.maker for m in media})
    rates = ", ".join(
        f"{maker} {np.mean([r for r, m in zip(right, media, strict=True) if m.maker == maker]):.3f}" for maker in makers
    )
    score = sn34_score(labels, p_fake)
    return f"n {len(media)}  accuracy {right.mean():.4f}  sn34 {score}  by source: {rates}"


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One convolution with a bias that does what the two do."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    return weight.detach().numpy(), bias.detach().numpy()


def to_onnx(model: Residual, size: int, path: Path) -> None:
    """Write the network as ONNX, batch normalisation folded in; input uint8 (batch, 3, size, size)."""
    nodes, constants = [], []

    def constant(name: str, value: NDArray[np.float32]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    x = node("Cast", ["image"], "float", to=TensorProto.FLOAT)
    x = node("Div", [x, constant("c255", np.array(255.0))], "unit")
    blurred = node(
        "AveragePool", [x], "blurred", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], count_include_pad=0
    )
    residual = node("Mul", [node("Sub", [x, blurred], "high"), constant("c8", np.array(8.0))], "residual")
    centred = node("Sub", [x, constant("half", np.array(0.5))], "centred")
    x = node("Concat", [centred, residual], "both", axis=1)
    layers = list(model.layers)
    for index in range(0, len(layers), 3):
        conv, norm = layers[index], layers[index + 1]
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        weight, bias = fold(conv, norm)
        names = [x, constant(f"w{index}", weight), constant(f"b{index}", bias)]
        x = node(
            "Conv",
            names,
            f"conv{index}",
            kernel_shape=[3, 3],
            strides=list(conv.stride),
            pads=[1, 1, 1, 1],
            group=conv.groups,
        )
        x = node("Relu", [x], f"relu{index}")
    x = node("Flatten", [node("GlobalAveragePool", [x], "pooled")], "features", axis=1)
    head = [
        x,
        constant("head_w", model.head.weight.detach().numpy()),
        constant("head_b", model.head.bias.detach().numpy()),
    ]
    node("Gemm", head, "logits", transB=1)
    graph = helper.make_graph(
        nodes, "residual", [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])], constants,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="gas")
    made.ir_version = 9
    onnx.checker.check_model(made, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.SerializeToString(deterministic=True))


SPECS = {
    "det-onnx": (lambda: Residual((24, 48, 96, 160)), 256, 14, 1),
    "det-torch": (lambda: Residual((32, 64, 128, 192)), 224, 10, 2),
    "det-weak": (Colours, 64, 30, 3),
}
"""Model, side of its input, epochs, seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="print the figures of the packages as they are")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the fakes")
    parser.add_argument("--only", choices=tuple(SPECS), help="train one detector")
    options = parser.parse_args()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    media = make_media(options.cache)
    learn, rest = [m for m in media if not m.kept_out], [m for m in media if m.kept_out]
    print(json.dumps({"learn": len(learn), "kept_out": len(rest), "fakes": sum(m.fake for m in media)}), flush=True)
    held = normalised(rest, 1)
    seen = None if options.evaluate else normalised(learn, VARIANTS)
    labels = np.array([int(m.fake) for m in learn])
    for name, (make, size, epochs, seed) in SPECS.items():
        if options.only not in (None, name):
            continue
        torch.manual_seed(seed)
        model = make()
        weights = PACKAGES / name / "weights.safetensors"
        stored = (
            PACKAGES / name / "model.safetensors" if name != "det-onnx" else PACKAGES.parent / "onnx_source.safetensors"
        )
        if seen is not None:
            train(model, seen, labels, size, epochs, seed)
            stored.parent.mkdir(parents=True, exist_ok=True)
            save_file(model.state_dict(), stored)
            if name == "det-onnx":
                to_onnx(model, size, PACKAGES / name / "model.onnx")
        model.load_state_dict(load_file(stored))
        model.eval()
        del weights
        print(f"{name}: {figures(model, rest, held, size)}", flush=True)


if __name__ == "__main__":
    main()
