"""Train the detectors that the demo pushes, on the photos' ``train`` split and on fakes made from it.

    python training/detectors.py              # makes the fakes (cached), trains, writes the packages
    python training/detectors.py --evaluate   # only prints the figures of the packages as they are

Real media are photos of the ``train`` split, and nothing else is ever looked at. Fakes are made from the same split:
resyntheses by two of Real-ESRGAN's networks, and pictures of the small diffusion model. All pass through the round's
normalisation, again and again with other draws. A sixth of the photos, by the hash of their group, is kept out of
learning; the last lines are figures on those, with fakes of a third network that no detector learned from. One
number of each detector, the temperature of its answers, is fitted on what was kept out. The same photos, seed,
number of threads and kind of processor print the same figures again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

import gas.generation.diffusion as diffusion
from gas.clock import derive_rng, derive_seed
from gas.datasets.normalise import normalise_image
from gas.datasets.photos import SPLIT_SEED, Photo, gather
from gas.datasets.registry import builtin_registry
from gas.datasets.sources.packages import default_material_dir
from gas.generation.base import GenerationTask
from gas.generation.prompts import PromptSource
from gas.generation.resynthesis import Painter
from gas.media.image import decode_image, encode_png, preprocess_image
from gas.media.transforms import sharing_chain
from gas.scoring.sn34 import sn34_score
from gas.submissions.package import CONFIG, read_config
from gas.types import Modality

PACKAGES = Path(__file__).resolve().parents[1] / "src" / "gas" / "cli" / "demo" / "packages"
CACHE = Path.home() / ".cache" / "gas" / "training"
SEED = 20_261_121
KEPT_OUT = 6
LARGE = 320
"""Smaller side from which a photo gives several crops, pixels."""
UNSEEN = "animevideov3-x4"
SHARE = {"real": 0.5, "animevideov3-x2": 0.24, "x4plus": 0.14, "diffusion": 0.12}
"""How often each maker's media are drawn."""
LARGE_SHARE = 0.45
"""How often a drawn photo, or fake of a photo, is a large one: else they would tell the class by their number."""
DIFFUSION_SAMPLES = 100
SMOOTHING = 0.05
BATCHES = 34
"""Batches of 32 in an epoch."""

Pixels = NDArray[np.uint8]
Answer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Medium:
    """A medium before normalisation; ``kept_out`` ones are for the figures only."""

    path: Path
    origin: str
    maker: str
    kept_out: bool
    large: bool

    @property
    def fake(self) -> bool:
        """Whether a generator made it."""
        return self.maker != "real"


def make_media(cache: Path) -> list[Medium]:
    """The real photos and the fakes made of them; fakes are kept in ``cache`` between runs."""
    # Photos of Python packages are left out: they would come and go with what is installed.
    fetched = {entry.name for entry in builtin_registry().datasets if entry.source == "npm"}
    photos = [p for p in gather(default_material_dir()).split(SPLIT_SEED)["train"] if p.package in fetched]
    media = [Medium(p.path, p.sha256, "real", _kept_out(p), _large(p)) for p in photos]
    for maker in ("x4plus", "animevideov3-x2", UNSEEN):
        painter = Painter(maker, threads=2)
        for index, photo in enumerate(photos):
            if (maker == "x4plus" and index % 2 and not _large(photo)) or (maker == UNSEEN and not _kept_out(photo)):
                continue
            for crop in range(4 if maker == "animevideov3-x2" and _large(photo) else 1):
                extra = (crop,) if crop else ()
                path = cache / maker / ("-".join(map(str, (photo.sha256, *extra))) + ".png")
                if not path.exists():
                    rng = derive_rng(SEED, maker, photo.sha256, *extra)
                    _write(path, encode_png(painter.repaint(photo.decode(), rng)))
                media.append(Medium(path, photo.sha256, maker, _kept_out(photo), _large(photo)))
    return media + _diffusion(cache)


def _diffusion(cache: Path) -> list[Medium]:
    folder = Path(diffusion.__file__).parent / "weights"
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    made = cache / f"diffusion-{digest.hexdigest()[:12]}"
    pipeline, prompts = diffusion.DiffusionPipeline(), PromptSource()
    media = []
    for index in range(DIFFUSION_SAMPLES):
        path = made / f"{index}.png"
        if not path.exists():
            prompt = prompts.draw(derive_rng(SEED, "prompt", index))
            task = GenerationTask(Modality.IMAGE, prompt, derive_seed(SEED, "diffusion", index))
            _write(path, pipeline.generate(task).data)
        origin = hashlib.sha256(f"diffusion/{index}".encode()).hexdigest()
        media.append(Medium(path, origin, "diffusion", index % KEPT_OUT == 0, False))
    return media


def _kept_out(photo: Photo) -> bool:
    return derive_seed(SEED, "kept out", photo.group) % KEPT_OUT == 0


def _large(photo: Photo) -> bool:
    return min(photo.width, photo.height) >= LARGE


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_bytes(data)
    aside.replace(path)


def views(media: Sequence[Medium]) -> list[list[Pixels]]:
    """Pixels as a round would have them, uint8 (256, 256, 3); every fourth view has passed the sharing chain.

    What was kept out has three views, uncropped, the last shared. Crops of a photo stay larger than the
    normalisation's side, so that cropped photos are as sharp as whole ones.
    """

    def look(medium: Medium) -> list[Pixels]:
        rgb = decode_image(medium.path.read_bytes())
        side, out = min(rgb.shape[:2]), []
        least = 0.9 if medium.fake else max(0.4, 160 / side)
        for view in range(3 if medium.kept_out else 12 if medium.large and not medium.fake else 8):
            rng, pixels = derive_rng(SEED, "view", medium.path.name, view), rgb
            if view and not medium.kept_out and least < 1:
                crop = round(rng.uniform(least, 1) * side)
                top, left = (int(rng.integers(length - crop + 1)) for length in rgb.shape[:2])
                pixels = np.ascontiguousarray(rgb[top : top + crop, left : left + crop])
            seed = derive_seed(SEED, "round", view) >> 1
            normalised = decode_image(normalise_image(pixels, seed=seed, origin=medium.origin))
            out.append(sharing_chain(normalised) if view % 4 == 2 else normalised)
        return out

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(look, media))


def batch_of(pixels: Sequence[Pixels], size: int) -> torch.Tensor:
    """Decoded pictures -> a batch as the benchmark's preprocessing makes it: uint8 (n, 3, size, size)."""
    return torch.from_numpy(np.stack([preprocess_image(p, (size, size)) for p in pixels]))


class Residual(nn.Module):
    """A small CNN over what a 3 x 3 mean leaves of a picture, clipped; (n, 3, h, w) in 0..255 -> (n, 2) logits."""

    CLIPS = (4.0, 24.0)

    def __init__(self, widths: Sequence[int] = (32, 48, 64, 96)) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        layers: list[nn.Module] = []
        before = 3 * len(self.CLIPS)
        for index, width in enumerate(widths):
            kernel, stride = (3, 1) if index == 1 else (3 if index else 5, 2)
            layers += [nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * before, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float()
        residual = x - self.blur(x)
        # Clipping keeps faint texture and takes their weight from edges.
        features = self.layers(torch.cat([(residual / clip).clamp(-1, 1) for clip in self.CLIPS], dim=1))
        mean = features.mean(dim=(2, 3))
        variance = features.square().mean(dim=(2, 3)) - mean.square()
        return self.head(self.dropout(torch.cat((mean, torch.sqrt(variance.clamp(min=0.0) + 1e-4)), dim=1)))


def fit(
    name: str, model: nn.Module, answer: Answer, draw: Any, media: Sequence[Medium], epochs: int, lr: float
) -> None:
    """Cross-entropy with smoothed labels, AdamW, one cycle; ``draw(rows, rng)`` makes a batch."""
    rng = derive_rng(SEED, "order", name)
    chance = np.zeros(len(media))
    for maker, share in SHARE.items():
        for large, part in ((True, LARGE_SHARE), (False, 1 - LARGE_SHARE)):
            rows = [i for i, m in enumerate(media) if m.maker == maker and m.large == large]
            chance[rows] = share * (1 if maker == "diffusion" else part) / max(1, len(rows))
    chance /= chance.sum()
    labels = torch.tensor([int(m.fake) for m in media])
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=epochs * BATCHES)
    loss_of = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    begun = time.monotonic()
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in rng.choice(len(media), (BATCHES, 32), p=chance):
            loss = loss_of(answer(draw(rows, rng)), labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(
            f"  {name} {epoch + 1}/{epochs}  loss {total / BATCHES:.4f}  {time.monotonic() - begun:.0f} s", flush=True
        )
    model.eval()


def cropped(seen: list[list[Pixels]], side: int = 128) -> Callable[[Any, np.random.Generator], torch.Tensor]:
    """Draws crops, mirrored and turned: the evidence is local, and a crop costs a quarter."""

    def draw(rows: Any, rng: np.random.Generator) -> torch.Tensor:
        out = []
        for row in rows:
            pixels = seen[row][rng.integers(len(seen[row]))]
            top, left = rng.integers(0, 256 - side + 1, 2)
            crop = pixels[top : top + side, left : left + side]
            crop = crop[:, ::-1] if rng.random() < 0.5 else crop
            out.append(crop if rng.random() < 0.5 else crop.transpose(1, 0, 2))
        return torch.from_numpy(np.stack(out).transpose(0, 3, 1, 2).copy())

    return draw


@torch.inference_mode()
def sampled_energies(model: Any, seen: list[list[Pixels]], blocks: int = 400) -> list[NDArray[np.float16]]:
    """Of each medium, (views, features, blocks): what the net's fixed first part says, at random blocks, once."""
    rng, out = derive_rng(SEED, "blocks"), []
    for pictures in seen:
        energies = model.energies(batch_of(pictures, 256)).flatten(2).numpy()
        out.append(np.stack([e[:, rng.permutation(e.shape[1])[:blocks]] for e in energies]).astype(np.float16))
    return out


def blocks_of(energies: list[NDArray[np.float16]], n: int = 256) -> Callable[[Any, np.random.Generator], torch.Tensor]:
    """Draws ``n`` of the sampled blocks of a view."""

    def draw(rows: Any, rng: np.random.Generator) -> torch.Tensor:
        start = int(rng.integers(energies[0].shape[2] - n + 1))
        chosen = [energies[row][rng.integers(len(energies[row])), :, start : start + n] for row in rows]
        return torch.from_numpy(np.stack(chosen)).float()[..., None]

    return draw


def whole(seen: list[list[Pixels]], size: int) -> Callable[[Any, np.random.Generator], torch.Tensor]:
    """Draws whole pictures."""
    return lambda rows, rng: batch_of([seen[row][rng.integers(len(seen[row]))] for row in rows], size)


@torch.inference_mode()
def temper(model: Any, media: Sequence[Medium], held: list[list[Pixels]], size: int) -> float:
    """Divide the head by the temperature that suits the kept-out media of known makers best; returns it."""
    known = [i for i, m in enumerate(media) if m.maker != UNSEEN]
    pictures = [held[i][view] for i in known for view in (0, 1)]
    labels = torch.tensor([int(media[i].fake) for i in known for _ in (0, 1)])
    logits = torch.cat([model(batch_of(pictures[i : i + 16], size)) for i in range(0, len(pictures), 16)])
    weight = 1.0 / torch.bincount(labels).float()
    choices = np.geomspace(0.3, 3.0, 70)
    losses = [nn.functional.cross_entropy(logits / t, labels, weight=weight).item() for t in choices]
    best = float(choices[int(np.argmin(losses))])
    model.head.weight /= best
    model.head.bias /= best
    return best


def to_onnx(model: Residual, size: int, path: Path) -> None:
    """Write the network as ONNX, batch normalisation folded in; input uint8 (batch, 3, size, size)."""
    nodes, constants = [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def array(tensor: torch.Tensor) -> NDArray[np.float32]:
        return np.asarray(tensor.detach().numpy())

    x = node("Cast", ["image"], "float", to=TensorProto.FLOAT)
    pool = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "count_include_pad": 0}
    residual = node("Sub", [x, node("AveragePool", [x], "blurred", **pool)], "residual")
    low, high = constant("low", np.array(-1.0)), constant("high", np.array(1.0))
    clipped = []
    for index, clip in enumerate(model.CLIPS):
        scaled = node("Div", [residual, constant(f"clip{index}", np.array(clip))], f"scaled{index}")
        clipped.append(node("Clip", [scaled, low, high], f"clipped{index}"))
    x = node("Concat", clipped, "both", axis=1)
    layers: list[Any] = list(model.layers)
    for index in range(0, len(layers), 3):
        conv, norm = layers[index], layers[index + 1]
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = constant(f"w{index}", array(conv.weight * scale[:, None, None, None]))
        bias = constant(f"b{index}", array(norm.bias - norm.running_mean * scale))
        side, pad = conv.kernel_size[0], conv.padding[0]
        shape = {"kernel_shape": [side] * 2, "strides": list(conv.stride), "pads": [pad] * 4}
        x = node("Relu", [node("Conv", [x, weight, bias], f"conv{index}", **shape)], f"relu{index}")
    mean = node("GlobalAveragePool", [x], "mean")
    square = node("GlobalAveragePool", [node("Mul", [x, x], "squared")], "mean_square")
    variance = node("Relu", [node("Sub", [square, node("Mul", [mean, mean], "square_mean")], "difference")], "variance")
    spread = node("Sqrt", [node("Add", [variance, constant("tiny", np.array(1e-4))], "lifted")], "spread")
    features = node("Flatten", [node("Concat", [mean, spread], "pooled", axis=1)], "features", axis=1)
    head = [constant("head_w", array(model.head.weight)), constant("head_b", array(model.head.bias))]
    node("Gemm", [features, *head], "logits", transB=1)
    graph = helper.make_graph(
        nodes, "residual", [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])], constants,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="gas")
    made.ir_version = 9
    onnx.checker.check_model(made, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.SerializeToString(deterministic=True))


def code_of(name: str) -> ModuleType:
    """The package's own model.py, imported from its folder."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), PACKAGES / name / "model.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"The package {name} has no model.py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shipped(name: str) -> tuple[Callable[[torch.Tensor], NDArray[np.float64]], int]:
    """The package as it ships: its logits for a batch, and the side of its input."""
    folder = PACKAGES / name
    if (folder / "model.onnx").exists():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        feed = session.get_inputs()[0]
        return lambda x: np.asarray(session.run(None, {feed.name: x.numpy()})[0], np.float64), int(feed.shape[2])
    package, reasons = read_config((folder / CONFIG).read_bytes(), "model.safetensors")
    if reasons or package is None or package.preprocessing.resize is None:
        raise SystemExit(f"The configuration of {name} is not valid.")
    path = str(folder / "model.safetensors")
    model = code_of(name).load_model(path, num_classes=package.num_classes, **package.params)
    return lambda x: model(x).double().numpy(), package.preprocessing.resize[0]


@torch.inference_mode()
def evaluate(name: str, media: Sequence[Medium], held: list[list[Pixels]]) -> None:
    """Print the package's figures on kept-out media: as in a round, and after the sharing chain."""
    answer, size = shipped(name)
    labels, makers = np.array([int(m.fake) for m in media]), np.array([m.maker for m in media])
    known = makers != UNSEEN
    for what, chosen in (("round", (0, 1)), ("shared", (2,))):
        logits = np.concatenate([answer(batch_of([views[v]], size)) for v in chosen for views in held])
        p_fake = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        y, who, old = (np.tile(a, len(chosen)) for a in (labels, makers, known))
        right = (p_fake > 0.5) == y
        # Real and fake count alike, whatever their numbers.
        weight = np.where(y == 1, 1 / np.sum(y[old]), 1 / np.sum(1 - y[old]))
        score = sn34_score(y[old], p_fake[old], weights=weight[old])
        rates = "  ".join(
            f"{m}{' (unseen)' if m == UNSEEN else ''} {right[who == m].mean():.3f}" for m in sorted(set(who))
        )
        print(f"{name} {what}: sn34 {score.value}  MCC {score.mcc:.3f}  Brier {score.brier:.4f}  {rates}", flush=True)
    torch.set_num_threads(1)
    one = batch_of([held[0][0]], size)
    spent = []
    for _ in range(30):
        begun = time.perf_counter()
        answer(one)
        spent.append(time.perf_counter() - begun)
    torch.set_num_threads(2)
    print(f"{name}: {1000 * float(np.median(spent)):.1f} ms a sample on one core", flush=True)


def train(name: str, media: Sequence[Medium], seen: Any, rest: Sequence[Medium], held: Any) -> None:
    """Train one detector and write its package's weights."""
    torch.manual_seed(derive_seed(SEED, name) >> 1)
    model: Any
    if name == "det-onnx":
        model = Residual()
        fit(name, model, model, cropped(seen), media, 30, 4e-3)
    elif name == "det-torch":
        model = code_of(name).Spectrum()
        fit(name, model, model.judge, blocks_of(sampled_energies(model, seen)), media, 50, 3e-3)
    else:
        model = code_of(name).Colours()
        fit(name, model, model, whole(seen, 64), media, 20, 1e-2)
    size = 64 if name == "det-weak" else 256
    print(f"  {name} temperature {temper(model, rest, held, size):.2f}", flush=True)
    if name == "det-onnx":
        to_onnx(model, size, PACKAGES / name / "model.onnx")
        return
    _save(model.state_dict(), name)
    if name == "det-weak":
        # The hostile package is like the weak one in everything but its code.
        _save({key: torch.zeros_like(value) for key, value in model.state_dict().items()}, "det-hostile")


def _save(tensors: dict[str, torch.Tensor], name: str) -> None:
    path = PACKAGES / name / "model.safetensors"
    save_file(tensors, path)
    # The library writes for the owner's eyes only.
    path.chmod(0o644)


def main() -> None:
    """Train and evaluate."""
    detectors = ("det-weak", "det-torch", "det-onnx")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="print the figures of the packages as they are")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the fakes")
    parser.add_argument("--only", choices=detectors, help="one detector")
    options = parser.parse_args()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    media = make_media(options.cache)
    learn, rest = [m for m in media if not m.kept_out], [m for m in media if m.kept_out]
    print(f"{len(learn)} media to learn from, {len(rest)} kept out", flush=True)
    held = views(rest)
    seen = None if options.evaluate else views(learn)
    for name in detectors:
        if options.only in (None, name):
            if seen is not None:
                train(name, learn, seen, rest, held)
            evaluate(name, rest, held)


if __name__ == "__main__":
    main()
