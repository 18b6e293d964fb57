"""The static checks and the unpacking of :mod:`gas.submissions`, as the arena asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gas.arena.evaluation import Prepared
from gas.arena.ports import CheckedPackage
from gas.errors import InfrastructureError
from gas.submissions.archive import unpack
from gas.submissions.check import check
from gas.submissions.limits import Limits
from gas.types import Modality

__all__ = ["PackageDesk"]


@dataclass(frozen=True, slots=True)
class PackageDesk:
    """Checks packages at their receipt, and unpacks them for a run.

    Attributes:
        limits: What a package may measure.
    """

    limits: Limits

    def check(self, path: Path, modality: Modality) -> CheckedPackage:
        """All static checks; see :class:`gas.arena.ports.PackageChecker`."""
        report = check(path, self.limits, modality=modality)
        package, prints = report.require(), report.fingerprint
        weights = prints.weights_sha256
        if weights is None:
            raise InfrastructureError("A clean package has no fingerprint.")
        return CheckedPackage(package.name, weights, prints.code_sha256, prints.sketches)

    def prepare(self, path: Path, folder: Path) -> Prepared:
        """Unpack a package into a folder that does not exist yet, and say how to load it.

        Raises:
            gas.errors.PackageRejected: The package is not the one that was checked.
            gas.errors.InfrastructureError: The disk failed.
        """
        unpack(path, folder, self.limits)
        package = check(folder, self.limits).require()
        return Prepared(package.to_spec(folder), package.classes)
