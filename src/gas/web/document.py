"""What the OpenAPI document says beyond what the handlers' signatures tell: refusals, and bodies read as streams."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from gas.errors import RequestRefused
from gas.protocol.server import error_response
from gas.types import Modality, Vertical

__all__ = ["JPEG", "PIECE", "UPLOAD", "Refusal", "RefusalDetail", "install_validation_handler", "refusals"]

_WHY: Final = {
    400: "The request is not signed as Epistula v2 wants it.",
    401: "The signer is not registered.",
    404: "There is no such thing, or it is somebody else's.",
    408: "The body took too long to arrive.",
    409: "It is there already, or in a state that does not allow this.",
    413: "Too many bytes.",
    415: "The body is no form.",
    422: "A value is not what was agreed, or the package has faults; each is named.",
    429: "Too many requests, or no slot left.",
    503: "A fault of ours; ask again later.",
}

JPEG: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The picture.", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
}
UPLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["zip", "modality"],
                    "properties": {
                        "zip": {"type": "string", "format": "binary"},
                        "modality": {"type": "string", "enum": [one.value for one in Modality]},
                        "vertical": {"type": "string", "enum": [one.value for one in Vertical]},
                        "push": {
                            "type": "string",
                            "pattern": "^[0-9a-f]{32}$",
                            "description": "Packages of several modalities with the same value are examined together.",
                        },
                        "push_modalities": {
                            "type": "string",
                            "pattern": "^(image|video|audio)(,(image|video|audio)){0,2}$",
                            "description": "All modalities of the push, this package's among them; goes with `push`.",
                        },
                    },
                }
            }
        },
    }
}
PIECE: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "Upload-Offset",
            "in": "header",
            "required": True,
            "description": "At which byte of the package the piece begins.",
            "schema": {"type": "integer", "minimum": 0},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}


class RefusalDetail(BaseModel):
    """Why: a stable code, a sentence, and what to do."""

    model_config = ConfigDict(extra="allow")

    code: str
    message: str
    hint: str | None = None


class Refusal(BaseModel):
    """The body of every answer that is no success."""

    error: RefusalDetail


def refusals(*statuses: int, signed: bool = False) -> dict[int | str, dict[str, Any]]:
    """The document's entry for answers that are no success.

    Args:
        statuses: HTTP status codes.
        signed: Add those that every signed request may get.
    """
    wanted = {*statuses, 503, *((400, 401, 409, 413, 429) if signed else ())}
    return {status: {"model": Refusal, "description": _WHY[status]} for status in sorted(wanted)}


def install_validation_handler(app: FastAPI) -> None:
    """Give values that the framework refuses the same form as every other refusal."""

    async def handle(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return error_response(
            RequestRefused(f"The value of {where} is not allowed: {first['msg']}.", status=422, code="bad_value")
        )

    app.add_exception_handler(RequestValidationError, handle)
