"""What a generation request may contain: prompts, parameters and pictures, all from strangers."""

from __future__ import annotations

import asyncio
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.datastructures import FormData, UploadFile

from gas.errors import MediaRejected, RequestRefused
from gas.protocol.messages import GenerationRequest, parse_message
from gas.protocol.server import parse_multipart
from gas.scoring.generators import TIERS
from gas.types import Modality

__all__ = ["MAX_EDIT_BYTES", "MAX_REQUEST_BYTES", "Wish", "read_edit", "read_wish"]

MAX_REQUEST_BYTES: Final = 64 * 1024
"""Most bytes of a prompt with its parameters."""

MAX_EDIT_BYTES: Final = 32 * 1024 * 1024
"""Most bytes of a form with a picture and its mask."""

_IMAGE, _MASK = "image", "mask"
_MAX_LINE: Final = 2000
_NO_TEXT: Final = frozenset({"Cc", "Cs", "Co", "Cn"})
"""Control characters, surrogates, private and unassigned code points: binary, or meant for a terminal or a parser."""

_PARAMETERS: Final = frozenset(
    {"resolution", "tier", "width", "height", "aspect_ratio", "seed", "style", "negative_prompt", "strength"}
    | {"steps", "num_inference_steps", "guidance", "guidance_scale"}
    | {"duration", "seconds", "frames", "num_frames", "fps"}
    | {"voice", "language", "speed", "format", "quality", "background"}
)
"""What some service knows; whoever serves the task refuses those that it does not."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that makes sense.

    Attributes:
        prompt: What the medium should show.
        parameters: Further wishes, their names known and their tier existing.
        image: The picture to change, encoded.
        mask: Where to change it, encoded.
    """

    prompt: str
    parameters: dict[str, Any]
    image: bytes | None = None
    mask: bytes | None = None


def read_wish(body: bytes, modality: Modality) -> Wish:
    """Read the JSON of a request.

    Args:
        body: As received.
        modality: What is asked for.

    Raises:
        RequestRefused: 422 ``bad_message``, ``bad_prompt`` or ``unsupported_parameters``.
    """
    request = parse_message(GenerationRequest, body)
    parameters = request.parameters.model_dump(exclude_none=True)
    unknown = sorted(str(name)[:40] for name in parameters if name not in _PARAMETERS)
    if unknown:
        raise _unsupported(f"There is no parameter {', '.join(map(ascii, unknown[:5]))}.")
    for name, value in parameters.items():
        if not isinstance(value, str | int | float) or (isinstance(value, str) and not _is_line(value)):
            raise _unsupported(f"The parameter {name} is no number and no line of text.")
    resolution = parameters.get("resolution")
    tiers = TIERS[modality]
    if isinstance(resolution, str) and resolution not in tiers and not resolution.isascii():
        raise _unsupported("The resolution is no tier.")
    if isinstance(resolution, str) and resolution not in tiers:
        raise _unsupported(f"There is no tier {resolution!r}; for {modality} there are {', '.join(tiers)}.")
    tier = parameters.get("tier")
    if tier is not None and tier not in tiers and not (isinstance(tier, int) and 0 <= tier < len(tiers)):
        raise _unsupported(f"There is no such tier; for {modality} there are {', '.join(tiers)}.")
    return Wish(_plain(request.prompt), parameters)


async def read_edit(content_type: str, path: Path) -> Wish:
    """Read the form of ``/mod_image``: the JSON, ``image``, and where it matters ``mask``.

    The JSON is the one part that has another name; senders call it differently.

    Args:
        content_type: Of the request.
        path: The body, proven, in a file.

    Raises:
        RequestRefused: 422 ``bad_multipart``, ``bad_image`` or ``bad_mask``, and what :func:`read_wish` refuses.
    """
    form = await parse_multipart(content_type, path, max_fields=4)
    try:
        words = [name for name, _value in form.multi_items() if name not in (_IMAGE, _MASK)]
        if len(words) != 1 or len(form.getlist(_IMAGE)) != 1 or len(form.getlist(_MASK)) > 1:
            raise RequestRefused(
                "The form must hold the request's JSON, one image, and at most one mask.",
                status=422,
                code="bad_multipart",
            )
        text = await _part(form, words[0], MAX_REQUEST_BYTES, "bad_message")
        image = await _part(form, _IMAGE, MAX_EDIT_BYTES, "bad_image")
        mask = await _part(form, _MASK, MAX_EDIT_BYTES, "bad_mask") if _MASK in form else None
    finally:
        await form.close()
    wish = read_wish(text, Modality.IMAGE)
    size = await asyncio.to_thread(_size, image, "bad_image")
    if mask is not None and await asyncio.to_thread(_size, mask, "bad_mask") != size:
        raise RequestRefused("The mask must be as large as the picture.", status=422, code="bad_mask")
    return Wish(wish.prompt, wish.parameters, image, mask)


async def _part(form: FormData, name: str, limit: int, code: str) -> bytes:
    value = form[name]
    if isinstance(value, UploadFile):
        data = await value.read(limit + 1)
    else:
        data = value.encode(errors="replace")
    if len(data) > limit:
        raise RequestRefused(f"The part {name[:40]!a} is too large.", status=413, code="body_too_large")
    if not data:
        raise RequestRefused(f"The part {name[:40]!a} is empty.", status=422, code=code)
    return data


def _size(data: bytes, code: str) -> tuple[int, int]:
    from gas.media.image import decode_image

    try:
        # All of it, now: a picture that breaks off would otherwise fail at a provider that has been paid.
        height, width, _channels = decode_image(data).shape
        return width, height
    except MediaRejected as error:
        raise RequestRefused(f"A picture can't be taken: {error.message}", status=422, code=code) from None


def _is_line(text: str) -> bool:
    return len(text) <= _MAX_LINE and not any(unicodedata.category(c) in _NO_TEXT for c in text)


def _plain(prompt: str) -> str:
    """The prompt, when it is text that people could have written.

    Raises:
        RequestRefused: 422 ``bad_prompt``.
    """
    odd = any(unicodedata.category(c) in _NO_TEXT and c not in "\t\n\r" for c in prompt)
    if odd or not any(c.isalnum() for c in prompt):
        raise RequestRefused("The prompt is empty, or no text.", status=422, code="bad_prompt")
    return prompt


def _unsupported(message: str) -> RequestRefused:
    return RequestRefused(message, status=422, code="unsupported_parameters")
