"""Three models a modality, as packages that pass the static checks: nothing, tiny, the shape of a ResNet-18."""

from __future__ import annotations

from pathlib import Path

MODELS = ("null", "tiny", "resnet18")

_SHAPES = {
    "image": "  resize: [224, 224]\n",
    "video": "  resize: [{side}, {side}]\n  num_frames: 16\n",
    "audio": "  sample_rate: 16000\n  duration_seconds: 6.0\n",
}

_HEAD = '''"""A model for measurements."""

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

'''

_TAIL = """

def load_model(weights_path, num_classes):
    model = Net(num_classes)
    model.load_state_dict(load_file(weights_path))
    return model
"""

_NULL = """
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(1, classes)

    def forward(self, x):
        return self.head(x.flatten(1)[:, :1].float() / 255.0)
"""

_TINY_2D = """
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.two = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.three = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        clips = x.shape[0]
        x = x.reshape(-1, 3, x.shape[-2], x.shape[-1]).float() / 127.5 - 1.0
        x = F.relu(self.three(F.relu(self.two(F.relu(self.one(x))))))
        return self.head(x.mean(dim=(2, 3))).reshape(clips, -1, self.head.out_features).mean(dim=1)
"""

_TINY_1D = """
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.one = nn.Conv1d(1, 16, 25, stride=5, padding=12)
        self.two = nn.Conv1d(16, 32, 9, stride=4, padding=4)
        self.three = nn.Conv1d(32, 64, 9, stride=4, padding=4)
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        x = F.relu(self.three(F.relu(self.two(F.relu(self.one(x.unsqueeze(1)))))))
        return self.head(x.mean(dim=2))
"""

_RESNET = """
class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.one = nn.Conv{n}d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm_one = nn.BatchNorm{n}d(after)
        self.two = nn.Conv{n}d(after, after, 3, stride=1, padding=1, bias=False)
        self.norm_two = nn.BatchNorm{n}d(after)
        self.short = None
        if stride != 1 or before != after:
            self.short = nn.Sequential(
                nn.Conv{n}d(before, after, 1, stride=stride, bias=False), nn.BatchNorm{n}d(after)
            )

    def forward(self, x):
        kept = x if self.short is None else self.short(x)
        x = F.relu(self.norm_one(self.one(x)))
        return F.relu(self.norm_two(self.two(x)) + kept)


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv{n}d({channels}, 64, 7, stride={stride}, padding=3, bias=False)
        self.norm = nn.BatchNorm{n}d(64)
        self.pool = nn.MaxPool{n}d(3, stride={stride}, padding=1)
        sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        sizes = sizes + [(128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
        self.blocks = nn.Sequential(*[Block(before, after, stride) for before, after, stride in sizes])
        self.head = nn.Linear(512, classes)

    def forward(self, x):
        clips = x.shape[0]
        x = {prepare}
        x = self.blocks(self.pool(F.relu(self.norm(self.stem(x)))))
        return self.head(x.mean(dim={axes})).reshape(clips, -1, self.head.out_features).mean(dim=1)
"""


def code(modality: str, model: str) -> str:
    """Text of ``model.py``."""
    if model == "null":
        body = _NULL
    elif model == "tiny":
        body = _TINY_1D if modality == "audio" else _TINY_2D
    elif modality == "audio":
        prepare = "x.unsqueeze(1)"
        body = _fill(_RESNET, n="1", channels="1", stride="4", axes="2", prepare=prepare)
    else:
        prepare = "x.reshape(-1, 3, x.shape[-2], x.shape[-1]).float() / 127.5 - 1.0"
        body = _fill(_RESNET, n="2", channels="3", stride="2", axes="(2, 3)", prepare=prepare)
    return _HEAD + body + _TAIL


def _fill(text: str, **words: str) -> str:
    for name, word in words.items():
        text = text.replace("{" + name + "}", word)
    return text


def package(folder: Path, modality: str, model: str, seed: int = 0) -> Path:
    """Write a package; the same arguments give the same weights."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    side = "112" if model == "resnet18" else "224"
    text = f"name: {modality}-{model}-{seed}\nversion: '1'\nmodality: {modality}\npreprocessing:\n"
    text += _SHAPES[modality].replace("{side}", side) + "model:\n  num_classes: 2\n"
    (folder / "model_config.yaml").write_text(text)
    (folder / "model.py").write_text(code(modality, model))
    names: dict[str, object] = {}
    exec(code(modality, model), names)
    torch.manual_seed(seed)
    save_file(names["Net"](2).state_dict(), folder / "model.safetensors")  # type: ignore[operator]
    return folder
