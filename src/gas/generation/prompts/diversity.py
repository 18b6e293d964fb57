"""How varied a set of prompts is, in numbers."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.generation.prompts.compose import BANDS
from gas.generation.prompts.neighbours import nearest_of_each
from gas.generation.prompts.terms import REGISTERS
from gas.types import Modality

__all__ = ["Diversity", "ReportedPrompt", "diversity_of"]

_WORD: Final = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_BINS: Final = 20
_PAIRS: Final = 10
_BLEU_SAMPLE: Final = 500
_GRAM: Final = 4
_OPENING: Final = 3


@dataclass(frozen=True, slots=True)
class ReportedPrompt:
    """A prompt as the report looks at it; all but the text are plain words."""

    text: str
    modality: str
    register: str
    length: str
    source: str


@dataclass(frozen=True, slots=True)
class Diversity:
    """What the report says.

    Attributes:
        count: Prompts.
        by_modality: Count by modality; likewise by register, length band and source.
        words: All words.
        vocabulary: Different words.
        type_token_ratio: Vocabulary by words, in (0, 1]; falls as a set grows.
        mean_words: A prompt has on average.
        distinct: By n from 1 to 4 the share of different n-grams among all, in (0, 1] (Li et al., 2016).
        self_bleu: Mean BLEU-4 (smoothed, without brevity penalty) of up to 500 prompts against all others of their
            modality, in [0, 1]; 1 when each is made of pieces of others (Zhu et al., 2018).
        mean_similarity: Mean cosine of all pairs of a modality.
        mean_nearest: Mean cosine of each prompt to its nearest other of its modality.
        nearest_histogram: Count of those cosines in 20 steps of 0.05 over [0, 1]; below 0 counts as 0.
        threshold: Cosine from which on two prompts are near repeats.
        near_repeats: Prompts whose nearest other is that near.
        nearest_pairs: The 10 nearest pairs: cosine and both texts.
        same_opening: Largest share of prompts that begin with the same three words, and which these are.
        cells: Combinations of modality, register and length band that hold a prompt, of those that are composed.
        possible_cells: Those that there are for the modalities at hand.
        register_evenness: Entropy of the registers by the largest possible one, in [0, 1]; mean over modalities.
        embedder: Who measured the cosines.
    """

    count: int
    by_modality: dict[str, int]
    by_register: dict[str, int]
    by_length: dict[str, int]
    by_source: dict[str, int]
    words: int
    vocabulary: int
    type_token_ratio: float
    mean_words: float
    distinct: dict[str, float]
    self_bleu: float
    mean_similarity: float
    mean_nearest: float
    nearest_histogram: list[int]
    threshold: float
    near_repeats: int
    nearest_pairs: list[dict[str, object]]
    same_opening: dict[str, object]
    cells: int
    possible_cells: int
    register_evenness: float
    embedder: str

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return asdict(self)


def diversity_of(
    prompts: Sequence[ReportedPrompt], vectors: NDArray[np.float32], threshold: float, embedder: str
) -> Diversity:
    """Measure a set of prompts; nothing is drawn, so the same set gives the same figures.

    Args:
        prompts: At least one; some 20,000 at most, since all pairs are compared.
        vectors: float32, (number of prompts, 384), unit vectors.
        threshold: Of near repeats, a cosine.
        embedder: Its name.
    """
    tokens = [_WORD.findall(prompt.text.lower()) for prompt in prompts]
    words = sum(map(len, tokens))
    vocabulary = len({word for row in tokens for word in row})
    groups: dict[str, list[int]] = defaultdict(list)
    for at, prompt in enumerate(prompts):
        groups[prompt.modality].append(at)
    best, twin, similarity = _nearest(groups, vectors)
    histogram = np.bincount(np.clip((best * _BINS).astype(int), 0, _BINS - 1), minlength=_BINS)
    count = len(prompts)
    openings = Counter(" ".join(row[:_OPENING]) for row in tokens)
    opening, most = openings.most_common(1)[0]
    kinds = {
        (name, register.value, band.value)
        for name in groups
        for register in REGISTERS[Modality(name)]
        for band in BANDS
    }
    there = {(prompt.modality, prompt.register, prompt.length) for prompt in prompts} & kinds
    return Diversity(
        count=count,
        by_modality=_counts(prompt.modality for prompt in prompts),
        by_register=_counts(prompt.register for prompt in prompts),
        by_length=_counts(prompt.length for prompt in prompts),
        by_source=_counts(prompt.source for prompt in prompts),
        words=words,
        vocabulary=vocabulary,
        type_token_ratio=_share(vocabulary, words),
        mean_words=words / count,
        distinct={str(n): _distinct(tokens, n) for n in range(1, _GRAM + 1)},
        self_bleu=_self_bleu(tokens, groups),
        mean_similarity=similarity,
        mean_nearest=float(best.mean()),
        nearest_histogram=[int(value) for value in histogram],
        threshold=threshold,
        near_repeats=int((best >= threshold).sum()),
        nearest_pairs=_pairs(prompts, best, twin),
        same_opening={"words": opening, "share": most / count},
        cells=len(there),
        possible_cells=len(kinds),
        register_evenness=float(np.mean([_evenness(prompts, name, rows) for name, rows in groups.items()])),
        embedder=embedder,
    )


def _nearest(
    groups: Mapping[str, list[int]], vectors: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64], float]:
    best = np.full(len(vectors), -1, np.float32)
    twin = np.full(len(vectors), -1, np.int64)
    total = pairs = 0.0
    for rows in groups.values():
        at = np.array(rows)
        near, who, mean = nearest_of_each(vectors[at])
        best[at] = near
        twin[at] = np.where(who >= 0, at[who], -1)
        weight = len(rows) * (len(rows) - 1)
        total, pairs = total + mean * weight, pairs + weight
    return best, twin, total / pairs if pairs else 0.0


def _counts(values: Iterable[str]) -> dict[str, int]:
    found = Counter(values)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _grams(row: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(row[at : at + n]) for at in range(len(row) - n + 1)]


def _distinct(tokens: Sequence[Sequence[str]], n: int) -> float:
    grams = [gram for row in tokens for gram in _grams(row, n)]
    return _share(len(set(grams)), len(grams))


def _self_bleu(tokens: Sequence[Sequence[str]], groups: Mapping[str, list[int]]) -> float:
    scores = []
    for rows in groups.values():
        if len(rows) < 2:
            continue
        # For each n-gram its two largest counts in one prompt: the largest among all others follows at once.
        top: dict[tuple[str, ...], tuple[int, int]] = {}
        counts = {at: [Counter(_grams(tokens[at], n)) for n in range(1, _GRAM + 1)] for at in rows}
        for per_n in counts.values():
            for counter in per_n:
                for gram, value in counter.items():
                    first, second = top.get(gram, (0, 0))
                    top[gram] = (value, first) if value > first else (first, max(second, value))
        step = max(1, len(rows) * len(groups) // _BLEU_SAMPLE)
        scores += [_bleu(counts[at], top) for at in rows[::step]]
    return float(np.mean(scores)) if scores else 0.0


def _bleu(counts: Sequence[Counter[tuple[str, ...]]], top: Mapping[tuple[str, ...], tuple[int, int]]) -> float:
    logs = []
    for counter in counts:
        total = counter.total()
        if not total:
            continue
        matched = 0
        for gram, value in counter.items():
            first, second = top[gram]
            matched += min(value, second if value == first else first)
        # An n-gram size without a match counts as a tenth of one (smoothing 1 of Chen and Cherry, 2014).
        logs.append(math.log(max(matched, 0.1) / total))
    return math.exp(sum(logs) / len(logs)) if logs else 0.0


def _pairs(
    prompts: Sequence[ReportedPrompt], best: NDArray[np.float32], twin: NDArray[np.int64]
) -> list[dict[str, object]]:
    found: dict[tuple[int, int], float] = {}
    for at in np.argsort(-best, kind="stable"):
        one, two = sorted((int(at), int(twin[at])))
        if one >= 0:
            found.setdefault((one, two), float(best[at]))
        if len(found) == _PAIRS:
            break
    return [
        {"similarity": round(value, 4), "one": prompts[one].text, "other": prompts[two].text}
        for (one, two), value in found.items()
    ]


def _evenness(prompts: Sequence[ReportedPrompt], modality: str, rows: Sequence[int]) -> float:
    counts = Counter(prompts[at].register for at in rows)
    shares = [count / len(rows) for count in counts.values()]
    possible = math.log(max(2, len(REGISTERS[Modality(modality)])))
    return min(1.0, -sum(share * math.log(share) for share in shares) / possible)
