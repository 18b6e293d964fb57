"""The service sn34-generator: verification first, prompts and media of its own in idle time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url

from gas.chain.base import Metagraph
from gas.clock import ManualClock, SeededIds, SystemClock
from gas.datasets.store import open_store
from gas.errors import ConfigurationError, InfrastructureError
from gas.generation.base import GeneratedMedium, GenerationTask
from gas.generation.prompts.embedding import HashedEmbedder
from gas.generation.registry import LocalModel
from gas.generation.signing import TestAuthority
from gas.media.image import encode_png
from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database, open_database
from gas.storage.tables import ChallengeRow, MediumRow
from gas.types import MediaType, Modality
from gas.validator.ground import Ground, ServiceState
from gas.validator.local_making import LocalMaking
from gas.validator.prompt_supply import PromptSupply
from gas.validator.prompts import Offer, PromptBank, PromptFilter
from gas.validator.service_generator import open_alignments, read_anchors, run
from gas.validator.settings import ValidatorSettings
from gas.validator.store import MediaStore, SourceLimits
from gas.verification.duplicates import MediaIndex


@pytest.fixture
def database(tmp_path: Path):
    database = open_database(service_url(tmp_path))
    yield database
    database.close()


def _picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return np.kron(small, np.ones((16, 16, 1), dtype=np.uint8))


class _Pipeline:
    """Makes a picture of the task's seed at once."""

    name = "quick"
    modalities = frozenset({Modality.IMAGE})

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        data = encode_png(_picture(task.seed))
        return GeneratedMedium(data, "image/png", MediaType.SYNTHETIC, "quick")


def _making(database: Database, folder: Path, index: MediaIndex, clock, *, per_hour=6.0, load=None, limits=None):
    bank = PromptBank(database, HashedEmbedder(), clock)
    bank.add([Offer(f"a {what} on a table in the morning light") for what in ("cup", "book", "lamp")], Modality.IMAGE)
    models = [
        LocalModel(name="one", task="t2i", pipeline="diffusion", max_batch=2),
        LocalModel(name="two", task="t2i", pipeline="diffusion", max_batch=2),
        LocalModel(name="off", task="t2i", pipeline="diffusion", enabled=False),
        LocalModel(name="needs-photos", task="i2i", pipeline="image-to-image"),
    ]
    return LocalMaking(
        models, MediaStore(database, FolderBlobs(folder / "blobs"), clock, limits), index, bank,
        open_store(folder, clock), database=database, state=ServiceState(database, "sn34-generator", clock),
        validator="v", per_hour=per_hour, seed=1, clock=clock, device="cpu", load=load or (lambda model: _Pipeline()),
    )  # fmt: skip


def _made(database: Database) -> list[MediumRow]:
    with database.read() as session:
        return list(session.scalars(select(MediumRow).order_by(MediumRow.verified_at)))


def test_models_take_turns_until_each_has_made_what_it_may_in_an_hour(database: Database, tmp_path: Path) -> None:
    clock, index = ManualClock(), MediaIndex()
    making = _making(database, tmp_path, index, clock)
    for _ in range(15):
        making.step()
    rows = _made(database)
    # Six an hour among three enabled models; the one that starts from photos has none.
    assert sorted(row.parameters["registry_model"] for row in rows) == ["one", "one", "two", "two"]
    assert {row.source for row in rows} == {"local"}
    assert len(index) == 4
    assert all(FolderBlobs(tmp_path / "blobs").exists(row.sha256) for row in rows)
    clock.advance(3700)
    restarted = _making(database, tmp_path, index, clock)
    for _ in range(15):
        restarted.step()
    assert len(_made(database)) == 8
    making.close()
    restarted.close()


def test_a_model_that_fails_is_left_alone_and_the_other_goes_on(database: Database, tmp_path: Path) -> None:
    def load(model: LocalModel) -> _Pipeline:
        if model.name == "one":
            raise InfrastructureError("It does not load.", code="pipeline_failed")
        return _Pipeline()

    making = _making(database, tmp_path, MediaIndex(), ManualClock(), load=load)
    for _ in range(15):
        making.step()
    assert {row.parameters["registry_model"] for row in _made(database)} == {"two"}


def test_a_full_store_stops_the_making(database: Database, tmp_path: Path) -> None:
    limits = {"local": SourceLimits(max_media=1)}
    making = _making(database, tmp_path, MediaIndex(), ManualClock(), limits=limits)
    for _ in range(6):
        making.step()
    assert len(_made(database)) == 1


def test_the_bank_is_filled_up_to_its_mark_and_no_further(database: Database, tmp_path: Path) -> None:
    bank = PromptBank(database, HashedEmbedder(), ManualClock())
    supply = PromptSupply(bank, tmp_path, [Modality.IMAGE, Modality.AUDIO], 40, 7, ManualClock())
    while supply.top_up():
        pass
    counts = {m: bank.count(PromptFilter(m), unused=True) for m in Modality}
    assert counts == {Modality.IMAGE: 40, Modality.VIDEO: 0, Modality.AUDIO: 40}
    bank.draw(np.random.default_rng(1), PromptFilter(Modality.IMAGE))
    assert supply.top_up() == 1


class _Signer:
    ss58_address = "v"


class _Chain:
    async def metagraph(self, netuid: int) -> Metagraph:
        return Metagraph(netuid, 1, 0, ())


def _ground(database: Database, home: Path) -> Ground:
    settings = ValidatorSettings(gas_home=home, prompts_min=4, challenge_modalities="image")
    return Ground(
        "sn34-generator", settings, database, FolderBlobs(home / "blobs"), _Chain(), _Signer(),  # type: ignore[arg-type]
        SystemClock(), SeededIds(1),
    )  # fmt: skip


def test_the_service_judges_fills_the_bank_and_ends_when_it_is_told_to(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gas.generation.prompts.embedding.open_embedder", HashedEmbedder)
    TestAuthority(tmp_path / "authority", SystemClock())
    ground = _ground(database, tmp_path)
    name = ground.blobs.put(encode_png(_picture(3)))
    now = ground.clock.time()
    with database.write() as session:
        session.add(
            ChallengeRow(
                validator="v", miner="m", task_id="1", modality="image", prompt="p", parameters={}, state="delivered",
                created_at=now - 20, deadline=now + 60, delivered_at=now - 1, reasons=[], blob_sha256=name,
            )
        )  # fmt: skip
    bank = PromptBank(database, HashedEmbedder(), ground.clock)

    def done() -> bool:
        with database.read() as session:
            settled = session.scalar(select(ChallengeRow.settled_at)) is not None
        return settled and bank.count(unused=True) >= 4

    async def main() -> None:
        task = asyncio.create_task(run(ground))
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(done):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.05)
            ground.stop.set()
            await task

    asyncio.run(main())
    with database.read() as session:
        row = session.scalars(select(ChallengeRow)).one()
    assert row.state == "refused"
    # The hotkey isn't in the metagraph; or the members weren't known yet, and then its picture isn't signed.
    assert {reason["code"] for reason in row.reasons} <= {"hotkey_replaced", "no_provenance"}
    assert ServiceState.heartbeats(database)["sn34-generator"][1].keys() >= {"verified", "refused", "waiting"}


def test_without_trust_anchors_the_service_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TRUST_ANCHORS") as error:
        read_anchors(ValidatorSettings(gas_home=tmp_path))
    assert error.value.error_code == "trust_anchors"
    assert open_alignments("") == ()
    assert [model.name for model in open_alignments("light")] != []
