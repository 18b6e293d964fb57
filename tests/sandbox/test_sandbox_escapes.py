"""Hostile models on the isolating rung: each is contained, and the next model works."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import gas
from gas.sandbox import PlainSandbox

_SPEC = importlib.util.spec_from_file_location("run_attacks", Path(__file__).with_name("run_attacks.py"))
runner = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(runner)

NAMES = runner.attack_names()
REAL = [
    "reads_the_hosts_passwd",
    "reads_a_readable_file_of_the_host",
    "connects_to_the_hosts_loopback",
    "makes_a_udp_socket",
    "makes_a_unix_socket",
    "makes_a_pair_of_sockets",
    "forks",
    "starts_a_shell",
    "makes_an_anonymous_program",
    "signals_the_hosts_process",
    "writes_next_to_its_own_package",
    "fills_tmp",
]
"""Attacks that do no harm where nothing stops them."""


@pytest.fixture(scope="module")
def outcomes(isolating, tmp_path_factory):
    """All attacks in one session of the isolating rung."""
    return runner.run_attacks(isolating, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", NAMES)
def test_the_hostile_model_is_refused_when_it(name, outcomes):
    assert outcomes[name] != 2, "the attack itself is broken"
    assert outcomes[name] == 0


def test_the_attacks_are_real_because_they_succeed_without_isolation(tmp_path):
    assert runner.run_attacks(PlainSandbox(), tmp_path, REAL) == dict.fromkeys(REAL, 1)


def test_the_next_model_works_after_all_attacks(outcomes, isolating, next_model_works):
    next_model_works(isolating)


@pytest.fixture
def as_another_user():
    """Runs a Python program of this folder as another user; the interpreter is shown to it by private mounts."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("Needs root to become another user; for other users, all the tests above cover this variant.")
    # pytest's own folders are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="gas-other-", dir="/tmp"))
    folder.chmod(0o755)
    sources = {
        "python": sys.base_prefix,
        "site": str(Path(np.__file__).parent.parent),
        "src": str(Path(gas.__file__).parent.parent),
        "tests": str(Path(__file__).parent),
    }
    for name in sources:
        (folder / name).mkdir()
    (folder / "work").mkdir()
    os.chown(folder / "work", 12345, 12345)
    mounts = " && ".join(f'mount --bind "{source}" "{folder}/{name}"' for name, source in sources.items())
    executable = folder / "python" / "bin" / Path(sys._base_executable).resolve().name

    def run(program):
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh",
             "setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups",
             executable, "-P", "-B", folder / "tests" / program, folder / "work"],
            env={"PYTHONPATH": f"{folder}/src:{folder}/site", "PATH": os.environ["PATH"], "TMPDIR": f"{folder}/work"},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    yield run
    shutil.rmtree(folder)


def test_a_parent_that_is_not_root_contains_the_same_attacks(isolating, as_another_user):
    done = as_another_user("run_attacks.py")
    if done.returncode and "could not set up" in done.stderr:
        pytest.skip("This machine gives ordinary users no name spaces.")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"uid": 12345, "outcomes": dict.fromkeys(NAMES, 0)}
