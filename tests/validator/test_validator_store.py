"""The media store: bytes and rows of miners' and of the validator's own media."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from publishing_helpers import DAY, open_store_at, sha256_hex

from gas.errors import Reason, StorageError
from gas.generation.base import GeneratedMedium
from gas.generation.registry import LocalModel
from gas.generation.registry_plan import LocalJob
from gas.generation.registry_run import LocalMedium
from gas.media.image import encode_jpeg, encode_png
from gas.storage.database import open_database
from gas.storage.tables import MediumRow
from gas.types import MediaType, Modality
from gas.validator.store import MediaStore, MediumSource, SourceLimits, local_facts, medium_row
from gas.verification.base import Verdict
from gas.verification.duplicates import MediaIndex, Seen

INPAINT = LocalModel(name="inpaint-a", task="inpaint", pipeline="inpainting", tags=("faces",))


@pytest.fixture
def store(tmp_path):
    store = open_store_at(tmp_path)
    yield store
    store.database.close()


def media(store, **limits):
    found = {name: SourceLimits(*limit) for name, limit in limits.items()}
    return MediaStore(store.database, store.blobs, store.clock, found)


def picture(seed: int, size=(160, 200)) -> bytes:
    import cv2

    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (12, 12, 3), np.uint8)
    return encode_png(cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC))


def made(seed: int, *, masked: bool = True) -> LocalMedium:
    white = np.zeros((160, 200, 3), np.uint8)
    white[40:80] = 255
    medium = GeneratedMedium(picture(seed), "image/png", MediaType.SEMISYNTHETIC, "inpaint-a-1.0",
                             encode_png(white) if masked else None)  # fmt: skip
    job = LocalJob(f"{seed:016x}", "inpaint-a", 0, "a red hat", seed)
    return LocalMedium(job, INPAINT, medium, {"steps": 4}, "a" * 64, 0.5, 1, 0)


def verdict(data: bytes, owner: str = "v/m/t") -> Verdict:
    facts = local_facts(data, Modality.IMAGE, "a prompt", owner)
    more = {"paid_tier": 2, "model": "model-a"}
    return Verdict((), sha256_hex(data), facts["width"], facts["height"], "GAS", facts | more)


def put(store, data, task="t"):
    return store.put_miner(
        data, verdict(data), validator="v", generator="m", task_id=task, modality=Modality.IMAGE, prompt="a prompt",
        parameters={"resolution": "1K"},
    )  # fmt: skip


def test_a_miners_medium_is_kept_with_all_that_is_known_of_it(store):
    data = picture(1)
    row = put(media(store), data)
    again = store.row(row.sha256)
    assert (again.source, again.state, again.tier, again.model) == ("miner", "kept", 2, "model-a")
    assert (again.width, again.height, again.mime, again.bytes) == (200, 160, "image/png", len(data))
    assert (again.prompt, again.parameters) == ("a prompt", {"resolution": "1K"})
    assert len(again.phash) == 64
    assert store.blobs.get(row.sha256) == data


def test_a_row_for_another_transaction_says_the_same(store):
    data = picture(2)
    row = medium_row(
        verdict(data), validator="v", generator="m", task_id="t", modality=Modality.IMAGE, prompt="a prompt", now=1.0
    )
    with store.database.write() as session:
        session.add(row)
    assert store.row(sha256_hex(data)).bytes == len(data)


def test_the_validators_own_medium_is_kept_with_mask_model_seed_and_parameters(store):
    one = made(3)
    row = media(store).put_local(one, "v")
    assert (row.source, row.generator, row.media_type, row.task_id) == ("local", "v", "semisynthetic", one.job.id)
    assert row.parameters["seed"] == 3
    assert row.parameters["steps"] == 4
    assert row.parameters["tags"] == ["faces"]
    assert media(store).read_mask(row) == one.medium.mask
    assert media(store).read(row.sha256) == one.medium.data


class Killed(BaseException):
    """Stands for the end of the process."""


def test_who_is_killed_between_blob_and_row_does_it_again_and_nothing_is_doubled(store, monkeypatch):
    def killed(work):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store.database, "transact", killed)
        with pytest.raises(Killed):
            media(store).put_local(made(4), "v")
    assert media(store).stats().media == {}
    first = media(store).put_local(made(4), "v")
    second = media(store).put_local(made(4), "v")
    assert first.sha256 == second.sha256
    assert media(store).stats().media == {"local/image/semisynthetic/kept": 1}
    assert len([*store.blobs.names()]) == 2


def test_bytes_that_were_lost_come_back_and_pruned_ones_do_not(store):
    kept = put(media(store), picture(5))
    store.blobs.delete(kept.sha256)
    put(media(store), picture(5))
    assert store.blobs.exists(kept.sha256)
    with store.database.write() as session:
        session.get_one(MediumRow, kept.sha256).state = "pruned"
    store.blobs.delete(kept.sha256)
    assert put(media(store), picture(5)).state == "pruned"
    assert not store.blobs.exists(kept.sha256)


def test_a_verdict_about_other_bytes_is_refused(store):
    with pytest.raises(StorageError) as refused:
        media(store).put_miner(
            b"other", verdict(picture(6)), validator="v", generator="m", task_id="t", modality=Modality.IMAGE, prompt=""
        )
    assert refused.value.error_code == "not_this_medium"


def test_limits_stop_the_validators_own_media_and_no_miners(store):
    limited = media(store, local=(None, 1), miner=(1, None))
    limited.put_local(made(7), "v")
    assert limited.room(MediumSource.LOCAL).full
    with pytest.raises(StorageError) as refused:
        limited.put_local(made(8), "v")
    assert refused.value.error_code == "store_full"
    put(limited, picture(9), "a")
    put(limited, picture(10), "b")
    assert limited.room(MediumSource.MINER).bytes < 0
    with store.database.write() as session:
        session.query(MediumRow).filter_by(source="local").update({"state": "pruned"})
    assert not limited.room(MediumSource.LOCAL).full


def test_the_index_of_copies_is_built_again_from_the_rows(store, tmp_path):
    rows = [put(media(store), picture(n), str(n)) for n in (11, 12)]
    own = media(store).put_local(made(13), "v")
    store.add(77)
    with store.database.write() as session:
        session.get_one(MediumRow, rows[0].sha256).state = "pruned"
    with MediaIndex(tmp_path / "index") as index:
        assert media(store).rebuild_index(index) == (3, 1)
    with MediaIndex(tmp_path / "index") as index:
        for number, sha256 in ((11, rows[0].sha256), (12, rows[1].sha256), (13, own.sha256)):
            copy = encode_jpeg(decoded(picture(number)), 90)
            facts = local_facts(copy, Modality.IMAGE, "another prompt", "v/thief/t")
            match = index.duplicate_of(Seen.from_facts(sha256_hex(copy), facts))
            assert match is not None
            assert match.sha256 == sha256


def decoded(data: bytes):
    import cv2

    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_statistics_say_what_is_here(store):
    for n in range(3):
        store.add(n, day=n)
    store.add(9, day=4, source="local", mask=True)
    with store.database.write() as session:
        session.query(MediumRow).filter_by(task_id="0").update({"state": "pruned"})
    stats = media(store).stats()
    assert stats.media == {
        "local/image/semisynthetic/kept": 1,
        "miner/image/synthetic/kept": 2,
        "miner/image/synthetic/pruned": 1,
    }
    assert (stats.masks, stats.generators) == (1, 2)
    assert stats.newest - stats.oldest == 3 * DAY


def test_a_database_of_before_keeps_its_media_as_kept_ones_of_miners(tmp_path):
    from sqlalchemy import text

    database = open_database(f"sqlite:///{tmp_path / 'old.db'}", migrate=False)
    database.migrate("v0003")
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO media (sha256, validator, generator, task_id, modality, media_type, width, height, mime, "
                "verified_at) VALUES ('a', 'v', 'g', 't', 'image', 'synthetic', 1, 1, 'image/png', 1.0)"
            )
        )
    database.migrate()
    with database.read() as session:
        row = session.get_one(MediumRow, "a")
        assert (row.source, row.state, row.bytes, row.published_in) == ("miner", "kept", 0, None)
    database.close()


def test_reasons_are_no_part_of_a_kept_medium(store):
    data = picture(14)
    refused = Verdict((Reason("duplicate", "x"),), sha256_hex(data))
    with pytest.raises(StorageError) as error:
        media(store).put_miner(
            data, refused, validator="v", generator="m", task_id="t", modality=Modality.IMAGE, prompt=""
        )
    assert error.value.error_code == "not_verified"
