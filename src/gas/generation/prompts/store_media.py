"""The real media of a home's data sets, to be described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gas.datasets.store import open_store
from gas.errors import ConfigurationError, MediaRejected
from gas.generation.prompts.describe import RealMedium
from gas.media.image import decode_image
from gas.media.video import decode_video
from gas.types import MediaType, Modality

__all__ = ["media_of_store"]


def media_of_store(home: Path, most: int) -> Iterator[RealMedium]:
    """Real pictures, and first frames of real clips, of every data set that is here.

    Args:
        home: Whose data store it is.
        most: Of each set at most so many, at equal steps.

    Raises:
        ConfigurationError: ``no_media``: no set with real pictures or clips has been fetched.
        gas.errors.StorageError: A blob is missing or damaged.
    """
    store = open_store(home)
    there = False
    for name in store.names():
        real = [
            item
            for item in store.items(name)
            if item.media_type is MediaType.REAL and item.modality is not Modality.AUDIO
        ]
        there = there or bool(real)
        for item in real[:: max(1, -(-len(real) // most))]:
            data = store.read(item)
            try:
                rgb = decode_image(data) if item.modality is Modality.IMAGE else decode_video(data, 1)[0]
            except MediaRejected:
                continue
            yield RealMedium(rgb, item.path, item.category)
    if not there:
        raise ConfigurationError(
            "No data set with real pictures or clips is here.", code="no_media", hint="gascli data fetch brings some."
        )
