"""What can go wrong with a task: the code that the validator is told, and what the operator should do about it.

========================  ==========================================================================================
code                      the task ends as failed because
========================  ==========================================================================================
``moderation_refused``    the provider refuses the prompt (and other codes of a :class:`gas.errors.RequestRefused`)
``provider_busy``         the provider answered 429 until the task was too old
``provider_failed``       the provider answered 5xx or nonsense
``provider_unreachable``  the provider did not answer
``provider_account``      the provider takes the key, the credit or the rights for insufficient
``provider_uncertain``    the provider may have been paid, and its answer was lost
``service_gone``          its provider is no longer set up here
``bad_medium``            what was made is not of the kind that was asked for
``certificate_expired``   there is no valid certificate to sign with
``disk_full``             the medium could not be stored
``task_timeout``          it was not made in time
``internal_error``        a mistake of this program
========================  ==========================================================================================
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Final

from gas.errors import GasError, StorageError

__all__ = ["ADVICE", "advice", "free_bytes", "is_disk_full"]

_THEIRS: Final = "The validator asks for what can't be made; nothing is to be done here."

ADVICE: Final = {
    "provider_busy": "The provider limits this account: lower MINER_MAX_CONCURRENT_TASKS, or ask for a higher limit.",
    "provider_failed": "The provider is in trouble, or is no longer what this version expects; see its status page.",
    "provider_unreachable": "Check this machine's network and the service's base URL.",
    "provider_account": "Check the provider's key in .env.gen_miner, and the account's credit and rights.",
    "provider_uncertain": "It may have been charged, so it is not asked again; compare the provider's bill.",
    "service_gone": "Jobs of a provider need it to stay set up until they have ended.",
    "bad_medium": "The service gave something else than was asked for; check its model.",
    "certificate_expired": "Put a valid certificate into MINER_C2PA_DIR and restart.",
    "signing_failed": "Check the certificate in MINER_C2PA_DIR.",
    "disk_full": "Free space on the disk of MINER_STATE_DIR; work goes on by itself.",
    "task_timeout": "Raise MINER_TASK_TIMEOUT, lower MINER_MAX_CONCURRENT_TASKS, or choose a faster model.",
    "out_of_memory": "Choose a smaller model, or lower MINER_MAX_CONCURRENT_TASKS.",
    "internal_error": "Please report it with this log.",
    "moderation_refused": "The provider refuses this prompt; nothing is to be done here.",
    "unsupported_parameters": _THEIRS,
    "unsupported_modality": "Check the model that is set for this modality.",
    "edits_not_offered": "Set IMAGE_EDIT_PIPELINE, or an IMAGE_SERVICE that changes pictures, to earn with these too.",
    "modality_not_offered": "Name a service for this modality in .env.gen_miner to earn with these too.",
    "needs_source": "The pipeline changes pictures and makes none: choose another one for prompts without a picture.",
    "bad_webhook": "Nothing, on a public network; on a network of your own see MINER_ALLOW_LOCAL_WEBHOOKS.",
    "bad_message": _THEIRS,
    "bad_multipart": _THEIRS,
    "bad_prompt": _THEIRS,
    "prompt_too_long": _THEIRS,
    "body_too_large": _THEIRS,
    "bad_image": _THEIRS,
    "bad_source": _THEIRS,
    "bad_mask": _THEIRS,
    "pipeline_failed": "Try it by hand with gascli g try; check MINER_DEVICE and the model.",
    "speech": "Try it by hand: gascli g try TEXT --pipeline speech. Is the voice's program installed and is it whole?",
    "delivery_refused": "The validator does not want this delivery; gascli g perf counts its reasons.",
    "webhook_redirected": "The validator's webhook redirects, which is not followed; nothing is to be done here.",
    "expired": "The validator's webhook could not be reached in time; check this machine's network.",
}
"""What the operator should do, by code."""


def advice(code: str, error: GasError | None = None) -> str:
    """What to do about a failure: the error's own hint, or the table's."""
    return (error.hint if error is not None else None) or ADVICE.get(code, "See the lines above.")


def is_disk_full(error: StorageError) -> bool:
    """Whether a failure of the database or of the blobs comes from a full disk or an exhausted quota."""
    if error.error_code == "disk_full":
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        cause = cause.__cause__ or cause.__context__
    return "disk is full" in error.message


def free_bytes(folder: Path) -> int:
    """Free bytes of a folder's disk; 0 when it can't be asked."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
