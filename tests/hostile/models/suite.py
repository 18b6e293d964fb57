"""Run attempts: the static check, then behind its back on each rung, then an honest model on the same worker."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from good_packages import GOOD_CONFIG, safetensors_bytes, zip_of

from gas.errors import GasError, ModelFailed
from gas.sandbox import Limits, ModelSpec, PlainSandbox, Probe, Sandbox, Tier, best_sandbox, probe
from gas.sandbox.base import Environment, ModelSession
from gas.sandbox.folders import HeldFolder
from gas.sandbox.opening import Rung
from gas.sandbox.spares import Spares
from gas.submissions.check import check
from models import (
    answers,
    cheats,
    endings,
    evasions,
    files,
    graphs,
    kernel,
    network,
    packages,
    processes,
    resources,
)
from models.crew import Order, run_as_another_user, units
from models.light import in_place_of_torch, write_light_site
from models.table import Attempt, tables
from models.witness import Witness

__all__ = [
    "ATTEMPTS", "CHECK", "OWN_ROOT", "OWN_USER", "PLAIN", "ROOT", "USER", "Result", "Worker", "chosen", "find", "here",
    "run_on", "shares", "static_check", "without_groups",
]  # fmt: skip

CHECK: Final = "check"
PLAIN: Final = "PLAIN"
ROOT: Final = "BUBBLEWRAP (root)"
USER: Final = "BUBBLEWRAP (user)"
OWN_ROOT: Final = "NAMESPACES (root)"
OWN_USER: Final = "NAMESPACES (user)"

ATTEMPTS: Final[dict[str, Attempt]] = {
    attempt.name: attempt
    for attempt in tables(
        [files, network, processes, kernel, resources, endings, answers, cheats, graphs, evasions, packages]
    )
}

SHAPE: Final = (3, 4, 4)
_VARIABLE: Final = "GAS_SECURITY_SECRET"
_MARKER: Final = "holdout-of-the-round"
_LIMITS: Final = Limits(
    memory_bytes=2**30, processes=24, open_files=64, tmp_bytes=4 * 2**20, load_seconds=60.0, batch_seconds=60.0
)
_TORCH_BYTES: Final = 3 * 2**30
_REASK_TOLERANCE: Final = 1e-3

_HONEST: Final = """
import torch

class Honest(torch.nn.Module):
    def forward(self, batch):
        return torch.tensor([[float(sample.mean()), float(sample.max())] for sample in batch.numpy()])

def load_model(weights_path, num_classes=2):
    return Honest()
"""


_TOGETHER: Final = """
import torch

class Together(torch.nn.Module):
    def __init__(self, outcomes):
        super().__init__()
        self.outcomes = outcomes

    def forward(self, batch):
        return torch.tensor([self.outcomes] * len(batch))

def load_model(weights_path, num_classes=2, **facts):
    facts["weights"] = weights_path
    outcomes = []
    for code in CODES:
        names = {"__name__": "model", "__file__": __file__}
        try:
            exec(compile(code, "model.py", "exec"), names)
            attempt = names["load_model"](weights_path, **{k: v for k, v in facts.items() if k != "weights"})
            outcomes.append(float(attempt.outcome))
        except Exception:
            outcomes.append(2.0)
    return Together(outcomes)
"""


@dataclass(frozen=True, slots=True)
class Result:
    """How one attempt ended on one rung.

    Attributes:
        name: The attempt's.
        rung: Where.
        outcome: A key of :data:`models.table.OUTCOMES`, or what it was instead.
        contained: Whether it ended as expected, harmed nothing, and the next model was right.
        detail: Sentence of the error, or what was wrong.
        code: Codes of the static check, for the rung ``check``.
        seconds: From the start of the model to its end.
        tier: Of the sandbox, where a process of the crew tells it.
    """

    name: str
    rung: str
    outcome: str
    contained: bool
    detail: str = ""
    code: str = ""
    seconds: float = 0.0
    tier: str = ""


def static_check(attempt: Attempt) -> Result:
    """Ask the static check, by the same door as an honest package."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gas-security-") as name:
        path = Path(name) / "package.zip"
        path.write_bytes(_package(attempt))
        (Path(name) / "work").mkdir()
        report = check(path, workdir=Path(name) / "work")
        left = list((Path(name) / "work").iterdir())
    codes = sorted({reason.code for reason in report.reasons})
    wrong = ""
    if left:
        wrong = "the check left files behind"
    elif (attempt.static is None) != report.ok or (attempt.static and attempt.static not in codes):
        wrong = f"expected {attempt.static or 'nothing'}"
    outcome = "passes" if report.ok else "refused"
    # The one that counts first, and how many others there are.
    shown = attempt.static if attempt.static in codes else ", ".join(codes)
    return Result(attempt.name, CHECK, outcome, not wrong, wrong, shown or "", time.monotonic() - began)


def _package(attempt: Attempt) -> bytes:
    if attempt.package is not None:
        return attempt.package()
    if attempt.graph is not None:
        return zip_of({"model.onnx": attempt.graph()}, method=0)
    weights = attempt.weights() if attempt.weights is not None else safetensors_bytes()
    parts = {"model_config.yaml": GOOD_CONFIG, "model.py": attempt.code or "", "model.safetensors": weights}
    return zip_of(parts, method=0)


def find(rung: str) -> Probe:
    """Probe for a rung, once a process; for those without bubblewrap as on a machine that has none."""
    return _found(rung in {OWN_ROOT, OWN_USER})


@functools.cache
def _found(without_bubblewrap: bool) -> Probe:
    return probe(tuple) if without_bubblewrap else probe()


def without_groups(found: Probe) -> Probe:
    """The same machine, if no control group could be made there."""
    lower = {Tier.BUBBLEWRAP_CGROUP: Tier.BUBBLEWRAP, Tier.NAMESPACES_CGROUP: Tier.NAMESPACES}
    return replace(found, groups=None, tier=lower.get(found.tier, found.tier))


def here(found: Probe | None = None, own: Probe | None = None) -> dict[str, str]:
    """Rungs of this machine: why one is not here, or an empty sentence.

    Args:
        found: An earlier probe.
        own: The same without bubblewrap.
    """
    found, own = found or find(ROOT), own or find(OWN_ROOT)
    is_root = os.geteuid() == 0
    can_change = not is_root or (shutil.which("unshare") and shutil.which("setpriv"))
    reasons = {PLAIN: ""}
    for probed, tier, root, user in (
        (found, Tier.BUBBLEWRAP, ROOT, USER),
        (own, Tier.NAMESPACES, OWN_ROOT, OWN_USER),
    ):
        why = "" if probed.tier >= tier else probed.reasons.get(tier, "no isolation")
        reasons[root] = why or ("" if is_root else "the parent is not root")
        reasons[user] = why or ("" if can_change else "root needs unshare and setpriv to become another user")
    return reasons


class _InSpares:
    """Gives every model to a process that waited for it, and leaves none waiting."""

    def __init__(self, rung: Rung, folder: Path) -> None:
        self.tier, self._rung, self._folder = rung.tier, rung, folder

    def spares(self) -> Spares:
        """Some that make none but those that they are asked for."""
        return Spares(self._rung, refill=False, folder=self._folder)

    @contextlib.contextmanager
    def start(
        self, spec: ModelSpec, *, batch_size: int, limits: Limits = _LIMITS, threads: int = 1
    ) -> Iterator[ModelSession]:
        with self.spares() as spares:
            spares.prepare(Environment.of(spec, limits, threads))
            with spares.start(spec, batch_size=batch_size, limits=limits, threads=threads) as session:
                assert spares.taken == 1
                yield session


class Worker:
    """One worker on one rung; a context manager. Attempts run one after the other, as submissions do.

    Args:
        rung: Where; the caller has asked :func:`here`, and is that user.
        found: An earlier answer of :func:`find` for that rung.
        spares: Whether each model is given to a process that waited for it; not on :data:`PLAIN`. That of the honest
            model has waited since before the attempt began.
        groups: Whether control groups are used where they can be made.
    """

    def __init__(self, rung: str, found: Probe | None = None, *, spares: bool = False, groups: bool = True) -> None:
        self.rung, self._spares = rung, spares and rung != PLAIN
        self._found = without_groups(found or find(rung)) if not groups else found or find(rung)
        self._stack = contextlib.ExitStack()

    @property
    def tier(self) -> str:
        """Name of the sandbox's tier; empty on a rung that isolates nothing."""
        return "" if self.rung == PLAIN else self._found.tier.name

    def __enter__(self) -> Self:
        held = HeldFolder("gas-security-")
        self._stack.callback(held.close)
        self._folder = held.path
        self._folder.chmod(0o755)
        site = write_light_site(self._folder / "light")
        (self._folder / "light").chmod(0o755)
        os.environ[_VARIABLE] = "secret"
        self._stack.callback(os.environ.pop, _VARIABLE, None)
        self._real = self._sandbox()
        with in_place_of_torch(site):
            self._light = self._sandbox()
        self._next: Spares | None = None
        if isinstance(self._light, _InSpares):
            self._next = self._stack.enter_context(self._light.spares())
        self._site = site
        self._witness = Witness(self._folder, variable=_VARIABLE, marker=_MARKER)
        self._stack.callback(self._witness.close)
        self._honest = self._write(_HONEST)
        rng = np.random.default_rng(0)
        self._batch = rng.integers(0, 256, (3, *SHAPE), dtype=np.uint8)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _sandbox(self) -> Sandbox | _InSpares:
        if self.rung == PLAIN:
            return PlainSandbox()
        best = best_sandbox(Tier.NAMESPACES, self._found)
        return _InSpares(best, self._folder) if self._spares else best

    def _write(self, code: str | bytes) -> Path:
        """A package in a folder whose name tells of the host's data."""
        folder = Path(tempfile.mkdtemp(prefix=f"{_MARKER}-", dir=self._folder))
        (folder / "model.py").write_bytes(code.encode() if isinstance(code, str) else code)
        (folder / "model.safetensors").write_bytes(b"")
        return folder

    def run(self, attempt: Attempt) -> Result:
        """Run one attempt, and an honest model after it."""
        reason = attempt.needs()
        if reason:
            return Result(attempt.name, self.rung, "not_here", True, reason)
        folder, spec = self._spec(attempt)
        self._warm()
        began = time.monotonic()
        try:
            outcome, detail = self._outcome(attempt, spec)
        finally:
            seconds = time.monotonic() - began
            shutil.rmtree(folder, ignore_errors=True)
        expected = attempt.plain if self.rung == PLAIN else attempt.expected
        wrong = "" if outcome in expected else f"expected {' or '.join(expected)}; {detail}"
        noticed = self._witness.noticed()
        wrong = wrong or noticed or self._next_model()
        return Result(attempt.name, self.rung, outcome, not wrong, wrong or detail, seconds=seconds)

    def run_all(self, attempts: list[Attempt], tell: Callable[[Result], None], *, together: bool = False) -> None:
        """Run attempts, and tell each result as it comes.

        Args:
            attempts: In order.
            tell: Takes a result.
            together: Share one process among attempts that the kernel must deny and that leave nothing behind. Those
                that don't end so are run again, each by itself.
        """
        denied = self.denied_together(attempts) if together else set()
        for attempt in attempts:
            if attempt.name in denied:
                tell(Result(attempt.name, self.rung, "denied", True, "in one process with others"))
            else:
                tell(self.run(attempt))

    def denied_together(self, attempts: list[Attempt]) -> set[str]:
        """Run those that may share a process in one.

        Returns:
            Names of those that were denied; none when anything else went wrong.
        """
        attempts = [attempt for attempt in attempts if shares(attempt)]
        if len(attempts) < 2:
            return set()
        self._warm()
        codes = [attempt.code for attempt in attempts]
        spec = self._spec(Attempt("together", "", "", code=_TOGETHER.replace("CODES", repr(codes))))[1]
        try:
            spec = replace(spec, num_classes=len(attempts))
            with in_place_of_torch(self._site), self._light.start(spec, batch_size=1, limits=_LIMITS) as session:
                outcomes = session.infer(self._batch[:1])[0]
        except GasError:
            return set()
        finally:
            shutil.rmtree(spec.folder, ignore_errors=True)
        if self._witness.noticed() or self._next_model():
            return set()
        return {attempt.name for attempt, outcome in zip(attempts, outcomes, strict=True) if outcome == 0}

    def _spec(self, attempt: Attempt) -> tuple[Path, ModelSpec]:
        folder = self._write(attempt.code or b"")
        for name, content in attempt.files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, folder / name)
            elif isinstance(content, str):
                (folder / name).symlink_to(content)
            else:
                (folder / name).write_bytes(content)
        if attempt.graph is not None:
            (folder / "model.onnx").write_bytes(attempt.graph())
            return folder, ModelSpec(folder, "onnx", "model.onnx", None, SHAPE, "uint8", 2)
        if attempt.weights is not None:
            (folder / "model.safetensors").write_bytes(attempt.weights())
        facts: dict[str, object] = {}
        if "**facts" in str(attempt.code):
            limits = {name: value for name, value in asdict(self._limits(attempt)).items() if isinstance(value, int)}
            facts = {**limits, **self._witness.facts}
        return folder, ModelSpec(
            folder, "safetensors", "model.py", "model.safetensors", SHAPE, "uint8", 2, params=facts
        )

    def _limits(self, attempt: Attempt) -> Limits:
        memory = _TORCH_BYTES if attempt.torch else _LIMITS.memory_bytes
        return replace(_LIMITS, **{"memory_bytes": memory, **attempt.limits})

    def _start(self, attempt: Attempt, spec: ModelSpec) -> Any:
        sandbox = self._real if attempt.torch or attempt.graph is not None else self._light
        with contextlib.ExitStack() as stack:
            if sandbox is self._light:
                stack.enter_context(in_place_of_torch(self._site))
            return sandbox.start(spec, batch_size=3, limits=self._limits(attempt))

    def _outcome(self, attempt: Attempt, spec: ModelSpec) -> tuple[str, str]:
        given = self._batch.copy()
        try:
            with self._start(attempt, spec) as session:
                logits = session.infer(given)
                again = logits
                if attempt.asks == "twice":
                    # The re-asked sample comes in other company.
                    again = session.infer(np.ascontiguousarray(given[:1]))
            if attempt.asks == "next":
                with self._start(attempt, spec) as session:
                    again = session.infer(given)
        except ModelFailed as failed:
            text = str(failed)
            if not text.replace("\n", "").isprintable() or len(text) > 10_000:
                return "unprintable", "its words can command a terminal"
            return failed.error_code, failed.message[:200].replace("\n", " ")
        except GasError as ours:
            return "ours", str(ours)
        if not np.array_equal(given, self._batch):
            return "changed", "the parent's batch was changed"
        return self._answered(attempt, logits, again)

    def _answered(self, attempt: Attempt, logits: Any, again: Any) -> tuple[str, str]:
        if not np.isfinite(logits).all():
            return "not_finite", "not every value is a number"
        if attempt.asks == "twice" and float(np.abs(logits[0] - again[0]).max()) > _REASK_TOLERANCE:
            return "flagged", "two answers for one sample"
        tells = attempt.code is not None and "_outcome" in str(attempt.code)
        if not tells:
            return "harmless", "it answered in the agreed form"
        if logits[0, 0] == 0:
            return "denied", "what it tried was refused"
        return ("harmless" if "harmless" in attempt.expected else "GOT THROUGH"), "what it tried succeeded"

    def _warm(self) -> None:
        """Have a process wait for the next model while this one runs."""
        if self._next is None:
            return
        self._next.prepare(Environment.of(self._spec_next, _LIMITS))
        deadline = time.monotonic() + _LIMITS.load_seconds
        while not self._next.ready and time.monotonic() < deadline:
            time.sleep(0.005)
        self._witness.forget()

    @property
    def _spec_next(self) -> ModelSpec:
        return ModelSpec(self._honest, "safetensors", "model.py", "model.safetensors", SHAPE, "uint8", 2)

    def _next_model(self) -> str:
        """Run an honest model; what is wrong with its answer, or nothing."""
        sandbox = self._next or self._light
        taken = self._next.taken if self._next else 0
        try:
            with in_place_of_torch(self._site), sandbox.start(self._spec_next, batch_size=3, limits=_LIMITS) as session:
                logits = session.infer(self._batch)
        except GasError as error:
            return f"the next model failed: {error}"
        if self._next and self._next.taken == taken:
            return "the process that waited for the next model did not outlive this one"
        flat = self._batch.reshape(3, -1)
        expected = np.stack([flat.mean(axis=1), flat.max(axis=1)], axis=1)
        return "" if np.allclose(logits, expected, rtol=1e-5) else "the next model answered wrong"


def shares(attempt: Attempt) -> bool:
    """Whether an attempt may share its process with others: denied while loading, and nothing is left of it."""
    return (
        attempt.expected == ("denied",)
        and attempt.group not in {"resources", "endings"}
        and attempt.asks == "once"
        and not (attempt.torch or attempt.limits or attempt.files)
        and '"load" == "load"' in str(attempt.code)
    )


def chosen(rung: str, names: Collection[str] = ()) -> list[Attempt]:
    """The attempts that a rung is asked for; all of them when no names are given."""
    found = []
    for attempt in ATTEMPTS.values():
        wanted = {CHECK: (True,), PLAIN: attempt.plain}.get(rung, attempt.expected)
        if wanted and (not names or attempt.name in names):
            found.append(attempt)
    return found


def run_on(
    rung: str,
    attempts: list[Attempt],
    tell: Callable[[Result], None],
    *,
    found: Probe | None = None,
    together: bool = False,
    spares: bool = False,
) -> None:
    """Run attempts on a rung, as whatever user it takes; the caller has asked :func:`here`."""
    if rung == CHECK:
        for attempt in attempts:
            tell(static_check(attempt))
    elif rung in {USER, OWN_USER} and os.geteuid() == 0:
        names = [attempt.name for attempt in attempts]
        shared = [attempt.name for attempt in attempts if shares(attempt)] if together else []
        order = Order(rung, somebody_else=True, spares=spares)
        run_as_another_user(order, units(names, shared), lambda told: tell(Result(**told)))
    else:
        with Worker(rung, found, spares=spares) as worker:
            worker.run_all(attempts, tell, together=together)
