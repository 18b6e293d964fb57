"""``gascli d check``: the static checks of a package, for its author."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from gas.submissions.check import CheckReport
    from gas.types import Modality

__all__ = ["check", "check_path"]

CLEAN: Final = 0
REFUSED: Final = 1
COULD_NOT_CHECK: Final = 2


def check_path(path: Path, modality: Modality | None = None) -> CheckReport:
    """The static checks of a package, as authors name it: a zip, a folder, or one ``.onnx`` file.

    Args:
        path: Where it lies.
        modality: That it must be for; None takes any.

    Raises:
        gas.errors.InfrastructureError: The check could not be made.
    """
    from gas.submissions.check import check

    if path.suffix != ".onnx" or not path.is_file():
        return check(path, modality=modality)
    from gas.bench.local import packed

    with tempfile.TemporaryDirectory(prefix="gas-check-") as work:
        return check(packed(path, Path(work)), modality=modality)


def check(
    path: Annotated[Path, typer.Argument(help="The package: a zip, the folder it is made of, or one .onnx file.")],
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a detector's package without running it: exit 0 clean, 1 refused, 2 could not check."""
    from gas.errors import InfrastructureError

    try:
        report = check_path(path)
    except InfrastructureError as error:
        if json_output:
            typer.echo(json.dumps({"state": "could_not_check", "error": error.as_dict()}))
        else:
            typer.echo(f"Could not check {path.name}: {error}", err=True)
        raise typer.Exit(COULD_NOT_CHECK) from None
    if json_output:
        typer.echo(json.dumps(report.as_dict()))
    else:
        for reason in report.reasons:
            typer.echo(str(reason))
        if report.package is not None:
            package = report.package
            shape = " x ".join(map(str, package.input_shape))
            typer.echo(
                f"{path.name} is clean: {package.name} {package.version}, {package.modality}, {package.format}, "
                f"input {shape} {package.input_dtype}, {package.num_classes} classes."
            )
        else:
            count = len(report.reasons)
            typer.echo(f"{path.name} is refused: {count} {'reason' if count == 1 else 'reasons'}.")
    raise typer.Exit(CLEAN if report.ok else REFUSED)
