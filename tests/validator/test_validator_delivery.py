"""A validator and two generators talk over signed HTTP, in one process, on a real ledger."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url

from gas.chain.keys import KeySigner, signer_from_seed
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import create_ledger, create_subnet, ensure_balance, ensure_registered, ensure_stake
from gas.clock import ManualClock, RandomIds
from gas.errors import InfrastructureError, Reason, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask
from gas.media.image import encode_png
from gas.miners.delivery import DeliveryRules
from gas.miners.generator import GeneratorRules
from gas.miners.generator import create_app as create_miner
from gas.miners.local import LocalService
from gas.miners.states import TaskState
from gas.miners.tasks import TaskStore
from gas.miners.webhooks import check_webhook
from gas.miners.worker import GeneratorWorker, WorkRules
from gas.protocol.client import SignedClient
from gas.protocol.epistula import ReplayGuard
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.storage.blobs import FolderBlobs
from gas.storage.database import open_database
from gas.types import RAO_PER_TAO, MediaType, Modality
from gas.validator.callbacks import CALLBACK_PATH
from gas.validator.callbacks import create_app as create_callbacks
from gas.validator.challenges import Challenger, ChallengeRules, GeneratorPeer
from gas.validator.tasks import Challenges, ChallengeState
from gas.verification.base import Verdict

NETUID = 1


class Words:
    """A pipeline whose media are their prompts; a prompt that says so fails."""

    name = "words"
    modalities = frozenset({Modality.IMAGE})

    def __init__(self) -> None:
        self.made: list[str] = []

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        self.made.append(task.prompt)
        if "impossible" in task.prompt:
            raise InfrastructureError("The secret device /dev/x burned down.")
        rgb = np.random.default_rng(task.seed).integers(0, 256, (16, 16, 3), np.uint8)
        data = encode_png(rgb) + f"{task.prompt}/{task.seed}".encode()
        return GeneratedMedium(data, "image/png", MediaType.SYNTHETIC, "words-1")


class Unsealed:
    """Signs nothing."""

    def check(self) -> None: ...

    def sign(self, medium: GeneratedMedium) -> bytes:
        return medium.data


def judge_words(data: bytes, _challenge: object) -> Verdict:
    reasons = (Reason("ugly", "It is ugly."),) if b"ugly" in data else ()
    return Verdict(reasons, hashlib.sha256(data).hexdigest(), 1, 1, "tests")


class Network:
    """One validator, two miners, one outsider; their services reach each other by host name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.ids = folder, ManualClock(), RandomIds()
        self.keys = {n: signer_from_seed(n.encode().ljust(32)) for n in ("owner", "vali", "one", "two", "outsider")}
        path = folder / "chain.db"
        ledger = create_ledger(path, root=self.keys["owner"].ss58_address, clock=self.clock, manual=True)
        owner = self.keys["owner"]
        create_subnet(
            ledger, owner, NETUID, owner=owner.ss58_address, owner_hotkey=owner.ss58_address,
            hyperparameters={"tempo": 5},
        )  # fmt: skip
        for name in ("vali", "one", "two"):
            key = self.keys[name]
            ensure_balance(ledger, owner, key.ss58_address, 100 * RAO_PER_TAO)
            ensure_registered(ledger, key, key, NETUID)
        ensure_stake(ledger, self.keys["vali"], self.keys["vali"].ss58_address, NETUID, 10 * RAO_PER_TAO)
        ledger.advance(6)
        ledger.close()
        self.chain = LocalChain(path, owner, self.clock)
        self.database = open_database(service_url(folder))
        self.blobs = FolderBlobs(folder / "blobs")
        self.challenges = Challenges(self.database, self.address("vali"), self.clock)
        self.pipelines: dict[str, Words] = {}
        self.stores: dict[str, TaskStore] = {}
        self.transport = _Router()
        self.http = httpx.AsyncClient(transport=self.transport)

    def address(self, name: str) -> str:
        return self.keys[name].ss58_address

    def gate(self, name: str, *, need_permit: bool = False) -> EpistulaGate:
        cache = MetagraphCache(self.chain, NETUID, self.clock)
        return EpistulaGate(self.address(name), cache, self.clock, ReplayGuard(), need_permit=need_permit)

    def client(self, name: str) -> SignedClient:
        return SignedClient(self.keys[name], self.http, self.clock, self.ids)

    def miner(self, name: str, rules: GeneratorRules | None = None) -> object:
        pipeline = self.pipelines.setdefault(name, Words())
        store = self.stores[name] = TaskStore(self.folder / name, self.clock, self.ids)
        services = {Modality.IMAGE: LocalService(pipeline)}
        worker = _Worker(store, services, self.keys[name], self)
        rules = rules or GeneratorRules(allow_local_webhooks=True)
        return create_miner(store, worker, services, self.gate(name, need_permit=True), self.address(name), 1, rules)

    @asynccontextmanager
    async def up(self, *miners: str) -> AsyncIterator[Challenger]:
        def tell(_challenge: object, _verdict: object) -> None:
            challenger.settled()

        rules = ChallengeRules(wanted=5, max_challenges=8, in_flight=2, max_failures=3, retry_seconds=0.0)
        challenger = Challenger(self.challenges, self.client("vali"), f"http://vali{CALLBACK_PATH}", self.draw, rules)
        self.transport.apps["vali"] = create_callbacks(
            self.challenges, judge_words, self.blobs, self.gate("vali"), self.address("vali"), self.clock,
            on_settled=tell,
        )  # fmt: skip
        async with _lifespans(self.transport, {name: self.miner(name) for name in miners}):
            yield challenger

    prompts: tuple[str, ...] = ("a cat", "a dog")

    def draw(self, rng: np.random.Generator) -> str:
        return self.prompts[int(rng.integers(len(self.prompts)))]

    def peer(self, name: str) -> GeneratorPeer:
        return GeneratorPeer(self.keys[name].ss58_address, f"http://{name}")

    def close(self) -> None:
        self.database.close()
        self.chain.ledger.close()


class _Worker(GeneratorWorker):
    """The real worker, whose deliveries go through the test's transport."""

    def __init__(
        self, store: TaskStore, services: dict[Modality, LocalService], signer: KeySigner, network: Network
    ) -> None:
        rules = WorkRules(1, delivery=DeliveryRules(first_pause_seconds=0.01, max_pause_seconds=0.01))
        super().__init__(
            store, services, Unsealed(), signer, network.clock, network.ids, rules, transport=network.transport
        )


class _Router(httpx.AsyncBaseTransport):
    """Routes by host name to applications in this process."""

    def __init__(self) -> None:
        self.apps: dict[str, object] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        app = self.apps.get(request.url.host)
        if app is None:
            raise httpx.ConnectError("nobody listens")
        return await httpx.ASGITransport(app).handle_async_request(request)  # type: ignore[arg-type]


@asynccontextmanager
async def _lifespans(router: _Router, apps: dict[str, object]) -> AsyncIterator[None]:
    opened = []
    for name, app in apps.items():
        context = app.router.lifespan_context(app)  # type: ignore[attr-defined]
        await context.__aenter__()
        opened.append((name, context))
        router.apps[name] = app
    try:
        yield
    finally:
        for name, context in opened:
            await context.__aexit__(None, None, None)
            router.apps.pop(name)


@pytest.fixture
def network(tmp_path: Path):
    network = Network(tmp_path)
    yield network
    network.close()


def test_each_generator_is_challenged_until_enough_of_its_media_are_verified(network: Network) -> None:
    async def story() -> None:
        async with network.up("one", "two") as challenger:
            await challenger.collect([network.peer("one"), network.peer("two")], Modality.IMAGE, _rng())

    asyncio.run(story())
    media = network.challenges.media()
    assert sorted(row.generator for row in media) == sorted([network.address("one")] * 5 + [network.address("two")] * 5)
    assert all(network.blobs.exists(row.sha256) for row in media)


def test_refused_media_leave_no_file_and_are_counted_with_their_reason(network: Network) -> None:
    network.prompts = ("an ugly cat",)

    async def story() -> None:
        async with network.up("one") as challenger:
            await challenger.collect([network.peer("one")], Modality.IMAGE, _rng())

    asyncio.run(story())
    counts = network.challenges.counts(network.address("one"))
    assert (counts.verified, counts.refused, counts.reasons) == (0, 8, {"ugly": 8})
    assert list(network.blobs.names()) == []


def test_a_failure_of_the_pipeline_is_told_without_its_secrets(network: Network) -> None:
    network.prompts = ("impossible",)

    async def story() -> None:
        async with network.up("one") as challenger:
            await challenger.collect([network.peer("one")], Modality.IMAGE, _rng())

    asyncio.run(story())
    counts = network.challenges.counts(network.address("one"))
    assert counts.states == {ChallengeState.FAILED: 8}


def test_a_medium_for_another_miners_task_is_refused_and_the_task_stays_open(network: Network) -> None:
    network.challenges.record(network.address("one"), "task-1", Modality.IMAGE, "a cat", {}, 60)

    async def deliver(name: str, task: str) -> None:
        await network.client(name).send(
            "POST", f"http://vali{CALLBACK_PATH}", body=b"x", signed_for=network.address("vali"),
            headers={"task-id": task},
        )  # fmt: skip

    async def story() -> None:
        async with network.up():
            with pytest.raises(RequestRefused) as refusal:
                await deliver("two", "task-1")
            assert (refusal.value.status, refusal.value.error_code) == (404, "unknown_task")
            with pytest.raises(RequestRefused) as refusal:
                await deliver("outsider", "task-1")
            assert (refusal.value.status, refusal.value.error_code) == (401, "unknown_signer")
            await deliver("one", "task-1")
            with pytest.raises(RequestRefused) as refusal:
                await deliver("one", "task-1")
            assert (refusal.value.status, refusal.value.error_code) == (409, "already_delivered")

    asyncio.run(story())
    assert [row.generator for row in network.challenges.media()] == [network.address("one")]


def test_a_late_delivery_is_refused_and_nothing_is_stored(network: Network) -> None:
    network.challenges.record(network.address("one"), "task-1", Modality.IMAGE, "a cat", {}, 60)
    network.clock.advance(61)

    async def story() -> None:
        async with network.up():
            with pytest.raises(RequestRefused) as refusal:
                await network.client("one").send(
                    "POST", f"http://vali{CALLBACK_PATH}", body=b"x", signed_for=network.address("vali"),
                    headers={"task-id": "task-1"},
                )  # fmt: skip
            assert (refusal.value.status, refusal.value.error_code) == (410, "too_late")

    asyncio.run(story())
    assert list(network.blobs.names()) == []


def test_only_validators_with_a_permit_get_media_and_only_owners_see_their_tasks(network: Network) -> None:
    async def story() -> None:
        async with network.up("one"):
            with pytest.raises(RequestRefused) as refusal:
                await network.client("two").post_json(
                    "http://one/gen_image", {"prompt": "a cat"}, signed_for=network.address("one")
                )
            assert (refusal.value.status, refusal.value.error_code) == (401, "no_permit")
            with pytest.raises(RequestRefused) as refusal:
                await network.client("vali").get("http://one/status/unknown", signed_for=network.address("one"))
            assert refusal.value.status == 404

    asyncio.run(story())


def test_a_full_queue_answers_503_and_loses_nothing_that_it_took(network: Network) -> None:
    store = TaskStore(network.folder / "full", network.clock, network.ids)
    taken = [store.add("v", "image", "p", {}, "http://x", limit=3) for _ in range(5)]
    assert [task is not None for task in taken] == [True, True, True, False, False]
    assert len(store.unfinished()) == 3
    store.close()


def test_a_restarted_miner_delivers_what_it_had_made_and_makes_what_it_had_begun(network: Network) -> None:
    store = TaskStore(network.folder / "one", network.clock, network.ids)
    url = f"http://vali{CALLBACK_PATH}"
    made, begun = (store.add(network.address("vali"), "image", p, {}, url, limit=9) for p in ("made", "begun"))
    assert made is not None
    assert begun is not None
    store.start(made.id)
    store.generated(made.id, b"medium made before the crash", "image/png")
    store.start(begun.id)
    store.close()
    for task in (made, begun):
        network.challenges.record(network.address("one"), task.id, Modality.IMAGE, task.prompt, {}, 60)

    async def story() -> None:
        async with network.up("one"), asyncio.timeout(20):
            while network.stores["one"].counts() != {TaskState.DELIVERED: 2}:  # noqa: ASYNC110  (another process's state)
                await asyncio.sleep(0.01)

    asyncio.run(story())
    assert network.pipelines["one"].made == ["begun"]
    assert network.challenges.verified_count(network.address("one")) == 2


@pytest.mark.parametrize(
    "url",
    ["", "ftp://example.org/", "http://127.0.0.1/x", "http://localhost/x", "http://10.0.0.1/", "http://[::1]/",
     "http://169.254.169.254/latest", "http://user:pw@example.org/", "http://printer/", "http://[bad", "http://a:b/"],
)  # fmt: skip
def test_webhooks_into_the_operators_own_network_are_refused(url: str) -> None:
    with pytest.raises(RequestRefused) as refusal:
        check_webhook(url, allow_local=False)
    assert (refusal.value.status, refusal.value.error_code) == (422, "bad_webhook")
    assert check_webhook("https://example.org/hook", allow_local=False)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)
