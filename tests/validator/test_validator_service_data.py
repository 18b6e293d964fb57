"""The service sn34-data: data sets, publishing and pruning on their schedules, whatever fails."""

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from publishing_helpers import DAY, WEEK, open_store_at

from gas.clock import RandomIds
from gas.datasets.entries import DatasetEntry
from gas.datasets.store import open_store
from gas.errors import ConfigurationError
from gas.media.image import encode_png
from gas.validator.ground import Ground, ServiceState
from gas.validator.service_data import DataKeeper, named_sets, run
from gas.validator.settings import read_settings
from gas.validator.store import MediumState


@pytest.fixture
def store(tmp_path):
    store = open_store_at(tmp_path)
    yield store
    store.database.close()


def options(store, **more):
    return read_settings(None, gas_home=store.folder, **more)


def keeper(store, settings, stopping=lambda: False):
    state = ServiceState(store.database, "sn34-data", store.clock)
    return DataKeeper(settings, store.database, store.blobs, store.clock, state, os.environ, stopping), state


def photos(folder: Path, numbers) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng(number)
        (folder / f"{number}.png").write_bytes(encode_png(rng.integers(0, 256, (24, 32, 3), np.uint8)))


def add_set(store, name: str, folder: Path) -> None:
    entry = {"name": name, "modality": "image", "media_type": "real", "source": "folder", "path": str(folder)}
    open_store(store.folder, store.clock).add(DatasetEntry(**entry, licence="CC0-1.0"))


def test_sets_are_fetched_asked_again_on_schedule_and_one_that_fails_stops_no_other(store, tmp_path):
    photos(tmp_path / "photos", range(3))
    add_set(store, "gone", tmp_path / "gone")
    add_set(store, "photos", tmp_path / "photos")
    work, state = keeper(store, options(store, data_refresh_hours=24))
    assert work.refresh() == 2
    here = open_store(store.folder)
    assert here.names() == ("photos",)
    assert state.get("set/gone")["error"] == "material_missing"
    assert state.get("set/photos")["items"] == 3
    assert work.refresh() == 0
    # The failed one comes first, and waits longer each time.
    waits = []
    for _ in range(3):
        waits.append(state.get("set/gone")["next"] - store.clock.now)
        store.clock.advance(waits[-1])
        assert work.refresh() == 1
    assert waits == [300, 600, 1200]
    photos(tmp_path / "photos", range(3, 5))
    photos(tmp_path / "gone", range(10, 11))
    store.clock.advance(DAY)
    again, state = keeper(store, options(store))
    assert again.refresh() == 2
    assert (state.get("set/photos")["items"], state.get("set/gone")["items"]) == (5, 1)
    assert "error" not in state.get("set/gone")


def test_settings_choose_registries_and_sets(store, tmp_path):
    add_set(store, "a-one", tmp_path)
    add_set(store, "b-two", tmp_path)
    file = tmp_path / "more.yaml"
    file.write_text(
        "version: 1\ndatasets:\n- {name: c-three, modality: image, media_type: real, source: huggingface, "
        "path: owner/set, licence: CC0-1.0}\n"
    )
    here = open_store(store.folder)

    def names(**more):
        return [one.entry.name for one in named_sets(options(store, **more), here)]

    assert names() == ["a-one", "b-two"]
    assert names(data_sets="b-*, c-*", data_registries=f"yours,{file}") == ["b-two", "c-three"]
    assert "public" not in names(data_registries="photos")
    with pytest.raises(ConfigurationError):
        names(data_registries="no-such-file.yaml")


def test_a_service_that_is_to_end_breaks_off_a_fetch_and_goes_on_later(store, tmp_path):
    photos(tmp_path / "photos", range(3))
    add_set(store, "photos", tmp_path / "photos")
    asked = []

    def stopping():
        asked.append(1)
        return len(asked) > 1

    work, state = keeper(store, options(store), stopping)
    assert work.refresh() == 1
    assert "error" not in state.get("set/photos")
    assert open_store(store.folder).names() == ()
    work, state = keeper(store, options(store))
    assert work.refresh() == 1
    assert open_store(store.folder).names() == ("photos",)


def test_a_week_is_published_when_it_is_over_and_what_fails_is_tried_again_later(store, tmp_path):
    media = [store.add(n) for n in range(3)]
    (tmp_path / "out").write_text("in the way")
    work, state = keeper(store, options(store, publish_target=str(tmp_path / "out")))
    assert work.publish() == []
    assert state.get("publishing")["failures"] == 1
    (tmp_path / "out").unlink()
    assert work.publish() == []
    store.clock.advance(301)
    assert work.publish() == [WEEK]
    assert {store.row(sha256).state for sha256 in media} == {MediumState.PUBLISHED}
    assert "error" not in state.get("publishing")
    assert work.publish() == []


def test_nothing_is_published_before_the_weeks_end_and_an_hour(store, tmp_path):
    store.add(1)
    work, _ = keeper(store, options(store, publish_target=str(tmp_path / "out")))
    store.clock.advance(-3700)
    assert work.publish() == []
    store.clock.advance(200)
    assert work.publish() == [WEEK]


def test_the_store_is_pruned_once_an_hour(store, tmp_path):
    settings = options(store, publish_target=str(tmp_path / "out"), media_max_gb=1e-9, media_keep_days=1)
    old = store.add(1)
    work, state = keeper(store, settings)
    work.publish()
    work.prune()
    assert state.get("prune")["report"]["kept"] == {"recent": 1}
    store.clock.advance(30 * DAY)
    store.pay(store.clock.now)
    work.prune()
    assert not store.blobs.exists(old)
    store.add(2, day=1.5)
    assert state.get("prune")["report"]["media"] == 1


def ground(store, settings):
    class Nobody:
        ss58_address = "v"

    return Ground("sn34-data", settings, store.database, store.blobs, None, Nobody(), store.clock, RandomIds())


def test_the_service_does_all_of_it_says_that_it_lives_and_ends_when_told(store, tmp_path):
    photos(tmp_path / "photos", range(2))
    add_set(store, "photos", tmp_path / "photos")
    store.add(1)

    async def serve():
        place = ground(store, options(store, publish_target=str(tmp_path / "out")))

        def done():
            return (
                place.state.get("set/photos").get("items") == 2
                and place.state.get("prune")
                and (tmp_path / "out" / WEEK / "manifest.json").exists()
            )

        service = asyncio.create_task(run(place))
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(done):
                await place.pause(0.02)
        place.stop.set()
        await asyncio.wait_for(service, 10)
        return ServiceState.heartbeats(store.database)["sn34-data"]

    _, facts = asyncio.run(serve())
    assert facts["media"] == 1
    manifest = json.loads((tmp_path / "out" / WEEK / "manifest.json").read_bytes())
    assert manifest["week"] == WEEK


def test_a_wrong_address_ends_the_service_at_once(store):
    with pytest.raises(ConfigurationError):
        asyncio.run(run(ground(store, options(store, publish_target="ftp://host/a"))))


def test_two_services_at_once_publish_every_medium_once(store, tmp_path):
    media = [store.add(n) for n in range(6)]
    settings = options(store, publish_target=str(tmp_path / "out"))
    workers = [keeper(store, settings)[0] for _ in range(3)]
    threads = [threading.Thread(target=one.publish) for one in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manifest = json.loads((tmp_path / "out" / WEEK / "manifest.json").read_bytes())
    assert sum(one["rows"] for one in manifest["files"]) == len(media)
    assert {store.row(sha256).state for sha256 in media} == {MediumState.PUBLISHED}
