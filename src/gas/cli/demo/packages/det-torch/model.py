"""A detector that compares the energies of a picture's frequencies, block by block."""

import math

import torch
from safetensors.torch import load_file
from torch import nn

YCBCR = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))


class Spectrum(nn.Module):
    """Log energies of a windowed DCT, a small net on each block, mean and spread over the blocks."""

    waves: torch.Tensor
    low_waves: torch.Tensor
    colours: torch.Tensor

    def __init__(self, num_classes: int = 2, width: int = 128, block: int = 16) -> None:
        super().__init__()
        place = torch.arange(block) + 0.5
        basis = torch.cos(math.pi / block * torch.arange(block)[:, None] * place) * math.sqrt(2 / block)
        window = 0.1 + 0.9 * torch.hann_window(block, periodic=False)
        waves = torch.einsum("ua,vb,a,b->uvab", basis, basis, window, window).reshape(-1, 1, block, block)
        # A block's mean colour says nothing of how the picture was made.
        waves = waves[1:]
        half = block // 2
        low = [i - 1 for i in range(1, block * block) if i // block < half and i % block < half]
        self.stride = half
        self.features = len(waves) + 2 * len(low)
        self.register_buffer("waves", waves, persistent=False)
        self.register_buffer("low_waves", waves[low], persistent=False)
        self.register_buffer("colours", torch.tensor(YCBCR).reshape(3, 3, 1, 1), persistent=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(self.features, affine=False)]
        before = self.features
        for after in (width, width // 2, width // 2):
            layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * before, num_classes)

    def energies(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, h, w) in 0..255 -> log energies (n, features, rows, columns)."""
        planes = nn.functional.conv2d(x.float() / 255.0, self.colours)
        parts = [nn.functional.conv2d(planes[:, :1], self.waves, stride=self.stride)]
        parts += [nn.functional.conv2d(planes[:, i : i + 1], self.low_waves, stride=self.stride) for i in range(1, 3)]
        return torch.log(torch.cat(parts, dim=1).square() + 1e-5)

    def judge(self, energies: torch.Tensor) -> torch.Tensor:
        """Log energies -> logits (n, num_classes)."""
        features = self.layers(energies)
        mean = features.mean(dim=(2, 3))
        variance = features.square().mean(dim=(2, 3)) - mean.square()
        spread = torch.sqrt(variance.clamp(min=0.0) + 1e-4)
        logits: torch.Tensor = self.head(self.dropout(torch.cat((mean, spread), dim=1)))
        return logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, h, w) in 0..255 -> logits (n, num_classes)."""
        return self.judge(self.energies(x))


def load_model(weights_path: str, num_classes: int = 2, width: int = 128, block: int = 16) -> nn.Module:
    """The detector with its weights, ready to answer."""
    model = Spectrum(num_classes, width, block)
    model.load_state_dict(load_file(weights_path))
    model.train(False)
    return model
