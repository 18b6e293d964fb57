"""The probe's answer does not hang on how its own process was started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gas.sandbox import Tier, probe

_PROGRAM = "from gas.sandbox import probe; print(probe().tier.name)"


@pytest.mark.skipif(probe().tier < Tier.BUBBLEWRAP, reason="this machine can't isolate")
def test_a_variable_that_shells_set_by_themselves_is_no_leak() -> None:
    """Under make and cron the environment may begin with just such a variable, and bubblewrap sets PWD itself."""
    environment = dict.fromkeys(("PWD", "OLDPWD", "SHLVL", "_"), "/somewhere") | {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert Tier[done.stdout.strip()] >= Tier.BUBBLEWRAP
