"""Checkpoints of a training, so that one that was cut short goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from gas.errors import StorageError

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "save_tensors"]

_MOST: Final = 4


class Checkpoint:
    """An epoch of a training that has not ended: weights and the optimiser's means, without pickle.

    Args:
        folder: Where checkpoints lie; the newest few are kept.
        key: Of everything that the training depends on: another key is another training.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / f"{key}.safetensors"

    def save(self, epoch: int, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Keep an epoch in the place of the one before it.

        Raises:
            StorageError: It can't be written.
        """
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in state.items()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            others = sorted(self._path.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
            for old in [p for p in others if p != self._path][: -_MOST + 1]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self._path.parent} can't be written ({error.strerror}).") from error
        save_tensors(
            {name: tensor.detach().cpu() for name, tensor in tensors.items()}, self._path, {"epoch": str(epoch)}
        )

    def load(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Put both where they were; returns the epochs that were done, 0 where there is no checkpoint that fits."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, "pt") as file:
                epoch = int(file.metadata()["epoch"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                kind, rest = name.split(".", 1)
                if kind == "optimiser":
                    number, part = rest.split(".", 1)
                    state.setdefault(int(number), {})[part] = tensor
            model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return 0
        return epoch

    def remove(self) -> None:
        """Forget it: the training has ended."""
        self._path.unlink(missing_ok=True)


def save_tensors(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file in one go: a reader sees the old one or the new one.

    Raises:
        StorageError: It can't be written.
    """
    from safetensors.torch import save_file

    aside = path.with_name(path.name + ".new")
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, aside, metadata)
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"{path} can't be written ({error.strerror}).") from error
