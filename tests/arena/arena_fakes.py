"""Stand-ins for the arena's collaborators, shared by its tests."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url

from gas.arena.dispatch import Foreman
from gas.arena.ports import ArenaConfig, CheckedPackage, Judgement, RunOutcome, RunTask
from gas.arena.submissions import Received, Submissions
from gas.arena.workers import EvaluationJob
from gas.bench.batches import Pass
from gas.bench.records import SampleRecord, to_parquet
from gas.chain.base import Commitment
from gas.chain.keys import signer_from_seed
from gas.clock import Clock, RandomIds
from gas.errors import GasError, PackageRejected, Reason
from gas.protocol.messages import CommitmentPayload
from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database, open_database
from gas.storage.jobs import DurableJobs, JobsConfig
from gas.storage.tables import RoundRow, SubmissionRow
from gas.types import Hotkey, Modality, SampleStatus, SubmissionState, Vertical

SIGNER = signer_from_seed(b"\x11" * 32)


@dataclass
class CommitmentsOnly:
    """The part of a chain that the foreman asks."""

    published: dict[str, Commitment] = field(default_factory=dict)
    error: GasError | None = None

    async def get_commitment(self, netuid: int, hotkey: str) -> Commitment | None:
        if self.error is not None:
            raise self.error
        return self.published.get(hotkey)

    def publish(self, hotkey: str, received: Received, block: int) -> None:
        text = CommitmentPayload.of(received.key, received.sha256).encode()
        self.published[hotkey] = Commitment(Hotkey(hotkey), text, block)


def check(path: Path, modality: Modality) -> CheckedPackage:
    """Accepts a text file: ``weights`` in its first word; refuses what says ``bad``."""
    words = path.read_text().split()
    if not words or words[0] == "bad":
        raise PackageRejected((Reason("import_not_allowed", "socket is not allowed.", "model.py", 3),))
    return CheckedPackage(f"model-{words[0]}", hashlib.sha256(words[0].encode()).hexdigest(), None)


def outcome(
    accuracy: float = 0.9, answers: Mapping[str, float] | None = None, judgements: tuple[Judgement, ...] = ()
) -> RunOutcome:
    answers = answers or {}
    records = [SampleRecord(k, Pass.BASE, SampleStatus.OK, v, 0, v > 0.5, (v,)) for k, v in answers.items()]
    metrics = {"accuracy": accuracy, "sn34_score": accuracy - 0.1}
    return RunOutcome(metrics, to_parquet(records), "NAMESPACES", answers, judgements, {"python": "3"})


def one_layer(steps: list[object], values: dict[str, NDArray[np.generic]], path: Path) -> None:
    """An ONNX model from pictures of 32 x 32 to one number a picture, as logits of real and fake."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [
        helper.make_node("Cast", ["media"], ["x"], to=TensorProto.FLOAT),
        *steps,
        helper.make_node("Unsqueeze", ["score", "one"], ["column"]),
        helper.make_node("MatMul", ["column", "signs"], ["logits"]),
    ]
    values = {"one": np.array([1], np.int64), "signs": np.array([[-6.0, 6.0]], np.float32), **values}
    graph = helper.make_graph(
        nodes, "model",
        [helper.make_tensor_value_info("media", TensorProto.UINT8, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@dataclass
class ScriptedEvaluator:
    """Answers each run with the next thing of its script: an outcome, or an error to be raised."""

    script: list[RunOutcome | GasError | Exception] = field(default_factory=list)
    tasks: list[RunTask] = field(default_factory=list)

    def __call__(self, task: RunTask) -> RunOutcome:
        assert task.package.is_file()
        self.tasks.append(task)
        step = self.script.pop(0) if self.script else outcome()
        if isinstance(step, Exception):
            raise step
        return step


@dataclass
class Arena:
    """A whole arena on one folder."""

    home: Path
    clock: Clock
    evaluator: ScriptedEvaluator = field(default_factory=ScriptedEvaluator)
    config: ArenaConfig = field(default_factory=ArenaConfig)
    chain: CommitmentsOnly = field(default_factory=CommitmentsOnly)

    def __post_init__(self) -> None:
        self.database: Database = open_database(service_url(self.home))
        self.blobs = FolderBlobs(self.home / "blobs")
        self.submissions = Submissions(
            self.database, self.blobs, check, self.config, self.clock, RandomIds(), self.home / "incoming"
        )
        jobs_config = JobsConfig(service_url(self.home, "jobs"), {"evaluation": 1}, poll_seconds=0.05)
        self.jobs = DurableJobs(self.database, jobs_config, self.clock, RandomIds())
        self.job = EvaluationJob(
            self.database,
            self.blobs,
            self.evaluator,
            self.config,
            self.clock,
            SIGNER,
            self.jobs,
            self.home / "work",
            threading.Event(),
            retry_seconds=0.0,
        )
        self.job.register()
        self.loop = asyncio.Runner()
        self.foreman = Foreman(
            self.database, self.chain, self.loop, self.submissions, self.job, self.jobs, self.config, self.clock  # type: ignore[arg-type]
        )  # fmt: skip

    def push(
        self, hotkey: str, text: str, *, block: int | None = None, modality: Modality = Modality.IMAGE
    ) -> Received:
        package = self.home / "package.zip"
        package.write_text(text)
        received = self.submissions.receive(hotkey, package, modality, Vertical.GENERAL)
        if block is not None:
            self.chain.publish(hotkey, received, block)
        return received

    def open_round(self, identity: str = "round-1", modality: Modality = Modality.IMAGE) -> None:
        with self.database.write() as session:
            session.add(
                RoundRow(
                    id=identity, modality=modality.value, seed="7", state="open",
                    plan_blob="1" * 64, exam_blob="2" * 64,
                    data_hash="3" * 64, parameters={}, code_version="0", opened_at=self.clock.time(),
                )
            )  # fmt: skip

    def row(self, submission_id: str) -> SubmissionRow:
        with self.database.read() as session:
            return session.get_one(SubmissionRow, submission_id)

    def state(self, submission_id: str) -> SubmissionState:
        return SubmissionState(self.row(submission_id).state)

    def close(self) -> None:
        self.job.stopping.set()
        self.jobs.stop()
        self.loop.close()
        self.database.close()
