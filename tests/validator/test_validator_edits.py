"""Semisynthetic media: a photo and a mask go to generators that change pictures, and the answer is judged by both."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import cv2
import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rounds_ground import Ground, Miner, key, neuron

from gas.chain.base import Metagraph
from gas.clock import ManualClock, SystemClock
from gas.datasets.items import Item, items_to_table
from gas.generation.inpainting import RepaintPipeline
from gas.generation.signing import TestAuthority
from gas.media.image import decode_image, encode_jpeg, encode_png
from gas.media.masks import decode_mask
from gas.miners.delivery import DeliveryRules
from gas.miners.generator import GeneratorRules
from gas.miners.generator import create_app as create_miner
from gas.miners.local import LocalService
from gas.miners.seal import CertificateSeal
from gas.miners.tasks import TaskStore
from gas.miners.worker import GeneratorWorker, WorkRules
from gas.protocol.epistula import ReplayGuard
from gas.protocol.messages import GenerationRequest
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.storage.blobs import FolderBlobs, sha256_hex
from gas.storage.tables import ChallengeRow, MediumRow
from gas.types import MediaType, Modality
from gas.validator.doors import Doors
from gas.validator.edit_blobs import EditBlobs
from gas.validator.edit_sources import EditSources, draw_region, may_be_changed
from gas.validator.pruning import Pruner
from gas.validator.receiving import ReceivingCounts, create_spool_app
from gas.validator.shards import build_shard
from gas.validator.verifying import Verifying
from gas.verification.base import Asked, Edit
from gas.verification.duplicates import MediaIndex, Seen
from gas.verification.edits import measure_edit
from gas.verification.pipeline import Verifier
from gas.verification.prints import print_picture


def photo(seed: int, height: int = 288, width: int = 320) -> np.ndarray:
    """Something with detail of all sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.integers(0, 256, (n, n, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        for n in (5, 20, 80)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


class Photos:
    """As much of a data store as is asked for here."""

    def __init__(self, *media: bytes, licence: str = "CC0-1.0") -> None:
        self.media, self.licence = {sha256_hex(data): data for data in media}, licence

    def names(self) -> tuple[str, ...]:
        return ("photos",)

    def table(self, name: str) -> object:
        return items_to_table(
            Item(
                sha, name, Modality.IMAGE, MediaType.REAL, "image/png", len(data), sha, name, sha, licence=self.licence
            )
            for sha, data in self.media.items()
        )

    def read(self, item: Item) -> bytes:
        return self.media[item.sha256]


@pytest.fixture
def ground(tmp_path: Path):
    ground = Ground(tmp_path, Miner("one", 1), Miner("two", 2))
    yield ground
    ground.database.close()


def sources(ground: Ground, folder: Path, photos: Photos) -> tuple[EditSources, EditBlobs, FolderBlobs]:
    blobs = FolderBlobs(folder / "blobs")
    kept = EditBlobs(ground.database, blobs, ground.state, ground.clock)
    return EditSources(photos, kept, ground.clock), kept, blobs  # type: ignore[arg-type]


def parts(request: httpx.Request) -> dict[str, bytes]:
    """The parts of a form, read by another library than the one that wrote it."""
    whole = message_from_bytes(
        b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + request.content
    )
    found: dict[str, bytes] = {}
    for part in whole.get_payload():
        assert isinstance(part, Message)
        found[str(part.get_param("name", header="content-disposition"))] = part.get_payload(decode=True)
    return found


def test_a_photo_and_a_mask_go_to_those_who_say_that_they_change_pictures_and_to_nobody_else(
    ground: Ground, tmp_path: Path
) -> None:
    edits, _, blobs = sources(ground, tmp_path, Photos(encode_jpeg(photo(1), 90)))
    editor, plain = ground.miners.values()
    told = {"miner_type": "GENERATOR", "hotkey": editor.hotkey, "modalities": ["image"], "services": {"mod_image": "x"}}
    editor.info = lambda _request: httpx.Response(200, json=told)
    seen: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={"task_id": "t1", "status": "pending"})

    editor.handle = lambda request: take(request) if request.method == "POST" else editor.info(request)  # type: ignore[method-assign]
    rounds = ground.rounds(semisynthetic_share=1.0, edits=edits)
    ground.tick(10, rounds)
    assert [call for call, _, _ in plain.asked] == ["/gen_image"]
    assert [request.url.path for request in seen] == ["/mod_image"]
    form = parts(seen[0])
    assert GenerationRequest.model_validate_json(form["request"]).prompt
    image, mask = decode_image(form["image"]), decode_mask(form["mask"])
    assert image.shape[:2] == mask.shape and 0.01 < mask.mean() < 0.3
    (row,) = ground.rows(editor)
    kept = row.parameters
    assert (kept["source_sha256"], kept["mask_sha256"]) == (sha256_hex(form["image"]), sha256_hex(form["mask"]))
    assert kept["source"]["licence"] == "CC0-1.0" and row.tier in (0, 1, 2) and row.state == "accepted"
    assert {blobs.get(kept["source_sha256"]), blobs.get(kept["mask_sha256"])} == {form["image"], form["mask"]}


def test_who_is_too_busy_to_change_a_photo_is_sent_the_very_same_again(ground: Ground, tmp_path: Path) -> None:
    photos = Photos(*(encode_jpeg(photo(seed), 90) for seed in range(4)))
    edits, kept, _ = sources(ground, tmp_path, photos)
    editor = ground.miners[1]
    del ground.miners[2]
    told = {"miner_type": "GENERATOR", "hotkey": editor.hotkey, "modalities": ["image"], "services": {"mod_image": "x"}}
    seen: list[dict[str, bytes]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return httpx.Response(200, json=told)
        seen.append(parts(request))
        return httpx.Response(202, json={"task_id": f"t{len(seen)}"}) if len(seen) > 3 else httpx.Response(503)

    editor.handle = answer  # type: ignore[method-assign]
    for block in range(10, 60, 10):
        ground.tick(block, ground.rounds(semisynthetic_share=1.0, edits=edits))
        ground.clock.advance(3600)
        kept.sweep()
    assert all(form == seen[0] for form in seen[:4]) and seen[4] != seen[0]
    rows = ground.rows(editor)
    assert [row.state for row in rows] == ["untaken"] * 3 + ["accepted"] * 2
    assert len({(row.tier, row.parameters["mask_sha256"]) for row in rows[:4]}) == 1


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        *(("CC0-1.0", True), ("CC-BY-SA-3.0", True), ("MIT", True), ("LGPL-2.1-or-later", True), ("", False)),
        *(("CC-BY-ND-4.0", False), ("CC-BY-NC-4.0", False), ("LicenseRef-unknown", False)),
        *(("CC-BY-NC-4.0 OR CC-BY-4.0", True), ("CC-BY-4.0 AND CC-BY-NC-4.0", False)),
    ],
)
def test_only_photos_whose_licence_allows_changed_copies_are_sent(licence: str, free: bool) -> None:
    assert may_be_changed(licence) is free


def test_without_a_fitting_photo_pictures_are_asked_for_as_ever(ground: Ground, tmp_path: Path) -> None:
    shut = Photos(encode_png(photo(1)), licence="CC-BY-ND-4.0")
    small, grey = encode_png(photo(1, 100, 100)), encode_png(np.full((300, 300, 3), 99, np.uint8))
    for photos in (Photos(), shut, Photos(small, grey, b"broken")):
        edits, _, blobs = sources(ground, tmp_path, photos)
        assert edits.draw(np.random.default_rng(0)) is None
        assert not list(blobs.names())


def test_what_was_sent_along_is_kept_while_a_challenge_needs_it_and_then_goes(ground: Ground, tmp_path: Path) -> None:
    edits, kept, blobs = sources(ground, tmp_path, Photos(encode_png(photo(1)), encode_png(photo(2))))
    rng = np.random.default_rng(3)
    held, ended, judged = (edits.draw(rng) for _ in range(3))
    assert held and ended and judged and len({held.mask_sha256, ended.mask_sha256, judged.mask_sha256}) == 3
    common = {"validator": ground.validator, "miner": "m", "modality": "image", "prompt": "p", "reasons": []}
    now = ground.clock.now
    with ground.database.write() as session:
        for number, (source, state) in enumerate([(held, "accepted"), (ended, "expired"), (judged, "verified")]):
            times = {"created_at": now, "deadline": now + 9}
            row = ChallengeRow(**common, **times, task_id=str(number), state=state, parameters=source.parameters())
            session.add(row)
        session.add(
            MediumRow(
                sha256="f" * 64, validator="v", generator="m", task_id="2", modality="image",
                media_type="semisynthetic", width=1, height=1, mime="image/png", verified_at=now,
                mask_sha256=judged.mask_sha256,
            )
        )  # fmt: skip
    assert kept.sweep() == 0
    ground.clock.now += 3600
    EditBlobs(ground.database, blobs, ground.state, ground.clock).sweep()
    left = set(blobs.names())
    assert left >= {held.image_sha256, held.mask_sha256, judged.mask_sha256}
    assert ended.mask_sha256 not in left and (ended.image_sha256 == held.image_sha256 or ended.image_sha256 not in left)
    # A miner that delivered the very picture it was sent must not take it from those who are still at work on it.
    with ground.database.write() as session:
        session.add(
            ChallengeRow(
                **common, task_id="thief", state="refused", created_at=now, deadline=now, settled_at=now,
                blob_sha256=held.image_sha256, parameters={},
            )
        )  # fmt: skip
    ground.clock.now += 30 * 86400
    Pruner(ground.database, blobs, ground.clock, {}).prune()
    assert blobs.exists(held.image_sha256)


@pytest.fixture(scope="module")
def sent() -> tuple[np.ndarray, np.ndarray, Edit]:
    rgb = photo(5)
    mask = draw_region(rgb, np.random.default_rng(1))
    assert mask is not None
    return rgb, mask, Edit(encode_png(rgb), encode_png(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)))


def _inside(rgb: np.ndarray, new: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None] > 0, new, rgb).astype(np.uint8)


def _verdict(edit: Edit, data: bytes, index: MediaIndex | None = None) -> list[str]:
    verifier = Verifier(index if index is not None else MediaIndex(), b"", guarded=False)
    verifier.steps = tuple(step for step in verifier.steps if step.name != "provenance")
    verdict = verifier.judge(data, Asked(Modality.IMAGE, 0.0, 100.0, 50.0, "a lake", {}, "v/m/t", edit))
    return [reason.code for reason in verdict.reasons]


def test_a_change_inside_the_mask_alone_is_taken_and_encoding_it_anew_does_no_harm(sent) -> None:
    rgb, mask, edit = sent
    changed = _inside(rgb, photo(6), mask)
    assert _verdict(edit, encode_png(changed)) == []
    assert _verdict(edit, encode_jpeg(changed, 80)) == []


@pytest.mark.parametrize(
    ("cheat", "codes"),
    [
        ("copy", {"not_changed"}),
        ("brighter", {"not_changed"}),
        ("inverted", {"not_changed"}),
        ("blurred", {"not_changed"}),
        ("noisy", {"not_changed"}),
        ("one colour", {"not_changed"}),
        ("all of it", {"changed_outside"}),
        ("a spot outside", {"changed_outside"}),
        ("another tone", {"changed_outside"}),
        ("cropped", {"wrong_size"}),
    ],
)
def test_who_does_not_change_the_inside_or_changes_the_outside_is_refused(sent, cheat: str, codes: set[str]) -> None:
    rgb, mask, edit = sent
    new, rng = photo(6), np.random.default_rng(0)
    spot = _inside(rgb, new, mask)
    free = np.argwhere(cv2.erode(1 - mask, np.ones((81, 81), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0))
    y, x = free[len(free) // 2]
    spot[y - 20 : y + 20, x - 20 : x + 20] = 255
    pictures = {
        "copy": rgb,
        "brighter": _inside(rgb, np.clip(rgb * 1.2 + 20, 0, 255), mask),
        "inverted": _inside(rgb, 255 - rgb, mask),
        "blurred": _inside(rgb, cv2.GaussianBlur(rgb, (0, 0), 3), mask),
        "noisy": _inside(rgb, np.clip(rgb + rng.normal(0, 20, rgb.shape), 0, 255), mask),
        "one colour": _inside(rgb, np.full_like(rgb, 90), mask),
        "all of it": new,
        "a spot outside": spot,
        "another tone": _inside(np.clip(rgb * 1.08, 0, 255), new, mask),
        "cropped": _inside(rgb, new, mask)[:-8],
    }
    assert set(_verdict(edit, encode_png(pictures[cheat]))) == codes


def test_two_changes_of_one_photo_are_two_media_and_the_same_change_twice_is_a_copy(sent) -> None:
    rgb, mask, edit = sent
    index = MediaIndex()
    printed = print_picture(rgb)
    index.add(Seen("0" * 64, int.from_bytes(printed.upright.tobytes(), "big"), frames=(printed,)))
    assert _verdict(edit, encode_png(_inside(rgb, photo(6), mask)), index) == []
    assert _verdict(edit, encode_png(_inside(rgb, photo(7), mask)), index) == []
    index.add(Seen("1" * 64, owner="v/other/t"))
    stolen = Edit(edit.source, edit.mask)
    verifier = Verifier(index, b"", guarded=False)
    verifier.steps = tuple(step for step in verifier.steps if step.name != "provenance")
    data = encode_jpeg(_inside(rgb, photo(6), mask), 70)
    verdict = verifier.judge(data, Asked(Modality.IMAGE, 0.0, 100.0, 50.0, "a lake", {}, "v/thief/t", stolen))
    assert {reason.code for reason in verdict.reasons} <= {"near_duplicate", "duplicate"} and verdict.reasons


def test_pixels_outside_do_not_matter_where_the_mask_covers_all() -> None:
    found = measure_edit(photo(1), photo(2), np.ones((288, 320), np.uint8))
    assert found.outside == 0 and not found.unchanged_inside


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is true, a minute at most."""
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class OnChain:
    """Who is registered."""

    async def metagraph(self, _netuid: int) -> Metagraph:
        return Metagraph(
            1, 1, 0, tuple(neuron(uid, key(name).ss58_address) for uid, name in enumerate(("vali", "one")))
        )


class Router(httpx.AsyncBaseTransport):
    """Leads requests to the two applications of this process."""

    def __init__(self) -> None:
        self.apps: dict[str, object] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await httpx.ASGITransport(self.apps[request.url.host]).handle_async_request(request)  # type: ignore[arg-type]


def test_a_real_generator_changes_a_real_photo_and_the_medium_is_published_with_its_mask(
    ground: Ground, tmp_path: Path
) -> None:
    """Asked over signed HTTP, repainted by the local pipeline, signed, delivered, verified and cut into a shard."""
    del ground.miners[2]
    clock: ManualClock = ground.clock
    # The library that signs has no other clock than the machine's.
    clock.now = SystemClock().time()
    edits, kept, blobs = sources(ground, tmp_path, Photos(encode_jpeg(photo(11, 300, 360), 92)))
    router = Router()
    cache = MetagraphCache(OnChain(), 1, clock)  # type: ignore[arg-type]
    TestAuthority(tmp_path / "authority", clock).leaf("miner", "Miner Ltd")
    store = TaskStore(tmp_path / "miner", clock, ground.ids)
    services = {Modality.IMAGE: LocalService(RepaintPipeline(steps=4, refiner_steps=1))}
    worker = GeneratorWorker(
        store, services, CertificateSeal(tmp_path / "authority", "miner", "GAS", clock), key("one"), clock, ground.ids,
        WorkRules(1, min_free_bytes=0, delivery=DeliveryRules(first_pause_seconds=0.01, max_pause_seconds=0.01)),
        transport=router,
    )  # fmt: skip
    router.apps["8.8.4.4"] = app = create_miner(
        store, worker, services, EpistulaGate(key("one").ss58_address, cache, clock, ReplayGuard()),
        key("one").ss58_address, 1, GeneratorRules(allow_local_webhooks=True),
    )  # fmt: skip
    doors = Doors(ground.challenges, clock, uploads=4)
    router.apps["vali"] = create_spool_app(
        ground.challenges, doors, blobs, EpistulaGate(ground.validator, cache, clock, ReplayGuard()), clock,
        folder=tmp_path / "incoming", max_bytes=8 << 20, counts=ReceivingCounts(),
    )  # fmt: skip
    rounds = ground.rounds(semisynthetic_share=1.0, transport=router, on_task=doors.opened, edits=edits)

    async def story() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(app.router.lifespan_context(app))
            await rounds.tick(10, ground.graph(10))
            await asyncio.to_thread(wait_for, lambda: ground.rows()[0].state != "accepted")

    asyncio.run(story())
    with ExitStack() as stack:
        index = stack.enter_context(MediaIndex())
        anchors = (tmp_path / "authority" / "root.pem").read_bytes()
        verifier = stack.enter_context(Verifier(index, anchors, clock=clock))
        (settled,) = Verifying(
            ground.database, blobs, [verifier], index, ground.validator, clock, worker="w"
        ).step()  # fmt: skip
    assert (settled.state.value, settled.codes) == ("verified", ())
    with ground.database.read() as session:
        (medium,) = session.query(MediumRow).all()
    assert (medium.media_type, medium.width, medium.height) == ("semisynthetic", 360, 300)
    assert medium.parameters["source"]["dataset"] == "photos"
    clock.now += 3600
    assert kept.sweep() == 1
    build_shard([medium], blobs, tmp_path / "shard.parquet")
    (row,) = pq.read_table(tmp_path / "shard.parquet").to_pylist()
    mask, made = decode_mask(row["mask"]), decode_image(row["bytes"])
    assert mask.shape == made.shape[:2] and sha256_hex(row["mask"]) == medium.mask_sha256
