"""Bringing media to validators: repeated until taken, refused for good, or too old."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import structlog

from gas.clock import Clock
from gas.errors import RequestRefused, StorageError
from gas.miners.faults import advice
from gas.miners.states import Task, TaskState, Verdict
from gas.miners.tasks import TaskStore
from gas.protocol.client import Answer, PeerUnreachable, SignedClient, encode_json
from gas.protocol.messages import GenerationFailure

__all__ = ["Courier", "DeliveryRules", "read_verdict"]

_FINAL_REFUSALS: Final = frozenset({400, 401, 403, 405, 409, 410, 413, 415, 422})
_UNKNOWN_TASK: Final = 404
_GRACE_FOR_UNKNOWN: Final = 3
_MAX_ANSWER: Final = 64 * 1024
_MAX_REASONS: Final = 16
_CODE: Final = re.compile(r"[a-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """When to give a delivery up.

    Attributes:
        max_age_seconds: A task older than this is not delivered any more.
        first_pause_seconds: Pause after the first failed attempt; it doubles from one to the next.
        max_pause_seconds: Longest pause.
        timeout_seconds: Wall clock of one attempt, from the first byte sent to the last one received.
        at_once: Deliveries under way at a time; each holds its medium in memory.
        at_once_each: As above, to one validator: a slow one must not hold up the others.
    """

    max_age_seconds: float = 600.0
    first_pause_seconds: float = 0.5
    max_pause_seconds: float = 30.0
    timeout_seconds: float = 30.0
    at_once: int = 8
    at_once_each: int = 4


class Courier:
    """Delivers what tasks have come to.

    Args:
        store: The tasks.
        client: Signs with the miner's hotkey and sends.
        clock: For the age of tasks.
        rules: When to give up.
    """

    def __init__(self, store: TaskStore, client: SignedClient, clock: Clock, rules: DeliveryRules) -> None:
        self._store = store
        self._client = client
        self._clock = clock
        self._rules = rules
        self._places = asyncio.Semaphore(rules.at_once)
        self._own_places: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(rules.at_once_each))
        self._log = structlog.get_logger("gas.miner")

    async def deliver(self, task_id: str) -> None:
        """Deliver until the task ends.

        Raises:
            StorageError: The database failed; the task is still to be delivered.
        """
        task = await asyncio.to_thread(self._store.get, task_id)
        if task is None or task.state is not TaskState.DELIVERING:
            return
        pause, unknown = self._rules.first_pause_seconds, 0
        while self._clock.time() - task.created_at <= self._rules.max_age_seconds:
            outcome = await self._attempt(task)
            if isinstance(outcome, Answer):
                await self._end(task, read_verdict(outcome.body))
                return
            if isinstance(outcome, RequestRefused):
                if outcome.error_code == "already_delivered":
                    # An earlier attempt went through, and its answer was lost.
                    await self._end(task, Verdict())
                    return
                # The delivery may overtake the answer that tells the validator the task's id.
                unknown += outcome.status == _UNKNOWN_TASK
                if outcome.status in _FINAL_REFUSALS or unknown > _GRACE_FOR_UNKNOWN:
                    await self._refused(task, outcome)
                    return
            elif outcome.error_code == "redirected":
                await self._lost(task, TaskState.FAILED, "webhook_redirected", "The webhook redirects.")
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._rules.max_pause_seconds)
        await self._lost(task, TaskState.EXPIRED, "expired", "Too old to be delivered.")

    async def _attempt(self, task: Task) -> Answer | RequestRefused | PeerUnreachable:
        async with self._own_places[task.validator], self._places:
            headers = {"task-id": task.id}
            if task.error is not None:
                failure = GenerationFailure(error_message=task.error, code=task.error_code)
                body, mime = encode_json(failure), "application/json"
                headers["task-status"] = "failed"
            else:
                try:
                    body = await asyncio.to_thread(self._store.medium, task)
                except StorageError as error:
                    if error.error_code not in ("blob_missing", "blob_damaged"):
                        raise
                    failure = GenerationFailure(error_message="The miner lost the medium.", code="medium_lost")
                    body, mime = encode_json(failure), "application/json"
                    headers["task-status"] = "failed"
                    self._log.error("medium_lost", task=task.id, code=error.error_code, what_to_do="Check the disk.")
                else:
                    mime = task.mime or "application/octet-stream"
            await asyncio.to_thread(self._store.attempted, task.id)
            try:
                async with asyncio.timeout(self._rules.timeout_seconds):
                    return await self._client.send(
                        "POST",
                        task.webhook_url,
                        body=body,
                        content_type=mime,
                        signed_for=task.validator,
                        headers=headers,
                        max_answer=_MAX_ANSWER,
                    )
            except TimeoutError:
                problem = PeerUnreachable("The webhook is too slow.", code="webhook_slow")
            except RequestRefused as refusal:
                return refusal
            except PeerUnreachable as error:
                problem = error
            self._log.info(
                "delivery_attempt_failed", task=task.id, validator=task.validator, code=problem.error_code,
                error=problem.message,
            )  # fmt: skip
            return problem

    async def _end(self, task: Task, verdict: Verdict) -> None:
        state = TaskState.DELIVERED if task.error is None else TaskState.FAILED
        if await asyncio.to_thread(self._store.finish, task, state, task.error, code=task.error_code, verdict=verdict):
            self._log.info(
                "delivered" if task.error is None else "failure_told",
                task=task.id, validator=task.validator, verdict=verdict.status, reasons=list(verdict.reasons),
            )  # fmt: skip

    async def _refused(self, task: Task, refusal: RequestRefused) -> None:
        code = refusal.error_code if _CODE.fullmatch(refusal.error_code) else "unknown"
        told = f"The validator refused the delivery with status {refusal.status} ({code})."
        await self._lost(task, TaskState.FAILED, "delivery_refused", told, Verdict("", (code,)))

    async def _lost(
        self, task: Task, state: TaskState, code: str, message: str, verdict: Verdict | None = None
    ) -> None:
        # A task that could not even be made keeps the first reason.
        error, kept = (message, code) if task.error is None else (task.error, task.error_code)
        if await asyncio.to_thread(self._store.finish, task, state, error, code=kept, verdict=verdict):
            self._log.warning(
                "delivery_given_up", task=task.id, validator=task.validator, code=code, error=message,
                what_to_do=advice(code),
            )  # fmt: skip


def read_verdict(body: bytes) -> Verdict:
    """What a validator answered: ``{"status", "reasons": [{"code"}, ...]}``, hostile, and often something else."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return Verdict()
    if not isinstance(data, dict) or data.get("status") not in ("verified", "refused"):
        return Verdict()
    reasons = data.get("reasons")
    codes = []
    for reason in reasons[:_MAX_REASONS] if isinstance(reasons, list) else []:
        code = reason.get("code") if isinstance(reason, dict) else reason
        if isinstance(code, str) and _CODE.fullmatch(code):
            codes.append(code)
    return Verdict(data["status"], tuple(codes))
