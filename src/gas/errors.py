"""Every error of the project, in one small tree.

::

    GasError
    ├── InfrastructureError        ours: retry, alert an operator, give the slot back
    │   ├── SandboxUnavailable         no acceptable isolation could be set up
    │   ├── StorageError               database or blobs failed
    │   ├── SourceUnreachable          a source of data does not answer
    │   ├── ServiceUnavailable         a provider of media is busy, down, or answers nonsense
    │   ├── IntegrityError             data are not what was pinned or promised
    │   └── ChainError                 a call to the chain did not go through
    │       ├── ChainUnreachable           no answer from the node
    │       ├── RateLimited                too soon; says how many blocks to wait
    │       ├── NotRegistered              the hotkey has no uid on the subnet
    │       ├── NoPermit                   the hotkey may not set weights
    │       ├── StaleVersion               version key below the subnet's
    │       ├── CommitRevealRequired       plain weights are refused on this subnet
    │       └── ChainRefused               any other rule of the ledger
    ├── ConfigurationError         the operator's: a setting, a file or an option is wrong
    ├── SubmissionError            the author's: the model or its package
    │   ├── PackageRejected            static checks found reasons (all of them are listed)
    │   └── ModelFailed                the model crashed, hung, ran out of memory or answered nonsense
    ├── MediaRejected              the sender's: a medium can't or mustn't be taken
    └── RequestRefused             the caller's: an HTTP request is not acceptable

Each error carries a stable ``code`` for machines, a sentence for people, and where it helps, what to do.
Ours and theirs never mix: nobody loses pay for an :class:`InfrastructureError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "ChainError",
    "ChainRefused",
    "ChainUnreachable",
    "CommitRevealRequired",
    "ConfigurationError",
    "GasError",
    "InfrastructureError",
    "IntegrityError",
    "MediaRejected",
    "ModelFailed",
    "NoPermit",
    "NotRegistered",
    "PackageRejected",
    "RateLimited",
    "Reason",
    "RequestRefused",
    "SandboxUnavailable",
    "ServiceUnavailable",
    "SourceUnreachable",
    "StaleVersion",
    "StorageError",
    "SubmissionError",
]


class GasError(Exception):
    """Root of the tree.

    Args:
        message: One sentence, free of secrets, fit to be shown to the person at fault.
        code: Stable machine-readable name in snake_case; the class's own when left out.
        hint: What to do about it.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or type(self).code
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, str]:
        """The form in which the error crosses a wire or lands in ``--json``."""
        out = {"code": self.error_code, "message": self.message}
        if self.hint:
            out["hint"] = self.hint
        return out


class InfrastructureError(GasError):
    """Our fault; nobody else may pay for it."""

    code = "infrastructure"


class SandboxUnavailable(InfrastructureError):
    """No isolation of the tier that is asked for can be set up on this machine."""

    code = "sandbox_unavailable"


class StorageError(InfrastructureError):
    """The database or the blob store failed."""

    code = "storage"


class SourceUnreachable(InfrastructureError):
    """A source of data does not answer; what has arrived so far is kept."""

    code = "source_unreachable"


class ServiceUnavailable(InfrastructureError):
    """A provider of media did not make what it was asked for, through no fault of the prompt.

    Codes: ``provider_busy`` (429), ``provider_failed`` (5xx, a broken answer), ``provider_unreachable``,
    ``provider_account`` (key, credit or rights: the operator's to mend), ``provider_uncertain`` (it may have been paid
    already and must not be asked again).

    Args:
        retry_after: Seconds after which to ask again, at least 0; None when asking again is no use.
    """

    code = "provider_failed"

    def __init__(
        self, message: str, *, code: str | None = None, hint: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retry_after = retry_after


class IntegrityError(InfrastructureError):
    """Data have another hash or length than was pinned or promised."""

    code = "integrity"


class ChainError(InfrastructureError):
    """A call to the chain did not go through."""

    code = "chain"


class ChainUnreachable(ChainError):
    """The node does not answer."""

    code = "chain_unreachable"


class RateLimited(ChainError):
    """Too soon after the previous call.

    Args:
        blocks: How many blocks to wait.
    """

    code = "rate_limited"

    def __init__(self, message: str, *, blocks: int) -> None:
        super().__init__(message, hint=f"Try again in {blocks} blocks.")
        self.blocks = blocks


class NotRegistered(ChainError):
    """The hotkey has no uid on the subnet."""

    code = "not_registered"


class NoPermit(ChainError):
    """The hotkey has no validator permit."""

    code = "no_permit"


class StaleVersion(ChainError):
    """The version key is older than the subnet asks for."""

    code = "stale_version"


class CommitRevealRequired(ChainError):
    """The subnet takes weights by commit and reveal only."""

    code = "commit_reveal_required"


class ChainRefused(ChainError):
    """A rule of the ledger forbids the call; ``error_code`` says which."""

    code = "chain_refused"


class ConfigurationError(GasError):
    """A setting, a file or an option of the operator's is wrong."""

    code = "configuration"


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding against a package or a medium.

    Attributes:
        code: Stable name, e.g. ``import_not_allowed``.
        message: One sentence that says what is wrong and what would be right.
        file: Path inside the package, where there is one.
        line: 1-based line, where there is one.
    """

    code: str
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        return f"{where}{self.message} [{self.code}]"

    def as_dict(self) -> dict[str, str | int | None]:
        """JSON form."""
        return {"code": self.code, "message": self.message, "file": self.file, "line": self.line}


class SubmissionError(GasError):
    """The fault of a submission's author."""

    code = "submission"


class PackageRejected(SubmissionError):
    """Static checks refuse the package.

    Args:
        reasons: Every finding, in the order of files and lines; at least one.
    """

    code = "package_rejected"

    def __init__(self, reasons: tuple[Reason, ...]) -> None:
        super().__init__("; ".join(str(r) for r in reasons))
        self.reasons = reasons


class ModelFailed(SubmissionError):
    """A submitted model crashed, hung, was killed for memory, or broke the answer's format.

    Codes: ``load_failed``, ``crashed``, ``timeout``, ``out_of_memory``, ``bad_output``, ``protocol``,
    ``unanswered``.
    """

    code = "model_failed"


class MediaRejected(GasError):
    """A medium can't be taken; ``error_code`` says why (``undecodable``, ``too_large``, ``duplicate`` ...)."""

    code = "media_rejected"


class RequestRefused(GasError):
    """An HTTP request that is not acceptable.

    Args:
        status: HTTP status code of the answer, 4xx.
    """

    code = "request_refused"

    def __init__(self, message: str, *, status: int, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
