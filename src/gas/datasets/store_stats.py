"""What a data set is made of: counts by class, form and length, for people and for plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Histogram", "SetStats", "class_warnings", "set_stats"]

_COUNTED: Final = ("media_type", "modality", "generator", "category", "licence", "mime", "codec", "dataset")
_BINS: Final = 12


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges; ``edges`` has one more than ``counts``; values on the last edge count."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def as_dict(self) -> dict[str, list[float] | list[int]]:
        """JSON form."""
        return {"edges": list(self.edges), "counts": list(self.counts)}


@dataclass(frozen=True, slots=True)
class SetStats:
    """What a data set is made of.

    Attributes:
        items: Media.
        bytes: Of all media.
        counts: By ``media_type``, ``modality``, ``generator``, ``category``, ``licence``, ``mime``, ``codec`` and
            ``dataset``: value -> media, most first. Empty values are left out.
        sizes: Bytes a medium.
        sides: Shorter side of pictures and frames, pixels; None where there are none.
        aspects: Width by height; None where there are none.
        lengths: Seconds; None where nothing has a length.
        rates: Hz or frames a second -> media, most first.
        masks: Media with a mask.
        origins: Media that derive from no other.
        rejected: Media set aside, by the code of the reason.
    """

    items: int
    bytes: int
    counts: Mapping[str, Mapping[str, int]]
    sizes: Histogram | None
    sides: Histogram | None
    aspects: Histogram | None
    lengths: Histogram | None
    rates: Mapping[str, int]
    masks: int
    origins: int
    rejected: Mapping[str, int]

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "items": self.items,
            "bytes": self.bytes,
            "counts": {name: dict(values) for name, values in self.counts.items()},
            "histograms": {
                name: found.as_dict()
                for name in ("sizes", "sides", "aspects", "lengths")
                if (found := getattr(self, name)) is not None
            },
            "rates": dict(self.rates),
            "masks": self.masks,
            "origins": self.origins,
            "rejected": dict(self.rejected),
        }


def set_stats(table: pa.Table, rejected: Iterable[str] = ()) -> SetStats:
    """Count a table of :func:`gas.datasets.items.item_schema`.

    Args:
        table: Of one set or of several.
        rejected: Code of each medium that was set aside.
    """
    import pyarrow.compute as pc

    width, height = _numbers(table, "width"), _numbers(table, "height")
    pictured = np.isfinite(width) & np.isfinite(height) & (height > 0)
    sizes = _numbers(table, "size")
    rates = Counter(f"{rate:g}" for rate in _numbers(table, "rate") if np.isfinite(rate))
    return SetStats(
        items=table.num_rows,
        bytes=int(sizes.sum()) if len(sizes) else 0,
        counts={name: _counts(table, name) for name in _COUNTED},
        sizes=_histogram(sizes, logarithmic=True),
        sides=_histogram(np.minimum(width, height)[pictured], logarithmic=False),
        aspects=_histogram((width[pictured] / height[pictured]), logarithmic=False),
        lengths=_histogram(_numbers(table, "seconds"), logarithmic=False),
        rates=dict(rates.most_common()),
        masks=table.num_rows - table.column("mask_sha256").null_count,
        origins=int(pc.sum(pc.equal(table.column("sha256"), table.column("origin"))).as_py() or 0),
        rejected=dict(Counter(rejected).most_common()),
    )


def class_warnings(sets: Iterable[SetStats]) -> list[str]:
    """A sentence for each modality of which there are no real or no fake media: nothing can be told apart then."""
    kinds: dict[str, set[str]] = {}
    for stats in sets:
        for modality in stats.counts["modality"]:
            kinds.setdefault(modality, set()).update(stats.counts["media_type"])
    out = []
    for modality, found in sorted(kinds.items()):
        if found == {"real"}:
            out.append(f"All media of {modality} are real: a round needs fake ones too.")
        elif "real" not in found:
            out.append(f"All media of {modality} are fake: a round needs real ones too.")
    return out


def _numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64, NaN where there is nothing."""
    import pyarrow as pa

    values: NDArray[np.float64] = table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float64)


def _counts(table: pa.Table, name: str) -> dict[str, int]:
    found = table.column(name).value_counts().to_pylist()
    return {
        row["values"]: row["counts"]
        for row in sorted(found, key=lambda row: (-row["counts"], str(row["values"])))
        if row["values"]
    }


def _histogram(values: NDArray[np.float64], *, logarithmic: bool) -> Histogram | None:
    good = values[np.isfinite(values)]
    if not len(good):
        return None
    low, high = float(good.min()), float(good.max())
    if low == high:
        return Histogram((low, high), (len(good),))
    if logarithmic and low > 0:
        edges: Sequence[float] = np.geomspace(low, high, _BINS + 1).tolist()
    else:
        edges = np.linspace(low, high, _BINS + 1).tolist()
    # Rounding may leave the ends outside by a bit.
    edges = [low, *edges[1:-1], high]
    counts, _ = np.histogram(good, bins=edges)
    return Histogram(tuple(edges), tuple(int(count) for count in counts))
