"""One medium sold to two validators with stores of their own is paid once, and no validator can rob an honest miner."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

sys.path.insert(0, str(Path(__file__).parent))

from rounds_ground import blank, key, neuron
from verifying_ground import PlainVerifier, deliver, picture

from gas.chain.base import Axon, Metagraph
from gas.clock import ManualClock, SeededIds
from gas.media.image import encode_jpeg, encode_png
from gas.protocol.client import SignedClient
from gas.protocol.epistula import Claim, ReplayGuard, sign_request
from gas.protocol.server import EpistulaGate, MetagraphCache, install_error_handler
from gas.scoring.generators import default_prices
from gas.storage.blobs import FolderBlobs, sha256_hex
from gas.storage.database import open_database
from gas.storage.tables import ChallengeRow, PrintRow
from gas.types import Modality
from gas.validator.double_sales import AGREEING, SAME_MINER_BITS, DoubleSales
from gas.validator.ground import ServiceState
from gas.validator.print_exchange import Fetched, PrintExchange
from gas.validator.print_log import PrintLog, add_prints_route
from gas.validator.print_pruning import PRINT_SECONDS, prune_prints
from gas.validator.prints import Entry, Item, Proof, digest_of, read_page, signed_page
from gas.validator.reckoning import Since, reckon_generators
from gas.validator.tallies import DAY
from gas.validator.verifying import Verifying
from gas.verification.duplicates import MediaIndex

VALIDATORS = ("north", "south")
MINERS = ("honest", "seller", "thief")
REVEAL = 600.0
START = 1_800_000_000.0


def other_prints() -> MediaIndex:
    return MediaIndex(near_bits=SAME_MINER_BITS, agreeing=AGREEING)


class House:
    """A validator with a store of its own."""

    def __init__(self, town: Town, folder: Path, name: str) -> None:
        self.town, self.signer, self.clock = town, key(name), town.clock
        self.hotkey = str(self.signer.ss58_address)
        folder.mkdir()
        (folder / "gas.db").write_bytes(blank())
        self.database = open_database(f"sqlite:///{folder / 'gas.db'}", migrate=False)
        self.blobs = FolderBlobs(folder / "blobs")
        self.tasks = 0
        self.start()

    def start(self) -> None:
        """As new processes would, from the database alone."""
        index, state = MediaIndex(), ServiceState(self.database, "sn34-generator", self.clock)
        elsewhere = other_prints()
        self.sales = DoubleSales(self.database, self.hotkey, elsewhere, other_prints, state, self.clock)
        self.worker = Verifying(
            self.database, self.blobs, [PlainVerifier(index)], index, self.hotkey, self.clock, worker=self.hotkey,
            elsewhere=self.sales.refusal,
        )  # fmt: skip
        self.worker.catch_up()
        self.log = PrintLog(self.database, self.signer, self.clock)
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.town.route))
        client = SignedClient(self.signer, http, self.clock, SeededIds(len(self.hotkey)))
        self.exchange = PrintExchange(self.database, client, self.hotkey, self.clock)
        self.app = FastAPI()
        install_error_handler(self.app)
        cache = MetagraphCache(self.town, 1, self.clock)  # type: ignore[arg-type]
        gate = EpistulaGate(self.hotkey, cache, self.clock, ReplayGuard(), min_stake=1, need_permit=True)
        add_prints_route(self.app, self.log, gate, self.clock)

    def buy(self, miner: str, data: bytes) -> str:
        """A delivery of this miner comes, signed for us, and is judged; how its challenge ends."""
        self.tasks += 1
        proof = self.town.proof(miner, data, self.hotkey)
        at, task = self.clock.time(), f"t{self.tasks}"
        deliver(self.database, self.blobs, key(miner).ss58_address, task, data, at, validator=self.hotkey, proof=proof)
        self.worker.step()
        self.log.append()
        return self.end(miner, task)

    def end(self, miner: str, task: str) -> str:
        with self.database.read() as session:
            row = session.get_one(ChallengeRow, (self.hotkey, key(miner).ss58_address, task))
            return " ".join([row.state, *(reason["code"] for reason in row.reasons)])

    def look(self) -> Fetched:
        return asyncio.run(self.exchange.look(self.town.graph))

    def rewards(self) -> dict[str, float]:
        """What an epoch would pay, by the name of the miner."""
        with self.database.read() as session:
            found = reckon_generators(
                session, self.town.graph, validator=self.hotkey, shares={Modality.IMAGE: 1.0},
                prices=default_prices(), now=self.clock.time(), since=Since(self.clock.time() - DAY, None), keep=False,
            )  # fmt: skip
        names = {key(name).ss58_address: name for name in MINERS}
        return {names[one.hotkey]: one.reward for one in found}


class Town:
    """Two validators, three miners, one time."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(START)
        neurons = [
            neuron(uid, key(name).ss58_address, Axon("8.8.4.4", 1000 + uid), permit=True, stake=10 - uid)
            for uid, name in enumerate(VALIDATORS)
        ]
        neurons += [neuron(uid, key(name).ss58_address) for uid, name in enumerate(MINERS, len(VALIDATORS))]
        self.graph = Metagraph(1, 1, 0, tuple(neurons))
        self.answer: Callable[[httpx.Request], httpx.Response] | None = None
        self.north, self.south = (House(self, folder / name, name) for name in VALIDATORS)

    async def metagraph(self, _netuid: int) -> Metagraph:
        return self.graph

    async def route(self, request: httpx.Request) -> httpx.Response:
        if self.answer is not None:
            return self.answer(request)
        house = (self.north, self.south)[request.url.port - 1000]  # type: ignore[operator]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(house.app), base_url="http://there") as http:
            return await http.get(request.url.raw_path.decode(), headers=dict(request.headers))

    def proof(self, miner: str, data: bytes, validator: str, *, ago: float = 0.0) -> dict[str, str]:
        """What a miner signs when it delivers."""
        now = int((self.clock.time() - ago) * 1000)
        headers = sign_request(key(miner), data, signed_for=validator, now_ms=now, uuid=str(uuid.uuid4()))
        signature = bytes.fromhex(headers["Epistula-Request-Signature"][2:])
        claim = Claim(key(miner).ss58_address, validator, str(now), headers["Epistula-Uuid"], signature)
        return Proof.of(claim).model_dump()

    def exchange(self) -> None:
        """Digests now, entries ten minutes later, and what follows from them."""
        for house in (self.north, self.south):
            house.look()
        self.clock.advance(REVEAL + 1)
        for house in (self.north, self.south):
            house.look()
            house.sales.settle()


@pytest.fixture
def town(tmp_path: Path):
    found = Town(tmp_path)
    yield found
    for house in (found.north, found.south):
        house.database.close()


def png(seed: int) -> bytes:
    return encode_png(picture(seed))


def test_who_sells_media_twice_earns_less_than_who_makes_two(town: Town) -> None:
    for number in range(3):
        for house, seed in ((town.north, 100 + number), (town.south, 200 + number)):
            assert house.buy("honest", png(seed)) == "verified"
        assert town.north.buy("seller", png(number)) == "verified"
        town.clock.advance(1)
        # Neither has heard of the other's yet.
        assert town.south.buy("seller", png(number)) == "verified"
    before = town.south.rewards()
    assert before["seller"] == before["honest"] > 0
    town.exchange()
    north, south = town.north.rewards(), town.south.rewards()
    assert north["seller"] == north["honest"] == before["honest"] == south["honest"]
    assert south["seller"] == 0.0
    assert {town.south.end("seller", f"t{2 * n}") for n in (1, 2, 3)} == {"refused sold_elsewhere"}
    # Before the pay of a day of honest work: the pass rate remembers.
    assert town.south.buy("seller", png(50)) == "verified"
    assert town.south.rewards()["seller"] == pytest.approx(0.25)


def test_who_mirrors_or_cuts_what_it_has_sold_earns_less_and_nobody_loses_by_a_cut_of_others(town: Town) -> None:
    def bent(seed: int) -> bytes:
        whole = picture(seed)
        return encode_png(np.ascontiguousarray(whole[:, ::-1] if seed % 2 else whole[20:-20, 20:-20]))

    for seed in range(2):
        assert town.north.buy("honest", png(100 + seed)) == town.south.buy("honest", png(200 + seed)) == "verified"
        assert town.north.buy("seller", png(seed)) == "verified"
        town.clock.advance(1)
        assert town.south.buy("seller", bent(seed)) == "verified"
    town.exchange()
    north, south = town.north.rewards(), town.south.rewards()
    assert south["seller"] == 0.0 < south["honest"] == north["honest"] == north["seller"]
    # At once when it is known by then; segments shown by others are no ground to refuse another miner's picture.
    town.north.buy("seller", png(51))
    town.exchange()
    assert town.south.buy("seller", bent(51)) == "refused sold_elsewhere"
    assert town.south.buy("thief", bent(101)) == "verified"


def test_a_copy_with_other_bytes_is_withdrawn_too_and_the_earlier_signature_keeps(town: Town) -> None:
    assert town.south.buy("seller", encode_jpeg(picture(1), 90)) == "verified"
    town.clock.advance(2)
    assert town.north.buy("seller", encode_jpeg(picture(1), 70)) == "verified"
    town.exchange()
    assert town.south.end("seller", "t1") == "verified"
    assert town.north.end("seller", "t1") == "refused sold_elsewhere"


def test_a_medium_that_another_validator_has_shown_is_refused_at_once_whoever_brings_it(town: Town) -> None:
    assert town.north.buy("honest", png(1)) == "verified"
    town.exchange()
    assert town.south.buy("thief", encode_jpeg(picture(1), 80)) == "refused sold_elsewhere"
    # Also after a restart, and with an index that was lost.
    town.south.start()
    town.south.sales.settle()
    assert town.south.buy("honest", png(1)) == "refused sold_elsewhere"
    assert town.south.buy("thief", png(2)) == "verified"


def test_prints_are_sealed_at_first_and_for_validators_only(town: Town) -> None:
    town.north.buy("honest", png(1))
    first = town.south.look()
    assert (first.lines, first.opened) == (1, 0)
    with town.south.database.read() as session:
        row = session.query(PrintRow).one()
    assert row.entry is None and row.sha256 is None
    town.clock.advance(REVEAL + 1)
    assert town.south.look().opened == 1
    assert town.south.look() == Fetched(1, 0, 0, 0)
    with town.south.database.read() as session:
        entry = session.query(PrintRow).one().entry
    assert "prompt" not in json.dumps(entry) and entry["miner"] == key("honest").ss58_address
    stranger = PrintExchange(
        town.south.database,
        SignedClient(key("thief"), httpx.AsyncClient(transport=httpx.MockTransport(town.route)), town.clock,
                     SeededIds(1)),
        town.south.hotkey,
        town.clock,
    )  # fmt: skip
    assert asyncio.run(stranger.look(town.graph)).failed == {town.north.hotkey: "no_permit"}


class Liar:
    """A validator with a permit that shows whatever it likes."""

    def __init__(self, town: Town) -> None:
        self.town, self.signer = town, key("north")
        self.entries: list[Entry] = []
        self.shown = False
        town.answer = self.answer

    def claims(self, miner: str, data: bytes, like: bytes, proof: dict[str, str]) -> None:
        """To have accepted ``data`` of a miner, with a print that is another medium's."""
        seen = PrintLike.of(like)
        now = int(self.town.clock.time() * 1000)
        self.entries.append(
            Entry(
                miner=key(miner).ss58_address, modality="image", sha256=sha256_hex(data), asked_ms=now,
                delivered_ms=now, proof=Proof.model_validate(proof), hashes=(seen,), nonce="ab" * 16,
            )
        )  # fmt: skip

    def answer(self, request: httpx.Request) -> httpx.Response:
        after, log, previous = int(request.url.params["after"]), "cd" * 16, ""
        items = []
        for seq, entry in enumerate(self.entries, 1):
            previous = digest_of(self.signer.ss58_address, log, seq, previous, entry)
            shown = entry if self.shown else None
            items.append(Item(seq=seq, at_ms=int(START * 1000), digest=previous, entry=shown))
        return httpx.Response(200, content=signed_page(self.signer, log, after, items[after:]))


class PrintLike:
    """The hash of a picture, as verification measures it."""

    @staticmethod
    def of(data: bytes) -> str:
        from gas.media.image import decode_image
        from gas.verification.prints import print_picture

        return print_picture(decode_image(data)).upright.tobytes().hex()


def after_the_lie(town: Town, liar: Liar) -> tuple[Fetched, str]:
    """South hears of it, sees the entries, and settles; how the honest miner's challenge stands then."""
    town.south.look()
    town.clock.advance(REVEAL + 1)
    liar.shown = True
    found = town.south.look()
    town.south.sales.settle()
    return found, town.south.end("honest", "t1")


def test_a_claim_without_the_miners_signature_is_void(town: Town) -> None:
    assert town.south.buy("honest", png(1)) == "verified"
    liar = Liar(town)
    # Signed for another validator, by another miner, or over other bytes.
    liar.claims("honest", png(1), png(1), town.proof("honest", png(1), town.south.hotkey, ago=99))
    liar.claims("honest", png(1), png(1), town.proof("thief", png(1), town.north.hotkey, ago=99))
    liar.claims("honest", png(1), png(1), town.proof("honest", png(7), town.north.hotkey, ago=99))
    found, end = after_the_lie(town, liar)
    assert (found.opened, found.void, end) == (0, 3, "verified")


def test_who_has_seen_our_print_can_not_claim_to_have_been_first(town: Town) -> None:
    assert town.south.buy("honest", png(1)) == "verified"
    town.clock.advance(REVEAL + 1)
    liar = Liar(town)
    # With an accomplice's signature of the very bytes, and with the victim's own over a medium that it did deliver.
    liar.claims("thief", png(1), png(1), town.proof("thief", png(1), town.north.hotkey, ago=3600))
    liar.claims("honest", png(7), png(1), town.proof("honest", png(7), town.north.hotkey, ago=3600))
    found, end = after_the_lie(town, liar)
    assert (found.opened, end) == (2, "verified")


def test_an_accomplice_who_signs_after_the_delivery_does_not_win_though_its_time_is_earlier(town: Town) -> None:
    assert town.south.buy("honest", png(1)) == "verified"
    town.clock.advance(1)
    liar = Liar(town)
    liar.claims("thief", png(1), png(1), town.proof("thief", png(1), town.north.hotkey, ago=3600))
    assert after_the_lie(town, liar)[1] == "verified"


def test_a_log_that_is_rewritten_broken_or_endless_is_left_out(town: Town) -> None:
    liar = Liar(town)
    liar.claims("honest", png(1), png(1), town.proof("honest", png(1), town.north.hotkey))
    assert town.south.look().lines == 1
    kept, liar.entries = liar.entries, []
    liar.claims("honest", png(2), png(2), town.proof("honest", png(2), town.north.hotkey))
    liar.shown = True
    town.clock.advance(REVEAL + 1)
    assert town.south.look().failed == {town.north.hotkey: "prints_rewritten"}
    liar.entries = kept
    assert town.south.look().opened == 1
    for answer, why in (
        (httpx.Response(200, content=b"{}"), "bad_prints"),
        (httpx.Response(200, content=bytes(2 << 20)), "answer_too_large"),
        (httpx.Response(500), "peer_failed"),
        (httpx.Response(302, headers={"location": "http://127.0.0.1/"}), "redirected"),
        (httpx.Response(200, content=signed_page(key("thief"), "cd" * 16, 1, ())), "bad_prints"),
    ):
        town.answer = lambda _request, answer=answer: answer
        assert town.south.look().failed == {town.north.hotkey: why}


def test_each_medium_gets_one_line_whoever_is_killed(town: Town) -> None:
    for seed in range(3):
        town.north.buy("honest", png(seed))
        town.north.start()
        assert town.north.log.append() == 0
    town.clock.advance(REVEAL + 1)
    assert (town.south.look().lines, town.south.look().lines) == (3, 0)
    with town.south.database.read() as session:
        assert [row.seq for row in session.query(PrintRow).order_by(PrintRow.seq)] == [1, 2, 3]


def test_a_clock_that_is_set_back_breaks_no_log(town: Town) -> None:
    town.north.buy("honest", png(1))
    town.clock.advance(-120)
    for seed in (2, 3, 4):
        town.north.buy("honest", png(seed))
    town.clock.advance(REVEAL + 121)
    town.south.look()
    assert lines(town.south, town.north) == [(number, True) for number in (1, 2, 3, 4)]


def test_what_is_judged_after_a_long_stop_gets_its_line_too(town: Town) -> None:
    for seed in (1, 2):
        task, data = f"late{seed}", png(seed)
        proof = town.proof("honest", data, town.north.hotkey)
        deliver(
            town.north.database, town.north.blobs, key("honest").ss58_address, task, data, town.clock.time(),
            validator=town.north.hotkey, proof=proof,
        )  # fmt: skip
    town.clock.advance(7 * 3600)
    for _ in range(2):
        town.north.worker.step(most=1)
        town.north.log.append()
    assert len(lines(town.north, town.north)) == 2


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_withdrawn_does_not_depend_on_a_restart(town: Town, restarted: bool) -> None:
    town.south.buy("seller", encode_jpeg(picture(1), 90))
    town.clock.advance(2)
    town.north.buy("seller", encode_jpeg(picture(1), 70))
    town.north.look()
    town.north.sales.settle()
    # The other validator can't be reached for three days, and only then shows what it was.
    town.clock.advance(3 * DAY)
    if restarted:
        town.north.start()
    town.north.look()
    town.north.sales.settle()
    assert lines(town.north, town.south) == [(1, True)]
    assert town.north.end("seller", "t1") == "verified"


def showing(house: House, validator: str, medium: bytes, like: bytes, *, ago: float) -> PrintRow:
    """A line of another validator that has come here: the seller's delivery of ``medium``, with a print of ``like``."""
    now = int(house.clock.time() * 1000)
    entry = Entry(
        miner=key("seller").ss58_address, modality="image", sha256=sha256_hex(medium), asked_ms=now, delivered_ms=now,
        proof=Proof.model_validate(house.town.proof("seller", medium, key(validator).ss58_address, ago=ago)),
        hashes=(PrintLike.of(like),), nonce="ab" * 16,
    )  # fmt: skip
    house.clock.advance(1)
    row = PrintRow(
        validator=key(validator).ss58_address, log="cd" * 16, seq=1, at=now / 1000, seen_at=now / 1000,
        opened_at=house.clock.time(), digest=sha256_hex(validator.encode()), entry=entry.model_dump(mode="json"),
        miner=entry.miner, sha256=entry.sha256,
    )  # fmt: skip
    with house.database.write() as session:
        session.add(row)
    house.sales.settle()
    return row


@pytest.mark.parametrize("how", ["other_hashes", "signed_later", "forgotten"])
def test_a_print_that_does_not_count_hides_none_that_does(town: Town, how: str) -> None:
    sold, copy = png(1), encode_jpeg(picture(1), 80)
    if how == "other_hashes":
        showing(town.south, "liar", sold, png(9), ago=99)
    elif how == "signed_later":
        showing(town.south, "liar", png(8), copy, ago=-99)
    else:
        old = showing(town.south, "liar", png(8), copy, ago=99)
        with town.south.database.write() as session:
            session.delete(old)
    showing(town.south, "north", sold, sold, ago=50)
    assert town.south.buy("seller", copy) == "refused sold_elsewhere"


def test_a_print_whose_delivery_was_signed_after_it_is_void(town: Town) -> None:
    assert town.south.buy("honest", png(1)) == "verified"
    liar = Liar(town)
    liar.claims("thief", png(1), png(1), town.proof("thief", png(1), town.north.hotkey, ago=-3600))
    found, end = after_the_lie(town, liar)
    assert (found.opened, found.void, end) == (0, 1, "verified")


def test_after_a_month_the_index_of_others_prints_is_made_anew_from_what_still_counts(town: Town) -> None:
    showing(town.south, "liar", png(8), png(8), ago=0)
    town.clock.advance(PRINT_SECONDS + 1)
    prune_prints(town.south.database, town.south.hotkey, town.clock)
    showing(town.south, "north", png(1), png(1), ago=50)
    assert len(town.south.sales._elsewhere) == 1
    assert town.south.buy("seller", encode_jpeg(picture(1), 80)) == "refused sold_elsewhere"


def test_a_validator_that_shows_more_than_it_can_have_bought_is_left_out(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gas.validator.print_exchange._BYTES_A_DAY", 700)
    liar = Liar(town)
    liar.shown = True
    for seed in range(3):
        liar.claims("honest", png(seed), png(seed), town.proof("honest", png(seed), town.north.hotkey))
    assert town.south.look().failed == {town.north.hotkey: "too_many_prints"}
    with pytest.raises(ValueError, match="another modality"):
        liar.entries[0].model_validate({**liar.entries[0].model_dump(), "words": "AAAA"})


def lines(house: House, owner: House) -> list[tuple[int, bool]]:
    """Of a log: which lines are there, and whether their entries are."""
    with house.database.read() as session:
        rows = session.query(PrintRow).filter(PrintRow.validator == owner.hotkey).order_by(PrintRow.seq).all()
        return [(row.seq, row.entry is not None) for row in rows]


def prune(town: Town) -> list[int]:
    return [prune_prints(house.database, house.hotkey, town.clock) for house in (town.north, town.south)]


def test_old_prints_are_forgotten_and_what_is_kept_can_still_be_checked(town: Town) -> None:
    for seed in range(3):
        town.north.buy("honest", png(seed))
    town.exchange()
    town.clock.advance(PRINT_SECONDS - 2000)
    for seed in range(3, 5):
        town.north.buy("honest", png(seed))
    town.exchange()
    assert prune(town) == [0, 0]
    town.clock.advance(2000)
    # Our own are counted from the newest of them.
    assert town.north.buy("honest", png(5)) == "verified"
    assert prune(town) == [2, 2] and prune(town) == [0, 0]
    kept = [(3, False), (4, True), (5, True)]
    assert lines(town.north, town.north) == [*kept, (6, True)] and lines(town.south, town.north) == kept
    # Who has the lines goes on, and knows what is kept.
    town.exchange()
    assert lines(town.south, town.north) == [*kept, (6, True)]
    assert town.south.buy("seller", png(4)) == "refused sold_elsewhere"
    # Who hears of the log for the first time begins behind what is forgotten; the digests fit from there on.
    with town.south.database.write() as session:
        session.query(PrintRow).delete()
    found = town.south.look()
    assert (found.lines, found.opened, found.failed) == (3, 3, {})
    assert lines(town.south, town.north) == [*kept, (6, True)]
    assert town.south.look() == Fetched(1, 0, 0, 0)
    # Whose lines were all forgotten after a long silence still writes none twice.
    town.clock.advance(3 * PRINT_SECONDS)
    assert prune(town) == [0, 3]
    assert lines(town.south, town.north) == [(6, False)]
    assert town.north.log.append() == 0
    assert town.north.buy("honest", png(6)) == "verified"
    town.exchange()
    assert lines(town.south, town.north) == [(6, False), (7, True)]


def test_a_log_that_was_pruned_can_not_be_rewritten_behind_its_first_line(town: Town) -> None:
    for seed in range(3):
        town.north.buy("honest", png(seed))
    town.south.look()
    page = read_page(town.north.log.page("", 0), town.north.hotkey)
    false = signed_page(town.north.signer, page.log, 1, page.items[1:], previous="0" * 64)
    town.answer = lambda _request: httpx.Response(200, content=false)
    assert town.south.look().failed == {town.north.hotkey: "prints_rewritten"}
    with town.south.database.write() as session:
        session.query(PrintRow).delete()
    # To one that has not seen the first line a wrong digest of it shows when the next entry does.
    assert town.south.look().lines == 2
    town.clock.advance(REVEAL + 1)
    shown = read_page(town.north.log.page(page.log, 1), town.north.hotkey)
    false = signed_page(town.north.signer, page.log, 1, shown.items, previous="0" * 64)
    assert town.south.look().failed == {town.north.hotkey: "bad_prints"}


def test_of_logs_that_were_given_up_nothing_stays(town: Town) -> None:
    with town.south.database.write() as session:
        for log, at in (("a", 0.0), ("b", 1.0), ("c", PRINT_SECONDS * 2)):
            for seq in (1, 2):
                session.add(
                    PrintRow(validator=town.north.hotkey, log=log * 32, seq=seq, digest="0" * 64, at=at,
                             seen_at=START + at)
                )  # fmt: skip
    town.clock.advance(PRINT_SECONDS * 2)
    assert prune_prints(town.south.database, town.south.hotkey, town.clock) == 4
    assert [seq for seq, _ in lines(town.south, town.north)] == [1, 2]
