"""What a run has learnt so far, batch by batch, so that a killed run goes on where it was.

One line of JSON for each complete batch, appended in one write: a process that is killed leaves at most one torn line
at the end, which is cut off. The order of a run depends on its secret nonce; the journal keeps that nonce, so that the
rest of a resumed run is asked in the same company as it would have been. The file can be read by its owner only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from gas import __version__
from gas.bench.answers import Outcome
from gas.bench.batches import Ask, Pass
from gas.bench.runs import RunConfig
from gas.datasets.plan import Round
from gas.errors import StorageError

__all__ = ["Journal", "run_identity"]

_FORMAT: Final = 1


def run_identity(package_sha256: str, round_: Round, config: RunConfig) -> dict[str, object]:
    """Everything beside the nonce that a run's answers depend on.

    Args:
        package_sha256: Of the package's zip.
        round_: What it runs on.
        config: How.
    """
    return {
        "package": package_sha256,
        "round": round_.round_id,
        "batch_size": config.batch_size,
        "robustness": config.robustness_per_dataset,
        "reask": [config.reask_share, config.reask_least],
        "threads": config.threads,
        "code": __version__,
    }


class Journal:
    """The journal of one run; opened by one process at a time, appended to under the caller's lock.

    Args:
        folder: Where it lies; made when missing. Its name is derived from ``identity``, so that journals of different
            runs never meet.
        identity: Everything that the answers depend on: package, round, sizes, code. JSON values.
        nonce: The secret for a new run; a journal that is there keeps its own.

    Attributes:
        path: The file.
        nonce: The run's secret.
        outcomes: What was known when the journal was opened.
        restarts: Restarts that the run has used.
        gave_up: Whether it ended by using them up.

    Raises:
        StorageError: The folder can't be written (``journal_unwritable``), or another process has the journal open
            (``journal_busy``).
    """

    def __init__(self, folder: Path, identity: Mapping[str, object], nonce: str) -> None:
        text = json.dumps(dict(identity), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.path = folder / f"answers-{digest[:16]}.journal"
        self.nonce, self.restarts, self.gave_up = nonce, 0, False
        self.outcomes: dict[Ask, Outcome] = {}
        header = {"format": _FORMAT, "identity": digest, "nonce": nonce}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _lock(self._fd)
            os.ftruncate(self._fd, self._read(digest))
            if os.fstat(self._fd).st_size == 0:
                self._write(header)
        except OSError as error:
            raise _unwritable(error) from error

    def append(self, answers: Sequence[tuple[Ask, Outcome]], *, restarts: int, gave_up: bool = False) -> None:
        """Keep a complete batch.

        Args:
            answers: Its showings and what came of each.
            restarts: Restarts that the run has used so far.
            gave_up: Whether the run ends here.

        Raises:
            StorageError: ``journal_unwritable``.
        """
        rows = [
            [
                ask.index,
                ask.variant.value,
                ask.again,
                None if outcome.logits is None else outcome.logits.tolist(),
                outcome.error,
                outcome.media_error,
            ]
            for ask, outcome in answers
        ]
        try:
            self._write({"restarts": restarts, "gave_up": gave_up, "answers": rows})
        except OSError as error:
            raise _unwritable(error) from error

    def close(self) -> None:
        """Let go of the file and keep it."""
        os.close(self._fd)

    def remove(self) -> None:
        """Delete the file: the run's result is safe elsewhere. Close it all the same."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, value: Mapping[str, object]) -> None:
        # float32 values are exact in JSON's doubles; no answer with a NaN ever gets here.
        line = (json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n").encode()
        os.lseek(self._fd, 0, os.SEEK_END)
        if os.write(self._fd, line) != len(line):
            raise OSError("The disk is full")

    def _read(self, digest: str) -> int:
        """Take over what is there; returns the length of the good part."""
        with os.fdopen(os.dup(self._fd), "rb") as file:
            good = 0
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._take(number, json.loads(line), digest)
                except (ValueError, KeyError, TypeError, IndexError):
                    break
                good += len(line)
        return good

    def _take(self, number: int, value: Mapping[str, object], digest: str) -> None:
        if number == 0:
            if value["format"] != _FORMAT or value["identity"] != digest:
                raise ValueError("the journal of another version")
            self.nonce = str(value["nonce"])
            return
        rows = value["answers"]
        if not isinstance(rows, list):
            raise TypeError("no list of answers")
        answers = {
            Ask(int(index), Pass(variant), bool(again)): Outcome(
                None if logits is None else np.array(logits, dtype=np.float32), error, bool(media_error)
            )
            for index, variant, again, logits, error, media_error in rows
        }
        restarts = value["restarts"]
        if not isinstance(restarts, int):
            raise TypeError("no number of restarts")
        self.outcomes.update(answers)
        self.restarts, self.gave_up = restarts, bool(value["gave_up"])


def _lock(fd: int) -> None:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StorageError(
            "Another process is at this run.", code="journal_busy", hint="Wait for it, or name another folder."
        ) from error


def _unwritable(error: OSError) -> StorageError:
    return StorageError(
        f"The journal of the run can't be written ({error.strerror or error}).",
        code="journal_unwritable",
        hint="What was answered so far is kept; make room and start the same command again.",
    )
