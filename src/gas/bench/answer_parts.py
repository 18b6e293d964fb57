"""The answers of a run as Parquet files that grow in number while it goes.

A part is written aside and renamed, so that whoever looks on (``duckdb``, ``pandas``) never sees half of one, and a
killed run leaves none. Parts hold what the model said in the order of the run; the records, which add what follows from
it, are made of them in the order of the plan.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gas.bench.answers import Outcome
from gas.bench.batches import Ask, Pass

__all__ = ["PART_ROWS", "WHOLE_RUN", "AnswerParts", "RunState"]

PART_ROWS: Final = 1024
"""Showings after which a part is written."""

_SCHEMA: Final = pa.schema(
    [
        pa.field("index", pa.int32(), nullable=False),
        pa.field("pass", pa.string(), nullable=False),
        pa.field("again", pa.bool_(), nullable=False),
        pa.field("logits", pa.list_(pa.float32())),
        pa.field("error", pa.string()),
        pa.field("media_error", pa.bool_(), nullable=False),
    ]
)
WHOLE_RUN: Final = 1 << 20
"""As a number of processes that were given up: all that there may be."""

_STATE: Final = b"run"


@dataclass(frozen=True, slots=True)
class RunState:
    """What a run has used up.

    Attributes:
        restarts: Restarts of the model so far.
        ended: Processes that it has lost for good, since there were no restarts left.
        gave_up: Whether that happened to any, so that something is left unanswered.
        processes: With how many the run was begun; 0 while it is unknown.
    """

    restarts: int = 0
    ended: int = 0
    gave_up: bool = False
    processes: int = 0


class AnswerParts:
    """The parts of one run.

    Args:
        folder: Of the parts; made with the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = self._paths()
        self._next = int(found[-1].stem.removeprefix("part-")) + 1 if found else 0

    def read(self) -> Iterator[tuple[Ask, Outcome]]:
        """Everything that the parts hold; a part that can't be read is removed, and its answers are asked again.

        Raises:
            OSError: The folder can't be read.
        """
        for path in self._paths():
            try:
                table = pq.read_table(path)
                if not table.schema.equals(_SCHEMA):
                    raise ValueError("other columns")
                rows = table.to_pylist()
            except (pa.ArrowException, ValueError):
                path.unlink()
                continue
            for row in rows:
                logits = None if row["logits"] is None else np.array(row["logits"], np.float32)
                ask = Ask(row["index"], Pass(row["pass"]), row["again"])
                yield ask, Outcome(logits, row["error"], media_error=row["media_error"])

    def last_state(self) -> RunState:
        """Where the run stood when the last part was written; at its beginning if there is none, or it is damaged."""
        for path in self._paths()[-1:]:
            with suppress(pa.ArrowException, OSError, KeyError, ValueError, TypeError):
                return RunState(**json.loads((pq.read_schema(path).metadata or {})[_STATE]))
        return RunState()

    def write(self, answers: Sequence[tuple[Ask, Outcome]], state: RunState) -> None:
        """Write one part.

        Args:
            answers: Its rows.
            state: Where the run stands with them.

        Raises:
            OSError: It can't be written; nothing is left behind.
        """
        columns: list[list[object]] = [
            [ask.index for ask, _ in answers],
            [ask.variant.value for ask, _ in answers],
            [ask.again for ask, _ in answers],
            [None if out.logits is None else out.logits.tolist() for _, out in answers],
            [out.error for _, out in answers],
            [out.media_error for _, out in answers],
        ]
        schema = _SCHEMA.with_metadata({_STATE: json.dumps(asdict(state))})
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"part-{self._next:05}.parquet"
        aside = path.with_suffix(".aside")
        try:
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), aside, compression="zstd")
            aside.replace(path)
        except OSError:
            with suppress(OSError):
                aside.unlink()
            raise
        self._next += 1

    def remove(self) -> None:
        """Delete every part."""
        for path in self.folder.glob("part-*"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("part-[0-9]*.parquet"))
