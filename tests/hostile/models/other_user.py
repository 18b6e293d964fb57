"""Run the suite in a process of another user: the sandbox has a variant for parents that are not root."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gas.errors import SandboxUnavailable
from gas.sandbox.runtime import host_site_folders

__all__ = ["as_another_user"]

_OTHER: Final = 12345


def as_another_user(names: list[str], *, rung: str, together: bool, spares: bool = False) -> Iterator[dict[str, Any]]:
    """Run attempts as a user who is not root; private mounts show him the interpreter. Needs root.

    Yields:
        Fields of a ``Result`` as they come.

    Raises:
        gas.errors.SandboxUnavailable: That process failed.
    """
    import gas

    site = next(folder for folder in host_site_folders() if (folder / "numpy").is_dir())
    sources = {
        "python": Path(sys.base_prefix),
        "site": site,
        "src": Path(gas.__file__).parent.parent,
        "hostile": Path(__file__).parent.parent,
    }
    # The system's own folder for temporary files may be closed to others.
    folder = Path(tempfile.mkdtemp(prefix="gas-other-", dir="/tmp"))
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
            str(python), "-P", "-B", "-m", "models",
        ]  # fmt: skip
        environment = {
            "PYTHONPATH": f"{folder}/src:{folder}/site:{folder}/hostile",
            "PATH": os.environ["PATH"],
            "HOME": f"{folder}/work",
            "TMPDIR": f"{folder}/work",
        }
        order = json.dumps({"names": names, "rung": rung, "together": together, "spares": spares})
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd="/"
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(order)
            child.stdin.close()
            for line in child.stdout:
                yield json.loads(line)
        if child.returncode:
            raise SandboxUnavailable(f"The suite of another user ended with code {child.returncode}.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
