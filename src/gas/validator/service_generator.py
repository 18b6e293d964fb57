"""The service ``sn34-generator``: verification first, then prompts, then media of the validator's own making.

Two loops: one judges deliveries, the other one does in idle time what can wait. All state is in the database and in the
index of copies, which is built again from the database when it is lost: a service that was killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from gas.chain.base import Metagraph
from gas.errors import ChainError, ConfigurationError, InfrastructureError, IntegrityError, StorageError
from gas.validator.ground import Ground
from gas.validator.settings import ValidatorSettings
from gas.validator.store import MediaStore
from gas.validator.tasks import ChallengeState

if TYPE_CHECKING:
    from gas.validator.double_sales import DoubleSales
    from gas.validator.local_making import LocalMaking
    from gas.validator.prompt_supply import PromptSupply
    from gas.validator.real_photos import RealPhotos
    from gas.validator.verifying import Verifying
    from gas.verification.base import Alignment, Embedder
    from gas.verification.duplicates import MediaIndex
    from gas.verification.pipeline import Verifier

__all__ = ["open_alignments", "open_index", "read_anchors", "run"]

_POLL_SECONDS: Final = 0.5
_IDLE_SECONDS: Final = 5.0
_BEAT_SECONDS: Final = 15.0
_MEMBERS_SECONDS: Final = 60.0
_LONGEST_RETRY: Final = 60.0
_PHOTOS_AT_ONCE: Final = 8
_LAST_SECONDS: Final = 8.0

T = TypeVar("T")


@dataclass(slots=True)
class _Tally:
    """What the service has done since it started, for its heartbeat."""

    states: dict[str, int] = field(default_factory=dict)
    prompts: int = 0
    local: int = 0
    photos: int = 0
    members: Mapping[str, int] | None = None
    withdrawn: int = 0


async def run(ground: Ground) -> None:
    """Run until ``ground.stop`` is set.

    Args:
        ground: Settings, stores, chain and keys.

    Raises:
        ConfigurationError: A setting is wrong: the trust anchors, an alignment model, the registry of local models.
        gas.errors.StorageError: The index of copies can't be opened.
    """
    from gas.validator.double_sales import AGREEING, SAME_MINER_BITS, DoubleSales
    from gas.validator.embedder import open_copy_embedder
    from gas.validator.verifying import Verifying
    from gas.verification.base import VerificationRules
    from gas.verification.pipeline import Verifier

    settings, tally = ground.settings, _Tally()
    log = structlog.get_logger("gas.validator").bind(service=ground.service)
    anchors, alignments = read_anchors(settings), open_alignments(settings.alignment)
    if settings.local_media_registry is not None:
        from gas.generation.registry import load_models

        await asyncio.to_thread(load_models, settings.local_media_registry)
    folder = settings.state_path / "index"
    embedder = await asyncio.to_thread(open_copy_embedder, settings.embedding, settings.state_path)
    index = await asyncio.to_thread(open_index, folder, embedder)
    prints = settings.state_path / "prints"
    open_prints = partial(open_index, prints, near_bits=SAME_MINER_BITS, agreeing=AGREEING)
    elsewhere = await asyncio.to_thread(open_prints)

    def renew_prints() -> MediaIndex:
        shutil.rmtree(prints, ignore_errors=True)
        return open_prints()

    sales = DoubleSales(
        ground.database, ground.hotkey, elsewhere, renew_prints, ground.state, ground.clock,
        reveal_seconds=settings.callback_prints_seconds,
    )  # fmt: skip
    # All that the operator may have got wrong has been looked at; loading models must not make it look dead.
    await asyncio.to_thread(ground.beat)
    verifiers: list[Verifier] = []
    try:
        for _ in range(settings.verify_at_once):
            made = Verifier(
                index, anchors, alignments=alignments, embedder=embedder, rules=VerificationRules(), clock=ground.clock
            )
            verifiers.append(made)
        verifying = Verifying(
            ground.database, ground.blobs, verifiers, index, ground.hotkey, ground.clock, worker=_worker(folder),
            members=lambda: tally.members, folder=folder, elsewhere=sales.refusal,
        )  # fmt: skip
        known = await asyncio.to_thread(verifying.catch_up)
        log.info("index_ready", rows=len(index), added=known.taken, unreadable=known.unreadable)
        work = [
            asyncio.create_task(_verify(ground, verifying, tally)),
            asyncio.create_task(_idle(ground, verifying, partial(_open_idle, ground, index, folder, embedder), tally)),
        ]
        tasks = [
            *work,
            asyncio.create_task(_withdraw(ground, sales, tally)),
            asyncio.create_task(_members(ground, tally)),
            asyncio.create_task(_beats(ground, verifying, tally)),
        ]
        try:
            await _first_end(ground, tasks)
            # What is under way is finished, if it takes a moment; it may also be cut off and is done again then.
            await asyncio.wait(work, timeout=_LAST_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for verifier in verifiers:
            verifier.close()
        sales.close()
        index.close()


def read_anchors(settings: ValidatorSettings) -> bytes:
    """The certificate authorities whose content credentials count, in PEM.

    Raises:
        ConfigurationError: ``trust_anchors``: there are none, or the file can't be read.
    """
    from gas.verification.provenance import check_anchors

    path = settings.trust_anchors or settings.gas_home / "authority" / "root.pem"
    try:
        anchors = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"The trust anchors can't be read from {path} ({error.strerror}).",
            code="trust_anchors",
            hint="Set TRUST_ANCHORS to a PEM file with the authorities that generators may sign under.",
        ) from error
    check_anchors(anchors)
    return anchors


def open_alignments(words: str) -> tuple[Alignment, ...]:
    """The models that compare pictures with prompts.

    Args:
        words: ``light`` or folders of CLIP models, with commas between them; empty for none.

    Raises:
        ConfigurationError: A folder holds no such model.
    """
    named = [word.strip() for word in words.split(",") if word.strip()]
    found: list[Alignment] = []
    if "light" in named:
        from gas.verification.alignment import LightAlignment

        found.append(LightAlignment())
    folders = [Path(word) for word in named if word != "light"]
    if folders:
        from gas.verification.clip import load_ensemble

        found.extend(load_ensemble(folders))
    return tuple(found)


def open_index(folder: Path, embedder: Embedder | None = None, *, near_bits: int = 4, agreeing: int = 4) -> MediaIndex:
    """The index of copies of this service; one of another version is thrown away, and filled again by its caller.

    Args:
        folder: Where it is.
        embedder: For its embeddings; without one it keeps none.
        near_bits: As of :class:`gas.verification.duplicates.MediaIndex`.
        agreeing: As above.

    Raises:
        ConfigurationError: Another process has it.
        gas.errors.StorageError: The folder can't be written.
    """
    from gas.verification.duplicates import MediaIndex

    kept = None if embedder is None else (embedder.size, embedder.threshold)
    try:
        return MediaIndex(folder, near_bits=near_bits, agreeing=agreeing, embedding=kept)
    except IntegrityError:
        shutil.rmtree(folder, ignore_errors=True)
        return MediaIndex(folder, near_bits=near_bits, agreeing=agreeing, embedding=kept)


@dataclass(slots=True)
class _Idle:
    prompts: PromptSupply
    photos: RealPhotos
    local: LocalMaking | None


def _open_idle(ground: Ground, index: MediaIndex, folder: Path, embedder: Embedder | None) -> _Idle:
    from gas.datasets.store import open_store
    from gas.generation.registry import load_models
    from gas.validator.local_making import LocalMaking
    from gas.validator.prompt_supply import PromptSupply
    from gas.validator.real_photos import RealPhotos
    from gas.validator.service_data import limits_of

    settings = ground.settings
    seed = int.from_bytes(hashlib.sha256(ground.ids.new().encode()).digest()[:7], "big")
    data = open_store(settings.gas_home, ground.clock)
    prompts = PromptSupply.open(
        ground.database, settings.gas_home, settings.modalities, settings.prompts_min, seed, ground.clock
    )
    local = None
    if settings.local_media_registry is not None and settings.local_media_per_hour > 0:
        local = LocalMaking(
            load_models(settings.local_media_registry),
            MediaStore(ground.database, ground.blobs, ground.clock, limits_of(settings)),
            index,
            prompts.bank,
            data,
            database=ground.database,
            state=ground.state,
            validator=ground.hotkey,
            per_hour=settings.local_media_per_hour,
            seed=seed,
            clock=ground.clock,
            device=settings.local_media_device,
        )
    return _Idle(prompts, RealPhotos(data, index, folder, embedder), local)


async def _verify(ground: Ground, verifying: Verifying, tally: _Tally) -> None:
    failures = 0
    while not ground.stop.is_set():
        try:
            settled = await asyncio.to_thread(verifying.step)
        except InfrastructureError as error:
            failures += 1
            structlog.get_logger("gas.validator").error("verification_failed", code=error.error_code, why=str(error))
            await ground.pause(min(_LONGEST_RETRY, 2.0**failures))
            continue
        failures = 0
        for one in settled:
            tally.states[one.state.value] = tally.states.get(one.state.value, 0) + 1
        if not settled:
            await ground.pause(_POLL_SECONDS)


async def _idle(ground: Ground, verifying: Verifying, opened: Callable[[], _Idle], tally: _Tally) -> None:
    """What can wait, in small pieces; deliveries go first."""
    log = structlog.get_logger("gas.validator")
    # Its models take their time to load; nobody waits for them.
    idle = await asyncio.to_thread(opened)
    try:
        while not ground.stop.is_set():
            try:
                if await asyncio.to_thread(verifying.backlog):
                    await ground.pause(_POLL_SECONDS)
                    continue
                if not await _one_piece(idle, tally):
                    await ground.pause(_IDLE_SECONDS)
            except InfrastructureError as error:
                log.error("idle_work_failed", code=error.error_code, why=str(error))
                await ground.pause(_LONGEST_RETRY)
    finally:
        if idle.local is not None:
            idle.local.close()


async def _one_piece(idle: _Idle, tally: _Tally) -> bool:
    """Do the most urgent piece of idle work; whether there was one."""
    taken = await asyncio.to_thread(idle.prompts.top_up)
    if taken:
        tally.prompts += taken
        return True
    looked = await asyncio.to_thread(idle.photos.step, _PHOTOS_AT_ONCE)
    if looked:
        tally.photos += looked
        return True
    if idle.local is None:
        return False
    made = await _apart(idle.local.step)
    tally.local += made is not None
    return made is not None


async def _withdraw(ground: Ground, sales: DoubleSales, tally: _Tally) -> None:
    """What other validators had first does not count."""
    log = structlog.get_logger("gas.validator")
    pause = min(_IDLE_SECONDS, max(_POLL_SECONDS, ground.settings.callback_prints_seconds / 20))
    while not ground.stop.is_set():
        try:
            found = await asyncio.to_thread(sales.settle)
        except InfrastructureError as error:
            log.error("prints_not_settled", code=error.error_code, why=str(error))
            await ground.pause(_LONGEST_RETRY)
            continue
        tally.withdrawn += len(found)
        for one in found:
            log.info("medium_withdrawn", miner=one.miner, task=one.task_id, sold_first_to=one.validator)
        await ground.pause(pause)


async def _members(ground: Ground, tally: _Tally) -> None:
    while not ground.stop.is_set():
        try:
            graph: Metagraph = await ground.chain.metagraph(ground.settings.bt_netuid)
        except ChainError as error:
            # Who is registered is looked at again when the delivery comes; here it is a second look.
            structlog.get_logger("gas.validator").warning("members_unknown", code=error.error_code)
        else:
            tally.members = {neuron.hotkey: neuron.uid for neuron in graph.neurons}
        await ground.pause(_MEMBERS_SECONDS)


async def _beats(ground: Ground, verifying: Verifying, tally: _Tally) -> None:
    while not ground.stop.is_set():
        judged = {state.value: tally.states.get(state.value, 0) for state in _SHOWN}
        facts = {**judged, "prompts": tally.prompts, "local": tally.local, "photos": tally.photos}
        facts["withdrawn"] = tally.withdrawn
        try:
            facts["waiting"] = await asyncio.to_thread(verifying.waiting)
            await asyncio.to_thread(partial(ground.beat, **facts))
        except StorageError as error:
            structlog.get_logger("gas.validator").error("no_heart_beat", code=error.error_code, why=str(error))
        await ground.pause(_BEAT_SECONDS)


_SHOWN: Final = (ChallengeState.VERIFIED, ChallengeState.REFUSED, ChallengeState.UNTAKEN)


async def _first_end(ground: Ground, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for the order to stop, or for a loop that has failed."""
    stop = asyncio.create_task(ground.stop.wait())
    try:
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stop}:
            task.result()
    finally:
        stop.cancel()


async def _apart(work: Callable[[], T]) -> T:
    """Run work in a thread that doesn't keep the process from ending: a model may take minutes for one medium."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(done: Callable[[], None]) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else done())

    def target() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  (handed to whoever waits)
            failed = error
            settle(lambda: future.set_exception(failed))
        else:
            settle(lambda: future.set_result(result))

    threading.Thread(target=target, name="local-media", daemon=True).start()
    return await future


def _worker(folder: Path) -> str:
    """The same after a restart, and no other process's: only one has the index of this folder."""
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    return f"{socket.gethostname()[:40]}/{place}"
