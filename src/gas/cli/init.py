"""``gascli d init``: a package that works, to begin with."""

from __future__ import annotations

import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gas.types import Modality

__all__ = ["Format", "init"]


class Format(StrEnum):
    """The two forms of a package."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"


def init(
    name: Annotated[str, typer.Argument(help="Name of the model, and of the folder to be made.")],
    modality: Annotated[Modality, typer.Option(help="What it detects.")] = Modality.IMAGE,
    package_format: Annotated[Format, typer.Option("--format", help="Form of the package.")] = Format.SAFETENSORS,
    folder: Annotated[Path | None, typer.Option(help="Folder to make; default: the name.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the untrained weights; drawn when left out.")] = None,
) -> None:
    """Scaffold a detector package: untrained, but it passes the static checks and runs."""
    from gas.submissions.scaffold import create

    target = folder or Path(name)
    # Two authors who train on from the same start would look like copies of each other.
    drawn = secrets.randbits(32) if seed is None else seed
    create(target, name, modality, format=package_format.value, seed=drawn)
    print(f"{target}: an untrained detector ({modality}, {package_format}). Next: gascli d check {target}")
