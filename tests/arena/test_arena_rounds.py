"""Rounds, standings, winners, fool counts, receipts."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arena_fakes import SIGNER
from hypothesis import given
from hypothesis import strategies as st
from postgres import service_url
from sqlalchemy import select

from gas.arena.receipts import BadReceipt, canonical_json, sign_receipt, verify_receipt
from gas.arena.rounds import RoundBusy, close_round, fool_counts, load_round, open_round, standings, store_round
from gas.chain.keys import signer_from_seed
from gas.clock import ManualClock
from gas.datasets.plan import Round, freeze_round
from gas.errors import ConfigurationError, StorageError
from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database, open_database
from gas.storage.tables import JudgementRow, MediumRow, RunRow, ScoreRow, SubmissionRow
from gas.types import MediaType, Modality, Provenance, Sample

_PARAMETERS: dict[str, object] = {"shares": {"public": 1.0, "holdout": 0.0, "arena": 0.0}}
_UIDS = {"alice": 1, "bob": 2, "carol": 3}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(service_url(tmp_path))
    yield database
    database.close()


def frozen(seed: int, modality: Modality = Modality.IMAGE) -> Round:
    samples = [
        Sample(f"{i:064x}", modality, MediaType.REAL, Provenance.PUBLIC, "photos", "package", f"{i:064x}")
        for i in range(3)
    ]
    return freeze_round(samples, seed, _PARAMETERS, code_version="0.1.0")


def score(
    database: Database, round_id: str, hotkey: str, value: float | None, block: int, weights: str | None = None
) -> str:
    """A submission with a finished full run."""
    identity = f"{hotkey}-{round_id}"
    with database.write() as session:
        session.add(
            SubmissionRow(
                id=identity, hotkey=hotkey, key=identity, sha256=identity, size=1, modality="image", name=hotkey,
                vertical="general", state="scored", state_since=0.0, reasons=[], created_at=float(block), attempts=2,
                committed_block=block, weights_sha256=weights or identity,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            RunRow(
                id=f"run-{identity}", submission_id=identity, round_id=round_id, kind="full", state="done",
                metrics={"sn34_score": value}, started_at=0.0, finished_at=5.0,
            )
        )  # fmt: skip
    return identity


def opened(database: Database, tmp_path: Path, seed: int) -> str:
    blobs = FolderBlobs(tmp_path / "blobs")
    return open_round(database, blobs, frozen(seed), frozen(seed + 100), ManualClock(float(seed)))


def winner(database: Database, round_id: str, now: float, uids: dict[str, int] | None = None) -> str | None:
    close_round(database, round_id, _UIDS if uids is None else uids, ManualClock(now))
    with database.read() as session:
        return session.scalar(select(ScoreRow.hotkey).where(ScoreRow.miner_class == "image"))


def test_a_round_survives_the_blob_store_and_damage_is_noticed(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    name = store_round(blobs, frozen(2**64 - 1))
    assert load_round(blobs, name) == frozen(2**64 - 1)
    assert store_round(blobs, frozen(2**64 - 1)) == name
    for bad in (b"no json", b"{}", b'{"files": {"../x": "00"}}'):
        with pytest.raises(StorageError):
            load_round(blobs, blobs.put(bad))


def test_one_round_of_a_modality_is_open_at_a_time(database: Database, tmp_path: Path) -> None:
    first = opened(database, tmp_path, 1)
    assert opened(database, tmp_path, 1) == first
    with pytest.raises(ConfigurationError):
        opened(database, tmp_path, 2)
    blobs = FolderBlobs(tmp_path / "blobs")
    with pytest.raises(ConfigurationError):
        open_round(database, blobs, frozen(3), frozen(3, Modality.AUDIO), ManualClock())
    open_round(database, blobs, frozen(3, Modality.AUDIO), frozen(4, Modality.AUDIO), ManualClock())


def test_the_best_wins_and_equal_scores_go_to_the_earlier_commitment(database: Database, tmp_path: Path) -> None:
    round_id = opened(database, tmp_path, 1)
    score(database, round_id, "alice", 0.8, block=20)
    score(database, round_id, "bob", 0.8, block=10)
    score(database, round_id, "carol", None, block=1)
    score(database, round_id, "stranger", 0.99, block=1)
    with database.read() as session:
        order = [(s.rank, s.hotkey) for s in standings(session, round_id)]
    assert order == [(1, "stranger"), (2, "bob"), (3, "alice"), (4, "carol")]
    assert winner(database, round_id, 9.0) == "bob"
    assert winner(database, round_id, 99.0, {}) == "bob"


def test_a_copy_has_no_credit_even_if_it_was_scored_first(database: Database, tmp_path: Path) -> None:
    round_id = opened(database, tmp_path, 1)
    score(database, round_id, "bob", 0.9, block=20, weights="same")
    original = score(database, round_id, "alice", 0.9, block=10, weights="same")
    with database.read() as session:
        table = standings(session, round_id)
    assert [(s.hotkey, s.duplicate_of) for s in table] == [("alice", None), ("bob", original)]
    assert winner(database, round_id, 9.0) == "alice"


def test_a_champion_is_displaced_only_by_more_than_the_margin(database: Database, tmp_path: Path) -> None:
    first = opened(database, tmp_path, 1)
    score(database, first, "alice", 0.8, block=1)
    assert winner(database, first, 10.0) == "alice"
    second = opened(database, tmp_path, 2)
    score(database, second, "bob", 0.801, block=2)
    assert winner(database, second, 20.0) == "alice"
    third = opened(database, tmp_path, 3)
    score(database, third, "bob", 0.8021, block=3)
    assert winner(database, third, 30.0) == "bob"
    fourth = opened(database, tmp_path, 4)
    assert winner(database, fourth, 40.0, {"alice": 1}) is None


def test_a_round_does_not_end_under_a_running_submission(database: Database, tmp_path: Path) -> None:
    round_id = opened(database, tmp_path, 1)
    identity = score(database, round_id, "alice", 0.8, block=1)
    with database.write() as session:
        session.get_one(SubmissionRow, identity).state = "running"
    with pytest.raises(RoundBusy):
        close_round(database, round_id, _UIDS, ManualClock())
    with pytest.raises(ConfigurationError):
        close_round(database, "unknown", _UIDS, ManualClock())


def test_fool_counts_are_by_generator_and_by_the_time_of_the_run(database: Database, tmp_path: Path) -> None:
    round_id = opened(database, tmp_path, 1)
    runs = [f"run-{score(database, round_id, hotkey, 0.8, block=1)}" for hotkey in ("alice", "bob")]
    with database.write() as session:
        for index, generator in enumerate(["g1", "g1", "g2"]):
            session.add(
                MediumRow(
                    sha256=f"{index:064x}", validator="v", generator=generator, task_id="t", modality="image",
                    media_type="synthetic", width=1, height=1, mime="image/png", verified_at=0.0,
                )
            )  # fmt: skip
        session.flush()
        for run in runs:
            for index in range(3):
                session.add(JudgementRow(media_sha256=f"{index:064x}", run_id=run, fooled=index == 0))
    with database.read() as session:
        found = fool_counts(session, Modality.IMAGE, since=0.0, until=6.0)
        assert {k: (v.fooled, v.judged) for k, v in found.items()} == {"g1": (2, 4), "g2": (0, 2)}
        assert fool_counts(session, Modality.IMAGE, since=6.0, until=9.0) == {}
        assert fool_counts(session, Modality.AUDIO, since=0.0, until=9.0) == {}


def test_a_receipt_holds_only_as_it_was_signed() -> None:
    receipt = sign_receipt({"metrics": {"accuracy": 0.9}, "records_sha256": "a"}, SIGNER)
    crossed: Any = json.loads(json.dumps(receipt))
    verified = verify_receipt(crossed, signer=SIGNER.ss58_address, records_sha256="a")
    assert verified.body["metrics"] == {"accuracy": 0.9}
    forged = copy.deepcopy(crossed)
    forged["body"]["metrics"]["accuracy"] = 0.99
    other = signer_from_seed(b"\x22" * 32).ss58_address
    for bad, options, code in [
        (forged, {}, "signature"),
        ({**crossed, "signer": other}, {}, "signature"),
        (crossed, {"signer": other}, "signer"),
        (crossed, {"records_sha256": "b"}, "records"),
        ({**crossed, "signature": "0xzz"}, {}, "format"),
        ({**crossed, "body": {"x": float("nan")}}, {}, "format"),
        ({**crossed, "version": 2}, {}, "format"),
        ({"body": {}}, {}, "format"),
        (None, {}, "format"),
    ]:
        with pytest.raises(BadReceipt) as refused:
            verify_receipt(bad, **options)
        assert refused.value.error_code == code


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_canonical_json_is_the_same_after_every_round_trip(value: object) -> None:
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)
