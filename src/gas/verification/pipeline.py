"""The judgement of one delivered medium: every reason against it, not only the first.

Codes, in the order of the steps: ``stale``, ``too_large``, ``wrong_modality``; ``undecodable``, ``too_slow``,
``too_much_memory``, ``decoder_crashed``; ``upscaled``, ``wrong_duration``; ``wrong_size``, ``not_changed``,
``changed_outside`` of a picture that was sent along; ``no_provenance``,
``untrusted_provenance``, ``unreadable_provenance``, ``not_ai_declared``, ``no_model_name``, ``no_signing_time``,
``signed_too_early``, ``signed_in_future``; ``duplicate``, ``near_duplicate``; ``not_aligned``.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from gas.clock import Clock, SystemClock
from gas.errors import MediaRejected, Reason
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.types import Modality
from gas.verification.base import Alignment, Asked, Embedder, Verdict, VerificationRules
from gas.verification.decoding import MediumDecoder
from gas.verification.duplicates import MediaIndex
from gas.verification.examiner import Examiner
from gas.verification.provenance import TrustList
from gas.verification.steps import (
    LOOKED_AT,
    Accept,
    Aligned,
    Case,
    Copies,
    Decode,
    Edited,
    EmbeddingCopies,
    Provenance,
    Shape,
    SizeAndType,
    Skipped,
    Step,
    opened,
)

__all__ = ["Verifier", "early_refusal", "verify_medium"]


class Verifier:
    """Judges media, each once; a context manager. May be used from several threads.

    Args:
        index: What was seen before. A verified medium enters it; a refused one doesn't.
        anchors_pem: Trusted root certificates in PEM, see :func:`gas.verification.provenance.check_anchors`.
        limits: What a medium may cost.
        decoder: Where media are decoded and their credentials checked, by the same anchors; one child process,
            started with the first medium and ended by :meth:`close`, when left out.
        guarded: False does both in this process: for media from oneself only.
        alignments: Models whose consensus says whether a medium shows its prompt; none: not judged.
        embedder: For embeddings of pictures; the index must have been made for its size.
        rules: What else is asked.
        clock: For the steps' times.
    """

    def __init__(
        self,
        index: MediaIndex,
        anchors_pem: bytes,
        *,
        limits: MediaLimits = DEFAULT_LIMITS,
        decoder: Examiner | None = None,
        guarded: bool = True,
        alignments: Sequence[Alignment] = (),
        embedder: Embedder | None = None,
        rules: VerificationRules | None = None,
        clock: Clock | None = None,
    ) -> None:
        rules = rules or VerificationRules()
        self._own = Examiner(anchors_pem, limits) if guarded and decoder is None else None
        examiner = decoder or self._own
        self._clock = clock or SystemClock()
        self.steps: tuple[Step, ...] = (
            SizeAndType(limits),
            Decode(examiner or MediumDecoder(limits), LOOKED_AT if alignments or embedder else 0),
            Shape(rules),
            Edited(),
            Provenance(examiner or TrustList(anchors_pem), rules),
            Copies(index),
            EmbeddingCopies(index, embedder),
            Aligned(alignments),
            Accept(index),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding process, if this one started it."""
        if self._own is not None:
            self._own.close()

    def judge(self, data: bytes, asked: Asked, sha256: str = "") -> Verdict:
        """Judge a medium.

        Args:
            data: Its bytes; hostile until proven otherwise.
            asked: What was asked for.
            sha256: Hex SHA-256 of the bytes, when the caller has computed it himself; computed when left out.

        Returns:
            The verdict. ``facts`` holds, as far as they are known: ``bytes``, ``mime``, ``seconds`` (from the task to
            the delivery), ``width``, ``height``, ``length_seconds``, ``frame_count``; ``tier``, ``paid_tier``,
            ``requested_tier``, ``tiers_below``, ``edge_steepness``; ``issuer``, ``model``, ``source_type``,
            ``signed_at``; what :meth:`gas.verification.prints.Seen.as_facts` needs to build the index again
            (``phash`` is its 256 bits in hex); ``duplicate_of`` with ``duplicate_kind``, ``distance``, ``placing``
            and ``agreeing``; ``alignment`` by model; ``edit`` (see
            :class:`gas.verification.edits.EditMeasures`); ``timings``, milliseconds by step; ``skipped``, why by step.

        Raises:
            gas.errors.InfrastructureError: No decoding process can be started, or the index can't be written.
        """
        case = opened(data, asked, sha256)
        timings: dict[str, float] = {}
        skipped: dict[str, str] = {}
        for step in self.steps:
            began = self._clock.monotonic()
            try:
                step.run(case)
            except Skipped as why:
                skipped[step.name] = str(why)
            except MediaRejected as error:
                case.reasons.append(Reason(error.error_code, error.message))
            timings[step.name] = round(1000 * (self._clock.monotonic() - began), 3)
        case.facts |= {"timings": timings, "skipped": skipped}
        return _verdict(case)


def verify_medium(
    data: bytes,
    *,
    modality: Modality,
    created_at: float,
    deadline: float,
    delivered_at: float,
    index: MediaIndex,
    anchors_pem: bytes,
    limits: MediaLimits = DEFAULT_LIMITS,
    prompt: str = "",
    owner: str = "",
    alignments: Sequence[Alignment] = (),
) -> Verdict:
    """:meth:`Verifier.judge` for one medium, decoded in this process: for media from oneself, and for tests.

    Args:
        data: Its bytes.
        modality: What was asked for.
        created_at: When the task was made, seconds since the epoch.
        deadline: Until when it had to be delivered, seconds since the epoch.
        delivered_at: When it came, seconds since the epoch.
        index: What was seen before.
        anchors_pem: Trusted root certificates in PEM.
        limits: What a medium may cost.
        prompt: What it should show.
        owner: See :class:`gas.verification.base.Asked`.
        alignments: Models that compare it with its prompt.
    """
    asked = Asked(modality, created_at, deadline, delivered_at, prompt, {}, owner)
    return Verifier(index, anchors_pem, limits=limits, guarded=False, alignments=alignments).judge(data, asked)


def early_refusal(
    head: bytes, declared: int | None, modality: Modality, limits: MediaLimits = DEFAULT_LIMITS
) -> Reason | None:
    """What can be said against a medium before the rest of it has come in.

    Args:
        head: Its first bytes, 32 or more, or all there are.
        declared: Its length by the sender's word; None when it gives none.
        modality: What was asked for.
        limits: What a medium may cost.
    """
    case = opened(head, Asked(modality, 0.0, 0.0, 0.0))
    try:
        if declared is not None:
            limits.check_bytes(declared)
        SizeAndType(limits).run(case)
    except MediaRejected as error:
        return Reason(error.error_code, error.message)
    return None


def _verdict(case: Case) -> Verdict:
    width, height = case.decoded.size if case.decoded else (0, 0)
    return Verdict(
        reasons=tuple(case.reasons),
        sha256=case.sha256,
        width=width,
        height=height,
        issuer=case.credentials.issuer if case.credentials else None,
        facts=case.facts,
    )
