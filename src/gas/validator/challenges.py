"""Challenging generators: send prompts, wait for deliveries, stop when there is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import structlog

from gas.errors import RequestRefused
from gas.protocol.client import PeerUnreachable, SignedClient
from gas.protocol.messages import GenerationRequest, TaskAccepted, parse_message
from gas.types import Hotkey, Modality
from gas.validator.tasks import Challenges

__all__ = ["ChallengeRules", "Challenger", "GeneratorPeer"]


@dataclass(frozen=True, slots=True)
class GeneratorPeer:
    """A generator to be challenged: its hotkey and its address, e.g. ``http://203.0.113.7:8091``."""

    hotkey: Hotkey
    url: str


@dataclass(frozen=True, slots=True)
class ChallengeRules:
    """How to challenge.

    Attributes:
        wanted: Verified media that each generator should end up with.
        max_challenges: Most challenges of one generator; more would reward flooding.
        in_flight: Open tasks of one generator at a time.
        task_seconds: Time that a generator has for one delivery.
        max_failures: Failed attempts to reach a generator after which it is left alone.
        retry_seconds: Pause after a failed attempt.
    """

    wanted: int
    max_challenges: int
    in_flight: int = 4
    task_seconds: float = 120.0
    max_failures: int = 20
    retry_seconds: float = 0.5


class Challenger:
    """Challenges generators over signed HTTP.

    Args:
        challenges: Where tasks are recorded.
        client: Signs and sends.
        webhook_url: Where generators deliver.
        draw_prompt: Gives the prompt of the next challenge.
        rules: How to challenge.
    """

    def __init__(
        self,
        challenges: Challenges,
        client: SignedClient,
        webhook_url: str,
        draw_prompt: Callable[[np.random.Generator], str],
        rules: ChallengeRules,
    ) -> None:
        self._challenges = challenges
        self._client = client
        self._webhook_url = webhook_url
        self._draw_prompt = draw_prompt
        self._rules = rules
        self._settled = asyncio.Event()
        self._log = structlog.get_logger("gas.validator")

    def settled(self) -> None:
        """To be called after each delivery, in the event loop: wakes those who wait for one."""
        # Whoever waits holds the old event; whoever looks from now on takes the new one, so that none is missed.
        self._settled.set()
        self._settled = asyncio.Event()

    async def collect(self, peers: Sequence[GeneratorPeer], modality: Modality, rng: np.random.Generator) -> None:
        """Challenge every peer until it has delivered enough, or has had its chances.

        Args:
            peers: The generators.
            modality: What to ask for.
            rng: For the prompts.
        """
        # A generator of its own for each peer: the order of answers must not decide who gets which prompt.
        seeds = rng.integers(0, 2**63, size=len(peers))
        async with asyncio.TaskGroup() as group:
            for peer, seed in zip(peers, seeds, strict=True):
                group.create_task(self._collect_one(peer, modality, np.random.default_rng(int(seed))))

    async def _collect_one(self, peer: GeneratorPeer, modality: Modality, rng: np.random.Generator) -> None:
        rules, failures = self._rules, 0
        while failures < rules.max_failures:
            settled = self._settled
            await asyncio.to_thread(self._challenges.expire)
            counts = await asyncio.to_thread(self._challenges.counts, peer.hotkey)
            pending = counts.open
            total = sum(counts.states.values())
            if counts.verified >= rules.wanted or (total >= rules.max_challenges and not pending):
                return
            room = min(rules.in_flight, rules.wanted - counts.verified) - pending
            if room <= 0 or total >= rules.max_challenges:
                # Without a delivery there may be an expiry to see.
                with suppress(TimeoutError):
                    await asyncio.wait_for(settled.wait(), rules.task_seconds / 10)
                continue
            if not await self._challenge(peer, modality, self._draw_prompt(rng)):
                failures += 1
                await asyncio.sleep(rules.retry_seconds)

    async def _challenge(self, peer: GeneratorPeer, modality: Modality, prompt: str) -> bool:
        request = GenerationRequest(prompt=prompt)
        try:
            answer = await self._client.post_json(
                f"{peer.url}/gen_{modality}",
                request,
                signed_for=peer.hotkey,
                headers={"X-Webhook-URL": self._webhook_url},
            )
            accepted = parse_message(TaskAccepted, answer.body)
            parameters = request.parameters.model_dump(exclude_none=True)
            await asyncio.to_thread(
                self._challenges.record,
                peer.hotkey,
                accepted.task_id,
                modality,
                prompt,
                parameters,
                self._rules.task_seconds,
            )
        except (RequestRefused, PeerUnreachable) as error:
            self._log.info("challenge_not_taken", miner=peer.hotkey, code=error.error_code)
            return False
        return True
