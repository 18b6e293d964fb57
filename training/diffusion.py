"""Train the small diffusion model of the demo's second generator.

    python training/diffusion.py               # trains both nets, about half an hour on one core
    python training/diffusion.py --evaluate    # only prints the figures of the stored weights

It learns from the ``train`` split of the photos that :mod:`gas.datasets.photos` gathers, and from no other: the splits
that the benchmark draws from stay unseen. One in twelve of the train photos is held out from learning; the last lines
are the flow-matching loss on those, for the weights as stored (half precision). The same photos, seed, steps, number
of threads and kind of processor print the same figures again.

A killed run goes on where its last checkpoint was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from gas.clock import derive_rng, derive_seed
from gas.datasets.photos import SPLIT_SEED, gather
from gas.datasets.registry import builtin_registry
from gas.datasets.sources.packages import default_material_dir
from gas.generation.library import category_shown
from gas.generation.network import BASE_SIDE, LEVELS, NetConfig, UNet, enlarge, load_net, net_tensors
from gas.generation.prompts import Category

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "gas" / "generation" / "weights"
CATEGORIES = tuple(Category)
SIDES = tuple(BASE_SIDE * 2**level for level in range(LEVELS + 1))
PATCH = 64
HELD_OUT = 12
NO_CATEGORY = 0.1
AVERAGE = 0.999
BATCH = {"base": 32, "refiner": 16}
PEAK = {"base": 1.5e-3, "refiner": 1.5e-3}
WARM_UP = 100
CHECKPOINT_SECONDS = 60.0
EVALUATION_DRAWS = 16


@dataclass(frozen=True)
class Photo:
    """One photo, shrunk so that its smaller side is each of ``SIDES``; a photo too small for a side lacks it."""

    key: str
    category: int
    pyramid: tuple[NDArray[np.uint8], ...]


def material(folder: Path) -> list[tuple[Path, Category]]:
    """The photos to learn from, and what each shows."""
    # Photos of Python packages are left out: they would come and go with what is installed.
    fetched = {entry.name for entry in builtin_registry().datasets if entry.source == "npm"}
    train = gather(folder).split(SPLIT_SEED)["train"]
    return [(photo.path, category_shown(photo)) for photo in train if photo.package in fetched]


def read(path: Path, category: Category) -> Photo:
    """Decode and shrink one photo."""
    data = path.read_bytes()
    levels = []
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    for side in SIDES:
        scale = side / min(rgb.size)
        if scale > 1:
            break
        size = (max(side, round(rgb.width * scale)), max(side, round(rgb.height * scale)))
        levels.append(np.asarray(rgb.resize(size, Image.Resampling.LANCZOS)))
    return Photo(hashlib.sha256(data).hexdigest(), CATEGORIES.index(category), tuple(levels))


def base_crop(photo: Photo, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A square of 70 to 100 % of the smaller side, at BASE_SIDE pixels, mirrored half of the time."""
    source = photo.pyramid[1]
    height, width = source.shape[:2]
    side = rng.uniform(0.7, 1.0) * min(height, width)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    crop = Image.fromarray(source).resize(
        (BASE_SIDE, BASE_SIDE), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
    return _mirror(np.asarray(crop), rng)


def detail_crop(photo: Photo, level: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A PATCH-sided square, cut at the resolution of ``level`` (1 = twice BASE_SIDE), mirrored half of the time."""
    source = photo.pyramid[level]
    top = int(rng.integers(source.shape[0] - PATCH + 1)) // 2 * 2
    left = int(rng.integers(source.shape[1] - PATCH + 1)) // 2 * 2
    return _mirror(source[top : top + PATCH, left : left + PATCH], rng)


def _mirror(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def as_tensor(batch: list[NDArray[np.uint8]]) -> Tensor:
    """Pixels to (n, 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True)
class Draw:
    """One batch: data in the net's own units, its label, and the condition of a refiner."""

    data: Tensor
    label: Tensor
    condition: Tensor | None


def draw_base(photos: list[Photo], config: NetConfig, rng: np.random.Generator, size: int, learning: bool) -> Draw:
    """Whole pictures with their category, which is hidden now and then for guidance."""
    # Categories count alike whatever the number of their photos, as far as the square root goes.
    groups = [[p for p in photos if p.category == c] for c in range(config.labels)]
    chances = np.sqrt([len(g) for g in groups])
    picked = [
        g[int(rng.integers(len(g)))]
        for g in (groups[c] for c in rng.choice(config.labels, size, p=chances / chances.sum()))
    ]
    labels = [config.labels if learning and rng.random() < NO_CATEGORY else p.category for p in picked]
    data = (as_tensor([base_crop(p, rng) for p in picked]) - config.mean) / config.scales[0]
    return Draw(data, torch.tensor(labels), None)


def draw_refiner(photos: list[Photo], config: NetConfig, rng: np.random.Generator, size: int, learning: bool) -> Draw:
    """Details: what a picture has, less what its enlarged half-size copy has."""
    crops, labels = [], []
    for level in rng.choice(np.arange(1, LEVELS + 1), size, p=(0.25, 0.35, 0.4)):
        sharp = [p for p in photos if len(p.pyramid) > level]
        crops.append(detail_crop(sharp[int(rng.integers(len(sharp)))], int(level), rng))
        labels.append(int(level) - 1)
    label = torch.tensor(labels)
    detail, condition = split_detail(as_tensor(crops))
    if learning:
        # The net's own pictures are never as clean as photos: blurring noise on the condition makes it forgiving.
        strength = torch.from_numpy(rng.uniform(0, 0.06, (size, 1, 1, 1))).float()
        grain = torch.from_numpy(rng.standard_normal((size, 3, PATCH // 2, PATCH // 2))).float()
        condition = condition + strength * enlarge(grain)
    return Draw(detail / torch.tensor(config.scales)[label][:, None, None, None], label, condition)


def split_detail(images: Tensor) -> tuple[Tensor, Tensor]:
    """(detail, enlarged half-size copy) of images."""
    condition = enlarge(torch.nn.functional.avg_pool2d(images, 2))
    return images - condition, condition


def loss_of(net: UNet, draw: Draw, rng: np.random.Generator) -> Tensor:
    """Mean squared error of the velocity at logit-normal times (Esser et al. 2024)."""
    n = len(draw.data)
    t = torch.from_numpy(1 / (1 + np.exp(-rng.standard_normal(n)))).float()
    noise = torch.from_numpy(rng.standard_normal(draw.data.shape, dtype=np.float32))
    share = t[:, None, None, None]
    noisy = (1 - share) * draw.data + share * noise
    velocity: Tensor = net(noisy.contiguous(memory_format=torch.channels_last), t, draw.label, draw.condition)
    return (velocity - (noise - draw.data)).square().mean()


DRAWS: dict[str, Callable[[list[Photo], NetConfig, np.random.Generator, int, bool], Draw]] = {
    "base": draw_base,
    "refiner": draw_refiner,
}


def configs(photos: list[Photo]) -> dict[str, NetConfig]:
    """Shapes of both nets, with the statistics of the data that they learn."""
    rng = derive_rng(0, "statistics")
    whole = as_tensor([base_crop(p, rng) for p in photos for _ in range(4)])
    spreads = []
    for level in range(1, LEVELS + 1):
        crops = [detail_crop(p, level, rng) for p in photos if len(p.pyramid) > level for _ in range(4)]
        spreads.append(round(float(split_detail(as_tensor(crops))[0].std()), 4))
    mean, spread = round(float(whole.mean()), 4), round(float(whole.std()), 4)
    return {
        "base": NetConfig((64, 96), 2, len(CATEGORIES), conditioned=False, scales=(spread,), mean=mean),
        "refiner": NetConfig((32, 64, 96), 1, LEVELS, conditioned=True, scales=tuple(spreads)),
    }


class Trainer:
    """Learning of one net: its weights, their running mean, the optimiser's state, and checkpoints of all three."""

    def __init__(self, name: str, config: NetConfig, seed: int, steps: int, checkpoint: Path) -> None:
        torch.manual_seed(derive_seed(seed, name) % 2**63)
        self.name, self.seed, self.steps, self.checkpoint = name, seed, steps, checkpoint
        self.net = UNet(config).to(memory_format=torch.channels_last)
        self.mean = UNet(config)
        self.mean.load_state_dict(self.net.state_dict())
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=PEAK[name], betas=(0.9, 0.99), weight_decay=0.01)
        self.done = 0

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((f"net.{k}", v) for k, v in self.net.state_dict().items())
        yield from ((f"mean.{k}", v) for k, v in self.mean.state_dict().items())
        for index, state in self.optimiser.state_dict()["state"].items():
            yield from ((f"optimiser.{index}.{k}", v) for k, v in state.items())

    def save(self) -> None:
        """Write a checkpoint, whole or not at all."""
        aside = self.checkpoint.with_suffix(".new")
        save_file({k: v.contiguous() for k, v in self._tensors()} | {"done": torch.tensor(self.done)}, aside)
        aside.replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one."""
        if not self.checkpoint.exists():
            return
        tensors = load_file(self.checkpoint)
        for part, net in (("net.", self.net), ("mean.", self.mean)):
            net.load_state_dict({k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)})
        state = self.optimiser.state_dict()
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, field = key.split(".")
                state["state"].setdefault(int(index), {})[field] = value
        self.optimiser.load_state_dict(state)
        self.done = int(tensors["done"])
        print(f"{self.name}: resumed after step {self.done}", flush=True)

    def run(self, photos: list[Photo]) -> None:
        """Train to the end."""
        draw, size, config = DRAWS[self.name], BATCH[self.name], self.net.config
        started = saved = time.monotonic()
        losses: list[float] = []
        for step in range(self.done, self.steps):
            rng = derive_rng(self.seed, self.name, "batch", step)
            rate = (
                PEAK[self.name]
                * min(1.0, (step + 1) / WARM_UP)
                * (0.02 + 0.98 * (0.5 + 0.5 * np.cos(np.pi * step / self.steps)))
            )
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = loss_of(self.net, draw(photos, config, rng, size, True), rng)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            decay = min(AVERAGE, (step + 1) / (step + 10))
            with torch.no_grad():
                for slow, fast in zip(self.mean.parameters(), self.net.parameters(), strict=True):
                    slow.lerp_(fast, 1 - decay)
            self.done = step + 1
            losses.append(loss.item())
            if self.done % 100 == 0:
                pace = (time.monotonic() - started) / len(losses)
                print(
                    f"{self.name} {self.done}/{self.steps} loss {np.mean(losses[-100:]):.4f}  {pace:.2f} s/step",
                    flush=True,
                )
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()


def evaluate(name: str, net: UNet, photos: list[Photo]) -> float:
    """Mean loss on held-out photos, each drawn EVALUATION_DRAWS times, from a fixed seed."""
    rng = derive_rng(0, name, "evaluate")
    with torch.no_grad():
        draws = range(max(1, EVALUATION_DRAWS * len(photos) // 32))
        return float(
            np.mean([loss_of(net, DRAWS[name](photos, net.config, rng, 32, False), rng).item() for _ in draws])
        )


def digest(photos: list[Photo]) -> str:
    """Short name of a set of photos."""
    return hashlib.sha256("".join(p.key for p in photos).encode()).hexdigest()[:12]


def main() -> None:
    """Train both nets, store them, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--material", type=Path, default=default_material_dir(), help="where the photos were fetched to"
    )
    parser.add_argument("--net", choices=[*DRAWS], action="append", help="train only this one")
    parser.add_argument("--steps", type=int, default=4000, help="steps of the base net; the refiner takes 5/8 of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the two weights files")
    parser.add_argument("--checkpoints", type=Path, default=Path("training/checkpoints"))
    parser.add_argument("--evaluate", action="store_true", help="train nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    photos = [read(path, category) for path, category in material(options.material)]
    # The order of files differs between machines, that of hashes doesn't.
    photos = sorted({p.key: p for p in photos if len(p.pyramid) > 1}.values(), key=lambda p: p.key)
    held_out = [p for p in photos if int(p.key[:8], 16) % HELD_OUT == 0]
    learned = [p for p in photos if int(p.key[:8], 16) % HELD_OUT != 0]
    counts = {c.value: sum(p.category == i for p in learned) for i, c in enumerate(CATEGORIES)}
    print(
        f"{len(learned)} photos to learn from {json.dumps(counts)}, {len(held_out)} held out, set {digest(photos)}",
        flush=True,
    )
    if not options.evaluate:
        options.out.mkdir(parents=True, exist_ok=True)
        options.checkpoints.mkdir(parents=True, exist_ok=True)
        steps = {"base": options.steps, "refiner": options.steps * 5 // 8}
        shapes = configs(learned)
        for name in options.net or DRAWS:
            started = time.monotonic()
            tag = f"{name}-{options.seed}-{steps[name]}-{digest(learned)}"
            trainer = Trainer(name, shapes[name], options.seed, steps[name], options.checkpoints / f"{tag}.safetensors")
            trainer.resume()
            trainer.run(learned)
            tensors, metadata = net_tensors(trainer.mean)
            save_file(tensors, options.out / f"diffusion_{name}.safetensors", metadata)
            print(f"{name}: trained in {time.monotonic() - started:.0f} s", flush=True)
    for name in options.net or DRAWS:
        path = options.out / f"diffusion_{name}.safetensors"
        net = load_net(path)
        print(
            f"{name}: {sum(p.numel() for p in net.parameters())} parameters, {path.stat().st_size} bytes, "
            f"loss learned {evaluate(name, net, learned):.4f} held out {evaluate(name, net, held_out):.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
