"""The child of :mod:`gas.verification.examiner`: ``python -m gas.verification.examiner_child``.

It is :mod:`gas.media.guard_child` with two more answers: all measures of a medium, and its content credentials.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gas.media import guard_child
from gas.media.jpeg import Scratch
from gas.media.limits import MediaLimits
from gas.types import Modality
from gas.verification.decoding import MediumDecoder
from gas.verification.examiner import packed
from gas.verification.provenance import TrustList

__all__ = ["answers"]


def answers(limits: MediaLimits, first: dict[str, Any]) -> dict[str, guard_child.Answers]:
    """What this child answers to beside decoding.

    Args:
        limits: What a medium may cost.
        first: What its parent sent first: ``anchors``, certificates in PEM.
    """
    trust, decoder = TrustList(str(first["anchors"]).encode()), MediumDecoder(limits, Scratch())
    return {
        "examine": lambda data, modality, **wish: packed(decoder.decode(data, Modality(modality), **wish)),
        "check_provenance": lambda data, mime: ([], asdict(trust.check(data, mime))),
    }


if __name__ == "__main__":
    guard_child.serve(answers)
