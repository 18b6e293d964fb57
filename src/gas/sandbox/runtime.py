"""Which parts of this machine the model's Python needs, and where they appear inside the sandbox."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BOOT", "RUNNER", "Bind", "Runtime", "child_environment", "find_runtime", "runner_folder"]

RUNNER = "/runner"
_PREFIX = "/python"

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from inside.child import main; main(int(sys.argv[2]))"
"""What the child's interpreter is started with; arguments: folder of the runner, descriptor of the settings."""

_NEEDED = ("numpy", "torch", "onnxruntime", "safetensors")
_SYSTEM_FOLDERS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives")


@dataclass(frozen=True, slots=True)
class Bind:
    """A read-only view of a file or folder of the host."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """A Python as the sandbox sees it.

    Attributes:
        binds: Read-only views; a target's parent folders are not among the sources.
        links: Symbolic links (target of the link, path).
        executable: The interpreter's path inside.
        site_folders: Folders with packages, as seen inside.
        library_path: Extra folder for the dynamic loader inside; empty when none is needed.
        hidden: Folders inside that are covered by empty ones.
    """

    binds: tuple[Bind, ...]
    links: tuple[tuple[str, str], ...]
    executable: str
    site_folders: tuple[str, ...]
    library_path: str
    hidden: tuple[str, ...]


def runner_folder() -> Path:
    """The folder that holds the package ``inside``."""
    return Path(__file__).resolve().parent


def host_site_folders() -> tuple[Path, ...]:
    """Folders of this interpreter that hold third-party packages, in the order of ``sys.path``."""
    holding = set()
    for name in _NEEDED:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            holding.add(Path(spec.origin).resolve().parent.parent)
    found: list[Path] = []
    for entry in sys.path:
        folder = Path(entry).resolve()
        wanted = folder in holding or folder.name in {"site-packages", "dist-packages"}
        if entry and wanted and folder.is_dir() and folder not in found:
            found.append(folder)
    return tuple(found)


def find_runtime() -> Runtime:
    """Describe the Python that runs this process.

    The interpreter may live in /usr, in a home that nobody else may enter, or below a virtual environment; it
    is shown at a neutral place, so that its host path neither matters nor leaks.
    """
    base = Path(sys.base_prefix).resolve()
    executable = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    binds: list[Bind] = []
    links: list[tuple[str, str]] = []
    for name in _SYSTEM_FOLDERS:
        folder = Path(name)
        if folder.is_symlink():
            links.append((str(folder.readlink()), name))
        elif folder.is_dir():
            binds.append(Bind(folder, name))
    binds += [Bind(Path(name), name) for name in _SYSTEM_FILES if Path(name).exists()]
    in_system = base == Path("/usr")
    prefix = "/usr" if in_system else _PREFIX
    inside_executable = f"{prefix}/bin/{executable.name}"
    binds.append(Bind(executable, inside_executable))
    if not in_system:
        binds.append(Bind(base / "lib", f"{_PREFIX}/lib"))
    sites: list[str] = []
    hidden: list[str] = []
    for number, folder in enumerate(host_site_folders()):
        if folder.is_relative_to("/usr/lib"):
            site = str(folder)
        elif not in_system and folder.is_relative_to(base / "lib"):
            site = f"{_PREFIX}/lib/{folder.relative_to(base / 'lib')}"
        else:
            site = f"/site{number}"
            binds.append(Bind(folder, site))
        sites.append(site)
        if (folder / "gas").is_dir():
            hidden.append(f"{site}/gas")
    binds.append(Bind(runner_folder() / "inside", f"{RUNNER}/inside"))
    return Runtime(
        binds=tuple(binds),
        links=tuple(links),
        executable=inside_executable,
        site_folders=tuple(sites),
        library_path="" if in_system else f"{_PREFIX}/lib",
        hidden=tuple(hidden),
    )


def child_environment(threads: int) -> dict[str, str]:
    """The whole environment of a model's process; nothing of the parent's is handed on.

    glibc keeps freed memory instead of giving it back to the kernel at each batch, which doubles the rate of
    small models. Sets of strings have one order in every run.
    """
    count = str(threads)
    return {
        "HOME": "/tmp",  # noqa: S108 - the private one
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "USER": "model",
        "LOGNAME": "model",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(16 * 2**20),
    }
