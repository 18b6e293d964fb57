"""Run the suite in a process of another user: the sandbox has a variant for parents that are not root."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gas.sandbox.folders import HeldFolder
from gas.sandbox.runtime import host_site_folders

__all__ = ["other_user"]

_OTHER: Final = 12345


@contextlib.contextmanager
def other_user(hostile: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """How to start Python as a user who is not root; private mounts show him the interpreter. Needs root.

    Args:
        hostile: The folder that holds this package.

    Yields:
        The command line, to which modules or files are added, and the environment.
    """
    import gas

    site = next(folder for folder in host_site_folders() if (folder / "numpy").is_dir())
    sources = {
        "python": Path(sys.base_prefix),
        "site": site,
        "src": Path(gas.__file__).parent.parent,
        "hostile": hostile,
    }
    # The system's own folder for temporary files may be closed to others.
    held = HeldFolder("gas-other-", Path("/tmp"))
    folder = held.path
    try:
        folder.chmod(0o755)
        for name in (*sources, "work"):
            (folder / name).mkdir()
        os.chown(folder / "work", _OTHER, _OTHER)
        mounts = " && ".join(
            f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(folder / name))}" for name, path in sources.items()
        )
        python = folder / "python" / "bin" / Path(getattr(sys, "_base_executable", sys.executable)).resolve().name
        command = [
            "unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh",
            "setpriv", "--reuid", str(_OTHER), "--regid", str(_OTHER), "--clear-groups",
            str(python), "-P", "-B",
        ]  # fmt: skip
        environment = {
            "PYTHONPATH": f"{folder}/src:{folder}/site:{folder}/hostile",
            "PATH": os.environ["PATH"],
            "HOME": f"{folder}/work",
            "TMPDIR": f"{folder}/work",
        }
        yield command, environment
    finally:
        held.close()
