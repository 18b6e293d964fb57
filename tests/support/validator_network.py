"""A validator with its three services in processes of their own, and generators around it, on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parent))

from bad_actors import BEHAVIOURS, Actor, Actors, World
from ledger_network import TAO, keep_keys, key

from gas.chain.base import Axon
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import add_stake, create_ledger, create_subnet, faucet, register
from gas.chain.local.ledger import Ledger
from gas.clock import SystemClock
from gas.generation.prompts.embedding import HashedEmbedder
from gas.protocol.epistula import Standing
from gas.storage.database import Database, open_database
from gas.storage.tables import ChallengeRow
from gas.types import Modality
from gas.validator.prompts import Offer, PromptBank

__all__ = ["INTERVAL", "NETUID", "SERVICES", "TERMINAL", "ValidatorNetwork", "free_port", "wait_for"]

NETUID = 1
SERVICES = ("sn34-validator", "sn34-generator", "sn34-data")
TERMINAL = frozenset({"verified", "refused", "failed", "expired", "untaken", "void"})
TEMPO = 500
SECOND = "validator-two"
INTERVAL = 10
"""Blocks from one round of challenges to the next."""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {seconds:g} s")
        time.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class ValidatorNetwork:
    """A founded network; see :meth:`found`.

    Attributes:
        folder: Holds ``.gas``, ``.env.validator`` and logs.
        world: What miners share.
        actors: The miners.
        port: Of the callback server.
        second_port: Of the second validator's; 0 without one. Its services are named ``two/sn34-...``.
        processes: Running services by name.
    """

    folder: Path
    world: World
    actors: list[Actor]
    port: int
    second_port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def found(
        cls,
        folder: Path,
        cast: Sequence[tuple[str, str]],
        *,
        photos: Sequence[bytes] = (),
        epoch_blocks: int = TEMPO,
        second: bool = False,
        **settings: object,
    ) -> ValidatorNetwork:
        """Make keys, a ledger whose blocks pass when told to, an authority and the operator's file.

        Args:
            folder: Empty.
            cast: Name and behaviour of each miner.
            photos: Real photos that thieves of photos have.
            epoch_blocks: From one setting of weights to the next.
            second: Whether there is another validator, with a database and blobs of its own.
            settings: Variables of ``.env.validator`` that differ from what is usual here.
        """
        home, clock, root = folder / ".gas", SystemClock(), key("root")
        home.mkdir(parents=True)
        actors = [Actor(name, BEHAVIOURS[behaviour], key(name)) for name, behaviour in cast]
        with create_ledger(home / "chain.db", root=root.ss58_address, clock=clock, manual=True) as ledger:
            houses = [key("validator"), *([key(SECOND)] if second else [])]
            everyone = [*houses, *(actor.signer for actor in actors)]
            for signer in everyone:
                faucet(ledger, root, signer.ss58_address, 2000 * TAO)
            create_subnet(
                ledger, root, NETUID, owner=root.ss58_address, owner_hotkey=root.ss58_address,
                hyperparameters={
                    "tempo": TEMPO, "max_allowed_validators": 1 + len(houses), "weights_rate_limit": epoch_blocks,
                },
                economics={"burn_ceiling": 500_000},
            )  # fmt: skip
            for signer in everyone:
                register(ledger, signer, signer, NETUID)
            for house in houses:
                add_stake(ledger, house, house.ss58_address, NETUID, 400 * TAO)
            ledger.advance(TEMPO + 1)
        keep_keys(home, "validator")
        if second:
            keep_keys(home, SECOND)
        world = World(folder, photos)
        (folder / "anchors.pem").write_bytes(world.anchors_pem)
        network = cls(folder, world, actors, free_port(), free_port() if second else 0)
        usual: dict[str, object] = {
            "GAS_HOME": home,
            "BT_WALLET_NAME": "validator",
            "BT_NETUID": NETUID,
            "CALLBACK_IP": "127.0.0.1",
            "CALLBACK_PORT": network.port,
            "CALLBACK_MAX_MB": 8,
            "CALLBACK_MIN_FREE_MB": 1,
            "CHALLENGE_INTERVAL_BLOCKS": INTERVAL,
            "CHALLENGE_SAMPLE_SIZE": 100,
            "CHALLENGE_MODALITIES": "image",
            "CHALLENGE_IMAGE_SECONDS": 20,
            "CHALLENGE_MAX_OPEN": 100,
            "CHALLENGE_LOCAL_ADDRESSES": "true",
            "METRICS_PORT": 0,
            "TRUST_ANCHORS": folder / "anchors.pem",
        }
        own: dict[str, object] = {
            "BT_WALLET_NAME": SECOND,
            "CALLBACK_PORT": network.second_port,
            "GAS_DATABASE_URL": f"sqlite:///{home / 'second.db'}",
            "GAS_BLOBS_URL": home / "second-blobs",
        }
        for name, more in ((".env.validator", {}), (".env.second", own)):
            values = {**usual, **settings, **more}
            (folder / name).write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        return network

    @property
    def home(self) -> Path:
        """The operator's home."""
        return self.folder / ".gas"

    @contextmanager
    def miners(self, *, patience: float = 60.0) -> Iterator[Actors]:
        """The miners serve, and the chain knows where."""
        stake = {
            key(name).ss58_address: Standing(uid, 400 * TAO, permit=True)
            for uid, name in enumerate(("validator", SECOND), 1)
        }
        with Actors(self.world, self.actors, stake.get, patience=patience) as actors:
            asyncio.run(self._publish())
            yield actors

    async def _publish(self) -> None:
        for actor in self.actors:
            chain = LocalChain(self.home / "chain.db", actor.signer, SystemClock())
            await chain.serve_axon(NETUID, Axon("127.0.0.1", int(actor.url.rsplit(":", 1)[1])))
            await chain.close()

    def database(self, name: str = "gas.db") -> Database:
        """A validator's, opened beside its services; the caller closes it."""
        return open_database(f"sqlite:///{self.home / name}")

    def advance(self, blocks: int = 1) -> int:
        """Let blocks pass; returns the height."""
        with Ledger(self.home / "chain.db", SystemClock()) as ledger:
            return ledger.advance(blocks)

    def log(self, service: str) -> Path:
        """What a service prints."""
        return self.folder / f"{service.replace('/', '-')}.log"

    def start(self, *services: str) -> None:
        """Start services, and wait until the callback server answers when it is among them."""
        for service in services:
            with self.log(service).open("ab") as log:
                self.processes[service] = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "gas.cli.main", "validator", "serve"),
                        *("--service", service.removeprefix("two/")),
                        *("--env-file", str(self.folder / (".env.second" if "/" in service else ".env.validator"))),
                    ],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    cwd=self.folder,
                    env={**os.environ, "GAS_CHAIN_ENDPOINT": "local"},
                )
        for service in services:
            if service.endswith("sn34-validator"):
                wait_for(lambda service=service: self._answers(service), "the callback server's start")

    def _answers(self, service: str) -> bool:
        assert self.processes[service].poll() is None, self.log(service).read_text()[-4000:]
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.second_port if "/" in service else self.port), 0.2),
        ):
            return True
        return False

    def kill(self, service: str) -> None:
        """``kill -9``, at any moment."""
        process = self.processes.pop(service)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def stop(self) -> dict[str, int]:
        """Stop what runs, as an operator does; exit codes by name."""
        for process in self.processes.values():
            process.terminate()
        codes = {}
        for service, process in self.processes.items():
            try:
                codes[service] = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[service] = process.wait(30)
        self.processes.clear()
        return codes

    def add_prompts(self, count: int, name: str = "gas.db") -> None:
        """Put prompts into a bank, as ``gascli v prompts import`` does."""
        database = self.database(name)
        try:
            things = (
                "fox",
                "harbour",
                "violin",
                "market",
                "glacier",
                "tram",
                "orchard",
                "lighthouse",
                "kitchen",
                "owl",
            )
            places = ("at dawn", "in the rain", "under neon lights", "seen from above", "in an old town", "by the sea")
            offers = (
                Offer(f"A photograph of a {things[at % 10]} {places[at % 6]}, number {at} of a long series of studies")
                for at in range(40 * count)
            )
            PromptBank(database, HashedEmbedder(), SystemClock(), threshold=1.0).add(offers, Modality.IMAGE, most=count)
        finally:
            database.close()

    def counts(self, database: Database) -> dict[str, int]:
        """Challenges by state."""
        with database.read() as session:
            rows = session.execute(select(ChallengeRow.state, func.count()).group_by(ChallengeRow.state))
            return dict(rows.all())

    def last_words(self) -> str:
        """The ends of the services' logs, for a failure's message."""
        return "\n".join(
            f"--- {service}\n{self.log(service).read_text()[-3000:]}"
            for service in SERVICES
            if self.log(service).exists()
        )
