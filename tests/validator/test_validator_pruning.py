"""Pruning: only what was published goes, oldest first, and never what somebody still needs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from publishing_helpers import DAY, MONDAY, WEEK, open_store_at

from gas.arena.rounds import open_round
from gas.datasets.plan import freeze_round
from gas.errors import StorageError
from gas.storage.tables import ChallengeRow, RoundRow, ServiceStateRow
from gas.types import MediaType, Modality, Provenance, Sample, Vertical
from gas.validator.pruning import Pruner
from gas.validator.publishing import Publisher
from gas.validator.store import SourceLimits
from gas.validator.targets import FolderTarget


@pytest.fixture
def store(tmp_path):
    """Six published media, a day apart, all paid, three weeks later; and one that is not published."""
    store = open_store_at(tmp_path)
    store.media = [store.add(n, day=n) for n in range(6)]
    Publisher(store.database, store.blobs, FolderTarget(tmp_path / "out"), store.clock).publish(WEEK)
    store.new = store.add(99, day=0.5)
    store.clock.advance(21 * DAY)
    store.pay(store.clock.now)
    yield store
    store.database.close()


def pruner(store, *, most=None, count=None, **options):
    limits = {"miner": SourceLimits(most, count), "local": SourceLimits(most, count)}
    return Pruner(store.database, store.blobs, store.clock, limits, **options)


def here(store):
    return [sha256 for sha256 in store.media if store.blobs.exists(sha256)]


def test_the_oldest_published_go_until_the_source_is_within_its_limit(store):
    report = pruner(store, count=4).prune()
    assert (report.media, report.over) == (3, {})
    assert here(store) == store.media[3:]
    assert store.row(store.media[0]).state == "pruned"
    sizes = sum(store.row(sha256).bytes for sha256 in [*store.media[3:], store.new])
    again = pruner(store, most=sizes - 1).prune()
    assert (again.media, here(store)) == (1, store.media[4:])


def test_without_a_limit_everything_stays_and_all_takes_what_may_go(store):
    assert pruner(store).prune().media == 0
    assert pruner(store).prune(everything=True).media == 6
    assert here(store) == []
    assert store.blobs.exists(store.new)


def test_a_dry_run_counts_the_same_and_removes_nothing(store):
    dry = pruner(store, count=2).prune(dry=True)
    assert here(store) == store.media
    real = pruner(store, count=2).prune()
    assert (dry.media, dry.bytes) == (real.media, real.bytes) == (5, real.bytes)


def test_what_is_not_published_or_not_paid_or_of_the_last_week_stays(store):
    store.clock.now = MONDAY + 11.5 * DAY
    # Old enough are those of the first five days.
    report = pruner(store, most=0).prune()
    assert (report.media, here(store)) == (5, store.media[5:])
    assert report.kept == {"recent": 1}
    assert report.over["miner"] > 0
    assert store.blobs.exists(store.new)


def test_a_medium_after_the_last_weights_is_not_paid_and_stays(tmp_path):
    store = open_store_at(tmp_path)
    store.media = [store.add(n, day=n) for n in range(4)]
    store.own = store.add(7, day=3.5, source="local")
    Publisher(store.database, store.blobs, FolderTarget(tmp_path / "out"), store.clock).publish(WEEK)
    store.clock.advance(60 * DAY)
    assert pruner(store, most=0).prune().kept == {"reward": 4}
    # Nobody is paid for the validator's own.
    assert not store.blobs.exists(store.own)
    store.pay(MONDAY + 1.5 * DAY)
    assert pruner(store, most=0).prune().kept == {"reward": 2}
    assert here(store) == store.media[2:]
    store.database.close()


def frozen_round(store, media):
    samples = [
        Sample(store.blobs.put(f"{sha256}/sample".encode()), Modality.IMAGE, MediaType.SYNTHETIC, Provenance.ARENA,
               "arena", "g", sha256, "g")
        for sha256 in media
    ]  # fmt: skip
    samples += [
        Sample(store.blobs.put(f"{n}/real".encode()), Modality.IMAGE, MediaType.REAL, Provenance.PUBLIC,
               "photos", "p", f"{n:064x}", None)
        for n in range(2)
    ]  # fmt: skip
    return freeze_round(samples, 1, {}, code_version="1")


def open_one(store, media, vertical=Vertical.GENERAL):
    frozen = frozen_round(store, media)
    open_round(store.database, store.blobs, frozen, frozen_round(store, []), store.clock, vertical=vertical)
    with store.database.read() as session:
        return session.get_one(RoundRow, frozen.round_id)


def test_what_an_open_round_was_made_of_stays(store):
    open_one(store, store.media[:2])
    report = pruner(store, most=0).prune()
    assert (report.media, report.kept) == (4, {"open_round": 2})
    assert here(store) == store.media[:2]


def test_a_round_that_is_opened_meanwhile_stops_the_pruning(store, monkeypatch):
    found = pruner(store, most=0)
    candidates = found._candidates

    def opened_meanwhile(source, after):
        rows = candidates(source, after)
        if rows and len(here(store)) == 6 and not opened:
            opened.append(open_one(store, store.media[:1]))
        return rows

    opened = []
    monkeypatch.setattr(found, "_candidates", opened_meanwhile)
    assert found.prune().media == 0
    assert here(store) == store.media
    assert pruner(store, most=0).prune().media == 5


def test_a_round_that_cannot_be_read_stops_the_pruning(store):
    round_ = open_one(store, store.media[:1])
    store.blobs.delete(round_.plan_blob)
    with pytest.raises(StorageError):
        pruner(store, most=0).prune()
    assert here(store) == store.media


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_pruner_that_is_killed_between_mark_and_deletion_is_finished_by_the_next(store, monkeypatch):
    deleted = []

    def delete(name):
        if len(deleted) == 2:
            raise Killed
        deleted.append(name)
        (store.blobs.root / name[:2] / name).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(store.blobs, "delete", delete)
        with pytest.raises(Killed):
            pruner(store, count=2).prune()
    assert len(here(store)) == 4
    assert pruner(store, count=2).prune().media == 0
    assert here(store) == store.media[5:]
    with store.database.read() as session:
        assert session.get(ServiceStateRow, ("sn34-data", "pruning")) is None


def test_a_mask_goes_with_the_last_medium_that_has_it(tmp_path):
    store = open_store_at(tmp_path)
    first, second = store.add(1, day=1, source="local", mask=True), store.add(2, day=2, source="local", mask=True)
    mask = store.row(first).mask_sha256
    Publisher(store.database, store.blobs, FolderTarget(tmp_path / "out"), store.clock).publish(WEEK)
    store.clock.advance(30 * DAY)
    pruner(store, count=1).prune()
    assert (store.blobs.exists(first), store.blobs.exists(mask)) == (False, True)
    pruner(store, count=0).prune()
    assert (store.blobs.exists(second), store.blobs.exists(mask)) == (False, False)
    store.database.close()


def test_bytes_of_refused_deliveries_go_after_a_day_unless_somebody_has_the_same(store):
    now = store.clock.now
    lonely, waiting = store.blobs.put(b"refused"), store.blobs.put(b"waits")
    cases = [
        ("1", "refused", lonely, now - 2 * DAY), ("2", "refused", store.media[0], now - 2 * DAY),
        ("3", "refused", waiting, now - 2 * DAY), ("4", "delivered", waiting, None),
        ("5", "refused", store.blobs.put(b"fresh"), now - 60),
    ]  # fmt: skip
    with store.database.write() as session:
        for task, state, blob, settled in cases:
            session.add(
                ChallengeRow(
                    validator="v", miner="m", task_id=task, modality="image", prompt="p", parameters={}, state=state,
                    created_at=0.0, deadline=now, blob_sha256=blob, settled_at=settled, reasons=[],
                )
            )  # fmt: skip
    assert pruner(store).prune(dry=True).leftovers == 3
    assert store.blobs.exists(lonely)
    assert pruner(store).prune().leftovers == 3
    assert not store.blobs.exists(lonely)
    assert store.blobs.exists(store.media[0])
    assert store.blobs.exists(waiting)
    assert pruner(store).prune().leftovers == 0


def test_rounds_of_every_vertical_count(store):
    open_one(store, store.media[:3], Vertical.HUMAN)
    assert pruner(store, most=0).prune().media == 3
