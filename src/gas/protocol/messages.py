"""The JSON bodies that services exchange, as models that check what comes in.

Unknown fields are ignored, so that a newer peer is understood; every text and list has a limit.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gas.errors import RequestRefused
from gas.types import Modality, Vertical

__all__ = [
    "EDITS",
    "MAX_COMMITMENT_BYTES",
    "CommitmentPayload",
    "ErrorBody",
    "ErrorDetail",
    "GenerationFailure",
    "GenerationParameters",
    "GenerationRequest",
    "MinerInfo",
    "MinerType",
    "Prediction",
    "SubmissionForm",
    "SubmissionReceipt",
    "TaskAccepted",
    "TaskState",
    "TaskStatus",
    "parse_message",
]

EDITS: Final = "mod_image"
"""Name, among the services of a :class:`MinerInfo`, of a miner's that changes pictures; and of the call."""

MAX_COMMITMENT_BYTES: Final = 128
_HASH: Final = re.compile(r"[0-9a-f]{16}")
_KEY: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_MAX_PARAMETERS_BYTES: Final = 16 * 1024

M = TypeVar("M", bound=BaseModel)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class GenerationParameters(_Message):
    """What a medium should be like; further fields are kept for the pipeline.

    Attributes:
        resolution: Tier, e.g. ``"720p"`` or a number of pixels.
        width: Pixels.
        height: Pixels.
        seed: For pipelines that take one.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    resolution: int | Annotated[str, Field(max_length=32)] | None = None
    width: int | None = Field(default=None, ge=16, le=8192)
    height: int | None = Field(default=None, ge=16, le=8192)
    seed: int | None = Field(default=None, ge=0, lt=2**63)


class GenerationRequest(_Message):
    """Body of ``POST /gen_image``, ``/gen_video``, ``/gen_audio`` and the JSON part of ``/mod_image``."""

    prompt: str = Field(min_length=1, max_length=8_000)
    parameters: GenerationParameters = GenerationParameters()

    @field_validator("parameters")
    @classmethod
    def _small(cls, value: GenerationParameters) -> GenerationParameters:
        if len(value.model_dump_json()) > _MAX_PARAMETERS_BYTES:
            raise ValueError("The parameters are too large.")
        return value


class TaskState(StrEnum):
    """Where a generation task stands."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    DELIVERED = "delivered"
    FAILED = "failed"


class TaskAccepted(_Message):
    """202 answer to a generation request."""

    task_id: str = Field(min_length=1, max_length=64)
    status: Literal["pending"] = "pending"


class TaskStatus(_Message):
    """Answer of ``GET /status/{task_id}``; times are seconds since the epoch."""

    task_id: str = Field(min_length=1, max_length=64)
    status: TaskState
    created_at: float
    updated_at: float
    error_message: str | None = Field(default=None, max_length=2_000)
    error_code: str | None = Field(default=None, max_length=64)


class GenerationFailure(_Message):
    """Body of a delivery with ``task-status: failed``.

    Attributes:
        error_message: A sentence.
        code: Stable name of the failure; peers that know none leave it out.
    """

    error_message: str = Field(max_length=2_000)
    code: str | None = Field(default=None, max_length=64)


class MinerType(StrEnum):
    """What a miner offers."""

    GENERATOR = "GENERATOR"
    DETECTOR = "DETECTOR"
    SEGMENTER = "SEGMENTER"


class MinerInfo(_Message):
    """Answer of ``GET /miner_info``; ``services`` has :data:`EDITS` where pictures are changed too."""

    miner_type: MinerType
    uid: int | None = Field(default=None, ge=0, le=65535)
    hotkey: str = Field(max_length=64)
    modalities: list[Modality] = Field(default_factory=list, max_length=8)
    services: dict[str, str] | list[str] = Field(default_factory=list, max_length=64)
    version: str = Field(default="", max_length=64)


class Prediction(_Message):
    """A live detector's answer: three probabilities, two, or one float; all in [0, 1]."""

    prediction: float | list[float]

    @field_validator("prediction")
    @classmethod
    def _probabilities(cls, value: float | list[float]) -> float | list[float]:
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list) and len(value) not in (2, 3):
            raise ValueError("A prediction has one, two or three values.")
        if not all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in values):
            raise ValueError("A prediction's values are probabilities.")
        return value

    @property
    def p_fake(self) -> float:
        """Probability that the medium is not real, in [0, 1]."""
        if isinstance(self.prediction, list):
            total = math.fsum(self.prediction)
            return math.fsum(self.prediction[1:]) / total if total > 0 else 0.5
        return self.prediction


class SubmissionForm(_Message):
    """Fields of ``POST /submissions`` beside the zip."""

    modality: Modality
    vertical: Vertical = Vertical.GENERAL


class SubmissionReceipt(_Message):
    """201 answer of ``POST /submissions``, and what a 409 repeats for content that is there already."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model_id: str = Field(max_length=64)
    key: str = Field(max_length=64)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    slot: int = Field(ge=0)
    slots: int = Field(ge=1)


class ErrorDetail(BaseModel):
    """What is wrong; further fields (``reasons``, ``key``) are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    code: str = Field(max_length=64)
    message: str = Field(max_length=20_000)
    hint: str | None = Field(default=None, max_length=2_000)


class ErrorBody(_Message):
    """Body of every refusal: ``{"error": {"code", "message", "hint"}}``."""

    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class CommitmentPayload:
    """What a hotkey commits to the chain after a push.

    Attributes:
        key: The submission's key, as the receipt says it.
        hash: First 16 hex digits of the zip's SHA-256.
    """

    key: str
    hash: str

    @classmethod
    def of(cls, key: str, sha256: str) -> CommitmentPayload:
        """The payload for an upload with this key and this hex SHA-256."""
        return cls(key, sha256[:16])

    def encode(self) -> str:
        """Compact JSON, at most 128 bytes.

        Raises:
            ValueError: The key or the hash has no acceptable form.
        """
        if not _KEY.fullmatch(self.key) or not _HASH.fullmatch(self.hash):
            raise ValueError("A commitment is a short key and 16 hex digits.")
        return json.dumps({"key": self.key, "hash": self.hash}, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> CommitmentPayload | None:
        """Read what somebody has committed; None when it is something else."""
        if len(text.encode(errors="replace")) > MAX_COMMITMENT_BYTES:
            return None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(data, dict):
            return None
        key, digest = data.get("key"), data.get("hash")
        if not isinstance(key, str) or not isinstance(digest, str):
            return None
        return cls(key, digest) if _KEY.fullmatch(key) and _HASH.fullmatch(digest) else None

    def matches(self, key: str, sha256: str) -> bool:
        """Whether this is the commitment to the upload with this key and this hex SHA-256."""
        return self.key == key and self.hash == sha256[:16]


def parse_message(model: type[M], body: bytes) -> M:
    """Read a JSON body that came over a wire.

    Raises:
        RequestRefused: 422 ``bad_message``, naming the fields that are wrong and never their values.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part)[:40] for part in item['loc']) or 'body'}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)[:5]
        )
        raise RequestRefused(f"The body isn't acceptable: {wrong[:500]}.", status=422, code="bad_message") from None
