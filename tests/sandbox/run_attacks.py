"""Run the hostile model in one session; also a program, for a parent of another user."""

import importlib.util
import json
import os
import shutil
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gas.sandbox import BubblewrapSandbox, Limits, ModelSpec

HOSTILE_MODEL = Path(__file__).with_name("hostile_model.py")
LIMITS = Limits(memory_bytes=3 * 2**30, processes=24, open_files=64, tmp_bytes=4 * 2**20)
VARIABLE = "GAS_TEST_SECRET"


def attack_names():
    """Names of all attacks, in the order of their logits."""
    spec = importlib.util.spec_from_file_location("hostile_model", HOSTILE_MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [attack.__name__ for attack in module.ATTACKS]


def run_attacks(sandbox, folder, only=None):
    """Run attacks in one session.

    Returns how each ended, by name: 0 refused, 1 got through, 2 broken.
    """
    package = folder / "package"
    package.mkdir()
    shutil.copy(HOSTILE_MODEL, package / "model.py")
    (package / "model.safetensors").write_bytes(b"")
    secret = folder / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    os.environ[VARIABLE] = "secret"
    names = [name for name in attack_names() if only is None or name in only]
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            params = {
                **{name: value for name, value in asdict(LIMITS).items() if isinstance(value, int)},
                "port": listener.getsockname()[1],
                "secret": str(secret),
                "variable": VARIABLE,
                "host_pid": os.getpid(),
                "only": only,
            }
            spec = ModelSpec(
                package, "safetensors", "model.py", "model.safetensors", (1,), "uint8", len(names), params=params
            )
            with sandbox.start(spec, batch_size=1, limits=LIMITS) as session:
                logits = session.infer(np.zeros((1, 1), dtype=np.uint8))
    finally:
        del os.environ[VARIABLE]
    return dict(zip(names, logits[0].tolist(), strict=True))


if __name__ == "__main__":
    json.dump({"uid": os.getuid(), "outcomes": run_attacks(BubblewrapSandbox(), Path(sys.argv[1]))}, sys.stdout)
