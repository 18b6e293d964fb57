"""What the machine of a shard does: fetch its data, run the engine on its batches, tell batch by batch.

Everything that it says is JSON, one object a batch; the run's journal and its records are made by whoever asked.
"""

from __future__ import annotations

import json
import os
import platform
import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event
from typing import Final

from gas import __version__
from gas.bench.answer_rows import to_rows
from gas.bench.answers import Outcome
from gas.bench.batches import Ask
from gas.bench.engine import evaluate
from gas.bench.journal import Journal
from gas.bench.local import SetBlobs
from gas.bench.parcels import Parcel, machine_id, node_folder, place, shard_folder
from gas.bench.runs import RunConfig, RunResult
from gas.datasets.plan import Round, read_round
from gas.datasets.shelves import RoundShelves
from gas.errors import ConfigurationError, GasError
from gas.sandbox import Probe, best_sandbox, probe
from gas.submissions.archive import unpack
from gas.submissions.package import Package

__all__ = ["ShardWork", "run_shard"]


@dataclass(frozen=True, slots=True)
class ShardWork:
    """A shard, as its machine gets it.

    Attributes:
        code_version: Of the asking side; the machine's must be the same.
        batches: Numbers of the plan's batches that are asked here.
        samples: Ids of the media that they show.
        round_files: Files of the frozen round by name.
        package: The package's zip.
        checked: What the static checks found it to be.
        config: How the model is run; ``max_restarts`` is what the run has left.
        media_root: Folder of the media, for machines that see it.
        media: The media themselves by id, when the machine has said that it doesn't see them.
        pixels: Folder of decoded media, for processes of the machine ``asked_on``.
        asked_on: :func:`gas.bench.parcels.machine_id` of the asking side.
    """

    code_version: str
    batches: tuple[int, ...]
    samples: tuple[str, ...]
    round_files: Mapping[str, Parcel]
    package: Parcel
    checked: Package
    config: RunConfig
    media_root: str
    media: Mapping[str, Parcel]
    pixels: str
    asked_on: str


def run_shard(work: ShardWork) -> Iterator[bytes]:
    """Run one shard; a generator of JSON objects, told apart by ``kind``.

    - ``begun``: ``machine``, ``cores``, ``tier``;
    - ``lacking``: the machine doesn't see the package or the media and got none; nothing follows;
    - ``answers``: ``rows`` of a complete batch, ``times`` of batches, ``restarts`` so far, and ``gave_up`` when the
      rows are what a process leaves that has no restarts left;
    - ``done``: ``restarts``, ``gave_up``, ``timings``, and ``reasons`` why media are undecodable;
    - ``failed``: ``type``, ``code``, ``message`` and ``hint`` of a :class:`gas.errors.GasError`; nothing follows.
    """
    try:
        if work.code_version != __version__:
            raise ConfigurationError(
                f"The machine has version {__version__} of gas, and the run is of {work.code_version}.",
                code="node_code",
                hint="Install the same version of gas on every machine of the cluster.",
            )
        node = node_folder()
        with shard_folder(node) as folder:
            archive = place(work.package, folder / "package.zip")
            media = _media_root(work, folder / "media")
            if archive is None or media is None:
                yield _said("lacking")
                return
            yield from _run(work, node, folder, archive, media)
    except GasError as error:
        yield _said("failed", type=type(error).__name__, **error.as_dict())


def _run(work: ShardWork, node: Path, folder: Path, archive: Path, media_root: Path) -> Iterator[bytes]:
    sandbox = best_sandbox(work.config.min_tier, _probe())
    round_ = _round(work, folder / "round")
    unpack(archive, folder / "package")
    mine = work.pixels if work.asked_on and work.asked_on == machine_id() and Path(work.pixels).is_dir() else None
    yield _said("begun", machine=platform.node(), cores=len(os.sched_getaffinity(0)), tier=int(sandbox.tier))
    said: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    stopped = Event()

    def ask() -> tuple[RunResult, dict[str, str]]:
        try:
            with (
                _Telling(folder, work.config.nonce, said, stopped) as journal,
                RoundShelves(
                    round_.samples, SetBlobs(media_root, round_.samples), Path(mine) if mine else node / "pixels"
                ) as shelves,
            ):
                result = evaluate(
                    work.checked.to_spec(folder / "package"),
                    round_,
                    shelves,
                    sandbox,
                    work.config,
                    classes=work.checked.classes,
                    journal=journal,
                    only=frozenset(work.batches),
                )
                return result, {name: error.message for name, error in shelves.errors.items()}
        finally:
            said.put(None)

    with ThreadPoolExecutor(1, thread_name_prefix="gas-shard") as pool:
        asked = pool.submit(ask)
        try:
            while (piece := said.get()) is not None:
                yield piece
            result, reasons = asked.result()
        finally:
            stopped.set()
    yield _said(
        "done",
        restarts=result.restarts,
        gave_up=result.gave_up,
        timings=result.timings.as_dict(),
        reasons=reasons,
    )


@cache
def _probe() -> Probe:
    """What this machine offers; a process that computes many shards looks once."""
    return probe()


class _Stopped(Exception):
    """Nobody listens any more."""


class _Telling(Journal):
    """A journal that also tells; what it has told is complete and on the disk."""

    def __init__(self, folder: Path, nonce: str, said: queue.SimpleQueue[bytes | None], stopped: Event) -> None:
        super().__init__(folder, {"shard": folder.name}, nonce)
        self._said, self._stopped, self._told = said, stopped, 0

    def append(
        self, answers: Sequence[tuple[Ask, Outcome]], *, restarts: int, gave_up: bool = False, ended: int = 0
    ) -> None:
        if self._stopped.is_set():
            raise _Stopped
        super().append(answers, restarts=restarts, gave_up=gave_up, ended=ended)
        times, self._told = self.times[self._told :], len(self.times)
        self._said.put(_said("answers", rows=to_rows(answers), restarts=restarts, gave_up=gave_up, times=times))


_ROUND_NAMES: Final = frozenset({"samples.parquet", "manifest.json"})


def _round(work: ShardWork, folder: Path) -> Round:
    folder.mkdir()
    for name in _ROUND_NAMES & work.round_files.keys():
        place(work.round_files[name], folder / name)
    return read_round(folder)


def _media_root(work: ShardWork, here: Path) -> Path | None:
    """A folder with all media of the shard; None when there is none and they didn't come along."""
    seen = SetBlobs(Path(work.media_root), ())
    if all(seen.exists(name) for name in work.samples):
        return seen.root
    if not work.media.keys() >= set(work.samples):
        return None
    for name in work.samples:
        place(work.media[name], _blob_path(here, name))
    return here


def _blob_path(root: Path, name: str) -> Path:
    return root / name[:2] / name


def _said(kind: str, **values: object) -> bytes:
    return json.dumps({"kind": kind, **values}, separators=(",", ":"), allow_nan=False).encode()
