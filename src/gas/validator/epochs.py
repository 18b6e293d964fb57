"""Epochs: scores are folded and weights reckoned once, then set on the chain until the chain has taken them.

What is covered: a process killed between any two writes, two processes that do the same epoch, an extrinsic that is
refused or whose answer is lost. The history of scores, the reckoning and the mark that says so are one transaction;
setting the same weights twice changes nothing, and the chain's own rate limit refuses it. What is not: an epoch in
which nobody ran is not made up for later.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import delete
from sqlalchemy.orm import Session

from gas.chain.base import Chain, Hyperparameters, Metagraph
from gas.chain.receipts import Revealed, publish, reveal_kept
from gas.chain.weights import WeightsReceipt
from gas.clock import Clock
from gas.errors import ChainError, ConfigurationError, RateLimited
from gas.scoring.weights import EmissionProfile
from gas.storage.database import Database
from gas.storage.tables import ServiceStateRow, WeightsLogRow
from gas.validator.explain import sentences
from gas.validator.factors import Reckoning
from gas.validator.reckoning import PayRules, Since, reckon, weigh
from gas.validator.scores import weights_to_u16

__all__ = ["EpochOutcome", "EpochRunner", "epoch_length", "last_reckoning"]

_SERVICE: Final = "sn34-validator"
_RECKONED: Final = "weights"
_SENT: Final = "weights-sent"
_LOG_DAYS: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Place:
    home: Path
    netuid: int
    chain_endpoint: str


@dataclass(frozen=True, slots=True)
class EpochOutcome:
    """What one look at the chain has led to.

    Attributes:
        epoch: The newest epoch; None before the first one.
        new: Whether it was reckoned now.
        published: Whether the chain has its weights.
        receipt: How, when that happened now.
        error: Why not, when the chain refused or was not reached now.
    """

    epoch: int | None
    new: bool = False
    published: bool = False
    receipt: WeightsReceipt | None = None
    error: str | None = None


def epoch_length(rules: Hyperparameters) -> int:
    """Blocks from one epoch to the next: as often as the subnet lets weights be set; a tempo where it doesn't limit."""
    return max(1, rules.weights_rate_limit or rules.tempo)


def last_reckoning(database: Database, netuid: int) -> Reckoning | None:
    """The newest epoch's weights as they were logged; None before the first epoch."""
    with database.read() as session:
        row = session.get(ServiceStateRow, (_SERVICE, _key(_RECKONED, netuid)))
        return None if row is None else Reckoning.from_dict(row.value["reckoning"])


class EpochRunner:
    """The epochs of one validator on one subnet.

    Args:
        database: Challenges, media, judgements, scores, and what happened last.
        chain: Signs as the validator.
        validator: Its hotkey.
        profile: Shares of the classes.
        clock: Dates the reckoning.
        netuid: The subnet.
        home: Where receipts of commits are kept until they are revealed.
        endpoint: Address of the chain; its digest goes into the receipts.
        rules: Competitions, prices and shares.
        version_key: Of the weights.
    """

    def __init__(
        self,
        database: Database,
        chain: Chain,
        validator: str,
        profile: EmissionProfile,
        clock: Clock,
        *,
        netuid: int,
        home: Path,
        endpoint: str,
        rules: PayRules | None = None,
        version_key: int = 0,
    ) -> None:
        self._database = database
        self._chain = chain
        self._validator = validator
        self._profile = profile
        self._clock = clock
        self._netuid = netuid
        self._place = _Place(home, netuid, endpoint)
        self._rules = rules or PayRules()
        self._version_key = version_key
        self._not_before = 0
        self._log = structlog.get_logger("gas.validator").bind(netuid=netuid)

    async def tick(self, block: int) -> EpochOutcome:
        """Do what is due at a block: reveal, reckon, set weights. To be called at every block, or now and then.

        Errors of the chain are logged and tried again at the next call.

        Args:
            block: The newest one.

        Raises:
            gas.errors.StorageError: The database does not answer.
        """
        state = await asyncio.to_thread(self._state)
        new = False
        try:
            for one in await self.reveal():
                if one.state != "waiting":
                    self._log.info("weights_reveal", state=one.state, weights=one.weights, why=one.message)
        except ChainError as error:
            # What was committed before must not hold up what is due now.
            self._log.warning("weights_not_revealed", code=error.error_code, why=str(error))
        try:
            length = epoch_length(await self._chain.hyperparameters(self._netuid))
            graph: Metagraph | None = None
            if _due(state.get("epoch"), block, length):
                graph = await self._chain.metagraph(self._netuid)
                before, state = state.get("epoch"), await asyncio.to_thread(self._reckon, graph, block, length)
                new = state["epoch"] != before
            epoch = int(state["epoch"])
            if state["published"] or block < self._not_before:
                return EpochOutcome(epoch, new, bool(state["published"]))
            if state["tried"] is not None:
                graph = graph or await self._chain.metagraph(self._netuid)
                own = graph.by_hotkey(self._validator)
                if own is not None and own.last_update >= state["tried"]:
                    # The answer was lost, or we were: the chain has taken them all the same.
                    await asyncio.to_thread(self._mark, epoch, state["tried"], True)
                    return EpochOutcome(epoch, new, True)
            receipt = await self._publish(Reckoning.from_dict(state["reckoning"]), block)
            uids = len(receipt.uids)
            self._log.info("weights_set", epoch=epoch, kind=receipt.kind, block=receipt.block, uids=uids)
            return EpochOutcome(epoch, new, True, receipt)
        except RateLimited as error:
            self._not_before = block + max(1, error.blocks)
            return self._failed(error, state, new)
        except (ChainError, ConfigurationError) as error:
            return self._failed(error, state, new)

    async def set_now(self, block: int) -> tuple[Reckoning, WeightsReceipt]:
        """Reckon, if an epoch is due or the profile is another one than the newest epoch's, and set the weights.

        Args:
            block: The newest one.

        Raises:
            gas.errors.ChainError: As :meth:`gas.chain.base.Chain.publish_weights`.
            ConfigurationError: ``no_burn_slot``.
        """
        length = epoch_length(await self._chain.hyperparameters(self._netuid))
        graph = await self._chain.metagraph(self._netuid)
        state = await asyncio.to_thread(self._reckon, graph, block, length)
        reckoning = Reckoning.from_dict(state["reckoning"])
        return reckoning, await self._publish(reckoning, block)

    async def preview(self, block: int) -> Reckoning:
        """What the weights would be if an epoch were reckoned now; nothing is kept."""
        graph = await self._chain.metagraph(self._netuid)

        def work() -> Reckoning:
            with self._database.read() as session:
                return self._reckoned(session, graph, block, self._last(session), keep=False)

        return await asyncio.to_thread(work)

    async def reveal(self) -> list[Revealed]:
        """Reveal what was committed in earlier epochs, as far as it is due."""
        return await reveal_kept(self._chain, self._place, self._validator, self._clock)

    async def _publish(self, reckoning: Reckoning, block: int) -> WeightsReceipt:
        await asyncio.to_thread(self._mark, reckoning.epoch, block, False)
        uids, values = weights_to_u16(reckoning.weights)
        receipt = await publish(self._chain, self._place, self._validator, uids, values, self._version_key, self._clock)
        await asyncio.to_thread(self._mark, reckoning.epoch, receipt.block, True)
        return receipt

    def _failed(self, error: ChainError | ConfigurationError, state: dict[str, Any], new: bool) -> EpochOutcome:
        self._log.warning("weights_not_set", code=error.error_code, why=str(error))
        return EpochOutcome(state.get("epoch"), new, False, None, error.error_code)

    def _reckon(self, graph: Metagraph, block: int, length: int) -> dict[str, Any]:
        """Reckon the epoch if nobody has, in one transaction with the mark that says so."""

        def work(session: Session) -> dict[str, Any]:
            kept = self._last(session)
            if kept is not None and not _due(kept["epoch"], block, length):
                if kept["reckoning"]["profile"] == self._profile.name:
                    return self._with_sent(session, kept)
                # Other shares of the same scores: the history has this epoch already.
                old = Reckoning.from_dict(kept["reckoning"])
                since = Since(old.since, None)
                found = weigh(
                    session, graph, old.generators, profile=self._profile, rules=self._rules, block=old.epoch,
                    now=old.at, since=since,
                )  # fmt: skip
            else:
                found = self._reckoned(session, graph, block, kept, keep=True)
            return self._with_sent(session, self._keep(session, found, block))

        return self._database.transact(work)

    def _reckoned(
        self, session: Session, graph: Metagraph, block: int, kept: dict[str, Any] | None, *, keep: bool
    ) -> Reckoning:
        now = self._clock.time()
        since = None
        if kept is not None:
            # A chain that begins anew has lower blocks: nobody's slot is newer than the last epoch then.
            since = Since(float(kept["at"]), int(kept["epoch"]) if kept["epoch"] <= block else None)
        return reckon(
            session, graph, validator=self._validator, profile=self._profile, rules=self._rules, block=block, now=now,
            since=since, keep=keep,
        )  # fmt: skip

    def _keep(self, session: Session, found: Reckoning, block: int) -> dict[str, Any]:
        now, values = self._clock.time(), found.as_dict()
        why = {str(uid): lines for uid, lines in sentences(found).items()}
        session.add(
            WeightsLogRow(
                netuid=self._netuid,
                block=block,
                weights=values["weights"],
                reasons={"sentences": why, "factors": values},
                created_at=now,
            )
        )
        session.execute(delete(WeightsLogRow).where(WeightsLogRow.created_at < now - _LOG_DAYS * 86_400.0))
        kept = {"epoch": found.epoch, "at": found.at, "reckoning": values}
        _put(session, _key(_RECKONED, self._netuid), kept, now)
        sent = {"epoch": found.epoch, "tried": None, "published": False}
        _put(session, _key(_SENT, self._netuid), sent, now)
        return kept

    def _state(self) -> dict[str, Any]:
        with self._database.read() as session:
            kept = self._last(session)
            return {} if kept is None else self._with_sent(session, kept)

    def _last(self, session: Session) -> dict[str, Any] | None:
        row = session.get(ServiceStateRow, (_SERVICE, _key(_RECKONED, self._netuid)))
        return None if row is None else dict(row.value)

    def _with_sent(self, session: Session, kept: dict[str, Any]) -> dict[str, Any]:
        row = session.get(ServiceStateRow, (_SERVICE, _key(_SENT, self._netuid)))
        sent = dict(row.value) if row is not None else {}
        if sent.get("epoch") != kept["epoch"]:
            sent = {"tried": None, "published": False}
        return {**kept, "tried": sent["tried"], "published": sent["published"]}

    def _mark(self, epoch: int, block: int, published: bool) -> None:
        def work(session: Session) -> None:
            row = session.get(ServiceStateRow, (_SERVICE, _key(_SENT, self._netuid)))
            if row is not None and row.value.get("epoch") == epoch and row.value.get("published") and not published:
                return
            _put(
                session,
                _key(_SENT, self._netuid),
                {"epoch": epoch, "tried": block, "published": published},
                self._clock.time(),
            )

        self._database.transact(work)


def _due(epoch: int | None, block: int, length: int) -> bool:
    return epoch is None or block - epoch >= length or block < epoch


def _key(name: str, netuid: int) -> str:
    return f"{name}/{netuid}"


def _put(session: Session, key: str, value: dict[str, Any], now: float) -> None:
    session.merge(ServiceStateRow(service=_SERVICE, key=key, value=value, updated_at=now))
