"""Generators that play fair, and generators that don't: what each offers for a challenge, and servers that offer it.

A :class:`Behaviour` says what a miner offers for a task; it knows nothing of HTTP, so that a test can put its offers
through the verification directly. :class:`Actors` serves any number of miners, each on a port of its own with a hotkey
of its own, from one thread: ``/gen_image``, ``/miner_info``, ``/health``, and signed deliveries to the webhook.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import io
import json
import struct
import threading
import zlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import c2pa
import cv2
import httpx
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gas.chain.keys import Signer
from gas.cli.servers import Server, listen
from gas.clock import ManualClock, RandomIds, SystemClock
from gas.errors import RequestRefused
from gas.generation.signing import TRAINED_ALGORITHMIC_MEDIA, Leaf, TestAuthority, sign_medium
from gas.media.image import decode_image, encode_jpeg, encode_png
from gas.protocol.epistula import ReplayGuard, Standing, sign_request, verify_request
from gas.protocol.server import error_response

__all__ = ["BEHAVIOURS", "FLOOD", "HONEST", "Actor", "Actors", "Behaviour", "Offer", "Wish", "World", "draw"]

SIDES = {"1K": 320, "2K": 1920, "4K": 3520}
HONEST = frozenset({"honest", "honest-to-size"})
FLOOD = 40
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Wish:
    """A task that a miner has taken."""

    task_id: str
    validator: str
    prompt: str
    resolution: str
    at: float


@dataclass(frozen=True, slots=True)
class Offer:
    """One delivery.

    Attributes:
        data: The body.
        task_id: For which task.
        wait: Seconds after the task was taken.
        endless: The body is repeated until the receiver hangs up, or 10 GB have gone.
    """

    data: bytes
    task_id: str
    wait: float = 0.0
    endless: bool = False


class World:
    """What miners share: authorities, photos, and what others have shown.

    Args:
        folder: Where authorities are kept; the validator trusts :attr:`anchors_pem`.
        photos: Real photos in JPEG; one is used up by each theft.

    Attributes:
        late_seconds: After how long slow miners deliver.
        shown: Who has delivered which medium, the oldest first; thieves help themselves.
        tasks: Who has taken which task.
    """

    def __init__(self, folder: Path, photos: Sequence[bytes] = ()) -> None:
        self.clock = SystemClock()
        self.authority = TestAuthority(folder / "authority", self.clock)
        # The same words in its certificates, and a key of its own.
        self._self_made = TestAuthority(folder / "self-made", self.clock)
        self._stranger = TestAuthority(folder / "stranger", self.clock, name="Strange authority")
        self._folder = folder
        self.photos = list(photos)
        self.late_seconds = 1e9
        self.shown: list[tuple[str, bytes]] = []
        self.tasks: list[tuple[str, str]] = []
        self._taken: Counter[str] = Counter()
        self._old: dict[str, bytes] = {}

    @property
    def anchors_pem(self) -> bytes:
        """What validators trust."""
        return self.authority.anchors_pem

    def leaf(self, name: str, kind: str = "trusted") -> Leaf:
        """A miner's certificate: ``trusted``, ``untrusted`` or ``self-made``."""
        authority = {"trusted": self.authority, "untrusted": self._stranger, "self-made": self._self_made}[kind]
        return authority.leaf(name, f"Operator {name}")

    def sign(self, data: bytes, leaf: Leaf, *, ago: float = 0.0) -> bytes:
        """Sign a picture; ``ago`` seconds before now, by the signer's word."""
        mime = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
        clock = ManualClock(self.clock.time() - ago)
        return sign_medium(data, mime, leaf, title="medium", model="actor-1", clock=clock)

    def sign_expired(self, data: bytes, name: str) -> bytes:
        """Sign a JPEG with a certificate of the trusted authority that ran out weeks ago.

        The library won't do that: a valid certificate of the same length takes the expired one's place until the end.
        """
        now = self.leaf(name)
        key = serialization.load_pem_private_key(now.key_pem, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        valid = x509.load_pem_x509_certificate(now.chain_pem).public_bytes(serialization.Encoding.DER)
        past = TestAuthority(self._folder / "authority", ManualClock(self.clock.time() - 30 * _DAY))
        while True:
            # Serial numbers and signatures differ in length by a byte or two.
            gone = past._make_leaf(key, f"Operator {name}", 1)
            expired = gone.public_bytes(serialization.Encoding.DER)
            if len(expired) == len(valid):
                break

        def sign(message: bytes) -> bytes:
            assert message.count(valid) == 1
            r, s = decode_dss_signature(key.sign(message.replace(valid, expired), ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

        action = {
            "action": "c2pa.created",
            "digitalSourceType": TRAINED_ALGORITHMIC_MEDIA,
            "softwareAgent": {"name": "actor-1"},
        }
        manifest = {
            "claim_generator_info": [{"name": "actor"}],
            "format": "image/jpeg",
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        out, chain = io.BytesIO(), now.chain_pem.decode()
        algorithm = c2pa.C2paSigningAlg.ES256
        with (
            c2pa.Context.from_dict({"verify": {"verify_after_sign": False}}) as context,
            c2pa.Signer.from_callback(sign, algorithm, chain, None) as signer,
            c2pa.Builder(json.dumps(manifest), context) as builder,
        ):
            builder.sign(signer, "image/jpeg", io.BytesIO(data), out)
        assert out.getvalue().count(valid) == 1
        return out.getvalue().replace(valid, expired)

    def another(self, thief: str) -> tuple[str, bytes] | None:
        """Somebody else's medium that was delivered before, not used by this thief yet."""
        others = [(owner, data) for owner, data in self.shown if owner != thief]
        at = self._taken[thief]
        if at >= len(others):
            return None
        self._taken[thief] += 1
        return others[at]

    def turn(self, name: str) -> int:
        """How often this was asked before, by name."""
        self._taken[f"turn/{name}"] += 1
        return self._taken[f"turn/{name}"] - 1

    def photo(self) -> bytes | None:
        """The next real photo."""
        return self.photos.pop() if self.photos else None

    def old(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The one medium that a miner has, made at its first task."""
        if name not in self._old:
            self._old[name] = make()
        return self._old[name]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a miner plays.

    Attributes:
        name: Short.
        offers: What it delivers for a task.
        codes: Codes of refusals that this behaviour may earn; empty when it isn't judged at all.
        listens: Whether it answers on its port.
        min_stake: Rao that a validator must have to be served.
    """

    name: str
    offers: Callable[[World, str, Wish], list[Offer]]
    codes: frozenset[str] = frozenset()
    listens: bool = True
    min_stake: int = 0


def draw(words: str, side: int = 320) -> np.ndarray:
    """A picture with forms, edges and grain that another text has nothing in common with; uint8, (side, side, 3)."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big"))
    small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    rgb = np.ascontiguousarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC))
    for _ in range(40):
        one, two = (tuple(int(v) for v in rng.integers(0, side, 2)) for _ in range(2))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.line(rgb, one, two, colour, int(rng.integers(2, 2 + side // 50)))
        elif kind == 1:
            cv2.circle(rgb, one, int(rng.integers(4, 6 + side // 10)), colour, -1)
        else:
            far = (min(side, one[0] + side // 8), min(side, one[1] + int(rng.integers(4, side // 4))))
            cv2.rectangle(rgb, one, far, colour, -1)
    # As in photographs, light tells more than colour: otherwise no hash would know a picture whose hue was turned.
    grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    grain = rng.integers(0, 12, (side, side, 1), dtype=np.uint8)
    return np.ascontiguousarray(cv2.add(cv2.addWeighted(grey, 0.6, rgb, 0.4, 0), np.repeat(grain, 3, axis=2)))


def _made(world: World, name: str, wish: Wish, *, side: int = 0, leaf: str = "trusted", ago: float = 0.0) -> bytes:
    rgb = draw(f"{name}/{wish.task_id}/{wish.prompt}", side or SIDES["1K"])
    return world.sign(encode_jpeg(rgb, 92), world.leaf(name, leaf), ago=ago)


def _honest(world: World, name: str, wish: Wish) -> list[Offer]:
    return [Offer(_made(world, name, wish), wish.task_id)]


def _to_size(world: World, name: str, wish: Wish) -> list[Offer]:
    return [Offer(_made(world, name, wish, side=SIDES[wish.resolution]), wish.task_id)]


def _slow(world: World, name: str, wish: Wish) -> list[Offer]:
    return [Offer(_made(world, name, wish), wish.task_id, wait=world.late_seconds)]


def _nothing(_world: World, _name: str, _wish: Wish) -> list[Offer]:
    return []


def _replays(world: World, name: str, wish: Wish) -> list[Offer]:
    return [Offer(world.old(name, lambda: _made(world, name, wish)), wish.task_id)]


def _sells_twice(world: World, name: str, wish: Wish) -> list[Offer]:
    # As many pictures as one validator asks for; each of them for all validators.
    number = world.turn(f"{name}/{wish.validator}")
    made = world.old(f"{name}/{number}", lambda: _made(world, name, wish))
    return [Offer(made, wish.task_id)]


def _thief(change: Callable[[np.ndarray], bytes], name: str) -> Behaviour:
    def offers(world: World, actor: str, wish: Wish) -> list[Offer]:
        found = world.another(actor)
        if found is None:
            return []
        return [Offer(world.sign(change(decode_image(found[1])), world.leaf(actor)), wish.task_id)]

    return Behaviour(name, offers, frozenset({"duplicate", "near_duplicate"}))


def _crop(rgb: np.ndarray) -> bytes:
    height, width = rgb.shape[:2]
    return encode_jpeg(np.ascontiguousarray(rgb[height // 16 : -(height // 16), width // 16 : -(width // 16)]), 90)


def _recolour(rgb: np.ndarray) -> bytes:
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int32) + 12) % 180
    warm = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32) * (1.0, 0.95, 0.9)
    return encode_jpeg(np.clip(warm, 0, 255).astype(np.uint8), 90)


def _real_photo(world: World, name: str, wish: Wish) -> list[Offer]:
    photo = world.photo()
    return [Offer(world.sign(photo, world.leaf(name)), wish.task_id)] if photo else []


def _upscales(world: World, name: str, wish: Wish) -> list[Offer]:
    small = draw(f"{name}/{wish.task_id}", SIDES["1K"])
    side = SIDES[wish.resolution]
    large = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    return [Offer(world.sign(encode_jpeg(large, 90), world.leaf(name)), wish.task_id)]


def _signed_by(kind: str) -> Callable[[World, str, Wish], list[Offer]]:
    return lambda world, name, wish: [Offer(_made(world, name, wish, leaf=kind), wish.task_id)]


def _signed_too_late(world: World, name: str, wish: Wish) -> list[Offer]:
    made = encode_jpeg(draw(f"{name}/{wish.task_id}"), 90)
    return [Offer(world.sign_expired(made, name), wish.task_id)]


def _not_signed(world: World, name: str, wish: Wish) -> list[Offer]:
    return [Offer(encode_jpeg(draw(f"{name}/{wish.task_id}"), 90), wish.task_id)]


def _steals_tasks(world: World, name: str, wish: Wish) -> list[Offer]:
    # Its own work, delivered for others' tasks in the hope to be paid for them, or to spoil them.
    others = [task for owner, task in world.tasks if owner != name]
    return [Offer(_made(world, name, wish), task) for task in others[-3:]]


def _floods(world: World, name: str, wish: Wish) -> list[Offer]:
    made = _made(world, name, wish)
    flood = [Offer(made, f"flood-{wish.task_id[:32]}-{at}") for at in range(FLOOD)]
    return [*flood, Offer(made, wish.task_id)]


def _endless(world: World, name: str, wish: Wish) -> list[Offer]:
    return [Offer(_made(world, name, wish), wish.task_id, endless=True)]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@functools.cache
def _bomb_png() -> bytes:
    side = 10_000
    packer = zlib.compressobj(1)
    row = bytes(side + 1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _bomb(world: World, name: str, wish: Wish) -> list[Offer]:
    # A hundred million pixels in some hundred kB; signing makes each another one.
    return [Offer(world.sign(_bomb_png(), world.leaf(name)), wish.task_id)]


def _signs_early(world: World, name: str, wish: Wish) -> list[Offer]:
    return [Offer(_made(world, name, wish, ago=3 * 3600), wish.task_id)]


def _many(name: str, *names: str) -> Behaviour:
    """One miner that plays several ways in turn."""

    def offers(world: World, actor: str, wish: Wish) -> list[Offer]:
        return BEHAVIOURS[names[world.turn(actor) % len(names)]].offers(world, actor, wish)

    return Behaviour(name, offers)


_UNTRUSTED = frozenset({"untrusted_provenance"})

BEHAVIOURS: Mapping[str, Behaviour] = {
    behaviour.name: behaviour
    for behaviour in (
        Behaviour("honest", _honest),
        Behaviour("honest-to-size", _to_size),
        Behaviour("slow", _slow, frozenset({"expired"})),
        Behaviour("silent", _nothing, frozenset({"expired"})),
        Behaviour("dead", _nothing, frozenset({"miner_unreachable"}), listens=False),
        Behaviour("replays", _replays, frozenset({"duplicate", "near_duplicate"})),
        Behaviour("sells-twice", _sells_twice, frozenset({"duplicate", "near_duplicate"})),
        _thief(lambda rgb: encode_jpeg(rgb, 50), "re-encodes"),
        _thief(_crop, "crops"),
        _thief(lambda rgb: encode_jpeg(np.ascontiguousarray(rgb[:, ::-1]), 90), "mirrors"),
        _thief(_recolour, "recolours"),
        # The same pixels in another container, without the maker's credentials.
        _thief(encode_png, "re-signs"),
        Behaviour("real-photo", _real_photo, frozenset({"duplicate", "near_duplicate"})),
        Behaviour("upscales", _upscales, frozenset({"upscaled"})),
        Behaviour("untrusted", _signed_by("untrusted"), _UNTRUSTED),
        Behaviour("self-made", _signed_by("self-made"), _UNTRUSTED),
        Behaviour("expired", _signed_too_late, _UNTRUSTED),
        Behaviour("unsigned", _not_signed, frozenset({"no_provenance"})),
        Behaviour("steals-tasks", _steals_tasks, frozenset({"expired"})),
        Behaviour("floods", _floods, frozenset({"expired"})),
        Behaviour("only-rich", _honest, frozenset({"miner_refused"}), min_stake=10**18),
        Behaviour("endless", _endless, frozenset({"expired"})),
        Behaviour("bomb", _bomb, frozenset({"too_large", "too_much_memory", "too_slow"})),
        Behaviour("signs-early", _signs_early, frozenset({"signed_too_early"})),
        _many("thief", "re-encodes", "mirrors", "crops", "recolours", "re-signs"),
        _many("forger", "untrusted", "self-made", "expired", "signs-early", "unsigned"),
        _many("vandal", "bomb", "floods", "endless", "steals-tasks"),
        _many("cutpurse", "replays", "real-photo", "upscales", "replays"),
    )
}
"""Every way to play, by name; the last four play several in turn."""


@dataclass
class Actor:
    """One miner.

    Attributes:
        name: Its own.
        behaviour: How it plays.
        signer: Its hotkey.
        url: Where it listens; of one that doesn't, a port that nobody has.
        asked: Tasks that it took.
        answers: Statuses that its deliveries got; 0 for a broken connection.
        taken: Tasks whose delivery was answered with 2xx.
    """

    name: str
    behaviour: Behaviour
    signer: Signer
    url: str = ""
    asked: list[str] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    taken: list[str] = field(default_factory=list)


class Actors:
    """Serves miners from one thread, until the end of the block.

    Args:
        world: What they share.
        actors: Who they are.
        standing: What the chain says of a caller.
        patience: Seconds for which a delivery is tried again after a failure of the receiver.
    """

    def __init__(
        self,
        world: World,
        actors: Sequence[Actor],
        standing: Callable[[str], Standing | None],
        *,
        patience: float = 60.0,
    ) -> None:
        self.world, self.actors = world, list(actors)
        self._standing, self._patience = standing, patience
        self._ids, self._guard = RandomIds(), ReplayGuard()
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._work: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(60):
            raise RuntimeError("The miners did not start.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        servers, sockets = [], []
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        async with httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as http:
            for actor in self.actors:
                socket = listen("127.0.0.1", 0)
                sockets.append(socket)
                actor.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
                if not actor.behaviour.listens:
                    socket.close()
                    continue
                server = Server(self._app(actor, http), socket)  # type: ignore[arg-type]
                await server.start()
                servers.append(server)
            self._ready.set()
            await self._stop.wait()
            for task in list(self._work):
                task.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)
            for server in servers:
                server.stop()
            await asyncio.gather(*(server.wait() for server in servers))
        for socket in sockets:
            socket.close()

    def _app(self, actor: Actor, http: httpx.AsyncClient) -> Starlette:
        async def health(_request: Request) -> Response:
            return JSONResponse({"status": "ok"})

        async def info(_request: Request) -> Response:
            return JSONResponse(
                {
                    "miner_type": "GENERATOR",
                    "hotkey": actor.signer.ss58_address,
                    "modalities": ["image"],
                    "services": {"image": "local"},
                    "version": "1",
                }
            )

        async def generate(request: Request) -> Response:
            body = await request.body()
            try:
                validator = verify_request(
                    request.headers,
                    body,
                    receiver=actor.signer.ss58_address,
                    now_ms=int(self.world.clock.time() * 1000),
                    standing=self._standing,
                    guard=self._guard,
                    min_stake=actor.behaviour.min_stake,
                )
            except RequestRefused as error:
                return error_response(error)
            asked = json.loads(body)
            resolution = asked.get("parameters", {}).get("resolution") or "1K"
            wish = Wish(self._ids.new(), validator, asked["prompt"], resolution, self.world.clock.time())
            actor.asked.append(wish.task_id)
            self.world.tasks.append((actor.name, wish.task_id))
            task = asyncio.create_task(self._answer(actor, wish, request.headers["x-webhook-url"], http))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
            return JSONResponse({"task_id": wish.task_id, "status": "pending"}, status_code=202)

        routes = [
            Route("/health", health),
            Route("/miner_info", info),
            Route("/gen_image", generate, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _answer(self, actor: Actor, wish: Wish, webhook: str, http: httpx.AsyncClient) -> None:
        # The 202 goes out first, and the validator notes the task.
        await asyncio.sleep(0.05)
        offers = await asyncio.to_thread(actor.behaviour.offers, self.world, actor.name, wish)
        for offer in offers:
            await asyncio.sleep(offer.wait)
            if await self._deliver(actor, wish, offer, webhook, http) and offer.task_id == wish.task_id:
                actor.taken.append(wish.task_id)
                if actor.behaviour.name in HONEST:
                    # What others deliver is refused, and to copy that would be no theft.
                    self.world.shown.append((actor.name, offer.data))

    async def _deliver(self, actor: Actor, wish: Wish, offer: Offer, webhook: str, http: httpx.AsyncClient) -> bool:
        end = self._loop.time() + self._patience
        while self._loop.time() < end:
            signed = sign_request(
                actor.signer,
                offer.data,
                signed_for=wish.validator,
                now_ms=int(self.world.clock.time() * 1000),
                uuid=self._ids.new(),
            )
            headers = {**signed, "Content-Type": "image/jpeg", "task-id": offer.task_id}
            status = 0
            with contextlib.suppress(httpx.HTTPError):
                async with contextlib.aclosing(_for_ever(offer.data)) as endless:
                    content = endless if offer.endless else offer.data
                    status = (await http.post(webhook, content=content, headers=headers)).status_code
            actor.answers[status] += 1
            if offer.endless or (status and status < 500 and status not in (404, 429)):
                return 200 <= status < 300
            if status == 404 and offer.task_id != wish.task_id:
                return False
            # Down, or it hasn't noted the task yet.
            await asyncio.sleep(0.2)
        return False


async def _for_ever(data: bytes) -> AsyncGenerator[bytes, None]:
    block = (data * (1 + 2**20 // max(1, len(data))))[: 2**20]
    for _ in range(10_000):
        yield block
