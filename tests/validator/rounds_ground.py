"""A validator's database, a bank with some prompts, and miners that answer by a table instead of a network."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url

from gas.chain.base import Axon, Metagraph, Neuron
from gas.chain.keys import KeySigner, signer_from_seed
from gas.clock import ManualClock, SeededIds
from gas.generation.prompts.embedding import HashedEmbedder
from gas.protocol.client import SignedClient
from gas.storage.database import Database, open_database
from gas.storage.tables import ChallengeRow
from gas.types import Modality
from gas.validator.asking import Asking
from gas.validator.edit_sources import EditSources
from gas.validator.ground import ServiceState
from gas.validator.prompts import Offer, PromptBank
from gas.validator.receiving import CALLBACK_PATH
from gas.validator.rounds import ChallengeRounds, RoundRules
from gas.validator.tasks import Challenges

Answer = Callable[[httpx.Request], httpx.Response]
WEBHOOK = f"http://vali{CALLBACK_PATH}"
PROMPTS = ("A red kite over a grey harbour at dawn", "Two old women play chess in a sunny park")


def key(name: str) -> KeySigner:
    return signer_from_seed(name.encode().ljust(32))


def neuron(
    uid: int, hotkey: str, axon: Axon | None = None, *, permit: bool = False, trust: float = 0.0, stake: int = 0
) -> Neuron:
    return Neuron(uid, hotkey, "cold", stake, permit, axon, 0, 0, 0.0, 0.0, trust, 0.0, 0, True)


@cache
def blank() -> bytes:
    """A database with every migration done, which takes longer than the tests that want one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gas.db"
        open_database(f"sqlite:///{path}").close()
        return path.read_bytes()


class Miner:
    """Answers ``/miner_info`` truly and each ``/gen_*`` with a task of its own; a test bends what it likes."""

    def __init__(self, name: str, uid: int, modalities: tuple[str, ...] = ("image",)) -> None:
        self.hotkey, self.uid, self.modalities = key(name).ss58_address, uid, modalities
        self.asked: list[tuple[str, dict[str, object], str]] = []
        self.answer: Answer | None = None
        self.info: Answer | None = None

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/miner_info":
            told = {"miner_type": "GENERATOR", "hotkey": self.hotkey, "modalities": list(self.modalities)}
            return self.info(request) if self.info else httpx.Response(200, json=told)
        self.asked.append((request.url.path, json.loads(request.content), request.headers["x-webhook-url"]))
        if self.answer is not None:
            return self.answer(request)
        return httpx.Response(202, json={"task_id": f"t{len(self.asked)}", "status": "pending"})


class Ground:
    """One validator and its miners."""

    def __init__(self, folder: Path, *miners: Miner, modalities: tuple[Modality, ...] = (Modality.IMAGE,)) -> None:
        self.clock, self.ids = ManualClock(), SeededIds(7)
        self.validator = key("vali").ss58_address
        self.miners = {miner.uid: miner for miner in miners}
        url = service_url(folder)
        if url.startswith("sqlite"):
            (folder / "gas.db").write_bytes(blank())
        self.database: Database = open_database(url, migrate=False)
        self.bank = PromptBank(self.database, HashedEmbedder(), self.clock)
        for modality in modalities:
            self.bank.add([Offer(text) for text in PROMPTS], modality)
        self.asking = Asking(self.database, self.validator, self.clock)
        self.challenges = Challenges(self.database, self.validator, self.clock)
        self.state = ServiceState(self.database, "sn34-validator", self.clock)
        self.tasks: list[tuple[str, str, float]] = []
        self.modalities = modalities

    def rounds(
        self,
        *,
        edits: EditSources | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        on_task: Callable[[str, str, float], None] | None = None,
        obstacle: Callable[[], str | None] = lambda: None,
        **rules: object,
    ) -> ChallengeRounds:
        """The loop as after a start of the process."""
        given: dict[str, object] = {"interval_blocks": 10, "sample_size": 8, "timeout": 5.0, "at_once": 4, **rules}
        whole = RoundRules(WEBHOOK, modalities=self.modalities, seconds_for=lambda _m: 60.0, **given)  # type: ignore[arg-type]
        http = httpx.AsyncClient(transport=transport or httpx.MockTransport(self._route))
        client = SignedClient(key("vali"), http, self.clock, self.ids)
        return ChallengeRounds(
            self.asking, self.state, self.bank, client, self.clock, self.ids, whole, self.validator, seed=1,
            edits=edits, obstacle=obstacle, on_task=on_task or (lambda *task: self.tasks.append(task)),
        )  # fmt: skip

    def graph(self, block: int = 1) -> Metagraph:
        neurons = [neuron(0, self.validator, Axon("203.0.113.9", 80))]
        axons = {uid: Axon("8.8.4.4", 1000 + uid) for uid in self.miners}
        neurons += [neuron(uid, miner.hotkey, axons[uid]) for uid, miner in self.miners.items()]
        return Metagraph(1, block, 0, tuple(neurons))

    def tick(self, block: int, rounds: ChallengeRounds | None = None) -> object:
        return asyncio.run((rounds or self.rounds()).tick(block, self.graph(block)))

    def rows(self, miner: Miner | None = None) -> list[ChallengeRow]:
        with self.database.read() as session:
            rows = session.query(ChallengeRow).order_by(ChallengeRow.created_at, ChallengeRow.task_id).all()
        return [row for row in rows if miner is None or row.miner == miner.hotkey]

    def _route(self, request: httpx.Request) -> httpx.Response:
        return self.miners[request.url.port - 1000].handle(request)  # type: ignore[operator]
