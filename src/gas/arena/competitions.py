"""The competitions of an arena: what is run, on which data, under which rules, from one YAML file.

A competition is a modality in a vertical. Its rules stand in the file; what is left out is the default. Whoever owns
an arena edits the file and restarts the service: rules never change under a submission that is being run, because a
run keeps the round that it began in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import yaml

from gas.errors import ConfigurationError, RequestRefused
from gas.sandbox.base import DEFAULT_LIMITS, Limits, Tier
from gas.types import Modality, Vertical

__all__ = [
    "Competition",
    "Competitions",
    "RoundRules",
    "competitions_of",
    "default_competitions",
    "read_competitions",
]

_MAX_FILE_BYTES: Final = 256 * 1024
_VERTICALS: Final[Mapping[Modality, frozenset[Vertical]]] = {
    Modality.IMAGE: frozenset(Vertical),
    Modality.VIDEO: frozenset(Vertical),
    Modality.AUDIO: frozenset({Vertical.GENERAL}),
}


@dataclass(frozen=True, slots=True)
class RoundRules:
    """From which data a round, or its exam, is drawn.

    Attributes:
        mode: How much: ``debug``, ``small`` or ``full``.
        total: Samples at most; the mode's own number when None.
        include: Globs of names of data sets; empty means all.
        exclude: Globs of names of data sets to leave out.
        categories: Only media of these categories; empty means all.
        size: Side of pictures and frames, pixels, even.
        frames: Frames of a clip.
        seconds: Length of a sound.
        robustness: Samples of each data set that are asked again after the sharing chain.
    """

    mode: str = "full"
    total: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    size: int = 256
    frames: int = 24
    seconds: float = 2.0
    robustness: int = 20


@dataclass(frozen=True, slots=True)
class Competition:
    """One competition and its rules.

    Attributes:
        name: What people call it; unique in its arena.
        modality: What models look at.
        vertical: Specialisation; ``human`` for pictures and videos only.
        share: Part of the modality's pay, relative to the other competitions of the modality; at least 0.
        slots: Models that a hotkey may have in it at a time.
        pushes_per_round: Packages that a hotkey may have examined in a round: a limit to hill-climbing.
        min_tier: Weakest isolation that a run may have.
        exam_accuracy: Least accuracy of the entrance exam, in [0, 1].
        exam_seconds: Longest exam.
        exam_wait_seconds: How long a model that was pushed with others waits for their exams after its own.
        exam_distorted: Public media of each class that the exam shows again, distorted by each kind and strength, so
            that its author sees where the model is weak; no part of its verdict. 0 shows none.
        run_seconds: Longest full run.
        similarity_flag: Correlation with another hotkey's older answers from which the owner is shown the model.
        similarity_limit: Correlation above which it is blocked.
        weights_flag: Distance of its weights to another hotkey's below which the owner is shown the model, in [0, 1].
        weights_limit: Distance to an older model of another hotkey below which it is blocked; 0 blocks none, because
            models that were trained on from one public model are near each other by right.
        max_upload_bytes: Largest zip.
        limits: What one model process may use.
        round: Data of a round.
        exam: Data of the exam; public sets only.
    """

    name: str
    modality: Modality
    vertical: Vertical = Vertical.GENERAL
    share: float = 1.0
    slots: int = 3
    pushes_per_round: int = 10
    min_tier: Tier = Tier.NAMESPACES
    exam_accuracy: float = 0.8
    exam_seconds: float = 85 * 60
    exam_wait_seconds: float = 85 * 60
    exam_distorted: int = 12
    run_seconds: float = 5 * 3600
    similarity_flag: float = 0.99
    similarity_limit: float = 0.999
    weights_flag: float = 0.1
    weights_limit: float = 0.0
    max_upload_bytes: int = 2 * 2**30
    limits: Limits = DEFAULT_LIMITS
    round: RoundRules = RoundRules()
    exam: RoundRules = RoundRules(mode="small", robustness=0)

    @property
    def weights_within(self) -> float:
        """Distance of weights below which anything is done."""
        return max(self.weights_flag, self.weights_limit)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, for people who ask which rules hold."""
        return {
            "name": self.name,
            "modality": self.modality.value,
            "vertical": self.vertical.value,
            "share": self.share,
            "slots": self.slots,
            "pushes_per_round": self.pushes_per_round,
            "min_tier": self.min_tier.name.lower(),
            "exam_accuracy": self.exam_accuracy,
            "exam_seconds": self.exam_seconds,
            "exam_wait_seconds": self.exam_wait_seconds,
            "exam_distorted": self.exam_distorted,
            "run_seconds": self.run_seconds,
            "similarity_flag": self.similarity_flag,
            "similarity_limit": self.similarity_limit,
            "weights_flag": self.weights_flag,
            "weights_limit": self.weights_limit,
            "max_upload_bytes": self.max_upload_bytes,
            "limits": _plain(self.limits),
            "round": _plain(self.round),
            "exam": _plain(self.exam),
        }


@dataclass(frozen=True, slots=True)
class Competitions:
    """All competitions of an arena.

    Attributes:
        all: In the order of the file.

    Raises:
        ConfigurationError: ``competitions``: a name or a pair of modality and vertical appears twice.
    """

    all: tuple[Competition, ...]
    _by_pair: Mapping[tuple[Modality, Vertical], Competition] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        by_pair: dict[tuple[Modality, Vertical], Competition] = {}
        names: set[str] = set()
        for one in self.all:
            if one.name in names or (one.modality, one.vertical) in by_pair:
                raise _wrong(f"{one.name}: there are two competitions of that name, or of that modality and vertical.")
            names.add(one.name)
            by_pair[one.modality, one.vertical] = one
        object.__setattr__(self, "_by_pair", by_pair)

    def of(self, modality: Modality, vertical: Vertical) -> Competition:
        """The competition of a modality and a vertical.

        Raises:
            RequestRefused: 422 ``no_competition``; says what there is.
        """
        found = self._by_pair.get((modality, vertical))
        if found is None:
            offered = ", ".join(f"{c.modality} ({c.vertical})" for c in self.all)
            raise RequestRefused(
                f"This arena has no competition for {modality} in the vertical {vertical}.",
                status=422,
                code="no_competition",
                hint=f"It has: {offered}.",
            )
        return found

    def named(self, name: str) -> Competition:
        """The competition of a name.

        Raises:
            ConfigurationError: ``unknown_competition``; says which there are.
        """
        found = next((one for one in self.all if one.name == name), None)
        if found is None:
            raise ConfigurationError(
                f"There is no competition {name[:80]!r}.",
                code="unknown_competition",
                hint=f"There are: {', '.join(one.name for one in self.all)}.",
            )
        return found

    def shares(self, modality: Modality) -> dict[Vertical, float]:
        """Part of each vertical in the pay of a modality, summing to 1; empty when none has a share."""
        parts = {c.vertical: c.share for c in self.all if c.modality is modality and c.share > 0}
        total = math.fsum(parts.values())
        return {vertical: part / total for vertical, part in parts.items()}


def default_competitions(base: Competition | None = None) -> Competitions:
    """One competition for each modality and vertical; only the general ones are paid.

    Args:
        base: Rules for all of them; the defaults when left out.
    """
    rules = base or Competition("default", Modality.IMAGE)
    made = []
    for modality in Modality:
        for vertical in Vertical:
            if vertical in _VERTICALS[modality]:
                general = vertical is Vertical.GENERAL
                name = modality.value if general else f"{modality}-{vertical}"
                share = 1.0 if general else 0.0
                made.append(replace(rules, name=name, modality=modality, vertical=vertical, share=share))
    return Competitions(tuple(made))


def read_competitions(path: Path) -> Competitions:
    """Read the competitions of a YAML file.

    ::

        competitions:
          - name: faces
            modality: image
            vertical: human
            share: 0.25
            slots: 2
            min_tier: bubblewrap
            exam: {accuracy: 0.75, minutes: 30, total: 200}
            run: {hours: 2}
            round: {mode: full, include: ["faces-*"]}
            limits: {memory_mib: 4096, batch_seconds: 30}

    Raises:
        ConfigurationError: ``competitions``: the file is missing, too large, no YAML, or has a key or a value that
            isn't known; the message names the competition and the key.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _wrong(f"{path} can't be read ({error.strerror}).") from error
    if len(text) > _MAX_FILE_BYTES:
        raise _wrong(f"{path} is larger than {_MAX_FILE_BYTES} bytes.")
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _wrong(f"{path} is no YAML.") from error
    rows = tree.get("competitions") if isinstance(tree, dict) and set(tree) == {"competitions"} else None
    if not isinstance(rows, list) or not rows:
        raise _wrong(f"{path} must hold one list, `competitions`, with at least one entry.")
    return Competitions(tuple(_competition(row, number) for number, row in enumerate(rows, 1)))


def competitions_of(home: Path, file: Path | None = None) -> Competitions | None:
    """The competitions of a file, or of the home's own ``competitions.yaml``; None when there is neither.

    Raises:
        ConfigurationError: As :func:`read_competitions`.
    """
    own = home / "competitions.yaml"
    if file is None and not own.exists():
        return None
    return read_competitions(file or own)


def _competition(row: object, number: int) -> Competition:
    table = _Table(row, f"Competition {number}")
    name = table.text("name")
    table.where = f"Competition {name}"
    modality = _member(Modality, table, "modality")
    vertical = _member(Vertical, table, "vertical", Vertical.GENERAL)
    if vertical not in _VERTICALS[modality]:
        raise _wrong(f"{table.where}: there is no vertical {vertical} for {modality}.")
    exam, run, limits, plan = (table.part(part) for part in ("exam", "run", "limits", "round"))
    tier = table.text("min_tier", "namespaces").upper()
    if tier not in Tier.__members__:
        raise _wrong(f"{table.where}: min_tier is one of {', '.join(t.name.lower() for t in Tier)}.")
    base = Competition(name, modality)
    made = Competition(
        name=name,
        modality=modality,
        vertical=vertical,
        share=table.number("share", base.share, 0.0),
        slots=table.integer("slots", base.slots),
        pushes_per_round=table.integer("pushes_per_round", base.pushes_per_round),
        min_tier=Tier[tier],
        exam_accuracy=exam.number("accuracy", base.exam_accuracy, 0.0, 1.0),
        exam_seconds=60 * exam.number("minutes", base.exam_seconds / 60, 0.01),
        exam_wait_seconds=60 * exam.number("wait_minutes", base.exam_wait_seconds / 60, 0.0),
        exam_distorted=exam.integer("distorted", base.exam_distorted, 0),
        run_seconds=3600 * run.number("hours", base.run_seconds / 3600, 0.001),
        similarity_flag=table.number("similarity_flag", base.similarity_flag, 0.0, 1.0),
        similarity_limit=table.number("similarity_limit", base.similarity_limit, 0.0, 1.0),
        weights_flag=table.number("weights_flag", base.weights_flag, 0.0, 1.0),
        weights_limit=table.number("weights_limit", base.weights_limit, 0.0, 1.0),
        max_upload_bytes=table.integer("max_upload_mib", base.max_upload_bytes // 2**20) * 2**20,
        limits=_limits(limits),
        round=_round_rules(plan, base.round),
        exam=_round_rules(exam, base.exam),
    )
    for part in (table, exam, run, limits, plan):
        part.refuse_unknown()
    return made


def _limits(table: _Table) -> Limits:
    base = Limits()
    return replace(
        base,
        memory_bytes=table.integer("memory_mib", base.memory_bytes // 2**20) * 2**20,
        processes=table.integer("processes", base.processes),
        tmp_bytes=table.integer("tmp_mib", base.tmp_bytes // 2**20) * 2**20,
        load_seconds=table.number("load_seconds", base.load_seconds, 0.1),
        batch_seconds=table.number("batch_seconds", base.batch_seconds, 0.1),
    )


def _round_rules(table: _Table, base: RoundRules) -> RoundRules:
    mode = table.text("mode", base.mode)
    if mode not in ("debug", "small", "full"):
        raise _wrong(f"{table.where}: mode is debug, small or full.")
    size = table.integer("size", base.size, 32)
    return RoundRules(
        mode=mode,
        total=table.integer("total", 0, 0) or None,
        include=table.texts("include"),
        exclude=table.texts("exclude"),
        categories=table.texts("categories"),
        size=size - size % 2,
        frames=table.integer("frames", base.frames),
        seconds=table.number("seconds", base.seconds, 0.1),
        robustness=table.integer("robustness", base.robustness, 0),
    )


class _Table:
    """One mapping of the file, whose keys are taken one by one; what nobody took is refused."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _wrong(f"{where} must be a mapping.")
        self.where = where
        self._left: dict[str, Any] = dict(value)
        self._taken: set[str] = set()

    def part(self, name: str) -> _Table:
        return _Table(self._take(name, {}), f"{self.where}, {name}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self._take(name, default)
        if not isinstance(value, str) or not 0 < len(value) <= 200:
            raise _wrong(f"{self.where}: {name} must be a text of 1 to 200 characters.")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._take(name, [])
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) for v in value):
            raise _wrong(f"{self.where}: {name} must be a list of texts.")
        return tuple(value)

    def number(self, name: str, default: float, least: float, most: float = math.inf) -> float:
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            bounds = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
            raise _wrong(f"{self.where}: {name} must be a number {bounds}.")
        return float(value)

    def integer(self, name: str, default: int, least: int = 1) -> int:
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise _wrong(f"{self.where}: {name} must be a whole number of at least {least}.")
        return value

    def refuse_unknown(self) -> None:
        """Refuse what no one asked for: a rule with a spelling mistake must not be silently the default."""
        unknown = sorted(set(self._left) - self._taken)
        if unknown:
            known = ", ".join(sorted(self._taken))
            raise _wrong(f"{self.where}: there is no key {unknown[0][:80]!r}; there are {known}.")

    def _take(self, name: str, default: object) -> Any:
        self._taken.add(name)
        return self._left.get(name, default)


def _member(kind: Any, table: _Table, name: str, default: Any = None) -> Any:
    value = table.text(name, default)
    try:
        return kind(value)
    except ValueError:
        raise _wrong(f"{table.where}: {name} is one of {', '.join(kind)}, not {value[:80]!r}.") from None


def _plain(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _wrong(message: str) -> ConfigurationError:
    return ConfigurationError(
        message, code="competitions", hint="docs/arena-owner.md shows a complete file; `gascli arena competitions`."
    )
