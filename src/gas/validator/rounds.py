"""One round of challenges: who is asked what, and what is put on record of those who don't take it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import structlog
from pydantic import BaseModel

from gas.chain.base import Metagraph
from gas.clock import Clock, IdSource, derive_rng
from gas.errors import ConfigurationError, Reason, RequestRefused
from gas.protocol.client import Answer, PeerUnreachable, SignedClient, encode_multipart
from gas.protocol.messages import (
    EDITS,
    GenerationParameters,
    GenerationRequest,
    MinerInfo,
    MinerType,
    TaskAccepted,
    parse_message,
)
from gas.types import Hotkey, Modality
from gas.validator.asking import CURSOR, Ask, Asking, Outcome
from gas.validator.ground import ServiceState
from gas.validator.owed import BUSY, OWED_SECONDS, Wish
from gas.validator.prompts import PromptBank, PromptFilter
from gas.validator.sampling import Target, candidates, draw_wish, sample

if TYPE_CHECKING:
    from gas.validator.edit_sources import EditSource, EditSources

__all__ = ["ChallengeRounds", "RoundReport", "RoundRules"]

M = TypeVar("M", bound=BaseModel)

_INFO_SECONDS: Final = 3600.0
_DAY: Final = 86_400.0
_OURS: Final = 3
"""When at least so many are asked and all of them are silent, the silence is taken for our own network's."""
_NO_MINER: Final = ("silent", "slow", "refused", "bad_answer")
"""What a neuron with a permit answers that generates nothing."""
_TASK_ID: Final = re.compile(r"[!-~]{1,64}")
_SENTENCES: Final = {
    "silent": "The miner can't be reached.",
    "slow": "The miner did not answer in time.",
    BUSY: "The miner's queue was full.",
    "bad_answer": "The miner's answer makes no sense.",
    "bad_info": "What the miner says of itself is not true.",
    "task_id_reused": "The miner gave a task id that it has used before.",
    "validator_offline": "Nobody could be reached: the trouble was the validator's.",
}


@dataclass(frozen=True, slots=True)
class RoundRules:
    """How to challenge.

    Attributes:
        webhook_url: Where miners deliver.
        interval_blocks: Every so many blocks there is a round.
        sample_size: How many miners a round asks.
        modalities: What is asked for, of those that a miner makes.
        seconds_for: Time for the delivery of a medium of a modality.
        timeout: Seconds in which a miner must answer.
        at_once: Requests that are out at a time.
        max_open: Open tasks of one miner at a time.
        max_backlog: Deliveries waiting for verification from which on nobody is asked.
        local_addresses: Whether axons at loop-back and private addresses are asked.
        semisynthetic_share: Of the challenges for pictures to those who change pictures, how many send a photo to be
            changed, in [0, 1].
    """

    webhook_url: str
    interval_blocks: int
    sample_size: int
    modalities: tuple[Modality, ...]
    seconds_for: Callable[[Modality], float]
    timeout: float = 10.0
    at_once: int = 32
    max_open: int = 4
    max_backlog: int = 1000
    local_addresses: bool = False
    semisynthetic_share: float = 0.0


@dataclass(slots=True)
class RoundReport:
    """How a round went.

    Attributes:
        block: At which it was drawn.
        skipped: Why nobody was asked; empty when somebody was.
        accepted: Requests that became tasks.
        others: The rest by the code of their reason.
    """

    block: int
    skipped: str = ""
    accepted: int = 0
    others: dict[str, int] = field(default_factory=dict)


class _Untakeable(Exception):
    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code)
        self.reason = Reason(code, message or _SENTENCES[code])


class ChallengeRounds:
    """Challenges generators, once an interval of blocks.

    A round belongs to the interval ``block // interval_blocks``; the last one that had its turn is kept in the same
    transaction as its requests. So a restart repeats none, and after a long pause there is one round, not many.

    Args:
        asking: Where requests are recorded.
        state: Of the service.
        bank: Prompts.
        client: Signs and sends.
        clock: The time.
        ids: Names of requests.
        rules: How to challenge.
        validator: Our hotkey.
        seed: Unknown to miners.
        edits: Photos to be changed; without them nobody is asked to change one.
        obstacle: Why nobody could deliver just now, in one sentence, and so nobody is asked; None when all is well.
        on_task: Told of each task in the event loop: hotkey, task id, deadline.
    """

    def __init__(
        self,
        asking: Asking,
        state: ServiceState,
        bank: PromptBank,
        client: SignedClient,
        clock: Clock,
        ids: IdSource,
        rules: RoundRules,
        validator: str,
        *,
        seed: int,
        edits: EditSources | None = None,
        obstacle: Callable[[], str | None] = lambda: None,
        on_task: Callable[[str, str, float], None] = lambda _miner, _task, _deadline: None,
    ) -> None:
        self._asking = asking
        self._state = state
        self._bank = bank
        self._client = client
        self._clock = clock
        self._ids = ids
        self._rules = rules
        self._validator = validator
        self._seed = seed
        self._edits = edits
        self._obstacle = obstacle
        self._on_task = on_task
        self._infos: dict[str, tuple[float, str, MinerInfo]] = {}
        self._log = structlog.get_logger("gas.validator")

    async def tick(self, block: int, graph: Metagraph) -> RoundReport | None:
        """Challenge generators when the block's interval has not had its turn.

        Args:
            block: The newest one.
            graph: The subnet as of about that block.

        Returns:
            None when there was nothing to do.

        Raises:
            gas.errors.StorageError: The database does not answer; what was asked by then stays on record.
        """
        interval = block // self._rules.interval_blocks
        cursor = await asyncio.to_thread(self._state.get, CURSOR)
        # A chain that was begun anew counts from zero again.
        same = cursor.get("every") == self._rules.interval_blocks
        behind = cursor.get("block", 0) - block
        if same and (interval == cursor.get("interval") or 0 < behind < self._rules.interval_blocks):
            return None
        kept = {"interval": interval, "every": self._rules.interval_blocks, "block": block}
        report = await self._round(block, graph, kept)
        await asyncio.to_thread(self._state.put, "last_round", _told(report, self._clock.time()))
        if report.skipped:
            self._log.warning("round_skipped", block=block, why=report.skipped)
        else:
            self._log.info("round", block=block, accepted=report.accepted, **report.others)
        return report

    async def _round(self, block: int, graph: Metagraph, cursor: dict[str, Any]) -> RoundReport:
        rules = self._rules
        backlog = await asyncio.to_thread(self._asking.backlog)
        if backlog >= rules.max_backlog:
            return RoundReport(block, f"{backlog} deliveries wait for their verification")
        wrong = await asyncio.to_thread(self._obstacle)
        if wrong is not None:
            return RoundReport(block, wrong)
        opened, recent = await asyncio.to_thread(self._asking.load, self._clock.time() - _DAY)
        rng = derive_rng(self._seed, "round", block)
        everyone = candidates(graph, self._validator, local=rules.local_addresses)
        drawn = sample(everyone, opened, recent, len(everyone), rules.max_open, rng)
        places = asyncio.Semaphore(rules.at_once)
        pairs = await self._generators(drawn, recent, places)
        known = {target.hotkey for target in everyone}
        self._infos = {hotkey: info for hotkey, info in self._infos.items() if hotkey in known}
        owed = await asyncio.to_thread(
            self._asking.owed, [target.hotkey for target, _ in pairs], self._clock.time() - OWED_SECONDS
        )
        try:
            planned = await asyncio.to_thread(self._plan, pairs, owed, block, rng)
        except ConfigurationError as error:
            return RoundReport(block, str(error))
        patience = 2 * rules.timeout * (1 + len(planned) / rules.at_once) + 60.0
        asks = [ask for ask, _, _ in planned]
        await asyncio.to_thread(self._asking.ask, asks, patience, self._state, cursor)
        report = RoundReport(block)

        async def challenge(ask: Ask, target: Target, known: _Untakeable | None) -> Outcome | None:
            if known is not None:
                return Outcome(ask, known.reason, blameless=known.reason.code == BUSY)
            async with places:
                return await self._challenge(ask, target)

        outcomes = [one for one in await asyncio.gather(*(challenge(*plan) for plan in planned)) if one is not None]
        report.accepted = len(asks) - len(outcomes)
        silent = [one for one in outcomes if one.reason.code in ("silent", "slow")]
        if len(silent) == len(asks) >= _OURS:
            offline = Reason("validator_offline", _SENTENCES["validator_offline"])
            outcomes = [Outcome(one.ask, offline, blameless=True) for one in outcomes]
        await asyncio.to_thread(self._asking.end, outcomes)
        for one in outcomes:
            report.others[one.reason.code] = report.others.get(one.reason.code, 0) + 1
        return report

    async def _generators(
        self, drawn: Sequence[Target], recent: Mapping[str, int], places: asyncio.Semaphore
    ) -> list[tuple[Target, MinerInfo | _Untakeable]]:
        """The first of those drawn that generate, as many as are asked in a round, and what is known of each."""

        async def ask_about(target: Target) -> MinerInfo | _Untakeable:
            async with places:
                return await self._info(target)

        found: list[tuple[Target, MinerInfo | _Untakeable]] = []
        at, size = 0, self._rules.sample_size
        while at < len(drawn) and len(found) < size:
            some = drawn[at : at + size - len(found)]
            at += len(some)
            for target, info in zip(some, await asyncio.gather(*map(ask_about, some)), strict=True):
                if isinstance(info, _Untakeable):
                    # A validator that has not set weights yet: it has a permit, and has never said that it generates.
                    if target.permit and not recent.get(target.hotkey, 0) and info.reason.code in _NO_MINER:
                        continue
                elif info.miner_type is not MinerType.GENERATOR or not self._offered(info):
                    continue
                found.append((target, info))
        return found

    def _offered(self, info: MinerInfo) -> list[Modality]:
        return [modality for modality in self._rules.modalities if modality in info.modalities]

    def _plan(
        self,
        pairs: Sequence[tuple[Target, MinerInfo | _Untakeable]],
        owed: Mapping[tuple[Hotkey, str], Wish],
        block: int,
        rng: np.random.Generator,
    ) -> list[tuple[Ask, Target, _Untakeable | None]]:
        """What to ask of whom; runs in a thread, because each draw of a prompt is a transaction."""
        planned: list[tuple[Ask, Target, _Untakeable | None]] = []
        lacking: ConfigurationError | None = None
        for target, info in pairs:
            id_ = f"asked-{self._ids.new()}"
            if isinstance(info, _Untakeable):
                # What it makes is unknown, and no prompt is spent on it.
                modality = self._rules.modalities[0]
                planned.append((Ask(id_, target.hotkey, target.uid, modality, 0, "", None, block), target, info))
                continue
            modality, tier, name = draw_wish(self._offered(info), rng)
            edit = self._edit(modality, info, owed.get((target.hotkey, EDITS)), rng)
            kind = modality.value if edit is None else EDITS
            parameters: dict[str, Any] = {"resolution": name} if edit is None else {}
            wish = owed.get((target.hotkey, kind))
            if wish is None:
                try:
                    drawn = self._bank.draw(rng, PromptFilter(modality))
                except ConfigurationError as error:
                    # Others may be asked for what there are prompts for.
                    lacking = error
                    continue
                wish = Wish(modality, tier, drawn.text, drawn.id, parameters)
            elif edit is None:
                parameters = dict(wish.parameters)
            ask = Ask(
                id_,
                target.hotkey,
                target.uid,
                modality,
                wish.tier,
                wish.prompt,
                wish.prompt_id,
                block,
                parameters,
                edit,
            )
            planned.append((ask, target, None))
        if lacking is not None and not planned:
            raise lacking
        return planned

    def _edit(
        self, modality: Modality, info: MinerInfo, owed: Wish | None, rng: np.random.Generator
    ) -> EditSource | None:
        """A photo to be changed, when it is its turn and the miner says that it changes pictures.

        The tier that is paid is drawn as ever: whoever changes photos, which are small, must not earn less for it.
        """
        if self._edits is None or modality is not Modality.IMAGE or EDITS not in info.services:
            return None
        if rng.random() >= self._rules.semisynthetic_share:
            return None
        again = self._edits.again(owed.parameters) if owed is not None else None
        return again or self._edits.draw(rng)

    async def _info(self, target: Target) -> MinerInfo | _Untakeable:
        now = self._clock.monotonic()
        kept = self._infos.get(target.hotkey)
        if kept is not None and kept[1] == target.url and now - kept[0] < _INFO_SECONDS:
            return kept[2]
        try:
            answer = await self._send("GET", f"{target.url}/miner_info", target)
            info = _read(MinerInfo, answer.body, "bad_info")
            if info.hotkey != target.hotkey:
                raise _Untakeable("bad_info")
        except _Untakeable as error:
            return error
        except RequestRefused as refusal:
            return _Untakeable("refused", _cut(refusal))
        self._infos[target.hotkey] = (now, target.url, info)
        return info

    async def _challenge(self, ask: Ask, target: Target) -> Outcome | None:
        request = GenerationRequest(
            prompt=ask.prompt, parameters=GenerationParameters.model_validate(dict(ask.parameters))
        )
        call, text = f"gen_{ask.modality}", request.model_dump_json(exclude_none=True)
        body, kind = text.encode(), "application/json"
        if ask.edit is not None:
            pictures = {"image": ask.edit.image, "mask": ask.edit.mask}
            call = EDITS
            body, kind = encode_multipart(
                {"request": text}, {name: (f"{name}.png", png, "image/png") for name, png in pictures.items()}
            )
        try:
            answer = await self._send(
                "POST",
                f"{target.url}/{call}",
                target,
                body=body,
                content_type=kind,
                headers={"X-Webhook-URL": self._rules.webhook_url},
            )
            accepted = _read(TaskAccepted, answer.body, "bad_answer")
            if not _TASK_ID.fullmatch(accepted.task_id):
                raise _Untakeable("bad_answer")
            deadline = await asyncio.to_thread(
                self._asking.accept, ask, accepted.task_id, self._rules.seconds_for(ask.modality)
            )
            if deadline is None:
                raise _Untakeable("task_id_reused")
        except _Untakeable as error:
            self._infos.pop(ask.miner, None)
            return Outcome(ask, error.reason, blameless=error.reason.code == BUSY)
        except RequestRefused as refusal:
            self._infos.pop(ask.miner, None)
            if refusal.status == 429:
                return Outcome(ask, Reason(BUSY, _SENTENCES[BUSY]), blameless=True)
            return Outcome(ask, Reason("refused", _cut(refusal)))
        self._on_task(ask.miner, accepted.task_id, deadline)
        return None

    async def _send(self, method: str, url: str, target: Target, **rest: Any) -> Answer:
        try:
            async with asyncio.timeout(self._rules.timeout):
                return await self._client.send(method, url, signed_for=target.hotkey, **rest)
        except TimeoutError:
            raise _Untakeable("slow") from None
        except PeerUnreachable as error:
            codes = {"peer_failed": "bad_answer", "answer_too_large": "bad_answer"}
            raise _Untakeable(BUSY if error.status == 503 else codes.get(error.error_code, "silent")) from None


def _read(model: type[M], body: bytes, code: str) -> M:
    try:
        return parse_message(model, body)
    except RequestRefused:
        raise _Untakeable(code) from None


def _cut(refusal: RequestRefused) -> str:
    said = "".join(c for c in refusal.message[:300] if c.isprintable())
    return f"The miner refuses with status {refusal.status}: {said}"


def _told(report: RoundReport, now: float) -> dict[str, Any]:
    return {
        "block": report.block,
        "at": now,
        "skipped": report.skipped,
        "accepted": report.accepted,
        "others": report.others,
    }
