"""The queue of deliveries: judged once each, in the order they came, whoever is killed in between."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, select

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url
from verifying_ground import NOW, Deadly, Killed, PlainVerifier, deliver, picture

from gas.clock import ManualClock
from gas.errors import InfrastructureError, StorageError
from gas.media.image import encode_jpeg, encode_png
from gas.storage.blobs import FolderBlobs, sha256_hex
from gas.storage.database import Database, open_database
from gas.storage.tables import ChallengeRow, MediumRow
from gas.validator.tasks import ChallengeState
from gas.validator.verifying import Verifying
from gas.verification.duplicates import MediaIndex
from gas.verification.pipeline import Verifier

_END = (ChallengeState.VERIFIED.value, ChallengeState.REFUSED.value, ChallengeState.UNTAKEN.value)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    database = open_database(service_url(tmp_path_factory.mktemp("verifying")))
    yield database
    database.close()


@pytest.fixture
def database(shared: Database):
    with shared.write() as session:
        session.execute(delete(MediumRow))
        session.execute(delete(ChallengeRow))
    return shared


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def _worker(database, blobs, *, index=None, threads=1, name="w", clock=None, wrap=None, **more) -> Verifying:
    index = MediaIndex() if index is None else index
    verifiers = [(wrap or (lambda verifier: verifier))(PlainVerifier(index)) for _ in range(threads)]
    worker = Verifying(database, blobs, verifiers, index, "v", clock or ManualClock(NOW), worker=name, **more)
    worker.catch_up()
    return worker


def _rows(database: Database) -> dict[str, ChallengeRow]:
    with database.read() as session:
        return {f"{row.miner}/{row.task_id}": row for row in session.scalars(select(ChallengeRow))}


def _media(database: Database) -> dict[str, str]:
    with database.read() as session:
        return {row.sha256: row.generator for row in session.scalars(select(MediumRow))}


def _codes(row: ChallengeRow) -> list[str]:
    return [reason["code"] for reason in row.reasons]


def test_what_was_delivered_is_judged_once_and_its_medium_kept(database: Database, blobs: FolderBlobs) -> None:
    name = deliver(database, blobs, "a", "1", encode_png(picture(1)), NOW - 5)
    deliver(database, blobs, "b", "1", b"no picture", NOW - 4)
    worker = _worker(database, blobs)
    settled = {(one.miner, one.state.value) for one in worker.step()}
    assert settled == {("a", "verified"), ("b", "refused")}
    assert worker.step() == []
    rows = _rows(database)
    assert (_media(database), rows["a/1"].blob_sha256, rows["a/1"].settled_at) == ({name: "a"}, None, NOW)
    assert _codes(rows["b/1"]) == ["undecodable"]
    assert worker.waiting() == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_of_a_medium_and_its_copies_the_first_delivery_counts(
    database: Database, blobs: FolderBlobs, threads: int
) -> None:
    for number in range(4):
        shown = picture(100 + number)
        # The thieves' files are smaller, and so are faster to judge.
        deliver(database, blobs, "thief", f"{number}", encode_jpeg(shown, 60), NOW - 50 + number)
        deliver(database, blobs, "mirror", f"{number}", encode_png(shown[:, ::-1].copy()), NOW - 40 + number)
        deliver(database, blobs, "maker", f"{number}", encode_png(shown), NOW - 90 + number)
    _worker(database, blobs, threads=threads).step(most=100)
    rows = _rows(database)
    assert {rows[f"maker/{n}"].state for n in range(4)} == {"verified"}
    assert {rows[f"{who}/{n}"].state for n in range(4) for who in ("thief", "mirror")} == {"refused"}
    assert _codes(rows["thief/0"]) == ["near_duplicate"]


def test_two_workers_with_indexes_of_their_own_accept_one_of_two_copies(database: Database, blobs: FolderBlobs) -> None:
    first, second = _worker(database, blobs, name="one"), _worker(database, blobs, name="two")
    deliver(database, blobs, "maker", "1", encode_png(picture(7)), NOW - 9)
    assert [one.state.value for one in first.step()] == ["verified"]
    deliver(database, blobs, "thief", "1", encode_jpeg(picture(7), 70), NOW - 8)
    assert [one.codes for one in second.step()] == [("near_duplicate",)]
    assert len(_media(database)) == 1


def test_claims_of_a_killed_worker_are_taken_again_when_they_run_out(database: Database, blobs: FolderBlobs) -> None:
    deliver(database, blobs, "a", "1", encode_png(picture(1)), NOW - 5)
    clock = ManualClock(NOW)
    dead = _worker(database, blobs, name="dead", clock=clock, wrap=_dies)
    with pytest.raises(Killed):
        dead.step()
    other = _worker(database, blobs, name="other", clock=clock)
    assert other.step() == []
    clock.advance(301)
    assert [one.state.value for one in other.step()] == ["verified"]
    assert _rows(database)["a/1"].attempts == 2


def test_a_worker_takes_up_its_own_claims_at_once_after_a_restart(database: Database, blobs: FolderBlobs) -> None:
    deliver(database, blobs, "a", "1", encode_png(picture(1)), NOW - 5)
    with pytest.raises(Killed):
        _worker(database, blobs, wrap=_dies).step()
    assert [one.state.value for one in _worker(database, blobs).step()] == ["verified"]


def _dies(verifier: Verifier) -> Verifier:
    real = verifier.judge

    def judge(data, asked, sha256=""):
        real(data, asked, sha256)
        raise Killed

    verifier.judge = judge  # type: ignore[method-assign]
    return verifier


@pytest.mark.parametrize("after", [False, True], ids=["before_commit", "after_commit"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_kill_between_any_two_writes_neither_loses_nor_doubles_a_delivery(
    database: Database, blobs: FolderBlobs, tmp_path: Path, at: int, after: bool
) -> None:
    good = deliver(database, blobs, "a", "1", encode_png(picture(1)), NOW - 5)
    copy = deliver(database, blobs, "b", "1", encode_jpeg(picture(1), 60), NOW - 4)
    other = deliver(database, blobs, "c", "1", encode_png(picture(2)), NOW - 3)
    folder = tmp_path / "index"
    deadly = Deadly(database, at, after)
    with MediaIndex(folder) as index:
        worker = _worker(deadly, blobs, index=index, folder=folder, grace=-1.0)
        with pytest.raises(Killed):
            worker.step()
    with MediaIndex(folder) as index:
        worker = _worker(database, blobs, index=index, folder=folder, grace=-1.0)
        while worker.step():
            pass
        rows = _rows(database)
        assert {name: row.state for name, row in rows.items()} == {
            "a/1": "verified", "b/1": "refused", "c/1": "verified",
        }  # fmt: skip
        assert (_codes(rows["b/1"]), len(index)) == (["near_duplicate"], 2)
    assert _media(database) == {good: "a", other: "c"}
    assert set(blobs.names()) == {good, other}
    assert copy not in set(blobs.names())


def test_a_lost_index_is_built_again_from_the_rows(database: Database, blobs: FolderBlobs, tmp_path: Path) -> None:
    deliver(database, blobs, "maker", "1", encode_png(picture(5)), NOW - 9)
    _worker(database, blobs).step()
    deliver(database, blobs, "thief", "1", encode_jpeg(picture(5), 60), NOW - 8)
    with MediaIndex(tmp_path / "fresh") as index:
        worker = _worker(database, blobs, index=index, folder=tmp_path / "fresh")
        assert [one.codes for one in worker.step()] == [("near_duplicate",)]
    with MediaIndex(tmp_path / "fresh") as index:
        again = _worker(database, blobs, index=index, folder=tmp_path / "fresh")
        assert (len(index), again.catch_up(anew=True).unreadable) == (1, 0)
        assert len(index) == 1


def test_bytes_of_refused_media_go_when_nothing_names_them(database: Database, blobs: FolderBlobs) -> None:
    clock = ManualClock(NOW)
    kept = deliver(database, blobs, "maker", "1", encode_png(picture(5)), NOW - 9)
    deliver(database, blobs, "copier", "1", encode_png(picture(5)), NOW - 8)
    gone = deliver(database, blobs, "liar", "1", b"nothing", NOW - 7)
    waits = deliver(database, blobs, "liar", "2", b"another", NOW - 6)
    worker = _worker(database, blobs, clock=clock)
    worker.step()
    assert set(blobs.names()) == {kept, gone, waits}
    clock.advance(601)
    deliver(database, blobs, "later", "1", b"another", clock.time())
    assert worker.sweep() == 1
    assert set(blobs.names()) == {kept, waits}
    assert _rows(database)["copier/1"].blob_sha256 is None


def test_a_replaced_hotkey_is_refused_without_being_looked_at(database: Database, blobs: FolderBlobs) -> None:
    deliver(database, blobs, "gone", "1", encode_png(picture(1)), NOW - 5, uid=3)
    deliver(database, blobs, "moved", "1", encode_png(picture(2)), NOW - 5, uid=3)
    deliver(database, blobs, "here", "1", encode_png(picture(3)), NOW - 5, uid=5)
    _worker(database, blobs, members=lambda: {"moved": 4, "here": 5}).step()
    rows = _rows(database)
    assert [_codes(rows[f"{name}/1"]) for name in ("gone", "moved")] == [["hotkey_replaced"]] * 2
    assert rows["here/1"].state == "verified"


def test_a_fault_of_ours_costs_no_attempt_and_nobody_anything(database: Database, blobs: FolderBlobs) -> None:
    deliver(database, blobs, "a", "1", encode_png(picture(1)), NOW - 5)

    def broken(verifier: Verifier) -> Verifier:
        def judge(data, asked, sha256=""):
            raise InfrastructureError("No decoder can be started.")

        verifier.judge = judge  # type: ignore[method-assign]
        return verifier

    worker = _worker(database, blobs, wrap=broken)
    for _ in range(7):
        with pytest.raises(InfrastructureError):
            worker.step()
    row = _rows(database)["a/1"]
    assert (row.state, row.attempts, row.claimed_by) == ("delivered", 0, None)
    assert [one.state.value for one in _worker(database, blobs).step()] == ["verified"]


def test_a_delivery_whose_bytes_are_lost_counts_for_nothing(database: Database, blobs: FolderBlobs) -> None:
    name = deliver(database, blobs, "a", "1", encode_png(picture(1)), NOW - 5)
    blobs.delete(name)
    (one,) = _worker(database, blobs).step()
    assert (one.state.value, one.codes) == ("untaken", ("our_fault",))


def test_a_medium_that_kills_every_worker_is_given_up(database: Database, blobs: FolderBlobs) -> None:
    deliver(database, blobs, "a", "1", encode_png(picture(1)), NOW - 5)
    deliver(database, blobs, "b", "1", encode_png(picture(2)), NOW - 4)
    for _ in range(5):
        with pytest.raises(Killed):
            _worker(database, blobs, wrap=_dies).step(most=1)
    _worker(database, blobs).step()
    rows = _rows(database)
    assert (rows["a/1"].state, rows["b/1"].state) == ("untaken", "verified")


def test_a_store_that_fails_once_leaves_the_delivery_in_the_queue(database: Database, blobs: FolderBlobs) -> None:
    data = encode_png(picture(1))
    deliver(database, blobs, "a", "1", data, NOW - 5)

    class Failing(FolderBlobs):
        def get(self, name: str) -> bytes:
            raise StorageError("The disk is away.")

    with pytest.raises(StorageError):
        _worker(database, Failing(blobs.root)).step()
    assert [one.state.value for one in _worker(database, blobs).step()] == ["verified"]
    assert _media(database) == {sha256_hex(data): "a"}


def test_a_short_fault_of_ours_and_a_kill_over_another_medium_throw_no_honest_delivery_away(
    database: Database, blobs: FolderBlobs
) -> None:
    for number in range(8):
        deliver(database, blobs, f"m{number}", "1", encode_png(picture(number)), NOW - 50 + number)

    class Away(FolderBlobs):
        away = True

        def get(self, name: str) -> bytes:
            if self.away:
                raise StorageError("The disk is away.")
            return super().get(name)

    store = Away(blobs.root)
    worker = _worker(database, store)
    for _ in range(6):
        with pytest.raises(StorageError):
            worker.step()
    store.away = False
    assert {(row.attempts, row.claimed_by) for row in _rows(database).values()} == {(0, None)}
    for _ in range(7):
        # Whatever the first of them does to the worker, the three that wait behind it lose nothing.
        with pytest.raises(Killed):
            _worker(database, blobs, wrap=_dies, most_attempts=99).step()
    while worker.step():
        pass
    states = {name: row.state for name, row in _rows(database).items()}
    assert states.pop("m0/1") == "untaken" and set(states.values()) == {"verified"}


def test_a_database_that_fails_while_a_claim_is_given_back_costs_no_attempt(
    database: Database, blobs: FolderBlobs
) -> None:
    deliver(database, blobs, "a", "1", encode_png(picture(1)), NOW - 5)

    class Gone(Database):
        gone = False

        @contextmanager
        def write(self):
            if self.gone:
                raise StorageError("The database is away.")
            with super().write() as session:
                yield session

    class Away(FolderBlobs):
        def get(self, name: str) -> bytes:
            away.gone = True
            raise StorageError("The disk is away.")

    away = Gone(database.engine)
    worker = _worker(away, Away(blobs.root))
    for _ in range(7):
        away.gone = False
        with pytest.raises(StorageError, match="disk"):
            worker.step()
    assert [one.state.value for one in _worker(database, blobs).step()] == ["verified"]


def test_a_medium_waits_for_an_earlier_delivery_that_another_worker_is_judging(
    database: Database, blobs: FolderBlobs
) -> None:
    deliver(database, blobs, "maker", "1", encode_png(picture(9)), NOW - 9)
    slow = _worker(database, blobs, name="slow")
    (claim,) = slow._claims.take(1)
    deliver(database, blobs, "thief", "1", encode_jpeg(picture(9), 60), NOW - 8)
    # No sleep: the fast worker's first wait is what lets the slow one finish.
    fast = _worker(database, blobs, name="fast")
    waited = []

    class Pause:
        def wait(self, seconds: float) -> None:
            waited.append(slow._work(claim))

    fast._pause = Pause()  # type: ignore[assignment]
    assert [one.codes for one in fast.step()] == [("near_duplicate",)]
    assert [one.state.value for one in waited] == ["verified"]
