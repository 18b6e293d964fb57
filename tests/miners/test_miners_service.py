"""The generator's calls: what is taken, what is refused with which code, and who is told what."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing

sys.path.insert(0, str(Path(__file__).parent))

from miner_ground import NETUID, found_home, key, noise_png, wait_for
from test_miners_making import Scripted, Unsealed, picture

from gas.chain.local.chain import LocalChain
from gas.clock import RandomIds, SystemClock
from gas.errors import InfrastructureError
from gas.generation.base import GenerationTask
from gas.miners.generator import GeneratorRules, create_app
from gas.miners.states import TaskState
from gas.miners.tasks import TaskStore
from gas.miners.worker import GeneratorWorker, WorkRules
from gas.protocol.client import encode_multipart
from gas.protocol.epistula import ReplayGuard, sign_request
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.types import RAO_PER_TAO, Modality

HOOK = "https://validator.example/generation/callback"


class Service(Scripted):
    """Makes the same picture for every task."""

    def _play(self) -> Any:
        return picture()


class House:
    """The application in this process, with a validator that signs."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        clock, self.ids = SystemClock(), RandomIds()
        self.chain = LocalChain(folder / ".gas" / "chain.db", key("miner"), clock)
        self.store = TaskStore(folder / "state", clock, self.ids)
        self.service = Service()
        self.delivered: list[httpx.Request] = []
        services = {Modality.IMAGE: self.service}
        self.worker = GeneratorWorker(
            self.store, services, rules.pop("seal", Unsealed()), key("miner"), clock, self.ids,
            WorkRules(1, min_free_bytes=rules.pop("min_free_bytes", 0)),
            transport=httpx.MockTransport(self._deliver),
        )  # fmt: skip
        gate = EpistulaGate(
            key("miner").ss58_address, MetagraphCache(self.chain, NETUID, clock), clock, ReplayGuard(),
            need_permit=rules.pop("need_permit", True), min_stake=rules.pop("min_stake", 0),
        )  # fmt: skip
        addresses = rules.pop("addresses", ["93.184.216.34"])

        async def resolve(_host: str, _port: int) -> list[str]:
            return addresses

        self.app = create_app(
            self.store, self.worker, services, gate, key("miner").ss58_address, 1, GeneratorRules(**rules),
            resolve=resolve,
        )  # fmt: skip

    async def _deliver(self, request: httpx.Request) -> httpx.Response:
        self.delivered.append(request)
        return httpx.Response(200, json={"status": "verified", "reasons": []})

    @asynccontextmanager
    async def open(self) -> Any:
        transport = httpx.ASGITransport(self.app)
        async with (
            self.app.router.lifespan_context(self.app),
            httpx.AsyncClient(transport=transport, base_url="http://miner") as http,
        ):
            yield http
        await self.chain.close()

    def headers(self, body: bytes, who: str = "validator", **more: str) -> dict[str, str]:
        now = int(SystemClock().time() * 1000)
        signed = sign_request(
            key(who), body, signed_for=key("miner").ss58_address, now_ms=now, uuid=self.ids.new()
        )  # fmt: skip
        return {**signed, "X-Webhook-URL": HOOK, **more}

    async def post(self, http: httpx.AsyncClient, path: str, body: bytes, who: str = "validator", **more: str) -> Any:
        return await http.post(path, content=body, headers=self.headers(body, who, **more))

    def ask(self, *bodies: tuple[str, bytes, dict[str, str]]) -> list[tuple[int, str]]:
        """Status and code of each answer."""

        async def run() -> list[tuple[int, str]]:
            out = []
            async with self.open() as http:
                for path, body, more in bodies:
                    answer = await self.post(http, path, body, **more)
                    data = answer.json()
                    out.append((answer.status_code, data["error"]["code"] if "error" in data else data["status"]))
            return out

        return asyncio.run(run())


@pytest.fixture
def folder(tmp_path: Path, founded: Path) -> Path:
    (tmp_path / ".gas").symlink_to(founded)
    return tmp_path


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found_home(tmp_path_factory.mktemp("network") / ".gas")


def wish(prompt: object = "a cat", **parameters: object) -> bytes:
    return json.dumps({"prompt": prompt, "parameters": parameters}).encode()


REFUSED: list[tuple[str, str, bytes, dict[str, str], tuple[int, str]]] = [
    ("no prompt", "/gen_image", b"{}", {}, (422, "bad_message")),
    ("an empty prompt", "/gen_image", wish(""), {}, (422, "bad_message")),
    ("a prompt of blanks", "/gen_image", wish(" \n\t"), {}, (422, "bad_prompt")),
    ("a binary prompt", "/gen_image", wish("\x00\x01\x02 a cat"), {}, (422, "bad_prompt")),
    ("an escape sequence", "/gen_image", wish("a cat \x1b[2J"), {}, (422, "bad_prompt")),
    ("a lonely surrogate", "/gen_image", b'{"prompt": "a \\ud800 cat"}', {}, (422, "bad_message")),
    ("a long prompt", "/gen_image", wish("a" * 8001), {}, (422, "bad_message")),
    ("a huge body", "/gen_image", wish("a" * 70_000), {}, (413, "body_too_large")),
    ("no JSON", "/gen_image", b"\xff\xfe\x00", {}, (422, "bad_message")),
    ("deep JSON", "/gen_image", b'{"prompt": ' + b"[" * 20_000, {}, (422, "bad_message")),
    ("an unknown tier", "/gen_image", wish(resolution="16K"), {}, (422, "unsupported_parameters")),
    ("a video's tier", "/gen_image", wish(resolution="720p"), {}, (422, "unsupported_parameters")),
    ("an unknown parameter", "/gen_image", wish(lora="x"), {}, (422, "unsupported_parameters")),
    ("an escape in a parameter", "/gen_image", wish(negative_prompt="\x1b[2J"), {}, (422, "unsupported_parameters")),
    ("a parameter inside one", "/gen_image", wish(style={"a": [1]}), {}, (422, "unsupported_parameters")),
    ("a tiny width", "/gen_image", wish(width=1), {}, (422, "bad_message")),
    ("a modality that is not made", "/gen_audio", wish(), {}, (422, "modality_not_offered")),
    ("a local webhook", "/gen_image", wish(), {"X-Webhook-URL": "http://10.0.0.1/x"}, (422, "bad_webhook")),
    ("no webhook", "/gen_image", wish(), {"X-Webhook-URL": ""}, (422, "bad_webhook")),
    ("no permit", "/gen_image", wish(), {"who": "poor"}, (401, "no_permit")),
    ("a stranger", "/gen_image", wish(), {"who": "nobody"}, (401, "unknown_signer")),
]


def test_bad_requests_are_refused_with_stable_codes_and_no_work(folder: Path) -> None:
    house = House(folder)
    with structlog.testing.capture_logs() as lines:
        found = house.ask(*[(path, body, more) for _name, path, body, more, _answer in REFUSED])
    assert dict(zip([case[0] for case in REFUSED], found, strict=True)) == {case[0]: case[4] for case in REFUSED}
    assert house.service.asked == []
    told = {line["code"]: line["what_to_do"] for line in lines if line["event"] == "request_refused"}
    assert {"bad_message", "bad_prompt", "unsupported_parameters", "bad_webhook"} <= set(told)
    assert "MINER_ALLOW_LOCAL_WEBHOOKS" in told["bad_webhook"]
    assert not any("See the lines above" in text for text in told.values())
    assert not any("a cat" in str(line) for line in lines)


def test_a_webhook_whose_name_leads_home_is_refused_before_anything_is_paid(folder: Path) -> None:
    house = House(folder, addresses=["93.184.216.34", "192.168.1.1"])
    assert house.ask(("/gen_image", wish(), {})) == [(422, "bad_webhook")]
    assert house.service.asked == []


def test_stake_can_be_asked_for_instead_of_a_permit(folder: Path) -> None:
    house = House(folder, need_permit=False, min_stake=100 * RAO_PER_TAO)
    assert house.ask(("/gen_image", wish(), {"who": "poor"}), ("/gen_image", wish(), {})) == [
        (401, "no_permit"),
        (202, "pending"),
    ]


def edit(image: bytes, mask: bytes | None = None, text: bytes = wish("a red door"), **more: bytes) -> tuple[bytes, str]:
    files = {"request": ("r.json", text, "application/json"), "image": ("i.png", image, "image/png")}
    if mask is not None:
        files["mask"] = ("m.png", mask, "image/png")
    files |= {name: (name, data, "application/octet-stream") for name, data in more.items()}
    return encode_multipart({}, files)


def test_a_picture_is_changed_where_the_mask_says(folder: Path) -> None:
    house = House(folder)
    image, mask = noise_png(64, 1), noise_png(64, 2)
    body, kind = edit(image, mask)

    async def story() -> None:
        async with house.open() as http:
            answer = await house.post(http, "/mod_image", body, **{"Content-Type": kind})
            assert answer.status_code == 202
            await asyncio.to_thread(wait_for, lambda: house.store.counts() == {"delivered": 1})

    asyncio.run(story())
    task: GenerationTask = house.service.asked[0]
    assert task.prompt == "a red door"
    assert task.source is not None
    assert (task.source.data, task.source.mask) == (image, mask)
    assert list((folder / "state").glob("incoming-*")) == []
    assert list((folder / "state" / "sources").glob("??/*")) == []


def test_forms_that_make_no_sense_are_refused_and_leave_nothing(folder: Path) -> None:
    house = House(folder)
    good = noise_png(64)
    cases = {
        "bad_image": [edit(b"<html>"), edit(good[:100]), edit(b"")],
        "bad_mask": [edit(good, noise_png(32)), edit(good, b"x")],
        "bad_message": [edit(good, text=b"{}"), edit(good, text=b"[" * 1000)],
        "unsupported_parameters": [edit(good, text=wish(resolution="huge"))],
        "bad_multipart": [
            edit(good, extra=b"x"),
            (b"nonsense", "multipart/form-data; boundary=x"),
            (wish(), "application/json"),
        ],
    }
    asked = [("/mod_image", body, {"Content-Type": kind}) for forms in cases.values() for body, kind in forms]
    asked.append(("/mod_image", edit(b"x" * (33 << 20))[0], {"Content-Type": "multipart/form-data; boundary=x"}))
    expected = [(422, code) for code, forms in cases.items() for _ in forms] + [(413, "body_too_large")]
    assert house.ask(*asked) == expected
    assert house.service.asked == []
    assert list((folder / "state").glob("incoming-*")) == []


def test_a_miner_that_changes_no_pictures_says_so(folder: Path) -> None:
    house = House(folder)
    house.service.edits = False
    body, kind = edit(noise_png(64))
    assert house.ask(("/mod_image", body, {"Content-Type": kind})) == [(422, "edits_not_offered")]


def test_a_full_disk_and_an_expired_certificate_stop_new_work_and_the_service_stays_up(folder: Path) -> None:
    class Expired(Unsealed):
        def check(self) -> None:
            raise InfrastructureError("Run out.", code="certificate_expired")

    for rules, code in (({"min_free_bytes": 1 << 62}, "disk_full"), ({"seal": Expired()}, "certificate_expired")):
        house = House(folder, **rules)

        async def story(house: House = house, code: str = code) -> None:
            async with house.open() as http:
                health = await http.get("/health")
                assert (health.status_code, health.json()["error"]["code"]) == (503, code)
                answer = await house.post(http, "/gen_image", wish())
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)
                assert answer.headers["retry-after"]
                info = await http.get("/miner_info", headers=house.headers(b""))
                assert info.status_code == 200

        asyncio.run(story())


def test_who_made_a_task_sees_how_it_stands_and_nobody_else_does(folder: Path) -> None:
    house = House(folder)

    async def story() -> None:
        async with house.open() as http:
            info = (await http.get("/miner_info", headers=house.headers(b""))).json()
            assert info["modalities"] == ["image"]
            assert info["services"] == {"image": "scripted", "mod_image": "scripted"}
            made = (await house.post(http, "/gen_image", wish())).json()["task_id"]
            await asyncio.to_thread(wait_for, lambda: house.store.counts() == {"delivered": 1})
            seen = await http.get(f"/status/{made}", headers=house.headers(b""))
            assert seen.json()["status"] == "delivered"
            (request,) = house.delivered
            assert request.headers["task-id"] == made
            assert request.headers["content-type"] == "image/png"
            assert request.headers["epistula-signed-for"] == key("validator").ss58_address
            other = await http.get(f"/status/{made}", headers=house.headers(b"", "poor"))
            assert other.status_code in (401, 404)

    asyncio.run(story())
    task = house.delivered[0].headers["task-id"]
    store = TaskStore(folder / "state", SystemClock(), RandomIds())
    found = store.get(task)
    store.close()
    assert found is not None
    assert (found.state, found.verdict, found.attempts) == (TaskState.DELIVERED, "verified", 1)


def test_a_stop_waits_for_a_paid_call_that_is_under_way(folder: Path) -> None:
    house = House(folder)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(task: GenerationTask) -> Any:
        begun.set()
        await go_on.wait()
        return picture()

    house.service.submit = slow  # type: ignore[method-assign]

    async def story() -> None:
        async with house.open() as http:
            await house.post(http, "/gen_image", wish())
            await begun.wait()
            asyncio.get_running_loop().call_later(0.1, go_on.set)

    asyncio.run(story())
    store = TaskStore(folder / "state", SystemClock(), RandomIds())
    recovery = store.recover()
    store.close()
    assert [task.state for task in recovery.open] in ([TaskState.DELIVERING], [])
    assert recovery.uncertain == ()


def test_a_mistake_of_a_service_costs_one_task_and_nothing_else(folder: Path) -> None:
    house = House(folder)
    good = house.service.submit
    answers = iter([KeyError("a mistake"), None])

    async def once(task: GenerationTask) -> Any:
        mistake = next(answers)
        if mistake is not None:
            raise mistake
        return await good(task)

    house.service.submit = once  # type: ignore[method-assign]

    async def story() -> None:
        async with house.open() as http:
            for _ in range(2):
                await house.post(http, "/gen_image", wish())
            await asyncio.to_thread(wait_for, lambda: house.store.counts() == {"failed": 1, "delivered": 1})

    asyncio.run(story())
    told = [json.loads(request.content) for request in house.delivered if "task-status" in request.headers]
    assert told == [{"error_message": "The miner could not make it.", "code": "internal_error"}]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    import structlog

    old = structlog.get_config()
    structlog.configure(processors=[lambda _l, _m, event: event], logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**old)
