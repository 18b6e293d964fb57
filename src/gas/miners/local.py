"""A local pipeline as a service: one medium at a time, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from gas.errors import InfrastructureError, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask, Job, Pipeline

__all__ = ["LocalService", "leave_pipelines"]

_THREADS: Final = "gas-pipeline"


class LocalService:
    """Makes media here. Costs nothing, so what a stop cut off is made again, with the same seed.

    Args:
        pipeline: Makes media from nothing; called from one thread.
        editor: Changes given pictures, in the same thread; None where that is not offered.
    """

    def __init__(self, pipeline: Pipeline, editor: Pipeline | None = None) -> None:
        self.name = "local"
        self.modalities = pipeline.modalities
        # Some pipelines do both.
        editor = pipeline if editor is None and getattr(pipeline, "edits", False) else editor
        self.edits = editor is not None
        self.paid = False
        self._pipeline = pipeline
        self._editor = editor
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=_THREADS)

    async def submit(self, task: GenerationTask) -> GeneratedMedium | Job:
        """Make the medium.

        Raises:
            RequestRefused: 422 ``edits_not_offered``, or what the pipeline refuses.
            InfrastructureError: The pipeline failed.
        """
        pipeline = self._pipeline if task.source is None else self._editor
        if pipeline is None:
            raise RequestRefused("This miner changes no pictures.", status=422, code="edits_not_offered")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._generate, pipeline, task)

    @staticmethod
    def _generate(pipeline: Pipeline, task: GenerationTask) -> GeneratedMedium:
        try:
            return pipeline.generate(task)
        except MemoryError:
            raise InfrastructureError(
                "The pipeline ran out of memory.", code="out_of_memory", hint="Choose a smaller model or size."
            ) from None

    async def collect(self, job: Job) -> GeneratedMedium | None:
        """Never has anything to do.

        Raises:
            InfrastructureError: Always: a pipeline gives no jobs.
        """
        raise InfrastructureError(f"The local pipeline knows no job {job.id[:40]!r}.", code="unknown_job")

    async def close(self) -> None:
        """Begin nothing further; what is being made is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def leave_pipelines() -> None:
    """End this process when a pipeline is still at work; the last thing that a service does.

    Python waits for such threads, and a medium may take minutes. It is made again after the next start.
    """
    if any(thread.name.startswith(_THREADS) and thread.is_alive() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
