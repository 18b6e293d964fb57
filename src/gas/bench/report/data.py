"""What a report shows, as plain values that whoever ran the round fills in.

Every text is untrusted until the template has escaped it: names of detectors, reasons, sources and captions may
come from strangers. Pictures are JPEG bytes of thumbnails (:func:`gas.bench.report.thumbnail`).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CalibrationBin",
    "DetectorRow",
    "DetectorScores",
    "Fact",
    "GeneratorRow",
    "Pay",
    "PhotoSource",
    "Picture",
    "ReportData",
    "SourceRate",
    "Split",
]


@dataclass(frozen=True, slots=True)
class Fact:
    """One key figure, or one line of the technical record.

    Attributes:
        label: What it is.
        value: The figure, already written out.
        note: A few words of context; may be empty.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One point of a reliability curve.

    Attributes:
        predicted: Mean p_fake of the bin, in [0, 1].
        observed: Share of fakes in the bin, in [0, 1].
        count: Samples in the bin.
    """

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, slots=True)
class SourceRate:
    """How often one detector was right on one source.

    Attributes:
        source: Package of photos, or generator.
        kind: ``"real"``, ``"synthetic"`` or ``"semisynthetic"``.
        correct: Right answers.
        count: Answers that count; at least 1.
    """

    source: str
    kind: str
    correct: int
    count: int

    @property
    def rate(self) -> float:
        """Share of right answers, in [0, 1]."""
        return self.correct / self.count


@dataclass(frozen=True, slots=True)
class DetectorScores:
    """Figures of one benchmark run. Scores are in [0, 1], MCC in [-1, 1]; None where there is no score.

    Attributes:
        sn34: The score that decides: base and robust pass combined.
        sn34_base: Score of the base pass.
        sn34_robust: Score after the sharing chain.
        ci95: Bootstrap 95 % interval of the base score, clustered by source.
        mcc: Matthews correlation of the decisions.
        brier: Mean squared error of p_fake; lower is better.
        accuracy: Share of right decisions.
        roc_auc: Area under the ROC curve.
        ece: Expected calibration error, 15 bins.
        count: Samples of the base pass that count.
        model_errors: Samples on which the model failed; they count as wrong.
        inconsistent: Samples that were answered differently when asked again.
        roc: Points (false positive rate, true positive rate), from (0, 0) to (1, 1).
        calibration: Reliability curve, empty bins left out.
        rates: Right answers for each source.
    """

    sn34: float | None
    sn34_base: float | None
    sn34_robust: float | None
    ci95: tuple[float, float] | None
    mcc: float | None
    brier: float | None
    accuracy: float | None
    roc_auc: float | None
    ece: float | None
    count: int
    model_errors: int = 0
    inconsistent: int = 0
    roc: tuple[tuple[float, float], ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()
    rates: tuple[SourceRate, ...] = ()


@dataclass(frozen=True, slots=True)
class DetectorRow:
    """One pushed detector.

    Attributes:
        name: The package's name.
        hotkey: Its author's address.
        state: Where the submission stands, e.g. ``scored`` or ``rejected``.
        reasons: Why it stands there, one sentence each; may be empty.
        format: ``onnx`` or ``safetensors``; empty when unknown.
        exam_accuracy: Accuracy of the entrance exam in [0, 1]; None when it did not sit it.
        scores: Figures of its benchmark run; None when it was not benchmarked.
        winner: Whether it takes the share of its modality.
    """

    name: str
    hotkey: str
    state: str
    reasons: tuple[str, ...] = ()
    format: str = ""
    exam_accuracy: float | None = None
    scores: DetectorScores | None = None
    winner: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """One thumbnail and what the detectors said about it.

    Attributes:
        jpeg: JPEG bytes.
        source: Package or generator it comes from.
        kind: ``"real"``, ``"synthetic"`` or ``"semisynthetic"``.
        p_fake: (detector, probability of fake) pairs.
        sample_id: Hex SHA-256 of the medium, where the page names it.
    """

    jpeg: bytes
    source: str
    kind: str
    p_fake: tuple[tuple[str, float], ...]
    sample_id: str = ""


@dataclass(frozen=True, slots=True)
class GeneratorRow:
    """One generator operator.

    Attributes:
        name: The miner's name.
        hotkey: Its address.
        pipeline: What it runs.
        verified: Media that passed verification.
        refused: (reason, count) of what was refused.
        fooled: Judgements of benchmarked detectors that took a medium of its for real.
        judged: Judgements in all.
        reward: The reward of scoring, without unit.
        parts: (what, figure) lines that the reward is made of.
    """

    name: str
    hotkey: str
    pipeline: str
    verified: int
    refused: tuple[tuple[str, int], ...]
    fooled: int
    judged: int
    reward: float
    parts: tuple[tuple[str, str], ...] = ()

    @property
    def fool_rate(self) -> float | None:
        """Share of judgements in [0, 1] that took its media for real; None when there was none."""
        return self.fooled / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class Pay:
    """What one uid was paid.

    Attributes:
        name: Whose it is.
        role: ``detector``, ``generator``, ``validator``, ``owner`` or ``burn``.
        uid: Place on the subnet.
        rao: Emission that arrived.
        why: One or two sentences.
    """

    name: str
    role: str
    uid: int | None
    rao: int
    why: str


@dataclass(frozen=True, slots=True)
class Split:
    """One part of the data.

    Attributes:
        name: E.g. ``training``, ``exam``, ``round: public``, ``round: holdout``.
        real: Real media.
        fake: Generated media.
        photos: Distinct photos that its media derive from.
        who: Who may see it.
    """

    name: str
    real: int
    fake: int
    photos: int
    who: str = ""


@dataclass(frozen=True, slots=True)
class PhotoSource:
    """One package of photos.

    Attributes:
        package: Name of the package.
        photos: Distinct photos taken from it.
        licence: Its licence, in the package's own words.
        note: Version or authors; may be empty.
    """

    package: str
    photos: int
    licence: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportData:
    """A whole round, ready to be shown.

    Attributes:
        title: Heading of the page.
        subtitle: One line below it: when, where, which round.
        summary: Paragraphs in plain words.
        facts: Key figures, four to six.
        detectors: Every pushed detector, in the order to show.
        fooled_most: Generated pictures that most detectors took for real, worst first.
        accused_most: Real pictures that detectors called fake, worst first.
        generators: Every generator operator.
        pay: Who was paid what, largest first.
        splits: Sizes of the parts of the data.
        photo_sources: Where the photos come from.
        technical: Seeds, versions, sandbox tier, hashes.
        next_steps: What to try next: (sentence, command or empty) pairs.
    """

    title: str
    subtitle: str
    summary: tuple[str, ...]
    facts: tuple[Fact, ...] = ()
    detectors: tuple[DetectorRow, ...] = ()
    fooled_most: tuple[Picture, ...] = ()
    accused_most: tuple[Picture, ...] = ()
    generators: tuple[GeneratorRow, ...] = ()
    pay: tuple[Pay, ...] = ()
    splits: tuple[Split, ...] = ()
    photo_sources: tuple[PhotoSource, ...] = ()
    technical: tuple[Fact, ...] = ()
    next_steps: tuple[tuple[str, str], ...] = ()
