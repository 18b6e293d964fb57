"""One checked package on one round, on this machine: what every command and service that runs a model begins with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from gas.bench.engine import evaluate
from gas.bench.journal import Journal
from gas.bench.runs import Progress, RunConfig, RunResult
from gas.clock import Clock
from gas.datasets.plan import Round
from gas.datasets.shelves import RoundShelves
from gas.errors import ConfigurationError, InfrastructureError, IntegrityError, StorageError
from gas.sandbox.base import Environment, ModelSpec, Sandbox
from gas.sandbox.spares import Spares
from gas.storage.blobs import BlobStore, FolderBlobs
from gas.submissions.archive import unpack
from gas.submissions.pack import pack
from gas.submissions.package import Package
from gas.types import Sample

__all__ = ["SetBlobs", "evaluate_package", "packed", "prepare_next"]


def packed(package: Path, work: Path) -> Path:
    """The package as a zip, so that the model sees its package's files and nothing else of the folder they lie in.

    Args:
        package: A zip, a folder, or one ``.onnx`` file.
        work: Empty folder for what has to be made.

    Raises:
        ConfigurationError: ``no_model``: there is nothing.
        gas.errors.PackageRejected: The files don't make a package.
        InfrastructureError: Reading or writing failed.
    """
    if not package.exists():
        raise ConfigurationError(
            f"There is no model at {package}.", code="no_model", hint="Name a zip, a folder, or an .onnx file."
        )
    if package.suffix == ".onnx" and not package.is_dir():
        folder = work / "bare"
        try:
            folder.mkdir()
            shutil.copyfile(package, folder / package.name)
        except OSError as error:
            raise InfrastructureError(f"{package.name} can't be read ({error.strerror}).") from error
        package = folder
    if not package.is_dir():
        return package
    archive = work / "package.zip"
    pack(package, archive)
    return archive


def evaluate_package(
    archive: Path,
    checked: Package,
    round_: Round,
    blobs: BlobStore,
    sandbox: Sandbox,
    config: RunConfig,
    *,
    work: Path,
    pixels: Path,
    journal: Journal | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Clock | None = None,
) -> tuple[RunResult, Mapping[str, str]]:
    """Unpack a package and run it on every sample of a round.

    Args:
        archive: From :func:`packed`.
        checked: What the static checks found the package to be.
        round_: What it runs on.
        blobs: Where the round's media lie.
        sandbox: Where the model runs.
        config: How; its nonce is the journal's.
        work: Folder for the unpacked package.
        pixels: Folder for decoded media; may be shared by runs.
        journal: Keeps every complete batch; nothing does when left out.
        on_progress: As for :func:`gas.bench.engine.evaluate`.
        clock: Likewise.

    Returns:
        The run, and why media could not be decoded, by sample; media that were found undecodable in an earlier run
        are missing in it.

    Raises:
        gas.errors.GasError: As :func:`gas.bench.engine.evaluate`.
    """
    folder = work / "package"
    unpack(archive, folder)
    spec = checked.to_spec(folder)
    with RoundShelves(round_.samples, blobs, pixels) as media:
        run = evaluate(
            spec,
            round_,
            media,
            sandbox,
            config,
            on_progress,
            classes=checked.classes,
            clock=clock,
            journal=journal,
        )
        prepare_next(sandbox, spec, config)
        return run, {sample_id: error.message for sample_id, error in media.errors.items()}


def prepare_next(sandbox: Sandbox, spec: ModelSpec, config: RunConfig) -> None:
    """Have processes wait for another start of this kind, if the sandbox keeps any; returns at once.

    Worth it where one core would idle: between two models there is much that only one does.

    Args:
        sandbox: Where models run.
        spec: The model that has just run.
        config: How.
    """
    if isinstance(sandbox, Spares):
        environment = Environment.of(replace(spec, device=config.device), config.limits, config.threads)
        sandbox.prepare(environment, config.processes or len(os.sched_getaffinity(0)))


class SetBlobs(FolderBlobs):
    """A folder of blobs that says which data set a bad one belongs to.

    Args:
        root: The folder.
        samples: Of the round that is read.
    """

    def __init__(self, root: Path, samples: tuple[Sample, ...]) -> None:
        super().__init__(root)
        self._sets = {sample.sample_id: sample.dataset for sample in samples}

    def get(self, name: str) -> bytes:
        """Fetch bytes and check them.

        Raises:
            IntegrityError: ``media_changed``: other bytes than when the plan was drawn.
            StorageError: ``media_missing``: the medium is gone.
        """
        try:
            return super().get(name)
        except StorageError as error:
            dataset = self._sets.get(name, "?")
            hint = (
                f"Run `gascli data verify {dataset} --discard` and `gascli data fetch {dataset} --refresh`, "
                "then the same command again; what was answered so far is kept."
            )
            if error.error_code == "blob_damaged":
                raise IntegrityError(
                    f"A medium of the data set {dataset} has changed since it was fetched ({name[:16]}).",
                    code="media_changed",
                    hint=hint,
                ) from error
            if error.error_code == "blob_missing":
                raise StorageError(
                    f"A medium of the data set {dataset} is gone ({name[:16]}).", code="media_missing", hint=hint
                ) from error
            raise
