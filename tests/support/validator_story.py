"""The story of a validator's network: rounds of challenges, services that are killed, an epoch, and who was paid."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bad_actors import HONEST
from sqlalchemy import func, select
from validator_network import INTERVAL, NETUID, SERVICES, TERMINAL, ValidatorNetwork, wait_for

from gas.chain.local.chain import LocalChain
from gas.clock import SystemClock
from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow, ScoreRow, WeightsLogRow

__all__ = ["CAST", "Line", "Story", "expected_reward", "play", "table"]

CAST = (
    ("honest", "honest"),
    ("honest-to-size", "honest-to-size"),
    ("slow", "slow"),
    ("dead", "dead"),
    ("thief", "thief"),
    ("forger", "forger"),
    ("vandal", "vandal"),
    ("cutpurse", "cutpurse"),
)
"""Eight generators: name and behaviour."""

GENERATOR_SHARE = 0.16
IMAGE_SHARE = 0.40 / 0.84
ALPHA = 0.02
_PRICES = (0.04, 0.08, 0.16)
_LEEWAY = 4


@dataclass(frozen=True, slots=True)
class Line:
    """What came of one miner."""

    name: str
    behaviour: str
    challenges: int
    states: dict[str, int]
    codes: dict[str, int]
    reward: float
    expected: float
    weight: float
    offences: int
    elsewhere: str = ""


@dataclass
class Story:
    """What is left when all is over.

    Attributes:
        lines: One a miner, in the order of the cast.
        problems: What must not be: sentences.
        weights: Of the last epoch, by uid.
        epochs: How many were reckoned.
        kills: Which services were killed, in order.
    """

    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    epochs: int = 0
    kills: list[str] = field(default_factory=list)

    def line(self, name: str) -> Line:
        """One miner's."""
        return next(line for line in self.lines if line.name == name)


def expected_reward(rows: Sequence[Any], media: dict[str, MediumRow], offences: int = 0) -> float:
    """The specification's section 7 for pictures, written down once more: no line of it is the program's.

    Args:
        rows: Challenges of one miner that count.
        media: Verified media by their hash.
        offences: Of the miner; beyond 20 each counts as a failed verification.
    """
    verified = [row for row in rows if row.state == "verified"]
    if not verified:
        return 0.0
    count, passed = len(verified), len(verified) / (len(rows) + max(0, offences - 20))
    volume = min(count, 10) + max(0.0, math.log2(max(1, count - 9)))
    total = 0.0
    for row in verified:
        medium = media[row.media_sha256]
        side = min(medium.width, medium.height)
        delivered = 2 if side >= 3500 else 1 if side >= 1900 else 0
        # An enlarged picture is worth what it holds.
        delivered = min(delivered, ("1K", "2K", "4K").index((medium.facts or {}).get("tier", "4K")))
        paid = _PRICES[min(delivered, row.tier)] / _PRICES[0]
        total += math.sqrt(paid) * 0.6 ** max(0, row.tier - delivered)
    return IMAGE_SHARE * passed * volume * total / count


def play(
    folder: Path,
    rounds: int,
    *,
    cast: Sequence[tuple[str, str]] = CAST,
    photos: Sequence[bytes] = (),
    seconds: float = 20.0,
    kills: Sequence[tuple[int, str]] = (),
    second: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> Story:
    """Found the network, play, and look at everything that is left.

    Args:
        folder: Empty.
        rounds: Challenges of each miner.
        cast: Who plays.
        photos: Real photos that thieves have.
        seconds: Time for a delivery.
        kills: After which round which service is killed, and started again at once.
        second: Whether another validator with a store of its own asks the same miners.
        say: Told how it goes.
    """
    epoch_blocks = INTERVAL * (rounds - 1) + _LEEWAY
    network = ValidatorNetwork.found(
        folder, cast, photos=photos, epoch_blocks=epoch_blocks, second=second, CHALLENGE_IMAGE_SECONDS=seconds,
        PROMPTS_MIN=0, CALLBACK_PRINTS_SECONDS=5,
    )  # fmt: skip
    # Also when outages move the deadline.
    network.world.late_seconds = 10 * seconds
    # Composing them is the bank's own story.
    network.add_prompts(len(cast) * rounds)
    database, story = network.database(), Story()
    other = None
    if second:
        network.add_prompts(len(cast) * rounds, "second.db")
        other = network.database("second.db")
    try:
        with network.miners(patience=seconds + 60):
            _play(network, database, other, story, rounds, kills, say)
            _look(network, database, other, story, epoch_blocks)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{network.last_words()}") from error
    finally:
        codes = network.stop()
        database.close()
        if other is not None:
            other.close()
    story.problems += [f"{service} ended with status {code}" for service, code in codes.items() if code]
    return story


def _play(
    network: ValidatorNetwork,
    database: Database,
    other: Database | None,
    story: Story,
    rounds: int,
    kills: Sequence[tuple[int, str]],
    say: Callable[[str], None],
) -> None:
    def again(service: str) -> None:
        network.kill(service)
        story.kills.append(service)
        say(f"killed {service}")
        network.start(service)

    # The first round comes with the service, the others with blocks.
    network.start(*SERVICES, *(("two/sn34-validator", "two/sn34-generator") if other is not None else ()))
    hotkeys = [actor.signer.ss58_address for actor in network.actors]
    block, cast = network.advance(0), len(network.actors)
    for number in range(1, rounds + 1):
        if number > 1:
            block = network.advance(INTERVAL - block % INTERVAL)
        wait_for(lambda number=number: _asked(database, hotkeys) == (number * cast, 0), f"round {number}", 180)
        say(f"round {number} at block {block}: {network.counts(database)}")
        for after, service in kills:
            if after == number:
                again(service)
    wait_for(lambda: set(network.counts(database)) <= TERMINAL, "the end of every challenge", 300)
    say(f"all have ended: {network.counts(database)}")
    if other is not None:
        wait_for(lambda: set(network.counts(other)) <= TERMINAL, "the end of the other's challenges", 300)
        say(f"the other's have ended: {network.counts(other)}")
        wait_for(lambda: not _sold_to_both(database, other), "the exchange of prints", 120)
        say(f"no medium counts twice: {network.counts(database)}, {network.counts(other)}")
    network.advance(_LEEWAY + 1)
    if any(service == "sn34-validator" for _, service in kills):
        # In the middle of the epoch, as near as one can come.
        again("sn34-validator")
    wait_for(lambda: _epochs(database) == 2, "the epoch")
    wait_for(lambda: len(asyncio.run(_in_force(network))) > 1, "weights on the chain")


def _sold_to_both(*databases: Database) -> set[str]:
    found = []
    for database in databases:
        with database.read() as session:
            query = select(ChallengeRow.media_sha256).where(ChallengeRow.state == "verified")
            found.append(set(session.scalars(query)))
    return set.intersection(*found)


def _asked(database: Database, hotkeys: Sequence[str]) -> tuple[int, int]:
    with database.read() as session:
        count = select(func.count()).select_from(ChallengeRow).where(ChallengeRow.miner.in_(hotkeys))
        return session.scalar(count) or 0, session.scalar(count.where(ChallengeRow.state == "asked")) or 0


def _epochs(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(WeightsLogRow)) or 0


async def _in_force(network: ValidatorNetwork) -> dict[int, int]:
    chain = LocalChain(network.home / "chain.db", network.actors[0].signer, SystemClock())
    try:
        weights = await chain.weights_in_force(NETUID)
        return next(iter(weights.values()), {})
    finally:
        await chain.close()


def _look(
    network: ValidatorNetwork, database: Database, other: Database | None, story: Story, epoch_blocks: int
) -> None:
    problems = story.problems
    elsewhere: list[ChallengeRow] = []
    if other is not None:
        with other.read() as session:
            elsewhere = list(session.scalars(select(ChallengeRow)))
    with database.read() as session:
        rows = list(session.scalars(select(ChallengeRow)))
        media = {row.sha256: row for row in session.scalars(select(MediumRow).where(MediumRow.source == "miner"))}
        scores = {row.hotkey: row.value for row in session.scalars(select(ScoreRow))}
        logs = list(session.scalars(select(WeightsLogRow).order_by(WeightsLogRow.id)))
    story.epochs, last = len(logs), logs[-1]
    if last.block - logs[0].block < epoch_blocks:
        problems.append("an epoch came too early")
    story.weights = {uid: float(weight) for uid, weight in last.weights.items()}
    factors = {one["hotkey"]: one for one in last.reasons["factors"]["generators"]}
    counted = {}
    for actor in network.actors:
        mine = [row for row in rows if row.miner == actor.signer.ss58_address]
        counted[actor.name] = [
            row
            for row in mine
            if row.state in ("verified", "refused", "failed", "expired") and row.settled_at <= last.created_at
        ]
    vain = {one.name: sum(factors[one.signer.ss58_address]["offences"].values()) for one in network.actors}
    rewards = {name: expected_reward(mine, media, vain[name]) for name, mine in counted.items()}
    total = math.fsum(rewards.values())
    for actor in network.actors:
        hotkey = actor.signer.ss58_address
        mine = [row for row in rows if row.miner == hotkey]
        found, expected = factors[hotkey], rewards[actor.name]
        weight = story.weights.get(str(found["uid"]), 0.0)
        line = Line(
            actor.name,
            actor.behaviour.name,
            len(mine),
            dict(Counter(row.state for row in mine)),
            dict(Counter(str(reason["code"]) for row in mine for reason in row.reasons)),
            found["reward"],
            expected,
            weight,
            vain[actor.name],
            _elsewhere([row for row in elsewhere if row.miner == hotkey]),
        )
        story.lines.append(line)
        _check(problems, f"{actor.name}: reward", found["reward"], expected)
        _check(problems, f"{actor.name}: score", scores.get(hotkey, 0.0), ALPHA * expected)
        _check(problems, f"{actor.name}: weight", weight, GENERATOR_SHARE * expected / total)
        states = {row.task_id: row.state for row in [*(one for one in elsewhere if one.miner == hotkey), *mine]}
        gone = [task for task in actor.taken if states.get(task) not in ("verified", "refused")]
        if gone:
            problems.append(f"{actor.name}: {len(gone)} deliveries that were taken are lost")
        sent = sum(actor.answers[status] for status in (404, 409))
        if vain[actor.name] > sent:
            problems.append(f"{actor.name}: {vain[actor.name]} offences, and {sent} deliveries were in vain")
        if actor.behaviour.name in HONEST:
            known = [task for task in actor.taken if task in states]
            problems += [f"{actor.name}: {task} is {states[task]}" for task in known if states[task] != "verified"]
    doubled = [key for key, count in Counter((row.miner, row.block) for row in rows).items() if count > 1]
    if doubled:
        problems.append(f"{len(doubled)} challenges were made twice")
    open_ones = [row.state for row in rows if row.state not in TERMINAL]
    if open_ones:
        problems.append(f"challenges are open: {Counter(open_ones)}")
    verified = {row.media_sha256 for row in rows if row.state == "verified"}
    withdrawn = {row.media_sha256 for row in rows if any(r["code"] == "sold_elsewhere" for r in row.reasons)}
    if verified | (withdrawn & set(media)) != set(media) or len(verified) != sum(
        row.state == "verified" for row in rows
    ):
        problems.append("verified challenges and media don't match one to one")
    blobs = FolderBlobs(network.home / "blobs")
    for sha256 in media:
        blobs.get(sha256)
    chain = asyncio.run(_in_force(network))
    largest = max(chain.values())
    for uid, weight in story.weights.items():
        share = weight / max(story.weights.values())
        if abs(chain.get(int(uid), 0) / largest - share) > 1e-4:
            problems.append(f"the chain has another weight of uid {uid}")


def _elsewhere(rows: Sequence[ChallengeRow]) -> str:
    """What came of a miner's challenges by the other validator."""
    sold = sum(any(reason["code"] == "sold_elsewhere" for reason in row.reasons) for row in rows)
    verified = sum(row.state == "verified" for row in rows)
    return f"{verified} of {len(rows)}" + (f", {sold} sold elsewhere" if sold else "") if rows else ""


def _check(problems: list[str], what: str, found: float, expected: float) -> None:
    if abs(found - expected) > 1e-9 * max(1.0, abs(expected)):
        problems.append(f"{what} is {found!r} and must be {expected!r}")


def table(story: Story) -> str:
    """The table, in Markdown."""
    lines = [
        "| miner | challenges | verified | refused, by code | expired | failed | untaken | in vain | reward | weight "
        "| second validator |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in story.lines:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(line.codes.items()))
        cells = (
            line.name,
            line.challenges,
            line.states.get("verified", 0),
            f"{line.states.get('refused', 0)}: {codes}" if codes else line.states.get("refused", 0),
            line.states.get("expired", 0),
            line.states.get("failed", 0),
            line.states.get("untaken", 0),
            line.offences,
            f"{line.reward:.6f}",
            f"{line.weight:.6f}",
            line.elsewhere,
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)
