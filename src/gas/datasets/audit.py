"""The audit of a round's data: can real and fake be told apart without looking at the picture?

A small classifier is trained on what a decoder sees beside the pixels or the samples: container, codec, size, aspect
ratio, quantisation tables, rates, bit depth, length, key frames, metadata. Its cross-validated balanced accuracy
should be that of a coin. The length of the file is *not* among the features: at equal tables it measures the
picture's content.

:mod:`~gas.datasets.audit_image`, :mod:`~gas.datasets.audit_video` and :mod:`~gas.datasets.audit_audio` read the
features, :mod:`~gas.datasets.audit_classifier` judges them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.datasets.audit_audio import AUDIO_FEATURES, audio_features
from gas.datasets.audit_classifier import cross_validate
from gas.datasets.audit_image import IMAGE_FEATURES, image_features
from gas.datasets.audit_video import VIDEO_FEATURES, video_features
from gas.errors import ConfigurationError, MediaRejected
from gas.media.image import sniff_mime
from gas.types import Modality, Sample

__all__ = [
    "FEATURES",
    "FEATURES_OF",
    "LIMIT",
    "MIN_MEDIA",
    "MOST_MEDIA",
    "AuditResult",
    "audit_features",
    "audit_pair",
    "audit_round",
    "modality_of",
    "side_features",
]

LIMIT: Final = 0.55
"""Highest balanced accuracy that a normalised round may show (submissions.md, section 6)."""

FEATURES: Final = IMAGE_FEATURES
"""Names of the side features of a picture."""

FEATURES_OF: Final[Mapping[Modality, tuple[str, ...]]] = MappingProxyType(
    {Modality.IMAGE: IMAGE_FEATURES, Modality.VIDEO: VIDEO_FEATURES, Modality.AUDIO: AUDIO_FEATURES}
)
"""Names of the side features of each modality, in the order of :func:`side_features`."""

MIN_MEDIA: Final = 10
"""Of each class; with fewer the audit says nothing."""

MOST_MEDIA: Final = 2000
"""Of each class of a pair; of more the audit looks at the first ones by id, which is no order of anything else."""

_REPEATS: Final = 4
_READERS: Final[Mapping[Modality, Callable[[bytes], NDArray[np.float64]]]] = MappingProxyType(
    {Modality.IMAGE: image_features, Modality.VIDEO: video_features, Modality.AUDIO: audio_features}
)


@dataclass(frozen=True, slots=True)
class AuditResult:
    """How well side features alone tell real from fake.

    Attributes:
        balanced_accuracy: Cross-validated, 0..1; .5 is a coin. Where parameters are dealt out evenly, not
            drawn, it lies below: the fold that is left out lacks just what the others have more of. That is no
            leak, since nobody sees the labels of the others.
        low: Lower end of its 95 % interval (normal approximation).
        high: Upper end.
        real: Number of real media.
        fake: Number of fake media.
        telling: The single features that tell most, with the balanced accuracy that each reaches alone.
    """

    balanced_accuracy: float
    low: float
    high: float
    real: int
    fake: int
    telling: tuple[tuple[str, float], ...]

    @property
    def passes(self) -> bool:
        """Whether the pair keeps within :data:`LIMIT`."""
        return self.balanced_accuracy <= LIMIT


def modality_of(data: bytes) -> Modality:
    """Modality of a medium by its first bytes; an MP4 or WebM counts as video.

    Raises:
        MediaRejected: ``unsupported``.
    """
    kind = (sniff_mime(data) or "").partition("/")[0]
    if kind not in ("image", "video", "audio"):
        raise MediaRejected("The medium is of no known type.", code="unsupported")
    return Modality(kind)


def side_features(data: bytes, modality: Modality | None = None) -> NDArray[np.float64]:
    """What a decoder sees of a medium beside its pixels or samples.

    Args:
        data: An encoded medium.
        modality: How to read it; by its first bytes when left out.

    Returns:
        float64, one value for each of the modality's names in :data:`FEATURES_OF`.

    Raises:
        MediaRejected: Not such a medium.
    """
    return _READERS[modality or modality_of(data)](data)


def audit_pair(
    real: Sequence[bytes],
    fake: Sequence[bytes],
    *,
    modality: Modality | None = None,
    real_groups: Sequence[str] | None = None,
    fake_groups: Sequence[str] | None = None,
    seed: int = 0,
) -> AuditResult:
    """Train the tiny classifier on one pair of sets of encoded media and cross-validate it.

    Args:
        real: Encoded real media.
        fake: Encoded fake media.
        modality: Of all; that of the first medium when left out.
        real_groups: Origin of each real medium; media of one origin share a fold. Each its own when left out.
        fake_groups: Origin of each fake medium.
        seed: Of the folds.

    Raises:
        ConfigurationError: Fewer than ten media in a class.
        MediaRejected: A medium is none of the modality.
    """
    _check_counts(real, fake)
    chosen = modality or modality_of(real[0])
    x_real, x_fake = (np.stack([side_features(data, chosen) for data in side]) for side in (real, fake))
    return audit_features(x_real, x_fake, chosen, real_groups=real_groups, fake_groups=fake_groups, seed=seed)


def audit_features(
    real: NDArray[np.float64],
    fake: NDArray[np.float64],
    modality: Modality,
    *,
    real_groups: Sequence[str] | None = None,
    fake_groups: Sequence[str] | None = None,
    seed: int = 0,
) -> AuditResult:
    """As :func:`audit_pair`, of features that have been read already.

    Args:
        real: float64 (n, k), a row of :func:`side_features` for each real medium.
        fake: float64 (m, k).
        modality: Names the features.
        real_groups: Origin of each real medium.
        fake_groups: Origin of each fake medium.
        seed: Of the folds.

    Raises:
        ConfigurationError: Fewer than ten media in a class (``too_few``).
    """
    _check_counts(real, fake)
    x = np.concatenate([real, fake])
    y = np.array([0.0] * len(real) + [1.0] * len(fake))
    groups = [
        *(real_groups or [f"real-{i}" for i in range(len(real))]),
        *(fake_groups or [f"fake-{i}" for i in range(len(fake))]),
    ]
    score = cross_validate(x, y, groups, seed, _REPEATS)
    alone = [
        (name, cross_validate(x[:, [column]], y, groups, seed, 1))
        for column, name in enumerate(FEATURES_OF[modality])
        if np.ptp(x[:, column]) > 0
    ]
    telling = sorted((pair for pair in alone if pair[1] > LIMIT), key=lambda pair: -pair[1])[:5]
    # Variance of the mean of two independent rates.
    spread = 1.96 * 0.5 * math.sqrt(score * (1 - score) * (1 / len(real) + 1 / len(fake)))
    return AuditResult(score, max(0.0, score - spread), min(1.0, score + spread), len(real), len(fake), tuple(telling))


def audit_round(
    samples: Iterable[Sample],
    get: Callable[[str], bytes],
    seed: int = 0,
    *,
    most: int = MOST_MEDIA,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, AuditResult | None]:
    """Audit every pair of a round: of each modality, all its real media against each data set of fake ones.

    Media are fetched one at a time; of each only its features are kept.

    Args:
        samples: Of the round or of a plan, of one modality or several; a medium that can't be read is left aside.
        get: Fetches a medium by its sample id, e.g. ``blobs.get``.
        seed: Of the folds.
        most: Media of each class of a pair that are looked at.
        on_progress: Told the step, how many media are done and how many there are.

    Returns:
        By data set of the fake media (followed by the modality where a data set has several); None where a class
        has fewer than ten media.
    """
    sides: dict[tuple[Modality, str], list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: s.sample_id):
        side = sides[sample.modality, sample.dataset if sample.media_type.is_fake else ""]
        if len(side) < most:
            side.append(sample)
    total, done = sum(map(len, sides.values())), 0
    read: dict[tuple[Modality, str], tuple[list[NDArray[np.float64]], list[str]]] = {}
    for key, members in sides.items():
        rows, origins = read.setdefault(key, ([], []))
        for sample in members:
            try:
                rows.append(side_features(get(sample.sample_id), sample.modality))
                origins.append(sample.origin)
            except MediaRejected:
                pass
            done += 1
            if on_progress:
                on_progress("reading headers", done, total)
    pairs = sorted(((name, modality) for modality, name in sides if name), key=lambda pair: (pair[0], pair[1].value))
    named_twice = {name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1}
    results: dict[str, AuditResult | None] = {}
    for name, modality in pairs:
        (real, real_origins), (fake, fake_origins) = read.get((modality, ""), ([], [])), read[modality, name]
        label = f"{name} ({modality})" if name in named_twice else name
        results[label] = (
            audit_features(
                np.stack(real),
                np.stack(fake),
                modality,
                real_groups=real_origins,
                fake_groups=fake_origins,
                seed=seed,
            )
            if min(len(real), len(fake)) >= MIN_MEDIA
            else None
        )
    return results


def _check_counts(real: Sequence[object] | NDArray[np.float64], fake: Sequence[object] | NDArray[np.float64]) -> None:
    if min(len(real), len(fake)) < MIN_MEDIA:
        raise ConfigurationError(f"An audit needs at least {MIN_MEDIA} media of each class.", code="too_few")
