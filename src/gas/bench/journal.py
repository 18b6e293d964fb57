"""What a run has learnt so far, batch by batch, so that a killed run goes on where it was.

One line of JSON for each complete batch, appended in one write: a process that is killed leaves at most one torn line
at the end, which is cut off. After some thousand showings the lines become a Parquet file
(:mod:`gas.bench.answer_parts`) and the journal begins anew, so that neither it nor what this process remembers grows
with the plan. The order of a run depends on its secret nonce; the journal keeps that nonce, so that the rest of a
resumed run is asked in the same company as it would have been. The file can be read by its owner only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gas import __version__
from gas.bench.answer_parts import PART_ROWS, WHOLE_RUN, AnswerParts, RunState
from gas.bench.answer_rows import from_rows, to_rows
from gas.bench.answers import Outcome
from gas.bench.batches import Ask
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
        parts: The answers that are no longer in the file.
        nonce: The run's secret.
        times: Showings and seconds of the batches that were timed, in all lives of the run.
        restarts: Restarts that the run has used.
        ended: Processes that the model has lost for good, since there were no restarts left.
        gave_up: Whether that happened to any, so that something is left unanswered.
        processes: With how many the run was begun; 0 while it is unknown.

    Raises:
        StorageError: The folder can't be written (``journal_unwritable``), or another process has the journal open
            (``journal_busy``).
    """

    def __init__(self, folder: Path, identity: Mapping[str, object], nonce: str) -> None:
        text = json.dumps(dict(identity), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.path = folder / f"answers-{digest[:16]}.journal"
        self.parts = AnswerParts(folder / f"answers-{digest[:16]}")
        self.nonce, self.restarts, self.ended, self.gave_up, self.processes = nonce, 0, 0, False, 0
        self.times: list[tuple[int, float]] = []
        self._lines: list[tuple[Ask, Outcome]] = []
        self._outcomes: dict[Ask, Outcome] | None = None
        self._timed = self._header_bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _lock(self._fd)
            os.ftruncate(self._fd, self._read(digest))
            if os.fstat(self._fd).st_size == 0:
                # Without the secret of their order, parts of an earlier life are of no use.
                self.parts.remove()
                self._write({"format": _FORMAT, "identity": digest, "nonce": nonce})
                self._header_bytes = os.fstat(self._fd).st_size
            before = self.parts.last_state()
            self.restarts, self.ended = max(self.restarts, before.restarts), max(self.ended, before.ended)
            self.gave_up, self.processes = self.gave_up or before.gave_up, self.processes or before.processes
        except OSError as error:
            raise _unwritable(error) from error

    def read(self) -> Iterator[tuple[Ask, Outcome]]:
        """What is known, one by one: the parts, then the lines of the file.

        Raises:
            StorageError: ``journal_unwritable``: a part can't be read.
        """
        try:
            yield from self.parts.read()
        except OSError as error:
            raise _unwritable(error) from error
        yield from self._lines

    @property
    def outcomes(self) -> dict[Ask, Outcome]:
        """What is known, all at once and from now on in memory; a long run is better :meth:`read`."""
        if self._outcomes is None:
            self._outcomes = dict(self.read())
        return self._outcomes

    @property
    def is_over(self) -> bool:
        """Whether every process was given up: what isn't answered by now never will be."""
        return self.ended >= WHOLE_RUN

    @property
    def begun(self) -> bool:
        """Whether anything is known."""
        return bool(self._lines) or next(self.parts.read(), None) is not None

    @property
    def known(self) -> int:
        """How many showings are known."""
        return len({ask for ask, _ in self.read()})

    def add_times(self, showings: int, seconds: float) -> None:
        """Note how long a batch took; kept with the next answers, and never mixed with them."""
        self.times.append((showings, seconds))

    def append(
        self, answers: Sequence[tuple[Ask, Outcome]], *, restarts: int, gave_up: bool = False, ended: int = 0
    ) -> None:
        """Keep a complete batch.

        Args:
            answers: Its showings and what came of each.
            restarts: Restarts that the run has used so far.
            gave_up: Whether a process of the model was given up with this line; later lines can't take that back.
            ended: How many were, so far.

        Raises:
            StorageError: ``journal_unwritable``.
        """
        self.gave_up, self.ended = self.gave_up or gave_up, max(self.ended, ended)
        line = self._line(restarts) | {"answers": to_rows(answers)}
        if self._timed < len(self.times):
            line["times"] = self.times[self._timed :]
            self._timed = len(self.times)
        try:
            self._write(line)
            self._lines += answers
            if self._outcomes is not None:
                self._outcomes.update(answers)
            if len(self._lines) >= PART_ROWS:
                self._make_part(restarts)
        except OSError as error:
            raise _unwritable(error) from error

    def _make_part(self, restarts: int) -> None:
        self.parts.write(self._lines, RunState(restarts, self.ended, self.gave_up, self.processes))
        # Killed before this, a run knows some answers twice, and they are the same; killed after it, it has lost times.
        os.ftruncate(self._fd, self._header_bytes)
        self._write(self._line(restarts) | {"answers": [], "times": self.times})
        self._lines.clear()

    def _line(self, restarts: int) -> dict[str, object]:
        return {"restarts": restarts, "gave_up": self.gave_up, "ended": self.ended, "processes": self.processes}

    def close(self) -> None:
        """Let go of the file and keep it."""
        os.close(self._fd)

    def remove(self) -> None:
        """Delete the file and its parts: the run's result is safe elsewhere. Close it all the same."""
        self.parts.remove()
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
                if number == 0:
                    self._header_bytes = good
        return good

    def _take(self, number: int, value: Mapping[str, object], digest: str) -> None:
        if number == 0:
            if value["format"] != _FORMAT or value["identity"] != digest:
                raise ValueError("the journal of another version")
            self.nonce = str(value["nonce"])
            return
        answers = from_rows(value["answers"])
        restarts = value["restarts"]
        if not isinstance(restarts, int):
            raise TypeError("no number of restarts")
        times = value.get("times", [])
        if not isinstance(times, list):
            raise TypeError("no list of times")
        found = [(int(showings), float(seconds)) for showings, seconds in times]
        self._lines += answers.items()
        self.times += found
        self._timed = len(self.times)
        ended, processes = value.get("ended", 0), value.get("processes", 0)
        if not isinstance(ended, int) or not isinstance(processes, int):
            raise TypeError("no number of processes")
        self.restarts, self.ended, self.processes = restarts, max(self.ended, ended), self.processes or processes
        self.gave_up = self.gave_up or bool(value["gave_up"])


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
